//! Why a job is where it is: from the very data it is decided with.

use std::collections::BTreeMap;

use guestkit_domain::{JobId, JobState, Namespace, Time, WorkerId};

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
    /// Jobs of its namespace and requirements that go before it, counted up to 10,000.
    pub jobs_ahead: u64,
}

/// What the connected workers are for a job.
#[derive(Default)]
struct Census {
    connected: u32,
    /// Those that its pin or its pools leave.
    asked: u32,
    eligible: u32,
    free: u32,
    busy: u32,
    draining: u32,
    silent: u32,
    declined: u32,
    /// What those that were asked lack, and how many of them.
    missing: BTreeMap<Mismatch, u32>,
}

impl Scheduler {
    /// Why a job is where it is. Walks the workers, not the jobs.
    #[must_use]
    pub fn explain(&self, job_id: &JobId) -> Option<Explanation> {
        let entry = self.ledger.job(job_id)?;
        let census = self.census(entry);
        let queued = matches!(entry.row.phase, Phase::Queued { .. });
        let position = if queued { self.queue.position(entry, AHEAD_MAX) } else { (0, 0) };
        Some(Explanation {
            state: entry.row.phase.state(),
            reasons: self.reasons(entry, &census, position),
            eligible_workers: census.eligible,
            connected_workers: census.connected,
            jobs_ahead: position.0 as u64,
        })
    }

    fn reasons(&self, entry: &JobEntry, census: &Census, position: (usize, usize)) -> Vec<String> {
        let seconds = |until: Time| until.since(self.now).as_secs_f64();
        match &entry.row.phase {
            Phase::Pending { until } if entry.row.failed_attempts > 0 => {
                vec![format!("attempt {} failed; the next one follows in {:.1} s", entry.row.attempt, seconds(*until))]
            }
            Phase::Pending { until } => vec![format!("not_before is {:.1} s away", seconds(*until))],
            Phase::Queued { since } => self.waiting_reasons(entry, *since, census, position),
            Phase::Assigned { lease, .. } => vec![format!("offered to {} and not answered yet", lease.worker)],
            Phase::Running { lease, .. } => vec![format!("runs on {}", lease.worker)],
            Phase::Cancelling { lease, .. } => vec![format!("{} was asked to end it", lease.worker)],
            Phase::Ended(ended) => match &ended.failure {
                Some(failure) => vec![format!("ended: {}: {}", failure.code, failure.message)],
                None => vec!["completed".into()],
            },
        }
    }

    fn waiting_reasons(&self, entry: &JobEntry, since: Time, census: &Census, position: (usize, usize)) -> Vec<String> {
        let mut reasons = Vec::new();
        if census.eligible == 0 {
            reasons.extend(self.nobody(entry, census));
            reasons.extend(self.image_reason(entry, since));
        }
        if let Some(key) = &entry.spec.concurrency_key {
            let (running, limit) = self.queue.key_use(key);
            if running >= limit {
                reasons.push(format!("concurrency key {key:?} allows {limit} at a time and {running} are running"));
            }
        }
        if census.eligible > 0 && census.free == 0 {
            reasons.push(census.nobody_free());
        }
        if census.eligible > 0 && census.declined > 0 {
            let others = counted(census.declined, "other worker");
            reasons.push(format!("{others} declined it by its own fault{}", self.asked_again_in(entry)));
        }
        reasons.push(place(&entry.spec.namespace, position));
        reasons
    }

