//! The items of the log's transactions, laid over the device: buffers, inodes, chunks of new inodes (the kernel's
//! `xfs_buf_item_recover.c`, `xfs_inode_item_recover.c`, `xfs_icreate_item.c` say what is replayed onto what).
//!
//! What is older than what it would be laid over is not replayed: metadata of version 5 tells the log record that it was
//! last written from. Intents, which say what was still to be done, stay undone; those that concern files become a warning.

use std::collections::{HashMap, HashSet};

use super::inode::{self, core_bytes, fresh_chunk, put};
use super::superblock::{BASIC_BLOCK, Geometry};
use super::volume::{Overlay, Volume};
use crate::bytes::{array, be_u16, be_u32, be_u64, has, le_u16, le_u32, le_u64, slice};
use crate::error::{Error, Result};

/// An item of a transaction: its description, and the contents that the description tells of.
#[derive(Debug, Default)]
pub(super) struct Item {
    /// Regions it says it has.
    pub(super) expected: usize,
    pub(super) regions: Vec<Vec<u8>>,
}

/// `XFS_LI_*`.
const INODE: u16 = 0x123b;
const BUFFER: u16 = 0x123c;
const CREATED: u16 = 0x123f;
/// Intents that concern the contents of files or their attributes, with what says that they were done.
const INTENTS: [(u16, u16, &str); 3] = [
    (0x1244, 0x1245, "extents of files that were to be mapped"),
    (0x1246, 0x1247, "attributes that were to be changed"),
    (0x1248, 0x1249, "contents that were to be exchanged"),
];

/// `XFS_BLF_*`: an inode buffer, of which only links between deleted inodes are logged; a buffer whose earlier contents are
/// void; quota records.
const INODE_BUFFER: u16 = 0x01;
const CANCEL: u16 = 0x02;
const QUOTA: u16 = 0x04 | 0x08 | 0x10;
/// Bytes that a bit of a buffer's map stands for (`XFS_BLF_CHUNK`).
const CHUNK: usize = 128;
/// Basic blocks of a buffer at most: a directory block or an inode chunk, of 64 KiB each, and room.
const BUFFER_BLOCKS_MAX: u64 = (256 << 10) / BASIC_BLOCK;

/// Cancelled buffers and intents that are noted: more than a log of 2 GiB holds of a file system in use.
const NOTES_MAX: usize = 1 << 20;

/// `XFS_ILOG_*`: what an inode's item has besides the core.
const DATA_FORK: u32 = 0x02 | 0x04 | 0x08;
const DATA_ROOT: u32 = 0x08;
const DEVICE: u32 = 0x10;
const ATTRIBUTE_FORK: u32 = 0x40 | 0x80 | 0x100;
const ATTRIBUTE_ROOT: u32 = 0x100;

/// A buffer by its first basic block and its length.
type Buffer = (u64, u64);

/// The state of a replay, over both of its passes.
#[derive(Debug)]
pub(super) struct Replay<'a> {
    volume: &'a Volume,
    pub(super) overlay: Overlay,
    /// Buffers that were cancelled, and how many times; before the last of these, nothing is laid over them.
    cancelled: HashMap<Buffer, u32>,
    /// Buffers that were laid over, whose contents on the device say no more how new they are.
    replayed: HashSet<u64>,
    pending: HashSet<(u16, u64)>,
}

/// `xfs_buf_log_format`.
struct BufferFormat<'a> {
    flags: u16,
    buffer: Buffer,
    map: &'a [u8],
}

impl<'a> BufferFormat<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let words = usize::try_from(le_u32(bytes, 16)?).ok()?;
        Some(Self {
            flags: le_u16(bytes, 4)?,
            buffer: (le_u64(bytes, 8)?, u64::from(le_u16(bytes, 6)?)),
            map: slice(bytes, 20, words.checked_mul(4)?)?,
        })
    }

    /// Whether chunk `index` was logged.
    fn has(&self, index: usize) -> bool {
        // 32-bit words, little-endian: the bits of a byte lie in their order.
        self.map.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 != 0)
    }
}

