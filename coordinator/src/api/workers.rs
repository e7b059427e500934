//! Workers: one stream per worker, which carries everything. Here it is only carried: what a worker says is checked and handed
//! to the driver, what the driver says is put on the wire. Nonsense ends the session with a reason, and nothing else.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use guestkit_domain::{ErrorCode, Failure, JobId, LeaseId, OutcomeStatus, Progress, SessionId, WorkerId};
use guestkit_protocol::convert::{failure, job_id, lease_id, state, time, worker};
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::v1;
use guestkit_protocol::v1::session_request::Message as Said;
use guestkit_protocol::v1::session_response::Message as Say;
use guestkit_protocol::v1::workers_server::Workers;
use guestkit_scheduler::{Body, Held, HeldDecision, Input, OutcomeVerdict, ToWorker};
use prost::Message;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument as _, Span, debug, info, info_span, warn};

use super::{Services, show, unread};
use crate::driver::Driver;
use crate::lead::Role;
use crate::outbox::{self, Next, Outgoing, Outgoings, goodbye, outbox};

/// How long a stream may be open without a Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last words may take to be taken.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of one progress entry: a line, and what an operation adds; it is kept for the life of the job.
const PROGRESS_BYTES_MAX: usize = 64 * 1024;

/// Messages between a session and its connection. Small: what waits longer waits in the outbox, which is what is watched.
const WIRE_MESSAGES_MAX: usize = 16;

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
        let from = request.remote_addr();
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
    let (profile, held) = match checked(&hello) {
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
        let talk =
            Session { services: &services, driver: &driver, session, worker_id, wire: &wire, traces: Mutex::default() };
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

fn checked(hello: &v1::Hello) -> Result<(guestkit_domain::WorkerProfile, Vec<Held>), Refusal> {
    let profile = worker::profile(hello)?;
    let held = hello.held.iter().map(|held| {
        let finished = match held.state() {
            v1::HeldState::Running => false,
            v1::HeldState::Finished => true,
            v1::HeldState::Unspecified => return Err(Refusal::of_field("hello.held.state", "required")),
        };
        Ok(Held { lease: lease_id(held.lease_id)?, job_id: job_id(&held.job_id)?, finished })
    });
    Ok((profile, held.collect::<Result<_, Refusal>>()?))
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
    session: SessionId,
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
                    let (session, free) = (self.session, beat.free_disk_bytes);
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
                    if self.send(outgoing).await.is_err() {
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

    async fn send(&self, outgoing: Outgoing) -> Result<(), Gone> {
        let Some(message) = self.message(outgoing).await else { return Ok(()) };
        let response = v1::SessionResponse { message: Some(message) };
        self.wire.send(Ok(response)).await.map_err(|_| Gone)
    }

    /// The message as the wire has it; `None` for an offer whose document cannot be read: not sent, it is not accepted, and
    /// offered again when its accept deadline has passed.
    async fn message(&self, outgoing: Outgoing) -> Option<Say> {
        Some(match outgoing.message {
            ToWorker::Welcome { heartbeat_interval, first_heartbeat, lease_ttl, accept_timeout, held } => {
                Say::Welcome(v1::Welcome {
                    session_id: self.session.0.to_string(),
                    first_heartbeat: Some(time::duration_to_wire(first_heartbeat)),
                    heartbeat_interval: Some(time::duration_to_wire(heartbeat_interval)),
                    lease_ttl: Some(time::duration_to_wire(lease_ttl)),
                    accept_timeout: Some(time::duration_to_wire(accept_timeout)),
                    inline_bytes_max: self.services.inline_bytes_max as u64,
                    held: held.into_iter().map(verdict).collect(),
                })
            }
            ToWorker::Lease { lease, job_id, attempt, timeout } => {
                let document = self.document(&job_id, outgoing.document).await?;
                self.begin_trace(lease, &document, attempt);
                let last_progress = if attempt > 1 { self.last_progress(&job_id).await } else { None };
                Say::Lease(v1::Lease {
                    lease_id: lease.0,
                    job_id: job_id.to_string(),
                    attempt: i32::try_from(attempt).unwrap_or(i32::MAX),
                    document: Some(document),
                    timeout: Some(time::duration_to_wire(timeout)),
                    last_progress,
                })
            }
            ToWorker::Cancel { lease, reason, outcome_wanted } => {
                if !outcome_wanted {
                    self.end_trace(lease, "void");
                }
                Say::Cancel(v1::CancelLease { lease_id: lease.0, reason: reason.to_string(), outcome_wanted })
            }
            ToWorker::OutcomeAck { lease, verdict } => {
                let (verdict, told) = match verdict {
                    OutcomeVerdict::Recorded => (v1::OutcomeVerdict::Recorded, "recorded"),
                    OutcomeVerdict::Stale => (v1::OutcomeVerdict::Stale, "stale"),
                };
                self.end_trace(lease, told);
                Say::OutcomeAck(v1::OutcomeAck { lease_id: lease.0, verdict: verdict.into() })
            }
            ToWorker::HeartbeatAck { sequence, heartbeat_interval } => Say::HeartbeatAck(v1::HeartbeatAck {
                sequence,
                heartbeat_interval: Some(time::duration_to_wire(heartbeat_interval)),
            }),
            ToWorker::Drain { deadline } => Say::Drain(v1::Drain { deadline: deadline.map(time::duration_to_wire) }),
            ToWorker::Goodbye { reason } => Say::Goodbye(outbox::farewell(reason)),
        })
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
        let session = self.session;
        Ok(match message {
            None => return Err(Refusal::of_field("message", "required")),
            Some(Said::Hello(_)) => return Err(Refusal::of_field("hello", "only the first message may be one")),
            Some(Said::Accept(accept)) => Input::Accept { session, lease: lease_id(accept.lease_id)? },
            Some(Said::Refuse(refuse)) => Input::Refuse {
                session,
                lease: lease_id(refuse.lease_id)?,
                fault: state::fault_from_wire(refuse.fault)?,
                failure: failure::from_wire(&refuse.error.unwrap_or_default()),
            },
            Some(Said::Progress(told)) => {
                let lease = lease_id(told.lease_id)?;
                Input::Progress { session, lease, progress: progress(told.progress.unwrap_or_default())? }
            }
            Some(Said::Outcome(outcome)) => self.outcome(outcome).await?,
            Some(Said::Heartbeat(beat)) => Input::Heartbeat { session, sequence: beat.sequence },
            Some(Said::Draining(draining)) => {
                info!(reason = draining.reason, "the worker asks for no more work");
                Input::Draining { session }
            }
        })
    }

    async fn outcome(&self, outcome: v1::Outcome) -> Result<Input, Refusal> {
        let lease = lease_id(outcome.lease_id)?;
        let job_id = job_id(&outcome.job_id)?;
        let status = state::outcome_from_wire(outcome.status)?;
        let session = self.session;
        let checked = match sound(&outcome, status, self.services.inline_bytes_max) {
            Ok(Some(artifact)) => self.uploaded(&job_id, lease, &artifact).await?,
            checked => checked.map(drop),
        };
        if let Err(why) = checked {
            // Refusing the message would have the worker send it again for ever; the attempt ends with what is wrong instead.
            warn!(job = %job_id, lease = lease.0, why = &*why.message, "an outcome cannot be taken; its attempt failed");
            let status = OutcomeStatus::Failed;
            return Ok(Input::Outcome {
                session,
                lease,
                job_id,
                status,
                failure: Some(why),
                result: Vec::new().into(),
            });
        }
        let failure = match status {
            OutcomeStatus::Completed => None,
            _ => Some(outcome.error.as_ref().map_or_else(|| unexplained(status), failure::from_wire)),
        };
        Ok(Input::Outcome { session, lease, job_id, status, failure, result: outcome.result.into() })
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

fn verdict((lease, decision): (LeaseId, HeldDecision)) -> v1::HeldVerdict {
    let decision = match decision {
        HeldDecision::Keep => v1::HeldDecision::Keep,
        HeldDecision::Stop => v1::HeldDecision::Stop,
        HeldDecision::Deliver => v1::HeldDecision::Deliver,
    };
    v1::HeldVerdict { lease_id: lease.0, decision: decision.into() }
}

fn progress(told: v1::Progress) -> Result<Progress, Refusal> {
    let percent = told.progress_percent;
    if !(0.0..=100.0).contains(&percent) {
        return Err(Refusal::of_field("progress.progress_percent", format!("must be 0 to 100, is {percent}")));
    }
    // Sequence, attempt and timestamp are the coordinator's.
    let body = v1::Progress { phase: told.phase, message: told.message, details: told.details, ..Default::default() };
    let bytes = body.encoded_len();
    if bytes > PROGRESS_BYTES_MAX {
        return Err(Refusal::of_field("progress", format!("at most {PROGRESS_BYTES_MAX} bytes, has {bytes}")));
    }
    Ok(Progress { percent, body: body.encode_to_vec().into() })
}

/// The part of an outcome document that must agree with its message. Protobuf skips the rest: the report stays unopened.
#[derive(Clone, PartialEq, Message)]
struct ResultHead {
    #[prost(string, tag = "1")]
    job_id: String,
    #[prost(string, tag = "2")]
    status: String,
    #[prost(message, optional, tag = "40")]
    report_artifact: Option<v1::Artifact>,
}

/// Whether an outcome's document can be taken, and the artifact it refers to, where it does.
fn sound(
    outcome: &v1::Outcome,
    status: OutcomeStatus,
    inline_bytes_max: usize,
) -> Result<Option<v1::Artifact>, Failure> {
    let failed = |code, message: String| Err(Failure { code, message: message.into() });
    if outcome.result.len() > inline_bytes_max {
        let bytes = outcome.result.len();
        let text = format!(
            "the outcome document has {bytes} bytes, at most {inline_bytes_max} are taken in a session: upload it"
        );
        return failed(ErrorCode::LimitExceeded, text);
    }
    if outcome.result.is_empty() {
        return match status {
            OutcomeStatus::Completed => failed(ErrorCode::Internal, "the worker sent no outcome document".into()),
            _ => Ok(None),
        };
    }
    let actual: [u8; 32] = Sha256::digest(&outcome.result).into();
    if actual[..] != outcome.result_sha256[..] {
        return failed(
            ErrorCode::Internal,
            "the outcome document does not have the SHA-256 that was sent with it".into(),
        );
    }
    match ResultHead::decode(&outcome.result[..]) {
        Err(error) => failed(ErrorCode::Internal, format!("the outcome document cannot be decoded: {error}")),
        Ok(head) if head.job_id != outcome.job_id || head.status != state::outcome_word(status) => {
            let text =
                format!("the outcome document is of job {:?}, {:?}, not of this outcome", head.job_id, head.status);
            failed(ErrorCode::Internal, text)
        }
        Ok(head) => Ok(head.report_artifact),
    }
}

fn unexplained(status: OutcomeStatus) -> Failure {
    let code = match status {
        OutcomeStatus::Cancelled => ErrorCode::Cancelled,
        OutcomeStatus::Timeout => ErrorCode::Timeout,
        OutcomeStatus::Completed | OutcomeStatus::Failed => ErrorCode::Internal,
    };
    Failure { code, message: "the worker gave no reason".into() }
}
