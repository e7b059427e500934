//! Flatpak's installations: `app` and `runtime`, in them `ID/ARCH/BRANCH/active`, which leads to what is deployed. The
//! system's, those that `/etc/flatpak/installations.d` adds, and each user's. Source: flatpak(1), flatpak-metadata(5),
//! flatpak-installation(5), and for `deploy` flatpak's `common/flatpak-dir.c`.

use crate::filesystem::FileType;
use crate::guest::report::{OperatingSystem, Package};

use super::files::{Files, lossy};
use super::gvariant::{self, Member};
use super::packages::{Installed, PACKAGES_MAX};
use super::time;
use super::unit::UnitFile;

/// The system's own installation.
const SYSTEM: &str = "/var/lib/flatpak";

/// What flatpak deployed; `None` where nothing is.
pub(super) fn read(files: &Files<'_>, _: &OperatingSystem) -> Option<Installed> {
    let mut databases = Vec::new();
    let mut packages = Vec::new();
    for place in installations(files) {
        for kind in ["app", "runtime"] {
            let before = packages.len();
            deployed(files, &format!("{place}/{kind}"), &mut packages);
            if packages.len() > before && databases.last() != Some(&place) {
                databases.push(place.clone());
            }
        }
    }
    (!packages.is_empty()).then_some(Installed { manager: "flatpak", databases, packages: Some(packages) })
}

fn installations(files: &Files<'_>) -> Vec<String> {
    let mut places = vec![SYSTEM.to_owned()];
    for path in files.with_suffix("/etc/flatpak/installations.d", ".conf") {
        let text = files.text(&path).unwrap_or_default();
        let found = text.lines().filter_map(|line| line.trim().strip_prefix("Path")?.trim_start().strip_prefix('='));
        places.extend(found.map(|place| place.trim().trim_end_matches('/').to_owned()));
    }
    places.extend(files.glob("/home/*/.local/share/flatpak"));
    places.push("/root/.local/share/flatpak".to_owned());
    places
}

/// The folders in a folder; links such as `current` and `active` are none.
fn folders(files: &Files<'_>, path: &str) -> Vec<String> {
    let entries = files.entries(path).into_iter();
    let folders = entries.filter(|entry| !matches!(entry.file_type, Some(other) if other != FileType::Directory));
    folders.map(|entry| entry.name).collect()
}

fn deployed(files: &Files<'_>, place: &str, packages: &mut Vec<Package>) {
    for id in folders(files, place) {
        for arch in folders(files, &format!("{place}/{id}")) {
            for branch in folders(files, &format!("{place}/{id}/{arch}")) {
                let active = format!("{place}/{id}/{arch}/{branch}/active");
                if packages.len() <= PACKAGES_MAX && files.is_dir(&active) {
                    packages.push(package(files, &active, &id, &arch, &branch));
                }
            }
        }
    }
}

fn package(files: &Files<'_>, active: &str, id: &str, arch: &str, branch: &str) -> Package {
    let deploy = files.bytes(&format!("{active}/deploy")).and_then(|bytes| Deploy::parse(&bytes)).unwrap_or_default();
    let metadata = files.text(&format!("{active}/metadata")).map(|text| UnitFile::parse(&text)).unwrap_or_default();
    let named = |section| metadata.last(section, "name").map(str::to_owned);
    let version = deploy.version.or_else(|| released(files, active, id)).unwrap_or_else(|| branch.to_owned());
    let target = files.tree().canonicalize(active).ok().flatten().map(lossy);
    Package {
        name: named("Application").or_else(|| named("Runtime")).unwrap_or_else(|| id.to_owned()),
        format: "flatpak".to_owned(),
        state: "installed".to_owned(),
        full_version: version.clone(),
        version,
        release: Some(branch.to_owned()),
        arch: Some(arch.to_owned()),
        license: deploy.license,
        summary: deploy.summary,
        installed_size_bytes: deploy.installed_bytes,
        installed_at: files.stat(active).and_then(|metadata| time::rfc3339(metadata.modified.seconds)),
        install_path: target,
        origin: deploy.origin,
        ..Package::default()
    }
}

