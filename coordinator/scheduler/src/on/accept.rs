use guestkit_domain::{LeaseId, SessionId};

use crate::Scheduler;
use crate::effects::Effects;
use crate::ledger::Phase;

impl Scheduler {
    /// The worker takes a lease; one that is not current any more is told to be void.
    pub(crate) fn on_accept(&mut self, session: SessionId, lease: LeaseId, fx: &mut Effects) {
        let Some(worker) = self.touch(session, fx) else { return };
        match self.current(lease, &worker).map(|entry| (entry.arrival, &entry.row.phase)) {
            Some((arrival, Phase::Assigned { .. })) => self.accepted(arrival, fx),
            // Said twice, or crossed by a cancel: nothing changes.
            Some(_) => {}
            None => self.send_void(&worker, lease, "the lease is not current", fx),
        }
    }
}
