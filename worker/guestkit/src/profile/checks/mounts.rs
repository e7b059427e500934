//! Mounts, as fstab(5) and units of systemd make them.

use std::collections::BTreeSet;

use crate::guest::report::FstabEntry;
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

/// Mounts by path: fstab is before a unit of the same path, and systemd mounts `/dev/shm` by itself. Source:
/// systemd-fstab-generator(8), systemd.mount(5).
fn mounts(guest: &Guest<'_>) -> Vec<Mount> {
    let mut all: Vec<Mount> = fstab(guest)
        .iter()
        .filter(|entry| entry.path.starts_with('/'))
        .map(|entry| Mount {
            path: entry.path.clone(),
            options: entry.options.clone(),
            evidence: entry_evidence(entry),
        })
        .collect();
    let units = guest.services().map(|services| services.units.as_slice()).unwrap_or_default();
    for unit in
        units.iter().filter(|unit| unit.kind == "mount" && unit.state != "masked" && guest.is_enabled(&unit.name))
    {
        let mut file = crate::guest::linux::unit::UnitFile::parse(&guest.files.text(&unit.path).unwrap_or_default());
        for path in &unit.drop_ins {
            file.merge(&guest.files.text(path).unwrap_or_default());
        }
        let (Some(path), options) = (file.last("Mount", "Where"), file.last("Mount", "Options").unwrap_or_default())
        else {
            continue;
        };
        if all.iter().any(|mount| mount.path == path) {
            continue;
        }
        let evidence = Evidence::explicit(&*unit.path, path, options);
        all.push(Mount { path: path.to_owned(), options: options.split(',').map(str::to_owned).collect(), evidence });
    }
    let has_systemd =
        guest.services().is_some_and(|services| services.managers.iter().any(|manager| manager == "systemd"));
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
        let Some(mount) = all.iter().rfind(|mount| mount.path == path) else {
            if is_demanded {
                bad.push(Bad::new(format!("{path} is no mount of its own"), Evidence::absent(FSTAB, path)));
            }
            continue;
        };
        let missing: Vec<&str> =
            wanted.iter().copied().filter(|option| !mount.options.iter().any(|known| known == option)).collect();
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
