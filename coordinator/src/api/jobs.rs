//! Jobs: submitting, watching and reading jobs.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use guestkit_domain::{JobId, Revision, Time};
use guestkit_protocol::convert::{job_id, state, time, worker_id};
use guestkit_protocol::document::{CheckedJob, Source, check};
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::v1;
use guestkit_protocol::v1::jobs_server::Jobs;
use guestkit_scheduler::{JobRow, Reply};
use prost::Message;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Services, mismatched, not_found, refusal, show, stopping, too_many_watchers, unread, unserved, watching};
use crate::driver::{Answering, Ask};
use crate::store::{JobFilter, PageToken, PageTokenError, StoredJob};

/// Submissions of one stream that are on their way: enough to fill a commit, few enough to hold one client back.
const SUBMITS_UNDER_WAY_MAX: usize = 1024;

/// KiB of documents of one stream that are on their way or answered and not read: a client that does not read its answers
/// is not read either.
const SUBMITS_KIB_MAX: u32 = 8 * 1024;

/// Jobs of a page, at most and when nothing is said.
const PAGE_SIZE_MAX: usize = 1000;
const PAGE_SIZE_DEFAULT: usize = 100;

/// How long a standby may take to hear of a revision that its leader has told: notifications come at once, and are looked for
/// every two seconds where they got lost.
const HEARSAY_MAX: Duration = Duration::from_secs(3);

/// Bytes of a cancel's reason: it goes into the job's log and to the worker.
const REASON_BYTES_MAX: usize = 1024;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A submission on its way to the disk.
struct Submitting {
    document: v1::JobDocument,
    created_at: Time,
    answer: Answering,
}

#[tonic::async_trait]
impl Jobs for Services {
    type SubmitStreamStream = Answers<v1::SubmitStreamResponse>;
    type WatchStream = Answers<v1::WatchResponse>;
    type WatchAllStream = Answers<v1::WatchAllResponse>;
    type ReadArtifactStream = Answers<v1::ReadArtifactResponse>;

    async fn submit(&self, request: Request<v1::JobDocument>) -> Result<Response<v1::SubmitResponse>, Status> {
        let answer = match self.begin_submit(request.into_inner()).await {
            Ok(submitting) => self.end_submit(submitting).await,
            Err(refusal) => Err(refusal),
        };
        Ok(Response::new(answer.map_err(|refusal| self.refused(refusal))?))
    }

