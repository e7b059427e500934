//! What an attempt's process costs, as the operating system accounts it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use guestkit_protocol::v1;

/// Bytes a handler moved, counted where they move.
#[derive(Debug, Default)]
pub struct Account {
    read: AtomicU64,
    written: AtomicU64,
}

impl Account {
    /// Adds bytes read from image files.
    pub fn add_read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds bytes written to outputs.
    pub fn add_written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Measures the process it was made in. It opens what it needs at once, because a sandbox may forbid it later.
#[derive(Debug)]
pub struct Meter {
    status: Option<File>,
    cpu_seconds_before: f64,
}

impl Meter {
    /// Starts measuring. `from_process_start` counts the whole life of the process, otherwise from now on.
    #[must_use]
    pub fn new(from_process_start: bool) -> Self {
        let cpu_seconds_before = if from_process_start { 0.0 } else { cpu_seconds() };
        Self { status: File::open("/proc/self/status").ok(), cpu_seconds_before }
    }

    /// What was used until now.
    #[must_use]
    pub fn metrics(&self, account: &Account) -> v1::Metrics {
        v1::Metrics {
            disk_read_bytes: account.read.load(Ordering::Relaxed),
            disk_write_bytes: account.written.load(Ordering::Relaxed),
            peak_memory_mb: self.status.as_ref().and_then(read_peak).unwrap_or(0.0),
            cpu_seconds: cpu_seconds() - self.cpu_seconds_before,
        }
    }
}

fn cpu_seconds() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    #[allow(clippy::cast_precision_loss)]
    let seconds = spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9;
    seconds
}

fn read_peak(status: &File) -> Option<f64> {
    // The file is some 1.5 KB; VmHWM lies in its first half.
    let mut buffer = [0; 4096];
    let length = status.read_at(&mut buffer, 0).ok()?;
    peak_memory_mb(std::str::from_utf8(buffer.get(..length)?).ok()?)
}

/// `VmHWM` of a `/proc/PID/status` (proc(5)), in MiB.
fn peak_memory_mb(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes / 1024.0)
}

/// User and system time of a `/proc/PID/stat` (proc(5), fields 14 and 15), in seconds. The command's name may hold
/// anything, so fields are counted from its last parenthesis.
fn stat_cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    #[allow(clippy::cast_precision_loss)]
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    Some((user + system) / ticks_per_second)
}

/// Brings `metrics` up to date with what the kernel says of process `pid`, which is about to be killed and cannot say
/// it itself. Leaves it as it is where the process is gone.
pub fn refresh(metrics: &mut v1::Metrics, pid: u32) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    if let Some(seconds) = read("stat").as_deref().and_then(stat_cpu_seconds) {
        metrics.cpu_seconds = metrics.cpu_seconds.max(seconds);
    }
    if let Some(peak) = read("status").as_deref().and_then(peak_memory_mb) {
        metrics.peak_memory_mb = metrics.peak_memory_mb.max(peak);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 9 8";
        assert_eq!(stat_cpu_seconds(stat), Some(300.0 / rustix::param::clock_ticks_per_second() as f64));
        assert_eq!(stat_cpu_seconds("7 (short) S 1"), None);
    }

    #[test]
    fn this_process_has_a_peak_and_spends_time() {
        let meter = Meter::new(true);
        let account = Account::default();
        account.add_read(5);
        let metrics = meter.metrics(&account);
        assert!(metrics.peak_memory_mb > 0.5 && metrics.cpu_seconds > 0.0 && metrics.disk_read_bytes == 5);
        let mut of_us = v1::Metrics::default();
        refresh(&mut of_us, std::process::id());
        assert!(of_us.peak_memory_mb > 0.5);
    }
}
