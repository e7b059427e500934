//! ISO 9660 (ECMA-119) with Rock Ridge (IEEE P1282), Joliet and zisofs.
//!
//! A disc can hold the same files under several trees. As in the kernel, Rock Ridge is taken where the primary tree has
//! it, else Joliet where there is such a tree, else the plain one, whose names are shown in lower case and without their
//! version; an empty primary tree gives way to Joliet. Without Rock Ridge every file belongs to root with mode 0555.
//! Only the first session is read. Of a disc that UDF shares, this reads the side of ISO 9660, and warns.
//! A node is the place of a file's first directory record in bytes from the start of the disc; a directory that Rock
//! Ridge moved away, and the root, are at the record they keep of themselves.

mod record;
mod susp;
mod zisofs;

use std::collections::HashMap;
use std::sync::Arc;

use self::record::Record;
use self::susp::{RockRidge, Skipped};
use self::zisofs::Layout;
use super::held::Held;
use super::{DirEntry, FileSystem, FileSystemInfo, FileType, Metadata, NodeId, Probe, utf16};
use crate::bytes::{be_u32, has, le_u16, le_u32, slice};
use crate::error::{Error, Limit, Result};
use crate::limits::Budget;
use crate::read_at::{Source, read_up_to};

/// Bytes of a volume descriptor, and where the first one lies.
const DESCRIPTOR_BYTES: u64 = 2048;
const DESCRIPTORS_START: u64 = 16 * DESCRIPTOR_BYTES;
/// Real discs have three or four descriptors.
const DESCRIPTORS_MAX: u64 = 64;
/// Where a descriptor keeps the root directory's record.
const ROOT_RECORD: usize = 156;
/// How a supplementary descriptor says that its names are UCS-2 (Joliet Specification, section 3.2).
const JOLIET_ESCAPES: [&[u8]; 3] = [b"%/@", b"%/C", b"%/E"];
/// Extents of one file: 4 GiB each of the 8 TiB that a disc can have.
const EXTENTS_MAX: usize = 2048;
/// The longest directory record.
const RECORD_BYTES_MAX: usize = 255;
/// Entries of listings held in all, some 200 bytes each.
const ENTRIES_HELD: usize = 150_000;
/// Files held by their records, some 300 bytes each.
const FILES_HELD: usize = 8192;
/// Bytes of unpacked zisofs blocks held.
const BLOCK_BYTES_HELD: usize = 2 << 20;

/// A mounted ISO 9660 file system.
#[derive(Debug)]
pub(super) struct Iso9660 {
    info: FileSystemInfo,
    warnings: Vec<String>,
    source: Source,
    budget: Arc<Budget>,
    block_bytes: u64,
    names: Names,
    root: NodeId,
    listings: Held<Listing>,
    files: Held<File>,
    blocks: Held<Vec<u8>>,
}

/// Which names are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Plain,
    Joliet,
    RockRidge(Skipped),
}

/// What a directory holds.
#[derive(Debug, Default)]
struct Listing {
    entries: Vec<DirEntry>,
    by_name: HashMap<Vec<u8>, NodeId>,
}

/// A file by its records.
#[derive(Debug)]
struct File {
    record: Record,
    rock_ridge: RockRidge,
    /// First byte and length of each extent, in order.
    extents: Vec<(u64, u64)>,
    layout: Option<Layout>,
}

impl File {
    /// Bytes of its extents.
    fn stored_bytes(&self) -> u64 {
        self.extents.iter().map(|(_, length)| *length).sum()
    }

    fn size(&self) -> u64 {
        match (&self.layout, &self.rock_ridge.target) {
            (Some(layout), _) => layout.size,
            (None, Some(target)) => target.len() as u64,
            (None, None) => self.stored_bytes(),
        }
    }

    fn file_type(&self) -> FileType {
        let stated = self.rock_ridge.posix.and_then(|posix| FileType::of_mode(posix.mode));
        match (self.record.is_directory(), stated) {
            (true, _) => FileType::Directory,
            // Without the flag there are no records in it.
            (false, None | Some(FileType::Directory)) => FileType::Regular,
            (false, Some(stated)) => stated,
        }
    }
}

