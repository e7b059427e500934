//! The simulation over many seeds: the long form of the slice that the tests run. It is built as the tests are, optimised,
//! with the checks of a development build.

use std::process::Command;

use anyhow::Result;

use crate::shell::{cargo, check, root};

pub(crate) fn run(first: u64, seeds: u64, steps: u64) -> Result<()> {
    check(
        Command::new(cargo())
            .args(["test", "--quiet", "--locked", "--package", "guestkit-system-tests", "--test", "simulation"])
            .args(["--", "--exact", "every_job_ends_exactly_once", "--nocapture"])
            .env("GUESTKIT_SIMULATION_FIRST", first.to_string())
            .env("GUESTKIT_SIMULATION_SEEDS", seeds.to_string())
            .env("GUESTKIT_SIMULATION_STEPS", steps.to_string())
            .current_dir(root()),
    )
}
