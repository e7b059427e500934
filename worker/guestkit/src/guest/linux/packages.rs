//! What is installed: finds every package database and turns it into facts. A database that is there and cannot be read is
//! named in a warning; its packages are then unknown, not none.

use std::collections::HashMap;

use crate::guest::report::{OperatingSystem, Package, Packages};
use crate::guest::tree::WalkNext;

use super::files::{Files, lossy};
use super::{apk, dpkg, flatpak, nix, pacman, pkgtools, portage, rpm, snap, time, xbps};

/// The database file of dpkg.
const DPKG_STATUS: &str = "/var/lib/dpkg/status";
/// Where images without dpkg itself list their packages, one file each.
const DPKG_STATUS_DIRECTORY: &str = "/var/lib/dpkg/status.d";
/// What dpkg keeps about each package.
const DPKG_INFO_DIRECTORY: &str = "/var/lib/dpkg/info";
/// What dpkg has not yet taken into its status file.
const DPKG_UPDATES_DIRECTORY: &str = "/var/lib/dpkg/updates";
/// The database file of opkg: OpenWrt's place, and that of others.
const OPKG_STATUS: [&str; 2] = ["/usr/lib/opkg/status", "/var/lib/opkg/status"];
/// Where apk keeps its database, newest place first.
const APK_INSTALLED: [&str; 2] = ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];
/// Packages of one database: Debian's whole archive has about 70,000, and each is held in memory.
pub(super) const PACKAGES_MAX: usize = 250_000;
/// How many names `top_packages` holds, as its documentation says.
const TOP_PACKAGES: usize = 10;

/// What the database of one manager holds, or the databases.
pub(super) struct Installed {
    pub(super) manager: &'static str,
    /// Their paths.
    pub(super) databases: Vec<String>,
    /// Absent where nothing of them could be read.
    pub(super) packages: Option<Vec<Package>>,
}

impl Installed {
    /// Whether it stands beside the manager that made the system.
    fn is_beside(&self) -> bool {
        matches!(self.manager, "snap" | "flatpak")
    }

    /// Whether it is what a system of this package format (`deb`, `rpm`…) has.
    fn is_of(&self, format: &str) -> bool {
        matches!((self.manager, format), ("dpkg", "deb") | ("portage", "ebuild")) || self.manager == format
    }
}

