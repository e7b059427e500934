//! Instants as people write and read them.

use std::time::{SystemTime, UNIX_EPOCH};

use guestkit_domain::Time;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

/// The machine's clock.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// RFC 3339 in UTC, to the second; empty when there is none or it lies outside the years 1 to 9999.
pub(crate) fn shown(at: Option<&prost_types::Timestamp>) -> String {
    at.and_then(|at| Timestamp::from_second(at.seconds).ok()).map(|at| at.to_string()).unwrap_or_default()
}

/// Seconds from `at` to `now`; zero when the clocks disagree.
pub(crate) fn since(at: Option<&prost_types::Timestamp>, now: Time) -> Option<f64> {
    at.map(|at| (now.0 as f64 / 1000.0 - exact(at)).max(0.0))
}

/// Seconds between two instants.
pub(crate) fn between(from: Option<&prost_types::Timestamp>, to: Option<&prost_types::Timestamp>) -> Option<f64> {
    Some((exact(to?) - exact(from?)).max(0.0))
}

fn exact(at: &prost_types::Timestamp) -> f64 {
    at.seconds as f64 + f64::from(at.nanos) / 1e9
}

/// Reads an instant (`2026-01-31T08:00:00Z`) or how long before `now` it was (`90s`, `2h 30m`, `3 days`).
///
/// # Errors
/// A text for people when it is neither.
pub(crate) fn parse(text: &str, now: Time) -> Result<prost_types::Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(prost_types::Timestamp { seconds: at.as_second(), nanos: 0 });
    }
    let unreadable =
        || format!("{text:?} is neither a time such as 2026-01-31T08:00:00Z nor a duration such as 90s, 2h or 3d");
    let span: Span = text.parse().map_err(|_| unreadable())?;
    let ago: SignedDuration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| unreadable())?;
    let now = i64::try_from(now.0 / 1000).unwrap_or(i64::MAX);
    Ok(prost_types::Timestamp { seconds: now.saturating_sub(ago.as_secs().saturating_abs()), nanos: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_are_read() {
        let now = Time(1_000_000_000);
        let check = |text: &str, seconds: i64| assert_eq!(parse(text, now).unwrap().seconds, seconds, "{text}");
        check("1970-01-01T00:16:40Z", 1000);
        check("1970-01-01T02:16:40+02:00", 1000);
        check("90s", 1_000_000 - 90);
        check("2h", 1_000_000 - 7200);
        check("2h 30m", 1_000_000 - 9000);
        check("3 days", 1_000_000 - 3 * 86_400);
        check("3d", 1_000_000 - 3 * 86_400);
        for text in ["", "yesterday", "2026", "1 month"] {
            assert!(parse(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn instants_outside_the_calendar_are_not_shown() {
        assert_eq!(shown(Some(&prost_types::Timestamp { seconds: i64::MAX, nanos: -5 })), "");
        assert_eq!(shown(Some(&prost_types::Timestamp { seconds: 1_769_846_400, nanos: 0 })), "2026-01-31T08:00:00Z");
    }
}
