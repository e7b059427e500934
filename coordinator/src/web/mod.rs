//! What the coordinator tells over plain HTTP: whether it lives, whether it serves, its metrics, its counts.
//!
//! Everything answered here is kept as it changes; nothing asks the store or the scheduler, so a scraper costs nothing.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tracing::debug;

use crate::api::Readiness;
use crate::edge::Gate;
use crate::ground::Listener;
use crate::lead::{Lead, Role};
use crate::metrics::{Metrics, PrometheusText};
use crate::summary::Summary;
use crate::watch::WatchHub;

/// What the pages are made of.
#[derive(Debug, Clone)]
pub struct WebState {
    /// Counts, as they change.
    pub summary: watch::Receiver<Summary>,
    /// Counters of this process.
    pub metrics: Arc<Metrics>,
    /// Who watches.
    pub hub: WatchHub,
    /// How much is being served.
    pub ready: watch::Receiver<Readiness>,
    /// Who leads.
    pub lead: Lead,
}

/// Serves the pages until `stop` ends, and then what was asked before. A request's head must be whole, and the next one begun,
/// within `patience`.
pub async fn serve(
    listener: impl Listener,
    gate: Gate,
    patience: Duration,
    state: WebState,
    stop: impl Future<Output = ()>,
) {
    let pages = TowerToHyperService::new(router(state));
    let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
    server.http1().timer(TokioTimer::new()).header_read_timeout(patience);
    let connections = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let connection = tokio::select! {
            () = &mut stop => break,
            connection = gate.accept(&listener) => connection,
        };
        let connection = server.serve_connection(TokioIo::new(connection), pages.clone()).into_owned();
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection for pages ended");
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// The pages.
fn router(state: WebState) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/summary", get(summary))
        .with_state(state)
}

async fn readyz(State(state): State<WebState>) -> Response {
    match *state.ready.borrow() {
        Readiness::Everything => "ready\n".into_response(),
        Readiness::Reading => "standby\n".into_response(),
        Readiness::Nothing => (StatusCode::SERVICE_UNAVAILABLE, "not serving\n").into_response(),
    }
}

/// What this coordinator is; the counts of one that leads.
#[derive(Debug, serde::Serialize)]
#[serde(tag = "role", rename_all = "lowercase")]
enum Shown {
    Leader {
        epoch: u64,
        #[serde(flatten)]
        counts: Summary,
    },
    Standby {
        leader: Option<String>,
    },
}

async fn summary(State(state): State<WebState>) -> Response {
    let shown = match state.lead.role() {
        Role::Leader(driver) => Shown::Leader { epoch: driver.epoch().0, counts: *state.summary.borrow() },
        Role::Standby { leader } => Shown::Standby { leader },
    };
    axum::Json(shown).into_response()
}

async fn metrics(State(state): State<WebState>) -> Response {
    let mut text = PrometheusText::default();
    let epoch = match state.lead.role() {
        Role::Leader(driver) => Some(driver.epoch().0),
        Role::Standby { .. } => None,
    };
    text.family("guestkit_leader", "gauge", "1 at the coordinator that leads, 0 at a standby.");
    text.sample("guestkit_leader", "", u64::from(epoch.is_some()));
    if let Some(epoch) = epoch {
        led(&mut text, epoch, *state.summary.borrow());
    }
    for (name, help, value) in [
        ("guestkit_watchers", "Streams that follow jobs or the fleet.", state.hub.watchers() as u64),
        ("guestkit_revision", "Revision of the store.", state.hub.revisions().borrow().0),
    ] {
        text.family(name, "gauge", help);
        text.sample(name, "", value);
    }
    state.metrics.write(&mut text);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.into_string()).into_response()
}

/// What only the coordinator that leads knows.
fn led(text: &mut PrometheusText, epoch: u64, summary: Summary) {
    text.family("guestkit_jobs", "gauge", "Jobs by state; those that are over count since the store began.");
    for (name, count) in summary.states() {
        text.sample("guestkit_jobs", &format!("{{state=\"{name}\"}}"), count);
    }
    for (name, help, value) in [
        ("guestkit_epoch", "Epoch in which this coordinator leads; each election raises it.", epoch),
        ("guestkit_workers", "Workers connected.", summary.workers),
        ("guestkit_slots", "Slots of the workers connected.", summary.slots),
        ("guestkit_slots_in_use", "Slots that hold a lease.", summary.slots_in_use),
    ] {
        text.family(name, "gauge", help);
        text.sample(name, "", value);
    }
}
