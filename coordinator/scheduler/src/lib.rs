//! The machine that decides which worker runs which job. It never reads a clock, spawns, locks, or touches a file or a wire:
//! it depends on the domain crate alone, and its `clippy.toml` bans the rest by name.
//!
//! **Decide → record → apply.** [`Scheduler::handle`] looks at its state, writes [`Record`]s into [`Effects`], and each is
//! applied as it is written; [`Scheduler::apply`] is the only thing that changes what must survive. The driver's round:
//!
//! ```text
//! gather inputs ─► handle(now, input, &mut effects) each ─► handle(now, Wake, …) if next_deadline() ≤ now
//!              ─► store.commit(effects.records()) ─► effects.release(revision) ─► replies, sends, watchers
//! ```
//!
//! When a commit fails the records have been applied here and nowhere else: the driver drops the scheduler, and with it all
//! effects, and restores another from the store.
//!
//! Time is the coordinator's one clock. The driver anchors it at its start so that it is not before [`Ledger::newest`].

mod config;
mod effects;
mod explain;
mod fleet;
mod index;
mod input;
mod invariants;
mod job;
mod lease;
mod ledger;
mod on;
mod placement;
mod queue;
mod retry;
mod roots;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guestkit_domain::{JobId, LeaseId, Namespace, Revision, SessionId, Time, WorkerId};

pub use config::Config;
pub use effects::{
    Effects, GoodbyeReason, HeldDecision, NotDurable, Notice, OutcomeVerdict, Refusal, Released, Reply, ToWorker,
};
pub use explain::Explanation;
pub use fleet::{WorkerState, WorkerView};
pub use index::Summary;
pub use input::{Body, DrainTarget, Held, Input, RequestId};
pub use ledger::{Change, Ended, Event, JobEntry, JobRow, Lease, Ledger, Loss, Phase, Record, Return, Sharing, Totals};

use fleet::Worker;
use index::{Counts, LastMinute};
use on::{Hello, Report, Throttle};
use queue::Queue;
use roots::ImageRoots;

/// A job the scheduler needs before it can handle an input: the driver looks it up and hands it in with [`Input::Recall`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// By its name.
    Job(JobId),
    /// By its idempotency key.
    Key(Namespace, Arc<str>),
}

/// The machine. Of its fields only the ledger survives; everything else is derived from it, or from sessions that open again.
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
    ledger: Ledger,
    /// The latest time handed in; never runs backwards.
    now: Time,
    /// Everything up to here is durable: what is newer may not be dropped from memory.
    durable: Revision,
    /// Jobs deleted since: the store may still have them, and must not bring them back.
    deleted: BTreeSet<JobId>,
    /// Leases up to this one were minted by a coordinator before this one.
    inherited: LeaseId,
    /// Until when those may be claimed.
    grace_until: Time,
    queue: Queue,
    roots: ImageRoots,
    leases: BTreeMap<LeaseId, Revision>,
    job_due: BTreeSet<(Time, Revision)>,
    ended: BTreeSet<(Time, Revision)>,
    counts: Counts,
    last_minute: LastMinute,
    workers: BTreeMap<WorkerId, Worker>,
    sessions: BTreeMap<SessionId, WorkerId>,
    worker_due: BTreeSet<(Time, WorkerId)>,
    slots_connected: u64,
    slots_in_use: u64,
    drain_due: BTreeSet<(Time, DrainTarget)>,
    throttles: BTreeMap<LeaseId, Throttle>,
    progress_due: BTreeSet<(Time, LeaseId)>,
}

