//! Full disks: what cannot be kept is refused clearly, what was promised is kept, and when there is room again everything
//! goes on by itself. The disks are small ones of the stories' own, in a mount namespace that ends with them.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use guestkit_processes::until;
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::{client, document};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::house::{COMPLETED, House, REFUSED, UNREACHABLE, echo, lost_attempts};

/// Tells that this process is in a mount namespace of its own.
const INSIDE: &str = "GUESTKIT_STORY_MOUNTS";

/// False where the story is told by another process, in a mount namespace of its own, or cannot be told on this machine.
#[track_caller]
fn inside(story: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let Some(unshare) = unshare() else {
        println!("NOT TRIED: {story}: this machine lets nobody mount a disk (unshare --mount)");
        return false;
    };
    let mut command = Command::new("unshare");
    command.args(unshare).arg(std::env::current_exe().unwrap());
    let status = command.args(["--exact", story, "--nocapture"]).env(INSIDE, "yes").status().unwrap();
    assert!(status.success(), "{story} ended with {status}");
    false
}

/// How a disk may be mounted here: as root, or as the root of a user namespace.
fn unshare() -> Option<&'static [&'static str]> {
    const WAYS: [&[&str]; 2] = [&["--mount"], &["--mount", "--map-root-user"]];
    let works = |way: &&&[&str]| {
        let mut command = Command::new("unshare");
        command.args(**way).args(["mount", "-t", "tmpfs", "none", "/mnt"]);
        command.output().is_ok_and(|output| output.status.success())
    };
    WAYS.iter().find(works).copied()
}

/// A folder in which `at` is a disk of a megabyte or so.
fn folder_with_disk(at: &str, size: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::Builder::new().prefix("guestkit-").tempdir().unwrap();
    let disk = folder.path().join(at);
    fs::create_dir_all(&disk).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(&disk).status();
    assert!(mount.unwrap().success());
    (folder, disk)
}

/// A disk without a free byte, until this is dropped.
struct Full(PathBuf);

