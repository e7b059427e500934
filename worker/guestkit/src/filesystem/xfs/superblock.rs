//! The superblock ("XFS Algorithms & Data Structures", superblocks; `xfs_dsb` in the kernel's `xfs_format.h`): the
//! geometry of the file system, and how its addresses become bytes.

use crate::bytes::{array, be_u16, be_u32, be_u64, has, sum_holds};
use crate::error::{Error, Result};
use crate::read_at::{ReadAt, read_up_to};

/// Bytes of a basic block (`BBSIZE`), the unit of disk addresses and of the log.
pub(super) const BASIC_BLOCK: u64 = 512;
/// The largest sector, which holds all of a superblock.
const SUPERBLOCK_BYTES: usize = 32 << 10;

/// Bits of `sb_versionnum`.
const VERSION_LOG_V2: u16 = 0x0400;
const VERSION_DIR_V2: u16 = 0x2000;
const VERSION_ASCII_CI: u16 = 0x4000;
const VERSION_MORE_BITS: u16 = 0x8000;
/// Bits of `sb_features2`.
const FEATURES2_LAZY_COUNTERS: u32 = 0x02;
const FEATURES2_FILE_TYPE: u32 = 0x200;
/// Bits of `sb_features_incompat`.
const INCOMPATIBLE_FILE_TYPE: u32 = 0x01;
const INCOMPATIBLE_META_UUID: u32 = 0x04;
const INCOMPATIBLE_NEEDS_REPAIR: u32 = 0x10;
const INCOMPATIBLE_METADIR: u32 = 0x100;
const INCOMPATIBLE_ZONED: u32 = 0x200;
/// ftype, sparse inodes, meta_uuid, bigtime, needsrepair, nrext64, exchange-range, parent pointers, metadir, zoned, zone
/// gaps: either seen to here, or of no concern to who reads.
const INCOMPATIBLE_KNOWN: u32 = 0x7ff;
/// Bit of `sb_features_log_incompat`: the log may hold changes of attributes as intents.
const LOG_INCOMPATIBLE_KNOWN: u32 = 0x01;

/// What all else is computed from. Every field was checked to lie within what the format allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Whether this is version 5: metadata carries checksums, owners and UUIDs.
    pub(super) v5: bool,
    pub(super) block_bytes: u32,
    pub(super) block_log: u32,
    pub(super) sector_bytes: u32,
    pub(super) blocks: u64,
    pub(super) ag_blocks: u32,
    pub(super) ag_block_log: u32,
    pub(super) ag_count: u32,
    pub(super) inode_bytes: u32,
    pub(super) inode_log: u32,
    pub(super) inodes_per_block_log: u32,
    pub(super) inode_alignment: u32,
    pub(super) root_inode: u64,
    /// Bytes of a directory block, a power of two from one block to 64 KiB.
    pub(super) directory_bytes: u32,
    /// Whether directory entries tell the type of what they name.
    pub(super) file_types: bool,
    /// Whether names are compared without regard to the case of Latin-1 letters.
    pub(super) ascii_ci: bool,
    pub(super) needs_repair: bool,
    /// Whether counters in the superblock are only right after a clean unmount.
    pub(super) lazy_counters: bool,
    pub(super) free_blocks: u64,
    /// The UUID that metadata carries.
    pub(super) metadata_uuid: [u8; 16],
    /// The UUID that the log carries.
    pub(super) uuid: [u8; 16],
    /// First block of the internal log; 0 where it lies on another device.
    pub(super) log_start: u64,
    pub(super) log_blocks: u32,
    pub(super) log_v2: bool,
    /// A feature of the log that is not known here.
    pub(super) log_unknown: u32,
    /// Where file data of the realtime section lies on this device, if it does.
    pub(super) realtime: Option<Realtime>,
}

/// A realtime section on the same device (zoned file systems, `sb_rtstart`), in realtime groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Realtime {
    pub(super) start_block: u64,
    pub(super) group_block_log: u32,
    pub(super) group_blocks: u64,
    pub(super) blocks: u64,
}

impl Geometry {
    /// Reads the primary superblock of `source`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Unsupported`] as [`Self::parse`]; whatever the source gives.
    pub(super) fn read(source: &dyn ReadAt) -> Result<Self> {
        Self::parse(&read_up_to(source, 0, SUPERBLOCK_BYTES)?, true)
    }

