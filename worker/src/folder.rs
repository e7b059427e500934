//! Jobs as files in a folder, results as files in another: the transport that needs no coordinator.
//!
//! ```text
//! JOBS/x.json ─(whole)─► JOBS/.claimed/<process>/x.json ─► the attempt ─► RESULTS/<job_id>-result.json
//!      │                                                                └► JOBS/done/x.json, or JOBS/failed/x.json and why
//!      └─(no job document, and no longer changing)─► JOBS/failed/x.json and why
//! ```
//! Any number of workers may share the folders. A file is claimed by renaming it, which only one can; the claims of a
//! process are held under a lock that the kernel releases when it dies, and then another takes them over. A job id is held
//! under a lock of its own, so that two files with one id never run at once. Nothing is deleted and nothing overwritten
//! that somebody else wrote. Folders are swept, not watched: what is there counts, however it came.

mod claims;
mod files;
mod ledger;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use guestkit_domain::{BootId, ErrorCode, JobId, WorkerProfile};
use guestkit_protocol::document::{self, CheckedJob, Source};
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::{convert, v1};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::attempt::{Attempts, Order, Run as _, Settings, Stop};
use crate::config::Config;
use crate::failure::Failure;
use crate::handlers::Registry;
use crate::outcome;
use crate::placement::{self, Unfit};
use crate::shutdown::Shutdown;
use crate::spool::write_durably;
use crate::wire;
use claims::Claims;
use files::{Look, Stamp};
use ledger::{Entry, Ledger};

/// How often the folder is looked at while nothing happens.
const SWEEP_INTERVAL: Duration = Duration::from_millis(200);
/// A file that is no document yet is given up once it has not changed for so long: copies over a network pause for
/// seconds, people who save by hand for longer have the whole file there at once.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// How often dead workers' claims are looked for.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(2);

/// Runs jobs from `jobs` until told to leave.
///
/// # Errors
/// A folder that cannot be made, locked or listed.
pub async fn run(config: &Config, jobs: &Path, results: &Path, mut shutdown: Shutdown) -> anyhow::Result<()> {
    let folder = Arc::new(Folder::open(config, jobs, results)?);
    let registry = Registry::default();
    tracing::info!("Starting worker {}", config.declared.worker_id);
    tracing::info!("Registered {} operation handlers", registry.operations().len());
    tracing::info!("Supported operations: {:?}", registry.operations());
    if config.declared.images.is_anywhere() {
        tracing::info!("no --image-root was given: every image that this user may read can be opened");
    }
    tracing::info!("Watching {} for jobs, results go to {}", jobs.display(), results.display());

    let slots = Arc::new(Semaphore::new(usize::try_from(config.declared.slots).unwrap_or(1)));
    let mut running = JoinSet::new();
    let mut sweeper = Sweeper::default();
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.asked() => break,
            _ = sweep.tick() => {}
            Some(_) = running.join_next() => {}
        }
        while let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
            let Some(claim) = sweeper.next_claim(&folder) else { break };
            running.spawn(Arc::clone(&folder).work(claim, slot, Arc::clone(&slots)));
        }
    }
    tracing::info!(running = running.len(), "leaving; running jobs may finish");
    let finished = async { while running.join_next().await.is_some() {} };
    tokio::select! {
        () = finished => tracing::info!("left gracefully"),
        () = shutdown.hurried(config.drain_timeout) => {
            // Their files go back for another worker, or for this one's next start.
            running.shutdown().await;
            tracing::warn!("left with jobs unfinished; they are taken up again by the next worker");
        }
    }
    Ok(())
}

/// The folders, and what a worker does with one claimed file.
struct Folder {
    jobs: PathBuf,
    results: PathBuf,
    claims: Claims,
    ledger: Ledger,
    settings: Settings,
    attempts: Attempts,
    profile: WorkerProfile,
}

/// A job file that is this worker's alone.
#[derive(Debug)]
struct Claim {
    name: OsString,
    path: PathBuf,
}

