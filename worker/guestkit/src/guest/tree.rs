//! The guest's own namespace: file systems mounted at guest paths, and paths resolved as the guest would.
//!
//! Symbolic links resolve inside the guest: an absolute one starts at the guest's root, and `..` cannot leave it.
//! Absence is `Ok(None)`; a thing that is there and cannot be read is an error. Device nodes, FIFOs and sockets are
//! never opened. Paths and names are bytes. Every directory read is charged to the disk's [`Budget`].

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::{Error, Limit, Result};
use crate::filesystem::{DirEntry, ExtendedAttribute, FileType, Metadata, NodeId, SharedFileSystem};
use crate::limits::{Budget, zeroed};
use crate::read_at::ReadAt;

/// The longest path, and the longest link target, that is resolved: Linux's PATH_MAX.
const PATH_BYTES_MAX: usize = 4096;
/// Unreadable directories that one walk goes on after; where more are broken, so is the file system as a whole.
const UNREADABLE_MAX: usize = 1000;

/// File systems mounted into one namespace, read only, usable from any thread.
#[derive(Debug, Clone)]
pub struct Tree {
    mounts: Vec<Mount>,
    budget: Arc<Budget>,
}

#[derive(Debug, Clone)]
struct Mount {
    at: Vec<Vec<u8>>,
    file_system: SharedFileSystem,
    root: NodeId,
}

/// A regular file of a [`Tree`], opened: a [`ReadAt`] over its contents.
#[derive(Debug, Clone)]
pub struct OpenFile {
    file_system: SharedFileSystem,
    metadata: Metadata,
}

impl OpenFile {
    /// What `stat` tells of it.
    #[must_use]
    pub const fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl ReadAt for OpenFile {
    fn len(&self) -> u64 {
        self.metadata.size
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(done as u64);
            match self.file_system.read(self.metadata.node, rest, at)? {
                0 => return Err(Error::corrupt("file", at, "a read leaves the file")),
                count => done = done.saturating_add(count),
            }
        }
        Ok(())
    }
}

/// One name that a walk came by.
#[derive(Debug)]
pub struct WalkEntry<'a> {
    /// The absolute guest path.
    pub path: &'a [u8],
    /// What it names, as the directory or else the node tells. Links are not followed.
    pub file_type: FileType,
    /// Directories above it, counted from the walk's start, which is 0.
    pub depth: u32,
    file_system: &'a SharedFileSystem,
    node: NodeId,
}

impl WalkEntry<'_> {
    /// The last name of the path.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// Metadata of the node itself.
    ///
    /// # Errors
    /// As [`crate::filesystem::FileSystem::metadata`].
    pub fn metadata(&self) -> Result<Metadata> {
        self.file_system.metadata(self.node)
    }

    /// What all names of one file have in common, and no two files of a tree do.
    #[must_use]
    pub fn identity(&self) -> (usize, NodeId) {
        (Arc::as_ptr(self.file_system).cast::<()>().addr(), self.node)
    }

    /// Its extended attributes.
    ///
    /// # Errors
    /// As [`crate::filesystem::FileSystem::extended_attributes`].
    pub fn extended_attributes(&self) -> Result<Vec<ExtendedAttribute>> {
        self.file_system.extended_attributes(self.node)
    }

    /// The target, where this is a symbolic link.
    ///
    /// # Errors
    /// As [`crate::filesystem::FileSystem::read_link`].
    pub fn read_link(&self) -> Result<Vec<u8>> {
        self.file_system.read_link(self.node)
    }

    /// Opens it for reading, where it is a regular file.
    ///
    /// # Errors
    /// As [`crate::filesystem::FileSystem::metadata`].
    pub fn open(&self) -> Result<Option<OpenFile>> {
        open_node(self.file_system, self.node)
    }
}

/// Where a walk goes after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalkNext {
    /// On, and into it where it is a directory.
    Descend,
    /// On, but not into it.
    Skip,
    /// Nowhere: the walk ends.
    Stop,
}

