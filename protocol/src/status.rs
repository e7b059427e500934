//! A refusal says "you may not ask": one table ties each reason to its gRPC status code and its name on the wire. What ran
//! and failed is an outcome and never comes through here.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

pub use crate::v1::FieldProblem;

/// `ErrorInfo.domain` of every refusal.
pub const DOMAIN: &str = "guestkit";

/// Bytes of problems that a status carries. Details travel in HTTP/2 trailers, base64 and beside the message; peers refuse
/// header lists above 8 KiB (the least default in use), so the rest is counted instead of listed.
const STATUS_PROBLEM_BYTES_MAX: usize = 2 * 1024;

/// Bytes of a status message, for the same reason; it travels three times, once with each byte as `%XX`.
const STATUS_MESSAGE_BYTES_MAX: usize = 512;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $code:ident;)*) => {
        /// Why something was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// `ErrorInfo.reason`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The status code of the call.
            #[must_use]
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)* }
            }
        }
    };
}

reasons! {
    /// The job document breaks the protocol; the problems say where.
    InvalidDocument = "INVALID_DOCUMENT", InvalidArgument;
    /// The document is sound, but this version has no such operation.
    UnsupportedOperation = "UNSUPPORTED_OPERATION", Unimplemented;
    /// The document or message is larger than the protocol allows.
    TooLarge = "TOO_LARGE", InvalidArgument;
    /// A field of a request, other than a document's, makes no sense.
    InvalidArgument = "INVALID_ARGUMENT", InvalidArgument;
    /// The page token was not given by this list.
    InvalidPageToken = "INVALID_PAGE_TOKEN", InvalidArgument;
    /// No such job.
    JobNotFound = "JOB_NOT_FOUND", NotFound;
    /// No such worker.
    WorkerNotFound = "WORKER_NOT_FOUND", NotFound;
    /// The job has no such artifact or report.
    ArtifactNotFound = "ARTIFACT_NOT_FOUND", NotFound;
    /// The job_id or idempotency_key was used for another document.
    AlreadyExists = "ALREADY_EXISTS", AlreadyExists;
    /// As many jobs wait as may.
    QueueFull = "QUEUE_FULL", ResourceExhausted;
    /// The reader did not keep up, or too many read at once.
    WatcherLimit = "WATCHER_LIMIT", ResourceExhausted;
    /// As many calls of this address are under way, or as much of what it asked for waits for it, as may.
    RequestLimit = "REQUEST_LIMIT", ResourceExhausted;
    /// What was begun was not finished in time.
    TooSlow = "TOO_SLOW", DeadlineExceeded;
    /// The document says `cancellable: false`.
    NotCancellable = "NOT_CANCELLABLE", FailedPrecondition;
    /// The job is over.
    AlreadyOver = "ALREADY_OVER", FailedPrecondition;
    /// The job is not over.
    NotOver = "NOT_OVER", FailedPrecondition;
    /// The lease is not, or not any more, its job's current one.
    LeaseNotCurrent = "LEASE_NOT_CURRENT", FailedPrecondition;
    /// The coordinator cannot serve now; try again or elsewhere.
    Unavailable = "UNAVAILABLE", Unavailable;
    /// Another coordinator leads; nothing was done here. `ErrorInfo.metadata["leader"]` is its address, when it is known.
    NotLeader = "NOT_LEADER", Unavailable;
    /// This version does not have the method.
    NotImplemented = "NOT_IMPLEMENTED", Unimplemented;
    /// A fault of the coordinator or its machine.
    Internal = "INTERNAL", Internal;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: why, in words, and every problem found.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// What, where and what to do, as a lower-case fragment.
    pub message: String,
    /// Each field at fault.
    pub problems: Vec<FieldProblem>,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
    /// The address of the coordinator that leads, where the one that refused does not and knows it.
    pub leader: Option<String>,
}

/// `ErrorInfo.metadata` keys.
const MESSAGE: &str = "message";
const LEADER: &str = "leader";

