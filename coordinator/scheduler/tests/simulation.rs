//! Seeded chaos: submitters, workers that crash and forget, links that break, duplicate and reorder, a coordinator that dies
//! between deciding and committing, clocks that jump. After every step the scheduler's own invariants are checked; what is
//! durable is judged by an oracle that reads records alone; at the end everything heals and every job must be over.
//!
//! `GUESTKIT_SIMULATION_SEEDS` and `GUESTKIT_SIMULATION_STEPS` choose the size; `GUESTKIT_SIMULATION_SEED` runs one seed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: what should not be fails it")]
#![allow(clippy::disallowed_methods, reason = "the bans are the scheduler's; a test reads its settings and scripts")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use guestkit_domain::{
    Backoff, BootId, Duration, ErrorCode, Failure, IdempotencyPolicy, JobId, JobSpec, JobState, LeaseId, Namespace,
    OutcomeStatus, Placement, Priority, Progress, RefusalFault, Revision, SessionId, Time, WorkerId, WorkerProfile,
};
use guestkit_scheduler::{
    Change, Config, DrainTarget, Effects, Event, Held, HeldDecision, Input, Ledger, Phase, Record, Reply, RequestId,
    Scheduler, ToWorker, Want,
};

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine and in every year.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { items.get(self.below(items.len() as u64) as usize) }
    }
}

/// A fault built into the harness to prove that the oracle sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planted {
    Nothing,
    /// An outcome counts for whatever lease its job has now.
    NoFencing,
    /// Replies leave before their records are durable.
    ReleaseBeforeCommit,
    /// The store loses one record in fifty.
    ForgetfulStore,
}

/// What is durable, and what it may look like.
#[derive(Default)]
struct Oracle {
    ledger: Ledger,
    latest_lease: BTreeMap<JobId, LeaseId>,
    sequence: BTreeMap<JobId, u64>,
    percent: BTreeMap<JobId, f64>,
    state: BTreeMap<JobId, JobState>,
    minted: LeaseId,
    completed: BTreeMap<JobId, u32>,
    queued_at: BTreeMap<JobId, Time>,
    /// When this coordinator began, and whether there was one before it.
    began: Option<Time>,
    /// When each image root was first known to this coordinator.
    roots: BTreeMap<Arc<str>, Time>,
    /// What happened, by name: a simulation that never comes to a place proves nothing about it.
    seen: BTreeSet<String>,
}

/// What a few hundred seeds have to come across.
const PLACES: &[&str] = &[
    "AttemptFailed",
    "AttemptLost Abandoned",
    "AttemptLost Dropped",
    "AttemptLost Restarted",
    "AttemptLost Silent",
    "CancelRequested",
    "Deleted",
    "Due",
    "Ended Cancelled",
    "Ended Completed",
    "Ended Failed",
    "Ended Failed IMAGE_ACCESS_DENIED",
    "Ended Failed WORKER_LOST",
    "Ended Timeout DEADLINE_EXCEEDED",
    "Ended Timeout TIMEOUT",
    "Goodbye Silent",
    "Goodbye Superseded",
    "Held Deliver",
    "Held Keep",
    "Held Stop",
    "Outcome Recorded",
    "Outcome Stale",
    "Progress",
    "Refused",
    "RetryRequested",
    "Returned Drained",
    "Returned NotAccepted",
    "Returned Refused Busy",
    "Reconsidered",
    "Returned Refused Worker",
    "Void",
];

fn place(event: &Event, row: &guestkit_scheduler::JobRow) -> String {
    use guestkit_scheduler::Return;
    match event {
        Event::AttemptFailed { .. } => "AttemptFailed".into(),
        Event::AttemptLost { why } => format!("AttemptLost {why:?}"),
        Event::CancelRequested { .. } => "CancelRequested".into(),
        Event::Due => "Due".into(),
        Event::Ended { .. } => {
            let code = row.failure().map(|failure| failure.code);
            let code = code.filter(|code| {
                use ErrorCode::{DeadlineExceeded, ImageAccessDenied, Timeout, WorkerLost};
                matches!(code, WorkerLost | DeadlineExceeded | Timeout | ImageAccessDenied)
            });
            format!("Ended {:?}{}", row.phase.state(), code.map(|code| format!(" {code}")).unwrap_or_default())
        }
        Event::Progress { .. } => "Progress".into(),
        Event::Reconsidered => "Reconsidered".into(),
        Event::RetryRequested => "RetryRequested".into(),
        Event::Returned { why: Return::Refused { fault, .. } } => format!("Returned Refused {fault:?}"),
        Event::Returned { why } => format!("Returned {why:?}"),
        Event::Submitted { .. } | Event::Assigned | Event::Accepted => "Usual".into(),
    }
}

