//! The writing side: one connection, and a commit that is one round trip however many records it carries.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use futures::future::{BoxFuture, join_all, try_join};
use futures::{FutureExt as _, TryStreamExt as _};
use guestkit_domain::{JobId, LeaseId, Revision, Time, WorkerId};
use guestkit_scheduler::{DrainTarget, JobEntry, Ledger, Record, Sharing, Totals, Want};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::batch::{self, Batch};
use super::election::CHANNEL;
use super::partitions::{self, Partitions};
use super::session::{Link, PATIENCE, Session};
use super::{Postgres, PostgresError, Result, failed};
use crate::store::{Epoch, Store, StoreError, codec, events, signed, unsigned};

/// What the writing connection is told besides. Its statements find rows by key, so that plans are made once and never
/// scan a table that was empty when they were made. Nobody holds its locks for long but by hand.
const SETUP: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off;
    SET enable_mergejoin = off; SET lock_timeout = '10s'";

/// A start reads everything, for which the opposite holds; at one revision.
const BEGIN_LOAD: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL enable_seqscan = on;
    SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on";

/// A million jobs take some seconds.
const LOAD_PATIENCE: Duration = Duration::from_secs(600);

/// Job numbers remembered, so that a change need not look its job up: what a large fleet has in its hands at once.
const NUMBERS_MAX: usize = 65_536;

/// The writing side; one at a time has its epoch and its connection in `standing`.
pub struct PostgresStore {
    database: Postgres,
    epoch: Epoch,
    written: RefCell<Option<Written>>,
    numbers: HashMap<JobId, i64>,
}

/// A connection that may write.
struct Written {
    session: Session,
    /// Its number in `standing`.
    connection: i64,
    partitions: Partitions,
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore")
            .field("database", &self.database)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl Postgres {
    /// The writing side for whoever won `epoch`. Blocks: not for asynchronous code.
    ///
    /// # Errors
    /// When the database does not answer, or the epoch is over.
    pub fn writer(&self, epoch: Epoch) -> Result<PostgresStore> {
        let store =
            PostgresStore { database: self.clone(), epoch, written: RefCell::default(), numbers: HashMap::new() };
        let written = store.connect()?;
        *store.written.borrow_mut() = Some(written);
        Ok(store)
    }
}

impl PostgresStore {
    /// Opens a connection and takes `standing` over with it. That waits for a commit of the connection before which is on its
    /// way, or makes it fail when it comes: it carries the number before. What is read after this is all there will be.
    fn connect(&self) -> Result<Written> {
        let epoch = signed(self.epoch.0);
        let connecting = async {
            let mut session = Session::connect(&self.database.settings).await?;
            let link = session.link();
            let work = async {
                link.client.batch_execute(SETUP).await?;
                let sql =
                    "UPDATE standing SET connection = connection + 1 WHERE epoch = $1 RETURNING connection, revision";
                let Some(row) = link.row(sql, &[&epoch]).await? else { return Ok(None) };
                let (connection, revision) = (row.try_get(0)?, row.try_get(1)?);
                let fence = partitions::Fence { epoch, connection };
                let partitions = Partitions::made(&link, fence, revision).await?;
                prepare(&link).await?;
                Ok(Some((connection, partitions)))
            };
            let taken = session.drive(PATIENCE, work).await?;
            Ok(taken.map(|(connection, partitions)| Written { session, connection, partitions }))
        };
        let written =
            self.database.runtime.block_on(connecting).map_err(failed::<PostgresError>("take the store over"))?;
        written.ok_or(StoreError::Deposed { ours: self.epoch.0 })
    }

