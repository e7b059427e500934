//! Who decides: on a store of its own this coordinator always does; on one that several share, whoever of them was elected.
//!
//! ```text
//!            won: the store is read, the driver starts
//! Standby ──────────────────────────────────────────────► Leader
//!    ▲                                                      │
//!    └── deposed, not renewed in time, or asked to stop ◄───┘
//! ```
//!
//! A leader renews its lead from a task of its own, which no commit can hold up, and judges by its own monotonic clock
//! whether the renewal came in time: by when another may have been elected, this one has stopped deciding. Until then reads
//! of its live state may be out of date; writes never are, because each commit checks the epoch.

use std::time::Duration;

use guestkit_domain::Revision;
use guestkit_scheduler as scheduler;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::driver::{self, Driver, Outlets, Start};
use crate::ground::System;
use crate::store::{Candidate, Changes, Epoch, Follower, Postgres, Readers, Span, Store as _, StoreError};
use crate::watch::WatchHub;

/// Between two tries of a standby to be elected, at the longest.
const CAMPAIGN_INTERVAL: Duration = Duration::from_millis(500);

/// Between two renewals of the lead, at the longest.
const RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// Between two tries of a renewal that failed.
const RENEW_AGAIN: Duration = Duration::from_millis(100);

/// How long a caller waits while nobody leads: an election of the usual kind is over by then.
const ELECTION_PATIENCE: Duration = Duration::from_secs(5);

/// How long the database may take to be told that we leave, and to tell who leads.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What this coordinator is.
#[derive(Debug, Clone)]
pub enum Role {
    /// It decides.
    Leader(Driver),
    /// It answers what the store answers.
    Standby {
        /// The address of the one that decides, when it is known.
        leader: Option<String>,
    },
}

/// Another coordinator leads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this coordinator does not lead")]
pub struct NotLeader {
    /// The address of the one that does, when it is known.
    pub leader: Option<String>,
}

/// The role, as it changes.
#[derive(Debug, Clone)]
pub struct Lead(watch::Receiver<Role>);

impl Lead {
    /// The role that `roles` tells.
    #[must_use]
    pub fn new(roles: watch::Receiver<Role>) -> Self {
        Self(roles)
    }

    /// The driver, where this coordinator leads. Waits while nobody is known to lead, so that whoever asks during an election
    /// need not ask again.
    ///
    /// # Errors
    /// When another leads, or still nobody.
    pub async fn driver(&self) -> Result<Driver, NotLeader> {
        let mut roles = self.0.clone();
        let settled = roles.wait_for(|role| !matches!(role, Role::Standby { leader: None }));
        // Without an election in time the answer is what is known.
        let _ = timeout(ELECTION_PATIENCE, settled).await;
        match self.role() {
            Role::Leader(driver) => Ok(driver),
            Role::Standby { leader } => Err(NotLeader { leader }),
        }
    }

    /// Ends when the epoch does in which this coordinator leads.
    pub async fn left(&self, epoch: Epoch) {
        let over = |role: &Role| !matches!(role, Role::Leader(driver) if driver.epoch() == epoch);
        // A sender that is gone is a coordinator that has stopped.
        let _ = self.0.clone().wait_for(over).await;
    }

    /// What this coordinator is now.
    #[must_use]
    pub fn role(&self) -> Role {
        self.0.borrow().clone()
    }

