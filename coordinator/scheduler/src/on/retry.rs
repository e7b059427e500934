use guestkit_domain::{JobId, JobState, Revision};

use crate::Scheduler;
use crate::effects::{Effects, Refusal, Reply};
use crate::input::RequestId;
use crate::ledger::{Event, Phase};

impl Scheduler {
    /// Gives a job that is over and not completed a new attempt budget.
    pub(crate) fn on_retry(&mut self, request: RequestId, job_id: JobId, fx: &mut Effects) {
        let reply = match self.retry(&job_id, fx) {
            Ok(arrival) => self.job_reply(arrival, job_id),
            Err(refusal) => Reply::Refused(refusal),
        };
        fx.replies.push((request, reply));
    }

    fn retry(&mut self, job_id: &JobId, fx: &mut Effects) -> Result<Revision, Refusal> {
        let missing = || Refusal::JobNotFound { job_id: job_id.clone() };
        let arrival = self.arrival(job_id).ok_or_else(missing)?;
        let entry = self.ledger.at(arrival).ok_or_else(missing)?;
        let state = entry.row.phase.state();
        if !state.is_terminal() {
            return Err(Refusal::NotOver { job_id: job_id.clone(), state });
        }
        if state == JobState::Completed {
            return Err(Refusal::Over { job_id: job_id.clone(), state });
        }
        if entry.spec.deadline.is_some_and(|deadline| deadline <= self.now) {
            return Err(Refusal::DeadlinePassed { job_id: job_id.clone() });
        }
        self.room()?;
        let phase: Phase = self.waiting(entry.spec.not_before);
        self.change(arrival, Event::RetryRequested, fx, |row| {
            row.failed_attempts = 0;
            row.lost_attempts = 0;
            row.percent = 0.0;
            row.declined.clear();
            row.phase = phase;
        });
        Ok(arrival)
    }
}
