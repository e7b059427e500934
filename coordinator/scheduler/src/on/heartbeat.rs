use guestkit_domain::{Duration, SessionId};

use crate::Scheduler;
use crate::effects::{Effects, ToWorker};

impl Scheduler {
    /// Renews, in memory, every lease the session holds.
    pub(crate) fn on_heartbeat(&mut self, session: SessionId, sequence: u64, fx: &mut Effects) {
        let heartbeat_interval = self.heartbeat_interval();
        if let Some(worker) = self.sessions.get(&session).and_then(|id| self.workers.get_mut(id)) {
            worker.heartbeat = heartbeat_interval;
        }
        if self.touch(session, fx).is_some() {
            fx.sends.push((session, ToWorker::HeartbeatAck { sequence, heartbeat_interval }));
        }
    }

    /// How often a worker of a fleet of this size sends a heartbeat.
    pub(crate) fn heartbeat_interval(&self) -> Duration {
        let config = &self.config;
        let workers = u64::try_from(self.sessions.len()).unwrap_or(u64::MAX);
        let spread = workers.saturating_mul(1000) / u64::from(config.heartbeats_per_second.max(1));
        // A worker must be known to be unreachable before its leases are lost.
        let longest = config.lease_ttl / config.heartbeats_missed_max.max(1);
        config.heartbeat_interval.max(Duration::from_millis(spread).min(longest))
    }

    /// When a session sends its first: those of workers that connect together are spread over the interval.
    pub(crate) fn first_heartbeat(session: SessionId, interval: Duration) -> Duration {
        // Steps of the golden ratio fill an interval evenly, however many there are (Knuth, TAOCP 3, section 6.4).
        let fraction = (session.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32;
        interval.mul_f64((f64::from(fraction) + 1.0) / 4_294_967_296.0)
    }
}
