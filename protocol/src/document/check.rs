//! Whether a document may be run, and what the scheduler needs of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path as FilePath, PathBuf};
use std::sync::Arc;

use guestkit_domain::{
    Backoff, Duration, IdempotencyPolicy, JobId, JobSpec, Namespace, Placement, Priority, Time, WorkerId,
};
use prost_types::{Struct, Value as Wire, value::Kind as WireKind};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::operation::{self, Operation};
use super::path::Path;
use super::problems::Problems;
use super::walk::Unknown;
use super::{
    DOCUMENT_BYTES_MAX, descriptor, dynamic, dynamic_from_json, invalid, read, rules, to_json, too_large, walk,
};
use crate::convert::{from_struct, time};
use crate::status::{Reason, Refusal};
use crate::v1;

/// Levels that free data may nest: what is left of a document's, below `payload` and the document itself.
const DATA_DEPTH_MAX: usize = read::DEPTH_MAX - 2;

/// How a document came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A file on the worker's own machine. `job_id` is required. A relative path of an image or an output is meant from the
    /// folder that the worker was started in, as for any program.
    Folder,
    /// Run by the process that read it. As in a folder, but a `job_id` is minted where there is none.
    Local,
    /// From another machine: paths must be absolute and without `..`, because placement compares them as texts.
    Network,
    /// With a lease. As from another machine, but `deadline` is not looked at: only the coordinator's clock decides.
    Leased,
}

/// A document that may be run.
#[derive(Debug, Clone)]
pub struct CheckedJob {
    /// The document, with `job_id`, `created_at` and `metadata.namespace` filled in.
    pub document: v1::JobDocument,
    /// What the scheduler decides with. `fingerprint` is of the document as it was submitted.
    pub spec: JobSpec,
    /// What it asks for.
    pub operation: Operation,
}

/// Checks every rule of the job protocol, and fills in what may be absent.
///
/// # Errors
/// `TOO_LARGE`, `INVALID_DOCUMENT` with every problem found, or `UNSUPPORTED_OPERATION` when nothing else is wrong.
pub fn check(document: v1::JobDocument, source: Source, now: Time) -> Result<CheckedJob, Refusal> {
    let bytes = prost::Message::encoded_len(&document);
    if bytes > DOCUMENT_BYTES_MAX {
        return Err(too_large(bytes));
    }
    let mut problems = Problems::default();
    let found = rules(&document, &mut problems);
    in_context(&document, &found, source, now, &mut problems);
    if !problems.is_empty() {
        return Err(invalid(problems));
    }
    let operation = match found.operation {
        Asked::Operation(operation) => operation,
        Asked::Unsupported(message) => return Err(Refusal::new(Reason::UnsupportedOperation, message)),
    };

    let fingerprint = fingerprint(&document);
    let document = filled(document, now);
    let spec = spec(&document, &operation, found.paths.image.as_deref(), fingerprint, now)?;
    Ok(CheckedJob { document, spec, operation })
}

/// What the rules found besides problems.
pub(super) struct Found {
    operation: Asked,
    paths: Paths,
}

/// The paths on the worker that a payload names.
#[derive(Debug, Default)]
struct Paths {
    image: Option<String>,
    further_images: Vec<String>,
    destination: Option<String>,
}

enum Asked {
    Operation(Operation),
    Unsupported(String),
}

/// Every rule that needs no clock and no transport.
pub(super) fn rules(document: &v1::JobDocument, problems: &mut Problems) -> Found {
    match dynamic(document) {
        Some(message) => rules::apply(&message, &Path::ROOT, problems),
        None => problems.add(&Path::ROOT, "nested too deep"),
    }
    times(document, problems);
    execution(document, problems);
    routing(document, problems);
    observability(document, problems);
    let operation = asked(document, problems);
    Found { operation, paths: data(document, problems) }
}

