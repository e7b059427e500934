//! File systems of the ext family; the truth is the kernel's reading of them, debugfs, and e2fsprogs' own broken images.
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

use guestkit::filesystem::{self, FileType, SharedFileSystem};
use guestkit::guest::{WalkEntry, WalkNext};
use guestkit::image::Roots;
use guestkit::{Budget, Disk, Error, ImageSpec, Limits, ReadAt, Result, Source, Tree};
use sha2::Digest as _;
use support::{assert_same, corpus, has_tool, run, unpacked};

fn mount(image: Vec<u8>, limits: &Limits) -> Result<(SharedFileSystem, Arc<Budget>)> {
    let budget = Budget::new(limits);
    let source: Source = Arc::new(image);
    let found = filesystem::probe(&*source)?;
    let probe = found.ok_or_else(|| Error::Unsupported { what: "nothing recognised".into() })?;
    Ok((filesystem::mount(&[source], &probe, &budget)?, budget))
}

fn sha256_of(entry: &WalkEntry<'_>) -> Result<String> {
    let file = entry.open()?.unwrap();
    let mut hash = sha2::Sha256::new();
    let mut piece = vec![0; 100_003];
    let mut at = 0;
    while at < file.len() {
        let count = usize::try_from(file.len() - at).unwrap().min(piece.len());
        file.read_exact_at(&mut piece[..count], at)?;
        hash.update(&piece[..count]);
        at += count as u64;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// `truth/trees.json`: what Linux saw on the same images, mounted read-only.
#[test]
fn trees_are_what_the_kernel_sees() {
    let Some(corpus) = corpus() else { return };
    if !has_tool("zstd") {
        return;
    }
    let folder = corpus.join("fs-ext");
    let truth: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("truth/trees.json")).unwrap()).unwrap();
    for (name, said) in truth.as_object().unwrap() {
        // Linux skipped this one's journal, because its device could not be written.
        if name.contains("journal") {
            continue;
        }
        let (file_system, budget) = mount(unpacked(&folder.join(name)), &Limits::default()).unwrap();
        assert_eq!(file_system.info().kind, said["blkid"]["TYPE"], "{name}");
        let tree = Tree::new(file_system, budget);
        let mut found = BTreeMap::new();
        let unreadable = tree
            .walk("/", |entry| {
                found.insert(String::from_utf8_lossy(&entry.path[1..]).into_owned(), describe(entry));
                Ok(WalkNext::Descend)
            })
            .unwrap();
        // The kernel makes up names for what an encrypted directory holds; we say that it is encrypted.
        let unreadable: Vec<_> = unreadable.into_iter().map(|met| (met.path, met.error)).collect();
        let in_encrypted = |entry: &&serde_json::Value| entry["path"].as_str().unwrap().starts_with("encrypted_dir/");
        let entries: Vec<_> = said["tree"].as_array().unwrap().iter().filter(|entry| !in_encrypted(entry)).collect();
        let encrypted = said["tree"].as_array().unwrap().iter().any(|entry| in_encrypted(&entry));
        assert_eq!(unreadable.len(), usize::from(encrypted), "{name}: {unreadable:?}");
        for (path, error) in unreadable {
            assert!(path == b"/encrypted_dir" && matches!(error, Error::Encrypted { .. }), "{name}: {error}");
        }
        assert_eq!(found.len(), entries.len(), "{name}");
        for entry in entries {
            let path = entry["path"].as_str().unwrap();
            for key in ["mode", "uid", "gid", "ino", "nlink", "mtime", "size", "sha256", "target"] {
                assert_eq!(found[path].get(key), entry.get(key), "{name}: {path}: {key}");
            }
        }
    }
}

/// What lies in the journal only is seen as after e2fsck has replayed it.
#[test]
fn a_journal_is_replayed_as_e2fsck_replays_it() {
    let Some(corpus) = corpus() else { return };
    if !has_tool("zstd") || !has_tool("e2fsck") || !has_tool("debugfs") {
        return;
    }
    let image = unpacked(&corpus.join("fs-ext/ext4-view-rs/test_disk_4k_block_journal.bin.zst"));
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("disk");
    std::fs::write(&path, &image).unwrap();
    let path = path.to_str().unwrap();
    // e2fsck exits with 1 where it has changed something.
    let status = std::process::Command::new("e2fsck").args(["-p", "-E", "journal_only", path]).output().unwrap().status;
    assert!(status.code().is_some_and(|code| code < 2));
    let list = |bytes: Vec<u8>| {
        let (file_system, budget) = mount(bytes, &Limits::default()).unwrap();
        let mut found = BTreeMap::new();
        let tree = Tree::new(file_system, budget);
        let unreadable = tree.walk("/", |entry| {
            found.insert(entry.path.to_vec(), describe(entry));
            Ok(WalkNext::Descend)
        });
        assert!(unreadable.unwrap().is_empty());
        (tree, found)
    };
    let (tree, before) = list(image);
    let (_, after) = list(std::fs::read(path).unwrap());
    assert!(before.len() > 700);
    assert_eq!(before, after);
    check_listing(&tree, "/", &String::from_utf8(run("debugfs", &["-R", "ls -p /", path])).unwrap());
}

