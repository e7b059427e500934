//! Which system this is: distribution, version, name, architecture, and where it stands.

use crate::guest::report::OperatingSystem;
use crate::read_at::ReadAt as _;

use super::files::Files;
use super::{boot, os_release, time};

/// The module.
pub(crate) fn inspect(files: &Files<'_>) -> OperatingSystem {
    let mut system = OperatingSystem { r#type: "linux".to_owned(), ..OperatingSystem::default() };
    identify(files, &mut system);
    system.version_major = system.version.as_deref().and_then(|version| number(version, 0));
    system.version_minor = system.version_major.map(|_| minor(files, &system));
    (system.package_format, system.package_management) = package_tools(files, &system);
    system.osinfo = osinfo(&system);
    system.hostname = hostname(files);
    let machine_id = files.first_line("/etc/machine-id");
    system.machine_id = machine_id.filter(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    system.arch = arch(files);
    system.timezone = timezone(files);
    system.locale = locale(files);
    (system.installed_at, system.installed_at_source) = split(installed_at(files));
    (system.last_boot_at, system.last_boot_at_source) = split(last_boot_at(files));
    boot::inspect(files, &mut system);
    system
}

fn split(found: Option<(i64, &str)>) -> (Option<String>, Option<String>) {
    let time = found.and_then(|(seconds, _)| time::rfc3339(seconds));
    let source = found.filter(|_| time.is_some()).map(|(_, source)| source.to_owned());
    (time, source)
}

/// Reads os-release, and where it is missing the distribution's own file.
fn identify(files: &Files<'_>, system: &mut OperatingSystem) {
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
        let Some(text) = files.text(path) else { continue };
        let value = |key: &str| os_release::value_of(&text, key).filter(|value| !value.is_empty());
        let Some(id) = value("ID").or_else(|| value("NAME").map(|name| name.to_ascii_lowercase())) else { continue };
        system.distribution = Some(id);
        system.id_like =
            value("ID_LIKE").map(|like| like.split_whitespace().map(str::to_owned).collect()).unwrap_or_default();
        system.product_name = value("PRETTY_NAME").or_else(|| value("NAME"));
        system.version = value("VERSION_ID");
        system.codename = value("VERSION_CODENAME").or_else(|| value("VERSION").as_deref().and_then(in_parentheses));
        system.variant = value("VARIANT_ID");
        system.build_id = value("BUILD_ID");
        system.home_url = value("HOME_URL");
        system.support_end = value("SUPPORT_END");
        system.sources.push(path.to_owned());
        return;
    }
    identify_by_own_file(files, system);
}

/// `12 (bookworm)` names `bookworm`; a name of several words is no code name that tools use.
fn in_parentheses(version: &str) -> Option<String> {
    let inner = version.split_once('(')?.1.split_once(')')?.0.trim();
    (!inner.is_empty() && !inner.contains(' ')).then(|| inner.to_ascii_lowercase())
}

/// Systems older than os-release (before about 2012).
fn identify_by_own_file(files: &Files<'_>, system: &mut OperatingSystem) {
    if let Some(text) = files.text("/etc/lsb-release")
        && let Some(id) = os_release::value_of(&text, "DISTRIB_ID")
    {
        system.distribution = Some(id.to_ascii_lowercase());
        system.version = os_release::value_of(&text, "DISTRIB_RELEASE");
        system.codename = os_release::value_of(&text, "DISTRIB_CODENAME");
        system.product_name = os_release::value_of(&text, "DISTRIB_DESCRIPTION");
        system.sources.push("/etc/lsb-release".to_owned());
        return;
    }
    const FILES: [(&str, &str); 12] = [
        ("/etc/fedora-release", "fedora"),
        ("/etc/centos-release", "centos"),
        ("/etc/oracle-release", "ol"),
        ("/etc/redhat-release", "rhel"),
        ("/etc/SuSE-release", "suse"),
        ("/etc/alpine-release", "alpine"),
        ("/etc/debian_version", "debian"),
        ("/etc/arch-release", "arch"),
        ("/etc/gentoo-release", "gentoo"),
        ("/etc/slackware-version", "slackware"),
        ("/etc/photon-release", "photon"),
        ("/etc/mageia-release", "mageia"),
    ];
    for (path, distribution) in FILES {
        if !files.exists(path) {
            continue;
        }
        let line = files.first_line(path);
        let lower = line.as_deref().unwrap_or_default().to_ascii_lowercase();
        let distribution = match distribution {
            // CentOS, Scientific Linux and Fedora also wrote /etc/redhat-release.
            "rhel" if lower.starts_with("centos") => "centos",
            "rhel" if lower.starts_with("fedora") => "fedora",
            "rhel" if lower.starts_with("scientific") => "scientific",
            other => other,
        };
        system.distribution = Some(distribution.to_owned());
        system.version = line.as_deref().and_then(version_in);
        system.codename = line.as_deref().and_then(in_parentheses);
        let names_itself = lower.contains(|c: char| c.is_ascii_alphabetic());
        system.product_name = match distribution {
            "debian" => line.map(|line| format!("Debian GNU/Linux {line}")),
            "alpine" => line.map(|line| format!("Alpine Linux {line}")),
            _ => line.filter(|_| names_itself),
        };
        system.sources.push(path.to_owned());
        return;
    }
}

/// The first word that begins with a digit.
fn version_in(line: &str) -> Option<String> {
    line.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned)
}

