//! XFS; the truth is the kernel's reading of it, on images that kernels wrote, and what `xfs_db` prints.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use guestkit::filesystem::{FileType, SharedFileSystem};
use guestkit::guest::WalkNext;
use guestkit::image::Roots;
use guestkit::{Budget, Disk, Error, ImageSpec, Limits, Result, Tree};
use support::trees::{mount_within, read_ends, read_everything as read_everything_in, sha256_of};
use support::{corpus, has_tool, unpacked};

fn mount(image: Vec<u8>, limits: &Limits) -> Result<(SharedFileSystem, Arc<Budget>)> {
    let budget = Budget::new(limits);
    Ok((mount_within(&[Arc::new(image)], &budget)?, budget))
}

/// Bytes as text, each a character of its own.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// What a fixture's truth tells of a file, for all files by path.
fn describe(file_system: &SharedFileSystem, budget: Arc<Budget>) -> BTreeMap<String, serde_json::Value> {
    let tree = Tree::new(Arc::clone(file_system), budget);
    let mut found = BTreeMap::new();
    let unreadable = tree.walk("/", |entry| {
        let metadata = entry.metadata()?;
        let time = |time: guestkit::filesystem::Timestamp| {
            (i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds)).to_string()
        };
        let attributes: BTreeMap<String, String> = file_system
            .extended_attributes(metadata.node)?
            .into_iter()
            .map(|attribute| (latin(&attribute.name), latin(&attribute.value)))
            // As stored, beside what Linux makes of them: the fixtures' recipe leaves them out.
            .filter(|(name, _)| !name.starts_with("trusted.SGI_ACL_"))
            .collect();
        let content = match metadata.file_type {
            FileType::Regular => sha256_of(entry)?,
            FileType::Symlink => latin(&entry.read_link()?),
            _ => String::new(),
        };
        let said = serde_json::json!({
            "ino": metadata.node.0,
            "mode": metadata.file_type.mode_bits() | u32::from(metadata.mode),
            "uid": metadata.uid,
            "gid": metadata.gid,
            "nlink": metadata.links,
            "size": if metadata.file_type == FileType::Directory { 0 } else { metadata.size },
            "mtime": time(metadata.modified),
            "ctime": time(metadata.changed),
            "rdev": metadata.device.map(|(major, minor)| format!("{major}:{minor}")),
            "xattrs": attributes,
            "content": content,
        });
        found.insert(latin(entry.path), said);
        Ok(WalkNext::Descend)
    });
    let unreadable = unreadable.unwrap();
    assert!(unreadable.is_empty(), "{:?}", unreadable.first().map(|met| (latin(&met.path), met.error.to_string())));
    // Looking a name up finds what listing shows.
    for (path, said) in found.iter().step_by(7) {
        let bytes: Vec<u8> = path.chars().map(|char| char as u8).collect();
        let mut node = file_system.root();
        for name in bytes.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            node = file_system.lookup(node, name).unwrap().unwrap_or_else(|| panic!("{path} is not found by name"));
        }
        assert_eq!(said["ino"], node.0, "{path}");
    }
    found
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/xfs")
}

/// `fixtures/xfs`: file systems of many kinds that Linux wrote, some with a log that was not emptied, and the tree that
/// Linux saw when it mounted them.
#[test]
fn fixtures_are_what_the_kernel_sees() {
    if !has_tool("zstd") {
        return;
    }
    // Images kept elsewhere can be looked at in the same way.
    let folder = std::env::var_os("GUESTKIT_XFS_FIXTURES").map_or_else(fixtures, PathBuf::from);
    let mut count = 0;
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        let Some(name) = path.to_str().unwrap().strip_suffix(".img.zst") else { continue };
        let truth: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&unpacked(Path::new(&format!("{name}.json.zst")))).unwrap();
        let started = Instant::now();
        let (file_system, budget) = mount(unpacked(&path), &Limits::default()).unwrap();
        let found = describe(&file_system, budget);
        let warnings = file_system.warnings();
        for (path, said) in &truth {
            assert_eq!(found.get(path), Some(said), "{name}: {path}; {warnings:?}");
        }
        assert_eq!(found.len(), truth.len(), "{name}");
        assert_eq!(warnings, [""; 0], "{name}");
        println!("{name}: {} files, {:?}", found.len(), started.elapsed());
        count += 1;
    }
    assert!(count > 0);
}

/// `truth/tree.json`: the files that every image of the matrix was made with, confirmed by Linux.
#[test]
fn the_matrix_of_mkfs_flags_reads_whole() {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("fs-matrix");
    let truth: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("truth/tree.json")).unwrap()).unwrap();
    let mut read = 0;
    for (name, image) in matrix(&folder) {
        let (file_system, budget) = mount(image, &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(file_system.warnings(), [""; 0], "{name}");
        let found = describe(&file_system, budget);
        for (path, said) in truth["files"].as_object().unwrap() {
            let file = &found[&format!("/{path}")];
            assert_eq!(file["size"], said["size"], "{name}: {path}");
            if !said["sha256"].is_null() {
                assert_eq!(file["content"], said["sha256"], "{name}: {path}");
            }
        }
        assert_eq!(found["/file1"]["xattrs"], truth["file1"]["xattr"], "{name}");
        assert!(found["/file0/file1"]["content"].as_str().unwrap().ends_with("/file0/file0"), "{name}");
        assert_eq!(found["/file2"]["ino"], found["/file3"]["ino"], "{name}");
        read += 1;
    }
    println!("{read} read");
    assert!(read > 0);
}

