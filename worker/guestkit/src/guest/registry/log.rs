//! Transaction logs, replayed in memory: of the old format (a bitmap and 512-byte pages) and of the new one (entries with
//! hashes). Source: specification, "Format of transaction log files", "Dirty state of a hive", "Multiple transaction log
//! files".

use std::collections::BTreeMap;

use super::BINS_START;
use super::base::{self, BaseBlock};
use super::marvin;
use crate::bytes::{has, le_u32, le_u64, slice};
use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::read_at::{ReadAt, Source};

/// Logs count in sectors, whatever the disk's.
const SECTOR_BYTES: usize = 512;
/// The smallest bin, and what the sizes of all are multiples of.
const BIN_BYTES: u32 = 4096;
/// Bytes of a log entry before its references.
const ENTRY_BYTES: usize = 40;

/// What the logs say of the bins, by 512-byte sector.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    sectors: BTreeMap<u64, [u8; SECTOR_BYTES]>,
    pages: usize,
}

impl Overlay {
    pub(super) fn is_empty(&self) -> bool {
        self.sectors.is_empty()
    }

    pub(super) const fn pages(&self) -> usize {
        self.pages
    }

    /// Lays what the logs say over `block`, which begins at `start` among the bins.
    pub(super) fn apply(&self, start: u64, block: &mut [u8]) {
        let first = start / SECTOR_BYTES as u64;
        let count = block.len().div_ceil(SECTOR_BYTES) as u64;
        for (number, sector) in self.sectors.range(first..first.saturating_add(count)) {
            let at = usize::try_from((number - first) * SECTOR_BYTES as u64).unwrap_or(usize::MAX);
            if let Some(to) = block.get_mut(at..) {
                let length = to.len().min(SECTOR_BYTES);
                if let (Some(to), Some(from)) = (to.get_mut(..length), sector.get(..length)) {
                    to.copy_from_slice(from);
                }
            }
        }
    }

    fn put(&mut self, offset: u32, page: &[u8]) {
        let first = u64::from(offset) / SECTOR_BYTES as u64;
        for (number, sector) in (first..).zip(page.as_chunks::<SECTOR_BYTES>().0) {
            self.sectors.insert(number, *sector);
        }
        self.pages += 1;
    }
}

/// A log whose base block is sound.
struct Log {
    base: BaseBlock,
    bytes: Vec<u8>,
    /// Which of the files it is, from 1.
    number: usize,
}

/// What a dirty hive is once its logs are applied. `found` is its own base block, where that is sound.
pub(super) fn replay(
    found: Option<BaseBlock>,
    primary: &dyn ReadAt,
    logs: &[Source],
    budget: &Budget,
    warnings: &mut Vec<String>,
) -> Result<(BaseBlock, Overlay)> {
    let mut sound = Vec::new();
    for (number, log) in (1..).zip(logs) {
        match read(&**log, budget) {
            Ok(Some((base, bytes))) => sound.push(Log { base, bytes, number }),
            Ok(None) => {}
            Err(error) if error.is_budget_exhausted() => return Err(error),
            Err(error) => warnings.push(format!("transaction log {number} was not read: {error}")),
        }
    }
    let mut overlay = Overlay::default();
    let mut base = match found {
        Some(base) => base,
        None => match lost_base(primary, &sound)? {
            Some(base) => base,
            None => {
                let why = "the checksum of its base block differs, and no transaction log has a copy";
                return Err(Error::corrupt("registry hive", 0, why));
            }
        },
    };
    let is_new = sound.iter().any(|log| log.base.file_type == 6);
    let done = if is_new {
        replay_entries(&mut base, &sound, &mut overlay, budget)?
    } else {
        replay_vector(&mut base, found, primary, &sound, &mut overlay)?
    };
    match done {
        Some(partly) => warnings.extend(partly),
        None => warnings.push(
            "it was not let go in order and no transaction log applies to it: it is read as it lies on the disk"
                .to_owned(),
        ),
    }
    Ok((base, overlay))
}