/// The `index`th number of a dotted version.
fn number(version: &str, index: usize) -> Option<u32> {
    let part = version.split(['.', '-', '/']).nth(index)?;
    let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
    part.get(..end)?.parse().ok()
}

/// The second number; where VERSION_ID has none, the point release that the distribution writes elsewhere.
fn minor(files: &Files<'_>, system: &OperatingSystem) -> u32 {
    let version = system.version.as_deref().unwrap_or_default();
    if let Some(minor) = number(version, 1) {
        return minor;
    }
    let place = match system.distribution.as_deref() {
        Some("debian" | "raspbian") => "/etc/debian_version",
        Some("centos" | "rhel") => "/etc/redhat-release",
        _ => return 0,
    };
    let line = files.first_line(place).and_then(|line| version_in(&line));
    let same_major = line.filter(|line| number(line, 0) == system.version_major);
    same_major.and_then(|line| number(&line, 1)).unwrap_or(0)
}

/// Format and tool of packages, as the family of the distribution and what is installed say.
fn package_tools(files: &Files<'_>, system: &OperatingSystem) -> (Option<String>, Option<String>) {
    let own = system.distribution.as_deref().into_iter();
    let family = own.chain(system.id_like.iter().map(String::as_str));
    let major = system.version_major.unwrap_or(0);
    for id in family {
        let found = match id {
            "debian" | "ubuntu" | "kali" | "raspbian" | "linuxmint" | "neon" | "pop" | "devuan" => ("deb", "apt"),
            "fedora" if major >= 22 || system.distribution.as_deref() != Some("fedora") => {
                ("rpm", rpm_tool(files, major))
            }
            "fedora" => ("rpm", "yum"),
            "rhel" | "centos" | "almalinux" | "rocky" | "ol" | "scientific" | "amzn" | "azurelinux" | "mariner" => {
                ("rpm", rpm_tool(files, major))
            }
            "photon" => ("rpm", "tdnf"),
            "suse" | "opensuse" | "sles" | "sled" | "opensuse-leap" | "opensuse-tumbleweed" => ("rpm", "zypper"),
            "mageia" => ("rpm", "urpmi"),
            "alpine" => ("apk", "apk"),
            "arch" | "archlinux" | "manjaro" => ("pacman", "pacman"),
            "gentoo" => ("ebuild", "portage"),
            "nixos" => ("nix", "nix"),
            "void" => ("xbps", "xbps"),
            "slackware" => ("pkgtools", "pkgtools"),
            _ => continue,
        };
        return (Some(found.0.to_owned()), Some(found.1.to_owned()));
    }
    // A distribution nobody knows: what lies on the disk decides.
    let evidence = [
        ("/var/lib/dpkg/status", "deb", "apt"),
        ("/lib/apk/db/installed", "apk", "apk"),
        ("/var/lib/pacman/local", "pacman", "pacman"),
        ("/var/lib/rpm", "rpm", "rpm"),
        ("/usr/lib/sysimage/rpm", "rpm", "rpm"),
    ];
    let found = evidence.iter().find(|(path, ..)| files.exists(path));
    (found.map(|(_, format, _)| (*format).to_owned()), found.map(|(.., tool)| (*tool).to_owned()))
}

