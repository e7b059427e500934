//! NTFS; the truth is ntfs-3g's reading of volumes that it wrote, that mkfs.ntfs3 made, and of a guest of libguestfs's.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use guestkit::filesystem::{self, FileType, Metadata, NodeId, SharedFileSystem, Timestamp};
use guestkit::guest::WalkNext;
use guestkit::image::Roots;
use guestkit::{Budget, Disk, Error, ImageSpec, Limits, Result, Source, Tree};
use serde_json::{Value, json};
use support::trees::sha256;
use support::{corpus, has_tool, unpacked};

/// The root directory's record.
const ROOT: NodeId = NodeId(5);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ntfs").join(name)
}

/// A volume of `fixtures/ntfs` and what it holds; `None` where it cannot be unpacked here.
fn volume(name: &str) -> Option<(Vec<u8>, Value)> {
    if !has_tool("zstd") {
        return None;
    }
    let truth: Value = serde_json::from_slice(&unpacked(&fixture(&format!("{name}.json.zst")))).unwrap();
    let mut image = unpacked(&fixture(&format!("{name}.img.zst")));
    let upcase = usize::try_from(truth["upcase_at"].as_u64().unwrap()).unwrap();
    for (place, unit) in (0_u16..=u16::MAX).zip(image[upcase..].chunks_exact_mut(2)) {
        let taken_off = u16::from_le_bytes(unit.try_into().unwrap());
        unit.copy_from_slice(&taken_off.wrapping_add(place).to_le_bytes());
    }
    Some((image, truth))
}

fn mount(image: Vec<u8>) -> Result<(SharedFileSystem, Arc<Budget>)> {
    let budget = Budget::new(&Limits::default());
    let source: Source = Arc::new(image);
    let probe = filesystem::probe(&*source)?.ok_or_else(|| Error::Unsupported { what: "nothing recognised".into() })?;
    assert_eq!(probe.kind, "ntfs");
    Ok((filesystem::mount(&[source], &probe, &budget)?, budget))
}

fn contents(file_system: &SharedFileSystem, metadata: &Metadata) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(metadata.size).unwrap()];
    // Pieces that fit no structure's size.
    let mut at = 0;
    for piece in bytes.chunks_mut(33_333) {
        assert_eq!(file_system.read(metadata.node, piece, at)?, piece.len());
        at += piece.len() as u64;
    }
    let mut whole = vec![0; bytes.len()];
    assert_eq!(file_system.read(metadata.node, &mut whole, 0)?, bytes.len());
    assert!(whole == bytes, "the same in pieces and as a whole");
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn nanoseconds(time: Timestamp) -> i64 {
    time.seconds * 1_000_000_000 + i64::from(time.nanoseconds)
}

/// What the truth says of a file, as we see it.
fn describe(file_system: &SharedFileSystem, node: NodeId) -> Value {
    let metadata = file_system.metadata(node).unwrap();
    let kind = match metadata.file_type {
        FileType::Regular => "file",
        FileType::Directory => "dir",
        FileType::Symlink => "link",
        FileType::BlockDevice => "block",
        FileType::CharacterDevice => "character",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
    };
    let mut all = json!({
        "type": kind,
        "ino": metadata.node.0,
        "mode": metadata.mode,
        "uid": metadata.uid,
        "gid": metadata.gid,
        "nlink": metadata.links,
        "mtime_ns": nanoseconds(metadata.modified),
        "atime_ns": nanoseconds(metadata.accessed.unwrap()),
        "ctime_ns": nanoseconds(metadata.changed),
    });
    match metadata.file_type {
        FileType::Regular => {
            all["size"] = metadata.size.into();
            match contents(file_system, &metadata) {
                Ok(bytes) => all["sha256"] = sha256(&bytes).into(),
                Err(Error::Unsupported { .. }) => all["refused"] = true.into(),
                Err(other) => panic!("{node:?}: {other}"),
            }
        }
        FileType::Symlink => {
            let target = file_system.read_link(node).unwrap();
            assert_eq!(target.len() as u64, metadata.size);
            all["size"] = metadata.size.into();
            all["target"] = String::from_utf8(target).unwrap().into();
        }
        _ => {}
    }
    if let Some((major, minor)) = metadata.device {
        all["device"] = json!([major, minor]);
    }
    match file_system.extended_attributes(node) {
        Ok(found) if found.is_empty() => {}
        // ntfs-3g can neither list nor give out what is longer than an attribute of Linux.
        Ok(found) if found.iter().any(|one| one.name.starts_with(b"system.ntfs_stream_bytes.")) => {
            all["xattrs"] = "too large".into();
        }
        Ok(found) => {
            all["xattrs"] = found
                .into_iter()
                .map(|one| (String::from_utf8(one.name).unwrap(), Value::from(hex(&one.value))))
                .collect::<serde_json::Map<_, _>>()
                .into();
        }
        Err(other) => panic!("{node:?}: {other}"),
    }
    all
}