impl Folder {
    fn open(config: &Config, jobs: &Path, results: &Path) -> anyhow::Result<Self> {
        let make = |folder: &Path| {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
            std::path::absolute(folder).with_context(|| format!("cannot use {}", folder.display()))
        };
        let (jobs, results) = (make(jobs)?, make(results)?);
        let declared = &config.declared;
        let boot_id = BootId::new(&uuid::Uuid::new_v4().to_string()).context("a UUID is an id")?;
        let hello = v1::Hello {
            protocol_version: convert::worker::PROTOCOL_VERSION,
            worker_id: declared.worker_id.to_string(),
            boot_id: boot_id.to_string(),
            description: Some(crate::worker::describe(declared, &Registry::default(), &results)),
            ..Default::default()
        };
        let settings = Settings {
            worker_id: declared.worker_id.clone(),
            images: declared.images.clone(),
            keys: declared.keys.clone(),
            outputs: declared.outputs.clone(),
            rules: declared.rules.clone(),
        };
        Ok(Self {
            claims: Claims::open(&jobs, &declared.worker_id, &boot_id)
                .with_context(|| format!("cannot claim jobs in {}", jobs.display()))?,
            ledger: Ledger::open(&results).with_context(|| format!("cannot keep job ids in {}", results.display()))?,
            profile: convert::worker::profile(&hello)?,
            attempts: Attempts::new(settings.clone()),
            settings,
            jobs,
            results,
        })
    }

    /// Does everything that is to be done with one claimed file. An error here is the disk's: the claim stays, and is taken
    /// up again when this worker has gone.
    async fn work(self: Arc<Self>, claim: Claim, slot: OwnedSemaphorePermit, slots: Arc<Semaphore>) {
        let outcome = self.try_work(&claim, slot, slots).await;
        if let Err(error) = outcome {
            tracing::error!(file = %claim.path.display(), "a job file could not be dealt with: {error:#}");
        }
    }

    async fn try_work(&self, claim: &Claim, slot: OwnedSemaphorePermit, slots: Arc<Semaphore>) -> anyhow::Result<()> {
        let bytes = match files::read(&claim.path) {
            Look::Whole { bytes, .. } => bytes,
            // It changed between the look and the claim: the sweep decides again.
            Look::Partial { .. } | Look::Gone => return self.give_back(claim).await,
            Look::Refused(why) => return self.fail(claim, &why),
        };
        let checked = match check(&bytes) {
            Ok(checked) => checked,
            Err(refusal) => return self.refuse(claim, &bytes, &refused(&refusal), &tell(&refusal)),
        };
        if let Err(Unfit::Lacking(why) | Unfit::Elsewhere(why)) =
            placement::check(&checked.spec.placement, &self.profile)
        {
            let failure = Failure::new(ErrorCode::ValidationError, why.clone());
            return self.refuse(claim, &bytes, &failure, &format!("{}: {why}\n", failure.code));
        }
        let job_id = checked.spec.job_id.as_str();
        let result_path = self.results.join(format!("{job_id}-result.json"));
        let held = match self.ledger.enter(&checked, &result_path)? {
            Entry::New(held) => held,
            // The same id runs right now; its file waits until that has ended.
            Entry::Busy => return self.give_back(claim).await,
            Entry::Done => {
                tracing::info!(
                    "Job {job_id} was done before from the same document; its result is {}",
                    result_path.display()
                );
                return self.settle(claim, "done").map(drop);
            }
            Entry::Taken(why) => return self.fail(claim, &format!("{}: {why}\n", Reason::AlreadyExists)),
        };
        let result = self.attempts(&checked, slot, slots).await;
        write_result(&result_path, &result)?;
        self.conclude(claim, &result)?;
        drop(held);
        Ok(())
    }

    /// Lays a file back that cannot be dealt with just now, no sooner than a sweep would see it.
    async fn give_back(&self, claim: &Claim) -> anyhow::Result<()> {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        self.claims.give_back(&claim.path, &self.jobs, &claim.name)
    }

    fn conclude(&self, claim: &Claim, result: &v1::JobResult) -> anyhow::Result<()> {
        let job_id = &result.job_id;
        if result.status == "completed" {
            self.settle(claim, "done")?;
            tracing::info!("Job {job_id} completed successfully");
            return Ok(());
        }
        let error = result.error.clone().unwrap_or_default();
        let at = self.settle(claim, "failed")?;
        write_durably(&reason_path(&at), format!("{}: {}\n", error.code, error.message).as_bytes())?;
        tracing::error!(code = error.code, "Job {job_id} {}: {}", ended(&result.status), error.message);
        Ok(())
    }

