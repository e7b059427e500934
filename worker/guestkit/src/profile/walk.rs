//! One walk over a guest's whole tree for every check that needs one. What it keeps is bounded: paths that some check asks
//! for, and sums.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::error::Result;
use crate::filesystem::{ExtendedAttribute, FileType, Metadata};
use crate::guest::linux::files::without_usr;
use crate::guest::tree::{WalkEntry, WalkNext};

use super::guest::Guest;

/// Where nothing of the guest's own configuration lies: what the kernel makes at run time, and layers of containers, which are
/// systems of their own.
const SKIPPED: [&str; 10] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/lib/docker",
    "/var/lib/containers/storage",
    "/var/lib/containerd",
    "/var/lib/kubelet/pods",
    "/var/lib/lxd",
    "/snap",
];
/// What grows without bound.
pub(crate) const GROWING: [&str; 6] =
    ["/var/log", "/var/spool", "/var/cache", "/var/log/journal", "/var/lib/systemd/coredump", "/var/crash"];
/// Paths kept of each kind; more are counted.
const KEPT_MAX: usize = 1_000;

/// Files of code kept: a large desktop has some tens of thousands.
const CODE_MAX: usize = 200_000;
/// Where the system's own code lies.
const CODE: [&[u8]; 6] = [b"/usr/", b"/bin/", b"/sbin/", b"/lib/", b"/lib32/", b"/lib64/"];

/// Whether a file is a program, a library or a module of the system's, which packages bring.
fn is_code(path: &[u8], metadata: &Metadata) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let is_in = CODE.iter().any(|folder| path.starts_with(folder)) && !path.starts_with(b"/usr/local/");
    is_in && is_called_code(name, metadata.mode)
}

/// Whether a regular file of this name and mode is one.
pub(crate) fn is_called_code(name: &[u8], mode: u16) -> bool {
    mode & 0o111 != 0 || name.windows(3).any(|part| part == b".so" || part == b".ko")
}

/// A path and its metadata.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) path: String,
    pub(crate) metadata: Metadata,
}

/// Paths of one kind.
#[derive(Debug, Default)]
pub(crate) struct Kind {
    /// The first of them.
    pub(crate) found: Vec<Found>,
    /// How many there are.
    pub(crate) count: u64,
}

impl Kind {
    fn add(&mut self, path: &[u8], metadata: &Metadata) {
        self.count = self.count.saturating_add(1);
        if self.found.len() < KEPT_MAX {
            self.found.push(found_at(path, metadata));
        }
    }
}

fn found_at(path: &[u8], metadata: &Metadata) -> Found {
    Found { path: String::from_utf8_lossy(path).into_owned(), metadata: metadata.clone() }
}

/// The permitted capabilities of `security.capability`. Source: linux/capability.h, `struct vfs_ns_cap_data`: the magic with
/// its revision, then pairs of permitted and inheritable words.
fn permitted_of(attributes: &[ExtendedAttribute]) -> Option<u64> {
    let value = &attributes.iter().find(|attribute| attribute.name == b"security.capability")?.value;
    let word = |at: usize| -> Option<u64> {
        Some(u64::from(u32::from_le_bytes(value.get(at..at.checked_add(4)?)?.try_into().ok()?)))
    };
    let low = word(4)?;
    // Revision 1 has one pair.
    let high = if word(0)? >> 24 == 1 { 0 } else { word(12)? };
    Some(low | high << 32)
}

