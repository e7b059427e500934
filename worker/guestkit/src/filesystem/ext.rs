//! ext2, ext3 and ext4, read by the `ferrosys` crate behind our own trait, budget and errors.
//!
//! The journal of an unclean file system is replayed in memory when it is opened. Whatever a third-party reader does on
//! hostile bytes ends here: a panic becomes [`Error::Corrupt`], a failed read keeps the typed error it began as.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use ferrosys::ext::ondisk::{FileType as ExtFileType, Inode};
use ferrosys::ext::{Limits as ExtLimits, OpenOptions, ReadError, ReadPolicy, Reader};

use super::{DirEntry, FileSystem, FileSystemInfo, FileType, Metadata, NodeId, Probe, Timestamp};
use crate::block_cache::Lru;
use crate::bytes::{le_u16, le_u32};
use crate::error::{Error, Limit, Result};
use crate::limits::Budget;
use crate::read_at::{Cursor, ReadAt, Source, read_up_to};

/// The root directory's inode (`EXT4_ROOT_INO`).
const ROOT_INODE: u64 = 2;
/// Names of one directory: `dir_nlink` file systems hold more only where mail or caches went astray.
const DIRECTORY_ENTRIES_MAX: usize = 2_000_000;
/// Directories whose names are held, so that looking up one path after another reads each once.
const DIRECTORIES_HELD: usize = 64;
/// Inodes held: those of the directories on the way and of the files just opened.
const INODES_HELD: usize = 1024;

/// Incompatible features that the reader refuses as a whole and that concern single inodes, or only lookups by hash and
/// writers: mmp, ea_inode, large_dir, inline_data, encrypt, casefold. Names are found by reading directories whole, inline
/// inodes are read here, and encrypted ones are refused one by one.
const HANDLED_PER_INODE: u32 = 0x0100 | 0x0400 | 0x4000 | 0x8000 | 0x1_0000 | 0x2_0000;
/// `EXT4_ENCRYPT_FL`: names or contents are encrypted.
const ENCRYPTED: u32 = 0x0800;
/// `EXT4_INLINE_DATA_FL`: contents lie in the inode itself.
const INLINE_DATA: u32 = 0x1000_0000;
/// `EXT4_FEATURE_RO_COMPAT_BIGALLOC`, and where the superblock keeps the word.
const BIGALLOC: (u64, u32) = (1024 + 0x64, 0x0200);

type Names = Arc<HashMap<Vec<u8>, u64>>;

/// A mounted ext2, ext3 or ext4 file system.
pub(super) struct Ext {
    info: FileSystemInfo,
    warnings: Vec<String>,
    reader: Mutex<Shared>,
    budget: Arc<Budget>,
}

struct Shared {
    reader: Reader<Remembering>,
    failure: Arc<Mutex<Option<Error>>>,
    directories: Lru<u64, Names>,
    inodes: Lru<u64, Arc<Inode>>,
}

impl fmt::Debug for Ext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ext").field("info", &self.info).finish_non_exhaustive()
    }
}

/// A cursor that keeps the typed error of a failed read, which the reader above turns into text.
#[derive(Debug)]
struct Remembering {
    cursor: Cursor,
    failure: Arc<Mutex<Option<Error>>>,
}

impl Remembering {
    fn keep(&self, error: io::Error) -> io::Error {
        let kind = error.kind();
        if let Some(typed) = error.into_inner().and_then(|inner| inner.downcast::<Error>().ok()) {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(*typed);
        }
        kind.into()
    }
}

impl Read for Remembering {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cursor.read(buffer).map_err(|error| self.keep(error))
    }
}

impl Seek for Remembering {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.cursor.seek(to)
    }
}

