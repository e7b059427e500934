//! VDI, VHD and VHDX. The truth is `qemu-img` where it reads an image; of what it does not read, differencing images and
//! sectors of 4096 bytes, images are put together here after their specifications, and the truth is what they were put
//! together from.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guestkit::image::{Format, Roots};
use guestkit::{Error, Limits};
use support::{Noise, assert_same, contents, corpus, has_tool, open, run, unpacked};

const MIB: usize = 1 << 20;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn le32(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn le64(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

/// The bytes `qemu-img convert` gives.
fn flattened(path: &Path, format: &str) -> Vec<u8> {
    let flat = path.with_extension("flat");
    run("qemu-img", &["convert", "-f", format, "-O", "raw", text(path), text(&flat)]);
    let bytes = std::fs::read(&flat).unwrap();
    std::fs::remove_file(&flat).unwrap();
    bytes
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

/// `qemu-img info` names the same sizes.
fn check_info(path: &Path, format: &str) {
    let said: serde_json::Value =
        serde_json::from_slice(&run("qemu-img", &["info", "-f", format, "--output=json", text(path)])).unwrap();
    let image = open(path, None).unwrap();
    let layer = image.top().unwrap();
    assert_eq!(Format::from_name(format), Some(layer.format), "{}", path.display());
    assert_eq!(said["virtual-size"], layer.virtual_size_bytes, "{}", path.display());
    assert_eq!(said["actual-size"], layer.allocated_bytes, "{}", path.display());
    assert_eq!(said["cluster-size"].as_u64(), layer.cluster_size_bytes, "{}", path.display());
}

#[test]
fn what_qemu_img_makes_reads_as_qemu_img_reads_it() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let raw = home.path().join("disk.raw");
    let mut noise = Noise::new(11);
    let mut disk = noise.disk(5 * MIB + 512);
    // Blocks that are not there, then the last one.
    disk.resize(9 * MIB, 0);
    disk.extend(noise.disk(70_144));
    std::fs::write(&raw, &disk).unwrap();
    let cases: [(&str, &str, &[&str]); 11] = [
        ("dynamic", "vdi", &[]),
        ("static", "vdi", &["-o", "static=on"]),
        ("dynamic", "vpc", &[]),
        ("dynamic-exact", "vpc", &["-o", "force_size=on"]),
        ("fixed", "vpc", &["-o", "subformat=fixed"]),
        ("fixed-exact", "vpc", &["-o", "subformat=fixed,force_size=on"]),
        ("dynamic", "vhdx", &[]),
        ("small-blocks", "vhdx", &["-o", "block_size=1M"]),
        ("large-blocks", "vhdx", &["-o", "block_size=256M,log_size=4M"]),
        ("fixed", "vhdx", &["-o", "subformat=fixed,block_size=2M"]),
        ("zero-blocks", "vhdx", &["-o", "block_state_zero=off,block_size=4M"]),
    ];
    for (name, format, options) in cases {
        let path = home.path().join(format!("{name}.{format}"));
        run("qemu-img", &[&["convert", "-O", format], options, &[text(&raw), text(&path)]].concat());
        let expected = flattened(&path, format);
        assert!(expected.starts_with(&disk) || disk.starts_with(&expected), "{name}.{format}");
        let image = open(&path, Format::from_name(format)).unwrap_or_else(|error| panic!("{name}.{format}: {error}"));
        assert_same(&contents(&image), &expected, &format!("{name}.{format}"));
        assert!(image.warnings().is_empty(), "{:?}", image.warnings());
        check_random_reads(&path, &expected, &mut noise);
        check_info(&path, format);
        std::fs::remove_file(&path).unwrap();
    }
}

/// Gives a VHD footer or header its checksum, which stands at `at`.
fn seal_vhd(structure: &mut [u8], at: usize) {
    put(structure, at, &[0; 4]);
    let sum = structure.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    put(structure, at, &(!sum).to_be_bytes());
}

/// Changes both footers of a dynamic VHD.
fn edit_footers(path: &Path, edit: impl Fn(&mut [u8])) {
    let mut bytes = std::fs::read(path).unwrap();
    let end = bytes.len() - 512;
    for at in [0, end] {
        let footer = &mut bytes[at..at + 512];
        edit(footer);
        seal_vhd(footer, 64);
    }
    std::fs::write(path, bytes).unwrap();
}

/// The creator application decides whether a VHD is as large as its geometry or as its current size.
#[test]
fn a_vhd_is_as_large_as_qemu_img_says() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("disk.vhd");
    run("qemu-img", &["create", "-q", "-f", "vpc", "-o", "force_size=on", text(&path), "10000000"]);
    let version = String::from_utf8(run("qemu-img", &["--version"])).unwrap();
    let major: u32 = version.split_whitespace().nth(2).unwrap().split('.').next().unwrap().parse().unwrap();
    for creator in
        [b"vpc ", b"vs  ", b"qemu", b"qem2", b"win ", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0", b"vbox", b"\0\0\0\0"]
    {
        // Older ones take the disks of creators that they do not know for as large as their geometry.
        let is_known_to_all = [b"vpc ", b"qemu", b"qem2", b"win ", b"d2v ", b"tap\0", b"CTXS"].contains(&creator);
        if major < 10 && !is_known_to_all {
            println!("qemu-img {major} does not know the creator {creator:?}");
            continue;
        }
        for geometry in [[0, 100, 4, 17], [0xff, 0xff, 16, 255]] {
            for size in [10_000_384_u64, 9_999_999] {
                edit_footers(&path, |footer| {
                    put(footer, 28, creator);
                    put(footer, 48, &size.to_be_bytes());
                    put(footer, 56, &geometry);
                });
                check_info(&path, "vpc");
            }
        }
    }
}

#[test]
fn a_damaged_footer_is_made_up_for_by_its_copy() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (raw, path) = (home.path().join("disk.raw"), home.path().join("disk.vhd"));
    let disk = Noise::new(12).disk(3 * MIB);
    std::fs::write(&raw, &disk).unwrap();
    run("qemu-img", &["convert", "-O", "vpc", "-o", "force_size=on", text(&raw), text(&path)]);
    let good = std::fs::read(&path).unwrap();
    let end = good.len() - 512;
    let write = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        edit(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        open(&path, Some(Format::Vhd))
    };
    for edit in [
        &(|bytes: &mut Vec<u8>| bytes[end + 50] ^= 1) as &dyn Fn(&mut Vec<u8>),
        &|bytes| bytes[end..].fill(0),
        &|bytes| bytes.truncate(end),
    ] {
        let image = write(edit).unwrap();
        assert_same(&contents(&image), &disk, "by the copy at the start");
        assert!(image.warnings()[0].contains("the copy at its start was used"), "{:?}", image.warnings());
    }
    let image = write(&|bytes| bytes[..512].fill(0)).unwrap();
    assert_same(&contents(&image), &disk, "by the footer at the end");
    // Virtual PC before 2004: a footer of 511 bytes.
    assert_same(&contents(&write(&|bytes| bytes.truncate(end + 511)).unwrap()), &disk, "511 bytes");
    let met = write(&|bytes| {
        bytes[end + 50] ^= 1;
        bytes[50] ^= 1;
    });
    assert!(matches!(met, Err(Error::Corrupt { structure: "vhd footer", .. })), "{met:?}");
    let met = write(&|bytes| bytes[512 + 30] ^= 1).unwrap_err();
    assert!(matches!(met, Error::Corrupt { structure: "vhd dynamic disk header", .. }), "{met:?}");
    let image = write(&|bytes| drop(bytes.drain(end - MIB - MIB / 2..end))).unwrap();
    let met = image.source().read_exact_at(&mut [0; 4096], 3 * MIB as u64 - 4096);
    assert!(matches!(met, Err(Error::Corrupt { structure: "vhd data block", .. })), "{met:?}");
}

/// A dynamic disk of two blocks of 4096 bytes over `parent`: sectors with a true in `here` are in the image.
struct Differencing<'a> {
    data: &'a [u8],
    here: &'a [bool],
    parent_id: [u8; 16],
    locators: &'a [(&'a [u8; 4], Vec<u8>)],
}

