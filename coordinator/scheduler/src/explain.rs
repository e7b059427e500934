//! Why a job is where it is: from the very data it is decided with.

use std::collections::BTreeMap;

use guestkit_domain::{JobId, JobState, Time};

use crate::Scheduler;
use crate::fleet::{Worker, WorkerState};
use crate::ledger::{JobEntry, Phase};
use crate::placement::{Kind, Mismatch, mismatches};
use crate::roots::Standing;

/// Jobs ahead are counted up to here; nobody reads a larger number for more than "many".
const AHEAD_MAX: usize = 10_000;

/// Why a job is where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Its state.
    pub state: JobState,
    /// Reasons, the decisive one first; each one sentence.
    pub reasons: Vec<String>,
    /// Connected workers that could run it if they were free.
    pub eligible_workers: u32,
    /// Connected workers.
    pub connected_workers: u32,
    /// Jobs of its namespace, priority and requirements that go before it, counted up to 10,000.
    pub jobs_ahead: u64,
}

/// What the connected workers are for a job.
#[derive(Default)]
struct Census {
    connected: u32,
    eligible: u32,
    free: u32,
    busy: u32,
    draining: u32,
    declined: u32,
    unpinned: u32,
    missing: BTreeMap<Mismatch, u32>,
}

impl Scheduler {
    /// Why a job is where it is. Walks the workers, not the jobs.
    #[must_use]
    pub fn explain(&self, job_id: &JobId) -> Option<Explanation> {
        let entry = self.ledger.job(job_id)?;
        let census = self.census(entry);
        let queued = matches!(entry.row.phase, Phase::Queued { .. });
        let ahead = if queued { self.queue.ahead(entry, AHEAD_MAX) } else { 0 };
        Some(Explanation {
            state: entry.row.phase.state(),
            reasons: self.reasons(entry, &census, ahead),
            eligible_workers: census.eligible,
            connected_workers: census.connected,
            jobs_ahead: ahead as u64,
        })
    }

    fn reasons(&self, entry: &JobEntry, census: &Census, ahead: usize) -> Vec<String> {
        let seconds = |until: Time| until.since(self.now).as_secs_f64();
        match &entry.row.phase {
            Phase::Pending { until } if entry.row.failed_attempts > 0 => {
                vec![format!("attempt {} failed; the next one follows in {:.1} s", entry.row.attempt, seconds(*until))]
            }
            Phase::Pending { until } => vec![format!("not_before is {:.1} s away", seconds(*until))],
            Phase::Queued { since } => self.waiting_reasons(entry, *since, census, ahead),
            Phase::Assigned { lease } => vec![format!("offered to {} and not answered yet", lease.worker)],
            Phase::Running { lease, .. } => vec![format!("runs on {}", lease.worker)],
            Phase::Cancelling { lease, .. } => vec![format!("{} was asked to end it", lease.worker)],
            Phase::Ended(ended) => match &ended.failure {
                Some(failure) => vec![format!("ended: {}: {}", failure.code, failure.message)],
                None => vec!["completed".into()],
            },
        }
    }

    fn waiting_reasons(&self, entry: &JobEntry, since: Time, census: &Census, ahead: usize) -> Vec<String> {
        let mut reasons = Vec::new();
        if census.eligible == 0 {
            reasons.push(census.nobody(entry));
            let mut missing: Vec<_> = census.missing.iter().collect();
            missing.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            reasons.extend(missing.into_iter().map(|(what, count)| {
                let verb = if *count == 1 { "worker has" } else { "workers have" };
                format!("{count} connected {verb} {what}")
            }));
            reasons.extend(self.image_reason(entry, since));
        }
        if census.declined > 0 {
            reasons.push(format!("{} of them declined it by their own fault", census.declined));
        }
        if let Some(key) = &entry.spec.concurrency_key {
            let (running, limit) = self.queue.key_use(key);
            if running >= limit {
                reasons.push(format!("concurrency key {key:?} allows {limit} at a time and {running} are running"));
            }
        }
        if census.eligible > 0 && census.free == 0 {
            reasons.push(format!(
                "{} of {} connected workers could run it: {} busy, {} draining",
                census.eligible, census.connected, census.busy, census.draining
            ));
        }
        if ahead > 0 || census.eligible > 0 {
            let many = if ahead >= AHEAD_MAX { "at least " } else { "" };
            let namespace = &entry.spec.namespace;
            reasons.push(format!(
                "{many}{ahead} jobs of namespace {namespace} with its priority and requirements go first"
            ));
        }
        reasons
    }

    /// What becomes of a job that no connected worker may run, as far as its image decides it.
    fn image_reason(&self, entry: &JobEntry, since: Time) -> Option<String> {
        let placement = &entry.spec.placement;
        let folder = placement.image_folder.as_deref()?;
        let roots = self.roots.named(placement.worker.as_ref());
        Some(match self.roots.standing(placement, since) {
            Standing::Inside => format!("an image root of a known worker contains {folder}: its image does not end it"),
            Standing::Unjudged => {
                format!("it waits until a worker connects that could run it but for its image; roots seen: {roots}")
            }
            Standing::Ends(at) => format!(
                "it fails in {:.1} s unless a worker with an image root that contains {folder} connects; roots seen: {roots}",
                at.since(self.now).as_secs_f64()
            ),
        })
    }

    fn census(&self, entry: &JobEntry) -> Census {
        let mut census = Census::default();
        for (id, worker) in &self.workers {
            if worker.session.is_none() {
                continue;
            }
            census.connected += 1;
            if entry.spec.placement.worker.as_ref().is_some_and(|pin| pin != id) {
                census.unpinned += 1;
                continue;
            }
            self.count_worker(&mut census, entry, id, worker);
        }
        census
    }

    fn count_worker(&self, census: &mut Census, entry: &JobEntry, id: &guestkit_domain::WorkerId, worker: &Worker) {
        let Some(profile) = &worker.profile else { return };
        let missing = mismatches(&entry.spec.placement, &Kind::of(profile));
        if !missing.is_empty() {
            for what in missing {
                *census.missing.entry(what).or_default() += 1;
            }
            return;
        }
        if entry.row.declined.get(id) == Some(&profile.boot_id) {
            census.declined += 1;
            return;
        }
        census.eligible += 1;
        match worker.state(self.now, &self.config) {
            WorkerState::Draining => census.draining += 1,
            WorkerState::Ready if worker.free(self.now, &self.config) > 0 => census.free += 1,
            _ => census.busy += 1,
        }
    }
}

impl Census {
    fn nobody(&self, entry: &JobEntry) -> String {
        match &entry.spec.placement.worker {
            _ if self.connected == 0 => "no worker is connected".into(),
            Some(pin) if self.unpinned == self.connected => {
                format!("worker {pin}, to which it is pinned, is not connected")
            }
            _ => format!("none of {} connected workers may run it", self.connected),
        }
    }
}
