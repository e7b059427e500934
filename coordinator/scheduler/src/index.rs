//! Keeping what is derived in line with the ledger: whatever a record changes is taken out of every index before, and put in
//! again after.

use std::collections::VecDeque;

use guestkit_domain::{JobId, JobState, Time};

use crate::Scheduler;
use crate::fleet::Worker;
use crate::ledger::{Change, Event, Phase, Record, Totals};

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
    pub workers: u64,
    /// Slots of the workers connected.
    pub slots: u64,
    /// Leases of the workers connected.
    pub slots_in_use: u64,
    /// Jobs ended in the last 60 seconds, by this coordinator.
    pub ended_last_minute: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) pending: u64,
    pub(crate) queued: u64,
    pub(crate) assigned: u64,
    pub(crate) running: u64,
    pub(crate) cancelling: u64,
}

impl Counts {
    pub(crate) fn unfinished(&self) -> u64 {
        self.pending + self.queued + self.assigned + self.running + self.cancelling
    }

    pub(crate) fn of(&mut self, state: JobState) -> Option<&mut u64> {
        match state {
            JobState::Pending => Some(&mut self.pending),
            JobState::Queued => Some(&mut self.queued),
            JobState::Assigned => Some(&mut self.assigned),
            JobState::Running => Some(&mut self.running),
            JobState::Cancelling => Some(&mut self.cancelling),
            JobState::Completed | JobState::Failed | JobState::Cancelled | JobState::Timeout => None,
        }
    }
}

/// Jobs ended in each of the last seconds.
#[derive(Debug, Default)]
pub(crate) struct LastMinute(VecDeque<(u64, u64)>);

impl LastMinute {
    fn count(&mut self, at: Time) {
        let second = at.0 / 1000;
        match self.0.back_mut() {
            Some((last, count)) if *last == second => *count += 1,
            _ => self.0.push_back((second, 1)),
        }
        while self.0.len() > 61 {
            self.0.pop_front();
        }
    }

    fn sum(&self, now: Time) -> u64 {
        let from = (now.0 / 1000).saturating_sub(59);
        self.0.iter().filter(|(second, _)| *second >= from).map(|(_, count)| count).sum()
    }
}

impl Scheduler {
    /// Takes a durable record in, as a standby does that follows another coordinator's store.
    pub fn apply(&mut self, record: &Record) {
        self.durable = self.durable.max(record.revision);
        self.take_in(record);
    }

    /// The only thing that changes what must survive.
    pub(crate) fn take_in(&mut self, record: &Record) {
        self.now = self.now.max(record.at);
        match &record.change {
            // An entry of the log and a number: nothing is indexed by either.
            Change::Job { event: Event::Progress { .. }, .. } => self.ledger.apply(record),
            Change::Job { job_id, event, .. } => {
                self.unindex(job_id);
                self.ledger.apply(record);
                self.index(job_id);
                if matches!(event, Event::Ended { .. }) {
                    self.last_minute.count(record.at);
                    self.forget_ended();
                }
            }
            Change::Deleted { job_id } => {
                self.unindex(job_id);
                self.ledger.apply(record);
            }
            Change::Drain { target, .. } | Change::Resume { target } => {
                let before = self.ledger.drains.get(target).copied().flatten();
                if let Some(at) = before {
                    self.drain_due.remove(&(at, target.clone()));
                }
                self.ledger.apply(record);
                self.index_drains();
            }
        }
    }

    pub(crate) fn index_all(&mut self) {
        let jobs: Vec<JobId> = self.ledger.jobs().map(|entry| entry.spec.job_id.clone()).collect();
        for job_id in &jobs {
            self.index(job_id);
        }
        self.index_drains();
        self.forget_ended();
    }