    /// The job's attempts, until one completes or none is left.
    async fn attempts(&self, checked: &CheckedJob, slot: OwnedSemaphorePermit, slots: Arc<Semaphore>) -> v1::JobResult {
        let spec = &checked.spec;
        tracing::info!("Received job: {} ({})", spec.job_id, checked.operation.name());
        let mut slot = Some(slot);
        let mut attempt = 1_u32;
        loop {
            let result = self.attempt(checked, attempt).await;
            let again = result.status != "completed"
                && result.error.as_ref().is_some_and(|error| error.retry_recommended)
                && attempt < spec.max_attempts;
            let wait = backoff(&spec.backoff, attempt);
            let in_time = spec.deadline.is_none_or(|deadline| wire::time_of(SystemTime::now()).plus(wait) < deadline);
            if !(again && in_time) {
                return result;
            }
            let why = result.error.map(|error| error.message).unwrap_or_default();
            tracing::warn!(
                "Job {} failed attempt {attempt} of {}: {why}; trying again in {wait:?}",
                spec.job_id,
                spec.max_attempts
            );
            // Others may have the slot meanwhile.
            drop(slot.take());
            tokio::time::sleep(wait).await;
            slot = Arc::clone(&slots).acquire_owned().await.ok();
            attempt = attempt.saturating_add(1);
        }
    }

    async fn attempt(&self, checked: &CheckedJob, attempt: u32) -> v1::JobResult {
        let spec = &checked.spec;
        let left = spec.deadline.map(|deadline| deadline.since(wire::time_of(SystemTime::now())));
        let (timeout, timeout_code) = match left {
            Some(left) if left < spec.timeout => (left, ErrorCode::DeadlineExceeded),
            _ => (spec.timeout, ErrorCode::Timeout),
        };
        let order = Order {
            document: checked.document.clone(),
            attempt: i32::try_from(attempt).unwrap_or(i32::MAX),
            timeout,
            timeout_code,
        };
        let job = spec.job_id.to_string();
        let span = crate::trace::attempt_span(&checked.document, None, &self.settings.worker_id, order.attempt);
        let told = |progress: v1::Progress| {
            tracing::info!("[{job}] {} - {} ({:.0}%)", progress.phase, progress.message, progress.progress_percent);
        };
        // Nobody cancels a file; the sender is kept so that the attempt does not take its absence for anything.
        let (_nobody, stop) = oneshot::channel::<Stop>();
        let started = outcome::Start::now();
        self.attempts.run(order, stop, told).instrument(span).await.unwrap_or_else(|| {
            let failure = Failure::new(ErrorCode::Internal, "the attempt was abandoned");
            let result = outcome::without_answer(&failure, "", v1::Metrics::default());
            outcome::complete(result, &checked.document, self.settings.worker_id.as_str(), 1, started)
        })
    }

    /// Moves a claimed file to `done` or `failed`, under its name or the next free one like it.
    fn settle(&self, claim: &Claim, outcome: &str) -> anyhow::Result<PathBuf> {
        let folder = self.jobs.join(outcome);
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        files::move_beside(&claim.path, &folder, &claim.name)
            .with_context(|| format!("moving {} to {}", claim.path.display(), folder.display()))
    }

    /// A document that is refused. Where it names its job, whoever waits for that job's result finds the refusal there.
    fn refuse(&self, claim: &Claim, bytes: &[u8], failure: &Failure, why: &str) -> anyhow::Result<()> {
        if let Some(job_id) = named(bytes) {
            let path = self.results.join(format!("{job_id}-result.json"));
            if let Some(_held) = self.ledger.enter_refused(&job_id, &path)? {
                let document = v1::JobDocument { job_id: job_id.to_string(), ..Default::default() };
                let result = outcome::without_answer(failure, "validation", v1::Metrics::default());
                let worker_id = self.settings.worker_id.as_str();
                write_result(&path, &outcome::complete(result, &document, worker_id, 0, outcome::Start::now()))?;
            }
        }
        self.fail(claim, why)
    }

