//! The journal, replayed in memory (Linux, Documentation/filesystems/ext4: "Journal (jbd2)"; the order of steps and what
//! ends a log is that of the kernel's `jbd2/recovery.c`).
//!
//! What is replayed is a map from blocks of the device to blocks of the journal, beneath everything else that reads.

use std::collections::{BTreeMap, HashMap};

use super::mapping::Run;
use super::superblock::crc32c;
use crate::bytes::{array, be_u16, be_u32, be_u64, le_u16, le_u32, sum_holds};
use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::read_at::{ReadAt, Source};

const MAGIC: u32 = 0xc03b_3998;
/// Types of blocks.
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK_V1: u32 = 3;
const SUPERBLOCK_V2: u32 = 4;
const REVOKE: u32 = 5;
/// Compatible and incompatible features (`JBD2_FEATURE_*`).
const CHECKSUM_V1: u32 = 1;
const BITS_64: u32 = 2;
const ASYNC_COMMIT: u32 = 4;
const CHECKSUM_V2: u32 = 8;
const CHECKSUM_V3: u32 = 16;
const FAST_COMMIT: u32 = 32;
/// With revoke records, all there are.
const READ: u32 = 1 | BITS_64 | ASYNC_COMMIT | CHECKSUM_V2 | CHECKSUM_V3 | FAST_COMMIT;
/// Flags of a tag.
const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST_TAG: u32 = 8;
/// mke2fs makes journals of at most 10,240,000 blocks.
const BLOCKS_MAX: u64 = 10_240_000;
/// Blocks replayed: a journal of 8 GiB with blocks of 4 KiB; by default one has at most 1 GiB.
const REPLAYED_MAX: usize = 2_000_000;
const HEADER_BYTES: usize = 12;

/// A device whose blocks are partly replaced by those of its journal.
#[derive(Debug)]
pub(super) struct Device {
    source: Source,
    block_bytes: u64,
    replaced: BTreeMap<u64, Stand>,
}

/// A block of the journal that stands for one of the device.
#[derive(Debug, Clone, Copy)]
struct Stand {
    block: u64,
    /// Whether its first four bytes were those of a block of the journal itself, and are zeros there.
    is_escaped: bool,
}

impl Device {
    /// The device as it lies.
    pub(super) const fn new(source: Source, block_bytes: u64) -> Self {
        Self { source, block_bytes, replaced: BTreeMap::new() }
    }

    /// Whether nothing of the journal stands for anything.
    pub(super) fn is_bare(&self) -> bool {
        self.replaced.is_empty()
    }

    fn with(self, replaced: BTreeMap<u64, Stand>) -> Self {
        Self { replaced, ..self }
    }

    /// Forgets what was replayed.
    pub(super) fn bare(self) -> Self {
        self.with(BTreeMap::new())
    }
}

impl ReadAt for Device {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.source.read_exact_at(buffer, offset)?;
        if self.replaced.is_empty() || buffer.is_empty() {
            return Ok(());
        }
        let end = offset.saturating_add(buffer.len() as u64);
        for (block, copy) in self.replaced.range(offset / self.block_bytes..end.div_ceil(self.block_bytes)) {
            let start = block.saturating_mul(self.block_bytes);
            let (from, to) = (start.max(offset), start.saturating_add(self.block_bytes).min(end));
            let within = usize::try_from(from.saturating_sub(offset)).unwrap_or(usize::MAX);
            let until = usize::try_from(to.saturating_sub(offset)).unwrap_or(usize::MAX);
            let Some(part) = buffer.get_mut(within..until) else { continue };
            let skipped = from.saturating_sub(start);
            self.source.read_exact_at(part, copy.block.saturating_mul(self.block_bytes).saturating_add(skipped))?;
            if copy.is_escaped {
                let magic = MAGIC.to_be_bytes();
                let rest = magic.get(usize::try_from(skipped).unwrap_or(usize::MAX)..).unwrap_or_default();
                for (byte, of_magic) in part.iter_mut().zip(rest) {
                    *byte = *of_magic;
                }
            }
        }
        Ok(())
    }
}

/// The journal's superblock.
#[derive(Debug)]
struct Journal<'a> {
    device: &'a Device,
    runs: &'a [Run],
    budget: &'a Budget,
    first: u64,
    /// The block behind the last of the log, where it goes on at `first`.
    end: u64,
    /// The block behind the last of the journal, up to which fast commits lie.
    blocks: u64,
    sequence: u32,
    start: u64,
    features: u32,
    has_checksum_v1: bool,
    seed: u32,
}

