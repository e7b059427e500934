//! The report of profiles as one page of HTML: counts, findings by severity, every check where it was asked for.

use crate::profile::Severity;
use crate::profile::report::{CheckResult, ProfileReport, Readiness};

use super::file_name;
use super::page::Page;

/// `report` as a page.
pub(super) fn render(report: &ProfileReport) -> String {
    let title = format!("Profile of {}", file_name(&report.image_path));
    let below = format!(
        "guestkit {}, checks {}, judged as of {}",
        env!("CARGO_PKG_VERSION"),
        report.content_version,
        report.reference_time
    );
    let mut page = Page::new(&title, &below);
    summary(&mut page, report);
    standards(&mut page, report);
    findings(&mut page, report);
    if !report.migration.is_empty() {
        readiness(&mut page, &report.migration);
    }
    if !report.checks.is_empty() {
        page.tag("h2", "Every check");
        let rows = report.checks.iter().map(|check| {
            vec![
                check.id.clone(),
                check.status.clone(),
                check.severity.clone(),
                check.system.clone(),
                check.description.clone(),
            ]
        });
        page.folded(
            &format!("{} checks", report.checks.len()),
            &["Check", "State", "Severity", "System", "Reason"],
            rows,
        );
    }
    if !report.warnings.is_empty() {
        page.tag("h2", "What could not be read");
        page.raw("<div class=\"warnings\">\n");
        let rows = report.warnings.iter();
        let rows = rows.map(|warning| vec![warning.r#where.clone(), warning.what.clone(), warning.why.clone()]);
        page.grid(&["Where", "What", "Why"], rows);
        page.raw("</div>\n");
    }
    page.finish()
}

fn summary(page: &mut Page, report: &ProfileReport) {
    let summary = &report.summary;
    let counts = summary.by_severity;
    let states: Vec<_> = summary.by_status.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let systems: Vec<_> = report
        .systems
        .iter()
        .map(|system| {
            let os = &system.operating_system;
            let name = os.product_name.as_deref().or(os.distribution.as_deref()).unwrap_or(&os.r#type);
            let host = os.hostname.as_deref().map(|host| format!("{host}, ")).unwrap_or_default();
            format!("{host}{name} on {}", system.root)
        })
        .collect();
    page.pairs(&[
        ("Image", Some(report.image_path.clone())),
        ("Systems", Some(systems.join("; "))),
        ("Profiles", Some(report.profiles.join(", "))),
        ("Standards", Some(report.standards.join(", "))),
        ("Semantics", Some(report.semantics.clone())),
        (
            "Findings",
            Some(format!(
                "{}: {} critical, {} high, {} medium, {} low, {} info",
                summary.total_findings, counts.critical, counts.high, counts.medium, counts.low, counts.info
            )),
        ),
        ("Checks", Some(format!("{}: {}", summary.checks, states.join(", ")))),
        (
            "Coverage",
            summary.coverage.map(|coverage| format!("{:.0} % of the applicable checks were decided", coverage * 100.0)),
        ),
    ]);
    for note in &report.notes {
        page.raw("<p class=\"faint\">");
        page.escaped(note);
        page.raw("</p>\n");
    }
}

fn standards(page: &mut Page, report: &ProfileReport) {
    if report.summary.by_standard.is_empty() {
        return;
    }
    page.tag("h2", "Evidence for standards");
    let rows = report.summary.by_standard.values().map(|sum| {
        let counts = [sum.applicable, sum.passed, sum.failed, sum.undecided, sum.waived];
        [sum.title.clone()].into_iter().chain(counts.map(|count| count.to_string())).collect()
    });
    page.grid(&["Standard", "Applicable", "Passed", "Failed", "Undecided", "Waived"], rows);
}

fn findings(page: &mut Page, report: &ProfileReport) {
    page.tag("h2", "Findings");
    if report.findings.is_empty() {
        page.raw("<p>None.</p>\n");
    }
    for severity in Severity::ALL.into_iter().rev() {
        let is_open = |finding: &&CheckResult| finding.severity == severity.name() && finding.status != "waived";
        let open: Vec<_> = report.findings.iter().filter(is_open).collect();
        if open.is_empty() {
            continue;
        }
        page.tag("h3", &format!("{} ({})", capitalised(severity.name()), open.len()));
        open.into_iter().for_each(|finding| one(page, finding));
    }
    let waived: Vec<_> = report.findings.iter().filter(|finding| finding.status == "waived").collect();
    if !waived.is_empty() {
        page.tag("h3", &format!("Waived ({})", waived.len()));
        waived.into_iter().for_each(|finding| one(page, finding));
    }
}

fn one(page: &mut Page, finding: &CheckResult) {
    page.raw("<details>");
    page.tag("summary", &format!("{}: {} ({})", finding.id, finding.title, finding.system));
    let waiver = finding.waiver.as_ref().map(|waiver| {
        let state = if waiver.expired { "expired" } else { "until" };
        format!("{state} {}, approved by {}: {}", waiver.expires, waiver.approver, waiver.justification)
    });
    page.pairs(&[
        ("State", Some(format!("{}, {}", finding.status, finding.severity))),
        ("Found", Some(finding.description.clone())),
        ("To do", finding.remediation.clone()),
        ("Concerns", Some(finding.subjects.join(", "))),
        ("Evidence for", Some(finding.references.join("; "))),
        ("Waiver", waiver),
    ]);
    if !finding.evidence.is_empty() {
        let rows = finding.evidence.iter().map(|evidence| {
            let line = evidence.line.map(|line| format!(":{line}")).unwrap_or_default();
            vec![
                format!("{}{line}", evidence.path),
                evidence.key.clone(),
                evidence.value.clone(),
                evidence.source.clone(),
            ]
        });
        page.grid(&["Where", "Key", "Value", "Source"], rows);
        let hidden = finding.evidence_count.saturating_sub(finding.evidence.len() as u64);
        if hidden > 0 {
            page.tag("p", &format!("and {hidden} more"));
        }
    }
    page.raw("</details>\n");
}

fn readiness(page: &mut Page, all: &[Readiness]) {
    page.tag("h2", "Readiness for migration");
    let rows = all.iter().map(|one| {
        let changes: Vec<_> =
            one.required_changes.iter().map(|change| format!("{} ({})", change.title, change.how)).collect();
        vec![
            one.target.clone(),
            one.system.clone(),
            one.state.clone(),
            one.blockers.join(", "),
            one.unknowns.join(", "),
            changes.join("; "),
        ]
    });
    page.grid(&["Target", "System", "State", "Blockers", "Unknown", "Changes"], rows);
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::super::profile_sample;
    use super::*;

    #[test]
    fn findings_are_told_by_severity_and_nothing_is_markup() {
        let page = render(&profile_sample());
        let at = |part: &str| page.find(part).unwrap_or_else(|| panic!("{part} is not in\n{page}"));
        assert!(at("Critical (1)") < at("Low (1)") && at("Low (1)") < at("Waived (1)"));
        assert!(page.contains("Root &lt;cannot&gt; log in") && !page.contains("<cannot>"), "{page}");
        at("checks 2026.11");
        at("approved by security: cloud image");
        at("PCI DSS 4.0.1");
        assert!(!page.contains("<script") && !page.contains("://"), "{page}");
    }
}
