//! Which file systems are the roots of operating systems, and what each system mounts where by its own fstab.

use std::collections::BTreeMap;

use crate::disk::{DeviceKind, Disk};
use crate::error::Error;
use crate::filesystem::{NodeId, SharedFileSystem, Subvolume, Usage};
use crate::guest::linux::storage::{FSTAB_ENTRIES_MAX, parse_crypttab, parse_fstab};
use crate::guest::report::{CrypttabEntry, FstabEntry, Mountpoint, Warning};
use crate::guest::tree::Tree;

/// A system that was found, mounted as it would mount itself.
#[derive(Debug)]
pub struct Root {
    /// Device of its root file system.
    pub device: String,
    /// Its namespace, with everything mounted that could be.
    pub tree: Tree,
    /// What is mounted where, the root first.
    pub mountpoints: Vec<Mountpoint>,
}

impl Disk {
    /// Every system on this disk, mounted, and what could not be read on the way.
    #[must_use]
    pub fn roots(&self) -> (Vec<Root>, Vec<Warning>) {
        let mut warnings = Vec::new();
        let mut mounted = BTreeMap::new();
        let holds_files = |device: &&crate::Device| {
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

/// What tells a Linux by its own files, beside `bin` or `usr`.
const DISTRIBUTION_FILES: [&str; 14] = [
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

/// Finds every system among the mounted file systems.
pub(crate) fn find(
    disk: &Disk,
    mounted: &BTreeMap<String, SharedFileSystem>,
    names: &DeviceNames<'_>,
    warnings: &mut Vec<Warning>,
) -> Vec<Root> {
    let mut roots = Vec::new();
    for device in disk.devices() {
        let Some(file_system) = mounted.get(&device.name) else { continue };
        for start in starts(&device.name, file_system, warnings) {
            let tree = Tree::with_root(file_system.clone(), start, disk.budget().clone());
            match is_linux_root(&tree) {
                Ok(true) => {
                    roots.push(mount_all(&device.name, tree, mounted, names, warnings));
                    break;
                }
                Ok(false) => {}
                Err(error) => warnings.push(warning(&device.name, "root directory", &error)),
            }
        }
    }
    roots
}

/// The directories where a system may begin: what is mounted by default, then the subvolumes that distributions install
/// into by name, then others of the top level. Snapshots and what lies deeper are states and containers of a system, not
/// systems beside it.
fn starts(device: &str, file_system: &SharedFileSystem, warnings: &mut Vec<Warning>) -> Vec<NodeId> {
    let mut subvolumes = file_system.subvolumes().unwrap_or_else(|error| {
        warnings.push(warning(device, "subvolumes", &error));
        Vec::new()
    });
    let rank = |subvolume: &Subvolume| match subvolume.path.as_slice() {
        b"@" => 0,
        b"root" => 1,
        b"@rootfs" => 2,
        _ if subvolume.parent_uuid.is_none() => 3,
        _ => 4,
    };
    subvolumes.retain(|subvolume| !subvolume.path.contains(&b'/'));
    subvolumes.sort_by_key(|subvolume| (rank(subvolume), subvolume.id));
    let mut starts = vec![file_system.root()];
    starts.extend(subvolumes.iter().map(|subvolume| subvolume.root));
    starts
}

fn is_linux_root(tree: &Tree) -> Result<bool, Error> {
    // Most file systems have no etc; asking for it first spares the other questions.
    if !tree.is_dir("/etc")? || !(tree.is_dir("/usr")? || tree.is_dir("/bin")?) {
        return Ok(false);
    }
    for path in DISTRIBUTION_FILES {
        // The link to ../usr/lib/os-release dangles where /usr is a file system of its own.
        if tree.symlink_metadata(path)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn mount_all(
    device: &str,
    mut tree: Tree,
    mounted: &BTreeMap<String, SharedFileSystem>,
    names: &DeviceNames<'_>,
    warnings: &mut Vec<Warning>,
) -> Root {
    let mut mountpoints = vec![Mountpoint { path: "/".to_owned(), device: device.to_owned() }];
    let fstab = match tree.read_text("/etc/fstab") {
        Ok(text) => parse_fstab(&text.unwrap_or_default()),
        Err(error) => {
            warnings.push(warning(device, "/etc/fstab", &error));
            Vec::new()
        }
    };
    if fstab.len() >= FSTAB_ENTRIES_MAX {
        let why = format!("entries past the first {FSTAB_ENTRIES_MAX} are left out");
        warnings.push(Warning { r#where: device.to_owned(), what: "/etc/fstab".to_owned(), why });
    }
    let crypttab = match tree.read_text("/etc/crypttab") {
        Ok(text) => parse_crypttab(&text.unwrap_or_default()),
        Err(error) => {
            warnings.push(warning(device, "/etc/crypttab", &error));
            Vec::new()
        }
    };
    let mut entries: Vec<&FstabEntry> = fstab.iter().filter(|entry| is_on_disk(entry)).collect();
    // What is mounted on a mount must come after it.
    entries.sort_by_key(|entry| entry.path.matches('/').count());
    for entry in entries {
        let mut warn = |why: String| {
            warnings.push(Warning { r#where: device.to_owned(), what: entry.path.clone(), why });
        };
        let Some(found) = names.device(&entry.spec).or_else(|| names.opened(&entry.spec, &crypttab)) else {
            warn(format!("{} is in fstab and was not found on this disk", entry.spec));
            continue;
        };
        mountpoints.push(Mountpoint { path: entry.path.clone(), device: found.clone() });
        let Some(file_system) = mounted.get(&found) else {
            warn(format!("{found} could not be read, so its files are missing"));
            continue;
        };
        let start = match subvolume_of(entry, file_system) {
            Ok(Some(start)) => start,
            Ok(None) => {
                warn(format!("{found} has no such subvolume"));
                continue;
            }
            Err(error) => {
                warn(error.to_string());
                continue;
            }
        };
        match tree.mount_directory(&entry.path, file_system.clone(), start) {
            Ok(true) => {}
            Ok(false) => warn("the mount point does not exist".to_owned()),
            Err(error) => warn(error.to_string()),
        }
    }
    Root { device: device.to_owned(), tree, mountpoints }
}

/// The directory that an entry mounts: by its option `subvol` or `subvolid`, else the default one (btrfs(5)).
fn subvolume_of(entry: &FstabEntry, file_system: &SharedFileSystem) -> Result<Option<NodeId>, Error> {
    let option = |name: &str| entry.options.iter().find_map(|option| option.strip_prefix(name));
    let found = |wanted: &dyn Fn(&Subvolume) -> bool| -> Result<Option<NodeId>, Error> {
        Ok(file_system.subvolumes()?.iter().find(|subvolume| wanted(subvolume)).map(|subvolume| subvolume.root))
    };
    if let Some(path) = option("subvol=") {
        let path = path.trim_matches('/').as_bytes();
        return found(&|subvolume| subvolume.path == path);
    }
    match option("subvolid=").and_then(|id| id.parse::<u64>().ok()) {
        Some(id) => found(&|subvolume| subvolume.id == id),
        None => Ok(Some(file_system.root())),
    }
}

fn is_on_disk(entry: &FstabEntry) -> bool {
    entry.path.starts_with('/')
        && entry.path != "/"
        && !NOT_ON_DISK.contains(&entry.r#type.as_str())
        && !entry.options.iter().any(|option| option == "bind" || option == "rbind")
        // A file of another mount (an image, a bind without its option) is no device.
        && (entry.spec.starts_with("/dev/") || entry.spec.contains('='))
}

fn warning(device: &str, what: &str, error: &Error) -> Warning {
    Warning { r#where: device.to_owned(), what: what.to_owned(), why: error.to_string() }
}

/// What a guest may call the devices of this disk.
#[derive(Debug)]
pub(crate) struct DeviceNames<'a> {
    disk: &'a Disk,
}

impl<'a> DeviceNames<'a> {
    pub(crate) const fn new(disk: &'a Disk) -> Self {
        Self { disk }
    }

    /// The device that a spec of fstab or crypttab stands for. Sources: fstab(5), udev's persistent names.
    pub(crate) fn device(&self, spec: &str) -> Option<String> {
        if let Some((tag, value)) = spec.split_once('=') {
            return self.tagged(tag, value.trim_matches('"'));
        }
        if let Some(rest) = spec.strip_prefix("/dev/disk/by-") {
            let (tag, value) = rest.split_once('/')?;
            return match tag {
                "id" | "path" => self.numbered(value),
                _ => self.tagged(tag, &unescape(value)),
            };
        }
        if let Some(device) = self
            .disk
            .device_called(spec)
            .filter(|device| device.kind != DeviceKind::Disk && device.kind != DeviceKind::Partition)
        {
            return Some(device.name.clone());
        }
        self.kernel_name(spec.strip_prefix("/dev/")?)
    }

    /// The device that a line of crypttab opens under the name of `spec`. Source: crypttab(5).
    fn opened(&self, spec: &str, crypttab: &[CrypttabEntry]) -> Option<String> {
        let name = spec.strip_prefix("/dev/mapper/")?;
        let line = crypttab.iter().find(|line| line.name == name)?;
        let container = self.device(&line.spec)?;
        self.disk.device(&container)?.holders.first().cloned()
    }

    fn tagged(&self, tag: &str, value: &str) -> Option<String> {
        let probed = |wanted: &dyn Fn(&crate::filesystem::Probe) -> bool| {
            self.disk.devices().iter().find(|device| device.probe.as_ref().is_some_and(wanted))
        };
        let on_partition = |wanted: &dyn Fn(&crate::partition::Partition) -> bool| {
            self.disk.devices().iter().find(|device| device.partition.as_ref().is_some_and(wanted))
        };
        let same = |known: &Option<String>| known.as_ref().is_some_and(|known| known.eq_ignore_ascii_case(value));
        let exact = |known: &Option<String>| known.as_deref() == Some(value);
        let found = match tag.to_ascii_uppercase().as_str() {
            "UUID" => probed(&|probe| same(&probe.uuid)),
            "LABEL" => probed(&|probe| exact(&probe.label)),
            "PARTUUID" => on_partition(&|partition| same(&partition.uuid)),
            "PARTLABEL" => on_partition(&|partition| exact(&partition.label)),
            _ => None,
        };
        found.map(|device| device.name.clone())
    }

    /// `…-part2`: on a machine of one disk the number alone decides.
    fn numbered(&self, id: &str) -> Option<String> {
        let [drive] = self.disk.drives() else { return None };
        let name = match id.rsplit_once("-part") {
            Some((_, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => format!("{}{number}", drive.name),
            _ => drive.name.clone(),
        };
        self.disk.device(&name).map(|device| device.name.clone())
    }

    /// `vda1`, `xvdb2`, `hda`, `nvme0n1p3`, `mmcblk0p1`: the disk by its letter or number, the partition by its number.
    fn kernel_name(&self, name: &str) -> Option<String> {
        let lettered = ["sd", "vd", "xvd", "hd"].iter().find_map(|prefix| name.strip_prefix(prefix));
        let (index, number) = if let Some(rest) = lettered {
            let end = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
            let (letters, number) = rest.split_at_checked(end)?;
            let mut index = 0_usize;
            for letter in letters.bytes() {
                index = index.checked_mul(26)?.checked_add(usize::from(letter.checked_sub(b'a')?) + 1)?;
            }
            (index.checked_sub(1)?, number)
        } else if let Some(rest) = name.strip_prefix("nvme") {
            let (controller, rest) = rest.split_once('n')?;
            let (_, number) = rest.split_once('p').unwrap_or((rest, ""));
            (controller.parse().ok()?, number)
        } else {
            let (index, number) = name.strip_prefix("mmcblk")?.split_once('p')?;
            (index.parse().ok()?, number)
        };
        let drive = self.disk.drives().get(index)?;
        let device = self.disk.device(&format!("{}{number}", drive.name))?;
        Some(device.name.clone())
    }
}

/// udev writes `\x20` for a space.
fn unescape(text: &str) -> String {
    let mut parts = text.split("\\x");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_at_checked(2).and_then(|(hex, rest)| Some((u8::from_str_radix(hex, 16).ok()?, rest))) {
            Some((byte, rest)) => {
                plain.push(char::from(byte));
                plain.push_str(rest);
            }
            None => {
                plain.push_str("\\x");
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn labels_of_udev_are_unescaped() {
        assert_eq!(unescape("my\\x20disk"), "my disk");
        assert_eq!(unescape("a\\xzz\\x2"), "a\\xzz\\x2");
    }
}
