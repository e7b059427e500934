//! Times and days as reports write them.

use jiff::{Timestamp, tz::Offset};

/// Seconds of a day.
const DAY_SECONDS: i64 = 86_400;

/// RFC 3339 of seconds since 1970-01-01 UTC, where the calendar has them.
pub(crate) fn rfc3339(seconds: i64) -> Option<String> {
    Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}

/// A time of RFC 3339 in UTC and whole seconds, as reports have it.
pub(crate) fn normalised(text: &str) -> Option<String> {
    rfc3339(text.parse::<Timestamp>().ok()?.as_second())
}

/// The day that is `days` after 1970-01-01, as shadow(5) counts.
pub(crate) fn day(days: i64) -> Option<String> {
    let time = Timestamp::from_second(days.checked_mul(DAY_SECONDS)?).ok()?;
    Some(Offset::UTC.to_datetime(time).date().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(rfc3339(0).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(normalised("2024-05-06T07:08:09.1+02:00").as_deref(), Some("2024-05-06T05:08:09Z"));
        assert_eq!(normalised("yesterday"), None);
        assert_eq!(day(20_000).as_deref(), Some("2024-10-04"));
        assert_eq!(rfc3339(i64::MAX), None);
        assert_eq!(day(i64::MAX), None);
    }
}
