//! The README's figures: what an inspection costs, and what the fleet costs. Release build; medians; the machine is named,
//! because a figure without its machine is a rumour.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::Value;

use crate::shell::{cargo, check, root, say, target_dir};

/// The guest of the README's figures, in a corpus that was laid out.
const GUEST: &str = "corpus/guests/profile-debian12-vm.qcow2";

pub(crate) fn run(image: Option<PathBuf>, jobs: u32, runs: u32) -> Result<()> {
    let image = image.unwrap_or_else(|| {
        let guest = target_dir().join(GUEST);
        if guest.is_file() { guest } else { root().join("tests/fixtures/debian12-small.qcow2") }
    });
    let image = image.canonicalize().with_context(|| format!("failed to find the image {}", image.display()))?;
    say("building in release");
    check(
        Command::new(cargo())
            .args(["build", "--quiet", "--release", "--workspace", "--bins", "--locked"])
            .current_dir(root()),
    )?;
    say(machine());
    engine(&image, runs)?;
    check(
        Command::new(cargo())
            .args(["bench", "--quiet", "--locked", "--package", "guestkit-system-tests", "--bench", "fleet"])
            .env("GUESTKIT_BENCH_JOBS", jobs.to_string())
            .env("GUESTKIT_BENCH_RUNS", runs.to_string())
            .current_dir(root()),
    )
}

/// Processor, cores, memory and kernel.
pub(crate) fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "machine: {}, {cores} cores, {} memory, Linux {}",
        field("/proc/cpuinfo", "model name"),
        field("/proc/meminfo", "MemTotal"),
        kernel.trim()
    )
}

/// `guestkit local inspect` as a whole process.
fn engine(image: &Path, runs: u32) -> Result<()> {
    let mut measured = Vec::new();
    measure(image)?; // Warms the page cache: the disk of the measuring machine is not what is measured.
    for _ in 0..runs.max(1) {
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
