//! Security descriptors that files share: the stream `$SDS` of the volume's file `$Secure`.
//!
//! Source: the Linux-NTFS project's `layout.h` (`SECURITY_DESCRIPTOR_HEADER`): entries of a hash, an identifier, their own
//! offset and length, then the descriptor, each at a multiple of 16. Every 256 KiB of them are followed by a copy.

use std::collections::HashMap;

use super::attribute::Stream;
use super::volume::Volume;
use crate::bytes::{le_u32, le_u64};
use crate::error::{Error, Result};

const BLOCK_BYTES: usize = 256 << 10;
const HEADER_BYTES: usize = 20;
/// Bytes of `$SDS`: volumes of servers have some megabytes.
const STREAM_BYTES_MAX: u64 = 32 << 20;
/// The longest descriptor: its two lists have 64 KiB each at most.
const DESCRIPTOR_BYTES_MAX: u32 = 256 << 10;

/// Where the descriptor of each identifier lies, and its length.
pub(super) type Places = HashMap<u32, (u64, u32)>;

/// The places of all descriptors. An entry that contradicts itself ends its block.
pub(super) fn places(volume: &Volume, stream: &Stream) -> Result<Places> {
    if stream.size > STREAM_BYTES_MAX {
        return Err(Error::corrupt("NTFS security descriptors", 0, "they are longer than any can be"));
    }
    let mut places = Places::new();
    let mut block = vec![0; BLOCK_BYTES];
    for start in (0..stream.size).step_by(2 * BLOCK_BYTES) {
        let count = volume.read(stream, u64::MAX, &mut block, start)?;
        entries(block.get(..count).unwrap_or_default(), start, &mut places);
    }
    Ok(places)
}

fn entries(block: &[u8], start: u64, places: &mut Places) {
    let mut at = 0;
    while let Some(header) = block.get(at..).filter(|rest| rest.len() >= HEADER_BYTES) {
        let (Some(id), Some(offset), Some(length)) = (le_u32(header, 4), le_u64(header, 8), le_u32(header, 16)) else {
            return;
        };
        let body = length.checked_sub(HEADER_BYTES as u32).filter(|body| *body <= DESCRIPTOR_BYTES_MAX);
        let Some(body) = body.filter(|_| offset == start.saturating_add(at as u64)) else { return };
        places.insert(id, (offset.saturating_add(HEADER_BYTES as u64), body));
        at = at.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)).next_multiple_of(16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_end_where_they_contradict_themselves() {
        let entry = |id: u32, offset: u64, length: u32| {
            let mut entry = [&[0; 4][..], &id.to_le_bytes(), &offset.to_le_bytes(), &length.to_le_bytes()].concat();
            entry.resize(usize::try_from(length.max(20)).unwrap().next_multiple_of(16), 0);
            entry
        };
        let mut places = Places::new();
        let block = [entry(256, 512, 30), entry(257, 544, 21), entry(258, 1, 30)].concat();
        entries(&block, 512, &mut places);
        assert_eq!(places, Places::from([(256, (532, 10)), (257, (564, 1))]));
        for (length, count) in [(0, 0), (19, 0), (20, 1)] {
            let mut places = Places::new();
            entries(&entry(256, 0, length), 0, &mut places);
            assert_eq!(places.len(), count, "{length}");
        }
    }
}