/// Something that a walk could not read; the rest was walked.
#[derive(Debug)]
pub struct Unreadable {
    /// Its guest path.
    pub path: Vec<u8>,
    /// Why.
    pub error: Error,
}

#[derive(Debug, Clone)]
struct Step {
    name: Vec<u8>,
    mount: usize,
    node: NodeId,
    is_directory: bool,
}

#[derive(Debug)]
struct Resolved {
    steps: Vec<Step>,
    mount: usize,
    node: NodeId,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LastLink {
    Follow,
    Keep,
}

impl Tree {
    /// A namespace with `root` at `/`.
    #[must_use]
    pub fn new(root: SharedFileSystem, budget: Arc<Budget>) -> Self {
        let node = root.root();
        Self::with_root(root, node, budget)
    }

    /// A namespace whose `/` is the directory `node` of `file_system`, as a subvolume or a container's root is.
    #[must_use]
    pub fn with_root(file_system: SharedFileSystem, node: NodeId, budget: Arc<Budget>) -> Self {
        Self { mounts: vec![Mount { at: Vec::new(), file_system, root: node }], budget }
    }

    /// Mounts `file_system` at the guest path `at`, hiding what lies there. The mount point's links are resolved as
    /// `mount(8)` does. Returns whether the mount point exists; where it does not, nothing is mounted.
    ///
    /// # Errors
    /// Whatever resolving the mount point meets.
    pub fn mount(&mut self, at: impl AsRef<[u8]>, file_system: SharedFileSystem) -> Result<bool> {
        let root = file_system.root();
        self.mount_directory(at, file_system, root)
    }

    /// [`Tree::mount`] of the directory `root` of `file_system`, as a subvolume is mounted.
    ///
    /// # Errors
    /// Whatever resolving the mount point meets.
    pub fn mount_directory(
        &mut self,
        at: impl AsRef<[u8]>,
        file_system: SharedFileSystem,
        root: NodeId,
    ) -> Result<bool> {
        let Some(found) = self.resolve(at.as_ref(), LastLink::Follow)? else { return Ok(false) };
        if self.metadata_of(found.mount, found.node)?.file_type != FileType::Directory {
            return Ok(false);
        }
        let at = found.steps.into_iter().map(|step| step.name).collect();
        self.mounts.push(Mount { at, file_system, root });
        Ok(true)
    }

    /// The mounts in the order they were made: guest path and file system; the first is `/`.
    pub fn mounts(&self) -> impl Iterator<Item = (Vec<u8>, &SharedFileSystem)> {
        self.mounts.iter().map(|mount| (join(&mount.at), &mount.file_system))
    }

    /// The account of the disk this tree reads from.
    #[must_use]
    pub const fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The whole contents of the regular file at `path`, links followed; `None` where there is no regular file.
    ///
    /// # Errors
    /// [`Error::LimitReached`] for a file larger than [`crate::Limits::text_bytes`].
    pub fn read_file(&self, path: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.read_file_within(path, self.budget.limits().text_bytes)
    }

    /// [`Tree::read_file`] with a bound of its own.
    ///
    /// # Errors
    /// [`Error::LimitReached`] for a file of more than `bytes_max`.
    pub fn read_file_within(&self, path: impl AsRef<[u8]>, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open(path)? else { return Ok(None) };
        let refused = Error::LimitReached { which: Limit::TextSize, value: bytes_max };
        if file.len() > bytes_max {
            return Err(refused);
        }
        let mut contents = zeroed(file.len()).ok_or(refused)?;
        file.read_exact_at(&mut contents, 0)?;
        Ok(Some(contents))
    }

    /// [`Tree::read_file`] as text; bytes that are not UTF-8 become replacement characters.
    ///
    /// # Errors
    /// As [`Tree::read_file`].
    pub fn read_text(&self, path: impl AsRef<[u8]>) -> Result<Option<String>> {
        let text = self.read_file(path)?;
        Ok(text.map(|bytes| match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }))
    }

