//! The superblock, its copies, and the group descriptors (Linux, Documentation/filesystems/ext4: "Super Block", "Block
//! Group Descriptors", "Layout", "Checksums").

use std::collections::BTreeSet;

use crate::bytes::{array, le_u16, le_u32, sum_holds};
use crate::error::{Error, Result};
use crate::read_at::{ReadAt, read_up_to};

/// Where the primary superblock lies on the device, and how long it is.
pub(super) const SUPERBLOCK_AT: u64 = 1024;
pub(super) const SUPERBLOCK_BYTES: usize = 1024;

/// Compatible features (`EXT4_FEATURE_COMPAT_*`).
pub(super) const HAS_JOURNAL: u32 = 0x0004;
const SPARSE_SUPER2: u32 = 0x0200;
/// Incompatible features (`EXT4_FEATURE_INCOMPAT_*`).
pub(super) const FILE_TYPE: u32 = 0x0002;
pub(super) const RECOVER: u32 = 0x0004;
const META_BLOCK_GROUPS: u32 = 0x0010;
const EXTENTS: u32 = 0x0040;
pub(super) const BITS_64: u32 = 0x0080;
const MULTIPLE_MOUNT_PROTECTION: u32 = 0x0100;
const FLEXIBLE_GROUPS: u32 = 0x0200;
pub(super) const ATTRIBUTE_INODES: u32 = 0x0400;
const CHECKSUM_SEED: u32 = 0x2000;
pub(super) const LARGE_DIRECTORY: u32 = 0x4000;
pub(super) const INLINE_DATA: u32 = 0x8000;
const ENCRYPT: u32 = 0x1_0000;
const CASEFOLD: u32 = 0x2_0000;
/// What is read. The rest (compression, a journal's own device, Lustre's dirdata) is refused as the kernel refuses it.
/// Casefolded directories are read by the exact bytes of their names.
const READ: u32 = FILE_TYPE
    | RECOVER
    | META_BLOCK_GROUPS
    | EXTENTS
    | BITS_64
    | MULTIPLE_MOUNT_PROTECTION
    | FLEXIBLE_GROUPS
    | ATTRIBUTE_INODES
    | CHECKSUM_SEED
    | LARGE_DIRECTORY
    | INLINE_DATA
    | ENCRYPT
    | CASEFOLD;
/// Features that only writers mind (`EXT4_FEATURE_RO_COMPAT_*`): unknown ones change nothing for a reader.
const SPARSE_SUPER: u32 = 0x0001;
pub(super) const HUGE_FILE: u32 = 0x0008;
const GROUP_CHECKSUMS: u32 = 0x0010;
const CLUSTERS: u32 = 0x0200;
const METADATA_CHECKSUMS: u32 = 0x0400;

/// `BLOCK_UNINIT` and its like tell nothing a reader needs; the table of inodes is where it is said to be.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    pub(super) block_bytes: u64,
    pub(super) cluster_bytes: u64,
    pub(super) blocks: u64,
    pub(super) blocks_free: u64,
    pub(super) inodes: u32,
    pub(super) inodes_free: u32,
    pub(super) first_data_block: u64,
    pub(super) inode_bytes: usize,
    pub(super) inodes_per_group: u32,
    /// The first inode that is not the file system's own.
    pub(super) first_inode: u32,
    pub(super) journal_inode: u32,
    /// `s_jnl_blocks`: block area and size of the journal's inode, kept for when that is lost.
    pub(super) journal_copy: Option<[u8; 68]>,
    /// The seed of all checksums but the superblock's own, for metadata checksums and attribute inodes.
    pub(super) checksum_seed: u32,
    /// The group whose first block holds this copy.
    group: u16,
    compatible: u32,
    incompatible: u32,
    read_only: u32,
    blocks_per_group: u64,
    descriptor_bytes: u64,
    first_meta_group: u64,
    copies: [u32; 2],
    uuid: [u8; 16],
}

