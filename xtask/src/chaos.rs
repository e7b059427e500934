//! The proof with real processes: what `docs/proof.md` states is what this prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::bench::machine;
use crate::shell::{cargo, check, root, say, target_dir};

/// What to prove.
#[derive(Debug, Args)]
pub(crate) struct Chaos {
    /// What the coordinators keep their jobs in.
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    store: Store,
    /// Jobs submitted while processes are killed and frozen.
    #[arg(long, default_value_t = 5_000)]
    jobs: u32,
    /// How long processes are killed and frozen.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Workers.
    #[arg(long, default_value_t = 4)]
    workers: u32,
    /// Coordinators [default: 1 on SQLite, 3 on PostgreSQL].
    #[arg(long)]
    coordinators: Option<u32>,
    /// Names the choice of faults and jobs; another one each time when absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Put the table into docs/proof.md.
    #[arg(long)]
    record: bool,
}

/// What the coordinators keep their jobs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Store {
    Sqlite,
    Postgres,
}

impl Store {
    fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

pub(crate) fn run(asked: &Chaos) -> Result<()> {
    let store = asked.store.name();
    if asked.store == Store::Sqlite && asked.coordinators.is_some_and(|count| count != 1) {
        bail!("SQLite has one coordinator; several need --store postgres");
    }
    let seed = asked.seed.unwrap_or_else(|| std::process::id().into());
    build()?;
    let mut variables = vec![
        ("JOBS", asked.jobs.to_string()),
        ("SECONDS", format!("{:.0}", asked.minutes * 60.0)),
        ("WORKERS", asked.workers.to_string()),
        ("SEED", seed.to_string()),
    ];
    variables.extend(asked.coordinators.map(|count| ("COORDINATORS", count.to_string())));
    let report = prove(&format!("storm::{store}"), &variables)?;
    if asked.record {
        let command = format!("cargo xtask chaos --store {store} --seed {seed}");
        record(store, &command, &report)?;
    }
    Ok(())
}

fn build() -> Result<()> {
    say("building in release");
    let mut command = Command::new(cargo());
    command.args(["build", "--quiet", "--release", "--locked", "--bins"]);
    for package in ["guestkit-cli", "guestkit-coordinator", "guestkit-worker"] {
        command.args(["--package", package]);
    }
    check(command.current_dir(root()))
}

/// Runs one test of the chaos tests against the release build; gives the table it made.
fn prove(test: &str, variables: &[(&str, String)]) -> Result<String> {
    let report = target_dir().join("chaos.md");
    // What an earlier run left is not this one's.
    let _ = fs::remove_file(&report);
    let mut command = Command::new(cargo());
    command.args(["test", "--quiet", "--release", "--locked", "--package", "guestkit-system-tests", "--test", "chaos"]);
    command.args(["--", "--exact", test, "--include-ignored", "--nocapture"]);
    command.env("GUESTKIT_CHAOS_REPORT", &report).current_dir(root());
    for (name, value) in variables {
        command.env(format!("GUESTKIT_CHAOS_{name}"), value);
    }
    check(&mut command)?;
    fs::read_to_string(&report).with_context(|| format!("failed to read {}", report.display()))
}

/// Puts a table between the marks of its section, with what made it.
fn record(section: &str, command: &str, table: &str) -> Result<()> {
    let path = proof();
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let (begin, end) = (format!("<!-- {section}: begin -->\n"), format!("<!-- {section}: end -->"));
    let (Some((before, rest)), Some((_, after))) = (text.split_once(&begin), text.split_once(&end)) else {
        bail!("{} has no section between {:?} and {end:?}", path.display(), begin.trim());
    };
    if !rest.contains(&end) {
        bail!("the marks of {section} stand in the wrong order in {}", path.display());
    }
    let made = format!("`{command}`, {}; {}.", today()?, machine());
    let text = format!("{before}{begin}\n{made}\n\n{table}\n{end}{after}");
    fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    say(format_args!("recorded in {}", shown(&path)));
    Ok(())
}

fn proof() -> PathBuf {
    root().join("docs/proof.md")
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn today() -> Result<String> {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().context("failed to start date")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
