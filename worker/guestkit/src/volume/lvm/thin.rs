//! Thin pools: volumes whose blocks are named by a B-tree for each, all in one.
//!
//! Source: the kernel's `dm-thin-metadata.c` (`struct thin_disk_superblock`, `unpack_block_time`).

use std::sync::Arc;

use crate::bytes::{le_u32, le_u64};
use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::read_at::{ReadAt, Source};
use crate::volume::compose::{front, read_in_pieces};

use super::btree::Blocks;

const SUPERBLOCK_XOR: u32 = 160_774;
const MAGIC: u64 = 27_022_010;
const SECTOR: u64 = 512;

/// An opened pool.
#[derive(Debug)]
pub(crate) struct Pool {
    blocks: Blocks,
    data: Source,
    block_bytes: u64,
    mapping_root: u64,
    /// What is odd about it, in words.
    pub(crate) warnings: Vec<String>,
}

impl Pool {
    /// The pool on `metadata` and `data`; `transaction` is the one that the volume group knows of.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a superblock that is none; [`Error::Unsupported`] for unknown versions and features.
    pub(crate) fn open(metadata: Source, data: Source, transaction: Option<u64>, budget: Arc<Budget>) -> Result<Self> {
        const STRUCTURE: &str = "thin pool superblock";
        let blocks = Blocks::new(metadata, budget);
        let superblock = blocks.block(0, SUPERBLOCK_XOR, 8)?;
        let long = |at| le_u64(&superblock, at).unwrap_or(0);
        let word = |at| le_u32(&superblock, at).unwrap_or(0);
        if long(32) != MAGIC {
            return Err(Error::corrupt(STRUCTURE, 32, "its magic is wrong"));
        }
        if !matches!(word(40), 1 | 2) {
            return Err(Error::unsupported(format!("thin pool version {}", word(40))));
        }
        if word(360) != 0 {
            return Err(Error::unsupported(format!("thin pool feature {:#x}", word(360))));
        }
        let block_bytes = u64::from(word(336)).saturating_mul(SECTOR);
        if block_bytes == 0 {
            return Err(Error::corrupt(STRUCTURE, 336, "its blocks have 0 bytes"));
        }
        let mut warnings = Vec::new();
        if word(4) & 1 != 0 {
            warnings.push("the thin pool is marked as in need of a check".to_owned());
        }
        // LVM's number is ahead for the moment between its own commit and the pool's.
        if let Some(known) = transaction.filter(|known| *known != long(48)) {
            warnings.push(format!("the thin pool is at transaction {}, its volume group at {known}", long(48)));
        }
        let mapping_root = long(320);
        Ok(Self { blocks, data, block_bytes, mapping_root, warnings })
    }

    /// The root of the tree of device `id`.
    fn device_root(&self, id: u64) -> Result<u64> {
        let root = self.blocks.lookup::<8>(self.mapping_root, id)?;
        let missing = || Error::corrupt("thin pool", 0, format!("it has no device {id}"));
        root.map(u64::from_le_bytes).ok_or_else(missing)
    }
}

/// A volume of a pool.
#[derive(Debug)]
pub(crate) struct Thin {
    pool: Arc<Pool>,
    root: u64,
    length: u64,
    /// What is read where the volume itself has no block: zeros, or a volume outside the pool.
    origin: Option<Source>,
}

impl Thin {
    /// Device `id` of `pool`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the pool has no such device.
    pub(crate) fn open(pool: Arc<Pool>, id: u64, length: u64, origin: Option<Source>) -> Result<Self> {
        let root = pool.device_root(id)?;
        Ok(Self { pool, root, length, origin })
    }
}

impl ReadAt for Thin {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let block_bytes = self.pool.block_bytes;
        read_in_pieces(self.length, buffer, offset, |rest, at| {
            let number = at.checked_div(block_bytes).unwrap_or(0);
            let within = at.checked_rem(block_bytes).unwrap_or(0);
            let piece = front(rest, block_bytes.saturating_sub(within));
            match self.pool.blocks.lookup::<8>(self.root, number)? {
                Some(value) => {
                    // The lower 24 bits are the time at which the block was given to this volume.
                    let block = u64::from_le_bytes(value) >> 24;
                    let place = block.saturating_mul(block_bytes).saturating_add(within);
                    self.pool.data.read_exact_at(piece, place)?;
                }
                None => read_or_zeros(self.origin.as_ref(), piece, at)?,
            }
            Ok(piece.len())
        })
    }
}

/// Reads what `origin` has there, zeros after its end.
fn read_or_zeros(origin: Option<&Source>, piece: &mut [u8], at: u64) -> Result<()> {
    let available = origin.map_or(0, |origin| origin.len().saturating_sub(at));
    let available = usize::try_from(available).unwrap_or(usize::MAX).min(piece.len());
    let (from_origin, after) = piece.split_at_mut(available);
    after.fill(0);
    match origin {
        Some(origin) if !from_origin.is_empty() => origin.read_exact_at(from_origin, at),
        _ => Ok(()),
    }
}
