//! Whole artifacts: objects named `<job id>/<lease id>/<sha-256>`, in a local folder or in a bucket.
//!
//! What is put is durable before [`Objects::put`] ends: a bucket answers then, and in a folder the file and every new entry of
//! the folders above it are synced (`with_fsync`). An object appears whole or not at all in either.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use guestkit_domain::{JobId, LeaseId};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload, RetryConfig};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::folder::Folder;
use super::{ArtifactError, Attempt, ContentHash, Key, blocking, disk};
use crate::config::{ArtifactsLocation, AwsSettings};

/// Bytes of one part of a large object; a bucket takes no smaller ones.
const PART_BYTES: usize = 5 * 1024 * 1024;

/// Objects that are put at once: each has a part in memory.
const PUTS_MAX: usize = 8;

/// Objects whose attempts are asked for at once in a sweep: a bucket lists as many at a time.
const SWEEP_BATCH: usize = 1000;

/// A request that failed is tried again so often and for so long; then whoever asked is told to come again.
const RETRIES_MAX: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// One object, as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) key: Key,
    pub(super) size: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    place: Place,
    puts: Arc<Semaphore>,
}

#[derive(Debug, Clone)]
enum Place {
    Folder(Folder),
    /// Below this prefix of a bucket.
    Bucket(Path),
}

impl Objects {
    /// Opens a location, or the folder `local` where none is given. A bucket is not asked for anything yet: one that is away
    /// for now keeps nobody from starting.
    pub(super) fn open(
        location: Option<&ArtifactsLocation>,
        local: PathBuf,
        aws: &AwsSettings,
    ) -> Result<Self, ArtifactError> {
        let (store, place): (Arc<dyn ObjectStore>, _) = match location {
            Some(ArtifactsLocation::Bucket { name, prefix }) => {
                let prefix = Path::parse(prefix).map_err(|error| ArtifactError::store("open", error.into()))?;
                (Arc::new(bucket(name, aws)?), Place::Bucket(prefix))
            }
            other => {
                let path = match other {
                    Some(ArtifactsLocation::Folder(path)) => path.clone(),
                    _ => local,
                };
                let folder = Folder::open(path).map_err(disk("make a folder for"))?;
                let store = LocalFileSystem::new_with_prefix(folder.path());
                let store = store.map_err(|error| ArtifactError::store("open", error))?;
                (Arc::new(store.with_fsync(true)), Place::Folder(folder))
            }
        };
        Ok(Self { store, place, puts: Arc::new(Semaphore::new(PUTS_MAX)) })
    }

    fn failed(&self, action: &'static str) -> impl Fn(object_store::Error) -> ArtifactError + use<> {
        let is_far = matches!(self.place, Place::Bucket(_));
        move |source| match is_far {
            true => ArtifactError::Bucket { action, source },
            false => ArtifactError::store(action, source),
        }
    }

    fn prefix(&self) -> Path {
        match &self.place {
            Place::Folder(_) => Path::ROOT,
            Place::Bucket(prefix) => prefix.clone(),
        }
    }

    fn path(&self, key: &Key) -> Path {
        let Attempt { job_id, lease } = &key.attempt;
        self.prefix().join(job_id.as_str()).join(lease.0.to_string()).join(key.content.to_string())
    }

    /// The key of a path; `None` for whatever else lies there.
    fn key(&self, path: &Path) -> Option<Key> {
        let prefix = self.prefix();
        let mut parts = path.prefix_match(&prefix)?;
        let (job, lease, content) = (parts.next()?, parts.next()?, parts.next()?);
        let attempt = Attempt { job_id: JobId::new(job.as_ref()).ok()?, lease: LeaseId(lease.as_ref().parse().ok()?) };
        Some(Key { attempt, content: ContentHash::parse(content.as_ref())? })
    }

