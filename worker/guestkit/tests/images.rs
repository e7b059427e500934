//! Image formats; the truth is `qemu-img`: what it makes we read, what it says of an image we say too.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use guestkit::image::{Format, Roots, sha256};
use guestkit::{Budget, Disk, Error, ImageSpec, Limit, Limits};
use support::{Noise, assert_same, contents, corpus, has_tool, open, run};

const MIB: usize = 1 << 20;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Reads small pieces at random places, as a file system does.
fn check_random_reads(path: &Path, expected: &[u8], noise: &mut Noise) {
    let source = open(path, None).unwrap().source();
    for _ in 0..300 {
        let at = noise.below(expected.len());
        let length = noise.below(5000).min(expected.len() - at);
        let mut piece = vec![0; length];
        source.read_exact_at(&mut piece, at as u64).unwrap();
        assert_same(&piece, &expected[at..at + length], text(path));
    }
}

#[test]
fn every_kind_of_qcow2_that_qemu_img_makes_reads_as_what_it_was_made_from() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let raw = home.path().join("disk.raw");
    let mut noise = Noise::new(1);
    let disk = noise.disk(5 * MIB + 512);
    std::fs::write(&raw, &disk).unwrap();
    let external = format!("data_file={},data_file_raw=on", text(&home.path().join("data.bin")));
    let cases: [(&str, &[&str]); 13] = [
        ("plain", &[]),
        ("version-2", &["-o", "compat=0.10"]),
        ("small-clusters", &["-o", "cluster_size=512"]),
        ("large-clusters", &["-o", "cluster_size=2M"]),
        ("zlib", &["-c"]),
        ("zlib-version-2", &["-c", "-o", "compat=0.10"]),
        ("zlib-small", &["-c", "-o", "cluster_size=1k"]),
        ("zlib-large", &["-c", "-o", "cluster_size=2M"]),
        ("zstd", &["-c", "-o", "compression_type=zstd"]),
        ("zstd-large", &["-c", "-o", "compression_type=zstd,cluster_size=2M"]),
        ("subclusters", &["-o", "extended_l2=on"]),
        ("preallocated", &["-o", "preallocation=metadata,lazy_refcounts=on"]),
        ("data-file", &["-o", &external]),
    ];
    for (name, options) in cases {
        let path = home.path().join(format!("{name}.qcow2"));
        let arguments = [&["convert", "-O", "qcow2"], options, &[text(&raw), text(&path)]].concat();
        run("qemu-img", &arguments);
        let image = open(&path, Some(Format::Qcow2)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_same(&contents(&image), &disk, name);
        check_random_reads(&path, &disk, &mut noise);
        check_info(&path);
    }
}

/// `qemu-img info` names the same format, sizes and compression.
fn check_info(path: &Path) {
    let said: serde_json::Value =
        serde_json::from_slice(&run("qemu-img", &["info", "--output=json", text(path)])).unwrap();
    let image = open(path, None).unwrap();
    let layer = image.top().unwrap();
    assert_eq!(said["format"], layer.format.name());
    assert_eq!(said["virtual-size"], layer.virtual_size_bytes);
    assert_eq!(said["actual-size"], layer.allocated_bytes);
    assert_eq!(said["cluster-size"].as_u64(), layer.cluster_size_bytes);
    let specific = &said["format-specific"]["data"];
    assert_eq!(specific["compression-type"].as_str(), layer.compression.map(guestkit::image::Compression::name));
    let version = specific["compat"].as_str().map(|compat| if compat == "0.10" { 2 } else { 3 });
    assert_eq!(version, layer.format_version);
}

