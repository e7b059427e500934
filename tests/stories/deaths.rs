//! Machines die; jobs do not: each job ends exactly once, with one outcome.

use std::collections::BTreeMap;

use guestkit_processes::until;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::house::{COMPLETED, FAILED, House, echo, lost_attempts, text};

/// Short enough for a story, long enough that a loaded machine does not lose a worker by accident.
const QUICK: [&str; 4] = ["--heartbeat-seconds", "0.3", "--lease-ttl-seconds", "3"];

#[test]
fn a_worker_killed_in_mid_job_loses_the_job_to_the_other() {
    let mut house = House::with_coordinator(&QUICK, &["first"]);
    let job = house.write("slow.json", &echo("killed-worker-01", 2.0));
    house.guestkit(&["submit", text(&job)]).expect_code(COMPLETED);
    let running = house.wait_for_state("killed-worker-01", "JOB_STATE_RUNNING");
    assert_eq!(running["worker_id"], "first");

    house.fleet.worker("first").unwrap().kill();
    house.start_worker("second");

    let done = house.wait_for_state("killed-worker-01", "JOB_STATE_COMPLETED");
    assert_eq!(done["worker_id"], "second");
    assert_eq!(lost_attempts(&done), 1);
}

#[test]
fn a_worker_that_comes_back_under_its_name_frees_its_jobs_at_once() {
    // With the default time to live of a minute, only the new boot id can be what frees the job this soon.
    let mut house = House::new(&["only"]);
    let job = house.write("slow.json", &echo("new-boot-0001", 3.0));
    house.guestkit(&["submit", text(&job)]).expect_code(COMPLETED);
    house.wait_for_state("new-boot-0001", "JOB_STATE_RUNNING");

    house.fleet.worker("only").unwrap().kill();
    let killed = std::time::Instant::now();
    house.start_worker("only");

    let done = house.wait_for_state("new-boot-0001", "JOB_STATE_COMPLETED");
    assert_eq!(lost_attempts(&done), 1);
    assert!(killed.elapsed().as_secs() < 40, "the job waited for its lease to run out");
}

#[test]
fn a_coordinator_killed_and_started_again_loses_nothing() {
    let mut house = House::new(&["steady"]);
    for index in 0..40 {
        let job = house.write("job.json", &echo(&format!("restart-{index:04}"), 0.1));
        house.guestkit(&["submit", text(&job)]).expect_code(COMPLETED);
    }
    house.fleet.coordinator().kill();
    house.fleet.restart_coordinator().unwrap();

    let jobs = all_over(&house, 40);
    assert!(jobs.values().all(|job| job["state"] == "JOB_STATE_COMPLETED"), "{jobs:#?}");
    // The worker held what it ran through the outage: nothing was done twice.
    assert!(jobs.values().all(|job| lost_attempts(job) == 0), "{jobs:#?}");
}

#[test]
fn a_job_that_runs_while_the_coordinator_is_away_keeps_its_lease() {
    let mut house = House::new(&["steady"]);
    let job = house.write("slow.json", &echo("away-000001", 3.0));
    house.guestkit(&["submit", text(&job)]).expect_code(COMPLETED);
    house.wait_for_state("away-000001", "JOB_STATE_RUNNING");
    house.fleet.coordinator().kill();
    house.fleet.restart_coordinator().unwrap();

    let done = house.wait_for_state("away-000001", "JOB_STATE_COMPLETED");
    assert_eq!(done["attempt"], 1);
    assert_eq!(lost_attempts(&done), 0);
}

#[test]
fn two_workers_and_a_thousand_jobs_end_in_a_thousand_outcomes() {
    const JOBS: usize = 1_000;
    let house = House::new(&["left", "right"]);
    let files: Vec<String> = (0..JOBS)
        .map(|index| {
            let name = format!("many-{index:05}");
            text(&house.write(&format!("{name}.json"), &echo(&name, 0.0))).to_owned()
        })
        .collect();
    let mut args = vec!["submit"];
    args.extend(files.iter().map(String::as_str));
    house.guestkit(&args).expect_code(COMPLETED);

    let jobs = all_over(&house, JOBS);
    assert!(jobs.values().all(|job| job["state"] == "JOB_STATE_COMPLETED"));
    assert!(jobs.values().all(|job| job["attempt"] == 1 && lost_attempts(job) == 0));
    let workers: std::collections::BTreeSet<_> = jobs.values().map(|job| job["worker_id"].to_string()).collect();
    assert_eq!(workers.len(), 2, "one worker did everything");
}

