//! One tiny trait between every two layers, and the few ways to stack it.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use crate::error::{Error, Result};

/// Bytes that can be read at any place, by any thread, and never written.
pub trait ReadAt: fmt::Debug + Send + Sync {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` with the bytes at `offset`.
    ///
    /// # Errors
    /// A range that leaves `0..len()` is [`crate::Error::Corrupt`]: some structure pointed there.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;
}

/// Shared bytes.
pub type Source = Arc<dyn ReadAt>;

impl ReadAt for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.as_slice().len() as u64, buffer.len(), offset)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(bytes) = start.checked_add(buffer.len()).and_then(|end| self.get(start..end)) {
            buffer.copy_from_slice(bytes);
        }
        Ok(())
    }
}

/// Fails unless `offset..offset + length` lies within `0..total`.
///
/// # Errors
/// [`Error::Corrupt`] saying which range left which length.
pub(crate) fn check_range(total: u64, length: usize, offset: u64) -> Result<()> {
    match offset.checked_add(length as u64) {
        Some(end) if end <= total => Ok(()),
        _ => Err(Error::corrupt("byte range", offset, format!("{length} bytes there leave the {total} there are"))),
    }
}

/// Reads up to `length` bytes at `offset`, fewer only where the source ends.
///
/// # Errors
/// Whatever the source gives.
pub(crate) fn read_up_to(source: &dyn ReadAt, offset: u64, length: usize) -> Result<Vec<u8>> {
    let available = source.len().saturating_sub(offset).min(length as u64);
    let mut buffer = vec![0; usize::try_from(available).unwrap_or(0)];
    if !buffer.is_empty() {
        source.read_exact_at(&mut buffer, offset)?;
    }
    Ok(buffer)
}

/// Bytes of a page of memory.
const PAGE_BYTES: usize = 4096;

/// A buffer for large reads that begins with a page. Allocators put what is large 16 bytes behind one, and there the
/// kernel of an AMD Zen 3 copies out of its page cache at a third of the speed.
#[derive(Debug)]
pub struct PageBuffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl PageBuffer {
    /// `length` bytes of zeros.
    #[must_use]
    pub fn new(length: usize) -> Self {
        let bytes = vec![0; length.saturating_add(PAGE_BYTES)];
        let start = bytes.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
        Self { bytes, start, length }
    }

    /// Its first `length` bytes; all of them where it has no more.
    pub fn first(&mut self, length: u64) -> &mut [u8] {
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(self.length);
        self.bytes.get_mut(self.start..self.start.saturating_add(length)).unwrap_or_default()
    }
}

/// A part of a source, such as a partition.
#[derive(Debug, Clone)]
pub struct Slice {
    source: Source,
    start: u64,
    length: u64,
}

impl Slice {
    /// The `length` bytes from `start`, cut where `source` ends.
    #[must_use]
    pub fn new(source: Source, start: u64, length: u64) -> Self {
        let length = length.min(source.len().saturating_sub(start));
        Self { source, start, length }
    }
}

impl ReadAt for Slice {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.length, buffer.len(), offset)?;
        self.source.read_exact_at(buffer, self.start.saturating_add(offset))
    }
}

/// A source as `Read + Seek`, for readers that want one. The typed error behind an `io::Error` is kept as its source.
#[derive(Debug, Clone)]
pub struct Cursor {
    source: Source,
    position: u64,
}

impl Cursor {
    /// A cursor at byte 0.
    #[must_use]
    pub const fn new(source: Source) -> Self {
        Self { source, position: 0 }
    }
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.source.len().saturating_sub(self.position).min(buffer.len() as u64);
        let length = usize::try_from(available).unwrap_or(0);
        if let Some(part) = buffer.get_mut(..length) {
            self.source.read_exact_at(part, self.position).map_err(io::Error::other)?;
        }
        self.position = self.position.saturating_add(available);
        Ok(length)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.source.len().checked_add_signed(by),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_ends_where_its_source_does_and_refuses_what_leaves_it() {
        let source: Source = Arc::new((0..100_u8).collect::<Vec<_>>());
        let slice = Slice::new(source, 90, 1000);
        assert_eq!(slice.len(), 10);
        let mut buffer = [0; 4];
        slice.read_exact_at(&mut buffer, 6).unwrap();
        assert_eq!(buffer, [96, 97, 98, 99]);
        assert!(matches!(slice.read_exact_at(&mut buffer, 7), Err(Error::Corrupt { .. })));
        assert!(matches!(slice.read_exact_at(&mut buffer, u64::MAX), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn a_page_buffer_begins_with_a_page_and_gives_what_it_has() {
        for length in [0, 1, PAGE_BYTES, (1 << 20) + 1] {
            let mut buffer = PageBuffer::new(length);
            assert_eq!(buffer.first(u64::MAX).len(), length);
            assert_eq!(buffer.first(u64::MAX).as_ptr().addr() % PAGE_BYTES, 0);
            assert_eq!(buffer.first(1).len(), length.min(1));
        }
    }

    #[test]
    fn a_cursor_reads_to_the_end_and_no_further() {
        let source: Source = Arc::new(b"hello world".to_vec());
        let mut cursor = Cursor::new(source);
        cursor.seek(SeekFrom::End(-5)).unwrap();
        let mut text = String::new();
        cursor.read_to_string(&mut text).unwrap();
        assert_eq!(text, "world");
        assert!(cursor.seek(SeekFrom::Start(0)).is_ok() && cursor.seek(SeekFrom::Current(-1)).is_err());
    }
}
