//! A worker's first words. They decide what it is given and what is shown of it, so nonsense is refused by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guestkit_domain::{BootId, WorkerId, WorkerProfile};

use crate::status::{FieldProblem, Reason, Refusal, problem};
use crate::v1;

/// `Hello.protocol_version` of this version.
pub const PROTOCOL_VERSION: u32 = 1;

/// Attempts at once: above any machine; keeps a peer from reserving the whole queue.
const SLOTS_MAX: u32 = 1024;
/// Operations, capabilities, features, labels or roots: an engine that reads everything announces about fifty.
const ENTRIES_MAX: usize = 256;
/// Leases held: running ones and outcomes that wait in the spool.
const HELD_MAX: usize = 4096;
/// Bytes of one path (PATH_MAX of Linux) or label.
const TEXT_BYTES_MAX: usize = 4096;

/// What the scheduler needs of a worker.
///
/// # Errors
/// `INVALID_ARGUMENT` with every field at fault.
pub fn profile(hello: &v1::Hello) -> Result<WorkerProfile, Refusal> {
    let mut problems = Vec::new();
    if hello.protocol_version != PROTOCOL_VERSION {
        let text = format!("must be {PROTOCOL_VERSION}, is {}", hello.protocol_version);
        problems.push(problem("hello.protocol_version", text));
    }
    if hello.held.len() > HELD_MAX {
        problems.push(problem("hello.held", format!("at most {HELD_MAX} leases, has {}", hello.held.len())));
    }
    let none = v1::WorkerDescription::default();
    let description = hello.description.as_ref().unwrap_or(&none);
    lists(description, &mut problems);
    if !(1..=SLOTS_MAX).contains(&description.slots) {
        problems.push(field("slots", format!("must be 1 to {SLOTS_MAX}, is {}", description.slots)));
    }

    let worker_id = checked(WorkerId::new(&hello.worker_id), "hello.worker_id", &mut problems);
    let boot_id = checked(BootId::new(&hello.boot_id), "hello.boot_id", &mut problems);
    let version = checked(semver::Version::parse(&description.version), "hello.description.version", &mut problems);
    let pool = if description.pool.is_empty() { "default" } else { &description.pool };
    checked(WorkerId::new(pool), "hello.description.pool", &mut problems);

    match (worker_id, boot_id, version) {
        (Some(worker_id), Some(boot_id), Some(version)) if problems.is_empty() => Ok(WorkerProfile {
            worker_id,
            boot_id,
            stream: hello.stream,
            capabilities: texts(description.operations.iter().chain(&description.capabilities)),
            features: texts(description.features.iter()),
            version,
            pool: pool.into(),
            labels: labels(description),
            slots: description.slots,
            privileged: description.privileged,
            image_roots: description.image_roots.iter().map(|root| root.as_str().into()).collect(),
        }),
        _ => Err(Refusal::of_fields(Reason::InvalidArgument, "the worker's hello", problems)),
    }
}

fn field(name: &str, description: String) -> FieldProblem {
    problem(&format!("hello.description.{name}"), description)
}

fn checked<T, E: ToString>(result: Result<T, E>, field: &str, problems: &mut Vec<FieldProblem>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            problems.push(problem(field, error.to_string()));
            None
        }
    }
}

fn lists(description: &v1::WorkerDescription, problems: &mut Vec<FieldProblem>) {
    let names = [
        ("operations", &description.operations),
        ("capabilities", &description.capabilities),
        ("features", &description.features),
    ];
    for (name, list) in names {
        counted(name, list.len(), problems);
        if let Some(error) = list.iter().take(ENTRIES_MAX).find_map(|text| WorkerId::new(text).err()) {
            problems.push(field(name, error.to_string()));
        }
    }
    for (name, roots) in [("image_roots", &description.image_roots), ("output_roots", &description.output_roots)] {
        counted(name, roots.len(), problems);
        if roots.iter().any(|root| !root.starts_with('/') || root.len() > TEXT_BYTES_MAX) {
            problems.push(field(name, format!("must be absolute paths of at most {TEXT_BYTES_MAX} bytes")));
        }
    }
    counted("labels", description.labels.len(), problems);
    if description.labels.iter().any(|(key, value)| key.is_empty() || key.len() + value.len() > TEXT_BYTES_MAX) {
        problems.push(field("labels", format!("keys must not be empty, entries have at most {TEXT_BYTES_MAX} bytes")));
    }
    if description.hostname.len() > 255 {
        problems.push(field("hostname", format!("at most 255 bytes, has {}", description.hostname.len())));
    }
}

fn counted(name: &str, count: usize, problems: &mut Vec<FieldProblem>) {
    if count > ENTRIES_MAX {
        problems.push(field(name, format!("at most {ENTRIES_MAX} entries, has {count}")));
    }
}

fn texts<'a>(list: impl Iterator<Item = &'a String>) -> BTreeSet<Arc<str>> {
    list.map(|text| text.as_str().into()).collect()
}

fn labels(description: &v1::WorkerDescription) -> BTreeMap<Arc<str>, Arc<str>> {
    description.labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> v1::Hello {
        v1::Hello {
            protocol_version: 1,
            worker_id: "w1".into(),
            boot_id: "b1".into(),
            description: Some(v1::WorkerDescription {
                version: "0.1.0".into(),
                operations: vec!["system.echo".into()],
                capabilities: vec!["disk.qcow2".into()],
                slots: 2,
                image_roots: vec!["/srv/images".into()],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[track_caller]
    fn check_refused(change: impl FnOnce(&mut v1::Hello, &mut v1::WorkerDescription), expected: &str) {
        let mut hello = hello();
        let mut description = hello.description.take().unwrap_or_default();
        change(&mut hello, &mut description);
        hello.description = Some(description);
        let refusal = profile(&hello).expect_err("nonsense");
        let fields: Vec<&str> = refusal.problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(fields, [expected]);
    }

    #[test]
    fn a_sound_hello_is_a_profile() {
        let profile = profile(&hello()).unwrap();
        assert_eq!(&*profile.pool, "default");
        assert!(profile.capabilities.contains("system.echo") && profile.capabilities.contains("disk.qcow2"));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        check_refused(|hello, _| hello.protocol_version = 2, "hello.protocol_version");
        check_refused(|hello, _| hello.worker_id = "../x".into(), "hello.worker_id");
        check_refused(|hello, _| hello.boot_id.clear(), "hello.boot_id");
        check_refused(|hello, _| hello.held = vec![v1::HeldLease::default(); 5000], "hello.held");
        check_refused(|_, d| d.slots = 0, "hello.description.slots");
        check_refused(|_, d| d.slots = u32::MAX, "hello.description.slots");
        check_refused(|_, d| d.version = "new".into(), "hello.description.version");
        check_refused(|_, d| d.pool = "a b".into(), "hello.description.pool");
        check_refused(|_, d| d.image_roots = vec!["images".into()], "hello.description.image_roots");
        check_refused(|_, d| d.capabilities = vec!["x".into(); 1000], "hello.description.capabilities");
        check_refused(|_, d| d.features = vec!["\n".into()], "hello.description.features");
        check_refused(|_, d| drop(d.labels.insert(String::new(), "x".into())), "hello.description.labels");
    }
}
