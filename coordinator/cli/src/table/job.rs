//! Jobs, their events and why they wait, as tables.

use guestkit_domain::Time;
use guestkit_protocol::v1;

use super::{Pairs, Sheet, Text, Tone, labels, members, names, seconds};
use crate::instant;

/// The columns of [`rows`].
pub(crate) const HEADER: [&str; 7] = ["JOB", "STATE", "OPERATION", "NAMESPACE", "WORKER", "AGE", "DETAIL"];

/// Jobs, one per row. `now` is what ages count from.
pub(crate) fn rows(jobs: &[v1::Job], now: Time) -> Vec<Vec<Text>> {
    jobs.iter().map(|job| row(job, now)).collect()
}

fn row(job: &v1::Job, now: Time) -> Vec<Text> {
    let document = job.document.clone().unwrap_or_default();
    let age = instant::since(job.create_time.as_ref(), now).map(seconds).unwrap_or_default();
    vec![
        (&job.job_id).into(),
        state(job.state()),
        document.operation.into(),
        document.metadata.unwrap_or_default().namespace.into(),
        (&job.worker_id).into(),
        Text::number(age),
        detail(job).into(),
    ]
}

/// What is worth knowing beyond the state, in a few words.
fn detail(job: &v1::Job) -> String {
    match (job.state(), &job.error, &job.progress) {
        (v1::JobState::Completed, _, _) => match instant::between(job.start_time.as_ref(), job.end_time.as_ref()) {
            Some(took) => format!("in {}", seconds(took)),
            None => String::new(),
        },
        (_, Some(error), _) if !error.code.is_empty() => error.code.clone(),
        (v1::JobState::Running | v1::JobState::Cancelling, _, Some(progress)) => {
            format!("{} {:.0}%", progress.phase, progress.progress_percent)
        }
        _ => String::new(),
    }
}

/// A state in its word and colour.
pub(crate) fn state(state: v1::JobState) -> Text {
    let tone = match state {
        v1::JobState::Completed => Tone::Good,
        v1::JobState::Failed | v1::JobState::Timeout => Tone::Bad,
        v1::JobState::Assigned | v1::JobState::Running | v1::JobState::Cancelling => Tone::Notice,
        v1::JobState::Cancelled | v1::JobState::Unspecified => Tone::Faint,
        v1::JobState::Pending | v1::JobState::Queued => Tone::Plain,
    };
    Text::new(state_word(state)).tone(tone)
}

/// A state as documents and flags write it.
pub(crate) fn state_word(state: v1::JobState) -> &'static str {
    match state {
        v1::JobState::Unspecified => "unknown",
        v1::JobState::Pending => "pending",
        v1::JobState::Queued => "queued",
        v1::JobState::Assigned => "assigned",
        v1::JobState::Running => "running",
        v1::JobState::Cancelling => "cancelling",
        v1::JobState::Completed => "completed",
        v1::JobState::Failed => "failed",
        v1::JobState::Cancelled => "cancelled",
        v1::JobState::Timeout => "timeout",
    }
}

/// One job with everything that is known of it.
pub(crate) fn job(job: &v1::Job) -> Sheet {
    let document = job.document.clone().unwrap_or_default();
    let metadata = document.metadata.unwrap_or_default();
    let execution = document.execution.unwrap_or_default();
    let mut attempts = match (job.attempt, execution.max_attempts) {
        (0, _) => String::new(),
        (attempt, Some(most)) => format!("{attempt} of {most}"),
        (attempt, None) => attempt.to_string(),
    };
    if job.lost_attempts > 0 {
        attempts.push_str(&format!(" ({} lost with their worker)", job.lost_attempts));
    }
    let pairs = Pairs::default()
        .put("Job", &job.job_id)
        .put("Name", metadata.name)
        .put("State", state(job.state()))
        .put("Operation", document.operation)
        .put("Namespace", metadata.namespace)
        .put("Labels", labels(&metadata.labels))
        .put("Priority", execution.priority.map(|priority| priority.to_string()).unwrap_or_default())
        .put("Submitter", &job.submitter)
        .put("Worker", &job.worker_id)
        .put("Attempt", attempts)
        .put("Submitted", instant::shown(job.create_time.as_ref()))
        .put("Not before", instant::shown(job.not_before.as_ref()))
        .put("Started", instant::shown(job.start_time.as_ref()))
        .put("Ended", instant::shown(job.end_time.as_ref()))
        .put("Took", instant::between(job.start_time.as_ref(), job.end_time.as_ref()).map(seconds).unwrap_or_default())
        .put("Progress", job.progress.as_ref().map(progress).unwrap_or_default());
    Sheet::default().pairs(error(pairs, job.error.as_ref()))
}

/// A step in one line: `phase - message (n%)`.
pub(crate) fn progress(progress: &v1::Progress) -> String {
    format!("{} - {} ({:.0}%)", progress.phase, progress.message, progress.progress_percent)
}

/// Adds why a job did not complete.
pub(crate) fn error(pairs: Pairs, error: Option<&v1::JobError>) -> Pairs {
    let Some(error) = error.filter(|error| !error.code.is_empty()) else { return pairs };
    let advice = match (error.retry_recommended, error.recoverable) {
        // Somebody wanted it so.
        _ if error.code == "CANCELLED" => "",
        (true, _) => "trying again makes sense",
        (false, true) => "trying again may help once the cause is gone",
        (false, false) => "trying the same document again will not help",
    };
    let pairs = pairs
        .put("Error", Text::new(&error.code).tone(Tone::Bad))
        .put("Because", &error.message)
        .put("In phase", &error.phase);
    pairs.put("Details", error.details.as_ref().map(members).unwrap_or_default()).put("Advice", advice)
}