const VHD_BLOCK: usize = 4096;

impl Differencing<'_> {
    fn vhd(&self) -> Vec<u8> {
        let blocks = self.data.len() / VHD_BLOCK;
        let mut footer = vec![0; 512];
        put(&mut footer, 0, b"conectix\0\0\0\x02\0\x01\0\0");
        put(&mut footer, 16, &512_u64.to_be_bytes());
        put(&mut footer, 28, b"win ");
        put(&mut footer, 48, &(self.data.len() as u64).to_be_bytes());
        put(&mut footer, 60, &4_u32.to_be_bytes());
        put(&mut footer, 68, &[0xcd; 16]);
        seal_vhd(&mut footer, 64);
        let mut header = vec![0; 1024];
        put(&mut header, 0, b"cxsparse\xff\xff\xff\xff\xff\xff\xff\xff");
        put(&mut header, 16, &1536_u64.to_be_bytes());
        put(&mut header, 24, &0x0001_0000_u32.to_be_bytes());
        put(&mut header, 28, &(blocks as u32).to_be_bytes());
        put(&mut header, 32, &(VHD_BLOCK as u32).to_be_bytes());
        put(&mut header, 40, &self.parent_id);
        let mut bytes = [footer.as_slice(), &[0; 1024], &[0xff; 512]].concat();
        for (index, (platform, path)) in self.locators.iter().enumerate() {
            let entry = 576 + index * 24;
            put(&mut header, entry, *platform);
            put(&mut header, entry + 8, &(path.len() as u32).to_be_bytes());
            put(&mut header, entry + 16, &(bytes.len() as u64).to_be_bytes());
            bytes.extend(path);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        seal_vhd(&mut header, 36);
        put(&mut bytes, 512, &header);
        for block in 0..blocks {
            let here = &self.here[block * 8..block * 8 + 8];
            if here.iter().any(|here| *here) {
                let sector = bytes.len() / 512;
                put(&mut bytes, 1536 + 4 * block, &(sector as u32).to_be_bytes());
                let bitmap = here.iter().fold(0, |bits, here| bits << 1 | u8::from(*here));
                bytes.push(bitmap);
                bytes.extend([0; 511]);
                bytes.extend(&self.data[block * VHD_BLOCK..(block + 1) * VHD_BLOCK]);
            }
        }
        bytes.extend(footer);
        bytes
    }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn a_differencing_vhd_shows_its_parent_where_its_bitmap_says() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    std::fs::create_dir_all(at("vm/snapshots")).unwrap();
    let mut noise = Noise::new(13);
    let below: Vec<u8> = (0..16 * VHD_BLOCK).map(|_| noise.next() as u8).collect();
    let above: Vec<u8> = (0..16 * VHD_BLOCK).map(|_| noise.next() as u8).collect();
    let here: Vec<bool> = (0..16 * 8).map(|sector| sector / 8 % 4 != 1 && noise.below(3) > 0).collect();
    std::fs::write(at("disk.raw"), &below).unwrap();
    let parent = at("vm/base.vhd");
    run("qemu-img", &["convert", "-O", "vpc", "-o", "force_size=on", text(&at("disk.raw")), text(&parent)]);
    let parent_id: [u8; 16] = std::fs::read(&parent).unwrap()[68..84].try_into().unwrap();
    let mut expected = below;
    for (sector, _) in here.iter().enumerate().filter(|(_, here)| **here) {
        put(&mut expected, sector * 512, &above[sector * 512..sector * 512 + 512]);
    }
    let child = at("vm/snapshots/child.avhd");
    let write = |locators: &[(&[u8; 4], Vec<u8>)], parent_id| {
        let image = Differencing { data: &above, here: &here, parent_id, locators };
        std::fs::write(&child, image.vhd()).unwrap();
        open(&child, None)
    };
    std::fs::copy(&parent, at("vm/snapshots/beside.vhd")).unwrap();
    for locator in [
        (b"W2ru", utf16(r"..\base.vhd")),
        (b"W2ru", utf16(r".\beside.vhd")),
        (b"W2ku", utf16(r"D:\Hyper-V\disks\beside.vhd")),
        (b"MacX", b"file://localhost/Users/me/besid%65.vhd\0".to_vec()),
        (b"MacX", b"file://../base.vhd".to_vec()),
    ] {
        let image = write(&[(b"W2ru", utf16(r".\absent.vhd")), locator.clone()], parent_id).unwrap();
        assert_same(&contents(&image), &expected, &format!("{locator:?}"));
        assert_eq!(image.layers().len(), 2);
        check_random_reads(&child, &expected, &mut noise);
    }
    let named = [(b"W2ru", utf16(r"..\base.vhd"))];
    let met = write(&named, [1; 16]);
    assert!(matches!(&met, Err(Error::Corrupt { structure: "backing chain", .. })), "{met:?}");
    let met = write(&[(b"W2ru", utf16(r".\absent.vhd"))], parent_id);
    assert!(matches!(&met, Err(Error::NotFound { path }) if path.ends_with("snapshots/absent.vhd")), "{met:?}");
    let met = write(&[], parent_id);
    assert!(matches!(&met, Err(Error::Corrupt { structure: "parent locator", .. })), "{met:?}");
    let met = write(&[(b"W2ru", utf16(r".\child.avhd"))], [0xcd; 16]);
    assert!(matches!(&met, Err(Error::Corrupt { structure: "backing chain", .. })), "{met:?}");

    write(&named, parent_id).unwrap();
    let policy = Roots::beneath([at("vm/snapshots")]).unwrap();
    let met = guestkit::image::open(&child, None, &policy, &support::budget()).map(drop);
    assert!(matches!(&met, Err(Error::AccessDenied { .. })), "the parent lies outside of the roots: {met:?}");
    let short = guestkit::Budget::new(&Limits { chain_length: 1, ..Limits::default() });
    let met = guestkit::image::open(&child, None, &Roots::anywhere(), &short).map(drop);
    assert!(matches!(met, Err(Error::LimitReached { .. })), "{met:?}");
}

