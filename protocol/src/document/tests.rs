//! Documents as people, scripts and attackers write them.

use guestkit_domain::{Duration, IdempotencyPolicy, Time};
use serde_json::json;

use super::*;

/// 2026-09-21T14:13:20Z.
const NOW: Time = Time(1_790_000_000_000);

fn inspect() -> Value {
    json!({
        "version": "1.0",
        "job_id": "job-00000001",
        "kind": "VMOperation",
        "operation": "guestkit.inspect",
        "payload": {"type": "guestkit.inspect.v1", "data": {"image": {"path": "/srv/images/a.qcow2"}}}
    })
}

/// `document` with the member at each path set; paths are as problems name them, without lists.
fn with(mut document: Value, changes: &[(&str, Value)]) -> Value {
    for (path, value) in changes {
        let mut place = &mut document;
        for step in path.split('.') {
            place = place.as_object_mut().unwrap().entry(step).or_insert_with(|| json!({}));
        }
        *place = value.clone();
    }
    document
}

fn run(document: &Value, source: Source) -> Result<CheckedJob, Refusal> {
    check(parse(document.to_string().as_bytes())?, source, NOW)
}

fn accepted(changes: &[(&str, Value)]) -> CheckedJob {
    run(&with(inspect(), changes), Source::Network).unwrap_or_else(|refusal| panic!("refused: {refusal}"))
}

/// The document is refused for exactly these fields, and each description contains the words.
#[track_caller]
fn check_problems(refusal: &Refusal, expected: &[(&str, &str)]) {
    assert_eq!(refusal.reason, Reason::InvalidDocument, "{refusal}");
    let mut found: Vec<&str> = refusal.problems.iter().map(|p| p.field.as_str()).collect();
    let mut fields: Vec<&str> = expected.iter().map(|(field, _)| *field).collect();
    found.sort_unstable();
    fields.sort_unstable();
    assert_eq!(found, fields, "{refusal}");
    for (field, words) in expected {
        let problem = refusal.problems.iter().find(|p| p.field == *field).unwrap();
        assert!(problem.description.contains(words), "{field}: {}", problem.description);
    }
}

#[track_caller]
fn check_refused(changes: &[(&str, Value)], expected: &[(&str, &str)]) {
    let refusal = run(&with(inspect(), changes), Source::Network).expect_err("must be refused");
    check_problems(&refusal, expected);
}

#[track_caller]
fn check_one(field: &str, value: Value, words: &str) {
    check_refused(&[(field, value)], &[(field, words)]);
}

#[test]
fn the_least_document_is_enough() {
    let job = accepted(&[("job_id", Value::Null)]);
    assert_eq!(job.spec.job_id.as_str().len(), 36);
    assert_eq!(job.document.job_id, job.spec.job_id.as_str());
    assert_eq!(job.document.created_at, Some(crate::convert::time::to_wire(NOW)));
    assert_eq!(job.document.metadata.as_ref().map(|m| m.namespace.as_str()), Some("default"));
    assert_eq!(job.operation.name(), "guestkit.inspect");
    assert_eq!((job.spec.max_attempts, job.spec.priority.get(), job.spec.timeout.as_secs()), (1, 5, 3600));
    assert!(job.spec.cancellable);
    assert_eq!(job.spec.placement.image_folder.as_deref(), Some("/srv/images"));
    assert!(job.spec.placement.capabilities.contains("guestkit.inspect"));
}

#[test]
fn every_setting_reaches_the_spec() {
    let job = accepted(&[
        ("metadata.namespace", json!("team-a")),
        (
            "execution",
            json!({
                "idempotency_key": "k", "attempt": 4, "max_attempts": 3, "timeout_seconds": "60",
                "deadline": "2026-09-21T16:13:21+02:00", "priority": 10.0, "cancellable": false,
                "not_before": "2026-09-21T14:13:20.5Z", "concurrency_key": "c", "queue_timeout_seconds": 90,
                "idempotency_policy": "replace_queued", "idempotency_ttl_seconds": 0,
                "retry_backoff": {"initial_seconds": 0.5, "max_seconds": 10, "multiplier": 1.5},
            }),
        ),
        (
            "constraints",
            json!({
                "required_capabilities": ["fs.ext4"], "required_features": ["ssd"], "minimum_worker_version": "1.2.3",
                "maximum_disk_size_gb": 10, "require_privileged": true, "allowed_worker_pools": ["a", "b"],
            }),
        ),
        (
            "routing",
            json!({
                "worker_id": "w1", "worker_pool": "b", "affinity": {"data_locality": "/vms"},
                "anti_affinity": {"rack": ["r1", "r2"]},
            }),
        ),
    ]);
    let spec = &job.spec;
    assert_eq!(spec.namespace.as_str(), "team-a");
    assert_eq!(spec.idempotency_key.as_deref(), Some("k"));
    assert_eq!(spec.concurrency_key.as_deref(), Some("c"));
    assert_eq!(
        (spec.idempotency_policy, spec.idempotency_ttl),
        (IdempotencyPolicy::ReplaceQueued, Some(Duration::ZERO))
    );
    assert_eq!(spec.queue_timeout, Some(Duration::from_secs(90)));
    assert_eq!((spec.max_attempts, spec.timeout.as_secs(), spec.priority.get()), (3, 60, 10));
    assert_eq!(spec.deadline, Some(Time(NOW.0 + 1000)));
    assert_eq!(spec.not_before, Some(Time(NOW.0 + 500)));
    assert_eq!((spec.backoff.initial.as_millis(), spec.backoff.max.as_secs()), (500, 10));
    assert!(!spec.cancellable);
    assert_eq!(spec.affinity.get("data_locality").map(|value| &**value), Some("/vms"));
    let placement = &spec.placement;
    assert!(placement.privileged && placement.features.contains("ssd") && placement.capabilities.contains("fs.ext4"));
    assert_eq!(placement.minimum_version, Some(semver::Version::new(1, 2, 3)));
    assert_eq!(placement.pools.iter().map(|pool| &**pool).collect::<Vec<_>>(), ["b"]);
    assert_eq!(placement.worker.as_ref().map(guestkit_domain::WorkerId::as_str), Some("w1"));
    assert_eq!(placement.anti_affinity.get("rack").map(std::collections::BTreeSet::len), Some(2));
    assert_eq!(job.document.constraints.as_ref().and_then(|c| c.maximum_disk_size_gb), Some(10));
}

