//! Images and outputs that a job must not be given, and those it must: through the real worker, one outcome each.

// Helpers of stories, like the stories, end where something is not as it must be.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::{Folders, inspect, with};

/// A qcow2 (version 2) header that names a backing file, written from the format's specification, "Header".
fn qcow2_on(backing: &str) -> Vec<u8> {
    let mut bytes = vec![0; 3 * 65536];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"QFI\xfb");
    put(4, &2_u32.to_be_bytes());
    put(8, &80_u64.to_be_bytes());
    put(16, &u32::try_from(backing.len()).unwrap().to_be_bytes());
    put(20, &16_u32.to_be_bytes());
    put(24, &(1_u64 << 20).to_be_bytes());
    put(36, &1_u32.to_be_bytes());
    put(40, &65536_u64.to_be_bytes());
    put(48, &131_072_u64.to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    // 72 to 80: the mark that ends the header extensions, zeros.
    put(80, backing.as_bytes());
    bytes
}

#[test]
fn images_that_cannot_be_inspected_end_in_the_outcome_that_says_why() {
    let folders = Folders::new();
    let images = folders.path("images");
    fs::write(folders.path("secret.raw"), [7; 4096]).unwrap();
    symlink(folders.path("secret.raw"), images.join("escape.raw")).unwrap();
    symlink(folders.path(""), images.join("door")).unwrap();
    fs::create_dir(images.join("folder")).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, images.join("fifo"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(images.join("socket")).unwrap();
    fs::write(images.join("empty.raw"), []).unwrap();
    fs::write(images.join("text.qcow2"), "this is a shopping list\n").unwrap();
    fs::write(images.join("zeros.raw"), vec![0; 1 << 20]).unwrap();
    fs::write(images.join("passwd.qcow2"), qcow2_on("/etc/passwd")).unwrap();
    fs::write(images.join("parent.qcow2"), qcow2_on("../secret.raw")).unwrap();
    fs::write(images.join("cut.qcow2"), &qcow2_on("")[..40]).unwrap();
    fs::write(images.join("disk.qed"), b"QED\0\0\0\x01\0".repeat(200)).unwrap();

    let at = |name: &str| images.join(name);
    let none = || json!({});
    let wrong = "0".repeat(64);
    let cases: Vec<(&str, PathBuf, Value, &str, &str)> = vec![
        ("outside", PathBuf::from("/etc/passwd"), none(), "IMAGE_ACCESS_DENIED", "image roots"),
        ("through-link", at("escape.raw"), none(), "IMAGE_ACCESS_DENIED", "image roots"),
        ("through-folder", at("door/secret.raw"), none(), "IMAGE_ACCESS_DENIED", "image roots"),
        ("dotdot", at("../secret.raw"), none(), "IMAGE_ACCESS_DENIED", "image roots"),
        ("proc-link", PathBuf::from("/proc/self/exe"), none(), "IMAGE_ACCESS_DENIED", "image roots"),
        ("missing", at("missing.raw"), none(), "IMAGE_NOT_FOUND", "missing.raw"),
        ("directory", at("folder"), none(), "IMAGE_UNSUPPORTED", "a directory"),
        ("fifo", at("fifo"), none(), "IMAGE_UNSUPPORTED", "a FIFO"),
        ("socket", at("socket"), none(), "IMAGE_UNSUPPORTED", "a socket"),
        ("empty", at("empty.raw"), none(), "IMAGE_CORRUPT", "an empty file"),
        ("text", at("text.qcow2"), none(), "IMAGE_CORRUPT", "qcow2"),
        ("cut", at("cut.qcow2"), none(), "IMAGE_CORRUPT", "header"),
        ("backing", at("passwd.qcow2"), none(), "IMAGE_ACCESS_DENIED", "/etc/passwd"),
        ("backing-up", at("parent.qcow2"), none(), "IMAGE_ACCESS_DENIED", "secret.raw"),
        ("qed", at("disk.qed"), none(), "IMAGE_UNSUPPORTED", "qed"),
        ("zeros", at("zeros.raw"), none(), "NO_OPERATING_SYSTEM", "no operating system"),
        ("stated", at("zeros.raw"), json!({"image": {"format": "qcow2"}}), "VALIDATION_ERROR", "qcow2"),
        (
            "checksum",
            at("zeros.raw"),
            json!({"image": {"checksum": format!("sha256:{wrong}")}}),
            "IMAGE_CHECKSUM_MISMATCH",
            &wrong,
        ),
        ("size", at("zeros.raw"), json!({"image": {"size_bytes": 5}}), "IMAGE_CHECKSUM_MISMATCH", "file of 5"),
        (
            "no-output",
            at("zeros.raw"),
            json!({"output": {"destination": "/tmp/x.json"}}),
            "OUTPUT_FAILED",
            "output roots",
        ),
    ];
    for (name, path, more, ..) in &cases {
        folders.drop_job(&format!("{name}.json"), &inspect(&format!("image-{name}"), path, more));
    }
    let constraint = json!({"constraints": {"maximum_disk_size_gb": 1}});
    let huge = images.join("huge.raw");
    fs::File::create(&huge).unwrap().set_len((1 << 30) + 512).unwrap();
    folders.drop_job("huge.json", &with(inspect("image-huge", &huge, &none()), &constraint));

    let _worker = folders.worker("w", &["--image-root", "images", "--slots", "4"]);
    for (name, _, _, code, says) in &cases {
        let result = folders.result(&format!("image-{name}"));
        assert_eq!(result["status"], "failed", "{name}: {result}");
        assert_eq!(result["error"]["code"], *code, "{name}: {result}");
        assert!(result["error"]["message"].as_str().unwrap().contains(says), "{name}: {result}");
        assert!(folders.reason(&format!("{name}.json")).starts_with(code), "{name}");
    }
    let details = &folders.result("image-checksum")["error"]["details"];
    assert_eq!(details["expected"], wrong);
    // As `sha256sum` says of a mebibyte of zeros.
    assert_eq!(details["actual"], "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58");
    let huge = folders.result("image-huge");
    assert_eq!(
        (&huge["error"]["code"], &huge["error"]["details"]["limit"]),
        (&json!("LIMIT_EXCEEDED"), &json!("maximum_disk_size_gb"))
    );
}

/// A guest of the corpus; `None` where there is no corpus, which only a continuous integration must not accept.
fn guest(name: &str) -> Option<PathBuf> {
    let found = std::env::var_os("GUESTKIT_CORPUS").map(|corpus| Path::new(&corpus).join("guests").join(name));
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "GUESTKIT_CORPUS is not set");
        eprintln!("corpus not present");
    }
    found
}

