//! What systemd's journal tells of the last time a guest ran: when that was, and how it left its units.
//!
//! Source: systemd's `docs/JOURNAL_FILE_FORMAT.md`; the identifiers of messages are those of `sd-messages.h`. Names of fields and
//! units are short, and what is short is never compressed, so that no object has to be unpacked. Hash tables are walked, not
//! looked up in: a journal has few fields.
#![deny(clippy::indexing_slicing)]

use std::collections::{BTreeMap, HashMap};

use crate::bytes::{array, has, hex, le_u32, le_u64};
use crate::error::{Error, Result};
use crate::read_at::{ReadAt, read_up_to};

use super::files::Files;

/// Where persistent journals lie, a folder for each machine id.
const JOURNALS: &str = "/var/log/journal";
/// Files of one machine that are looked at: journald keeps at most a hundred, and the last start is in the newest ones.
const FILES_MAX: usize = 200;
/// Objects followed in one chain, and entries looked at in one file: the largest journals (4 GiB) have some millions of
/// entries, of which the ones that tell of units are few.
const CHAIN_MAX: usize = 200_000;
/// The longest name of a unit (`UNIT_NAME_MAX` of systemd) with the field's own.
const DATA_BYTES_MAX: usize = 5 + 255;

/// Bytes looked at of a message of the kernel.
const MESSAGE_BYTES_MAX: usize = 512;

const COMPACT: u32 = 1 << 4;
/// Of an object's header: it is compressed.
const COMPRESSED: u8 = 0b111;

/// What the last start left behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LastBoot {
    /// When its first entry was written, in seconds since 1970.
    pub(crate) began_at: i64,
    /// States of units whose start, stop or failure it tells.
    pub(crate) units: BTreeMap<String, State>,
    /// The newest file it stands in.
    pub(crate) source: String,
}

/// How a unit was left, before the system was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Active,
    Inactive,
    Failed,
}

impl State {
    /// As `systemctl` prints it of a unit that `ends_at_once` when it has started.
    pub(crate) const fn name_for(self, ends_at_once: bool) -> &'static str {
        match self {
            Self::Active if !ends_at_once => "active",
            Self::Active | Self::Inactive => "inactive",
            Self::Failed => "failed",
        }
    }
}

/// What an entry tells of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Started,
    Stopped,
    Failed,
    /// The system was asked to stop: what follows says nothing of how units were.
    ShuttingDown,
}

/// `SD_MESSAGE_…` by the identifiers of `sd-messages.h`.
const EVENTS: [(&str, Event); 6] = [
    // UNIT_STARTED, UNIT_STOPPED
    ("39f53479d3a045ac8e11786248231fbf", Event::Started),
    ("9d1aaa27d60140bd96365438aad20286", Event::Stopped),
    // UNIT_SUCCESS: it ended by itself.
    ("7ad2d189f7e94e70a38c781354912448", Event::Stopped),
    // UNIT_FAILURE_RESULT, and UNIT_FAILED of before version 237
    ("d9b373ed55a64feb8242e02dbe79a49c", Event::Failed),
    ("be02cf6855d2428ba40df7e9d022f03d", Event::Failed),
    // SHUTDOWN, of logind
    ("98268866d1d54a499c4e98921d93bc40", Event::ShuttingDown),
];

/// The system's journals that can be read, and where they lie; and why the last that cannot be cannot.
fn journals(files: &Files<'_>) -> (Vec<(Journal, String)>, Option<String>) {
    let (mut journals, mut problem) = (Vec::new(), None);
    for folder in files.names(JOURNALS) {
        for path in files.with_suffix(&format!("{JOURNALS}/{folder}"), ".journal") {
            let is_of_system = path.rsplit('/').next().is_some_and(|name| name.starts_with("system"));
            if !is_of_system || journals.len() == FILES_MAX {
                continue;
            }
            let Some(file) = files.open(&path).filter(|file| !file.is_empty()) else { continue };
            match Journal::open(Box::new(file)) {
                Ok(journal) => journals.push((journal, path)),
                Err(error) => {
                    problem = Some(format!("{path}: {}", error.with_causes()));
                    files.warn_error(&path, &error);
                }
            }
        }
    }
    (journals, problem)
}