fn times(document: &v1::JobDocument, problems: &mut Problems) {
    let execution = document.execution.as_ref();
    let given = [
        ("created_at", document.created_at.as_ref()),
        ("execution.deadline", execution.and_then(|e| e.deadline.as_ref())),
        ("execution.not_before", execution.and_then(|e| e.not_before.as_ref())),
    ];
    for (field, instant) in given {
        if instant.is_some_and(|instant| time::from_wire(instant).is_none()) {
            problems.add_at(field, "is outside of the calendar (years 1 to 9999)");
        }
    }
}

fn execution(document: &v1::JobDocument, problems: &mut Problems) {
    let Some(execution) = &document.execution else { return };
    let deadline = execution.deadline.as_ref().and_then(time::from_wire);
    let not_before = execution.not_before.as_ref().and_then(time::from_wire);
    if let (Some(deadline), Some(not_before)) = (deadline, not_before)
        && deadline <= not_before
    {
        problems.add_at("execution.deadline", "must be later than execution.not_before");
    }
    if execution.idempotency_key.is_empty() {
        for (field, given) in only_with_key(execution) {
            if given {
                problems.add_at(field, "has no effect without execution.idempotency_key");
            }
        }
    }
    if let Some(backoff) = &execution.retry_backoff {
        let defaults = Backoff::default();
        let initial = backoff.initial_seconds.unwrap_or(defaults.initial.as_secs_f64());
        let max = backoff.max_seconds.unwrap_or(defaults.max.as_secs_f64());
        if initial > max {
            let text = format!("must be at least initial_seconds ({initial}), is {max}");
            problems.add_at("execution.retry_backoff.max_seconds", text);
        }
    }
}

