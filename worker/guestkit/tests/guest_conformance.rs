//! Every guest of the corpus against what virt-inspector 1.48 prints of it, field by field, and a table of the whole. Where
//! the two differ, the reason is here, with the evidence of who is right; a difference without one fails the test.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use guestkit::export::Form;
use guestkit::guest::InspectOptions;
use guestkit::image::Roots;
use guestkit::{Disk, ImageSpec, Keys, Limits};
use support::corpus;

/// Differences that stay: guest (or the beginning of its name), field, and why.
const EXPLAINED: &[(&str, &str, &str)] = &[
    (
        "stacks/",
        "product_name",
        "PRETTY_NAME in the guest's /etc/os-release is `Debian GNU/Linux 12 (bookworm)`; 12.15 is the content of /etc/debian_version",
    ),
    ("phony/debian", "product_name", "5.0.1 is the content of /etc/debian_version, no name of a product"),
    (
        "distros/raspbian12",
        "product_name",
        "PRETTY_NAME in /etc/os-release (truth.json); 12.5 is the content of /etc/debian_version",
    ),
    (
        "distros/almalinux9",
        "product_name",
        "PRETTY_NAME in /etc/os-release (truth.json); virt-inspector reads /etc/redhat-release",
    ),
    (
        "distros/centos7",
        "product_name",
        "PRETTY_NAME in /etc/os-release (truth.json); virt-inspector reads /etc/centos-release",
    ),
    (
        "distros/ol9",
        "product_name",
        "PRETTY_NAME in /etc/os-release (truth.json); virt-inspector reads /etc/oracle-release",
    ),
    (
        "distros/neon",
        "product_name",
        "PRETTY_NAME in /etc/os-release (truth.json); virt-inspector reads /etc/lsb-release",
    ),
    ("distros/almalinux9", "osinfo", "the osinfo database has almalinux9 and no redhat-based9.4"),
    (
        "distros/fedora40",
        "package_management",
        "Fedora has had dnf since release 22; virt-inspector asks for /usr/bin/dnf, which the synthetic guest does not have",
    ),
    (
        "stacks/btrfs-suse",
        "systems",
        "one system: subvolumes 2 and 3 are read-only snapshots of it, by their names and by their parent UUIDs",
    ),
    (
        "stacks/",
        "application version",
        "deb-version(7): the revision is what follows the last hyphen; virt-inspector splits at the first",
    ),
    (
        "stacks/",
        "application summary",
        "Debian Policy 5.1: white space at the end of a field's line is not part of its value",
    ),
    ("phony/fedora", "application arch", "`(none)` is how rpm prints that a key (gpg-pubkey) has no architecture"),
    ("phony/fedora", "application url", "`(none)` is how rpm prints that there is no URL"),
];

/// An element of a small XML document.
#[derive(Debug, Default, Clone)]
struct Element {
    name: String,
    attribute: String,
    text: String,
    children: Vec<Element>,
}

impl Element {
    fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    fn all<'a>(&'a self, group: &str) -> &'a [Self] {
        self.child(group).map_or(&[], |group| &group.children)
    }

    fn text_of(&self, name: &str) -> Option<String> {
        self.child(name).map(|child| child.text.clone())
    }
}

fn unescape(text: &str) -> String {
    let plain = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#13;", "\r");
    plain.replace("&amp;", "&")
}

