//! The coordinator's one clock: the monotonic clock, anchored to the wall clock once, so that time never runs backwards while
//! the process lives, whatever is done to the machine's clock. It is the runtime's monotonic clock, so that timers agree with it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use guestkit_domain::Time;
use tokio::time::Instant;

/// Tells [`Time`]. Cheap to copy; copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    started_at: Time,
}

impl Clock {
    /// Anchors the clock now, or at `newest` when the machine's clock was set back behind what the store has seen.
    #[must_use]
    pub fn start(newest: Time) -> Self {
        // A machine whose clock stands before 1970 begins at 1970.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { started: Instant::now(), started_at: Time::default().plus(wall).max(newest) }
    }

    /// The instant it is.
    #[must_use]
    pub fn now(&self) -> Time {
        self.started_at.plus(self.started.elapsed())
    }

    /// The instant of `at`, for a timer of the runtime.
    #[must_use]
    pub fn instant_of(&self, at: Time) -> Instant {
        // Far ahead of any deadline that matters, and well inside what an Instant can hold.
        const AHEAD_MAX: Duration = Duration::from_secs(86_400 * 365);
        self.started + at.since(self.started_at).min(AHEAD_MAX)
    }
}
