//! Every family of the corpus against what an outside tool says of it, case by case, and a table of the whole. The truth is
//! named with each family: qemu-img, blkid, cryptsetup, the kernel's own mounts, mtools, ntfs-3g, a libguestfs appliance.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use guestkit::filesystem::{FileType, Metadata, probe};
use guestkit::guest::{OpenFile, WalkEntry, WalkNext};
use guestkit::image::{Format, Roots};
use guestkit::{Disk, Error, ImageSpec, Keys, Limits, Secret, Tree};
use serde_json::Value;
use support::trees::{read_ends, read_everything, sha256, sha256_of_source};
use support::{corpus, has_tool, unpacked};

/// How one case came out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// As the truth has it.
    Agrees,
    /// Refused with a typed error, as the truth has it refused or broken.
    Refused,
    /// Not as the truth has it.
    Differs(String),
    /// A panic, or no end.
    Crashed(String),
}

/// Cases that differ, each with the reason why that stays.
const EXPLAINED: &[(&str, &str)] = &[
    (
        "disk-formats/dfvfs/fat-differential.vhd",
        "its parent is not part of the corpus; qemu-img reads it as if it had none",
    ),
    ("disk-formats/govmomi/ttylinux-pc_i486-16.1.ova", "qemu-img knows no appliances and takes the archive for a disk"),
    (
        "disk-formats/pytsk/bogus.raw",
        "the hash is of its 12 bytes; qemu-img info counts a whole sector, and so it is read here",
    ),
    (
        "fs-ext/ext4-view-rs/test_disk1.bin.zst",
        "the kernel lists an encrypted directory under made-up names; without the key it is refused",
    ),
    (
        "fs-ext/ext4-view-rs/test_disk_4k_block_journal.bin.zst",
        "the truth was taken without the journal; e2fsck, which replays it, agrees (tests/filesystems.rs)",
    ),
];

/// A case that has not ended by then hangs. Unoptimised code on a loaded machine is some fifty times slower than what runs in
/// production, where the bound is five seconds.
const PATIENCE: Duration = Duration::from_secs(if cfg!(debug_assertions) { 250 } else { 30 });
/// Images whose contents are too long to be hashed by unoptimised code.
const HASHED_BYTES_MAX: u64 = if cfg!(debug_assertions) { 1 << 30 } else { u64::MAX };

type Case = (String, Box<dyn FnOnce() -> Outcome + Send>);
type Family = fn(&Path) -> Vec<Case>;

fn judge(work: Box<dyn FnOnce() -> Outcome + Send>) -> Outcome {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(work));
        let _ = sender.send(outcome.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Outcome::Crashed(text.unwrap_or("a panic").to_owned())
        }));
    });
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| Outcome::Crashed("no end".into()))
}

#[derive(Default)]
struct Row {
    cases: u32,
    agree: u32,
    refused: u32,
    differ: u32,
    crash: u32,
    slowest: Duration,
}

