//! Registry hives of the corpus. Truth: what hivex 1.3.23 says of each (its counts in the corpus's table; every key and value
//! where `hivexml` is installed), and for transaction logs what Windows wrote into them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guestkit::guest::registry::{Hive, Key, ValueType};
use guestkit::{Error, Limits, Source};
use support::{Noise, budget, corpus, has_tools, run, unpacked};

fn source(bytes: Vec<u8>) -> Source {
    Arc::new(bytes)
}

fn open(bytes: Vec<u8>, logs: Vec<Vec<u8>>) -> Result<Hive, Error> {
    Hive::open(source(bytes), || logs.into_iter().map(source).collect(), budget())
}

/// Keys and values of a hive, the root counted.
fn count(key: &Key<'_>, seen: &mut HashSet<u32>) -> Result<(usize, usize), Error> {
    let mut total = (1, key.values()?.len());
    for below in key.subkeys()? {
        if seen.insert(below.offset()) {
            let (keys, values) = count(&below, seen)?;
            total = (total.0 + keys, total.1 + values);
        }
    }
    Ok(total)
}

#[test]
fn hives_hold_as_many_keys_and_values_as_hivex_counts() {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("registry");
    let table = std::fs::read_to_string(folder.join("truth/hivex-1.3.23.tsv")).unwrap();
    let mut agreed = 0;
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = line.split('\t').collect();
        let [path, _, _, version, _, code, keys, values, _, root, ..] = fields[..] else { panic!("{line}") };
        let hive = match open(unpacked(&folder.join(path)), Vec::new()) {
            Ok(hive) => hive,
            Err(error) => {
                assert_eq!(code, "1", "{path}: {error}");
                continue;
            }
        };
        // hivex refuses these; a log is no hive either way, the others' bad bin hides nothing that a key leads to.
        if code == "1" {
            println!("{path}: hivex refuses what is read here");
            continue;
        }
        let found = count(&hive.root().unwrap(), &mut HashSet::new()).unwrap();
        assert_eq!((found.0.to_string(), found.1.to_string()), (keys.to_owned(), values.to_owned()), "{path}");
        assert_eq!(format!("{}.{}", hive.version().0, hive.version().1), version, "{path}");
        assert_eq!(hive.root().unwrap().name(), root, "{path}");
        assert!(hive.problems().is_empty(), "{path}: {:?}", hive.problems());
        agreed += 1;
    }
    assert!(agreed >= 20, "{agreed} hives agree");
}

/// Every key and value in the order of the hive, one line each.
fn listing(key: &Key<'_>, text: &mut String) {
    writeln!(text, "key {}", key.name()).unwrap();
    for value in key.values().unwrap() {
        let bytes = value.bytes().unwrap();
        let data = match value.kind() {
            ValueType::Text | ValueType::ExpandText => value.text().unwrap().unwrap(),
            // hivexml takes the bits for a number with a sign, and has -1 for what is no number.
            ValueType::LongNumber => value.number().unwrap().map_or(-1, u64::cast_signed).to_string(),
            ValueType::Number | ValueType::BigEndianNumber => {
                let bits = value.number().unwrap().map(|number| u32::try_from(number).unwrap());
                bits.map_or(-1, u32::cast_signed).to_string()
            }
            ValueType::Texts => value.texts().unwrap().unwrap().join("|"),
            _ => format!(
                "{} bytes {:x}",
                bytes.len(),
                bytes.iter().fold(0_u32, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte))
            ),
        };
        writeln!(text, "value {} {data}", value.name()).unwrap();
    }
    for below in key.subkeys().unwrap() {
        listing(&below, text);
    }
}

