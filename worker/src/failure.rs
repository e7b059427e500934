//! Why an attempt did not complete: what a handler, the sandbox or the attempt's keeper says, before it becomes the
//! outcome document's `error`.

use guestkit_domain::ErrorCode;
use guestkit_protocol::{convert, v1};
use serde_json::{Map, Value};

/// A failed attempt: the code, what happened, and what the code promises in `details`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Which of the closed set.
    pub code: ErrorCode,
    /// What happened, for people.
    pub message: String,
    /// What the code promises: expected and actual, structure and offset, which limit…
    pub details: Map<String, Value>,
}

impl Failure {
    /// A failure without details.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Map::new() }
    }

    /// The failure with one more detail.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.into(), value.into());
        self
    }

    /// As the outcome document has it; `phase` is where it happened, empty where no phase had begun.
    #[must_use]
    pub fn to_job_error(&self, phase: &str) -> v1::JobError {
        v1::JobError {
            code: self.code.as_str().into(),
            message: self.message.clone(),
            phase: phase.into(),
            details: (!self.details.is_empty()).then(|| convert::to_struct(&self.details)),
            recoverable: self.code.recoverable(),
            retry_recommended: self.code.retry_recommended(),
        }
    }
}
