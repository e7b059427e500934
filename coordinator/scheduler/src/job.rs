//! What can happen to a job, one function per arrow of [`Phase`]'s picture. Each writes exactly one record.

use std::sync::Arc;

use guestkit_domain::{ErrorCode, Failure, JobId, JobState, LeaseId, RefusalFault, Revision, Time};

use crate::Scheduler;
use crate::effects::Effects;
use crate::input::Body;
use crate::ledger::{Change, Ended, Event, JobEntry, JobRow, Loss, Phase, Record, Return};
use crate::retry::{AfterFailure, after_failure, state_for};

/// A job that this many workers have declined by their own fault, one after the other, is not asked of another.
const DECLINED_MAX: usize = 64;

/// What a job's last attempt is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spent {
    Nothing,
    Failure,
    Loss,
}

/// What ends a job.
pub(crate) struct Ending {
    pub(crate) state: JobState,
    pub(crate) spent: Spent,
    pub(crate) failure: Option<Failure>,
    pub(crate) outcome_of: Option<LeaseId>,
    pub(crate) result: Option<Body>,
}

impl Ending {
    /// An end the coordinator decides by itself.
    pub(crate) fn by_coordinator(code: ErrorCode, message: impl Into<Arc<str>>) -> Self {
        let failure = Failure { code, message: message.into() };
        let spent = if code == ErrorCode::WorkerLost { Spent::Loss } else { Spent::Nothing };
        Self { state: state_for(code), spent, failure: Some(failure), outcome_of: None, result: None }
    }
}

impl Scheduler {
    /// Writes a record and applies it.
    pub(crate) fn record(&mut self, change: Change, fx: &mut Effects) {
        let record = Record { revision: self.next_revision(), at: self.now, change };
        self.take_in(&record);
        fx.records.push(record);
    }

    pub(crate) fn next_revision(&self) -> Revision {
        Revision(self.ledger.revision.0 + 1)
    }

    /// Changes a job: its row afterwards is what `edit` makes of it.
    pub(crate) fn change(&mut self, arrival: Revision, event: Event, fx: &mut Effects, edit: impl FnOnce(&mut JobRow)) {
        let Some(entry) = self.ledger.at(arrival) else { return };
        let job_id = entry.spec.job_id.clone();
        let mut row = entry.row.clone();
        row.sequence += 1;
        row.revision = self.next_revision();
        edit(&mut row);
        self.record(Change::Job { job_id, event, row }, fx);
    }

    /// The phase of a job that is ready to run but for an instant it may have to wait for.
    pub(crate) fn waiting(&self, not_before: Option<Time>) -> Phase {
        match not_before {
            Some(until) if until > self.now => Phase::Pending { until },
            _ => Phase::Queued { since: self.now },
        }
    }

    pub(crate) fn accepted(&mut self, arrival: Revision, fx: &mut Effects) {
        let now = self.now;
        self.change(arrival, Event::Accepted, fx, |row| {
            if let Phase::Assigned { lease, .. } = &row.phase {
                row.phase = Phase::Running { lease: lease.clone(), started: now };
            }
        });
    }

    /// An offer came to nothing and nobody is blamed.
    pub(crate) fn returned(&mut self, arrival: Revision, why: Return, fx: &mut Effects) {
        if self.end_if_cancelling(arrival, fx) {
            return;
        }
        let now = self.now;
        self.change(arrival, Event::Returned { why }, fx, |row| {
            let since = match row.phase {
                // It was never begun, and has waited all the time.
                Phase::Assigned { since, .. } => {
                    row.attempt = row.attempt.saturating_sub(1);
                    since
                }
                // What was accepted has been an attempt, also when it is taken away.
                _ => now,
            };
            row.phase = Phase::Queued { since };
        });
    }

