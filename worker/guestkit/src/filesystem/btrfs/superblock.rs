//! The superblock ("Btrfs: On-disk Format", Superblock) and the four checksums a file system can be made with.

use crate::bytes::{array, has, le_u16, le_u32, le_u64, slice, sum_holds};
use crate::error::{Error, Result};
use crate::read_at::{ReadAt, read_up_to};

/// Where the superblock and its two mirrors lie (`btrfs_sb_offset`), as far as the device reaches.
const PLACES: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
const SUPERBLOCK_BYTES: usize = 4096;
const MAGIC: &[u8; 8] = b"_BHRfS_M";
/// Levels of a tree, leaves counted (`BTRFS_MAX_LEVEL`).
pub(super) const LEVELS_MAX: u8 = 8;

/// Incompatible features that leave what is read here as it is: mixed_backref, default_subvol, mixed_groups,
/// compress_lzo, compress_zstd, big_metadata, extended_iref, raid56, skinny_metadata, no_holes, metadata_uuid,
/// raid1c34, simple_quota.
const READ: u64 = 0x0fff | 0x1_0000;
/// `BTRFS_FEATURE_INCOMPAT_METADATA_UUID`: tree blocks carry another UUID than the file system.
const METADATA_UUID: u64 = 0x400;
/// The features that are refused by name.
const REFUSED: [(u64, &str); 4] =
    [(0x1000, "zoned"), (0x2000, "extent_tree_v2"), (0x4000, "raid_stripe_tree"), (0x8000, "encrypt")];

/// What guards every block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    Crc32c,
    Xxhash64,
    Sha256,
    Blake2b,
}

impl Checksum {
    fn of_type(number: u16) -> Option<Self> {
        Some(match number {
            0 => Self::Crc32c,
            1 => Self::Xxhash64,
            2 => Self::Sha256,
            3 => Self::Blake2b,
            _ => return None,
        })
    }

    /// Bytes of one checksum.
    pub(super) const fn len(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Xxhash64 => 8,
            Self::Sha256 | Self::Blake2b => 32,
        }
    }

    /// Whether `bytes` have the checksum that `stored` begins with.
    pub(super) fn matches(self, bytes: &[u8], stored: &[u8]) -> bool {
        let is_same = match self {
            Self::Crc32c => has(stored, 0, &crc32c::crc32c(bytes).to_le_bytes()),
            Self::Xxhash64 => has(stored, 0, &xxh64(bytes).to_le_bytes()),
            Self::Sha256 => has(stored, 0, &<sha2::Sha256 as sha2::Digest>::digest(bytes)),
            Self::Blake2b => {
                type Blake2b256 = blake2::Blake2b<blake2::digest::consts::U32>;
                has(stored, 0, &<Blake2b256 as blake2::Digest>::digest(bytes))
            }
        };
        sum_holds(is_same)
    }
}

const PRIMES: [u64; 5] =
    [0x9e37_79b1_85eb_ca87, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9, 0x85eb_ca77_c2b2_ae63, 0x27d4_eb2f_1656_67c5];

