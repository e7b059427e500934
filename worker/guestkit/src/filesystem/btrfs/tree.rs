//! B-trees ("Btrfs: On-disk Format", tree blocks): sound blocks only, each from the first copy that is.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use super::chunks::Volume;
use super::superblock::{Checksum, LEVELS_MAX, Superblock};
use crate::block_cache::Lru;
use crate::bytes::{array, le_u32, le_u64, slice};
use crate::error::{Error, Result};
use crate::limits::Budget;

/// Bytes of tree blocks held: the upper levels of all trees and the leaves that a walk returns to.
const CACHE_BYTES: usize = 16 << 20;
const HEADER_BYTES: usize = 101;
const ITEM_BYTES: usize = 25;
const POINTER_BYTES: usize = 33;

/// What items are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) object: u64,
    pub(super) kind: u8,
    pub(super) offset: u64,
}

impl Key {
    pub(super) const fn new(object: u64, kind: u8, offset: u64) -> Self {
        Self { object, kind, offset }
    }

    /// The key at byte `at`.
    pub(super) fn parse(bytes: &[u8], at: usize) -> Option<Self> {
        Some(Self {
            object: le_u64(bytes, at)?,
            kind: *bytes.get(at.checked_add(8)?)?,
            offset: le_u64(bytes, at.checked_add(9)?)?,
        })
    }
}

/// Where a tree begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root {
    pub(super) logical: u64,
    pub(super) level: u8,
    /// The transaction that wrote its topmost block.
    pub(super) generation: u64,
}

/// A tree with what a log says beyond it: an item that stands in for the tree's, or none where it was removed.
#[derive(Debug, Default)]
pub(super) struct Overlay(pub(super) BTreeMap<Key, Option<Vec<u8>>>);

#[derive(Debug)]
struct Node {
    bytes: Box<[u8]>,
    level: u8,
    generation: u64,
    count: usize,
}

impl Node {
    /// A block whose checksum is right: its items or pointers lie inside of it, sorted.
    fn parse(bytes: Box<[u8]>) -> Option<Self> {
        let level = *bytes.get(100)?;
        let generation = le_u64(&bytes, 80)?;
        let count = usize::try_from(le_u32(&bytes, 96)?).ok()?;
        let size = if level == 0 { ITEM_BYTES } else { POINTER_BYTES };
        let end = HEADER_BYTES.checked_add(count.checked_mul(size)?)?;
        if level >= LEVELS_MAX || end > bytes.len() {
            return None;
        }
        let node = Self { bytes, level, generation, count };
        let mut before = None;
        for index in 0..count {
            let key = node.key(index)?;
            if before.is_some_and(|before| before >= key) || (level == 0 && node.item(index).is_none()) {
                return None;
            }
            before = Some(key);
        }
        Some(node)
    }

    fn at(&self, index: usize) -> usize {
        let size = if self.level == 0 { ITEM_BYTES } else { POINTER_BYTES };
        HEADER_BYTES.saturating_add(index.saturating_mul(size))
    }

    fn key(&self, index: usize) -> Option<Key> {
        Key::parse(&self.bytes, self.at(index))
    }

    fn item(&self, index: usize) -> Option<&[u8]> {
        let at = self.at(index);
        let offset = usize::try_from(le_u32(&self.bytes, at.checked_add(17)?)?).ok()?;
        let length = usize::try_from(le_u32(&self.bytes, at.checked_add(21)?)?).ok()?;
        slice(&self.bytes, HEADER_BYTES.checked_add(offset)?, length)
    }

    /// The child's address and generation.
    fn pointer(&self, index: usize) -> Option<(u64, u64)> {
        let at = self.at(index);
        Some((le_u64(&self.bytes, at.checked_add(17)?)?, le_u64(&self.bytes, at.checked_add(25)?)?))
    }

