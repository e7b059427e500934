//! What must survive: jobs, their documents, their history and their results.
//!
//! Two doors. [`Store`] writes, and belongs to the driver alone, on the driver's own thread: waiting for the disk never holds
//! up the runtime. [`ReadStore`] answers questions about what is durable, from any number of threads, and never waits for the
//! writer. Both block; [`Readers`] is how asynchronous code reads.

mod codec;
mod events;
mod postgres;
mod read;
mod sqlite;

use std::collections::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guestkit_domain::{JobId, Time};
use guestkit_scheduler::{JobEntry, Ledger, Record, Want};
use tokio::sync::Semaphore;

pub use codec::{CodecError, state_number, state_of};
pub use postgres::{Candidate, Follower, Leader, Postgres, PostgresError, PostgresReader, PostgresStore};
pub use read::{
    Changes, JobFilter, JobNo, Page, PageToken, PageTokenError, Span, StoredChange, StoredDeletion, StoredEvent,
    StoredJob,
};
pub use sqlite::{SqliteReader, SqliteStore};

/// Names a process that may write. Raised at each opening, checked in each commit: a process that was replaced cannot write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database says no: a full disk, a broken file, a permission.
    #[error("{action}")]
    Sqlite {
        /// What was being done.
        action: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// PostgreSQL says no, or does not answer.
    #[error("{action}")]
    Postgres {
        /// What was being done.
        action: &'static str,
        /// What is wrong.
        source: PostgresError,
    },
    /// Something lies there that no version writes.
    #[error("read job {job}")]
    Damaged {
        /// Which job, or what else.
        job: String,
        /// What is wrong with it.
        source: CodecError,
    },
    /// Another process took the store over.
    #[error("the store belongs to another coordinator since epoch {ours} ended")]
    Deposed {
        /// The epoch that is over.
        ours: u64,
    },
    /// Written by a later version.
    #[error(
        "the store has schema {found}; this version knows up to {known}: run the version that wrote it, or a later one"
    )]
    TooNew {
        /// What lies there.
        found: u32,
        /// What is known.
        known: u32,
    },
    /// A record about a job that the store does not have.
    #[error("commit a change of job {job_id}, which the store does not have")]
    NoSuchJob {
        /// The job.
        job_id: JobId,
    },
}

impl StoreError {
    /// Whether the disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Sqlite { source: rusqlite::Error::SqliteFailure(error, _), .. } => {
                error.code == rusqlite::ErrorCode::DiskFull
            }
            Self::Postgres { source, .. } => source.is_full(),
            _ => false,
        }
    }

    /// Whether the next try may succeed without anybody's doing.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Postgres { source, .. } if source.may_pass())
    }
}

// Databases have signed integers; revisions, leases and times stay below 2^63 for longer than anybody waits.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The writing side.
pub trait Store: Send + 'static {
    /// Makes `records` durable, all or none, in one transaction. When this returns an error nothing was written, unless the
    /// connection to the store was lost on the way: then [`Self::probe`] and [`Self::load`] find out, for good.
    ///
    /// # Errors
    /// When the disk says no, or `epoch` is not the store's any more.
    fn commit(&mut self, epoch: Epoch, records: &[Record]) -> Result<(), StoreError>;

    /// Everything that is not over, and where the store stands.
    ///
    /// # Errors
    /// When it cannot be read.
    fn load(&self) -> Result<Ledger, StoreError>;

    /// A job, over or not, as the scheduler wants it; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn entry(&self, want: &Want) -> Result<Option<JobEntry>, StoreError>;

    /// The same of many, at the price of one where each question is a journey.
    ///
    /// # Errors
    /// When they cannot be read.
    fn entries(&self, wants: BTreeSet<Want>) -> Result<BTreeMap<Want, Option<JobEntry>>, StoreError> {
        wants.into_iter().map(|want| self.entry(&want).map(|entry| (want, entry))).collect()
    }

    /// Drops what was told of jobs that are gone, where a commit does not by itself: what is older than `before`, as far as it
    /// can be dropped without holding anybody up.
    ///
    /// # Errors
    /// When it could not.
    fn compact(&mut self, before: Time) -> Result<(), StoreError> {
        let _ = before;
        Ok(())
    }

    /// Writes something and makes it durable, to find out whether a commit could succeed; connects again where that is
    /// needed. After it nothing that was begun before can become durable any more.
    ///
    /// # Errors
    /// When it could not.
    fn probe(&mut self, epoch: Epoch) -> Result<(), StoreError>;
}

