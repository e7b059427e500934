//! The log ("XFS Algorithms & Data Structures", journaling log; `xfs_log_format.h`): where it begins and ends, its
//! records, and the transactions that lie in them in pieces.
//!
//! The log is a ring of basic blocks. Each block begins with the number of the cycle it was written in, so the head, where
//! writing goes on, is where a cycle's number gives way to the one before it. The last record tells where the tail is.

use std::collections::HashMap;

use super::replay::{Item, Replay};
use super::superblock::{BASIC_BLOCK, Geometry};
use super::volume::{Overlay, Volume};
use crate::bytes::{array, be_u32, be_u64, le_u16, le_u32, slice, sum_holds};
use crate::error::{Error, Result};

/// `XLOG_HEADER_MAGIC_NUM`.
const RECORD_MAGIC: u32 = 0xfeed_babe;
/// Bytes of `xlog_rec_header` on 64-bit machines, and on 32-bit ones, where it ends without padding: the checksum covers it.
const HEADER_BYTES: [usize; 2] = [328, 324];
/// Bytes of `xlog_rec_ext_header`, of which each further header block holds one.
const EXTENDED_HEADER_BYTES: usize = 260;
/// Bytes of a record whose cycle numbers fit one header block (`XLOG_HEADER_CYCLE_SIZE`).
const CYCLE_BYTES: u64 = 32 << 10;
/// Basic blocks of all records that can have been on their way at once: eight of 256 KiB (`XLOG_TOTAL_REC_SHIFT`).
const IN_FLIGHT: u64 = (8 * (256 << 10)) / BASIC_BLOCK;
/// Records that can have been on their way at once (`XLOG_MAX_ICLOGS`).
const RECORDS_IN_FLIGHT: usize = 8;
/// Bytes of a record at most (`XLOG_MAX_RECORD_BSIZE`), and, above it, of those that mkfs padded to a stripe.
const RECORD_MAX: u64 = 1 << 20;
/// `XLOG_FMT_LINUX_LE`.
const LITTLE_ENDIAN: u32 = 1;

/// Bytes of `xlog_op_header`, and its flags.
const OPERATION_BYTES: usize = 12;
const START: u8 = 0x01;
const COMMIT: u8 = 0x02;
const CONTINUES: u8 = 0x04;
const CONTINUED: u8 = 0x08;
const END: u8 = 0x10;
const UNMOUNT: u8 = 0x20;
/// `XFS_TRANSACTION`, `XFS_LOG`.
const CLIENTS: [u8; 2] = [0x69, 0xaa];
/// `XFS_TRANS_HEADER_MAGIC`, and bytes of `xfs_trans_header`.
const TRANSACTION_MAGIC: u32 = 0x5452_414e;
const TRANSACTION_BYTES: usize = 16;
/// Regions of one item (`XLOG_MAX_REGIONS_IN_ITEM`).
const REGIONS_MAX: u16 = 0x0fff;
/// Bytes of transactions that have not come to their end, and of what the log holds newer contents of: far more than a
/// kernel keeps on its way, and a part of what one disk may take.
const PENDING_MAX: usize = 48 << 20;
const OVERLAY_MAX: u64 = 64 << 20;
/// What a region or a transaction takes beside its bytes.
const OVERHEAD: usize = 64;

/// What the log told.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Newer contents of the device.
    pub(super) overlay: Overlay,
    /// Whether the file system was not unmounted.
    pub(super) was_dirty: bool,
    /// What could not be taken in.
    pub(super) warnings: Vec<String>,
}

/// Reads the log of `volume` and replays it, if it is not empty. A log that cannot be replayed is a warning: the file
/// system is then read as it lies.
///
/// # Errors
/// I/O and limits.
pub(super) fn recover(volume: &Volume) -> Result<Recovery> {
    let mut recovery = Recovery::default();
    let outcome = try_recover(volume, &mut recovery);
    match outcome {
        Ok(()) => Ok(recovery),
        Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => {
            let warning = format!("the log could not be replayed, so recent changes may be missing: {error}");
            Ok(Recovery { overlay: Overlay::default(), was_dirty: true, warnings: vec![warning] })
        }
        Err(other) => Err(other),
    }
}

