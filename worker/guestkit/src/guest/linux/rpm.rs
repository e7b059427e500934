//! The rpm database, in any of its three stores (SQLite, ndb, Berkeley DB) and three places. What `rpm -qa` would list is
//! listed, its keys (`gpg-pubkey`) included.

mod bdb;
mod header;
mod ndb;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::guest::damage::Damage;
use crate::guest::report::{OperatingSystem, Package};
use crate::guest::sqlite::{Database, DatabaseFiles, Value};
use crate::limits::Budget;

use super::files::{Files, SqliteFiles, lossy, without_usr};
use super::packages::{Installed, PACKAGES_MAX};

use header::Room;
pub(crate) use header::Shipped;

/// Where distributions keep the database: most of them, those that moved it into `/usr`, and ostree's systems.
const PLACES: [&str; 3] = ["/var/lib/rpm", "/usr/lib/sysimage/rpm", "/usr/share/rpm"];
/// Texts of all packages of one database: those of a desktop with everything are some ten megabytes.
const TEXT_BYTES_MAX: usize = 96 << 20;
/// Missing packages that one warning names.
const NAMES_MAX: usize = 10;

/// How packages are stored, in the order in which rpm itself looks for a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    Sqlite,
    Ndb,
    Bdb,
}

impl Store {
    const ALL: [Self; 3] = [Self::Sqlite, Self::Ndb, Self::Bdb];

    /// The file that holds the packages; indexes lie in others.
    const fn file(self) -> &'static str {
        match self {
            Self::Sqlite => "rpmdb.sqlite",
            Self::Ndb => "Packages.db",
            Self::Bdb => "Packages",
        }
    }
}

/// A database that was found.
struct Candidate {
    store: Store,
    path: String,
    modified: i64,
}

/// What one database gave.
#[derive(Default)]
struct Found {
    packages: Vec<Package>,
    damage: Damage,
    /// Packages that an index of the database names and that could not be read.
    missing: Option<Vec<String>>,
    /// What may have been committed last is lost.
    log_is_invalid: bool,
}

/// The packages that rpm installed; `None` where there is no rpm database.
pub(super) fn read(files: &Files<'_>, system: &OperatingSystem) -> Option<Installed> {
    let candidates = candidates(files);
    if candidates.is_empty() {
        return None;
    }
    let databases = candidates.iter().map(|candidate| candidate.path.clone()).collect();
    let mut packages = None;
    for candidate in candidates {
        if packages.is_some() {
            files.warn(&candidate.path, "is an older database that rpm does not use, and was not read");
            continue;
        }
        let Some(database) = SqliteFiles::open(files, &candidate.path) else { continue };
        match read_store(candidate.store, database.readers(), system, files.tree().budget()) {
            Ok(found) => packages = Some(told(files, &candidate.path, found)),
            Err(error) => files.warn_error(&candidate.path, &error),
        }
    }
    Some(Installed { manager: "rpm", databases, packages: packages.flatten() })
}

/// The packages, after a word on those that are missing; `None` where all are.
fn told(files: &Files<'_>, path: &str, found: Found) -> Option<Vec<Package>> {
    let Found { packages, damage, missing, log_is_invalid } = found;
    if log_is_invalid {
        files.warn(format!("{path}-wal"), "is no write-ahead log; what it may have held is unknown");
    }
    let Some(error) = damage.first else { return Some(packages) };
    let read = packages.len();
    let why = match missing {
        Some(names) => {
            let more = if names.len() > NAMES_MAX { ", …" } else { "" };
            let named = names.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
            format!("{} packages besides the {read} told could not be read ({named}{more}): {error}", names.len())
        }
        None => format!("{} parts could not be read, {read} packages could: {error}", damage.count),
    };
    files.warn(path, why);
    (read > 0).then_some(packages)
}

/// Every database there is, the one that rpm uses first. Paths that are links to one another count once.
fn candidates(files: &Files<'_>) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    for place in PLACES {
        for store in Store::ALL {
            let path = format!("{place}/{}", store.file());
            let real = match files.tree().canonicalize(&path) {
                Ok(Some(real)) => lossy(real),
                Ok(None) => continue,
                Err(error) => {
                    files.warn_error(&path, &error);
                    continue;
                }
            };
            let Some(metadata) = files.stat(&real) else { continue };
            if found.iter().all(|other| other.path != real) {
                // Changes since the last checkpoint are in the log.
                let log = files.stat(&format!("{real}-wal")).map_or(i64::MIN, |log| log.modified.seconds);
                found.push(Candidate { store, path: real, modified: metadata.modified.seconds.max(log) });
            }
        }
    }
    if found.len() > 1 {
        let place = configured_place(files);
        let is_configured = |path: &str| {
            place.as_ref().is_some_and(|place| path.rsplit_once('/').is_some_and(|(at, _)| at.ends_with(place)))
        };
        found.sort_by_key(|candidate| (!is_configured(&candidate.path), std::cmp::Reverse(candidate.modified)));
    }
    found
}

/// The end of the path that rpm's macro `_dbpath` has in this guest; macros that stand before it (`%{_usr}`) are not
/// expanded.
fn configured_place(files: &Files<'_>) -> Option<String> {
    let mut macros = vec!["/usr/lib/rpm/macros".to_owned()];
    for pattern in ["/usr/lib/rpm/macros.d/macros.*", "/usr/lib/rpm/*/macros", "/etc/rpm/macros.*", "/etc/rpm/macros"] {
        macros.extend(files.glob(pattern));
    }
    // What is read last counts.
    macros.iter().rev().find_map(|path| {
        let text = files.text(path)?;
        let mut values = text.lines().filter_map(|line| line.trim_start().strip_prefix("%_dbpath"));
        let value = values.rfind(|value| value.starts_with([' ', '\t']))?.trim();
        let end = value.rsplit('}').next().unwrap_or(value).trim_end_matches('/');
        (!end.is_empty()).then(|| end.to_owned())
    })
}

