//! Files that the Windows Overlay Filter compresses (CompactOS, `compact /exe`): the contents lie in the stream
//! `WofCompressedData`, in chunks that are compressed one by one.
//!
//! The reparse point holds `WOF_EXTERNAL_INFO` and `FILE_PROVIDER_EXTERNAL_INFO` (Windows driver documentation); the
//! stream is that of a WIM resource (\[MS-WIM\]-like: a table of where each chunk but the first begins, then the chunks).

use super::lzx;
use super::xpress;
use crate::bytes::{array, le_u32};
use crate::error::{Error, Result};

/// The stream that holds what the unnamed one shows.
pub(super) const STREAM: &str = "WofCompressedData";
/// `WOF_PROVIDER_WIM` and `WOF_PROVIDER_FILE`.
const PROVIDER_WIM: u32 = 1;
const PROVIDER_FILE: u32 = 2;

/// How a file's chunks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wof {
    /// Bytes that a chunk decodes to, all but the last to just as many.
    pub(super) chunk_bytes: usize,
    decode: Decode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decode {
    Xpress,
    Lzx,
}

impl Wof {
    /// Parses the value of a reparse point of tag `IO_REPARSE_TAG_WOF`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for contents that lie in a WIM file, and for what is not known; [`Error::Corrupt`] for a
    /// value that is too short.
    pub(super) fn parse(value: &[u8], at: u64) -> Result<Self> {
        let field = |at_field| {
            le_u32(value, at_field).ok_or_else(|| Error::corrupt("NTFS reparse point", at, "it is too short for WOF"))
        };
        match (field(0)?, field(4)?) {
            (1, PROVIDER_FILE) => {}
            (1, PROVIDER_WIM) => return Err(Error::unsupported("a file whose contents lie in a WIM file (WOF)")),
            (version, provider) => {
                return Err(Error::unsupported(format!("WOF provider {provider} of version {version}")));
            }
        }
        let (chunk_bytes, decode) = match (field(8)?, field(12)?) {
            (1, 0) => (4 << 10, Decode::Xpress),
            (1, 1) => (lzx::CHUNK_BYTES, Decode::Lzx),
            (1, 2) => (8 << 10, Decode::Xpress),
            (1, 3) => (16 << 10, Decode::Xpress),
            (version, algorithm) => {
                return Err(Error::unsupported(format!("WOF compression {algorithm} of version {version}")));
            }
        };
        Ok(Self { chunk_bytes, decode })
    }

    /// Decodes one chunk into `output`, which has its whole length; one that would not become shorter is stored as it is.
    pub(super) fn decode(self, chunk: &[u8], output: &mut [u8]) -> Option<()> {
        if chunk.len() == output.len() {
            output.copy_from_slice(chunk);
            return Some(());
        }
        match self.decode {
            Decode::Xpress => xpress::decode(chunk, output),
            Decode::Lzx => lzx::decode(chunk, output),
        }
    }
}

/// Where the chunks of a file of so many bytes lie in its stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkTable {
    /// Chunks in all.
    pub(super) chunks: u64,
    /// Bytes of one entry: eight once the file is longer than 32 bits tell.
    entry_bytes: u64,
    stream_bytes: u64,
}

impl ChunkTable {
    pub(super) fn new(wof: Wof, file_bytes: u64, stream_bytes: u64) -> Self {
        let entry_bytes = if file_bytes > u64::from(u32::MAX) { 8 } else { 4 };
        Self { chunks: file_bytes.div_ceil(wof.chunk_bytes as u64), entry_bytes, stream_bytes }
    }

    fn bytes(self) -> u64 {
        self.chunks.saturating_sub(1).saturating_mul(self.entry_bytes)
    }

    /// Where in the stream the entries lie that bound the `count` chunks from `first`: offset and bytes.
    pub(super) fn entries(self, first: u64, count: u64) -> (u64, u64) {
        // Entry n is the start of chunk n + 1: the first chunk has none, and the last one no end.
        let from = first.saturating_sub(1);
        let to = first.saturating_add(count).min(self.chunks.saturating_sub(1));
        (from.saturating_mul(self.entry_bytes), to.saturating_sub(from).saturating_mul(self.entry_bytes))
    }

