//! ext2, ext3 and ext4, written for Linux's Documentation/filesystems/ext4 and for what the kernel does where that is silent.
//!
//! Reads take no lock but short ones around what is remembered. The journal of an unclean file system is replayed in memory
//! beneath everything else. What contradicts a checksum is refused, structure by structure, as the kernel refuses it; what
//! the kernel goes on without becomes a warning: group descriptors (their copies are asked first where they point
//! nowhere), and transactions that are not whole. A primary superblock that is lost is replaced by its copy, as e2fsck does.

mod directory;
mod inode;
mod journal;
mod mapping;
mod superblock;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::directory::{HeldNames, Listing, Names};
use self::inode::{Attribute, Inode, Value};
use self::journal::Device;
use self::mapping::{Mapper, Run};
use self::superblock::{SUPERBLOCK_AT, SUPERBLOCK_BYTES, Superblock};
use super::{DirEntry, ExtendedAttribute, FileSystem, FileSystemInfo, FileType, Metadata, NodeId, Probe};
use crate::block_cache::Lru;
use crate::error::{Error, Limit, Result};
use crate::limits::Budget;
use crate::read_at::{ReadAt, Source, read_up_to};

/// Bytes of inodes that are read together: what lies near an inode is asked for next, and 64 inodes fill it.
const TABLE_PIECE_BYTES: u64 = 16 << 10;
/// Pieces read at once where one follows another, as in a walk over everything.
const TABLE_PIECES_AHEAD: u64 = 8;
/// Pieces held in each of so many parts, each with a lock of its own: 8 MiB in all.
const TABLE_PIECES_HELD: usize = 64;
const TABLE_PARTS: usize = 8;
/// Groups whose table's place is remembered.
const GROUPS_HELD: usize = 4096;
/// Bytes of a directory that are read together.
const DIRECTORY_PIECE_BYTES: u64 = 256 << 10;
/// Bytes of one directory: some ten million names.
const DIRECTORY_BYTES_MAX: u64 = 512 << 20;
/// The kernel's `XATTR_SIZE_MAX`, and all attribute inodes of one file.
const ATTRIBUTE_BYTES_MAX: u64 = 64 << 10;
const ATTRIBUTES_BYTES_MAX: u64 = 16 << 20;
/// Pieces of a journal; one that mke2fs makes lies in a few.
const JOURNAL_RUNS_MAX: usize = 1 << 20;
/// Warnings that are kept: more of them say nothing new.
const WARNINGS_MAX: usize = 32;

/// Inodes as they lie: a part of one group's table.
type TablePiece = Arc<[u8]>;

/// A mounted ext2, ext3 or ext4 file system.
#[derive(Debug)]
pub(super) struct Ext {
    info: FileSystemInfo,
    superblock: Superblock,
    device: Device,
    budget: Arc<Budget>,
    mapper: Mapper,
    groups: Mutex<Lru<u32, u64>>,
    tables: [Mutex<Lru<(u32, u64), TablePiece>>; TABLE_PARTS],
    /// The piece behind the last that was read, and its group, so that a walk is recognised.
    next_piece: AtomicU64,
    names: Mutex<HeldNames>,
    warnings: Mutex<Vec<String>>,
}