#[test]
fn every_case_of_the_corpus_is_as_its_truth_has_it() {
    let Some(corpus) = corpus() else { return };
    if !["xz", "zstd", "gzip"].into_iter().all(has_tool) {
        return;
    }
    let mut rows: Vec<(&str, Row)> = Vec::new();
    let mut wrong = Vec::new();
    let families: [(&str, Family); 9] = [
        ("disk-formats (qemu-img)", disk_formats),
        ("volume-ids (blkid)", volume_ids),
        ("fs-ext, fs-btrfs (kernel mounts)", kernel_trees),
        ("fs-fat (mtools), fs-ntfs (ntfs-3g)", other_trees),
        ("fs-matrix (kernel mounts, blkid)", fs_matrix),
        ("luks (cryptsetup)", luks),
        ("stacks (libguestfs appliance)", stacks),
        ("hostile-ext4", |corpus| hostile(corpus, "hostile-ext4")),
        ("hostile-btrfs", |corpus| hostile(corpus, "hostile-btrfs")),
    ];
    for (family, cases) in families {
        let mut row = Row::default();
        for (name, work) in cases(&corpus) {
            let started = Instant::now();
            let outcome = judge(work);
            row.slowest = row.slowest.max(started.elapsed());
            row.cases += 1;
            match outcome {
                Outcome::Agrees => row.agree += 1,
                Outcome::Refused => row.refused += 1,
                Outcome::Differs(how) => {
                    row.differ += 1;
                    wrong.push((name, how.replace(&*format!("{}/", corpus.display()), "")));
                }
                Outcome::Crashed(how) => {
                    row.crash += 1;
                    wrong.push((name, format!("crash: {how}")));
                }
            }
        }
        rows.push((family, row));
    }
    let mut table = String::from(
        "| family (whose word) | cases | agree | refused, as expected | differ | crash | slowest case |\n|---|---|---|---|---|---|---|\n",
    );
    for (family, row) in &rows {
        let Row { cases, agree, refused, differ, crash, slowest } = row;
        let slowest = slowest.as_secs_f64();
        table += &format!("| {family} | {cases} | {agree} | {refused} | {differ} | {crash} | {slowest:.1} s |\n");
    }
    for (name, how) in &wrong {
        let why = EXPLAINED.iter().find(|(known, _)| known == name).map_or("", |(_, why)| why);
        table += &format!("\n- {name}: {how}{}{why}", if why.is_empty() { "" } else { "; " });
    }
    println!("{table}");
    if let Some(report) = std::env::var_os("GUESTKIT_CONFORMANCE_REPORT") {
        fs::write(report, &table).unwrap();
    }
    let unexplained: Vec<_> =
        wrong.iter().filter(|(name, _)| !EXPLAINED.iter().any(|(known, _)| known == name)).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
}

