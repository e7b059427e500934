//! What a device holds, from its superblock alone: type, label and UUID as blkid prints them.
//!
//! Magic numbers are short and stale ones stay behind, so each probe also checks what its format says must hold. What
//! surrounds a file system (a RAID, a volume, encryption) is asked for first, because its content can look like one.

use super::probes;
use crate::error::Result;
use crate::partition::uuid;
use crate::read_at::{ReadAt, read_up_to};
use crate::volume::probes as volume;

/// What recognised content is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Usage {
    /// Files.
    FileSystem,
    /// A member of a volume: LVM, md, a RAID controller's, ZFS, bcache.
    Volume,
    /// Encrypted content.
    Encrypted,
    /// Something else: swap, a journal.
    Other,
}

/// What a superblock shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The type as blkid names it: `ext4`, `xfs`, `LVM2_member`…
    pub kind: &'static str,
    /// What it is for.
    pub usage: Usage,
    /// Volume label.
    pub label: Option<String>,
    /// UUID or serial number, in the form blkid prints.
    pub uuid: Option<String>,
}

impl Probe {
    pub(crate) const fn new(kind: &'static str, usage: Usage) -> Self {
        Self { kind, usage, label: None, uuid: None }
    }

    pub(crate) const fn file_system(kind: &'static str) -> Self {
        Self::new(kind, Usage::FileSystem)
    }

    pub(crate) fn with_uuid(mut self, bytes: Option<[u8; 16]>) -> Self {
        self.uuid = bytes.filter(|bytes| *bytes != [0; 16]).map(uuid);
        self
    }

    pub(crate) fn with_uuid_text(mut self, text: Option<String>) -> Self {
        self.uuid = text;
        self
    }

    pub(crate) fn with_label(mut self, bytes: Option<&[u8]>) -> Self {
        self.label = bytes.and_then(label);
        self
    }

    pub(crate) fn with_label_text(mut self, text: Option<String>) -> Self {
        self.label = text;
        self
    }
}

/// A label up to its first zero byte, trailing white space cut.
pub(crate) fn label(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|byte| *byte == 0).next()?;
    let text = String::from_utf8_lossy(text).trim_end().to_owned();
    Some(text).filter(|text| !text.is_empty())
}

/// A label of UTF-16 units up to its first zero, trailing white space cut.
pub(crate) fn label_utf16(units: impl Iterator<Item = u16>) -> Option<String> {
    let units = units.take_while(|unit| *unit != 0);
    let text: String = char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    let text = text.trim_end().to_owned();
    Some(text).filter(|text| !text.is_empty())
}

/// The parts of a device that most probes look at, read once.
#[derive(Debug)]
pub(crate) struct View<'a> {
    device: &'a dyn ReadAt,
    /// The first bytes, up to and including the superblock of btrfs.
    head: Vec<u8>,
}

/// btrfs has the farthest common superblock: 4 KiB at 64 KiB. minix, UFS2 and reiserfs lie before its end.
const HEAD_BYTES: usize = 68 << 10;

impl View<'_> {
    /// The first 68 KiB, or as much as there is.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// The device itself.
    pub(crate) fn device(&self) -> &dyn ReadAt {
        self.device
    }

    /// Length of the device in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.device.len()
    }

    /// Up to `length` bytes at `offset`, fewer where the device ends.
    pub(crate) fn at(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        read_up_to(self.device, offset, length)
    }
}

type Probing = fn(&View<'_>) -> Result<Option<Probe>>;

/// Members of volumes and encryption first, then file systems, those with the strongest signatures first. NTFS, exFAT
/// and FAT share a boot sector's signature and tell each other apart; ISO 9660 stands behind UDF, whose discs carry both.
/// What only a copy of a superblock shows comes last.
const PROBES: [Probing; 38] = [
    volume::md,
    volume::lvm2,
    volume::luks,
    volume::bitlocker,
    volume::bcache,
    volume::bcachefs,
    volume::zfs,
    volume::vdo,
    volume::ddf,
    volume::intel,
    volume::controllers,
    volume::ubi,
    probes::xfs,
    probes::btrfs,
    probes::ext,
    probes::ntfs,
    probes::exfat,
    probes::refs,
    probes::vfat,
    probes::swap,
    probes::udf,
    probes::iso9660,
    probes::squashfs,
    probes::erofs,
    probes::f2fs,
    probes::jfs,
    probes::reiserfs,
    probes::apfs,
    probes::hfs,
    probes::nilfs2,
    probes::ocfs2,
    probes::ufs,
    probes::gfs2,
    probes::small,
    probes::rare,
    probes::minix,
    probes::ext_copy,
    probes::ntfs_copy,
];

/// Probes `device`.
///
/// # Errors
/// Whatever reading the device gives.
pub fn probe(device: &dyn ReadAt) -> Result<Option<Probe>> {
    let view = View { device, head: read_up_to(device, 0, HEAD_BYTES)? };
    for probe in PROBES {
        if let Some(found) = probe(&view)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