/// Hands over the kernel's own messages, with when each was written in seconds since 1970 and where it stands; how many there were,
/// or `None` where no journal has any.
///
/// # Errors
/// Why a journal cannot be read; the messages of the others were handed over.
pub(crate) fn kernel_messages(
    files: &Files<'_>,
    each: &mut dyn FnMut(i64, &str, &str),
) -> std::result::Result<Option<usize>, String> {
    let (journals, mut problem) = journals(files);
    let mut count = None;
    for (journal, path) in journals {
        match journal.kernel_messages(&mut |at, message| each(at, message, &path)) {
            Ok(found) => count = found.map(|found| found + count.unwrap_or(0)).or(count),
            Err(error) => {
                problem = Some(format!("{path}: {}", error.with_causes()));
                files.warn_error(&path, &error);
            }
        }
    }
    problem.map_or(Ok(count), Err)
}

/// The last start that the guest's journals tell of.
pub(crate) fn last_boot(files: &Files<'_>) -> Option<LastBoot> {
    let (mut journals, _) = journals(files);
    journals.sort_by_key(|(journal, _)| std::cmp::Reverse(journal.tail_realtime));
    let mut told = Told::default();
    for (journal, path) in &journals {
        match journal.tell(&mut told) {
            // An older file counts as long as the same start reaches back into it.
            Ok(true) => {
                told.source.get_or_insert_with(|| path.clone());
            }
            Ok(false) => break,
            Err(error) => {
                files.warn_error(path, &error);
                break;
            }
        }
    }
    told.concluded()
}

/// Events of one boot, from however many files.
#[derive(Debug, Default)]
struct Told {
    /// The boot, as `_BOOT_ID` has it.
    boot: Option<String>,
    /// Whether its first entry was met.
    is_whole: bool,
    /// When the earliest entry of it was written, in microseconds since 1970.
    began_at: Option<u64>,
    /// By when and in which order they were written; without a unit for those of the whole system.
    events: Vec<((u64, u64), Event, Option<String>)>,
    source: Option<String>,
}

impl Told {
    fn concluded(mut self) -> Option<LastBoot> {
        self.events.sort_by_key(|(at, ..)| *at);
        let mut units = BTreeMap::new();
        for (_, event, unit) in self.events {
            let state = match event {
                Event::ShuttingDown => break,
                Event::Started => State::Active,
                Event::Failed => State::Failed,
                Event::Stopped => State::Inactive,
            };
            let Some(unit) = unit else { continue };
            // What has failed stays so while it is cleaned up after, until it is started again.
            if state == State::Inactive && units.get(&unit) == Some(&State::Failed) {
                continue;
            }
            units.insert(unit, state);
        }
        let began_at = i64::try_from(self.began_at? / 1_000_000).ok()?;
        Some(LastBoot { began_at, units, source: self.source? })
    }
}

/// One journal file.
#[derive(Debug)]
struct Journal {
    file: Box<dyn ReadAt>,
    is_compact: bool,
    fields_offset: u64,
    fields_bytes: u64,
    entries_offset: u64,
    tail_realtime: u64,
}

/// What is needed of an entry object.
#[derive(Debug)]
struct Entry {
    sequence: u64,
    realtime: u64,
    boot: [u8; 16],
    /// Offsets of its data objects.
    items: Vec<u64>,
}

fn corrupt(offset: u64, reason: impl Into<String>) -> Error {
    Error::corrupt("journal", offset, reason)
}