impl Ext {
    /// Opens the file system that fills `source`; `probe` is what its superblock told.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming a feature that is not read; [`Error::Corrupt`]; limits and I/O.
    pub(super) fn open(source: Source, probe: &Probe, budget: Arc<Budget>) -> Result<Self> {
        let bytes = read_up_to(&*source, SUPERBLOCK_AT, SUPERBLOCK_BYTES)?;
        let (superblock, lost) = match Superblock::parse(&bytes, SUPERBLOCK_AT) {
            Ok(superblock) => (superblock, None),
            Err(error @ Error::Corrupt { .. }) => match superblock::find_copy(&*source, &bytes)? {
                Some((copy, at)) => (copy, Some(format!("{error}; its copy at byte {at} is used"))),
                None => return Err(error),
            },
            Err(other) => return Err(other),
        };
        let device = Device::new(source, superblock.block_bytes);
        let is_copy = lost.is_some();
        let mut opened = Self::assemble(device, superblock, probe, budget, lost.into_iter().collect());
        // Only the primary superblock says that its journal is to be replayed; beside a copy the journal itself tells.
        let is_unclean = opened.superblock.has(superblock::RECOVER) || is_copy;
        if is_unclean && opened.superblock.has_compatible(superblock::HAS_JOURNAL) {
            opened = opened.replayed(probe, is_copy)?;
        }
        let size = opened.info.size_bytes;
        let there = opened.device.len();
        if size > there {
            opened.warn(format!("the file system has {size} bytes, and its device only {there}"));
        }
        // The kernel does not mount without it either.
        if opened.inode(ROOT_NODE)?.file_type != FileType::Directory {
            return Err(wrong_type(ROOT_NODE, "a directory"));
        }
        Ok(opened)
    }

    fn assemble(
        device: Device,
        superblock: Superblock,
        probe: &Probe,
        budget: Arc<Budget>,
        warnings: Vec<String>,
    ) -> Self {
        let bytes_of = |blocks: u64| blocks.saturating_mul(superblock.block_bytes);
        let info = FileSystemInfo {
            kind: probe.kind,
            label: probe.label.clone(),
            uuid: probe.uuid.clone(),
            size_bytes: bytes_of(superblock.blocks),
            free_bytes: bytes_of(superblock.blocks_free),
            inodes: Some(u64::from(superblock.inodes)),
            inodes_free: Some(u64::from(superblock.inodes_free)),
        };
        Self {
            info,
            superblock,
            device,
            budget,
            mapper: Mapper::new(),
            groups: Mutex::new(Lru::new(GROUPS_HELD)),
            tables: std::array::from_fn(|_| Mutex::new(Lru::new(TABLE_PIECES_HELD))),
            next_piece: AtomicU64::new(u64::MAX),
            names: Mutex::default(),
            warnings: Mutex::new(warnings),
        }
    }

    /// The same file system above its replayed journal, with nothing remembered of what it was before.
    fn replayed(self, probe: &Probe, is_copy: bool) -> Result<Self> {
        let runs = match self.journal() {
            Ok(runs) => runs,
            Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => {
                self.warn(journal::not_replayed(&error));
                return Ok(self);
            }
            Err(other) => return Err(other),
        };
        let mut warnings = self.warnings();
        let blocks = self.superblock.blocks;
        let (mut device, more) = journal::replay(self.device, &runs, blocks, &self.budget)?;
        warnings.extend(more);
        let mut superblock = self.superblock;
        if !device.is_bare() {
            let bytes = read_up_to(&device, SUPERBLOCK_AT, SUPERBLOCK_BYTES)?;
            match Superblock::parse(&bytes, SUPERBLOCK_AT) {
                Ok(after) if after.block_bytes == superblock.block_bytes => superblock = after,
                _ if is_copy => {}
                _ => {
                    warnings.push(journal::not_replayed(&"the superblock in it is broken"));
                    device = device.bare();
                }
            }
        }
        Ok(Self::assemble(device, superblock, probe, self.budget, warnings))
    }

    /// Where the journal lies; the superblock keeps a copy of its inode for when that is lost.
    fn journal(&self) -> Result<Vec<Run>> {
        let number = self.superblock.journal_inode;
        if number == 0 {
            return Err(Error::unsupported("a journal on another device"));
        }
        let runs = |inode: Inode| {
            if inode.file_type != FileType::Regular {
                return Err(wrong_type(NodeId(u64::from(number)), "a regular file, though the journal"));
            }
            let blocks = inode.size / self.superblock.block_bytes;
            self.runs(&inode, 0..blocks, JOURNAL_RUNS_MAX)
        };
        self.any_inode(number).and_then(runs).or_else(|error| match &self.superblock.journal_copy {
            Some(copy) if matches!(error, Error::Corrupt { .. }) => runs(Inode::of_journal(number, copy)),
            _ => Err(error),
        })
    }

