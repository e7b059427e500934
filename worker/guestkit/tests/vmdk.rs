//! VMware's disks, and appliances that hold them; the truth is `qemu-img`: what it makes we read, and what it reads of
//! images built here by the specification we read too.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use guestkit::image::{self, Format, Roots};
use guestkit::{Disk, Error, ImageSpec, Limits, Result};
use support::{Noise, assert_same, contents, has_tool, open, run};

const MIB: usize = 1 << 20;
const GRAIN: usize = 64 << 10;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Reads small pieces at random places, as a file system does.
fn check_random_reads(path: &Path, expected: &[u8], noise: &mut Noise) {
    let source = open(path, None).unwrap().source();
    for _ in 0..300 {
        let at = noise.below(expected.len());
        let length = noise.below(200_000).min(expected.len() - at);
        let mut piece = vec![0; length];
        source.read_exact_at(&mut piece, at as u64).unwrap();
        assert_same(&piece, &expected[at..at + length], text(path));
    }
}

fn converted(path: &Path, format: &str) -> Vec<u8> {
    let flat = path.with_extension("flat");
    run("qemu-img", &["convert", "-f", format, "-O", "raw", text(path), text(&flat)]);
    std::fs::read(flat).unwrap()
}

#[test]
fn every_kind_of_vmdk_that_qemu_img_makes_reads_as_what_it_was_made_from() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let raw = home.path().join("disk.raw");
    let mut noise = Noise::new(11);
    let disk = noise.disk(5 * MIB + 512);
    std::fs::write(&raw, &disk).unwrap();
    for (name, options) in [
        ("sparse", "subformat=monolithicSparse"),
        ("sparse-zeroed-grains", "subformat=monolithicSparse,zeroed_grain=on"),
        ("flat", "subformat=monolithicFlat"),
        ("split-sparse", "subformat=twoGbMaxExtentSparse"),
        ("split-flat", "subformat=twoGbMaxExtentFlat"),
        ("stream", "subformat=streamOptimized"),
    ] {
        let path = home.path().join(format!("{name}.vmdk"));
        run("qemu-img", &["convert", "-O", "vmdk", "-o", options, text(&raw), text(&path)]);
        for stated in [Some(Format::Vmdk), None] {
            let image = open(&path, stated).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_same(&contents(&image), &disk, name);
        }
        check_random_reads(&path, &disk, &mut noise);
        check_info(&path);
    }
}

#[test]
fn where_the_directory_leads_nowhere_its_copy_is_followed() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (raw, path) = (home.path().join("disk.raw"), home.path().join("disk.vmdk"));
    let disk = Noise::new(12).disk(5 * MIB);
    std::fs::write(&raw, &disk).unwrap();
    run("qemu-img", &["convert", "-O", "vmdk", text(&raw), text(&path)]);
    let sound = std::fs::read(&path).unwrap();
    let directory = usize::try_from(u64::from_le_bytes(sound[56..64].try_into().unwrap())).unwrap() * 512;
    // Its first entry, or the header's word of where it lies.
    for at in [directory, 56] {
        let mut broken = sound.clone();
        broken[at..at + 4].fill(0xee);
        std::fs::write(&path, &broken).unwrap();
        assert_same(&contents(&open(&path, None).unwrap()), &disk, "the copy");
        // Without the flag that says that there is one.
        broken[8] &= !2;
        std::fs::write(&path, &broken).unwrap();
        let met = open(&path, None).and_then(|image| image.source().read_exact_at(&mut [0; 512], 0));
        assert!(matches!(met, Err(Error::Corrupt { .. })), "{met:?}");
    }
}

