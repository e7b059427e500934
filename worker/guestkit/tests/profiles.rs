//! Profiles of whole guests, against truth that others computed: `expected.tsv` of the corpus, made from `sshd -T`, `find`,
//! `dpkg-query`, `systemctl --root`, `visudo` and `stat` on the same trees.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may end where it finds that something is wrong"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use guestkit::image::Roots;
use guestkit::profile::report::ProfileReport;
use guestkit::profile::{Content, Profile, ProfileOptions, Semantics};
use guestkit::{Disk, ImageSpec, Limits};

mod support;

use support::{has_tools, run};

const GUESTS: [&str; 3] = ["base", "weak", "vm"];

fn profile(image: &Path, options: &ProfileOptions) -> ProfileReport {
    let disk = Disk::open(&[ImageSpec::recognised(image)], &Roots::anywhere(), &Limits::default()).unwrap();
    disk.profile(&Content::embedded(), options, &mut ())
}

fn everything() -> ProfileOptions {
    ProfileOptions { profiles: Profile::ALL.to_vec(), all: true, ..ProfileOptions::default() }
}

/// A row of the table that `cargo xtask conformance profiles` puts into the README: against what, cases, how many agree, and what
/// is to be said of the others.
fn record(row: &str) {
    println!("{row}");
    let Some(report) = std::env::var_os("GUESTKIT_CONFORMANCE_REPORT") else { return };
    let mut report = fs::File::options().create(true).append(true).open(report).unwrap();
    writeln!(report, "{row}").unwrap();
}

fn guest(corpus: &Path, name: &str) -> PathBuf {
    corpus.join(format!("guests/profile-debian12-{name}.qcow2"))
}

/// Every verdict that the corpus knows, of every guest. `GUESTKIT_CHECKS=file.` looks at those alone whose ids begin so.
#[test]
fn verdicts_are_those_of_independent_oracles() {
    let Some(corpus) = support::corpus() else { return };
    let table = fs::read_to_string(corpus.join("profile/expected.tsv")).unwrap();
    let only = std::env::var("GUESTKIT_CHECKS").unwrap_or_default();
    let mut verdicts: BTreeMap<&str, BTreeMap<String, (String, String)>> = BTreeMap::new();
    for name in GUESTS {
        let report = profile(&guest(&corpus, name), &everything());
        let told = report.checks.into_iter().map(|check| (check.id, (check.status, check.description)));
        verdicts.insert(name, told.collect());
    }
    let mut differ = String::new();
    let (mut agree, mut cells) = (0, 0);
    for line in table.lines().skip(1) {
        let mut columns = line.split('\t');
        let check = columns.next().unwrap();
        for (name, wanted) in GUESTS.into_iter().zip(columns) {
            if !check.starts_with(&only) {
                continue;
            }
            cells += 1;
            match verdicts[name].get(check) {
                Some((status, _)) if status == wanted => agree += 1,
                Some((status, why)) => writeln!(differ, "{check} {name}: {status} ({why}), not {wanted}").unwrap(),
                None => writeln!(differ, "{check} {name}: there is no such check").unwrap(),
            }
        }
    }
    record(&format!(
        "| `expected.tsv`: `sshd -T`, `find`, `dpkg-query`, `systemctl --root`, `visudo`, `stat` | {cells} | {agree} | |"
    ));
    assert!(differ.is_empty(), "{agree} of {cells} agree\n{differ}");
}

/// The rest of the verdicts that the catalogue of checks states, judged by hand from oracles and parsed files.
#[test]
fn verdicts_are_those_that_people_judged() {
    let Some(corpus) = support::corpus() else { return };
    let table = include_str!("fixtures/profile-hand-judged.tsv");
    let only = std::env::var("GUESTKIT_CHECKS").unwrap_or_default();
    let reports = GUESTS.map(|name| profile(&guest(&corpus, name), &everything()));
    let mut differ = String::new();
    let (mut agree, mut cells) = (0, 0);
    let rows = table.lines().filter(|line| !line.starts_with('#') && line.starts_with(&only)).skip(1);
    for line in rows {
        let mut columns = line.split('\t');
        let check = columns.next().unwrap();
        for ((name, report), wanted) in GUESTS.iter().zip(&reports).zip(columns) {
            cells += 1;
            match report.checks.iter().find(|found| found.id == check) {
                Some(found) if found.status == wanted => agree += 1,
                Some(found) => {
                    let (status, why) = (&found.status, &found.description);
                    writeln!(differ, "{check} {name}: {status} ({why}), not {wanted}").unwrap();
                }
                None => writeln!(differ, "{check} {name}: there is no such check").unwrap(),
            }
        }
    }
    record(&format!("| judged by hand from oracles and parsed files | {cells} | {agree} | |"));
    assert!(differ.is_empty(), "\n{differ}");
}

