//! Results by reference: uploaded in pieces, taken up again, checked, read back, and gone with their job.

// Helpers of tests are tests: a panic is how they fail. Not every test program uses all of the harness.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

mod harness;

use std::path::Path;
use std::time::Instant;

use guestkit_coordinator::app::Ended;
use guestkit_coordinator::artifacts::{ArtifactError, Artifacts, Attempt, ContentHash, Key, Places};
use guestkit_coordinator::config::{ArtifactsLocation, AwsSettings, Config};
use guestkit_domain::{JobId, LeaseId};
use guestkit_processes::{Process, s3};
use guestkit_protocol::client;
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::v1;
use guestkit_protocol::v1::session_request::Message as Said;
use harness::{Coordinator, Worker, config, echo, hello, outcome, within};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

const PIECE: usize = 256 * 1024;

fn refused(status: &Status) -> Refusal {
    Refusal::from_status(status).unwrap_or_else(|| panic!("not a refusal: {status:?}"))
}

/// A report of some 700 KB: two pieces and a bit.
fn whole(lease: &v1::Lease) -> v1::JobResult {
    let echo = v1::EchoReport { message: Some("0123456789".repeat(70_000)), ..v1::EchoReport::default() };
    v1::JobResult {
        job_id: lease.job_id.clone(),
        status: "completed".into(),
        worker_id: "w1".into(),
        report: Some(v1::job_result::Report::Echo(echo)),
        ..v1::JobResult::default()
    }
}

fn artifact(bytes: &[u8]) -> v1::Artifact {
    v1::Artifact {
        name: "report".into(),
        media_type: "application/x-protobuf".into(),
        size_bytes: bytes.len() as u64,
        sha256: Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
        ..v1::Artifact::default()
    }
}

fn pieces(lease_id: u64, artifact: &v1::Artifact, from: usize, bytes: &[u8]) -> Vec<v1::PutArtifactRequest> {
    let header = v1::ArtifactHeader { lease_id, artifact: Some(artifact.clone()) };
    let first = v1::PutArtifactRequest { header: Some(header), ..v1::PutArtifactRequest::default() };
    let rest = bytes.get(from..).unwrap_or_default().chunks(PIECE).enumerate().map(|(index, data)| {
        v1::PutArtifactRequest { header: None, offset: (from + index * PIECE) as u64, data: data.to_vec() }
    });
    std::iter::once(first).chain(rest).collect()
}

async fn put(coordinator: &Coordinator, pieces: Vec<v1::PutArtifactRequest>) -> Result<u64, Status> {
    put_over(coordinator.channel.clone(), pieces).await
}

async fn put_over(channel: Channel, pieces: Vec<v1::PutArtifactRequest>) -> Result<u64, Status> {
    let mut workers = client::workers(channel);
    let answer = within(workers.put_artifact(tokio_stream::iter(pieces))).await?;
    Ok(answer.into_inner().stored_bytes)
}

async fn read(coordinator: &Coordinator, name: &str, offset: u64) -> Result<(v1::Artifact, Vec<u8>), Status> {
    read_over(coordinator.channel.clone(), name, offset).await
}

async fn read_over(channel: Channel, name: &str, offset: u64) -> Result<(v1::Artifact, Vec<u8>), Status> {
    let request = v1::ReadArtifactRequest { job_id: "job-00001".into(), name: name.into(), offset };
    let mut stream = client::jobs(channel).read_artifact(request).await?.into_inner();
    let first = within(stream.message()).await?.expect("a header");
    let artifact = first.artifact.clone().expect("a header");
    let mut bytes = Vec::new();
    let mut next = Some(first);
    while let Some(piece) = next {
        assert!(piece.data.len() <= PIECE);
        assert_eq!(piece.offset, offset + bytes.len() as u64);
        bytes.extend(piece.data);
        next = within(stream.message()).await?;
    }
    Ok((artifact, bytes))
}