    /// Opens the regular file at `path`, links followed; `None` where there is no regular file.
    ///
    /// # Errors
    /// Whatever lies on the way and cannot be read.
    pub fn open(&self, path: impl AsRef<[u8]>) -> Result<Option<OpenFile>> {
        match self.resolve(path.as_ref(), LastLink::Follow)? {
            Some(found) => open_node(&self.mount_of(found.mount)?.file_system, found.node),
            None => Ok(None),
        }
    }

    /// The names in the directory at `path`, links followed; `None` where there is no directory. In on-disk order.
    ///
    /// # Errors
    /// Whatever lies on the way and cannot be read; [`Error::LimitReached`] for entries.
    pub fn read_dir(&self, path: impl AsRef<[u8]>) -> Result<Option<Vec<DirEntry>>> {
        let Some(found) = self.resolve(path.as_ref(), LastLink::Follow)? else { return Ok(None) };
        if self.metadata_of(found.mount, found.node)?.file_type != FileType::Directory {
            return Ok(None);
        }
        self.entries_of(found.mount, found.node).map(Some)
    }

    /// Metadata of what `path` names, links followed; `None` where nothing is there, a dangling link included.
    ///
    /// # Errors
    /// Whatever lies on the way and cannot be read.
    pub fn metadata(&self, path: impl AsRef<[u8]>) -> Result<Option<Metadata>> {
        self.stat(path.as_ref(), LastLink::Follow)
    }

    /// Metadata of `path` itself: a link at its end is not followed.
    ///
    /// # Errors
    /// Whatever lies on the way and cannot be read.
    pub fn symlink_metadata(&self, path: impl AsRef<[u8]>) -> Result<Option<Metadata>> {
        self.stat(path.as_ref(), LastLink::Keep)
    }