/// `qemu-img info` names the same format, sizes and content id.
fn check_info(path: &Path) {
    let said: serde_json::Value =
        serde_json::from_slice(&run("qemu-img", &["info", "--output=json", text(path)])).unwrap();
    let image = open(path, None).unwrap();
    let layer = image.top().unwrap();
    assert_eq!(said["format"], layer.format.name());
    assert_eq!(said["virtual-size"], layer.virtual_size_bytes);
    assert_eq!(said["cluster-size"].as_u64(), layer.cluster_size_bytes, "{}", path.display());
    let specific = &said["format-specific"]["data"];
    assert_eq!(specific["cid"].as_u64(), layer.content_id.map(u64::from));
    let packed = specific["extents"][0]["compressed"].as_bool().unwrap_or(false);
    assert_eq!(packed, layer.compression.is_some(), "{}", path.display());
}

#[test]
fn a_disk_of_several_extents_is_read_across_their_bounds() {
    if !has_tool("qemu-img") || !has_tool("qemu-io") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    for kind in ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        let path = home.path().join(format!("{kind}.vmdk"));
        let options = format!("subformat={kind}");
        run("qemu-img", &["create", "-q", "-f", "vmdk", "-o", &options, text(&path), "5G"]);
        for command in ["write -P 17 2147418112 128k", "write -P 18 4294705152 512k", "write -P 19 5368643584 64k"] {
            run("qemu-io", &["-f", "vmdk", "-c", command, text(&path)]);
        }
        let image = open(&path, None).unwrap();
        assert_eq!(image.source().len(), 5 << 30);
        for (pattern, at, length) in
            [(17, 2_147_418_112, 128 << 10), (18, 4_294_705_152, 512 << 10), (19, 5_368_643_584, 64 << 10)]
        {
            let mut piece = vec![0; length];
            image.source().read_exact_at(&mut piece, at).unwrap();
            assert_same(&piece, &vec![pattern; length], kind);
            let mut before = vec![1; 4096];
            image.source().read_exact_at(&mut before, at - 4096).unwrap();
            assert_same(&before, &vec![0; 4096], kind);
        }
    }
}

#[test]
fn a_chain_of_deltas_reads_as_qemu_img_reads_it() {
    if !has_tool("qemu-img") || !has_tool("qemu-io") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    std::fs::write(at("base.raw"), Noise::new(12).disk(5 * MIB)).unwrap();
    run("qemu-img", &["convert", "-O", "vmdk", text(&at("base.raw")), text(&at("base.vmdk"))]);
    let create = |name: &str, below: &str, options: &str| {
        let new = at(name);
        run("qemu-img", &["create", "-q", "-f", "vmdk", "-b", below, "-F", "vmdk", "-o", options, text(&new)]);
    };
    let write = |name: &str, commands: &[&str]| {
        for command in commands {
            run("qemu-io", &["-f", "vmdk", "-c", command, text(&at(name))]);
        }
    };
    create("one.vmdk", "base.vmdk", "zeroed_grain=on");
    write("one.vmdk", &["write -P 17 100k 3k", "write -z 1M 256k", "write -P 3 4M 70k"]);
    create("two.vmdk", "one.vmdk", "subformat=twoGbMaxExtentSparse");
    write("two.vmdk", &["write -P 99 1028k 5k", "write -P 1 4200k 512"]);
    for name in ["one.vmdk", "two.vmdk"] {
        let expected = converted(&at(name), "vmdk");
        assert_same(&contents(&open(&at(name), Some(Format::Vmdk)).unwrap()), &expected, name);
        check_random_reads(&at(name), &expected, &mut Noise::new(13));
    }
    let image = open(&at("two.vmdk"), None).unwrap();
    let names: Vec<_> = image.layers().iter().map(|layer| layer.path.clone()).collect();
    assert_eq!(names, [at("two.vmdk"), at("one.vmdk"), at("base.vmdk")]);

    // A parent that was written after the delta was begun is refused, as by VMware and QEMU.
    write("base.vmdk", &["write -P 5 0 64k"]);
    let met = open(&at("two.vmdk"), None).map(drop);
    assert!(matches!(&met, Err(Error::Corrupt { structure: "vmdk chain", .. })), "{met:?}");
    std::fs::remove_file(at("base.vmdk")).unwrap();
    let met = open(&at("two.vmdk"), None).map(drop);
    assert!(matches!(&met, Err(Error::NotFound { path }) if *path == at("base.vmdk")), "{met:?}");
}

