//! Who leads: one row with an epoch, renewed by the leader, judged by the database's clock; and how the others hear of it.

use std::time::Duration;

use guestkit_domain::Revision;
use tokio::sync::watch;
use tracing::warn;

use super::session::{Link, PATIENCE, Parameters, Session};
use super::{Postgres, PostgresError, Result, failed};
use crate::store::signed;
use crate::store::{Epoch, StoreError, unsigned};

/// What commits and elections are notified on. The payload of a commit is its revision, that of an election [`ELECTED`].
pub(super) const CHANNEL: &str = "guestkit";
const ELECTED: &str = "leader";

/// How often a follower looks by itself: notifications may be lost with their connection.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Who wants to lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// A name for logs.
    pub id: String,
    /// Where it serves, for clients that ask somebody else.
    pub address: String,
}

/// Who leads, as far as the database knows: the last that was elected and did not resign. It may have died since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its name.
    pub id: String,
    /// Where it serves.
    pub address: String,
}

/// What is durable and who leads, kept up to date for as long as this lives. Both may be late, never wrong about the past.
#[derive(Debug)]
pub struct Follower {
    /// What is durable.
    pub revision: watch::Receiver<Revision>,
    /// Who leads.
    pub leader: watch::Receiver<Option<Leader>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Postgres {
    /// Leads, if nobody does or the leader was not heard of for `ttl`; then the epoch returned is the only one that may write.
    ///
    /// # Errors
    /// As all here: when the database does not answer. Whether the election was won is then not known; it can be lost by
    /// waiting for `ttl`.
    pub async fn campaign(&self, candidate: &Candidate, ttl: Duration) -> Result<Option<Epoch>> {
        // A renewal far in the future is one of a clock that was set back since.
        let sql = "WITH won AS (
                UPDATE standing SET epoch = epoch + 1, leader = $1, address = $2, renewed_at = clock_timestamp()
                WHERE leader IS NULL OR renewed_at <= clock_timestamp() - make_interval(secs => $3)
                    OR renewed_at > clock_timestamp() + make_interval(secs => $3) + '1 s'
                RETURNING epoch)
            SELECT epoch, pg_notify($4, $5) FROM won";
        let parameters: Parameters<'_> = &[&candidate.id, &candidate.address, &ttl.as_secs_f64(), &CHANNEL, &ELECTED];
        let row = self.ask("take the lead", sql, parameters).await?;
        row.map(|row| row.try_get(0).map(epoch).map_err(failed("take the lead"))).transpose()
    }

    /// Says that the leader lives. A commit says so too.
    ///
    /// # Errors
    /// [`StoreError::Deposed`] when another leads, or nobody.
    pub async fn renew(&self, epoch: Epoch) -> Result<()> {
        let sql = "UPDATE standing SET renewed_at = clock_timestamp() WHERE epoch = $1 RETURNING 1";
        let renewed = self.ask("renew the lead", sql, &[&signed(epoch.0)]).await?;
        renewed.map(drop).ok_or(StoreError::Deposed { ours: epoch.0 })
    }

