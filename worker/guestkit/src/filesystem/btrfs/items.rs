//! Items of trees, parsed ("Btrfs: On-disk Format", Data Structures).

use super::tree::Key;
use crate::bytes::{array, le_u16, le_u32, le_u64, slice};
use crate::filesystem::{FileType, Timestamp};

pub(super) const INODE_ITEM: u8 = 1;
pub(super) const INODE_REF: u8 = 12;
pub(super) const INODE_EXTREF: u8 = 13;
pub(super) const XATTR_ITEM: u8 = 24;
pub(super) const DIR_LOG_INDEX: u8 = 72;
pub(super) const DIR_ITEM: u8 = 84;
pub(super) const DIR_INDEX: u8 = 96;
pub(super) const EXTENT_DATA: u8 = 108;
pub(super) const EXTENT_CSUM: u8 = 128;
pub(super) const ROOT_ITEM: u8 = 132;
pub(super) const ROOT_BACKREF: u8 = 144;
pub(super) const ROOT_REF: u8 = 156;
pub(super) const CHUNK_ITEM: u8 = 228;

/// The hash that directory entries and attributes are sorted by: CRC-32C without the usual inversions, seeded with -2.
pub(super) fn name_hash(name: &[u8]) -> u64 {
    u64::from(!crc32c::crc32c_append(1, name))
}

/// `btrfs_inode_item`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inode {
    pub(super) generation: u64,
    pub(super) size: u64,
    pub(super) links: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    /// As the kernel's `dev_t`: twelve bits of major number over twenty of minor.
    pub(super) device: u64,
    pub(super) flags: u64,
    pub(super) accessed: Timestamp,
    pub(super) changed: Timestamp,
    pub(super) modified: Timestamp,
    pub(super) created: Timestamp,
}

fn timestamp(item: &[u8], at: usize) -> Option<Timestamp> {
    let seconds = le_u64(item, at)?.cast_signed();
    // A value past a second would not be one; the kernel hands it on as it is.
    Some(Timestamp { seconds, nanoseconds: le_u32(item, at.checked_add(8)?)?.min(999_999_999) })
}

impl Inode {
    pub(super) fn parse(item: &[u8]) -> Option<Self> {
        Some(Self {
            generation: le_u64(item, 0)?,
            size: le_u64(item, 16)?,
            links: le_u32(item, 40)?,
            uid: le_u32(item, 44)?,
            gid: le_u32(item, 48)?,
            mode: le_u32(item, 52)?,
            device: le_u64(item, 56)?,
            flags: le_u64(item, 64)?,
            accessed: timestamp(item, 112)?,
            changed: timestamp(item, 124)?,
            modified: timestamp(item, 136)?,
            created: timestamp(item, 148)?,
        })
    }
}

/// `btrfs_dir_item`: a name and what it stands for, or an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) location: Key,
    pub(super) name: &'a [u8],
    pub(super) data: &'a [u8],
    pub(super) kind: u8,
}

impl Entry<'_> {
    pub(super) const fn file_type(&self) -> Option<FileType> {
        Some(match self.kind {
            1 => FileType::Regular,
            2 => FileType::Directory,
            3 => FileType::CharacterDevice,
            4 => FileType::BlockDevice,
            5 => FileType::Fifo,
            6 => FileType::Socket,
            7 => FileType::Symlink,
            _ => return None,
        })
    }
}

/// The entries of one item: several where their names share a hash. `None` where one leaves the item.
pub(super) fn entries(item: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut entries = Vec::new();
    let mut rest = item;
    while !rest.is_empty() {
        let data_bytes = usize::from(le_u16(rest, 25)?);
        let name_bytes = usize::from(le_u16(rest, 27)?);
        let location = Key::parse(rest, 0)?;
        let (name, data) = (slice(rest, 30, name_bytes)?, slice(rest, 30 + name_bytes, data_bytes)?);
        entries.push(Entry { location, name, data, kind: *rest.get(29)? });
        rest = rest.get(30 + name_bytes + data_bytes..)?;
    }
    Some(entries)
}

/// A name of an inode: the directory, the index there, and the name.
pub(super) type Name<'a> = (u64, u64, &'a [u8]);

