//! The worker's half of a session as a pure machine: what it holds, what it says, when it gives up. No I/O, no clock, no
//! task: instants are durations since the worker's start, wishes leave as [`Effect`]s, and the machine tells when it wants
//! to be called next. Its I/O is `stream.rs`.
//!
//! ```text
//! lease ─► Running ─► Finished ─(acknowledged)─► forgotten
//!             │ │        ▲
//!             │ └─ cancel: Stopping, an outcome follows
//!             └─── void or fenced: Stopping, nothing follows ─► forgotten; an outcome that was there already is told
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use guestkit_protocol::v1;
use v1::session_request::Message as Say;
use v1::session_response::Message as Hear;

use crate::attempt::Stop;
use crate::wire;

/// The version of the session's protocol that is spoken here.
pub const PROTOCOL_VERSION: u32 = 1;

/// Time since the worker's start.
pub type Now = Duration;

/// Who the worker is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The name it keeps across restarts.
    pub worker_id: String,
    /// This start of its process.
    pub boot_id: String,
    /// What it is.
    pub description: v1::WorkerDescription,
    /// The largest message it takes, in bytes.
    pub message_bytes_max: u64,
}

/// What the machine wants done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Say this on the stream.
    Send(Box<Say>),
    /// Run this attempt.
    Start(Box<v1::Lease>),
    /// End this lease's attempt.
    Stop(u64, Stop),
    /// Say this lease's outcome on the stream; by reference where its result is above so many bytes.
    Deliver(u64, u64),
    /// Drop this lease's outcome from the disk.
    Forget(u64),
    /// End the stream and connect again, not before so long.
    Disconnect {
        /// For the log.
        why: &'static str,
        /// At least so long from now.
        after: Duration,
    },
    /// End the stream and connect to the coordinator that leads.
    Move {
        /// Its address; empty when the coordinator that says so does not know.
        leader: String,
        /// At least so long from now.
        after: Duration,
    },
    /// Leave: nothing is left to do here.
    Leave {
        /// Whether that is what was asked for.
        gracefully: bool,
    },
}

/// Whether a lease can be taken, as found out by looking at its document and this worker.
pub type Verdict = Result<(), (v1::RefusalFault, v1::JobError)>;

/// Without a word for so many heartbeats the stream is dead, whatever TCP believes.
const SILENT_HEARTBEATS_MAX: u32 = 3;
/// How long a coordinator may take to answer Hello.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// What is assumed of a coordinator that has never been heard: its own defaults.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(5);
const DEFAULT_TTL: Duration = Duration::from_secs(60);
/// Tries to reconnect that fit into the life of a lease, at least.
const TRIES_PER_LEASE: u32 = 12;
/// Heartbeat intervals outside these bounds are nonsense or would be a flood.
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);
const HEARTBEAT_MAX: Duration = Duration::from_secs(300);
/// Results above this go by reference where the coordinator does not say: the protocol's inline limit.
const DEFAULT_INLINE_BYTES_MAX: u64 = 1 << 20;
/// How long a leaving worker tries to deliver outcomes that are safe on its disk.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(10);
/// Progress events of one attempt that pass at once: more than an inspection has phases and modules.
const PROGRESS_BURST: f64 = 50.0;
/// Progress events of one attempt per second beyond that; between them the latest wins.
const PROGRESS_PER_SECOND: f64 = 10.0;

/// The stream's state.
#[derive(Debug, Clone, PartialEq)]
enum Link {
    /// There is none.
    Down,
    /// Hello was said; nothing is heard yet.
    Greeting { since: Now },
    /// Welcome was heard.
    Up { next_heartbeat: Now },
}

/// What is held of a lease.
#[derive(Debug, Clone, PartialEq)]
enum Held {
    Running {
        job_id: String,
        progress: Gate,
    },
    /// A stop was asked for; `outcome_wanted` tells whether its end is still told.
    Stopping {
        job_id: String,
        outcome_wanted: bool,
    },
    /// On disk, waiting to be acknowledged.
    Finished {
        job_id: String,
    },
}

