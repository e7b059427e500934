//! The kernel: modules that may be loaded, how it is started, and what confines programs.

use std::collections::BTreeSet;

use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;
use crate::profile::rule::Severity;
use crate::profile::settings::Systemd;
use crate::profile::text::{Assignment, assignments, last};

use super::services::{any_installed, any_started, required};

/// `-` and `_` are one in names of modules.
fn same_name(a: &str, b: &str) -> bool {
    a.replace('-', "_") == b.replace('-', "_")
}

/// Lines of modprobe.d(5): of each name the first directory's file counts.
fn modprobe(guest: &Guest<'_>) -> Vec<(String, usize, Vec<String>)> {
    let mut seen = std::collections::BTreeMap::new();
    for directory in
        ["/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"]
    {
        for path in guest.files.with_suffix(directory, ".conf") {
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            seen.entry(name).or_insert(path);
        }
    }
    let mut lines = Vec::new();
    for path in seen.into_values() {
        for (at, line) in guest.files.text(&path).unwrap_or_default().lines().enumerate() {
            let words: Vec<String> =
                line.split('#').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
            if words.len() > 1 {
                lines.push((path.clone(), at.saturating_add(1), words));
            }
        }
    }
    lines
}

/// Modules that nobody needs cannot be loaded: `with: {modules, for_containers, even_absent}`. One that no installed kernel has needs
/// nothing; the rest need both an `install` that does nothing and a `blacklist`.
pub(crate) fn modules_disabled(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    if !guest.has_kernel() {
        return Outcome::not_applicable("no kernel is installed");
    }
    let lines = modprobe(guest);
    let mut lists = guest.modules().iter().filter_map(|modules| modules.loadable.as_ref()).peekable();
    if lists.peek().is_none() {
        return Outcome::unknown("no modules.dep of an installed kernel could be read");
    }
    let shipped: BTreeSet<&str> = lists.flatten().map(String::as_str).collect();
    // Images of snaps are squashfs, layers of containers overlayfs.
    let has_containers = any_installed(
        guest,
        &["docker-ce", "docker.io", "podman", "containerd", "containerd.io", "snapd", "kubelet", "cri-o"],
    )
    .is_some();
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for module in asked.texts("modules") {
        if has_containers && asked.texts("for_containers").contains(&module) {
            continue;
        }
        let is_shipped = shipped.contains(module.replace('-', "_").as_str());
        // Of some a later kernel of the same distribution may bring what this one lacks.
        if !is_shipped && asked.with.get("even_absent").is_none() {
            looked_at.push(Evidence::absent("modules.dep", module));
            continue;
        }
        let off = ["/bin/false", "/bin/true", "/usr/bin/false", "/usr/bin/true", "false", "true", ":"];
        let install = lines.iter().find(|(_, _, words)| match words.as_slice() {
            [key, name, command, ..] => key == "install" && same_name(name, module) && off.contains(&command.as_str()),
            _ => false,
        });
        let blacklist = lines.iter().find(|(_, _, words)| match words.as_slice() {
            [key, name, ..] => key == "blacklist" && same_name(name, module),
            _ => false,
        });
        let evidence = |found: &(String, usize, Vec<String>)| {
            Evidence::explicit(&*found.0, module, found.2.join(" ")).at_line(found.1)
        };
        match (install, blacklist) {
            (Some(install), Some(_)) => looked_at.push(evidence(install)),
            (Some(found), None) | (None, Some(found)) => bad.push(Bad::new(module, evidence(found))),
            (None, None) => bad.push(Bad::new(module, Evidence::absent("/etc/modprobe.d", module))),
        }
    }
    Outcome::none_of(bad, "modules that can be loaded", "the modules cannot be loaded", looked_at)
}

