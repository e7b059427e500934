//! The session machine's I/O: connects, carries its words both ways, runs the attempts it wants, keeps their outcomes, and
//! calls it when it wants to be called. It never waits for an attempt, a disk or a peer while it owes a heartbeat.

use std::collections::HashMap;
use std::future::{self, Future};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use guestkit_domain::ErrorCode;
use guestkit_protocol::client::{self, MESSAGE_BYTES_MAX, Route};
use guestkit_protocol::document::{self, Source};
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::{convert, v1};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use tracing::Instrument as _;
use v1::session_request::Message as Say;
use v1::session_response::Message as Hear;

use super::machine::{Effect, Identity, Machine, Verdict};
use super::upload;
use crate::attempt::{Order, Run, Settings, Stop};
use crate::config::Config;
use crate::failure::Failure;
use crate::handlers::Registry;
use crate::shutdown::Shutdown;
use crate::spool::Spool;
use crate::{trace, wire, worker};

/// Words that wait to be sent; a stream that takes none for so long is ended, and its leases are resumed on the next.
const OUTBOX: usize = 1024;
/// Events of attempts that wait for the session.
const EVENTS: usize = 1024;
/// How long opening a stream may take once the connection stands: a coordinator opens it before it looks at what is said.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a worker that leaves waits for its disk.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a message has besides an outcome's result: ids, digests, and an error's message and details.
const ENVELOPE_BYTES: usize = 64 << 10;

/// Serves the coordinators at the end of `route` until told to leave. Attempts are run by what `attempts` makes of this
/// worker's settings.
///
/// # Errors
/// The spool cannot be used, or another process has taken over this worker's name.
pub async fn run<R: Run>(
    config: &Config,
    route: Route,
    data: &Path,
    attempts: impl FnOnce(Settings) -> R,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let declared = &config.declared;
    let spool = Arc::new(Spool::open(data, &declared.worker_id)?);
    let kept = spool.load()?;
    let registry = Registry::default();
    let description = worker::describe(declared, &registry, spool.folder());
    tracing::info!("Starting worker {}", declared.worker_id);
    tracing::info!("Registered {} operation handlers", registry.operations().len());
    tracing::info!("Supported operations: {:?}", registry.operations());
    if !kept.is_empty() {
        tracing::info!(outcomes = kept.len(), "outcomes of an earlier run wait to be delivered");
    }
    let identity = Identity {
        worker_id: declared.worker_id.to_string(),
        boot_id: uuid::Uuid::new_v4().to_string(),
        description,
        message_bytes_max: MESSAGE_BYTES_MAX as u64,
    };
    let machine = Machine::new(identity, kept.iter().map(|outcome| (outcome.lease_id, outcome.job_id.clone())));
    let (events, heard) = mpsc::channel(EVENTS);
    let settings = Settings {
        worker_id: declared.worker_id.clone(),
        images: declared.images.clone(),
        keys: declared.keys.clone(),
        outputs: declared.outputs.clone(),
        rules: declared.rules.clone(),
    };
    let session = Session {
        machine,
        started: Instant::now(),
        attempts: attempts(settings.clone()),
        settings,
        registry,
        spool,
        puts: HashMap::new(),
        outcomes: kept.into_iter().map(|outcome| (outcome.lease_id, Arc::new(outcome))).collect(),
        stops: HashMap::new(),
        uploads: HashMap::new(),
        link: Link::Waiting { until: Instant::now() },
        route,
        streams: 0,
        events,
        drain_timeout: config.drain_timeout,
    };
    session.serve(heard, shutdown).await
}

/// What attempts tell the session.
enum Event {
    Progress(u64, v1::Progress),
    /// Over; with an outcome unless it was abandoned.
    Finished(u64, Option<Arc<v1::Outcome>>),
    /// An outcome whose report was uploaded, or cannot be, ready to be said on the stream of that number.
    Uploaded(u64, Box<v1::Outcome>),
}