fn describe(entry: &WalkEntry<'_>) -> serde_json::Value {
    let metadata = entry.metadata().unwrap();
    let (kind, size, sha256, target) = match metadata.file_type {
        FileType::Regular => (0o100_000, Some(metadata.size), sha256_of(entry).ok(), None),
        FileType::Directory => (0o040_000, None, None, None),
        FileType::Symlink => (0o120_000, None, None, entry.read_link().ok()),
        FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket => (0, None, None, None),
    };
    let mut all = serde_json::json!({
        "mode": format!("0o{:o}", kind | u32::from(metadata.mode)),
        "uid": metadata.uid,
        "gid": metadata.gid,
        "ino": metadata.node.0,
        "nlink": metadata.links,
        "mtime": metadata.modified.seconds,
    });
    if let Some(size) = size {
        all["size"] = size.into();
    }
    if let Some(sha256) = sha256 {
        all["sha256"] = sha256.into();
    }
    if let Some(target) = target {
        all["target"] = String::from_utf8_lossy(&target).into();
    }
    all
}

/// `truth/tree.json`: the files that every image of the matrix was made with, confirmed by Linux.
#[test]
fn the_matrix_of_mkfs_flags_reads_whole_or_names_the_feature() {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("fs-matrix");
    let truth: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("truth/tree.json")).unwrap()).unwrap();
    let (mut read, mut refused) = (0, BTreeMap::<String, u32>::new());
    for file in std::fs::read_dir(&folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        if !name.starts_with("ext4_") {
            continue;
        }
        let packed = std::fs::read(folder.join(&name)).unwrap();
        let mut image = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(packed.as_slice()), &mut image).unwrap();
        let (file_system, budget) = match mount(image, &Limits::default()) {
            Ok(mounted) => mounted,
            Err(Error::Unsupported { what }) => {
                *refused.entry(what).or_default() += 1;
                continue;
            }
            Err(other) => panic!("{name}: {other}"),
        };
        let tree = Tree::new(file_system, budget);
        let mut found = BTreeMap::new();
        tree.walk("/", |entry| {
            if entry.file_type == FileType::Regular {
                found.insert(String::from_utf8_lossy(&entry.path[1..]).into_owned(), sha256_of(entry).unwrap());
            }
            Ok(WalkNext::Descend)
        })
        .unwrap();
        for (path, said) in truth["files"].as_object().unwrap() {
            if let Some(sha256) = said["sha256"].as_str() {
                assert_eq!(found.get(path).map(String::as_str), Some(sha256), "{name}: {path}");
            }
        }
        read += 1;
    }
    println!("{read} read, refused: {refused:?}");
    assert!(read >= 12, "{read} read, refused: {refused:?}");
    assert!(refused.keys().all(|what| what.starts_with("ext4 feature ")), "{refused:?}");
}

#[test]
fn a_guest_reads_as_debugfs_reads_it() {
    let Some(corpus) = corpus() else { return };
    if !has_tool("debugfs") {
        return;
    }
    let raw = corpus.join("guests/profile-debian12-vm.raw");
    let disk = Disk::open(
        &[ImageSpec::recognised(corpus.join("guests/profile-debian12-vm.qcow2"))],
        &Roots::anywhere(),
        &Limits::default(),
    )
    .unwrap();
    let file_system = disk.mount(disk.device("/dev/sda").unwrap()).unwrap();
    let tree = Tree::new(file_system, Arc::clone(disk.budget()));
    let debugfs = |request: &str| run("debugfs", &["-R", request, raw.to_str().unwrap()]);
    for path in ["/var/lib/dpkg/status", "/etc/passwd", "/usr/lib/os-release", "/usr/bin/dpkg"] {
        let found = tree.read_file(path).unwrap().unwrap();
        assert_same(&found, &debugfs(&format!("cat {path}")), path);
    }
    for path in ["/", "/etc", "/usr/bin", "/var/lib/dpkg/info"] {
        check_listing(&tree, path, &String::from_utf8(debugfs(&format!("ls -p {path}"))).unwrap());
    }
    let warnings = disk.warnings();
    assert!(warnings.is_empty(), "{warnings:?}");
}

