//! Outcome documents: fetching them, also those too large to travel in one message, and printing them.

use std::time::SystemTime;

use guestkit::guest::report::InspectReport;
use guestkit::profile::report::ProfileReport;
use guestkit_domain::ErrorCode;
use guestkit_protocol::document::{report_to_json, result_to_json};
use guestkit_protocol::v1::{self, job_result::Report};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::args::{Format, OtherForm, Shown};
use crate::coordinator::{Again, Coordinator};
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::table;

/// Bytes of a report that came by reference: a deep scan of a very full guest makes tens of MiB; no peer may make us hold more.
const REPORT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The outcome document of a job that is over, its report in it.
pub(crate) async fn fetch(coordinator: &Coordinator, job: &str) -> Result<v1::JobResult, Failure> {
    let request = v1::GetReportRequest { job_id: job.to_owned() };
    let answer = coordinator.ask(job, Again::Safe, async |at| at.jobs().get_report(request.clone()).await).await?;
    let result = answer.result.unwrap_or_default();
    match (&result.report, &result.report_artifact) {
        (None, Some(artifact)) => {
            let whole = read_artifact(coordinator, job, artifact).await?;
            let whole = v1::JobResult::decode(whole.as_slice()).map_err(|error| unusable(job, &error.to_string()))?;
            Ok(v1::JobResult { report: whole.report, ..result })
        }
        _ => Ok(result),
    }
}

async fn read_artifact(coordinator: &Coordinator, job: &str, artifact: &v1::Artifact) -> Result<Vec<u8>, Failure> {
    if artifact.size_bytes > REPORT_BYTES_MAX {
        return Err(unusable(
            job,
            &format!("it has {} bytes, at most {REPORT_BYTES_MAX} are read", artifact.size_bytes),
        ));
    }
    let request = v1::ReadArtifactRequest { job_id: job.to_owned(), name: artifact.name.clone(), offset: 0 };
    let failed = |status| coordinator.failed(job, &status);
    let mut stream =
        coordinator.ask(job, Again::Safe, async |at| at.jobs().read_artifact(request.clone()).await).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.message().await.map_err(failed)? {
        if bytes.len() as u64 + piece.data.len() as u64 > artifact.size_bytes {
            return Err(unusable(job, "more bytes came than its size says"));
        }
        bytes.extend(piece.data);
    }
    let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if sum != artifact.sha256 {
        return Err(unusable(job, &format!("its SHA-256 is {sum}, expected {}", artifact.sha256)));
    }
    Ok(bytes)
}

fn unusable(job: &str, why: &str) -> Failure {
    Failure::Work { message: format!("cannot use the report of {job}: {why}") }
}

/// Whether an outcome is a completed job's.
pub(crate) fn is_completed(result: &v1::JobResult) -> bool {
    result.status == "completed"
}

/// Prints what one job found; for a job that found nothing because it did not complete the outcome document, which says why.
pub(crate) fn print_report(output: &Output, result: &v1::JobResult) -> Result<(), Failure> {
    let has_report = is_completed(result) || result.report.is_some();
    let value = || if has_report { report_to_json(result) } else { result_to_json(result) };
    if let Some(written) = result.outputs.as_ref().map(|outputs| &outputs.primary).filter(|path| !path.is_empty()) {
        output.note(&format!("{} wrote the report to {written}", result.worker_id));
    }
    if let Some(form) = output.form {
        return print_form(result, form);
    }
    match table::report::outcome(result) {
        Some(sheet) => output.document(value, || sheet),
        // No summary is drawn for this operation: people get the whole report, readable.
        None if output.format == Format::Table => output::write(&output::yaml(&value())?),
        None => output.document(value, table::Sheet::default),
    }
}

/// Prints a report in a form of other tools. Where there is no report, nothing has that form.
fn print_form(result: &v1::JobResult, form: OtherForm) -> Result<(), Failure> {
    let refused = |why: String| Failure::Work { message: format!("cannot print this as {}: {why}", form.name) };
    let unreadable = |error: serde_json::Error| refused(error.to_string());
    match (&result.report, form.inspection, form.profile) {
        (Some(Report::Inspect(_)), Some(form), _) => {
            let report: InspectReport = serde_json::from_value(report_to_json(result)).map_err(unreadable)?;
            output::write(&form.render(&report, SystemTime::now()))
        }
        (Some(Report::Profile(_)), _, Some(form)) => {
            let report: ProfileReport = serde_json::from_value(report_to_json(result)).map_err(unreadable)?;
            output::write(&form.render(&report))
        }
        (Some(_), Some(_), None) => Err(refused("it is not the report of an inspection".to_owned())),
        (Some(_), None, Some(_)) => Err(refused("it is not the report of a profile".to_owned())),
        (Some(_), ..) => Err(refused("it is not the report of an inspection or a profile".to_owned())),
        (None, ..) => {
            let why = result.error.as_ref().map_or("", |error| error.message.as_str());
            Err(refused(format!("the job is {}: {why}", result.status)))
        }
    }
}

/// Prints as much of an outcome as was asked for.
pub(crate) fn print(output: &Output, result: &v1::JobResult, shown: Shown) -> Result<(), Failure> {
    if shown.outcome { print_whole(output, result) } else { print_report(output, result) }
}

fn print_whole(output: &Output, result: &v1::JobResult) -> Result<(), Failure> {
    if let Some(form) = output.form {
        return Err(Failure::usage(format!("-o {}: the outcome around a report has no such form", form.name)));
    }
    if output.format != Format::Table {
        return output.document(|| result_to_json(result), table::Sheet::default);
    }
    output.document(|| result_to_json(result), || table::report::frame(result))?;
    output::write("\n")?;
    print_report(output, result)
}

/// Prints the outcomes of several jobs as one document.
pub(crate) fn print_several(output: &Output, results: &[v1::JobResult]) -> Result<(), Failure> {
    output.document(|| results.iter().map(result_to_json).collect(), || table::job::outcomes(results))
}

/// Success for a completed job.
pub(crate) fn judge(result: &v1::JobResult) -> Result<(), Failure> {
    match &result.error {
        _ if is_completed(result) => Ok(()),
        Some(error) if error.code == ErrorCode::CriticalFindings.as_str() => {
            Err(Failure::Findings { message: error.message.clone() })
        }
        _ => Err(Failure::NotCompleted),
    }
}
