//! Databases of other people against what `rpm -qa` says of them, databases of ours in every store, and changed ones.

use std::fs;
use std::path::PathBuf;

use crate::guest::linux::fixture::Fixture;
use crate::limits::Limits;

use super::header::tests::blob;
use super::*;

fn corpus() -> Option<PathBuf> {
    let corpus = std::env::var_os("GUESTKIT_CORPUS").map(|corpus| PathBuf::from(corpus).join("rpmdb"));
    assert!(corpus.is_some() || std::env::var_os("CI").is_none(), "GUESTKIT_CORPUS must be set");
    if corpus.is_none() {
        println!("corpus not present");
    }
    corpus
}

/// Store, file of the corpus, and what `rpm -qa` (of the ndb one: go-rpmdb's tests) lists of it.
const SAMPLES: [(Store, &str, &str); 4] = [
    (Store::Sqlite, "cbl-mariner-2.0/rpmdb.sqlite", "cbl-mariner-2.0__rpmdb.sqlite.rpm-qa.tsv"),
    (Store::Ndb, "sle15-bci/Packages.db", "sle15-bci__Packages.db.upstream.tsv"),
    (Store::Bdb, "libuuid/Packages", "libuuid__Packages.rpm-qa.tsv"),
    (Store::Bdb, "scalibr-Packages_epoch", "scalibr-Packages_epoch.rpm-qa.tsv"),
];

fn read_bytes(store: Store, bytes: &Vec<u8>) -> Result<Found> {
    let files = DatabaseFiles { main: bytes, log: None, journal: None };
    read_store(store, files, &OperatingSystem::default(), &Budget::new(&Limits::default()))
}

/// `rpm -qa`: name, epoch, version, release, architecture, source package, size, time of installation, vendor, licence.
#[test]
fn packages_agree_with_rpm() {
    let Some(corpus) = corpus() else { return };
    for (store, file, truth) in SAMPLES {
        let found = read_bytes(store, &fs::read(corpus.join(file)).unwrap()).unwrap();
        assert_eq!(found.damage.count, 0, "{file}: {:?}", found.damage);
        let truth = fs::read_to_string(corpus.join("truth").join(truth)).unwrap();
        let columns: Vec<&str> =
            truth.lines().next().unwrap().trim_start_matches('#').split("  ").next().unwrap().split('\t').collect();
        let mut expected: Vec<Vec<&str>> =
            truth.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect()).collect();
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let mut told: Vec<Vec<String>> = found
            .packages
            .iter()
            .map(|package| {
                let field = |column: &&str| match *column {
                    "name" => package.name.clone(),
                    "epoch" => package.epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
                    "version" => package.version.clone(),
                    "release" => text(&package.release),
                    "arch" => text(&package.arch),
                    "sourcerpm" => match &package.source_version {
                        Some(version) => format!("{}-{version}.src.rpm", text(&package.source)),
                        None => String::new(),
                    },
                    "size" => package.installed_size_bytes.unwrap_or(0).to_string(),
                    "installtime" => {
                        let time: jiff::Timestamp = package.installed_at.as_ref().unwrap().parse().unwrap();
                        time.as_second().to_string()
                    }
                    "vendor" => text(&package.vendor),
                    "license" => text(&package.license),
                    other => panic!("{other}"),
                };
                columns.iter().map(field).collect()
            })
            .collect();
        for row in &mut expected {
            row.iter_mut().filter(|value| **value == "(none)").for_each(|value| *value = "");
            row.resize(columns.len(), "");
        }
        expected.sort();
        told.sort();
        assert_eq!(told.len(), expected.len(), "{file}");
        for (told, expected) in told.iter().zip(&expected) {
            assert_eq!(told, expected, "{file}");
        }
    }
}

/// What rpm itself cannot open is an error that says why.
#[test]
fn files_that_are_no_database_are_refused() {
    let Some(corpus) = corpus() else { return };
    for file in ["scalibr-empty.sqlite", "scalibr-invalid"] {
        let bytes = fs::read(corpus.join(file)).unwrap();
        for store in Store::ALL {
            let error = read_bytes(store, &bytes).map(|found| found.packages.len()).unwrap_err();
            assert!(error.to_string().contains("corrupt"), "{file}: {error}");
        }
    }
}

