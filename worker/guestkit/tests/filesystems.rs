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

use guestkit::filesystem::{FileSystem, FileType, SharedFileSystem};
use guestkit::guest::{WalkEntry, WalkNext};
use guestkit::image::Roots;
use guestkit::{Budget, Disk, Error, ImageSpec, Limits, ReadAt, Result, Source, Tree};
use support::trees::{mount_within, read_ends, read_everything as read_everything_in, sha256_of};
use support::{assert_same, corpus, has_tool, run, unpacked};

fn mount(image: Vec<u8>, limits: &Limits) -> Result<(SharedFileSystem, Arc<Budget>)> {
    mount_source(Arc::new(image), limits)
}

fn mount_source(source: Source, limits: &Limits) -> Result<(SharedFileSystem, Arc<Budget>)> {
    let budget = Budget::new(limits);
    Ok((mount_within(&[source], &budget)?, budget))
}

/// An image where it lies, so that a test's memory is the reader's.
#[derive(Debug)]
struct OnDisk(std::fs::File);

impl ReadAt for OnDisk {
    fn len(&self) -> u64 {
        self.0.metadata().unwrap().len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let action = format!("reading {} bytes at {offset}", buffer.len());
        std::os::unix::fs::FileExt::read_exact_at(&self.0, buffer, offset)
            .map_err(|source| Error::Io { action, source })
    }
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
    read_everything_in(&Tree::new(file_system, budget), read_ends)
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

/// Flags of mke2fs, each with a feature that changes what lies where.
const MADE: [&str; 18] = [
    "-t ext2 -b 1024",
    "-t ext2 -b 1024 -I 128 -O ^filetype",
    "-t ext3 -b 2048 -I 128",
    "-t ext4",
    "-t ext4 -b 1024 -O ^64bit,^metadata_csum,uninit_bg",
    "-t ext4 -b 1024 -O 64bit,^metadata_csum,uninit_bg",
    "-t ext4 -O ^extent,^flex_bg,^64bit",
    "-t ext4 -O inline_data -I 1024",
    "-t ext4 -O inline_data -I 256 -b 1024",
    "-t ext4 -O bigalloc -C 16384",
    "-t ext4 -b 1024 -O bigalloc -C 8192",
    "-t ext4 -b 1024 -O meta_bg,^resize_inode",
    "-t ext4 -b 1024 -g 1024 -O meta_bg,^resize_inode,^64bit",
    "-t ext4 -b 1024 -O sparse_super2,^resize_inode -E num_backup_sb=2",
    "-t ext4 -O ea_inode,large_dir,metadata_csum_seed",
    "-t ext4 -O casefold -E encoding=utf8",
    "-t ext4 -O mmp,quota,project,encrypt,verity -I 512",
    "-t ext4 -b 65536 -O ^has_journal",
];

/// A tree with each kind of content that mke2fs copies.
fn tree_to_copy(home: &Path) -> std::path::PathBuf {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let tree = home.join("tree");
    std::fs::create_dir_all(tree.join("a/b")).unwrap();
    std::fs::create_dir_all(tree.join("many")).unwrap();
    let mut noise = support::Noise::new(5);
    for (name, length) in [("a/empty", 0), ("a/tiny", 40), ("a/small", 130), ("a/b/mid", 2_500), ("a/large", 3_000_001)]
    {
        let bytes: Vec<u8> = (0..length).map(|_| noise.next() as u8).collect();
        std::fs::write(tree.join(name), bytes).unwrap();
    }
    let sparse = std::fs::File::create(tree.join("a/sparse")).unwrap();
    for at in [70_000, 3_000_000, 5_000_000] {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"an island", at).unwrap();
    }
    for length in [1, 59, 60, 200, 900] {
        symlink("t".repeat(length), tree.join(format!("a/link-{length}"))).unwrap();
    }
    for index in 0..600 {
        std::fs::write(tree.join(format!("many/a-file-with-a-longer-name-{index}")), format!("{index}")).unwrap();
    }
    std::fs::set_permissions(tree.join("a/tiny"), std::fs::Permissions::from_mode(0o4751)).unwrap();
    let time = |seconds: i64, nanoseconds| {
        let epoch = std::time::SystemTime::UNIX_EPOCH;
        let base = if seconds < 0 {
            epoch - Duration::from_secs(seconds.unsigned_abs())
        } else {
            epoch + Duration::from_secs(seconds.unsigned_abs())
        };
        base + Duration::from_nanos(nanoseconds)
    };
    for (name, seconds) in [("a/tiny", 1_600_000_000), ("a/small", -86_400)] {
        let file = std::fs::File::options().write(true).open(tree.join(name)).unwrap();
        file.set_modified(time(seconds, 123_456_789)).unwrap();
    }
    tree
}

