//! What a check came to: three-valued, with its reason and what it was judged on.

use std::fmt;

use super::report::Evidence;
use super::rule::Severity;

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    Pass,
    Warn,
    Fail,
    /// The platform has no such thing.
    NotApplicable,
    /// Evidence is missing.
    Unknown,
    /// The check itself failed.
    Error,
    /// Only people can tell.
    Manual,
}

impl Status {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::NotApplicable => "notapplicable",
            Self::Unknown => "unknown",
            Self::Error => "error",
            Self::Manual => "manual",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A check's result. Built by its constructors, which ask for what each state owes: a reason, and evidence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    /// A sentence without its full stop.
    pub(crate) reason: String,
    pub(crate) evidence: Vec<Evidence>,
    /// Users, paths, units.
    pub(crate) subjects: Vec<String>,
    /// Where it differs from the rule's.
    pub(crate) severity: Option<Severity>,
}

impl Outcome {
    fn new(status: Status, reason: impl Into<String>, evidence: Vec<Evidence>) -> Self {
        Self { status, reason: reason.into(), evidence, subjects: Vec::new(), severity: None }
    }

    /// It holds. Nothing passes without evidence: what was looked for and is not there is evidence too.
    pub(crate) fn pass(reason: impl Into<String>, evidence: Vec<Evidence>) -> Self {
        if evidence.is_empty() {
            return Self::unknown("nothing was read that could decide it");
        }
        Self::new(Status::Pass, reason, evidence)
    }

    pub(crate) fn fail(reason: impl Into<String>, evidence: Vec<Evidence>) -> Self {
        Self::new(Status::Fail, reason, evidence)
    }

    pub(crate) fn warn(reason: impl Into<String>, evidence: Vec<Evidence>) -> Self {
        Self::new(Status::Warn, reason, evidence)
    }

    pub(crate) fn not_applicable(reason: impl Into<String>) -> Self {
        Self::new(Status::NotApplicable, reason, Vec::new())
    }

    /// `reason` names the evidence that is missing.
    pub(crate) fn unknown(reason: impl Into<String>) -> Self {
        Self::new(Status::Unknown, reason, Vec::new())
    }

    pub(crate) fn manual(reason: impl Into<String>, evidence: Vec<Evidence>) -> Self {
        Self::new(Status::Manual, reason, evidence)
    }

    /// [`Outcome::fail`] where `bad` has something, [`Outcome::pass`] where it is empty: the shape of every search.
    pub(crate) fn none_of(bad: Vec<Bad>, found: &str, clean: &str, looked_at: Vec<Evidence>) -> Self {
        if bad.is_empty() {
            return Self::pass(clean, looked_at);
        }
        let shown: Vec<_> = bad.iter().take(3).map(|one| one.subject.clone()).collect();
        let more = bad.len().saturating_sub(shown.len());
        let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
        let reason = format!("{found}: {}{rest}", shown.join(", "));
        let (subjects, evidence) = bad.into_iter().map(|one| (one.subject, one.evidence)).unzip();
        Self { subjects, ..Self::fail(reason, evidence) }
    }

    /// The same with what was found on the way.
    pub(crate) fn with_evidence(self, evidence: Vec<Evidence>) -> Self {
        Self { evidence, ..self }
    }

    pub(crate) fn with_severity(self, severity: Severity) -> Self {
        Self { severity: Some(severity), ..self }
    }

    pub(crate) fn with_subjects(self, subjects: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { subjects: subjects.into_iter().map(Into::into).collect(), ..self }
    }

    /// The same as a warning, where it fails.
    pub(crate) fn softened(self) -> Self {
        let status = if self.status == Status::Fail { Status::Warn } else { self.status };
        Self { status, ..self }
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone)]
pub(crate) struct Bad {
    /// A user, a path, a unit.
    pub(crate) subject: String,
    pub(crate) evidence: Evidence,
}

impl Bad {
    pub(crate) fn new(subject: impl Into<String>, evidence: Evidence) -> Self {
        Self { subject: subject.into(), evidence }
    }
}
