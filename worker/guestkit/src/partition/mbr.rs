//! Master boot records and the chain of extended boot records.
//!
//! There is no specification but what IBM, Microsoft and the Linux kernel (`block/partitions/msdos.c`) made of it:
//! four entries of 16 bytes at 446, and 55 AA at 510.

use std::collections::HashSet;

use super::{Partition, PartitionTable, TableKind};
use crate::bytes::{be_u16, has, le_u32, slice};
use crate::error::Result;
use crate::read_at::{ReadAt, read_up_to};

const PROTECTIVE: u8 = 0xee;
/// Linux itself numbers no more than 256 partitions of a disk.
const LOGICAL_MAX: usize = 252;

/// One entry of a boot record, in sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    boot_flag: u8,
    kind: u8,
    start: u32,
    sectors: u32,
}

impl Entry {
    const fn is_used(self) -> bool {
        self.kind != 0 && self.sectors != 0
    }

    const fn is_extended(self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }
}

/// A sector that ends in 55 AA and whose entries could be partitions.
#[derive(Debug, Clone)]
pub(super) struct BootRecord {
    disk_id: u32,
    entries: [Entry; 4],
}

impl BootRecord {
    /// `None` for a sector without the signature, and for the boot sector of a file system, whose code lies where the
    /// entries would be and does not have their flags.
    pub(super) fn parse(sector: &[u8]) -> Option<Self> {
        if be_u16(sector, 510) != Some(0x55aa) {
            return None;
        }
        let entry = |index: usize| {
            let bytes = slice(sector, 446 + index * 16, 16)?;
            let (boot_flag, kind) = (*bytes.first()?, *bytes.get(4)?);
            Some(Entry { boot_flag, kind, start: le_u32(bytes, 8)?, sectors: le_u32(bytes, 12)? })
        };
        let entries = [entry(0)?, entry(1)?, entry(2)?, entry(3)?];
        let plausible = entries.iter().all(|entry| entry.boot_flag & 0x7f == 0);
        plausible.then_some(Self { disk_id: le_u32(sector, 440)?, entries })
    }

    pub(super) fn is_protective(&self) -> bool {
        self.entries.iter().any(|entry| entry.kind == PROTECTIVE)
    }

    pub(super) fn is_hybrid(&self) -> bool {
        self.entries.iter().any(|entry| entry.is_used() && entry.kind != PROTECTIVE)
    }

    pub(super) fn has_partitions(&self) -> bool {
        self.entries.iter().any(|entry| entry.is_used() && entry.kind != PROTECTIVE)
    }
}

/// Reads the table that begins with `record`.
pub(super) fn read(disk: &dyn ReadAt, record: &BootRecord) -> Result<PartitionTable> {
    let sector_bytes = sector_bytes(disk, record)?;
    let mut table = PartitionTable {
        kind: TableKind::Mbr,
        id: Some(record.disk_id).filter(|id| *id != 0).map(|id| format!("{id:08x}")),
        sector_bytes,
        partitions: Vec::new(),
        warnings: Vec::new(),
    };
    let mut extended = None;
    for (number, entry) in (1..).zip(record.entries) {
        if entry.is_used() && entry.kind != PROTECTIVE {
            if entry.is_extended() && extended.is_none() {
                extended = Some(entry);
            }
            push(&mut table, number, entry, 0, disk.len(), record.disk_id);
        }
    }
    // Windows' dynamic disks have a private header in sector 6 (LDM, as the kernel's `block/partitions/ldm.h` describes it).
    let is_dynamic = record.entries.iter().any(|entry| entry.is_used() && entry.kind == 0x42);
    if is_dynamic && has(&read_up_to(disk, 6 * 512, 8)?, 0, b"PRIVHEAD") {
        table.warnings.push("it is a dynamic disk (LDM), whose volumes are not put together".into());
    }
    if let Some(extended) = extended {
        read_logical(disk, extended, record.disk_id, &mut table)?;
    }
    Ok(table)
}

