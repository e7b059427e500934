use guestkit_domain::{Duration, WorkerId};

use crate::Scheduler;
use crate::effects::{Effects, Refusal, Reply, ToWorker};
use crate::input::{DrainTarget, RequestId};
use crate::ledger::Change;

impl Scheduler {
    /// No new work for some workers, also for those that connect later, until a resume with the same target.
    pub(crate) fn on_drain(
        &mut self,
        request: RequestId,
        target: DrainTarget,
        deadline: Option<Duration>,
        fx: &mut Effects,
    ) {
        let limit = self.config.drains_max;
        if self.ledger.drains.len() >= limit && !self.ledger.drains.contains_key(&target) {
            return fx.replies.push((request, Reply::Refused(Refusal::TooManyDrains { limit })));
        }
        let until = deadline.map(|deadline| self.now.plus(deadline));
        self.record(Change::Drain { target: target.clone(), until }, fx);
        let concerned = self.concerned(&target);
        for id in &concerned {
            self.send(id, ToWorker::Drain { deadline }, fx);
            self.worker_changed(id, fx);
        }
        fx.replies.push((request, Reply::Workers(concerned)));
    }

    /// The workers a drain's target names, among those that are known and not lost.
    pub(crate) fn concerned(&self, target: &DrainTarget) -> Vec<WorkerId> {
        self.workers
            .iter()
            .filter(|(id, worker)| !worker.lost && target.concerns(id, worker.profile.as_deref()))
            .map(|(id, _)| id.clone())
            .collect()
    }
}
