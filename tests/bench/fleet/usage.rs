//! What processes use, from proc(5), and what the disk takes to make something durable.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::report::Times;

/// Ticks of /proc/PID/stat per second: fixed on Linux for every architecture this runs on.
const TICKS: f64 = 100.0;

struct Stat {
    parent: u32,
    own: f64,
    /// Of children that have ended and were waited for.
    children: f64,
}

fn stat(pid: u32) -> Result<Stat, Failure> {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    let after_name = text.rsplit_once(") ").ok_or("a process without a name")?.1;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let number = |index: usize| -> Result<f64, Failure> { Ok(fields.get(index).ok_or("a short line")?.parse()?) };
    Ok(Stat {
        parent: fields.get(1).ok_or("a short line")?.parse()?,
        own: (number(11)? + number(12)?) / TICKS,
        children: (number(13)? + number(14)?) / TICKS,
    })
}

/// User and system seconds of one process, its threads included.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64, Failure> {
    Ok(stat(pid)?.own)
}

/// The same of this process.
pub(crate) fn own_cpu_seconds() -> Result<f64, Failure> {
    cpu_seconds(std::process::id())
}

/// The same of a process and everything it started, also what has ended since: never falls.
pub(crate) fn tree_cpu_seconds(root: u32) -> Result<f64, Failure> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut used: HashMap<u32, f64> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that ended since the folder was listed is in its parent's figure.
        let Ok(stat) = stat(pid) else { continue };
        children.entry(stat.parent).or_default().push(pid);
        used.insert(pid, stat.own + stat.children);
    }
    let mut sum = 0.0;
    let mut todo = vec![root];
    while let Some(pid) = todo.pop() {
        sum += used.get(&pid).copied().unwrap_or_default();
        todo.extend(children.get(&pid).into_iter().flatten());
    }
    Ok(sum)
}

fn status_kib(pid: u32, name: &str) -> Result<f64, Failure> {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("a process without memory")?;
    Ok(line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse()?)
}

/// Resident memory in MB (10^6 bytes).
pub(crate) fn resident_mb(pid: u32) -> Result<f64, Failure> {
    Ok(status_kib(pid, "VmRSS")? * 1024.0 / 1e6)
}

/// How long this disk takes to make 4 KiB more of a file durable.
pub(crate) fn disk_sync(folder: &Path) -> Result<Times, Failure> {
    let mut file = tempfile::tempfile_in(folder)?;
    let mut times = Vec::new();
    for _ in 0..200 {
        file.write_all(&[7; 4096])?;
        let started = Instant::now();
        file.sync_data()?;
        times.push(started.elapsed());
    }
    Ok(Times::of(times))
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn per_second(count: usize, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

/// Seconds of CPU as microseconds for each of `count`.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn micros_each(seconds: f64, count: usize) -> f64 {
    seconds * 1e6 / count as f64
}
