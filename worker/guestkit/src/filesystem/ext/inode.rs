//! Inodes and extended attributes (Linux, Documentation/filesystems/ext4: "Index Nodes", "Extended Attributes").

use super::superblock::{BITS_64, HUGE_FILE, LARGE_DIRECTORY, Superblock, crc32c};
use crate::bytes::{array, le_u16, le_u32, slice, sum_holds};
use crate::error::{Error, Result};
use crate::filesystem::{FileType, Timestamp};

/// `EXT4_ENCRYPT_FL`: names or contents are encrypted.
pub(super) const ENCRYPTED: u32 = 0x0800;
/// `EXT4_INDEX_FL`: the directory has a tree of hashes.
pub(super) const INDEXED: u32 = 0x1000;
/// `EXT4_EXTENTS_FL`: the block area is the root of a tree of extents.
pub(super) const EXTENTS: u32 = 0x8_0000;
/// `EXT4_EA_INODE_FL`: the content is the value of an attribute.
pub(super) const ATTRIBUTE_VALUE: u32 = 0x20_0000;
/// `EXT4_INLINE_DATA_FL`: contents lie in the inode itself.
pub(super) const INLINE: u32 = 0x1000_0000;
/// `EXT4_HUGE_FILE_FL`: `i_blocks` counts blocks of the file system, not sectors.
const BLOCKS_ARE_LARGE: u32 = 0x4_0000;

const OLD_INODE_BYTES: usize = 128;
const ATTRIBUTES_MAGIC: u32 = 0xea02_0000;

/// The root directory's inode.
pub(super) const ROOT: u32 = 2;

/// An inode in use.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) number: u32,
    pub(super) file_type: FileType,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) links: u16,
    pub(super) flags: u32,
    /// Seed of the checksums of what belongs to it.
    pub(super) checksum_seed: u32,
    pub(super) generation: u32,
    /// Where its attributes go on, in a block of their own; 0 for nowhere.
    pub(super) attribute_block: u64,
    /// `i_block`: pointers, the root of a tree of extents, a short link's target, a device's number, or contents.
    pub(super) area: [u8; 60],
    pub(super) accessed: Timestamp,
    pub(super) modified: Timestamp,
    pub(super) changed: Timestamp,
    pub(super) created: Option<Timestamp>,
    /// Sectors of 512 bytes that it occupies.
    sectors: u64,
    /// The rest of the inode behind its fields, where attributes begin.
    pub(super) tail: Vec<u8>,
}

impl Inode {
    /// Parses inode `number`, whose bytes lie at `at` of the device. A wrong checksum is fatal for the inode, as for the
    /// kernel.
    ///
    /// # Errors
    /// [`Error::Corrupt`], also for one that is deleted.
    pub(super) fn parse(bytes: &[u8], number: u32, at: u64, superblock: &Superblock) -> Result<Self> {
        let corrupt = |reason: String| Error::corrupt("ext inode", at, format!("inode {number} {reason}"));
        let field = |offset| le_u16(bytes, offset).unwrap_or(0);
        let word = |offset| le_u32(bytes, offset).unwrap_or(0);
        if bytes.len() < OLD_INODE_BYTES {
            return Err(corrupt("is cut short".into()));
        }
        if field(0x1a) == 0 {
            return Err(corrupt("is not in use: no name points to it".into()));
        }
        let extra = if bytes.len() > OLD_INODE_BYTES { usize::from(field(0x80)) } else { 0 };
        let fields_end = OLD_INODE_BYTES.saturating_add(extra);
        if fields_end > bytes.len() || extra % 4 != 0 {
            return Err(corrupt(format!("is said to have {extra} bytes of further fields")));
        }
        let seeds = [number.to_le_bytes(), word(0x64).to_le_bytes()];
        let checksum_seed = seeds.iter().fold(superblock.checksum_seed, |sum, part| crc32c(sum, part));
        if superblock.has_checksums() && !checksum_holds(bytes, extra, checksum_seed) {
            return Err(corrupt("has a wrong checksum".into()));
        }
        let mode = field(0);
        let file_type = FileType::of_mode(u32::from(mode))
            .ok_or_else(|| corrupt(format!("has the mode {mode:#o}, which names no type of file")))?;
        let flags = word(0x20);
        // Outside of regular files, older kernels keep something else in the upper half.
        let has_long_size = file_type == FileType::Regular || superblock.has(LARGE_DIRECTORY);
        let size_high = if has_long_size { u64::from(word(0x6c)) << 32 } else { 0 };
        let attribute_high = if superblock.has(BITS_64) { u64::from(field(0x76)) << 32 } else { 0 };
        let has_huge_files = superblock.has_read_only(HUGE_FILE);
        let blocks_high = if has_huge_files { u64::from(field(0x74)) << 32 } else { 0 };
        let blocks = u64::from(word(0x1c)) | blocks_high;
        let unit = if has_huge_files && flags & BLOCKS_ARE_LARGE != 0 { superblock.block_bytes / 512 } else { 1 };
        let fits = |offset: usize| offset.saturating_add(4) <= fields_end;
        let time = |at: usize, extra_at: usize| timestamp(word(at), if fits(extra_at) { word(extra_at) } else { 0 });
        Ok(Self {
            number,
            file_type,
            mode: mode & 0o7777,
            uid: u32::from(field(2)) | u32::from(field(0x78)) << 16,
            gid: u32::from(field(0x18)) | u32::from(field(0x7a)) << 16,
            size: u64::from(word(4)) | size_high,
            links: field(0x1a),
            flags,
            checksum_seed,
            generation: word(0x64),
            attribute_block: u64::from(word(0x68)) | attribute_high,
            area: array(bytes, 0x28).unwrap_or([0; 60]),
            accessed: time(8, 0x8c),
            modified: time(0x10, 0x88),
            changed: time(0xc, 0x84),
            created: fits(0x90).then(|| time(0x90, 0x94)),
            sectors: blocks.saturating_mul(unit),
            // Without further fields the kernel looks for no attributes either.
            tail: if extra == 0 { Vec::new() } else { bytes.get(fields_end..).unwrap_or_default().to_vec() },
        })
    }

