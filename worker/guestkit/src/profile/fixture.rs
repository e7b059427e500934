//! Guests that pass a check and guests that do not, written down as YAML and held in memory: `fixtures/*.yaml`, each on one of
//! `fixtures/bases/*.yaml`. The facts go the way of a real guest's: file system, readers, inspection, checks.

mod hive;
mod windows;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use crate::disk::{Disk, ImageSpec};
use crate::error::{Error, Result};
use crate::filesystem::{
    DirEntry, ExtendedAttribute, FileSystem, FileSystemInfo, FileType, Metadata, NodeId, Timestamp,
};
use crate::guest::linux::files::Files;
use crate::guest::report::{Filesystem, ImageInfo, InspectReport, Mountpoint, PartitionTable};
use crate::guest::roots::{Aliases, DeviceNames, Root};
use crate::guest::tree::Tree;
use crate::guest::windows::hives::Hives;
use crate::image::Roots;
use crate::limits::{Budget, Limits};

use super::guest::{Guest, Parts};
use super::rule::Rule;
use super::{Content, ProfileOptions, Semantics, judge};

/// A guest and what a check must come to on it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    expect: String,
    /// What the reason must contain.
    reason: String,
    /// What the severity must be, where it is not the rule's.
    severity: Option<String>,
    /// `fixtures/bases/NAME.yaml`.
    base: String,
    files: BTreeMap<String, Entry>,
    /// Packages added to the base's, `name=version`, in dpkg's database.
    packages: Vec<String>,
    /// Keys of the registry over the base's, by hive: `SYSTEM`, `SOFTWARE`, `SAM`, `SECURITY`, `NTUSER:NAME`, `BCD`, and `control`
    /// for the current control set.
    registry: BTreeMap<String, hive::Keys>,
    /// Accounts, their policy, and the group Administrators; instead of the base's.
    sam: windows::Sam,
    /// What is audited, by subcategory: 1 success, 2 failure.
    audit: BTreeMap<String, u16>,
    filesystems: Vec<Filesystem>,
    mountpoints: Vec<Mountpoint>,
    image: ImageInfo,
    partition_table: Option<PartitionTable>,
    /// How many systems the disk has.
    systems: Option<usize>,
    explicit: bool,
    standard: Option<String>,
    target: Option<String>,
    reference_time: Option<i64>,
}

/// What is at a path.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Entry {
    Text(String),
    Node(Node),
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Node {
    text: Option<String>,
    /// Contents in hexadecimal.
    hex: Option<String>,
    link: Option<String>,
    directory: bool,
    /// Nothing: what the base has there is not there.
    absent: bool,
    mode: Option<String>,
    uid: u32,
    gid: u32,
    modified: i64,
    /// Extended attributes, their values in hexadecimal.
    attributes: BTreeMap<String, String>,
    /// Bytes, where the contents do not matter.
    size: Option<u64>,
    /// Contents that were made.
    #[serde(skip)]
    bytes: Option<Vec<u8>>,
}

fn read<T: for<'d> Deserialize<'d>>(path: &Path) -> T {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/profile/fixtures"))
}

fn unhex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A file system in memory.
#[derive(Debug)]
struct Memory {
    info: FileSystemInfo,
    nodes: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    metadata: Metadata,
    contents: Vec<u8>,
    attributes: Vec<ExtendedAttribute>,
    children: BTreeMap<Vec<u8>, usize>,
}

impl Memory {
    fn new(entries: &BTreeMap<String, Node>) -> Self {
        let info = FileSystemInfo {
            kind: "memory",
            label: None,
            uuid: None,
            size_bytes: 10 << 30,
            free_bytes: 5 << 30,
            inodes: None,
            inodes_free: None,
        };
        let mut memory = Self { info, nodes: Vec::new() };
        memory.add(&Node { directory: true, ..Node::default() });
        // Directories first, so that what lies in one finds its mode.
        for directories in [true, false] {
            for (path, node) in entries.iter().filter(|(_, node)| node.directory == directories && !node.absent) {
                memory.place(path, node);
            }
        }
        memory
    }

