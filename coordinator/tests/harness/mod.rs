//! A coordinator in this process, reached over real TCP, and a worker that speaks the session protocol by hand.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use guestkit_coordinator::app::{App, Ended};
use guestkit_coordinator::config::Config;
use guestkit_protocol::client;
use guestkit_protocol::v1;
use guestkit_protocol::v1::session_request::Message as Said;
use guestkit_protocol::v1::session_response::Message as Say;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Longer than anything here takes on a loaded machine; met only by a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A coordinator that runs.
#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) channel: Channel,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Ended>,
}

impl Coordinator {
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_with(Config { data: folder.into(), ..config() }).await
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        let app = App::build(config).await.unwrap();
        let (grpc, http) = (app.grpc_address().unwrap(), app.http_address().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(app.run(async { drop(stopped.await) }));
        let endpoints = client::Endpoints::new([format!("http://{grpc}")]).unwrap();
        let channel = client::connect(&endpoints).await.unwrap();
        Self { grpc, http, channel, stop, ended }
    }

    pub(crate) fn jobs(&self) -> v1::jobs_client::JobsClient<Channel> {
        client::jobs(self.channel.clone())
    }

    pub(crate) fn fleet(&self) -> v1::fleet_client::FleetClient<Channel> {
        client::fleet(self.channel.clone())
    }

    pub(crate) async fn submit(&self, document: v1::JobDocument) -> v1::Job {
        self.jobs().submit(document).await.unwrap().into_inner().job.unwrap()
    }

    pub(crate) async fn get(&self, job_id: &str) -> v1::Job {
        let request = v1::GetRequest { job_id: job_id.into() };
        self.jobs().get(request).await.unwrap().into_inner().job.unwrap()
    }

    pub(crate) async fn report(&self, job_id: &str) -> v1::JobResult {
        let request = v1::GetReportRequest { job_id: job_id.into() };
        self.jobs().get_report(request).await.unwrap().into_inner().result.unwrap()
    }

    /// The whole log after `after_sequence`, until the job is over.
    pub(crate) async fn watch(&self, job_id: &str, after_sequence: u64) -> Vec<v1::JobEvent> {
        let request = v1::WatchRequest { job_id: job_id.into(), after_sequence };
        let mut stream = self.jobs().watch(request).await.unwrap().into_inner();
        let mut events = Vec::new();
        while let Some(response) = within(stream.message()).await.unwrap() {
            events.push(response.event.unwrap());
        }
        events
    }

    pub(crate) async fn worker(&self, hello: v1::Hello) -> Worker {
        Worker::connect(self.channel.clone(), hello).await
    }

    pub(crate) async fn stop(self) -> Ended {
        let Self { stop, ended, channel, .. } = self;
        drop(channel);
        stop.send(()).unwrap();
        within(ended).await.unwrap()
    }
}

pub(crate) fn config() -> Config {
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        http: SocketAddr::from(([127, 0, 0, 1], 0)),
        ..Config::default()
    }
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

pub(crate) fn echo(job_id: &str) -> v1::JobDocument {
    let json = format!(
        r#"{{"version": "1.0", "kind": "VMOperation", "job_id": "{job_id}", "operation": "system.echo",
             "payload": {{"type": "system.echo.v1", "data": {{"message": "hello"}}}}}}"#
    );
    guestkit_protocol::document::parse(json.as_bytes()).unwrap()
}

pub(crate) fn hello(worker_id: &str, boot_id: &str) -> v1::Hello {
    v1::Hello {
        protocol_version: 1,
        worker_id: worker_id.into(),
        boot_id: boot_id.into(),
        description: Some(v1::WorkerDescription {
            version: "0.1.0".into(),
            operations: vec!["system.echo".into()],
            slots: 1,
            image_roots: vec!["/srv/images".into()],
            hostname: "test".into(),
            ..v1::WorkerDescription::default()
        }),
        held: Vec::new(),
        message_bytes_max: 4 * 1024 * 1024,
        stream: 0,
    }
}

