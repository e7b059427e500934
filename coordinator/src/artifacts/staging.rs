//! Artifacts on their way: parts in a local folder of this coordinator, appended to, taken up again where they end. After a
//! failover the next coordinator has none of it, says so, and is sent everything.
//!
//! Everything here blocks.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::folder::Folder;
use super::{ArtifactError, ContentHash, FILES_PER_LEASE_MAX, Key, disk};

/// Uploads under way at once: each may fill a disk's queue by itself, and holds one piece in memory.
const UPLOADS_MAX: usize = 64;

/// Bytes hashed at a time.
const HASH_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone)]
pub(super) struct Staging {
    folder: Folder,
    /// Parts that are written now: two writers would mix their bytes.
    open: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Staging {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        Ok(Self { folder: Folder::open(path)?, open: Arc::default() })
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The right to write one part; its holder is the only one.
    pub(super) fn claim(&self, key: &Key) -> Result<Claim, ArtifactError> {
        let path = self.folder.attempt(&key.attempt).join(key.content.to_string());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= UPLOADS_MAX {
            return Err(ArtifactError::Busy { what: "as many artifacts as may are being uploaded" });
        }
        if !open.insert(path.clone()) {
            return Err(ArtifactError::Busy { what: "this artifact is being uploaded already" });
        }
        Ok(Claim { open: Arc::clone(&self.open), path })
    }

    /// The part, new or where it ended. `kept` artifacts of the lease are whole already.
    pub(super) fn part(&self, claim: Claim, key: &Key, size: u64, kept: usize) -> Result<Part, ArtifactError> {
        let folder = self.folder.attempt(&key.attempt);
        fs::create_dir_all(&folder).map_err(disk("make a folder for"))?;
        if !claim.path.exists() {
            let begun = fs::read_dir(&folder).map_err(disk("list"))?.count();
            if begun.saturating_add(kept) >= FILES_PER_LEASE_MAX {
                return Err(ArtifactError::TooMany);
            }
        }
        let file = File::options().create(true).append(true).open(&claim.path).map_err(disk("write"))?;
        let mut stored = file.metadata().map_err(disk("write"))?.len();
        if stored > size {
            // Announced with another size before: one of both was wrong.
            file.set_len(0).map_err(disk("write"))?;
            stored = 0;
        }
        Ok(Part { file, stored, claim })
    }
}

/// A part that nobody else may write while this lives.
#[derive(Debug)]
pub(super) struct Claim {
    open: Arc<Mutex<HashSet<PathBuf>>>,
    path: PathBuf,
}

impl Claim {
    /// Removes what was staged, and the folders above that are empty then. What stays is removed with its attempt.
    pub(super) fn discard(&self) {
        let _ = fs::remove_file(&self.path);
        // The lease's folder, and the job's.
        for folder in self.path.ancestors().skip(1).take(2) {
            let _ = fs::remove_dir(folder);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}

/// Some of an artifact's bytes, from the first.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    pub(super) stored: u64,
    claim: Claim,
}

impl Part {
    pub(super) fn path(&self) -> &Path {
        &self.claim.path
    }

    pub(super) fn append(&mut self, fresh: &[u8]) -> Result<(), ArtifactError> {
        self.file.write_all(fresh).map_err(disk("write"))?;
        self.stored = self.stored.saturating_add(fresh.len() as u64);
        Ok(())
    }

    /// Makes durable what is there.
    pub(super) fn sync(&self) -> Result<(), ArtifactError> {
        self.file.sync_all().map_err(disk("write"))
    }

    /// Whether the part is what was announced; it is dropped when not. What counts is what lies there, also of earlier
    /// streams: the file is read back.
    pub(super) fn check(&self, content: ContentHash) -> Result<(), ArtifactError> {
        let found = hash(self.path()).map_err(disk("check"))?;
        if found == content {
            return Ok(());
        }
        fs::remove_file(self.path()).map_err(disk("drop"))?;
        Err(ArtifactError::Mismatch { found })
    }

    pub(super) fn discard(self) {
        self.claim.discard();
    }
}

fn hash(path: &Path) -> io::Result<ContentHash> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut bytes = vec![0; HASH_BYTES];
    loop {
        match file.read(&mut bytes) {
            Ok(0) => return Ok(ContentHash(hasher.finalize().into())),
            Ok(count) => hasher.update(bytes.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
