//! What single fields may hold: one table, read by the check of documents and by the JSON Schema made of them, so that the
//! two cannot disagree. Rules that need two fields, a clock or a transport are in the parent module.

use guestkit_domain::{JobId, Namespace, WorkerId};
use prost_reflect::{DynamicMessage, Kind, ReflectMessage as _, Value};

use super::path::Path;
use super::problems::Problems;
use super::walk;

/// What a field may hold when it is given.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// A number between the two, both included.
    Range { min: f64, max: f64 },
    /// One of these words.
    Words(&'static [&'static str]),
    /// A text of at most so many bytes without control characters.
    Text { bytes_max: usize },
    /// A text that matches; the pattern is for the schema, the function decides and explains.
    Grammar { pattern: &'static str, check: fn(&str) -> Result<(), String> },
    /// A list of at most so many texts that each match.
    List { entries_max: usize, pattern: &'static str, check: fn(&str) -> Result<(), String> },
    /// A list of these words, each once.
    Choice(&'static [&'static str]),
    /// A map of texts within these bounds.
    Map { entries_max: usize, key_bytes_max: usize, value_bytes_max: usize },
}

const NAME: &str = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$";
/// A sixty-four-entry map of labels or list of capabilities is already more than anyone reads.
const ENTRIES_MAX: usize = 64;
const LABELS: Rule = Rule::Map { entries_max: ENTRIES_MAX, key_bytes_max: 63, value_bytes_max: 256 };
const NAMES: Rule = Rule::List { entries_max: ENTRIES_MAX, pattern: NAME, check: name };
const WORDS_256: Rule = Rule::Text { bytes_max: 256 };
const PATTERN: Rule = Rule::Text { bytes_max: 4096 };
const INSTANT: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}";
/// As Linux bounds a path (PATH_MAX).
const PATH: Rule = Rule::Grammar { pattern: "^[^\\u0000]{1,4096}$", check: path };