type Connecting = Pin<Box<dyn Future<Output = (Route, Result<Channel, client::Unreachable>)> + Send>>;
type Opening = Pin<Box<dyn Future<Output = Result<Box<Opened>, Loss>> + Send>>;

struct Opened {
    inbound: Streaming<v1::SessionResponse>,
    channel: Channel,
}

/// Where the connection stands.
enum Link {
    /// For the next try.
    Waiting {
        until: Instant,
    },
    Connecting(Connecting),
    Opening {
        opening: Opening,
        outbox: mpsc::Sender<v1::SessionRequest>,
    },
    Up {
        opened: Box<Opened>,
        outbox: mpsc::Sender<v1::SessionRequest>,
    },
}

/// What the link came up with.
enum News {
    Retry,
    Connected(Route, Result<Channel, client::Unreachable>),
    Opened(Box<Opened>),
    Heard(Box<Hear>),
    Lost(Loss),
}

/// Why the link is gone.
enum Loss {
    /// It broke.
    Broken(String),
    /// The coordinator leads no more, or not yet; with the leader that it names.
    NotLeader(Option<String>),
}

impl Loss {
    fn of(status: &tonic::Status) -> Self {
        match Refusal::from_status(status) {
            Some(Refusal { reason: Reason::NotLeader, leader, .. }) => Self::NotLeader(leader),
            _ => Self::Broken(told(status)),
        }
    }
}

struct Session<R> {
    machine: Machine,
    started: Instant,
    settings: Settings,
    attempts: R,
    registry: Registry,
    spool: Arc<Spool>,
    /// Outcomes on their way to the disk.
    puts: HashMap<u64, JoinHandle<()>>,
    /// Those that are not acknowledged; also on disk, unless the disk refused them.
    outcomes: HashMap<u64, Arc<v1::Outcome>>,
    stops: HashMap<u64, oneshot::Sender<Stop>>,
    /// Reports on their way.
    uploads: HashMap<u64, AbortHandle>,
    link: Link,
    /// The way to the coordinator that leads.
    route: Route,
    /// Streams opened so far: the number of the one that is open.
    streams: u64,
    events: mpsc::Sender<Event>,
    drain_timeout: Duration,
}

impl<R: Run> Session<R> {
    async fn serve(mut self, mut events: mpsc::Receiver<Event>, mut shutdown: Shutdown) -> anyhow::Result<()> {
        let mut asked_to_leave = false;
        loop {
            let wake = self.machine.next_deadline().map(|at| self.started + at);
            tokio::select! {
                // Progress cannot hold up what the machine owes: its deadlines come first.
                biased;
                () = sleep_until(wake) => self.machine.on_tick(self.started.elapsed()),
                () = shutdown.asked() => {
                    let patience = if asked_to_leave { Duration::ZERO } else { self.drain_timeout };
                    tracing::info!(running = self.machine.busy(), "asked to leave");
                    asked_to_leave = true;
                    self.machine.on_drain(self.started.elapsed(), Some(patience));
                }
                news = self.link.next() => self.on_news(news),
                Some(event) = events.recv() => self.on_event(event),
            }
            if let Some(gracefully) = self.act() {
                self.settle().await;
                return if gracefully {
                    // What was said last is sent before the stream ends.
                    self.link.close().await;
                    tracing::info!("left gracefully");
                    Ok(())
                } else {
                    anyhow::bail!(
                        "another process has taken over as worker {}; give each worker an id of its own",
                        self.settings.worker_id
                    )
                };
            }
        }
    }

