//! The store in one SQLite file: write-ahead log, `synchronous=FULL`, one writer, readers that never wait for it.
//!
//! A commit is one transaction however many records it carries, and a job that changed several times in it is written once.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use guestkit_domain::{JobId, JobSpec, LeaseId, Revision, Time};
use guestkit_scheduler::{Change, Event, JobEntry, JobRow, Ledger, Phase, Record, Sharing, Totals, Want};
use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, Transaction, params, params_from_iter};

use super::codec::{self, state_number, state_of};
use super::events;
use super::read::{Changes, JobFilter, JobNo, Page, Span, StoredChange, StoredDeletion, StoredEvent, StoredJob};
use super::{Epoch, ReadStore, Store, StoreError, signed, unsigned};

/// Each brings the schema from the version before; `user_version` counts them. Never changed once released.
const MIGRATIONS: [&str; 3] = [
    include_str!("../../migrations/sqlite/0001_jobs.sql"),
    include_str!("../../migrations/sqlite/0002_retention.sql"),
    include_str!("../../migrations/sqlite/0003_lists.sql"),
];

/// How long to wait for a lock. Only a checkpoint of a reader, or a backup by hand, ever holds one.
const BUSY: Duration = Duration::from_secs(5);

/// Statements kept prepared: more than there are.
const STATEMENTS: usize = 64;

/// Job numbers remembered, so that a change need not look its job up: what a large fleet has in its hands at once.
const NUMBERS_MAX: usize = 65_536;

/// Bytes of documents in one page: together with the rest of a job it stays within a gRPC message of 4 MiB.
pub(super) const PAGE_DOCUMENT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Bytes of progress and errors in one page of a log, for the same reason.
pub(super) const PAGE_EVENT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Deletions remembered, so that a watcher who was away can be told: as many as a night's retention makes of a busy store,
/// some 20 MB.
const DELETIONS_MAX: i64 = 100_000;

/// How long they are remembered at most: whoever was away for longer begins again.
const DELETIONS_KEPT: Duration = Duration::from_secs(7 * 86_400);

/// Deletions forgotten in one commit: more than are made in one, few enough that nobody waits for it.
const DELETIONS_DROPPED_MAX: i64 = 256;

/// Every state's number.
const STATES: std::ops::RangeInclusive<i32> = 1..=9;

/// Connections kept for readers: as many as read at once.
const READERS_KEPT: usize = 8;

type Result<T> = std::result::Result<T, StoreError>;

fn failed(action: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |source| StoreError::Sqlite { action, source }
}

/// The writing side; there is one.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    path: PathBuf,
    numbers: HashMap<JobId, i64>,
}

impl SqliteStore {
    /// Opens or makes the file, brings its schema up to date, and takes it over: the epoch returned is the only one that may
    /// write from now on.
    ///
    /// # Errors
    /// When the file is not a store, is of a later version, or the disk says no.
    pub fn open(path: &Path) -> Result<(Self, Epoch)> {
        let mut connection = Connection::open(path).map_err(failed("open the store"))?;
        prepare(&connection)?;
        migrate(&mut connection)?;
        let epoch = connection
            .query_row("UPDATE standing SET epoch = epoch + 1 RETURNING epoch", [], |row| row.get::<_, i64>(0))
            .map_err(failed("take the store over"))?;
        let store = Self { connection, path: path.into(), numbers: HashMap::new() };
        Ok((store, Epoch(unsigned(epoch))))
    }

    /// The reading side of the same file.
    #[must_use]
    pub fn reader(&self) -> SqliteReader {
        SqliteReader::of(&self.path)
    }
}

/// What every connection has in common.
fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(BUSY)?;
    // Otherwise each statement on a table with partial indexes is prepared anew for each value that is bound to it: most of
    // what a commit took.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

fn prepare(connection: &Connection) -> Result<()> {
    set_up(connection).map_err(failed("set up the store"))?;
    // FULL: a commit returns after its fsync. The log is checkpointed at 4,000 pages (16 MB), so that a busy store does not
    // copy the same pages over and over. Foreign keys are not checked: there is one writer, which deletes all of a job itself,
    // and looking the job up for each row that is inserted would cost as much as inserting it.
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF;
             PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -32768; PRAGMA temp_store = MEMORY;",
        )
        .map_err(failed("set up the store"))
}

fn migrate(connection: &mut Connection) -> Result<()> {
    let found: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed("read the store's version"))?;
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    for (version, sql) in (1u32..).zip(MIGRATIONS).skip(found as usize) {
        let transaction = connection.transaction().map_err(failed("migrate the store"))?;
        transaction.execute_batch(sql).map_err(failed("migrate the store"))?;
        transaction.pragma_update(None, "user_version", version).map_err(failed("migrate the store"))?;
        transaction.commit().map_err(failed("migrate the store"))?;
    }
    Ok(())
}

