//! Mounts, as fstab(5) and units of systemd make them.

use std::collections::BTreeSet;

use crate::guest::linux::security::is_enabled;
use crate::guest::linux::unit::UnitFile;
use crate::guest::report::{FstabEntry, Unit};
use crate::guest::roots::unescape;
use crate::profile::evaluate::Asked;
use crate::profile::guest::Guest;
use crate::profile::outcome::{Bad, Outcome};
use crate::profile::report::Evidence;

const FSTAB: &str = "/etc/fstab";

/// What is mounted somewhere, and how.
#[derive(Debug, Clone)]
struct Mount {
    path: String,
    options: Vec<String>,
    evidence: Evidence,
}

pub(super) fn fstab<'g>(guest: &'g Guest<'_>) -> &'g [FstabEntry] {
    guest.system.storage.as_ref().map(|storage| storage.fstab.as_slice()).unwrap_or_default()
}

fn entry_evidence(entry: &FstabEntry) -> Evidence {
    Evidence::explicit(FSTAB, &*entry.path, format!("{} {} {}", entry.spec, entry.r#type, entry.options.join(",")))
}

/// What an administrator puts here is before what systemd makes of fstab, which is before what a package brings. Source:
/// systemd.unit(5), "Unit File Load Path".
const ADMINISTRATOR: &str = "/etc/systemd/system/";

/// Mounts that the start of the system makes, each path once. Source: systemd-fstab-generator(8), systemd.mount(5); without
/// systemd the last line of a path lies over the others.
fn mounts(guest: &Guest<'_>) -> Vec<Mount> {
    let services = guest.services();
    let has_systemd = services.is_some_and(|services| services.managers.iter().any(|manager| manager == "systemd"));
    let units = services.map(|services| services.units.as_slice()).unwrap_or_default();
    let units: Vec<&Unit> = units.iter().filter(|unit| unit.kind == "mount").collect();
    let mut all: Vec<Mount> = Vec::new();
    for entry in fstab(guest).iter().filter(|entry| entry.path.starts_with('/')) {
        let has = |option: &str| entry.options.iter().any(|known| known == option);
        if has("noauto") && !has("x-systemd.automount") {
            continue;
        }
        // Of lines of one path systemd takes the first; a plain `mount -a` puts the last on top.
        let known = all.iter().position(|mount| mount.path == entry.path);
        match known {
            Some(_) if has_systemd => continue,
            Some(known) => {
                all.remove(known);
            }
            None => {}
        }
        let unit = units.iter().find(|unit| unit.path.starts_with(ADMINISTRATOR) && path_of(unit) == entry.path);
        match unit {
            Some(unit) if unit.state.starts_with("masked") => {}
            Some(unit) => all.extend(of_unit(guest, unit)),
            None => all.push(Mount {
                path: entry.path.clone(),
                options: entry.options.clone(),
                evidence: entry_evidence(entry),
            }),
        }
    }
    let started = units.iter().filter(|unit| services.is_some_and(|services| is_enabled(services, &unit.name)));
    for mount in started.filter_map(|unit| of_unit(guest, unit)) {
        if !all.iter().any(|known| known.path == mount.path) {
            all.push(mount);
        }
    }
    if has_systemd && !all.iter().any(|mount| mount.path == "/dev/shm") {
        let options = ["nosuid", "nodev", "strictatime"].map(str::to_owned).to_vec();
        all.push(Mount {
            path: "/dev/shm".to_owned(),
            options,
            evidence: Evidence::default("systemd", "/dev/shm", "nosuid,nodev"),
        });
    }
    all
}

/// Where a unit mounts: systemd refuses one whose name says otherwise than it does itself. Source: systemd.mount(5),
/// systemd-escape(1).
fn path_of(unit: &Unit) -> String {
    let name = unit.name.strip_suffix(".mount").unwrap_or(&unit.name);
    if name == "-" { "/".to_owned() } else { format!("/{}", unescape(&name.replace('-', "/"))) }
}

/// What a unit mounts; `None` where it does not say.
fn of_unit(guest: &Guest<'_>, unit: &Unit) -> Option<Mount> {
    let mut file = UnitFile::parse(&guest.files.text(&unit.path).unwrap_or_default());
    for path in &unit.drop_ins {
        file.merge(&guest.files.text(path).unwrap_or_default());
    }
    let path = file.last("Mount", "Where")?;
    let options = file.last("Mount", "Options").unwrap_or_default();
    let evidence = Evidence::explicit(&*unit.path, path, options);
    Some(Mount { path: path.to_owned(), options: options.split(',').map(str::to_owned).collect(), evidence })
}

impl Mount {
    /// Whether an option is in force: of contrary ones the last counts, and those for users bring others along. Source: mount(8),
    /// "FILESYSTEM-INDEPENDENT MOUNT OPTIONS".
    fn has(&self, option: &str) -> bool {
        let contrary = option.strip_prefix("no").unwrap_or(option);
        let mut is_set = false;
        for word in self.options.iter().map(|word| word.trim()) {
            match word {
                _ if word == option => is_set = true,
                _ if word == contrary => is_set = false,
                "user" | "users" => is_set = true,
                "owner" | "group" if option != "noexec" => is_set = true,
                _ => {}
            }
        }
        is_set
    }
}

/// Options that keep programs and devices out of where everybody writes.
pub(crate) fn options(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let all = mounts(guest);
    let demanded: [(&str, &[&str], bool); 7] = [
        ("/tmp", &["nodev", "nosuid", "noexec"], true),
        ("/dev/shm", &["nodev", "nosuid", "noexec"], true),
        ("/var/tmp", &["nodev", "nosuid", "noexec"], true),
        ("/home", &["nodev", "nosuid"], false),
        ("/var", &["nodev", "nosuid"], false),
        ("/var/log", &["nodev", "nosuid", "noexec"], false),
        ("/var/log/audit", &["nodev", "nosuid", "noexec"], false),
    ];
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for (path, wanted, is_demanded) in demanded {
        let Some(mount) = all.iter().find(|mount| mount.path == path) else {
            if is_demanded {
                bad.push(Bad::new(format!("{path} is no mount of its own"), Evidence::absent(FSTAB, path)));
            }
            continue;
        };
        let missing: Vec<&str> = wanted.iter().copied().filter(|option| !mount.has(option)).collect();
        if missing.is_empty() {
            looked_at.push(mount.evidence.clone());
        } else {
            bad.push(Bad::new(format!("{path} without {}", missing.join(", ")), mount.evidence.clone()));
        }
    }
    Outcome::none_of(
        bad,
        "mounts that let programs or devices in",
        "the mounts keep programs and devices out",
        looked_at,
    )
}

/// Places that fill up by themselves are file systems of their own.
pub(crate) fn separate(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let all: BTreeSet<String> = mounts(guest)
        .into_iter()
        .map(|mount| mount.path)
        .chain(guest.system.mountpoints.iter().map(|mount| mount.path.clone()))
        .collect();
    let wanted = ["/tmp", "/var", "/var/tmp", "/var/log", "/var/log/audit", "/home", "/dev/shm"];
    let bad = wanted
        .iter()
        .filter(|path| !all.contains(**path))
        .map(|path| Bad::new(*path, Evidence::absent(FSTAB, *path)))
        .collect();
    let looked_at = wanted
        .iter()
        .filter(|path| all.contains(**path))
        .map(|path| Evidence::explicit(FSTAB, *path, "mount"))
        .collect();
    Outcome::none_of(
        bad,
        "no file systems of their own",
        "every place that fills up is a file system of its own",
        looked_at,
    )
}

/// Kinds that lie on no disk of the machine.
const ELSEWHERE: [&str; 18] = [
    "tmpfs",
    "proc",
    "sysfs",
    "devpts",
    "devtmpfs",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "none",
    "nfs",
    "nfs4",
    "cifs",
    "smbfs",
    "ceph",
    "glusterfs",
    "overlay",
    "9p",
];

/// Whether a line of fstab means a disk of this machine.
pub(super) fn is_local(entry: &FstabEntry) -> bool {
    let has = |option: &str| entry.options.iter().any(|known| known == option);
    let is_share = entry.spec.starts_with("//") || (entry.spec.contains(':') && !entry.spec.starts_with('/'));
    let is_elsewhere = ELSEWHERE.contains(&entry.r#type.as_str()) || is_share;
    let is_no_disk = has("bind") || has("rbind") || has("_netdev");
    !is_elsewhere && !is_no_disk && (entry.spec.starts_with("/dev/") || entry.spec.contains('='))
}

/// Every disk that fstab names is there.
pub(crate) fn fstab_integrity(guest: &Guest<'_>, _: &Asked<'_>) -> Outcome {
    let entries: Vec<_> = fstab(guest).iter().filter(|entry| is_local(entry)).collect();
    if entries.is_empty() {
        return Outcome::not_applicable("/etc/fstab names no disk");
    }
    let (mut bad, mut looked_at) = (Vec::new(), Vec::new());
    for entry in entries {
        let optional = entry.options.iter().any(|option| option == "nofail" || option == "noauto");
        // Drives for discs come and go.
        let is_removable = entry.spec.starts_with("/dev/sr")
            || entry.spec.starts_with("/dev/cdrom")
            || entry.spec.starts_with("/dev/fd");
        if entry.device.is_none() && !optional && !is_removable {
            bad.push(Bad::new(&*entry.spec, entry_evidence(entry)));
        } else {
            looked_at.push(entry_evidence(entry));
        }
    }
    if looked_at.is_empty() {
        looked_at.push(Evidence::absent(FSTAB, "a disk"));
    }
    Outcome::none_of(bad, "fstab names disks that are not there", "every disk that fstab names is there", looked_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_contrary_options_counts() {
        let has = |options: &str, option: &str| {
            let options = options.split(',').map(str::to_owned).collect();
            Mount { path: String::new(), options, evidence: Evidence::absent(FSTAB, "") }.has(option)
        };
        assert!(has("nosuid,defaults,noexec", "noexec") && has("noexec,defaults", "noexec"));
        assert!(!has("noexec,nosuid,exec", "noexec") && has("noexec,nosuid,exec", "nosuid"));
        assert!(has("user", "nodev") && !has("user,dev", "nodev") && !has("group", "noexec") && has("owner", "nosuid"));
    }
}
