//! Names of UTF-16 units as bytes: UTF-8, and a lone surrogate in the three bytes that UTF-8 would give its number
//! (WTF-8), so that two names that differ stay apart. And names made equal in spite of their case.

/// `units` as bytes. A slash or a zero, which no path can hold, becomes U+FFFD.
pub(super) fn to_bytes(units: &[u16]) -> Vec<u8> {
    let mut name = Vec::with_capacity(units.len());
    let mut buffer = [0; 4];
    for unit in char::decode_utf16(units.iter().copied()) {
        match unit {
            Ok('/' | '\0') => name.extend_from_slice("\u{fffd}".as_bytes()),
            Ok(character) => name.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes()),
            Err(lone) => {
                let unit = lone.unpaired_surrogate();
                let low_bits = |shift: u32| 0x80 | u8::try_from((unit >> shift) & 0x3f).unwrap_or(0);
                name.extend([0xed, low_bits(6), low_bits(0)]);
            }
        }
    }
    name
}

/// The units of a name made by [`to_bytes`]; `None` for bytes that no units give.
pub(super) fn to_units(name: &[u8]) -> Option<Vec<u16>> {
    let mut units = Vec::with_capacity(name.len());
    let mut rest = name;
    loop {
        match std::str::from_utf8(rest) {
            Ok(text) => {
                units.extend(text.encode_utf16());
                return Some(units);
            }
            Err(error) => {
                let (valid, from_error) = rest.split_at_checked(error.valid_up_to())?;
                units.extend(std::str::from_utf8(valid).ok()?.encode_utf16());
                let (lone, after) = from_error.split_at_checked(3)?;
                match *lone {
                    [0xed, middle @ 0xa0..=0xbf, last @ 0x80..=0xbf] => {
                        units.push(0xd000 | (u16::from(middle & 0x3f) << 6) | u16::from(last & 0x3f));
                    }
                    _ => return None,
                }
                rest = after;
            }
        }
    }
}

/// `name` in upper case where a character has one of its own; what is not UTF-8 stays as it is.
pub(super) fn folded(name: &[u8]) -> Vec<u8> {
    if name.is_ascii() {
        return name.to_ascii_uppercase();
    }
    let mut all = Vec::with_capacity(name.len());
    let mut buffer = [0; 4];
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            let mut upper = character.to_uppercase();
            let upper = match (upper.next(), upper.next()) {
                (Some(one), None) => one,
                _ => character,
            };
            all.extend_from_slice(upper.encode_utf8(&mut buffer).as_bytes());
        }
        all.extend_from_slice(chunk.invalid());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for units in [
            "plain".encode_utf16().collect::<Vec<_>>(),
            "Grüße 日本 🦀".encode_utf16().collect(),
            vec![0x41, 0xd800, 0x42, 0xdc00],
            vec![0xdfff],
        ] {
            let bytes = to_bytes(&units);
            assert_eq!(to_units(&bytes).as_deref(), Some(units.as_slice()));
        }
        assert_eq!(to_bytes(&[0x61, 0x2f, 0]), "a\u{fffd}\u{fffd}".as_bytes());
        assert_eq!(to_units(b"\xff"), None);
        assert_eq!(to_units(b"a\xed\xa0"), None);
    }

    #[test]
    fn case_is_folded_character_by_character() {
        assert_eq!(folded("straße äöü".as_bytes()), "STRAßE ÄÖÜ".as_bytes());
        assert_eq!(folded(b"a\xed\xa0\x80b"), b"A\xed\xa0\x80B");
    }
}
