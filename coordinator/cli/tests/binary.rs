//! What scripts rely on, seen from outside: exit codes, what is on which stream, and pipes that close.
//! No coordinator takes part; the whole way is in the system tests.
#![allow(clippy::unwrap_used)] // Helpers of tests may panic as tests do.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn guestkit(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guestkit"));
    command.args(args).env_remove("GUESTKIT_COORDINATOR").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    guestkit(args).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// An address where nothing listens.
fn nowhere() -> String {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    format!("http://{free}")
}

/// Checks the exit code, that standard output is empty, and that standard error has each of these texts.
fn fails(args: &[&str], code: i32, said: &[&str]) {
    let output = run(args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert_eq!(text(&output.stdout), "", "{args:?}");
    for said in said {
        assert!(stderr.contains(said), "{args:?}: {said:?} is not in\n{stderr}");
    }
}

#[test]
fn help_has_examples_and_exit_codes() {
    let output = run(&["--help"]);
    let help = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    for part in ["Examples:", "guestkit local inspect", "Exit codes:", "GUESTKIT_COORDINATOR", "completions"] {
        assert!(help.contains(part), "{part:?} is not in\n{help}");
    }
}

#[test]
fn every_command_has_help() {
    let commands = [
        "submit",
        "inspect",
        "watch",
        "get",
        "report",
        "list",
        "cancel",
        "retry",
        "delete",
        "explain",
        "workers",
        "drain",
        "resume",
        "summary",
        "local",
        "completions",
    ];
    for command in commands {
        let output = run(&[command, "--help"]);
        assert!(output.status.success() && text(&output.stdout).contains("Usage: guestkit"), "{command}");
    }
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(text(&run(&["--version"]).stdout), format!("guestkit {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success(), "{shell}");
        assert!(text(&output.stdout).contains("explain"), "{shell}");
    }
}

#[test]
fn wrong_usage_is_2() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    fails(&["list", "--no-such-flag"], 2, &["--no-such-flag"]);
    fails(&["list", "--since", "yesterday"], 2, &["--since", "yesterday"]);
    fails(&["list", "--limit", "0"], 2, &["--limit"]);
    fails(&["inspect", "a.raw", "--label", "x"], 2, &["KEY=VALUE"]);
    fails(&["summary", "--coordinator", "127.0.0.1:7443"], 2, &["--coordinator", "http://"]);
    fails(&["submit", "no-such-file.json"], 2, &["no-such-file.json", "No such file"]);
    fails(&["submit", folder], 2, &[folder, "is a directory"]);
    fails(&["submit", "-", "-"], 2, &["standard input can be named once"]);
    fails(&["local", "run", "no-such-file.json"], 2, &["no-such-file.json"]);
}

#[test]
fn a_document_with_problems_is_3_and_each_has_its_line() {
    let mut child = guestkit(&["submit", "-", "-o", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let document =
        br#"{ "version": "1.0", "kind": "VMOperation", "operation": "system.echo", "execution": { "priority": 11 },
        "payload": { "type": "system.echo.v1", "data": {} }, "unheard_of": 1 }"#;
    child.stdin.take().unwrap().write_all(document).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert_eq!(text(&output.stdout), "");
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(lines.iter().any(|line| line.starts_with("  execution.priority: ")), "{stderr}");
    assert!(lines.iter().any(|line| line.starts_with("  unheard_of: unknown field")), "{stderr}");
}

#[test]
fn what_is_no_document_is_3() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.json");
    let check = |content: &[u8], said: &str| {
        fs::write(&file, content).unwrap();
        fails(&["submit", file.to_str().unwrap()], 3, &["job.json was refused", said]);
    };
    check(b"", "");
    check(b"{", "JSON");
    check(b"[]", "");
    check(b"\xff\xfe", "");
    check(&vec![b' '; 2 << 20], "bytes");
}

#[test]
fn one_bad_document_keeps_the_others_back() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good.json"), folder.path().join("bad.json"));
    let document = r#"{ "version": "1.0", "kind": "VMOperation", "operation": "system.echo",
        "payload": { "type": "system.echo.v1", "data": {} } }"#;
    fs::write(&good, document).unwrap();
    fs::write(&bad, "{}").unwrap();
    fails(
        &["submit", good.to_str().unwrap(), bad.to_str().unwrap(), "--coordinator", &nowhere()],
        3,
        &["bad.json was refused", "nothing was submitted"],
    );
}