#[test]
fn a_chain_reads_as_qemu_img_reads_it() {
    if !has_tool("qemu-img") || !has_tool("qemu-io") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    std::fs::write(at("base.raw"), Noise::new(2).disk(5 * MIB)).unwrap();
    let create = |name: &str, below: &str, format: &str, options: &str, size: &str| {
        let new = at(name);
        run("qemu-img", &["create", "-q", "-f", "qcow2", "-b", below, "-F", format, "-o", options, text(&new), size]);
    };
    let write = |name: &str, commands: &[&str]| {
        for command in commands {
            run("qemu-io", &["-f", "qcow2", "-c", command, text(&at(name))]);
        }
    };
    // The overlay is larger than what it rests on; it discards, zeroes and writes below its cluster size.
    create("one.qcow2", "base.raw", "raw", "cluster_size=64k", "8M");
    write("one.qcow2", &["write -P 17 100k 3k", "write -z 1M 256k", "discard 2M 128k", "write -P 3 6M 70k"]);
    create("two.qcow2", "one.qcow2", "qcow2", "extended_l2=on,cluster_size=128k", "9M");
    write("two.qcow2", &["write -P 99 1028k 5k", "write -z 4k 4k", "write -P 1 8M 512", "write -c -P 8 3M 128k"]);
    create("three.qcow2", "two.qcow2", "qcow2", "cluster_size=512", "7M");
    write("three.qcow2", &["write -P 5 0 1000", "write -z 5000k 1000"]);
    for name in ["one.qcow2", "two.qcow2", "three.qcow2"] {
        let flat = at("flat.raw");
        run("qemu-img", &["convert", "-O", "raw", text(&at(name)), text(&flat)]);
        let expected = std::fs::read(&flat).unwrap();
        assert_same(&contents(&open(&at(name), Some(Format::Qcow2)).unwrap()), &expected, name);
        check_random_reads(&at(name), &expected, &mut Noise::new(3));
    }
    let image = open(&at("three.qcow2"), None).unwrap();
    let names: Vec<_> = image.layers().iter().map(|layer| (layer.path.clone(), layer.format)).collect();
    let expected = [
        (at("three.qcow2"), Format::Qcow2),
        (at("two.qcow2"), Format::Qcow2),
        (at("one.qcow2"), Format::Qcow2),
        (at("base.raw"), Format::Raw),
    ];
    assert_eq!(names, expected);
    let short = Limits { chain_length: 3, ..Limits::default() };
    let refused = guestkit::image::open(&at("three.qcow2"), None, &Roots::anywhere(), &Budget::new(&short)).map(drop);
    assert!(matches!(refused, Err(Error::LimitReached { which: Limit::ChainLength, value: 3 })), "{refused:?}");
}

/// An overlay whose backing file need not exist; without `format` it does not record one, as qemu-img 2 to 6.0 allowed.
fn make_overlay(path: &Path, below: &str, format: Option<&str>) {
    let recorded = format.unwrap_or("raw");
    run("qemu-img", &["create", "-q", "-u", "-f", "qcow2", "-b", below, "-F", recorded, text(path), "1M"]);
    if format.is_none() {
        patch(path, &[0xe2, 0x79, 0x2a, 0xca], &[0x12, 0x34, 0x56, 0x78]);
    }
}

/// Puts `new` where `old` first stands in the file's first cluster.
fn patch(path: &Path, old: &[u8], new: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(old.len()).position(|window| window == old).unwrap();
    bytes[at..at + new.len()].copy_from_slice(new);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_a_chain_may_not_name_is_refused_by_name() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("images");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(home.path().join("outside.raw"), [1; 1024]).unwrap();
    let policy = Roots::beneath([&root]).unwrap();
    let overlay = |name: &str, below: &str, format: Option<&str>| {
        let path = root.join(name);
        make_overlay(&path, below, format);
        guestkit::image::open(&path, None, &policy, &support::budget()).map(drop)
    };
    for below in ["/etc/passwd", "../outside.raw", "../../../../../../etc/passwd", "/dev/zero"] {
        let met = overlay("a.qcow2", below, Some("raw"));
        assert!(matches!(met, Err(Error::AccessDenied { .. })), "{below}: {met:?}");
    }
    for below in ["nbd://host/disk", "json:{\"driver\":\"raw\"}", "file:disk.raw", "fat:/etc"] {
        let met = overlay("b.qcow2", below, Some("raw"));
        assert!(matches!(&met, Err(Error::AccessDenied { reason, .. }) if reason.contains("plain paths")), "{met:?}");
    }
    assert!(matches!(overlay("c.qcow2", "absent.raw", Some("raw")), Err(Error::NotFound { .. })));
    assert!(matches!(overlay("self.qcow2", "self.qcow2", Some("qcow2")), Err(Error::Corrupt { .. })));
    make_overlay(&root.join("left.qcow2"), "right.qcow2", Some("qcow2"));
    assert!(matches!(overlay("right.qcow2", "left.qcow2", Some("qcow2")), Err(Error::Corrupt { .. })));
    let met = overlay("d.qcow2", "a.qcow2", Some("vmdk"));
    assert!(matches!(met, Err(Error::FormatMismatch { .. })), "{met:?}");
    make_overlay(&root.join("e.qcow2"), "a.qcow2", Some("qcow2"));
    patch(&root.join("e.qcow2"), b"\0\x05qcow2", b"\0\x05qcowX");
    let met = guestkit::image::open(&root.join("e.qcow2"), None, &policy, &support::budget()).map(drop);
    assert!(matches!(&met, Err(Error::Unsupported { what }) if what.contains("qcowX")), "{met:?}");
}

