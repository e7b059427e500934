//! Every family of the corpus against its truth: the table in the README is what this prints.

use std::fs;
use std::path::{Path, PathBuf};
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
    let (report, sheet) = (target_dir().join("conformance.md"), target_dir().join("agreement.md"));
    let mut command = Command::new(cargo());
    // The whole workspace, so that every chore shares one build.
    command.args([
        "test",
        "--quiet",
        "--no-fail-fast",
        "--release",
        "--locked",
        "--workspace",
        "--test",
        "conformance",
    ]);
    command.args(["--test", "agreement"]);
    command.args(["--", "--nocapture"]).current_dir(root());
    command.env("GUESTKIT_CORPUS", corpus).env("GUESTKIT_CONFORMANCE_REPORT", &report);
    command.env("GUESTKIT_AGREEMENT_REPORT", &sheet);
    // What an earlier run left is not this one's.
    let _ = fs::remove_file(&report);
    let _ = fs::remove_file(&sheet);
    let passed = check(&mut command);
    if asked.record {
        let read = |file: &Path| fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()));
        let table = format!(
            "{}\n\n`guestkit local filesystems --long --all` of every image beside the tools, run in the same minute:\n\n{}",
            read(&report)?.trim(),
            read(&sheet)?.trim()
        );
        record("README.md", "conformance", "cargo xtask conformance", &table)?;
    }
    passed
}
