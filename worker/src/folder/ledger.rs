//! Which document a job id stands for. One small file per id beside the results, locked while the job runs, holding the
//! fingerprint of the document that its result is of: a second file with the same id is the same job, or is refused.
//! The entry counts as long as the result lies there; who removes the result may use the id again.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use guestkit_domain::JobId;
use guestkit_protocol::document::CheckedJob;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use crate::output::hex;

/// The entries.
#[derive(Debug)]
pub(super) struct Ledger {
    folder: PathBuf,
}

/// Stands for a fingerprint where the only result is that of a refusal: any document may still take the id.
const REFUSED: &str = "refused";

/// The right to run a job, for as long as it is kept.
#[derive(Debug)]
pub(super) struct HeldId {
    _locks: Vec<File>,
}

/// What a job id is found to be.
#[derive(Debug)]
pub(super) enum Entry {
    /// Free; now held.
    New(HeldId),
    /// Held by a job that runs right now.
    Busy,
    /// Done already, from the same document.
    Done,
    /// Another document's; why.
    Taken(String),
}

impl Ledger {
    pub(super) fn open(results: &Path) -> io::Result<Self> {
        let folder = results.join(".jobs");
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// Tries to take the job's id, and its idempotency key where it has one.
    pub(super) fn enter(&self, job: &CheckedJob, result: &Path) -> io::Result<Entry> {
        let spec = &job.spec;
        let fingerprint = hex(&spec.fingerprint);
        let Some(mut id_lock) = lock(&self.folder.join(spec.job_id.as_str()))? else { return Ok(Entry::Busy) };
        let known = content(&mut id_lock)?;
        match status(result)?.as_deref() {
            None => {}
            Some(_) if known != fingerprint && known != REFUSED => {
                return Ok(Entry::Taken(format!(
                    "job {} has a result already, of another document: {}; use another job_id, or remove the result",
                    spec.job_id,
                    result.display()
                )));
            }
            Some("completed") => return Ok(Entry::Done),
            // Whoever lays a failed job's file down again asks for another try.
            Some(_) => {}
        }
        let mut locks = Vec::new();
        if let Some(key) = &spec.concurrency_key {
            // Without an operator's limit a key is a mutual exclusion, as at a coordinator.
            let path = self.folder.join(format!(".concurrency-{}", hex(&Sha256::digest(key.as_bytes()))));
            let Some(key_lock) = lock(&path)? else { return Ok(Entry::Busy) };
            locks.push(key_lock);
        }
        if let Some(key) = &spec.idempotency_key {
            // Hashed, because a key is free text and this is a file name; the first byte keeps it apart from job ids.
            let name = hex(&Sha256::digest(format!("{}\n{key}", spec.namespace)));
            let Some(mut key_lock) = lock(&self.folder.join(format!(".key-{name}")))? else { return Ok(Entry::Busy) };
            let first = content(&mut key_lock)?;
            let results = result.parent().unwrap_or(Path::new("."));
            if first != spec.job_id.as_str() && !first.is_empty() {
                let of_first = results.join(format!("{first}-result.json"));
                if of_first.exists() {
                    return Ok(Entry::Taken(format!(
                        "idempotency_key {key:?} stands for job {first}, whose result is {}",
                        of_first.display()
                    )));
                }
            }
            replace(&mut key_lock, spec.job_id.as_str())?;
            locks.push(key_lock);
        }
        replace(&mut id_lock, &fingerprint)?;
        locks.push(id_lock);
        Ok(Entry::New(HeldId { _locks: locks }))
    }

    /// Tries to take the id that a refused document names, for telling its refusal as a result; `None` where a job that was
    /// not refused has it.
    pub(super) fn enter_refused(&self, job_id: &JobId, result: &Path) -> io::Result<Option<HeldId>> {
        let Some(mut id_lock) = lock(&self.folder.join(job_id.as_str()))? else { return Ok(None) };
        if status(result)?.is_some() && content(&mut id_lock)? != REFUSED {
            return Ok(None);
        }
        replace(&mut id_lock, REFUSED)?;
        Ok(Some(HeldId { _locks: vec![id_lock] }))
    }
}

/// The status in a result file; `None` where there is no such file, empty where it is no result of ours.
fn status(result: &Path) -> io::Result<Option<String>> {
    #[derive(serde::Deserialize)]
    struct Status {
        status: String,
    }
    let bytes = match fs::read(result) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(serde_json::from_slice::<Status>(&bytes).map(|found| found.status).unwrap_or_default()))
}

/// Opens and locks; `None` when somebody else holds it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Longest entry: a job id has at most 128 bytes, a fingerprint 64.
const ENTRY_BYTES_MAX: u64 = 128;

fn content(file: &mut File) -> io::Result<String> {
    let mut text = Vec::new();
    file.take(ENTRY_BYTES_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn replace(file: &mut File, text: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
