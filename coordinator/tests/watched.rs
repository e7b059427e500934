//! Following all jobs: a snapshot while they change, what leaves a filter, what is deleted or forgotten, and what cannot be
//! told any more.

// Helpers of tests are tests: a panic is how they fail. Not every test program uses all of the harness.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use guestkit_coordinator::config::Config;
use guestkit_protocol::client;
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::v1;
use guestkit_protocol::v1::watch_all_response::Change;
use harness::{Coordinator, config, echo, hello, within};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

fn reason(status: &Status) -> Reason {
    Refusal::from_status(status).unwrap_or_else(|| panic!("not a refusal: {status:?}")).reason
}

async fn watch_all(
    coordinator: &Coordinator,
    filter: Option<v1::JobFilter>,
    after_revision: u64,
) -> Streaming<v1::WatchAllResponse> {
    let request = v1::WatchAllRequest { filter, after_revision };
    coordinator.jobs().watch_all(request).await.unwrap().into_inner()
}

async fn cancel(coordinator: &Coordinator, job_id: &str) {
    let request = v1::CancelRequest { job_id: job_id.into(), reason: String::new() };
    coordinator.jobs().cancel(request).await.unwrap();
}

async fn delete(coordinator: &Coordinator, job_id: &str) {
    coordinator.jobs().delete(v1::DeleteRequest { job_id: job_id.into() }).await.unwrap();
}

/// What a follower knows, and the rules by which it is told.
#[derive(Debug, Default)]
struct Known {
    /// The entry each job is at, and its state.
    jobs: BTreeMap<String, (u64, v1::JobState)>,
    revision: u64,
    snapshots: usize,
    events: usize,
    deletions: usize,
}

impl Known {
    fn hear(&mut self, answer: v1::WatchAllResponse) {
        match answer.change.unwrap() {
            Change::Snapshot(job) => {
                self.snapshots += 1;
                assert_eq!(answer.revision, 0, "a snapshot cannot be resumed");
                let before = self.jobs.insert(job.job_id.clone(), (job.sequence, job.state()));
                assert_eq!(before, None, "{} is told twice", job.job_id);
            }
            Change::SnapshotEnd(_) => {}
            Change::Event(event) => {
                self.events += 1;
                let known = self.jobs.get(&event.job_id).map_or(0, |(sequence, _)| *sequence);
                assert_eq!(event.sequence, known + 1, "{event:?}");
                assert!(answer.revision == 0 || answer.revision == event.revision, "{event:?}");
                self.jobs.insert(event.job_id.clone(), (event.sequence, event.state()));
            }
            // Of a job that a snapshot had not come to nothing was told before.
            Change::Deleted(job) => {
                self.deletions += 1;
                self.jobs.remove(&job.job_id);
            }
            Change::Compacted(_) => panic!("compacted"),
        }
        let revision = answer.revision;
        assert!(revision == 0 || revision > self.revision, "{revision} after {}", self.revision);
        self.revision = revision;
    }
}

/// What the coordinator lists.
async fn listed(coordinator: &Coordinator) -> BTreeMap<String, (u64, v1::JobState)> {
    let mut jobs = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListRequest { page_size: 1000, page_token, filter: None };
        let page = coordinator.jobs().list(request).await.unwrap().into_inner();
        jobs.extend(page.jobs.into_iter().map(|job| (job.job_id.clone(), (job.sequence, job.state()))));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return jobs;
        }
    }
}