fn place_of_send(message: &ToWorker) -> Vec<String> {
    match message {
        ToWorker::Welcome { held, .. } => held.iter().map(|(_, decision)| format!("Held {decision:?}")).collect(),
        ToWorker::OutcomeAck { verdict, .. } => vec![format!("Outcome {verdict:?}")],
        ToWorker::Goodbye { reason } => vec![format!("Goodbye {reason:?}")],
        ToWorker::Cancel { outcome_wanted: false, .. } => vec!["Void".into()],
        _ => Vec::new(),
    }
}

impl Oracle {
    fn take(&mut self, record: &Record) -> Result<(), String> {
        self.ledger.apply(record);
        let Change::Job { job_id, event, row } = &record.change else {
            if let Change::Deleted { job_id } = &record.change {
                self.sequence.remove(job_id);
                self.state.remove(job_id);
                self.completed.remove(job_id);
                self.seen.insert("Deleted".into());
            }
            return Ok(());
        };
        self.seen.insert(place(event, row));
        let say = |what: &str| Err(format!("{job_id} at revision {}: {what}: {event:?}", record.revision.0));
        let sequence = self.sequence.entry(job_id.clone()).or_default();
        *sequence += 1;
        if row.sequence != *sequence {
            return say("the log has a gap");
        }
        let after = row.phase.state();
        let before = self.state.insert(job_id.clone(), after);
        if !allowed(before, event, after) {
            return say(&format!("{before:?} may not become {after:?}"));
        }
        if before == Some(JobState::Queued) && after == JobState::Failed {
            self.judge_image(record.at, job_id, row)?;
        }
        // One that was offered in vain has waited all the time.
        if after == JobState::Queued && !matches!(before, Some(JobState::Queued | JobState::Assigned)) {
            self.queued_at.insert(job_id.clone(), record.at);
        }
        if let Event::Assigned = event {
            let lease = row.phase.lease().map(|lease| lease.id).unwrap_or_default();
            if lease <= self.minted {
                return say("the lease is not new");
            }
            self.minted = lease;
            self.latest_lease.insert(job_id.clone(), lease);
            self.percent.insert(job_id.clone(), 0.0);
        }
        if let Event::Progress { progress } = event {
            let before = self.percent.insert(job_id.clone(), progress.percent).unwrap_or_default();
            if progress.percent < before {
                return say("progress fell");
            }
        }
        if let (Event::Ended { result }, Phase::Ended(ended)) = (event, &row.phase) {
            if let (Some(result), Some(lease)) = (result, ended.outcome_of)
                && (result.as_ref() != lease.0.to_le_bytes() || self.latest_lease.get(job_id) != Some(&lease))
            {
                return say("the outcome is another attempt's");
            }
            if ended.state == JobState::Completed {
                let times = self.completed.entry(job_id.clone()).or_default();
                *times += 1;
                if *times > 1 || ended.outcome_of.is_none() {
                    return say("completed twice, or by nobody");
                }
            }
        }
        Ok(())
    }

    /// A job that fails while it waits has an image that no worker served that this coordinator had heard of, and was given
    /// the time it is owed.
    fn judge_image(&self, at: Time, job_id: &JobId, row: &guestkit_scheduler::JobRow) -> Result<(), String> {
        let say = |what: &str| Err(format!("{job_id} failed in the queue at {at:?}: {what}: {row:?}"));
        let spec = self.ledger.job(job_id).map(|entry| entry.spec.clone());
        let Some(folder) = spec.as_ref().and_then(|spec| spec.placement.image_folder.as_ref()) else {
            return say("it has no image");
        };
        if row.failure().map(|failure| failure.code) != Some(ErrorCode::ImageAccessDenied) {
            return say("of something else");
        }
        let known = |root: &Arc<str>| folder.starts_with(&format!("{root}/")) && !folder.contains("/../");
        let pinned = spec.as_ref().is_some_and(|spec| spec.placement.worker.is_some());
        // Of two decisions in one millisecond nobody can tell which came first.
        if !pinned && self.roots.iter().any(|(root, since)| known(root) && *since < at) {
            return say("a worker had a root for it");
        }
        let config = Config::default();
        let waited = self.queued_at.get(job_id).map_or(Duration::ZERO, |since| at.since(*since));
        if waited < config.image_root_patience {
            return say("it was impatient");
        }
        if self.began.is_some_and(|began| at.since(began) < config.restart_grace) {
            return say("others may come back");
        }
        Ok(())
    }
}

