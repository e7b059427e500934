//! The gRPC services: thin. Each call is converted, the driver or the store is asked, the answer is converted back.

mod artifacts;
mod fleet;
mod jobs;
mod show;
mod watching;
mod workers;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use guestkit_protocol::DESCRIPTORS;
use guestkit_protocol::client::MESSAGE_BYTES_MAX;
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::v1::fleet_server::FleetServer;
use guestkit_protocol::v1::jobs_server::JobsServer;
use guestkit_protocol::v1::workers_server::WorkersServer;
use guestkit_scheduler as scheduler;
use tokio::sync::watch;
use tonic::Status;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

pub use artifacts::ArtifactDesk;

use crate::driver::{Driver, Unserved};
use crate::lead::{Lead, NotLeader};
use crate::metrics::Metrics;
use crate::store::{ReadError, Readers, StoreError};
use crate::summary::Summary;
use crate::watch::{TooManyWatchers, WatchHub};

/// What the services work with.
#[derive(Debug, Clone)]
pub struct Services {
    /// Who decides.
    pub lead: Lead,
    /// Remembers.
    pub readers: Readers,
    /// Keeps what is too large for a message.
    pub artifacts: ArtifactDesk,
    /// Bytes of an outcome document that travel in a session; larger ones go as artifacts.
    pub inline_bytes_max: usize,
    /// Wakes.
    pub hub: WatchHub,
    /// Counts of the fleet and its jobs.
    pub summary: watch::Receiver<Summary>,
    /// Raised when a worker changed.
    pub fleet: watch::Receiver<u64>,
    /// True once the coordinator stops: streams end.
    pub stopping: watch::Receiver<bool>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Every service, with health and reflection, and the reporter that says whether they serve.
///
/// # Errors
/// When the descriptors that were built in cannot be read.
pub fn routes(services: Services) -> Result<(Routes, HealthReporter), tonic_reflection::server::Error> {
    let services = Arc::new(services);
    let (health, health_service) = health_reporter();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::builder();
    routes
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(
            JobsServer::from_arc(Arc::clone(&services))
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(
            FleetServer::from_arc(Arc::clone(&services))
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(
            WorkersServer::from_arc(services)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        );
    Ok((routes.routes(), health))
}

/// How much is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Nothing that can be relied on: starting, stopping, or the store does not take writes.
    Nothing,
    /// What a standby serves: reading.
    Reading,
    /// Everything.
    Everything,
}

/// Says to health checks what is served. The server and `Jobs` serve where jobs can be read; `Fleet` and `Workers` only at
/// the coordinator that leads, so that a load balancer can tell the two apart.
pub async fn report_health(health: &HealthReporter, readiness: Readiness) {
    let status = |serves: bool| if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in ["", "guestkit.v1.Jobs"] {
        health.set_service_status(service, status(readiness != Readiness::Nothing)).await;
    }
    for service in ["guestkit.v1.Fleet", "guestkit.v1.Workers"] {
        health.set_service_status(service, status(readiness == Readiness::Everything)).await;
    }
}

impl Services {
    /// The driver, where this coordinator leads.
    async fn driver(&self) -> Result<Driver, Refusal> {
        tokio::select! {
            biased;
            found = self.lead.driver() => found.map_err(|NotLeader { leader }| Refusal::not_leader(leader)),
            () = self.until_stopping() => Err(Refusal::new(Reason::Unavailable, "the coordinator is stopping")),
        }
    }

    /// Counts a refused submission.
    fn refused(&self, refusal: Refusal) -> Refusal {
        self.metrics.submits_refused.fetch_add(1, Ordering::Relaxed);
        refusal
    }

    /// Ends when the coordinator stops.
    fn until_stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.stopping.clone();
        async move {
            // A sender that is gone is a coordinator that has stopped.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }
}

fn unserved(unserved: Unserved) -> Refusal {
    // The driver looks at its store again every second.
    Refusal::new(Reason::Unavailable, unserved.to_string()).retry_after(Duration::from_secs(1))
}

fn unread(error: &ReadError) -> Refusal {
    match error {
        ReadError::Stopping => Refusal::new(Reason::Unavailable, error.to_string()),
        ReadError::Store(error) => {
            tracing::error!(%error, cause = std::error::Error::source(error).map(ToString::to_string), "a read failed");
            let text = format!("failed to {error}");
            match error {
                // A database elsewhere may be back in a moment; a file that cannot be read stays so.
                StoreError::Postgres { .. } => {
                    Refusal::new(Reason::Unavailable, text).retry_after(Duration::from_secs(1))
                }
                _ => Refusal::new(Reason::Internal, text),
            }
        }
    }
}

fn not_found(job_id: &guestkit_domain::JobId) -> Refusal {
    Refusal::new(Reason::JobNotFound, format!("no job {job_id}"))
}

fn too_many_watchers(error: TooManyWatchers) -> Refusal {
    Refusal::new(Reason::WatcherLimit, error.to_string()).retry_after(Duration::from_secs(5))
}

fn stopping() -> Status {
    Refusal::new(Reason::Unavailable, "the coordinator is stopping").into()
}

/// The scheduler's refusal, as callers see it.
fn refusal(refused: scheduler::Refusal) -> Refusal {
    use scheduler::Refusal as Why;
    let text = refused.to_string();
    match refused {
        Why::QueueFull { retry_after, .. } => Refusal::new(Reason::QueueFull, text).retry_after(retry_after),
        Why::JobExists { .. } | Why::KeyExists { .. } => Refusal::new(Reason::AlreadyExists, text),
        Why::JobNotFound { .. } => Refusal::new(Reason::JobNotFound, text),
        Why::NotCancellable { .. } => Refusal::new(Reason::NotCancellable, text),
        Why::Over { .. } | Why::DeadlinePassed { .. } => Refusal::new(Reason::AlreadyOver, text),
        Why::NotOver { .. } => Refusal::new(Reason::NotOver, text),
        Why::NoSuchDrain => Refusal::of_field("worker_id", text),
        Why::TooManyDrains { .. } => Refusal::new(Reason::QueueFull, text).retry_after(Duration::from_secs(60)),
    }
}

/// A reply that does not belong to its question: a fault of ours, told as such.
fn mismatched(reply: &scheduler::Reply) -> Refusal {
    tracing::error!(?reply, "a reply does not belong to its question");
    Refusal::new(Reason::Internal, "the coordinator answered another question")
}
