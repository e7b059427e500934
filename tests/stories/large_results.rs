//! Reports too large for one message: by reference they are the same reports.

use guestkit_processes::until;
use serde_json::Value;

use crate::house::{Answer, COMPLETED, FAILED, House, binaries, echo, inspect, small_guest, text};

/// The least that may be set: the report of the small guest is larger.
const SMALL_INLINE: [&str; 2] = ["--inline-bytes-max", "16384"];

/// A report without how long it took.
fn timeless(mut report: Value) -> Value {
    assert!(report["summary"].as_object_mut().unwrap().remove("duration_seconds").is_some());
    report
}

fn local_inspect() -> Value {
    let guest = small_guest();
    let output =
        binaries().command("guestkit").args(["local", "inspect", "-o", "json", text(&guest)]).output().unwrap();
    timeless(Answer::of(output).expect_code(COMPLETED).json())
}

/// The report as the fleet gives it; the path of the image is the only thing that may differ, and is made the same.
fn report(house: &House, job_id: &str) -> Value {
    let answer = house.guestkit(&["report", "-o", "json", job_id]).expect_code(COMPLETED);
    let told = answer.stdout.replace(text(&house.guest()), text(&small_guest()));
    timeless(serde_json::from_str(&told).unwrap())
}

fn stored_files(house: &House) -> Vec<std::path::PathBuf> {
    fn collect(folder: &std::path::Path, files: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() { collect(&entry.path(), files) } else { files.push(entry.path()) }
        }
    }
    let mut files = Vec::new();
    collect(&house.fleet.folder().join("data/artifacts"), &mut files);
    files
}

/// The oracle is the same inspection done here, without any coordinator between.
#[test]
fn a_report_by_reference_is_the_report() {
    let mut house = House::with_coordinator(&SMALL_INLINE, &["one"]);
    let oracle = local_inspect();
    let watched = house.submit_and_watch(&inspect("by-reference-1", &house.guest())).expect_code(COMPLETED);
    let told = watched.stdout.replace(text(&house.guest()), text(&small_guest()));
    assert_eq!(timeless(serde_json::from_str(&told).unwrap()), oracle);
    assert_eq!(stored_files(&house).len(), 1, "it went inline");
    assert_eq!(report(&house, "by-reference-1"), oracle);

    house.fleet.coordinator().kill();
    house.fleet.restart_coordinator().unwrap();
    assert_eq!(report(&house, "by-reference-1"), oracle);

    house.guestkit(&["delete", "by-reference-1"]).expect_code(COMPLETED);
    assert_eq!(stored_files(&house), Vec::<std::path::PathBuf>::new());
}

/// What was found while nobody was there to take it is uploaded afterwards, by another process of the worker. The oracle is
/// the message that was sent.
#[test]
fn a_report_found_while_the_coordinator_was_away_is_uploaded_afterwards() {
    let mut house = House::with_coordinator(&SMALL_INLINE, &["steady"]);
    let message = "a message that is larger than what a session carries; ".repeat(10_000);
    let mut document = echo("away-large-1", 2.0);
    document["payload"]["data"]["message"] = Value::from(message.clone());
    let job = house.write("echo.json", &document);
    house.guestkit(&["submit", text(&job)]).expect_code(COMPLETED);
    until("the start of the job", || Ok((house.job("away-large-1")["state"] == "JOB_STATE_RUNNING").then_some(())))
        .unwrap();
    house.fleet.coordinator().kill();
    let spool = house.fleet.folder().join("workers/worker-steady");
    until("the outcome on the worker's disk", || {
        let mut names = std::fs::read_dir(&spool)?.flatten().map(|entry| entry.file_name());
        Ok(names.any(|name| name.to_string_lossy().ends_with(".outcome")).then_some(()))
    })
    .unwrap();
    house.fleet.worker("steady").unwrap().kill();
    house.fleet.restart_coordinator().unwrap();
    house.start_worker("steady");

    until("the end of the job", || Ok((house.job("away-large-1")["state"] == "JOB_STATE_COMPLETED").then_some(())))
        .unwrap();
    let report = house.guestkit(&["report", "-o", "json", "away-large-1"]).expect_code(COMPLETED).json();
    assert_eq!(report["message"], message);
    assert_eq!(house.job("away-large-1")["attempt"], 1, "it was done twice");
    assert_eq!(stored_files(&house).len(), 1, "it went inline");
}

/// What the operator's limit forbids ends its job and says so; the worker goes on.
#[test]
fn a_report_above_the_limit_ends_its_job_and_says_so() {
    let args = ["--inline-bytes-max", "16384", "--artifact-bytes-max", "16384"];
    let house = House::with_coordinator(&args, &["one"]);
    house.submit_and_watch(&inspect("above-limit-1", &house.guest())).expect_code(FAILED);
    let error = house.job("above-limit-1")["error"].clone();
    assert_eq!(error["code"], "LIMIT_EXCEEDED", "{error:#}");
    assert!(error["message"].as_str().unwrap().contains("artifact_bytes_max"), "{error:#}");
    assert_eq!(stored_files(&house), Vec::<std::path::PathBuf>::new());
    house.submit_and_watch(&echo("after-limit-1", 0.0)).expect_code(COMPLETED);
}
