//! The XML of virt-inspector, for whatever reads that today. Source: `virt-inspector.rng` of guestfs-tools, whose vocabularies
//! are kept to, virt-inspector(1), "XML FORMAT", and guestfs(3), "inspect_get_distro" and its like.
//!
//! Where virt-inspector is known to be wrong (the product name of a Debian, three systems where there is one with snapshots),
//! what is right is written.

use std::collections::BTreeMap;

use crate::guest::report::{GuestSystem, InspectReport, OperatingSystem, Package};

use super::installed;
use super::xml::Writer;

/// `report` as virt-inspector would print it.
pub(super) fn render(report: &InspectReport) -> String {
    let mut writer = Writer::new();
    writer.element("operatingsystems", None, |writer| {
        for system in &report.systems {
            writer.element("operatingsystem", None, |writer| operating_system(writer, report, system));
        }
    });
    writer.finish()
}

fn operating_system(writer: &mut Writer, report: &InspectReport, system: &GuestSystem) {
    let os = &system.operating_system;
    writer.text("root", None, &system.root);
    writer.text("name", None, &os.r#type);
    writer.some("arch", os.arch.as_deref());
    writer.some("distro", distro(os));
    writer.some("product_name", os.product_name.as_deref());
    let is_windows = os.r#type == "windows";
    writer.some("product_variant", os.variant.as_deref().filter(|_| is_windows));
    writer.text("major_version", None, &os.version_major.unwrap_or(0).to_string());
    writer.text("minor_version", None, &os.version_minor.unwrap_or(0).to_string());
    writer.some("package_format", os.package_format.as_deref().filter(|format| FORMATS.contains(format)));
    writer.some("package_management", os.package_management.as_deref().and_then(tool));
    writer.some("hostname", os.hostname.as_deref());
    writer.some("build_id", os.build_id.as_deref());
    writer.some("osinfo", osinfo(os).as_deref());
    if let Some(windows) = &os.windows {
        writer.text("windows_systemroot", None, &windows.system_root);
        writer.some("windows_current_control_set", windows.current_control_set.as_deref());
    }
    mountpoints(writer, system);
    filesystems(writer, report, system);
    if !system.drive_mappings.is_empty() {
        writer.element("drive_mappings", None, |writer| {
            for drive in &system.drive_mappings {
                writer.text("drive_mapping", Some(("name", drive.name.as_str())), &drive.device);
            }
        });
    }
    if system.packages.as_ref().is_some_and(|packages| packages.count.is_some()) {
        writer.element("applications", None, |writer| {
            for package in installed(system) {
                writer.element("application", None, |writer| application(writer, package));
            }
        });
    }
}

/// The words of the schema for `package_format`.
const FORMATS: [&str; 8] = ["apk", "deb", "ebuild", "pacman", "pisi", "pkgsrc", "rpm", "xbps"];

/// The word of the schema for a package tool, or for the one that it is a kind of.
fn tool(name: &str) -> Option<&'static str> {
    const TOOLS: [&str; 11] =
        ["apk", "apt", "dnf", "pacman", "pisi", "portage", "up2date", "urpmi", "xbps", "yum", "zypper"];
    match name {
        "tdnf" | "rpm-ostree" => Some("dnf"),
        name => TOOLS.into_iter().find(|tool| *tool == name),
    }
}

/// libguestfs' names of distributions by the ID of os-release, where they differ.
const DISTROS: [(&str, &str); 10] = [
    ("alpine", "alpinelinux"),
    ("arch", "archlinux"),
    ("kali", "kalilinux"),
    ("ol", "oraclelinux"),
    ("pld", "pldlinux"),
    ("scientific", "scientificlinux"),
    ("sled", "sles"),
    ("void", "voidlinux"),
    ("opensuse-leap", "opensuse"),
    ("opensuse-tumbleweed", "opensuse"),
];
/// Those that it calls as they call themselves.
const SAME: [&str; 25] = [
    "altlinux",
    "buildroot",
    "centos",
    "cirros",
    "coreos",
    "debian",
    "fedora",
    "freebsd",
    "freedos",
    "frugalware",
    "gentoo",
    "linuxmint",
    "mageia",
    "mandriva",
    "meego",
    "msdos",
    "neokylin",
    "netbsd",
    "openbsd",
    "openmandriva",
    "opensuse",
    "pardus",
    "rhel",
    "rocky",
    "sles",
];

