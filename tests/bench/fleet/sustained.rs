//! Jobs per second end to end, submitted while others run: submit → lease → accept → outcome → acknowledged. A fixed number
//! is under way; as one is acknowledged, the next is submitted.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use guestkit_processes::Fleet;
use guestkit_protocol::v1;
use guestkit_protocol::v1::jobs_client::JobsClient;
use tokio::sync::Semaphore;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use crate::client::Bulk;
use crate::peers::Cost;
use crate::report::{Aim, Times, quantity, table};
use crate::usage::{cpu_seconds, micros_each, own_cpu_seconds, per_second, tree_cpu_seconds};
use crate::{Bench, Failure, client, session};

#[derive(Clone, Copy, PartialEq)]
enum Worker {
    Bare,
    Real { slots: u32 },
}

/// What the jobs ask for.
enum Work {
    Echo,
    /// An inspection of each of these images in turn; they lie in the fleet's folder.
    Inspect(Vec<PathBuf>),
}

impl Work {
    fn document(&self, index: usize) -> v1::JobDocument {
        let job_id = format!("load-{index:08}");
        match self {
            Self::Echo => client::echo(job_id),
            Self::Inspect(images) => client::inspect(job_id, &images[index % images.len()]),
        }
    }
}

/// How jobs are handed in.
#[derive(Clone, Copy)]
enum Way {
    /// One stream of submissions.
    Stream,
    /// A call per job.
    Calls,
}

/// Jobs under way with a worker that answers at once: what a busy client keeps in flight.
pub(crate) const UNDER_WAY: usize = 512;

pub(crate) struct Load {
    name: &'static str,
    worker: Worker,
    way: Way,
    work: Work,
    jobs: usize,
    under_way: usize,
}

impl Load {
    /// As fast as it goes: one stream of submissions, a worker that answers at once.
    pub(crate) fn streamed(jobs: usize) -> Self {
        let name = "answers at once; one stream of submissions";
        Self { name, worker: Worker::Bare, way: Way::Stream, work: Work::Echo, jobs, under_way: UNDER_WAY }
    }

    /// Each image inspected once, by a real worker with so many slots.
    pub(crate) fn inspections(images: Vec<PathBuf>, slots: u32) -> Self {
        let (worker, jobs) = (Worker::Real { slots }, images.len());
        Self { name: "inspections", worker, way: Way::Stream, work: Work::Inspect(images), jobs, under_way: 64 }
    }
}

pub(crate) async fn measure(bench: &mut Bench) -> Result<(), Failure> {
    let scale = if bench.quick { 10 } else { 1 };
    let loads = [
        Load::streamed(100_000 / scale),
        Load {
            name: "answers at once; a call per submission",
            worker: Worker::Bare,
            way: Way::Calls,
            work: Work::Echo,
            jobs: 50_000 / scale,
            under_way: UNDER_WAY,
        },
        Load {
            name: "real worker, a process per attempt; one stream",
            worker: Worker::Real { slots: 8 },
            way: Way::Stream,
            work: Work::Echo,
            jobs: 10_000 / scale,
            under_way: 64,
        },
    ];
    let mut rows = Vec::new();
    for (index, load) in loads.iter().enumerate() {
        let cost = run(bench, load).await?;
        if index == 0 {
            let report = &mut bench.report;
            let (rate, cpu) = (cost.rate, cost.server_micros);
            report.aim("sustained jobs/s, SQLite", rate, "/s", Aim::AtLeast { aim: 10_000.0, bound: 5_000.0 });
            report.aim("coordinator CPU per job, SQLite", cpu, "µs", Aim::AtMost { aim: 60.0, bound: 120.0 });
        }
        rows.push([
            load.name.to_owned(),
            load.under_way.to_string(),
            quantity(cost.rate, ""),
            format!("{:.0} µs", cost.server_micros),
            format!("{:.0} µs", cost.others_micros),
            format!("{:.1} / {:.1} ms", cost.p50, cost.p99),
        ]);
    }
    table(
        "Sustained, SQLite",
        &[
            "worker; client",
            "under way",
            "jobs/s",
            "coordinator CPU per job",
            "client and worker CPU per job",
            "p50 / p99",
        ],
        &rows,
    );
    Ok(())
}

/// When each job was submitted, and how long it took.
#[derive(Default)]
struct Ledger {
    submitted: Vec<Option<Instant>>,
    times: Vec<Duration>,
}

/// Shared between who submits and who hears of ends.
#[derive(Clone)]
struct Tally {
    ledger: Arc<Mutex<Ledger>>,
    room: Arc<Semaphore>,
}