/// The reader of each kind of database.
const READERS: [fn(&Files<'_>, &OperatingSystem) -> Option<Installed>; 11] = [
    read_dpkg,
    rpm::read,
    read_apk,
    pacman::read,
    portage::read,
    read_opkg,
    nix::read,
    xbps::read,
    pkgtools::read,
    snap::read,
    flatpak::read,
];

/// The module.
pub(crate) fn inspect(files: &Files<'_>, system: &OperatingSystem) -> Packages {
    let found: Vec<_> = READERS.iter().filter_map(|read| read(files, system)).collect();
    let mut report = Packages::default();
    if found.is_empty() {
        files.warn("package database", "no package database was found");
        return report;
    }
    let format = system.package_format.as_deref().unwrap_or_default();
    // A tool of another family (`rpm` on Debian) may have its own, empty database.
    let own = found.iter().find(|installed| installed.is_of(format));
    let own = own.or_else(|| found.iter().find(|installed| !installed.is_beside() && installed.packages.is_some()));
    let own = own.or_else(|| found.iter().find(|installed| !installed.is_beside())).or(found.first());
    let is_known = own.is_some_and(|installed| installed.packages.is_some());
    report.manager = own.map(|installed| installed.manager.to_owned());
    let mut packages = Vec::new();
    for installed in found {
        let first = installed.databases.first();
        if let Some(path) = first.filter(|_| installed.packages.as_ref().is_some_and(Vec::is_empty)) {
            files.warn(path, "holds no packages");
        }
        report.databases.extend(installed.databases);
        packages.extend(installed.packages.unwrap_or_default());
    }
    if packages.len() > PACKAGES_MAX {
        files.warn("package database", format!("holds more than {PACKAGES_MAX} packages"));
        return report;
    }
    packages.sort_by(|a, b| (&a.name, &a.arch, &a.full_version).cmp(&(&b.name, &b.arch, &b.full_version)));
    if is_known {
        summarise(&mut report, &packages);
    }
    report.packages = packages;
    report
}

fn read_dpkg(files: &Files<'_>, system: &OperatingSystem) -> Option<Installed> {
    let mut databases = Vec::new();
    let mut packages = Vec::new();
    let mut is_read = false;
    let parts = files.names(DPKG_STATUS_DIRECTORY);
    // Distroless images keep checksums beside each package, under its name and `.md5sums`.
    let parts = parts.into_iter().filter(|name| !name.ends_with(".md5sums"));
    let parts = parts.map(|name| format!("{DPKG_STATUS_DIRECTORY}/{name}"));
    for path in [DPKG_STATUS.to_owned()].into_iter().chain(parts) {
        let Some(found) = read_status(files, &path, system) else { continue };
        let is_part = path.starts_with(DPKG_STATUS_DIRECTORY);
        let name = if is_part && found.is_ok() { DPKG_STATUS_DIRECTORY.to_owned() } else { path };
        if databases.last() != Some(&name) {
            databases.push(name);
        }
        if let Ok(found) = found {
            is_read = true;
            packages.extend(found);
        }
    }
    if databases.is_empty() {
        return None;
    }
    if is_read {
        read_updates(files, system, &mut packages);
        install_times(files, &mut packages);
    }
    Some(Installed { manager: "dpkg", databases, packages: is_read.then_some(packages) })
}

/// The packages of one file of stanzas, `Err` where it holds none, which is then told; `None` where there is no such file.
fn read_status(files: &Files<'_>, path: &str, system: &OperatingSystem) -> Option<Result<Vec<Package>, ()>> {
    let status = match files.tree().read_file(path) {
        Ok(Some(status)) => status,
        Ok(None) => return files.note_no_file(path).then_some(Err(())),
        Err(error) => {
            files.warn_error(path, &error);
            return Some(Err(()));
        }
    };
    let room = PACKAGES_MAX.saturating_add(1);
    let packages: Vec<_> = dpkg::packages(&status, system).take(room).collect();
    if packages.is_empty() {
        let is_empty = status.iter().all(u8::is_ascii_whitespace);
        files.warn(path, if is_empty { "is empty" } else { "holds no package stanza" });
        return Some(Err(()));
    }
    if let Some(flaw) = dpkg::flaw(&status) {
        files.warn(path, flaw);
    }
    Some(Ok(packages))
}

/// What dpkg wrote since it last wrote the status file: a stanza in each of `updates/0000` and on, which replaces the
/// package's own. They are left behind where dpkg was interrupted, and it takes them in at its next start.
fn read_updates(files: &Files<'_>, system: &OperatingSystem, packages: &mut Vec<Package>) {
    let mut names = files.names(DPKG_UPDATES_DIRECTORY);
    names.retain(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    if names.is_empty() {
        return;
    }
    let key = |package: &Package| (package.name.clone(), package.arch.clone());
    let mut places: HashMap<_, _> = packages.iter().map(key).zip(0_usize..).collect();
    for name in names {
        let path = format!("{DPKG_UPDATES_DIRECTORY}/{name}");
        for update in read_status(files, &path, system).and_then(Result::ok).unwrap_or_default() {
            let place = *places.entry(key(&update)).or_insert(packages.len());
            match packages.get_mut(place) {
                Some(package) => *package = update,
                None => packages.push(update),
            }
        }
    }
}

/// opkg writes the same stanzas as dpkg, with sizes in bytes and times of installation.
fn read_opkg(files: &Files<'_>, system: &OperatingSystem) -> Option<Installed> {
    let (path, found) = OPKG_STATUS.iter().find_map(|path| Some((path, read_status(files, path, system)?)))?;
    let mut packages = found.ok();
    for package in packages.iter_mut().flatten() {
        "opkg".clone_into(&mut package.format);
        package.purl = None;
    }
    Some(Installed { manager: "opkg", databases: vec![(*path).to_owned()], packages })
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

fn read_apk(files: &Files<'_>, system: &OperatingSystem) -> Option<Installed> {
    let mut databases = Vec::new();
    for path in APK_INSTALLED {
        let read = files.tree().read_file(path);
        if !matches!(read, Ok(None)) || files.note_no_file(path) {
            databases.push(path.to_owned());
        }
        match read {
            Ok(Some(bytes)) => {
                let text = lossy(bytes);
                let room = PACKAGES_MAX.saturating_add(1);
                let packages: Vec<_> = apk::packages(&text, system.distribution.as_deref()).take(room).collect();
                if let Some(flaw) = apk::flaw(&text) {
                    files.warn(path, flaw);
                }
                let is_read = !packages.is_empty() || text.trim().is_empty();
                return Some(Installed { manager: "apk", databases, packages: is_read.then_some(packages) });
            }
            Ok(None) => {}
            Err(error) => files.warn_error(path, &error),
        }
    }
    (!databases.is_empty()).then_some(Installed { manager: "apk", databases, packages: None })
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
