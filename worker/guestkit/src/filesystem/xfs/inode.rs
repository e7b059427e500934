//! Inodes ("XFS Algorithms & Data Structures", on-disk inode; `xfs_dinode`): the core, and where the two forks lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::superblock::{BASIC_BLOCK, Geometry};
use super::volume::{Seal, Volume};
use crate::bytes::{be_u16, be_u32, be_u64, has, slice};
use crate::error::{Error, Result};
use crate::filesystem::{FileType, Metadata, NodeId, Timestamp};

/// Bytes of inodes that are read and held together: a chunk of 64 of the usual 512 bytes. It lies at a multiple of its
/// own size in its group, so it can also hold what is no inode; each inode is verified when it is asked for.
pub(super) const CLUSTER_BYTES: u64 = 32 << 10;

/// Where the fields of `xfs_dinode` lie that others than this file ask for.
pub(super) const CHECKSUM: usize = 100;
pub(super) const LSN: usize = 112;
pub(super) const NUMBER: usize = 152;
pub(super) const UUID: usize = 160;
const FORK_OFFSET: usize = 82;

/// Bits of `di_flags` and `di_flags2`.
const FLAG_REALTIME: u16 = 0x1;
const FLAG2_BIGTIME: u64 = 0x8;
const FLAG2_WIDE_COUNTS: u64 = 0x10;

const SEAL: Seal = Seal { name: "xfs inode", checksum: CHECKSUM, uuid: UUID, owner: Some(NUMBER) };

/// Inodes read together, and which of them were found sound.
#[derive(Debug)]
pub(super) struct Cluster {
    start: u64,
    bytes: Box<[u8]>,
    sound: Box<[AtomicU64]>,
}

/// How a fork holds its contents (`xfs_dinode_fmt`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Device,
    Local,
    Extents,
    Btree,
}

/// Which of the two forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fork {
    Data,
    Attributes,
}

/// One inode, within the cluster it was read with.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    cluster: Arc<Cluster>,
    /// Where it begins in the cluster.
    within: usize,
    length: usize,
    pub(super) number: u64,
    pub(super) file_type: FileType,
    pub(super) size: u64,
}

impl Cluster {
    /// The byte where the cluster begins that holds the byte `at`, whose group begins at byte `group`.
    pub(super) const fn start_of(at: u64, group: u64) -> u64 {
        group.saturating_add(at.saturating_sub(group) / CLUSTER_BYTES * CLUSTER_BYTES)
    }

    /// Reads the cluster at byte `start`, shorter where the file system ends.
    ///
    /// # Errors
    /// Whatever the source gives.
    pub(super) fn read(volume: &Volume, start: u64) -> Result<Self> {
        let end = volume.geometry.blocks << volume.geometry.block_log;
        let length = end.saturating_sub(start).min(volume.source.len().saturating_sub(start)).min(CLUSTER_BYTES);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        volume.read(&mut bytes, start)?;
        let words = (CLUSTER_BYTES >> volume.geometry.inode_log).div_ceil(64);
        let sound = (0..words).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { start, bytes: bytes.into(), sound })
    }
}

