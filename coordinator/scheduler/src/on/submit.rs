use guestkit_domain::JobSpec;

use crate::Scheduler;
use crate::effects::{Effects, Refusal, Reply};
use crate::input::{Body, RequestId};
use crate::ledger::{Change, Event, JobEntry, JobRow};

impl Scheduler {
    /// Takes a job, or leads to the one that is there already.
    pub(crate) fn on_submit(&mut self, request: RequestId, mut spec: JobSpec, document: Body, fx: &mut Effects) {
        if let Some(known) = self.known(&spec) {
            return fx.replies.push((request, known));
        }
        if let Err(full) = self.room() {
            return fx.replies.push((request, Reply::Refused(full)));
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

    /// The answer for a name or idempotency key that was seen before.
    fn known(&self, spec: &JobSpec) -> Option<Reply> {
        let same = |entry: &JobEntry| entry.spec.fingerprint == spec.fingerprint;
        let existing = |entry: &JobEntry| Reply::Submitted {
            job_id: entry.spec.job_id.clone(),
            row: entry.row.clone(),
            existing: true,
        };
        if let Some(entry) = self.ledger.job(&spec.job_id) {
            let job_id = entry.spec.job_id.clone();
            return Some(if same(entry) { existing(entry) } else { Reply::Refused(Refusal::JobExists { job_id }) });
        }
        let key = spec.idempotency_key.as_ref()?;
        let entry = self.ledger.by_key(&spec.namespace, key)?;
        let (key, job_id) = (key.clone(), entry.spec.job_id.clone());
        Some(if same(entry) { existing(entry) } else { Reply::Refused(Refusal::KeyExists { key, job_id }) })
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
