use guestkit_domain::{Failure, LeaseId, RefusalFault, SessionId};

use crate::Scheduler;
use crate::effects::Effects;
use crate::ledger::{Loss, Phase, Return};

impl Scheduler {
    /// The worker declines a lease; whose fault it is decides what follows.
    pub(crate) fn on_refuse(
        &mut self,
        session: SessionId,
        lease: LeaseId,
        fault: RefusalFault,
        failure: Failure,
        fx: &mut Effects,
    ) {
        let Some(worker) = self.touch(session, fx) else { return };
        let Some(entry) = self.current(lease, &worker) else { return };
        let (arrival, accepted) = (entry.arrival, matches!(entry.row.phase, Phase::Running { .. }));
        match fault {
            RefusalFault::Job => self.attempt_failed(arrival, failure, None, fx),
            // It had taken it before: the attempt is lost, not declined.
            _ if accepted => self.attempt_lost(arrival, Loss::Abandoned, fx),
            RefusalFault::Worker => self.declined(arrival, failure, fx),
            RefusalFault::Busy => {
                self.returned(arrival, Return::Refused { fault, failure }, fx);
                self.pause(&worker, fx);
            }
        }
    }
}
