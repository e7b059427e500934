//! How soon a dead worker's job runs elsewhere.

use std::time::{Duration, Instant};

use guestkit_processes::Fleet;
use guestkit_protocol::v1;
use guestkit_protocol::v1::jobs_client::JobsClient;
use rustix::process::Signal;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

use crate::report::{Aim, quantity, table};
use crate::{Bench, Failure, client};

pub(crate) async fn measure(bench: &mut Bench) -> Result<(), Failure> {
    let runs = if bench.quick { 1 } else { 5 };
    let mut restarted: f64 = 0.0;
    for run in 0..runs {
        restarted = restarted.max(after_restart(bench, run).await?);
    }
    let ttl = if bench.quick { 6.0 } else { 60.0 };
    let silent = after_silence(bench, ttl).await?;
    bench.report.aim("killed worker back under its name: job running again", restarted, "s", Aim::at_most(1.0));
    bench.report.aim("silent worker: job running elsewhere, beyond the TTL", silent - ttl, "s", Aim::at_most(1.0));
    table(
        "A dead worker's job runs elsewhere",
        &["what happened", "after"],
        &[
            [format!("SIGKILL, the worker started again under its name (slowest of {runs})"), quantity(restarted, "s")],
            [format!("SIGSTOP, another worker is there, TTL {ttl:.0} s"), quantity(silent, "s")],
        ],
    );
    Ok(())
}

/// Seconds from the kill to the running second attempt.
async fn after_restart(bench: &Bench, run: usize) -> Result<f64, Failure> {
    let mut fleet = Fleet::start(&bench.binaries, &[])?;
    let mut job = Job::start(&mut fleet, run).await?;
    fleet.worker("first").ok_or("no worker")?.kill();
    let killed = Instant::now();
    start_worker(&mut fleet, "first")?;
    job.running(2).await?;
    Ok(killed.elapsed().as_secs_f64())
}

/// Seconds from the last moment the worker ran to the running second attempt.
async fn after_silence(bench: &Bench, ttl: f64) -> Result<f64, Failure> {
    let (ttl_text, beat_text) = (ttl.to_string(), (ttl / 12.0).to_string());
    let mut fleet =
        Fleet::start(&bench.binaries, &["--lease-ttl-seconds", &ttl_text, "--heartbeat-seconds", &beat_text])?;
    let mut job = Job::start(&mut fleet, 0).await?;
    fleet.worker("first").ok_or("no worker")?.signal(Signal::STOP)?;
    let stopped = Instant::now();
    start_worker(&mut fleet, "second")?;
    job.running(2).await?;
    Ok(stopped.elapsed().as_secs_f64())
}

fn start_worker(fleet: &mut Fleet, name: &str) -> Result<(), Failure> {
    let folder = fleet.folder().to_string_lossy().into_owned();
    Ok(fleet.start_worker(name, &["--image-root", &folder])?)
}

/// A job that takes longer than anybody waits, and its log.
struct Job {
    events: tonic::Streaming<v1::WatchResponse>,
}

impl Job {
    /// Starts it on a worker called `first`.
    async fn start(fleet: &mut Fleet, run: usize) -> Result<Self, Failure> {
        start_worker(fleet, "first")?;
        let channel: Channel = client::connect(fleet.url()).await?;
        let mut client = JobsClient::new(channel);
        let job_id = format!("death-{run:06}");
        let mut document = client::echo(job_id.clone());
        if let Some(data) = document.payload.as_mut().and_then(|payload| payload.data.as_mut()) {
            data.fields.insert("duration_seconds".into(), prost_types::Value::from(600.0));
        }
        client.submit(document).await?;
        let events = client.watch(v1::WatchRequest { job_id, after_sequence: 0 }).await?.into_inner();
        let mut job = Self { events };
        job.running(1).await?;
        Ok(job)
    }

    async fn running(&mut self, attempt: i32) -> Result<(), Failure> {
        let waiting = async {
            while let Some(answer) = self.events.next().await {
                let event = answer?.event.unwrap_or_default();
                if event.attempt == attempt && event.state() == v1::JobState::Running {
                    return Ok(());
                }
            }
            Err("the job ended".into())
        };
        tokio::time::timeout(Duration::from_secs(150), waiting).await?
    }
}
