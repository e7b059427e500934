//! What a commit writes, folded: a job that changed several times is written once, and each kind of row is one statement.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use guestkit_domain::{JobId, JobSpec, Progress, WorkerId};
use guestkit_scheduler::{Change, Event, JobRow, Phase, Record};

use crate::store::codec::{self, state_number};
use crate::store::{StoreError, events, signed};

/// What `records` come to.
#[derive(Default)]
pub(super) struct Batch<'a> {
    /// New jobs by number.
    pub(super) submitted: BTreeMap<i64, Submitted<'a>>,
    /// Jobs that were there before, by number.
    pub(super) changed: BTreeMap<i64, State<'a>>,
    pub(super) deleted: Vec<Deleted>,
    /// New jobs that are gone already: only that they were is told.
    pub(super) passed: Vec<(Deleted, Submitted<'a>)>,
    pub(super) entries: Vec<Entry<'a>>,
    /// `None` forgets what was there.
    pub(super) results: BTreeMap<i64, Option<&'a [u8]>>,
    /// Targets of drains: in force until (if ever), or `None` when it ended.
    pub(super) drains: BTreeMap<Vec<u8>, Option<Option<i64>>>,
}

/// A new job.
pub(super) struct Submitted<'a> {
    pub(super) job_id: &'a JobId,
    pub(super) spec: &'a JobSpec,
    pub(super) document: &'a [u8],
    pub(super) state: State<'a>,
}

/// What changes of a job, as its latest record says.
pub(super) struct State<'a> {
    pub(super) row: &'a JobRow,
    pub(super) error: Option<Vec<u8>>,
}

/// A job that was there before.
pub(super) struct Deleted {
    pub(super) job_no: i64,
    pub(super) revision: i64,
    pub(super) at: i64,
}

/// An entry of a job's log.
pub(super) struct Entry<'a> {
    pub(super) record: &'a Record,
    pub(super) job_no: i64,
    pub(super) row: &'a JobRow,
    pub(super) reason: Cow<'static, str>,
    pub(super) progress: Option<&'a Progress>,
    pub(super) error: Option<Vec<u8>>,
}

impl State<'_> {
    pub(super) fn number(&self) -> i16 {
        number(self.row)
    }

    pub(super) fn ended_at(&self) -> Option<i64> {
        match &self.row.phase {
            Phase::Ended(ended) => Some(signed(ended.at.0)),
            _ => None,
        }
    }

    pub(super) fn worker(&self) -> Option<&str> {
        self.row.worker().map(WorkerId::as_str)
    }

    pub(super) fn encoded(&self) -> Vec<u8> {
        codec::encode_row(self.row)
    }
}

/// The row's state, as the tables have it.
pub(super) fn number(row: &JobRow) -> i16 {
    i16::try_from(state_number(row.phase.state())).unwrap_or(i16::MAX)
}

/// Jobs that `records` speak of and neither submit themselves nor `known` has.
pub(super) fn unknown<'a>(records: &'a [Record], known: &HashMap<JobId, i64>) -> BTreeSet<&'a str> {
    let mut submitted = BTreeSet::new();
    let mut unknown = BTreeSet::new();
    for record in records {
        match &record.change {
            Change::Job { job_id, event: Event::Submitted { .. }, .. } => {
                submitted.insert(job_id.as_str());
            }
            Change::Job { job_id, .. } | Change::Deleted { job_id } => {
                if !known.contains_key(job_id) && !submitted.contains(job_id.as_str()) {
                    unknown.insert(job_id.as_str());
                }
            }
            Change::Drain { .. } | Change::Resume { .. } => {}
        }
    }
    unknown
}

impl<'a> Batch<'a> {
    /// Folds `records`; `numbers` has every job that [`unknown`] asked for, and is kept up to date.
    pub(super) fn of(records: &'a [Record], numbers: &mut HashMap<JobId, i64>) -> Result<Self, StoreError> {
        let mut batch = Self::default();
        for record in records {
            match &record.change {
                Change::Job { job_id, event, row } => {
                    if matches!(event, Event::Submitted { .. }) {
                        numbers.insert(job_id.clone(), signed(record.revision.0));
                    }
                    let job_no = number_of(job_id, numbers)?;
                    batch.job(record, job_no, job_id, event, row);
                }
                Change::Deleted { job_id } => {
                    let job_no = number_of(job_id, numbers)?;
                    numbers.remove(job_id);
                    batch.delete(record, job_no);
                }
                Change::Drain { target, until } => {
                    let until = until.map(|at| signed(at.0));
                    batch.drains.insert(codec::encode_target(target), Some(until));
                }
                Change::Resume { target } => {
                    batch.drains.insert(codec::encode_target(target), None);
                }
            }
        }
        Ok(batch)
    }

    fn job(&mut self, record: &'a Record, job_no: i64, job_id: &'a JobId, event: &'a Event, row: &'a JobRow) {
        let error = events::error(event, row);
        let state = State { row, error: error.clone().filter(|_| row.phase.state().is_terminal()) };
        if let Event::Submitted { spec, document } = event {
            self.submitted.insert(job_no, Submitted { job_id, spec, document, state });
        } else if let Some(submitted) = self.submitted.get_mut(&job_no) {
            submitted.state = state;
        } else {
            self.changed.insert(job_no, state);
        }
        match event {
            Event::Ended { result: Some(result) } => drop(self.results.insert(job_no, Some(&**result))),
            Event::RetryRequested => drop(self.results.insert(job_no, None)),
            _ => {}
        }
        let progress = match event {
            Event::Progress { progress } => Some(progress),
            _ => None,
        };
        let reason = events::reason(event, row);
        self.entries.push(Entry { record, job_no, row, reason, progress, error });
    }

    fn delete(&mut self, record: &Record, job_no: i64) {
        self.results.remove(&job_no);
        let deleted = Deleted { job_no, revision: signed(record.revision.0), at: signed(record.at.0) };
        match self.submitted.remove(&job_no) {
            Some(job) => self.passed.push((deleted, job)),
            // It stays among the changed: what is remembered of it is how it was at its end.
            None => self.deleted.push(deleted),
        }
    }
}

fn number_of(job_id: &JobId, numbers: &HashMap<JobId, i64>) -> Result<i64, StoreError> {
    numbers.get(job_id).copied().ok_or_else(|| StoreError::NoSuchJob { job_id: job_id.clone() })
}
