//! The coordinators, as this program calls them: whichever answers for reading, the one that leads for the rest.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use guestkit_protocol::client::{self, Endpoints, Route};
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::v1::fleet_client::FleetClient;
use guestkit_protocol::v1::jobs_client::JobsClient;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::args::Global;
use crate::failure::{Failure, is_passing};

/// Calls about jobs.
pub(crate) type Jobs = JobsClient<Channel>;
/// Calls about workers.
pub(crate) type Fleet = FleetClient<Channel>;

/// How long a call looks for the coordinator that leads: a few elections.
const ELECTION_PATIENCE: Duration = Duration::from_secs(15);
/// How often a call is sent again that a coordinator broke off or could not serve.
const RESENDS_MAX: u32 = 3;

/// Whether a call may be sent again when nobody knows what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// Asked twice is asked once.
    Safe,
    /// A second one might find what the first has done, and be refused for it.
    Unsafe,
}

/// Where coordinators are, and what to call them in messages.
#[derive(Debug)]
pub(crate) struct Coordinator {
    shown: String,
    link: Mutex<Link>,
}

#[derive(Debug)]
struct Link {
    route: Route,
    connection: Option<Channel>,
    /// Connections made so far.
    number: u64,
}

/// A coordinator that was reached, on the connection that all calls share.
#[derive(Debug, Clone)]
pub(crate) struct Reached {
    channel: Channel,
    number: u64,
}

impl Reached {
    /// For calls about jobs.
    pub(crate) fn jobs(&self) -> Jobs {
        client::jobs(self.channel.clone())
    }

    /// For calls about workers.
    pub(crate) fn fleet(&self) -> Fleet {
        client::fleet(self.channel.clone())
    }
}

impl Coordinator {
    /// Reads the endpoints that were typed.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let endpoints = Endpoints::new(&global.coordinator)
            .map_err(|error| Failure::usage(format!("cannot use --coordinator: {error}")))?;
        let shown = endpoints.to_string();
        let link = Link { route: Route::new(endpoints), connection: None, number: 0 };
        Ok(Self { shown, link: Mutex::new(link) })
    }

    /// The endpoints, for messages.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Makes a call about `subject`, at another coordinator where this one does not lead or cannot serve.
    pub(crate) async fn ask<T>(
        &self,
        subject: &str,
        again: Again,
        call: impl AsyncFn(&Reached) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let started = Instant::now();
        let mut resends = 0;
        loop {
            let reached = self.reach().await?;
            let status = match call(&reached).await {
                Ok(answer) => {
                    self.link().route.served();
                    return Ok(answer.into_inner());
                }
                Err(status) => status,
            };
            let may_ask_again = if is_not_leader(&status) {
                started.elapsed() < ELECTION_PATIENCE
            } else {
                resends += 1;
                let passing = is_passing(&status) && status.code() != Code::ResourceExhausted;
                passing && again == Again::Safe && resends <= RESENDS_MAX
            };
            if !may_ask_again {
                return Err(self.failed(subject, &status));
            }
            sleep(self.leave(&reached, Some(&status))).await;
        }
    }

    /// What a status means for a request about `subject`.
    pub(crate) fn failed(&self, subject: &str, status: &Status) -> Failure {
        Failure::of_status(subject, &self.shown, status)
    }

    /// The coordinator whose turn it is.
    pub(crate) async fn reach(&self) -> Result<Reached, Failure> {
        let (mut route, number) = {
            let link = self.link();
            if let Some(channel) = link.connection.clone() {
                return Ok(Reached { channel, number: link.number });
            }
            (link.route.clone(), link.number)
        };
        let connected = route.connect().await;
        let mut link = self.link();
        // Of several that looked at once the first has found it for all.
        if link.number == number {
            link.route = route;
            link.number += 1;
            link.connection = Some(connected.map_err(|unreachable| not_reached(&unreachable))?);
        }
        match link.connection.clone() {
            Some(channel) => Ok(Reached { channel, number: link.number }),
            None => Err(Failure::unreachable(format!("{}: the connection broke at once", self.shown))),
        }
    }

    /// Leaves a coordinator that broke off, cannot serve or does not lead; tells how long to wait before the next is asked.
    pub(crate) fn leave(&self, reached: &Reached, status: Option<&Status>) -> Duration {
        let mut link = self.link();
        if link.number != reached.number || link.connection.take().is_none() {
            // Another call has left it already.
            return Duration::ZERO;
        }
        match status.and_then(Refusal::from_status) {
            Some(Refusal { reason: Reason::NotLeader, leader, .. }) => link.route.turned_away(leader.as_deref()),
            _ => link.route.failed(),
        }
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_not_leader(status: &Status) -> bool {
    Refusal::from_status(status).is_some_and(|refusal| refusal.reason == Reason::NotLeader)
}

fn not_reached(unreachable: &client::Unreachable) -> Failure {
    let causes: Vec<String> = unreachable.attempts.iter().map(ToString::to_string).collect();
    Failure::unreachable(causes.join("; "))
}