/// The differencing image of dfvfs names its parent as Virtual PC does; the parent itself is not in the corpus, so one is
/// made that is told by its bytes.
#[test]
fn the_differencing_vhd_of_the_corpus_rests_on_the_parent_it_names() {
    let Some(corpus) = corpus() else { return };
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let child = home.path().join("fat-differential.vhd");
    std::fs::copy(corpus.join("disk-formats/dfvfs/fat-differential.vhd"), &child).unwrap();
    let met = open(&child, None);
    assert!(matches!(&met, Err(Error::NotFound { path }) if path.ends_with("fat-parent.vhd")), "{met:?}");
    // qemu-img takes it for a dynamic disk: the sectors of which its bitmap says that they are here are right.
    let alone = flattened(&child, "vpc");
    let raw = home.path().join("disk.raw");
    std::fs::write(&raw, vec![0xee; 4 * MIB]).unwrap();
    let parent = home.path().join("fat-parent.vhd");
    run("qemu-img", &["convert", "-O", "vpc", "-o", "force_size=on", text(&raw), text(&parent)]);
    let bytes = std::fs::read(&child).unwrap();
    edit_footers(&parent, |footer| put(footer, 68, &bytes[512 + 40..512 + 56]));
    let found = contents(&open(&child, None).unwrap());
    assert_eq!(found.len(), alone.len());
    let mut here = 0;
    for (found, alone) in found.chunks(512).zip(alone.chunks(512)) {
        let is_parents = found == [0xee; 512];
        // A sector that is the parent's was never written in the child, so it has only zeros there.
        assert!(if is_parents { alone == [0; 512] } else { found == alone });
        here += usize::from(!is_parents);
    }
    assert!(here > 0, "{here} sectors of the child");
}

/// Seals a VHDX structure with CRC-32C at 4.
fn seal_vhdx(structure: &mut [u8]) {
    put(structure, 4, &[0; 4]);
    let sum = crc32c::crc32c(structure);
    put(structure, 4, &sum.to_le_bytes());
}

/// The GUID whose text is `text`, as it lies in the file.
fn guid(text: &str) -> [u8; 16] {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let [a, b, c, d, e, f, g, h, rest @ ..] = u128::from_str_radix(&digits, 16).unwrap().to_be_bytes();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&[d, c, b, a, f, e, h, g]);
    bytes[8..].copy_from_slice(&rest);
    bytes
}

/// A VHDX of blocks of 1 MiB, put together after [MS-VHDX].
struct VhdxParts<'a> {
    data: &'a [u8],
    sector: usize,
    parent: Option<VhdxParent<'a>>,
    data_guid: [u8; 16],
}