/// The reading side.
pub trait ReadStore: Send + Sync + 'static {
    /// One job.
    ///
    /// # Errors
    /// As all here: when the database cannot be read.
    fn job(&self, job_id: &JobId) -> Result<Option<StoredJob>, StoreError>;

    /// At most `page_size` jobs, newest first, that match, after `after`. A page may be shorter than asked for when its
    /// documents are large; only the last has no `next`.
    ///
    /// # Errors
    /// When the database cannot be read.
    fn list(&self, filter: &JobFilter, after: Option<JobNo>, page_size: usize) -> Result<Page, StoreError>;

    /// The log after `after` of the job with that number, at most `limit` entries. `None` when there is no such job, or not
    /// any more: a job that was deleted and submitted again has another number.
    ///
    /// # Errors
    /// When the database cannot be read.
    fn history(&self, job_no: JobNo, after: u64, limit: usize) -> Result<Option<Vec<StoredEvent>>, StoreError>;

    /// What happened in a span of revisions to jobs that match, in order, at most `limit` changes. A job that was deleted
    /// has its deletion left and nothing else.
    ///
    /// A job matches in what never changes of it. In state and worker an entry of its log matches when the job did after it
    /// or before it, so that leaving is told too; a deletion matches when the job did at its end.
    ///
    /// # Errors
    /// When the database cannot be read.
    fn changes(&self, filter: &JobFilter, span: Span, limit: usize) -> Result<Changes, StoreError>;

    /// Jobs that ended before an instant, at most `limit`, those that ended first before others.
    ///
    /// # Errors
    /// When the database cannot be read.
    fn expired(&self, before: Time, limit: usize) -> Result<Vec<JobId>, StoreError>;

    /// The encoded `JobResult` a worker made; `None` when there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    fn result(&self, job_id: &JobId) -> Result<Option<Vec<u8>>, StoreError>;

    /// The encoded `JobDocument`s of those of `job_ids` that there are.
    ///
    /// # Errors
    /// When the database cannot be read.
    fn documents(&self, job_ids: &[JobId]) -> Result<HashMap<JobId, Vec<u8>>, StoreError>;

    /// One of them; `None` when there is no such job.
    ///
    /// # Errors
    /// When the database cannot be read.
    fn document(&self, job_id: &JobId) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.documents(std::slice::from_ref(job_id))?.remove(job_id))
    }
}

/// Reads from asynchronous code: on the blocking pool, a bounded number at once.
#[derive(Clone)]
pub struct Readers {
    store: Arc<dyn ReadStore>,
    permits: Arc<Semaphore>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers").field("free", &self.permits.available_permits()).finish_non_exhaustive()
    }
}

impl Readers {
    /// Reads at once. A read is bound by memory bandwidth and the page cache: more threads than this only queue there.
    const AT_ONCE_MAX: usize = 8;

    /// Readers of `store`.
    #[must_use]
    pub fn new(store: Arc<dyn ReadStore>) -> Self {
        Self { store, permits: Arc::new(Semaphore::new(Self::AT_ONCE_MAX)) }
    }

    /// Runs `read` off the runtime.
    ///
    /// # Errors
    /// What `read` returns; [`ReadError::Stopping`] when the runtime ends meanwhile.
    pub async fn read<T, F>(&self, read: F) -> Result<T, ReadError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn ReadStore) -> Result<T, StoreError> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| ReadError::Stopping)?;
        let store = Arc::clone(&self.store);
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            read(&*store)
        });
        Ok(task.await.map_err(|_| ReadError::Stopping)??)
    }
}

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The coordinator is stopping.
    #[error("the coordinator is stopping")]
    Stopping,
}