/// The arrows of the lifecycle, as the job protocol draws them.
fn allowed(before: Option<JobState>, event: &Event, after: JobState) -> bool {
    use JobState::{Assigned, Cancelled, Cancelling, Completed, Failed, Pending, Queued, Running, Timeout};
    let leased = |state| matches!(state, Assigned | Running);
    match (before, event) {
        (None, Event::Submitted { .. }) => matches!(after, Pending | Queued),
        (Some(Pending), Event::Due) => after == Queued,
        (Some(Queued), Event::Assigned) => after == Assigned,
        (Some(Queued), Event::Reconsidered) => after == Queued,
        (Some(Assigned), Event::Accepted) => after == Running,
        (Some(state @ (Running | Cancelling)), Event::Progress { .. }) => after == state,
        (Some(state), Event::Returned { .. } | Event::AttemptLost { .. }) => leased(state) && after == Queued,
        (Some(state), Event::AttemptFailed { .. }) => leased(state) && matches!(after, Pending | Queued),
        (Some(state), Event::CancelRequested { .. }) => leased(state) && after == Cancelling,
        (Some(Pending), Event::Ended { .. }) => matches!(after, Cancelled | Timeout),
        (Some(Queued), Event::Ended { .. }) => matches!(after, Cancelled | Timeout | Failed),
        (Some(Assigned | Running | Cancelling), Event::Ended { .. }) => after.is_terminal(),
        (Some(Failed | Cancelled | Timeout), Event::RetryRequested) => matches!(after, Pending | Queued),
        (Some(Completed), _) => false,
        _ => false,
    }
}

struct Spooled {
    job_id: JobId,
    status: OutcomeStatus,
    failure: Option<Failure>,
}

/// A worker as small as it can be and still keep the protocol: attempts in memory, outcomes on disk.
struct SimWorker {
    id: WorkerId,
    boot: u64,
    up: bool,
    session: Option<SessionId>,
    slots: u32,
    labels: BTreeMap<Arc<str>, Arc<str>>,
    running: BTreeMap<LeaseId, JobId>,
    spool: BTreeMap<LeaseId, Spooled>,
}

struct World {
    random: Random,
    planted: Planted,
    config: Config,
    now: Time,
    scheduler: Scheduler,
    pending: Effects,
    oracle: Oracle,
    workers: Vec<SimWorker>,
    to_worker: BTreeMap<SessionId, VecDeque<ToWorker>>,
    to_coordinator: BTreeMap<SessionId, VecDeque<Input>>,
    sessions: u64,
    requests: u64,
    submitted: Vec<JobSpec>,
    acknowledged: BTreeSet<JobId>,
    deletes: BTreeMap<RequestId, JobId>,
    calm: bool,
}

fn job_id(number: usize) -> JobId {
    JobId::new(&format!("job-{number:06}")).unwrap()
}

fn failure(code: ErrorCode) -> Failure {
    Failure { code, message: "simulated".into() }
}

impl World {
    fn new(seed: u64, planted: Planted) -> Self {
        let mut random = Random(seed);
        let config = Config {
            queue_max: 40,
            pause: Duration::from_millis(500),
            concurrency_limits: [("two".into(), 2)].into(),
            weights: [(Namespace::new("b").unwrap(), 3)].into(),
            progress_burst: 2,
            // Some seeds forget jobs that are over, and must ask the store.
            ended_jobs_max: if random.percent(30) { 3 } else { 100_000 },
            ..Config::default()
        };
        let workers = (0..3)
            .map(|number| SimWorker {
                id: WorkerId::new(&format!("w{number}")).unwrap(),
                boot: 0,
                up: true,
                session: None,
                slots: 1 + number,
                labels: [("rack".into(), format!("r{number}").into())].into(),
                running: BTreeMap::new(),
                spool: BTreeMap::new(),
            })
            .collect();
        Self {
            random,
            planted,
            scheduler: Scheduler::new(config.clone()),
            config,
            now: Time(1_000_000),
            pending: Effects::default(),
            oracle: Oracle::default(),
            workers,
            to_worker: BTreeMap::new(),
            to_coordinator: BTreeMap::new(),
            sessions: 0,
            requests: 0,
            submitted: Vec::new(),
            acknowledged: BTreeSet::new(),
            deletes: BTreeMap::new(),
            calm: false,
        }
    }

    fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    fn handle(&mut self, input: Input) -> Result<(), String> {
        for want in self.scheduler.wants(&input) {
            // The store knows what is durable and what waits for the commit; jobs that are over are durable or in memory.
            let found = self.oracle.ledger.jobs().find(|entry| match &want {
                Want::Job(id) => entry.spec.job_id == *id,
                Want::Key(namespace, key) => {
                    entry.spec.namespace == *namespace && entry.spec.idempotency_key.as_ref() == Some(key)
                }
            });
            if let Some(entry) = found.cloned() {
                self.scheduler.handle(self.now, Input::Recall { entry: Box::new(entry) }, &mut self.pending);
            }
        }
        if let Input::Connect { profile, .. } = &input {
            for root in &profile.image_roots {
                self.oracle.roots.entry(root.clone()).or_insert(self.now);
            }
        }
        self.scheduler.handle(self.now, input, &mut self.pending);
        if self.planted == Planted::ReleaseBeforeCommit {
            self.acknowledge_early();
        }
        match self.scheduler.check() {
            broken if broken.is_empty() => Ok(()),
            broken => Err(broken.join("; ")),
        }
    }

    fn acknowledge_early(&mut self) {
        let submissions = self.pending.records().iter().filter_map(|record| match &record.change {
            Change::Job { job_id, event: Event::Submitted { .. }, .. } => Some(job_id.clone()),
            _ => None,
        });
        self.acknowledged.extend(submissions);
    }

    fn commit(&mut self) -> Result<(), String> {
        let effects = std::mem::take(&mut self.pending);
        let durable = effects.revision().unwrap_or(self.oracle.ledger.revision);
        for record in effects.records() {
            let forget = self.planted == Planted::ForgetfulStore && self.random.percent(2);
            if record.revision != Revision(self.oracle.ledger.revision.0 + 1) && self.planted != Planted::ForgetfulStore
            {
                return Err(format!("revision {} follows {}", record.revision.0, self.oracle.ledger.revision.0));
            }
            if !forget {
                self.oracle.take(record)?;
            }
        }
        let released = effects.release(durable).map_err(|error| error.to_string())?;
        for (request, reply) in released.replies {
            match reply {
                Reply::Submitted { job_id, .. } => {
                    self.acknowledged.insert(job_id);
                }
                Reply::Deleted => {
                    let deleted = self.deletes.remove(&request).expect("asked for");
                    self.acknowledged.remove(&deleted);
                }
                Reply::Refused(_) => {
                    self.oracle.seen.insert("Refused".into());
                }
                _ => {}
            }
        }
        for (session, message) in released.sends {
            self.oracle.seen.extend(place_of_send(&message));
            // What is sent to a session that is gone is gone.
            if let Some(outbox) = self.to_worker.get_mut(&session) {
                outbox.push_back(message);
            }
        }
        self.compare()
    }

    /// Replay equals live.
    fn compare(&self) -> Result<(), String> {
        for job in &self.acknowledged {
            if self.oracle.ledger.job(job).is_none() {
                return Err(format!("{job} was acknowledged and is lost"));
            }
        }
        let (live, stored) = (self.scheduler.ledger(), &self.oracle.ledger);
        let same = if live.partial {
            let unfinished = |ledger: &Ledger| -> Vec<_> {
                ledger.jobs().filter(|entry| !entry.row.phase.state().is_terminal()).cloned().collect()
            };
            unfinished(live) == unfinished(stored) && live.totals == stored.totals && live.revision == stored.revision
        } else {
            live == stored
        };
        if same { Ok(()) } else { Err("what was replayed is not what lives".into()) }
    }

    /// The coordinator dies, with everything it had not committed, and starts again from its store.
    fn crash(&mut self) -> Result<(), String> {
        self.pending = Effects::default();
        self.to_worker.clear();
        self.to_coordinator.clear();
        self.deletes.clear();
        for worker in &mut self.workers {
            worker.session = None;
        }
        self.oracle.roots.clear();
        self.oracle.began = (self.oracle.ledger.revision > Revision(0)).then_some(self.now);
        self.scheduler = Scheduler::restore(self.config.clone(), self.oracle.ledger.clone(), self.now);
        match self.scheduler.check() {
            broken if broken.is_empty() => self.compare(),
            broken => Err(format!("after a restart: {}", broken.join("; "))),
        }
    }