impl Full {
    fn fill(disk: &Path) -> Self {
        let path = disk.join("ballast");
        let mut file = File::create(&path).unwrap();
        for bytes in [64 * 1024, 4096, 1] {
            loop {
                match file.write_all(&vec![0; bytes]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        Self(path)
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The status line of a page.
fn page(house: &House, path: &str) -> String {
    let mut stream = TcpStream::connect(house.fleet.http()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_coordinator_whose_disk_is_full_says_so_and_goes_on_when_there_is_room() {
    if !inside("full_disk::a_coordinator_whose_disk_is_full_says_so_and_goes_on_when_there_is_room") {
        return;
    }
    let (folder, disk) = folder_with_disk("data", "8m");
    let mut house = House::in_folder(folder, &[], &["steady"]);
    house.submit(&echo("before-full-1", 8.0)).expect_code(COMPLETED);
    house.wait_for_state("before-full-1", "JOB_STATE_RUNNING");
    let coordinator = house.fleet.coordinator().id();

    let full = Full::fill(&disk);
    let submitter = Submitter::new(&house);
    let (mut taken, refused) = submitter.fill("filling", 50_000);
    house.submit(&refused).expect_code(UNREACHABLE).expect_in_stderr(&["the coordinator's disk is full"]);
    // Where a large document has no room a small one may have some, and an outcome.
    until("a coordinator that says it is not ready", || {
        let round = taken.len();
        taken.extend(submitter.fill(&format!("crumb-{round}"), 0).0);
        Ok(page(&house, "/readyz").contains("503").then_some(()))
    })
    .unwrap();
    // What is durable can be read.
    assert_eq!(house.job("before-full-1")["state"], "JOB_STATE_RUNNING");
    // The worker's disk has room: what it found out waits there.
    until("the outcome on the worker's disk", || Ok((house.kept_outcomes("steady") == 1).then_some(()))).unwrap();

    drop(full);
    let done = house.wait_for_state("before-full-1", "JOB_STATE_COMPLETED");
    assert_eq!((&done["attempt"], lost_attempts(&done)), (&json!(1), 0), "{done:#}");
    for job_id in &taken {
        house.wait_for_state(job_id, "JOB_STATE_COMPLETED");
    }
    let refused_id = refused["job_id"].as_str().unwrap();
    house.guestkit(&["get", refused_id]).expect_code(REFUSED);
    house.submit_and_watch(&refused).expect_code(COMPLETED);
    until("an empty spool", || Ok((house.kept_outcomes("steady") == 0).then_some(()))).unwrap();
    assert!(page(&house, "/readyz").contains("200"));
    assert_eq!(house.fleet.coordinator().id(), coordinator);
    house.fleet.stop().unwrap();
}

/// Submits over one connection: the log must be full before what runs is over.
struct Submitter {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

impl Submitter {
    fn new(house: &House) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let channel = runtime.block_on(client::connect(&house.fleet.url().parse().unwrap())).unwrap();
        Self { runtime, channel }
    }

    /// Submits documents with messages of `bytes` until one is refused: the names of the jobs that were taken, and the document
    /// that was not. The refusal is typed, and says when to try again.
    fn fill(&self, name: &str, bytes: usize) -> (Vec<String>, Value) {
        let mut taken = Vec::new();
        // A disk of 8 MiB does not hold that many, however small.
        while taken.len() < 4000 {
            let job_id = format!("{name}-{:05}", taken.len());
            let mut document = echo(&job_id, 0.0);
            document["payload"]["data"]["message"] = json!("x".repeat(bytes));
            let parsed = document::parse(document.to_string().as_bytes()).unwrap();
            let mut jobs = client::jobs(self.channel.clone());
            let Err(status) = self.runtime.block_on(jobs.submit(parsed)) else {
                taken.push(job_id);
                continue;
            };
            let refusal = Refusal::from_status(&status).unwrap_or_else(|| panic!("not a refusal of ours: {status:?}"));
            assert_eq!(refusal.reason, Reason::Unavailable);
            assert!(refusal.message.contains("disk is full") && refusal.retry_after.is_some(), "{refusal:?}");
            return (taken, document);
        }
        panic!("the disk does not fill");
    }
}

#[test]
fn a_worker_whose_disk_is_full_delivers_from_memory_and_loses_no_job() {
    if !inside("full_disk::a_worker_whose_disk_is_full_delivers_from_memory_and_loses_no_job") {
        return;
    }
    let (folder, disk) = folder_with_disk("workers", "1m");
    let mut house = House::in_folder(folder, &[], &["steady"]);
    house.submit_and_watch(&echo("before-full-1", 0.0)).expect_code(COMPLETED);
    until("an empty spool", || Ok((house.kept_outcomes("steady") == 0).then_some(()))).unwrap();
    let full = Full::fill(&disk);

    // The outcome is found while nobody is there to take it, and there is no room to keep it.
    outcome_without_room(&mut house, "from-memory-1", 1);
    house.fleet.restart_coordinator().unwrap();
    let done = house.wait_for_state("from-memory-1", "JOB_STATE_COMPLETED");
    assert_eq!((&done["attempt"], lost_attempts(&done)), (&json!(1), 0), "{done:#}");

    // Now the worker dies as well: what it found out is lost, the job is not. It starts on a full disk.
    outcome_without_room(&mut house, "run-again-001", 2);
    house.fleet.worker("steady").unwrap().kill();
    house.fleet.restart_coordinator().unwrap();
    house.start_worker("steady");
    let done = house.wait_for_state("run-again-001", "JOB_STATE_COMPLETED");
    assert_eq!((&done["attempt"], lost_attempts(&done)), (&json!(2), 1), "{done:#}");

    drop(full);
    house.submit(&echo("with-room-001", 2.0)).expect_code(COMPLETED);
    house.wait_for_state("with-room-001", "JOB_STATE_RUNNING");
    house.fleet.coordinator().kill();
    until("the outcome on the worker's disk", || Ok((house.kept_outcomes("steady") == 1).then_some(()))).unwrap();
    house.fleet.restart_coordinator().unwrap();
    house.wait_for_state("with-room-001", "JOB_STATE_COMPLETED");
    house.fleet.stop().unwrap();
}

/// A job that ends while the coordinator is away and the worker's disk is full, for the `nth` time.
fn outcome_without_room(house: &mut House, job_id: &str, nth: usize) {
    house.submit(&echo(job_id, 2.0)).expect_code(COMPLETED);
    house.wait_for_state(job_id, "JOB_STATE_RUNNING");
    house.fleet.coordinator().kill();
    until("an outcome that cannot be kept", || {
        let log = house.worker_log("steady");
        Ok((log.matches("an outcome could not be kept on disk").count() >= nth).then_some(()))
    })
    .unwrap();
    assert_eq!(house.kept_outcomes("steady"), 0);
}

#[test]
fn a_report_waits_until_the_folder_of_artifacts_has_room() {
    if !inside("full_disk::a_report_waits_until_the_folder_of_artifacts_has_room") {
        return;
    }
    let (folder, disk) = folder_with_disk("data/artifacts", "1m");
    let mut house = House::in_folder(folder, &["--inline-bytes-max", "16384"], &["steady"]);
    let full = Full::fill(&disk);
    let mut large = echo("large-report1", 0.0);
    large["payload"]["data"]["message"] = json!("a long report; ".repeat(20_000));
    house.submit(&large).expect_code(COMPLETED);
    until("an upload that is refused for want of room", || {
        Ok(house.worker_log("steady").contains("No space left on device").then_some(()))
    })
    .unwrap();
    // It holds up nobody else.
    house.submit_and_watch(&echo("small-report1", 0.0)).expect_code(COMPLETED);
    assert_eq!(house.job("large-report1")["state"], "JOB_STATE_RUNNING");
    assert_eq!(house.kept_outcomes("steady"), 1);

    drop(full);
    let done = house.wait_for_state("large-report1", "JOB_STATE_COMPLETED");
    assert_eq!((&done["attempt"], lost_attempts(&done)), (&json!(1), 0), "{done:#}");
    let report = house.guestkit(&["report", "-o", "json", "large-report1"]).expect_code(COMPLETED).json();
    assert_eq!(report["message"], large["payload"]["data"]["message"]);
    house.fleet.stop().unwrap();
}
