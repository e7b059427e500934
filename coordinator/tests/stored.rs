//! What a store promises, held to the scheduler's own definition of it: `load` equals the fold of every record committed.
//!
//! The records come from the real scheduler; the oracle is `Ledger::apply`.

// Helpers of tests are tests: a panic is how they fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use guestkit_coordinator::store::{
    Candidate, Changes, Epoch, JobFilter, JobNo, Postgres, ReadStore, Span, SqliteReader, SqliteStore, Store,
    StoreError, StoredChange, state_number,
};
use guestkit_domain::{
    Backoff, BootId, Duration, ErrorCode, Failure, IdempotencyPolicy, JobId, JobSpec, JobState, Namespace,
    OutcomeStatus, Placement, Priority, Progress, RefusalFault, Revision, SessionId, Time, WorkerId, WorkerProfile,
};
use guestkit_processes::postgres::Server;
use guestkit_protocol::v1;
use guestkit_scheduler::{
    Change, Config, DrainTarget, Effects, Event, Input, Ledger, Record, RequestId, Scheduler, ToWorker, Want,
};
use prost::Message as _;
use tokio::runtime::Runtime;

#[path = "stored/postgres.rs"]
mod postgres;

/// Where a store lies.
enum Place {
    Sqlite(PathBuf),
    Postgres(Postgres),
}

impl Place {
    /// `None` where there is no PostgreSQL, which it has said.
    fn postgres() -> Option<Self> {
        let database = Server::shared().unwrap()?.create_database().unwrap();
        Some(Self::Postgres(runtime().block_on(Postgres::open(&database.url)).unwrap()))
    }

    /// The writing side; who had it before is deposed.
    fn open(&self) -> (Box<dyn Store>, Epoch) {
        match self {
            Self::Sqlite(folder) => {
                let (store, epoch) = SqliteStore::open(&folder.join("store")).unwrap();
                (Box::new(store), epoch)
            }
            Self::Postgres(database) => {
                let candidate = Candidate { id: "test".into(), address: "http://test".into() };
                let won = runtime().block_on(database.campaign(&candidate, std::time::Duration::ZERO));
                let epoch = won.unwrap().unwrap();
                (Box::new(database.writer(epoch).unwrap()), epoch)
            }
        }
    }

    fn reader(&self) -> Box<dyn ReadStore> {
        match self {
            Self::Sqlite(folder) => Box::new(SqliteReader::of(&folder.join("store"))),
            Self::Postgres(database) => Box::new(database.reader()),
        }
    }
}

fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    &RUNTIME
}

/// Every test below is one of each store.
macro_rules! on_both {
    ($($name:ident,)*) => {
        mod sqlite {
            $(#[test]
            fn $name() {
                let folder = tempfile::tempdir().unwrap();
                super::$name(&super::Place::Sqlite(folder.path().into()));
            })*
        }
        mod postgresql {
            $(#[test]
            fn $name() {
                if let Some(place) = super::Place::postgres() {
                    super::$name(&place);
                }
            })*
        }
    };
}

on_both! {
    what_is_loaded_is_the_fold_of_what_was_committed,
    a_restored_scheduler_goes_on_as_the_one_before,
    jobs_are_found_over_or_not,
    a_log_has_no_gap_and_no_repeat,
    lists_are_filtered_and_paged,
    leaving_what_is_followed_is_told,
    what_is_deleted_is_gone_with_all_that_belonged_to_it,
    a_job_that_ends_and_goes_in_one_commit_is_told_as_ended,
    jobs_are_over_for_long_from_their_latest_end_on,
    a_deposed_process_cannot_write,
    a_commit_is_all_or_nothing,
}

fn job_id(number: u32) -> JobId {
    JobId::new(&format!("job-{number:05}")).unwrap()
}

