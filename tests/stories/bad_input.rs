//! Bad input, and what it gets: a precise refusal before anything runs, or an outcome with the right code; never a hang, a
//! panic or a lost job. At the end of each story the fleet still works.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::house::{COMPLETED, FAILED, House, REFUSED, UNREACHABLE, USAGE, echo, inspect, text};

#[track_caller]
fn still_works(house: &House) {
    house.submit_and_watch(&echo("still-works-1", 0.0)).expect_code(COMPLETED);
}

/// Changes one member of a good document.
fn with(pointer: &str, value: Value) -> Value {
    let mut document = inspect("bad-document-1", Path::new("/images/any.qcow2"));
    let (parent, member) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap()[member] = value;
    document
}

#[test]
fn documents_are_refused_with_the_path_of_the_field() {
    let house = House::new(&["one"]);
    let cases = [
        (with("/prioritty", json!(1)), vec!["prioritty", "unknown field"]),
        (
            with("/payload/data/options", json!({"include_pakages": true})),
            vec!["payload.data.options.include_pakages", "include_packages"],
        ),
        (with("/execution", json!({"priority": "high"})), vec!["execution.priority"]),
        (with("/execution", json!({"priority": 11})), vec!["execution.priority", "10"]),
        (with("/metadata", json!([])), vec!["metadata"]),
        (with("/job_id", json!("../../x")), vec!["job_id"]),
        (with("/version", json!("2.0")), vec!["version", "2.0"]),
        (with("/kind", json!("Pod")), vec!["kind", "VMOperation"]),
        (with("/payload/type", json!("system.echo.v1")), vec!["payload.type", "guestkit.inspect"]),
        (with("/payload/data/image/path", json!("/images/../etc/passwd")), vec!["payload.data.image.path"]),
        (with("/payload/data/image/format", json!("floppy")), vec!["payload.data.image.format"]),
        (with("/constraints", json!({"minimum_worker_version": "new"})), vec!["constraints.minimum_worker_version"]),
    ];
    for (document, words) in cases {
        house.submit_and_watch(&document).expect_code(REFUSED).expect_in_stderr(&words);
    }
    still_works(&house);
}

#[test]
fn all_problems_are_told_at_once() {
    let house = House::new(&[]);
    let mut document = with("/execution", json!({"priority": 11, "max_attempts": 0}));
    document["job_id"] = json!("../../x");
    document["surprise"] = json!(true);
    house.submit_and_watch(&document).expect_code(REFUSED).expect_in_stderr(&[
        "execution.priority",
        "execution.max_attempts",
        "job_id",
        "surprise",
    ]);
}

#[test]
fn a_document_of_two_megabytes_is_refused() {
    let house = House::new(&["one"]);
    let mut document = echo("too-large-0001", 0.0);
    document["payload"]["data"]["message"] = json!("x".repeat(2 << 20));
    house.submit_and_watch(&document).expect_code(REFUSED);
    still_works(&house);
}

#[test]
fn text_that_is_no_document_is_refused() {
    let house = House::new(&[]);
    for (name, content) in [("half.json", "{\"version\": \"1.0\", "), ("empty.json", ""), ("list.json", "[]")] {
        let path = house.fleet.folder().join(name);
        fs::write(&path, content).unwrap();
        house.guestkit(&["submit", text(&path)]).expect_code(REFUSED);
    }
}

#[test]
fn one_name_is_one_job() {
    let house = House::new(&["one"]);
    let document = echo("same-name-001", 0.0);
    house.submit_and_watch(&document).expect_code(COMPLETED);
    // The same document again is the same job, not a second one.
    house.submit_and_watch(&document).expect_code(COMPLETED);
    assert_eq!(house.job("same-name-001")["attempt"], 1);
    let mut other = document.clone();
    other["payload"]["data"]["message"] = json!("something else");
    house.submit_and_watch(&other).expect_code(REFUSED).expect_in_stderr(&["same-name-001"]);
}

#[test]
fn images_that_cannot_be_read_say_why() {
    // A path beneath no worker's image roots is judged once workers had time to connect.
    let house = House::with_coordinator(&["--image-root-patience-seconds", "0.5"], &["one"]);
    let cases = bad_images(&house);
    for (index, (image, code, words)) in cases.iter().enumerate() {
        let job_id = format!("bad-image-{index:02}");
        house.submit_and_watch(&inspect(&job_id, image)).expect_code(FAILED);
        let error = &house.job(&job_id)["error"];
        assert_eq!(error["code"], *code, "{}: {error:#}", image.display());
        let told = error.to_string();
        assert!(told.contains(words), "{}: {words:?} is not said in {told}", image.display());
    }
    still_works(&house);
}