    /// A worker declined by its own fault: another one is asked.
    pub(crate) fn declined(&mut self, arrival: Revision, failure: Failure, fx: &mut Effects) {
        if self.end_if_cancelling(arrival, fx) {
            return;
        }
        let Some(row) = self.ledger.at(arrival).map(|entry| &entry.row) else { return };
        if row.declined.len() >= DECLINED_MAX {
            let state = state_for(failure.code);
            let ending =
                Ending { state, spent: Spent::Nothing, failure: Some(failure), outcome_of: None, result: None };
            return self.end(arrival, ending, fx);
        }
        let since = self.now;
        let why = Return::Refused { fault: RefusalFault::Worker, failure };
        self.change(arrival, Event::Returned { why }, fx, |row| {
            if let Some(lease) = row.phase.lease() {
                row.declined.insert(lease.worker.clone(), lease.boot.clone());
            }
            row.attempt = row.attempt.saturating_sub(1);
            row.phase = Phase::Queued { since };
        });
    }

    /// When the workers that declined a waiting job are asked again: after as long as it had waited when the last of them
    /// did, so that each pause is twice the one before; within bounds.
    pub(crate) fn asked_again(&self, entry: &JobEntry) -> Option<Time> {
        let Phase::Queued { since } = &entry.row.phase else { return None };
        let pause =
            since.since(entry.spec.created_at).clamp(self.config.declined_pause, self.config.declined_pause_max);
        (!entry.row.declined.is_empty()).then(|| since.plus(pause))
    }

    /// What kept the workers from it may be over.
    fn reconsider(&mut self, arrival: Revision, fx: &mut Effects) {
        self.change(arrival, Event::Reconsidered, fx, |row| row.declined.clear());
    }

    /// A drain's deadline has come: the job goes elsewhere.
    pub(crate) fn attempt_drained(&mut self, arrival: Revision, fx: &mut Effects) {
        let Some(lease) = self.ledger.at(arrival).and_then(|entry| entry.row.phase.lease()).cloned() else { return };
        self.send_void(&lease.worker, lease.id, "the worker is drained", fx);
        self.returned(arrival, Return::Drained, fx);
    }

    /// An attempt failed: another one follows, or the job is over.
    pub(crate) fn attempt_failed(
        &mut self,
        arrival: Revision,
        failure: Failure,
        outcome: Option<(LeaseId, Body)>,
        fx: &mut Effects,
    ) {
        let Some(entry) = self.ledger.at(arrival) else { return };
        let (outcome_of, result) = outcome.unzip();
        let cancelling = matches!(entry.row.phase, Phase::Cancelling { .. });
        match after_failure(&entry.spec, &entry.row, &failure) {
            AfterFailure::Again(delay) if !cancelling => {
                let phase = self.waiting(Some(self.now.plus(delay)));
                self.change(arrival, Event::AttemptFailed { failure }, fx, |row| {
                    row.failed_attempts = row.failed_attempts.saturating_add(1);
                    row.phase = phase;
                });
            }
            AfterFailure::Again(_) | AfterFailure::Over(_) => {
                let state = state_for(failure.code);
                let ending = Ending { state, spent: Spent::Failure, failure: Some(failure), outcome_of, result };
                self.end(arrival, ending, fx);
            }
        }
    }

    /// An attempt was lost with its worker: another one follows while the budget lasts.
    pub(crate) fn attempt_lost(&mut self, arrival: Revision, why: Loss, fx: &mut Effects) {
        if self.end_if_cancelling(arrival, fx) {
            return;
        }
        let Some(row) = self.ledger.at(arrival).map(|entry| &entry.row) else { return };
        // Nobody knows that an offer was ever received, unless a process ended with it in its hands.
        if matches!(row.phase, Phase::Assigned { .. }) && why != Loss::Restarted {
            return self.returned(arrival, Return::NotAccepted, fx);
        }
        let lost = row.lost_attempts.saturating_add(1);
        if lost >= self.config.lost_attempts_max {
            let message = format!("{lost} workers were lost while they ran it");
            return self.end(arrival, Ending::by_coordinator(ErrorCode::WorkerLost, message), fx);
        }
        let since = self.now;
        self.change(arrival, Event::AttemptLost { why }, fx, |row| {
            row.lost_attempts = lost;
            row.phase = Phase::Queued { since };
        });
    }

    /// A job whose end was asked for is not started again, whatever happened to its attempt.
    fn end_if_cancelling(&mut self, arrival: Revision, fx: &mut Effects) -> bool {
        let cancelling =
            self.ledger.at(arrival).is_some_and(|entry| matches!(entry.row.phase, Phase::Cancelling { .. }));
        if cancelling {
            self.end(arrival, Ending::by_coordinator(ErrorCode::Cancelled, "cancelled"), fx);
        }
        cancelling
    }

