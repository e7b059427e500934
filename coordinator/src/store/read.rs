//! What the store is asked: the shapes of questions and answers, and the token that continues a list.

use std::collections::BTreeMap;

use guestkit_domain::{JobId, JobState, Revision, Time};
use guestkit_scheduler::JobRow;
use sha2::{Digest, Sha256};

/// Order of submission; what lists are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobNo(pub i64);

/// A job as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredJob {
    /// Order of submission.
    pub job_no: JobNo,
    /// Its name.
    pub job_id: JobId,
    /// Encoded `JobDocument`.
    pub document: Vec<u8>,
    /// Submission.
    pub created_at: Time,
    /// The changeable part.
    pub row: JobRow,
    /// Encoded `JobError`.
    pub error: Option<Vec<u8>>,
    /// Latest progress: its entry, whose `progress` is set.
    pub progress: Option<StoredEvent>,
}

/// One entry of a job's log.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvent {
    /// The job.
    pub job_id: JobId,
    /// From 1, without gaps.
    pub sequence: u64,
    /// When.
    pub at: Time,
    /// The revision that made it durable.
    pub revision: Revision,
    /// The job's state after it.
    pub state: JobState,
    /// The attempt it is about; 0 before the first.
    pub attempt: u32,
    /// The worker it is about.
    pub worker_id: Option<String>,
    /// One line.
    pub reason: String,
    /// Encoded `Progress`: phase, message and details. Set when the entry is progress.
    pub progress: Option<Vec<u8>>,
    /// 0 to 100; set when the entry is progress.
    pub percent: Option<f64>,
    /// Encoded `JobError`.
    pub error: Option<Vec<u8>>,
}

/// Which jobs. Every criterion that is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Any of these.
    pub states: Vec<JobState>,
    /// Any of these.
    pub operations: Vec<String>,
    /// This one.
    pub namespace: Option<String>,
    /// All of these.
    pub labels: BTreeMap<String, String>,
    /// Held, or held last, by this one.
    pub worker_id: Option<String>,
    /// At or after.
    pub created_after: Option<Time>,
    /// Before.
    pub created_before: Option<Time>,
}

/// A job that is gone.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDeletion {
    /// The job.
    pub job_id: JobId,
    /// When.
    pub at: Time,
    /// The revision that made it durable.
    pub revision: Revision,
}

/// What happened to a job.
#[derive(Debug, Clone, PartialEq)]
pub enum StoredChange {
    /// An entry of its log.
    Event(StoredEvent),
    /// Its end.
    Deletion(StoredDeletion),
}

impl StoredChange {
    /// Both kinds up to a revision, in order.
    pub(super) fn merged(events: Vec<StoredEvent>, deletions: Vec<StoredDeletion>, reached: Revision) -> Vec<Self> {
        let both = events.into_iter().map(Self::Event).chain(deletions.into_iter().map(Self::Deletion));
        let mut changes: Vec<_> = both.filter(|change| change.revision() <= reached).collect();
        changes.sort_unstable_by_key(Self::revision);
        changes
    }

    /// The job.
    #[must_use]
    pub fn job_id(&self) -> &JobId {
        match self {
            Self::Event(event) => &event.job_id,
            Self::Deletion(deletion) => &deletion.job_id,
        }
    }

    /// The revision that made it durable.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Event(event) => event.revision,
            Self::Deletion(deletion) => deletion.revision,
        }
    }
}

/// A span of the store's revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// After this one.
    pub after: Revision,
    /// Up to this one.
    pub until: Revision,
    /// Only of jobs that were submitted at this one or after it.
    pub submitted_from: Option<JobNo>,
}

/// What happened in a span.
#[derive(Debug, Clone, PartialEq)]
pub enum Changes {
    /// Changes of the span have been dropped.
    Compacted {
        /// The oldest revision after which everything is still known.
        oldest: Revision,
    },
    /// The first of them.
    Page {
        /// In the order of revisions.
        changes: Vec<StoredChange>,
        /// Everything up to here is among them.
        reached: Revision,
    },
}

/// A page of jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Where the store stood when it was read.
    pub revision: Revision,
    /// Newest first.
    pub jobs: Vec<StoredJob>,
    /// Where the next page begins: after this one. `None` on the last page.
    pub next: Option<JobNo>,
}

/// Where a list goes on. Opaque outside; bound to the filter it was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageToken {
    /// The last job of the page before.
    pub after: JobNo,
    filter: [u8; 8],
}

/// The text is no token of ours, or was given for another filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageTokenError {
    /// Not a token.
    #[error("not a token that a list has given")]
    Malformed,
    /// A token of another list.
    #[error("given for another filter")]
    OtherFilter,
}

impl PageToken {
    const VERSION: u8 = 1;

    /// The token for the page after `after`.
    #[must_use]
    pub fn new(filter: &JobFilter, after: JobNo) -> Self {
        Self { after, filter: filter.digest() }
    }

    /// Reads a token back.
    ///
    /// # Errors
    /// When it is not a token, or one of another filter.
    pub fn parse(text: &str, filter: &JobFilter) -> Result<Self, PageTokenError> {
        let bytes = from_hex(text).ok_or(PageTokenError::Malformed)?;
        let (&version, rest) = bytes.split_first().ok_or(PageTokenError::Malformed)?;
        let (stated, after) = rest.split_at_checked(8).ok_or(PageTokenError::Malformed)?;
        let after = <[u8; 8]>::try_from(after).map_err(|_| PageTokenError::Malformed)?;
        let token = Self::new(filter, JobNo(i64::from_be_bytes(after)));
        if version != Self::VERSION {
            return Err(PageTokenError::Malformed);
        }
        if stated != token.filter {
            return Err(PageTokenError::OtherFilter);
        }
        Ok(token)
    }
}

impl std::fmt::Display for PageToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x}", Self::VERSION)?;
        self.filter.iter().chain(&self.after.0.to_be_bytes()).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    // 1 + 8 + 8 bytes as hexadecimal digits.
    if text.len() != 34 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

impl JobFilter {
    fn digest(&self) -> [u8; 8] {
        let digest: [u8; 32] = Sha256::digest(format!("{self:?}").as_bytes()).into();
        let mut short = [0; 8];
        short.copy_from_slice(&digest[..8]);
        short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_continues_its_own_list_only() {
        let filter = JobFilter { namespace: Some("a".into()), ..JobFilter::default() };
        let token = PageToken::new(&filter, JobNo(7)).to_string();
        assert_eq!(PageToken::parse(&token, &filter).unwrap().after, JobNo(7));
        assert_eq!(PageToken::parse(&token, &JobFilter::default()), Err(PageTokenError::OtherFilter));
        for text in
            ["", "7", "zz", &token[1..], &format!("{token}00"), &token.replacen("01", "02", 1), "ééééééééééééééééé"]
        {
            assert_eq!(PageToken::parse(text, &filter), Err(PageTokenError::Malformed), "{text}");
        }
    }
}
