//! Streams of what happens, pulled by their clients: an entry is read from the store when its client has room for it. A slow
//! client holds one page in memory and nobody up; where it goes on is in what it received last.

use std::collections::VecDeque;

use futures::Stream;
use futures::stream::try_unfold;
use guestkit_domain::{JobId, Revision};
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::v1::{self, watch_all_response::Change};
use tokio::sync::watch;
use tonic::Status;

use super::{not_found, show, unread};
use crate::store::{Changes, JobFilter, JobNo, Page, Readers, Span, StoredChange, StoredEvent, StoredJob};
use crate::watch::{JobWatcher, Seat};

/// Entries or jobs read at once: an inspection has about twenty entries.
const PAGE: usize = 64;

/// One job's log after `after`, until the job is over or gone. The watcher was subscribed before `job` was read.
pub(super) fn job(
    readers: Readers,
    watcher: JobWatcher,
    job: &StoredJob,
    after: u64,
) -> impl Stream<Item = Result<v1::WatchResponse, Status>> + Send + 'static {
    let (job_id, job_no) = (job.job_id.clone(), job.job_no);
    let following = FollowingJob { readers, watcher, job_id, job_no, last: after, page: VecDeque::new() };
    try_unfold(following, async |mut following| {
        let event = following.next().await?;
        Ok(event.map(|event| (v1::WatchResponse { event: Some(event) }, following)))
    })
}

struct FollowingJob {
    readers: Readers,
    watcher: JobWatcher,
    job_id: JobId,
    /// This job and no later one by its name.
    job_no: JobNo,
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
        let (job_id, job_no, last) = (self.job_id.clone(), self.job_no, self.last);
        let read = self.readers.read(move |store| {
            let page = store.history(job_no, last, PAGE)?;
            let told = |job: StoredJob| {
                job.job_no == job_no && job.row.phase.state().is_terminal() && job.row.sequence <= last
            };
            let over = match &page {
                Some(page) if page.is_empty() => store.job(&job_id)?.is_some_and(told),
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
    after: Revision,
) -> impl Stream<Item = Result<v1::WatchAllResponse, Status>> + Send + 'static {
    let stage = match after {
        Revision(0) => Stage::Snapshot { told_from: None, page: None },
        _ => Stage::Live,
    };
    let following = FollowingAll { readers, revisions, _seat: seat, filter, at: after, ready: VecDeque::new(), stage };
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
    /// Every change up to here has been read, of the jobs that were reached.
    at: Revision,
    /// What was read and not told yet.
    ready: VecDeque<v1::WatchAllResponse>,
    stage: Stage,
}

/// ```text
/// read a page of jobs ─► tell what happened up to its revision to the jobs told before ─► tell the page ─┐
///        ▲                                                                                              │
///        └───────────────────────────────── until there is none ────────────────────────────────────────┴─► Live
/// ```
/// Jobs are told from the newest on, each as of its page's revision. What happens to a job before its page is read is in
/// its page; what happens to it later is told as it happens. So nothing has to be remembered of the jobs that change
/// meanwhile, however many they are, and the snapshot comes to its end while they do.
enum Stage {
    Snapshot {
        /// Jobs submitted at this one or after it have been told.
        told_from: Option<JobNo>,
        /// What is told when everything up to its revision has been.
        page: Option<Page>,
    },
    Live,
    /// What is to be told is the last.
    Over,
}

impl FollowingAll {
    async fn next(&mut self) -> Result<Option<v1::WatchAllResponse>, Status> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Ok(Some(response));
            }
            let goes_on = match &mut self.stage {
                Stage::Snapshot { told_from, page } => match page {
                    None => self.read_jobs().await?,
                    Some(page) => match *told_from {
                        Some(from) if self.at < page.revision => {
                            let until = page.revision;
                            self.read_changes(until, Some(from)).await?
                        }
                        _ => self.tell_jobs()?,
                    },
                },
                Stage::Live => {
                    let at = self.at;
                    match self.revisions.wait_for(|revision| *revision > at).await.map(|revision| *revision) {
                        Ok(until) => self.read_changes(until, None).await?,
                        // The coordinator ends.
                        Err(_) => false,
                    }
                }
                Stage::Over => false,
            };
            if !goes_on {
                return Ok(None);
            }
        }
    }

    async fn read_jobs(&mut self) -> Result<bool, Status> {
        let Stage::Snapshot { told_from, page } = &mut self.stage else { return Ok(false) };
        let (filter, after) = (self.filter.clone(), *told_from);
        let read = self.readers.read(move |store| store.list(&filter, after, PAGE));
        *page = Some(read.await.map_err(|error| unread(&error))?);
        Ok(true)
    }

    fn tell_jobs(&mut self) -> Result<bool, Status> {
        let Stage::Snapshot { told_from, page } = &mut self.stage else { return Ok(false) };
        let Some(read) = page.take() else { return Ok(false) };
        self.at = read.revision;
        for job in &read.jobs {
            let shown = show::stored_job(job).map_err(|error| undecodable(&job.job_id, &error))?;
            self.ready.push_back(response(BEGIN_AGAIN, Change::Snapshot(shown)));
        }
        *told_from = read.next;
        if told_from.is_none() {
            self.ready.push_back(response(self.at, Change::SnapshotEnd(v1::SnapshotEnd {})));
            self.stage = Stage::Live;
        }
        Ok(true)
    }

    async fn read_changes(&mut self, until: Revision, submitted_from: Option<JobNo>) -> Result<bool, Status> {
        let (filter, span) = (self.filter.clone(), Span { after: self.at, until, submitted_from });
        let read = self.readers.read(move |store| store.changes(&filter, span, PAGE));
        match read.await.map_err(|error| unread(&error))? {
            Changes::Compacted { oldest } => {
                let compacted = v1::Compacted { oldest_revision: oldest.0 };
                self.ready.push_back(response(BEGIN_AGAIN, Change::Compacted(compacted)));
                self.stage = Stage::Over;
            }
            Changes::Page { changes, reached } => {
                self.at = reached;
                let in_snapshot = matches!(self.stage, Stage::Snapshot { .. });
                for change in &changes {
                    let resume_from = if in_snapshot { BEGIN_AGAIN } else { change.revision() };
                    self.ready.push_back(response(resume_from, told(change)?));
                }
            }
        }
        Ok(true)
    }
}

/// What a watcher resumes from that does not have all of the current state.
const BEGIN_AGAIN: Revision = Revision(0);

fn response(resume_from: Revision, change: Change) -> v1::WatchAllResponse {
    v1::WatchAllResponse { revision: resume_from.0, change: Some(change) }
}

fn told(change: &StoredChange) -> Result<Change, Status> {
    Ok(match change {
        StoredChange::Event(event) => {
            Change::Event(show::event(event).map_err(|error| undecodable(&event.job_id, &error))?)
        }
        StoredChange::Deletion(deletion) => Change::Deleted(show::deletion(deletion)),
    })
}