    /// Leads no more: the next need not wait, and this epoch may not write any more.
    ///
    /// # Errors
    /// [`StoreError::Deposed`] when it did not lead.
    pub async fn resign(&self, epoch: Epoch) -> Result<()> {
        let sql = "WITH resigned AS (
                UPDATE standing SET epoch = epoch + 1, leader = NULL, address = NULL WHERE epoch = $1 RETURNING epoch)
            SELECT epoch, pg_notify($2, $3) FROM resigned";
        let resigned = self.ask("resign", sql, &[&signed(epoch.0), &CHANNEL, &ELECTED]).await?;
        resigned.map(drop).ok_or(StoreError::Deposed { ours: epoch.0 })
    }

    /// Who leads.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn leader(&self) -> Result<Option<Leader>> {
        let row = self.ask("ask who leads", STANDING, &[]).await?;
        let standing = row.as_ref().map(standing).transpose().map_err(failed("ask who leads"))?;
        Ok(standing.and_then(|(_, leader)| leader))
    }

    /// What is durable.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revision(&self) -> Result<Revision> {
        let row = self.ask("ask what is durable", STANDING, &[]).await?;
        let standing = row.as_ref().map(standing).transpose().map_err(failed("ask what is durable"))?;
        Ok(standing.map_or(Revision::default(), |(revision, _)| revision))
    }

    /// Follows the leader: for standbys, whose watchers wake by it.
    #[must_use]
    pub fn follow(&self) -> Follower {
        let revision = watch::Sender::new(Revision::default());
        let leader = watch::Sender::new(None);
        let (revisions, leaders) = (revision.subscribe(), leader.subscribe());
        let task = self.runtime.spawn(follow(self.clone(), Heard { revision, leader }));
        Follower { revision: revisions, leader: leaders, task }
    }

    /// The one row of an answer, over the connection that is kept for this; another is made when it was lost. A call that is
    /// given up takes its connection with it.
    async fn ask(
        &self,
        action: &'static str,
        sql: &str,
        parameters: Parameters<'_>,
    ) -> Result<Option<tokio_postgres::Row>> {
        let mut control = self.control.lock().await;
        let mut session = match control.take().filter(|session| !session.is_lost()) {
            Some(session) => session,
            None => Session::connect(&self.settings).await.map_err(failed(action))?,
        };
        let link = session.link();
        let row = session.drive(PATIENCE, link.row(sql, parameters)).await.map_err(failed(action));
        *control = Some(session);
        row
    }
}

const STANDING: &str = "SELECT revision, epoch, leader, address FROM standing";

fn epoch(number: i64) -> Epoch {
    Epoch(unsigned(number))
}

fn standing(row: &tokio_postgres::Row) -> std::result::Result<(Revision, Option<Leader>), PostgresError> {
    let revision = Revision(unsigned(row.try_get(0)?));
    let epoch = epoch(row.try_get(1)?);
    let (id, address): (Option<String>, Option<String>) = (row.try_get(2)?, row.try_get(3)?);
    Ok((revision, id.zip(address).map(|(id, address)| Leader { epoch, id, address })))
}

/// Where a follower tells what it hears.
struct Heard {
    revision: watch::Sender<Revision>,
    leader: watch::Sender<Option<Leader>>,
}

impl Heard {
    fn revision(&self, revision: Revision) {
        self.revision.send_if_modified(|known| {
            let newer = *known < revision;
            *known = revision.max(*known);
            newer
        });
    }

    async fn look(&self, link: &Link) -> std::result::Result<(), PostgresError> {
        if let Some(row) = link.row(STANDING, &[]).await? {
            let (revision, leader) = standing(&row)?;
            self.revision(revision);
            self.leader.send_if_modified(|known| {
                let other = *known != leader;
                *known = leader;
                other
            });
        }
        Ok(())
    }
}

async fn follow(postgres: Postgres, heard: Heard) {
    loop {
        let Err(error) = listen(&postgres, &heard).await;
        warn!(error = &error as &dyn std::error::Error, "the store's notifications were lost");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn listen(postgres: &Postgres, heard: &Heard) -> std::result::Result<std::convert::Infallible, PostgresError> {
    let mut session = Session::connect(&postgres.settings).await?;
    let link = session.link();
    session.drive(PATIENCE, async { Ok(link.client.batch_execute(&format!("LISTEN {CHANNEL}")).await?) }).await?;
    loop {
        // After listening began, so that nothing falls between; and again and again, so that nothing is missed for long.
        session.drive(PATIENCE, heard.look(&link)).await?;
        let until = tokio::time::Instant::now() + POLL_INTERVAL;
        while let Ok(told) = tokio::time::timeout_at(until, session.notified()).await {
            if session.is_lost() {
                return Err(PostgresError::Lost);
            }
            told.iter().filter_map(|payload| payload.parse().ok()).for_each(|number| heard.revision(Revision(number)));
            if told.iter().any(|payload| payload == ELECTED) {
                break;
            }
        }
    }
}
