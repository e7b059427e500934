//! SARIF 2.1.0 (OASIS, "Static Analysis Results Interchange Format"), as code scanning and its viewers take it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::profile::report::{CheckResult, Evidence, ProfileReport};

use super::listed;

/// What paths in a guest are relative to.
const GUEST: &str = "GUEST";

/// `report` as SARIF.
pub(super) fn render(report: &ProfileReport) -> String {
    let results = listed(report);
    let mut rules: BTreeMap<&str, &CheckResult> = BTreeMap::new();
    for result in results {
        // The severest result of a check tells how severe the check can be.
        let severer = |known: &&CheckResult| severity(&result.severity).0 > severity(&known.severity).0;
        if rules.get(result.id.as_str()).is_none_or(severer) {
            rules.insert(&result.id, result);
        }
    }
    let index: BTreeMap<&str, usize> = rules.keys().enumerate().map(|(at, id)| (*id, at)).collect();
    let document = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "guestkit",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.values().map(|result| rule(result)).collect::<Vec<_>>(),
                "properties": { "content_version": report.content_version },
            }},
            "invocations": [{
                "executionSuccessful": true,
                "toolExecutionNotifications": report.warnings.iter().map(|warning| json!({
                    "level": "warning",
                    "message": { "text": format!("{}: {}: {}", warning.r#where, warning.what, warning.why) },
                })).collect::<Vec<_>>(),
            }],
            "originalUriBaseIds": { GUEST: { "description": { "text": "the root directory of the guest" } } },
            "columnKind": "unicodeCodePoints",
            "results": results.iter().map(|result| told(result, &index)).collect::<Vec<_>>(),
            "properties": {
                "image": report.image_path,
                "content_version": report.content_version,
                "reference_time": report.reference_time,
                "semantics": report.semantics,
                "profiles": report.profiles,
                "standards": report.standards,
                "summary": report.summary,
                "notes": report.notes,
            },
        }],
    });
    format!("{document:#}\n")
}

/// A severity's rank, its level, and the number that GitHub sorts by ("security-severity").
fn severity(name: &str) -> (u8, &'static str, &'static str) {
    match name {
        "critical" => (4, "error", "9.5"),
        "high" => (3, "error", "8.0"),
        "medium" => (2, "warning", "5.5"),
        "low" => (1, "note", "3.0"),
        _ => (0, "note", "0.5"),
    }
}

fn rule(result: &CheckResult) -> Value {
    let (_, level, number) = severity(&result.severity);
    let mut tags: Vec<&str> = vec!["security"];
    tags.extend(result.profiles.iter().map(String::as_str).filter(|profile| *profile != "security"));
    let mut rule = json!({
        "id": result.id,
        "shortDescription": { "text": result.title },
        "defaultConfiguration": { "level": level },
        "properties": { "security-severity": number, "tags": tags, "references": result.references },
    });
    if let (Value::Object(members), Some(remediation)) = (&mut rule, &result.remediation) {
        members.insert("help".to_owned(), json!({ "text": remediation }));
    }
    rule
}

fn told(result: &CheckResult, index: &BTreeMap<&str, usize>) -> Value {
    let (kind, level) = match result.status.as_str() {
        "fail" | "warn" | "waived" => ("fail", severity(&result.severity).1),
        "pass" => ("pass", "none"),
        "notapplicable" => ("notApplicable", "none"),
        "manual" => ("review", "none"),
        // What could not be decided is open, never passed.
        _ => ("open", "none"),
    };
    let text = if result.description.is_empty() { &result.title } else { &result.description };
    let mut told: Map<String, Value> = Map::new();
    let mut put = |name: &str, value: Value| told.insert(name.to_owned(), value);
    put("ruleId", json!(result.id));
    if let Some(at) = index.get(result.id.as_str()) {
        put("ruleIndex", json!(at));
    }
    put("kind", json!(kind));
    put("level", json!(level));
    put("message", json!({ "text": text }));
    put("locations", json!([location(result.evidence.first(), result)]));
    // No two may be the same (section 3.27.22).
    let mut related: Vec<Value> = Vec::new();
    for one in result.evidence.iter().skip(1).map(|evidence| location(Some(evidence), result)) {
        if !related.contains(&one) {
            related.push(one);
        }
    }
    if !related.is_empty() {
        put("relatedLocations", Value::Array(related));
    }
    put("partialFingerprints", json!({ "guestkit/v1": result.fingerprint }));
    let waiver = result.waiver.as_ref().filter(|_| result.status == "waived");
    if let Some(waiver) = waiver {
        let who = json!({ "approver": waiver.approver, "expires": waiver.expires });
        let suppression = json!({
            "kind": "external", "status": "accepted", "justification": waiver.justification, "properties": who,
        });
        put("suppressions", json!([suppression]));
    }
    put(
        "properties",
        json!({
            "severity": result.severity,
            "status": result.status,
            "system": result.system,
            "subjects": result.subjects,
            "references": result.references,
        }),
    );
    Value::Object(told)
}

