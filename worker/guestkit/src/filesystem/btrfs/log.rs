//! The log tree: what was synced after the last commit (`fs/btrfs/tree-log.c` is its only specification). It is laid over
//! the trees of the subvolumes in memory, as Linux replays it when it mounts.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::items::{
    self, DIR_INDEX, DIR_ITEM, DIR_LOG_INDEX, EXTENT_CSUM, EXTENT_DATA, Extent, INLINE_AT, INODE_EXTREF, INODE_ITEM,
    INODE_REF, Inode, Place, ROOT_ITEM, RootItem, XATTR_ITEM,
};
use super::tree::{Key, Overlay, Root, Trees};
use super::{all, item_error, root_of};
use crate::bytes::le_u64;
use crate::error::{Error, Result};
use crate::filesystem::FileType;

/// The object of the log's roots (`BTRFS_TREE_LOG_OBJECTID`).
const LOG_OBJECT: u64 = u64::MAX - 5;
/// Bytes of items that a log is taken in with; those of databases that sync all the time hold some megabytes.
const LOG_BYTES_MAX: usize = 32 << 20;

/// What a log changes.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// Trees of subvolumes, by their numbers.
    pub(super) volumes: BTreeMap<u64, Overlay>,
    /// The checksum tree.
    pub(super) checksums: Overlay,
}

type Items = BTreeMap<Key, Vec<u8>>;

