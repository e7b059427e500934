//! What must hold after every step, as a list that tests run.

use std::collections::{BTreeMap, BTreeSet};

use guestkit_domain::WorkerId;

use crate::Scheduler;
use crate::index::Counts;
use crate::ledger::Phase;
use crate::placement::{Kind, Mismatch, contains, mismatches};
use crate::roots::Standing;

impl Scheduler {
    /// Every invariant that does not hold; empty when all is well. Walks everything: for tests.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let mut broken = Vec::new();
        self.check_jobs(&mut broken);
        self.check_counts(&mut broken);
        self.check_leases(&mut broken);
        self.check_workers(&mut broken);
        broken.extend(self.queue.check(self.now));
        self.check_images(&mut broken);
        broken
    }

    fn check_jobs(&self, broken: &mut Vec<String>) {
        let mut due = BTreeSet::new();
        let mut ended = BTreeSet::new();
        for entry in self.ledger.jobs() {
            let job = &entry.spec.job_id;
            due.extend(self.job_due(entry).map(|at| (at, entry.arrival)));
            if let Phase::Ended(end) = &entry.row.phase {
                ended.insert((end.at, entry.arrival));
                if !end.state.is_terminal() {
                    broken.push(format!("{job} ended in {:?}", end.state));
                }
            }
            if !(0.0..=100.0).contains(&entry.row.percent) {
                broken.push(format!("{job} is at {} percent", entry.row.percent));
            }
            if entry.row.revision > self.ledger.revision || entry.row.sequence == 0 {
                broken.push(format!("{job} is ahead of the ledger"));
            }
            let unfinished = !matches!(entry.row.phase, Phase::Ended(_));
            if unfinished && entry.row.lost_attempts >= self.config.lost_attempts_max {
                broken.push(format!("{job} goes on after {} losses", entry.row.lost_attempts));
            }
            if unfinished && entry.row.failed_attempts >= entry.spec.max_attempts.max(1) {
                broken.push(format!("{job} goes on after {} failures", entry.row.failed_attempts));
            }
            if matches!(entry.row.phase, Phase::Queued { .. }) && !self.queue.holds(entry) {
                broken.push(format!("{job} is queued and not in the queue"));
            }
        }
        if due != self.job_due {
            broken.push("the jobs' deadlines are not those of their phases".into());
        }
        if ended != self.ended {
            broken.push("the jobs that are over are not those listed".into());
        }
    }

    fn check_counts(&self, broken: &mut Vec<String>) {
        let mut counts = Counts::default();
        for entry in self.ledger.jobs() {
            if let Some(count) = counts.of(entry.row.phase.state()) {
                *count += 1;
            }
        }
        if counts != self.counts {
            broken.push(format!("counted {counts:?}, kept {:?}", self.counts));
        }
        if self.queue.len() as u64 != counts.queued {
            broken.push(format!("{} jobs in the queue, {} queued", self.queue.len(), counts.queued));
        }
    }

    fn check_leases(&self, broken: &mut Vec<String>) {
        let mut leases = BTreeMap::new();
        let mut keys: BTreeMap<_, u32> = BTreeMap::new();
        for entry in self.ledger.jobs() {
            let Some(lease) = entry.row.phase.lease() else { continue };
            if leases.insert(lease.id, entry.arrival).is_some() {
                broken.push(format!("lease {} names two attempts", lease.id.0));
            }
            if lease.id > self.ledger.last_lease {
                broken.push(format!("lease {} was never minted", lease.id.0));
            }
            if self.workers.get(&lease.worker).and_then(|worker| worker.held.get(&lease.id)) != Some(&entry.arrival) {
                broken.push(format!("lease {} is not counted on {}", lease.id.0, lease.worker));
            }
            if let Some(key) = &entry.spec.concurrency_key {
                *keys.entry(key.clone()).or_default() += 1;
            }
        }
        if leases != self.leases {
            broken.push("the leases indexed are not those of the jobs".into());
        }
        for (key, running) in keys {
            let (counted, limit) = self.queue.key_use(&key);
            if running != counted || running > limit {
                broken.push(format!("{running} jobs run with key {key:?}; counted {counted}, allowed {limit}"));
            }
        }
        if let Some(lease) = self.throttles.keys().find(|lease| !self.leases.contains_key(lease)) {
            broken.push(format!("progress of lease {} is remembered after its end", lease.0));
        }
        let waiting: BTreeSet<_> =
            self.throttles.iter().filter_map(|(lease, t)| t.waiting.as_ref().map(|(at, _)| (*at, *lease))).collect();
        if waiting != self.progress_due {
            broken.push("the progress that waits is not the progress that is due".into());
        }
    }

    /// Jobs whose image lies beneath no root, found again one by one.
    fn check_images(&self, broken: &mut Vec<String>) {
        let mut waiting = 0;
        for entry in self.ledger.jobs() {
            let placement = &entry.spec.placement;
            let (Phase::Queued { since }, Some(folder)) = (&entry.row.phase, &placement.image_folder) else { continue };
            waiting += 1;
            let asked = |id: &WorkerId| placement.worker.as_ref().is_none_or(|pin| pin == id);
            let known = self.workers.iter().filter(|(id, _)| asked(id)).filter_map(|(id, worker)| {
                let profile = worker.profile.as_ref()?;
                Some((id, worker, profile))
            });
            let inside =
                known.clone().any(|(_, _, profile)| profile.image_roots.iter().any(|root| contains(root, folder)));
            let inside = inside || (placement.worker.is_none() && self.roots.remembers(folder));
            let judged = known.clone().any(|(_, worker, profile)| {
                let missing = mismatches(placement, &Kind::of(profile));
                worker.session.is_some() && matches!(missing.as_slice(), [Mismatch::ImageFolder(_)])
            });
            let standing = self.roots.standing(placement, *since);
            let right = match standing {
                Standing::Inside => inside,
                Standing::Unjudged => !inside && !judged,
                Standing::Ends(_) => !inside && judged,
            };
            if !self.roots.holds(placement, *since, entry.arrival) || !right {
                broken.push(format!("{} stands {standing:?}; inside {inside}, judged {judged}", entry.spec.job_id));
            }
            if let Standing::Ends(at) = standing
                && self.roots.next_due().is_none_or(|due| due > at)
            {
                broken.push(format!("{} is not looked at when it is due", entry.spec.job_id));
            }
        }
        broken.extend(self.roots.check(waiting));
    }

    fn check_workers(&self, broken: &mut Vec<String>) {
        let (mut slots, mut used, mut held) = (0, 0, 0);
        let mut due = BTreeSet::new();
        for (id, worker) in &self.workers {
            held += worker.held.len();
            due.extend(worker.due.map(|at| (at, id.clone())));
            if worker.held.len() > worker.slots_seen.max(worker.slots()) as usize && worker.profile.is_some() {
                broken.push(format!("{id} holds {} leases and has {} slots", worker.held.len(), worker.slots()));
            }
            if worker.lost && (!worker.held.is_empty() || worker.session.is_some()) {
                broken.push(format!("{id} is lost and still holds something"));
            }
            if let Some(session) = worker.session {
                slots += u64::from(worker.slots());
                used += worker.held.len() as u64;
                if self.sessions.get(&session) != Some(id) {
                    broken.push(format!("the session of {id} is not its own"));
                }
            }
            if !worker.lost && worker.due.is_none() {
                broken.push(format!("{id} has no deadline"));
            }
            let free = worker.free(self.now, &self.config);
            // Time alone gives and takes credits at the next wake-up, not before.
            let overdue = worker.due.is_some_and(|at| at <= self.now);
            if free > 0 && !overdue && self.queue.offered(id) != free {
                broken.push(format!("{id} has {free} slots free, offered are {}", self.queue.offered(id)));
            }
        }
        if (slots, used) != (self.slots_connected, self.slots_in_use) {
            broken.push(format!("slots {slots}/{used}, kept {}/{}", self.slots_connected, self.slots_in_use));
        }
        if held != self.leases.len() {
            broken.push(format!("workers hold {held} leases of {}", self.leases.len()));
        }
        if due != self.worker_due {
            broken.push("the workers' deadlines are not those of the workers".into());
        }
        if self.sessions.len() != self.workers.values().filter(|worker| worker.session.is_some()).count() {
            broken.push("a session belongs to nobody".into());
        }
    }
}
