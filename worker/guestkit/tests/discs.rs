//! ISO 9660 and squashfs; the truth is the tree that xorriso, genisoimage and mksquashfs made an image of, and what isoinfo
//! and unsquashfs list.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use guestkit::filesystem::FileType;
use guestkit::{Error, Tree};
use support::trees::{Found, fixture, mount, mutate, sha256, walk};
use support::{Noise, corpus, has_tool, has_tools, run, unpacked};

/// A tree with what file systems find hard: long names, deep folders, sparse and incompressible and small files, links.
fn make_tree(root: &Path) {
    let mut noise = Noise::new(23);
    let write = |path: &str, contents: &[u8]| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
    };
    write("empty", b"");
    write("Read Me.txt", b"hello\n");
    write(&"n".repeat(200), b"a long name");
    write("Grüße/日本語.txt", b"unicode");
    write("deep/1/2/3/4/5/6/7/8/9/10/11/leaf", b"deep");
    for (name, length) in
        [("noise", 700_001), ("text", 400_000), ("block", 131_072), ("two", 262_144), ("tail", 131_073)]
    {
        let contents = match name {
            "noise" => (0..length).map(|_| noise.next() as u8).collect(),
            "text" => b"the quick brown fox ".iter().copied().cycle().take(length).collect(),
            _ => noise.disk(length),
        };
        write(&format!("files/{name}"), &contents);
    }
    let mut sparse = vec![0; 1_000_000];
    sparse[500_000] = 1;
    write("files/sparse", &sparse);
    write("files/zeros", &vec![0; 300_000]);
    for index in 0..700 {
        write(
            &format!("many/{index:04} is the number of this file"),
            format!("contents of {index}\n").repeat(index % 9).as_bytes(),
        );
    }
    std::fs::create_dir(root.join("empty folder")).unwrap();
    symlink("files/text", root.join("link")).unwrap();
    symlink("/usr/../etc/./passwd", root.join("absolute")).unwrap();
    symlink(format!("{}end", "x/".repeat(60)), root.join("long link")).unwrap();
    std::fs::hard_link(root.join("files/text"), root.join("files/text again")).unwrap();
    let set_mode =
        |path: &str, mode| std::fs::set_permissions(root.join(path), PermissionsExt::from_mode(mode)).unwrap();
    set_mode("Read Me.txt", 0o640);
    set_mode("empty", 0o4755);
    set_mode("empty folder", 0o1777);
}

/// What lies below `root`, by its path from there.
fn paths_below(root: &Path) -> BTreeMap<String, PathBuf> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                folders.push(path.clone());
            }
            all.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), path);
        }
    }
    all
}

/// Compares what was found with the tree it was made of: types, contents, targets, modes, owners and times.
fn check_tree(found: &BTreeMap<String, Found>, root: &Path, what: &str) {
    let expected = paths_below(root);
    let names: Vec<_> = found.keys().collect();
    assert_eq!(names, expected.keys().collect::<Vec<_>>(), "{what}");
    for (path, on_host) in &expected {
        let (found, said) = (&found[path], on_host.symlink_metadata().unwrap());
        let metadata = &found.metadata;
        assert_eq!(Some(metadata.file_type), FileType::of_mode(said.mode()), "{what}: {path}");
        assert_eq!(u32::from(metadata.mode), said.mode() & 0o7777, "{what}: {path}");
        assert_eq!((metadata.uid, metadata.gid), (said.uid(), said.gid()), "{what}: {path}");
        assert_eq!(metadata.modified.seconds, said.mtime(), "{what}: {path}");
        if said.is_file() {
            assert_eq!(metadata.size, said.len(), "{what}: {path}");
            assert_eq!(found.sha256, Some(sha256(&std::fs::read(on_host).unwrap())), "{what}: {path}");
        }
        let target = std::fs::read_link(on_host).ok().map(|target| target.into_os_string().into_encoded_bytes());
        assert_eq!(found.target, target, "{what}: {path}");
    }
}