/// For each sector of a differencing disk, whether it is in the file; the pairs of its parent locator.
type VhdxParent<'a> = (&'a [bool], Vec<(&'a str, String)>);

impl VhdxParts<'_> {
    fn build(&self) -> Vec<u8> {
        let mut file = vec![0; 4 * MIB];
        put(&mut file, 0, b"vhdxfile");
        for (at, sequence) in [(64 << 10, 8_u64), (128 << 10, 7)] {
            let header = &mut file[at..at + 4096];
            put(header, 0, b"head");
            put(header, 8, &sequence.to_le_bytes());
            put(header, 32, &self.data_guid);
            put(header, 66, &[1, 0]);
            put(header, 68, &(MIB as u32).to_le_bytes());
            put(header, 72, &(MIB as u64).to_le_bytes());
            seal_vhdx(header);
        }
        for at in [192 << 10, 256 << 10] {
            let table = &mut file[at..at + (64 << 10)];
            put(table, 0, b"regi\0\0\0\0\x02");
            for (entry, id, offset) in [
                (16, "2dc27766-f623-4200-9d64-115e9bfd4a08", 3 * MIB),
                (48, "8b7ca206-4790-4b9a-b8fe-575f050f886e", 2 * MIB),
            ] {
                put(table, entry, &guid(id));
                put(table, entry + 16, &(offset as u64).to_le_bytes());
                put(table, entry + 24, &(MIB as u32).to_le_bytes());
                put(table, entry + 28, &[1]);
            }
            seal_vhdx(table);
        }
        let parameters = [(MIB as u32).to_le_bytes(), [if self.parent.is_some() { 2 } else { 0 }, 0, 0, 0]].concat();
        let mut items = vec![
            ("caa16737-fa36-4d43-b3b6-33f0aa44e76b", parameters),
            ("2fa54224-cd1b-4876-b211-5dbed83bf4b8", (self.data.len() as u64).to_le_bytes().to_vec()),
            ("beca12ab-b2e6-4523-93ef-c309e000c746", vec![3; 16]),
            ("8141bf1d-a96f-4709-ba47-f233a8faab5f", (self.sector as u32).to_le_bytes().to_vec()),
            ("cda348c7-445d-4471-9cc9-e9885251c556", 4096_u32.to_le_bytes().to_vec()),
        ];
        if let Some((_, pairs)) = &self.parent {
            items.push(("a8d35f2d-b30b-454d-abf7-d3d84834ab0c", locator(pairs)));
        }
        let metadata = &mut file[2 * MIB..3 * MIB];
        put(metadata, 0, b"metadata");
        put(metadata, 10, &(items.len() as u16).to_le_bytes());
        let mut offset = 64 << 10;
        for (index, (id, value)) in items.iter().enumerate() {
            let entry = 32 + index * 32;
            put(metadata, entry, &guid(id));
            put(metadata, entry + 16, &(offset as u32).to_le_bytes());
            put(metadata, entry + 20, &(value.len() as u32).to_le_bytes());
            put(metadata, entry + 24, &[4]);
            put(metadata, offset, value);
            offset += value.len();
        }
        self.add_blocks(&mut file);
        file
    }

    fn add_blocks(&self, file: &mut Vec<u8>) {
        let ratio = (1 << 23) * self.sector / MIB;
        let bitmap_at = file.len();
        if self.parent.is_some() {
            put(file, 3 * MIB + 8 * ratio, &(bitmap_at as u64 | 6).to_le_bytes());
            file.resize(bitmap_at + MIB, 0);
        }
        for (block, data) in self.data.chunks(MIB).enumerate() {
            let mut state = 6;
            if let Some((here, _)) = &self.parent {
                let per_block = MIB / self.sector;
                let here: Vec<bool> = here.iter().copied().skip(block * per_block).take(per_block).collect();
                for (sector, _) in here.iter().enumerate().filter(|(_, here)| **here) {
                    let bit = block * per_block + sector;
                    file[bitmap_at + bit / 8] |= 1 << (bit % 8);
                }
                state = match here.iter().filter(|here| **here).count() {
                    0 => 0,
                    count if count == here.len() => 6,
                    _ => 7,
                };
            }
            if state != 0 {
                let at = file.len();
                put(file, 3 * MIB + 8 * block, &(at as u64 | state).to_le_bytes());
                file.extend(data);
                file.resize(at + MIB, 0);
            }
        }
    }
}

fn locator(pairs: &[(&str, String)]) -> Vec<u8> {
    let mut bytes = guid("b04aefb7-d19e-4a81-b789-25b8e9445913").to_vec();
    bytes.extend([0, 0]);
    bytes.extend((pairs.len() as u16).to_le_bytes());
    let mut texts = Vec::new();
    let start = 20 + 12 * pairs.len();
    for (key, value) in pairs {
        let (key, value) = (utf16(key), utf16(value));
        let key_at = start + texts.len();
        bytes.extend((key_at as u32).to_le_bytes());
        bytes.extend(((key_at + key.len()) as u32).to_le_bytes());
        bytes.extend((key.len() as u16).to_le_bytes());
        bytes.extend((value.len() as u16).to_le_bytes());
        texts.extend(key);
        texts.extend(value);
    }
    bytes.extend(texts);
    bytes
}

const PARENT_GUID: &str = "83ed0ec3-24c8-49a6-a959-5e4bf1288bfb";

#[test]
fn a_vhdx_of_large_sectors_reads_as_what_it_was_made_from() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("disk.vhdx");
    let data = Noise::new(14).disk(3 * MIB + 8192);
    for sector in [512, 4096] {
        let parts = VhdxParts { data: &data, sector, parent: None, data_guid: [1; 16] };
        std::fs::write(&path, parts.build()).unwrap();
        assert_same(&contents(&open(&path, Some(Format::Vhdx)).unwrap()), &data, "put together");
        // qemu-img does not read sectors of 4096 bytes.
        if sector == 512 && has_tool("qemu-img") {
            assert_same(&flattened(&path, "vhdx"), &data, "qemu-img reads what is put together here");
        }
    }
}