/// Why a job is not running.
pub(crate) fn explanation(job_id: &str, answer: &v1::ExplainResponse) -> Sheet {
    let waits = matches!(answer.state(), v1::JobState::Pending | v1::JobState::Queued);
    let workers = format!("{} of {} connected could run it", answer.eligible_workers, answer.connected_workers);
    let why = if answer.summary == state_word(answer.state()) { "" } else { &answer.summary };
    let pairs = Pairs::default()
        .put("Job", job_id)
        .put("State", state(answer.state()))
        .put("Why", why)
        .put("Workers", if waits { workers } else { String::new() })
        .put("Ahead", if answer.jobs_ahead == 0 { String::new() } else { format!("{} jobs", answer.jobs_ahead) });
    let others = answer.reasons.iter().filter(|reason| **reason != answer.summary).cloned().collect();
    Sheet::default().pairs(pairs).lines("Reasons", others)
}

/// One entry of a job's log in one line, without the job.
pub(crate) fn event(event: &v1::JobEvent) -> String {
    if let Some(step) = &event.progress {
        return progress(step);
    }
    let mut line = state_word(event.state()).to_owned();
    if !event.worker_id.is_empty() {
        line.push_str(&format!(" on {}", event.worker_id));
    }
    if event.attempt > 1 {
        line.push_str(&format!(" (attempt {})", event.attempt));
    }
    if let Some(error) = event.error.as_ref().filter(|error| !error.code.is_empty()) {
        line.push_str(&format!(": {}: {}", error.code, error.message));
    } else if !event.reason.is_empty() {
        line.push_str(&format!(": {}", event.reason));
    }
    line
}

/// Outcomes of several jobs, one per row.
pub(crate) fn outcomes(results: &[v1::JobResult]) -> Sheet {
    let rows = results.iter().map(outcome_row).collect();
    Sheet::default().grid(&["JOB", "STATUS", "TOOK", "WORKER", "FOUND"], rows)
}

fn outcome_row(result: &v1::JobResult) -> Vec<Text> {
    let took = result.execution_summary.as_ref().map(|summary| seconds(summary.duration_seconds)).unwrap_or_default();
    vec![
        (&result.job_id).into(),
        status(&result.status),
        Text::number(took),
        (&result.worker_id).into(),
        found(result).into(),
    ]
}

fn found(result: &v1::JobResult) -> String {
    match (&result.error, &result.report) {
        (Some(error), _) if !error.code.is_empty() => format!("{}: {}", error.code, error.message),
        (_, Some(v1::job_result::Report::Inspect(report))) => {
            let systems: Vec<String> = report.systems.iter().map(super::report::system_name).collect();
            if systems.is_empty() { "no operating system".to_owned() } else { names(&systems, 3) }
        }
        (_, Some(v1::job_result::Report::Echo(report))) => report.message.clone().unwrap_or_default(),
        _ => String::new(),
    }
}

/// An outcome's status in its colour.
pub(crate) fn status(status: &str) -> Text {
    let tone = match status {
        "completed" => Tone::Good,
        "cancelled" => Tone::Faint,
        _ => Tone::Bad,
    };
    Text::new(status).tone(tone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Layout;

    fn failed() -> v1::Job {
        v1::Job {
            job_id: "job-00000001".into(),
            state: v1::JobState::Failed.into(),
            attempt: 2,
            lost_attempts: 1,
            document: Some(v1::JobDocument {
                operation: "guestkit.inspect".into(),
                execution: Some(v1::Execution { max_attempts: Some(2), ..Default::default() }),
                ..Default::default()
            }),
            create_time: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
            error: Some(v1::JobError {
                code: "IMAGE_NOT_FOUND".into(),
                message: "no such file: /vms/\u{1b}[31mx".into(),
                recoverable: true,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_failed_job_tells_why() {
        let shown = job(&failed()).render(Layout::default());
        for line in [
            "State      failed",
            "Attempt    2 of 2 (1 lost with their worker)",
            "Submitted  1970-01-01T00:00:00Z",
            "Error      IMAGE_NOT_FOUND",
            "Because    no such file: /vms/\\u{1b}[31mx",
            "Advice     trying again may help once the cause is gone",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line:?} is not in\n{shown}");
        }
    }

    #[test]
    fn a_row_tells_the_error_code() {
        let row = row(&failed(), Time(90_000));
        let shown: Vec<&str> = row.iter().map(|text| text.text.as_str()).collect();
        assert_eq!(shown, ["job-00000001", "failed", "guestkit.inspect", "", "", "1m 30s", "IMAGE_NOT_FOUND"]);
    }

    #[test]
    fn an_event_is_one_line() {
        let check = |event: &v1::JobEvent, shown: &str| assert_eq!(super::event(event), shown);
        let mut given = v1::JobEvent {
            state: v1::JobState::Running.into(),
            worker_id: "w1".into(),
            attempt: 2,
            ..Default::default()
        };
        check(&given, "running on w1 (attempt 2)");
        given.progress = Some(v1::Progress {
            phase: "inspection".into(),
            message: "opening".into(),
            progress_percent: 20.4,
            ..Default::default()
        });
        check(&given, "inspection - opening (20%)");
        let queued = v1::JobEvent {
            state: v1::JobState::Queued.into(),
            reason: "its worker was lost".into(),
            ..Default::default()
        };
        check(&queued, "queued: its worker was lost");
    }
}