/// What a transaction that was committed holds.
#[derive(Debug, Default)]
struct Transaction {
    sequence: u32,
    tags: Vec<Tag>,
    revoked: Vec<u64>,
}

#[derive(Debug)]
struct Tag {
    block: u64,
    /// The block of the device that holds the copy.
    copy: u64,
    is_escaped: bool,
    checksum: u32,
}

/// Replays the journal that lies in `runs` of `device`, which has `blocks` blocks of its own.
///
/// A journal that contradicts its format leaves the device as it was. Within a sound one, the log ends at the first
/// transaction that is not whole, as the kernel ends it; a block whose own checksum is wrong is left out, alone. What
/// was left out is told in words.
///
/// # Errors
/// Limits and I/O; what a broken journal says comes back as a warning.
pub(super) fn replay(device: Device, runs: &[Run], blocks: u64, budget: &Budget) -> Result<(Device, Vec<String>)> {
    let mut warnings = Vec::new();
    let replaced = Journal::open(&device, runs, budget).and_then(|journal| match journal {
        Some(journal) => journal.replay(blocks, &mut warnings),
        None => Ok(BTreeMap::new()),
    });
    match replaced {
        Ok(replaced) => Ok((device.with(replaced), warnings)),
        Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => Ok((device, vec![not_replayed(&error)])),
        Err(other) => Err(other),
    }
}

/// The warning that says why there was no replay.
pub(super) fn not_replayed(reason: &dyn std::fmt::Display) -> String {
    format!("the journal could not be replayed, so recent changes may be missing: {reason}")
}

fn corrupt(block: u64, reason: impl Into<String>) -> Error {
    Error::corrupt("ext journal", block, reason)
}

impl<'a> Journal<'a> {
    /// Reads the superblock; `None` where the log is empty.
    fn open(device: &'a Device, runs: &'a [Run], budget: &'a Budget) -> Result<Option<Self>> {
        let first =
            runs.first().filter(|run| run.logical == 0).ok_or_else(|| corrupt(0, "its first block is missing"))?;
        let mut bytes = vec![0; 1024];
        device.read_exact_at(&mut bytes, first.physical.saturating_mul(device.block_bytes))?;
        let word = |at| be_u32(&bytes, at).unwrap_or(0);
        let kind = word(4);
        if word(0) != MAGIC || !matches!(kind, SUPERBLOCK_V1 | SUPERBLOCK_V2) {
            return Err(corrupt(0, "its superblock is not there"));
        }
        let (compatible, features) = if kind == SUPERBLOCK_V2 { (word(36), word(40)) } else { (0, 0) };
        if features & !READ != 0 {
            return Err(Error::unsupported(format!("ext journal feature {:#x}", features & !READ)));
        }
        let has_checksum_v1 = compatible & CHECKSUM_V1 != 0;
        let newer = features & (CHECKSUM_V2 | CHECKSUM_V3);
        if newer == CHECKSUM_V2 | CHECKSUM_V3 || (newer != 0 && has_checksum_v1) {
            return Err(corrupt(0, "it is said to have several kinds of checksums at once"));
        }
        if newer != 0 {
            const CRC32C: u8 = 4;
            if bytes.get(80) != Some(&CRC32C) {
                return Err(Error::unsupported("the checksum algorithm of the ext journal"));
            }
            let (before, after) = (bytes.get(..0xfc).unwrap_or_default(), bytes.get(0x100..).unwrap_or_default());
            if !sum_holds(crc32c(crc32c(crc32c(u32::MAX, before), &[0; 4]), after) == word(0xfc)) {
                return Err(corrupt(0, "the checksum of its superblock is wrong"));
            }
        }
        if u64::from(word(12)) != device.block_bytes {
            return Err(corrupt(0, format!("its blocks are said to have {} bytes", word(12))));
        }
        let (blocks, first, start) = (u64::from(word(16)), u64::from(word(20)), u64::from(word(28)));
        let mapped = runs.last().map_or(0, |run| run.logical.saturating_add(run.count));
        if blocks > mapped || blocks > BLOCKS_MAX {
            return Err(corrupt(0, format!("it is said to have {blocks} blocks, and {mapped} are mapped")));
        }
        const FAST_BLOCKS: u64 = 256;
        let fast = match u64::from(word(84)) {
            _ if features & FAST_COMMIT == 0 => 0,
            0 => FAST_BLOCKS,
            said => said,
        };
        let end = blocks.saturating_sub(fast);
        if first == 0 || first >= end || start >= end || (start != 0 && start < first) {
            return Err(corrupt(0, format!("its log is said to lie from {first} to {end} and to begin at {start}")));
        }
        let seed = crc32c(u32::MAX, bytes.get(48..64).unwrap_or_default());
        let sequence = word(24);
        let journal =
            Self { device, runs, budget, first, end, blocks, sequence, start, features, has_checksum_v1, seed };
        Ok(Some(journal).filter(|journal| journal.start != 0))
    }