    /// Takes in a superblock; `bytes` are its sector or more. Its checksum is verified where `verify` says so: the
    /// contents of a log come without.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where fields contradict each other; [`Error::Unsupported`] for versions and features that are
    /// not read.
    pub(super) fn parse(bytes: &[u8], verify: bool) -> Result<Self> {
        let short = || corrupt("it is cut off");
        let byte = |at: usize| bytes.get(at).map(|byte| u32::from(*byte)).ok_or_else(short);
        let half = |at: usize| be_u16(bytes, at).ok_or_else(short);
        let word = |at: usize| be_u32(bytes, at).ok_or_else(short);
        let long = |at: usize| be_u64(bytes, at).ok_or_else(short);
        if !has(bytes, 0, b"XFSB") {
            return Err(corrupt("its magic number is missing"));
        }
        let version = half(100)?;
        let v5 = match version & 0xf {
            4 => false,
            5 => true,
            other => return Err(Error::unsupported(format!("xfs version {other}"))),
        };
        let sector_bytes = u32::from(half(102)?);
        if !sector_bytes.is_power_of_two() || !(512..=32768).contains(&sector_bytes) {
            return Err(corrupt(format!("its sectors have {sector_bytes} bytes")));
        }
        if v5 && verify && !is_intact(bytes.get(..sector_bytes as usize).ok_or_else(short)?, 224) {
            return Err(corrupt("its checksum is wrong"));
        }
        if byte(126)? != 0 {
            return Err(corrupt("mkfs has not finished"));
        }
        if !v5 && version & VERSION_DIR_V2 == 0 {
            return Err(Error::unsupported("xfs directory version 1"));
        }
        let features2 = if version & VERSION_MORE_BITS == 0 { 0 } else { word(200)? };
        let incompatible = if v5 { word(216)? } else { 0 };
        let unknown = incompatible & !INCOMPATIBLE_KNOWN;
        if unknown != 0 {
            return Err(Error::unsupported(format!("xfs feature {unknown:#x}")));
        }
        let block_bytes = word(4)?;
        let inode_bytes = u32::from(half(104)?);
        let directory_log = byte(120)?.saturating_add(byte(192)?);
        let uuid = array(bytes, 32).ok_or_else(short)?;
        let has_meta_uuid = incompatible & INCOMPATIBLE_META_UUID != 0;
        let geometry = Self {
            v5,
            block_bytes,
            block_log: byte(120)?,
            sector_bytes,
            blocks: long(8)?,
            ag_blocks: word(84)?,
            ag_block_log: byte(124)?,
            ag_count: word(88)?,
            inode_bytes,
            inode_log: byte(122)?,
            inodes_per_block_log: byte(123)?,
            inode_alignment: word(180)?,
            root_inode: long(56)?,
            directory_bytes: 1_u32.checked_shl(directory_log).unwrap_or(0),
            file_types: if v5 {
                incompatible & INCOMPATIBLE_FILE_TYPE != 0
            } else {
                features2 & FEATURES2_FILE_TYPE != 0
            },
            ascii_ci: version & VERSION_ASCII_CI != 0,
            needs_repair: incompatible & INCOMPATIBLE_NEEDS_REPAIR != 0,
            lazy_counters: v5 || features2 & FEATURES2_LAZY_COUNTERS != 0,
            free_blocks: long(144)?,
            metadata_uuid: if has_meta_uuid { array(bytes, 248).ok_or_else(short)? } else { uuid },
            uuid,
            log_start: long(48)?,
            log_blocks: word(96)?,
            log_v2: v5 || version & VERSION_LOG_V2 != 0,
            log_unknown: if v5 { word(220)? & !LOG_INCOMPATIBLE_KNOWN } else { 0 },
            realtime: realtime(bytes, incompatible, long(16)?).ok_or_else(short)?,
        };
        geometry.check()?;
        Ok(geometry)
    }

