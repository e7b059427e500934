//! What only a store of several coordinators can be asked, and a long workload on both stores, which must stay alike.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Instant;

use guestkit_coordinator::store::{PostgresStore, StoredEvent, StoredJob};
use guestkit_domain::LeaseId;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_postgres::NoTls;

use super::*;

/// A database, and what a test says to it by hand.
pub(super) struct Database {
    url: String,
    postgres: Postgres,
}

impl Database {
    pub(super) fn new() -> Option<Self> {
        let url = Server::shared().unwrap()?.create_database().unwrap().url;
        let postgres = runtime().block_on(Postgres::open(&url)).unwrap();
        Some(Self { url, postgres })
    }

    fn place(&self) -> Place {
        Place::Postgres(self.postgres.clone())
    }

    pub(super) fn leader(&self) -> (PostgresStore, Epoch) {
        let candidate = Candidate { id: "test".into(), address: "http://test".into() };
        let won = runtime().block_on(self.postgres.campaign(&candidate, std::time::Duration::ZERO));
        let epoch = won.unwrap().unwrap();
        (self.postgres.writer(epoch).unwrap(), epoch)
    }

    /// The first column of each row, as text.
    pub(super) fn sql(&self, sql: &str) -> Vec<String> {
        runtime().block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute("SET search_path = guestkit").await.unwrap();
            let messages = client.simple_query(sql).await.unwrap();
            let rows = messages.iter().filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
                _ => None,
            });
            rows.collect()
        })
    }
}

/// Records that a scheduler of its own makes of new jobs: for commits made by hand.
fn submissions(scheduler: &mut Scheduler, numbers: std::ops::Range<u32>) -> Vec<Record> {
    let mut effects = Effects::default();
    for number in numbers {
        let request = RequestId(number.into());
        let submit = Input::Submit { request, spec: Box::new(spec(number)), document: document(number) };
        scheduler.handle(Time(1_000 + u64::from(number)), submit, &mut effects);
    }
    effects.records().to_vec()
}

#[test]
fn a_later_version_is_left_alone() {
    let Some(database) = Database::new() else { return };
    database.sql("UPDATE version SET version = 99");
    let refused = runtime().block_on(Postgres::open(&database.url));
    assert!(matches!(refused, Err(StoreError::TooNew { found: 99, .. })), "{refused:?}");
}

