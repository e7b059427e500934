//! The project's chores, one file each; `cargo xtask --help` lists them.

mod bench;
mod chaos;
mod conformance;
mod demo;
mod fixtures;
mod fuzz;
mod oracle;
mod record;
mod schema;
mod shell;
mod simulate;
mod test;
mod tidy;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of the guestkit project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Build everything, start a coordinator and two workers, send jobs through them, show what happens, leave cleanly.
    Demo {
        /// Inspect this disk image instead of the small guest that the repository carries.
        #[arg(long, value_name = "PATH")]
        image: Option<PathBuf>,
    },
    /// Everything that must pass: format, clippy, docs, unit, story, simulation slice, system tests, examples.
    Test {
        /// Folder with the corpus of real disks; without it the tests that need one say so and pass.
        #[arg(long, value_name = "DIR", env = "GUESTKIT_CORPUS")]
        corpus: Option<PathBuf>,
    },
    /// Measure what the README states (release build) and print the tables; without a part, everything.
    Bench {
        #[command(subcommand)]
        part: Option<bench::Part>,
    },
    /// Kill and freeze real processes while jobs go through them, and prove that each job ended exactly once (release build).
    Chaos(chaos::Chaos),
    /// Read every disk, or every guest, of the corpus and compare with what other tools say of it; print the table of the README.
    Conformance(conformance::Conformance),
    /// Take mutated disks through the whole engine: nothing may panic, hang or take memory without bound.
    Fuzz(fuzz::Fuzz),
    /// Read file systems as this machine's kernel does, and compare everything (root, loop devices; release build).
    Oracle(oracle::Oracle),
    /// Run the simulation of scheduler, workers and their streams over many seeds.
    Simulate {
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// How many seeds.
        #[arg(long, default_value_t = 2_000)]
        seeds: u64,
        /// Steps of each.
        #[arg(long, default_value_t = 1_000)]
        steps: u64,
    },
    /// Make the guest image of the demo and the tests again (Debian, root, mmdebstrap).
    Fixtures,
    /// Write the JSON Schema of the job document again.
    Schema,
    /// Check what no compiler checks: words, paths, headers, the map in ARCHITECTURE.md.
    Tidy,
}

fn main() -> ExitCode {
    match run(Args::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> anyhow::Result<()> {
    match chore {
        Chore::Demo { image } => demo::run(image),
        Chore::Test { corpus } => test::run(corpus),
        Chore::Bench { part } => bench::run(part),
        Chore::Chaos(asked) => chaos::run(&asked),
        Chore::Conformance(asked) => conformance::run(asked),
        Chore::Fuzz(asked) => fuzz::run(asked),
        Chore::Oracle(asked) => oracle::run(asked),
        Chore::Simulate { first, seeds, steps } => simulate::run(first, seeds, steps),
        Chore::Fixtures => fixtures::run(),
        Chore::Schema => schema::run(),
        Chore::Tidy => tidy::run(),
    }
}
