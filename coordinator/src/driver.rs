//! Owns the scheduler and the store's writing side, on a thread of its own where there is one:
//!
//! ```text
//! gather ─► handle each ─► Wake if due ─► one commit ─► release replies, sends, watchers
//!    ▲                                                       │
//!    └───────────── what arrived meanwhile ──────────────────┘
//! ```
//!
//! Nothing leaves before its record is durable. While one commit is made durable, what arrives gathers in the channel and is
//! the next one: no timer, no delay, and one caller alone pays one fsync.
//!
//! A commit that fails has changed the scheduler and not the store. Then the scheduler is dropped with all that followed,
//! callers are told, sessions end (they will resume), and once the store takes writes again another scheduler is restored
//! from it. A store that belongs to somebody else, or contradicts us, ends the process instead.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use guestkit_domain::{JobId, JobSpec, Revision, SessionId, Time, WorkerId, WorkerProfile};
use guestkit_protocol::v1;
use guestkit_scheduler::{
    Body, Change, Config, DrainTarget, Effects, Event, Held, Input, JobEntry, Ledger, Notice, Released, Reply,
    RequestId, Scheduler, ToWorker, Want,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::ground::Ground;
use crate::metrics::Metrics;
use crate::outbox::{self, Outbox, Outgoing, goodbye};
use crate::store::{Epoch, Store, StoreError};
use crate::summary::Summary;
use crate::watch::WatchHub;

/// Commands that wait for the driver: what a large fleet says within one commit. Beyond it callers and streams wait, which
/// is what holds peers back.
const COMMANDS_MAX: usize = 8192;

/// Commands handled in one commit: bounds the time a commit takes, and with it everybody's latency.
const GATHER_MAX: usize = 2048;

/// KiB of commands that wait for the driver or for the disk: with it, no number of large documents or outcomes makes the
/// coordinator grow. Dozens of the largest, ten thousands of usual ones.
const COMMANDS_KIB_MAX: u32 = 64 * 1024;

/// Bytes of documents kept at hand for offers: those of jobs that hardly wait. Others are read from the store.
const DOCUMENTS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Between two tries of a store that does not take writes.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What a caller may ask for.
#[derive(Debug)]
pub enum Ask {
    /// Run a job.
    Submit {
        /// What the scheduler decides with.
        spec: Box<JobSpec>,
        /// The encoded document.
        document: Body,
    },
    /// End a job.
    Cancel {
        /// Which.
        job_id: JobId,
        /// Why.
        reason: Arc<str>,
    },
    /// New attempts.
    Retry {
        /// For which.
        job_id: JobId,
    },
    /// Forget a job.
    Delete {
        /// Which.
        job_id: JobId,
    },
    /// Forget those that ended before an instant.
    Expire {
        /// Which, as the store has them.
        jobs: Vec<JobId>,
        /// The instant.
        before: Time,
    },
    /// No new work for some workers.
    Drain {
        /// Which.
        target: DrainTarget,
        /// Until when the rest may run.
        deadline: Option<Duration>,
    },
    /// The end of a drain.
    Resume {
        /// Which.
        target: DrainTarget,
    },
}

/// Why a call was not even decided, or what was decided could not be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    /// The coordinator is stopping.
    #[error("the coordinator is stopping")]
    Stopping,
    /// The store's disk is full.
    #[error("the coordinator's disk is full")]
    DiskFull,
    /// The store does not take writes.
    #[error("the coordinator's store cannot be written")]
    Broken,
    /// Another coordinator leads since this was asked.
    #[error("another coordinator leads now; whether this was done before is not known here")]
    Deposed,
}

type Answer = Result<Reply, Unserved>;
type Reading = Box<dyn FnOnce(&View<'_>) + Send>;

/// What a reader sees of the live state.
#[derive(Debug)]
pub struct View<'a> {
    /// The scheduler.
    pub scheduler: &'a Scheduler,
    /// What workers said of themselves.
    pub descriptions: &'a HashMap<WorkerId, Arc<v1::WorkerDescription>>,
}

