//! Artifacts on the wire: taken from workers in pieces, given to readers in pieces. What a peer announces is checked before
//! anything is stored.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use guestkit_domain::{JobId, LeaseId};
use guestkit_protocol::convert::{lease_id, state};
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::v1;
use guestkit_scheduler::Phase;
use prost::Message as _;
use tokio::sync::Semaphore;
use tonic::{Status, Streaming};
use tracing::{debug, error, warn};

use super::{Services, unread, unserved};
use crate::artifacts::{ArtifactError, Artifacts, Attempt, ContentHash, Key};
use crate::store::StoredJob;

/// Bytes of one piece, as the protocol says.
const PIECE_BYTES_MAX: usize = 256 * 1024;

/// How long a worker may take for its next piece: one that is gone must not keep its artifact claimed.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that a reader's stream has of the store's at a time: a bucket takes some milliseconds for every request.
const READ_BYTES_MAX: u64 = 4 * PIECE_BYTES_MAX as u64;

/// Streams that read at once: each holds that much.
const READS_MAX: usize = 256;

/// Bytes of a name: readers store artifacts under it.
const NAME_BYTES_MAX: usize = 200;

/// Bytes of a media type: RFC 6838, section 4.2 allows 127 on either side of the slash.
const MEDIA_TYPE_BYTES_MAX: usize = 255;

/// How long whoever deletes a job waits for its artifacts to be gone; a bucket that is away must not hold up the answer.
const FORGET_TIMEOUT: Duration = Duration::from_secs(5);

/// When to try again what is refused for a moment.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What the calls about artifacts work with.
#[derive(Debug, Clone)]
pub struct ArtifactDesk {
    artifacts: Artifacts,
    reads: Arc<Semaphore>,
}

/// What a worker announced, checked.
struct Announced {
    lease: LeaseId,
    content: ContentHash,
    size: u64,
}

impl ArtifactDesk {
    /// Serves `artifacts`.
    #[must_use]
    pub fn new(artifacts: Artifacts) -> Self {
        Self { artifacts, reads: Arc::new(Semaphore::new(READS_MAX)) }
    }

    /// Whether what an outcome refers to was uploaded under its lease.
    pub(super) async fn has(&self, job_id: &JobId, lease: LeaseId, artifact: &v1::Artifact) -> Result<bool, Refusal> {
        let Some(content) = ContentHash::parse(&artifact.sha256) else { return Ok(false) };
        let key = Key { attempt: Attempt { job_id: job_id.clone(), lease }, content };
        self.artifacts.has(&key, artifact.size_bytes).await.map_err(refusal)
    }

    /// Removes what leases up to `last` left of a job; what is not gone soon is left to the sweep.
    pub(crate) async fn forget(&self, job_id: JobId, last: LeaseId) {
        if tokio::time::timeout(FORGET_TIMEOUT, self.artifacts.forget(&job_id, last)).await.is_err() {
            warn!(job = %job_id, "artifacts stay until the next sweep: it took too long to remove them");
        }
    }

    /// Removes what belongs to no attempt that counts.
    pub(crate) async fn sweep<E: From<ArtifactError>, F: Future<Output = Result<HashSet<Attempt>, E>>>(
        &self,
        counting: impl Fn(Vec<JobId>) -> F,
    ) -> Result<(), E> {
        self.artifacts.sweep(counting).await
    }
}

impl Services {
    /// Takes an artifact, or a part of it; answers how many of its bytes are durable.
    pub(super) async fn put(&self, mut requests: Streaming<v1::PutArtifactRequest>) -> Result<u64, Status> {
        let first = self.piece(&mut requests).await?;
        let first = first.ok_or_else(|| Refusal::of_field("header", "required in the first message"))?;
        let announced = announced(first.header.as_ref())?;
        let (lease, size) = (announced.lease, announced.size);
        let job_id = self.held_by(lease).await?;
        let key = Key { attempt: Attempt { job_id, lease }, content: announced.content };
        let artifacts = &self.artifacts.artifacts;
        let mut upload = artifacts.begin(&key, size).await.map_err(refusal)?;
        let mut next = Some(v1::PutArtifactRequest { header: None, ..first });
        while let Some(piece) = next {
            let piece = sound(piece)?;
            if !piece.data.is_empty() {
                upload = upload.append(piece.offset, piece.data).await.map_err(refusal)?;
            }
            next = if upload.is_whole() { None } else { self.piece(&mut requests).await? };
        }
        let upload = upload.settle().await.map_err(refusal)?;
        let stored = upload.stored();
        if upload.is_whole() {
            // It may have been lost while the bytes came.
            self.held_by(lease).await?;
            upload.keep().await.map_err(refusal)?;
            debug!(job = %key.attempt.job_id, lease = lease.0, bytes = size, "an artifact is stored");
        }
        Ok(stored)
    }

