use guestkit_domain::JobId;

use crate::Scheduler;
use crate::effects::{Effects, Refusal, Reply};
use crate::input::RequestId;
use crate::ledger::Change;

impl Scheduler {
    /// Forgets a job that is over.
    pub(crate) fn on_delete(&mut self, request: RequestId, job_id: JobId, fx: &mut Effects) {
        let state = self.ledger.job(&job_id).map(|entry| entry.row.phase.state());
        let reply = match state {
            None => Reply::Refused(Refusal::JobNotFound { job_id }),
            Some(state) if !state.is_terminal() => Reply::Refused(Refusal::NotOver { job_id, state }),
            Some(_) => {
                self.deleted.insert(job_id.clone());
                self.record(Change::Deleted { job_id }, fx);
                Reply::Deleted
            }
        };
        fx.replies.push((request, reply));
    }
}