/// Oracles: `sha256sum` of the image and of what was written, `zstd -d` and `gzip -d`.
#[test]
fn a_real_guest_is_inspected_and_its_report_written() {
    let Some(image) = guest("profile-debian12-vm.qcow2") else { return };
    let folders = Folders::new();
    let output = |command: &str, path: &Path| {
        let output = Command::new("sh").args(["-c", command, "sh"]).arg(path).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let digest = |path: &Path| String::from_utf8(output("sha256sum \"$1\"", path)).unwrap()[..64].to_owned();
    let checksum = digest(&image);
    let out = folders.path("out");
    for (id, destination, spec) in [
        ("report-none-1", "plain.json", json!({})),
        ("report-zstd-1", "new/folder/", json!({"compression": "zstd"})),
        ("report-gzip-1", "yaml.gz", json!({"compression": "gzip", "format": "yaml"})),
        ("report-away-1", "../away.json", json!({})),
    ] {
        let mut spec = spec;
        spec["destination"] = json!(format!("{}/{destination}", out.display()));
        let more = json!({"image": {"checksum": format!("sha256:{checksum}"), "format": "qcow2"}, "output": spec});
        folders.drop_job(&format!("{id}.json"), &inspect(id, &image, &more));
    }
    let root = image.parent().unwrap().to_str().unwrap();
    let _worker = folders.worker("w", &["--image-root", root, "--output-root", "out"]);

    let plain = folders.result("report-none-1");
    assert_eq!(plain["status"], "completed", "{plain}");
    assert_eq!(plain["data"]["image"]["sha256"], checksum);
    assert_eq!(plain["data"]["systems"][0]["operating_system"]["distribution"], "debian");
    assert!(plain["metrics"]["disk_read_bytes"].as_u64().unwrap() > fs::metadata(&image).unwrap().len(), "{plain}");
    let written: Value = serde_json::from_slice(&fs::read(out.join("plain.json")).unwrap()).unwrap();
    assert_eq!(written, plain["data"], "the file holds the report that is returned");

    let zstd = folders.result("report-zstd-1");
    let path = PathBuf::from(zstd["outputs"]["primary"].as_str().unwrap());
    assert_eq!(path, out.join("new/folder/report-zstd-1-inspect.json.zst"));
    assert_eq!(zstd["outputs"]["artifacts"][0]["sha256"], digest(&path));
    let unpacked: Value = serde_json::from_slice(&output("zstd -dc \"$1\"", &path)).unwrap();
    assert_eq!(unpacked["systems"], plain["data"]["systems"]);

    assert_eq!(folders.result("report-gzip-1")["status"], "completed");
    let yaml = String::from_utf8(output("gzip -dc \"$1\"", &out.join("yaml.gz"))).unwrap();
    assert!(yaml.contains("distribution: debian"), "{yaml}");

    let away = folders.result("report-away-1");
    assert_eq!(away["error"]["code"], "OUTPUT_FAILED", "{away}");
    assert!(!folders.path("away.json").exists());
    let left: Vec<_> = fs::read_dir(&out).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 3, "nothing half-written stays: {left:?}");
}

