//! The jobs of a storm: which they are, when they come, and how each may end.

use std::time::Duration;

use guestkit_protocol::{document, v1};
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};
use v1::JobState;

/// Longer than what a session carries in these runs, so that it goes by reference.
const LARGE_BYTES: usize = 60_000;
/// Failures a job outlasts that is meant to complete: its attempts are killed by the storm.
const ATTEMPTS_MANY: u32 = 50;

/// What is special about a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ends at once.
    Quick,
    /// Takes up to two seconds.
    Slow,
    /// Its report goes by reference.
    Large,
    /// Waits for an instant first.
    Delayed,
    /// Fails each time, until its attempts are used up.
    Failing,
    /// Its process aborts each time.
    Crashing,
    /// Never ends by itself; its time runs out.
    Hanging,
    /// Takes seconds, and is cancelled meanwhile.
    Cancelled,
}

const KINDS: [(Kind, u32); 8] = [
    (Kind::Quick, 58),
    (Kind::Slow, 20),
    (Kind::Large, 3),
    (Kind::Delayed, 3),
    (Kind::Failing, 6),
    (Kind::Crashing, 2),
    (Kind::Hanging, 2),
    (Kind::Cancelled, 6),
];

/// One job.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) job_id: String,
    pub(crate) kind: Kind,
    pub(crate) document: v1::JobDocument,
    pub(crate) message: String,
    pub(crate) max_attempts: u32,
    /// When it is submitted, from the start.
    pub(crate) at: Duration,
    /// Sent by two clients at once.
    pub(crate) twice: bool,
    /// When it is cancelled, from when it was taken.
    pub(crate) cancel_after: Option<Duration>,
    /// Given new attempts once it is over.
    pub(crate) retried: bool,
}

impl Planned {
    /// Whether it may end this way; `code` is its error's.
    pub(crate) fn may_end(&self, state: JobState, code: &str) -> bool {
        // A storm can take three workers from any job, and an attempt's process from any attempt.
        let struck = matches!((state, code), (JobState::Failed, "WORKER_LOST"));
        let killed = matches!((state, code), (JobState::Failed, "HANDLER_CRASHED"));
        let completed = (state, code) == (JobState::Completed, "");
        struck
            || match self.kind {
                Kind::Quick | Kind::Slow | Kind::Large | Kind::Delayed => completed,
                Kind::Failing => killed || (state, code) == (JobState::Failed, "INTERNAL"),
                Kind::Crashing => killed,
                Kind::Hanging => killed || (state, code) == (JobState::Timeout, "TIMEOUT"),
                // An attempt whose end is asked for may end by itself first, in any way.
                Kind::Cancelled => completed || killed || (state, code) == (JobState::Cancelled, "CANCELLED"),
            }
    }
}

/// `count` jobs that come evenly over `during`.
pub(crate) fn jobs(rng: &mut StdRng, count: usize, during: Duration) -> Vec<Planned> {
    (0..count)
        .map(|index| {
            #[allow(clippy::cast_precision_loss)]
            let at = during.mul_f64(index as f64 / count as f64);
            planned(rng, index, at)
        })
        .collect()
}

fn planned(rng: &mut StdRng, index: usize, at: Duration) -> Planned {
    let kind = KINDS.choose_weighted(rng, |(_, weight)| *weight).unwrap().0;
    let job_id = format!("chaos-{index:06}");
    let message = match kind {
        Kind::Large => format!("{job_id} ").repeat(LARGE_BYTES / (job_id.len() + 1)),
        _ => format!("hello from {job_id}"),
    };
    let seconds = match kind {
        Kind::Slow => rng.random_range(0.2..2.0),
        Kind::Cancelled => rng.random_range(1.0..4.0),
        Kind::Hanging => 600.0,
        _ => 0.0,
    };
    let mut data = json!({"message": message, "duration_seconds": seconds});
    let max_attempts = match kind {
        Kind::Failing | Kind::Crashing => rng.random_range(1..=3),
        Kind::Hanging => 1,
        _ => ATTEMPTS_MANY,
    };
    match kind {
        Kind::Failing => data["fail_with"] = json!("failed"),
        Kind::Crashing => data["fail_with"] = json!("crash"),
        _ => {}
    }
    let mut execution = json!({
        "max_attempts": max_attempts,
        "priority": rng.random_range(1..=10),
        "retry_backoff": {"initial_seconds": 0.1, "max_seconds": 1.0},
    });
    match kind {
        Kind::Hanging => execution["timeout_seconds"] = json!(1),
        Kind::Delayed => execution["not_before"] = json!(instant(at + Duration::from_secs(3))),
        _ => {}
    }
    if rng.random_bool(0.1) {
        execution["idempotency_key"] = json!(format!("key-{index}"));
    }
    if rng.random_bool(0.02) {
        execution["concurrency_key"] = json!("one-at-a-time");
    }
    let namespace = ["red", "green", "blue", "default"].choose(rng).unwrap();
    let document: Value = json!({
        "version": "1.0",
        "job_id": job_id,
        "kind": "VMOperation",
        "operation": "system.echo",
        "metadata": {"namespace": namespace, "labels": {"storm": "yes"}},
        "execution": execution,
        "payload": {"type": "system.echo.v1", "data": data},
    });
    Planned {
        document: document::parse(document.to_string().as_bytes()).unwrap(),
        job_id,
        kind,
        message,
        max_attempts,
        at,
        twice: rng.random_bool(0.05),
        cancel_after: (kind == Kind::Cancelled).then(|| Duration::from_secs_f64(rng.random_range(0.0..3.0))),
        retried: matches!(kind, Kind::Failing | Kind::Crashing) && rng.random_bool(0.3),
    }
}

/// An instant so long from now.
fn instant(after: Duration) -> String {
    let at = std::time::SystemTime::now() + after;
    prost_types::Timestamp::from(at).to_string()
}
