//! As much of GLib's serialised values (GVariant) as flatpak's `deploy` files need: tuples, texts, and dictionaries of
//! variants. Source: "GVariant Specification" 1.0, section 2.5 "Serialisation Format".

use crate::bytes::slice;

/// A member of a tuple, by what its place depends on.
#[derive(Clone, Copy)]
pub(super) enum Member {
    /// Of a size of its own, at any place: a text, a list of texts.
    Sized,
    /// Of a size of its own, at a multiple of 8: a variant, a dictionary.
    SizedAligned,
    /// Eight bytes, at a multiple of 8.
    Fixed,
}

/// The members of a tuple; `None` where its framing contradicts itself.
pub(super) fn tuple<const N: usize>(bytes: &[u8], members: [Member; N]) -> Option<[&[u8]; N]> {
    let mut found: [&[u8]; N] = [&[]; N];
    // Where each member of its own size ends stands at the end, the first one last; the last member needs no such word.
    let mut frame = bytes.len();
    let mut at = 0_usize;
    for (index, (member, slot)) in members.into_iter().zip(&mut found).enumerate() {
        let is_last = index.checked_add(1) == Some(N);
        let start = match member {
            Member::Sized => at,
            Member::SizedAligned | Member::Fixed => at.checked_next_multiple_of(8)?,
        };
        let end = match member {
            Member::Fixed => start.checked_add(8)?,
            Member::Sized | Member::SizedAligned if is_last => frame,
            Member::Sized | Member::SizedAligned => {
                frame = frame.checked_sub(offset_bytes(bytes.len()))?;
                offset(bytes, frame)?
            }
        };
        *slot = bytes.get(start..end)?;
        at = end;
    }
    Some(found)
}

/// The text that a dictionary of variants (`a{sv}`) has under `key`.
pub(super) fn text_of<'a>(dictionary: &'a [u8], key: &str) -> Option<&'a str> {
    entries(dictionary)?.into_iter().find_map(|entry| {
        let [name, variant] = tuple(entry, [Member::Sized, Member::SizedAligned])?;
        // The type of a variant stands behind its value, apart by a zero.
        let value = variant.strip_suffix(b"\0s")?;
        (text(name)? == key).then(|| text(value)).flatten()
    })
}

/// A text without the zero at its end.
pub(super) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes.strip_suffix(b"\0")?).ok()
}

/// The elements of an array that are aligned to 8 and have sizes of their own: their ends stand behind them, in order.
fn entries(array: &[u8]) -> Option<Vec<&[u8]>> {
    if array.is_empty() {
        return Some(Vec::new());
    }
    let width = offset_bytes(array.len());
    let ends_at = offset(array, array.len().checked_sub(width)?)?;
    let count = array.len().checked_sub(ends_at)?.checked_div(width)?;
    let mut start = 0_usize;
    let element = |index: usize| {
        let end = offset(array, ends_at.checked_add(index.checked_mul(width)?)?)?;
        let element = array.get(start..end.min(ends_at))?;
        start = end.checked_next_multiple_of(8)?;
        Some(element)
    };
    (0..count).map(element).collect()
}

/// The width of the framing offsets in a container of `length` bytes.
const fn offset_bytes(length: usize) -> usize {
    match length {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

/// The framing offset at `at` of a container.
fn offset(container: &[u8], at: usize) -> Option<usize> {
    let bytes = slice(container, at, offset_bytes(container.len()))?;
    let value = bytes.iter().rev().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
    usize::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuples_and_dictionaries_are_read() {
        // ("hi", 1, {"k": <"v">}), as `g_variant_new ("(sta{sv})", …)` lays it out.
        let dictionary = b"k\0\0\0\0\0\0\0v\0\0s\x02\x0d";
        let mut bytes = b"hi\0\0\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
        bytes.extend(dictionary);
        bytes.push(3);
        let members = [Member::Sized, Member::Fixed, Member::SizedAligned];
        let [first, number, last] = tuple(&bytes, members).unwrap();
        assert_eq!(text(first), Some("hi"));
        assert_eq!(number[0], 1);
        assert_eq!(text_of(last, "k"), Some("v"));
        assert_eq!(text_of(last, "x"), None);
        for length in 0..bytes.len() {
            if let Some([_, _, last]) = tuple(&bytes[..length], members) {
                text_of(last, "k");
            }
        }
    }
}
