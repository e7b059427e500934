//! From a file's blocks to those of the device (Linux, Documentation/filesystems/ext4: "The Contents of inode.i_block").

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::inode::{EXTENTS, Inode};
use super::superblock::{Superblock, crc32c};
use crate::block_cache::Lru;
use crate::bytes::{le_u16, le_u32, sum_holds};
use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::read_at::ReadAt;

/// Nodes held, of at most 128 KiB each: those that lead to the files being read.
const NODES_HELD: usize = 128;
/// The kernel's `EXT4_MAX_EXTENT_DEPTH`: 2^32 blocks need no more.
const DEPTH_MAX: u16 = 5;
const HEADER_BYTES: usize = 12;
const ENTRY_BYTES: usize = 12;

/// Consecutive blocks of a file that lie one after another on the device. What no run covers is zeros: holes, and extents
/// that are allocated but not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The first block within the file.
    pub(super) logical: u64,
    /// The first block of the device.
    pub(super) physical: u64,
    /// How many.
    pub(super) count: u64,
}

/// A node of either kind of tree, parsed.
#[derive(Debug)]
enum Node {
    /// Extents, or where the nodes below lie: in ascending order of their first logical block.
    Extents { depth: u16, entries: Vec<Extent> },
    /// Pointers to blocks, 0 for a hole.
    Pointers(Vec<u32>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    logical: u64,
    physical: u64,
    /// Blocks covered; of a node below, up to its next sibling.
    count: u64,
    is_written: bool,
}

/// Maps blocks of files, and remembers the nodes of trees.
#[derive(Debug)]
pub(super) struct Mapper {
    nodes: Mutex<Lru<(u32, u64), Arc<Node>>>,
}

/// One request: what to map, with what it needs on the way.
#[derive(Debug)]
struct Walk<'a> {
    mapper: &'a Mapper,
    device: &'a dyn ReadAt,
    superblock: &'a Superblock,
    inode: &'a Inode,
    budget: &'a Budget,
    wanted: Range<u64>,
    runs: Vec<Run>,
    runs_max: usize,
    /// Nodes that may still be visited; disjoint children cannot need more.
    nodes_left: u64,
}

impl Mapper {
    pub(super) fn new() -> Self {
        Self { nodes: Mutex::new(Lru::new(NODES_HELD)) }
    }

    /// The runs of `inode` within the logical blocks `wanted`, in ascending order, at most `runs_max` of them.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the mapping contradicts the format, or is longer than `runs_max`; limits and I/O.
    pub(super) fn runs(
        &self,
        device: &dyn ReadAt,
        superblock: &Superblock,
        inode: &Inode,
        budget: &Budget,
        wanted: Range<u64>,
        runs_max: usize,
    ) -> Result<Vec<Run>> {
        let blocks = wanted.end.saturating_sub(wanted.start);
        let nodes_left = blocks.saturating_mul(u64::from(DEPTH_MAX)).saturating_add(16);
        let mut walk =
            Walk { mapper: self, device, superblock, inode, budget, wanted, runs: Vec::new(), runs_max, nodes_left };
        if inode.has(EXTENTS) {
            if walk.wanted.end > 1 << 32 {
                return Err(walk.corrupt(0, "it has more blocks than can be mapped"));
            }
            // The root has no checksum of its own: it lies in the inode's.
            let (depth, entries) =
                parse_extents(&inode.area, 0..1 << 32, superblock).map_err(|why| walk.corrupt(0, why))?;
            if depth > DEPTH_MAX {
                return Err(walk.corrupt(0, format!("its tree of extents has {depth} levels")));
            }
            walk.extents(depth, &entries)?;
        } else {
            walk.pointers()?;
        }
        Ok(walk.runs)
    }
}