impl Journal {
    fn open(file: Box<dyn ReadAt>) -> Result<Self> {
        let head = read_up_to(&*file, 0, 208)?;
        if !has(&head, 0, b"LPKSHHRH") {
            return Err(corrupt(0, "it does not begin as a journal does"));
        }
        let number = |at: usize| le_u64(&head, at).ok_or_else(|| corrupt(at as u64, "its header is cut off"));
        let flags = le_u32(&head, 12).unwrap_or(0);
        if flags & !0b1_1111 != 0 {
            return Err(Error::unsupported(format!("a journal with the incompatible flags {flags:#x}")));
        }
        Ok(Self {
            is_compact: flags & COMPACT != 0,
            fields_offset: number(120)?,
            fields_bytes: number(128)?,
            entries_offset: number(176)?,
            tail_realtime: number(192)?,
            file,
        })
    }

    /// An object's first `length` bytes, or all of it where it is shorter, after a look at its type.
    fn object(&self, offset: u64, kind: u8, length: usize) -> Result<Vec<u8>> {
        if offset == 0 || !offset.is_multiple_of(8) {
            return Err(corrupt(offset, "no object can lie there"));
        }
        let mut bytes = read_up_to(&*self.file, offset, length)?;
        if bytes.first() != Some(&kind) {
            return Err(corrupt(offset, format!("an object of type {kind} was expected")));
        }
        let size = le_u64(&bytes, 8).filter(|size| *size >= 16);
        let size = size.ok_or_else(|| corrupt(offset, "an object is smaller than its header"))?;
        bytes.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        Ok(bytes)
    }

    fn number(&self, bytes: &[u8], at: usize, object: u64) -> Result<u64> {
        le_u64(bytes, at).ok_or_else(|| corrupt(object, "an object is cut off"))
    }

    /// Every item of a chain of entry arrays.
    fn arrays(&self, offset: u64, each: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        let mut offset = offset;
        let item_bytes = if self.is_compact { 4 } else { 8 };
        for _ in 0..CHAIN_MAX {
            if offset == 0 {
                return Ok(());
            }
            let head = self.object(offset, 6, 24)?;
            let next = self.number(&head, 16, offset)?;
            let length = usize::try_from(self.number(&head, 8, offset)?.min(self.file.len())).unwrap_or(usize::MAX);
            let array = self.object(offset, 6, length)?;
            for item in array.get(24..).unwrap_or_default().chunks_exact(item_bytes) {
                let at = le_u64(item, 0).or_else(|| le_u32(item, 0).map(u64::from)).unwrap_or(0);
                // The array is longer than what has been written so far.
                if at == 0 {
                    return Ok(());
                }
                each(at)?;
            }
            if next != 0 && next <= offset {
                return Err(corrupt(offset, "a chain of entries leads back"));
            }
            offset = next;
        }
        Err(corrupt(offset, "a chain of entries has no end"))
    }

    fn entry(&self, offset: u64) -> Result<Entry> {
        // A message of the service manager has some twenty fields; the largest entries have some hundred.
        let bytes = self.object(offset, 3, 4096)?;
        let boot = array(&bytes, 40).ok_or_else(|| corrupt(offset, "an entry is cut off"))?;
        let item_bytes = if self.is_compact { 4 } else { 16 };
        let items = bytes.get(64..).unwrap_or_default().chunks_exact(item_bytes);
        let at = |item: &[u8]| if self.is_compact { le_u32(item, 0).map(u64::from) } else { le_u64(item, 0) };
        Ok(Entry {
            sequence: self.number(&bytes, 16, offset)?,
            realtime: self.number(&bytes, 24, offset)?,
            boot,
            items: items.filter_map(at).collect(),
        })
    }

    /// The values of the field `name` that are short and not compressed, each with where its object lies.
    fn values(&self, name: &str) -> Result<Vec<(u64, String)>> {
        let Some(mut offset) = self.first_value(name)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for _ in 0..CHAIN_MAX {
            if offset == 0 {
                return Ok(found);
            }
            let bytes = self.object(offset, 1, self.payload() + DATA_BYTES_MAX + 1)?;
            let is_short = bytes.len() <= self.payload() + DATA_BYTES_MAX;
            let value = self.value(&bytes, name).filter(|_| is_short).and_then(|value| std::str::from_utf8(value).ok());
            found.extend(value.map(|value| (offset, value.to_owned())));
            offset = self.number(&bytes, 32, offset)?;
        }
        Err(corrupt(offset, "a chain of values has no end"))
    }

