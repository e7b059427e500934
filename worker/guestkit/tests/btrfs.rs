//! btrfs; the truth is Linux's reading of the same images, and the tree that `mkfs.btrfs --rootdir` was given.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guestkit::filesystem::{FileType, SharedFileSystem};
use guestkit::guest::{WalkEntry, WalkNext};
use guestkit::{Budget, Error, Limits, Result, Source, Tree};
use support::trees::{mount_within, read_ends, read_everything as read_everything_in, sha256, sha256_of};
use support::{corpus, has_tool, has_tools, run, unpacked};

fn mount(image: Vec<u8>, limits: &Limits) -> Result<(SharedFileSystem, Arc<Budget>)> {
    mount_all(&[Arc::new(image)], limits)
}

fn mount_all(sources: &[Source], limits: &Limits) -> Result<(SharedFileSystem, Arc<Budget>)> {
    let budget = Budget::new(limits);
    Ok((mount_within(sources, &budget)?, budget))
}

/// The inode number within its subvolume.
const fn inode(node: u64) -> u64 {
    node & ((1 << 44) - 1)
}

/// `truth/trees.json`: what Linux saw on the same images, mounted read-only.
#[test]
fn trees_are_what_the_kernel_sees() {
    let Some(corpus) = corpus() else { return };
    if !has_tool("gzip") {
        return;
    }
    let folder = corpus.join("fs-btrfs");
    let truth: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("truth/trees.json")).unwrap()).unwrap();
    for (name, said) in truth.as_object().unwrap() {
        let (file_system, budget) = mount(unpacked(&folder.join(name)), &Limits::default()).unwrap();
        assert_eq!(file_system.info().uuid.as_deref(), said["blkid"]["UUID"].as_str(), "{name}");
        let tree = Tree::new(Arc::clone(&file_system), budget);
        let mut found = BTreeMap::new();
        let mut attributes = BTreeMap::new();
        let unreadable = tree
            .walk("/", |entry| {
                let path = String::from_utf8_lossy(&entry.path[1..]).into_owned();
                let described = describe(entry);
                let all = file_system.extended_attributes(entry.metadata()?.node)?;
                let all: BTreeMap<_, _> = all
                    .into_iter()
                    .map(|one| {
                        let value: String = one.value.iter().map(|byte| format!("{byte:02x}")).collect();
                        (String::from_utf8(one.name).unwrap(), value)
                    })
                    .collect();
                attributes.insert(path.clone(), all);
                found.insert(path, described);
                Ok(WalkNext::Descend)
            })
            .unwrap();
        println!("{name}: {} entries, {unreadable:?}, {:?}", found.len(), file_system.warnings());
        let entries = said["tree"].as_array().unwrap();
        assert_eq!(found.len(), entries.len(), "{name}");
        for entry in entries {
            let path = entry["path"].as_str().unwrap();
            for key in ["mode", "uid", "gid", "ino", "nlink", "mtime", "size", "sha256", "target"] {
                assert_eq!(found[path].get(key), entry.get(key), "{name}: {path}: {key}");
            }
            for (attribute, value) in entry["xattr"].as_object().into_iter().flatten() {
                assert_eq!(attributes[path].get(attribute).map(String::as_str), value.as_str(), "{name}: {path}");
            }
        }
        let subvolumes = file_system.subvolumes().unwrap();
        assert_eq!((subvolumes[0].id, subvolumes[0].path.as_slice()), (5, &b""[..]), "{name}");
    }
}

fn describe(entry: &WalkEntry<'_>) -> serde_json::Value {
    let metadata = entry.metadata().unwrap();
    let mut all = serde_json::json!({
        "mode": format!("0o{:o}", metadata.file_type.mode_bits() | u32::from(metadata.mode)),
        "uid": metadata.uid,
        "gid": metadata.gid,
        "ino": inode(metadata.node.0),
        "nlink": metadata.links,
        "mtime": metadata.modified.seconds,
    });
    match metadata.file_type {
        FileType::Regular => {
            all["size"] = metadata.size.into();
            if let Ok(sha256) = sha256_of(entry) {
                all["sha256"] = sha256.into();
            }
        }
        FileType::Symlink => all["target"] = String::from_utf8_lossy(&entry.read_link().unwrap()).into(),
        _ => {}
    }
    all
}

/// Regular files by path with the hashes of their contents.
fn contents(file_system: &SharedFileSystem, budget: &Arc<Budget>) -> BTreeMap<String, String> {
    let tree = Tree::new(Arc::clone(file_system), Arc::clone(budget));
    let mut found = BTreeMap::new();
    let unreadable = tree.walk("/", |entry| {
        if entry.file_type == FileType::Regular {
            found.insert(String::from_utf8_lossy(&entry.path[1..]).into_owned(), sha256_of(entry)?);
        }
        Ok(WalkNext::Descend)
    });
    let unreadable = unreadable.unwrap();
    assert!(unreadable.is_empty(), "{unreadable:?}");
    found
}

