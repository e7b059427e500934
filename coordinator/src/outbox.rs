//! What waits to be sent to one worker. Bounded: a worker that does not take what is sent to it is told so and its session
//! ends; it connects again and resumes its leases, and nobody else notices.

use guestkit_domain::{Duration, JobId};
use guestkit_protocol::v1;
use guestkit_scheduler::{Body, GoodbyeReason, ToWorker};
use tokio::sync::{mpsc, watch};

/// Messages that wait for one worker. A worker has at most 1,024 slots; each may have an offer, a cancel and an
/// acknowledgement under way.
const MESSAGES_MAX: usize = 4096;

/// One message for a worker.
#[derive(Debug)]
pub struct Outgoing {
    /// The message.
    pub message: ToWorker,
    /// Of an offer: the encoded `JobDocument` when it was at hand; otherwise it is to be read from the store.
    pub document: Option<Body>,
}

impl Outgoing {
    /// The job of an offer whose document is not at hand.
    #[must_use]
    pub fn lacks(&self) -> Option<&JobId> {
        match &self.message {
            ToWorker::Lease { job_id, .. } if self.document.is_none() => Some(job_id),
            _ => None,
        }
    }
}

/// The driver's end.
#[derive(Debug)]
pub struct Outbox {
    messages: mpsc::Sender<Outgoing>,
    ending: watch::Sender<Option<v1::Goodbye>>,
}

/// The session's end.
#[derive(Debug)]
pub struct Outgoings {
    messages: mpsc::Receiver<Outgoing>,
    ending: watch::Receiver<Option<v1::Goodbye>>,
}

/// The worker does not take what is sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Both ends.
#[must_use]
pub fn outbox() -> (Outbox, Outgoings) {
    let (messages, taken) = mpsc::channel(MESSAGES_MAX);
    let (ending, ended) = watch::channel(None);
    (Outbox { messages, ending }, Outgoings { messages: taken, ending: ended })
}

impl Outbox {
    /// Puts a message in. One for a session that has just ended is dropped: its leases find their own way.
    ///
    /// # Errors
    /// When there is no room.
    pub fn send(&self, message: Outgoing) -> Result<(), Full> {
        match self.messages.try_send(message) {
            Err(mpsc::error::TrySendError::Full(_)) => Err(Full),
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Ends the session with a reason.
    pub fn end(self, goodbye: v1::Goodbye) {
        self.ending.send_replace(Some(goodbye));
    }
}

/// What a session does next.
#[derive(Debug)]
pub enum Next {
    /// Send this.
    Send(Outgoing),
    /// Send what [`Outgoings::rest`] still has, then this, and end.
    End(v1::Goodbye),
    /// The same without a last word: nobody decides here any more.
    Abandoned,
}

impl Outgoings {
    /// Waits for something to send.
    pub async fn next(&mut self) -> Next {
        let message = tokio::select! {
            _ = self.ending.wait_for(Option::is_some) => None,
            message = self.messages.recv() => message,
        };
        match message {
            Some(message) => Next::Send(message),
            None => self.ending.borrow().clone().map_or(Next::Abandoned, Next::End),
        }
    }

    /// What was put in before the end.
    pub fn rest(&mut self) -> Option<Outgoing> {
        self.messages.try_recv().ok()
    }
}

/// The coordinator stops; leases stand.
#[must_use]
pub fn stopping() -> v1::Goodbye {
    goodbye(v1::GoodbyeReason::ShuttingDown, "the coordinator is stopping; leases stand", RECONNECT_AFTER_RESTART)
}

/// Another coordinator leads, or is about to; leases stand.
#[must_use]
pub fn not_leader(leader: Option<String>) -> v1::Goodbye {
    let text = "this coordinator does not lead; leases stand";
    v1::Goodbye { leader: leader.unwrap_or_default(), ..goodbye(v1::GoodbyeReason::NotLeader, text, Duration::ZERO) }
}

/// Long enough for a restart not to be met by everybody's first try, short against a lease's life.
pub const RECONNECT_AFTER_RESTART: Duration = Duration::from_secs(1);

/// The last message of a session that the scheduler ended.
#[must_use]
pub fn farewell(reason: GoodbyeReason) -> v1::Goodbye {
    let (reason, text, after) = match reason {
        // Two processes that fight for one name should at least do it slowly.
        GoodbyeReason::Superseded => {
            (v1::GoodbyeReason::Superseded, "a newer session of this worker took over", Duration::from_secs(10))
        }
        GoodbyeReason::Silent => {
            let text = "nothing was heard for the whole life of a lease; leases are void";
            (v1::GoodbyeReason::Silent, text, RECONNECT_AFTER_RESTART)
        }
        GoodbyeReason::TooManyWorkers => {
            let text = "there are more workers than this coordinator keeps";
            (v1::GoodbyeReason::TooManyWorkers, text, Duration::from_secs(60))
        }
    };
    goodbye(reason, text, after)
}

/// A last message.
#[must_use]
pub fn goodbye(reason: v1::GoodbyeReason, message: impl Into<String>, reconnect_after: Duration) -> v1::Goodbye {
    v1::Goodbye {
        reason: reason.into(),
        message: message.into(),
        reconnect_after: Some(guestkit_protocol::convert::time::duration_to_wire(reconnect_after)),
        leader: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(sequence: u64) -> Outgoing {
        Outgoing {
            message: ToWorker::HeartbeatAck { sequence, heartbeat_interval: Duration::from_secs(5) },
            document: None,
        }
    }

    #[tokio::test]
    async fn a_full_outbox_says_so_and_what_was_in_it_stays() {
        let (outbox, mut outgoings) = outbox();
        for sequence in 0..MESSAGES_MAX as u64 {
            outbox.send(beat(sequence)).unwrap();
        }
        assert_eq!(outbox.send(beat(0)), Err(Full));
        outbox.end(goodbye(v1::GoodbyeReason::Slow, "slow", Duration::ZERO));
        let mut rest = 0;
        let said = loop {
            match outgoings.next().await {
                Next::Send(_) => rest += 1,
                Next::End(goodbye) => break goodbye,
                Next::Abandoned => panic!("a reason was given"),
            }
        };
        while outgoings.rest().is_some() {
            rest += 1;
        }
        assert_eq!(rest, MESSAGES_MAX);
        assert_eq!(said.reason(), v1::GoodbyeReason::Slow);
    }

    #[tokio::test]
    async fn a_driver_that_is_gone_leaves_its_sessions_alone() {
        let (outbox, mut outgoings) = outbox();
        drop(outbox);
        assert!(matches!(outgoings.next().await, Next::Abandoned));
    }
}
