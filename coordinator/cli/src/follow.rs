//! Following a job to its end, whatever happens to the connection.
//!
//! A watch is resumed by sequence number, so nothing is seen twice and nothing is missed. The stream is not trusted alone:
//! whenever it ends, breaks or is silent for a while, the job itself is asked for, and only that answer ends the waiting.

use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use guestkit_protocol::v1;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, Streaming};

use crate::coordinator::{Again, Coordinator, Jobs};
use crate::failure::{Failure, is_passing, text};
use crate::outcome;

/// Silence after which the job is asked for. Events come at once; this is the sweep behind them, for streams that a broken
/// middlebox keeps open.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Silence of a job that waits for its turn after which the reason is asked for: longer than a free worker takes.
const WAITING_MAX: Duration = Duration::from_secs(2);
/// How long a stream may stay open after the entry that ends the job.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// First wait before a connection is tried again; it doubles.
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
/// Longest wait before a connection is tried again.
const RECONNECT_MAX: Duration = Duration::from_secs(3);
/// Streams read at once: below the hundred that HTTP/2 peers allow at least on one connection (RFC 9113, section 6.5.2).
const STREAMS_MAX: usize = 64;

/// What came of following a job.
#[derive(Debug)]
pub(crate) struct Over {
    /// The job as it is at its end.
    pub(crate) job: v1::Job,
    /// Its outcome document, or why it cannot be had.
    pub(crate) result: Result<v1::JobResult, Failure>,
}

