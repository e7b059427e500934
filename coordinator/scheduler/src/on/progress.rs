use guestkit_domain::{LeaseId, Progress, SessionId, Time};

use crate::Scheduler;
use crate::effects::Effects;
use crate::ledger::{Event, Phase};

/// How much progress one attempt may still write: a bucket that fills with time. Nothing a peer says makes the history grow
/// faster than that.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// The bucket is full from here on; each entry moves it on by the entry's price.
    pub(crate) full_at: Time,
    /// The latest progress that found the bucket empty, and when there will be room for it.
    pub(crate) waiting: Option<(Time, Progress)>,
}

impl Scheduler {
    /// Writes an attempt's progress; the percentage never falls. What comes too fast is merged, the latest winning.
    pub(crate) fn on_progress(&mut self, session: SessionId, lease: LeaseId, progress: Progress, fx: &mut Effects) {
        let Some(worker) = self.touch(session, fx) else { return };
        let Some(entry) = self.current(lease, &worker) else {
            return self.send_void(&worker, lease, "the lease is not current", fx);
        };
        let arrival = entry.arrival;
        // Whoever works on it has taken it.
        if matches!(entry.row.phase, Phase::Assigned { .. }) {
            self.accepted(arrival, fx);
        }
        let (price, depth) = self.bucket();
        let now = self.now;
        let throttle = self.throttles.entry(lease).or_insert(Throttle { full_at: now, waiting: None });
        let full_at = Time(throttle.full_at.max(now).0.saturating_add(price));
        match &mut throttle.waiting {
            Some((_, latest)) => *latest = progress,
            None if full_at <= Time(now.0.saturating_add(depth)) => {
                throttle.full_at = full_at;
                self.write_progress(lease, progress, fx);
            }
            None => {
                let room = Time(full_at.0.saturating_sub(depth));
                throttle.waiting = Some((room, progress));
                self.progress_due.insert((room, lease));
            }
        }
    }

    /// Price of one entry and depth of the bucket, in milliseconds.
    fn bucket(&self) -> (u64, u64) {
        let price = 1000 / u64::from(self.config.progress_per_second.clamp(1, 1000));
        (price, price.saturating_mul(u64::from(self.config.progress_burst.max(1))))
    }

    /// Writes the progress that waits for room.
    pub(crate) fn flush_progress(&mut self, lease: LeaseId, fx: &mut Effects) {
        let (price, _) = self.bucket();
        let Some(throttle) = self.throttles.get_mut(&lease) else { return };
        let Some((due, progress)) = throttle.waiting.take() else { return };
        throttle.full_at = Time(throttle.full_at.max(self.now).0.saturating_add(price));
        self.progress_due.remove(&(due, lease));
        self.write_progress(lease, progress, fx);
    }

    fn write_progress(&mut self, lease: LeaseId, progress: Progress, fx: &mut Effects) {
        let Some(&arrival) = self.leases.get(&lease) else { return };
        let before = self.ledger.at(arrival).map_or(0.0, |entry| entry.row.percent);
        // `max` answers the other number when one is none.
        let percent = progress.percent.clamp(0.0, 100.0).max(before);
        let progress = Progress { percent, ..progress };
        self.change(arrival, Event::Progress { progress }, fx, |row| row.percent = percent);
    }
}
