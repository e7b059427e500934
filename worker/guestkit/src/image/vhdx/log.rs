//! The log: updates of the file's structures, kept until they are known to have reached their place (2.3).
//!
//! The log is a ring of sectors of 4 KiB. An entry is a header and descriptors, filled up to a sector, then a sector for
//! each data descriptor; entries follow one another, and may go over the ring's end. The newest entry says which is the
//! oldest that may not have reached its place: all from there on are replayed.

use std::sync::Arc;

use super::header::Header;
use super::overlay::Overlay;
use crate::bytes::{array, has, le_u32, le_u64, slice, sum_holds};
use crate::error::{Error, Limit, Result};
use crate::limits::Budget;
use crate::read_at::Source;

const SECTOR_BYTES: u64 = 4096;
/// "Entry Header" (2.3.1.1).
const ENTRY_HEADER_BYTES: u64 = 64;
/// "Zero Descriptor" and "Data Descriptor" (2.3.1.2, 2.3.1.3).
const DESCRIPTOR_BYTES: u64 = 32;
/// Bytes of a log that is replayed: Hyper-V and QEMU make logs of 1 MiB. One of this size has half a million updates.
const LOG_BYTES_MAX: u32 = 16 << 20;
/// How often the bytes of the log may be run through the checksum: each entry once, twice where the ring's end is gone
/// over, and what is left of entries of earlier rounds. A log that asks for more is made to keep us busy.
const CHECKED_TIMES_MAX: u64 = 8;

fn corrupt(offset: u64, reason: impl Into<String>) -> Error {
    Error::corrupt("vhdx log", offset, reason)
}

/// `file` as it is once its log was replayed.
pub(super) fn replay(file: Source, header: &Header, budget: &Budget) -> Result<Source> {
    let Some(guid) = header.log_guid else { return Ok(file) };
    if header.log_length > LOG_BYTES_MAX {
        return Err(Error::LimitReached { which: Limit::Allocation, value: LOG_BYTES_MAX.into() });
    }
    let mut bytes = budget.allocate(header.log_length.into())?;
    file.read_exact_at(&mut bytes, header.log_offset)
        .map_err(|error| error.in_structure("vhdx log", header.log_offset))?;
    let ring = Ring { bytes, guid };
    let entries = ring.active_sequence(header.log_offset, budget)?;
    let Some(head) = entries.last() else {
        return Err(corrupt(header.log_offset, "it is in use, and holds no sequence of entries that is whole"));
    };
    if file.len() < head.flushed_file_offset {
        let reason = format!("the file was cut to {} bytes: it had {}", file.len(), head.flushed_file_offset);
        return Err(corrupt(header.log_offset, reason));
    }
    let mut overlay = Overlay::new(file);
    for entry in &entries {
        budget.check_time()?;
        let applied = ring.apply(entry, &mut overlay);
        applied.ok_or_else(|| corrupt(header.log_offset.saturating_add(entry.offset), "an update leaves the file"))?;
    }
    overlay.extend(head.last_file_offset);
    Ok(Arc::new(overlay))
}

/// The header of a valid entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Where it begins in the ring.
    offset: u64,
    length: u64,
    /// Where the oldest entry of the sequence that this one ends begins.
    tail: u64,
    sequence: u64,
    descriptors: u64,
    flushed_file_offset: u64,
    last_file_offset: u64,
}

impl Entry {
    fn parse(sector: &[u8], offset: u64) -> Option<Self> {
        Some(Self {
            offset,
            length: le_u32(sector, 8)?.into(),
            tail: le_u32(sector, 12)?.into(),
            sequence: le_u64(sector, 16)?,
            descriptors: le_u32(sector, 24)?.into(),
            flushed_file_offset: le_u64(sector, 48)?,
            last_file_offset: le_u64(sector, 56)?,
        })
    }

    /// Where its data sectors begin.
    fn data_start(&self) -> u64 {
        (ENTRY_HEADER_BYTES + self.descriptors * DESCRIPTOR_BYTES).next_multiple_of(SECTOR_BYTES)
    }
}

/// An update.
enum Descriptor {
    Zeros { offset: u64, length: u64 },
    Data { offset: u64, leading: [u8; 8], trailing: [u8; 4] },
}