    /// What `xfs_validate_sb_common` asks, as far as addresses depend on it.
    fn check(&self) -> Result<()> {
        let is_log = |value: u32, log: u32| 1_u32.checked_shl(log) == Some(value);
        if !is_log(self.block_bytes, self.block_log) || !(9..=16).contains(&self.block_log) {
            return Err(corrupt(format!("its blocks have {} bytes, 2^{}", self.block_bytes, self.block_log)));
        }
        if !is_log(self.inode_bytes, self.inode_log) || !(8..=11).contains(&self.inode_log) {
            return Err(corrupt(format!("its inodes have {} bytes, 2^{}", self.inode_bytes, self.inode_log)));
        }
        if self.inode_log.checked_add(self.inodes_per_block_log) != Some(self.block_log) {
            return Err(corrupt(format!("2^{} inodes are said to fit a block", self.inodes_per_block_log)));
        }
        if !(self.block_bytes..=65536).contains(&self.directory_bytes) {
            return Err(corrupt(format!("its directory blocks have {} bytes", self.directory_bytes)));
        }
        let bits = u32::BITS.saturating_sub(self.ag_blocks.saturating_sub(1).leading_zeros());
        if self.ag_blocks < 2 || self.ag_block_log != bits || self.ag_count == 0 {
            return Err(corrupt(format!("it has {} groups of {} blocks", self.ag_count, self.ag_blocks)));
        }
        let full = u64::from(self.ag_blocks).saturating_mul(u64::from(self.ag_count));
        if self.blocks > full || self.blocks <= full.saturating_sub(u64::from(self.ag_blocks)) {
            return Err(corrupt(format!("{} blocks do not fill {} groups", self.blocks, self.ag_count)));
        }
        Ok(())
    }

    /// The byte where `length` blocks from file system block `block` begin: group number above, block of it below.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where they leave their group or the file system.
    pub(super) fn byte_of_block(&self, block: u64, length: u64) -> Result<u64> {
        let group = block >> self.ag_block_log;
        let within = block & ((1 << self.ag_block_log) - 1);
        let linear = group.saturating_mul(u64::from(self.ag_blocks)).saturating_add(within);
        let end = within.saturating_add(length);
        let leaves = end > u64::from(self.ag_blocks) || linear.saturating_add(length) > self.blocks;
        if group >= u64::from(self.ag_count) || leaves {
            return Err(Error::corrupt("xfs block address", block, format!("{length} blocks there leave their group")));
        }
        Ok(linear << self.block_log)
    }

    /// The byte of block `block` in group `group`.
    pub(super) fn byte_in_group(&self, group: u64, block: u64) -> Result<u64> {
        self.byte_of_block((group << self.ag_block_log) | block, 1)
    }

    /// The byte where inode `number` begins.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where no inode can have that number.
    pub(super) fn byte_of_inode(&self, number: u64) -> Result<u64> {
        let base = self.byte_of_block(number >> self.inodes_per_block_log, 1)?;
        let within = number & ((1 << self.inodes_per_block_log) - 1);
        Ok(base.saturating_add(within << self.inode_log))
    }

    /// The byte where `length` realtime blocks from `block` begin; `None` where they lie on another device.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where they leave the section.
    pub(super) fn byte_of_realtime(&self, block: u64, length: u64) -> Result<Option<u64>> {
        let Some(section) = self.realtime else { return Ok(None) };
        let group = block >> section.group_block_log;
        let within = block & ((1 << section.group_block_log) - 1);
        let linear = group.saturating_mul(section.group_blocks).saturating_add(within);
        let leaves =
            within.saturating_add(length) > section.group_blocks || linear.saturating_add(length) > section.blocks;
        let byte = section.start_block.saturating_add(linear).checked_mul(u64::from(self.block_bytes));
        match byte {
            Some(byte) if !leaves => Ok(Some(byte)),
            _ => Err(Error::corrupt("xfs realtime address", block, format!("{length} blocks there leave the section"))),
        }
    }

    /// Blocks of an inode cluster buffer, by which the log names and cancels inodes (`M_IGEO(mp)->blocks_per_cluster`).
    pub(super) fn cluster_blocks(&self) -> u64 {
        const BIG_CLUSTER: u64 = 8192;
        let scaled = BIG_CLUSTER.saturating_mul(u64::from(self.inode_bytes)) / 256;
        let is_aligned = u64::from(self.inode_alignment) >= (scaled >> self.block_log);
        let bytes = if self.v5 && is_aligned { scaled } else { BIG_CLUSTER };
        (bytes >> self.block_log).max(1)
    }
}

/// `None` where the fields are cut off; `Some(None)` where file data of the section, if any, lies elsewhere.
fn realtime(bytes: &[u8], incompatible: u32, blocks: u64) -> Option<Option<Realtime>> {
    const INTERNAL: u32 = INCOMPATIBLE_METADIR | INCOMPATIBLE_ZONED;
    if incompatible & INTERNAL != INTERNAL {
        return Some(None);
    }
    let (start_block, extent_blocks) = (be_u64(bytes, 288)?, be_u32(bytes, 80)?);
    let group_blocks = u64::from(be_u32(bytes, 276)?).saturating_mul(u64::from(extent_blocks));
    let group_block_log = u32::from(*bytes.get(280)?);
    let is_sound = start_block != 0 && group_block_log < 64 && group_blocks.checked_shr(group_block_log) <= Some(1);
    Some(is_sound.then_some(Realtime { start_block, group_block_log, group_blocks, blocks }))
}