/// The version of the newest release that the application's own metadata (AppStream) tells, which comes first.
fn released(files: &Files<'_>, active: &str, id: &str) -> Option<String> {
    let places = ["metainfo", "appdata"].into_iter().flat_map(|folder| {
        ["metainfo", "appdata"].map(|kind| format!("{active}/files/share/{folder}/{id}.{kind}.xml"))
    });
    let text = places.into_iter().find_map(|path| files.text(&path))?;
    let (_, release) = text.split_once("<release ")?;
    let (attributes, _) = release.split_once('>')?;
    let (_, value) = attributes.split_once("version=")?;
    let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let version = value.split(quote).nth(1)?.trim();
    (!version.is_empty()).then(|| version.to_owned())
}

/// What flatpak keeps of a deployment: `(ssasta{sv})`.
#[derive(Default)]
struct Deploy {
    origin: Option<String>,
    installed_bytes: Option<u64>,
    version: Option<String>,
    license: Option<String>,
    summary: Option<String>,
}

impl Deploy {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let members = [Member::Sized, Member::Sized, Member::Sized, Member::Fixed, Member::SizedAligned];
        let [origin, _commit, _subpaths, installed_bytes, metadata] = gvariant::tuple(bytes, members)?;
        let text = |key| gvariant::text_of(metadata, key).filter(|text| !text.is_empty()).map(str::to_owned);
        Some(Self {
            origin: gvariant::text(origin).map(str::to_owned),
            // Flatpak stores its numbers big-endian, whatever the machine.
            installed_bytes: crate::bytes::be_u64(installed_bytes, 0).filter(|bytes| *bytes > 0),
            version: text("appdata-version"),
            license: text("appdata-license"),
            summary: text("appdata-summary"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    /// `("flathub", "c0", [], 4096 big-endian, {"appdata-version": <"1.2">})` as GLib serialises it.
    const DEPLOY: &[u8] = b"flathub\0c0\0\
        \0\0\0\0\0\
        \0\0\0\0\0\0\x10\0\
        appdata-version\x001.2\0\0s\x10\x17\
        \x0b\x0b\x08";

    #[test]
    fn deployments_of_the_system_and_of_users_are_found() {
        let fixture = Fixture::new();
        let app = "var/lib/flatpak/app/org.example.App/x86_64/stable";
        fixture.file(&format!("{app}/c0/deploy"), DEPLOY);
        fixture.file(&format!("{app}/c0/metadata"), "[Application]\nname=org.example.App\nruntime=a/b/c\n");
        fixture.link(&format!("{app}/active"), "c0");
        fixture.link("var/lib/flatpak/app/org.example.App/current", "x86_64/stable");
        let runtime = "home/bob/.local/share/flatpak/runtime/org.example.Platform/aarch64/23.08";
        fixture.file(&format!("{runtime}/c1/metadata"), "[Runtime]\nname=org.example.Platform\n");
        fixture.link(&format!("{runtime}/active"), "c1");
        let other = "root/.local/share/flatpak/app/org.other.App/x86_64/beta";
        let metainfo = "<component><releases><release date=\"x\" version=\"3.1\"/></releases></component>";
        fixture.file(&format!("{other}/c2/files/share/metainfo/org.other.App.metainfo.xml"), metainfo);
        fixture.link(&format!("{other}/active"), "c2");
        fixture.directory("var/lib/flatpak/app/org.gone.App/x86_64/stable");
        let tree = fixture.tree();
        let found = read(&Files::new(&tree), &OperatingSystem::default()).unwrap();
        let packages = found.packages.unwrap();
        let told: Vec<_> = packages
            .iter()
            .map(|package| {
                (package.name.as_str(), package.version.as_str(), package.release.as_deref(), package.arch.as_deref())
            })
            .collect();
        let expected = [
            ("org.example.App", "1.2", Some("stable"), Some("x86_64")),
            ("org.example.Platform", "23.08", Some("23.08"), Some("aarch64")),
            ("org.other.App", "3.1", Some("beta"), Some("x86_64")),
        ];
        assert_eq!(told, expected);
        assert_eq!(packages[0].origin.as_deref(), Some("flathub"));
        assert_eq!(packages[0].installed_size_bytes, Some(4096));
        assert_eq!(found.databases.len(), 3);
        for length in 0..DEPLOY.len() {
            Deploy::parse(&DEPLOY[..length]);
        }
    }
}