/// Old jobs end and go, new ones come, while somebody who is slow is told of all of them. The oracle is the list afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_comes_to_its_end_while_jobs_change() {
    const JOBS: usize = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let requests =
        (0..JOBS).map(|number| v1::SubmitStreamRequest { document: Some(echo(&format!("old-{number:05}"))) });
    let taken = coordinator.jobs().submit_stream(tokio_stream::iter(requests.collect::<Vec<_>>())).await.unwrap();
    assert_eq!(taken.into_inner().collect::<Vec<_>>().await.len(), JOBS);

    let done = Arc::new(AtomicBool::new(false));
    let storm = {
        let (mut jobs, done) = (client::jobs(coordinator.channel.clone()), Arc::clone(&done));
        tokio::spawn(async move {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                // Here and there among the old ones: before the place where the snapshot is, and after it.
                let job_id = format!("old-{:05}", (number * 377) % JOBS);
                let _ = jobs.cancel(v1::CancelRequest { job_id: job_id.clone(), reason: String::new() }).await;
                if number % 3 == 0 {
                    let _ = jobs.delete(v1::DeleteRequest { job_id: job_id.clone() }).await;
                    // Its name comes again.
                    let _ = jobs.submit(echo(&job_id)).await;
                }
                jobs.submit(echo(&format!("new-{number:05}"))).await.unwrap();
                number += 1;
            }
            number
        })
    };
    let mut known = Known::default();
    let mut stream = watch_all(&coordinator, None, 0).await;
    let mut answers = 0;
    while known.revision == 0 {
        known.hear(within(stream.message()).await.unwrap().unwrap());
        answers += 1;
        if answers % 16 == 0 {
            // Slow, so that much changes meanwhile.
            listed(&coordinator).await;
        }
    }
    done.store(true, Ordering::Relaxed);
    let changed = within(storm).await.unwrap();
    let expected = listed(&coordinator).await;
    while known.jobs != expected {
        known.hear(within(stream.message()).await.unwrap().unwrap());
    }
    assert!(changed > 10 && known.events > 10, "nothing changed meanwhile: {changed}, {}", known.events);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_told_to_whoever_followed_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let filter = |state: v1::JobState| v1::JobFilter { states: vec![state.into()], ..v1::JobFilter::default() };
    let mut everybody = watch_all(&coordinator, None, 0).await;
    let mut waiting = watch_all(&coordinator, Some(filter(v1::JobState::Queued)), 0).await;
    let mut cancelled = watch_all(&coordinator, Some(filter(v1::JobState::Cancelled)), 0).await;
    let mut known = Known::default();
    let mut told = async |known: &mut Known| loop {
        let answer = within(everybody.message()).await.unwrap().unwrap();
        let kind = match answer.change.as_ref().unwrap() {
            Change::Event(event) => Some(event.state().as_str_name()),
            Change::Deleted(job) => {
                assert_eq!((job.job_id.as_str(), job.revision), ("job-00001", answer.revision));
                assert!(job.timestamp.is_some());
                Some("deleted")
            }
            _ => None,
        };
        known.hear(answer);
        if let Some(kind) = kind {
            break kind;
        }
    };
    coordinator.submit(echo("job-00001")).await;
    assert_eq!(told(&mut known).await, "JOB_STATE_QUEUED");
    cancel(&coordinator, "job-00001").await;
    assert_eq!(told(&mut known).await, "JOB_STATE_CANCELLED");
    // The others are told as well before it goes, or would be told its deletion alone.
    let mut states = Vec::new();
    while states.len() < 2 {
        match within(waiting.message()).await.unwrap().unwrap().change.unwrap() {
            Change::Event(event) => states.push((event.sequence, event.state())),
            Change::SnapshotEnd(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        kinds.push(kind(within(cancelled.message()).await.unwrap().unwrap()));
    }
    delete(&coordinator, "job-00001").await;
    coordinator.submit(echo("job-00001")).await;
    assert_eq!(told(&mut known).await, "deleted");
    assert_eq!(told(&mut known).await, "JOB_STATE_QUEUED");
    assert_eq!(known.jobs, listed(&coordinator).await);

    // Who follows the queue is told that the job left it, and not of its deletion.
    match within(waiting.message()).await.unwrap().unwrap().change.unwrap() {
        Change::Event(event) => states.push((event.sequence, event.state())),
        other => panic!("{other:?}"),
    }
    use v1::JobState::{Cancelled, Queued};
    assert_eq!(states, [(1, Queued), (2, Cancelled), (1, Queued)]);
    kinds.push(kind(within(cancelled.message()).await.unwrap().unwrap()));
    assert_eq!(kinds, ["end of snapshot", "event", "deleted"]);
}

fn kind(answer: v1::WatchAllResponse) -> &'static str {
    match answer.change.unwrap() {
        Change::Snapshot(_) => "snapshot",
        Change::SnapshotEnd(_) => "end of snapshot",
        Change::Event(_) => "event",
        Change::Deleted(_) => "deleted",
        Change::Compacted(_) => "compacted",
    }
}