impl Store for SqliteStore {
    fn commit(&mut self, epoch: Epoch, records: &[Record]) -> Result<()> {
        let Some(last) = records.last() else { return Ok(()) };
        let transaction = self.connection.transaction().map_err(failed("begin a commit"))?;
        let written = stand(&transaction, epoch, records, last)
            .and_then(|()| Writing { transaction: &transaction, numbers: &mut self.numbers }.write(records))
            .and_then(|()| transaction.commit().map_err(failed("commit")));
        if written.is_err() || self.numbers.len() > NUMBERS_MAX {
            // After a failure some numbers may be those of jobs that are not there.
            self.numbers.clear();
        }
        written
    }

    fn load(&self) -> Result<Ledger> {
        let mut ledger = standing(&self.connection)?;
        ledger.partial = true;
        ledger.drains = drains(&self.connection)?;
        let sql =
            "SELECT j.job_no, d.spec, j.row, j.job_id FROM jobs j JOIN documents d USING (job_no) WHERE j.state < 6";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed("load jobs"))?;
        let mut rows = statement.query([]).map_err(failed("load jobs"))?;
        let mut sharing = Sharing::default();
        while let Some(row) = rows.next().map_err(failed("load jobs"))? {
            let mut entry = entry(row)?;
            sharing.share(&mut entry);
            ledger.insert(entry);
        }
        Ok(ledger)
    }

    fn entry(&self, want: &Want) -> Result<Option<JobEntry>> {
        const COLUMNS: &str = "SELECT j.job_no, d.spec, j.row, j.job_id FROM jobs j JOIN documents d USING (job_no)";
        let (sql, parameters) = match want {
            Want::Job(job_id) => (format!("{COLUMNS} WHERE j.job_id = ?1"), vec![job_id.to_string()]),
            Want::Key(namespace, key) => (
                format!("{COLUMNS} WHERE j.namespace = ?1 AND j.idempotency_key = ?2 ORDER BY j.job_no DESC LIMIT 1"),
                vec![namespace.to_string(), key.to_string()],
            ),
        };
        let mut statement = self.connection.prepare_cached(&sql).map_err(failed("look a job up"))?;
        let mut rows = statement.query(params_from_iter(parameters)).map_err(failed("look a job up"))?;
        rows.next().map_err(failed("look a job up"))?.map(entry).transpose()
    }

    fn probe(&mut self, epoch: Epoch) -> Result<()> {
        let changed = self
            .connection
            .execute("UPDATE standing SET epoch = epoch WHERE epoch = ?1", [signed(epoch.0)])
            .map_err(failed("write to the store"))?;
        if changed == 1 { Ok(()) } else { Err(StoreError::Deposed { ours: epoch.0 }) }
    }
}

/// Moves the store's standing, which also checks the epoch.
fn stand(transaction: &Transaction<'_>, epoch: Epoch, records: &[Record], last: &Record) -> Result<()> {
    let mut ended = Totals::default();
    records.iter().for_each(|record| ended.count(record));
    let last_lease = records.iter().filter_map(Record::minted).max().unwrap_or_default();
    let mut statement = transaction
        .prepare_cached(
            "UPDATE standing SET revision = ?2, newest = max(newest, ?3), last_lease = max(last_lease, ?4),
             completed = completed + ?5, failed = failed + ?6, cancelled = cancelled + ?7, timeout = timeout + ?8
             WHERE epoch = ?1",
        )
        .map_err(failed("commit"))?;
    let changed = statement
        .execute(params![
            signed(epoch.0),
            signed(last.revision.0),
            signed(last.at.0),
            signed(last_lease.0),
            signed(ended.completed),
            signed(ended.failed),
            signed(ended.cancelled),
            signed(ended.timeout),
        ])
        .map_err(failed("commit"))?;
    if changed == 1 { Ok(()) } else { Err(StoreError::Deposed { ours: epoch.0 }) }
}

fn standing(connection: &Connection) -> Result<Ledger> {
    let sql = "SELECT revision, newest, last_lease, completed, failed, cancelled, timeout FROM standing";
    let number = |row: &Row<'_>, at| row.get(at).map(unsigned);
    connection
        .query_row(sql, [], |row| {
            let mut ledger = Ledger::default();
            ledger.revision = Revision(number(row, 0)?);
            ledger.newest = Time(number(row, 1)?);
            ledger.last_lease = LeaseId(number(row, 2)?);
            ledger.totals = Totals {
                completed: number(row, 3)?,
                failed: number(row, 4)?,
                cancelled: number(row, 5)?,
                timeout: number(row, 6)?,
            };
            Ok(ledger)
        })
        .map_err(failed("load the store's standing"))
}