/// Changed and cut databases of each store: a result or a typed error in bounded time.
#[test]
fn changed_databases_end_in_an_answer() {
    let Some(corpus) = corpus() else { return };
    let mut state = 0x0dd_u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % bound.max(1)
    };
    for (store, file, _) in SAMPLES {
        let whole = fs::read(corpus.join(file)).unwrap();
        let count = read_bytes(store, &whole).unwrap().packages.len();
        let rounds = if whole.len() > 1 << 20 { 40 } else { 400 };
        for round in 0..rounds {
            let mut bytes = whole.clone();
            for _ in 0..=below(6) {
                let at = if below(2) == 0 { below(8192) } else { below(bytes.len()) };
                match below(6) {
                    0 => bytes.truncate(at.max(1)),
                    1 => bytes.iter_mut().skip(at).take(4).for_each(|byte| *byte = 0xff),
                    2 => bytes.iter_mut().skip(at).take(600).for_each(|byte| *byte = 0),
                    _ => bytes.iter_mut().skip(at).take(2).for_each(|byte| *byte = below(256) as u8),
                }
            }
            let started = std::time::Instant::now();
            // A directory of slots or cells that was made shorter is a whole one of fewer packages: only more would be wrong.
            let told = read_bytes(store, &bytes).map_or(0, |found| found.packages.len());
            assert!(told <= count, "{file} {round}: {told} packages");
            assert!(started.elapsed().as_secs() < 5, "{file} {round}");
        }
    }
}

fn name(package: &str) -> Vec<u8> {
    blob(&[(1000, 6, package), (1001, 6, "1"), (1002, 6, "2")], &[])
}

fn ndb_of(names: &[&str]) -> Vec<u8> {
    let blobs: Vec<_> = names.iter().map(|package| name(package)).collect();
    let numbered: Vec<_> = (1_u32..).zip(&blobs).map(|(number, blob)| (number, blob.as_slice())).collect();
    ndb::tests::database(&numbered)
}

fn inspected(fixture: &Fixture) -> (Option<Installed>, Vec<crate::guest::report::Warning>) {
    let tree = fixture.tree();
    let files = Files::new(&tree);
    let installed = read(&files, &OperatingSystem::default());
    (installed, files.into_warnings())
}

fn names(installed: &Installed) -> Vec<&str> {
    installed.packages.iter().flatten().map(|package| package.name.as_str()).collect()
}

#[test]
fn links_between_the_places_count_once() {
    for (link, target) in [("var/lib/rpm", "../../usr/lib/sysimage/rpm"), ("usr/share/rpm", "/usr/lib/sysimage/rpm")] {
        let fixture = Fixture::new();
        fixture.file("usr/lib/sysimage/rpm/Packages.db", ndb_of(&["a", "gpg-pubkey"]));
        fixture.link(link, target);
        let (installed, warnings) = inspected(&fixture);
        let installed = installed.unwrap();
        assert_eq!(installed.databases, ["/usr/lib/sysimage/rpm/Packages.db"]);
        assert_eq!(names(&installed), ["a", "gpg-pubkey"]);
        assert_eq!(warnings, []);
    }
    assert!(inspected(&Fixture::new()).0.is_none());
}

#[test]
fn of_two_databases_the_configured_one_is_read_and_the_other_named() {
    for (macros, expected) in
        [("%_dbpath\t\t%{_var}/lib/rpm\n", "old"), ("%_dbpath_rebuild x\n%_dbpath /usr/lib/sysimage/rpm\n", "new")]
    {
        let fixture = Fixture::new();
        fixture.file("usr/lib/rpm/macros", macros);
        fixture.file("var/lib/rpm/Packages.db", ndb_of(&["old"]));
        fixture.file("usr/lib/sysimage/rpm/Packages.db", ndb_of(&["new"]));
        let (installed, warnings) = inspected(&fixture);
        let installed = installed.unwrap();
        assert_eq!(names(&installed), [expected]);
        assert_eq!((installed.databases.len(), warnings.len()), (2, 1), "{warnings:?}");
    }
}

#[test]
fn a_broken_database_tells_what_is_missing() {
    let fixture = Fixture::new();
    let mut bytes = ndb_of(&["a", "b", "c"]);
    let last = bytes.len() - 40;
    bytes[last] ^= 1;
    fixture.file("var/lib/rpm/Packages.db", bytes);
    let (installed, warnings) = inspected(&fixture);
    assert_eq!(names(&installed.unwrap()), ["a", "b"]);
    assert!(warnings[0].why.starts_with("1 parts could not be read, 2 packages could: "), "{warnings:?}");
    fixture.file("var/lib/rpm/Packages.db", b"RpmP");
    let (installed, warnings) = inspected(&fixture);
    assert!(installed.unwrap().packages.is_none() && warnings.len() == 1);
}