    /// The bounds of the `count` chunks from `first`, one more than there are chunks, as offsets in the stream; `entries`
    /// are the bytes that [`Self::entries`] asked for.
    ///
    /// # Errors
    /// [`Error::Corrupt`] unless they follow one another within the stream.
    pub(super) fn bounds(self, first: u64, count: u64, entries: &[u8]) -> Result<Vec<u64>> {
        let table = self.bytes();
        let mut bounds = Vec::new();
        if first == 0 {
            bounds.push(table);
        }
        for entry in entries.chunks_exact(usize::try_from(self.entry_bytes).unwrap_or(8)) {
            let offset = match array(entry, 0) {
                Some(wide) => u64::from_le_bytes(wide),
                None => u64::from(le_u32(entry, 0).unwrap_or(0)),
            };
            bounds.push(table.saturating_add(offset));
        }
        if first.saturating_add(count) >= self.chunks {
            bounds.push(self.stream_bytes);
        }
        let is_sound = bounds.len() as u64 == count.saturating_add(1)
            && bounds.is_sorted()
            && bounds.first().is_some_and(|start| *start >= table)
            && bounds.last().is_some_and(|end| *end <= self.stream_bytes);
        if !is_sound {
            return Err(Error::corrupt("WOF chunk table", 0, "its chunks do not follow one another within the stream"));
        }
        Ok(bounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(fields: &[u32]) -> Vec<u8> {
        fields.iter().flat_map(|field| field.to_le_bytes()).collect()
    }

    #[test]
    fn the_reparse_point_names_the_compression() {
        for (algorithm, chunk_bytes, decode) in
            [(0, 4096, Decode::Xpress), (1, 32768, Decode::Lzx), (2, 8192, Decode::Xpress), (3, 16384, Decode::Xpress)]
        {
            assert_eq!(Wof::parse(&value(&[1, 2, 1, algorithm]), 0).unwrap(), Wof { chunk_bytes, decode });
        }
        for fields in [[1, 2, 1, 4], [1, 1, 1, 0], [2, 2, 1, 0], [1, 2, 2, 0], [1, 3, 1, 0]] {
            assert!(matches!(Wof::parse(&value(&fields), 0), Err(Error::Unsupported { .. })), "{fields:?}");
        }
        assert!(matches!(Wof::parse(&value(&[1, 2, 1]), 0), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn chunks_lie_between_the_entries_of_the_table() {
        let wof = Wof { chunk_bytes: 4096, decode: Decode::Xpress };
        // Three chunks: two entries of four bytes.
        let table = ChunkTable::new(wof, 9000, 108);
        let entries = value(&[50, 60]);
        let read = |first, count| {
            let (at, length) = table.entries(first, count);
            table.bounds(first, count, &entries[at as usize..][..length as usize]).unwrap()
        };
        assert_eq!(read(0, 3), [8, 58, 68, 108]);
        assert_eq!(read(0, 1), [8, 58]);
        assert_eq!(read(1, 1), [58, 68]);
        assert_eq!(read(2, 1), [68, 108]);
        assert!(table.bounds(0, 3, &value(&[60, 50])).is_err());
        assert!(table.bounds(0, 3, &value(&[50, 200])).is_err());
        assert!(table.bounds(0, 3, &value(&[50])).is_err());
        // One chunk has no table; beyond 4 GiB entries are twice as long.
        let table = ChunkTable::new(wof, 4096, 77);
        assert_eq!((table.entries(0, 1), table.bounds(0, 1, &[]).unwrap()), ((0, 0), vec![0, 77]));
        let table = ChunkTable::new(wof, 1 << 32, 1 << 30);
        assert_eq!(table.entries(2, 1), (8, 16));
    }
}
