//! A full queue: what a million waiting jobs cost in memory, at a restart, in lists and per job that is dispatched.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use guestkit_processes::Fleet;
use guestkit_protocol::v1;
use guestkit_protocol::v1::jobs_client::JobsClient;
use tokio::sync::Notify;
use tonic::transport::Channel;

use crate::client::Bulk;
use crate::report::{Aim, Times, complain, quantity, table};
use crate::usage::{cpu_seconds, micros_each, per_second, resident_mb};
use crate::{Bench, Failure, client, session};

/// Jobs dispatched at each depth of the queue.
const DISPATCHED: usize = 20_000;

pub(crate) async fn measure(bench: &mut Bench) -> Result<(), Failure> {
    let depths: &[usize] = if bench.quick { &[1_000, 10_000, 100_000] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    let mut fleet = Fleet::start(&bench.binaries, &[])?;
    let mut jobs = Jobs { next: 0, waiting: 0 };
    let mut rows = Vec::new();
    let mut rate_of = Vec::new();
    for &depth in depths {
        let filled = jobs.fill(&mut fleet, depth).await?;
        let memory = resident_mb(fleet.coordinator().id())?;
        if Some(&depth) == depths.last() {
            restart(bench, &mut fleet, depth, memory).await?;
            lists(bench, &mut fleet, depth).await?;
        }
        let (rate, micros) = jobs.dispatch(&mut fleet, depth).await?;
        rate_of.push((depth, rate));
        rows.push([
            quantity(as_number(depth), ""),
            filled.map_or("–".into(), |(rate, micros)| format!("{} ({micros:.0} µs)", quantity(rate, ""))),
            format!("{memory:.0} MB"),
            quantity(rate, ""),
            format!("{micros:.1} µs"),
        ]);
    }
    table(
        "A queue of waiting jobs, SQLite, worker that answers at once",
        &[
            "waiting",
            "submissions/s to fill it (coordinator CPU per job)",
            "coordinator RSS",
            "jobs/s dispatched",
            "coordinator CPU per job dispatched",
        ],
        &rows,
    );
    let rate_at = |wanted: usize| rate_of.iter().find(|(depth, _)| *depth == wanted).map(|(_, rate)| *rate);
    if let (Some(base), Some((deepest, rate))) = (rate_at(10_000), rate_of.last()) {
        let what = format!("dispatch rate at {} waiting, of that at 10,000", quantity(as_number(*deepest), ""));
        bench.report.aim(&what, rate / base * 100.0, "%", Aim::at_least(70.0));
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
fn as_number(count: usize) -> f64 {
    count as f64
}

/// What has been submitted, and what of it waits.
struct Jobs {
    next: usize,
    waiting: usize,
}

impl Jobs {
    /// Submits until `depth` jobs wait; how fast, and at what cost, where that were enough to tell.
    async fn fill(&mut self, fleet: &mut Fleet, depth: usize) -> Result<Option<(f64, f64)>, Failure> {
        let missing = depth.saturating_sub(self.waiting);
        let coordinator = fleet.coordinator().id();
        let before = cpu_seconds(coordinator)?;
        let started = Instant::now();
        let bulk = Bulk::open(client::connect(fleet.url()).await?).await?;
        for _ in 0..missing {
            bulk.submit(document(self.next)).await?;
            self.next += 1;
            if self.next.is_multiple_of(100_000) {
                complain(format!("{} jobs submitted", self.next));
            }
        }
        bulk.finish().await?;
        self.waiting += missing;
        let cost = micros_each(cpu_seconds(coordinator)? - before, missing);
        Ok((missing > 5_000).then(|| (per_second(missing, started.elapsed()), cost)))
    }

    /// Runs jobs from a queue that is `depth` deep, filled again when it is half empty; how fast, and at what cost.
    async fn dispatch(&mut self, fleet: &mut Fleet, depth: usize) -> Result<(f64, f64), Failure> {
        let coordinator = fleet.coordinator().id();
        let (mut ran, mut seconds, mut cpu) = (0, 0.0, 0.0);
        while ran < DISPATCHED {
            self.fill(fleet, depth).await?;
            let batch = DISPATCHED.min(depth.div_ceil(2));
            let before = cpu_seconds(coordinator)?;
            let started = Instant::now();
            let over = self.run(fleet.url(), batch).await?;
            seconds += started.elapsed().as_secs_f64();
            cpu += cpu_seconds(coordinator)? - before;
            ran += over;
        }
        Ok((as_number(ran) / seconds, micros_each(cpu, ran)))
    }

    /// Runs at least `count` jobs; how many they became.
    async fn run(&mut self, url: String, count: usize) -> Result<usize, Failure> {
        let over = Arc::new(AtomicUsize::new(0));
        let enough = Arc::new(Notify::new());
        let (counter, signal) = (Arc::clone(&over), Arc::clone(&enough));
        let heard = move |_: &str| {
            if counter.fetch_add(1, Ordering::Relaxed) + 1 == count {
                signal.notify_one();
            }
        };
        let session = session::answering(client::connect(url).await?, 64, heard).await?;
        tokio::time::timeout(Duration::from_secs(120), enough.notified()).await?;
        drop(session);
        let over = over.load(Ordering::Relaxed);
        self.waiting -= over.min(self.waiting);
        Ok(over)
    }
}

/// Echo jobs of ten namespaces with a few labels, one of them rare.
fn document(index: usize) -> v1::JobDocument {
    let mut labels: std::collections::HashMap<String, String> =
        [("team".to_owned(), format!("team-{}", index % 7))].into();
    if index.is_multiple_of(10_000) {
        labels.insert("rare".into(), "yes".into());
    }
    let metadata = v1::JobMetadata { namespace: format!("space-{}", index % 10), labels, ..Default::default() };
    v1::JobDocument { metadata: Some(metadata), ..client::echo(format!("backlog-{index:08}")) }
}

async fn restart(bench: &mut Bench, fleet: &mut Fleet, depth: usize, memory: f64) -> Result<(), Failure> {
    fleet.coordinator().kill();
    let started = Instant::now();
    fleet.restart_coordinator()?;
    // Serving means that a question about a job is answered.
    let mut client = JobsClient::new(client::connect(fleet.url()).await?);
    client.get(v1::GetRequest { job_id: "backlog-00000000".into() }).await?;
    let seconds = started.elapsed().as_secs_f64();
    let again = resident_mb(fleet.coordinator().id())?;
    let depth = quantity(as_number(depth), "");
    let report = &mut bench.report;
    report.aim(&format!("coordinator RSS with {depth} waiting"), memory, "MB", Aim::at_most(600.0));
    report.aim(&format!("coordinator RSS with {depth} waiting, after a restart"), again, "MB", Aim::at_most(600.0));
    report.aim(&format!("restart to serving with {depth} waiting"), seconds, "s", Aim::at_most(10.0));
    Ok(())
}

async fn lists(bench: &mut Bench, fleet: &mut Fleet, depth: usize) -> Result<(), Failure> {
    let namespace = |name: &str| v1::JobFilter { namespace: name.into(), ..Default::default() };
    let label = |name: &str, value: &str| v1::JobFilter {
        labels: [(name.to_owned(), value.to_owned())].into(),
        ..Default::default()
    };
    let state = |state: v1::JobState| v1::JobFilter { states: vec![state.into()], ..Default::default() };
    let questions = [
        ("no filter", v1::JobFilter::default()),
        ("one namespace of ten", namespace("space-3")),
        ("a namespace that is not there", namespace("space-none")),
        ("a label that a seventh has", label("team", "team-3")),
        ("a label that one in 10,000 has", label("rare", "yes")),
        ("a label and a namespace", v1::JobFilter { namespace: "space-0".into(), ..label("rare", "yes") }),
        ("queued", state(v1::JobState::Queued)),
        ("completed", state(v1::JobState::Completed)),
        ("running", state(v1::JobState::Running)),
        ("completed, one namespace", v1::JobFilter { namespace: "space-3".into(), ..state(v1::JobState::Completed) }),
        ("of a worker", v1::JobFilter { worker_id: "bare".into(), ..Default::default() }),
        (
            "an operation that nobody asked for",
            v1::JobFilter { operations: vec!["guestkit.inspect".into()], ..Default::default() },
        ),
    ];
    let mut client = JobsClient::new(client::connect(fleet.url()).await?);
    let mut rows = Vec::new();
    let mut worst: f64 = 0.0;
    for (name, filter) in questions {
        let (first, second, found) = pages(&mut client, filter).await?;
        worst = worst.max(first.percentile(50)).max(second.percentile(50));
        rows.push([name.to_owned(), found.to_string(), first.p50_p99(), second.p50_p99()]);
    }
    let depth = quantity(as_number(depth), "");
    table(
        &format!("A page of 100 jobs of {depth} waiting"),
        &["filter", "jobs on the page", "first page p50 / p99", "next page p50 / p99"],
        &rows,
    );
    bench.report.aim(&format!("slowest list page of {depth} waiting, p50"), worst, "ms", Aim::at_most(20.0));
    Ok(())
}

/// The first page and the one after it, a few times each.
async fn pages(client: &mut JobsClient<Channel>, filter: v1::JobFilter) -> Result<(Times, Times, usize), Failure> {
    let request = v1::ListRequest { filter: Some(filter), page_size: 100, page_token: String::new() };
    let (mut first, mut second, mut found) = (Vec::new(), Vec::new(), 0);
    for _ in 0..15 {
        let started = Instant::now();
        let page = client.list(request.clone()).await?.into_inner();
        first.push(started.elapsed());
        found = page.jobs.len();
        if !page.next_page_token.is_empty() {
            let request = v1::ListRequest { page_token: page.next_page_token, ..request.clone() };
            let started = Instant::now();
            client.list(request).await?;
            second.push(started.elapsed());
        }
    }
    Ok((Times::of(first), Times::of(second), found))
}