fn spec(number: u32) -> JobSpec {
    let set = |texts: &[&str]| texts.iter().map(|text| Arc::from(*text)).collect::<BTreeSet<Arc<str>>>();
    JobSpec {
        job_id: job_id(number),
        namespace: Namespace::new("tests").unwrap(),
        idempotency_key: Some(format!("key-{number}").into()),
        idempotency_policy: IdempotencyPolicy::ReplaceQueued,
        idempotency_ttl: Some(Duration::from_secs(60)),
        fingerprint: [u8::try_from(number % 256).unwrap(); 32],
        placement: Arc::new(Placement {
            operation: "system.echo".into(),
            capabilities: set(&["system.echo"]),
            features: BTreeSet::new(),
            minimum_version: Some("0.1.0".parse().unwrap()),
            privileged: false,
            pools: set(&["default", "other"]),
            worker: None,
            anti_affinity: [("rack".into(), set(&["7"]))].into(),
            image_folder: None,
        }),
        affinity: [("data_locality".into(), "/srv".into())].into(),
        priority: Priority::new(7).unwrap(),
        max_attempts: 2,
        timeout: Duration::from_millis(1500),
        queue_timeout: Some(Duration::from_secs(86_400)),
        deadline: Some(Time(90_000_000)),
        not_before: (number % 5 == 4).then_some(Time(50_000)),
        backoff: Backoff { multiplier: 1.5, ..Backoff::default() },
        cancellable: true,
        concurrency_key: None,
        created_at: Time(u64::from(number)),
    }
}

fn document(number: u32) -> Arc<[u8]> {
    let metadata = v1::JobMetadata {
        labels: [("parity".to_owned(), (number % 2).to_string())].into(),
        ..v1::JobMetadata::default()
    };
    v1::JobDocument { job_id: job_id(number).to_string(), metadata: Some(metadata), ..v1::JobDocument::default() }
        .encode_to_vec()
        .into()
}

fn profile(boot: &str) -> WorkerProfile {
    WorkerProfile {
        stream: 0,
        worker_id: WorkerId::new("w1").unwrap(),
        boot_id: BootId::new(boot).unwrap(),
        capabilities: [Arc::from("system.echo")].into(),
        features: BTreeSet::new(),
        version: "0.2.0".parse().unwrap(),
        pool: "default".into(),
        labels: std::collections::BTreeMap::new(),
        slots: 16,
        privileged: false,
        image_roots: Vec::new(),
    }
}

/// A scheduler whose every record is committed to a store, one commit per input.
struct Pair {
    scheduler: Scheduler,
    store: Box<dyn Store>,
    epoch: Epoch,
    now: u64,
    records: Vec<Record>,
}

impl Pair {
    fn new(place: &Place) -> Self {
        let (store, epoch) = place.open();
        Self { scheduler: Scheduler::new(Config::default()), store, epoch, now: 1000, records: Vec::new() }
    }

    fn handle(&mut self, input: Input) -> Vec<ToWorker> {
        self.now += 10;
        let mut effects = Effects::default();
        self.scheduler.handle(Time(self.now), input, &mut effects);
        self.store.commit(self.epoch, effects.records()).unwrap();
        self.records.extend_from_slice(effects.records());
        let released = effects.release(Revision(u64::MAX)).unwrap();
        released.sends.into_iter().map(|(_, message)| message).collect()
    }

    /// What a store has to give back.
    fn expected(&self) -> Ledger {
        let mut all = Ledger::default();
        self.records.iter().for_each(|record| all.apply(record));
        unfinished(&all)
    }
}

/// Everything that is not over.
fn unfinished(all: &Ledger) -> Ledger {
    let mut unfinished = Ledger::default();
    unfinished.revision = all.revision;
    unfinished.newest = all.newest;
    unfinished.last_lease = all.last_lease;
    unfinished.totals = all.totals;
    unfinished.drains = all.drains.clone();
    unfinished.partial = true;
    for entry in all.jobs().filter(|entry| !entry.row.phase.state().is_terminal()) {
        unfinished.insert(entry.clone());
    }
    unfinished
}

/// Jobs in every state a job can be in.
fn varied(place: &Place) -> Pair {
    filled(Pair::new(place))
}

