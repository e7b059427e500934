//! Which file systems are the roots of operating systems, and what each system mounts where by its own fstab.

mod media;
mod names;
mod ostree;
mod snapshots;
mod unread;

use std::collections::BTreeMap;

use crate::disk::{Device, Disk};
use crate::error::Error;
use crate::filesystem::{NodeId, SharedFileSystem, Subvolume, Usage};
use crate::guest::linux::storage::{FSTAB_ENTRIES_MAX, parse_crypttab, parse_fstab};
use crate::guest::report::{FstabEntry, Mountpoint, Ostree, Snapshot, Warning};
use crate::guest::tree::Tree;
use crate::guest::windows;

pub(crate) use names::{Aliases, DeviceNames, unescape};
pub(crate) use unread::systems as unread_systems;

/// A system that was found, mounted as it would mount itself.
#[derive(Debug)]
pub struct Root {
    /// Device of its root file system.
    pub device: String,
    /// Path of the subvolume that is its root, where that is not the one mounted by default.
    pub subvolume: Option<String>,
    /// Its namespace, with everything mounted that could be.
    pub tree: Tree,
    /// What is mounted where, the root first.
    pub mountpoints: Vec<Mountpoint>,
    /// Earlier states that lie beside it.
    pub snapshots: Vec<Snapshot>,
    /// The deployments of an OSTree system.
    pub ostree: Option<Ostree>,
    pub(crate) aliases: Aliases,
    /// The folder that Windows lies in, where this is one: `/Windows`.
    pub system_root: Option<String>,
}

impl Root {
    /// The root as libguestfs names it: the device, or `btrfsvol:DEVICE/SUBVOLUME`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.subvolume {
            Some(subvolume) => format!("btrfsvol:{}/{subvolume}", self.device),
            None => self.device.clone(),
        }
    }
}

impl Disk {
    /// Every system on this disk, mounted, and what could not be read on the way.
    #[must_use]
    pub fn roots(&self) -> (Vec<Root>, Vec<Warning>) {
        let mut warnings = Vec::new();
        let mut mounted = BTreeMap::new();
        let holds_files = |device: &&Device| {
            device.is_candidate() && device.probe.as_ref().is_some_and(|probe| probe.usage == Usage::FileSystem)
        };
        for device in self.devices().iter().filter(holds_files) {
            match self.mount(device) {
                Ok(file_system) => drop(mounted.insert(device.name.clone(), file_system)),
                Err(error) => warnings.push(warning(&device.name, "file system", &error)),
            }
        }
        let roots = find(self, &mounted, &DeviceNames::new(self), &mut warnings);
        (roots, warnings)
    }
}

/// What tells a Linux by its own files, beside `bin` or `usr`. A root with another's name for its release still has a table
/// of mounts or hosts.
const DISTRIBUTION_FILES: [&str; 18] = [
    "/etc/os-release",
    "/usr/lib/os-release",
    "/etc/lsb-release",
    "/etc/debian_version",
    "/etc/redhat-release",
    "/etc/fedora-release",
    "/etc/centos-release",
    "/etc/SuSE-release",
    "/etc/alpine-release",
    "/etc/arch-release",
    "/etc/gentoo-release",
    "/etc/slackware-version",
    "/etc/photon-release",
    "/etc/mageia-release",
    "/etc/openwrt_release",
    "/etc/br-version",
    "/etc/fstab",
    "/etc/hosts",
];

/// Types in an fstab that are no file systems of the disk.
const NOT_ON_DISK: [&str; 24] = [
    "swap",
    "proc",
    "sysfs",
    "tmpfs",
    "devtmpfs",
    "devpts",
    "cgroup",
    "cgroup2",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
    "configfs",
    "fusectl",
    "efivarfs",
    "hugetlbfs",
    "mqueue",
    "ramfs",
    "nfs",
    "nfs4",
    "cifs",
    "9p",
    "fuse.sshfs",
    "overlay",
];

