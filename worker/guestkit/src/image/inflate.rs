//! Deflate streams of clusters and grains, unpacked whole into a buffer that is there already.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use flate2::{Decompress, FlushDecompress, Status};

/// What unpacking one stream gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Bytes written.
    pub(crate) length: usize,
    /// Whether the stream ended there; otherwise it holds more, or was cut.
    pub(crate) ended: bool,
}

/// Unpacks streams of one kind, by any number of threads. The state of a decoder (some 40 KiB) is made once per thread
/// that is unpacking at the same time, not once per stream.
pub(crate) struct Inflate {
    zlib: bool,
    idle: Mutex<Vec<Decompress>>,
}

impl Inflate {
    /// For streams of RFC 1950, with header and checksum.
    pub(crate) const fn zlib() -> Self {
        Self { zlib: true, idle: Mutex::new(Vec::new()) }
    }

    /// For streams of RFC 1951, bare.
    pub(crate) const fn raw() -> Self {
        Self { zlib: false, idle: Mutex::new(Vec::new()) }
    }

    /// Unpacks the stream at the start of `packed` into `buffer`.
    ///
    /// # Errors
    /// What is wrong with the stream, as a lower-case fragment.
    pub(crate) fn unpack(&self, packed: &[u8], buffer: &mut [u8]) -> Result<Unpacked, String> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut stream = idle.unwrap_or_else(|| Decompress::new(self.zlib));
        stream.reset(self.zlib);
        let status = stream.decompress(packed, buffer, FlushDecompress::Finish).map_err(|error| error.to_string())?;
        let length = usize::try_from(stream.total_out()).unwrap_or(usize::MAX);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        Ok(Unpacked { length, ended: status == Status::StreamEnd })
    }
}

impl fmt::Debug for Inflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflate").field("zlib", &self.zlib).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_decoder_is_used_again_after_a_good_and_after_a_bad_stream() {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&[7; 1000]).unwrap();
        let packed = encoder.finish().unwrap();
        let inflate = Inflate::zlib();
        for _ in 0..3 {
            let mut buffer = [0; 1000];
            assert_eq!(inflate.unpack(&packed, &mut buffer), Ok(Unpacked { length: 1000, ended: true }));
            assert_eq!(buffer, [7; 1000]);
            assert!(inflate.unpack(b"no stream", &mut buffer).is_err());
            let cut = inflate.unpack(&packed[..packed.len() - 6], &mut buffer).unwrap();
            assert!(!cut.ended, "{cut:?}");
            let small = inflate.unpack(&packed, &mut buffer[..10]).unwrap();
            assert_eq!(small, Unpacked { length: 10, ended: false });
        }
    }
}
