//! Stories: `tests/scripts/*.txt`, one rule each, short enough to be read. A line `> command` is done; the indented lines
//! beneath it are everything that followed. `GUESTKIT_STORIES_UPDATE=1` writes them anew, to be proofread before committing.
//!
//! ```text
//! a #2 assigned: …       a record: job, entry of its log, state after it, what happened
//! → w1: …                a message to a worker (w1'2 is its second session)
//! = …                    an answer to a caller
//! ! …                    a notice to watchers of the fleet
//! ```

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: what should not be fails it")]
#![allow(clippy::disallowed_methods, reason = "the bans are the scheduler's; a test reads its settings and scripts")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use guestkit_domain::{
    Backoff, BootId, Duration, ErrorCode, Failure, IdempotencyPolicy, JobId, JobSpec, JobState, LeaseId, Namespace,
    OutcomeStatus, Placement, Priority, Progress, RefusalFault, SessionId, Time, WorkerId, WorkerProfile,
};
use guestkit_scheduler::{
    Change, Config, DrainTarget, Effects, Event, Held, Input, Ledger, Notice, Phase, Record, Reply, RequestId,
    Scheduler, ToWorker,
};

const START: Time = Time(1_000_000);

struct Story {
    config: Config,
    scheduler: Scheduler,
    ledger: Ledger,
    now: Time,
    sessions: BTreeMap<WorkerId, Vec<SessionId>>,
    requests: u64,
    /// Workers whose heartbeats go without saying.
    beating: BTreeSet<WorkerId>,
    out: String,
}

/// `key=value` words of a command.
struct Options<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Options<'a> {
    fn parse(words: &[&'a str]) -> Self {
        Self(words.iter().filter_map(|word| word.split_once('=')).collect())
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        self.0.remove(name)
    }

    fn number(&mut self, name: &str) -> Option<u64> {
        self.take(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
    }

    fn seconds(&mut self, name: &str) -> Option<Duration> {
        self.take(name).map(|text| Duration::from_secs_f64(text.parse().unwrap_or_else(|_| panic!("{name}={text}"))))
    }

    fn list(&mut self, name: &str) -> Vec<&'a str> {
        self.take(name).map(|text| text.split(',').collect()).unwrap_or_default()
    }

    fn map(&mut self, name: &str) -> BTreeMap<Arc<str>, Arc<str>> {
        let pair = |text: &'a str| text.split_once(':').unwrap_or_else(|| panic!("{text} is no key:value"));
        self.list(name).into_iter().map(pair).map(|(key, value)| (key.into(), value.into())).collect()
    }

    fn end(self) {
        assert!(self.0.is_empty(), "unknown options {:?}", self.0);
    }
}

/// Scripts name jobs by short words; identifiers have at least eight bytes.
fn job(name: &str) -> JobId {
    JobId::new(&format!("{name:_<8}")).unwrap()
}

fn short(job_id: &JobId) -> &str {
    job_id.as_str().trim_end_matches('_')
}

