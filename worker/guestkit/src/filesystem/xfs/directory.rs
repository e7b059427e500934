//! Directories ("XFS Algorithms & Data Structures", directories): in the inode, in one block, or in data blocks with an
//! index of hashes behind them.

use super::bmap::{self, Contents};
use super::inode::{Fork, Format, Inode};
use super::volume::{Seal, Volume};
use crate::bytes::{array, be_u16, be_u32, be_u64, slice};
use crate::error::{Error, Limit, Result};
use crate::filesystem::{DirEntry, FileType, NodeId};

/// Where the index begins in a directory's fork, in bytes (`XFS_DIR2_LEAF_OFFSET`).
const INDEX_OFFSET: u64 = 32 << 30;
/// Bytes of data blocks read at once.
const RUN_BYTES: u64 = 128 << 10;
/// Levels of an index (`XFS_DA_NODE_MAXDEPTH`).
const DEPTH_MAX: u32 = 5;
/// Leaves that can be full of one hash: more than a directory of chosen names has, and soon read where leaves form a ring.
const EQUAL_LEAVES_MAX: u32 = 10_000;
/// Bytes of an entry that is listed, beside its name.
const ENTRY_BYTES: u64 = 48;
/// Bytes of a record in an index: a hash and where it leads.
const INDEX_RECORD: usize = 8;

const SEAL: Seal = Seal { name: "xfs directory block", checksum: 4, uuid: 24, owner: Some(40) };
pub(super) const INDEX_SEAL: Seal = Seal { name: "xfs directory index", checksum: 12, uuid: 32, owner: Some(48) };

/// All entries of `directory`, in the order they lie.
///
/// # Errors
/// [`Error::Corrupt`] where it contradicts the format.
pub(super) fn entries(volume: &Volume, directory: &Inode) -> Result<Vec<DirEntry>> {
    let bound = volume.budget.limits().allocation_bytes;
    let mut found = Vec::new();
    let mut taken = 0_u64;
    let mut add = |name: &[u8], node: u64, kind: Option<u8>| {
        if !matches!(name, b"." | b"..") {
            let file_type = kind.and_then(file_type);
            taken = taken.saturating_add(ENTRY_BYTES + name.len() as u64);
            found.push(DirEntry { name: name.to_vec(), node: NodeId(node), file_type });
        }
        taken <= bound
    };
    if directory.format(Fork::Data)? == Format::Local {
        short_form(volume, directory, &mut add)?;
    } else {
        each_block(volume, directory, &mut |block, at| data_entries(volume, directory, block, at, &mut add))?;
    }
    if taken > bound {
        return Err(Error::LimitReached { which: Limit::Allocation, value: bound });
    }
    Ok(found)
}

/// The node called `name` in `directory`.
///
/// # Errors
/// [`Error::Corrupt`] where it contradicts the format.
pub(super) fn lookup(volume: &Volume, directory: &Inode, name: &[u8]) -> Result<Option<u64>> {
    if volume.geometry.ascii_ci {
        return lookup_any_case(volume, directory, name);
    }
    let mut found = None;
    if directory.format(Fork::Data)? == Format::Local {
        short_form(volume, directory, &mut |entry, node, _| {
            if entry == name {
                found = Some(node);
            }
            found.is_none()
        })?;
        return Ok(found);
    }
    let block_bytes = u64::from(volume.geometry.directory_bytes);
    if directory.size > block_bytes {
        return lookup_by_hash(volume, directory, name);
    }
    each_block(volume, directory, &mut |block, at| {
        data_entries(volume, directory, block, at, &mut |entry, node, _| {
            if entry == name {
                found = Some(node);
            }
            found.is_none()
        })
    })?;
    Ok(found)
}

/// Without regard to case, an exact match first.
fn lookup_any_case(volume: &Volume, directory: &Inode, name: &[u8]) -> Result<Option<u64>> {
    let lower = |name: &[u8]| name.iter().copied().map(lower_case).collect::<Vec<u8>>();
    let wanted = lower(name);
    let mut found = None;
    for entry in entries(volume, directory)? {
        if entry.name == name {
            return Ok(Some(entry.node.0));
        }
        if lower(&entry.name) == wanted {
            found = Some(entry.node.0);
        }
    }
    Ok(found)
}

/// `xfs_ascii_ci_xfrm`: the capital letters of Latin-1.
const fn lower_case(byte: u8) -> u8 {
    match byte {
        b'A'..=b'Z' | 0xc0..=0xd6 | 0xd8..=0xde => byte | 0x20,
        other => other,
    }
}

