//! The coordinator around the real scheduler: its driver, whose rounds may be cut short anywhere, and its store, which is the
//! oracle's ledger. Here faults are planted, so that the simulation proves that it sees them.

use std::collections::{BTreeMap, BTreeSet};

use guestkit_coordinator::outbox;
use guestkit_coordinator::words::{self, Heard, Offer, Words};
use guestkit_domain::{BootId, Duration, JobId, LeaseId, Revision, SessionId, Time, WorkerId};
use guestkit_protocol::v1;
use guestkit_protocol::v1::session_request::Message as Said;
use guestkit_protocol::v1::session_response::Message as Say;
use guestkit_scheduler::{
    Change, Config, Effects, Event, Input, JobEntry, Ledger, Phase, Record, Reply, Scheduler, ToWorker, Want,
};

use crate::link::{self, End, cut_short};
use crate::oracle::{Broken, Rule, broken};
use crate::worker::boot_id;
use crate::world::World;

/// A fault built into the driver, the store or the link, and the rule that is there for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    Nothing,
    /// An outcome counts for whatever lease its job has now.
    NoFencing,
    /// Answers leave before their records are durable.
    ReleaseBeforeCommit,
    /// A job goes back to the queue, and the store never hears of it.
    RequeueWithoutRecord,
    /// A worker hears that its outcome is recorded before it is.
    AckBeforeDurable,
    /// A worker is told to keep a lease that is void.
    RenewalOfVoidLease,
    /// A silent worker's leases are renewed as if it had spoken.
    RenewalWithoutAWord,
    /// The store loses one record in fifty, and takes the next.
    ForgetfulStore,
}

impl Planted {
    pub(crate) const ALL: [(Self, Rule); 7] = [
        (Self::NoFencing, Rule::OnlyTheCurrentLeaseCounts),
        (Self::ReleaseBeforeCommit, Rule::AcknowledgedJobsSurvive),
        (Self::RequeueWithoutRecord, Rule::ReplayEqualsLive),
        (Self::AckBeforeDurable, Rule::AcknowledgedOutcomesAreDurable),
        (Self::RenewalOfVoidLease, Rule::OnlyCurrentLeasesAreKept),
        (Self::RenewalWithoutAWord, Rule::SilenceEndsLeases),
        (Self::ForgetfulStore, Rule::HistoryHasNoGap),
    ];
}

/// How a round ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    Released,
    /// The store did not take it.
    Failed,
    /// The process died before it was durable.
    DiedBefore,
    /// The process died when it was durable and nobody had been told.
    DiedAfter,
}

#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(crate) scheduler: Scheduler,
    pub(crate) now: Time,
    pub(crate) pending: Effects,
    /// Each worker's newest session.
    pub(crate) newest: BTreeMap<WorkerId, SessionId>,
    /// The process and stream of that.
    connected: BTreeMap<WorkerId, (BootId, u64)>,
    /// Sessions that were ended from here and whose tasks have not said so yet.
    closing: Vec<SessionId>,
    began: Time,
    inherited: LeaseId,
    /// When each worker was heard on its newest session.
    heard: BTreeMap<WorkerId, Time>,
}

impl Coordinator {
    fn restore(config: &Config, ledger: &Ledger, wall: Time) -> Self {
        // As the real clock is anchored.
        let now = wall.max(ledger.newest);
        Self {
            scheduler: Scheduler::restore(config.clone(), ledger.clone(), now),
            now,
            pending: Effects::default(),
            newest: BTreeMap::new(),
            connected: BTreeMap::new(),
            closing: Vec::new(),
            began: now,
            inherited: ledger.last_lease,
            heard: BTreeMap::new(),
        }
    }

    pub(crate) fn due(&self) -> bool {
        self.scheduler.next_deadline().is_some_and(|at| at <= self.now)
    }

    /// No lease outlives its time.
    fn judge_silence(&self, config: &Config) -> Result<(), Broken> {
        for entry in self.scheduler.ledger().jobs() {
            let Some(lease) = entry.row.phase.lease() else { continue };
            let grace = self.began.plus(config.restart_grace);
            let heard = self.heard.get(&lease.worker).map_or(grace, |heard| heard.plus(config.lease_ttl));
            let own = match &entry.row.phase {
                Phase::Assigned { lease, .. } => lease.offered.plus(config.accept_timeout),
                Phase::Running { started, .. } => started.plus(entry.spec.timeout + config.timeout_grace),
                Phase::Cancelling { since, .. } => since.plus(config.cancel_timeout),
                Phase::Pending { .. } | Phase::Queued { .. } | Phase::Ended(_) => continue,
            };
            let own = if lease.id <= self.inherited { own.max(grace) } else { own };
            if self.now >= heard.min(own) {
                let how = format!("lease {} stands at {:?}: heard until {heard:?}, own {own:?}", lease.id.0, self.now);
                return broken(Rule::SilenceEndsLeases, how);
            }
        }
        Ok(())
    }
}

