//! Mutated disks through the engine, for as long as one likes (release build, with checks of overflow).

use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::shell::{cargo, check, root};
use crate::test::lay_out_corpus;

/// What to fuzz.
#[derive(Debug, Args)]
pub(crate) struct Fuzz {
    /// Minutes for each target.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Only this target: a test of worker/guestkit/tests/fuzz.rs.
    #[arg(long)]
    target: Option<String>,
    /// Only this round, as a failure named it.
    #[arg(long, value_name = "SEED:NUMBER", requires = "target")]
    round: Option<String>,
    /// Folder with the corpus of real disks, which the seeds are.
    #[arg(long, value_name = "DIR", env = "GUESTKIT_CORPUS")]
    corpus: Option<PathBuf>,
}

pub(crate) fn run(asked: Fuzz) -> Result<()> {
    let corpus = lay_out_corpus(asked.corpus)?.context("the corpus is not there; name its folder with --corpus")?;
    let mut command = Command::new(cargo());
    command.args(["test", "--quiet", "--release", "--locked", "--workspace", "--test", "fuzz"]);
    command.args(["--", "--nocapture", "--test-threads", "2"]).current_dir(root());
    command.env("GUESTKIT_CORPUS", corpus).env("GUESTKIT_FUZZ_SECONDS", (asked.minutes * 60.0).to_string());
    // Not where the last run was.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    command.env("GUESTKIT_FUZZ_FIRST", now.saturating_mul(1_000_000).to_string());
    if let Some(target) = asked.target {
        command.env("GUESTKIT_FUZZ_TARGET", target);
    }
    if let Some(round) = asked.round {
        command.env("GUESTKIT_FUZZ_ROUND", round);
    }
    check(&mut command)
}