/// An encrypted system on two disks, of which the second is its `/srv`: the key lies beneath the keys root, and jobs name it.
/// Oracle: qemu-img encrypts (its LUKS driver), mke2fs makes the file systems.
#[test]
fn keys_are_named_and_never_told_and_several_disks_are_one_machine() {
    let found =
        |name: &str| ["/usr/bin", "/usr/sbin", "/sbin"].iter().any(|folder| Path::new(folder).join(name).exists());
    if !["qemu-img", "mke2fs"].into_iter().all(found) {
        assert!(std::env::var_os("CI").is_none(), "qemu-img and mke2fs must be there in continuous integration");
        return;
    }
    let folders = Folders::new();
    let images = folders.path("images");
    let keys = folders.path("keys");
    fs::create_dir(&keys).unwrap();
    fs::write(keys.join("fleet.key"), "open sesame\n").unwrap();
    fs::write(keys.join("wrong.key"), "let me in").unwrap();
    symlink("/etc/hostname", keys.join("escape.key")).unwrap();

    let tree = folders.path("tree");
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::create_dir_all(tree.join("usr")).unwrap();
    fs::create_dir_all(tree.join("srv")).unwrap();
    fs::write(tree.join("etc/os-release"), "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n").unwrap();
    fs::write(tree.join("etc/hostname"), "vault\n").unwrap();
    fs::write(tree.join("etc/fstab"), "LABEL=srv /srv ext4 defaults 0 2\n").unwrap();
    let run = |command: &str, args: &[&str]| {
        let output = Command::new(command).args(args).env("PATH", "/usr/bin:/usr/sbin:/sbin:/bin").output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let plain = text(&folders.path("plain.raw"));
    run("mke2fs", &["-q", "-F", "-t", "ext4", "-d", &text(&tree), &plain, "16M"]);
    let root = text(&images.join("root.luks"));
    let secret = "secret,id=key,data=open sesame";
    run(
        "qemu-img",
        &["convert", "--object", secret, "-f", "raw", "-O", "luks", "-o", "key-secret=key,iter-time=10", &plain, &root],
    );
    let srv = text(&images.join("srv.raw"));
    run("mke2fs", &["-q", "-F", "-t", "ext4", "-L", "srv", &srv, "4M"]);

    let cases = [
        ("opened", json!([{ "volume": "all", "file": "fleet.key" }]), "completed"),
        ("no-key", json!([]), "IMAGE_ENCRYPTED"),
        ("wrong-key", json!([{ "file": "wrong.key" }]), "IMAGE_ENCRYPTED"),
        ("no-such-key", json!([{ "file": "missing.key" }]), "VALIDATION_ERROR"),
        ("key-outside", json!([{ "file": "escape.key" }]), "VALIDATION_ERROR"),
    ];
    for (name, keys, _) in &cases {
        let more = json!({ "image": { "paths": [srv], "keys": keys } });
        folders.drop_job(&format!("{name}.json"), &inspect(&format!("keys-{name}"), Path::new(&root), &more));
    }
    let _worker = folders.worker("w", &["--image-root", "images", "--keys-root", "keys", "--slots", "2"]);
    for (name, _, expected) in &cases {
        let result = folders.result(&format!("keys-{name}"));
        assert!(!result.to_string().contains("sesame") && !result.to_string().contains("let me in"), "{result}");
        if *expected == "completed" {
            let system = &result["data"]["systems"][0];
            assert_eq!(system["operating_system"]["hostname"], "vault", "{result:#}");
            let mounts = system["mountpoints"].as_array().unwrap();
            assert!(mounts.iter().any(|mount| mount["path"] == "/srv" && mount["device"] == "/dev/sdb"), "{mounts:?}");
        } else {
            assert_eq!(result["error"]["code"], *expected, "{name}: {result:#}");
        }
    }
}

fn profile(id: &str, image: &Path, data: &Value) -> Value {
    let mut all = json!({"image": {"path": image}});
    for (name, value) in data.as_object().unwrap() {
        all[name] = value.clone();
    }
    json!({
        "version": "1.0", "job_id": id, "kind": "VMOperation", "operation": "guestkit.profile",
        "payload": {"type": "guestkit.profile.v1", "data": all},
    })
}

/// The small guest that the repository carries: its root has no password.
fn small_guest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/debian12-small.qcow2")
}