/// All paths below the root, each once, with what they name.
fn walk(file_system: &SharedFileSystem, budget: &Arc<Budget>) -> BTreeMap<String, Value> {
    let tree = Tree::new(Arc::clone(file_system), Arc::clone(budget));
    let mut paths = Vec::new();
    let unreadable = tree.walk("/", |entry| {
        paths.push((String::from_utf8(entry.path.to_vec()).unwrap(), entry.file_type));
        Ok(WalkNext::Descend)
    });
    assert!(unreadable.unwrap().is_empty());
    let mut found = BTreeMap::new();
    for (path, file_type) in paths {
        // By path, so that each name is looked up as well as listed.
        let metadata = tree.symlink_metadata(&path).unwrap().unwrap();
        assert_eq!(metadata.file_type, file_type, "{path}");
        assert!(found.insert(path[1..].to_owned(), describe(file_system, metadata.node)).is_none(), "{path} twice");
    }
    found
}

fn check_volume(image: Vec<u8>, truth: &Value) -> SharedFileSystem {
    let (file_system, budget) = mount(image).unwrap();
    let info = file_system.info().clone();
    assert_eq!(info.label.as_deref(), Some("fixture ü"));
    assert_eq!(
        (info.size_bytes, info.free_bytes),
        (truth["size_bytes"].as_u64().unwrap(), truth["free_bytes"].as_u64().unwrap())
    );
    assert!(file_system.warnings().is_empty(), "{:?}", file_system.warnings());
    let found = walk(&file_system, &budget);
    let expected = truth["tree"].as_object().unwrap();
    for (path, said) in expected {
        let one = found.get(path).unwrap_or_else(|| panic!("{path} is missing"));
        for (key, value) in said.as_object().unwrap() {
            assert_eq!(&one[key], value, "{path}: {key} of {one}");
        }
        for key in ["xattrs", "refused"] {
            assert_eq!(one.get(key).is_some(), said.get(key).is_some(), "{path}: {key} of {one}");
        }
    }
    assert_eq!(found.len(), expected.len());
    file_system
}

#[test]
fn volumes_of_ntfs_3g_read_as_it_reads_them() {
    for file in std::fs::read_dir(fixture("")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".img.zst") else { continue };
        let Some((image, truth)) = volume(name) else { return };
        println!("{name}");
        check_volume(image, &truth);
    }
}

/// Every file that ntfs-3g writes has a descriptor, its own or one that it shares: revision 1, self-relative, an owner.
#[test]
fn security_descriptors_are_told_as_they_are() {
    let Some((image, _)) = volume("features") else { return };
    let (file_system, _) = mount(image).unwrap();
    let mut nodes = vec![file_system.root()];
    let mut count = 0;
    while let Some(node) = nodes.pop() {
        let descriptor = file_system.security_descriptor(node).unwrap().unwrap();
        assert_eq!((descriptor[0], descriptor[3] & 0x80), (1, 0x80), "{}", hex(&descriptor));
        let owner = u32::from_le_bytes(descriptor[4..8].try_into().unwrap()) as usize;
        assert_eq!(descriptor[owner], 1, "{}", hex(&descriptor));
        count += 1;
        if file_system.metadata(node).unwrap().file_type == FileType::Directory {
            nodes.extend(file_system.read_dir(node).unwrap().into_iter().map(|entry| entry.node));
        }
    }
    assert!(count > 10);
}