#[test]
fn each_rule_refuses_by_name() {
    check_one("version", json!("2.0"), "version 2.0 of the job protocol is not understood");
    check_one("version", json!("1"), "must be \"1.0\"");
    check_one("version", json!(""), "required");
    check_one("kind", json!("VMOperations"), "must be VMOperation");
    check_one("job_id", json!("../../x"), "may only contain");
    check_one("job_id", json!("short"), "8 to 128 bytes");
    check_one("job_id", json!("x".repeat(129)), "8 to 128 bytes");
    check_one("job_id", json!(".hidden-job"), "must not start with");
    check_one("job_id", json!("job\u{0}00000"), "may only contain");
    check_one("created_at", json!("yesterday"), "RFC 3339");
    check_one("created_at", json!("2026-01-31"), "RFC 3339");
    check_one("created_at", json!(1_790_000_000), "RFC 3339");
    check_one("metadata.namespace", json!("Team A"), "a-z 0-9 -");
    check_one("metadata.name", json!("two\nlines"), "control characters");
    check_one("metadata.labels", json!([]), "must be an object");
    check_one("metadata.labels.a", json!(1), "must be a text");
    check_one("metadata.labels.a", json!("x".repeat(257)), "at most 256 bytes");
    check_one("execution.priority", json!(11), "must be 1 to 10, is 11");
    check_one("execution.priority", json!(0), "must be 1 to 10, is 0");
    check_one("execution.priority", json!("high"), "must be a whole number, is the text \"high\"");
    check_one("execution.priority", json!(1.5), "must be a whole number");
    check_one("execution.priority", json!(1e300), "must be a whole number");
    check_one("execution.max_attempts", json!(101), "1 to 100");
    check_one("execution.attempt", json!(0), "must be 1");
    check_one("execution.timeout_seconds", json!(604_801), "1 to 604800");
    check_one("execution.timeout_seconds", json!(9_999_999_999_i64), "2147483647");
    check_one("execution.deadline", json!("2020-01-01T00:00:00Z"), "is over");
    check_one("execution.cancellable", json!("yes"), "must be true or false");
    check_one("execution.retry_backoff.multiplier", json!(0.5), "must be 1 to 10");
    check_one("execution.retry_backoff.initial_seconds", json!("NaN"), "must be a number");
    check_one("execution.retry_backoff.initial_seconds", json!("-Infinity"), "must be a number");
    check_one("execution.idempotency_key", json!("k".repeat(257)), "at most 256 bytes");
    check_one("execution.queue_timeout_seconds", json!(0), "1 to 604800");
    check_one("execution.idempotency_policy", json!("fail"), "has no effect without execution.idempotency_key");
    check_one("execution.idempotency_ttl_seconds", json!(5), "has no effect without execution.idempotency_key");
    let keyed = ("execution.idempotency_key", json!("k"));
    for (field, value, words) in [
        ("execution.idempotency_policy", json!("use_existin"), "did you mean use_existing?"),
        ("execution.idempotency_ttl_seconds", json!(-1), "0 to 31536000"),
    ] {
        check_refused(&[keyed.clone(), (field, value)], &[(field, words)]);
    }
    check_one("constraints.minimum_worker_version", json!("newest"), "semantic version");
    check_one("constraints.maximum_disk_size_gb", json!(0), "must be 1");
    check_one("constraints.require_privileged", json!(1), "must be true or false");
    check_one("routing.worker_id", json!("a/b"), "may only contain");
    check_one("routing.anti_affinity.rack", json!("r1"), "must be a list");
    check_one("routing.anti_affinity.rack", json!([]), "1 to 64 texts");
    check_one("observability.trace_id", json!("4BF92F3577B34DA6A3CE929D0E0E4736"), "lower-case hex");
    check_one("observability.trace_id", json!("0".repeat(32)), "all zeros");
    check_one("audit.authorization.method", json!({}), "must be a text");
    check_one("payload", json!([]), "must be an object, is a list");
    check_one("payload.type", json!("inspect"), "must be <operation>.v<N>");
    check_one("payload.type", json!("system.echo.v1"), "is for system.echo, but operation is guestkit.inspect");
    check_one("payload.data.image", json!("/srv/a"), "must be an object");
    check_one("payload.data.image", Value::Null, "required");
    check_one("payload.data.image.path", json!(""), "required");
    check_one("payload.data.image.path", json!("a\u{0}b"), "NUL");
    check_one("payload.data.image.path", json!("images/a.qcow2"), "absolute");
    check_one("payload.data.image.path", json!("/srv/../etc/passwd"), "\"..\"");
    check_one("payload.data.image.path", json!(format!("/{}", "x".repeat(4096))), "at most 4096");
    check_one("payload.data.image.format", json!("qcow"), "did you mean qcow2?");
    check_one("payload.data.image.checksum", json!("md5:00"), "md5 is not known");
    check_one("payload.data.image.checksum", json!("sha256:00"), "64 hex digits");
    check_one("payload.data.image.checksum", json!(""), "is empty");
    check_one("payload.data.image.size_bytes", json!(-1), "must be 0 to");
    check_one("payload.data.image.size_bytes", json!(1_u64 << 60), "cannot be carried exactly");
    check_one("payload.data.image.read_only", json!(false), "only reads");
    check_one("payload.data.image.paths", json!(vec!["/srv/b"; 64]), "at most 63 entries, has 64");
    check_one("payload.data.image.keys", json!(vec![json!({"file": "a"}); 65]), "at most 64 entries, has 65");
    check_one("payload.data.options.include_pakages", json!(true), "unknown field, did you mean include_packages?");
    check_one("payload.data.options.deep_scan", json!("no"), "must be true or false");
    check_one("payload.data.output.format", json!("xml"), "json, yaml, virt-inspector, cyclonedx, spdx, html");
    check_one("payload.data.output.format", json!("yaml"), "no effect without destination");
    check_one("payload.data.output.compression", json!("zstd"), "no effect without destination");
    check_one("payload.data.output.destination", json!("report.json"), "absolute");
    check_one("prioritty", json!(1), "unknown field");
    check_one("executions", json!({}), "did you mean execution?");
}

