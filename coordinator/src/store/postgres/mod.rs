//! The store in PostgreSQL, for several coordinators of which one leads.
//!
//! [`Postgres`] is the database: it brings the schema up to date, holds the election and tells standbys of changes. Whoever
//! won takes the writing side from it ([`Postgres::writer`]); everybody may read ([`Postgres::reader`]).
//!
//! What must stay true: a commit moves the one row of `standing`, and fails unless epoch *and* connection there are its own.
//! So a process that was deposed cannot write, and neither can a commit that was on its way when its connection was lost:
//! the next connection takes the row first, which waits for such a commit or makes it fail. What is read after that is what
//! the old connection wrote, and all that it ever will have written.

mod batch;
mod election;
mod partitions;
mod reader;
mod session;
mod settings;
mod writer;

use std::error::Error as _;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio_postgres::error::{DbError, Severity, SqlState};

use self::session::{Link, PATIENCE, Session};
use self::settings::Settings;
use super::StoreError;

pub use election::{Candidate, Follower, Leader};
pub use reader::PostgresReader;
pub use writer::PostgresStore;

/// Each brings the schema from the version before; `version.version` counts them. Never changed once released.
const MIGRATIONS: [&str; 1] = [include_str!("../../../migrations/postgres/0001_jobs.sql")];

/// Names the lock under which the schema changes: any number that nobody else uses.
const MIGRATION_LOCK: i64 = 0x6775_6573_746b_6974;

type Result<T> = std::result::Result<T, StoreError>;

/// What went wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The server says no, or the connection to it was lost.
    #[error("the database")]
    Database(#[from] tokio_postgres::Error),
    /// The server does not answer.
    #[error("no answer from the database in {} s", PATIENCE.as_secs())]
    Silent,
    /// The connection was lost before.
    #[error("no connection to the database")]
    Lost,
    /// Not a URL of PostgreSQL.
    #[error("not a URL such as postgres://user:password@host:5432/database")]
    Url,
    /// The URL asks for what this version does not have.
    #[error("sslmode={mode} asks for TLS, which this version does not speak to PostgreSQL")]
    Tls {
        /// What is asked for.
        mode: String,
    },
}

impl PostgresError {
    fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Database(error) => error.code(),
            _ => None,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.code() == Some(&SqlState::DISK_FULL)
    }

    /// Whether the next try may succeed without anybody's doing: the server starts, stops, recovers, is full of connections,
    /// or is not reached.
    pub(super) fn may_pass(&self) -> bool {
        const PASSING: [SqlState; 4] = [
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::TOO_MANY_CONNECTIONS,
        ];
        match self {
            Self::Database(error) => match error.code() {
                Some(code) => PASSING.contains(code),
                None => error.is_closed() || error.source().is_some_and(<dyn std::error::Error>::is::<std::io::Error>),
            },
            Self::Silent | Self::Lost => true,
            Self::Url | Self::Tls { .. } => false,
        }
    }

    /// Whether nothing can be asked over this connection any more.
    fn ends_the_connection(&self) -> bool {
        match self {
            Self::Database(error) => match error.as_db_error().map(DbError::parsed_severity) {
                Some(severity) => matches!(severity, Some(Severity::Fatal | Severity::Panic)),
                // A value that cannot be encoded or decoded does not end it, but never happens either.
                None => true,
            },
            Self::Silent | Self::Lost => true,
            Self::Url | Self::Tls { .. } => false,
        }
    }
}

fn failed<E: Into<PostgresError>>(action: &'static str) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError::Postgres { action, source: source.into() }
}

/// A database that coordinators share.
#[derive(Clone)]
pub struct Postgres {
    settings: Arc<Settings>,
    runtime: Handle,
    /// The connection of elections, kept between calls.
    control: Arc<Mutex<Option<Session>>>,
}

/// Where it is, without the password.
impl std::fmt::Display for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.settings.fmt(f)
    }
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Postgres {
    /// Connects to the database of `url` and brings its schema up to date; any number of coordinators may do so at once.
    ///
    /// # Errors
    /// When the URL is none, the database cannot be reached, or is of a later version.
    pub async fn open(url: &str) -> Result<Self> {
        let settings = Settings::parse(url).map_err(failed("read the store's URL"))?;
        let mut session = Session::connect(&settings).await.map_err(failed("open the store"))?;
        migrate(&mut session).await?;
        let control = Arc::new(Mutex::new(Some(session)));
        Ok(Self { settings: settings.into(), runtime: Handle::current(), control })
    }
}

async fn migrate(session: &mut Session) -> Result<()> {
    let link = session.link();
    let found = session.drive(PATIENCE, bring_up_to_date(&link)).await.map_err(failed("migrate the store"))?;
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    if found > known { Err(StoreError::TooNew { found, known }) } else { Ok(()) }
}

/// The version found, which may be one of the future; then nothing was done.
async fn bring_up_to_date(link: &Link) -> std::result::Result<u32, PostgresError> {
    // In one transaction, so that whoever waits for the lock finds all of it done; whoever fails leaves nothing.
    let lock = format!(
        "BEGIN; SELECT pg_advisory_xact_lock({MIGRATION_LOCK});
         CREATE SCHEMA IF NOT EXISTS guestkit;
         CREATE TABLE IF NOT EXISTS version (version INTEGER NOT NULL);"
    );
    link.client.batch_execute(&lock).await?;
    let row = link.client.query_opt("SELECT version FROM version", &[]).await?;
    let found = row.map_or(Ok(0), |row| row.try_get::<_, i32>(0))?;
    let found = u32::try_from(found).unwrap_or(0);
    for sql in MIGRATIONS.iter().skip(found as usize) {
        link.client.batch_execute(sql).await?;
    }
    if (found as usize) < MIGRATIONS.len() {
        let version = MIGRATIONS.len();
        let sql = format!("DELETE FROM version; INSERT INTO version VALUES ({version})");
        link.client.batch_execute(&sql).await?;
    }
    link.client.batch_execute("COMMIT").await?;
    Ok(found)
}