/// Programs that crash leave nothing of their memory.
pub(crate) fn core_dumps(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let mut paths = vec!["/etc/security/limits.conf".to_owned()];
    paths.extend(guest.files.with_suffix("/etc/security/limits.d", ".conf"));
    let mut limit = None;
    for path in paths {
        for (at, line) in guest.files.text(&path).unwrap_or_default().lines().enumerate() {
            let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            if let ["*", "hard" | "-", "core", value] = words.as_slice() {
                limit = Some((
                    (*value).to_owned(),
                    Evidence::explicit(&*path, "* hard core", *value).at_line(at.saturating_add(1)),
                ));
            }
        }
    }
    let mut evidence: Vec<_> = limit.iter().map(|(_, evidence)| evidence.clone()).collect();
    if limit.as_ref().map(|(value, _)| value.as_str()) != Some("0") {
        evidence.push(Evidence::absent("/etc/security/limits.conf", "* hard core 0"));
        return Outcome::fail("every program may leave a core", evidence);
    }
    if any_installed(guest, &["systemd-coredump"]).is_some() || guest.unit("systemd-coredump.socket").is_some() {
        let settings = Systemd::read(guest, "coredump.conf");
        let (storage, size) = (settings.get("Coredump", "Storage"), settings.get("Coredump", "ProcessSizeMax"));
        let stores = storage.as_ref().is_none_or(|(value, _)| value != "none");
        let takes = size.as_ref().is_none_or(|(value, _)| !matches!(value.as_str(), "0" | "0B" | "0K"));
        evidence.extend([storage, size].into_iter().flatten().map(|(_, evidence)| evidence));
        if stores || takes {
            return Outcome::fail("systemd-coredump keeps cores", evidence);
        }
    }
    Outcome::pass("no program leaves a core", evidence)
}

fn no_kernel(guest: &Guest<'_>) -> Option<Outcome> {
    (!guest.has_kernel()).then(|| Outcome::not_applicable("no kernel is installed"))
}

/// Files in which boot loaders keep what they start.
fn loader_files(guest: &Guest<'_>) -> Vec<String> {
    let mut paths: Vec<String> = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"]
        .into_iter()
        .filter(|path| guest.files.exists(path))
        .map(str::to_owned)
        .collect();
    paths.extend(guest.files.glob("/boot/efi/EFI/*/grub.cfg"));
    paths
}