    async fn piece(
        &self,
        requests: &mut Streaming<v1::PutArtifactRequest>,
    ) -> Result<Option<v1::PutArtifactRequest>, Status> {
        tokio::select! {
            piece = tokio::time::timeout(PIECE_TIMEOUT, requests.message()) => piece.unwrap_or_else(|_| {
                let text = format!("no piece came in {} seconds", PIECE_TIMEOUT.as_secs());
                Err(Refusal::new(Reason::Unavailable, text).into())
            }),
            () = self.until_stopping() => Err(super::stopping()),
        }
    }

    /// The job that a lease is current for.
    async fn held_by(&self, lease: LeaseId) -> Result<JobId, Refusal> {
        let driver = self.driver().await?;
        let holder = driver.read(move |view| view.scheduler.holder(lease).map(|entry| entry.spec.job_id.clone()));
        holder.await.map_err(unserved)?.ok_or_else(|| {
            Refusal::new(
                Reason::LeaseNotCurrent,
                format!("lease {} is no job's current one: drop what it made", lease.0),
            )
        })
    }

    /// The lease that was minted last: whatever a job that is over left is of it or of one before.
    pub(super) async fn last_lease(&self) -> Result<LeaseId, Refusal> {
        self.driver().await?.read(|view| view.scheduler.ledger().last_lease).await.map_err(unserved)
    }

    /// The pieces of an artifact of a job that is over, from an offset.
    pub(super) async fn artifact(
        &self,
        job: &StoredJob,
        name: &str,
        offset: u64,
    ) -> Result<impl Stream<Item = Result<v1::ReadArtifactResponse, Status>> + Send + use<>, Refusal> {
        let job_id = job.job_id.clone();
        let Phase::Ended(ended) = &job.row.phase else {
            let text = format!("job {job_id} is {}, there are no artifacts yet", state::word(job.row.phase.state()));
            return Err(Refusal::new(Reason::NotOver, text));
        };
        let missing = || Refusal::new(Reason::ArtifactNotFound, format!("job {job_id} has no artifact {name:?}"));
        let lease = ended.outcome_of.ok_or_else(missing)?;
        let artifact = self.named(&job_id, name).await?.ok_or_else(missing)?;
        let content = ContentHash::parse(&artifact.sha256).ok_or_else(missing)?;
        if offset > artifact.size_bytes {
            let text = format!("the artifact has {} bytes, it cannot be read from {offset}", artifact.size_bytes);
            return Err(Refusal::of_field("offset", text));
        }
        let busy = |_| Refusal::new(Reason::WatcherLimit, "too many artifacts are being read").retry_after(TRY_AGAIN);
        let seat = Arc::clone(&self.artifacts.reads).try_acquire_owned().map_err(busy)?;
        let key = Key { attempt: Attempt { job_id: job_id.clone(), lease }, content };
        let artifacts = self.artifacts.artifacts.clone();
        let size = artifacts.size(&key).await.map_err(refusal)?.ok_or_else(missing)?;
        if size != artifact.size_bytes {
            error!(job = %job_id, name, size, expected = artifact.size_bytes, "an artifact is damaged");
            return Err(Refusal::new(Reason::Internal, format!("the artifact {name:?} of job {job_id} is damaged")));
        }
        let reading = Reading { artifacts, key, ahead: Vec::new(), offset, size, header: Some(artifact) };
        Ok(stream::try_unfold((reading, seat), async |(reading, seat)| {
            Ok(reading.next().await?.map(|(response, reading)| (response, (reading, seat))))
        }))
    }

    /// The artifact of that name which a job's outcome refers to.
    async fn named(&self, job_id: &JobId, name: &str) -> Result<Option<v1::Artifact>, Refusal> {
        let asked = job_id.clone();
        let result = self.readers.read(move |store| store.result(&asked)).await.map_err(|error| unread(&error))?;
        let decoded = v1::JobResult::decode(&result.unwrap_or_default()[..]).map_err(|error| {
            Refusal::new(Reason::Internal, format!("the outcome of job {job_id} cannot be decoded: {error}"))
        })?;
        Ok(decoded.report_artifact.filter(|artifact| artifact.name == name))
    }
}

/// An artifact on its way to a reader.
struct Reading {
    artifacts: Artifacts,
    key: Key,
    /// Read, and not sent yet.
    ahead: Vec<u8>,
    /// Of the first byte that was not sent yet.
    offset: u64,
    size: u64,
    /// Sent first, also where no bytes follow.
    header: Option<v1::Artifact>,
}

