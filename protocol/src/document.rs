//! The job document and everything printed from it: strict reading with all refusals at once, the checks that make it a
//! [`guestkit_domain::JobSpec`], and the JSON forms of outcomes and reports.
//!
//! Nothing a user or a peer sends panics here, and no field is accepted and ignored: what nothing downstream obeys is refused.

mod check;
mod operation;
mod path;
mod print;
mod problems;
mod read;
mod rules;
mod schema;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::{Map, Value};

pub use check::{CheckedJob, Source, check};
pub use operation::{KnownOperation, Operation, operations};
pub use schema::{job_document_schema, report_schema};

use crate::convert::from_struct;
use crate::status::{Reason, Refusal};
use crate::v1;
use path::Path;
use print::Defaults;
use problems::Problems;
use walk::Unknown;

/// Bytes of a document, as JSON or as protobuf: a job names images, it does not carry them.
pub const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// Every message of `proto/guestkit/v1` and its imports.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| pool(crate::BARE_DESCRIPTORS));

/// The messages of payloads alone: what an attempt's process needs, at a tenth of the price.
static PAYLOADS: LazyLock<DescriptorPool> = LazyLock::new(|| pool(crate::PAYLOAD_DESCRIPTORS));

/// Does now what reading the first payload would have to do: for a process that is started ahead of its work.
pub fn prepare() {
    LazyLock::force(&PAYLOADS);
}

fn pool(descriptors: &[u8]) -> DescriptorPool {
    #[allow(clippy::expect_used)]
    DescriptorPool::decode(descriptors).expect("the descriptors were encoded by this crate's build")
}

fn descriptor(full_name: &str) -> MessageDescriptor {
    descriptor_in(&POOL, full_name)
}

fn descriptor_in(pool: &DescriptorPool, full_name: &str) -> MessageDescriptor {
    #[allow(clippy::expect_used)]
    pool.get_message_by_name(full_name).expect("generated types and descriptors come from the same files")
}

/// Reads a job document: proto3 JSON with snake_case or camelCase names and an optional `$schema`.
///
/// Whether the document may be run is for [`check`]; here it is only sound in itself. An operation that this version does
/// not know is not a problem here: the coordinator that it is meant for may know it.
///
/// # Errors
/// `TOO_LARGE` above [`DOCUMENT_BYTES_MAX`]; `INVALID_DOCUMENT` with every problem found, each with its path.
pub fn parse(json: &[u8]) -> Result<v1::JobDocument, Refusal> {
    if json.len() > DOCUMENT_BYTES_MAX {
        return Err(too_large(json.len()));
    }
    // RFC 8259, section 8.1: a reader may ignore a byte order mark; some editors write one.
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    let mut problems = Problems::default();
    let value = read::read(json, &mut problems).map_err(|error| {
        Refusal::new(Reason::InvalidDocument, format!("the job document is not valid JSON: {error}"))
    })?;
    let document_type = descriptor("guestkit.v1.JobDocument");
    let clean = walk::message(&document_type, value, Unknown::Refused, &Path::ROOT, &mut problems);
    let document: v1::JobDocument = transcode(&document_type, clean.unwrap_or_default(), &mut problems);
    check::rules(&document, &mut problems);
    if problems.is_empty() { Ok(document) } else { Err(invalid(problems)) }
}

