//! What follows a failed attempt.

use guestkit_domain::{Backoff, Duration, ErrorCode, Failure, JobSpec, JobState};

use crate::ledger::JobRow;

/// What follows a failed attempt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AfterFailure {
    /// Another attempt, after this long.
    Again(Duration),
    /// The end, in this state.
    Over(JobState),
}

/// Decides after one more failure. Failures alone are counted here; losses have a budget of their own.
pub(crate) fn after_failure(spec: &JobSpec, row: &JobRow, failure: &Failure) -> AfterFailure {
    let failed = row.failed_attempts.saturating_add(1);
    if failure.code.retry_recommended() && failed < spec.max_attempts {
        AfterFailure::Again(delay(&spec.backoff, failed))
    } else {
        AfterFailure::Over(state_for(failure.code))
    }
}

/// The state a job ends in for a code.
pub(crate) fn state_for(code: ErrorCode) -> JobState {
    match code {
        ErrorCode::Timeout | ErrorCode::DeadlineExceeded => JobState::Timeout,
        ErrorCode::Cancelled => JobState::Cancelled,
        _ => JobState::Failed,
    }
}

/// `initial * multiplier^(failed-1)`, at most `max`. A multiplier that is no number counts as 1.
fn delay(backoff: &Backoff, failed: u32) -> Duration {
    let multiplier = if backoff.multiplier.is_finite() { backoff.multiplier.clamp(1.0, 10.0) } else { 1.0 };
    let exponent = i32::try_from(failed.saturating_sub(1)).unwrap_or(i32::MAX);
    let seconds = backoff.initial.as_secs_f64() * multiplier.powi(exponent);
    Duration::try_from_secs_f64(seconds).unwrap_or(backoff.max).min(backoff.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_their_bound() {
        let backoff =
            |multiplier| Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(60), multiplier };
        for (multiplier, failed, seconds) in [
            (2.0, 1, 1),
            (2.0, 2, 2),
            (2.0, 4, 8),
            (2.0, 7, 60),
            (10.0, u32::MAX, 60),
            (1.0, 50, 1),
            (f64::NAN, 3, 1),
            (f64::INFINITY, 3, 1),
        ] {
            assert_eq!(delay(&backoff(multiplier), failed), Duration::from_secs(seconds), "{multiplier}^{failed}");
        }
    }
}
