//! Outcomes on disk until the coordinator has them: what was found out survives an outage of the coordinator and the
//! worker's own restart. One folder per worker id, held under a lock, one file per outcome.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use guestkit_domain::WorkerId;
use guestkit_protocol::v1;
use prost::Message as _;
use rustix::fs::{FlockOperation, flock};

/// The folder, held.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    /// Released by the kernel when the process ends, however it ends.
    _lock: File,
}

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process of the same worker id holds it.
    #[error("{} is in use by another worker with the id {worker_id}: give each worker an id of its own", .folder.display())]
    Held {
        /// The folder.
        folder: PathBuf,
        /// The id.
        worker_id: String,
    },
    /// The disk said no.
    #[error("cannot {action} {}", .path.display())]
    Disk {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    move |source| SpoolError::Disk { action, path: path.to_owned(), source }
}

/// The largest outcome that is read back: the largest an attempt may give, and its wrapping.
const OUTCOME_BYTES_MAX: u64 = 260 << 20;

impl Spool {
    /// Takes the folder of `worker_id` beneath `data`.
    ///
    /// # Errors
    /// [`SpoolError::Held`] when another process has it; otherwise the disk's error.
    pub fn open(data: &Path, worker_id: &WorkerId) -> Result<Self, SpoolError> {
        let folder = data.join(format!("worker-{worker_id}"));
        fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(failed("create", &path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { folder, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(SpoolError::Held { folder, worker_id: worker_id.to_string() }),
            Err(errno) => Err(failed("lock", &path)(errno.into())),
        }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes an outcome durable.
    ///
    /// # Errors
    /// The disk's error; then nothing is kept.
    pub fn put(&self, outcome: &v1::Outcome) -> Result<(), SpoolError> {
        let path = self.path(outcome.lease_id);
        write_durably(&path, &outcome.encode_to_vec()).map_err(failed("write", &path))
    }

    /// Forgets an outcome; one that is not there is forgotten already.
    ///
    /// # Errors
    /// The disk's error.
    pub fn forget(&self, lease_id: u64) -> Result<(), SpoolError> {
        let path = self.path(lease_id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Everything that was not acknowledged. A file that holds no outcome is moved aside and logged: it must keep
    /// nobody from the others.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn load(&self) -> Result<Vec<v1::Outcome>, SpoolError> {
        let mut outcomes = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed("list", &self.folder))? {
            let path = entry.map_err(failed("list", &self.folder))?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("outcome") => {}
                Some("partial") => {
                    // A write that a crash cut short; its outcome was never promised to anybody.
                    let _ = fs::remove_file(&path);
                    continue;
                }
                _ => continue,
            }
            match self.read(&path) {
                Ok(outcome) => outcomes.push(outcome),
                Err(why) => {
                    let aside = path.with_extension("damaged");
                    tracing::error!(file = %path.display(), %why, aside = %aside.display(), "a kept outcome is damaged");
                    let _ = fs::rename(&path, &aside);
                }
            }
        }
        outcomes.sort_by_key(|outcome| outcome.lease_id);
        Ok(outcomes)
    }

    fn read(&self, path: &Path) -> Result<v1::Outcome, String> {
        let metadata = path.symlink_metadata().map_err(|error| error.to_string())?;
        if !metadata.is_file() || metadata.len() > OUTCOME_BYTES_MAX {
            return Err(format!("{} bytes of {:?}", metadata.len(), metadata.file_type()));
        }
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        let outcome = v1::Outcome::decode(bytes.as_slice()).map_err(|error| error.to_string())?;
        if self.path(outcome.lease_id) != path {
            return Err(format!("it is of lease {}", outcome.lease_id));
        }
        let digest: [u8; 32] =
            sha2::Digest::finalize(sha2::Digest::chain_update(<sha2::Sha256 as sha2::Digest>::new(), &outcome.result))
                .into();
        if outcome.result_sha256 != digest {
            return Err("its checksum does not hold".into());
        }
        Ok(outcome)
    }

    fn path(&self, lease_id: u64) -> PathBuf {
        self.folder.join(format!("{lease_id}.outcome"))
    }
}

/// Writes a file whole and durable, or not at all: beside, synced, renamed, the folder synced.
///
/// # Errors
/// The disk's error.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let partial = folder.join(format!(".{name}.{}.partial", std::process::id()));
    let written = (|| {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written
}

#[cfg(test)]
mod tests {
    use sha2::Digest as _;

    use super::*;

    fn outcome(lease_id: u64) -> v1::Outcome {
        let result = vec![7; 100];
        let result_sha256 = sha2::Sha256::digest(&result).to_vec();
        v1::Outcome { lease_id, job_id: "job-00001".into(), result, result_sha256, ..Default::default() }
    }

    fn id(text: &str) -> WorkerId {
        WorkerId::new(text).unwrap()
    }

    #[test]
    fn outcomes_survive_and_garbage_is_moved_aside() {
        let data = tempfile::tempdir().unwrap();
        let spool = Spool::open(data.path(), &id("w")).unwrap();
        spool.put(&outcome(2)).unwrap();
        spool.put(&outcome(10)).unwrap();
        spool.put(&outcome(30)).unwrap();
        spool.forget(10).unwrap();
        spool.forget(10).unwrap();
        let folder = spool.folder().to_owned();
        drop(spool);

        fs::write(folder.join("4.outcome"), b"garbage").unwrap();
        fs::write(folder.join("5.outcome"), b"").unwrap();
        fs::write(folder.join("6.outcome"), outcome(7).encode_to_vec()).unwrap();
        let mut forged = outcome(8);
        forged.result.push(1);
        fs::write(folder.join("8.outcome"), forged.encode_to_vec()).unwrap();
        fs::create_dir(folder.join("9.outcome")).unwrap();
        fs::write(folder.join(".11.outcome.1.partial"), b"half").unwrap();

        let spool = Spool::open(data.path(), &id("w")).unwrap();
        assert_eq!(spool.load().unwrap(), [outcome(2), outcome(30)]);
        assert!(folder.join("4.damaged").exists() && !folder.join(".11.outcome.1.partial").exists());
        assert_eq!(spool.load().unwrap().len(), 2, "the second look finds nothing new");
    }

    #[test]
    fn two_workers_never_share_a_spool() {
        let data = tempfile::tempdir().unwrap();
        let first = Spool::open(data.path(), &id("w")).unwrap();
        assert!(matches!(Spool::open(data.path(), &id("w")), Err(SpoolError::Held { .. })));
        assert!(Spool::open(data.path(), &id("v")).is_ok());
        drop(first);
        assert!(Spool::open(data.path(), &id("w")).is_ok());
    }
}