impl Refusal {
    /// A refusal without fields.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), problems: Vec::new(), retry_after: None, leader: None }
    }

    /// A refusal of fields; the message counts them.
    #[must_use]
    pub fn of_fields(reason: Reason, subject: &str, problems: Vec<FieldProblem>) -> Self {
        let message = match problems.len() {
            1 => format!("{subject} has a problem"),
            count => format!("{subject} has {count} problems"),
        };
        Self { reason, message, problems, retry_after: None, leader: None }
    }

    /// A refusal of one field of a request.
    #[must_use]
    pub fn of_field(field: &str, description: impl Into<String>) -> Self {
        Self::of_fields(Reason::InvalidArgument, "the request", vec![problem(field, description)])
    }

    /// Another coordinator leads; its address, when it is known.
    #[must_use]
    pub fn not_leader(leader: Option<String>) -> Self {
        let (message, delay) = match &leader {
            Some(leader) => (format!("this coordinator does not lead; {leader} does"), Duration::ZERO),
            None => ("no coordinator leads just now".to_owned(), Duration::from_secs(1)),
        };
        Self { leader, ..Self::new(Reason::NotLeader, message) }.retry_after(delay)
    }

    /// The same, with the time after which trying again makes sense.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Reads a refusal back from a status; `None` when the status was not made by this project (a proxy, a broken connection).
    #[must_use]
    pub fn from_status(status: &Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        let reason = Reason::ALL.iter().copied().find(|reason| reason.as_str() == info.reason)?;
        let problems = details.bad_request().map_or_else(Vec::new, |bad| {
            bad.field_violations.iter().map(|v| problem(&v.field, v.description.clone())).collect()
        });
        // The status' text repeats the problems for clients that show nothing else.
        let message = info.metadata.get(MESSAGE).cloned().unwrap_or_else(|| status.message().to_owned());
        let retry_after = details.retry_info().and_then(|info| info.retry_delay);
        let leader = info.metadata.get(LEADER).cloned();
        Some(Self { reason, message, problems, retry_after, leader })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (index, problem) in self.problems.iter().enumerate() {
            f.write_str(if index == 0 { ": " } else { "; " })?;
            if !problem.field.is_empty() {
                write!(f, "{}: ", problem.field)?;
            }
            f.write_str(&problem.description)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// A problem of one field.
#[must_use]
pub fn problem(field: &str, description: impl Into<String>) -> FieldProblem {
    FieldProblem { field: field.to_owned(), description: description.into() }
}

/// The text up to `bytes_max`, cut between characters and marked where it was cut.
#[must_use]
pub(crate) fn shortened(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// As many problems as a status may carry; the last one counts the others.
fn fitting(problems: &[FieldProblem]) -> Vec<FieldProblem> {
    let mut bytes = 0;
    let mut kept = Vec::new();
    for problem in problems {
        let field = shortened(&problem.field, 256);
        let description = shortened(&problem.description, 512);
        bytes += field.len() + description.len();
        if bytes > STATUS_PROBLEM_BYTES_MAX {
            let more = problems.len() - kept.len();
            kept.push(FieldProblem { field: String::new(), description: format!("and {more} more problems") });
            break;
        }
        kept.push(FieldProblem { field, description });
    }
    kept
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let problems = fitting(&refusal.problems);
        let message = shortened(&refusal.message, STATUS_MESSAGE_BYTES_MAX);
        let leader = refusal.leader.iter().map(|leader| (LEADER.to_owned(), leader.clone()));
        let metadata: HashMap<String, String> = leader.chain([(MESSAGE.to_owned(), message.clone())]).collect();
        let mut details = ErrorDetails::with_error_info(refusal.reason.as_str(), DOMAIN, metadata);
        if !problems.is_empty() {
            details.set_bad_request(Vec::new());
            for problem in &problems {
                details.add_bad_request_violation(&problem.field, &problem.description);
            }
        }
        if refusal.retry_after.is_some() {
            details.set_retry_info(refusal.retry_after);
        }
        let whole = Refusal { message, problems, ..refusal }.to_string();
        let text = shortened(&whole, STATUS_MESSAGE_BYTES_MAX);
        Self::with_error_details(refusal.reason.code(), text, details)
    }
}

impl From<Refusal> for crate::v1::Refusal {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: i32::from(refusal.reason.code()),
            reason: refusal.reason.as_str().to_owned(),
            message: refusal.message,
            problems: refusal.problems,
            leader: refusal.leader.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_survives_the_wire() {
        for &reason in Reason::ALL {
            let mut refusal = Refusal::new(reason, "the job document has 2 problems");
            refusal.problems =
                vec![problem("execution.priority", "must be 1 to 10, is 11"), problem("kind", "required")];
            refusal.retry_after = Some(Duration::from_secs(2));
            refusal.leader = Some("http://127.0.0.1:7443".to_owned());
            let status = Status::from(refusal.clone());
            assert_eq!(status.code(), reason.code());
            assert!(status.message().contains("execution.priority: must be 1 to 10, is 11"), "{}", status.message());
            assert_eq!(Refusal::from_status(&status), Some(refusal));
        }
    }

    #[test]
    fn a_foreign_status_is_no_refusal() {
        assert_eq!(Refusal::from_status(&Status::unavailable("proxy")), None);
    }

    #[test]
    fn a_status_stays_within_the_header_limits_of_peers() {
        let mut refusal = Refusal::new(Reason::InvalidDocument, "é".repeat(10_000));
        refusal.problems = (0..10_000).map(|n| problem("é", format!("number {n}"))).collect();
        let status = Status::from(refusal);
        let size = status.details().len() * 4 / 3 + status.message().len() * 3;
        assert!(size < 8 * 1024, "{size}");
        let last = Refusal::from_status(&status).and_then(|refusal| refusal.problems.last().cloned());
        assert!(last.is_some_and(|problem| problem.description.ends_with("more problems")));
    }
}