    async fn submit_stream(
        &self,
        request: Request<Streaming<v1::SubmitStreamRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        // Not document by document, where none would be taken.
        self.driver().await?;
        let mut requests = request.into_inner();
        let (under_way, submitted) = mpsc::channel(SUBMITS_UNDER_WAY_MAX);
        let services = self.clone();
        let shares = Arc::new(Semaphore::new(SUBMITS_KIB_MAX as usize));
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let kib = request.as_ref().map_or(0, Message::encoded_len) / 1024 + 1;
                let kib = u32::try_from(kib).unwrap_or(SUBMITS_KIB_MAX).min(SUBMITS_KIB_MAX);
                let Ok(share) = Arc::clone(&shares).acquire_many_owned(kib).await else { return };
                let begun = match request {
                    Ok(v1::SubmitStreamRequest { document }) => {
                        Ok(services.begin_submit(document.unwrap_or_default()).await)
                    }
                    Err(status) => Err(status),
                };
                let broken = begun.is_err();
                if under_way.send((begun, share)).await.is_err() || broken {
                    return;
                }
            }
        });
        let services = self.clone();
        let answers = ReceiverStream::new(submitted).enumerate().then(move |(index, (begun, share))| {
            let services = services.clone();
            async move {
                let answer = services.answer_one(index as u64, begun?).await;
                drop(share);
                Ok(answer)
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let job_id = job_id(&request.get_ref().job_id)?;
        let job = self.stored(&job_id).await?;
        Ok(Response::new(v1::GetResponse { job: Some(shown(&job)?) }))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let request = request.into_inner();
        let filter = filter(request.filter.unwrap_or_default())?;
        let page_size = page_size(request.page_size)?;
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(PageToken::parse(token, &filter).map_err(bad_token)?.after),
        };
        let (filter, page) = self
            .readers
            .read(move |store| store.list(&filter, after, page_size).map(|page| (filter, page)))
            .await
            .map_err(|error| unread(&error))?;
        Ok(Response::new(v1::ListResponse {
            jobs: page.jobs.iter().map(shown).collect::<Result<_, _>>()?,
            next_page_token: page.next.map(|after| PageToken::new(&filter, after).to_string()).unwrap_or_default(),
        }))
    }

    async fn cancel(&self, request: Request<v1::CancelRequest>) -> Result<Response<v1::CancelResponse>, Status> {
        let request = request.into_inner();
        if request.reason.len() > REASON_BYTES_MAX {
            return Err(Refusal::of_field("reason", format!("at most {REASON_BYTES_MAX} bytes")).into());
        }
        let ask = Ask::Cancel { job_id: job_id(&request.job_id)?, reason: request.reason.into() };
        Ok(Response::new(v1::CancelResponse { job: Some(self.changed(ask).await?) }))
    }

    async fn retry(&self, request: Request<v1::RetryRequest>) -> Result<Response<v1::RetryResponse>, Status> {
        let job_id = job_id(&request.get_ref().job_id)?;
        let last = self.last_lease().await?;
        let job = self.changed(Ask::Retry { job_id: job_id.clone() }).await?;
        self.artifacts.forget(job_id, last).await;
        Ok(Response::new(v1::RetryResponse { job: Some(job) }))
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        let job_id = job_id(&request.get_ref().job_id)?;
        let last = self.last_lease().await?;
        match self.driver().await?.ask(Ask::Delete { job_id: job_id.clone() }).await.map_err(unserved)? {
            Reply::Deleted => {
                self.artifacts.forget(job_id, last).await;
                Ok(Response::new(v1::DeleteResponse {}))
            }
            Reply::Refused(refused) => Err(refusal(refused).into()),
            reply => Err(mismatched(&reply).into()),
        }
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        let job_id = job_id(&request.get_ref().job_id)?;
        let asked = job_id.clone();
        let live = self.driver().await?.read(move |view| view.scheduler.explain(&asked)).await.map_err(unserved)?;
        let Some(why) = live else {
            // Over for so long that the scheduler has forgotten it.
            let job = self.stored(&job_id).await?;
            return Ok(Response::new(explained_over(&job.row)));
        };
        Ok(Response::new(v1::ExplainResponse {
            state: state::to_wire(why.state).into(),
            summary: why.reasons.first().cloned().unwrap_or_default(),
            reasons: why.reasons,
            eligible_workers: i32::try_from(why.eligible_workers).unwrap_or(i32::MAX),
            connected_workers: i32::try_from(why.connected_workers).unwrap_or(i32::MAX),
            jobs_ahead: why.jobs_ahead,
        }))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let job_id = job_id(&request.job_id)?;
        let watcher = self.hub.job(job_id.clone()).map_err(too_many_watchers)?;
        let job = self.stored(&job_id).await?;
        if request.after_sequence > job.row.sequence {
            let text = format!("the job's log is at {}, not yet at {}", job.row.sequence, request.after_sequence);
            return Err(Refusal::of_field("after_sequence", text).into());
        }
        let events = watching::job(self.readers.clone(), watcher, &job, request.after_sequence);
        Ok(Response::new(self.ending_with_us(events)))
    }

    async fn watch_all(&self, request: Request<v1::WatchAllRequest>) -> Result<Response<Self::WatchAllStream>, Status> {
        let request = request.into_inner();
        let filter = filter(request.filter.unwrap_or_default())?;
        let mut revisions = self.hub.revisions();
        let after = request.after_revision;
        // A standby hears of revisions a moment after the leader told them.
        let reached = revisions.wait_for(|known| known.0 >= after);
        let heard = tokio::time::timeout(HEARSAY_MAX, reached).await.is_ok();
        let known = revisions.borrow().0;
        if !heard && after > known {
            let text = format!("the store is at revision {known}, not yet at {}", request.after_revision);
            return Err(Refusal::of_field("after_revision", text).into());
        }
        let seat = self.hub.seat().map_err(too_many_watchers)?;
        let changes = watching::all(self.readers.clone(), (revisions, seat), filter, Revision(request.after_revision));
        Ok(Response::new(self.ending_with_us(changes)))
    }

    async fn get_report(
        &self,
        request: Request<v1::GetReportRequest>,
    ) -> Result<Response<v1::GetReportResponse>, Status> {
        let job_id = job_id(&request.get_ref().job_id)?;
        let job = self.stored(&job_id).await?;
        let over = job.row.phase.state();
        if !over.is_terminal() {
            let text = format!("job {job_id} is {}, there is no report yet", state::word(over));
            return Err(Refusal::new(Reason::NotOver, text).into());
        }
        let made = self.readers.read(move |store| store.result(&job_id)).await.map_err(|error| unread(&error))?;
        let result = show::result(&shown(&job)?, made).map_err(|error| {
            Refusal::new(Reason::Internal, format!("the outcome of job {} cannot be decoded: {error}", job.job_id))
        })?;
        Ok(Response::new(v1::GetReportResponse { result: Some(result) }))
    }

    async fn read_artifact(
        &self,
        request: Request<v1::ReadArtifactRequest>,
    ) -> Result<Response<Self::ReadArtifactStream>, Status> {
        let request = request.into_inner();
        let job = self.stored(&job_id(&request.job_id)?).await?;
        let pieces = self.artifact(&job, &request.name, request.offset).await?;
        Ok(Response::new(self.ending_with_us(pieces)))
    }
}

