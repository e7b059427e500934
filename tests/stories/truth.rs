//! What a report says, against tools that are not ours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::house::{Answer, COMPLETED, binaries, small_guest, text};

fn local_inspect(image: &Path) -> Value {
    let mut command = binaries().command("guestkit");
    let output = command.args(["local", "inspect", "-o", "json", text(image)]).output().unwrap();
    Answer::of(output).expect_code(COMPLETED).json()
}

fn corpus() -> Option<PathBuf> {
    let folder = std::env::var_os("GUESTKIT_CORPUS").map(PathBuf::from);
    assert!(folder.is_some() || std::env::var_os("CI").is_none(), "CI runs with the corpus: set GUESTKIT_CORPUS");
    if folder.is_none() {
        println!("corpus not present");
    }
    folder
}

/// Packages by name with their versions, as dpkg's own database in the image lists those installed; read by `debugfs`.
#[test]
fn the_small_guest_agrees_with_debugfs() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("guest.raw");
    let converted = Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(small_guest()).arg(&raw).status();
    assert!(converted.unwrap().success());
    // The root file system begins at sector 8192, as `sfdisk -d` says.
    let status = debugfs(&raw, 8192 * 512, "cat /var/lib/dpkg/status");
    let hostname = debugfs(&raw, 8192 * 512, "cat /etc/hostname");

    let report = local_inspect(&small_guest());
    let system = &report["systems"][0];
    assert_eq!(system["operating_system"]["hostname"], hostname.trim());
    assert_eq!(packages(system), installed(&status));
    assert_eq!(report["systems"].as_array().unwrap().len(), 1);
}

fn debugfs(raw: &Path, offset: u64, request: &str) -> String {
    let device = format!("{}?offset={offset}", raw.display());
    let output =
        Command::new("debugfs").env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").args(["-R", request, &device]).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

fn installed(status: &str) -> BTreeMap<String, String> {
    let field = |stanza: &str, name: &str| {
        stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
    };
    status
        .split("\n\n")
        .filter(|stanza| field(stanza, "Status").is_some_and(|status| status.ends_with(" installed")))
        .map(|stanza| (field(stanza, "Package").unwrap(), field(stanza, "Version").unwrap()))
        .collect()
}

fn packages(system: &Value) -> BTreeMap<String, String> {
    let list = system["packages"]["packages"].as_array().unwrap();
    let text = |package: &Value, name: &str| package[name].as_str().unwrap().to_owned();
    list.iter().map(|package| (text(package, "name"), text(package, "full_version"))).collect()
}

/// The few facts that scripts look for at the top, which say what the first system says in full.
#[test]
fn the_first_system_stands_at_the_top_in_short() {
    let report = local_inspect(&small_guest());
    let info = Command::new("qemu-img").args(["info", "--output=json"]).arg(small_guest()).output().unwrap();
    let info: Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!(report["version"], "1.0");
    assert_eq!((&report["image"]["format"], &report["image"]["size_bytes"]), (&info["format"], &info["virtual-size"]));
    let system = &report["systems"][0];
    for field in ["type", "distribution", "version", "hostname"] {
        assert_eq!(report["operating_system"][field], system["operating_system"][field], "{field}");
    }
    assert_eq!(report["packages"]["manager"], "apt");
    for field in ["count", "top_packages"] {
        assert_eq!(report["packages"][field], system["packages"][field], "{field}");
    }
    assert_eq!(report["services"]["count"], system["services"]["count"]);
    assert_eq!(report["services"]["active"], system["services"]["enabled"].as_array().unwrap().len());
    assert_eq!(report["services"]["basis"], "enabled");
    for interface in report["network"]["interfaces"].as_array().unwrap() {
        assert!(interface["name"].is_string() && interface["state"].is_string(), "{interface}");
    }
    for (part, field) in [("selinux", "enabled"), ("apparmor", "enabled"), ("firewall", "active")] {
        assert!(report["security"][part][field].is_boolean(), "{part}.{field}");
    }
}

/// `dpkg-query -W` ran in the guests before they were packed.
#[test]
fn the_corpus_guests_agree_with_dpkg_query() {
    let Some(corpus) = corpus() else { return };
    for guest in ["base", "weak", "vm"] {
        let report = local_inspect(&corpus.join(format!("guests/profile-debian12-{guest}.qcow2")));
        let oracle = std::fs::read_to_string(corpus.join(format!("profile/oracle/dpkg-{guest}.tsv"))).unwrap();
        let expected: BTreeMap<String, String> = oracle
            .lines()
            .map(|line| line.split('\t').collect::<Vec<_>>())
            .filter(|fields| fields[2].ends_with("installed"))
            .map(|fields| (fields[0].to_owned(), fields[1].to_owned()))
            .collect();
        assert_eq!(packages(&report["systems"][0]), expected, "{guest}");
    }
}

/// The same report whether the job went through a fleet or ran here.
#[test]
fn a_report_is_the_same_through_the_fleet() {
    let house = crate::house::House::new(&["one"]);
    let through_fleet =
        house.submit_and_watch(&crate::house::inspect("same-report-1", &house.guest())).expect_code(COMPLETED).json();
    assert_eq!(timeless(through_fleet), timeless(local_inspect(&house.guest())));
}

/// A report without how long it took.
fn timeless(mut report: Value) -> Value {
    let summary = report["summary"].as_object_mut().unwrap();
    assert!(summary.remove("duration_seconds").is_some());
    report
}
