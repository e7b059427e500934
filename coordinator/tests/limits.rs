//! What operators decide about whose jobs run: limits of concurrency keys, weights of namespaces.

// Helpers of tests are tests: a panic is how they fail. Not every test program uses all of the harness.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

mod harness;

use guestkit_coordinator::config::Config;
use guestkit_domain::Namespace;
use guestkit_protocol::v1;
use harness::{Coordinator, Worker, config, echo, hello};

fn job(job_id: &str, namespace: &str, key: &str) -> v1::JobDocument {
    let mut document = echo(job_id);
    document.metadata.get_or_insert_default().namespace = namespace.into();
    document.execution.get_or_insert_default().concurrency_key = key.into();
    document
}

/// A worker with eight slots, and the first `wanted` jobs it is offered.
async fn offers(coordinator: &Coordinator, wanted: usize) -> (Worker, Vec<String>) {
    let mut said = hello("w1", "b1");
    said.description.get_or_insert_default().slots = 8;
    let mut worker = coordinator.worker(said).await;
    let mut offered = Vec::new();
    while offered.len() < wanted {
        offered.push(worker.lease().await.job_id);
    }
    (worker, offered)
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_jobs_of_a_key_run_as_the_operator_says() {
    let folder = tempfile::tempdir().unwrap();
    let limits = [("store".to_owned(), 2)].into();
    let settings = Config { data: folder.path().into(), concurrency_limits: limits, ..config() };
    let coordinator = Coordinator::start_with(settings).await;
    for index in 0..4 {
        coordinator.submit(job(&format!("stored-{index:03}"), "", "store")).await;
        coordinator.submit(job(&format!("others-{index:03}"), "", "other")).await;
    }
    // Two of the key that is named; one of the other, by the default; each in its order, and slots stay free.
    let (_worker, mut offered) = offers(&coordinator, 3).await;
    offered.sort();
    assert_eq!(offered, ["others-000", "stored-000", "stored-001"]);
    for job_id in ["stored-002", "stored-003", "others-001", "others-002", "others-003"] {
        let asked = v1::ExplainRequest { job_id: job_id.into() };
        let explained = coordinator.jobs().explain(asked).await.unwrap().into_inner();
        assert_eq!(explained.state(), v1::JobState::Queued, "{job_id}");
        assert!(explained.summary.contains("concurrency key"), "{explained:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_have_the_shares_the_operator_says() {
    let folder = tempfile::tempdir().unwrap();
    let weights = [(Namespace::new("team-b").unwrap(), 3)].into();
    let settings = Config { data: folder.path().into(), namespace_weights: weights, ..config() };
    let coordinator = Coordinator::start_with(settings).await;
    for index in 0..8 {
        coordinator.submit(job(&format!("team-a-{index:03}"), "team-a", "")).await;
        coordinator.submit(job(&format!("team-b-{index:03}"), "team-b", "")).await;
    }
    let (_worker, offered) = offers(&coordinator, 8).await;
    let of_b = offered.iter().filter(|job_id| job_id.starts_with("team-b")).count();
    assert_eq!(of_b, 6, "three of four are those with three times the weight: {offered:?}");
}