/// A damaged leaf of SQLite's table: the index of names tells which packages were on it.
#[test]
fn the_index_of_names_tells_what_a_page_lost() {
    let Some(corpus) = corpus() else { return };
    let whole = fs::read(corpus.join(SAMPLES[0].1)).unwrap();
    let count = read_bytes(Store::Sqlite, &whole).unwrap().packages.len();
    let mut told = 0;
    for page in 2..whole.len() / 4096 {
        let mut bytes = whole.clone();
        // The type of a page of the b-tree; an overflow page has its next one there.
        bytes[page * 4096] = 0x77;
        let Ok(found) = read_bytes(Store::Sqlite, &bytes) else { continue };
        if let Some(missing) = found.missing {
            assert_eq!(found.packages.len() + missing.len(), count, "page {page}");
            told += 1;
        }
        if told > 20 {
            return;
        }
    }
    assert!(told > 5, "{told}");
}

/// Berkeley DB files of every kind, as db_load of Berkeley DB 5.3 wrote them (`fixtures/rpm`); rpm lists 40 packages of them.
#[test]
fn berkeley_db_of_both_kinds_and_orders_is_read() {
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rpm/berkeley-db.tar.xz");
    let folder = tempfile::tempdir().unwrap();
    let unpacked = std::process::Command::new("tar").arg("-xJf").arg(archive).arg("-C").arg(folder.path()).status();
    if !unpacked.is_ok_and(|status| status.success()) {
        println!("tar and xz not present");
        return;
    }
    for file in ["hash-le", "hash-be", "hash-checksum", "btree-le", "btree-be", "btree-checksum"] {
        let bytes = fs::read(folder.path().join(file)).unwrap();
        let found = read_bytes(Store::Bdb, &bytes).unwrap();
        assert_eq!(found.damage.count, 0, "{file}: {:?}", found.damage);
        let mut packages = found.packages;
        packages.sort_by_key(|package| package.version.split('.').next().unwrap().parse::<u32>().unwrap());
        assert_eq!(packages.len(), 40, "{file}");
        for (number, package) in (1..).zip(&packages) {
            assert_eq!(package.name, format!("package-{number}"), "{file}");
            let description = package.description.as_ref().map_or(0, String::len);
            assert_eq!(description, number * number * 7, "{file}: {}", package.name);
        }
        // A file that was cut in half loses packages, and says so.
        let found = read_bytes(Store::Bdb, &bytes[..bytes.len() / 2].to_vec()).unwrap();
        assert!(found.damage.count > 0 && found.packages.len() < 40, "{file}");
    }
}

/// Set-id files as `rpm -qa --queryformat '[%{FILENAMES} %{FILEMODES:octal}\n]'` lists them of the database.
const SET_ID: [(&str, u16); 14] = [
    ("/bin/mount", 0o104755),
    ("/bin/passwd", 0o104755),
    ("/bin/umount", 0o104755),
    ("/sbin/unix_chkpwd", 0o104755),
    ("/usr/bin/chage", 0o104755),
    ("/usr/bin/chfn", 0o104755),
    ("/usr/bin/chsh", 0o104755),
    ("/usr/bin/expiry", 0o104755),
    ("/usr/bin/gpasswd", 0o104755),
    ("/usr/bin/newgidmap", 0o104755),
    ("/usr/bin/newgrp", 0o104755),
    ("/usr/bin/newuidmap", 0o104755),
    ("/usr/bin/su", 0o104755),
    ("/usr/bin/sudo", 0o104755),
];

#[test]
fn files_are_shipped_as_rpm_says() {
    let Some(corpus) = corpus() else { return };
    let fixture = Fixture::new();
    fixture.file("var/lib/rpm/rpmdb.sqlite", fs::read(corpus.join("cbl-mariner-2.0/rpmdb.sqlite")).unwrap());
    let tree = fixture.tree();
    let files = Files::new(&tree);
    let paths: Vec<&str> = SET_ID.iter().map(|(path, _)| *path).chain(["/etc/passwd", "/bin/never"]).collect();
    let found = shipped(&files, &paths).unwrap();
    let mut told: Vec<_> = found.iter().map(|(path, shipped)| (path.as_str(), shipped.mode)).collect();
    told.sort_unstable();
    let bare = SET_ID.iter().map(|(path, mode)| (path.strip_prefix("/usr").unwrap_or(path), *mode));
    let mut expected: Vec<_> = bare.chain([("/etc/passwd", 0o100_644)]).collect();
    expected.sort_unstable();
    assert_eq!(told, expected);
}