/// `xfs_inode_log_format`, in its two lengths.
struct InodeFormat {
    fields: u32,
    number: u64,
    device: u32,
    buffer: Buffer,
    within: usize,
    regions: u16,
}

impl InodeFormat {
    fn parse(bytes: &[u8]) -> Option<Self> {
        // The 32-bit kernels' has no padding before the inode number.
        let shift = match bytes.len() {
            56 => 0,
            52 => 4,
            _ => return None,
        };
        Some(Self {
            regions: le_u16(bytes, 2)?,
            fields: le_u32(bytes, 4)?,
            number: le_u64(bytes, 16 - shift)?,
            device: le_u32(bytes, 24 - shift)?,
            buffer: (le_u64(bytes, 40 - shift)?, u64::from(le_u32(bytes, 48 - shift)?)),
            within: usize::try_from(le_u32(bytes, 52 - shift)?).ok()?,
        })
    }
}

fn corrupt(reason: impl Into<String>) -> Error {
    Error::corrupt("xfs log item", 0, reason)
}

impl<'a> Replay<'a> {
    pub(super) fn new(volume: &'a Volume) -> Self {
        Self {
            volume,
            overlay: Overlay::default(),
            cancelled: HashMap::new(),
            replayed: HashSet::new(),
            pending: HashSet::new(),
        }
    }

    /// Takes note of what a transaction cancels, and of what it leaves to be done.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where there is more of it than is kept.
    pub(super) fn first_pass(&mut self, items: &[Item]) -> Result<()> {
        if self.cancelled.len().saturating_add(self.pending.len()) > NOTES_MAX {
            return Err(Error::unsupported("an xfs log of so many changes"));
        }
        for item in items {
            let Some(format) = item.regions.first() else { continue };
            let kind = le_u16(format, 0).unwrap_or(0);
            if kind == BUFFER
                && let Some(found) = BufferFormat::parse(format)
                && found.flags & CANCEL != 0
            {
                *self.cancelled.entry(found.buffer).or_default() += 1;
            }
            for (intent, done, _) in INTENTS {
                let id = le_u64(format, 8).unwrap_or(0);
                if kind == intent {
                    self.pending.insert((intent, id));
                } else if kind == done {
                    self.pending.remove(&(intent, id));
                }
            }
        }
        Ok(())
    }

    /// What was left to be done, in words.
    pub(super) fn warnings(&self) -> Vec<String> {
        let count = |kind: u16| self.pending.iter().filter(|(intent, _)| *intent == kind).count();
        let told = INTENTS.iter().map(|(kind, _, what)| (count(*kind), what)).filter(|(count, _)| *count > 0);
        told.map(|(count, what)| format!("the log holds {count} unfinished changes, left undone: {what}")).collect()
    }

    /// Replays a transaction that began in the record `lsn`: buffers and new inodes first, inodes onto them, and what is
    /// cancelled last, as `xlog_recover_reorder_trans` has it.
    pub(super) fn second_pass(&mut self, lsn: u64, items: &[Item]) -> Result<()> {
        let kind_of = |item: &Item| item.regions.first().and_then(|format| le_u16(format, 0)).unwrap_or(0);
        let mut voided = Vec::new();
        for item in items {
            match kind_of(item) {
                BUFFER => {
                    let format = item.regions.first().and_then(|format| BufferFormat::parse(format));
                    let format = format.ok_or_else(|| corrupt("a buffer's description is cut off"))?;
                    if format.flags & CANCEL != 0 {
                        voided.push(format.buffer);
                    } else if format.flags & (INODE_BUFFER | QUOTA) == 0 && !self.cancelled.contains_key(&format.buffer)
                    {
                        self.buffer(lsn, &format, &item.regions)?;
                    }
                }
                CREATED => self.new_inodes(item)?,
                _ => {}
            }
        }
        for item in items.iter().filter(|item| kind_of(item) == INODE) {
            self.inode(lsn, item)?;
        }
        for buffer in voided {
            if let Some(count) = self.cancelled.get_mut(&buffer) {
                *count -= 1;
                if *count == 0 {
                    self.cancelled.remove(&buffer);
                }
            }
        }
        Ok(())
    }

