//! The span that everything of one attempt is logged under, joined to the caller's trace where the document names one.

use guestkit_domain::WorkerId;
use guestkit_protocol::v1;

/// The span of one attempt.
#[must_use]
pub fn attempt_span(document: &v1::JobDocument, lease: Option<u64>, worker: &WorkerId, attempt: i32) -> tracing::Span {
    let span = tracing::info_span!(
        "attempt",
        job = %document.job_id,
        lease = lease,
        %worker,
        attempt,
        correlation = tracing::field::Empty,
    );
    if let Some(ids) = &document.observability {
        guestkit_telemetry::join(&span, &ids.trace_id, &ids.span_id);
        if !ids.correlation_id.is_empty() {
            span.record("correlation", ids.correlation_id.as_str());
        }
    }
    span
}
