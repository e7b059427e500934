//! Commands about jobs that are there.

use std::time::Duration;

use guestkit_protocol::document::to_json;
use guestkit_protocol::v1;
use serde_json::{Value, json};

use super::submit::ended;
use crate::args::{Cancel, List, OneJob, Report, Watch};
use crate::coordinator::{Again, Coordinator};
use crate::failure::Failure;
use crate::follow::{self, Heard};
use crate::instant;
use crate::outcome;
use crate::output::Output;
use crate::progress::Board;
use crate::table::{self, Pairs, Sheet};

/// Jobs of a page: the most that a coordinator gives.
const PAGE_MAX: u64 = 1000;

/// Follows a job to its end.
pub(crate) async fn watch(coordinator: &Coordinator, output: &Output, args: Watch) -> Result<(), Failure> {
    let patience = Duration::from_secs(u64::from(args.patience.reconnect));
    if args.events {
        return watch_events(coordinator, output, &args, patience).await;
    }
    let board = Board::new(1, output.quiet, output.color_progress);
    let row = board.row(&args.job);
    let over = follow::one(coordinator, &args.job, args.after, patience, |heard| row.heard(heard)).await;
    match &over {
        Ok(over) => ended(&row, over),
        Err(failure) => row.over(false, &failure.to_string()),
    }
    let result = over?.result?;
    outcome::print_report(output, &result)?;
    outcome::judge(&result)
}

async fn watch_events(
    coordinator: &Coordinator,
    output: &Output,
    args: &Watch,
    patience: Duration,
) -> Result<(), Failure> {
    let mut written = Ok(());
    let print = |heard: Heard<'_>| {
        let event = match heard {
            Heard::Event(event) => event,
            Heard::Waiting(reason) => return output.note(&format!("waiting: {reason}")),
            Heard::Lost(failure) => return output.note(&format!("connection lost, trying again: {failure}")),
        };
        let line =
            || format!("{} {} {}", event.sequence, instant::shown(event.timestamp.as_ref()), table::job::event(event));
        let printed = output.entry(|| to_json(event), line);
        if written.is_ok() {
            written = printed;
        }
    };
    let over = follow::one(coordinator, &args.job, args.after, patience, print).await?;
    written?;
    if over.job.state() == v1::JobState::Completed { Ok(()) } else { Err(Failure::NotCompleted) }
}

/// Shows one job.
pub(crate) async fn get(coordinator: &Coordinator, output: &Output, args: OneJob) -> Result<(), Failure> {
    let request = v1::GetRequest { job_id: args.job.clone() };
    let answer = coordinator.ask(&args.job, Again::Safe, async |at| at.jobs().get(request.clone()).await).await?;
    print_job(output, answer.job)
}

fn print_job(output: &Output, job: Option<v1::Job>) -> Result<(), Failure> {
    let job = job.unwrap_or_default();
    output.document(|| to_json(&job), || table::job::job(&job))
}

/// Prints what a job found.
pub(crate) async fn report(coordinator: &Coordinator, output: &Output, args: Report) -> Result<(), Failure> {
    let result = outcome::fetch(coordinator, &args.job).await?;
    outcome::print(output, &result, args.shown)?;
    outcome::judge(&result)
}

/// Lists jobs, page after page.
pub(crate) async fn list(coordinator: &Coordinator, output: &Output, args: List) -> Result<(), Failure> {
    let filter = filter(&args)?;
    let mut left = if args.all { u64::MAX } else { args.limit };
    let mut page_token = String::new();
    let mut pages = output.pages();
    loop {
        // At most PAGE_MAX, which an i32 holds.
        let page_size = i32::try_from(left.min(PAGE_MAX)).unwrap_or(i32::MAX);
        let request = v1::ListRequest { filter: Some(filter.clone()), page_size, page_token };
        let page = coordinator.ask("the list", Again::Safe, async |at| at.jobs().list(request.clone()).await).await?;
        let now = instant::now();
        let values: Vec<Value> = page.jobs.iter().map(to_json).collect();
        pages.page(&values, |first| {
            let header: &[_] = if first { &table::job::HEADER } else { &[] };
            Sheet::default().grid(header, table::job::rows(&page.jobs, now))
        })?;
        left = left.saturating_sub(page.jobs.len() as u64);
        page_token = page.next_page_token;
        if page_token.is_empty() || left == 0 {
            break;
        }
    }
    if !page_token.is_empty() {
        output.note("there are more: --all, or a higher --limit, lists them");
    }
    if pages.is_empty() {
        output.note("no jobs");
    }
    pages.end()
}

fn filter(args: &List) -> Result<v1::JobFilter, Failure> {
    let now = instant::now();
    let read = |flag: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => {
            instant::parse(text, now).map(Some).map_err(|why| Failure::usage(format!("cannot use {flag}: {why}")))
        }
    };
    Ok(v1::JobFilter {
        states: args.states.iter().map(|state| v1::JobState::from(*state).into()).collect(),
        operations: args.operations.clone(),
        namespace: args.namespace.clone().unwrap_or_default(),
        labels: args.labels.iter().cloned().collect(),
        worker_id: args.worker.clone().unwrap_or_default(),
        created_after: read("--since", &args.since)?,
        created_before: read("--until", &args.until)?,
    })
}

/// Asks for a job to end.
pub(crate) async fn cancel(coordinator: &Coordinator, output: &Output, args: Cancel) -> Result<(), Failure> {
    let request = v1::CancelRequest { job_id: args.job.clone(), reason: args.reason };
    let answer = coordinator.ask(&args.job, Again::Safe, async |at| at.jobs().cancel(request.clone()).await).await?;
    let job = answer.job;
    if job.as_ref().is_some_and(|job| job.state() == v1::JobState::Cancelling) {
        output.note(&format!("its worker has been asked to end it; see: guestkit watch {}", args.job));
    }
    print_job(output, job)
}

/// Gives a job new attempts.
pub(crate) async fn retry(coordinator: &Coordinator, output: &Output, args: OneJob) -> Result<(), Failure> {
    let request = v1::RetryRequest { job_id: args.job.clone() };
    let answer = coordinator.ask(&args.job, Again::Unsafe, async |at| at.jobs().retry(request.clone()).await).await?;
    print_job(output, answer.job)
}

/// Forgets a job.
pub(crate) async fn delete(coordinator: &Coordinator, output: &Output, args: OneJob) -> Result<(), Failure> {
    let request = v1::DeleteRequest { job_id: args.job.clone() };
    coordinator.ask(&args.job, Again::Unsafe, async |at| at.jobs().delete(request.clone()).await).await?;
    let sheet = || Sheet::default().pairs(Pairs::default().put("Deleted", &args.job));
    output.document(|| json!({ "job_id": args.job, "deleted": true }), sheet)
}

/// Says why a job is not running.
pub(crate) async fn explain(coordinator: &Coordinator, output: &Output, args: OneJob) -> Result<(), Failure> {
    let request = v1::ExplainRequest { job_id: args.job.clone() };
    let answer = coordinator.ask(&args.job, Again::Safe, async |at| at.jobs().explain(request.clone()).await).await?;
    output.document(|| to_json(&answer), || table::job::explanation(&args.job, &answer))
}
