//! What the fleet costs: submit-to-outcome one at a time, and jobs per second with a full queue, always on the durable store.
//!
//! Two kinds of worker are measured: the real one, which starts a process for each attempt, and a bare session that answers at
//! once, which leaves the coordinator's own cost. Run by `cargo xtask bench`; the programs must have been built in release.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use guestkit_processes::{Binaries, Fleet};
use guestkit_protocol::v1;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use v1::jobs_client::JobsClient;
use v1::session_request::Message as Said;
use v1::session_response::Message as Heard;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Submissions under way at once while the queue is being filled.
const SUBMITTERS: usize = 64;

fn main() -> Result<(), Failure> {
    // `cargo test --benches` runs us with --test: nothing is measured then.
    let args: Vec<String> = std::env::args().collect();
    if !args.iter().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let jobs = number("GUESTKIT_BENCH_JOBS", 10_000)?;
    let runs = number("GUESTKIT_BENCH_RUNS", 5)?;
    tokio::runtime::Runtime::new()?.block_on(measure(jobs, runs))
}

fn number(name: &str, default: usize) -> Result<usize, Failure> {
    std::env::var(name).map_or(Ok(default), |text| Ok(text.parse()?))
}

async fn measure(jobs: usize, runs: usize) -> Result<(), Failure> {
    let binaries = Binaries::beside_this_test()?;
    let mut rows = Vec::new();
    for kind in [Kind::Bare, Kind::Real] {
        rows.push(latency(&binaries, kind, runs).await?);
        rows.push(throughput(&binaries, kind, jobs, runs).await?);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n| figure (median of {runs}) | value |\n|---|---|")?;
    for row in rows.iter().flatten() {
        writeln!(out, "| {} | {} |", row.0, row.1)?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Kind {
    Bare,
    Real,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "a session that answers at once",
            Self::Real => "the real worker, a process per attempt",
        }
    }
}

type Rows = Vec<(String, String)>;

async fn latency(binaries: &Binaries, kind: Kind, runs: usize) -> Result<Rows, Failure> {
    const ONE_BY_ONE: usize = 500;
    let (mut p50s, mut p99s) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let mut fleet = Fleet::start(binaries, &[])?;
        let channel = Channel::from_shared(fleet.url())?.tcp_nodelay(true).connect().await?;
        let _worker = start(&mut fleet, kind, &channel).await?;
        let mut client = JobsClient::new(channel);
        let mut times = Vec::with_capacity(ONE_BY_ONE);
        for index in 0..ONE_BY_ONE {
            let started = Instant::now();
            let job_id = format!("latency-{index:06}");
            client.submit(document(&job_id)).await?;
            outcome(&mut client, job_id).await?;
            times.push(started.elapsed());
        }
        times.sort_unstable();
        p50s.push(times[ONE_BY_ONE / 2]);
        p99s.push(times[ONE_BY_ONE * 99 / 100]);
    }
    let name = kind.name();
    Ok(vec![
        (format!("submit to outcome, one at a time, p50 ({name})"), millis(median(p50s))),
        (format!("submit to outcome, one at a time, p99 ({name})"), millis(median(p99s))),
    ])
}

async fn throughput(binaries: &Binaries, kind: Kind, jobs: usize, runs: usize) -> Result<Rows, Failure> {
    let (mut submits, mut rates, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let mut fleet = Fleet::start(binaries, &[])?;
        let channel = Channel::from_shared(fleet.url())?.tcp_nodelay(true).connect().await?;
        let mut client = JobsClient::new(channel.clone());

        let started = Instant::now();
        fill(&client, jobs).await?;
        submits.push(per_second(jobs, started.elapsed()));

        let cpu_before = cpu_seconds(fleet.coordinator().id())?;
        let started = Instant::now();
        let _worker = start(&mut fleet, kind, &channel).await?;
        // The last one queued is the last one leased; the count says when all are over.
        outcome(&mut client, format!("load-{:08}", jobs - 1)).await?;
        all_over(&channel, jobs).await?;
        rates.push(per_second(jobs, started.elapsed()));
        #[allow(clippy::cast_precision_loss)]
        costs.push((cpu_seconds(fleet.coordinator().id())? - cpu_before) * 1e6 / jobs as f64);
    }
    let name = kind.name();
    Ok(vec![
        (
            format!("submissions per second, {SUBMITTERS} under way, up to {jobs} queued"),
            format!("{:.0}", middle(submits)),
        ),
        (format!("jobs per second with {jobs} queued ({name})"), format!("{:.0}", middle(rates))),
        (format!("coordinator CPU per job of those ({name})"), format!("{:.0} µs", middle(costs))),
    ])
}

