//! Why a disk could not be read: answers that are never confused, because each asks something else of the user.

use std::fmt;
use std::path::PathBuf;

/// What went wrong below the door.
///
/// `Corrupt` asks for a better copy, `Unsupported` for a newer engine, `LimitReached` for a larger limit,
/// `Encrypted` for a key, and `Io` for a look at the machine the engine runs on. `NotFound`, `AccessDenied`,
/// `NotAnImage` and `FormatMismatch` say that what was asked for cannot be opened as asked, whatever it holds.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A structure contradicts its specification.
    #[error("{structure} at byte {offset} is corrupt: {reason}")]
    Corrupt {
        /// The structure as its specification names it, such as `qcow2 header` or `ext4 group descriptor`.
        structure: &'static str,
        /// Where it lies, in bytes from the start of the layer that holds it.
        offset: u64,
        /// What contradicts the specification.
        reason: String,
    },
    /// A structure is sound but nothing here reads it yet.
    #[error("{what} is not supported")]
    Unsupported {
        /// What was met, by the name its users know, such as `image format vmdk` or `ext4 feature casefold`.
        what: String,
    },
    /// A bound of [`crate::Limits`] was met; the answer would not have been whole.
    #[error("limit reached: {which} is {value}")]
    LimitReached {
        /// Which bound.
        which: Limit,
        /// The value that was in force.
        value: u64,
    },
    /// The bytes are encrypted and no key was given.
    #[error("{what} is encrypted")]
    Encrypted {
        /// What is encrypted, such as `qcow2 image (LUKS)`.
        what: String,
    },
    /// No file lies where an image was said to be.
    #[error("{} does not exist", .path.display())]
    NotFound {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// The policy of the caller, or the host's permissions, forbid to open a file.
    #[error("access to {} is denied: {reason}", .path.display())]
    AccessDenied {
        /// The path that was asked for.
        path: PathBuf,
        /// Which rule forbids it.
        reason: String,
    },
    /// The path names something that cannot be a disk image: a directory, a FIFO, a device, an empty file.
    #[error("{} is not a disk image: it is {found}", .path.display())]
    NotAnImage {
        /// The path that was asked for.
        path: PathBuf,
        /// What lies there, with its article, such as `a directory`.
        found: &'static str,
    },
    /// The format that was stated and the file's own header disagree.
    #[error("{} was stated to be {stated}, but its contents are {found}", .path.display())]
    FormatMismatch {
        /// The file.
        path: PathBuf,
        /// The format that was stated, and by whom.
        stated: String,
        /// The format its header shows.
        found: String,
    },
    /// The host failed to give the bytes.
    #[error("{action}")]
    Io {
        /// What was being done, with the path or offset, as a fragment such as `reading 4096 bytes at 512 of disk.raw`.
        action: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
}

/// The bounds of [`crate::Limits`], by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Bytes read from the image files in all.
    BytesRead,
    /// Bytes of one allocation asked for by an image.
    Allocation,
    /// Directories below one another.
    DirectoryDepth,
    /// Directory entries visited in all.
    Entries,
    /// Images of one backing chain.
    ChainLength,
    /// Devices that partitions and volumes make.
    Devices,
    /// Symbolic links followed for one path.
    SymlinkDepth,
    /// Bytes of one text file that a parser takes in.
    TextSize,
    /// Seconds since the disk was opened.
    Time,
}

impl Limit {
    /// Every bound.
    pub const ALL: [Self; 9] = [
        Self::BytesRead,
        Self::Allocation,
        Self::DirectoryDepth,
        Self::Entries,
        Self::ChainLength,
        Self::Devices,
        Self::SymlinkDepth,
        Self::TextSize,
        Self::Time,
    ];
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BytesRead => "bytes_read",
            Self::Allocation => "allocation_bytes",
            Self::DirectoryDepth => "directory_depth",
            Self::Entries => "entries",
            Self::ChainLength => "chain_length",
            Self::Devices => "devices",
            Self::SymlinkDepth => "symlink_depth",
            Self::TextSize => "text_bytes",
            Self::Time => "time_seconds",
        })
    }
}

impl Error {
    /// The text with that of each cause behind it, for where only one line is left to tell.
    #[must_use]
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(source) = cause {
            text.push_str(": ");
            text.push_str(&source.to_string());
            cause = source.source();
        }
        text
    }

    /// A [`Error::Corrupt`], for the many places that report one.
    pub(crate) fn corrupt(structure: &'static str, offset: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { structure, offset, reason: reason.into() }
    }

    /// The same, but said of the structure that pointed there, where a range left its source.
    pub(crate) fn in_structure(self, structure: &'static str, offset: u64) -> Self {
        match self {
            Self::Corrupt { reason, .. } => Self::Corrupt { structure, offset, reason },
            other => other,
        }
    }

    /// An [`Error::Unsupported`].
    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into() }
    }

    /// Whether going on elsewhere on the same disk is pointless: a budget of the whole disk is used up.
    #[must_use]
    pub const fn is_budget_exhausted(&self) -> bool {
        matches!(self, Self::LimitReached { which: Limit::BytesRead | Limit::Entries | Limit::Time, .. })
    }
}

/// The engine's result.
pub type Result<T> = std::result::Result<T, Error>;
