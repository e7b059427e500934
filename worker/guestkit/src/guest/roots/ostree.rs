//! Systems that OSTree keeps: commits checked out beneath `/ostree/deploy/NAME/deploy/CHECKSUM.SERIAL`, one of which the boot
//! loader starts. Sources: the OSTree manual ("Deployments", "Atomic Upgrades"), the Boot Loader Specification.

use crate::error::Error;
use crate::filesystem::{FileType, SharedFileSystem};
use crate::guest::linux::boot::compare_versions;
use crate::guest::report::{Deployment, Ostree};
use crate::guest::tree::Tree;

use super::Mounted;

/// Deployments of one system: two or three, and those that were pinned.
const DEPLOYMENTS_MAX: usize = 1_000;
/// Entries of a boot loader.
const ENTRIES_MAX: usize = 1_000;
/// An entry of a boot loader, or an origin file, is a kilobyte at most.
const TEXT_BYTES_MAX: u64 = 64 << 10;

/// A deployment and where it lies.
#[derive(Debug, Clone)]
struct Found {
    path: String,
    deployment: Deployment,
    modified: i64,
}

/// The tree of the deployment that starts by default, and all of them; `None` where nothing is deployed. `physical` is the
/// tree of the file system itself.
///
/// # Errors
/// Whatever reading the directories gives.
pub(super) fn deployed(
    physical: &Tree,
    file_system: &SharedFileSystem,
    mounted: &Mounted,
) -> Result<Option<(Tree, Ostree)>, Error> {
    let mut found = deployments(physical)?;
    let by_entry = default_by_entries(physical, mounted);
    let position = by_entry
        .or_else(|| default_by_links(physical))
        .and_then(|path| found.iter().position(|found| found.path == path))
        .or_else(|| (0..found.len()).max_by_key(|index| found.get(*index).map(|found| found.modified)));
    let Some(position) = position else { return Ok(None) };
    let chosen = found.remove(position);
    let Some(root) = physical.metadata(&chosen.path)? else { return Ok(None) };
    let mut tree = Tree::with_root(file_system.clone(), root.node, physical.budget().clone());
    // As ostree-prepare-root mounts them.
    let state = format!("/ostree/deploy/{}/var", chosen.deployment.os_name);
    if let Some(state) = physical.metadata(&state)? {
        tree.mount_directory("/var", file_system.clone(), state.node)?;
    }
    if let Some(top) = physical.metadata("/")? {
        tree.mount_directory("/sysroot", file_system.clone(), top.node)?;
    }
    // A kernel beside the deployments, where /boot is no file system of its own.
    if let Some(boot) = physical.metadata("/boot/loader")?.and(physical.metadata("/boot")?) {
        tree.mount_directory("/boot", file_system.clone(), boot.node)?;
    }
    // A commit that was never started has the defaults alone.
    if !tree.is_dir("/etc")?
        && let Some(defaults) = tree.metadata("/usr/etc")?
    {
        tree.mount_directory("/etc", file_system.clone(), defaults.node)?;
    }
    let others = found.into_iter().map(|found| found.deployment).collect();
    Ok(Some((tree, Ostree { deployment: chosen.deployment, others })))
}

fn names(tree: &Tree, path: &str) -> Result<Vec<String>, Error> {
    let entries = tree.read_dir(path)?.unwrap_or_default();
    let mut names: Vec<String> = entries.into_iter().filter_map(|entry| String::from_utf8(entry.name).ok()).collect();
    names.sort();
    Ok(names)
}

fn deployments(physical: &Tree) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    for os_name in names(physical, "/ostree/deploy")? {
        let folder = format!("/ostree/deploy/{os_name}/deploy");
        for name in names(physical, &folder)? {
            let Some((checksum, serial)) = name.split_once('.') else { continue };
            let Ok(serial) = serial.parse() else { continue };
            let path = format!("{folder}/{name}");
            // A link here leads nowhere good: deployments are directories.
            let metadata = physical.symlink_metadata(&path)?;
            let directory = metadata.filter(|metadata| metadata.file_type == FileType::Directory);
            let Some(modified) = directory.map(|metadata| metadata.modified.seconds) else { continue };
            if found.len() >= DEPLOYMENTS_MAX {
                break;
            }
            let origin = physical.read_file_within(format!("{path}.origin"), TEXT_BYTES_MAX).unwrap_or_default();
            let deployment = Deployment {
                os_name: os_name.clone(),
                checksum: checksum.to_owned(),
                serial,
                origin: origin.and_then(|origin| origin_of(&String::from_utf8_lossy(&origin))),
            };
            found.push(Found { path, deployment, modified });
        }
    }
    Ok(found)
}

/// `refspec=fedora:fedora/41/x86_64/silverblue`, `container-image-reference=…` of an origin file.
fn origin_of(text: &str) -> Option<String> {
    const KEYS: [&str; 3] = ["refspec", "baserefspec", "container-image-reference"];
    text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        KEYS.contains(&key.trim()).then(|| value.trim().to_owned())
    })
}

