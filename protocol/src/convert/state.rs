//! States, statuses and verdicts.

use guestkit_domain::{JobState, OutcomeStatus, RefusalFault};

use crate::status::Refusal;
use crate::v1;

/// The state as the wire has it.
#[must_use]
pub fn to_wire(state: JobState) -> v1::JobState {
    match state {
        JobState::Pending => v1::JobState::Pending,
        JobState::Queued => v1::JobState::Queued,
        JobState::Assigned => v1::JobState::Assigned,
        JobState::Running => v1::JobState::Running,
        JobState::Cancelling => v1::JobState::Cancelling,
        JobState::Completed => v1::JobState::Completed,
        JobState::Failed => v1::JobState::Failed,
        JobState::Cancelled => v1::JobState::Cancelled,
        JobState::Timeout => v1::JobState::Timeout,
    }
}

/// The state a peer sent.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is not set or not known here.
pub fn from_wire(state: i32) -> Result<JobState, Refusal> {
    Ok(match v1::JobState::try_from(state) {
        Ok(v1::JobState::Pending) => JobState::Pending,
        Ok(v1::JobState::Queued) => JobState::Queued,
        Ok(v1::JobState::Assigned) => JobState::Assigned,
        Ok(v1::JobState::Running) => JobState::Running,
        Ok(v1::JobState::Cancelling) => JobState::Cancelling,
        Ok(v1::JobState::Completed) => JobState::Completed,
        Ok(v1::JobState::Failed) => JobState::Failed,
        Ok(v1::JobState::Cancelled) => JobState::Cancelled,
        Ok(v1::JobState::Timeout) => JobState::Timeout,
        Ok(v1::JobState::Unspecified) | Err(_) => return Err(unknown("state", state)),
    })
}

/// The state in one lower-case word, as people and JSON see it.
#[must_use]
pub fn word(state: JobState) -> &'static str {
    match state {
        JobState::Pending => "pending",
        JobState::Queued => "queued",
        JobState::Assigned => "assigned",
        JobState::Running => "running",
        JobState::Cancelling => "cancelling",
        JobState::Completed => "completed",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
        JobState::Timeout => "timeout",
    }
}

/// How an attempt ended, as the wire has it.
#[must_use]
pub fn outcome_to_wire(status: OutcomeStatus) -> v1::OutcomeStatus {
    match status {
        OutcomeStatus::Completed => v1::OutcomeStatus::Completed,
        OutcomeStatus::Failed => v1::OutcomeStatus::Failed,
        OutcomeStatus::Cancelled => v1::OutcomeStatus::Cancelled,
        OutcomeStatus::Timeout => v1::OutcomeStatus::Timeout,
    }
}

/// How an attempt ended, as a worker says.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is not set or not known here.
pub fn outcome_from_wire(status: i32) -> Result<OutcomeStatus, Refusal> {
    Ok(match v1::OutcomeStatus::try_from(status) {
        Ok(v1::OutcomeStatus::Completed) => OutcomeStatus::Completed,
        Ok(v1::OutcomeStatus::Failed) => OutcomeStatus::Failed,
        Ok(v1::OutcomeStatus::Cancelled) => OutcomeStatus::Cancelled,
        Ok(v1::OutcomeStatus::Timeout) => OutcomeStatus::Timeout,
        Ok(v1::OutcomeStatus::Unspecified) | Err(_) => return Err(unknown("status", status)),
    })
}

/// `JobResult.status`.
#[must_use]
pub fn outcome_word(status: OutcomeStatus) -> &'static str {
    match status {
        OutcomeStatus::Completed => "completed",
        OutcomeStatus::Failed => "failed",
        OutcomeStatus::Cancelled => "cancelled",
        OutcomeStatus::Timeout => "timeout",
    }
}

/// Whose fault a refusal is, as the wire has it.
#[must_use]
pub fn fault_to_wire(fault: RefusalFault) -> v1::RefusalFault {
    match fault {
        RefusalFault::Job => v1::RefusalFault::Job,
        RefusalFault::Worker => v1::RefusalFault::Worker,
        RefusalFault::Busy => v1::RefusalFault::Busy,
    }
}

/// Whose fault a refusal is, as a worker says.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is not set or not known here.
pub fn fault_from_wire(fault: i32) -> Result<RefusalFault, Refusal> {
    Ok(match v1::RefusalFault::try_from(fault) {
        Ok(v1::RefusalFault::Job) => RefusalFault::Job,
        Ok(v1::RefusalFault::Worker) => RefusalFault::Worker,
        Ok(v1::RefusalFault::Busy) => RefusalFault::Busy,
        Ok(v1::RefusalFault::Unspecified) | Err(_) => return Err(unknown("fault", fault)),
    })
}

fn unknown(field: &str, value: i32) -> Refusal {
    match value {
        0 => Refusal::of_field(field, "required"),
        value => Refusal::of_field(field, format!("{value} is not known here")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_comes_back() {
        let states: Vec<JobState> = (1..=9).filter_map(|number| from_wire(number).ok()).collect();
        assert_eq!(states.len(), 9);
        for state in states {
            let wire = to_wire(state);
            assert_eq!(from_wire(wire.into()).ok(), Some(state));
            assert!(wire.as_str_name().to_lowercase().ends_with(word(state)));
        }
        assert!(from_wire(0).is_err());
        assert!(from_wire(77).is_err());
    }

    #[test]
    fn every_outcome_and_fault_comes_back() {
        for number in 1..=4 {
            assert_eq!(outcome_from_wire(number).map(|status| outcome_to_wire(status) as i32).ok(), Some(number));
        }
        for number in 1..=3 {
            assert_eq!(fault_from_wire(number).map(|fault| fault_to_wire(fault) as i32).ok(), Some(number));
        }
        assert!(outcome_from_wire(0).is_err());
        assert!(fault_from_wire(-1).is_err());
    }
}