type Mounted = BTreeMap<String, SharedFileSystem>;

/// What a directory is the beginning of.
enum Kind {
    /// A root as a running system has it.
    Linux,
    /// A directory of deployments, one of which is the root.
    Ostree,
}

/// Finds every system among the mounted file systems.
pub(crate) fn find(disk: &Disk, mounted: &Mounted, names: &DeviceNames<'_>, warnings: &mut Vec<Warning>) -> Vec<Root> {
    let mut roots = Vec::new();
    for device in disk.devices() {
        let Some(file_system) = mounted.get(&device.name) else { continue };
        if let Some(found) = media::describe(device, file_system, disk) {
            warnings.push(found);
            continue;
        }
        let tree = Tree::new(file_system.clone(), disk.budget().clone());
        match windows::system_roots(&device.name, &tree, warnings) {
            Ok(folders) => roots.extend(folders.into_iter().map(|folder| windows_root(&device.name, &tree, folder))),
            Err(error) => warnings.push(warning(&device.name, "root directory", &error)),
        }
        let subvolumes = file_system.subvolumes().unwrap_or_else(|error| {
            warnings.push(warning(&device.name, "subvolumes", &error));
            Vec::new()
        });
        let search = Search { disk, mounted, names, device, file_system, subvolumes: &subvolumes };
        roots.extend(search.roots(warnings));
    }
    let systems_of_usr = usr_without_root(disk, mounted, names, &roots, warnings);
    roots.extend(systems_of_usr);
    roots
}

/// A directory where a system may begin.
#[derive(Debug, Clone)]
struct Start {
    root: NodeId,
    /// The subvolume that it is the root of, unless that is mounted by default.
    subvolume: Option<Subvolume>,
    /// Whether it may be a system beside another one of the same file system.
    is_independent: bool,
}

/// The search for roots on one file system.
struct Search<'a> {
    disk: &'a Disk,
    mounted: &'a Mounted,
    names: &'a DeviceNames<'a>,
    device: &'a Device,
    file_system: &'a SharedFileSystem,
    subvolumes: &'a [Subvolume],
}

impl Search<'_> {
    fn roots(&self, warnings: &mut Vec<Warning>) -> Vec<Root> {
        let mut roots: Vec<Root> = Vec::new();
        for start in starts(self.file_system.root(), self.subvolumes) {
            let path = start.subvolume.as_ref().map(|subvolume| text(&subvolume.path));
            let is_mounted = |root: &Root| {
                root.mountpoints.iter().any(|mount| {
                    let mounted = mount.subvolume.as_deref().map(|mounted| mounted.trim_matches('/'));
                    mount.device == self.device.name && mounted.is_some() && mounted == path.as_deref()
                })
            };
            if !roots.is_empty() && (!start.is_independent || roots.iter().any(is_mounted)) {
                continue;
            }
            let tree = Tree::with_root(self.file_system.clone(), start.root, self.disk.budget().clone());
            match kind_of(&tree) {
                Ok(Some(kind)) => roots.extend(self.root(&start, kind, tree, warnings)),
                Ok(None) => {}
                Err(error) => warnings.push(warning(&self.device.name, "root directory", &error)),
            }
        }
        roots
    }

    fn root(&self, start: &Start, kind: Kind, tree: Tree, warnings: &mut Vec<Warning>) -> Option<Root> {
        let device = &self.device.name;
        let (tree, ostree) = match kind {
            Kind::Linux => (tree, None),
            Kind::Ostree => match ostree::deployed(&tree, self.file_system, self.mounted) {
                Ok(Some((tree, ostree))) => (tree, Some(ostree)),
                Ok(None) => return None,
                Err(error) => {
                    warnings.push(warning(device, "/ostree", &error));
                    return None;
                }
            },
        };
        let subvolume = start.subvolume.as_ref().map(|subvolume| text(&subvolume.path));
        let mut root = Root {
            device: device.clone(),
            mountpoints: vec![Mountpoint {
                path: "/".to_owned(),
                device: device.clone(),
                subvolume: subvolume.clone(),
            }],
            subvolume,
            tree,
            snapshots: Vec::new(),
            ostree,
            system_root: None,
            aliases: Aliases::default(),
        };
        mount_all(&mut root, self.disk, self.mounted, self.names, warnings);
        root.snapshots = snapshots::of(&root.tree, start.root, self.subvolumes, self.disk, self.file_system);
        Some(root)
    }
}

