//! btrfs ("Btrfs: On-disk Format"): all profiles on one or several devices, subvolumes, compression, and the log of what
//! was synced after the last commit.
//!
//! Checksums of tree blocks are always verified, those of contents wherever there are any; where one is wrong the other
//! copies are tried, and what no copy has right is [`Error::Corrupt`], as Linux gives `EIO`.

mod chunks;
mod compression;
mod items;
mod log;
mod superblock;
mod tree;

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use self::chunks::{Member, Volume};
use self::items::{
    CHUNK_ITEM, DIR_INDEX, DIR_ITEM, EXTENT_CSUM, EXTENT_DATA, Entry, Extent, INODE_EXTREF, INODE_ITEM, INODE_REF,
    Inode, Place, ROOT_BACKREF, ROOT_ITEM, ROOT_REF, RootItem, XATTR_ITEM,
};
use self::superblock::{Checksum, LEVELS_MAX, Superblock};
use self::tree::{Key, Overlay, Root, Trees};
use super::{
    DirEntry, ExtendedAttribute, FileSystem, FileSystemInfo, FileType, Metadata, NodeId, Probe, Subvolume, Timestamp,
};
use crate::block_cache::Lru;
use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::partition::uuid as uuid_text;
use crate::read_at::Source;

/// The top-level subvolume (`BTRFS_FS_TREE_OBJECTID`), and the first and last number of the others.
const TOP_LEVEL: u64 = 5;
const FIRST_SUBVOLUME: u64 = 256;
const LAST_SUBVOLUME: u64 = u64::MAX - 255;
/// The tree and the object of data checksums (`BTRFS_CSUM_TREE_OBJECTID`, `BTRFS_EXTENT_CSUM_OBJECTID`).
const CHECKSUM_TREE: u64 = 7;
const CHECKSUM_OBJECT: u64 = u64::MAX - 9;
/// The object of chunk items (`BTRFS_FIRST_CHUNK_TREE_OBJECTID`).
const CHUNK_OBJECT: u64 = 256;
/// An inode that no tree holds: the empty directory that a snapshot shows where a subvolume was nested in its origin
/// (`BTRFS_EMPTY_SUBVOL_DIR_OBJECTID`).
const EMPTY_DIRECTORY: u64 = 2;
/// `BTRFS_INODE_NODATASUM`.
const WITHOUT_CHECKSUMS: u64 = 1;
/// Bits of a [`NodeId`] for the inode number; those above count subvolumes in the order they were met.
const INODE_BITS: u32 = 44;
/// Bytes of a compressed extent before and after: Linux writes at most 128 KiB (`BTRFS_MAX_COMPRESSED`).
const COMPRESSED_MAX: u64 = 1 << 20;
/// Decoded extents held, for files that are read in pieces.
const EXTENTS_HELD: usize = 8;
/// Bytes of a symbolic link's target: one sector, as it lies inline.
const TARGET_MAX: u64 = 64 << 10;
/// Directories above one another that the path of a subvolume is made of.
const DEPTH_MAX: usize = 256;

/// Decoded contents, by where they lie compressed and how many bytes they decode to.
type Decoded = Lru<(u64, u64), Arc<[u8]>>;

/// A mounted btrfs.
pub(super) struct Btrfs {
    info: FileSystemInfo,
    trees: Trees,
    root_tree: Root,
    checksum: Checksum,
    checksum_tree: Option<Root>,
    sector_bytes: u32,
    root: NodeId,
    logs: HashMap<u64, Arc<Overlay>>,
    /// Checksums of contents that only the log has.
    log_checksums: Overlay,
    volumes: Mutex<Interned>,
    decoded: Mutex<Decoded>,
    warnings: Vec<String>,
    budget: Arc<Budget>,
}

impl fmt::Debug for Btrfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Btrfs").field("info", &self.info).finish_non_exhaustive()
    }
}

/// A subvolume that has been met.
#[derive(Debug)]
struct Met {
    id: u64,
    index: u64,
    root: Root,
    directory: u64,
    log: Option<Arc<Overlay>>,
}

