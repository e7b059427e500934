//! A worker around the real session machine: its process, which dies with everything it holds in memory, and its disk, which
//! does not. Around the machine it does what `worker/src/session/stream.rs` does with sockets, child processes and files.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use guestkit_domain::{ErrorCode, LeaseId, WorkerId};
use guestkit_protocol::v1;
use guestkit_protocol::v1::session_request::Message as Said;
use guestkit_protocol::v1::session_response::Message as Say;
use guestkit_worker::attempt::Stop;
use guestkit_worker::failure::Failure;
use guestkit_worker::session::machine::{Effect, Identity, Machine, Verdict};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::link::{self, End, Stream, cut_short};
use crate::oracle::{Broken, Rule, broken};
use crate::world::World;

/// Twice the life of a lease: what the machine allows a worker that is cut off.
const FENCE: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) slots: u32,
    pub(crate) rack: String,
    pub(crate) roots: Vec<String>,
    pub(crate) boots: u64,
    /// Outcomes, fsynced.
    pub(crate) disk: BTreeMap<u64, v1::Outcome>,
    pub(crate) process: Option<Process>,
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) machine: Machine,
    /// Its own clock: time since its start.
    pub(crate) clock: Duration,
    /// The stream it uses; without one it waits until then.
    pub(crate) stream: Option<u64>,
    retry_at: Duration,
    failures: u32,
    pub(crate) attempts: BTreeMap<u64, Attempt>,
    /// Those that are not acknowledged.
    outcomes: BTreeMap<u64, v1::Outcome>,
    /// Files to be removed, of which nobody waits for the removal.
    unlinking: Vec<u64>,
    /// When it last heard the coordinator.
    heard: Duration,
    /// Whether Welcome was heard on this stream.
    pub(crate) welcomed: bool,
    /// Leases of which the coordinator said that nothing is wanted any more.
    answered: BTreeSet<u64>,
}

#[derive(Debug)]
pub(crate) struct Attempt {
    job_id: String,
    ends_at: Duration,
    pub(crate) stop: Option<Stop>,
    pub(crate) stage: Stage,
}

/// How far an attempt is: a crash between any two of these is one that happens.
#[derive(Debug)]
pub(crate) enum Stage {
    Running,
    /// Its outcome is known, and nowhere but in memory.
    Ended(Option<v1::Outcome>),
    /// On disk; the machine has not heard of it.
    Spooled(Option<v1::Outcome>),
}

impl Worker {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            id: WorkerId::new(&format!("w{number}")).unwrap(),
            slots: 1 + number as u32,
            rack: format!("r{number}"),
            roots: vec!["/vms".into(), format!("/r{number}")],
            boots: 0,
            disk: BTreeMap::new(),
            process: None,
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            worker_id: self.id.to_string(),
            boot_id: boot_id(self.boots),
            description: v1::WorkerDescription {
                version: "1.0.0".into(),
                operations: vec!["system.echo".into()],
                labels: [("rack".to_owned(), self.rack.clone())].into(),
                slots: self.slots,
                image_roots: self.roots.clone(),
                ..v1::WorkerDescription::default()
            },
            message_bytes_max: 4 << 20,
        }
    }
}

pub(crate) fn boot_id(boot: u64) -> String {
    format!("boot-{boot}")
}

impl World {
    pub(crate) fn process(&mut self, number: usize) -> Option<&mut Process> {
        self.workers[number].process.as_mut()
    }

    /// A new process.
    pub(crate) fn start_worker(&mut self, number: usize) -> Result<(), Broken> {
        let worker = &mut self.workers[number];
        if worker.process.is_some() {
            return Ok(());
        }
        worker.boots += 1;
        if !worker.disk.is_empty() {
            self.oracle.saw("worker started with outcomes on its disk");
        }
        let kept = worker.disk.values().map(|outcome| (outcome.lease_id, outcome.job_id.clone()));
        worker.process = Some(Process {
            machine: Machine::new(worker.identity(), kept),
            clock: Duration::ZERO,
            stream: None,
            retry_at: Duration::ZERO,
            failures: 0,
            attempts: BTreeMap::new(),
            outcomes: worker.disk.clone(),
            unlinking: Vec::new(),
            heard: Duration::ZERO,
            welcomed: false,
            answered: BTreeSet::new(),
        });
        self.act(number)
    }

