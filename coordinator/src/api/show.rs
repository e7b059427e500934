//! What the coordinator keeps, as the wire shows it.

use guestkit_domain::{Failure, JobState, Time};
use guestkit_protocol::convert::{failure, state, time};
use guestkit_protocol::v1;
use guestkit_scheduler::{JobRow, Phase, WorkerState, WorkerView};
use prost::Message;

use crate::store::{StoredDeletion, StoredEvent, StoredJob};

/// A job from its document and its changeable part.
pub(super) fn job(document: v1::JobDocument, created_at: Time, row: &JobRow) -> v1::Job {
    let (end_time, not_before) = match &row.phase {
        Phase::Ended(ended) => (Some(ended.at), None),
        Phase::Pending { until } => (None, Some(*until)),
        _ => (None, None),
    };
    v1::Job {
        job_id: document.job_id.clone(),
        document: Some(document),
        state: state::to_wire(row.phase.state()).into(),
        create_time: Some(time::to_wire(created_at)),
        start_time: row.phase.started().map(time::to_wire),
        end_time: end_time.map(time::to_wire),
        attempt: count(row.attempt),
        lost_attempts: count(row.lost_attempts),
        worker_id: row.worker().map(ToString::to_string).unwrap_or_default(),
        lease_id: row.phase.lease().map_or(0, |lease| lease.id.0),
        progress: None,
        error: row.failure().map(|why| failure::to_wire(why, "", None)),
        not_before: not_before.map(time::to_wire),
        sequence: row.sequence,
        revision: row.revision.0,
        submitter: String::new(),
    }
}

/// A job from the store.
pub(super) fn stored_job(stored: &StoredJob) -> Result<v1::Job, prost::DecodeError> {
    let mut job = job(v1::JobDocument::decode(&stored.document[..])?, stored.created_at, &stored.row);
    if let Some(error) = &stored.error {
        job.error = Some(v1::JobError::decode(&error[..])?);
    }
    job.progress = stored.progress.as_ref().map(progress).transpose()?.flatten();
    Ok(job)
}

/// An entry of a job's log.
pub(super) fn event(stored: &StoredEvent) -> Result<v1::JobEvent, prost::DecodeError> {
    Ok(v1::JobEvent {
        job_id: stored.job_id.to_string(),
        sequence: stored.sequence,
        timestamp: Some(time::to_wire(stored.at)),
        revision: stored.revision.0,
        state: state::to_wire(stored.state).into(),
        attempt: count(stored.attempt),
        worker_id: stored.worker_id.clone().unwrap_or_default(),
        reason: stored.reason.clone(),
        progress: progress(stored)?,
        error: stored.error.as_deref().map(v1::JobError::decode).transpose()?,
    })
}

/// A job that is gone.
pub(super) fn deletion(stored: &StoredDeletion) -> v1::JobDeleted {
    v1::JobDeleted {
        job_id: stored.job_id.to_string(),
        timestamp: Some(time::to_wire(stored.at)),
        revision: stored.revision.0,
    }
}

fn progress(stored: &StoredEvent) -> Result<Option<v1::Progress>, prost::DecodeError> {
    let (Some(body), Some(percent)) = (&stored.progress, stored.percent) else { return Ok(None) };
    Ok(Some(v1::Progress {
        sequence: stored.sequence,
        attempt: count(stored.attempt),
        timestamp: Some(time::to_wire(stored.at)),
        progress_percent: percent,
        ..v1::Progress::decode(&body[..])?
    }))
}

/// The outcome of a job that is over: the worker's, or one made here where no worker could.
pub(super) fn result(job: &v1::Job, made: Option<Vec<u8>>) -> Result<v1::JobResult, prost::DecodeError> {
    match made.filter(|bytes| !bytes.is_empty()) {
        Some(bytes) => v1::JobResult::decode(&bytes[..]),
        None => Ok(result_without_worker(job)),
    }
}

fn result_without_worker(job: &v1::Job) -> v1::JobResult {
    let state = state::from_wire(job.state).unwrap_or(JobState::Failed);
    let document = job.document.clone().unwrap_or_default();
    let (completed_at, failed_at) = match state {
        JobState::Completed => (job.end_time, None),
        _ => (None, job.end_time),
    };
    let ran = job.start_time.zip(job.end_time).map_or(0.0, |(start, end)| seconds_between(&start, &end));
    v1::JobResult {
        job_id: job.job_id.clone(),
        status: state::word(state).to_owned(),
        completed_at,
        failed_at,
        worker_id: job.worker_id.clone(),
        execution_summary: Some(v1::ExecutionSummary {
            started_at: job.start_time,
            duration_seconds: ran,
            attempt: job.attempt,
            idempotency_key: document.execution.unwrap_or_default().idempotency_key,
        }),
        error: job.error.clone(),
        observability: document.observability,
        ..v1::JobResult::default()
    }
}

fn seconds_between(start: &prost_types::Timestamp, end: &prost_types::Timestamp) -> f64 {
    let instant = |at| time::from_wire(at).unwrap_or_default();
    instant(end).since(instant(start)).as_secs_f64()
}

/// A failure in words, as an entry shows it.
pub(super) fn told(why: &Failure) -> String {
    format!("{}: {}", why.code, why.message)
}

/// A worker.
pub(super) fn worker(view: &WorkerView, description: Option<v1::WorkerDescription>) -> v1::Worker {
    v1::Worker {
        worker_id: view.worker_id.to_string(),
        state: worker_state(view.state).into(),
        description,
        jobs: view
            .jobs
            .iter()
            .map(|(job_id, lease)| v1::HeldJob { job_id: job_id.to_string(), lease_id: lease.0 })
            .collect(),
        connect_time: view.connected.map(time::to_wire),
        heartbeat_time: view.heard.map(time::to_wire),
    }
}

fn worker_state(state: WorkerState) -> v1::WorkerState {
    match state {
        WorkerState::Ready => v1::WorkerState::Ready,
        WorkerState::Draining => v1::WorkerState::Draining,
        WorkerState::Unreachable => v1::WorkerState::Unreachable,
        WorkerState::Lost => v1::WorkerState::Lost,
    }
}

fn count(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