impl Held {
    fn job_id(&self) -> &str {
        match self {
            Self::Running { job_id, .. } | Self::Stopping { job_id, .. } | Self::Finished { job_id } => job_id,
        }
    }

    /// Whether the coordinator will hear how it ended: not if it was given up.
    fn is_told(&self) -> bool {
        !matches!(self, Self::Stopping { outcome_wanted: false, .. })
    }
}

/// Lets bursts through and thins floods: the latest progress waits where there is no token for it.
#[derive(Debug, Clone, PartialEq)]
struct Gate {
    tokens: f64,
    filled: Now,
    waiting: Option<v1::Progress>,
}

impl Gate {
    fn new(now: Now) -> Self {
        Self { tokens: PROGRESS_BURST, filled: now, waiting: None }
    }

    fn pass(&mut self, now: Now) -> Option<v1::Progress> {
        let gained = now.saturating_sub(self.filled).as_secs_f64() * PROGRESS_PER_SECOND;
        self.tokens = (self.tokens + gained).min(PROGRESS_BURST);
        self.filled = now;
        if self.tokens < 1.0 {
            return None;
        }
        let passed = self.waiting.take()?;
        self.tokens -= 1.0;
        Some(passed)
    }

    fn next(&self) -> Option<Now> {
        self.waiting.as_ref()?;
        let missing = (1.0 - self.tokens).max(0.0) / PROGRESS_PER_SECOND;
        // A little later than exact, so that the token is there when its time has come.
        Some(self.filled + Duration::from_secs_f64(missing) + Duration::from_millis(1))
    }
}

/// Whether new work is taken.
#[derive(Debug, Clone, PartialEq)]
enum Mode {
    Working,
    /// Leaving once nothing runs; what still runs at `deadline` is given up.
    Draining {
        deadline: Option<Now>,
        idle_since: Option<Now>,
    },
    Gone,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    identity: Identity,
    link: Link,
    leases: BTreeMap<u64, Held>,
    mode: Mode,
    heartbeat_interval: Duration,
    lease_ttl: Duration,
    inline_bytes_max: u64,
    heartbeat_sequence: u64,
    /// Streams opened.
    streams: u64,
    /// The highest lease offered on this stream: leases rise.
    newest_offer: u64,
    /// When the coordinator was last heard.
    heard: Now,
    free_disk_bytes: u64,
    effects: Vec<Effect>,
}

impl Machine {
    /// A machine that is not connected and holds the outcomes found on the disk: lease and job of each.
    #[must_use]
    pub fn new(identity: Identity, kept: impl IntoIterator<Item = (u64, String)>) -> Self {
        let leases = kept.into_iter().map(|(lease, job_id)| (lease, Held::Finished { job_id })).collect();
        Self {
            free_disk_bytes: identity.description.free_disk_bytes,
            identity,
            link: Link::Down,
            leases,
            mode: Mode::Working,
            heartbeat_interval: DEFAULT_HEARTBEAT,
            lease_ttl: DEFAULT_TTL,
            inline_bytes_max: DEFAULT_INLINE_BYTES_MAX,
            heartbeat_sequence: 0,
            streams: 0,
            newest_offer: 0,
            heard: Duration::ZERO,
            effects: Vec::new(),
        }
    }