/// `truth/tree.json`: the files that every image of the matrix was made with, confirmed by Linux.
#[test]
fn the_matrix_of_mkfs_flags_reads_whole() {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("fs-matrix");
    let truth: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("truth/tree.json")).unwrap()).unwrap();
    let mut read = 0;
    for file in std::fs::read_dir(&folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        if !name.starts_with("btrfs_") {
            continue;
        }
        let packed = std::fs::read(folder.join(&name)).unwrap();
        let mut image = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(packed.as_slice()), &mut image).unwrap();
        let (file_system, budget) = mount(image, &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = contents(&file_system, &budget);
        for (path, said) in truth["files"].as_object().unwrap() {
            if let Some(sha256) = said["sha256"].as_str() {
                assert_eq!(found.get(path).map(String::as_str), Some(sha256), "{name}: {path}");
            }
        }
        assert!(file_system.warnings().is_empty(), "{name}: {:?}", file_system.warnings());
        read += 1;
    }
    println!("{read} read");
    assert!(read >= 30, "{read} read");
}

/// A tree of some depth and sizes, by path.
fn make_tree(at: &Path) -> BTreeMap<String, String> {
    let mut noise = support::Noise::new(5);
    let mut made = BTreeMap::new();
    std::fs::create_dir_all(at.join("etc/deep/er")).unwrap();
    for index in 0..300_usize {
        let size = if index % 50 == 0 { 700_001 + index } else { index * 37 };
        let bytes: Vec<u8> = (0..size).map(|_| noise.next() as u8).collect();
        let path = format!("etc/deep/er/file-{index}");
        std::fs::write(at.join(&path), &bytes).unwrap();
        made.insert(path, sha256(&bytes));
    }
    std::os::unix::fs::symlink("a".repeat(200), at.join("link")).unwrap();
    made
}