#[test]
fn a_raw_base_stays_raw_whatever_its_guest_wrote_into_it() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    std::fs::write(at("secret.raw"), [42; 4096]).unwrap();
    // The guest's disk begins with the header of an image that names another file.
    make_overlay(&at("guest.raw"), "secret.raw", Some("raw"));
    make_overlay(&at("declared.qcow2"), "guest.raw", Some("raw"));
    let image = open(&at("declared.qcow2"), None).unwrap();
    let mut start = [0; 4];
    image.source().read_exact_at(&mut start, 0).unwrap();
    assert_eq!(&start, b"QFI\xfb", "the header is data, as `qemu-img convert` gives it");

    make_overlay(&at("undeclared.qcow2"), "guest.raw", None);
    let met = open(&at("undeclared.qcow2"), None).map(drop);
    assert!(matches!(met, Err(Error::AccessDenied { .. })), "a guessed backing file names no other: {met:?}");
    let met = open(&at("undeclared.qcow2"), Some(Format::Qcow2)).map(drop);
    assert!(matches!(met, Err(Error::Unsupported { .. })), "nothing is guessed unasked: {met:?}");

    make_overlay(&at("plain.qcow2"), "secret.raw", None);
    let image = open(&at("plain.qcow2"), None).unwrap();
    assert_eq!(image.layers()[1].format, Format::Raw);
    assert!(image.warnings()[0].contains("guessed"), "{:?}", image.warnings());
}

/// An image that encrypts itself is, seen as a volume, what QEMU's own LUKS driver opens.
#[test]
fn an_encrypted_image_is_read_through_its_luks_volume() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let disk = Noise::new(7).disk(MIB);
    std::fs::write(at("disk.raw"), &disk).unwrap();
    let options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    let secret = ["--object", "secret,id=s,data=x"];
    let (raw, encrypted) = (at("disk.raw"), at("luks.qcow2"));
    let made = ["convert", "-O", "qcow2", "-o", options, text(&raw), text(&encrypted)];
    run("qemu-img", &[&made[..1], &secret, &made[1..]].concat());
    let (locked, plain) = (at("volume.luks"), at("plain.raw"));
    let unlock = |volume: guestkit::Source| -> guestkit::Result<guestkit::Source> {
        let mut bytes = vec![0; usize::try_from(volume.len()).unwrap()];
        volume.read_exact_at(&mut bytes, 0)?;
        std::fs::write(&locked, bytes).unwrap();
        let from = format!("driver=luks,key-secret=s,file.filename={}", text(&locked));
        let arguments = ["convert", "--image-opts", &from, "-O", "raw", text(&plain)];
        run("qemu-img", &[&arguments[..1], &secret, &arguments[1..]].concat());
        Ok(std::sync::Arc::new(std::fs::read(&plain).unwrap()))
    };
    let images = guestkit::image::open_all(&encrypted, None, &Roots::anywhere(), &unlock, &support::budget());
    assert_same(&contents(&images.unwrap()[0]), &disk, "luks.qcow2");

    // The same by a key for the volume's UUID.
    let info: serde_json::Value =
        serde_json::from_slice(&run("qemu-img", &["info", "--output=json", text(&encrypted)])).unwrap();
    let uuid = info["format-specific"]["data"]["encrypt"]["uuid"].as_str().unwrap();
    let opened = |id: &str| {
        let mut keys = guestkit::Keys::none();
        keys.add(id, guestkit::Secret::new(b"x".to_vec()));
        let specs = [ImageSpec::recognised(&encrypted)];
        Disk::open_with_keys(&specs, &Roots::anywhere(), &keys, &Limits::default())
    };
    for id in [uuid, &uuid.to_uppercase(), "/dev/sda", "all"] {
        let opened = opened(id).unwrap();
        assert_same(&contents(&opened.drives()[0].image), &disk, id);
    }
    assert!(matches!(opened("/dev/sdb"), Err(Error::Encrypted { .. })));
}

#[test]
fn encrypted_images_are_named_as_such() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("luks.qcow2");
    run(
        "qemu-img",
        &[
            "create",
            "-q",
            "--object",
            "secret,id=s,data=x",
            "-f",
            "qcow2",
            "-o",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
            text(&path),
            "1M",
        ],
    );
    let met = open(&path, None).map(drop);
    assert!(matches!(&met, Err(Error::Encrypted { what }) if what == "qcow2 image (LUKS)"), "{met:?}");
}

