//! One clock: milliseconds since 1970-01-01 UTC, as the coordinator counts them.
//!
//! The coordinator anchors its monotonic clock to the wall clock once, at its start, so that a [`Time`] never runs backwards
//! while a process lives, whatever the machine's clock does.

pub use std::time::Duration;

/// An instant by the coordinator's clock, in milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// The instant `after` this one; stays at the end of time instead of overflowing.
    #[must_use]
    pub fn plus(self, after: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_neither_overflows_nor_runs_backwards() {
        assert_eq!(Time(1000).plus(Duration::from_millis(500)), Time(1500));
        assert_eq!(Time(u64::MAX).plus(Duration::from_secs(1)), Time(u64::MAX));
        assert_eq!(Time(1000).plus(Duration::MAX), Time(u64::MAX));
        assert_eq!(Time(1500).since(Time(1000)), Duration::from_millis(500));
        assert_eq!(Time(1000).since(Time(1500)), Duration::ZERO);
    }
}
