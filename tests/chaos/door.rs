//! How a user's client calls: again and again, at each coordinator in turn, until there is an answer.

use std::future::Future;
use std::time::Duration;

use guestkit_protocol::client::{self, Endpoints};
use guestkit_protocol::status::Refusal;
use guestkit_protocol::v1::jobs_client::JobsClient;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How long a call may take before it is made again elsewhere.
const CALL_MAX: Duration = Duration::from_secs(5);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(100);

/// The way to the coordinators.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    endpoints: Vec<Endpoints>,
    next: usize,
    channel: Option<Channel>,
}

impl Door {
    pub(crate) fn new(urls: &[String]) -> Self {
        let endpoints = urls.iter().map(|url| url.parse().unwrap()).collect();
        Self { endpoints, next: 0, channel: None }
    }

    /// A connection to a coordinator that takes connections.
    pub(crate) async fn channel(&mut self) -> Channel {
        loop {
            if let Some(channel) = &self.channel {
                return channel.clone();
            }
            match client::connect(&self.endpoints[self.next]).await {
                Ok(channel) => self.channel = Some(channel),
                Err(_) => self.elsewhere().await,
            }
        }
    }

    /// The next coordinator is tried, after a while.
    pub(crate) async fn elsewhere(&mut self) {
        self.channel = None;
        self.next = (self.next + 1) % self.endpoints.len();
        sleep(AGAIN).await;
    }

    /// Calls until there is an answer; an error is one that no other try would change.
    pub(crate) async fn call<T, F: Future<Output = Result<T, Status>>>(
        &mut self,
        call: impl Fn(JobsClient<Channel>) -> F,
    ) -> Result<T, Status> {
        loop {
            let jobs = client::jobs(self.channel().await);
            match timeout(CALL_MAX, call(jobs)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) if !is_passing(&status) => return Err(status),
                Ok(Err(_)) | Err(_) => self.elsewhere().await,
            }
        }
    }
}

/// Whether the next try may be answered: the connection broke, or whoever answered cannot serve now.
pub(crate) fn is_passing(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::ResourceExhausted
        | Code::Unknown => true,
        // A stream that was reset shows as an internal fault whose cause is the transport's; ours carry a refusal.
        Code::Internal => Refusal::from_status(status).is_none(),
        _ => false,
    }
}
