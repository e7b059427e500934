//! Directory entries of FAT ("FAT: General Overview of On-Disk Format", Microsoft, 2000, FAT Directory Structure, Long
//! Directory Entries).

use std::collections::HashMap;

use super::super::calendar;
use super::super::{Timestamp, utf16};
use crate::bytes::{array, le_u16, le_u32};

/// Bytes of an entry.
pub(super) const ENTRY_BYTES: usize = 32;

const READ_ONLY: u8 = 0x01;
const VOLUME_LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
/// Read-only, hidden, system and label together, which no entry of a file has.
const LONG_NAME: u8 = 0x0f;
const DELETED: u8 = 0xe5;

/// Characters of code page 437 from 0x80 on: that of the machines MS-DOS was made for, and the kernel's default. The
/// code page a name was written in is not kept anywhere.
const CODE_PAGE: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// A file or directory, by its entry of the short form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Short {
    name: [u8; 11],
    attributes: u8,
    /// Which parts of the name Windows NT wants shown in lower case.
    case: u8,
    pub(super) cluster: u32,
    pub(super) size: u32,
    pub(super) created: Option<Timestamp>,
    pub(super) accessed: Option<Timestamp>,
    pub(super) modified: Timestamp,
}

impl Short {
    /// The entry in `bytes`; `None` where it is free, deleted, a label or a part of a long name.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let attributes = *bytes.get(11)?;
        let name = array::<11>(bytes, 0)?;
        if attributes & VOLUME_LABEL != 0 || matches!(name.first(), Some(&(0 | DELETED))) {
            return None;
        }
        let (high, low) = (le_u16(bytes, 20)?, le_u16(bytes, 26)?);
        let (created, accessed) = (le_u16(bytes, 16)?, le_u16(bytes, 18)?);
        let created_time = le_u16(bytes, 14)?;
        let hundredths = *bytes.get(13)?;
        let created_at = || calendar::with_hundredths(calendar::of_dos(created, created_time), hundredths);
        Some(Self {
            name,
            attributes,
            case: *bytes.get(12)?,
            cluster: (u32::from(high) << 16) | u32::from(low),
            size: le_u32(bytes, 28)?,
            created: (created != 0).then(created_at),
            accessed: (accessed != 0).then(|| calendar::of_dos(accessed, 0)),
            modified: calendar::of_dos(le_u16(bytes, 24)?, le_u16(bytes, 22)?),
        })
    }

    pub(super) const fn is_directory(&self) -> bool {
        self.attributes & DIRECTORY != 0
    }

    pub(super) const fn is_read_only(&self) -> bool {
        self.attributes & READ_ONLY != 0
    }

    fn is_dot(&self) -> bool {
        self.is_directory() && matches!(&self.name, b".          " | b"..         ")
    }

    /// The name as shown: base, a dot, extension.
    fn shown(&self) -> Vec<u8> {
        let (base, extension) = self.name.split_at(8);
        let mut text = String::new();
        push_part(&mut text, base, self.case & 0x08 != 0);
        if extension != b"   " {
            text.push('.');
            push_part(&mut text, extension, self.case & 0x10 != 0);
        }
        text.into_bytes()
    }

    /// What a long name repeats to tell whose it is (`ChkSum`).
    fn checksum(&self) -> u8 {
        self.name.iter().fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte))
    }
}

fn push_part(text: &mut String, part: &[u8], lower: bool) {
    let length = part.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    for (index, &byte) in part.iter().take(length).enumerate() {
        // As a first byte, 05 stands for E5, which means "deleted" there.
        let byte = if index == 0 && byte == 0x05 { DELETED } else { byte };
        let character = match byte {
            b'/' | 0 => char::REPLACEMENT_CHARACTER,
            0..0x80 => char::from(byte),
            _ => CODE_PAGE.chars().nth(usize::from(byte & 0x7f)).unwrap_or(char::REPLACEMENT_CHARACTER),
        };
        text.extend(if lower { character.to_lowercase().next() } else { Some(character) });
    }
}

/// The entries of a long name met so far, which stand before the short one in reverse.
#[derive(Debug)]
struct LongName {
    units: [u16; UNITS_MAX],
    checksum: u8,
    /// Number of the entry that must come next; 0 once the name is whole.
    expected: u8,
}

/// Twenty entries of thirteen units; of them 255 may be used.
const UNITS_MAX: usize = 20 * 13;

impl LongName {
    /// Takes in an entry. One that does not continue what came before ends it, and a last one begins anew.
    fn take(held: Option<Self>, entry: &[u8]) -> Option<Self> {
        let (order, checksum) = (*entry.first()?, *entry.get(13)?);
        let number = order & 0x3f;
        if !(1..=20).contains(&number) {
            return None;
        }
        let mut name = if order & 0x40 != 0 {
            Self { units: [0; UNITS_MAX], checksum, expected: number }
        } else {
            held.filter(|held| held.expected == number && held.checksum == checksum)?
        };
        name.expected = number - 1;
        let at = usize::from(number - 1) * 13;
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
        for (unit, place) in name.units.get_mut(at..at + 13)?.iter_mut().zip(places) {
            *unit = le_u16(entry, place)?;
        }
        Some(name)
    }

    /// The name, where it is whole and belongs to `short`.
    fn of(&self, short: &Short) -> Option<Vec<u8>> {
        if self.expected != 0 || self.checksum != short.checksum() {
            return None;
        }
        let length = self.units.iter().position(|unit| *unit == 0).unwrap_or(UNITS_MAX);
        let units = self.units.get(..length).filter(|units| !units.is_empty())?;
        Some(utf16::to_bytes(units))
    }
}