/// The directories where a system may begin: what is mounted by default, then the subvolumes that distributions install
/// into by name, then others of the top level, and where no subvolume is the default one the newest writable snapshot of
/// snapper's layout. Other snapshots and what lies deeper are states and containers of a system, not systems beside it.
fn starts(default: NodeId, subvolumes: &[Subvolume]) -> Vec<Start> {
    let mut starts = vec![Start { root: default, subvolume: None, is_independent: false }];
    let mut others: Vec<(u32, u64, &Subvolume)> = Vec::new();
    for subvolume in subvolumes.iter().filter(|subvolume| subvolume.root != default) {
        let rank = match subvolume.path.as_slice() {
            b"@" => 0,
            b"root" => 1,
            b"@rootfs" => 2,
            path => match snapshots::number(path) {
                // The highest number first.
                Some(number) if !subvolume.read_only => {
                    others.push((5, u64::MAX - number, subvolume));
                    continue;
                }
                Some(_) => continue,
                None if path.contains(&b'/') => continue,
                None if subvolume.parent_uuid.is_none() => 3,
                None => 4,
            },
        };
        others.push((rank, subvolume.id, subvolume));
    }
    others.sort_by_key(|(rank, order, _)| (*rank, *order));
    starts.extend(others.into_iter().map(|(rank, _, subvolume)| Start {
        root: subvolume.root,
        subvolume: Some(subvolume.clone()),
        is_independent: rank < 4 && subvolume.parent_uuid.is_none() && !subvolume.read_only,
    }));
    starts
}

fn kind_of(tree: &Tree) -> Result<Option<Kind>, Error> {
    // Most file systems have neither; asking for these first spares the other questions.
    if tree.is_dir("/etc")? && (tree.is_dir("/usr")? || tree.symlink_metadata("/bin")?.is_some()) {
        for path in DISTRIBUTION_FILES {
            // The link to ../usr/lib/os-release dangles where /usr is a file system of its own.
            if tree.symlink_metadata(path)?.is_some() {
                return Ok(Some(Kind::Linux));
            }
        }
    }
    if tree.is_dir("/ostree/deploy")? {
        return Ok(Some(Kind::Ostree));
    }
    // NixOS that has not started yet has made no /etc.
    let is_nixos = tree.is_dir("/nix/store")? && tree.symlink_metadata("/nix/var/nix/profiles/system")?.is_some();
    let is_android =
        tree.is_file("/system/build.prop")? || (tree.is_file("/build.prop")? && tree.is_dir("/framework")?);
    Ok((is_nixos || is_android).then_some(Kind::Linux))
}

/// Whether `tree` is a /usr: of Container Linux and its heirs, or one that was split off.
fn is_usr(tree: &Tree) -> Result<bool, Error> {
    Ok(tree.is_dir("/share")? && tree.is_dir("/lib")? && tree.is_dir("/bin")? && !tree.is_dir("/proc")?)
}

