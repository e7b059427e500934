//! `local filesystems --long --all` of every image of the corpus beside what the tools that people trust say of the same image
//! in the same minute: `qemu-img info`, `sfdisk -J`, `blkid -p`. A table of the whole is printed, and a line for each difference.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // Helpers of tests may panic as tests do; a report is printed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Differences that stay, by a part of the line that tells them, each with the reason.
const EXPLAINED: &[(&str, &str)] = &[
    ("cdi/cirros-snapshot", "its backing file is not part of the corpus, and qemu-img info does not look for it"),
    ("dfvfs/fat-differential.vhd", "its parent is not part of the corpus, and qemu-img does not look for one"),
    ("luks/compatimage.img.xz", "QEMU takes a LUKS volume for an image format; here it is what lies on a raw disk"),
    ("luks/valid_header_file.xz", "QEMU takes a LUKS volume for an image format; here it is what lies on a raw disk"),
    ("volume-ids/ddf-raid.img.xz", "blkid prints the raw bytes of an identifier that is no text"),
    ("volume-ids/swap-luks.img.xz", "util-linux's own expectation (volume-ids/expected) is what is said here"),
];

/// What is read as raw bytes to be shown to tools that know no images.
const CONVERTED_BYTES_MAX: u64 = 8 << 30;
/// Broken on purpose behind superblocks that are the same in most of them: they are for whoever asks for the report.
const FOR_THE_REPORT: [&str; 2] = ["hostile-ext4", "hostile-btrfs"];

#[derive(Debug, Default)]
struct Row {
    cases: u32,
    agree: u32,
    /// Where the tool says nothing, or what was not to be read was refused.
    nothing: u32,
    differ: u32,
}

#[derive(Debug, Default)]
struct Report {
    rows: BTreeMap<&'static str, Row>,
    differences: Vec<String>,
}

impl Report {
    /// Counts one comparison; an empty list of differences is agreement.
    fn told(&mut self, tool: &'static str, image: &str, differences: Vec<String>) {
        let row = self.rows.entry(tool).or_default();
        row.cases += 1;
        if differences.is_empty() {
            row.agree += 1;
        } else {
            row.differ += 1;
            self.differences.extend(differences.into_iter().map(|how| format!("{image}: {how}")));
        }
    }

    fn nothing(&mut self, tool: &'static str) {
        let row = self.rows.entry(tool).or_default();
        row.cases += 1;
        row.nothing += 1;
    }
}

#[test]
fn the_command_says_of_the_corpus_what_the_tools_say() {
    let Some(corpus) = std::env::var_os("GUESTKIT_CORPUS").map(PathBuf::from) else {
        assert!(std::env::var_os("CI").is_none(), "GUESTKIT_CORPUS must be set in continuous integration");
        return println!("corpus not present");
    };
    for tool in ["qemu-img", "sfdisk", "blkid", "xz", "zstd", "gzip"] {
        let missing = tool_output(tool, &["--version"]).is_none();
        assert!(!missing || std::env::var_os("CI").is_none(), "{tool} must be there in continuous integration");
        if missing {
            return println!("{tool} is not installed");
        }
    }
    let asked = std::env::var_os("GUESTKIT_AGREEMENT_REPORT");
    let mut report = Report::default();
    for image in images(&corpus) {
        let name = image.strip_prefix(&corpus).unwrap().display().to_string();
        if asked.is_some() || !FOR_THE_REPORT.iter().any(|family| name.starts_with(family)) {
            compare(&mut report, &image, &name);
        }
    }
    let mut table =
        String::from("| whose word | compared | agree | nothing to compare | differ |\n|---|---|---|---|---|\n");
    for (tool, Row { cases, agree, nothing, differ }) in &report.rows {
        table += &format!("| {tool} | {cases} | {agree} | {nothing} | {differ} |\n");
    }
    let why = |line: &str| EXPLAINED.iter().find(|(part, _)| line.contains(part)).map(|(_, why)| *why);
    for line in &report.differences {
        table += &format!("\n- {line}{}", why(line).map(|why| format!("; {why}")).unwrap_or_default());
    }
    println!("{table}");
    if let Some(file) = asked {
        fs::write(file, &table).unwrap();
    }
    let unexplained: Vec<_> = report.differences.iter().filter(|line| why(line).is_none()).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
}