fn try_recover(volume: &Volume, recovery: &mut Recovery) -> Result<()> {
    let geometry = &volume.geometry;
    if geometry.log_start == 0 {
        return Err(Error::unsupported("an xfs log on a device of its own"));
    }
    let log = Log::open(volume)?;
    let Some(dirty) = log.find_dirty()? else { return Ok(()) };
    recovery.was_dirty = true;
    if geometry.log_unknown != 0 {
        return Err(Error::unsupported(format!("xfs log feature {:#x}", geometry.log_unknown)));
    }
    let mut replay = Replay::new(volume);
    log.each_transaction(dirty, &mut |_, items| replay.first_pass(&items))?;
    log.each_transaction(dirty, &mut |lsn, items| {
        replay.second_pass(lsn, &items)?;
        if replay.overlay.len() > OVERLAY_MAX {
            return Err(Error::unsupported("an xfs log of so many changes"));
        }
        Ok(())
    })?;
    recovery.warnings.extend(replay.warnings());
    recovery.overlay = replay.overlay;
    Ok(())
}

/// The log's ring of basic blocks.
struct Log<'a> {
    volume: &'a Volume,
    geometry: &'a Geometry,
    start: u64,
    blocks: u64,
}

/// The records from the tail to the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Dirty {
    tail: u64,
    head: u64,
}

/// `xlog_rec_header`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    /// The block where it lies.
    block: u64,
    header_blocks: u64,
    /// Bytes behind the header blocks.
    length: u64,
    lsn: u64,
    tail_lsn: u64,
    operations: u32,
    format: u32,
}

impl Header {
    fn parse(bytes: &[u8], block: u64, geometry: &Geometry) -> Option<Self> {
        let version = be_u32(bytes, 8)?;
        let size = u64::from(be_u32(bytes, 320)?);
        let has_many = geometry.log_v2 && version & 2 != 0 && size > CYCLE_BYTES;
        let header = Self {
            block,
            header_blocks: if has_many { size.div_ceil(CYCLE_BYTES) } else { 1 },
            length: u64::from(be_u32(bytes, 12)?),
            lsn: be_u64(bytes, 16)?,
            tail_lsn: be_u64(bytes, 24)?,
            operations: be_u32(bytes, 40)?,
            format: be_u32(bytes, 300)?,
        };
        let is_sound = be_u32(bytes, 0) == Some(RECORD_MAGIC)
            && matches!(version, 1..=3)
            && header.lsn & 0xffff_ffff == block
            && Some(header.lsn >> 32) == be_u32(bytes, 4).map(u64::from)
            && header.length > 0
            && header.length <= RECORD_MAX
            && header.header_blocks <= RECORD_MAX / CYCLE_BYTES;
        is_sound.then_some(header)
    }

    /// Basic blocks of the record.
    const fn blocks(&self) -> u64 {
        self.header_blocks.saturating_add(self.length.div_ceil(BASIC_BLOCK))
    }
}

/// A record's contents, the first bytes of each block put back.
struct Record {
    header: Header,
    payload: Vec<u8>,
}

impl<'a> Log<'a> {
    fn open(volume: &'a Volume) -> Result<Self> {
        let geometry = &volume.geometry;
        let start = geometry.byte_of_block(geometry.log_start, u64::from(geometry.log_blocks))?;
        let blocks = (u64::from(geometry.log_blocks) << geometry.block_log) / BASIC_BLOCK;
        if blocks < 2 {
            return Err(corrupt(0, "it has no room"));
        }
        Ok(Self { volume, geometry, start, blocks })
    }

    /// `count` blocks from `block`, around the end of the ring.
    fn read(&self, block: u64, count: u64) -> Result<Vec<u8>> {
        if count > self.blocks {
            return Err(corrupt(block, "a record is longer than the log"));
        }
        let block = block % self.blocks;
        let mut bytes = vec![0; usize::try_from(count * BASIC_BLOCK).unwrap_or(0)];
        let to_end = usize::try_from((self.blocks - block).min(count) * BASIC_BLOCK).unwrap_or(0);
        let (first, rest) = bytes.split_at_mut(to_end);
        self.volume.source.read_exact_at(first, self.start + block * BASIC_BLOCK)?;
        if !rest.is_empty() {
            self.volume.source.read_exact_at(rest, self.start)?;
        }
        Ok(bytes)
    }

    /// The number of the cycle that `block` was written in.
    fn cycle(&self, block: u64) -> Result<u32> {
        let mut bytes = [0; 8];
        self.volume.source.read_exact_at(&mut bytes, self.start + block * BASIC_BLOCK)?;
        Ok(cycle_of(&bytes))
    }

