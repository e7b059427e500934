//! Names: UTF-16 units on disk, bytes above, and the volume's own table of capital letters between names that are equal.

use std::cmp::Ordering;

/// UTF-16 as bytes: UTF-8, and an unpaired surrogate as the three bytes that UTF-8 would give it (WTF-8), so that
/// different names stay different.
pub(super) fn to_bytes(units: impl IntoIterator<Item = u16>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for unit in char::decode_utf16(units) {
        match unit {
            Ok(char) => bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(lone) => {
                let [high, low] = lone.unpaired_surrogate().to_be_bytes();
                bytes.extend([0xe0 | high >> 4, 0x80 | (high & 0xf) << 2 | low >> 6, 0x80 | low & 0x3f]);
            }
        }
    }
    bytes
}

/// The inverse of [`to_bytes`]; `None` for bytes that it never gives.
pub(super) fn to_units(bytes: &[u8]) -> Option<Vec<u16>> {
    let mut units = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        match str::from_utf8(rest) {
            Ok(text) => {
                units.extend(text.encode_utf16());
                return Some(units);
            }
            Err(error) => {
                let (text, after) = rest.split_at_checked(error.valid_up_to())?;
                units.extend(str::from_utf8(text).ok()?.encode_utf16());
                let ([0xed, middle @ 0xa0..=0xbf, last @ 0x80..=0xbf], after) = after.split_first_chunk::<3>()? else {
                    return None;
                };
                units.push(0xd000 | u16::from(middle & 0x3f) << 6 | u16::from(last & 0x3f));
                rest = after;
            }
        }
    }
}

/// UTF-16LE in a structure as units; a last odd byte is no unit.
pub(super) fn units(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect()
}

/// The capital letter of each unit: the contents of `$UpCase`, which sorts every directory of its volume.
pub(super) struct UpCase(Vec<u16>);

impl UpCase {
    /// Units that a table can hold, and bytes of it.
    pub(super) const BYTES_MAX: u64 = 2 << 16;

    /// The volume's own table; units past its end are their own capitals.
    pub(super) fn new(table: &[u8]) -> Self {
        Self(units(table))
    }

    /// What the newest table mostly says, for a volume whose own cannot be read: simple capitals within 16 bits.
    pub(super) fn substitute() -> Self {
        let capital = |unit: u16| {
            let mut capitals = char::from_u32(u32::from(unit)).map(char::to_uppercase).into_iter().flatten();
            match (capitals.next(), capitals.next()) {
                (Some(one), None) => u16::try_from(u32::from(one)).unwrap_or(unit),
                _ => unit,
            }
        };
        Self((0..=u16::MAX).map(capital).collect())
    }

    fn of(&self, unit: u16) -> u16 {
        self.0.get(usize::from(unit)).copied().unwrap_or(unit)
    }

    /// The order of directories (`COLLATION_FILE_NAME` without its last tie-break, which is by case).
    pub(super) fn compare(&self, left: &[u16], right: impl Iterator<Item = u16>) -> Ordering {
        left.iter().map(|unit| self.of(*unit)).cmp(right.map(|unit| self.of(unit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_survives_the_way_to_bytes_and_back() {
        for units in [vec![], vec![0x41, 0xe9, 0x4e2d], vec![0xd83d, 0xde00], vec![0xd800], vec![0xdfff, 0x41, 0xd83d]]
        {
            let bytes = to_bytes(units.iter().copied());
            assert_eq!(to_units(&bytes), Some(units));
        }
        assert_eq!(to_bytes([0xd83d, 0xde00]), "😀".as_bytes());
        assert_eq!(to_bytes([0xd800]), [0xed, 0xa0, 0x80]);
        for bytes in [&[0xff_u8][..], &[0xed, 0xa0], &[0xc0, 0x80], &[0x41, 0xed, 0xa0, 0x41]] {
            assert_eq!(to_units(bytes), None);
        }
    }

    #[test]
    fn names_are_ordered_by_their_capitals() {
        let upcase = UpCase::substitute();
        let compare =
            |left: &str, right: &str| upcase.compare(&left.encode_utf16().collect::<Vec<_>>(), right.encode_utf16());
        assert_eq!(compare("Windows", "WINDOWS"), Ordering::Equal);
        assert_eq!(compare("étude", "ÉTUDE"), Ordering::Equal);
        assert_eq!(compare("a_", "AA"), Ordering::Greater, "the underscore lies behind the capitals");
        assert_eq!(compare("ab", "abc"), Ordering::Less);
        assert_eq!(compare("straße", "STRASSE"), Ordering::Greater, "no capital of one unit");
    }
}