#[test]
fn what_is_no_image_is_refused_precisely() {
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &[u8]| {
        let path = home.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(contents).unwrap();
        path
    };
    let disk = |path: &Path, format| {
        let spec = ImageSpec { path: path.into(), format };
        Disk::open(&[spec], &Roots::anywhere(), &Limits::default()).map(drop)
    };
    let met = disk(&file("empty.qcow2", b""), None);
    assert!(matches!(met, Err(Error::NotAnImage { found: "an empty file", .. })), "{met:?}");
    let words = file("words.qcow2", b"this is not a disk\n");
    let met = disk(&words, None);
    assert!(matches!(met, Err(Error::FormatMismatch { .. })), "{met:?}");
    let met = disk(&words, Some(Format::Qcow2)).unwrap_err().to_string();
    assert!(met.contains("stated to be qcow2") && met.contains("raw bytes without the header"), "{met}");
    let met = disk(&file("disk.raw", b"QFI\xfb\0\0\0\x03"), Some(Format::Raw)).unwrap_err().to_string();
    assert!(met.contains("stated to be raw, but its contents are qcow2"), "{met}");
    for (bytes, name) in [
        (b"QFI\xfb\0\0\0\x01".as_slice(), "qcow"),
        (b"QED\0", "qed"),
        (b"WithoutFreeSpace", "parallels"),
        (b"WithouFreSpacExt", "parallels"),
        (b"Bochs Virtual HD Image\0", "bochs"),
        (b"EVF\x09\x0d\x0a\xff\0", "ewf"),
        (b"AFF10\r\n\0", "aff"),
    ] {
        let met = disk(&file("disk.img", bytes), None).unwrap_err().to_string();
        assert_eq!(met, format!("image format {name} is not supported"));
    }
    if has_tool("qemu-img") {
        for name in ["qcow", "qed", "parallels"] {
            let path = home.path().join("made");
            run("qemu-img", &["create", "-q", "-f", name, path.to_str().unwrap(), "96M"]);
            let met = disk(&path, None).unwrap_err().to_string();
            assert_eq!(met, format!("image format {name}, of a disk of {} bytes, is not supported", 96 << 20));
        }
    }
    let met = disk(&file("disk.vmdk", b"KDMV\x01\0\0\0"), None);
    assert!(matches!(met, Err(Error::Corrupt { structure: "vmdk sparse extent header", .. })), "{met:?}");
    for name in ["case.E01", "disk.hdd", "disk.qed", "mac.dmg"] {
        let met = disk(&file(name, b"this is not a disk\n"), None).unwrap_err().to_string();
        assert!(met.contains("by its name"), "{name}: {met}");
    }
    let met = disk(&file("half.qcow2", b"QFI\xfb\0\0\0\x03half"), None);
    assert!(matches!(met, Err(Error::Corrupt { structure: "qcow2 header", .. })), "{met:?}");
    let met = disk(&home.path().join("absent.qcow2"), None);
    assert!(matches!(met, Err(Error::NotFound { .. })), "{met:?}");
    let met = disk(home.path(), None);
    assert!(matches!(met, Err(Error::NotAnImage { found: "a directory", .. })), "{met:?}");
}

#[test]
fn the_checksum_is_that_of_the_file_as_it_lies() {
    if !has_tool("sha256sum") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("disk.raw");
    std::fs::write(&path, Noise::new(4).disk(3 * MIB + 17)).unwrap();
    let said = String::from_utf8(run("sha256sum", &[text(&path)])).unwrap();
    let mut steps = Vec::new();
    let found = sha256(&path, &Roots::anywhere(), &Limits::default(), |done, total| {
        steps.push((done, total));
        Ok(())
    });
    assert_eq!(found.unwrap(), said.split_whitespace().next().unwrap());
    let total = 3 * MIB as u64 + 17;
    assert_eq!(steps, [(1 << 20, total), (2 << 20, total), (3 << 20, total), (total, total)]);
    let stopped = sha256(&path, &Roots::anywhere(), &Limits::default(), |_, _| {
        Err(Error::LimitReached { which: Limit::Time, value: 0 })
    });
    assert!(stopped.is_err());
}