/// What means something only beside an idempotency key, and whether it is given.
fn only_with_key(execution: &v1::Execution) -> [(&'static str, bool); 2] {
    [
        ("execution.idempotency_policy", !execution.idempotency_policy.is_empty()),
        ("execution.idempotency_ttl_seconds", execution.idempotency_ttl_seconds.is_some()),
    ]
}

fn routing(document: &v1::JobDocument, problems: &mut Problems) {
    let Some(routing) = &document.routing else { return };
    if let Some(constraints) = &document.constraints
        && !routing.worker_pool.is_empty()
        && !constraints.allowed_worker_pools.is_empty()
        && !constraints.allowed_worker_pools.contains(&routing.worker_pool)
    {
        problems.add_at(
            "routing.worker_pool",
            "is not one of constraints.allowed_worker_pools: no worker could run the job",
        );
    }
    let root = Path::ROOT.member("routing");
    let path = root.member("anti_affinity");
    // As many as for affinity.
    if routing.anti_affinity.len() > 64 {
        problems.add(&path, format!("at most 64 entries, has {}", routing.anti_affinity.len()));
        return;
    }
    for (key, list) in &routing.anti_affinity {
        let here = path.member(key);
        if let Err(problem) = rules::label_key(key, 63) {
            problems.add(&here, problem);
        }
        if list.values.is_empty() || list.values.len() > 64 {
            problems.add(&here, format!("must have 1 to 64 texts, has {}", list.values.len()));
        }
        for (index, value) in list.values.iter().enumerate().take(64) {
            match &value.kind {
                Some(WireKind::StringValue(text)) => {
                    if let Err(problem) = rules::label_value(text) {
                        problems.add(&here.element(index), problem);
                    }
                }
                _ => problems.add(&here.element(index), "must be a text"),
            }
        }
    }
}

fn observability(document: &v1::JobDocument, problems: &mut Problems) {
    let Some(ids) = &document.observability else { return };
    if ids.trace_id.is_empty() && !(ids.span_id.is_empty() && ids.parent_span_id.is_empty()) {
        problems.add_at("observability.trace_id", "required where a span is given: a span id alone joins nothing");
    }
}

fn asked(document: &v1::JobDocument, problems: &mut Problems) -> Asked {
    let name = document.operation.as_str();
    let payload_type = document.payload.as_ref().map_or("", |payload| payload.r#type.as_str());
    if let Some((of_type, _)) = rules::split_payload_type(payload_type)
        && !name.is_empty()
        && of_type != name
    {
        let text = format!("is for {of_type}, but operation is {}", crate::status::shortened(name, 128));
        problems.add_at("payload.type", text);
    }
    match operation::by_name(name) {
        Some(known) if payload_type == known.payload_type => Asked::Operation(Operation::Known(known)),
        Some(known) => Asked::Unsupported(format!(
            "payload.type {payload_type:?} is not known here; {} takes {}",
            known.name, known.payload_type
        )),
        None if operation::is_ours(name) => {
            let known: Vec<&str> = operation::operations().iter().map(|known| known.name).collect();
            Asked::Unsupported(format!(
                "operation {name:?} is not supported by this version; it knows {}",
                known.join(", ")
            ))
        }
        None => Asked::Operation(Operation::Foreign(name.into())),
    }
}

/// Checks `payload.data`; gives the paths in it.
fn data(document: &v1::JobDocument, problems: &mut Problems) -> Paths {
    let Some(payload) = &document.payload else { return Paths::default() };
    let root = Path::ROOT.member("payload");
    let path = root.member("data");
    let empty = Struct::default();
    let data = payload.data.as_ref().unwrap_or(&empty);
    if !carried_exactly(data, &path, problems) {
        return Paths::default();
    }
    let Some(known) = operation::of_payload_type(&payload.r#type) else { return Paths::default() };

    let value = from_struct(data);
    let unknown = if known.open { Unknown::Dropped } else { Unknown::Refused };
    let message_type = descriptor(known.payload_message);
    refuse_empty_checksum(&value, &path, problems);
    refuse_empty_scope(&value, &path, problems);
    let clean = walk::message(&message_type, value, unknown, &path, problems).unwrap_or_default();
    let message = dynamic_from_json(&message_type, clean, problems);
    rules::apply(&message, &path, problems);
    let (image, output) = match known.payload_message {
        "guestkit.v1.InspectPayload" => {
            let Ok(asked) = message.transcode_to::<v1::InspectPayload>() else { return Paths::default() };
            (asked.image, asked.output)
        }
        "guestkit.v1.ProfilePayload" => {
            let Ok(asked) = message.transcode_to::<v1::ProfilePayload>() else { return Paths::default() };
            profile_rules(&asked, &path, problems);
            (asked.image, asked.output)
        }
        _ => return Paths::default(),
    };
    let image = image.unwrap_or_default();
    reading_rules(known.name, &image, output.as_ref(), &path, problems);
    let given = |path: String| Some(path).filter(|path| !path.is_empty());
    Paths {
        image: given(image.path),
        further_images: image.paths,
        destination: output.and_then(|output| given(output.destination)),
    }
}

/// Forms of reports that an operation has besides JSON and YAML.
fn forms(operation: &str) -> &'static [&'static str] {
    match operation {
        "guestkit.inspect" => &["virt-inspector", "cyclonedx", "spdx", "html"],
        "guestkit.profile" => &["sarif", "html", "junit", "csv"],
        _ => &[],
    }
}

/// The rules of every operation that reads an image and writes a report.
fn reading_rules(
    operation: &str,
    image: &v1::ImageRef,
    output: Option<&v1::OutputSpec>,
    path: &Path<'_>,
    problems: &mut Problems,
) {
    if image.read_only == Some(false) {
        let text = format!("{operation} only reads; leave it out or set it to true");
        problems.add(&path.member("image").member("read_only"), text);
    }
    let Some(output) = output else { return };
    let output_path = path.member("output");
    let format = output.format.as_str();
    let own = forms(operation);
    if !matches!(format, "" | "json" | "yaml") && !own.contains(&format) {
        let text = format!("the report of {operation} has no form {format}; it has json, yaml, {}", own.join(", "));
        problems.add(&output_path.member("format"), text);
    }
    if output.destination.is_empty() {
        let nothing_written = "has no effect without destination: nothing is written";
        if !matches!(format, "" | "json") {
            problems.add(&output_path.member("format"), nothing_written);
        }
        if !matches!(output.compression.as_str(), "" | "none") {
            problems.add(&output_path.member("compression"), nothing_written);
        }
    }
}

fn profile_rules(payload: &v1::ProfilePayload, path: &Path<'_>, problems: &mut Problems) {
    let Some(options) = &payload.options else { return };
    if !options.target.is_empty() && !payload.profiles.iter().any(|profile| profile == "migration") {
        let text = "has no effect without the migration profile";
        problems.add(&path.member("options").member("target"), text);
    }
}

/// An empty checksum is a script's unset variable: the image would go unverified, and nobody would know.
fn refuse_empty_checksum(data: &Value, path: &Path<'_>, problems: &mut Problems) {
    for image in ["image", "baseline", "target", "source"] {
        if data.pointer(&format!("/{image}/checksum")).and_then(Value::as_str) == Some("") {
            let text = "is empty; give \"sha256:\" and 64 hex digits, or leave it out";
            problems.add(&path.member(image).member("checksum"), text);
        }
    }
}

/// An empty pattern would make an exception hold everywhere.
fn refuse_empty_scope(data: &Value, path: &Path<'_>, problems: &mut Problems) {
    let waivers = data.pointer("/options/waivers").and_then(Value::as_array);
    let options = path.member("options");
    let list = options.member("waivers");
    for (index, waiver) in waivers.into_iter().flatten().enumerate() {
        for member in ["image", "system", "path"] {
            if waiver.pointer(&format!("/scope/{member}")).and_then(Value::as_str) == Some("") {
                let text = "is empty; give a pattern, or leave it out";
                problems.add(&list.element(index).member("scope").member(member), text);
            }
        }
    }
}

/// Whether free data that came as protobuf could have come as JSON.
fn carried_exactly(data: &Struct, path: &Path<'_>, problems: &mut Problems) -> bool {
    data.fields.iter().fold(true, |sound, (name, value)| wire_value(value, &path.member(name), 2, problems) && sound)
}

fn wire_value(value: &Wire, path: &Path<'_>, depth: usize, problems: &mut Problems) -> bool {
    let deep = |problems: &mut Problems| {
        problems.add(path, format!("nested deeper than {DATA_DEPTH_MAX} levels"));
        false
    };
    match &value.kind {
        Some(WireKind::StructValue(_) | WireKind::ListValue(_)) if depth > DATA_DEPTH_MAX => deep(problems),
        Some(WireKind::StructValue(inner)) => inner
            .fields
            .iter()
            .fold(true, |sound, (name, value)| wire_value(value, &path.member(name), depth + 1, problems) && sound),
        Some(WireKind::ListValue(inner)) => {
            inner.values.iter().enumerate().fold(true, |sound, (index, value)| {
                wire_value(value, &path.element(index), depth + 1, problems) && sound
            })
        }
        Some(WireKind::NumberValue(number)) if !number.is_finite() => {
            problems.add(path, format!("must be a number, is {number}"));
            false
        }
        None => {
            problems.add(path, "has no value");
            false
        }
        Some(_) => true,
    }
}

fn in_context(document: &v1::JobDocument, found: &Found, source: Source, now: Time, problems: &mut Problems) {
    if source == Source::Folder && document.job_id.is_empty() {
        problems.add_at("job_id", "required in a folder: it names the files of the job");
    }
    if let (Source::Folder | Source::Local, Some(execution)) = (source, &document.execution) {
        let queued = ("execution.queue_timeout_seconds", execution.queue_timeout_seconds.is_some());
        for (field, given) in only_with_key(execution).into_iter().chain([queued]) {
            if given {
                problems.add_at(field, "is obeyed by a coordinator only; submit the job to one, or leave it out");
            }
        }
    }
    let deadline = document.execution.as_ref().and_then(|execution| execution.deadline.as_ref());
    if source != Source::Leased && deadline.and_then(time::from_wire).is_some_and(|deadline| deadline <= now) {
        problems.add_at("execution.deadline", "is over");
    }
    if matches!(source, Source::Network | Source::Leased) {
        let root = Path::ROOT.member("payload");
        let data = root.member("data");
        let further = data.member("image");
        let further = further.member("paths");
        for (index, path) in found.paths.further_images.iter().enumerate() {
            if let Some(problem) = path_problem(path) {
                problems.add(&further.element(index), problem);
            }
        }
        for (object, member, path) in
            [("image", "path", &found.paths.image), ("output", "destination", &found.paths.destination)]
        {
            if let Some(problem) = path.as_deref().and_then(path_problem) {
                problems.add(&data.member(object).member(member), problem);
            }
        }
    }
}

fn path_problem(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        return Some("must be an absolute path on the worker");
    }
    let climbs = FilePath::new(path).components().any(|part| part == Component::ParentDir);
    climbs.then_some("must not contain \"..\"")
}

fn filled(mut document: v1::JobDocument, now: Time) -> v1::JobDocument {
    if document.job_id.is_empty() {
        document.job_id = uuid::Uuid::now_v7().to_string();
    }
    document.created_at.get_or_insert_with(|| time::to_wire(now));
    let metadata = document.metadata.get_or_insert_default();
    if metadata.namespace.is_empty() {
        metadata.namespace = Namespace::default().as_str().to_owned();
    }
    document
}

/// SHA-256 of the canonical form: JSON with sorted members, without what does not change the job (`$schema`, `attempt`, a
/// namespace that is the default).
fn fingerprint(document: &v1::JobDocument) -> [u8; 32] {
    let mut canonical = v1::JobDocument { schema: String::new(), ..document.clone() };
    if let Some(execution) = &mut canonical.execution {
        execution.attempt = None;
    }
    if let Some(metadata) = &mut canonical.metadata
        && metadata.namespace == Namespace::default().as_str()
    {
        metadata.namespace = String::new();
    }
    let mut text = Vec::new();
    write_canonical(&without_empty(to_json(&canonical)), &mut text);
    Sha256::digest(&text).into()
}

/// An empty object of ours says no more than an absent one; free data is kept as it is.
fn without_empty(value: Value) -> Value {
    let Value::Object(members) = value else { return value };
    let kept: Map<String, Value> = members
        .into_iter()
        .filter(|(name, value)| name == "payload" || value.as_object().is_none_or(|o| !o.is_empty()))
        .collect();
    Value::Object(kept)
}

fn write_canonical(value: &Value, text: &mut Vec<u8>) {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<&String, &Value> = members.iter().collect();
            text.push(b'{');
            for (name, member) in sorted {
                text.extend_from_slice(Value::String(name.clone()).to_string().as_bytes());
                text.push(b':');
                write_canonical(member, text);
                text.push(b',');
            }
            text.push(b'}');
        }
        Value::Array(elements) => {
            text.push(b'[');
            for element in elements {
                write_canonical(element, text);
                text.push(b',');
            }
            text.push(b']');
        }
        other => text.extend_from_slice(other.to_string().as_bytes()),
    }
}

