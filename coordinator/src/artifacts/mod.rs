//! Artifacts: what is too large for a message, kept beside the store. Nobody outside sees a path or an object, only a [`Key`]
//! and bytes at offsets.
//!
//! ```text
//! DATA/uploads/<job id>/<lease id>/<sha-256>   on its way: a local file of this coordinator, appended to
//!    │ whole, and its bytes have this SHA-256
//!    ▼
//! PLACE/<job id>/<lease id>/<sha-256>          whole and durable: a file below a folder, or an object of a bucket
//! ```
//!
//! Both are named by their content and by checked ids, so no name that a peer chose reaches a disk or a bucket. What lies
//! under a lease belongs to its attempt: it counts when the job's outcome is of that lease, and is removed with the job, by a
//! later attempt of the job, or by a sweep.

mod folder;
mod objects;
mod staging;

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use futures::StreamExt as _;
use guestkit_domain::{JobId, LeaseId};

use crate::config::{ArtifactsLocation, AwsSettings};
use objects::Objects;
use staging::{Part, Staging};

/// Artifacts of one lease: an attempt has one report, and may send it again with another content after a restart.
const FILES_PER_LEASE_MAX: usize = 16;

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

/// What artifacts belong to: one try to run a job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// Of which job.
    pub job_id: JobId,
    /// Under which lease.
    pub lease: LeaseId,
}

/// Names one artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Who made it.
    pub attempt: Attempt,
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
    /// The bucket says no, or nothing.
    #[error("{action} an artifact")]
    Bucket {
        /// What was being done.
        action: &'static str,
        /// Why.
        source: object_store::Error,
    },
    /// The coordinator is stopping.
    #[error("the coordinator is stopping")]
    Stopping,
}

impl ArtifactError {
    /// Of a store in a local folder.
    fn store(action: &'static str, error: object_store::Error) -> Self {
        let kind = objects::cause(&error).map_or(io::ErrorKind::Other, io::Error::kind);
        Self::Disk { action, source: io::Error::new(kind, error) }
    }
}

fn disk(action: &'static str) -> impl Fn(io::Error) -> ArtifactError {
    move |source| ArtifactError::Disk { action, source }
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ArtifactError::Stopping)?
}

/// Where artifacts are.
#[derive(Debug, Clone)]
pub struct Places {
    /// Where whole ones are kept; coordinators that share a store share it. `None` is the folder `local`.
    pub location: Option<ArtifactsLocation>,
    /// A folder of this coordinator's own.
    pub local: PathBuf,
    /// Where those on their way are staged: a folder of this coordinator's own.
    pub staging: PathBuf,
    /// How a bucket is reached.
    pub aws: AwsSettings,
}

/// The artifacts of one store, as one coordinator takes and gives them.
#[derive(Debug, Clone)]
pub struct Artifacts {
    staging: Staging,
    objects: Objects,
    bytes_max: u64,
}

impl Artifacts {
    /// Artifacts of at most `bytes_max` bytes each. Folders are made when absent.
    ///
    /// # Errors
    /// When they cannot be made, or the settings of a bucket make no sense. A bucket is not asked yet.
    pub fn open(places: Places, bytes_max: u64) -> Result<Self, ArtifactError> {
        let staging = Staging::open(places.staging).map_err(disk("make a folder for"))?;
        let objects = Objects::open(places.location.as_ref(), places.local, &places.aws)?;
        Ok(Self { staging, objects, bytes_max })
    }

    /// Begins an upload of `size` bytes, or takes it up again where it ended. What earlier leases of the job left is
    /// removed: they cannot end it any more. The caller has checked that the lease is the job's current one.
    ///
    /// # Errors
    /// When it is too large, too many are under way, or a disk or bucket says no.
    pub async fn begin(&self, key: &Key, size: u64) -> Result<Upload, ArtifactError> {
        if size > self.bytes_max {
            return Err(ArtifactError::TooLarge { bytes: size, most: self.bytes_max });
        }
        let claim = self.staging.claim(key)?;
        let Attempt { job_id, lease } = key.attempt.clone();
        let kept = self.objects.of(&job_id).await?;
        self.forget_attempts(&job_id, move |found| found < lease).await;
        let of_lease = kept.iter().filter(|object| object.key.attempt == key.attempt);
        let place = if kept.iter().any(|object| object.key == *key && object.size == size) {
            // Staged still when the coordinator died between both.
            claim.discard();
            Place::Kept
        } else {
            let (staging, key, kept) = (self.staging.clone(), key.clone(), of_lease.count());
            Place::Staged(blocking(move || staging.part(claim, &key, size, kept)).await?)
        };
        Ok(Upload { objects: self.objects.clone(), place, key: key.clone(), size })
    }

    /// Whether the whole artifact is there, with `size` bytes.
    ///
    /// # Errors
    /// When the disk or the bucket does not tell.
    pub async fn has(&self, key: &Key, size: u64) -> Result<bool, ArtifactError> {
        Ok(self.size(key).await? == Some(size))
    }

    /// Bytes of the whole artifact; `None` when it is not there.
    ///
    /// # Errors
    /// When the disk or the bucket does not tell.
    pub async fn size(&self, key: &Key) -> Result<Option<u64>, ArtifactError> {
        self.objects.size(key).await
    }