    /// What is to be done since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Attempts that have a process.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.leases.values().filter(|held| !matches!(held, Held::Finished { .. })).count()
    }

    /// The longest wait between two tries to reach a coordinator. While leases are held, a broken connection must not cost
    /// them: several tries fit into the life of one, however long the coordinator was away.
    #[must_use]
    pub fn reconnect_within(&self) -> Duration {
        if !self.leases.is_empty() { self.lease_ttl / TRIES_PER_LEASE } else { Duration::MAX }
    }

    /// Tells how many bytes are free where the worker writes; goes out with the next heartbeat.
    pub fn set_free_disk_bytes(&mut self, bytes: u64) {
        self.free_disk_bytes = bytes;
    }

    /// A stream is being opened; Hello is its first word.
    pub fn on_connecting(&mut self, now: Now) {
        self.link = Link::Greeting { since: now };
        self.heartbeat_sequence = 0;
        self.streams = self.streams.saturating_add(1);
        self.newest_offer = 0;
        let held = self.leases.iter().filter_map(|(&lease_id, held)| {
            let state = match held {
                Held::Finished { .. } => v1::HeldState::Finished,
                held if held.is_told() => v1::HeldState::Running,
                _ => return None,
            };
            Some(v1::HeldLease { lease_id, job_id: held.job_id().into(), state: state.into() })
        });
        let hello = v1::Hello {
            protocol_version: PROTOCOL_VERSION,
            worker_id: self.identity.worker_id.clone(),
            boot_id: self.identity.boot_id.clone(),
            description: Some(v1::WorkerDescription {
                free_disk_bytes: self.free_disk_bytes,
                ..self.identity.description.clone()
            }),
            held: held.collect(),
            message_bytes_max: self.identity.message_bytes_max,
            stream: self.streams,
        };
        self.say(Say::Hello(hello));
    }

    /// The stream is gone.
    pub fn on_lost(&mut self, now: Now) {
        self.link = Link::Down;
        self.on_tick(now);
    }

    /// Something was heard that is no lease; leases come with their verdict to [`Machine::on_lease`].
    pub fn on_message(&mut self, now: Now, message: Hear) {
        self.heard = now;
        match message {
            Hear::Welcome(welcome) => self.on_welcome(now, &welcome),
            Hear::Cancel(cancel) => self.on_cancel(&cancel),
            Hear::OutcomeAck(ack) => self.forget(ack.lease_id),
            Hear::Drain(drain) => self.on_drain(now, wire::duration(drain.deadline.as_ref())),
            Hear::Goodbye(goodbye) => self.on_goodbye(&goodbye),
            // A lease without a verdict: nothing is known against it.
            Hear::Lease(lease) => self.on_lease(now, lease, Ok(())),
            Hear::HeartbeatAck(ack) => self.on_heartbeat_ack(now, &ack),
        }
        self.leave_if_done(now);
    }

    fn on_welcome(&mut self, now: Now, welcome: &v1::Welcome) {
        if let Some(interval) = wire::duration(welcome.heartbeat_interval.as_ref()) {
            self.heartbeat_interval = interval.clamp(HEARTBEAT_MIN, HEARTBEAT_MAX);
        }
        if let Some(ttl) = wire::duration(welcome.lease_ttl.as_ref()) {
            self.lease_ttl = ttl.max(self.heartbeat_interval);
        }
        if welcome.inline_bytes_max > 0 {
            self.inline_bytes_max = welcome.inline_bytes_max;
        }
        let first = wire::duration(welcome.first_heartbeat.as_ref()).unwrap_or(self.heartbeat_interval);
        self.link = Link::Up { next_heartbeat: now + first.min(self.heartbeat_interval) };
        let stopped: Vec<u64> = welcome
            .held
            .iter()
            .filter(|verdict| verdict.decision() == v1::HeldDecision::Stop)
            .map(|verdict| verdict.lease_id)
            .collect();
        for lease in stopped {
            self.give_up(lease);
        }
        for verdict in welcome.held.iter().filter(|verdict| verdict.decision() == v1::HeldDecision::Keep) {
            // Hello said that it runs; since then it was given up.
            if !self.leases.get(&verdict.lease_id).is_some_and(Held::is_told) {
                self.give_back(verdict.lease_id, "it was given up while the coordinator was not heard");
            }
        }
        let finished: Vec<u64> =
            self.leases.iter().filter(|(_, held)| matches!(held, Held::Finished { .. })).map(|(id, _)| *id).collect();
        for lease in finished {
            self.deliver(lease);
        }
        self.flush_progress(now);
        if matches!(self.mode, Mode::Draining { .. }) {
            self.say_draining();
        }
    }

    /// A fleet that grows is asked for fewer heartbeats, one that shrinks for more.
    fn on_heartbeat_ack(&mut self, now: Now, ack: &v1::HeartbeatAck) {
        let Some(interval) = wire::duration(ack.heartbeat_interval.as_ref()) else { return };
        self.heartbeat_interval = interval.clamp(HEARTBEAT_MIN, HEARTBEAT_MAX);
        if let Link::Up { next_heartbeat } = &mut self.link {
            *next_heartbeat = (*next_heartbeat).min(now + self.heartbeat_interval);
        }
    }

    /// An attempt is offered.
    pub fn on_lease(&mut self, now: Now, lease: v1::Lease, verdict: Verdict) {
        self.heard = now;
        let lease_id = lease.lease_id;
        match self.leases.get(&lease_id) {
            Some(Held::Finished { .. }) => return self.deliver(lease_id),
            // Said twice: the answer is the same.
            Some(_) => return self.say(Say::Accept(v1::Accept { lease_id })),
            None => {}
        }
        let again = lease_id <= self.newest_offer;
        self.newest_offer = self.newest_offer.max(lease_id);
        let slots = usize::try_from(self.identity.description.slots).unwrap_or(usize::MAX);
        let refusal = if again {
            // It has been offered before and its attempt is over: a lease names one attempt.
            Some((v1::RefusalFault::Busy, busy("the offer is not new")))
        } else if self.mode != Mode::Working {
            Some((v1::RefusalFault::Busy, busy("the worker is leaving")))
        } else if self.busy() >= slots {
            Some((v1::RefusalFault::Busy, busy("every slot is taken")))
        } else {
            verdict.err()
        };
        if let Some((fault, error)) = refusal {
            return self.say(Say::Refuse(v1::Refuse { lease_id, fault: fault.into(), error: Some(error) }));
        }
        self.leases.insert(lease_id, Held::Running { job_id: lease.job_id.clone(), progress: Gate::new(now) });
        self.say(Say::Accept(v1::Accept { lease_id }));
        self.effects.push(Effect::Start(Box::new(lease)));
    }

    fn on_cancel(&mut self, cancel: &v1::CancelLease) {
        if !cancel.outcome_wanted {
            return self.give_up(cancel.lease_id);
        }
        // One that has finished meanwhile stands; one that is not held is somebody else's.
        if let Some(held @ Held::Running { .. }) = self.leases.get_mut(&cancel.lease_id) {
            *held = Held::Stopping { job_id: held.job_id().into(), outcome_wanted: true };
            let reason =
                if cancel.reason.is_empty() { "the job was cancelled".to_owned() } else { cancel.reason.clone() };
            self.effects.push(Effect::Stop(cancel.lease_id, Stop::Cancel { reason }));
        }
    }

    /// The lease is void: its attempt ends and its outcome is dropped.
    fn give_up(&mut self, lease_id: u64) {
        let Some(held) = self.leases.get_mut(&lease_id) else { return };
        match held {
            Held::Running { .. } | Held::Stopping { outcome_wanted: true, .. } => {
                *held = Held::Stopping { job_id: held.job_id().into(), outcome_wanted: false };
                self.effects.push(Effect::Stop(lease_id, Stop::Abandon));
            }
            Held::Stopping { .. } => {}
            Held::Finished { .. } => self.forget(lease_id),
        }
    }

    fn forget(&mut self, lease_id: u64) {
        if let Some(Held::Finished { .. }) = self.leases.get(&lease_id) {
            self.leases.remove(&lease_id);
            self.effects.push(Effect::Forget(lease_id));
        }
    }

    fn on_goodbye(&mut self, goodbye: &v1::Goodbye) {
        let after = wire::duration(goodbye.reconnect_after.as_ref()).unwrap_or_default();
        match goodbye.reason() {
            // Another process has this worker's name: ours is the older one, and what it holds is void already.
            v1::GoodbyeReason::Superseded => {
                let all: Vec<u64> = self.leases.keys().copied().collect();
                for lease in all {
                    if !matches!(self.leases.get(&lease), Some(Held::Finished { .. })) {
                        self.give_up(lease);
                    }
                }
                self.mode = Mode::Gone;
                self.effects.push(Effect::Leave { gracefully: false });
            }
            v1::GoodbyeReason::NotLeader => {
                self.effects.push(Effect::Move { leader: goodbye.leader.clone(), after });
            }
            _ => self.effects.push(Effect::Disconnect { why: "the coordinator said goodbye", after }),
        }
    }

    /// An attempt tells how far it is.
    pub fn on_progress(&mut self, now: Now, lease_id: u64, progress: v1::Progress) {
        if let Some(Held::Running { progress: gate, .. }) = self.leases.get_mut(&lease_id) {
            gate.waiting = Some(progress);
            self.flush_progress(now);
        }
    }

    /// An attempt is over: `kept` tells whether it left an outcome, which is durable by now.
    pub fn on_finished(&mut self, now: Now, lease_id: u64, kept: bool) {
        match self.leases.remove(&lease_id) {
            // Also when it was given up meanwhile: what is on disk is dropped on the coordinator's word alone.
            Some(held) if kept => {
                self.say_last_progress(&held, lease_id);
                self.leases.insert(lease_id, Held::Finished { job_id: held.job_id().into() });
                self.deliver(lease_id);
            }
            None if kept => self.effects.push(Effect::Forget(lease_id)),
            Some(_) | None => {}
        }
        self.leave_if_done(now);
    }

    fn say_last_progress(&mut self, held: &Held, lease_id: u64) {
        if let Held::Running { progress: Gate { waiting: Some(progress), .. }, .. } = held
            && self.is_up()
        {
            self.say(Say::Progress(v1::LeaseProgress { lease_id, progress: Some(progress.clone()) }));
        }
    }

    /// The worker is to leave once nothing runs; what still runs after `deadline` is given up.
    pub fn on_drain(&mut self, now: Now, deadline: Option<Duration>) {
        let deadline = deadline.map(|after| now + after);
        match &mut self.mode {
            Mode::Gone => return,
            // The nearer deadline counts.
            Mode::Draining { deadline: held, .. } => {
                *held = match (*held, deadline) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
            Mode::Working => {
                self.mode = Mode::Draining { deadline, idle_since: None };
                if self.is_up() {
                    self.say_draining();
                }
            }
        }
        self.on_tick(now);
    }

    /// Does what its time has come for.
    pub fn on_tick(&mut self, now: Now) {
        match self.link {
            Link::Up { next_heartbeat } => {
                if now.saturating_sub(self.heard) >= self.silence_max() {
                    self.disconnect("the coordinator fell silent");
                } else if now >= next_heartbeat {
                    self.beat(now);
                }
            }
            Link::Greeting { since } if now.saturating_sub(since) >= WELCOME_TIMEOUT => {
                self.disconnect("the coordinator did not answer Hello");
            }
            Link::Greeting { .. } | Link::Down => {}
        }
        if !self.is_up() && now >= self.fence() {
            self.give_up_running("its lease ran out while the coordinator was not heard");
        }
        if let Mode::Draining { deadline: Some(deadline), .. } = self.mode
            && now >= deadline
        {
            self.give_up_running("the worker leaves");
        }
        self.flush_progress(now);
        self.leave_if_done(now);
    }

    fn give_up_running(&mut self, why: &str) {
        let running: Vec<u64> = self
            .leases
            .iter()
            .filter(|(_, held)| matches!(held, Held::Running { .. } | Held::Stopping { outcome_wanted: true, .. }))
            .map(|(id, _)| *id)
            .collect();
        for lease in running {
            tracing::warn!(lease, why, "attempt given up");
            if self.is_up() {
                self.give_back(lease, why);
            }
            self.give_up(lease);
        }
    }

    /// Refusing what was accepted gives it back: it counts as lost, not as failed, and is queued again at once.
    fn give_back(&mut self, lease_id: u64, why: &str) {
        let fault = v1::RefusalFault::Busy.into();
        self.say(Say::Refuse(v1::Refuse { lease_id, fault, error: Some(busy(why)) }));
    }

    /// When to call [`Machine::on_tick`] next, at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Now> {
        let link = match self.link {
            Link::Up { next_heartbeat } => Some(next_heartbeat.min(self.heard + self.silence_max())),
            Link::Greeting { since } => Some(since + WELCOME_TIMEOUT),
            Link::Down => None,
        };
        let running = |held: &Held| matches!(held, Held::Running { .. } | Held::Stopping { outcome_wanted: true, .. });
        let has_running = self.leases.values().any(running);
        let fence = (!self.is_up() && has_running).then(|| self.fence());
        let drain = match self.mode {
            Mode::Draining { deadline, .. } if has_running => deadline,
            Mode::Draining { idle_since, .. } => idle_since.map(|since| since + DELIVERY_PATIENCE),
            _ => None,
        };
        let progress = self.leases.values().filter_map(|held| match held {
            Held::Running { progress, .. } if self.is_up() => progress.next(),
            _ => None,
        });
        [link, fence, drain].into_iter().flatten().chain(progress).min()
    }

    fn is_up(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    fn silence_max(&self) -> Duration {
        self.heartbeat_interval * SILENT_HEARTBEATS_MAX + Duration::from_secs(1)
    }

    /// When a worker cut off stops its own attempts: by then the coordinator has given up on them, and as long again has
    /// passed for a coordinator that restarted and waits for its workers.
    fn fence(&self) -> Now {
        self.heard + self.lease_ttl * 2
    }

    fn beat(&mut self, now: Now) {
        self.heartbeat_sequence = self.heartbeat_sequence.saturating_add(1);
        self.link = Link::Up { next_heartbeat: now + self.heartbeat_interval };
        self.say(Say::Heartbeat(v1::Heartbeat {
            sequence: self.heartbeat_sequence,
            free_disk_bytes: self.free_disk_bytes,
        }));
    }

    fn flush_progress(&mut self, now: Now) {
        if !self.is_up() {
            return;
        }
        for (&lease_id, held) in &mut self.leases {
            if let Held::Running { progress, .. } = held
                && let Some(passed) = progress.pass(now)
            {
                let said = Say::Progress(v1::LeaseProgress { lease_id, progress: Some(passed) });
                self.effects.push(Effect::Send(Box::new(said)));
            }
        }
    }

    fn deliver(&mut self, lease_id: u64) {
        if self.is_up() {
            self.effects.push(Effect::Deliver(lease_id, self.inline_bytes_max));
        }
    }

    fn disconnect(&mut self, why: &'static str) {
        self.link = Link::Down;
        self.effects.push(Effect::Disconnect { why, after: Duration::ZERO });
    }

    fn say_draining(&mut self) {
        self.say(Say::Draining(v1::Draining { reason: "the worker was asked to leave".into() }));
    }

    fn say(&mut self, message: Say) {
        self.effects.push(Effect::Send(Box::new(message)));
    }

    fn leave_if_done(&mut self, now: Now) {
        if self.busy() > 0 {
            return;
        }
        let Mode::Draining { idle_since, .. } = &mut self.mode else { return };
        let idle_since = *idle_since.get_or_insert(now);
        // Without a stream there is nobody to wait for: what is not delivered is safe on the disk.
        let in_vain = self.link == Link::Down || now.saturating_sub(idle_since) >= DELIVERY_PATIENCE;
        if self.leases.is_empty() || in_vain {
            self.mode = Mode::Gone;
            self.effects.push(Effect::Leave { gracefully: true });
        }
    }
}

fn busy(message: &str) -> v1::JobError {
    crate::failure::Failure::new(guestkit_domain::ErrorCode::Internal, message).to_job_error("")
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