fn filled(mut pair: Pair) -> Pair {
    let session = SessionId(1);
    for number in 0..20 {
        let request = RequestId(number.into());
        pair.handle(Input::Submit { request, spec: Box::new(spec(number)), document: document(number) });
    }
    let sends = pair.handle(Input::Connect { session, profile: Box::new(profile("b1")), held: Vec::new() });
    let leases: Vec<_> = sends
        .into_iter()
        .filter_map(|message| match message {
            ToWorker::Lease { lease, job_id, .. } => Some((lease, job_id)),
            _ => None,
        })
        .collect();
    assert!(leases.len() >= 8, "{leases:?}");
    let failure = Failure { code: ErrorCode::HandlerCrashed, message: "it crashed".into() };
    for (at, (lease, job_id)) in leases.into_iter().enumerate().skip(1) {
        if at % 7 == 1 {
            let failure = failure.clone();
            pair.handle(Input::Refuse { session, lease, fault: RefusalFault::Worker, failure });
            continue;
        }
        pair.handle(Input::Accept { session, lease });
        let progress = Progress { percent: 40.5, body: b"\x22\x04echo".as_slice().into() };
        pair.handle(Input::Progress { session, lease, progress });
        let result = Arc::from(format!("result of {job_id}").into_bytes());
        let outcome = |status, failure| Input::Outcome {
            session,
            lease,
            job_id: job_id.clone(),
            status,
            failure,
            result: Arc::clone(&result),
        };
        match at % 7 {
            2 => drop(pair.handle(outcome(OutcomeStatus::Completed, None))),
            3 => drop(pair.handle(outcome(OutcomeStatus::Failed, Some(failure.clone())))),
            4 => {
                let request = RequestId(1000 + at as u64);
                pair.handle(Input::Cancel { request, job_id: job_id.clone(), reason: "enough".into() });
            }
            _ => {}
        }
    }
    let target = DrainTarget::Labels([("rack".into(), "7".into())].into());
    pair.handle(Input::Drain { request: RequestId(2000), target, deadline: Some(Duration::from_secs(60)) });
    let target = DrainTarget::Worker(WorkerId::new("w9").unwrap());
    pair.handle(Input::Drain { request: RequestId(2001), target: target.clone(), deadline: None });
    pair.handle(Input::Resume { request: RequestId(2002), target });
    pair.handle(Input::Cancel { request: RequestId(3000), job_id: job_id(4), reason: "".into() });
    pair
}

fn what_is_loaded_is_the_fold_of_what_was_committed(place: &Place) {
    let pair = varied(place);
    let states: BTreeSet<JobState> = pair.expected().jobs().map(|entry| entry.row.phase.state()).collect();
    assert!(states.len() >= 4, "too few states are tried: {states:?}");
    assert_eq!(pair.store.load().unwrap(), pair.expected());
}

#[test]
fn a_crash_loses_nothing_that_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let pair = varied(&Place::Sqlite(folder.path().into()));
    // The files as a killed process leaves them: never closed, the write-ahead log not checkpointed.
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let (store, epoch) = SqliteStore::open(&copy.path().join("store")).unwrap();
    assert_eq!(store.load().unwrap(), pair.expected());
    assert!(epoch > pair.epoch);
}

fn a_restored_scheduler_goes_on_as_the_one_before(place: &Place) {
    let mut pair = varied(place);
    let ledger = pair.store.load().unwrap();
    pair.scheduler = Scheduler::restore(Config::default(), ledger, Time(pair.now));
    assert_eq!(pair.scheduler.check(), Vec::<String>::new());
    pair.handle(Input::Connect { session: SessionId(9), profile: Box::new(profile("b2")), held: Vec::new() });
    assert_eq!(pair.store.load().unwrap(), pair.expected());
}

fn jobs_are_found_over_or_not(place: &Place) {
    let pair = varied(place);
    let mut all = Ledger::default();
    pair.records.iter().for_each(|record| all.apply(record));
    for entry in all.jobs() {
        let by_name = pair.store.entry(&Want::Job(entry.spec.job_id.clone())).unwrap();
        assert_eq!(by_name.as_ref(), Some(entry));
        let key = entry.spec.idempotency_key.clone().unwrap();
        assert_eq!(pair.store.entry(&Want::Key(entry.spec.namespace.clone(), key)).unwrap(), by_name);
    }
    assert_eq!(pair.store.entry(&Want::Job(job_id(99_999))).unwrap(), None);
}

