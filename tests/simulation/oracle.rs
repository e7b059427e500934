//! What must hold, by name, and the oracle that judges what is durable: it reads records alone and knows no scheduler.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guestkit_domain::{Duration, ErrorCode, JobId, JobState, LeaseId, RefusalFault, Revision, Time, WorkerId};
use guestkit_protocol::v1;
use guestkit_scheduler::{Change, Config, Event, JobRow, Ledger, Loss, Phase, Record, Return};
use prost::Message as _;

/// The rules. Every planted fault is caught by the one that is there for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// The scheduler's own list, after every input.
    SchedulerInvariants,
    /// Nothing leaves the coordinator that needs a record which is not durable.
    NothingLeavesEarly,
    /// Revisions, and the entries of each job's log, rise by one.
    HistoryHasNoGap,
    /// A job goes only along the arrows of its lifecycle.
    OnlyDrawnArrows,
    /// A lease is minted once, rising; no worker runs two attempts of it.
    LeaseNamesOneAttempt,
    /// An outcome counts only for the current lease.
    OnlyTheCurrentLeaseCounts,
    /// A job completes once.
    CompletedOnce,
    /// The percentage of an attempt never falls.
    ProgressNeverFalls,
    /// A job fails for its image only when everybody had the time to say otherwise.
    ImagesAreJudgedFairly,
    /// What was acknowledged to a submitter is never lost.
    AcknowledgedJobsSurvive,
    /// The fold of the records is the live state.
    ReplayEqualsLive,
    /// An outcome that its worker is told is recorded is durable; one that is told stale is not current.
    AcknowledgedOutcomesAreDurable,
    /// A worker is told to keep a lease only while it is the job's current one, and its own.
    OnlyCurrentLeasesAreKept,
    /// No lease outlives its time without a word from its worker, its acceptance or its attempt's time.
    SilenceEndsLeases,
    /// A worker drops an outcome only when the coordinator has said so.
    OutcomesAreKeptUntilAnswered,
    /// A worker cut off stops its attempts when their lease plus grace has run out.
    WorkersFenceThemselves,
    /// A worker never runs more attempts than it has slots.
    SlotsHold,
    /// Where both ends of a stream have heard everything, both hold the same leases.
    BothEndsAgree,
    /// A worker is told to leave its name only when another process has it.
    OnlyOthersSupersede,
    /// Nothing that the real machine says is refused as nonsense.
    WorkersMakeSense,
    /// When the world heals every job ends.
    EveryJobEnds,
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) rule: Rule,
    pub(crate) how: String,
}

pub(crate) fn broken<T>(rule: Rule, how: impl Into<String>) -> Result<T, Broken> {
    Err(Broken { rule, how: how.into() })
}

/// How often things happened, by name: a simulation that never comes to a place proves nothing about it.
pub(crate) type Places = BTreeMap<&'static str, u64>;

/// What a few hundred seeds have to come across.
pub(crate) const PLACES: &[&str] = &[
    "attempt failed, another follows",
    "attempt lost: abandoned",
    "attempt lost: dropped",
    "attempt lost: restarted",
    "attempt lost: silent",
    "cancel requested",
    "cancel said to a worker",
    "commit failed",
    "coordinator crashed before its commit",
    "coordinator crashed between commit and release",
    "deleted",
    "drain said to a worker",
    "due",
    "ended: cancelled",
    "ended: completed",
    "ended: failed",
    "ended: image denied",
    "ended: out of attempts' time",
    "ended: past its deadline",
    "ended: worker lost",
    "goodbye: shutting down",
    "goodbye: silent",
    "expired",
    "goodbye: superseded",
    "hello overtaken",
    "held: deliver",
    "held: keep",
    "held: stop",
    "link broken",
    "link stuck",
    "message doubled",
    "message lost",
    "message overtaken",
    "offer whose document could not be read",
    "outcome not kept on disk",
    "outcome recorded",
    "outcome stale",
    "progress",
    "refused",
    "retry requested",
    "returned: busy",
    "returned: drained",
    "returned: not accepted",
    "returned: worker's fault",
    "those that declined are asked again",
    "void said to a worker",
    "worker crashed",
    "worker crashed holding what it had not spooled",
    "worker crashed holding what was not acknowledged",
    "worker fenced itself",
    "worker left gracefully",
    "worker refused",
    "worker started with outcomes on its disk",
    "worker's clock jumped",
    "coordinator's clock jumped",
];

