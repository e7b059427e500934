//! A coordinator, workers and a client, each on a host of its own, and the network between them.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use guestkit_coordinator::app::App;
use guestkit_coordinator::config as coordinator;
use guestkit_domain::WorkerId;
use guestkit_protocol::client::{self, Endpoints, Route};
use guestkit_protocol::{document, v1};
use guestkit_worker::config::{self as worker, Transport};
use guestkit_worker::output::OutputRoots;
use guestkit_worker::roots::{ImageRoots, KeysRoot};
use guestkit_worker::rules::RulesFolder;
use guestkit_worker::session::stream;
use guestkit_worker::shutdown::Shutdown;
use guestkit_worker::worker::Declared;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use turmoil::Builder;

use crate::ground::{Attempts, Ran, Simulated, dial};

/// The coordinator's host.
pub(crate) const COORDINATOR: &str = "coordinator";
const PORT: u16 = 7443;
/// The host on which a story is told.
pub(crate) const STORY: &str = "story";

/// How long a lease lives without a word.
pub(crate) const LEASE_TTL: Duration = Duration::from_secs(60);

/// Simulated; no story takes that long.
const STORY_MAX: Duration = Duration::from_secs(3600);

/// How often a story looks.
const LOOK: Duration = Duration::from_millis(500);

/// The longest an answer may take before it is asked for again.
const ANSWER_MAX: Duration = Duration::from_secs(20);

type Boxed = Box<dyn std::error::Error>;

/// What only the simulation itself can do to a host.
#[derive(Debug)]
enum Fate {
    Crash(&'static str),
    Bounce(&'static str),
}

/// Tells a story over one seed.
///
/// # Panics
/// When it does not hold; with the seed, and what the processes logged.
pub(crate) fn tell<F: Future<Output = ()> + 'static>(
    seed: u64,
    workers: &[&'static str],
    story: impl FnOnce(Hand) -> F + 'static,
) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("guestkit=info,guestkit_coordinator=info,guestkit_worker=info,warn,turmoil=info")
        .with_ansi(false)
        .without_time()
        .with_writer({
            let log = log.clone();
            move || log.clone()
        });
    let told = tracing::subscriber::with_default(subscriber.finish(), || simulate(seed, workers, log.clone(), story));
    if let Err(error) = told {
        panic!("seed {seed}: {error}\nwhat was logged last:\n{}", log.tail());
    }
}

fn simulate<F: Future<Output = ()> + 'static>(
    seed: u64,
    workers: &[&'static str],
    log: Log,
    story: impl FnOnce(Hand) -> F + 'static,
) -> Result<(), Boxed> {
    let folder = tempfile::tempdir()?;
    let mut sim = Builder::new()
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(20))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(80))
        .simulation_duration(STORY_MAX)
        .enable_random_order()
        .build();
    let data = folder.path().to_owned();
    sim.host(COORDINATOR, {
        let data = data.clone();
        move || coordinate(data.join("coordinator"))
    });
    let ran = Arc::new(Mutex::new(Vec::new()));
    for &id in workers {
        let (data, ran) = (data.join(id), Arc::clone(&ran));
        sim.host(id, move || work(id, data.clone(), Arc::clone(&ran)));
    }
    let fates = Rc::new(RefCell::new(Vec::new()));
    let hand = Hand {
        random: Rc::new(RefCell::new(StdRng::seed_from_u64(seed))),
        fates: Rc::clone(&fates),
        route: route()?,
        ran,
        data,
        log,
    };
    sim.client(STORY, async move {
        story(hand).await;
        Ok(())
    });
    loop {
        for fate in fates.borrow_mut().drain(..) {
            match fate {
                Fate::Crash(host) => sim.crash(host),
                Fate::Bounce(host) => sim.bounce(host),
            }
        }
        if sim.step()? {
            return Ok(());
        }
    }
}

async fn coordinate(data: PathBuf) -> Result<(), Boxed> {
    let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let config = coordinator::Config {
        listen: any(PORT),
        http: any(PORT + 1),
        data,
        lease_ttl_seconds: LEASE_TTL.as_secs_f64(),
        ..coordinator::Config::default()
    };
    let app = App::build_on(config, Simulated).await?;
    Err(format!("the coordinator ended: {:?}", app.run(std::future::pending()).await).into())
}

