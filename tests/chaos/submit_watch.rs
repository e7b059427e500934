//! `guestkit submit --watch`, again and again, as scripts call it: each call ends, with the right exit code.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use guestkit_processes::{Binaries, Process};
use serde_json::json;

use crate::cluster::{Cluster, Shape};
use crate::settings::{number, report};

/// No call takes that long on the slowest machine, so that only a hang meets it.
const HANG: Duration = Duration::from_secs(120);

/// One in so many jobs fails, and its call must say so.
const FAILING: u64 = 10;

#[test]
fn no_call_hangs() {
    let calls = number("SUBMIT_WATCH").unwrap_or(50);
    let shape = Shape { coordinators: 1, workers: 2, coordinator_args: &[], worker_args: &["--slots", "2"] };
    let mut cluster = Cluster::start(&Binaries::beside_this_test().unwrap(), &shape);
    let started = Instant::now();
    let mut times: Vec<Duration> = Vec::new();
    for call in 0..calls {
        times.push(submit_and_watch(&cluster, call));
        if times.len().is_multiple_of(1000) {
            println!("{} calls in {:.0} s", times.len(), started.elapsed().as_secs_f64());
        }
    }
    let total = started.elapsed();
    cluster.tick().unwrap();
    cluster.stop().unwrap();
    times.sort_unstable();
    let at = |percent: usize| format!("{:.1} ms", times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3);
    let table = format!(
        "| `guestkit submit --watch`, calls in a row | hung | wrong exit code | total | p50 | p99 | longest |\n\
         |---:|---:|---:|---:|---:|---:|---:|\n\
         | {calls} | 0 | 0 | {:.0} s | {} | {} | {} |\n",
        total.as_secs_f64(),
        at(50),
        at(99),
        at(100),
    );
    println!("\n{table}");
    report(&table);
}

/// One call, from the start of its process to its end.
fn submit_and_watch(cluster: &Cluster, call: u64) -> Duration {
    let job_id = format!("call-{call:06}");
    let fails = call % FAILING == FAILING - 1;
    let document = json!({
        "version": "1.0", "job_id": job_id, "kind": "VMOperation", "operation": "system.echo",
        "payload": {"type": "system.echo.v1", "data": {"message": job_id, "fail_with": if fails { "failed" } else { "" }}},
    });
    let (file, log) = (cluster.folder().join("call.json"), cluster.folder().join("call.log"));
    std::fs::write(&file, document.to_string()).unwrap();
    let _ = std::fs::remove_file(&log);
    let mut command: Command = cluster.guestkit();
    command.args(["submit", "--watch", "-o", "json"]).arg(&file).stdin(Stdio::null());

    let started = Instant::now();
    let mut process = Process::start(&mut command, &log).unwrap();
    let status = loop {
        if let Some(status) = process.ended().unwrap() {
            break status;
        }
        assert!(started.elapsed() < HANG, "{job_id}: submit --watch hangs:\n{}", process.log());
        std::thread::sleep(Duration::from_millis(1));
    };
    let took = started.elapsed();
    assert_eq!(status.code(), Some(i32::from(fails)), "{job_id}:\n{}", process.log());
    let told = process.log();
    assert_eq!(told.contains(&format!("\"message\": \"{job_id}\"")), !fails, "{job_id}:\n{told}");
    took
}
