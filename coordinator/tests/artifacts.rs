//! Results by reference: uploaded in pieces, taken up again, checked, read back, and gone with their job.

// Helpers of tests are tests: a panic is how they fail. Not every test program uses all of the harness.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

mod harness;

use std::path::Path;

use guestkit_coordinator::app::Ended;
use guestkit_coordinator::config::Config;
use guestkit_protocol::client;
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::v1;
use guestkit_protocol::v1::session_request::Message as Said;
use harness::{Coordinator, Worker, config, echo, hello, outcome, within};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tonic::Status;

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
    let mut workers = client::workers(coordinator.channel.clone());
    let answer = within(workers.put_artifact(tokio_stream::iter(pieces))).await?;
    Ok(answer.into_inner().stored_bytes)
}

async fn read(coordinator: &Coordinator, name: &str, offset: u64) -> Result<(v1::Artifact, Vec<u8>), Status> {
    let request = v1::ReadArtifactRequest { job_id: "job-00001".into(), name: name.into(), offset };
    let mut stream = coordinator.jobs().read_artifact(request).await?.into_inner();
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

async fn start(folder: &Path) -> (Coordinator, Worker, v1::Lease) {
    let settings =
        Config { data: folder.into(), inline_bytes_max: 16_384, artifact_bytes_max: 1024 * 1024, ..config() };
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
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, mut worker, lease) = start(folder.path()).await;
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

    let coordinator = Coordinator::start(folder.path()).await;
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
    assert_eq!(std::fs::read_dir(folder.path().join("artifacts")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_as_announced_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, mut worker, lease) = start(folder.path()).await;
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
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, mut worker, lease) = start(folder.path()).await;
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

    // What was begun under a lease that counts may be asked for; under one that is dead it is removed at the start.
    let kept = folder.path().join("artifacts/job-00001").join(lease.lease_id.to_string());
    assert!(kept.exists());
    let dead = folder.path().join("artifacts/job-00001/999");
    std::fs::create_dir(&dead).unwrap();
    std::fs::create_dir_all(folder.path().join("artifacts/job-of-nobody/1")).unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    assert!(kept.exists() && !dead.exists());
    assert!(!folder.path().join("artifacts/job-of-nobody").exists());
    coordinator.jobs().retry(v1::RetryRequest { job_id: "job-00001".into() }).await.unwrap();
    assert!(!kept.exists(), "a retry leaves what the attempt before it made");
}