    fn on_news(&mut self, news: News) {
        let now = self.started.elapsed();
        match news {
            News::Retry => {
                let mut route = self.route.clone();
                self.link = Link::Connecting(Box::pin(async move {
                    let connected = route.connect().await;
                    (route, connected)
                }));
            }
            News::Connected(route, Err(error)) => {
                self.route = route;
                self.on_lost(now, Loss::Broken(error.to_string()));
            }
            News::Connected(route, Ok(channel)) => {
                self.route = route;
                self.streams += 1;
                let (outbox, words) = mpsc::channel(OUTBOX);
                // Hello lies in the outbox before the stream is opened, because the answer may wait for it.
                self.link = Link::Opening { opening: Box::pin(open(channel, words)), outbox };
                self.machine.set_free_disk_bytes(worker::free_disk_bytes(self.spool.folder()));
                self.machine.on_connecting(now);
            }
            News::Opened(opened) => {
                if let Link::Opening { outbox, .. } = &self.link {
                    self.link = Link::Up { opened, outbox: outbox.clone() };
                }
            }
            News::Heard(message) => match *message {
                Hear::Lease(lease) => {
                    let verdict = self.judge(&lease);
                    self.machine.on_lease(now, lease, verdict);
                }
                message => self.on_heard(now, message),
            },
            News::Lost(why) => self.on_lost(now, why),
        }
    }

    fn on_lost(&mut self, now: Duration, why: Loss) {
        match why {
            Loss::Broken(why) => {
                tracing::warn!(coordinator = %self.route, why, "the coordinator is not reached");
                self.reconnect(Duration::ZERO);
            }
            Loss::NotLeader(leader) => self.follow(leader.as_deref(), Duration::ZERO),
        }
        self.machine.on_lost(now);
    }

    fn on_heard(&mut self, now: Duration, message: Hear) {
        match &message {
            Hear::Welcome(welcome) => {
                self.route.served();
                tracing::info!(session = welcome.session_id, coordinator = %self.route, "connected");
            }
            Hear::OutcomeAck(ack) if ack.verdict() == v1::OutcomeVerdict::Stale => {
                tracing::warn!(lease = ack.lease_id, "an outcome came too late and was dropped");
            }
            Hear::Goodbye(goodbye) => {
                tracing::warn!(
                    reason = goodbye.reason().as_str_name(),
                    "the coordinator ends the session: {}",
                    goodbye.message
                );
            }
            Hear::Drain(_) => tracing::info!("the coordinator asks this worker to leave"),
            Hear::HeartbeatAck(_) => {
                self.machine.set_free_disk_bytes(worker::free_disk_bytes(self.spool.folder()));
            }
            _ => {}
        }
        self.machine.on_message(now, message);
    }

    fn on_event(&mut self, event: Event) {
        let now = self.started.elapsed();
        match event {
            Event::Progress(lease, progress) => self.machine.on_progress(now, lease, progress),
            Event::Finished(lease, outcome) => {
                self.stops.remove(&lease);
                let kept = outcome.is_some();
                if let Some(outcome) = outcome {
                    self.keep(lease, Arc::clone(&outcome));
                    self.outcomes.insert(lease, outcome);
                }
                self.machine.on_finished(now, lease, kept);
            }
            // Another stream may lead to another coordinator, which has not what was uploaded to this one.
            Event::Uploaded(stream, outcome) if stream == self.streams => self.send(Say::Outcome(*outcome)),
            Event::Uploaded(..) => {}
        }
    }

    /// Does what the machine wants; tells when it wants to leave, and whether gracefully.
    fn act(&mut self) -> Option<bool> {
        let mut leave = None;
        // Sending may end the link, which the machine must hear of before its next wish is done.
        loop {
            let effects = self.machine.take_effects();
            if effects.is_empty() {
                return leave;
            }
            for effect in effects {
                match effect {
                    Effect::Send(words) => self.send(*words),
                    Effect::Start(lease) => self.start(*lease),
                    Effect::Stop(lease, stop) => {
                        if let Some(sender) = self.stops.remove(&lease) {
                            // One that has ended meanwhile cannot be stopped.
                            let _ = sender.send(stop);
                        }
                    }
                    Effect::Deliver(lease, inline_bytes_max) => self.deliver(lease, inline_bytes_max),
                    Effect::Forget(lease) => self.forget(lease),
                    Effect::Disconnect { why, after } => {
                        tracing::warn!(why, "the session ends");
                        self.reconnect(after);
                        self.machine.on_lost(self.started.elapsed());
                    }
                    Effect::Move { leader, after } => {
                        self.follow(Some(leader.as_str()).filter(|leader| !leader.is_empty()), after);
                        self.machine.on_lost(self.started.elapsed());
                    }
                    Effect::Leave { gracefully } => leave = Some(gracefully),
                }
            }
        }
    }