#[test]
fn a_differencing_vhdx_shows_its_parent_where_its_bitmap_says() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("snapshots")).unwrap();
    let (base, child) = (home.path().join("base.vhdx"), home.path().join("snapshots/child.avhdx"));
    for sector in [512, 4096] {
        let mut noise = Noise::new(15);
        let below: Vec<u8> = (0..5 * MIB).map(|_| noise.next() as u8).collect();
        let above: Vec<u8> = (0..6 * MIB).map(|_| noise.next() as u8).collect();
        let per_block = MIB / sector;
        let here: Vec<bool> = (0..6 * per_block)
            .map(|at| match at / per_block {
                0 => true,
                1 => false,
                _ => noise.below(2) == 0,
            })
            .collect();
        let mut expected = below.clone();
        expected.resize(6 * MIB, 0);
        for (at, _) in here.iter().enumerate().filter(|(_, here)| **here) {
            put(&mut expected, at * sector, &above[at * sector..(at + 1) * sector]);
        }
        let parent = VhdxParts { data: &below, sector, parent: None, data_guid: guid(PARENT_GUID) };
        std::fs::write(&base, parent.build()).unwrap();
        let write = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
            let parts = VhdxParts { data: &above, sector, parent: Some((&here, pairs)), data_guid: [2; 16] };
            std::fs::write(&child, parts.build()).unwrap();
            open(&child, None)
        };
        let linkage = format!("{{{PARENT_GUID}}}");
        let image = write(&[("parent_linkage", &linkage), ("relative_path", r"..\base.vhdx")]).unwrap();
        assert_same(&contents(&image), &expected, "differencing");
        check_random_reads(&child, &expected, &mut noise);
        let stale = "{00000000-0000-0000-0000-000000000001}";
        let path = ("relative_path", r"..\base.vhdx");
        assert!(write(&[("parent_linkage", stale), ("parent_linkage2", &linkage), path]).is_ok());
        let met = write(&[("parent_linkage", stale), path]);
        assert!(matches!(&met, Err(Error::Corrupt { reason, .. }) if reason.contains("written to")), "{met:?}");
        let met = write(&[("parent_linkage", &linkage), ("absolute_win32_path", r"\\?\C:\disks\base.vhdx")]);
        assert!(matches!(&met, Err(Error::NotFound { path }) if path.ends_with("snapshots/base.vhdx")), "{met:?}");
        let met = write(&[path]);
        assert!(matches!(&met, Err(Error::Corrupt { structure: "vhdx parent locator", .. })), "{met:?}");
    }
}

/// An update for the log: zeros, or a sector.
enum Update {
    Zeros(usize, usize),
    Sector(usize, Vec<u8>),
}

/// One log entry (2.3.1).
fn log_entry(guid: &[u8; 16], sequence: u64, tail: usize, file_size: usize, updates: &[Update]) -> Vec<u8> {
    let mut entry = vec![0; (64 + 32 * updates.len()).next_multiple_of(4096)];
    let mut sectors = Vec::new();
    for (index, update) in updates.iter().enumerate() {
        let descriptor = &mut entry[64 + 32 * index..96 + 32 * index];
        put(descriptor, 24, &sequence.to_le_bytes());
        match update {
            Update::Zeros(offset, length) => {
                put(descriptor, 0, b"zero");
                put(descriptor, 8, &(*length as u64).to_le_bytes());
                put(descriptor, 16, &(*offset as u64).to_le_bytes());
            }
            Update::Sector(offset, bytes) => {
                put(descriptor, 0, b"desc");
                put(descriptor, 4, &bytes[4092..]);
                put(descriptor, 8, &bytes[..8]);
                put(descriptor, 16, &(*offset as u64).to_le_bytes());
                let mut sector = bytes.clone();
                put(&mut sector, 0, b"data");
                put(&mut sector, 4, &((sequence >> 32) as u32).to_le_bytes());
                put(&mut sector, 4092, &(sequence as u32).to_le_bytes());
                sectors.extend(sector);
            }
        }
    }
    entry.extend(sectors);
    let length = entry.len() as u32;
    put(&mut entry, 0, b"loge");
    put(&mut entry, 8, &length.to_le_bytes());
    put(&mut entry, 12, &(tail as u32).to_le_bytes());
    put(&mut entry, 16, &sequence.to_le_bytes());
    put(&mut entry, 24, &(updates.len() as u32).to_le_bytes());
    put(&mut entry, 32, guid);
    put(&mut entry, 48, &(file_size as u64).to_le_bytes());
    put(&mut entry, 56, &(file_size as u64).to_le_bytes());
    seal_vhdx(&mut entry);
    entry
}

/// Says in both headers that the log of `guid` is in use.
fn mark_log(file: &mut [u8], guid: &[u8; 16]) {
    for at in [64 << 10, 128 << 10] {
        let header = &mut file[at..at + 4096];
        put(header, 48, guid);
        seal_vhdx(header);
    }
}

/// Where a region lies, by its entry in the first region table.
fn region(file: &[u8], id: &str) -> usize {
    let table = &file[192 << 10..256 << 10];
    let entry = table[16..].chunks(32).find(|entry| entry[..16] == guid(id)).unwrap();
    le64(entry, 16)
}