fn descriptor(kind: &str, parent: Option<(&str, &str)>, extents: &[&str]) -> String {
    let (parent_id, hint) = match parent {
        Some((id, name)) => (id, format!("parentFileNameHint=\"{name}\"\n")),
        None => ("ffffffff", String::new()),
    };
    let extents = extents.join("\n");
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID={parent_id}\ncreateType=\"{kind}\"\n{hint}{extents}\n"
    )
}

fn put(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    if bytes.len() < at + what.len() {
        bytes.resize(at + what.len(), 0);
    }
    bytes[at..at + what.len()].copy_from_slice(what);
}

fn is_hole(grain: &[u8]) -> bool {
    grain.iter().all(|byte| *byte == 0)
}

/// "ESX Server Sparse Extents": grains of one sector, tables of 4096.
fn cowd(disk: &[u8]) -> Vec<u8> {
    let (sectors, grain) = (disk.len() / 512, 512);
    let tables = sectors.div_ceil(4096);
    let mut file = vec![0; 2048];
    for (at, value) in [(4, 1), (8, 3), (12, sectors), (16, 1), (20, 4), (24, tables)] {
        put(&mut file, at, &(value as u32).to_le_bytes());
    }
    put(&mut file, 0, b"COWD");
    let mut next = (4 + (tables * 4).div_ceil(512)) * 512;
    for (table, part) in disk.chunks(4096 * grain).enumerate() {
        if is_hole(part) {
            continue;
        }
        let start = next;
        put(&mut file, 2048 + table * 4, &((start / 512) as u32).to_le_bytes());
        next += 4096 * 4;
        for (index, bytes) in part.chunks(grain).enumerate().filter(|(_, bytes)| !is_hole(bytes)) {
            put(&mut file, start + index * 4, &((next / 512) as u32).to_le_bytes());
            put(&mut file, next, bytes);
            next += grain;
        }
    }
    file.resize(next.max(file.len()), 0);
    file
}

/// seSparse as QEMU describes it: grains of 4 KiB, tables of 4096 entries of 64 bits.
fn se_sparse(disk: &[u8]) -> Vec<u8> {
    let tables = disk.len().div_ceil(4096 * 4096);
    let (tables_at, grains_at) = (128 << 9, (128 << 9) + tables * 32768);
    let mut file = vec![0; grains_at];
    for (at, value) in [
        (0, 0xcafe_babe_u64),
        (8, 0x2_0000_0001),
        (16, (disk.len() / 512) as u64),
        (24, 8),
        (32, 64),
        (80, 1),
        (88, 1),
        (128, 64),
        (136, 1),
        (144, tables_at as u64 >> 9),
        (152, tables as u64 * 64),
        (192, grains_at as u64 >> 9),
        (512, 0xcafe_cafe),
    ] {
        put(&mut file, at, &value.to_le_bytes());
    }
    let mut next = 0_u64;
    for (table, part) in disk.chunks(4096 * 4096).enumerate() {
        put(&mut file, (64 << 9) + table * 8, &(0x1000_0000_0000_0000 | table as u64).to_le_bytes());
        for (index, bytes) in part.chunks(4096).enumerate() {
            let entry = match (is_hole(bytes), index % 3) {
                (true, 0) => 0,
                (true, 1) => 0x1000_0000_0000_0000,
                (true, _) => 0x2000_0000_0000_0000,
                (false, _) => {
                    put(&mut file, grains_at + next as usize * 4096, bytes);
                    next += 1;
                    let number = next - 1;
                    0x3000_0000_0000_0000 | (number & 0xfff) << 48 | number >> 12
                }
            };
            put(&mut file, tables_at + table * 32768 + index * 8, &entry.to_le_bytes());
        }
    }
    file
}