impl Superblock {
    /// Parses the superblock at byte `at` of its device, and verifies its checksum as the kernel does: a wrong one is fatal.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::Unsupported`] naming features.
    pub(super) fn parse(bytes: &[u8], at: u64) -> Result<Self> {
        let corrupt = |reason: String| Error::corrupt("ext superblock", at, reason);
        let cut = || corrupt("it is cut short".into());
        let word = |offset| le_u32(bytes, offset).ok_or_else(cut);
        let half = |offset| le_u16(bytes, offset).ok_or_else(cut);
        if half(0x38)? != 0xef53 {
            return Err(corrupt("its magic number is not there".into()));
        }
        // Revision 0 knows no features, and inodes of 128 bytes.
        let is_dynamic = word(0x4c)? > 0;
        let feature = |offset| if is_dynamic { word(offset) } else { Ok(0) };
        let (compatible, incompatible, read_only) = (feature(0x5c)?, feature(0x60)?, feature(0x64)?);
        let has_checksums = read_only & METADATA_CHECKSUMS != 0;
        if has_checksums {
            let kind = bytes.get(0x175).copied().unwrap_or(0);
            if kind != 1 {
                return Err(Error::unsupported(format!("ext4 checksum algorithm {kind}")));
            }
            let found = crc32c(u32::MAX, bytes.get(..0x3fc).unwrap_or_default());
            if !sum_holds(word(0x3fc)? == found) {
                return Err(corrupt(format!("its checksum is {:#010x}, its bytes give {found:#010x}", word(0x3fc)?)));
            }
        }
        if incompatible & !READ != 0 {
            return Err(Error::unsupported(describe_features(incompatible & !READ)));
        }
        let high =
            |offset| if incompatible & BITS_64 == 0 { Ok(0) } else { word(offset).map(|high| u64::from(high) << 32) };
        let shift = word(0x18)?;
        if shift > 6 {
            return Err(corrupt(format!("its blocks have 2^{shift} KiB")));
        }
        let block_bytes = 1024_u64 << shift;
        let cluster_shift = if read_only & CLUSTERS == 0 { shift } else { word(0x1c)? };
        if !(shift..=20).contains(&cluster_shift) {
            return Err(corrupt(format!("its clusters have 2^{cluster_shift} KiB, its blocks 2^{shift}")));
        }
        let cluster_ratio = 1_u64 << cluster_shift.saturating_sub(shift);
        let inode_bytes = if is_dynamic { u64::from(half(0x58)?) } else { 128 };
        if !inode_bytes.is_power_of_two() || !(128..=block_bytes).contains(&inode_bytes) {
            return Err(corrupt(format!("its inodes have {inode_bytes} bytes")));
        }
        let descriptor_bytes = if incompatible & BITS_64 == 0 { 32 } else { u64::from(half(0xfe)?) };
        if !descriptor_bytes.is_power_of_two() || !(32..=1024).contains(&descriptor_bytes) {
            return Err(corrupt(format!("its group descriptors have {descriptor_bytes} bytes")));
        }
        let (blocks_per_group, inodes_per_group) = (u64::from(word(0x20)?), word(0x28)?);
        let bits = block_bytes.saturating_mul(8);
        if blocks_per_group == 0 || blocks_per_group > bits.saturating_mul(cluster_ratio) {
            return Err(corrupt(format!("its groups have {blocks_per_group} blocks")));
        }
        if inodes_per_group == 0 || u64::from(inodes_per_group) > bits {
            return Err(corrupt(format!("its groups have {inodes_per_group} inodes")));
        }
        let blocks = u64::from(word(4)?) | high(0x150)?;
        let first_data_block = u64::from(word(0x14)?);
        if first_data_block >= blocks || first_data_block > 1 {
            return Err(corrupt(format!("its data begin at block {first_data_block} of {blocks}")));
        }
        let groups = blocks.saturating_sub(first_data_block).div_ceil(blocks_per_group);
        let inodes = word(0)?;
        if groups.checked_mul(u64::from(inodes_per_group)) != Some(u64::from(inodes)) {
            return Err(corrupt(format!("it counts {inodes} inodes in {groups} groups of {inodes_per_group}")));
        }
        let uuid = array(bytes, 0x68).ok_or_else(cut)?;
        let checksum_seed = if incompatible & CHECKSUM_SEED == 0 { crc32c(u32::MAX, &uuid) } else { word(0x270)? };
        Ok(Self {
            block_bytes,
            cluster_bytes: block_bytes.saturating_mul(cluster_ratio),
            blocks,
            blocks_free: u64::from(word(0xc)?) | high(0x158)?,
            inodes,
            inodes_free: word(0x10)?,
            first_data_block,
            inode_bytes: usize::try_from(inode_bytes).unwrap_or(128),
            inodes_per_group,
            first_inode: if is_dynamic { word(0x54)? } else { 11 },
            journal_inode: word(0xe0)?,
            journal_copy: array(bytes, 0x10c).filter(|_| bytes.get(0xfd) == Some(&1)),
            checksum_seed,
            group: if is_dynamic { half(0x5a)? } else { 0 },
            compatible,
            incompatible,
            read_only,
            blocks_per_group,
            descriptor_bytes,
            first_meta_group: u64::from(word(0x104)?),
            copies: [word(0x24c)?, word(0x250)?],
            uuid,
        })
    }