/// What a filter is told between two revisions, read in small pages.
fn changes(reader: &dyn ReadStore, filter: &JobFilter, after: u64, until: Revision) -> Vec<StoredChange> {
    let mut told: Vec<StoredChange> = Vec::new();
    let mut at = Revision(after);
    while at < until {
        let span = Span { after: at, until, submitted_from: None };
        let Changes::Page { changes, reached } = reader.changes(filter, span, 3).unwrap() else { panic!("compacted") };
        assert!(changes.iter().all(|change| change.revision() > at && change.revision() <= reached));
        told.extend(changes);
        at = reached;
    }
    assert!(told.is_sorted_by_key(StoredChange::revision));
    told
}

fn a_log_has_no_gap_and_no_repeat(place: &Place) {
    let pair = varied(place);
    let reader = place.reader();
    let mut all = Ledger::default();
    pair.records.iter().for_each(|record| all.apply(record));
    for entry in all.jobs() {
        let id = &entry.spec.job_id;
        let job_no = JobNo(i64::try_from(entry.arrival.0).unwrap());
        assert_eq!(reader.job(id).unwrap().unwrap().job_no, job_no);
        let log = reader.history(job_no, 0, 1000).unwrap().unwrap();
        let sequences: Vec<u64> = log.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (1..=entry.row.sequence).collect::<Vec<_>>());
        assert_eq!(log.last().unwrap().state, entry.row.phase.state());
        assert_eq!(reader.history(job_no, 1, 1).unwrap().unwrap(), log[1..2.min(log.len())]);
        assert_eq!(reader.job(id).unwrap().unwrap().row, entry.row);
        assert_eq!(
            reader.document(id).unwrap().unwrap()[..],
            document(u32::try_from(entry.spec.created_at.0).unwrap())[..]
        );
    }
    assert_eq!(reader.history(JobNo(99_999), 0, 10).unwrap(), None);
    let revisions = |filter: &JobFilter, after| {
        let changes = changes(&*reader, filter, after, all.revision);
        changes.iter().map(|change| change.revision().0).collect::<Vec<_>>()
    };
    let every = revisions(&JobFilter::default(), 0);
    assert!(every.is_sorted() && every.len() > 40);
    assert_eq!(revisions(&JobFilter::default(), every[10]), every[11..]);
    let running = JobFilter { states: vec![JobState::Running], ..JobFilter::default() };
    assert!(revisions(&running, 0).len() < every.len());
}

/// Whoever follows a state, and a worker, learns what comes into it and what leaves it: the oracle is every entry, in order.
fn leaving_what_is_followed_is_told(place: &Place) {
    let pair = varied(place);
    let reader = place.reader();
    let until = pair.scheduler.ledger().revision;
    for filter in [
        JobFilter { states: vec![JobState::Running], ..JobFilter::default() },
        JobFilter { states: vec![JobState::Queued, JobState::Pending], ..JobFilter::default() },
        JobFilter { worker_id: Some("w1".into()), ..JobFilter::default() },
        JobFilter { states: vec![JobState::Completed], worker_id: Some("w1".into()), ..JobFilter::default() },
        JobFilter { states: vec![JobState::Running], worker_id: Some("w2".into()), ..JobFilter::default() },
    ] {
        let matches = |state: JobState, worker: Option<&str>| {
            (filter.states.is_empty() || filter.states.contains(&state))
                && (filter.worker_id.is_none() || filter.worker_id.as_deref() == worker)
        };
        let mut before = std::collections::BTreeMap::new();
        let mut expected = Vec::new();
        for record in &pair.records {
            let guestkit_scheduler::Change::Job { job_id, row, .. } = &record.change else { continue };
            let now = matches(row.phase.state(), row.worker().map(WorkerId::as_str));
            if before.insert(job_id.clone(), now) == Some(true) || now {
                expected.push(record.revision);
            }
        }
        let told = changes(&*reader, &filter, 0, until);
        assert_eq!(told.iter().map(StoredChange::revision).collect::<Vec<_>>(), expected, "{filter:?}");
    }
}

/// A whole list, in pages of three.
fn numbers_by_threes(reader: &dyn ReadStore, filter: &JobFilter) -> Vec<JobNo> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = reader.list(filter, after, 3).unwrap();
        assert!(page.jobs.len() <= 3);
        found.extend(page.jobs.iter().map(|job| job.job_no));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