/// Base block and contents of a log; `None` where its base block is not sound.
fn read(log: &dyn ReadAt, budget: &Budget) -> Result<Option<(BaseBlock, Vec<u8>)>> {
    if log.len() < base::BYTES as u64 {
        return Ok(None);
    }
    let mut first = [0; base::BYTES];
    log.read_exact_at(&mut first, 0)?;
    let Some(base) = BaseBlock::parse(&first).filter(|base| matches!(base.file_type, 1 | 2 | 6)) else {
        return Ok(None);
    };
    let mut bytes = budget.allocate(log.len())?;
    log.read_exact_at(&mut bytes, 0)?;
    Ok(Some((base, bytes)))
}

/// The base block of a hive that has lost its own: that of a log which belongs to it. Of several, the newest.
fn lost_base(primary: &dyn ReadAt, logs: &[Log]) -> Result<Option<BaseBlock>> {
    let newest = logs.iter().max_by_key(|log| log.base.primary_sequence);
    let Some(log) = newest else { return Ok(None) };
    if log.base.file_type != 6 {
        // The first bin keeps the time that the base block had (specification, "Old format", note 3).
        let mut bin = [0; 32];
        primary.read_exact_at(&mut bin, BINS_START)?;
        let by_time = le_u64(&bin, 20).and_then(|time| logs.iter().find(|log| log.base.written == time));
        return Ok(by_time.or(newest).map(|log| log.base));
    }
    Ok(Some(log.base))
}

/// Applies entries of logs of the new format, in the order of their numbers; `None` where none applies.
///
/// A log may hold entries that are applied already, then those that are not; the one that was begun last holds the later
/// ones, whatever its name.
fn replay_entries(
    base: &mut BaseBlock,
    logs: &[Log],
    overlay: &mut Overlay,
    budget: &Budget,
) -> Result<Option<Option<String>>> {
    let mut logs: Vec<&Log> = logs.iter().filter(|log| log.base.file_type == 6).collect();
    logs.sort_by_key(|log| (first_sequence(log), log.number));
    let mut expected = base.secondary_sequence;
    let mut applied = 0_u32;
    let mut stopped = None;
    for log in logs {
        let mut at = SECTOR_BYTES;
        loop {
            budget.check_time()?;
            let entry = match Entry::parse(&log.bytes, at) {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(why) => {
                    stopped = Some(format!("transaction log {} is whole only up to byte {at}: {why}", log.number));
                    break;
                }
            };
            at += entry.bytes;
            if entry.sequence < expected {
                continue;
            }
            if entry.sequence > expected {
                break;
            }
            for (offset, page) in &entry.pages {
                overlay.put(*offset, page);
            }
            base.bins_bytes = entry.bins_bytes;
            base.primary_sequence = entry.sequence;
            base.secondary_sequence = entry.sequence;
            expected = entry.sequence.wrapping_add(1);
            applied += 1;
            stopped = None;
        }
    }
    Ok((applied > 0).then_some(stopped))
}

fn first_sequence(log: &Log) -> u32 {
    le_u32(&log.bytes, SECTOR_BYTES + 12).filter(|_| has(&log.bytes, SECTOR_BYTES, b"HvLE")).unwrap_or(u32::MAX)
}

/// One entry of a log of the new format.
struct Entry<'a> {
    bytes: usize,
    sequence: u32,
    bins_bytes: u32,
    pages: Vec<(u32, &'a [u8])>,
}