async fn work(id: &'static str, data: PathBuf, ran: Arc<Mutex<Vec<Ran>>>) -> Result<(), Boxed> {
    let declared = Declared {
        worker_id: WorkerId::new(id)?,
        pool: "default".into(),
        slots: 2,
        labels: Default::default(),
        features: Vec::new(),
        images: ImageRoots::anywhere(),
        keys: KeysRoot::none(),
        rules: RulesFolder::none(),
        outputs: OutputRoots::default(),
    };
    let config = worker::Config {
        declared,
        transport: Transport::Fleet { coordinators: endpoints()?, data: data.clone() },
        drain_timeout: Duration::from_secs(10),
        telemetry: Default::default(),
    };
    // Nobody asks it to leave: a worker goes as its host does.
    let (_asks, asked) = mpsc::channel(1);
    stream::run(&config, route()?, &data, |settings| Attempts::new(settings, ran), Shutdown::by(asked)).await?;
    Err("the worker left".into())
}

fn endpoints() -> Result<Endpoints, client::EndpointError> {
    Endpoints::new([format!("http://{COORDINATOR}:{PORT}")])
}

fn route() -> Result<Route, client::EndpointError> {
    Ok(Route::by(endpoints()?, dial))
}

/// The story's hand: a client of the coordinator, and what it can do to hosts.
#[derive(Clone)]
pub(crate) struct Hand {
    random: Rc<RefCell<StdRng>>,
    fates: Rc<RefCell<Vec<Fate>>>,
    route: Route,
    ran: Arc<Mutex<Vec<Ran>>>,
    data: PathBuf,
    log: Log,
}

