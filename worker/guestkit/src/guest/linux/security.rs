//! How the guest is set to defend itself, from configuration alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::guest::report::{
    Apparmor, Auditd, OperatingSystem, Package, Pam, SecureBoot, Security, Selinux, Services, Sysctl,
};

use super::files::Files;
use super::{certificates, firewall, os_release, sshd};

/// The module. `services` tells what is enabled.
pub(crate) fn inspect(
    files: &Files<'_>,
    system: &OperatingSystem,
    packages: &[Package],
    services: &Services,
) -> Security {
    let is_enabled = |name: &str| is_enabled(services, name);
    let mut ssh = sshd::inspect(files, packages);
    if let Some(ssh) = &mut ssh {
        let names = ["ssh.service", "sshd.service", "ssh.socket", "sshd.socket", "ssh", "sshd"];
        ssh.enabled = Some(names.iter().any(|name| is_enabled(name)));
        for error in &ssh.errors {
            files.warn("/etc/ssh/sshd_config", format!("the server would refuse to start: {error}"));
        }
    }
    Security {
        selinux: selinux(files),
        apparmor: apparmor(files, is_enabled("apparmor.service") || is_enabled("apparmor")),
        firewalls: firewall::inspect(files, is_enabled),
        ssh,
        pam: pam(files),
        auditd: auditd(files, is_enabled("auditd.service") || is_enabled("auditd")),
        kernel_command_line: system.kernel_command_line.clone(),
        sysctls: sysctls(files),
        secure_boot: secure_boot(files, packages),
        certificates: certificates::read(files),
        windows: None,
    }
}

/// Whether a unit or script starts with the system: enabled, or pulled in by a link whatever its own file asks for.
pub(crate) fn is_enabled(services: &Services, name: &str) -> bool {
    let Some(unit) = services.units.iter().find(|unit| unit.name == name) else { return false };
    // What systemctl refuses to judge may have a file all the same, and that is what starts.
    let has_file = || unit.exec_start.is_some() || unit.description.is_some() || !unit.triggers.is_empty();
    match unit.state.as_str() {
        "enabled" | "enabled-runtime" | "generated" | "transient" => true,
        "masked" | "masked-runtime" => false,
        "alias" => unit.alias_of.as_deref().is_some_and(|real| real != name && is_enabled(services, real)),
        "bad" => has_file() && !unit.wanted_by.is_empty(),
        _ => !unit.wanted_by.is_empty(),
    }
}

/// Source: selinux_config(5).
fn selinux(files: &Files<'_>) -> Option<Selinux> {
    let text = files.text("/etc/selinux/config")?;
    let policy = os_release::value_of(&text, "SELINUXTYPE");
    let installed = policy.as_ref().is_some_and(|policy| files.is_dir(&format!("/etc/selinux/{policy}/policy")));
    Some(Selinux {
        mode: os_release::value_of(&text, "SELINUX").map(|mode| mode.to_ascii_lowercase()),
        policy,
        policy_installed: installed,
    })
}

/// Profiles that are read for their flags: distributions ship some hundreds.
const PROFILES_MAX: usize = 2_000;

/// Source: apparmor(7), apparmor.d(5), aa-disable(8), aa-complain(8).
fn apparmor(files: &Files<'_>, enabled: bool) -> Option<Apparmor> {
    let installed =
        files.first_existing(&["/usr/sbin/apparmor_parser", "/lib/apparmor/functions", "/usr/lib/apparmor"]);
    installed?;
    let is_file = |entry: &super::files::Entry| {
        entry.file_type == Some(crate::filesystem::FileType::Regular) && !entry.name.starts_with('.')
    };
    let profiles = files.entries("/etc/apparmor.d").into_iter().filter(is_file).map(|entry| entry.name);
    // The backups that apparmor_parser(8) leaves out.
    let left_out = [".dpkg-new", ".dpkg-old", ".dpkg-dist", ".dpkg-bak", ".rpmnew", ".rpmsave", "~"];
    let is_profile = |name: &String| name != "README" && !left_out.iter().any(|end| name.ends_with(end));
    let profiles: Vec<_> = profiles.filter(is_profile).collect();
    if profiles.len() > PROFILES_MAX {
        files.warn("/etc/apparmor.d", format!("flags of profiles past the first {PROFILES_MAX} are not read"));
    }
    let mut complain: BTreeSet<_> = files.names("/etc/apparmor.d/force-complain").into_iter().collect();
    let complains =
        |name: &&String| files.text(&format!("/etc/apparmor.d/{name}")).is_some_and(|text| complains(&text));
    complain.extend(profiles.iter().take(PROFILES_MAX).filter(complains).cloned());
    Some(Apparmor {
        enabled,
        disabled: files.names("/etc/apparmor.d/disable"),
        complain: complain.into_iter().collect(),
        profiles,
    })
}

