//! The worker: takes leases from a coordinator or job files from a folder, and runs each attempt in a process of its own.
//! It knows nothing of disks: reading them is the engine's, and what a message means is the protocol's.

pub mod attempt;
pub mod config;
pub mod failure;
pub mod folder;
pub mod handlers;
pub mod local;
pub mod outcome;
pub mod output;
pub mod placement;
pub mod roots;
pub mod rules;
pub mod sandbox;
pub mod session;
pub mod shutdown;
pub mod spool;
pub mod trace;
pub mod usage;
pub mod wire;
pub mod worker;