impl Services {
    async fn begin_submit(&self, document: v1::JobDocument) -> Result<Submitting, Refusal> {
        let driver = self.driver().await?;
        let CheckedJob { document, spec, .. } = check(document, Source::Network, driver.clock().now())?;
        let created_at = spec.created_at;
        let encoded = document.encode_to_vec().into();
        let ask = Ask::Submit { spec: Box::new(spec), document: encoded };
        let answer = driver.begin(ask).await.map_err(unserved)?;
        Ok(Submitting { document, created_at, answer })
    }

    async fn end_submit(&self, submitting: Submitting) -> Result<v1::SubmitResponse, Refusal> {
        let reply = submitting.answer.wait().await.map_err(unserved)?;
        match reply {
            Reply::Submitted { row, existing: false, .. } => {
                let job = show::job(submitting.document, submitting.created_at, &row);
                Ok(v1::SubmitResponse { job: Some(job), existing: false })
            }
            // The job that is there may have been submitted under another name, at another time.
            Reply::Submitted { job_id, row, existing: true } => {
                Ok(v1::SubmitResponse { job: Some(self.as_it_is(&job_id, &row).await?), existing: true })
            }
            Reply::Refused(refused) => Err(refusal(refused)),
            reply => Err(mismatched(&reply)),
        }
    }

    async fn answer_one(&self, index: u64, begun: Result<Submitting, Refusal>) -> v1::SubmitStreamResponse {
        let answer = match begun {
            Ok(submitting) => self.end_submit(submitting).await,
            Err(refusal) => Err(refusal),
        };
        match answer {
            Ok(accepted) => v1::SubmitStreamResponse { index, accepted: Some(accepted), refused: None },
            Err(refusal) => {
                let refused = Some(self.refused(refusal).into());
                v1::SubmitStreamResponse { index, accepted: None, refused }
            }
        }
    }

    /// Asks for a change of a job, and shows the job after it.
    async fn changed(&self, ask: Ask) -> Result<v1::Job, Refusal> {
        match self.driver().await?.ask(ask).await.map_err(unserved)? {
            Reply::Job { job_id, row } => self.as_it_is(&job_id, &row).await,
            Reply::Refused(refused) => Err(refusal(refused)),
            reply => Err(mismatched(&reply)),
        }
    }