#[test]
fn further_disks_and_keys_are_held_to_the_rules_of_the_first() {
    let keys =
        json!([{"file": "k"}, {}, {"file": "/etc/shadow"}, {"file": "a/../../b"}, {"file": "k", "key": "secret"}]);
    check_refused(
        &[("payload.data.image.paths", json!(["/srv/b", ""])), ("payload.data.image.keys", keys)],
        &[
            ("payload.data.image.paths[1]", "must not be empty"),
            ("payload.data.image.keys[1].file", "required"),
            ("payload.data.image.keys[2].file", "must be a relative path"),
            ("payload.data.image.keys[3].file", "must be a relative path"),
            ("payload.data.image.keys[4].key", "unknown field"),
        ],
    );
    check_refused(
        &[("payload.data.image.paths", json!(["/srv/b", "srv/c", "/srv/../d"]))],
        &[("payload.data.image.paths[1]", "must be an absolute path"), ("payload.data.image.paths[2]", "\"..\"")],
    );
}

fn profile(changes: &[(&str, Value)]) -> Result<CheckedJob, Refusal> {
    let profile = [("operation", json!("guestkit.profile")), ("payload.type", json!("guestkit.profile.v1"))];
    run(&with(with(inspect(), &profile), changes), Source::Network)
}

#[test]
fn a_profile_takes_everything_that_can_be_asked() {
    assert_eq!(profile(&[]).unwrap().operation.name(), "guestkit.profile");
    let waiver = json!({
        "id": "sudo.nopasswd", "scope": {"image": "*.qcow2", "system": "web*", "path": "/etc/*"},
        "justification": "cloud image", "approver": "security", "expires": "2027-01-31",
    });
    let options = json!({
        "severity_threshold": "medium", "fail_on_critical": true, "include_remediation": false,
        "standards": ["cis", "pci-dss", "hipaa", "nist-800-53"], "waivers": vec![waiver; 1000], "target": "kvm",
        "reference_time": "2026-01-31T08:15:00+01:00", "semantics": "explicit", "all": true,
    });
    let job = profile(&[
        ("payload.data.profiles", json!(["security", "compliance", "hardening", "performance", "migration"])),
        ("payload.data.options", options),
        ("payload.data.output", json!({"destination": "/srv/out/", "format": "sarif"})),
    ]);
    assert_eq!(job.unwrap().spec.placement.image_folder.as_deref(), Some("/srv/images"));
}