enum Command {
    Ask {
        ask: Ask,
        answer: oneshot::Sender<Answer>,
    },
    Open {
        session: SessionId,
        profile: Box<WorkerProfile>,
        held: Vec<Held>,
        description: Box<v1::WorkerDescription>,
        outbox: Outbox,
    },
    Said(Input),
    Beat {
        session: SessionId,
        worker_id: WorkerId,
        sequence: u64,
        free_disk_bytes: u64,
    },
    Read(Reading),
    Compact {
        before: Time,
    },
    Stop,
}

/// A command, and its share of what may wait; the share is given back when what followed is durable.
struct Weighed {
    command: Command,
    share: OwnedSemaphorePermit,
}

impl Command {
    fn kib(&self) -> u32 {
        let bytes = match self {
            Self::Ask { ask: Ask::Submit { document, .. }, .. } => document.len(),
            Self::Said(Input::Outcome { result, .. }) => result.len(),
            Self::Said(Input::Progress { progress, .. }) => progress.body.len(),
            _ => 0,
        };
        u32::try_from(bytes / 1024 + 1).unwrap_or(COMMANDS_KIB_MAX).min(COMMANDS_KIB_MAX)
    }
}

/// How the rest of the coordinator reaches the driver.
#[derive(Debug, Clone)]
pub struct Driver {
    epoch: Epoch,
    clock: Clock,
    commands: mpsc::Sender<Weighed>,
    shares: Arc<Semaphore>,
    sessions: Arc<AtomicU64>,
    deposed: Arc<watch::Sender<bool>>,
}

/// An answer on its way.
#[derive(Debug)]
pub struct Answering {
    answer: oneshot::Receiver<Answer>,
    deposed: watch::Receiver<bool>,
}

impl Answering {
    /// Waits until the answer is durable.
    ///
    /// # Errors
    /// When the coordinator stops or leads no more, or could not make the answer durable.
    pub async fn wait(self) -> Answer {
        tokio::select! {
            biased;
            answer = self.answer => answer.unwrap_or(Err(Unserved::Stopping)),
            () = deposed(self.deposed) => Err(Unserved::Deposed),
        }
    }
}