/// The document of a writer that uses elements with one attribute at most, and nothing else.
fn parse(document: &str) -> Element {
    let mut stack = vec![Element::default()];
    let mut rest = document;
    while let Some((text, after)) = rest.split_once('<') {
        let (tag, after) = after.split_once('>').unwrap();
        stack.last_mut().unwrap().text.push_str(&unescape(text));
        rest = after;
        if tag.starts_with(['?', '!']) {
            continue;
        }
        if tag.starts_with('/') {
            let mut done = stack.pop().unwrap();
            assert_eq!(tag, format!("/{}", done.name));
            if !done.children.is_empty() {
                done.text.clear();
            }
            stack.last_mut().unwrap().children.push(done);
            continue;
        }
        let is_empty = tag.ends_with('/');
        let (name, attribute) = tag.trim_end_matches('/').split_once(' ').unwrap_or((tag.trim_end_matches('/'), ""));
        let attribute = attribute.split('"').nth(1).map(unescape).unwrap_or_default();
        let element = Element { name: name.to_owned(), attribute, ..Element::default() };
        if is_empty {
            stack.last_mut().unwrap().children.push(element);
        } else {
            stack.push(element);
        }
    }
    assert_eq!(stack.len(), 1, "every element is closed");
    stack.pop().unwrap().children.pop().unwrap()
}

/// One guest: its name, its disks, its key, and what virt-inspector printed.
struct Guest {
    name: String,
    disks: Vec<PathBuf>,
    key: Option<&'static str>,
    truth: Element,
    /// Whether UUIDs are those of an earlier build of the same guest.
    other_uuids: bool,
}

/// Outputs that were made of an earlier build, as the corpus' README says.
const OTHER_UUIDS: [&str; 14] = [
    "almalinux9.noapps",
    "amzn2023.noapps",
    "centos7",
    "centos7.noapps",
    "distroless12.noapps",
    "fedora40.noapps",
    "kali2024",
    "manjaro",
    "neon",
    "ol9.noapps",
    "photon5.noapps",
    "raspbian12",
    "rocky9.noapps",
    "sles15sp6.noapps",
];

fn guests(corpus: &Path) -> Vec<Guest> {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut guests = Vec::new();
    for name in ["btrfs-fedora", "btrfs-suse", "luks2-on-lvm", "lvm", "mbr-logical", "md1", "md5", "xfs"] {
        let disks = match name {
            "md1" => vec!["md1.1", "md1.2"],
            "md5" => vec!["md5.1", "md5.2", "md5.3"],
            name => vec![name],
        };
        guests.push(Guest {
            name: format!("stacks/{name}"),
            disks: disks.iter().map(|disk| corpus.join(format!("guests/{disk}.raw"))).collect(),
            key: (name == "luks2-on-lvm").then_some("devcorpus"),
            truth: parse(&read(&corpus.join(format!("stacks/truth/{name}.virt-inspector.xml")))),
            other_uuids: false,
        });
    }
    for name in ["archlinux", "debian", "fedora", "windows"] {
        guests.push(Guest {
            name: format!("phony/{name}"),
            disks: vec![corpus.join(format!("phony/{name}.qcow2"))],
            key: None,
            truth: parse(&read(&corpus.join(format!("phony/truth/{name}.virt-inspector.xml")))),
            other_uuids: false,
        });
    }
    let truth: serde_json::Value = serde_json::from_str(&read(&corpus.join("distros/truth/truth.json"))).unwrap();
    for name in truth.as_object().unwrap().keys() {
        let with_apps = corpus.join(format!("distros/truth/{name}.virt-inspector.xml"));
        let output = if with_apps.exists() { name.clone() } else { format!("{name}.noapps") };
        let mut xml = read(&corpus.join(format!("distros/truth/{output}.virt-inspector.xml")));
        // The disk had another letter in that run: there were others before it.
        for letter in 'b'..='z' {
            xml = xml.replace(&format!("/dev/sd{letter}1"), "/dev/sda1");
        }
        guests.push(Guest {
            name: format!("distros/{name}"),
            disks: vec![corpus.join(format!("distros/{name}.qcow2"))],
            key: None,
            truth: parse(&xml),
            other_uuids: OTHER_UUIDS.contains(&output.as_str()),
        });
    }
    guests
}

