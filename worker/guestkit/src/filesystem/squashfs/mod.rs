//! squashfs 4.0, little-endian (the kernel's `Documentation/filesystems/squashfs.rst` and `squashfs_fs.h`).
//!
//! A node is an inode's reference: its block in the inode table, shifted by 16 bits, and its byte in that. Directories
//! are sorted, and long ones have an index, so that a lookup unpacks one block of a listing and holds none.

mod codec;
mod inode;
mod metadata;
mod superblock;

use std::sync::Arc;

use self::inode::{Content, Inode};
use self::metadata::{Metadata as Blocks, Reader};
use self::superblock::{SUPERBLOCK_BYTES, Superblock};
use super::held::Held;
use super::{DirEntry, ExtendedAttribute, FileSystem, FileSystemInfo, FileType, Metadata, NodeId, Probe, Timestamp};
use crate::bytes::{le_u16, le_u32, le_u64};
use crate::error::{Error, Limit, Result};
use crate::limits::Budget;
use crate::read_at::{Source, read_up_to};

/// Entries of a directory under one header, and bytes of a name.
const ENTRIES_PER_HEADER_MAX: u32 = 256;
const NAME_BYTES_MAX: usize = 256;
/// A directory's size counts three bytes that are not there, for `.` and `..`.
const SIZE_OF_DOTS: u64 = 3;
/// The bit of a data block's length that says that it is not packed.
const STORED: u32 = 1 << 24;
/// Inodes held, some 150 bytes each.
const INODES_HELD: usize = 8192;
/// Data blocks whose places are held in all, twelve bytes each.
const PLACES_HELD: usize = 1 << 20;
/// Bytes of unpacked data blocks held: two of the largest, and with them a few fragments.
const DATA_BYTES_HELD: usize = 8 << 20;
/// No attribute's value is longer (`XATTR_SIZE_MAX`).
const ATTRIBUTE_BYTES_MAX: u32 = 65536;

/// A mounted squashfs.
#[derive(Debug)]
pub(super) struct Squashfs {
    info: FileSystemInfo,
    warnings: Vec<String>,
    source: Source,
    superblock: Superblock,
    metadata: Blocks,
    owners: Vec<u32>,
    inodes: Held<Inode>,
    places: Held<Vec<Place>>,
    data: Held<Vec<u8>>,
}

/// Where a data block lies, and how long it is there; a length of zero is a block of zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    start: u64,
    length: u32,
}

impl Place {
    const fn is_stored(self) -> bool {
        self.length & STORED != 0
    }

    const fn bytes(self) -> u32 {
        self.length & !STORED
    }
}

/// One name, and the type that its directory tells.
struct Name {
    name: Vec<u8>,
    node: NodeId,
    kind: u16,
}

impl Squashfs {
    /// Mounts the file system on `source`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a superblock or a table of owners that contradicts itself; [`Error::Unsupported`] for another
    /// version or compression; limits, I/O.
    pub(super) fn open(source: Source, probe: &Probe, budget: Arc<Budget>) -> Result<Self> {
        let superblock = Superblock::parse(&read_up_to(&*source, 0, SUPERBLOCK_BYTES)?)?;
        let mut warnings = Vec::new();
        if superblock.bytes_used > source.len() {
            warnings.push(format!("it has {} bytes, and the device {}", superblock.bytes_used, source.len()));
        }
        let metadata = Blocks::new(Arc::clone(&source), superblock.codec, budget);
        let mut owners = Vec::with_capacity(usize::from(superblock.ids));
        for index in 0..u64::from(superblock.ids) {
            let mut reader = metadata.indexed(superblock.id_table, index, 4)?;
            owners.push(u32::from_le_bytes(reader.array()?));
        }
        let info = FileSystemInfo {
            kind: probe.kind,
            label: probe.label.clone(),
            uuid: probe.uuid.clone(),
            size_bytes: superblock.bytes_used,
            free_bytes: 0,
            inodes: Some(u64::from(superblock.inodes)),
            inodes_free: Some(0),
        };
        let squashfs = Self {
            info,
            warnings,
            source,
            superblock,
            metadata,
            owners,
            inodes: Held::new(INODES_HELD),
            places: Held::new(PLACES_HELD),
            data: Held::new(DATA_BYTES_HELD),
        };
        squashfs.directory(squashfs.root())?;
        Ok(squashfs)
    }

