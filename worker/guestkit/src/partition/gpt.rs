//! GUID partition tables, after the UEFI specification 2.10, section 5.3.

use super::{Partition, PartitionTable, TableKind, guid};
use crate::bytes::{array, has, le_u16, le_u32, le_u64, slice, sum_holds};
use crate::error::Result;
use crate::read_at::{ReadAt, read_up_to};

const SIGNATURE: &[u8] = b"EFI PART";
/// Section 5.3.2: a header is at least this long.
const HEADER_BYTES_MIN: u32 = 92;
/// Real tables have 128 entries; sgdisk can grow them to 1024, and nobody has more.
const ENTRIES_MAX: u32 = 1024;
/// Section 5.3.3: 128 times a power of two; more than a sector of 4096 is nobody's.
const ENTRY_BYTES: std::ops::RangeInclusive<u32> = 128..=4096;
const SECTOR_BYTES: [u32; 2] = [512, 4096];

#[derive(Debug)]
struct Header {
    sector_bytes: u32,
    disk_guid: [u8; 16],
    entries_start: u64,
    entries: u32,
    entry_bytes: u32,
    entries_crc: u32,
}

/// Reads the table: the primary one, or where that is broken the backup at the disk's end. A backup alone counts only
/// on a disk that says it has a GPT (`protective`), because old ones stay behind when a disk is partitioned anew.
pub(super) fn read(disk: &dyn ReadAt, protective: bool) -> Result<Option<PartitionTable>> {
    let mut claims = protective;
    for sector_bytes in SECTOR_BYTES {
        let start = u64::from(sector_bytes);
        if has(&read_up_to(disk, start, 512)?, 0, SIGNATURE) {
            claims = true;
            if let Some(table) = read_copy(disk, start, sector_bytes)? {
                return Ok(Some(table));
            }
        }
    }
    if !claims {
        return Ok(None);
    }
    for sector_bytes in SECTOR_BYTES {
        let start = disk.len().saturating_sub(u64::from(sector_bytes));
        if let Some(mut table) = read_copy(disk, start, sector_bytes)? {
            table.warnings.push("the primary GPT is broken; its backup was read".into());
            return Ok(Some(table));
        }
    }
    Ok(None)
}

fn read_copy(disk: &dyn ReadAt, start: u64, sector_bytes: u32) -> Result<Option<PartitionTable>> {
    let sector = read_up_to(disk, start, sector_bytes as usize)?;
    let Some(header) = Header::parse(&sector, start, sector_bytes) else { return Ok(None) };
    let length = header.entries as usize * header.entry_bytes as usize;
    let entries = read_up_to(disk, header.entries_start, length)?;
    if entries.len() != length || !sum_holds(crc32fast::hash(&entries) == header.entries_crc) {
        return Ok(None);
    }
    Ok(Some(table(&header, &entries, disk.len())))
}

impl Header {
    /// The header in `sector`, if signature, length, place and checksum hold.
    fn parse(sector: &[u8], start: u64, sector_bytes: u32) -> Option<Self> {
        let length = le_u32(sector, 12).filter(|length| (HEADER_BYTES_MIN..=sector_bytes).contains(length))?;
        let own_lba = le_u64(sector, 24)?;
        if !has(sector, 0, SIGNATURE) || own_lba.checked_mul(u64::from(sector_bytes)) != Some(start) {
            return None;
        }
        let mut checked = slice(sector, 0, length as usize)?.to_vec();
        checked.get_mut(16..20)?.fill(0);
        if !sum_holds(crc32fast::hash(&checked) == le_u32(sector, 16)?) {
            return None;
        }
        let entries = le_u32(sector, 80).filter(|entries| *entries <= ENTRIES_MAX)?;
        let entry_bytes = le_u32(sector, 84).filter(|bytes| ENTRY_BYTES.contains(bytes) && bytes.is_power_of_two())?;
        Some(Self {
            sector_bytes,
            disk_guid: array(sector, 56)?,
            entries_start: le_u64(sector, 72)?.checked_mul(u64::from(sector_bytes))?,
            entries,
            entry_bytes,
            entries_crc: le_u32(sector, 88)?,
        })
    }
}

fn table(header: &Header, entries: &[u8], disk_bytes: u64) -> PartitionTable {
    let mut partitions = Vec::new();
    let mut warnings = Vec::new();
    for (number, entry) in (1..).zip(entries.chunks_exact(header.entry_bytes as usize)) {
        match partition(number, entry, header.sector_bytes) {
            Entry::Unused => {}
            Entry::Broken => warnings.push(format!("partition {number} ends before it starts")),
            Entry::Used(partition) => {
                if partition.start_bytes.saturating_add(partition.size_bytes) > disk_bytes {
                    warnings.push(format!("partition {number} ends after the disk"));
                }
                if let Some(name) = partition.type_name.filter(|name| [LDM, STORAGE_SPACES].contains(name)) {
                    warnings.push(format!("partition {number} is of {name}, whose volumes are not put together"));
                }
                partitions.push(partition);
            }
        }
    }
    PartitionTable {
        kind: TableKind::Gpt,
        id: Some(guid(header.disk_guid)),
        sector_bytes: header.sector_bytes,
        partitions,
        warnings,
    }
}