fn drains(
    connection: &Connection,
) -> Result<std::collections::BTreeMap<guestkit_scheduler::DrainTarget, Option<Time>>> {
    let mut statement = connection.prepare("SELECT target, until FROM drains").map_err(failed("load drains"))?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Option<i64>>(1)?)))
        .map_err(failed("load drains"))?;
    rows.map(|row| {
        let (target, until) = row.map_err(failed("load drains"))?;
        let damaged = |source| StoreError::Damaged { job: "(drains)".into(), source };
        Ok((codec::decode_target(&target).map_err(damaged)?, until.map(|at| Time(unsigned(at)))))
    })
    .collect()
}

fn entry(row: &Row<'_>) -> Result<JobEntry> {
    let column = |source| StoreError::Sqlite { action: "load a job", source };
    let (job_id, spec, state): (String, Vec<u8>, Vec<u8>) =
        (row.get(3).map_err(column)?, row.get(1).map_err(column)?, row.get(2).map_err(column)?);
    codec::decode_entry(row.get(0).map_err(column)?, &job_id, &spec, &state)
}

/// The latest of each job that a commit changes.
struct Changed<'a> {
    job_no: i64,
    job_id: &'a JobId,
    /// Set when the commit submits it.
    submitted: Option<&'a JobSpec>,
    row: &'a JobRow,
    error: Option<Vec<u8>>,
}

struct Writing<'a> {
    transaction: &'a Transaction<'a>,
    numbers: &'a mut HashMap<JobId, i64>,
}

