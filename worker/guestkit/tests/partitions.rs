//! Partition tables; the truth is `sfdisk --json`, run here, and for sectors of 4096 bytes the corpus' own description.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::path::Path;

use guestkit::ReadAt;
use guestkit::partition::{Layout, PartitionTable, TableKind, read};
use support::{Noise, corpus, has_tool, run};

fn table(bytes: &Vec<u8>) -> PartitionTable {
    match read(bytes).unwrap() {
        Layout::Table(table) => table,
        other => panic!("{other:?}"),
    }
}

/// Number, first sector, sectors, type, PARTUUID, name, active: as sfdisk prints them.
type Row = (u32, u64, u64, String, Option<String>, Option<String>, bool);

fn ours(table: &PartitionTable) -> Vec<Row> {
    let sector = u64::from(table.sector_bytes);
    let row = |part: &guestkit::partition::Partition| {
        let uuid = part.uuid.clone().filter(|_| table.kind == TableKind::Gpt);
        let kind = part.type_id.trim_start_matches('0').to_owned();
        (
            part.number,
            part.start_bytes / sector,
            part.size_bytes / sector,
            kind,
            uuid,
            part.label.clone(),
            part.bootable,
        )
    };
    table.partitions.iter().map(row).collect()
}

fn sfdisk(path: &Path) -> (String, String, Vec<Row>) {
    let said: serde_json::Value = serde_json::from_slice(&run("sfdisk", &["--json", path.to_str().unwrap()])).unwrap();
    let said = &said["partitiontable"];
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let rows = said["partitions"].as_array().cloned().unwrap_or_default();
    let row = |part: &serde_json::Value| {
        let node = part["node"].as_str().unwrap();
        let number = node.strip_prefix(path.to_str().unwrap()).unwrap().trim_start_matches('p').parse().unwrap();
        let active = part["bootable"] == true
            || part["attrs"].as_str().is_some_and(|attributes| attributes.contains("LegacyBIOSBootable"));
        let kind = part["type"].as_str().unwrap();
        let kind = if kind.len() < 3 { kind } else { kind.trim_start_matches('0') };
        let uuid = text(&part["uuid"]).map(|uuid| uuid.to_ascii_lowercase());
        (
            number,
            part["start"].as_u64().unwrap(),
            part["size"].as_u64().unwrap(),
            kind.to_owned(),
            uuid,
            text(&part["name"]),
            active,
        )
    };
    (text(&said["label"]).unwrap(), text(&said["id"]).unwrap(), rows.iter().map(row).collect())
}

fn check(path: &Path) {
    let found = table(&std::fs::read(path).unwrap());
    let (label, id, rows) = sfdisk(path);
    assert_eq!(found.kind.name(), label, "{}", path.display());
    assert_eq!(found.id.as_deref().unwrap_or("00000000"), id.trim_start_matches("0x").to_ascii_lowercase());
    assert_eq!(ours(&found), rows, "{}", path.display());
}

#[test]
fn tables_of_the_corpus_are_read_as_sfdisk_reads_them() {
    let Some(corpus) = corpus() else { return };
    if !has_tool("sfdisk") {
        return;
    }
    let folder = corpus.join("partition-tables");
    for name in ["gptman/disk1.img", "gptman/disk3.img", "mbrman/disk1.img"] {
        check(&folder.join(name));
    }
}

/// gptman's and mbrman's tests say what their images with sectors of 4096 bytes hold; sfdisk 2.38 cannot read them.
#[test]
fn sectors_of_4096_bytes_are_found_out() {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("partition-tables");
    let small = table(&std::fs::read(folder.join("gptman/disk1.img")).unwrap());
    let large = table(&std::fs::read(folder.join("gptman/disk2.img")).unwrap());
    assert_eq!((small.sector_bytes, large.sector_bytes), (512, 4096));
    let names: Vec<_> = small.partitions.iter().map(|part| part.label.clone().unwrap()).collect();
    assert_eq!(names, ["Foo", "Bar"]);
    let places: Vec<_> = large.partitions.iter().map(|part| (part.start_bytes, part.size_bytes)).collect();
    assert_eq!(places, [(6 * 4096, 10 * 4096), (70 * 4096, 10 * 4096)]);
    assert_eq!(table(&std::fs::read(folder.join("gptman/disk4.img")).unwrap()).sector_bytes, 4096);
}

const GPT: &str = "label: gpt\nlabel-id: 0FC63DAF-1111-4772-8E79-3D69D8477DE4\n\
    start=2048, size=2048, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=\"EFI Système\"\n\
    start=4096, size=8192, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, attrs=\"LegacyBIOSBootable\"\n";
const MBR: &str = "label: dos\nlabel-id: 0x1234abcd\n\
    start=2048, size=2048, type=83, bootable\n\
    start=4096, size=20480, type=5\n\
    start=6144, size=2048, type=82\nstart=10240, size=2048, type=8e\nstart=14336, size=2048, type=7\n";

fn made(script: &str, folder: &Path) -> std::path::PathBuf {
    let (path, script_path) = (folder.join("disk"), folder.join("script"));
    std::fs::write(&script_path, script).unwrap();
    std::fs::write(&path, vec![0; 16 << 20]).unwrap();
    let command = format!("sfdisk -q {} < {}", path.display(), script_path.display());
    run("sh", &["-c", &command]);
    path
}

#[test]
fn tables_that_sfdisk_makes_are_read_as_it_reads_them() {
    if !has_tool("sfdisk") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    for script in [GPT, MBR] {
        let path = made(script, home.path());
        check(&path);
        let found = table(&std::fs::read(&path).unwrap());
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        if script == MBR {
            let uuids: Vec<_> = found.partitions.iter().map(|part| part.uuid.clone().unwrap()).collect();
            let expected = ["1234abcd-01", "1234abcd-02", "1234abcd-05", "1234abcd-06", "1234abcd-07"];
            assert_eq!(uuids, expected, "as blkid prints PARTUUID");
        }
    }
}