    fn add(&mut self, node: &Node) -> usize {
        let number = self.nodes.len();
        let file_type = match node {
            Node { directory: true, .. } => FileType::Directory,
            Node { link: Some(_), .. } => FileType::Symlink,
            _ => FileType::Regular,
        };
        let default = match file_type {
            FileType::Directory => 0o755,
            FileType::Symlink => 0o777,
            _ => 0o644,
        };
        let text = node.link.as_ref().or(node.text.as_ref());
        let contents = match (&node.hex, &node.bytes) {
            (_, Some(bytes)) => bytes.clone(),
            (Some(digits), None) => unhex(digits),
            (None, None) => text.map(|text| text.as_bytes().to_vec()).unwrap_or_default(),
        };
        let time = Timestamp { seconds: node.modified, nanoseconds: 0 };
        let metadata = Metadata {
            node: NodeId(number as u64),
            file_type,
            mode: node.mode.as_ref().map_or(default, |mode| u16::from_str_radix(mode, 8).unwrap()),
            uid: node.uid,
            gid: node.gid,
            size: node.size.unwrap_or(contents.len() as u64),
            links: 1,
            device: None,
            accessed: None,
            modified: time,
            changed: time,
            created: None,
        };
        let attribute =
            |(name, value): (&String, &String)| ExtendedAttribute { name: name.clone().into(), value: unhex(value) };
        let attributes = node.attributes.iter().map(attribute).collect();
        self.nodes.push(Kept { metadata, contents, attributes, children: BTreeMap::new() });
        number
    }

    fn place(&mut self, path: &str, node: &Node) {
        let mut at = 0;
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (last, above) = parts.split_last().unwrap_or_else(|| panic!("{path} is no path"));
        for part in above {
            let known = self.nodes[at].children.get(part.as_bytes()).copied();
            at = known.unwrap_or_else(|| {
                let number = self.add(&Node { directory: true, ..Node::default() });
                self.nodes[at].children.insert(part.as_bytes().to_vec(), number);
                number
            });
        }
        if let Some(known) = self.nodes[at].children.get(last.as_bytes()).copied() {
            assert!(node.directory, "{path} is there twice");
            let mode = node.mode.as_ref().map_or(0o755, |mode| u16::from_str_radix(mode, 8).unwrap());
            (self.nodes[known].metadata.mode, self.nodes[known].metadata.uid) = (mode, node.uid);
            return;
        }
        let number = self.add(node);
        self.nodes[at].children.insert(last.as_bytes().to_vec(), number);
    }

    fn node(&self, node: NodeId) -> Result<&Kept> {
        let found = usize::try_from(node.0).ok().and_then(|number| self.nodes.get(number));
        found.ok_or_else(|| Error::corrupt("node", node.0, "it is not there"))
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
        let children = &self.node(directory)?.children;
        let exact = children.get(name);
        // Windows does not tell cases apart.
        let found =
            exact.or_else(|| children.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, at)| at));
        let is_windows = self.nodes.first().is_some_and(|root| root.children.contains_key(b"Windows".as_slice()));
        Ok(if is_windows { found } else { exact }.map(|number| NodeId(*number as u64)))
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        Ok(self.node(node)?.metadata.clone())
    }

    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>> {
        let entries = self.node(directory)?.children.iter().map(|(name, number)| {
            let file_type = Some(self.nodes[*number].metadata.file_type);
            DirEntry { name: name.clone(), node: NodeId(*number as u64), file_type }
        });
        Ok(entries.collect())
    }

    fn read(&self, node: NodeId, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let node = self.node(node)?;
        let left = usize::try_from(node.metadata.size.saturating_sub(offset)).unwrap().min(buffer.len());
        let kept = node.contents.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let kept = kept.get(..left).unwrap_or(kept);
        buffer[..left].fill(0);
        buffer[..kept.len()].copy_from_slice(kept);
        Ok(left)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        Ok(self.node(node)?.contents.clone())
    }

    fn extended_attributes(&self, node: NodeId) -> Result<Vec<ExtendedAttribute>> {
        Ok(self.node(node)?.attributes.clone())
    }

    /// Written as the attribute by which Linux's ntfs3 shows it.
    fn security_descriptor(&self, node: NodeId) -> Result<Option<Vec<u8>>> {
        let attributes = &self.node(node)?.attributes;
        let own = attributes.iter().find(|attribute| attribute.name == b"system.ntfs_security");
        Ok(own.map(|attribute| attribute.value.clone()))
    }
}

