use guestkit_domain::SessionId;

use crate::Scheduler;
use crate::effects::Effects;

impl Scheduler {
    /// A stream ended: no new work; leases stand until the worker's time is out.
    pub(crate) fn on_disconnect(&mut self, session: SessionId, fx: &mut Effects) {
        let Some(id) = self.sessions.get(&session).cloned() else { return };
        self.close_session(&id);
        self.worker_changed(&id, fx);
    }
}
