//! The three compressions of extents ("Btrfs: Compression" and `btrfs_file_extent_item`).

use std::io::Read as _;

use crate::bytes::{le_u32, slice};
use crate::error::{Error, Result};

/// Windows of zstd: Linux compresses with 128 KiB (`ZSTD_BTRFS_MAX_WINDOWLOG`) and never decodes an extent with more.
const WINDOW_MAX: u64 = 8 << 20;

/// Decodes `stored` into `decoded`, and gives the number of bytes that came out: extents whose file ended within them
/// decode to fewer than their item says.
///
/// # Errors
/// [`Error::Corrupt`] where the stream is broken; [`Error::Unsupported`] for an unknown method.
pub(super) fn decompress(method: u8, stored: &[u8], decoded: &mut [u8], sector_bytes: u32, at: u64) -> Result<usize> {
    match method {
        1 => zlib(stored, decoded, at),
        2 => lzo(stored, decoded, usize::try_from(sector_bytes).unwrap_or(4096))
            .ok_or_else(|| Error::corrupt("btrfs extent", at, "its lzo stream is broken")),
        3 => zstd(stored, decoded, at),
        other => Err(Error::unsupported(format!("btrfs compression {other}"))),
    }
}

fn zlib(stored: &[u8], decoded: &mut [u8], at: u64) -> Result<usize> {
    let broken = |why: String| Error::corrupt("btrfs extent", at, format!("its zlib stream is broken: {why}"));
    let mut decoder = flate2::Decompress::new(true);
    let status = decoder
        .decompress(stored, decoded, flate2::FlushDecompress::Finish)
        .map_err(|error| broken(error.to_string()))?;
    let count = usize::try_from(decoder.total_out()).unwrap_or(0);
    // What fills the extent is whole, though its trailer was not asked for.
    if status != flate2::Status::StreamEnd && count < decoded.len() {
        return Err(broken("it is cut off".into()));
    }
    Ok(count)
}

fn zstd(stored: &[u8], decoded: &mut [u8], at: u64) -> Result<usize> {
    let broken =
        |why: &dyn std::fmt::Display| Error::corrupt("btrfs extent", at, format!("its zstd stream is broken: {why}"));
    let mut frame = ruzstd::decoding::FrameDecoder::new();
    frame.set_max_window_size(WINDOW_MAX);
    let mut decoder =
        ruzstd::decoding::StreamingDecoder::new_with_decoder(stored, frame).map_err(|error| broken(&error))?;
    let mut count = 0;
    while let Some(rest) = decoded.get_mut(count..).filter(|rest| !rest.is_empty()) {
        match decoder.read(rest).map_err(|error| broken(&error))? {
            0 => break,
            read => count = count.saturating_add(read),
        }
    }
    Ok(count)
}

/// The length of the whole, then segments, each behind its own length and decoding to one sector; no length crosses the
/// boundary of a sector.
fn lzo(stored: &[u8], decoded: &mut [u8], sector_bytes: usize) -> Option<usize> {
    let total = usize::try_from(le_u32(stored, 0)?).ok()?;
    let stored = stored.get(..total)?;
    let (mut at, mut count) = (4_usize, 0_usize);
    while at < stored.len() && count < decoded.len() {
        let left = sector_bytes.checked_sub(at.checked_rem(sector_bytes)?)?;
        if left < 4 {
            at = at.checked_add(left)?;
            if at >= stored.len() {
                break;
            }
        }
        let length = usize::try_from(le_u32(stored, at)?).ok()?;
        let segment = slice(stored, at.checked_add(4)?, length)?;
        let mut sector = vec![0; sector_bytes];
        let decoded_bytes = lzokay::decompress::decompress(segment, &mut sector).ok()?;
        let room = decoded.get_mut(count..)?;
        let fitting = decoded_bytes.min(room.len());
        room.get_mut(..fitting)?.copy_from_slice(sector.get(..fitting)?);
        count = count.checked_add(fitting)?;
        at = at.checked_add(4)?.checked_add(length)?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_stream_may_end_before_its_extent_but_not_within_itself() {
        let text: Vec<u8> = (0..9000_u32).map(|at| (at % 90) as u8).collect();
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&text).unwrap();
        let mut stored = encoder.finish().unwrap();
        let whole = stored.len();
        stored.resize(4096, 0);
        let mut decoded = vec![0; 12288];
        assert_eq!(decompress(1, &stored, &mut decoded, 4096, 0).unwrap(), 9000);
        assert_eq!(decoded[..9000], text);
        assert_eq!(decompress(1, &stored, &mut decoded[..5000], 4096, 0).unwrap(), 5000);
        assert!(decompress(1, &stored[..whole / 2], &mut decoded, 4096, 0).is_err());
    }

    #[test]
    fn broken_streams_end_in_an_answer() {
        let mut decoded = vec![0; 4096];
        for method in 1..=4 {
            for length in 0..64 {
                let _ = decompress(method, &vec![0x5a; length], &mut decoded, 4096, 0);
                let _ = decompress(method, &vec![0; length], &mut decoded, 4096, 0);
            }
        }
    }
}
