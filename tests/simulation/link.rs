//! The stream between a worker and its coordinator, as TCP and gRPC make it: in order, whole up to where it breaks, each end
//! learning of the break in its own time or not at all. What was said on one stream may arrive after what was said on a later
//! one. In *wild* seeds single messages are lost, doubled and overtaken as well, which no stream does: what must be safe is
//! safe even then.

use std::collections::VecDeque;

use guestkit_domain::SessionId;
use guestkit_protocol::v1::session_request::Message as Said;
use guestkit_protocol::v1::session_response::Message as Say;

use crate::oracle::Oracle;
use crate::random::Random;

/// The coordinator's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Waits for the Hello.
    Fresh,
    Open(SessionId),
    Closed,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) worker: usize,
    pub(crate) boot: u64,
    pub(crate) to_coordinator: VecDeque<Said>,
    pub(crate) to_worker: VecDeque<Say>,
    /// Whether the worker uses it still.
    pub(crate) worker_open: bool,
    pub(crate) coordinator: End,
    /// Nothing moves on it, and neither end knows.
    pub(crate) stuck: bool,
    /// Whether another process of the worker's name has connected since.
    pub(crate) rival: bool,
}

impl Stream {
    pub(crate) fn new(worker: usize, boot: u64) -> Self {
        Self {
            worker,
            boot,
            to_coordinator: VecDeque::new(),
            to_worker: VecDeque::new(),
            worker_open: true,
            coordinator: End::Fresh,
            stuck: false,
            rival: false,
        }
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        match self.coordinator {
            End::Open(session) => Some(session),
            End::Fresh | End::Closed => None,
        }
    }

    /// Whether the coordinator's end has something to hear, be it the end.
    pub(crate) fn stirs_coordinator(&self) -> bool {
        !self.stuck && self.coordinator != End::Closed && (!self.to_coordinator.is_empty() || !self.worker_open)
    }

    /// Whether the worker's end has something to hear, be it the end.
    pub(crate) fn stirs_worker(&self) -> bool {
        !self.stuck && self.worker_open && (!self.to_worker.is_empty() || self.coordinator == End::Closed)
    }

    /// Whether everything said has been heard.
    pub(crate) fn quiet(&self) -> bool {
        !self.stuck && self.to_coordinator.is_empty() && self.to_worker.is_empty()
    }
}

/// What was said last may be lost with the connection.
pub(crate) fn cut_short<T>(queue: &mut VecDeque<T>, random: &mut Random) {
    let kept = random.below(queue.len() as u64 + 1) as usize;
    queue.truncate(kept);
}

/// Takes the next message out; `wild` streams lose, double and reorder.
pub(crate) fn next<T: Clone>(
    queue: &mut VecDeque<T>,
    wild: bool,
    random: &mut Random,
    oracle: &mut Oracle,
) -> Option<T> {
    let message = queue.pop_front()?;
    if !wild {
        return Some(message);
    }
    match random.below(100) {
        0..3 => {
            oracle.saw("message doubled");
            queue.push_back(message.clone());
        }
        3..6 => {
            oracle.saw("message overtaken");
            queue.push_back(message);
            return None;
        }
        6..8 => {
            oracle.saw("message lost");
            return None;
        }
        _ => {}
    }
    Some(message)
}
