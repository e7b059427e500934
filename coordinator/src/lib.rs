//! The coordinator: takes jobs, leases them to workers, keeps what happened. Everything asynchronous is here, and no decision:
//! those are made by `guestkit-scheduler`. Nothing leaves before its record is durable.

pub mod api;
pub mod app;
pub mod artifacts;
pub mod clock;
pub mod config;
pub mod data_folder;
pub mod driver;
pub mod edge;
pub mod ground;
pub mod lead;
pub mod metrics;
pub mod outbox;
pub mod retention;
pub mod store;
pub mod summary;
pub mod watch;
pub mod web;
pub mod words;