impl Writing<'_> {
    fn write(mut self, records: &[Record]) -> Result<()> {
        let mut changed: HashMap<&JobId, Changed<'_>> = HashMap::new();
        let mut deleted = None;
        for record in records {
            match &record.change {
                Change::Job { job_id, event, row } => {
                    let job_no = self.job(record, job_id, event)?;
                    let error = events::error(event, row);
                    self.event(record, job_no, event, row, error.as_deref())?;
                    self.result(job_no, event)?;
                    let submitted = match event {
                        Event::Submitted { spec, .. } => Some(&**spec),
                        _ => changed.get(job_id).and_then(|job| job.submitted),
                    };
                    let error = error.filter(|_| row.phase.state().is_terminal());
                    changed.insert(job_id, Changed { job_no, job_id, submitted, row, error });
                }
                Change::Deleted { job_id } => {
                    // What is remembered of it is how it was at its end.
                    changed.remove(job_id).iter().try_for_each(|job| self.row(job))?;
                    self.delete(record, job_id)?;
                    deleted = Some(record.at);
                }
                Change::Drain { target, until } => {
                    let sql = "INSERT INTO drains (target, until) VALUES (?1, ?2)
                               ON CONFLICT (target) DO UPDATE SET until = excluded.until";
                    let until = until.map(|at| signed(at.0));
                    self.execute(sql, params![codec::encode_target(target), until])?;
                }
                Change::Resume { target } => {
                    self.execute("DELETE FROM drains WHERE target = ?1", params![codec::encode_target(target)])?;
                }
            }
        }
        // In the order of the table: neighbours share pages.
        let mut changed: Vec<_> = changed.into_values().collect();
        changed.sort_unstable_by_key(|job| job.job_no);
        changed.iter().try_for_each(|job| self.row(job))?;
        deleted.map_or(Ok(()), |now| self.compact(now))
    }

    fn execute(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<usize> {
        let mut statement = self.transaction.prepare_cached(sql).map_err(failed("commit"))?;
        statement.execute(parameters).map_err(failed("commit"))
    }

    /// The job's number; a submission makes it, and what never changes of the job.
    fn job(&mut self, record: &Record, job_id: &JobId, event: &Event) -> Result<i64> {
        let Event::Submitted { spec, document } = event else { return self.number(job_id) };
        let job_no = signed(record.revision.0);
        self.execute(
            "INSERT INTO documents (job_no, spec, document) VALUES (?1, ?2, ?3)",
            params![job_no, codec::encode_spec(spec), &document[..]],
        )?;
        for (name, value) in events::labels(document) {
            self.execute("INSERT INTO labels (name, value, job_no) VALUES (?1, ?2, ?3)", params![name, value, job_no])?;
        }
        self.numbers.insert(job_id.clone(), job_no);
        Ok(job_no)
    }

    fn number(&mut self, job_id: &JobId) -> Result<i64> {
        if let Some(job_no) = self.numbers.get(job_id) {
            return Ok(*job_no);
        }
        let sql = "SELECT job_no FROM jobs WHERE job_id = ?1";
        let mut statement = self.transaction.prepare_cached(sql).map_err(failed("commit"))?;
        let found = statement.query_row([job_id.as_str()], |row| row.get(0)).optional().map_err(failed("commit"))?;
        let job_no = found.ok_or_else(|| StoreError::NoSuchJob { job_id: job_id.clone() })?;
        self.numbers.insert(job_id.clone(), job_no);
        Ok(job_no)
    }

    fn event(&self, record: &Record, job_no: i64, event: &Event, row: &JobRow, error: Option<&[u8]>) -> Result<()> {
        let progress = match event {
            Event::Progress { progress } => Some(progress),
            _ => None,
        };
        self.execute(
            "INSERT INTO history (revision, job_no, sequence, at, state, attempt, worker_id, reason, percent, progress, error)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                signed(record.revision.0),
                job_no,
                signed(row.sequence),
                signed(record.at.0),
                state_number(row.phase.state()),
                row.attempt,
                row.worker().map(guestkit_domain::WorkerId::as_str),
                events::reason(event, row),
                progress.map(|progress| progress.percent),
                progress.map(|progress| &progress.body[..]),
                error,
            ],
        )?;
        Ok(())
    }

    fn result(&self, job_no: i64, event: &Event) -> Result<()> {
        match event {
            Event::Ended { result: Some(result) } => {
                let sql = "INSERT OR REPLACE INTO results (job_no, result) VALUES (?1, ?2)";
                self.execute(sql, params![job_no, &result[..]])?;
            }
            Event::RetryRequested => {
                self.execute("DELETE FROM results WHERE job_no = ?1", [job_no])?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes the job as it is after the commit.
    fn row(&self, job: &Changed<'_>) -> Result<()> {
        let ended_at = match &job.row.phase {
            Phase::Ended(ended) => Some(signed(ended.at.0)),
            _ => None,
        };
        let state = state_number(job.row.phase.state());
        let worker_id = job.row.worker().map(guestkit_domain::WorkerId::as_str);
        let row = codec::encode_row(job.row);
        match job.submitted {
            None => self.execute(
                "UPDATE jobs SET state = ?2, worker_id = ?3, row = ?4, error = ?5, ended_at = ?6 WHERE job_no = ?1",
                params![job.job_no, state, worker_id, row, job.error, ended_at],
            )?,
            Some(spec) => self.execute(
                "INSERT INTO jobs (job_no, state, worker_id, row, error, ended_at,
                                   job_id, namespace, operation, idempotency_key, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                params![
                    job.job_no,
                    state,
                    worker_id,
                    row,
                    job.error,
                    ended_at,
                    job.job_id.as_str(),
                    spec.namespace.as_str(),
                    &*spec.placement.operation,
                    spec.idempotency_key.as_deref(),
                    signed(spec.created_at.0),
                ],
            )?,
        };
        Ok(())
    }

    fn delete(&mut self, record: &Record, job_id: &JobId) -> Result<()> {
        let job_no = self.number(job_id)?;
        self.numbers.remove(job_id);
        self.execute(
            "INSERT INTO deletions (revision, at, job_no, job_id, namespace, operation, created_at, state, worker_id, labels)
             SELECT ?1, ?2, j.job_no, j.job_id, j.namespace, j.operation, j.created_at, j.state, j.worker_id,
                    (SELECT json_group_object(l.name, l.value) FROM labels l WHERE l.job_no = j.job_no)
             FROM jobs j WHERE j.job_no = ?3",
            params![signed(record.revision.0), signed(record.at.0), job_no],
        )?;
        for sql in [
            "DELETE FROM jobs WHERE job_no = ?1",
            "DELETE FROM documents WHERE job_no = ?1",
            "DELETE FROM labels WHERE job_no = ?1",
            "DELETE FROM history WHERE job_no = ?1",
            "DELETE FROM results WHERE job_no = ?1",
        ] {
            self.execute(sql, [job_no])?;
        }
        Ok(())
    }
}

/// Which deletions are dropped: the first number that is there, and the last to go by their count or by their age.
type LowEnd = (Option<i64>, Option<i64>, Option<i64>);

impl Writing<'_> {
    /// Drops the oldest deletions that are too many or too old, and remembers how far.
    fn compact(&self, now: Time) -> Result<()> {
        let sql = "SELECT (SELECT min(deletion_no) FROM deletions), (SELECT max(deletion_no) FROM deletions) - ?1,
                          (SELECT deletion_no FROM deletions WHERE at < ?2 ORDER BY at DESC, deletion_no DESC LIMIT 1)";
        let old = now.0.saturating_sub(u64::try_from(DELETIONS_KEPT.as_millis()).unwrap_or(u64::MAX));
        let mut statement = self.transaction.prepare_cached(sql).map_err(failed("commit"))?;
        let low_end = statement
            .query_row([DELETIONS_MAX, signed(old)], |row| Ok::<LowEnd, _>((row.get(0)?, row.get(1)?, row.get(2)?)));
        let (first, by_count, by_age) = low_end.map_err(failed("commit"))?;
        let (Some(first), Some(last)) = (first, by_count.max(by_age)) else { return Ok(()) };
        if last < first {
            return Ok(());
        }
        let last = last.min(first.saturating_add(DELETIONS_DROPPED_MAX - 1));
        let sql = "UPDATE standing SET compacted = (SELECT revision FROM deletions WHERE deletion_no = ?1)";
        self.execute(sql, [last])?;
        self.execute("DELETE FROM deletions WHERE deletion_no <= ?1", [last])?;
        Ok(())
    }
}

/// The reading side: its own read-only connections.
#[derive(Debug)]
pub struct SqliteReader {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

const JOB_COLUMNS: &str = "SELECT j.job_no, j.job_id, d.document, j.created_at, j.row, j.error
                           FROM jobs j JOIN documents d USING (job_no)";
const EVENT_COLUMNS: &str = "SELECT j.job_id, h.sequence, h.at, h.revision, h.state, h.attempt, h.worker_id, h.reason,
                             h.progress, h.error, h.percent, h.job_no";

impl SqliteReader {
    /// The reading side of a file that a [`SqliteStore`] has made.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        Self { path: path.into(), idle: Mutex::default() }
    }

    fn with<T>(&self, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let answer = read(&connection)?;
        let mut idle = self.idle();
        if idle.len() < READERS_KEPT {
            idle.push(connection);
        }
        Ok(answer)
    }

    /// Several statements that see the same: one revision.
    fn at_one_revision<T>(&self, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.with(|connection| {
            let transaction = connection.unchecked_transaction().map_err(failed("read the store"))?;
            read(&transaction)
        })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(&self.path, flags).map_err(failed("open the store for reading"))?;
        set_up(&connection).map_err(failed("open the store for reading"))?;
        Ok(connection)
    }
}

impl ReadStore for SqliteReader {
    fn job(&self, job_id: &JobId) -> Result<Option<StoredJob>> {
        self.with(|connection| {
            let sql = format!("{JOB_COLUMNS} WHERE j.job_id = ?1");
            let mut statement = connection.prepare_cached(&sql).map_err(failed("read a job"))?;
            let mut rows = statement.query([job_id.as_str()]).map_err(failed("read a job"))?;
            let Some(row) = rows.next().map_err(failed("read a job"))? else { return Ok(None) };
            let mut job = stored_job(row)?;
            job.progress = latest_progress(connection, job.job_no)?;
            Ok(Some(job))
        })
    }

    fn list(&self, filter: &JobFilter, after: Option<JobNo>, page_size: usize) -> Result<Page> {
        self.at_one_revision(|connection| {
            let revision = number_of_standing(connection, "SELECT revision FROM standing")?;
            // One more than asked for tells whether there is a next page.
            let (sql, values) = listed(filter, after, page_size.saturating_add(1));
            let mut statement = connection.prepare_cached(&sql).map_err(failed("list jobs"))?;
            let mut numbers = statement.query(params_from_iter(values)).map_err(failed("list jobs"))?;
            let one = format!("{JOB_COLUMNS} WHERE j.job_no = ?1");
            let mut one = connection.prepare_cached(&one).map_err(failed("list jobs"))?;
            let mut jobs = Vec::new();
            let mut bytes = 0;
            while let Some(number) = numbers.next().map_err(failed("list jobs"))? {
                let job_no: i64 = number.get(0).map_err(failed("list jobs"))?;
                let mut rows = one.query([job_no]).map_err(failed("list jobs"))?;
                let Some(row) = rows.next().map_err(failed("list jobs"))? else { continue };
                let mut job = stored_job(row)?;
                bytes += job.document.len() + job.error.as_ref().map_or(0, Vec::len);
                let full = jobs.len() == page_size || bytes > PAGE_DOCUMENT_BYTES_MAX;
                if let Some(StoredJob { job_no: last, .. }) = jobs.last().filter(|_| full) {
                    return Ok(Page { revision, next: Some(*last), jobs });
                }
                job.progress = latest_progress(connection, job.job_no)?;
                bytes += job.progress.as_ref().and_then(|event| event.progress.as_ref()).map_or(0, Vec::len);
                jobs.push(job);
            }
            Ok(Page { revision, jobs, next: None })
        })
    }

    fn history(&self, job_no: JobNo, after: u64, limit: usize) -> Result<Option<Vec<StoredEvent>>> {
        self.at_one_revision(|connection| {
            let known = "SELECT 1 FROM jobs WHERE job_no = ?1";
            let mut statement = connection.prepare_cached(known).map_err(failed("read a job's log"))?;
            if !statement.exists([job_no.0]).map_err(failed("read a job's log"))? {
                return Ok(None);
            }
            let sql = format!(
                "{EVENT_COLUMNS} FROM history h JOIN jobs j USING (job_no)
                 WHERE h.job_no = ?1 AND h.sequence > ?2 ORDER BY h.sequence LIMIT {limit}"
            );
            let mut statement = connection.prepare_cached(&sql).map_err(failed("read a job's log"))?;
            let mut rows = statement.query([job_no.0, signed(after)]).map_err(failed("read a job's log"))?;
            let mut events = Vec::new();
            let mut bytes = 0;
            while let Some(row) = rows.next().map_err(failed("read a job's log"))? {
                let event = stored_event(row)?;
                bytes += event_bytes(&event);
                events.push(event);
                if bytes > PAGE_EVENT_BYTES_MAX {
                    break;
                }
            }
            Ok(Some(events))
        })
    }

    fn changes(&self, filter: &JobFilter, span: Span, limit: usize) -> Result<Changes> {
        self.at_one_revision(|connection| {
            let oldest = number_of_standing(connection, "SELECT compacted FROM standing")?;
            if span.after < oldest {
                return Ok(Changes::Compacted { oldest });
            }
            let (events, events_reach) = events_of(connection, filter, span, limit)?;
            let (deletions, deletions_reach) = deletions_of(connection, filter, span, limit)?;
            let reached = events_reach.min(deletions_reach);
            Ok(Changes::Page { changes: StoredChange::merged(events, deletions, reached), reached })
        })
    }

    fn expired(&self, before: Time, limit: usize) -> Result<Vec<JobId>> {
        self.with(|connection| {
            let sql = "SELECT job_id FROM jobs WHERE ended_at < ?1 ORDER BY ended_at, job_no LIMIT ?2";
            let mut statement = connection.prepare_cached(sql).map_err(failed("find jobs that are over for long"))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut rows =
                statement.query([signed(before.0), limit]).map_err(failed("find jobs that are over for long"))?;
            let mut jobs = Vec::new();
            while let Some(row) = rows.next().map_err(failed("find jobs that are over for long"))? {
                let job_id: String = row.get(0).map_err(failed("find jobs that are over for long"))?;
                jobs.push(codec::checked_job_id(&job_id)?);
            }
            Ok(jobs)
        })
    }

    fn result(&self, job_id: &JobId) -> Result<Option<Vec<u8>>> {
        let sql = "SELECT result FROM results JOIN jobs USING (job_no) WHERE job_id = ?1";
        self.with(|connection| blob(connection, sql, job_id))
    }

    fn documents(&self, job_ids: &[JobId]) -> Result<HashMap<JobId, Vec<u8>>> {
        let sql = "SELECT document FROM documents JOIN jobs USING (job_no) WHERE job_id = ?1";
        self.with(|connection| {
            let found =
                job_ids.iter().map(|job_id| Ok(blob(connection, sql, job_id)?.map(|found| (job_id.clone(), found))));
            found.filter_map(Result::transpose).collect()
        })
    }
}

fn number_of_standing(connection: &Connection, sql: &str) -> Result<Revision> {
    let mut statement = connection.prepare_cached(sql).map_err(failed("read the store's standing"))?;
    let number = statement.query_row([], |row| row.get(0)).map_err(failed("read the store's standing"))?;
    Ok(Revision(unsigned(number)))
}

/// Entries of logs in a span that match, and how far they reach.
fn events_of(
    connection: &Connection,
    filter: &JobFilter,
    span: Span,
    limit: usize,
) -> Result<(Vec<StoredEvent>, Revision)> {
    let mut criteria = Criteria::of_job(filter, LABELS_OF_JOB);
    criteria.within("h", span);
    criteria.after_or_before(filter);
    let sql = format!(
        "{EVENT_COLUMNS} FROM history h JOIN jobs j USING (job_no) {} ORDER BY h.revision LIMIT {limit}",
        criteria.clause()
    );
    let mut statement = connection.prepare_cached(&sql).map_err(failed("read changes"))?;
    let mut rows = statement.query(params_from_iter(criteria.values)).map_err(failed("read changes"))?;
    let mut events: Vec<StoredEvent> = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next().map_err(failed("read changes"))? {
        let event = stored_event(row)?;
        let revision = event.revision;
        bytes += event_bytes(&event);
        events.push(event);
        if bytes > PAGE_EVENT_BYTES_MAX || events.len() == limit {
            return Ok((events, revision));
        }
    }
    Ok((events, span.until))
}

/// Deletions in a span that match, and how far they reach.
fn deletions_of(
    connection: &Connection,
    filter: &JobFilter,
    span: Span,
    limit: usize,
) -> Result<(Vec<StoredDeletion>, Revision)> {
    let mut criteria = Criteria::of(filter, LABELS_OF_DELETION);
    criteria.within("j", span);
    let sql = format!(
        "SELECT j.job_id, j.at, j.revision FROM deletions j {} ORDER BY j.revision LIMIT {limit}",
        criteria.clause()
    );
    let mut statement = connection.prepare_cached(&sql).map_err(failed("read changes"))?;
    let mut rows = statement.query(params_from_iter(criteria.values)).map_err(failed("read changes"))?;
    let mut deletions = Vec::new();
    while let Some(row) = rows.next().map_err(failed("read changes"))? {
        let job_id: String = row.get(0).map_err(failed("read changes"))?;
        let number = |at: usize| row.get(at).map(unsigned).map_err(failed("read changes"));
        let revision = Revision(number(2)?);
        deletions.push(StoredDeletion { job_id: codec::checked_job_id(&job_id)?, at: Time(number(1)?), revision });
        if deletions.len() == limit {
            return Ok((deletions, revision));
        }
    }
    Ok((deletions, span.until))
}

/// The numbers of the newest `limit` jobs that match, after `after`, in the order of an index: a page costs the same however
/// many jobs there are. Each state is a branch of its own, because several of them in one have no order.
fn listed(filter: &JobFilter, after: Option<JobNo>, limit: usize) -> (String, Vec<Value>) {
    let mut criteria = Criteria::of_job(&JobFilter { labels: BTreeMap::new(), ..filter.clone() }, LABELS_OF_JOB);
    if let Some(worker) = &filter.worker_id {
        criteria.add("j.worker_id = ?", [Value::Text(worker.clone())]);
    }
    if let Some(after) = after {
        criteria.add("j.job_no < ?", [Value::Integer(after.0)]);
    }
    // Labels are few and say much: the first one leads, the others are looked up.
    let mut labels = filter.labels.iter();
    let from = match labels.next() {
        None => "FROM jobs j",
        Some((name, value)) => {
            criteria.add("l.name = ? AND l.value = ?", [name, value].map(|text| Value::Text(text.clone())));
            if let Some(after) = after {
                criteria.add("l.job_no < ?", [Value::Integer(after.0)]);
            }
            "FROM labels l CROSS JOIN jobs j ON j.job_no = l.job_no"
        }
    };
    for (name, value) in labels {
        criteria.add(LABELS_OF_JOB, [name, value].map(|text| Value::Text(text.clone())));
    }
    let number = if filter.labels.is_empty() { "j.job_no" } else { "l.job_no" };
    let mut states: Vec<i32> = filter.states.iter().copied().map(state_number).collect();
    states.sort_unstable();
    states.dedup();
    // A namespace's jobs are in order only state by state.
    if states.is_empty() && filter.namespace.is_some() && filter.labels.is_empty() {
        states = STATES.collect();
    }
    let branch = |state: Option<i32>| {
        let state = state.map(|state| format!("j.state = {state}"));
        format!("SELECT {number} AS job_no {from} {}", criteria.numbered(state))
    };
    let branches: Vec<String> = match states.as_slice() {
        [] => vec![branch(None)],
        states => states.iter().map(|state| branch(Some(*state))).collect(),
    };
    (format!("{} ORDER BY 1 DESC LIMIT {limit}", branches.join(" UNION ALL ")), criteria.values)
}

fn blob(connection: &Connection, sql: &str, job_id: &JobId) -> Result<Option<Vec<u8>>> {
    let mut statement = connection.prepare_cached(sql).map_err(failed("read a job"))?;
    statement.query_row([job_id.as_str()], |row| row.get(0)).optional().map_err(failed("read a job"))
}

/// Conditions of a query, each with its parameters.
#[derive(Default)]
pub(super) struct Criteria {
    pub(super) conditions: Vec<String>,
    pub(super) values: Vec<Value>,
}

/// Whether a job has a label.
pub(super) const LABELS_OF_JOB: &str =
    "EXISTS (SELECT 1 FROM labels l WHERE l.name = ? AND l.value = ? AND l.job_no = j.job_no)";

/// Whether a job that is gone had it.
const LABELS_OF_DELETION: &str = "EXISTS (SELECT 1 FROM json_each(j.labels) l WHERE l.key = ? AND l.value = ?)";

impl Criteria {
    /// What a filter says about a job as it is now.
    pub(super) fn of(filter: &JobFilter, label: &str) -> Self {
        let mut criteria = Self::of_job(filter, label);
        criteria.as_it_is("j", filter);
        criteria
    }

    /// What a filter says about what never changes of a job.
    pub(super) fn of_job(filter: &JobFilter, label: &str) -> Self {
        let mut criteria = Self::default();
        criteria.any("j.operation", filter.operations.iter().cloned().map(Value::Text));
        if let Some(namespace) = &filter.namespace {
            criteria.add("j.namespace = ?", [Value::Text(namespace.clone())]);
        }
        for (name, value) in &filter.labels {
            criteria.add(label, [Value::Text(name.clone()), Value::Text(value.clone())]);
        }
        if let Some(at) = filter.created_after {
            criteria.add("j.created_at >= ?", [Value::Integer(signed(at.0))]);
        }
        if let Some(at) = filter.created_before {
            criteria.add("j.created_at < ?", [Value::Integer(signed(at.0))]);
        }
        criteria
    }

    /// What a filter says about what changes of a job, which a row of `table` tells.
    fn as_it_is(&mut self, table: &str, filter: &JobFilter) {
        let states = filter.states.iter().map(|state| Value::Integer(state_number(*state).into()));
        self.any(&format!("{table}.state"), states);
        if let Some(worker) = &filter.worker_id {
            self.add(&format!("{table}.worker_id = ?"), [Value::Text(worker.clone())]);
        }
    }

    /// The same about an entry `h` of a log, or about the entry before it.
    pub(super) fn after_or_before(&mut self, filter: &JobFilter) {
        let (mut after, mut before) = (Self::default(), Self::default());
        after.as_it_is("h", filter);
        before.as_it_is("p", filter);
        if after.conditions.is_empty() {
            return;
        }
        let condition = format!(
            "({} OR EXISTS (SELECT 1 FROM history p WHERE p.job_no = h.job_no AND p.sequence = h.sequence - 1 AND {}))",
            after.conditions.join(" AND "),
            before.conditions.join(" AND ")
        );
        self.add(&condition, after.values.into_iter().chain(before.values));
    }

    pub(super) fn within(&mut self, table: &str, span: Span) {
        self.add(&format!("{table}.revision > ?"), [Value::Integer(signed(span.after.0))]);
        self.add(&format!("{table}.revision <= ?"), [Value::Integer(signed(span.until.0))]);
        if let Some(from) = span.submitted_from {
            self.add(&format!("{table}.job_no >= ?"), [Value::Integer(from.0)]);
        }
    }

    pub(super) fn add(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.conditions.push(condition.into());
        self.values.extend(values);
    }

    pub(super) fn any(&mut self, column: &str, values: impl Iterator<Item = Value>) {
        let before = self.values.len();
        self.values.extend(values);
        let marks = vec!["?"; self.values.len() - before].join(", ");
        if !marks.is_empty() {
            self.conditions.push(format!("{column} IN ({marks})"));
        }
    }

    /// The clause with one condition more, its marks numbered, so that it can stand in one statement several times.
    fn numbered(&self, more: Option<String>) -> String {
        let conditions: Vec<&str> = more.iter().chain(&self.conditions).map(String::as_str).collect();
        if conditions.is_empty() {
            return String::new();
        }
        let mut clause = String::from("WHERE ");
        for (number, text) in conditions.join(" AND ").split('?').enumerate() {
            if number > 0 {
                clause += &format!("?{number}");
            }
            clause += text;
        }
        clause
    }

    pub(super) fn clause(&self) -> String {
        if self.conditions.is_empty() { String::new() } else { format!("WHERE {}", self.conditions.join(" AND ")) }
    }
}

fn latest_progress(connection: &Connection, job_no: JobNo) -> Result<Option<StoredEvent>> {
    let sql = format!(
        "{EVENT_COLUMNS} FROM history h JOIN jobs j USING (job_no)
         WHERE h.job_no = ?1 AND h.percent IS NOT NULL ORDER BY h.sequence DESC LIMIT 1"
    );
    let mut statement = connection.prepare_cached(&sql).map_err(failed("read progress"))?;
    let mut rows = statement.query([job_no.0]).map_err(failed("read progress"))?;
    rows.next().map_err(failed("read progress"))?.map(stored_event).transpose()
}

pub(super) fn event_bytes(event: &StoredEvent) -> usize {
    event.reason.len() + event.progress.as_ref().map_or(0, Vec::len) + event.error.as_ref().map_or(0, Vec::len)
}

fn stored_job(row: &Row<'_>) -> Result<StoredJob> {
    let column = |source| StoreError::Sqlite { action: "read a job", source };
    let job_id: String = row.get(1).map_err(column)?;
    let damaged = |source| StoreError::Damaged { job: job_id.clone(), source };
    let encoded: Vec<u8> = row.get(4).map_err(column)?;
    Ok(StoredJob {
        job_no: JobNo(row.get(0).map_err(column)?),
        job_id: codec::checked_job_id(&job_id)?,
        document: row.get(2).map_err(column)?,
        created_at: Time(unsigned(row.get(3).map_err(column)?)),
        row: codec::decode_row(&encoded).map_err(damaged)?,
        error: row.get(5).map_err(column)?,
        progress: None,
    })
}

fn stored_event(row: &Row<'_>) -> Result<StoredEvent> {
    let column = |source| StoreError::Sqlite { action: "read a job's log", source };
    let job_id: String = row.get(0).map_err(column)?;
    let number = |at: usize| row.get(at).map(unsigned).map_err(column);
    let damaged = |source| StoreError::Damaged { job: job_id.clone(), source };
    Ok(StoredEvent {
        job_id: codec::checked_job_id(&job_id)?,
        sequence: number(1)?,
        at: Time(number(2)?),
        revision: Revision(number(3)?),
        state: state_of(row.get(4).map_err(column)?).map_err(damaged)?,
        attempt: row.get(5).map_err(column)?,
        worker_id: row.get(6).map_err(column)?,
        reason: row.get(7).map_err(column)?,
        progress: row.get(8).map_err(column)?,
        error: row.get(9).map_err(column)?,
        percent: row.get(10).map_err(column)?,
    })
}