    fn advance(&mut self, milliseconds: u64) -> Result<(), String> {
        self.now = Time(self.now.0 + milliseconds);
        self.wake()
    }

    fn wake(&mut self) -> Result<(), String> {
        while self.scheduler.next_deadline().is_some_and(|at| at <= self.now) {
            self.handle(Input::Wake)?;
        }
        Ok(())
    }

    fn spec(&mut self) -> JobSpec {
        let number = self.submitted.len();
        let random = &mut self.random;
        let mut placement = Placement { operation: "system.echo".into(), ..Placement::default() };
        match random.below(8) {
            0 => placement.worker = Some(WorkerId::new(&format!("w{}", random.below(3))).unwrap()),
            1 => placement.anti_affinity = [("rack".into(), ["r0".into()].into())].into(),
            2 => placement.pools = ["default".into(), "other".into()].into(),
            3 => {
                let folders = ["/vms/a", "/r0/a", "/r1/a", "/r2/a/b", "/nowhere/a", "/r0/../nowhere"];
                placement.image_folder = folders.get(number % folders.len()).map(|folder| (*folder).into());
            }
            4 if number.is_multiple_of(3) => {
                placement.worker = Some(WorkerId::new("w0").unwrap());
                placement.image_folder = Some(if number.is_multiple_of(2) { "/r0/a" } else { "/r1/a" }.into());
            }
            _ => {}
        }
        JobSpec {
            job_id: job_id(number),
            namespace: Namespace::new(random.pick(&["a", "b", "c"]).unwrap()).unwrap(),
            idempotency_key: random.percent(20).then(|| format!("key-{}", random.below(20)).into()),
            idempotency_policy: *random
                .pick(&[
                    IdempotencyPolicy::SameDocument,
                    IdempotencyPolicy::UseExisting,
                    IdempotencyPolicy::Fail,
                    IdempotencyPolicy::ReplaceQueued,
                ])
                .unwrap(),
            idempotency_ttl: random.percent(30).then(|| Duration::from_secs(random.below(100))),
            fingerprint: [random.below(2) as u8; 32],
            placement: Arc::new(placement),
            affinity: if random.percent(20) { [("rack".into(), "r1".into())].into() } else { BTreeMap::new() },
            priority: Priority::new(1 + random.below(10) as i64).unwrap(),
            max_attempts: 1 + random.below(3) as u32,
            timeout: Duration::from_secs(20 + random.below(600)),
            queue_timeout: random.percent(10).then(|| Duration::from_secs(1 + random.below(200))),
            deadline: random.percent(10).then(|| self.now.plus(Duration::from_secs(random.below(400)))),
            not_before: random.percent(10).then(|| self.now.plus(Duration::from_secs(random.below(60)))),
            backoff: Backoff::default(),
            cancellable: !random.percent(10),
            concurrency_key: random.percent(25).then(|| (*random.pick(&["one", "two"]).unwrap()).into()),
            created_at: self.now,
        }
    }

    fn submit(&mut self) -> Result<(), String> {
        let spec = if self.random.percent(10) && !self.submitted.is_empty() {
            self.random.pick(&self.submitted).unwrap().clone()
        } else {
            let spec = self.spec();
            self.submitted.push(spec.clone());
            spec
        };
        let request = self.request();
        self.handle(Input::Submit { request, spec: Box::new(spec), document: Arc::from(*b"{}") })
    }

    fn some_job(&mut self) -> Option<JobId> {
        self.random.pick(&self.submitted).map(|spec| spec.job_id.clone())
    }

    fn say(&mut self, worker: usize, make: impl FnOnce(SessionId) -> Input) {
        let Some(session) = self.workers[worker].session else { return };
        let input = make(session);
        self.to_coordinator.entry(session).or_default().push_back(input);
    }

    fn connect(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        if !worker.up || worker.session.is_some() {
            return;
        }
        self.sessions += 1;
        let session = SessionId(self.sessions);
        worker.session = Some(session);
        let running = worker.running.iter().map(|(lease, job)| (*lease, job.clone(), false));
        let spooled = worker.spool.iter().map(|(lease, spooled)| (*lease, spooled.job_id.clone(), true));
        let held = running.chain(spooled).map(|(lease, job_id, finished)| Held { lease, job_id, finished }).collect();
        let profile = WorkerProfile {
            worker_id: worker.id.clone(),
            boot_id: BootId::new(&format!("boot-{}", worker.boot)).unwrap(),
            capabilities: ["system.echo".into()].into(),
            features: BTreeSet::new(),
            version: semver::Version::new(1, 0, 0),
            pool: "default".into(),
            labels: worker.labels.clone(),
            slots: worker.slots,
            privileged: false,
            image_roots: vec!["/vms".into(), format!("/r{number}").into()],
        };
        self.to_worker.insert(session, VecDeque::new());
        self.say(number, |session| Input::Connect { session, profile: Box::new(profile), held });
    }

