//! The up-case table of exFAT ("exFAT file system specification", Microsoft, section 7.2): by it a volume tells which
//! names are equal.

use crate::bytes::{le_u16, sum_holds};

/// Bytes of a table that maps every unit by itself; no table is longer.
pub(super) const TABLE_BYTES_MAX: u64 = 65536 * 2;

/// What each unit of a name becomes in upper case.
#[derive(Debug)]
pub(super) struct UpcaseTable {
    units: Vec<u16>,
}

impl UpcaseTable {
    /// The table in `bytes`; `None` where `checksum` is not theirs.
    pub(super) fn parse(bytes: &[u8], checksum: u32) -> Option<Self> {
        let sum = bytes.iter().fold(0, |sum: u32, byte| sum.rotate_right(1).wrapping_add(u32::from(*byte)));
        if !sum_holds(sum == checksum) {
            return None;
        }
        let mut units: Vec<u16> = Vec::new();
        let mut words = bytes.chunks_exact(2).filter_map(|word| le_u16(word, 0));
        while let Some(word) = words.next() {
            if units.len() > usize::from(u16::MAX) {
                break;
            }
            // Table 24's compression: so many units stay as they are. The last of them all is not compressed.
            match word {
                u16::MAX if units.len() < usize::from(u16::MAX) => {
                    let same = words.next().unwrap_or(0);
                    units.extend((units.len()..).take(usize::from(same)).map_while(|unit| u16::try_from(unit).ok()));
                }
                upper => units.push(upper),
            }
        }
        Some(Self { units })
    }

    /// A table for a volume whose own cannot be read: Unicode's upper case of each unit that has one.
    pub(super) fn plain() -> Self {
        let upper = |unit: u16| {
            let mut upper = char::from_u32(u32::from(unit))?.to_uppercase();
            match (upper.next(), upper.next()) {
                (Some(one), None) => u16::try_from(u32::from(one)).ok(),
                _ => None,
            }
        };
        Self { units: (0..=u16::MAX).map(|unit| upper(unit).unwrap_or(unit)).collect() }
    }

    /// `units` in upper case.
    pub(super) fn folded(&self, units: &[u16]) -> Vec<u16> {
        units.iter().map(|unit| self.units.get(usize::from(*unit)).copied().unwrap_or(*unit)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_table_maps_what_it_says() {
        let words: [u16; 6] = [0xffff, 0x61, 0x41, 0x42, 0xffff, 0xff9d];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let sum = bytes.iter().fold(0_u32, |sum, byte| sum.rotate_right(1).wrapping_add(u32::from(*byte)));
        let table = UpcaseTable::parse(&bytes, sum).unwrap();
        assert_eq!(table.folded(&[0x61, 0x62, 0x63, 0x20, 0xffff]), [0x41, 0x42, 0x63, 0x20, 0xffff]);
        assert_eq!(table.units.len(), 65536);
        assert!(UpcaseTable::parse(&bytes, sum ^ 1).is_none());
    }

    #[test]
    fn the_plain_table_knows_more_than_ascii() {
        let units: Vec<u16> = "straße ä".encode_utf16().collect();
        assert_eq!(String::from_utf16(&UpcaseTable::plain().folded(&units)).unwrap(), "STRAßE Ä");
    }
}
