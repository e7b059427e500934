//! Artifacts: what is too large for a message, kept beside the store. Here they are files; nobody outside sees a path, only a
//! [`Key`] and bytes at offsets, so that another object store can stand in this module's place.
//!
//! ```text
//! DATA/artifacts/<job id>/<lease id>/<sha-256>        whole: its bytes have this SHA-256 and are durable
//!                                    <sha-256>.part   on its way: appended to, taken up again where it ends
//! ```
//!
//! Files are named by their content and folders by checked ids, so no name that a peer chose reaches the disk. What lies
//! under a lease belongs to its attempt: it counts when the job's outcome is of that lease, and is removed with the job, by a
//! later attempt of the job, or by the sweep at the next start.
//!
//! Everything here blocks.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use guestkit_domain::{JobId, LeaseId};
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

/// Uploads under way at once: each may fill a disk's queue by itself, and holds one piece in memory.
const UPLOADS_MAX: usize = 64;

/// Files of one lease: an attempt has one report, and may send it again with another content after a restart.
const FILES_PER_LEASE_MAX: usize = 16;

/// Bytes hashed at a time.
const HASH_BYTES: usize = 256 * 1024;

const PART: &str = "part";

/// A SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// Reads 64 lower-case hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl std::fmt::Display for ContentHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Names one artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Of which job.
    pub job_id: JobId,
    /// Made under which lease.
    pub lease: LeaseId,
    /// What it holds.
    pub content: ContentHash,
}

/// Why an artifact was not taken or given.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Larger than the operator allows.
    #[error("an artifact may have at most {most} bytes (artifact_bytes_max), this one has {bytes}")]
    TooLarge {
        /// What was announced.
        bytes: u64,
        /// The setting.
        most: u64,
    },
    /// As many uploads as may are under way, or this very artifact is being uploaded.
    #[error("{what}; try again")]
    Busy {
        /// Which of both.
        what: &'static str,
    },
    /// The lease has as many artifacts as it may.
    #[error("a lease may have at most {FILES_PER_LEASE_MAX} artifacts")]
    TooMany,
    /// Bytes between what is there and what came are missing.
    #[error("the piece begins at {offset}, but {stored} bytes are stored: go on from there")]
    Gap {
        /// Of the piece.
        offset: u64,
        /// What is there.
        stored: u64,
    },
    /// More bytes than were announced.
    #[error("the piece ends after the {size} bytes that were announced")]
    Overrun {
        /// What was announced.
        size: u64,
    },
    /// All bytes came, and they are not those announced. What came is dropped.
    #[error("what came has SHA-256 {found}: it is dropped, begin again")]
    Mismatch {
        /// Of what came.
        found: ContentHash,
    },
    /// The disk says no.
    #[error("{action} an artifact")]
    Disk {
        /// What was being done.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn disk(action: &'static str) -> impl Fn(io::Error) -> ArtifactError {
    move |source| ArtifactError::Disk { action, source }
}

/// The artifacts of one coordinator.
#[derive(Debug, Clone)]
pub struct Artifacts {
    folder: PathBuf,
    bytes_max: u64,
    /// Parts that are written now: two writers would mix their bytes.
    open: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Artifacts {
    /// Artifacts of at most `bytes_max` bytes each in `folder`, which is made when absent.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: PathBuf, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, bytes_max, open: Arc::default() })
    }

    /// Begins an upload of `size` bytes, or takes it up again where it ended. What earlier leases of the job left is
    /// removed: they cannot end it any more. The caller has checked that the lease is the job's current one.
    ///
    /// # Errors
    /// When it is too large, too many are under way, or the disk says no.
    pub fn begin(&self, key: &Key, size: u64) -> Result<Upload, ArtifactError> {
        if size > self.bytes_max {
            return Err(ArtifactError::TooLarge { bytes: size, most: self.bytes_max });
        }
        self.forget_leases(&key.job_id, |lease| lease < key.lease);
        let whole = self.path(key);
        let path = whole.with_extension(PART);
        let claim = self.claim(&path)?;
        let folder = self.lease_folder(&key.job_id, key.lease);
        fs::create_dir_all(&folder).map_err(disk("make a folder for"))?;
        if self.has(key, size)? {
            return Ok(Upload { place: Place::Kept, key: key.clone(), size, stored: size, _claim: claim });
        }
        if !path.exists() && fs::read_dir(&folder).map_err(disk("list"))?.count() >= FILES_PER_LEASE_MAX {
            return Err(ArtifactError::TooMany);
        }
        let file = File::options().create(true).append(true).open(&path).map_err(disk("write"))?;
        let mut stored = file.metadata().map_err(disk("write"))?.len();
        if stored > size {
            // Announced with another size before: one of both was wrong.
            file.set_len(0).map_err(disk("write"))?;
            stored = 0;
        }
        Ok(Upload { place: Place::Part { file, path, whole }, key: key.clone(), size, stored, _claim: claim })
    }

