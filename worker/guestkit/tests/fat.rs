//! FAT and exFAT; the truth is mtools' and the kernel's reading of them, and what mkfs.vfat and mkfs.exfat make.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use guestkit::Error;
use guestkit::filesystem::FileType;
use support::trees::{Found, fixture, mount, mutate, sha256, walk};
use support::{Noise, corpus, has_tools, run};

/// `truth/trees.json`: what mtools gives of the images of a library's tests.
#[test]
fn fat_trees_are_what_mtools_sees() {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("fs-fat");
    let truth: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("truth/trees.json")).unwrap()).unwrap();
    for (name, said) in truth.as_object().unwrap() {
        let tree = mount(std::fs::read(folder.join(name)).unwrap()).unwrap();
        let (_, file_system) = tree.mounts().next().unwrap();
        assert_eq!(file_system.info().label.as_deref(), said["blkid"]["LABEL"].as_str(), "{name}");
        let found = walk(&tree);
        let entries = said["tree"].as_array().unwrap();
        assert_eq!(found.len(), entries.len(), "{name}");
        for entry in entries {
            let path = entry["path"].as_str().unwrap();
            let found = &found[path];
            let is_directory = found.metadata.file_type == FileType::Directory;
            assert_eq!(is_directory, entry["mode"] == "dir", "{name}: {path}");
            assert_eq!(found.sha256.as_deref(), entry["sha256"].as_str(), "{name}: {path}");
            assert_eq!((found.metadata.mode, found.metadata.uid), (0o755, 0), "{name}: {path}");
        }
    }
}

/// `truth/tree.json`, confirmed by sleuthkit or Linux where the column `result` begins with "tree OK"; of
/// the others Linux reads none, and what is read must be right nevertheless.
#[test]
fn the_matrix_of_mkfs_vfat_reads_whole() {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("fs-matrix");
    let truth: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("truth/tree.json")).unwrap()).unwrap();
    let mut wrong = Vec::new();
    let mut read = 0;
    for line in std::fs::read_to_string(folder.join("truth/check.tsv")).unwrap().lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        if !fields[0].starts_with("vfat_") {
            continue;
        }
        let packed = std::fs::read(folder.join(fields[0])).unwrap();
        let mut image = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(packed.as_slice()), &mut image).unwrap();
        let tree = match mount(image) {
            Ok(tree) => tree,
            Err(error) if fields[7].starts_with("tree OK") => {
                wrong.push(format!("{}: {error}", fields[0]));
                continue;
            }
            Err(_) => continue,
        };
        let found = walk(&tree);
        for (path, said) in truth["files"].as_object().unwrap() {
            // FAT has no hard links.
            let (Some(sha256), false) = (said["sha256"].as_str(), path == "file3") else { continue };
            if found.get(path).and_then(|found| found.sha256.as_deref()) != Some(sha256) {
                wrong.push(format!("{}: {path}", fields[0]));
            }
        }
        read += 1;
    }
    println!("{read} read");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(read >= 20);
}

/// Names and contents to fill a volume with: long and short names, empty and large files, a directory of many clusters.
fn files() -> BTreeMap<String, Vec<u8>> {
    let mut noise = Noise::new(5);
    let mut files = BTreeMap::new();
    for (path, length) in [
        ("PLAIN.TXT", 12),
        ("lower.txt", 700),
        ("Mixed Case and long.conf", 70_000),
        ("empty", 0),
        ("EFI/BOOT/BOOTX64.EFI", 300_000),
        ("EFI/debian/grub.cfg", 131),
        ("Grüße/日本語.txt", 4096),
    ] {
        files.insert(path.to_owned(), noise.disk(length));
    }
    for index in 0..300 {
        let length = noise.below(900);
        files.insert(format!("many/a file with a name of its own {index}"), noise.disk(length));
    }
    files
}

fn lay_out(folder: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (path, contents) in files {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
    }
}

