//! Leases: offering attempts, and when each phase of a job runs out of time.

use guestkit_domain::{LeaseId, Revision, Time, WorkerId};

use crate::Scheduler;
use crate::effects::{Effects, ToWorker};
use crate::ledger::{Event, JobEntry, Lease, Phase};

/// The message that ends an attempt nobody wants an outcome of.
pub(crate) fn void(lease: LeaseId, reason: &str) -> ToWorker {
    ToWorker::Cancel { lease, reason: reason.into(), outcome_wanted: false }
}

impl Scheduler {
    /// When a job is to be looked at, if nothing happens to it before.
    pub(crate) fn job_due(&self, entry: &JobEntry) -> Option<Time> {
        let config = &self.config;
        // A lease of the coordinator before this one may be claimed, and its outcome delivered, within the grace.
        let graced = |lease: &Lease, at: Time| if lease.id <= self.inherited { at.max(self.grace_until) } else { at };
        let phase = match &entry.row.phase {
            Phase::Ended(_) => return None,
            Phase::Pending { until } => Some(*until),
            Phase::Queued { since } => {
                let given_up = entry.spec.queue_timeout.map(|most| since.plus(most));
                self.asked_again(entry).into_iter().chain(given_up).min()
            }
            Phase::Assigned { lease, .. } => Some(graced(lease, lease.offered.plus(config.accept_timeout))),
            Phase::Running { lease, started } => {
                let allowed = entry.spec.timeout.saturating_add(config.timeout_grace);
                Some(graced(lease, started.plus(allowed)))
            }
            // The cancel is what it ends with; the job's deadline changes nothing any more.
            Phase::Cancelling { lease, since, .. } => return Some(graced(lease, since.plus(config.cancel_timeout))),
        };
        phase.into_iter().chain(entry.spec.deadline).min()
    }

    /// Offers waiting jobs to free workers until one of the two runs out.
    pub(crate) fn place(&mut self, fx: &mut Effects) {
        while let Some(next) = self.queue.next(self.now) {
            let Some(entry) = self.ledger.at(next.arrival) else { return };
            let spec = entry.spec.clone();
            let Some(worker) = self.queue.worker_for(next, &spec) else { return };
            if !self.assign(next.arrival, &worker, fx) {
                return;
            }
            self.queue.served(&spec, &worker, self.now);
        }
    }

    fn assign(&mut self, arrival: Revision, worker: &WorkerId, fx: &mut Effects) -> bool {
        let Some(boot) = self.workers.get(worker).and_then(|worker| worker.profile.as_ref()).map(|p| p.boot_id.clone())
        else {
            return false;
        };
        let Some(id) = self.ledger.last_lease.0.checked_add(1).map(LeaseId) else { return false };
        let now = self.now;
        let lease = Lease { id, worker: worker.clone(), boot, offered: now };
        self.change(arrival, Event::Assigned, fx, |row| {
            row.attempt = row.attempt.saturating_add(1);
            row.percent = 0.0;
            let since = match row.phase {
                Phase::Queued { since } => since,
                _ => now,
            };
            row.phase = Phase::Assigned { lease, since };
        });
        if let Some(entry) = self.ledger.at(arrival) {
            let offer = ToWorker::Lease {
                lease: id,
                job_id: entry.spec.job_id.clone(),
                attempt: entry.row.attempt,
                timeout: entry.spec.timeout,
            };
            self.send(worker, offer, fx);
        }
        true
    }

    /// The job a lease is current for, whoever holds it.
    #[must_use]
    pub fn holder(&self, lease: LeaseId) -> Option<&JobEntry> {
        let entry = self.ledger.at(*self.leases.get(&lease)?)?;
        entry.row.phase.lease().filter(|held| held.id == lease)?;
        Some(entry)
    }

    /// The job a lease is current for, if this worker holds it.
    pub(crate) fn current(&self, lease: LeaseId, worker: &WorkerId) -> Option<&JobEntry> {
        let entry = self.holder(lease)?;
        entry.row.phase.lease().filter(|held| held.worker == *worker)?;
        Some(entry)
    }
}
