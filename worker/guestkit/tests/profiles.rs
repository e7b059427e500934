//! Profiles of whole guests, against truth that others computed: `expected.tsv` of the corpus, made from `sshd -T`, `find`,
//! `dpkg-query`, `systemctl --root`, `visudo` and `stat` on the same trees.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use guestkit::image::Roots;
use guestkit::profile::report::ProfileReport;
use guestkit::profile::{Content, Profile, ProfileOptions};
use guestkit::{Disk, ImageSpec, Limits};

#[allow(dead_code, reason = "this uses some of it")]
mod support;

const GUESTS: [&str; 3] = ["base", "weak", "vm"];

fn profile(image: &Path, options: &ProfileOptions) -> ProfileReport {
    let disk = Disk::open(&[ImageSpec::recognised(image)], &Roots::anywhere(), &Limits::default()).unwrap();
    disk.profile(&Content::embedded(), options, &mut ())
}

fn everything() -> ProfileOptions {
    ProfileOptions { profiles: Profile::ALL.to_vec(), all: true, ..ProfileOptions::default() }
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
    assert!(differ.is_empty(), "{agree} of {cells} agree\n{differ}");
}