    /// The contents of a buffer, as far as they have been replayed.
    fn read(&self, (first, count): Buffer) -> Result<Vec<u8>> {
        if count == 0 || count > BUFFER_BLOCKS_MAX {
            return Err(corrupt(format!("a buffer of {count} basic blocks")));
        }
        let at = first.checked_mul(BASIC_BLOCK).ok_or_else(|| corrupt("a buffer beyond all devices"))?;
        let mut bytes = vec![0; usize::try_from(count * BASIC_BLOCK).unwrap_or(0)];
        self.volume.source.read_exact_at(&mut bytes, at)?;
        self.overlay.apply(&mut bytes, at);
        Ok(bytes)
    }

    fn buffer(&mut self, lsn: u64, format: &BufferFormat<'_>, regions: &[Vec<u8>]) -> Result<()> {
        let mut bytes = self.read(format.buffer)?;
        let (first, _) = format.buffer;
        // Only what lies on the device was stamped when it was written.
        if !self.replayed.contains(&first)
            && written_from(&bytes, &self.volume.geometry).is_some_and(|found| found >= lsn)
        {
            return Ok(());
        }
        let mut chunk = 0;
        let chunks = (format.map.len() * 8).min(bytes.len() / CHUNK);
        let mut regions = regions.iter().skip(1);
        while chunk < chunks {
            if !format.has(chunk) {
                chunk += 1;
                continue;
            }
            let region = regions.next().ok_or_else(|| corrupt("a buffer has fewer regions than its map"))?;
            let marked = (chunk..chunks).take_while(|chunk| format.has(*chunk)).count();
            // A run of bits can be several regions, cut at pages of memory.
            let count = marked.min(region.len() / CHUNK);
            if count == 0 {
                return Err(corrupt("a region of a buffer is too short"));
            }
            put(&mut bytes, chunk * CHUNK, region.get(..count * CHUNK).unwrap_or_default());
            chunk += count;
        }
        self.overlay.put(first, &bytes);
        self.replayed.insert(first);
        Ok(())
    }

    /// `xfs_icreate_log`: a chunk of inodes that are not in use yet.
    fn new_inodes(&mut self, item: &Item) -> Result<()> {
        let geometry = &self.volume.geometry;
        let cut = || corrupt("a chunk of new inodes is cut off");
        let format = item.regions.first().ok_or_else(cut)?;
        let word = |at: usize| be_u32(format, at).map(u64::from).ok_or_else(cut);
        let (group, block, inodes, inode_bytes, blocks) = (word(4)?, word(8)?, word(12)?, word(16)?, word(20)?);
        let generation = be_u32(format, 24).ok_or_else(cut)?;
        let is_sound = inode_bytes == u64::from(geometry.inode_bytes)
            && inodes <= 64.max(1 << geometry.inodes_per_block_log)
            && inodes << geometry.inode_log == blocks << geometry.block_log
            && block < u64::from(geometry.ag_blocks)
            && geometry.v5;
        if !is_sound {
            return Err(corrupt("a chunk of new inodes contradicts the superblock"));
        }
        let first = group << geometry.ag_block_log | block;
        let (sector, bytes) = fresh_chunk(geometry, first, blocks, generation)?;
        let cluster = geometry.cluster_blocks();
        let cluster_sectors = (cluster << geometry.block_log) / BASIC_BLOCK;
        let mut starts = (0..blocks / cluster).map(|index| sector + index * cluster_sectors);
        if !starts.any(|start| self.cancelled.contains_key(&(start, cluster_sectors))) {
            self.overlay.put(sector, &bytes);
        }
        Ok(())
    }