/// dnf replaced yum in version 8 of the Red Hat family.
fn rpm_tool(files: &Files<'_>, major: u32) -> &'static str {
    if files.first_existing(&["/usr/bin/dnf", "/usr/bin/dnf5", "/usr/bin/microdnf", "/etc/dnf"]).is_some() || major >= 8
    {
        "dnf"
    } else {
        "yum"
    }
}

/// The short id of the osinfo database, as virt-inspector derives it.
fn osinfo(system: &OperatingSystem) -> Option<String> {
    let id = system.distribution.as_deref()?;
    let major = system.version_major;
    let minor = system.version_minor.unwrap_or(0);
    Some(match (id, major) {
        ("debian" | "raspbian", Some(major)) if major >= 4 => format!("debian{major}"),
        ("fedora" | "mageia", Some(major)) => format!("{id}{major}"),
        ("ubuntu", Some(major)) => format!("ubuntu{major}.{minor:02}"),
        ("centos", Some(major)) if major >= 8 => format!("centos{major}"),
        ("centos", Some(7)) => "centos7.0".to_owned(),
        ("centos", Some(major)) => format!("centos{major}.{minor}"),
        ("rocky", Some(major)) => format!("rocky{major}"),
        ("almalinux", Some(major)) => format!("almalinux{major}"),
        ("rhel", Some(major)) => format!("rhel{major}.{minor}"),
        ("ol", Some(major)) => format!("oraclelinux{major}.{minor}"),
        ("sles" | "sled", Some(major)) if minor > 0 => format!("{id}{major}sp{minor}"),
        ("sles" | "sled", Some(major)) => format!("{id}{major}"),
        ("opensuse-tumbleweed", _) => "opensusetumbleweed".to_owned(),
        ("opensuse" | "opensuse-leap", Some(major)) => format!("opensuse{major}.{minor}"),
        ("alpine", Some(major)) => format!("alpinelinux{major}.{minor}"),
        ("kali", Some(major)) => format!("kalilinux{major}.{minor}"),
        ("arch" | "manjaro", _) => "archlinux".to_owned(),
        ("gentoo", _) => "gentoo".to_owned(),
        _ => return None,
    })
}

/// Source: hostname(5), and what older systems used.
pub(crate) fn hostname(files: &Files<'_>) -> Option<String> {
    for path in ["/etc/hostname", "/etc/HOSTNAME"] {
        let text = files.text(path).unwrap_or_default();
        let mut lines = text.lines().map(str::trim);
        if let Some(name) = lines.find(|line| !line.is_empty() && !line.starts_with('#')) {
            return Some(name.to_owned());
        }
    }
    let settings =
        [("/etc/sysconfig/network", "HOSTNAME"), ("/etc/conf.d/hostname", "hostname"), ("/etc/rc.conf", "HOSTNAME")];
    settings
        .iter()
        .find_map(|(path, key)| os_release::value_of(&files.text(path)?, key))
        .filter(|name| !name.is_empty())
}

/// Programs that every system has one of.
const PROGRAMS: [&str; 11] = [
    "/bin/sh",
    "/bin/bash",
    "/bin/ls",
    "/bin/echo",
    "/bin/rm",
    "/sbin/init",
    "/usr/bin/env",
    "/usr/lib/systemd/systemd",
    "/lib/systemd/systemd",
    "/bin/busybox",
    "/usr/bin/dpkg",
];
/// Dynamic loaders by architecture.
const LOADERS: [(&str, &str); 13] = [
    ("/lib64/ld-linux-x86-64.so.2", "x86_64"),
    ("/lib/ld-linux-aarch64.so.1", "aarch64"),
    ("/lib/ld-linux-armhf.so.3", "arm"),
    ("/lib64/ld64.so.2", "ppc64le"),
    ("/lib/ld64.so.1", "s390x"),
    ("/lib/ld-linux-riscv64-lp64d.so.1", "riscv64"),
    ("/lib64/ld-linux-loongarch-lp64d.so.1", "loongarch64"),
    ("/lib/ld-musl-x86_64.so.1", "x86_64"),
    ("/lib/ld-musl-aarch64.so.1", "aarch64"),
    ("/lib/ld-musl-armhf.so.1", "arm"),
    ("/lib/ld-musl-i386.so.1", "i386"),
    ("/lib/ld-musl-riscv64.so.1", "riscv64"),
    ("/lib/ld-linux.so.2", "i386"),
];

fn arch(files: &Files<'_>) -> Option<String> {
    let by_program = PROGRAMS.iter().find_map(|path| {
        let file = files.open(path)?;
        let mut header = [0_u8; 20];
        if file.len() < header.len() as u64 {
            return None;
        }
        match file.read_exact_at(&mut header, 0) {
            Ok(()) => elf_machine(&header),
            Err(error) => {
                files.warn_error(path, &error);
                None
            }
        }
    });
    let by_loader = || LOADERS.iter().find(|(path, _)| files.exists(path)).map(|(_, arch)| *arch);
    by_program.or_else(by_loader).map(str::to_owned)
}

/// Source: the System V ABI, "ELF Header": e_ident, e_machine at 18.
fn elf_machine(header: &[u8; 20]) -> Option<&'static str> {
    let [0x7f, b'E', b'L', b'F', class, order, .., low, high] = *header else { return None };
    let is_little = order == 1;
    let machine = if is_little { u16::from_le_bytes([low, high]) } else { u16::from_be_bytes([low, high]) };
    Some(match (machine, class) {
        (3, _) => "i386",
        (62, 2) => "x86_64",
        (62, _) => "x32",
        (40, _) => "arm",
        (183, _) => "aarch64",
        (20, _) => "ppc",
        (21, _) if is_little => "ppc64le",
        (21, _) => "ppc64",
        (22, 2) => "s390x",
        (22, _) => "s390",
        (8, _) if is_little => "mipsel",
        (8, _) => "mips",
        (2 | 18, _) => "sparc",
        (43, _) => "sparc64",
        (50, _) => "ia64",
        (243, 2) => "riscv64",
        (243, _) => "riscv32",
        (258, _) => "loongarch64",
        _ => return None,
    })
}