    /// The worker's end of the link is gone; the coordinator may notice or not.
    fn cut(&mut self, number: usize) {
        let Some(session) = self.workers[number].session else { return };
        if self.random.percent(70) {
            self.say(number, |session| Input::Disconnect { session });
        }
        if self.random.percent(50) {
            self.to_coordinator.remove(&session);
        }
        self.to_worker.remove(&session);
        self.workers[number].session = None;
        // A worker that forgets what it does.
        if self.random.percent(10) {
            self.workers[number].running.pop_first();
        }
    }

    fn finish(&mut self, number: usize, status: Option<OutcomeStatus>) {
        let leases: Vec<LeaseId> = self.workers[number].running.keys().copied().collect();
        let Some(&lease) = self.random.pick(&leases) else { return };
        let roll = if self.calm { 99 } else { self.random.below(100) };
        let (status, failure) = match status {
            Some(status) => (status, None),
            None if roll < 12 => (OutcomeStatus::Failed, Some(failure(ErrorCode::Internal))),
            None if roll < 20 => (OutcomeStatus::Failed, Some(failure(ErrorCode::ImageCorrupt))),
            None if roll < 24 => (OutcomeStatus::Timeout, None),
            None if roll < 27 => (OutcomeStatus::Cancelled, None),
            None => (OutcomeStatus::Completed, None),
        };
        self.spool(number, lease, status, failure);
    }

    fn spool(&mut self, number: usize, lease: LeaseId, status: OutcomeStatus, failure: Option<Failure>) {
        let Some(job_id) = self.workers[number].running.remove(&lease) else { return };
        self.workers[number].spool.insert(lease, Spooled { job_id, status, failure });
        self.deliver(number, lease);
    }

    fn deliver(&mut self, number: usize, lease: LeaseId) {
        let Some(spooled) = self.workers[number].spool.get(&lease) else { return };
        let (job_id, status, failure) = (spooled.job_id.clone(), spooled.status, spooled.failure.clone());
        let result: Arc<[u8]> = Arc::from(lease.0.to_le_bytes());
        self.say(number, |session| Input::Outcome { session, lease, job_id, status, failure, result });
    }

    /// `false` when there was nothing to hear.
    fn worker_hears(&mut self, number: usize) -> bool {
        let Some(session) = self.workers[number].session else { return false };
        let Some(message) = self.to_worker.get_mut(&session).and_then(VecDeque::pop_front) else { return false };
        match message {
            ToWorker::Welcome { held, .. } => {
                for (lease, decision) in held {
                    match decision {
                        HeldDecision::Keep => {}
                        HeldDecision::Deliver => self.deliver(number, lease),
                        HeldDecision::Stop => self.drop_lease(number, lease),
                    }
                }
            }
            ToWorker::Lease { lease, job_id, .. } => self.offered(number, lease, job_id),
            ToWorker::Cancel { lease, outcome_wanted: false, .. } => self.drop_lease(number, lease),
            ToWorker::Cancel { lease, .. } => {
                if self.calm || self.random.percent(80) {
                    self.spool(number, lease, OutcomeStatus::Cancelled, None);
                }
            }
            ToWorker::OutcomeAck { lease, .. } => {
                self.workers[number].spool.remove(&lease);
            }
            ToWorker::Goodbye { .. } => self.workers[number].session = None,
            ToWorker::HeartbeatAck { .. } | ToWorker::Drain { .. } => {}
        }
        true
    }

    fn drop_lease(&mut self, number: usize, lease: LeaseId) {
        self.workers[number].running.remove(&lease);
        self.workers[number].spool.remove(&lease);
    }

