//! Snaps: what snapd's state says is installed, and what each snap says of itself, which is in the squashfs image that is
//! only mounted while the system runs. Source: snapd's `overlord/snapstate` (`SnapState`, `SideInfo`) and "The snap format"
//! (snap.yaml) of the Snap documentation.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::filesystem;
use crate::guest::report::{OperatingSystem, Package};
use crate::guest::tree::Tree;

use super::files::{Files, lossy};
use super::packages::{Installed, PACKAGES_MAX};
use super::time;

const STATE: &str = "/var/lib/snapd/state.json";
/// The images, named `NAME_REVISION.snap`.
const IMAGES: &str = "/var/lib/snapd/snaps";
/// Where revisions are mounted: most distributions, and those without a folder of their own in `/`.
const MOUNTS: [&str; 2] = ["/snap", "/var/lib/snapd/snap"];
/// The largest state that is parsed: it keeps tasks of past weeks, which makes some megabytes.
const STATE_BYTES_MAX: u64 = 64 << 20;
/// The largest snap.yaml that is parsed.
const META_BYTES_MAX: u64 = 1 << 20;

#[derive(Deserialize)]
struct State {
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
struct Data {
    #[serde(default)]
    snaps: BTreeMap<String, Snap>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Snap {
    r#type: Option<String>,
    sequence: Vec<Revision>,
    current: String,
    channel: Option<String>,
    #[serde(rename = "last-refresh-time")]
    refreshed: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Revision {
    revision: String,
    summary: Option<String>,
    description: Option<String>,
}

/// What a snap says of itself.
#[derive(Debug, Default, PartialEq)]
struct Meta {
    version: Option<String>,
    summary: Option<String>,
    license: Option<String>,
    architecture: Option<String>,
}

/// What snapd installed; `None` where it does not keep anything.
pub(super) fn read(files: &Files<'_>, _: &OperatingSystem) -> Option<Installed> {
    let state = match files.tree().read_file_within(STATE, STATE_BYTES_MAX) {
        Ok(Some(bytes)) => Some(serde_json::from_slice::<State>(&bytes).map_err(|error| error.to_string())),
        Ok(None) => None,
        Err(error) => Some(Err(error.with_causes())),
    };
    let (database, snaps) = match state {
        Some(Ok(state)) => (STATE, state.data.snaps),
        Some(Err(why)) => {
            files.warn(STATE, format!("is no valid state ({why}); snaps are told by what is linked and stored"));
            (STATE, current_links(files))
        }
        None => (IMAGES, current_links(files)),
    };
    if snaps.is_empty() && database != STATE {
        return None;
    }
    let snaps = snaps.into_iter().take(PACKAGES_MAX);
    let packages = snaps.map(|(name, snap)| package(files, name, &snap)).collect();
    Some(Installed { manager: "snap", databases: vec![database.to_owned()], packages: Some(packages) })
}

/// Snaps as the links `current` tell them, where the state does not.
fn current_links(files: &Files<'_>) -> BTreeMap<String, Snap> {
    let mut snaps = BTreeMap::new();
    for mount in MOUNTS {
        for name in files.names(mount) {
            if let Some(current) = files.link(&format!("{mount}/{name}/current")) {
                snaps.insert(name, Snap { current, ..Snap::default() });
            }
        }
    }
    snaps
}

fn package(files: &Files<'_>, name: String, snap: &Snap) -> Package {
    // A second instance of a snap shares its name and image: `hello_test`.
    let revision = snap.sequence.iter().find(|revision| revision.revision == snap.current);
    let image = format!("{IMAGES}/{name}_{}.snap", snap.current);
    let meta = meta(files, &name, &snap.current, &image);
    let version = meta.version.unwrap_or_default();
    let image = files.stat(&image);
    let installed_at = image.as_ref().and_then(|image| time::rfc3339(image.modified.seconds));
    Package {
        format: "snap".to_owned(),
        state: "installed".to_owned(),
        full_version: version.clone(),
        version,
        release: Some(snap.current.clone()).filter(|revision| !revision.is_empty()),
        arch: meta.architecture,
        section: snap.r#type.clone(),
        license: meta.license,
        summary: meta.summary.or_else(|| revision.and_then(|revision| revision.summary.clone())),
        description: revision.and_then(|revision| revision.description.clone()),
        installed_size_bytes: image.map(|image| image.size),
        installed_at: snap.refreshed.as_deref().and_then(time::normalised).or(installed_at),
        install_path: Some(format!("{}/{name}/{}", MOUNTS[0], snap.current)),
        origin: snap.channel.clone(),
        name,
        ..Package::default()
    }
}

/// snap.yaml of a revision: in its folder, where it was unpacked instead of mounted, else in its image.
fn meta(files: &Files<'_>, name: &str, revision: &str, image: &str) -> Meta {
    let folders = MOUNTS.map(|mount| format!("{mount}/{name}/{revision}/meta/snap.yaml"));
    if let Some(text) = folders.iter().find_map(|path| files.text(path)) {
        return parse_meta(&text);
    }
    match meta_in_image(files, image) {
        Ok(Some(text)) => parse_meta(&text),
        Ok(None) => {
            files.warn(image, format!("the version of the snap {name} is unknown: its image is missing"));
            Meta::default()
        }
        Err(error) => {
            let why = error.with_causes();
            files.warn(image, format!("the version of the snap {name} is unknown: {why}"));
            Meta::default()
        }
    }
}

fn meta_in_image(files: &Files<'_>, image: &str) -> Result<Option<String>> {
    let Some(file) = files.tree().open(image)? else { return Ok(None) };
    let budget = files.tree().budget();
    let source: crate::read_at::Source = Arc::new(file);
    let probe = filesystem::probe(source.as_ref())?.filter(|probe| probe.kind == "squashfs");
    let probe = probe.ok_or_else(|| Error::corrupt("snap", 0, "it is no squashfs image"))?;
    let tree = Tree::new(filesystem::mount(&[source], &probe, budget)?, Arc::clone(budget));
    let text = tree.read_file_within("/meta/snap.yaml", META_BYTES_MAX)?;
    text.map(|text| Some(lossy(text))).ok_or_else(|| Error::corrupt("snap", 0, "it has no meta/snap.yaml"))
}

/// The plain values at the top of a snap.yaml. A number is kept as it is spelt: version `1.10` is not `1.1`.
fn parse_meta(text: &str) -> Meta {
    let value = |key: &str| {
        let mut lines =
            text.lines().skip_while(|line| !line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')));
        let first = lines.next()?.get(key.len().saturating_add(1)..)?.trim();
        let list_item = lines.next().and_then(|line| line.trim_start().strip_prefix("- "));
        let value = match first {
            "" => list_item?,
            // Texts over several lines are none of what is asked for here.
            "|" | ">" | "|-" | ">-" => return None,
            list if list.starts_with('[') => list.trim_matches(['[', ']']).split(',').next()?,
            value => value,
        };
        let value = value.split(" #").next().unwrap_or(value).trim().trim_matches(['\'', '"']);
        (!value.is_empty()).then(|| value.to_owned())
    };
    Meta {
        version: value("version"),
        summary: value("summary"),
        license: value("license"),
        architecture: value("architectures"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    const STATE_TEXT: &str = r#"{"data": {"auth": {"x": [1]}, "snaps": {"hello": {"type": "app", "sequence": [
        {"name": "hello", "snap-id": "a", "revision": "38"},
        {"name": "hello", "snap-id": "a", "revision": "42", "summary": "from the store"}],
        "active": true, "current": "42", "channel": "latest/stable", "last-refresh-time": "2024-05-06T07:08:09.1+02:00"}}},
        "changes": {}, "tasks": {}, "last-task-id": 9}"#;