/// A worker's side of a session.
#[derive(Debug)]
pub(crate) struct Worker {
    say: mpsc::Sender<v1::SessionRequest>,
    hear: Streaming<v1::SessionResponse>,
    pub(crate) welcome: v1::Welcome,
}

impl Worker {
    pub(crate) async fn connect(channel: Channel, hello: v1::Hello) -> Self {
        let (say, mut hear) = open(channel, Said::Hello(hello)).await;
        match within(hear.message()).await.unwrap().unwrap().message {
            Some(Say::Welcome(welcome)) => Self { say, hear, welcome },
            other => panic!("no welcome: {other:?}"),
        }
    }

    pub(crate) async fn say(&self, message: Said) {
        self.say.send(v1::SessionRequest { message: Some(message) }).await.unwrap();
    }

    /// Like [`Self::say`]; fails when the session is over.
    pub(crate) async fn try_say(&self, message: Said) -> Result<(), SessionOver> {
        self.say.send(v1::SessionRequest { message: Some(message) }).await.map_err(|_| SessionOver)
    }

    pub(crate) async fn hear(&mut self) -> Result<Option<Say>, Status> {
        Ok(within(self.hear.message()).await?.and_then(|response| response.message))
    }

    pub(crate) async fn lease(&mut self) -> v1::Lease {
        match self.hear().await.unwrap() {
            Some(Say::Lease(lease)) => lease,
            other => panic!("no lease: {other:?}"),
        }
    }

    pub(crate) async fn ack(&mut self) -> v1::OutcomeAck {
        match self.hear().await.unwrap() {
            Some(Say::OutcomeAck(ack)) => ack,
            other => panic!("no acknowledgement: {other:?}"),
        }
    }

    pub(crate) async fn accept(&self, lease: &v1::Lease) {
        self.say(Said::Accept(v1::Accept { lease_id: lease.lease_id })).await;
    }

    pub(crate) async fn progress(&self, lease: &v1::Lease, percent: f64, phase: &str) {
        let progress = v1::Progress { phase: phase.into(), progress_percent: percent, ..v1::Progress::default() };
        let said = v1::LeaseProgress { lease_id: lease.lease_id, progress: Some(progress) };
        self.say(Said::Progress(said)).await;
    }

    /// Runs one offered echo to its end.
    pub(crate) async fn work(&mut self) -> v1::Lease {
        let lease = self.lease().await;
        self.accept(&lease).await;
        self.say(Said::Outcome(completed(&lease))).await;
        assert_eq!(self.ack().await.verdict(), v1::OutcomeVerdict::Recorded);
        lease
    }
}

/// The coordinator ended the session.
#[derive(Debug)]
pub(crate) struct SessionOver;

/// Opens a session whose first message is `first`.
pub(crate) async fn open(
    channel: Channel,
    first: Said,
) -> (mpsc::Sender<v1::SessionRequest>, Streaming<v1::SessionResponse>) {
    let (say, said) = mpsc::channel(64);
    say.send(v1::SessionRequest { message: Some(first) }).await.unwrap();
    let hear = client::workers(channel).session(ReceiverStream::new(said)).await.unwrap().into_inner();
    (say, hear)
}

/// The outcome of an echo.
pub(crate) fn completed(lease: &v1::Lease) -> v1::Outcome {
    let result = v1::JobResult {
        job_id: lease.job_id.clone(),
        status: "completed".into(),
        worker_id: "w1".into(),
        report: Some(v1::job_result::Report::Echo(v1::EchoReport::default())),
        ..v1::JobResult::default()
    };
    outcome(lease, v1::OutcomeStatus::Completed, &result)
}

pub(crate) fn outcome(lease: &v1::Lease, status: v1::OutcomeStatus, result: &v1::JobResult) -> v1::Outcome {
    let bytes = result.encode_to_vec();
    let sha256: [u8; 32] = Sha256::digest(&bytes).into();
    v1::Outcome {
        lease_id: lease.lease_id,
        job_id: lease.job_id.clone(),
        status: status.into(),
        error: result.error.clone(),
        result: bytes,
        result_sha256: sha256.to_vec(),
    }
}
