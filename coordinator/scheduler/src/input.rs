//! What can happen, as one enum: every wake-up of the scheduler is a value of [`Input`].
//!
//! The driver has checked each value before it comes here (identifiers, bounds, a stream's Hello being first); what only the
//! scheduler can know (whether a lease is current, whether a job exists) is answered by it.

use std::collections::BTreeMap;
use std::sync::Arc;

use guestkit_domain::{
    Duration, Failure, JobId, JobSpec, LeaseId, OutcomeStatus, Progress, RefusalFault, SessionId, Time, WorkerId,
    WorkerProfile,
};

use crate::ledger::JobEntry;

/// Names a caller that waits for a [`crate::Reply`]. Made by the driver; the scheduler only hands it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Bytes the scheduler carries from an input to a record without opening or keeping them.
pub type Body = Arc<[u8]>;

/// A lease a worker says to hold when it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The lease.
    pub lease: LeaseId,
    /// Its job.
    pub job_id: JobId,
    /// Whether the attempt is over and its outcome waits in the worker's spool.
    pub finished: bool,
}

/// Which workers a drain concerns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainTarget {
    /// This one.
    Worker(WorkerId),
    /// Every worker that has all of these labels, also those that connect later. The driver refuses an empty selector.
    Labels(BTreeMap<Arc<str>, Arc<str>>),
}

/// One thing that happened. Inputs of a session that is not the worker's newest are dropped without an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Somebody wants a job run. Answered by [`crate::Reply::Submitted`] or a refusal.
    Submit {
        /// Who waits.
        request: RequestId,
        /// The job. Its fingerprint must not cover what the coordinator filled in (`job_id` when minted, `created_at`).
        spec: Box<JobSpec>,
        /// The document, carried to the `Submitted` record.
        document: Body,
    },
    /// Somebody wants a job ended. Answered by [`crate::Reply::Job`] or a refusal.
    Cancel {
        /// Who waits.
        request: RequestId,
        /// The job.
        job_id: JobId,
        /// For the job's log and the worker's.
        reason: Arc<str>,
    },
    /// Somebody gives a job that is over a new attempt budget. Answered by [`crate::Reply::Job`] or a refusal.
    Retry {
        /// Who waits.
        request: RequestId,
        /// The job.
        job_id: JobId,
    },
    /// Somebody wants a job that is over forgotten. Answered by [`crate::Reply::Deleted`] or a refusal.
    Delete {
        /// Who waits.
        request: RequestId,
        /// The job.
        job_id: JobId,
    },
    /// Jobs that the store says have been over since before an instant are to be forgotten. Answered by
    /// [`crate::Reply::Expired`].
    Expire {
        /// Who waits.
        request: RequestId,
        /// The jobs.
        jobs: Vec<JobId>,
        /// Those that ended before it.
        before: Time,
    },
    /// A job that is over and was dropped from memory is needed again: see [`crate::Scheduler::wants`]. No record, no answer.
    Recall {
        /// As the store has it.
        entry: Box<JobEntry>,
    },
    /// A worker's stream opened and said Hello. Answered by [`crate::ToWorker::Welcome`].
    Connect {
        /// Minted by the driver, never used twice in one process.
        session: SessionId,
        /// What the worker is.
        profile: Box<WorkerProfile>,
        /// What it holds.
        held: Vec<Held>,
    },
    /// A stream ended, for whatever reason. Its leases stand until the worker's time is out.
    Disconnect {
        /// The stream.
        session: SessionId,
    },
    /// The worker lives.
    Heartbeat {
        /// The stream.
        session: SessionId,
        /// Handed back in the answer.
        sequence: u64,
    },
    /// The worker takes a lease.
    Accept {
        /// The stream.
        session: SessionId,
        /// The lease.
        lease: LeaseId,
    },
    /// The worker declines a lease.
    Refuse {
        /// The stream.
        session: SessionId,
        /// The lease.
        lease: LeaseId,
        /// Whose fault it is.
        fault: RefusalFault,
        /// Why.
        failure: Failure,
    },
    /// An attempt went on.
    Progress {
        /// The stream.
        session: SessionId,
        /// The lease.
        lease: LeaseId,
        /// How far.
        progress: Progress,
    },
    /// An attempt ended. Answered by [`crate::ToWorker::OutcomeAck`].
    Outcome {
        /// The stream.
        session: SessionId,
        /// The lease.
        lease: LeaseId,
        /// The job, which finds it again when the lease is no longer current.
        job_id: JobId,
        /// How.
        status: OutcomeStatus,
        /// Why it did not complete.
        failure: Option<Failure>,
        /// The outcome document, carried to the record that ends the job.
        result: Body,
    },
    /// A worker asks for no more work.
    Draining {
        /// The stream.
        session: SessionId,
    },
    /// An operator wants no new work for some workers. Answered by [`crate::Reply::Workers`].
    Drain {
        /// Who waits.
        request: RequestId,
        /// Which workers.
        target: DrainTarget,
        /// After which what still runs goes elsewhere; unlimited when absent.
        deadline: Option<Duration>,
    },
    /// An operator ends a drain; the target must be the same. Answered by [`crate::Reply::Workers`] or a refusal.
    Resume {
        /// Who waits.
        request: RequestId,
        /// Which workers.
        target: DrainTarget,
    },
    /// Time passed. The driver hands it in after the inputs it has gathered, when [`crate::Scheduler::next_deadline`] is not
    /// after now: what arrived in time counts before what is overdue.
    Wake,
}
