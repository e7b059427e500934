use guestkit_domain::{ErrorCode, IdempotencyPolicy, JobSpec, Revision};

use crate::Scheduler;
use crate::effects::{Effects, Refusal, Reply};
use crate::input::{Body, RequestId};
use crate::job::Ending;
use crate::ledger::{Change, Event, JobEntry, JobRow, Phase};

/// What is known of a name or idempotency key.
enum Known {
    Not,
    Answer(Reply),
    /// The job of this arrival gives way.
    Replace(Revision),
}

impl Scheduler {
    /// Takes a job, or leads to the one that is there already.
    pub(crate) fn on_submit(&mut self, request: RequestId, mut spec: JobSpec, document: Body, fx: &mut Effects) {
        match self.known(&spec) {
            Known::Answer(known) => return fx.replies.push((request, known)),
            // What is replaced leaves room for what takes its place.
            Known::Replace(arrival) => {
                let message = format!("replaced by job {}", spec.job_id);
                self.end(arrival, Ending::by_coordinator(ErrorCode::Cancelled, message), fx);
            }
            Known::Not => {
                if let Err(full) = self.room() {
                    return fx.replies.push((request, Reply::Refused(full)));
                }
            }
        }
        self.queue.intern(&mut spec);
        let row = JobRow {
            sequence: 1,
            revision: self.next_revision(),
            attempt: 0,
            failed_attempts: 0,
            lost_attempts: 0,
            percent: 0.0,
            declined: Default::default(),
            phase: self.waiting(spec.not_before),
        };
        let job_id = spec.job_id.clone();
        let event = Event::Submitted { spec: spec.into(), document };
        self.record(Change::Job { job_id: job_id.clone(), event, row: row.clone() }, fx);
        fx.replies.push((request, Reply::Submitted { job_id, row, existing: false }));
    }

    /// What becomes of a name or idempotency key that was seen before.
    fn known(&self, spec: &JobSpec) -> Known {
        let same = |entry: &JobEntry| entry.spec.fingerprint == spec.fingerprint;
        let existing = |entry: &JobEntry| Reply::Submitted {
            job_id: entry.spec.job_id.clone(),
            row: entry.row.clone(),
            existing: true,
        };
        if let Some(entry) = self.ledger.job(&spec.job_id) {
            let job_id = entry.spec.job_id.clone();
            return Known::Answer(if same(entry) {
                existing(entry)
            } else {
                Reply::Refused(Refusal::JobExists { job_id })
            });
        }
        let Some(key) = &spec.idempotency_key else { return Known::Not };
        let Some(entry) = self.ledger.by_key(&spec.namespace, key).filter(|entry| self.holds_key(entry)) else {
            return Known::Not;
        };
        let (key, job_id) = (key.clone(), entry.spec.job_id.clone());
        let begun = !matches!(entry.row.phase, Phase::Pending { .. } | Phase::Queued { .. });
        match spec.idempotency_policy {
            IdempotencyPolicy::UseExisting => Known::Answer(existing(entry)),
            IdempotencyPolicy::Fail => Known::Answer(Reply::Refused(Refusal::KeyExists { key, job_id })),
            _ if same(entry) => Known::Answer(existing(entry)),
            IdempotencyPolicy::ReplaceQueued if !begun && !entry.spec.cancellable => {
                Known::Answer(Reply::Refused(Refusal::NotCancellable { job_id }))
            }
            IdempotencyPolicy::ReplaceQueued if !begun => Known::Replace(entry.arrival),
            IdempotencyPolicy::ReplaceQueued | IdempotencyPolicy::SameDocument => {
                Known::Answer(Reply::Refused(Refusal::KeyExists { key, job_id }))
            }
        }
    }

    /// Whether a job's idempotency key still leads to it.
    fn holds_key(&self, entry: &JobEntry) -> bool {
        match (&entry.row.phase, entry.spec.idempotency_ttl) {
            (Phase::Ended(ended), Some(ttl)) => self.now < ended.at.plus(ttl),
            _ => true,
        }
    }

    /// Whether one more job may be unfinished.
    pub(crate) fn room(&self) -> Result<(), Refusal> {
        let limit = self.config.queue_max;
        if self.counts.unfinished() < limit as u64 {
            return Ok(());
        }
        Err(Refusal::QueueFull { limit, retry_after: self.config.retry_after })
    }
}