fn lists_are_filtered_and_paged(place: &Place) {
    let _pair = varied(place);
    let reader = place.reader();
    let labels = |parity: &str| [("parity".to_owned(), parity.to_owned())].into();
    for (filter, expected) in [
        (JobFilter::default(), 20),
        (JobFilter { namespace: Some("tests".into()), ..JobFilter::default() }, 20),
        (JobFilter { namespace: Some("none".into()), ..JobFilter::default() }, 0),
        (JobFilter { operations: vec!["system.echo".into(), "x.y".into()], ..JobFilter::default() }, 20),
        (JobFilter { operations: vec!["x.y".into()], ..JobFilter::default() }, 0),
        (JobFilter { labels: labels("1"), ..JobFilter::default() }, 10),
        (JobFilter { labels: labels("2"), ..JobFilter::default() }, 0),
        (JobFilter { created_after: Some(Time(5)), created_before: Some(Time(8)), ..JobFilter::default() }, 3),
    ] {
        let found = numbers_by_threes(&*reader, &filter);
        assert_eq!(found.len(), expected, "{filter:?}");
        assert!(found.is_sorted_by(|a, b| a > b), "not newest first: {found:?}");
    }
    let all = reader.list(&JobFilter::default(), None, 1000).unwrap().jobs;
    for states in [
        vec![],
        vec![JobState::Queued],
        vec![JobState::Failed, JobState::Queued, JobState::Completed, JobState::Queued],
    ] {
        for (namespace, parity) in [(None, None), (Some("tests"), None), (None, Some(1)), (Some("tests"), Some(0))] {
            let filter = JobFilter {
                states: states.clone(),
                namespace: namespace.map(str::to_owned),
                labels: parity.map_or_else(Default::default, |parity: u64| labels(&parity.to_string())),
                ..JobFilter::default()
            };
            let matching = all.iter().filter(|job| {
                (states.is_empty() || states.contains(&job.row.phase.state()))
                    && parity.is_none_or(|parity| job.created_at.0 % 2 == parity)
            });
            let expected: Vec<_> = matching.map(|job| job.job_no).collect();
            assert_eq!(numbers_by_threes(&*reader, &filter), expected, "{filter:?}");
        }
    }
    let completed = JobFilter { states: vec![JobState::Completed], ..JobFilter::default() };
    let page = reader.list(&completed, None, 1000).unwrap();
    assert!(!page.jobs.is_empty());
    for job in page.jobs {
        assert_eq!(state_number(job.row.phase.state()), 6);
        let progress = job.progress.unwrap();
        assert_eq!(progress.percent, Some(40.5));
        assert_eq!(reader.result(&job.job_id).unwrap().unwrap(), format!("result of {}", job.job_id).into_bytes());
    }
}

fn what_is_deleted_is_gone_with_all_that_belonged_to_it(place: &Place) {
    let mut pair = varied(place);
    let reader = place.reader();
    let completed = JobFilter { states: vec![JobState::Completed], ..JobFilter::default() };
    let job = reader.list(&completed, None, 1).unwrap().jobs[0].clone();
    let id = job.job_id.clone();
    let before = pair.scheduler.ledger().revision;
    pair.handle(Input::Delete { request: RequestId(1), job_id: id.clone() });
    assert_eq!(reader.job(&id).unwrap(), None);
    assert_eq!(reader.history(job.job_no, 0, 10).unwrap(), None);
    assert_eq!(reader.result(&id).unwrap(), None);
    assert_eq!(reader.document(&id).unwrap(), None);
    assert_eq!(pair.store.load().unwrap(), pair.expected());

    // What is left is its deletion, for whoever followed it: as it was at its end.
    let parity = |parity: u32| [("parity".to_owned(), parity.to_string())].into();
    let number = u32::try_from(job.created_at.0).unwrap();
    let now = pair.scheduler.ledger().revision;
    for (filter, told) in [
        (JobFilter::default(), 1),
        (completed, 1),
        (JobFilter { states: vec![JobState::Failed], ..JobFilter::default() }, 0),
        (JobFilter { namespace: Some("tests".into()), labels: parity(number % 2), ..JobFilter::default() }, 1),
        (JobFilter { labels: parity((number + 1) % 2), ..JobFilter::default() }, 0),
        (JobFilter { operations: vec!["x.y".into()], ..JobFilter::default() }, 0),
        (JobFilter { worker_id: Some("w1".into()), ..JobFilter::default() }, 1),
    ] {
        let changes = changes(&*reader, &filter, before.0, now);
        assert_eq!(changes.len(), told, "{filter:?}");
        for change in changes {
            let StoredChange::Deletion(deletion) = change else { panic!("{change:?}") };
            assert_eq!((deletion.job_id, deletion.revision), (id.clone(), now));
        }
    }
}