    /// A file that is no job for us: kept, with the reason beside it.
    fn fail(&self, claim: &Claim, why: &str) -> anyhow::Result<()> {
        let at = self.settle(claim, "failed")?;
        write_durably(&reason_path(&at), why.as_bytes())?;
        tracing::error!(file = %at.display(), "Refused a job file: {}", why.trim_end());
        Ok(())
    }
}

fn reason_path(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".reason.txt");
    name.into()
}

fn ended(status: &str) -> &'static str {
    match status {
        "timeout" => "timed out",
        "cancelled" => "was cancelled",
        _ => "failed",
    }
}

fn check(bytes: &[u8]) -> Result<CheckedJob, Refusal> {
    document::check(document::parse(bytes)?, Source::Folder, wire::time_of(SystemTime::now()))
}

/// A refusal as an outcome tells it.
fn refused(refusal: &Refusal) -> Failure {
    let code = match refusal.reason {
        Reason::UnsupportedOperation => ErrorCode::UnsupportedOperation,
        _ => ErrorCode::ValidationError,
    };
    let problems = refusal.problems.iter();
    let problems: Vec<_> = problems.map(|p| json!({"field": p.field, "description": p.description})).collect();
    Failure::new(code, refusal.message.clone()).with("problems", problems)
}

/// The job that a refused document names, if it is a name at all.
fn named(bytes: &[u8]) -> Option<JobId> {
    let document: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let name = document.get("job_id").or_else(|| document.get("jobId"))?;
    JobId::new(name.as_str()?).ok()
}

fn write_result(path: &Path, result: &v1::JobResult) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(&document::result_to_json(result))?;
    text.push(b'\n');
    write_durably(path, &text).with_context(|| format!("writing {}", path.display()))
}

/// A refusal as a person reads it: the reason, then one line per field.
fn tell(refusal: &Refusal) -> String {
    let mut text = format!("{}: {}\n", refusal.reason, refusal.message);
    for problem in &refusal.problems {
        text.push_str(&format!("  {}: {}\n", problem.field, problem.description));
    }
    text
}

/// What a document asks to wait before the attempt after `attempt`.
fn backoff(asked: &guestkit_domain::Backoff, attempt: u32) -> Duration {
    let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
    let seconds = asked.initial.as_secs_f64() * asked.multiplier.powi(exponent);
    // Not a number of seconds: it grew past all bounds.
    Duration::try_from_secs_f64(seconds).map_or(asked.max, |wait| wait.min(asked.max))
}

/// What a sweep remembers of the files it saw, so that a folder of thousands is not read again and again.
#[derive(Default)]
struct Sweeper {
    seen: HashMap<OsString, Seen>,
    recovered: Option<Instant>,
    /// Files ready to be claimed, best last.
    ready: Vec<OsString>,
}

struct Seen {
    stamp: Stamp,
    since: Instant,
    state: SeenState,
}

enum SeenState {
    /// No document, perhaps not yet.
    Partial,
    /// Can be claimed, in order of priority.
    Ready { priority: u8 },
    /// Not before this instant.
    Waiting { until: SystemTime, priority: u8 },
    /// For another worker.
    Elsewhere,
}

impl Sweeper {
    /// Claims the next file that is ready, looking at the folder again once none is known to be.
    fn next_claim(&mut self, folder: &Folder) -> Option<Claim> {
        self.recover(folder);
        for swept in [false, true] {
            if swept {
                self.sweep(folder);
            }
            while let Some(name) = self.ready.pop() {
                self.seen.remove(&name);
                match folder.claims.claim(&folder.jobs.join(&name), &name) {
                    Ok(Some(path)) => return Some(Claim { name, path }),
                    // Another worker was faster.
                    Ok(None) => {}
                    Err(error) => tracing::warn!(file = %name.to_string_lossy(), "cannot be claimed: {error}"),
                }
            }
        }
        None
    }