    #[test]
    fn the_state_and_the_snap_itself_are_read() {
        let fixture = Fixture::new();
        fixture.file("var/lib/snapd/state.json", STATE_TEXT);
        fixture.file(
            "snap/hello/42/meta/snap.yaml",
            "name: hello\nversion: '2.10'\nsummary: Hi # x\nlicense: GPL-3.0\narchitectures:\n  - amd64\n",
        );
        let tree = fixture.tree();
        let found = read(&Files::new(&tree), &OperatingSystem::default()).unwrap().packages.unwrap();
        let snap = &found[0];
        assert_eq!((snap.name.as_str(), snap.version.as_str(), snap.release.as_deref()), ("hello", "2.10", Some("42")));
        assert_eq!((snap.origin.as_deref(), snap.arch.as_deref()), (Some("latest/stable"), Some("amd64")));
        assert_eq!((snap.summary.as_deref(), snap.license.as_deref()), (Some("Hi"), Some("GPL-3.0")));
        assert_eq!(snap.installed_at.as_deref(), Some("2024-05-06T05:08:09Z"));
    }

    /// An image that `mksquashfs` made, as it lies in a guest that does not run.
    #[test]
    fn a_snap_that_is_not_mounted_is_read_from_its_image() {
        let fixture = Fixture::new();
        fixture.file("var/lib/snapd/state.json", STATE_TEXT);
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("meta")).unwrap();
        std::fs::write(folder.path().join("meta/snap.yaml"), "name: hello\nversion: 2.12\n").unwrap();
        let image = folder.path().join("image");
        let mut command = std::process::Command::new("mksquashfs");
        let made = command.arg(folder.path().join("meta")).arg(&image).args(["-keep-as-directory", "-quiet"]).output();
        if !made.is_ok_and(|made| made.status.success()) {
            println!("mksquashfs not present");
            return;
        }
        fixture.file("var/lib/snapd/snaps/hello_42.snap", std::fs::read(&image).unwrap());
        let tree = fixture.tree();
        let files = Files::new(&tree);
        let found = read(&files, &OperatingSystem::default()).unwrap().packages.unwrap();
        assert_eq!(found[0].version, "2.12");
        assert!(found[0].installed_size_bytes.is_some());
        assert_eq!(files.into_warnings(), []);
    }

    #[test]
    fn a_broken_state_leaves_what_is_linked() {
        let fixture = Fixture::new();
        fixture.file("var/lib/snapd/state.json", &STATE_TEXT[..100]);
        fixture.link("snap/hello/current", "42");
        let tree = fixture.tree();
        let files = Files::new(&tree);
        let found = read(&files, &OperatingSystem::default()).unwrap().packages.unwrap();
        assert_eq!((found[0].name.as_str(), found[0].release.as_deref()), ("hello", Some("42")));
        let warnings = files.into_warnings();
        assert!(warnings.iter().any(|warning| warning.why.contains("image is missing")), "{warnings:?}");
        assert!(warnings.iter().any(|warning| warning.what == STATE), "{warnings:?}");
    }

    #[test]
    fn plain_values_are_read_as_they_are_spelt() {
        let found = parse_meta("name: a\nversion: 1.10\nsummary: >-\n  folded\narchitectures: [ arm64, amd64 ]\n");
        let expected =
            Meta { version: Some("1.10".to_owned()), architecture: Some("arm64".to_owned()), ..Meta::default() };
        assert_eq!(found, expected);
        parse_meta("version");
        parse_meta("version:");
    }
}
