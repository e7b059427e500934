//! Stories of attempts that go wrong: each ends its own process and nothing else.

// Helpers of stories, like the stories, end where something is not as it must be.
#![allow(clippy::unwrap_used)]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::{Folders, echo, is_alive, wait_for, with};

fn error_code(result: &Value) -> (&str, &str) {
    (result["status"].as_str().unwrap(), result["error"]["code"].as_str().unwrap())
}

#[test]
fn a_timeout_ends_the_process_and_leaves_the_others_alone() {
    let folders = Folders::new();
    let worker = folders.worker("w", &["--slots", "2"]);
    folders.drop_job("other.json", &echo("unharmed-001", &json!({"duration_seconds": 4})));
    worker.wait_for_log("[unharmed-001] validation");
    let other = worker.attempts();
    let slow =
        with(echo("too-slow-001", &json!({"duration_seconds": 600})), &json!({"execution": {"timeout_seconds": 1}}));
    folders.drop_job("slow.json", &slow);
    wait_for("the second attempt", || worker.attempts().len() == 2);
    let ended: Vec<_> = worker.attempts().into_iter().filter(|pid| !other.contains(pid)).collect();

    let result = folders.result("too-slow-001");
    assert_eq!(error_code(&result), ("timeout", "TIMEOUT"));
    assert_eq!(result["error"]["retry_recommended"], true);
    let took = result["execution_summary"]["duration_seconds"].as_f64().unwrap();
    assert!((1.0..5.0).contains(&took), "{took}");
    assert!(result["metrics"]["peak_memory_mb"].as_f64().unwrap() > 0.5, "measured before it was killed");
    assert!(!is_alive(ended[0]));
    assert_eq!(folders.result("unharmed-001")["status"], "completed");
    assert!(folders.reason("slow.json").starts_with("TIMEOUT"));
}

#[test]
fn a_crash_is_told_with_its_signal_and_the_phase_it_happened_in() {
    let folders = Folders::new();
    let _worker = folders.worker("w", &[]);
    folders.drop_job("crash.json", &echo("crashing-001", &json!({"fail_with": "crash"})));
    let result = folders.result("crashing-001");
    assert_eq!(error_code(&result), ("failed", "HANDLER_CRASHED"));
    assert_eq!(result["error"]["details"]["signal"], "SIGABRT");
    assert_eq!(result["error"]["phase"], "processing");
    folders.drop_job("next.json", &echo("after-crash1", &json!({})));
    assert_eq!(folders.result("after-crash1")["status"], "completed");
}

#[test]
fn an_attempt_that_is_killed_from_outside_is_a_crash() {
    let folders = Folders::new();
    let worker = folders.worker("w", &[]);
    folders.drop_job("long.json", &echo("killed-00001", &json!({"duration_seconds": 600})));
    worker.wait_for_log("[killed-00001] validation");
    let pid = i32::try_from(worker.attempts()[0]).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let result = folders.result("killed-00001");
    assert_eq!(error_code(&result), ("failed", "HANDLER_CRASHED"));
    assert_eq!(result["error"]["details"]["signal"], "SIGKILL");
}

#[test]
fn a_failed_attempt_is_tried_again_as_often_as_the_document_says() {
    let folders = Folders::new();
    let worker = folders.worker("w", &[]);
    let execution = json!({"max_attempts": 3, "retry_backoff": {"initial_seconds": 0.1, "max_seconds": 0.2}});
    let failing = with(echo("failing-0001", &json!({"fail_with": "failed"})), &json!({"execution": execution}));
    folders.drop_job("failing.json", &failing);
    let result = folders.result("failing-0001");
    assert_eq!(error_code(&result), ("failed", "INTERNAL"));
    assert_eq!(result["execution_summary"]["attempt"], 3);
    assert_eq!(worker.log().matches("trying again in").count(), 2);
}