#[test]
fn each_rule_of_a_profile_refuses_by_name() {
    let check_one = |field: &str, value: Value, words: &str| {
        let field = format!("payload.data.{field}");
        let place = field.split('[').next().unwrap_or_default();
        let refusal = profile(&[(place, value)]).expect_err(&field);
        check_problems(&refusal, &[(&field, words)]);
    };
    check_one("image", Value::Null, "required");
    check_one("image.read_only", json!(false), "guestkit.profile only reads");
    check_one("image.checksum", json!(""), "is empty");
    check_one("profiles[1]", json!(["security", "complience"]), "did you mean compliance?");
    check_one("profiles[1]", json!(["security", "security"]), "is there twice");
    check_one("profiles[0]", json!(["all"]), "must be one of security");
    check_one("profile", json!("security"), "did you mean profiles?");
    check_one("options.severity_threshold", json!("severe"), "must be one of info, low, medium, high, critical");
    check_one("options.fail_on_critical", json!("yes"), "must be true or false");
    check_one("options.standards[0]", json!(["pci"]), "must be one of cis, cis-level1, pci-dss");
    check_one("options.target", json!("kvm"), "no effect without the migration profile");
    check_one("options.reference_time", json!("2026-01-31"), "RFC 3339");
    check_one("options.semantics", json!("strict"), "must be one of effective, explicit");
    check_one("output.format", json!("csv"), "no effect without destination");
    check_one("output.destination", json!("reports"), "absolute");

    let waiver = |member: &str, value: Value| {
        let sound = json!({"id": "a.b", "justification": "j", "approver": "a", "expires": "2027-01-31"});
        json!([with(sound, &[(member, value)])])
    };
    let check_waiver = |member: &str, value: Value, words: &str| {
        let refusal = profile(&[("payload.data.options.waivers", waiver(member, value))]).expect_err(member);
        check_problems(&refusal, &[(&format!("payload.data.options.waivers[0].{member}"), words)]);
    };
    for member in ["id", "justification", "approver", "expires"] {
        check_waiver(member, Value::Null, "required");
        check_waiver(member, json!(""), "required");
    }
    check_waiver("id", json!("SSH"), "ssh.permit-root-login");
    check_waiver("expires", json!("never"), "must be a day");
    check_waiver("expires", json!("2027-02-30"), "must be a day");
    check_waiver("expiry", json!("2027-01-31"), "did you mean expires?");
    check_waiver("scope.path", json!(""), "is empty");
    check_waiver("scope.host", json!("a"), "unknown field");
    check_waiver("approver", json!("a\nb"), "control characters");
}

#[test]
fn each_operation_has_its_own_forms() {
    let output = |format: &str| [("payload.data.output", json!({"destination": "/srv/out/", "format": format}))];
    for (format, inspect_has, profile_has) in
        [("html", true, true), ("spdx", true, false), ("sarif", false, true), ("csv", false, true)]
    {
        let inspected = run(&with(inspect(), &output(format)), Source::Network);
        assert_eq!((inspected.is_ok(), profile(&output(format)).is_ok()), (inspect_has, profile_has), "{format}");
    }
    let refusal = profile(&output("spdx")).unwrap_err();
    check_problems(&refusal, &[("payload.data.output.format", "has no form spdx; it has json, yaml, sarif")]);
}

#[test]
fn lists_name_the_element() {
    let changes = [("constraints.required_capabilities", json!(["fs.ext4", "", 3]))];
    check_refused(
        &changes,
        &[
            ("constraints.required_capabilities[1]", "must be 1 to 128"),
            ("constraints.required_capabilities[2]", "must be a text"),
        ],
    );
    check_refused(
        &[("routing.anti_affinity", json!({"rack": ["a", 7]}))],
        &[("routing.anti_affinity.rack[1]", "text")],
    );
}

#[test]
fn fields_that_contradict_each_other_are_refused() {
    let execution = json!({"deadline": "2030-01-01T00:00:00Z", "not_before": "2030-01-01T00:00:00Z"});
    check_refused(&[("execution", execution)], &[("execution.deadline", "later than execution.not_before")]);
    let backoff = json!({"initial_seconds": 400});
    check_refused(&[("execution.retry_backoff", backoff)], &[("execution.retry_backoff.max_seconds", "at least")]);
    let pools = [("routing.worker_pool", json!("c")), ("constraints.allowed_worker_pools", json!(["a"]))];
    check_refused(&pools, &[("routing.worker_pool", "not one of")]);
    let span = [("observability.span_id", json!("00f067aa0ba902b7"))];
    check_refused(&span, &[("observability.trace_id", "required where a span is given")]);
}

#[test]
fn all_problems_come_at_once() {
    check_refused(
        &[
            ("version", json!("2.0")),
            ("job_id", json!("../../x")),
            ("execution", json!({"priority": 11, "timeout_secs": 5})),
            ("payload.data.options.include_pakages", json!(true)),
            ("payload.data.image.format", json!("floppy")),
        ],
        &[
            ("version", "not understood"),
            ("job_id", "may only contain"),
            ("execution.priority", "1 to 10"),
            ("execution.timeout_secs", "did you mean timeout_seconds?"),
            ("payload.data.options.include_pakages", "did you mean include_packages?"),
            ("payload.data.image.format", "must be one of"),
        ],
    );
}