#[derive(Debug, Default)]
struct Interned {
    by_index: Vec<Arc<Met>>,
    by_id: HashMap<u64, u64>,
}

fn inode_error(number: u64, reason: impl Into<String>) -> Error {
    Error::corrupt("btrfs inode", number, reason)
}

fn item_error(key: Key) -> Error {
    Error::corrupt("btrfs item", key.object, format!("the item of type {} at {} is not possible", key.kind, key.offset))
}

/// The whole range of items of one kind that `object` has.
const fn all(object: u64, kind: u8) -> (Key, Key) {
    (Key::new(object, kind, 0), Key::new(object, kind, u64::MAX))
}

fn root_of(item: &RootItem) -> Result<Root> {
    if item.level >= LEVELS_MAX {
        return Err(Error::corrupt("btrfs root item", item.logical, "its tree is too high"));
    }
    Ok(Root { logical: item.logical, level: item.level, generation: item.generation })
}

/// The members of the file system that the first of `sources` belongs to, and the newest superblock of them.
fn assemble(sources: &[Source], warnings: &mut Vec<String>) -> Result<(Superblock, Vec<Member>, Vec<[u8; 16]>)> {
    let mut found = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        match superblock::read(&**source) {
            Ok((superblock, warning)) => {
                warnings.extend(warning);
                found.push((superblock, Arc::clone(source)));
            }
            Err(error) if index == 0 || error.is_budget_exhausted() => return Err(error),
            Err(error) => warnings.push(format!("member {} is left out: {error}", index + 1)),
        }
    }
    let fsid = found.first().map(|(first, _)| first.fsid);
    let newest = found.iter().map(|(superblock, _)| superblock).filter(|superblock| Some(superblock.fsid) == fsid);
    let newest = newest.max_by_key(|superblock| superblock.generation).cloned();
    let newest = newest.ok_or_else(|| Error::corrupt("btrfs superblock", 0, "there is none"))?;
    // What a seed is to a file system only its chunks tell; it is known by the UUID of its device.
    let mut uuids = vec![newest.metadata_uuid];
    uuids.extend(found.iter().map(|(superblock, _)| superblock.metadata_uuid));
    let member = |(superblock, source): (Superblock, Source)| Member {
        id: superblock.device_id,
        uuid: superblock.device_uuid,
        source,
    };
    Ok((newest, found.into_iter().map(member).collect(), uuids))
}

impl Btrfs {
    /// Opens the file system on `sources`, of which the first is the device that `probe` looked at.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming a feature that is not read; [`Error::Corrupt`]; limits and I/O.
    pub(super) fn open(sources: &[Source], probe: &Probe, budget: Arc<Budget>) -> Result<Self> {
        let mut warnings = Vec::new();
        let (superblock, members, uuids) = assemble(sources, &mut warnings)?;
        let volume = Volume::bootstrap(&superblock, members)?;
        let mut trees = Trees::new(volume, &superblock, uuids, Arc::clone(&budget));
        read_chunks(&mut trees, &superblock)?;
        let missing = trees.volume.missing();
        if !missing.is_empty() {
            let missing: Vec<_> = missing.iter().map(u64::to_string).collect();
            warnings.push(format!(
                "of its {} devices these are missing: {}; what has no other copy cannot be read",
                superblock.devices,
                missing.join(", ")
            ));
        }
        let root_tree =
            Root { logical: superblock.root, level: superblock.root_level, generation: superblock.generation };
        let info = FileSystemInfo {
            kind: "btrfs",
            label: probe.label.clone(),
            uuid: Some(uuid_text(superblock.fsid)),
            size_bytes: superblock.total_bytes,
            free_bytes: superblock.total_bytes.saturating_sub(superblock.bytes_used),
            inodes: None,
            inodes_free: None,
        };
        let mut opened = Self {
            info,
            trees,
            root_tree,
            checksum: superblock.checksum,
            checksum_tree: None,
            sector_bytes: superblock.sector_bytes,
            root: NodeId(0),
            logs: HashMap::new(),
            log_checksums: Overlay::default(),
            volumes: Mutex::default(),
            decoded: Mutex::new(Lru::new(EXTENTS_HELD)),
            warnings,
            budget,
        };
        opened.checksum_tree = opened.root_item(CHECKSUM_TREE)?.map(|item| root_of(&item)).transpose()?;
        if superblock.log_root != 0 {
            let root = Root {
                logical: superblock.log_root,
                level: superblock.log_root_level,
                generation: superblock.generation.saturating_add(1),
            };
            opened.take_in_log(root)?;
        }
        // The top level is met first, so that its nodes are numbered as its inodes.
        opened.volume(TOP_LEVEL)?.ok_or_else(|| Error::corrupt("btrfs root tree", 0, "it has no top level"))?;
        opened.root = opened.default_root(superblock.root_directory)?;
        Ok(opened)
    }