impl Ext {
    /// Opens the file system that fills `source`; `probe` is what its superblock told.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming a feature that is not read; [`Error::Corrupt`]; limits and I/O.
    pub(super) fn open(source: Source, probe: &Probe, budget: Arc<Budget>) -> Result<Self> {
        let failure = Arc::new(Mutex::new(None));
        let open = |policy| {
            let cursor = Cursor::new(Arc::clone(&source));
            let limits = ExtLimits::new()
                .max_walk_entries(DIRECTORY_ENTRIES_MAX)
                .max_file_bytes(budget.limits().allocation_bytes);
            let options = OpenOptions::new().policy(policy).limits(limits);
            let source = Remembering { cursor, failure: Arc::clone(&failure) };
            guarded(&failure, || Reader::open_with(source, &options))
        };
        let mut warnings = Vec::new();
        let reader = match open(ReadPolicy::Strict) {
            Ok(reader) => reader,
            Err(Failed::Reader(ReadError::UnsupportedIncompat { bits, .. })) if bits & !HANDLED_PER_INODE == 0 => {
                open(ReadPolicy::Lenient).map_err(Failed::into_error)?
            }
            Err(Failed::Reader(
                error @ (ReadError::JournalMalformed { .. } | ReadError::JournalCopyChecksum { .. }),
            )) => {
                warnings.push(format!("the journal could not be replayed, so recent changes may be missing: {error}"));
                open(ReadPolicy::Lenient).map_err(Failed::into_error)?
            }
            Err(Failed::Reader(ReadError::Parse(_))) if has_bigalloc(&*source)? => {
                return Err(Error::unsupported("ext4 feature bigalloc"));
            }
            Err(other) => return Err(other.into_error()),
        };
        if let Some(replay) = reader.journal_replay().filter(|replay| replay.skipped > 0) {
            warnings.push(format!("{} blocks of the journal were skipped: their checksum is wrong", replay.skipped));
        }
        let info = info(&reader, probe);
        let shared = Shared { reader, failure, directories: Lru::new(DIRECTORIES_HELD), inodes: Lru::new(INODES_HELD) };
        Ok(Self { info, warnings, reader: Mutex::new(shared), budget })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Shared) -> std::result::Result<T, Failed>) -> Result<T> {
        // A poisoned lock is taken over: the reader's own state is plain data, and a panic in it was already answered.
        let mut shared = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut shared).map_err(Failed::into_error)
    }

    fn check_directory(&self, inode: &Inode, node: NodeId) -> std::result::Result<(), Failed> {
        if file_type(inode.mode) != Some(FileType::Directory) {
            return Err(wrong_type(node, "a directory"));
        }
        // The reader lists the blocks of a directory before it reads them.
        let bound = self.budget.limits().allocation_bytes;
        if inode.size > bound {
            return Err(Failed::Ours(Error::LimitReached { which: Limit::Allocation, value: bound }));
        }
        check_content(inode, node)
    }
}

fn has_bigalloc(source: &dyn ReadAt) -> Result<bool> {
    let (at, bit) = BIGALLOC;
    Ok(le_u32(&read_up_to(source, at, 4)?, 0).is_some_and(|features| features & bit != 0))
}

fn check_content(inode: &Inode, node: NodeId) -> std::result::Result<(), Failed> {
    if inode.flags.bits() & ENCRYPTED != 0 {
        return Err(Failed::Ours(Error::Encrypted { what: format!("ext4 inode {}", node.0) }));
    }
    Ok(())
}

fn is_inline(inode: &Inode) -> bool {
    inode.flags.bits() & INLINE_DATA != 0
}

/// Directory entries (`ext4_dir_entry_2`) in a piece of an inode; a broken length ends the piece.
fn inline_entries(piece: &[u8]) -> Vec<DirEntry> {
    let mut entries = Vec::new();
    let mut rest = piece;
    while let (Some(node), Some(length), Some(&name_length), Some(&kind)) =
        (le_u32(rest, 0), le_u16(rest, 4), rest.get(6), rest.get(7))
    {
        let name = rest.get(8..8 + usize::from(name_length)).unwrap_or_default();
        if node != 0 && !name.is_empty() && !name.contains(&b'/') {
            let file_type = match kind {
                1 => Some(FileType::Regular),
                2 => Some(FileType::Directory),
                3 => Some(FileType::CharacterDevice),
                4 => Some(FileType::BlockDevice),
                5 => Some(FileType::Fifo),
                6 => Some(FileType::Socket),
                7 => Some(FileType::Symlink),
                _ => None,
            };
            entries.push(DirEntry { name: name.to_vec(), node: NodeId(u64::from(node)), file_type });
        }
        match rest.get(usize::from(length.max(8))..) {
            Some(next) if length >= 8 => rest = next,
            _ => break,
        }
    }
    entries
}

fn wrong_type(node: NodeId, expected: &str) -> Failed {
    Failed::Ours(Error::corrupt("ext inode", node.0, format!("inode {} is not {expected}", node.0)))
}

impl Shared {
    fn call<T>(
        &mut self,
        work: impl FnOnce(&mut Reader<Remembering>) -> std::result::Result<T, ReadError>,
    ) -> std::result::Result<T, Failed> {
        let Self { reader, failure, .. } = self;
        guarded(failure, || work(reader))
    }

