//! What must survive: jobs, drains, the last lease and the totals; and the records that change them.
//!
//! Each [`Record`] about a job carries the job's whole changeable part ([`JobRow`]) beside what happened ([`Event`]): a store
//! overwrites the row, appends the event, and needs to know nothing else. [`Ledger::apply`] is the definition of what a store
//! has to give back: `load` must equal the fold of every record committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guestkit_domain::{
    BootId, Failure, JobId, JobSpec, JobState, LeaseId, Namespace, Placement, Progress, RefusalFault, Revision, Time,
    WorkerId,
};

use crate::input::{Body, DrainTarget};

/// One durable change. Revisions rise by one from record to record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Position in the store's history.
    pub revision: Revision,
    /// When it was decided.
    pub at: Time,
    /// What changed.
    pub change: Change,
}

/// What a record changes.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A job was submitted or changed.
    Job {
        /// Which.
        job_id: JobId,
        /// What happened: an entry of the job's log, at `row.sequence`.
        event: Event,
        /// The job's changeable part afterwards; replaces the one before.
        row: JobRow,
    },
    /// A job that was over is forgotten, with its log: by a person, or because it has been over for long.
    Deleted {
        /// Which.
        job_id: JobId,
    },
    /// Workers are to be given no new work; replaces a drain of the same target.
    Drain {
        /// Which workers.
        target: DrainTarget,
        /// After which what they run goes elsewhere.
        until: Option<Time>,
    },
    /// A drain ended.
    Resume {
        /// Which workers.
        target: DrainTarget,
    },
}

/// What happened to a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It was taken.
    Submitted {
        /// What does not change.
        spec: Arc<JobSpec>,
        /// The document, unopened.
        document: Body,
    },
    /// The instant it waited for has come.
    Due,
    /// It was offered to a worker.
    Assigned,
    /// The worker took it.
    Accepted,
    /// Its attempt went on.
    Progress {
        /// How far; the percentage is the one that counts, never less than before in this attempt.
        progress: Progress,
    },
    /// It is back in the queue, and nobody is blamed.
    Returned {
        /// Why.
        why: Return,
    },
    /// Its attempt failed and another one will follow.
    AttemptFailed {
        /// Why.
        failure: Failure,
    },
    /// Its attempt was lost and another one will follow.
    AttemptLost {
        /// How.
        why: Loss,
    },
    /// Somebody asked for its end.
    CancelRequested {
        /// Why.
        reason: Arc<str>,
    },
    /// It is over; the row says how.
    Ended {
        /// The outcome document, where a worker made one.
        result: Option<Body>,
    },
    /// Somebody asked for a new attempt budget.
    RetryRequested,
    /// The workers that declined it by their own fault may be asked again.
    Reconsidered,
}

/// Why a lease ended without an attempt that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Return {
    /// The worker did not answer in time, or never received it.
    NotAccepted,
    /// The worker declined.
    Refused {
        /// Whose fault: `Worker` or `Busy`.
        fault: RefusalFault,
        /// Why.
        failure: Failure,
    },
    /// The worker's drain came to its deadline.
    Drained,
}

/// How an attempt was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing was heard of the worker for the lease's whole time.
    Silent,
    /// The worker's process is a new one.
    Restarted,
    /// The worker connected again and did not hold it any more.
    Dropped,
    /// The worker ended it without being asked.
    Abandoned,
}

/// The changeable part of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    /// The job's log is at this entry; from 1, without gaps.
    pub sequence: u64,
    /// The store's revision at the job's latest change.
    pub revision: Revision,
    /// The attempt it is in, or was in last; 0 before the first. An offer that was not taken does not count.
    pub attempt: u32,
    /// Attempts that failed, since submission or the latest retry by a person.
    pub failed_attempts: u32,
    /// Attempts that were lost, since submission or the latest retry by a person.
    pub lost_attempts: u32,
    /// Progress of the current attempt, 0 to 100.
    pub percent: f64,
    /// Workers that declined it by their own fault, with the process that did: a new process is asked again at once, the
    /// same one after a pause.
    pub declined: BTreeMap<WorkerId, BootId>,
    /// Where it is.
    pub phase: Phase,
}