/// `XFS_DIR3_FT_*`; a whiteout is a character device.
const fn file_type(kind: u8) -> Option<FileType> {
    Some(match kind {
        1 => FileType::Regular,
        2 => FileType::Directory,
        3 | 8 => FileType::CharacterDevice,
        4 => FileType::BlockDevice,
        5 => FileType::Fifo,
        6 => FileType::Socket,
        7 => FileType::Symlink,
        _ => return None,
    })
}

/// Takes a name, its inode and the number of its type; `false` ends the listing.
type Visit<'a> = &'a mut dyn FnMut(&[u8], u64, Option<u8>) -> bool;

/// A directory in its inode (`xfs_dir2_sf_hdr`).
fn short_form(volume: &Volume, directory: &Inode, visit: Visit<'_>) -> Result<()> {
    let whole = usize::try_from(directory.size).ok().and_then(|size| directory.fork(Fork::Data).get(..size));
    let broken = || directory.corrupt("its entries are cut off");
    let bytes = whole.ok_or_else(broken)?;
    let (Some(&count), Some(&wide)) = (bytes.first(), bytes.get(1)) else { return Err(broken()) };
    // Eight bytes where any number needs them; then the second count stands for all entries.
    let (count, number_bytes) = if wide == 0 { (count, 4) } else { (count.max(wide), 8) };
    let mut at = 2 + number_bytes;
    for _ in 0..count {
        let name_length = usize::from(*bytes.get(at).ok_or_else(broken)?);
        let name = slice(bytes, at + 3, name_length).filter(|name| is_name(name)).ok_or_else(broken)?;
        at += 3 + name_length;
        let kind = if volume.geometry.file_types { bytes.get(at).copied() } else { None };
        at += usize::from(volume.geometry.file_types);
        let node = if wide == 0 { be_u32(bytes, at).map(u64::from) } else { be_u64(bytes, at) };
        at += number_bytes;
        if !visit(name, node.ok_or_else(broken)?, kind) {
            return Ok(());
        }
    }
    Ok(())
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&b'/') && !name.contains(&0)
}

/// Takes a directory block and where it lies in the fork; `false` ends the walk.
type VisitBlock<'a> = &'a mut dyn FnMut(&Block<'_>, u64) -> Result<bool>;

/// A directory block, and whether the log holds any of it.
#[derive(Debug)]
struct Block<'a> {
    bytes: &'a [u8],
    was_replayed: bool,
}

/// Visits the data blocks in their order, read in runs; what was freed among them is a hole.
fn each_block(volume: &Volume, directory: &Inode, visit: VisitBlock<'_>) -> Result<()> {
    let block_bytes = u64::from(volume.geometry.directory_bytes);
    let end = directory.size.min(INDEX_OFFSET);
    let run = RUN_BYTES.max(block_bytes);
    let mut buffer = Vec::new();
    let mut at = 0;
    while at < end {
        volume.budget.check_time()?;
        // A size can be anything; what is mapped bounds what is read.
        let Some((start, stop)) = next_mapped(volume, directory, at, end)? else { return Ok(()) };
        let start = start / block_bytes * block_bytes;
        let stop = stop.div_ceil(block_bytes).saturating_mul(block_bytes).min(start.saturating_add(run));
        buffer.resize(usize::try_from(stop.saturating_sub(start)).unwrap_or(0), 0);
        let was_replayed = bmap::read(volume, directory, Fork::Data, Contents::Metadata, &mut buffer, start)?;
        for (bytes, place) in buffer.chunks_exact(block_bytes as usize).zip((start..).step_by(block_bytes as usize)) {
            if place >= at && !visit(&Block { bytes, was_replayed }, place)? {
                return Ok(());
            }
        }
        at = stop.max(at.saturating_add(block_bytes));
    }
    Ok(())
}

/// The first bytes at `from` or after it that are mapped, and where the extents end that follow each other from there.
fn next_mapped(volume: &Volume, directory: &Inode, from: u64, end: u64) -> Result<Option<(u64, u64)>> {
    let block_bytes = u64::from(volume.geometry.block_bytes);
    let mut from = from / block_bytes;
    while from < end.div_ceil(block_bytes) {
        let mapped = bmap::map(volume, directory, Fork::Data, from)?;
        let mut extents = mapped.extents.iter();
        if let Some(first) = extents.next() {
            let start = first.offset.max(from);
            let stop = extents.fold(first.end(), |stop, next| if next.offset == stop { next.end() } else { stop });
            let range = (start.saturating_mul(block_bytes), stop.saturating_mul(block_bytes));
            return Ok(Some(range).filter(|(start, _)| *start < end));
        }
        from = mapped.until;
    }
    Ok(None)
}

