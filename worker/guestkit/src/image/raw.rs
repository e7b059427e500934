//! Raw images: the disk's bytes as they are. Holes of a sparse file read as zeros by the host's own doing.

use crate::error::Result;
use crate::read_at::{ReadAt, Source, check_range};

/// Disks consist of sectors; a file that ends within one is completed with zeros, as QEMU does.
const SECTOR_BYTES: u64 = 512;

/// A raw image.
#[derive(Debug)]
pub(crate) struct Raw {
    file: Source,
    length: u64,
}

impl Raw {
    pub(crate) fn new(file: Source) -> Self {
        let length = file.len().checked_next_multiple_of(SECTOR_BYTES).unwrap_or(u64::MAX);
        Self { file, length }
    }
}

impl ReadAt for Raw {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.length, buffer.len(), offset)?;
        let there = usize::try_from(self.file.len().saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let (present, missing) = buffer.split_at_mut(there);
        missing.fill(0);
        if present.is_empty() { Ok(()) } else { self.file.read_exact_at(present, offset) }
    }
}
