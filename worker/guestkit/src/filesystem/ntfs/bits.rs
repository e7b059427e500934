//! Bits in 16-bit little-endian words, the highest first, and canonical Huffman codes of them: what XPRESS and LZX share.

use crate::bytes::{array, slice};

/// Reads bits, and between them whole bytes from where the words go on. Past the end lie zeros: an encoder may leave out
/// what it knows nobody looks at.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// Where the words go on.
    at: usize,
    /// The next bits, from the highest down.
    held: u64,
    count: u32,
    /// Words of zeros given past the end.
    beyond: u32,
}

/// The longest code, and more than any field has.
const BITS_MAX: u32 = 17;

impl<'a> Bits<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, held: 0, count: 0, beyond: 0 }
    }

    /// Takes words in until at least `count` (1 to 17) bits are held. Which words are held shows: bytes are read from
    /// behind them.
    fn ensure(&mut self, count: u32) {
        while self.count < count.min(BITS_MAX) {
            let word = if let Some(word) = array(self.bytes, self.at) {
                self.at += 2;
                u16::from_le_bytes(word)
            } else {
                self.beyond = self.beyond.saturating_add(1);
                0
            };
            self.held |= u64::from(word) << (48 - self.count);
            self.count += 16;
        }
    }

    fn drop(&mut self, count: u32) {
        self.held <<= count;
        self.count -= count;
    }

    /// The next `count` (0 to 17) bits.
    pub(super) fn take(&mut self, count: u32) -> u32 {
        if count == 0 {
            return 0;
        }
        self.ensure(count);
        let value = (self.held >> (64 - count)) as u32;
        self.drop(count);
        value
    }

    /// Takes words in until 16 bits are held, as XPRESS does before each symbol and each distance.
    pub(super) fn ensure_word(&mut self) {
        self.ensure(16);
    }

    /// `N` whole bytes from behind the words taken in.
    pub(super) fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = array(self.bytes, self.at)?;
        self.at += N;
        Some(bytes)
    }

    /// `length` whole bytes from behind the words taken in.
    pub(super) fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let bytes = slice(self.bytes, self.at, length)?;
        self.at += length;
        Some(bytes)
    }

    /// Skips to the next word, which whole bytes begin with; where a word begins just here, it is skipped whole.
    pub(super) fn align(&mut self) {
        self.ensure(1);
        // Words taken in ahead are given back.
        let whole = ((self.count - 1) / 16).saturating_sub(self.beyond);
        self.at = self.at.saturating_sub(2 * whole as usize);
        (self.held, self.count) = (0, 0);
    }

    /// Whether more was asked for than the words that a decoder may look ahead.
    pub(super) const fn is_exhausted(&self) -> bool {
        self.beyond > 2
    }
}

/// Codes of up to so many bits are found by one look into a table.
const DIRECT_BITS: u32 = 10;
/// The longest code of either format.
const CODE_BITS_MAX: usize = 16;

/// A canonical Huffman code.
#[derive(Debug)]
pub(super) struct Huffman {
    /// By the next ten bits: the symbol and its code's length; length 0 is a longer code.
    direct: Vec<(u16, u8)>,
    /// Symbols in the order of their codes.
    symbols: Vec<u16>,
    /// By length: the first code of it, aligned to 16 bits; how many there are; where their symbols begin.
    first: [(u32, u32, u32); CODE_BITS_MAX + 1],
}