fn told(guest: &Guest) -> Element {
    let mut keys = Keys::none();
    if let Some(key) = guest.key {
        keys.add("all", guestkit::Secret::new(key.as_bytes().to_vec()));
    }
    let specs: Vec<_> = guest.disks.iter().map(ImageSpec::recognised).collect();
    let disk = Disk::open_with_keys(&specs, &Roots::anywhere(), &keys, &Limits::default()).unwrap();
    let report = disk.inspect(&InspectOptions::default(), &mut ());
    parse(&Form::VirtInspector.render(&report, SystemTime::now()))
}

#[derive(Debug, Default)]
struct Row {
    agree: u32,
    differ: u32,
    ours_only: u32,
    not_read: u32,
}

#[derive(Default)]
struct Table {
    rows: BTreeMap<(usize, String), Row>,
    explained: BTreeMap<String, (u32, String)>,
    unexplained: Vec<String>,
}

/// The order of the table's rows.
const FIELDS: [&str; 30] = [
    "systems",
    "root",
    "name",
    "arch",
    "distro",
    "product_name",
    "product_variant",
    "major_version",
    "minor_version",
    "package_format",
    "package_management",
    "windows_systemroot",
    "windows_current_control_set",
    "hostname",
    "osinfo",
    "mountpoints",
    "filesystem dev",
    "filesystem type",
    "filesystem label",
    "filesystem uuid",
    "drive_mappings",
    "application name",
    "application display_name",
    "application epoch",
    "application version",
    "application arch",
    "application url",
    "application source_package",
    "application summary",
    "application description",
];

impl Table {
    fn row(&mut self, field: &str) -> &mut Row {
        let order = FIELDS.iter().position(|known| *known == field).unwrap_or(FIELDS.len());
        self.rows.entry((order, field.to_owned())).or_default()
    }

    fn compare(&mut self, guest: &str, field: &str, told: Option<String>, truth: Option<String>) {
        let row = self.row(field);
        match (told, truth) {
            (None, None) => {}
            (Some(_), None) => row.ours_only += 1,
            (told, truth) if told == truth => row.agree += 1,
            (told, truth) => {
                row.differ += 1;
                let known = EXPLAINED.iter().find(|(name, of, _)| *of == field && guest.starts_with(name));
                let how = format!("{} here, {} there", shown(told), shown(truth));
                match known {
                    Some((name, _, why)) => {
                        let entry = self
                            .explained
                            .entry(format!("{name} {field}"))
                            .or_insert_with(|| (0, format!("{how}; {why}")));
                        entry.0 += 1;
                    }
                    None => self.unexplained.push(format!("{guest} {field}: {how}")),
                }
            }
        }
    }

    fn markdown(&self) -> String {
        let mut text = String::from("| field | agree | differ | ours only | not read |\n|---|---|---|---|---|\n");
        for ((_, field), Row { agree, differ, ours_only, not_read }) in &self.rows {
            text += &format!("| {field} | {agree} | {differ} | {ours_only} | {not_read} |\n");
        }
        for (what, (count, why)) in &self.explained {
            text += &format!("\n- {what} ({count}): {why}");
        }
        for what in &self.unexplained {
            text += &format!("\n- unexplained: {what}");
        }
        text
    }
}

fn shown(value: Option<String>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| format!("`{}`", value.chars().take(80).collect::<String>()))
}

