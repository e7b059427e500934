//! Workers and their sessions. Nothing here survives a restart: workers connect again and say what they hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use guestkit_domain::{Duration, JobId, LeaseId, Revision, SessionId, Time, WorkerId, WorkerProfile};

use crate::config::Config;
use crate::effects::{Effects, GoodbyeReason, Notice, ToWorker};
use crate::input::DrainTarget;
use crate::ledger::Loss;
use crate::placement::Kind;
use crate::{Scheduler, lease};

/// More slots than any machine runs attempts: a worker that claims more is believed this much.
const SLOTS_MAX: u32 = 1024;

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
    pub profile: Option<Arc<WorkerProfile>>,
    /// Jobs it holds, with their leases.
    pub jobs: Vec<(JobId, LeaseId)>,
    /// When it connected last.
    pub connected: Option<Time>,
    /// When it was heard last.
    pub heard: Option<Time>,
}

/// A worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) profile: Option<Arc<WorkerProfile>>,
    pub(crate) session: Option<SessionId>,
    pub(crate) connected: Option<Time>,
    /// Heard last; the coordinator's start for a worker that has not come back yet.
    pub(crate) heard: Time,
    /// Not lost before this: a worker of the coordinator before this one has the restart grace.
    pub(crate) grace: Time,
    /// Asked for no more work.
    pub(crate) leaving: bool,
    /// A drain concerns it.
    pub(crate) drained: bool,
    /// How often it was told to send a heartbeat.
    pub(crate) heartbeat: Duration,
    /// Given no new work until then.
    pub(crate) paused: Time,
    pub(crate) lost: bool,
    /// Leases it holds; from the ledger.
    pub(crate) held: BTreeMap<LeaseId, Revision>,
    /// The most slots it had while it held leases: what it holds is measured against that.
    pub(crate) slots_seen: u32,
    /// As it was told to watchers.
    pub(crate) told: WorkerState,
    /// Its entry among the deadlines.
    pub(crate) due: Option<Time>,
}

impl Worker {
    pub(crate) fn new(now: Time, grace: Time) -> Self {
        Self {
            profile: None,
            session: None,
            connected: None,
            heard: now,
            grace,
            leaving: false,
            drained: false,
            heartbeat: Duration::ZERO,
            paused: Time(0),
            lost: false,
            held: BTreeMap::new(),
            slots_seen: 0,
            told: WorkerState::Unreachable,
            due: None,
        }
    }

    pub(crate) fn slots(&self) -> u32 {
        self.profile.as_ref().map_or(0, |profile| profile.slots.min(SLOTS_MAX))
    }

    pub(crate) fn state(&self, now: Time, config: &Config) -> WorkerState {
        if self.lost {
            WorkerState::Lost
        } else if self.session.is_none() || now >= self.unreachable_at(config) {
            WorkerState::Unreachable
        } else if self.leaving || self.drained {
            WorkerState::Draining
        } else {
            WorkerState::Ready
        }
    }

    /// Leases it may be given now.
    pub(crate) fn free(&self, now: Time, config: &Config) -> u32 {
        if self.state(now, config) != WorkerState::Ready || now < self.paused {
            return 0;
        }
        self.slots().saturating_sub(u32::try_from(self.held.len()).unwrap_or(u32::MAX))
    }

    fn unreachable_at(&self, config: &Config) -> Time {
        self.heard.plus(self.heartbeat.max(config.heartbeat_interval).saturating_mul(config.heartbeats_missed_max))
    }

    pub(crate) fn lost_at(&self, config: &Config) -> Time {
        self.heard.plus(config.lease_ttl).max(self.grace)
    }

    /// When to look at it again.
    fn next_due(&self, now: Time, config: &Config) -> Option<Time> {
        if self.lost {
            return None;
        }
        let unreachable = self.unreachable_at(config);
        let connected = self.session.is_some() && now < unreachable;
        let clock = if connected { unreachable.min(self.lost_at(config)) } else { self.lost_at(config) };
        Some(if now < self.paused { clock.min(self.paused) } else { clock })
    }
}