    /// How many keys come before `key`, itself counted where `inclusive`.
    fn before(&self, key: Key, inclusive: bool) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            let is_before = self.key(middle).is_some_and(|found| match found.cmp(&key) {
                Ordering::Less => true,
                Ordering::Equal => inclusive,
                Ordering::Greater => false,
            });
            if is_before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// Reads tree blocks.
pub(super) struct Trees {
    pub(super) volume: Volume,
    checksum: Checksum,
    node_bytes: u32,
    /// UUIDs that a block of this file system can carry: its own, and those of the seeds it grew from.
    uuids: Vec<[u8; 16]>,
    nodes: Mutex<Lru<u64, Arc<Node>>>,
    repaired: Mutex<u64>,
    pub(super) budget: Arc<Budget>,
}

/// What a visitor is given, and whether it wants more.
pub(super) type Visit<'a> = &'a mut dyn FnMut(Key, &[u8]) -> Result<ControlFlow<()>>;

impl Trees {
    pub(super) fn new(volume: Volume, superblock: &Superblock, uuids: Vec<[u8; 16]>, budget: Arc<Budget>) -> Self {
        let held = CACHE_BYTES / usize::try_from(superblock.node_bytes).unwrap_or(CACHE_BYTES).max(1);
        Self {
            volume,
            checksum: superblock.checksum,
            node_bytes: superblock.node_bytes,
            uuids,
            nodes: Mutex::new(Lru::new(held)),
            repaired: Mutex::new(0),
            budget,
        }
    }

    /// Blocks of which the first copy was broken and another was read.
    pub(super) fn repaired(&self) -> u64 {
        *self.repaired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count_repaired(&self) {
        let mut repaired = self.repaired.lock().unwrap_or_else(PoisonError::into_inner);
        *repaired = repaired.saturating_add(1);
    }

    fn node(&self, logical: u64, level: u8, generation: u64, first: Option<Key>) -> Result<Arc<Node>> {
        let check = |node: &Node| {
            let reason = match () {
                () if node.level != level => format!("it is of level {}, and not {level}", node.level),
                () if node.generation != generation => {
                    format!("it is of generation {}, and not {generation}", node.generation)
                }
                () if first.is_some() && node.key(0) != first => "its first key is not its parent's".into(),
                () if node.level > 0 && node.count == 0 => "it has no children".into(),
                () => return Ok(()),
            };
            Err(Error::corrupt("btrfs tree block", logical, reason))
        };
        let held = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).get(logical);
        if let Some(node) = held {
            return check(&node).map(|()| node);
        }
        let mut failure = None;
        for way in 0..self.volume.ways(logical).max(1) {
            match self.read_node(logical, way).and_then(|node| check(&node).map(|()| node)) {
                Ok(node) => {
                    if way > 0 {
                        self.count_repaired();
                    }
                    let node = Arc::new(node);
                    self.nodes.lock().unwrap_or_else(PoisonError::into_inner).insert(logical, Arc::clone(&node));
                    return Ok(node);
                }
                Err(error) if error.is_budget_exhausted() => return Err(error),
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| Error::corrupt("btrfs tree block", logical, "no copy of it can be read")))
    }

    fn read_node(&self, logical: u64, way: usize) -> Result<Node> {
        self.budget.check_time()?;
        let mut bytes = self.budget.allocate(u64::from(self.node_bytes))?;
        self.volume.read(logical, &mut bytes, way)?;
        let corrupt = |reason| Error::corrupt("btrfs tree block", logical, reason);
        if !self.checksum.matches(bytes.get(32..).unwrap_or_default(), &bytes) {
            return Err(corrupt("its checksum is wrong"));
        }
        if le_u64(&bytes, 48) != Some(logical) {
            return Err(corrupt("it says that it lies elsewhere"));
        }
        if !array(&bytes, 32).is_some_and(|uuid| self.uuids.contains(&uuid)) {
            return Err(corrupt("it belongs to another file system"));
        }
        Node::parse(bytes.into()).ok_or_else(|| corrupt("its items leave it or are not sorted"))
    }

    /// The item at `key`, or else the last before it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where a block on the way is; limits and I/O.
    pub(super) fn floor(&self, root: Root, key: Key) -> Result<Option<(Key, Vec<u8>)>> {
        let mut node = self.node(root.logical, root.level, root.generation, None)?;
        loop {
            let Some(index) = node.before(key, true).checked_sub(1) else { return Ok(None) };
            if node.level == 0 {
                let found = node.key(index).zip(node.item(index));
                return Ok(found.map(|(key, item)| (key, item.to_vec())));
            }
            let Some((logical, generation)) = node.pointer(index) else { return Ok(None) };
            node = self.node(logical, node.level.saturating_sub(1), generation, node.key(index))?;
        }
    }

