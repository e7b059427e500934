//! The instants and durations of the wire, as a worker meets them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use guestkit_domain::Time;
use guestkit_protocol::convert::time;

/// An instant of this machine's clock, as the domain counts.
#[must_use]
pub fn time_of(at: SystemTime) -> Time {
    Time::default().plus(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// An instant of this machine's clock, as the wire has it.
#[must_use]
pub fn timestamp(at: SystemTime) -> prost_types::Timestamp {
    time::to_wire(time_of(at))
}

/// A duration from the wire; `None` when it is absent or makes no sense.
#[must_use]
pub fn duration(wire: Option<&prost_types::Duration>) -> Option<Duration> {
    time::duration_from_wire(wire?)
}
