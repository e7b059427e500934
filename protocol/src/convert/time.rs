//! Instants and durations.

use guestkit_domain::{Duration, Time};
use prost_types::Timestamp;

/// Longest duration taken from a peer: ten years, so that no sum with an instant leaves the calendar.
const DURATION_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// The instant as the wire has it.
#[must_use]
pub fn to_wire(time: Time) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(time.0 / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.0 % 1000).unwrap_or(0) * 1_000_000,
    }
}

/// The instant of a timestamp, to the millisecond; instants before 1970 are 1970. `None` outside of the calendar (years 1 to
/// 9999, nanoseconds below one second).
#[must_use]
pub fn from_wire(timestamp: &Timestamp) -> Option<Time> {
    // 0001-01-01 to 9999-12-31, as google/protobuf/timestamp.proto bounds them.
    if !(-62_135_596_800..=253_402_300_799).contains(&timestamp.seconds)
        || !(0..1_000_000_000).contains(&timestamp.nanos)
    {
        return None;
    }
    let Ok(seconds) = u64::try_from(timestamp.seconds) else { return Some(Time(0)) };
    let milliseconds = u64::try_from(timestamp.nanos / 1_000_000).unwrap_or(0);
    Some(Time(seconds * 1000 + milliseconds))
}

/// The duration as the wire has it.
#[must_use]
pub fn duration_to_wire(duration: Duration) -> prost_types::Duration {
    let duration = duration.min(DURATION_MAX);
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// The duration a peer sent; `None` when it is negative or longer than ten years.
#[must_use]
pub fn duration_from_wire(duration: &prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u32::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos)).filter(|duration| *duration <= DURATION_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_come_back() {
        for milliseconds in [0, 1, 999, 1000, 1_790_000_000_123] {
            assert_eq!(from_wire(&to_wire(Time(milliseconds))), Some(Time(milliseconds)));
        }
    }

    #[test]
    fn nonsense_is_no_instant() {
        let instant = |seconds, nanos| from_wire(&Timestamp { seconds, nanos });
        assert_eq!(instant(i64::MIN, 0), None);
        assert_eq!(instant(i64::MAX, 0), None);
        assert_eq!(instant(0, -1), None);
        assert_eq!(instant(0, 1_000_000_000), None);
        assert_eq!(instant(-1, 0), Some(Time(0)));
    }

    #[test]
    fn nonsense_is_no_duration() {
        let duration = |seconds, nanos| duration_from_wire(&prost_types::Duration { seconds, nanos });
        assert_eq!(duration(-1, 0), None);
        assert_eq!(duration(0, -1), None);
        assert_eq!(duration(i64::MAX, 0), None);
        assert_eq!(duration(5, 500_000_000), Some(Duration::from_millis(5500)));
    }
}
