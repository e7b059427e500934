//! What is installed: the programs that Windows lists for removal (both views, and those of people), what the installer
//! service knows beside them, packages of the store, and updates.
//!
//! Sources: Microsoft, "Uninstall Registry Key"; libguestfs's `inspect-apps` for which entries virt-inspector lists (those
//! with a `DisplayName`); Microsoft's documentation of component-based servicing for states of updates.

use std::collections::HashSet;

use crate::guest::linux::files::Files;
use crate::guest::linux::time::rfc3339;
use crate::guest::registry::filetime_seconds;
use crate::guest::report::{OperatingSystem, Package, Packages};

use super::hives::{Hives, Node};
use super::profiles;

const UNINSTALL: &str = "Microsoft\\Windows\\CurrentVersion\\Uninstall";
const UNINSTALL_32: &str = "WOW6432Node\\Microsoft\\Windows\\CurrentVersion\\Uninstall";
const INSTALLER: &str = "Microsoft\\Windows\\CurrentVersion\\Installer\\UserData";
const STORE: &str = "Microsoft\\Windows\\CurrentVersion\\Appx\\AppxAllUserStore\\Applications";
const UPDATES: &str = "Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\Packages";
const HOTFIXES: &str = "Microsoft\\Windows NT\\CurrentVersion\\HotFix";
/// The installer's own account.
const LOCAL_SYSTEM: &str = "S-1-5-18";
/// The resource id of a package that holds others.
const BUNDLE: &str = "~";
/// Entries that are taken in: a developer's machine has a few thousand.
const PACKAGES_MAX: usize = 100_000;
const TOP_PACKAGES: usize = 10;

/// The module.
pub(crate) fn inspect(files: &Files<'_>, hives: &Hives<'_>, system: &OperatingSystem) -> Packages {
    let mut report = Packages { manager: Some("windows".to_owned()), ..Packages::default() };
    let Some(software) = hives.software() else { return report };
    report.databases.push(software.path().to_owned());
    let native = system.arch.as_deref();
    let mut found = Vec::new();
    // The 32-bit view of a 64-bit Windows.
    for (path, arch) in [(UNINSTALL, native), (UNINSTALL_32, Some("i386"))] {
        found.extend(software.key(path).iter().flat_map(|key| programs(key, arch)));
    }
    for profile in profiles::with_hives(files, hives) {
        let before = found.len();
        for (path, arch) in [(UNINSTALL, native), (UNINSTALL_32, Some("i386"))] {
            let key = profile.hive.key(&format!("Software\\{path}"));
            let own = key.iter().flat_map(|key| programs(key, arch));
            found.extend(own.map(|program| Package { user: Some(profile.user.clone()), ..program }));
        }
        if found.len() > before {
            report.databases.push(profile.hive.path().to_owned());
        }
        profile.hive.report_problems();
    }
    let known: HashSet<String> = found.iter().map(|package: &Package| package.name.to_lowercase()).collect();
    let products = software.key(INSTALLER).map(|key| products(&key)).unwrap_or_default();
    found.extend(products.into_iter().filter(|package| !known.contains(&package.name.to_lowercase())));
    let store = software.key(STORE).map(|key| key.keys()).unwrap_or_default();
    found.extend(store_packages(&store));
    let updates = software.key(UPDATES).map(|key| key.keys()).unwrap_or_default();
    found.extend(updates.iter().filter_map(update));
    let hotfixes = software.key(HOTFIXES).map(|key| key.keys()).unwrap_or_default();
    found.extend(hotfixes.iter().filter_map(hotfix));
    if found.len() > PACKAGES_MAX {
        files.warn(software.path(), format!("entries past the first {PACKAGES_MAX} are left out"));
        found.truncate(PACKAGES_MAX);
    }
    found.sort_by(|one, other| {
        (&one.name, &one.arch, &one.version, &one.format).cmp(&(
            &other.name,
            &other.arch,
            &other.version,
            &other.format,
        ))
    });
    let installed = || found.iter().filter(|package| package.state == "installed");
    report.count = Some(installed().count() as u64);
    report.installed_size_bytes =
        installed().filter_map(|package| package.installed_size_bytes).reduce(u64::saturating_add);
    report.top_packages = top(installed());
    report.packages = found;
    report
}

