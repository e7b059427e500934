//! What the driver does when its store fails: nothing that was not durable leaves, callers are told, and what was durable
//! goes on. The store is the real one behind a switch that answers as SQLite does on a full disk.

// Helpers of tests are tests: a panic is how they fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use guestkit_coordinator::clock::Clock;
use guestkit_coordinator::driver::{self, Ask, Driver, Outlets, Start, Unserved};
use guestkit_coordinator::ground::System;
use guestkit_coordinator::metrics::Metrics;
use guestkit_coordinator::outbox::{Next, outbox};
use guestkit_coordinator::store::{Epoch, SqliteStore, Store, StoreError};
use guestkit_coordinator::summary::Summary;
use guestkit_coordinator::watch::WatchHub;
use guestkit_domain::{JobId, JobState};
use guestkit_protocol::document::{Source, check, parse};
use guestkit_protocol::v1;
use guestkit_scheduler::{Config, JobEntry, Ledger, Record, Reply, ToWorker, Want};
use prost::Message as _;
use tokio::sync::{oneshot, watch};

const PATIENCE: Duration = Duration::from_secs(30);

/// A disk that can be full.
struct Switched {
    store: SqliteStore,
    full: Arc<AtomicBool>,
    /// Commits wait while it is held.
    busy: Arc<Mutex<()>>,
}

impl Switched {
    fn check(&self) -> Result<(), StoreError> {
        if !self.full.load(Ordering::SeqCst) {
            return Ok(());
        }
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        let source = rusqlite::Error::SqliteFailure(code, None);
        Err(StoreError::Sqlite { action: "commit", source })
    }
}

impl Store for Switched {
    fn commit(&mut self, epoch: Epoch, records: &[Record]) -> Result<(), StoreError> {
        self.check()?;
        let _free = self.busy.lock().unwrap();
        self.store.commit(epoch, records)
    }

    fn load(&self) -> Result<Ledger, StoreError> {
        self.store.load()
    }

    fn entry(&self, want: &Want) -> Result<Option<JobEntry>, StoreError> {
        self.store.entry(want)
    }

    fn probe(&mut self, epoch: Epoch) -> Result<(), StoreError> {
        self.check()?;
        self.store.probe(epoch)
    }
}

struct Running {
    driver: Driver,
    ended: oneshot::Receiver<Result<(), StoreError>>,
    full: Arc<AtomicBool>,
    busy: Arc<Mutex<()>>,
    outlets: Outlets,
    clock: Clock,
}

fn start(folder: &Path) -> Running {
    let (store, epoch) = SqliteStore::open(&folder.join("store")).unwrap();
    let (full, busy) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let ledger = store.load().unwrap();
    let clock = Clock::start(ledger.newest);
    let outlets = Outlets {
        hub: WatchHub::new(ledger.revision),
        summary: watch::Sender::new(Summary::default()),
        writable: watch::Sender::new(true),
        fleet: watch::Sender::new(0),
        metrics: Arc::new(Metrics::default()),
    };
    let store = Switched { store, full: Arc::clone(&full), busy: Arc::clone(&busy) };
    let from = Start { store, epoch, ledger, clock, config: Config::default() };
    let (driver, ended) = driver::start(from, outlets.clone(), &System).unwrap();
    Running { driver, ended, full, busy, outlets, clock }
}

impl Running {
    async fn submit(&self, job_id: &str) -> Result<Reply, Unserved> {
        let json = format!(
            r#"{{"version": "1.0", "kind": "VMOperation", "job_id": "{job_id}", "operation": "system.echo",
                 "payload": {{"type": "system.echo.v1"}}}}"#
        );
        let checked = check(parse(json.as_bytes()).unwrap(), Source::Network, self.clock.now()).unwrap();
        let document = checked.document.encode_to_vec().into();
        self.driver.ask(Ask::Submit { spec: Box::new(checked.spec), document }).await
    }

    async fn state(&self, job_id: &str) -> Option<JobState> {
        let job_id = JobId::new(job_id).unwrap();
        let look = move |view: &driver::View<'_>| view.scheduler.job(&job_id).map(|job| job.row.phase.state());
        self.driver.read(look).await.unwrap()
    }
}

