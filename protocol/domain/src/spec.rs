//! What the scheduler decides with: the part of a job document and of a worker's description that placement, time and
//! retries depend on. Documents and reports themselves stay in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::{BootId, Duration, ErrorCode, JobId, Namespace, Time, WorkerId};

/// 1 to 10, higher first; 5 unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// Checks `value`; `None` outside 1 to 10.
    #[must_use]
    pub fn new(value: i64) -> Option<Self> {
        u8::try_from(value).ok().filter(|v| (1..=10).contains(v)).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

/// How long to wait before the next attempt of a job that failed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// Before the second attempt.
    pub initial: Duration,
    /// Never longer.
    pub max: Duration,
    /// Growth per attempt, 1.0 to 10.0.
    pub multiplier: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), max: Duration::from_secs(300), multiplier: 2.0 }
    }
}

/// What a worker must have. Jobs with equal placements form one class: eligibility is decided per class, not per job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Placement {
    /// The operation.
    pub operation: Arc<str>,
    /// Operations and things read that the worker must have announced.
    pub capabilities: BTreeSet<Arc<str>>,
    /// Features its operator must have declared.
    pub features: BTreeSet<Arc<str>>,
    /// Lowest worker version.
    pub minimum_version: Option<semver::Version>,
    /// Only privileged workers.
    pub privileged: bool,
    /// Only these pools; empty is any.
    pub pools: BTreeSet<Arc<str>>,
    /// Only this worker.
    pub worker: Option<WorkerId>,
    /// Labels that rule a worker out.
    pub anti_affinity: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Folder that holds the image, without the file's name; a worker is eligible if one of its image roots contains it.
    pub image_folder: Option<Arc<str>>,
}

/// What becomes of a submission whose idempotency key leads to a job that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum IdempotencyPolicy {
    /// The same document is the job that is there; another is refused.
    #[default]
    SameDocument,
    /// It is the job that is there, whatever its document.
    UseExisting,
    /// It is refused.
    Fail,
    /// Another document takes the place of a job that was not begun; otherwise as [`Self::SameDocument`].
    ReplaceQueued,
}

impl IdempotencyPolicy {
    /// Its word in a job document.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::SameDocument => "",
            Self::UseExisting => "use_existing",
            Self::Fail => "fail",
            Self::ReplaceQueued => "replace_queued",
        }
    }

    /// The policy of a word; `None` for one that is not known.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        [Self::SameDocument, Self::UseExisting, Self::Fail, Self::ReplaceQueued].into_iter().find(|p| p.word() == word)
    }
}

/// A job as the scheduler keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSpec {
    /// Its name.
    pub job_id: JobId,
    /// Whose fair share it counts against.
    pub namespace: Namespace,
    /// Two submissions with one key in one namespace are one job.
    pub idempotency_key: Option<Arc<str>>,
    /// What becomes of this submission if its key leads to a job that is there.
    pub idempotency_policy: IdempotencyPolicy,
    /// For how long after this job's end its key leads to it; as long as it is kept when absent.
    pub idempotency_ttl: Option<Duration>,
    /// SHA-256 of the canonical document: tells a repeated submission from a different one.
    pub fingerprint: [u8; 32],
    /// What a worker must have.
    pub placement: Arc<Placement>,
    /// Labels preferred in a worker.
    pub affinity: BTreeMap<Arc<str>, Arc<str>>,
    /// Higher first.
    pub priority: Priority,
    /// Failed attempts allowed.
    pub max_attempts: u32,
    /// Time of one attempt, from its acceptance.
    pub timeout: Duration,
    /// How long it may wait in the queue at a time.
    pub queue_timeout: Option<Duration>,
    /// End of the whole job.
    pub deadline: Option<Time>,
    /// Not run before.
    pub not_before: Option<Time>,
    /// Between failed attempts.
    pub backoff: Backoff,
    /// Whether Cancel is obeyed.
    pub cancellable: bool,
    /// Jobs with the same key share the operator's limit for it.
    pub concurrency_key: Option<Arc<str>>,
    /// Submission, by the coordinator's clock.
    pub created_at: Time,
}

/// A worker as the scheduler keeps it, from its Hello.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerProfile {
    /// The name it keeps across restarts.
    pub worker_id: WorkerId,
    /// This start of its process.
    pub boot_id: BootId,
    /// Which of that process's streams says so: the higher is the newer; 0 where it does not count them.
    pub stream: u64,
    /// Operations and things read.
    pub capabilities: BTreeSet<Arc<str>>,
    /// Features its operator declared.
    pub features: BTreeSet<Arc<str>>,
    /// Its version.
    pub version: semver::Version,
    /// Its pool.
    pub pool: Arc<str>,
    /// Its labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Attempts at once.
    pub slots: u32,
    /// Whether it runs privileged.
    pub privileged: bool,
    /// Folders beneath which it opens images.
    pub image_roots: Vec<Arc<str>>,
}

/// Where a job is. Terminal states never change, except that a person may ask for a retry.
///
/// ```text
/// submit ─► Pending ─► Queued ─► Assigned ─► Running ─► Completed | Failed | Timeout
///              ▲          ▲ ▲        │          │ │
///              │          │ └────────┘          │ └─► Cancelling ─► Cancelled
///              │          └── lease lost ───────┤
///              └───────── failed, retryable ────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobState {
    /// Waits for an instant: not_before or a retry's backoff.
    Pending,
    /// Waits for a worker.
    Queued,
    /// Leased, not yet accepted.
    Assigned,
    /// Accepted.
    Running,
    /// A cancel was asked for and not confirmed.
    Cancelling,
    /// Over: the report is there.
    Completed,
    /// Over: see the error.
    Failed,
    /// Over: a person asked.
    Cancelled,
    /// Over: out of time.
    Timeout,
}

impl JobState {
    /// Whether the job is over.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Timeout)
    }
}

/// How an attempt ended, as its worker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutcomeStatus {
    /// The report is there.
    Completed,
    /// See the failure.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// It ran out of its time.
    Timeout,
}

/// Why an attempt did not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The code.
    pub code: ErrorCode,
    /// For people.
    pub message: Arc<str>,
}

/// Whose fault a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalFault {
    /// The document's: counts as a failed attempt.
    Job,
    /// The worker's: does not count; the worker is passed over for this job.
    Worker,
    /// Nobody's: does not count.
    Busy,
}

/// How far an attempt is, as far as the scheduler cares: that it never falls.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// 0.0 to 100.0.
    pub percent: f64,
    /// Phase, message and details, encoded by the shell and carried unopened.
    pub body: Arc<[u8]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_one_to_ten() {
        for value in 1..=10 {
            assert_eq!(Priority::new(value).map(|priority| i64::from(priority.get())), Some(value));
        }
        for value in [0, 11, -1, 256, 257, i64::MAX, i64::MIN] {
            assert_eq!(Priority::new(value), None, "{value}");
        }
        assert_eq!(Priority::default().get(), 5);
    }
}