/// A file that holds code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Code {
    pub(crate) size: u64,
    /// When its content was last written, in seconds since 1970.
    pub(crate) modified: i64,
    /// When anything of it was: the guest's kernel kept this, and no call sets it.
    pub(crate) changed: i64,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Regular files that everybody may write.
    pub(crate) world_writable_files: Kind,
    /// Directories that everybody may write and whose entries everybody may remove.
    pub(crate) world_writable_directories: Kind,
    /// Files of users or groups that are not there.
    pub(crate) unowned: Kind,
    /// Set-user-ID and set-group-ID programs.
    pub(crate) set_id: Kind,
    /// Programs with file capabilities, and the permitted ones as bits.
    pub(crate) capabilities: Vec<(Found, u64)>,
    /// Programs, libraries and modules of the system, by their path without `/usr` in front: where `/usr` is merged both names
    /// of a file are one.
    pub(crate) code: HashMap<String, Code>,
    /// Regular files below `/var/log`.
    pub(crate) logs: Kind,
    /// Bytes of regular files below each of [`GROWING`] that has any.
    pub(crate) sizes: BTreeMap<&'static str, u64>,
    /// Entries that were looked at.
    pub(crate) entries: u64,
    /// Why the walk is not whole, where it is not.
    pub(crate) incomplete: Option<String>,
}

impl Walk {
    pub(super) fn over(guest: &Guest<'_>) -> Self {
        let users = guest.system.users.as_ref();
        let uids: HashSet<u64> = guest.users().iter().map(|user| user.uid).collect();
        let gids: HashSet<u64> = users.iter().flat_map(|users| &users.groups).map(|group| group.gid).collect();
        let mut walk = Self::default();
        let walked = guest.root.tree.walk("/", |entry| walk.visit(entry, &uids, &gids));
        match walked {
            Ok(unreadable) => {
                walk.incomplete = unreadable
                    .first()
                    .map(|first| format!("{}: {}", String::from_utf8_lossy(&first.path), first.error.with_causes()));
            }
            Err(error) => walk.incomplete = Some(error.with_causes()),
        }
        walk
    }

    fn visit(&mut self, entry: &WalkEntry<'_>, uids: &HashSet<u64>, gids: &HashSet<u64>) -> Result<WalkNext> {
        if SKIPPED.iter().any(|skipped| skipped.as_bytes() == entry.path) {
            return Ok(WalkNext::Skip);
        }
        self.entries = self.entries.saturating_add(1);
        let Ok(metadata) = entry.metadata() else { return Ok(WalkNext::Descend) };
        if !uids.contains(&u64::from(metadata.uid)) || !gids.contains(&u64::from(metadata.gid)) {
            self.unowned.add(entry.path, &metadata);
        }
        match entry.file_type {
            FileType::Regular => {
                self.visit_file(entry.path, &metadata);
                // A program is what somebody may run; what the rest carries does nothing.
                if metadata.mode & 0o111 != 0 && self.capabilities.len() < KEPT_MAX {
                    let permitted = entry.extended_attributes().ok().and_then(|attributes| permitted_of(&attributes));
                    self.capabilities.extend(permitted.map(|permitted| (found_at(entry.path, &metadata), permitted)));
                }
            }
            FileType::Directory if metadata.mode & 0o1002 == 0o002 => {
                self.world_writable_directories.add(entry.path, &metadata);
            }
            _ => {}
        }
        Ok(WalkNext::Descend)
    }

    fn visit_file(&mut self, path: &[u8], metadata: &Metadata) {
        if metadata.mode & 0o002 != 0 {
            self.world_writable_files.add(path, metadata);
        }
        if metadata.mode & 0o6000 != 0 && metadata.mode & 0o111 != 0 {
            self.set_id.add(path, metadata);
        }
        if is_code(path, metadata) && self.code.len() < CODE_MAX {
            let (modified, changed) = (metadata.modified.seconds, metadata.changed.seconds);
            let code = Code { size: metadata.size, modified, changed };
            self.code.insert(without_usr(&String::from_utf8_lossy(path)).to_owned(), code);
        }
        if path.starts_with(b"/var/log/") {
            self.logs.add(path, metadata);
        }
        for folder in GROWING {
            if path.strip_prefix(folder.as_bytes()).is_some_and(|below| below.starts_with(b"/")) {
                let size = self.sizes.entry(folder).or_default();
                *size = size.saturating_add(metadata.size);
            }
        }
    }
}
