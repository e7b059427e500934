//! LZNT1, the compression of NTFS's compressed files (\[MS-XCA\], section 2.5).

/// A chunk decodes to at most so many bytes, and all but the last to just as many.
const CHUNK_BYTES: usize = 4096;
/// The header's bit for a chunk that is compressed.
const COMPRESSED: u16 = 0x8000;

/// Decodes `input` and fills `output`: with zeros past the end of what was compressed. `None` where `input` contradicts
/// the format or decodes to more.
pub(super) fn decode(input: &[u8], output: &mut [u8]) -> Option<()> {
    let mut rest = input;
    for chunk in output.chunks_mut(CHUNK_BYTES) {
        let header = rest.first_chunk::<2>().map_or(0, |header| u16::from_le_bytes(*header));
        // A header of zero, or none at all, ends the data.
        if header == 0 {
            chunk.fill(0);
            rest = &[];
            continue;
        }
        let length = usize::from(header & 0x0fff) + 1;
        let body;
        (body, rest) = rest.get(2..)?.split_at_checked(length)?;
        let written = if header & COMPRESSED != 0 {
            decode_chunk(body, chunk)?
        } else {
            chunk.get_mut(..length)?.copy_from_slice(body);
            length
        };
        chunk.get_mut(written..)?.fill(0);
    }
    Some(())
}

/// Decodes one chunk and gives the bytes written. Eight tokens follow each byte of flags: a byte as it is, or a distance
/// and a length that share 16 bits; the further the chunk has come, the more of them the distance takes.
fn decode_chunk(input: &[u8], output: &mut [u8]) -> Option<usize> {
    let mut rest = input;
    let mut at = 0;
    while let Some((&flags, after)) = rest.split_first() {
        rest = after;
        for bit in 0..8 {
            if rest.is_empty() {
                return Some(at);
            }
            if flags >> bit & 1 == 0 {
                let (&byte, after) = rest.split_first()?;
                *output.get_mut(at)? = byte;
                at += 1;
                rest = after;
                continue;
            }
            let (token, after) = rest.split_first_chunk::<2>()?;
            rest = after;
            let token = u16::from_le_bytes(*token);
            // Four bits of distance reach the first 16 bytes; each doubling takes one more.
            let distance_bits = at.checked_sub(1)?.checked_ilog2().map_or(4, |log| (log + 1).max(4));
            let length_bits = 16_u32.checked_sub(distance_bits)?;
            let distance = usize::from(token >> length_bits) + 1;
            let length = usize::from(token & ((1 << length_bits) - 1)) + 3;
            copy_back(output, at, distance, length)?;
            at += length;
        }
    }
    Some(at)
}

/// Repeats the `length` bytes that lie `distance` before `at`; where they overlap, what was just written is repeated.
pub(super) fn copy_back(output: &mut [u8], at: usize, distance: usize, length: usize) -> Option<()> {
    let from = at.checked_sub(distance)?;
    let end = at.checked_add(length)?;
    if end > output.len() || distance == 0 {
        return None;
    }
    if distance >= length {
        output.copy_within(from..from + length, at);
        return Some(());
    }
    let mut done = at;
    while done < end {
        // What lies between `from` and `done` is whole periods: twice as much each time.
        let count = (done - from).min(end - done);
        output.copy_within(from..from + count, done);
        done += count;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(input: &[u8], length: usize) -> Option<Vec<u8>> {
        let mut output = vec![0xee; length];
        decode(input, &mut output).map(|()| output)
    }

    /// The example of \[MS-XCA\], section 3.3.
    #[test]
    fn the_specifications_example_decodes() {
        let input = [
            0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2, 0x47, 0x01, 0xa0, 0x45,
            0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0, 0x45, 0x20, 0x05, 0x24, 0x13, 0x88, 0x05, 0xb4,
            0x02, 0x4a, 0x44, 0xef, 0x03, 0x58, 0x02, 0x8c, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00,
            0x04, 0x01, 0x18, 0x90, 0x00,
        ];
        let text = "F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# G F# \
                    E D E A F# F# G A A G F# E D D E F# E D D\0";
        let found = decoded(&input, text.len() + 10).unwrap();
        assert_eq!(String::from_utf8_lossy(&found[..text.len()]), text);
        assert_eq!(found[text.len()..], [0; 10], "what follows the end is zeros");
    }

    #[test]
    fn chunks_stand_for_themselves() {
        // A chunk as it is, then one of a repeated byte that fills 4096.
        let mut input = vec![0xff, 0x3f];
        input.extend((0..4096).map(|at| at as u8));
        // One literal, then a length of 4095 at distance 1: the twelve bits of length hold 4092.
        input.extend([0x03, 0xb0, 0x02, 0x41, 0xfc, 0x0f]);
        let found = decoded(&input, 8192).unwrap();
        assert!(found[..4096].iter().enumerate().all(|(at, byte)| *byte == at as u8));
        assert_eq!(found[4096..], [0x41; 4096]);
        assert_eq!(decoded(&[], 5000), Some(vec![0; 5000]));
    }

    #[test]
    fn what_reaches_outside_is_refused() {
        for input in [
            // A distance before the chunk, one token too short, a chunk longer than its data, more than a chunk holds.
            &[0x02, 0xb0, 0x01, 0x00, 0x00][..],
            &[0x03, 0xb0, 0x02, 0x41, 0x00, 0x20],
            &[0x01, 0xb0, 0x01, 0x00],
            &[0xff, 0xbf, 0x00],
            &[0x03, 0xb0, 0x02, 0x41, 0xff, 0x0f],
            &[0xff, 0x3f, 1, 2],
        ] {
            assert_eq!(decoded(input, 4096), None, "{input:x?}");
        }
    }
}