/// Waits until `count` jobs are known and all are over; by name, so that a double would be seen.
#[track_caller]
fn all_over(house: &House, count: usize) -> BTreeMap<String, Value> {
    let over = || {
        let counts = house.guestkit(&["summary", "-o", "json"]).expect_code(COMPLETED).json();
        let ended = ["completed", "failed", "cancelled", "timeout"].map(|state| counts[state].as_u64().unwrap_or(0));
        usize::try_from(ended.iter().sum::<u64>()).unwrap()
    };
    let mut known = 0;
    while known < count {
        // A busy machine is slow, not stuck: one more job at a time is what is waited for.
        known = until("one more job's end", || Ok(Some(over()).filter(|over| *over > known))).unwrap();
    }
    let list = house.guestkit(&["list", "--all", "-o", "json"]).expect_code(COMPLETED).json();
    let listed = list.as_array().unwrap();
    let jobs: BTreeMap<String, Value> =
        listed.iter().map(|job| (job["job_id"].as_str().unwrap().to_owned(), job.clone())).collect();
    assert_eq!(jobs.len(), listed.len(), "a job is listed twice");
    assert_eq!(jobs.len(), count);
    assert!(jobs.values().all(|job| job["end_time"].is_string()), "a job is not over");
    jobs
}

#[test]
fn a_cancel_ends_the_attempt_and_nothing_else() {
    let house = House::new(&["both"]);
    for (name, seconds) in [("cancel-this-1", 600.0), ("not-cancelled", 3.0)] {
        let job = house.write("job.json", &echo(name, seconds));
        house.guestkit(&["submit", text(&job)]).expect_code(COMPLETED);
        house.wait_for_state(name, "JOB_STATE_RUNNING");
    }
    house.guestkit(&["cancel", "cancel-this-1", "--reason", "no longer needed"]).expect_code(COMPLETED);
    house.wait_for_state("cancel-this-1", "JOB_STATE_CANCELLED");
    house.wait_for_state("not-cancelled", "JOB_STATE_COMPLETED");
    // Whoever watches it now sees it end as cancelled.
    house.guestkit(&["watch", "cancel-this-1"]).expect_code(FAILED);
}

#[test]
fn an_attempt_out_of_time_is_ended_and_said_so() {
    let house = House::new(&["one"]);
    let mut document = echo("out-of-time-1", 600.0);
    document["execution"] = json!({"timeout_seconds": 1});
    let answer = house.submit_and_watch(&document).expect_code(FAILED);
    let job = house.job("out-of-time-1");
    assert_eq!(job["state"], "JOB_STATE_TIMEOUT", "{answer:#?}");
    assert_eq!(job["error"]["code"], "TIMEOUT");
}

#[test]
fn an_attempt_that_crashes_costs_only_itself() {
    let house = House::new(&["one"]);
    let mut document = echo("crashing-0001", 0.0);
    document["payload"]["data"]["fail_with"] = json!("crash");
    house.submit_and_watch(&document).expect_code(FAILED);
    assert_eq!(house.job("crashing-0001")["error"]["code"], "HANDLER_CRASHED");
    house.submit_and_watch(&echo("after-the-crash", 0.0)).expect_code(COMPLETED);
}

#[test]
fn a_worker_told_to_stop_finishes_what_it_runs() {
    let mut house = House::new(&["leaving"]);
    let job = house.write("slow.json", &echo("finish-first-1", 2.0));
    house.guestkit(&["submit", text(&job)]).expect_code(COMPLETED);
    house.wait_for_state("finish-first-1", "JOB_STATE_RUNNING");
    let worker = house.fleet.worker("leaving").unwrap();
    worker.signal(Signal::TERM).unwrap();
    assert!(worker.wait().unwrap().success());
    let done = house.wait_for_state("finish-first-1", "JOB_STATE_COMPLETED");
    assert_eq!(lost_attempts(&done), 0);
}