fn check_contents(found: &BTreeMap<String, Found>, files: &BTreeMap<String, Vec<u8>>, what: &str) {
    let is_file = |found: &&Found| found.metadata.file_type == FileType::Regular;
    assert_eq!(found.values().filter(is_file).count(), files.len(), "{what}");
    for (path, contents) in files {
        let found = found.get(path).unwrap_or_else(|| panic!("{what}: {path} is missing"));
        assert_eq!(found.sha256.as_deref(), Some(sha256(contents).as_str()), "{what}: {path}");
        assert_eq!(found.metadata.size, contents.len() as u64, "{what}: {path}");
    }
}

/// Every type, with small and large sectors and clusters, filled by mtools and in part deleted again.
#[test]
fn volumes_that_mtools_fills_read_whole() {
    if !has_tools(&["mkfs.vfat", "mcopy", "mdel", "mattrib"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let files = files();
    let folder = home.path().join("tree");
    lay_out(&folder, &files);
    std::fs::write(home.path().join("gone with a long name"), vec![1; 50_000]).unwrap();
    for (what, kilobytes, options) in [
        ("FAT12", 4_000, "-F 12"),
        ("FAT12, clusters of 32 KiB", 60_000, "-F 12 -s 64"),
        ("FAT16", 20_000, "-F 16"),
        ("FAT16, sectors of 4096, clusters of 64 KiB", 300_000, "-F 16 -S 4096 -s 16"),
        ("FAT32", 70_000, "-F 32"),
        ("FAT32, sectors of 2048", 200_000, "-F 32 -S 2048"),
        ("FAT32, clusters of 4 KiB", 300_000, "-F 32 -s 8"),
        ("one table", 40_000, "-F 32 -f 1"),
    ] {
        let image = home.path().join("disk");
        let path = image.to_str().unwrap();
        let _ = std::fs::remove_file(&image);
        let size = kilobytes.to_string();
        let mut arguments = vec!["-C", "-n", "ESP LABEL", "-i", "1234abcd"];
        arguments.extend(options.split(' '));
        run("mkfs.vfat", &[arguments.as_slice(), &[path, size.as_str()]].concat());
        let mtools = |tool: &str, arguments: &[&str]| {
            let output = Command::new(tool)
                .env("MTOOLS_SKIP_CHECK", "1")
                .env("MTOOLSRC", "/dev/null")
                .env("LC_ALL", "C.UTF-8")
                .args(["-i", path])
                .args(arguments)
                .output()
                .unwrap();
            assert!(output.status.success(), "{what}: {tool}: {}", String::from_utf8_lossy(&output.stderr));
        };
        mtools("mcopy", &[home.path().join("gone with a long name").to_str().unwrap(), "::"]);
        for entry in std::fs::read_dir(&folder).unwrap() {
            mtools("mcopy", &["-s", "-m", entry.unwrap().path().to_str().unwrap(), "::"]);
        }
        mtools("mdel", &["::gone with a long name"]);
        mtools("mattrib", &["+r", "::lower.txt"]);

        let bytes = std::fs::read(&image).unwrap();
        let tree = mount(bytes.clone()).unwrap();
        let (_, file_system) = tree.mounts().next().unwrap();
        let info = file_system.info();
        assert_eq!(info.label.as_deref(), Some("ESP LABEL"), "{what}");
        assert_eq!(info.uuid.as_deref(), Some("1234-ABCD"), "{what}");
        assert!(file_system.warnings().is_empty(), "{what}: {:?}", file_system.warnings());
        // `minfo` and `mdir` round; fsck.vfat counts clusters.
        let counted = run("fsck.vfat", &["-n", "-v", path]);
        check_free(&String::from_utf8_lossy(&counted), info.free_bytes, what);

        let found = walk(&tree);
        check_contents(&found, &files, what);
        assert_eq!(found["lower.txt"].metadata.mode, 0o555, "{what}");
        assert_eq!(found["PLAIN.TXT"].metadata.mode, 0o755, "{what}");
        // `-m` keeps the time, in steps of two seconds, and mtools writes it in the zone that we run in.
        let kept = std::fs::metadata(folder.join("PLAIN.TXT")).unwrap();
        let kept = std::os::unix::fs::MetadataExt::mtime(&kept);
        if std::env::var_os("TZ").is_none_or(|zone| zone == "UTC") && !Path::new("/etc/timezone").exists() {
            assert!((kept - found["PLAIN.TXT"].metadata.modified.seconds).abs() <= 2, "{what}");
        }
        for name in ["/efi/boot/bootx64.efi", "/GRÜßE/日本語.TXT", "/MIXEDC~1.CON"] {
            assert!(tree.open(name).unwrap().is_some(), "{what}: {name}");
        }
        assert!(tree.open("/gone with a long name").unwrap().is_none(), "{what}");
        if bytes.len() < 5 << 20 {
            mutate(&bytes, 60_000, 100, 3);
        }
    }
}

/// `fsck.vfat -v` ends with `…: N files, USED/ALL clusters`.
fn check_free(output: &str, free_bytes: u64, what: &str) {
    let number = |text: &str| text.trim().parse::<u64>().unwrap();
    let line = output.lines().find(|line| line.contains(" clusters") && line.contains(" files, ")).unwrap();
    let (used, all) = line.split(", ").nth(1).unwrap().split(' ').next().unwrap().split_once('/').unwrap();
    let line = output.lines().find(|line| line.contains("bytes per cluster")).unwrap();
    let cluster_bytes = number(line.trim().split(' ').next().unwrap());
    assert_eq!(free_bytes, (number(all) - number(used)) * cluster_bytes, "{what}");
}

mod exfat {
    //! A small writer of exFAT, which fills a volume that mkfs.exfat made; fsck.exfat is the judge of what it writes.

    pub(super) struct Volume {
        pub(super) bytes: Vec<u8>,
        table: usize,
        heap: usize,
        cluster_bytes: usize,
        clusters: u32,
        root: u32,
        next_free: u32,
    }

    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(super) enum Layout {
        /// In a row, with no chain.
        Row,
        /// With a chain, every other cluster left free.
        Scattered,
    }

    pub(super) struct Node {
        pub(super) name: String,
        pub(super) attributes: u16,
        pub(super) length: u64,
        pub(super) valid_length: u64,
        cluster: u32,
        layout: Layout,
    }

    impl Volume {
        pub(super) fn new(bytes: Vec<u8>) -> Self {
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let shift = bytes[108];
            let (table, heap) = ((word(80) as usize) << shift, (word(88) as usize) << shift);
            let (clusters, root, cluster_bytes) = (word(92), word(96), 1 << (shift + bytes[109]));
            // mkfs lays bitmap, up-case table and root in a row.
            Self { table, heap, cluster_bytes, clusters, root, next_free: root + 1, bytes }
        }

        fn at(&self, cluster: u32) -> usize {
            self.heap + (cluster as usize - 2) * self.cluster_bytes
        }

        fn set_entry(&mut self, cluster: u32, entry: u32) {
            let at = self.table + cluster as usize * 4;
            self.bytes[at..at + 4].copy_from_slice(&entry.to_le_bytes());
        }

        /// The bitmap is the first cluster's.
        fn take(&mut self, cluster: u32) {
            assert!(cluster < self.clusters + 2, "the volume is full");
            let bit = cluster - 2;
            let at = self.at(2) + bit as usize / 8;
            self.bytes[at] |= 1 << (bit % 8);
        }

        fn store(&mut self, contents: &[u8], layout: Layout) -> u32 {
            let count = contents.len().div_ceil(self.cluster_bytes) as u32;
            let step = if layout == Layout::Row { 1 } else { 2 };
            let first = self.next_free;
            for (index, part) in contents.chunks(self.cluster_bytes).enumerate() {
                let cluster = first + index as u32 * step;
                self.take(cluster);
                let at = self.at(cluster);
                self.bytes[at..at + part.len()].copy_from_slice(part);
                if layout == Layout::Scattered {
                    let is_last = index as u32 + 1 == count;
                    self.set_entry(cluster, if is_last { u32::MAX } else { cluster + step });
                }
            }
            self.next_free += count * step;
            if count == 0 { 0 } else { first }
        }

        pub(super) fn file(&mut self, name: &str, contents: &[u8], written: u64, layout: Layout) -> Node {
            let cluster = self.store(contents, layout);
            let length = contents.len() as u64;
            Node { name: name.into(), attributes: 0x20, length, valid_length: written.min(length), cluster, layout }
        }

        /// Directories lie in whole clusters.
        pub(super) fn directory(&mut self, name: &str, nodes: &[Node], layout: Layout) -> Node {
            let mut contents: Vec<u8> = nodes.iter().flat_map(set).collect();
            contents.resize(contents.len().max(1).next_multiple_of(self.cluster_bytes), 0);
            let cluster = self.store(&contents, layout);
            let length = contents.len() as u64;
            Node { name: name.into(), attributes: 0x10, length, valid_length: length, cluster, layout }
        }

        /// Behind what mkfs put into the root directory; it grows by clusters that are chained.
        pub(super) fn fill_root(&mut self, nodes: &[Node]) {
            let start = self.at(self.root);
            let used =
                self.bytes[start..start + self.cluster_bytes].chunks(32).take_while(|entry| entry[0] != 0).count();
            let sets: Vec<u8> = nodes.iter().flat_map(set).collect();
            let here = sets.len().min(self.cluster_bytes - used * 32);
            let at = start + used * 32;
            self.bytes[at..at + here].copy_from_slice(&sets[..here]);
            let mut rest = sets[here..].to_vec();
            if !rest.is_empty() {
                rest.resize(rest.len().next_multiple_of(self.cluster_bytes), 0);
                let next = self.store(&rest, Layout::Scattered);
                self.set_entry(self.root, next);
            }
        }
    }

    fn set(node: &Node) -> Vec<u8> {
        let mut units: Vec<u16> = node.name.encode_utf16().collect();
        let name_length = units.len();
        // fsck.exfat checks the hash of the name in upper case; the names here are ASCII, or have no case.
        let upper: Vec<u16> = node.name.to_ascii_uppercase().encode_utf16().collect();
        let hash = upper.iter().flat_map(|unit| unit.to_le_bytes()).fold(0_u16, sum);
        units.resize(name_length.next_multiple_of(15), 0);
        let mut set = vec![0; 64];
        set[0] = 0x85;
        set[1] = 1 + (units.len() / 15) as u8;
        set[4..6].copy_from_slice(&node.attributes.to_le_bytes());
        for at in [8, 12, 16] {
            // 2024-06-01 12:00:00, two hours east of UTC.
            set[at..at + 4].copy_from_slice(&((12_u32 << 11) | (1 << 16) | (6 << 21) | (44 << 25)).to_le_bytes());
        }
        set[21] = 150;
        set[22..25].copy_from_slice(&[0x88; 3]);
        set[32] = 0xc0;
        set[33] = 1 | if node.layout == Layout::Row && node.cluster != 0 { 2 } else { 0 };
        set[35] = name_length as u8;
        set[36..38].copy_from_slice(&hash.to_le_bytes());
        set[40..48].copy_from_slice(&node.valid_length.to_le_bytes());
        set[52..56].copy_from_slice(&node.cluster.to_le_bytes());
        set[56..64].copy_from_slice(&node.length.to_le_bytes());
        for part in units.chunks(15) {
            set.extend([0xc1, 0]);
            set.extend(part.iter().flat_map(|unit| unit.to_le_bytes()));
        }
        let checksum =
            set.iter().enumerate().filter(|(at, _)| !matches!(at, 2 | 3)).map(|(_, byte)| *byte).fold(0, sum);
        set[2..4].copy_from_slice(&checksum.to_le_bytes());
        set
    }

    fn sum(sum: u16, byte: u8) -> u16 {
        sum.rotate_right(1).wrapping_add(u16::from(byte))
    }
}

/// A volume of mkfs.exfat, filled as devices do: contents in a row and scattered, part of a file never written, sets that
/// lie across clusters. fsck.exfat must find it sound, and contents come back as they were put in.
#[test]
fn exfat_volumes_read_whole() {
    use exfat::Layout::{Row, Scattered};
    if !has_tools(&["mkfs.exfat", "fsck.exfat", "dump.exfat"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let image = home.path().join("disk");
    let path = image.to_str().unwrap();
    for (what, options, megabytes) in
        [("clusters of 4 KiB", "4K", 8), ("clusters of 512 bytes", "512", 8), ("clusters of 128 KiB", "128K", 96)]
    {
        std::fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        run("mkfs.exfat", &["-c", options, "-L", "Stick", path]);
        let mut noise = Noise::new(9);
        let mut volume = exfat::Volume::new(std::fs::read(&image).unwrap());
        let mut files = BTreeMap::new();
        let mut nodes = Vec::new();
        for (name, length, written, layout) in [
            ("Row.bin", 200_000, 200_000, Row),
            ("scattered.bin", 200_001, 200_001, Scattered),
            ("half written", 90_000, 10_001, Scattered),
            ("never written", 5_000, 0, Row),
            ("empty", 0, 0, Row),
            ("日本語.txt", 10, 10, Row),
        ] {
            let mut contents = noise.disk(length);
            nodes.push(volume.file(name, &contents, written, layout));
            contents[usize::try_from(written).unwrap()..].fill(0);
            files.insert(name.to_owned(), contents);
        }
        for (folder, layout) in [("in a row", Row), ("chained", Scattered)] {
            let mut inside = Vec::new();
            for index in 0..200 {
                let name = format!("a name that needs several entries, number {index}");
                let contents = noise.disk(10 + index % 7);
                inside.push(volume.file(&name, &contents, u64::MAX, Row));
                files.insert(format!("{folder}/{name}"), contents);
            }
            nodes.push(volume.directory(folder, &inside, layout));
        }
        nodes.first_mut().unwrap().attributes |= 1;
        volume.fill_root(&nodes);
        std::fs::write(&image, &volume.bytes).unwrap();
        run("fsck.exfat", &["-n", path]);

        let tree = mount(volume.bytes.clone()).unwrap();
        let (_, file_system) = tree.mounts().next().unwrap();
        assert!(file_system.warnings().is_empty(), "{what}: {:?}", file_system.warnings());
        assert_eq!(file_system.info().label.as_deref(), Some("Stick"), "{what}");
        let dumped = String::from_utf8_lossy(&run("dump.exfat", &[path])).into_owned();
        let number = |key: &str| {
            let line = dumped.lines().find(|line| line.trim().starts_with(key)).unwrap_or_else(|| panic!("{dumped}"));
            line.rsplit(|sign: char| !sign.is_ascii_digit())
                .find(|text| !text.is_empty())
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        let cluster_bytes = number("Cluster size");
        assert_eq!(file_system.info().free_bytes, number("Free Clusters") * cluster_bytes, "{what}");

        let found = walk(&tree);
        check_contents(&found, &files, what);
        let row = &found["Row.bin"].metadata;
        assert_eq!(
            (row.mode, row.modified.seconds, row.modified.nanoseconds),
            (0o555, 1_717_236_001, 500_000_000),
            "{what}"
        );
        for name in ["/ROW.BIN", "/CHAINED/A NAME THAT NEEDS SEVERAL ENTRIES, NUMBER 7", "/日本語.TXT"] {
            assert!(tree.open(name).unwrap().is_some(), "{what}: {name}");
        }
        assert!(tree.open("/missing").unwrap().is_none(), "{what}");

        let mut broken = volume.bytes.clone();
        broken[88] ^= 1;
        assert_eq!(walk(&mount(broken.clone()).unwrap()).len(), found.len(), "{what}: by the backup boot region");
        let backup = 12 * usize::from(u16::from_le_bytes([0, 1 << (broken[108] - 8)]));
        broken[backup + 88] ^= 1;
        assert!(matches!(mount(broken), Err(Error::Corrupt { .. })), "{what}");
        if megabytes == 8 {
            mutate(&volume.bytes, 3 << 20, 60, 17);
        }
    }
}

/// `fixtures/discs/README.md` tells how the volume was made; fsck.exfat found it sound.
#[test]
fn the_exfat_fixture_reads_whole() {
    let image = fixture("discs/exfat.img.gz");
    let found = walk(&mount(image.clone()).unwrap());
    let mut count = 0;
    for line in String::from_utf8(fixture("discs/exfat.tsv")).unwrap().lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let found = &found[fields[0]];
        assert_eq!(found.metadata.size.to_string(), fields[1], "{}", fields[0]);
        assert_eq!(found.sha256.as_deref(), Some(fields[2]), "{}", fields[0]);
        count += 1;
    }
    // Two directories beside the files.
    assert_eq!(found.len(), count + 2);
    mutate(&image, 3 << 20, 60, 19);
}