/// XXH64 with seed 0 ("xxHash fast digest algorithm", XXH64).
fn xxh64(bytes: &[u8]) -> u64 {
    let [p1, p2, p3, p4, p5] = PRIMES;
    let round = |lane: u64, input: u64| lane.wrapping_add(input.wrapping_mul(p2)).rotate_left(31).wrapping_mul(p1);
    let mut rest = bytes;
    let mut hash = if bytes.len() >= 32 {
        let (mut a, mut b, mut c, mut d) = (p1.wrapping_add(p2), p2, 0, 0_u64.wrapping_sub(p1));
        while let Some((stripe, after)) = rest.split_first_chunk::<32>() {
            let lane = |at| le_u64(stripe, at).unwrap_or(0);
            (a, b, c, d) = (round(a, lane(0)), round(b, lane(8)), round(c, lane(16)), round(d, lane(24)));
            rest = after;
        }
        let sum = a.rotate_left(1).wrapping_add(b.rotate_left(7));
        let sum = sum.wrapping_add(c.rotate_left(12)).wrapping_add(d.rotate_left(18));
        [a, b, c, d].iter().fold(sum, |hash, lane| (hash ^ round(0, *lane)).wrapping_mul(p1).wrapping_add(p4))
    } else {
        p5
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        hash = (hash ^ round(0, u64::from_le_bytes(*word))).rotate_left(27).wrapping_mul(p1).wrapping_add(p4);
        rest = after;
    }
    if let Some((word, after)) = rest.split_first_chunk::<4>() {
        let word = u64::from(u32::from_le_bytes(*word)).wrapping_mul(p1);
        hash = (hash ^ word).rotate_left(23).wrapping_mul(p2).wrapping_add(p3);
        rest = after;
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(p5)).rotate_left(11).wrapping_mul(p1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(p2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(p3);
    hash ^ (hash >> 32)
}

/// The fields of a superblock that reading needs.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    pub(super) fsid: [u8; 16],
    /// The UUID that tree blocks carry.
    pub(super) metadata_uuid: [u8; 16],
    pub(super) generation: u64,
    pub(super) root: u64,
    pub(super) root_level: u8,
    pub(super) chunk_root: u64,
    pub(super) chunk_root_level: u8,
    pub(super) chunk_root_generation: u64,
    pub(super) log_root: u64,
    pub(super) log_root_level: u8,
    pub(super) total_bytes: u64,
    pub(super) bytes_used: u64,
    pub(super) root_directory: u64,
    pub(super) devices: u64,
    pub(super) sector_bytes: u32,
    pub(super) node_bytes: u32,
    pub(super) checksum: Checksum,
    pub(super) device_id: u64,
    pub(super) device_uuid: [u8; 16],
    /// Chunk items, each after its key, that say where the chunk tree lies.
    pub(super) system_chunks: Vec<u8>,
}

/// The superblock of `device`: the first, as Linux takes it, and where that is broken the mirror of the highest
/// generation, with words about it.
///
/// # Errors
/// [`Error::Corrupt`] where none is sound; [`Error::Unsupported`] naming a feature.
pub(super) fn read(device: &dyn ReadAt) -> Result<(Superblock, Option<String>)> {
    let mut first_error = None;
    let mut best: Option<Superblock> = None;
    for at in PLACES {
        let bytes = read_up_to(device, at, SUPERBLOCK_BYTES)?;
        match parse(&bytes, at) {
            Ok(found) if first_error.is_none() => return Ok((found, None)),
            Ok(found) => {
                if best.as_ref().is_none_or(|best| best.generation < found.generation) {
                    best = Some(found);
                }
            }
            Err(error @ Error::Unsupported { .. }) => return Err(error),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    let error = first_error.unwrap_or_else(|| Error::corrupt("btrfs superblock", 0, "there is none"));
    match best {
        Some(found) => Ok((found, Some(format!("a mirror of the superblock is used: {error}")))),
        None => Err(error),
    }
}

fn parse(bytes: &[u8], at: u64) -> Result<Superblock> {
    let corrupt = |reason: &str| Error::corrupt("btrfs superblock", at, reason);
    if bytes.len() < SUPERBLOCK_BYTES || !has(bytes, 64, MAGIC) {
        return Err(corrupt("its magic number is missing"));
    }
    let number = le_u16(bytes, 196).unwrap_or(u16::MAX);
    let checksum =
        Checksum::of_type(number).ok_or_else(|| Error::unsupported(format!("btrfs checksum type {number}")))?;
    if !checksum.matches(bytes.get(32..).unwrap_or_default(), bytes) {
        return Err(corrupt("its checksum is wrong"));
    }
    let fields = fields(bytes, checksum).ok_or_else(|| corrupt("it is too short"))?;
    if le_u64(bytes, 48) != Some(at) {
        return Err(corrupt("it says that it lies elsewhere"));
    }
    let incompatible = le_u64(bytes, 188).unwrap_or(0);
    if let Some((_, name)) = REFUSED.iter().find(|(bit, _)| incompatible & bit != 0) {
        return Err(Error::unsupported(format!("btrfs feature {name}")));
    }
    if incompatible & !READ != 0 {
        return Err(Error::unsupported(format!("btrfs feature bits {:#x}", incompatible & !READ)));
    }
    let is_size = |bytes: u32| bytes.is_power_of_two() && (4096..=65536).contains(&bytes);
    if !is_size(fields.sector_bytes) || !is_size(fields.node_bytes) || fields.node_bytes < fields.sector_bytes {
        return Err(corrupt("its sizes of sectors and nodes are not possible"));
    }
    if [fields.root_level, fields.chunk_root_level, fields.log_root_level].iter().any(|level| *level >= LEVELS_MAX) {
        return Err(corrupt("a tree is said to be too high"));
    }
    Ok(fields)
}

fn fields(bytes: &[u8], checksum: Checksum) -> Option<Superblock> {
    let fsid = array(bytes, 32)?;
    let has_metadata_uuid = le_u64(bytes, 188)? & METADATA_UUID != 0;
    let system_chunks = slice(bytes, 811, usize::try_from(le_u32(bytes, 160)?.min(2048)).ok()?)?;
    Some(Superblock {
        fsid,
        metadata_uuid: if has_metadata_uuid { array(bytes, 571)? } else { fsid },
        generation: le_u64(bytes, 72)?,
        root: le_u64(bytes, 80)?,
        root_level: *bytes.get(198)?,
        chunk_root: le_u64(bytes, 88)?,
        chunk_root_level: *bytes.get(199)?,
        chunk_root_generation: le_u64(bytes, 164)?,
        log_root: le_u64(bytes, 96)?,
        log_root_level: *bytes.get(200)?,
        total_bytes: le_u64(bytes, 112)?,
        bytes_used: le_u64(bytes, 120)?,
        root_directory: le_u64(bytes, 128)?,
        devices: le_u64(bytes, 136)?,
        sector_bytes: le_u32(bytes, 144)?,
        node_bytes: le_u32(bytes, 148)?,
        checksum,
        device_id: le_u64(bytes, 201)?,
        device_uuid: array(bytes, 267)?,
        system_chunks: system_chunks.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the reference implementation (`xxhsum -H64`).
    #[test]
    fn xxh64_is_that_of_the_reference() {
        assert_eq!(xxh64(b""), 0xef46_db37_51d8_e999);
        assert_eq!(xxh64(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(xxh64(b"abc"), 0x44bc_2cf5_ad77_0999);
        assert_eq!(xxh64(b"Nobody inspects the spammish repetition"), 0xfbce_a83c_8a37_8bf1);
    }

    #[test]
    fn what_is_no_superblock_is_said_to_be_none() {
        for length in [0, 1, 70 << 10, 200 << 10] {
            assert!(matches!(read(&vec![0; length]), Err(Error::Corrupt { .. })));
        }
    }
}