/// Ends when the driver is deposed.
async fn deposed(mut deposed: watch::Receiver<bool>) {
    // Nobody can depose it any more when the sender is gone: it has stopped, which its channels tell.
    if deposed.wait_for(|deposed| *deposed).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Driver {
    /// Under which this driver writes.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The clock it decides by.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Asks, and waits until the answer is durable.
    ///
    /// # Errors
    /// When the coordinator stops, or could not make the answer durable.
    pub async fn ask(&self, ask: Ask) -> Answer {
        self.begin(ask).await?.wait().await
    }

    /// Asks; the answer comes when it is durable. Waits only for room.
    ///
    /// # Errors
    /// When the coordinator stops.
    pub async fn begin(&self, ask: Ask) -> Result<Answering, Unserved> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Ask { ask, answer }).await?;
        Ok(Answering { answer: answered, deposed: self.deposed.subscribe() })
    }

    /// Opens a worker's session.
    ///
    /// # Errors
    /// When the coordinator stops.
    pub async fn open(
        &self,
        profile: WorkerProfile,
        held: Vec<Held>,
        description: v1::WorkerDescription,
        outbox: Outbox,
    ) -> Result<SessionId, Unserved> {
        let session = SessionId(self.sessions.fetch_add(1, Ordering::Relaxed));
        let (profile, description) = (Box::new(profile), Box::new(description));
        self.send(Command::Open { session, profile, held, description, outbox }).await?;
        Ok(session)
    }

    /// Hands in what a session said, or that it ended.
    ///
    /// # Errors
    /// When the coordinator stops.
    pub async fn say(&self, input: Input) -> Result<(), Unserved> {
        self.send(Command::Said(input)).await
    }

    /// Hands in a heartbeat, with the bytes free where the worker writes.
    ///
    /// # Errors
    /// When the coordinator stops.
    pub async fn beat(
        &self,
        session: SessionId,
        worker_id: WorkerId,
        sequence: u64,
        free_disk_bytes: u64,
    ) -> Result<(), Unserved> {
        self.send(Command::Beat { session, worker_id, sequence, free_disk_bytes }).await
    }

    /// Looks at the live state.
    ///
    /// # Errors
    /// When the coordinator stops.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, Unserved> {
        let (answer, answered) = oneshot::channel();
        // A caller that went away does not want the answer.
        let reading: Reading = Box::new(move |view| drop(answer.send(look(view))));
        self.send(Command::Read(reading)).await?;
        tokio::select! {
            biased;
            answer = answered => answer.map_err(|_| Unserved::Stopping),
            () = deposed(self.deposed.subscribe()) => Err(Unserved::Deposed),
        }
    }

    /// Lets the store drop what was told of jobs that are gone, before an instant.
    pub async fn compact(&self, before: Time) {
        // One that has stopped leaves it to the next.
        let _ = self.send(Command::Compact { before }).await;
    }

    /// Ends every session with a word, answers what was asked before, and stops.
    pub async fn stop(&self) {
        // One that has stopped already is stopped.
        let _ = self.send(Command::Stop).await;
    }

    /// Ends everything at once: another may lead. Whoever waits for an answer is told so, also where the thread itself is
    /// held up by its store; what that still makes durable is not let go any more.
    pub fn depose(&self) {
        self.deposed.send_replace(true);
    }

    async fn send(&self, command: Command) -> Result<(), Unserved> {
        let sending = async {
            let shares = Arc::clone(&self.shares);
            let share = shares.acquire_many_owned(command.kib()).await.map_err(|_| Unserved::Stopping)?;
            self.commands.send(Weighed { command, share }).await.map_err(|_| Unserved::Stopping)
        };
        tokio::select! {
            biased;
            () = deposed(self.deposed.subscribe()) => Err(Unserved::Deposed),
            sent = sending => sent,
        }
    }
}

