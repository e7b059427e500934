//! Workers: one stream per worker, which carries everything. Here it is only carried: what a worker says is checked and handed
//! to the driver, what the driver says is put on the wire. Nonsense ends the session with a reason, and nothing else.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use guestkit_domain::{ErrorCode, Failure, JobId, LeaseId, WorkerId};
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::v1;
use guestkit_protocol::v1::session_request::Message as Said;
use guestkit_protocol::v1::session_response::Message as Say;
use guestkit_protocol::v1::workers_server::Workers;
use guestkit_scheduler::{Body, Input, OutcomeVerdict, ToWorker};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument as _, Span, debug, info, info_span, warn};

use super::{Services, show, unread};
use crate::driver::Driver;
use crate::edge::Peer;
use crate::lead::Role;
use crate::outbox::{self, Next, Outgoing, Outgoings, goodbye, outbox};
use crate::words::{self, Heard, Offer, Words};

/// How long a stream may be open without a Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last words may take to be taken.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Messages between a session and its connection. Small: what waits longer waits in the outbox, which is what is watched.
const WIRE_MESSAGES_MAX: usize = 16;

/// Documents read from the store at once: few enough that the largest of them are a few dozen MiB.
const READ_TOGETHER_MAX: usize = 64;

/// Attempts whose trace a session keeps open: above the slots of any worker.
const TRACES_MAX: usize = 4096;

type Wire = mpsc::Sender<Result<v1::SessionResponse, Status>>;

#[tonic::async_trait]
impl Workers for Services {
    type SessionStream = ReceiverStream<Result<v1::SessionResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (wire, responses) = mpsc::channel(WIRE_MESSAGES_MAX);
        let from = request.extensions().get::<Peer>().map(|peer| peer.address);
        tokio::spawn(serve(self.clone(), request.into_inner(), wire, from));
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn put_artifact(
        &self,
        request: Request<Streaming<v1::PutArtifactRequest>>,
    ) -> Result<Response<v1::PutArtifactResponse>, Status> {
        let stored_bytes = self.put(request.into_inner()).await?;
        Ok(Response::new(v1::PutArtifactResponse { stored_bytes }))
    }
}

/// Why a session ended.
enum End {
    /// The worker closed its side, or the connection broke.
    Gone,
    /// The coordinator said goodbye.
    Said,
    /// The worker said something that makes no sense.
    Nonsense(Refusal),
}

async fn serve(
    services: Services,
    mut requests: Streaming<v1::SessionRequest>,
    wire: Wire,
    from: Option<std::net::SocketAddr>,
) {
    let hello = match hello(&mut requests).await {
        Ok(hello) => hello,
        Err(refusal) => return turn_away(&services, &wire, refusal).await,
    };
    let (profile, held) = match words::hello(&hello) {
        Ok(checked) => checked,
        Err(refusal) => return turn_away(&services, &wire, refusal).await,
    };
    let (worker_id, boot_id) = (profile.worker_id.clone(), profile.boot_id.clone());
    let Ok(driver) = services.driver().await else { return say_goodbye(&wire, services.farewell()).await };
    let (outbox, outgoings) = outbox();
    let description = hello.description.unwrap_or_default();
    let Ok(session) = driver.open(profile, held, description, outbox).await else {
        services.until_abandoned(&driver).await;
        return say_goodbye(&wire, services.farewell()).await;
    };
    services.metrics.sessions_opened.fetch_add(1, Ordering::Relaxed);
    let span = info_span!("session", session = session.0, worker = %worker_id);
    async {
        info!(boot = %boot_id, from = from.map(tracing::field::display), "worker connected");
        let words = Words { session, inline_bytes_max: services.inline_bytes_max };
        let talk =
            Session { services: &services, driver: &driver, words, worker_id, wire: &wire, traces: Mutex::default() };
        match talk.run(&mut requests, outgoings).await {
            End::Gone => info!("worker disconnected"),
            End::Said => info!("session ended by the coordinator"),
            End::Nonsense(refusal) => turn_away(&services, &wire, refusal).await,
        }
        // A driver that has stopped knows that every session is over.
        let _ = driver.say(Input::Disconnect { session }).await;
    }
    .instrument(span)
    .await;
}

async fn hello(requests: &mut Streaming<v1::SessionRequest>) -> Result<v1::Hello, Refusal> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, requests.message()).await;
    match first {
        Ok(Ok(Some(v1::SessionRequest { message: Some(Said::Hello(hello)) }))) => Ok(hello),
        Ok(Ok(_)) => Err(Refusal::of_field("hello", "must be the first message of a session")),
        Ok(Err(status)) => Err(Refusal::new(Reason::InvalidArgument, format!("read the hello: {}", status.message()))),
        Err(_) => {
            let text = format!("must come within {} seconds", HELLO_TIMEOUT.as_secs());
            Err(Refusal::of_field("hello", text))
        }
    }
}