/// The file systems that are a /usr, the one that starts first before the others: images with two of them (Container Linux,
/// Flatcar) keep in the attributes of the partitions which is to be started (bits 48 to 51, as in ChromeOS' disk format).
fn usr_candidates<'a>(disk: &'a Disk, mounted: &'a Mounted, taken: &[Mountpoint]) -> Vec<(&'a Device, Tree)> {
    let mut found = Vec::new();
    for device in disk.devices() {
        let Some(file_system) = mounted.get(&device.name) else { continue };
        if taken.iter().any(|mount| mount.device == device.name) {
            continue;
        }
        let tree = Tree::new(file_system.clone(), disk.budget().clone());
        if is_usr(&tree).unwrap_or(false) {
            found.push((device, tree));
        }
    }
    let priority = |device: &Device| device.partition.as_ref().map_or(0, |partition| partition.attributes >> 48 & 0xf);
    found.sort_by_key(|(device, _)| std::cmp::Reverse(priority(device)));
    found
}

/// The root of a Windows, which mounts nothing over its own file system.
fn windows_root(device: &str, tree: &Tree, folder: String) -> Root {
    Root {
        device: device.to_owned(),
        subvolume: None,
        tree: tree.clone(),
        mountpoints: vec![Mountpoint { path: "/".to_owned(), device: device.to_owned(), subvolume: None }],
        snapshots: Vec::new(),
        ostree: None,
        system_root: Some(folder),
        aliases: Aliases::default(),
    }
}

/// Images of Container Linux and Flatcar that have not started yet: the root is empty, everything is in /usr.
fn usr_without_root(
    disk: &Disk,
    mounted: &Mounted,
    names: &DeviceNames<'_>,
    roots: &[Root],
    warnings: &mut Vec<Warning>,
) -> Option<Root> {
    if !roots.is_empty() {
        return None;
    }
    let candidates = usr_candidates(disk, mounted, &[]).into_iter();
    let is_own =
        |tree: &Tree| tree.is_dir("/share/coreos").unwrap_or(false) || tree.is_dir("/share/flatcar").unwrap_or(false);
    let (device, tree) = candidates.into_iter().find(|(_, tree)| is_own(tree))?;
    let usr = Mountpoint { path: "/usr".to_owned(), device: device.name.clone(), subvolume: None };
    let root_device = disk.devices().iter().find(|device| {
        device.probe.as_ref().is_some_and(|probe| probe.label.as_deref() == Some("ROOT"))
            && mounted.contains_key(&device.name)
    });
    let mut root = Root {
        device: device.name.clone(),
        subvolume: None,
        tree,
        mountpoints: vec![usr.clone()],
        snapshots: Vec::new(),
        ostree: None,
        system_root: None,
        aliases: Aliases::default(),
    };
    if let Some((name, file_system)) = root_device.and_then(|device| mounted.get_key_value(&device.name)) {
        let mut tree = Tree::new(file_system.clone(), disk.budget().clone());
        root.device.clone_from(name);
        root.mountpoints.insert(0, Mountpoint { path: "/".to_owned(), device: name.clone(), subvolume: None });
        if tree.mount("/usr", mounted.get(&usr.device)?.clone()).unwrap_or(false) {
            root.tree = tree;
            mount_all(&mut root, disk, mounted, names, warnings);
        }
    }
    Some(root)
}