/// The table, by full name of the field.
const RULES: &[(&str, Rule)] = &[
    ("JobDocument.version", Rule::Grammar { pattern: "^1\\.[0-9]{1,4}$", check: version }),
    ("JobDocument.job_id", Rule::Grammar { pattern: "^[A-Za-z0-9_-][A-Za-z0-9._-]{7,127}$", check: job_id }),
    ("JobDocument.kind", Rule::Words(&["VMOperation"])),
    ("JobDocument.operation", Rule::Grammar { pattern: OPERATION, check: operation }),
    ("JobMetadata.name", WORDS_256),
    ("JobMetadata.namespace", Rule::Grammar { pattern: "^[a-z0-9-]{1,63}$", check: namespace }),
    ("JobMetadata.labels", LABELS),
    ("JobMetadata.annotations", Rule::Map { entries_max: ENTRIES_MAX, key_bytes_max: 256, value_bytes_max: 4096 }),
    ("Execution.idempotency_key", WORDS_256),
    ("Execution.attempt", Rule::Range { min: 1.0, max: 2_147_483_647.0 }),
    ("Execution.max_attempts", Rule::Range { min: 1.0, max: 100.0 }),
    ("Execution.timeout_seconds", Rule::Range { min: 1.0, max: 604_800.0 }),
    ("Execution.priority", Rule::Range { min: 1.0, max: 10.0 }),
    ("Execution.concurrency_key", WORDS_256),
    ("Execution.queue_timeout_seconds", Rule::Range { min: 1.0, max: 604_800.0 }),
    ("Execution.idempotency_policy", Rule::Words(&["use_existing", "fail", "replace_queued"])),
    ("Execution.idempotency_ttl_seconds", Rule::Range { min: 0.0, max: 31_536_000.0 }),
    ("RetryBackoff.initial_seconds", Rule::Range { min: 0.0, max: 86_400.0 }),
    ("RetryBackoff.max_seconds", Rule::Range { min: 0.0, max: 86_400.0 }),
    ("RetryBackoff.multiplier", Rule::Range { min: 1.0, max: 10.0 }),
    ("Constraints.required_capabilities", NAMES),
    ("Constraints.required_features", NAMES),
    (
        "Constraints.minimum_worker_version",
        Rule::Grammar { pattern: "^[0-9]+\\.[0-9]+\\.[0-9]+", check: semantic_version },
    ),
    ("Constraints.maximum_disk_size_gb", Rule::Range { min: 1.0, max: 2_147_483_647.0 }),
    ("Constraints.allowed_worker_pools", NAMES),
    ("Routing.worker_id", Rule::Grammar { pattern: NAME, check: worker_id }),
    ("Routing.worker_pool", Rule::Grammar { pattern: NAME, check: name }),
    ("Routing.affinity", LABELS),
    ("Payload.type", Rule::Grammar { pattern: PAYLOAD_TYPE, check: payload_type }),
    ("Observability.trace_id", Rule::Grammar { pattern: "^[0-9a-f]{32}$", check: trace_id }),
    ("Observability.span_id", Rule::Grammar { pattern: "^[0-9a-f]{16}$", check: span_id }),
    ("Observability.parent_span_id", Rule::Grammar { pattern: "^[0-9a-f]{16}$", check: span_id }),
    ("Observability.correlation_id", WORDS_256),
    ("Audit.submitted_by", WORDS_256),
    ("Audit.submitted_from", WORDS_256),
    ("Authorization.method", WORDS_256),
    ("Authorization.subject", WORDS_256),
    ("ImageRef.path", PATH),
    ("ImageRef.paths", Rule::List { entries_max: 63, pattern: "^[^\\u0000]{1,4096}$", check: listed_path }),
    ("KeyRef.volume", WORDS_256),
    ("KeyRef.file", Rule::Grammar { pattern: "^[^/\\u0000][^\\u0000]{0,4095}$", check: key_file }),
    ("ImageRef.format", Rule::Words(&["auto", "raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "ova"])),
    ("ImageRef.checksum", Rule::Grammar { pattern: "^(sha256:)?[0-9A-Fa-f]{64}$", check: checksum }),
    (
        "OutputSpec.format",
        Rule::Words(&["json", "yaml", "virt-inspector", "cyclonedx", "spdx", "html", "sarif", "junit", "csv"]),
    ),
    ("OutputSpec.destination", PATH),
    ("OutputSpec.compression", Rule::Words(&["none", "gzip", "zstd"])),
    ("EchoPayload.duration_seconds", Rule::Range { min: 0.0, max: 3600.0 }),
    ("EchoPayload.fail_with", Rule::Words(&["failed", "crash"])),
    ("ProfilePayload.profiles", Rule::Choice(&["security", "compliance", "hardening", "performance", "migration"])),
    ("ProfileOptions.severity_threshold", Rule::Words(&["info", "low", "medium", "high", "critical"])),
    ("ProfileOptions.standards", Rule::Choice(&["cis", "cis-level1", "pci-dss", "hipaa", "nist-800-53"])),
    (
        "ProfileOptions.target",
        Rule::Words(&["kvm", "kubevirt", "proxmox", "openstack", "hyperv", "aws", "azure", "gcp"]),
    ),
    ("ProfileOptions.reference_time", Rule::Grammar { pattern: INSTANT, check: instant }),
    ("ProfileOptions.semantics", Rule::Words(&["effective", "explicit"])),
    ("ProfileWaiver.id", Rule::Grammar { pattern: "^[a-z0-9-]+(\\.[a-z0-9-]+)+$", check: check_id }),
    ("ProfileWaiver.justification", Rule::Text { bytes_max: 1024 }),
    ("ProfileWaiver.approver", WORDS_256),
    ("ProfileWaiver.expires", Rule::Grammar { pattern: "^[0-9]{4}-[0-9]{2}-[0-9]{2}$", check: day }),
    ("WaiverScope.image", PATTERN),
    ("WaiverScope.system", PATTERN),
    ("WaiverScope.path", PATTERN),
];

/// Fields that must be given.
const REQUIRED: &[&str] = &[
    "JobDocument.version",
    "JobDocument.kind",
    "JobDocument.operation",
    "JobDocument.payload",
    "Payload.type",
    "ImageRef.path",
    "KeyRef.file",
    "InspectPayload.image",
    "ProfilePayload.image",
    "ProfileWaiver.id",
    "ProfileWaiver.justification",
    "ProfileWaiver.approver",
    "ProfileWaiver.expires",
];

/// Entries that a list of messages may have.
fn entries_max(full_name: &str) -> usize {
    // A site's exceptions, not one person's list.
    if full_name == "guestkit.v1.ProfileOptions.waivers" { 1000 } else { ENTRIES_MAX }
}

const OPERATION: &str = "^[a-z][a-z0-9_-]*(\\.[a-z0-9_-]+)+$";
const PAYLOAD_TYPE: &str = "^[a-z][a-z0-9_-]*(\\.[a-z0-9_-]+)+\\.v[1-9][0-9]{0,4}$";

/// The rule of a field, by its full name such as `guestkit.v1.JobDocument.version`.
pub(super) fn rule(full_name: &str) -> Option<Rule> {
    let name = full_name.strip_prefix("guestkit.v1.")?;
    RULES.iter().find(|(field, _)| *field == name).map(|(_, rule)| *rule)
}

/// Whether a field must be given.
pub(super) fn required(full_name: &str) -> bool {
    full_name.strip_prefix("guestkit.v1.").is_some_and(|name| REQUIRED.contains(&name))
}

/// Applies the table to every field of `message` and of the messages in it.
pub(super) fn apply(message: &DynamicMessage, path: &Path<'_>, problems: &mut Problems) {
    for field in message.descriptor().fields() {
        let here = path.member(field.name());
        if !message.has_field(&field) {
            if required(field.full_name()) {
                problems.add(&here, "required");
            }
            continue;
        }
        let value = message.get_field(&field);
        if let Some(rule) = rule(field.full_name()) {
            check(rule, &value, &here, problems);
        }
        if let (Kind::Message(inner), Value::Message(inside)) = (field.kind(), value.as_ref())
            && !inner.full_name().starts_with("google.")
        {
            apply(inside, &here, problems);
        }
        if let (Kind::Message(inner), Value::List(entries)) = (field.kind(), value.as_ref())
            && !inner.full_name().starts_with("google.")
        {
            let most = entries_max(field.full_name());
            if entries.len() > most {
                problems.add(&here, format!("at most {most} entries, has {}", entries.len()));
                continue;
            }
            for (index, entry) in entries.iter().enumerate() {
                if let Value::Message(inside) = entry {
                    apply(inside, &here.element(index), problems);
                }
            }
        }
    }
}

fn check(rule: Rule, value: &Value, path: &Path<'_>, problems: &mut Problems) {
    match (rule, value) {
        (Rule::Range { min, max }, value) => {
            let number = value.as_f64().or_else(|| value.as_i32().map(f64::from));
            if !number.is_some_and(|number| (min..=max).contains(&number)) {
                let found = number.map_or_else(|| "something else".to_owned(), |number| number.to_string());
                problems.add(path, format!("must be {min} to {max}, is {found}"));
            }
        }
        (Rule::Words(words), Value::String(text)) => one_of(words, text, path, problems),
        (Rule::Text { bytes_max }, Value::String(text)) => report(line(text, bytes_max), path, problems),
        (Rule::Grammar { check, .. }, Value::String(text)) => report(check(text), path, problems),
        (Rule::List { entries_max, check, .. }, Value::List(entries)) => {
            if entries.len() > entries_max {
                problems.add(path, format!("at most {entries_max} entries, has {}", entries.len()));
                return;
            }
            for (index, entry) in entries.iter().enumerate() {
                report(check(entry.as_str().unwrap_or_default()), &path.element(index), problems);
            }
        }
        (Rule::Choice(words), Value::List(entries)) => {
            for (index, entry) in entries.iter().enumerate() {
                let text = entry.as_str().unwrap_or_default();
                let here = path.element(index);
                one_of(words, text, &here, problems);
                if entries.iter().take(index).any(|earlier| earlier == entry) {
                    problems.add(&here, format!("{text} is there twice"));
                }
                if problems.is_full() {
                    return;
                }
            }
        }
        (Rule::Map { entries_max, key_bytes_max, value_bytes_max }, Value::Map(entries)) => {
            if entries.len() > entries_max {
                problems.add(path, format!("at most {entries_max} entries, has {}", entries.len()));
                return;
            }
            for (key, value) in entries {
                let key = key.as_str().unwrap_or_default();
                let here = path.member(key);
                report(label_key(key, key_bytes_max), &here, problems);
                report(longest(value.as_str().unwrap_or_default(), value_bytes_max), &here, problems);
            }
        }
        _ => {}
    }
}

fn report(result: Result<(), String>, path: &Path<'_>, problems: &mut Problems) {
    if let Err(description) = result {
        problems.add(path, description);
    }
}

fn one_of(words: &[&str], text: &str, path: &Path<'_>, problems: &mut Problems) {
    if words.contains(&text) {
        return;
    }
    let listed = words.join(", ");
    let must = if words.len() == 1 { "must be" } else { "must be one of" };
    let near = walk::nearest(text, words.iter().copied()).map(|near| format!("; did you mean {near}?"));
    let found = crate::status::shortened(text, 80);
    problems.add(path, format!("{must} {listed}, is {found:?}{}", near.unwrap_or_default()));
}

fn longest(text: &str, bytes_max: usize) -> Result<(), String> {
    if text.len() > bytes_max {
        return Err(format!("at most {bytes_max} bytes, has {}", text.len()));
    }
    if text.contains('\0') {
        return Err("must not contain NUL".to_owned());
    }
    Ok(())
}

fn line(text: &str, bytes_max: usize) -> Result<(), String> {
    longest(text, bytes_max)?;
    match text.chars().find(|c| c.is_control()) {
        // They would forge lines of the log.
        Some(found) => Err(format!("must not contain control characters, has {found:?}")),
        None => Ok(()),
    }
}

pub(super) fn label_key(key: &str, bytes_max: usize) -> Result<(), String> {
    if key.is_empty() {
        return Err("a key must not be empty".to_owned());
    }
    line(key, bytes_max).map_err(|problem| format!("its key: {problem}"))
}

pub(super) fn label_value(value: &str) -> Result<(), String> {
    longest(value, 256)
}

fn version(text: &str) -> Result<(), String> {
    let (major, minor) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |part: &str| (1..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(major) || !is_number(minor) {
        return Err(format!("must be \"1.0\", is {:?}", crate::status::shortened(text, 80)));
    }
    if major != "1" {
        return Err(format!("version {text} of the job protocol is not understood here; this speaks 1.0"));
    }
    Ok(())
}

fn job_id(text: &str) -> Result<(), String> {
    JobId::new(text).map(|_| ()).map_err(|error| error.to_string())
}

fn worker_id(text: &str) -> Result<(), String> {
    WorkerId::new(text).map(|_| ()).map_err(|error| error.to_string())
}

/// Names of capabilities, features and pools have the grammar of worker names.
fn name(text: &str) -> Result<(), String> {
    worker_id(text)
}

fn namespace(text: &str) -> Result<(), String> {
    Namespace::new(text).map(|_| ()).map_err(|error| error.to_string())
}

fn operation(text: &str) -> Result<(), String> {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
    };
    let starts = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if text.len() <= 128 && starts && text.contains('.') && text.split('.').all(is_part) {
        return Ok(());
    }
    Err(format!(
        "must be <tool>.<op> in lower case such as guestkit.inspect, is {:?}",
        crate::status::shortened(text, 80)
    ))
}

fn payload_type(text: &str) -> Result<(), String> {
    match split_payload_type(text) {
        Some(_) => Ok(()),
        None => Err(format!(
            "must be <operation>.v<N> such as guestkit.inspect.v1, is {:?}",
            crate::status::shortened(text, 80)
        )),
    }
}

/// The operation and the version of a payload type.
pub(super) fn split_payload_type(text: &str) -> Option<(&str, u32)> {
    let (operation_name, number) = text.rsplit_once(".v")?;
    operation(operation_name).ok()?;
    let number = number.parse().ok().filter(|n: &u32| n.to_string() == number && (1..=99_999).contains(n))?;
    Some((operation_name, number))
}

fn semantic_version(text: &str) -> Result<(), String> {
    match semver::Version::parse(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "must be a semantic version such as 1.2.0, is {:?} ({error})",
            crate::status::shortened(text, 80)
        )),
    }
}

fn hex(text: &str, digits: usize) -> Result<(), String> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != digits || !text.bytes().all(is_digit) {
        return Err(format!("must be {digits} lower-case hex digits, is {:?}", crate::status::shortened(text, 80)));
    }
    // W3C Trace Context, sections 3.2.2.3 and 3.2.2.4.
    if text.bytes().all(|byte| byte == b'0') {
        return Err("must not be all zeros".to_owned());
    }
    Ok(())
}

