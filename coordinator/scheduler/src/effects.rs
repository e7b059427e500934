//! What follows from an input.
//!
//! Two kinds: **durable** ([`Effects::records`], to be committed in one transaction) and **to be released** (replies, sends,
//! notices). The second kind cannot be taken out before the driver names the revision that is durable: nothing leaves the
//! coordinator before its record.

use std::sync::Arc;

use guestkit_domain::{Duration, JobId, JobState, LeaseId, Revision, SessionId, WorkerId};

use crate::input::RequestId;
use crate::ledger::{JobRow, Record};

/// What followed from the inputs since the last commit.
#[derive(Debug, Default)]
#[must_use = "records that are not committed are lost"]
pub struct Effects {
    pub(crate) records: Vec<Record>,
    pub(crate) replies: Vec<(RequestId, Reply)>,
    pub(crate) sends: Vec<(SessionId, ToWorker)>,
    pub(crate) notices: Vec<Notice>,
}

/// What may leave the coordinator, in the order it was decided.
#[derive(Debug, Default)]
pub struct Released {
    /// What is durable now: each is one entry of a job's log, for watchers.
    pub records: Vec<Record>,
    /// Answers to callers.
    pub replies: Vec<(RequestId, Reply)>,
    /// Messages to workers. A session that is not open any more is no error: its leases find their own way.
    pub sends: Vec<(SessionId, ToWorker)>,
    /// Changes of workers, for watchers of the fleet; they are not kept.
    pub notices: Vec<Notice>,
}

/// The driver wanted to release what is not durable yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("revision {needed:?} is not durable, only {durable:?} is")]
pub struct NotDurable {
    /// The last record's revision.
    pub needed: Revision,
    /// What the driver named.
    pub durable: Revision,
}

impl Effects {
    /// What must be made durable, in order, in one transaction.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The revision the store has to reach; `None` when there is nothing to make durable.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.records.last().map(|record| record.revision)
    }

    /// Whether nothing followed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.replies.is_empty() && self.sends.is_empty() && self.notices.is_empty()
    }

    /// Lets everything go, now that the store is at `durable`.
    ///
    /// # Errors
    /// When a record is newer than `durable`: the driver must then drop the scheduler and restore it from the store.
    pub fn release(self, durable: Revision) -> Result<Released, NotDurable> {
        match self.revision() {
            Some(needed) if needed > durable => Err(NotDurable { needed, durable }),
            _ => {
                Ok(Released { records: self.records, replies: self.replies, sends: self.sends, notices: self.notices })
            }
        }
    }
}

/// An answer to a caller.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// The job is taken, or was there already.
    Submitted {
        /// The job; not always the one named in the request: an idempotency key may have led to another.
        job_id: JobId,
        /// As it is now.
        row: JobRow,
        /// Whether it was there already.
        existing: bool,
    },
    /// The job as it is now.
    Job {
        /// The job.
        job_id: JobId,
        /// As it is now.
        row: JobRow,
    },
    /// The job is forgotten.
    Deleted,
    /// The jobs that are forgotten because they have been over for long.
    Expired(Vec<JobId>),
    /// The connected workers that a drain or resume concerns.
    Workers(Vec<WorkerId>),
    /// No.
    Refused(Refusal),
}

/// Why a request was not obeyed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too many jobs are not over yet.
    #[error("the queue is full: {limit} jobs are not over yet")]
    QueueFull {
        /// The bound.
        limit: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// The name is taken by another document.
    #[error("job {job_id} exists with another document")]
    JobExists {
        /// The job that is there.
        job_id: JobId,
    },
    /// The idempotency key is taken by another document.
    #[error("idempotency key {key:?} was used for job {job_id} with another document")]
    KeyExists {
        /// The key.
        key: Arc<str>,
        /// The job that is there.
        job_id: JobId,
    },
    /// No such job.
    #[error("no job {job_id}")]
    JobNotFound {
        /// The name asked for.
        job_id: JobId,
    },
    /// The document says `cancellable: false`.
    #[error("job {job_id} is not cancellable")]
    NotCancellable {
        /// The job.
        job_id: JobId,
    },
    /// Too late: the job is over.
    #[error("job {job_id} is over ({state:?})")]
    Over {
        /// The job.
        job_id: JobId,
        /// Its state.
        state: JobState,
    },
    /// Too early: the job is not over.
    #[error("job {job_id} is not over ({state:?})")]
    NotOver {
        /// The job.
        job_id: JobId,
        /// Its state.
        state: JobState,
    },
    /// A new attempt could not be in time.
    #[error("the deadline of job {job_id} has passed")]
    DeadlinePassed {
        /// The job.
        job_id: JobId,
    },
    /// No drain with exactly this target.
    #[error("no drain with this target")]
    NoSuchDrain,
    /// Too many drains.
    #[error("there are {limit} drains already")]
    TooManyDrains {
        /// The bound.
        limit: usize,
    },
}