    /// What lies between the tail and the head; `None` where the file system was unmounted, or never written to.
    fn find_dirty(&self) -> Result<Option<Dirty>> {
        let Some(split) = self.find_split()? else { return Ok(None) };
        // The quick way, for whoever unmounted: the last record is the one that says so.
        if let Some(last) = self.last_record(split, IN_FLIGHT.min(1024))?
            && (last.block + last.blocks()) % self.blocks == split % self.blocks
            && self.says_unmounted(&last)?
        {
            return Ok(None);
        }
        let head = self.skip_back_over_holes(split)?;
        let last = self.last_whole(head)?.ok_or_else(|| corrupt(head, "no record lies before its head"))?;
        let Some(last) = self.last_intact(last)? else {
            return Err(corrupt(head, "none of its last records is intact"));
        };
        if self.says_unmounted(&last)? {
            return Ok(None);
        }
        let head = (last.block + last.blocks()) % self.blocks;
        Ok(Some(Dirty { tail: (last.tail_lsn & 0xffff_ffff) % self.blocks, head }))
    }

    /// The last record before `head` that was written to its end: of one that was not, its beginning is the head.
    fn last_whole(&self, mut head: u64) -> Result<Option<Header>> {
        for _ in 0..=RECORDS_IN_FLIGHT {
            match self.last_record(head, IN_FLIGHT)? {
                Some(last) if (last.block + last.blocks()) % self.blocks == head % self.blocks => {
                    return Ok(Some(last));
                }
                Some(last) => head = last.block,
                None => break,
            }
        }
        Ok(None)
    }

    /// The block where the newest cycle ends (`xlog_find_head`); `None` for a log that was never written.
    fn find_split(&self) -> Result<Option<u64>> {
        let first = self.cycle(0)?;
        let last = self.cycle(self.blocks - 1)?;
        if first == 0 {
            return Ok(None);
        }
        if first == last {
            return Ok(Some(self.blocks));
        }
        let (mut low, mut high) = (0, self.blocks - 1);
        while high - low > 1 {
            let middle = u64::midpoint(low, high);
            if self.cycle(middle)? == last { high = middle } else { low = middle }
        }
        Ok(Some(high))
    }

    /// Records are written at once and may land in any order: the head is before the first that did not land.
    fn skip_back_over_holes(&self, split: u64) -> Result<u64> {
        let newest = self.cycle((split + self.blocks - 1) % self.blocks)?;
        let count = IN_FLIGHT.min(self.blocks - 1);
        let start = split + self.blocks - count;
        let bytes = self.read(start, count)?;
        for (index, block) in (0..).zip(bytes.chunks_exact(BASIC_BLOCK as usize)) {
            // Behind the ring's beginning lies this cycle, before it the one that came before.
            let at = start + index;
            let expected = if at >= self.blocks { newest } else { newest.wrapping_sub(1) };

            if cycle_of(block) != expected {
                return Ok(at % self.blocks);
            }
        }
        Ok(split)
    }

    /// The last record header in `count` blocks before `head`.
    fn last_record(&self, head: u64, count: u64) -> Result<Option<Header>> {
        // In pieces of a page of the cache: the header mostly lies near.
        const PIECE: u64 = 16;
        let mut left = count.min(self.blocks);
        let mut end = head + self.blocks;
        while left > 0 {
            let piece = PIECE.min(left);
            let start = end - piece;
            let bytes = self.read(start, piece)?;
            let blocks: Vec<&[u8]> = bytes.chunks_exact(BASIC_BLOCK as usize).collect();
            for (index, block) in blocks.iter().enumerate().rev() {
                let at = (start + index as u64) % self.blocks;
                if let Some(header) = Header::parse(block, at, self.geometry) {
                    return Ok(Some(header));
                }
            }
            end = start;
            left -= piece;
        }
        Ok(None)
    }

