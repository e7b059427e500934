//! What is installed: finds the package database and turns it into facts. A database that is there and not read is named
//! in a warning; its packages are then unknown, not none.

use std::collections::HashMap;

use crate::guest::report::{OperatingSystem, Package, Packages};
use crate::guest::tree::WalkNext;

use super::files::{Files, lossy};
use super::{apk, dpkg, time};

/// The database file of dpkg.
const DPKG_STATUS: &str = "/var/lib/dpkg/status";
/// Where images without dpkg itself list their packages, one file each.
const DPKG_STATUS_DIRECTORY: &str = "/var/lib/dpkg/status.d";
/// What dpkg keeps about each package.
const DPKG_INFO_DIRECTORY: &str = "/var/lib/dpkg/info";
/// Where apk keeps its database, newest place first.
const APK_INSTALLED: [&str; 2] = ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];
/// Databases that are recognised: path, manager, and what it is called.
const UNREAD: [(&str, &str, &str); 14] = [
    ("/var/lib/rpm/rpmdb.sqlite", "rpm", "rpm database (sqlite)"),
    ("/usr/lib/sysimage/rpm/rpmdb.sqlite", "rpm", "rpm database (sqlite)"),
    ("/usr/share/rpm/rpmdb.sqlite", "rpm", "rpm database (sqlite)"),
    ("/var/lib/rpm/Packages.db", "rpm", "rpm database (ndb)"),
    ("/usr/lib/sysimage/rpm/Packages.db", "rpm", "rpm database (ndb)"),
    ("/usr/share/rpm/Packages.db", "rpm", "rpm database (ndb)"),
    ("/var/lib/rpm/Packages", "rpm", "rpm database (berkeley db)"),
    ("/usr/lib/sysimage/rpm/Packages", "rpm", "rpm database (berkeley db)"),
    ("/usr/share/rpm/Packages", "rpm", "rpm database (berkeley db)"),
    ("/var/lib/pacman/local", "pacman", "pacman database"),
    ("/var/db/pkg", "portage", "portage database"),
    ("/var/lib/flatpak/app", "flatpak", "flatpak installation"),
    ("/var/lib/snapd/state.json", "snap", "snap state"),
    ("/nix/var/nix/db/db.sqlite", "nix", "nix database"),
];
/// Packages of one database: Debian's whole archive has about 70,000, and each is held in memory.
const PACKAGES_MAX: usize = 250_000;
/// How many names `top_packages` holds, as its documentation says.
const TOP_PACKAGES: usize = 10;

/// The module.
pub(crate) fn inspect(files: &Files<'_>, system: &OperatingSystem) -> Packages {
    let mut found = Vec::new();
    let mut report = Packages::default();
    let mut read = false;
    read |= read_dpkg(files, system, &mut report, &mut found);
    read |= read_apk(files, system, &mut report, &mut found);
    for (path, manager, name) in UNREAD {
        if files.exists(path) {
            report.databases.push(path.to_owned());
            // A snap or flatpak store stands beside the system's own manager, and does not make its count unknown.
            let is_beside = matches!(manager, "snap" | "flatpak");
            if !is_beside && report.manager.is_none() {
                report.manager = Some(manager.to_owned());
            }
            files.warn(path, format!("{name} is not supported"));
        }
    }
    if found.len() > PACKAGES_MAX {
        files.warn("package database", format!("holds more than {PACKAGES_MAX} packages"));
        return report;
    }
    if !read {
        if report.databases.is_empty() {
            files.warn("package database", "no package database was found");
        }
        return report;
    }
    found.sort_by(|a, b| (&a.name, &a.arch, &a.full_version).cmp(&(&b.name, &b.arch, &b.full_version)));
    summarise(&mut report, &found);
    report.packages = found;
    report
}

