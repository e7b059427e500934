//! The scheduler's simulation over many seeds: the long form of the slice that the tests run.

use std::process::Command;

use anyhow::Result;

use crate::shell::{cargo, check, root};

pub(crate) fn run(seeds: u64, steps: u64) -> Result<()> {
    check(
        Command::new(cargo())
            .args(["test", "--release", "--package", "guestkit-scheduler", "--test", "simulation", "--", "--nocapture"])
            .env("GUESTKIT_SIMULATION_SEEDS", seeds.to_string())
            .env("GUESTKIT_SIMULATION_STEPS", steps.to_string())
            .current_dir(root()),
    )
}