fn sha256_of(image: &guestkit::image::Image, length: Option<u64>) -> String {
    use sha2::Digest as _;
    let source = image.source();
    let length = length.unwrap_or(source.len());
    let mut hash = sha2::Sha256::new();
    let mut piece = vec![0; MIB];
    let mut at = 0;
    while at < length {
        let count = usize::try_from(length - at).unwrap().min(MIB);
        source.read_exact_at(&mut piece[..count], at).unwrap();
        hash.update(&piece[..count]);
        at += count as u64;
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The truth is `truth/qemu-img.json`, made by qemu-img from each image of the corpus.
#[test]
fn the_images_of_the_corpus_read_as_qemu_img_read_them() {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("disk-formats");
    let truth: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("truth/qemu-img.json")).unwrap()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut read = 0;
    // VHD and VHDX are read in `virtual_disks`.
    for (name, said) in truth.as_object().unwrap().iter().filter(|(name, _)| !name.contains(".vhd")) {
        let path = if name.ends_with(".gz") {
            let path = home.path().join(name.trim_end_matches(".gz").replace('/', "-"));
            // What is in here is not read yet: the start is enough to see that it is named.
            let command = format!("gzip -dc {} | head -c 1048576", folder.join(name).display());
            std::fs::write(&path, run("sh", &["-c", &command])).unwrap();
            path
        } else {
            folder.join(name)
        };
        let image = open(&path, None);
        let format = said["format"].as_str().and_then(Format::from_name);
        match (format.filter(|format| Format::READ.contains(format)), said["content_sha256"].as_str()) {
            // What qemu-img takes for raw bytes is an archive with a truncated disk.
            _ if name.ends_with(".ova") => assert!(matches!(image, Err(Error::Corrupt { .. })), "{name}: {image:?}"),
            (Some(format), Some(expected)) => {
                let image = image.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(format, image.top().unwrap().format, "{name}");
                assert_eq!(said["virtual_size"], image.top().unwrap().virtual_size_bytes, "{name}");
                // Of a raw file that ends within a sector, the truth has the file's bytes.
                let raw_length = said["file_size"].as_u64().filter(|_| said["format"] == "raw");
                assert_eq!(sha256_of(&image, raw_length), expected, "{name}");
                read += 1;
            }
            (Some(_), None) => assert!(matches!(image, Err(Error::NotFound { .. })), "{name}: its base is absent"),
            (None, _) => {
                let refused = matches!(
                    image,
                    Err(Error::Unsupported { .. }
                        | Error::Corrupt { .. }
                        | Error::NotFound { .. }
                        | Error::LimitReached { .. })
                );
                assert!(refused, "{name}: {image:?}");
            }
        }
    }
    println!("{read} images of the corpus agree with qemu-img");
    assert!(read >= 12, "{read} images read");
}

/// Mutations of good headers and tables: none may panic, hang or allocate by what they say.
#[test]
fn mutated_images_end_in_an_answer() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let raw = home.path().join("disk.raw");
    std::fs::write(&raw, Noise::new(5).disk(MIB)).unwrap();
    let path = home.path().join("disk.qcow2");
    let cases: [&[&str]; 4] = [
        &["-o", "cluster_size=4k"],
        &["-c", "-o", "compression_type=zstd"],
        &["-c", "-o", "cluster_size=4k"],
        &["-o", "extended_l2=on,cluster_size=16k"],
    ];
    for options in cases {
        run("qemu-img", &[&["convert", "-O", "qcow2"], options, &[text(&raw), text(&path)]].concat());
        let good = std::fs::read(&path).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let mut noise = Noise::new(6);
        let mut piece = vec![0; 70_000];
        for _ in 0..1500 {
            let mut places = Vec::new();
            for _ in 0..1 + noise.below(5) {
                let area = [112, 4096, good.len().min(64 << 10), good.len()][noise.below(4)];
                places.push(noise.below(area));
            }
            for at in &places {
                let byte = if noise.below(3) == 0 { 0xff } else { noise.next() as u8 };
                file.write_all_at(&[byte], *at as u64).unwrap();
            }
            let started = std::time::Instant::now();
            if let Ok(image) = open(&path, Some(Format::Qcow2)) {
                let source = image.source();
                for _ in 0..8 {
                    let at = noise.next() % source.len().max(1);
                    let length = usize::try_from((source.len() - at).min(piece.len() as u64)).unwrap();
                    let _ = source.read_exact_at(&mut piece[..length], at);
                }
            }
            assert!(started.elapsed() < std::time::Duration::from_secs(2));
            for at in places {
                file.write_all_at(&good[at..=at], at as u64).unwrap();
            }
        }
    }
}