#[test]
fn nobody_there_is_4() {
    let nowhere = nowhere();
    for command in ["summary", "list", "workers"] {
        fails(
            &[command, "--coordinator", &nowhere],
            4,
            &["cannot reach a coordinator", &nowhere, "guestkit-coordinator serve"],
        );
    }
    fails(&["inspect", "a.raw", "--coordinator", &nowhere], 4, &[&nowhere]);
    fails(
        &["watch", "job-00000001", "--reconnect", "0", "--coordinator", &nowhere],
        4,
        &["guestkit watch job-00000001"],
    );
}

#[test]
fn the_coordinator_comes_from_the_environment() {
    let nowhere = nowhere();
    let output = guestkit(&["summary"]).env("GUESTKIT_COORDINATOR", format!("{nowhere},{nowhere}")).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains(&nowhere));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    for args in [&["completions", "bash"][..], &["--help"], &["completions", "zsh", "-o", "json"]] {
        let mut child = guestkit(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(text(&output.stderr), "", "{args:?}");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
    }
}

#[test]
fn errors_survive_a_closed_standard_error() {
    let mut child =
        guestkit(&["submit", "no-such-file.json"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_told() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = guestkit(&["completions", "bash"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot write to standard output"), "{}", text(&output.stderr));
}

#[test]
fn a_local_job_prints_its_report_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.json");
    let document = r#"{ "version": "1.0", "kind": "VMOperation", "operation": "system.echo",
        "payload": { "type": "system.echo.v1", "data": { "message": "hello", "n": 5 } } }"#;
    fs::write(&file, document).unwrap();
    let file = file.to_str().unwrap();

    let output = run(&["local", "run", file, "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("standard output is one JSON document");
    assert_eq!(report, serde_json::json!({ "data": { "message": "hello", "n": 5 }, "message": "hello" }));
    assert!(text(&output.stderr).contains("(100%)"), "{}", text(&output.stderr));

    let quiet = run(&["local", "run", file, "-o", "yaml", "--quiet"]);
    assert_eq!(text(&quiet.stderr), "");
    let read: Value = serde_saphyr::from_str(text(&quiet.stdout)).expect("standard output is one YAML document");
    assert_eq!(read, report);

    assert!(text(&run(&["local", "run", file]).stdout).contains("hello"));
}

#[test]
fn colour_is_where_it_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.json");
    let document = r#"{ "version": "1.0", "kind": "VMOperation", "operation": "system.echo",
        "payload": { "type": "system.echo.v1", "data": { "message": "\u001b[31mhello" } } }"#;
    fs::write(&file, document).unwrap();
    let escapes = |color: &str, no_color: Option<&str>| {
        let mut command = guestkit(&["local", "run", file.to_str().unwrap(), "--color", color]);
        if let Some(value) = no_color {
            command.env("NO_COLOR", value);
        }
        let output = command.output().unwrap();
        assert!(!text(&output.stdout).contains("\u{1b}[31m"), "a guest's text coloured the terminal");
        text(&output.stdout).contains('\u{1b}')
    };
    assert!(escapes("always", None));
    assert!(escapes("always", Some("")));
    assert!(!escapes("always", Some("1")));
    assert!(!escapes("auto", None));
    assert!(!escapes("never", None));
}

#[test]
fn a_local_job_that_fails_is_1_and_says_why() {
    let output = run(&["local", "inspect", "no-such-image.qcow2", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let outcome: Value = serde_json::from_slice(&output.stdout).expect("standard output is one JSON document");
    assert_eq!(outcome["status"], "failed");
    assert_eq!(outcome["error"]["code"], "IMAGE_NOT_FOUND");
}

#[test]
fn an_operation_that_cannot_be_run_here_is_3() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.json");
    let document = r#"{ "version": "1.0", "kind": "VMOperation", "operation": "guestkit.unheard",
        "payload": { "type": "guestkit.unheard.v1", "data": {} } }"#;
    fs::write(&file, document).unwrap();
    fails(&["local", "run", file.to_str().unwrap()], 3, &["job.json was refused", "guestkit.unheard"]);
}
