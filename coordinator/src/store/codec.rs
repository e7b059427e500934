//! How the scheduler's values lie in the store: protobuf messages of our own, so that a later version adds fields and still
//! reads what an older one wrote.

use std::collections::BTreeMap;
use std::sync::Arc;

use guestkit_domain::{
    Backoff, BootId, Duration, ErrorCode, Failure, IdempotencyPolicy, JobId, JobSpec, JobState, LeaseId, Namespace,
    Placement, Priority, Revision, Time, WorkerId,
};
use guestkit_scheduler::{DrainTarget, Ended, JobEntry, JobRow, Lease, Phase};
use prost::Message;

use super::{StoreError, unsigned};

/// What lies in the store is not what this version writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not protobuf.
    #[error("decode {what}")]
    Protobuf {
        /// Which value.
        what: &'static str,
        /// Why.
        source: prost::DecodeError,
    },
    /// A field has a value that no version writes.
    #[error("decode {what}: {field} is not valid")]
    Field {
        /// Which value.
        what: &'static str,
        /// Which field.
        field: &'static str,
    },
}

/// `JobState` as a number: the one of the wire.
#[must_use]
pub fn state_number(state: JobState) -> i32 {
    match state {
        JobState::Pending => 1,
        JobState::Queued => 2,
        JobState::Assigned => 3,
        JobState::Running => 4,
        JobState::Cancelling => 5,
        JobState::Completed => 6,
        JobState::Failed => 7,
        JobState::Cancelled => 8,
        JobState::Timeout => 9,
    }
}

/// The state of a number.
///
/// # Errors
/// When no state has it.
pub fn state_of(number: i64) -> Result<JobState, CodecError> {
    Ok(match number {
        1 => JobState::Pending,
        2 => JobState::Queued,
        3 => JobState::Assigned,
        4 => JobState::Running,
        5 => JobState::Cancelling,
        6 => JobState::Completed,
        7 => JobState::Failed,
        8 => JobState::Cancelled,
        9 => JobState::Timeout,
        _ => return Err(CodecError::Field { what: "a job", field: "state" }),
    })
}