/// OpenSCAP's verdicts with the rules of ComplianceAsCode on the same three trees. Class A must agree; class E agrees only with
/// explicit semantics; class X is where OpenSCAP is wrong offline. A check that stands for several rules fails where one does.
#[test]
fn verdicts_agree_with_openscap_where_it_can_tell() {
    let Some(corpus) = support::corpus() else { return };
    let table = fs::read_to_string(corpus.join("profile/ssg-agreement.tsv")).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split('\t').collect()).collect();
    let effective = GUESTS.map(|name| profile(&guest(&corpus, name), &everything()));
    let explicit = ProfileOptions { semantics: Semantics::Explicit, ..everything() };
    let explicit = GUESTS.map(|name| profile(&guest(&corpus, name), &explicit));
    let letters: BTreeMap<&str, &str> = rows.iter().map(|row| (row[0], row[2])).collect();
    let mut differ = String::new();
    let mut counts: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for row in &rows {
        let (rule, wanted, class) = (row[0], row[2], row[3]);
        let reports = if class == "E" { &explicit } else { &effective };
        let mut same = true;
        let mut told = String::new();
        let mut compared = 0;
        for ((at, name), report) in GUESTS.iter().enumerate().zip(reports) {
            let letter = &wanted[at..=at];
            let mapped: Vec<_> =
                report.checks.iter().filter(|check| check.mappings.ssg.iter().any(|ssg| ssg == rule)).collect();
            if mapped.is_empty() || letter == "-" || mapped.iter().all(|check| check.status == "notapplicable") {
                continue;
            }
            compared += 1;
            let fails = mapped.iter().any(|check| matches!(check.status.as_str(), "fail" | "warn"));
            // Another rule of the same check may be what fails it.
            let others = mapped.iter().flat_map(|check| &check.mappings.ssg).filter(|other| *other != rule);
            let another_fails =
                others.clone().any(|other| letters.get(other.as_str()).is_none_or(|letters| &letters[at..=at] != "P"));
            let agrees = match letter {
                "F" => fails,
                _ => !fails || another_fails,
            };
            if !agrees {
                same = false;
                let ours: Vec<_> = mapped
                    .iter()
                    .map(|check| format!("{} {}: {}", check.id, check.status, check.description))
                    .collect();
                write!(told, "\n    {name} {letter}: {}", ours.join("; ")).unwrap();
            }
        }
        if compared == 0 {
            continue;
        }
        let count = counts.entry(class).or_default();
        count.0 += 1;
        count.1 += u32::from(same);
        let wrong = match class {
            "A" | "E" => !same && !EXPLAINED.iter().any(|(known, _)| *known == rule),
            _ => false,
        };
        if wrong {
            writeln!(differ, "{rule} ({class}){told}").unwrap();
        }
    }
    let explained: Vec<_> = EXPLAINED.iter().map(|(rule, why)| format!("{rule}: {why}")).collect();
    for (class, what) in [
        ("A", "OpenSCAP 1.4.2 with ComplianceAsCode, rules it can tell offline"),
        ("E", "OpenSCAP, rules that count what is written down, with explicit semantics"),
        ("X", "OpenSCAP, rules whose answer offline has nothing to do with the disk"),
    ] {
        let (rules, same) = counts.get(class).copied().unwrap_or_default();
        let said = match class {
            "A" => explained.join("; "),
            "X" => "where they agree, the truth of `expected.tsv` happens to be what it always says".to_owned(),
            _ => String::new(),
        };
        record(&format!("| {what} | {rules} | {same} | {said} |"));
    }
    assert!(differ.is_empty(), "{counts:?}\n{differ}");
    // A pass without evidence, or a failure of what was set right, is not repeated.
    let (rules, same) = counts["X"];
    assert_eq!(rules - same, BASELESS, "{counts:?}");
}

