//! The reading side: connections of its own, as many as read at once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use guestkit_domain::{JobId, Revision, Time};
use rusqlite::types::Value;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};

use super::session::{PATIENCE, Session};
use super::{Postgres, PostgresError, Result, failed};
use crate::store::read::{Changes, JobFilter, JobNo, Page, Span, StoredChange, StoredDeletion, StoredEvent, StoredJob};
use crate::store::sqlite::{Criteria, LABELS_OF_JOB, PAGE_DOCUMENT_BYTES_MAX, PAGE_EVENT_BYTES_MAX, event_bytes};
use crate::store::{ReadStore, StoreError, codec, signed, state_of, unsigned};

/// Connections kept for readers: as many as read at once.
const READERS_KEPT: usize = 8;

/// What a job is, as `stored_job` reads it; its latest progress follows.
const JOB_COLUMNS: &str = "j.job_no, j.job_id, d.document, j.created_at, j.row, j.error";

/// What an entry of a log is, as `stored_event` reads it.
const EVENT_COLUMNS: &str =
    "h.sequence, h.at, h.revision, h.state, h.attempt, h.worker_id, h.reason, h.progress, h.error,
    h.percent";

/// The latest progress of a job `j`. Its log begins at its own number, which tells partitions that have none of it.
const LATEST_PROGRESS: &str = "LEFT JOIN LATERAL (SELECT * FROM history h
    WHERE h.job_no = j.job_no AND h.revision >= j.job_no AND h.percent IS NOT NULL ORDER BY h.sequence DESC LIMIT 1) h ON true";

/// Whether a job that is gone had a label.
const LABELS_OF_DELETION: &str = "j.labels @> jsonb_build_object(?, ?)";

/// What entries `h` before this one weigh: an answer ends with the first that goes beyond a message.
const WEIGHT_BEFORE: &str = "coalesce(sum(octet_length(h.reason) + coalesce(octet_length(h.progress), 0)
    + coalesce(octet_length(h.error), 0)) OVER (ORDER BY h.revision ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)";

/// The reading side. Standbys have it as the leader has.
pub struct PostgresReader {
    database: Postgres,
    idle: Mutex<Vec<Session>>,
}

impl std::fmt::Debug for PostgresReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresReader").field("database", &self.database).finish_non_exhaustive()
    }
}

impl Postgres {
    /// The reading side. It connects when it is asked.
    #[must_use]
    pub fn reader(&self) -> PostgresReader {
        PostgresReader { database: self.clone(), idle: Mutex::default() }
    }
}

impl PostgresReader {
    /// All rows of an answer. A connection that was lost while nobody looked, as all are when the server is restarted, is
    /// replaced once.
    fn rows(&self, action: &'static str, sql: &str, parameters: &[Box<dyn ToSql + Sync>]) -> Result<Vec<Row>> {
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|parameter| &**parameter).collect();
        let idle = self.idle().pop();
        if let Some(mut session) = idle {
            match self.ask(&mut session, sql, &parameters) {
                Err(_) if session.is_lost() => {}
                result => return self.keep(session, result).map_err(failed(action)),
            }
        }
        let connecting = Session::connect(&self.database.settings);
        let mut session = self.database.runtime.block_on(connecting).map_err(failed(action))?;
        let result = self.ask(&mut session, sql, &parameters);
        self.keep(session, result).map_err(failed(action))
    }

    fn ask(
        &self,
        session: &mut Session,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> std::result::Result<Vec<Row>, PostgresError> {
        let link = session.link();
        self.database.runtime.block_on(session.drive(PATIENCE, link.rows(sql, parameters)))
    }

    fn keep<T>(&self, session: Session, result: T) -> T {
        let mut idle = self.idle();
        if idle.len() < READERS_KEPT && !session.is_lost() {
            idle.push(session);
        }
        result
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries of logs in a span that match, and how far they reach.
    fn events(&self, filter: &JobFilter, span: Span, limit: usize) -> Result<(Vec<StoredEvent>, Revision)> {
        let mut criteria = Criteria::of_job(filter, LABELS_OF_JOB);
        criteria.within("h", span);
        criteria.after_or_before(filter);
        let Some((clause, parameters)) = numbered(criteria) else { return Ok((Vec::new(), span.until)) };
        let sql = format!(
            "SELECT h.job_id, {EVENT_COLUMNS} FROM (SELECT h.*, {WEIGHT_BEFORE} AS before FROM (
                SELECT j.job_id, h.* FROM history h JOIN jobs j USING (job_no) {clause}
                ORDER BY h.revision LIMIT {limit}) h) h
             WHERE before <= {PAGE_EVENT_BYTES_MAX} ORDER BY h.revision"
        );
        let rows = self.rows("read changes", &sql, &parameters)?;
        let events: Vec<StoredEvent> =
            rows.iter().map(|row| stored_event(row, column(row, 0)?, 1)).collect::<Result<_>>()?;
        let full = events.len() == limit || events.iter().map(event_bytes).sum::<usize>() > PAGE_EVENT_BYTES_MAX;
        let reached = events.last().filter(|_| full).map_or(span.until, |event| event.revision);
        Ok((events, reached))
    }

    /// Deletions in a span that match, and how far they reach.
    fn deletions(&self, filter: &JobFilter, span: Span, limit: usize) -> Result<(Vec<StoredDeletion>, Revision)> {
        let mut criteria = Criteria::of(filter, LABELS_OF_DELETION);
        criteria.within("j", span);
        let Some((clause, parameters)) = numbered(criteria) else { return Ok((Vec::new(), span.until)) };
        let sql =
            format!("SELECT j.job_id, j.at, j.revision FROM deletions j {clause} ORDER BY j.revision LIMIT {limit}");
        let rows = self.rows("read changes", &sql, &parameters)?;
        let deletion = |row: &Row| {
            let (at, revision) = (unsigned(column(row, 1)?), unsigned(column(row, 2)?));
            let job_id = codec::checked_job_id(column(row, 0)?)?;
            Ok(StoredDeletion { job_id, at: Time(at), revision: Revision(revision) })
        };
        let deletions: Vec<StoredDeletion> = rows.iter().map(deletion).collect::<Result<_>>()?;
        let reached = deletions.last().filter(|_| deletions.len() == limit).map_or(span.until, |last| last.revision);
        Ok((deletions, reached))
    }

    fn blob(&self, sql: &str, job_id: &JobId) -> Result<Option<Vec<u8>>> {
        let rows = self.rows("read a job", sql, &[Box::new(job_id.to_string())])?;
        rows.first().map(|row| column(row, 0)).transpose()
    }
}

