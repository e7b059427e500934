//! Caches that hold what their volume does not have yet ("writeback"): blocks that are in the cache are read from there.
//!
//! Source: the kernel's `dm-cache-metadata.c` (`struct cache_disk_superblock`, `unpack_value`).

use std::collections::HashMap;
use std::sync::Arc;

use crate::bytes::{le_u32, le_u64};
use crate::error::{Error, Limit, Result};
use crate::limits::Budget;
use crate::read_at::{ReadAt, Source};
use crate::volume::compose::{front, read_in_pieces};

use super::btree::Blocks;

const SUPERBLOCK_XOR: u32 = 9_031_977;
/// The kernel writes it with a leading zero: it is octal.
const MAGIC: u64 = 0o6_142_003;
const SECTOR: u64 = 512;

/// A cached volume.
#[derive(Debug)]
pub(crate) struct Cached {
    origin: Source,
    data: Source,
    block_bytes: u64,
    /// Block of the volume to block of the cache.
    held: HashMap<u64, u64>,
}

impl Cached {
    /// The volume `origin` with its cache on `metadata` and `data`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for metadata that is none; [`Error::Unsupported`] for unknown versions and features.
    pub(crate) fn open(origin: Source, metadata: Source, data: Source, budget: &Arc<Budget>) -> Result<Self> {
        const STRUCTURE: &str = "cache superblock";
        let blocks = Blocks::new(metadata, Arc::clone(budget));
        let superblock = blocks.block(0, SUPERBLOCK_XOR, 8)?;
        let long = |at| le_u64(&superblock, at).unwrap_or(0);
        let word = |at| le_u32(&superblock, at).unwrap_or(0);
        if long(32) != MAGIC {
            return Err(Error::corrupt(STRUCTURE, 32, "its magic is wrong"));
        }
        if !matches!(word(40), 1 | 2) || word(252) != 0 {
            return Err(Error::unsupported(format!("cache version {} with features {:#x}", word(40), word(252))));
        }
        let block_bytes = u64::from(word(232)).saturating_mul(SECTOR);
        if block_bytes == 0 {
            return Err(Error::corrupt(STRUCTURE, 232, "its blocks have 0 bytes"));
        }
        let (root, count) = (long(192), u64::from(word(240)));
        // An entry of the map takes about twice its 16 bytes.
        let bound = budget.limits().allocation_bytes;
        if count > bound / 32 {
            return Err(Error::LimitReached { which: Limit::Allocation, value: bound });
        }
        let mut held = HashMap::new();
        for index in 0..count {
            // The lowest bit says that the block is in use; the others of the lower 16 are flags too.
            let value = blocks.array_element(root, index)?.filter(|value| value & 1 != 0);
            if let Some(value) = value {
                held.insert(value >> 16, index);
            }
        }
        Ok(Self { origin, data, block_bytes, held })
    }
}

impl ReadAt for Cached {
    fn len(&self) -> u64 {
        self.origin.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        read_in_pieces(self.len(), buffer, offset, |rest, at| {
            let number = at.checked_div(self.block_bytes).unwrap_or(0);
            let within = at.checked_rem(self.block_bytes).unwrap_or(0);
            let piece = front(rest, self.block_bytes.saturating_sub(within));
            match self.held.get(&number) {
                Some(block) => {
                    let place = block.saturating_mul(self.block_bytes).saturating_add(within);
                    self.data.read_exact_at(piece, place)?;
                }
                None => self.origin.read_exact_at(piece, at)?,
            }
            Ok(piece.len())
        })
    }
}