impl<'a> Entry<'a> {
    /// The entry at `at`; `None` where there is none, and why where it is not whole.
    fn parse(log: &'a [u8], at: usize) -> std::result::Result<Option<Self>, &'static str> {
        if !has(log, at, b"HvLE") {
            return Ok(None);
        }
        let field = |offset: usize| le_u32(log, at + offset).ok_or("the entry is cut off");
        let bytes = usize::try_from(field(4)?).unwrap_or(usize::MAX);
        if bytes < ENTRY_BYTES || bytes % SECTOR_BYTES != 0 {
            return Err("the entry's size is no number of sectors");
        }
        let whole = slice(log, at, bytes).ok_or("the entry is cut off")?;
        let (head, body) = whole.split_at_checked(ENTRY_BYTES).ok_or("the entry is cut off")?;
        let signed = head.get(..32).unwrap_or_default();
        if le_u64(head, 24) != Some(marvin::hash(body)) || le_u64(head, 32) != Some(marvin::hash(signed)) {
            return Err("a hash of the entry differs");
        }
        let bins_bytes = field(16)?;
        if bins_bytes % BIN_BYTES != 0 {
            return Err("the size of all bins is no multiple of 4096");
        }
        let count = usize::try_from(field(20)?).unwrap_or(usize::MAX);
        let references = count.checked_mul(8).and_then(|length| body.split_at_checked(length));
        let (references, mut rest) = references.ok_or("its references leave the entry")?;
        let mut pages = Vec::with_capacity(count);
        for [a, b, c, d, size @ ..] in references.as_chunks::<8>().0 {
            let offset = u32::from_le_bytes([*a, *b, *c, *d]);
            let size = u32::from_le_bytes(*size);
            let length = usize::try_from(size).unwrap_or(usize::MAX);
            let (page, after) = rest.split_at_checked(length).ok_or("its pages leave the entry")?;
            let is_within = offset.checked_add(size).is_some_and(|end| end <= bins_bytes);
            if !is_within || length % SECTOR_BYTES != 0 || !offset.is_multiple_of(512) {
                return Err("a page leaves the hive or begins within a sector");
            }
            pages.push((offset, page));
            rest = after;
        }
        Ok(Some(Self { bytes, sequence: field(12)?, bins_bytes, pages }))
    }
}

/// Applies the log of the old format that belongs to the hive; `None` where none does.
fn replay_vector(
    base: &mut BaseBlock,
    found: Option<BaseBlock>,
    primary: &dyn ReadAt,
    logs: &[Log],
    overlay: &mut Overlay,
) -> Result<Option<Option<String>>> {
    let belongs =
        |log: &&Log| !log.base.is_dirty() && log.base.written == base.written && has(&log.bytes, SECTOR_BYTES, b"DIRT");
    let Some(log) = logs.iter().find(belongs) else { return Ok(None) };
    let bins_bytes = log.base.bins_bytes;
    let bitmap_bytes = usize::try_from(bins_bytes).unwrap_or(usize::MAX).div_ceil(SECTOR_BYTES).div_ceil(8);
    let Some(bitmap) = slice(&log.bytes, SECTOR_BYTES + 4, bitmap_bytes) else { return Ok(None) };
    let mut at = (SECTOR_BYTES + 4 + bitmap_bytes).next_multiple_of(SECTOR_BYTES);
    let dirty = (0_u32..).zip(bitmap).flat_map(|(byte, bits)| {
        (0..8).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| byte.saturating_mul(8).saturating_add(bit))
    });
    let mut cut_off = None;
    for number in dirty {
        let offset = number.saturating_mul(512);
        let Some(page) = slice(&log.bytes, at, SECTOR_BYTES) else {
            cut_off = Some(format!("transaction log {} ends before its last page", log.number));
            break;
        };
        let begins_bin = offset.is_multiple_of(BIN_BYTES) && page.starts_with(b"hbin");
        if begins_bin && (le_u32(page, 4) != Some(offset) || le_u32(page, 8).is_none_or(|size| size < BIN_BYTES)) {
            cut_off = Some(format!("transaction log {} holds a bin that belongs elsewhere at byte {at}", log.number));
            break;
        }
        if offset < bins_bytes {
            overlay.put(offset, page);
        }
        at += SECTOR_BYTES;
    }
    if found.is_none() {
        *base = log.base;
    }
    base.bins_bytes = bins_bytes;
    // Bins that the hive has grown by lie in the log, else behind the end of the file.
    let in_file = primary.len().saturating_sub(BINS_START);
    let is_short = u64::from(bins_bytes) > in_file && overlay.is_empty();
    base.secondary_sequence = base.primary_sequence;
    Ok((!is_short).then_some(cut_off))
}