/// What is heard while a job is followed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Heard<'a> {
    /// An entry of its log.
    Event(&'a v1::JobEvent),
    /// Why it does not run yet. Told when it waits for a while, and again when the reason is another.
    Waiting(&'a str),
    /// The connection broke; it is tried again. Told once for each time it breaks.
    Lost(&'a Failure),
}

/// Whether a state is never left but by a person's retry.
pub(crate) fn is_over(state: v1::JobState) -> bool {
    matches!(state, v1::JobState::Completed | v1::JobState::Failed | v1::JobState::Cancelled | v1::JobState::Timeout)
}

/// Follows jobs to their ends and calls `ended` for each as it ends, with its position in `jobs`. Ctrl-C ends the
/// following, not the jobs.
pub(crate) async fn all(
    coordinator: &Coordinator,
    jobs: &[String],
    patience: Duration,
    seen: impl Fn(usize, Heard<'_>),
    mut ended: impl FnMut(usize, Result<Over, Failure>),
) -> Result<(), Failure> {
    let seen = &seen;
    let mut left: Vec<bool> = vec![true; jobs.len()];
    let mut following = stream::iter(jobs.iter().enumerate())
        .map(|(index, job)| async move {
            let log = Log { coordinator, job, patience };
            (index, log.to_the_end(0, |heard| seen(index, heard)).await)
        })
        .buffer_unordered(STREAMS_MAX);
    loop {
        tokio::select! {
            next = following.next() => match next {
                None => return Ok(()),
                Some((index, over)) => {
                    left[index] = false;
                    ended(index, over);
                }
            },
            _ = tokio::signal::ctrl_c() => {
                let jobs = jobs.iter().zip(&left).filter(|(_, left)| **left).map(|(job, _)| job.clone()).collect();
                return Err(Failure::Interrupted { jobs });
            }
        }
    }
}

/// Follows one job from after a sequence number. Ctrl-C ends the following, not the job.
pub(crate) async fn one(
    coordinator: &Coordinator,
    job: &str,
    after: u64,
    patience: Duration,
    seen: impl FnMut(Heard<'_>),
) -> Result<Over, Failure> {
    let log = Log { coordinator, job, patience };
    tokio::select! {
        over = log.to_the_end(after, seen) => over,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted { jobs: vec![job.to_owned()] }),
    }
}

/// One job's log at a coordinator.
struct Log<'a> {
    coordinator: &'a Coordinator,
    job: &'a str,
    patience: Duration,
}

/// How far a job's log was read.
#[derive(Default)]
struct Position {
    /// The last entry's sequence number.
    sequence: u64,
    /// The state after it.
    state: v1::JobState,
    /// Why the job waits, as it was told last.
    reason: Option<String>,
}

impl Position {
    /// Silence that is borne.
    fn silence_max(&self) -> Duration {
        match self.state {
            state if is_over(state) => LINGER_MAX,
            v1::JobState::Unspecified | v1::JobState::Pending | v1::JobState::Queued if self.reason.is_none() => {
                WAITING_MAX
            }
            _ => SILENCE_MAX,
        }
    }
}

/// Why a stream was left.
enum Left {
    /// It ended in order, or stayed open after the entry that ends the job.
    Ended,
    /// Nothing was heard for a while.
    Silent,
    /// It broke.
    Broken(Status),
}

/// How often the connection was tried since the last word from the coordinator.
struct Tries {
    heard: Instant,
    wait: Duration,
    told: bool,
}

impl Tries {
    fn new() -> Self {
        Self { heard: Instant::now(), wait: RECONNECT_FIRST, told: false }
    }

    /// Waits before the next try.
    async fn again(&mut self, patience: Duration, failure: Failure) -> Result<(), Failure> {
        if self.heard.elapsed() >= patience {
            return Err(failure);
        }
        sleep(self.wait).await;
        self.wait = (self.wait * 2).min(RECONNECT_MAX);
        Ok(())
    }
}

impl Log<'_> {
    async fn to_the_end(&self, after: u64, mut seen: impl FnMut(Heard<'_>)) -> Result<Over, Failure> {
        let mut position = Position { sequence: after, ..Position::default() };
        let mut tries = Tries::new();
        loop {
            let before = position.sequence;
            match self.visit(&mut position, &mut seen).await {
                Ok(Some(over)) => return Ok(over),
                // A coordinator that ends each stream at once must not be asked in a tight loop.
                Ok(None) if position.sequence == before => {
                    tries.heard = Instant::now();
                    sleep(tries.wait).await;
                    tries.wait = (tries.wait * 2).min(RECONNECT_MAX);
                }
                Ok(None) => tries = Tries::new(),
                Err(Visit::Refused(failure)) => return Err(failure),
                Err(Visit::Passing(failure)) => {
                    if position.sequence != before {
                        tries = Tries::new();
                    }
                    if !std::mem::replace(&mut tries.told, true) {
                        seen(Heard::Lost(&failure));
                    }
                    tries.again(self.patience, self.resumable(failure, position.sequence)).await?;
                }
            }
        }
    }

    /// Connects, watches for as long as the stream is good, then asks for the job. `None`: it is not over.
    async fn visit(&self, position: &mut Position, seen: &mut impl FnMut(Heard<'_>)) -> Result<Option<Over>, Visit> {
        let reached = self.coordinator.reach().await.map_err(Visit::of_failure)?;
        let visited = self.visit_at(reached.jobs(), position, seen).await;
        if matches!(visited, Err(Visit::Passing(_))) {
            // The next one is asked after a wait of its own.
            let _ = self.coordinator.leave(&reached, None);
        }
        visited
    }

    async fn visit_at(
        &self,
        mut jobs: Jobs,
        position: &mut Position,
        seen: &mut impl FnMut(Heard<'_>),
    ) -> Result<Option<Over>, Visit> {
        let request = v1::WatchRequest { job_id: self.job.to_owned(), after_sequence: position.sequence };
        let mut stream = jobs.watch(request).await.map_err(|status| self.failed(status))?.into_inner();
        loop {
            let left = listen(&mut stream, position, seen).await;
            if let Left::Broken(status) = left {
                return Err(self.failed(status));
            }
            let job = self.get(&mut jobs).await?;
            // Entries that the stream did not bring yet are worth another visit; but a stream that ended in order, or
            // brings nothing, has no more to say.
            if is_over(job.state()) {
                return Ok(Some(Over { result: self.result().await?, job }));
            }
            position.state = job.state();
            if matches!(left, Left::Ended) {
                return Ok(None);
            }
            if matches!(job.state(), v1::JobState::Pending | v1::JobState::Queued) {
                self.tell_why(position, seen).await;
            }
        }
    }

    /// Says why the job waits. A coordinator that cannot tell, or not now, leaves it unsaid.
    async fn tell_why(&self, position: &mut Position, seen: &mut impl FnMut(Heard<'_>)) {
        let request = v1::ExplainRequest { job_id: self.job.to_owned() };
        let asking = self.coordinator.ask(self.job, Again::Safe, async |at| at.jobs().explain(request.clone()).await);
        let reason = match timeout(WAITING_MAX, asking).await {
            Ok(Ok(answer)) => why(answer),
            _ => String::new(),
        };
        if !reason.is_empty() && position.reason.as_ref() != Some(&reason) {
            seen(Heard::Waiting(&reason));
        }
        position.reason = Some(reason);
    }

    async fn get(&self, jobs: &mut Jobs) -> Result<v1::Job, Visit> {
        let request = v1::GetRequest { job_id: self.job.to_owned() };
        let answer = jobs.get(request).await.map_err(|status| self.failed(status))?.into_inner();
        answer.job.ok_or_else(|| self.failed(Status::data_loss("the answer to Get names no job")))
    }

    async fn result(&self) -> Result<Result<v1::JobResult, Failure>, Visit> {
        match outcome::fetch(self.coordinator, self.job).await {
            Err(failure @ Failure::Unreachable { .. }) => Err(Visit::Passing(failure)),
            fetched => Ok(fetched),
        }
    }

    fn failed(&self, status: Status) -> Visit {
        let failure = Failure::of_status(self.job, self.coordinator.shown(), &status);
        if is_passing(&status) {
            return Visit::Passing(match failure {
                Failure::Unreachable { .. } => failure,
                _ => Failure::unreachable(format!("{}: {}", self.coordinator.shown(), text(&status))),
            });
        }
        Visit::Refused(failure)
    }

    fn resumable(&self, failure: Failure, position: u64) -> Failure {
        match failure {
            Failure::Unreachable { cause, .. } => Failure::Unreachable {
                cause,
                advice: format!("the job goes on; follow it later: guestkit watch {} --after {position}", self.job),
            },
            other => other,
        }
    }
}

/// The summary, and the decisive reason where that says more.
fn why(answer: v1::ExplainResponse) -> String {
    match answer.reasons.into_iter().find(|reason| *reason != answer.summary) {
        Some(reason) => format!("{}: {reason}", answer.summary),
        None => answer.summary,
    }
}

/// Why a visit told nothing.
enum Visit {
    /// Another may.
    Passing(Failure),
    /// No other will.
    Refused(Failure),
}

impl Visit {
    fn of_failure(failure: Failure) -> Self {
        match failure {
            Failure::Unreachable { .. } => Self::Passing(failure),
            _ => Self::Refused(failure),
        }
    }
}

async fn listen(
    stream: &mut Streaming<v1::WatchResponse>,
    position: &mut Position,
    seen: &mut impl FnMut(Heard<'_>),
) -> Left {
    loop {
        match timeout(position.silence_max(), stream.message()).await {
            Ok(Ok(Some(v1::WatchResponse { event: Some(event) }))) => {
                // A job that was given new attempts has entries after the one that ended it the first time.
                position.state = event.state();
                if event.sequence > position.sequence {
                    position.sequence = event.sequence;
                    seen(Heard::Event(&event));
                }
            }
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => return Left::Ended,
            Ok(Err(status)) => return Left::Broken(status),
            Err(_) if is_over(position.state) => return Left::Ended,
            Err(_) => return Left::Silent,
        }
    }
}