fn place(event: &Event, row: &JobRow) -> &'static str {
    match event {
        Event::Submitted { .. } => "submitted",
        Event::Due => "due",
        Event::Assigned => "assigned",
        Event::Accepted => "accepted",
        Event::Progress { .. } => "progress",
        Event::AttemptFailed { .. } => "attempt failed, another follows",
        Event::AttemptLost { why: Loss::Silent } => "attempt lost: silent",
        Event::AttemptLost { why: Loss::Restarted } => "attempt lost: restarted",
        Event::AttemptLost { why: Loss::Dropped } => "attempt lost: dropped",
        Event::AttemptLost { why: Loss::Abandoned } => "attempt lost: abandoned",
        Event::CancelRequested { .. } => "cancel requested",
        Event::Reconsidered => "those that declined are asked again",
        Event::RetryRequested => "retry requested",
        Event::Returned { why: Return::NotAccepted } => "returned: not accepted",
        Event::Returned { why: Return::Drained } => "returned: drained",
        Event::Returned { why: Return::Refused { fault: RefusalFault::Worker, .. } } => "returned: worker's fault",
        Event::Returned { why: Return::Refused { .. } } => "returned: busy",
        Event::Ended { .. } => match (row.phase.state(), row.failure().map(|failure| failure.code)) {
            (JobState::Completed, _) => "ended: completed",
            (JobState::Cancelled, _) => "ended: cancelled",
            (JobState::Timeout, Some(ErrorCode::DeadlineExceeded)) => "ended: past its deadline",
            (JobState::Timeout, _) => "ended: out of attempts' time",
            (_, Some(ErrorCode::WorkerLost)) => "ended: worker lost",
            (_, Some(ErrorCode::ImageAccessDenied)) => "ended: image denied",
            _ => "ended: failed",
        },
    }
}

/// What is durable, and what it may look like.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) ledger: Ledger,
    pub(crate) places: Places,
    /// Every lease whose minting is durable, with its job.
    pub(crate) minted: BTreeMap<LeaseId, JobId>,
    last_minted: LeaseId,
    latest_lease: BTreeMap<JobId, LeaseId>,
    sequence: BTreeMap<JobId, u64>,
    percent: BTreeMap<JobId, f64>,
    state: BTreeMap<JobId, JobState>,
    completed: BTreeSet<JobId>,
    queued_at: BTreeMap<JobId, Time>,
    /// When this coordinator began, where there was one before it.
    pub(crate) began: Option<Time>,
    /// When each image root was first known to this coordinator.
    pub(crate) roots: BTreeMap<Arc<str>, Time>,
}

impl Oracle {
    pub(crate) fn saw(&mut self, place: &'static str) {
        *self.places.entry(place).or_default() += 1;
    }

    /// The state of a job, as the records tell it.
    pub(crate) fn state(&self, job_id: &JobId) -> Option<JobState> {
        self.state.get(job_id).copied()
    }

    /// Whether a lease is its job's current one, durably.
    pub(crate) fn current(&self, lease: LeaseId) -> Option<&JobRow> {
        let row = &self.ledger.job(self.minted.get(&lease)?)?.row;
        row.phase.lease().filter(|held| held.id == lease).map(|_| row)
    }

    /// A record became durable.
    pub(crate) fn take(&mut self, record: &Record) -> Result<(), Broken> {
        if record.revision != Revision(self.ledger.revision.0 + 1) {
            let how = format!("revision {} follows {}", record.revision.0, self.ledger.revision.0);
            return broken(Rule::HistoryHasNoGap, how);
        }
        self.ledger.apply(record);
        match &record.change {
            Change::Job { job_id, event, row } => self.take_job(record, job_id, event, row),
            Change::Deleted { job_id } => {
                self.sequence.remove(job_id);
                self.state.remove(job_id);
                self.completed.remove(job_id);
                self.saw("deleted");
                Ok(())
            }
            Change::Drain { .. } | Change::Resume { .. } => Ok(()),
        }
    }

