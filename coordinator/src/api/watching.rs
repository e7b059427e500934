//! Streams of what happens, pulled by their clients: an entry is read from the store when its client has room for it. A slow
//! client holds one page in memory and nobody up; where it goes on is in what it received last.

use std::collections::{HashMap, VecDeque};

use futures::Stream;
use futures::stream::try_unfold;
use guestkit_domain::{JobId, Revision};
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::v1::{self, watch_all_response::Change};
use tokio::sync::watch;
use tonic::Status;

use super::{not_found, show, unread};
use crate::store::{JobFilter, JobNo, Readers, StoredEvent, StoredJob};
use crate::watch::{JobWatcher, Seat};

/// Entries read at once: an inspection has about twenty.
const PAGE: usize = 64;

/// Jobs that may change while a snapshot of all jobs is read. They are remembered, so that no change is told twice.
const CHANGED_MEANWHILE_MAX: usize = 100_000;

/// One job's log after `after`, until the job is over. The watcher was subscribed before the caller's first read.
pub(super) fn job(
    readers: Readers,
    watcher: JobWatcher,
    job_id: JobId,
    after: u64,
) -> impl Stream<Item = Result<v1::WatchResponse, Status>> + Send + 'static {
    let following = FollowingJob { readers, watcher, job_id, last: after, page: VecDeque::new() };
    try_unfold(following, async |mut following| {
        let event = following.next().await?;
        Ok(event.map(|event| (v1::WatchResponse { event: Some(event) }, following)))
    })
}

struct FollowingJob {
    readers: Readers,
    watcher: JobWatcher,
    job_id: JobId,
    last: u64,
    page: VecDeque<StoredEvent>,
}

impl FollowingJob {
    /// The next entry; `None` when the job is over and everything was told.
    async fn next(&mut self) -> Result<Option<v1::JobEvent>, Status> {
        loop {
            if let Some(event) = self.page.pop_front() {
                if event.sequence != self.last + 1 {
                    return Err(gap(&self.job_id, self.last, event.sequence));
                }
                self.last = event.sequence;
                return Ok(Some(show::event(&event).map_err(|error| undecodable(&self.job_id, &error))?));
            }
            if self.read().await? {
                return Ok(None);
            }
            if self.page.is_empty() {
                self.watcher.changed().await;
            }
        }
    }

    /// Reads the next page; true when there is none and there will be none.
    async fn read(&mut self) -> Result<bool, Status> {
        let (job_id, last) = (self.job_id.clone(), self.last);
        let read = self.readers.read(move |store| {
            let page = store.history(&job_id, last, PAGE)?;
            let over = match &page {
                Some(page) if page.is_empty() => store
                    .job(&job_id)?
                    .is_some_and(|job| job.row.phase.state().is_terminal() && job.row.sequence <= last),
                _ => false,
            };
            Ok((page, over))
        });
        let (page, over) = read.await.map_err(|error| unread(&error))?;
        self.page = page.ok_or_else(|| not_found(&self.job_id))?.into();
        Ok(over)
    }
}

fn gap(job_id: &JobId, last: u64, found: u64) -> Status {
    let text = format!("the log of job {job_id} between entries {last} and {found} is gone");
    Refusal::new(Reason::Internal, text).into()
}

fn undecodable(job_id: &JobId, error: &prost::DecodeError) -> Status {
    Refusal::new(Reason::Internal, format!("job {job_id} cannot be decoded: {error}")).into()
}

/// Every job's changes after `after`; from 0, the current state of every job first.
pub(super) fn all(
    readers: Readers,
    (revisions, seat): (watch::Receiver<Revision>, Seat),
    filter: JobFilter,
    after: u64,
) -> impl Stream<Item = Result<v1::WatchAllResponse, Status>> + Send + 'static {
    let stage = match after {
        0 => Stage::Snapshot { after: None, page: VecDeque::new(), last_page: false },
        _ => Stage::Live { page: VecDeque::new() },
    };
    let from = if after == 0 { *revisions.borrow() } else { Revision(after) };
    let following = FollowingAll { readers, revisions, _seat: seat, filter, at: from, ahead: HashMap::new(), stage };
    try_unfold(following, async |mut following| {
        let response = following.next().await?;
        Ok(response.map(|response| (response, following)))
    })
}