impl World {
    pub(crate) fn start_coordinator(&mut self) -> Result<(), Broken> {
        if self.coordinator.is_some() {
            return Ok(());
        }
        self.oracle.roots.clear();
        let coordinator = Coordinator::restore(&self.config, &self.oracle.ledger, Time(self.wall));
        self.wall = coordinator.now.0;
        self.oracle.began = (self.oracle.ledger.revision > Revision(0)).then_some(coordinator.now);
        let faults = coordinator.scheduler.check();
        self.coordinator = Some(coordinator);
        if faults.is_empty() {
            return self.compare(None);
        }
        broken(Rule::SchedulerInvariants, format!("after a restart: {}", faults.join("; ")))
    }

    /// The process dies, with everything it had not committed.
    fn die(&mut self) {
        self.coordinator = None;
        self.deletes.clear();
        self.sessions.clear();
        for stream in self.streams.values_mut() {
            stream.coordinator = End::Closed;
            stream.to_coordinator.clear();
            cut_short(&mut stream.to_worker, &mut self.random);
        }
    }

    /// One input, as the driver hands it in.
    pub(crate) fn handle(&mut self, mut input: Input) -> Result<(), Broken> {
        let Some(coordinator) = &mut self.coordinator else { return Ok(()) };
        let now = coordinator.now;
        for want in coordinator.scheduler.wants(&input) {
            if let Some(entry) = stored(&self.oracle.ledger, &want) {
                let recall = Input::Recall { entry: Box::new(entry) };
                coordinator.scheduler.handle(now, recall, &mut coordinator.pending);
            }
        }
        match &input {
            // Overtaken by a later stream of the same process.
            Input::Connect { profile, .. }
                if coordinator
                    .connected
                    .get(&profile.worker_id)
                    .is_some_and(|(boot, stream)| *boot == profile.boot_id && *stream > profile.stream) =>
            {
                self.oracle.saw("hello overtaken");
            }
            Input::Connect { session, profile, .. } => {
                let stream = (profile.boot_id.clone(), profile.stream);
                coordinator.connected.insert(profile.worker_id.clone(), stream);
                coordinator.newest.insert(profile.worker_id.clone(), *session);
                coordinator.heard.insert(profile.worker_id.clone(), now);
                for root in &profile.image_roots {
                    self.oracle.roots.entry(root.clone()).or_insert(now);
                }
            }
            Input::Heartbeat { session, .. }
            | Input::Accept { session, .. }
            | Input::Refuse { session, .. }
            | Input::Progress { session, .. }
            | Input::Outcome { session, .. }
            | Input::Draining { session } => {
                if let Some((worker, _)) = coordinator.newest.iter().find(|(_, newest)| *newest == session) {
                    coordinator.heard.insert(worker.clone(), now);
                }
            }
            Input::Disconnect { session } => coordinator.newest.retain(|_, newest| newest != session),
            _ => {}
        }
        let early = match (self.planted, &mut input) {
            (Planted::NoFencing, Input::Outcome { session, lease, job_id, .. }) => {
                let current = coordinator.scheduler.job(job_id).and_then(|entry| entry.row.phase.lease());
                if let Some(current) = current {
                    *lease = current.id;
                    *session = coordinator.newest.get(&current.worker).copied().unwrap_or(*session);
                }
                None
            }
            (Planted::AckBeforeDurable, Input::Outcome { session, lease, .. })
                if coordinator.scheduler.holder(*lease).is_some() =>
            {
                let verdict = guestkit_scheduler::OutcomeVerdict::Recorded;
                Some((*session, ToWorker::OutcomeAck { lease: *lease, verdict }))
            }
            _ => None,
        };
        coordinator.scheduler.handle(now, input, &mut coordinator.pending);
        if self.planted == Planted::ReleaseBeforeCommit {
            let submitted = coordinator.pending.records().iter().filter_map(|record| match &record.change {
                Change::Job { job_id, event: Event::Submitted { .. }, .. } => Some(job_id.clone()),
                _ => None,
            });
            self.acknowledged.extend(submitted);
        }
        let faults = coordinator.scheduler.check();
        if !faults.is_empty() {
            return broken(Rule::SchedulerInvariants, faults.join("; "));
        }
        match early {
            Some((session, message)) => self.transmit(session, message, &BTreeSet::new()),
            None => Ok(()),
        }
    }

