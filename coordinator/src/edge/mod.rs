//! The edge: what a peer may cost, whoever it is and whatever it sends. Connections, calls under way, and bytes that have
//! arrived in part or were not taken are counted for each address; what is begun must be finished in time. Beyond the bounds
//! a call is answered with `RESOURCE_EXHAUSTED`, a connection is closed, and nobody else notices.

mod calls;
mod connections;

pub use calls::{Calls, Metered};
pub use connections::{Gate, Guarded, Limits, Peer};
