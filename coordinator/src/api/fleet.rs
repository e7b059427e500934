//! Fleet: the workers, as their operators see them.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use guestkit_domain::WorkerId;
use guestkit_protocol::convert::{time, worker_id};
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::v1;
use guestkit_protocol::v1::fleet_server::Fleet;
use guestkit_scheduler::{DrainTarget, Reply};
use tonic::{Request, Response, Status};

use super::{Services, mismatched, refusal, show, too_many_watchers, unserved};
use crate::driver::{Ask, Driver, View};
use crate::lead::{Lead, NotLeader};
use crate::watch::Seat;

/// Workers of a page, at most and when nothing is said.
const PAGE_SIZE_MAX: usize = 1000;
const PAGE_SIZE_DEFAULT: usize = 100;

/// Labels of a selector: a worker has at most this many.
const SELECTOR_LABELS_MAX: usize = 256;

#[tonic::async_trait]
impl Fleet for Services {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::FleetWatchResponse, Status>> + Send>>;

    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let request = request.into_inner();
        let size = match usize::try_from(request.page_size) {
            Ok(0) => PAGE_SIZE_DEFAULT,
            Ok(size) if size <= PAGE_SIZE_MAX => size,
            _ => return Err(Refusal::of_field("page_size", format!("must be 0 to {PAGE_SIZE_MAX}")).into()),
        };
        // Workers are listed by name, and a name is no secret: the token is the last one's.
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(WorkerId::new(token).map_err(|_| bad_token())?),
        };
        let driver = self.driver().await?;
        let workers = driver
            .read(move |view| {
                let mut workers: Vec<v1::Worker> = view
                    .scheduler
                    .workers()
                    .iter()
                    .filter(|worker| after.as_ref().is_none_or(|after| worker.worker_id > *after))
                    .map(|worker| described(view, worker))
                    .filter(|worker| request.pool.is_empty() || pool(worker) == request.pool)
                    .take(size + 1)
                    .collect();
                let more = workers.len() > size;
                workers.truncate(size);
                (workers, more)
            })
            .await;
        let (workers, more) = workers.map_err(unserved)?;
        let next_page_token =
            workers.last().filter(|_| more).map(|worker| worker.worker_id.clone()).unwrap_or_default();
        Ok(Response::new(v1::ListWorkersResponse { workers, next_page_token }))
    }

    async fn get_worker(
        &self,
        request: Request<v1::GetWorkerRequest>,
    ) -> Result<Response<v1::GetWorkerResponse>, Status> {
        let worker_id = worker_id(&request.get_ref().worker_id)?;
        let workers = self.workers(vec![worker_id.clone()]).await?;
        match workers.into_iter().next() {
            Some(worker) => Ok(Response::new(v1::GetWorkerResponse { worker: Some(worker) })),
            None => Err(Refusal::new(Reason::WorkerNotFound, format!("no worker {worker_id}")).into()),
        }
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        let request = request.into_inner();
        let target = target(&request.worker_id, request.selector)?;
        let deadline = match request.deadline {
            Some(deadline) => Some(
                time::duration_from_wire(&deadline)
                    .ok_or_else(|| Refusal::of_field("deadline", "must be 0 seconds to ten years"))?,
            ),
            None => None,
        };
        let workers = self.concerned(Ask::Drain { target, deadline }).await?;
        Ok(Response::new(v1::DrainResponse { workers }))
    }

    async fn resume(&self, request: Request<v1::ResumeRequest>) -> Result<Response<v1::ResumeResponse>, Status> {
        let request = request.into_inner();
        let target = target(&request.worker_id, request.selector)?;
        let workers = self.concerned(Ask::Resume { target }).await?;
        Ok(Response::new(v1::ResumeResponse { workers }))
    }

    async fn summary(&self, _request: Request<v1::SummaryRequest>) -> Result<Response<v1::SummaryResponse>, Status> {
        self.driver().await?;
        let counts = *self.summary.borrow();
        Ok(Response::new(v1::SummaryResponse {
            pending: counts.pending,
            queued: counts.queued,
            assigned: counts.assigned,
            running: counts.running,
            completed: counts.completed,
            failed: counts.failed,
            cancelled: counts.cancelled,
            timeout: counts.timeout,
            workers: u32::try_from(counts.workers).unwrap_or(u32::MAX),
            slots: u32::try_from(counts.slots).unwrap_or(u32::MAX),
            slots_in_use: u32::try_from(counts.slots_in_use).unwrap_or(u32::MAX),
            ended_last_minute: counts.ended_last_minute,
        }))
    }

    async fn watch(&self, _request: Request<v1::FleetWatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let driver = self.driver().await?;
        let seat = self.hub.seat().map_err(too_many_watchers)?;
        let (lead, changes) = (self.lead.clone(), self.fleet.clone());
        let following = Following { driver, lead, changes, told: BTreeMap::new(), _seat: seat };
        let changes = futures::stream::try_unfold((following, true), async |(mut following, first)| {
            if !first && !following.wait().await? {
                return Ok(None);
            }
            let changed = following.changed().await?;
            Ok::<_, Status>(Some((changed, (following, false))))
        });
        let workers = changes.flat_map(|changed| {
            let each: Vec<Result<v1::FleetWatchResponse, Status>> = match changed {
                Ok(workers) => workers.into_iter().map(|w| Ok(v1::FleetWatchResponse { worker: Some(w) })).collect(),
                Err(status) => vec![Err(status)],
            };
            futures::stream::iter(each)
        });
        Ok(Response::new(self.ending_with_us(workers)))
    }
}