    /// The coordinator's end of a stream hears the next message, or the end.
    pub(crate) fn coordinator_hears(&mut self, id: u64) -> Result<(), Broken> {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.stirs_coordinator()) else {
            return Ok(());
        };
        let wild = self.wild && !self.calm && stream.coordinator != End::Fresh;
        if stream.to_coordinator.is_empty() {
            let session = stream.session();
            stream.coordinator = End::Closed;
            return session.map_or(Ok(()), |session| self.session_over(session));
        }
        let message = link::next(&mut stream.to_coordinator, wild, &mut self.random, &mut self.oracle);
        match (stream.coordinator, message) {
            (End::Fresh, Some(Said::Hello(hello))) => self.hello(id, &hello),
            (End::Open(session), Some(message)) => {
                let words = self.words(session);
                match words.hear(Some(message)) {
                    Ok(Heard::Input(input) | Heard::ByReference { input, .. }) => self.handle(input),
                    Err(refusal) => broken(Rule::WorkersMakeSense, refusal.to_string()),
                }
            }
            (End::Fresh, Some(_)) => broken(Rule::WorkersMakeSense, "something was said before Hello"),
            (End::Closed, _) | (_, None) => Ok(()),
        }
    }

    fn words(&self, session: SessionId) -> Words {
        Words { session, inline_bytes_max: 1 << 20 }
    }

    fn hello(&mut self, id: u64, hello: &v1::Hello) -> Result<(), Broken> {
        let (profile, held) = match words::hello(hello) {
            Ok(checked) => checked,
            Err(refusal) => return broken(Rule::WorkersMakeSense, refusal.to_string()),
        };
        self.last_session += 1;
        let session = SessionId(self.last_session);
        self.sessions.insert(session, id);
        let (worker, boot) = self.streams.get(&id).map(|stream| (stream.worker, stream.boot)).expect("it speaks");
        for other in self.streams.values_mut().filter(|other| other.worker == worker) {
            other.rival |= other.boot != boot;
        }
        self.streams.get_mut(&id).expect("it speaks").coordinator = End::Open(session);
        self.handle(Input::Connect { session, profile: Box::new(profile), held })
    }

    /// The task of a session has come to its end.
    fn session_over(&mut self, session: SessionId) -> Result<(), Broken> {
        self.sessions.remove(&session);
        self.handle(Input::Disconnect { session })
    }

    /// A session whose stream was ended from here says so to the driver.
    pub(crate) fn close_session(&mut self) -> Result<(), Broken> {
        let closing = self.coordinator.as_mut().and_then(|coordinator| coordinator.closing.pop());
        closing.map_or(Ok(()), |session| self.session_over(session))
    }

    /// The coordinator notices that a stream is broken.
    pub(crate) fn notice_break_of(&mut self, id: u64) -> Result<(), Broken> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let session = stream.session();
        stream.coordinator = End::Closed;
        stream.to_coordinator.clear();
        session.map_or(Ok(()), |session| self.session_over(session))
    }

    /// What is due is done, and what followed from everything since the last round is committed and let go.
    pub(crate) fn round(&mut self, end: Round) -> Result<(), Broken> {
        let Some(coordinator) = &self.coordinator else { return Ok(()) };
        if coordinator.due() {
            if self.planted == Planted::RenewalWithoutAWord {
                self.forge_heartbeats()?;
            }
            self.handle(Input::Wake)?;
        }
        let Some(coordinator) = &mut self.coordinator else { return Ok(()) };
        let effects = std::mem::take(&mut coordinator.pending);
        match end {
            Round::DiedBefore => {
                self.oracle.saw("coordinator crashed before its commit");
                self.die();
                return Ok(());
            }
            Round::Failed => return self.commit_failed(),
            Round::Released | Round::DiedAfter => {}
        }
        let voided = self.commit(effects.records())?;
        if end == Round::DiedAfter {
            self.oracle.saw("coordinator crashed between commit and release");
            self.die();
            return Ok(());
        }
        self.compare(Some(effects.records()))?;
        self.release(effects, &voided)?;
        self.rounds += 1;
        if self.rounds.is_multiple_of(16) {
            self.compare(None)?;
        }
        match &self.coordinator {
            Some(coordinator) if !coordinator.due() => coordinator.judge_silence(&self.config),
            _ => Ok(()),
        }
    }

    /// Writes down what is durable; gives the leases that ended.
    fn commit(&mut self, records: &[Record]) -> Result<BTreeSet<LeaseId>, Broken> {
        let mut voided = BTreeSet::new();
        let last = records.last().map(|record| record.revision);
        for record in records {
            let mut record = record.clone();
            if let Change::Job { job_id, event, row } = &mut record.change {
                let stored = self.oracle.ledger.job(job_id);
                let before = stored.and_then(|entry| entry.row.phase.lease()).map(|lease| lease.id);
                voided.extend(before.filter(|lease| row.phase.lease().is_none_or(|held| held.id != *lease)));
                let returns = matches!(event, Event::Returned { .. } | Event::AttemptLost { .. });
                if self.planted == Planted::RequeueWithoutRecord {
                    if returns {
                        self.unrecorded += 1;
                        continue;
                    }
                    // As if it had never been counted.
                    record.revision = Revision(record.revision.0 - self.unrecorded);
                    row.sequence = stored.map_or(1, |entry| entry.row.sequence + 1);
                }
            }
            if let Change::Deleted { job_id } = &record.change {
                // Asked for, whether or not the answer arrives.
                self.acknowledged.remove(job_id);
            }
            let forgets = self.planted == Planted::ForgetfulStore && Some(record.revision) != last;
            if forgets && self.random.percent(2) {
                continue;
            }
            self.oracle.take(&record)?;
        }
        Ok(voided)
    }

    /// The driver starts over from what is durable.
    fn commit_failed(&mut self) -> Result<(), Broken> {
        self.oracle.saw("commit failed");
        let now = self.coordinator.as_ref().map_or(Time(self.wall), |coordinator| coordinator.now);
        self.deletes.clear();
        for (session, id) in std::mem::take(&mut self.sessions) {
            if let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.session() == Some(session)) {
                let text = "the coordinator's store cannot be written; leases stand";
                let after = outbox::RECONNECT_AFTER_RESTART;
                let last = outbox::goodbye(v1::GoodbyeReason::ShuttingDown, text, after);
                stream.to_worker.push_back(Say::Goodbye(last));
                stream.coordinator = End::Closed;
                self.oracle.saw("goodbye: shutting down");
            }
        }
        self.coordinator = None;
        self.wall = now.0;
        self.start_coordinator()
    }

    fn release(&mut self, effects: Effects, voided: &BTreeSet<LeaseId>) -> Result<(), Broken> {
        let durable = Revision(self.oracle.ledger.revision.0 + self.unrecorded);
        let released = match effects.release(durable) {
            Ok(released) => released,
            Err(error) => return broken(Rule::NothingLeavesEarly, error.to_string()),
        };
        for (request, reply) in released.replies {
            match reply {
                Reply::Submitted { job_id, .. } => {
                    self.acknowledged.insert(job_id);
                }
                Reply::Deleted => {
                    if let Some(deleted) = self.deletes.remove(&request) {
                        self.acknowledged.remove(&deleted);
                    }
                }
                Reply::Expired(forgotten) => {
                    for job_id in forgotten {
                        self.acknowledged.remove(&job_id);
                        self.oracle.saw("expired");
                    }
                }
                Reply::Refused(_) => self.oracle.saw("refused"),
                Reply::Job { .. } | Reply::Workers(_) => {}
            }
        }
        for (session, message) in released.sends {
            self.transmit(session, message, voided)?;
        }
        Ok(())
    }

    /// A message leaves for a worker. What is sent to a session that is gone is gone.
    fn transmit(&mut self, session: SessionId, message: ToWorker, voided: &BTreeSet<LeaseId>) -> Result<(), Broken> {
        let Some(&id) = self.sessions.get(&session) else { return Ok(()) };
        let offer = match &message {
            ToWorker::Lease { .. } if !self.calm && self.random.percent(1) => {
                self.oracle.saw("offer whose document could not be read");
                return Ok(());
            }
            ToWorker::Lease { .. } => Offer { document: Some(v1::JobDocument::default()), ..Offer::default() },
            _ => Offer::default(),
        };
        let mut said = self.words(session).say(message, offer);
        self.note(&said);
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.session() == Some(session)) else {
            return Ok(());
        };
        match &mut said {
            Say::Welcome(welcome) => {
                let worker = &self.workers[stream.worker];
                for held in &mut welcome.held {
                    if self.planted == Planted::RenewalOfVoidLease && held.decision() == v1::HeldDecision::Stop {
                        held.decision = v1::HeldDecision::Keep.into();
                    }
                    if held.decision() == v1::HeldDecision::Keep {
                        let lease = LeaseId(held.lease_id);
                        self.oracle.judge_kept(lease, &worker.id, &boot_id(stream.boot), voided)?;
                    }
                }
            }
            Say::OutcomeAck(ack) => self.oracle.judge_verdict(ack)?,
            Say::Lease(lease) if !self.oracle.minted.contains_key(&LeaseId(lease.lease_id)) => {
                return broken(Rule::NothingLeavesEarly, format!("lease {} is offered", lease.lease_id));
            }
            Say::Goodbye(_) => {
                stream.coordinator = End::Closed;
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.closing.push(session);
                    coordinator.newest.retain(|_, newest| *newest != session);
                }
            }
            _ => {}
        }
        stream.to_worker.push_back(said);
        Ok(())
    }

    fn note(&mut self, said: &Say) {
        match said {
            Say::Welcome(welcome) => {
                for held in &welcome.held {
                    self.oracle.saw(match held.decision() {
                        v1::HeldDecision::Keep => "held: keep",
                        v1::HeldDecision::Stop => "held: stop",
                        v1::HeldDecision::Deliver => "held: deliver",
                        v1::HeldDecision::Unspecified => "held: nothing",
                    });
                }
            }
            Say::OutcomeAck(ack) if ack.verdict() == v1::OutcomeVerdict::Stale => self.oracle.saw("outcome stale"),
            Say::OutcomeAck(_) => self.oracle.saw("outcome recorded"),
            Say::Cancel(cancel) if cancel.outcome_wanted => self.oracle.saw("cancel said to a worker"),
            Say::Cancel(_) => self.oracle.saw("void said to a worker"),
            Say::Drain(_) => self.oracle.saw("drain said to a worker"),
            Say::Goodbye(goodbye) => self.oracle.saw(match goodbye.reason() {
                v1::GoodbyeReason::Superseded => "goodbye: superseded",
                v1::GoodbyeReason::Silent => "goodbye: silent",
                _ => "goodbye: another",
            }),
            Say::Lease(_) | Say::HeartbeatAck(_) => {}
        }
    }

    fn forge_heartbeats(&mut self) -> Result<(), Broken> {
        let Some(coordinator) = &mut self.coordinator else { return Ok(()) };
        for session in coordinator.newest.values() {
            let beat = Input::Heartbeat { session: *session, sequence: 1 };
            coordinator.scheduler.handle(coordinator.now, beat, &mut coordinator.pending);
        }
        Ok(())
    }

    /// Replay equals live: whole, or as far as `records` changed it.
    pub(crate) fn compare(&self, records: Option<&[Record]>) -> Result<(), Broken> {
        let Some(coordinator) = &self.coordinator else { return Ok(()) };
        let (live, stored) = (coordinator.scheduler.ledger(), &self.oracle.ledger);
        let scalars = |ledger: &Ledger| (ledger.revision, ledger.last_lease, ledger.totals, ledger.newest);
        let over = |entry: &JobEntry| entry.row.phase.state().is_terminal();
        let same_job = |job_id: &JobId| match (live.job(job_id), stored.job(job_id)) {
            (None, Some(stored)) => live.partial && over(stored),
            (live, stored) => live == stored,
        };
        let unfinished = |ledger: &Ledger| ledger.jobs().filter(|entry| !over(entry)).count();
        let same = scalars(live) == scalars(stored)
            && live.drains == stored.drains
            && match records {
                Some(records) => records.iter().all(|record| match &record.change {
                    Change::Job { job_id, .. } | Change::Deleted { job_id } => same_job(job_id),
                    Change::Drain { .. } | Change::Resume { .. } => true,
                }),
                None => {
                    unfinished(live) == unfinished(stored)
                        && live.jobs().all(|entry| same_job(&entry.spec.job_id))
                        && stored.jobs().all(|entry| same_job(&entry.spec.job_id))
                }
            };
        if !same {
            return broken(Rule::ReplayEqualsLive, "what was replayed is not what lives");
        }
        let lost = self.acknowledged.iter().find(|job| stored.job(job).is_none());
        match lost.filter(|_| records.is_none()) {
            Some(job) => broken(Rule::AcknowledgedJobsSurvive, format!("{job} was acknowledged and is lost")),
            None => Ok(()),
        }
    }
}

/// A job as the store has it.
fn stored(ledger: &Ledger, want: &Want) -> Option<JobEntry> {
    match want {
        Want::Job(job_id) => ledger.job(job_id).cloned(),
        Want::Key(namespace, key) => ledger
            .jobs()
            .find(|entry| entry.spec.namespace == *namespace && entry.spec.idempotency_key.as_ref() == Some(key))
            .cloned(),
    }
}

/// Long enough for everything that has a time to run out of it.
pub(crate) const CALM_MAX: Duration = Duration::from_secs(4_000);