impl Hand {
    /// A number drawn from the seed.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.random.borrow_mut().random_range(0..bound)
    }

    /// A time drawn from the seed.
    pub(crate) fn seconds(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.random.borrow_mut().random_range(from * 1000..to * 1000))
    }

    /// Ends everything on a host between two steps of the simulation.
    pub(crate) fn crash(&self, host: &'static str) {
        self.fates.borrow_mut().push(Fate::Crash(host));
    }

    /// Starts it again.
    pub(crate) fn bounce(&self, host: &'static str) {
        self.fates.borrow_mut().push(Fate::Bounce(host));
    }

    /// Attempts that were over, in order.
    pub(crate) fn ran(&self, job_id: &str) -> Vec<Ran> {
        self.ran.lock().unwrap().iter().filter(|ran| ran.job_id == job_id).cloned().collect()
    }

    /// Outcomes that a worker keeps because they are not acknowledged.
    pub(crate) fn kept(&self, worker_id: &str) -> usize {
        outcomes_in(&self.data.join(worker_id).join(format!("worker-{worker_id}")))
    }

    /// How often something was logged.
    pub(crate) fn logged(&self, words: &str) -> usize {
        self.log.count(words)
    }

    /// Asks until there is an answer that is not the network's.
    pub(crate) async fn ask<T>(&self, call: impl AsyncFn(Channel) -> Result<Response<T>, Status>) -> Result<T, Status> {
        let mut route = self.route.clone();
        loop {
            if let Ok(channel) = route.connect().await {
                match timeout(ANSWER_MAX, call(channel)).await {
                    Ok(Ok(answer)) => return Ok(answer.into_inner()),
                    Ok(Err(status)) if !is_of_the_network(&status) => return Err(status),
                    Ok(Err(_)) | Err(_) => {}
                }
            }
            sleep(route.failed()).await;
        }
    }

    /// Submits a job that takes some seconds, until that is acknowledged.
    pub(crate) async fn submit(&self, job_id: &str, seconds: u64) {
        let document = echo(job_id, seconds);
        let submitted = self.ask(async |channel| client::jobs(channel).submit(document.clone()).await).await;
        match submitted {
            Ok(_) => {}
            // The acknowledgement of an earlier try was lost.
            Err(status) if status.code() == Code::AlreadyExists => {}
            Err(status) => panic!("{job_id} is refused: {status}"),
        }
    }

    /// The job as it is now.
    pub(crate) async fn job(&self, job_id: &str) -> v1::Job {
        let request = v1::GetRequest { job_id: job_id.into() };
        let answer = self.ask(async |channel| client::jobs(channel).get(request.clone()).await).await;
        answer.unwrap_or_else(|status| panic!("{job_id}: {status}")).job.unwrap()
    }

    /// The job once something holds of it.
    pub(crate) async fn until(&self, job_id: &str, holds: impl Fn(&v1::Job) -> bool) -> v1::Job {
        loop {
            let job = self.job(job_id).await;
            if holds(&job) {
                return job;
            }
            sleep(LOOK).await;
        }
    }

    /// The job once a worker runs it.
    pub(crate) async fn running(&self, job_id: &str) -> v1::Job {
        self.until(job_id, |job| job.state() == v1::JobState::Running).await
    }

    /// The job once it is over.
    pub(crate) async fn over(&self, job_id: &str) -> v1::Job {
        self.until(job_id, is_over).await
    }

    /// Waits for something that is not a job's.
    pub(crate) async fn until_so(&self, holds: impl Fn() -> bool) {
        while !holds() {
            sleep(LOOK).await;
        }
    }

    /// Follows a job to its end, whatever happens to the connection: every entry of its log, as it was told.
    pub(crate) async fn follow(&self, job_id: &str) -> Vec<v1::JobEvent> {
        let mut route = self.route.clone();
        let mut events: Vec<v1::JobEvent> = Vec::new();
        loop {
            let Ok(channel) = route.connect().await else {
                sleep(route.failed()).await;
                continue;
            };
            let after_sequence = events.last().map_or(0, |event| event.sequence);
            let request = v1::WatchRequest { job_id: job_id.into(), after_sequence };
            match client::jobs(channel).watch(request).await.map(Response::into_inner) {
                Ok(mut stream) => loop {
                    match stream.message().await {
                        Ok(Some(told)) => events.push(told.event.unwrap()),
                        Ok(None) => return events,
                        Err(status) if is_of_the_network(&status) => break,
                        Err(status) => panic!("{job_id}: {status}"),
                    }
                },
                Err(status) if is_of_the_network(&status) => {}
                Err(status) => panic!("{job_id}: {status}"),
            }
            sleep(route.failed()).await;
        }
    }

    /// The log of a job that is over, asserted to be whole and to end it once.
    pub(crate) async fn log_of(&self, job_id: &str) -> Vec<v1::JobEvent> {
        let events = self.follow(job_id).await;
        assert_whole(&events);
        events
    }
}

/// A log has every number from 1 once, in order, and only its last entry ends the job.
pub(crate) fn assert_whole(events: &[v1::JobEvent]) {
    let numbers: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    let expected: Vec<u64> = (1..=events.len() as u64).collect();
    assert_eq!(numbers, expected);
    let ends = events.iter().filter(|event| is_end(event.state())).count();
    assert!(ends == 1 && events.last().is_some_and(|event| is_end(event.state())), "{ends} ends in {events:?}");
}

pub(crate) fn is_over(job: &v1::Job) -> bool {
    is_end(job.state())
}

fn is_end(state: v1::JobState) -> bool {
    use v1::JobState::{Cancelled, Completed, Failed, Timeout};
    matches!(state, Completed | Failed | Cancelled | Timeout)
}

/// Whether a status tells of the connection, or of a coordinator that comes or goes, and not of what was asked.
fn is_of_the_network(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
}

fn echo(job_id: &str, seconds: u64) -> v1::JobDocument {
    let json = format!(
        r#"{{"version": "1.0", "kind": "VMOperation", "job_id": "{job_id}", "operation": "system.echo",
             "payload": {{"type": "system.echo.v1", "data": {{"duration_seconds": {seconds}}}}}}}"#
    );
    document::parse(json.as_bytes()).unwrap()
}

fn outcomes_in(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.filter_map(Result::ok).filter(|entry| entry.path().extension().is_some_and(|ext| ext == "outcome")).count()
}

/// What every simulated process logged.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    fn count(&self, words: &str) -> usize {
        self.text().matches(words).count()
    }

    fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
