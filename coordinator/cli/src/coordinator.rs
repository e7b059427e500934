//! The coordinator, as this program calls it.

use std::sync::{Mutex, PoisonError};

use guestkit_protocol::client::{self, Endpoints};
use guestkit_protocol::v1::fleet_client::FleetClient;
use guestkit_protocol::v1::jobs_client::JobsClient;
use tonic::Status;
use tonic::transport::Channel;

use crate::args::Global;
use crate::failure::Failure;

/// Calls about jobs.
pub(crate) type Jobs = JobsClient<Channel>;
/// Calls about workers.
pub(crate) type Fleet = FleetClient<Channel>;

/// Where coordinators are, and what to call them in messages.
#[derive(Debug)]
pub(crate) struct Coordinator {
    endpoints: Endpoints,
    shown: String,
    connection: Mutex<Option<Channel>>,
}

impl Coordinator {
    /// Reads the endpoints that were typed.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let endpoints = Endpoints::new(&global.coordinator)
            .map_err(|error| Failure::usage(format!("cannot use --coordinator: {error}")))?;
        Ok(Self { shown: endpoints.to_string(), endpoints, connection: Mutex::new(None) })
    }

    /// The endpoints, for messages.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// For calls about jobs, on the connection that all calls share.
    pub(crate) async fn jobs(&self) -> Result<Jobs, Failure> {
        Ok(client::jobs(self.channel().await?))
    }

    /// For calls about workers, on the connection that all calls share.
    pub(crate) async fn fleet(&self) -> Result<Fleet, Failure> {
        Ok(client::fleet(self.channel().await?))
    }

    /// What a status means for a request about `subject`.
    pub(crate) fn failed(&self, subject: &str, status: &Status) -> Failure {
        Failure::of_status(subject, &self.shown, status)
    }

    /// Drops the connection: the next call looks for a coordinator again, at every endpoint.
    pub(crate) fn forget(&self) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn channel(&self) -> Result<Channel, Failure> {
        let known = self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(channel) = known {
            return Ok(channel);
        }
        let channel = client::connect(&self.endpoints).await.map_err(|unreachable| self.not_reached(&unreachable))?;
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel.clone());
        Ok(channel)
    }

    fn not_reached(&self, unreachable: &client::Unreachable) -> Failure {
        let causes: Vec<String> = unreachable.attempts.iter().map(ToString::to_string).collect();
        Failure::unreachable(causes.join("; "))
    }
}