    /// Does `work` on the connection there is. Only [`Store::probe`] makes another one: what became of the last commit must be
    /// found out before anything else is written.
    fn with<T>(
        &self,
        action: &'static str,
        patience: Duration,
        work: impl AsyncFnOnce(&Link, &mut Partitions, i64) -> std::result::Result<T, PostgresError>,
    ) -> Result<T> {
        let mut written = self.written.borrow_mut();
        let Some(Written { session, connection, partitions }) = &mut *written else {
            return Err(failed(action)(PostgresError::Lost));
        };
        let link = session.link();
        let work = work(&link, partitions, *connection);
        let result = self.database.runtime.block_on(session.drive(patience, work));
        if session.is_lost() {
            *written = None;
        }
        result.map_err(failed(action))
    }

    fn forget_connection(&self) {
        *self.written.borrow_mut() = None;
    }

    /// Drops what was told of jobs that are gone: every partition of the log whose last entry is older than `before` and that
    /// has no entry of a job that is still there. Returns how many.
    ///
    /// # Errors
    /// When the database says no, or another leads.
    pub fn drop_history(&mut self, before: Time) -> Result<usize> {
        let epoch = signed(self.epoch.0);
        self.with("drop old history", PATIENCE, async |link, partitions, connection| {
            partitions.drop_before(link, partitions::Fence { epoch, connection }, signed(before.0)).await
        })
        .map_err(|error| self.deposed(error))
    }

    /// The fence in `standing` fails as the constraint of its column; see [`STAND`].
    fn deposed(&self, error: StoreError) -> StoreError {
        let fenced = match &error {
            StoreError::Postgres { source: PostgresError::Database(source), .. } => {
                source.as_db_error().is_some_and(|error| {
                    *error.code() == SqlState::NOT_NULL_VIOLATION && error.table() == Some("standing")
                })
            }
            _ => false,
        };
        if fenced { StoreError::Deposed { ours: self.epoch.0 } } else { error }
    }

    fn look_up(&mut self, records: &[Record]) -> Result<()> {
        let unknown: Vec<&str> = batch::unknown(records, &self.numbers).into_iter().collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let sql = "SELECT job_id, job_no FROM jobs WHERE job_id = ANY($1)";
        let rows = self.with("look jobs up", PATIENCE, async |link, _, _| link.rows(sql, &[&unknown]).await)?;
        for row in &rows {
            let (job_id, job_no): (&str, i64) = (column(row, 0)?, column(row, 1)?);
            self.numbers.insert(codec::checked_job_id(job_id)?, job_no);
        }
        Ok(())
    }

    fn write(&mut self, records: &[Record], last: &Record) -> Result<()> {
        self.look_up(records)?;
        let batch = Batch::of(records, &mut self.numbers)?;
        let epoch = signed(self.epoch.0);
        self.with("commit", PATIENCE, async |link, partitions, connection| {
            partitions.make_ahead(link, partitions::Fence { epoch, connection }, signed(last.revision.0)).await?;
            let mut pipeline = Pipeline::begin(link);
            pipeline.stand(epoch, connection, records, last);
            pipeline.batch(&batch);
            pipeline.commit().await
        })
        .map_err(|error| self.deposed(error))
    }
}

impl Store for PostgresStore {
    fn commit(&mut self, epoch: Epoch, records: &[Record]) -> Result<()> {
        let Some(last) = records.last() else { return Ok(()) };
        if epoch != self.epoch {
            return Err(StoreError::Deposed { ours: epoch.0 });
        }
        let written = self.write(records, last);
        if written.is_err() || self.numbers.len() > NUMBERS_MAX {
            // After a failure some numbers may be those of jobs that are not there.
            self.numbers.clear();
        }
        written
    }

