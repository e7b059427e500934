//! Which system this is: distribution, version, name, architecture, and where it stands.

use crate::bytes;
use crate::guest::report::OperatingSystem;
use crate::read_at::ReadAt as _;

use super::files::Files;
use super::release::version_in;
use super::{boot, os_release, osinfo, release, time};

/// The module.
pub(crate) fn inspect(files: &Files<'_>) -> OperatingSystem {
    let mut system = OperatingSystem { r#type: "linux".to_owned(), ..OperatingSystem::default() };
    release::identify(files, &mut system);
    system.version_major = system.version.as_deref().and_then(|version| number(version, 0));
    system.version_minor = system.version_major.map(|_| minor(files, &system));
    (system.package_format, system.package_management) = package_tools(files, &system);
    system.osinfo = osinfo::short_id(&system);
    system.hostname = hostname(files);
    system.fqdn = system.hostname.as_deref().and_then(|name| fqdn(files, name));
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

/// Format and tool of packages by the distribution's ID. Tools that virt-inspector has no word for keep their own.
const PACKAGE_TOOLS: [(&str, &str, &str); 42] = [
    ("debian", "deb", "apt"),
    ("ubuntu", "deb", "apt"),
    ("kali", "deb", "apt"),
    ("raspbian", "deb", "apt"),
    ("linuxmint", "deb", "apt"),
    ("neon", "deb", "apt"),
    ("pop", "deb", "apt"),
    ("devuan", "deb", "apt"),
    ("fedora", "rpm", "dnf"),
    ("rhel", "rpm", "dnf"),
    ("centos", "rpm", "dnf"),
    ("almalinux", "rpm", "dnf"),
    ("rocky", "rpm", "dnf"),
    ("ol", "rpm", "dnf"),
    ("scientific", "rpm", "dnf"),
    ("cloudlinux", "rpm", "dnf"),
    ("amzn", "rpm", "dnf"),
    ("neokylin", "rpm", "dnf"),
    ("openmandriva", "rpm", "dnf"),
    ("openEuler", "rpm", "dnf"),
    ("azurelinux", "rpm", "tdnf"),
    ("mariner", "rpm", "tdnf"),
    ("photon", "rpm", "tdnf"),
    ("meego", "rpm", "zypper"),
    ("suse", "rpm", "zypper"),
    ("opensuse", "rpm", "zypper"),
    ("sles", "rpm", "zypper"),
    ("sled", "rpm", "zypper"),
    ("opensuse-leap", "rpm", "zypper"),
    ("opensuse-tumbleweed", "rpm", "zypper"),
    ("altlinux", "rpm", "apt"),
    ("mageia", "rpm", "urpmi"),
    ("mandriva", "rpm", "urpmi"),
    ("alpine", "apk", "apk"),
    ("arch", "pacman", "pacman"),
    ("manjaro", "pacman", "pacman"),
    ("gentoo", "ebuild", "portage"),
    ("nixos", "nix", "nix"),
    ("void", "xbps", "xbps"),
    ("slackware", "pkgtools", "pkgtools"),
    ("openwrt", "ipk", "opkg"),
    ("solus", "eopkg", "eopkg"),
];
/// Distributions of images that are replaced as a whole: they have no packages to manage.
const IMAGES: [&str; 7] = ["flatcar", "coreos", "rancheros", "talos", "cirros", "buildroot", "android"];

/// Format and tool of packages, as the distribution or its family and what is installed say.
fn package_tools(files: &Files<'_>, system: &OperatingSystem) -> (Option<String>, Option<String>) {
    let own = system.distribution.as_deref().unwrap_or_default();
    if IMAGES.contains(&own) {
        return (None, None);
    }
    let family = std::iter::once(own).chain(system.id_like.iter().map(String::as_str));
    let by_family = family.into_iter().find_map(|id| PACKAGE_TOOLS.iter().find(|(known, ..)| *known == id));
    // A distribution nobody knows: what lies on the disk decides.
    let evidence = [
        ("/var/lib/dpkg/status", "deb", "apt"),
        ("/lib/apk/db/installed", "apk", "apk"),
        ("/var/lib/pacman/local", "pacman", "pacman"),
        ("/var/lib/rpm", "rpm", "rpm"),
        ("/usr/lib/sysimage/rpm", "rpm", "rpm"),
    ];
    let by_evidence = || evidence.iter().find(|(path, ..)| files.exists(path));
    let Some((_, format, tool)) = by_family.or_else(by_evidence) else { return (None, None) };
    let tool = match *tool {
        "dnf" => dnf_or_older(files, own, system.version_major),
        // OpenWrt went over to apk in 2025.
        "opkg" if files.exists("/lib/apk/db/installed") => return (Some("apk".to_owned()), Some("apk".to_owned())),
        tool => Some(tool),
    };
    (Some((*format).to_owned()), tool.map(str::to_owned))
}

/// The tool of the Red Hat family: dnf replaced yum in Fedora 22, version 8 of Red Hat's and 2022 of Amazon's; before 5 Red
/// Hat had up2date. What OSTree keeps is managed by rpm-ostree.
fn dnf_or_older(files: &Files<'_>, id: &str, major: Option<u32>) -> Option<&'static str> {
    if files.exists("/run/ostree-booted") || files.is_dir("/sysroot/ostree/deploy") {
        return Some("rpm-ostree");
    }
    Some(match (id, major?) {
        ("fedora", 22..) => "dnf",
        ("fedora", _) => "yum",
        ("amzn", 2022..) => "dnf",
        ("amzn", _) => "yum",
        ("openmandriva" | "openEuler", _) => "dnf",
        (_, 8..) => "dnf",
        (_, 5..) => "yum",
        (_, 2..) => "up2date",
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
    let by_setting = settings
        .iter()
        .find_map(|(path, key)| os_release::value_of(&files.text(path)?, key))
        .filter(|name| !name.is_empty());
    by_setting.or_else(|| openwrt_hostname(files))
}

/// `option hostname 'OpenWrt'`: OpenWrt's UCI, /etc/config/system.
fn openwrt_hostname(files: &Files<'_>) -> Option<String> {
    let text = files.text("/etc/config/system")?;
    text.lines().find_map(|line| {
        let value = line.trim().strip_prefix("option")?.trim_start().strip_prefix("hostname")?;
        Some(value.trim().trim_matches(['\'', '"']).to_owned()).filter(|name| !name.is_empty())
    })
}

/// The host name with its domain: the canonical name of the line in /etc/hosts that has it, as `hostname --fqdn` asks for.
/// Source: hosts(5), hostname(1).
fn fqdn(files: &Files<'_>, hostname: &str) -> Option<String> {
    if hostname.contains('.') {
        return Some(hostname.trim_end_matches('.').to_owned());
    }
    let hosts = files.text("/etc/hosts")?;
    hosts.lines().find_map(|line| {
        let line = line.split('#').next()?;
        let names: Vec<&str> = line.split_whitespace().skip(1).collect();
        names.contains(&hostname).then_some(())?;
        let canonical = names.first().filter(|name| name.contains('.'));
        let own = || names.iter().find(|name| name.strip_prefix(hostname).is_some_and(|rest| rest.starts_with('.')));
        let found = canonical.or_else(own)?;
        // `localhost.localdomain` names every machine.
        (!found.starts_with("localhost.")).then(|| (*found).to_owned())
    })
}

/// Kernels that are looked at for what they run on.
const KERNELS_LOOKED_AT_MAX: usize = 20;
/// Programs that every system has one of; NixOS has them where its system profile is, Android beneath /system, and a /usr that
/// is looked at without its root in its own `bin`.
const PROGRAMS: [&str; 15] = [
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
    "/usr/bin/bash",
    "/nix/var/nix/profiles/system/sw/bin/bash",
    "/system/bin/sh",
    "/init",
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
    by_program.or_else(by_loader).or_else(|| by_kernel(files)).map(str::to_owned)
}

/// Kernels by their own headers, for what has nothing else that runs.
fn by_kernel(files: &Files<'_>) -> Option<&'static str> {
    let boot = files.names("/boot").into_iter().filter(|name| name.contains("vmlinu") || name.contains("Image"));
    let own = ["/vmlinuz", "/boot/vmlinuz"].map(str::to_owned).into_iter();
    boot.map(|name| format!("/boot/{name}")).chain(own).take(KERNELS_LOOKED_AT_MAX).find_map(|path| {
        let file = files.open(&path)?;
        let mut header = [0_u8; 0x240];
        if file.len() < header.len() as u64 {
            return None;
        }
        file.read_exact_at(&mut header, 0).ok()?;
        kernel_machine(&header)
    })
}

/// Source: the kernel's Documentation: arch/x86/boot.rst (`HdrS` at 0x202, xloadflags at 0x236), arch/arm64/booting.rst and
/// arch/riscv/boot-image-header.rst (magic at 56), and arch/arm's zImage (magic at 0x24).
fn kernel_machine(header: &[u8; 0x240]) -> Option<&'static str> {
    if bytes::has(header, 0x202, b"HdrS") {
        let is_64_bit = bytes::le_u16(header, 0x236).is_some_and(|flags| flags & 1 != 0);
        return Some(if is_64_bit { "x86_64" } else { "i386" });
    }
    match () {
        () if bytes::has(header, 56, b"ARM\x64") => Some("aarch64"),
        () if bytes::has(header, 56, b"RSC\x05") => Some("riscv64"),
        () if bytes::le_u32(header, 0x24) == Some(0x016f_2818) => Some("arm"),
        () => elf_machine(&bytes::array(header, 0)?),
    }
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

    #[test]
    fn the_domain_is_told_by_the_hosts_file() {
        let cases = [
            ("127.0.0.1 localhost\n127.0.1.1 web.example.org web # me\n", Some("web.example.org")),
            ("10.0.0.1 gateway web.lan web\n", Some("web.lan")),
            ("127.0.0.1 localhost.localdomain localhost web\n", None),
            ("10.0.0.1 webserver.example.org webserver\n", None),
        ];
        for (hosts, expected) in cases {
            let system = found(&[("etc/hostname", "web\n"), ("etc/hosts", hosts)]);
            assert_eq!(system.fqdn.as_deref(), expected, "{hosts:?}");
        }
        assert_eq!(found(&[("etc/hostname", "a.b.c\n")]).fqdn.as_deref(), Some("a.b.c"));
        let uci = "config system\n\toption hostname 'router'\n";
        assert_eq!(found(&[("etc/config/system", uci)]).hostname.as_deref(), Some("router"));
    }

    #[test]
    fn package_tools_are_those_of_the_time() {
        let cases = [
            ("fedora", "40", Some("dnf")),
            ("fedora", "14", Some("yum")),
            ("centos", "7", Some("yum")),
            ("rhel", "4.8", Some("up2date")),
            ("rocky", "9.4", Some("dnf")),
            ("amzn", "2", Some("yum")),
            ("amzn", "2018.03", Some("yum")),
            ("amzn", "2023", Some("dnf")),
            ("photon", "5.0", Some("tdnf")),
            ("altlinux", "10.1", Some("apt")),
            ("flatcar", "3510.2.1", None),
        ];
        for (id, version, expected) in cases {
            let system = found(&[("etc/os-release", &format!("ID={id}\nVERSION_ID={version}\n"))]);
            assert_eq!(system.package_management.as_deref(), expected, "{id} {version}");
        }
        let derivative = found(&[("etc/os-release", "ID=x\nID_LIKE=\"y ubuntu debian\"\nVERSION_ID=1\n")]);
        assert_eq!(derivative.package_format.as_deref(), Some("deb"));
    }

    #[test]
    fn architectures_are_read_from_kernels() {
        let mut header = [0_u8; 0x240];
        assert_eq!(kernel_machine(&header), None);
        header[0x202..0x206].copy_from_slice(b"HdrS");
        assert_eq!(kernel_machine(&header), Some("i386"));
        header[0x236] = 1;
        assert_eq!(kernel_machine(&header), Some("x86_64"));
        header[0x202] = 0;
        header[56..60].copy_from_slice(b"ARM\x64");
        assert_eq!(kernel_machine(&header), Some("aarch64"));
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