    pub(super) const fn has_compatible(&self, feature: u32) -> bool {
        self.compatible & feature != 0
    }

    pub(super) const fn has(&self, feature: u32) -> bool {
        self.incompatible & feature != 0
    }

    pub(super) const fn has_read_only(&self, feature: u32) -> bool {
        self.read_only & feature != 0
    }

    /// Whether every structure carries a checksum.
    pub(super) const fn has_checksums(&self) -> bool {
        self.has_read_only(METADATA_CHECKSUMS)
    }

    /// Blocks and inodes follow each other group by group; the last group can be shorter.
    fn group_start(&self, group: u64) -> u64 {
        self.first_data_block.saturating_add(group.saturating_mul(self.blocks_per_group))
    }

    /// Whether `group` begins with a copy of the superblock ("Layout": sparse_super, sparse_super2).
    fn has_copy(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.has_compatible(SPARSE_SUPER2) {
            return self.copies.iter().any(|copy| u64::from(*copy) == group);
        }
        group == 1 || !self.has_read_only(SPARSE_SUPER) || is_sparse(group)
    }

    /// Groups with a copy of the superblock, the primary apart, as far as one goes for a lost descriptor.
    fn groups_with_copies(&self) -> impl Iterator<Item = u64> + '_ {
        const COPIES_TRIED: usize = 8;
        let groups = u64::from(self.inodes / self.inodes_per_group.max(1));
        let last = self.copies.iter().map(|copy| u64::from(*copy)).filter(|_| self.has_compatible(SPARSE_SUPER2));
        let rest = (1..groups.min(1000)).filter(|group| !self.has_compatible(SPARSE_SUPER2) && self.has_copy(*group));
        last.filter(move |group| *group > 0 && *group < groups).chain(rest).take(COPIES_TRIED)
    }

    /// Where the descriptor of `group` lies, and then its copies.
    fn descriptor_places(&self, group: u64) -> Vec<u64> {
        let per_block = (self.block_bytes / self.descriptor_bytes).max(1);
        let (table_block, within) = (group / per_block, (group % per_block).saturating_mul(self.descriptor_bytes));
        let blocks: Vec<u64> = if self.has(META_BLOCK_GROUPS) && table_block >= self.first_meta_group {
            // A block of descriptors lies in the first, second and last group of those it describes.
            let first = table_block.saturating_mul(per_block);
            let groups = [first, first.saturating_add(1), first.saturating_add(per_block.saturating_sub(1))];
            let block = |group: u64| {
                let behind_superblock = u64::from(self.has_copy(group));
                // With blocks of 1 KiB and none left out, group 0 keeps block 0 for the boot loader.
                let boot = u64::from(self.block_bytes == 1024 && group == 0 && self.first_data_block == 0);
                self.group_start(group).saturating_add(behind_superblock).saturating_add(boot)
            };
            groups.into_iter().map(block).collect()
        } else {
            let primary = SUPERBLOCK_AT / self.block_bytes;
            let starts = std::iter::once(primary).chain(self.groups_with_copies().map(|group| self.group_start(group)));
            starts.map(|start| start.saturating_add(1).saturating_add(table_block)).collect()
        };
        blocks.into_iter().map(|block| block.saturating_mul(self.block_bytes).saturating_add(within)).collect()
    }

    /// The block where the table of inodes of `group` begins, and what had to be overlooked to find it.
    ///
    /// The kernel goes on past a wrong checksum where it mounts read-only, and so do we, with a warning. A table that lies
    /// outside the file system it refuses as a whole; here the copies of the descriptor are asked, as e2fsck does.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where no copy names a table inside the file system; limits and I/O.
    pub(super) fn inode_table(&self, device: &dyn ReadAt, group: u32) -> Result<(u64, Option<String>)> {
        let mut refused = None;
        for (nth, at) in self.descriptor_places(u64::from(group)).into_iter().enumerate() {
            let mut bytes = vec![0; usize::try_from(self.descriptor_bytes).unwrap_or(32)];
            let read = device.read_exact_at(&mut bytes, at);
            let found = read.and_then(|()| self.checked_table(&bytes, group, at));
            match found {
                Ok(table) if nth > 0 => {
                    let warning = format!("the descriptor of group {group} is unusable; its copy at byte {at} is used");
                    return Ok((table, Some(warning)));
                }
                Ok(table) => {
                    let is_sound = self.descriptor_checksum_holds(&bytes, group);
                    let warning = format!("the checksum of the descriptor of group {group} is wrong");
                    return Ok((table, (!is_sound).then_some(warning)));
                }
                Err(error @ Error::Corrupt { .. }) => refused = refused.or(Some(error)),
                Err(other) => return Err(other),
            }
        }
        Err(refused.unwrap_or_else(|| Error::corrupt("ext group descriptor", 0, "there is none")))
    }

    fn checked_table(&self, bytes: &[u8], group: u32, at: u64) -> Result<u64> {
        let low = le_u32(bytes, 8).unwrap_or(0);
        let high = if self.has(BITS_64) { le_u32(bytes, 0x28).unwrap_or(0) } else { 0 };
        let table = u64::from(low) | u64::from(high) << 32;
        let table_bytes = u64::from(self.inodes_per_group).saturating_mul(self.inode_bytes as u64);
        let end = table.saturating_add(table_bytes.div_ceil(self.block_bytes));
        if table <= self.first_data_block || end > self.blocks {
            let reason = format!("the inodes of group {group} are said to lie at block {table} of {}", self.blocks);
            return Err(Error::corrupt("ext group descriptor", at, reason));
        }
        Ok(table)
    }

    /// `bg_checksum` ("Checksums"): the lower half of a CRC-32C, or a CRC-16 of the older `uninit_bg`.
    fn descriptor_checksum_holds(&self, bytes: &[u8], group: u32) -> bool {
        const FIELD: usize = 0x1e;
        let (before, after) = (bytes.get(..FIELD).unwrap_or_default(), bytes.get(FIELD + 2..).unwrap_or_default());
        let found = if self.has_checksums() {
            let parts: [&[u8]; 4] = [&group.to_le_bytes(), before, &[0; 2], after];
            let sum = parts.iter().fold(self.checksum_seed, |sum, part| crc32c(sum, part));
            u16::try_from(sum & 0xffff).unwrap_or(0)
        } else if self.has_read_only(GROUP_CHECKSUMS) {
            let parts: [&[u8]; 4] = [&self.uuid, &group.to_le_bytes(), before, after];
            parts.iter().fold(u16::MAX, |sum, part| crc16(sum, part))
        } else {
            return true;
        };
        sum_holds(le_u16(bytes, FIELD) == Some(found))
    }
}