    fn load(&self) -> Result<Ledger> {
        let loaded = self.with("load the store", LOAD_PATIENCE, async |link, _, _| {
            link.client.batch_execute(BEGIN_LOAD).await?;
            let standing = link.client.query_one(LOAD_STANDING, &[]).await?;
            let drains = link.client.query("SELECT target, until FROM drains", &[]).await?;
            let statement = link.prepared(LOAD_JOBS).await?;
            let parameters: [&(dyn ToSql + Sync); 0] = [];
            let jobs = link.client.query_raw(&statement, parameters).await?;
            let mut jobs = std::pin::pin!(jobs);
            let mut ledger = Ok(Ledger::default());
            let mut sharing = Sharing::default();
            while let Some(row) = jobs.try_next().await? {
                // What is damaged is told when the answer is over: the connection stays in step.
                ledger = ledger.and_then(|mut ledger: Ledger| {
                    let mut entry = entry(&row)?;
                    sharing.share(&mut entry);
                    ledger.insert(entry);
                    Ok(ledger)
                });
            }
            link.client.batch_execute("COMMIT").await?;
            Ok((standing, drains, ledger))
        });
        // Not to be left within a transaction.
        let (standing, drains, ledger) = loaded.inspect_err(|_| self.forget_connection())?;
        let mut ledger = ledger?;
        stand(&standing, &mut ledger)?;
        ledger.partial = true;
        ledger.drains = drains.iter().map(drain).collect::<Result<BTreeMap<_, _>>>()?;
        Ok(ledger)
    }

    fn entry(&self, want: &Want) -> Result<Option<JobEntry>> {
        let action = "look a job up";
        let row = match want {
            Want::Job(job_id) => {
                self.with(action, PATIENCE, async |link, _, _| link.row(ENTRY_BY_NAME, &[&job_id.as_str()]).await)
            }
            Want::Key(namespace, key) => self.with(action, PATIENCE, async |link, _, _| {
                link.row(ENTRY_BY_KEY, &[&namespace.as_str(), &&**key]).await
            }),
        };
        row?.as_ref().map(entry).transpose()
    }

