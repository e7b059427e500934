use std::collections::BTreeSet;

use guestkit_domain::{LeaseId, SessionId, WorkerId, WorkerProfile};

use crate::Scheduler;
use crate::effects::{Effects, GoodbyeReason, HeldDecision, ToWorker};
use crate::input::Held;
use crate::ledger::{Loss, Phase};

/// A worker's first words.
pub(crate) struct Hello {
    pub(crate) session: SessionId,
    pub(crate) profile: WorkerProfile,
    pub(crate) held: Vec<Held>,
}

impl Scheduler {
    /// Takes a worker's new session; the newest wins. What the worker lists is answered one by one, and what it should hold
    /// and does not list is lost.
    pub(crate) fn on_connect(&mut self, hello: Hello, fx: &mut Effects) {
        let Hello { session, profile, held } = hello;
        let id = profile.worker_id.clone();
        if !self.workers.contains_key(&id) && !self.room_for_worker() {
            return fx.sends.push((session, ToWorker::Goodbye { reason: GoodbyeReason::TooManyWorkers }));
        }
        if self.has_newer(&profile) {
            return fx.sends.push((session, ToWorker::Goodbye { reason: GoodbyeReason::Superseded }));
        }
        if let Some(old) = self.close_session(&id) {
            fx.sends.push((old, ToWorker::Goodbye { reason: GoodbyeReason::Superseded }));
        }
        let boot = profile.boot_id.clone();
        let overdue = self.overdue_drain(&id, &profile);
        self.open_session(&id, session, profile);
        let heartbeat_interval = self.heartbeat_interval();
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.heartbeat = heartbeat_interval;
        }

        let decisions: Vec<(LeaseId, HeldDecision)> =
            held.iter().map(|item| (item.lease, self.decide(&id, &boot, overdue, item))).collect();
        let welcome = ToWorker::Welcome {
            heartbeat_interval,
            first_heartbeat: Self::first_heartbeat(session, heartbeat_interval),
            lease_ttl: self.config.lease_ttl,
            accept_timeout: self.config.accept_timeout,
            held: decisions.clone(),
        };
        fx.sends.push((session, welcome));
        let claimed: BTreeSet<LeaseId> =
            decisions.iter().filter(|(_, decision)| *decision != HeldDecision::Stop).map(|(lease, _)| *lease).collect();
        self.settle(&id, &claimed, overdue, fx);
        self.worker_changed(&id, fx);
    }

    /// Keep, stop or deliver. An outcome in the spool counts whichever process of the worker made it; a running attempt only
    /// if the process is the one that took it.
    fn decide(&self, id: &WorkerId, boot: &guestkit_domain::BootId, overdue: bool, item: &Held) -> HeldDecision {
        let current = self.current(item.lease, id).filter(|entry| entry.spec.job_id == item.job_id);
        match current {
            Some(_) if item.finished => HeldDecision::Deliver,
            Some(_) if overdue => HeldDecision::Stop,
            Some(entry) if entry.row.phase.lease().is_some_and(|lease| lease.boot == *boot) => HeldDecision::Keep,
            Some(_) => HeldDecision::Stop,
            // Delivered again, it is acknowledged again.
            None if item.finished && self.finished_by(&item.job_id, item.lease) => HeldDecision::Deliver,
            None => HeldDecision::Stop,
        }
    }

    /// Brings every lease of the worker in line with what it listed.
    fn settle(&mut self, id: &WorkerId, claimed: &BTreeSet<LeaseId>, overdue: bool, fx: &mut Effects) {
        for arrival in self.held_by(id) {
            let Some(entry) = self.ledger.at(arrival) else { continue };
            let Some(lease) = entry.row.phase.lease().cloned() else { continue };
            let claimed = claimed.contains(&lease.id);
            let same_process = self
                .workers
                .get(id)
                .and_then(|worker| worker.profile.as_ref())
                .is_some_and(|profile| profile.boot_id == lease.boot);
            match (&entry.row.phase, claimed) {
                // Its Accept was lost on the way.
                (Phase::Assigned { .. }, true) => self.accepted(arrival, fx),
                // The cancel may have been lost on the way.
                (Phase::Cancelling { .. }, true) => {
                    let reason = "cancel requested".into();
                    self.send(id, ToWorker::Cancel { lease: lease.id, reason, outcome_wanted: true }, fx);
                }
                (_, true) => {}
                (_, false) if overdue => self.attempt_drained(arrival, fx),
                (_, false) if same_process => self.attempt_lost(arrival, Loss::Dropped, fx),
                (_, false) => self.attempt_lost(arrival, Loss::Restarted, fx),
            }
        }
    }

    /// Whether a lease's outcome is the one that ended the job.
    pub(crate) fn finished_by(&self, job_id: &guestkit_domain::JobId, lease: LeaseId) -> bool {
        self.ledger
            .job(job_id)
            .is_some_and(|entry| matches!(&entry.row.phase, Phase::Ended(ended) if ended.outcome_of == Some(lease)))
    }

    /// Whether the worker's process has opened another stream since this one, whose Hello was faster. What this one's says is
    /// out of date, and nobody listens to it any more.
    fn has_newer(&self, profile: &WorkerProfile) -> bool {
        let known = self.workers.get(&profile.worker_id).and_then(|worker| worker.profile.as_ref());
        known.is_some_and(|known| {
            profile.stream > 0 && known.boot_id == profile.boot_id && known.stream > profile.stream
        })
    }

    /// Whether a drain that concerns the worker is past its deadline.
    fn overdue_drain(&self, id: &WorkerId, profile: &WorkerProfile) -> bool {
        self.ledger
            .drains
            .iter()
            .any(|(target, until)| until.is_some_and(|until| until <= self.now) && target.concerns(id, Some(profile)))
    }
}