    /// Visits the items from `from` to `to`, both included, in order.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where a block on the way is; limits and I/O; what `visit` gives.
    pub(super) fn visit(&self, root: Root, from: Key, to: Key, visit: Visit<'_>) -> Result<()> {
        let top = self.node(root.logical, root.level, root.generation, None)?;
        self.visit_node(&top, from, to, visit).map(drop)
    }

    /// Every block lies one level below its parent and begins with the key its parent gives it, so that no walk meets a
    /// block twice.
    fn visit_node(&self, node: &Node, from: Key, to: Key, visit: Visit<'_>) -> Result<ControlFlow<()>> {
        if node.level == 0 {
            for index in node.before(from, false)..node.count {
                let Some((key, item)) = node.key(index).zip(node.item(index)) else { break };
                if key > to || visit(key, item)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            return Ok(ControlFlow::Continue(()));
        }
        self.budget.check_time()?;
        for index in node.before(from, true).saturating_sub(1)..node.count {
            let Some((key, (logical, generation))) = node.key(index).zip(node.pointer(index)) else { break };
            if key > to {
                return Ok(ControlFlow::Break(()));
            }
            let child = self.node(logical, node.level.saturating_sub(1), generation, Some(key))?;
            if self.visit_node(&child, from, to, visit)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// [`Self::visit`] as a log leaves the tree.
    ///
    /// # Errors
    /// As there.
    pub(super) fn visit_over(
        &self,
        root: Root,
        overlay: Option<&Overlay>,
        from: Key,
        to: Key,
        visit: Visit<'_>,
    ) -> Result<()> {
        let Some(overlay) = overlay.filter(|_| from <= to) else { return self.visit(root, from, to, visit) };
        let mut over = overlay.0.range(from..=to).peekable();
        let mut ended = false;
        self.visit(root, from, to, &mut |key, item| {
            while let Some((at, value)) = over.next_if(|(at, _)| **at < key) {
                if let Some(value) = value
                    && visit(*at, value)?.is_break()
                {
                    ended = true;
                    return Ok(ControlFlow::Break(()));
                }
            }
            let flow = match over.next_if(|(at, _)| **at == key) {
                Some((_, Some(value))) => visit(key, value)?,
                Some((_, None)) => ControlFlow::Continue(()),
                None => visit(key, item)?,
            };
            ended = flow.is_break();
            Ok(flow)
        })?;
        if ended {
            return Ok(());
        }
        for (at, value) in over {
            if let Some(value) = value
                && visit(*at, value)?.is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// [`Self::floor`] as a log leaves the tree, within the object and kind of `key`.
    ///
    /// # Errors
    /// As there.
    pub(super) fn floor_over(&self, root: Root, overlay: Option<&Overlay>, key: Key) -> Result<Option<(Key, Vec<u8>)>> {
        let is_same = |found: &(Key, Vec<u8>)| (found.0.object, found.0.kind) == (key.object, key.kind);
        let Some(overlay) = overlay else { return Ok(self.floor(root, key)?.filter(is_same)) };
        let over = overlay.0.range(Key::new(key.object, key.kind, 0)..=key);
        let over = over.rev().find_map(|(at, value)| Some((*at, value.clone()?)));
        let mut below = self.floor(root, key)?.filter(is_same);
        while let Some((at, _)) = &below
            && matches!(overlay.0.get(at), Some(None))
        {
            let Some(offset) = at.offset.checked_sub(1) else {
                below = None;
                break;
            };
            below = self.floor(root, Key::new(key.object, key.kind, offset))?.filter(is_same);
        }
        Ok(match (over, below) {
            (Some(over), Some(below)) if below.0 > over.0 => Some(below),
            (Some(over), _) => Some(over),
            (None, below) => below,
        })
    }
}