    fn warn(&self, warning: String) {
        let mut warnings = lock(&self.warnings);
        if warnings.len() < WARNINGS_MAX && !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    fn runs(&self, inode: &Inode, wanted: std::ops::Range<u64>, runs_max: usize) -> Result<Vec<Run>> {
        self.mapper.runs(&self.device, &self.superblock, inode, &self.budget, wanted, runs_max)
    }

    /// An inode that a name may point to: none of the file system's own but the root.
    fn inode(&self, node: NodeId) -> Result<Inode> {
        let number = u32::try_from(node.0)
            .ok()
            .filter(|number| *number == inode::ROOT || *number >= self.superblock.first_inode);
        self.any_inode(number.ok_or_else(|| wrong_type(node, "a file's"))?)
    }

    fn any_inode(&self, number: u32) -> Result<Inode> {
        let index = number.checked_sub(1).filter(|_| number <= self.superblock.inodes);
        let index = index.ok_or_else(|| wrong_type(NodeId(u64::from(number)), "one of the file system's inodes"))?;
        let group = index / self.superblock.inodes_per_group;
        let inode_bytes = self.superblock.inode_bytes;
        let offset = u64::from(index % self.superblock.inodes_per_group).saturating_mul(inode_bytes as u64);
        let piece_bytes = TABLE_PIECE_BYTES.max(inode_bytes as u64);
        let piece = self.table_piece(group, offset / piece_bytes, piece_bytes)?;
        let within = usize::try_from(offset % piece_bytes).unwrap_or(usize::MAX);
        let bytes = within.checked_add(inode_bytes).and_then(|end| piece.get(within..end)).unwrap_or_default();
        // The place is only for the message of an error; the table's was found when the piece was read.
        let table = lock(&self.groups).get(group).unwrap_or(0);
        let at = table.saturating_mul(self.superblock.block_bytes).saturating_add(offset);
        Inode::parse(bytes, number, at, &self.superblock)
    }

    /// The `number`th piece of the table of inodes of `group`.
    fn table_piece(&self, group: u32, number: u64, piece_bytes: u64) -> Result<TablePiece> {
        let held = self.table_part(group, number).get((group, number));
        if let Some(piece) = held {
            return Ok(piece);
        }
        let table = self.table(group)?.saturating_mul(self.superblock.block_bytes);
        let table_bytes =
            u64::from(self.superblock.inodes_per_group).saturating_mul(self.superblock.inode_bytes as u64);
        let position = |number: u64| u64::from(group) << 32 | number;
        let is_walk = self.next_piece.load(Ordering::Relaxed) == position(number);
        let wanted = if is_walk { TABLE_PIECES_AHEAD } else { 1 };
        let offset = number.saturating_mul(piece_bytes);
        let rest = table_bytes.saturating_sub(offset);
        let mut length = rest.min(piece_bytes.saturating_mul(wanted));
        if table.saturating_add(offset).saturating_add(length) > self.device.len() {
            // On a device that was cut short, what is there is still read.
            length = rest.min(piece_bytes);
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.device.read_exact_at(&mut bytes, table.saturating_add(offset))?;
        let mut first = None;
        let mut next = number;
        for piece in bytes.chunks(usize::try_from(piece_bytes).unwrap_or(usize::MAX)) {
            let piece: TablePiece = piece.into();
            self.table_part(group, next).insert((group, next), Arc::clone(&piece));
            first = first.or(Some(piece));
            next = next.saturating_add(1);
        }
        self.next_piece.store(position(next), Ordering::Relaxed);
        first.ok_or_else(|| Error::corrupt("ext inode table", table, format!("it has no piece {number}")))
    }

    fn table_part(&self, group: u32, piece: u64) -> MutexGuard<'_, Lru<(u32, u64), TablePiece>> {
        let [first, ..] = &self.tables;
        let part = usize::try_from(u64::from(group).wrapping_add(piece) % TABLE_PARTS as u64).unwrap_or(0);
        lock(self.tables.get(part).unwrap_or(first))
    }

    /// The block where the table of inodes of `group` begins.
    fn table(&self, group: u32) -> Result<u64> {
        let held = lock(&self.groups).get(group);
        if let Some(table) = held {
            return Ok(table);
        }
        let (table, warning) = self.superblock.inode_table(&self.device, group)?;
        if let Some(warning) = warning {
            self.warn(warning);
        }
        lock(&self.groups).insert(group, table);
        Ok(table)
    }

    /// Fills `buffer` from the blocks of `inode` at `offset`, each run of blocks by one read, and zeros between them.
    fn read_mapped(&self, inode: &Inode, buffer: &mut [u8], offset: u64) -> Result<()> {
        let block_bytes = self.superblock.block_bytes;
        let end = offset.saturating_add(buffer.len() as u64);
        let runs = self.runs(inode, offset / block_bytes..end.div_ceil(block_bytes), usize::MAX)?;
        let place = |at: u64| usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut done = 0;
        for run in runs {
            let start = run.logical.saturating_mul(block_bytes);
            let from = start.max(offset);
            let to = start.saturating_add(run.count.saturating_mul(block_bytes)).min(end);
            let physical = run.physical.saturating_mul(block_bytes).saturating_add(from.saturating_sub(start));
            if let Some(hole) = buffer.get_mut(done..place(from)) {
                hole.fill(0);
            }
            if let Some(part) = buffer.get_mut(place(from)..place(to)) {
                self.device.read_exact_at(part, physical)?;
            }
            done = place(to);
        }
        if let Some(hole) = buffer.get_mut(done..) {
            hole.fill(0);
        }
        Ok(())
    }

    /// Inline contents ("Inline Data"): 60 bytes in the block area, the rest in an attribute.
    fn inline_contents(&self, inode: &Inode) -> Result<Vec<u8>> {
        let mut contents = inode.area.to_vec();
        contents.extend(inline_rest(inode)?);
        let size = usize::try_from(inode.size).unwrap_or(usize::MAX);
        if contents.len() < size {
            let reason = format!("{size} bytes are said to be inline, and {} are", contents.len());
            return Err(Error::corrupt("ext4 inline data", u64::from(inode.number), reason));
        }
        contents.truncate(size);
        Ok(contents)
    }

    fn directory(&self, node: NodeId) -> Result<Inode> {
        let inode = self.inode(node)?;
        if inode.file_type != FileType::Directory {
            return Err(wrong_type(node, "a directory"));
        }
        check_content(&inode)?;
        Ok(inode)
    }

    fn list(&self, inode: &Inode) -> Result<Vec<DirEntry>> {
        let superblock = &self.superblock;
        let checksum_seed = superblock.has_checksums().then_some(inode.checksum_seed);
        let is_indexed = inode.has(inode::INDEXED);
        let mut listing =
            Listing::new(superblock.has(superblock::FILE_TYPE), superblock.inodes, checksum_seed, is_indexed);
        if self.is_inline(inode) {
            // The block area begins with the parent's number, and both parts hold entries of their own.
            listing.add_entries(inode.area.get(4..).unwrap_or_default(), u64::from(inode.number))?;
            listing.add_entries(&inline_rest(inode)?, u64::from(inode.number))?;
            return Ok(listing.entries);
        }
        let block_bytes = superblock.block_bytes;
        let blocks_max = DIRECTORY_BYTES_MAX / block_bytes;
        // Holes hold no names: the kernel goes on behind them, too.
        let runs_max = usize::try_from(blocks_max).unwrap_or(usize::MAX);
        let runs = self.runs(inode, 0..inode.size.div_ceil(block_bytes), runs_max)?;
        let blocks = runs.iter().fold(0_u64, |sum, run| sum.saturating_add(run.count));
        if blocks > blocks_max {
            return Err(Error::LimitReached { which: Limit::Allocation, value: DIRECTORY_BYTES_MAX });
        }
        let block_length = usize::try_from(block_bytes).unwrap_or(usize::MAX);
        let mut buffer = Vec::new();
        for run in runs {
            let mut done = 0;
            while done < run.count {
                self.budget.check_time()?;
                let count = run.count.saturating_sub(done).min((DIRECTORY_PIECE_BYTES / block_bytes).max(1));
                buffer.resize(usize::try_from(count.saturating_mul(block_bytes)).unwrap_or(0), 0);
                let start = run.physical.saturating_add(done).saturating_mul(block_bytes);
                self.device.read_exact_at(&mut buffer, start)?;
                for (index, block) in (0_u64..).zip(buffer.chunks_exact(block_length)) {
                    let at = start.saturating_add(index.saturating_mul(block_bytes));
                    listing.add_block(block, at, run.logical.saturating_add(done).saturating_add(index))?;
                }
                done = done.saturating_add(count);
            }
        }
        Ok(listing.entries)
    }

    fn is_inline(&self, inode: &Inode) -> bool {
        inode.has(inode::INLINE) && self.superblock.has(superblock::INLINE_DATA)
    }

    /// The attributes in the block behind `inode`, if there is one.
    fn block_attributes(&self, inode: &Inode) -> Result<Vec<Attribute>> {
        let block = inode.attribute_block;
        if block == 0 {
            return Ok(Vec::new());
        }
        if block <= self.superblock.first_data_block || block >= self.superblock.blocks {
            let reason = format!("inode {} has them at block {block}, outside the file system", inode.number);
            return Err(Error::corrupt("ext extended attributes", 0, reason));
        }
        let mut bytes = vec![0; usize::try_from(self.superblock.block_bytes).unwrap_or(0)];
        self.device.read_exact_at(&mut bytes, block.saturating_mul(self.superblock.block_bytes))?;
        inode::block_attributes(&bytes, block, &self.superblock)
    }

    /// A value that has an inode of its own ("Attribute Values in Inodes"); its hash takes the place of a time of access.
    fn value_in_inode(&self, owner: &Inode, number: u32, size: u64) -> Result<Vec<u8>> {
        let inode = self.any_inode(number)?;
        let corrupt = |reason: &str| {
            Error::corrupt("ext extended attributes", 0, format!("the value in inode {number} {reason}"))
        };
        if !inode.has(inode::ATTRIBUTE_VALUE) || inode.file_type != FileType::Regular || inode.size != size {
            return Err(corrupt("is none of that length"));
        }
        if size > ATTRIBUTE_BYTES_MAX {
            return Err(corrupt("is longer than an attribute can be"));
        }
        let mut value = self.budget.allocate(size)?;
        self.read_mapped(&inode, &mut value, 0)?;
        // Lustre's older form names the owner instead.
        let is_owned =
            inode.modified.seconds & 0xffff_ffff == i64::from(owner.number) && inode.generation == owner.generation;
        let hash = superblock::crc32c(self.superblock.checksum_seed, &value);
        if !is_owned && inode.accessed.seconds & 0xffff_ffff != i64::from(hash) {
            return Err(corrupt("has a wrong hash"));
        }
        Ok(value)
    }
}

const ROOT_NODE: NodeId = NodeId(inode::ROOT as u64);

/// The bytes of the copy of the superblock that stands for a primary that is lost, if there is a sound one.
///
/// # Errors
/// Limits and I/O.
pub(super) fn lost_superblock(device: &dyn ReadAt) -> Result<Option<Vec<u8>>> {
    match superblock::find_copy(device, &[])? {
        Some((_, at)) => read_up_to(device, at, SUPERBLOCK_BYTES).map(Some),
        None => Ok(None),
    }
}

/// A poisoned lock is taken over: what is remembered is plain data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wrong_type(node: NodeId, expected: &str) -> Error {
    Error::corrupt("ext inode", node.0, format!("inode {} is not {expected}", node.0))
}