fn worker(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

fn state(state: JobState) -> String {
    format!("{state:?}").to_lowercase()
}

fn failure(failure: &Failure) -> String {
    format!("{} ({})", failure.code, failure.message.trim_end_matches('_'))
}

fn target(text: &str) -> DrainTarget {
    match text.split_once(':') {
        Some((key, value)) => DrainTarget::Labels([(key.into(), value.into())].into()),
        None => DrainTarget::Worker(worker(text)),
    }
}

impl Story {
    fn new(config: Config) -> Self {
        Self {
            scheduler: Scheduler::restore(config.clone(), Ledger::default(), START),
            config,
            ledger: Ledger::default(),
            now: START,
            sessions: BTreeMap::new(),
            requests: 0,
            beating: BTreeSet::new(),
            out: String::new(),
        }
    }

    fn handle(&mut self, input: Input) {
        let quiet = matches!(input, Input::Heartbeat { sequence: 0, .. });
        let mut effects = Effects::default();
        self.scheduler.handle(self.now, input, &mut effects);
        let durable = effects.revision().unwrap_or_default();
        let released = effects.release(durable).unwrap();
        for record in &released.records {
            self.ledger.apply(record);
            self.tell(&describe(record, self.now));
        }
        for (session, message) in &released.sends {
            if !(quiet && matches!(message, ToWorker::HeartbeatAck { .. })) {
                let text = self.message(*session, message);
                self.tell(&text);
            }
        }
        for (_, reply) in &released.replies {
            self.tell(&answer(reply));
        }
        for Notice::WorkerChanged { worker_id } in &released.notices {
            let view = self.scheduler.worker(worker_id).unwrap();
            self.tell(&format!("! {worker_id} is {}", format!("{:?}", view.state).to_lowercase()));
        }
        let broken = self.scheduler.check();
        assert!(broken.is_empty(), "{broken:?}\n{}", self.out);
        assert_eq!(*self.scheduler.ledger(), self.ledger, "replay differs from live");
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.out, "    {line}").unwrap();
    }

    fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    fn session(&self, name: &str) -> SessionId {
        match name.split_once('\'') {
            Some((name, number)) => self.sessions[&worker(name)][number.parse::<usize>().unwrap() - 1],
            None => *self.sessions[&worker(name)].last().unwrap(),
        }
    }

    fn session_name(&self, session: SessionId) -> String {
        let found = self.sessions.iter().find_map(|(worker, sessions)| {
            let position = sessions.iter().position(|known| *known == session)?;
            Some(if position == 0 { worker.to_string() } else { format!("{worker}'{}", position + 1) })
        });
        found.unwrap()
    }

    fn message(&self, session: SessionId, message: &ToWorker) -> String {
        let to = self.session_name(session);
        let text = match message {
            ToWorker::Welcome { held, heartbeat_interval, first_heartbeat, .. } => {
                let held: Vec<String> = held
                    .iter()
                    .map(|(lease, decision)| format!(" {decision:?} lease {}", lease.0).to_lowercase())
                    .collect();
                let usual = *heartbeat_interval == Config::default().heartbeat_interval;
                let (first, each) = (first_heartbeat.as_secs_f64(), heartbeat_interval.as_secs_f64());
                let beats =
                    if usual { String::new() } else { format!(", a heartbeat in {first:.1} s, then each {each} s") };
                format!("welcome{}{beats}", held.join(","))
            }
            ToWorker::Lease { lease, job_id, attempt, timeout } => {
                format!("lease {}: {}, attempt {attempt}, {} s", lease.0, short(job_id), timeout.as_secs())
            }
            ToWorker::Cancel { lease, reason, outcome_wanted: true } => format!("cancel lease {}: {reason}", lease.0),
            ToWorker::Cancel { lease, reason, outcome_wanted: false } => format!("lease {} is void: {reason}", lease.0),
            ToWorker::OutcomeAck { lease, verdict } => {
                format!("outcome of lease {} is {verdict:?}", lease.0).to_lowercase()
            }
            ToWorker::HeartbeatAck { sequence, heartbeat_interval } => {
                format!("heartbeat {sequence} heard, one each {} s", heartbeat_interval.as_secs_f64())
            }
            ToWorker::Drain { deadline } => format!("drain, deadline {deadline:?}"),
            ToWorker::Goodbye { reason } => format!("goodbye: {reason:?}").to_lowercase(),
        };
        format!("→ {to}: {text}")
    }

    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut options = Options::parse(&words);
        let words: Vec<&str> = words.into_iter().filter(|word| !word.contains('=')).collect();
        match words.as_slice() {
            ["submit", names @ ..] => {
                for name in names {
                    let spec = Box::new(self.spec(name, &mut Options(options.0.clone())));
                    let request = self.request();
                    self.handle(Input::Submit { request, spec, document: Arc::from(*b"{}") });
                }
                return;
            }
            ["cancel", name] => {
                let request = self.request();
                self.handle(Input::Cancel { request, job_id: job(name), reason: "asked for".into() });
            }
            ["retry", name] => {
                let request = self.request();
                self.handle(Input::Retry { request, job_id: job(name) });
            }
            ["delete", name] => {
                let request = self.request();
                self.handle(Input::Delete { request, job_id: job(name) });
            }
            ["expire", names @ ..] => {
                let (request, jobs) = (self.request(), names.iter().map(|name| job(name)).collect());
                let before = Time((self.now.0 + 1).saturating_sub(options.number("older").unwrap_or(0) * 1000));
                self.handle(Input::Expire { request, jobs, before });
            }
            ["connect", name] => self.connect(name, &mut options),
            ["disconnect", name] => {
                if !name.contains('\'') {
                    self.beating.remove(&worker(name));
                }
                self.handle(Input::Disconnect { session: self.session(name) });
            }
            ["hang", name] => {
                self.beating.remove(&worker(name));
            }
            ["heartbeat", name] => self.handle(Input::Heartbeat { session: self.session(name), sequence: 1 }),
            ["accept", name, lease] => {
                self.handle(Input::Accept { session: self.session(name), lease: LeaseId(lease.parse().unwrap()) });
            }
            ["refuse", name, lease, fault] => {
                let fault = match *fault {
                    "job" => RefusalFault::Job,
                    "worker" => RefusalFault::Worker,
                    "busy" => RefusalFault::Busy,
                    other => panic!("no fault {other}"),
                };
                let code = options.take("code").unwrap_or("INTERNAL").parse().unwrap();
                let failure = Failure { code, message: "told so".into() };
                let lease = LeaseId(lease.parse().unwrap());
                self.handle(Input::Refuse { session: self.session(name), lease, fault, failure });
            }
            ["progress", name, lease, percent] => {
                let progress = Progress { percent: percent.parse().unwrap(), body: Arc::from(*b"") };
                let lease = LeaseId(lease.parse().unwrap());
                self.handle(Input::Progress { session: self.session(name), lease, progress });
            }
            ["outcome", name, lease, of, status] => {
                let status = match *status {
                    "completed" => OutcomeStatus::Completed,
                    "failed" => OutcomeStatus::Failed,
                    "cancelled" => OutcomeStatus::Cancelled,
                    "timeout" => OutcomeStatus::Timeout,
                    other => panic!("no status {other}"),
                };
                let code: Option<ErrorCode> = options.take("code").map(|code| code.parse().unwrap());
                self.handle(Input::Outcome {
                    session: self.session(name),
                    lease: LeaseId(lease.parse().unwrap()),
                    job_id: job(of),
                    status,
                    failure: code.map(|code| Failure { code, message: "told so".into() }),
                    result: Arc::from(*b"report"),
                });
            }
            ["draining", name] => self.handle(Input::Draining { session: self.session(name) }),
            ["drain", whom] => {
                let (request, deadline) = (self.request(), options.seconds("deadline"));
                self.handle(Input::Drain { request, target: target(whom), deadline });
            }
            ["resume", whom] => {
                let request = self.request();
                self.handle(Input::Resume { request, target: target(whom) });
            }
            ["wait", seconds] => self.wait(seconds.parse().unwrap()),
            ["restart"] => {
                self.beating.clear();
                self.scheduler = Scheduler::restore(self.config.clone(), self.ledger.clone(), self.now);
            }
            ["explain", name] => {
                let explanation = self.scheduler.explain(&job(name)).unwrap();
                for reason in explanation.reasons {
                    self.tell(&reason);
                }
            }
            ["summary"] => self.summary(),
            other => panic!("no command {other:?}"),
        }
        options.end();
    }

    fn connect(&mut self, name: &str, options: &mut Options<'_>) {
        let session = SessionId(self.sessions.values().map(Vec::len).sum::<usize>() as u64 + 1);
        self.sessions.entry(worker(name)).or_default().push(session);
        let held = options.list("held").into_iter().map(|item| {
            let parts: Vec<&str> = item.split(':').collect();
            let [lease, of, how] = parts.as_slice() else { panic!("held={item}") };
            Held { lease: LeaseId(lease.parse().unwrap()), job_id: job(of), finished: *how == "finished" }
        });
        let held = held.collect();
        let mut capabilities: BTreeSet<Arc<str>> = options.list("capabilities").into_iter().map(Into::into).collect();
        capabilities.insert("system.echo".into());
        let profile = WorkerProfile {
            stream: options.number("stream").unwrap_or(0),
            worker_id: worker(name),
            boot_id: BootId::new(options.take("boot").unwrap_or("b1")).unwrap(),
            capabilities,
            features: options.list("features").into_iter().map(Into::into).collect(),
            version: options.take("version").unwrap_or("1.0.0").parse().unwrap(),
            pool: options.take("pool").unwrap_or("default").into(),
            labels: options.map("labels"),
            slots: options.number("slots").unwrap_or(1) as u32,
            privileged: options.take("privileged").is_some(),
            image_roots: options.list("roots").into_iter().map(Into::into).collect(),
        };
        self.beating.insert(worker(name));
        self.handle(Input::Connect { session, profile: Box::new(profile), held });
    }

    fn spec(&self, name: &str, options: &mut Options<'_>) -> JobSpec {
        let set = |list: Vec<&str>| list.into_iter().map(Into::into).collect::<BTreeSet<Arc<str>>>();
        let rules_out = options.map("anti_affinity").into_iter().map(|(key, value)| (key, [value].into())).collect();
        let placement = Placement {
            operation: "system.echo".into(),
            capabilities: set(options.list("capabilities")),
            features: set(options.list("features")),
            minimum_version: options.take("minimum_version").map(|text| text.parse().unwrap()),
            privileged: options.take("privileged").is_some(),
            pools: set(options.list("pools")),
            worker: options.take("worker").map(worker),
            anti_affinity: rules_out,
            image_folder: options.take("image_folder").map(Into::into),
        };
        JobSpec {
            job_id: job(name),
            namespace: Namespace::new(options.take("namespace").unwrap_or("default")).unwrap(),
            idempotency_key: options.take("key").map(Into::into),
            idempotency_policy: IdempotencyPolicy::of(options.take("policy").unwrap_or("")).unwrap(),
            idempotency_ttl: options.seconds("ttl"),
            fingerprint: [options.number("fingerprint").unwrap_or(0) as u8; 32],
            placement: Arc::new(placement),
            affinity: options.map("affinity"),
            priority: Priority::new(options.number("priority").unwrap_or(5) as i64).unwrap(),
            max_attempts: options.number("max_attempts").unwrap_or(1) as u32,
            timeout: options.seconds("timeout").unwrap_or(Duration::from_secs(3600)),
            queue_timeout: options.seconds("queue_timeout"),
            deadline: options.seconds("deadline").map(|after| self.now.plus(after)),
            not_before: options.seconds("not_before").map(|after| self.now.plus(after)),
            backoff: Backoff::default(),
            cancellable: options.take("cancellable") != Some("false"),
            concurrency_key: options.take("concurrency_key").map(Into::into),
            created_at: self.now,
        }
    }

    fn wait(&mut self, seconds: f64) {
        let until = self.now.plus(Duration::from_secs_f64(seconds));
        let mut beat = self.now.plus(Duration::from_secs(5));
        loop {
            let due = self.scheduler.next_deadline().filter(|at| *at <= until && (*at < beat || beat > until));
            match due {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.handle(Input::Wake);
                }
                None if beat <= until => {
                    self.now = beat;
                    beat = beat.plus(Duration::from_secs(5));
                    for name in self.beating.clone() {
                        let session = *self.sessions[&name].last().unwrap();
                        self.handle(Input::Heartbeat { session, sequence: 0 });
                    }
                }
                None => break,
            }
        }
        self.now = until;
    }

    fn summary(&mut self) {
        let s = self.scheduler.summary();
        self.tell(&format!(
            "pending {} queued {} assigned {} running {} cancelling {}; workers {}, slots {} of {}",
            s.pending, s.queued, s.assigned, s.running, s.cancelling, s.workers, s.slots_in_use, s.slots
        ));
        self.tell(&format!(
            "completed {} failed {} cancelled {} timeout {}; {} in the last minute",
            s.totals.completed, s.totals.failed, s.totals.cancelled, s.totals.timeout, s.ended_last_minute
        ));
    }
}

