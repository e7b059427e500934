//! One file per on-disk format; above them all stands [`FileSystem`], which knows nodes, and [`crate::guest::Tree`],
//! which knows paths.

mod btrfs;
mod calendar;
mod clusters;
mod exfat;
mod ext;
mod fat;
mod held;
mod iso9660;
mod ntfs;
pub(crate) mod probe;
mod probes;
mod squashfs;
mod utf16;
mod xfs;

use std::fmt;
use std::sync::Arc;

pub use self::probe::{Probe, Usage, probe};

use self::btrfs::Btrfs;
use self::exfat::Exfat;
use self::ext::Ext;
use self::fat::Fat;
use self::iso9660::Iso9660;
use self::ntfs::Ntfs;
use self::squashfs::Squashfs;
use self::xfs::Xfs;
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
    /// A character device: reported, never opened, as all that follow.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl FileType {
    /// The type in the upper four bits of a POSIX mode (`S_IFMT`); `None` where they name none.
    #[must_use]
    pub const fn of_mode(mode: u32) -> Option<Self> {
        Some(match mode & 0o170_000 {
            0o010_000 => Self::Fifo,
            0o020_000 => Self::CharacterDevice,
            0o040_000 => Self::Directory,
            0o060_000 => Self::BlockDevice,
            0o100_000 => Self::Regular,
            0o120_000 => Self::Symlink,
            0o140_000 => Self::Socket,
            _ => return None,
        })
    }

    /// The bits of a POSIX mode that stand for it.
    #[must_use]
    pub const fn mode_bits(self) -> u32 {
        match self {
            Self::Fifo => 0o010_000,
            Self::CharacterDevice => 0o020_000,
            Self::Directory => 0o040_000,
            Self::BlockDevice => 0o060_000,
            Self::Regular => 0o100_000,
            Self::Symlink => 0o120_000,
            Self::Socket => 0o140_000,
        }
    }
}

/// A point of time: seconds since 1970-01-01 UTC, and nanoseconds after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// Nanoseconds after them, below a thousand million.
    pub nanoseconds: u32,
}

/// What `stat` tells of a node. A format without owners gives 0 for both; one without modes what the kernel's mount gives
/// root: 0755 or 0555, by its flags; one without counts of links 1.
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
    /// Major and minor number of a device node.
    pub device: Option<(u32, u32)>,
    /// Last access, where the format keeps it.
    pub accessed: Option<Timestamp>,
    /// Last change of the content.
    pub modified: Timestamp,
    /// Last change of the node.
    pub changed: Timestamp,
    /// Creation, where the format keeps it.
    pub created: Option<Timestamp>,
}

/// An extended attribute, such as `security.selinux`; where the format has named streams, each is one under `user.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtendedAttribute {
    /// Its whole name, with the namespace.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// A subvolume or snapshot of a file system that has several roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subvolume {
    /// Its number; btrfs's top level is 5.
    pub id: u64,
    /// Its path from the top level, without a leading slash; empty for the top level itself.
    pub path: Vec<u8>,
    /// Its root directory.
    pub root: NodeId,
    /// Its UUID, where it has one.
    pub uuid: Option<String>,
    /// UUID of the subvolume that this is a snapshot of.
    pub parent_uuid: Option<String>,
    /// Whether nothing may be written to it.
    pub read_only: bool,
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

    /// The root directory; of several subvolumes, that of the one that is mounted when none is named.
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

    /// The extended attributes of `node`, in on-disk order.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] where they contradict the format.
    fn extended_attributes(&self, node: NodeId) -> Result<Vec<ExtendedAttribute>> {
        let _ = node;
        Ok(Vec::new())
    }

    /// The security descriptor of `node` in the form that Windows keeps ([MS-DTYP], section 2.4.6); `None` where the format
    /// has none.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] where it contradicts the format.
    fn security_descriptor(&self, node: NodeId) -> Result<Option<Vec<u8>>> {
        let _ = node;
        Ok(None)
    }

    /// The subvolumes, the top level first; none where the format has none.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] where they cannot be listed.
    fn subvolumes(&self) -> Result<Vec<Subvolume>> {
        Ok(Vec::new())
    }

    /// What the reader met and could not take in (journal not replayed, checksum differs…), in words.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A shared file system.
pub type SharedFileSystem = Arc<dyn FileSystem>;

/// Kinds of file system that [`mount`] reads, as blkid names them.
pub const MOUNTED: [&str; 10] =
    ["btrfs", "exfat", "ext2", "ext3", "ext4", "iso9660", "ntfs", "squashfs", "vfat", "xfs"];

/// Mounts the file system on `members`, of which the first is the device that was probed, and `probe` what its superblock
/// told. Only a file system that spans several devices looks at more than the first.
///
/// # Errors
/// [`Error::Unsupported`] naming a format or a feature that is not read; [`Error::Corrupt`]; limits and I/O.
pub fn mount(members: &[Source], probe: &Probe, budget: &Arc<Budget>) -> Result<SharedFileSystem> {
    let Some(source) = members.first().map(Arc::clone) else {
        return Err(Error::corrupt("file system", 0, "it has no device"));
    };
    match probe.kind {
        "btrfs" => Ok(Arc::new(Btrfs::open(members, probe, Arc::clone(budget))?)),
        "ext2" | "ext3" | "ext4" => Ok(Arc::new(Ext::open(source, probe, Arc::clone(budget))?)),
        "ntfs" => Ok(Arc::new(Ntfs::open(source, probe, Arc::clone(budget))?)),
        "exfat" => Ok(Arc::new(Exfat::open(source, probe, Arc::clone(budget))?)),
        // A disc that UDF shares with ISO 9660 is read by that side.
        "iso9660" | "udf" => Ok(Arc::new(Iso9660::open(source, probe, Arc::clone(budget))?)),
        "squashfs" => Ok(Arc::new(Squashfs::open(source, probe, Arc::clone(budget))?)),
        "vfat" => Ok(Arc::new(Fat::open(source, probe, Arc::clone(budget))?)),
        "xfs" => Ok(Arc::new(Xfs::open(source, probe, Arc::clone(budget))?)),
        other => Err(Error::unsupported(format!("file system {other}"))),
    }
}