    fn entries(&self, wants: BTreeSet<Want>) -> Result<BTreeMap<Want, Option<JobEntry>>> {
        let (mut names, mut namespaces, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for want in &wants {
            match want {
                Want::Job(job_id) => names.push(job_id.as_str()),
                Want::Key(namespace, key) => {
                    namespaces.push(namespace.as_str());
                    keys.push(&**key);
                }
            }
        }
        let (by_name, by_key) = self.with("look jobs up", PATIENCE, async |link, _, _| {
            let by_name =
                async { if names.is_empty() { Ok(Vec::new()) } else { link.rows(ENTRIES_BY_NAME, &[&names]).await } };
            let by_key = async {
                if keys.is_empty() { Ok(Vec::new()) } else { link.rows(ENTRIES_BY_KEY, &[&namespaces, &keys]).await }
            };
            try_join(by_name, by_key).await
        })?;
        let mut found = BTreeMap::new();
        for row in &by_name {
            let entry = entry(row)?;
            found.insert(Want::Job(entry.spec.job_id.clone()), Some(entry));
        }
        for row in &by_key {
            let entry = entry(row)?;
            if let Some(key) = entry.spec.idempotency_key.clone() {
                found.insert(Want::Key(entry.spec.namespace.clone(), key), Some(entry));
            }
        }
        for want in wants {
            found.entry(want).or_insert(None);
        }
        Ok(found)
    }

    fn compact(&mut self, before: Time) -> Result<()> {
        let partitions = self.drop_history(before)?;
        if partitions > 0 {
            tracing::info!(partitions, "old history is dropped");
        }
        Ok(())
    }

    fn probe(&mut self, epoch: Epoch) -> Result<()> {
        if epoch != self.epoch {
            return Err(StoreError::Deposed { ours: epoch.0 });
        }
        if self.written.borrow().is_none() {
            let written = self.connect()?;
            *self.written.borrow_mut() = Some(written);
        }
        let epoch = signed(epoch.0);
        let sql = "UPDATE standing SET connection = connection WHERE epoch = $1 AND connection = $2 RETURNING 1";
        let stood = self.with("write to the store", PATIENCE, async |link, _, connection| {
            link.row(sql, &[&epoch, &connection]).await
        })?;
        stood.map(drop).ok_or(StoreError::Deposed { ours: self.epoch.0 })
    }
}

const LOAD_STANDING: &str = "SELECT revision, newest, last_lease, completed, failed, cancelled, timeout FROM standing";
const LOAD_JOBS: &str = "SELECT j.job_no, d.spec, j.row, j.job_id FROM jobs j JOIN documents d USING (job_no)
    WHERE j.ended_at IS NULL";
const ENTRY_BY_NAME: &str = "SELECT j.job_no, d.spec, j.row, j.job_id FROM jobs j JOIN documents d USING (job_no)
    WHERE j.job_id = $1";
const ENTRIES_BY_NAME: &str = "SELECT j.job_no, d.spec, j.row, j.job_id FROM jobs j JOIN documents d USING (job_no)
    WHERE j.job_id = ANY ($1::text[])";
/// The latest of each key.
const ENTRIES_BY_KEY: &str = "SELECT DISTINCT ON (j.namespace, j.idempotency_key) j.job_no, d.spec, j.row, j.job_id
    FROM unnest($1::text[], $2::text[]) AS w (namespace, idempotency_key)
    JOIN jobs j ON j.namespace = w.namespace AND j.idempotency_key = w.idempotency_key JOIN documents d USING (job_no)
    ORDER BY j.namespace, j.idempotency_key, j.job_no DESC";
const ENTRY_BY_KEY: &str = "SELECT j.job_no, d.spec, j.row, j.job_id FROM jobs j JOIN documents d USING (job_no)
    WHERE j.namespace = $1 AND j.idempotency_key = $2 ORDER BY j.job_no DESC LIMIT 1";

/// Moves the store's standing and tells the others, or fails: in a row whose epoch or connection is not ours the revision
/// would become null. So what follows it in the pipeline need not wait for its answer.
const STAND: &str = "UPDATE standing SET revision = CASE WHEN epoch = $1 AND connection = $2 THEN $3::bigint END,
        newest = greatest(newest, $4), last_lease = greatest(last_lease, $5), completed = completed + $6,
        failed = failed + $7, cancelled = cancelled + $8, timeout = timeout + $9, renewed_at = clock_timestamp()
    RETURNING pg_notify($10, $11)";
const UPDATE_JOBS: &str =
    "UPDATE jobs j SET state = c.state, ended_at = c.ended_at, worker_id = c.worker_id, row = c.row,
        error = c.error
    FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::text[], $5::bytea[], $6::bytea[])
        AS c (job_no, state, ended_at, worker_id, row, error)
    WHERE j.job_no = c.job_no";
const DELETE_JOBS: &str = "WITH gone AS (
        INSERT INTO deletions (revision, at, job_no, job_id, namespace, operation, created_at, state, worker_id, labels)
        SELECT d.revision, d.at, j.job_no, j.job_id, j.namespace, j.operation, j.created_at, j.state, j.worker_id,
            coalesce((SELECT jsonb_object_agg(l.name, l.value) FROM labels l WHERE l.job_no = j.job_no), '{}')
        FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS d (job_no, revision, at) JOIN jobs j USING (job_no)),
    documents AS (DELETE FROM documents WHERE job_no = ANY($1)),
    labels AS (DELETE FROM labels WHERE job_no = ANY($1)),
    results AS (DELETE FROM results WHERE job_no = ANY($1))
    DELETE FROM jobs WHERE job_no = ANY($1)";
const INSERT_JOBS: &str = "INSERT INTO jobs (job_no, job_id, namespace, operation, idempotency_key, created_at, state,
        ended_at, worker_id, row, error)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::smallint[],
        $8::bigint[], $9::text[], $10::bytea[], $11::bytea[])";
const INSERT_DOCUMENTS: &str = "INSERT INTO documents (job_no, spec, document)
    SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[])";
const INSERT_LABELS: &str = "INSERT INTO labels (job_no, name, value)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[])";
const INSERT_DELETIONS: &str = "INSERT INTO deletions (revision, at, job_no, job_id, namespace, operation, created_at, state,
        worker_id, labels)
    SELECT revision, at, job_no, job_id, namespace, operation, created_at, state, worker_id, labels::jsonb
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::smallint[],
        $9::text[], $10::text[])
        AS d (revision, at, job_no, job_id, namespace, operation, created_at, state, worker_id, labels)";
