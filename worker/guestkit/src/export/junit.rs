//! The XML of JUnit, as Jenkins and GitLab read it: a suite for each system, a case for each check that is listed.

use crate::profile::report::{CheckResult, ProfileReport};

use super::listed;
use super::xml::Writer;

/// `report` as JUnit's XML.
pub(super) fn render(report: &ProfileReport) -> String {
    let results = listed(report);
    let roots = report.systems.iter().map(|system| system.root.as_str());
    let mut systems: Vec<&str> = roots.chain(results.iter().map(|result| result.system.as_str())).collect();
    systems.sort_unstable();
    systems.dedup();
    let mut writer = Writer::new();
    let total = Counts::of(results.iter());
    writer.element("testsuites", total.attributes("guestkit").iter().map(|(n, v)| (*n, v.as_str())), |writer| {
        for system in systems {
            let name = format!("{} {system}", report.image_path);
            let counts = Counts::of(results.iter().filter(|result| result.system == system));
            writer.element("testsuite", counts.attributes(&name).iter().map(|(n, v)| (*n, v.as_str())), |writer| {
                properties(writer, report, system);
                results.iter().filter(|result| result.system == system).for_each(|result| case(writer, result));
            });
        }
    });
    writer.finish()
}

/// How a case ends.
enum End {
    Passed,
    Failed,
    Error,
    Skipped,
}

fn end(result: &CheckResult) -> End {
    match result.status.as_str() {
        "pass" => End::Passed,
        "fail" | "warn" => End::Failed,
        "error" => End::Error,
        _ => End::Skipped,
    }
}

#[derive(Default)]
struct Counts {
    tests: usize,
    failures: usize,
    errors: usize,
    skipped: usize,
}

impl Counts {
    fn of<'r>(results: impl Iterator<Item = &'r CheckResult>) -> Self {
        let mut counts = Self::default();
        for result in results {
            counts.tests += 1;
            match end(result) {
                End::Passed => {}
                End::Failed => counts.failures += 1,
                End::Error => counts.errors += 1,
                End::Skipped => counts.skipped += 1,
            }
        }
        counts
    }

    fn attributes(&self, name: &str) -> [(&'static str, String); 5] {
        [
            ("name", name.to_owned()),
            ("tests", self.tests.to_string()),
            ("failures", self.failures.to_string()),
            ("errors", self.errors.to_string()),
            ("skipped", self.skipped.to_string()),
        ]
    }
}

fn properties(writer: &mut Writer, report: &ProfileReport, system: &str) {
    writer.element("properties", None, |writer| {
        let coverage = report.summary.coverage.map(|coverage| format!("{coverage:.3}")).unwrap_or_default();
        for (name, value) in [
            ("content_version", report.content_version.as_str()),
            ("reference_time", &report.reference_time),
            ("semantics", &report.semantics),
            ("profiles", &report.profiles.join(",")),
            ("coverage", &coverage),
            ("system", system),
        ] {
            writer.element("property", [("name", name), ("value", value)], |_| {});
        }
    });
}

fn case(writer: &mut Writer, result: &CheckResult) {
    let subject = result.id.split('.').next().unwrap_or_default();
    let name = format!("{}: {}", result.id, result.title);
    writer.element("testcase", [("classname", subject), ("name", name.as_str())], |writer| match end(result) {
        End::Passed => {}
        End::Failed => {
            let about = [("type", result.severity.as_str()), ("message", result.description.as_str())];
            writer.text("failure", about, &details(result));
        }
        End::Error => writer.text("error", [("message", result.description.as_str())], &details(result)),
        End::Skipped => {
            let why = match &result.waiver {
                Some(waiver) if result.status == "waived" => {
                    format!("waived until {} by {}: {}", waiver.expires, waiver.approver, waiver.justification)
                }
                _ => format!("{}: {}", result.status, result.description),
            };
            writer.element("skipped", [("message", why.as_str())], |_| {});
        }
    });
}

fn details(result: &CheckResult) -> String {
    let mut lines: Vec<String> = result
        .evidence
        .iter()
        .map(|evidence| {
            let line = evidence.line.map(|line| format!(":{line}")).unwrap_or_default();
            format!("{}{line}: {} = {} ({})", evidence.path, evidence.key, evidence.value, evidence.source)
        })
        .collect();
    lines.extend(result.remediation.clone());
    lines.extend(result.references.clone());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::profile_sample;
    use super::*;

    #[test]
    fn cases_fail_or_are_skipped_with_their_reason() {
        let text = render(&profile_sample());
        let suite =
            "<testsuite name=\"/vms/web1.qcow2 /dev/sda1\" tests=\"3\" failures=\"2\" errors=\"0\" skipped=\"1\">";
        for part in [
            suite,
            "<property name=\"content_version\" value=\"2026.11\"/>",
            "<testcase classname=\"ssh\" name=\"ssh.permit-root-login: Root &lt;cannot&gt; log in\">",
            "<failure type=\"critical\" message=\"PermitRootLogin is yes\">/etc/ssh/sshd config:3: PermitRootLogin = yes",
            "<skipped message=\"waived until 2027-01-31 by security: cloud image\"/>",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