impl Written {
    /// Every path: the base's, and its own over them.
    fn entries(&self) -> BTreeMap<String, Node> {
        let base = if self.base.is_empty() { "debian12" } else { &self.base };
        let mut entries: BTreeMap<String, Entry> = read(&folder().join("bases").join(format!("{base}.yaml")));
        entries.extend(self.files.clone());
        let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
        for (path, entry) in entries {
            let node = match entry {
                Entry::Text(text) => Node { text: Some(text), ..Node::default() },
                Entry::Node(node) => node,
            };
            nodes.insert(path, node);
        }
        let hives = windows::files(base, self);
        if !hives.is_empty() {
            for (path, hive) in hives {
                nodes.entry(path).or_insert(hive);
            }
            return nodes;
        }
        let status = nodes.entry("/var/lib/dpkg/status".to_owned()).or_default();
        for package in &self.packages {
            let (name, version) = package.split_once('=').unwrap_or((package, "1.0"));
            let stanza =
                format!("Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n");
            status.text.get_or_insert_default().push_str(&stanza);
        }
        nodes
    }

    /// What the check of `rule` comes to on this guest: state, severity, reason.
    fn verdict(&self, rule: &Rule) -> (String, String, String) {
        let entries = self.entries();
        let is_windows = entries.keys().any(|path| path.starts_with("/Windows/"));
        let memory: Arc<dyn FileSystem> = Arc::new(Memory::new(&entries));
        let tree = Tree::new(memory, Budget::new(&Limits::default()));
        let blank = tempfile::NamedTempFile::new().unwrap();
        blank.as_file().set_len(1 << 20).unwrap();
        let disk = Disk::open(&[ImageSpec::recognised(blank.path())], &Roots::anywhere(), &Limits::default()).unwrap();
        let names = DeviceNames::new(&disk);
        let mountpoints = if self.mountpoints.is_empty() {
            vec![Mountpoint { path: "/".to_owned(), device: "/dev/sda1".to_owned(), ..Mountpoint::default() }]
        } else {
            self.mountpoints.clone()
        };
        let root = Root {
            device: "/dev/sda1".to_owned(),
            subvolume: None,
            tree,
            mountpoints,
            snapshots: Vec::new(),
            ostree: None,
            aliases: Aliases::default(),
            system_root: is_windows.then(|| "/Windows".to_owned()),
        };
        let inspected = InspectReport { filesystems: self.filesystems.clone(), ..InspectReport::default() };
        let (system, _) = super::facts_of(&disk, &root, &names, &inspected, &mut ());
        let standards = self.standard.iter().map(|name| super::Standard::from_name(name).unwrap()).collect();
        let options = ProfileOptions {
            semantics: if self.explicit { Semantics::Explicit } else { Semantics::Effective },
            target: self.target.clone(),
            standards,
            ..ProfileOptions::default()
        };
        let files = Files::new(&root.tree);
        let hives = root.system_root.as_deref().map(|system_root| Hives::new(&files, system_root));
        let guest = Guest::new(Parts {
            disk: &disk,
            root: &root,
            image: &self.image,
            partition_table: self.partition_table.as_ref(),
            filesystems: &self.filesystems,
            systems: self.systems.unwrap_or(1),
            files: &files,
            system: &system,
            hives: hives.as_ref(),
            options: &options,
            // 2026-01-01.
            reference_time: self.reference_time.unwrap_or(1_767_225_600),
        });
        let outcome = judge(&guest, rule, &guest.families()).outcome;
        let severity = outcome.severity.unwrap_or(rule.severity).name().to_owned();
        (outcome.status.name().to_owned(), severity, outcome.reason)
    }
}

#[test]
fn every_check_comes_to_what_is_written_of_its_guests() {
    let content = Content::embedded();
    let mut faults = Vec::new();
    let mut paths: Vec<_> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|end| end == "yaml")) {
        let guests: BTreeMap<String, Vec<Written>> = read(path);
        for (id, guests) in guests {
            let rule = content.rules.iter().find(|rule| rule.id == id).unwrap();
            for (number, guest) in guests.iter().enumerate() {
                let (status, severity, reason) = guest.verdict(rule);
                let severe = guest.severity.as_ref().is_none_or(|wanted| *wanted == severity);
                if status != guest.expect || !severe || !reason.contains(&guest.reason) {
                    let wanted = &guest.expect;
                    faults.push(format!("{id}, guest {number}: {status} ({severity}; {reason}), not {wanted}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
