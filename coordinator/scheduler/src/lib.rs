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
mod input;
mod ledger;

pub use config::Config;
pub use effects::{
    Effects, GoodbyeReason, HeldDecision, NotDurable, Notice, OutcomeVerdict, Refusal, Released, Reply, ToWorker,
};
pub use input::{Body, DrainTarget, Held, Input, RequestId};
pub use ledger::{Change, Ended, Event, JobEntry, JobRow, Lease, Ledger, Loss, Phase, Record, Return, Totals};

use guestkit_domain::{JobId, Namespace, Time, WorkerId};
use std::sync::Arc;

/// A job the scheduler needs before it can handle an input: the driver looks it up and hands it in with [`Input::Recall`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// By its name.
    Job(JobId),
    /// By its idempotency key.
    Key(Namespace, Arc<str>),
}

/// The machine.
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
    ledger: Ledger,
    now: Time,
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
        Self { config, now: now.max(ledger.newest), ledger }
    }

    /// Decides what follows from `input`.
    pub fn handle(&mut self, now: Time, _input: Input, _fx: &mut Effects) {
        self.now = self.now.max(now);
    }

    /// Takes a record in; the only thing that changes what must survive.
    pub fn apply(&mut self, record: &Record) {
        self.ledger.apply(record);
    }

    /// When to call again with [`Input::Wake`], if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        None
    }

    /// Jobs to be looked up in the store and handed in with [`Input::Recall`] just before `input`; those the store does not
    /// have either are simply not there.
    #[must_use]
    pub fn wants(&self, _input: &Input) -> Vec<Want> {
        let _ = self.config.queue_max;
        Vec::new()
    }

    /// A job that is not over, or ended lately.
    #[must_use]
    pub fn job(&self, job_id: &JobId) -> Option<&JobEntry> {
        self.ledger.job(job_id)
    }

    /// One worker.
    #[must_use]
    pub fn worker(&self, _worker_id: &WorkerId) -> Option<WorkerView> {
        None
    }

    /// Every worker known, by name.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerView> {
        Vec::new()
    }

    /// Counts; costs nothing.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary { totals: self.ledger.totals, ..Summary::default() }
    }

    /// Why a job is where it is, from the data it is decided with.
    #[must_use]
    pub fn explain(&self, job_id: &JobId) -> Option<Explanation> {
        let entry = self.ledger.job(job_id)?;
        Some(Explanation {
            state: entry.row.phase.state(),
            reasons: Vec::new(),
            eligible_workers: 0,
            connected_workers: 0,
            jobs_ahead: 0,
        })
    }

    /// Every invariant that does not hold; empty when all is well. Costs a walk over everything: for tests.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// Connected and given work.
    Ready,
    /// Given no new work: its own wish or an operator's.
    Draining,
    /// Three heartbeats missed, or its stream broke: no new work; its leases stand until their time is out.
    Unreachable,
    /// Gone: its leases are void.
    Lost,
}

/// A worker as the scheduler knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerView {
    /// Its name.
    pub worker_id: WorkerId,
    /// What it is doing.
    pub state: WorkerState,
    /// What it said of itself; `None` before it connected to this coordinator.
    pub profile: Option<Arc<guestkit_domain::WorkerProfile>>,
    /// Jobs it holds, with their leases.
    pub jobs: Vec<(JobId, guestkit_domain::LeaseId)>,
    /// When it connected last.
    pub connected: Option<Time>,
    /// When it was heard last.
    pub heard: Option<Time>,
}

/// Counts, kept as they change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Jobs waiting for an instant.
    pub pending: u64,
    /// Jobs waiting for a worker.
    pub queued: u64,
    /// Jobs offered and not accepted yet.
    pub assigned: u64,
    /// Jobs running, without those being cancelled.
    pub running: u64,
    /// Jobs being cancelled.
    pub cancelling: u64,
    /// Jobs that ended since the store began.
    pub totals: Totals,
    /// Workers connected.
    pub workers: u32,
    /// Slots of the workers connected.
    pub slots: u32,
    /// Leases of the workers connected.
    pub slots_in_use: u32,
    /// Jobs ended in the last 60 seconds.
    pub ended_last_minute: u64,
}

/// Why a job is where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Its state.
    pub state: guestkit_domain::JobState,
    /// Reasons, the decisive one first; each one sentence.
    pub reasons: Vec<String>,
    /// Connected workers that could run it if they were free.
    pub eligible_workers: u32,
    /// Connected workers.
    pub connected_workers: u32,
    /// Jobs of its namespace and priority that go before it.
    pub jobs_ahead: u64,
}