fn json(path: &Path) -> BTreeMap<String, Value> {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// `path` itself, or what it unpacks to in a folder that lives as long as the case.
fn laid_out(path: &Path) -> (Option<tempfile::TempDir>, PathBuf) {
    let packed =
        path.extension().is_some_and(|extension| ["gz", "xz", "bz2", "zst"].into_iter().any(|one| extension == one));
    if !packed {
        return (None, path.to_owned());
    }
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join(path.file_stem().unwrap());
    fs::write(&to, unpacked(path)).unwrap();
    (Some(folder), to)
}

fn open(paths: &[PathBuf], format: Option<Format>, keys: &Keys) -> Result<Disk, Error> {
    let specs: Vec<_> = paths.iter().map(|path| ImageSpec { path: path.clone(), format }).collect();
    Disk::open_with_keys(&specs, &Roots::anywhere(), keys, &Limits::default())
}

/// Sizes and contents as `qemu-img info` and `convert` give them. What QEMU refuses may be refused or read; an image of which
/// a part is missing must be refused.
fn disk_formats(corpus: &Path) -> Vec<Case> {
    let folder = corpus.join("disk-formats");
    let cases = json(&folder.join("truth/qemu-img.json"));
    cases
        .into_iter()
        .map(|(name, truth)| {
            let path = folder.join(&name);
            let case = move || {
                let (_folder, path) = laid_out(&path);
                let format = (truth["format"] == "raw").then_some(Format::Raw);
                let image = guestkit::image::open(&path, format, &Roots::anywhere(), &support::budget());
                let image = match image {
                    Ok(image) => image,
                    // cirros' backing file is not part of the corpus.
                    Err(_) if truth.get("qemu_refuses").is_some() || truth.get("content_sha256").is_none() => {
                        return Outcome::Refused;
                    }
                    Err(error) => return Outcome::Differs(error.with_causes()),
                };
                let source = image.source();
                if let Some(size) = truth["virtual_size"].as_u64()
                    && source.len() != size
                {
                    return Outcome::Differs(format!("{} bytes, qemu-img says {size}", source.len()));
                }
                let Some(expected) = truth["content_sha256"].as_str() else { return Outcome::Agrees };
                if source.len() > HASHED_BYTES_MAX {
                    return Outcome::Agrees;
                }
                match sha256_of_source(&*source) {
                    Ok(found) if found == expected => Outcome::Agrees,
                    Ok(found) => Outcome::Differs(format!("content {found}, qemu-img convert gives {expected}")),
                    Err(error) => Outcome::Differs(error.with_causes()),
                }
            };
            (format!("disk-formats/{name}"), Box::new(case) as Box<dyn FnOnce() -> Outcome + Send>)
        })
        .collect()
}

/// Type, label and UUID as util-linux expects them of its own blkid. Where blkid names a controller's RAID or a niche that
/// is not recognised here, nothing must be taken for something else.
fn volume_ids(corpus: &Path) -> Vec<Case> {
    let folder = corpus.join("volume-ids");
    let mut cases: Vec<Case> = Vec::new();
    for entry in fs::read_dir(folder.join("expected")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_prefix("low-probe-").map(str::to_owned) else { continue };
        let folder = folder.clone();
        let title = format!("volume-ids/{name}");
        let case = move || {
            let text = fs::read_to_string(folder.join("expected").join(&file)).unwrap();
            let field = |key: &str| {
                text.lines()
                    .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                    .map(|text| text.replace('_', " "))
            };
            let image: Arc<Vec<u8>> = Arc::new(unpacked(&folder.join(format!("{name}.img.xz"))));
            let found = match probe(&*image) {
                Ok(found) => found,
                Err(error) => return Outcome::Differs(error.with_causes()),
            };
            let Some(found) = found else { return Outcome::Refused };
            let plain = |text: Option<String>| text.map(|text| text.replace('_', " "));
            let told = (Some(found.kind.replace('_', " ")), plain(found.label), plain(found.uuid));
            let expected = (field("ID_FS_TYPE"), field("ID_FS_LABEL"), field("ID_FS_UUID"));
            // blkid makes DDF's identifier by printing raw bytes.
            let same_id = told.2 == expected.2 || name == "ddf-raid";
            if told.0 == expected.0 && told.1 == expected.1 && same_id {
                Outcome::Agrees
            } else {
                Outcome::Differs(format!("{told:?}, blkid says {expected:?}"))
            }
        };
        cases.push((title, Box::new(case)));
    }
    cases
}

fn kernel_trees(corpus: &Path) -> Vec<Case> {
    ["fs-ext", "fs-btrfs"].into_iter().flat_map(|family| trees(corpus, family)).collect()
}

fn other_trees(corpus: &Path) -> Vec<Case> {
    ["fs-fat", "fs-ntfs"].into_iter().flat_map(|family| trees(corpus, family)).collect()
}

fn trees(corpus: &Path, family: &'static str) -> Vec<Case> {
    let folder = corpus.join(family);
    let truths = json(&folder.join("truth/trees.json"));
    truths
        .into_iter()
        .map(|(name, truth)| {
            let path = folder.join(&name);
            let case = move || {
                let (_folder, path) = laid_out(&path);
                match tree_of(&path) {
                    Ok(tree) => compare_tree(&tree, truth["tree"].as_array().unwrap()),
                    Err(error) => Outcome::Differs(error.with_causes()),
                }
            };
            (format!("{family}/{name}"), Box::new(case) as Box<dyn FnOnce() -> Outcome + Send>)
        })
        .collect()
}

/// The only file system of a disk.
fn tree_of(path: &Path) -> Result<Tree, Error> {
    let disk = open(&[path.to_owned()], Some(Format::Raw), &Keys::none())?;
    let device = &disk.devices()[0];
    Ok(Tree::new(disk.mount(device)?, Arc::clone(disk.budget())))
}

fn compare_tree(tree: &Tree, truth: &[Value]) -> Outcome {
    let mut expected: BTreeMap<String, &Value> =
        truth.iter().map(|entry| (entry["path"].as_str().unwrap().to_owned(), entry)).collect();
    let mut wrong = Vec::new();
    let walked = tree.walk("/", |entry| {
        let path = String::from_utf8_lossy(&entry.path[1..]).into_owned();
        match expected.remove(&path) {
            Some(truth) => {
                if let Some(how) = compare_entry(entry, truth) {
                    wrong.push(format!("{path}: {how}"));
                }
            }
            None => wrong.push(format!("{path}: is not there")),
        }
        Ok(WalkNext::Descend)
    });
    match walked {
        Ok(unreadable) => wrong.extend(
            unreadable.into_iter().map(|one| format!("{}: {}", one.path.escape_ascii(), one.error.with_causes())),
        ),
        Err(error) => return Outcome::Differs(error.with_causes()),
    }
    wrong.extend(expected.keys().map(|path| format!("{path}: is missing")));
    if wrong.is_empty() {
        return Outcome::Agrees;
    }
    let count = wrong.len();
    wrong.truncate(3);
    Outcome::Differs(format!("{count} of {}: {}", truth.len(), wrong.join("; ")))
}

/// What differs of one file, by the fields that the truth has.
fn compare_entry(entry: &WalkEntry<'_>, truth: &Value) -> Option<String> {
    let metadata = match entry.metadata() {
        Ok(metadata) => metadata,
        Err(error) => return Some(error.with_causes()),
    };
    let file_type = metadata.file_type;
    match truth["mode"].as_str() {
        Some("dir") if file_type != FileType::Directory => return Some("is no directory".into()),
        Some("dir") | None => {}
        Some(mode) => {
            let found = format!("0o{:o}", file_type.mode_bits() | u32::from(metadata.mode));
            if found != mode {
                return Some(format!("mode {found}, not {mode}"));
            }
        }
    }
    for (field, found) in
        [("uid", u64::from(metadata.uid)), ("gid", metadata.gid.into()), ("nlink", metadata.links.into())]
    {
        if truth[field].as_u64().is_some_and(|expected| expected != found) {
            return Some(format!("{field} {found}, not {}", truth[field]));
        }
    }
    if truth["mtime"].as_i64().is_some_and(|expected| expected != metadata.modified.seconds) {
        return Some(format!("mtime {}, not {}", metadata.modified.seconds, truth["mtime"]));
    }
    if let Some(target) = truth["target"].as_str() {
        match entry.read_link() {
            Ok(found) if found == target.as_bytes() => {}
            Ok(found) => return Some(format!("target {}, not {target}", found.escape_ascii())),
            Err(error) => return Some(error.with_causes()),
        }
    }
    if let Some(attributes) = truth["xattr"].as_object() {
        let found = match entry.extended_attributes() {
            Ok(found) => found,
            Err(error) => return Some(error.with_causes()),
        };
        for (name, value) in attributes {
            let value = value.as_str().unwrap();
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            if !found.iter().any(|one| one.name == name.as_bytes() && hex(&one.value) == value) {
                return Some(format!("attribute {name} is not {value}"));
            }
        }
    }
    let expected = truth["sha256"].as_str()?;
    compare_contents(&metadata, entry.open(), truth["size"].as_u64(), expected)
}

fn compare_contents(
    metadata: &Metadata,
    file: Result<Option<OpenFile>, Error>,
    size: Option<u64>,
    expected: &str,
) -> Option<String> {
    if size.is_some_and(|size| size != metadata.size) {
        return Some(format!("size {}, not {size:?}", metadata.size));
    }
    match file.and_then(|file| file.map(|file| sha256_of_source(&file)).transpose()) {
        Ok(Some(found)) if found == expected => None,
        Ok(found) => Some(format!("content {found:?}, not {expected}")),
        Err(error) => Some(error.with_causes()),
    }
}

/// The tree that each image was made with, and what blkid says of those that are only named.
fn fs_matrix(corpus: &Path) -> Vec<Case> {
    let folder = corpus.join("fs-matrix");
    let table = fs::read_to_string(folder.join("truth/check.tsv")).unwrap();
    let truth = Arc::new(json(&folder.join("truth/tree.json")));
    let mut cases: Vec<Case> = Vec::new();
    for line in table.lines().skip(1) {
        let fields: Vec<String> = line.split('\t').map(str::to_owned).collect();
        let (folder, truth) = (folder.clone(), Arc::clone(&truth));
        let title = format!("fs-matrix/{}", fields[0]);
        let case = move || {
            let packed = fs::read(folder.join(&fields[0])).unwrap();
            let mut image = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(packed.as_slice()), &mut image).unwrap();
            let found = match probe(&image) {
                Ok(found) => found,
                Err(error) => return Outcome::Differs(error.with_causes()),
            };
            let kind = found.as_ref().map(|found| found.kind);
            let family = fields[0].split('_').next().unwrap();
            if !fields[3].is_empty() && kind != Some(&*fields[3]) {
                return Outcome::Differs(format!("{kind:?}, blkid says {}", fields[3]));
            }
            let result = fields.get(7).map_or("", String::as_str);
            if !result.starts_with("tree OK") {
                // blkid of that version may name nothing; another family's name would be a guess.
                let is_guess = fields[3].is_empty() && kind.is_some_and(|kind| kind != family);
                return if is_guess { Outcome::Differs(format!("taken for {kind:?}")) } else { Outcome::Refused };
            }
            let source: guestkit::Source = Arc::new(image);
            let budget = support::budget();
            let mounted = guestkit::filesystem::mount(&[source], &found.unwrap(), &budget);
            match mounted.map(|file_system| Tree::new(file_system, budget)) {
                Ok(tree) => compare_matrix_tree(&tree, &truth, result),
                Err(error) => Outcome::Differs(error.with_causes()),
            }
        };
        cases.push((title, Box::new(case)));
    }
    cases
}