    /// Where the newest value of a field lies.
    fn first_value(&self, name: &str) -> Result<Option<u64>> {
        let length = usize::try_from(self.fields_bytes.min(1 << 20)).unwrap_or(0);
        let buckets = read_up_to(&*self.file, self.fields_offset, length)?;
        let mut steps = 0;
        for bucket in buckets.chunks_exact(16) {
            let mut offset = le_u64(bucket, 0).unwrap_or(0);
            while offset != 0 {
                let field = self.object(offset, 2, 40 + 64)?;
                if field.get(40..) == Some(name.as_bytes()) {
                    return self.number(&field, 32, offset).map(Some);
                }
                offset = self.number(&field, 24, offset)?;
                steps += 1;
                if steps > CHAIN_MAX {
                    return Err(corrupt(offset, "a chain of fields has no end"));
                }
            }
        }
        Ok(None)
    }

    /// The entries that have the value whose object lies at `offset`.
    fn entries_of(&self, offset: u64) -> Result<Vec<u64>> {
        let data = self.object(offset, 1, 64)?;
        let first = self.number(&data, 40, offset)?;
        let mut found: Vec<u64> = Some(first).filter(|first| *first != 0).into_iter().collect();
        self.arrays(self.number(&data, 48, offset)?, &mut |entry| {
            found.push(entry);
            if found.len() > CHAIN_MAX { Err(corrupt(offset, "a message has too many entries")) } else { Ok(()) }
        })?;
        Ok(found)
    }

    /// Adds what this file tells of the boot in question, which is its last one where none is known yet. Whether it tells
    /// anything of it, and may not be the first that does.
    fn tell(&self, told: &mut Told) -> Result<bool> {
        // A new value is put in front of those before it.
        let Some((boot_value, boot)) = self.values("_BOOT_ID")?.into_iter().next() else { return Ok(false) };
        if told.is_whole || told.boot.as_ref().is_some_and(|known| *known != boot) {
            return Ok(false);
        }
        let first = self.number(&self.object(boot_value, 1, 64)?, 40, boot_value)?;
        let began_at = self.entry(first)?.realtime;
        told.began_at = Some(told.began_at.map_or(began_at, |known| known.min(began_at)));
        told.is_whole = self.first_entry()? != Some(first);
        let units: HashMap<u64, String> = self.values("UNIT")?.into_iter().collect();
        for (value, id) in self.values("MESSAGE_ID")? {
            let Some((_, event)) = EVENTS.iter().find(|(known, _)| *known == id) else { continue };
            // Newest first, until the boot before is met.
            for offset in self.entries_of(value)?.into_iter().rev() {
                let entry = self.entry(offset)?;
                if hex(&entry.boot) != boot {
                    break;
                }
                let unit = entry.items.iter().find_map(|item| units.get(item)).cloned();
                told.events.push(((entry.realtime, entry.sequence), *event, unit));
            }
        }
        told.boot = Some(boot);
        Ok(true)
    }

    /// The kernel's own messages, in no order; how many, or `None` where the file has none.
    fn kernel_messages(&self, each: &mut dyn FnMut(i64, &str)) -> Result<Option<usize>> {
        let transports = self.values("_TRANSPORT")?;
        let Some((transport, _)) = transports.iter().find(|(_, name)| name == "kernel") else { return Ok(None) };
        let entries = self.entries_of(*transport)?;
        for offset in &entries {
            let entry = self.entry(*offset)?;
            let at = i64::try_from(entry.realtime / 1_000_000).unwrap_or(i64::MAX);
            // What only this entry has was written last, and lies behind what it shares with others.
            let mut items = entry.items;
            items.sort_unstable_by_key(|item| std::cmp::Reverse(*item));
            for item in items {
                if let Some(message) = self.text(item, "MESSAGE")? {
                    each(at, &message);
                    break;
                }
            }
        }
        Ok(Some(entries.len()))
    }