/// Every file of the corpus that is a disk, an image of one, or a part of one.
fn images(corpus: &Path) -> Vec<PathBuf> {
    const FAMILIES: [&str; 14] = [
        "disk-formats",
        "partition-tables",
        "volume-ids",
        "fs-btrfs",
        "fs-ext",
        "fs-fat",
        "fs-matrix",
        "fs-ntfs",
        "luks",
        "guests",
        "distros",
        "phony",
        "hostile-ext4",
        "hostile-btrfs",
    ];
    const NO_DISKS: [&str; 9] = ["md", "tsv", "json", "xml", "txt", "golden", "part", "tar", "py"];
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = FAMILIES.map(|family| corpus.join(family)).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_told = |name: &str| path.file_name().is_some_and(|found| found == name);
            if path.is_dir() {
                if !is_told("truth") && !is_told("expected") {
                    folders.push(path);
                }
            } else if !path.extension().is_some_and(|found| NO_DISKS.iter().any(|one| found == *one)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn compare(report: &mut Report, packed: &Path, name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let image = laid_out(packed, &folder);
    let image = image.to_str().unwrap();
    let info: Option<Value> = tool_output("qemu-img", &["info", "--output=json", image])
        .filter(|output| output.status.success())
        .map(|output| serde_json::from_slice(&output.stdout).unwrap());
    let told = guestkit(&["local", "filesystems", "--long", "--all", "-q", "-o", "json", image]);
    let Ok(told) = told else {
        // What is refused is told with its format and its size where its header has one.
        let why = told.unwrap_err();
        match info.filter(|info| info["format"] != "raw") {
            Some(info) => {
                let known = [info["format"].as_str().unwrap().to_owned(), info["virtual-size"].to_string()];
                let missing = known.iter().filter(|fact| !why.contains(*fact));
                let differences = missing.map(|fact| format!("refused without telling {fact}: {why}")).collect();
                report.told("qemu-img info, of what is refused", name, differences);
            }
            None => report.nothing("qemu-img info"),
        }
        return;
    };
    let drive = &told["disks"][0];
    match &info {
        Some(info) if drive["format"] != "ova" => report.told("qemu-img info", name, image_differences(drive, info)),
        _ => report.nothing("qemu-img info"),
    }
    let raw = folder.path().join("converted.raw");
    let raw = match info.as_ref().map(|info| (info["format"].as_str(), info["virtual-size"].as_u64())) {
        Some((Some("raw"), _)) if drive["format"] == "raw" => image,
        Some((Some(format), Some(size)))
            if (drive["format"] == format || format == "vpc") && size <= CONVERTED_BYTES_MAX =>
        {
            let raw = raw.to_str().unwrap();
            match tool_output("qemu-img", &["convert", "-O", "raw", image, raw]) {
                Some(output) if output.status.success() => raw,
                _ => return,
            }
        }
        _ => return,
    };
    let sheet = guestkit(&["local", "filesystems", "--long", "--all", "-q", "--csv", image]).unwrap();
    compare_contents(report, name, raw, drive, &csv(&String::from_utf8(sheet.stdout).unwrap()));
}

/// `path` itself, or what it unpacks to.
fn laid_out(path: &Path, folder: &TempDir) -> PathBuf {
    let by = match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => ["gzip", "-dc"].as_slice(),
        Some("xz") => &["xz", "-dc"],
        Some("zst") => &["zstd", "-dcq"],
        Some("zlib") => &[],
        _ => return path.to_owned(),
    };
    let to = folder.path().join(path.file_stem().unwrap());
    if let [tool, flags] = by {
        let file = fs::File::create(&to).unwrap();
        assert!(Command::new(tool).arg(flags).arg(path).stdout(file).status().unwrap().success());
    } else {
        let mut unpacked = flate2::read::ZlibDecoder::new(fs::File::open(path).unwrap());
        std::io::copy(&mut unpacked, &mut fs::File::create(&to).unwrap()).unwrap();
    }
    to
}

fn tool_output(name: &str, args: &[&str]) -> Option<Output> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    Command::new(name).args(args).env("PATH", path).env("LC_ALL", "C").stdin(Stdio::null()).output().ok()
}

/// A command that succeeds, or what it complained of.
fn guestkit(args: &[&str]) -> Result<CommandAnswer, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_guestkit")).args(args).stdin(Stdio::null()).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let document = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok(CommandAnswer { stdout: output.stdout, document })
}

#[derive(Debug)]
struct CommandAnswer {
    stdout: Vec<u8>,
    document: Value,
}

