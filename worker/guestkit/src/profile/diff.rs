//! What has changed between two reports of profiles: findings by their fingerprints.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Severity;
use super::report::{CheckResult, Evidence, ProfileReport};

/// What became of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was not there.
    New,
    /// It is there, with another state, severity or evidence.
    Changed,
    /// It is there as it was.
    Unchanged,
    /// It is gone.
    Fixed,
}

/// Two reports compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The earlier one.
    pub before: Side,
    /// The later one.
    pub after: Side,
    /// How many findings of each kind.
    pub summary: Counts,
    /// Each finding of either; new ones first, then by severity.
    pub findings: Vec<Entry>,
}

/// Which report it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Side {
    /// Its image.
    pub image_path: String,
    /// Its checks' content.
    pub content_version: String,
    /// Its reference time.
    pub reference_time: String,
}

/// Findings by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Not there before.
    pub new: u64,
    /// Gone.
    pub fixed: u64,
    /// As they were.
    pub unchanged: u64,
    /// With another state, severity or evidence.
    pub changed: u64,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What became of it.
    pub change: Change,
    /// Check.
    pub id: String,
    /// Device of the root file system of its system.
    pub system: String,
    /// Title.
    pub title: String,
    /// Of the check and its system.
    pub fingerprint: String,
    /// How it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Verdict>,
    /// How it is; also of one that is gone, where the later report lists every check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Verdict>,
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// State.
    pub status: String,
    /// Severity.
    pub severity: String,
    /// Reason.
    pub description: String,
}

impl Entry {
    /// The severity that counts: the later one's, or what it was.
    #[must_use]
    pub fn severity(&self) -> &str {
        self.after.as_ref().or(self.before.as_ref()).map_or("", |verdict| &verdict.severity)
    }
}

/// Compares two reports.
///
/// # Errors
/// Why they cannot be compared: they were not judged by the same checks. Not where it is `forced`.
pub fn compare(before: &ProfileReport, after: &ProfileReport, forced: bool) -> Result<Difference, String> {
    if !forced {
        comparable(before, after)?;
    }
    let found = |report: &'_ ProfileReport| -> BTreeMap<String, CheckResult> {
        report.findings.iter().map(|finding| (finding.fingerprint.clone(), finding.clone())).collect()
    };
    let (old, new) = (found(before), found(after));
    let judged: BTreeMap<&str, &CheckResult> =
        after.checks.iter().map(|check| (check.fingerprint.as_str(), check)).collect();
    let mut findings = Vec::new();
    for (fingerprint, finding) in &new {
        let was = old.get(fingerprint);
        let change = match was {
            None => Change::New,
            Some(was) if is_same(was, finding) => Change::Unchanged,
            Some(_) => Change::Changed,
        };
        findings.push(entry(change, finding, was, Some(finding)));
    }
    for (fingerprint, finding) in old.iter().filter(|(fingerprint, _)| !new.contains_key(*fingerprint)) {
        let now = judged.get(fingerprint.as_str()).copied();
        // What can no longer be told was not fixed.
        let is_gone = now.is_none_or(|now| matches!(now.status.as_str(), "pass" | "notapplicable"));
        let change = if is_gone { Change::Fixed } else { Change::Changed };
        findings.push(entry(change, finding, Some(finding), now));
    }
    let rank = |entry: &Entry| (entry.change, std::cmp::Reverse(Severity::from_name(entry.severity())));
    findings.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| (&a.id, &a.system).cmp(&(&b.id, &b.system))));
    let mut summary = Counts::default();
    for entry in &findings {
        let count = match entry.change {
            Change::New => &mut summary.new,
            Change::Fixed => &mut summary.fixed,
            Change::Unchanged => &mut summary.unchanged,
            Change::Changed => &mut summary.changed,
        };
        *count = count.saturating_add(1);
    }
    Ok(Difference { before: side(before), after: side(after), summary, findings })
}

fn comparable(before: &ProfileReport, after: &ProfileReport) -> Result<(), String> {
    let differs = |what: &str, a: &str, b: &str| Err(format!("they differ in {what}: {a:?} and {b:?}"));
    if before.content_version != after.content_version {
        return differs("the version of the checks", &before.content_version, &after.content_version);
    }
    if before.semantics != after.semantics {
        return differs("semantics", &before.semantics, &after.semantics);
    }
    for (what, a, b) in
        [("profiles", &before.profiles, &after.profiles), ("standards", &before.standards, &after.standards)]
    {
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            names
        };
        if sorted(a) != sorted(b) {
            return differs(what, &a.join(", "), &b.join(", "));
        }
    }
    Ok(())
}