#[test]
fn the_backup_stands_in_for_a_broken_gpt_and_no_stale_one_does() {
    if !has_tool("sfdisk") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let good = std::fs::read(made(GPT, home.path())).unwrap();
    let whole = ours(&table(&good));
    // Header, header checksum, entries.
    for at in [512, 512 + 16, 1024 + 40] {
        let mut broken = good.clone();
        broken[at] ^= 0xff;
        let found = table(&broken);
        assert_eq!(ours(&found), whole, "byte {at}");
        assert!(found.warnings[0].contains("backup"), "{:?}", found.warnings);
    }
    let mut old = good.clone();
    old[..34 * 512].fill(0);
    assert_eq!(read(&old).unwrap(), Layout::Nothing, "nothing at the start says that there is a GPT");
    let mut lost = good.clone();
    lost[512] ^= 0xff;
    let last = lost.len() - 512;
    lost[last] ^= 0xff;
    assert_eq!(read(&lost).unwrap(), Layout::Unread("PMBR"), "as blkid names what protects nothing");
}

#[test]
fn what_is_on_a_disk_without_partitions_is_not_lost() {
    if !has_tool("sfdisk") || !has_tool("mke2fs") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = made("label: dos\nlabel-id: 0x1234abcd\n", home.path());
    let listed = || {
        let specs = [guestkit::ImageSpec { path: path.clone(), format: Some(guestkit::image::Format::Raw) }];
        let roots = guestkit::image::Roots::anywhere();
        let disk = guestkit::Disk::open(&specs, &roots, &guestkit::Limits::default()).unwrap();
        let id = disk.drives()[0].partition_table().unwrap().id.clone();
        (id, disk.devices()[0].probe.as_ref().map(|probe| probe.kind))
    };
    assert_eq!(listed(), (Some("1234abcd".into()), None));
    // The file system leaves the first kilobyte to whoever boots it.
    run("mke2fs", &["-q", "-F", "-t", "ext4", path.to_str().unwrap()]);
    let mut disk = std::fs::read(&path).unwrap();
    disk[440..444].copy_from_slice(&[0xcd, 0xab, 0x34, 0x12]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&path, disk).unwrap();
    assert_eq!(listed(), (Some("1234abcd".into()), Some("ext4")));
}

#[test]
fn what_windows_puts_together_itself_is_said() {
    if !has_tool("sfdisk") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let warnings = |script: &str, header: &[u8]| {
        let mut disk = std::fs::read(made(script, home.path())).unwrap();
        disk[6 * 512..6 * 512 + header.len()].copy_from_slice(header);
        table(&disk).warnings
    };
    for (script, header, what) in [
        ("label: gpt\nstart=2048, type=AF9B60A0-1431-4F62-BC68-3311714A69AD\n", b"".as_slice(), "LDM"),
        ("label: gpt\nstart=2048, type=E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D\n", b"", "Storage Spaces"),
        ("label: dos\nstart=63, type=42\n", b"PRIVHEAD", "LDM"),
    ] {
        let said = warnings(script, header);
        assert!(said.len() == 1 && said[0].contains(what), "{said:?}");
    }
    assert!(warnings("label: dos\nstart=63, type=42\n", b"").is_empty());
}

#[test]
fn a_circle_of_extended_boot_records_ends() {
    if !has_tool("sfdisk") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut disk = std::fs::read(made(MBR, home.path())).unwrap();
    let first = 4096 * 512;
    // The first record's second entry now points at itself.
    disk[first + 462 + 8..first + 462 + 12].fill(0);
    let found = table(&disk);
    assert_eq!(found.partitions.len(), 3);
    assert!(found.warnings[0].contains("no end"), "{:?}", found.warnings);
}

#[test]
fn mutated_tables_end_in_an_answer() {
    if !has_tool("sfdisk") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    for script in [GPT, MBR] {
        let good = std::fs::read(made(script, home.path())).unwrap();
        let mut noise = Noise::new(7);
        let mut disk = good.clone();
        for _ in 0..3000 {
            let mut places = Vec::new();
            for _ in 0..1 + noise.below(5) {
                let areas = [(440, 72), (512, 92), (1024, 512), (4096 * 512 + 440, 72), (6144 * 512 + 440, 72)];
                let (start, length) = areas[noise.below(areas.len())];
                let at = start + noise.below(length);
                places.push(at);
                disk[at] = noise.next() as u8;
            }
            fix_checksum(&mut disk);
            if let Layout::Table(table) = read(&disk).unwrap() {
                assert!(table.partitions.len() <= 1024);
                for part in &table.partitions {
                    let slice =
                        guestkit::Slice::new(std::sync::Arc::new(Vec::new()), part.start_bytes, part.size_bytes);
                    assert!(slice.is_empty());
                }
            }
            for at in places.into_iter().chain(512 + 16..512 + 20).chain(512 + 88..512 + 92) {
                disk[at] = good[at];
            }
        }
    }
}

/// Makes the checksums of the primary GPT right again, so that what they protect is looked at.
fn fix_checksum(disk: &mut [u8]) {
    let entries = crc32fast::hash(&disk[1024..1024 + 128 * 128]);
    disk[512 + 88..512 + 92].copy_from_slice(&entries.to_le_bytes());
    disk[512 + 16..512 + 20].fill(0);
    let header = crc32fast::hash(&disk[512..512 + 92]);
    disk[512 + 16..512 + 20].copy_from_slice(&header.to_le_bytes());
}