/// The deployment that the newest entry of the boot loader starts.
fn default_by_entries(physical: &Tree, mounted: &Mounted) -> Option<String> {
    let mut entries: Vec<(String, String)> = Vec::new();
    let others = mounted.values().map(|file_system| Tree::new(file_system.clone(), physical.budget().clone()));
    for tree in std::iter::once(physical.clone()).chain(others) {
        for folder in ["/boot/loader/entries", "/loader/entries"] {
            for name in names(&tree, folder).unwrap_or_default() {
                if !name.ends_with(".conf") || entries.len() >= ENTRIES_MAX {
                    continue;
                }
                let text = tree.read_file_within(format!("{folder}/{name}"), TEXT_BYTES_MAX).ok().flatten();
                entries.extend(text.and_then(|text| entry(&String::from_utf8_lossy(&text))));
            }
        }
    }
    entries.sort_by(|a, b| compare_versions(&b.0, &a.0));
    entries.iter().find_map(|(_, path)| resolved(physical, path))
}

/// Version and the `ostree=` of its kernel's command line.
fn entry(text: &str) -> Option<(String, String)> {
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.trim().split_once(char::is_whitespace)?;
            (key == name).then(|| value.trim())
        })
    };
    let path = field("options")?.split_whitespace().find_map(|option| option.strip_prefix("ostree="))?;
    Some((field("version").unwrap_or_default().to_owned(), path.to_owned()))
}

/// The first deployment of the boot directory that is in force: `/ostree/boot.0` or `/ostree/boot.1`, links to `boot.0.0` and
/// its like.
fn default_by_links(physical: &Tree) -> Option<String> {
    for boot in ["/ostree/boot.1", "/ostree/boot.0"] {
        for os_name in names(physical, boot).unwrap_or_default() {
            for checksum in names(physical, &format!("{boot}/{os_name}")).unwrap_or_default() {
                let found = resolved(physical, &format!("{boot}/{os_name}/{checksum}/0"));
                if found.is_some() {
                    return found;
                }
            }
        }
    }
    None
}

fn resolved(physical: &Tree, path: &str) -> Option<String> {
    String::from_utf8(physical.canonicalize(path).ok()??).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::linux::fixture::Fixture;

    fn system() -> Fixture {
        let fixture = Fixture::new();
        for (checksum, name) in [("aa", "old"), ("bb", "new")] {
            let deployment = format!("ostree/deploy/fedora/deploy/{checksum}.0");
            fixture.file(&format!("{deployment}/etc/hostname"), name);
            fixture.directory(&format!("{deployment}/var"));
            fixture.directory(&format!("{deployment}/sysroot"));
            fixture.file(&format!("{deployment}.origin"), "[origin]\nrefspec=fedora:fedora/41/x86_64/silverblue\n");
            fixture.link(
                &format!("ostree/boot.1.1/fedora/{checksum}{checksum}/0"),
                &format!("../../../deploy/fedora/deploy/{checksum}.0"),
            );
        }
        fixture.link("ostree/boot.1", "boot.1.1");
        fixture.file("ostree/deploy/fedora/var/lib/state", "kept");
        fixture
    }

    fn deployed_of(fixture: &Fixture) -> (Tree, Ostree) {
        let tree = fixture.tree();
        let file_system = tree.mounts().next().map(|(_, file_system)| file_system.clone()).unwrap();
        deployed(&tree, &file_system, &Mounted::new()).unwrap().unwrap()
    }

    #[test]
    fn the_newest_entry_of_the_boot_loader_decides() {
        let fixture = system();
        for (version, checksum) in [(1, "aa"), (2, "bb")] {
            let entry = format!(
                "title x\nversion {version}\noptions root=x ostree=/ostree/boot.1/fedora/{checksum}{checksum}/0\n"
            );
            fixture.file(&format!("boot/loader/entries/ostree-{version}.conf"), entry);
        }
        let (tree, ostree) = deployed_of(&fixture);
        assert_eq!(tree.read_text("/etc/hostname").unwrap().as_deref(), Some("new"));
        assert_eq!(tree.read_text("/var/lib/state").unwrap().as_deref(), Some("kept"));
        assert!(tree.is_dir("/sysroot/ostree").unwrap());
        assert_eq!((ostree.deployment.os_name.as_str(), ostree.deployment.checksum.as_str()), ("fedora", "bb"));
        assert_eq!(ostree.deployment.origin.as_deref(), Some("fedora:fedora/41/x86_64/silverblue"));
        assert_eq!(ostree.others.len(), 1);
    }

    #[test]
    fn without_entries_the_link_of_the_boot_directory_decides() {
        let fixture = system();
        let (tree, _) = deployed_of(&fixture);
        assert_eq!(tree.read_text("/etc/hostname").unwrap().as_deref(), Some("old"));
    }

    #[test]
    fn broken_directories_end() {
        let fixture = Fixture::new();
        fixture.file("ostree/deploy/x/deploy/nonsense", "");
        fixture.link("ostree/deploy/x/deploy/cc.0", "cc.0");
        let tree = fixture.tree();
        let file_system = tree.mounts().next().map(|(_, file_system)| file_system.clone()).unwrap();
        assert!(deployed(&tree, &file_system, &Mounted::new()).is_ok_and(|found| found.is_none()));
        assert_eq!(entry("options ostree="), Some((String::new(), String::new())));
        assert_eq!(entry("\0"), None);
    }
}