#[test]
fn an_empty_document_lists_what_is_required() {
    let refusal = run(&json!({}), Source::Folder).expect_err("empty");
    check_problems(
        &refusal,
        &[("version", "required"), ("kind", "required"), ("operation", "required"), ("payload", "required")],
    );
}

#[test]
fn a_folder_needs_a_job_id_and_takes_relative_paths() {
    let refusal = run(&with(inspect(), &[("job_id", Value::Null)]), Source::Folder).expect_err("no job_id");
    check_problems(&refusal, &[("job_id", "required in a folder")]);
    // What only a coordinator obeys is refused where there is none, by name.
    let execution = json!({
        "idempotency_key": "k", "idempotency_policy": "fail", "idempotency_ttl_seconds": 1, "queue_timeout_seconds": 1,
    });
    for source in [Source::Folder, Source::Local] {
        let refusal = run(&with(inspect(), &[("execution", execution.clone())]), source).expect_err("no coordinator");
        let by_coordinator = |field| (field, "by a coordinator only");
        check_problems(
            &refusal,
            &[
                by_coordinator("execution.idempotency_policy"),
                by_coordinator("execution.idempotency_ttl_seconds"),
                by_coordinator("execution.queue_timeout_seconds"),
            ],
        );
    }
    let relative = with(inspect(), &[("payload.data.image.path", json!("../images/a.qcow2"))]);
    let job = run(&relative, Source::Folder).unwrap();
    assert_eq!(job.spec.placement.image_folder, None);
}

#[test]
fn a_local_document_is_judged_as_a_folders() {
    let relative = with(inspect(), &[("job_id", Value::Null), ("payload.data.image.path", json!("a.qcow2"))]);
    assert_eq!(run(&relative, Source::Local).unwrap().document.job_id.len(), 36);
}

#[test]
fn a_leased_document_is_not_judged_by_the_workers_clock() {
    let late = with(inspect(), &[("execution.deadline", json!("2020-01-01T00:00:00Z"))]);
    run(&late, Source::Leased).unwrap();
    check_problems(&run(&late, Source::Network).expect_err("late"), &[("execution.deadline", "is over")]);
    let relative = with(inspect(), &[("payload.data.image.path", json!("a.qcow2"))]);
    check_problems(&run(&relative, Source::Leased).expect_err("relative"), &[("payload.data.image.path", "absolute")]);
}

#[test]
fn a_byte_order_mark_is_ignored() {
    let text = format!("\u{feff}{}", inspect());
    parse(text.as_bytes()).unwrap();
}

/// Whatever is taken here fits through every message that carries it: decoders stop at 100 levels.
#[test]
fn the_deepest_document_travels() {
    let document = |levels: usize, open: &str, close: &str| {
        let data = format!("{{\"x\":{}1{}}}", open.repeat(levels), close.repeat(levels));
        let data: Value = serde_json::from_str(&data).unwrap();
        with(
            inspect(),
            &[("operation", json!("system.echo")), ("payload", json!({"type": "system.echo.v1", "data": data}))],
        )
    };
    for (open, close) in [("{\"x\":", "}"), ("[", "]")] {
        let deepest =
            (1..100).take_while(|levels| run(&document(*levels, open, close), Source::Network).is_ok()).count();
        assert_eq!(deepest, 21, "{open}");
        let job = run(&document(deepest, open, close), Source::Network).unwrap().document;

        let lease = v1::Lease { document: Some(job.clone()), ..Default::default() };
        let sent = v1::SessionResponse { message: Some(v1::session_response::Message::Lease(lease)) };
        assert_eq!(v1::SessionResponse::decode(sent.encode_to_vec().as_slice()).unwrap(), sent);
        let snapshot = v1::Job { document: Some(job.clone()), ..Default::default() };
        let sent =
            v1::WatchAllResponse { change: Some(v1::watch_all_response::Change::Snapshot(snapshot)), revision: 1 };
        assert_eq!(v1::WatchAllResponse::decode(sent.encode_to_vec().as_slice()).unwrap(), sent);

        let mut result = v1::JobResult::default();
        let data = job.payload.as_ref().and_then(|payload| payload.data.as_ref()).map(from_struct);
        set_report(&mut result, "system.echo", json!({"data": data})).unwrap();
        assert_eq!(result_to_json(&result).pointer("/data/data"), data.as_ref());
        let sent = v1::GetReportResponse { result: Some(result) };
        assert_eq!(v1::GetReportResponse::decode(sent.encode_to_vec().as_slice()).unwrap(), sent);
    }
}

#[test]
fn json_that_is_none_is_refused() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let deep_data = with(
        inspect(),
        &[(
            "payload.data.x",
            json!({"a": serde_json::from_str::<Value>(&format!("{}{}", "[".repeat(30), "]".repeat(30))).unwrap()}),
        )],
    );
    for (text, words) in [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("{} {}", "trailing"),
        ("null", "must be an object, is null"),
        ("[]", "must be an object"),
        ("{\"version\": NaN}", "not valid JSON"),
        ("{\"version\": 1e999}", "out of range"),
        ("{\"version\": \"\\ud800\"}", "not valid JSON"),
        (&deep, "nested deeper than"),
        (&deep_data.to_string(), "nested deeper than"),
    ] {
        let refusal = parse(text.as_bytes()).expect_err(text);
        assert_eq!(refusal.reason, Reason::InvalidDocument);
        assert!(refusal.to_string().contains(words), "{refusal}");
    }
    assert_eq!(parse(b"\xff\xfe{}").expect_err("not UTF-8").reason, Reason::InvalidDocument);
    let large = parse(&vec![b' '; 2 * 1024 * 1024]).expect_err("2 MB");
    assert_eq!(large.reason, Reason::TooLarge);
}