/// Where a job is, with what belongs to it there.
///
/// ```text
///              ┌────────────── retry by a person ───────────────────────────────┐
///              ▼                                                                │
/// submit ─► Pending ─due─► Queued ─offer─► Assigned ─accept─► Running ──────► Ended
///              ▲             ▲ ▲              │ │               │  │            ▲
///              │             │ └─not taken────┘ └───cancel──┐   │  └──outcome───┤
///              │             └────lost, budget left─────────┼───┤               │
///              │                                            ▼   │               │
///              │                                       Cancelling ──confirmed───┘
///              └────────────── failed, attempts left ───────────┘
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Waits for an instant.
    Pending {
        /// Which.
        until: Time,
    },
    /// Waits for a worker.
    Queued {
        /// Since when.
        since: Time,
    },
    /// Offered.
    Assigned {
        /// To whom.
        lease: Lease,
        /// Has waited since then, where the offer comes to nothing.
        since: Time,
    },
    /// Taken.
    Running {
        /// By whom.
        lease: Lease,
        /// Since when.
        started: Time,
    },
    /// To be ended by its worker.
    Cancelling {
        /// Held by whom.
        lease: Lease,
        /// Running since; `None` when it was never accepted.
        started: Option<Time>,
        /// Asked for when.
        since: Time,
    },
    /// Over.
    Ended(Ended),
}

/// A lease: one attempt of one job, in the hands of one process of one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// Who holds it.
    pub worker: WorkerId,
    /// Which start of the worker.
    pub boot: BootId,
    /// Offered when.
    pub offered: Time,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// A terminal state.
    pub state: JobState,
    /// When.
    pub at: Time,
    /// When its last attempt started.
    pub started: Option<Time>,
    /// The worker that held it last.
    pub worker: Option<WorkerId>,
    /// The lease whose outcome ended it; `None` when the coordinator did.
    pub outcome_of: Option<LeaseId>,
    /// Why it did not complete.
    pub failure: Option<Failure>,
}

impl Phase {
    /// The state's name.
    #[must_use]
    pub fn state(&self) -> JobState {
        match self {
            Self::Pending { .. } => JobState::Pending,
            Self::Queued { .. } => JobState::Queued,
            Self::Assigned { .. } => JobState::Assigned,
            Self::Running { .. } => JobState::Running,
            Self::Cancelling { .. } => JobState::Cancelling,
            Self::Ended(ended) => ended.state,
        }
    }

    /// The lease that is current, where there is one.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Assigned { lease, .. } | Self::Running { lease, .. } | Self::Cancelling { lease, .. } => Some(lease),
            Self::Pending { .. } | Self::Queued { .. } | Self::Ended(_) => None,
        }
    }

    /// When the current or last attempt started.
    #[must_use]
    pub fn started(&self) -> Option<Time> {
        match self {
            Self::Running { started, .. } => Some(*started),
            Self::Cancelling { started, .. } => *started,
            Self::Ended(ended) => ended.started,
            Self::Pending { .. } | Self::Queued { .. } | Self::Assigned { .. } => None,
        }
    }
}

impl JobRow {
    /// The worker that holds the job, or held it when it ended.
    #[must_use]
    pub fn worker(&self) -> Option<&WorkerId> {
        match &self.phase {
            Phase::Ended(ended) => ended.worker.as_ref(),
            phase => phase.lease().map(|lease| &lease.worker),
        }
    }

    /// Why the job ended, when it did not complete.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match &self.phase {
            Phase::Ended(ended) => ended.failure.as_ref(),
            _ => None,
        }
    }
}

/// A job: what never changes, and what does.
#[derive(Debug, Clone, PartialEq)]
pub struct JobEntry {
    /// The revision of its submission; jobs are in the order of their arrival by it.
    pub arrival: Revision,
    /// What never changes.
    pub spec: Arc<JobSpec>,
    /// What does.
    pub row: JobRow,
}