#[test]
fn a_dirty_log_is_replayed_as_qemu_img_replays_it() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (raw, path) = (home.path().join("disk.raw"), home.path().join("disk.vhdx"));
    let mut noise = Noise::new(16);
    let disk: Vec<u8> = (0..4 * MIB).map(|_| noise.next() as u8).collect();
    std::fs::write(&raw, &disk).unwrap();
    run("qemu-img", &["convert", "-O", "vhdx", "-o", "block_size=1M", text(&raw), text(&path)]);
    let good = std::fs::read(&path).unwrap();
    let (log_at, log_length) = (le64(&good, (64 << 10) + 72), le32(&good, (64 << 10) + 68));
    let table = region(&good, "2dc27766-f623-4200-9d64-115e9bfd4a08");
    let place = |block: usize| le64(&good, table + 8 * block) & !0xf_ffff;
    // The table with blocks 1 and 2 exchanged, and block 3 all zeros.
    let mut sector = good[table..table + 4096].to_vec();
    put(&mut sector, 8, &good[table + 16..table + 24]);
    put(&mut sector, 16, &good[table + 8..table + 16]);
    put(&mut sector, 24, &2_u64.to_le_bytes());
    let of = |byte: u8| vec![byte; 4096];
    let log = [9; 16];
    let first = |tail| {
        let updates = [
            Update::Sector(table, sector.clone()),
            Update::Zeros(place(0), 8192),
            Update::Sector(place(0) + 4096, of(1)),
            Update::Sector(place(2) + 8192, of(2)),
        ];
        log_entry(&log, 41, tail, good.len(), &updates)
    };
    let second = |tail| log_entry(&log, 42, tail, good.len(), &[Update::Zeros(place(2) + 8192, 4096)]);
    let third = |tail| log_entry(&log, 43, tail, good.len(), &[Update::Sector(place(0) + 65536, of(3))]);
    for start in [0, 4096, log_length - 4096, log_length - 12288] {
        let mut file = good.clone();
        mark_log(&mut file, &log);
        let entries = [first(start), second(start), third(start)].concat();
        for (index, byte) in entries.iter().enumerate() {
            file[log_at + (start + index) % log_length] = *byte;
        }
        std::fs::write(&path, &file).unwrap();
        let found = contents(&open(&path, None).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), file, "nothing is written");
        // qemu-img replays by writing to the file, and so only if told to; it does not go over the end of the log.
        if start < log_length - 12288 {
            let copy = home.path().join("copy.vhdx");
            std::fs::write(&copy, &file).unwrap();
            run("qemu-img", &["check", "-q", "-f", "vhdx", "-r", "all", text(&copy)]);
            assert_same(&found, &flattened(&copy, "vhdx"), "as qemu-img replays it");
        }
        assert_same(&found[MIB..2 * MIB], &disk_with(&disk[2 * MIB..3 * MIB], 8192, &of(0)), "exchanged");
        assert_same(&found[3 * MIB..], &vec![0; MIB], "zeroed");
        assert!(found[..4096] == of(0) && found[4096..8192] == of(1) && found[65536..69632] == of(3));
    }
    // A log in use without anything whole in it: "the implementation MUST fail to open it" (2.3.3).
    let mut file = good.clone();
    mark_log(&mut file, &log);
    std::fs::write(&path, &file).unwrap();
    let met = open(&path, None);
    assert!(matches!(&met, Err(Error::Corrupt { structure: "vhdx log", .. })), "{met:?}");
    put(&mut file, log_at, &log_entry(&log, 1, 0, good.len() + MIB, &[]));
    std::fs::write(&path, &file).unwrap();
    let met = open(&path, None);
    assert!(matches!(&met, Err(Error::Corrupt { reason, .. }) if reason.contains("cut")), "{met:?}");
}

fn disk_with(disk: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut disk = disk.to_vec();
    put(&mut disk, at, bytes);
    disk
}

/// The truth is `truth/qemu-img.json`, made by qemu-img from each image of the corpus.
#[test]
fn the_images_of_the_corpus_read_as_qemu_img_read_them() {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("disk-formats");
    let truth: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("truth/qemu-img.json")).unwrap()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("disk");
    let mut read = 0;
    for (name, said) in truth.as_object().unwrap() {
        let format = said["format"].as_str().and_then(Format::from_name);
        // The differencing one is without its parent, the dirty one not read by qemu-img: both have their tests. The
        // largest is not unlike the others, and takes as long as all of them.
        let is_elsewhere = name.contains("differential") || name.contains("lvm2");
        if !matches!(format, Some(Format::Vdi | Format::Vhd | Format::Vhdx)) || is_elsewhere {
            continue;
        }
        std::fs::write(&path, unpacked(&folder.join(name))).unwrap();
        let image = open(&path, format).unwrap_or_else(|error| panic!("{name}: {error}"));
        let layer = image.top().unwrap();
        assert_eq!(said["virtual_size"], layer.virtual_size_bytes, "{name}");
        assert_eq!(said["cluster-size"].as_u64(), layer.cluster_size_bytes, "{name}");
        assert_eq!(said["content_sha256"], sha256_of(&image), "{name}");
        read += 1;
    }
    assert!(read >= 3, "{read} images read");
}

