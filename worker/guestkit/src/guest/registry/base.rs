//! The base block: the first 4096 bytes of a hive, of which a transaction log keeps the first 512.

use crate::bytes::le_u32;
use crate::bytes::le_u64;
use crate::error::{Error, Result};
use crate::read_at::ReadAt;

/// Bytes of a base block that say something.
pub(super) const BYTES: usize = 512;

/// What is read of a base block. Source: specification, "Base block".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BaseBlock {
    pub(super) primary_sequence: u32,
    pub(super) secondary_sequence: u32,
    /// Last written, as a FILETIME.
    pub(super) written: u64,
    pub(super) major: u32,
    pub(super) minor: u32,
    /// 0: a hive; 1 and 2: an old log; 6: a new one.
    pub(super) file_type: u32,
    pub(super) root_cell: u32,
    /// Bytes of all bins.
    pub(super) bins_bytes: u32,
}

impl BaseBlock {
    /// The block in `bytes`; `None` where they are none, or their checksum differs.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (words, _) = bytes.get(..BYTES)?.as_chunks::<4>();
        let (stored, words) = words.split_last()?;
        let is_sound = bytes.starts_with(b"regf") && checksum(words) == u32::from_le_bytes(*stored);
        is_sound.then_some(Self {
            primary_sequence: le_u32(bytes, 4)?,
            secondary_sequence: le_u32(bytes, 8)?,
            written: le_u64(bytes, 12)?,
            major: le_u32(bytes, 20)?,
            minor: le_u32(bytes, 24)?,
            file_type: le_u32(bytes, 28)?,
            root_cell: le_u32(bytes, 36)?,
            bins_bytes: le_u32(bytes, 40)?,
        })
    }

    pub(super) const fn is_dirty(&self) -> bool {
        self.primary_sequence != self.secondary_sequence
    }

    pub(super) fn check_version(&self) -> Result<()> {
        match (self.major, self.minor) {
            (1, 2..=6) => Ok(()),
            (major, minor) => Err(Error::unsupported(format!("registry hive of version {major}.{minor}"))),
        }
    }
}

fn checksum(words: &[[u8; 4]]) -> u32 {
    match words.iter().fold(0, |sum, word| sum ^ u32::from_le_bytes(*word)) {
        0 => 1,
        u32::MAX => u32::MAX - 1,
        sum => sum,
    }
}

/// The base block of the hive in `source`; `None` where its checksum differs.
pub(super) fn read(source: &dyn ReadAt) -> Result<Option<BaseBlock>> {
    let mut bytes = [0; BYTES];
    if source.len() < super::BINS_START {
        return Err(Error::corrupt("registry hive", 0, format!("it has {} bytes", source.len())));
    }
    source.read_exact_at(&mut bytes, 0)?;
    if !bytes.starts_with(b"regf") {
        return Err(Error::corrupt("registry hive", 0, "it has no signature regf"));
    }
    Ok(BaseBlock::parse(&bytes))
}