/// The same from the XML of hivexml.
fn listing_of_xml(xml: &str) -> String {
    let mut text = String::new();
    let mut texts: Option<Vec<String>> = None;
    for part in xml.split('<').skip(1) {
        let (tag, content) = part.split_once('>').unwrap_or((part, ""));
        let attribute = |name: &str| {
            let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
            Some(unescaped(rest.split_once('"')?.0))
        };
        match tag.split([' ', '/']).next().unwrap() {
            "node" => writeln!(text, "key {}", attribute("name").unwrap_or_default()).unwrap(),
            "value" => {
                let name = attribute("key").unwrap_or_default();
                let value = attribute("value").unwrap_or_default();
                if attribute("type").as_deref() == Some("string-list") {
                    write!(text, "value {name} ").unwrap();
                    texts = Some(Vec::new());
                } else if attribute("encoding").as_deref() == Some("base64") {
                    let bytes = unbased(&value);
                    let sum = bytes.iter().fold(0_u32, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte));
                    writeln!(text, "value {name} {} bytes {sum:x}", bytes.len()).unwrap();
                } else {
                    writeln!(text, "value {name} {value}").unwrap();
                }
            }
            "string" => texts.as_mut().unwrap().push(unescaped(content)),
            "" if tag.starts_with("/value") => {
                if let Some(mut texts) = texts.take() {
                    // hivexml counts the empty texts that end the list.
                    while texts.pop_if(|text| text.is_empty()).is_some() {}
                    writeln!(text, "{}", texts.join("|")).unwrap();
                }
            }
            _ => {}
        }
    }
    text
}

fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain.push_str(before);
        let (name, after) = after.split_once(';').unwrap();
        plain.push(match name {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            number => {
                let number = number.strip_prefix("#x").map(|hex| u32::from_str_radix(hex, 16).unwrap());
                let number = number.or_else(|| name.strip_prefix('#').map(|number| number.parse().unwrap()));
                char::from_u32(number.unwrap()).unwrap()
            }
        });
        rest = after;
    }
    plain + rest
}

/// Bytes of base64 text.
fn unbased(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u32> = text.bytes().filter_map(digit).map(u32::from).collect();
    let mut bytes = Vec::new();
    for group in digits.chunks(4) {
        let bits = group.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - group.len()));
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}

