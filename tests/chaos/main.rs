//! Chaos: real processes are killed, frozen and restarted while jobs go through them, and what became of every job is then
//! judged from outside. The slice that runs with the other tests is short; `cargo xtask chaos` runs the long form.
//!
//! Every choice follows from a seed. What the operating system does with it does not: a seed names a storm, not an outcome.

// All of this is a test: a panic is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::indexing_slicing)]

mod clients;
mod cluster;
mod detection;
mod door;
mod faults;
mod follower;
mod plan;
mod settings;
mod storm;
mod submit_watch;
mod verdict;
