//! Partition tables: GPT and MBR, and the names of those that are not read yet.
//!
//! A table is a claim of the disk: entries that leave it are cut or left out with a warning, never trusted.

mod gpt;
mod mbr;

use crate::bytes::{be_u16, be_u32, has, le_u32, slice};
use crate::error::Result;
use crate::read_at::{ReadAt, read_up_to};

/// What kind of table a disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// GUID partition table (UEFI 2.10, section 5.3).
    Gpt,
    /// Master boot record, with extended boot records for logical partitions.
    Mbr,
}

impl TableKind {
    /// The name blkid prints as PTTYPE.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gpt => "gpt",
            Self::Mbr => "dos",
        }
    }
}

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTable {
    /// Its kind.
    pub kind: TableKind,
    /// The disk's identifier as blkid prints PTUUID: a lower-case GUID, or eight hexadecimal digits.
    pub id: Option<String>,
    /// Bytes of the sectors it counts in.
    pub sector_bytes: u32,
    /// Its partitions by number; extended partitions, which only hold others, are among them.
    pub partitions: Vec<Partition>,
    /// What contradicts the specification and was read nevertheless.
    pub warnings: Vec<String>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, as in `/dev/sda1`; logical ones start at 5.
    pub number: u32,
    /// Where it starts.
    pub start_bytes: u64,
    /// Its length as the table says, even where the disk ends before.
    pub size_bytes: u64,
    /// Its type: an upper-case GUID as sfdisk prints it, or two hexadecimal digits.
    pub type_id: String,
    /// What the type is called, where it is a known one.
    pub type_name: Option<&'static str>,
    /// PARTUUID as blkid prints it.
    pub uuid: Option<String>,
    /// Its GPT name.
    pub label: Option<String>,
    /// MBR's active flag, or GPT's "legacy BIOS bootable" attribute.
    pub bootable: bool,
    /// GPT's attributes (UEFI 2.10, table 5.8; bits from 48 on belong to the type); 0 in an MBR.
    pub attributes: u64,
    /// Whether it only holds logical partitions.
    pub is_extended: bool,
}

/// What the first sectors of a disk show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// A table; one without partitions says nothing of what else lies there.
    Table(PartitionTable),
    /// A table of a kind that is recognised and not read.
    Unread(&'static str),
    /// No table.
    Nothing,
}

/// Reads the partition table of `disk`.
///
/// # Errors
/// Whatever reading the disk gives; a broken table is no error but a warning, or none at all.
pub fn read(disk: &dyn ReadAt) -> Result<Layout> {
    let first = read_up_to(disk, 0, 512)?;
    let boot_record = mbr::BootRecord::parse(&first);
    let protective = boot_record.as_ref().is_some_and(mbr::BootRecord::is_protective);
    if let Some(mut table) = gpt::read(disk, protective)? {
        match &boot_record {
            Some(record) if protective && record.is_hybrid() => {
                table.warnings.push("the boot record is a hybrid one; its own partitions are not listed".into());
            }
            _ if !protective => table.warnings.push("the GPT has no protective boot record".into()),
            _ => {}
        }
        return Ok(Layout::Table(table));
    }
    if let Some(name) = unread_kind(disk, &first)? {
        return Ok(Layout::Unread(name));
    }
    match boot_record {
        // It protects a GPT that is lost.
        Some(record) if protective && !record.has_partitions() => Ok(Layout::Unread("PMBR")),
        Some(record) => mbr::read(disk, &record).map(Layout::Table),
        None => Ok(Layout::Nothing),
    }
}

/// Tables that are recognised by their magic alone, as libblkid names them.
fn unread_kind(disk: &dyn ReadAt, first: &[u8]) -> Result<Option<&'static str>> {
    let second = read_up_to(disk, 512, 512)?;
    Ok(match () {
        // Inside Macintosh: Devices, "The Driver Descriptor Record" and "partition map".
        () if has(first, 0, b"ER") && has(&second, 0, b"PM\0\0") => Some("mac"),
        // FreeBSD sys/disk/bsd.h: DISKMAGIC at both of its places.
        () if le_u32(&second, 0) == Some(0x8256_4557) && le_u32(&second, 132) == Some(0x8256_4557) => Some("bsd"),
        () if be_u32(first, 0) == Some(0x0be5_a941) => Some("sgi"),
        () if be_u16(first, 508) == Some(0xdabe) => Some("sun"),
        () if is_atari(first, disk.len() / 512) => Some("atari"),
        () => None,
    })
}

/// The root sector of Atari's AHDI, which has no magic: the disk's size, and four partitions, one of which must be in use,
/// be called by three letters and lie on the disk (the kernel's `block/partitions/atari.c`).
fn is_atari(first: &[u8], disk_sectors: u64) -> bool {
    let Some(size) = be_u32(first, 0x1c2).filter(|size| *size != 0 && u64::from(*size) <= disk_sectors) else {
        return false;
    };
    let is_partition = |entry: &[u8]| {
        let (start, length) = (be_u32(entry, 4)?, be_u32(entry, 8)?);
        let is_named = slice(entry, 1, 3)?.iter().all(u8::is_ascii_alphanumeric);
        let is_inside = start.checked_add(length).is_some_and(|end| end <= size);
        Some(entry.first()? & 1 == 1 && is_named && is_inside)
    };
    slice(first, 0x1c6, 48).is_some_and(|all| all.chunks_exact(12).any(|entry| is_partition(entry) == Some(true)))
}

/// A GUID in the form sfdisk and blkid print, from its mixed-endian form on disk (UEFI 2.10, appendix A).
pub(crate) fn guid(bytes: [u8; 16]) -> String {
    let [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7] = bytes;
    uuid([a3, a2, a1, a0, b1, b0, c1, c0, d0, d1, d2, d3, d4, d5, d6, d7])
}

/// A UUID in its usual form, from its bytes in order (RFC 9562).
pub(crate) fn uuid(bytes: [u8; 16]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