    /// The target of the symbolic link `path`, as stored; `None` where there is no symbolic link.
    ///
    /// # Errors
    /// Whatever lies on the way and cannot be read.
    pub fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let Some(found) = self.resolve(path.as_ref(), LastLink::Keep)? else { return Ok(None) };
        if self.metadata_of(found.mount, found.node)?.file_type != FileType::Symlink {
            return Ok(None);
        }
        self.mount_of(found.mount)?.file_system.read_link(found.node).map(Some)
    }

    /// The extended attributes of `path` itself, a link at its end not followed; `None` where nothing is there.
    ///
    /// # Errors
    /// Whatever lies on the way and cannot be read.
    pub fn extended_attributes(&self, path: impl AsRef<[u8]>) -> Result<Option<Vec<ExtendedAttribute>>> {
        let Some(found) = self.resolve(path.as_ref(), LastLink::Keep)? else { return Ok(None) };
        self.mount_of(found.mount)?.file_system.extended_attributes(found.node).map(Some)
    }

    /// The security descriptor of `path` itself; `None` where nothing is there, or the file system has none.
    ///
    /// # Errors
    /// Whatever lies on the way and cannot be read.
    pub fn security_descriptor(&self, path: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let Some(found) = self.resolve(path.as_ref(), LastLink::Keep)? else { return Ok(None) };
        self.mount_of(found.mount)?.file_system.security_descriptor(found.node)
    }

    /// Whether `path` names something, links followed.
    ///
    /// # Errors
    /// Whatever lies on the way and cannot be read.
    pub fn exists(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.resolve(path.as_ref(), LastLink::Follow)?.is_some())
    }

    /// Whether `path` names a directory, links followed.
    ///
    /// # Errors
    /// Whatever lies on the way and cannot be read.
    pub fn is_dir(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.metadata(path)?.is_some_and(|metadata| metadata.file_type == FileType::Directory))
    }

    /// Whether `path` names a regular file, links followed.
    ///
    /// # Errors
    /// Whatever lies on the way and cannot be read.
    pub fn is_file(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.metadata(path)?.is_some_and(|metadata| metadata.file_type == FileType::Regular))
    }

    /// The absolute path that `path` comes to once every link is followed; `None` where nothing is there.
    ///
    /// # Errors
    /// Whatever lies on the way and cannot be read.
    pub fn canonicalize(&self, path: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        let found = self.resolve(path.as_ref(), LastLink::Follow)?;
        Ok(found.map(|found| join(found.steps.iter().map(|step| &step.name))))
    }

    /// Visits everything below the directory `path`, which is not visited itself; links are not followed, mounts are.
    /// Each directory is read once, whatever names it. Returns the directories that could not be read.
    ///
    /// # Errors
    /// [`Error::LimitReached`] for depth, entries or time; whatever `visit` returns.
    pub fn walk(
        &self,
        path: impl AsRef<[u8]>,
        mut visit: impl FnMut(&WalkEntry<'_>) -> Result<WalkNext>,
    ) -> Result<Vec<Unreadable>> {
        let mut unreadable = Vec::new();
        let Some(start) = self.resolve(path.as_ref(), LastLink::Follow)? else { return Ok(unreadable) };
        if self.metadata_of(start.mount, start.node)?.file_type != FileType::Directory {
            return Ok(unreadable);
        }
        let mount_points: Vec<Vec<u8>> = self.mounts.iter().map(|mount| join(&mount.at)).collect();
        let path = join(start.steps.iter().map(|step| &step.name));
        let mut seen = HashSet::from([(start.mount, start.node)]);
        let mut pending = vec![Directory { mount: start.mount, node: start.node, path, depth: 0 }];
        while let Some(directory) = pending.pop() {
            let entries = match self.entries_of(directory.mount, directory.node) {
                Ok(entries) => entries,
                Err(error @ Error::LimitReached { .. }) => return Err(error),
                Err(error) => {
                    note_unreadable(&mut unreadable, directory.path, error)?;
                    continue;
                }
            };
            let first_below = pending.len();
            // One buffer for the paths of all entries.
            let mut path = directory.path;
            let above = if path == b"/" { 0 } else { path.len() };
            for entry in entries {
                path.truncate(above);
                path.push(b'/');
                path.extend_from_slice(&entry.name);
                // The latest mount made exactly here; the first is the root, which no directory holds.
                let mounted = mount_points.iter().rposition(|point| *point == path);
                let (mount, node, known_type) = match mounted {
                    Some(mount) => (mount, self.mount_of(mount)?.root, Some(FileType::Directory)),
                    None => (directory.mount, entry.node, entry.file_type),
                };
                let file_type = match known_type.map_or_else(|| Ok(self.metadata_of(mount, node)?.file_type), Ok) {
                    Ok(file_type) => file_type,
                    Err(error @ Error::LimitReached { .. }) => return Err(error),
                    Err(error) => {
                        note_unreadable(&mut unreadable, path.clone(), error)?;
                        continue;
                    }
                };
                let file_system = &self.mount_of(mount)?.file_system;
                let depth = directory.depth;
                let next = visit(&WalkEntry { path: &path, file_type, depth, file_system, node })?;
                match next {
                    WalkNext::Stop => return Ok(unreadable),
                    WalkNext::Descend if file_type == FileType::Directory && seen.insert((mount, node)) => {
                        let depth = self.deeper(directory.depth)?;
                        pending.push(Directory { mount, node, path: path.clone(), depth });
                    }
                    WalkNext::Descend | WalkNext::Skip => {}
                }
            }
            // The first directory met is the first one entered, so that a walk reads in on-disk order.
            if let Some(below) = pending.get_mut(first_below..) {
                below.reverse();
            }
        }
        Ok(unreadable)
    }

    fn deeper(&self, depth: u32) -> Result<u32> {
        let bound = self.budget.limits().directory_depth;
        match depth.checked_add(1).filter(|deeper| *deeper <= bound) {
            Some(deeper) => Ok(deeper),
            None => Err(Error::LimitReached { which: Limit::DirectoryDepth, value: u64::from(bound) }),
        }
    }

    fn stat(&self, path: &[u8], last: LastLink) -> Result<Option<Metadata>> {
        match self.resolve(path, last)? {
            Some(found) => self.metadata_of(found.mount, found.node).map(Some),
            None => Ok(None),
        }
    }

    fn mount_of(&self, index: usize) -> Result<&Mount> {
        self.mounts.get(index).ok_or_else(|| Error::corrupt("mount table", 0, "no such mount"))
    }

    fn metadata_of(&self, mount: usize, node: NodeId) -> Result<Metadata> {
        self.mount_of(mount)?.file_system.metadata(node)
    }

    fn entries_of(&self, mount: usize, node: NodeId) -> Result<Vec<DirEntry>> {
        let entries = self.mount_of(mount)?.file_system.read_dir(node)?;
        self.budget.charge_entries(entries.len())?;
        Ok(entries)
    }

    fn mounted_below(&self, steps: &[Step], name: &[u8]) -> Option<usize> {
        let is_here = |at: &[Vec<u8>]| {
            at.split_last()
                .is_some_and(|(last, above)| last == name && above.iter().eq(steps.iter().map(|step| &step.name)))
        };
        self.mounts.iter().rposition(|mount| is_here(&mount.at))
    }

    fn resolve(&self, path: &[u8], last: LastLink) -> Result<Option<Resolved>> {
        self.budget.check_time()?;
        let root = self.mount_of(0)?.root;
        let mut steps: Vec<Step> = Vec::new();
        let mut pending = Vec::new();
        if !push_names(&mut pending, path) {
            return Ok(None);
        }
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if steps.last().is_some_and(|step| !step.is_directory) {
                return Ok(None);
            }
            if name == b".." {
                steps.pop();
                continue;
            }
            if let Some(mount) = self.mounted_below(&steps, &name) {
                let node = self.mount_of(mount)?.root;
                steps.push(Step { name, mount, node, is_directory: true });
                continue;
            }
            let (mount, node) = steps.last().map_or((0, root), |step| (step.mount, step.node));
            let file_system = &self.mount_of(mount)?.file_system;
            let Some(child) = file_system.lookup(node, &name)? else { return Ok(None) };
            let file_type = file_system.metadata(child)?.file_type;
            let follow = !pending.is_empty() || last == LastLink::Follow;
            if file_type != FileType::Symlink || !follow {
                steps.push(Step { name, mount, node: child, is_directory: file_type == FileType::Directory });
                continue;
            }
            links += 1;
            let bound = self.budget.limits().symlink_depth;
            if links > bound {
                return Err(Error::LimitReached { which: Limit::SymlinkDepth, value: u64::from(bound) });
            }
            let target = file_system.read_link(child)?;
            if target.starts_with(b"/") {
                steps.clear();
            }
            if !push_names(&mut pending, &target) {
                return Ok(None);
            }
        }
        let (mount, node) = steps.last().map_or((0, root), |step| (step.mount, step.node));
        Ok(Some(Resolved { steps, mount, node }))
    }
}

