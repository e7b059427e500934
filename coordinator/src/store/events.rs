//! What an event looks like in a job's log: one line for people, and its error.

use std::borrow::Cow;
use std::collections::BTreeMap;

use guestkit_domain::{Failure, RefusalFault};
use guestkit_protocol::v1;
use guestkit_scheduler::{Event, JobRow, Loss, Phase, Return};
use prost::Message;

/// The part of an outcome document that jobs and logs repeat. Protobuf skips the rest: the report stays unopened.
#[derive(Clone, PartialEq, Message)]
struct ResultHead {
    #[prost(message, optional, tag = "9")]
    error: Option<v1::JobError>,
}

/// The part of a job's document that lists ask for; the rest stays unopened too.
#[derive(Clone, PartialEq, Message)]
struct DocumentHead {
    #[prost(message, optional, tag = "7")]
    metadata: Option<MetadataHead>,
}

#[derive(Clone, PartialEq, Message)]
struct MetadataHead {
    #[prost(btree_map = "string, string", tag = "3")]
    labels: BTreeMap<String, String>,
}

/// The labels of a document.
pub(super) fn labels(document: &[u8]) -> BTreeMap<String, String> {
    let head = DocumentHead::decode(document).ok().and_then(|head| head.metadata);
    head.map(|metadata| metadata.labels).unwrap_or_default()
}

/// Why the log has this entry.
pub(super) fn reason(event: &Event, row: &JobRow) -> Cow<'static, str> {
    match event {
        Event::Submitted { .. } => match row.phase {
            Phase::Pending { .. } => "submitted; waits for its time".into(),
            _ => "submitted".into(),
        },
        Event::Due => "its time has come".into(),
        Event::Assigned => "offered to a worker".into(),
        Event::Accepted => "accepted by the worker".into(),
        Event::Progress { .. } => "".into(),
        Event::Returned { why } => returned(why).into(),
        Event::AttemptFailed { failure } => format!("attempt failed: {}", failure.code).into(),
        Event::AttemptLost { why } => lost(*why).into(),
        Event::CancelRequested { reason } if reason.is_empty() => "cancel asked for".into(),
        Event::CancelRequested { reason } => format!("cancel asked for: {reason}").into(),
        Event::Ended { .. } => match row.failure() {
            Some(failure) => failure.code.as_str().into(),
            None => "over".into(),
        },
        Event::RetryRequested => "retry asked for".into(),
        Event::Reconsidered => "the workers that declined it may be asked again".into(),
    }
}

fn returned(why: &Return) -> &'static str {
    match why {
        Return::NotAccepted => "not accepted in time",
        Return::Refused { fault: RefusalFault::Busy, .. } => "declined: the worker was busy",
        Return::Refused { .. } => "declined by the worker",
        Return::Drained => "taken back: the worker is drained",
    }
}

fn lost(why: Loss) -> &'static str {
    match why {
        Loss::Silent => "attempt lost: nothing heard of the worker",
        Loss::Restarted => "attempt lost: the worker was restarted",
        Loss::Dropped => "attempt lost: the worker does not have it any more",
        Loss::Abandoned => "attempt lost: the worker gave it up",
    }
}

/// The encoded `JobError` of an entry, where it has one.
pub(super) fn error(event: &Event, row: &JobRow) -> Option<Vec<u8>> {
    match event {
        Event::AttemptFailed { failure } | Event::Returned { why: Return::Refused { failure, .. } } => {
            Some(encode(failure))
        }
        Event::Ended { result } => {
            let failure = row.failure()?;
            // The worker's own words have the phase and the details; the code that counts is the scheduler's.
            let told = result.as_deref().and_then(|bytes| ResultHead::decode(bytes).ok()?.error);
            match told.filter(|error| error.code == failure.code.as_str()) {
                Some(error) => Some(error.encode_to_vec()),
                None => Some(encode(failure)),
            }
        }
        _ => None,
    }
}

fn encode(failure: &Failure) -> Vec<u8> {
    v1::JobError {
        code: failure.code.to_string(),
        message: failure.message.to_string(),
        phase: String::new(),
        details: None,
        recoverable: failure.code.recoverable(),
        retry_recommended: failure.code.retry_recommended(),
    }
    .encode_to_vec()
}
