use std::sync::Arc;

use guestkit_domain::{ErrorCode, JobId, JobState, Revision};

use crate::Scheduler;
use crate::effects::{Effects, Refusal, Reply, ToWorker};
use crate::input::RequestId;
use crate::job::Ending;
use crate::ledger::{Event, Phase};

impl Scheduler {
    /// Ends a job that waits; asks the worker of one that is leased to end it.
    pub(crate) fn on_cancel(&mut self, request: RequestId, job_id: JobId, reason: Arc<str>, fx: &mut Effects) {
        let reply = match self.cancel(&job_id, reason, fx) {
            Ok(arrival) => self.job_reply(arrival, job_id),
            Err(refusal) => Reply::Refused(refusal),
        };
        fx.replies.push((request, reply));
    }

    fn cancel(&mut self, job_id: &JobId, reason: Arc<str>, fx: &mut Effects) -> Result<Revision, Refusal> {
        let missing = || Refusal::JobNotFound { job_id: job_id.clone() };
        let arrival = self.arrival(job_id).ok_or_else(missing)?;
        let entry = self.ledger.at(arrival).ok_or_else(missing)?;
        match &entry.row.phase {
            // Asked for twice is asked for once.
            Phase::Cancelling { .. } => return Ok(arrival),
            Phase::Ended(ended) if ended.state == JobState::Cancelled => return Ok(arrival),
            Phase::Ended(ended) => return Err(Refusal::Over { job_id: job_id.clone(), state: ended.state }),
            _ if !entry.spec.cancellable => return Err(Refusal::NotCancellable { job_id: job_id.clone() }),
            Phase::Pending { .. } | Phase::Queued { .. } => {
                self.end(arrival, Ending::by_coordinator(ErrorCode::Cancelled, reason), fx);
            }
            Phase::Assigned { lease, .. } | Phase::Running { lease, .. } => {
                let (lease, started, since) = (lease.clone(), entry.row.phase.started(), self.now);
                let worker = lease.worker.clone();
                let message = ToWorker::Cancel { lease: lease.id, reason: reason.clone(), outcome_wanted: true };
                self.change(arrival, Event::CancelRequested { reason }, fx, |row| {
                    row.phase = Phase::Cancelling { lease, started, since };
                });
                self.send(&worker, message, fx);
            }
        }
        Ok(arrival)
    }

    /// The job as it is now.
    pub(crate) fn job_reply(&self, arrival: Revision, job_id: JobId) -> Reply {
        match self.ledger.at(arrival) {
            Some(entry) => Reply::Job { job_id, row: entry.row.clone() },
            None => Reply::Refused(Refusal::JobNotFound { job_id }),
        }
    }
}