impl Walk<'_> {
    fn corrupt(&self, block: u64, reason: impl std::fmt::Display) -> Error {
        let at = block.saturating_mul(self.superblock.block_bytes);
        Error::corrupt("ext file mapping", at, format!("inode {}: {reason}", self.inode.number))
    }

    fn add(&mut self, run: Run) -> Result<()> {
        if let Some(last) = self.runs.last_mut()
            && last.logical.saturating_add(last.count) == run.logical
            && last.physical.saturating_add(last.count) == run.physical
        {
            last.count = last.count.saturating_add(run.count);
            return Ok(());
        }
        if self.runs.len() >= self.runs_max {
            return Err(self.corrupt(0, format!("it lies in more than {} pieces", self.runs_max)));
        }
        self.runs.push(run);
        Ok(())
    }

    fn node(
        &mut self,
        block: u64,
        parse: impl FnOnce(&[u8]) -> std::result::Result<Node, String>,
    ) -> Result<Arc<Node>> {
        self.nodes_left =
            self.nodes_left.checked_sub(1).ok_or_else(|| self.corrupt(block, "its mapping has no end"))?;
        let nodes = || self.mapper.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        // A node's checksum binds it to its inode, so it is held for that one only.
        let key = (self.inode.number, block);
        let held = nodes().get(key);
        if let Some(node) = held {
            return Ok(node);
        }
        self.budget.check_time()?;
        let mut bytes = vec![0; usize::try_from(self.superblock.block_bytes).unwrap_or(0)];
        self.device.read_exact_at(&mut bytes, block.saturating_mul(self.superblock.block_bytes))?;
        let node = Arc::new(parse(&bytes).map_err(|reason| self.corrupt(block, reason))?);
        nodes().insert(key, Arc::clone(&node));
        Ok(node)
    }

    fn extents(&mut self, depth: u16, entries: &[Extent]) -> Result<()> {
        let first = entries.partition_point(|entry| entry.logical.saturating_add(entry.count) <= self.wanted.start);
        for entry in entries.get(first..).unwrap_or_default() {
            if entry.logical >= self.wanted.end {
                break;
            }
            if depth == 0 {
                if entry.is_written {
                    self.add_within(entry)?;
                }
                continue;
            }
            let (superblock, seed) = (self.superblock, self.inode.checksum_seed);
            let covered = entry.logical..entry.logical.saturating_add(entry.count);
            let below = self.node(entry.physical, |bytes| {
                let (depth, entries) = parse_extents(bytes, covered.clone(), superblock)?;
                if superblock.has_checksums() && !extents_checksum_holds(bytes, seed) {
                    return Err("the checksum of a node of its tree of extents is wrong".into());
                }
                Ok(Node::Extents { depth, entries })
            })?;
            match &*below {
                // A node that was held can belong to another place: what it covers is asked again.
                Node::Extents { depth: found, entries }
                    if *found == depth.saturating_sub(1) && lie_within(entries, &covered) =>
                {
                    self.extents(*found, entries)?;
                }
                _ => return Err(self.corrupt(entry.physical, "a node of its tree of extents is out of place")),
            }
        }
        Ok(())
    }

    /// Adds the part of `extent` that is wanted.
    fn add_within(&mut self, extent: &Extent) -> Result<()> {
        let from = extent.logical.max(self.wanted.start);
        let to = extent.logical.saturating_add(extent.count).min(self.wanted.end);
        let physical = extent.physical.saturating_add(from.saturating_sub(extent.logical));
        self.add(Run { logical: from, physical, count: to.saturating_sub(from) })
    }

    /// Twelve direct pointers, then trees of one, two and three levels.
    fn pointers(&mut self) -> Result<()> {
        const DIRECT: u64 = 12;
        let area = self.inode.area;
        let pointer = |index: usize| le_u32(&area, index.saturating_mul(4)).unwrap_or(0);
        for index in 0..DIRECT {
            self.pointer(pointer(usize::try_from(index).unwrap_or(0)), 0, index)?;
        }
        let per_block = self.superblock.block_bytes / 4;
        let mut start = DIRECT;
        for level in 1..=3_u32 {
            self.pointer(pointer(usize::try_from(level).unwrap_or(0).saturating_add(11)), level, start)?;
            start = start.saturating_add(per_block.saturating_pow(level));
        }
        if self.wanted.end > start {
            return Err(self.corrupt(0, format!("block {} lies behind what can be mapped", self.wanted.end)));
        }
        Ok(())
    }

    /// Follows `pointer`, which covers the blocks from `logical` and has `level` levels below it.
    fn pointer(&mut self, pointer: u32, level: u32, logical: u64) -> Result<()> {
        let per_block = self.superblock.block_bytes / 4;
        let count = per_block.saturating_pow(level);
        let is_wanted = logical < self.wanted.end && logical.saturating_add(count) > self.wanted.start;
        if pointer == 0 || !is_wanted {
            return Ok(());
        }
        let block = u64::from(pointer);
        if block <= self.superblock.first_data_block || block >= self.superblock.blocks {
            return Err(self.corrupt(0, format!("block {logical} is said to lie at {block}, outside the file system")));
        }
        if level == 0 {
            return self.add(Run { logical, physical: block, count: 1 });
        }
        let node = self.node(block, |bytes| {
            Ok(Node::Pointers(bytes.chunks_exact(4).filter_map(|word| le_u32(word, 0)).collect()))
        })?;
        let Node::Pointers(pointers) = &*node else {
            return Err(self.corrupt(block, "a block of pointers is also a node of extents"));
        };
        let each = per_block.saturating_pow(level.saturating_sub(1)).max(1);
        let skipped = self.wanted.start.saturating_sub(logical) / each;
        let last = self.wanted.end.saturating_sub(logical).div_ceil(each).min(per_block);
        let wanted = usize::try_from(skipped).unwrap_or(usize::MAX)..usize::try_from(last).unwrap_or(0);
        for (index, pointer) in (skipped..).zip(pointers.get(wanted).unwrap_or_default()) {
            self.pointer(*pointer, level.saturating_sub(1), logical.saturating_add(index.saturating_mul(each)))?;
        }
        Ok(())
    }
}

