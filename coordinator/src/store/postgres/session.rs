//! One connection to the database, driven by whoever uses it: there is no task behind it, an answer wakes the very thread
//! that waits for it, and dropping it closes it.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, NoTls, Row, Statement};

use super::PostgresError;
use super::settings::Settings;

/// What every session is told first. A commit returns after the server's fsync, whatever the database's own default is.
const SETUP: &str =
    "SET search_path = guestkit; SET synchronous_commit = on; SET jit = off; SET client_min_messages = warning";

/// Statements kept prepared: more than there are of fixed text; lists with unusual filters make room for each other.
const STATEMENTS_MAX: usize = 128;

/// Longest wait for an answer. A server that takes longer is as good as gone: the connection is given up, and what became of
/// the last commit is found out with the next one.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

type Messages = std::pin::Pin<Box<dyn Stream<Item = Result<AsyncMessage, tokio_postgres::Error>> + Send>>;

/// What a statement is given.
pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A connection.
pub(super) struct Session {
    link: Arc<Link>,
    /// `None` once it is lost.
    messages: Option<Messages>,
    notified: Vec<String>,
}

/// The side of a connection that is spoken to.
pub(super) struct Link {
    pub(super) client: Client,
    statements: Mutex<HashMap<String, Statement>>,
}

impl Session {
    /// Connects.
    pub(super) async fn connect(settings: &Settings) -> Result<Self, PostgresError> {
        let connecting = settings.config().connect(NoTls);
        let (client, mut connection) =
            tokio::time::timeout(PATIENCE, connecting).await.map_err(|_| PostgresError::Silent)??;
        let messages = futures::stream::poll_fn(move |cx| connection.poll_message(cx)).boxed();
        let link = Arc::new(Link { client, statements: Mutex::default() });
        let mut session = Self { link, messages: Some(messages), notified: Vec::new() };
        let link = session.link();
        session.drive(PATIENCE, async { Ok(link.client.batch_execute(SETUP).await?) }).await?;
        Ok(session)
    }

    /// Whether nothing can be asked any more.
    pub(super) fn is_lost(&self) -> bool {
        self.messages.is_none()
    }

    /// The side that is spoken to, for the `work` of [`Self::drive`].
    pub(super) fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link)
    }

    /// Does `work`, which speaks to the server over this session's link, and moves bytes meanwhile.
    pub(super) async fn drive<T>(
        &mut self,
        patience: Duration,
        work: impl Future<Output = Result<T, PostgresError>>,
    ) -> Result<T, PostgresError> {
        let result = tokio::time::timeout(patience, self.attend(work)).await.unwrap_or(Err(PostgresError::Silent));
        if result.as_ref().is_err_and(PostgresError::ends_the_connection) {
            self.messages = None;
        }
        result
    }

    async fn attend<T>(&mut self, work: impl Future<Output = Result<T, PostgresError>>) -> Result<T, PostgresError> {
        let mut work = pin!(work);
        let mut cause = None;
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = work.as_mut().poll(cx) {
                    // Why the connection ended says more than that it did.
                    let told = |error: PostgresError| match cause.take() {
                        Some(cause) if error.ends_the_connection() => PostgresError::Database(cause),
                        _ => error,
                    };
                    return Poll::Ready(result.map_err(told));
                }
                match self.poll_message(cx) {
                    Poll::Ready(Err(error)) => cause = Some(error),
                    Poll::Ready(Ok(())) => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Moves bytes; ready when a message came, or the connection was lost just now.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), tokio_postgres::Error>> {
        let Some(messages) = &mut self.messages else { return Poll::Pending };
        let message = ready!(messages.poll_next_unpin(cx)).transpose();
        if !matches!(message, Ok(Some(_))) {
            self.messages = None;
        }
        if let Ok(Some(AsyncMessage::Notification(notification))) = &message {
            self.notified.push(notification.payload().into());
        }
        Poll::Ready(message.map(drop))
    }

    /// Waits until the server notified of something; everything it did so far. Empty when the connection is lost.
    pub(super) async fn notified(&mut self) -> Vec<String> {
        while self.notified.is_empty() && !self.is_lost() {
            // A connection that ended says so by being lost.
            let _ = poll_fn(|cx| self.poll_message(cx)).await;
        }
        std::mem::take(&mut self.notified)
    }
}

impl Link {
    /// The statement of this text, prepared once.
    pub(super) async fn prepared(&self, sql: &str) -> Result<Statement, PostgresError> {
        let known = self.statements().get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        let mut statements = self.statements();
        if statements.len() >= STATEMENTS_MAX {
            statements.clear();
        }
        statements.insert(sql.into(), statement.clone());
        Ok(statement)
    }

    fn statements(&self) -> MutexGuard<'_, HashMap<String, Statement>> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All rows of an answer.
    pub(super) async fn rows(&self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, PostgresError> {
        let statement = self.prepared(sql).await?;
        Ok(self.client.query(&statement, parameters).await?)
    }

    /// The one row of an answer, where there is one.
    pub(super) async fn row(&self, sql: &str, parameters: Parameters<'_>) -> Result<Option<Row>, PostgresError> {
        let statement = self.prepared(sql).await?;
        Ok(self.client.query_opt(&statement, parameters).await?)
    }
}