    fn send(&mut self, words: Say) {
        let full = match &self.link {
            Link::Opening { outbox, .. } | Link::Up { outbox, .. } => {
                outbox.try_send(v1::SessionRequest { message: Some(words) }).is_err()
            }
            // Whatever matters is said again after the next Welcome.
            Link::Waiting { .. } | Link::Connecting(_) => false,
        };
        if full {
            tracing::warn!("the coordinator does not take what is sent; the session ends");
            self.reconnect(Duration::ZERO);
            self.machine.on_lost(self.started.elapsed());
        }
    }

    fn reconnect(&mut self, after: Duration) {
        let wait = self.route.failed().min(self.machine.reconnect_within()).max(after);
        self.link = Link::Waiting { until: Instant::now() + wait };
    }

    /// Goes to the coordinator that leads.
    fn follow(&mut self, leader: Option<&str>, after: Duration) {
        tracing::info!(coordinator = %self.route, leader, "the coordinator does not lead");
        let wait = self.route.turned_away(leader).min(self.machine.reconnect_within()).max(after);
        self.link = Link::Waiting { until: Instant::now() + wait };
    }

    /// Whether this worker can take the lease at all.
    fn judge(&self, lease: &v1::Lease) -> Verdict {
        use v1::RefusalFault::{Job, Worker};
        let refuse = |fault, failure: Failure| Err((fault, failure.to_job_error("")));
        let Some(document) = lease.document.clone() else {
            return refuse(Job, Failure::new(ErrorCode::ValidationError, "the lease has no document"));
        };
        let now = wire::time_of(std::time::SystemTime::now());
        let checked = match document::check(document, Source::Leased, now) {
            Ok(checked) => checked,
            Err(refusal) => return refuse(Job, of_refusal(&refusal)),
        };
        let operation = checked.operation.name();
        if !self.registry.operations().contains(&operation) {
            let text = format!("this worker has no handler for {operation}");
            return refuse(Worker, Failure::new(ErrorCode::UnsupportedOperation, text));
        }
        let image = checked.spec.placement.image_folder.as_deref();
        if let Some(folder) = image.filter(|folder| !self.settings.images.may_hold(Path::new(folder))) {
            let text = format!("{folder} lies outside this worker's image roots");
            return refuse(Worker, Failure::new(ErrorCode::ImageAccessDenied, text));
        }
        if let Some(gone) = self.settings.images.folders().iter().find(|root| !root.is_dir()) {
            let text = format!("the image root {} is not there", gone.display());
            return refuse(Worker, Failure::new(ErrorCode::ImageNotFound, text));
        }
        Ok(())
    }

    fn start(&mut self, lease: v1::Lease) {
        let lease_id = lease.lease_id;
        let document = lease.document.unwrap_or_default();
        let span = trace::attempt_span(&document, Some(lease_id), &self.settings.worker_id, lease.attempt);
        span.in_scope(|| {
            tracing::info!("Received job: {} ({})", document.job_id, document.operation);
            if let Some(last) = &lease.last_progress {
                tracing::info!(phase = last.phase, percent = last.progress_percent, "an attempt before got this far");
            }
        });
        let order = Order {
            attempt: lease.attempt,
            // The protocol's own default where the coordinator says nothing that makes sense.
            timeout: wire::duration(lease.timeout.as_ref()).unwrap_or(Duration::from_secs(3600)),
            timeout_code: ErrorCode::Timeout,
            document,
        };
        let (stop, stopped) = oneshot::channel();
        self.stops.insert(lease_id, stop);
        let attempt = attend(lease_id, order, stopped, self.attempts.clone(), self.events.clone());
        tokio::spawn(attempt.instrument(span));
    }

