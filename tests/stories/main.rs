//! Stories of the whole system, told with the programs a user runs: no fake peers, no fake disks.

mod bad_input;
mod deaths;
mod examples;
mod folder;
mod house;
mod large_results;
mod truth;