fn top<'p>(installed: impl Iterator<Item = &'p Package>) -> Vec<String> {
    let name = |package: &Package| package.display_name.clone().unwrap_or_else(|| package.name.clone());
    let mut sized: Vec<(u64, String)> =
        installed.filter_map(|package| Some((package.installed_size_bytes?, name(package)))).collect();
    sized.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
    sized.into_iter().map(|(_, name)| name).take(TOP_PACKAGES).collect()
}

/// The programs of an Uninstall key.
fn programs(key: &Node<'_>, arch: Option<&str>) -> Vec<Package> {
    let program = |key: &Node<'_>| {
        let display_name = key.text("DisplayName")?;
        let is_msi = key.flag("WindowsInstaller") == Some(true);
        let package = described(key, if is_msi { "msi" } else { "win32" });
        let name = key.name().to_owned();
        Some(Package { name, display_name: Some(display_name), arch: arch.map(str::to_owned), ..package })
    };
    key.keys().iter().filter_map(program).collect()
}

/// What Uninstall keys and the installer's properties say alike.
fn described(key: &Node<'_>, format: &str) -> Package {
    let version = key.text("DisplayVersion").unwrap_or_default();
    let is_update = key.text("ReleaseType").is_some_and(|kind| kind.contains("Update") || kind == "Hotfix");
    Package {
        format: format.to_owned(),
        state: "installed".to_owned(),
        full_version: version.clone(),
        version,
        section: Some(if is_update { "update" } else { "application" }.to_owned()),
        vendor: key.text("Publisher"),
        url: key.text("URLInfoAbout"),
        description: key.text("Comments"),
        // In KiB.
        installed_size_bytes: key
            .number("EstimatedSize")
            .filter(|size| *size > 0)
            .map(|size| size.saturating_mul(1024)),
        installed_at: key.text("InstallDate").as_deref().and_then(day_of),
        install_path: key.text("InstallLocation"),
        ..Package::default()
    }
}

/// `20240131` as a point of time.
fn day_of(text: &str) -> Option<String> {
    let (year, rest) = text.split_at_checked(4)?;
    let (month, day) = rest.split_at_checked(2)?;
    let date: jiff::civil::Date = format!("{year}-{month}-{day}").parse().ok()?;
    Some(format!("{date}T00:00:00Z"))
}

/// What the installer service knows, the machine's products first. Their keys are product codes with the digits of each
/// part turned around.
fn products(key: &Node<'_>) -> Vec<Package> {
    let mut accounts = key.keys();
    accounts.sort_by_key(|account| account.name() != LOCAL_SYSTEM);
    let product = |account: &str, key: &Node<'_>| {
        let properties = key.key("InstallProperties")?;
        let display_name = properties.text("DisplayName")?;
        Some(Package {
            name: product_code(key.name()).unwrap_or_else(|| key.name().to_owned()),
            display_name: Some(display_name),
            user: (account != LOCAL_SYSTEM).then(|| account.to_owned()),
            ..described(&properties, "msi")
        })
    };
    let of_account = |account: &Node<'_>| {
        let products = account.key("Products").map(|key| key.keys()).unwrap_or_default();
        products.iter().filter_map(|key| product(account.name(), key)).collect::<Vec<_>>()
    };
    accounts.iter().flat_map(of_account).collect()
}

/// `{12345678-…}` of a packed product code.
fn product_code(packed: &str) -> Option<String> {
    let digits: Vec<char> = packed.chars().collect();
    if digits.len() != 32 || !packed.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut code = String::from("{");
    let mut rest = digits.as_slice();
    // The first three parts are turned around whole, the bytes of the rest one by one.
    for (part, width) in [8, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2].into_iter().enumerate() {
        let (digits, after) = rest.split_at_checked(width)?;
        if matches!(part, 1..=3 | 5) {
            code.push('-');
        }
        code.extend(digits.iter().rev());
        rest = after;
    }
    code.push('}');
    Some(code)
}