    const fn has(&self, feature: u32) -> bool {
        self.features & feature != 0
    }

    /// Whether descriptor, revoke and commit blocks carry a CRC-32C.
    const fn has_checksums(&self) -> bool {
        self.has(CHECKSUM_V2) || self.has(CHECKSUM_V3)
    }

    /// The block of the device that is the journal's `block`.
    fn place(&self, block: u64) -> Result<u64> {
        let after = self.runs.partition_point(|run| run.logical <= block);
        let run = after.checked_sub(1).and_then(|index| self.runs.get(index));
        let place = run.and_then(|run| {
            let within = block.checked_sub(run.logical)?;
            (within < run.count).then(|| run.physical.saturating_add(within))
        });
        place.ok_or_else(|| corrupt(block, "its block there is a hole"))
    }

    fn read_place(&self, place: u64) -> Result<Vec<u8>> {
        self.budget.check_time()?;
        let mut bytes = vec![0; usize::try_from(self.device.block_bytes).unwrap_or(0)];
        self.device.read_exact_at(&mut bytes, place.saturating_mul(self.device.block_bytes))?;
        Ok(bytes)
    }

    const fn next(&self, block: u64) -> u64 {
        let next = block.saturating_add(1);
        if next >= self.end { self.first } else { next }
    }

    fn replay(&self, blocks: u64, warnings: &mut Vec<String>) -> Result<BTreeMap<u64, Stand>> {
        let (transactions, next) = self.committed(warnings)?;
        // The last transaction that revokes a block counts for it and for all before.
        let mut revoked: HashMap<u64, u32> = HashMap::new();
        for transaction in &transactions {
            for block in &transaction.revoked {
                revoked.insert(*block, transaction.sequence);
            }
        }
        let mut replaced = BTreeMap::new();
        let mut left_out = 0_u64;
        for transaction in &transactions {
            for tag in &transaction.tags {
                let is_revoked =
                    revoked.get(&tag.block).is_some_and(|sequence| !is_after(transaction.sequence, *sequence));
                if is_revoked {
                    continue;
                }
                if tag.block >= blocks {
                    return Err(corrupt(0, format!("it holds block {} of {blocks}", tag.block)));
                }
                if !self.data_checksum_holds(tag, transaction.sequence)? {
                    left_out = left_out.saturating_add(1);
                    continue;
                }
                replaced.insert(tag.block, Stand { block: tag.copy, is_escaped: tag.is_escaped });
            }
        }
        if left_out > 0 {
            warnings.push(format!("{left_out} blocks of the journal were skipped: their checksum is wrong"));
        }
        if self.has_fast_commits(next)? {
            warnings.push("the fast commits of the journal are not replayed, so the latest changes are missing".into());
        }
        Ok(replaced)
    }

    fn data_checksum_holds(&self, tag: &Tag, sequence: u32) -> Result<bool> {
        if !self.has_checksums() {
            return Ok(true);
        }
        let sum = crc32c(crc32c(self.seed, &sequence.to_be_bytes()), &self.read_place(tag.copy)?);
        Ok(sum_holds(if self.has(CHECKSUM_V3) { sum == tag.checksum } else { sum & 0xffff == tag.checksum }))
    }