/// The names in an `INODE_REF` or `INODE_EXTREF` item.
pub(super) fn names<'a>(key: Key, item: &'a [u8]) -> Option<Vec<Name<'a>>> {
    let mut names = Vec::new();
    let mut rest = item;
    while !rest.is_empty() {
        let is_extended = key.kind == INODE_EXTREF;
        let (directory, at) = if is_extended { (le_u64(rest, 0)?, 8) } else { (key.offset, 0) };
        let length = usize::from(le_u16(rest, at + 8)?);
        names.push((directory, le_u64(rest, at)?, slice(rest, at + 10, length)?));
        rest = rest.get(at + 10 + length..)?;
    }
    Some(names)
}

/// `btrfs_root_item`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RootItem {
    pub(super) generation: u64,
    pub(super) directory: u64,
    pub(super) logical: u64,
    pub(super) level: u8,
    pub(super) references: u32,
    pub(super) is_read_only: bool,
    pub(super) uuid: Option<[u8; 16]>,
    pub(super) parent_uuid: Option<[u8; 16]>,
}

impl RootItem {
    pub(super) fn parse(item: &[u8]) -> Option<Self> {
        let generation = le_u64(item, 160)?;
        // Older kernels wrote a shorter item, and left what stood behind it as it was.
        let has_uuids = le_u64(item, 239) == Some(generation);
        let uuid = |at| array(item, at).filter(|uuid| has_uuids && *uuid != [0; 16]);
        Some(Self {
            generation,
            directory: le_u64(item, 168)?,
            logical: le_u64(item, 176)?,
            level: *item.get(238)?,
            references: le_u32(item, 216)?,
            is_read_only: le_u64(item, 208)? & 1 != 0,
            uuid: uuid(247),
            parent_uuid: uuid(263),
        })
    }
}

/// `btrfs_root_ref`: the directory that holds a subvolume, and its name there.
pub(super) fn root_reference(item: &[u8]) -> Option<(u64, &[u8])> {
    Some((le_u64(item, 0)?, slice(item, 18, usize::from(le_u16(item, 16)?))?))
}

/// `btrfs_file_extent_item`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    /// Bytes of its contents once decompressed.
    pub(super) decoded_bytes: u64,
    pub(super) compression: u8,
    /// Encryption and other encodings, of which none is defined.
    pub(super) encoding: u32,
    pub(super) place: Place,
}

/// Where the contents of an extent are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind the item's header, at this byte of it.
    Inline,
    /// On the devices.
    Regular {
        /// Logical address, 0 for a hole.
        logical: u64,
        /// Bytes there.
        stored_bytes: u64,
        /// First byte of the decoded contents that belongs to the file.
        offset: u64,
        /// Bytes of the file.
        length: u64,
        /// Whether nothing has been written there yet.
        is_preallocated: bool,
    },
}

/// Bytes of a file extent item before inline contents.
pub(super) const INLINE_AT: usize = 21;

impl Extent {
    pub(super) fn parse(item: &[u8]) -> Option<Self> {
        let place = match *item.get(20)? {
            0 => Place::Inline,
            kind @ (1 | 2) => Place::Regular {
                logical: le_u64(item, 21)?,
                stored_bytes: le_u64(item, 29)?,
                offset: le_u64(item, 37)?,
                length: le_u64(item, 45)?,
                is_preallocated: kind == 2,
            },
            _ => return None,
        };
        Some(Self {
            decoded_bytes: le_u64(item, 8)?,
            compression: *item.get(16)?,
            encoding: u32::from(*item.get(17)?) | u32::from(le_u16(item, 18)?) << 8,
            place,
        })
    }

    /// Bytes of the file that it stands for.
    pub(super) const fn length(&self) -> u64 {
        match self.place {
            Place::Inline => self.decoded_bytes,
            Place::Regular { length, .. } => length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `btrfs inspect-internal dump-tree` prints 2378154706 for `default`.
    #[test]
    fn names_hash_as_on_disk() {
        assert_eq!(name_hash(b"default"), 2_378_154_706);
    }

    #[test]
    fn items_that_are_cut_are_none() {
        let mut item = vec![0; 30];
        item[27] = 4;
        item.extend(b"name");
        assert_eq!(entries(&item).unwrap().len(), 1);
        for length in 1..item.len() {
            assert_eq!(entries(&item[..length]), None);
        }
        for length in 0..53 {
            let mut item = vec![0; length];
            if let Some(kind) = item.get_mut(20) {
                *kind = 1;
            }
            assert_eq!(Extent::parse(&item), None);
            assert_eq!(Inode::parse(&item), None);
            assert_eq!(RootItem::parse(&item), None);
        }
    }
}