fn compare_matrix_tree(tree: &Tree, truth: &BTreeMap<String, Value>, result: &str) -> Outcome {
    for (path, expected) in truth["files"].as_object().unwrap() {
        if path == "file3" && result.contains("no file3") {
            continue;
        }
        let path = format!("/{path}");
        let file = tree.open(&path);
        let metadata = match tree.symlink_metadata(&path) {
            Ok(Some(metadata)) => metadata,
            Ok(None) => return Outcome::Differs(format!("{path} is missing")),
            Err(error) => return Outcome::Differs(error.with_causes()),
        };
        let content;
        let hash = match expected["sha256"].as_str() {
            Some(hash) => hash,
            None => {
                content = sha256(truth["file1"]["content"].as_str().unwrap().as_bytes());
                &content
            }
        };
        if let Some(how) = compare_contents(&metadata, file, expected["size"].as_u64(), hash) {
            return Outcome::Differs(format!("{path}: {how}"));
        }
    }
    Outcome::Agrees
}

/// What cryptsetup says of each passphrase; headers that it refuses must be refused.
fn luks(corpus: &Path) -> Vec<Case> {
    let folder = corpus.join("luks");
    let mut cases: Vec<Case> = Vec::new();
    for (name, truth) in json(&folder.join("truth/cryptsetup-2.6.1.json")) {
        let passphrases: Vec<(String, i64)> = truth["passphrase"]
            .as_object()
            .map(|all| all.iter().map(|(phrase, code)| (phrase.clone(), code.as_i64().unwrap())).collect())
            .unwrap_or_default();
        let path = folder.join(&name);
        let case = move || {
            let (_folder, path) = laid_out(&path);
            if passphrases.is_empty() {
                let mut keys = Keys::none();
                keys.add("all", Secret::new(b"compatkey".to_vec()));
                return match open(&[path], Some(Format::Raw), &keys) {
                    Ok(disk) if disk.devices().len() > 1 => Outcome::Agrees,
                    Ok(_) | Err(_) => Outcome::Refused,
                };
            }
            for (phrase, code) in &passphrases {
                let mut keys = Keys::none();
                keys.add("all", Secret::new(phrase.clone().into_bytes()));
                let opened =
                    open(std::slice::from_ref(&path), Some(Format::Raw), &keys).map(|disk| disk.devices().len() > 1);
                match (opened, code) {
                    (Ok(true), 0) | (Ok(false), 1..) => {}
                    (found, code) => {
                        return Outcome::Differs(format!("{phrase}: {found:?}, cryptsetup ends with {code}"));
                    }
                }
            }
            Outcome::Agrees
        };
        cases.push((format!("luks/{name}"), Box::new(case)));
    }
    cases
}