/// "Stream-Optimized Compressed Sparse Extents" as VMware's own tools write them: markers, and the directory behind.
fn stream(disk: &[u8], embedded: &str) -> Vec<u8> {
    let capacity = disk.len().div_ceil(512) as u64;
    let header = |directory: u64| {
        let mut header = vec![0; 512];
        put(&mut header, 0, b"KDMV\x03\0\0\0\x01\0\x03\0");
        for (at, value) in [(12, capacity), (20, 128), (28, 1), (36, 20), (56, directory), (64, 128)] {
            put(&mut header, at, &value.to_le_bytes());
        }
        put(&mut header, 44, &512_u32.to_le_bytes());
        put(&mut header, 73, b"\n \r\n\x01\0");
        header
    };
    let marker = |sectors: u64, kind: u32| {
        let mut marker = vec![0; 512];
        put(&mut marker, 0, &sectors.to_le_bytes());
        put(&mut marker, 12, &kind.to_le_bytes());
        marker
    };
    let mut file = header(u64::MAX);
    put(&mut file, 512, embedded.as_bytes());
    file.resize(128 * 512, 0);
    let mut directory = Vec::new();
    for (table, part) in disk.chunks(512 * GRAIN).enumerate() {
        let mut entries = vec![0; 2048];
        for (index, bytes) in part.chunks(GRAIN).enumerate().filter(|(_, bytes)| !is_hole(bytes)) {
            put(&mut entries, index * 4, &((file.len() / 512) as u32).to_le_bytes());
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            let packed = encoder.finish().unwrap();
            file.extend(((table * 512 + index) as u64 * 128).to_le_bytes());
            file.extend((packed.len() as u32).to_le_bytes());
            file.extend(packed);
            file.resize(file.len().next_multiple_of(512), 0);
        }
        file.extend(marker(4, 1));
        directory.extend(((file.len() / 512) as u32).to_le_bytes());
        file.extend(entries);
    }
    directory.resize(directory.len().next_multiple_of(512), 0);
    file.extend(marker(directory.len() as u64 / 512, 2));
    let place = file.len() as u64 / 512;
    file.extend(directory);
    file.extend(marker(1, 3));
    file.extend(header(place));
    file.extend(marker(0, 0));
    file
}

#[test]
fn what_only_vmware_writes_is_read_by_its_specification() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let mut noise = Noise::new(14);
    let mut disk = noise.disk(18 * MIB);
    disk[3 * MIB..14 * MIB].fill(0);
    let sectors = disk.len() / 512;
    let line = |kind: &str, name: &str| format!("RW {sectors} {kind} \"{name}\"");
    std::fs::write(at("cowd-delta.vmdk"), cowd(&disk)).unwrap();
    std::fs::write(at("cowd.vmdk"), descriptor("vmfsSparse", None, &[&line("VMFSSPARSE", "cowd-delta.vmdk")])).unwrap();
    std::fs::write(at("se-sesparse.vmdk"), se_sparse(&disk)).unwrap();
    std::fs::write(at("se.vmdk"), descriptor("seSparse", None, &[&line("SESPARSE", "se-sesparse.vmdk")])).unwrap();
    let embedded = descriptor("streamOptimized", None, &[&line("SPARSE", "stream.vmdk")]);
    std::fs::write(at("stream.vmdk"), stream(&disk, &embedded)).unwrap();
    std::fs::write(at("thick-flat.vmdk"), &disk).unwrap();
    std::fs::write(at("thick.vmdk"), descriptor("vmfs", None, &[&line("VMFS", "thick-flat.vmdk")])).unwrap();
    for name in ["cowd.vmdk", "se.vmdk", "stream.vmdk", "thick.vmdk"] {
        let image = open(&at(name), None).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_same(&contents(&image), &disk, name);
        assert_same(&converted(&at(name), "vmdk"), &disk, "what qemu-img reads");
        check_random_reads(&at(name), &disk, &mut noise);
        check_info(&at(name));
    }
    for (name, kind) in [("cowd-delta.vmdk", "COWD"), ("se-sesparse.vmdk", "seSparse")] {
        let met = open(&at(name), None).map(drop);
        assert!(matches!(&met, Err(Error::Unsupported { what }) if what.contains(kind)), "{met:?}");
    }

    // Zeros between, a part of a file, a part twice: QEMU reads no such disk, the specification describes it.
    let mixed = ["RW 100 ZERO", "RDONLY 64 FLAT \"thick-flat.vmdk\" 8", "RW 3 ZERO", "RW 2 FLAT \"thick-flat.vmdk\" 9"];
    std::fs::write(at("mixed.vmdk"), descriptor("custom", None, &mixed)).unwrap();
    let found = contents(&open(&at("mixed.vmdk"), None).unwrap());
    let expected = [&vec![0; 51_200], &disk[4096..36_864], &[0; 1536], &disk[4608..5632]].concat();
    assert_same(&found, &expected, "mixed");

    // A delta over each: what it does not hold is the parent's.
    let mut above = vec![0; disk.len()];
    above[MIB..2 * MIB].fill(9);
    std::fs::write(at("above-delta.vmdk"), cowd(&above)).unwrap();
    let mut expected = disk.clone();
    expected[MIB..2 * MIB].fill(9);
    for below in ["cowd.vmdk", "se.vmdk", "stream.vmdk", "thick.vmdk"] {
        let moved = [format!("/vmfs/volumes/5f0c/vm/{below}"), format!("C:\\VMs\\{below}")];
        // Where it moved from matters for none of them more than for another.
        for hint in [below.to_owned()].into_iter().chain(moved.into_iter().filter(|_| below == "thick.vmdk")) {
            let extent = line("VMFSSPARSE", "above-delta.vmdk");
            std::fs::write(at("above.vmdk"), descriptor("vmfsSparse", Some(("12345678", &hint)), &[&extent])).unwrap();
            let image = open(&at("above.vmdk"), None).unwrap_or_else(|error| panic!("{hint}: {error}"));
            assert_same(&contents(&image), &expected, &hint);
            assert_eq!(image.warnings().len(), usize::from(hint != below), "{:?}", image.warnings());
        }
    }
}