#[test]
fn a_member_given_twice_is_refused() {
    let text = inspect().to_string().replacen('{', "{\"kind\":\"VMOperation\",", 1);
    check_problems(&parse(text.as_bytes()).expect_err("twice"), &[("kind", "given twice")]);
    let text = inspect().to_string().replace("\"path\"", "\"path\":\"/b\",\"path\"");
    check_problems(&parse(text.as_bytes()).expect_err("twice"), &[("payload.data.image.path", "given twice")]);
    let both = with(inspect(), &[("jobId", json!("job-00000002"))]);
    let refusal = parse(both.to_string().as_bytes()).expect_err("twice");
    assert!(refusal.to_string().contains("job_id and jobId"), "{refusal}");
}

#[test]
fn a_hostile_document_cannot_make_the_refusal_large() {
    let members: Map<String, Value> = (0..50_000).map(|n| (format!("unknown{n}"), Value::Null)).collect();
    let refusal = parse(Value::Object(members).to_string().as_bytes()).expect_err("nonsense");
    assert!(refusal.problems.len() <= 100);
    assert!(tonic::Status::from(refusal).details().len() < 8 * 1024);
}

#[test]
fn operations_of_our_families_must_be_known() {
    for (operation, payload_type) in [
        ("guestkit.compare", "guestkit.compare.v1"),
        ("system.reboot", "system.reboot.v1"),
        ("guestkit.inspect", "guestkit.inspect.v2"),
    ] {
        let document = with(inspect(), &[("operation", json!(operation)), ("payload.type", json!(payload_type))]);
        parse(document.to_string().as_bytes()).expect("sound in itself");
        let refusal = run(&document, Source::Network).expect_err(operation);
        assert_eq!(refusal.reason, Reason::UnsupportedOperation);
        assert!(refusal.message.contains("guestkit.inspect"), "{refusal}");
    }
    let data = json!({"any": ["thing", 1, null]});
    let foreign = [("operation", json!("acme.scan")), ("payload", json!({"type": "acme.scan.v3", "data": data}))];
    assert_eq!(accepted(&foreign).operation.name(), "acme.scan");
    for bad in ["inspect", "Guestkit.inspect", "guestkit.", ".inspect", "a..b", "a b.c"] {
        let document = with(inspect(), &[("operation", json!(bad))]);
        let refusal = run(&document, Source::Network).expect_err(bad);
        assert!(refusal.problems.iter().any(|p| p.field == "operation"), "{refusal}");
    }
}

#[test]
fn echo_takes_any_members_but_checks_its_own() {
    let echo = |data: Value| {
        let changes =
            [("operation", json!("system.echo")), ("payload", json!({"type": "system.echo.v1", "data": data}))];
        run(&with(inspect(), &changes), Source::Network)
    };
    let job = echo(json!({"message": "hi", "duration_seconds": 0.5, "mine": {"x": [1, null]}})).unwrap();
    let typed: v1::EchoPayload = payload(&job.document).unwrap();
    assert_eq!((typed.message.as_str(), typed.duration_seconds), ("hi", Some(0.5)));
    let data = job.document.payload.as_ref().and_then(|p| p.data.as_ref()).map(from_struct);
    assert_eq!(data, Some(json!({"message": "hi", "duration_seconds": 0.5, "mine": {"x": [1, null]}})));
    check_problems(&echo(json!({"message": 5})).expect_err("type"), &[("payload.data.message", "must be a text")]);
    check_problems(
        &echo(json!({"fail_with": "no"})).expect_err("word"),
        &[("payload.data.fail_with", "failed, crash")],
    );
    check_problems(
        &echo(json!({"duration_seconds": 3601})).expect_err("range"),
        &[("payload.data.duration_seconds", "0 to 3600")],
    );
}