    fn inode(&mut self, number: u64) -> std::result::Result<Arc<Inode>, Failed> {
        if let Some(inode) = self.inodes.get(number) {
            return Ok(inode);
        }
        let narrow = u32::try_from(number).map_err(|_| wrong_type(NodeId(number), "an inode of this file system"))?;
        let inode = Arc::new(self.call(|reader| reader.inode(narrow))?);
        self.inodes.insert(number, Arc::clone(&inode));
        Ok(inode)
    }

    fn entries(&mut self, inode: &Inode) -> std::result::Result<Vec<DirEntry>, Failed> {
        if is_inline(inode) {
            // The block area begins with the parent's number, and both parts hold entries of their own.
            let mut entries = inline_entries(inode.block.get(4..).unwrap_or_default());
            entries.extend(inline_entries(&self.inline_rest(inode)?));
            return Ok(entries);
        }
        let found = self.call(|reader| reader.read_dir(inode))?;
        let entry = |entry: ferrosys::ext::Entry| DirEntry {
            name: entry.name,
            node: NodeId(u64::from(entry.inode)),
            file_type: match entry.file_type {
                ExtFileType::Unknown => None,
                ExtFileType::RegFile => Some(FileType::Regular),
                ExtFileType::Dir => Some(FileType::Directory),
                ExtFileType::Symlink => Some(FileType::Symlink),
                ExtFileType::CharDev => Some(FileType::CharacterDevice),
                ExtFileType::BlockDev => Some(FileType::BlockDevice),
                ExtFileType::Fifo => Some(FileType::Fifo),
                ExtFileType::Socket => Some(FileType::Socket),
            },
        };
        Ok(found.into_iter().map(entry).collect())
    }

    /// Inline contents ("ext4 Data Structures", inline data): 60 bytes in the block area, the rest in an attribute.
    fn inline_contents(&mut self, inode: &Inode) -> std::result::Result<Vec<u8>, Failed> {
        let mut contents = inode.block.to_vec();
        contents.extend(self.inline_rest(inode)?);
        let size = usize::try_from(inode.size).unwrap_or(usize::MAX);
        if contents.len() < size {
            let reason = format!("{size} bytes are said to be inline, and {} are", contents.len());
            return Err(Failed::Ours(Error::corrupt("ext4 inline data", 0, reason)));
        }
        contents.truncate(size);
        Ok(contents)
    }

    fn inline_rest(&mut self, inode: &Inode) -> std::result::Result<Vec<u8>, Failed> {
        let attributes = self.call(|reader| reader.xattrs(inode))?;
        let rest = attributes.into_iter().find(|attribute| attribute.name == b"system.data");
        Ok(rest.map(|attribute| attribute.value).unwrap_or_default())
    }
}

impl FileSystem for Ext {
    fn info(&self) -> &FileSystemInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        NodeId(ROOT_INODE)
    }

    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        self.with(|shared| {
            if let Some(names) = shared.directories.get(directory.0) {
                return Ok(names.get(name).copied().map(NodeId));
            }
            let inode = shared.inode(directory.0)?;
            self.check_directory(&inode, directory)?;
            let entries = shared.entries(&inode)?;
            let names: Names = Arc::new(entries.into_iter().map(|entry| (entry.name, entry.node.0)).collect());
            let found = names.get(name).copied().map(NodeId);
            shared.directories.insert(directory.0, names);
            Ok(found)
        })
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        self.with(|shared| {
            let inode = shared.inode(node.0)?;
            let known = shared.reader.metadata(&inode);
            let file_type = file_type(inode.mode).ok_or_else(|| wrong_type(node, "in use"))?;
            Ok(Metadata {
                node,
                file_type,
                mode: known.mode,
                uid: known.uid,
                gid: known.gid,
                size: inode.size,
                links: u32::from(inode.links_count),
                device: None,
                accessed: Some(timestamp(known.atime)),
                modified: timestamp(known.mtime),
                changed: timestamp(known.ctime),
                created: known.btime.map(timestamp),
            })
        })
    }

    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>> {
        let mut entries = self.with(|shared| {
            let inode = shared.inode(directory.0)?;
            self.check_directory(&inode, directory)?;
            shared.entries(&inode)
        })?;
        entries.retain(|entry| !matches!(entry.name.as_slice(), b"." | b".."));
        Ok(entries)
    }

    fn read(&self, node: NodeId, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.with(|shared| {
            let inode = shared.inode(node.0)?;
            if file_type(inode.mode) != Some(FileType::Regular) {
                return Err(wrong_type(node, "a regular file"));
            }
            check_content(&inode, node)?;
            if is_inline(&inode) {
                let contents = shared.inline_contents(&inode)?;
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = contents.get(start..).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
                    to.copy_from_slice(from);
                }
                return Ok(count);
            }
            shared.call(|reader| reader.read_into(&inode, offset, buffer))
        })
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        self.with(|shared| {
            let inode = shared.inode(node.0)?;
            if file_type(inode.mode) != Some(FileType::Symlink) {
                return Err(wrong_type(node, "a symbolic link"));
            }
            check_content(&inode, node)?;
            if is_inline(&inode) {
                return shared.inline_contents(&inode);
            }
            shared.call(|reader| reader.read_symlink(&inode))
        })
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}