    fn take_in_log(&mut self, root: Root) -> Result<()> {
        match log::replay(&self.trees, root, |id| self.root_item(id)?.map(|item| root_of(&item)).transpose()) {
            Ok(replayed) => {
                self.logs = replayed.volumes.into_iter().map(|(id, overlay)| (id, Arc::new(overlay))).collect();
                self.log_checksums = replayed.checksums;
            }
            Err(error) if error.is_budget_exhausted() => return Err(error),
            Err(error) => self.warnings.push(format!(
                "the log could not be replayed, so what was synced after the last commit is missing: {error}"
            )),
        }
        Ok(())
    }

    /// The subvolume that is mounted when none is named: the entry `default` of the root tree's directory.
    fn default_root(&self, directory: u64) -> Result<NodeId> {
        let mut default = None;
        let (from, to) = all(directory, DIR_ITEM);
        self.trees.visit(self.root_tree, from, to, &mut |key, item| {
            let entries = items::entries(item).ok_or_else(|| item_error(key))?;
            let entry = entries.into_iter().find(|entry| entry.name == b"default" && entry.location.kind == ROOT_ITEM);
            default = default.or(entry.map(|entry| entry.location.object));
            Ok(ControlFlow::Continue(()))
        })?;
        let id = default.unwrap_or(TOP_LEVEL);
        let volume = self.volume(id)?;
        let volume = volume.ok_or_else(|| Error::corrupt("btrfs root tree", id, "the default subvolume is missing"))?;
        node_id(&volume, volume.directory)
    }