/// One record as a line.
fn describe(record: &Record, now: Time) -> String {
    let (job_id, event, row) = match &record.change {
        Change::Job { job_id, event, row } => (job_id, event, row),
        Change::Deleted { job_id } => return format!("{} deleted", short(job_id)),
        Change::Drain { target, until } => {
            let until =
                until.map_or("no deadline".into(), |at| format!("until {} s from now", at.since(now).as_secs_f64()));
            return format!("drain of {target:?}, {until}");
        }
        Change::Resume { target } => return format!("resume of {target:?}"),
    };
    let what = match event {
        Event::Submitted { .. } => "submitted".into(),
        Event::Due => "its time has come".into(),
        Event::Assigned => {
            let lease = row.phase.lease().unwrap();
            format!("offered to {} (lease {}, attempt {})", lease.worker, lease.id.0, row.attempt)
        }
        Event::Accepted => "accepted".into(),
        Event::Progress { progress } => format!("{} %", progress.percent),
        Event::Returned { why } => match why {
            guestkit_scheduler::Return::Refused { fault, failure: why } => {
                format!("refused, fault of {fault:?}: {}", failure(why))
                    .replace("Worker", "worker")
                    .replace("Busy", "nobody")
            }
            other => format!("returned, {other:?}"),
        },
        Event::AttemptFailed { failure: why } => match &row.phase {
            Phase::Pending { until } => format!("{}, again in {} s", failure(why), until.since(now).as_secs_f64()),
            _ => failure(why),
        },
        Event::AttemptLost { why } => format!("attempt lost ({why:?}), {} so far", row.lost_attempts).to_lowercase(),
        Event::CancelRequested { reason } => format!("cancel {reason}"),
        Event::Ended { result } => {
            let why = row.failure().map_or("done".into(), failure);
            format!("{why}{}", if result.is_some() { ", with a report" } else { "" })
        }
        Event::RetryRequested => "retry asked for".into(),
        Event::Reconsidered => "those that declined it are asked again".into(),
    };
    format!("{} #{} {}: {what}", short(job_id), row.sequence, state(row.phase.state()))
}