    fn inode(&mut self, lsn: u64, item: &Item) -> Result<()> {
        let format = item.regions.first().and_then(|format| InodeFormat::parse(format));
        let format = format.ok_or_else(|| corrupt("an inode's description is cut off"))?;
        if self.cancelled.contains_key(&format.buffer) {
            return Ok(());
        }
        let geometry = &self.volume.geometry;
        let mut buffer = self.read(format.buffer)?;
        let number = format.number;
        let wrong = |reason: &str| corrupt(format!("inode {number}: {reason}"));
        let end = format.within.saturating_add(geometry.inode_bytes as usize);
        let raw = buffer.get_mut(format.within..end).ok_or_else(|| wrong("it leaves its buffer"))?;
        let core = item.regions.get(1).ok_or_else(|| wrong("its core is missing"))?;
        if !has(raw, 0, b"IN") || le_u16(core, 0) != Some(0x494e) {
            return Err(wrong("its magic number is missing"));
        }
        if is_older(raw, core, lsn, geometry) {
            return Ok(());
        }
        put_core(raw, core, lsn, geometry).ok_or_else(|| wrong("its core is cut off"))?;
        let version = raw.get(4).copied().unwrap_or(0);
        let area = raw.get_mut(core_bytes(version)..).unwrap_or_default();
        let split = usize::from(core.get(82).copied().unwrap_or(0)) * 8;
        if split > area.len() {
            return Err(wrong("its attributes lie behind its end"));
        }
        let (data, attributes) = area.split_at_mut(if split == 0 { area.len() } else { split });
        if format.fields & DEVICE != 0 {
            put(data, 0, &format.device.to_be_bytes());
        }
        let mut regions = item.regions.iter().skip(2).take(usize::from(format.regions).saturating_sub(2));
        for (mask, root, fork) in [(DATA_FORK, DATA_ROOT, data), (ATTRIBUTE_FORK, ATTRIBUTE_ROOT, attributes)] {
            if format.fields & mask == 0 {
                continue;
            }
            // The log of a fork that has become empty has no region.
            let Some(region) = regions.next() else { break };
            if format.fields & mask == root {
                put_root(fork, region, geometry).ok_or_else(|| wrong("the root of its tree does not fit it"))?;
            } else if region.len() > fork.len().next_multiple_of(4) {
                return Err(wrong("a fork does not fit it"));
            } else {
                put(fork, 0, region);
            }
        }
        if version >= 3 {
            inode::seal(raw);
        }
        self.overlay.put(format.buffer.0, &buffer);
        Ok(())
    }
}

/// Whether the log's core is older than what it would be laid over.
fn is_older(raw: &[u8], core: &[u8], lsn: u64, geometry: &Geometry) -> bool {
    if geometry.v5 {
        return be_u64(raw, inode::LSN).is_some_and(|found| found != 0 && found != u64::MAX && found > lsn);
    }
    // How many times it was written, which wraps around.
    const WRAPS_AT: u16 = 0xffff;
    match (le_u16(core, 30), be_u16(raw, 30)) {
        (Some(logged), Some(found)) if logged < found => !(found == WRAPS_AT && logged < WRAPS_AT >> 1),
        _ => false,
    }
}

