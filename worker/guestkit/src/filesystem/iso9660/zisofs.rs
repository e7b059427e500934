//! Contents compressed block by block (zisofs version 1, as mkzftree and the kernel's `fs/isofs/compress.c` know it): a
//! header, one pointer per block and one for the end, and each block a zlib stream. An empty block is one of zeros.

use flate2::{Decompress, FlushDecompress, Status};

use super::susp::Compressed;
use crate::bytes::{has, le_u32};
use crate::error::{Error, Result};

const MAGIC: [u8; 8] = [0x37, 0xe4, 0x53, 0x96, 0xc9, 0xdb, 0xd6, 0x07];
/// A file begins with so many bytes at least.
pub(super) const HEADER_BYTES: usize = 16;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    header_bytes: u64,
    pub(super) block_bytes: u64,
    pub(super) size: u64,
}

impl Layout {
    /// By the record's entry.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another algorithm, or blocks of a size that no writer makes.
    pub(super) fn new(entry: Compressed) -> Result<Self> {
        if entry.algorithm != *b"pz" {
            return Err(Error::unsupported(format!(
                "zisofs algorithm {:?}",
                String::from_utf8_lossy(&entry.algorithm)
            )));
        }
        if !(15..=17).contains(&entry.block_shift) {
            return Err(Error::unsupported(format!("zisofs blocks of 2^{} bytes", entry.block_shift)));
        }
        Ok(Self {
            header_bytes: u64::from(entry.header_bytes),
            block_bytes: 1 << entry.block_shift,
            size: u64::from(entry.size),
        })
    }

    /// Whether the file itself begins as its record says.
    pub(super) fn agrees_with(&self, header: &[u8]) -> bool {
        has(header, 0, &MAGIC)
            && le_u32(header, 8).map(u64::from) == Some(self.size)
            && header.get(12).map(|words| u64::from(*words) * 4) == Some(self.header_bytes)
            && header.get(13).and_then(|shift| 1_u64.checked_shl(u32::from(*shift))) == Some(self.block_bytes)
    }

    /// Where the two pointers lie between which block `index` is.
    pub(super) const fn pointers_at(&self, index: u64) -> u64 {
        self.header_bytes + index * 4
    }

    /// Bytes of block `index` when it is unpacked.
    pub(super) fn block_length(&self, index: u64) -> u64 {
        self.size.saturating_sub(index.saturating_mul(self.block_bytes)).min(self.block_bytes)
    }

    /// Where a packed block lies in the file, and its length. zlib never makes a block much larger.
    pub(super) fn packed(&self, pointers: &[u8]) -> Result<(u64, u64)> {
        let (start, end) = le_u32(pointers, 0).zip(le_u32(pointers, 4)).unwrap_or((0, 0));
        let length = u64::from(end).checked_sub(u64::from(start)).filter(|length| *length <= 2 * self.block_bytes);
        let wrong = || Error::corrupt("zisofs block pointer", u64::from(start), format!("a block goes on to {end}"));
        Ok((u64::from(start), length.ok_or_else(wrong)?))
    }
}

/// Unpacks a block into exactly `length` bytes.
pub(super) fn unpack(packed: &[u8], length: usize) -> Result<Vec<u8>> {
    let mut block = vec![0; length];
    if packed.is_empty() {
        return Ok(block);
    }
    let mut stream = Decompress::new(true);
    let status = stream.decompress(packed, &mut block, FlushDecompress::Finish);
    match status {
        Ok(Status::StreamEnd) if stream.total_out() == length as u64 => Ok(block),
        _ => Err(Error::corrupt("zisofs block", 0, format!("it does not unpack into {length} bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_unpacks_into_what_it_must_or_not_at_all() {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, &[7; 1000]).unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(unpack(&packed, 1000).unwrap(), [7; 1000]);
        assert_eq!(unpack(&[], 3).unwrap(), [0; 3]);
        assert!(unpack(&packed, 999).is_err());
        assert!(unpack(&packed, 1001).is_err());
        assert!(unpack(&packed[..packed.len() - 1], 1000).is_err());
    }

    #[test]
    fn other_algorithms_are_refused() {
        let entry = Compressed { algorithm: *b"pz", header_bytes: 16, block_shift: 15, size: 40_000 };
        let layout = Layout::new(entry).unwrap();
        assert_eq!((layout.block_length(0), layout.block_length(1), layout.block_length(2)), (32768, 7232, 0));
        assert!(matches!(Layout::new(Compressed { algorithm: *b"PZ", ..entry }), Err(Error::Unsupported { .. })));
        assert!(matches!(Layout::new(Compressed { block_shift: 40, ..entry }), Err(Error::Unsupported { .. })));
        assert!(layout.packed(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(layout.packed(&[9, 0, 0, 0, 8, 0, 0, 0]).is_err());
    }
}