/// A job that ends and is deleted in one commit is remembered as ended.
fn a_job_that_ends_and_goes_in_one_commit_is_told_as_ended(place: &Place) {
    let mut pair = Pair::new(place);
    let mut effects = Effects::default();
    let submit = Input::Submit { request: RequestId(0), spec: Box::new(spec(0)), document: document(0) };
    let cancel = Input::Cancel { request: RequestId(1), job_id: job_id(0), reason: "".into() };
    for input in [submit, cancel, Input::Delete { request: RequestId(2), job_id: job_id(0) }] {
        pair.scheduler.handle(Time(2000), input, &mut effects);
    }
    pair.store.commit(pair.epoch, effects.records()).unwrap();
    let reader = place.reader();
    let cancelled = JobFilter { states: vec![JobState::Cancelled], ..JobFilter::default() };
    let told = changes(&*reader, &cancelled, 0, Revision(3));
    assert!(matches!(told.as_slice(), [StoredChange::Deletion(deletion)] if deletion.job_id == job_id(0)), "{told:?}");
}

fn jobs_are_over_for_long_from_their_latest_end_on(place: &Place) {
    let mut pair = varied(place);
    let reader = place.reader();
    let ended = |pair: &Pair| {
        let ledger = pair.scheduler.ledger();
        let mut ended: Vec<(Time, JobId)> = ledger
            .jobs()
            .filter_map(|entry| match &entry.row.phase {
                guestkit_scheduler::Phase::Ended(ended) => Some((ended.at, entry.spec.job_id.clone())),
                _ => None,
            })
            .collect();
        ended.sort();
        ended
    };
    let all = ended(&pair);
    assert!(all.len() >= 3, "{all:?}");
    for (count, (at, _)) in all.iter().enumerate() {
        let expected: Vec<JobId> = all[..count].iter().map(|(_, job_id)| job_id.clone()).collect();
        assert_eq!(reader.expired(*at, 100).unwrap(), expected);
        assert_eq!(reader.expired(*at, 1).unwrap(), expected[..expected.len().min(1)]);
    }
    // A job that was given new attempts is not over, however long ago it was.
    let retriable = JobFilter { states: vec![JobState::Failed, JobState::Cancelled], ..JobFilter::default() };
    let job_id = reader.list(&retriable, None, 1).unwrap().jobs[0].job_id.clone();
    pair.handle(Input::Retry { request: RequestId(1), job_id: job_id.clone() });
    assert!(!reader.expired(Time(u64::MAX), 100).unwrap().contains(&job_id));
    assert_eq!(reader.expired(Time(u64::MAX), 100).unwrap().len(), ended(&pair).len());
    pair.handle(Input::Cancel { request: RequestId(2), job_id: job_id.clone(), reason: "".into() });
    assert_eq!(reader.expired(Time(u64::MAX), 100).unwrap().last(), Some(&job_id));
}

/// Deletions go with their age. Whoever has not seen those that went is told to begin again, whoever has is told the rest.
#[test]
fn what_cannot_be_told_any_more_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Sqlite(folder.path().into());
    let mut pair = varied(&place);
    let reader = place.reader();
    let over = reader.expired(Time(u64::MAX), 3).unwrap();
    let [first, second, third] = over.as_slice() else { panic!("{over:?}") };
    let delete = |pair: &mut Pair, job_id: &JobId| {
        pair.handle(Input::Delete { request: RequestId(1), job_id: job_id.clone() });
        pair.scheduler.ledger().revision
    };
    let before = pair.scheduler.ledger().revision;
    let first = delete(&mut pair, first);
    pair.now += 8 * 86_400_000;
    let second = delete(&mut pair, second);
    let third = delete(&mut pair, third);
    let ask = |after: Revision| {
        reader.changes(&JobFilter::default(), Span { after, until: third, submitted_from: None }, 100).unwrap()
    };
    assert_eq!(ask(Revision(1)), Changes::Compacted { oldest: first });
    assert_eq!(ask(before), Changes::Compacted { oldest: first });
    let Changes::Page { changes, reached } = ask(first) else { panic!("compacted") };
    assert_eq!(changes.iter().map(StoredChange::revision).collect::<Vec<_>>(), [second, third]);
    assert_eq!(reached, third);
}