/// The core of an inode as the log has it, little-endian (`xfs_log_dinode`), over the one on disk. The links between
/// deleted inodes stay.
fn put_core(raw: &mut [u8], core: &[u8], lsn: u64, geometry: &Geometry) -> Option<()> {
    const BIGTIME: u64 = 0x8;
    let swap = |raw: &mut [u8], at: usize, length: usize| {
        let mut bytes = slice(core, at, length)?.to_vec();
        bytes.reverse();
        put(raw, at, &bytes);
        Some(())
    };
    let flags2 = if geometry.v5 { le_u64(core, 120)? } else { 0 };
    // With wide counts or narrow ones, the numbers of extents fill the same three places; version 4 has two of them.
    let counts: &[(usize, usize)] = if geometry.v5 { &[(24, 8), (76, 4), (80, 2)] } else { &[(76, 4), (80, 2)] };
    let fields = [
        (0, 2),
        (2, 2),
        (4, 1),
        (5, 1),
        (6, 2),
        (8, 4),
        (12, 4),
        (16, 4),
        (20, 2),
        (22, 2),
        (56, 8),
        (64, 8),
        (72, 4),
        (82, 1),
        (83, 1),
        (84, 4),
        (88, 2),
        (90, 2),
        (92, 4),
    ];
    for (at, length) in fields.iter().chain(counts) {
        swap(raw, *at, *length)?;
    }
    let times: &[usize] = if geometry.v5 { &[32, 40, 48, 144] } else { &[32, 40, 48] };
    for at in times {
        if flags2 & BIGTIME != 0 {
            swap(raw, *at, 8)?;
        } else {
            swap(raw, *at, 4)?;
            swap(raw, at + 4, 4)?;
        }
    }
    if geometry.v5 {
        for (at, length) in [(104, 8), (120, 8), (128, 4), (inode::NUMBER, 8)] {
            swap(raw, at, length)?;
        }
        put(raw, inode::LSN, &lsn.to_be_bytes());
        put(raw, inode::UUID, &array::<16>(core, inode::UUID)?);
    } else {
        put(raw, 24, &[0; 8]);
    }
    Some(())
}

/// The root of an extent tree as it is in memory, a whole block's header and its records, into a fork
/// (`xfs_bmbt_to_bmdr`).
fn put_root(fork: &mut [u8], root: &[u8], geometry: &Geometry) -> Option<()> {
    let header = if geometry.v5 { 72 } else { 24 };
    let (level, count) = (be_u16(root, 4)?, usize::from(be_u16(root, 6)?));
    let (room_before, room) = (root.len().checked_sub(header)? / 16, fork.len().checked_sub(4)? / 16);
    if level == 0 || count == 0 || count > room || count > room_before {
        return None;
    }
    let keys = slice(root, header, count * 8)?;
    let pointers = slice(root, header + room_before * 8, count * 8)?;
    put(fork, 0, &level.to_be_bytes());
    put(fork, 2, slice(root, 6, 2)?);
    put(fork, 4, keys);
    put(fork, 4 + room * 8, pointers);
    Some(())
}

/// The record of the log that a buffer was last written from, as it says itself (`xlog_recover_get_buf_lsn`); `None`
/// where it says none, or belongs to another file system.
fn written_from(bytes: &[u8], geometry: &Geometry) -> Option<u64> {
    if !geometry.v5 {
        return None;
    }
    let (lsn, uuid) = match array::<4>(bytes, 0)?.as_slice() {
        // Short trees: space, inodes, reverse mappings, reference counts.
        b"AB3B" | b"AB3C" | b"IAB3" | b"FIB3" | b"RMB3" | b"R3FC" => (24, 32),
        // Long trees: extents, and those of the realtime section.
        b"BMA3" | b"MAPR" | b"RCNT" => (32, 40),
        b"XAGF" => (208, 64),
        b"XAFL" => (24, 8),
        b"XAGI" => (320, 296),
        b"XSLM" => (48, 16),
        b"XDB3" | b"XDD3" | b"XDF3" => (16, 24),
        b"XFSB" => return be_u64(bytes, 240).filter(|lsn| is_lsn(*lsn)),
        _ => match be_u16(bytes, 8)? {
            0x3df1 | 0x3dff | 0x3bee | 0x3ebe => (24, 32),
            _ => return None,
        },
    };
    let is_ours = slice(bytes, uuid, 16)? == geometry.metadata_uuid;
    be_u64(bytes, lsn).filter(|lsn| is_ours && is_lsn(*lsn))
}

const fn is_lsn(lsn: u64) -> bool {
    lsn != 0 && lsn != u64::MAX
}