    /// The journal's inode of the copy in the superblock (`s_jnl_blocks`): the block area, then the halves of the size,
    /// the upper one first.
    pub(super) fn of_journal(number: u32, copy: &[u8; 68]) -> Self {
        let area = array(copy, 0).unwrap_or([0; 60]);
        let word = |at| u64::from(le_u32(copy, at).unwrap_or(0));
        Self {
            number,
            file_type: FileType::Regular,
            mode: 0,
            uid: 0,
            gid: 0,
            size: word(64) | word(60) << 32,
            links: 1,
            flags: if le_u16(&area, 0) == Some(0xf30a) { EXTENTS } else { 0 },
            checksum_seed: 0,
            generation: 0,
            attribute_block: 0,
            area,
            accessed: Timestamp::default(),
            modified: Timestamp::default(),
            changed: Timestamp::default(),
            created: None,
            sectors: 0,
            tail: Vec::new(),
        }
    }

    pub(super) const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Major and minor number: 8 bits each in the first word, or 12 and 20 in the second.
    pub(super) fn device(&self) -> Option<(u32, u32)> {
        if !matches!(self.file_type, FileType::CharacterDevice | FileType::BlockDevice) {
            return None;
        }
        let (old, new) = (le_u32(&self.area, 0).unwrap_or(0), le_u32(&self.area, 4).unwrap_or(0));
        Some(match old {
            0 => ((new & 0xf_ff00) >> 8, (new & 0xff) | ((new >> 12) & 0xf_ff00)),
            old => ((old >> 8) & 0xff, old & 0xff),
        })
    }

    /// The target of a symbolic link that lies in the block area, by the kernel's rule (`ext4_inode_is_fast_symlink`): it
    /// occupies nothing but its attributes. `None` where it lies in a block.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where its length is not the one that is said.
    pub(super) fn short_target(&self, superblock: &Superblock) -> Result<Option<Vec<u8>>> {
        let is_short = if superblock.has(super::superblock::ATTRIBUTE_INODES) {
            self.size > 0 && self.size < self.area.len() as u64
        } else {
            let of_attributes = if self.attribute_block == 0 { 0 } else { superblock.cluster_bytes / 512 };
            self.sectors.checked_sub(of_attributes) == Some(0)
        };
        if !is_short {
            return Ok(None);
        }
        let length = self.area.iter().position(|byte| *byte == 0).unwrap_or(self.area.len());
        let target = self.area.get(..length).unwrap_or_default();
        if length as u64 != self.size || length == 0 {
            let reason = format!("inode {} is a link of {} bytes, and {length} are there", self.number, self.size);
            return Err(Error::corrupt("ext inode", 0, reason));
        }
        Ok(Some(target.to_vec()))
    }