    fn claim(&self, path: &Path) -> Result<Claim, ArtifactError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= UPLOADS_MAX {
            return Err(ArtifactError::Busy { what: "as many artifacts as may are being uploaded" });
        }
        if !open.insert(path.to_path_buf()) {
            return Err(ArtifactError::Busy { what: "this artifact is being uploaded already" });
        }
        Ok(Claim { open: Arc::clone(&self.open), path: path.to_path_buf() })
    }

    /// Whether the whole artifact is there, with `size` bytes.
    ///
    /// # Errors
    /// When the disk does not tell.
    pub fn has(&self, key: &Key, size: u64) -> Result<bool, ArtifactError> {
        match self.path(key).symlink_metadata() {
            Ok(found) => Ok(found.is_file() && found.len() == size),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(source) => Err(disk("look for")(source)),
        }
    }

    /// The whole artifact for reading, and its bytes; `None` when it is not there.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn read(&self, key: &Key) -> Result<Option<(File, u64)>, ArtifactError> {
        match File::open(self.path(key)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(disk("read")(source)),
            Ok(file) => {
                let size = file.metadata().map_err(disk("read"))?.len();
                Ok(Some((file, size)))
            }
        }
    }

    /// Removes what leases up to `last` left of a job: the job was deleted or is to run again. Later leases are of another
    /// job by the same name, or of its next attempts.
    pub fn forget(&self, job_id: &JobId, last: LeaseId) {
        self.forget_leases(job_id, |lease| lease <= last);
    }

    /// Removes what belongs to no lease that counts; `counts` tells those of a job. Asked once per job that has artifacts.
    ///
    /// # Errors
    /// Those of `counts`; the folder's are logged, because what is not removed now is removed at the next start.
    pub fn sweep<E>(&self, mut counts: impl FnMut(&JobId) -> Result<Vec<LeaseId>, E>) -> Result<(), E> {
        for name in names(&self.folder) {
            let Ok(job_id) = JobId::new(&name) else {
                warn!(name, "something that is no job's folder lies among the artifacts");
                continue;
            };
            let kept = counts(&job_id)?;
            self.forget_leases(&job_id, |lease| !kept.contains(&lease));
        }
        Ok(())
    }

    fn forget_leases(&self, job_id: &JobId, is_over: impl Fn(LeaseId) -> bool) {
        let folder = self.job_folder(job_id);
        for name in names(&folder) {
            let Ok(lease) = name.parse().map(LeaseId) else { continue };
            if !is_over(lease) {
                continue;
            }
            match fs::remove_dir_all(folder.join(&name)) {
                Ok(()) => info!(job = %job_id, lease = lease.0, "artifacts removed"),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => warn!(job = %job_id, lease = lease.0, %error, "artifacts stay until the next start"),
            }
        }
        // One that still holds a lease's folder, or was never there, stays as it is.
        let _ = fs::remove_dir(&folder);
    }

    fn job_folder(&self, job_id: &JobId) -> PathBuf {
        self.folder.join(job_id.as_str())
    }

    fn lease_folder(&self, job_id: &JobId, lease: LeaseId) -> PathBuf {
        self.job_folder(job_id).join(lease.0.to_string())
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.lease_folder(&key.job_id, key.lease).join(key.content.to_string())
    }
}

/// Names in a folder; none of a folder that is not there.
fn names(folder: &Path) -> Vec<String> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                warn!(folder = %folder.display(), %error, "cannot list artifacts");
            }
            return Vec::new();
        }
    };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// A part that nobody else may write while this lives.
