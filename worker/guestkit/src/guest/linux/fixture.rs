//! Guests for unit tests: a folder of the test machine behind the engine's own file system trait.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::error::{Error, Result};
use crate::filesystem::{DirEntry, FileSystem, FileSystemInfo, FileType, Metadata, NodeId, Timestamp};
use crate::guest::tree::Tree;
use crate::limits::{Budget, Limits};

/// A folder that a test fills.
pub(crate) struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn file(&self, path: &str, contents: impl AsRef<[u8]>) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    pub(crate) fn directory(&self, path: &str) {
        fs::create_dir_all(self.folder.path().join(path)).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn tree(&self) -> Tree {
        tree_of(self.folder.path())
    }
}

/// A guest whose root is a folder of the test machine.
pub(crate) fn tree_of(folder: &Path) -> Tree {
    Tree::new(Arc::new(Folder::new(folder)), Budget::new(&Limits::default()))
}

#[derive(Debug)]
struct Folder {
    info: FileSystemInfo,
    nodes: Mutex<BTreeMap<u64, PathBuf>>,
    root: NodeId,
}

impl Folder {
    fn new(root: &Path) -> Self {
        let inode = fs::symlink_metadata(root).unwrap().ino();
        let info = FileSystemInfo {
            kind: "folder",
            label: None,
            uuid: None,
            size_bytes: 0,
            free_bytes: 0,
            inodes: None,
            inodes_free: None,
        };
        Self { info, nodes: Mutex::new(BTreeMap::from([(inode, root.to_owned())])), root: NodeId(inode) }
    }

    fn path(&self, node: NodeId) -> PathBuf {
        self.nodes.lock().unwrap().get(&node.0).cloned().unwrap()
    }

    fn remember(&self, path: PathBuf) -> Option<NodeId> {
        let inode = fs::symlink_metadata(&path).ok()?.ino();
        self.nodes.lock().unwrap().insert(inode, path);
        Some(NodeId(inode))
    }
}

fn io(source: std::io::Error) -> Error {
    Error::Io { action: "reading a fixture".to_owned(), source }
}

fn file_type(found: fs::FileType) -> FileType {
    if found.is_dir() {
        FileType::Directory
    } else if found.is_file() {
        FileType::Regular
    } else if found.is_symlink() {
        FileType::Symlink
    } else {
        FileType::Fifo
    }
}

impl FileSystem for Folder {
    fn info(&self) -> &FileSystemInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        self.root
    }

    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        Ok(self.remember(self.path(directory).join(std::ffi::OsStr::from_bytes(name))))
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let found = fs::symlink_metadata(self.path(node)).map_err(io)?;
        Ok(Metadata {
            node,
            file_type: file_type(found.file_type()),
            mode: u16::try_from(found.mode() & 0o7777).unwrap(),
            uid: found.uid(),
            gid: found.gid(),
            size: found.len(),
            links: u32::try_from(found.nlink()).unwrap(),
            device: None,
            accessed: None,
            modified: Timestamp { seconds: found.mtime(), nanoseconds: 0 },
            changed: Timestamp { seconds: found.ctime(), nanoseconds: 0 },
            created: None,
        })
    }

    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>> {
        let entries = fs::read_dir(self.path(directory)).map_err(io)?;
        let entry = |entry: fs::DirEntry| {
            let node = self.remember(entry.path()).unwrap();
            let file_type = Some(file_type(entry.file_type().unwrap()));
            DirEntry { name: entry.file_name().as_bytes().to_vec(), node, file_type }
        };
        Ok(entries.map(|found| entry(found.unwrap())).collect())
    }

    fn read(&self, node: NodeId, buffer: &mut [u8], offset: u64) -> Result<usize> {
        use std::os::unix::fs::FileExt as _;
        fs::File::open(self.path(node)).and_then(|file| file.read_at(buffer, offset)).map_err(io)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        fs::read_link(self.path(node)).map(|target| target.as_os_str().as_bytes().to_vec()).map_err(io)
    }
}