#[test]
fn a_guest_is_judged_and_what_is_critical_fails_the_job_that_says_so() {
    let folders = Folders::new();
    let image = folders.path("images").join("small.qcow2");
    fs::copy(small_guest(), &image).unwrap();
    let out = |name: &str, format: &str| json!({"destination": folders.path("out").join(name), "format": format});
    let waiver =
        |id: &str| json!({"id": id, "justification": "a test", "approver": "the tester", "expires": "2027-01-31"});
    // A critical check of our own, by an operator's rules, so that no content decides what this test sees.
    fs::create_dir(folders.path("rules")).unwrap();
    let rules = "- id: site.always\n  title: Whatever is there\n  severity: critical\n  profiles: [security]\n  \
        applies_to: [any]\n  check: {fact: 'sshd:Port', eq: 1}\n  remediation: None.\n";
    fs::write(folders.path("rules/site.yaml"), rules).unwrap();

    let all = json!({"all": true, "reference_time": "2026-01-31T00:00:00Z"});
    folders.drop_job(
        "a.json",
        &profile("profile-all-1", &image, &json!({"options": all, "output": out("a.json", "json")})),
    );
    let fail = json!({"fail_on_critical": true});
    folders.drop_job(
        "b.json",
        &profile("profile-fail-1", &image, &json!({"options": fail, "output": out("b.sarif", "sarif")})),
    );
    let waived =
        json!({"fail_on_critical": true, "waivers": [waiver("site.always")], "severity_threshold": "critical"});
    folders.drop_job("c.json", &profile("profile-waived-1", &image, &json!({"options": waived})));
    let unknown = json!({"waivers": [waiver("site.nothing"), waiver("mig.clean-shutdown")]});
    folders.drop_job("d.json", &profile("profile-unknown-1", &image, &json!({"options": unknown})));
    let _worker = folders.worker("w", &["--image-root", "images", "--output-root", "out", "--rules", "rules"]);

    let all = folders.result("profile-all-1");
    assert_eq!(all["status"], "completed", "{all:#}");
    let report = &all["data"];
    assert_eq!(report["image_path"], json!(image));
    assert_eq!(report["reference_time"], "2026-01-31T00:00:00Z");
    assert!(report["content_version"].as_str().unwrap().contains("+local."), "{}", report["content_version"]);
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(json!(checks.len()), report["summary"]["checks"]);
    assert!(checks.iter().all(|check| check["description"].as_str().is_some_and(|reason| !reason.is_empty())));
    let written: Value = serde_json::from_slice(&fs::read(folders.path("out/a.json")).unwrap()).unwrap();
    assert_eq!(&written, report, "the file holds the report that is returned");

    let failed = folders.result("profile-fail-1");
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("CRITICAL_FINDINGS")));
    assert_eq!(failed["error"]["retry_recommended"], false);
    let named = failed["error"]["details"]["checks"].as_array().unwrap();
    assert!(named.contains(&json!("site.always")), "{}", failed["error"]);
    assert!(failed["data"]["findings"].as_array().is_some_and(|findings| !findings.is_empty()));
    let sarif: Value = serde_json::from_slice(&fs::read(folders.path("out/b.sarif")).unwrap()).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    assert_eq!(failed["outputs"]["artifacts"][0]["media_type"], "application/sarif+json");

    let waived = folders.result("profile-waived-1");
    let finding = waived["data"]["findings"].as_array().unwrap().iter().find(|one| one["id"] == "site.always").unwrap();
    assert_eq!((&finding["status"], &finding["waiver"]["approver"]), (&json!("waived"), &json!("the tester")));
    let counted = waived["data"]["summary"]["by_severity"]["critical"].as_u64().unwrap();
    assert_eq!(waived["status"] == "failed", counted > 0, "{:#}", waived["data"]["summary"]);
    let before = failed["data"]["summary"]["by_severity"]["critical"].as_u64().unwrap();
    assert_eq!(counted + 1, before);

    let unknown = folders.result("profile-unknown-1");
    assert_eq!(unknown["error"]["code"], "VALIDATION_ERROR");
    let said = unknown["error"]["message"].as_str().unwrap();
    assert!(said.contains("\"site.nothing\": there is no such check") && said.contains("mig.clean-shutdown"), "{said}");
}

