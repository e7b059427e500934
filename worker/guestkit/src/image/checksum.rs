//! The SHA-256 of an image file as it lies.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::file::HostFile;
use super::open::ImageOpener;
use crate::bytes::hex;
use crate::error::{Error, Result};
use crate::limits::{Budget, Limits};
use crate::read_at::{PageBuffer, ReadAt as _};

/// Bytes hashed between two reports of progress; large enough that a disk reads at full speed.
const CHUNK_BYTES: usize = 1 << 20;

/// The SHA-256 of the file at `path` in lower-case hexadecimal. `progress` is told bytes done and bytes in all, and ends
/// the work by failing. The file is as long as `limits.time` allows; its bytes do not count as read by the engine.
///
/// # Errors
/// As [`ImageOpener::open`]; [`Error::NotAnImage`] for an empty file; limits; whatever `progress` returns.
pub fn sha256(
    path: &Path,
    opener: &dyn ImageOpener,
    limits: &Limits,
    mut progress: impl FnMut(u64, u64) -> Result<()>,
) -> Result<String> {
    // An account of its own: a checksum reads everything, and says nothing of how much an inspection may read.
    let budget = Budget::new(&Limits { bytes_read: u64::MAX, ..limits.clone() });
    let file = HostFile::new(opener.open(path)?, path, Arc::clone(&budget))?;
    if file.is_empty() {
        return Err(Error::NotAnImage { path: path.into(), found: "an empty file" });
    }
    let total = file.len();
    let mut hash = Sha256::new();
    let mut chunk = PageBuffer::new(CHUNK_BYTES);
    let mut done = 0;
    while done < total {
        let part = chunk.first(total.saturating_sub(done));
        file.read_exact_at(part, done)?;
        hash.update(&*part);
        done = done.saturating_add(part.len() as u64);
        progress(done, total)?;
    }
    Ok(hex(&hash.finalize()))
}