impl Scheduler {
    /// A machine with an empty ledger.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::restore(config, Ledger::default(), Time(0))
    }

    /// A machine that goes on where another ended: leases stand, and get `restart_grace` from `now` to be claimed.
    #[must_use]
    pub fn restore(config: Config, ledger: Ledger, now: Time) -> Self {
        let now = now.max(ledger.newest);
        let grace_until = now.plus(config.restart_grace);
        // A store that is new knows of no worker that could come back.
        let fresh = ledger.revision == Revision::default();
        let mut scheduler = Self {
            now,
            durable: ledger.revision,
            deleted: BTreeSet::new(),
            inherited: ledger.last_lease,
            grace_until,
            queue: Queue::new(&config),
            roots: ImageRoots::new(config.image_root_patience, if fresh { now } else { grace_until }),
            leases: BTreeMap::new(),
            job_due: BTreeSet::new(),
            ended: BTreeSet::new(),
            counts: Counts::default(),
            last_minute: LastMinute::default(),
            workers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            worker_due: BTreeSet::new(),
            slots_connected: 0,
            slots_in_use: 0,
            drain_due: BTreeSet::new(),
            throttles: BTreeMap::new(),
            progress_due: BTreeSet::new(),
            config,
            ledger,
        };
        scheduler.index_all();
        scheduler
    }

    /// Decides what follows from `input`. Cannot fail: what makes no sense is answered or dropped.
    ///
    /// Effects without records begin a new round: by handing them in, the driver says that all records before are durable.
    pub fn handle(&mut self, now: Time, input: Input, fx: &mut Effects) {
        self.now = self.now.max(now);
        if fx.records.is_empty() {
            self.durable = self.ledger.revision;
            self.deleted.clear();
        }
        match input {
            Input::Submit { request, spec, document } => self.on_submit(request, *spec, document, fx),
            Input::Cancel { request, job_id, reason } => self.on_cancel(request, job_id, reason, fx),
            Input::Retry { request, job_id } => self.on_retry(request, job_id, fx),
            Input::Delete { request, job_id } => self.on_delete(request, job_id, fx),
            Input::Expire { request, jobs, before } => self.on_expire(request, jobs, before, fx),
            Input::Recall { entry } => self.on_recall(*entry),
            Input::Connect { session, profile, held } => {
                self.on_connect(Hello { session, profile: *profile, held }, fx);
            }
            Input::Disconnect { session } => self.on_disconnect(session, fx),
            Input::Heartbeat { session, sequence } => self.on_heartbeat(session, sequence, fx),
            Input::Accept { session, lease } => self.on_accept(session, lease, fx),
            Input::Refuse { session, lease, fault, failure } => self.on_refuse(session, lease, fault, failure, fx),
            Input::Progress { session, lease, progress } => self.on_progress(session, lease, progress, fx),
            Input::Outcome { session, lease, job_id, status, failure, result } => {
                self.on_outcome(session, Report { lease, job_id, status, failure, result }, fx);
            }
            Input::Draining { session } => self.on_draining(session, fx),
            Input::Drain { request, target, deadline } => self.on_drain(request, target, deadline, fx),
            Input::Resume { request, target } => self.on_resume(request, target, fx),
            Input::Wake => self.on_wake(fx),
        }
        self.place(fx);
    }

    /// When to call again with [`Input::Wake`], if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let jobs = self.job_due.first().map(|(at, _)| *at);
        let workers = self.worker_due.first().map(|(at, _)| *at);
        let drains = self.drain_due.first().map(|(at, _)| *at);
        let progress = self.progress_due.first().map(|(at, _)| *at);
        [jobs, workers, drains, progress, self.roots.next_due()].into_iter().flatten().min()
    }

    /// Jobs to be looked up in the store and handed in with [`Input::Recall`] just before `input`; those the store does not
    /// have either are simply not there. Empty while everything is in memory.
    #[must_use]
    pub fn wants(&self, input: &Input) -> Vec<Want> {
        if !self.ledger.partial {
            return Vec::new();
        }
        let unknown = |job_id: &JobId| self.ledger.job(job_id).is_none().then(|| Want::Job(job_id.clone()));
        match input {
            Input::Submit { spec, .. } => {
                let key =
                    spec.idempotency_key.as_ref().filter(|key| self.ledger.by_key(&spec.namespace, key).is_none());
                let key = key.map(|key| Want::Key(spec.namespace.clone(), key.clone()));
                unknown(&spec.job_id).into_iter().chain(key).collect()
            }
            Input::Cancel { job_id, .. }
            | Input::Retry { job_id, .. }
            | Input::Delete { job_id, .. }
            | Input::Outcome { job_id, .. } => unknown(job_id).into_iter().collect(),
            Input::Expire { jobs, .. } => jobs.iter().filter_map(unknown).collect(),
            Input::Connect { held, .. } => {
                held.iter().filter(|item| item.finished).filter_map(|item| unknown(&item.job_id)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What must survive, as it is now.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// A job that is not over, or ended lately.
    #[must_use]
    pub fn job(&self, job_id: &JobId) -> Option<&JobEntry> {
        self.ledger.job(job_id)
    }
}