/// Windows' dynamic disks, and what followed them: their volumes begin anywhere in such partitions, of several disks too.
const LDM: &str = "Microsoft LDM data";
const STORAGE_SPACES: &str = "Microsoft Storage Spaces";

enum Entry {
    Unused,
    Broken,
    Used(Partition),
}

/// Table 5.6, "GPT Partition Entry".
fn partition(number: u32, entry: &[u8], sector_bytes: u32) -> Entry {
    let type_guid = array::<16>(entry, 0).unwrap_or_default();
    if type_guid == [0; 16] {
        return Entry::Unused;
    }
    let (first, last) = (le_u64(entry, 32).unwrap_or(0), le_u64(entry, 40).unwrap_or(0));
    let bytes = u64::from(sector_bytes);
    let sectors = last.checked_sub(first).and_then(|difference| difference.checked_add(1));
    let extent = sectors.and_then(|sectors| Some((first.checked_mul(bytes)?, sectors.checked_mul(bytes)?)));
    let Some((start_bytes, size_bytes)) = extent else { return Entry::Broken };
    let attributes = le_u64(entry, 48).unwrap_or(0);
    let type_id = guid(type_guid).to_ascii_uppercase();
    Entry::Used(Partition {
        number,
        start_bytes,
        size_bytes,
        type_name: type_name(&type_id),
        type_id,
        uuid: array(entry, 16).map(guid),
        label: label(entry),
        bootable: attributes >> 2 & 1 == 1,
        attributes,
        is_extended: false,
    })
}

/// 36 UTF-16 units, ended by a zero.
fn label(entry: &[u8]) -> Option<String> {
    let units = (56..128).step_by(2).map_while(|at| le_u16(entry, at).filter(|unit| *unit != 0));
    let text: String = char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    Some(text).filter(|text| !text.is_empty())
}

/// The types that guests have, named as sfdisk 2.38 prints them.
fn type_name(type_id: &str) -> Option<&'static str> {
    const NAMES: [(&str, &str); 24] = [
        ("C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "EFI System"),
        ("21686148-6449-6E6F-744E-656564454649", "BIOS boot"),
        ("0FC63DAF-8483-4772-8E79-3D69D8477DE4", "Linux filesystem"),
        ("0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", "Linux swap"),
        ("E6D6D379-F507-44C2-A23C-238F2A3DF928", "Linux LVM"),
        ("A19D880F-05FC-4D3B-A006-743F0F84911E", "Linux RAID"),
        ("BC13C2FF-59E6-4262-A352-B275FD6F7172", "Linux extended boot"),
        ("933AC7E1-2EB4-4F13-B844-0E14E2AEF915", "Linux home"),
        ("3B8F8425-20E0-4F3B-907F-1A25A76F98E8", "Linux server data"),
        ("44479540-F297-41B2-9AF7-D131D5F0458A", "Linux root (x86)"),
        ("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "Linux root (x86-64)"),
        ("B921B045-1DF0-41C3-AF44-4C6F280D3FAE", "Linux root (ARM-64)"),
        ("8484680C-9521-48C6-9C11-B0720656F69E", "Linux /usr (x86-64)"),
        ("CA7D7CCB-63ED-4C53-861C-1742536059CC", "LUKS"),
        ("E3C9E316-0B5C-4DB8-817D-F92DF00215AE", "Microsoft reserved"),
        ("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", "Microsoft basic data"),
        ("5808C8AA-7E8F-42E0-85D2-E1E90434CFB3", "Microsoft LDM metadata"),
        ("AF9B60A0-1431-4F62-BC68-3311714A69AD", LDM),
        ("E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D", STORAGE_SPACES),
        ("DE94BBA4-06D1-4D40-A16A-BFD50179D6AC", "Windows recovery environment"),
        ("516E7CB5-6ECF-11D6-8FF8-00022D09712B", "FreeBSD swap"),
        ("516E7CB6-6ECF-11D6-8FF8-00022D09712B", "FreeBSD UFS"),
        ("516E7CBA-6ECF-11D6-8FF8-00022D09712B", "FreeBSD ZFS"),
        ("7C3457EF-0000-11AA-AA11-00306543ECAC", "Apple APFS"),
    ];
    NAMES.iter().find(|(id, _)| *id == type_id).map(|(_, name)| *name)
}