fn trace_id(text: &str) -> Result<(), String> {
    hex(text, 32)
}

fn span_id(text: &str) -> Result<(), String> {
    hex(text, 16)
}

fn path(text: &str) -> Result<(), String> {
    longest(text, 4096)
}

fn listed_path(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    path(text)
}

/// Beneath the keys root by its name alone; the worker resolves links and looks again.
fn key_file(text: &str) -> Result<(), String> {
    path(text)?;
    if text.starts_with('/') || text.split('/').any(|name| name == "..") {
        return Err("must be a relative path without \"..\", beneath the worker's keys root".to_owned());
    }
    Ok(())
}

fn instant(text: &str) -> Result<(), String> {
    let read = text.parse::<jiff::Timestamp>().ok().filter(|_| text.contains(['T', 't']));
    read.map(|_| ()).ok_or_else(|| {
        let text = crate::status::shortened(text, 80);
        format!("must be a time such as \"2026-01-31T08:15:00Z\" (RFC 3339), is {text:?}")
    })
}

fn day(text: &str) -> Result<(), String> {
    let read = text.parse::<jiff::civil::Date>().ok().filter(|_| text.len() == 10);
    read.map(|_| ())
        .ok_or_else(|| format!("must be a day such as \"2027-01-31\", is {:?}", crate::status::shortened(text, 80)))
}