/// The typed payload of a document whose `payload.type` is that of `M`.
///
/// # Errors
/// `INVALID_DOCUMENT` when the data does not fit; never for a document that [`check`] passed.
pub fn payload<M: Message + Name + Default>(document: &v1::JobDocument) -> Result<M, Refusal> {
    let data = document.payload.as_ref().and_then(|payload| payload.data.as_ref());
    let unknown = match document.payload.as_ref().and_then(|payload| operation::of_payload_type(&payload.r#type)) {
        Some(known) if known.open => Unknown::Dropped,
        _ => Unknown::Refused,
    };
    let mut problems = Problems::default();
    let root = Path::ROOT.member("payload");
    let path = root.member("data");
    let message_type = descriptor_in(&PAYLOADS, &M::full_name());
    let value = data.map_or_else(|| Value::Object(Map::new()), from_struct);
    let clean = walk::message(&message_type, value, unknown, &path, &mut problems);
    let message = transcode(&message_type, clean.unwrap_or_default(), &mut problems);
    if problems.is_empty() { Ok(message) } else { Err(invalid(problems)) }
}

/// A message as JSON: snake_case names, 64-bit integers as numbers, only the fields that are set. `null` for a message
/// nested deeper than a peer could have sent it (100 levels).
#[must_use]
pub fn to_json<M: Message + Name>(message: &M) -> Value {
    dynamic(message).map_or(Value::Null, |message| print::message(&message, Defaults::Left))
}

/// The outcome document: what a folder keeps as `<job_id>-result.json`. The report is under `data`, whole; elsewhere what is
/// not known is left out, and what was measured is shown even where it is zero.
#[must_use]
pub fn result_to_json(result: &v1::JobResult) -> Value {
    let report = report_to_json(result);
    let Some(rest) = dynamic(&v1::JobResult { report: None, ..result.clone() }) else {
        return Value::Null;
    };
    let mut outcome = print::message(&rest, Defaults::Printed);
    without_empty_texts(&mut outcome);
    if let Value::Object(members) = &mut outcome
        && !report.is_null()
    {
        members.insert("data".to_owned(), report);
    }
    outcome
}

/// The report alone, every field of implicit presence printed; `null` where the result has none.
#[must_use]
pub fn report_to_json(result: &v1::JobResult) -> Value {
    use v1::job_result::Report;
    let message = match &result.report {
        None => None,
        Some(Report::Echo(report)) => dynamic(report),
        Some(Report::Inspect(report)) => dynamic(report),
        Some(Report::Profile(report)) => dynamic(report),
        Some(Report::Compare(report)) => dynamic(report),
        Some(Report::Convert(report)) => dynamic(report),
        Some(Report::Fix(report)) => dynamic(report),
        Some(Report::Migrate(report)) => dynamic(report),
    };
    message.map_or(Value::Null, |message| print::message(&message, Defaults::Printed))
}

/// Why an operation's report could not be taken into a result.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The operation has no report message.
    #[error("{operation} has no report message")]
    UnknownOperation {
        /// The operation.
        operation: String,
    },
    /// The report does not fit its message.
    #[error("the report of {operation} does not fit its message: {source}")]
    Mismatch {
        /// The operation.
        operation: String,
        /// What does not fit.
        source: serde_json::Error,
    },
}

/// Takes a report, in its JSON form, into `result`; every member must be known to the operation's report message.
///
/// # Errors
/// When the operation has no report message, or the report does not fit it.
pub fn set_report(result: &mut v1::JobResult, operation: &str, report: Value) -> Result<(), ReportError> {
    let unknown = || ReportError::UnknownOperation { operation: operation.to_owned() };
    let known = operation::by_name(operation).ok_or_else(unknown)?;
    let read = (known.read_report)(report);
    result.report = Some(read.map_err(|source| ReportError::Mismatch { operation: operation.to_owned(), source })?);
    Ok(())
}

fn dynamic<M: Message + Name>(message: &M) -> Option<DynamicMessage> {
    let mut dynamic = DynamicMessage::new(descriptor(&M::full_name()));
    dynamic.transcode_from(message).ok()?;
    Some(dynamic)
}

fn dynamic_from_json(message_type: &MessageDescriptor, clean: Value, problems: &mut Problems) -> DynamicMessage {
    let clean = if clean.is_null() { Value::Object(Map::new()) } else { clean };
    DynamicMessage::deserialize(message_type.clone(), clean).unwrap_or_else(|error| {
        problems.add(&Path::ROOT, error.to_string());
        DynamicMessage::new(message_type.clone())
    })
}

fn transcode<M: Message + Default>(message_type: &MessageDescriptor, clean: Value, problems: &mut Problems) -> M {
    dynamic_from_json(message_type, clean, problems).transcode_to().unwrap_or_else(|error| {
        problems.add(&Path::ROOT, error.to_string());
        M::default()
    })
}

fn without_empty_texts(value: &mut Value) {
    if let Value::Object(members) = value {
        members.retain(|_, member| member.as_str() != Some(""));
        members.values_mut().for_each(without_empty_texts);
    }
}

fn too_large(bytes: usize) -> Refusal {
    Refusal::new(
        Reason::TooLarge,
        format!(
            "the job document has {bytes} bytes, at most {DOCUMENT_BYTES_MAX} are taken; name images by path instead of carrying data"
        ),
    )
}

fn invalid(problems: Problems) -> Refusal {
    Refusal::of_fields(Reason::InvalidDocument, "the job document", problems.into_vec())
}