/// Source: localtime(5).
fn timezone(files: &Files<'_>) -> Option<String> {
    let by_link = files.link("/etc/localtime").and_then(|target| {
        target.split_once("zoneinfo/").map(|(_, zone)| zone.trim_start_matches("posix/").to_owned())
    });
    let by_setting = || os_release::value_of(&files.text("/etc/sysconfig/clock")?, "ZONE");
    by_link.or_else(|| files.first_line("/etc/timezone")).or_else(by_setting)
}

/// Source: locale.conf(5) and its predecessors.
fn locale(files: &Files<'_>) -> Option<String> {
    let places = ["/etc/locale.conf", "/etc/default/locale", "/etc/sysconfig/i18n"];
    let found = places.iter().find_map(|path| os_release::value_of(&files.text(path)?, "LANG"));
    found.filter(|locale| !locale.is_empty())
}

/// Installers leave their files behind.
fn installed_at(files: &Files<'_>) -> Option<(i64, &'static str)> {
    let traces = [
        "/var/log/installer/lsb-release",
        "/var/log/installer/status",
        "/var/log/installer/syslog",
        "/root/anaconda-ks.cfg",
        "/var/log/anaconda/journal.log",
        "/var/log/YaST2/y2start.log",
        "/var/log/bootstrap.log",
    ];
    traces.iter().find_map(|path| Some((files.stat(path)?.modified.seconds, *path)))
}

/// Bytes of one record of wtmp on 64-bit and 32-bit Linux with glibc (utmp(5)).
const UTMP_RECORD_BYTES: usize = 384;
/// Records looked at from the end: a start is rarely thousands of logins back.
const UTMP_RECORDS_MAX: usize = 4_096;