/// A message to a worker. The driver adds what only the store has (a lease's document).
#[derive(Debug, Clone, PartialEq)]
pub enum ToWorker {
    /// Answers Hello.
    Welcome {
        /// How often to send a heartbeat.
        heartbeat_interval: Duration,
        /// When to send the first.
        first_heartbeat: Duration,
        /// How long a lease stands without a word.
        lease_ttl: Duration,
        /// How soon a lease must be answered.
        accept_timeout: Duration,
        /// One per lease held, in the order of the Hello.
        held: Vec<(LeaseId, HeldDecision)>,
    },
    /// Offers an attempt.
    Lease {
        /// Names the attempt.
        lease: LeaseId,
        /// The job, whose document the driver adds.
        job_id: JobId,
        /// Which attempt it is, from 1.
        attempt: u32,
        /// How long it may run from its acceptance.
        timeout: Duration,
    },
    /// Asks for an attempt to end.
    Cancel {
        /// The lease.
        lease: LeaseId,
        /// Why.
        reason: Arc<str>,
        /// Whether an outcome is wanted (a cancel) or not (the lease is void).
        outcome_wanted: bool,
    },
    /// Answers an outcome.
    OutcomeAck {
        /// The lease.
        lease: LeaseId,
        /// What became of it.
        verdict: OutcomeVerdict,
    },
    /// Answers a heartbeat.
    HeartbeatAck {
        /// The heartbeat's.
        sequence: u64,
        /// How often to send one from now on.
        heartbeat_interval: Duration,
    },
    /// Asks the worker to leave when its attempts have ended.
    Drain {
        /// Then the rest goes elsewhere; unlimited when absent.
        deadline: Option<Duration>,
    },
    /// Says why the stream ends. The driver closes it afterwards.
    Goodbye {
        /// Why.
        reason: GoodbyeReason,
    },
}

/// What to do with a lease that a worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldDecision {
    /// Go on.
    Keep,
    /// It is void: end the attempt, drop what it made.
    Stop,
    /// Send its outcome.
    Deliver,
}

/// What became of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeVerdict {
    /// It counts, and is durable.
    Recorded,
    /// Its lease was not the job's current one.
    Stale,
}

/// Why the coordinator ends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoodbyeReason {
    /// A newer session of the same worker took over.
    Superseded,
    /// Nothing was heard for the lease's whole time: its leases are void.
    Silent,
    /// More workers than the coordinator keeps.
    TooManyWorkers,
}

/// Something watchers of the fleet want to know. Not kept: after a restart workers connect again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The worker is to be read again: [`crate::Scheduler::worker`].
    WorkerChanged {
        /// Which.
        worker_id: WorkerId,
    },
}

#[cfg(test)]
mod tests {
    use guestkit_domain::{SessionId, Time};

    use super::*;
    use crate::input::DrainTarget;
    use crate::ledger::Change;

    #[test]
    fn nothing_is_released_before_its_record_is_durable() {
        for (durable, released) in [(6, false), (7, true), (8, true)] {
            let change = Change::Resume { target: DrainTarget::Worker(WorkerId::new("w1").unwrap()) };
            let effects = Effects {
                records: vec![Record { revision: Revision(7), at: Time(0), change }],
                sends: vec![(SessionId(1), ToWorker::Drain { deadline: None })],
                ..Effects::default()
            };
            assert_eq!(effects.release(Revision(durable)).is_ok(), released, "at revision {durable}");
        }
    }
}
