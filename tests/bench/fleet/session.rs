//! A worker's session without a worker: what remains of a job's cost is the coordinator's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use guestkit_protocol::v1;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use v1::session_request::Message as Said;
use v1::session_response::Message as Heard;

use crate::Failure;

/// Ends the session with itself.
pub(crate) struct Session(JoinHandle<()>);

impl Drop for Session {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An open session: what is said, and what is heard.
pub(crate) struct Line {
    pub(crate) say: mpsc::Sender<v1::SessionRequest>,
    pub(crate) heard: Streaming<v1::SessionResponse>,
}

impl Line {
    /// Opens a session that takes echo jobs.
    pub(crate) async fn open(channel: Channel, worker: &str, boot: &str, slots: u32) -> Result<Self, Failure> {
        let (say, said) = mpsc::channel(1024);
        let description = v1::WorkerDescription {
            version: env!("CARGO_PKG_VERSION").into(),
            operations: vec!["system.echo".into()],
            pool: "default".into(),
            slots,
            ..Default::default()
        };
        let hello = v1::Hello {
            protocol_version: 1,
            worker_id: worker.into(),
            boot_id: boot.into(),
            description: Some(description),
            held: Vec::new(),
            message_bytes_max: 4 << 20,
            stream: 1,
        };
        say.send(v1::SessionRequest { message: Some(Said::Hello(hello)) }).await?;
        let mut client = v1::workers_client::WorkersClient::new(channel);
        let heard = client.session(ReceiverStream::new(said)).await?.into_inner();
        Ok(Self { say, heard })
    }

    pub(crate) async fn hear(&mut self) -> Option<Heard> {
        self.heard.next().await?.ok()?.message
    }

    /// Sends a heartbeat; whether the session still takes it.
    pub(crate) async fn beat(&self, sequence: u64) -> bool {
        self.tell(Said::Heartbeat(v1::Heartbeat { sequence, ..Default::default() })).await
    }

    async fn tell(&self, message: Said) -> bool {
        self.say.send(v1::SessionRequest { message: Some(message) }).await.is_ok()
    }
}

/// A session that accepts every lease and completes it at once; `acknowledged` hears of each job whose outcome is durable.
pub(crate) async fn answering(
    channel: Channel,
    slots: u32,
    mut acknowledged: impl FnMut(&str) + Send + 'static,
) -> Result<Session, Failure> {
    // Each is a start of its own: what the one before held goes back to the queue.
    static STARTS: AtomicU32 = AtomicU32::new(0);
    let boot = format!("boot-{:04}", STARTS.fetch_add(1, Ordering::Relaxed));
    let mut line = Line::open(channel, "bare", &boot, slots).await?;
    let mut beats = tokio::time::interval(Duration::from_secs(5));
    Ok(Session(tokio::spawn(async move {
        let mut jobs: HashMap<u64, String> = HashMap::new();
        let mut sequence = 0;
        loop {
            let heard = tokio::select! {
                heard = line.hear() => heard,
                _ = beats.tick() => {
                    sequence += 1;
                    if !line.beat(sequence).await {
                        return;
                    }
                    continue;
                }
            };
            match heard {
                Some(Heard::Lease(lease)) => {
                    for message in answers(&lease) {
                        if !line.tell(message).await {
                            return;
                        }
                    }
                    jobs.insert(lease.lease_id, lease.job_id);
                }
                Some(Heard::OutcomeAck(ack)) => {
                    if let Some(job) = jobs.remove(&ack.lease_id) {
                        acknowledged(&job);
                    }
                }
                Some(_) => {}
                None => return,
            }
        }
    })))
}

fn answers(lease: &v1::Lease) -> [Said; 2] {
    let result = v1::JobResult { job_id: lease.job_id.clone(), status: "completed".into(), ..Default::default() };
    let result = prost::Message::encode_to_vec(&result);
    let result_sha256 = sha256(&result);
    [
        Said::Accept(v1::Accept { lease_id: lease.lease_id }),
        Said::Outcome(v1::Outcome {
            lease_id: lease.lease_id,
            job_id: lease.job_id.clone(),
            status: v1::OutcomeStatus::Completed.into(),
            error: None,
            result,
            result_sha256,
        }),
    ]
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).to_vec()
}
