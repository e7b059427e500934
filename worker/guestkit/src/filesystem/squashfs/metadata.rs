//! Metadata of squashfs: tables of blocks of 8 KiB each, packed one by one, in which numbers and names lie across blocks.

use std::sync::Arc;

use super::super::held::Held;
use super::codec::Codec;
use crate::bytes::{le_u16, le_u64};
use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::read_at::{Source, read_up_to};

/// Bytes of an unpacked block.
pub(super) const BLOCK_BYTES: usize = 8192;
/// Bytes of unpacked blocks held.
const BYTES_HELD: usize = 8 << 20;
/// The bit of a block's length that says that it is not packed.
const STORED: u16 = 1 << 15;

/// The metadata blocks of a file system, by where they lie.
#[derive(Debug)]
pub(super) struct Metadata {
    source: Source,
    codec: Codec,
    budget: Arc<Budget>,
    blocks: Held<Block>,
}

#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    /// Where the next one lies.
    next: u64,
}

impl Metadata {
    pub(super) fn new(source: Source, codec: Codec, budget: Arc<Budget>) -> Self {
        Self { source, codec, budget, blocks: Held::new(BYTES_HELD) }
    }

    pub(super) const fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn block(&self, at: u64) -> Result<Arc<Block>> {
        if let Some(block) = self.blocks.get(at) {
            return Ok(block);
        }
        self.budget.check_time()?;
        let wrong = |reason: String| Error::corrupt("squashfs metadata block", at, reason);
        let head = read_up_to(&*self.source, at, 2)?;
        let head = le_u16(&head, 0).ok_or_else(|| wrong("it lies behind the end".into()))?;
        let length = usize::from(head & !STORED);
        if length == 0 || length > BLOCK_BYTES {
            return Err(wrong(format!("it has {length} bytes")));
        }
        let mut packed = vec![0; length];
        self.source.read_exact_at(&mut packed, at.saturating_add(2))?;
        let bytes = if head & STORED != 0 {
            packed
        } else {
            let mut bytes = vec![0; BLOCK_BYTES];
            let count = self.codec.unpack(&packed, &mut bytes).ok_or_else(|| wrong("it does not unpack".into()))?;
            bytes.truncate(count);
            bytes
        };
        let block = Arc::new(Block { bytes, next: at.saturating_add(2 + length as u64) });
        self.blocks.insert(at, &block, block.bytes.len());
        Ok(block)
    }

    /// A reader from byte `offset` of the block at `at` on.
    pub(super) const fn reader(&self, at: u64, offset: usize) -> Reader<'_> {
        Reader { metadata: self, block: None, at, offset }
    }

    /// A reader from entry `index` on, of entries of `entry_bytes` in blocks whose places are listed at `pointers`.
    ///
    /// # Errors
    /// I/O, limits.
    pub(super) fn indexed(&self, pointers: u64, index: u64, entry_bytes: usize) -> Result<Reader<'_>> {
        let per_block = (BLOCK_BYTES / entry_bytes) as u64;
        let at = pointers.saturating_add(index / per_block * 8);
        let mut pointer = [0; 8];
        self.source.read_exact_at(&mut pointer, at)?;
        let offset = usize::try_from(index % per_block).unwrap_or(0) * entry_bytes;
        Ok(self.reader(le_u64(&pointer, 0).unwrap_or(u64::MAX), offset))
    }
}

/// A place in a table, read on from block to block.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    metadata: &'a Metadata,
    block: Option<Arc<Block>>,
    at: u64,
    offset: usize,
}

impl Reader<'_> {
    /// Where it stands: a block, and a byte of that.
    pub(super) const fn position(&self) -> (u64, usize) {
        (self.at, self.offset)
    }

    /// Fills `buffer` with what follows.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where a block is broken or empty.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let block = match &self.block {
                Some(block) => Arc::clone(block),
                None => self.metadata.block(self.at)?,
            };
            let available = block.bytes.get(self.offset..).unwrap_or_default();
            if available.is_empty() {
                if self.offset > block.bytes.len() || block.bytes.is_empty() {
                    let reason = format!("byte {} of {} is asked for", self.offset, block.bytes.len());
                    return Err(Error::corrupt("squashfs metadata block", self.at, reason));
                }
                (self.at, self.offset, self.block) = (block.next, 0, None);
                continue;
            }
            let count = available.len().min(rest.len());
            if let (Some(to), Some(from)) = (rest.get_mut(..count), available.get(..count)) {
                to.copy_from_slice(from);
            }
            self.offset += count;
            done += count;
            self.block = Some(block);
        }
        Ok(())
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// The next `length` bytes, whose number an image chose.
    ///
    /// # Errors
    /// As [`Reader::read`]; limits.
    pub(super) fn bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        let mut bytes = self.metadata.budget.allocate(length)?;
        self.read(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn metadata(source: Vec<u8>) -> Metadata {
        Metadata::new(Arc::new(source), Codec::Gzip, Budget::new(&Limits::default()))
    }

    #[test]
    fn a_reader_goes_across_blocks_and_stops_at_broken_ones() {
        let metadata = metadata(b"\x03\x80abc\x02\x80de\x00\x80".to_vec());
        let mut reader = metadata.reader(0, 1);
        assert_eq!(&reader.array::<4>().unwrap(), b"bcde");
        assert_eq!(reader.position(), (5, 2));
        assert!(matches!(reader.array::<1>(), Err(Error::Corrupt { .. })), "an empty block");
        assert!(matches!(metadata.reader(0, 4).array::<1>(), Err(Error::Corrupt { .. })), "behind its end");
        assert!(matches!(metadata.reader(100, 0).array::<1>(), Err(Error::Corrupt { .. })));
        assert!(metadata.reader(0, 0).bytes(u64::MAX).is_err());
    }
}