fn bad_images(house: &House) -> Vec<(PathBuf, &'static str, &'static str)> {
    let images = house.images();
    let outside = house.fleet.folder().join("outside.qcow2");
    fs::copy(house.guest(), &outside).unwrap();
    symlink(&outside, images.join("link-out.qcow2")).unwrap();
    symlink("/etc", images.join("folder-out")).unwrap();
    fs::create_dir(images.join("folder.qcow2")).unwrap();
    run(Command::new("mkfifo").arg(images.join("fifo.qcow2")));
    fs::write(images.join("empty.qcow2"), "").unwrap();
    fs::write(images.join("text.qcow2"), "this is a text file\n").unwrap();
    qemu_img(&["create", "-q", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw"], &images.join("thief.qcow2"));
    qemu_img(&["create", "-q", "-f", "qed"], &images.join("other.qed"));
    qemu_img(&["create", "-q", "-f", "raw"], &images.join("blank.raw"));
    vec![
        (outside, "IMAGE_ACCESS_DENIED", "image root"),
        (images.join("link-out.qcow2"), "IMAGE_ACCESS_DENIED", "link-out"),
        (images.join("folder-out/passwd"), "IMAGE_ACCESS_DENIED", "passwd"),
        (images.join("missing.qcow2"), "IMAGE_NOT_FOUND", "missing.qcow2"),
        (images.join("folder.qcow2"), "IMAGE_UNSUPPORTED", "directory"),
        (images.join("fifo.qcow2"), "IMAGE_UNSUPPORTED", "FIFO"),
        (images.join("empty.qcow2"), "IMAGE_CORRUPT", "empty"),
        (images.join("text.qcow2"), "IMAGE_CORRUPT", "text.qcow2"),
        (images.join("thief.qcow2"), "IMAGE_ACCESS_DENIED", "/etc/passwd"),
        (images.join("other.qed"), "IMAGE_UNSUPPORTED", "qed"),
        (images.join("blank.raw"), "NO_OPERATING_SYSTEM", ""),
    ]
}

fn qemu_img(args: &[&str], image: &Path) {
    run(Command::new("qemu-img").args(args).arg(image).arg("16M"));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_wrong_checksum_names_both_and_is_not_tried_again() {
    let house = House::new(&["one"]);
    let mut document = inspect("wrong-checksum", &house.guest());
    let wrong = "0".repeat(64);
    document["payload"]["data"]["image"]["checksum"] = json!(format!("sha256:{wrong}"));
    document["execution"] = json!({"max_attempts": 3});
    house.submit_and_watch(&document).expect_code(FAILED);
    let job = house.job("wrong-checksum");
    let error = &job["error"];
    assert_eq!(error["code"], "IMAGE_CHECKSUM_MISMATCH");
    assert_eq!(error["details"]["expected"], wrong);
    assert_eq!(error["details"]["actual"], crate::house::sha256_hex(&house.guest()));
    assert_eq!(job["attempt"], 1);
}

#[test]
fn a_stated_format_that_disagrees_names_both() {
    let house = House::new(&["one"]);
    let mut document = inspect("wrong-format-1", &house.guest());
    document["payload"]["data"]["image"]["format"] = json!("vmdk");
    house.submit_and_watch(&document).expect_code(FAILED);
    let error = house.job("wrong-format-1")["error"].to_string();
    assert!(error.contains("vmdk") && error.contains("qcow2"), "{error}");
}

#[test]
fn a_report_is_written_only_beneath_an_output_root() {
    let house = House::new(&["one"]);
    let elsewhere = house.fleet.folder().join("elsewhere.json");
    let mut document = inspect("output-outside", &house.guest());
    document["payload"]["data"]["output"] = json!({"destination": elsewhere});
    house.submit_and_watch(&document).expect_code(FAILED);
    assert_eq!(house.job("output-outside")["error"]["code"], "OUTPUT_FAILED");
    assert!(!elsewhere.exists());

    let inside = house.reports().join("inside.json");
    document["job_id"] = json!("output-inside-1");
    document["payload"]["data"]["output"] = json!({"destination": inside});
    let report = house.submit_and_watch(&document).expect_code(COMPLETED).json();
    let written: Value = serde_json::from_slice(&fs::read(&inside).unwrap()).unwrap();
    assert_eq!(written, report);
}

#[test]
fn the_command_line_says_what_it_could_not_do() {
    let house = House::new(&[]);
    house.guestkit(&["submit", "/no/such/file.json"]).expect_code(USAGE).expect_in_stderr(&["/no/such/file.json"]);
    house.guestkit(&["get", "never-submitted"]).expect_code(REFUSED).expect_in_stderr(&["never-submitted"]);
    house.guestkit(&["frobnicate"]).expect_code(USAGE);
    // Port 9 (discard) is not served on a loopback interface.
    let nobody = ["--coordinator", "http://127.0.0.1:9", "list"];
    house.guestkit(&nobody).expect_code(UNREACHABLE).expect_in_stderr(&["127.0.0.1:9"]);
}