    /// The attributes that lie in the inode itself.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub(super) fn attributes(&self) -> Result<Vec<Attribute>> {
        if le_u32(&self.tail, 0) != Some(ATTRIBUTES_MAGIC) {
            return Ok(Vec::new());
        }
        let region = self.tail.get(4..).unwrap_or_default();
        attributes(region, 0)
            .map_err(|reason| Error::corrupt("ext extended attributes", 0, format!("inode {}: {reason}", self.number)))
    }
}

/// The low half lies in the old fields, the high one behind them where there is room; both count as zero.
fn checksum_holds(bytes: &[u8], extra: usize, seed: u32) -> bool {
    const LOW: usize = 0x7c;
    const HIGH: usize = 0x82;
    let part = |from: usize, to: usize| bytes.get(from..to).unwrap_or_default();
    let mut sum = crc32c(crc32c(seed, part(0, LOW)), &[0; 2]);
    sum = crc32c(sum, part(LOW + 2, OLD_INODE_BYTES));
    let low = u32::from(le_u16(bytes, LOW).unwrap_or(0));
    if extra < 4 {
        sum = crc32c(sum, part(OLD_INODE_BYTES, bytes.len()));
        return sum_holds(sum & 0xffff == low);
    }
    sum = crc32c(crc32c(sum, part(OLD_INODE_BYTES, HIGH)), &[0; 2]);
    sum = crc32c(sum, part(HIGH + 2, bytes.len()));
    sum_holds(sum == (low | u32::from(le_u16(bytes, HIGH).unwrap_or(0)) << 16))
}

/// The lower two bits of `extra` carry the seconds past 2038, the others are nanoseconds.
fn timestamp(seconds: u32, extra: u32) -> Timestamp {
    let seconds = i64::from(seconds.cast_signed()).saturating_add(i64::from(extra & 3) << 32);
    Timestamp { seconds, nanoseconds: (extra >> 2).min(999_999_999) }
}

/// An attribute as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attribute {
    /// Which namespace its name begins with.
    pub(super) prefix: u8,
    /// The rest of its name.
    pub(super) name: Vec<u8>,
    pub(super) value: Value,
}

/// Where an attribute's value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Beside it.
    Here(Vec<u8>),
    /// In an inode of its own, of so many bytes.
    Inode(u32, u64),
}

impl Attribute {
    /// The name users know (`ext4_xattr_prefix`), or `None` for what the kernel lists to nobody: contents, encryption
    /// contexts, namespaces it does not know.
    pub(super) fn full_name(&self) -> Option<Vec<u8>> {
        let prefix: &[u8] = match self.prefix {
            1 => b"user.",
            2 => b"system.posix_acl_access",
            3 => b"system.posix_acl_default",
            4 => b"trusted.",
            6 => b"security.",
            7 if self.name == b"data" => return None,
            7 => b"system.",
            8 => b"system.richacl",
            10 => b"gnu.",
            _ => return None,
        };
        Some([prefix, &self.name].concat())
    }

    /// Whether the value is a POSIX ACL, which is stored shorter than it is shown.
    pub(super) const fn is_acl(&self) -> bool {
        matches!(self.prefix, 2 | 3)
    }

    /// Whether it is the second part of inline contents.
    pub(super) fn is_inline_content(&self) -> bool {
        self.prefix == 7 && self.name == b"data"
    }
}

/// The entries of `region` from `at`; values are at offsets from its start.
fn attributes(region: &[u8], mut at: usize) -> std::result::Result<Vec<Attribute>, String> {
    let mut found = Vec::new();
    let mut values = 0_usize;
    // Every entry has at least 16 bytes, so the region bounds their number; values lie beside each other, so it bounds
    // their lengths, too.
    while le_u32(region, at).is_some_and(|word| word != 0) {
        let entry = region.get(at..).unwrap_or_default();
        let (Some([name_bytes, prefix]), Some(offset), Some(inode), Some(size)) =
            (array(entry, 0), le_u16(entry, 2), le_u32(entry, 4), le_u32(entry, 8))
        else {
            return Err(format!("the entry at byte {at} is cut short"));
        };
        let name_bytes = usize::from(name_bytes);
        let name = slice(entry, 16, name_bytes).ok_or_else(|| format!("the name at byte {at} leaves its place"))?;
        let value = if inode != 0 {
            Value::Inode(inode, u64::from(size))
        } else {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            values = values.saturating_add(size);
            let bytes = if size == 0 { Some(&[][..]) } else { slice(region, usize::from(offset), size) };
            let bytes = bytes.filter(|_| values <= region.len());
            Value::Here(bytes.ok_or_else(|| format!("the value of the entry at byte {at} leaves its place"))?.to_vec())
        };
        found.push(Attribute { prefix, name: name.to_vec(), value });
        at = at.saturating_add(16).saturating_add(name_bytes.next_multiple_of(4));
    }
    Ok(found)
}

