//! Comma-separated values (RFC 4180): a row for each check that is listed. A cell that a spreadsheet would take for a formula
//! is a text all the same: a guest must not compute in its auditor's office.

use crate::profile::report::{CheckResult, ProfileReport};

use super::listed;

const HEADER: [&str; 22] = [
    "content_version",
    "image",
    "system",
    "check",
    "severity",
    "status",
    "title",
    "description",
    "remediation",
    "profiles",
    "references",
    "path",
    "line",
    "key",
    "value",
    "source",
    "evidence_count",
    "subjects",
    "fingerprint",
    "waiver_justification",
    "waiver_approver",
    "waiver_expires",
];

/// `report` as a table.
pub(super) fn render(report: &ProfileReport) -> String {
    let mut text = String::new();
    push(&mut text, &HEADER.map(str::to_owned));
    for result in listed(report) {
        push(&mut text, &row(report, result));
    }
    text
}

fn row(report: &ProfileReport, result: &CheckResult) -> [String; 22] {
    let evidence = result.evidence.first().cloned().unwrap_or_default();
    let waiver = result.waiver.clone().unwrap_or_default();
    [
        report.content_version.clone(),
        report.image_path.clone(),
        result.system.clone(),
        result.id.clone(),
        result.severity.clone(),
        result.status.clone(),
        result.title.clone(),
        result.description.clone(),
        result.remediation.clone().unwrap_or_default(),
        result.profiles.join("; "),
        result.references.join("; "),
        evidence.path,
        evidence.line.map(|line| line.to_string()).unwrap_or_default(),
        evidence.key,
        evidence.value,
        evidence.source,
        result.evidence_count.to_string(),
        result.subjects.join("; "),
        result.fingerprint.clone(),
        waiver.justification,
        waiver.approver,
        waiver.expires,
    ]
}

fn push(text: &mut String, cells: &[String]) {
    for (at, value) in cells.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        cell(text, value);
    }
    text.push_str("\r\n");
}

/// One cell. Source of the guard: OWASP, "CSV Injection".
fn cell(text: &mut String, value: &str) {
    let is_formula = value.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let guard = if is_formula { "'" } else { "" };
    if is_formula || value.contains([',', '"', '\r', '\n', ';']) {
        text.push('"');
        text.push_str(guard);
        text.push_str(&value.replace('"', "\"\""));
        text.push('"');
    } else {
        text.push_str(value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::profile_sample;
    use super::*;

    #[test]
    fn cells_are_quoted_and_never_formulas() {
        let check = |value: &str, written: &str| {
            let mut text = String::new();
            cell(&mut text, value);
            assert_eq!(text, written);
        };
        check("plain", "plain");
        check("a,b", "\"a,b\"");
        check("say \"no\"", "\"say \"\"no\"\"\"");
        check("two\nlines", "\"two\nlines\"");
        check("=cmd|' /C calc'!A0", "\"'=cmd|' /C calc'!A0\"");
        for start in ["+1", "-1", "@SUM(A1)", "\tx", "\rx"] {
            check(start, &format!("\"'{start}\""));
        }
    }

    #[test]
    fn every_row_has_every_column() {
        let text = render(&profile_sample());
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(lines.first().map(|header| header.split(',').count()), Some(HEADER.len()));
        assert!(lines.iter().skip(1).all(|line| line.starts_with("2026.11,/vms/web1.qcow2,/dev/sda1,")), "{text}");
    }
}