/// The images of the matrix that are XFS, by name.
fn matrix(folder: &Path) -> impl Iterator<Item = (String, Vec<u8>)> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.retain(|name| name.starts_with("xfs_"));
    names.into_iter().map(|name| {
        let packed = std::fs::read(folder.join(&name)).unwrap();
        let mut image = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(packed.as_slice()), &mut image).unwrap();
        (name, image)
    })
}

/// `stacks/truth/xfs.files.tsv`: a whole guest, as Linux in an appliance saw it.
#[test]
fn a_guest_is_what_the_kernel_sees() {
    let Some(corpus) = corpus() else { return };
    let image = corpus.join("guests/xfs.raw");
    if !image.exists() {
        println!("the guest is not unpacked");
        return;
    }
    let disk = Disk::open(&[ImageSpec::recognised(image)], &Roots::anywhere(), &Limits::default()).unwrap();
    let is_xfs = |device: &&guestkit::Device| device.probe.as_ref().is_some_and(|probe| probe.kind == "xfs");
    let device = disk.devices().iter().find(is_xfs).unwrap();
    let file_system = disk.mount(device).unwrap();
    println!("{:?}", file_system.warnings());
    let found = describe(&file_system, Arc::clone(disk.budget()));
    let truth = std::fs::read_to_string(corpus.join("stacks/truth/xfs.files.tsv")).unwrap();
    let mut compared = 0;
    for line in truth.lines().skip(1) {
        let [path, kind, mode, uid, gid, size, sha256, target] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        // /boot is a file system of its own.
        if path.starts_with("/boot/") {
            continue;
        }
        let file = found.get(&latin(path.as_bytes())).unwrap_or_else(|| panic!("{path} is missing"));
        let number = |text: &str| text.parse::<u64>().unwrap();
        let permissions = u64::from_str_radix(mode, 8).unwrap() & 0o7777;
        assert_eq!(file["mode"].as_u64().unwrap() & 0o7777, permissions, "{path}");
        assert_eq!((file["uid"].as_u64(), file["gid"].as_u64()), (Some(number(uid)), Some(number(gid))), "{path}");
        if sha256 != "-" {
            assert_eq!(file["size"], number(size), "{path}");
            assert_eq!(file["content"], sha256, "{path}");
        }
        if kind.starts_with('l') || kind.contains("link") {
            assert_eq!(file["content"], latin(target.as_bytes()), "{path}");
        }
        compared += 1;
    }
    println!("{compared} of {} files compared", found.len());
    assert!(compared > 20);
}

/// Reads everything there is, and gives the number of files read and of things refused.
fn read_everything(image: Vec<u8>) -> Result<(u32, u32)> {
    let (file_system, budget) = mount(image, &Limits::default())?;
    let tree = Tree::new(Arc::clone(&file_system), budget);
    let read = read_everything_in(&tree, |entry| read_ends(entry).and(entry.extended_attributes().map(drop)))?;
    let _ = file_system.lookup(file_system.root(), b"file-100");
    Ok(read)
}

/// Mutations and truncations of the fixtures: none may panic, hang or be read past its bounds.
#[test]
fn mutated_file_systems_end_in_an_answer() {
    if !has_tool("zstd") {
        return;
    }
    let started = Instant::now();
    let (mut whole, mut partly, mut refused) = (0, 0, 0);
    let mut noise = support::Noise::new(11);
    let mut paths: Vec<_> = std::fs::read_dir(fixtures()).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.to_str().unwrap().ends_with(".img.zst")) {
        let mut image = unpacked(path);
        // Places that hold anything: the rest of an image of some megabytes is zeros.
        let used: Vec<usize> =
            (0..image.len() / 512).filter(|at| image[at * 512..][..512].iter().any(|byte| *byte != 0)).collect();
        for round in 0..30 {
            let mut undo = Vec::new();
            for _ in 0..1 + noise.below(8) {
                let at = used[noise.below(used.len())] * 512 + noise.below(512);
                undo.push((at, image[at]));
                image[at] = if round % 2 == 0 { noise.next() as u8 } else { image[at] ^ 1 << noise.below(8) };
            }
            let length = if round % 5 == 0 { noise.below(image.len()) } else { image.len() };
            let begun = Instant::now();
            match read_everything(image[..length].to_vec()) {
                Ok((_, 0)) => whole += 1,
                Ok(_) => partly += 1,
                Err(Error::Io { action, source }) => panic!("{}: {action}: {source}", path.display()),
                Err(_) => refused += 1,
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "{} took {:?}", path.display(), begun.elapsed());
            for (at, byte) in undo.into_iter().rev() {
                image[at] = byte;
            }
            if started.elapsed() > Duration::from_secs(60) {
                break;
            }
        }
    }
    println!("{whole} read whole, {partly} in part, {refused} refused");
    assert!(whole + partly > 0);
}
