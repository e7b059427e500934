//! Stories of workers on a folder.

// Helpers of stories, like the stories, end where something is not as it must be.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use support::{Folders, echo, is_alive, wait_for, with};

#[test]
fn a_job_is_run_and_everything_is_where_people_look_for_it() {
    let folders = Folders::new();
    // Already there at start.
    folders.drop_job("echo.json", &echo("echo-test-001", &json!({"message": "hello", "more": [1, null]})));
    let worker = folders.worker("demo-worker", &[]);
    let result = folders.result("echo-test-001");
    assert_eq!(result["status"], "completed");
    assert_eq!(result["worker_id"], "demo-worker");
    assert_eq!(result["data"]["message"], "hello");
    assert_eq!(result["data"]["data"]["more"], json!([1, null]));
    assert_eq!(result["execution_summary"]["attempt"], 1);
    assert!(result["metrics"]["peak_memory_mb"].as_f64().unwrap() > 0.5, "{result}");
    assert!(result["metrics"]["cpu_seconds"].as_f64().unwrap() > 0.0, "{result}");
    worker.wait_for_log("Job echo-test-001 completed successfully");
    assert!(folders.path("jobs/done/echo.json").exists());
    assert_eq!(folders.count("jobs/failed"), 0);
    let log = worker.log();
    for line in [
        "Starting worker demo-worker",
        "Registered 3 operation handlers",
        "Supported operations: [\"guestkit.inspect\", \"guestkit.profile\", \"system.echo\"]",
        "Received job: echo-test-001",
        "[echo-test-001] processing - Echoing the message (50%)",
        "[echo-test-001] complete - Echo complete (100%)",
        "every image that this user may read can be opened",
    ] {
        assert!(log.contains(line), "no {line:?} in\n{log}");
    }
}