    fn offered(&mut self, number: usize, lease: LeaseId, job_id: JobId) {
        let worker = &mut self.workers[number];
        if worker.running.contains_key(&lease) || worker.spool.contains_key(&lease) {
            return;
        }
        let refuse = |fault, code| move |session| Input::Refuse { session, lease, fault, failure: failure(code) };
        let roll = if self.calm { 99 } else { self.random.below(100) };
        match roll {
            _ if worker.running.len() >= worker.slots as usize => {
                self.say(number, refuse(RefusalFault::Busy, ErrorCode::Internal));
            }
            0..3 => {}
            3..6 => self.say(number, refuse(RefusalFault::Job, ErrorCode::ValidationError)),
            6..9 => self.say(number, refuse(RefusalFault::Worker, ErrorCode::ImageAccessDenied)),
            9..11 => self.say(number, refuse(RefusalFault::Busy, ErrorCode::Internal)),
            _ => {
                worker.running.insert(lease, job_id);
                self.say(number, |session| Input::Accept { session, lease });
            }
        }
    }

    fn coordinator_hears(&mut self) -> Result<(), String> {
        let sessions: Vec<SessionId> =
            self.to_coordinator.iter().filter(|(_, queue)| !queue.is_empty()).map(|(session, _)| *session).collect();
        let Some(session) = self.random.pick(&sessions).copied() else { return Ok(()) };
        let queue = self.to_coordinator.get_mut(&session).unwrap();
        let mut input = queue.pop_front().unwrap();
        let opening = matches!(input, Input::Connect { .. });
        if !self.calm && !opening {
            if self.random.percent(3) {
                queue.push_back(input.clone());
            } else if self.random.percent(3) {
                // Later than what was said after it.
                queue.push_back(input);
                return Ok(());
            }
        }
        if self.planted == Planted::NoFencing
            && let Input::Outcome { lease, job_id, .. } = &mut input
            && let Some(current) = self.scheduler.job(job_id).and_then(|entry| entry.row.phase.lease())
        {
            *lease = current.id;
        }
        self.handle(input)
    }

    fn step(&mut self) -> Result<(), String> {
        let number = self.random.below(self.workers.len() as u64) as usize;
        match self.random.below(200) {
            0..16 => self.submit(),
            16..20 => {
                let (Some(job_id), request) = (self.some_job(), self.request()) else { return Ok(()) };
                self.handle(Input::Cancel { request, job_id, reason: "simulated".into() })
            }
            20..22 => {
                let (Some(job_id), request) = (self.some_job(), self.request()) else { return Ok(()) };
                self.handle(Input::Retry { request, job_id })
            }
            22..23 => {
                let (Some(job_id), request) = (self.some_job(), self.request()) else { return Ok(()) };
                self.deletes.insert(request, job_id.clone());
                self.handle(Input::Delete { request, job_id })
            }
            23..70 => self.coordinator_hears(),
            70..110 => {
                self.worker_hears(number);
                Ok(())
            }
            110..126 => {
                self.finish(number, None);
                Ok(())
            }
            126..134 => {
                let leases: Vec<LeaseId> = self.workers[number].running.keys().copied().collect();
                let percent = self.random.below(120) as f64 - 10.0;
                if let Some(&lease) = self.random.pick(&leases) {
                    let progress = Progress { percent, body: Arc::from(*b"") };
                    self.say(number, |session| Input::Progress { session, lease, progress });
                }
                Ok(())
            }
            134..144 => {
                self.connect(number);
                Ok(())
            }
            144..147 => {
                self.cut(number);
                Ok(())
            }
            147..148 => {
                self.cut(number);
                let worker = &mut self.workers[number];
                worker.running.clear();
                worker.up = false;
                Ok(())
            }
            148..152 => {
                let worker = &mut self.workers[number];
                worker.boot += u64::from(!worker.up);
                worker.up = true;
                Ok(())
            }
            152..162 => {
                self.say(number, |session| Input::Heartbeat { session, sequence: 1 });
                Ok(())
            }
            162..172 => {
                let milliseconds = self.random.below(2_000);
                self.advance(milliseconds)
            }
            172..173 => {
                let milliseconds = self.random.below(120_000);
                self.advance(milliseconds)
            }
            173..196 => self.commit(),
            196..197 => self.crash(),
            197..198 => {
                let (request, target) = (self.request(), self.target(number));
                let deadline = self.random.percent(50).then(|| Duration::from_secs(self.random.below(60)));
                self.handle(Input::Drain { request, target, deadline })
            }
            198..199 => {
                let (request, target) = (self.request(), self.target(number));
                self.handle(Input::Resume { request, target })
            }
            _ => {
                self.say(number, |session| Input::Draining { session });
                Ok(())
            }
        }
    }