/// The type of a file; `None` for an inode that no file has.
fn file_type(mode: u16) -> Option<FileType> {
    FileType::of_mode(u32::from(mode))
}

const fn timestamp(time: ferrosys::ext::Timestamp) -> Timestamp {
    Timestamp { seconds: time.secs, nanoseconds: time.nanos }
}

fn info(reader: &Reader<Remembering>, probe: &Probe) -> FileSystemInfo {
    let superblock = reader.superblock();
    // The reader holds log_block_size to 0..=6.
    let block_bytes = 1024_u64 << superblock.log_block_size.min(6);
    FileSystemInfo {
        kind: probe.kind,
        label: probe.label.clone(),
        uuid: probe.uuid.clone(),
        size_bytes: superblock.blocks_count.saturating_mul(block_bytes),
        free_bytes: superblock.free_blocks_count.saturating_mul(block_bytes),
        inodes: Some(u64::from(superblock.inodes_count)),
        inodes_free: Some(u64::from(superblock.free_inodes_count)),
    }
}

/// Why a call of the borrowed reader failed.
#[derive(Debug)]
enum Failed {
    /// A read below it failed, or it panicked, or we refused to ask.
    Ours(Error),
    /// It contradicts what it read.
    Reader(ReadError),
}

impl Failed {
    fn into_error(self) -> Error {
        let error = match self {
            Self::Ours(error) => return error,
            Self::Reader(error) => error,
        };
        let structure = "ext file system";
        match &error {
            ReadError::UnsupportedIncompat { bits, .. } => Error::unsupported(describe_features(*bits)),
            ReadError::JournalUnsupported { feature, .. } => Error::unsupported(format!("ext journal {feature}")),
            ReadError::FileTooLarge { limit, .. } => Error::LimitReached { which: Limit::Allocation, value: *limit },
            ReadError::WalkTooLarge { limit, .. } => {
                Error::LimitReached { which: Limit::Entries, value: *limit as u64 }
            }
            ReadError::OutOfRange { what, index, .. } => {
                Error::corrupt(structure, 0, format!("a reference to {what} {index} leaves it"))
            }
            other => Error::corrupt(structure, 0, other.to_string()),
        }
    }
}

fn guarded<T>(
    failure: &Mutex<Option<Error>>,
    work: impl FnOnce() -> std::result::Result<T, ReadError>,
) -> std::result::Result<T, Failed> {
    let outcome = catch_unwind(AssertUnwindSafe(work));
    let below = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (outcome, below) {
        (Ok(Ok(value)), _) => Ok(value),
        (Ok(Err(ReadError::Io { .. })), Some(error)) => Err(Failed::Ours(error)),
        (Ok(Err(error)), _) => Err(Failed::Reader(error)),
        (Err(_), _) => Err(Failed::Ours(Error::corrupt("ext file system", 0, "it makes its reader panic"))),
    }
}

fn describe_features(bits: u32) -> String {
    let names: Vec<String> = (0..32)
        .map(|bit| 1 << bit)
        .filter(|bit| bits & bit != 0)
        .map(|bit| incompatible_name(bit).map_or_else(|| format!("{bit:#x}"), str::to_owned))
        .collect();
    format!("ext4 feature {}", names.join(", "))
}

/// The kernel's `EXT4_FEATURE_INCOMPAT_*`, named as `dumpe2fs` does.
const fn incompatible_name(bit: u32) -> Option<&'static str> {
    Some(match bit {
        0x0001 => "compression",
        0x0008 => "journal_dev",
        0x0100 => "mmp",
        0x0400 => "ea_inode",
        0x1000 => "dirdata",
        0x4000 => "large_dir",
        0x8000 => "inline_data",
        0x1_0000 => "encrypt",
        0x2_0000 => "casefold",
        _ => return None,
    })
}