#[test]
fn a_file_that_is_written_slowly_is_taken_when_it_is_whole() {
    let folders = Folders::new();
    let worker = folders.worker("w", &[]);
    worker.wait_for_log("Watching");
    let text =
        with(echo("slow-writer-1", &json!({"message": "whole"})), &json!({"metadata": {"name": "x".repeat(200)}}));
    let text = serde_json::to_string_pretty(&text).unwrap();
    let mut file = fs::File::create(folders.path("jobs/slow.json")).unwrap();
    for piece in text.as_bytes().chunks(text.len() / 6) {
        file.write_all(piece).unwrap();
        // A writer's own pace, not a wait for anything.
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(folders.result("slow-writer-1")["status"], "completed");
    assert_eq!(folders.count("jobs/failed"), 0);
}

#[test]
fn two_workers_run_two_hundred_jobs_once_each() {
    let folders = Folders::new();
    let expected: BTreeSet<_> = (0..200).map(|n| format!("many-jobs-{n:04}")).collect();
    let (first, rest) = (expected.iter().take(100), expected.iter().skip(100));
    for id in first {
        folders.drop_job(&format!("{id}.json"), &echo(id, &json!({"message": id})));
    }
    let workers = [folders.worker("w1", &["--slots", "3"]), folders.worker("w2", &["--slots", "3"])];
    for id in rest {
        folders.drop_job(&format!("{id}.json"), &echo(id, &json!({"message": id})));
    }
    wait_for("200 jobs done", || folders.count("jobs/done") == 200);
    wait_for("200 results", || folders.count("results") == 200);
    assert_eq!(folders.count("jobs/failed"), 0);
    let logs: String = workers.iter().map(support::Worker::log).collect();
    let received: Vec<_> = logs.lines().filter_map(|line| line.split("Received job: ").nth(1)).collect();
    assert_eq!(received.len(), 200, "some job was run twice");
    for worker in &workers {
        assert!(worker.log().contains("Received job"), "one worker did everything");
    }
    for id in &expected {
        assert_eq!(folders.result(id)["data"]["message"], **id);
    }
}

#[test]
fn what_is_no_job_is_kept_with_the_reason_and_costs_nobody_else_anything() {
    let folders = Folders::new();
    let jobs = folders.path("jobs");
    let good = || echo("good-job-001", &json!({"message": "fine"}));
    fs::write(folders.path("outside.json"), good().to_string()).unwrap();
    symlink(folders.path("outside.json"), jobs.join("link.json")).unwrap();
    fs::create_dir(jobs.join("dir.json")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        jobs.join("fifo.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    fs::write(jobs.join("half.json"), "{\"version\": \"1.0\", ").unwrap();
    fs::write(jobs.join("large.json"), format!("{{\"version\": \"{}\"}}", "x".repeat(2 << 20))).unwrap();
    let refused = [
        ("unknown.json", json!({"kimd": 1}), "INVALID_DOCUMENT", "kimd: unknown field, did you mean kind?"),
        ("type.json", json!({"execution": {"priority": "high"}}), "INVALID_DOCUMENT", "execution.priority"),
        ("path.json", json!({"job_id": "../../x"}), "INVALID_DOCUMENT", "job_id"),
        ("priority.json", json!({"execution": {"priority": 11}}), "INVALID_DOCUMENT", "execution.priority"),
        ("disagree.json", json!({"operation": "guestkit.inspect"}), "INVALID_DOCUMENT", "payload.type"),
        ("absent.json", json!({"job_id": ""}), "INVALID_DOCUMENT", "job_id"),
        (
            "compare.json",
            json!({"operation": "guestkit.compare", "payload": {"type": "guestkit.compare.v1", "data": {}}}),
            "UNSUPPORTED_OPERATION",
            "guestkit.compare",
        ),
        ("old.json", json!({"constraints": {"minimum_worker_version": "99.0.0"}}), "VALIDATION_ERROR", "99.0.0"),
        ("able.json", json!({"constraints": {"required_capabilities": ["fs.zfs"]}}), "VALIDATION_ERROR", "fs.zfs"),
        ("gpu.json", json!({"constraints": {"required_features": ["gpu"]}}), "VALIDATION_ERROR", "gpu"),
    ];
    let bad = || echo("bad-job-0001", &json!({"message": "not fine"}));
    for (file, change, ..) in &refused {
        folders.drop_job(file, &with(bad(), change));
    }
    folders.drop_job(
        "elsewhere.json",
        &with(good(), &json!({"job_id": "elsewhere-01", "routing": {"worker_id": "other"}})),
    );
    folders.drop_job("good.json", &good());

    let worker = folders.worker("w", &[]);
    assert_eq!(folders.result("good-job-001")["status"], "completed");
    for (file, _, code, names) in &refused {
        let reason = folders.reason(file);
        assert!(reason.starts_with(code) && reason.contains(names), "{file}: {reason}");
    }
    for (file, names) in [
        ("link.json", "a symbolic link"),
        ("dir.json", "a directory"),
        ("fifo.json", "a FIFO"),
        ("half.json", "no whole JSON"),
        ("large.json", "TOO_LARGE"),
    ] {
        let reason = folders.reason(file);
        assert!(reason.contains(names), "{file}: {reason}");
        assert!(folders.path("jobs/failed").join(file).symlink_metadata().is_ok(), "{file} is kept");
    }
    assert!(folders.path("outside.json").exists(), "what a link names is nobody's to move");
    // For another worker: left where it is, and said so.
    worker.wait_for_log("left for another worker: it is for worker other");
    assert!(folders.path("jobs/elsewhere.json").exists());
    // The good job's result, and one for the name that the refused documents share.
    assert_eq!(folders.result("bad-job-0001")["status"], "failed");
    assert_eq!(folders.count("results"), 2);
}

#[test]
fn one_job_id_stands_for_one_document() {
    let folders = Folders::new();
    let document = echo("same-id-0001", &json!({"message": "first"}));
    folders.drop_job("a.json", &document);
    let worker = folders.worker("w", &[]);
    assert_eq!(folders.result("same-id-0001")["data"]["message"], "first");
    wait_for("the first file", || folders.path("jobs/done/a.json").exists());

    folders.drop_job("a.json", &document);
    wait_for("the same file again", || folders.path("jobs/done/a.1.json").exists());
    worker.wait_for_log("was done before from the same document");

    folders.drop_job("b.json", &echo("same-id-0001", &json!({"message": "second"})));
    let reason = folders.reason("b.json");
    assert!(reason.starts_with("ALREADY_EXISTS"), "{reason}");
    assert_eq!(folders.result("same-id-0001")["data"]["message"], "first");

    let keyed = |id: &str| with(echo(id, &json!({})), &json!({"execution": {"idempotency_key": "once"}}));
    folders.drop_job("k1.json", &keyed("keyed-job-01"));
    folders.result("keyed-job-01");
    folders.drop_job("k2.json", &keyed("keyed-job-02"));
    assert!(folders.reason("k2.json").contains("keyed-job-01"));
    assert_eq!(worker.log().matches("Received job: ").count(), 2);
}

#[test]
fn another_worker_takes_over_what_a_killed_one_had() {
    let folders = Folders::new();
    folders.drop_job("long.json", &echo("taken-over-1", &json!({"message": "still", "duration_seconds": 3})));
    let mut first = folders.worker("w1", &[]);
    first.wait_for_log("[taken-over-1] validation");
    let attempts = first.attempts();
    assert_eq!(attempts.len(), 1);
    let second = folders.worker("w2", &[]);
    second.wait_for_log("Watching");

    first.child.kill().unwrap();
    first.child.wait().unwrap();
    wait_for("the attempt to end with its worker", || !is_alive(attempts[0]));
    let result = folders.result("taken-over-1");
    assert_eq!((&result["status"], &result["worker_id"]), (&json!("completed"), &json!("w2")));
    wait_for("the file", || folders.path("jobs/done/long.json").exists());
}

#[test]
fn a_worker_that_is_asked_to_leave_finishes_what_it_runs() {
    let folders = Folders::new();
    folders.drop_job("long.json", &echo("finish-this-1", &json!({"duration_seconds": 2})));
    let mut worker = folders.worker("w", &["--slots", "1"]);
    worker.wait_for_log("[finish-this-1] validation");
    worker.signal(Signal::TERM);
    folders.drop_job("late.json", &echo("too-late-001", &json!({})));
    assert!(worker.child.wait().unwrap().success());
    assert_eq!(folders.result("finish-this-1")["status"], "completed");
    assert!(folders.path("jobs/late.json").exists(), "it was told to take nothing new");
    assert!(worker.log().contains("left gracefully"));
}

#[test]
fn a_worker_that_is_asked_twice_leaves_at_once_and_loses_nothing() {
    let folders = Folders::new();
    folders.drop_job("long.json", &echo("not-lost-001", &json!({"duration_seconds": 3})));
    let mut worker = folders.worker("w", &[]);
    worker.wait_for_log("[not-lost-001] validation");
    worker.signal(Signal::TERM);
    worker.wait_for_log("leaving");
    worker.signal(Signal::TERM);
    worker.child.wait().unwrap();
    assert!(!folders.result_path("not-lost-001").exists());
    let _next = folders.worker("w", &[]);
    assert_eq!(folders.result("not-lost-001")["status"], "completed");
}

#[test]
fn urgent_files_go_first_and_a_key_excludes() {
    let folders = Folders::new();
    let job = |id: &str, priority: u32| {
        with(echo(id, &json!({})), &json!({"execution": {"priority": priority, "concurrency_key": "one-disk"}}))
    };
    folders.drop_job("a.json", &job("unhurried-01", 1));
    folders.drop_job("b.json", &job("ordinary-001", 5));
    folders.drop_job("c.json", &job("urgent-00001", 10));
    let worker = folders.worker("w", &["--slots", "1"]);
    wait_for("three jobs", || folders.count("jobs/done") == 3);
    let log = worker.log();
    let order: Vec<_> =
        log.lines().filter_map(|line| line.split("Received job: ").nth(1)?.split_whitespace().next()).collect();
    assert_eq!(order, ["urgent-00001", "ordinary-001", "unhurried-01"]);
}

#[test]
fn a_command_line_that_makes_no_sense_says_what_to_write() {
    let run = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_guestkit-worker")).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (args, expected) in [
        (&[][..], "--coordinator"),
        (&["--coordinator", "http://127.0.0.1:1"], "at least one --image-root is required"),
        (&["--coordinator", "nonsense", "--image-root", "/"], "http://host:port"),
        (&["--coordinator", "http://127.0.0.1:1", "--image-root", "/nowhere/at/all"], "/nowhere/at/all"),
        (&["--coordinator", "http://127.0.0.1:1", "--image-root", "/etc/passwd"], "not a folder"),
        (&["--jobs-dir", "x"], "--results-dir"),
        (&["--jobs-dir", "x", "--results-dir", "y", "--worker-id", "../x"], "may only contain"),
        (&["--jobs-dir", "x", "--results-dir", "y", "--slots", "0"], "1..=1024"),
        (&["--jobs-dir", "x", "--results-dir", "y", "--label", "zone"], "KEY=VALUE"),
    ] {
        let (code, text) = run(args);
        assert_eq!(code, Some(2), "{args:?}: {text}");
        assert!(text.contains(expected), "{args:?}: {text}");
    }
}
