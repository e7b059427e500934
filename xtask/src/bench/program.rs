//! Running a program for its figures. Each run has a process between it and this one, so that what the kernel says of
//! children is said of this one program.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

use crate::shell::{find, say};

/// A program with what it is given, and what a table calls it.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) name: &'static str,
    words: Vec<OsString>,
}

impl Program {
    /// `program` is looked for as a shell does, the administrator's folders included.
    pub(super) fn new(name: &'static str, program: impl AsRef<Path>) -> Self {
        let program = program.as_ref();
        let found = program.to_str().and_then(find).unwrap_or_else(|| program.to_path_buf());
        Self { name, words: vec![found.into()] }
    }

    pub(super) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.words.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Runs it once.
    pub(super) fn run(&self) -> Result<Run> {
        let this = std::env::current_exe().context("failed to find this program")?;
        let output = Command::new(this)
            .args(["bench", "one", "--"])
            .args(&self.words)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("failed to start {}", self.name))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("{} failed: {}", self.name, stderr.trim().lines().next().unwrap_or("it said nothing"));
        }
        let told: Value = serde_json::from_slice(&output.stdout).context("failed to read the figures of a run")?;
        let number = |name: &str| told.get(name).and_then(Value::as_f64).context("a figure of a run is missing");
        Ok(Run {
            wall_ms: number("wall_ms")?,
            cpu_ms: number("cpu_ms")?,
            peak_mb: number("peak_mb")?,
            read_mb: number("read_mb")?,
        })
    }
}

/// What a program took, its start and end included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) wall_ms: f64,
    /// User and system time of all its threads.
    pub(super) cpu_ms: f64,
    /// Peak of its resident memory.
    pub(super) peak_mb: f64,
    /// Bytes that its read calls gave, those of its own libraries included.
    pub(super) read_mb: f64,
}

/// The median of each figure.
pub(super) fn median(runs: &[Run]) -> Run {
    let of = |pick: fn(&Run) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(pick).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Run {
        wall_ms: of(|run| run.wall_ms),
        cpu_ms: of(|run| run.cpu_ms),
        peak_mb: of(|run| run.peak_mb),
        read_mb: of(|run| run.read_mb),
    }
}

/// `cargo xtask bench one`: runs one program, its output thrown away, and prints the figures.
#[allow(clippy::cast_precision_loss)]
pub(super) fn one(words: &[OsString]) -> Result<()> {
    let (program, args) = words.split_first().context("name a program")?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
    let read_before = bytes_read()?;
    let started = Instant::now();
    let status = command.status().with_context(|| format!("failed to start {}", program.display()))?;
    let wall_ms = started.elapsed().as_secs_f64() * 1e3;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let read = bytes_read()?.saturating_sub(read_before);
    if !status.success() {
        bail!("it ended with {status}");
    }
    let ms = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
    say(json!({
        "wall_ms": wall_ms,
        "cpu_ms": ms(usage.user_time()) + ms(usage.system_time()),
        // The kernel counts in KiB.
        "peak_mb": usage.max_rss() as f64 * 1024.0 / 1e6,
        "read_mb": read as f64 / 1e6,
    }));
    Ok(())
}

/// What read calls gave this process, and its children once they have ended (proc(5), `rchar`).
fn bytes_read() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/io").context("failed to read /proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.context("/proc/self/io without rchar")?.parse().context("rchar is no number")
}