/// The packages of the store. A bundle counts where none of what it brings is there.
fn store_packages(keys: &[Node<'_>]) -> Vec<Package> {
    let is_bundle = |key: &&Node<'_>| key.name().split('_').nth(3) == Some(BUNDLE);
    let package = |key: &Node<'_>| store_package(key.name(), key.text("Path"));
    let (bundles, plain): (Vec<_>, Vec<_>) = keys.iter().partition(is_bundle);
    let mut packages: Vec<Package> = plain.into_iter().filter_map(package).collect();
    let names: HashSet<String> = packages.iter().map(|package| package.name.clone()).collect();
    packages.extend(bundles.into_iter().filter_map(package).filter(|package| !names.contains(&package.name)));
    packages
}

/// A package of the store by its full name: `Name_Version_Architecture_Resource_Publisher`. Source: Microsoft, "An overview
/// of Package Identity in Windows apps".
fn store_package(full_name: &str, manifest: Option<String>) -> Option<Package> {
    let mut parts = full_name.split('_');
    let (name, version, arch, resource, _) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // Resources are parts of a package beside them.
    if parts.next().is_some() || !matches!(resource, "" | BUNDLE) || name.is_empty() {
        return None;
    }
    let folder = manifest.as_deref().and_then(|path| path.rsplit_once('\\')).map(|(folder, _)| folder.to_owned());
    let arch = match arch {
        "x64" => "x86_64",
        "x86" => "i386",
        "arm64" => "aarch64",
        other => other,
    };
    Some(Package {
        name: name.to_owned(),
        format: "appx".to_owned(),
        state: "installed".to_owned(),
        version: version.to_owned(),
        full_version: version.to_owned(),
        arch: Some(arch.to_owned()),
        section: Some("application".to_owned()),
        install_path: folder,
        ..Package::default()
    })
}

/// An update of component-based servicing: `Package_for_KB5031356~31bf3856ad364e35~amd64~~19041.3570.1.0`.
fn update(key: &Node<'_>) -> Option<Package> {
    let mut parts = key.name().split('~');
    let name = parts.next()?.strip_prefix("Package_for_")?;
    let (_, arch, _, version) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // Sources: Microsoft's `DismPackageFeatureState`, in the numbers that the registry has.
    let state = match key.number("CurrentState")? {
        112 => "installed",
        96 => "install-pending",
        80 => "superseded",
        64 => "staged",
        _ => "not-installed",
    };
    let time = key.number("InstallTimeHigh").zip(key.number("InstallTimeLow"));
    let installed = time.and_then(|(high, low)| filetime_seconds(high.checked_shl(32)? | low)).and_then(rfc3339);
    Some(Package {
        name: name.to_owned(),
        format: "cbs".to_owned(),
        state: state.to_owned(),
        version: version.to_owned(),
        full_version: version.to_owned(),
        arch: Some(
            if arch == "amd64" {
                "x86_64"
            } else if arch == "x86" {
                "i386"
            } else {
                arch
            }
            .to_owned(),
        ),
        section: Some("update".to_owned()),
        vendor: Some("Microsoft Corporation".to_owned()),
        installed_at: installed,
        ..Package::default()
    })
}

/// An update of Windows before Vista.
fn hotfix(key: &Node<'_>) -> Option<Package> {
    let is_installed = key.flag("Installed")?;
    Some(Package {
        name: key.name().to_owned(),
        format: "hotfix".to_owned(),
        state: if is_installed { "installed" } else { "not-installed" }.to_owned(),
        section: Some("update".to_owned()),
        vendor: Some("Microsoft Corporation".to_owned()),
        description: key.text("Fix Description"),
        installed_at: key.written_at().and_then(rfc3339),
        ..Package::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_codes_are_unpacked() {
        // The code of the installer of Office 2016, as Microsoft documents it in both forms.
        let packed = "00006109110000000000000000F01FEC";
        assert_eq!(product_code(packed).as_deref(), Some("{90160000-0011-0000-0000-0000000FF1CE}"));
        assert_eq!(product_code("short"), None);
    }

    #[test]
    fn names_of_the_store_are_taken_apart() {
        let full = "Microsoft.WindowsCalculator_11.2307.4.0_x64__8wekyb3d8bbwe";
        let path = "C:\\Program Files\\WindowsApps\\x\\AppxManifest.xml".to_owned();
        let package = store_package(full, Some(path)).unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("Microsoft.WindowsCalculator", "11.2307.4.0"));
        assert_eq!(package.arch.as_deref(), Some("x86_64"));
        assert_eq!(package.install_path.as_deref(), Some("C:\\Program Files\\WindowsApps\\x"));
        assert!(store_package("Microsoft.X_1.0_neutral_split.language-de_8wekyb3d8bbwe", None).is_none());
        assert!(store_package("x", None).is_none());
    }

    #[test]
    fn days_of_installation_are_points_of_time() {
        assert_eq!(day_of("20240131").as_deref(), Some("2024-01-31T00:00:00Z"));
        assert_eq!(day_of("31.1.2024"), None);
        assert_eq!(day_of("20241399"), None);
    }
}