impl Huffman {
    /// The code whose symbols have these lengths in bits, 0 for none. `None` where no such code exists; a code without
    /// any symbol exists, and nothing can be decoded by it.
    pub(super) fn new(lengths: &[u8]) -> Option<Self> {
        let mut counts = [0_u32; CODE_BITS_MAX + 1];
        for length in lengths {
            *counts.get_mut(usize::from(*length))? += 1;
        }
        let mut first = [(0, 0, 0); CODE_BITS_MAX + 1];
        let (mut code, mut start) = (0_u32, 0);
        for (length, (slot, count)) in first.iter_mut().zip(counts).enumerate().skip(1) {
            *slot = (code, count, start);
            code = code.checked_add(count.checked_shl(16_u32.checked_sub(u32::try_from(length).ok()?)?)?)?;
            start += count;
        }
        // Neither too many codes nor unused ones.
        if code != 1 << 16 && start != 0 {
            return None;
        }
        let mut symbols: Vec<u16> = vec![0; usize::try_from(start).ok()?];
        let mut direct = vec![(0, 0); 1 << DIRECT_BITS];
        let mut next = first.map(|(code, _, start)| (code, start));
        for (symbol, &length) in lengths.iter().enumerate().filter(|(_, length)| **length != 0) {
            let symbol = u16::try_from(symbol).ok()?;
            let (code, place) = next.get_mut(usize::from(length))?;
            *symbols.get_mut(usize::try_from(*place).ok()?)? = symbol;
            let length = u32::from(length);
            if length <= DIRECT_BITS {
                let start = usize::try_from(*code >> (16 - DIRECT_BITS)).ok()?;
                let slots = direct.get_mut(start..start + (1 << (DIRECT_BITS - length)))?;
                slots.fill((symbol, u8::try_from(length).ok()?));
            }
            *code += 1 << (16 - length);
            *place += 1;
        }
        Some(Self { direct, symbols, first })
    }

    /// The next symbol.
    pub(super) fn symbol(&self, bits: &mut Bits<'_>) -> Option<u16> {
        bits.ensure_word();
        let ahead = (bits.held >> 48) as u32;
        let &(symbol, length) = self.direct.get((ahead >> (16 - DIRECT_BITS)) as usize)?;
        if length != 0 {
            bits.drop(u32::from(length));
            return Some(symbol);
        }
        let longer = (DIRECT_BITS + 1..).zip(self.first.get(DIRECT_BITS as usize + 1..)?);
        for (length, &(code, count, start)) in longer {
            let index = ahead.checked_sub(code)? >> (16 - length);
            if index < count {
                bits.drop(length);
                return self.symbols.get(start.checked_add(index)? as usize).copied();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_from_words_and_bytes_from_behind_them() {
        let mut bits = Bits::new(&[0x34, 0x12, 0x78, 0x56, 0xaa, 0xbb, 0xcc]);
        assert_eq!((bits.take(4), bits.take(0), bits.take(12)), (1, 0, 0x234));
        assert_eq!(bits.take(8), 0x56);
        assert_eq!(bits.bytes::<1>(), Some([0xaa]));
        assert_eq!(bits.take(8), 0x78);
        bits.align();
        assert_eq!(bits.slice(1), None, "the word that began here is skipped");
        assert_eq!((bits.take(16), bits.take(16)), (0, 0));
        assert!(!bits.is_exhausted());
        bits.take(1);
        assert!(bits.is_exhausted());
    }

    #[test]
    fn aligning_gives_back_the_words_taken_in_ahead() {
        let mut bits = Bits::new(&[0, 0, 0, 0, 1, 2]);
        bits.take(1);
        bits.ensure_word();
        bits.align();
        assert_eq!(bits.slice(4), Some(&[0, 0, 1, 2][..]));
    }

    #[test]
    fn codes_are_canonical_whole_and_found_whatever_their_length() {
        // Two of length 1 and 2, then one of each length up to 15, and two of 16.
        let mut lengths: Vec<u8> = (1..=15).collect();
        lengths.extend([16, 16]);
        let code = Huffman::new(&lengths).unwrap();
        let mut text = Vec::new();
        let mut held = (0_u64, 0);
        for symbol in 0..17_u32 {
            // Ones and a zero; the last is all ones.
            let (value, length) = match symbol {
                16 => (0xffff, 16),
                _ => ((1 << (symbol + 1)) - 2, symbol + 1),
            };
            held = (held.0 << length | value, held.1 + length);
            while held.1 >= 16 {
                held.1 -= 16;
                text.extend(((held.0 >> held.1) as u16).to_le_bytes());
            }
        }
        text.extend(((held.0 << (16 - held.1)) as u16).to_le_bytes());
        let mut bits = Bits::new(&text);
        for symbol in 0..17 {
            assert_eq!(code.symbol(&mut bits), Some(symbol));
        }
        assert!(Huffman::new(&[1, 1, 1]).is_none(), "more codes than there are");
        assert!(Huffman::new(&[1, 2]).is_none(), "a code that stands for nothing");
        assert_eq!(Huffman::new(&[0, 0]).unwrap().symbol(&mut Bits::new(&[1, 2])), None);
    }
}