fn answer(reply: &Reply) -> String {
    match reply {
        Reply::Submitted { job_id, existing: false, .. } => format!("= {} taken", short(job_id)),
        Reply::Submitted { job_id, row, .. } => {
            format!("= {} was there already, {}", short(job_id), state(row.phase.state()))
        }
        Reply::Job { job_id, row } => format!("= {} is {}", short(job_id), state(row.phase.state())),
        Reply::Deleted => "= deleted".into(),
        Reply::Expired(jobs) => {
            format!("= forgotten: {}", jobs.iter().map(short).collect::<Vec<_>>().join(" ")).trim_end().into()
        }
        Reply::Workers(workers) => format!("= concerns {workers:?}"),
        Reply::Refused(refusal) => format!("= refused: {refusal}").replace('_', ""),
    }
}

/// Runs a script and gives back what it should read.
fn play(script: &str) -> String {
    let mut story = Story::new(Config::default());
    for line in script.lines() {
        if line.starts_with("    ") {
            continue;
        }
        writeln!(story.out, "{line}").unwrap();
        if let Some(settings) = line.strip_prefix("> config ") {
            let out = std::mem::take(&mut story.out);
            story = Story::new(config(settings));
            story.out = out;
        } else if let Some(command) = line.strip_prefix("> ") {
            story.command(command);
        }
    }
    story.out
}