/// What the driver tells others about.
#[derive(Debug, Clone)]
pub struct Outlets {
    /// Watchers of jobs.
    pub hub: WatchHub,
    /// Counts, after each commit.
    pub summary: watch::Sender<Summary>,
    /// Whether changes can be made durable.
    pub writable: watch::Sender<bool>,
    /// Raised when a worker changed.
    pub fleet: watch::Sender<u64>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// What the driver goes on from.
#[derive(Debug)]
pub struct Start<S> {
    /// The store's writing side.
    pub store: S,
    /// Names us there.
    pub epoch: Epoch,
    /// What it holds.
    pub ledger: Ledger,
    /// The one clock.
    pub clock: Clock,
    /// What an operator decides.
    pub config: Config,
}

/// Restores the scheduler and starts the driver on `ground`. It ends when it was stopped, or with the error that makes going
/// on unsound.
///
/// # Errors
/// When there is no room for it.
pub fn start<S: Store>(
    start: Start<S>,
    outlets: Outlets,
    ground: &impl Ground,
) -> std::io::Result<(Driver, oneshot::Receiver<Result<(), StoreError>>)> {
    let Start { store, epoch, ledger, clock, config } = start;
    let (commands, taken) = mpsc::channel(COMMANDS_MAX);
    let (depose, deposed) = watch::channel(false);
    let machine = Machine {
        deposed,
        revision: ledger.revision,
        scheduler: Scheduler::restore(config.clone(), ledger, clock.now()),
        config,
        clock,
        store,
        epoch,
        outlets,
        requests: 0,
        callers: HashMap::new(),
        outboxes: HashMap::new(),
        dropped: Vec::new(),
        descriptions: HashMap::new(),
        documents: Documents::default(),
    };
    machine.summarize();
    let (ended, ending) = oneshot::channel();
    // Nobody listening means that the process is ending anyway.
    ground.drive(async move { drop(ended.send(machine.run(taken).await)) })?;
    // Session ids are told in logs: 0 would look like none.
    let shares = Arc::new(Semaphore::new(COMMANDS_KIB_MAX as usize));
    let (sessions, deposed) = (Arc::new(AtomicU64::new(1)), Arc::new(depose));
    Ok((Driver { epoch, clock, commands, shares, sessions, deposed }, ending))
}

struct Machine<S> {
    deposed: watch::Receiver<bool>,
    config: Config,
    clock: Clock,
    store: S,
    epoch: Epoch,
    scheduler: Scheduler,
    /// What is durable.
    revision: Revision,
    outlets: Outlets,
    requests: u64,
    callers: HashMap<RequestId, oneshot::Sender<Answer>>,
    outboxes: HashMap<SessionId, Outbox>,
    /// Sessions the driver ended itself, to be told to the scheduler.
    dropped: Vec<SessionId>,
    descriptions: HashMap<WorkerId, Arc<v1::WorkerDescription>>,
    documents: Documents,
}

/// Jobs that the scheduler wants of the store, and those that are not there.
type Recalled = BTreeMap<Want, Option<JobEntry>>;

enum Flow {
    Go,
    Stop,
}

impl<S: Store> Machine<S> {
    async fn run(mut self, mut commands: mpsc::Receiver<Weighed>) -> Result<(), StoreError> {
        let mut gathered = Vec::with_capacity(GATHER_MAX);
        loop {
            let open = self.gather(&mut commands, &mut gathered).await;
            if self.is_deposed() {
                self.tell_everybody(Unserved::Deposed);
                return Err(StoreError::Deposed { ours: self.epoch.0 });
            }
            let (flow, result) = self.round(&mut gathered);
            if let Err(error) = result {
                self.restart(error, &mut commands).await?;
            }
            if !open || matches!(flow, Flow::Stop) {
                self.stop(commands);
                return Ok(());
            }
        }
    }

    /// Waits for something to do; `false` when nobody can ask any more.
    async fn gather(&mut self, commands: &mut mpsc::Receiver<Weighed>, gathered: &mut Vec<Weighed>) -> bool {
        if !self.dropped.is_empty() {
            return true;
        }
        let deadline = self.scheduler.next_deadline().map(|at| self.clock.instant_of(at));
        let due = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = deposed(self.deposed.clone()) => true,
            count = commands.recv_many(gathered, GATHER_MAX) => count > 0,
            () = due => true,
        }
    }

    fn is_deposed(&self) -> bool {
        *self.deposed.borrow()
    }

    /// Handles what was gathered, commits it, and lets go what followed.
    fn round(&mut self, gathered: &mut Vec<Weighed>) -> (Flow, Result<(), StoreError>) {
        let mut effects = Effects::default();
        let mut flow = Flow::Go;
        let now = self.clock.now();
        for session in std::mem::take(&mut self.dropped) {
            self.scheduler.handle(now, Input::Disconnect { session }, &mut effects);
        }
        let mut shares = Vec::with_capacity(gathered.len());
        let mut commands = Vec::with_capacity(gathered.len());
        for Weighed { command, share } in gathered.drain(..) {
            shares.push(share);
            commands.push(self.expect(command));
        }
        let (mut recalled, mut failed) = match self.recall(&commands) {
            Ok(recalled) => (recalled, None),
            Err(error) => (Recalled::new(), Some(error)),
        };
        for command in commands {
            if matches!(command, Command::Stop) {
                flow = Flow::Stop;
            } else if failed.is_some() {
                turn_away(command, Unserved::Broken);
            } else {
                failed = self.take(now, command, &mut recalled, &mut effects).err();
            }
        }
        if let Some(error) = failed {
            return (flow, Err(error));
        }
        if self.scheduler.next_deadline().is_some_and(|at| at <= now) {
            self.scheduler.handle(now, Input::Wake, &mut effects);
        }
        (flow, self.commit(effects))
    }