#[test]
fn names_are_found_whatever_their_case_and_streams_behind_a_colon() {
    let Some((image, truth)) = volume("features") else { return };
    let (file_system, _) = mount(image).unwrap();
    let lookup = |directory: NodeId, name: &str| file_system.lookup(directory, name.as_bytes()).unwrap();
    let record = |path: &str| truth["tree"][path]["ino"].as_u64().map(NodeId);
    for (name, path) in
        [("WINDOWS", "Windows"), ("hello WÖRLD 😀.TXT", "hello wörld 😀.txt"), ("alongn~1.doc", "a long name.document")]
    {
        assert_eq!(lookup(ROOT, name), record(path), "{name}");
    }
    let case = record("case").unwrap();
    for name in ["same", "Same", "SAME"] {
        assert_eq!(lookup(case, name), record(&format!("case/{name}")));
    }
    assert!(lookup(case, "sAME").is_some());
    assert_eq!(lookup(case, "sames"), None);
    assert_eq!(lookup(ROOT, "$mft"), Some(NodeId(0)), "hidden, and found by its name");
    let extend = lookup(ROOT, "$Extend").unwrap();
    assert!(lookup(extend, "$ObjId").is_some());
    assert_eq!(file_system.lookup(ROOT, b"\xff").unwrap(), None);

    let stream = lookup(ROOT, "STREAMS:zone.identifier").unwrap();
    let metadata = file_system.metadata(stream).unwrap();
    assert_eq!(metadata.file_type, FileType::Regular);
    assert_eq!(contents(&file_system, &metadata).unwrap(), b"[ZoneTransfer]\r\nZoneId=3\r\n");
    let big = file_system.metadata(lookup(ROOT, "big stream:big").unwrap()).unwrap();
    assert_eq!(contents(&file_system, &big).unwrap(), b"a long stream ".repeat(7000));
    let told = file_system.extended_attributes(record("big stream").unwrap()).unwrap();
    let told: Vec<_> = told.iter().map(|one| (one.name.as_slice(), one.value.as_slice())).collect();
    assert_eq!(told, [(b"system.ntfs_stream_bytes.big".as_slice(), b"98000".as_slice())]);
    let directory = record("dir with stream").unwrap();
    assert_eq!(lookup(directory, ":info"), lookup(ROOT, "dir with stream:info"));
    for name in ["streams:", "streams:no", "no:stream", ":", "dir with stream:info:x"] {
        assert_eq!(lookup(ROOT, name), None, "{name}");
    }
    let stray = NodeId(record("streams").unwrap().0 | 9 << 48);
    assert!(matches!(file_system.metadata(stray), Err(Error::Corrupt { .. })));
}

/// Where the boot sector says that the MFT and its mirror lie.
fn places(image: &[u8]) -> (usize, usize) {
    let cluster = usize::from(u16::from_le_bytes(image[11..13].try_into().unwrap())) * usize::from(image[13]);
    let place = |at: usize| usize::try_from(u64::from_le_bytes(image[at..at + 8].try_into().unwrap())).unwrap();
    (place(48) * cluster, place(56) * cluster)
}

#[test]
fn what_is_broken_or_unwritten_is_said() {
    let Some((image, truth)) = volume("features") else { return };
    let (mft, mirror) = places(&image);
    let broken = |at: usize, bytes: &[u8]| {
        let mut image = image.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        image
    };
    let warnings = |image: Vec<u8>| mount(image).unwrap().0.warnings();

    // The first record, and that of $Volume, come from the mirror.
    for record in [0, 3] {
        let found = warnings(broken(mft + record * 1024, b"BAAD"));
        assert!(found.len() == 1 && found[0].contains("$MFTMirr"), "{found:?}");
    }
    let mut both = broken(mft, b"BAAD");
    both[mirror + 510] ^= 1;
    assert!(matches!(mount(both), Err(Error::Corrupt { .. })), "a mirror that was not written whole");

    // The boot sector comes from the end of the volume, unless what stands in its place is another's.
    let found = warnings(broken(0, &[0; 512]));
    assert!(found.len() == 1 && found[0].contains("its copy at the end"), "{found:?}");
    let found = warnings(broken(13, &[0]));
    assert!(found.len() == 1 && found[0].contains("clusters have no sound size"), "{found:?}");
    let mut record = [0; 512];
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    assert_eq!(guestkit::filesystem::probe(&broken(0, &record)).unwrap(), None);

    // $VOLUME_INFORMATION: the version 3.1, then the flags.
    let volume = mft + 3 * 1024;
    let version = image[volume..volume + 1024].windows(4).position(|bytes| bytes == [3, 1, 0, 0]).unwrap();
    let found = warnings(broken(volume + version + 2, &[1]));
    assert!(found.len() == 1 && found[0].contains("dirty"), "{found:?}");
    assert!(matches!(mount(broken(volume + version, &[4])), Err(Error::Unsupported { .. })));
    assert!(warnings(broken(volume + version, &[1, 2])).is_empty(), "Windows NT 4");

    // A restart page with a client in it.
    let log = image.windows(4096).step_by(512).position(|page| page.iter().all(|byte| *byte == 0xff)).unwrap() * 512;
    let mut page = vec![0; 4096];
    page[..8].copy_from_slice(b"RSTR\x1e\0\x09\0");
    page[16..24].copy_from_slice(&[0, 16, 0, 0, 0, 16, 0, 0]);
    page[24..26].copy_from_slice(&[0x30, 0]);
    page[0x30] = 9;
    let found = warnings(broken(log, &page));
    assert!(found.len() == 1 && found[0].contains("$LogFile"), "{found:?}");
    page[0x30 + 12..0x30 + 14].copy_from_slice(&[0xff, 0xff]);
    assert!(warnings(broken(log, &page)).is_empty());
    page[0x30 + 12..0x30 + 16].copy_from_slice(&[0, 0, 2, 0]);
    assert!(warnings(broken(log, &page)).is_empty());

    // A volume longer than its device reads as far as it goes.
    let found = warnings(image[..image.len() - 100_000].to_vec());
    assert!(found.len() == 1 && found[0].contains("its device only"), "{found:?}");

    // A record that another file has by now.
    let number = truth["tree"]["plain.bin"]["ino"].as_u64().unwrap() as usize;
    let (file_system, _) = mount(broken(mft + number * 1024 + 16, &[77])).unwrap();
    assert!(matches!(file_system.lookup(ROOT, b"plain.bin"), Err(Error::Corrupt { .. })));
}

