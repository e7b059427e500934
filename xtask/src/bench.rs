//! The README's figures: what the engine costs, and what the fleet costs. Release build; medians; the machine is named,
//! because a figure without its machine is a rumour.

mod engine;
mod images;
mod inspect;
mod profile;
mod program;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use self::engine::Engine;
use self::inspect::Inspect;
use self::profile::Profile;

use crate::record::{machine, record};
use crate::shell::{Need, cargo, check, require, root, say, target_dir};

/// The others, as they are measured: exact, because figures of another version are other figures.
const GRAPHILE: &str = "graphile-worker@0.17.3";
const NATS: &str = "nats-py==2.16.0";

/// What is measured.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Part {
    /// What reading disks costs, beside the kernel and the formats' own tools.
    Engine(Engine),
    /// What an inspection costs, beside the tools that do the same; and a fleet that inspects ten thousand images.
    Inspect(Inspect),
    /// What judging a guest by every profile costs, beside OpenSCAP.
    Profile(Profile),
    /// What the fleet costs: its scenarios one after another, then the aims with their verdicts.
    Fleet(Fleet),
    /// Run one program and print what it took: the others use it.
    #[command(hide = true)]
    One {
        /// The program and what it is given.
        #[arg(required = true, last = true)]
        words: Vec<OsString>,
    },
}

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Fleet {
    /// A tenth of the work: for trying the harness out, not for figures.
    #[arg(long)]
    quick: bool,
    /// Only these scenarios; an unknown name is answered with those there are.
    #[arg(long, value_name = "SCENARIO", value_delimiter = ',')]
    only: Vec<String>,
    /// Put the tables into docs/cost.md.
    #[arg(long, conflicts_with_all = ["quick", "only"])]
    record: bool,
}

pub(crate) fn run(part: Option<Part>) -> Result<()> {
    if let Some(Part::One { words }) = part {
        return program::one(&words);
    }
    say("building in release");
    check(
        Command::new(cargo())
            .args(["build", "--quiet", "--release", "--workspace", "--bins", "--locked"])
            .current_dir(root()),
    )?;
    say(machine());
    match part {
        Some(Part::Engine(what)) => engine::run(&what),
        Some(Part::Inspect(what)) => inspect::run(&what),
        Some(Part::Profile(what)) => profile::run(&what),
        Some(Part::Fleet(what)) => fleet(&what),
        Some(Part::One { .. }) | None => {
            engine::run(&Engine::default())?;
            fleet(&Fleet::default())
        }
    }
}

fn fleet(what: &Fleet) -> Result<()> {
    let mut command = Command::new(cargo());
    // The whole workspace, so that dependencies are built as for the programs and not a second time.
    command.args(["bench", "--quiet", "--locked", "--workspace", "--bench", "fleet", "--"]);
    if what.only.is_empty() || what.only.iter().any(|name| name == "peers") {
        command.env("GUESTKIT_BENCH_PEERS", peers()?);
    }
    if what.quick {
        command.arg("--quick");
    }
    if !what.only.is_empty() {
        command.args(["--only", &what.only.join(",")]);
    }
    command.current_dir(root());
    if !what.record {
        return check(&mut command);
    }
    let output = command.stderr(Stdio::inherit()).output().context("failed to start the benchmark")?;
    let tables = String::from_utf8_lossy(&output.stdout);
    say(&tables);
    if !output.status.success() {
        bail!("the benchmark ended with {}", output.status);
    }
    record("docs/cost.md", "fleet", "cargo xtask bench fleet", &tables)
}

/// What the others' drivers need, installed into a folder beside the build.
fn peers() -> Result<PathBuf> {
    require(&[
        Need { program: "node", package: "nodejs" },
        Need { program: "npm", package: "npm" },
        Need { program: "python3", package: "python3" },
        Need { program: "nats-server", package: "nats-server" },
        Need { program: "psql", package: "postgresql" },
    ])?;
    let folder = target_dir().join("bench-peers");
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    for driver in ["graphile.mjs", "jetstream.py"] {
        let from = root().join("tests/bench/peers").join(driver);
        fs::copy(&from, folder.join(driver)).with_context(|| format!("failed to copy {}", from.display()))?;
    }
    if !folder.join("node_modules/graphile-worker").is_dir() {
        say("installing graphile-worker");
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).arg(GRAPHILE);
        check(&mut npm)?;
    }
    if !folder.join("python/nats").is_dir() {
        say("installing nats-py");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--target"])
            .arg(folder.join("python"))
            .arg(NATS);
        check(&mut pip)?;
    }
    Ok(folder)
}
