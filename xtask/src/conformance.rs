//! Every family of the corpus, or every guest of it, against its truth: the tables in the README are what this prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::record::record;
use crate::shell::{cargo, check, root, target_dir};
use crate::test::lay_out_corpus;

/// What to compare with.
#[derive(Debug, Args)]
pub(crate) struct Conformance {
    /// What is compared.
    #[arg(value_enum, default_value_t = What::Disks)]
    what: What,
    /// Folder with the corpus of real disks.
    #[arg(long, value_name = "DIR", env = "GUESTKIT_CORPUS")]
    corpus: Option<PathBuf>,
    /// Put the table into the README.
    #[arg(long)]
    record: bool,
}

/// The parts of the corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Images, volumes and file systems, with what the formats' own tools say of them.
    Disks,
    /// Whole guests, field by field, with what virt-inspector says of them.
    Guests,
    /// Guests by every profile, with the verdicts of other tools and of people.
    Profiles,
}

impl What {
    /// The test that compares, the section of the README for its table, and the command that makes it.
    const fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Disks => ("conformance", "conformance", "cargo xtask conformance"),
            Self::Guests => ("guest_conformance", "guest conformance", "cargo xtask conformance guests"),
            Self::Profiles => ("profiles", "profile conformance", "cargo xtask conformance profiles"),
        }
    }
}

pub(crate) fn run(asked: Conformance) -> Result<()> {
    let corpus = lay_out_corpus(asked.corpus)?.context("the corpus is not there; name its folder with --corpus")?;
    let (test, section, command_line) = asked.what.names();
    let (report, sheet) = (target_dir().join(format!("{test}.md")), target_dir().join("agreement.md"));
    let mut command = Command::new(cargo());
    // The whole workspace, so that every chore shares one build.
    command.args(["test", "--quiet", "--no-fail-fast", "--release", "--locked", "--workspace", "--test", test]);
    if asked.what == What::Disks {
        command.args(["--test", "agreement"]);
    }
    command.args(["--", "--nocapture"]).current_dir(root());
    command.env("GUESTKIT_CORPUS", corpus).env("GUESTKIT_CONFORMANCE_REPORT", &report);
    command.env("GUESTKIT_AGREEMENT_REPORT", &sheet);
    // What an earlier run left is not this one's.
    let _ = fs::remove_file(&report);
    let _ = fs::remove_file(&sheet);
    let passed = check(&mut command);
    if asked.record {
        let read = |file: &Path| fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()));
        let mut table = read(&report)?.trim().to_owned();
        if asked.what == What::Profiles {
            let mut rows: Vec<&str> = table.lines().collect();
            rows.sort_unstable();
            table = format!("| against | cases | agree | |\n|---|---|---|---|\n{}", rows.join("\n"));
        }
        if asked.what == What::Disks {
            table += "\n\n`guestkit local filesystems --long --all` of every image beside the tools, run in the same minute:\n\n";
            table += read(&sheet)?.trim();
        }
        record("README.md", section, command_line, &table)?;
    }
    passed
}