const INSERT_HISTORY: &str = "INSERT INTO history (revision, job_no, sequence, at, attempt, state, worker_id, reason, percent,
        progress, error)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::smallint[], $7::text[],
        $8::text[], $9::double precision[], $10::bytea[], $11::bytea[])";
const INSERT_RESULTS: &str = "INSERT INTO results (job_no, result) SELECT * FROM unnest($1::bigint[], $2::bytea[])
    ON CONFLICT (job_no) DO UPDATE SET result = excluded.result";
const DELETE_RESULTS: &str = "DELETE FROM results WHERE job_no = ANY($1)";
const INSERT_DRAINS: &str = "INSERT INTO drains (target, until) SELECT * FROM unnest($1::bytea[], $2::bigint[])
    ON CONFLICT (target) DO UPDATE SET until = excluded.until";
const DELETE_DRAINS: &str = "DELETE FROM drains WHERE target = ANY($1)";

/// Prepared at once, so that a commit has nothing to wait for but its own answer.
async fn prepare(link: &Link) -> std::result::Result<(), PostgresError> {
    let all = [
        STAND,
        UPDATE_JOBS,
        DELETE_JOBS,
        INSERT_JOBS,
        INSERT_DOCUMENTS,
        INSERT_LABELS,
        INSERT_DELETIONS,
        INSERT_HISTORY,
        INSERT_RESULTS,
        DELETE_RESULTS,
        INSERT_DRAINS,
        DELETE_DRAINS,
    ];
    let prepared = join_all(all.map(|sql| link.prepared(sql))).await;
    prepared.into_iter().try_for_each(|statement| statement.map(drop))
}

/// A transaction whose statements are sent without waiting for each other's answers. After one that failed the server refuses
/// the rest, and the last, which would commit, undoes all of it.
struct Pipeline<'a> {
    link: &'a Link,
    sent: Vec<BoxFuture<'a, std::result::Result<(), PostgresError>>>,
}

/// A parameter: an array of a column's values, mostly.
type Column<'a> = Box<dyn ToSql + Sync + Send + 'a>;

fn list<'a, T>(values: impl Iterator<Item = T>) -> Column<'a>
where
    T: ToSql + Sync + Send + 'a,
{
    Box::new(values.collect::<Vec<T>>())
}

impl<'a> Pipeline<'a> {
    fn begin(link: &'a Link) -> Self {
        let begin = async { Ok(link.client.batch_execute("BEGIN").await?) };
        Self { link, sent: vec![begin.boxed()] }
    }

