//! What the command line does when its coordinator refuses, breaks off or goes away. The coordinator here is scripted: it
//! says what a real one says only in bad moments. The real one is in the system tests.
#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests may panic as tests do.

use std::collections::VecDeque;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use guestkit_protocol::status::{Reason, Refusal, problem};
use guestkit_protocol::v1;
use guestkit_protocol::v1::fleet_server::{Fleet, FleetServer};
use guestkit_protocol::v1::jobs_server::{Jobs, JobsServer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

const JOB: &str = "job-00000001";

/// What a watch does next.
#[derive(Debug, Clone)]
enum Act {
    Progress(u64, f64),
    State(u64, v1::JobState),
    Break,
    Hang,
}

/// A coordinator that follows a script.
#[derive(Debug, Default)]
struct Peer {
    /// One entry per call of Watch; without one the stream ends at once.
    watches: Mutex<VecDeque<Vec<Act>>>,
    /// `after_sequence` of each call of Watch.
    after: Mutex<Vec<u64>>,
    /// The state per call of Get; the last one stays.
    states: Mutex<VecDeque<v1::JobState>>,
    refusal: Option<Refusal>,
    result: v1::JobResult,
    artifact: Vec<u8>,
    submitted: Mutex<Vec<v1::JobDocument>>,
    /// Jobs that the worker still holds, per look at it; none after the last. A peer without any serves no Fleet.
    held: Mutex<VecDeque<usize>>,
}

fn unimplemented<T>() -> Result<Response<T>, Status> {
    Err(Refusal::new(Reason::NotImplemented, "this version has no such call").into())
}

fn job(state: v1::JobState) -> v1::Job {
    v1::Job { job_id: JOB.into(), state: state.into(), ..Default::default() }
}

fn event(act: &Act) -> v1::JobEvent {
    let mut event = v1::JobEvent { job_id: JOB.into(), attempt: 1, ..Default::default() };
    match act {
        Act::Progress(sequence, percent) => {
            event.sequence = *sequence;
            event.set_state(v1::JobState::Running);
            event.progress = Some(v1::Progress {
                phase: "inspection".into(),
                message: format!("step {sequence}"),
                progress_percent: *percent,
                ..Default::default()
            });
        }
        Act::State(sequence, state) => {
            event.sequence = *sequence;
            event.set_state(*state);
        }
        Act::Break | Act::Hang => {}
    }
    event
}

#[tonic::async_trait]
impl Jobs for Peer {
    async fn submit(&self, request: Request<v1::JobDocument>) -> Result<Response<v1::SubmitResponse>, Status> {
        if let Some(refusal) = self.refusal.clone() {
            return Err(refusal.into());
        }
        let document = request.into_inner();
        self.submitted.lock().unwrap().push(document);
        Ok(Response::new(v1::SubmitResponse { job: Some(job(v1::JobState::Queued)), existing: false }))
    }

    type SubmitStreamStream = ReceiverStream<Result<v1::SubmitStreamResponse, Status>>;

    async fn submit_stream(
        &self,
        _: Request<Streaming<v1::SubmitStreamRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        unimplemented()
    }

    async fn get(&self, _: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let mut states = self.states.lock().unwrap();
        let state = if states.len() > 1 { states.pop_front() } else { states.front().copied() };
        Ok(Response::new(v1::GetResponse { job: state.map(job) }))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        // Three pages, whatever their size.
        let page = match request.into_inner().page_token.as_str() {
            "" => 1,
            "2" => 2,
            _ => 3,
        };
        let next_page_token = if page < 3 { (page + 1).to_string() } else { String::new() };
        let jobs = vec![v1::Job { job_id: format!("job-0000000{page}"), ..job(v1::JobState::Queued) }];
        Ok(Response::new(v1::ListResponse { jobs, next_page_token }))
    }

    async fn cancel(&self, _: Request<v1::CancelRequest>) -> Result<Response<v1::CancelResponse>, Status> {
        Err(Refusal::new(Reason::AlreadyOver, "job-00000001 is over: completed").into())
    }

    async fn retry(&self, _: Request<v1::RetryRequest>) -> Result<Response<v1::RetryResponse>, Status> {
        unimplemented()
    }

    async fn delete(&self, _: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        unimplemented()
    }

    async fn explain(&self, _: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        unimplemented()
    }

    type WatchStream = ReceiverStream<Result<v1::WatchResponse, Status>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.after.lock().unwrap().push(request.into_inner().after_sequence);
        let script = self.watches.lock().unwrap().pop_front().unwrap_or_default();
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            for act in script {
                match act {
                    Act::Hang => sender.closed().await,
                    Act::Break => drop(sender.send(Err(Status::unavailable("the coordinator is stopping"))).await),
                    act => drop(sender.send(Ok(v1::WatchResponse { event: Some(event(&act)) })).await),
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type WatchAllStream = ReceiverStream<Result<v1::WatchAllResponse, Status>>;

    async fn watch_all(&self, _: Request<v1::WatchAllRequest>) -> Result<Response<Self::WatchAllStream>, Status> {
        unimplemented()
    }

    async fn get_report(&self, _: Request<v1::GetReportRequest>) -> Result<Response<v1::GetReportResponse>, Status> {
        Ok(Response::new(v1::GetReportResponse { result: Some(self.result.clone()) }))
    }

    type ReadArtifactStream = ReceiverStream<Result<v1::ReadArtifactResponse, Status>>;

    async fn read_artifact(
        &self,
        _: Request<v1::ReadArtifactRequest>,
    ) -> Result<Response<Self::ReadArtifactStream>, Status> {
        let (sender, receiver) = mpsc::channel(16);
        let pieces: Vec<Vec<u8>> = self.artifact.chunks(1000).map(<[u8]>::to_vec).collect();
        tokio::spawn(async move {
            for data in pieces {
                let _ = sender.send(Ok(v1::ReadArtifactResponse { data, ..Default::default() })).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn worker(name: &str, jobs: usize) -> v1::Worker {
    v1::Worker { worker_id: name.into(), jobs: vec![v1::HeldJob::default(); jobs], ..Default::default() }
}

#[tonic::async_trait]
impl Fleet for Peer {
    async fn list_workers(
        &self,
        _: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let held = self.held.lock().unwrap().pop_front().unwrap_or(0);
        // Another one is busy and not concerned.
        let workers = vec![worker("busy", 3), worker("w1", held)];
        Ok(Response::new(v1::ListWorkersResponse { workers, ..Default::default() }))
    }

    async fn get_worker(&self, _: Request<v1::GetWorkerRequest>) -> Result<Response<v1::GetWorkerResponse>, Status> {
        unimplemented()
    }

    async fn drain(&self, _: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        Ok(Response::new(v1::DrainResponse { workers: vec![worker("w1", 2)] }))
    }

    async fn resume(&self, _: Request<v1::ResumeRequest>) -> Result<Response<v1::ResumeResponse>, Status> {
        unimplemented()
    }

    async fn summary(&self, _: Request<v1::SummaryRequest>) -> Result<Response<v1::SummaryResponse>, Status> {
        unimplemented()
    }

    type WatchStream = ReceiverStream<Result<v1::FleetWatchResponse, Status>>;

    async fn watch(&self, _: Request<v1::FleetWatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Refusal::new(Reason::NotImplemented, "this version has no such call").into())
    }
}

/// A peer that listens, on a runtime of its own: when that goes, so do its connections, as those of a process do.
struct Listening {
    peer: Arc<Peer>,
    address: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Listening {
    fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Binds; a peer that was stopped frees its address only when its last task is gone.
async fn bind(address: &str) -> TcpListener {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && tokio::time::Instant::now() < deadline => {
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("cannot listen at {address}: {error}"),
        }
    }
}

async fn listen(peer: Peer) -> Listening {
    listen_at(Arc::new(peer), "127.0.0.1:0").await
}

async fn listen_at(peer: Arc<Peer>, address: &str) -> Listening {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let jobs = JobsServer::from_arc(Arc::clone(&peer));
    let has_fleet = !peer.held.lock().unwrap().is_empty();
    let fleet = has_fleet.then(|| FleetServer::from_arc(Arc::clone(&peer)));
    let address = address.to_owned();
    let bound = runtime.spawn(async move {
        let listener = bind(&address).await;
        let address = listener.local_addr().unwrap().to_string();
        let incoming = TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(jobs).add_optional_service(fleet);
        tokio::spawn(server.serve_with_incoming(incoming));
        address
    });
    Listening { peer, address: bound.await.unwrap(), runtime: Some(runtime) }
}

fn start(peer: &Listening, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_guestkit"))
        .args(args)
        .args(["--coordinator", &format!("http://{}", peer.address)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn end(child: Child) -> Output {
    tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap()
}

async fn run(peer: &Listening, args: &[&str]) -> Output {
    end(start(peer, args)).await
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn echoed(status: &str) -> v1::JobResult {
    let echo = v1::EchoReport { message: Some("hello".into()), ..Default::default() };
    v1::JobResult {
        job_id: JOB.into(),
        status: status.into(),
        report: (status == "completed").then_some(v1::job_result::Report::Echo(echo)),
        error: (status != "completed").then(|| v1::JobError { code: "IMAGE_NOT_FOUND".into(), ..Default::default() }),
        ..Default::default()
    }
}

fn completing(watches: impl IntoIterator<Item = Vec<Act>>, states: impl IntoIterator<Item = v1::JobState>) -> Peer {
    Peer {
        watches: Mutex::new(watches.into_iter().collect()),
        states: Mutex::new(states.into_iter().collect()),
        result: echoed("completed"),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_3_with_every_problem() {
    let mut refusal = Refusal::new(Reason::InvalidDocument, "the job document has 2 problems");
    refusal.problems = vec![problem("routing.worker_pool", "no such pool"), problem("job_id", "taken")];
    let peer = listen(Peer { refusal: Some(refusal), ..Default::default() }).await;
    let output = run(&peer, &["inspect", "a.raw", "--watch", "-o", "json"]).await;
    assert_eq!(code(&output), Some(3), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
    assert!(
        stderr(&output).contains("\n  routing.worker_pool: no such pool\n  job_id: taken\n"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_waited_for_until_its_workers_hold_nothing() {
    let peer = listen(Peer { held: Mutex::new([2, 2, 1].into()), ..Default::default() }).await;
    let output = run(&peer, &["drain", "w1", "--wait", "-o", "json"]).await;
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let workers: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (workers[0]["worker_id"].as_str(), &workers[0]["jobs"], &workers[1]),
        (Some("w1"), &Value::Null, &Value::Null)
    );
    let told: Vec<&str> = stderr(&output).lines().filter(|line| line.contains("still held")).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(peer.peer.held.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_other_calls_are_3() {
    let peer = listen(Peer::default()).await;
    for (args, said) in [(["explain", JOB], "no such call"), (["cancel", JOB], "is over: completed")] {
        let output = run(&peer, &args).await;
        assert_eq!(code(&output), Some(3), "{}", stderr(&output));
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
    // The peer serves no Fleet at all, as a proxy in between might.
    let output = run(&peer, &["workers"]).await;
    assert_eq!(code(&output), Some(3), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_breaks_is_resumed_where_it_was() {
    use v1::JobState::{Completed, Running};
    let first = vec![Act::State(1, Running), Act::Progress(2, 20.0), Act::Break];
    let second = vec![Act::Progress(2, 20.0), Act::Progress(3, 80.0), Act::State(4, Completed)];
    let peer = listen(completing([first, second], [Completed])).await;
    let output = run(&peer, &["inspect", "a.raw", "--watch", "-o", "json"]).await;
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("standard output is the report alone");
    assert_eq!(report["message"], "hello");
    assert_eq!(*peer.peer.after.lock().unwrap(), [0, 2]);
    assert_eq!(stderr(&output).matches("step 2").count(), 1, "{}", stderr(&output));
    assert_eq!(stderr(&output).matches("step 3").count(), 1, "{}", stderr(&output));
    assert!(stderr(&output).contains("connection lost"), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_early_is_not_the_end() {
    use v1::JobState::{Completed, Running};
    let peer =
        listen(completing([vec![Act::Progress(1, 10.0)], vec![Act::State(2, Completed)]], [Running, Completed])).await;
    let output = run(&peer, &["watch", JOB]).await;
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert_eq!(*peer.peer.after.lock().unwrap(), [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stays_open_after_the_end_is_left() {
    use v1::JobState::Completed;
    let peer = listen(completing([vec![Act::State(1, Completed), Act::Hang]], [Completed])).await;
    let output = run(&peer, &["watch", JOB]).await;
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_a_retry_undid_is_not_the_end() {
    use v1::JobState::{Completed, Failed, Queued};
    let log = vec![Act::State(1, Failed), Act::State(2, Queued), Act::Progress(3, 50.0), Act::State(4, Completed)];
    let peer = listen(completing([log], [Completed])).await;
    let output = run(&peer, &["watch", JOB, "--events", "-o", "json"]).await;
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let lines: Vec<Value> = output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    let sequences: Vec<u64> = lines.iter().filter_map(|event| event["sequence"].as_u64()).collect();
    assert_eq!(sequences, [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_restarts_is_found_again() {
    use v1::JobState::{Completed, Running};
    let mut peer = listen(completing([vec![Act::State(1, Running), Act::Hang]], [Completed])).await;
    let child = start(&peer, &["watch", JOB]);
    while peer.peer.after.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    peer.stop();
    peer.peer.watches.lock().unwrap().push_back(vec![Act::State(2, Completed)]);
    let again = listen_at(Arc::clone(&peer.peer), &peer.address).await;
    let output = end(child).await;
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    drop(again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_stays_away_is_4_and_says_how_to_go_on() {
    let peer = listen(completing([vec![Act::Progress(7, 10.0), Act::Break]], [])).await;
    let output = run(&peer, &["watch", JOB, "--reconnect", "0"]).await;
    assert_eq!(code(&output), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("guestkit watch {JOB} --after 7")), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_failed_is_1_and_its_outcome_says_why() {
    use v1::JobState::Failed;
    let script = completing([vec![Act::State(1, Failed)]], [Failed]);
    let peer = listen(Peer { result: echoed("failed"), ..script }).await;
    let output = run(&peer, &["inspect", "a.raw", "--watch", "-o", "json"]).await;
    assert_eq!(code(&output), Some(1), "{}", stderr(&output));
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcome["status"], "failed");
    assert_eq!(outcome["error"]["code"], "IMAGE_NOT_FOUND");
    assert_eq!(code(&run(&peer, &["report", JOB]).await), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_leaves_the_job_and_says_so() {
    use v1::JobState::Running;
    let peer = listen(completing([vec![Act::State(1, Running), Act::Hang]], [Running])).await;
    let mut child = start(&peer, &["inspect", "a.raw", "--watch"]);
    // The first line of progress: by then the interrupt is listened for.
    let mut reader = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    assert!(line.contains("running"), "{line}");
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut reader, &mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(
        rest.contains(&format!("guestkit watch {JOB}")) && rest.contains(&format!("guestkit cancel {JOB}")),
        "{rest}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_a_name_gets_one_and_so_is_sent_once() {
    let peer = listen(Peer::default()).await;
    run(&peer, &["inspect", "a.raw"]).await;
    run(&peer, &["inspect", "a.raw", "--idempotency-key", "k"]).await;
    let submitted = peer.peer.submitted.lock().unwrap();
    assert_eq!(submitted[0].job_id.len(), 36);
    assert_eq!(submitted[1].job_id, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_one_document_over_all_its_pages() {
    let peer = listen(Peer::default()).await;
    let ids = |output: &Output| -> Vec<String> {
        let jobs: Vec<Value> = serde_json::from_slice(&output.stdout).expect("standard output is one JSON document");
        jobs.iter().map(|job| job["job_id"].as_str().unwrap().to_owned()).collect()
    };
    let all = run(&peer, &["list", "--all", "-o", "json"]).await;
    assert_eq!(ids(&all), ["job-00000001", "job-00000002", "job-00000003"]);
    let two = run(&peer, &["list", "--limit", "2", "-o", "json"]).await;
    assert_eq!(ids(&two), ["job-00000001", "job-00000002"]);
    assert!(stderr(&two).contains("there are more"), "{}", stderr(&two));
    let table = run(&peer, &["list", "--all"]).await;
    assert_eq!(String::from_utf8(table.stdout).unwrap().matches("STATE").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_too_large_for_a_message_is_fetched_and_checked() {
    use prost::Message as _;
    use sha2::Digest as _;
    let artifact = echoed("completed").encode_to_vec();
    let sha256 = sha2::Sha256::digest(&artifact).iter().map(|byte| format!("{byte:02x}")).collect();
    let named = v1::Artifact { name: "report".into(), size_bytes: artifact.len() as u64, sha256, ..Default::default() };
    let result = v1::JobResult { report: None, report_artifact: Some(named.clone()), ..echoed("completed") };
    let peer = listen(Peer { result: result.clone(), artifact: artifact.clone(), ..Default::default() }).await;
    let output = run(&peer, &["report", JOB, "-o", "json"]).await;
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["message"], "hello");

    let forged = v1::JobResult { report_artifact: Some(v1::Artifact { sha256: "00".into(), ..named }), ..result };
    let peer = listen(Peer { result: forged, artifact, ..Default::default() }).await;
    let output = run(&peer, &["report", JOB, "-o", "json"]).await;
    assert_eq!(code(&output), Some(1));
    assert!(output.stdout.is_empty() && stderr(&output).contains("SHA-256"), "{}", stderr(&output));
}