impl Tally {
    fn submitted(&self, index: usize) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = ledger.submitted.get_mut(index) {
            *slot = Some(Instant::now());
        }
    }

    fn over(&self, job_id: &str) {
        let index = job_id.rsplit('-').next().and_then(|digits| digits.parse::<usize>().ok());
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let started = index.and_then(|index| ledger.submitted.get_mut(index)).and_then(Option::take);
        // One that is told of twice counts once.
        if let Some(started) = started {
            ledger.times.push(started.elapsed());
            self.room.add_permits(1);
        }
    }
}

pub(crate) async fn run(bench: &Bench, load: &Load) -> Result<Cost, Failure> {
    run_on(Fleet::start(&bench.binaries, &[])?, load).await
}

/// Runs a load on a fleet that has nothing else to do.
pub(crate) async fn run_on(mut fleet: Fleet, load: &Load) -> Result<Cost, Failure> {
    let tally = Tally {
        ledger: Arc::new(Mutex::new(Ledger { submitted: vec![None; load.jobs], times: Vec::new() })),
        room: Arc::new(Semaphore::new(load.under_way)),
    };
    let channel = client::connect(fleet.url()).await?;
    let over = tally.clone();
    let mut _bare = None;
    let mut worker = None;
    match load.worker {
        Worker::Bare => {
            let own = client::connect(fleet.url()).await?;
            _bare = Some(session::answering(own, 256, move |job_id| over.over(job_id)).await?);
        }
        Worker::Real { slots } => {
            let folder = fleet.folder().to_string_lossy().into_owned();
            fleet.start_worker("bench", &["--image-root", &folder, "--slots", &slots.to_string()])?;
            worker = fleet.worker("bench").map(|worker| worker.id());
            follow(client::connect(fleet.url()).await?, over).await?;
        }
    }
    let coordinator = fleet.coordinator().id();
    let others = || -> Result<f64, Failure> { Ok(own_cpu_seconds()? + worker.map_or(Ok(0.0), tree_cpu_seconds)?) };
    let before = (cpu_seconds(coordinator)?, others()?);
    let started = Instant::now();
    match load.way {
        Way::Stream => stream(channel, load, &tally).await?,
        Way::Calls => calls(channel, load, &tally).await?,
    }
    // All room given back means that every job is over.
    let all = u32::try_from(load.under_way)?;
    tokio::time::timeout(Duration::from_secs(600), tally.room.acquire_many(all)).await??.forget();
    let elapsed = started.elapsed();
    let after = (cpu_seconds(coordinator)?, others()?);
    let times = std::mem::take(&mut tally.ledger.lock().unwrap_or_else(PoisonError::into_inner).times);
    if times.len() != load.jobs {
        return Err(format!("{} of {} jobs were acknowledged", times.len(), load.jobs).into());
    }
    let times = Times::of(times);
    Ok(Cost {
        rate: per_second(load.jobs, elapsed),
        server_micros: micros_each(after.0 - before.0, load.jobs),
        others_micros: micros_each(after.1 - before.1, load.jobs),
        p50: times.percentile(50),
        p99: times.percentile(99),
    })
}

async fn stream(channel: Channel, load: &Load, tally: &Tally) -> Result<(), Failure> {
    let bulk = Bulk::open(channel).await?;
    for index in 0..load.jobs {
        tally.room.acquire().await?.forget();
        tally.submitted(index);
        bulk.submit(load.work.document(index)).await?;
    }
    bulk.finish().await
}

async fn calls(channel: Channel, load: &Load, tally: &Tally) -> Result<(), Failure> {
    let client = JobsClient::new(channel);
    let mut calls = tokio::task::JoinSet::new();
    for index in 0..load.jobs {
        tally.room.acquire().await?.forget();
        tally.submitted(index);
        let (mut client, document) = (client.clone(), load.work.document(index));
        calls.spawn(async move { client.submit(document).await });
        while let Some(done) = calls.try_join_next() {
            done??;
        }
    }
    while let Some(done) = calls.join_next().await {
        done??;
    }
    Ok(())
}

/// Hears of ends the way a client does.
async fn follow(channel: Channel, tally: Tally) -> Result<(), Failure> {
    let filter = v1::JobFilter { states: vec![v1::JobState::Completed.into()], ..Default::default() };
    let request = v1::WatchAllRequest { filter: Some(filter), after_revision: 0 };
    let mut changes = JobsClient::new(channel).watch_all(request).await?.into_inner();
    tokio::spawn(async move {
        use v1::watch_all_response::Change;
        while let Some(Ok(answer)) = changes.next().await {
            match answer.change {
                Some(Change::Event(event)) => tally.over(&event.job_id),
                Some(Change::Snapshot(job)) => tally.over(&job.job_id),
                _ => {}
            }
        }
    });
    Ok(())
}