fn sha256_of(image: &guestkit::image::Image) -> String {
    use sha2::Digest as _;
    let source = image.source();
    let mut hash = sha2::Sha256::new();
    let mut piece = vec![0; MIB];
    let mut at = 0;
    while at < source.len() {
        let count = usize::try_from(source.len() - at).unwrap().min(MIB);
        source.read_exact_at(&mut piece[..count], at).unwrap();
        hash.update(&piece[..count]);
        at += count as u64;
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The truth for the log of discutils' image, which qemu-img does not read as it is, is qemu-img on a replayed copy.
#[test]
fn the_dirty_log_of_the_corpus_is_replayed() {
    let Some(corpus) = corpus() else { return };
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("log.vhdx");
    std::fs::write(&path, unpacked(&corpus.join("disk-formats/discutils/vhdx-log-replay.vhdx.gz"))).unwrap();
    let image = open(&path, None).unwrap();
    let size = image.top().unwrap().virtual_size_bytes;
    let copy = home.path().join("copy.vhdx");
    std::fs::copy(&path, &copy).unwrap();
    run("qemu-img", &["check", "-q", "-f", "vhdx", "-r", "all", text(&copy)]);
    let flat = home.path().join("flat.raw");
    run("qemu-img", &["convert", "-f", "vhdx", "-O", "raw", text(&copy), text(&flat)]);
    let flat = std::fs::File::open(&flat).unwrap();
    assert_eq!(flat.metadata().unwrap().len(), size);
    let (mut found, mut expected) = (vec![0; 4 * MIB], vec![0; 4 * MIB]);
    // The disk has 10 GiB, of which one block of 32 MiB is there: its start, and a sample of what follows.
    for at in (0..64 * MIB as u64).step_by(4 * MIB).chain((64 * MIB as u64..size).step_by(512 * MIB)) {
        image.source().read_exact_at(&mut found, at).unwrap();
        flat.read_exact_at(&mut expected, at).unwrap();
        assert_same(&found, &expected, "discutils");
    }
}

/// A VDI of version 1 with blocks of 4096 bytes: `None` is a free block.
fn vdi(uuid: u8, parent: u8, extra: usize, blocks: &[Option<u32>], data: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    put(&mut bytes, 64, &0xbeda_107f_u32.to_le_bytes());
    put(&mut bytes, 68, &0x0001_0001_u32.to_le_bytes());
    put(&mut bytes, 72, &400_u32.to_le_bytes());
    put(&mut bytes, 76, &(if parent == 0 { 1_u32 } else { 4 }).to_le_bytes());
    put(&mut bytes, 340, &512_u32.to_le_bytes());
    put(&mut bytes, 344, &1024_u32.to_le_bytes());
    put(&mut bytes, 368, &(blocks.len() as u64 * 4096).to_le_bytes());
    put(&mut bytes, 376, &4096_u32.to_le_bytes());
    put(&mut bytes, 380, &(extra as u32).to_le_bytes());
    put(&mut bytes, 384, &(blocks.len() as u32).to_le_bytes());
    put(&mut bytes, 392, &[uuid; 16]);
    put(&mut bytes, 408, &[uuid + 100; 16]);
    if parent != 0 {
        put(&mut bytes, 424, &[parent; 16]);
        put(&mut bytes, 440, &[parent + 100; 16]);
    }
    bytes.extend(blocks.iter().flat_map(|block| block.unwrap_or(u32::MAX).to_le_bytes()));
    bytes.resize(1024, 0);
    for block in data {
        bytes.extend(vec![0x55; extra]);
        bytes.extend(block);
    }
    bytes
}

#[test]
fn a_differencing_vdi_finds_its_parent_by_uuid() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    std::fs::create_dir(at("Snapshots")).unwrap();
    let block = |byte: u8| vec![byte; 4096];
    let zero = Some(u32::MAX - 1);
    let base = vdi(1, 0, 0, &[Some(1), Some(0), None, Some(2), zero], &[block(11), block(10), block(13)]);
    let middle = vdi(2, 1, 512, &[None, Some(0), Some(1), zero, None], &[block(21), block(22)]);
    let top = vdi(3, 2, 0, &[None, None, Some(0), None, None], &[block(32)]);
    std::fs::write(at("disk.vdi"), &base).unwrap();
    std::fs::write(at("other.vdi"), vdi(7, 0, 0, &[None], &[])).unwrap();
    std::fs::write(at("broken.vdi"), b"nothing").unwrap();
    let named = at("Snapshots/{02020202-0202-0202-0202-020202020202}.vdi");
    std::fs::write(&named, &middle).unwrap();
    let path = at("Snapshots/top.vdi");
    std::fs::write(&path, &top).unwrap();
    let expected = [block(10), block(21), block(32), block(0), block(0)].concat();
    let image = open(&path, None).unwrap();
    assert_same(&contents(&image), &expected, "three images");
    assert!(image.warnings().is_empty(), "{:?}", image.warnings());
    let paths: Vec<PathBuf> = image.layers().iter().map(|layer| layer.path.clone()).collect();
    assert_eq!(paths, [path.clone(), named.clone(), at("disk.vdi")]);

    std::fs::rename(&named, at("Snapshots/renamed.vdi")).unwrap();
    assert_same(&contents(&open(&path, None).unwrap()), &expected, "found by what it holds");
    let policy = Roots::beneath([at("Snapshots")]).unwrap();
    let met = guestkit::image::open(&path, None, &policy, &support::budget()).map(drop);
    assert!(matches!(&met, Err(Error::NotFound { .. })), "the base lies outside of the roots: {met:?}");
    let mut changed = base;
    put(&mut changed, 408, &[77; 16]);
    std::fs::write(at("disk.vdi"), changed).unwrap();
    let image = open(&path, None).unwrap();
    assert!(image.warnings()[0].contains("was modified after"), "{:?}", image.warnings());
    std::fs::remove_file(at("Snapshots/renamed.vdi")).unwrap();
    let met = open(&path, None);
    assert!(matches!(&met, Err(Error::NotFound { path }) if *path == named), "{met:?}");
    std::fs::write(at("Snapshots/self.vdi"), vdi(5, 5, 0, &[None], &[])).unwrap();
    let met = open(&at("Snapshots/self.vdi"), None);
    assert!(matches!(&met, Err(Error::Corrupt { structure: "backing chain", .. })), "{met:?}");
}

/// Makes the checksums of a mutated image right again, so that mutations reach what lies behind them.
fn seal(file: &mut [u8], format: &str) {
    match format {
        "vpc" => {
            let end = file.len() - 512;
            seal_vhd(&mut file[..512], 64);
            seal_vhd(&mut file[512..1536], 36);
            seal_vhd(&mut file[end..], 64);
        }
        "vhdx" => {
            for (at, length) in [(64, 4), (128, 4), (192, 64), (256, 64)] {
                seal_vhdx(&mut file[at << 10..(at + length) << 10]);
            }
            let (log_at, log_length) = (le64(file, (64 << 10) + 72), le32(file, (64 << 10) + 68));
            let log = log_at.checked_add(log_length).and_then(|end| file.get_mut(log_at..end));
            if let Some(log) = log.filter(|log| log.len() > 4096) {
                let length = le32(log, 8).clamp(4096, log.len());
                seal_vhdx(&mut log[..length]);
            }
        }
        _ => {}
    }
}

/// Mutations of good headers, tables and logs, half of them with checksums made right again: none may panic, hang or
/// allocate by what they say.
#[test]
fn mutated_images_end_in_an_answer() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (raw, path) = (home.path().join("disk.raw"), home.path().join("disk"));
    std::fs::write(&raw, Noise::new(17).disk(2 * MIB)).unwrap();
    // Where the structures are: those bytes are mutated.
    let cases: [(&str, &[(usize, usize)]); 3] = [
        ("vdi", &[(64, 400), (0x200, 16)]),
        ("vpc", &[(0, 84), (512, 64), (512, 1024), (1536, 16)]),
        ("vhdx", &[(65536, 80), (192 << 10, 80), (MIB, 128), (2 * MIB, 80), (2 * MIB + 65536, 48), (3 * MIB, 32)]),
    ];
    for (format, areas) in cases {
        run("qemu-img", &["convert", "-O", format, text(&raw), text(&path)]);
        let mut good = std::fs::read(&path).unwrap();
        if format == "vhdx" {
            // Only what the structures take, so that a mutant is soon written.
            good.truncate(5 * MIB);
            let entry = log_entry(&[9; 16], 3, 0, good.len(), &[Update::Zeros(4 * MIB, 4096)]);
            let log_at = le64(&good, (64 << 10) + 72);
            put(&mut good, log_at, &entry);
            mark_log(&mut good, &[9; 16]);
        }
        let mut noise = Noise::new(18);
        let mut piece = vec![0; 70_000];
        let mut opened = 0;
        for round in 0..400 {
            let mut bytes = good.clone();
            for _ in 0..1 + noise.below(4) {
                let (start, length) = areas[noise.below(areas.len())];
                let byte = if noise.below(3) == 0 { 0xff } else { noise.next() as u8 };
                bytes[start + noise.below(length)] = byte;
            }
            if round % 2 == 0 {
                seal(&mut bytes, format);
            }
            if noise.below(8) == 0 {
                bytes.truncate(noise.below(good.len()));
            }
            std::fs::write(&path, &bytes).unwrap();
            let started = Instant::now();
            if let Ok(image) = open(&path, None) {
                opened += 1;
                let source = image.source();
                for _ in 0..8 {
                    let at = noise.next() % source.len().max(1);
                    let length = usize::try_from((source.len() - at).min(piece.len() as u64)).unwrap();
                    let _ = source.read_exact_at(&mut piece[..length], at);
                }
            }
            assert!(started.elapsed() < Duration::from_secs(5), "{format}, round {round}");
        }
        assert!(opened > 20, "{format}: {opened} mutants were opened");
    }
}

