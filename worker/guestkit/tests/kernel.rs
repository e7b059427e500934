//! File systems beside the kernel of this machine: each is mounted from a loop device, read only and from a copy, both trees
//! are walked, and type, mode, owner, links, size, times, device numbers, targets, extended attributes and contents compared.
//!
//! Asked for by `cargo xtask oracle`, which needs root: `GUESTKIT_ORACLE` names folders of images and images.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // Helpers of tests may panic as tests do; a report is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use guestkit::filesystem::{FileType, Timestamp, Usage};
use guestkit::guest::{OpenFile, WalkEntry, WalkNext};
use guestkit::image::Roots;
use guestkit::{Device, Disk, ImageSpec, Keys, Limits, ReadAt, Secret, Tree};

/// What is compared at once.
const PIECE_BYTES: usize = 1 << 20;
/// Longer file systems are not copied.
const COPIED_BYTES_MAX: u64 = 16 << 30;

#[test]
fn both_trees_are_the_same() {
    let Some(asked) = std::env::var_os("GUESTKIT_ORACLE") else {
        return println!("asked for by `cargo xtask oracle` alone");
    };
    let mut cases: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in std::env::split_paths(&asked) {
        let images = match path.is_dir() {
            true => {
                fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).filter(|one| one.is_file()).collect()
            }
            false => vec![path],
        };
        for image in images {
            let name = image.file_stem().unwrap().to_string_lossy().into_owned();
            // Several disks of one machine are numbered.
            let (name, number) = name.rsplit_once('.').unwrap_or((&name, ""));
            let name = if number.parse::<u32>().is_ok() { name.to_owned() } else { format!("{name} {number}") };
            cases.entry(name.trim_end().to_owned()).or_default().push(image);
        }
    }
    let mut keys = Keys::none();
    if let Ok(key) = std::env::var("GUESTKIT_ORACLE_KEY") {
        keys.add("all", Secret::new(key.into_bytes()));
    }
    println!("| file system | files | differ |\n|---|---|---|");
    let mut wrong = 0;
    for (name, mut images) in cases {
        images.sort();
        let specs: Vec<_> = images.iter().map(ImageSpec::recognised).collect();
        let disk = match Disk::open_with_keys(&specs, &Roots::anywhere(), &keys, &Limits::default()) {
            Ok(disk) => disk,
            Err(error) => {
                println!("| {name} | {} | |", error.with_causes());
                continue;
            }
        };
        let has_files = |device: &&Device| {
            device.holders.is_empty() && device.probe.as_ref().is_some_and(|probe| probe.usage == Usage::FileSystem)
        };
        for device in disk.devices().iter().filter(has_files) {
            let kind = device.probe.as_ref().unwrap().kind;
            let title = format!("{name} {} {kind}", device.name);
            let mounted = match Mounted::new(&disk, device) {
                Ok(mounted) => mounted,
                Err(why) => {
                    let ours = disk.mount(device).err().map(|error| error.with_causes());
                    println!("| {title} | the kernel refuses it: {why}; read here: {ours:?} | |");
                    continue;
                }
            };
            let (files, differences) = match disk.mount(device) {
                Ok(file_system) => {
                    for warning in file_system.warnings() {
                        println!("{title}: {warning}");
                    }
                    compare(&Tree::new(file_system, Arc::clone(disk.budget())), &mounted.at())
                }
                Err(error) => (0, vec![error.with_causes()]),
            };
            println!("| {title} | {files} | {} |", differences.len());
            for difference in differences.iter().take(8) {
                println!("  - {difference}");
            }
            wrong += differences.len();
        }
    }
    assert_eq!(wrong, 0, "differences");
}

/// A file system that the kernel has mounted, until it is dropped.
struct Mounted {
    folder: tempfile::TempDir,
    loops: Vec<String>,
}

impl Mounted {
    /// Copies `device`, and with it the others of a btrfs on several, and mounts the copy.
    fn new(disk: &Disk, device: &Device) -> Result<Self, String> {
        let probe = device.probe.as_ref().unwrap();
        let is_of_it = |other: &&Device| {
            other.name == device.name || (probe.kind == "btrfs" && other.holders.contains(&device.name))
        };
        let mut mounted = Self { folder: tempfile::tempdir().unwrap(), loops: Vec::new() };
        for (index, member) in disk.devices().iter().filter(is_of_it).enumerate() {
            let copy = mounted.folder.path().join(index.to_string());
            if member.size_bytes > COPIED_BYTES_MAX {
                return Err("it is too long to be copied".into());
            }
            copy_sparse(&*member.source(), &copy)?;
            mounted.loops.push(tool("losetup", &["-f", "--show", copy.to_str().unwrap()])?.trim().to_owned());
        }
        let options = match probe.kind {
            "xfs" => "ro,nouuid",
            "btrfs" => "ro,degraded",
            _ => "ro",
        };
        if probe.kind == "btrfs" {
            let mut scan = vec!["device", "scan"];
            scan.extend(mounted.loops.iter().map(String::as_str));
            tool("btrfs", &scan)?;
        }
        let at = mounted.at();
        fs::create_dir(&at).unwrap();
        tool("mount", &["-t", probe.kind, "-o", options, &mounted.loops[0], at.to_str().unwrap()])?;
        Ok(mounted)
    }

    fn at(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = tool("umount", &[self.at().to_str().unwrap()]);
        for one in &self.loops {
            let _ = tool("losetup", &["-d", one]);
            let _ = tool("btrfs", &["device", "scan", "--forget", one]);
        }
    }
}

