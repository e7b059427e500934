//! The coordinator as its peers see it: real TCP, a real store on disk, and sessions spoken by hand.

// Helpers of tests are tests: a panic is how they fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod harness;

use std::time::{Duration, Instant};

use guestkit_coordinator::app::Ended;
use guestkit_coordinator::config::Config;
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::v1;
use guestkit_protocol::v1::JobState;
use guestkit_protocol::v1::session_request::Message as Said;
use guestkit_protocol::v1::session_response::Message as Say;
use harness::{Coordinator, completed, config, echo, hello, open, outcome, within};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

fn reason(status: &Status) -> Reason {
    Refusal::from_status(status).unwrap_or_else(|| panic!("not a refusal: {status:?}")).reason
}

fn states(events: &[v1::JobEvent]) -> Vec<JobState> {
    events.iter().map(v1::JobEvent::state).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_travels_from_submit_to_its_report() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let mut worker = coordinator.worker(hello("w1", "b1")).await;
    let job = coordinator.submit(echo("job-00001")).await;
    assert_eq!(job.sequence, 1);

    let lease = worker.lease().await;
    assert_eq!((lease.job_id.as_str(), lease.attempt), ("job-00001", 1));
    assert_eq!(lease.document.as_ref().unwrap().operation, "system.echo");
    worker.accept(&lease).await;
    worker.progress(&lease, 50.0, "echo").await;
    worker.say(Said::Outcome(completed(&lease))).await;
    let ack = worker.ack().await;
    assert_eq!((ack.lease_id, ack.verdict()), (lease.lease_id, v1::OutcomeVerdict::Recorded));

    let events = coordinator.watch("job-00001", 0).await;
    let expected = [JobState::Queued, JobState::Assigned, JobState::Running, JobState::Running, JobState::Completed];
    assert_eq!(states(&events), expected);
    let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5]);
    let progress = events[3].progress.as_ref().unwrap();
    assert_eq!((progress.phase.as_str(), progress.progress_percent, progress.sequence), ("echo", 50.0, 4));
    assert_eq!(coordinator.watch("job-00001", 3).await, events[3..]);
    assert_eq!(coordinator.watch("job-00001", 5).await, []);

    let job = coordinator.get("job-00001").await;
    assert_eq!((job.state(), job.worker_id.as_str(), job.attempt), (JobState::Completed, "w1", 1));
    assert!(job.start_time.is_some() && job.end_time.is_some());
    let result = coordinator.report("job-00001").await;
    assert!(matches!(result.report, Some(v1::job_result::Report::Echo(_))));
    drop(worker);
    assert_eq!(coordinator.stop().await, Ended::Gracefully);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_live_entries_once_each_and_the_last_one_last() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let mut worker = coordinator.worker(hello("w1", "b1")).await;
    for round in 0..50 {
        let job_id = format!("job-{round:05}");
        coordinator.submit(echo(&job_id)).await;
        let (events, _) = tokio::join!(coordinator.watch(&job_id, 0), worker.work());
        let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, [1, 2, 3, 4]);
        assert_eq!(events.last().unwrap().state(), JobState::Completed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_jobs_and_leases() {
    let folder = tempfile::tempdir().unwrap();
    let first = Coordinator::start(folder.path()).await;
    let mut worker = first.worker(hello("w1", "b1")).await;
    first.submit(echo("job-00001")).await;
    let lease = worker.lease().await;
    worker.accept(&lease).await;
    first.submit(echo("job-00002")).await;
    // The accept is durable when the state says so.
    within(async {
        while first.get("job-00001").await.state() != JobState::Running {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(first.stop().await, Ended::Gracefully);
    let Ok(Some(Say::Goodbye(goodbye))) = worker.hear().await else { panic!("no goodbye") };
    assert_eq!(goodbye.reason(), v1::GoodbyeReason::ShuttingDown);
    drop(worker);

    let second = Coordinator::start(folder.path()).await;
    assert_eq!(second.get("job-00001").await.state(), JobState::Running);
    assert_eq!(second.get("job-00002").await.state(), JobState::Queued);
    let held =
        v1::HeldLease { lease_id: lease.lease_id, job_id: lease.job_id.clone(), state: v1::HeldState::Finished.into() };
    let mut worker = second.worker(v1::Hello { held: vec![held], ..hello("w1", "b1") }).await;
    assert_eq!(worker.welcome.held[0].decision(), v1::HeldDecision::Deliver);
    worker.say(Said::Outcome(completed(&lease))).await;
    assert_eq!(worker.ack().await.verdict(), v1::OutcomeVerdict::Recorded);
    let next = worker.work().await;
    assert_eq!(next.job_id, "job-00002");
    assert!(next.lease_id > lease.lease_id, "a lease id was used again");
    // The first life's entries and the second's are one log.
    let sequences: Vec<u64> = second.watch("job-00001", 0).await.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_counts_once_and_a_stale_one_never() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let mut worker = coordinator.worker(hello("w1", "b1")).await;
    coordinator.submit(echo("job-00001")).await;
    let lease = worker.lease().await;
    worker.accept(&lease).await;
    drop(worker);
    // Another process under the same name: the first one is gone, and its lease with it.
    let mut second = coordinator.worker(hello("w1", "b2")).await;
    let again = second.lease().await;
    assert_ne!(again.lease_id, lease.lease_id);
    second.say(Said::Outcome(completed(&lease))).await;
    assert_eq!(second.ack().await.verdict(), v1::OutcomeVerdict::Stale);
    second.accept(&again).await;
    second.say(Said::Outcome(completed(&again))).await;
    assert_eq!(second.ack().await.verdict(), v1::OutcomeVerdict::Recorded);
    second.say(Said::Outcome(completed(&again))).await;
    assert_eq!(second.ack().await.verdict(), v1::OutcomeVerdict::Recorded);
    let job = coordinator.get("job-00001").await;
    assert_eq!((job.state(), job.lost_attempts), (JobState::Completed, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_job_is_cancelled_at_once_and_has_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    coordinator.submit(echo("job-00001")).await;
    let early = coordinator.jobs().get_report(v1::GetReportRequest { job_id: "job-00001".into() }).await;
    assert_eq!(reason(&early.unwrap_err()), Reason::NotOver);
    let cancel = v1::CancelRequest { job_id: "job-00001".into(), reason: "not needed".into() };
    let job = coordinator.jobs().cancel(cancel.clone()).await.unwrap().into_inner().job.unwrap();
    assert_eq!(job.state(), JobState::Cancelled);
    let result = coordinator.report("job-00001").await;
    assert_eq!((result.status.as_str(), result.error.unwrap().code.as_str()), ("cancelled", "CANCELLED"));
    assert!(result.failed_at.is_some());
    // Asking again changes nothing and is no mistake.
    let again = coordinator.jobs().cancel(cancel).await.unwrap().into_inner().job.unwrap();
    assert_eq!(again, coordinator.get("job-00001").await);

    let retried = coordinator.jobs().retry(v1::RetryRequest { job_id: "job-00001".into() }).await.unwrap();
    assert_eq!(retried.into_inner().job.unwrap().state(), JobState::Queued);
    let mut worker = coordinator.worker(hello("w1", "b1")).await;
    worker.work().await;
    let events = coordinator.watch("job-00001", 0).await;
    assert_eq!(events.last().unwrap().state(), JobState::Completed);
    assert_eq!(events.iter().filter(|event| event.state() == JobState::Cancelled).count(), 1);

    coordinator.jobs().delete(v1::DeleteRequest { job_id: "job-00001".into() }).await.unwrap();
    let gone = coordinator.jobs().get(v1::GetRequest { job_id: "job-00001".into() }).await;
    assert_eq!(reason(&gone.unwrap_err()), Reason::JobNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_cancelled_by_its_worker() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let mut worker = coordinator.worker(hello("w1", "b1")).await;
    coordinator.submit(echo("job-00001")).await;
    let lease = worker.lease().await;
    worker.accept(&lease).await;
    worker.progress(&lease, 10.0, "echo").await;
    within(async {
        while coordinator.get("job-00001").await.progress.is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let cancel = v1::CancelRequest { job_id: "job-00001".into(), reason: "stop".into() };
    let job = coordinator.jobs().cancel(cancel).await.unwrap().into_inner().job.unwrap();
    assert_eq!(job.state(), JobState::Cancelling);
    let Ok(Some(Say::Cancel(cancel))) = worker.hear().await else { panic!("no cancel") };
    assert!(cancel.outcome_wanted && cancel.lease_id == lease.lease_id);
    let error = v1::JobError { code: "CANCELLED".into(), phase: "echo".into(), ..v1::JobError::default() };
    let result = v1::JobResult {
        job_id: lease.job_id.clone(),
        status: "cancelled".into(),
        error: Some(error),
        ..v1::JobResult::default()
    };
    worker.say(Said::Outcome(outcome(&lease, v1::OutcomeStatus::Cancelled, &result))).await;
    assert_eq!(worker.ack().await.verdict(), v1::OutcomeVerdict::Recorded);
    let job = coordinator.get("job-00001").await;
    assert_eq!(job.state(), JobState::Cancelled);
    // The worker's own words, with the phase.
    assert_eq!(job.error.unwrap().phase, "echo");
}

#[tokio::test(flavor = "multi_thread")]
async fn submitting_twice_is_one_job() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let first = coordinator.submit(echo("job-00001")).await;
    let again = coordinator.jobs().submit(echo("job-00001")).await.unwrap().into_inner();
    assert!(again.existing);
    assert_eq!(again.job.unwrap(), first);
    let mut other = echo("job-00001");
    other.metadata.get_or_insert_default().name = "another".into();
    let refused = coordinator.jobs().submit(other).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::AlreadyExists, Reason::AlreadyExists));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_asked_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator =
        Coordinator::start_with(Config { data: folder.path().into(), jobs_active_max: 1, ..config() }).await;
    let mut jobs = coordinator.jobs();
    let mut priority = echo("job-00001");
    priority.execution.get_or_insert_default().priority = Some(11);
    let refused = jobs.submit(priority).await.unwrap_err();
    let refusal = Refusal::from_status(&refused).unwrap();
    assert_eq!(refusal.reason, Reason::InvalidDocument);
    assert_eq!(refusal.problems[0].field, "execution.priority");

    coordinator.submit(echo("job-00001")).await;
    let full = jobs.submit(echo("job-00002")).await.unwrap_err();
    let refusal = Refusal::from_status(&full).unwrap();
    assert_eq!((full.code(), refusal.reason), (Code::ResourceExhausted, Reason::QueueFull));
    assert!(refusal.retry_after.is_some());

    let get = |job_id: &str| v1::GetRequest { job_id: job_id.into() };
    assert_eq!(reason(&jobs.get(get("../../etc")).await.unwrap_err()), Reason::InvalidArgument);
    assert_eq!(reason(&jobs.get(get("job-00009")).await.unwrap_err()), Reason::JobNotFound);
    let watch = v1::WatchRequest { job_id: "job-00001".into(), after_sequence: 99 };
    assert_eq!(reason(&jobs.watch(watch).await.unwrap_err()), Reason::InvalidArgument);
    let delete = v1::DeleteRequest { job_id: "job-00001".into() };
    assert_eq!(reason(&jobs.delete(delete).await.unwrap_err()), Reason::NotOver);
    let artifact = v1::ReadArtifactRequest { job_id: "job-00001".into(), name: "x".into(), offset: 0 };
    assert_eq!(reason(&jobs.read_artifact(artifact).await.unwrap_err()), Reason::NotOver);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_paged_newest_first_and_filtered() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    for number in 0..25 {
        let mut document = echo(&format!("job-{number:05}"));
        let parity = if number % 2 == 0 { "even" } else { "odd" };
        document.metadata.get_or_insert_default().labels.insert("parity".into(), parity.into());
        coordinator.submit(document).await;
    }
    let filter = |parity: &str| v1::JobFilter {
        labels: [("parity".to_owned(), parity.to_owned())].into(),
        states: vec![JobState::Queued.into()],
        ..v1::JobFilter::default()
    };
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let request = v1::ListRequest { filter: Some(filter("even")), page_size: 5, page_token: token.clone() };
        let page = coordinator.jobs().list(request).await.unwrap().into_inner();
        assert!(page.jobs.len() <= 5);
        seen.extend(page.jobs.into_iter().map(|job| job.job_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        // What is submitted meanwhile does not move what is listed.
        coordinator.submit(echo(&format!("meanwhile-{}", seen.len()))).await;
    }
    let expected: Vec<String> = (0..25).rev().filter(|n| n % 2 == 0).map(|n| format!("job-{n:05}")).collect();
    assert_eq!(seen, expected);

    let first = v1::ListRequest { filter: Some(filter("odd")), page_size: 5, page_token: String::new() };
    let token = coordinator.jobs().list(first).await.unwrap().into_inner().next_page_token;
    for (filter, page_size, token, expected) in [
        (filter("even"), 5, token, Reason::InvalidPageToken),
        (filter("odd"), 5, "nonsense".into(), Reason::InvalidPageToken),
        (filter("odd"), 1001, String::new(), Reason::InvalidArgument),
        (filter("odd"), -1, String::new(), Reason::InvalidArgument),
    ] {
        let request = v1::ListRequest { filter: Some(filter), page_size, page_token: token };
        assert_eq!(reason(&coordinator.jobs().list(request).await.unwrap_err()), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_load_is_answered_by_position() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let requests = (0..500).map(|number| {
        let mut document = echo(&format!("job-{number:05}"));
        if number == 250 {
            document.kind = "Nonsense".into();
        }
        v1::SubmitStreamRequest { document: Some(document) }
    });
    let requests: Vec<_> = requests.collect();
    let answers = coordinator.jobs().submit_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let answers: Vec<v1::SubmitStreamResponse> = within(answers.map(Result::unwrap).collect()).await;
    assert_eq!(answers.len(), 500);
    for (index, answer) in (0u64..).zip(&answers) {
        assert_eq!(answer.index, index);
        match &answer.refused {
            None => {
                let accepted = answer.accepted.as_ref().unwrap();
                assert_eq!(accepted.job.as_ref().unwrap().job_id, format!("job-{index:05}"));
            }
            Some(refused) => assert_eq!((index, refused.problems[0].field.as_str()), (250, "kind")),
        }
    }
    let summary = coordinator.fleet().summary(v1::SummaryRequest {}).await.unwrap().into_inner();
    assert_eq!(summary.queued, 499);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_watched_from_a_snapshot_on() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    coordinator.submit(echo("job-00001")).await;
    let mut stream = coordinator.jobs().watch_all(v1::WatchAllRequest::default()).await.unwrap().into_inner();
    let mut next = async || within(stream.message()).await.unwrap().unwrap();
    use v1::watch_all_response::Change;
    let Some(Change::Snapshot(job)) = next().await.change else { panic!("no snapshot") };
    assert_eq!(job.job_id, "job-00001");
    assert!(matches!(next().await.change, Some(Change::SnapshotEnd(_))));
    coordinator.submit(echo("job-00002")).await;
    let response = next().await;
    let Some(Change::Event(event)) = response.change else { panic!("no event") };
    assert_eq!((event.job_id.as_str(), event.revision), ("job-00002", response.revision));
    drop(stream);
    // Resumed from a revision: no snapshot, no repeat.
    let request = v1::WatchAllRequest { after_revision: response.revision, filter: None };
    let mut stream = coordinator.jobs().watch_all(request).await.unwrap().into_inner();
    coordinator.submit(echo("job-00003")).await;
    let Some(Change::Event(event)) = within(stream.message()).await.unwrap().unwrap().change else {
        panic!("no event")
    };
    assert_eq!(event.job_id, "job-00003");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_ends_the_session_and_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let bad_hello = v1::Hello { worker_id: "../x".into(), ..hello("w1", "b1") };
    let nan = v1::Progress { progress_percent: f64::NAN, ..v1::Progress::default() };
    for first in [Said::Accept(v1::Accept { lease_id: 1 }), Said::Hello(bad_hello)] {
        let (_say, mut hear) = open(coordinator.channel.clone(), first).await;
        let Some(Say::Goodbye(goodbye)) = within(hear.message()).await.unwrap().unwrap().message else {
            panic!("no goodbye")
        };
        assert_eq!(goodbye.reason(), v1::GoodbyeReason::ProtocolError);
        assert_eq!(reason(&within(hear.message()).await.unwrap_err()), Reason::InvalidArgument);
    }
    for said in [
        Said::Hello(hello("w1", "b1")),
        Said::Accept(v1::Accept { lease_id: 0 }),
        Said::Refuse(v1::Refuse { lease_id: 7, fault: 77, error: None }),
        Said::Progress(v1::LeaseProgress { lease_id: 7, progress: Some(nan) }),
        Said::Outcome(v1::Outcome { lease_id: 7, job_id: "job-00001".into(), ..v1::Outcome::default() }),
    ] {
        let mut worker = coordinator.worker(hello("w1", "b1")).await;
        worker.say(said.clone()).await;
        let Ok(Some(Say::Goodbye(goodbye))) = worker.hear().await else { panic!("no goodbye for {said:?}") };
        assert_eq!(goodbye.reason(), v1::GoodbyeReason::ProtocolError, "{said:?}");
        assert_eq!(worker.hear().await.unwrap_err().code(), Code::InvalidArgument);
    }
    // Sound messages about leases that are not there are answered or dropped, and the session goes on.
    let mut worker = coordinator.worker(hello("w1", "b1")).await;
    worker.say(Said::Accept(v1::Accept { lease_id: 4711 })).await;
    let Ok(Some(Say::Cancel(void))) = worker.hear().await else { panic!("no cancel") };
    assert!(void.lease_id == 4711 && !void.outcome_wanted);
    let unknown = v1::Lease { lease_id: 4711, job_id: "job-00001".into(), ..v1::Lease::default() };
    worker.say(Said::Outcome(completed(&unknown))).await;
    assert_eq!(worker.ack().await.verdict(), v1::OutcomeVerdict::Stale);
    coordinator.submit(echo("job-00001")).await;
    worker.work().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_cannot_be_taken_fails_its_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let mut worker = coordinator.worker(hello("w1", "b1")).await;
    type Spoil = fn(&mut v1::Outcome);
    let cases: [(&str, Spoil, &str); 5] = [
        ("job-large", |outcome| outcome.result = vec![0; 1024 * 1024 + 1], "LIMIT_EXCEEDED"),
        ("job-hash0", |outcome| outcome.result_sha256[0] ^= 1, "INTERNAL"),
        ("job-empty", |outcome| outcome.result.clear(), "INTERNAL"),
        ("job-other", |outcome| outcome.job_id = "job-other".into(), ""),
        ("job-wrong", |outcome| outcome.status = v1::OutcomeStatus::Completed.into(), "INTERNAL"),
    ];
    for (job_id, spoil, code) in cases {
        coordinator.submit(echo(job_id)).await;
        let lease = worker.lease().await;
        worker.accept(&lease).await;
        let mut outcome = completed(&lease);
        if job_id == "job-wrong" {
            let failed = v1::JobResult { job_id: job_id.into(), status: "failed".into(), ..v1::JobResult::default() };
            outcome = harness::outcome(&lease, v1::OutcomeStatus::Failed, &failed);
        }
        spoil(&mut outcome);
        worker.say(Said::Outcome(outcome)).await;
        assert_eq!(worker.ack().await.verdict(), v1::OutcomeVerdict::Recorded);
        let result = coordinator.report(job_id).await;
        let expected = if code.is_empty() { "completed" } else { "failed" };
        assert_eq!(
            (result.status.as_str(), result.error.unwrap_or_default().code.as_str()),
            (expected, code),
            "{job_id}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_is_shown_and_drained() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let mut fleet = coordinator.fleet();
    let mut changes = fleet.watch(v1::FleetWatchRequest {}).await.unwrap().into_inner();
    let mut worker = coordinator.worker(hello("w1", "b1")).await;
    let change = within(changes.message()).await.unwrap().unwrap().worker.unwrap();
    assert_eq!((change.worker_id.as_str(), change.state()), ("w1", v1::WorkerState::Ready));
    worker.say(Said::Heartbeat(v1::Heartbeat { sequence: 1, free_disk_bytes: 42 })).await;
    assert!(matches!(worker.hear().await, Ok(Some(Say::HeartbeatAck(v1::HeartbeatAck { sequence: 1, .. })))));
    let listed = fleet.list_workers(v1::ListWorkersRequest::default()).await.unwrap().into_inner();
    let description = listed.workers[0].description.as_ref().unwrap();
    assert_eq!((description.hostname.as_str(), description.free_disk_bytes), ("test", 42));

    let drain = v1::DrainRequest { worker_id: "w1".into(), ..v1::DrainRequest::default() };
    let drained = fleet.drain(drain).await.unwrap().into_inner();
    assert_eq!(drained.workers[0].state(), v1::WorkerState::Draining);
    assert!(matches!(worker.hear().await, Ok(Some(Say::Drain(_)))));
    coordinator.submit(echo("job-00001")).await;
    let explain = v1::ExplainRequest { job_id: "job-00001".into() };
    let why = coordinator.jobs().explain(explain).await.unwrap().into_inner();
    assert_eq!(why.state(), JobState::Queued);
    assert!(!why.summary.is_empty());
    let resume = v1::ResumeRequest { worker_id: "w1".into(), ..v1::ResumeRequest::default() };
    fleet.resume(resume).await.unwrap();
    worker.work().await;
    let unknown = fleet.get_worker(v1::GetWorkerRequest { worker_id: "w9".into() }).await.unwrap_err();
    assert_eq!(reason(&unknown), Reason::WorkerNotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_answer() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let mut health = HealthClient::new(coordinator.channel.clone());
    for service in ["", "guestkit.v1.Jobs", "guestkit.v1.Fleet", "guestkit.v1.Workers"] {
        let check = async || health.clone().check(HealthCheckRequest { service: service.into() }).await;
        within(async {
            while check().await.ok().map(|answer| answer.into_inner().status()) != Some(ServingStatus::Serving) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let unknown = health.check(HealthCheckRequest { service: "nobody".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);

    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServiceResponse};
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(coordinator.channel.clone());
    let answers = reflection.server_reflection_info(tokio_stream::iter([list])).await.unwrap();
    let answer = within(answers.into_inner().message()).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("no list") };
    let names: Vec<&str> = list.service.iter().map(|ServiceResponse { name }| name.as_str()).collect();
    for service in ["guestkit.v1.Jobs", "guestkit.v1.Fleet", "guestkit.v1.Workers", "grpc.health.v1.Health"] {
        assert!(names.contains(&service), "{service} is not among {names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_served_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    coordinator.submit(echo("job-00001")).await;
    for (path, told) in [
        ("/healthz", "ok"),
        ("/readyz", "ready"),
        ("/metrics", "guestkit_jobs{state=\"queued\"} 1"),
        ("/metrics", "guestkit_commit_seconds_count 1"),
        ("/api/summary", "\"queued\":1"),
    ] {
        let page = get(coordinator.http, path).await;
        assert!(page.starts_with("HTTP/1.1 200 OK") && page.contains(told), "{path}: {page}");
    }
    assert!(get(coordinator.http, "/").await.starts_with("HTTP/1.1 404"));
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    within(stream.read_to_string(&mut page)).await.unwrap();
    page
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_watchers_with_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    coordinator.submit(echo("job-00001")).await;
    let request = v1::WatchRequest { job_id: "job-00001".into(), after_sequence: 0 };
    let mut stream = coordinator.jobs().watch(request).await.unwrap().into_inner();
    assert_eq!(within(stream.message()).await.unwrap().unwrap().event.unwrap().sequence, 1);
    let started = Instant::now();
    let (ended, status) = tokio::join!(coordinator.stop(), async { within(stream.message()).await.unwrap_err() });
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(ended, Ended::Gracefully);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_may_call_from_the_origins_that_are_set() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let folder = tempfile::tempdir().unwrap();
    let cors_origins = vec!["http://dashboard.example".into()];
    let coordinator = Coordinator::start_with(Config { data: folder.path().into(), cors_origins, ..config() }).await;
    // A gRPC-Web call over HTTP/1.1, as a browser sends it: an empty message of five zero bytes.
    let head = format!(
        "POST /guestkit.v1.Fleet/Summary HTTP/1.1\r\nHost: {}\r\nOrigin: http://dashboard.example\r\n\
         Content-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
        coordinator.grpc
    );
    let mut stream = tokio::net::TcpStream::connect(coordinator.grpc).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[0; 5]).await.unwrap();
    let mut page = Vec::new();
    within(stream.read_to_end(&mut page)).await.unwrap();
    let page = String::from_utf8_lossy(&page).to_lowercase();
    assert!(page.starts_with("http/1.1 200"), "{page}");
    assert!(page.contains("access-control-allow-origin: http://dashboard.example"), "{page}");
    assert!(page.contains("grpc-status:0"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_listen_is_sent_away_and_slows_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let deaf = coordinator.worker(hello("deaf", "b1")).await;
    // Each heartbeat is answered; the answers are never read. What the connection holds is bounded, so the session must end.
    // Whoever does not read is not told, and may find that nobody reads it either.
    let flood = tokio::spawn(async move {
        for sequence in 1.. {
            let beat = Said::Heartbeat(v1::Heartbeat { sequence, free_disk_bytes: 0 });
            if deaf.try_say(beat).await.is_err() {
                return;
            }
        }
    });
    within(async {
        while !get(coordinator.http, "/metrics").await.contains("guestkit_sessions_slow_total 1") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    coordinator.submit(echo("job-00001")).await;
    let mut worker = coordinator.worker(hello("w1", "b1")).await;
    worker.work().await;
    flood.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_outside_every_image_root_is_a_report_not_a_wait() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { data: folder.path().into(), image_root_patience_seconds: 0.2, ..config() };
    let coordinator = Coordinator::start_with(config).await;
    let description = hello("w1", "b1").description.unwrap();
    let operations = vec!["guestkit.inspect".into()];
    let description = v1::WorkerDescription { operations, ..description };
    let _worker = coordinator.worker(v1::Hello { description: Some(description), ..hello("w1", "b1") }).await;
    let json = r#"{"version": "1.0", "kind": "VMOperation", "job_id": "job-00001", "operation": "guestkit.inspect",
        "payload": {"type": "guestkit.inspect.v1",
                    "data": {"image": {"path": "/elsewhere/a.qcow2", "format": "qcow2"}}}}"#;
    let document = guestkit_protocol::document::parse(json.as_bytes()).unwrap();
    coordinator.submit(document).await;
    let events = coordinator.watch("job-00001", 0).await;
    assert_eq!(events.last().unwrap().state(), JobState::Failed);
    let result = coordinator.report("job-00001").await;
    let error = result.error.unwrap();
    assert_eq!((result.status.as_str(), error.code.as_str()), ("failed", "IMAGE_ACCESS_DENIED"));
    assert!(error.message.contains("/elsewhere") && error.message.contains("/srv/images"), "{}", error.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_attempt_learns_how_far_the_last_one_got() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let mut worker = coordinator.worker(hello("w1", "b1")).await;
    let mut document = echo("job-00001");
    let execution = document.execution.get_or_insert_default();
    execution.max_attempts = Some(2);
    execution.retry_backoff.get_or_insert_default().initial_seconds = Some(0.0);
    coordinator.submit(document).await;
    let first = worker.lease().await;
    assert_eq!(first.last_progress, None);
    worker.accept(&first).await;
    worker.progress(&first, 60.0, "inspection").await;
    let error = v1::JobError { code: "HANDLER_CRASHED".into(), ..v1::JobError::default() };
    let result = v1::JobResult { job_id: first.job_id.clone(), status: "failed".into(), ..v1::JobResult::default() };
    let mut crashed = outcome(&first, v1::OutcomeStatus::Failed, &result);
    crashed.error = Some(error);
    worker.say(Said::Outcome(crashed)).await;
    assert_eq!(worker.ack().await.verdict(), v1::OutcomeVerdict::Recorded);
    let second = worker.lease().await;
    let last = second.last_progress.unwrap();
    assert_eq!((second.attempt, last.attempt, last.progress_percent, &*last.phase), (2, 1, 60.0, "inspection"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_and_a_wait_have_the_bounds_their_submitter_sets() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let keyed = |job_id: &str, policy: &str| {
        let mut document = echo(job_id);
        let execution = document.execution.get_or_insert_default();
        execution.idempotency_key = "key".into();
        execution.idempotency_policy = policy.into();
        document
    };
    coordinator.submit(keyed("job-00001", "")).await;
    let refused = coordinator.jobs().submit(keyed("job-00002", "fail")).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::AlreadyExists);
    let existing = coordinator.jobs().submit(keyed("job-00002", "use_existing")).await.unwrap().into_inner();
    assert!(existing.existing && existing.job.unwrap().job_id == "job-00001");
    assert_eq!(coordinator.submit(keyed("job-00002", "replace_queued")).await.job_id, "job-00002");
    let replaced = coordinator.get("job-00001").await;
    assert_eq!(replaced.state(), JobState::Cancelled);
    assert!(replaced.error.unwrap().message.contains("job-00002"));

    let mut hurried = echo("job-00003");
    hurried.execution.get_or_insert_default().queue_timeout_seconds = Some(1);
    coordinator.submit(hurried).await;
    let events = coordinator.watch("job-00003", 0).await;
    assert_eq!(events.last().unwrap().state(), JobState::Timeout);
    assert_eq!(coordinator.report("job-00003").await.error.unwrap().code, "DEADLINE_EXCEEDED");
}