impl Reading {
    async fn next(mut self) -> Result<Option<(v1::ReadArtifactResponse, Self)>, Status> {
        let offset = self.offset;
        if offset >= self.size && self.header.is_none() {
            return Ok(None);
        }
        if self.ahead.is_empty() && offset < self.size {
            let wanted = offset..self.size.min(offset.saturating_add(READ_BYTES_MAX));
            let bytes = self.artifacts.read(&self.key, wanted.clone()).await.map_err(refusal)?.unwrap_or_default();
            if bytes.len() as u64 != wanted.end - wanted.start {
                return Err(Refusal::new(Reason::Internal, "the artifact became shorter while it was read").into());
            }
            self.ahead = bytes;
        }
        let rest = self.ahead.split_off(self.ahead.len().min(PIECE_BYTES_MAX));
        let data = std::mem::replace(&mut self.ahead, rest);
        self.offset = offset.saturating_add(data.len() as u64);
        Ok(Some((v1::ReadArtifactResponse { offset, data, artifact: self.header.take() }, self)))
    }
}

fn announced(header: Option<&v1::ArtifactHeader>) -> Result<Announced, Refusal> {
    let header = header.ok_or_else(|| Refusal::of_field("header", "required in the first message"))?;
    let lease = lease_id(header.lease_id)?;
    let Some(artifact) = &header.artifact else { return Err(Refusal::of_field("header.artifact", "required")) };
    is_name(&artifact.name).map_err(|why| Refusal::of_field("header.artifact.name", why))?;
    if artifact.media_type.len() > MEDIA_TYPE_BYTES_MAX {
        let text = format!("at most {MEDIA_TYPE_BYTES_MAX} bytes");
        return Err(Refusal::of_field("header.artifact.media_type", text));
    }
    if artifact.size_bytes == 0 {
        return Err(Refusal::of_field("header.artifact.size_bytes", "must be at least 1"));
    }
    let content = ContentHash::parse(&artifact.sha256).ok_or_else(|| {
        Refusal::of_field("header.artifact.sha256", "must be a SHA-256 as 64 lower-case hexadecimal digits")
    })?;
    Ok(Announced { lease, content, size: artifact.size_bytes })
}

/// Whether a name can be a file's, anywhere: it never becomes one here, but whoever reads the artifact stores it under it.
fn is_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(format!("must be 1 to {NAME_BYTES_MAX} bytes, has {}", name.len()));
    }
    let strange = |found: &char| !(found.is_ascii_alphanumeric() || matches!(found, '.' | '_' | '-'));
    match name.chars().find(strange) {
        Some(found) => Err(format!("may hold A-Z a-z 0-9 . _ -, not {found:?}")),
        None if name.starts_with('.') => Err("may not begin with a dot".into()),
        None => Ok(()),
    }
}

fn sound(piece: v1::PutArtifactRequest) -> Result<v1::PutArtifactRequest, Refusal> {
    if piece.header.is_some() {
        return Err(Refusal::of_field("header", "only the first message may have one"));
    }
    if piece.data.len() > PIECE_BYTES_MAX {
        let text = format!("a piece has at most {PIECE_BYTES_MAX} bytes, this one has {}", piece.data.len());
        return Err(Refusal::of_field("data", text));
    }
    Ok(piece)
}

fn refusal(error: ArtifactError) -> Refusal {
    let text = error.to_string();
    match error {
        ArtifactError::TooLarge { .. } | ArtifactError::TooMany => Refusal::new(Reason::TooLarge, text),
        ArtifactError::Busy { .. } => Refusal::new(Reason::Unavailable, text).retry_after(TRY_AGAIN),
        ArtifactError::Gap { .. } => Refusal::of_field("offset", text),
        ArtifactError::Overrun { .. } => Refusal::of_field("data", text),
        ArtifactError::Mismatch { .. } => Refusal::of_field("header.artifact.sha256", text),
        ArtifactError::Disk { action, source } => {
            warn!(error = %source, "cannot {action} an artifact");
            let reason = match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Reason::Unavailable,
                _ => Reason::Internal,
            };
            Refusal::new(reason, format!("failed to {text}: {source}"))
        }
        // Whatever it is, the network, the bucket or the credentials, it is the operator's to mend, and nothing is lost till then.
        // What a bucket answers may tell of its insides: that is for the log.
        ArtifactError::Bucket { action, source } => {
            warn!(error = %source, "cannot {action} an artifact");
            Refusal::new(Reason::Unavailable, format!("failed to {text}: try again")).retry_after(TRY_AGAIN)
        }
        ArtifactError::Stopping => Refusal::new(Reason::Unavailable, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_file_names_and_nothing_else() {
        for name in ["report", "job-00001.result", "a", &"x".repeat(NAME_BYTES_MAX)] {
            assert_eq!(is_name(name), Ok(()), "{name}");
        }
        for name in ["", ".", "..", "../a", "/etc/passwd", "a/b", "a\\b", "a\0", "é", ".part", &"x".repeat(201)] {
            assert!(is_name(name).is_err(), "{name}");
        }
    }
}