async fn fill(client: &JobsClient<Channel>, jobs: usize) -> Result<(), Failure> {
    let mut tasks = tokio::task::JoinSet::new();
    for submitter in 0..SUBMITTERS {
        let mut client = client.clone();
        tasks.spawn(async move {
            for index in (submitter..jobs).step_by(SUBMITTERS) {
                client.submit(document(&format!("load-{index:08}"))).await?;
            }
            Ok::<(), tonic::Status>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

async fn all_over(channel: &Channel, jobs: usize) -> Result<(), Failure> {
    let mut fleet = v1::fleet_client::FleetClient::new(channel.clone());
    while fleet.summary(v1::SummaryRequest {}).await?.into_inner().completed < jobs as u64 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn outcome(client: &mut JobsClient<Channel>, job_id: String) -> Result<(), Failure> {
    let mut events = client.watch(v1::WatchRequest { job_id, after_sequence: 0 }).await?.into_inner();
    let mut last = v1::JobState::Unspecified;
    while let Some(answer) = events.next().await {
        last = answer?.event.map_or(last, |event| event.state());
    }
    if last == v1::JobState::Completed { Ok(()) } else { Err(format!("a job ended as {last:?}").into()) }
}

/// Ends the bare session's task with itself; the real worker's process ends with its fleet.
struct Worker(Option<tokio::task::JoinHandle<()>>);

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

async fn start(fleet: &mut Fleet, kind: Kind, channel: &Channel) -> Result<Worker, Failure> {
    match kind {
        Kind::Real => {
            let folder = fleet.folder().to_string_lossy().into_owned();
            // Slots beyond the cores: most of a small job's time is waiting for disks and for answers.
            fleet.start_worker("bench", &["--image-root", &folder, "--slots", "8"])?;
            Ok(Worker(None))
        }
        Kind::Bare => Ok(Worker(Some(bare_worker(channel.clone()).await?))),
    }
}

/// A session that accepts every lease and completes it at once: what remains is the coordinator.
async fn bare_worker(channel: Channel) -> Result<tokio::task::JoinHandle<()>, Failure> {
    const SLOTS: u32 = 64;
    let (say, said) = tokio::sync::mpsc::channel(1024);
    let description = v1::WorkerDescription {
        version: env!("CARGO_PKG_VERSION").into(),
        operations: vec!["system.echo".into()],
        pool: "default".into(),
        slots: SLOTS,
        ..Default::default()
    };
    let hello = v1::Hello {
        protocol_version: 1,
        worker_id: "bare".into(),
        boot_id: "bare-boot-0001".into(),
        description: Some(description),
        held: Vec::new(),
        message_bytes_max: 4 << 20,
    };
    say.send(v1::SessionRequest { message: Some(Said::Hello(hello)) }).await?;
    let mut client = v1::workers_client::WorkersClient::new(channel);
    let mut heard = client.session(ReceiverStream::new(said)).await?.into_inner();
    Ok(tokio::spawn(async move {
        while let Some(Ok(answer)) = heard.next().await {
            let Some(Heard::Lease(lease)) = answer.message else { continue };
            for message in answers(&lease) {
                if say.send(v1::SessionRequest { message: Some(message) }).await.is_err() {
                    return;
                }
            }
        }
    }))
}

fn answers(lease: &v1::Lease) -> [Said; 2] {
    let result = v1::JobResult { job_id: lease.job_id.clone(), status: "completed".into(), ..Default::default() };
    let result = prost::Message::encode_to_vec(&result);
    let result_sha256 = sha256(&result);
    [
        Said::Accept(v1::Accept { lease_id: lease.lease_id }),
        Said::Outcome(v1::Outcome {
            lease_id: lease.lease_id,
            job_id: lease.job_id.clone(),
            status: v1::OutcomeStatus::Completed.into(),
            error: None,
            result,
            result_sha256,
        }),
    ]
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).to_vec()
}

fn document(job_id: &str) -> v1::JobDocument {
    let data = [("message".to_owned(), prost_types::Value::from("hello"))];
    v1::JobDocument {
        version: "1.0".into(),
        job_id: job_id.into(),
        kind: "VMOperation".into(),
        operation: "system.echo".into(),
        payload: Some(v1::Payload {
            r#type: "system.echo.v1".into(),
            data: Some(prost_types::Struct { fields: data.into_iter().collect() }),
        }),
        ..Default::default()
    }
}

/// User and system seconds of a process (proc(5), /proc/PID/stat, fields 14 and 15, in hundredths on Linux).
fn cpu_seconds(pid: u32) -> Result<f64, Failure> {
    let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    let after_name = text.rsplit_once(") ").ok_or("a process without a name")?.1;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = |index: usize| -> Result<f64, Failure> { Ok(fields.get(index).ok_or("a short line")?.parse::<f64>()?) };
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

#[allow(clippy::cast_precision_loss)]
fn per_second(count: usize, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn middle(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
