use guestkit_domain::{JobId, Time};

use crate::Scheduler;
use crate::effects::{Effects, Reply};
use crate::input::RequestId;
use crate::ledger::{Change, Phase};

impl Scheduler {
    /// Forgets jobs that have been over for long. Whoever named them looked at a store that may be behind: each is looked at
    /// again, and one that was retried or deleted meanwhile is left as it is.
    pub(crate) fn on_expire(&mut self, request: RequestId, jobs: Vec<JobId>, before: Time, fx: &mut Effects) {
        let mut forgotten = Vec::new();
        for job_id in jobs {
            let phase = self.ledger.job(&job_id).map(|entry| &entry.row.phase);
            if matches!(phase, Some(Phase::Ended(ended)) if ended.at < before) {
                self.deleted.insert(job_id.clone());
                self.record(Change::Deleted { job_id: job_id.clone() }, fx);
                forgotten.push(job_id);
            }
        }
        fx.replies.push((request, Reply::Expired(forgotten)));
    }
}