fn mount_all(root: &mut Root, disk: &Disk, mounted: &Mounted, names: &DeviceNames<'_>, warnings: &mut Vec<Warning>) {
    let device = root.device.clone();
    let mut read = |path: &str| match root.tree.read_text(path) {
        Ok(text) => text.unwrap_or_default(),
        Err(error) => {
            warnings.push(warning(&device, path, &error));
            String::new()
        }
    };
    let fstab = parse_fstab(&read("/etc/fstab"));
    let crypttab = parse_crypttab(&read("/etc/crypttab"));
    let mut mdadm_conf = String::new();
    // Asked for only where there is something that it could name.
    if !disk.arrays().is_empty() {
        mdadm_conf = read("/etc/mdadm/mdadm.conf") + "\n" + &read("/etc/mdadm.conf");
    }
    root.aliases = Aliases::new(crypttab, &mdadm_conf);
    if fstab.len() >= FSTAB_ENTRIES_MAX {
        let why = format!("entries past the first {FSTAB_ENTRIES_MAX} are left out");
        warnings.push(Warning { r#where: device.clone(), what: "/etc/fstab".to_owned(), why });
    }
    let mut entries: Vec<&FstabEntry> = fstab.iter().filter(|entry| is_on_disk(entry)).collect();
    // What is mounted on a mount must come after it.
    entries.sort_by_key(|entry| entry.path.matches('/').count());
    for entry in entries {
        if let Err(why) = mount_entry(root, entry, mounted, names) {
            warnings.push(Warning { r#where: device.clone(), what: entry.path.clone(), why });
        }
    }
    mount_unlisted(root, disk, mounted);
}

/// Mounts what an entry of fstab names.
fn mount_entry(root: &mut Root, entry: &FstabEntry, mounted: &Mounted, names: &DeviceNames<'_>) -> Result<(), String> {
    let found = names.device_of(&entry.spec, &root.aliases);
    let found = found.ok_or_else(|| format!("{} is in fstab and was not found on this disk", entry.spec))?;
    let file_system = mounted.get(&found);
    let (start, subvolume) = match file_system {
        Some(file_system) => subvolume_of(entry, file_system).map_err(|error| error.to_string())?,
        None => (None, None),
    };
    root.mountpoints.push(Mountpoint { path: entry.path.clone(), device: found.clone(), subvolume });
    let Some(file_system) = file_system else {
        return Err(format!("{found} could not be read, so its files are missing"));
    };
    let start = start.ok_or_else(|| format!("{found} has no such subvolume"))?;
    match root.tree.mount_directory(&entry.path, file_system.clone(), start) {
        Ok(true) => Ok(()),
        Ok(false) => Err("the mount point does not exist".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What a system mounts without an entry in fstab: a /usr of its own where the root has none (Container Linux, and what the
/// Discoverable Partitions Specification describes), and the /boot of an OSTree system, known by its label.
fn mount_unlisted(root: &mut Root, disk: &Disk, mounted: &Mounted) {
    let is_listed = |root: &Root, path: &str| root.mountpoints.iter().any(|mount| mount.path == path);
    let has = |root: &Root, path: &str| root.tree.exists(path).unwrap_or(true);
    if !is_listed(root, "/usr") && !has(root, "/usr/bin") && !has(root, "/usr/lib") && !has(root, "/usr/share") {
        let found = usr_candidates(disk, mounted, &root.mountpoints).into_iter().next();
        mount_found(root, "/usr", found.map(|(device, _)| device.name.clone()), mounted);
    }
    if root.ostree.is_some() && !is_listed(root, "/boot") {
        let labelled = disk
            .devices()
            .iter()
            .find(|device| device.probe.as_ref().is_some_and(|probe| probe.label.as_deref() == Some("boot")));
        mount_found(root, "/boot", labelled.map(|device| device.name.clone()), mounted);
    }
}

fn mount_found(root: &mut Root, path: &str, device: Option<String>, mounted: &Mounted) {
    let Some((device, file_system)) =
        device.and_then(|device| Some((mounted.get(&device)?, device)).map(|(f, d)| (d, f)))
    else {
        return;
    };
    if root.tree.mount(path, file_system.clone()).unwrap_or(false) {
        root.mountpoints.push(Mountpoint { path: path.to_owned(), device, subvolume: None });
    }
}

/// The directory that an entry mounts, by its option `subvol` or `subvolid`, else the default one (btrfs(5)), and the name of
/// the subvolume where one is named.
fn subvolume_of(entry: &FstabEntry, file_system: &SharedFileSystem) -> Result<(Option<NodeId>, Option<String>), Error> {
    let option = |name: &str| entry.options.iter().find_map(|option| option.strip_prefix(name));
    let found = |wanted: &dyn Fn(&Subvolume) -> bool| -> Result<Option<Subvolume>, Error> {
        Ok(file_system.subvolumes()?.into_iter().find(|subvolume| wanted(subvolume)))
    };
    if let Some(named) = option("subvol=") {
        let path = named.trim_matches('/').as_bytes();
        let found = found(&|subvolume| subvolume.path == path)?;
        return Ok((found.map(|subvolume| subvolume.root), Some(named.to_owned())));
    }
    match option("subvolid=").and_then(|id| id.parse::<u64>().ok()) {
        Some(id) => {
            let found = found(&|subvolume| subvolume.id == id)?;
            let name = found.as_ref().map(|subvolume| text(&subvolume.path));
            Ok((found.map(|subvolume| subvolume.root), name))
        }
        None => Ok((Some(file_system.root()), None)),
    }
}

fn is_on_disk(entry: &FstabEntry) -> bool {
    entry.path.starts_with('/')
        && entry.path != "/"
        && !NOT_ON_DISK.contains(&entry.r#type.as_str())
        && !entry.options.iter().any(|option| option == "bind" || option == "rbind")
        // A file of another mount (an image, a bind without its option) is no device.
        && (entry.spec.starts_with("/dev/") || entry.spec.contains('='))
        && !is_removable(&entry.spec)
}

/// Floppy and optical drives, which a disk image does not have.
fn is_removable(spec: &str) -> bool {
    let name = spec.strip_prefix("/dev/").unwrap_or_default();
    let numbered =
        |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    matches!(name, "cdrom" | "floppy" | "dvd") || numbered("fd") || numbered("cd") || numbered("sr") || numbered("scd")
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn warning(device: &str, what: &str, error: &Error) -> Warning {
    Warning { r#where: device.to_owned(), what: what.to_owned(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subvolume(id: u64, path: &str, parent: Option<&str>, read_only: bool) -> Subvolume {
        Subvolume {
            id,
            path: path.as_bytes().to_vec(),
            root: NodeId(id),
            uuid: Some(format!("uuid-{id}")),
            parent_uuid: parent.map(str::to_owned),
            read_only,
        }
    }

    fn order(default: u64, subvolumes: &[Subvolume]) -> Vec<(u64, bool)> {
        starts(NodeId(default), subvolumes).iter().map(|start| (start.root.0, start.is_independent)).collect()
    }

    #[test]
    fn a_system_begins_at_the_default_subvolume_then_where_distributions_install() {
        let subvolumes = [
            subvolume(5, "", None, false),
            subvolume(256, "home", None, false),
            subvolume(257, "root", None, false),
            subvolume(258, "root/var/lib/machines", None, false),
            subvolume(259, "before", Some("uuid-257"), false),
            subvolume(260, "received", None, true),
        ];
        assert_eq!(order(5, &subvolumes), [(5, false), (257, true), (256, true), (260, false), (259, false)]);
    }

    #[test]
    fn of_snappers_snapshots_the_newest_that_can_be_written_is_last_resort() {
        let subvolumes = [
            subvolume(256, "@", None, false),
            subvolume(257, "@/.snapshots/1/snapshot", None, false),
            subvolume(258, "@/.snapshots/2/snapshot", Some("uuid-257"), true),
            subvolume(259, "@/.snapshots/10/snapshot", Some("uuid-258"), false),
        ];
        assert_eq!(order(5, &subvolumes), [(5, false), (256, true), (259, false), (257, false)]);
        assert_eq!(order(257, &subvolumes)[0], (257, false));
    }

    #[test]
    fn drives_of_removable_media_are_not_missed() {
        for spec in ["/dev/fd0", "/dev/cdrom", "/dev/sr0", "/dev/cd0a"] {
            assert!(is_removable(spec), "{spec}");
        }
        for spec in ["/dev/sda1", "/dev/fdisk", "UUID=x", "/dev/vda"] {
            assert!(!is_removable(spec), "{spec}");
        }
    }
}
