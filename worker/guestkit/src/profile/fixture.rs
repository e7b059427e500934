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
    /// Bytes of the disk by offset, in hexadecimal; the rest is zero. What is not written of an ext superblock is that of a
    /// file system of 4096 blocks.
    disk: BTreeMap<u64, String>,
    /// Bytes of the disk; 16 MiB where it is left out.
    disk_bytes: Option<u64>,
    /// Device of the root file system; `/dev/sda1` where it is left out.
    root: Option<String>,
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
                format!("\nPackage: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n");
            status.text.get_or_insert_default().push_str(&stanza);
        }
        nodes
    }

    /// What the check of `rule` comes to on this guest: state, severity, reason.
    fn verdict(&self, rule: &Rule) -> (String, String, String) {
        self.verdict_on(&self.entries(), rule)
    }

    fn verdict_on(&self, entries: &BTreeMap<String, Node>, rule: &Rule) -> (String, String, String) {
        let is_windows = entries.keys().any(|path| path.starts_with("/Windows/"));
        let memory: Arc<dyn FileSystem> = Arc::new(Memory::new(entries));
        let tree = Tree::new(memory, Budget::new(&Limits::default()));
        let blank = tempfile::NamedTempFile::new().unwrap();
        blank.as_file().set_len(self.disk_bytes.unwrap_or(16 << 20)).unwrap();
        for (offset, digits) in &self.disk {
            std::os::unix::fs::FileExt::write_all_at(blank.as_file(), &unhex(digits), *offset).unwrap();
        }
        let disk = Disk::open(&[ImageSpec::recognised(blank.path())], &Roots::anywhere(), &Limits::default()).unwrap();
        let names = DeviceNames::new(&disk);
        let mountpoints = if self.mountpoints.is_empty() {
            vec![Mountpoint { path: "/".to_owned(), device: "/dev/sda1".to_owned(), ..Mountpoint::default() }]
        } else {
            self.mountpoints.clone()
        };
        let root = Root {
            device: self.root.clone().unwrap_or_else(|| "/dev/sda1".to_owned()),
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

/// One line of the corpus's scenarios: an overlay of `base-root.tar`, and what one rule of ComplianceAsCode must come to.
#[derive(Debug, Deserialize)]
struct Scenario {
    deleted: Vec<String>,
    expect: String,
    files: BTreeMap<String, ScenarioFile>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    rule: String,
    scenario: String,
}

#[derive(Debug, Deserialize)]
struct ScenarioFile {
    mode: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    target: Option<String>,
}

fn scenario_node(file: &ScenarioFile) -> Node {
    Node {
        text: (file.kind == "f").then(|| file.text.clone().unwrap_or_default()),
        link: file.target.clone(),
        directory: file.kind == "d",
        mode: file.mode.as_ref().map(|mode| mode.trim_start_matches("0o").to_owned()),
        ..Node::default()
    }
}

fn tar_nodes(path: &Path) -> BTreeMap<String, Node> {
    let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
    let mut nodes = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path =
            format!("/{}", entry.path().unwrap().display().to_string().trim_start_matches("./").trim_end_matches('/'));
        let mode = Some(format!("{:o}", entry.header().mode().unwrap() & 0o7777));
        let node = if entry.header().entry_type().is_dir() {
            Node { directory: true, mode, ..Node::default() }
        } else {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
            Node { text: Some(text), mode, ..Node::default() }
        };
        if path != "/" {
            nodes.insert(path, node);
        }
    }
    nodes
}

/// What the scenarios take for granted of the machine they are run on, and the archive leaves out: a Red Hat 9 with systemd,
/// a kernel, auditd, and what each asks to be installed.
fn frame(scenario: &Scenario) -> BTreeMap<String, Node> {
    let text = |text: &str| Node { text: Some(text.to_owned()), ..Node::default() };
    let kernel = "5.14.0-1.el9.x86_64";
    let modules = "kernel/net/dccp/dccp.ko.xz:\nkernel/fs/cramfs/cramfs.ko.xz:\n";
    let mut status = String::new();
    let asked = scenario.headers.get("packages").map(String::as_str).unwrap_or_default();
    for name in asked.split(',').map(str::trim).chain(["audit", "systemd"]).filter(|name| !name.is_empty()) {
        status
            .push_str(&format!("Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0\n\n"));
    }
    let nodes = [
        ("/etc/os-release", "NAME=\"Red Hat Enterprise Linux\"\nID=rhel\nID_LIKE=fedora\nVERSION_ID=9.4\nPRETTY_NAME=\"Red Hat Enterprise Linux 9.4\"\n".to_owned()),
        ("/usr/lib/systemd/systemd", String::new()),
        ("/usr/lib/systemd/system/crond.service", "[Service]\nExecStart=/usr/sbin/crond\n[Install]\nWantedBy=multi-user.target\n".to_owned()),
        ("/usr/sbin/auditd", String::new()),
        ("/usr/sbin/crond", String::new()),
        ("/usr/bin/sudo", String::new()),
        ("/boot/vmlinuz-5.14.0-1.el9.x86_64", String::new()),
        ("/var/lib/dpkg/status", status),
    ];
    let mut nodes: BTreeMap<String, Node> =
        nodes.into_iter().map(|(path, contents)| (path.to_owned(), text(&contents))).collect();
    nodes.insert(format!("/usr/lib/modules/{kernel}/modules.dep"), text(modules));
    nodes.insert(
        "/boot/grub2/grub.cfg".to_owned(),
        text(&format!("menuentry 'a' {{\n linux /boot/vmlinuz-{kernel} root=/dev/sda1 ro\n}}\n")),
    );
    nodes
}

/// The checks that map to a rule of ComplianceAsCode against the scenarios of that rule's own tests. A check often asks more
/// than one rule does, and asks it of what is effective; where the two differ, `scenarios.tsv` says how often and why.
#[test]
fn scenarios_of_compliance_as_code_come_to_what_they_expect() {
    let Some(corpus) = std::env::var_os("GUESTKIT_CORPUS") else { return };
    let folder = Path::new(&corpus).join("compliance");
    let base = tar_nodes(&folder.join("base-root.tar"));
    let packed = fs::read(folder.join("cac-scenarios.jsonl.zst")).unwrap();
    let mut text = String::new();
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(packed.as_slice()).unwrap();
    std::io::Read::read_to_string(&mut decoder, &mut text).unwrap();
    let content = Content::embedded();
    // When the scenarios were made.
    let taken = Written { reference_time: Some(1_787_000_000), ..Written::default() };
    let mut table: BTreeMap<String, (u32, Vec<String>)> = BTreeMap::new();
    for line in text.lines() {
        // Bytes that are no UTF-8 were written down as lone surrogates, which JSON's text cannot hold.
        let scenario: Scenario = serde_json::from_str(&line.replace("\\udc", "\\u00")).unwrap();
        let rules: Vec<_> = content.rules.iter().filter(|rule| rule.mappings.ssg.contains(&scenario.rule)).collect();
        if rules.is_empty() {
            continue;
        }
        let mut nodes = frame(&scenario);
        nodes.extend(base.clone());
        for path in &scenario.deleted {
            let path = format!("/{}", path.trim_start_matches('/'));
            nodes.retain(|known, _| *known != path && !known.starts_with(&format!("{path}/")));
        }
        nodes.extend(scenario.files.iter().map(|(path, file)| (format!("/{path}"), scenario_node(file))));
        let verdicts: Vec<_> = rules
            .iter()
            .map(|rule| {
                let effective = taken.verdict_on(&nodes, rule);
                let explicit = Written { explicit: true, ..taken.clone() }.verdict_on(&nodes, rule);
                (rule, effective, explicit)
            })
            .collect();
        let is_bad = |status: &str| matches!(status, "fail" | "warn");
        let agrees = match scenario.expect.as_str() {
            "fail" => verdicts.iter().any(|(_, effective, explicit)| is_bad(&effective.0) || is_bad(&explicit.0)),
            _ => verdicts.iter().any(|(_, effective, _)| effective.0 == "pass"),
        };
        let row = table.entry(scenario.rule.clone()).or_default();
        row.0 += 1;
        if !agrees {
            let told =
                verdicts.iter().map(|(rule, effective, _)| format!("{} {}: {}", rule.id, effective.0, effective.2));
            row.1.push(format!("{} ({}): {}", scenario.scenario, scenario.expect, told.collect::<Vec<_>>().join("; ")));
        }
    }
    let cases: u32 = table.values().map(|row| row.0).sum();
    let differ: usize = table.values().map(|row| row.1.len()).sum();
    println!("{} rules, {cases} scenarios, {differ} differ", table.len());
    for (rule, (cases, differ)) in &table {
        println!("{rule}\t{cases}\t{}", differ.len());
        differ.iter().for_each(|one| println!("    {one}"));
    }
    assert!(cases > 0, "no scenario was judged");
    let unexplained = table
        .iter()
        .filter(|(rule, (_, differ))| !differ.is_empty() && !DIFFERENT.iter().any(|(known, _)| known == rule));
    let unexplained: Vec<_> = unexplained.map(|(rule, (_, differ))| format!("{rule}: {}", differ.join("; "))).collect();
    assert!(unexplained.is_empty(), "\n{}", unexplained.join("\n"));
}

/// Rules of ComplianceAsCode whose own scenarios our checks judge otherwise in some cases, and why. Variables of a scenario set
/// limits that ours take from the standard; a check stands for several rules; what is effective decides, not what is written.
const DIFFERENT: [(&str, &str); 44] = [
    (
        "accounts_password_last_change_is_in_past",
        "the scenario's day is counted from when it was written, ours from the reference time",
    ),
    ("accounts_password_pam_difok", "a file alone judges nothing: the module must be in the stack"),
    ("accounts_password_pam_lcredit", "a file alone judges nothing: the module must be in the stack"),
    ("accounts_password_pam_minlen", "a file alone judges nothing: the module must be in the stack"),
    ("accounts_password_pam_pwhistory_remember", "the scenario asks for fewer than CIS's 24"),
    ("accounts_password_pam_ucredit", "a file alone judges nothing: the module must be in the stack"),
    ("accounts_password_set_min_life_existing", "the check asks login.defs as well"),
    ("accounts_tmout", "the last assignment is what the shell has"),
    ("aide_periodic_cron_checking", "a schedule without a database compares nothing"),
    ("audit_rules_dac_modification_chown", "the check asks for the whole family of calls"),
    ("audit_rules_suid_auid_privilege_function", "the check asks for the watch of sudoers as well"),
    ("audit_rules_time_adjtimex", "the check asks for every way to set the clock"),
    ("auditd_data_disk_full_action", "the check asks for every action"),
    ("banner_etc_issue_cis", "the check asks every banner"),
    ("banner_etc_issue_net_cis", "the check asks every banner"),
    ("banner_etc_motd_cis", "the check asks every banner"),
    ("chronyd_specify_remote_server", "a source without a client that starts sets no clock"),
    ("directory_permissions_var_log_audit", "the check asks the configuration as well"),
    ("disable_host_auth", "a file that is not included is not read"),
    ("ensure_gpgcheck_globally_activated", "without a repository there is nothing to trust"),
    ("file_cron_allow_exists", "the check asks for its mode as well"),
    ("file_owner_sshd_config", "without a server there is nothing to judge"),
    ("journald_compress", "compression is the default, and a value that is not understood leaves it"),
    ("journald_forward_to_syslog", "without rsyslog there is nobody to hand it to"),
    ("journald_storage", "the last assignment is what counts"),
    ("kernel_module_ipv6_option_disabled", "IPv6 is no fault"),
    ("mount_option_dev_shm_nodev", "the check asks for every option of every mount"),
    ("mount_option_home_nodev", "the check asks for every option of every mount"),
    ("no_invalid_shell_accounts_unlocked", "the check asks for shells of accounts that are not locked"),
    ("permissions_local_var_log", "only the three files of logins at their own place may be read by everybody"),
    ("rsyslog_remote_loghost", "a service that does not start sends nothing"),
    ("selinux_not_disabled", "the check asks that a policy is enforced"),
    ("sshd_disable_tcp_forwarding", "the check asks for every kind of forwarding"),
    ("sshd_disable_x11_forwarding", "the default of the build counts"),
    ("sshd_do_not_permit_user_env", "the first value counts"),
    ("sshd_set_login_grace_time", "the scenario's limit is 123 s"),
    ("sshd_set_loglevel_info", "the first value counts"),
    ("sshd_set_max_sessions", "the scenario's limit is 123"),
    ("sshd_set_maxstartups", "the first value counts"),
    ("sshd_use_approved_ciphers", "the scenario's list holds CBC, which is weak today"),
    ("sshd_use_strong_macs", "the first value counts"),
    ("sudo_custom_logfile", "the path is not ours to choose, and drop-ins without /etc/sudoers are not read"),
    ("sudoers_no_root_target", "the check asks who may do everything"),
    ("systemd_journal_upload_url", "a URL without the service that uploads sends nothing"),
];