/// Jobs that ended since the store began; a job that was retried counts each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// In state `Completed`.
    pub completed: u64,
    /// In state `Failed`.
    pub failed: u64,
    /// In state `Cancelled`.
    pub cancelled: u64,
    /// In state `Timeout`.
    pub timeout: u64,
}

impl Totals {
    /// Counts the record, if it ends a job. A store keeps its totals with this.
    pub fn count(&mut self, record: &Record) {
        let Change::Job { event: Event::Ended { .. }, row, .. } = &record.change else { return };
        match row.phase.state() {
            JobState::Completed => self.completed += 1,
            JobState::Failed => self.failed += 1,
            JobState::Cancelled => self.cancelled += 1,
            JobState::Timeout => self.timeout += 1,
            _ => {}
        }
    }
}

impl Record {
    /// The lease this record mints, if it does. A store keeps the highest for [`Ledger::last_lease`].
    #[must_use]
    pub fn minted(&self) -> Option<LeaseId> {
        match &self.change {
            Change::Job { event: Event::Assigned, row, .. } => row.phase.lease().map(|lease| lease.id),
            _ => None,
        }
    }
}

/// What a store gives back at the start.
///
/// It must hold every job that is not over. Jobs that are over may be left out when `partial` is set; the scheduler then asks
/// for them ([`crate::Scheduler::wants`]).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ledger {
    /// The last record's revision.
    pub revision: Revision,
    /// The last record's time. The coordinator's clock must not begin before it.
    pub newest: Time,
    /// The highest lease ever minted.
    pub last_lease: LeaseId,
    /// Jobs that ended since the store began.
    pub totals: Totals,
    /// Drains in force.
    pub drains: BTreeMap<DrainTarget, Option<Time>>,
    /// Whether jobs that are over were left out.
    pub partial: bool,
    jobs: BTreeMap<Revision, Box<JobEntry>>,
    ids: BTreeMap<JobId, Revision>,
    keys: BTreeMap<(Namespace, Arc<str>), Revision>,
}

/// Lets equal parts of jobs share their memory while a store loads them, as those of one submitter's jobs mostly are equal.
#[derive(Debug, Default)]
pub struct Sharing {
    placements: BTreeSet<Arc<Placement>>,
    namespaces: BTreeSet<Namespace>,
    keys: BTreeSet<Arc<str>>,
}

impl Sharing {
    /// Gives `entry` the parts that an equal one had before it.
    pub fn share(&mut self, entry: &mut JobEntry) {
        let Some(spec) = Arc::get_mut(&mut entry.spec) else { return };
        one_of(&mut self.placements, &mut spec.placement);
        one_of(&mut self.namespaces, &mut spec.namespace);
        if let Some(key) = &mut spec.concurrency_key {
            one_of(&mut self.keys, key);
        }
    }
}

fn one_of<T: Ord + Clone>(known: &mut BTreeSet<T>, value: &mut T) {
    match known.get(value) {
        Some(first) => *value = first.clone(),
        None => {
            known.insert(value.clone());
        }
    }
}

impl Ledger {
    /// Puts a job in, as a store does while it loads; replaces one of the same name.
    pub fn insert(&mut self, entry: JobEntry) {
        self.remove(&entry.spec.job_id);
        self.ids.insert(entry.spec.job_id.clone(), entry.arrival);
        if let Some(key) = &entry.spec.idempotency_key {
            // Of jobs that had the key one after the other, the last.
            let latest = self.keys.entry((entry.spec.namespace.clone(), key.clone())).or_insert(entry.arrival);
            *latest = entry.arrival.max(*latest);
        }
        self.jobs.insert(entry.arrival, Box::new(entry));
    }

    /// Takes a job out.
    pub(crate) fn remove(&mut self, job_id: &JobId) -> Option<Box<JobEntry>> {
        let arrival = self.ids.remove(job_id)?;
        let entry = self.jobs.remove(&arrival)?;
        if let Some(key) = &entry.spec.idempotency_key {
            let key = (entry.spec.namespace.clone(), key.clone());
            if self.keys.get(&key) == Some(&arrival) {
                self.keys.remove(&key);
            }
        }
        Some(entry)
    }