/// The part of a data block that holds entries (`xfs_dir2_data_hdr`, `xfs_dir2_block_tail`).
fn entry_area(volume: &Volume, directory: &Inode, block: &Block<'_>, at: u64) -> Result<(usize, usize)> {
    let corrupt = |reason: &str| directory.corrupt(format!("directory block at {at}: {reason}"));
    let bytes = block.bytes;
    let (is_single, header) = match array::<4>(bytes, 0).as_ref() {
        Some(b"XD2B") if !volume.geometry.v5 => (true, 16),
        Some(b"XD2D") if !volume.geometry.v5 => (false, 16),
        Some(b"XDB3") if volume.geometry.v5 => (true, 64),
        Some(b"XDD3") if volume.geometry.v5 => (false, 64),
        _ => return Err(corrupt("its magic number is missing")),
    };
    if volume.geometry.v5 {
        volume.verify(bytes, directory.at(), SEAL, directory.number, block.was_replayed)?;
    }
    if !is_single {
        return Ok((header, bytes.len()));
    }
    let tail = bytes.len().saturating_sub(8);
    let leaves = usize::try_from(be_u32(bytes, tail).unwrap_or(0)).unwrap_or(usize::MAX);
    let end = leaves.checked_mul(INDEX_RECORD).and_then(|length| tail.checked_sub(length));
    Ok((header, end.filter(|end| *end >= header).ok_or_else(|| corrupt("its index does not fit it"))?))
}

fn data_entries(volume: &Volume, directory: &Inode, block: &Block<'_>, at: u64, visit: Visit<'_>) -> Result<bool> {
    let (mut within, end) = entry_area(volume, directory, block, at)?;
    let bytes = block.bytes.get(..end).unwrap_or_default();
    let broken =
        |within: usize| directory.corrupt(format!("its entry at {} is cut off", at.saturating_add(within as u64)));
    while within < end {
        if be_u16(bytes, within) == Some(0xffff) {
            let length = usize::from(be_u16(bytes, within + 2).ok_or_else(|| broken(within))?);
            if length < 8 || length % 8 != 0 || within + length > end {
                return Err(broken(within));
            }
            within += length;
            continue;
        }
        let entry = entry(volume, bytes, within).ok_or_else(|| broken(within))?;
        if !visit(entry.name, entry.node, entry.kind) {
            return Ok(false);
        }
        within += entry.length;
    }
    Ok(true)
}

/// `xfs_dir2_data_entry`.
#[derive(Debug)]
struct Entry<'a> {
    name: &'a [u8],
    node: u64,
    kind: Option<u8>,
    length: usize,
}

fn entry<'a>(volume: &Volume, bytes: &'a [u8], at: usize) -> Option<Entry<'a>> {
    let node = be_u64(bytes, at)?;
    let name_length = usize::from(*bytes.get(at.checked_add(8)?)?);
    let name = slice(bytes, at + 9, name_length).filter(|name| is_name(name))?;
    let kind = if volume.geometry.file_types { Some(*bytes.get(at + 9 + name_length)?) } else { None };
    // The entry's own place follows, in the last two bytes of what is rounded up to eight.
    let length = (9 + name_length + usize::from(volume.geometry.file_types) + 2).next_multiple_of(8);
    let tag = be_u16(bytes, at + length - 2)?;
    (usize::from(tag) == at).then_some(Entry { name, node, kind, length })
}

/// `xfs_da_hashname`.
fn hash_of(name: &[u8]) -> u32 {
    let (fours, rest) = name.as_chunks::<4>();
    let hash = fours.iter().fold(0_u32, |hash, [a, b, c, d]| {
        let [a, b, c, d] = [a, b, c, d].map(|byte| u32::from(*byte));
        a << 21 ^ b << 14 ^ c << 7 ^ d ^ hash.rotate_left(28)
    });
    let at = |index: usize| rest.get(index).map_or(0, |byte| u32::from(*byte));
    match rest.len() {
        3 => at(0) << 14 ^ at(1) << 7 ^ at(2) ^ hash.rotate_left(21),
        2 => at(0) << 7 ^ at(1) ^ hash.rotate_left(14),
        1 => at(0) ^ hash.rotate_left(7),
        _ => hash,
    }
}

/// What an index block is, by its magic number (`xfs_da_blkinfo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IndexBlock {
    /// Hashes and the index blocks below.
    Node,
    /// Hashes and places of entries.
    Leaf,
    /// Attributes.
    Attributes,
}

