//! Bounds-checked numbers out of byte slices: a field past the end is `None`, never a panic.

macro_rules! reader {
    ($($name:ident: $type:ty, $from:ident, $what:literal;)*) => {$(
        #[doc = concat!("The ", $what, " at byte `at`.")]
        pub(crate) fn $name(bytes: &[u8], at: usize) -> Option<$type> {
            array(bytes, at).map(<$type>::$from)
        }
    )*};
}

reader! {
    le_u16: u16, from_le_bytes, "little-endian 16-bit number";
    le_u32: u32, from_le_bytes, "little-endian 32-bit number";
    le_u64: u64, from_le_bytes, "little-endian 64-bit number";
    be_u16: u16, from_be_bytes, "big-endian 16-bit number";
    be_u32: u32, from_be_bytes, "big-endian 32-bit number";
    be_u64: u64, from_be_bytes, "big-endian 64-bit number";
}

/// The `N` bytes at `at`.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    slice(bytes, at, N)?.try_into().ok()
}

/// The `length` bytes at `at`.
pub(crate) fn slice(bytes: &[u8], at: usize, length: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(length)?)
}

/// Whether `magic` stands at `at`.
pub(crate) fn has(bytes: &[u8], at: usize, magic: &[u8]) -> bool {
    slice(bytes, at, magic.len()) == Some(magic)
}

/// Whether a checksum is right, which every check of one comes to. To a fuzzer they all are (`cfg(fuzzing)`, which cargo-fuzz
/// sets): hardly a disk that it changes would be read further than its first structure. Binaries refuse to be built so.
pub(crate) const fn sum_holds(is_right: bool) -> bool {
    is_right || cfg!(fuzzing)
}

/// Bytes as lower-case hexadecimal digits without separators.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_past_the_end_are_none() {
        let bytes = [1, 2, 3, 4];
        assert_eq!(le_u32(&bytes, 0), Some(0x0403_0201));
        assert_eq!(be_u16(&bytes, 2), Some(0x0304));
        assert_eq!(le_u16(&bytes, 3), None);
        assert_eq!(le_u64(&bytes, usize::MAX), None);
        assert!(has(&bytes, 2, &[3, 4]) && !has(&bytes, 3, &[4, 5]));
    }
}
