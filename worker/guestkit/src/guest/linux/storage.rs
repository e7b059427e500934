//! Where the guest keeps its data: fstab(5), crypttab(5), swap, how full its file systems are, and the volumes below them.

use super::Context;
use super::files::Files;
use crate::guest::report::{CrypttabEntry, Filesystem, FstabEntry, MountUsage, Mountpoint, Storage, SwapArea};

/// The module.
pub(crate) fn inspect(files: &Files<'_>, context: &Context<'_>) -> Storage {
    let Context { root, names, disk, filesystems } = context;
    let mut fstab = files.text("/etc/fstab").map(|text| parse_fstab(&text)).unwrap_or_default();
    for entry in &mut fstab {
        entry.device = names.device_of(&entry.spec, &root.aliases);
    }
    let mut crypttab = files.text("/etc/crypttab").map(|text| parse_crypttab(&text)).unwrap_or_default();
    for entry in &mut crypttab {
        entry.device = names.device(&entry.spec);
    }
    let swap = swap_areas(files, &fstab, filesystems);
    let mounts = root.mountpoints.iter().filter_map(|mount| usage(mount, filesystems)).collect();
    let (volume_groups, arrays) = (disk.volume_groups().to_vec(), disk.arrays().to_vec());
    Storage { fstab, crypttab, swap, mounts, volume_groups, arrays, volumes: Vec::new() }
}

/// Entries of an fstab that are taken in: every mount makes every later path a little slower; hosts of many containers
/// have hundreds.
pub(crate) const FSTAB_ENTRIES_MAX: usize = 4_096;

/// The entries of an fstab. Source: fstab(5).
pub(crate) fn parse_fstab(text: &str) -> Vec<FstabEntry> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some(FstabEntry {
                spec: unescape(fields.next()?),
                device: None,
                path: unescape(fields.next()?),
                r#type: fields.next().unwrap_or("auto").to_owned(),
                options: split_options(fields.next().unwrap_or("defaults")),
                dump: fields.next().and_then(|field| field.parse().ok()).unwrap_or(0),
                pass: fields.next().and_then(|field| field.parse().ok()).unwrap_or(0),
            })
        })
        .take(FSTAB_ENTRIES_MAX)
        .collect()
}

fn split_options(text: &str) -> Vec<String> {
    text.split(',').filter(|option| !option.is_empty() && *option != "-").map(str::to_owned).collect()
}

/// `\040` and its like stand for bytes.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal =
            after.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match value {
            Some(value) => {
                bytes.push(value);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Source: crypttab(5).
pub(crate) fn parse_crypttab(text: &str) -> Vec<CrypttabEntry> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some(CrypttabEntry {
                name: fields.next()?.to_owned(),
                spec: fields.next()?.to_owned(),
                device: None,
                key_file: fields.next().filter(|key| !matches!(*key, "none" | "-")).map(str::to_owned),
                options: split_options(fields.next().unwrap_or_default()),
            })
        })
        .collect()
}

fn swap_areas(files: &Files<'_>, fstab: &[FstabEntry], filesystems: &[Filesystem]) -> Vec<SwapArea> {
    let mut areas: Vec<SwapArea> = Vec::new();
    for entry in fstab.iter().filter(|entry| entry.r#type == "swap") {
        let on_disk = entry.device.as_ref().and_then(|device| filesystems.iter().find(|fs| fs.device == *device));
        let is_file = entry.spec.starts_with('/') && !entry.spec.starts_with("/dev/");
        let size_bytes = if is_file {
            files.stat(&entry.spec).map(|metadata| metadata.size)
        } else {
            on_disk.and_then(|filesystem| filesystem.size_bytes)
        };
        areas.push(SwapArea {
            path: entry.device.clone().unwrap_or_else(|| entry.spec.clone()),
            kind: if is_file { "file" } else { "partition" }.to_owned(),
            size_bytes,
            in_fstab: true,
        });
    }
    for filesystem in filesystems.iter().filter(|filesystem| filesystem.r#type.as_deref() == Some("swap")) {
        if !areas.iter().any(|area| area.path == filesystem.device) {
            areas.push(SwapArea {
                path: filesystem.device.clone(),
                kind: "partition".to_owned(),
                size_bytes: filesystem.size_bytes,
                in_fstab: false,
            });
        }
    }
    areas
}

pub(crate) fn usage(mount: &Mountpoint, filesystems: &[Filesystem]) -> Option<MountUsage> {
    let filesystem = filesystems.iter().find(|filesystem| filesystem.device == mount.device)?;
    let (size, used) = (filesystem.size_bytes?, filesystem.used_bytes?);
    let used_percent = if size == 0 { 0.0 } else { (used as f64 / size as f64 * 1000.0).round() / 10.0 };
    Some(MountUsage {
        path: mount.path.clone(),
        device: mount.device.clone(),
        r#type: filesystem.r#type.clone().unwrap_or_default(),
        size_bytes: size,
        used_bytes: used,
        free_bytes: filesystem.free_bytes?,
        used_percent,
        inodes: filesystem.inodes,
        inodes_used: filesystem.inodes.and_then(|all| all.checked_sub(filesystem.inodes_free?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fstab_fields_are_unescaped_and_defaulted() {
        let found = parse_fstab(
            "# c\nUUID=\"ab\" / ext4 rw,noatime 0 1\n/dev/sdb1 /my\\040data xfs\nbad\n\tLABEL=x none swap sw\n",
        );
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].pass, found[0].options.join(" ")), (1, "rw noatime".to_owned()));
        assert_eq!((found[0].spec.as_str(), found[1].path.as_str()), ("UUID=\"ab\"", "/my data"));
        assert_eq!(found[1].options, ["defaults"]);
    }

    #[test]
    fn hostile_lines_end() {
        assert_eq!(unescape("\\04"), "\\04");
        assert_eq!(unescape("\\777"), "\\777");
        parse_fstab(&"\\".repeat(1 << 16));
        assert_eq!(parse_crypttab("a\n\0 \0 \0 \0\n").len(), 1);
    }
}