    fn take_job(&mut self, record: &Record, job_id: &JobId, event: &Event, row: &JobRow) -> Result<(), Broken> {
        self.saw(place(event, row));
        let say =
            |rule, what: &str| broken(rule, format!("{job_id} at revision {}: {what}: {event:?}", record.revision.0));
        let sequence = self.sequence.entry(job_id.clone()).or_default();
        *sequence += 1;
        if row.sequence != *sequence {
            return say(Rule::HistoryHasNoGap, "the log has a gap");
        }
        let after = row.phase.state();
        let before = self.state.insert(job_id.clone(), after);
        if !allowed(before, event, after) {
            return say(Rule::OnlyDrawnArrows, &format!("{before:?} may not become {after:?}"));
        }
        if before == Some(JobState::Queued) && after == JobState::Failed {
            self.judge_image(record.at, job_id, row)?;
        }
        // One that was offered in vain has waited all the time.
        if after == JobState::Queued && !matches!(before, Some(JobState::Queued | JobState::Assigned)) {
            self.queued_at.insert(job_id.clone(), record.at);
        }
        match event {
            Event::Assigned => {
                let lease = row.phase.lease().map(|lease| lease.id).unwrap_or_default();
                if lease <= self.last_minted {
                    return say(Rule::LeaseNamesOneAttempt, "the lease is not new");
                }
                self.last_minted = lease;
                self.minted.insert(lease, job_id.clone());
                self.latest_lease.insert(job_id.clone(), lease);
                self.percent.insert(job_id.clone(), 0.0);
            }
            Event::Progress { progress } => {
                let before = self.percent.insert(job_id.clone(), progress.percent).unwrap_or_default();
                if progress.percent < before {
                    return say(Rule::ProgressNeverFalls, &format!("it was at {before}"));
                }
            }
            Event::Ended { result } => self.judge_end(job_id, result.as_deref(), row)?,
            _ => {}
        }
        Ok(())
    }

    fn judge_end(&mut self, job_id: &JobId, result: Option<&[u8]>, row: &JobRow) -> Result<(), Broken> {
        let Phase::Ended(ended) = &row.phase else { return Ok(()) };
        if let (Some(result), Some(lease)) = (result, ended.outcome_of) {
            let made_by = lease_of_result(result);
            if made_by != Some(lease) || self.latest_lease.get(job_id) != Some(&lease) {
                let how = format!("{job_id} ends by lease {} with what lease {made_by:?} made", lease.0);
                return broken(Rule::OnlyTheCurrentLeaseCounts, how);
            }
        }
        if ended.state == JobState::Completed {
            let again = !self.completed.insert(job_id.clone());
            if again || ended.outcome_of.is_none() {
                return broken(Rule::CompletedOnce, format!("{job_id} completed twice, or by nobody"));
            }
        }
        Ok(())
    }

    /// A job that fails while it waits has an image that no worker served that this coordinator had heard of, and was given
    /// the time it is owed.
    fn judge_image(&self, at: Time, job_id: &JobId, row: &JobRow) -> Result<(), Broken> {
        let say = |what: &str| {
            broken(Rule::ImagesAreJudgedFairly, format!("{job_id} failed in the queue at {at:?}: {what}: {row:?}"))
        };
        let spec = self.ledger.job(job_id).map(|entry| entry.spec.clone());
        let Some(folder) = spec.as_ref().and_then(|spec| spec.placement.image_folder.as_ref()) else {
            return say("it has no image");
        };
        if row.failure().map(|failure| failure.code) != Some(ErrorCode::ImageAccessDenied) {
            return say("of something else");
        }
        let known = |root: &Arc<str>| folder.starts_with(&format!("{root}/")) && !folder.contains("/../");
        let pinned = spec.as_ref().is_some_and(|spec| spec.placement.worker.is_some());
        // Of two decisions in one millisecond nobody can tell which came first.
        if !pinned && self.roots.iter().any(|(root, since)| known(root) && *since < at) {
            return say("a worker had a root for it");
        }
        let config = Config::default();
        let waited = self.queued_at.get(job_id).map_or(Duration::ZERO, |since| at.since(*since));
        if waited < config.image_root_patience {
            return say("it was impatient");
        }
        if self.began.is_some_and(|began| at.since(began) < config.restart_grace) {
            return say("others may come back");
        }
        Ok(())
    }