/// The truth is the tree that mke2fs copied, and what debugfs was told to write: devices, attributes, times past 2038.
#[test]
fn what_mke2fs_copied_reads_back_with_every_feature() {
    use std::os::unix::fs::MetadataExt as _;
    if !has_tool("mke2fs") || !has_tool("debugfs") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let source = tree_to_copy(home.path());
    let path = home.path().join("disk");
    let path = path.to_str().unwrap();
    let value = home.path().join("value");
    std::fs::write(&value, vec![b'v'; 300]).unwrap();
    let acl = home.path().join("acl");
    // Version 2; owner rw-, user 1000 r--, group r--, mask r--, others ---.
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)];
    let mut acl_bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, identifier) in entries {
        acl_bytes.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
        acl_bytes.extend(identifier.to_le_bytes());
    }
    std::fs::write(&acl, &acl_bytes).unwrap();
    let commands = home.path().join("commands");
    let text = format!(
        "mknod character c 4 5\nmknod block b 300 60000\nmknod fifo p\nset_inode_field /a/b/mid uid 100000\n\
         set_inode_field /a/b/mid gid 200000\nset_inode_field /a/b/mid crtime 20200102030405\n\
         ea_set /a/large user.one first\nea_set -f {value} /a/large user.long\nea_set /a/large trusted.t t\n\
         ea_set /a security.selinux label\nea_set -f {acl} /a/b/mid system.posix_acl_access\n",
        value = value.display(),
        acl = acl.display(),
    );
    std::fs::write(&commands, text).unwrap();
    for flags in MADE {
        let _ = std::fs::remove_file(path);
        let mut arguments = vec!["-q", "-F", "-d", source.to_str().unwrap()];
        arguments.extend(flags.split(' '));
        arguments.extend([path, "48M"]);
        run("mke2fs", &arguments);
        run("debugfs", &["-w", "-f", commands.to_str().unwrap(), path]);
        let (file_system, budget) =
            mount_source(Arc::new(OnDisk(std::fs::File::open(path).unwrap())), &Limits::default()).unwrap();
        let tree = Tree::new(Arc::clone(&file_system), budget);
        let mut seen = 0;
        let unreadable = tree
            .walk("/", |entry| {
                let inside = std::str::from_utf8(&entry.path[1..]).unwrap();
                let Ok(said) = source.join(inside).symlink_metadata() else { return Ok(WalkNext::Descend) };
                let found = entry.metadata()?;
                let what = format!("{flags}: {inside}");
                seen += 1;
                assert_eq!(u32::from(found.mode), said.mode() & 0o7777, "{what}");
                if inside != "a/b/mid" {
                    assert_eq!((found.uid, found.gid), (said.uid(), said.gid()), "{what}");
                }
                if found.file_type == FileType::Symlink {
                    let target = std::fs::read_link(source.join(inside)).unwrap();
                    assert_eq!(entry.read_link()?, target.as_os_str().as_encoded_bytes(), "{what}");
                }
                if found.file_type == FileType::Regular {
                    let expected = std::fs::read(source.join(inside)).unwrap();
                    assert_eq!(found.size, expected.len() as u64, "{what}");
                    let mut bytes = vec![1; expected.len()];
                    entry.open()?.unwrap().read_exact_at(&mut bytes, 0)?;
                    assert_same(&bytes, &expected, &what);
                    assert_eq!(found.modified.seconds, said.mtime(), "{what}");
                }
                Ok(WalkNext::Descend)
            })
            .unwrap();
        assert!(unreadable.is_empty(), "{flags}: {unreadable:?}");
        assert_eq!(seen, 600 + 10 + 3 + 1, "{flags}");
        let warnings = file_system.warnings();
        assert!(warnings.is_empty(), "{flags}: {warnings:?}");
        check_what_debugfs_wrote(&tree, &*file_system, flags, &acl_bytes);
    }
}