    /// The start of a value of the field `name`; `None` for those of other fields and what is compressed, which is longer than any
    /// message of the kernel.
    fn text(&self, offset: u64, name: &str) -> Result<Option<String>> {
        let bytes = self.object(offset, 1, self.payload() + MESSAGE_BYTES_MAX)?;
        Ok(self.value(&bytes, name).map(|value| String::from_utf8_lossy(value).into_owned()))
    }

    /// Where the payload of a data object begins.
    const fn payload(&self) -> usize {
        if self.is_compact { 72 } else { 64 }
    }

    /// The value in a data object of the field `name`, as far as it was read; `None` where it is compressed.
    fn value<'o>(&self, object: &'o [u8], name: &str) -> Option<&'o [u8]> {
        let is_plain = object.get(1).is_some_and(|flags| flags & COMPRESSED == 0);
        let payload = object.get(self.payload()..).filter(|_| is_plain)?;
        payload.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
    }

    fn first_entry(&self) -> Result<Option<u64>> {
        let array = self.object(self.entries_offset, 6, 32)?;
        let item = array.get(24..).unwrap_or_default();
        Ok(if self.is_compact { le_u32(item, 0).map(u64::from) } else { le_u64(item, 0) })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::guest::linux::fixture::Fixture;

    const BOOT_1: &str = "11111111111111111111111111111111";
    const BOOT_2: &str = "22222222222222222222222222222222";
    const STARTED: &str = "39f53479d3a045ac8e11786248231fbf";
    const FAILED: &str = "d9b373ed55a64feb8242e02dbe79a49c";

    /// Entries in the form that `journalctl -o export` has and `systemd-journal-remote` takes.
    fn export(entries: &[(u64, &str, &str, &str)]) -> String {
        let mut text = String::new();
        for (index, (second, boot, id, unit)) in entries.iter().enumerate() {
            let (at, monotonic) = (1_700_000_000_000_000 + second * 1_000_000, second * 1_000_000 + 1);
            text += &format!(
                "__CURSOR=s=33333333333333333333333333333333;i={:x}\n__REALTIME_TIMESTAMP={at}\n\
                 __MONOTONIC_TIMESTAMP={monotonic}\n_BOOT_ID={boot}\nMESSAGE={}\nMESSAGE_ID={id}\nUNIT={unit}\n_PID=1\n\n",
                index + 1,
                "a longer text ".repeat(100)
            );
        }
        text
    }

    /// A journal that systemd itself writes; `None` where it is not installed.
    fn journal(entries: &[(u64, &str, &str, &str)], is_compact: bool) -> Option<Vec<u8>> {
        written(&export(entries), is_compact)
    }

    fn written(entries: &str, is_compact: bool) -> Option<Vec<u8>> {
        const TOOL: &str = "/lib/systemd/systemd-journal-remote";
        if !std::path::Path::new(TOOL).exists() {
            println!("systemd-journal-remote is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("entries"), folder.path().join("out.journal"));
        std::fs::write(&from, entries).unwrap();
        let made = Command::new(TOOL)
            .arg("-o")
            .args([&to, &from])
            .env("SYSTEMD_JOURNAL_COMPACT", if is_compact { "1" } else { "0" })
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(std::fs::read(to).unwrap())
    }

    fn boot(files: &[(&str, &[u8])]) -> (Option<LastBoot>, usize) {
        let fixture = Fixture::new();
        for (name, bytes) in files {
            fixture.file(&format!("var/log/journal/4444/{name}"), bytes);
        }
        let tree = fixture.tree();
        let files = Files::new(&tree);
        let told = last_boot(&files);
        (told, files.into_warnings().len())
    }

    #[test]
    fn messages_of_the_kernel_are_told_apart_from_those_of_programs() {
        let mut entries = String::new();
        for (index, (transport, message)) in [
            ("kernel", "Out of memory: Killed process 7"),
            ("stdout", "Out of memory: Killed, says somebody"),
            ("kernel", "ok"),
        ]
        .into_iter()
        .enumerate()
        {
            entries += &format!(
                "__CURSOR=s=33333333333333333333333333333333;i={:x}\n__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={}\n\
                 _BOOT_ID={BOOT_1}\n_TRANSPORT={transport}\nMESSAGE={message}\nPRIORITY=3\n\n",
                index + 1,
                1_700_000_000_000_000 + index * 1_000_000,
                index * 1_000_000 + 1
            );
        }
        for is_compact in [false, true] {
            let Some(bytes) = written(&entries, is_compact) else { return };
            let fixture = Fixture::new();
            fixture.file("var/log/journal/4444/system.journal", &bytes);
            let tree = fixture.tree();
            let files = Files::new(&tree);
            let mut told = Vec::new();
            let count = kernel_messages(&files, &mut |at, message, _| told.push((at, message.to_owned())));
            let expected = [(1_700_000_000, "Out of memory: Killed process 7"), (1_700_000_002, "ok")];
            assert_eq!(told, expected.map(|(at, message)| (at, message.to_owned())));
            assert_eq!(count, Ok(Some(2)));
            assert_eq!(files.into_warnings().len(), 0);
        }
    }

    const ENTRIES: [(u64, &str, &str, &str); 9] = [
        (0, BOOT_1, FAILED, "old.service"),
        (100, BOOT_2, "0123456789abcdef0123456789abcdef", "other.service"),
        (101, BOOT_2, STARTED, "web.service"),
        (102, BOOT_2, STARTED, "job.service"),
        (103, BOOT_2, FAILED, "job.service"),
        (104, BOOT_2, "9d1aaa27d60140bd96365438aad20286", "job.service"),
        (105, BOOT_2, "7ad2d189f7e94e70a38c781354912448", "once.service"),
        (200, BOOT_2, "98268866d1d54a499c4e98921d93bc40", "logind"),
        (201, BOOT_2, "9d1aaa27d60140bd96365438aad20286", "web.service"),
    ];

    #[test]
    fn the_last_boot_is_told_as_it_was_before_it_ended() {
        for is_compact in [false, true] {
            let Some(bytes) = journal(&ENTRIES, is_compact) else { return };
            let (told, warnings) = boot(&[("system.journal", &bytes)]);
            let told = told.unwrap();
            assert_eq!((told.began_at, warnings), (1_700_000_100, 0));
            let states = told.units.iter().map(|(name, state)| (name.as_str(), *state)).collect::<Vec<_>>();
            assert_eq!(
                states,
                [("job.service", State::Failed), ("once.service", State::Inactive), ("web.service", State::Active)]
            );
        }
    }

    #[test]
    fn a_boot_goes_back_into_older_files() {
        let Some(older) = journal(&ENTRIES[..4], true) else { return };
        let newer = journal(&ENTRIES[4..], true).unwrap();
        let (told, _) = boot(&[("system.journal", &newer), ("system@1.journal", &older)]);
        let told = told.unwrap();
        assert_eq!(told.began_at, 1_700_000_100);
        assert_eq!(told.units.get("web.service"), Some(&State::Active));
        assert_eq!(told.units.get("old.service"), None);
        assert!(told.source.ends_with("/system.journal"));
    }

    #[test]
    fn any_damage_ends() {
        let Some(bytes) = journal(&ENTRIES, true) else { return };
        for seed in 0..600_u64 {
            let mut spoilt = bytes.clone();
            for step in 0..4 {
                let noise = (seed * 4 + step + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let at = usize::try_from(noise >> 20).unwrap() % spoilt.len().min(6000);
                spoilt[at] = noise.to_le_bytes()[0];
            }
            boot(&[("system.journal", &spoilt)]);
        }
        for length in (0..400).step_by(7) {
            boot(&[("system.journal", &bytes[..length])]);
        }
    }
}
