use guestkit_domain::{ErrorCode, Failure, JobId, JobState, LeaseId, OutcomeStatus, Revision, SessionId};

use crate::Scheduler;
use crate::effects::{Effects, OutcomeVerdict, ToWorker};
use crate::input::Body;
use crate::job::{Ending, Spent};
use crate::ledger::{Loss, Phase};

/// How an attempt ended.
pub(crate) struct Report {
    pub(crate) lease: LeaseId,
    pub(crate) job_id: JobId,
    pub(crate) status: OutcomeStatus,
    pub(crate) failure: Option<Failure>,
    pub(crate) result: Body,
}

impl Scheduler {
    /// Counts an outcome if and only if its lease is the job's current one; acknowledges the one that ended the job again.
    pub(crate) fn on_outcome(&mut self, session: SessionId, report: Report, fx: &mut Effects) {
        let Some(worker) = self.touch(session, fx) else { return };
        let (lease, job_id) = (report.lease, report.job_id.clone());
        let current =
            self.current(lease, &worker).filter(|entry| entry.spec.job_id == job_id).map(|entry| entry.arrival);
        let verdict = match current {
            Some(arrival) => {
                // Whoever ends it has taken it.
                if self.ledger.at(arrival).is_some_and(|entry| matches!(entry.row.phase, Phase::Assigned { .. })) {
                    self.accepted(arrival, fx);
                }
                self.flush_progress(lease, fx);
                self.attempt_ended(arrival, report, fx);
                OutcomeVerdict::Recorded
            }
            None if self.finished_by(&job_id, lease) => OutcomeVerdict::Recorded,
            None => OutcomeVerdict::Stale,
        };
        fx.sends.push((session, ToWorker::OutcomeAck { lease, verdict }));
    }

    fn attempt_ended(&mut self, arrival: Revision, report: Report, fx: &mut Effects) {
        let Report { lease, status, failure, result, .. } = report;
        let cancelling =
            self.ledger.at(arrival).is_some_and(|entry| matches!(entry.row.phase, Phase::Cancelling { .. }));
        let failure_or =
            |code, message: &str| failure.clone().unwrap_or_else(|| Failure { code, message: message.into() });
        match status {
            OutcomeStatus::Completed => {
                let ending = Ending {
                    state: JobState::Completed,
                    spent: Spent::Nothing,
                    failure: None,
                    outcome_of: Some(lease),
                    result: Some(result),
                };
                self.end(arrival, ending, fx);
            }
            OutcomeStatus::Failed => {
                let failure = failure_or(ErrorCode::Internal, "the worker gave no reason");
                self.attempt_failed(arrival, failure, Some((lease, result)), fx);
            }
            OutcomeStatus::Timeout => {
                let failure = Failure {
                    code: ErrorCode::Timeout,
                    ..failure_or(ErrorCode::Timeout, "the attempt's time ran out")
                };
                self.attempt_failed(arrival, failure, Some((lease, result)), fx);
            }
            OutcomeStatus::Cancelled if cancelling => {
                let failure = Failure { code: ErrorCode::Cancelled, ..failure_or(ErrorCode::Cancelled, "cancelled") };
                let ending = Ending {
                    state: JobState::Cancelled,
                    spent: Spent::Nothing,
                    failure: Some(failure),
                    outcome_of: Some(lease),
                    result: Some(result),
                };
                self.end(arrival, ending, fx);
            }
            // Nobody asked for it: the worker gave the attempt up, as when it is stopped.
            OutcomeStatus::Cancelled => self.attempt_lost(arrival, Loss::Abandoned, fx),
        }
    }
}