fn check_what_debugfs_wrote(tree: &Tree, file_system: &dyn FileSystem, flags: &str, acl: &[u8]) {
    let metadata = |path: &str| tree.symlink_metadata(path).unwrap().unwrap();
    assert_eq!(metadata("/character").device, Some((4, 5)), "{flags}");
    assert_eq!(metadata("/block").device, Some((300, 60000)), "{flags}");
    assert_eq!(metadata("/fifo").file_type, FileType::Fifo, "{flags}");
    let mid = metadata("/a/b/mid");
    assert_eq!((mid.uid, mid.gid), (100_000, 200_000), "{flags}");
    if !flags.contains("-I 128") {
        let created = mid.created.unwrap();
        assert_eq!(created.seconds, 1_577_934_245, "{flags}");
    }
    let attributes = |path: &str| -> BTreeMap<Vec<u8>, Vec<u8>> {
        let found = file_system.extended_attributes(metadata(path).node).unwrap();
        found.into_iter().map(|attribute| (attribute.name, attribute.value)).collect()
    };
    let large = attributes("/a/large");
    assert_eq!(large.len(), 3, "{flags}: {large:?}");
    assert_eq!(large[&b"user.one"[..]], b"first", "{flags}");
    assert_eq!(large[&b"user.long"[..]], [b'v'; 300], "{flags}");
    assert_eq!(large[&b"trusted.t"[..]], b"t", "{flags}");
    assert_eq!(attributes("/a")[&b"security.selinux"[..]], b"label", "{flags}");
    assert_eq!(attributes("/a/b/mid")[&b"system.posix_acl_access"[..]], acl, "{flags}");
}

/// All paths below `/` with what is told and what is in them.
fn everything(image: Vec<u8>) -> (BTreeMap<Vec<u8>, serde_json::Value>, Vec<String>) {
    let (file_system, budget) = mount(image, &Limits::default()).unwrap();
    let mut found = BTreeMap::new();
    let tree = Tree::new(Arc::clone(&file_system), budget);
    let unreadable = tree.walk("/", |entry| {
        found.insert(entry.path.to_vec(), describe(entry));
        Ok(WalkNext::Descend)
    });
    let unreadable = unreadable.unwrap();
    assert!(unreadable.is_empty(), "{unreadable:?}");
    (found, file_system.warnings())
}

/// debugfs writes transactions over the blocks of a file, with a copy that looks like a block of the journal, and blocks
/// that are revoked and written again; e2fsck replays them.
#[test]
fn journals_of_every_version_are_replayed_as_by_e2fsck() {
    if !["mke2fs", "debugfs", "e2fsck"].into_iter().all(has_tool) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let source = tree_to_copy(home.path());
    let path = home.path().join("disk");
    let path = path.to_str().unwrap();
    let file = |name: &str, bytes: Vec<u8>| {
        let path = home.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let three = file("three", vec![1; 3 * 1024]);
    let escaped = file("escaped", [0xc03b_3998_u32.to_be_bytes().to_vec(), vec![2; 1020]].concat());
    let one = file("one", vec![3; 1024]);
    for (version, bits) in [
        ("", "^64bit"),
        ("", "64bit"),
        ("-c -v 2", "^64bit"),
        ("-c -v 2", "64bit"),
        ("-c -v 3", "^64bit"),
        ("-c -v 3", "64bit"),
    ] {
        let _ = std::fs::remove_file(path);
        let arguments =
            ["-q", "-F", "-t", "ext4", "-b", "1024", "-O", bits, "-d", source.to_str().unwrap(), path, "16M"];
        run("mke2fs", &arguments);
        let blocks = String::from_utf8(run("debugfs", &["-R", "blocks /a/large", path])).unwrap();
        let blocks: Vec<&str> = blocks.split_whitespace().collect();
        let [a, b, c, d] = [blocks[4], blocks[5], blocks[6], blocks[7]];
        let commands = file(
            "commands",
            format!(
                "jo {version}\njw -b {a},{b},{c} {three}\njw -b {d} {escaped}\njw -r {a}\njw -b {b} {one}\njw -b {c} -r {b} {one}\njc\n"
            )
            .into_bytes(),
        );
        run("debugfs", &["-w", "-f", &commands, path]);
        let dirty = std::fs::read(path).unwrap();
        let replayed = |image: &[u8]| {
            std::fs::write(path, image).unwrap();
            // It ends with 1 where it has changed something.
            let output = std::process::Command::new("e2fsck").args(["-fy", path]).output().unwrap();
            assert!(output.status.code().is_some_and(|code| code < 4), "{output:?}");
            everything(std::fs::read(path).unwrap()).0
        };
        let expected = replayed(&dirty);
        let (found, warnings) = everything(dirty.clone());
        assert!(warnings.is_empty(), "{version} {bits}: {warnings:?}");
        assert_eq!(found, expected, "{version} {bits}");
        let without = [&dirty[..1024 + 0x60], &[dirty[1024 + 0x60] & !4], &dirty[1024 + 0x61..]].concat();
        if version != "-c -v 3" || bits != "64bit" {
            continue;
        }
        // Whatever block of the log is broken: what e2fsck makes of it, or the state before with a word.
        let before = {
            let mut image = without;
            let sum = !crc32c(&image[1024..1024 + 0x3fc]);
            image[1024 + 0x3fc..1024 + 0x400].copy_from_slice(&sum.to_le_bytes());
            everything(image).0
        };
        assert_ne!(before, expected);
        let log = String::from_utf8(run("debugfs", &["-R", "blocks <8>", path])).unwrap();
        for block in log.split_whitespace().take(16) {
            let at = block.parse::<usize>().unwrap() * 1024;
            let mut broken = dirty.clone();
            broken[at + 14] ^= 0x55;
            let (found, warnings) = everything(broken.clone());
            let is_told = !warnings.is_empty();
            assert!(is_told || found == expected, "block {block}");
            if found != before {
                assert_eq!(found, replayed(&broken), "block {block}: {warnings:?}");
            }
        }
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 0 { sum >> 1 } else { (sum >> 1) ^ 0x82f6_3b78 })
    }) ^ u32::MAX
}