    /// The process is killed, and its attempts with it.
    pub(crate) fn crash_worker(&mut self, number: usize) {
        let Some(process) = self.workers[number].process.take() else { return };
        self.oracle.saw("worker crashed");
        if process.attempts.values().any(|attempt| matches!(attempt.stage, Stage::Ended(_))) {
            self.oracle.saw("worker crashed holding what it had not spooled");
        }
        if !process.outcomes.is_empty() {
            self.oracle.saw("worker crashed holding what was not acknowledged");
        }
        if let Some(stream) = process.stream.and_then(|id| self.streams.get_mut(&id)) {
            stream.worker_open = false;
            cut_short(&mut stream.to_coordinator, &mut self.random);
        }
    }

    /// Tries to reach the coordinator, if it has no stream.
    pub(crate) fn connect(&mut self, number: usize) -> Result<(), Broken> {
        let up = self.coordinator.is_some();
        let Some(process) = self.workers[number].process.as_mut() else { return Ok(()) };
        if process.stream.is_some() || process.clock < process.retry_at {
            return Ok(());
        }
        if !up {
            self.disconnect(number, Duration::ZERO);
            return self.lost(number);
        }
        self.last_stream += 1;
        let id = self.last_stream;
        process.stream = Some(id);
        process.welcomed = false;
        process.machine.on_connecting(process.clock);
        let mut stream = Stream::new(number, self.workers[number].boots);
        stream.stuck = !self.calm && self.random.percent(5);
        self.streams.insert(id, stream);
        self.act(number)
    }

    /// The worker's end is closed, and the next try is not before so long.
    fn disconnect(&mut self, number: usize, after: Duration) {
        let jitter = self.random.below(1000);
        let Some(process) = self.workers[number].process.as_mut() else { return };
        let most = match process.failures {
            0..3 => 200,
            failures => 1000 * 2_u64.pow((failures - 3).min(6)),
        };
        process.failures += 1;
        process.retry_at = process.clock + Duration::from_millis(most * jitter / 1000).max(after);
        process.welcomed = false;
        if let Some(stream) = process.stream.take().and_then(|id| self.streams.get_mut(&id)) {
            stream.worker_open = false;
            stream.to_worker.clear();
        }
    }

    fn lost(&mut self, number: usize) -> Result<(), Broken> {
        if let Some(process) = self.process(number) {
            process.machine.on_lost(process.clock);
        }
        self.act(number)
    }

    /// The worker notices that its stream is broken.
    pub(crate) fn notice_break(&mut self, number: usize) -> Result<(), Broken> {
        self.disconnect(number, Duration::ZERO);
        self.lost(number)
    }