    fn deliver(&mut self, lease_id: u64, inline_bytes_max: u64) {
        let Some(outcome) = self.outcomes.get(&lease_id).cloned() else { return };
        // A message has an envelope; what the receiver takes as a whole is bounded too.
        let bytes_max = inline_bytes_max.min((MESSAGE_BYTES_MAX - ENVELOPE_BYTES) as u64);
        if outcome.result.len() as u64 <= bytes_max {
            return self.send(Say::Outcome((*outcome).clone()));
        }
        let Link::Up { opened, .. } = &self.link else { return };
        let by_reference = upload::by_reference(opened.channel.clone(), outcome, bytes_max);
        let (events, stream) = (self.events.clone(), self.streams);
        let uploading = tokio::spawn(async move {
            // The session may have ended meanwhile; then the next Welcome asks for it again.
            let _ = events.send(Event::Uploaded(stream, Box::new(by_reference.await))).await;
        });
        // One that goes on over an earlier stream's connection would keep this one from the artifact.
        if let Some(earlier) = self.uploads.insert(lease_id, uploading.abort_handle()) {
            earlier.abort();
        }
    }

    fn forget(&mut self, lease_id: u64) {
        self.outcomes.remove(&lease_id);
        if let Some(uploading) = self.uploads.remove(&lease_id) {
            uploading.abort();
        }
        let spool = Arc::clone(&self.spool);
        let put = self.puts.remove(&lease_id);
        tokio::spawn(async move {
            // What is still being written cannot be removed yet.
            if let Some(put) = put {
                let _ = put.await;
            }
            let forgotten = tokio::task::spawn_blocking(move || spool.forget(lease_id));
            if let Ok(Err(error)) = forgotten.await {
                tracing::warn!(lease = lease_id, "an acknowledged outcome stays on disk: {error:#}");
            }
        });
    }

    /// Makes an outcome durable here while it travels: a crash loses it only if it comes before either disk has it, as a
    /// crash before the end of the attempt does.
    fn keep(&mut self, lease_id: u64, outcome: Arc<v1::Outcome>) {
        let spool = Arc::clone(&self.spool);
        let put = tokio::task::spawn_blocking(move || {
            if let Err(error) = spool.put(&outcome) {
                // Still delivered from memory; only a crash before that would lose it.
                tracing::error!(lease = lease_id, "an outcome could not be kept on disk: {error:#}");
            }
        });
        self.puts.insert(lease_id, put);
    }

    /// Waits until everything that is to survive this process is on disk; not for ever, because a disk may have died.
    async fn settle(&mut self) {
        let until = Instant::now() + SETTLE_TIMEOUT;
        for (lease_id, put) in self.puts.drain() {
            if tokio::time::timeout_at(until, put).await.is_err() {
                tracing::error!(lease = lease_id, "an outcome was not kept on disk in time");
            }
        }
    }
}

impl Link {
    async fn next(&mut self) -> News {
        match self {
            Self::Waiting { until } => {
                tokio::time::sleep_until(*until).await;
                News::Retry
            }
            Self::Connecting(connecting) => {
                let (route, connected) = connecting.await;
                News::Connected(route, connected)
            }
            Self::Opening { opening, .. } => match opening.await {
                Ok(opened) => News::Opened(opened),
                Err(loss) => News::Lost(loss),
            },
            Self::Up { opened, .. } => match opened.inbound.message().await {
                Ok(Some(v1::SessionResponse { message: Some(message) })) => News::Heard(Box::new(message)),
                Ok(Some(_)) => News::Lost(Loss::Broken("it said something this version does not know".into())),
                Ok(None) => News::Lost(Loss::Broken("it ended the stream".into())),
                Err(status) => News::Lost(Loss::of(&status)),
            },
        }
    }