fn hello() -> v1::Hello {
    let description = v1::WorkerDescription {
        version: "0.1.0".into(),
        operations: vec!["system.echo".into()],
        slots: 1,
        ..v1::WorkerDescription::default()
    };
    v1::Hello {
        protocol_version: 1,
        worker_id: "w1".into(),
        boot_id: "b1".into(),
        description: Some(description),
        ..v1::Hello::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_ends_sessions_and_is_survived() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path());
    assert!(running.submit("job-before").await.is_ok());
    let profile = guestkit_protocol::convert::worker::profile(&hello()).unwrap();
    let (inbox, mut outgoings) = outbox();
    running.driver.open(profile, Vec::new(), v1::WorkerDescription::default(), inbox).await.unwrap();
    let mut offered = false;
    while !offered {
        let Next::Send(outgoing) = outgoings.next().await else { panic!("the session ended") };
        offered = matches!(outgoing.message, ToWorker::Lease { .. });
    }

    running.full.store(true, Ordering::SeqCst);
    assert_eq!(running.submit("job-unkept").await, Err(Unserved::DiskFull));
    let Next::End(goodbye) = outgoings.next().await else { panic!("something left that was not durable") };
    assert_eq!(goodbye.reason(), v1::GoodbyeReason::ShuttingDown);
    assert!(goodbye.message.contains("disk is full"), "{}", goodbye.message);
    let mut writable = running.outlets.writable.subscribe();
    assert!(!*writable.borrow_and_update());
    // Still full: refused at once, not queued up.
    assert_eq!(running.submit("job-unkept").await, Err(Unserved::DiskFull));

    running.full.store(false, Ordering::SeqCst);
    tokio::time::timeout(PATIENCE, writable.wait_for(|writable| *writable)).await.unwrap().unwrap();
    assert_eq!(running.state("job-unkept").await, None);
    assert_eq!(running.state("job-before").await, Some(JobState::Assigned));
    assert!(running.submit("job-after0").await.is_ok());
    running.driver.stop().await;
    assert!(running.ended.await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_driver_stops_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = start(folder.path());
    let (_newer, _) = SqliteStore::open(&folder.path().join("store")).unwrap();
    assert!(running.submit("job-unkept").await.is_err());
    assert!(matches!((&mut running.ended).await.unwrap(), Err(StoreError::Deposed { .. })));
    assert_eq!(running.submit("job-unkept").await, Err(Unserved::Stopping));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_held_up_by_its_store_is_deposed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = start(folder.path());
    let profile = guestkit_protocol::convert::worker::profile(&hello()).unwrap();
    let (inbox, mut outgoings) = outbox();
    running.driver.open(profile, Vec::new(), v1::WorkerDescription::default(), inbox).await.unwrap();
    assert!(matches!(outgoings.next().await, Next::Send(_)), "no welcome");

    // Held by a thread, because a guard must not be kept while a task waits.
    let busy = Arc::clone(&running.busy);
    let (held, holding) = oneshot::channel();
    let (free, freed) = std::sync::mpsc::channel::<()>();
    let holder = std::thread::spawn(move || {
        let _busy = busy.lock().unwrap();
        held.send(()).unwrap();
        // Until the other end says so.
        let _ = freed.recv();
    });
    holding.await.unwrap();
    let driver = running.driver.clone();
    let asked = running.submit("job-held-up");
    let (answer, ()) = tokio::join!(asked, async { driver.depose() });
    assert_eq!(answer, Err(Unserved::Deposed));
    assert_eq!(running.submit("job-later-on").await, Err(Unserved::Deposed));

    free.send(()).unwrap();
    holder.join().unwrap();
    assert!(matches!((&mut running.ended).await.unwrap(), Err(StoreError::Deposed { .. })));
    // Whatever was made durable: nothing of it was let go.
    assert!(matches!(outgoings.next().await, Next::Abandoned));
}