fn last_boot_at(files: &Files<'_>) -> Option<(i64, &'static str)> {
    const WTMP: &str = "/var/log/wtmp";
    let file = files.open(WTMP)?;
    let whole = file.len() / UTMP_RECORD_BYTES as u64;
    let count = usize::try_from(whole).unwrap_or(usize::MAX).min(UTMP_RECORDS_MAX);
    let mut tail = vec![0_u8; count * UTMP_RECORD_BYTES];
    let start = (whole - count as u64) * UTMP_RECORD_BYTES as u64;
    if let Err(error) = file.read_exact_at(&mut tail, start) {
        files.warn_error(WTMP, &error);
        return None;
    }
    let boots = tail.rchunks_exact(UTMP_RECORD_BYTES).filter_map(boot_record);
    boots.max().map(|seconds| (seconds, WTMP))
}

/// The time of a BOOT_TIME record: ut_type at 0 is 2, ut_tv.tv_sec at 340.
fn boot_record(record: &[u8]) -> Option<i64> {
    let (kind, _) = record.split_first_chunk::<2>()?;
    let (seconds, _) = record.get(340..)?.split_first_chunk::<4>()?;
    (i16::from_le_bytes(*kind) == 2).then(|| i64::from(u32::from_le_bytes(*seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;

    fn found(files: &[(&str, &str)]) -> OperatingSystem {
        let fixture = Fixture::new();
        for (path, text) in files {
            fixture.file(path, text);
        }
        let tree = fixture.tree();
        inspect(&Files::new(&tree))
    }

    #[test]
    fn a_major_only_version_stays_and_the_point_release_is_minor() {
        let text =
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"\n";
        let system =
            found(&[("etc/os-release", text), ("etc/debian_version", "12.5\n"), ("etc/hostname", "# c\nweb\n")]);
        assert_eq!(system.version.as_deref(), Some("12"));
        assert_eq!((system.version_major, system.version_minor), (Some(12), Some(5)));
        assert_eq!(system.product_name.as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(system.codename.as_deref(), Some("bookworm"));
        assert_eq!(system.osinfo.as_deref(), Some("debian12"));
        assert_eq!(system.hostname.as_deref(), Some("web"));
    }

    /// Distribution and osinfo as virt-inspector 1.48 prints them for its own guests.
    #[test]
    fn systems_older_than_os_release_are_known_by_their_own_file() {
        let cases: [(&str, &str, &str, Option<&str>); 5] = [
            ("etc/debian_version", "5.0.1\n", "debian", Some("debian5")),
            ("etc/fedora-release", "Fedora release 14 (Phony)\n", "fedora", Some("fedora14")),
            ("etc/redhat-release", "CentOS release 6.5 (Final)\n", "centos", Some("centos6.5")),
            ("etc/redhat-release", "Red Hat Enterprise Linux Server release 6.4 (Santiago)\n", "rhel", Some("rhel6.4")),
            ("etc/arch-release", "", "arch", Some("archlinux")),
        ];
        for (path, text, distribution, osinfo) in cases {
            let system = found(&[(path, text)]);
            assert_eq!(system.distribution.as_deref(), Some(distribution), "{path}");
            assert_eq!(system.osinfo.as_deref(), osinfo, "{path}");
        }
    }

    #[test]
    fn architectures_are_read_from_programs() {
        let mut header = [0_u8; 20];
        header[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        header[18] = 62;
        assert_eq!(elf_machine(&header), Some("x86_64"));
        header[18] = 183;
        assert_eq!(elf_machine(&header), Some("aarch64"));
        assert_eq!(elf_machine(&[0; 20]), None);
    }

    #[test]
    fn boots_are_told_by_wtmp_and_lies_are_not() {
        let mut record = [0_u8; UTMP_RECORD_BYTES];
        record[0] = 2;
        record[340..344].copy_from_slice(&1_700_000_000_u32.to_le_bytes());
        assert_eq!(boot_record(&record), Some(1_700_000_000));
        record[0] = 7;
        assert_eq!(boot_record(&record), None);
        assert_eq!(boot_record(&[2, 0]), None);
    }
}