    /// Ends the stream once what was said on it is sent.
    async fn close(self) {
        if let Self::Up { mut opened, outbox } = self {
            drop(outbox);
            // The coordinator ends its side when ours has ended; one that does not is not waited for.
            let drained = async { while let Ok(Some(_)) = opened.inbound.message().await {} };
            let _ = tokio::time::timeout(Duration::from_secs(2), drained).await;
        }
    }
}

pub(super) fn told(status: &tonic::Status) -> String {
    Refusal::from_status(status)
        .map_or_else(|| format!("{}: {}", status.code(), status.message()), |refusal| refusal.to_string())
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => future::pending().await,
    }
}

async fn open(channel: Channel, words: mpsc::Receiver<v1::SessionRequest>) -> Result<Box<Opened>, Loss> {
    let mut workers = client::workers(channel.clone());
    let opening = workers.session(ReceiverStream::new(words));
    let response = tokio::time::timeout(OPEN_TIMEOUT, opening)
        .await
        .map_err(|_| Loss::Broken("it does not open a session".into()))?
        .map_err(|status| Loss::of(&status))?;
    Ok(Box::new(Opened { inbound: response.into_inner(), channel }))
}

fn of_refusal(refusal: &Refusal) -> Failure {
    let code = match refusal.reason {
        Reason::UnsupportedOperation => ErrorCode::UnsupportedOperation,
        _ => ErrorCode::ValidationError,
    };
    Failure::new(code, refusal.to_string())
}

/// Runs one attempt and tells the session how it ended.
async fn attend(
    lease_id: u64,
    order: Order,
    stopped: oneshot::Receiver<Stop>,
    attempts: impl Run,
    events: mpsc::Sender<Event>,
) {
    let job_id = order.document.job_id.clone();
    let told = |progress: v1::Progress| {
        tracing::info!("[{job_id}] {} - {} ({:.0}%)", progress.phase, progress.message, progress.progress_percent);
        // A session too busy for progress gets the next; what ends the attempt is never dropped.
        let _ = events.try_send(Event::Progress(lease_id, progress));
    };
    let result = attempts.run(order, stopped, told).await;
    if let Some(result) = &result {
        log_end(result);
    } else {
        tracing::info!("Job {job_id} was given up");
    }
    let outcome = result.map(|result| Arc::new(outcome_of(lease_id, &result)));
    // The session is gone only when the process is leaving.
    let _ = events.send(Event::Finished(lease_id, outcome)).await;
}

fn log_end(result: &v1::JobResult) {
    match &result.error {
        None => tracing::info!("Job {} completed successfully", result.job_id),
        Some(error) => {
            tracing::error!(code = error.code, "Job {} ended as {}: {}", result.job_id, result.status, error.message);
        }
    }
}

pub(super) fn outcome_of(lease_id: u64, result: &v1::JobResult) -> v1::Outcome {
    let status = match result.status.as_str() {
        "completed" => v1::OutcomeStatus::Completed,
        "cancelled" => v1::OutcomeStatus::Cancelled,
        "timeout" => v1::OutcomeStatus::Timeout,
        _ => v1::OutcomeStatus::Failed,
    };
    let encoded = result.encode_to_vec();
    v1::Outcome {
        lease_id,
        job_id: result.job_id.clone(),
        status: status.into(),
        error: result.error.clone(),
        result_sha256: Sha256::digest(&encoded).to_vec(),
        result: encoded,
    }
}

/// The wire's own protocol version must be the machine's.
const _: () = assert!(super::machine::PROTOCOL_VERSION == convert::worker::PROTOCOL_VERSION);