    fn inode(&self, node: NodeId) -> Result<Arc<Inode>> {
        if let Some(inode) = self.inodes.get(node.0) {
            return Ok(inode);
        }
        let at = self.superblock.inode_table.saturating_add(node.0 >> 16);
        if at >= self.superblock.directory_table {
            return Err(Error::corrupt("squashfs inode", at, "it lies behind the table of inodes"));
        }
        let offset = usize::try_from(node.0 & 0xffff).unwrap_or(0);
        let inode = Arc::new(Inode::read(&mut self.metadata.reader(at, offset), at)?);
        let weight = if let Content::Symlink(target) = &inode.content { target.len() / 128 } else { 0 };
        self.inodes.insert(node.0, &inode, weight);
        Ok(inode)
    }

    fn owner(&self, index: u16) -> Result<u32> {
        self.owners.get(usize::from(index)).copied().ok_or_else(|| {
            Error::corrupt("squashfs inode", 0, format!("owner {index} is not among {}", self.owners.len()))
        })
    }

    fn directory(&self, node: NodeId) -> Result<Arc<Inode>> {
        let inode = self.inode(node)?;
        if inode.file_type != FileType::Directory {
            return Err(wrong_type(node, "a directory"));
        }
        Ok(inode)
    }

    /// Hands each name of a directory to `take`, until that wants no more. With a `target`, the names before those that
    /// the index says it can be among are left out.
    fn each_name(&self, node: NodeId, target: Option<&[u8]>, take: &mut dyn FnMut(Name) -> Result<bool>) -> Result<()> {
        let inode = self.directory(node)?;
        let Content::Directory { block, offset, index } = &inode.content else { return Ok(()) };
        let mut block = u64::from(*block);
        let mut offset = usize::from(*offset);
        let mut left = inode.size.saturating_sub(SIZE_OF_DOTS);
        if let Some(target) = target
            && let Some((skipped, start)) = self.find_in_index(*index, target)?
        {
            // An index entry tells how many bytes of the listing lie before the block that it names; its first header
            // is at the same byte of that block as all of them would be if the listing began with a block.
            let before = offset as u64 + u64::from(skipped);
            left = left.saturating_sub(u64::from(skipped));
            block = u64::from(start);
            offset = usize::try_from(before % metadata::BLOCK_BYTES as u64).unwrap_or(0);
        }
        let start = self.superblock.directory_table.saturating_add(block);
        let mut reader = self.metadata.reader(start, offset);
        while left > 0 {
            self.metadata.budget().check_time()?;
            let header = reader.array::<12>()?;
            left = left.saturating_sub(12);
            let count = le_u32(&header, 0).map_or(u32::MAX, |count| count.saturating_add(1));
            if count > ENTRIES_PER_HEADER_MAX {
                let reason = format!("{count} entries follow one header");
                return Err(Error::corrupt("squashfs directory", start, reason));
            }
            let block = le_u32(&header, 4).map_or(0, u64::from);
            for _ in 0..count {
                let (name, length) = read_name(&mut reader, block)?;
                left = left
                    .checked_sub(length)
                    .ok_or_else(|| Error::corrupt("squashfs directory", start, "its entries go on behind its end"))?;
                if !take(name)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The last index entry that does not come after `target`: how many bytes of the listing lie before, and its block.
    fn find_in_index(&self, index: ((u64, usize), u16), target: &[u8]) -> Result<Option<(u32, u32)>> {
        let ((at, offset), count) = index;
        let mut reader = self.metadata.reader(at, offset);
        let mut found = None;
        for _ in 0..count {
            let fields = reader.array::<12>()?;
            let length = le_u32(&fields, 8).map_or(u64::MAX, |length| u64::from(length) + 1);
            if length > NAME_BYTES_MAX as u64 {
                return Err(Error::corrupt("squashfs directory index", at, format!("a name has {length} bytes")));
            }
            let name = reader.bytes(length)?;
            if name.as_slice() > target {
                break;
            }
            found = le_u32(&fields, 0).zip(le_u32(&fields, 4));
        }
        Ok(found)
    }

    /// Where the data blocks of a file lie. Their lengths alone are kept, one behind the other.
    fn places(&self, node: NodeId, inode: &Inode) -> Result<Arc<Vec<Place>>> {
        if let Some(places) = self.places.get(node.0) {
            return Ok(places);
        }
        let Content::File { start, fragment, lengths } = &inode.content else {
            return Err(wrong_type(node, "a regular file"));
        };
        let block_bytes = self.superblock.block_bytes as u64;
        let count = match fragment {
            Some(_) => inode.size / block_bytes,
            None => inode.size.div_ceil(block_bytes),
        };
        let bound = self.metadata.budget().limits().allocation_bytes;
        let refused = || Error::LimitReached { which: Limit::Allocation, value: bound };
        let mut places = Vec::new();
        if count.saturating_mul(size_of::<Place>() as u64) > bound {
            return Err(refused());
        }
        let (at, offset) = *lengths;
        let mut reader = self.metadata.reader(at, offset);
        let mut start = *start;
        for _ in 0..count {
            let place = Place { start, length: u32::from_le_bytes(reader.array()?) };
            if u64::from(place.bytes()) > block_bytes {
                let reason = format!("a data block has {} bytes", place.bytes());
                return Err(Error::corrupt("squashfs inode", at, reason));
            }
            start = start.saturating_add(u64::from(place.bytes()));
            if places.len() == places.capacity() {
                self.metadata.budget().check_time()?;
                places.try_reserve(places.len().max(16)).map_err(|_| refused())?;
            }
            places.push(place);
        }
        let places = Arc::new(places);
        self.places.insert(node.0, &places, places.len());
        Ok(places)
    }

    /// Unpacks the block at `place` into the beginning of `buffer`, and gives how many bytes that made.
    fn unpack(&self, place: Place, buffer: &mut [u8]) -> Result<usize> {
        let wrong = |reason: String| Error::corrupt("squashfs data block", place.start, reason);
        let length = place.bytes() as usize;
        if length > self.superblock.block_bytes {
            return Err(wrong(format!("it has {length} bytes")));
        }
        if place.is_stored() {
            let part = buffer.get_mut(..length).ok_or_else(|| wrong(format!("it has {length} bytes")))?;
            self.source.read_exact_at(part, place.start)?;
            return Ok(length);
        }
        let mut packed = vec![0; length];
        self.source.read_exact_at(&mut packed, place.start)?;
        self.superblock.codec.unpack(&packed, buffer).ok_or_else(|| wrong("it does not unpack".into()))
    }

    /// The unpacked block at `place`, held for the next read: of a fragment, which many files share, or of a block that is
    /// read piece by piece.
    fn held(&self, place: Place) -> Result<Arc<Vec<u8>>> {
        if let Some(block) = self.data.get(place.start) {
            return Ok(block);
        }
        let mut block = vec![0; self.superblock.block_bytes];
        let count = self.unpack(place, &mut block)?;
        block.truncate(count);
        let block = Arc::new(block);
        self.data.insert(place.start, &block, block.len());
        Ok(block)
    }

    fn fragment(&self, number: u32) -> Result<Arc<Vec<u8>>> {
        if number >= self.superblock.fragments {
            let reason = format!("fragment {number} is not among {}", self.superblock.fragments);
            return Err(Error::corrupt("squashfs inode", 0, reason));
        }
        let entry = self.metadata.indexed(self.superblock.fragment_table, u64::from(number), 16)?.array::<16>()?;
        let (start, length) = le_u64(&entry, 0).zip(le_u32(&entry, 8)).unwrap_or((0, 0));
        self.held(Place { start, length })
    }

    /// Fills `buffer` with what lies at `offset` of a file, of which so much is there; gives how many bytes it filled,
    /// which are those of one block at least.
    fn read_some(&self, node: NodeId, inode: &Inode, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let places = self.places(node, inode)?;
        let block_bytes = self.superblock.block_bytes as u64;
        let within = usize::try_from(offset % block_bytes).unwrap_or(0);
        let index = usize::try_from(offset / block_bytes).unwrap_or(usize::MAX);
        let whole = usize::try_from((inode.size - offset / block_bytes * block_bytes).min(block_bytes)).unwrap_or(0);
        let count = (whole - within).min(buffer.len());
        let wrong = |at: u64, found: usize| {
            Error::corrupt("squashfs data block", at, format!("it unpacks into {found} bytes of {whole}"))
        };
        let Some(part) = buffer.get_mut(..count) else { return Ok(0) };
        let Some(&place) = places.get(index) else {
            let Content::File { fragment: Some((number, start)), .. } = inode.content else {
                return Err(wrong_type(node, "a regular file"));
            };
            let block = self.fragment(number)?;
            let from = (start as usize).checked_add(within).and_then(|from| block.get(from..)?.get(..count));
            part.copy_from_slice(from.ok_or_else(|| wrong(u64::from(number), block.len()))?);
            return Ok(count);
        };
        if place.bytes() == 0 {
            part.fill(0);
        } else if place.is_stored() {
            return self.read_stored(places.get(index..).unwrap_or_default(), whole, within, buffer);
        } else if count == whole {
            let found = self.unpack(place, part)?;
            if found != whole {
                return Err(wrong(place.start, found));
            }
        } else {
            let block = self.held(place)?;
            let from =
                Some(&block).filter(|block| block.len() == whole).and_then(|block| block.get(within..)?.get(..count));
            part.copy_from_slice(from.ok_or_else(|| wrong(place.start, block.len()))?);
        }
        Ok(count)
    }

    /// Reads on from byte `within` of the first of `places` as far as blocks lie unpacked one behind the other. `whole` is
    /// how many bytes the first one must have.
    fn read_stored(&self, places: &[Place], whole: usize, within: usize, buffer: &mut [u8]) -> Result<usize> {
        let Some(first) = places.first() else { return Ok(0) };
        if first.bytes() as usize != whole {
            let reason = format!("it has {} bytes of {whole}", first.bytes());
            return Err(Error::corrupt("squashfs data block", first.start, reason));
        }
        // Only blocks that are full can be followed by another.
        let is_full = |place: &&Place| place.is_stored() && place.bytes() as usize == self.superblock.block_bytes;
        let full = places.iter().take_while(is_full).count();
        let available = full.max(1).saturating_mul(whole) - within;
        let count = available.min(buffer.len());
        let part = buffer.get_mut(..count).unwrap_or_default();
        self.source.read_exact_at(part, first.start.saturating_add(within as u64))?;
        Ok(count)
    }

    /// The attributes that entry `index` of their table leads to.
    fn attributes(&self, index: u32) -> Result<Vec<ExtendedAttribute>> {
        let wrong = |reason: String| Error::corrupt("squashfs attribute table", 0, reason);
        let Some(at) = self.superblock.attribute_table else {
            return Err(wrong(format!("there is none, and attribute {index} is asked for")));
        };
        let mut head = [0; 16];
        self.source.read_exact_at(&mut head, at)?;
        let (start, total) = le_u64(&head, 0).zip(le_u32(&head, 8)).unwrap_or((0, 0));
        if index >= total {
            return Err(wrong(format!("attribute {index} is not among {total}")));
        }
        let entry = self.metadata.indexed(at.saturating_add(16), u64::from(index), 16)?.array::<16>()?;
        let (place, count) = le_u64(&entry, 0).zip(le_u32(&entry, 8)).unwrap_or((0, 0));
        let reader_at = |place: u64| {
            self.metadata.reader(start.saturating_add(place >> 16), usize::try_from(place & 0xffff).unwrap_or(0))
        };
        let mut reader = reader_at(place);
        let bound = self.metadata.budget().limits().allocation_bytes;
        let (mut attributes, mut weight) = (Vec::new(), 0);
        for _ in 0..count {
            let key = reader.array::<4>()?;
            let (kind, length) = le_u16(&key, 0).zip(le_u16(&key, 2)).unwrap_or((0, 0));
            let mut name = match kind & 0xff {
                0 => b"user.".to_vec(),
                1 => b"trusted.".to_vec(),
                2 => b"security.".to_vec(),
                other => return Err(wrong(format!("an attribute is of kind {other}"))),
            };
            name.extend(reader.bytes(u64::from(length))?);
            let mut value = read_value(&mut reader)?;
            // The value is kept once elsewhere, and here its place.
            if kind & 0x100 != 0 {
                let elsewhere = le_u64(&value, 0).ok_or_else(|| wrong("the place of a value is cut off".into()))?;
                value = read_value(&mut reader_at(elsewhere))?;
            }
            weight += (name.len() + value.len() + size_of::<ExtendedAttribute>()) as u64;
            if weight > bound {
                return Err(Error::LimitReached { which: Limit::Allocation, value: bound });
            }
            attributes.push(ExtendedAttribute { name, value });
        }
        Ok(attributes)
    }
}

fn wrong_type(node: NodeId, expected: &str) -> Error {
    Error::corrupt("squashfs inode", node.0, format!("it is not {expected}"))
}

/// An entry of a directory, and how many bytes it takes; `block` is the one that its header names.
fn read_name(reader: &mut Reader<'_>, block: u64) -> Result<(Name, u64)> {
    let (at, _) = reader.position();
    let fields = reader.array::<8>()?;
    let half = |at: usize| le_u16(&fields, at).unwrap_or(0);
    let length = usize::from(half(6)) + 1;
    if length > NAME_BYTES_MAX {
        return Err(Error::corrupt("squashfs directory", at, format!("a name has {length} bytes")));
    }
    let name = reader.bytes(length as u64)?;
    if name.iter().any(|byte| matches!(byte, b'/' | 0)) || matches!(name.as_slice(), b"." | b"..") {
        return Err(Error::corrupt("squashfs directory", at, "a name is none"));
    }
    let node = NodeId((block << 16) | u64::from(half(0)));
    Ok((Name { name, node, kind: half(4) }, 8 + length as u64))
}

fn read_value(reader: &mut Reader<'_>) -> Result<Vec<u8>> {
    let (at, _) = reader.position();
    let length = u32::from_le_bytes(reader.array()?);
    if length > ATTRIBUTE_BYTES_MAX {
        return Err(Error::corrupt("squashfs attribute", at, format!("its value has {length} bytes")));
    }
    reader.bytes(u64::from(length))
}

/// The type that a directory tells is that of the short form.
const fn file_type(kind: u16) -> Option<FileType> {
    Some(match kind {
        1 => FileType::Directory,
        2 => FileType::Regular,
        3 => FileType::Symlink,
        4 => FileType::BlockDevice,
        5 => FileType::CharacterDevice,
        6 => FileType::Fifo,
        7 => FileType::Socket,
        _ => return None,
    })
}

impl FileSystem for Squashfs {
    fn info(&self) -> &FileSystemInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        NodeId(self.superblock.root)
    }

    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let mut found = None;
        self.each_name(directory, Some(name), &mut |entry| {
            if entry.name == name {
                found = Some(entry.node);
            }
            // Names are sorted, by which the kernel too leaves off.
            Ok(found.is_none() && entry.name.as_slice() <= name)
        })?;
        Ok(found)
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let inode = self.inode(node)?;
        let modified = Timestamp { seconds: i64::from(inode.modified), nanoseconds: 0 };
        Ok(Metadata {
            node,
            file_type: inode.file_type,
            mode: inode.mode,
            uid: self.owner(inode.uid)?,
            gid: self.owner(inode.gid)?,
            size: inode.size,
            links: inode.links,
            device: match inode.content {
                Content::Device { major, minor } => Some((major, minor)),
                _ => None,
            },
            accessed: None,
            modified,
            changed: modified,
            created: None,
        })
    }

    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>> {
        let bound = self.metadata.budget().limits().allocation_bytes;
        let (mut entries, mut weight) = (Vec::new(), 0);
        self.each_name(directory, None, &mut |Name { name, node, kind }| {
            weight += (name.len() + size_of::<DirEntry>()) as u64;
            if weight > bound {
                return Err(Error::LimitReached { which: Limit::Allocation, value: bound });
            }
            entries.push(DirEntry { name, node, file_type: file_type(kind) });
            Ok(true)
        })?;
        Ok(entries)
    }

    fn read(&self, node: NodeId, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let inode = self.inode(node)?;
        if inode.file_type != FileType::Regular {
            return Err(wrong_type(node, "a regular file"));
        }
        let count = usize::try_from(inode.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..count).filter(|rest| !rest.is_empty()) {
            self.metadata.budget().check_time()?;
            match self.read_some(node, &inode, rest, offset.saturating_add(done as u64))? {
                0 => return Err(Error::corrupt("squashfs inode", node.0, "a read leaves the file")),
                more => done += more,
            }
        }
        Ok(done)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        match &self.inode(node)?.content {
            Content::Symlink(target) => Ok(target.clone()),
            _ => Err(wrong_type(node, "a symbolic link")),
        }
    }

    fn extended_attributes(&self, node: NodeId) -> Result<Vec<ExtendedAttribute>> {
        self.inode(node)?.attributes.map_or_else(|| Ok(Vec::new()), |index| self.attributes(index))
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}