#[derive(Clone, PartialEq, Message)]
struct Row {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(uint32, tag = "3")]
    attempt: u32,
    #[prost(uint32, tag = "4")]
    failed_attempts: u32,
    #[prost(uint32, tag = "5")]
    lost_attempts: u32,
    #[prost(double, tag = "6")]
    percent: f64,
    #[prost(btree_map = "string, string", tag = "7")]
    declined: BTreeMap<String, String>,
    #[prost(int32, tag = "8")]
    state: i32,
    /// Pending: until. Queued, Assigned and Cancelling: since. Ended: at.
    #[prost(uint64, tag = "9")]
    at: u64,
    #[prost(uint64, optional, tag = "10")]
    started: Option<u64>,
    #[prost(message, optional, tag = "11")]
    lease: Option<StoredLease>,
    #[prost(string, optional, tag = "12")]
    last_worker: Option<String>,
    #[prost(uint64, optional, tag = "13")]
    outcome_of: Option<u64>,
    #[prost(message, optional, tag = "14")]
    failure: Option<StoredFailure>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredLease {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    worker: String,
    #[prost(string, tag = "3")]
    boot: String,
    #[prost(uint64, tag = "4")]
    offered: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StoredFailure {
    #[prost(string, tag = "1")]
    code: String,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct Spec {
    #[prost(string, tag = "1")]
    job_id: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, optional, tag = "3")]
    idempotency_key: Option<String>,
    #[prost(bytes = "vec", tag = "4")]
    fingerprint: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    placement: Option<StoredPlacement>,
    #[prost(btree_map = "string, string", tag = "6")]
    affinity: BTreeMap<String, String>,
    #[prost(uint32, tag = "7")]
    priority: u32,
    #[prost(uint32, tag = "8")]
    max_attempts: u32,
    #[prost(uint64, tag = "9")]
    timeout_ms: u64,
    #[prost(uint64, optional, tag = "10")]
    deadline: Option<u64>,
    #[prost(uint64, optional, tag = "11")]
    not_before: Option<u64>,
    #[prost(uint64, tag = "12")]
    backoff_initial_ms: u64,
    #[prost(uint64, tag = "13")]
    backoff_max_ms: u64,
    #[prost(double, tag = "14")]
    backoff_multiplier: f64,
    #[prost(bool, tag = "15")]
    cancellable: bool,
    #[prost(string, optional, tag = "16")]
    concurrency_key: Option<String>,
    #[prost(uint64, tag = "17")]
    created_at: u64,
    #[prost(string, tag = "18")]
    idempotency_policy: String,
    #[prost(uint64, optional, tag = "19")]
    idempotency_ttl_ms: Option<u64>,
    #[prost(uint64, optional, tag = "20")]
    queue_timeout_ms: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredPlacement {
    #[prost(string, tag = "1")]
    operation: String,
    #[prost(string, repeated, tag = "2")]
    capabilities: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    features: Vec<String>,
    #[prost(string, optional, tag = "4")]
    minimum_version: Option<String>,
    #[prost(bool, tag = "5")]
    privileged: bool,
    #[prost(string, repeated, tag = "6")]
    pools: Vec<String>,
    #[prost(string, optional, tag = "7")]
    worker: Option<String>,
    #[prost(btree_map = "string, message", tag = "8")]
    anti_affinity: BTreeMap<String, Texts>,
    #[prost(string, optional, tag = "9")]
    image_folder: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Texts {
    #[prost(string, repeated, tag = "1")]
    texts: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Target {
    #[prost(string, optional, tag = "1")]
    worker: Option<String>,
    #[prost(btree_map = "string, string", tag = "2")]
    labels: BTreeMap<String, String>,
}

/// Encodes the changeable part of a job.
#[must_use]
pub(super) fn encode_row(row: &JobRow) -> Vec<u8> {
    let (at, last_worker, outcome_of, failure) = match &row.phase {
        Phase::Pending { until } => (until.0, None, None, None),
        Phase::Queued { since } | Phase::Assigned { since, .. } | Phase::Cancelling { since, .. } => {
            (since.0, None, None, None)
        }
        Phase::Running { .. } => (0, None, None, None),
        Phase::Ended(ended) => (
            ended.at.0,
            ended.worker.as_ref().map(ToString::to_string),
            ended.outcome_of.map(|lease| lease.0),
            ended.failure.as_ref(),
        ),
    };
    Row {
        sequence: row.sequence,
        revision: row.revision.0,
        attempt: row.attempt,
        failed_attempts: row.failed_attempts,
        lost_attempts: row.lost_attempts,
        percent: row.percent,
        declined: row.declined.iter().map(|(worker, boot)| (worker.to_string(), boot.to_string())).collect(),
        state: state_number(row.phase.state()),
        at,
        started: row.phase.started().map(|at| at.0),
        lease: row.phase.lease().map(|lease| StoredLease {
            id: lease.id.0,
            worker: lease.worker.to_string(),
            boot: lease.boot.to_string(),
            offered: lease.offered.0,
        }),
        last_worker,
        outcome_of,
        failure: failure
            .map(|failure| StoredFailure { code: failure.code.to_string(), message: failure.message.to_string() }),
    }
    .encode_to_vec()
}

const ROW: &str = "a job's row";
const SPEC: &str = "a job's specification";
const TARGET: &str = "a drain's target";

fn invalid<E>(what: &'static str, field: &'static str) -> impl FnOnce(E) -> CodecError {
    move |_| CodecError::Field { what, field }
}

/// Reads [`encode_row`] back.
///
/// # Errors
/// When the bytes are not what this or an older version wrote.
pub(super) fn decode_row(bytes: &[u8]) -> Result<JobRow, CodecError> {
    let row = Row::decode(bytes).map_err(|source| CodecError::Protobuf { what: ROW, source })?;
    let worker = |text: &str| WorkerId::new(text).map_err(invalid(ROW, "worker"));
    let boot = |text: &str| BootId::new(text).map_err(invalid(ROW, "boot"));
    let lease = || {
        let lease = row.lease.as_ref().ok_or(CodecError::Field { what: ROW, field: "lease" })?;
        Ok(Lease {
            id: LeaseId(lease.id),
            worker: worker(&lease.worker)?,
            boot: boot(&lease.boot)?,
            offered: Time(lease.offered),
        })
    };
    let started = row.started.map(Time);
    let phase = match state_of(row.state.into())? {
        JobState::Pending => Phase::Pending { until: Time(row.at) },
        JobState::Queued => Phase::Queued { since: Time(row.at) },
        JobState::Assigned => Phase::Assigned { lease: lease()?, since: Time(row.at) },
        JobState::Running => {
            let started = started.ok_or(CodecError::Field { what: ROW, field: "started" })?;
            Phase::Running { lease: lease()?, started }
        }
        JobState::Cancelling => Phase::Cancelling { lease: lease()?, started, since: Time(row.at) },
        state => Phase::Ended(Ended {
            state,
            at: Time(row.at),
            started,
            worker: row.last_worker.as_deref().map(worker).transpose()?,
            outcome_of: row.outcome_of.map(LeaseId),
            failure: row.failure.as_ref().map(decode_failure).transpose()?,
        }),
    };
    let declined = row.declined.iter().map(|(name, start)| Ok((worker(name)?, boot(start)?)));
    Ok(JobRow {
        sequence: row.sequence,
        revision: Revision(row.revision),
        attempt: row.attempt,
        failed_attempts: row.failed_attempts,
        lost_attempts: row.lost_attempts,
        percent: row.percent,
        declined: declined.collect::<Result<_, CodecError>>()?,
        phase,
    })
}

fn decode_failure(failure: &StoredFailure) -> Result<Failure, CodecError> {
    let code: ErrorCode = failure.code.parse().map_err(invalid(ROW, "failure"))?;
    Ok(Failure { code, message: failure.message.as_str().into() })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn texts<'a>(values: impl IntoIterator<Item = &'a Arc<str>>) -> Vec<String> {
    values.into_iter().map(ToString::to_string).collect()
}

fn shared<C: FromIterator<Arc<str>>>(values: Vec<String>) -> C {
    values.into_iter().map(Arc::from).collect()
}

/// Encodes what the scheduler decides with.
#[must_use]
pub(super) fn encode_spec(spec: &JobSpec) -> Vec<u8> {
    let placement = &spec.placement;
    Spec {
        job_id: spec.job_id.to_string(),
        namespace: spec.namespace.to_string(),
        idempotency_key: spec.idempotency_key.as_ref().map(ToString::to_string),
        fingerprint: spec.fingerprint.to_vec(),
        placement: Some(StoredPlacement {
            operation: placement.operation.to_string(),
            capabilities: texts(&placement.capabilities),
            features: texts(&placement.features),
            minimum_version: placement.minimum_version.as_ref().map(ToString::to_string),
            privileged: placement.privileged,
            pools: texts(&placement.pools),
            worker: placement.worker.as_ref().map(ToString::to_string),
            anti_affinity: placement
                .anti_affinity
                .iter()
                .map(|(label, values)| (label.to_string(), Texts { texts: texts(values) }))
                .collect(),
            image_folder: placement.image_folder.as_ref().map(ToString::to_string),
        }),
        affinity: spec.affinity.iter().map(|(label, value)| (label.to_string(), value.to_string())).collect(),
        priority: spec.priority.get().into(),
        max_attempts: spec.max_attempts,
        timeout_ms: millis(spec.timeout),
        deadline: spec.deadline.map(|at| at.0),
        not_before: spec.not_before.map(|at| at.0),
        backoff_initial_ms: millis(spec.backoff.initial),
        backoff_max_ms: millis(spec.backoff.max),
        backoff_multiplier: spec.backoff.multiplier,
        cancellable: spec.cancellable,
        concurrency_key: spec.concurrency_key.as_ref().map(ToString::to_string),
        created_at: spec.created_at.0,
        idempotency_policy: spec.idempotency_policy.word().to_owned(),
        idempotency_ttl_ms: spec.idempotency_ttl.map(millis),
        queue_timeout_ms: spec.queue_timeout.map(millis),
    }
    .encode_to_vec()
}

/// Reads [`encode_spec`] back.
///
/// # Errors
/// When the bytes are not what this or an older version wrote.
pub(super) fn decode_spec(bytes: &[u8]) -> Result<JobSpec, CodecError> {
    let spec = Spec::decode(bytes).map_err(|source| CodecError::Protobuf { what: SPEC, source })?;
    let placement = spec.placement.ok_or(CodecError::Field { what: SPEC, field: "placement" })?;
    Ok(JobSpec {
        job_id: JobId::new(&spec.job_id).map_err(invalid(SPEC, "job_id"))?,
        namespace: Namespace::new(&spec.namespace).map_err(invalid(SPEC, "namespace"))?,
        idempotency_key: spec.idempotency_key.map(Arc::from),
        idempotency_policy: IdempotencyPolicy::of(&spec.idempotency_policy)
            .ok_or(CodecError::Field { what: SPEC, field: "idempotency_policy" })?,
        idempotency_ttl: spec.idempotency_ttl_ms.map(Duration::from_millis),
        fingerprint: spec.fingerprint.try_into().map_err(invalid(SPEC, "fingerprint"))?,
        placement: Arc::new(decode_placement(placement)?),
        affinity: spec.affinity.into_iter().map(|(label, value)| (label.into(), value.into())).collect(),
        priority: Priority::new(spec.priority.into()).ok_or(CodecError::Field { what: SPEC, field: "priority" })?,
        max_attempts: spec.max_attempts,
        timeout: Duration::from_millis(spec.timeout_ms),
        queue_timeout: spec.queue_timeout_ms.map(Duration::from_millis),
        deadline: spec.deadline.map(Time),
        not_before: spec.not_before.map(Time),
        backoff: Backoff {
            initial: Duration::from_millis(spec.backoff_initial_ms),
            max: Duration::from_millis(spec.backoff_max_ms),
            multiplier: spec.backoff_multiplier,
        },
        cancellable: spec.cancellable,
        concurrency_key: spec.concurrency_key.map(Arc::from),
        created_at: Time(spec.created_at),
    })
}

fn decode_placement(placement: StoredPlacement) -> Result<Placement, CodecError> {
    let version = placement.minimum_version.map(|text| text.parse());
    Ok(Placement {
        operation: placement.operation.into(),
        capabilities: shared(placement.capabilities),
        features: shared(placement.features),
        minimum_version: version.transpose().map_err(invalid(SPEC, "minimum_version"))?,
        privileged: placement.privileged,
        pools: shared(placement.pools),
        worker: placement.worker.map(|text| WorkerId::new(&text)).transpose().map_err(invalid(SPEC, "worker"))?,
        anti_affinity: placement
            .anti_affinity
            .into_iter()
            .map(|(label, values)| (label.into(), shared(values.texts)))
            .collect(),
        image_folder: placement.image_folder.map(Arc::from),
    })
}

/// Encodes whom a drain concerns: equal targets have equal bytes, because maps are written in order.
#[must_use]
pub(super) fn encode_target(target: &DrainTarget) -> Vec<u8> {
    match target {
        DrainTarget::Worker(worker) => Target { worker: Some(worker.to_string()), labels: BTreeMap::new() },
        DrainTarget::Labels(labels) => Target {
            worker: None,
            labels: labels.iter().map(|(label, value)| (label.to_string(), value.to_string())).collect(),
        },
    }
    .encode_to_vec()
}

/// Reads [`encode_target`] back.
///
/// # Errors
/// When the bytes are not what this or an older version wrote.
pub(super) fn decode_target(bytes: &[u8]) -> Result<DrainTarget, CodecError> {
    let target = Target::decode(bytes).map_err(|source| CodecError::Protobuf { what: TARGET, source })?;
    Ok(match target.worker {
        Some(worker) => DrainTarget::Worker(WorkerId::new(&worker).map_err(invalid(TARGET, "worker"))?),
        None => {
            DrainTarget::Labels(target.labels.into_iter().map(|(label, value)| (label.into(), value.into())).collect())
        }
    })
}

/// A job out of its columns.
///
/// # Errors
/// When the bytes are not what this or an older version wrote.
pub(super) fn decode_entry(job_no: i64, job_id: &str, spec: &[u8], row: &[u8]) -> Result<JobEntry, StoreError> {
    let damaged = |source| StoreError::Damaged { job: job_id.into(), source };
    Ok(JobEntry {
        arrival: Revision(unsigned(job_no)),
        spec: decode_spec(spec).map_err(damaged)?.into(),
        row: decode_row(row).map_err(damaged)?,
    })
}

/// A job's name as it lies in the store.
///
/// # Errors
/// When it is none.
pub(super) fn checked_job_id(text: &str) -> Result<JobId, StoreError> {
    let field = CodecError::Field { what: "a job", field: "job_id" };
    JobId::new(text).map_err(|_| StoreError::Damaged { job: text.into(), source: field })
}