fn read_dpkg(files: &Files<'_>, system: &OperatingSystem, report: &mut Packages, found: &mut Vec<Package>) -> bool {
    let (distribution, codename) = (system.distribution.as_deref(), system.codename.as_deref());
    let mut read = false;
    let mut databases = vec![DPKG_STATUS.to_owned()];
    let parts = files.names(DPKG_STATUS_DIRECTORY);
    // Distroless images keep checksums beside each package, under its name and `.md5sums`.
    let parts = parts.into_iter().filter(|name| !name.ends_with(".md5sums"));
    databases.extend(parts.map(|name| format!("{DPKG_STATUS_DIRECTORY}/{name}")));
    for path in databases {
        let status = match files.tree().read_file(&path) {
            Ok(Some(status)) => status,
            Ok(None) => continue,
            Err(error) => {
                report.manager = Some("dpkg".to_owned());
                report.databases.push(path.clone());
                files.warn_error(&path, &error);
                continue;
            }
        };
        report.manager = Some("dpkg".to_owned());
        let before = found.len();
        let room = PACKAGES_MAX.saturating_sub(before).saturating_add(1);
        found.extend(dpkg::packages(&status, distribution, codename).take(room));
        let has_stanza = found.len() > before;
        if !has_stanza {
            let is_empty = status.iter().all(u8::is_ascii_whitespace);
            files.warn(&path, if is_empty { "is empty" } else { "holds no package stanza" });
            report.databases.push(path);
            continue;
        }
        if let Some(flaw) = dpkg::flaw(&status) {
            files.warn(&path, flaw);
        }
        read = true;
        if path.starts_with(DPKG_STATUS_DIRECTORY) {
            if report.databases.last().is_none_or(|last| last != DPKG_STATUS_DIRECTORY) {
                report.databases.push(DPKG_STATUS_DIRECTORY.to_owned());
            }
        } else {
            report.databases.push(path);
        }
    }
    if read {
        install_times(files, found);
    }
    read
}

/// dpkg writes `info/NAME.list` (`info/NAME:ARCH.list` for Multi-Arch: same) when it unpacks a package: its time is the
/// last installation or upgrade. The directory is read once; only the inodes of the lists are looked at.
fn install_times(files: &Files<'_>, packages: &mut [Package]) {
    let mut times = HashMap::new();
    let walked = files.tree().walk(DPKG_INFO_DIRECTORY, |entry| {
        if let Some(name) = entry.name().strip_suffix(b".list").and_then(|name| std::str::from_utf8(name).ok()) {
            times.insert(name.to_owned(), entry.metadata()?.modified.seconds);
        }
        Ok(WalkNext::Skip)
    });
    match walked {
        Ok(unreadable) => {
            for directory in unreadable {
                files.warn_error(DPKG_INFO_DIRECTORY, &directory.error);
            }
        }
        Err(error) => files.warn_error(DPKG_INFO_DIRECTORY, &error),
    }
    for package in packages.iter_mut().filter(|package| package.state != "not-installed") {
        let arch = package.arch.as_deref().unwrap_or_default();
        let time = times.get(&package.name).or_else(|| times.get(&format!("{}:{arch}", package.name)));
        package.installed_at = time.and_then(|time| time::rfc3339(*time));
    }
}

fn read_apk(files: &Files<'_>, system: &OperatingSystem, report: &mut Packages, found: &mut Vec<Package>) -> bool {
    for path in APK_INSTALLED {
        match files.tree().read_file(path) {
            Ok(Some(bytes)) => {
                report.manager.get_or_insert_with(|| "apk".to_owned());
                report.databases.push(path.to_owned());
                found.extend(apk::packages(&lossy(bytes), system.distribution.as_deref()).take(PACKAGES_MAX + 1));
                return true;
            }
            Ok(None) => {}
            Err(error) => {
                report.manager.get_or_insert_with(|| "apk".to_owned());
                report.databases.push(path.to_owned());
                files.warn_error(path, &error);
            }
        }
    }
    false
}

fn summarise(report: &mut Packages, packages: &[Package]) {
    let mut installed: Vec<_> = packages.iter().filter(|package| package.state == "installed").collect();
    report.count = Some(installed.len() as u64);
    let sizes: Vec<u64> = installed.iter().filter_map(|package| package.installed_size_bytes).collect();
    report.installed_size_bytes =
        (!sizes.is_empty()).then(|| sizes.iter().fold(0, |sum, size| size.saturating_add(sum)));
    installed.sort_by(|a, b| b.installed_size_bytes.cmp(&a.installed_size_bytes).then_with(|| a.name.cmp(&b.name)));
    installed.dedup_by(|a, b| a.name == b.name);
    report.top_packages = installed.iter().take(TOP_PACKAGES).map(|package| package.name.clone()).collect();
}