/// A primary or supplementary volume descriptor.
#[derive(Debug)]
struct Descriptor {
    at: u64,
    bytes: Vec<u8>,
}

impl Descriptor {
    fn block_bytes(&self) -> Option<u64> {
        le_u16(&self.bytes, 128).map(u64::from).filter(|bytes| matches!(bytes, 512 | 1024 | 2048))
    }

    fn root(&self) -> Option<Record> {
        Record::parse(self.bytes.get(ROOT_RECORD..)?)
    }
}

impl Iso9660 {
    /// Mounts the file system on `source`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for descriptors that contradict themselves; [`Error::Unsupported`] for UDF alone; limits, I/O.
    pub(super) fn open(source: Source, probe: &Probe, budget: Arc<Budget>) -> Result<Self> {
        let (primary, joliet) = find_descriptors(&source)?;
        let Some(primary) = primary else {
            return Err(match probe.kind {
                "iso9660" => {
                    Error::corrupt("ISO 9660 volume descriptors", DESCRIPTORS_START, "there is no primary one")
                }
                other => Error::unsupported(format!("file system {other}")),
            });
        };
        let wrong = |reason: String| Error::corrupt("ISO 9660 volume descriptor", primary.at, reason);
        let block_bytes = primary.block_bytes().ok_or_else(|| wrong("its block size is none".into()))?;
        let blocks = u64::from(le_u32(&primary.bytes, 80).unwrap_or(0));
        let mut warnings = Vec::new();
        if be_u32(&primary.bytes, 84).map(u64::from) != Some(blocks) {
            warnings.push("the two byte orders of its size differ".to_owned());
        }
        if blocks * block_bytes > source.len() {
            warnings.push(format!("it has {} bytes, and the device {}", blocks * block_bytes, source.len()));
        }
        if probe.kind == "udf" {
            warnings.push("the disc holds UDF too, which is not read; the side of ISO 9660 may hold less".to_owned());
        }
        let info = FileSystemInfo {
            kind: probe.kind,
            label: probe.label.clone(),
            uuid: probe.uuid.clone(),
            size_bytes: blocks * block_bytes,
            free_bytes: 0,
            inodes: None,
            inodes_free: None,
        };
        let mut disc = Self {
            info,
            warnings,
            source,
            budget,
            block_bytes,
            names: Names::Plain,
            root: NodeId(0),
            listings: Held::new(ENTRIES_HELD),
            files: Held::new(FILES_HELD),
            blocks: Held::new(BLOCK_BYTES_HELD),
        };
        disc.root = disc.root_of(&primary)?;
        let system_use = disc.record(disc.root)?.system_use;
        let skipped = susp::find(&system_use, &|block, offset, length| disc.continuation(block, offset, length));
        match (skipped, joliet) {
            (Ok(Some(skipped)), joliet) => {
                disc.names = Names::RockRidge(skipped);
                if let Some(joliet) = joliet
                    && disc.list(disc.root)?.entries.is_empty()
                {
                    disc.choose_joliet(&joliet)?;
                }
            }
            (Err(error), _) if error.is_budget_exhausted() => return Err(error),
            (skipped, Some(joliet)) => {
                if let Err(error) = skipped {
                    disc.warnings.push(format!("Rock Ridge cannot be read: {error}"));
                }
                disc.choose_joliet(&joliet)?;
            }
            (Err(error), None) => return Err(error),
            (Ok(None), None) => {}
        }
        Ok(disc)
    }

    fn choose_joliet(&mut self, joliet: &Descriptor) -> Result<()> {
        self.root = self.root_of(joliet)?;
        self.names = Names::Joliet;
        // What was read by other names is not this tree's.
        self.files = Held::new(FILES_HELD);
        Ok(())
    }

    /// The node of the root: the record that the directory keeps of itself.
    fn root_of(&self, descriptor: &Descriptor) -> Result<NodeId> {
        let root = descriptor.root().filter(Record::is_directory);
        let at = root.and_then(|root| root.block.checked_mul(self.block_bytes)).ok_or_else(|| {
            Error::corrupt("ISO 9660 volume descriptor", descriptor.at, "it has no record of a root directory")
        })?;
        let record = self.record(NodeId(at))?;
        if !record.is_directory() || !record.is_self() {
            return Err(Error::corrupt("ISO 9660 directory", at, "the root does not begin with its own record"));
        }
        Ok(NodeId(at))
    }