/// Every profile over as many devices as it wants, whole and with as many devices missing as it survives. mkfs.btrfs fills
/// a file system from a folder only on one device; on several it is the trees that are read, through their profile.
#[test]
fn every_profile_reads_and_survives_what_it_is_made_to_survive() {
    if !has_tools(&["mkfs.btrfs"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let tree = home.path().join("tree");
    let made = make_tree(&tree);
    for (profile, devices, lost) in [
        ("single", 1, 0),
        ("dup", 1, 0),
        ("raid0", 3, 0),
        ("raid1", 3, 1),
        ("raid1c3", 3, 2),
        ("raid1c4", 4, 3),
        ("raid10", 4, 1),
        ("raid5", 3, 1),
        ("raid6", 4, 2),
    ] {
        let paths: Vec<_> = (0..devices).map(|index| home.path().join(format!("{profile}-{index}"))).collect();
        for path in &paths {
            std::fs::File::create(path).unwrap().set_len(160 << 20).unwrap();
        }
        let mut arguments = vec!["-q", "-f", "-d", profile, "-m", profile];
        if devices == 1 {
            arguments.extend(["-r", tree.to_str().unwrap()]);
        }
        arguments.extend(paths.iter().map(|path| path.to_str().unwrap()));
        run("mkfs.btrfs", &arguments);
        let images: Vec<Source> = paths.iter().map(|path| Arc::new(std::fs::read(path).unwrap()) as Source).collect();
        for missing in (0..1_usize << devices).filter(|missing| missing.count_ones() <= lost) {
            let left = images.iter().enumerate().filter(|(index, _)| missing >> index & 1 == 0);
            let left: Vec<Source> = left.map(|(_, image)| Arc::clone(image)).collect();
            let (file_system, budget) = mount_all(&left, &Limits::default())
                .unwrap_or_else(|error| panic!("{profile} without {missing:b}: {error}"));
            let expected = if devices == 1 { made.clone() } else { BTreeMap::new() };
            assert_eq!(contents(&file_system, &budget), expected, "{profile} without {missing:b}");
            let warnings = file_system.warnings();
            assert!(missing != 0 || warnings.is_empty(), "{profile}: {warnings:?}");
        }
        println!("{profile}: read with up to {lost} of {devices} devices missing");
        for path in &paths {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// Reads everything there is, and gives the number of files read and of things refused.
fn read_everything(image: Vec<u8>, limits: &Limits) -> Result<(u32, u32)> {
    let (file_system, budget) = mount(image, limits)?;
    let _ = file_system.subvolumes();
    read_everything_in(&Tree::new(file_system, budget), read_ends)
}

/// btrfs-progs' tests of its checker and its fuzzed images: each is broken in its own way.
#[test]
fn broken_file_systems_end_in_an_answer() {
    let Some(corpus) = corpus() else { return };
    if !has_tool("xz") {
        return;
    }
    let (mut whole, mut partly, mut refused) = (0, 0, 0);
    for file in std::fs::read_dir(corpus.join("hostile-btrfs")).unwrap() {
        let path = file.unwrap().path();
        let image = unpacked(&path);
        let started = Instant::now();
        match read_everything(image, &Limits::default()) {
            Ok((_, 0)) => whole += 1,
            Ok(_) => partly += 1,
            Err(Error::Io { action, source }) => panic!("{}: {action}: {source}", path.display()),
            Err(error) => {
                println!("{}: {error}", path.display());
                refused += 1;
            }
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{} took {:?}", path.display(), started.elapsed());
    }
    println!("{whole} read whole, {partly} in part, {refused} refused");
    assert!(whole + partly >= 10, "{whole} read whole, {partly} in part, {refused} refused");
}

/// Mutations of a good image, with the checksums of the blocks they fall into set right again.
#[test]
fn mutated_file_systems_end_in_an_answer() {
    if !has_tools(&["mkfs.btrfs"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let tree = home.path().join("tree");
    make_tree(&tree);
    let path = home.path().join("disk");
    std::fs::File::create(&path).unwrap().set_len(128 << 20).unwrap();
    run("mkfs.btrfs", &["-q", "-m", "single", "-r", tree.to_str().unwrap(), path.to_str().unwrap()]);
    let mut image = std::fs::read(&path).unwrap();
    let fsid: Vec<u8> = image[(64 << 10) + 32..(64 << 10) + 48].to_vec();
    let is_block = |at: &usize| image[at + 32..at + 48] == fsid[..] && image[at + 100] < 8;
    let blocks: Vec<usize> = (0..image.len()).step_by(16384).filter(is_block).collect();
    assert!(blocks.len() > 5, "{blocks:?}");
    let mut noise = support::Noise::new(23);
    let started = Instant::now();
    let mut mutants = 0;
    while mutants < 300 && started.elapsed() < Duration::from_secs(40) {
        let at = blocks[noise.below(blocks.len())];
        let good = image[at..at + 16384].to_vec();
        for _ in 0..1 + noise.below(4) {
            let within = if noise.below(2) == 0 { 48 + noise.below(400) } else { 48 + noise.below(16384 - 48) };
            image[at + within] = noise.next() as u8;
        }
        let end = if at == 64 << 10 { 4096 } else { 16384 };
        let sum = crc32c::crc32c(&image[at + 32..at + end]).to_le_bytes();
        image[at..at + 4].copy_from_slice(&sum);
        let began = Instant::now();
        let limits = Limits { time: Duration::from_secs(5), ..Limits::default() };
        let _ = read_everything(image.clone(), &limits);
        assert!(began.elapsed() < Duration::from_secs(6));
        image[at..at + 16384].copy_from_slice(&good);
        mutants += 1;
    }
    println!("{mutants} mutants");
    for length in [0, 1, 4096, 65536, 66000, 69632, 1 << 20, 5 << 20, 23 << 20, 40 << 20] {
        let _ = read_everything(image[..length].to_vec(), &Limits::default());
    }
}

/// Dumps of file systems whose only file was synced and never committed, as btrfs-image restores them.
#[test]
fn what_was_synced_is_there_before_it_was_committed() {
    let Some(corpus) = corpus() else { return };
    if !has_tool("xz") || !has_tools(&["btrfs-image"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    for case in ["already-present", "compressed", "hole"] {
        let dump = unpacked(&corpus.join(format!("hostile-btrfs/fsck-tests__065-valid-log-tree__{case}.img.xz")));
        let (from, to) = (home.path().join("dump"), home.path().join(case));
        std::fs::write(&from, dump).unwrap();
        run("btrfs-image", &["-r", from.to_str().unwrap(), to.to_str().unwrap()]);
        let mut image = Vec::new();
        // All there is lies in the first MiBs of a gigabyte.
        let file = std::fs::File::open(&to).unwrap();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, 64 << 20), &mut image).unwrap();
        let (file_system, budget) = mount(image, &Limits::default()).unwrap();
        assert!(file_system.warnings().is_empty(), "{case}: {:?}", file_system.warnings());
        let tree = Tree::new(Arc::clone(&file_system), budget);
        let names: Vec<_> = tree.read_dir("/").unwrap().unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, [b"file".to_vec()], "{case}");
        let metadata = tree.symlink_metadata("/file").unwrap().unwrap();
        assert_eq!((metadata.node.0, metadata.size, metadata.mode), (257, 4096, 0o644), "{case}");
        if case == "hole" {
            assert_eq!(tree.read_file("/file").unwrap().unwrap(), vec![0; 4096]);
        }
    }
}