impl Descriptor {
    fn parse(bytes: &[u8], sequence: u64) -> Option<Self> {
        let offset = le_u64(bytes, 16)?;
        if le_u64(bytes, 24)? != sequence || !offset.is_multiple_of(SECTOR_BYTES) {
            return None;
        }
        if has(bytes, 0, b"zero") {
            let length = le_u64(bytes, 8)?;
            return length.is_multiple_of(SECTOR_BYTES).then_some(Self::Zeros { offset, length });
        }
        let is_data = has(bytes, 0, b"desc");
        is_data.then_some(Self::Data { offset, leading: array(bytes, 8)?, trailing: array(bytes, 4)? })
    }
}

/// The log's bytes, a whole number of sectors.
struct Ring {
    bytes: Vec<u8>,
    guid: [u8; 16],
}

impl Ring {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The sector that holds the byte at `at`, which may be past the end by less than a round.
    fn sector(&self, at: u64) -> Option<&[u8]> {
        let at = at.checked_rem(self.len())?;
        slice(&self.bytes, usize::try_from(at - at % SECTOR_BYTES).ok()?, SECTOR_BYTES as usize)
    }

    /// "Log Replay" (2.3.3): the newest valid and complete sequence, the oldest entry first; empty where there is none.
    fn active_sequence(&self, log_offset: u64, budget: &Budget) -> Result<Vec<Entry>> {
        let mut active: Vec<Entry> = Vec::new();
        let mut unchecked = self.len().saturating_mul(CHECKED_TIMES_MAX);
        let mut start = 0;
        while start < self.len() {
            budget.check_time()?;
            let mut sequence: Vec<Entry> = Vec::new();
            let mut length = 0_u64;
            while let Some(entry) = self.entry((start + length) % self.len(), &mut unchecked) {
                let follows = sequence.last().is_none_or(|last| last.sequence.checked_add(1) == Some(entry.sequence));
                if !follows || length + entry.length > self.len() {
                    break;
                }
                length += entry.length;
                sequence.push(entry);
            }
            if unchecked == 0 {
                return Err(corrupt(log_offset, "its entries lie over one another"));
            }
            // The parts of a sequence that is not complete end with the same entry, so they are not complete either.
            start += length.max(SECTOR_BYTES);
            let Some(head) = sequence.last() else { continue };
            let tail = sequence.iter().position(|entry| entry.offset == head.tail);
            let is_newer = active.last().is_none_or(|newest| head.sequence > newest.sequence);
            if let Some(tail) = tail.filter(|_| is_newer) {
                active = sequence.split_off(tail);
            }
        }
        Ok(active)
    }

    /// The entry that begins at `offset`, if a valid one does.
    fn entry(&self, offset: u64, unchecked: &mut u64) -> Option<Entry> {
        let sector = self.sector(offset)?;
        if !has(sector, 0, b"loge") || !has(sector, 32, &self.guid) {
            return None;
        }
        let entry = Entry::parse(sector, offset)?;
        let is_placed = |value: u64| value.is_multiple_of(SECTOR_BYTES) && value <= self.len();
        let fits = entry.length >= entry.data_start() && entry.length <= self.len();
        if !is_placed(entry.length) || !is_placed(entry.tail) || !fits || entry.sequence == 0 {
            return None;
        }
        self.each_update(&entry, |_, _| Some(()))?;
        *unchecked = unchecked.saturating_sub(entry.length);
        (*unchecked > 0 && sum_holds(Some(self.check_sum(&entry)?) == le_u32(sector, 4))).then_some(entry)
    }

    /// CRC-32C of an entry with its own field as zeros.
    fn check_sum(&self, entry: &Entry) -> Option<u32> {
        let start = usize::try_from(entry.offset).ok()?;
        let length = usize::try_from(entry.length).ok()?;
        let straight = length.min(self.bytes.len().checked_sub(start)?);
        let (first, wrapped) = (slice(&self.bytes, start, straight)?, slice(&self.bytes, 0, length - straight)?);
        Some(crc32c::crc32c_append(super::header::check_sum(first)?, wrapped))
    }