/// Tables of gigabytes that are there, as holes: opening such an image reads none of them, and reading it no more than it
/// needs.
#[test]
fn tables_as_large_as_can_be_are_not_taken_in() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("disk");
    let mut vdi = vdi(1, 0, 0, &[None], &[]);
    put(&mut vdi, 368, &(1_u64 << 43).to_le_bytes());
    put(&mut vdi, 384, &u32::MAX.to_le_bytes());
    let mut vhd = Differencing { data: &[], here: &[], parent_id: [0; 16], locators: &[] }.vhd();
    let end = vhd.len() - 512;
    for footer in [0, end] {
        put(&mut vhd, footer + 48, &(1_u64 << 43).to_be_bytes());
        put(&mut vhd, footer + 60, &3_u32.to_be_bytes());
        seal_vhd(&mut vhd[footer..footer + 512], 64);
    }
    put(&mut vhd, 512 + 28, &u32::MAX.to_be_bytes());
    seal_vhd(&mut vhd[512..1536], 36);
    let mut vhdx = VhdxParts { data: &[], sector: 512, parent: None, data_guid: [1; 16] }.build();
    put(&mut vhdx, 2 * MIB + 65536 + 8, &(64_u64 << 40).to_le_bytes());
    for table in [192 << 10, 256 << 10] {
        put(&mut vhdx, table + 16 + 24, &(1_u32 << 30).to_le_bytes());
        seal_vhdx(&mut vhdx[table..table + (64 << 10)]);
    }
    for (bytes, format) in [(vdi, Format::Vdi), (vhd, Format::Vhd), (vhdx, Format::Vhdx)] {
        std::fs::write(&path, &bytes).unwrap();
        let met = open(&path, Some(format));
        assert!(matches!(met, Err(Error::Corrupt { .. })), "the table leaves the file: {met:?}");
        std::fs::File::options().write(true).open(&path).unwrap().set_len(40 << 30).unwrap();
        let budget = support::budget();
        let started = Instant::now();
        let image = guestkit::image::open(&path, Some(format), &Roots::anywhere(), &budget).unwrap();
        let source = image.source();
        let mut piece = vec![0; 3 * MIB];
        for at in (0..source.len()).step_by(1 << 39) {
            let _ = source.read_exact_at(&mut piece, at);
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{format:?}");
        assert!(budget.bytes_read() < 1 << 30, "{format:?}: {} bytes", budget.bytes_read());
    }
}

#[test]
fn images_that_are_cut_end_in_an_answer() {
    if !has_tool("qemu-img") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (raw, path) = (home.path().join("disk.raw"), home.path().join("disk"));
    let disk = Noise::new(19).disk(2 * MIB);
    std::fs::write(&raw, &disk).unwrap();
    for format in ["vdi", "vpc", "vhdx"] {
        run("qemu-img", &["convert", "-O", format, text(&raw), text(&path)]);
        let expected = flattened(&path, format);
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let mut length = file.metadata().unwrap().len();
        let mut noise = Noise::new(20);
        while length > 600 {
            length -= 1 + noise.next() % (length / 8);
            file.set_len(length).unwrap();
            let Ok(image) = open(&path, Format::from_name(format)) else { continue };
            let source = image.source();
            for at in (0..source.len()).step_by(4096) {
                let mut piece = [0; 4096];
                let count = usize::try_from(source.len() - at).unwrap().min(4096);
                if source.read_exact_at(&mut piece[..count], at).is_ok() {
                    let start = usize::try_from(at).unwrap();
                    assert_same(&piece[..count], &expected[start..start + count], "what is left of it");
                }
            }
        }
    }
}