/// What a watcher of the fleet was told, to tell it only what changed. Heartbeats alone are no change.
struct Following {
    driver: Driver,
    lead: Lead,
    changes: tokio::sync::watch::Receiver<u64>,
    told: BTreeMap<String, v1::Worker>,
    _seat: Seat,
}

impl Following {
    /// Waits for a change; false when there will be none. Another coordinator knows the workers once it leads.
    async fn wait(&mut self) -> Result<bool, Status> {
        tokio::select! {
            changed = self.changes.changed() => Ok(changed.is_ok()),
            () = self.lead.left(self.driver.epoch()) => {
                let Err(NotLeader { leader }) = self.lead.driver().await else { return Ok(true) };
                Err(Refusal::not_leader(leader).into())
            }
        }
    }

    async fn changed(&mut self) -> Result<Vec<v1::Worker>, Status> {
        self.changes.mark_unchanged();
        let look = |view: &View<'_>| -> Vec<v1::Worker> {
            view.scheduler.workers().iter().map(|worker| described(view, worker)).collect()
        };
        let workers = self.driver.read(look).await.map_err(unserved)?;
        let mut known = BTreeMap::new();
        let mut changed = Vec::new();
        for worker in workers {
            let still = v1::Worker { heartbeat_time: None, ..worker.clone() };
            if self.told.get(&worker.worker_id) != Some(&still) {
                changed.push(worker.clone());
            }
            known.insert(worker.worker_id, still);
        }
        self.told = known;
        Ok(changed)
    }
}

impl Services {
    async fn concerned(&self, ask: Ask) -> Result<Vec<v1::Worker>, Refusal> {
        match self.driver().await?.ask(ask).await.map_err(unserved)? {
            Reply::Workers(names) => self.workers(names).await,
            Reply::Refused(refused) => Err(refusal(refused)),
            reply => Err(mismatched(&reply)),
        }
    }

    async fn workers(&self, names: Vec<WorkerId>) -> Result<Vec<v1::Worker>, Refusal> {
        let look = move |view: &View<'_>| {
            let views = names.iter().filter_map(|name| view.scheduler.worker(name));
            views.map(|worker| described(view, &worker)).collect()
        };
        self.driver().await?.read(look).await.map_err(unserved)
    }
}

fn described(view: &View<'_>, worker: &guestkit_scheduler::WorkerView) -> v1::Worker {
    let description = view.descriptions.get(&worker.worker_id).map(|description| (**description).clone());
    show::worker(worker, description)
}

fn pool(worker: &v1::Worker) -> &str {
    match worker.description.as_ref().map(|description| description.pool.as_str()) {
        None | Some("") => "default",
        Some(pool) => pool,
    }
}

fn bad_token() -> Refusal {
    Refusal::new(Reason::InvalidPageToken, "page_token is not a token that a list has given")
}

fn target(worker: &str, selector: std::collections::HashMap<String, String>) -> Result<DrainTarget, Refusal> {
    match (worker, selector.len()) {
        ("", 0) => Err(Refusal::of_field("worker_id", "name a worker, or give a selector")),
        ("", 1..=SELECTOR_LABELS_MAX) => Ok(DrainTarget::Labels(
            selector.into_iter().map(|(label, value)| (Arc::from(label), Arc::from(value))).collect(),
        )),
        ("", count) => Err(Refusal::of_field("selector", format!("at most {SELECTOR_LABELS_MAX} labels, has {count}"))),
        (name, 0) => Ok(DrainTarget::Worker(worker_id(name)?)),
        _ => Err(Refusal::of_field("selector", "name a worker or give a selector, not both")),
    }
}