#[derive(Debug)]
struct Claim {
    open: Arc<Mutex<HashSet<PathBuf>>>,
    path: PathBuf,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}

#[derive(Debug)]
enum Place {
    /// It was whole before this upload began.
    Kept,
    Part {
        file: File,
        path: PathBuf,
        whole: PathBuf,
    },
}

/// An artifact on its way. Dropped before its end it stays as it is, and can be taken up again.
#[derive(Debug)]
pub struct Upload {
    place: Place,
    key: Key,
    size: u64,
    stored: u64,
    _claim: Claim,
}

impl Upload {
    /// Bytes that are there.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// Whether all bytes are there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.stored == self.size
    }

    /// Adds the bytes that begin at `offset`; those that are there already are passed over.
    ///
    /// # Errors
    /// When bytes before them are missing, they are more than announced, or the disk says no.
    pub fn append(&mut self, offset: u64, data: &[u8]) -> Result<(), ArtifactError> {
        let known = self.stored.checked_sub(offset).ok_or(ArtifactError::Gap { offset, stored: self.stored })?;
        let overrun = ArtifactError::Overrun { size: self.size };
        match offset.checked_add(data.len() as u64) {
            Some(end) if end <= self.size => {}
            _ => return Err(overrun),
        }
        let fresh = usize::try_from(known).ok().and_then(|known| data.get(known..)).unwrap_or_default();
        if let Place::Part { file, .. } = &mut self.place {
            file.write_all(fresh).map_err(disk("write"))?;
        }
        self.stored = self.stored.saturating_add(fresh.len() as u64);
        Ok(())
    }

    /// Makes durable what is there. Of a whole upload the content is checked too; one that is not what was announced is
    /// dropped.
    ///
    /// # Errors
    /// [`ArtifactError::Mismatch`], and when the disk says no.
    pub fn settle(&mut self) -> Result<(), ArtifactError> {
        let is_whole = self.is_whole();
        let Place::Part { file, path, .. } = &self.place else { return Ok(()) };
        file.sync_all().map_err(disk("write"))?;
        if !is_whole {
            return Ok(());
        }
        // What counts is what lies there, also of earlier streams: the file is read back.
        let found = hash(path).map_err(disk("check"))?;
        if found == self.key.content {
            return Ok(());
        }
        fs::remove_file(path).map_err(disk("drop"))?;
        Err(ArtifactError::Mismatch { found })
    }

    /// Gives a whole, settled upload its final name, durably.
    ///
    /// # Errors
    /// When the disk says no; also when the lease's folder was removed meanwhile.
    pub fn keep(self) -> Result<(), ArtifactError> {
        let Place::Part { path, whole, .. } = &self.place else { return Ok(()) };
        fs::rename(path, whole).map_err(disk("keep"))?;
        // The name, the lease's folder and the job's folder are entries of the folders above them.
        whole.ancestors().skip(1).take(3).try_for_each(|folder| File::open(folder)?.sync_all()).map_err(disk("keep"))
    }
}

