//! A file of the host as a source; the one place where bytes enter the engine and are charged.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::read_at::{ReadAt, check_range};

/// An image file, or a part of an image in a file of its own.
#[derive(Debug)]
pub(crate) struct HostFile {
    file: File,
    path: PathBuf,
    length: u64,
    allocated: u64,
    identity: (u64, u64),
    modified: i64,
    budget: Arc<Budget>,
}

impl HostFile {
    /// Takes in an opened file; its length is what it is now.
    pub(crate) fn new(file: File, path: &Path, budget: Arc<Budget>) -> Result<Self> {
        let metadata =
            file.metadata().map_err(|source| Error::Io { action: format!("examining {}", path.display()), source })?;
        Ok(Self {
            file,
            path: path.into(),
            length: metadata.len(),
            // The unit is 512 bytes whatever the file system's block (stat(2)).
            allocated: metadata.blocks().saturating_mul(512),
            identity: (metadata.dev(), metadata.ino()),
            modified: metadata.mtime(),
            budget,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes the file really occupies on the host.
    pub(crate) const fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Device and inode: the same for two names of one file.
    pub(crate) const fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// When it was last written to, in seconds since 1970.
    pub(crate) const fn modified(&self) -> i64 {
        self.modified
    }
}

impl ReadAt for HostFile {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.length, buffer.len(), offset)?;
        self.budget.charge_read(buffer.len())?;
        self.file.read_exact_at(buffer, offset).map_err(|source| Error::Io {
            action: format!("reading {} bytes at {offset} of {}", buffer.len(), self.path.display()),
            source,
        })
    }
}