impl std::ops::Index<&str> for CommandAnswer {
    type Output = Value;
    fn index(&self, name: &str) -> &Value {
        &self.document[name]
    }
}

fn image_differences(drive: &Value, info: &Value) -> Vec<String> {
    let fields = [
        ("format", "format"),
        ("virtual_size_bytes", "virtual-size"),
        ("cluster_size_bytes", "cluster-size"),
        ("allocated_bytes", "actual-size"),
    ];
    // QEMU calls a VHD by the program that first wrote it.
    let is_vhd = drive["format"] == "vhd" && info["format"] == "vpc";
    let fields = fields.into_iter().skip(usize::from(is_vhd));
    let differs = fields.filter(|(our, their)| !info[*their].is_null() && drive[*our] != info[*their]);
    differs.map(|(our, their)| format!("{our} {}, qemu-img says {}", drive[our], info[their])).collect()
}

type Sheet = Vec<BTreeMap<String, String>>;

/// Rows by the names of their columns; quoted fields are the only ones with commas.
fn csv(text: &str) -> Sheet {
    let fields = |line: &str| {
        let (mut fields, mut is_quoted) = (vec![String::new()], false);
        for letter in line.chars() {
            match letter {
                '"' => is_quoted = !is_quoted,
                ',' if !is_quoted => fields.push(String::new()),
                other => fields.last_mut().unwrap().push(other),
            }
        }
        fields
    };
    let mut lines = text.lines();
    let titles = fields(lines.next().unwrap());
    lines.map(|line| titles.iter().cloned().zip(fields(line)).collect()).collect()
}

fn row<'a>(sheet: &'a Sheet, name: &str, kinds: &[&str]) -> Option<&'a BTreeMap<String, String>> {
    sheet.iter().find(|row| row["Name"] == name && kinds.contains(&&*row["Type"]))
}

/// Tables by sfdisk, contents by blkid, of the disk as raw bytes.
fn compare_contents(report: &mut Report, name: &str, raw: &str, drive: &Value, sheet: &Sheet) {
    let table = &drive["partition_table"];
    let sector = table["sector_size_bytes"].as_u64().unwrap_or(512);
    let disk = row(sheet, "/dev/sda", &["device"]).unwrap();
    if sector != 512 {
        // They take every file for a disk of 512-byte sectors; tests/partitions.rs of the engine has another truth.
        report.nothing("sfdisk -J");
        return report.nothing("blkid -p, of a disk");
    }
    let sfdisk = tool_output("sfdisk", &["-J", raw]).unwrap();
    let theirs: Value = serde_json::from_slice(&sfdisk.stdout).unwrap_or_default();
    let theirs = &theirs["partitiontable"];
    let found = blkid(raw, None);
    // sfdisk takes the boot sector of FAT and NTFS for a table, which blkid and the kernel do not.
    let is_table = found.as_ref().is_some_and(|found| found.contains_key("PTTYPE")) || table.is_object();
    match theirs["label"].is_string() && is_table {
        false => report.nothing("sfdisk -J"),
        _ => report.told("sfdisk -J", name, table_differences(table, theirs, sheet)),
    }
    match found {
        None => report.nothing("blkid -p, of a disk"),
        Some(fields) => {
            let mut differences = Vec::new();
            let mut compare = |what: &str, our: &str, field: &str| {
                if let Some(theirs) = fields.get(field).filter(|theirs| *theirs != our) {
                    differences.push(format!("{what} {our:?}, blkid says {theirs:?}"));
                }
            };
            if fields.contains_key("PTTYPE") {
                compare("table", &disk["VFS"], "PTTYPE");
                compare("PTUUID", &disk["UUID"], "PTUUID");
            }
            if fields.contains_key("TYPE") {
                let content = row(sheet, "/dev/sda", &["filesystem", "member", "pv"]);
                let of = |field: &str| content.map(|row| row[field].as_str()).unwrap_or_default();
                compare("type", of("VFS"), "TYPE");
                compare("label", of("Label"), "LABEL");
                compare("UUID", of("UUID"), "UUID");
            }
            report.told("blkid -p, of a disk", name, differences);
        }
    }
    for partition in table["partitions"].as_array().into_iter().flatten() {
        let device = partition["device"].as_str().unwrap();
        let Some(content) = row(sheet, device, &["filesystem", "member", "pv"]) else { continue };
        let number = |field: &str| partition[field].as_u64().unwrap();
        match blkid(raw, Some((number("start_bytes"), number("size_bytes")))) {
            None => report.nothing("blkid -p, of a partition"),
            Some(fields) => {
                let differs =
                    [("VFS", "TYPE"), ("Label", "LABEL"), ("UUID", "UUID")].into_iter().filter_map(|(our, field)| {
                        let theirs = fields.get(field).map_or("", String::as_str);
                        let ours = if content[our] == "unknown" { "" } else { &content[our] };
                        (ours != theirs).then(|| format!("{device}: {our} {ours:?}, blkid says {theirs:?}"))
                    });
                report.told("blkid -p, of a partition", name, differs.collect());
            }
        }
    }
}

