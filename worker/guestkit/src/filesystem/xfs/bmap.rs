//! Where the contents of a fork lie ("XFS Algorithms & Data Structures", data extents): a list in the inode, or a B+tree.
//!
//! A tree is walked down anew for each leaf, by the position that is asked for next: memory stays at one leaf however
//! many extents a file has, and a loop among the blocks cannot keep a walk from coming to its end.

use super::inode::{Fork, Format, Inode};
use super::volume::{Seal, Volume};
use crate::bytes::{be_u16, be_u64, has, slice};
use crate::error::{Error, Result};

/// Bytes of an extent, and of the header of a tree's root in an inode.
const RECORD: usize = 16;
const ROOT_HEADER: usize = 4;
/// `XFS_BTREE_MAXLEVELS`.
const LEVELS_MAX: u16 = 9;
const SEAL: Seal = Seal { name: "xfs extent tree", checksum: 64, uuid: 40, owner: None };

/// A run of blocks of a fork; all numbers are in file system blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) block: u64,
    pub(super) length: u64,
    /// Allocated, but never written: reads as zeros.
    pub(super) unwritten: bool,
}

impl Extent {
    /// The first block behind it.
    pub(super) const fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    fn parse(record: &[u8]) -> Option<Self> {
        let (high, low) = (be_u64(record, 0)?, be_u64(record, 8)?);
        Some(Self {
            offset: high >> 9 & ((1 << 54) - 1),
            block: (high & 0x1ff) << 43 | low >> 21,
            length: low & 0x1f_ffff,
            unwritten: high >> 63 != 0,
        })
    }
}

/// Extents in their order, and the position up to which they tell all.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) extents: Vec<Extent>,
    /// No extent beginning before this block is missing.
    pub(super) until: u64,
}

/// The extents of `fork` at block `from` and after it, at least up to the end of one leaf.
///
/// # Errors
/// [`Error::Corrupt`] where the mapping contradicts the format.
pub(super) fn map(volume: &Volume, inode: &Inode, fork: Fork, from: u64) -> Result<Mapped> {
    let root = inode.fork(fork);
    match inode.format(fork)? {
        Format::Extents => {
            let count = usize::try_from(inode.extents(fork)).unwrap_or(usize::MAX);
            let records = count.checked_mul(RECORD).and_then(|length| root.get(..length));
            let records = records.ok_or_else(|| inode.corrupt(format!("{count} extents do not fit it")))?;
            let extents = parse(records).map_err(|reason| inode.corrupt(reason))?;
            Ok(Mapped { extents: extents.into_iter().filter(|extent| extent.end() > from).collect(), until: u64::MAX })
        }
        Format::Btree => descend(volume, inode, root, from),
        Format::Device | Format::Local => Err(inode.corrupt("it has no extents")),
    }
}

/// Records that follow each other and do not overlap.
fn parse(records: &[u8]) -> std::result::Result<Vec<Extent>, &'static str> {
    let mut end = 0;
    records
        .chunks_exact(RECORD)
        .map(|record| {
            let extent = Extent::parse(record).ok_or("an extent is cut off")?;
            if extent.length == 0 || extent.offset < end {
                return Err("its extents are not in order");
            }
            end = extent.end();
            Ok(extent)
        })
        .collect()
}

/// The child that covers block `from` among `count` keys at `keys` and pointers at `pointers`, with the next key.
fn child(node: &[u8], count: usize, keys: usize, pointers: usize, from: u64) -> Option<(u64, Option<u64>)> {
    let keys = slice(node, keys, count.checked_mul(8)?)?;
    let key = |index: usize| be_u64(keys, index.checked_mul(8)?);
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = usize::midpoint(low, high);
        if key(middle)? <= from { low = middle.saturating_add(1) } else { high = middle }
    }
    let index = low.saturating_sub(1);
    let pointer = be_u64(node, pointers.checked_add(index.checked_mul(8)?)?)?;
    Some((pointer, key(index.saturating_add(1))))
}