/// `ls -p` prints `/inode/mode/uid/gid/name/size/`.
fn check_listing(tree: &Tree, path: &str, listing: &str) {
    let mut expected = BTreeMap::new();
    for line in listing.lines() {
        let fields: Vec<&str> = line.split('/').collect();
        if let [_, inode, mode, uid, gid, name, ..] = fields[..]
            && !matches!(name, "." | "..")
            && inode != "0"
        {
            let mode = u16::from_str_radix(mode, 8).unwrap() & 0o7777;
            expected
                .insert(name.to_owned(), (inode.parse().unwrap(), mode, uid.parse().unwrap(), gid.parse().unwrap()));
        }
    }
    let mut found = BTreeMap::new();
    for entry in tree.read_dir(path).unwrap().unwrap() {
        let name = String::from_utf8(entry.name).unwrap();
        let metadata = tree.symlink_metadata(format!("{path}/{name}")).unwrap().unwrap();
        assert_eq!(metadata.node, entry.node);
        found.insert(name, (metadata.node.0, metadata.mode, metadata.uid, metadata.gid));
    }
    assert_eq!(found, expected, "{path}");
}

/// Reads everything there is, and gives the number of files read and of things refused.
fn read_everything(image: Vec<u8>, limits: &Limits) -> Result<(u32, u32)> {
    let (file_system, budget) = mount(image, limits)?;
    let tree = Tree::new(file_system, budget);
    let (mut read, mut refused) = (0, 0);
    let mut piece = vec![0; 1 << 16];
    let unreadable = tree.walk("/", |entry| {
        let whole = match entry.file_type {
            FileType::Regular => entry.open().and_then(|file| match file {
                // The size of a broken file can be anything; two pieces of it tell enough.
                Some(file) => {
                    let first = file.len().min(1 << 16);
                    file.read_exact_at(&mut piece[..usize::try_from(first).unwrap()], 0)?;
                    file.read_exact_at(&mut piece[..usize::try_from(first).unwrap()], file.len() - first)
                }
                None => Ok(()),
            }),
            FileType::Symlink => entry.read_link().map(drop),
            _ => entry.metadata().map(drop),
        };
        match whole {
            Ok(()) => read += 1,
            Err(error @ Error::LimitReached { .. }) if error.is_budget_exhausted() => return Err(error),
            Err(_) => refused += 1,
        }
        Ok(WalkNext::Descend)
    })?;
    Ok((read, refused + u32::try_from(unreadable.len()).unwrap()))
}

/// e2fsprogs' tests of e2fsck: each image is broken in its own way. None may panic, hang or eat memory.
#[test]
fn broken_file_systems_end_in_an_answer() {
    let Some(corpus) = corpus() else { return };
    if !has_tool("bzip2") || !has_tool("gzip") {
        return;
    }
    let (mut whole, mut partly, mut refused) = (0, 0, 0);
    for file in std::fs::read_dir(corpus.join("hostile-ext4")).unwrap() {
        let path = file.unwrap().path();
        let image = unpacked(&path);
        let started = Instant::now();
        match read_everything(image, &Limits::default()) {
            Ok((_, 0)) => whole += 1,
            Ok(_) => partly += 1,
            Err(Error::Io { action, source }) => panic!("{}: {action}: {source}", path.display()),
            Err(_) => refused += 1,
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{} took {:?}", path.display(), started.elapsed());
    }
    println!("{whole} read whole, {partly} in part, {refused} refused");
    assert!(whole >= 50, "{whole} whole, {partly} in part, {refused} refused");
    assert!(memory_peak() < 512 << 20, "{} bytes at the peak", memory_peak());
}

/// The process's peak of resident memory in bytes.
fn memory_peak() -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Mutations of a good image: none may panic, hang or be read past its bounds.
#[test]
fn mutated_file_systems_end_in_an_answer() {
    if !has_tool("mke2fs") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("disk");
    let tree = home.path().join("tree");
    std::fs::create_dir_all(tree.join("etc/deep/er")).unwrap();
    for index in 0..200 {
        std::fs::write(tree.join(format!("etc/file-{index}")), vec![7; index * 20]).unwrap();
    }
    std::os::unix::fs::symlink("a".repeat(90), tree.join("link")).unwrap();
    let tree = tree.to_str().unwrap();
    for kind in ["ext2", "ext3", "ext4"] {
        run("mke2fs", &["-q", "-F", "-t", kind, "-O", "^metadata_csum", "-d", tree, path.to_str().unwrap(), "4M"]);
        let good = std::fs::read(&path).unwrap();
        let mut noise = support::Noise::new(11);
        for _ in 0..150 {
            let mut image = good.clone();
            for _ in 0..1 + noise.below(6) {
                // Superblock, descriptors, inode tables and directories lie in the first half megabyte.
                let at = 1024 + noise.below(512 << 10);
                image[at] = noise.next() as u8;
            }
            let started = Instant::now();
            let _ = read_everything(image, &Limits::default());
            assert!(started.elapsed() < Duration::from_secs(5));
        }
    }
}
