//! Commands about workers.

use std::collections::BTreeSet;
use std::time::Duration;

use guestkit_protocol::document::to_json;
use guestkit_protocol::v1;
use serde_json::Value;

use crate::args::{Drain, Selected, Workers};
use crate::coordinator::{Again, Coordinator};
use crate::failure::Failure;
use crate::instant;
use crate::output::Output;
use crate::table::{Sheet, fleet};

/// Between two looks at workers that are not idle yet: the coordinator tells of states, not of each job.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Workers of a page: the most that a coordinator gives.
const PAGE_MAX: i32 = 1000;

/// Lists the workers, or shows one.
pub(crate) async fn workers(coordinator: &Coordinator, output: &Output, args: Workers) -> Result<(), Failure> {
    match args.worker {
        Some(worker) => one(coordinator, output, worker).await,
        None => all(coordinator, output, args.pool.unwrap_or_default()).await,
    }
}

async fn one(coordinator: &Coordinator, output: &Output, worker_id: String) -> Result<(), Failure> {
    let request = v1::GetWorkerRequest { worker_id: worker_id.clone() };
    let answer =
        coordinator.ask(&worker_id, Again::Safe, async |at| at.fleet().get_worker(request.clone()).await).await?;
    let worker = answer.worker.unwrap_or_default();
    output.document(|| to_json(&worker), || fleet::worker(&worker, instant::now()))
}

async fn all(coordinator: &Coordinator, output: &Output, pool: String) -> Result<(), Failure> {
    let workers = listed(coordinator, pool).await?;
    if workers.is_empty() {
        output.note("no workers; start one with `guestkit-worker --coordinator … --image-root DIR`");
    }
    print_workers(output, &workers)
}

async fn listed(coordinator: &Coordinator, pool: String) -> Result<Vec<v1::Worker>, Failure> {
    let mut workers = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListWorkersRequest { pool: pool.clone(), page_size: PAGE_MAX, page_token };
        let page =
            coordinator.ask("the list", Again::Safe, async |at| at.fleet().list_workers(request.clone()).await).await?;
        workers.extend(page.workers);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(workers);
        }
    }
}

fn print_workers(output: &Output, workers: &[v1::Worker]) -> Result<(), Failure> {
    let sheet = || if workers.is_empty() { Sheet::default() } else { fleet::workers(workers, instant::now()) };
    output.document(|| workers.iter().map(to_json).collect::<Vec<Value>>().into(), sheet)
}

/// Gives workers no new work.
pub(crate) async fn drain(coordinator: &Coordinator, output: &Output, args: Drain) -> Result<(), Failure> {
    let deadline = args.deadline.map(|seconds| prost_types::Duration { seconds: i64::from(seconds), nanos: 0 });
    let (subject, worker_id, selector) = named(args.selected);
    let request = v1::DrainRequest { worker_id, selector, deadline };
    let answer = coordinator.ask(&subject, Again::Safe, async |at| at.fleet().drain(request.clone()).await).await?;
    if args.wait {
        return print_workers(output, &until_idle(coordinator, output, answer.workers).await?);
    }
    print_workers(output, &answer.workers)
}

/// Waits until none of these workers holds a job, and gives them as they are then.
async fn until_idle(
    coordinator: &Coordinator,
    output: &Output,
    drained: Vec<v1::Worker>,
) -> Result<Vec<v1::Worker>, Failure> {
    let concerned: BTreeSet<String> = drained.into_iter().map(|worker| worker.worker_id).collect();
    let mut told = None;
    loop {
        let mut workers = listed(coordinator, String::new()).await?;
        workers.retain(|worker| concerned.contains(&worker.worker_id));
        let held: usize = workers.iter().map(|worker| worker.jobs.len()).sum();
        if held == 0 {
            return Ok(workers);
        }
        if told.replace(held) != Some(held) {
            output.note(&format!("jobs still held: {held}"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Gives drained workers work again.
pub(crate) async fn resume(coordinator: &Coordinator, output: &Output, args: Selected) -> Result<(), Failure> {
    let (subject, worker_id, selector) = named(args);
    let request = v1::ResumeRequest { worker_id, selector };
    let answer = coordinator.ask(&subject, Again::Unsafe, async |at| at.fleet().resume(request.clone()).await).await?;
    print_workers(output, &answer.workers)
}

fn named(selected: Selected) -> (String, String, std::collections::HashMap<String, String>) {
    let subject = selected.worker.clone().unwrap_or_else(|| "the selection".to_owned());
    (subject, selected.worker.unwrap_or_default(), selected.selector.into_iter().collect())
}

/// Counts jobs, slots and workers.
pub(crate) async fn summary(coordinator: &Coordinator, output: &Output) -> Result<(), Failure> {
    let counts =
        coordinator.ask("the summary", Again::Safe, async |at| at.fleet().summary(v1::SummaryRequest {}).await).await?;
    output.document(|| to_json(&counts), || fleet::summary(&counts))
}