/// Where a test keeps artifacts.
#[derive(Debug)]
enum Place {
    Folder,
    Bucket(s3::Server),
}

impl Place {
    /// Each that can be had here.
    fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self::Folder).chain(s3::Server::start().unwrap().map(Self::Bucket))
    }

    /// Settings of a coordinator on `folder` that keeps artifacts here.
    fn settings(&self, folder: &Path) -> Config {
        let here =
            Config { data: folder.into(), inline_bytes_max: 16_384, artifact_bytes_max: 1024 * 1024, ..config() };
        match self {
            Self::Folder => here,
            Self::Bucket(server) => in_bucket(here, server.settings()),
        }
    }

    fn artifacts(&self, folder: &Path, bytes_max: u64) -> Artifacts {
        self.artifacts_of(folder, "uploads", bytes_max)
    }

    /// The same, of one of several coordinators.
    fn artifacts_of(&self, folder: &Path, staging: &str, bytes_max: u64) -> Artifacts {
        let settings = self.settings(folder);
        let (local, staging) = (folder.join("artifacts"), folder.join(staging));
        let places = Places { location: settings.artifacts, local, staging, aws: settings.aws };
        Artifacts::open(places, bytes_max).unwrap()
    }

    /// Whether anything is kept of an attempt, or of all.
    fn holds(&self, folder: &Path, below: &str) -> bool {
        match self {
            Self::Folder => {
                std::fs::read_dir(folder.join("artifacts").join(below)).is_ok_and(|mut all| all.next().is_some())
            }
            Self::Bucket(server) => server.count_below(&format!("some/prefix/{below}")).unwrap() > 0,
        }
    }

    /// Keeps something that no coordinator put there.
    fn plant(&self, folder: &Path, path: &str) {
        match self {
            Self::Folder => {
                let path = folder.join("artifacts").join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, b"").unwrap();
            }
            Self::Bucket(server) => server.put(&format!("/some/prefix/{path}")).unwrap(),
        }
    }
}

fn in_bucket(settings: Config, aws: Vec<(String, String)>) -> Config {
    let artifacts = format!("s3://{}/some/prefix", s3::BUCKET).parse::<ArtifactsLocation>().unwrap();
    Config { artifacts: Some(artifacts), aws: aws.into_iter().collect::<AwsSettings>(), ..settings }
}

async fn start(settings: Config) -> (Coordinator, Worker, v1::Lease) {
    let coordinator = Coordinator::start_with(settings).await;
    let mut worker = coordinator.worker(hello("w1", "b1")).await;
    assert_eq!(worker.welcome.inline_bytes_max, 16_384);
    coordinator.submit(echo("job-00001")).await;
    let lease = worker.lease().await;
    worker.accept(&lease).await;
    (coordinator, worker, lease)
}

/// The outcome that refers to `artifact`.
fn referring(lease: &v1::Lease, artifact: v1::Artifact) -> v1::Outcome {
    let result = v1::JobResult { report: None, report_artifact: Some(artifact), ..whole(lease) };
    outcome(lease, v1::OutcomeStatus::Completed, &result)
}