    fn then<const N: usize>(&mut self, sql: &'static str, columns: [Column<'a>; N]) {
        let link = self.link;
        let execute = async move {
            let statement = link.prepared(sql).await?;
            let parameters: Vec<&(dyn ToSql + Sync)> =
                columns.iter().map(|column| -> &(dyn ToSql + Sync) { &**column }).collect();
            link.client.execute(&statement, &parameters).await?;
            Ok(())
        };
        self.sent.push(execute.boxed());
    }

    async fn commit(mut self) -> std::result::Result<(), PostgresError> {
        let link = self.link;
        self.sent.push(async { Ok(link.client.batch_execute("COMMIT").await?) }.boxed());
        // Polled for the first time, and with that sent, in this order. The first error is the cause of the others.
        join_all(self.sent).await.into_iter().collect()
    }

    fn stand(&mut self, epoch: i64, connection: i64, records: &[Record], last: &Record) {
        let mut ended = Totals::default();
        records.iter().for_each(|record| ended.count(record));
        let last_lease = records.iter().filter_map(Record::minted).max().unwrap_or_default();
        let number = |value: u64| -> Column<'a> { Box::new(signed(value)) };
        self.then(
            STAND,
            [
                Box::new(epoch),
                Box::new(connection),
                number(last.revision.0),
                number(last.at.0),
                number(last_lease.0),
                number(ended.completed),
                number(ended.failed),
                number(ended.cancelled),
                number(ended.timeout),
                Box::new(CHANNEL),
                Box::new(last.revision.0.to_string()),
            ],
        );
    }

    fn batch(&mut self, batch: &'a Batch<'a>) {
        // Deletions before submissions: a name may be taken again in the same commit.
        self.changed(batch);
        self.deleted(batch);
        self.submitted(batch);
        self.passed(batch);
        self.history(batch);
        self.results(batch);
        self.drains(batch);
    }

    fn changed(&mut self, batch: &'a Batch<'a>) {
        let jobs = || batch.changed.values();
        if batch.changed.is_empty() {
            return;
        }
        self.then(
            UPDATE_JOBS,
            [
                list(batch.changed.keys()),
                list(jobs().map(batch::State::number)),
                list(jobs().map(batch::State::ended_at)),
                list(jobs().map(batch::State::worker)),
                list(jobs().map(batch::State::encoded)),
                list(jobs().map(|job| job.error.as_deref())),
            ],
        );
    }

    fn deleted(&mut self, batch: &'a Batch<'a>) {
        let gone = || batch.deleted.iter();
        if batch.deleted.is_empty() {
            return;
        }
        self.then(
            DELETE_JOBS,
            [list(gone().map(|job| job.job_no)), list(gone().map(|job| job.revision)), list(gone().map(|job| job.at))],
        );
    }

    fn submitted(&mut self, batch: &'a Batch<'a>) {
        let jobs = || batch.submitted.values();
        if batch.submitted.is_empty() {
            return;
        }
        self.then(
            INSERT_JOBS,
            [
                list(batch.submitted.keys()),
                list(jobs().map(|job| job.job_id.as_str())),
                list(jobs().map(|job| job.spec.namespace.as_str())),
                list(jobs().map(|job| &*job.spec.placement.operation)),
                list(jobs().map(|job| job.spec.idempotency_key.as_deref())),
                list(jobs().map(|job| signed(job.spec.created_at.0))),
                list(jobs().map(|job| job.state.number())),
                list(jobs().map(|job| job.state.ended_at())),
                list(jobs().map(|job| job.state.worker())),
                list(jobs().map(|job| job.state.encoded())),
                list(jobs().map(|job| job.state.error.as_deref())),
            ],
        );
        self.then(
            INSERT_DOCUMENTS,
            [
                list(batch.submitted.keys()),
                list(jobs().map(|job| codec::encode_spec(job.spec))),
                list(jobs().map(|job| job.document)),
            ],
        );
        let labels: Vec<(i64, String, String)> = batch
            .submitted
            .iter()
            .flat_map(|(job_no, job)| {
                events::labels(job.document).into_iter().map(|(name, value)| (*job_no, name, value))
            })
            .collect();
        if !labels.is_empty() {
            self.then(
                INSERT_LABELS,
                [
                    list(labels.iter().map(|(job_no, ..)| *job_no)),
                    list(labels.iter().map(|(_, name, _)| text(name).into_owned())),
                    list(labels.iter().map(|(_, _, value)| text(value).into_owned())),
                ],
            );
        }
    }

    fn passed(&mut self, batch: &'a Batch<'a>) {
        let jobs = || batch.passed.iter();
        if batch.passed.is_empty() {
            return;
        }
        self.then(
            INSERT_DELETIONS,
            [
                list(jobs().map(|(gone, _)| gone.revision)),
                list(jobs().map(|(gone, _)| gone.at)),
                list(jobs().map(|(gone, _)| gone.job_no)),
                list(jobs().map(|(_, job)| job.job_id.as_str())),
                list(jobs().map(|(_, job)| job.spec.namespace.as_str())),
                list(jobs().map(|(_, job)| &*job.spec.placement.operation)),
                list(jobs().map(|(_, job)| signed(job.spec.created_at.0))),
                list(jobs().map(|(_, job)| job.state.number())),
                list(jobs().map(|(_, job)| job.state.worker())),
                list(jobs().map(|(_, job)| serde_json::json!(events::labels(job.document)).to_string())),
            ],
        );
    }

    fn history(&mut self, batch: &'a Batch<'a>) {
        let entries = || batch.entries.iter();
        if batch.entries.is_empty() {
            return;
        }
        self.then(
            INSERT_HISTORY,
            [
                list(entries().map(|entry| signed(entry.record.revision.0))),
                list(entries().map(|entry| entry.job_no)),
                list(entries().map(|entry| signed(entry.row.sequence))),
                list(entries().map(|entry| signed(entry.record.at.0))),
                list(entries().map(|entry| i64::from(entry.row.attempt))),
                list(entries().map(|entry| batch::number(entry.row))),
                list(entries().map(|entry| entry.row.worker().map(WorkerId::as_str))),
                list(entries().map(|entry| text(&entry.reason))),
                list(entries().map(|entry| entry.progress.map(|progress| progress.percent))),
                list(entries().map(|entry| entry.progress.map(|progress| &progress.body[..]))),
                list(entries().map(|entry| entry.error.as_deref())),
            ],
        );
    }

    fn results(&mut self, batch: &'a Batch<'a>) {
        let kept: Vec<(i64, &[u8])> =
            batch.results.iter().filter_map(|(job_no, result)| Some((*job_no, (*result)?))).collect();
        if !kept.is_empty() {
            let columns = [list(kept.iter().map(|(job_no, _)| *job_no)), list(kept.iter().map(|(_, result)| *result))];
            self.then(INSERT_RESULTS, columns);
        }
        if kept.len() < batch.results.len() {
            let gone = batch.results.iter().filter(|(_, result)| result.is_none());
            self.then(DELETE_RESULTS, [list(gone.map(|(job_no, _)| *job_no))]);
        }
    }

    fn drains(&mut self, batch: &'a Batch<'a>) {
        let in_force: Vec<(&[u8], Option<i64>)> =
            batch.drains.iter().filter_map(|(target, until)| Some((&target[..], (*until)?))).collect();
        if !in_force.is_empty() {
            let columns =
                [list(in_force.iter().map(|(target, _)| *target)), list(in_force.iter().map(|(_, until)| *until))];
            self.then(INSERT_DRAINS, columns);
        }
        if in_force.len() < batch.drains.len() {
            let ended = batch.drains.iter().filter(|(_, until)| until.is_none());
            self.then(DELETE_DRAINS, [list(ended.map(|(target, _)| &target[..]))]);
        }
    }
}

