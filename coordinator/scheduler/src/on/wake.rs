use crate::Scheduler;
use crate::effects::Effects;

/// Deadlines dealt with in one call: bounds one transaction. What is left is due still, so the driver calls again.
const WAKE_MAX: usize = 4096;

impl Scheduler {
    /// Deals with everything whose time has come.
    pub(crate) fn on_wake(&mut self, fx: &mut Effects) {
        for _ in 0..WAKE_MAX {
            if !self.wake_one(fx) {
                return;
            }
        }
    }

    fn wake_one(&mut self, fx: &mut Effects) -> bool {
        let now = self.now;
        if let Some((_, worker)) = self.worker_due.first().filter(|(at, _)| *at <= now).cloned() {
            self.on_worker_due(&worker, fx);
        } else if let Some(&(_, arrival)) = self.job_due.first().filter(|(at, _)| *at <= now) {
            self.on_job_due(arrival, fx);
        } else if let Some(due) = self.drain_due.first().filter(|(at, _)| *at <= now).cloned() {
            self.drain_due.remove(&due);
            let (_, target) = due;
            for worker in self.concerned(&target) {
                self.evict_leases(&worker, fx);
            }
        } else if let Some(&(_, lease)) = self.progress_due.first().filter(|(at, _)| *at <= now) {
            self.flush_progress(lease, fx);
        } else if let Some(arrival) = self.roots.overdue(now) {
            self.image_outside(arrival, fx);
        } else {
            return false;
        }
        true
    }
}