impl DrainTarget {
    /// Whether the drain concerns this worker.
    #[must_use]
    pub fn concerns(&self, worker: &WorkerId, profile: Option<&WorkerProfile>) -> bool {
        match self {
            Self::Worker(id) => id == worker,
            Self::Labels(wanted) => profile.is_some_and(|profile| {
                wanted.iter().all(|(key, value)| profile.labels.get(key).is_some_and(|label| label == value))
            }),
        }
    }
}

impl Scheduler {
    /// The worker of a session, if the session is the worker's newest; a sign of life.
    pub(crate) fn touch(&mut self, session: SessionId, fx: &mut Effects) -> Option<WorkerId> {
        let id = self.sessions.get(&session)?.clone();
        self.workers.get_mut(&id)?.heard = self.now;
        self.worker_changed(&id, fx);
        Some(id)
    }

    /// Brings everything derived from a worker up to date: its credits, its deadline, the counts, its watchers.
    pub(crate) fn worker_changed(&mut self, id: &WorkerId, fx: &mut Effects) {
        self.refresh(id);
        let Some(worker) = self.workers.get_mut(id) else { return };
        let state = worker.state(self.now, &self.config);
        if state != worker.told {
            worker.told = state;
            fx.notices.push(Notice::WorkerChanged { worker_id: id.clone() });
        }
    }