fn open_beneath(path: &Path, root: &Path) -> Result<()> {
    image::open(path, None, &Roots::beneath([root]).unwrap(), &support::budget()).map(drop)
}

#[test]
fn what_a_descriptor_may_not_name_is_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("images");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(home.path().join("outside.vmdk"), [1; 1024]).unwrap();
    std::fs::write(root.join("inside.vmdk"), [1; 1024]).unwrap();
    let path = root.join("disk.vmdk");
    for named in
        ["/etc/passwd", "../outside.vmdk", "../../../../../../etc/passwd", "/dev/zero", "nbd://host/x", "json:{}"]
    {
        let extent = format!("RW 2 FLAT \"{named}\" 0");
        std::fs::write(&path, descriptor("monolithicFlat", None, &[&extent])).unwrap();
        let met = open_beneath(&path, &root);
        assert!(matches!(met, Err(Error::AccessDenied { .. })), "{named}: {met:?}");
        let extent = "RW 2 FLAT \"inside.vmdk\" 0";
        std::fs::write(&path, descriptor("monolithicFlat", Some(("12345678", named)), &[extent])).unwrap();
        let met = open_beneath(&path, &root);
        assert!(matches!(met, Err(Error::AccessDenied { .. })), "{named}: {met:?}");
    }
    let check = |text: String, expected: &str| {
        std::fs::write(&path, text).unwrap();
        let met = open_beneath(&path, &root).unwrap_err().to_string();
        assert!(met.contains(expected), "{met}");
    };
    let flat = "RW 2 FLAT \"inside.vmdk\" 0";
    check(descriptor("monolithicFlat", None, &["RW 2 FLAT \"absent.vmdk\" 0"]), "absent.vmdk does not exist");
    check(descriptor("monolithicFlat", Some(("12345678", "disk.vmdk")), &[flat]), "the chain comes back");
    check(descriptor("monolithicFlat", Some(("12345678", "inside.vmdk")), &[flat]), "stated to be vmdk");
    check(descriptor("vmfsRawDeviceMap", None, &["RW 2 VMFSRDM \"inside.vmdk\""]), "extent type VMFSRDM");
    check(descriptor("monolithicFlat", None, &["NOACCESS 2 FLAT \"inside.vmdk\" 0"]), "NOACCESS FLAT");
    check(descriptor("monolithicFlat", None, &[]), "lists no extent");
    check(descriptor("monolithicFlat", None, &["RW 99999999999999999 ZERO"]), "larger than a disk");
    check(descriptor("twoGbMaxExtentSparse", None, &["RW 2 SPARSE \"inside.vmdk\""]), "any of their magics");

    // A file that ends too early is no file of zeros.
    std::fs::write(&path, descriptor("monolithicFlat", None, &["RW 4 FLAT \"inside.vmdk\" 0"])).unwrap();
    let source = open(&path, None).unwrap().source();
    let mut piece = [0; 512];
    source.read_exact_at(&mut piece, 512).unwrap();
    let met = source.read_exact_at(&mut piece, 1024);
    assert!(matches!(met, Err(Error::Corrupt { structure: "vmdk flat extent", .. })), "{met:?}");
}