    fn list(&self, prefix: &Path) -> BoxStream<'static, Result<Object, ArtifactError>> {
        let (this, failed) = (self.clone(), self.failed("list"));
        let listed = self.store.list(Some(prefix));
        let named = listed.try_filter_map(move |found| {
            let object = this.key(&found.location).map(|key| Object { key, size: found.size });
            async { Ok(object) }
        });
        named.map_err(failed).boxed()
    }

    /// Those of a job; its earlier attempts' are removed when a later one begins, so they are few.
    pub(super) async fn of(&self, job_id: &JobId) -> Result<Vec<Object>, ArtifactError> {
        self.list(&self.prefix().join(job_id.as_str())).try_collect().await
    }

    /// Bytes of an object; `None` when it is not there.
    pub(super) async fn size(&self, key: &Key) -> Result<Option<u64>, ArtifactError> {
        match self.store.head(&self.path(key)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("look for")(error)),
        }
    }

    /// Some of an object's bytes; `None` when it is not there any more.
    pub(super) async fn read(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Option<Vec<u8>>, ArtifactError> {
        match self.store.get_range(&self.path(key), range).await {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read")(error)),
        }
    }

    /// Puts the file's content, whatever lies there by that name: it has the same bytes.
    pub(super) async fn put(&self, key: &Key, file: &FilePath) -> Result<(), ArtifactError> {
        // Never closed.
        let Ok(_turn) = self.puts.acquire().await else { return Err(ArtifactError::Busy { what: "stopping" }) };
        let (file, first) = next_part(open(file).await?).await?;
        let path = self.path(key);
        if first.len() < PART_BYTES {
            return self.store.put(&path, first.into()).await.map(drop).map_err(self.failed("keep"));
        }
        let mut upload = self.store.put_multipart(&path).await.map_err(self.failed("keep"))?;
        let sent = self.put_parts(upload.as_mut(), file, first).await;
        if sent.is_err()
            && let Err(error) = upload.abort().await
        {
            // The bucket's own rule for unfinished uploads removes them.
            warn!(%error, "parts of an artifact stay in the bucket");
        }
        sent
    }

    async fn put_parts(
        &self,
        upload: &mut dyn MultipartUpload,
        mut file: File,
        first: Vec<u8>,
    ) -> Result<(), ArtifactError> {
        let mut part = first;
        while !part.is_empty() {
            upload.put_part(PutPayload::from(part)).await.map_err(self.failed("keep"))?;
            (file, part) = next_part(file).await?;
        }
        upload.complete().await.map(drop).map_err(self.failed("keep"))
    }

    /// Attempts of a job that have something here, in order.
    pub(super) async fn attempts_of(&self, job_id: &JobId) -> Result<BTreeSet<Attempt>, ArtifactError> {
        match &self.place {
            // Also those of which nothing but an unfinished file is there.
            Place::Folder(folder) => {
                let (folder, job_id) = (folder.clone(), job_id.clone());
                blocking(move || Ok(folder.attempts_of(&job_id).into_iter().collect())).await
            }
            Place::Bucket(_) => Ok(self.of(job_id).await?.into_iter().map(|object| object.key.attempt).collect()),
        }
    }

    /// Every attempt that has something here, in batches: all of a batch were there before the batch is told.
    pub(super) fn attempts(&self) -> BoxStream<'static, Result<BTreeSet<Attempt>, ArtifactError>> {
        match &self.place {
            Place::Folder(folder) => {
                let folder = folder.clone();
                stream::once(blocking(move || Ok(folder.attempts().into_iter().collect()))).boxed()
            }
            Place::Bucket(prefix) => {
                let attempts = self.list(prefix).map_ok(|object| object.key.attempt).chunks(SWEEP_BATCH);
                attempts.map(|batch| batch.into_iter().collect()).boxed()
            }
        }
    }

    /// Removes all of an attempt. What stays is told in the log: it is removed by a later sweep.
    pub(super) async fn remove(&self, attempt: Attempt) {
        match &self.place {
            Place::Folder(folder) => {
                let folder = folder.clone();
                let _ = blocking(move || {
                    folder.remove(&attempt);
                    Ok(())
                })
                .await;
            }
            Place::Bucket(prefix) => {
                let below = prefix.clone().join(attempt.job_id.as_str()).join(attempt.lease.0.to_string());
                let names = self.store.list(Some(&below)).map_ok(|found| found.location).boxed();
                let removed: Result<Vec<Path>, _> = self.store.delete_stream(names).try_collect().await;
                let (job, lease) = (&attempt.job_id, attempt.lease.0);
                match removed {
                    Ok(_) => info!(%job, lease, "artifacts removed"),
                    Err(error) => warn!(%job, lease, %error, "artifacts stay until the next sweep"),
                }
            }
        }
    }
}

fn bucket(name: &str, aws: &AwsSettings) -> Result<object_store::aws::AmazonS3, ArtifactError> {
    // It fails where one was chosen before; then that one serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = RetryConfig {
        backoff: BackoffConfig { init_backoff: RETRY_PAUSE, max_backoff: RETRY_PAUSE_MAX, base: 2.0 },
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIMEOUT,
    };
    let known = aws.iter().filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)));
    let builder = known.fold(AmazonS3Builder::new(), |builder, (setting, value)| builder.with_config(setting, value));
    let built = builder.with_bucket_name(name).with_retry(retry).build();
    built.map_err(|source| ArtifactError::Bucket { action: "open the bucket of", source })
}

async fn open(path: &FilePath) -> Result<File, ArtifactError> {
    let path = path.to_path_buf();
    blocking(move || File::open(path).map_err(disk("read"))).await
}

/// The next bytes of a file, as many as a part has; fewer at its end.
async fn next_part(file: File) -> Result<(File, Vec<u8>), ArtifactError> {
    blocking(move || {
        let mut part = Vec::new();
        (&file).take(PART_BYTES as u64).read_to_end(&mut part).map_err(disk("read"))?;
        Ok((file, part))
    })
    .await
}

/// What the operating system said, where an error of a local folder comes from it.
pub(super) fn cause(error: &object_store::Error) -> Option<&io::Error> {
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
