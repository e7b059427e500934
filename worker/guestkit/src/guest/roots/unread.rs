//! Systems whose files are not read: BSDs, known by the types of their partitions. Sources: FreeBSD's gpart(8), NetBSD's
//! gpt(8) and OpenBSD's fdisk(8) for the GUIDs and the types of a boot record.

use crate::disk::Disk;
use crate::guest::report::{GuestSystem, Mountpoint, OperatingSystem, Warning};

/// System, its name, and whether a root may lie there, by the type of a partition.
const TYPES: [(&str, &str, &str); 9] = [
    ("516E7CB6-6ECF-11D6-8FF8-00022D09712B", "freebsd", "FreeBSD"),
    ("516E7CBA-6ECF-11D6-8FF8-00022D09712B", "freebsd", "FreeBSD"),
    ("516E7CB4-6ECF-11D6-8FF8-00022D09712B", "freebsd", "FreeBSD"),
    ("49F48D5A-B10E-11DC-B99B-0019D1879648", "netbsd", "NetBSD"),
    ("49F48D82-B10E-11DC-B99B-0019D1879648", "netbsd", "NetBSD"),
    ("824CC7A0-36A8-11E3-890A-952519AD3F61", "openbsd", "OpenBSD"),
    ("a5", "freebsd", "FreeBSD"),
    ("a9", "netbsd", "NetBSD"),
    ("a6", "openbsd", "OpenBSD"),
];

/// One system for each disk that has partitions of a BSD: the first partition stands for it.
pub(crate) fn systems(disk: &Disk, warnings: &mut Vec<Warning>) -> Vec<GuestSystem> {
    let mut found: Vec<(String, GuestSystem)> = Vec::new();
    for device in disk.devices() {
        let Some(partition) = &device.partition else { continue };
        let Some((_, kind, name)) = TYPES.iter().find(|(id, ..)| *id == partition.type_id) else { continue };
        let drive = device.parents.first().cloned().unwrap_or_default();
        if found.iter().any(|(on, system)| *on == drive && system.operating_system.r#type == *kind) {
            continue;
        }
        let what = device.probe.as_ref().map_or("a disk label", |probe| probe.kind);
        warnings.push(Warning {
            r#where: device.name.clone(),
            what: format!("{name} system"),
            why: format!("it is known by the type of its partition alone: reading {what} is not supported"),
        });
        let system = GuestSystem {
            root: device.name.clone(),
            mountpoints: vec![Mountpoint { path: "/".to_owned(), device: device.name.clone(), subvolume: None }],
            operating_system: OperatingSystem {
                r#type: (*kind).to_owned(),
                distribution: Some((*kind).to_owned()),
                product_name: Some((*name).to_owned()),
                sources: vec![format!("partition type {}", partition.type_id)],
                ..OperatingSystem::default()
            },
            ..GuestSystem::default()
        };
        found.push((drive, system));
    }
    found.into_iter().map(|(_, system)| system).collect()
}