    /// The transactions that were committed, in order, and the sequence number that follows the last.
    fn committed(&self, warnings: &mut Vec<String>) -> Result<(Vec<Transaction>, u32)> {
        let mut transactions = Vec::new();
        let mut open = Transaction { sequence: self.sequence, ..Transaction::default() };
        let (mut block, mut used, mut tags) = (self.start, 0_u64, 0_usize);
        let mut last_commit = 0;
        // A block whose checksum is wrong can be left over from an older log; whether it is tells its commit's time.
        let mut is_doubtful = false;
        let mut sum_v1 = u32::MAX;
        // A log is not longer than the journal.
        while used < self.blocks {
            let bytes = self.read_place(self.place(block)?)?;
            let word = |at| be_u32(&bytes, at).unwrap_or(0);
            if word(0) != MAGIC || word(8) != open.sequence {
                break;
            }
            (block, used) = (self.next(block), used.saturating_add(1));
            match word(4) {
                DESCRIPTOR => {
                    is_doubtful |= !self.tail_checksum_holds(&bytes);
                    sum_v1 = crc32_of_v1(sum_v1, &bytes);
                    for mut tag in self.tags(&bytes) {
                        tag.copy = self.place(block)?;
                        if self.has_checksum_v1 {
                            sum_v1 = crc32_of_v1(sum_v1, &self.read_place(tag.copy)?);
                        }
                        open.tags.push(tag);
                        (block, used, tags) = (self.next(block), used.saturating_add(1), tags.saturating_add(1));
                    }
                }
                REVOKE => {
                    is_doubtful |= !self.tail_checksum_holds(&bytes);
                    let records = self.revoked(&bytes, is_doubtful)?;
                    tags = tags.saturating_add(records.len());
                    open.revoked.extend(records);
                }
                COMMIT => {
                    let time = be_u64(&bytes, 48).unwrap_or(0);
                    let is_stale = time < last_commit;
                    if is_doubtful && is_stale {
                        break;
                    }
                    if is_doubtful {
                        return Err(corrupt(0, format!("the checksum of transaction {} is wrong", open.sequence)));
                    }
                    if !self.commit_checksum_holds(&bytes, sum_v1) {
                        if !is_stale {
                            let sequence = open.sequence;
                            warnings.push(format!(
                                "the journal is replayed up to transaction {sequence}, whose checksum is wrong"
                            ));
                        }
                        break;
                    }
                    (last_commit, sum_v1) = (time, u32::MAX);
                    let sequence = open.sequence.wrapping_add(1);
                    transactions.push(std::mem::replace(&mut open, Transaction { sequence, ..Transaction::default() }));
                }
                _ => break,
            }
            if tags > REPLAYED_MAX {
                return Err(corrupt(0, format!("it holds more than {REPLAYED_MAX} blocks")));
            }
        }
        Ok((transactions, open.sequence))
    }

    /// The tags of a descriptor block; where their copies lie is the caller's to say.
    fn tags(&self, bytes: &[u8]) -> Vec<Tag> {
        const UUID_BYTES: usize = 16;
        let tag_bytes = match () {
            () if self.has(CHECKSUM_V3) => 16,
            () => 8 + if self.has(CHECKSUM_V2) { 2 } else { 0 } + if self.has(BITS_64) { 4 } else { 0 },
        };
        let end = bytes.len().saturating_sub(if self.has_checksums() { 4 } else { 0 });
        let mut tags = Vec::new();
        let mut at = HEADER_BYTES;
        while at.saturating_add(tag_bytes) <= end {
            let word = |within: usize| be_u32(bytes, at.saturating_add(within)).unwrap_or(0);
            let half = |within: usize| u32::from(be_u16(bytes, at.saturating_add(within)).unwrap_or(0));
            let (flags, checksum) = if self.has(CHECKSUM_V3) { (word(4), word(12)) } else { (half(6), half(4)) };
            let high = if self.has(BITS_64) { u64::from(word(8)) << 32 } else { 0 };
            let block = u64::from(word(0)) | high;
            tags.push(Tag { block, copy: 0, is_escaped: flags & ESCAPED != 0, checksum });
            at = at.saturating_add(tag_bytes).saturating_add(if flags & SAME_UUID == 0 { UUID_BYTES } else { 0 });
            if flags & LAST_TAG != 0 {
                break;
            }
        }
        tags
    }

    /// The blocks that a revoke block names.
    fn revoked(&self, bytes: &[u8], is_doubtful: bool) -> Result<Vec<u64>> {
        const RECORDS: usize = 16;
        let used = usize::try_from(be_u32(bytes, HEADER_BYTES).unwrap_or(0)).unwrap_or(usize::MAX);
        let end = bytes.len().saturating_sub(if self.has_checksums() { 4 } else { 0 });
        if used > end && !is_doubtful {
            return Err(corrupt(0, format!("a block of revoke records is said to hold {used} bytes")));
        }
        let records = bytes.get(RECORDS..used.min(end)).unwrap_or_default();
        Ok(if self.has(BITS_64) {
            records.chunks_exact(8).filter_map(|record| be_u64(record, 0)).collect()
        } else {
            records.chunks_exact(4).filter_map(|record| be_u32(record, 0)).map(u64::from).collect()
        })
    }

