//! Forgets jobs that have been over for long, with their documents, results, logs and artifacts.
//!
//! The store finds them, the driver forgets them as it forgets a job that a person deletes, and then their artifacts go. They
//! are handed to the driver in small batches with pauses between them, so that whoever else wants something of it waits for
//! one batch at most. A batch that is cut off by the coordinator's end leaves nothing half done but artifacts, which the sweep
//! removes: at the start and every day every coordinator looks for artifacts that no job refers to. The start waits for none
//! of it: a bucket may be away or large.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use guestkit_domain::{JobId, Time};
use guestkit_scheduler::{Phase, Reply};
use tracing::{debug, info, warn};

use crate::api::ArtifactDesk;
use crate::artifacts::{ArtifactError, Attempt};
use crate::driver::{Ask, Driver};
use crate::lead::{Lead, Role};
use crate::store::{ReadError, ReadStore, Readers, StoreError};

/// Jobs forgotten in one commit: some milliseconds of the driver's time.
const BATCH: usize = 32;

/// Pauses are this many times as long as the batch took: forgetting never takes more than a fifth of the driver's time.
const PAUSE_FACTOR: u32 = 4;

/// How often the store is asked, when jobs are kept for long and when they are kept for seconds.
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
const INTERVAL_MIN: Duration = Duration::from_millis(500);

/// How long deletions are remembered at most, for watchers that were away.
const DELETIONS_KEPT: Duration = Duration::from_secs(7 * 86_400);

/// How often artifacts that no job refers to are looked for, and how soon again where that failed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(86_400);
const SWEEP_RETRY: Duration = Duration::from_secs(300);

/// What forgets, where this coordinator leads.
#[derive(Debug, Clone)]
pub struct Retention {
    /// For how long a job that is over is kept; `None` is for ever.
    pub keep: Option<Duration>,
    /// Forgets.
    pub lead: Lead,
    /// Finds.
    pub readers: Readers,
    /// Removes artifacts.
    pub artifacts: ArtifactDesk,
}

impl Retention {
    /// Forgets for ever.
    pub async fn run(mut self) {
        match self.keep {
            Some(keep) => info!(days = keep.as_secs_f64() / 86_400.0, "jobs that are over are kept for so long"),
            None => info!("jobs that are over are kept for ever"),
        }
        let interval = self.keep.map_or(INTERVAL_MAX, |keep| (keep / 100).clamp(INTERVAL_MIN, INTERVAL_MAX));
        let mut compacted: Option<Instant> = None;
        let mut sweep_next = Instant::now();
        loop {
            if sweep_next <= Instant::now() {
                sweep_next = Instant::now() + self.sweep_artifacts().await;
            }
            if let Role::Leader(driver) = self.lead.role() {
                match self.forget_expired(&driver).await {
                    0 => {}
                    jobs => info!(jobs, "jobs that were over for long are forgotten"),
                }
                if compacted.is_none_or(|at| at.elapsed() >= INTERVAL_MAX) {
                    compacted = Some(Instant::now());
                    driver.compact(ago(&driver, DELETIONS_KEPT)).await;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                more = self.lead.changed() => if !more { return },
            }
        }
    }

    /// Removes artifacts that no job refers to; tells when to look again.
    async fn sweep_artifacts(&self) -> Duration {
        let counting = |jobs| {
            let readers = self.readers.clone();
            async move { readers.read(move |store| attempts_that_count(store, jobs)).await.map_err(Unswept::Store) }
        };
        match self.artifacts.sweep(counting).await {
            Ok(()) => SWEEP_INTERVAL,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "artifacts that no job refers to are swept later");
                SWEEP_RETRY
            }
        }
    }

    /// Forgets what is to be forgotten now; tells how many jobs that were.
    async fn forget_expired(&self, driver: &Driver) -> usize {
        let Some(keep) = self.keep else { return 0 };
        let mut count = 0;
        loop {
            let started = Instant::now();
            match self.batch(driver, ago(driver, keep)).await {
                Ok(0) | Err(Interrupted) => return count,
                Ok(jobs) => count += jobs,
            }
            tokio::time::sleep(started.elapsed() * PAUSE_FACTOR).await;
        }
    }

    async fn batch(&self, driver: &Driver, before: Time) -> Result<usize, Interrupted> {
        let jobs = self.readers.read(move |store| store.expired(before, BATCH)).await.map_err(|error| {
            warn!(%error, "cannot find jobs that are over for long");
            Interrupted
        })?;
        if jobs.is_empty() {
            return Ok(0);
        }
        let unserved = |error| {
            debug!(%error, "jobs are forgotten later");
            Interrupted
        };
        let last = driver.read(|view| view.scheduler.ledger().last_lease).await.map_err(unserved)?;
        let Reply::Expired(forgotten) = driver.ask(Ask::Expire { jobs, before }).await.map_err(unserved)? else {
            return Ok(0);
        };
        let count = forgotten.len();
        for job_id in forgotten {
            self.artifacts.forget(job_id, last).await;
        }
        Ok(count)
    }
}

fn ago(driver: &Driver, time: Duration) -> Time {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Time(driver.clock().now().0.saturating_sub(millis))
}

/// The coordinator cannot do it now.
struct Interrupted;

/// Why artifacts could not be swept.
#[derive(Debug, thiserror::Error)]
enum Unswept {
    #[error("ask for the jobs of artifacts")]
    Store(#[source] ReadError),
    #[error("list artifacts")]
    Artifacts(#[from] ArtifactError),
}

/// Of each job the attempt that is its current one, or whose outcome ended it; none of a job that is not there.
fn attempts_that_count(store: &dyn ReadStore, jobs: Vec<JobId>) -> Result<HashSet<Attempt>, StoreError> {
    let mut attempts = HashSet::new();
    for job_id in jobs {
        let Some(job) = store.job(&job_id)? else { continue };
        let lease = match &job.row.phase {
            Phase::Ended(ended) => ended.outcome_of,
            phase => phase.lease().map(|lease| lease.id),
        };
        attempts.extend(lease.map(|lease| Attempt { job_id, lease }));
    }
    Ok(attempts)
}