/// Every file of the table that an appliance's kernel made, in the guest's own namespace.
fn stacks(corpus: &Path) -> Vec<Case> {
    let folder = corpus.join("stacks");
    let manifest = fs::read_to_string(folder.join("MANIFEST.tsv")).unwrap();
    let mut guests: BTreeMap<String, (Vec<PathBuf>, Option<String>)> = BTreeMap::new();
    for line in manifest.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        if fields[0].starts_with("truth/") {
            continue;
        }
        let (stem, _) = fields[0].rsplit_once('.').unwrap();
        let guest = stem.split_once('.').map_or(stem, |(guest, _)| guest);
        let (disks, passphrase) = guests.entry(guest.to_owned()).or_default();
        disks.push(corpus.join("guests").join(format!("{stem}.raw")));
        *passphrase = fields.get(5).filter(|phrase| **phrase != "-").map(|phrase| (*phrase).to_owned());
    }
    let mut cases: Vec<Case> = Vec::new();
    for (guest, (disks, passphrase)) in guests {
        let table = folder.join(format!("truth/{guest}.files.tsv"));
        let case = move || {
            let mut keys = Keys::none();
            if let Some(passphrase) = passphrase {
                keys.add("all", Secret::new(passphrase.into_bytes()));
            }
            let disk = match open(&disks, Some(Format::Raw), &keys) {
                Ok(disk) => disk,
                Err(error) => return Outcome::Differs(error.with_causes()),
            };
            let (roots, warnings) = disk.roots();
            let [root] = roots.as_slice() else {
                return Outcome::Differs(format!("{} systems; {warnings:?}; {:?}", roots.len(), disk.warnings()));
            };
            compare_table(&root.tree, &fs::read_to_string(table).unwrap())
        };
        cases.push((format!("stacks/{guest}"), Box::new(case)));
    }
    cases
}