    fn record(&self, node: NodeId) -> Result<Record> {
        let bytes = read_up_to(&*self.source, node.0, RECORD_BYTES_MAX)?;
        Record::parse(&bytes).ok_or_else(|| Error::corrupt("ISO 9660 directory record", node.0, "it is not whole"))
    }

    fn continuation(&self, block: u32, offset: u32, length: u32) -> Result<Vec<u8>> {
        let at = u64::from(block) * self.block_bytes + u64::from(offset);
        let mut area = self.budget.allocate(u64::from(length))?;
        self.source.read_exact_at(&mut area, at)?;
        Ok(area)
    }

    fn rock_ridge(&self, node: NodeId, record: &Record) -> Result<RockRidge> {
        let Names::RockRidge(skipped) = self.names else { return Ok(RockRidge::default()) };
        let skipped = if node == self.root { skipped.in_root } else { skipped.elsewhere };
        let area = record.system_use.get(skipped..).unwrap_or_default();
        RockRidge::parse(area, &|block, offset, length| self.continuation(block, offset, length))
    }

    fn file(&self, node: NodeId) -> Result<Arc<File>> {
        if let Some(file) = self.files.get(node.0) {
            return Ok(file);
        }
        let record = self.record(node)?;
        let rock_ridge = self.rock_ridge(node, &record)?;
        let extents = self.extents(node, &record)?;
        // What says that it is compressed and does not look so is as it is, as in the kernel.
        let layout = match rock_ridge.compressed.filter(|_| !record.is_directory()) {
            Some(entry) => Some(Layout::new(entry)?),
            None => None,
        };
        let file = Arc::new(File { record, rock_ridge, extents, layout });
        self.files.insert(node.0, &file, file.extents.len());
        Ok(file)
    }

    /// The extents of the file whose first record is `record`; the other records follow it.
    fn extents(&self, node: NodeId, record: &Record) -> Result<Vec<(u64, u64)>> {
        let start = |record: &Record| record.block.saturating_mul(self.block_bytes);
        let mut extents = vec![(start(record), u64::from(record.length))];
        let (mut at, mut last) = (node.0, record.clone());
        while last.is_continued() {
            self.budget.check_time()?;
            at = at.saturating_add(last.record_bytes as u64);
            if read_up_to(&*self.source, at, 1)? == [0] {
                // The rest of a block that no record fits in.
                at = at.next_multiple_of(self.block_bytes);
            }
            last = self.record(NodeId(at))?;
            let wrong = |reason: &str| Error::corrupt("ISO 9660 directory record", at, reason);
            if last.identifier != record.identifier {
                return Err(wrong("a file of several extents ends before its last one"));
            }
            if extents.len() >= EXTENTS_MAX {
                return Err(wrong("a file has more extents than a disc has room for"));
            }
            extents.push((start(&last), u64::from(last.length)));
        }
        Ok(extents)
    }

    fn directory(&self, node: NodeId) -> Result<Arc<File>> {
        let file = self.file(node)?;
        if !file.record.is_directory() {
            return Err(Error::corrupt("ISO 9660 directory record", node.0, "it is not of a directory"));
        }
        Ok(file)
    }

    fn listing(&self, directory: NodeId) -> Result<Arc<Listing>> {
        if let Some(listing) = self.listings.get(directory.0) {
            return Ok(listing);
        }
        let listing = Arc::new(self.list(directory)?);
        self.listings.insert(directory.0, &listing, listing.entries.len());
        Ok(listing)
    }

