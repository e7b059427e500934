//! Reads the rules of the profiles, so that a rule that cannot hold is no program: an unknown function or fact, an id that is
//! there twice, a mapping that is missing, a check without a guest that passes it and one that does not.
#![allow(clippy::panic, reason = "a build script tells what is wrong by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::Value;

#[path = "src/profile/rule.rs"]
#[allow(dead_code, unreachable_pub, reason = "the program uses what this does not")]
mod rule;

use rule::Rule;

fn main() {
    println!("cargo::rerun-if-changed=src/profile/rules");
    println!("cargo::rerun-if-changed=src/profile/fixtures");
    println!("cargo::rerun-if-changed=src/profile/rule.rs");
    let rules = rules();
    let (mut functions, mut facts) = (BTreeSet::new(), BTreeSet::new());
    for rule in &rules {
        rule.check.names(&mut functions, &mut facts);
        let others = rule.when.iter().map(|when| &when.holds).chain(rule.escalate.iter().map(|one| &one.when));
        others.for_each(|check| check.names(&mut functions, &mut facts));
    }
    check_fixtures(&rules);
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let json = serde_json::to_string(&rules).expect("rules have a JSON form");
    fs::write(out.join("rules.json"), json).expect("the rules can be written");
    fs::write(out.join("names.rs"), names(&functions, &facts)).expect("the names can be written");
}

/// YAML files of a folder of `src/profile`, by name.
fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new("src/profile").join(folder);
    let entries =
        fs::read_dir(&folder).expect("the folder is there").map(|entry| entry.expect("it can be read").path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    paths.sort();
    let read = |path: PathBuf| (path.clone(), fs::read_to_string(path).expect("the file can be read"));
    paths.into_iter().map(read).collect()
}

fn rules() -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, text) in files("rules") {
        let read: Vec<Rule> = match serde_saphyr::from_str(&text) {
            Ok(read) => read,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        for rule in read {
            assert!(seen.insert(rule.id.clone()), "{}: {} is there twice", path.display(), rule.id);
            if let Some(flaw) = rule.flaw() {
                panic!("{}: {}: {flaw}", path.display(), rule.id);
            }
            rules.push(rule);
        }
    }
    rules.sort_by(|a, b| a.id.cmp(&b.id));
    rules
}

/// Checks that no guest that is written down can show both ways, and why.
const WITHOUT_GUESTS: [(&str, &str); 4] = [
    ("perf.db-memory", "how much memory the machine has is on no disk, so that it never passes or fails"),
    ("perf.lvm-snapshots", "volume groups are shown on images of the corpus"),
    ("perf.raid-degraded", "arrays are shown on images of the corpus"),
    ("perf.sar-history", "what is recorded is for people to judge, so that it never passes or fails"),
];

/// Each check has guests that pass it and guests that do not; no guest is of a check that is not there.
fn check_fixtures(rules: &[Rule]) {
    let mut verdicts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in files("fixtures") {
        let read: BTreeMap<String, Vec<Value>> = match serde_saphyr::from_str(&text) {
            Ok(read) => read,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        for (id, guests) in read {
            let told = guests.iter().filter_map(|guest| guest.get("expect")).filter_map(Value::as_str);
            verdicts.entry(id).or_default().extend(told.map(str::to_owned));
        }
    }
    let unknown: Vec<_> = verdicts.keys().filter(|id| !rules.iter().any(|rule| rule.id == **id)).collect();
    assert!(unknown.is_empty(), "guests of checks that are not there: {unknown:?}");
    let bad = |rule: &&Rule| {
        let verdicts = verdicts.get(&rule.id);
        let has = |verdict: &str| verdicts.is_some_and(|verdicts| verdicts.contains(verdict));
        !(has("pass") && (has("fail") || has("warn")))
    };
    let bare: Vec<_> = rules.iter().filter(bad).map(|rule| rule.id.as_str()).collect();
    let bare: Vec<_> = bare.into_iter().filter(|id| !WITHOUT_GUESTS.iter().any(|(known, _)| known == id)).collect();
    assert!(bare.is_empty(), "checks without a guest that passes and one that does not: {}", bare.join(" "));
}

/// The functions and facts that the rules name, found by name; one that is not there does not compile.
fn names(functions: &BTreeSet<String>, facts: &BTreeSet<String>) -> String {
    let mut text = String::from("fn function(name: &str) -> Option<Function> {\n    Some(match name {\n");
    for name in functions {
        let path = name.replace('-', "_").replace('.', "::");
        writeln!(text, "        {name:?} => checks::{path},").expect("text can be written");
    }
    text.push_str(
        "        _ => return None,\n    })\n}\n\nfn family(name: &str) -> Option<Family> {\n    Some(match name {\n",
    );
    for name in facts {
        writeln!(text, "        {name:?} => facts::{},", name.replace('-', "_")).expect("text can be written");
    }
    text.push_str("        _ => return None,\n    })\n}\n");
    text
}
