//! The log's partitions: ranges of revisions, made ahead of the log and dropped behind it, both without anybody waiting.

use tokio_postgres::error::SqlState;

use super::PostgresError;
use super::session::Link;

/// Revisions of one partition: some hundred MB of a busy store's log, and few enough partitions for the planner.
const SIZE: i64 = 1_000_000;

/// Tables that are partitioned alike.
const TABLES: [&str; 2] = ["history", "deletions"];

/// Who may write.
#[derive(Clone, Copy)]
pub(super) struct Fence {
    pub(super) epoch: i64,
    pub(super) connection: i64,
}

/// What there is.
pub(super) struct Partitions {
    /// The first revision that has no partition yet.
    end: i64,
}

impl Partitions {
    /// Those that a store at `revision` needs next.
    pub(super) async fn made(link: &Link, fence: Fence, revision: i64) -> Result<Self, PostgresError> {
        let last = all(link).await?.into_iter().max();
        let mut partitions = Self { end: last.map_or(revision / SIZE * SIZE, |from| from + SIZE) };
        partitions.make_ahead(link, fence, revision).await?;
        Ok(partitions)
    }

    /// Makes what a commit up to `revision` needs, and the next one early.
    pub(super) async fn make_ahead(&mut self, link: &Link, fence: Fence, revision: i64) -> Result<(), PostgresError> {
        while self.end <= revision.saturating_add(SIZE / 2) {
            let (from, to) = (self.end, self.end + SIZE);
            let mut sql = fence.sql();
            for table in TABLES {
                // Attaching an empty table holds up nobody who reads; making it as a partition at once would.
                sql += &format!(
                    "CREATE TABLE {table}_{from} (LIKE {table} INCLUDING ALL);
                     ALTER TABLE {table} ATTACH PARTITION {table}_{from} FOR VALUES FROM ({from}) TO ({to});"
                );
            }
            transaction(link, &sql).await?;
            self.end = to;
        }
        Ok(())
    }

    /// Drops partitions whose last entry is older than `before` and that no job which is still there has an entry in.
    pub(super) async fn drop_before(&self, link: &Link, fence: Fence, before: i64) -> Result<usize, PostgresError> {
        let mut dropped = 0;
        for from in all(link).await? {
            let to = from + SIZE;
            // A partition that the log has not left has no last entry yet.
            let sql = format!(
                "SELECT (SELECT revision >= {to} FROM standing)
                    AND coalesce((SELECT at FROM history_{from} ORDER BY revision DESC LIMIT 1) < $1, true)
                    AND coalesce((SELECT at FROM deletions_{from} ORDER BY revision DESC LIMIT 1) < $1, true)
                    AND NOT EXISTS (SELECT FROM jobs j WHERE j.job_no < {to}
                        AND EXISTS (SELECT FROM history_{from} h WHERE h.job_no = j.job_no))"
            );
            let row = link.client.query_one(&sql, &[&before]).await?;
            if !row.try_get::<_, bool>(0)? {
                continue;
            }
            let mut sql = fence.sql();
            sql += &format!(
                "UPDATE standing SET compacted = greatest(compacted, {to} - 1); SET LOCAL lock_timeout = '1s';"
            );
            TABLES.iter().for_each(|table| sql += &format!("DROP TABLE {table}_{from};"));
            match transaction(link, &sql).await {
                Ok(()) => dropped += 1,
                // Somebody reads it for long; the next time, then.
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(dropped)
    }
}

impl Fence {
    /// Fails unless this epoch and connection may write, and keeps it so until the end of the transaction.
    fn sql(self) -> String {
        let Self { epoch, connection } = self;
        format!(
            "UPDATE standing SET revision = CASE WHEN epoch = {epoch} AND connection = {connection} THEN revision END;"
        )
    }
}

/// All or nothing of `sql`.
async fn transaction(link: &Link, sql: &str) -> Result<(), PostgresError> {
    // One message of several statements is a transaction; a failure leaves none open.
    Ok(link.client.batch_execute(sql).await?)
}

/// The first revisions of the partitions there are, in order.
async fn all(link: &Link) -> Result<Vec<i64>, PostgresError> {
    let sql = "SELECT substring(c.relname FROM '^history_([0-9]+)$')::bigint FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'history'::regclass ORDER BY 1";
    let rows = link.client.query(sql, &[]).await?;
    let froms = rows.iter().map(|row| row.try_get::<_, Option<i64>>(0));
    Ok(froms.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}