/// The texts were checked by the table; a constructor that disagrees is a refusal, not a panic.
fn spec(
    document: &v1::JobDocument,
    operation: &Operation,
    image_path: Option<&str>,
    fingerprint: [u8; 32],
    now: Time,
) -> Result<JobSpec, Refusal> {
    let none = v1::Execution::default();
    let execution = document.execution.as_ref().unwrap_or(&none);
    let namespace = document.metadata.as_ref().map_or("default", |metadata| metadata.namespace.as_str());
    let affinity = document.routing.iter().flat_map(|routing| &routing.affinity);
    Ok(JobSpec {
        job_id: JobId::new(&document.job_id).map_err(|error| disagreement("job_id", &error))?,
        namespace: Namespace::new(namespace).map_err(|error| disagreement("metadata.namespace", &error))?,
        idempotency_key: given(&execution.idempotency_key),
        idempotency_policy: IdempotencyPolicy::of(&execution.idempotency_policy).unwrap_or_default(),
        idempotency_ttl: execution.idempotency_ttl_seconds.map(|value| seconds(Some(value.into()), Duration::ZERO)),
        fingerprint,
        placement: Arc::new(placement(document, operation, image_path)?),
        affinity: affinity.map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect(),
        priority: execution.priority.and_then(|value| Priority::new(value.into())).unwrap_or_default(),
        max_attempts: execution.max_attempts.and_then(|value| u32::try_from(value).ok()).unwrap_or(1),
        timeout: seconds(execution.timeout_seconds.map(f64::from), Duration::from_secs(3600)),
        queue_timeout: execution.queue_timeout_seconds.map(|value| seconds(Some(value.into()), Duration::ZERO)),
        deadline: execution.deadline.as_ref().and_then(time::from_wire),
        not_before: execution.not_before.as_ref().and_then(time::from_wire),
        backoff: backoff(execution.retry_backoff.as_ref()),
        cancellable: execution.cancellable.unwrap_or(true),
        concurrency_key: given(&execution.concurrency_key),
        created_at: now,
    })
}