/// Where a piece of evidence is: a file of the guest, or what else on the disk.
fn location(evidence: Option<&Evidence>, result: &CheckResult) -> Value {
    let Some(evidence) = evidence else {
        return json!({ "logicalLocations": [{ "fullyQualifiedName": format!("system {}", result.system) }] });
    };
    let text = match (evidence.key.as_str(), evidence.value.as_str()) {
        ("", value) => value.to_owned(),
        (key, "") => key.to_owned(),
        (key, value) => format!("{key} = {value}"),
    };
    let mut location = match evidence.path.strip_prefix('/') {
        Some(path) => {
            let mut place = json!({ "artifactLocation": { "uri": uri(path), "uriBaseId": GUEST } });
            let line = evidence.line.filter(|line| *line > 0);
            if let (Value::Object(members), Some(line)) = (&mut place, line) {
                members.insert("region".to_owned(), json!({ "startLine": line }));
            }
            json!({ "physicalLocation": place })
        }
        None => json!({ "logicalLocations": [{ "fullyQualifiedName": evidence.path }] }),
    };
    if let Value::Object(members) = &mut location
        && !text.is_empty()
    {
        members.insert("message".to_owned(), json!({ "text": text }));
    }
    location
}

/// A path as a relative reference (RFC 3986, section 3.3). The root itself is `.`, which is no other's name.
fn uri(path: &str) -> String {
    if path.is_empty() {
        return "./".to_owned();
    }
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=@".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    // A second slash at the front would name a host.
    if uri.starts_with('/') { format!(".{uri}") } else { uri }
}

#[cfg(test)]
mod tests {
    use super::super::profile_sample;
    use super::*;

    fn run(report: &ProfileReport) -> Value {
        let document: Value = serde_json::from_str(&render(report)).unwrap();
        document.pointer("/runs/0").cloned().unwrap()
    }

    fn at<'v>(value: &'v Value, pointer: &str) -> &'v Value {
        value.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not in {value:#}"))
    }

    #[test]
    fn findings_have_their_rule_level_and_place() {
        let run = run(&profile_sample());
        let result = at(&run, "/results/0");
        assert_eq!(at(result, "/ruleId"), "ssh.permit-root-login");
        assert_eq!((at(result, "/kind"), at(result, "/level")), (&json!("fail"), &json!("error")));
        let place = at(result, "/locations/0/physicalLocation");
        assert_eq!(at(place, "/artifactLocation"), &json!({"uri": "etc/ssh/sshd%20config", "uriBaseId": "GUEST"}));
        assert_eq!(at(place, "/region/startLine"), 3);
        assert_eq!(at(result, "/partialFingerprints/guestkit~1v1"), "f1");
        let index = at(result, "/ruleIndex").as_u64().unwrap();
        assert_eq!(at(&run, &format!("/tool/driver/rules/{index}/properties/security-severity")), "9.5");
        assert_eq!(at(&run, "/properties/content_version"), "2026.11");

        let waived = at(&run, "/results/1/suppressions/0");
        assert_eq!((at(waived, "/kind"), at(waived, "/justification")), (&json!("external"), &json!("cloud image")));
        assert_eq!(at(&run, "/results/2/locations/0/logicalLocations/0/fullyQualifiedName"), "package database");
    }

    #[test]
    fn what_did_not_fail_has_its_kind_and_no_level() {
        let mut report = profile_sample();
        let states = ["pass", "notapplicable", "unknown", "manual", "error"];
        let of = |status: &str| CheckResult { status: status.to_owned(), ..report.findings[0].clone() };
        report.checks = states.map(of).to_vec();
        let run = run(&report);
        let kinds: Vec<_> = (0..5).map(|index| at(&run, &format!("/results/{index}/kind")).as_str().unwrap()).collect();
        assert_eq!(kinds, ["pass", "notApplicable", "open", "review", "open"]);
        assert!((0..5).all(|index| at(&run, &format!("/results/{index}/level")) == "none"));
    }

    #[test]
    fn paths_are_relative_references() {
        assert_eq!(uri("etc/a b#c?%/\u{e9}"), "etc/a%20b%23c%3F%25/%C3%A9");
        assert_eq!((uri("/etc"), uri(""), uri("a:b")), ("./etc".to_owned(), "./".to_owned(), "a%3Ab".to_owned()));
    }
}
