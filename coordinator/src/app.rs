//! The coordinator as a whole: built from its settings, run until it is told to stop, drained.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guestkit_domain::Revision;
use guestkit_protocol::client;
use guestkit_scheduler as scheduler;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;
use tonic_web::GrpcWebLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::{error, info, warn};

use crate::api::{self, ArtifactDesk, Readiness, Services};
use crate::artifacts::{ArtifactError, Artifacts, Places};
use crate::clock::Clock;
use crate::config::{Config, StoreLocation};
use crate::data_folder::{DataFolder, DataFolderError};
use crate::driver::{self, Outlets, Start};
use crate::edge::{Calls, Gate, Limits};
use crate::ground::{Ground, Listener, System};
use crate::lead::{self, Contest, DecideError, Decider, Lead, Role};
use crate::metrics::Metrics;
use crate::retention::Retention;
use crate::store::{Candidate, Postgres, Readers, SqliteStore, Store as _, StoreError};
use crate::summary::Summary;
use crate::watch::WatchHub;
use crate::web::{self, WebState};

/// How often an idle connection is proven alive, and how long the proof may take: a peer that vanished is noticed within
/// the time of six heartbeats even if it never wrote anything.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);

/// Pages are asked for by a scraper or two and some probes.
const PAGE_CONNECTIONS_MAX: usize = 256;
const PAGE_CONNECTIONS_PER_PEER_MAX: usize = 128;

/// Bytes of a call's headers: ours are a few hundred.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// How long a database is waited for at the start: it recovers within that unless it crashed under a very high load.
const DATABASE_PATIENCE: Duration = Duration::from_secs(60);

/// Between two tries of a database that is not there yet.
const DATABASE_RETRY: Duration = Duration::from_millis(500);