/// `truth/trees.json`: what ntfs-3g saw, mounted read-only.
#[test]
fn the_volume_of_the_ntfs_crate_reads_as_by_ntfs_3g() {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("fs-ntfs");
    let truth: Value = serde_json::from_slice(&std::fs::read(folder.join("truth/trees.json")).unwrap()).unwrap();
    for (name, said) in truth.as_object().unwrap() {
        let (file_system, budget) = mount(std::fs::read(folder.join(name)).unwrap()).unwrap();
        assert_eq!(file_system.info().label.as_deref(), said["blkid"]["LABEL"].as_str());
        assert_eq!(file_system.info().uuid.as_deref(), said["blkid"]["UUID"].as_str());
        let found = walk(&file_system, &budget);
        let entries = said["tree"].as_array().unwrap();
        for entry in entries {
            let path = entry["path"].as_str().unwrap();
            let one = found.get(path).unwrap_or_else(|| panic!("{name}: {path} is missing"));
            let kind = if one["type"] == "dir" { 0o040_000 } else { 0o100_000 };
            let mode = format!("0o{:o}", kind | one["mode"].as_u64().unwrap());
            assert_eq!(entry["mode"], mode.as_str(), "{name}: {path}");
            assert_eq!(entry["mtime"], one["mtime_ns"].as_i64().unwrap() / 1_000_000_000, "{name}: {path}");
            for key in ["ino", "uid", "gid", "nlink", "size", "sha256", "target"] {
                if let Some(value) = entry.get(key) {
                    assert_eq!(&one[key], value, "{name}: {path}: {key}");
                }
            }
        }
        assert_eq!(found.len(), entries.len(), "{name}");
    }
}

/// `truth/tree.json` and `truth/check.tsv`: the files that every image was made with, and where their link leads.
#[test]
fn the_matrix_of_mkfs_flags_reads_whole() {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("fs-matrix");
    let truth: Value = serde_json::from_slice(&std::fs::read(folder.join("truth/tree.json")).unwrap()).unwrap();
    let mut read = 0;
    for line in std::fs::read_to_string(folder.join("truth/check.tsv")).unwrap().lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        if !fields[0].starts_with("ntfs") {
            continue;
        }
        let packed = std::fs::read(folder.join(fields[0])).unwrap();
        let mut image = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(packed.as_slice()), &mut image).unwrap();
        let (file_system, budget) = mount(image).unwrap();
        let found = walk(&file_system, &budget);
        for (path, said) in truth["files"].as_object().unwrap() {
            let one = &found[path];
            assert_eq!(one["size"], said["size"], "{}: {path}", fields[0]);
            if let Some(hash) = said["sha256"].as_str() {
                assert_eq!(one["sha256"], hash, "{}: {path}", fields[0]);
            }
        }
        let file1 = &found["file1"];
        assert_eq!(file1["sha256"], sha256(b"syzkallers"), "{}", fields[0]);
        for (name, value) in [("user.xattr1", "xattr1"), ("user.xattr2", "xattr2")] {
            assert_eq!(file1["xattrs"][name], hex(value.as_bytes()), "{}: {file1}", fields[0]);
        }
        assert_eq!(found["file2"]["ino"], found["file3"]["ino"], "{}", fields[0]);
        let link = &found["file0/file1"];
        assert_eq!(link["type"], "link", "{}: {link}", fields[0]);
        // ntfs-3g does not show the links of the kernel's driver; all lead to a folder of the same name.
        let target = link["target"].as_str().unwrap();
        assert!(target.starts_with("/tmp/syz-imagegen") && target.ends_with("/file0/file0"), "{target}");
        if let Some((_, said)) = fields[7].split_once("symlink->/") {
            assert_eq!(target.strip_prefix('/'), Some(said), "{}", fields[0]);
        }
        read += 1;
    }
    assert_eq!(read, 16);
}