/// Says what made no sense, both ways a peer may look for it, and ends the stream.
async fn turn_away(services: &Services, wire: &Wire, refusal: Refusal) {
    warn!(%refusal, "session ends: the worker said something that makes no sense");
    services.metrics.sessions_nonsense.fetch_add(1, Ordering::Relaxed);
    // A worker that talks nonsense once will do it again: not at once.
    let last = goodbye(v1::GoodbyeReason::ProtocolError, refusal.to_string(), Duration::from_secs(10));
    say_goodbye(wire, last).await;
    // A peer that does not read does not want to know.
    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, wire.send(Err(refusal.into()))).await;
}

async fn say_goodbye(wire: &Wire, last: v1::Goodbye) {
    let last = v1::SessionResponse { message: Some(Say::Goodbye(last)) };
    // A peer that does not read does not want to know.
    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, wire.send(Ok(last))).await;
}

struct Session<'a> {
    services: &'a Services,
    driver: &'a Driver,
    words: Words,
    worker_id: WorkerId,
    wire: &'a Wire,
    /// The trace of each attempt under way, from its offer to its outcome.
    traces: Mutex<HashMap<LeaseId, Span>>,
}

impl Session<'_> {
    /// Listens and talks until one of both is over.
    async fn run(&self, requests: &mut Streaming<v1::SessionRequest>, outgoings: Outgoings) -> End {
        tokio::select! {
            end = self.listen(requests) => end,
            end = self.talk(outgoings) => end,
            // Also where the driver is held up by its store and says nothing.
            () = self.services.lead.left(self.driver.epoch()) => self.leave().await,
        }
    }

    async fn leave(&self) -> End {
        say_goodbye(self.wire, self.services.farewell()).await;
        End::Said
    }

    async fn listen(&self, requests: &mut Streaming<v1::SessionRequest>) -> End {
        while let Some(request) = requests.next().await {
            let Ok(request) = request else { return End::Gone };
            let result = match request.message {
                Some(Said::Heartbeat(beat)) => {
                    let (session, free) = (self.words.session, beat.free_disk_bytes);
                    self.driver.beat(session, self.worker_id.clone(), beat.sequence, free).await
                }
                message => match self.input(message).await {
                    Ok(input) => self.driver.say(input).await,
                    Err(refusal) => return End::Nonsense(refusal),
                },
            };
            if result.is_err() {
                // The driver has stopped, and the outbox tells.
                return std::future::pending().await;
            }
        }
        End::Gone
    }

    async fn talk(&self, mut outgoings: Outgoings) -> End {
        loop {
            match outgoings.next().await {
                Next::Send(outgoing) => {
                    if self.send_ready(outgoing, &mut outgoings).await.is_err() {
                        return End::Gone;
                    }
                }
                Next::End(last) => {
                    self.send_rest(outgoings).await;
                    say_goodbye(self.wire, last).await;
                    return End::Said;
                }
                Next::Abandoned => {
                    self.send_rest(outgoings).await;
                    self.services.until_abandoned(self.driver).await;
                    return self.leave().await;
                }
            }
        }
    }

    async fn send_rest(&self, mut outgoings: Outgoings) {
        let rest = async {
            while let Some(outgoing) = outgoings.rest() {
                if self.send(outgoing).await.is_err() {
                    break;
                }
            }
        };
        // What a slow worker does not take is lost to it; its leases find their own way.
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, rest).await;
    }

    /// Sends what waits. Documents that are not at hand are read together, which costs one trip to the store's threads.
    async fn send_ready(&self, first: Outgoing, outgoings: &mut Outgoings) -> Result<(), Gone> {
        let mut ready = vec![first];
        while ready.len() < READ_TOGETHER_MAX
            && let Some(outgoing) = outgoings.rest()
        {
            ready.push(outgoing);
        }
        self.fetch_documents(&mut ready).await;
        for outgoing in ready {
            self.send(outgoing).await?;
        }
        Ok(())
    }

    async fn fetch_documents(&self, outgoings: &mut [Outgoing]) {
        let missing: Vec<JobId> = outgoings.iter().filter_map(Outgoing::lacks).cloned().collect();
        if missing.is_empty() {
            return;
        }
        // What is not found here is asked for again on its own, and complained of.
        let Ok(mut found) = self.services.readers.read(move |store| store.documents(&missing)).await else { return };
        for outgoing in outgoings {
            if let Some(document) = outgoing.lacks().and_then(|job_id| found.remove(job_id)) {
                outgoing.document = Some(document.into());
            }
        }
    }

    async fn send(&self, outgoing: Outgoing) -> Result<(), Gone> {
        let Some(message) = self.message(outgoing).await else { return Ok(()) };
        let response = v1::SessionResponse { message: Some(message) };
        self.wire.send(Ok(response)).await.map_err(|_| Gone)
    }

    /// The message as the wire has it; `None` for an offer whose document cannot be read: not sent, it is not accepted, and
    /// offered again when its accept deadline has passed.
    async fn message(&self, outgoing: Outgoing) -> Option<Say> {
        let mut offer = Offer::default();
        match &outgoing.message {
            ToWorker::Lease { lease, job_id, attempt, .. } => {
                let document = self.document(job_id, outgoing.document).await?;
                self.begin_trace(*lease, &document, *attempt);
                offer.last_progress = if *attempt > 1 { self.last_progress(job_id).await } else { None };
                offer.document = Some(document);
            }
            ToWorker::Cancel { lease, outcome_wanted: false, .. } => self.end_trace(*lease, "void"),
            ToWorker::OutcomeAck { lease, verdict: OutcomeVerdict::Recorded } => self.end_trace(*lease, "recorded"),
            ToWorker::OutcomeAck { lease, verdict: OutcomeVerdict::Stale } => self.end_trace(*lease, "stale"),
            _ => {}
        }
        Some(self.words.say(outgoing.message, offer))
    }

    /// How far the attempts before got. It helps the next one and is nothing it needs: what cannot be read is left out.
    async fn last_progress(&self, job_id: &JobId) -> Option<v1::Progress> {
        let asked = job_id.clone();
        let stored = self.services.readers.read(move |store| store.job(&asked)).await;
        let stored =
            stored.inspect_err(|error| warn!(job = %job_id, refusal = %unread(error), "no last progress")).ok()?;
        show::stored_job(&stored?).ok()?.progress
    }

    async fn document(&self, job_id: &JobId, at_hand: Option<Body>) -> Option<v1::JobDocument> {
        let document = match at_hand {
            Some(document) => v1::JobDocument::decode(&document[..]),
            None => {
                let asked = job_id.clone();
                match self.services.readers.read(move |store| store.document(&asked)).await {
                    Ok(document) => v1::JobDocument::decode(&document.unwrap_or_default()[..]),
                    Err(error) => {
                        warn!(job = %job_id, refusal = %unread(&error), "cannot offer a job");
                        return None;
                    }
                }
            }
        };
        document.inspect_err(|error| warn!(job = %job_id, %error, "cannot offer a job: its document is damaged")).ok()
    }

    /// What the worker said, checked.
    async fn input(&self, message: Option<Said>) -> Result<Input, Refusal> {
        match self.words.hear(message)? {
            Heard::Input(input) => Ok(input),
            Heard::ByReference { job_id, lease, artifact, input } => {
                match self.uploaded(&job_id, lease, &artifact).await? {
                    Ok(()) => Ok(input),
                    Err(why) => Ok(self.words.unsound(lease, job_id, why)),
                }
            }
        }
    }

    /// Whether what an outcome refers to is there: one without its report must not count as complete. A disk that does not
    /// tell ends the session; the worker says the outcome again in the next.
    async fn uploaded(
        &self,
        job_id: &JobId,
        lease: LeaseId,
        artifact: &v1::Artifact,
    ) -> Result<Result<(), Failure>, Refusal> {
        if self.services.artifacts.has(job_id, lease, artifact).await? {
            return Ok(Ok(()));
        }
        let text = "the outcome document refers to a report that was not uploaded under its lease";
        Ok(Err(Failure { code: ErrorCode::Internal, message: text.into() }))
    }

    fn begin_trace(&self, lease: LeaseId, document: &v1::JobDocument, attempt: u32) {
        let span = info_span!("attempt", job = document.job_id, lease = lease.0, attempt, worker = %self.worker_id);
        if let Some(ids) = &document.observability {
            guestkit_telemetry::join(&span, &ids.trace_id, &ids.span_id);
        }
        span.in_scope(|| debug!("offered"));
        let mut traces = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
        if traces.len() < TRACES_MAX {
            traces.insert(lease, span);
        }
    }

    fn end_trace(&self, lease: LeaseId, how: &str) {
        let span = self.traces.lock().unwrap_or_else(PoisonError::into_inner).remove(&lease);
        if let Some(span) = span {
            span.in_scope(|| debug!(outcome = how, "ended"));
        }
    }
}

impl Services {
    /// Waits until it is known why a driver is gone: another leads, or the coordinator stops.
    async fn until_abandoned(&self, driver: &Driver) {
        let known = async {
            tokio::select! {
                () = self.lead.left(driver.epoch()) => {}
                () = self.until_stopping() => {}
            }
        };
        // One whose store broke for good ends without either.
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, known).await;
    }

    /// The last word of a session that nobody serves any more, or yet.
    fn farewell(&self) -> v1::Goodbye {
        match self.lead.role() {
            Role::Leader(_) => outbox::stopping(),
            Role::Standby { leader } => outbox::not_leader(leader),
        }
    }
}

/// The worker's side of the stream is gone.
struct Gone;