#[test]
fn a_profile_tells_its_progress_and_never_goes_back() {
    let settings = guestkit_worker::local::Settings::unrestricted().unwrap();
    let document = profile("profile-steps-1", &small_guest().canonicalize().unwrap(), &json!({}));
    let document = guestkit_protocol::document::parse(document.to_string().as_bytes()).unwrap();
    let mut steps = Vec::new();
    let result = guestkit_worker::local::run(&document, &settings, &mut |step| {
        steps.push((step.phase, step.progress_percent));
    });
    assert_eq!(result.status, "completed", "{:?}", result.error);
    let mut phases: Vec<&str> = steps.iter().map(|(phase, _)| phase.as_str()).collect();
    phases.dedup();
    assert_eq!(phases, ["validation", "inspection", "profile", "analysis", "export", "complete"]);
    assert!(steps.is_sorted_by(|a, b| a.1 <= b.1), "{steps:?}");
    assert_eq!(steps.last().map(|step| step.1), Some(100.0));
}

#[test]
fn rules_that_do_not_hold_keep_a_worker_from_starting() {
    let folders = Folders::new();
    fs::create_dir(folders.path("rules")).unwrap();
    fs::write(folders.path("rules/site.yaml"), "- id: ssh.permit-rot-login\n  severity: low\n").unwrap();
    let mut worker = folders.worker("w", &["--rules", "rules"]);
    let status = worker.child.wait().unwrap();
    assert_eq!(status.code(), Some(2), "{}", worker.log());
    assert!(worker.log().contains("site.yaml: ssh.permit-rot-login: there is no such check"), "{}", worker.log());
}