#[test]
fn protobuf_documents_obey_the_same_rules() {
    use prost_types::{ListValue, Struct, Value as Wire, value::Kind};
    let sound = parse(inspect().to_string().as_bytes()).unwrap();
    let refused = |value: Wire, words: &str| {
        let mut document = sound.clone();
        let data = document.payload.as_mut().unwrap().data.as_mut().unwrap();
        data.fields.insert("extra".to_owned(), value);
        let refusal = check(document, Source::Network, NOW).expect_err("must be refused");
        assert!(refusal.problems.iter().any(|p| p.field.starts_with("payload.data.extra")), "{refusal}");
        assert!(refusal.to_string().contains(words), "{refusal}");
    };
    refused(Wire { kind: Some(Kind::NumberValue(f64::NAN)) }, "must be a number");
    refused(Wire { kind: None }, "has no value");
    refused(Wire { kind: Some(Kind::BoolValue(true)) }, "unknown field");
    let deep = (0..40).fold(Wire { kind: Some(Kind::NullValue(0)) }, |inner, _| Wire {
        kind: Some(Kind::ListValue(ListValue { values: vec![inner] })),
    });
    refused(deep, "nested deeper");

    let mut large = sound.clone();
    large.payload = Some(v1::Payload {
        r#type: "acme.scan.v1".to_owned(),
        data: Some(Struct {
            fields: [("x".to_owned(), Wire { kind: Some(Kind::StringValue("x".repeat(2 << 20))) })].into(),
        }),
    });
    assert_eq!(check(large, Source::Network, NOW).expect_err("2 MB").reason, Reason::TooLarge);

    let mut timeless = sound;
    timeless.created_at = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: -5 });
    let refusal = check(timeless, Source::Network, NOW).expect_err("no such time");
    check_problems(&refusal, &[("created_at", "calendar")]);
}

#[test]
fn the_fingerprint_is_of_what_the_user_wrote() {
    let base = accepted(&[]).spec.fingerprint;
    let camel = inspect().to_string().replace("job_id", "jobId");
    let camel = check(parse(camel.as_bytes()).unwrap(), Source::Network, Time(NOW.0 + 5)).unwrap();
    assert_eq!(camel.spec.fingerprint, base);
    for same in [
        ("$schema", json!("./job-document.schema.json")),
        ("metadata.namespace", json!("default")),
        ("execution.attempt", json!(2)),
        ("routing", json!({})),
        ("audit", Value::Null),
    ] {
        assert_eq!(accepted(std::slice::from_ref(&same)).spec.fingerprint, base, "{}", same.0);
    }
    for other in [
        ("metadata.name", json!("x")),
        ("execution.priority", json!(5)),
        ("payload.data.options.deep_scan", json!(false)),
        ("payload.data.image.path", json!("/srv/images/b.qcow2")),
        ("job_id", json!("job-00000002")),
        ("created_at", json!("2026-01-31T08:15:00Z")),
    ] {
        assert_ne!(accepted(std::slice::from_ref(&other)).spec.fingerprint, base, "{}", other.0);
    }
    // A minted job_id is not part of it: a retried submission with an idempotency key is the same document.
    let keyed = [("job_id", Value::Null), ("execution.idempotency_key", json!("k"))];
    assert_eq!(accepted(&keyed).spec.fingerprint, accepted(&keyed).spec.fingerprint);
}

#[test]
fn documents_come_back_as_they_were() {
    let original =
        with(inspect(), &[("execution.priority", json!(7)), ("payload.data.image.size_bytes", json!(1_u64 << 40))]);
    let document = parse(original.to_string().as_bytes()).unwrap();
    assert_eq!(to_json(&document), original);
}

#[test]
fn outcomes_show_what_is_known() {
    let mut result = v1::JobResult {
        job_id: "job-00000001".to_owned(),
        status: "completed".to_owned(),
        completed_at: Some(crate::convert::time::to_wire(NOW)),
        worker_id: "w1".to_owned(),
        execution_summary: Some(v1::ExecutionSummary { attempt: 1, duration_seconds: 0.25, ..Default::default() }),
        metrics: Some(v1::Metrics { disk_read_bytes: 1 << 60, ..Default::default() }),
        ..Default::default()
    };
    let report = json!({"data": {"n": 5, "x": [null]}, "message": "hi"});
    set_report(&mut result, "system.echo", report.clone()).unwrap();
    assert_eq!(report_to_json(&result), report);
    assert_eq!(
        result_to_json(&result),
        json!({
            "job_id": "job-00000001",
            "status": "completed",
            "completed_at": "2026-09-21T14:13:20Z",
            "worker_id": "w1",
            "execution_summary": {"attempt": 1, "duration_seconds": 0.25},
            "metrics": {"disk_read_bytes": 1_u64 << 60, "disk_write_bytes": 0, "peak_memory_mb": 0.0, "cpu_seconds": 0.0},
            "data": report,
        })
    );
    assert_eq!(report_to_json(&v1::JobResult::default()), Value::Null);
}

#[test]
fn reports_must_fit_their_message() {
    let mut result = v1::JobResult::default();
    let report = json!({"image_path": "/a", "image": {"virtual_size_bytes": u64::MAX, "format_version": null}});
    set_report(&mut result, "guestkit.inspect", report).unwrap();
    let printed = report_to_json(&result);
    assert_eq!(printed.pointer("/image/virtual_size_bytes"), Some(&json!(u64::MAX)));
    assert_eq!(printed.pointer("/image/format_version"), None);
    assert_eq!(printed.pointer("/image/backing_chain"), Some(&json!([])));

    let error = set_report(&mut result, "guestkit.inspect", json!({"image_pth": "/a"})).expect_err("misspelt");
    assert!(error.to_string().contains("unknown field `image_pth`"), "{error}");
    assert!(set_report(&mut result, "guestkit.nothing", json!({})).is_err());
}