    fn list(&self, directory: NodeId) -> Result<Listing> {
        let mut listing = Listing::default();
        let bound = self.budget.limits().allocation_bytes;
        let mut weight = 0;
        // Whether the record before is of the same file.
        let mut is_continued = false;
        for (start, length) in &self.directory(directory)?.extents {
            let mut bytes = self.budget.allocate(*length)?;
            self.source.read_exact_at(&mut bytes, *start)?;
            let mut at = 0_usize;
            while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
                if rest.first() == Some(&0) {
                    at = at.saturating_add(1).next_multiple_of(usize::try_from(self.block_bytes).unwrap_or(1));
                    continue;
                }
                let position = start + at as u64;
                let Some(record) = Record::parse(rest) else {
                    return Err(Error::corrupt("ISO 9660 directory record", position, "it is not whole"));
                };
                at += record.record_bytes;
                let is_first = !std::mem::replace(&mut is_continued, record.is_continued());
                if !is_first || record.is_self() || record.is_parent() || record.is_associated() {
                    continue;
                }
                weight += self.add(&record, NodeId(position), &mut listing)?;
                if weight > bound {
                    return Err(Error::LimitReached { which: Limit::Allocation, value: bound });
                }
            }
            self.budget.check_time()?;
        }
        Ok(listing)
    }

    /// Adds the file that `record` begins, and gives about how many bytes that took.
    fn add(&self, record: &Record, node: NodeId, listing: &mut Listing) -> Result<u64> {
        let rock_ridge = self.rock_ridge(node, record)?;
        // It is shown where it was moved from.
        if rock_ridge.is_relocated {
            return Ok(0);
        }
        let name = match self.names {
            Names::Joliet => record.joliet_name(),
            Names::Plain | Names::RockRidge(_) => {
                let given = rock_ridge.name.as_ref().filter(|name| !name.is_empty() && !name.contains(&b'/'));
                given.cloned().unwrap_or_else(|| record.plain_name())
            }
        };
        let (node, file_type) = match rock_ridge.child {
            Some(block) => (NodeId(u64::from(block) * self.block_bytes), FileType::Directory),
            None => {
                let file = File { record: record.clone(), rock_ridge, extents: Vec::new(), layout: None };
                (node, file.file_type())
            }
        };
        let weight = 250 + 2 * name.len() as u64;
        listing.by_name.entry(self.key(&name)).or_insert(node);
        listing.entries.push(DirEntry { name, node, file_type: Some(file_type) });
        Ok(weight)
    }

    /// What makes two names the same: without Rock Ridge case does not matter.
    fn key(&self, name: &[u8]) -> Vec<u8> {
        match self.names {
            Names::RockRidge(_) => name.to_vec(),
            Names::Plain | Names::Joliet => utf16::folded(name),
        }
    }

    /// Fills `buffer` with what lies at `offset` of the stored bytes, one read per extent.
    fn read_stored(&self, file: &File, buffer: &mut [u8], offset: u64) -> Result<()> {
        let (mut done, mut before) = (0, 0_u64);
        for (start, length) in &file.extents {
            let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) else { break };
            let at = offset.saturating_add(done as u64);
            let within = at.saturating_sub(before);
            before = before.saturating_add(*length);
            if within >= *length {
                continue;
            }
            let count = usize::try_from(length - within).unwrap_or(usize::MAX).min(rest.len());
            self.source.read_exact_at(rest.get_mut(..count).unwrap_or_default(), start.saturating_add(within))?;
            done += count;
        }
        if done < buffer.len() {
            return Err(Error::corrupt("ISO 9660 file", offset, "a read leaves its extents"));
        }
        Ok(())
    }

    /// Block `index` of a compressed file.
    fn unpacked(&self, node: NodeId, file: &File, layout: &Layout, index: u64) -> Result<Arc<Vec<u8>>> {
        // Nodes are below 2^43, and a file of 32 bits has at most 2^17 blocks.
        let key = (node.0 << 20) | index;
        if let Some(block) = self.blocks.get(key) {
            return Ok(block);
        }
        let mut pointers = [0; 8];
        self.read_stored(file, &mut pointers, layout.pointers_at(index))?;
        let (start, length) = layout.packed(&pointers)?;
        let mut packed = self.budget.allocate(length)?;
        self.read_stored(file, &mut packed, start)?;
        let length = usize::try_from(layout.block_length(index)).unwrap_or(0);
        let block = Arc::new(zisofs::unpack(&packed, length)?);
        self.blocks.insert(key, &block, block.len());
        Ok(block)
    }

    fn read_compressed(
        &self,
        node: NodeId,
        file: &File,
        layout: &Layout,
        buffer: &mut [u8],
        offset: u64,
    ) -> Result<()> {
        let mut header = [0; zisofs::HEADER_BYTES];
        self.read_stored(file, &mut header, 0)?;
        if !layout.agrees_with(&header) {
            return Err(Error::corrupt("zisofs header", node.0, "it contradicts the directory record"));
        }
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(done as u64);
            let block = self.unpacked(node, file, layout, at / layout.block_bytes)?;
            let within = usize::try_from(at % layout.block_bytes).unwrap_or(usize::MAX);
            let available = block.get(within..).unwrap_or_default();
            let count = available.len().min(rest.len());
            match (rest.get_mut(..count), available.get(..count)) {
                (Some(to), Some(from)) if count > 0 => to.copy_from_slice(from),
                _ => return Err(Error::corrupt("zisofs block", at, "a read leaves the file")),
            }
            done += count;
        }
        Ok(())
    }
}

