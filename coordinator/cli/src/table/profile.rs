//! What a profile found, for people: counts, then findings by severity. Everything else is in the other forms.

use guestkit::profile::diff::{Change, Difference};
use guestkit_protocol::v1;

use super::{Pairs, Sheet, Text, Tone, names};

/// Severities, the gravest first.
const SEVERITIES: [&str; 5] = ["critical", "high", "medium", "low", "info"];
/// Subjects shown of one finding before the rest is counted.
const SUBJECTS_MAX: usize = 4;
/// Warnings listed before the rest is counted.
const WARNINGS_MAX: usize = 20;

/// A report of profiles.
pub(crate) fn report(report: &v1::ProfileReport) -> Sheet {
    let several = report.systems.len() > 1;
    let mut sheet = Sheet::default().pairs(summary(report));
    sheet = standards(sheet, report);
    for severity in SEVERITIES {
        let is_open = |finding: &&v1::CheckResult| finding.severity == severity && finding.status != "waived";
        let open: Vec<_> = report.findings.iter().filter(is_open).collect();
        let title = format!("{} ({})", capitalised(severity), open.len());
        let rows = open.iter().map(|finding| row(finding, several, tone(severity))).collect();
        sheet = sheet.titled_grid(&title, header(several), rows);
    }
    let waived: Vec<_> = report.findings.iter().filter(|finding| finding.status == "waived").collect();
    sheet = sheet.lines(&format!("Waived ({})", waived.len()), waived.into_iter().map(waiver).collect());
    sheet = sheet.lines("What to do", to_do(report));
    sheet = migration(sheet, report);
    let checks = report.checks.iter().map(|check| {
        let cells = [Text::new(&check.id), state(check), Text::new(&check.severity), Text::new(&check.description)];
        with_system(cells, check, several)
    });
    let header: &[_] = if several {
        &["CHECK", "STATE", "SEVERITY", "REASON", "SYSTEM"]
    } else {
        &["CHECK", "STATE", "SEVERITY", "REASON"]
    };
    sheet = sheet.titled_grid(&format!("Every check ({})", report.checks.len()), header, checks.collect());
    let mut warnings: Vec<String> = report
        .warnings
        .iter()
        .take(WARNINGS_MAX)
        .map(|warning| format!("{}: {}: {}", warning.r#where, warning.what, warning.why))
        .collect();
    if report.warnings.len() > WARNINGS_MAX {
        warnings.push(format!("… and {} more (-o json lists them all)", report.warnings.len() - WARNINGS_MAX));
    }
    sheet.lines("Notes", report.notes.clone()).lines("Could not be read", warnings)
}

fn summary(report: &v1::ProfileReport) -> Pairs {
    let summary = report.summary.clone().unwrap_or_default();
    let counts = summary.by_severity.unwrap_or_default();
    let by_severity = [counts.critical, counts.high, counts.medium, counts.low, counts.info];
    let counted: Vec<String> = SEVERITIES
        .iter()
        .zip(by_severity)
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    let findings = match counted.as_slice() {
        [] => Text::new("none").tone(Tone::Good),
        counted => {
            let tone = if counts.critical > 0 { Tone::Bad } else { Tone::Notice };
            Text::new(format!("{}: {}", summary.total_findings, counted.join(", "))).tone(tone)
        }
    };
    let mut states: Vec<(&String, &u64)> = summary.by_status.iter().collect();
    states.sort();
    let states: Vec<String> = states.into_iter().map(|(state, count)| format!("{count} {state}")).collect();
    let systems: Vec<String> = report
        .systems
        .iter()
        .map(|system| {
            let os = system.operating_system.clone().unwrap_or_default();
            let name = os.product_name.or(os.distribution).unwrap_or(os.r#type);
            let host = os.hostname.map(|host| format!("{host}, ")).unwrap_or_default();
            format!("{host}{name} ({})", system.root)
        })
        .collect();
    Pairs::default()
        .put("Image", &report.image_path)
        .put("Systems", systems.join("; "))
        .put("Profiles", report.profiles.join(", "))
        .put("Standards", report.standards.join(", "))
        .put(
            "Judged",
            format!("as of {}, {}, checks {}", report.reference_time, report.semantics, report.content_version),
        )
        .put("Findings", findings)
        .put("Checks", format!("{}: {}", summary.checks, states.join(", ")))
        .put(
            "Coverage",
            summary
                .coverage
                .map(|share| format!("{:.0} % of the applicable checks decided", share * 100.0))
                .unwrap_or_default(),
        )
}

fn standards(sheet: Sheet, report: &v1::ProfileReport) -> Sheet {
    let summary = report.summary.clone().unwrap_or_default();
    let mut sums: Vec<_> = summary.by_standard.into_iter().collect();
    sums.sort_by(|a, b| a.0.cmp(&b.0));
    let rows = sums.into_iter().map(|(_, sum)| {
        let counts = [sum.applicable, sum.passed, sum.failed, sum.undecided, sum.waived];
        [Text::new(sum.title)].into_iter().chain(counts.map(Text::number)).collect()
    });
    let header = ["STANDARD", "APPLICABLE", "PASSED", "FAILED", "UNDECIDED", "WAIVED"];
    sheet.titled_grid("Evidence for standards", &header, rows.collect())
}

fn header(several: bool) -> &'static [&'static str] {
    if several { &["CHECK", "STATE", "FOUND", "WHERE", "SYSTEM"] } else { &["CHECK", "STATE", "FOUND", "WHERE"] }
}

fn row(finding: &v1::CheckResult, several: bool, tone: Tone) -> Vec<Text> {
    let place = finding.evidence.first().map(|evidence| match evidence.line {
        Some(line) => format!("{}:{line}", evidence.path),
        None => evidence.path.clone(),
    });
    let cells = [
        Text::new(&finding.id).tone(tone),
        Text::new(&finding.status),
        Text::new(&finding.description),
        Text::new(place.unwrap_or_default()),
    ];
    with_system(cells, finding, several)
}

fn with_system<const N: usize>(cells: [Text; N], of: &v1::CheckResult, several: bool) -> Vec<Text> {
    cells.into_iter().chain(several.then(|| Text::new(&of.system))).collect()
}

fn state(check: &v1::CheckResult) -> Text {
    let tone = match check.status.as_str() {
        "pass" => Tone::Good,
        "fail" => Tone::Bad,
        "notapplicable" => Tone::Faint,
        _ => Tone::Notice,
    };
    Text::new(&check.status).tone(tone)
}

fn tone(severity: &str) -> Tone {
    match severity {
        "critical" | "high" => Tone::Bad,
        "medium" => Tone::Notice,
        _ => Tone::Plain,
    }
}

fn waiver(finding: &v1::CheckResult) -> String {
    let waiver = finding.waiver.clone().unwrap_or_default();
    format!("{}: until {}, approved by {}: {}", finding.id, waiver.expires, waiver.approver, waiver.justification)
}

/// What to do about the gravest findings: those of a first afternoon.
fn to_do(report: &v1::ProfileReport) -> Vec<String> {
    let is_grave = |finding: &&v1::CheckResult| {
        matches!(finding.severity.as_str(), "critical" | "high") && finding.status != "waived"
    };
    let grave = report.findings.iter().filter(is_grave);
    grave.filter_map(|finding| Some(format!("{}: {}", finding.id, finding.remediation.as_ref()?))).collect()
}

fn migration(sheet: Sheet, report: &v1::ProfileReport) -> Sheet {
    let rows = report.migration.iter().map(|one| {
        let tone = match one.state.as_str() {
            "ready" => Tone::Good,
            "not-ready" => Tone::Bad,
            _ => Tone::Notice,
        };
        let changes: Vec<_> = one.required_changes.iter().map(|change| change.id.as_str()).collect();
        vec![
            Text::new(&one.target),
            Text::new(&one.system),
            Text::new(&one.state).tone(tone),
            Text::new(names(&one.blockers, SUBJECTS_MAX)),
            Text::new(names(&one.unknowns, SUBJECTS_MAX)),
            Text::new(names(&changes, SUBJECTS_MAX)),
        ]
    });
    let header = ["TARGET", "SYSTEM", "STATE", "BLOCKERS", "UNKNOWN", "CHANGES"];
    sheet.titled_grid("Readiness for migration", &header, rows.collect())
}

/// Two reports compared; what has not changed is counted.
pub(crate) fn difference(difference: &Difference) -> Sheet {
    let counts = difference.summary;
    let side = |side: &guestkit::profile::diff::Side| {
        format!("{}, as of {}, checks {}", side.image_path, side.reference_time, side.content_version)
    };
    let pairs = Pairs::default().put("Before", side(&difference.before)).put("After", side(&difference.after)).put(
        "Findings",
        format!(
            "{} new, {} changed, {} unchanged, {} fixed",
            counts.new, counts.changed, counts.unchanged, counts.fixed
        ),
    );
    let mut sheet = Sheet::default().pairs(pairs);
    for (change, title) in [(Change::New, "New"), (Change::Changed, "Changed"), (Change::Fixed, "Fixed")] {
        let rows = difference.findings.iter().filter(|entry| entry.change == change).map(|entry| {
            let told = |verdict: &Option<guestkit::profile::diff::Verdict>| {
                verdict.as_ref().map(|one| format!("{}: {}", one.status, one.description)).unwrap_or_default()
            };
            vec![
                Text::new(&entry.id).tone(if change == Change::Fixed { Tone::Good } else { tone(entry.severity()) }),
                Text::new(entry.severity()),
                Text::new(&entry.system),
                Text::new(told(&entry.before)),
                Text::new(told(&entry.after)),
            ]
        });
        sheet = sheet.titled_grid(title, &["CHECK", "SEVERITY", "SYSTEM", "BEFORE", "AFTER"], rows.collect());
    }
    sheet
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Layout;

    fn finding(id: &str, severity: &str, status: &str) -> v1::CheckResult {
        v1::CheckResult {
            id: id.into(),
            system: "/dev/sda1".into(),
            severity: severity.into(),
            status: status.into(),
            description: format!("{id} is as it is"),
            remediation: Some("Change it.".into()),
            evidence: vec![v1::Evidence { path: "/etc/x".into(), line: Some(3), ..Default::default() }],
            ..Default::default()
        }
    }

    #[test]
    fn findings_are_grouped_by_severity() {
        let waived = v1::CheckResult {
            waiver: Some(v1::Waiver {
                approver: "security".into(),
                expires: "2027-01-31".into(),
                ..Default::default()
            }),
            ..finding("a.waived", "critical", "waived")
        };
        let counts = v1::SeverityCounts { critical: 1, low: 1, ..Default::default() };
        let report = v1::ProfileReport {
            image_path: "/vms/web1.qcow2".into(),
            findings: vec![finding("a.worst", "critical", "fail"), waived, finding("a.least", "low", "warn")],
            checks: vec![finding("a.fine", "low", "pass")],
            summary: Some(v1::ProfileSummary {
                total_findings: 2,
                by_severity: Some(counts),
                checks: 4,
                coverage: Some(0.75),
                ..Default::default()
            }),
            ..Default::default()
        };
        let shown = super::report(&report).render(Layout::default());
        for line in [
            "Findings  2: 1 critical, 1 low",
            "Coverage  75 % of the applicable checks decided",
            "Critical (1)",
            "a.worst  fail   a.worst is as it is  /etc/x:3",
            "Low (1)",
            "Waived (1)",
            "  a.waived: until 2027-01-31, approved by security: ",
            "  a.worst: Change it.",
            "a.fine  pass   low       a.fine is as it is",
        ] {
            assert!(shown.lines().any(|shown| shown.trim_end() == line.trim_end()), "{line:?} is not in\n{shown}");
        }
        assert!(!shown.contains("Medium") && !shown.contains("Readiness"), "{shown}");
    }
}