/// The packages of a database whose files are these; only SQLite has some beside the first.
fn read_store(store: Store, files: DatabaseFiles<'_>, system: &OperatingSystem, budget: &Budget) -> Result<Found> {
    match store {
        Store::Sqlite => {
            let database = Database::open(files, budget)?;
            let found = sqlite(&database, system)?;
            Ok(Found { log_is_invalid: database.log_is_invalid(), ..found })
        }
        Store::Ndb => blobs(system, |visit| ndb::blobs(files.main, budget, visit)),
        Store::Bdb => blobs(system, |visit| bdb::values(files.main, budget, visit)),
    }
}

/// How the installed packages ship the files at `paths`, where rpm manages the system; `None` where it does not, or its database
/// could not be read. Where `/usr` is merged both names of a file are one: paths are told without `/usr`.
pub(crate) fn shipped(files: &Files<'_>, paths: &[&str]) -> Option<HashMap<String, Shipped>> {
    let wanted: HashSet<&str> = paths.iter().map(|path| without_usr(path)).collect();
    let names: HashSet<&[u8]> = paths.iter().filter_map(|path| path.rsplit('/').next()).map(str::as_bytes).collect();
    let mut found = HashMap::new();
    each_file(files, &|name, _| names.contains(name), &mut |path, shipped| {
        let path = without_usr(path);
        if wanted.contains(path) {
            found.insert(path.to_owned(), shipped);
        }
    })?;
    Some(found)
}

/// Tells `visit` of each file of the installed packages that `is_wanted` by the last part of its path and its mode; `None` where
/// rpm does not manage the system, or its database could not be read.
pub(crate) fn each_file(
    files: &Files<'_>,
    is_wanted: &dyn Fn(&[u8], u16) -> bool,
    visit: &mut dyn FnMut(&str, Shipped),
) -> Option<()> {
    let candidate = candidates(files).into_iter().next()?;
    let database = SqliteFiles::open(files, &candidate.path)?;
    let (readers, budget) = (database.readers(), files.tree().budget());
    let mut of_package = |blob: &[u8]| {
        header::files(blob, is_wanted, &mut |path, shipped| visit(&String::from_utf8_lossy(path), shipped))
    };
    let read = match candidate.store {
        Store::Sqlite => {
            Database::open(readers, budget).and_then(|database| rows(&database, |_, blob| of_package(blob)))
        }
        Store::Ndb => ndb::blobs(readers.main, budget, &mut of_package),
        Store::Bdb => bdb::values(readers.main, budget, &mut of_package),
    };
    match read {
        Ok(_) => Some(()),
        Err(error) => {
            files.warn_error(&candidate.path, &error);
            None
        }
    }
}

/// The rows of the table `Packages`: number and blob.
fn rows(database: &Database<'_>, mut visit: impl FnMut(Option<i64>, &[u8]) -> Result<()>) -> Result<Damage> {
    let no_table = || crate::Error::corrupt("rpm database", 0, "there is no table Packages");
    let table = database.table("Packages")?.ok_or_else(no_table)?;
    let columns = table.column("hnum").zip(table.column("blob"));
    let (number_column, blob_column) = columns.ok_or_else(no_table)?;
    database.rows(&table, &mut |row| {
        let Value::Blob(blob) = row.get(blob_column) else {
            return Err(crate::Error::corrupt("rpm database", 0, "a row of the table Packages has no blob"));
        };
        visit(row.get(number_column).integer(), blob)
    })
}

/// What a store's blobs give.
fn blobs(
    system: &OperatingSystem,
    walk: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Damage>,
) -> Result<Found> {
    let mut packages = Vec::new();
    let mut room = Room(TEXT_BYTES_MAX);
    let damage = walk(&mut |blob| {
        if packages.len() <= PACKAGES_MAX {
            packages.push(header::package(blob, system, &mut room)?);
        }
        Ok(())
    })?;
    Ok(Found { packages, damage, ..Found::default() })
}

/// The table `Packages`, and where it is damaged the index `Name`, which tells what is missing.
fn sqlite(database: &Database<'_>, system: &OperatingSystem) -> Result<Found> {
    let mut numbers = HashSet::new();
    let mut found = blobs(system, |visit| {
        rows(database, |number, blob| {
            visit(blob)?;
            numbers.extend(number);
            Ok(())
        })
    })?;
    if found.damage.count > 0 {
        found.missing = missing(database, &numbers).ok().flatten();
    }
    Ok(found)
}

/// The names of packages that the index has and that are not among those read; `None` where the index is damaged, too.
fn missing(database: &Database<'_>, read: &HashSet<i64>) -> Result<Option<Vec<String>>> {
    let Some(table) = database.table("Name")? else { return Ok(None) };
    let Some((name, number)) = table.column("key").zip(table.column("hnum")) else { return Ok(None) };
    let mut names = Vec::new();
    let damage = database.rows(&table, &mut |row| {
        if row.get(number).integer().is_some_and(|number| !read.contains(&number)) && names.len() <= PACKAGES_MAX {
            names.push(row.get(name).text().unwrap_or("?").chars().take(NAME_CHARACTERS_MAX).collect());
        }
        Ok(())
    })?;
    Ok((damage.count == 0).then_some(names))
}

/// Characters of a missing package's name that are kept: real ones have some tens.
const NAME_CHARACTERS_MAX: usize = 100;