/// The primary descriptor, and the first one of Joliet.
fn find_descriptors(source: &Source) -> Result<(Option<Descriptor>, Option<Descriptor>)> {
    let (mut primary, mut joliet) = (None, None);
    for index in 0..DESCRIPTORS_MAX {
        let at = DESCRIPTORS_START + index * DESCRIPTOR_BYTES;
        let bytes = read_up_to(&**source, at, usize::try_from(DESCRIPTOR_BYTES).unwrap_or(0))?;
        if !has(&bytes, 1, b"CD001") {
            break;
        }
        let is_joliet = slice(&bytes, 88, 3).is_some_and(|escape| JOLIET_ESCAPES.contains(&escape));
        match bytes.first() {
            Some(1) if primary.is_none() => primary = Some(Descriptor { at, bytes }),
            Some(2) if is_joliet && joliet.is_none() => joliet = Some(Descriptor { at, bytes }),
            Some(255) => break,
            _ => {}
        }
    }
    Ok((primary, joliet))
}

impl FileSystem for Iso9660 {
    fn info(&self) -> &FileSystemInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        self.root
    }

    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        Ok(self.listing(directory)?.by_name.get(&self.key(name)).copied())
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let file = self.file(node)?;
        let rock_ridge = &file.rock_ridge;
        let posix = rock_ridge.posix;
        let file_type = file.file_type();
        let modified = rock_ridge.modified.unwrap_or(file.record.recorded);
        let is_device = matches!(file_type, FileType::CharacterDevice | FileType::BlockDevice);
        Ok(Metadata {
            node,
            file_type,
            mode: posix.map_or(0o555, |posix| u16::try_from(posix.mode & 0o7777).unwrap_or(0)),
            uid: posix.map_or(0, |posix| posix.uid),
            gid: posix.map_or(0, |posix| posix.gid),
            size: file.size(),
            links: posix.map_or(1, |posix| posix.links),
            device: rock_ridge.device.filter(|_| is_device),
            accessed: rock_ridge.accessed,
            modified,
            changed: rock_ridge.changed.unwrap_or(modified),
            created: rock_ridge.created,
        })
    }

    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>> {
        Ok(self.listing(directory)?.entries.clone())
    }

    fn read(&self, node: NodeId, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let file = self.file(node)?;
        if file.file_type() != FileType::Regular {
            return Err(Error::corrupt("ISO 9660 directory record", node.0, "it is not of a regular file"));
        }
        if file.record.is_interleaved {
            return Err(Error::unsupported("an interleaved file of ISO 9660"));
        }
        let count = usize::try_from(file.size().saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..count).unwrap_or_default();
        match &file.layout {
            _ if count == 0 => {}
            Some(layout) => self.read_compressed(node, &file, layout, part, offset)?,
            None => self.read_stored(&file, part, offset)?,
        }
        Ok(count)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let file = self.file(node)?;
        match &file.rock_ridge.target {
            Some(target) if file.file_type() == FileType::Symlink => Ok(target.clone()),
            _ => Err(Error::corrupt("ISO 9660 directory record", node.0, "it is not of a symbolic link")),
        }
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}