/// The boot loader asks before it lets anybody change what it starts.
pub(crate) fn loader_password(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if let Some(outcome) = no_kernel(guest) {
        return outcome;
    }
    let loaders = ["/boot/loader/loader.conf", "/boot/efi/loader/loader.conf", "/efi/loader/loader.conf"];
    let grub = loader_files(guest);
    for path in grub.iter().map(String::as_str).chain(["/boot/grub2/user.cfg", "/boot/grub/user.cfg"]) {
        let text = guest.files.text(path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
        let superusers = lines.iter().any(|line| line.starts_with("set superusers="));
        let password =
            lines.iter().any(|line| line.starts_with("password_pbkdf2 ") && !line.contains("${GRUB2_PASSWORD}"));
        let by_file = lines.iter().any(|line| line.starts_with("GRUB2_PASSWORD=grub.pbkdf2"));
        if (superusers && password) || by_file {
            return Outcome::pass(
                "GRUB asks for a password",
                vec![Evidence::explicit(path, "password", "set (not shown)")],
            );
        }
    }
    if let Some(path) = loaders.into_iter().find(|path| guest.files.exists(path)) {
        let lines = assignments(guest.files, path);
        let editor = lines.iter().rfind(|one| one.key == "editor");
        return match editor {
            Some(one) if matches!(one.value.as_str(), "no" | "false" | "0" | "off") => {
                Outcome::pass("systemd-boot lets nobody edit", vec![one.evidence()])
            }
            _ => Outcome::fail(
                "systemd-boot lets everybody edit the kernel's arguments",
                vec![Evidence::absent(path, "editor no")],
            ),
        };
    }
    if grub.is_empty() {
        return Outcome::unknown("no configuration of a boot loader that is known here was found");
    }
    let looked = grub.into_iter().map(|path| Evidence::absent(path, "superusers, password_pbkdf2")).collect();
    Outcome::fail("GRUB lets everybody edit the kernel's arguments", looked)
}

/// Arguments that switch off what protects, and what they switch off.
const INSECURE: [&str; 22] = [
    "selinux=0",
    "enforcing=0",
    "apparmor=0",
    "security=none",
    "audit=0",
    "mitigations=off",
    "nosmap",
    "nosmep",
    "nokaslr",
    "nopti",
    "pti=off",
    "spectre_v2=off",
    "nospectre_v1",
    "nospectre_v2",
    "spec_store_bypass_disable=off",
    "mds=off",
    "tsx_async_abort=off",
    "systemd.debug-shell",
    "rd.break",
    "single",
    "slub_debug=-",
    "module.sig_enforce=0",
];

fn insecure(line: &str) -> Vec<String> {
    let is_bad = |word: &&str| {
        INSECURE.iter().any(|known| {
            word == known
                || (*known == "systemd.debug-shell"
                    && (word.starts_with("systemd.debug-shell=1") || word.starts_with("systemd.debug_shell")))
        }) || word.strip_prefix("init=").is_some_and(|program| program.starts_with("/bin/") || program.ends_with("sh"))
    };
    let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect();
    let key = |word: &str| word.split_once('=').map(|(key, _)| key.to_owned());
    // Of an argument with a value the last one counts.
    let is_last = |at: usize, word: &str| {
        let own = key(word);
        own.is_none() || !words.iter().skip(at.saturating_add(1)).any(|later| key(later) == own)
    };
    let counted = words.iter().enumerate().filter(|(at, word)| is_last(*at, word));
    counted.map(|(_, word)| *word).filter(is_bad).map(str::to_owned).collect()
}

/// Arguments that `/etc/default/grub` gives to the kernels of the next update-grub.
fn pending(guest: &Guest<'_>) -> Vec<Assignment> {
    let mut all = assignments(guest.files, "/etc/default/grub");
    for path in guest.files.with_suffix("/etc/default/grub.d", ".cfg") {
        all.extend(assignments(guest.files, &path));
    }
    all.retain(|one| matches!(one.key.as_str(), "GRUB_CMDLINE_LINUX" | "GRUB_CMDLINE_LINUX_DEFAULT"));
    // The last assignment of each counts.
    let mut kept: Vec<Assignment> = Vec::new();
    for one in all {
        kept.retain(|known| known.key != one.key);
        kept.push(one);
    }
    kept
}

/// Nothing that protects is switched off at start.
pub(crate) fn cmdline_insecure(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if let Some(outcome) = no_kernel(guest) {
        return outcome;
    }
    let Some(line) = &guest.system.operating_system.kernel_command_line else {
        return Outcome::unknown("the kernel's command line is not known");
    };
    let evidence = Evidence::explicit("kernel command line", "arguments", &**line);
    let active = insecure(line);
    if !active.is_empty() {
        return Outcome::fail(format!("the kernel is started with {}", active.join(", ")), vec![evidence])
            .with_subjects(active);
    }
    let waiting: Vec<_> = pending(guest).into_iter().filter(|one| !insecure(&one.value).is_empty()).collect();
    if let Some(one) = waiting.first() {
        let words = insecure(&one.value);
        return Outcome::warn(
            format!("from the next update of GRUB the kernel is started with {}", words.join(", ")),
            vec![evidence, one.evidence()],
        )
        .with_subjects(words);
    }
    Outcome::pass("the kernel's arguments switch nothing off", vec![evidence])
}

/// What `/etc/default/grub` says is what is started.
pub(crate) fn config_stale(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    if let Some(outcome) = no_kernel(guest) {
        return outcome;
    }
    if !guest.files.exists("/etc/default/grub") {
        return Outcome::not_applicable("GRUB is not configured by /etc/default/grub");
    }
    let Some(line) = &guest.system.operating_system.kernel_command_line else {
        return Outcome::unknown("the kernel's command line is not known");
    };
    let active: Vec<&str> = line.split_whitespace().collect();
    let mut missing = Vec::new();
    for one in pending(guest) {
        for word in one.value.split_whitespace().map(|word| word.trim_matches(['"', '\''])) {
            // What is shown while starting makes no difference afterwards.
            let is_cosmetic = ["quiet", "splash", "rhgb"].contains(&word);
            if !word.is_empty() && !is_cosmetic && !word.starts_with('$') && !active.contains(&word) {
                missing.push(Bad::new(word, one.evidence()));
            }
        }
    }
    let looked_at = vec![Evidence::explicit("kernel command line", "arguments", &**line)];
    Outcome::none_of(
        missing,
        "arguments that wait for update-grub",
        "GRUB starts what its configuration says",
        looked_at,
    )
}

/// The rescue shell asks for root's password.
pub(crate) fn single_user_auth(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let Some(_) = guest.services() else { return Outcome::unknown("no service manager was found") };
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for name in ["rescue.service", "emergency.service"] {
        let Some(unit) = guest.unit(name) else { continue };
        let mut file = crate::guest::linux::unit::UnitFile::parse(&guest.files.text(&unit.path).unwrap_or_default());
        for path in &unit.drop_ins {
            file.merge(&guest.files.text(path).unwrap_or_default());
        }
        let command = file.last("Service", "ExecStart").unwrap_or_default().to_owned();
        let asks = command.contains("sulogin") || command.contains("systemd-sulogin-shell");
        let forced =
            file.values("Service", "Environment").iter().any(|value| value.contains("SYSTEMD_SULOGIN_FORCE=1"));
        let evidence = Evidence::explicit(&*unit.path, "ExecStart", &*command);
        if !asks || forced {
            bad.push(Bad::new(name, evidence));
        } else {
            looked_at.push(evidence);
        }
    }
    if let Some(root) = guest.users().iter().find(|user| user.name == "root" && user.password_state == "empty") {
        bad.push(Bad::new("root's empty password", Evidence::explicit("/etc/shadow", &*root.name, "empty password")));
    }
    if looked_at.is_empty() && bad.is_empty() {
        return Outcome::unknown("neither rescue.service nor emergency.service is there");
    }
    Outcome::none_of(bad, "a rescue shell asks for nothing", "a rescue shell asks for root's password", looked_at)
}

/// SELinux enforces a policy that is there.
pub(crate) fn selinux_mode(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let selinux = guest.system.security.as_ref().and_then(|security| security.selinux.as_ref());
    let line = guest.system.operating_system.kernel_command_line.clone().unwrap_or_default();
    let config = "/etc/selinux/config";
    let lines = assignments(guest.files, config);
    let fact = last(&lines, "SELINUX", config);
    let Some(selinux) = selinux else {
        return Outcome::fail("SELinux is not configured", vec![Evidence::absent(config, "SELINUX")]);
    };
    let mut evidence = fact.evidence;
    if let Some(word) = line.split_whitespace().find(|word| matches!(*word, "selinux=0" | "enforcing=0")) {
        evidence.push(Evidence::explicit("kernel command line", "SELinux", word));
        return Outcome::fail(format!("the kernel is started with {word}"), evidence);
    }
    match selinux.mode.as_deref() {
        Some("enforcing") if selinux.policy_installed => Outcome::pass("SELinux enforces its policy", evidence),
        Some("enforcing") => Outcome::fail("SELinux should enforce a policy that is not installed", evidence),
        Some("permissive") => {
            Outcome::fail("SELinux only records (permissive)", evidence).with_severity(Severity::Medium)
        }
        other => Outcome::fail(format!("SELinux is {}", other.unwrap_or("not configured")), evidence),
    }
}

/// Files of the system carry their labels.
pub(crate) fn selinux_labels(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let is_on = guest
        .system
        .security
        .as_ref()
        .and_then(|security| security.selinux.as_ref())
        .is_some_and(|selinux| matches!(selinux.mode.as_deref(), Some("enforcing" | "permissive")));
    if !is_on {
        return Outcome::not_applicable("SELinux is not in use");
    }
    if let Some(metadata) = guest.files.stat("/.autorelabel") {
        return Outcome::pass(
            "labels are written anew at the next start",
            vec![super::ssh::stat("/.autorelabel", &metadata)],
        );
    }
    let sample = [
        "/etc/shadow",
        "/etc/passwd",
        "/etc/ssh/sshd_config",
        "/usr/sbin/sshd",
        "/usr/lib/systemd/systemd",
        "/usr/bin/bash",
        "/usr/bin/su",
        "/etc/fstab",
        "/usr/bin/passwd",
        "/etc/group",
    ];
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for path in sample {
        let Ok(Some(real)) = guest.root.tree.canonicalize(path) else { continue };
        let Ok(Some(attributes)) = guest.root.tree.extended_attributes(&real) else { continue };
        let label = attributes.iter().find(|attribute| attribute.name == b"security.selinux");
        let label = label.map(|label| String::from_utf8_lossy(&label.value).trim_end_matches('\0').to_owned());
        match label {
            Some(label) if !label.contains("unlabeled_t") => {
                looked_at.push(Evidence::metadata(path, "security.selinux", label));
            }
            other => bad.push(Bad::new(
                path,
                Evidence::metadata(path, "security.selinux", other.unwrap_or_else(|| "none".to_owned())),
            )),
        }
    }
    if looked_at.is_empty() && bad.is_empty() {
        return Outcome::unknown("none of the files that are looked at is there");
    }
    Outcome::none_of(bad, "files without a label", "files carry their labels", looked_at)
}

/// AppArmor is installed, starts, and is not switched off; profiles that only complain are told.
pub(crate) fn apparmor(guest: &Guest<'_>, asked: &Asked<'_>) -> Outcome {
    let (packages, files) = (["apparmor", "apparmor-parser"], ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"]);
    let package = match required(guest, &packages, &files, "AppArmor is not installed", "apparmor") {
        Ok(package) => package,
        Err(outcome) => return outcome,
    };
    let Some(unit) = any_started(guest, &["apparmor.service"]) else {
        return Outcome::fail("apparmor.service is not enabled: no profile is loaded", vec![package]);
    };
    let line = guest.system.operating_system.kernel_command_line.clone().unwrap_or_default();
    let off = line.split_whitespace().find(|word| {
        matches!(*word, "apparmor=0" | "security=selinux" | "security=none")
            || word.strip_prefix("lsm=").is_some_and(|list| !list.split(',').any(|one| one == "apparmor"))
    });
    if let Some(word) = off {
        return Outcome::fail(
            format!("the kernel is started with {word}"),
            vec![package, unit, Evidence::explicit("kernel command line", "AppArmor", word)],
        );
    }
    if asked.semantics == crate::profile::Semantics::Explicit
        && !line.split_whitespace().any(|word| word == "apparmor=1")
    {
        return Outcome::fail("apparmor=1 is not among the kernel's arguments", vec![package, unit]);
    }
    let apparmor = guest.system.security.as_ref().and_then(|security| security.apparmor.as_ref());
    let lax: Vec<String> = apparmor
        .map(|apparmor| apparmor.disabled.iter().chain(&apparmor.complain).cloned().collect())
        .unwrap_or_default();
    if !lax.is_empty() && apparmor.is_some_and(|apparmor| lax.len() >= apparmor.profiles.len()) {
        return Outcome::warn(format!("profiles that enforce nothing: {}", lax.join(", ")), vec![package, unit])
            .with_severity(Severity::Medium)
            .with_subjects(lax);
    }
    Outcome::pass("AppArmor is installed and starts", vec![package, unit])
}