/// Reads the index block of `fork` at byte `offset` and verifies it.
///
/// # Errors
/// [`Error::Corrupt`] where it contradicts the format.
pub(super) fn index_block(
    volume: &Volume,
    inode: &Inode,
    fork: Fork,
    block: &mut [u8],
    offset: u64,
) -> Result<IndexBlock> {
    let was_replayed = bmap::read(volume, inode, fork, Contents::Metadata, block, offset)?;
    let kind = match (be_u16(block, 8), volume.geometry.v5) {
        (Some(0xfebe), false) | (Some(0x3ebe), true) => IndexBlock::Node,
        (Some(0xd2f1 | 0xd2ff), false) | (Some(0x3df1 | 0x3dff), true) => IndexBlock::Leaf,
        (Some(0xfbee), false) | (Some(0x3bee), true) => IndexBlock::Attributes,
        _ => return Err(inode.corrupt(format!("its index block at {offset} has no magic number"))),
    };
    if volume.geometry.v5 {
        volume.verify(block, inode.at(), INDEX_SEAL, inode.number, was_replayed)?;
    }
    Ok(kind)
}

/// The records of an index block, and the level of a node.
pub(super) fn index_records(volume: &Volume, block: &[u8]) -> Option<(usize, usize, u16)> {
    let (header, counts) = if volume.geometry.v5 { (64, 56) } else { (16, 12) };
    let count = usize::from(be_u16(block, counts)?);
    slice(block, header, count.checked_mul(INDEX_RECORD)?)?;
    Some((header, count, be_u16(block, counts + 2)?))
}

/// The first record in a block whose hash is at least `hash`.
fn first_at_least(block: &[u8], header: usize, count: usize, hash: u32) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = usize::midpoint(low, high);
        if be_u32(block, header + middle * INDEX_RECORD) < Some(hash) { low = middle + 1 } else { high = middle }
    }
    low
}

fn lookup_by_hash(volume: &Volume, directory: &Inode, name: &[u8]) -> Result<Option<u64>> {
    let hash = hash_of(name);
    let block_bytes = volume.geometry.directory_bytes as usize;
    let mut block = vec![0; block_bytes];
    let mut offset = INDEX_OFFSET;
    let place = |number: u32| u64::from(number) << volume.geometry.block_log;
    let broken = || directory.corrupt("its index contradicts itself");
    let mut depth = 0;
    loop {
        match index_block(volume, directory, Fork::Data, &mut block, offset)? {
            IndexBlock::Leaf => break,
            IndexBlock::Node if depth < DEPTH_MAX => {}
            IndexBlock::Node | IndexBlock::Attributes => return Err(broken()),
        }
        depth += 1;
        let (header, count, _) = index_records(volume, &block).ok_or_else(broken)?;
        let index = first_at_least(&block, header, count, hash);
        // All hashes below are lower.
        if index == count {
            return Ok(None);
        }
        offset = place(be_u32(&block, header + index * INDEX_RECORD + 4).ok_or_else(broken)?);
    }
    let mut data = vec![0; block_bytes];
    let mut held = None;
    for _ in 0..EQUAL_LEAVES_MAX {
        volume.budget.check_time()?;
        let (header, count, _) = index_records(volume, &block).ok_or_else(broken)?;
        let first = first_at_least(&block, header, count, hash);
        for index in first..count {
            let record = header + index * INDEX_RECORD;
            if be_u32(&block, record) != Some(hash) {
                return Ok(None);
            }
            // In units of eight bytes; 0 is an entry that was removed.
            let address = u64::from(be_u32(&block, record + 4).unwrap_or(0)) * 8;
            if address == 0 {
                continue;
            }
            let start = address / block_bytes as u64 * block_bytes as u64;
            if held != Some(start) {
                let was_replayed = bmap::read(volume, directory, Fork::Data, Contents::Metadata, &mut data, start)?;
                entry_area(volume, directory, &Block { bytes: &data, was_replayed }, start)?;
                held = Some(start);
            }
            let within = usize::try_from(address.saturating_sub(start)).unwrap_or(usize::MAX);
            let entry = entry(volume, &data, within).ok_or_else(broken)?;
            if entry.name == name {
                return Ok(Some(entry.node));
            }
        }
        let next = be_u32(&block, 0).unwrap_or(0);
        if next == 0 {
            return Ok(None);
        }
        offset = place(next);
        if index_block(volume, directory, Fork::Data, &mut block, offset)? != IndexBlock::Leaf {
            return Err(broken());
        }
    }
    Err(broken())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hash_as_in_the_kernel() {
        // As `xfs_db -c "hash NAME"` prints.
        for (name, hash) in [
            ("a", 0x61),
            ("..", 0x172e),
            ("abc", 0x18_7163),
            ("file", 0xcda_7665),
            ("lost+found", 0x21a_a60c),
            ("passwd", 0x1e7c_f862),
        ] {
            assert_eq!(hash_of(name.as_bytes()), hash, "{name}");
        }
    }
}