    /// Waits for another role; `false` when there will be none.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// Why nobody decides here any more.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// The store contradicts us, or belongs to somebody else.
    #[error("go on deciding")]
    Store(#[from] StoreError),
    /// The driver's thread is gone without a word.
    #[error("go on: the driver panicked")]
    Panicked,
    /// No thread for the driver.
    #[error("start the driver's thread")]
    Thread(#[source] std::io::Error),
}

/// Keeps this coordinator in its role until it stops.
#[derive(Debug)]
pub enum Decider {
    /// The store is ours alone.
    Alone {
        /// Decides.
        driver: Driver,
        /// Tells that it has stopped.
        ended: Ending,
        /// Where the role is told, which never changes.
        roles: watch::Sender<Role>,
    },
    /// Several share the store.
    Elected(Box<Contest>),
}

type Ending = oneshot::Receiver<Result<(), StoreError>>;

impl Decider {
    /// Until `stopping`, or until going on would be unsound.
    ///
    /// # Errors
    /// When going on would be unsound.
    pub async fn run(self, stopping: watch::Receiver<bool>) -> Result<(), DecideError> {
        match self {
            Self::Alone { driver, mut ended, roles: _kept } => tokio::select! {
                ended = &mut ended => over(ended),
                () = stop(stopping) => {
                    driver.stop().await;
                    over(ended.await)
                }
            },
            Self::Elected(contest) => contest.run(stopping).await,
        }
    }
}

fn over(ended: Result<Result<(), StoreError>, oneshot::error::RecvError>) -> Result<(), DecideError> {
    Ok(ended.map_err(|_| DecideError::Panicked)??)
}

/// Ends when the coordinator stops.
async fn stop(mut stopping: watch::Receiver<bool>) {
    // A sender that is gone is a coordinator that has stopped.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// One of several coordinators.
#[derive(Debug)]
pub struct Contest {
    /// What they share.
    pub postgres: Postgres,
    /// Changes that others make.
    pub follower: Follower,
    /// Who we are.
    pub candidate: Candidate,
    /// How long a leader is one without a word.
    pub ttl: Duration,
    /// How this coordinator decides when it leads.
    pub config: scheduler::Config,
    /// What it tells others about then.
    pub outlets: Outlets,
    /// Where the role is told.
    pub roles: watch::Sender<Role>,
}

/// How a time of leading ended.
enum Lost {
    /// Another leads, or may.
    Deposed,
    /// We are asked to stop.
    Stopping,
}

impl Contest {
    async fn run(mut self: Box<Self>, stopping: watch::Receiver<bool>) -> Result<(), DecideError> {
        loop {
            let won = tokio::select! {
                won = self.wait_to_be_elected() => won,
                () = stop(stopping.clone()) => return Ok(()),
            };
            let (epoch, since) = won;
            info!(epoch = epoch.0, "elected");
            let lost = self.lead(epoch, since, stopping.clone()).await?;
            self.step_down(epoch, &lost).await;
            if matches!(lost, Lost::Stopping) {
                return Ok(());
            }
        }
    }

    /// Tries until it succeeds; with the instant from which the lead counts.
    async fn wait_to_be_elected(&mut self) -> (Epoch, Instant) {
        loop {
            let since = Instant::now();
            match timeout(self.ttl, self.postgres.campaign(&self.candidate, self.ttl)).await {
                Ok(Ok(Some(epoch))) => return (epoch, since),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => warn!(error = &error as &dyn std::error::Error, "the election cannot be held"),
                Err(_) => warn!("the election cannot be held: the database does not answer"),
            }
            self.tell_leader();
            let interval = sleep(CAMPAIGN_INTERVAL.min(self.ttl / 3));
            tokio::select! {
                () = interval => {}
                changed = self.follower.leader.changed() => {
                    if changed.is_err() {
                        sleep(CAMPAIGN_INTERVAL).await;
                    }
                }
            }
        }
    }

    /// Tells where the leader is, as far as it is known.
    fn tell_leader(&mut self) {
        let leader = self.follower.leader.borrow_and_update().clone();
        self.stand_by(self.other(leader));
    }

    /// The address of a leader that is not this coordinator, nor was in an earlier life.
    fn other(&self, leader: Option<crate::store::Leader>) -> Option<String> {
        let other = |leader: &crate::store::Leader| leader.address != self.candidate.address;
        leader.filter(other).map(|leader| leader.address)
    }

    fn stand_by(&self, leader: Option<String>) {
        self.roles.send_if_modified(|role| match role {
            Role::Standby { leader: known } if *known == leader => false,
            role => {
                *role = Role::Standby { leader };
                true
            }
        });
    }

    /// Leads until it is over.
    async fn lead(&self, epoch: Epoch, since: Instant, stopping: watch::Receiver<bool>) -> Result<Lost, DecideError> {
        let renewing = self.renew_while_possible(epoch, since);
        tokio::pin!(renewing);
        // While the store is read, nobody is known to lead, and who asks waits.
        self.stand_by(None);
        let start = tokio::select! {
            start = self.take_over(epoch) => start,
            () = &mut renewing => return Ok(Lost::Deposed),
            () = stop(stopping.clone()) => return Ok(Lost::Stopping),
        };
        let start = match start {
            Ok(start) => start,
            Err(error) if is_contradiction(&error) => return Err(error.into()),
            Err(error) => {
                error!(error = &error as &dyn std::error::Error, "elected, but the store cannot be read");
                return Ok(Lost::Deposed);
            }
        };
        self.outlets.writable.send_replace(true);
        // What the leader before committed last may not have been heard of yet, and is not told again once we lead.
        self.outlets.hub.publish(std::iter::empty(), start.ledger.revision);
        self.outlets.hub.wake_all();
        let (driver, mut ended) = driver::start(start, self.outlets.clone(), &System).map_err(DecideError::Thread)?;
        self.roles.send_replace(Role::Leader(driver.clone()));
        info!(epoch = epoch.0, "leading");
        tokio::select! {
            ended = &mut ended => match ended.map_err(|_| DecideError::Panicked)? {
                Ok(()) | Err(StoreError::Deposed { .. }) => Ok(Lost::Deposed),
                Err(error) => Err(error.into()),
            },
            () = &mut renewing => {
                // Its thread may be held up by the very database that could not be reached; it ends when that lets go.
                driver.depose();
                Ok(Lost::Deposed)
            }
            () = stop(stopping) => {
                // Sessions end first, and their workers are on their way to the next leader meanwhile.
                self.stand_by(None);
                driver.stop().await;
                over(ended.await).map(|()| Lost::Stopping)
            }
        }
    }

    async fn take_over(&self, epoch: Epoch) -> Result<Start<crate::store::PostgresStore>, StoreError> {
        let postgres = self.postgres.clone();
        let config = self.config.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let store = postgres.writer(epoch)?;
            let ledger = store.load()?;
            // This machine's clock may be behind that of the leader before: a time of leading has a clock of its own.
            let clock = Clock::start(ledger.newest);
            info!(epoch = epoch.0, revision = ledger.revision.0, jobs = ledger.jobs().count(), "store read");
            Ok(Start { store, epoch, ledger, clock, config })
        });
        // The runtime ends only with the process.
        opened.await.unwrap_or(Err(StoreError::Deposed { ours: epoch.0 }))
    }

    /// Ends when the lead is lost, or may be.
    async fn renew_while_possible(&self, epoch: Epoch, since: Instant) {
        let mut renewed = since;
        let mut pause = RENEW_INTERVAL.min(self.ttl / 3);
        loop {
            sleep(pause).await;
            let asked = Instant::now();
            match timeout_at(renewed + self.ttl, self.postgres.renew(epoch)).await {
                Ok(Ok(())) => {
                    renewed = asked;
                    pause = RENEW_INTERVAL.min(self.ttl / 3);
                }
                Ok(Err(StoreError::Deposed { .. })) => return warn!(epoch = epoch.0, "deposed: another was elected"),
                Ok(Err(error)) => {
                    warn!(epoch = epoch.0, error = &error as &dyn std::error::Error, "the lead was not renewed");
                    pause = RENEW_AGAIN;
                }
                Err(_) => {
                    return warn!(epoch = epoch.0, "the lead was not renewed in time: another may be elected");
                }
            }
        }
    }

    async fn step_down(&self, epoch: Epoch, lost: &Lost) {
        let words = async {
            if matches!(lost, Lost::Stopping) && self.postgres.resign(epoch).await.is_ok() {
                info!(epoch = epoch.0, "resigned");
            }
            self.postgres.leader().await
        };
        let leader = match timeout(LAST_WORDS, words).await {
            Ok(Ok(leader)) => self.other(leader),
            _ => None,
        };
        self.stand_by(leader);
        // What the next leader commits may have been taken for our own by whoever wakes watchers.
        self.outlets.hub.wake_all();
        info!(epoch = epoch.0, "standing by");
    }
}

/// Whether another process on the same store would meet the same.
fn is_contradiction(error: &StoreError) -> bool {
    matches!(error, StoreError::NoSuchJob { .. } | StoreError::Damaged { .. } | StoreError::TooNew { .. })
}

/// Pages of changes read to find out which jobs changed; of more, every watcher is woken.
const CHANGES_PAGE: usize = 512;
const CHANGES_PAGES_MAX: usize = 8;

/// Wakes watchers for what others commit. What this coordinator commits, its driver tells.
pub async fn tell_watchers(mut revision: watch::Receiver<Revision>, lead: Lead, hub: WatchHub, readers: Readers) {
    let mut told = *hub.revisions().borrow();
    while revision.changed().await.is_ok() {
        let reached = *revision.borrow_and_update();
        if matches!(lead.role(), Role::Standby { .. }) && hub.watches_jobs() {
            match changed_jobs(&readers, told, reached).await {
                Some(jobs) => hub.publish(jobs.iter(), reached),
                None => hub.wake_all(),
            }
        }
        hub.publish(std::iter::empty(), reached);
        told = told.max(reached);
    }
}

/// The jobs with entries in `(after, until]`; `None` when there are too many, or the store does not tell.
async fn changed_jobs(
    readers: &Readers,
    mut after: Revision,
    until: Revision,
) -> Option<std::collections::HashSet<guestkit_domain::JobId>> {
    let mut jobs = std::collections::HashSet::new();
    for _ in 0..CHANGES_PAGES_MAX {
        let span = Span { after, until, submitted_from: None };
        let read = readers.read(move |store| store.changes(&Default::default(), span, CHANGES_PAGE));
        let Changes::Page { changes, reached } = read.await.ok()? else { return None };
        jobs.extend(changes.iter().map(|change| change.job_id().clone()));
        if reached >= until {
            return Some(jobs);
        }
        after = reached;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standby(leader: Option<&str>) -> Role {
        Role::Standby { leader: leader.map(str::to_owned) }
    }

    #[tokio::test]
    async fn whoever_asks_during_an_election_waits_for_its_end() {
        let (roles, told) = watch::channel(standby(None));
        let lead = Lead::new(told);
        let asking = tokio::spawn(async move { lead.driver().await.unwrap_err() });
        tokio::task::yield_now().await;
        assert!(!asking.is_finished());
        roles.send_replace(standby(Some("http://b:1")));
        assert_eq!(asking.await.unwrap(), NotLeader { leader: Some("http://b:1".into()) });
    }
}