    /// Gives each descriptor of an entry, with its data sector where it has one; `None` where one is not valid.
    fn each_update(&self, entry: &Entry, mut take: impl FnMut(Descriptor, &[u8]) -> Option<()>) -> Option<()> {
        let mut data_at = entry.data_start();
        for index in 0..entry.descriptors {
            let at = ENTRY_HEADER_BYTES + index * DESCRIPTOR_BYTES;
            let sector = self.sector(entry.offset + at)?;
            let bytes = slice(sector, usize::try_from(at % SECTOR_BYTES).ok()?, DESCRIPTOR_BYTES as usize)?;
            let descriptor = Descriptor::parse(bytes, entry.sequence)?;
            let data = match descriptor {
                Descriptor::Zeros { .. } => &[],
                Descriptor::Data { .. } => {
                    let data = self.sector((data_at < entry.length).then_some(entry.offset + data_at)?)?;
                    data_at += SECTOR_BYTES;
                    // "Data Sector" (2.3.1.4): the sequence number stands half at either end, to show a torn write.
                    let number = u64::from(le_u32(data, 4)?) << 32 | u64::from(le_u32(data, 4092)?);
                    (has(data, 0, b"data") && number == entry.sequence).then_some(data)?
                }
            };
            take(descriptor, data)?;
        }
        Some(())
    }