    fn target(&mut self, number: usize) -> DrainTarget {
        if self.random.percent(50) {
            DrainTarget::Worker(self.workers[number].id.clone())
        } else {
            DrainTarget::Labels(self.workers[number].labels.clone())
        }
    }

    /// Nothing breaks any more: every job must end, and by itself.
    fn heal(&mut self) -> Result<(), String> {
        self.calm = true;
        self.commit()?;
        let drains: Vec<DrainTarget> = self.scheduler.ledger().drains.keys().cloned().collect();
        for target in drains {
            let request = self.request();
            self.handle(Input::Resume { request, target })?;
        }
        for number in 0..self.workers.len() {
            self.cut(number);
            // A new process, so that workers that declined are asked again and those that were leaving stay.
            self.workers[number].boot += 1;
            self.workers[number].up = true;
            self.workers[number].running.clear();
            self.connect(number);
        }
        for _ in 0..3_000 {
            self.commit()?;
            if self.scheduler.ledger().jobs().all(|entry| entry.row.phase.state().is_terminal()) {
                return self.account();
            }
            for number in 0..self.workers.len() {
                self.connect(number);
                while self.worker_hears(number) {}
                self.finish(number, None);
                self.say(number, |session| Input::Heartbeat { session, sequence: 1 });
            }
            while self.to_coordinator.values().any(|queue| !queue.is_empty()) {
                self.coordinator_hears()?;
            }
            self.commit()?;
            self.advance(700)?;
        }
        let open: Vec<_> =
            self.scheduler.ledger().jobs().filter(|entry| !entry.row.phase.state().is_terminal()).collect();
        Err(format!(
            "{} jobs never end, such as {:?}: {:?}",
            open.len(),
            open[0],
            self.scheduler.explain(&open[0].spec.job_id)
        ))
    }

    fn account(&self) -> Result<(), String> {
        let summary = self.scheduler.summary();
        if summary.queued + summary.pending + summary.assigned + summary.running + summary.cancelling != 0 {
            return Err(format!("all is over and counted otherwise: {summary:?}"));
        }
        for job in &self.acknowledged {
            if !self.oracle.state.get(job).is_some_and(|state| state.is_terminal()) {
                return Err(format!("{job} was acknowledged and never ended"));
            }
        }
        self.compare()
    }
}

fn run(seed: u64, steps: u64, planted: Planted) -> Result<BTreeSet<String>, String> {
    let mut world = World::new(seed, planted);
    for step in 0..steps {
        world.step().map_err(|error| format!("seed {seed}, step {step}: {error}"))?;
    }
    world.heal().map_err(|error| format!("seed {seed}, at the end: {error}"))?;
    Ok(world.oracle.seen)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn every_job_ends_exactly_once() {
    let steps = number("GUESTKIT_SIMULATION_STEPS", 300);
    let seeds = match std::env::var("GUESTKIT_SIMULATION_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..number("GUESTKIT_SIMULATION_SEEDS", 200)).collect(),
    };
    let mut seen = BTreeSet::new();
    let mut failures = Vec::new();
    for seed in &seeds {
        match run(*seed, steps, Planted::Nothing) {
            Ok(places) => seen.extend(places),
            Err(failure) => failures.push(failure),
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} seeds fail; reproduce one with GUESTKIT_SIMULATION_SEED=… GUESTKIT_SIMULATION_STEPS={steps}; the first is\n{}",
        failures.len(),
        seeds.len(),
        failures[0]
    );
    let missed: Vec<_> = PLACES.iter().filter(|place| !seen.contains(**place)).collect();
    assert!(seeds.len() < 200 || steps < 300 || missed.is_empty(), "never came across {missed:?}");
}

/// 824: a job that ended was dropped from memory before the store had its end. 1042: a job deleted and asked for again in one
/// round came back from the store.
#[test]
fn seeds_that_failed_once() {
    for (seed, steps) in [(824, 1000), (1042, 1000)] {
        assert_eq!(run(seed, steps, Planted::Nothing).err(), None);
    }
}

/// The simulation is worth something only if it sees what it is there to see.
#[test]
fn planted_faults_are_seen() {
    for planted in [Planted::NoFencing, Planted::ReleaseBeforeCommit, Planted::ForgetfulStore] {
        let seen = (0..100).any(|seed| run(seed, 300, planted).is_err());
        assert!(seen, "{planted:?} goes unseen in 100 seeds");
    }
}
