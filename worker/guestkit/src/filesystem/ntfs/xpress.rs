//! XPRESS with Huffman codes: LZ77+Huffman of \[MS-XCA\], section 2.2.

use super::bits::{Bits, Huffman};
use super::lznt1::copy_back;

/// Symbols: 256 bytes, then 16 lengths of a repetition for each of 16 lengths of its distance.
const SYMBOLS: usize = 512;

/// Decodes `input` and fills `output`; `None` where `input` contradicts the format.
pub(super) fn decode(input: &[u8], output: &mut [u8]) -> Option<()> {
    let (table, text) = input.split_at_checked(SYMBOLS / 2)?;
    let mut lengths = [0; SYMBOLS];
    for (pair, both) in lengths.as_chunks_mut::<2>().0.iter_mut().zip(table) {
        *pair = [both & 15, both >> 4];
    }
    let code = Huffman::new(&lengths)?;
    let mut bits = Bits::new(text);
    let mut at = 0;
    while at < output.len() {
        let symbol = code.symbol(&mut bits)?;
        if let Ok(byte) = u8::try_from(symbol) {
            *output.get_mut(at)? = byte;
            at += 1;
        } else {
            let (distance_bits, length) = (u32::from(symbol - 256) >> 4, usize::from(symbol & 15));
            bits.ensure_word();
            let distance = (1 << distance_bits) | bits.take(distance_bits);
            let length = match length {
                15 => long_length(&mut bits)?,
                short => short,
            };
            let length = length.checked_add(3)?;
            copy_back(output, at, usize::try_from(distance).ok()?, length)?;
            at += length;
        }
        if bits.is_exhausted() {
            return None;
        }
    }
    Some(())
}

/// Lengths from 15 up follow as whole bytes: one, or two after 255, or four after two zeros.
fn long_length(bits: &mut Bits<'_>) -> Option<usize> {
    let [byte] = bits.bytes()?;
    if byte < 255 {
        return Some(usize::from(byte) + 15);
    }
    let long = match u16::from_le_bytes(bits.bytes()?) {
        0 => usize::try_from(u32::from_le_bytes(bits.bytes()?)).ok()?,
        long => usize::from(long),
    };
    (long >= 15).then_some(long)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(input: &[u8], length: usize) -> Option<Vec<u8>> {
        let mut output = vec![0; length];
        decode(input, &mut output).map(|()| output)
    }

    /// The examples of \[MS-XCA\], section 3.2: the alphabet, and "abc" a hundred times.
    #[test]
    fn the_specifications_examples_decode() {
        let mut alphabet = vec![0; 256];
        alphabet[0x30..0x3e]
            .copy_from_slice(&[0x50, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x45, 0x44, 0x04]);
        alphabet[0x80] = 0x04;
        alphabet.extend([
            0xd8, 0x52, 0x3e, 0xd7, 0x94, 0x11, 0x5b, 0xe9, 0x19, 0x5f, 0xf9, 0xd6, 0x7c, 0xdf, 0x8d, 0x04, 0x00, 0x00,
            0x00, 0x00,
        ]);
        assert_eq!(decoded(&alphabet, 26).unwrap(), b"abcdefghijklmnopqrstuvwxyz");

        let mut repeated = vec![0; 256];
        repeated[0x30..0x32].copy_from_slice(&[0x30, 0x23]);
        repeated[0x80] = 0x02;
        repeated[0x8f] = 0x20;
        repeated.extend([0xa8, 0xdc, 0x00, 0x00, 0xff, 0x26, 0x01]);
        assert_eq!(decoded(&repeated, 300).unwrap(), b"abc".repeat(100));
        // The last symbol of the text says that it ends, so asking for more finds only that.
        assert_eq!(decoded(&repeated, 299), None, "a repetition that leaves the output");
        for length in 0..repeated.len() - 7 {
            assert_eq!(decoded(&repeated[..length], 300), None);
        }
    }
}
