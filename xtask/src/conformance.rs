//! Every family of the corpus against its truth: the table in the README is what this prints.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::record::record;
use crate::shell::{cargo, check, root, target_dir};
use crate::test::lay_out_corpus;

/// What to compare with.
#[derive(Debug, Args)]
pub(crate) struct Conformance {
    /// Folder with the corpus of real disks.
    #[arg(long, value_name = "DIR", env = "GUESTKIT_CORPUS")]
    corpus: Option<PathBuf>,
    /// Put the table into the README.
    #[arg(long)]
    record: bool,
}

pub(crate) fn run(asked: Conformance) -> Result<()> {
    let corpus = lay_out_corpus(asked.corpus)?.context("the corpus is not there; name its folder with --corpus")?;
    let report = target_dir().join("conformance.md");
    let mut command = Command::new(cargo());
    // The whole workspace, so that every chore shares one build.
    command.args(["test", "--quiet", "--release", "--locked", "--workspace", "--test", "conformance"]);
    command.args(["--", "--nocapture"]).current_dir(root());
    command.env("GUESTKIT_CORPUS", corpus).env("GUESTKIT_CONFORMANCE_REPORT", &report);
    // What an earlier run left is not this one's.
    let _ = fs::remove_file(&report);
    let passed = check(&mut command);
    if asked.record {
        let table = fs::read_to_string(&report).with_context(|| format!("failed to read {}", report.display()))?;
        record("README.md", "conformance", "cargo xtask conformance", &table)?;
    }
    passed
}