    /// Remembers who waits for an answer.
    fn expect(&mut self, command: Command) -> Command {
        let Command::Ask { ask, answer } = command else { return command };
        let request = RequestId(self.requests);
        self.requests += 1;
        self.callers.insert(request, answer);
        Command::Said(ask.input(request))
    }

    /// What the scheduler will want to know of the store, asked for at once.
    fn recall(&self, commands: &[Command]) -> Result<Recalled, StoreError> {
        let inputs = commands.iter().filter_map(|command| match command {
            Command::Said(input) => Some(input),
            _ => None,
        });
        let wants: BTreeSet<Want> = inputs.flat_map(|input| self.scheduler.wants(input)).collect();
        if wants.is_empty() { Ok(Recalled::new()) } else { self.store.entries(wants) }
    }

    fn take(
        &mut self,
        now: Time,
        command: Command,
        recalled: &mut Recalled,
        effects: &mut Effects,
    ) -> Result<(), StoreError> {
        match command {
            Command::Open { session, profile, held, description, outbox } => {
                self.describe(profile.worker_id.clone(), *description);
                self.outboxes.insert(session, outbox);
                self.handle(now, Input::Connect { session, profile, held }, recalled, effects)?;
            }
            Command::Said(input) => {
                if let Input::Disconnect { session } = &input {
                    self.outboxes.remove(session);
                }
                self.handle(now, input, recalled, effects)?;
            }
            Command::Beat { session, worker_id, sequence, free_disk_bytes } => {
                if let Some(description) = self.descriptions.get_mut(&worker_id) {
                    Arc::make_mut(description).free_disk_bytes = free_disk_bytes;
                }
                self.handle(now, Input::Heartbeat { session, sequence }, recalled, effects)?;
            }
            Command::Read(look) => look(&View { scheduler: &self.scheduler, descriptions: &self.descriptions }),
            Command::Compact { before } => self.store.compact(before)?,
            // Those who ask have become inputs; the end is the round's.
            Command::Ask { .. } | Command::Stop => {}
        }
        Ok(())
    }

    /// Each want is asked for anew when it comes a second time: what was recalled has been handed in then.
    fn handle(
        &mut self,
        now: Time,
        input: Input,
        recalled: &mut Recalled,
        effects: &mut Effects,
    ) -> Result<(), StoreError> {
        for want in self.scheduler.wants(&input) {
            let entry = match recalled.remove(&want) {
                Some(entry) => entry,
                None => self.store.entry(&want)?,
            };
            if let Some(entry) = entry {
                self.scheduler.handle(now, Input::Recall { entry: Box::new(entry) }, effects);
            }
        }
        self.scheduler.handle(now, input, effects);
        Ok(())
    }

    /// Remembers what a worker said of itself. The scheduler bounds the workers it knows; those it forgot go from here too.
    fn describe(&mut self, worker_id: WorkerId, description: v1::WorkerDescription) {
        if self.descriptions.len() >= self.config.workers_max.saturating_mul(2) {
            let scheduler = &self.scheduler;
            self.descriptions.retain(|worker_id, _| scheduler.worker(worker_id).is_some());
        }
        self.descriptions.insert(worker_id, Arc::new(description));
    }

    fn commit(&mut self, effects: Effects) -> Result<(), StoreError> {
        if let Some(revision) = effects.revision() {
            let started = Instant::now();
            self.store.commit(self.epoch, effects.records())?;
            self.outlets.metrics.committed(effects.records().len(), started.elapsed());
            self.revision = revision;
        }
        if self.is_deposed() {
            // The next leader goes on from what was committed just now; callers and workers hear of it there.
            return Err(StoreError::Deposed { ours: self.epoch.0 });
        }
        match effects.release(self.revision) {
            Ok(released) => self.release(released),
            // The revision is the one that was just committed; a scheduler that counts otherwise must not speak.
            Err(error) => error!(%error, "withheld what is not durable"),
        }
        Ok(())
    }