fn lie_within(entries: &[Extent], covered: &Range<u64>) -> bool {
    let last = entries.last().is_none_or(|last| last.logical.saturating_add(last.count) <= covered.end);
    last && entries.first().is_none_or(|first| first.logical >= covered.start)
}

/// A node of a tree of extents that covers the logical blocks `covered`: its depth, and its entries, which ascend, do not
/// overlap and lie within the file system.
fn parse_extents(
    bytes: &[u8],
    covered: Range<u64>,
    superblock: &Superblock,
) -> std::result::Result<(u16, Vec<Extent>), String> {
    let field = |at| le_u16(bytes, at).unwrap_or(0);
    let (magic, count, room, depth) = (field(0), usize::from(field(2)), usize::from(field(4)), field(6));
    if magic != 0xf30a {
        return Err("the magic number of a node of its tree of extents is not there".into());
    }
    let fitting = bytes.len().saturating_sub(HEADER_BYTES) / ENTRY_BYTES;
    if room == 0 || room > fitting || count > room || (count == 0 && depth > 0) {
        return Err(format!("a node of its tree of extents has {count} entries of {room}"));
    }
    let mut entries: Vec<Extent> = Vec::with_capacity(count);
    for entry in bytes.get(HEADER_BYTES..).unwrap_or_default().chunks_exact(ENTRY_BYTES).take(count) {
        let word = |at| u64::from(le_u32(entry, at).unwrap_or(0));
        let half = |at| u64::from(le_u16(entry, at).unwrap_or(0));
        let logical = word(0);
        let (physical, length, is_written) = if depth == 0 {
            // Lengths above 32768 are those of extents that are allocated and not written.
            let length = half(4);
            (
                word(8) | half(6) << 32,
                if length > 32768 { length.saturating_sub(32768) } else { length },
                length <= 32768,
            )
        } else {
            (word(4) | half(8) << 32, 1, true)
        };
        let end = physical.saturating_add(length);
        if length == 0 || physical <= superblock.first_data_block || end > superblock.blocks {
            return Err(format!(
                "{length} blocks from {logical} are said to lie at {physical}, outside the file system"
            ));
        }
        let free_from = entries.last().map_or(covered.start, |last| last.logical.saturating_add(last.count));
        if logical < free_from || logical.saturating_add(length) > covered.end {
            return Err(format!("its extent at block {logical} is out of order"));
        }
        entries.push(Extent { logical, physical, count: length, is_written });
    }
    if depth > 0 {
        let ends: Vec<u64> = entries.iter().skip(1).map(|entry| entry.logical).chain([covered.end]).collect();
        for (entry, end) in entries.iter_mut().zip(ends) {
            entry.count = end.saturating_sub(entry.logical);
        }
    }
    Ok((depth, entries))
}

/// The checksum follows the last entry there is room for.
fn extents_checksum_holds(bytes: &[u8], seed: u32) -> bool {
    let room = usize::from(le_u16(bytes, 4).unwrap_or(0));
    let end = HEADER_BYTES.saturating_add(room.saturating_mul(ENTRY_BYTES));
    bytes.get(..end).is_some_and(|covered| sum_holds(le_u32(bytes, end) == Some(crc32c(seed, covered))))
}
