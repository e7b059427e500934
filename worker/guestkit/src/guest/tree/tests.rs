//! Path resolution on small trees made up here; the truth is path_resolution(7) of the Linux man pages.

use std::collections::BTreeMap;

use super::*;
use crate::filesystem::{FileSystem, FileSystemInfo, Timestamp};
use crate::limits::Limits;

#[derive(Debug)]
enum Node {
    Directory(BTreeMap<Vec<u8>, NodeId>),
    File(Vec<u8>),
    Link(Vec<u8>),
    Fifo,
}

#[derive(Debug)]
struct Memory {
    info: FileSystemInfo,
    nodes: Vec<Node>,
}

impl Memory {
    /// Lines such as `/etc/hostname=debian`, `/bin->usr/bin`, `/dev/log|`; parents must come first, `/dir/` makes one.
    fn of(lines: &[&str]) -> SharedFileSystem {
        let info = FileSystemInfo {
            kind: "memory",
            label: None,
            uuid: None,
            size_bytes: 0,
            free_bytes: 0,
            inodes: None,
            inodes_free: None,
        };
        let mut made = Self { info, nodes: vec![Node::Directory(BTreeMap::new())] };
        for line in lines {
            let (path, node) = if let Some((path, target)) = line.split_once("->") {
                (path, Node::Link(target.into()))
            } else if let Some((path, text)) = line.split_once('=') {
                (path, Node::File(text.into()))
            } else if let Some(path) = line.strip_suffix('|') {
                (path, Node::Fifo)
            } else {
                (line.trim_end_matches('/'), Node::Directory(BTreeMap::new()))
            };
            made.add(path, node);
        }
        Arc::new(made)
    }

    fn add(&mut self, path: &str, node: Node) {
        let id = NodeId(self.nodes.len() as u64);
        self.nodes.push(node);
        let (parent, name) = path.rsplit_once('/').unwrap();
        let mut at = NodeId(0);
        for part in parent.split('/').filter(|part| !part.is_empty()) {
            at = self.lookup(at, part.as_bytes()).unwrap().unwrap();
        }
        let Node::Directory(names) = &mut self.nodes[at.0 as usize] else { panic!("{parent} is no directory") };
        names.insert(name.into(), id);
    }
}

impl FileSystem for Memory {
    fn info(&self) -> &FileSystemInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        NodeId(0)
    }

    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        match &self.nodes[directory.0 as usize] {
            Node::Directory(names) => Ok(names.get(name).copied()),
            _ => Err(Error::corrupt("directory", 0, "not one")),
        }
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let (file_type, size) = match &self.nodes[node.0 as usize] {
            Node::Directory(_) => (FileType::Directory, 0),
            Node::File(text) => (FileType::Regular, text.len() as u64),
            Node::Link(target) => (FileType::Symlink, target.len() as u64),
            Node::Fifo => (FileType::Fifo, 0),
        };
        let (modified, changed) = (Timestamp::default(), Timestamp::default());
        let (device, accessed, created) = (None, None, None);
        let (mode, uid, gid, links) = (0o644, 0, 0, 1);
        Ok(Metadata { node, file_type, mode, uid, gid, size, links, device, accessed, modified, changed, created })
    }

    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>> {
        let Node::Directory(names) = &self.nodes[directory.0 as usize] else { panic!("no directory") };
        Ok(names.iter().map(|(name, node)| DirEntry { name: name.clone(), node: *node, file_type: None }).collect())
    }

    fn read(&self, node: NodeId, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let Node::File(text) = &self.nodes[node.0 as usize] else { panic!("no file") };
        let rest = &text[offset as usize..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let Node::Link(target) = &self.nodes[node.0 as usize] else { panic!("no link") };
        Ok(target.clone())
    }
}

fn guest() -> Tree {
    let root = Memory::of(&[
        "/usr/",
        "/usr/bin/",
        "/usr/bin/sh=shell",
        "/bin->usr/bin",
        "/etc/",
        "/etc/hostname=debian",
        "/etc/name->/etc/hostname",
        "/etc/up->../../../../etc/hostname",
        "/etc/loop->loop",
        "/etc/a->b",
        "/etc/b->a",
        "/etc/dangling->/nowhere",
        "/etc/through->/bin/sh",
        "/dev/",
        "/dev/log|",
        "/var/",
        "/var/log->/home/log",
        "/home/",
        "/srv->/home",
    ]);
    let home = Memory::of(&["/log/", "/log/syslog=lines", "/out->../etc/hostname", "/abs->/etc/hostname"]);
    let mut tree = Tree::new(root, Budget::new(&Limits::default()));
    assert!(tree.mount("/srv", home).unwrap(), "mounted through a link, at /home");
    assert!(!tree.mount("/absent", Memory::of(&[])).unwrap());
    tree
}