    /// The job with what the scheduler has just said about it; the rest is the store's.
    async fn as_it_is(&self, job_id: &JobId, row: &JobRow) -> Result<v1::Job, Refusal> {
        let mut stored = self.stored(job_id).await?;
        stored.row = row.clone();
        shown(&stored)
    }

    async fn stored(&self, job_id: &JobId) -> Result<StoredJob, Refusal> {
        let asked = job_id.clone();
        let found = self.readers.read(move |store| store.job(&asked)).await.map_err(|error| unread(&error))?;
        found.ok_or_else(|| not_found(job_id))
    }

    /// The stream, until the coordinator stops: then it ends saying so, never as if it were complete.
    pub(super) fn ending_with_us<T: Send + 'static>(
        &self,
        stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Answers<T> {
        let stopped = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let ending = {
            let (stopped, until_stopping) = (Arc::clone(&stopped), self.until_stopping());
            async move {
                until_stopping.await;
                stopped.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        };
        let last = futures::stream::once(async move { stopped.load(std::sync::atomic::Ordering::Relaxed) })
            .filter_map(async |stopped| stopped.then(|| Err(stopping())));
        Box::pin(stream.take_until(ending).chain(last))
    }
}

fn explained_over(row: &JobRow) -> v1::ExplainResponse {
    let state = row.phase.state();
    let summary = match row.failure() {
        Some(why) => format!("it is over: {}", show::told(why)),
        None => format!("it is over: {}", state::word(state)),
    };
    v1::ExplainResponse {
        state: state::to_wire(state).into(),
        reasons: vec![summary.clone()],
        summary,
        ..Default::default()
    }
}

fn shown(job: &StoredJob) -> Result<v1::Job, Refusal> {
    show::stored_job(job)
        .map_err(|error| Refusal::new(Reason::Internal, format!("job {} cannot be decoded: {error}", job.job_id)))
}

fn page_size(asked: i32) -> Result<usize, Refusal> {
    match usize::try_from(asked) {
        Ok(0) => Ok(PAGE_SIZE_DEFAULT),
        Ok(size) if size <= PAGE_SIZE_MAX => Ok(size),
        _ => Err(Refusal::of_field("page_size", format!("must be 0 to {PAGE_SIZE_MAX}, is {asked}"))),
    }
}

fn bad_token(error: PageTokenError) -> Refusal {
    Refusal::new(Reason::InvalidPageToken, format!("page_token is {error}"))
}

/// Values of one criterion of a filter: more than there are states, operations or labels of a job.
const CRITERION_VALUES_MAX: usize = 64;

fn filter(filter: v1::JobFilter) -> Result<JobFilter, Refusal> {
    for (field, count) in [
        ("filter.states", filter.states.len()),
        ("filter.operations", filter.operations.len()),
        ("filter.labels", filter.labels.len()),
    ] {
        if count > CRITERION_VALUES_MAX {
            return Err(Refusal::of_field(field, format!("at most {CRITERION_VALUES_MAX} values, has {count}")));
        }
    }
    let instant = |field: &str, at: Option<prost_types::Timestamp>| {
        let instant =
            at.map(|at| time::from_wire(&at).ok_or_else(|| Refusal::of_field(field, "outside of the calendar")));
        instant.transpose()
    };
    if !filter.worker_id.is_empty() {
        worker_id(&filter.worker_id)?;
    }
    Ok(JobFilter {
        states: filter.states.into_iter().map(state::from_wire).collect::<Result<_, _>>()?,
        operations: filter.operations,
        namespace: Some(filter.namespace).filter(|text| !text.is_empty()),
        labels: filter.labels.into_iter().collect(),
        worker_id: Some(filter.worker_id).filter(|text| !text.is_empty()),
        created_after: instant("filter.created_after", filter.created_after)?,
        created_before: instant("filter.created_before", filter.created_before)?,
    })
}
