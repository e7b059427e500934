//! The README's figures: what an inspection costs, and what the fleet costs. Release build; medians; the machine is named,
//! because a figure without its machine is a rumour.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::Value;

use crate::record::{machine, record};
use crate::shell::{Need, cargo, check, require, root, say, target_dir};

/// The guest of the README's figures, in a corpus that was laid out.
const GUEST: &str = "corpus/guests/profile-debian12-vm.qcow2";

/// The others, as they are measured: exact, because figures of another version are other figures.
const GRAPHILE: &str = "graphile-worker@0.17.3";
const NATS: &str = "nats-py==2.16.0";

/// What is measured.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Part {
    /// What an inspection costs.
    Engine(Engine),
    /// What the fleet costs: its scenarios one after another, then the aims with their verdicts.
    Fleet(Fleet),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Engine {
    /// Guest image to inspect.
    #[arg(long, value_name = "PATH")]
    image: Option<PathBuf>,
    /// Runs of which the median is taken.
    #[arg(long, default_value_t = 5)]
    runs: u32,
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
    say("building in release");
    check(
        Command::new(cargo())
            .args(["build", "--quiet", "--release", "--workspace", "--bins", "--locked"])
            .current_dir(root()),
    )?;
    say(machine());
    match part {
        Some(Part::Engine(what)) => engine(&what),
        Some(Part::Fleet(what)) => fleet(&what),
        None => {
            engine(&Engine { image: None, runs: 5 })?;
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

/// `guestkit local inspect` as a whole process.
fn engine(what: &Engine) -> Result<()> {
    let image = what.image.clone().unwrap_or_else(|| {
        let guest = target_dir().join(GUEST);
        if guest.is_file() { guest } else { root().join("tests/fixtures/debian12-small.qcow2") }
    });
    let image = image.canonicalize().with_context(|| format!("failed to find the image {}", image.display()))?;
    let image = image.as_path();
    let mut measured = Vec::new();
    measure(image)?; // Warms the page cache: the disk of the measuring machine is not what is measured.
    for _ in 0..what.runs.max(1) {
        measured.push(measure(image)?);
    }
    let median = |pick: fn(&Run) -> f64| {
        let mut values: Vec<f64> = measured.iter().map(pick).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    say(format_args!("\n`guestkit local inspect {}`, median of {}:\n", name(image), measured.len()));
    say("| wall | CPU | peak RSS | read from the image |\n|---|---|---|---|");
    say(format_args!(
        "| {:.1} ms | {:.1} ms | {:.1} MB | {:.1} MB |",
        median(|run| run.wall_ms),
        median(|run| run.cpu_ms),
        median(|run| run.peak_mb),
        median(|run| run.read_mb)
    ));
    Ok(())
}

fn name(image: &Path) -> String {
    image.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

struct Run {
    wall_ms: f64,
    cpu_ms: f64,
    peak_mb: f64,
    read_mb: f64,
}

/// One run: wall and CPU are the operating system's figures for the whole process, start and end included; peak memory and
/// bytes read are what the run's own outcome document says.
fn measure(image: &Path) -> Result<Run> {
    let guestkit = target_dir().join("release/guestkit");
    let before = children_cpu_ms()?;
    let started = Instant::now();
    let output = Command::new(guestkit)
        .args(["local", "inspect", "-o", "json", "--outcome"])
        .arg(image)
        .stdin(Stdio::null())
        .output()
        .context("failed to start guestkit")?;
    let wall_ms = started.elapsed().as_secs_f64() * 1e3;
    let cpu_ms = children_cpu_ms()? - before;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("guestkit local inspect ended with {}: {stderr}", output.status);
    }
    let outcome: Value = serde_json::from_slice(&output.stdout).context("failed to read the outcome")?;
    let metrics = outcome.get("metrics").context("an outcome without metrics")?;
    let number =
        |name: &str| metrics.get(name).and_then(Value::as_f64).with_context(|| format!("no {name} in {metrics}"));
    Ok(Run { wall_ms, cpu_ms, peak_mb: number("peak_memory_mb")?, read_mb: number("disk_read_bytes")? / 1e6 })
}

#[allow(clippy::cast_precision_loss)]
fn children_cpu_ms() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let ms = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
    Ok(ms(usage.user_time()) + ms(usage.system_time()))
}