#[test]
fn a_commit_that_lost_its_connection_is_there_whole_or_not_at_all() {
    let Some(database) = Database::new() else { return };
    let (mut store, epoch) = database.leader();
    let mut scheduler = Scheduler::new(Config::default());
    let (hunted, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let (mut kept, mut lost) = (0, 0);
    std::thread::scope(|scope| {
        // Whoever writes is ended in the middle of every other commit.
        scope.spawn(|| {
            let hunter = runtime().block_on(client_of(&database));
            while !done.load(SeqCst) {
                if hunted.load(SeqCst) {
                    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                        WHERE datname = current_database() AND application_name = 'guestkit-coordinator'";
                    runtime().block_on(hunter.execute(sql, &[])).unwrap();
                }
            }
        });
        let started = Instant::now();
        while (kept < 20 || lost < 20) && started.elapsed() < std::time::Duration::from_secs(120) {
            let before = scheduler.ledger().revision;
            let first = u32::try_from(scheduler.ledger().jobs().count()).unwrap();
            let records = submissions(&mut scheduler, first..first + 200);
            hunted.store((kept + lost) % 2 == 1, SeqCst);
            let committed = store.commit(epoch, &records);
            hunted.store(false, SeqCst);
            let Err(error) = committed else {
                kept += 1;
                continue;
            };
            assert!(matches!(error, StoreError::Postgres { .. }), "{error:?}");
            lost += 1;
            // As the driver does: until the store takes writes, and then what is durable.
            let ledger = loop {
                match store.probe(epoch).and_then(|()| store.load()) {
                    Ok(ledger) => break ledger,
                    Err(error) => assert!(matches!(error, StoreError::Postgres { .. }), "{error:?}"),
                }
            };
            let all = records.last().unwrap().revision;
            assert!([before, all].contains(&ledger.revision), "{:?} of {before:?}..{all:?}", ledger.revision);
            scheduler = Scheduler::restore(Config::default(), ledger, Time(1_000));
        }
        done.store(true, SeqCst);
    });
    assert!(kept >= 20 && lost >= 20, "{kept} commits were kept and {lost} connections lost");
    let jobs = database.sql("SELECT count(*) || ' ' || count(DISTINCT job_id) FROM jobs");
    let history = database.sql("SELECT count(*) || ' ' || count(DISTINCT revision) FROM history");
    let expected = scheduler.ledger().jobs().count();
    assert_eq!(jobs, [format!("{expected} {expected}")]);
    assert_eq!(history, [format!("{0} {0}", scheduler.ledger().revision.0)]);
}

#[test]
fn a_commit_on_its_way_cannot_come_after_the_next_connection() {
    let Some(database) = Database::new() else { return };
    let (mut first, epoch) = database.leader();
    let before = first.load().unwrap();
    // The same leader, connected anew, as after a commit whose answer never came.
    let mut second = database.postgres.writer(epoch).unwrap();
    let records = submissions(&mut Scheduler::new(Config::default()), 0..3);
    let late = first.commit(epoch, &records);
    assert!(matches!(late, Err(StoreError::Deposed { .. })), "{late:?}");
    assert_eq!(second.load().unwrap(), before);
    second.commit(epoch, &records).unwrap();
}

#[test]
fn the_next_connection_waits_for_a_commit_on_its_way() {
    let Some(database) = Database::new() else { return };
    let (store, epoch) = database.leader();
    drop(store);
    runtime().block_on(async {
        let (mut client, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
        tokio::spawn(connection);
        // What a commit does first, held up before its end.
        let transaction = client.transaction().await.unwrap();
        transaction.execute("UPDATE guestkit.standing SET revision = 7", &[]).await.unwrap();
        let postgres = database.postgres.clone();
        let next = tokio::task::spawn_blocking(move || postgres.writer(epoch).unwrap().load().unwrap().revision);
        // It waits for the lock, which the server tells.
        loop {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            if client_of(&database).await.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0 {
                break;
            }
        }
        assert!(!next.is_finished());
        transaction.commit().await.unwrap();
        assert_eq!(next.await.unwrap(), Revision(7));
    });
}

async fn client_of(database: &Database) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[test]
fn who_resigned_or_was_deposed_writes_nothing() {
    let Some(database) = Database::new() else { return };
    let records = submissions(&mut Scheduler::new(Config::default()), 0..3);
    let (mut first, old) = database.leader();
    let (mut second, epoch) = database.leader();
    assert!(matches!(first.commit(old, &records), Err(StoreError::Deposed { ours }) if ours == old.0));
    assert!(matches!(database.postgres.writer(old), Err(StoreError::Deposed { .. })));
    runtime().block_on(database.postgres.resign(epoch)).unwrap();
    assert!(matches!(second.commit(epoch, &records), Err(StoreError::Deposed { .. })));
    for table in ["jobs", "documents", "labels", "history"] {
        assert_eq!(database.sql(&format!("SELECT count(*) FROM {table}")), ["0"], "{table}");
    }
}

#[test]
fn commits_are_told_to_standbys() {
    let Some(database) = Database::new() else { return };
    let mut follower = database.postgres.follow();
    let (mut store, epoch) = database.leader();
    let mut scheduler = Scheduler::new(Config::default());
    for number in 0..5 {
        let records = submissions(&mut scheduler, number..number + 1);
        store.commit(epoch, &records).unwrap();
        let durable = records.last().unwrap().revision;
        runtime().block_on(follower.revision.wait_for(|revision| *revision >= durable)).unwrap();
    }
    // A follower whose connection is lost finds what it has missed.
    database.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' OR query LIKE 'SELECT revision%'",
    );
    let records = submissions(&mut scheduler, 5..6);
    while store.commit(epoch, &records).is_err() {
        store.probe(epoch).unwrap();
    }
    let durable = records.last().unwrap().revision;
    runtime().block_on(follower.revision.wait_for(|revision| *revision >= durable)).unwrap();
}

#[test]
fn a_log_goes_over_partitions_and_old_ones_are_dropped() {
    let Some(database) = Database::new() else { return };
    let (store, _) = database.leader();
    drop(store);
    let partitions = || {
        database
            .sql("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'history'::regclass ORDER BY 1")
    };
    assert_eq!(partitions(), ["history_0"]);
    // A store that has been at work for long: the next partition begins within this workload.
    database.sql("UPDATE standing SET revision = 999980");
    let (store, epoch) = database.leader();
    assert_eq!(partitions(), ["history_0", "history_1000000"]);
    let scheduler = Scheduler::restore(Config::default(), store.load().unwrap(), Time(1000));
    drop(store);
    let place = database.place();
    let mut pair = filled(Pair { scheduler, ..Pair::new(&place) });
    assert!(pair.epoch > epoch);
    let reader = place.reader();
    assert!(database.sql("SELECT count(*) FROM history_1000000") > vec!["10".to_owned()]);
    let mut all = Ledger::default();
    pair.records.iter().for_each(|record| all.apply(record));
    for entry in all.jobs() {
        let job = reader.job(&entry.spec.job_id).unwrap().unwrap();
        let sequences = log_of(&*reader, &job).iter().map(|event| event.sequence).collect::<Vec<_>>();
        assert_eq!(sequences, (1..=entry.row.sequence).collect::<Vec<_>>());
    }

    // Nothing is dropped that belongs to a job which is there.
    let (mut store, _) = database.leader();
    let ages = Time(u64::MAX / 2);
    assert_eq!(store.drop_history(ages).unwrap(), 0);
    drop(store);
    (pair.store, pair.epoch) = place.open();
    for (number, entry) in (10_000..).zip(all.jobs()) {
        let job_id = entry.spec.job_id.clone();
        let (cancel, delete) = (RequestId(number), RequestId(number + 1_000));
        pair.handle(Input::Cancel { request: cancel, job_id: job_id.clone(), reason: "".into() });
        pair.handle(Input::Delete { request: delete, job_id });
    }
    let left = database.sql("SELECT count(*) FROM jobs WHERE job_no < 1000000");
    let (mut store, _) = database.leader();
    if left == ["0"] {
        assert_eq!(store.drop_history(Time(1)).unwrap(), 0, "what is young stays");
        assert_eq!(store.drop_history(ages).unwrap(), 1);
        assert_eq!(partitions(), ["history_1000000"]);
        let ask = |after| {
            let span = Span { after: Revision(after), until: Revision(1_000_000), submitted_from: None };
            reader.changes(&JobFilter::default(), span, 100).unwrap()
        };
        assert_eq!(ask(999_998), Changes::Compacted { oldest: Revision(999_999) });
        assert!(matches!(ask(999_999), Changes::Page { .. }));
    } else {
        // Those a worker still holds.
        assert_eq!(store.drop_history(ages).unwrap(), 0);
    }
    assert_eq!(store.drop_history(ages).unwrap(), 0);
    assert_eq!(store.load().unwrap().revision, pair.scheduler.ledger().revision);
}

#[test]
fn updates_touch_no_index() {
    let Some(database) = Database::new() else { return };
    let pair = varied(&database.place());
    drop(pair);
    // Statistics of a session are told when it ends.
    let told = "SELECT n_tup_upd - n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'jobs' AND n_tup_upd > 0";
    let cold: i64 = loop {
        if let Some(cold) = database.sql(told).first() {
            break cold.parse().unwrap();
        }
    };
    let ended = database.sql("SELECT count(*) FROM jobs WHERE ended_at IS NOT NULL");
    assert!(cold <= ended[0].parse().unwrap(), "{cold} updates wrote to indexes, though only {ended:?} jobs ended");
}

/// What happens to a fleet, by chance, with every record committed to both stores in commits of any size.
struct Twins {
    chance: StdRng,
    scheduler: Scheduler,
    stores: [(Box<dyn Store>, Epoch); 2],
    oracle: Ledger,
    now: u64,
    jobs: u32,
    sessions: u64,
    leases: BTreeMap<LeaseId, (SessionId, JobId)>,
}

impl Twins {
    fn step(&mut self, effects: &mut Effects) {
        self.now += self.chance.random_range(0..400);
        let input = self.input();
        for want in self.scheduler.wants(&input) {
            let [one, other] = self.stores.each_ref().map(|(store, _)| store.entry(&want).unwrap());
            assert_eq!(one, other);
            if let Some(entry) = one {
                self.scheduler.handle(Time(self.now), Input::Recall { entry: Box::new(entry) }, effects);
            }
        }
        self.scheduler.handle(Time(self.now), input, effects);
    }

    fn input(&mut self) -> Input {
        let request = RequestId(0);
        let any = job_id(self.chance.random_range(0..self.jobs.max(1)));
        let held = (!self.leases.is_empty()).then(|| self.chance.random_range(0..self.leases.len()));
        let held = held
            .and_then(|at| self.leases.iter().nth(at))
            .map(|(lease, (session, job))| (*lease, *session, job.clone()));
        let failure = Failure { code: ErrorCode::HandlerCrashed, message: "it crashed\0 ü".into() };
        match (self.chance.random_range(0..100), held) {
            (0..35, _) => {
                // Some names are taken again, or for the first time after they were deleted.
                let number =
                    if self.chance.random_bool(0.1) { self.chance.random_range(0..=self.jobs) } else { self.jobs };
                self.jobs = self.jobs.max(number + 1);
                Input::Submit { request, spec: Box::new(spec(number)), document: document(number) }
            }
            (35..40, _) => {
                self.sessions += 1;
                let profile = profile(&format!("b{}", self.sessions / 3));
                Input::Connect { session: SessionId(self.sessions), profile: Box::new(profile), held: Vec::new() }
            }
            (40..50, Some((lease, session, _))) => Input::Accept { session, lease },
            (50..60, Some((lease, session, _))) => {
                let progress = Progress { percent: 12.5, body: b"\x22\x04echo".as_slice().into() };
                Input::Progress { session, lease, progress }
            }
            (60..75, Some((lease, session, job_id))) => {
                let completed = self.chance.random_bool(0.7);
                let status = if completed { OutcomeStatus::Completed } else { OutcomeStatus::Failed };
                let failure = (!completed).then_some(failure);
                let result = Arc::from(format!("result of {lease:?}").into_bytes());
                Input::Outcome { session, lease, job_id, status, failure, result }
            }
            (75..78, Some((lease, session, _))) => {
                let fault = if self.chance.random_bool(0.5) { RefusalFault::Worker } else { RefusalFault::Job };
                Input::Refuse { session, lease, fault, failure }
            }
            (78..84, _) => Input::Cancel { request, job_id: any, reason: "enough\0!".into() },
            (84..88, _) => Input::Retry { request, job_id: any },
            (88..94, _) => Input::Delete { request, job_id: any },
            (94..96, _) => {
                let target = DrainTarget::Worker(WorkerId::new("w1").unwrap());
                Input::Drain { request, target, deadline: Some(Duration::from_secs(1)) }
            }
            (96..98, _) => Input::Resume { request, target: DrainTarget::Worker(WorkerId::new("w1").unwrap()) },
            _ => Input::Wake,
        }
    }

    fn commit(&mut self, effects: Effects) {
        for (store, epoch) in &mut self.stores {
            store.commit(*epoch, effects.records()).unwrap();
        }
        effects.records().iter().for_each(|record| self.oracle.apply(record));
        for (session, message) in effects.release(Revision(u64::MAX)).unwrap().sends {
            if let ToWorker::Lease { lease, job_id, .. } = message {
                self.leases.insert(lease, (session, job_id));
            }
        }
        while self.leases.len() > 30 {
            self.leases.pop_first();
        }
    }
}

#[test]
fn both_stores_stay_alike_whatever_happens() {
    let Some(database) = Database::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let places = [Place::Sqlite(folder.path().into()), database.place()];
    let readers = places.each_ref().map(Place::reader);
    let mut twins = Twins {
        chance: StdRng::seed_from_u64(7),
        scheduler: Scheduler::new(Config::default()),
        stores: places.each_ref().map(Place::open),
        oracle: Ledger::default(),
        now: 1000,
        jobs: 0,
        sessions: 0,
        leases: BTreeMap::new(),
    };
    for round in 0..300 {
        let mut effects = Effects::default();
        for _ in 0..twins.chance.random_range(1..30) {
            twins.step(&mut effects);
        }
        twins.commit(effects);
        if round % 20 != 19 {
            continue;
        }
        let [one, other] = twins.stores.each_ref().map(|(store, _)| store.load().unwrap());
        assert_eq!(one, unfinished(&twins.oracle));
        assert_eq!(other, one);
        if round % 100 == 99 {
            let [one, other] = readers.each_ref().map(|reader| everything(&**reader, &twins.oracle));
            assert_eq!(other, one);
        }
        if round == 199 {
            // A coordinator that starts over goes on the same way.
            twins.scheduler = Scheduler::restore(Config::default(), twins.stores[1].0.load().unwrap(), Time(twins.now));
            twins.leases.clear();
            twins.stores = places.each_ref().map(Place::open);
        }
    }
    let states = database.sql("SELECT DISTINCT state FROM history ORDER BY 1");
    assert!(states.len() >= 7, "too few states are tried: {states:?}");
    let deleted = database.sql("SELECT count(*) FROM deletions");
    assert_ne!(deleted, ["0"]);
}

/// The whole log of a job.
fn log_of(reader: &dyn ReadStore, job: &StoredJob) -> Vec<StoredEvent> {
    reader.history(job.job_no, 0, 10_000).unwrap().unwrap()
}

/// All that can be read, but for the NUL that PostgreSQL has not in texts.
fn everything(reader: &dyn ReadStore, oracle: &Ledger) -> impl PartialEq + std::fmt::Debug + use<> {
    let clean = |mut event: StoredEvent| {
        event.reason = event.reason.replace('\0', "\u{fffd}");
        event
    };
    let mut jobs = Vec::new();
    let mut after = None;
    loop {
        let page = reader.list(&JobFilter::default(), after, 7).unwrap();
        assert_eq!(page.revision, oracle.revision);
        for job in page.jobs {
            let log: Vec<_> = log_of(reader, &job).into_iter().map(clean).collect();
            let documents = (reader.document(&job.job_id).unwrap(), reader.result(&job.job_id).unwrap());
            assert_eq!(reader.job(&job.job_id).unwrap().as_ref(), Some(&job));
            assert_eq!(log.last().map(|event| event.sequence), Some(job.row.sequence));
            jobs.push((job, log, documents));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut filters = vec![JobFilter::default()];
    filters.extend(
        [JobState::Queued, JobState::Running, JobState::Failed]
            .map(|state| JobFilter { states: vec![state], ..JobFilter::default() }),
    );
    filters.push(JobFilter {
        labels: [("parity".into(), "1".into())].into(),
        worker_id: Some("w1".into()),
        ..JobFilter::default()
    });
    filters.push(JobFilter { worker_id: Some("w\0".into()), ..JobFilter::default() });
    let mut changes = Vec::new();
    for filter in filters {
        let mut after = Revision(0);
        while after < oracle.revision {
            let submitted_from = after.0.is_multiple_of(2).then_some(JobNo(40));
            let span = Span { after, until: oracle.revision, submitted_from };
            let Changes::Page { changes: page, reached } = reader.changes(&filter, span, 13).unwrap() else {
                panic!("compacted")
            };
            let clean = |change| match change {
                StoredChange::Event(event) => StoredChange::Event(clean(event)),
                deletion => deletion,
            };
            changes.push((page.into_iter().map(clean).collect::<Vec<_>>(), reached));
            after = reached;
        }
    }
    (jobs, changes, reader.expired(Time(u64::MAX / 2), 10_000).unwrap())
}
