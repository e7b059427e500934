//! Stories of the whole system, told with the programs a user runs: no fake peers, no fake disks.

// Helpers of stories are tests: a panic is how they fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod bad_input;
mod deaths;
mod examples;
mod failover;
mod folder;
mod full_disk;
mod house;
mod large_results;
mod network;
mod truth;