    /// The job is over.
    pub(crate) fn end(&mut self, arrival: Revision, ending: Ending, fx: &mut Effects) {
        let at = self.now;
        self.change(arrival, Event::Ended { result: ending.result }, fx, |row| {
            row.failed_attempts = row.failed_attempts.saturating_add(u32::from(ending.spent == Spent::Failure));
            row.lost_attempts = row.lost_attempts.saturating_add(u32::from(ending.spent == Spent::Loss));
            row.phase = Phase::Ended(Ended {
                state: ending.state,
                at,
                started: row.phase.started(),
                worker: row.phase.lease().map(|lease| lease.worker.clone()),
                outcome_of: ending.outcome_of,
                failure: ending.failure,
            });
        });
    }

    /// A job's time has come.
    pub(crate) fn on_job_due(&mut self, arrival: Revision, fx: &mut Effects) {
        let Some(entry) = self.ledger.at(arrival) else { return };
        let lease = entry.row.phase.lease().cloned();
        let void = |scheduler: &Self, reason: &str, fx: &mut Effects| {
            if let Some(lease) = &lease {
                scheduler.send_void(&lease.worker, lease.id, reason, fx);
            }
        };
        let overdue = entry.spec.deadline.is_some_and(|deadline| deadline <= self.now);
        match &entry.row.phase {
            Phase::Ended(_) => {}
            Phase::Cancelling { .. } => {
                void(self, "the cancel was not confirmed in time", fx);
                let message = "the worker did not confirm the cancel in time";
                self.end(arrival, Ending::by_coordinator(ErrorCode::Cancelled, message), fx);
            }
            _ if overdue => {
                void(self, "the job's deadline has passed", fx);
                let message = "the job's deadline has passed";
                self.end(arrival, Ending::by_coordinator(ErrorCode::DeadlineExceeded, message), fx);
            }
            Phase::Pending { .. } => {
                let since = self.now;
                self.change(arrival, Event::Due, fx, |row| row.phase = Phase::Queued { since });
            }
            Phase::Queued { since } => match entry.spec.queue_timeout.filter(|most| since.plus(*most) <= self.now) {
                Some(most) => {
                    let why = if self.queue.is_served(entry) { "had a free slot" } else { "could run it" };
                    let message =
                        format!("queue_timeout_seconds: no connected worker {why} within {} s", most.as_secs());
                    self.end(arrival, Ending::by_coordinator(ErrorCode::DeadlineExceeded, message), fx);
                }
                None => self.reconsider(arrival, fx),
            },
            Phase::Assigned { lease, .. } => {
                let worker = lease.worker.clone();
                void(self, "not accepted in time", fx);
                self.returned(arrival, Return::NotAccepted, fx);
                self.pause(&worker, fx);
            }
            Phase::Running { .. } => {
                void(self, "the attempt's time has run out", fx);
                let message = "the attempt's time ran out and its worker did not say so".into();
                self.attempt_failed(arrival, Failure { code: ErrorCode::Timeout, message }, None, fx);
            }
        }
    }

    /// A job's image lies beneath no image root, and everybody who could say otherwise had the time to.
    pub(crate) fn image_outside(&mut self, arrival: Revision, fx: &mut Effects) {
        let Some(entry) = self.ledger.at(arrival) else { return };
        let placement = &entry.spec.placement;
        let folder = placement.image_folder.as_deref().unwrap_or_default();
        let roots = self.roots.named(placement.worker.as_ref());
        let whose = match &placement.worker {
            Some(worker) => format!("worker {worker}, to which the job is pinned"),
            None => "any connected worker".into(),
        };
        let message = format!("image folder {folder} lies beneath no image root of {whose}; image roots seen: {roots}");
        self.end(arrival, Ending::by_coordinator(ErrorCode::ImageAccessDenied, message), fx);
    }

    /// The job of a name, in memory.
    pub(crate) fn arrival(&self, job_id: &JobId) -> Option<Revision> {
        self.ledger.arrival(job_id)
    }
}