    fn recover(&mut self, folder: &Folder) {
        if self.recovered.is_some_and(|at| at.elapsed() < RECOVERY_INTERVAL) {
            return;
        }
        self.recovered = Some(Instant::now());
        match folder.claims.recover(&folder.jobs) {
            Ok(0) => {}
            Ok(count) => tracing::warn!(count, "took up the jobs of a worker that died"),
            Err(error) => tracing::warn!("cannot look for dead workers' jobs: {error}"),
        }
    }

    fn sweep(&mut self, folder: &Folder) {
        let names = match files::list(&folder.jobs) {
            Ok(names) => names,
            Err(error) => {
                tracing::error!("cannot list {}: {error}", folder.jobs.display());
                return;
            }
        };
        let mut seen = std::mem::take(&mut self.seen);
        let mut ready = BTreeMap::new();
        for name in names {
            let before = seen.remove(&name);
            let Some(now) = look(folder, &name, before) else { continue };
            let due = match &now.state {
                SeenState::Ready { priority } => Some(*priority),
                SeenState::Waiting { until, priority } if *until <= SystemTime::now() => Some(*priority),
                _ => None,
            };
            if let Some(priority) = due {
                // Popped from the end: the highest priority last, and among equals the first name last.
                ready.insert((priority, std::cmp::Reverse(name.clone())), ());
            }
            self.seen.insert(name, now);
        }
        self.ready = ready.into_keys().map(|(_, name)| name.0).collect();
    }
}

/// Looks at one file unless it is as it was; `None` when it is gone or dealt with.
fn look(folder: &Folder, name: &OsString, before: Option<Seen>) -> Option<Seen> {
    let path = folder.jobs.join(name);
    let stamp = files::stamp(&path)?;
    let unchanged = before.filter(|before| before.stamp == stamp);
    if let Some(seen) = unchanged {
        let given_up = matches!(seen.state, SeenState::Partial) && seen.since.elapsed() >= SETTLED_AFTER;
        return if given_up { refuse(folder, name, &path) } else { Some(seen) };
    }
    let state = match files::read(&path) {
        Look::Gone => return None,
        Look::Refused(why) => {
            refuse_claimed(folder, name, &path, &why);
            return None;
        }
        Look::Partial { .. } => SeenState::Partial,
        Look::Whole { bytes, .. } => classify(folder, name, &bytes),
    };
    Some(Seen { stamp, since: Instant::now(), state })
}

/// Where a whole document stands. One that breaks the protocol is ready too: claiming it is how it is refused.
fn classify(folder: &Folder, name: &OsString, bytes: &[u8]) -> SeenState {
    let Ok(checked) = check(bytes) else { return SeenState::Ready { priority: 5 } };
    if let Err(Unfit::Elsewhere(why)) = placement::check(&checked.spec.placement, &folder.profile) {
        tracing::info!(file = %name.to_string_lossy(), "left for another worker: {why}");
        return SeenState::Elsewhere;
    }
    let priority = checked.spec.priority.get();
    match checked.spec.not_before {
        Some(at) if at > wire::time_of(SystemTime::now()) => {
            SeenState::Waiting { until: SystemTime::UNIX_EPOCH + Duration::from_millis(at.0), priority }
        }
        _ => SeenState::Ready { priority },
    }
}

/// A file that never became a document.
fn refuse(folder: &Folder, name: &OsString, path: &Path) -> Option<Seen> {
    let why = match files::read(path) {
        Look::Partial { why } => format!("{}: the file is no whole JSON document: {why}\n", Reason::InvalidDocument),
        Look::Refused(why) => why,
        // It changed at the last moment: the next sweep sees it anew.
        Look::Whole { .. } | Look::Gone => return None,
    };
    refuse_claimed(folder, name, path, &why);
    None
}

/// Claims what is refused first, so that of several workers only one writes the reason.
fn refuse_claimed(folder: &Folder, name: &OsString, path: &Path, why: &str) {
    let refused = match folder.claims.claim(path, name) {
        Ok(None) => return,
        Ok(Some(path)) => folder.fail(&Claim { name: name.clone(), path }, why),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = refused {
        tracing::error!(file = %path.display(), "a file that is no job could not be moved away: {error:#}");
    }
}