fn hash(path: &Path) -> io::Result<ContentHash> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut bytes = vec![0; HASH_BYTES];
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(ContentHash(hasher.finalize().into())),
            count => hasher.update(bytes.get(..count).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(bytes: &[u8]) -> ContentHash {
        ContentHash(Sha256::digest(bytes).into())
    }

    fn key(job_id: &str, lease: u64, bytes: &[u8]) -> Key {
        Key { job_id: JobId::new(job_id).unwrap(), lease: LeaseId(lease), content: content(bytes) }
    }

    fn put(artifacts: &Artifacts, key: &Key, bytes: &[u8]) {
        let mut upload = artifacts.begin(key, bytes.len() as u64).unwrap();
        upload.append(0, bytes).unwrap();
        upload.settle().unwrap();
        upload.keep().unwrap();
    }

    fn read(artifacts: &Artifacts, key: &Key) -> Option<Vec<u8>> {
        let (mut file, size) = artifacts.read(key).unwrap()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, size);
        Some(bytes)
    }

    #[test]
    fn an_upload_is_taken_up_where_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path().join("artifacts"), 100).unwrap();
        let key = key("job-00001", 7, b"0123456789");
        let mut first = artifacts.begin(&key, 10).unwrap();
        first.append(0, b"0123").unwrap();
        assert!(matches!(first.append(5, b"56"), Err(ArtifactError::Gap { offset: 5, stored: 4 })));
        assert!(matches!(first.append(4, b"4567890"), Err(ArtifactError::Overrun { size: 10 })));
        assert!(matches!(first.append(u64::MAX, b"4"), Err(ArtifactError::Gap { .. })));
        assert!(matches!(artifacts.begin(&key, 10), Err(ArtifactError::Busy { .. })));
        first.settle().unwrap();
        drop(first);
        assert!(!artifacts.has(&key, 10).unwrap());
        assert_eq!(read(&artifacts, &key), None);

        let mut second = artifacts.begin(&key, 10).unwrap();
        assert_eq!(second.stored(), 4);
        second.append(2, b"23456789").unwrap();
        assert!(second.is_whole());
        second.settle().unwrap();
        second.keep().unwrap();
        assert_eq!(read(&artifacts, &key).as_deref(), Some(&b"0123456789"[..]));
        assert!(artifacts.has(&key, 10).unwrap() && !artifacts.has(&key, 9).unwrap());
        // Again: it is there, and nothing is written.
        assert!(artifacts.begin(&key, 10).unwrap().is_whole());
    }

    #[test]
    fn what_is_not_what_was_announced_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path().join("artifacts"), 100).unwrap();
        let key = key("job-00001", 7, b"announced!");
        let mut upload = artifacts.begin(&key, 10).unwrap();
        upload.append(0, b"delivered!").unwrap();
        let Err(ArtifactError::Mismatch { found }) = upload.settle() else { panic!("it was taken") };
        assert_eq!(found, content(b"delivered!"));
        drop(upload);
        let upload = artifacts.begin(&key, 10).unwrap();
        assert_eq!(upload.stored(), 0);
        drop(upload);
        assert!(matches!(artifacts.begin(&key, 101), Err(ArtifactError::TooLarge { bytes: 101, most: 100 })));
    }

    #[test]
    fn a_lease_has_so_many_files_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path().join("artifacts"), 100).unwrap();
        let named = |number: usize| key("job-00001", 7, number.to_string().as_bytes());
        for number in 0..FILES_PER_LEASE_MAX {
            artifacts.begin(&named(number), 10).unwrap();
        }
        assert!(matches!(artifacts.begin(&named(FILES_PER_LEASE_MAX), 10), Err(ArtifactError::TooMany)));
        artifacts.begin(&named(0), 10).unwrap();
    }

    #[test]
    fn what_no_lease_owns_any_more_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path().join("artifacts"), 100).unwrap();
        let (old, new, other) = (key("job-00001", 1, b"a"), key("job-00001", 2, b"a"), key("job-00002", 3, b"a"));
        for key in [&old, &new, &other] {
            put(&artifacts, key, b"a");
        }
        assert!(!artifacts.has(&old, 1).unwrap(), "a later lease leaves what an earlier one made");
        drop(artifacts.begin(&key("job-00001", 2, b"half"), 4).unwrap());
        artifacts.forget(&new.job_id, LeaseId(1));
        assert!(artifacts.has(&new, 1).unwrap(), "a later lease's artifact is gone");

        fs::write(folder.path().join("artifacts/..noise"), b"").unwrap();
        let counting = |job_id: &JobId| Ok::<_, ()>(if *job_id == new.job_id { vec![new.lease] } else { vec![] });
        artifacts.sweep(counting).unwrap();
        assert!(artifacts.has(&new, 1).unwrap() && !artifacts.has(&other, 1).unwrap());
        assert!(!folder.path().join("artifacts/job-00002").exists());

        artifacts.forget(&new.job_id, LeaseId(2));
        assert!(!folder.path().join("artifacts/job-00001").exists());
    }

    #[test]
    fn only_a_hash_in_lower_case_is_one() {
        let text = content(b"a").to_string();
        assert_eq!(ContentHash::parse(&text), Some(content(b"a")));
        for text in ["", "../../etc/passwd", &text[1..], &format!("{text}0"), &text.to_uppercase(), &"é".repeat(32)] {
            assert_eq!(ContentHash::parse(text), None, "{text}");
        }
    }
}