/// `fixtures/discs/README.md` tells how the images were made; `find` and `sha256sum` are the truth.
#[test]
fn fixtures_read_whole() {
    let truth = String::from_utf8(fixture("discs/tree.tsv")).unwrap();
    let lines: Vec<Vec<&str>> = truth.lines().map(|line| line.split('\t').collect()).collect();
    let packed = ["gzip", "xz", "lzo", "lz4", "zstd", "lzma"].map(|codec| format!("discs/{codec}.squashfs.gz"));
    let discs = ["rock-ridge", "relocated-joliet", "zisofs"].map(|disc| format!("discs/{disc}.iso.gz"));
    for name in packed.iter().chain(&discs) {
        let image = fixture(name);
        let mut found = walk(&mount(image.clone()).unwrap());
        found.remove("rr_moved");
        assert_eq!(found.len(), lines.len(), "{name}");
        for line in &lines {
            let Found { metadata, sha256, target } = &found[line[0]];
            let what = format!("{name}: {}", line[0]);
            let kind = match line[1] {
                "d" => FileType::Directory,
                "l" => FileType::Symlink,
                "c" => FileType::CharacterDevice,
                "p" => FileType::Fifo,
                _ => FileType::Regular,
            };
            assert_eq!(metadata.file_type, kind, "{what}");
            assert_eq!(format!("{:o}", metadata.mode), line[2], "{what}");
            assert_eq!(
                (metadata.uid.to_string().as_str(), metadata.gid.to_string().as_str()),
                (line[3], line[4]),
                "{what}"
            );
            assert_eq!(metadata.modified.seconds, 1_717_236_001, "{what}");
            assert_eq!(metadata.device, (kind == FileType::CharacterDevice).then_some((1, 3)), "{what}");
            if kind == FileType::Regular {
                assert_eq!(metadata.size.to_string(), line[5], "{what}");
                assert_eq!(sha256.as_deref(), Some(line[6]), "{what}");
            }
            if kind == FileType::Symlink {
                assert_eq!(target.as_deref(), Some(line[6].as_bytes()), "{what}");
            }
        }
        assert_eq!(found["etc/text"].metadata.links, 2, "{name}");
        mutate(&image, image.len().min(200_000), 40, 77);
    }
    // Joliet has no links and devices, names of 64 characters at most, and eight folders below one another.
    let found = walk(&mount(fixture("discs/joliet.iso.gz")).unwrap());
    for line in lines.iter().filter(|line| line[1] == "f" && line[0].len() < 64 && !line[0].contains("/1/")) {
        assert_eq!(found[line[0]].sha256.as_deref(), Some(line[6]), "joliet: {}", line[0]);
    }
}

fn warnings(tree: &Tree) -> Vec<String> {
    tree.mounts().flat_map(|(_, file_system)| file_system.warnings()).collect()
}

