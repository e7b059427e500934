//! The worker in a fleet: a pure machine that decides, and the stream it decides about.

pub mod machine;
pub mod stream;
mod upload;