#[test]
fn a_raw_base_that_looks_like_a_descriptor_names_nothing() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    std::fs::write(at("secret"), [42; 4096]).unwrap();
    std::fs::write(at("guest.raw"), descriptor("monolithicFlat", None, &["RW 8 FLAT \"secret\" 0"])).unwrap();
    let overlay = at("overlay.qcow2");
    run("qemu-img", &["create", "-q", "-u", "-f", "qcow2", "-b", "guest.raw", "-F", "raw", text(&overlay), "1M"]);
    let mut start = [0; 22];
    open(&overlay, None).unwrap().source().read_exact_at(&mut start, 0).unwrap();
    assert_eq!(&start, b"# Disk DescriptorFile\n");
    let mut bytes = std::fs::read(&overlay).unwrap();
    let place = bytes.windows(4).position(|window| window == [0xe2, 0x79, 0x2a, 0xca]).unwrap();
    put(&mut bytes, place, &[0x12, 0x34, 0x56, 0x78]);
    std::fs::write(&overlay, bytes).unwrap();
    let met = open(&overlay, None).map(drop);
    assert!(matches!(met, Err(Error::AccessDenied { .. })), "a guessed backing file names no other: {met:?}");
}

fn ovf(disks: &[(&str, &str)]) -> String {
    let files: String = disks
        .iter()
        .map(|(name, attributes)| format!("<File ovf:href=\"{name}\" ovf:id=\"{name}\" {attributes}/>"))
        .collect();
    let disks: String = disks
        .iter()
        .map(|(name, _)| format!("<Disk ovf:diskId=\"d-{name}\" ovf:fileRef=\"{name}\" ovf:format=\"http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized\"/>"))
        .collect();
    format!(
        "<?xml version=\"1.0\"?><Envelope xmlns:ovf=\"x\"><References>{files}</References><DiskSection>{disks}</DiskSection><VirtualSystem/></Envelope>"
    )
}