    /// Takes a job out of every index.
    fn unindex(&mut self, job_id: &JobId) {
        let Some(entry) = self.ledger.job(job_id) else { return };
        let arrival = entry.arrival;
        if let Some(count) = self.counts.of(entry.row.phase.state()) {
            *count -= 1;
        }
        if let Some(at) = self.job_due(entry) {
            self.job_due.remove(&(at, arrival));
        }
        match &entry.row.phase {
            Phase::Queued { since } => {
                self.queue.remove(entry, self.now);
                self.roots.remove(&entry.spec.placement, *since, arrival);
            }
            Phase::Ended(ended) => {
                self.ended.remove(&(ended.at, arrival));
            }
            Phase::Pending { .. } => {}
            Phase::Assigned { lease, .. } | Phase::Running { lease, .. } | Phase::Cancelling { lease, .. } => {
                let lease = lease.clone();
                if let Some(key) = &entry.spec.concurrency_key {
                    self.queue.key_given_back(key, self.now);
                }
                self.leases.remove(&lease.id);
                if let Some((due, _)) = self.throttles.remove(&lease.id).and_then(|throttle| throttle.waiting) {
                    self.progress_due.remove(&(due, lease.id));
                }
                if let Some(worker) = self.workers.get_mut(&lease.worker) {
                    worker.held.remove(&lease.id);
                    self.slots_in_use -= u64::from(worker.session.is_some());
                }
                self.refresh(&lease.worker);
            }
        }
    }

    /// Puts a job into every index it belongs to.
    pub(crate) fn index(&mut self, job_id: &JobId) {
        let Some(entry) = self.ledger.job(job_id) else { return };
        let arrival = entry.arrival;
        if let Some(count) = self.counts.of(entry.row.phase.state()) {
            *count += 1;
        }
        if let Some(at) = self.job_due(entry) {
            self.job_due.insert((at, arrival));
        }
        match &entry.row.phase {
            Phase::Queued { since } => {
                self.queue.insert(entry, self.now);
                self.roots.insert(&entry.spec.placement, *since, arrival, self.now);
            }
            Phase::Ended(ended) => {
                self.ended.insert((ended.at, arrival));
            }
            Phase::Pending { .. } => {}
            Phase::Assigned { lease, .. } | Phase::Running { lease, .. } | Phase::Cancelling { lease, .. } => {
                let lease = lease.clone();
                if let Some(key) = &entry.spec.concurrency_key {
                    self.queue.key_taken(key, self.now);
                }
                self.leases.insert(lease.id, arrival);
                let (now, grace) = (self.now, self.grace_until);
                let worker = self.workers.entry(lease.worker.clone()).or_insert_with(|| Worker::new(now, grace));
                worker.held.insert(lease.id, arrival);
                self.slots_in_use += u64::from(worker.session.is_some());
                self.refresh(&lease.worker);
            }
        }
    }

    fn index_drains(&mut self) {
        for (target, until) in &self.ledger.drains {
            if let Some(until) = until.filter(|until| *until >= self.now) {
                self.drain_due.insert((until, target.clone()));
            }
        }
        let ids: Vec<_> = self.workers.keys().cloned().collect();
        for id in ids {
            let profile = self.workers.get(&id).and_then(|worker| worker.profile.clone());
            let drained = profile.is_some_and(|profile| self.is_drained(&id, &profile));
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.drained = drained;
            }
            self.refresh(&id);
        }
    }

    /// Drops the oldest jobs that are over from memory, once the store has them.
    fn forget_ended(&mut self) {
        while self.ended.len() > self.config.ended_jobs_max {
            let Some(&(at, arrival)) = self.ended.first() else { return };
            let Some(entry) = self.ledger.at(arrival).filter(|entry| entry.row.revision <= self.durable) else {
                return;
            };
            let job_id = entry.spec.job_id.clone();
            self.ended.remove(&(at, arrival));
            self.ledger.remove(&job_id);
            self.ledger.partial = true;
        }
    }

    /// Counts; costs nothing.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            pending: self.counts.pending,
            queued: self.counts.queued,
            assigned: self.counts.assigned,
            running: self.counts.running,
            cancelling: self.counts.cancelling,
            totals: self.ledger.totals,
            workers: self.sessions.len() as u64,
            slots: self.slots_connected,
            slots_in_use: self.slots_in_use,
            ended_last_minute: self.last_minute.sum(self.now),
        }
    }
}