fn examples() -> Vec<(String, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/jobs");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let documents = files.filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.ends_with(".json") && !name.ends_with(".schema.json")
    });
    let mut read: Vec<_> = documents.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect();
    read.sort();
    assert_eq!(read.len(), 6);
    read
}

#[test]
fn every_example_is_sound() {
    for (name, text) in examples() {
        let document = parse(&text).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        for source in [Source::Folder, Source::Network] {
            check(document.clone(), source, NOW).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        }
    }
}

#[test]
fn the_published_schemas_are_current() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let schemas = [
        ("tests/jobs/job-document.schema.json", job_document_schema()),
        ("docs/inspect-report.schema.json", report_schema("guestkit.inspect").unwrap()),
        ("docs/profile-report.schema.json", report_schema("guestkit.profile").unwrap()),
    ];
    for (file, schema) in schemas {
        let (path, current) = (format!("{root}/{file}"), format!("{schema:#}\n"));
        if std::env::var_os("GUESTKIT_UPDATE").is_some() {
            std::fs::write(&path, &current).unwrap();
        }
        let published = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(published == current, "{file} is old: cargo xtask schema");
    }
}

/// splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014): the same mutations on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }
}

const FRAGMENTS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "null",
    "true",
    "-1",
    "1e308",
    "1e999",
    "NaN",
    "18446744073709551615",
    "-9223372036854775808",
    "0.1",
    "\"\"",
    "\"\\u0000\"",
    "\"../../x\"",
    "\"job_id\":",
    "\"jobId\":",
    "é",
    "\u{feff}",
    "{}",
    "[[[[",
];

fn mutated(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let end = (at + random.below(16)).min(bytes.len());
        match random.below(5) {
            0 => bytes[at] = random.next().to_le_bytes()[0],
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, FRAGMENTS[random.below(FRAGMENTS.len())].bytes())),
            3 => drop(bytes.splice(at..end, FRAGMENTS[random.below(FRAGMENTS.len())].bytes())),
            _ => bytes.extend_from_within(at..end),
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

/// Replaces one value somewhere in the document.
fn reshaped(document: &mut Value, random: &mut Random) {
    let nonsense = [
        Value::Null,
        json!(-1),
        json!(0),
        json!(1e308),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(0.1),
        json!(""),
        json!("\u{0}"),
        json!("x".repeat(5000)),
        json!([]),
        json!({}),
        json!([[[{"a": [null]}]]]),
        json!(true),
        json!({"": ""}),
        json!("1"),
    ];
    let value = nonsense[random.below(nonsense.len())].clone();
    replace_somewhere(document, value, random);
}

fn replace_somewhere(place: &mut Value, value: Value, random: &mut Random) {
    let inside = place.as_object().map_or(0, Map::len);
    if inside == 0 || random.below(4) == 0 {
        *place = value;
        return;
    }
    let index = random.below(inside);
    if let Some(member) = place.as_object_mut().and_then(|members| members.values_mut().nth(index)) {
        replace_somewhere(member, value, random);
    }
}

/// What is taken is sound: it prints, reads back as the same and stays taken.
fn check_taken(job: &CheckedJob) {
    let printed = to_json(&job.document);
    let again = parse(printed.to_string().as_bytes()).unwrap_or_else(|refusal| panic!("{printed}: {refusal}"));
    assert_eq!(again, job.document);
    assert_eq!(std::path::Path::new(&job.document.job_id).file_name().unwrap(), job.document.job_id.as_str());
}

#[test]
fn no_document_panics() {
    let mut random = Random(20_260_131);
    let mut taken = 0;
    for (_, text) in examples() {
        for _ in 0..1500 {
            if let Ok(document) = parse(&mutated(&text, &mut random))
                && let Ok(job) = check(document, Source::Folder, NOW)
            {
                taken += 1;
                check_taken(&job);
            }
            let mut value: Value = serde_json::from_slice(&text).unwrap();
            for _ in 0..=random.below(3) {
                reshaped(&mut value, &mut random);
            }
            if let Ok(job) = run(&value, Source::Folder) {
                taken += 1;
                check_taken(&job);
            }
        }
    }
    assert!(taken > 100, "the mutations must leave some documents sound, left {taken}");
}

#[test]
fn no_bytes_panic() {
    let mut random = Random(7);
    for (_, text) in examples() {
        let document = parse(&text).unwrap();
        let bytes = document.encode_to_vec();
        let mut result = v1::JobResult { job_id: document.job_id.clone(), ..Default::default() };
        let report = json!({"data": to_json(&document), "message": "x"});
        set_report(&mut result, "system.echo", report).unwrap();
        let outcome = result.encode_to_vec();
        for _ in 0..1500 {
            if let Ok(document) = v1::JobDocument::decode(mutated(&bytes, &mut random).as_slice()) {
                let _ = to_json(&document);
                if let Ok(job) = check(document, Source::Network, NOW) {
                    check_taken(&job);
                }
            }
            if let Ok(result) = v1::JobResult::decode(mutated(&outcome, &mut random).as_slice()) {
                let _ = result_to_json(&result);
            }
        }
    }
}
