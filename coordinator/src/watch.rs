//! Wakes whoever follows jobs: revisions → watchers.
//!
//! A wake-up says only "there is more": what is new, a watcher reads from the store, after the last entry it has passed on,
//! at the pace its client takes it. So a watcher can neither miss an entry nor see one twice, nothing is buffered for it,
//! and one that is slow slows nobody. Wake-ups are level-triggered: one that comes while a watcher reads is not lost.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guestkit_domain::{JobId, Revision};
use tokio::sync::watch;

/// Watchers at once. Each costs a stream and a page of entries: ten thousand are some hundred MB at the very worst.
pub const WATCHERS_MAX: usize = 10_000;

/// Where watchers wait.
#[derive(Debug, Clone)]
pub struct WatchHub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    jobs: Mutex<Watched>,
    revision: watch::Sender<Revision>,
}

#[derive(Debug, Default)]
struct Watched {
    watchers: usize,
    jobs: HashMap<JobId, WatchedJob>,
}

#[derive(Debug)]
struct WatchedJob {
    watchers: usize,
    changed: watch::Sender<()>,
}

/// There are [`WATCHERS_MAX`] already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{WATCHERS_MAX} watchers are served already")]
pub struct TooManyWatchers;

impl WatchHub {
    /// A hub whose store stands at `revision`.
    #[must_use]
    pub fn new(revision: Revision) -> Self {
        Self { shared: Arc::new(Shared { jobs: Mutex::default(), revision: watch::Sender::new(revision) }) }
    }

    /// Tells that everything up to `revision` is durable and that `jobs` have new entries.
    pub fn publish<'a>(&self, jobs: impl Iterator<Item = &'a JobId>, revision: Revision) {
        self.wake(jobs);
        self.shared.revision.send_if_modified(|known| {
            let newer = *known < revision;
            *known = revision.max(*known);
            newer
        });
    }

    fn wake<'a>(&self, jobs: impl Iterator<Item = &'a JobId>) {
        let watched = self.shared.lock();
        if watched.jobs.is_empty() {
            return;
        }
        for job in jobs {
            if let Some(job) = watched.jobs.get(job) {
                job.changed.send_replace(());
            }
        }
    }

    /// Wakes every watcher of a job: something may have happened that nobody tells.
    pub fn wake_all(&self) {
        for job in self.shared.lock().jobs.values() {
            job.changed.send_replace(());
        }
    }

    /// Whether single jobs are followed.
    #[must_use]
    pub fn watches_jobs(&self) -> bool {
        !self.shared.lock().jobs.is_empty()
    }

    /// A place among the watchers, until it is dropped.
    ///
    /// # Errors
    /// When there are too many watchers.
    pub fn seat(&self) -> Result<Seat, TooManyWatchers> {
        let mut watched = self.shared.lock();
        if watched.watchers >= WATCHERS_MAX {
            return Err(TooManyWatchers);
        }
        watched.watchers += 1;
        Ok(Seat { shared: Arc::clone(&self.shared) })
    }

    /// Follows one job. Subscribe before the first read of the store.
    ///
    /// # Errors
    /// When there are too many watchers.
    pub fn job(&self, job: JobId) -> Result<JobWatcher, TooManyWatchers> {
        let seat = self.seat()?;
        let mut watched = self.shared.lock();
        let entry = watched
            .jobs
            .entry(job.clone())
            .or_insert_with(|| WatchedJob { watchers: 0, changed: watch::Sender::new(()) });
        entry.watchers += 1;
        let changed = entry.changed.subscribe();
        Ok(JobWatcher { seat, job, changed })
    }

    /// Follows the store's revision: what is durable.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.shared.revision.subscribe()
    }

    /// How many watch.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.shared.lock().watchers
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        // Nothing panics while it is held; if it did, counts are still sound enough to go on.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the watchers.
#[derive(Debug)]
pub struct Seat {
    shared: Arc<Shared>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut watched = self.shared.lock();
        watched.watchers = watched.watchers.saturating_sub(1);
    }
}

/// Follows one job until it is dropped.
#[derive(Debug)]
pub struct JobWatcher {
    seat: Seat,
    job: JobId,
    changed: watch::Receiver<()>,
}

impl JobWatcher {
    /// Waits until the job has an entry that was not there at the last call.
    pub async fn changed(&mut self) {
        // The sender lives in the hub's map for as long as this watcher is counted there.
        if self.changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for JobWatcher {
    fn drop(&mut self) {
        let mut watched = self.seat.shared.lock();
        if let Entry::Occupied(mut entry) = watched.jobs.entry(self.job.clone()) {
            entry.get_mut().watchers -= 1;
            if entry.get().watchers == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str) -> JobId {
        JobId::new(name).unwrap()
    }

    #[tokio::test]
    async fn a_wake_up_before_the_wait_is_not_lost() {
        let hub = WatchHub::new(Revision(0));
        let mut watcher = hub.job(job("job-00001")).unwrap();
        hub.publish([job("job-00001")].iter(), Revision(1));
        watcher.changed().await;
        assert_eq!(*hub.revisions().borrow(), Revision(1));
    }

    #[tokio::test]
    async fn the_last_watcher_takes_the_job_with_it() {
        let hub = WatchHub::new(Revision(0));
        let first = hub.job(job("job-00001")).unwrap();
        let mut second = hub.job(job("job-00001")).unwrap();
        drop(first);
        assert_eq!(hub.watchers(), 1);
        hub.publish([job("job-00001")].iter(), Revision(1));
        second.changed().await;
        drop(second);
        assert_eq!(hub.watchers(), 0);
        assert!(hub.shared.lock().jobs.is_empty());
    }

    #[test]
    fn watchers_have_a_bound() {
        let hub = WatchHub::new(Revision(0));
        let watchers: Vec<_> = (0..WATCHERS_MAX).map(|_| hub.job(job("job-00001")).unwrap()).collect();
        assert_eq!(hub.job(job("job-00002")).unwrap_err(), TooManyWatchers);
        drop(watchers);
        hub.job(job("job-00002")).unwrap();
    }
}