/// A watch is of one job, not of whatever has its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_gone_ends_its_watch() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    for round in 0..20 {
        coordinator.submit(echo("job-00001")).await;
        let request = v1::WatchRequest { job_id: "job-00001".into(), after_sequence: 0 };
        let mut stream = coordinator.jobs().watch(request).await.unwrap().into_inner();
        let first = within(stream.message()).await.unwrap().unwrap().event.unwrap();
        assert_eq!(first.sequence, 1);
        cancel(&coordinator, "job-00001").await;
        delete(&coordinator, "job-00001").await;
        if round % 2 == 0 {
            coordinator.submit(echo("job-00001")).await;
        }
        // It was told how the job ended before it went, or that it is gone; and never waits for more.
        match within(stream.message()).await {
            Ok(Some(last)) => {
                let last = last.event.unwrap();
                assert_eq!((last.sequence, last.state()), (2, v1::JobState::Cancelled));
                match within(stream.message()).await {
                    Ok(None) => {}
                    Ok(more) => panic!("{more:?}"),
                    Err(status) => assert_eq!(reason(&status), Reason::JobNotFound),
                }
            }
            Ok(None) => panic!("it ended as if it were complete"),
            Err(status) => assert_eq!(reason(&status), Reason::JobNotFound),
        }
        if round % 2 == 0 {
            cancel(&coordinator, "job-00001").await;
            delete(&coordinator, "job-00001").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    coordinator.submit(echo("job-00001")).await;
    coordinator.submit(echo("job-00002")).await;
    coordinator.stop().await;
    // As if deletions up to revision 2 had been dropped.
    let store = rusqlite::Connection::open(folder.path().join("coordinator.sqlite")).unwrap();
    store.execute("UPDATE standing SET compacted = 2", []).unwrap();
    drop(store);
    let coordinator = Coordinator::start(folder.path()).await;
    coordinator.submit(echo("job-00003")).await;
    let mut stream = watch_all(&coordinator, None, 1).await;
    let answer = within(stream.message()).await.unwrap().unwrap();
    let Some(Change::Compacted(compacted)) = answer.change else { panic!("{answer:?}") };
    assert_eq!((answer.revision, compacted.oldest_revision), (0, 2));
    assert_eq!(within(stream.message()).await.unwrap(), None);
    let mut stream = watch_all(&coordinator, None, compacted.oldest_revision).await;
    let answer = within(stream.message()).await.unwrap().unwrap();
    assert!(matches!(answer.change, Some(Change::Event(event)) if event.job_id == "job-00003"));
}

/// Jobs that are over for long go with everything; those that are not over stay, also when others were retried.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_forgotten_when_they_have_been_over_for_long() {
    let folder = tempfile::tempdir().unwrap();
    // Some two seconds.
    let settings = Config { data: folder.path().into(), retention_days: 2.0 / 86_400.0, ..config() };
    let coordinator = Coordinator::start_with(settings).await;
    for number in 0..70 {
        coordinator.submit(echo(&format!("over-{number:05}"))).await;
    }
    let mut stream = watch_all(&coordinator, None, 0).await;
    let mut worker = coordinator.worker(hello("w1", "b1")).await;
    for _ in 0..70 {
        worker.work().await;
    }
    coordinator.submit(echo("running-1")).await;
    let lease = worker.lease().await;
    worker.accept(&lease).await;
    coordinator.submit(echo("queued-01")).await;
    let mut known = Known::default();
    while known.deletions < 70 {
        known.hear(within(stream.message()).await.unwrap().unwrap());
    }
    let jobs = listed(&coordinator).await;
    assert_eq!(jobs.keys().collect::<Vec<_>>(), ["queued-01", "running-1"]);
    // A name that was forgotten can be used again, for another document.
    coordinator.submit(echo("over-00000")).await;
    let summary = coordinator.fleet().summary(v1::SummaryRequest {}).await.unwrap().into_inner();
    assert_eq!((summary.queued, summary.running, summary.completed), (2, 1, 70));
}

/// A client that sends and does not read is held back by the coordinator, which takes what it sends as it reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_submitter_that_does_not_read_is_not_read_either() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let (send, sent) = mpsc::channel(1);
    let mut answers = coordinator.jobs().submit_stream(ReceiverStream::new(sent)).await.unwrap().into_inner();
    let count = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let sending = {
        let count = Arc::clone(&count);
        tokio::spawn(async move {
            for number in 0..8_000 {
                let document = Some(echo(&format!("job-{number:05}")));
                if send.send(v1::SubmitStreamRequest { document }).await.is_err() {
                    return;
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    // It comes to a stand by itself: what it has sent does not grow any more.
    let mut before = 0;
    let stood = loop {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let now = count.load(Ordering::Relaxed);
        if now > 0 && now == before {
            break now;
        }
        before = now;
    };
    assert!(stood < 8_000, "nothing held it back");
    for index in 0..8_000 {
        let answer = within(answers.message()).await;
        let answer = answer.unwrap_or_else(|status| panic!("{index} after {stood} were sent: {status:?}")).unwrap();
        assert_eq!(answer.index, index);
        assert!(answer.accepted.is_some(), "{answer:?}");
    }
    within(sending).await.unwrap();
    assert_eq!(within(answers.message()).await.unwrap(), None);
}