fn compare(table: &mut Table, guest: &Guest, told: &Element) {
    let name = guest.name.as_str();
    if told.children.is_empty() {
        table.row("systems").not_read += 1;
        return;
    }
    let count = |document: &Element| Some(document.children.len().to_string());
    table.compare(name, "systems", count(told), count(&guest.truth));
    let (Some(told), Some(truth)) = (told.children.first(), guest.truth.children.first()) else { return };
    for field in FIELDS.iter().filter(|field| !field.contains(' ')) {
        if matches!(*field, "systems" | "mountpoints" | "drive_mappings") {
            continue;
        }
        table.compare(name, field, told.text_of(field), truth.text_of(field));
    }
    for group in ["mountpoints", "drive_mappings"] {
        // The attribute of a mount is its device, the text its path; that of a drive its letter, the text its device.
        let all = |system: &Element| -> BTreeMap<String, String> {
            system
                .all(group)
                .iter()
                .map(|one| (format!("{} {}", one.text, one.attribute), one.attribute.clone()))
                .collect()
        };
        let (told, truth) = (all(told), all(truth));
        for key in told.keys().chain(truth.keys().filter(|key| !told.contains_key(*key))) {
            let value = |of: &BTreeMap<String, String>| of.get_key_value(key).map(|(key, _)| key.clone());
            table.compare(name, group, value(&told), value(&truth));
        }
    }
    let all = |system: &Element| -> BTreeMap<String, Element> {
        system.all("filesystems").iter().map(|one| (one.attribute.clone(), one.clone())).collect()
    };
    let (told_systems, true_systems) = (all(told), all(truth));
    for device in told_systems.keys().chain(true_systems.keys().filter(|key| !told_systems.contains_key(*key))) {
        let (told, truth) = (told_systems.get(device), true_systems.get(device));
        table.compare(name, "filesystem dev", told.map(|_| device.clone()), truth.map(|_| device.clone()));
        for field in ["type", "label", "uuid"] {
            if field == "uuid" && guest.other_uuids {
                continue;
            }
            let value = |of: Option<&Element>| of.and_then(|of| of.text_of(field));
            table.compare(name, &format!("filesystem {field}"), value(told), value(truth));
        }
    }
    applications(table, guest, told, truth);
}

fn applications(table: &mut Table, guest: &Guest, told: &Element, truth: &Element) {
    // Without the element nobody was asked for applications, or nobody could tell.
    if truth.child("applications").is_none() {
        return;
    }
    // Here the element is missing where the database is not read, with a warning that says so.
    if told.child("applications").is_none() {
        table.row("application name").not_read += u32::try_from(truth.all("applications").len()).unwrap();
        return;
    }
    let name = guest.name.as_str();
    // Several versions of a kernel are installed at once: by the whole version, which both split in their own way.
    let key = |one: &Element| {
        let text = |name: &str| one.text_of(name).unwrap_or_default();
        format!("{} {}:{}-{}", text("name"), text("epoch"), text("version"), text("release"))
    };
    let all = |system: &Element| -> BTreeMap<String, Element> {
        system.all("applications").iter().map(|one| (key(one), one.clone())).collect()
    };
    let (told, truth) = (all(told), all(truth));
    for key in told.keys().chain(truth.keys().filter(|key| !told.contains_key(*key))) {
        let (told, truth) = (told.get(key), truth.get(key));
        table.compare(name, "application name", told.map(|_| key.clone()), truth.map(|_| key.clone()));
        let (Some(told), Some(truth)) = (told, truth) else { continue };
        for field in ["display_name", "epoch", "version", "release", "arch", "install_path", "publisher"] {
            let shown = if field == "release" { "version" } else { field };
            table.compare(name, &format!("application {shown}"), told.text_of(field), truth.text_of(field));
        }
        for field in ["url", "source_package", "summary", "description"] {
            table.compare(name, &format!("application {field}"), told.text_of(field), truth.text_of(field));
        }
    }
}

#[test]
fn every_guest_is_as_virt_inspector_has_it_or_better() {
    let Some(corpus) = corpus() else { return };
    let mut table = Table::default();
    let guests = guests(&corpus);
    for guest in &guests {
        compare(&mut table, guest, &told(guest));
    }
    let text = format!("{} guests.\n\n{}", guests.len(), table.markdown());
    println!("{text}");
    if let Some(report) = std::env::var_os("GUESTKIT_CONFORMANCE_REPORT") {
        fs::write(report, &text).unwrap();
    }
    assert!(table.unexplained.is_empty(), "{:#?}", table.unexplained);
}