/// What is lost at the front of a device is found in its copies, with a word; the truth is the device before.
#[test]
fn lost_superblocks_and_descriptors_are_found_in_their_copies() {
    if !has_tool("mke2fs") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let source = tree_to_copy(home.path());
    let path = home.path().join("disk");
    for flags in [
        "-t ext2 -b 1024",
        "-t ext4 -b 1024",
        "-t ext4 -b 1024 -g 2048 -O ^64bit",
        "-t ext4 -b 1024 -O meta_bg,^resize_inode",
    ] {
        let _ = std::fs::remove_file(&path);
        let mut arguments = vec!["-q", "-F", "-d", source.to_str().unwrap()];
        arguments.extend(flags.split(' '));
        arguments.extend([path.to_str().unwrap(), "20M"]);
        run("mke2fs", &arguments);
        let good = std::fs::read(&path).unwrap();
        let (expected, warnings) = everything(good.clone());
        assert!(warnings.is_empty(), "{flags}: {warnings:?}");
        let mut damaged = vec![("the number of inodes", 1024, 4, 0xff), ("the descriptors", 2048, 1024, 0)];
        if !flags.contains("-g") {
            damaged.push(("the whole superblock", 1024, 1024, 0));
        }
        for (what, at, length, byte) in damaged {
            let mut image = good.clone();
            image[at..at + length].fill(byte);
            let (found, warnings) = everything(image);
            assert!(!warnings.is_empty(), "{flags}: {what}");
            assert_eq!(found, expected, "{flags}: {what}");
        }
    }
}

/// The truth is ferrosys, a reader by somebody else: lengths, modes, owners and times of everything it can open.
#[test]
fn another_reader_sees_the_same() {
    use ferrosys::ext::{OpenOptions, ReadPolicy, Reader};
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("fs-matrix");
    let (mut images, mut compared) = (0, 0);
    for file in std::fs::read_dir(&folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        if !name.starts_with("ext4_") {
            continue;
        }
        let packed = std::fs::read(folder.join(&name)).unwrap();
        let mut image = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(packed.as_slice()), &mut image).unwrap();
        let options = OpenOptions::new().policy(ReadPolicy::Lenient);
        let Ok(mut other) = Reader::open_with(std::io::Cursor::new(image.clone()), &options) else { continue };
        let (file_system, budget) = mount(image, &Limits::default()).unwrap();
        images += 1;
        Tree::new(Arc::clone(&file_system), budget)
            .walk("/", |entry| {
                let found = entry.metadata()?;
                let inode = other.inode(u32::try_from(found.node.0).unwrap()).unwrap();
                let said = other.metadata(&inode);
                assert_eq!(found.size, inode.size, "{name}: {:?}", entry.path);
                assert_eq!((found.mode, found.uid, found.gid), (said.mode, said.uid, said.gid), "{name}");
                let times = [said.mtime, said.ctime].map(|time| (time.secs, time.nanos));
                let ours = [found.modified, found.changed].map(|time| (time.seconds, time.nanoseconds));
                assert_eq!(ours, times, "{name}: {:?}", entry.path);
                compared += 1;
                Ok(WalkNext::Descend)
            })
            .unwrap();
    }
    println!("{images} images, {compared} files");
    assert!(images >= 8 && compared > 60, "{images} images, {compared} files");
}
