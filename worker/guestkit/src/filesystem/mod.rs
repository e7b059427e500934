//! One file per on-disk format; above them all stands [`FileSystem`], which knows nodes, and [`crate::guest::Tree`],
//! which knows paths.

mod ext;
pub(crate) mod probe;
mod probes;

use std::fmt;
use std::sync::Arc;

pub use self::probe::{Probe, Usage, probe};

use self::ext::Ext;
use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::read_at::Source;

/// A file of one file system: the inode number, or whatever the format identifies a file by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// What kind of file a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device node, FIFO or socket: reported, never opened.
    Special,
}

/// What `stat` tells of a node. Times are seconds since 1970-01-01 UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The node.
    pub node: NodeId,
    /// Its type.
    pub file_type: FileType,
    /// Permission bits with set-uid, set-gid and sticky (octal 07777).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content.
    pub size: u64,
    /// Names that point here.
    pub links: u32,
    /// Last change of the content.
    pub modified: i64,
    /// Last change of the node.
    pub changed: i64,
    /// Creation, where the format keeps it.
    pub created: Option<i64>,
}

/// One name in a directory; names are bytes, not text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without separators, never `.` or `..`.
    pub name: Vec<u8>,
    /// The node it names.
    pub node: NodeId,
    /// Its type, where the directory tells.
    pub file_type: Option<FileType>,
}

/// What the superblock tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystemInfo {
    /// The type as blkid names it: `ext4`, `xfs`, `swap`…
    pub kind: &'static str,
    /// Volume label.
    pub label: Option<String>,
    /// UUID in the form blkid prints.
    pub uuid: Option<String>,
    /// Bytes of the whole file system.
    pub size_bytes: u64,
    /// Bytes not in use.
    pub free_bytes: u64,
    /// Inodes in all, where the format has a fixed number.
    pub inodes: Option<u64>,
    /// Inodes not in use.
    pub inodes_free: Option<u64>,
}

/// A mounted file system: read only, usable from any thread.
pub trait FileSystem: fmt::Debug + Send + Sync {
    /// What the superblock tells.
    fn info(&self) -> &FileSystemInfo;

    /// The root directory.
    fn root(&self) -> NodeId;

    /// The node called `name` in `directory`, or `None`.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] where `directory` is not a directory or cannot be read; limits and I/O as everywhere.
    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>>;

    /// Metadata of `node`.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] where the node does not exist or contradicts the format.
    fn metadata(&self, node: NodeId) -> Result<Metadata>;

    /// All entries of `directory`, in on-disk order. The caller charges them to its budget.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] where `directory` is not a directory or cannot be read.
    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>>;

    /// Reads at most `buffer.len()` bytes of a regular file at `offset`; fewer only at its end.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] where the node is not a regular file or its mapping contradicts the format.
    fn read(&self, node: NodeId, buffer: &mut [u8], offset: u64) -> Result<usize>;

    /// The target of a symbolic link, as stored.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] where the node is not a symbolic link.
    fn read_link(&self, node: NodeId) -> Result<Vec<u8>>;

    /// What the reader met and could not take in (journal not replayed, checksum differs…), in words.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A shared file system.
pub type SharedFileSystem = Arc<dyn FileSystem>;

/// Kinds of file system that [`mount`] reads, as blkid names them.
pub const MOUNTED: [&str; 3] = ["ext2", "ext3", "ext4"];

/// Mounts the file system that fills `source`; `probe` is what its superblock told.
///
/// # Errors
/// [`Error::Unsupported`] naming a format or a feature that is not read; [`Error::Corrupt`]; limits and I/O.
pub fn mount(source: Source, probe: &Probe, budget: &Arc<Budget>) -> Result<SharedFileSystem> {
    match probe.kind {
        kind if MOUNTED.contains(&kind) => Ok(Arc::new(Ext::open(source, probe, Arc::clone(budget))?)),
        other => Err(Error::unsupported(format!("file system {other}"))),
    }
}