fn compare_table(tree: &Tree, table: &str) -> Outcome {
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [path, kind, mode, uid, gid, size, hash, rest @ ..] = fields.as_slice() else {
            return Outcome::Differs(format!("a line of the table: {line}"));
        };
        let metadata = match tree.symlink_metadata(path) {
            Ok(Some(metadata)) => metadata,
            Ok(None) => return Outcome::Differs(format!("{path} is missing")),
            Err(error) => return Outcome::Differs(format!("{path}: {}", error.with_causes())),
        };
        let found_kind = match metadata.file_type {
            FileType::Regular => "file",
            FileType::Directory => "dir",
            FileType::Symlink => "symlink",
            FileType::CharacterDevice => "char",
            FileType::BlockDevice => "block",
            FileType::Fifo => "fifo",
            FileType::Socket => "socket",
        };
        let found = (found_kind, format!("{:04o}", metadata.mode), metadata.uid.to_string(), metadata.gid.to_string());
        if (found.0, &*found.1, &*found.2, &*found.3) != (*kind, *mode, *uid, *gid) {
            return Outcome::Differs(format!("{path}: {found:?}, not {:?}", (kind, mode, uid, gid)));
        }
        match *kind {
            "file" => {
                if let Some(how) = compare_contents(&metadata, tree.open(path), size.parse().ok(), hash) {
                    return Outcome::Differs(format!("{path}: {how}"));
                }
            }
            "symlink" => match tree.read_link(path) {
                Ok(Some(target)) if Some(&*String::from_utf8_lossy(&target)) == rest.first().copied() => {}
                found => return Outcome::Differs(format!("{path}: target {found:?}, not {rest:?}")),
            },
            _ => {}
        }
    }
    Outcome::Agrees
}

/// Broken on purpose: everything that can be reached is read; what cannot must end in a typed error.
fn hostile(corpus: &Path, family: &'static str) -> Vec<Case> {
    let mut names: Vec<PathBuf> = fs::read_dir(corpus.join(family))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|path| {
            let title = format!("{family}/{}", path.file_name().unwrap().to_string_lossy());
            let case = move || {
                let (_folder, path) = laid_out(&path);
                match read_all(&path) {
                    Ok(0) => Outcome::Agrees,
                    Ok(_) | Err(_) => Outcome::Refused,
                }
            };
            (title, Box::new(case) as Box<dyn FnOnce() -> Outcome + Send>)
        })
        .collect()
}

/// Reads everything; gives how many things could not be.
fn read_all(path: &Path) -> Result<u32, Error> {
    let one = |entry: &WalkEntry<'_>| {
        entry.metadata().and_then(|_| entry.extended_attributes()).and_then(|_| read_ends(entry))
    };
    read_everything(&tree_of(path)?, one).map(|(_, refused)| refused)
}