fn side(report: &ProfileReport) -> Side {
    Side {
        image_path: report.image_path.clone(),
        content_version: report.content_version.clone(),
        reference_time: report.reference_time.clone(),
    }
}

fn entry(change: Change, of: &CheckResult, before: Option<&CheckResult>, after: Option<&CheckResult>) -> Entry {
    let verdict = |of: &CheckResult| Verdict {
        status: of.status.clone(),
        severity: of.severity.clone(),
        description: of.description.clone(),
    };
    Entry {
        change,
        id: of.id.clone(),
        system: of.system.clone(),
        title: of.title.clone(),
        fingerprint: of.fingerprint.clone(),
        before: before.map(verdict),
        after: after.map(verdict),
    }
}

/// Whether two results say the same, wherever in a file it stands.
fn is_same(a: &CheckResult, b: &CheckResult) -> bool {
    let told = |of: &CheckResult| (of.status.clone(), of.severity.clone(), of.subjects.clone(), of.evidence_count);
    told(a) == told(b)
        && a.evidence.len() == b.evidence.len()
        && a.evidence.iter().zip(&b.evidence).all(|(a, b)| is_same_evidence(a, b))
}

fn is_same_evidence(a: &Evidence, b: &Evidence) -> bool {
    (&a.path, &a.key, &a.value, &a.source) == (&b.path, &b.key, &b.value, &b.source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(id: &str, severity: &str, value: &str, line: usize) -> CheckResult {
        CheckResult {
            id: id.to_owned(),
            severity: severity.to_owned(),
            status: "fail".to_owned(),
            fingerprint: format!("of {id}"),
            evidence: vec![Evidence::explicit("/etc/x", "key", value).at_line(line)],
            evidence_count: 1,
            ..CheckResult::default()
        }
    }

    fn report(findings: Vec<CheckResult>) -> ProfileReport {
        ProfileReport { content_version: "1".to_owned(), findings, ..ProfileReport::default() }
    }

    #[test]
    fn findings_are_told_apart_by_what_became_of_them() {
        let before = report(vec![
            finding("a.gone", "low", "1", 1),
            finding("a.moved", "low", "1", 1),
            finding("a.other", "low", "1", 1),
            finding("a.unclear", "high", "1", 1),
        ]);
        let mut after = report(vec![
            finding("a.moved", "low", "1", 7),
            finding("a.other", "low", "2", 1),
            finding("a.new-low", "low", "1", 1),
            finding("a.new-high", "high", "1", 1),
        ]);
        after.checks = vec![
            CheckResult { status: "unknown".to_owned(), ..finding("a.unclear", "high", "1", 1) },
            CheckResult { status: "pass".to_owned(), ..finding("a.gone", "low", "1", 1) },
        ];
        let difference = compare(&before, &after, false).unwrap();
        let told: Vec<_> = difference.findings.iter().map(|entry| (entry.change, entry.id.as_str())).collect();
        let expected = [
            (Change::New, "a.new-high"),
            (Change::New, "a.new-low"),
            (Change::Changed, "a.unclear"),
            (Change::Changed, "a.other"),
            (Change::Unchanged, "a.moved"),
            (Change::Fixed, "a.gone"),
        ];
        assert_eq!(told, expected);
        assert_eq!(difference.summary, Counts { new: 2, fixed: 1, unchanged: 1, changed: 2 });
        let gone = difference.findings.last().unwrap();
        assert_eq!(gone.after.as_ref().map(|verdict| verdict.status.as_str()), Some("pass"));
    }

    #[test]
    fn what_was_judged_otherwise_is_not_compared_unless_forced() {
        let before = report(vec![finding("a.b", "low", "1", 1)]);
        for (other, word) in [
            (ProfileReport { content_version: "2".to_owned(), ..before.clone() }, "version of the checks"),
            (ProfileReport { semantics: "explicit".to_owned(), ..before.clone() }, "semantics"),
            (ProfileReport { profiles: vec!["security".to_owned()], ..before.clone() }, "profiles"),
        ] {
            assert!(compare(&before, &other, false).unwrap_err().contains(word), "{word}");
            assert_eq!(compare(&before, &other, true).unwrap().summary.unchanged, 1);
        }
    }
}