/// A boot record does not say its sector size. Disks have 512 bytes, unless the extended boot record lies where sectors
/// of 4096 bytes put it.
fn sector_bytes(disk: &dyn ReadAt, record: &BootRecord) -> Result<u32> {
    let Some(extended) = record.entries.iter().find(|entry| entry.is_used() && entry.is_extended()) else {
        return Ok(512);
    };
    let mut found = 512;
    for candidate in [4096, 512] {
        let start = u64::from(extended.start) * u64::from(candidate);
        if BootRecord::parse(&read_up_to(disk, start, 512)?).is_some() {
            found = candidate;
        }
    }
    Ok(found)
}

/// Each extended boot record holds one logical partition, counted from itself, and the place of the next record,
/// counted from the extended partition.
fn read_logical(disk: &dyn ReadAt, extended: Entry, disk_id: u32, table: &mut PartitionTable) -> Result<()> {
    let sector_bytes = u64::from(table.sector_bytes);
    let base = u64::from(extended.start);
    let mut seen = HashSet::new();
    let mut number = 5;
    let mut next = Some(base);
    while let Some(at) = next.take() {
        if !seen.insert(at) || seen.len() > LOGICAL_MAX {
            table.warnings.push("the chain of extended boot records has no end".into());
            break;
        }
        let Some(record) = BootRecord::parse(&read_up_to(disk, at.saturating_mul(sector_bytes), 512)?) else {
            // An extended partition that was never used has no record at all.
            if at != base {
                table.warnings.push(format!("the extended boot record at sector {at} is broken"));
            }
            break;
        };
        for entry in record.entries.into_iter().filter(|entry| entry.is_used()) {
            if entry.is_extended() {
                next = next.or(Some(base.saturating_add(u64::from(entry.start))));
            } else {
                push(table, number, entry, at, disk.len(), disk_id);
                number += 1;
            }
        }
    }
    Ok(())
}

fn push(table: &mut PartitionTable, number: u32, entry: Entry, base: u64, disk_bytes: u64, disk_id: u32) {
    let sector_bytes = u64::from(table.sector_bytes);
    // 32-bit sector numbers times at most 4096 stay far below 2^64; the base is such a number too.
    let start_bytes = base.saturating_add(u64::from(entry.start)).saturating_mul(sector_bytes);
    let size_bytes = u64::from(entry.sectors).saturating_mul(sector_bytes);
    if start_bytes.saturating_add(size_bytes) > disk_bytes {
        table.warnings.push(format!("partition {number} ends after the disk"));
    }
    table.partitions.push(Partition {
        number,
        start_bytes,
        size_bytes,
        type_id: format!("{:02x}", entry.kind),
        type_name: type_name(entry.kind),
        uuid: (disk_id != 0).then(|| format!("{disk_id:08x}-{number:02x}")),
        label: None,
        bootable: entry.boot_flag == 0x80,
        attributes: 0,
        is_extended: entry.is_extended(),
    });
}

/// The types that guests have, named as sfdisk 2.38 prints them.
const fn type_name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        0x01 => "FAT12",
        0x04 => "FAT16 <32M",
        0x05 => "Extended",
        0x06 => "FAT16",
        0x07 => "HPFS/NTFS/exFAT",
        0x0b => "W95 FAT32",
        0x0c => "W95 FAT32 (LBA)",
        0x0e => "W95 FAT16 (LBA)",
        0x0f => "W95 Ext'd (LBA)",
        0x11 => "Hidden FAT12",
        0x14 => "Hidden FAT16 <32M",
        0x16 => "Hidden FAT16",
        0x17 => "Hidden HPFS/NTFS",
        0x1b => "Hidden W95 FAT32",
        0x1c => "Hidden W95 FAT32 (LBA)",
        0x27 => "Hidden NTFS WinRE",
        0x42 => "SFS",
        0x81 => "Minix / old Linux",
        0x82 => "Linux swap / Solaris",
        0x83 => "Linux",
        0x85 => "Linux extended",
        0x8e => "Linux LVM",
        0xa5 => "FreeBSD",
        0xa6 => "OpenBSD",
        0xa9 => "NetBSD",
        0xaf => "HFS / HFS+",
        0xee => "GPT",
        0xef => "EFI (FAT-12/16/32)",
        0xfd => "Linux raid autodetect",
        _ => return None,
    })
}
