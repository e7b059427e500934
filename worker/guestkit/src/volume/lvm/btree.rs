//! device-mapper's persistent data: blocks of 4096 bytes with checksums, and B-trees of 64-bit keys.
//!
//! Source: the kernel's `dm-btree-internal.h` (`struct node_header`), `dm-array.c` (`struct array_block`), and
//! `dm-block-manager.c` (the checksum).

use std::sync::{Arc, Mutex, PoisonError};

use crate::block_cache::Lru;
use crate::bytes::{le_u32, le_u64, slice, sum_holds};
use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::read_at::Source;

const BLOCK_BYTES: u64 = 4096;
const NODE_XOR: u32 = 121_107;
const ARRAY_XOR: u32 = 595_846_735;
/// Even the widest device fits trees of six levels.
const DEPTH_MAX: usize = 16;
/// Blocks held: the nodes that reading one file of a thin volume comes back to.
const CACHED: usize = 256;

/// A metadata device.
#[derive(Debug)]
pub(crate) struct Blocks {
    source: Source,
    budget: Arc<Budget>,
    nodes: Mutex<Lru<u64, Arc<[u8]>>>,
}

impl Blocks {
    pub(crate) fn new(source: Source, budget: Arc<Budget>) -> Self {
        Self { source, budget, nodes: Mutex::new(Lru::new(CACHED)) }
    }

    /// Block `number`, whose checksum is salted with `xor`, and which has its own number at `number_at`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a wrong checksum, or a block that says that it is another one.
    pub(crate) fn block(&self, number: u64, xor: u32, number_at: usize) -> Result<Arc<[u8]>> {
        const STRUCTURE: &str = "device-mapper metadata block";
        let held = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).get(number);
        if let Some(block) = held {
            return Ok(block);
        }
        self.budget.check_time()?;
        let at = number.saturating_mul(BLOCK_BYTES);
        let mut bytes = vec![0; 4096];
        self.source.read_exact_at(&mut bytes, at)?;
        let sum = !crc32c::crc32c(bytes.get(4..).unwrap_or_default()) ^ xor;
        if !sum_holds(le_u32(&bytes, 0) == Some(sum)) {
            return Err(Error::corrupt(STRUCTURE, at, "its checksum is wrong"));
        }
        if le_u64(&bytes, number_at) != Some(number) {
            return Err(Error::corrupt(STRUCTURE, at, "it says that it is another block"));
        }
        let block: Arc<[u8]> = bytes.into();
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::clone(&block));
        Ok(block)
    }

    /// The value of `key` in the tree with its root in block `root`, which must have `N` bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the tree contradicts itself.
    pub(crate) fn lookup<const N: usize>(&self, root: u64, key: u64) -> Result<Option<[u8; N]>> {
        let mut number = root;
        for _ in 0..DEPTH_MAX {
            let block = self.block(number, NODE_XOR, 8)?;
            let wrong = |reason: &str| {
                Err(Error::corrupt("device-mapper B-tree node", number.saturating_mul(BLOCK_BYTES), reason))
            };
            let Some(node) = Node::parse(&block) else { return wrong("its entries leave the block") };
            let Some(index) = node.last_up_to(key) else { return Ok(None) };
            if node.is_leaf {
                return match (node.key(index) == Some(key), node.value(index)) {
                    (false, _) => Ok(None),
                    (true, Some(value)) => Ok(Some(value)),
                    (true, None) => wrong("its values have another length"),
                };
            }
            match node.value::<8>(index) {
                Some(child) => number = u64::from_le_bytes(child),
                None => return wrong("an inner node has values that are no blocks"),
            }
        }
        Err(Error::corrupt("device-mapper B-tree", root.saturating_mul(BLOCK_BYTES), "its nodes lie too deep"))
    }

    /// Element `index` of an array of 8-byte values, whose blocks the tree in block `root` names.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the array contradicts itself.
    pub(crate) fn array_element(&self, root: u64, index: u64) -> Result<Option<u64>> {
        // What is left of a block after its header of 24 bytes.
        const PER_BLOCK: u64 = (BLOCK_BYTES - 24) / 8;
        let Some(number) = self.lookup::<8>(root, index / PER_BLOCK)? else { return Ok(None) };
        let number = u64::from_le_bytes(number);
        let block = self.block(number, ARRAY_XOR, 16)?;
        let within = index % PER_BLOCK;
        let (count, size) = (le_u32(&block, 8).unwrap_or(0), le_u32(&block, 12).unwrap_or(0));
        if size != 8 {
            let reason = format!("its values have {size} bytes");
            return Err(Error::corrupt("device-mapper array block", number.saturating_mul(BLOCK_BYTES), reason));
        }
        if within >= u64::from(count) {
            return Ok(None);
        }
        Ok(usize::try_from(24 + within * 8).ok().and_then(|at| le_u64(&block, at)))
    }
}

/// A node: a header of 32 bytes, then room for all keys, then the values.
struct Node<'a> {
    block: &'a [u8],
    is_leaf: bool,
    count: usize,
    room: usize,
    value_bytes: usize,
}

impl<'a> Node<'a> {
    fn parse(block: &'a [u8]) -> Option<Self> {
        let flags = le_u32(block, 4)?;
        let count = le_u32(block, 16)? as usize;
        let room = le_u32(block, 20)? as usize;
        let value_bytes = le_u32(block, 24)? as usize;
        let end = room.checked_mul(value_bytes.checked_add(8)?)?.checked_add(32)?;
        let is_sound = count <= room && end <= block.len() && matches!(flags & 3, 1 | 2);
        is_sound.then_some(Self { block, is_leaf: flags & 2 != 0, count, room, value_bytes })
    }

    fn key(&self, index: usize) -> Option<u64> {
        le_u64(self.block, index.checked_mul(8)?.checked_add(32)?)
    }

    fn value<const N: usize>(&self, index: usize) -> Option<[u8; N]> {
        if self.value_bytes != N {
            return None;
        }
        slice(self.block, 32 + self.room * 8 + index * N, N)?.try_into().ok()
    }

    /// The last entry whose key is not above `key`; keys ascend.
    fn last_up_to(&self, key: u64) -> Option<usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle)? <= key { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1)
    }
}