fn descend(volume: &Volume, inode: &Inode, root: &[u8], from: u64) -> Result<Mapped> {
    let geometry = &volume.geometry;
    let broken = || inode.corrupt("the root of its extent tree contradicts itself");
    let mut level = be_u16(root, 0).ok_or_else(broken)?;
    let count = usize::from(be_u16(root, 2).ok_or_else(broken)?);
    if level == 0 || level > LEVELS_MAX || count == 0 {
        return Err(broken());
    }
    let room = root.len().saturating_sub(ROOT_HEADER) / RECORD;
    if count > room {
        return Err(broken());
    }
    let (mut pointer, next) = child(root, count, ROOT_HEADER, ROOT_HEADER + room * 8, from).ok_or_else(broken)?;
    let mut until = next.unwrap_or(u64::MAX);
    // Whoever asks goes on from there, and must come to an end.
    if until <= from {
        return Err(broken());
    }
    let header = if geometry.v5 { 72 } else { 24 };
    let mut block = vec![0; geometry.block_bytes as usize];
    loop {
        level = level.saturating_sub(1);
        let at = geometry.byte_of_block(pointer, 1)?;
        let was_replayed = volume.read(&mut block, at)?;
        let corrupt = |reason: &str| Error::corrupt("xfs extent tree", at, reason);
        if !has(&block, 0, if geometry.v5 { b"BMA3" } else { b"BMAP" }) {
            return Err(corrupt("its magic number is missing"));
        }
        if geometry.v5 {
            volume.verify(&block, at, SEAL, inode.number, was_replayed)?;
        }
        if be_u16(&block, 4) != Some(level) {
            return Err(corrupt("a block of it has the wrong level"));
        }
        let count = usize::from(be_u16(&block, 6).unwrap_or(0));
        let room = block.len().saturating_sub(header) / RECORD;
        if count == 0 || count > room {
            return Err(corrupt("a block of it has an impossible number of records"));
        }
        if level == 0 {
            let records = slice(&block, header, count * RECORD).unwrap_or_default();
            let mut extents = parse(records).map_err(corrupt)?;
            extents.retain(|extent| extent.end() > from && extent.offset < until);
            return Ok(Mapped { extents, until });
        }
        let (below, next) =
            child(&block, count, header, header + room * 8, from).ok_or_else(|| corrupt("it is cut off"))?;
        pointer = below;
        until = next.map_or(until, |next| next.min(until));
        if until <= from {
            return Err(corrupt("its keys are not in order"));
        }
    }
}

/// Which bytes are wanted: file data is not covered by the log, and may lie in the realtime section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    Data,
    Metadata,
}

/// Fills `buffer` with the bytes of `fork` at `offset`; holes are zeros. Tells whether the log holds any of them.
///
/// # Errors
/// [`Error::Corrupt`] where the mapping contradicts the format; [`Error::Unsupported`] for files of a realtime device.
pub(super) fn read(
    volume: &Volume,
    inode: &Inode,
    fork: Fork,
    contents: Contents,
    buffer: &mut [u8],
    offset: u64,
) -> Result<bool> {
    let geometry = &volume.geometry;
    let block_bytes = u64::from(geometry.block_bytes);
    let in_realtime = contents == Contents::Data && inode.is_realtime();
    let mut was_replayed = false;
    let mut at = offset;
    let end = offset.checked_add(buffer.len() as u64).ok_or_else(|| inode.corrupt("it is read past all bounds"))?;
    while at < end {
        volume.budget.check_time()?;
        let mapped = map(volume, inode, fork, at / block_bytes)?;
        for extent in &mapped.extents {
            let (start, stop) = (extent.offset.saturating_mul(block_bytes), extent.end().saturating_mul(block_bytes));
            if start >= end {
                break;
            }
            part(buffer, offset, at, start).fill(0);
            let from = at.max(start);
            let to = stop.min(end);
            let target = part(buffer, offset, from, to);
            at = at.max(to);
            if extent.unwritten {
                target.fill(0);
                continue;
            }
            let first = if in_realtime {
                geometry
                    .byte_of_realtime(extent.block, extent.length)?
                    .ok_or_else(|| Error::unsupported(format!("the realtime device of xfs inode {}", inode.number)))?
            } else {
                geometry.byte_of_block(extent.block, extent.length)?
            };
            let place = first.saturating_add(from.saturating_sub(start));
            if contents == Contents::Data {
                volume.source.read_exact_at(target, place)?;
            } else {
                was_replayed |= volume.read(target, place)?;
            }
        }
        // What no extent covers up to where these tell all is a hole.
        let until = mapped.until.saturating_mul(block_bytes).min(end);
        part(buffer, offset, at, until).fill(0);
        at = at.max(until);
    }
    Ok(was_replayed)
}

/// The part of `buffer`, which begins at `offset`, that stands for the bytes `from..to`.
fn part(buffer: &mut [u8], offset: u64, from: u64, to: u64) -> &mut [u8] {
    let length = buffer.len();
    let index = |at: u64| usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX).min(length);
    let (from, to) = (index(from), index(to));
    buffer.get_mut(from..to.max(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_is_four_fields_of_odd_widths() {
        let high = 1_u64 << 63 | 0x3_ffff_ffff_ffff << 9 | 0x155;
        let low = 0x2_aaaa_aaaa_u64 << 21 | 0x1f_fffe;
        let record = [high.to_be_bytes(), low.to_be_bytes()].concat();
        let extent = Extent::parse(&record).unwrap();
        let block = 0x155 << 43 | 0x2_aaaa_aaaa;
        assert_eq!(extent, Extent { offset: 0x3_ffff_ffff_ffff, block, length: 0x1f_fffe, unwritten: true });
        assert!(parse(&[record.clone(), record].concat()).is_err(), "they overlap");
    }

    #[test]
    fn the_child_is_the_last_that_begins_no_later() {
        let node: Vec<u8> = [0_u64, 10, 20, 101, 102, 103].iter().flat_map(|word| word.to_be_bytes()).collect();
        for (from, expected) in [(0, (101, Some(10))), (9, (101, Some(10))), (10, (102, Some(20))), (99, (103, None))] {
            assert_eq!(child(&node, 3, 0, 24, from), Some(expected));
        }
        assert_eq!(child(&node, 3, 0, 40, 99), None);
    }
}
