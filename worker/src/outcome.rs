//! The outcome document of an attempt: what the handler found, with who ran it, when, and which attempt it was.

use std::time::{Duration, Instant, SystemTime};

use guestkit_domain::ErrorCode;
use guestkit_protocol::v1;

use crate::failure::Failure;
use crate::wire;

/// When an attempt began, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    wall: SystemTime,
    clock: Instant,
}

impl Start {
    /// An attempt that begins now.
    #[must_use]
    pub fn now() -> Self {
        Self { wall: SystemTime::now(), clock: Instant::now() }
    }

    /// How long ago that was.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }
}

/// Fills in what a handler does not know: the job, who ran it, when, and what the document wants carried along.
#[must_use]
pub fn complete(
    mut result: v1::JobResult,
    document: &v1::JobDocument,
    worker_id: &str,
    attempt: i32,
    start: Start,
) -> v1::JobResult {
    let duration = start.elapsed();
    let ended = Some(wire::timestamp(start.wall + duration));
    result.job_id.clone_from(&document.job_id);
    worker_id.clone_into(&mut result.worker_id);
    if result.status == "completed" {
        (result.completed_at, result.failed_at) = (ended, None);
    } else {
        (result.completed_at, result.failed_at) = (None, ended);
    }
    result.execution_summary = Some(v1::ExecutionSummary {
        started_at: Some(wire::timestamp(start.wall)),
        duration_seconds: duration.as_secs_f64(),
        attempt,
        idempotency_key: document.execution.as_ref().map(|e| e.idempotency_key.clone()).unwrap_or_default(),
    });
    result.observability.clone_from(&document.observability);
    result
}

/// The outcome of an attempt that gave no answer of its own.
#[must_use]
pub fn without_answer(failure: &Failure, phase: &str, metrics: v1::Metrics) -> v1::JobResult {
    let status = match failure.code {
        ErrorCode::Timeout | ErrorCode::DeadlineExceeded => "timeout",
        ErrorCode::Cancelled => "cancelled",
        _ => "failed",
    };
    v1::JobResult {
        status: status.into(),
        error: Some(failure.to_job_error(phase)),
        metrics: Some(metrics),
        ..Default::default()
    }
}