/// Why the coordinator did not start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The data folder cannot be used.
    #[error(transparent)]
    DataFolder(#[from] DataFolderError),
    /// The store cannot be used.
    #[error("open the store")]
    Store(#[from] StoreError),
    /// The place of artifacts cannot be used.
    #[error("open the place of artifacts")]
    Artifacts(#[source] ArtifactError),
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
pub struct App<L = TcpListener> {
    config: Config,
    folder: DataFolder,
    grpc: L,
    http: L,
    routes: Routes,
    cors: CorsLayer,
    web: WebState,
    decider: Decider,
    retention: Retention,
    readiness: Tell,
    stopping: watch::Sender<bool>,
}

impl App {
    /// Locks the data folder, takes the addresses and opens the store; on one of its own it restores the scheduler.
    ///
    /// # Errors
    /// When one of these cannot be had.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        Self::build_on(config, System).await
    }
}

impl<L: Listener> App<L> {
    /// The same on a ground of the caller's.
    ///
    /// # Errors
    /// When something of it cannot be had.
    pub async fn build_on(config: Config, ground: impl Ground<Listener = L>) -> Result<Self, BuildError> {
        let cors = cors(&config.cors_origins)?;
        let folder = DataFolder::open(&config.data)?;
        // Before the addresses: whoever comes while a database starts is refused, and goes elsewhere, instead of waiting.
        let database = match &config.store {
            Some(StoreLocation::Postgres(url)) => Some(open_patiently(url).await?),
            _ => None,
        };
        let grpc = listen(&ground, "gRPC", config.listen).await?;
        let http = listen(&ground, "HTTP", config.http).await?;
        let Opened { readers, outlets, inlets, roles, decider } = match (database, &config.store) {
            (Some(database), _) => share(&config, database, address(&config, &grpc)?),
            (None, Some(StoreLocation::Sqlite(path))) => own(&config, path, &ground)?,
            (None, _) => own(&config, &folder.store(), &ground)?,
        };
        let places = Places {
            location: config.artifacts.clone(),
            local: folder.artifacts(),
            staging: folder.uploads(),
            aws: config.aws.clone(),
        };
        let artifacts = Artifacts::open(places, config.artifact_bytes_max).map_err(BuildError::Artifacts)?;
        let (stopping, stops) = watch::channel(false);
        let (ready, readiness) = watch::channel(Readiness::Nothing);
        let lead = Lead::new(roles);
        let artifacts = ArtifactDesk::new(artifacts);
        let (keep, forgetting) = (config.retention(), artifacts.clone());
        let retention = Retention { keep, lead: lead.clone(), readers: readers.clone(), artifacts: forgetting };
        let services = Services {
            lead: lead.clone(),
            readers,
            artifacts,
            inline_bytes_max: config.inline_bytes_max,
            hub: outlets.hub.clone(),
            summary: inlets.summary.clone(),
            fleet: inlets.fleet,
            stopping: stops,
            metrics: Arc::clone(&outlets.metrics),
        };
        let (routes, health) = api::routes(services).map_err(BuildError::Reflection)?;
        let web = WebState {
            summary: inlets.summary,
            metrics: outlets.metrics,
            hub: outlets.hub,
            ready: readiness,
            lead: lead.clone(),
        };
        let readiness = Tell { health, ready, lead, writable: inlets.writable };
        Ok(Self { config, folder, grpc, http, routes, cors, web, decider, retention, readiness, stopping })
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
        let Self { config, grpc, http, routes, cors, web, decider, retention, readiness, stopping, .. } = self;
        let until = |stopping: &watch::Sender<bool>| {
            let mut stopping = stopping.subscribe();
            async move {
                // The sender outlives the servers.
                let _ = stopping.wait_for(|stopping| *stopping).await;
            }
        };
        let limits = Limits {
            connections: config.connections_max,
            connections_per_peer: config.connections_per_peer_max,
            patience: config.peer_patience(),
        };
        let gate = Gate::new(limits, Arc::clone(&web.metrics));
        let page_limits =
            Limits { connections: PAGE_CONNECTIONS_MAX, connections_per_peer: PAGE_CONNECTIONS_PER_PEER_MAX, ..limits };
        let page_gate = Gate::new(page_limits, Arc::clone(&web.metrics));
        let calls = Calls {
            per_peer_max: config.calls_per_peer_max,
            patience: config.peer_patience(),
            metrics: Arc::clone(&web.metrics),
        };
        let server = Server::builder()
            .accept_http1(true)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .initial_stream_window_size(client::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(client::CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(config.streams_per_connection_max)
            .layer(cors)
            .layer(GrpcWebLayer::new())
            .layer(calls)
            .add_routes(routes)
            .serve_with_incoming_shutdown(gate.incoming(grpc), until(&stopping));
        let pages = web::serve(http, page_gate, config.peer_patience(), web, until(&stopping));
        let mut server = tokio::spawn(server);
        let mut pages = tokio::spawn(pages);
        let mut deciding = tokio::spawn(decider.run(stopping.subscribe()));
        let forgetting = tokio::spawn(retention.run());
        let telling = tokio::spawn(readiness.run(stopping.subscribe()));

        let broken = tokio::select! {
            () = stop => None,
            ended = &mut deciding => Some(decided_text(ended)),
            ended = &mut server => Some(format!("the gRPC server ended: {ended:?}")),
            ended = &mut pages => Some(format!("the HTTP server ended: {ended:?}")),
        };
        stopping.send_replace(true);
        forgetting.abort();
        let drained = tokio::time::timeout(config.drain(), async {
            if !deciding.is_finished() {
                // Its end is only waited for; what it says on the way it has logged.
                let _ = (&mut deciding).await;
            }
            if broken.is_none() {
                let _ = (&mut server).await;
                let _ = (&mut pages).await;
            }
        });
        let drained = drained.await.is_ok();
        deciding.abort();
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

/// Keeps health checks and `/readyz` at the truth.
#[derive(Debug)]
struct Tell {
    health: HealthReporter,
    ready: watch::Sender<Readiness>,
    lead: Lead,
    writable: watch::Receiver<bool>,
}

impl Tell {
    async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        loop {
            let readiness = match self.lead.role() {
                _ if *stopping.borrow_and_update() => Readiness::Nothing,
                Role::Standby { .. } => Readiness::Reading,
                Role::Leader(_) if *self.writable.borrow_and_update() => Readiness::Everything,
                Role::Leader(_) => Readiness::Nothing,
            };
            self.ready.send_replace(readiness);
            api::report_health(&self.health, readiness).await;
            let changed = tokio::select! {
                changed = self.lead.changed() => changed,
                changed = self.writable.changed() => changed.is_ok(),
                changed = stopping.changed() => changed.is_ok(),
            };
            if !changed {
                return;
            }
        }
    }
}

/// The store, and whoever decides on it.
struct Opened {
    readers: Readers,
    outlets: Outlets,
    inlets: Inlets,
    roles: watch::Receiver<Role>,
    decider: Decider,
}

/// A store of our own, of which this coordinator is always the leader.
fn own(config: &Config, path: &Path, ground: &impl Ground) -> Result<Opened, BuildError> {
    let (store, epoch) = SqliteStore::open(path)?;
    let readers = Readers::new(Arc::new(store.reader()));
    let ledger = store.load()?;
    info!(
        store = %path.display(),
        epoch = epoch.0,
        revision = ledger.revision.0,
        jobs = ledger.jobs().count(),
        "store opened"
    );
    let clock = Clock::start(ledger.newest);
    let (outlets, inlets) = outlets(ledger.revision);
    let start = Start { store, epoch, ledger, clock, config: scheduler_config(config) };
    let (driver, ended) = driver::start(start, outlets.clone(), ground).map_err(BuildError::Thread)?;
    let (role, roles) = watch::channel(Role::Leader(driver.clone()));
    let decider = Decider::Alone { driver, ended, roles: role };
    Ok(Opened { readers, outlets, inlets, roles, decider })
}

/// Opens a database, and reads where it stands. One that is not there yet, as when the machines of both were switched on at
/// the same time, is waited for; what no waiting mends is told at once.
async fn open_patiently(url: &str) -> Result<(Postgres, Revision), StoreError> {
    let until = Instant::now() + DATABASE_PATIENCE;
    loop {
        let opened = async {
            let postgres = Postgres::open(url).await?;
            let revision = postgres.revision().await?;
            Ok::<_, StoreError>((postgres, revision))
        };
        match opened.await {
            Err(error) if error.may_pass() && Instant::now() < until => {
                warn!(error = &error as &dyn std::error::Error, "the database does not answer yet");
                tokio::time::sleep(DATABASE_RETRY).await;
            }
            opened => return opened,
        }
    }
}

/// A store that several coordinators share, of which one is elected.
fn share(config: &Config, (postgres, revision): (Postgres, Revision), address: String) -> Opened {
    let readers = Readers::new(Arc::new(postgres.reader()));
    let follower = postgres.follow();
    info!(store = %postgres, revision = revision.0, address, "store opened");
    let (outlets, inlets) = outlets(revision);
    let (role, roles) = watch::channel(Role::Standby { leader: None });
    let heard = follower.revision.clone();
    tokio::spawn(lead::tell_watchers(heard, Lead::new(roles.clone()), outlets.hub.clone(), readers.clone()));
    let contest = Contest {
        postgres,
        follower,
        candidate: Candidate { id: format!("{address} (process {})", std::process::id()), address },
        ttl: config.leader_ttl(),
        config: scheduler_config(config),
        outlets: outlets.clone(),
        roles: role,
    };
    Opened { readers, outlets, inlets, roles, decider: Decider::Elected(Box::new(contest)) }
}

/// Where other coordinators send clients and workers.
fn address(config: &Config, grpc: &impl Listener) -> Result<String, BuildError> {
    let own = || grpc.local_addr().map(|address| format!("http://{address}"));
    let failed = |source| BuildError::Listen { what: "gRPC", address: config.listen, source };
    config.advertise.clone().map_or_else(own, Ok).map_err(failed)
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

async fn listen<G: Ground>(ground: &G, what: &'static str, address: SocketAddr) -> Result<G::Listener, BuildError> {
    ground.listen(address).await.map_err(|source| BuildError::Listen { what, address, source })
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

fn decided_text(ended: Result<Result<(), DecideError>, tokio::task::JoinError>) -> String {
    match ended {
        Ok(Ok(())) => "the driver stopped by itself".into(),
        Ok(Err(error)) => {
            error!(error = &error as &dyn std::error::Error, "nobody can decide here any more");
            match std::error::Error::source(&error) {
                Some(source) => format!("failed to {error}: {source}"),
                None => format!("failed to {error}"),
            }
        }
        Err(error) => format!("failed to decide: {error}"),
    }
}
