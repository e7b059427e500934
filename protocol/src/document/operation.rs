//! The operations this version knows: their names, payloads and reports, in one table.

use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::Value;

use crate::v1::{self, job_result::Report};

/// An operation of the families `system.` and `guestkit.`.
#[derive(Debug)]
pub struct KnownOperation {
    /// Its name.
    pub name: &'static str,
    /// The payload type it takes.
    pub payload_type: &'static str,
    /// Full name of the message that `payload.data` is checked against.
    pub payload_message: &'static str,
    /// Whether members that the message does not define are taken as they are.
    pub open: bool,
    /// Full name of the message of its report.
    pub report_message: &'static str,
    /// Reads a report in its JSON form.
    pub(super) read_report: fn(Value) -> Result<Report, serde_json::Error>,
}

const OPERATIONS: &[KnownOperation] = &[
    KnownOperation {
        name: "system.echo",
        payload_type: "system.echo.v1",
        payload_message: "guestkit.v1.EchoPayload",
        open: true,
        report_message: "guestkit.v1.EchoReport",
        read_report: |json| v1::EchoReport::deserialize(json).map(Report::Echo),
    },
    KnownOperation {
        name: "guestkit.inspect",
        payload_type: "guestkit.inspect.v1",
        payload_message: "guestkit.v1.InspectPayload",
        open: false,
        report_message: "guestkit.v1.InspectReport",
        read_report: |json| v1::InspectReport::deserialize(json).map(Report::Inspect),
    },
    KnownOperation {
        name: "guestkit.profile",
        payload_type: "guestkit.profile.v1",
        payload_message: "guestkit.v1.ProfilePayload",
        open: false,
        report_message: "guestkit.v1.ProfileReport",
        read_report: |json| v1::ProfileReport::deserialize(json).map(Report::Profile),
    },
];

/// Families whose operations are this project's: an unknown name in them is refused. Others are brought by workers, and
/// their payloads are free.
const FAMILIES: &[&str] = &["system.", "guestkit."];

/// Every operation this version knows.
#[must_use]
pub fn operations() -> &'static [KnownOperation] {
    OPERATIONS
}

/// What a document asks for.
#[derive(Debug, Clone)]
pub enum Operation {
    /// One that this version knows.
    Known(&'static KnownOperation),
    /// One of another family, which a worker may bring.
    Foreign(Arc<str>),
}

impl Operation {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Known(known) => known.name,
            Self::Foreign(name) => name,
        }
    }
}

pub(super) fn by_name(name: &str) -> Option<&'static KnownOperation> {
    OPERATIONS.iter().find(|operation| operation.name == name)
}

pub(super) fn of_payload_type(payload_type: &str) -> Option<&'static KnownOperation> {
    OPERATIONS.iter().find(|operation| operation.payload_type == payload_type)
}

pub(super) fn is_ours(name: &str) -> bool {
    FAMILIES.iter().any(|family| name.starts_with(family))
}