#[test]
fn the_disks_of_an_appliance_are_read_in_place() {
    if !has_tool("qemu-img") || !has_tool("tar") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let long = format!("{}-disk3.vmdk", "x".repeat(120));
    let mut disks = Vec::new();
    for (seed, name) in [(15, "a b-disk1.vmdk"), (16, "disk2.vmdk"), (17, long.as_str())] {
        let disk = Noise::new(seed).disk(3 * MIB);
        std::fs::write(at("disk.raw"), &disk).unwrap();
        let options = "subformat=streamOptimized";
        run("qemu-img", &["convert", "-O", "vmdk", "-o", options, text(&at("disk.raw")), text(&at(name))]);
        disks.push(disk);
    }
    let names = [("a%20b-disk1.vmdk", ""), ("disk2.vmdk", ""), (long.as_str(), "")];
    std::fs::write(at("vm.ovf"), ovf(&names)).unwrap();
    for format in ["ustar", "pax", "gnu"] {
        let path = at(&format!("{format}.ova"));
        let members = ["vm.ovf", "a b-disk1.vmdk", "disk2.vmdk", &long];
        // ustar cannot hold the long name.
        let members = if format == "ustar" { &members[..3] } else { &members[..] };
        let listed = if format == "ustar" { &names[..2] } else { &names[..] };
        std::fs::write(at("vm.ovf"), ovf(listed)).unwrap();
        run("tar", &[&["-C", text(home.path()), "--format", format, "-cf", text(&path)], members].concat());
        let images = image::open_all(&path, None, &Roots::anywhere(), &image::stay_locked, &support::budget()).unwrap();
        assert_eq!(images.len(), listed.len());
        for (image, disk) in images.iter().zip(&disks) {
            assert_same(&contents(image), disk, format);
            let formats: Vec<_> = image.layers().iter().map(|layer| layer.format).collect();
            assert_eq!(formats, [Format::Ova, Format::Vmdk]);
            assert_eq!(image.top().unwrap().virtual_size_bytes, 3 * MIB as u64);
        }
        let first = open(&path, Some(Format::Ova)).unwrap();
        assert!(first.warnings()[0].contains("disk2.vmdk"), "{:?}", first.warnings());
        let machine = Disk::open(&[ImageSpec::recognised(&path)], &Roots::anywhere(), &Limits::default()).unwrap();
        assert_eq!(machine.drives().last().unwrap().name, ["/dev/sdb", "/dev/sdc"][listed.len() - 2]);
    }

    let pack = |descriptor: String, members: &[&str]| {
        std::fs::write(at("vm.ovf"), descriptor).unwrap();
        let path = at("refused.ova");
        let arguments = ["-C", text(home.path()), "--format", "ustar", "-cf", text(&path), "vm.ovf"];
        run("tar", &[&arguments, members].concat());
        open(&path, None).map(drop).unwrap_err().to_string()
    };
    let met = pack(ovf(&[("disk2.vmdk", "ovf:compression=\"gzip\"")]), &["disk2.vmdk"]);
    assert!(met.contains("compressed by gzip"), "{met}");
    let met = pack(ovf(&[("other.vmdk", "")]), &["disk2.vmdk"]);
    assert!(met.contains("other.vmdk, which is not in the archive"), "{met}");
    let met = pack(ovf(&[]), &["disk2.vmdk"]);
    assert!(met.contains("no disk"), "{met}");
    std::fs::write(at("names.vmdk"), descriptor("monolithicFlat", None, &["RW 2 FLAT \"/etc/passwd\" 0"])).unwrap();
    let met = pack(ovf(&[("names.vmdk", "")]), &["names.vmdk"]);
    assert!(met.contains("may not name further files"), "{met}");
    std::fs::write(at("gzip.vmdk"), [0x1f, 0x8b, 8, 0]).unwrap();
    let met = pack(ovf(&[("gzip.vmdk", "")]), &["gzip.vmdk"]);
    assert!(met.contains("compressed as a whole by gzip"), "{met}");
    std::fs::write(at("plain.vmdk"), [7; 4096]).unwrap();
    let met = pack(ovf(&[("plain.vmdk", "")]), &["plain.vmdk"]);
    assert!(met.contains("stated to be vmdk"), "{met}");
    run("tar", &["-C", text(home.path()), "-cf", text(&at("plain.tar")), "plain.vmdk"]);
    let met = open(&at("plain.tar"), None).map(drop).unwrap_err().to_string();
    assert_eq!(met, "image format tar archive is not supported");
}

/// Opens the image and reads all of it, or a sample where it claims to be large.
fn exercise(path: &Path, noise: &mut Noise) -> Result<Vec<u8>> {
    let source = open(path, None)?.source();
    let length = source.len();
    if length <= 8 * MIB as u64 {
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        source.read_exact_at(&mut bytes, 0)?;
        return Ok(bytes);
    }
    let mut piece = vec![0; 200_000];
    for _ in 0..8 {
        let at = noise.next() % length;
        let count = usize::try_from((length - at).min(piece.len() as u64)).unwrap();
        let _ = source.read_exact_at(&mut piece[..count], at);
    }
    Ok(Vec::new())
}