fn table_differences(table: &Value, theirs: &Value, sheet: &Sheet) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |what: String, ours: String, theirs: String| {
        if !ours.eq_ignore_ascii_case(&theirs) {
            differences.push(format!("{what} {ours:?}, sfdisk says {theirs:?}"));
        }
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    compare("table".into(), text(&table["type"]), text(&theirs["label"]));
    if !table["partitions"].is_array() {
        // Of a kind that is only named.
        return differences;
    }
    let id = text(&theirs["id"]).trim_start_matches("0x").to_owned();
    compare("PTUUID".into(), text(&table["uuid"]), if id == "00000000" { String::new() } else { id });
    let sector = theirs["sectorsize"].as_u64().unwrap_or(512);
    let (none, mut expected) = (Vec::new(), BTreeMap::new());
    for partition in theirs["partitions"].as_array().unwrap_or(&none) {
        let node = partition["node"].as_str().unwrap();
        let file = node.trim_end_matches(|last: char| last.is_ascii_digit());
        expected.insert(node[file.len()..].parse::<u32>().unwrap(), partition);
    }
    for partition in table["partitions"].as_array().unwrap_or(&none) {
        let device = text(&partition["device"]);
        let Some(theirs) = expected.remove(&device["/dev/sda".len()..].parse().unwrap()) else {
            compare("partition".into(), device, String::new());
            continue;
        };
        for (our, their) in [("start_bytes", "start"), ("size_bytes", "size")] {
            let bytes = theirs[their].as_u64().unwrap() * sector;
            compare(format!("{device}: {our}"), partition[our].to_string(), bytes.to_string());
        }
        let zero_cut = |text: String| text.trim_start_matches('0').to_owned();
        compare(format!("{device}: type"), zero_cut(text(&partition["type"])), zero_cut(text(&theirs["type"])));
        let shown = row(sheet, &device, &["partition"]).unwrap();
        if theirs["uuid"].is_string() {
            compare(format!("{device}: UUID"), shown["UUID"].clone(), text(&theirs["uuid"]));
        }
        compare(format!("{device}: name"), shown["Label"].clone(), text(&theirs["name"]));
        let bootable = theirs["bootable"] == true || theirs["attrs"].as_str().is_some_and(|all| all.contains("Legacy"));
        compare(format!("{device}: bootable"), partition["bootable"].to_string(), bootable.to_string());
    }
    for number in expected.keys() {
        compare("partition".into(), String::new(), format!("/dev/sda{number}"));
    }
    differences
}

/// Text from its printable form, in which a byte above 127 is `M-` and what it is without its highest bit, as by cat(1).
fn printed(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match rest {
            [b'M', b'-', b'^', low, after @ ..] => ((low ^ 0x40) | 0x80, after),
            [b'M', b'-', low, after @ ..] => (low | 0x80, after),
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What blkid says of a disk or a part of it; `None` where it says nothing, or that several things lie there.
fn blkid(raw: &str, part: Option<(u64, u64)>) -> Option<BTreeMap<String, String>> {
    let (at, length) = part.unwrap_or_default();
    let (at, length) = (at.to_string(), length.to_string());
    let mut args = vec!["-p", "-o", "export"];
    if part.is_some() {
        args.extend(["-O", &at, "-S", &length]);
    }
    args.push(raw);
    let output = tool_output("blkid", &args).filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Blanks and their like stand behind a backslash.
    let plain = |value: &str| value.replace("\\\\", "\0").replace('\\', "").replace('\0', "\\");
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let text = |name: &str, value: &str| if name == "LABEL" { printed(&plain(value)) } else { plain(value) };
    Some(pairs.map(|(name, value)| (name.to_owned(), text(name, value))).collect())
}