impl ReadStore for PostgresReader {
    fn job(&self, job_id: &JobId) -> Result<Option<StoredJob>> {
        let sql = format!(
            "SELECT {JOB_COLUMNS}, {EVENT_COLUMNS} FROM jobs j JOIN documents d USING (job_no) {LATEST_PROGRESS}
             WHERE j.job_id = $1"
        );
        let rows = self.rows("read a job", &sql, &[Box::new(job_id.to_string())])?;
        rows.first().map(stored_job).transpose()
    }

    fn list(&self, filter: &JobFilter, after: Option<JobNo>, page_size: usize) -> Result<Page> {
        let mut criteria = Criteria::of(filter, LABELS_OF_JOB);
        if let Some(after) = after {
            criteria.add("j.job_no < ?", [Value::Integer(after.0)]);
        }
        let (clause, parameters) = numbered(criteria).unwrap_or_else(|| ("WHERE false".into(), Vec::new()));
        // One more than asked for tells whether there is a next page; so does the first whose document is too much. One
        // statement, so that the page is as of the revision that stands beside it.
        let limit = page_size.saturating_add(1);
        let sql = format!(
            "WITH page AS MATERIALIZED (SELECT * FROM jobs j {clause} ORDER BY j.job_no DESC LIMIT {limit}),
             weighed AS (SELECT j.job_no, coalesce(sum(octet_length(d.document) + coalesce(octet_length(j.error), 0))
                OVER (ORDER BY j.job_no DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
                FROM page j JOIN documents d USING (job_no))
             SELECT {JOB_COLUMNS}, {EVENT_COLUMNS}, s.revision FROM standing s
             LEFT JOIN (page j JOIN weighed USING (job_no) JOIN documents d USING (job_no))
                ON before <= {PAGE_DOCUMENT_BYTES_MAX} {LATEST_PROGRESS} ORDER BY j.job_no DESC"
        );
        let rows = self.rows("list jobs", &sql, &parameters)?;
        let revision = rows.first().map_or(Ok(0), |row| column(row, 16))?;
        let revision = Revision(unsigned(revision));
        let mut jobs: Vec<StoredJob> = Vec::new();
        let mut bytes = 0;
        for row in &rows {
            if column::<Option<i64>>(row, 0)?.is_none() {
                // The revision's own row, of a page without jobs.
                break;
            }
            let job = stored_job(row)?;
            bytes += job.document.len() + job.error.as_ref().map_or(0, Vec::len);
            let full = jobs.len() == page_size || bytes > PAGE_DOCUMENT_BYTES_MAX;
            if let Some(StoredJob { job_no: last, .. }) = jobs.last().filter(|_| full) {
                return Ok(Page { revision, next: Some(*last), jobs });
            }
            bytes += job.progress.as_ref().and_then(|event| event.progress.as_ref()).map_or(0, Vec::len);
            jobs.push(job);
        }
        Ok(Page { revision, jobs, next: None })
    }

    fn history(&self, job_no: JobNo, after: u64, limit: usize) -> Result<Option<Vec<StoredEvent>>> {
        let action = "read a job's log";
        let sql = format!(
            "SELECT j.job_id, {EVENT_COLUMNS} FROM (SELECT h.*, {WEIGHT_BEFORE} AS before FROM (
                SELECT * FROM history h WHERE h.job_no = $1 AND h.revision >= $1 AND h.sequence > $2
                ORDER BY h.sequence LIMIT {limit}) h) h JOIN jobs j USING (job_no)
             WHERE before <= {PAGE_EVENT_BYTES_MAX} ORDER BY h.sequence"
        );
        let rows = self.rows(action, &sql, &[Box::new(job_no.0), Box::new(signed(after))])?;
        if rows.is_empty() && self.rows(action, "SELECT FROM jobs WHERE job_no = $1", &[Box::new(job_no.0)])?.is_empty()
        {
            return Ok(None);
        }
        Ok(Some(rows.iter().map(|row| stored_event(row, column(row, 0)?, 1)).collect::<Result<_>>()?))
    }

