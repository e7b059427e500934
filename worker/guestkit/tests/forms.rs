//! Reports in other tools' forms, judged by those tools' own validators: cyclonedx-python-lib and spdx-tools (PyPI), Microsoft's
//! sarif-multitool (npm), and xmllint for whether XML is well-formed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use guestkit::export::{Form, ProfileForm};
use guestkit::guest::InspectOptions;
use guestkit::guest::report::InspectReport;
use guestkit::image::Roots;
use guestkit::profile::{Content, Profile, ProfileOptions};
use guestkit::{Disk, ImageSpec, Limits};
use serde_json::Value;
use support::{corpus, has_tools};

const GUESTS: [&str; 4] =
    ["guests/profile-debian12-base.qcow2", "distros/kali2024.qcow2", "guests/btrfs-suse.raw", "guest-of-no-system.raw"];

fn report(corpus: &Path, guest: &str) -> InspectReport {
    let path = corpus.join(guest);
    if !path.exists() {
        // A disk with nothing on it.
        return InspectReport { image_path: guest.to_owned(), ..InspectReport::default() };
    }
    let disk = Disk::open(&[ImageSpec::recognised(path)], &Roots::anywhere(), &Limits::default()).unwrap();
    disk.inspect(&InspectOptions::default(), &mut ())
}

/// The report in one form, in a file that lives as long as the folder.
fn written(folder: &Path, report: &InspectReport, form: Form) -> String {
    let path = folder.join(format!("report.{}", form.extension()));
    fs::write(&path, form.render(report, SystemTime::now())).unwrap();
    path.to_str().unwrap().to_owned()
}

fn assert_accepts(tool: &str, arguments: &[&str], guest: &str) {
    let output = Command::new(tool).args(arguments).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{guest}: {tool}: {}", said.chars().take(3000).collect::<String>());
}

#[test]
fn bills_of_materials_name_everything_that_is_installed() {
    let Some(corpus) = corpus() else { return };
    let report = report(&corpus, GUESTS[0]);
    let packages = report.systems[0].packages.as_ref().unwrap();
    let parse = |form: Form| -> Value { serde_json::from_str(&form.render(&report, SystemTime::now())).unwrap() };
    let cyclonedx = parse(Form::CycloneDx);
    let components = cyclonedx["components"].as_array().unwrap();
    assert_eq!(components.len() as u64, packages.count.unwrap() + 1);
    let spdx = parse(Form::Spdx);
    assert_eq!(spdx["packages"].as_array().unwrap().len() as u64, packages.count.unwrap() + 2);
    for package in packages.packages.iter().filter(|package| package.state == "installed") {
        let purl = package.purl.as_deref().unwrap();
        assert!(components.iter().any(|component| component["purl"] == purl), "{purl}");
    }
    // The same report is the same document.
    assert_eq!(cyclonedx["serialNumber"], parse(Form::CycloneDx)["serialNumber"]);
}

#[test]
fn cyclonedx_is_valid_by_its_schema() {
    let Some(corpus) = corpus() else { return };
    let has_library = Command::new("python3").args(["-c", "import cyclonedx.validation.json"]).output();
    if !has_library.is_ok_and(|output| output.status.success()) {
        println!("cyclonedx-python-lib is not installed");
        return;
    }
    const CHECK: &str = "import sys\nfrom cyclonedx.validation.json import JsonStrictValidator\n\
        from cyclonedx.schema import SchemaVersion\n\
        error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())\n\
        sys.exit(str(error)[:2000] if error else 0)\n";
    let folder = tempfile::tempdir().unwrap();
    for guest in GUESTS {
        let path = written(folder.path(), &report(&corpus, guest), Form::CycloneDx);
        assert_accepts("python3", &["-c", CHECK, &path], guest);
    }
}

#[test]
fn spdx_is_valid_by_its_tools() {
    let Some(corpus) = corpus() else { return };
    if !has_tools(&["pyspdxtools"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for guest in GUESTS {
        let path = written(folder.path(), &report(&corpus, guest), Form::Spdx);
        assert_accepts("pyspdxtools", &["-i", &path], guest);
    }
}

/// By the schema of OASIS, and the further rules that viewers rely on; what these only recommend is a warning.
#[test]
fn sarif_is_valid_by_its_tool() {
    let Some(corpus) = corpus() else { return };
    if !has_tools(&["sarif-multitool"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for guest in ["guests/profile-debian12-weak.qcow2", "guests/profile-debian12-vm.qcow2", "guests/btrfs-suse.raw"] {
        let disk = Disk::open(&[ImageSpec::recognised(corpus.join(guest))], &Roots::anywhere(), &Limits::default());
        let options = ProfileOptions { profiles: Profile::ALL.to_vec(), all: true, ..ProfileOptions::default() };
        let report = disk.unwrap().profile(&Content::embedded(), &options, &mut ());
        let path = folder.path().join("report.sarif");
        fs::write(&path, ProfileForm::Sarif.render(&report)).unwrap();
        let output = Command::new("sarif-multitool")
            .args(["validate", "--log", "ForceOverwrite", "--output"])
            .args([&folder.path().join("judged.sarif"), &path])
            .env("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("1 files scanned"), "{guest}: {said}");
        let errors: Vec<_> = said.lines().filter(|line| line.contains(": error ")).collect();
        assert!(errors.is_empty(), "{guest}: {errors:#?}");
    }
}

#[test]
fn xml_is_well_formed() {
    let Some(corpus) = corpus() else { return };
    if !has_tools(&["xmllint"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for guest in GUESTS {
        let path = written(folder.path(), &report(&corpus, guest), Form::VirtInspector);
        assert_accepts("xmllint", &["--noout", &path], guest);
    }
}

/// Whatever a report says, and a report that came back from its own JSON says the same.
#[test]
fn reports_survive_their_own_json() {
    let Some(corpus) = corpus() else { return };
    for guest in GUESTS {
        let report = report(&corpus, guest);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(serde_json::from_value::<InspectReport>(json).unwrap(), report, "{guest}");
    }
}
