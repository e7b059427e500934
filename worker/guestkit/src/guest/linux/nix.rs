//! The Nix store's database: a row of `ValidPaths` for each path that is whole, whoever uses it. Derivations (`.drv`) are
//! recipes and left out. Source: the Nix manual, "Store path", `nix-env --help` on names and versions, and Nix's
//! `src/libstore/schema.sql`.

use crate::error::{Error, Result};
use crate::guest::report::{OperatingSystem, Package};
use crate::guest::sqlite::Database;

use super::files::{Files, SqliteFiles};
use super::packages::{Installed, PACKAGES_MAX};
use super::{purl, time};

const DATABASE: &str = "/nix/var/nix/db/db.sqlite";
/// Characters between the store's folder and a name: the digest.
const DIGEST_CHARACTERS: usize = 32;
/// The longest name of a store path.
const NAME_BYTES_MAX: usize = 211;

/// What the store holds; `None` where there is no database of it.
pub(super) fn read(files: &Files<'_>, _: &OperatingSystem) -> Option<Installed> {
    let packages = match valid_paths(files, &SqliteFiles::open(files, DATABASE)?) {
        Ok(packages) => Some(packages),
        Err(error) => {
            files.warn_error(DATABASE, &error);
            None
        }
    };
    Some(Installed { manager: "nix", databases: vec![DATABASE.to_owned()], packages })
}

fn valid_paths(files: &Files<'_>, database: &SqliteFiles) -> Result<Vec<Package>> {
    let database = Database::open(database.readers(), files.tree().budget())?;
    if database.log_is_invalid() {
        files.warn(format!("{DATABASE}-wal"), "is no write-ahead log; what it may have held is unknown");
    }
    let no_table = || Error::corrupt("nix database", 0, "there is no table ValidPaths");
    let table = database.table("ValidPaths")?.ok_or_else(no_table)?;
    let path_column = table.column("path").ok_or_else(no_table)?;
    let (time_column, size_column) = (table.column("registrationTime"), table.column("narSize"));
    let mut packages = Vec::new();
    let damage = database.rows(&table, &mut |row| {
        let number = |column: Option<usize>| row.get(column?).integer();
        let path = row.get(path_column);
        let path = path.text().ok_or_else(|| Error::corrupt("nix database", 0, "a row has no path"))?;
        let found = package(path, number(time_column), number(size_column));
        packages.extend(found.filter(|_| packages.len() <= PACKAGES_MAX));
        Ok(())
    })?;
    if let Some(error) = damage.first {
        let why = format!("{} parts could not be read, {} packages could: {error}", damage.count, packages.len());
        files.warn(DATABASE, why);
    }
    Ok(packages)
}

/// The package at a store path; `None` for derivations, and for what is no store path.
fn package(path: &str, registered: Option<i64>, size: Option<i64>) -> Option<Package> {
    let file = path.rsplit('/').next()?;
    let whole = file.get(DIGEST_CHARACTERS..)?.strip_prefix('-')?;
    if whole.ends_with(".drv") || whole.is_empty() || whole.len() > NAME_BYTES_MAX {
        return None;
    }
    let (name, version) = split_name(whole);
    Some(Package {
        format: "nix".to_owned(),
        state: "installed".to_owned(),
        version: version.to_owned(),
        full_version: version.to_owned(),
        installed_size_bytes: size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0),
        installed_at: registered.and_then(time::rfc3339),
        purl: Some(purl::purl("nix", "", name, version, &[])),
        install_path: Some(path.to_owned()),
        name: name.to_owned(),
        ..Package::default()
    })
}

/// The version begins behind the first hyphen that no letter follows.
fn split_name(whole: &str) -> (&str, &str) {
    let mut hyphens = whole.match_indices('-').map(|(at, _)| at);
    let split = hyphens.find_map(|at| {
        let (name, rest) = whole.split_at_checked(at)?;
        let version = rest.strip_prefix('-')?;
        let is_version = version.chars().next().is_some_and(|first| !first.is_alphabetic());
        is_version.then_some((name, version))
    });
    split.unwrap_or((whole, ""))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    /// A database that SQLite made with Nix's own table.
    #[test]
    fn valid_paths_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 CREATE TABLE ValidPaths (id integer primary key autoincrement not null, path text unique not null,
                     hash text not null, registrationTime integer not null, deriver text, narSize integer);
                 INSERT INTO ValidPaths (path, hash, registrationTime, narSize) VALUES
                     ('/nix/store/0c9kcnx6c8ccdfbwm7h4pfmqxv6yxyzb-hello-2.12.1', 'x', 1700000000, 226560),
                     ('/nix/store/1c9kcnx6c8ccdfbwm7h4pfmqxv6yxyzb-hello-2.12.1.drv', 'x', 1700000000, 9);",
            )
            .unwrap();
        let fixture = Fixture::new();
        for suffix in ["", "-wal"] {
            let bytes = std::fs::read(format!("{}{suffix}", path.display())).unwrap();
            fixture.file(&format!("nix/var/nix/db/db.sqlite{suffix}"), bytes);
        }
        let tree = fixture.tree();
        let files = Files::new(&tree);
        let packages = read(&files, &OperatingSystem::default()).unwrap().packages.unwrap();
        assert_eq!(packages.len(), 1);
        assert_eq!((packages[0].name.as_str(), packages[0].version.as_str()), ("hello", "2.12.1"));
        assert_eq!(packages[0].installed_at.as_deref(), Some("2023-11-14T22:13:20Z"));
        assert_eq!(packages[0].installed_size_bytes, Some(226_560));
        assert_eq!(files.into_warnings(), []);
    }

    #[test]
    fn store_paths_become_packages() {
        let digest = "0c9kcnx6c8ccdfbwm7h4pfmqxv6yxyzb";
        let cases = [
            ("hello-2.12.1", Some(("hello", "2.12.1"))),
            ("perl5.38-URI-5.21", Some(("perl5.38-URI", "5.21"))),
            ("glibc-2.39-52-dev", Some(("glibc", "2.39-52-dev"))),
            ("unit-nginx.service", Some(("unit-nginx.service", ""))),
            ("hello-2.12.1.drv", None),
        ];
        for (name, expected) in cases {
            let found = package(&format!("/nix/store/{digest}-{name}"), Some(0), Some(9));
            let told = found.as_ref().map(|found| (found.name.as_str(), found.version.as_str()));
            assert_eq!(told, expected, "{name}");
        }
        let found = package(&format!("/nix/store/{digest}-hello-2.12.1"), Some(0), Some(9)).unwrap();
        assert_eq!(found.purl.as_deref(), Some("pkg:nix/hello@2.12.1"));
        assert_eq!(found.installed_at.as_deref(), Some("1970-01-01T00:00:00Z"));
        for path in ["", "/", "/nix/store/short-1", "/nix/store/0c9kcnx6c8ccdfbwm7h4pfmqxv6yxyzb-"] {
            assert_eq!(package(path, None, None), None, "{path}");
        }
    }
}