/// Powers of 3, 5 and 7, the groups that keep copies with `sparse_super`.
fn is_sparse(group: u64) -> bool {
    let is_power = |base: u64| {
        let mut power = base;
        while power < group {
            power = power.saturating_mul(base);
        }
        power == group
    };
    [3, 5, 7].into_iter().any(is_power)
}

/// The first copy of the superblock that is sound, where e2fsck looks for one: behind groups of the usual size for each
/// size of blocks, and where `lost`, the bytes of the bad primary, would have it.
///
/// # Errors
/// I/O and limits.
pub(super) fn find_copy(device: &dyn ReadAt, lost: &[u8]) -> Result<Option<(Superblock, u64)>> {
    const GROUPS: [u64; 6] = [1, 3, 5, 7, 9, 25];
    let usual = (0..=6).map(|shift| (shift, 8192_u64 << shift));
    let said = le_u32(lost, 0x18).zip(le_u32(lost, 0x20)).filter(|(shift, _)| *shift <= 6);
    let geometries = usual.chain(said.map(|(shift, blocks)| (shift, u64::from(blocks))));
    let mut tried = BTreeSet::new();
    for (shift, blocks_per_group) in geometries {
        let block_bytes = 1024_u64 << shift;
        for group in GROUPS {
            let block = group.saturating_mul(blocks_per_group).saturating_add(u64::from(shift == 0));
            let at = block.saturating_mul(block_bytes);
            if at.saturating_add(SUPERBLOCK_BYTES as u64) > device.len() || !tried.insert(at) {
                continue;
            }
            let found = Superblock::parse(&read_up_to(device, at, SUPERBLOCK_BYTES)?, at);
            // A copy belongs to this file system only if it says that it lies where it was found.
            let matches = |found: &Superblock| {
                u64::from(found.group) == group
                    && found.block_bytes == block_bytes
                    && found.group_start(group).saturating_mul(block_bytes) == at
            };
            if let Some(found) = found.ok().filter(matches) {
                return Ok(Some((found, at)));
            }
        }
    }
    Ok(None)
}