    /// One job by its name.
    #[must_use]
    pub fn job(&self, job_id: &JobId) -> Option<&JobEntry> {
        self.at(*self.ids.get(job_id)?)
    }

    /// One job by its arrival.
    pub(crate) fn at(&self, arrival: Revision) -> Option<&JobEntry> {
        self.jobs.get(&arrival).map(Box::as_ref)
    }

    /// The arrival of a job.
    pub(crate) fn arrival(&self, job_id: &JobId) -> Option<Revision> {
        self.ids.get(job_id).copied()
    }

    /// The job an idempotency key led to.
    pub(crate) fn by_key(&self, namespace: &Namespace, key: &Arc<str>) -> Option<&JobEntry> {
        self.at(*self.keys.get(&(namespace.clone(), key.clone()))?)
    }

    /// Every job, in the order of arrival.
    pub fn jobs(&self) -> impl Iterator<Item = &JobEntry> {
        self.jobs.values().map(Box::as_ref)
    }

    /// Takes a record in. Live state and replayed state agree because there is no other way to change either.
    ///
    /// A record about a job that is not there is ignored, unless it is the job's submission: stores may have left out jobs
    /// that are over.
    pub fn apply(&mut self, record: &Record) {
        self.revision = self.revision.max(record.revision);
        self.newest = self.newest.max(record.at);
        self.totals.count(record);
        if let Some(lease) = record.minted() {
            self.last_lease = self.last_lease.max(lease);
        }
        match &record.change {
            Change::Job { event: Event::Submitted { spec, .. }, row, .. } => {
                self.insert(JobEntry { arrival: record.revision, spec: spec.clone(), row: row.clone() });
            }
            Change::Job { job_id, row, .. } => {
                if let Some(entry) = self.ids.get(job_id).and_then(|arrival| self.jobs.get_mut(arrival)) {
                    entry.row = row.clone();
                }
            }
            Change::Deleted { job_id } => {
                self.remove(job_id);
            }
            Change::Drain { target, until } => {
                self.drains.insert(target.clone(), *until);
            }
            Change::Resume { target } => {
                self.drains.remove(target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use guestkit_domain::Duration;

    use super::*;

    fn entry(number: u64, operation: &str) -> JobEntry {
        let spec = JobSpec {
            job_id: JobId::new(&format!("shared-{number:04}")).unwrap(),
            namespace: Namespace::new("one").unwrap(),
            idempotency_key: None,
            idempotency_policy: Default::default(),
            idempotency_ttl: None,
            fingerprint: [0; 32],
            placement: Arc::new(Placement { operation: operation.into(), ..Placement::default() }),
            affinity: BTreeMap::new(),
            priority: Default::default(),
            max_attempts: 1,
            timeout: Duration::from_secs(1),
            queue_timeout: None,
            deadline: None,
            not_before: None,
            backoff: Default::default(),
            cancellable: true,
            concurrency_key: Some("disk".into()),
            created_at: Time(0),
        };
        let row = JobRow {
            sequence: 1,
            revision: Revision(number),
            attempt: 0,
            failed_attempts: 0,
            lost_attempts: 0,
            percent: 0.0,
            declined: BTreeMap::new(),
            phase: Phase::Queued { since: Time(0) },
        };
        JobEntry { arrival: Revision(number), spec: spec.into(), row }
    }

    #[test]
    fn equal_parts_are_one_and_nothing_is_changed() {
        let mut sharing = Sharing::default();
        let mut entries = [entry(1, "system.echo"), entry(2, "system.echo"), entry(3, "guestkit.inspect")];
        let before = entries.clone();
        for entry in &mut entries {
            *entry = JobEntry { spec: Arc::new((*entry.spec).clone()), ..entry.clone() };
            sharing.share(entry);
        }
        assert_eq!(entries, before);
        let [first, second, third] = &entries;
        assert!(Arc::ptr_eq(&first.spec.placement, &second.spec.placement));
        assert!(!Arc::ptr_eq(&first.spec.placement, &third.spec.placement));
        let key = |entry: &JobEntry| entry.spec.concurrency_key.clone().unwrap();
        assert!(Arc::ptr_eq(&key(first), &key(third)));
    }
}