struct Directory {
    mount: usize,
    node: NodeId,
    path: Vec<u8>,
    depth: u32,
}

fn open_node(file_system: &SharedFileSystem, node: NodeId) -> Result<Option<OpenFile>> {
    let metadata = file_system.metadata(node)?;
    if metadata.file_type != FileType::Regular {
        return Ok(None);
    }
    Ok(Some(OpenFile { file_system: Arc::clone(file_system), metadata }))
}

fn note_unreadable(unreadable: &mut Vec<Unreadable>, path: Vec<u8>, error: Error) -> Result<()> {
    if unreadable.len() >= UNREADABLE_MAX {
        return Err(error);
    }
    unreadable.push(Unreadable { path, error });
    Ok(())
}

/// Pushes the names of `path` so that the first pops first; `false` where no such path can exist.
fn push_names(pending: &mut Vec<Vec<u8>>, path: &[u8]) -> bool {
    if path.is_empty() || path.len() > PATH_BYTES_MAX || path.contains(&0) {
        return false;
    }
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    pending.extend(names.rev().map(<[u8]>::to_vec));
    true
}

fn join<N: AsRef<[u8]>>(names: impl IntoIterator<Item = N>) -> Vec<u8> {
    let mut path = Vec::new();
    for name in names {
        path.push(b'/');
        path.extend_from_slice(name.as_ref());
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}

#[cfg(test)]
mod tests;
