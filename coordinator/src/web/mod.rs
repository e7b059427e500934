//! What the coordinator tells over plain HTTP: whether it lives, whether it serves, its metrics, its counts.
//!
//! Everything answered here is kept as it changes; nothing asks the store or the scheduler, so a scraper costs nothing.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;

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
    /// Whether calls are being served: false while starting and while stopping.
    pub ready: watch::Receiver<bool>,
}

/// The pages.
pub fn router(state: WebState) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/summary", get(summary))
        .with_state(state)
}

async fn readyz(State(state): State<WebState>) -> Response {
    if *state.ready.borrow() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "not serving\n").into_response()
}

async fn summary(State(state): State<WebState>) -> Response {
    axum::Json(*state.summary.borrow()).into_response()
}

async fn metrics(State(state): State<WebState>) -> Response {
    let mut text = PrometheusText::default();
    let summary = *state.summary.borrow();
    text.family("guestkit_jobs", "gauge", "Jobs by state; those that are over count since the store began.");
    for (name, count) in summary.states() {
        text.sample("guestkit_jobs", &format!("{{state=\"{name}\"}}"), count);
    }
    for (name, help, value) in [
        ("guestkit_workers", "Workers connected.", summary.workers),
        ("guestkit_slots", "Slots of the workers connected.", summary.slots),
        ("guestkit_slots_in_use", "Slots that hold a lease.", summary.slots_in_use),
        ("guestkit_watchers", "Streams that follow jobs or the fleet.", state.hub.watchers() as u64),
        ("guestkit_revision", "Revision of the store.", state.hub.revisions().borrow().0),
    ] {
        text.family(name, "gauge", help);
        text.sample(name, "", value);
    }
    state.metrics.write(&mut text);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.into_string()).into_response()
}
