//! The coordinator as a whole: built from its settings, run until it is told to stop, drained.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use guestkit_domain::{JobId, LeaseId, Revision};
use guestkit_scheduler as scheduler;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::server::HealthReporter;
use tonic_web::GrpcWebLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::{error, info};

use crate::api::{self, ArtifactDesk, Services};
use crate::artifacts::Artifacts;
use crate::clock::Clock;
use crate::config::Config;
use crate::data_folder::{DataFolder, DataFolderError};
use crate::driver::{self, Driver, Outlets, Start};
use crate::metrics::Metrics;
use crate::store::{Readers, SqliteStore, Store as _, StoreError};
use crate::summary::Summary;
use crate::watch::WatchHub;
use crate::web::{self, WebState};

/// How often an idle connection is proven alive, and how long the proof may take: a peer that vanished is noticed within
/// the time of six heartbeats even if it never wrote anything.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of a call's headers: ours are a few hundred.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// Why the coordinator did not start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The data folder cannot be used.
    #[error(transparent)]
    DataFolder(#[from] DataFolderError),
    /// The store cannot be used.
    #[error("open the store")]
    Store(#[from] StoreError),
    /// The folder of artifacts cannot be used.
    #[error("open the folder of artifacts")]
    Artifacts(#[source] std::io::Error),
    /// An address cannot be had.
    #[error("listen on {address} for {what}")]
    Listen {
        /// gRPC or HTTP.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// No thread for the driver.
    #[error("start the driver's thread")]
    Thread(#[source] std::io::Error),
    /// The built-in descriptors are damaged.
    #[error("set up reflection")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// An origin is not one.
    #[error("use {origin:?} as an origin that browsers may call from")]
    Origin {
        /// The text.
        origin: String,
    },
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Everybody was told and had finished in time.
    Gracefully,
    /// Some connections had not ended in time and were cut.
    CutShort,
    /// Something made going on unsound.
    Broken(String),
}

/// A coordinator that is ready to serve.
#[derive(Debug)]
pub struct App {
    config: Config,
    folder: DataFolder,
    grpc: TcpListener,
    http: TcpListener,
    routes: Routes,
    cors: CorsLayer,
    health: HealthReporter,
    web: WebState,
    driver: Driver,
    driver_ended: oneshot::Receiver<Result<(), StoreError>>,
    writable: watch::Receiver<bool>,
    ready: watch::Sender<bool>,
    stopping: watch::Sender<bool>,
}

impl App {
    /// Locks the data folder, opens the store, restores the scheduler and takes the addresses.
    ///
    /// # Errors
    /// When one of these cannot be had.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        let cors = cors(&config.cors_origins)?;
        let folder = DataFolder::open(&config.data)?;
        let (store, epoch) = SqliteStore::open(&folder.store())?;
        let readers = Readers::new(Arc::new(store.reader()));
        let ledger = store.load()?;
        info!(
            store = %folder.store().display(),
            epoch = epoch.0,
            revision = ledger.revision.0,
            jobs = ledger.jobs().count(),
            "store opened"
        );
        let artifacts =
            Artifacts::open(folder.artifacts(), config.artifact_bytes_max).map_err(BuildError::Artifacts)?;
        artifacts.sweep(|job_id| leases_that_count(&store, job_id))?;
        let clock = Clock::start(ledger.newest);
        let (outlets, inlets) = outlets(ledger.revision);
        let start = Start { store, epoch, ledger, clock, config: scheduler_config(&config) };
        let (driver, driver_ended) = driver::start(start, outlets.clone()).map_err(BuildError::Thread)?;
        let (stopping, stops) = watch::channel(false);
        let (ready, readiness) = watch::channel(false);
        let services = Services {
            driver: driver.clone(),
            readers,
            artifacts: ArtifactDesk::new(artifacts),
            inline_bytes_max: config.inline_bytes_max,
            hub: outlets.hub.clone(),
            summary: inlets.summary.clone(),
            fleet: inlets.fleet,
            stopping: stops,
            metrics: Arc::clone(&outlets.metrics),
            clock,
        };
        let (routes, health) = api::routes(services).map_err(BuildError::Reflection)?;
        let web = WebState { summary: inlets.summary, metrics: outlets.metrics, hub: outlets.hub, ready: readiness };
        let grpc = listen("gRPC", config.listen).await?;
        let http = listen("HTTP", config.http).await?;
        let writable = inlets.writable;
        Ok(Self {
            config,
            folder,
            grpc,
            http,
            routes,
            cors,
            health,
            web,
            driver,
            driver_ended,
            writable,
            ready,
            stopping,
        })
    }

    /// Where gRPC is served.
    ///
    /// # Errors
    /// When the socket does not tell.
    pub fn grpc_address(&self) -> std::io::Result<SocketAddr> {
        self.grpc.local_addr()
    }

    /// Where HTTP is served.
    ///
    /// # Errors
    /// When the socket does not tell.
    pub fn http_address(&self) -> std::io::Result<SocketAddr> {
        self.http.local_addr()
    }

    /// Serves until `stop` ends or the driver cannot go on; then drains.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Ended {
        if let Err(error) = self.announce() {
            return Ended::Broken(error);
        }
        let Self {
            config,
            grpc,
            http,
            routes,
            cors,
            health,
            web,
            driver,
            mut driver_ended,
            writable,
            ready,
            stopping,
            ..
        } = self;
        let until = |stopping: &watch::Sender<bool>| {
            let mut stopping = stopping.subscribe();
            async move {
                // The sender outlives the servers.
                let _ = stopping.wait_for(|stopping| *stopping).await;
            }
        };
        let server = Server::builder()
            .accept_http1(true)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .max_concurrent_streams(config.streams_per_connection_max)
            .layer(cors)
            .layer(GrpcWebLayer::new())
            .add_routes(routes)
            .serve_with_incoming_shutdown(TcpIncoming::from(grpc).with_nodelay(Some(true)), until(&stopping));
        let pages = axum::serve(http, web::router(web)).with_graceful_shutdown(until(&stopping));
        let mut server = tokio::spawn(server);
        let mut pages = tokio::spawn(pages.into_future());
        let telling = tokio::spawn(tell_readiness(health, ready, writable, stopping.subscribe()));

        let broken = tokio::select! {
            () = stop => None,
            ended = &mut driver_ended => Some(driver_text(ended)),
            ended = &mut server => Some(format!("the gRPC server ended: {ended:?}")),
            ended = &mut pages => Some(format!("the HTTP server ended: {ended:?}")),
        };
        stopping.send_replace(true);
        let drained = tokio::time::timeout(config.drain(), async {
            driver.stop().await;
            if broken.is_none() {
                // Its end is only waited for; what it says on the way it has logged.
                let _ = driver_ended.await;
                let _ = (&mut server).await;
                let _ = (&mut pages).await;
            }
        });
        let drained = drained.await.is_ok();
        server.abort();
        pages.abort();
        telling.abort();
        match broken {
            Some(why) => Ended::Broken(why),
            None if drained => Ended::Gracefully,
            None => Ended::CutShort,
        }
    }

    /// Tells in the log and in the data folder where it listens.
    fn announce(&self) -> Result<(), String> {
        let told = |error: std::io::Error| error.to_string();
        let (grpc, http) = (self.grpc_address().map_err(told)?, self.http_address().map_err(told)?);
        self.folder.tell_addresses(grpc, http).map_err(|error| error.to_string())?;
        info!(%grpc, %http, "serving");
        Ok(())
    }
}

/// Keeps health checks and `/readyz` at the truth: serving while changes can be made durable and nothing is stopping.
async fn tell_readiness(
    health: HealthReporter,
    ready: watch::Sender<bool>,
    mut writable: watch::Receiver<bool>,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        let serving = *writable.borrow_and_update() && !*stopping.borrow_and_update();
        ready.send_replace(serving);
        api::report_health(&health, serving).await;
        let changed = tokio::select! {
            changed = writable.changed() => changed,
            changed = stopping.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

struct Inlets {
    summary: watch::Receiver<Summary>,
    fleet: watch::Receiver<u64>,
    writable: watch::Receiver<bool>,
}

fn outlets(revision: Revision) -> (Outlets, Inlets) {
    let (summary, summaries) = watch::channel(Summary::default());
    let (fleet, fleets) = watch::channel(0);
    let (writable, writables) = watch::channel(true);
    let outlets =
        Outlets { hub: WatchHub::new(revision), summary, writable, fleet, metrics: Arc::new(Metrics::default()) };
    (outlets, Inlets { summary: summaries, fleet: fleets, writable: writables })
}

/// The lease that is a job's current one, or whose outcome ended it; none of a job that is not there.
fn leases_that_count(store: &SqliteStore, job_id: &JobId) -> Result<Vec<LeaseId>, StoreError> {
    let Some(entry) = store.entry(&scheduler::Want::Job(job_id.clone()))? else { return Ok(Vec::new()) };
    let lease = match &entry.row.phase {
        scheduler::Phase::Ended(ended) => ended.outcome_of,
        phase => phase.lease().map(|lease| lease.id),
    };
    Ok(lease.into_iter().collect())
}

fn scheduler_config(config: &Config) -> scheduler::Config {
    scheduler::Config {
        heartbeat_interval: config.heartbeat(),
        lease_ttl: config.lease_ttl(),
        accept_timeout: config.accept(),
        image_root_patience: config.image_root_patience(),
        // Longer than the life of a lease, so that a restart costs nobody a running job.
        restart_grace: config.lease_ttl().mul_f64(1.5),
        queue_max: config.jobs_active_max,
        weights: config.namespace_weights.clone(),
        concurrency_limits: config
            .concurrency_limits
            .iter()
            .map(|(key, limit)| (key.as_str().into(), *limit))
            .collect(),
        concurrency_limit_default: config.concurrency_limit_default,
        ..scheduler::Config::default()
    }
}

async fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, BuildError> {
    TcpListener::bind(address).await.map_err(|source| BuildError::Listen { what, address, source })
}

/// Lets browsers call from `origins`, with the headers that gRPC-Web needs; without origins no browser may.
fn cors(origins: &[String]) -> Result<CorsLayer, BuildError> {
    let exposed = ["grpc-status", "grpc-message", "grpc-status-details-bin"];
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let parsed =
            origins.iter().map(|origin| origin.parse().map_err(|_| BuildError::Origin { origin: origin.clone() }));
        AllowOrigin::list(parsed.collect::<Result<Vec<_>, _>>()?)
    };
    Ok(CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([axum::http::Method::POST])
        .allow_headers(tower_http::cors::Any)
        .expose_headers(exposed.map(axum::http::HeaderName::from_static)))
}

fn driver_text(ended: Result<Result<(), StoreError>, oneshot::error::RecvError>) -> String {
    match ended {
        Ok(Ok(())) => "the driver stopped by itself".into(),
        Ok(Err(error)) => {
            error!(%error, "the driver cannot go on");
            format!("the driver cannot go on: {error}")
        }
        Err(_) => "the driver panicked".into(),
    }
}