fn check_id(text: &str) -> Result<(), String> {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    if text.len() <= 128 && text.contains('.') && text.split('.').all(is_part) {
        return Ok(());
    }
    Err(format!("must be a check such as ssh.permit-root-login, is {:?}", crate::status::shortened(text, 80)))
}

fn checksum(text: &str) -> Result<(), String> {
    let digits = match text.split_once(':') {
        Some(("sha256", digits)) => digits,
        Some((algorithm, _)) => {
            let algorithm = crate::status::shortened(algorithm, 20);
            return Err(format!("{algorithm} is not known; must be \"sha256:\" and 64 hex digits"));
        }
        None => text,
    };
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(format!("must be \"sha256:\" and 64 hex digits, has {} characters after the algorithm", digits.chars().count()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost_reflect::MessageDescriptor;

    use super::*;
    use crate::document::descriptor;

    /// Fields of scalar kind that may hold anything of their type, each with its reason.
    const FREE: &[&str] = &[
        "JobDocument.schema",                 // Ignored.
        "Execution.cancellable",              // Either.
        "Constraints.require_privileged",     // Either.
        "EchoPayload.message",                // Returned as it is.
        "ImageRef.size_bytes",                // Compared with the file.
        "ImageRef.read_only",                 // Each operation decides.
        "InspectOptions.deep_scan",           // Either.
        "InspectOptions.include_packages",    // Either.
        "InspectOptions.include_services",    // Either.
        "InspectOptions.include_users",       // Either.
        "InspectOptions.include_network",     // Either.
        "InspectOptions.include_security",    // Either.
        "InspectOptions.include_storage",     // Either.
        "InspectOptions.include_databases",   // Either.
        "ProfileOptions.fail_on_critical",    // Either.
        "ProfileOptions.include_remediation", // Either.
        "ProfileOptions.all",                 // Either.
        "Routing.anti_affinity",              // Checked with the other rules of two fields.
    ];

    fn fields(message: &MessageDescriptor, names: &mut BTreeSet<String>) {
        for field in message.fields() {
            match field.kind() {
                Kind::Message(inner) if !field.is_map() => {
                    if inner.full_name().starts_with("guestkit.") {
                        fields(&inner, names);
                    }
                }
                _ => {
                    names.insert(field.full_name().trim_start_matches("guestkit.v1.").to_owned());
                }
            }
        }
    }

    #[test]
    fn every_field_has_a_rule_or_a_reason_to_have_none() {
        let mut names = BTreeSet::new();
        for message in ["JobDocument", "EchoPayload", "InspectPayload", "ProfilePayload"] {
            fields(&descriptor(&format!("guestkit.v1.{message}")), &mut names);
        }
        let ruled: BTreeSet<String> =
            RULES.iter().map(|(name, _)| *name).chain(FREE.iter().copied()).map(str::to_owned).collect();
        assert_eq!(names, ruled);
    }
}