    /// The worker's end of a stream hears the next message, or the end.
    pub(crate) fn worker_hears(&mut self, id: u64) -> Result<(), Broken> {
        let wild = self.wild && !self.calm;
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.stirs_worker()) else { return Ok(()) };
        let (number, rival) = (stream.worker, stream.rival);
        if stream.to_worker.is_empty() {
            return self.notice_break(number);
        }
        let Some(message) = link::next(&mut stream.to_worker, wild, &mut self.random, &mut self.oracle) else {
            return Ok(());
        };
        let verdict = self.verdict();
        let Some(process) = self.workers[number].process.as_mut() else { return Ok(()) };
        process.heard = process.clock;
        match &message {
            Say::Welcome(welcome) => {
                process.welcomed = true;
                process.failures = 0;
                let stopped = welcome.held.iter().filter(|held| held.decision() == v1::HeldDecision::Stop);
                process.answered.extend(stopped.map(|held| held.lease_id));
            }
            Say::OutcomeAck(ack) => {
                process.answered.insert(ack.lease_id);
            }
            Say::Cancel(cancel) if !cancel.outcome_wanted => {
                process.answered.insert(cancel.lease_id);
            }
            Say::Goodbye(goodbye) if goodbye.reason() == v1::GoodbyeReason::Superseded && !rival => {
                let how = format!("w{number} is told to leave, and nobody else has its name");
                return broken(Rule::OnlyOthersSupersede, how);
            }
            _ => {}
        }
        match message {
            Say::Lease(lease) => process.machine.on_lease(process.clock, lease, verdict),
            message => process.machine.on_message(process.clock, message),
        }
        self.act(number)
    }

    /// What looking at an offer's document and this worker finds out.
    fn verdict(&mut self) -> Verdict {
        let refuse = |fault, code| Err((fault, Failure::new(code, "simulated").to_job_error("")));
        match if self.calm { 99 } else { self.random.below(100) } {
            0..3 => refuse(v1::RefusalFault::Job, ErrorCode::ValidationError),
            3..6 => refuse(v1::RefusalFault::Worker, ErrorCode::ImageAccessDenied),
            6..8 => refuse(v1::RefusalFault::Busy, ErrorCode::Internal),
            _ => Ok(()),
        }
    }

    /// Does what the machine wants.
    pub(crate) fn act(&mut self, number: usize) -> Result<(), Broken> {
        let mut leaves = None;
        loop {
            let effects = self.process(number).map(|process| process.machine.take_effects()).unwrap_or_default();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                match effect {
                    Effect::Send(words) => self.say(number, *words),
                    Effect::Start(lease) => self.start_attempt(number, *lease)?,
                    Effect::Stop(lease, stop) => self.stop_attempt(number, lease, stop),
                    Effect::Deliver(lease, _) => {
                        let outcome = self.process(number).and_then(|process| process.outcomes.get(&lease).cloned());
                        if let Some(outcome) = outcome {
                            self.say(number, Said::Outcome(outcome));
                        }
                    }
                    Effect::Forget(lease) => self.forget(number, lease)?,
                    Effect::Disconnect { after, .. } | Effect::Move { after, .. } => {
                        self.disconnect(number, after);
                        if let Some(process) = self.process(number) {
                            process.machine.on_lost(process.clock);
                        }
                    }
                    Effect::Leave { gracefully } => leaves = Some(gracefully),
                }
            }
        }
        if let Some(gracefully) = leaves {
            self.oracle.saw(if gracefully { "worker left gracefully" } else { "worker ousted" });
            let stream = self.workers[number].process.take().and_then(|process| process.stream);
            if let Some(stream) = stream.and_then(|id| self.streams.get_mut(&id)) {
                stream.worker_open = false;
            }
        }
        self.judge_worker(number)
    }

    fn say(&mut self, number: usize, words: Said) {
        if matches!(words, Said::Refuse(_)) {
            self.oracle.saw("worker refused");
        }
        // Whatever matters is said again after the next Welcome.
        let stream = self.process(number).and_then(|process| process.stream);
        if let Some(stream) = stream.and_then(|id| self.streams.get_mut(&id)) {
            stream.to_coordinator.push_back(words);
        }
    }

    fn start_attempt(&mut self, number: usize, lease: v1::Lease) -> Result<(), Broken> {
        if !self.started.insert(lease.lease_id) {
            let how = format!("w{number} starts an attempt of lease {}, which had one", lease.lease_id);
            return broken(Rule::LeaseNamesOneAttempt, how);
        }
        let worker = &mut self.workers[number];
        let Some(process) = &mut worker.process else { return Ok(()) };
        if process.attempts.len() >= worker.slots as usize {
            return broken(Rule::SlotsHold, format!("w{number} runs more than {} attempts", worker.slots));
        }
        let timeout = lease.timeout.map_or(0, |timeout| timeout.seconds);
        let ends_at = process.clock + Duration::from_secs(u64::try_from(timeout).unwrap_or_default());
        let attempt = Attempt { job_id: lease.job_id, ends_at, stop: None, stage: Stage::Running };
        process.attempts.insert(lease.lease_id, attempt);
        Ok(())
    }

    fn stop_attempt(&mut self, number: usize, lease: u64, stop: Stop) {
        let Some(process) = self.workers[number].process.as_mut() else { return };
        if stop == Stop::Abandon && !process.welcomed && process.clock >= process.heard + FENCE {
            self.oracle.saw("worker fenced itself");
        }
        if let Some(attempt) = process.attempts.get_mut(&lease) {
            // The first wins; the attempt ends by it.
            attempt.stop.get_or_insert(stop);
        }
    }

    fn forget(&mut self, number: usize, lease: u64) -> Result<(), Broken> {
        let Some(process) = self.process(number) else { return Ok(()) };
        if process.outcomes.remove(&lease).is_some() && !process.answered.contains(&lease) {
            let how = format!("w{number} drops the outcome of lease {lease} of its own accord");
            return broken(Rule::OutcomesAreKeptUntilAnswered, how);
        }
        process.unlinking.push(lease);
        Ok(())
    }

    /// Files whose removal was begun are removed, unless the process dies before.
    pub(crate) fn unlink(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        let Some(process) = &mut worker.process else { return };
        for lease in process.unlinking.drain(..) {
            worker.disk.remove(&lease);
        }
    }

    /// One attempt goes a stage on, or all the way.
    pub(crate) fn attempt_goes_on(&mut self, number: usize, lease: u64) -> Result<(), Broken> {
        let at_once = self.calm || self.random.percent(60);
        loop {
            let roll = if self.calm { 99 } else { self.random.below(100) };
            let worker = &mut self.workers[number];
            let Some(process) = &mut worker.process else { return Ok(()) };
            let Some(attempt) = process.attempts.get_mut(&lease) else { return Ok(()) };
            match &mut attempt.stage {
                Stage::Running => {
                    let overdue = process.clock >= attempt.ends_at;
                    let status = match &attempt.stop {
                        // It had ended when it was asked to.
                        Some(_) if roll < 20 => Some(v1::OutcomeStatus::Completed),
                        Some(Stop::Abandon) => None,
                        Some(Stop::Cancel { .. }) => Some(v1::OutcomeStatus::Cancelled),
                        None if overdue || (20..24).contains(&roll) => Some(v1::OutcomeStatus::Timeout),
                        None if roll < 20 => Some(v1::OutcomeStatus::Failed),
                        None if roll < 27 => Some(v1::OutcomeStatus::Cancelled),
                        None => Some(v1::OutcomeStatus::Completed),
                    };
                    let code = if roll < 12 { ErrorCode::Internal } else { ErrorCode::ImageCorrupt };
                    attempt.stage = Stage::Ended(status.map(|status| outcome(lease, &attempt.job_id, status, code)));
                }
                Stage::Ended(outcome) => {
                    let outcome = outcome.take();
                    if let Some(outcome) = &outcome {
                        // A disk that is full keeps nothing; the outcome is delivered from memory.
                        if roll < 4 {
                            self.oracle.saw("outcome not kept on disk");
                        } else {
                            worker.disk.insert(lease, outcome.clone());
                        }
                    }
                    attempt.stage = Stage::Spooled(outcome);
                }
                Stage::Spooled(outcome) => {
                    let outcome = outcome.take();
                    process.attempts.remove(&lease);
                    let kept = outcome.is_some();
                    process.outcomes.extend(outcome.map(|outcome| (lease, outcome)));
                    process.machine.on_finished(process.clock, lease, kept);
                    return self.act(number);
                }
            }
            if !at_once {
                return Ok(());
            }
        }
    }

    pub(crate) fn tell_progress(&mut self, number: usize, lease: u64, percent: f64) -> Result<(), Broken> {
        let Some(process) = self.process(number) else { return Ok(()) };
        if process.attempts.get(&lease).is_some_and(|attempt| matches!(attempt.stage, Stage::Running)) {
            let progress = v1::Progress { progress_percent: percent, ..v1::Progress::default() };
            process.machine.on_progress(process.clock, lease, progress);
        }
        self.act(number)
    }

    /// The process is asked to leave, as by SIGTERM.
    pub(crate) fn ask_to_leave(&mut self, number: usize, patience: Duration) -> Result<(), Broken> {
        if let Some(process) = self.process(number) {
            process.machine.on_drain(process.clock, Some(patience));
        }
        self.act(number)
    }

    /// The process's clock moves; what is due by it is done.
    pub(crate) fn pass_worker_time(&mut self, number: usize, passed: Duration) -> Result<(), Broken> {
        let Some(process) = self.process(number) else { return Ok(()) };
        process.clock += passed;
        let now = process.clock;
        let due = process.attempts.iter().filter(|(_, attempt)| {
            matches!(attempt.stage, Stage::Running) && attempt.stop.is_none() && attempt.ends_at <= now
        });
        let due: Vec<u64> = due.map(|(lease, _)| *lease).collect();
        for lease in due {
            self.attempt_goes_on(number, lease)?;
        }
        self.tick(number)
    }

    fn tick(&mut self, number: usize) -> Result<(), Broken> {
        // One that is due again and again at one instant would keep a real worker busy for ever.
        for _ in 0..100 {
            let Some(process) = self.process(number) else { return Ok(()) };
            if process.machine.next_deadline().is_none_or(|at| at > process.clock) {
                return self.judge_worker(number);
            }
            process.machine.on_tick(process.clock);
            self.act(number)?;
        }
        broken(Rule::WorkersMakeSense, format!("w{number} never comes to rest"))
    }

    fn judge_worker(&mut self, number: usize) -> Result<(), Broken> {
        let Some(process) = &self.workers[number].process else { return Ok(()) };
        let due = process.machine.next_deadline().is_some_and(|at| at <= process.clock);
        if !due && !process.welcomed && process.clock >= process.heard + FENCE {
            let running = |attempt: &&Attempt| matches!(attempt.stage, Stage::Running) && attempt.stop.is_none();
            if let Some(attempt) = process.attempts.values().find(running) {
                let silence = process.clock - process.heard;
                let how = format!("w{number} works on {} after {silence:?} without a word", attempt.job_id);
                return broken(Rule::WorkersFenceThemselves, how);
            }
        }
        self.judge_agreement(number)
    }

    /// Whether both ends of a stream on which everything has been heard hold the same leases.
    pub(crate) fn judge_agreement(&self, number: usize) -> Result<(), Broken> {
        let worker = &self.workers[number];
        let (Some(process), Some(coordinator)) = (&worker.process, &self.coordinator) else { return Ok(()) };
        let Some(stream) = process.stream.and_then(|id| self.streams.get(&id)) else { return Ok(()) };
        let End::Open(session) = stream.coordinator else { return Ok(()) };
        let settled = process.welcomed && stream.quiet() && coordinator.pending.is_empty();
        if self.wild || !settled || coordinator.newest.get(&worker.id) != Some(&session) {
            return Ok(());
        }
        let Some(view) = coordinator.scheduler.worker(&worker.id) else { return Ok(()) };
        let abandoned = |attempt: &Attempt| attempt.stop == Some(Stop::Abandon);
        for (job_id, lease) in &view.jobs {
            let accepted = self.oracle.current(*lease).is_some_and(|row| row.phase.started().is_some());
            let held = process.attempts.get(&lease.0).is_some_and(|attempt| !abandoned(attempt));
            if accepted && !held {
                let how = format!("{} is to work on {job_id} (lease {}) and does not", worker.id, lease.0);
                return broken(Rule::BothEndsAgree, how);
            }
        }
        let current = |lease: u64| view.jobs.iter().any(|(_, held)| *held == LeaseId(lease));
        let extra = process.attempts.iter().find(|(lease, attempt)| attempt.stop.is_none() && !current(**lease));
        if let Some((lease, attempt)) = extra {
            let how = format!("{} works on {} under lease {lease}, which is not current", worker.id, attempt.job_id);
            return broken(Rule::BothEndsAgree, how);
        }
        Ok(())
    }
}

/// The outcome of an attempt. Its result names the lease it was made under, where a real one names its worker.
fn outcome(lease: u64, job_id: &str, status: v1::OutcomeStatus, code: ErrorCode) -> v1::Outcome {
    let (word, error) = match status {
        v1::OutcomeStatus::Completed => ("completed", None),
        v1::OutcomeStatus::Cancelled => ("cancelled", Some(ErrorCode::Cancelled)),
        v1::OutcomeStatus::Timeout => ("timeout", Some(ErrorCode::Timeout)),
        v1::OutcomeStatus::Failed | v1::OutcomeStatus::Unspecified => ("failed", Some(code)),
    };
    let error = error.map(|code| Failure::new(code, "simulated").to_job_error(""));
    let result = v1::JobResult {
        job_id: job_id.into(),
        status: word.into(),
        worker_id: lease.to_string(),
        error: error.clone(),
        ..v1::JobResult::default()
    };
    let result = result.encode_to_vec();
    v1::Outcome {
        lease_id: lease,
        job_id: job_id.into(),
        status: status.into(),
        error,
        result_sha256: Sha256::digest(&result).to_vec(),
        result,
    }
}