#[test]
fn a_guests_hives_are_there_whatever_case_is_asked_for() {
    let Some(corpus) = corpus() else { return };
    let image = corpus.join("phony/windows.qcow2");
    let disk = Disk::open(&[ImageSpec::recognised(image)], &Roots::anywhere(), &Limits::default()).unwrap();
    let file_system = disk.mount(disk.device("/dev/sda2").unwrap()).unwrap();
    assert_eq!(file_system.info().uuid.as_deref(), Some("5BF8AA4710F7348A"));
    let tree = Tree::new(Arc::clone(&file_system), Arc::clone(disk.budget()));
    for path in ["/Windows/System32/config/SOFTWARE", "/WINDOWS/system32/Config/system"] {
        assert!(tree.read_file(path).unwrap().unwrap().starts_with(b"regf"), "{path}");
    }
    assert!(walk(&file_system, disk.budget()).contains_key("Windows/System32/Config/SYSTEM"));
}

/// Reads everything there is; whatever it meets, it ends.
fn read_everything(image: Vec<u8>) -> Result<()> {
    let (file_system, budget) = mount(image)?;
    let tree = Tree::new(Arc::clone(&file_system), budget);
    let mut nodes = Vec::new();
    tree.walk("/", |entry| {
        nodes.push(entry.metadata());
        Ok(WalkNext::Descend)
    })?;
    let mut piece = vec![0; 1 << 16];
    for metadata in nodes.into_iter().flatten() {
        let _ = file_system.extended_attributes(metadata.node);
        let _ = file_system.security_descriptor(metadata.node);
        let _ = match metadata.file_type {
            FileType::Symlink => file_system.read_link(metadata.node).map(drop),
            _ => file_system.read(metadata.node, &mut piece, 0).map(drop),
        };
        let _ = file_system.read(metadata.node, &mut piece, metadata.size / 2);
    }
    let _ = file_system.info();
    Ok(())
}

#[test]
fn truncated_volumes_end_in_an_answer() {
    let Some((image, _)) = volume("features") else { return };
    for length in (0..40).map(|part| image.len() * part / 40 + part) {
        let started = Instant::now();
        let _ = read_everything(image[..length].to_vec());
        assert!(started.elapsed() < Duration::from_secs(5), "{length} took {:?}", started.elapsed());
    }
}

#[test]
fn mutated_volumes_end_in_an_answer() {
    for name in ["features", "pieces"] {
        let Some((good, truth)) = volume(name) else { return };
        let upcase = usize::try_from(truth["upcase_at"].as_u64().unwrap()).unwrap();
        // Where a byte stands that is not that of free space; the table of capitals is large and dull.
        let used: Vec<usize> = (0..good.len())
            .filter(|at| !matches!(good[*at], 0 | 0xff) && at.abs_diff(upcase + (1 << 16)) > 1 << 16)
            .collect();
        let mut noise = support::Noise::new(23);
        let (mut mounted, started) = (0, Instant::now());
        let mut mutants = 0;
        while mutants < 150 && started.elapsed() < Duration::from_secs(10) {
            let mut image = good.clone();
            for _ in 0..1 + noise.below(40) {
                let at = used[noise.below(used.len())];
                image[at] = match noise.below(3) {
                    0 => noise.next() as u8,
                    1 => image[at].wrapping_add(1),
                    _ => image[at] ^ (1 << noise.below(8)),
                };
            }
            let one = Instant::now();
            mounted += u32::from(read_everything(image).is_ok());
            assert!(one.elapsed() < Duration::from_secs(5), "{:?}", one.elapsed());
            mutants += 1;
        }
        println!("{name}: {mutants} mutants, {mounted} mounted");
        assert!(mounted > 0);
    }
}
