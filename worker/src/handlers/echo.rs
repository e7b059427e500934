//! `system.echo`: proves the way there and back, and lets people try what a fleet does when a job takes long, fails or
//! crashes.

use std::time::Duration;

use guestkit_domain::ErrorCode;
use guestkit_protocol::convert::from_struct;
use guestkit_protocol::{document, v1};
use serde_json::{Map, json};

use super::{Handler, Job, Reporter, Success, payload};
use crate::failure::Failure;

/// The handler.
#[derive(Debug)]
pub struct Echo;

impl Handler for Echo {
    fn operation(&self) -> &'static str {
        "system.echo"
    }

    fn run(&self, job: &Job<'_>, reporter: &mut Reporter<'_>) -> Result<Success, Failure> {
        let asked: v1::EchoPayload = payload(document::payload(job.document))?;
        let step = Duration::try_from_secs_f64(asked.duration_seconds.unwrap_or(0.0) / 2.0).map_err(|error| {
            Failure::new(ErrorCode::ValidationError, format!("payload.data.duration_seconds: {error}"))
        })?;
        for (phase, percent, message) in [
            ("validation", 10.0, "Message received"),
            ("processing", 50.0, "Echoing the message"),
            ("complete", 100.0, "Echo complete"),
        ] {
            if phase != "validation" {
                std::thread::sleep(step);
            }
            if phase == "complete" {
                end_as_asked(&asked.fail_with, job)?;
            }
            reporter.report(phase, percent, message, Map::new());
        }
        let data = job.document.payload.as_ref().and_then(|payload| payload.data.as_ref());
        let data = data.map_or_else(|| json!({}), from_struct);
        let mut report = json!({ "data": data });
        if let (Some(message), Some(report)) = (data.get("message"), report.as_object_mut()) {
            report.insert("message".into(), message.clone());
        }
        Ok(Success { report, ..Success::default() })
    }
}

fn end_as_asked(fail_with: &str, job: &Job<'_>) -> Result<(), Failure> {
    match fail_with {
        "" => Ok(()),
        "failed" => Err(Failure::new(ErrorCode::Internal, "the document asked for a failure (fail_with: failed)")),
        "crash" if job.own_process => std::process::abort(),
        "crash" => Err(Failure::new(
            ErrorCode::HandlerCrashed,
            "the document asked for a crash (fail_with: crash), reported instead because the process is not the job's alone",
        )),
        other => Err(Failure::new(
            ErrorCode::ValidationError,
            format!("payload.data.fail_with {other:?} is none of failed, crash"),
        )),
    }
}