    fn root_item(&self, id: u64) -> Result<Option<RootItem>> {
        let mut found = None;
        let (from, to) = all(id, ROOT_ITEM);
        self.trees.visit(self.root_tree, from, to, &mut |key, item| {
            found = Some(RootItem::parse(item).ok_or_else(|| item_error(key))?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// The subvolume numbered `id`, if there is one.
    fn volume(&self, id: u64) -> Result<Option<Arc<Met>>> {
        let held = |volumes: &Interned| volumes.by_id.get(&id).and_then(|index| volumes.at(*index));
        if let Some(volume) = held(&self.interned()) {
            return Ok(Some(volume));
        }
        if id != TOP_LEVEL && !(FIRST_SUBVOLUME..=LAST_SUBVOLUME).contains(&id) {
            return Ok(None);
        }
        let Some(item) = self.root_item(id)? else { return Ok(None) };
        let root = root_of(&item)?;
        let mut volumes = self.interned();
        // Another thread may have met it meanwhile.
        if let Some(volume) = held(&volumes) {
            return Ok(Some(volume));
        }
        let index = volumes.by_index.len() as u64;
        if index >> (u64::BITS - INODE_BITS) != 0 {
            return Err(Error::unsupported("a btrfs of more than a million subvolumes"));
        }
        let volume = Arc::new(Met { id, index, root, directory: item.directory, log: self.logs.get(&id).cloned() });
        volumes.by_index.push(Arc::clone(&volume));
        volumes.by_id.insert(id, index);
        Ok(Some(volume))
    }

    fn interned(&self) -> std::sync::MutexGuard<'_, Interned> {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locate(&self, node: NodeId) -> Result<(Arc<Met>, u64)> {
        let volume = self.interned().at(node.0 >> INODE_BITS);
        let inode = node.0 & ((1 << INODE_BITS) - 1);
        Ok((volume.ok_or_else(|| inode_error(node.0, "there is no such subvolume"))?, inode))
    }

    fn visit(&self, volume: &Met, (from, to): (Key, Key), visit: tree::Visit<'_>) -> Result<()> {
        self.trees.visit_over(volume.root, volume.log.as_deref(), from, to, visit)
    }

    fn inode(&self, volume: &Met, number: u64) -> Result<Inode> {
        let mut found = None;
        let key = Key::new(number, INODE_ITEM, 0);
        self.visit(volume, (key, key), &mut |key, item| {
            found = Some(Inode::parse(item).ok_or_else(|| item_error(key))?);
            Ok(ControlFlow::Break(()))
        })?;
        found.ok_or_else(|| inode_error(number, format!("there is none in subvolume {}", volume.id)))
    }

    fn inode_of(&self, node: NodeId, expected: FileType, what: &str) -> Result<(Arc<Met>, u64, Inode)> {
        let (volume, number) = self.locate(node)?;
        let inode = self.inode(&volume, number)?;
        if FileType::of_mode(inode.mode) != Some(expected) {
            return Err(inode_error(number, format!("it is not {what}")));
        }
        Ok((volume, number, inode))
    }

    /// The node that an entry of `directory` names.
    fn target(&self, volume: &Met, directory: u64, entry: &Entry<'_>) -> Result<NodeId> {
        if entry.location.kind == INODE_ITEM {
            return node_id(volume, entry.location.object);
        }
        if entry.location.kind != ROOT_ITEM {
            return Err(inode_error(directory, "an entry names neither an inode nor a subvolume"));
        }
        // A snapshot keeps the entries of subvolumes nested in its origin, which belong to the origin only.
        let child = entry.location.object;
        let key = Key::new(volume.id, ROOT_REF, child);
        let mut is_own = false;
        self.trees.visit(self.root_tree, key, key, &mut |_, item| {
            is_own = items::root_reference(item) == Some((directory, entry.name));
            Ok(ControlFlow::Break(()))
        })?;
        match self.volume(child)? {
            Some(child) if is_own => node_id(&child, child.directory),
            _ => node_id(volume, EMPTY_DIRECTORY),
        }
    }

    /// Fills `buffer` with contents at `logical`, from the first copy whose checksums are right.
    fn read_data(&self, logical: u64, buffer: &mut [u8], has_checksums: bool) -> Result<()> {
        let ways = self.trees.volume.ways(logical).max(1);
        let mut failure = None;
        let mut first = None;
        for way in 0..ways {
            match self.trees.volume.read(logical, buffer, way) {
                Ok(()) => {
                    first = Some(way);
                    break;
                }
                Err(error) if error.is_budget_exhausted() => return Err(error),
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        let Some(first) = first else {
            return Err(failure.unwrap_or_else(|| Error::corrupt("btrfs extent", logical, "it has no copy")));
        };
        if first > 0 {
            self.trees.count_repaired();
        }
        if has_checksums { self.verify(logical, buffer, first) } else { Ok(()) }
    }

    /// Verifies the sectors of `buffer`, which was read at `logical` in the way `first`, and replaces those that are wrong.
    fn verify(&self, logical: u64, buffer: &mut [u8], first: usize) -> Result<()> {
        let Some(root) = self.checksum_tree else { return Ok(()) };
        let sector_bytes = u64::from(self.sector_bytes);
        let end = logical.saturating_add(buffer.len() as u64);
        let mut sums: Vec<(u64, Vec<u8>)> = Vec::new();
        let key = |logical| Key::new(CHECKSUM_OBJECT, EXTENT_CSUM, logical);
        let overlay = Some(&self.log_checksums).filter(|overlay| !overlay.0.is_empty());
        let floor = self.trees.floor_over(root, overlay, key(logical))?;
        let from = floor.map_or(key(logical), |(found, _)| found);
        self.trees.visit_over(root, overlay, from, key(end.saturating_sub(1)), &mut |key, item| {
            let size = self.checksum.len() as u64;
            let last = key.offset.saturating_add(item.len() as u64 / size * sector_bytes);
            if last > logical {
                // Only the sums of this range are kept of an item that can hold those of megabytes.
                let skipped = logical.saturating_sub(key.offset) / sector_bytes;
                let wanted = (end.saturating_sub(key.offset)).div_ceil(sector_bytes);
                let range = usize::try_from(skipped * size).unwrap_or(usize::MAX)
                    ..usize::try_from(wanted * size).unwrap_or(usize::MAX).min(item.len());
                if let Some(part) = item.get(range) {
                    sums.push((key.offset.saturating_add(skipped * sector_bytes), part.to_vec()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for (start, part) in &sums {
            for (index, sum) in part.chunks_exact(self.checksum.len()).enumerate() {
                let at = start.saturating_add(index as u64 * sector_bytes);
                self.verify_sector(at, sum, logical, buffer, first)?;
            }
        }
        Ok(())
    }

    fn verify_sector(&self, at: u64, sum: &[u8], logical: u64, buffer: &mut [u8], first: usize) -> Result<()> {
        let sector_bytes = usize::try_from(self.sector_bytes).unwrap_or(0);
        // The part of the sector that the buffer holds, and where it lies in both.
        let in_buffer = usize::try_from(at.saturating_sub(logical)).unwrap_or(usize::MAX);
        let in_sector = usize::try_from(logical.saturating_sub(at)).unwrap_or(usize::MAX);
        let count = sector_bytes.saturating_sub(in_sector).min(buffer.len().saturating_sub(in_buffer));
        let Some(held) = buffer.get_mut(in_buffer..in_buffer.saturating_add(count)) else { return Ok(()) };
        if held.len() == sector_bytes && self.checksum.matches(held, sum) {
            return Ok(());
        }
        let mut sector = vec![0; sector_bytes];
        let ways = self.trees.volume.ways(at).max(1);
        for way in (0..ways).map(|step| (first + step) % ways) {
            match self.trees.volume.read(at, &mut sector, way) {
                Ok(()) if self.checksum.matches(&sector, sum) => {
                    if let Some(good) = sector.get(in_sector..in_sector.saturating_add(count)) {
                        held.copy_from_slice(good);
                    }
                    if way != first {
                        self.trees.count_repaired();
                    }
                    return Ok(());
                }
                Err(error) if error.is_budget_exhausted() => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Err(Error::corrupt("btrfs extent", at, "the checksum of its contents is wrong in every copy"))
    }

    /// Fills `buffer`, which ends no later than the file, with its contents at `offset`.
    fn read_contents(&self, volume: &Met, number: u64, inode: &Inode, buffer: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        let from = Key::new(number, EXTENT_DATA, offset);
        let floor = self.trees.floor_over(volume.root, volume.log.as_deref(), from)?;
        let from = floor.map_or(from, |(found, _)| found);
        let mut at = offset;
        let to = Key::new(number, EXTENT_DATA, end.saturating_sub(1));
        self.visit(volume, (from, to), &mut |key, item| {
            self.budget.check_time()?;
            let extent = Extent::parse(item).ok_or_else(|| item_error(key))?;
            let length = extent.length();
            let (start, last) = (key.offset.max(at), key.offset.saturating_add(length).min(end));
            if last <= start {
                return Ok(ControlFlow::Continue(()));
            }
            let (Ok(hole), Ok(first), Ok(past)) =
                (usize::try_from(at - offset), usize::try_from(start - offset), usize::try_from(last - offset))
            else {
                return Err(item_error(key));
            };
            if let Some(hole) = buffer.get_mut(hole..first) {
                hole.fill(0);
            }
            if let Some(piece) = buffer.get_mut(first..past) {
                self.read_extent(&extent, item, inode, piece, start - key.offset)?;
            }
            at = last;
            Ok(ControlFlow::Continue(()))
        })?;
        if let Some(rest) = usize::try_from(at - offset).ok().and_then(|done| buffer.get_mut(done..)) {
            rest.fill(0);
        }
        Ok(())
    }

    /// Fills `piece` with what lies `within` bytes after the beginning of an extent.
    fn read_extent(&self, extent: &Extent, item: &[u8], inode: &Inode, piece: &mut [u8], within: u64) -> Result<()> {
        if extent.encoding != 0 {
            return Err(Error::unsupported("a btrfs extent that is encrypted or encoded"));
        }
        let has_checksums = inode.flags & WITHOUT_CHECKSUMS == 0;
        match extent.place {
            Place::Inline => {
                let stored = item.get(items::INLINE_AT..).unwrap_or_default();
                if extent.compression == 0 {
                    copy_or_zero(piece, stored, within);
                    return Ok(());
                }
                let decoded = self.decode(extent, stored, 0)?;
                copy_or_zero(piece, &decoded, within);
            }
            Place::Regular { logical, is_preallocated, .. } if logical == 0 || is_preallocated => piece.fill(0),
            Place::Regular { logical, stored_bytes, offset, .. } if extent.compression == 0 => {
                let start = offset.saturating_add(within);
                if start.saturating_add(piece.len() as u64) > stored_bytes {
                    return Err(Error::corrupt("btrfs extent", logical, "a file goes on behind its end"));
                }
                self.read_data(logical.saturating_add(start), piece, has_checksums)?;
            }
            Place::Regular { logical, stored_bytes, offset, .. } => {
                let key = (logical, extent.decoded_bytes);
                let held = self.decoded.lock().unwrap_or_else(PoisonError::into_inner).get(key);
                let decoded = match held {
                    Some(decoded) => decoded,
                    None => {
                        if stored_bytes > COMPRESSED_MAX {
                            return Err(Error::corrupt("btrfs extent", logical, "it is too long for a compressed one"));
                        }
                        let mut stored = self.budget.allocate(stored_bytes)?;
                        self.read_data(logical, &mut stored, has_checksums)?;
                        let decoded: Arc<[u8]> = self.decode(extent, &stored, logical)?.into();
                        self.decoded.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&decoded));
                        decoded
                    }
                };
                // What the stream does not reach are zeros: the file ended there when it was compressed.
                copy_or_zero(piece, &decoded, offset.saturating_add(within));
            }
        }
        Ok(())
    }

    fn decode(&self, extent: &Extent, stored: &[u8], logical: u64) -> Result<Vec<u8>> {
        if extent.decoded_bytes > COMPRESSED_MAX {
            return Err(Error::corrupt("btrfs extent", logical, "it is too long for a compressed one"));
        }
        let mut decoded = self.budget.allocate(extent.decoded_bytes)?;
        let count = compression::decompress(extent.compression, stored, &mut decoded, self.sector_bytes, logical)?;
        decoded.truncate(count);
        Ok(decoded)
    }

    /// The path from the root of its subvolume to directory `number`, ending in a slash unless it is empty.
    fn path_within(&self, volume: &Met, number: u64) -> Result<Vec<u8>> {
        let mut path = Vec::new();
        let mut at = number;
        for _ in 0..DEPTH_MAX {
            if at == volume.directory {
                return Ok(path);
            }
            let mut parent = None;
            let range = (Key::new(at, INODE_REF, 0), Key::new(at, INODE_EXTREF, u64::MAX));
            self.visit(volume, range, &mut |key, item| {
                let names = items::names(key, item).ok_or_else(|| item_error(key))?;
                parent = names.first().map(|(parent, _, name)| (*parent, name.to_vec()));
                Ok(ControlFlow::Break(()))
            })?;
            let (above, mut name) = parent.ok_or_else(|| inode_error(at, "the directory has no name"))?;
            name.push(b'/');
            name.append(&mut path);
            path = name;
            at = above;
        }
        Err(inode_error(number, "its directories lie within one another"))
    }

    /// The path from the top level; `None` where no directory holds the subvolume any more.
    fn path(&self, id: u64) -> Result<Option<Vec<u8>>> {
        let mut path = Vec::new();
        let mut at = id;
        for _ in 0..DEPTH_MAX {
            if at == TOP_LEVEL {
                return Ok(Some(path));
            }
            let mut reference = None;
            let (from, to) = all(at, ROOT_BACKREF);
            self.trees.visit(self.root_tree, from, to, &mut |key, item| {
                let (directory, name) = items::root_reference(item).ok_or_else(|| item_error(key))?;
                reference = Some((key.offset, directory, name.to_vec()));
                Ok(ControlFlow::Break(()))
            })?;
            let Some((parent, directory, name)) = reference else { return Ok(None) };
            let Some(volume) = self.volume(parent)? else { return Ok(None) };
            let mut whole = self.path_within(&volume, directory)?;
            whole.extend(name);
            if !path.is_empty() {
                whole.push(b'/');
                whole.append(&mut path);
            }
            path = whole;
            at = parent;
        }
        Err(Error::corrupt("btrfs root tree", id, "subvolumes lie within one another"))
    }
}

/// Fills `piece` from `bytes` at `offset`, and with zeros where they end.
fn copy_or_zero(piece: &mut [u8], bytes: &[u8], offset: u64) {
    let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
    let count = rest.len().min(piece.len());
    if let Some((to, zeros)) = piece.split_at_mut_checked(count) {
        to.copy_from_slice(rest.get(..count).unwrap_or_default());
        zeros.fill(0);
    }
}

impl Interned {
    fn at(&self, index: u64) -> Option<Arc<Met>> {
        self.by_index.get(usize::try_from(index).ok()?).map(Arc::clone)
    }
}

fn node_id(volume: &Met, inode: u64) -> Result<NodeId> {
    if inode >> INODE_BITS != 0 {
        return Err(Error::unsupported(format!("btrfs inode number {inode}")));
    }
    Ok(NodeId(volume.index << INODE_BITS | inode))
}

/// Takes in the chunk tree, which the chunks of the superblock lead to.
fn read_chunks(trees: &mut Trees, superblock: &Superblock) -> Result<()> {
    let root = Root {
        logical: superblock.chunk_root,
        level: superblock.chunk_root_level,
        generation: superblock.chunk_root_generation,
    };
    let mut chunks = Vec::new();
    let (from, to) = all(CHUNK_OBJECT, CHUNK_ITEM);
    trees.visit(root, from, to, &mut |key, item| {
        chunks.push((key.offset, item.to_vec()));
        Ok(ControlFlow::Continue(()))
    })?;
    chunks.iter().try_for_each(|(logical, item)| trees.volume.insert(*logical, item))
}

impl FileSystem for Btrfs {
    fn info(&self) -> &FileSystemInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        self.root
    }

    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let (volume, number) = self.locate(directory)?;
        if number == EMPTY_DIRECTORY {
            return Ok(None);
        }
        let key = Key::new(number, DIR_ITEM, items::name_hash(name));
        let mut found = None;
        self.visit(&volume, (key, key), &mut |key, item| {
            let entries = items::entries(item).ok_or_else(|| item_error(key))?;
            let entry = entries.iter().find(|entry| entry.name == name);
            found = entry.map(|entry| self.target(&volume, number, entry)).transpose()?;
            Ok(ControlFlow::Break(()))
        })?;
        if found.is_none() {
            self.inode_of(directory, FileType::Directory, "a directory")?;
        }
        Ok(found)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let (volume, number) = self.locate(node)?;
        if number == EMPTY_DIRECTORY {
            let above = self.inode(&volume, volume.directory)?;
            return Ok(Metadata {
                node,
                file_type: FileType::Directory,
                mode: 0o755,
                uid: 0,
                gid: 0,
                size: 0,
                links: 1,
                device: None,
                accessed: None,
                modified: above.created,
                changed: above.created,
                created: None,
            });
        }
        let inode = self.inode(&volume, number)?;
        let file_type = FileType::of_mode(inode.mode)
            .ok_or_else(|| inode_error(number, format!("its mode {:o} names no type", inode.mode)))?;
        let is_device = matches!(file_type, FileType::CharacterDevice | FileType::BlockDevice);
        let device = || {
            let major = u32::try_from(inode.device >> 20 & 0xfff).unwrap_or(0);
            (major, u32::try_from(inode.device & 0xf_ffff).unwrap_or(0))
        };
        Ok(Metadata {
            node,
            file_type,
            mode: u16::try_from(inode.mode & 0o7777).unwrap_or(0),
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            links: inode.links,
            device: is_device.then(device),
            accessed: Some(inode.accessed),
            modified: inode.modified,
            changed: inode.changed,
            // Kernels before 3.19 left it empty.
            created: Some(inode.created).filter(|created| *created != Timestamp::default()),
        })
    }

    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>> {
        if directory.0 & ((1 << INODE_BITS) - 1) == EMPTY_DIRECTORY {
            return Ok(Vec::new());
        }
        let (volume, number, _) = self.inode_of(directory, FileType::Directory, "a directory")?;
        let mut found = Vec::new();
        self.visit(&volume, all(number, DIR_INDEX), &mut |key, item| {
            for entry in items::entries(item).ok_or_else(|| item_error(key))? {
                if entry.name.is_empty() || entry.name.contains(&b'/') || matches!(entry.name, b"." | b"..") {
                    return Err(inode_error(number, "it holds a name that cannot be one"));
                }
                let node = self.target(&volume, number, &entry)?;
                found.push(DirEntry { name: entry.name.to_vec(), node, file_type: entry.file_type() });
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    fn read(&self, node: NodeId, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let (volume, number, inode) = self.inode_of(node, FileType::Regular, "a regular file")?;
        let count = inode.size.saturating_sub(offset).min(buffer.len() as u64);
        let count = usize::try_from(count).unwrap_or(0);
        if let Some(buffer) = buffer.get_mut(..count).filter(|buffer| !buffer.is_empty()) {
            self.read_contents(&volume, number, &inode, buffer, offset)?;
        }
        Ok(count)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let (volume, number, inode) = self.inode_of(node, FileType::Symlink, "a symbolic link")?;
        if inode.size > TARGET_MAX {
            return Err(inode_error(number, "its target is too long"));
        }
        let mut target = self.budget.allocate(inode.size)?;
        if !target.is_empty() {
            self.read_contents(&volume, number, &inode, &mut target, 0)?;
        }
        Ok(target)
    }

    fn extended_attributes(&self, node: NodeId) -> Result<Vec<ExtendedAttribute>> {
        let (volume, number) = self.locate(node)?;
        let mut found = Vec::new();
        self.visit(&volume, all(number, XATTR_ITEM), &mut |key, item| {
            for entry in items::entries(item).ok_or_else(|| item_error(key))? {
                found.push(ExtendedAttribute { name: entry.name.to_vec(), value: entry.data.to_vec() });
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    fn subvolumes(&self) -> Result<Vec<Subvolume>> {
        let mut items = Vec::new();
        let from = Key::new(TOP_LEVEL, ROOT_ITEM, 0);
        let to = Key::new(LAST_SUBVOLUME, ROOT_ITEM, u64::MAX);
        self.trees.visit(self.root_tree, from, to, &mut |key, item| {
            if key.kind == ROOT_ITEM && (key.object == TOP_LEVEL || key.object >= FIRST_SUBVOLUME) {
                items.push((key.object, RootItem::parse(item).ok_or_else(|| item_error(key))?));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut found = Vec::new();
        for (id, item) in items {
            self.budget.check_time()?;
            // One without references has been deleted, and waits to be cleaned up.
            if item.references == 0 {
                continue;
            }
            let (Some(path), Some(volume)) = (self.path(id)?, self.volume(id)?) else { continue };
            found.push(Subvolume {
                id,
                path,
                root: node_id(&volume, volume.directory)?,
                uuid: item.uuid.map(uuid_text),
                parent_uuid: item.parent_uuid.map(uuid_text),
                read_only: item.is_read_only,
            });
        }
        Ok(found)
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        let repaired = self.trees.repaired();
        if repaired > 0 {
            warnings.push(format!("{repaired} blocks were broken or missing in one copy and read from another"));
        }
        warnings
    }
}