    /// Some bytes of a whole artifact, all of them within its size; `None` when it is not there any more.
    ///
    /// # Errors
    /// When the disk or the bucket says no.
    pub async fn read(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Option<Vec<u8>>, ArtifactError> {
        self.objects.read(key, range).await
    }

    /// Removes what leases up to `last` left of a job: the job was deleted or is to run again. Later leases are of another
    /// job by the same name, or of its next attempts. What cannot be removed is removed by a later sweep.
    pub async fn forget(&self, job_id: &JobId, last: LeaseId) {
        self.forget_attempts(job_id, move |lease| lease <= last).await;
    }

    async fn forget_attempts(&self, job_id: &JobId, is_over: impl Fn(LeaseId) -> bool) {
        let (folder, job) = (self.staging.folder().clone(), job_id.clone());
        let staged = blocking(move || Ok(folder.attempts_of(&job))).await.unwrap_or_default();
        self.unstage(staged.into_iter().filter(|attempt| is_over(attempt.lease)).collect()).await;
        match self.objects.attempts_of(job_id).await {
            Ok(kept) => {
                for attempt in kept.into_iter().filter(|attempt| is_over(attempt.lease)) {
                    self.objects.remove(attempt).await;
                }
            }
            Err(error) => {
                tracing::warn!(job = %job_id, error = &error as &dyn std::error::Error, "artifacts stay until the next sweep");
            }
        }
    }

    async fn unstage(&self, attempts: Vec<Attempt>) {
        let folder = self.staging.folder().clone();
        let _ = blocking(move || {
            attempts.iter().for_each(|attempt| folder.remove(attempt));
            Ok(())
        })
        .await;
    }

    /// Removes what belongs to no attempt that counts; `counting` tells which of some do. It is asked after they were seen
    /// here, so that whatever is uploaded meanwhile stays.
    ///
    /// # Errors
    /// Those of `counting`, and of listing; what is not removed is removed by the next sweep.
    pub async fn sweep<E: From<ArtifactError>, F: Future<Output = Result<HashSet<Attempt>, E>>>(
        &self,
        counting: impl Fn(Vec<JobId>) -> F,
    ) -> Result<(), E> {
        let folder = self.staging.folder().clone();
        let staged = blocking(move || Ok(folder.attempts())).await?;
        let counts = counting(jobs(&staged)).await?;
        self.unstage(staged.into_iter().filter(|attempt| !counts.contains(attempt)).collect()).await;
        let mut kept = self.objects.attempts();
        while let Some(batch) = kept.next().await {
            let batch = batch?;
            let counts = counting(jobs(&batch)).await?;
            for attempt in batch.into_iter().filter(|attempt| !counts.contains(attempt)) {
                self.objects.remove(attempt).await;
            }
        }
        Ok(())
    }
}

/// The jobs of attempts, each once where its attempts lie together.
fn jobs<'a>(attempts: impl IntoIterator<Item = &'a Attempt>) -> Vec<JobId> {
    let mut jobs: Vec<JobId> = attempts.into_iter().map(|attempt| attempt.job_id.clone()).collect();
    jobs.dedup();
    jobs
}

#[derive(Debug)]
enum Place {
    /// It was whole before this upload began.
    Kept,
    Staged(Part),
}

/// An artifact on its way. Dropped before its end it stays as it is, and can be taken up again.
#[derive(Debug)]
pub struct Upload {
    objects: Objects,
    place: Place,
    key: Key,
    size: u64,
}

impl Upload {
    /// Bytes that are there.
    #[must_use]
    pub fn stored(&self) -> u64 {
        match &self.place {
            Place::Kept => self.size,
            Place::Staged(part) => part.stored,
        }
    }

    /// Whether all bytes are there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.stored() == self.size
    }

    /// Adds the bytes that begin at `offset`; those that are there already are passed over.
    ///
    /// # Errors
    /// When bytes before them are missing, they are more than announced, or the disk says no.
    pub async fn append(mut self, offset: u64, data: Vec<u8>) -> Result<Self, ArtifactError> {
        let stored = self.stored();
        let known = stored.checked_sub(offset).ok_or(ArtifactError::Gap { offset, stored })?;
        match offset.checked_add(data.len() as u64) {
            Some(end) if end <= self.size => {}
            _ => return Err(ArtifactError::Overrun { size: self.size }),
        }
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(data.len());
        if known == data.len() {
            return Ok(self);
        }
        blocking(move || {
            if let Place::Staged(part) = &mut self.place {
                part.append(data.get(known..).unwrap_or_default())?;
            }
            Ok(self)
        })
        .await
    }

    /// Makes durable what is there. Of a whole upload the content is checked too; one that is not what was announced is
    /// dropped.
    ///
    /// # Errors
    /// [`ArtifactError::Mismatch`], and when the disk says no.
    pub async fn settle(self) -> Result<Self, ArtifactError> {
        blocking(move || {
            if let Place::Staged(part) = &self.place {
                part.sync()?;
                if self.is_whole() {
                    part.check(self.key.content)?;
                }
            }
            Ok(self)
        })
        .await
    }

    /// Puts a whole, settled upload where whole ones are kept, durably. It goes on to its end when the caller does not wait
    /// for it, so that nothing half put is left behind.
    ///
    /// # Errors
    /// When the disk or the bucket says no: the upload stays staged, and may be kept by the next try. Also when what was
    /// staged was removed meanwhile.
    pub async fn keep(self) -> Result<(), ArtifactError> {
        let Place::Staged(part) = self.place else { return Ok(()) };
        let (objects, key) = (self.objects, self.key);
        let kept = tokio::spawn(async move {
            objects.put(&key, part.path()).await?;
            blocking(move || {
                part.discard();
                Ok(())
            })
            .await
        });
        kept.await.map_err(|_| ArtifactError::Stopping)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hash_in_lower_case_is_one() {
        let text = "0123456789abcdef".repeat(4);
        assert_eq!(ContentHash::parse(&text).unwrap().to_string(), text);
        for text in ["", "../../etc/passwd", &text[1..], &format!("{text}0"), &text.to_uppercase(), &"é".repeat(32)] {
            assert_eq!(ContentHash::parse(text), None, "{text}");
        }
    }
}
