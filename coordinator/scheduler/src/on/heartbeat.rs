use guestkit_domain::SessionId;

use crate::Scheduler;
use crate::effects::{Effects, ToWorker};

impl Scheduler {
    /// Renews, in memory, every lease the session holds.
    pub(crate) fn on_heartbeat(&mut self, session: SessionId, sequence: u64, fx: &mut Effects) {
        if self.touch(session, fx).is_some() {
            fx.sends.push((session, ToWorker::HeartbeatAck { sequence }));
        }
    }
}