#[test]
fn every_compression_of_squashfs_reads_whole() {
    if !has_tools(&["mksquashfs", "unsquashfs"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("tree");
    make_tree(&root);
    let (image, special) = (home.path().join("image"), home.path().join("special"));
    std::fs::write(&special, "pipe i 600 7 8 f\ndisk b 660 0 6 259 70000\nnull c 666 0 0 1 3\n").unwrap();
    for (what, options) in [
        ("gzip", "-comp gzip"),
        ("xz", "-comp xz"),
        ("xz with a filter", "-comp xz -Xbcj x86"),
        ("lzo", "-comp lzo"),
        ("lz4", "-comp lz4 -Xhc"),
        ("zstd", "-comp zstd"),
        ("lzma", "-comp lzma"),
        ("blocks of 4 KiB", "-comp gzip -b 4096"),
        ("blocks of 1 MiB", "-comp zstd -b 1M"),
        ("no fragments", "-comp gzip -no-fragments"),
        ("tails in fragments", "-comp gzip -always-use-fragments"),
        ("nothing packed", "-comp gzip -noI -noD -noF -noX"),
        ("no duplicates found, no exports", "-comp gzip -no-duplicates -no-exports"),
    ] {
        let _ = std::fs::remove_file(&image);
        let mut arguments =
            vec![root.to_str().unwrap(), image.to_str().unwrap(), "-noappend", "-quiet", "-no-progress"];
        arguments.extend(options.split(' '));
        let made = std::process::Command::new("mksquashfs").args(&arguments).output().unwrap();
        if !made.status.success() {
            println!("{what}: {}", String::from_utf8_lossy(&made.stderr));
            continue;
        }
        let bytes = std::fs::read(&image).unwrap();
        let tree = mount(bytes.clone()).unwrap();
        assert_eq!(warnings(&tree), Vec::<String>::new(), "{what}");
        let found = walk(&tree);
        check_tree(&found, &root, what);
        assert_eq!(found["files/text"].metadata.node, found["files/text again"].metadata.node, "{what}");
        assert_eq!(found["files/text"].metadata.links, 2, "{what}");
        for index in [0, 7, 350, 699] {
            assert!(tree.is_file(format!("/many/{index:04} is the number of this file")).unwrap(), "{what}");
        }
        for missing in ["/many/000", "/many/0007 is the number of this fil", "/many/z", "/files/text/x"] {
            assert_eq!(tree.symlink_metadata(missing).unwrap(), None, "{what}: {missing}");
        }
        // A piece from the middle of each file, which no block begins or ends with.
        let file = tree.open("/files/noise").unwrap().unwrap();
        let mut piece = vec![0; 150_000];
        guestkit::ReadAt::read_exact_at(&file, &mut piece, 100_001).unwrap();
        assert_eq!(piece, std::fs::read(root.join("files/noise")).unwrap()[100_001..250_001], "{what}");
    }

    run(
        "mksquashfs",
        &[
            home.path().join("tree/empty folder").to_str().unwrap(),
            image.to_str().unwrap(),
            "-noappend",
            "-quiet",
            "-no-progress",
            "-pf",
            special.to_str().unwrap(),
        ],
    );
    let found = walk(&mount(std::fs::read(&image).unwrap()).unwrap());
    let device = |path: &str| (found[path].metadata.file_type, found[path].metadata.device, found[path].metadata.mode);
    assert_eq!(device("disk"), (FileType::BlockDevice, Some((259, 70000)), 0o660));
    assert_eq!(device("null"), (FileType::CharacterDevice, Some((1, 3)), 0o666));
    assert_eq!(device("pipe"), (FileType::Fifo, None, 0o600));
    assert_eq!((found["pipe"].metadata.uid, found["pipe"].metadata.gid), (7, 8));
}

/// A small tree, so that mutations hit something; metadata is not packed, so that they are not all found by zlib.
#[test]
fn mutated_squashfs_ends_in_an_answer() {
    if !has_tools(&["mksquashfs"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (root, image) = (home.path().join("tree"), home.path().join("image"));
    std::fs::create_dir_all(root.join("etc/deep")).unwrap();
    for index in 0..60 {
        std::fs::write(root.join(format!("etc/file {index}")), vec![7; index * 300]).unwrap();
    }
    symlink("etc", root.join("link")).unwrap();
    for options in [["-noI", "-noX"], ["-comp", "zstd"], ["-comp", "xz"], ["-comp", "lzo"], ["-comp", "lz4"]] {
        let arguments =
            [root.to_str().unwrap(), image.to_str().unwrap(), "-noappend", "-quiet", "-no-progress", "-b", "4096"];
        run("mksquashfs", &[arguments.as_slice(), &options].concat());
        let bytes = std::fs::read(&image).unwrap();
        mutate(&bytes, bytes.len(), 80, 31);
    }
}

/// The attribute that `setfattr` sets, where the file system below the test takes it.
#[test]
fn attributes_of_squashfs_are_read() {
    if !has_tools(&["mksquashfs", "setfattr"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (root, image) = (home.path().join("tree"), home.path().join("image"));
    std::fs::create_dir(&root).unwrap();
    let long = "v".repeat(300);
    for name in ["one", "two"] {
        let path = root.join(name);
        std::fs::write(&path, name).unwrap();
        for (key, value) in [("user.name", name), ("user.shared", long.as_str()), ("security.test", "s")] {
            let path = path.to_str().unwrap();
            let set = std::process::Command::new("setfattr").args(["-n", key, "-v", value, path]).output().unwrap();
            if !set.status.success() {
                println!("no attributes here: {}", String::from_utf8_lossy(&set.stderr));
                return;
            }
        }
    }
    run("mksquashfs", &[root.to_str().unwrap(), image.to_str().unwrap(), "-noappend", "-quiet", "-no-progress"]);
    let tree = mount(std::fs::read(&image).unwrap()).unwrap();
    let (_, file_system) = tree.mounts().next().unwrap();
    for name in ["one", "two"] {
        let node = file_system.lookup(file_system.root(), name.as_bytes()).unwrap().unwrap();
        let mut found: Vec<_> = file_system
            .extended_attributes(node)
            .unwrap()
            .into_iter()
            .map(|attribute| (String::from_utf8(attribute.name).unwrap(), String::from_utf8(attribute.value).unwrap()))
            .collect();
        found.sort();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(found, [pair("security.test", "s"), pair("user.name", name), pair("user.shared", &long)]);
    }
}

#[test]
fn discs_with_rock_ridge_read_whole() {
    if !has_tools(&["xorriso", "genisoimage"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("tree");
    make_tree(&root);
    let image = home.path().join("image");
    let (root_text, image_text) = (root.to_str().unwrap(), image.to_str().unwrap());
    for (what, tool, options) in [
        ("xorriso", "xorriso", "-as mkisofs -quiet -R"),
        ("xorriso, with Joliet", "xorriso", "-as mkisofs -quiet -R -J -joliet-long"),
        ("xorriso, level 3", "xorriso", "-as mkisofs -quiet -R -iso-level 3"),
        ("genisoimage, deep folders moved", "genisoimage", "-quiet -R"),
        ("genisoimage, deep folders in place", "genisoimage", "-quiet -R -D"),
        ("genisoimage, with Joliet and UDF", "genisoimage", "-quiet -R -J -joliet-long -udf"),
    ] {
        let _ = std::fs::remove_file(&image);
        let mut arguments: Vec<&str> = options.split(' ').collect();
        arguments.extend(["-V", "A DISC", "-o", image_text, root_text]);
        run(tool, &arguments);
        let tree = mount(std::fs::read(&image).unwrap()).unwrap();
        assert_eq!(!warnings(&tree).is_empty(), options.contains("-udf"), "{what}: {:?}", warnings(&tree));
        let mut found = walk(&tree);
        // Folders that lay too deep were moved there, and are shown where they were.
        found.remove("rr_moved");
        check_tree(&found, &root, what);
        assert_eq!(found["files/text"].metadata.links, 2, "{what}");
        assert!(tree.is_file("/many/0077 is the number of this file").unwrap(), "{what}");
        assert!(!tree.is_file("/many/0077 IS the number of this file").unwrap(), "{what}: case matters");
    }
}

/// Without Rock Ridge: Joliet's names, or the plain ones in lower case, with mode 0555, as the kernel shows them.
#[test]
fn discs_without_rock_ridge_read_as_in_the_kernel() {
    if !has_tools(&["genisoimage", "isoinfo"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (root, image) = (home.path().join("tree"), home.path().join("image"));
    let mut noise = Noise::new(3);
    for (path, length) in
        [("Some long name.text", 5000), ("Folder/GRÜSSE und mehr.conf", 70_000), ("README", 3), ("a.b", 0)]
    {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, noise.disk(length)).unwrap();
    }
    let (root_text, image_text) = (root.to_str().unwrap(), image.to_str().unwrap());

    run("genisoimage", &["-quiet", "-J", "-V", "A DISC", "-o", image_text, root_text]);
    let bytes = std::fs::read(&image).unwrap();
    let tree = mount(bytes.clone()).unwrap();
    let found = walk(&tree);
    for (path, on_host) in paths_below(&root) {
        let found = found.get(&path).unwrap_or_else(|| panic!("{path} is missing"));
        assert_eq!((found.metadata.mode, found.metadata.uid, found.metadata.links), (0o555, 0, 1), "{path}");
        if on_host.is_file() {
            assert_eq!(found.sha256, Some(sha256(&std::fs::read(on_host).unwrap())), "{path}");
        }
    }
    assert!(tree.is_file("/FOLDER/grüsse UND mehr.CONF").unwrap());
    mutate(&bytes[..bytes.len().min(120_000)], 120_000, 150, 5);

    run("genisoimage", &["-quiet", "-o", image_text, root_text]);
    let tree = mount(std::fs::read(&image).unwrap()).unwrap();
    let mut found: Vec<String> = walk(&tree).into_keys().collect();
    // `/FOLDER/GRSSE_UN.CON;1`, and `/README.;1`.
    let listed = String::from_utf8(run("isoinfo", &["-f", "-i", image_text])).unwrap().to_lowercase();
    let plain = |line: &str| line.trim_start_matches('/').trim_end_matches(";1").trim_end_matches('.').to_owned();
    let mut expected: Vec<String> = listed.lines().map(plain).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert!(tree.is_file("/README").unwrap() && tree.is_file("/readme").unwrap());
}

#[test]
fn mutated_discs_end_in_an_answer() {
    if !has_tools(&["xorriso"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (root, image) = (home.path().join("tree"), home.path().join("image"));
    std::fs::create_dir_all(root.join("etc/deep")).unwrap();
    for index in 0..60 {
        std::fs::write(root.join(format!("etc/a file with a long name {index}")), vec![7; index * 30]).unwrap();
    }
    symlink(format!("{0}/{0}", "a".repeat(150)), root.join("link")).unwrap();
    run("xorriso", &["-as", "mkisofs", "-quiet", "-R", "-o", image.to_str().unwrap(), root.to_str().unwrap()]);
    let bytes = std::fs::read(&image).unwrap();
    // A target that goes on in a continuation area.
    let target = walk(&mount(bytes.clone()).unwrap())["link"].target.clone();
    assert_eq!(target.unwrap(), format!("{0}/{0}", "a".repeat(150)).into_bytes());
    mutate(&bytes, 120_000, 150, 41);
}

/// zisofs, and a file of several extents: each as xorriso writes it.
#[test]
fn compressed_and_long_files_of_discs_are_read() {
    if !has_tools(&["xorriso"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (root, image) = (home.path().join("tree"), home.path().join("image"));
    std::fs::create_dir(&root).unwrap();
    let mut contents = b"the quick brown fox ".repeat(20_000);
    contents.extend(vec![0; 200_000]);
    contents.extend(Noise::new(2).disk(100_000));
    std::fs::write(root.join("packed"), &contents).unwrap();
    std::fs::write(root.join("small"), "small").unwrap();
    run(
        "xorriso",
        &[
            "-outdev",
            image.to_str().unwrap(),
            "-zisofs",
            "level=9:block_size=32k",
            "-map",
            root.to_str().unwrap(),
            "/",
            "-set_filter_r",
            "--zisofs",
            "/",
            "--",
            "-commit",
        ],
    );
    let bytes = std::fs::read(&image).unwrap();
    assert!(bytes.len() < contents.len() * 2, "{}", bytes.len());
    let found = walk(&mount(bytes.clone()).unwrap());
    assert_eq!(found["packed"].metadata.size, contents.len() as u64);
    assert_eq!(found["packed"].sha256, Some(sha256(&contents)));
    assert_eq!(found["small"].sha256, Some(sha256(b"small")));
    mutate(&bytes, 200_000, 100, 6);
}

/// What the images of util-linux's own tests of blkid hold is not known; their trees must end in an answer.
#[test]
fn images_of_blkid_tests_end_in_an_answer() {
    let Some(corpus) = corpus() else { return };
    if !has_tool("xz") {
        return;
    }
    for file in std::fs::read_dir(corpus.join("volume-ids")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let known =
            ["iso-", "udf-", "fat32_", "small-fat32", "exfat", "squashfs"].iter().any(|known| name.starts_with(known));
        if !known || !name.ends_with(".img.xz") {
            continue;
        }
        match mount(unpacked(&path)) {
            Ok(tree) => println!("{name}: {:?} {:?}", walk(&tree).into_keys().collect::<Vec<_>>(), warnings(&tree)),
            Err(error @ (Error::Unsupported { .. } | Error::Corrupt { .. })) => println!("{name}: {error}"),
            Err(other) => panic!("{name}: {other}"),
        }
    }
}