fn check_content(inode: &Inode) -> Result<()> {
    if inode.has(inode::ENCRYPTED) {
        return Err(Error::Encrypted { what: format!("ext4 inode {}", inode.number) });
    }
    Ok(())
}

fn inline_rest(inode: &Inode) -> Result<Vec<u8>> {
    match inode.attributes()?.into_iter().find(Attribute::is_inline_content).map(|attribute| attribute.value) {
        Some(Value::Here(rest)) => Ok(rest),
        Some(Value::Inode(..)) => {
            let reason = "its second part is said to lie in an inode of its own";
            Err(Error::corrupt("ext4 inline data", u64::from(inode.number), reason))
        }
        None => Ok(Vec::new()),
    }
}

impl FileSystem for Ext {
    fn info(&self) -> &FileSystemInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        ROOT_NODE
    }

    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let number = u32::try_from(directory.0).map_err(|_| wrong_type(directory, "a directory"))?;
        let held = lock(&self.names).get(number);
        let names = match held {
            Some(names) => names,
            None => {
                let names = Arc::new(Names::new(&self.list(&self.directory(directory)?)?));
                lock(&self.names).insert(number, Arc::clone(&names));
                names
            }
        };
        Ok(names.find(name).map(|inode| NodeId(u64::from(inode))))
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let inode = self.inode(node)?;
        Ok(Metadata {
            node,
            file_type: inode.file_type,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            links: u32::from(inode.links),
            device: inode.device(),
            accessed: Some(inode.accessed),
            modified: inode.modified,
            changed: inode.changed,
            created: inode.created,
        })
    }

    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>> {
        self.list(&self.directory(directory)?)
    }

    fn read(&self, node: NodeId, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let inode = self.inode(node)?;
        if inode.file_type != FileType::Regular {
            return Err(wrong_type(node, "a regular file"));
        }
        check_content(&inode)?;
        let count = usize::try_from(inode.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..count).unwrap_or_default();
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.is_inline(&inode) {
            let contents = self.inline_contents(&inode)?;
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            if let Some(part) = start.checked_add(count).and_then(|end| contents.get(start..end)) {
                buffer.copy_from_slice(part);
            }
        } else {
            self.read_mapped(&inode, buffer, offset)?;
        }
        Ok(count)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let inode = self.inode(node)?;
        if inode.file_type != FileType::Symlink {
            return Err(wrong_type(node, "a symbolic link"));
        }
        check_content(&inode)?;
        if self.is_inline(&inode) {
            return self.inline_contents(&inode);
        }
        if let Some(target) = inode.short_target(&self.superblock)? {
            return Ok(target);
        }
        if inode.size == 0 || inode.size > self.superblock.block_bytes {
            return Err(wrong_type(node, &format!("a link: its target has {} bytes", inode.size)));
        }
        let mut target = self.budget.allocate(inode.size)?;
        self.read_mapped(&inode, &mut target, 0)?;
        let end = target.iter().position(|byte| *byte == 0).unwrap_or(target.len());
        target.truncate(end);
        Ok(target)
    }

    /// Values of ACLs are given as `getxattr` gives them. What the kernel lists to nobody is left out: inline contents,
    /// contexts of encryption, and namespaces it does not know.
    fn extended_attributes(&self, node: NodeId) -> Result<Vec<ExtendedAttribute>> {
        let inode = self.inode(node)?;
        let mut stored = inode.attributes()?;
        stored.extend(self.block_attributes(&inode)?);
        let mut total = 0_u64;
        let mut found = Vec::new();
        for attribute in stored {
            let Some(name) = attribute.full_name() else { continue };
            let is_acl = attribute.is_acl();
            let mut value = match attribute.value {
                Value::Here(value) => value,
                Value::Inode(number, size) => {
                    total = total.saturating_add(size);
                    if total > ATTRIBUTES_BYTES_MAX {
                        return Err(Error::LimitReached { which: Limit::Allocation, value: ATTRIBUTES_BYTES_MAX });
                    }
                    self.value_in_inode(&inode, number, size)?
                }
            };
            if is_acl {
                value = inode::shown_acl(&value).ok_or_else(|| {
                    Error::corrupt("ext extended attributes", 0, format!("the ACL of inode {} is broken", inode.number))
                })?;
            }
            found.push(ExtendedAttribute { name, value });
        }
        Ok(found)
    }

    fn warnings(&self) -> Vec<String> {
        lock(&self.warnings).clone()
    }
}
