//! Every example document, over every way in: the command line, a folder, and a gRPC client that is not ours.

use std::process::Command;

use serde_json::{Value, json};

use crate::house::{Answer, COMPLETED, House, REFUSED, example, text};

const EXAMPLES: [&str; 6] = [
    "echo-test.json",
    "guestkit-inspect-basic.json",
    "guestkit-inspect-full.json",
    "guestkit-profile-compliance.json",
    "guestkit-profile-migration.json",
    "guestkit-profile-security.json",
];

/// A sound document whose operation this version does not have.
fn unsupported() -> Value {
    json!({
        "version": "1.0", "kind": "VMOperation", "operation": "guestkit.compare",
        "payload": {"type": "guestkit.compare.v1", "data": {}},
    })
}

#[test]
fn every_example_is_known_here() {
    let folder = crate::house::repository().join("tests/jobs");
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json") && !name.ends_with(".schema.json"))
        .collect();
    found.sort();
    assert_eq!(found, EXAMPLES);
}

#[test]
fn over_the_command_line() {
    let house = House::new(&["one"]);
    for name in EXAMPLES {
        let document = example(name, &house.guest(), &house.reports());
        let report = house.submit_and_watch(&document).expect_code(COMPLETED).json();
        assert_report(name, &report);
        let again = house.guestkit(&["report", "-o", "json", document["job_id"].as_str().unwrap()]);
        assert_eq!(again.expect_code(COMPLETED).json(), report);
    }
    house.submit_and_watch(&unsupported()).expect_code(REFUSED).expect_in_stderr(&["guestkit.compare"]);
}

#[test]
fn in_this_process_without_a_coordinator() {
    let house = House::new(&[]);
    for name in EXAMPLES {
        let mut document = example(name, &house.guest(), &house.reports());
        if let Some(data) = document["payload"]["data"].as_object_mut() {
            data.remove("output");
        }
        let path = house.write(name, &document);
        let report = house.guestkit(&["local", "run", "-o", "json", text(&path)]).expect_code(COMPLETED).json();
        assert_report(name, &report);
    }
}

fn assert_report(name: &str, report: &Value) {
    if name == "echo-test.json" {
        assert!(report.to_string().len() > 2, "{report}");
    } else if name.contains("profile") {
        assert_eq!(report["systems"][0]["operating_system"]["hostname"], "demo-vm", "{name}: {report:#}");
        assert!(report["content_version"].is_string() && report["summary"]["checks"].is_u64(), "{name}: {report:#}");
    } else {
        assert_eq!(report["systems"][0]["operating_system"]["hostname"], "demo-vm", "{name}: {report:#}");
    }
}

#[test]
fn over_a_grpc_client_that_is_not_ours() {
    let house = House::new(&["one"]);
    for name in EXAMPLES {
        let document = example(name, &house.guest(), &house.reports());
        let submitted = curl(&house, "Jobs/Submit", &document).expect_code(0).json();
        let job_id = submitted["job"]["jobId"].as_str().unwrap();
        assert_eq!(job_id, document["job_id"]);
        let watched = curl(&house, "Jobs/Watch", &json!({"job_id": job_id})).expect_code(0);
        let events: Vec<Value> =
            serde_json::Deserializer::from_str(&watched.stdout).into_iter().map(Result::unwrap).collect();
        let last = events.last().unwrap();
        assert_eq!(last["event"]["state"], "JOB_STATE_COMPLETED", "{name}: {last:#}");
        let sequences: Vec<u64> =
            events.iter().map(|event| event["event"]["sequence"].as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(sequences, (1..=events.len() as u64).collect::<Vec<_>>(), "no gap, no repeat");
        let report = curl(&house, "Jobs/GetReport", &json!({"jobId": job_id})).expect_code(0).json();
        assert_eq!(report["result"]["status"], "completed");
    }
    let refused = curl(&house, "Jobs/Submit", &unsupported());
    assert_ne!(refused.code, 0);
    refused.expect_in_stderr(&["guestkit.compare"]);
}

/// `buf curl` finds the services by reflection, as grpcurl does.
fn curl(house: &House, method: &str, data: &Value) -> Answer {
    let buf = std::env::var_os("GUESTKIT_BUF").unwrap_or_else(|| "buf".into());
    let url = format!("{}/guestkit.v1.{method}", house.fleet.url());
    let mut command = Command::new(buf);
    command.args(["curl", "--http2-prior-knowledge", "--protocol", "grpc", "--data", &data.to_string(), &url]);
    Answer::of(command.output().expect("buf is installed: npm install -g @bufbuild/buf, or set GUESTKIT_BUF"))
}