/// The attributes of the block `number`.
///
/// # Errors
/// [`Error::Corrupt`], also for a wrong checksum: the kernel gives none of them then.
pub(super) fn block_attributes(bytes: &[u8], number: u64, superblock: &Superblock) -> Result<Vec<Attribute>> {
    const CHECKSUM: usize = 0x10;
    let at = number.saturating_mul(superblock.block_bytes);
    let corrupt = |reason: String| Error::corrupt("ext extended attributes", at, reason);
    if le_u32(bytes, 0) != Some(ATTRIBUTES_MAGIC) || le_u32(bytes, 8) != Some(1) {
        return Err(corrupt("the header of the block is wrong".into()));
    }
    if superblock.has_checksums() {
        let (before, after) =
            (bytes.get(..CHECKSUM).unwrap_or_default(), bytes.get(CHECKSUM + 4..).unwrap_or_default());
        let parts: [&[u8]; 4] = [&number.to_le_bytes(), before, &[0; 4], after];
        let sum = parts.iter().fold(superblock.checksum_seed, |sum, part| crc32c(sum, part));
        if !sum_holds(le_u32(bytes, CHECKSUM) == Some(sum)) {
            return Err(corrupt("the checksum of the block is wrong".into()));
        }
    }
    attributes(bytes, 32).map_err(corrupt)
}

/// A POSIX ACL as `getxattr` gives it (Linux, `posix_acl_xattr.h`): version 2, and 8 bytes for each entry; on disk it is
/// version 1, and only entries of named users and groups have an identifier.
pub(super) fn shown_acl(stored: &[u8]) -> Option<Vec<u8>> {
    if le_u32(stored, 0)? != 1 {
        return None;
    }
    let mut shown = 2_u32.to_le_bytes().to_vec();
    let mut at = 4;
    while at < stored.len() {
        shown.extend_from_slice(slice(stored, at, 4)?);
        at = at.saturating_add(4);
        // ACL_USER and ACL_GROUP.
        if matches!(le_u16(stored, at.saturating_sub(4))?, 2 | 8) {
            shown.extend_from_slice(slice(stored, at, 4)?);
            at = at.saturating_add(4);
        } else {
            shown.extend_from_slice(&[0xff; 4]);
        }
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoch_bits_carry_seconds_past_2038() {
        // The table of "Inode Timestamps" in the kernel's documentation.
        assert_eq!(timestamp(0xffff_ffff, 0).seconds, -1);
        assert_eq!(timestamp(0x8000_0000, 1).seconds, 0x8000_0000);
        assert_eq!(timestamp(0x7fff_ffff, 3).seconds, 0x3_7fff_ffff);
        assert_eq!(timestamp(0, 5 << 2).nanoseconds, 5);
    }

    #[test]
    fn acls_get_the_identifiers_that_are_left_out_on_disk() {
        let entry = |tag: u16, permissions: u16| [tag.to_le_bytes(), permissions.to_le_bytes()].concat();
        let stored =
            [1_u32.to_le_bytes().to_vec(), entry(1, 6), entry(2, 4), 1000_u32.to_le_bytes().to_vec(), entry(32, 4)]
                .concat();
        let shown = shown_acl(&stored).unwrap();
        assert_eq!(shown.len(), 4 + 3 * 8);
        assert_eq!(shown[4..12], [1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(shown[16..20], 1000_u32.to_le_bytes());
        assert_eq!(shown_acl(&stored[..9]), None);
    }

    #[test]
    fn attributes_that_leave_their_place_are_refused() {
        let mut region = vec![0; 64];
        region[..16].copy_from_slice(&[1, 1, 40, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        region[16] = b'a';
        assert_eq!(attributes(&region, 0).unwrap()[0].full_name().unwrap(), b"user.a");
        region[2] = 61;
        assert!(attributes(&region, 0).is_err());
        region[0] = 255;
        assert!(attributes(&region, 0).is_err());
    }
}
