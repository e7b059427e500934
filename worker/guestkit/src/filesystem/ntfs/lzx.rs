//! LZX as WIM files and WOF use it (\[MS-PATCH\] section 2 describes the format, wimlib's documentation what differs):
//! each chunk stands for itself, a bit says whether a block has the usual size, and calls in x86 code are always undone.

use super::bits::{Bits, Huffman};
use super::lznt1::copy_back;

/// Bytes of a chunk, of the window, and of a block of the usual size.
pub(super) const CHUNK_BYTES: usize = 32 << 10;
/// Position slots of a window of 32 KiB.
const SLOTS: usize = 30;
/// Symbols: 256 bytes, then eight lengths of a repetition for each slot of its position.
const MAIN_SYMBOLS: usize = 256 + 8 * SLOTS;
const LENGTH_SYMBOLS: usize = 249;
const PRETREE_SYMBOLS: usize = 20;
const ALIGNED_SYMBOLS: usize = 8;
/// The size of the file that calls are translated for; WIM fixed it.
const CALLS_FILE_BYTES: i32 = 12_000_000;

/// Lengths of the codes, which each block gives as differences to the block before.
struct Lengths {
    main: [u8; MAIN_SYMBOLS],
    length: [u8; LENGTH_SYMBOLS],
}

/// Decodes `input` and fills `output`, at most [`CHUNK_BYTES`]; `None` where `input` contradicts the format.
pub(super) fn decode(input: &[u8], output: &mut [u8]) -> Option<()> {
    let mut bits = Bits::new(input);
    let mut lengths = Lengths { main: [0; MAIN_SYMBOLS], length: [0; LENGTH_SYMBOLS] };
    let mut recent = [1_usize; 3];
    let mut at = 0;
    while at < output.len() {
        let kind = bits.take(3);
        let size = if bits.take(1) == 1 { CHUNK_BYTES } else { bits.take(16) as usize };
        let end = at.checked_add(size).filter(|end| *end <= output.len() && size > 0)?;
        match kind {
            1 | 2 => {
                let codes = Codes::read(&mut bits, &mut lengths, kind == 2)?;
                at = decode_block(&codes, &mut bits, output, at, end, &mut recent)?;
            }
            3 => {
                bits.align();
                for distance in &mut recent {
                    *distance = usize::try_from(u32::from_le_bytes(bits.bytes()?)).ok()?;
                }
                output.get_mut(at..end)?.copy_from_slice(bits.slice(size)?);
                // Words go on at even places.
                if size % 2 == 1 && end < output.len() {
                    bits.bytes::<1>()?;
                }
                at = end;
            }
            _ => return None,
        }
    }
    undo_calls(output);
    Some(())
}

struct Codes {
    main: Huffman,
    length: Huffman,
    aligned: Option<Huffman>,
}

impl Codes {
    fn read(bits: &mut Bits<'_>, lengths: &mut Lengths, is_aligned: bool) -> Option<Self> {
        let mut aligned = None;
        if is_aligned {
            let mut lengths = [0; ALIGNED_SYMBOLS];
            for length in &mut lengths {
                *length = u8::try_from(bits.take(3)).ok()?;
            }
            aligned = Some(Huffman::new(&lengths)?);
        }
        let (bytes, repetitions) = lengths.main.split_at_mut_checked(256)?;
        read_lengths(bits, bytes)?;
        read_lengths(bits, repetitions)?;
        read_lengths(bits, &mut lengths.length)?;
        Some(Self { main: Huffman::new(&lengths.main)?, length: Huffman::new(&lengths.length)?, aligned })
    }
}

/// Lengths of a code, themselves coded: differences modulo 17 to the ones before, runs of zeros, and runs of one length.
fn read_lengths(bits: &mut Bits<'_>, lengths: &mut [u8]) -> Option<()> {
    let mut pretree = [0; PRETREE_SYMBOLS];
    for length in &mut pretree {
        *length = u8::try_from(bits.take(4)).ok()?;
    }
    let pretree = Huffman::new(&pretree)?;
    let less = |before: u8, by: u16| u8::try_from((u16::from(before) + 17).checked_sub(by)? % 17).ok();
    let mut at = 0;
    while at < lengths.len() {
        let (value, count) = match pretree.symbol(bits)? {
            17 => (0, 4 + bits.take(4)),
            18 => (0, 20 + bits.take(5)),
            19 => {
                let count = 4 + bits.take(1);
                let by = pretree.symbol(bits).filter(|by| *by < 17)?;
                (less(*lengths.get(at)?, by)?, count)
            }
            by => (less(*lengths.get(at)?, by)?, 1),
        };
        let count = usize::try_from(count).ok()?;
        lengths.get_mut(at..at.checked_add(count)?)?.fill(value);
        at += count;
        if bits.is_exhausted() {
            return None;
        }
    }
    Some(())
}

