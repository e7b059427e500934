//! One function per input, named after it.

mod accept;
mod cancel;
mod connect;
mod delete;
mod disconnect;
mod drain;
mod draining;
mod expire;
mod heartbeat;
mod outcome;
mod progress;
mod recall;
mod refuse;
mod resume;
mod retry;
mod submit;
mod wake;

pub(crate) use connect::Hello;
pub(crate) use outcome::Report;
pub(crate) use progress::Throttle;