    /// The checksum in the last four bytes of descriptor and revoke blocks.
    fn tail_checksum_holds(&self, bytes: &[u8]) -> bool {
        let at = bytes.len().saturating_sub(4);
        let covered = bytes.get(..at).unwrap_or_default();
        !self.has_checksums() || sum_holds(be_u32(bytes, at) == Some(crc32c(crc32c(self.seed, covered), &[0; 4])))
    }

    fn commit_checksum_holds(&self, bytes: &[u8], sum_v1: u32) -> bool {
        const FIELD: usize = 16;
        let found = be_u32(bytes, FIELD).unwrap_or(0);
        if self.has_checksums() {
            let (before, after) = (bytes.get(..FIELD).unwrap_or_default(), bytes.get(FIELD + 4..).unwrap_or_default());
            return sum_holds(crc32c(crc32c(crc32c(self.seed, before), &[0; 4]), after) == found);
        }
        // The first version names its algorithm in each commit block: 1 is CRC-32 of 4 bytes, none is 0.
        match array(bytes, HEADER_BYTES) {
            _ if !self.has_checksum_v1 => true,
            Some([1_u8, 4]) => sum_holds(found == sum_v1),
            Some([0, 0]) => found == 0,
            _ => false,
        }
    }

    /// Whether the area of fast commits goes on from transaction `next` ("Fast Commits"): it begins with a head that names it.
    fn has_fast_commits(&self, next: u32) -> Result<bool> {
        const HEAD: u16 = 9;
        if !self.has(FAST_COMMIT) {
            return Ok(false);
        }
        // The kernel leaves out the first block of the area.
        for block in [self.end, self.end.saturating_add(1)] {
            if block < self.blocks {
                let bytes = self.read_place(self.place(block)?)?;
                if le_u16(&bytes, 0) == Some(HEAD) && le_u32(&bytes, 8) == Some(next) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// Sequence numbers wrap around.
const fn is_after(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() > 0
}

/// CRC-32 with the polynomial 0x04c11db7, most significant bit first, as the first version's checksums are counted.
fn crc32_of_v1(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |sum, byte| {
        let index = (sum >> 24).to_le_bytes()[0] ^ byte;
        (sum << 8) ^ CRC32_TABLE.get(usize::from(index)).copied().unwrap_or(0)
    })
}

const CRC32_TABLE: [u32; 256] = crc32_table();

#[allow(clippy::indexing_slicing, reason = "a constant function has nothing else; its bounds are constants")]
const fn crc32_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut sum = (index as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 0x8000_0000 == 0 { sum << 1 } else { (sum << 1) ^ 0x04c1_1db7 };
            bit += 1;
        }
        table[index] = sum;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_first_versions_checksum_is_that_of_the_catalogue() {
        // CRC-32/MPEG-2 of "123456789", as the catalogue of parametrised CRCs gives it.
        assert_eq!(crc32_of_v1(u32::MAX, b"123456789"), 0x0376_e6e7);
    }

    #[test]
    fn sequence_numbers_wrap_around() {
        assert!(is_after(0, u32::MAX) && is_after(8, 7) && !is_after(7, 7) && !is_after(u32::MAX, 0));
    }

    #[test]
    fn a_copy_stands_for_its_block_at_any_offset_and_length() {
        let bytes: Vec<u8> = (0..8 * 1024_usize).map(|at| (at / 1024 * 10 + at % 7) as u8).collect();
        let mut expected = bytes.clone();
        expected[2048..3072].copy_from_slice(&bytes[6144..7168]);
        expected[3072..4096].copy_from_slice(&bytes[7168..8192]);
        expected[3072..3076].copy_from_slice(&MAGIC.to_be_bytes());
        let copy = |block, is_escaped| Stand { block, is_escaped };
        let replaced = BTreeMap::from([(2, copy(6, false)), (3, copy(7, true))]);
        let device = Device::new(Arc::new(bytes), 1024).with(replaced);
        for (at, length) in [(0, 8192), (2047, 3), (3070, 5), (3074, 1), (3073, 900), (4095, 2), (2048, 1024), (5, 0)] {
            let mut buffer = vec![0; length];
            device.read_exact_at(&mut buffer, at as u64).unwrap();
            assert_eq!(buffer, expected[at..at + length], "{length} at {at}");
        }
    }
}
