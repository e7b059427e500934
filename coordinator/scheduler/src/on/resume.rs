use crate::Scheduler;
use crate::effects::{Effects, Refusal, Reply};
use crate::input::{DrainTarget, RequestId};
use crate::ledger::Change;

impl Scheduler {
    /// Ends the drain of exactly this target.
    pub(crate) fn on_resume(&mut self, request: RequestId, target: DrainTarget, fx: &mut Effects) {
        if !self.ledger.drains.contains_key(&target) {
            return fx.replies.push((request, Reply::Refused(Refusal::NoSuchDrain)));
        }
        self.record(Change::Resume { target: target.clone() }, fx);
        let concerned = self.concerned(&target);
        for id in &concerned {
            self.worker_changed(id, fx);
        }
        fx.replies.push((request, Reply::Workers(concerned)));
    }
}
