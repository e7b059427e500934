//! The proof with real processes: what `docs/proof.md` states is what this prints.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::record::record;
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
    /// Instead of a storm: call `guestkit submit --watch` so often, one call after the other.
    #[arg(long, value_name = "CALLS", conflicts_with_all = ["store", "detection"])]
    submit_watch: Option<u32>,
    /// Instead of a storm: measure how soon a dead worker's job runs elsewhere.
    #[arg(long, conflicts_with = "store")]
    detection: bool,
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

/// Workers killed, and workers frozen, of which the median and the longest are told.
const DETECTIONS: u32 = 20;

/// One thing to prove.
struct Proof {
    /// The test that proves it.
    test: String,
    /// Its section in docs/proof.md.
    section: &'static str,
    /// What is typed to prove it again.
    command: String,
    /// What the test is told.
    variables: Vec<(&'static str, String)>,
}

pub(crate) fn run(asked: &Chaos) -> Result<()> {
    let proof = proof(asked)?;
    build()?;
    let table = prove(&proof)?;
    if asked.record {
        record("docs/proof.md", proof.section, &proof.command, &table)?;
    }
    Ok(())
}

fn proof(asked: &Chaos) -> Result<Proof> {
    if let Some(calls) = asked.submit_watch {
        return Ok(Proof {
            test: "submit_watch::no_call_hangs".into(),
            section: "submit-watch",
            command: format!("cargo xtask chaos --submit-watch {calls}"),
            variables: vec![("SUBMIT_WATCH", calls.to_string())],
        });
    }
    if asked.detection {
        return Ok(Proof {
            test: "detection::a_dead_workers_job_runs_elsewhere_soon".into(),
            section: "detection",
            command: "cargo xtask chaos --detection".into(),
            variables: vec![("DETECTIONS", DETECTIONS.to_string())],
        });
    }
    storm(asked)
}

fn storm(asked: &Chaos) -> Result<Proof> {
    let store = asked.store.name();
    if asked.store == Store::Sqlite && asked.coordinators.is_some_and(|count| count != 1) {
        bail!("SQLite has one coordinator; several need --store postgres");
    }
    let seed = asked.seed.unwrap_or_else(|| std::process::id().into());
    let Chaos { jobs, minutes, workers, .. } = asked;
    let mut variables = vec![
        ("JOBS", jobs.to_string()),
        ("SECONDS", format!("{:.0}", minutes * 60.0)),
        ("WORKERS", workers.to_string()),
        ("SEED", seed.to_string()),
    ];
    let mut command =
        format!("cargo xtask chaos --store {store} --jobs {jobs} --minutes {minutes} --workers {workers}");
    if let Some(count) = asked.coordinators {
        variables.push(("COORDINATORS", count.to_string()));
        command += &format!(" --coordinators {count}");
    }
    command += &format!(" --seed {seed}");
    Ok(Proof { test: format!("storm::{store}"), section: store, command, variables })
}

fn build() -> Result<()> {
    say("building in release");
    // The whole workspace, so that every chore that measures shares one build.
    let mut command = Command::new(cargo());
    command.args(["build", "--quiet", "--release", "--locked", "--workspace", "--bins"]);
    check(command.current_dir(root()))
}

/// Runs a proof's test against the release build; gives the table it made.
fn prove(proof: &Proof) -> Result<String> {
    let report = target_dir().join("chaos.md");
    // What an earlier run left is not this one's.
    let _ = fs::remove_file(&report);
    let mut command = Command::new(cargo());
    command.args(["test", "--quiet", "--release", "--locked", "--workspace", "--test", "chaos"]);
    command.args(["--", "--exact", &proof.test, "--nocapture"]);
    command.env("GUESTKIT_CHAOS_REPORT", &report).current_dir(root());
    for (name, value) in &proof.variables {
        command.env(format!("GUESTKIT_CHAOS_{name}"), value);
    }
    check(&mut command)?;
    fs::read_to_string(&report).with_context(|| format!("failed to read {}", report.display()))
}
