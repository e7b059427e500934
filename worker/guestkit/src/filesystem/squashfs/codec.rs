//! The compressions of squashfs, each a format of its own without a frame of squashfs around it.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};

use flate2::{Decompress, FlushDecompress, Status};

/// Memory that one stream may ask for: dictionaries are at most as large as a block, which is 1 MiB.
const MEMORY_KIB_MAX: u32 = 32 << 10;
const WINDOW_BYTES_MAX: u64 = 8 << 20;

/// How blocks are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    /// A zlib stream.
    Gzip,
    /// An `.lzma` file.
    Lzma,
    /// A block of LZO1X.
    Lzo,
    /// An `.xz` file.
    Xz,
    /// A block of LZ4.
    Lz4,
    /// A frame of Zstandard.
    Zstd,
}

impl Codec {
    /// By its number in the superblock.
    pub(super) const fn of_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Gzip,
            2 => Self::Lzma,
            3 => Self::Lzo,
            4 => Self::Xz,
            5 => Self::Lz4,
            6 => Self::Zstd,
            _ => return None,
        })
    }

    /// Unpacks `packed` into the beginning of `buffer`, and gives how many bytes that made; `None` where the stream is
    /// broken or makes more than fits.
    pub(super) fn unpack(self, packed: &[u8], buffer: &mut [u8]) -> Option<usize> {
        // Decoders meet hostile bytes here; one that panics has found them broken.
        catch_unwind(AssertUnwindSafe(|| self.decode(packed, buffer))).ok().flatten()
    }

    fn decode(self, packed: &[u8], buffer: &mut [u8]) -> Option<usize> {
        match self {
            Self::Gzip => {
                let mut stream = Decompress::new(true);
                match stream.decompress(packed, buffer, FlushDecompress::Finish) {
                    Ok(Status::StreamEnd) => usize::try_from(stream.total_out()).ok(),
                    _ => None,
                }
            }
            Self::Lzma => {
                read_to_end(lzma_rust2::LzmaReader::new_mem_limit(packed, MEMORY_KIB_MAX, None).ok()?, buffer)
            }
            Self::Xz => read_to_end(lzma_rust2::XzReader::new_mem_limit(packed, false, MEMORY_KIB_MAX), buffer),
            Self::Lzo => lzokay::decompress::decompress(packed, buffer).ok(),
            Self::Lz4 => lz4_flex::block::decompress_into(packed, buffer).ok(),
            Self::Zstd => {
                let mut decoder = ruzstd::decoding::FrameDecoder::new();
                decoder.set_max_window_size(WINDOW_BYTES_MAX);
                decoder.decode_all(packed, buffer).ok()
            }
        }
    }
}

/// Reads a stream to its end, which must lie within `buffer`.
fn read_to_end(mut stream: impl Read, buffer: &mut [u8]) -> Option<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest).ok()? {
            0 => return Some(done),
            count => done += count,
        }
    }
    (stream.read(&mut [0]).ok()? == 0).then_some(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_does_not_fit_is_refused() {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, &[7; 1000]).unwrap();
        let zlib = encoder.finish().unwrap();
        let lz4 = lz4_flex::block::compress(&[7; 1000]);
        let zstd = ruzstd::encoding::compress_to_vec([7; 1000].as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
        for (codec, packed) in [(Codec::Gzip, zlib), (Codec::Lz4, lz4), (Codec::Zstd, zstd)] {
            let mut buffer = [0; 1001];
            assert_eq!(codec.unpack(&packed, &mut buffer), Some(1000), "{codec:?}");
            assert_eq!(buffer[..1000], [7; 1000], "{codec:?}");
            assert_eq!(codec.unpack(&packed, &mut buffer[..1000]), Some(1000), "{codec:?}");
            assert_eq!(codec.unpack(&packed, &mut buffer[..999]), None, "{codec:?}");
            assert_eq!(codec.unpack(&packed[..packed.len() / 2], &mut buffer), None, "{codec:?}");
        }
    }

    #[test]
    fn noise_is_refused_by_every_codec() {
        let noise: Vec<u8> = (0..4000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for number in 1..=6 {
            let codec = Codec::of_number(number).unwrap();
            // Chance may make a block of LZ4 or LZO end well; it then says how far it went.
            if let Some(count) = codec.unpack(&noise, &mut [0; 8192]) {
                assert!(count <= 8192, "{codec:?}");
            }
            assert_eq!(codec.unpack(&[], &mut [0; 8192]).unwrap_or(0), 0, "{codec:?}");
        }
        assert_eq!(Codec::of_number(7), None);
    }
}