fn disagreement(field: &str, error: &dyn std::error::Error) -> Refusal {
    Refusal::of_fields(
        Reason::InvalidDocument,
        "the job document",
        vec![crate::status::problem(field, error.to_string())],
    )
}

fn given(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

fn seconds(given: Option<f64>, default: Duration) -> Duration {
    given.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(default)
}

fn backoff(given: Option<&v1::RetryBackoff>) -> Backoff {
    let defaults = Backoff::default();
    let Some(given) = given else { return defaults };
    Backoff {
        initial: seconds(given.initial_seconds, defaults.initial),
        max: seconds(given.max_seconds, defaults.max),
        multiplier: given.multiplier.unwrap_or(defaults.multiplier),
    }
}

fn placement(
    document: &v1::JobDocument,
    operation: &Operation,
    image_path: Option<&str>,
) -> Result<Placement, Refusal> {
    let no_constraints = v1::Constraints::default();
    let constraints = document.constraints.as_ref().unwrap_or(&no_constraints);
    let no_routing = v1::Routing::default();
    let routing = document.routing.as_ref().unwrap_or(&no_routing);

    let mut capabilities = shared(&constraints.required_capabilities);
    capabilities.insert(operation.name().into());
    // One pool asked for is the only one; it was checked to be among those allowed.
    let pools = match given(&routing.worker_pool) {
        Some(pool) => BTreeSet::from([pool]),
        None => shared(&constraints.allowed_worker_pools),
    };
    let minimum_version = match constraints.minimum_worker_version.as_str() {
        "" => None,
        text => Some(
            semver::Version::parse(text).map_err(|error| disagreement("constraints.minimum_worker_version", &error))?,
        ),
    };
    let worker = match routing.worker_id.as_str() {
        "" => None,
        text => Some(WorkerId::new(text).map_err(|error| disagreement("routing.worker_id", &error))?),
    };
    Ok(Placement {
        operation: operation.name().into(),
        capabilities,
        features: shared(&constraints.required_features),
        minimum_version,
        privileged: constraints.require_privileged,
        pools,
        worker,
        anti_affinity: routing.anti_affinity.iter().map(|(key, list)| (key.as_str().into(), texts(list))).collect(),
        image_folder: image_path.and_then(folder_of),
    })
}

fn shared(texts: &[String]) -> BTreeSet<Arc<str>> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

fn texts(list: &prost_types::ListValue) -> BTreeSet<Arc<str>> {
    let text = |value: &Wire| match &value.kind {
        Some(WireKind::StringValue(text)) => Some(Arc::from(text.as_str())),
        _ => None,
    };
    list.values.iter().filter_map(text).collect()
}

/// The folder of an absolute path, without `//` and `.`.
fn folder_of(path: &str) -> Option<Arc<str>> {
    let plain: PathBuf = FilePath::new(path).components().collect();
    if !plain.is_absolute() {
        return None;
    }
    plain.parent().and_then(FilePath::to_str).map(Into::into)
}