fn known(id: &str) -> Option<&'static str> {
    let renamed = DISTROS.iter().find(|(own, _)| *own == id).map(|(_, name)| *name);
    let others = ["slackware", "ttylinux", "ubuntu", "windows", "circle"];
    renamed.or_else(|| SAME.into_iter().chain(others).find(|name| *name == id))
}

/// The distribution by libguestfs' name; a derivative that has none is named by its family, as libguestfs finds it by the file
/// that the derivative has of its family.
fn distro(os: &OperatingSystem) -> Option<&'static str> {
    let id = os.distribution.as_deref()?;
    if let Some(known) = known(id) {
        return Some(known);
    }
    let like = |wanted: &[&str]| os.id_like.iter().any(|id| wanted.contains(&id.as_str()));
    match id {
        "manjaro" => Some("archlinux"),
        "raspbian" => Some("debian"),
        "neon" => Some("ubuntu"),
        _ if id.starts_with("opensuse-") => Some("opensuse"),
        _ if like(&["rhel", "centos", "fedora"]) => Some("redhat-based"),
        _ if like(&["suse", "opensuse", "sles"]) => Some("suse-based"),
        _ => os.id_like.iter().find_map(|id| known(id)),
    }
}

/// What libguestfs takes for the id of the osinfo database. For derivatives it names by their family, which are in that
/// database under names of their own or not at all, it is the database's own id.
fn osinfo(os: &OperatingSystem) -> Option<String> {
    let own = os.osinfo.clone();
    if os.r#type != "linux" {
        let numbers = os.version_major.zip(os.version_minor);
        return own.or_else(|| numbers.map(|(major, minor)| format!("{}{major}.{minor}", os.r#type)));
    }
    let name = distro(os)?;
    let is_own_name =
        os.distribution.as_deref().is_some_and(|id| known(id) == Some(name) || id.starts_with("opensuse-"));
    let (major, minor) = (os.version_major.unwrap_or(0), os.version_minor.unwrap_or(0));
    match name {
        "archlinux" | "gentoo" | "voidlinux" => Some(name.to_owned()),
        _ if !is_own_name => own,
        "centos" | "circle" | "rocky" if major >= 8 => Some(format!("{name}{major}")),
        "centos" if major == 7 => Some("centos7.0".to_owned()),
        "debian" if major >= 4 => Some(format!("debian{major}")),
        "fedora" | "mageia" => Some(format!("{name}{major}")),
        "sles" if minor == 0 => Some(format!("sles{major}")),
        "sles" => Some(format!("sles{major}sp{minor}")),
        "ubuntu" => Some(format!("ubuntu{major}.{minor:02}")),
        "altlinux" if major >= 8 => Some(format!("alt{major}.{minor}")),
        _ if major > 0 || minor > 0 => Some(format!("{name}{major}.{minor}")),
        _ => own,
    }
}

/// What libguestfs calls a mountable: a device, or a subvolume of one.
fn mountable(device: &str, subvolume: Option<&str>) -> String {
    match subvolume {
        Some(subvolume) => format!("btrfsvol:{device}/{subvolume}"),
        None => device.to_owned(),
    }
}

fn mountpoints(writer: &mut Writer, system: &GuestSystem) {
    let mut mounts: Vec<_> = system.mountpoints.iter().collect();
    // The shortest path first.
    mounts.sort_by_key(|mount| (mount.path.len(), mount.path.clone()));
    writer.element("mountpoints", None, |writer| {
        for mount in mounts {
            let device = mountable(&mount.device, mount.subvolume.as_deref());
            writer.text("mountpoint", Some(("dev", device.as_str())), &mount.path);
        }
    });
}

/// The file systems that are the system's: what it mounts, and its swap.
fn filesystems(writer: &mut Writer, report: &InspectReport, system: &GuestSystem) {
    let mut own: BTreeMap<String, &str> = BTreeMap::new();
    for mount in &system.mountpoints {
        own.insert(mountable(&mount.device, mount.subvolume.as_deref()), &mount.device);
    }
    let fstab = system.storage.iter().flat_map(|storage| &storage.fstab);
    for device in fstab.filter(|entry| entry.r#type == "swap").filter_map(|entry| entry.device.as_deref()) {
        own.insert(device.to_owned(), device);
    }
    writer.element("filesystems", None, |writer| {
        for (name, device) in own {
            let found = report.filesystems.iter().find(|found| found.device == device);
            writer.element("filesystem", Some(("dev", name.as_str())), |writer| {
                let Some(found) = found else { return };
                writer.some("type", found.r#type.as_deref());
                writer.some("label", found.label.as_deref());
                writer.some("uuid", found.uuid.as_deref());
            });
        }
    });
}

fn application(writer: &mut Writer, package: &Package) {
    writer.text("name", None, &package.name);
    writer.some("display_name", package.display_name.as_deref());
    if let Some(epoch) = package.epoch.filter(|epoch| *epoch != 0) {
        writer.text("epoch", None, &epoch.to_string());
    }
    writer.some("version", Some(&package.version));
    writer.some("release", package.release.as_deref());
    writer.some("arch", package.arch.as_deref());
    // libguestfs has these of Windows alone.
    if matches!(package.format.as_str(), "msi" | "win32") {
        writer.some("install_path", package.install_path.as_deref());
        writer.some("publisher", package.vendor.as_deref());
    }
    writer.some("url", package.url.as_deref());
    writer.some("source_package", package.source.as_deref());
    // pacman has one line; libguestfs gives it as the description.
    let (summary, description) = match package.format.as_str() {
        "pacman" => (None, package.description.as_deref().or(package.summary.as_deref())),
        _ => (package.summary.as_deref(), package.description.as_deref()),
    };
    writer.some("summary", summary);
    writer.some("description", description);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(id: &str, like: &[&str], version: (u32, u32), osinfo: Option<&str>) -> OperatingSystem {
        OperatingSystem {
            r#type: "linux".to_owned(),
            distribution: Some(id.to_owned()),
            id_like: like.iter().map(|id| (*id).to_owned()).collect(),
            version_major: Some(version.0),
            version_minor: Some(version.1),
            osinfo: osinfo.map(str::to_owned),
            ..OperatingSystem::default()
        }
    }

    /// Names and ids as virt-inspector 1.48 prints them, and for the family of Red Hat an id that exists instead of one that
    /// does not.
    #[test]
    fn distributions_and_ids_are_those_of_libguestfs() {
        let cases = [
            (system("kali", &["debian"], (2024, 2), None), Some("kalilinux"), Some("kalilinux2024.2")),
            (system("ol", &["fedora"], (9, 4), Some("ol9.4")), Some("oraclelinux"), Some("oraclelinux9.4")),
            (system("sles", &["suse"], (15, 6), Some("sle15sp6")), Some("sles"), Some("sles15sp6")),
            (system("raspbian", &["debian"], (12, 5), Some("debian12")), Some("debian"), Some("debian12")),
            (system("manjaro", &[], (0, 0), Some("manjaro")), Some("archlinux"), Some("archlinux")),
            (system("rocky", &["rhel"], (9, 4), Some("rocky9")), Some("rocky"), Some("rocky9")),
            (system("centos", &["rhel"], (7, 9), Some("centos7.0")), Some("centos"), Some("centos7.0")),
            (system("almalinux", &["rhel"], (9, 4), Some("almalinux9")), Some("redhat-based"), Some("almalinux9")),
            (system("ubuntu", &["debian"], (22, 4), Some("ubuntu22.04")), Some("ubuntu"), Some("ubuntu22.04")),
            (system("neon", &["ubuntu", "debian"], (22, 4), None), Some("ubuntu"), None),
            (system("photon", &[], (5, 0), None), None, None),
        ];
        for (os, name, id) in cases {
            assert_eq!(distro(&os), name, "{:?}", os.distribution);
            assert_eq!(osinfo(&os).as_deref(), id, "{:?}", os.distribution);
        }
    }

    #[test]
    fn a_guest_cannot_break_the_document() {
        let mut report = InspectReport::default();
        let mut guest = GuestSystem { root: "/dev/sda\"><x".to_owned(), ..GuestSystem::default() };
        guest.operating_system = system("debian", &[], (12, 1), None);
        guest.operating_system.hostname = Some("a</hostname>\u{0}\u{1b}[31m".to_owned());
        report.systems.push(guest);
        let text = render(&report);
        assert!(text.contains("<root>/dev/sda&quot;&gt;&lt;x</root>"), "{text}");
        assert!(text.contains("<hostname>a&lt;/hostname&gt;[31m</hostname>"), "{text}");
    }
}