fn config(settings: &str) -> Config {
    let words: Vec<&str> = settings.split_whitespace().collect();
    let mut options = Options::parse(&words);
    let mut config = Config::default();
    if let Some(most) = options.number("queue_max") {
        config.queue_max = most as usize;
    }
    if let Some(burst) = options.number("progress_burst") {
        config.progress_burst = burst as u32;
    }
    if let Some(most) = options.number("heartbeats_per_second") {
        config.heartbeats_per_second = most as u32;
    }
    if let Some(patience) = options.seconds("image_root_patience") {
        config.image_root_patience = patience;
    }
    if let Some(most) = options.number("workers_max") {
        config.workers_max = most as usize;
    }
    for (namespace, weight) in options.map("weights") {
        config.weights.insert(Namespace::new(&namespace).unwrap(), weight.parse().unwrap());
    }
    for (key, limit) in options.map("concurrency_limits") {
        config.concurrency_limits.insert(key, limit.parse().unwrap());
    }
    options.end();
    config
}

#[test]
fn stories_read_as_committed() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let update = std::env::var_os("GUESTKIT_STORIES_UPDATE").is_some();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    assert!(paths.len() >= 20, "the scripts are gone");
    for path in paths {
        let committed = std::fs::read_to_string(&path).unwrap();
        let told = play(&committed);
        if update {
            std::fs::write(&path, told).unwrap();
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy();
        for (number, (told, committed)) in told.lines().zip(committed.lines()).enumerate() {
            assert_eq!(told, committed, "{name}, line {}: left is what happened", number + 1);
        }
        assert_eq!(told.lines().count(), committed.lines().count(), "{name} has another length");
    }
}