    /// The newest record before which, and in which, nothing is torn, of those that can have been on their way
    /// (`xlog_verify_head`).
    fn last_intact(&self, last: Header) -> Result<Option<Header>> {
        let mut chain = vec![last];
        while let (Some(oldest), true) = (chain.last(), chain.len() < RECORDS_IN_FLIGHT) {
            let tail = (oldest.tail_lsn & 0xffff_ffff) % self.blocks;
            let before = self.last_record(oldest.block, IN_FLIGHT)?;
            let follows = |header: &Header| (header.block + header.blocks()) % self.blocks == oldest.block;
            match before.filter(|header| header.lsn < oldest.lsn && follows(header)) {
                Some(before) if oldest.block != tail => chain.push(before),
                _ => break,
            }
        }
        let mut intact = None;
        for header in chain.into_iter().rev() {
            match self.record(header) {
                Ok(_) => intact = Some(header),
                Err(Error::Corrupt { .. }) => break,
                Err(other) => return Err(other),
            }
        }
        Ok(intact)
    }

    /// mkfs writes such a record too, without a checksum.
    fn says_unmounted(&self, header: &Header) -> Result<bool> {
        if header.operations != 1 {
            return Ok(false);
        }
        // Only the first four bytes of a block are kept elsewhere.
        let bytes = self.read(header.block + header.header_blocks, 1)?;
        Ok(bytes.get(9).is_some_and(|flags| flags & UNMOUNT != 0))
    }

    /// Reads a record, verifies its checksum (`xlog_cksum`), and puts the first bytes of its blocks back.
    fn record(&self, header: Header) -> Result<Record> {
        let bytes = self.read(header.block, header.blocks())?;
        let headers = usize::try_from(header.header_blocks * BASIC_BLOCK).unwrap_or(usize::MAX);
        let wanted = usize::try_from(header.length).unwrap_or(usize::MAX);
        let cut = || corrupt(header.block, "a record is cut off");
        let stored = array(&bytes, 32).map(u32::from_le_bytes).ok_or_else(cut)?;
        let packed = slice(&bytes, headers, wanted).ok_or_else(cut)?;
        let is_intact = HEADER_BYTES.iter().any(|length| {
            let first = bytes.get(..*length).and_then(|first| super::superblock::checksum(first, 32));
            let further = (1..header.header_blocks.min(header.length.div_ceil(CYCLE_BYTES)))
                .filter_map(|index| slice(&bytes, (index * BASIC_BLOCK) as usize, EXTENDED_HEADER_BYTES));
            first.map(|first| crc32c::crc32c_append(further.fold(first, crc32c::crc32c_append), packed)) == Some(stored)
        });
        // Version 4 mostly has none, and the kernel goes on where it is wrong.
        if !sum_holds(is_intact) && self.geometry.v5 {
            return Err(corrupt(header.block, "the checksum of a record is wrong"));
        }
        if header.format != LITTLE_ENDIAN {
            return Err(Error::unsupported("an xfs log of a big-endian machine"));
        }
        let mut payload = packed.to_vec();
        for (index, block) in payload.chunks_mut(BASIC_BLOCK as usize).enumerate() {
            // 64 numbers in the record header, and as many in each further header block.
            let at = match index / 64 {
                0 => 44 + index * 4,
                further => further * BASIC_BLOCK as usize + 4 + index % 64 * 4,
            };
            let kept = slice(bytes.get(..headers).unwrap_or_default(), at, 4).ok_or_else(cut)?;
            super::inode::put(block, 0, kept);
        }
        Ok(Record { header, payload })
    }

    /// Visits the items of each transaction that was committed between the tail and the head, in the order of commits,
    /// with the number of the record it began in.
    fn each_transaction(&self, dirty: Dirty, visit: &mut dyn FnMut(u64, Vec<Item>) -> Result<()>) -> Result<()> {
        let mut transactions = Transactions::default();
        let mut at = dirty.tail;
        let mut passed = 0;
        let whole = (dirty.head + self.blocks - dirty.tail) % self.blocks;
        while passed < whole {
            self.volume.budget.check_time()?;
            let first = self.read(at, 1)?;
            let header = Header::parse(&first, at, self.geometry).ok_or_else(|| corrupt(at, "a record is missing"))?;
            let record = self.record(header)?;
            transactions.add(&record, visit)?;
            passed += header.blocks();
            at = (at + header.blocks()) % self.blocks;
        }
        if passed == whole { Ok(()) } else { Err(corrupt(at, "its records pass its head")) }
    }
}

/// Where a block begins with a record's magic number, the cycle comes after it.
fn cycle_of(block: &[u8]) -> u32 {
    match be_u32(block, 0) {
        Some(RECORD_MAGIC) => be_u32(block, 4).unwrap_or(0),
        cycle => cycle.unwrap_or(0),
    }
}

