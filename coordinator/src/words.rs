//! The words of a worker's session, from the wire and to it: checked, and without I/O. The stream that carries them is
//! `api/workers.rs`; the simulation exchanges the same words without one.

use guestkit_domain::{ErrorCode, Failure, JobId, LeaseId, OutcomeStatus, Progress, SessionId, WorkerProfile};
use guestkit_protocol::convert::{failure, job_id, lease_id, state, time, worker};
use guestkit_protocol::status::Refusal;
use guestkit_protocol::v1;
use guestkit_protocol::v1::session_request::Message as Said;
use guestkit_protocol::v1::session_response::Message as Say;
use guestkit_scheduler::{Held, HeldDecision, Input, OutcomeVerdict, ToWorker};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use crate::outbox;

/// Bytes of one progress entry: a line, and what an operation adds; it is kept for the life of the job.
const PROGRESS_BYTES_MAX: usize = 64 * 1024;

/// One session's words.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// The session.
    pub session: SessionId,
    /// Bytes of an outcome document that travel in it.
    pub inline_bytes_max: usize,
}

/// What a worker said.
#[derive(Debug)]
pub enum Heard {
    /// The scheduler decides.
    Input(Input),
    /// An outcome that refers to an uploaded report: it counts if that is there, and is [`Words::unsound`] otherwise.
    ByReference {
        /// The job.
        job_id: JobId,
        /// The lease under which the report was to be uploaded.
        lease: LeaseId,
        /// The report.
        artifact: v1::Artifact,
        /// What the scheduler decides about.
        input: Input,
    },
}

/// What a worker's first words say.
///
/// # Errors
/// `INVALID_ARGUMENT` with every field at fault.
pub fn hello(hello: &v1::Hello) -> Result<(WorkerProfile, Vec<Held>), Refusal> {
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

/// What an offer brings with it and the scheduler does not have.
#[derive(Debug, Default)]
pub struct Offer {
    /// What to do.
    pub document: Option<v1::JobDocument>,
    /// How far the attempts before got.
    pub last_progress: Option<v1::Progress>,
}

impl Words {
    /// The message as the wire has it; of an offer, with what belongs to it.
    #[must_use]
    pub fn say(&self, message: ToWorker, offer: Offer) -> Say {
        match message {
            ToWorker::Welcome { heartbeat_interval, first_heartbeat, lease_ttl, accept_timeout, held } => {
                Say::Welcome(v1::Welcome {
                    session_id: self.session.0.to_string(),
                    first_heartbeat: Some(time::duration_to_wire(first_heartbeat)),
                    heartbeat_interval: Some(time::duration_to_wire(heartbeat_interval)),
                    lease_ttl: Some(time::duration_to_wire(lease_ttl)),
                    accept_timeout: Some(time::duration_to_wire(accept_timeout)),
                    inline_bytes_max: self.inline_bytes_max as u64,
                    held: held.into_iter().map(verdict).collect(),
                })
            }
            ToWorker::Lease { lease, job_id, attempt, timeout } => Say::Lease(v1::Lease {
                lease_id: lease.0,
                job_id: job_id.to_string(),
                attempt: i32::try_from(attempt).unwrap_or(i32::MAX),
                document: offer.document,
                timeout: Some(time::duration_to_wire(timeout)),
                last_progress: offer.last_progress,
            }),
            ToWorker::Cancel { lease, reason, outcome_wanted } => {
                Say::Cancel(v1::CancelLease { lease_id: lease.0, reason: reason.to_string(), outcome_wanted })
            }
            ToWorker::OutcomeAck { lease, verdict } => {
                let verdict = match verdict {
                    OutcomeVerdict::Recorded => v1::OutcomeVerdict::Recorded,
                    OutcomeVerdict::Stale => v1::OutcomeVerdict::Stale,
                };
                Say::OutcomeAck(v1::OutcomeAck { lease_id: lease.0, verdict: verdict.into() })
            }
            ToWorker::HeartbeatAck { sequence, heartbeat_interval } => Say::HeartbeatAck(v1::HeartbeatAck {
                sequence,
                heartbeat_interval: Some(time::duration_to_wire(heartbeat_interval)),
            }),
            ToWorker::Drain { deadline } => Say::Drain(v1::Drain { deadline: deadline.map(time::duration_to_wire) }),
            ToWorker::Goodbye { reason } => Say::Goodbye(outbox::farewell(reason)),
        }
    }

    /// What the worker said, after its Hello.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when it makes no sense, which ends the session.
    pub fn hear(&self, message: Option<Said>) -> Result<Heard, Refusal> {
        let session = self.session;
        Ok(Heard::Input(match message {
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
            Some(Said::Outcome(outcome)) => return self.outcome(outcome),
            Some(Said::Heartbeat(beat)) => Input::Heartbeat { session, sequence: beat.sequence },
            Some(Said::Draining(draining)) => {
                info!(reason = draining.reason, "the worker asks for no more work");
                Input::Draining { session }
            }
        }))
    }

    fn outcome(&self, outcome: v1::Outcome) -> Result<Heard, Refusal> {
        let lease = lease_id(outcome.lease_id)?;
        let job_id = job_id(&outcome.job_id)?;
        let status = state::outcome_from_wire(outcome.status)?;
        let session = self.session;
        let artifact = match sound(&outcome, status, self.inline_bytes_max) {
            Ok(artifact) => artifact,
            Err(why) => return Ok(Heard::Input(self.unsound(lease, job_id, why))),
        };
        let failure = match status {
            OutcomeStatus::Completed => None,
            _ => Some(outcome.error.as_ref().map_or_else(|| unexplained(status), failure::from_wire)),
        };
        let result = outcome.result.into();
        let input = Input::Outcome { session, lease, job_id: job_id.clone(), status, failure, result };
        Ok(match artifact {
            Some(artifact) => Heard::ByReference { job_id, lease, artifact, input },
            None => Heard::Input(input),
        })
    }

    /// What becomes of an outcome that cannot be taken. Refusing the message would have the worker send it again for ever; the
    /// attempt ends with what is wrong instead.
    #[must_use]
    pub fn unsound(&self, lease: LeaseId, job_id: JobId, why: Failure) -> Input {
        warn!(job = %job_id, lease = lease.0, why = &*why.message, "an outcome cannot be taken; its attempt failed");
        let (session, status, result) = (self.session, OutcomeStatus::Failed, Vec::new().into());
        Input::Outcome { session, lease, job_id, status, failure: Some(why), result }
    }
}

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
#[derive(Clone, PartialEq, prost::Message)]
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