/// Whether a profile of the file's outermost level has the flag `complain`, which aa-complain(8) writes.
fn complains(text: &str) -> bool {
    let mut depth = 0_usize;
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        if line.ends_with('{') {
            let flags = line.split_once("flags=(").and_then(|(_, rest)| rest.split_once(')')).map(|(flags, _)| flags);
            let has_flag = flags.is_some_and(|flags| flags.split([',', ' ']).any(|flag| flag == "complain"));
            if depth == 0 && has_flag {
                return true;
            }
            depth = depth.saturating_add(1);
        } else if line.starts_with('}') {
            depth = depth.saturating_sub(1);
        }
    }
    false
}

/// The stacks that a login passes.
const STACKS: [&str; 14] = [
    "common-account",
    "common-auth",
    "common-password",
    "common-session",
    "login",
    "other",
    "passwd",
    "password-auth",
    "postlogin",
    "sshd",
    "su",
    "sudo",
    "system-auth",
    "system-login",
];

/// Source: pam.d(5), pam_unix(8).
fn pam(files: &Files<'_>) -> Option<Pam> {
    let services = files.names("/etc/pam.d");
    if services.is_empty() {
        return None;
    }
    let mut report = Pam { services, ..Pam::default() };
    let mut modules = BTreeSet::new();
    for stack in STACKS.iter().filter(|stack| report.services.iter().any(|service| service == *stack)) {
        let text = files.text(&format!("/etc/pam.d/{stack}")).unwrap_or_default();
        for line in text.lines() {
            let Some((r#type, module, arguments)) = pam_line(line) else { continue };
            report.password_quality |=
                r#type == "password" && ["pam_pwquality", "pam_cracklib", "pam_passwdqc"].contains(&module);
            report.lockout |= r#type == "auth" && ["pam_faillock", "pam_tally2", "pam_tally"].contains(&module);
            if module == "pam_unix" {
                report.empty_passwords |= r#type == "auth" && arguments.iter().any(|word| word.starts_with("nullok"));
                let algorithms = ["yescrypt", "gost_yescrypt", "sha512", "sha256", "blowfish", "md5", "bigcrypt"];
                let chosen = arguments.iter().find(|word| r#type == "password" && algorithms.contains(word));
                if report.password_algorithm.is_none() {
                    report.password_algorithm = chosen.map(|word| (*word).to_owned());
                }
            }
            modules.insert(module.to_owned());
        }
    }
    report.modules = modules.into_iter().collect();
    Some(report)
}

/// `type control module arguments`; the control may be a list in brackets.
fn pam_line(line: &str) -> Option<(&str, &str, Vec<&str>)> {
    let line = line.split('#').next()?.trim();
    let (r#type, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?.1,
        None => rest.split_once(char::is_whitespace)?.1,
    };
    let mut words = rest.split_whitespace();
    let module = words.next()?.rsplit('/').next()?.strip_suffix(".so")?;
    Some((r#type.trim_start_matches('-'), module, words.collect()))
}

/// Source: auditd(8), augenrules(8).
fn auditd(files: &Files<'_>, enabled: bool) -> Option<Auditd> {
    files.first_existing(&["/sbin/auditd", "/usr/sbin/auditd", "/etc/audit/auditd.conf"])?;
    let mut sources = files.with_suffix("/etc/audit/rules.d", ".rules");
    if sources.is_empty() {
        sources.push("/etc/audit/audit.rules".to_owned());
    }
    let is_rule = |line: &str| ["-w ", "-a ", "-A "].iter().any(|option| line.trim_start().starts_with(option));
    let count = |path: &String| files.text(path).map_or(0, |text| text.lines().filter(|line| is_rule(line)).count());
    Some(Auditd { enabled, rules: sources.iter().map(count).sum::<usize>() as u64 })
}

/// Where sysctl.d(5) looks: of each name the first directory's file counts; files apply in order of name.
const SYSCTL_DIRECTORIES: [&str; 5] =
    ["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"];

/// The settings that stand in the end.
pub(crate) fn sysctls(files: &Files<'_>) -> Vec<Sysctl> {
    let mut by_name: BTreeMap<String, String> = BTreeMap::new();
    for directory in SYSCTL_DIRECTORIES {
        for path in files.with_suffix(directory, ".conf") {
            by_name.entry(path.rsplit('/').next().unwrap_or_default().to_owned()).or_insert(path);
        }
    }
    let mut settings: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut take = |path: &str| {
        let text = files.text(path).unwrap_or_default();
        for (key, value) in text.lines().filter_map(sysctl_line) {
            settings.insert(key, (value, path.to_owned()));
        }
    };
    for path in by_name.values() {
        take(path);
    }
    // systemd reads /etc/sysctl.conf only through a link; sysctl(8) --system reads it last.
    let is_linked = by_name.values().any(|path| files.link(path).is_some_and(|target| target.ends_with("sysctl.conf")));
    if !is_linked {
        take("/etc/sysctl.conf");
    }
    let entries = settings.into_iter();
    entries.map(|(key, (value, source))| Sysctl { key, value, source }).collect()
}

/// `key = value`; `-` before the key ignores errors, `/` may stand for dots.
fn sysctl_line(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return None;
    }
    let (key, value) = line.split_once('=')?;
    let key = key.trim().trim_start_matches('-');
    // The first separator decides which one it is (sysctl.d(5)).
    let dotted = match key.find(['/', '.']).and_then(|at| key.get(at..)?.chars().next()) {
        Some('/') => key
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => key.to_owned(),
    };
    (!dotted.is_empty()).then(|| (dotted, value.trim().to_owned()))
}

fn secure_boot(files: &Files<'_>, packages: &[Package]) -> Option<SecureBoot> {
    let installed =
        |name: &str| packages.iter().any(|package| package.name.starts_with(name) && package.state == "installed");
    let shim = ["/boot/efi/EFI", "/efi/EFI", "/boot/EFI"].iter().any(|efi| {
        files.names(efi).iter().any(|vendor| {
            let names = files.names(&format!("{efi}/{vendor}"));
            names.iter().any(|name| name.to_ascii_lowercase().starts_with("shim"))
        })
    });
    let found = SecureBoot {
        shim,
        signed_boot_packages: installed("shim-signed") || installed("grub-efi-amd64-signed") || installed("shim-x64"),
        machine_owner_key: files
            .first_existing(&["/var/lib/shim-signed/mok/MOK.der", "/var/lib/dkms/mok.pub"])
            .is_some(),
    };
    (found.shim || found.signed_boot_packages || found.machine_owner_key).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;
    use crate::guest::report::Unit;

    #[test]
    fn what_a_link_pulls_in_starts_whatever_its_file_asks_for() {
        let unit = |name: &str, state: &str, pulled: bool, command: Option<&str>| Unit {
            name: name.to_owned(),
            state: state.to_owned(),
            wanted_by: pulled.then(|| "multi-user.target".to_owned()).into_iter().collect(),
            exec_start: command.map(str::to_owned),
            alias_of: (state == "alias").then(|| "pulled.service".to_owned()),
            ..Unit::default()
        };
        let units = vec![
            unit("pulled.service", "disabled", true, None),
            unit("left.service", "disabled", false, None),
            unit("masked.service", "masked", true, None),
            unit("gone.service", "bad", true, None),
            unit("invalid.service", "bad", true, Some("/x")),
            unit("other.service", "alias", false, None),
        ];
        let services = Services { units, ..Services::default() };
        let starts: Vec<_> = services.units.iter().map(|unit| is_enabled(&services, &unit.name)).collect();
        assert_eq!(starts, [true, false, false, false, true, true]);
    }

    #[test]
    fn sysctl_files_apply_in_order_of_name_and_the_first_directory_wins() {
        let fixture = Fixture::new();
        fixture.file("usr/lib/sysctl.d/50-a.conf", "kernel.x = 1\n-net/ipv4/conf/eth0.1/y=5\n");
        fixture.file("etc/sysctl.d/60-b.conf", "kernel.x=2\n# z = 1\n; z = 2\n");
        fixture.file("usr/lib/sysctl.d/60-b.conf", "kernel.hidden=1\n");
        fixture.file("etc/sysctl.conf", "kernel.last=1\n");
        let tree = fixture.tree();
        let found = sysctls(&Files::new(&tree));
        let shown: Vec<_> = found.iter().map(|s| (s.key.as_str(), s.value.as_str(), s.source.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("kernel.last", "1", "/etc/sysctl.conf"),
                ("kernel.x", "2", "/etc/sysctl.d/60-b.conf"),
                ("net.ipv4.conf.eth0/1.y", "5", "/usr/lib/sysctl.d/50-a.conf"),
            ]
        );
    }

    #[test]
    fn profiles_complain_by_link_or_by_flag() {
        let fixture = Fixture::new();
        fixture.file("usr/sbin/apparmor_parser", "");
        fixture.file(
            "etc/apparmor.d/a",
            "# flags=(complain) {\nprofile a /{usr/,}bin/a flags=(attach_disconnected,complain) {\n  /x r,\n}\n",
        );
        fixture.file("etc/apparmor.d/b", "/bin/b {\n  profile child flags=(complain) {\n  }\n}\n");
        fixture.file("etc/apparmor.d/c", "/bin/c {\n}\n");
        fixture.file("etc/apparmor.d/c.dpkg-old", "/bin/c flags=(complain) {\n}\n");
        fixture.link("etc/apparmor.d/force-complain/c", "../c");
        let tree = fixture.tree();
        let found = apparmor(&Files::new(&tree), true).unwrap();
        assert_eq!((found.profiles.join(","), found.complain.join(",")), ("a,b,c".to_owned(), "a,c".to_owned()));
    }

    #[test]
    fn pam_lines_are_read_with_bracketed_controls() {
        let line = "auth [success=1 default=ignore] pam_unix.so nullok # x";
        assert_eq!(pam_line(line), Some(("auth", "pam_unix", vec!["nullok"])));
        assert_eq!(pam_line("-session optional pam_systemd.so"), Some(("session", "pam_systemd", vec![])));
        for bad in ["", "auth", "auth [", "@include common-auth", "auth required"] {
            assert_eq!(pam_line(bad), None, "{bad:?}");
        }
    }
}
