//! The pacman database: a folder for each package, in it `desc` with `%FIELD%` blocks. Source: alpm-db-desc(5) and
//! pacman.conf(5).

use crate::guest::report::{OperatingSystem, Package};

use super::files::{Files, lossy};
use super::packages::{Installed, PACKAGES_MAX};
use super::{purl, time};

/// Where pacman keeps its databases unless its configuration says otherwise.
const DATABASE: &str = "/var/lib/pacman";

/// The packages that pacman installed; `None` where there is no database of it.
pub(super) fn read(files: &Files<'_>, system: &OperatingSystem) -> Option<Installed> {
    let configured = files.text("/etc/pacman.conf").as_deref().and_then(configured_place);
    let local = format!("{}/local", configured.as_deref().unwrap_or(DATABASE).trim_end_matches('/'));
    if !files.is_dir(&local) {
        return None;
    }
    let mut packages = Vec::new();
    let mut broken = Vec::new();
    for entry in files.names(&local) {
        // Beside the packages lies `ALPM_DB_VERSION`, which is a file.
        let path = format!("{local}/{entry}/desc");
        if entry == "ALPM_DB_VERSION" || packages.len() > PACKAGES_MAX {
            continue;
        }
        match files.tree().read_file(&path) {
            Ok(found) => match found.and_then(|bytes| package(&lossy(bytes), system)) {
                Some(package) => packages.push(package),
                None => broken.push(entry),
            },
            Err(error) => {
                files.warn_error(&path, &error);
                broken.push(entry);
            }
        }
    }
    if let Some(first) = broken.first() {
        let why = format!("{} of its entries have no whole desc, such as {first}", broken.len());
        files.warn(&local, why);
    }
    let is_read = !packages.is_empty() || broken.is_empty();
    Some(Installed { manager: "pacman", databases: vec![local], packages: is_read.then_some(packages) })
}

/// `DBPath` of pacman.conf.
fn configured_place(text: &str) -> Option<String> {
    let values =
        text.lines().filter_map(|line| line.trim_start().strip_prefix("DBPath")?.trim_start().strip_prefix('='));
    values.map(|value| value.trim().to_owned()).find(|value| value.starts_with('/'))
}

/// The package of a `desc`; `None` where it names none, or no version.
fn package(desc: &str, system: &OperatingSystem) -> Option<Package> {
    let block = |name: &str| {
        let mut lines = desc
            .lines()
            .skip_while(|line| line.trim_end().strip_prefix('%').and_then(|rest| rest.strip_suffix('%')) != Some(name));
        lines.next().map(|_| lines.take_while(|line| !line.trim().is_empty()).map(str::trim).collect::<Vec<_>>())
    };
    let field = |name: &str| block(name)?.first().map(|value| (*value).to_owned());
    let number = |name: &str| field(name)?.parse::<i64>().ok();
    let name = field("NAME")?;
    let full_version = field("VERSION")?;
    let (epoch, version, release) = split_version(&full_version);
    let arch = field("ARCH");
    let licenses = block("LICENSE").unwrap_or_default();
    let purl = system.distribution.as_deref().map(|distribution| {
        let vendor = match distribution {
            "archlinux" => "arch",
            other => other,
        };
        let (vendor, name) = (vendor.to_ascii_lowercase(), name.to_ascii_lowercase());
        purl::purl("alpm", &vendor, &name, &full_version, &[("arch", arch.as_deref())])
    });
    Some(Package {
        format: "pacman".to_owned(),
        state: "installed".to_owned(),
        epoch,
        version: version.to_owned(),
        release: release.map(str::to_owned),
        source: field("BASE"),
        section: block("GROUPS").filter(|groups| !groups.is_empty()).map(|groups| groups.join(" ")),
        license: (!licenses.is_empty()).then(|| licenses.join(" AND ")),
        packager: field("PACKAGER"),
        vendor: field("PACKAGER"),
        url: field("URL"),
        summary: field("DESC"),
        installed_size_bytes: number("SIZE").and_then(|size| u64::try_from(size).ok()),
        installed_at: number("INSTALLDATE").and_then(time::rfc3339),
        built_at: number("BUILDDATE").and_then(time::rfc3339),
        arch,
        purl,
        name,
        full_version,
        ..Package::default()
    })
}

/// `1:9.1.0-1` is epoch 1, version `9.1.0`, release 1 (alpm-package-version(7)).
fn split_version(text: &str) -> (Option<u64>, &str, Option<&str>) {
    let (epoch, rest) = match text.split_once(':') {
        Some((epoch, rest)) if epoch.parse::<u64>().is_ok() => (epoch.parse().ok(), rest),
        _ => (None, text),
    };
    match rest.rsplit_once('-') {
        Some((version, release)) => (epoch, version, Some(release)),
        None => (epoch, rest, None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    const VIM: &str = "%NAME%\nvim\n\n%VERSION%\n1:9.1.0-1\n\n%BASE%\nvim\n\n%DESC%\nVi Improved\n\n%URL%\nhttps://www.vim.org\n\n\
                       %ARCH%\nx86_64\n\n%BUILDDATE%\n1704100000\n\n%INSTALLDATE%\n1704200000\n\n%PACKAGER%\nA <a@b>\n\n\
                       %SIZE%\n4096\n\n%LICENSE%\nVim\nGPL\n\n%GROUPS%\nbase\n";

    fn arch() -> OperatingSystem {
        OperatingSystem { distribution: Some("arch".to_owned()), ..OperatingSystem::default() }
    }

    #[test]
    fn blocks_become_packages() {
        let found = package(VIM, &arch()).unwrap();
        assert_eq!((found.epoch, found.version.as_str(), found.release.as_deref()), (Some(1), "9.1.0", Some("1")));
        assert_eq!(found.license.as_deref(), Some("Vim AND GPL"));
        assert_eq!(found.purl.as_deref(), Some("pkg:alpm/arch/vim@1:9.1.0-1?arch=x86_64"));
        assert_eq!(found.installed_at.as_deref(), Some("2024-01-02T12:53:20Z"));
        assert_eq!(found.installed_size_bytes, Some(4096));
        for text in ["", "%NAME%\n", "%NAME%\nx\n", "%NAME%\n\nx\n\n%VERSION%\n1-1\n", "%NAME"] {
            assert_eq!(package(text, &arch()), None, "{text:?}");
        }
    }

    #[test]
    fn the_configured_place_is_read_and_what_is_broken_is_told() {
        let fixture = Fixture::new();
        fixture.file("etc/pacman.conf", "[options]\n#DBPath = /no\nDBPath      = /srv/pacman/\n");
        fixture.file("srv/pacman/local/ALPM_DB_VERSION", "9\n");
        fixture.file("srv/pacman/local/vim-1:9.1.0-1/desc", VIM);
        fixture.file("srv/pacman/local/torn-1-1/desc", "%NAME%\ntorn\n");
        let tree = fixture.tree();
        let files = Files::new(&tree);
        let found = read(&files, &arch()).unwrap();
        assert_eq!(found.packages.unwrap().len(), 1);
        let warnings = files.into_warnings();
        assert!(warnings[0].why.contains("torn-1-1"), "{warnings:?}");
    }
}