    /// The part of [`Self::worker_changed`] that no watcher sees.
    pub(crate) fn refresh(&mut self, id: &WorkerId) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let free = worker.free(self.now, &self.config);
        match &worker.profile {
            Some(profile) if free > 0 => self.queue.offer(id, &profile.boot_id, free),
            _ => self.queue.withdraw(id),
        }
        let due = worker.next_due(self.now, &self.config);
        if due != worker.due {
            if let Some(at) = worker.due {
                self.worker_due.remove(&(at, id.clone()));
            }
            if let Some(at) = due {
                self.worker_due.insert((at, id.clone()));
            }
            worker.due = due;
        }
    }

    /// Gives a worker no new work for a moment, so that what it declined does not come back at once.
    pub(crate) fn pause(&mut self, id: &WorkerId, fx: &mut Effects) {
        let until = self.now.plus(self.config.pause);
        if let Some(worker) = self.workers.get_mut(id) {
            worker.paused = until;
        }
        self.worker_changed(id, fx);
    }

    /// A worker's deadline has come: its pause is over, or it has been silent.
    pub(crate) fn on_worker_due(&mut self, id: &WorkerId, fx: &mut Effects) {
        let Some(worker) = self.workers.get(id) else { return };
        if self.now >= worker.lost_at(&self.config) {
            self.lose_worker(id, fx);
        }
        self.worker_changed(id, fx);
    }

    /// Nothing was heard of the worker for the lease's whole time.
    fn lose_worker(&mut self, id: &WorkerId, fx: &mut Effects) {
        if let Some(session) = self.close_session(id) {
            fx.sends.push((session, ToWorker::Goodbye { reason: GoodbyeReason::Silent }));
        }
        for arrival in self.held_by(id) {
            self.attempt_lost(arrival, Loss::Silent, fx);
        }
        if let Some(worker) = self.workers.get_mut(id) {
            worker.lost = true;
        }
        self.queue.leave(id, self.now);
    }

    /// Takes a worker's session away.
    pub(crate) fn close_session(&mut self, id: &WorkerId) -> Option<SessionId> {
        let worker = self.workers.get_mut(id)?;
        let session = worker.session.take()?;
        self.sessions.remove(&session);
        self.roots.disconnect(id);
        self.slots_connected = self.slots_connected.saturating_sub(u64::from(worker.slots()));
        self.slots_in_use = self.slots_in_use.saturating_sub(worker.held.len() as u64);
        Some(session)
    }

    /// Gives a worker its new session.
    pub(crate) fn open_session(&mut self, id: &WorkerId, session: SessionId, profile: WorkerProfile) {
        let grace = Time(0);
        let drained = self.is_drained(id, &profile);
        let kind = Kind::of(&profile);
        self.roots.connect(id, &profile, self.now);
        let worker = self.workers.entry(id.clone()).or_insert_with(|| Worker::new(self.now, grace));
        let new_process = worker.profile.as_ref().is_none_or(|before| before.boot_id != profile.boot_id);
        if new_process {
            worker.leaving = false;
            worker.paused = Time(0);
        }
        worker.profile = Some(Arc::new(profile));
        worker.session = Some(session);
        worker.connected = Some(self.now);
        worker.heard = self.now;
        worker.grace = grace;
        worker.lost = false;
        worker.drained = drained;
        worker.slots_seen = worker.slots().max(u32::try_from(worker.held.len()).unwrap_or(u32::MAX));
        self.slots_connected += u64::from(worker.slots());
        self.slots_in_use += worker.held.len() as u64;
        self.sessions.insert(session, id.clone());
        self.queue.join(id, kind, self.now);
    }

    pub(crate) fn is_drained(&self, id: &WorkerId, profile: &WorkerProfile) -> bool {
        self.ledger.drains.keys().any(|target| target.concerns(id, Some(profile)))
    }

    /// Jobs a worker holds.
    pub(crate) fn held_by(&self, id: &WorkerId) -> Vec<Revision> {
        self.workers.get(id).map(|worker| worker.held.values().copied().collect()).unwrap_or_default()
    }

    /// Says something to a worker, if it is connected.
    pub(crate) fn send(&self, id: &WorkerId, message: ToWorker, fx: &mut Effects) {
        if let Some(session) = self.workers.get(id).and_then(|worker| worker.session) {
            fx.sends.push((session, message));
        }
    }

    /// Makes room for one more worker by forgetting one that is lost; `false` when there is none.
    pub(crate) fn room_for_worker(&mut self) -> bool {
        if self.workers.len() < self.config.workers_max {
            return true;
        }
        let lost = self.workers.iter().find(|(_, worker)| worker.lost && worker.held.is_empty());
        match lost.map(|(id, _)| id.clone()) {
            Some(id) => {
                self.roots.forget(&id, self.now);
                self.workers.remove(&id).is_some()
            }
            None => false,
        }
    }

    /// Returns to the queue what a worker holds after its drain's deadline.
    pub(crate) fn evict_leases(&mut self, id: &WorkerId, fx: &mut Effects) {
        for arrival in self.held_by(id) {
            self.attempt_drained(arrival, fx);
        }
        self.worker_changed(id, fx);
    }

    /// One worker.
    #[must_use]
    pub fn worker(&self, worker_id: &WorkerId) -> Option<WorkerView> {
        self.workers.get(worker_id).map(|worker| self.view(worker_id, worker))
    }

    /// Every worker known, by name.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerView> {
        self.workers.iter().map(|(id, worker)| self.view(id, worker)).collect()
    }

    fn view(&self, id: &WorkerId, worker: &Worker) -> WorkerView {
        let jobs = worker.held.iter().filter_map(|(lease, arrival)| {
            let entry = self.ledger.at(*arrival)?;
            Some((entry.spec.job_id.clone(), *lease))
        });
        WorkerView {
            worker_id: id.clone(),
            state: worker.state(self.now, &self.config),
            profile: worker.profile.clone(),
            jobs: jobs.collect(),
            connected: worker.connected,
            heard: worker.profile.as_ref().map(|_| worker.heard),
        }
    }

    /// Tells the holder of a void lease to stop, if it is connected.
    pub(crate) fn send_void(&self, worker: &WorkerId, lease: LeaseId, reason: &str, fx: &mut Effects) {
        self.send(worker, lease::void(lease, reason), fx);
    }
}