/// A store of the first version gets what the second has; what it cannot know it says.
#[test]
fn a_store_of_the_first_version_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../migrations/sqlite/0001_jobs.sql")).unwrap();
    old.execute_batch(
        "PRAGMA user_version = 1;
         UPDATE standing SET revision = 9;
         INSERT INTO jobs VALUES (1, 'job-00001', 'tests', 'system.echo', NULL, 5, 6, NULL, x'', NULL),
                                 (2, 'job-00002', 'tests', 'system.echo', NULL, 6, 2, NULL, x'', NULL);
         INSERT INTO history VALUES (1, 1, 1, 5, 2, 0, NULL, 'submitted', NULL, NULL, NULL),
                                    (2, 2, 1, 6, 2, 0, NULL, 'submitted', NULL, NULL, NULL),
                                    (3, 1, 2, 70, 6, 1, NULL, 'over', NULL, NULL, NULL);",
    )
    .unwrap();
    drop(old);
    let (store, _) = SqliteStore::open(&path).unwrap();
    let reader = store.reader();
    assert_eq!(reader.expired(Time(70), 10).unwrap(), []);
    assert_eq!(reader.expired(Time(71), 10).unwrap(), [job_id(1)]);
    let span = Span { after: Revision(8), until: Revision(9), submitted_from: None };
    let asked = reader.changes(&JobFilter::default(), span, 10).unwrap();
    assert_eq!(asked, Changes::Compacted { oldest: Revision(9) });
}

fn a_deposed_process_cannot_write(place: &Place) {
    let mut pair = varied(place);
    let before = pair.store.load().unwrap();
    let (_second, newer) = place.open();
    assert!(newer > pair.epoch);
    let mut effects = Effects::default();
    let submit = Input::Submit { request: RequestId(0), spec: Box::new(spec(77)), document: document(77) };
    pair.scheduler.handle(Time(99_000), submit, &mut effects);
    let refused = pair.store.commit(pair.epoch, effects.records());
    assert!(matches!(refused, Err(StoreError::Deposed { .. })), "{refused:?}");
    assert!(matches!(pair.store.probe(pair.epoch), Err(StoreError::Deposed { .. })));
    assert_eq!(pair.store.load().unwrap(), before);
}

fn a_commit_is_all_or_nothing(place: &Place) {
    let mut pair = varied(place);
    let before = pair.store.load().unwrap();
    let mut effects = Effects::default();
    for number in [50, 51] {
        let submit = Input::Submit { request: RequestId(0), spec: Box::new(spec(number)), document: document(number) };
        pair.scheduler.handle(Time(99_000), submit, &mut effects);
    }
    // The first is sound; the second's name is taken, which the store's own constraint notices.
    let mut records = effects.records().to_vec();
    let taken = records.iter_mut().rev().find_map(|record| match &mut record.change {
        Change::Job { job_id, event: Event::Submitted { .. }, .. } => Some(job_id),
        _ => None,
    });
    *taken.unwrap() = job_id(0);
    assert!(pair.store.commit(pair.epoch, &records).is_err());
    assert_eq!(pair.store.load().unwrap(), before);
    assert_eq!(pair.store.entry(&Want::Job(job_id(50))).unwrap(), None);
    pair.store.commit(pair.epoch, effects.records()).unwrap();
}

#[test]
fn a_store_of_a_later_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    drop(SqliteStore::open(&path).unwrap());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(StoreError::TooNew { found: 99, .. })));
    let text = folder.path().join("text");
    std::fs::write(&text, "not a database, but a text that is long enough to be looked at".repeat(20)).unwrap();
    assert!(matches!(SqliteStore::open(&text), Err(StoreError::Sqlite { .. })));
}