/// One file or directory of a [`Listing`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    /// Byte of its short entry on the volume.
    pub(super) position: u64,
    pub(super) is_directory: bool,
}

/// What a directory holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
    /// Positions by long and by short name in upper case; of two equal names the first is found.
    by_name: HashMap<Vec<u8>, u64>,
    long: Option<LongName>,
}

impl Listing {
    /// Takes in the entries in `bytes`, which lie at `position` of the volume. Returns whether more can follow.
    pub(super) fn take(&mut self, bytes: &[u8], position: u64) -> bool {
        for (index, entry) in bytes.chunks_exact(ENTRY_BYTES).enumerate() {
            let position = position.saturating_add((index * ENTRY_BYTES) as u64);
            match (entry.first(), entry.get(11)) {
                // Zero: free, and so is all that follows.
                (Some(0), _) => return false,
                (Some(&DELETED), _) => self.long = None,
                (_, Some(attributes)) if attributes & 0x3f == LONG_NAME => {
                    self.long = LongName::take(self.long.take(), entry);
                }
                _ => {
                    let long = self.long.take();
                    if let Some(short) = Short::parse(entry).filter(|short| !short.is_dot()) {
                        self.push(&short, long.and_then(|long| long.of(&short)), position);
                    }
                }
            }
        }
        true
    }

    fn push(&mut self, short: &Short, long: Option<Vec<u8>>, position: u64) {
        let shown = short.shown();
        if let Some(long) = &long {
            self.by_name.entry(utf16::folded(long)).or_insert(position);
        }
        self.by_name.entry(utf16::folded(&shown)).or_insert(position);
        self.entries.push(Entry { name: long.unwrap_or(shown), position, is_directory: short.is_directory() });
    }

    /// Byte of the short entry of the file called `name`, in whatever case.
    pub(super) fn find(&self, name: &[u8]) -> Option<u64> {
        self.by_name.get(&utf16::folded(name)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(name: &[u8; 11]) -> Vec<u8> {
        let mut entry = vec![0; 32];
        entry[..11].copy_from_slice(name);
        entry[11] = 0x20;
        entry
    }

    fn long(name: &str, order: u8, checksum: u8) -> Vec<u8> {
        let mut units: Vec<u16> = name.encode_utf16().collect();
        if units.len() < 13 {
            units.push(0);
        }
        units.resize(13, 0xffff);
        let bytes: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let mut entry = vec![order];
        entry.extend(&bytes[..10]);
        entry.extend([0x0f, 0, checksum]);
        entry.extend(&bytes[10..22]);
        entry.extend([0, 0]);
        entry.extend(&bytes[22..]);
        entry
    }

    fn names(entries: &[Vec<u8>]) -> Vec<String> {
        let mut listing = Listing::default();
        listing.take(&entries.concat(), 0);
        listing.entries.iter().map(|entry| String::from_utf8(entry.name.clone()).unwrap()).collect()
    }

    #[test]
    fn a_long_name_holds_only_where_order_and_checksum_do() {
        let file = short(b"LONGNA~1TXT");
        let sum = Short::parse(&file).unwrap().checksum();
        let (second, first) = (long("e.txt", 0x42, sum), long("long name her", 1, sum));
        assert_eq!(names(&[second.clone(), first.clone(), file.clone()]), ["long name here.txt"]);
        for (what, entries) in [
            ("first part only", vec![first.clone(), file.clone()]),
            ("last part only", vec![second.clone(), file.clone()]),
            ("wrong order", vec![first.clone(), second.clone(), file.clone()]),
            ("another checksum", vec![second.clone(), long("long name her", 1, sum ^ 1), file.clone()]),
            ("checksum of another file", vec![long("x", 0x41, sum ^ 1), file.clone()]),
        ] {
            assert_eq!(names(&entries), ["LONGNA~1.TXT"], "{what}");
        }
        let mut deleted = short(b"OTHER   TXT");
        deleted[0] = DELETED;
        assert_eq!(names(&[second, first, deleted, file]), ["LONGNA~1.TXT"]);
    }

    #[test]
    fn short_names_are_of_the_code_page_and_in_the_case_nt_wants() {
        assert_eq!(CODE_PAGE.chars().count(), 128);
        let mut lower = short(b"READ\x8eME TXT");
        lower[12] = 0x18;
        let mut label = short(b"LABEL      ");
        label[11] = 0x08;
        let mut dot = short(b".          ");
        dot[11] = 0x10;
        let entries =
            [label, dot, lower, short(b"\x05BC        "), short(b"A B     C  "), vec![0; 32], short(b"NO         ")];
        assert_eq!(names(&entries), ["readäme.txt", "σBC", "A B.C"]);
    }

    #[test]
    fn names_are_found_in_any_case_and_by_both_forms() {
        let file = short(b"GRSSE~1 TXT");
        let sum = Short::parse(&file).unwrap().checksum();
        let mut listing = Listing::default();
        assert!(listing.take(&[long("Grüße.txt", 0x41, sum), file].concat(), 96));
        for name in ["GRÜßE.TXT", "grsse~1.txt", "Grüße.txt"] {
            assert_eq!(listing.find(name.as_bytes()), Some(128), "{name}");
        }
        assert_eq!(listing.find(b"other"), None);
    }
}