    /// A verdict on an outcome is about to leave for its worker.
    pub(crate) fn judge_verdict(&self, ack: &v1::OutcomeAck) -> Result<(), Broken> {
        let lease = LeaseId(ack.lease_id);
        let recorded = ack.verdict() == v1::OutcomeVerdict::Recorded;
        if self.current(lease).is_some() || (recorded && !self.minted.contains_key(&lease)) {
            let how = format!("lease {} is told {:?} and is its job's current one still", lease.0, ack.verdict());
            return broken(Rule::AcknowledgedOutcomesAreDurable, how);
        }
        let job = self.minted.get(&lease).and_then(|job_id| self.ledger.job(job_id));
        let ended_it = |row: &JobRow| matches!(&row.phase, Phase::Ended(ended) if ended.outcome_of == Some(lease));
        if !recorded && job.is_some_and(|entry| ended_it(&entry.row)) {
            let how = format!("lease {} ended its job and is told that it is stale", lease.0);
            return broken(Rule::AcknowledgedOutcomesAreDurable, how);
        }
        Ok(())
    }

    /// A decision on a lease that a worker holds is about to leave. `voided` are leases that ended in the same round, of which
    /// the worker is told next.
    pub(crate) fn judge_kept(
        &self,
        lease: LeaseId,
        worker: &WorkerId,
        boot: &str,
        voided: &BTreeSet<LeaseId>,
    ) -> Result<(), Broken> {
        let held = self.current(lease).and_then(|row| row.phase.lease());
        if held.is_some_and(|held| held.worker == *worker && held.boot.as_str() == boot) || voided.contains(&lease) {
            return Ok(());
        }
        broken(Rule::OnlyCurrentLeasesAreKept, format!("{worker} ({boot}) is to keep lease {}: {held:?}", lease.0))
    }
}

/// The lease under which a result was made: the simulated workers write it where a real one writes its name.
fn lease_of_result(result: &[u8]) -> Option<LeaseId> {
    let result = v1::JobResult::decode(result).ok()?;
    result.worker_id.parse().ok().map(LeaseId)
}

/// The arrows of the lifecycle, as the job protocol draws them.
fn allowed(before: Option<JobState>, event: &Event, after: JobState) -> bool {
    use JobState::{Assigned, Cancelled, Cancelling, Completed, Failed, Pending, Queued, Running, Timeout};
    let leased = |state| matches!(state, Assigned | Running);
    match (before, event) {
        (None, Event::Submitted { .. }) => matches!(after, Pending | Queued),
        (Some(Pending), Event::Due) => after == Queued,
        (Some(Queued), Event::Assigned) => after == Assigned,
        (Some(Queued), Event::Reconsidered) => after == Queued,
        (Some(Assigned), Event::Accepted) => after == Running,
        (Some(state @ (Running | Cancelling)), Event::Progress { .. }) => after == state,
        (Some(state), Event::Returned { .. } | Event::AttemptLost { .. }) => leased(state) && after == Queued,
        (Some(state), Event::AttemptFailed { .. }) => leased(state) && matches!(after, Pending | Queued),
        (Some(state), Event::CancelRequested { .. }) => leased(state) && after == Cancelling,
        (Some(Pending), Event::Ended { .. }) => matches!(after, Cancelled | Timeout),
        (Some(Queued), Event::Ended { .. }) => matches!(after, Cancelled | Timeout | Failed),
        (Some(Assigned | Running | Cancelling), Event::Ended { .. }) => after.is_terminal(),
        (Some(Failed | Cancelled | Timeout), Event::RetryRequested) => matches!(after, Pending | Queued),
        (Some(Completed), _) => false,
        _ => false,
    }
}
