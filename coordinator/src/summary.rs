//! The counts a dashboard shows, kept as they change.

use guestkit_scheduler as scheduler;
use serde::Serialize;

/// Counts of jobs, workers and slots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Jobs waiting for an instant.
    pub pending: u64,
    /// Jobs waiting for a worker.
    pub queued: u64,
    /// Jobs leased and not accepted yet.
    pub assigned: u64,
    /// Jobs running, those being cancelled included.
    pub running: u64,
    /// Jobs completed since the store began.
    pub completed: u64,
    /// Jobs failed since the store began.
    pub failed: u64,
    /// Jobs cancelled since the store began.
    pub cancelled: u64,
    /// Jobs that ran out of time since the store began.
    pub timeout: u64,
    /// Workers connected.
    pub workers: u64,
    /// Slots of the workers connected.
    pub slots: u64,
    /// Slots in use.
    pub slots_in_use: u64,
    /// Jobs ended in the last minute.
    pub ended_last_minute: u64,
}

impl Summary {
    /// Jobs by state.
    #[must_use]
    pub fn states(&self) -> [(&'static str, u64); 8] {
        [
            ("pending", self.pending),
            ("queued", self.queued),
            ("assigned", self.assigned),
            ("running", self.running),
            ("completed", self.completed),
            ("failed", self.failed),
            ("cancelled", self.cancelled),
            ("timeout", self.timeout),
        ]
    }
}

impl From<scheduler::Summary> for Summary {
    fn from(counts: scheduler::Summary) -> Self {
        Self {
            pending: counts.pending,
            queued: counts.queued,
            assigned: counts.assigned,
            running: counts.running + counts.cancelling,
            completed: counts.totals.completed,
            failed: counts.totals.failed,
            cancelled: counts.totals.cancelled,
            timeout: counts.totals.timeout,
            workers: counts.workers,
            slots: counts.slots,
            slots_in_use: counts.slots_in_use,
            ended_last_minute: counts.ended_last_minute,
        }
    }
}