/// Replays the log at `root`; `volume` finds the trees of subvolumes.
///
/// # Errors
/// [`Error::Corrupt`] where the log or what it changes is; [`Error::Unsupported`] where it is very large.
pub(super) fn replay(trees: &Trees, root: Root, volume: impl Fn(u64) -> Result<Option<Root>>) -> Result<Replayed> {
    let mut logs = Vec::new();
    let (from, to) = all(LOG_OBJECT, ROOT_ITEM);
    trees.visit(root, from, to, &mut |key, item| {
        let item = RootItem::parse(item).ok_or_else(|| item_error(key))?;
        logs.push((key.offset, root_of(&item)?));
        Ok(ControlFlow::Continue(()))
    })?;
    let mut replayed = Replayed::default();
    let mut held = 0;
    for (id, log) in logs {
        let mut logged = Items::new();
        trees.visit(log, Key::new(0, 0, 0), Key::new(u64::MAX, u8::MAX, u64::MAX), &mut |key, item| {
            held += item.len() + size_of::<Key>();
            if held > LOG_BYTES_MAX {
                return Err(Error::unsupported("a btrfs log of so many items"));
            }
            if key.kind == EXTENT_CSUM {
                replayed.checksums.0.insert(key, Some(item.to_vec()));
            } else {
                logged.insert(key, item.to_vec());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        // A subvolume that has been deleted meanwhile needs no replay.
        if let Some(root) = volume(id)? {
            let mut replay = Replay { trees, root, over: Overlay::default() };
            replay.run(&logged)?;
            replayed.volumes.insert(id, replay.over);
        }
    }
    Ok(replayed)
}

struct Replay<'a> {
    trees: &'a Trees,
    root: Root,
    over: Overlay,
}

impl Replay<'_> {
    fn items(&self, (from, to): (Key, Key)) -> Result<Items> {
        let mut found = Items::new();
        self.trees.visit_over(self.root, Some(&self.over), from, to, &mut |key, item| {
            found.insert(key, item.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    fn item(&self, key: Key) -> Result<Option<Vec<u8>>> {
        Ok(self.items((key, key))?.into_values().next())
    }

    fn put(&mut self, key: Key, item: Vec<u8>) {
        self.over.0.insert(key, Some(item));
    }

    fn remove(&mut self, key: Key) {
        self.over.0.insert(key, None);
    }

    fn run(&mut self, logged: &Items) -> Result<()> {
        let of_kind = |kind: u8| logged.iter().filter(move |(key, _)| key.kind == kind);
        // An inode without names was a temporary file; nothing of it is to appear.
        let mut unnamed = Vec::new();
        for (key, item) in of_kind(INODE_ITEM) {
            let inode = Inode::parse(item).ok_or_else(|| item_error(*key))?;
            if inode.links == 0 {
                unnamed.push(key.object);
            } else {
                self.inode(*key, item, &inode, logged)?;
            }
        }
        let is_named = |key: &Key| unnamed.binary_search(&key.object).is_err();
        for (key, item) in of_kind(XATTR_ITEM).filter(|(key, _)| is_named(key)) {
            self.put(*key, item.clone());
        }
        for (key, item) in of_kind(DIR_LOG_INDEX) {
            let end = le_u64(item, 0).ok_or_else(|| item_error(*key))?;
            let range = (Key::new(key.object, DIR_INDEX, key.offset), Key::new(key.object, DIR_INDEX, end));
            for (at, entry) in self.items(range)? {
                if !logged.contains_key(&at) {
                    for entry in items::entries(&entry).ok_or_else(|| item_error(at))? {
                        self.unlink(at.object, entry.name)?;
                    }
                }
            }
        }
        for kind in [INODE_REF, INODE_EXTREF] {
            for (key, item) in of_kind(kind).filter(|(key, _)| is_named(key)) {
                self.names(*key, item)?;
            }
        }
        for (key, item) in of_kind(DIR_INDEX).filter(|(key, _)| is_named(key)) {
            for entry in items::entries(item).ok_or_else(|| item_error(*key))? {
                let exists = entry.location.kind == INODE_ITEM && self.item(entry.location)?.is_some();
                if exists {
                    self.link(key.object, key.offset, entry.name, item)?;
                }
            }
        }
        let mut objects: Vec<u64> = of_kind(EXTENT_DATA).map(|(key, _)| key.object).collect();
        objects.dedup();
        for object in objects {
            self.extents(object, logged)?;
        }
        Ok(())
    }

    fn inode(&mut self, key: Key, item: &[u8], inode: &Inode, logged: &Items) -> Result<()> {
        let is_regular = |inode: &Inode| FileType::of_mode(inode.mode) == Some(FileType::Regular);
        match self.item(key)? {
            // Only that it exists was logged.
            Some(mut old) if inode.generation == 0 => {
                let known = Inode::parse(&old).ok_or_else(|| item_error(key))?;
                if is_regular(inode) && is_regular(&known) && inode.size != 0 {
                    if let Some(size) = old.get_mut(16..24) {
                        size.copy_from_slice(&inode.size.to_le_bytes());
                    }
                    self.put(key, old);
                }
            }
            _ => self.put(key, item.to_vec()),
        }
        for at in self.items(all(key.object, XATTR_ITEM))?.into_keys() {
            if !logged.contains_key(&at) {
                self.remove(at);
            }
        }
        Ok(())
    }

    /// Lets `directory` hold `name`, as `entry` says, and removes what stood under the name or at the index.
    fn link(&mut self, directory: u64, index: u64, name: &[u8], entry: &[u8]) -> Result<()> {
        let at = Key::new(directory, DIR_INDEX, index);
        if let Some(old) = self.item(at)? {
            if old == entry {
                return Ok(());
            }
            for old in items::entries(&old).ok_or_else(|| item_error(at))? {
                self.unlink(directory, old.name)?;
            }
        }
        self.unlink(directory, name)?;
        self.put(at, entry.to_vec());
        let hashed = Key::new(directory, DIR_ITEM, items::name_hash(name));
        let mut item = self.item(hashed)?.unwrap_or_default();
        item.extend_from_slice(entry);
        self.put(hashed, item);
        Ok(())
    }

    fn unlink(&mut self, directory: u64, name: &[u8]) -> Result<()> {
        let hashed = Key::new(directory, DIR_ITEM, items::name_hash(name));
        let Some(item) = self.item(hashed)? else { return Ok(()) };
        let entries = items::entries(&item).ok_or_else(|| item_error(hashed))?;
        if !entries.iter().any(|entry| entry.name == name) {
            return Ok(());
        }
        let mut kept = Vec::new();
        let mut at = 0;
        for entry in &entries {
            let end = at + 30 + entry.name.len() + entry.data.len();
            if entry.name != name {
                kept.extend_from_slice(item.get(at..end).unwrap_or_default());
            }
            at = end;
        }
        if kept.is_empty() {
            self.remove(hashed);
        } else {
            self.put(hashed, kept);
        }
        for (at, item) in self.items(all(directory, DIR_INDEX))? {
            self.trees.budget.check_time()?;
            if items::entries(&item).ok_or_else(|| item_error(at))?.iter().any(|entry| entry.name == name) {
                self.remove(at);
            }
        }
        Ok(())
    }

    /// The names that an inode has in a directory: those of before that are not among them are gone.
    fn names(&mut self, key: Key, item: &[u8]) -> Result<()> {
        let names = items::names(key, item).ok_or_else(|| item_error(key))?;
        if let Some(old) = self.item(key)? {
            for (directory, _, name) in items::names(key, &old).ok_or_else(|| item_error(key))? {
                if !names.iter().any(|(other, _, kept)| (*other, *kept) == (directory, name)) {
                    self.unlink(directory, name)?;
                }
            }
        }
        let location = Key::new(key.object, INODE_ITEM, 0);
        let inode = self.item(location)?.and_then(|item| Inode::parse(&item));
        let Some(file_type) = inode.and_then(|inode| FileType::of_mode(inode.mode)) else { return Ok(()) };
        let mut is_linked = false;
        for (directory, index, name) in names {
            // A directory that is not there was removed later.
            if self.item(Key::new(directory, INODE_ITEM, 0))?.is_none() || directory == key.object {
                continue;
            }
            is_linked = true;
            let length = u16::try_from(name.len()).map_err(|_| item_error(key))?;
            let mut entry = Vec::with_capacity(30 + name.len());
            entry.extend_from_slice(&key.object.to_le_bytes());
            entry.push(INODE_ITEM);
            // The key's offset, and a transaction that nobody reads; then no data.
            entry.extend_from_slice(&[0; 18]);
            entry.extend_from_slice(&length.to_le_bytes());
            entry.push(match file_type {
                FileType::Regular => 1,
                FileType::Directory => 2,
                FileType::CharacterDevice => 3,
                FileType::BlockDevice => 4,
                FileType::Fifo => 5,
                FileType::Socket => 6,
                FileType::Symlink => 7,
            });
            entry.extend_from_slice(name);
            self.link(directory, index, name, &entry)?;
        }
        if is_linked {
            self.put(key, item.to_vec());
        }
        Ok(())
    }

    /// What the log says of a file's contents takes the place of what was there.
    fn extents(&mut self, object: u64, logged: &Items) -> Result<()> {
        let before = self.items(all(object, EXTENT_DATA))?;
        let mut now = before.clone();
        let (from, to) = all(object, EXTENT_DATA);
        for (key, item) in logged.range(from..=to) {
            self.trees.budget.check_time()?;
            let extent = Extent::parse(item).ok_or_else(|| item_error(*key))?;
            let end = key.offset.checked_add(extent.length()).ok_or_else(|| item_error(*key))?;
            let floor = now.range(..*key).next_back().map_or(*key, |(at, _)| *at);
            let met: Vec<_> =
                now.range(floor..Key::new(object, EXTENT_DATA, end)).map(|(at, old)| (*at, old.clone())).collect();
            for (at, old) in met {
                let known = Extent::parse(&old).ok_or_else(|| item_error(at))?;
                let last = at.offset.saturating_add(known.length());
                if last <= key.offset && at != *key {
                    continue;
                }
                now.remove(&at);
                if let Place::Regular { offset, .. } = known.place {
                    if at.offset < key.offset {
                        now.insert(at, cut(&old, offset, key.offset - at.offset));
                    }
                    if last > end {
                        let rest = cut(&old, offset.saturating_add(end - at.offset), last - end);
                        now.insert(Key::new(object, EXTENT_DATA, end), rest);
                    }
                }
            }
            now.insert(*key, item.clone());
        }
        for key in before.keys().filter(|key| !now.contains_key(key)) {
            self.remove(*key);
        }
        for (key, item) in now {
            if before.get(&key) != Some(&item) {
                self.put(key, item);
            }
        }
        Ok(())
    }
}

/// A regular extent item with another part of its extent.
fn cut(item: &[u8], offset: u64, length: u64) -> Vec<u8> {
    let mut item = item.to_vec();
    // Behind the address and the stored length, which stay.
    if let Some(part) = item.get_mut(INLINE_AT + 16..INLINE_AT + 32) {
        let (first, second) = part.split_at_mut(8);
        first.copy_from_slice(&offset.to_le_bytes());
        second.copy_from_slice(&length.to_le_bytes());
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_extent_keeps_where_it_lies() {
        let mut item = vec![0; 53];
        item[20] = 1;
        item[21..29].copy_from_slice(&77_u64.to_le_bytes());
        item[29..37].copy_from_slice(&8192_u64.to_le_bytes());
        let extent = Extent::parse(&cut(&item, 4096, 512)).unwrap();
        assert_eq!(extent.length(), 512);
        assert!(matches!(extent.place, Place::Regular { logical: 77, stored_bytes: 8192, offset: 4096, .. }));
    }
}