    fn release(&mut self, released: Released) {
        for record in &released.records {
            if let Change::Job { job_id, event: Event::Submitted { document, .. }, .. } = &record.change {
                self.documents.keep(job_id, document);
            }
        }
        // Before the replies: who was answered and asks for the counts finds itself in them.
        self.summarize();
        for (request, reply) in released.replies {
            if let Some(caller) = self.callers.remove(&request) {
                // A caller that went away does not want the answer.
                drop(caller.send(Ok(reply)));
            }
        }
        for (session, message) in released.sends {
            self.send(session, message);
        }
        let jobs = released.records.iter().filter_map(|record| match &record.change {
            Change::Job { job_id, .. } | Change::Deleted { job_id } => Some(job_id),
            Change::Drain { .. } | Change::Resume { .. } => None,
        });
        self.outlets.hub.publish(jobs, self.revision);
        if released.notices.iter().any(|notice| matches!(notice, Notice::WorkerChanged { .. })) {
            self.outlets.fleet.send_modify(|changes| *changes = changes.wrapping_add(1));
        }
    }

    fn send(&mut self, session: SessionId, message: ToWorker) {
        if let ToWorker::Goodbye { reason } = message {
            if let Some(outbox) = self.outboxes.remove(&session) {
                outbox.end(outbox::farewell(reason));
            }
            return;
        }
        let Some(outbox) = self.outboxes.get(&session) else { return };
        let document = match &message {
            ToWorker::Lease { job_id, .. } => self.documents.get(job_id),
            _ => None,
        };
        let outgoing = Outgoing { message, document };
        if outbox.send(outgoing).is_err()
            && let Some(outbox) = self.outboxes.remove(&session)
        {
            warn!(session = session.0, "session ends: the worker does not take what is sent");
            self.outlets.metrics.sessions_slow.fetch_add(1, Ordering::Relaxed);
            let text = "the worker does not take what is sent to it";
            outbox.end(goodbye(v1::GoodbyeReason::Slow, text, outbox::RECONNECT_AFTER_RESTART));
            self.dropped.push(session);
        }
    }

    fn summarize(&self) {
        let summary = Summary::from(self.scheduler.summary());
        self.outlets.summary.send_if_modified(|known| std::mem::replace(known, summary) != summary);
    }

    /// After a commit that failed: nothing that followed leaves, and the next scheduler is made of what is durable.
    async fn restart(&mut self, error: StoreError, commands: &mut mpsc::Receiver<Weighed>) -> Result<(), StoreError> {
        self.outlets.metrics.commits_failed.fetch_add(1, Ordering::Relaxed);
        if is_final(&error) {
            return Err(self.give_up(error));
        }
        let unserved = if error.is_full() { Unserved::DiskFull } else { Unserved::Broken };
        error!(error = %chain(&error), "a commit failed; starting over from what is durable");
        self.outlets.writable.send_replace(false);
        self.tell_everybody(unserved);
        loop {
            match self.reload() {
                Ok(()) => break,
                Err(error) if is_final(&error) => return Err(self.give_up(error)),
                Err(error) => warn!(error = %chain(&error), "the store does not take writes yet"),
            }
            let until = Instant::now() + PROBE_INTERVAL;
            let ended = self.deposed.clone();
            let next = async |commands: &mut mpsc::Receiver<Weighed>| {
                tokio::select! {
                    () = deposed(ended.clone()) => None,
                    command = tokio::time::timeout_at(until, commands.recv()) => command.ok().flatten(),
                }
            };
            while let Some(Weighed { command, .. }) = next(commands).await {
                match command {
                    Command::Stop => return Err(error),
                    command => turn_away(command, unserved),
                }
            }
            if self.is_deposed() {
                return Err(StoreError::Deposed { ours: self.epoch.0 });
            }
        }
        info!(revision = self.revision.0, "the store takes writes again");
        self.outlets.writable.send_replace(true);
        self.summarize();
        Ok(())
    }