    fn changes(&self, filter: &JobFilter, span: Span, limit: usize) -> Result<Changes> {
        let (events, events_reach) = self.events(filter, span, limit)?;
        let (deletions, deletions_reach) = self.deletions(filter, span, limit)?;
        // Asked last: what was not compacted until now was there to be read.
        let standing = self.rows("read changes", "SELECT compacted FROM standing", &[])?;
        let oldest = standing.first().map_or(Ok(0), |row| column(row, 0))?;
        let oldest = Revision(unsigned(oldest));
        if span.after < oldest {
            return Ok(Changes::Compacted { oldest });
        }
        let reached = events_reach.min(deletions_reach);
        Ok(Changes::Page { changes: StoredChange::merged(events, deletions, reached), reached })
    }

    fn expired(&self, before: Time, limit: usize) -> Result<Vec<JobId>> {
        let sql = format!("SELECT job_id FROM jobs WHERE ended_at < $1 ORDER BY ended_at, job_no LIMIT {limit}");
        let rows = self.rows("find jobs that are over for long", &sql, &[Box::new(signed(before.0))])?;
        rows.iter().map(|row| codec::checked_job_id(column(row, 0)?)).collect()
    }

    fn result(&self, job_id: &JobId) -> Result<Option<Vec<u8>>> {
        self.blob("SELECT result FROM results JOIN jobs USING (job_no) WHERE job_id = $1", job_id)
    }

    fn documents(&self, job_ids: &[JobId]) -> Result<HashMap<JobId, Vec<u8>>> {
        let sql = "SELECT job_id, document FROM jobs JOIN documents USING (job_no) WHERE job_id = ANY($1)";
        let asked: Vec<String> = job_ids.iter().map(ToString::to_string).collect();
        let found = self.rows("read documents", sql, &[Box::new(asked)])?;
        found.iter().map(|row| Ok((codec::checked_job_id(&column::<String>(row, 0)?)?, column(row, 1)?))).collect()
    }
}

/// The clause of `criteria` with numbered marks, and its parameters. `None` when nothing can match: a text with a NUL, which
/// no text of PostgreSQL has.
fn numbered(criteria: Criteria) -> Option<(String, Vec<Box<dyn ToSql + Sync>>)> {
    let clause = criteria.clause();
    let mut texts = clause.split('?');
    let mut sql = texts.next().unwrap_or_default().to_owned();
    let mut parameters: Vec<Box<dyn ToSql + Sync>> = Vec::new();
    for (value, text) in criteria.values.into_iter().zip(texts) {
        let (parameter, kind): (Box<dyn ToSql + Sync>, _) = match value {
            Value::Integer(number) => (Box::new(number), "bigint"),
            Value::Text(text) if !text.contains('\0') => (Box::new(text), "text"),
            _ => return None,
        };
        parameters.push(parameter);
        sql += &format!("${}::{kind}{text}", parameters.len());
    }
    Some((sql, parameters))
}

fn column<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T> {
    row.try_get(at).map_err(failed("read the store"))
}

fn stored_job(row: &Row) -> Result<StoredJob> {
    let job_id: &str = column(row, 1)?;
    let row_of_job: &[u8] = column(row, 4)?;
    let damaged = |source| StoreError::Damaged { job: job_id.into(), source };
    let progress: Option<i64> = column(row, 6)?;
    Ok(StoredJob {
        job_no: JobNo(column(row, 0)?),
        job_id: codec::checked_job_id(job_id)?,
        document: column(row, 2)?,
        created_at: Time(unsigned(column(row, 3)?)),
        row: codec::decode_row(row_of_job).map_err(damaged)?,
        error: column(row, 5)?,
        progress: progress.map(|_| stored_event(row, job_id, 6)).transpose()?,
    })
}

/// The entry whose columns begin at `first`.
fn stored_event(row: &Row, job_id: &str, first: usize) -> Result<StoredEvent> {
    let number = |at: usize| column(row, first + at).map(unsigned);
    let state: i16 = column(row, first + 3)?;
    let damaged = |source| StoreError::Damaged { job: job_id.into(), source };
    Ok(StoredEvent {
        job_id: codec::checked_job_id(job_id)?,
        sequence: number(0)?,
        at: Time(number(1)?),
        revision: Revision(number(2)?),
        state: state_of(state.into()).map_err(damaged)?,
        attempt: u32::try_from(number(4)?).unwrap_or(u32::MAX),
        worker_id: column(row, first + 5)?,
        reason: column(row, first + 6)?,
        progress: column(row, first + 7)?,
        error: column(row, first + 8)?,
        percent: column(row, first + 9)?,
    })
}
