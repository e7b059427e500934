use guestkit_domain::SessionId;

use crate::Scheduler;
use crate::effects::Effects;

impl Scheduler {
    /// A worker asks for no more work; it stands until its process ends.
    pub(crate) fn on_draining(&mut self, session: SessionId, fx: &mut Effects) {
        let Some(id) = self.touch(session, fx) else { return };
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.leaving = true;
        }
        self.worker_changed(&id, fx);
    }
}
