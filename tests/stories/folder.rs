//! The worker on a folder, as people have always used it.

use std::fs;
use std::path::Path;

use guestkit_processes::{Process, until};
use serde_json::{Value, json};

use crate::house::{binaries, echo, example, small_guest, text};

fn start(folder: &Path, worker: &str, jobs: &Path, results: &Path) -> Process {
    let mut command = binaries().command("guestkit-worker");
    command.args(["--worker-id", worker, "--jobs-dir", text(jobs), "--results-dir", text(results)]);
    command.args(["--output-root", text(folder)]).current_dir(folder);
    Process::start(&mut command, &folder.join(format!("{worker}.log"))).unwrap()
}

fn result(results: &Path, job_id: &str) -> Option<Value> {
    let text = fs::read(results.join(format!("{job_id}-result.json"))).ok()?;
    Some(serde_json::from_slice(&text).unwrap())
}

/// Lays a document into the folder, whole at once, and waits for a result with this status.
#[track_caller]
fn run_document(jobs: &Path, results: &Path, document: &Value, status: &str) -> Value {
    let job_id = document["job_id"].as_str().unwrap();
    fs::write(jobs.join(".laid"), document.to_string()).unwrap();
    fs::rename(jobs.join(".laid"), jobs.join(format!("{job_id}.json"))).unwrap();
    until(&format!("result {status} of {job_id}"), || {
        Ok(result(results, job_id).filter(|result| result["status"] == status))
    })
    .unwrap()
}

#[test]
fn a_refused_document_has_a_result_and_may_be_mended() {
    let folder = tempfile::tempdir().unwrap();
    let (jobs, results) = (folder.path().join("jobs"), folder.path().join("results"));
    fs::create_dir(&jobs).unwrap();
    let mut worker = start(folder.path(), "mender", &jobs, &results);
    let mut document = echo("mended-later-1", 0.0);
    document["execution"] = json!({"priority": 11});
    let refused = run_document(&jobs, &results, &document, "failed");
    assert_eq!(refused["error"]["code"], "VALIDATION_ERROR");
    assert_eq!(refused["error"]["details"]["problems"][0]["field"], "execution.priority");

    document["execution"] = json!({"priority": 10});
    run_document(&jobs, &results, &document, "completed");

    // What completed stands, whatever is laid under its name afterwards.
    document["execution"] = json!({"priority": 11});
    fs::write(jobs.join("again.json"), document.to_string()).unwrap();
    until("the refusal", || Ok(jobs.join("failed/again.json.reason.txt").is_file().then_some(()))).unwrap();
    assert_eq!(result(&results, "mended-later-1").unwrap()["status"], "completed");
    assert!(worker.terminate().unwrap().success());
}

#[test]
fn every_example_over_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (jobs, results) = (folder.path().join("demo-jobs"), folder.path().join("demo-results"));
    fs::create_dir(&jobs).unwrap();
    let examples = crate::house::repository().join("tests/jobs");
    let mut names = Vec::new();
    for entry in fs::read_dir(examples).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".json") && !name.ends_with(".schema.json") {
            let document = example(&name, &small_guest(), folder.path());
            fs::write(jobs.join(&name), document.to_string()).unwrap();
            names.push((name, document["job_id"].as_str().unwrap().to_owned()));
        }
    }
    fs::write(jobs.join("broken.json"), "{\"version\": ").unwrap();

    let mut worker = start(folder.path(), "demo-worker", &jobs, &results);
    until("all job files taken", || {
        let waiting = fs::read_dir(&jobs)?.filter(|entry| entry.as_ref().is_ok_and(|e| e.path().is_file())).count();
        let ended = ["done", "failed"].iter().filter_map(|name| fs::read_dir(jobs.join(name)).ok()).flatten();
        let ended = ended.flatten().filter(|entry| entry.path().extension().is_some_and(|e| e == "json")).count();
        Ok((waiting == 0 && ended > names.len()).then_some(()))
    })
    .unwrap();
    assert!(worker.terminate().unwrap().success());

    for (name, job_id) in &names {
        assert!(jobs.join("done").join(name).is_file(), "{name} is not in done: {}", worker.log());
        let result = result(&results, job_id).unwrap();
        assert_eq!(result["worker_id"], "demo-worker");
        assert_eq!(result["status"], "completed", "{name}");
        assert!(result["data"].is_object(), "{name}");
    }
    assert!(jobs.join("failed/broken.json").is_file());
    let log = worker.log();
    for line in [
        "Starting worker demo-worker",
        "Registered 3 operation handlers",
        "Supported operations: [",
        "Received job: ",
        "completed successfully",
        "(100%)",
    ] {
        assert!(log.contains(line), "{line:?} is not in the log:\n{log}");
    }
}
