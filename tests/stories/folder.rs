//! The worker on a folder, as people have always used it.

use std::fs;
use std::path::Path;

use guestkit_processes::{Process, until};
use serde_json::Value;

use crate::house::{binaries, example, small_guest, text};

fn start(folder: &Path, worker: &str, jobs: &Path, results: &Path) -> Process {
    let mut command = binaries().command("guestkit-worker");
    command.args(["--worker-id", worker, "--jobs-dir", text(jobs), "--results-dir", text(results)]);
    command.args(["--output-root", text(folder)]).current_dir(folder);
    Process::start(&mut command, &folder.join(format!("{worker}.log"))).unwrap()
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
        let supported = !name.contains("profile");
        let ended = if supported { "done" } else { "failed" };
        assert!(jobs.join(ended).join(name).is_file(), "{name} is not in {ended}: {}", worker.log());
        if supported {
            let result: Value =
                serde_json::from_slice(&fs::read(results.join(format!("{job_id}-result.json"))).unwrap()).unwrap();
            assert_eq!(result["status"], "completed", "{name}");
            assert_eq!(result["worker_id"], "demo-worker");
            assert!(result["data"].is_object(), "{name}");
        }
    }
    assert!(jobs.join("failed/broken.json").is_file());
    let log = worker.log();
    for line in [
        "Starting worker demo-worker",
        "Registered 2 operation handlers",
        "Supported operations: [",
        "Received job: ",
        "completed successfully",
        "(100%)",
    ] {
        assert!(log.contains(line), "{line:?} is not in the log:\n{log}");
    }
}