#[test]
fn paths_resolve_as_in_the_guest() {
    let tree = guest();
    for (path, expected) in [
        ("/etc/hostname", Some("debian")),
        ("etc//./hostname", Some("debian")),
        ("/etc/name", Some("debian")),
        ("/etc/up", Some("debian")),
        ("/../../etc/hostname", Some("debian")),
        ("/bin/sh", Some("shell")),
        ("/etc/through", Some("shell")),
        ("/var/log/syslog", Some("lines")),
        ("/home/out", Some("debian")),
        ("/srv/abs", Some("debian")),
        ("/home/log/../../etc/hostname", Some("debian")),
        ("/etc/dangling", None),
        ("/etc/hostname/below", None),
        ("/etc/hostname/..", None),
        ("/dev/log", None),
        ("/etc", None),
        ("/absent/../etc/hostname", None),
        ("", None),
        ("/etc/host\0name", None),
    ] {
        let text = tree.read_text(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(text.as_deref(), expected, "{path}");
    }
}

#[test]
fn loops_meet_the_limit() {
    for path in ["/etc/loop", "/etc/a"] {
        let met = guest().read_file(path);
        assert!(matches!(met, Err(Error::LimitReached { which: Limit::SymlinkDepth, value: 40 })), "{path}: {met:?}");
    }
}

#[test]
fn links_are_told_from_what_they_name() {
    let tree = guest();
    assert_eq!(tree.symlink_metadata("/etc/name").unwrap().unwrap().file_type, FileType::Symlink);
    assert_eq!(tree.metadata("/etc/name").unwrap().unwrap().file_type, FileType::Regular);
    assert_eq!(tree.read_link("/etc/name").unwrap().unwrap(), b"/etc/hostname");
    assert_eq!(tree.read_link("/etc/hostname").unwrap(), None);
    assert!(tree.symlink_metadata("/etc/dangling").unwrap().is_some() && !tree.exists("/etc/dangling").unwrap());
    assert_eq!(tree.canonicalize("/var/log/syslog").unwrap().unwrap(), b"/home/log/syslog");
    assert_eq!(tree.canonicalize("/..").unwrap().unwrap(), b"/");
    assert!(tree.is_dir("/bin").unwrap() && tree.is_file("/bin/sh").unwrap() && !tree.is_file("/dev/log").unwrap());
}

#[test]
fn a_walk_sees_mounts_follows_no_links_and_obeys_its_visitor() {
    let tree = guest();
    let mut paths = Vec::new();
    let unreadable = tree
        .walk("/", |entry| {
            paths.push(String::from_utf8(entry.path.to_vec()).unwrap());
            Ok(if entry.name() == b"etc" { WalkNext::Skip } else { WalkNext::Descend })
        })
        .unwrap();
    assert!(unreadable.is_empty());
    let expected = [
        "/bin",
        "/dev",
        "/etc",
        "/home",
        "/srv",
        "/usr",
        "/var",
        "/dev/log",
        "/home/abs",
        "/home/log",
        "/home/out",
        "/home/log/syslog",
        "/usr/bin",
        "/usr/bin/sh",
        "/var/log",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn a_walk_is_bounded_in_depth_and_entries() {
    let deep = Memory::of(&["/a/", "/a/b/", "/a/b/c/"]);
    let check = |limits: Limits, expected: Limit| {
        let tree = Tree::new(Arc::clone(&deep), Budget::new(&limits));
        let met = tree.walk("/", |_| Ok(WalkNext::Descend));
        assert!(matches!(met, Err(Error::LimitReached { which, .. }) if which == expected), "{met:?}");
    };
    check(Limits { directory_depth: 2, ..Limits::default() }, Limit::DirectoryDepth);
    check(Limits { entries: 2, ..Limits::default() }, Limit::Entries);
}

#[test]
fn a_file_past_the_bound_is_refused_not_cut() {
    let met = guest().read_file_within("/etc/hostname", 5);
    assert!(matches!(met, Err(Error::LimitReached { which: Limit::TextSize, value: 5 })));
}