/// PostgreSQL has no NUL in texts. Names and keys were checked; what people write for people loses it here.
fn text(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, at: usize) -> Result<T> {
    row.try_get(at).map_err(failed("read the store"))
}

fn stand(row: &Row, ledger: &mut Ledger) -> Result<()> {
    let number = |at| column(row, at).map(unsigned);
    ledger.revision = Revision(number(0)?);
    ledger.newest = Time(number(1)?);
    ledger.last_lease = LeaseId(number(2)?);
    ledger.totals = Totals { completed: number(3)?, failed: number(4)?, cancelled: number(5)?, timeout: number(6)? };
    Ok(())
}

fn drain(row: &Row) -> Result<(DrainTarget, Option<Time>)> {
    let (target, until): (&[u8], Option<i64>) = (column(row, 0)?, column(row, 1)?);
    let damaged = |source| StoreError::Damaged { job: "(drains)".into(), source };
    Ok((codec::decode_target(target).map_err(damaged)?, until.map(|at| Time(unsigned(at)))))
}

fn entry(row: &Row) -> Result<JobEntry> {
    let (job_no, spec, state, job_id): (i64, &[u8], &[u8], &str) =
        (column(row, 0)?, column(row, 1)?, column(row, 2)?, column(row, 3)?);
    codec::decode_entry(job_no, job_id, spec, state)
}