/// Rules that OpenSCAP answers without a look at the disk, and otherwise than the disk has it.
const BASELESS: u32 = 12;

/// Rules of ComplianceAsCode that our checks knowingly judge otherwise, and why.
const EXPLAINED: [(&str, &str); 3] = [
    ("file_permission_user_init_files", "it wants 0740; ours asks that nobody else can write them"),
    (
        "journald_disable_forward_to_syslog",
        "it is one of two ways that exclude each other; with rsyslog the journal must be handed on",
    ),
    (
        "set_password_hashing_algorithm_logindefs",
        "it wants one algorithm by name; ours takes every sound one, and PAM's first",
    ),
];

/// What a YAML guest cannot hold: an array with and without its members, a volume group.
#[test]
fn arrays_and_volume_groups_are_judged_on_real_disks() {
    let Some(corpus) = support::corpus() else { return };
    let status = |images: &[&str], check: &str| {
        let specs: Vec<_> = images.iter().map(|name| ImageSpec::recognised(corpus.join("guests").join(name))).collect();
        let disk = Disk::open(&specs, &Roots::anywhere(), &Limits::default()).unwrap();
        let report = disk.profile(&Content::embedded(), &everything(), &mut ());
        report.checks.into_iter().find(|found| found.id == check).map(|found| found.status)
    };
    assert_eq!(status(&["md1.1.raw", "md1.2.raw"], "perf.raid-degraded").as_deref(), Some("pass"));
    assert_eq!(status(&["md1.1.raw"], "perf.raid-degraded").as_deref(), Some("fail"));
    assert_eq!(status(&["lvm.raw"], "perf.lvm-snapshots").as_deref(), Some("pass"));
}

/// A root that rpm 4.18 filled with a package, in an image of its own after `change`; the states and subjects of what is judged
/// by what packages ship.
fn installed_by_rpm(change: &dyn Fn(&Path)) -> Vec<(String, String, Vec<String>)> {
    let folder = tempfile::tempdir().unwrap();
    let (root, image) = (folder.path().join("root"), folder.path().join("a.raw"));
    fs::create_dir(&root).unwrap();
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rpm/installed.tar.xz");
    run("tar", &["-xJf", archive, "-C", root.to_str().unwrap()]);
    change(&root);
    run("truncate", &["-s", "16M", image.to_str().unwrap()]);
    run("mke2fs", &["-q", "-t", "ext4", "-d", root.to_str().unwrap(), image.to_str().unwrap()]);
    let judged = ["file.suid-sgid-unexpected", "pkg.integrity"];
    let checks = profile(&image, &everything()).checks.into_iter();
    checks
        .filter(|check| judged.contains(&check.id.as_str()))
        .map(|check| (check.id, check.status, check.subjects))
        .collect()
}

#[test]
fn what_rpm_installed_is_told_from_what_was_changed_since() {
    if !has_tools(&["mke2fs", "tar"]) {
        return;
    }
    let told = |id: &str, status: &str, subjects: &[&str]| {
        (id.to_owned(), status.to_owned(), subjects.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>())
    };
    let (set_id, integrity) = ("file.suid-sgid-unexpected", "pkg.integrity");
    assert_eq!(installed_by_rpm(&|_| ()), [told(set_id, "pass", &[]), told(integrity, "pass", &[])]);
    // Of the same length and time: the time of change alone tells that somebody was there.
    let changed = installed_by_rpm(&|root| {
        let path = root.join("usr/bin/one");
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let text = fs::read_to_string(&path).unwrap().replace("one", "oNe");
        fs::write(&path, text).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        fs::remove_file(root.join("usr/lib64/libx.so.1")).unwrap();
        fs::write(root.join("etc/x.conf"), "mine\n").unwrap();
        run("chmod", &["u+s", root.join("usr/bin/two").to_str().unwrap()]);
    });
    assert_eq!(changed, [told(set_id, "fail", &["/usr/bin/two"]), told(integrity, "fail", &["/usr/bin/one"])]);
}