struct FollowingAll {
    readers: Readers,
    revisions: watch::Receiver<Revision>,
    _seat: Seat,
    filter: JobFilter,
    /// Every change up to here was told.
    at: Revision,
    /// Jobs whose snapshot was newer than `at`: changes up to that revision are in it.
    ahead: HashMap<JobId, Revision>,
    stage: Stage,
}

enum Stage {
    Snapshot { after: Option<JobNo>, page: VecDeque<StoredJob>, last_page: bool },
    Live { page: VecDeque<StoredEvent> },
}

impl FollowingAll {
    async fn next(&mut self) -> Result<Option<v1::WatchAllResponse>, Status> {
        loop {
            let change = match &mut self.stage {
                Stage::Snapshot { page, last_page, .. } => match page.pop_front() {
                    Some(job) => Some(self.snapshot(&job)?),
                    None if *last_page => {
                        self.stage = Stage::Live { page: VecDeque::new() };
                        Some(Change::SnapshotEnd(v1::SnapshotEnd {}))
                    }
                    None => {
                        self.read_jobs().await?;
                        None
                    }
                },
                Stage::Live { page } => match page.pop_front() {
                    Some(event) => self.event(&event)?,
                    None if self.read_events().await? => None,
                    None => return Ok(None),
                },
            };
            if let Some(change) = change {
                return Ok(Some(v1::WatchAllResponse { revision: self.at.0, change: Some(change) }));
            }
        }
    }

    fn snapshot(&mut self, job: &StoredJob) -> Result<Change, Status> {
        if job.row.revision > self.at {
            if self.ahead.len() >= CHANGED_MEANWHILE_MAX {
                let text = "too many jobs changed while the snapshot was read; begin again";
                return Err(Refusal::new(Reason::WatcherLimit, text).into());
            }
            self.ahead.insert(job.job_id.clone(), job.row.revision);
        }
        Ok(Change::Snapshot(show::stored_job(job).map_err(|error| undecodable(&job.job_id, &error))?))
    }

    fn event(&mut self, event: &StoredEvent) -> Result<Option<Change>, Status> {
        self.at = event.revision;
        if self.ahead.get(&event.job_id).is_some_and(|told| event.revision <= *told) {
            return Ok(None);
        }
        Ok(Some(Change::Event(show::event(event).map_err(|error| undecodable(&event.job_id, &error))?)))
    }

    async fn read_jobs(&mut self) -> Result<(), Status> {
        let Stage::Snapshot { after, page, last_page } = &mut self.stage else { return Ok(()) };
        let (filter, from) = (self.filter.clone(), *after);
        let read = self.readers.read(move |store| store.list(&filter, from, PAGE));
        let found = read.await.map_err(|error| unread(&error))?;
        *after = found.next;
        *last_page = found.next.is_none();
        *page = found.jobs.into();
        Ok(())
    }

    /// Waits for changes and reads them; false when the coordinator ends.
    async fn read_events(&mut self) -> Result<bool, Status> {
        let at = self.at;
        let Ok(until) = self.revisions.wait_for(|revision| *revision > at).await.map(|revision| *revision) else {
            return Ok(false);
        };
        let filter = self.filter.clone();
        let read = self.readers.read(move |store| store.changes(&filter, at, until, PAGE));
        let (events, reached) = read.await.map_err(|error| unread(&error))?;
        if events.is_empty() {
            self.at = reached;
            self.ahead.retain(|_, told| *told > reached);
        }
        self.stage = Stage::Live { page: events.into() };
        Ok(true)
    }
}