    /// Why no connected worker may run it.
    fn nobody(&self, entry: &JobEntry, census: &Census) -> Option<String> {
        let placement = &entry.spec.placement;
        let pools = || placement.pools.iter().map(|pool| &**pool).collect::<Vec<_>>().join(" or ");
        let within = if placement.pools.is_empty() { String::new() } else { format!(" in pool {}", pools()) };
        if census.connected == 0 {
            return Some("no worker is connected".into());
        }
        if census.asked == 0 {
            return Some(match &placement.worker {
                Some(pin) if !self.is_connected(pin) => {
                    format!("worker {pin}, to which it is pinned, is not connected")
                }
                Some(pin) => format!("worker {pin}, to which it is pinned, is not in pool {}", pools()),
                None => format!("no connected worker is in pool {}", pools()),
            });
        }
        if census.declined > 0 {
            let workers = every(census.declined);
            let again = self.asked_again_in(entry);
            return Some(format!("{workers} that could run it declined it by its own fault{again}"));
        }
        let lacked_by_all: Vec<String> = census
            .missing
            .iter()
            .filter(|(_, count)| **count == census.asked)
            .map(|(what, _)| what.to_string())
            .collect();
        let whom = match &placement.worker {
            Some(pin) => format!("worker {pin}, to which it is pinned, has not"),
            None => format!("no connected worker{within} has"),
        };
        if !lacked_by_all.is_empty() {
            let others = census.what_some_have(entry);
            return Some(format!("{whom} {}{others}", lacked_by_all.join(" and ")));
        }
        let each: Vec<String> =
            census.missing.iter().map(|(what, count)| format!("{} {what}", lacking(*count))).collect();
        Some(format!("no connected worker{within} has everything it needs: {}", each.join(", ")))
    }

    /// When those that declined it are asked again.
    fn asked_again_in(&self, entry: &JobEntry) -> String {
        match self.asked_again(entry) {
            Some(at) => format!("; asked again in {:.1} s", at.since(self.now).as_secs_f64()),
            None => String::new(),
        }
    }

    fn is_connected(&self, worker: &WorkerId) -> bool {
        self.workers.get(worker).is_some_and(|worker| worker.session.is_some())
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
            let Some(profile) = worker.profile.as_ref().filter(|_| worker.session.is_some()) else { continue };
            census.connected += 1;
            let placement = &entry.spec.placement;
            let pinned_elsewhere = placement.worker.as_ref().is_some_and(|pin| pin != id);
            if pinned_elsewhere || !(placement.pools.is_empty() || placement.pools.contains(&profile.pool)) {
                continue;
            }
            census.asked += 1;
            self.count_worker(&mut census, entry, id, worker);
        }
        census
    }

    fn count_worker(&self, census: &mut Census, entry: &JobEntry, id: &WorkerId, worker: &Worker) {
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
            WorkerState::Ready => census.busy += 1,
            WorkerState::Unreachable | WorkerState::Lost => census.silent += 1,
        }
    }
}

impl Census {
    /// Which of its other requirements some of those asked meet: tells a typing error from a fleet that lacks something.
    fn what_some_have(&self, entry: &JobEntry) -> String {
        let placement = &entry.spec.placement;
        let named = placement.capabilities.iter().filter(|name| **name != placement.operation);
        let capabilities = named.map(|name| Mismatch::Capability(name.clone()));
        let features = placement.features.iter().map(|name| Mismatch::Feature(name.clone()));
        let some = capabilities.chain(features).filter_map(|what| {
            let have = self.asked - self.missing.get(&what).copied().unwrap_or(0);
            (have > 0).then(|| format!("; {have} {} {what}", if have == 1 { "has" } else { "have" }))
        });
        some.collect()
    }

    fn nobody_free(&self) -> String {
        let each = [(self.busy, "busy"), (self.draining, "draining"), (self.silent, "not heard from")];
        let each: Vec<String> =
            each.iter().filter(|(count, _)| *count > 0).map(|(count, how)| format!("{count} {how}")).collect();
        format!("{} that could run it has no free slot: {}", every(self.eligible), each.join(", "))
    }
}

/// Its place among the waiting jobs of its namespace that ask for the same.
fn place(namespace: &Namespace, (ahead, all): (usize, usize)) -> String {
    if ahead >= AHEAD_MAX {
        return format!("position above {AHEAD_MAX} in namespace {namespace}");
    }
    let more = if all >= AHEAD_MAX { "at least " } else { "" };
    format!("position {} of {more}{all} in namespace {namespace}", ahead + 1)
}

fn every(count: u32) -> String {
    match count {
        1 => "the only connected worker".into(),
        count => format!("each of {count} connected workers"),
    }
}

fn counted(count: u32, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn lacking(count: u32) -> String {
    format!("{count} {}", if count == 1 { "lacks" } else { "lack" })
}