fn decode_block(
    codes: &Codes,
    bits: &mut Bits<'_>,
    output: &mut [u8],
    mut at: usize,
    end: usize,
    recent: &mut [usize; 3],
) -> Option<usize> {
    while at < end {
        let symbol = codes.main.symbol(bits)?;
        if let Ok(byte) = u8::try_from(symbol) {
            *output.get_mut(at)? = byte;
            at += 1;
        } else {
            let (slot, length) = (u32::from(symbol - 256) >> 3, usize::from(symbol & 7));
            let length = match length {
                7 => usize::from(codes.length.symbol(bits)?) + 7,
                short => short,
            };
            let length = length + 2;
            let distance = match slot {
                // One of the last three distances, which becomes the last one.
                0..=2 => {
                    recent.swap(0, slot as usize);
                    recent[0]
                }
                _ => {
                    let distance = far_distance(codes, bits, slot)?;
                    *recent = [distance, recent[0], recent[1]];
                    distance
                }
            };
            // A repetition stays within its block.
            if length > end - at {
                return None;
            }
            copy_back(output, at, distance, length)?;
            at += length;
        }
        if bits.is_exhausted() {
            return None;
        }
    }
    Some(at)
}

/// Each two slots have one more bit of offset than the two before; of an aligned block's, the last three are coded.
fn far_distance(codes: &Codes, bits: &mut Bits<'_>, slot: u32) -> Option<usize> {
    let offset_bits = (slot / 2).saturating_sub(1);
    let base = if slot < 4 { slot } else { (2 | slot & 1) << offset_bits };
    let offset = match &codes.aligned {
        Some(aligned) if offset_bits >= 3 => {
            let high = bits.take(offset_bits - 3) << 3;
            high | u32::from(aligned.symbol(bits)?)
        }
        _ => bits.take(offset_bits),
    };
    usize::try_from((base + offset).checked_sub(2)?).ok()
}

/// The encoder makes the targets of x86 calls (0xe8) absolute, so that they repeat; this makes them relative again.
fn undo_calls(output: &mut [u8]) {
    let last = output.len().saturating_sub(10);
    let mut at = 0;
    while let Some(found) = output.get(at..last).and_then(|rest| rest.iter().position(|byte| *byte == 0xe8)) {
        let position = at + found;
        at = position + 5;
        let Some(target) = output.get_mut(position + 1..).and_then(|rest| rest.first_chunk_mut::<4>()) else { return };
        let here = i32::try_from(position).unwrap_or(i32::MAX);
        let absolute = i32::from_le_bytes(*target);
        if (0..CALLS_FILE_BYTES).contains(&absolute) {
            *target = absolute.wrapping_sub(here).to_le_bytes();
        } else if (here.wrapping_neg()..0).contains(&absolute) {
            *target = absolute.wrapping_add(CALLS_FILE_BYTES).to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_as_it_is_carries_its_distances_and_bytes() {
        // Kind 3, a size of 5: 011 0 0000000000000101, aligned to a word; three distances; bytes, one more to be even.
        let mut input = vec![0x00, 0x60, 0x00, 0x50];
        input.extend([1_u32, 1, 1].iter().flat_map(|distance| distance.to_le_bytes()));
        input.extend(b"hello");
        let mut output = [0; 5];
        decode(&input, &mut output).unwrap();
        assert_eq!(&output, b"hello");
        for length in 0..input.len() {
            assert!(decode(&input[..length], &mut [0; 5]).is_none());
        }
        assert!(decode(&input, &mut [0; 4]).is_none(), "a block larger than what is left");
    }

    #[test]
    fn calls_become_relative_again() {
        let mut code = [0_u8; 32];
        code[8] = 0xe8;
        code[9..13].copy_from_slice(&1000_i32.to_le_bytes());
        code[14] = 0xe8;
        code[15..19].copy_from_slice(&(-5_i32).to_le_bytes());
        code[23] = 0xe8;
        let before = code;
        undo_calls(&mut code);
        assert_eq!(code[9..13], 992_i32.to_le_bytes());
        assert_eq!(code[15..19], (CALLS_FILE_BYTES - 5).to_le_bytes());
        assert_eq!(code[19..], before[19..], "within the last ten bytes nothing is a call");
        undo_calls(&mut code[..4]);
    }
}