fn corrupt(block: u64, reason: &str) -> Error {
    Error::corrupt("xfs log", block.saturating_mul(BASIC_BLOCK), reason)
}

/// A transaction whose end has not been met.
#[derive(Debug, Default)]
struct Pending {
    lsn: u64,
    /// Bytes of the transaction's header so far.
    header: usize,
    items: Vec<Item>,
    bytes: usize,
}

/// Transactions by their number, put together out of operations (`xlog_recover_process_data`).
#[derive(Debug, Default)]
struct Transactions {
    pending: HashMap<u32, Pending>,
    bytes: usize,
}

impl Transactions {
    fn add(&mut self, record: &Record, visit: &mut dyn FnMut(u64, Vec<Item>) -> Result<()>) -> Result<()> {
        let wrong = |reason: &str| corrupt(record.header.block, reason);
        let mut rest = record.payload.as_slice();
        for _ in 0..record.header.operations {
            let Some(&[t0, t1, t2, t3, l0, l1, l2, l3, client, flags, ..]) = rest.get(..OPERATION_BYTES) else { break };
            let number = u32::from_be_bytes([t0, t1, t2, t3]);
            let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
            let data = slice(rest, OPERATION_BYTES, length).ok_or_else(|| wrong("an operation leaves its record"))?;
            rest = rest.get(OPERATION_BYTES + length..).unwrap_or_default();
            if !CLIENTS.contains(&client) {
                return Err(wrong("an operation is nobody's"));
            }
            let Some(pending) = self.pending.get_mut(&number) else {
                // What began before the tail is no concern any more.
                if flags & START != 0 {
                    self.bytes += OVERHEAD;
                    self.pending
                        .insert(number, Pending { lsn: record.header.lsn, bytes: OVERHEAD, ..Pending::default() });
                }
                continue;
            };
            let flags = flags & !END;
            match if flags & CONTINUED == 0 { flags } else { flags & !CONTINUES } {
                0 | CONTINUES => {
                    let before = pending.bytes;
                    pending.region(data).map_err(wrong)?;
                    self.bytes += pending.bytes - before;
                }
                CONTINUED => {
                    let before = pending.bytes;
                    pending.more(data).map_err(wrong)?;
                    self.bytes += pending.bytes - before;
                }
                COMMIT => {
                    if let Some(done) = self.pending.remove(&number) {
                        self.bytes = self.bytes.saturating_sub(done.bytes);
                        visit(done.lsn, done.items)?;
                    }
                }
                UNMOUNT => {
                    self.pending.remove(&number);
                }
                _ => return Err(wrong("an operation has flags that contradict each other")),
            }
            if self.bytes > PENDING_MAX {
                return Err(Error::unsupported("an xfs log of such large transactions"));
            }
        }
        Ok(())
    }
}

impl Pending {
    /// A region begins (`xlog_recover_add_to_trans`).
    fn region(&mut self, data: &[u8]) -> std::result::Result<(), &'static str> {
        if data.is_empty() {
            return Ok(());
        }
        if self.header < TRANSACTION_BYTES {
            if self.header != 0 || le_u32(data, 0) != Some(TRANSACTION_MAGIC) || data.len() > TRANSACTION_BYTES {
                return Err("a transaction begins without its header");
            }
            self.header = data.len();
            return Ok(());
        }
        self.bytes += OVERHEAD + data.len();
        if let Some(item) = self.items.last_mut().filter(|item| item.regions.len() < item.expected) {
            item.regions.push(data.to_vec());
            return Ok(());
        }
        let expected = le_u16(data, 2).filter(|count| (1..=REGIONS_MAX).contains(count));
        let expected = usize::from(expected.ok_or("an item has an impossible number of regions")?);
        self.items.push(Item { expected, regions: vec![data.to_vec()] });
        Ok(())
    }

    /// A region goes on that was split between records (`xlog_recover_add_to_cont_trans`).
    fn more(&mut self, data: &[u8]) -> std::result::Result<(), &'static str> {
        if self.header < TRANSACTION_BYTES {
            self.header += data.len();
            return if self.header == TRANSACTION_BYTES {
                Ok(())
            } else {
                Err("a transaction's header has another length")
            };
        }
        let region = self.items.last_mut().and_then(|item| item.regions.last_mut());
        region.ok_or("what goes on has not begun")?.extend_from_slice(data);
        self.bytes += data.len();
        Ok(())
    }
}
