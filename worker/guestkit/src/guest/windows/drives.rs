//! Drive letters: `SYSTEM\MountedDevices`. Source: Microsoft's documentation of the mount manager, and libguestfs's reading of
//! its values: 12 bytes are the signature of an MBR disk and a byte offset, `DMIO:ID:` precedes the GUID of a GPT partition.

use crate::bytes::{array, le_u32, le_u64};
use crate::disk::Disk;
use crate::guest::registry::utf16_text;
use crate::guest::report::{DriveMapping, WindowsVolume};

use super::hives::Hives;

const LETTER: &str = "\\DosDevices\\";
const VOLUME: &str = "\\??\\Volume";

/// Every volume that Windows has named, in order of name.
pub(crate) fn volumes(hives: &Hives<'_>, disk: &Disk) -> Vec<WindowsVolume> {
    let Some(key) = hives.system().and_then(|hive| hive.key("MountedDevices")) else { return Vec::new() };
    let mut volumes = Vec::new();
    for value in key.values() {
        let name = value.name();
        let letter = name.get(..LETTER.len()).filter(|prefix| prefix.eq_ignore_ascii_case(LETTER));
        let name = match letter {
            Some(_) => name.get(LETTER.len()..).unwrap_or_default().to_uppercase(),
            None if name.starts_with(VOLUME) => format!("\\\\?\\{}", name.get(4..).unwrap_or_default()),
            None => continue,
        };
        let Some((target, device)) = key.bytes_of(&value).and_then(|data| target(&data, disk)) else { continue };
        volumes.push(WindowsVolume { name, device, target });
    }
    volumes.sort_by(|one, other| one.name.cmp(&other.name));
    volumes
}

/// The letters among `volumes` whose device is on this disk. The drive that Windows itself lies on has a letter even where the
/// disk's signature was changed since, as the copy of a disk may have it: `system_letter`, of its own folder.
pub(crate) fn mappings(volumes: &[WindowsVolume], system_letter: Option<char>, root: &str) -> Vec<DriveMapping> {
    let mapping = |volume: &WindowsVolume| {
        let name = volume.name.strip_suffix(':').filter(|name| name.len() == 1)?;
        Some(DriveMapping { name: name.to_owned(), device: volume.device.clone()? })
    };
    let mut mappings: Vec<_> = volumes.iter().filter_map(mapping).collect();
    if let Some(letter) = system_letter.map(|letter| letter.to_ascii_uppercase().to_string())
        && !mappings.iter().any(|mapping| mapping.name == letter || mapping.device == root)
    {
        mappings.push(DriveMapping { name: letter, device: root.to_owned() });
        mappings.sort_by(|one, other| one.name.cmp(&other.name));
    }
    mappings
}

/// What a value says, in words, and the device of this disk that it means.
fn target(data: &[u8], disk: &Disk) -> Option<(String, Option<String>)> {
    if let Some(guid) = data.strip_prefix(b"DMIO:ID:").and_then(|guid| array::<16>(guid, 0)) {
        let guid = guid_text(&guid);
        let is_it = |partition: &&crate::Device| {
            let uuid = partition.partition.as_ref().and_then(|partition| partition.uuid.as_ref());
            uuid.is_some_and(|uuid| uuid.eq_ignore_ascii_case(&guid))
        };
        let device = disk.devices().iter().find(is_it).map(|device| device.name.clone());
        return Some((format!("gpt {guid}"), device));
    }
    if data.len() == 12 {
        let (signature, offset) = (le_u32(data, 0)?, le_u64(data, 4)?);
        let signature = format!("{signature:08x}");
        let device = disk.drives().iter().find_map(|drive| {
            let table = drive.partition_table()?;
            let is_disk = table.id.as_deref().is_some_and(|id| id.eq_ignore_ascii_case(&signature));
            let partition = table.partitions.iter().find(|partition| is_disk && partition.start_bytes == offset)?;
            Some(format!("{}{}", drive.name, partition.number))
        });
        return Some((format!("mbr {signature} {offset}"), device));
    }
    let path = utf16_text(data);
    path.starts_with('\\').then_some((path, None))
}

/// A GUID as it lies in memory: the first three parts are little-endian.
fn guid_text(guid: &[u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = *guid;
    let parts =
        [&[d, c, b, a][..], &[f, e], &[h, g], rest.get(..2).unwrap_or_default(), rest.get(2..).unwrap_or_default()];
    parts.map(crate::bytes::hex).join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_are_written_as_partition_tables_do() {
        let bytes: [u8; 16] = std::array::from_fn(|index| u8::try_from(index).unwrap());
        assert_eq!(guid_text(&bytes), "03020100-0504-0706-0809-0a0b0c0d0e0f");
    }

    #[test]
    fn the_drive_of_windows_has_a_letter_whatever_the_disk_is_called() {
        let volume = |name: &str, device: Option<&str>| WindowsVolume {
            name: name.to_owned(),
            device: device.map(str::to_owned),
            target: String::new(),
        };
        let volumes =
            [volume("C:", None), volume("D:", Some("/dev/sda3")), volume("\\\\?\\Volume{x}", Some("/dev/sda2"))];
        let found = mappings(&volumes, Some('c'), "/dev/sda2");
        let found: Vec<_> = found.iter().map(|mapping| (mapping.name.as_str(), mapping.device.as_str())).collect();
        assert_eq!(found, [("C", "/dev/sda2"), ("D", "/dev/sda3")]);
    }
}