fn tool(name: &str, args: &[&str]) -> Result<String, String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(name).args(args).env("PATH", path).env("LC_ALL", "C").output();
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn copy_sparse(source: &dyn ReadAt, to: &Path) -> Result<(), String> {
    let file = File::create(to).unwrap();
    file.set_len(source.len()).unwrap();
    let mut piece = vec![0; PIECE_BYTES];
    for at in (0..source.len()).step_by(PIECE_BYTES) {
        let length = usize::try_from(source.len() - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
        source.read_exact_at(&mut piece[..length], at).map_err(|error| error.with_causes())?;
        if piece[..length].iter().any(|byte| *byte != 0) {
            file.write_all_at(&piece[..length], at).unwrap();
        }
    }
    Ok(())
}

/// Counts the files, and tells what differs.
fn compare(tree: &Tree, mounted: &Path) -> (u32, Vec<String>) {
    let (mut files, mut wrong, mut seen) = (0, Vec::new(), BTreeSet::new());
    let host = |path: &[u8]| mounted.join(OsStr::from_bytes(&path[1..]));
    let walked = tree.walk("/", |entry| {
        files += 1;
        let path = host(entry.path);
        if let Err(how) = compare_entry(entry, &path) {
            wrong.push(format!("{}: {how}", entry.path.escape_ascii()));
        }
        seen.insert(path);
        Ok(WalkNext::Descend)
    });
    match walked {
        Ok(unreadable) => wrong.extend(
            unreadable.into_iter().map(|one| format!("{}: {}", one.path.escape_ascii(), one.error.with_causes())),
        ),
        Err(error) => wrong.push(error.with_causes()),
    }
    let mut folders = vec![mounted.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if !seen.contains(&entry.path()) {
                wrong.push(format!("{} is missing", entry.path().display()));
            } else if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    (files, wrong)
}

fn compare_entry(entry: &WalkEntry<'_>, path: &Path) -> Result<(), String> {
    let told = |error: guestkit::Error| error.with_causes();
    let theirs = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    let ours = entry.metadata().map_err(told)?;
    let same = |what: &str, ours: i128, theirs: i128| {
        if ours == theirs { Ok(()) } else { Err(format!("{what} {ours}, the kernel says {theirs}")) }
    };
    same("mode", (ours.file_type.mode_bits() | u32::from(ours.mode)).into(), theirs.mode().into())?;
    same("type in the directory", entry.file_type.mode_bits().into(), ours.file_type.mode_bits().into())?;
    same("owner", ours.uid.into(), theirs.uid().into())?;
    same("group", ours.gid.into(), theirs.gid().into())?;
    same("links", ours.links.into(), theirs.nlink().into())?;
    same("size", ours.size.into(), theirs.size().into())?;
    let nanoseconds = |time: Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let kernel = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    same("mtime", nanoseconds(ours.modified), kernel(theirs.mtime(), theirs.mtime_nsec()))?;
    same("ctime", nanoseconds(ours.changed), kernel(theirs.ctime(), theirs.ctime_nsec()))?;
    if let Some(accessed) = ours.accessed {
        same("atime", nanoseconds(accessed), kernel(theirs.atime(), theirs.atime_nsec()))?;
    }
    if let Some((major, minor)) = ours.device {
        same("major", major.into(), rustix::fs::major(theirs.rdev()).into())?;
        same("minor", minor.into(), rustix::fs::minor(theirs.rdev()).into())?;
    }
    let mut found: Vec<(Vec<u8>, Vec<u8>)> =
        entry.extended_attributes().map_err(told)?.into_iter().map(|one| (one.name, one.value)).collect();
    found.sort();
    let expected = kernel_attributes(path)?;
    if found != expected {
        let other = expected
            .iter()
            .find(|one| !found.contains(one))
            .or_else(|| found.iter().find(|one| !expected.contains(one)));
        let (name, value) = other.cloned().unwrap_or_default();
        let mine = found.iter().find(|(mine, _)| *mine == name).map(|(_, value)| value.escape_ascii().to_string());
        let (name, value) = (name.escape_ascii(), value.escape_ascii());
        return Err(format!("{} attributes, of {}: {name} {value:.80}, here {mine:?}", found.len(), expected.len()));
    }
    match ours.file_type {
        FileType::Symlink => {
            let (ours, theirs) = (entry.read_link().map_err(told)?, fs::read_link(path).unwrap());
            if ours != theirs.as_os_str().as_bytes() {
                return Err(format!("target {}, the kernel says {}", ours.escape_ascii(), theirs.display()));
            }
        }
        FileType::Regular => compare_contents(&entry.open().map_err(told)?.unwrap(), path)?,
        _ => {}
    }
    Ok(())
}

type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

fn kernel_attributes(path: &Path) -> Result<Attributes, String> {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut names[..]).map_err(|error| format!("llistxattr: {error}"))?;
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 1 << 16];
        let length =
            rustix::fs::lgetxattr(path, name, &mut value[..]).map_err(|error| format!("lgetxattr: {error}"))?;
        value.truncate(length);
        found.push((name.to_vec(), value));
    }
    found.sort();
    Ok(found)
}

fn compare_contents(ours: &OpenFile, path: &Path) -> Result<(), String> {
    let theirs = File::open(path).map_err(|error| error.to_string())?;
    let (mut one, mut other) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    for at in (0..ours.len()).step_by(PIECE_BYTES) {
        let length = usize::try_from(ours.len() - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
        ours.read_exact_at(&mut one[..length], at).map_err(|error| error.with_causes())?;
        theirs.read_exact_at(&mut other[..length], at).map_err(|error| error.to_string())?;
        if one[..length] != other[..length] {
            let first = one.iter().zip(&other).position(|(one, other)| one != other).unwrap_or(0);
            return Err(format!("contents, from byte {} on", at + first as u64));
        }
    }
    Ok(())
}