/// CRC-32C as the kernel's `crc32c` counts: `seed` and result are not inverted.
pub(super) fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

/// CRC-16 with the polynomial 0x8005, reflected.
fn crc16(seed: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(seed, |sum, byte| {
        (0..8).fold(sum ^ u16::from(*byte), |sum, _| if sum & 1 == 0 { sum >> 1 } else { (sum >> 1) ^ 0xa001 })
    })
}

fn describe_features(bits: u32) -> String {
    let names: Vec<String> = (0..32)
        .map(|bit| 1 << bit)
        .filter(|bit| bits & bit != 0)
        .map(|bit| match bit {
            0x0001 => "compression".to_owned(),
            0x0008 => "journal_dev".to_owned(),
            0x1000 => "dirdata".to_owned(),
            other => format!("{other:#x}"),
        })
        .collect();
    format!("ext4 feature {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_catalogues() {
        // CRC-32C and CRC-16/ARC of "123456789", as the catalogue of parametrised CRCs gives them.
        assert_eq!(!crc32c(u32::MAX, b"123456789"), 0xe306_9283);
        assert_eq!(crc16(0, b"123456789"), 0xbb3d);
    }

    #[test]
    fn copies_lie_in_powers_of_three_five_and_seven() {
        let groups: Vec<u64> = (2..130).filter(|group| is_sparse(*group)).collect();
        assert_eq!(groups, [3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn no_prefix_of_a_superblock_is_taken_for_one() {
        let mut bytes = vec![0; 1024];
        bytes[0x38..0x3a].copy_from_slice(&0xef53_u16.to_le_bytes());
        for length in 0..bytes.len() {
            assert!(Superblock::parse(&bytes[..length], 1024).is_err());
        }
    }
}