fn corrupt(reason: impl Into<String>) -> Error {
    Error::corrupt("xfs superblock", 0, reason)
}

/// Whether the CRC32C at `at`, little-endian as nothing else is, fits `bytes` with its own four bytes taken as zero.
pub(super) fn is_intact(bytes: &[u8], at: usize) -> bool {
    sum_holds(array(bytes, at).map(u32::from_le_bytes) == checksum(bytes, at))
}

/// The CRC32C of `bytes` with the four bytes at `at` taken as zero.
pub(super) fn checksum(bytes: &[u8], at: usize) -> Option<u32> {
    let before = crc32c::crc32c(bytes.get(..at)?);
    let hole = crc32c::crc32c_append(before, &[0; 4]);
    Some(crc32c::crc32c_append(hole, bytes.get(at.checked_add(4)?..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A superblock as mkfs.xfs writes it for 16 MiB of 4 KiB blocks in one group, without its checksum.
    fn superblock() -> Vec<u8> {
        let mut bytes = vec![0; 512];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, b"XFSB");
        put(4, &4096_u32.to_be_bytes());
        put(8, &4096_u64.to_be_bytes());
        put(56, &128_u64.to_be_bytes());
        put(84, &4096_u32.to_be_bytes());
        put(88, &1_u32.to_be_bytes());
        put(100, &0xb4a5_u16.to_be_bytes());
        put(102, &512_u16.to_be_bytes());
        put(104, &512_u16.to_be_bytes());
        put(120, &[12, 9, 9, 3, 12]);
        put(180, &4_u32.to_be_bytes());
        put(216, &1_u32.to_be_bytes());
        bytes
    }

    #[test]
    fn addresses_that_leave_their_group_are_refused() {
        let geometry = Geometry::parse(&superblock(), false).unwrap();
        assert_eq!(geometry.byte_of_block(4095, 1).unwrap(), 4095 * 4096);
        assert!(geometry.byte_of_block(4095, 2).is_err());
        assert!(geometry.byte_of_block(4096, 1).is_err());
        assert!(geometry.byte_of_block(u64::MAX, u64::MAX).is_err());
        assert_eq!(geometry.byte_of_inode(128 + 3).unwrap(), 16 * 4096 + 3 * 512);
        assert!(geometry.byte_of_inode(u64::MAX).is_err());
        assert_eq!(geometry.cluster_blocks(), 4, "16 KiB for inodes of 512 bytes, aligned to as much");
    }

    #[test]
    fn contradictions_and_unknown_features_are_named() {
        let refused = |at: usize, value: &[u8]| {
            let mut bytes = superblock();
            bytes[at..at + value.len()].copy_from_slice(value);
            Geometry::parse(&bytes, false).unwrap_err().to_string()
        };
        assert_eq!(refused(216, &0x1001_u32.to_be_bytes()), "xfs feature 0x1000 is not supported");
        assert_eq!(refused(100, &0xb4a6_u16.to_be_bytes()), "xfs version 6 is not supported");
        assert_eq!(refused(100, &0x84a4_u16.to_be_bytes()), "xfs directory version 1 is not supported");
        for (at, value) in [(4, 5000_u32), (8, 1), (84, 0), (84, 1 << 20), (88, 0), (88, 7)] {
            assert!(refused(at, &value.to_be_bytes()).contains("corrupt"), "{at} {value}");
        }
        let torn = Geometry::parse(&superblock(), true).unwrap_err().to_string();
        assert_eq!(torn, "xfs superblock at byte 0 is corrupt: its checksum is wrong");
        for length in 0..512 {
            assert!(Geometry::parse(&superblock()[..length], true).is_err());
        }
    }

    #[test]
    fn realtime_groups_lie_one_behind_the_other() {
        let mut geometry = Geometry::parse(&superblock(), false).unwrap();
        assert_eq!(geometry.byte_of_realtime(0, 1).unwrap(), None);
        geometry.realtime = Some(Realtime { start_block: 100, group_block_log: 4, group_blocks: 10, blocks: 25 });
        assert_eq!(geometry.byte_of_realtime(0x13, 2).unwrap(), Some((100 + 13) * 4096));
        assert!(geometry.byte_of_realtime(0x09, 2).is_err(), "leaves its group");
        assert!(geometry.byte_of_realtime(0x25, 1).is_err(), "leaves the section");
    }
}