#[test]
fn every_key_and_value_is_what_hivexml_prints() {
    let Some(corpus) = corpus() else { return };
    if !has_tools(&["hivexml"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let names = [
        "ez/BCD",
        "ez/NTUSER1.DAT",
        "ez/SAM",
        "ez/SAM_DUPENAME",
        "ez/SECURITY",
        "notatin/NTUSER.DAT",
        "notatin/win7_ntuser.dat",
        "regipy/SAM.xz",
        "regipy/SYSTEM.xz",
        "winreg-kb/UsrClass.dat",
    ];
    for name in names {
        let bytes = unpacked(&corpus.join("registry").join(name));
        let path = folder.path().join("hive");
        std::fs::write(&path, &bytes).unwrap();
        let xml = String::from_utf8_lossy(&run("hivexml", &[path.to_str().unwrap()])).into_owned();
        let mut ours = String::new();
        listing(&open(bytes, Vec::new()).unwrap().root().unwrap(), &mut ours);
        let theirs = listing_of_xml(&xml);
        for (number, (ours, theirs)) in ours.lines().zip(theirs.lines()).enumerate() {
            assert_eq!(ours, theirs, "{name}, line {number}");
        }
        assert_eq!(ours.lines().count(), theirs.lines().count(), "{name}");
    }
}

fn of_regipy(corpus: &Path, name: &str) -> Vec<u8> {
    unpacked(&corpus.join(format!("registry/regipy/transactions_{name}.xz")))
}

/// Entries of the log carry the sequence numbers 566 to 588 and the hive the numbers 567 and 566; the second log ended at 562.
#[test]
fn logs_of_the_new_format_are_replayed_in_the_order_of_their_entries() {
    let Some(corpus) = corpus() else { return };
    let primary = of_regipy(&corpus, "NTUSER.DAT");
    let logs = [of_regipy(&corpus, "ntuser.dat.log1"), of_regipy(&corpus, "ntuser.dat.log2")];
    let stale = open(primary.clone(), Vec::new()).unwrap();
    assert!(stale.was_dirty() && stale.recovered_pages() == 0);
    assert!(stale.warnings().iter().any(|warning| warning.contains("read as it lies")), "{:?}", stale.warnings());
    let mut found = Vec::new();
    for order in [[0, 1], [1, 0]] {
        let hive = open(primary.clone(), order.map(|log: usize| logs[log].clone()).to_vec()).unwrap();
        assert!(hive.warnings().is_empty(), "{:?}", hive.warnings());
        let mut text = String::new();
        listing(&hive.root().unwrap(), &mut text);
        found.push((hive.recovered_pages(), text));
    }
    assert_eq!(found[0], found[1], "the order of the files decides nothing");
    // 24 + 16 + 28 + 15 × 3 + 6 + 2 + 4 + 3 + 4, by the counts in the headers of the entries.
    assert_eq!(found[0].0, 132, "every page of the entries 566 to 588");
}

/// regipy applies the same entries; what it makes of the hive is read here without a log. It would apply the second log too,
/// whose entry is older than the hive, so it is not given that one.
#[test]
fn a_replayed_hive_is_what_regipy_makes_of_it() {
    let Some(corpus) = corpus() else { return };
    if !has_tools(&["regipy-process-transaction-logs"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (name, from) in [("NTUSER.DAT", "NTUSER.DAT"), ("log1", "ntuser.dat.log1")] {
        std::fs::write(path(name), of_regipy(&corpus, from)).unwrap();
    }
    let arguments = [&path("NTUSER.DAT"), "-p", &path("log1"), "-o", &path("out")];
    run("regipy-process-transaction-logs", &arguments.map(|argument: &str| argument));
    let read = |bytes: Vec<u8>, logs: Vec<Vec<u8>>| {
        let mut text = String::new();
        listing(&open(bytes, logs).unwrap().root().unwrap(), &mut text);
        text
    };
    // It leaves the base block as it was, whose checksum its own changes make wrong.
    let mut theirs = std::fs::read(path("out")).unwrap();
    seal(&mut theirs);
    let theirs = read(theirs, Vec::new());
    let logs = vec![of_regipy(&corpus, "ntuser.dat.log1"), of_regipy(&corpus, "ntuser.dat.log2")];
    assert!(read(of_regipy(&corpus, "NTUSER.DAT"), logs) == theirs, "the two differ");
}

#[test]
fn a_log_that_was_cut_off_is_applied_as_far_as_it_is_whole() {
    let Some(corpus) = corpus() else { return };
    let primary = of_regipy(&corpus, "NTUSER.DAT");
    let log = of_regipy(&corpus, "ntuser.dat.log1");
    // The second entry ends at 348,160 bytes.
    let cases: [(&str, Vec<u8>, usize); 4] = [
        ("cut in the third entry", log[..400_000].to_vec(), 40),
        ("a byte of the third entry differs", spoiled(&log, 350_000), 40),
        ("a byte of the first entry differs", spoiled(&log, 600), 0),
        ("its base block is bad", spoiled(&log, 40), 0),
    ];
    for (what, log, pages) in cases {
        let hive = open(primary.clone(), vec![log]).unwrap();
        assert_eq!(hive.recovered_pages(), pages, "{what}");
        assert_eq!(hive.warnings().len(), 1, "{what}: {:?}", hive.warnings());
        assert!(count(&hive.root().unwrap(), &mut HashSet::new()).unwrap().0 > 2_000, "{what}");
    }
    // A hive whose own base block is lost has that of its log.
    let hive = open(spoiled(&primary, 40), vec![log]).unwrap();
    assert_eq!(hive.recovered_pages(), 132);
    assert!(open(spoiled(&primary, 40), Vec::new()).is_err());
}

fn spoiled(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x55;
    bytes
}

/// A log of the old format made of two states of one hive: what differs stands in the log, the hive lies in the first state.
#[test]
fn a_log_of_the_old_format_is_replayed() {
    let Some(corpus) = corpus() else { return };
    let after = unpacked(&corpus.join("registry/winreg-kb/NTUSER.DAT"));
    let mut before = after.clone();
    // The state before: two bins were not written yet, and the hive says that it was being written.
    for bin in [3, 17] {
        before[4096 + bin * 4096 + 32..4096 + (bin + 1) * 4096].fill(0);
    }
    before[4..8].copy_from_slice(&(u32::from_le_bytes(after[4..8].try_into().unwrap()) + 1).to_le_bytes());
    seal(&mut before);
    let mut log = after[..512].to_vec();
    log[28] = 1;
    seal(&mut log);
    let bins = u32::from_le_bytes(after[40..44].try_into().unwrap()) as usize / 4096;
    log.extend(b"DIRT");
    log.extend((0..bins).map(|bin| if bin == 3 || bin == 17 { 0xff } else { 0 }));
    log.resize(log.len().next_multiple_of(512), 0);
    for bin in [3, 17] {
        log.extend(&after[4096 + bin * 4096..4096 + (bin + 1) * 4096]);
    }
    let expected = count(&open(after, Vec::new()).unwrap().root().unwrap(), &mut HashSet::new()).unwrap();
    let hive = open(before.clone(), vec![Vec::new(), log.clone()]).unwrap();
    assert_eq!((hive.recovered_pages(), hive.warnings().len()), (16, 0), "{:?}", hive.warnings());
    assert_eq!(count(&hive.root().unwrap(), &mut HashSet::new()).unwrap(), expected);
    assert!(hive.problems().is_empty());
    // A log of another time is not its own.
    log[12] ^= 1;
    seal(&mut log);
    let hive = open(before, vec![log]).unwrap();
    assert_eq!((hive.recovered_pages(), hive.warnings().len()), (0, 1));
}

fn seal(bytes: &mut [u8]) {
    let sum = bytes[..508].as_chunks::<4>().0.iter().fold(0, |sum, word| sum ^ u32::from_le_bytes(*word));
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn no_bytes_of_a_hive_or_a_log_panic_or_hang() {
    let Some(corpus) = corpus() else { return };
    let mut seeds = vec![(of_regipy(&corpus, "NTUSER.DAT"), vec![of_regipy(&corpus, "ntuser.dat.log1")])];
    for name in ["ez/SAM", "ez/NTUSER1.DAT", "regipy/SAM.xz", "winreg-kb/NTUSER.DAT"] {
        seeds.push((unpacked(&corpus.join("registry").join(name)), Vec::new()));
    }
    let mut noise = Noise::new(0x7265_6766);
    for round in 0..150 {
        let (primary, logs) = &seeds[round % seeds.len()];
        let (mut primary, mut logs) = (primary.clone(), logs.clone());
        for _ in 0..=noise.below(60) {
            let spoil = if noise.below(4) == 0 { logs.first_mut().unwrap_or(&mut primary) } else { &mut primary };
            let at = noise.below(spoil.len().min(200_000));
            let at = if noise.below(2) == 0 { at & !3 } else { at };
            let bytes = [[0; 4], [0xff; 4], (noise.next() as u32 & 0x1f_ffff).to_le_bytes()][noise.below(3)];
            let end = (at + 4).min(spoil.len());
            spoil[at..end].copy_from_slice(&bytes[..end - at]);
        }
        if noise.below(2) == 0 {
            seal(&mut primary);
        }
        let limits = Limits { time: Duration::from_secs(5), ..Limits::default() };
        let started = Instant::now();
        let logs = || logs.into_iter().map(source).collect();
        if let Ok(hive) = Hive::open(source(primary), logs, guestkit::Budget::new(&limits))
            && let Ok(root) = hive.root()
        {
            let mut text = 0;
            drop(read_all(&root, &mut HashSet::new(), &mut text));
        }
        assert!(started.elapsed() < Duration::from_secs(5), "round {round}: {:?}", started.elapsed());
    }
}

fn read_all(key: &Key<'_>, seen: &mut HashSet<u32>, bytes: &mut usize) -> Result<(), Error> {
    drop(key.class());
    for value in key.values().unwrap_or_default() {
        *bytes += value.bytes().map_or(0, |bytes| bytes.len());
    }
    match key.subkeys() {
        Err(error) if error.is_budget_exhausted() => return Err(error),
        below => {
            for below in below.unwrap_or_default() {
                if seen.insert(below.offset()) {
                    read_all(&below, seen, bytes)?;
                }
            }
        }
    }
    Ok(())
}