async fn finish(worker: &mut Worker, lease: &v1::Lease, artifact: v1::Artifact) {
    worker.say(Said::Outcome(referring(lease, artifact))).await;
    assert_eq!(worker.ack().await.verdict(), v1::OutcomeVerdict::Recorded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_by_reference_is_resumed_and_survives_a_restart() {
    for place in Place::all() {
        resumed_and_restarted(&place).await;
    }
}

async fn resumed_and_restarted(place: &Place) {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, mut worker, lease) = start(place.settings(folder.path())).await;
    let bytes = whole(&lease).encode_to_vec();
    let artifact = artifact(&bytes);
    let all = || pieces(lease.lease_id, &artifact, 0, &bytes);

    assert_eq!(put(&coordinator, all()[..2].to_vec()).await.unwrap(), PIECE as u64);
    // The header alone asks how far it is.
    assert_eq!(put(&coordinator, all()[..1].to_vec()).await.unwrap(), PIECE as u64);
    let gap = put(&coordinator, pieces(lease.lease_id, &artifact, PIECE + 1, &bytes)).await.unwrap_err();
    assert_eq!(refused(&gap).problems[0].field, "offset");
    assert_eq!(put(&coordinator, pieces(lease.lease_id, &artifact, PIECE, &bytes)).await.unwrap(), bytes.len() as u64);
    // Once more, whole: it is there.
    assert_eq!(put(&coordinator, all()).await.unwrap(), bytes.len() as u64);
    assert_eq!(refused(&read(&coordinator, "report", 0).await.unwrap_err()).reason, Reason::NotOver);
    finish(&mut worker, &lease, artifact.clone()).await;
    drop(worker);
    assert_eq!(coordinator.stop().await, Ended::Gracefully);

    let coordinator = Coordinator::start_with(place.settings(folder.path())).await;
    let shown = coordinator.report("job-00001").await;
    assert_eq!((shown.report, shown.report_artifact.as_ref()), (None, Some(&artifact)));
    assert_eq!(read(&coordinator, "report", 0).await.unwrap(), (artifact.clone(), bytes.clone()));
    assert_eq!(read(&coordinator, "report", 300_000).await.unwrap().1, bytes[300_000..]);
    assert!(read(&coordinator, "report", bytes.len() as u64).await.unwrap().1.is_empty());
    let after = read(&coordinator, "report", bytes.len() as u64 + 1).await.unwrap_err();
    assert_eq!(refused(&after).problems[0].field, "offset");
    for name in ["", "other", "../report", "../../coordinator.sqlite"] {
        let missing = read(&coordinator, name, 0).await.unwrap_err();
        assert_eq!(refused(&missing).reason, Reason::ArtifactNotFound, "{name}");
    }

    let delete = v1::DeleteRequest { job_id: "job-00001".into() };
    coordinator.jobs().delete(delete).await.unwrap();
    assert!(!place.holds(folder.path(), ""));
    assert_eq!(std::fs::read_dir(folder.path().join("uploads")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_as_announced_is_refused() {
    for place in Place::all() {
        refused_unless_as_announced(&place).await;
    }
}

async fn refused_unless_as_announced(place: &Place) {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, mut worker, lease) = start(place.settings(folder.path())).await;
    let bytes = whole(&lease).encode_to_vec();
    let sound = artifact(&bytes);
    let field = |status: Status| refused(&status).problems[0].field.clone();
    let announce = |artifact: v1::Artifact| pieces(lease.lease_id, &artifact, 0, &bytes);

    let short = v1::Artifact { size_bytes: sound.size_bytes - 1, ..sound.clone() };
    assert_eq!(field(put(&coordinator, announce(short)).await.unwrap_err()), "data");
    let other = v1::Artifact { sha256: "0".repeat(64), ..sound.clone() };
    assert_eq!(field(put(&coordinator, announce(other)).await.unwrap_err()), "header.artifact.sha256");
    let large = v1::Artifact { size_bytes: 1024 * 1024 + 1, ..sound.clone() };
    assert_eq!(refused(&put(&coordinator, announce(large)).await.unwrap_err()).reason, Reason::TooLarge);
    for sha256 in ["", "../../../../tmp/evil", "F00"] {
        let strange = v1::Artifact { sha256: sha256.into(), ..sound.clone() };
        assert_eq!(field(put(&coordinator, announce(strange)).await.unwrap_err()), "header.artifact.sha256");
    }
    for name in ["", "..", "../evil", "/etc/passwd", "a/b", ".hidden", "nul\0"] {
        let strange = v1::Artifact { name: name.into(), ..sound.clone() };
        assert_eq!(field(put(&coordinator, announce(strange)).await.unwrap_err()), "header.artifact.name");
    }
    let mut thick = announce(sound.clone());
    thick.truncate(2);
    thick[1].data = vec![0; PIECE + 1];
    assert_eq!(field(put(&coordinator, thick).await.unwrap_err()), "data");
    assert_eq!(field(put(&coordinator, announce(sound.clone()).split_off(1)).await.unwrap_err()), "header");
    assert_eq!(field(put(&coordinator, vec![]).await.unwrap_err()), "header");
    let stale = pieces(lease.lease_id + 1, &sound, 0, &bytes);
    assert_eq!(refused(&put(&coordinator, stale).await.unwrap_err()).reason, Reason::LeaseNotCurrent);

    // Longer than announced, then as announced: the wrong size costs nothing but a new beginning.
    let long = v1::Artifact { size_bytes: sound.size_bytes + 1, ..sound.clone() };
    assert_eq!(put(&coordinator, announce(long)).await.unwrap(), sound.size_bytes);
    assert_eq!(put(&coordinator, announce(sound.clone())).await.unwrap(), sound.size_bytes);
    finish(&mut worker, &lease, sound.clone()).await;
    // The lease is over, and with it what may be stored under it.
    let late = v1::Artifact { sha256: "1".repeat(64), ..sound };
    assert_eq!(refused(&put(&coordinator, announce(late)).await.unwrap_err()).reason, Reason::LeaseNotCurrent);
    let inside: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(inside.iter().all(|name| !name.to_string_lossy().contains("evil")), "{inside:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_without_what_it_refers_to_has_failed() {
    for place in Place::all() {
        failed_without_its_report(&place).await;
    }
}

async fn failed_without_its_report(place: &Place) {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, mut worker, lease) = start(place.settings(folder.path())).await;
    let bytes = whole(&lease).encode_to_vec();
    let announced = artifact(&bytes);
    put(&coordinator, pieces(lease.lease_id, &announced, 0, &bytes)[..2].to_vec()).await.unwrap();
    finish(&mut worker, &lease, announced).await;
    let job = coordinator.get("job-00001").await;
    let error = job.error.clone().unwrap();
    assert_eq!(error.code, "INTERNAL");
    assert!(error.message.contains("was not uploaded"), "{error:?}");
    drop(worker);
    coordinator.stop().await;

    // What was begun under a lease that counts may be asked for; under one that is dead it is swept after the start.
    let kept = folder.path().join("uploads/job-00001").join(lease.lease_id.to_string());
    assert!(kept.exists());
    let dead = folder.path().join("uploads/job-00001/999");
    std::fs::create_dir(&dead).unwrap();
    std::fs::create_dir_all(folder.path().join("uploads/job-of-nobody/1")).unwrap();
    for attempt in ["job-00001/999", "job-of-nobody/1"] {
        place.plant(folder.path(), &format!("{attempt}/{}", "0".repeat(64)));
        assert!(place.holds(folder.path(), attempt));
    }
    let coordinator = Coordinator::start_with(place.settings(folder.path())).await;
    let began = Instant::now();
    let remain = || place.holds(folder.path(), "job-00001/999") || place.holds(folder.path(), "job-of-nobody");
    while dead.exists() || folder.path().join("uploads/job-of-nobody").exists() || remain() {
        assert!(began.elapsed() < harness::PATIENCE, "it is not swept");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(kept.exists());
    coordinator.jobs().retry(v1::RetryRequest { job_id: "job-00001".into() }).await.unwrap();
    assert!(!kept.exists(), "a retry leaves what the attempt before it made");
}

fn key(job_id: &str, lease: u64, bytes: &[u8]) -> Key {
    let attempt = Attempt { job_id: JobId::new(job_id).unwrap(), lease: LeaseId(lease) };
    Key { attempt, content: ContentHash::parse(&artifact(bytes).sha256).unwrap() }
}

async fn keep(artifacts: &Artifacts, key: &Key, bytes: &[u8]) {
    let upload = artifacts.begin(key, bytes.len() as u64).await.unwrap();
    let upload = upload.append(0, bytes.into()).await.unwrap();
    upload.settle().await.unwrap().keep().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_taken_up_where_it_ended() {
    for place in Place::all() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = place.artifacts(folder.path(), 100);
        let key = key("job-00001", 7, b"0123456789");
        let begin = async || artifacts.begin(&key, 10).await;
        let first = begin().await.unwrap().append(0, b"0123".into()).await.unwrap();
        assert!(matches!(begin().await, Err(ArtifactError::Busy { .. })));
        first.settle().await.unwrap();
        let wrong = async |offset, bytes: &[u8]| begin().await.unwrap().append(offset, bytes.into()).await;
        assert!(matches!(wrong(5, b"56").await, Err(ArtifactError::Gap { offset: 5, stored: 4 })));
        assert!(matches!(wrong(4, b"4567890").await, Err(ArtifactError::Overrun { size: 10 })));
        assert!(matches!(wrong(u64::MAX, b"4").await, Err(ArtifactError::Gap { .. })));
        assert_eq!(artifacts.size(&key).await.unwrap(), None);
        assert_eq!(artifacts.read(&key, 0..1).await.unwrap(), None);

        let second = begin().await.unwrap();
        assert_eq!(second.stored(), 4);
        let second = second.append(2, b"23456789".into()).await.unwrap();
        assert!(second.is_whole());
        second.settle().await.unwrap().keep().await.unwrap();
        assert_eq!(artifacts.read(&key, 0..10).await.unwrap().as_deref(), Some(&b"0123456789"[..]));
        assert_eq!(artifacts.read(&key, 3..7).await.unwrap().as_deref(), Some(&b"3456"[..]));
        assert!(artifacts.has(&key, 10).await.unwrap() && !artifacts.has(&key, 9).await.unwrap());
        assert!(!folder.path().join("uploads/job-00001").exists(), "it is staged still");
        // Again: it is there, and nothing is written.
        assert!(begin().await.unwrap().is_whole());
        keep(&artifacts, &key, b"0123456789").await;
        assert!(!folder.path().join("uploads/job-00001").exists(), "it was staged again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_several_parts_is_put_and_read_back() {
    for place in Place::all() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = place.artifacts(folder.path(), 64 * 1024 * 1024);
        // Two whole parts and a bit; exactly two.
        for size in [12 * 1024 * 1024 + 17, 10 * 1024 * 1024_u32] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let key = key("job-00001", 7, &bytes);
            keep(&artifacts, &key, &bytes).await;
            assert!(artifacts.read(&key, 0..u64::from(size)).await.unwrap().unwrap() == bytes);
            let middle = 5 * 1024 * 1024 - 3..5 * 1024 * 1024 + 3;
            let read = artifacts.read(&key, middle.start..middle.end).await.unwrap().unwrap();
            assert_eq!(read, bytes[middle.start as usize..middle.end as usize]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_what_was_announced_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = Place::Folder.artifacts(folder.path(), 100);
    let announced = key("job-00001", 7, b"announced!");
    let upload = artifacts.begin(&announced, 10).await.unwrap().append(0, b"delivered!".into()).await.unwrap();
    let Err(ArtifactError::Mismatch { found }) = upload.settle().await else { panic!("it was taken") };
    assert_eq!(found, key("job-00001", 7, b"delivered!").content);
    assert_eq!(artifacts.begin(&announced, 10).await.unwrap().stored(), 0);
    let large = artifacts.begin(&announced, 101).await;
    assert!(matches!(large, Err(ArtifactError::TooLarge { bytes: 101, most: 100 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_has_so_many_artifacts_and_no_more() {
    for place in Place::all() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = place.artifacts(folder.path(), 100);
        let named = |number: usize| key("job-00001", 7, number.to_string().as_bytes());
        for number in 0..16 {
            // Half of them whole.
            match number % 2 {
                0 => keep(&artifacts, &named(number), number.to_string().as_bytes()).await,
                _ => drop(artifacts.begin(&named(number), 10).await.unwrap()),
            }
        }
        assert!(matches!(artifacts.begin(&named(16), 10).await, Err(ArtifactError::TooMany)));
        artifacts.begin(&named(0), 1).await.unwrap();
        artifacts.begin(&named(1), 10).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_lease_owns_any_more_is_removed() {
    for place in Place::all() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = place.artifacts(folder.path(), 100);
        let (old, new, other) = (key("job-00001", 1, b"a"), key("job-00001", 2, b"a"), key("job-00002", 3, b"a"));
        for key in [&old, &new, &other] {
            keep(&artifacts, key, b"a").await;
        }
        let has = async |key: &Key| artifacts.has(key, 1).await.unwrap();
        assert!(!has(&old).await, "a later lease leaves what an earlier one made");
        drop(artifacts.begin(&key("job-00001", 2, b"half"), 4).await.unwrap());
        artifacts.forget(&new.attempt.job_id, LeaseId(1)).await;
        assert!(has(&new).await, "a later lease's artifact is gone");

        place.plant(folder.path(), "..noise");
        let counting = |_: Vec<JobId>| {
            let counts = [new.attempt.clone()].into();
            async { Ok::<_, ArtifactError>(counts) }
        };
        artifacts.sweep(counting).await.unwrap();
        assert!(has(&new).await && !has(&other).await);
        assert!(!place.holds(folder.path(), "job-00002"));

        artifacts.forget(&new.attempt.job_id, LeaseId(2)).await;
        assert!(!place.holds(folder.path(), "job-00001"));
        assert!(!folder.path().join("uploads/job-00001").exists());
    }
}

/// A coordinator in a process of its own, to be killed.
async fn serve(place: &Place, folder: &Path) -> (Process, Channel) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_guestkit-coordinator"));
    let data = folder.join("data");
    command.args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]).arg(&data).arg("--artifacts");
    match place {
        Place::Folder => command.arg(format!("file://{}", folder.join("artifacts").display())),
        Place::Bucket(server) => command.arg(format!("s3://{}/some/prefix", s3::BUCKET)).envs(server.settings()),
    };
    // Of the process before, which would mislead.
    let told = data.join("listen.json");
    let _ = std::fs::remove_file(&told);
    let process = Process::start(&mut command, &folder.join("log")).unwrap();
    let address = guestkit_processes::until("the coordinator's address", || {
        Ok(std::fs::read(&told).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok()))
    });
    let endpoint = format!("http://{}", address.unwrap()["grpc"].as_str().unwrap());
    (process, client::connect(&client::Endpoints::new([endpoint]).unwrap()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_after_its_coordinator_was_killed() {
    for place in Place::all() {
        killed_while_uploading(&place).await;
    }
}

async fn killed_while_uploading(place: &Place) {
    let folder = tempfile::tempdir().unwrap();
    let (mut process, channel) = serve(place, folder.path()).await;
    let mut worker = Worker::connect(channel.clone(), hello("w1", "b1")).await;
    client::jobs(channel.clone()).submit(echo("job-00001")).await.unwrap();
    let lease = worker.lease().await;
    worker.accept(&lease).await;
    let bytes = whole(&lease).encode_to_vec();
    let artifact = artifact(&bytes);
    let all = || pieces(lease.lease_id, &artifact, 0, &bytes);

    // A stream that has not ended: a piece is on the disk, and nobody was told so.
    let (send, sent) = tokio::sync::mpsc::channel(8);
    let uploading = tokio::spawn({
        let mut workers = client::workers(channel.clone());
        async move { workers.put_artifact(ReceiverStream::new(sent)).await }
    });
    for piece in &all()[..2] {
        send.send(piece.clone()).await.unwrap();
    }
    let staged = folder.path().join(format!("data/uploads/job-00001/{}/{}", lease.lease_id, artifact.sha256));
    let began = Instant::now();
    while std::fs::metadata(&staged).map_or(0, |found| found.len()) < PIECE as u64 {
        assert!(began.elapsed() < harness::PATIENCE, "nothing is staged");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    process.kill();
    within(uploading).await.unwrap().unwrap_err();
    assert!(!place.holds(folder.path(), "job-00001"), "a part counts as whole");

    let (mut process, channel) = serve(place, folder.path()).await;
    let held =
        v1::HeldLease { lease_id: lease.lease_id, job_id: lease.job_id.clone(), state: v1::HeldState::Running.into() };
    let again = v1::Hello { held: vec![held], ..hello("w1", "b1") };
    drop(Worker::connect(channel.clone(), again.clone()).await);
    assert_eq!(put_over(channel.clone(), all()[..1].to_vec()).await.unwrap(), PIECE as u64);
    let rest = pieces(lease.lease_id, &artifact, PIECE, &bytes);
    assert_eq!(put_over(channel.clone(), rest).await.unwrap(), bytes.len() as u64);
    // It was answered, so it is there whatever happens next.
    process.kill();
    assert!(place.holds(folder.path(), "job-00001"));

    let (_process, channel) = serve(place, folder.path()).await;
    let mut worker = Worker::connect(channel.clone(), again).await;
    assert_eq!(put_over(channel.clone(), all()[..1].to_vec()).await.unwrap(), bytes.len() as u64);
    finish(&mut worker, &lease, artifact.clone()).await;
    assert_eq!(read_over(channel, "report", 1000).await.unwrap().1, bytes[1000..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_the_next_coordinator_is_sent_everything() {
    for place in Place::all() {
        let folder = tempfile::tempdir().unwrap();
        let key = key("job-00001", 7, b"0123456789");
        let [first, second] = ["one", "other"].map(|name| place.artifacts_of(folder.path(), name, 100));
        let upload = first.begin(&key, 10).await.unwrap().append(0, b"0123".into()).await.unwrap();
        drop(upload.settle().await.unwrap());
        assert_eq!(second.begin(&key, 10).await.unwrap().stored(), 0);
        keep(&second, &key, b"0123456789").await;
        // Back again: it is whole, and what was staged goes.
        assert!(first.begin(&key, 10).await.unwrap().is_whole());
        assert!(!folder.path().join("one/job-00001").exists());
        assert_eq!(first.read(&key, 0..10).await.unwrap().unwrap(), b"0123456789");
    }
}

/// Nothing listens where the bucket should be: everything is told to come again, nothing is lost, and nobody waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_away_is_waited_for() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let settings = in_bucket(Place::Folder.settings(folder.path()), s3::settings_at(port));
    let (coordinator, mut worker, lease) = start(settings).await;
    let bytes = whole(&lease).encode_to_vec();
    let artifact = artifact(&bytes);
    let all = || pieces(lease.lease_id, &artifact, 0, &bytes);
    let is_away = |status: Status| {
        let refusal = refused(&status);
        assert_eq!(refusal.reason, Reason::Unavailable);
        assert!(refusal.retry_after.is_some(), "{refusal:?}");
    };
    is_away(put(&coordinator, all()).await.unwrap_err());

    let Some(mut server) = s3::Server::start_at(port).unwrap() else { return };
    assert_eq!(put(&coordinator, all()).await.unwrap(), bytes.len() as u64);
    finish(&mut worker, &lease, artifact.clone()).await;
    assert_eq!(read(&coordinator, "report", 0).await.unwrap().1, bytes);

    server.kill();
    is_away(read(&coordinator, "report", 0).await.unwrap_err());
    coordinator.jobs().delete(v1::DeleteRequest { job_id: "job-00001".into() }).await.unwrap();
}