impl Inode {
    /// Inode `number`, out of the cluster that holds the byte `at` where it begins.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where it contradicts the format or is not in use.
    pub(super) fn parse(volume: &Volume, cluster: &Arc<Cluster>, number: u64, at: u64) -> Result<Self> {
        let geometry = &volume.geometry;
        let corrupt = |reason: String| Error::corrupt("xfs inode", at, format!("inode {number}: {reason}"));
        let within = usize::try_from(at.saturating_sub(cluster.start)).unwrap_or(usize::MAX);
        let length = geometry.inode_bytes as usize;
        let raw = slice(&cluster.bytes, within, length).ok_or_else(|| corrupt("it is cut off".into()))?;
        let index = within >> geometry.inode_log;
        let bit = 1_u64 << (index % 64);
        let word = cluster.sound.get(index / 64);
        // Nothing else is published through the bits, so no order is needed.
        if word.is_none_or(|word| word.load(Ordering::Relaxed) & bit == 0) {
            check(volume, raw, number, at)?;
            if let Some(word) = word {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
        let mode = u32::from(be_u16(raw, 2).unwrap_or(0));
        let file_type = FileType::of_mode(mode).ok_or_else(|| corrupt(format!("it has mode {mode:o}")))?;
        let size =
            be_u64(raw, 56).filter(|size| *size < 1 << 63).ok_or_else(|| corrupt("its size is negative".into()))?;
        Ok(Self { cluster: Arc::clone(cluster), within, length, number, file_type, size })
    }

    fn raw(&self) -> &[u8] {
        slice(&self.cluster.bytes, self.within, self.length).unwrap_or_default()
    }

    /// The byte where it lies, for messages.
    pub(super) fn at(&self) -> u64 {
        self.cluster.start.saturating_add(self.within as u64)
    }

    /// A contradiction in it.
    pub(super) fn corrupt(&self, reason: impl std::fmt::Display) -> Error {
        Error::corrupt("xfs inode", self.at(), format!("inode {}: {reason}", self.number))
    }

    fn flags2(&self) -> u64 {
        if self.version() >= 3 { be_u64(self.raw(), 120).unwrap_or(0) } else { 0 }
    }

    fn version(&self) -> u8 {
        self.raw().get(4).copied().unwrap_or(0)
    }

    /// Whether file data lies in the realtime section.
    pub(super) fn is_realtime(&self) -> bool {
        be_u16(self.raw(), 90).unwrap_or(0) & FLAG_REALTIME != 0
    }

    /// The bytes of a fork; empty where there is none.
    pub(super) fn fork(&self, fork: Fork) -> &[u8] {
        let raw = self.raw();
        let area = raw.get(core_bytes(self.version())..).unwrap_or_default();
        let split = usize::from(raw.get(FORK_OFFSET).copied().unwrap_or(0)) * 8;
        match (fork, split) {
            (Fork::Data, 0) => area,
            (Fork::Attributes, 0) => &[],
            (Fork::Data, split) => area.get(..split).unwrap_or(area),
            (Fork::Attributes, split) => area.get(split..).unwrap_or_default(),
        }
    }

    /// How a fork holds its contents.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for what files and directories do not have.
    pub(super) fn format(&self, fork: Fork) -> Result<Format> {
        let at = match fork {
            Fork::Data => 5,
            Fork::Attributes => 83,
        };
        match self.raw().get(at) {
            Some(0) if fork == Fork::Data => Ok(Format::Device),
            Some(1) => Ok(Format::Local),
            Some(2) => Ok(Format::Extents),
            Some(3) => Ok(Format::Btree),
            other => Err(self.corrupt(format!("its fork has format {other:?}"))),
        }
    }

    /// Number of extents that a fork says it has.
    pub(super) fn extents(&self, fork: Fork) -> u64 {
        let raw = self.raw();
        let wide = self.flags2() & FLAG2_WIDE_COUNTS != 0;
        match (fork, wide) {
            (Fork::Data, true) => be_u64(raw, 24).unwrap_or(0),
            (Fork::Data, false) | (Fork::Attributes, true) => u64::from(be_u32(raw, 76).unwrap_or(0)),
            (Fork::Attributes, false) => u64::from(be_u16(raw, 80).unwrap_or(0)),
        }
    }

    fn time(&self, at: usize) -> Timestamp {
        timestamp(self.raw(), at, self.flags2() & FLAG2_BIGTIME != 0)
    }

    /// What `stat` tells.
    pub(super) fn metadata(&self) -> Metadata {
        let raw = self.raw();
        let word = |at| be_u32(raw, at).unwrap_or(0);
        let is_device = matches!(self.file_type, FileType::CharacterDevice | FileType::BlockDevice);
        // System V's encoding: 14 bits of major, 18 of minor.
        let device = is_device.then(|| be_u32(self.fork(Fork::Data), 0).unwrap_or(0));
        Metadata {
            node: NodeId(self.number),
            file_type: self.file_type,
            mode: be_u16(raw, 2).unwrap_or(0) & 0o7777,
            uid: word(8),
            gid: word(12),
            size: self.size,
            links: if self.version() == 1 { u32::from(be_u16(raw, 6).unwrap_or(0)) } else { word(16) },
            device: device.map(|device| (device >> 18 & 0x1ff, device & 0x3_ffff)),
            accessed: Some(self.time(32)),
            modified: self.time(40),
            changed: self.time(48),
            created: (self.version() >= 3).then(|| self.time(144)),
        }
    }
}

/// Bytes of the core of an inode of `version`; the forks follow.
pub(super) const fn core_bytes(version: u8) -> usize {
    if version >= 3 { 176 } else { 100 }
}

/// What must hold in an inode before any field of it is believed.
fn check(volume: &Volume, raw: &[u8], number: u64, at: u64) -> Result<()> {
    let geometry = &volume.geometry;
    let corrupt = |reason: &str| Err(Error::corrupt("xfs inode", at, format!("inode {number}: {reason}")));
    if !has(raw, 0, b"IN") {
        return corrupt("its magic number is missing");
    }
    match (raw.get(4), geometry.v5) {
        (Some(3), true) => volume.verify(raw, at, SEAL, number, false)?,
        (Some(1 | 2), false) => {}
        (other, _) => return corrupt(&format!("it has version {other:?}")),
    }
    let area = raw.len().saturating_sub(core_bytes(raw.get(4).copied().unwrap_or(0)));
    if usize::from(raw.get(FORK_OFFSET).copied().unwrap_or(0)) * 8 >= area {
        return corrupt("its attributes lie behind its end");
    }
    Ok(())
}

/// `xfs_timestamp_t`: two 32-bit numbers, or, with bigtime, nanoseconds since the earliest time the former could tell.
fn timestamp(raw: &[u8], at: usize, is_bigtime: bool) -> Timestamp {
    const NANOSECONDS: u64 = 1_000_000_000;
    let bits = be_u64(raw, at).unwrap_or(0);
    if is_bigtime {
        let seconds = i64::try_from(bits / NANOSECONDS).unwrap_or(i64::MAX).saturating_add(i64::from(i32::MIN));
        return Timestamp { seconds, nanoseconds: u32::try_from(bits % NANOSECONDS).unwrap_or(0) };
    }
    let seconds = i64::from((bits >> 32) as u32 as i32);
    Timestamp { seconds, nanoseconds: (bits as u32).min(999_999_999) }
}

/// The inodes of a chunk that was just allocated (`xfs_ialloc_inode_init`): not in use, and sealed. `blocks` from file
/// system block `first`, with generation number `generation`.
pub(super) fn fresh_chunk(geometry: &Geometry, first: u64, blocks: u64, generation: u32) -> Result<(u64, Vec<u8>)> {
    let at = geometry.byte_of_block(first, blocks)?;
    // The caller bounds `blocks` to a chunk.
    let mut bytes = vec![0; usize::try_from(blocks << geometry.block_log).unwrap_or(0)];
    let numbers = first << geometry.inodes_per_block_log..;
    for (raw, number) in bytes.chunks_exact_mut(geometry.inode_bytes as usize).zip(numbers) {
        put(raw, 0, b"IN");
        put(raw, 4, &[3]);
        put(raw, 92, &generation.to_be_bytes());
        put(raw, 96, &u32::MAX.to_be_bytes());
        put(raw, NUMBER, &number.to_be_bytes());
        put(raw, UUID, &geometry.metadata_uuid);
        seal(raw);
    }
    Ok((at / BASIC_BLOCK, bytes))
}

/// Puts the checksum of an inode right.
pub(super) fn seal(raw: &mut [u8]) {
    if let Some(checksum) = super::superblock::checksum(raw, CHECKSUM) {
        put(raw, CHECKSUM, &checksum.to_le_bytes());
    }
}

/// Copies `bytes` to `at` of `target`, as far as there is room.
pub(super) fn put(target: &mut [u8], at: usize, bytes: &[u8]) {
    for (target, source) in target.iter_mut().skip(at).zip(bytes) {
        *target = *source;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_forms() {
        let stamp = |bits: u64, big| timestamp(&bits.to_be_bytes(), 0, big);
        let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
        assert_eq!(stamp(5 << 32 | 7, false), time(5, 7));
        assert_eq!(stamp(0xffff_ffff << 32 | 999_999_999, false), time(-1, 999_999_999));
        assert_eq!(stamp(0, true), time(-(1 << 31), 0));
        // The last moment of the format, 2486-07-02.
        assert_eq!(stamp(u64::MAX, true), time(18_446_744_073 - (1 << 31), 709_551_615));
    }
}