/// A small image of each kind, and the file of it that is to be damaged.
fn victims(home: &Path, disk: &[u8]) -> Vec<(std::path::PathBuf, std::path::PathBuf)> {
    let at = |name: &str| home.join(name);
    let sectors = disk.len() / 512;
    let line = |kind: &str, name: &str| format!("RW {sectors} {kind} \"{name}\"");
    let text =
        |name: &str, kind: &str, extent: String| std::fs::write(at(name), descriptor(kind, None, &[&extent])).unwrap();
    std::fs::write(at("c-delta.vmdk"), cowd(disk)).unwrap();
    text("c.vmdk", "vmfsSparse", line("VMFSSPARSE", "c-delta.vmdk"));
    std::fs::write(at("e-sesparse.vmdk"), se_sparse(disk)).unwrap();
    text("e.vmdk", "seSparse", line("SESPARSE", "e-sesparse.vmdk"));
    let embedded = descriptor("streamOptimized", None, &[&line("SPARSE", "s.vmdk")]);
    std::fs::write(at("s.vmdk"), stream(disk, &embedded)).unwrap();
    std::fs::write(at("vm.ovf"), ovf(&[("s.vmdk", "")])).unwrap();
    run(
        "tar",
        &["-C", home.to_str().unwrap(), "--format", "ustar", "-cf", at("a.ova").to_str().unwrap(), "vm.ovf", "s.vmdk"],
    );
    [
        ("c.vmdk", "c-delta.vmdk"),
        ("c.vmdk", "c.vmdk"),
        ("e.vmdk", "e-sesparse.vmdk"),
        ("s.vmdk", "s.vmdk"),
        ("a.ova", "a.ova"),
    ]
    .map(|(image, file)| (at(image), at(file)))
    .to_vec()
}

#[test]
fn mutated_images_end_in_an_answer() {
    if !has_tool("tar") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let disk = Noise::new(18).disk(MIB);
    for (image, file) in victims(home.path(), &disk) {
        let good = std::fs::read(&file).unwrap();
        let mut noise = Noise::new(19);
        for _ in 0..250 {
            let mut bytes = good.clone();
            for _ in 0..1 + noise.below(5) {
                let area = [80, 2560.min(good.len()), good.len().min(160 << 10), good.len()][noise.below(4)];
                bytes[noise.below(area)] = if noise.below(3) == 0 { 0xff } else { noise.next() as u8 };
            }
            std::fs::write(&file, &bytes).unwrap();
            let started = Instant::now();
            let _ = exercise(&image, &mut noise);
            assert!(started.elapsed() < Duration::from_secs(4), "{}", file.display());
        }
        std::fs::write(&file, &good).unwrap();
    }
}

#[test]
fn a_file_that_was_cut_is_never_read_as_zeros() {
    if !has_tool("tar") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut disk = Noise::new(20).disk(MIB);
    disk[MIB - 4096..].fill(7);
    for (image, file) in victims(home.path(), &disk) {
        let good = std::fs::read(&file).unwrap();
        let mut noise = Noise::new(21);
        assert_same(&exercise(&image, &mut noise).unwrap(), &disk, "whole");
        for _ in 0..200 {
            let length = noise.below(good.len());
            std::fs::write(&file, &good[..length]).unwrap();
            match exercise(&image, &mut noise) {
                // The last grain may be cut short, as in QEMU; an appliance may lack what follows its disk.
                Ok(read) if file.ends_with("c-delta.vmdk") || file.ends_with("e-sesparse.vmdk") => {
                    assert!(good.len() - length < 4096, "{length} of {}", good.len());
                    assert_same(&read[..MIB - 4096], &disk[..MIB - 4096], "cut");
                }
                Ok(read) => assert!(read == disk || file.ends_with("c.vmdk"), "{} cut to {length}", file.display()),
                Err(_) => {}
            }
        }
        std::fs::write(&file, &good).unwrap();
    }
}