    /// Ends what cannot go on.
    fn give_up(&mut self, error: StoreError) -> StoreError {
        match error {
            StoreError::Deposed { .. } => {
                warn!(error = %chain(&error), "deposed");
                self.tell_everybody(Unserved::Deposed);
            }
            _ => error!(error = %chain(&error), "stopping: the store and this process contradict each other"),
        }
        error
    }

    fn tell_everybody(&mut self, unserved: Unserved) {
        for (_, caller) in self.callers.drain() {
            drop(caller.send(Err(unserved)));
        }
        if unserved == Unserved::Deposed {
            // Sessions learn from who leads instead, and where to go.
            self.outboxes.clear();
        }
        for (_, outbox) in self.outboxes.drain() {
            let text = format!("{unserved}; leases stand");
            outbox.end(goodbye(v1::GoodbyeReason::ShuttingDown, text, outbox::RECONNECT_AFTER_RESTART));
        }
        self.dropped.clear();
    }

    fn reload(&mut self) -> Result<(), StoreError> {
        self.store.probe(self.epoch)?;
        let ledger = self.store.load()?;
        self.revision = ledger.revision;
        self.scheduler = Scheduler::restore(self.config.clone(), ledger, self.clock.now());
        Ok(())
    }

    fn stop(mut self, mut commands: mpsc::Receiver<Weighed>) {
        commands.close();
        while let Ok(Weighed { command, .. }) = commands.try_recv() {
            turn_away(command, Unserved::Stopping);
        }
        // Sessions say so by themselves.
        self.outboxes.clear();
        for (_, caller) in self.callers.drain() {
            drop(caller.send(Err(Unserved::Stopping)));
        }
        info!(revision = self.revision.0, "the driver stopped");
    }
}

/// Whether there is no going on with this store in this epoch.
fn is_final(error: &StoreError) -> bool {
    matches!(error, StoreError::Deposed { .. } | StoreError::NoSuchJob { .. } | StoreError::Damaged { .. })
}

/// Answers a command that will not be handled. A reading's caller learns it from its channel.
fn turn_away(command: Command, unserved: Unserved) {
    match command {
        Command::Ask { answer, .. } => drop(answer.send(Err(unserved))),
        Command::Open { outbox, .. } => {
            let text = unserved.to_string();
            outbox.end(goodbye(v1::GoodbyeReason::ShuttingDown, text, outbox::RECONNECT_AFTER_RESTART));
        }
        Command::Said(_) | Command::Beat { .. } | Command::Read(_) | Command::Compact { .. } | Command::Stop => {}
    }
}

fn chain(error: &StoreError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl Ask {
    fn input(self, request: RequestId) -> Input {
        match self {
            Self::Submit { spec, document } => Input::Submit { request, spec, document },
            Self::Cancel { job_id, reason } => Input::Cancel { request, job_id, reason },
            Self::Retry { job_id } => Input::Retry { request, job_id },
            Self::Delete { job_id } => Input::Delete { request, job_id },
            Self::Expire { jobs, before } => Input::Expire { request, jobs, before },
            Self::Drain { target, deadline } => Input::Drain { request, target, deadline },
            Self::Resume { target } => Input::Resume { request, target },
        }
    }
}

/// Documents of jobs submitted lately, oldest first out.
#[derive(Debug, Default)]
struct Documents {
    bytes: usize,
    by_job: HashMap<JobId, Body>,
    order: VecDeque<JobId>,
}

impl Documents {
    fn keep(&mut self, job_id: &JobId, document: &Body) {
        self.bytes += document.len();
        self.order.push_back(job_id.clone());
        if let Some(old) = self.by_job.insert(job_id.clone(), Arc::clone(document)) {
            self.bytes -= old.len();
        }
        while self.bytes > DOCUMENTS_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.by_job.remove(&oldest).map_or(0, |document| document.len());
        }
    }

    fn get(&self, job_id: &JobId) -> Option<Body> {
        self.by_job.get(job_id).cloned()
    }
}