    /// Writes what an entry says.
    fn apply(&self, entry: &Entry, overlay: &mut Overlay) -> Option<()> {
        self.each_update(entry, |descriptor, data| match descriptor {
            Descriptor::Zeros { offset, length } => overlay.write_zeros(offset, length),
            Descriptor::Data { offset, leading, trailing } => {
                let mut sector = data.to_vec();
                sector.get_mut(..8)?.copy_from_slice(&leading);
                sector.get_mut(4092..4096)?.copy_from_slice(&trailing);
                overlay.write(offset, &sector)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    const GUID: [u8; 16] = [7; 16];
    const LOG_BYTES: usize = 64 << 10;

    /// Writes an entry at `offset` of the ring: zeros at each of `zeros`, the byte at each of `data`. Gives its end.
    fn put(
        ring: &mut [u8],
        offset: usize,
        sequence: u64,
        tail: usize,
        zeros: &[(u64, u64)],
        data: &[(u64, u8)],
    ) -> usize {
        let head = (64 + 32 * (zeros.len() + data.len())).next_multiple_of(4096);
        let mut entry = vec![0; head + 4096 * data.len()];
        let length = entry.len();
        entry[..4].copy_from_slice(b"loge");
        entry[8..12].copy_from_slice(&(length as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&(tail as u32).to_le_bytes());
        entry[16..24].copy_from_slice(&sequence.to_le_bytes());
        entry[24..28].copy_from_slice(&((zeros.len() + data.len()) as u32).to_le_bytes());
        entry[32..48].copy_from_slice(&GUID);
        entry[48..56].copy_from_slice(&(1_u64 << 20).to_le_bytes());
        entry[56..64].copy_from_slice(&(2_u64 << 20).to_le_bytes());
        let mut at = 64;
        for (to, count) in zeros {
            entry[at..at + 4].copy_from_slice(b"zero");
            entry[at + 8..at + 16].copy_from_slice(&count.to_le_bytes());
            entry[at + 16..at + 24].copy_from_slice(&to.to_le_bytes());
            entry[at + 24..at + 32].copy_from_slice(&sequence.to_le_bytes());
            at += 32;
        }
        for (index, (to, byte)) in data.iter().enumerate() {
            entry[at..at + 4].copy_from_slice(b"desc");
            entry[at + 4..at + 16].fill(*byte);
            entry[at + 16..at + 24].copy_from_slice(&to.to_le_bytes());
            entry[at + 24..at + 32].copy_from_slice(&sequence.to_le_bytes());
            at += 32;
            let sector = &mut entry[head + 4096 * index..head + 4096 * (index + 1)];
            sector.fill(*byte);
            sector[..4].copy_from_slice(b"data");
            sector[4..8].copy_from_slice(&((sequence >> 32) as u32).to_le_bytes());
            sector[4092..].copy_from_slice(&(sequence as u32).to_le_bytes());
        }
        let sum = super::super::header::check_sum(&entry).unwrap();
        entry[4..8].copy_from_slice(&sum.to_le_bytes());
        for (index, byte) in entry.into_iter().enumerate() {
            ring[(offset + index) % LOG_BYTES] = byte;
        }
        (offset + length) % LOG_BYTES
    }

    fn ring() -> Vec<u8> {
        vec![0; LOG_BYTES]
    }

    fn active(bytes: Vec<u8>) -> Vec<u64> {
        let ring = Ring { bytes, guid: GUID };
        let entries = ring.active_sequence(0, &Budget::new(&Limits::default())).unwrap();
        entries.iter().map(|entry| entry.sequence).collect()
    }

    #[test]
    fn the_newest_complete_sequence_is_found_wherever_it_lies() {
        assert!(active(ring()).is_empty());
        let mut one = ring();
        put(&mut one, 8192, 1 << 40, 8192, &[], &[]);
        assert_eq!(active(one), [1 << 40]);

        // Entries before the tail have reached their place.
        let mut three = ring();
        let second = put(&mut three, 0, 5, 0, &[(0, 4096)], &[]);
        let third = put(&mut three, second, 6, 0, &[], &[(8192, 1)]);
        put(&mut three, third, 7, second, &[], &[(8192, 2)]);
        assert_eq!(active(three.clone()), [6, 7]);

        // The end is torn: what is whole before it may still be a sequence of its own.
        let mut torn = three.clone();
        torn[third + 4200] ^= 1;
        assert_eq!(active(torn), [5, 6]);
        let mut broken = three;
        broken[second + 100] ^= 1;
        assert_eq!(active(broken), [5], "the newest needs an entry that is gone");
    }

    #[test]
    fn a_sequence_goes_over_the_end_of_the_ring() {
        let mut bytes = ring();
        let start = LOG_BYTES - 8192;
        let next = put(&mut bytes, start, 20, start, &[], &[(4096, 1), (8192, 2)]);
        assert_eq!(next, 4096, "this entry is cut in two by the end");
        let after = put(&mut bytes, next, 21, start, &[], &[(4096, 3)]);
        // What is left of an earlier round.
        put(&mut bytes, after, 9, after, &[(0, 4096)], &[]);
        assert_eq!(active(bytes), [20, 21]);
    }

    #[test]
    fn a_gap_or_another_guid_ends_a_sequence() {
        let mut bytes = ring();
        let next = put(&mut bytes, 0, 5, 0, &[], &[]);
        put(&mut bytes, next, 7, next, &[], &[]);
        assert_eq!(active(bytes.clone()), [7]);
        bytes[next + 32] = 8;
        assert_eq!(active(bytes), [5]);
    }

    #[test]
    fn updates_are_applied_in_order() {
        let header = |length: u32| Header::with_log(GUID, 1 << 20, length);
        let mut file = vec![0xaa; 3 << 20];
        let mut log = ring();
        let next = put(&mut log, 0, 1, 0, &[(0, 8192)], &[(4096, 1), (2 << 20, 9)]);
        let next = put(&mut log, next, 2, 0, &[(4096, 4096)], &[(0, 2)]);
        put(&mut log, next, 3, 0, &[], &[(4 << 20, 3)]);
        file[1 << 20..(1 << 20) + LOG_BYTES].copy_from_slice(&log);
        let budget = Budget::new(&Limits::default());
        let replayed = replay(Arc::new(file.clone()), &header(LOG_BYTES as u32), &budget).unwrap();
        assert_eq!(replayed.len(), (4 << 20) + 4096, "the file grows by what is written");
        let mut bytes = vec![0; 3 << 20];
        replayed.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes[..4096] == [2; 4096] && bytes[4096..8192] == [0; 4096] && bytes[8192] == 0xaa);
        assert!(bytes[2 << 20..(2 << 20) + 4096] == [9; 4096]);

        let long = replay(Arc::new(file.clone()), &header(LOG_BYTES_MAX + (1 << 20)), &budget);
        assert!(matches!(long, Err(Error::LimitReached { .. })), "{long:?}");
        file.truncate((1 << 20) - 1);
        file.resize(1 << 20, 0);
        let cut = replay(Arc::new(file), &header(LOG_BYTES as u32), &budget);
        assert!(matches!(cut, Err(Error::Corrupt { structure: "vhdx log", .. })), "{cut:?}");
    }

    /// Every sector begins an entry as long as the log: checking each would take the square of its length.
    #[test]
    fn entries_over_one_another_end_the_search() {
        let mut bytes = ring();
        let length = bytes.len() as u32;
        for sector in bytes.chunks_mut(4096) {
            sector[..4].copy_from_slice(b"loge");
            sector[8..12].copy_from_slice(&length.to_le_bytes());
            sector[16] = 1;
            sector[32..48].copy_from_slice(&GUID);
        }
        let ring = Ring { bytes, guid: GUID };
        let met = ring.active_sequence(0, &Budget::new(&Limits::default()));
        assert!(matches!(met, Err(Error::Corrupt { .. })), "{met:?}");
    }
}
