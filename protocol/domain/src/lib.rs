//! What the project talks about: jobs, leases and workers. No wire types, no runtime, no I/O: everything here is a checked value.

mod error_code;
mod ids;
mod spec;
mod time;

pub use error_code::ErrorCode;
pub use ids::{BootId, IdError, JobId, LeaseId, Namespace, Revision, SessionId, WorkerId};
pub use spec::{
    Backoff, Failure, IdempotencyPolicy, JobSpec, JobState, OutcomeStatus, Placement, Priority, Progress, RefusalFault,
    WorkerProfile,
};
pub use time::{Duration, Time};
