//! Directory entry sets of exFAT ("exFAT file system specification", Microsoft, sections 6 and 7).

use std::collections::HashMap;

use super::super::calendar;
use super::super::{Timestamp, utf16};
use super::upcase::UpcaseTable;
use crate::bytes::{le_u16, le_u32, le_u64, sum_holds};
use crate::error::{Error, Result};

/// Bytes of an entry.
pub(super) const ENTRY_BYTES: usize = 32;
/// A file's set has at most 18 entries beside its own (section 7.4.1): the stream's, and 17 of the name.
pub(super) const SET_BYTES_MAX: usize = 19 * ENTRY_BYTES;

/// The bit of a type by which an entry is in use.
const IN_USE: u8 = 0x80;
const BITMAP: u8 = 0x81;
const UPCASE: u8 = 0x82;
const FILE: u8 = 0x85;
const STREAM: u8 = 0xc0;
const NAME: u8 = 0xc1;

const READ_ONLY: u16 = 0x01;
const DIRECTORY: u16 = 0x10;

/// Where contents lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) cluster: u32,
    pub(super) length: u64,
    /// Bytes that were written; what follows reads as zeros.
    pub(super) valid_length: u64,
    /// Whether the clusters lie in a row, and the table says nothing of them.
    pub(super) is_contiguous: bool,
}

/// A file or directory, by its whole set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    attributes: u16,
    pub(super) stream: Stream,
    pub(super) created: Timestamp,
    pub(super) accessed: Timestamp,
    pub(super) modified: Timestamp,
    units: Vec<u16>,
}

impl File {
    pub(super) const fn is_directory(&self) -> bool {
        self.attributes & DIRECTORY != 0
    }

    pub(super) const fn is_read_only(&self) -> bool {
        self.attributes & READ_ONLY != 0
    }

    /// The file whose set begins `set`, which lies at `position` of the volume.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a set that is not whole, not in order, or whose checksum is wrong.
    pub(super) fn parse(set: &[u8], position: u64) -> Result<Self> {
        let wrong = |reason: &str| Error::corrupt("exFAT directory entry set", position, reason);
        let file = set
            .get(..ENTRY_BYTES)
            .filter(|file| file.first() == Some(&FILE))
            .ok_or_else(|| wrong("no file begins it"))?;
        let count = 1 + usize::from(file.get(1).copied().unwrap_or(0));
        let length = Some(count * ENTRY_BYTES).filter(|length| *length <= SET_BYTES_MAX);
        let set = length.and_then(|length| set.get(..length)).ok_or_else(|| wrong("it is cut off, or too long"))?;
        if !sum_holds(le_u16(file, 2) == Some(checksum(set))) {
            return Err(wrong("its checksum is wrong"));
        }
        let read = || Self::parse_checked(file, set);
        read().ok_or_else(|| wrong("its secondary entries contradict it"))
    }

    fn parse_checked(file: &[u8], set: &[u8]) -> Option<Self> {
        let stream = set.get(ENTRY_BYTES..2 * ENTRY_BYTES).filter(|entry| entry.first() == Some(&STREAM))?;
        let name_length = usize::from(*stream.get(3)?);
        let mut units = Vec::with_capacity(name_length);
        let names = set.chunks_exact(ENTRY_BYTES).skip(2).take_while(|entry| entry.first() == Some(&NAME));
        for entry in names {
            units.extend(entry.get(2..)?.chunks_exact(2).filter_map(|unit| le_u16(unit, 0)));
        }
        if name_length == 0 || units.len() < name_length {
            return None;
        }
        units.truncate(name_length);
        let (length, valid_length) = (le_u64(stream, 24)?, le_u64(stream, 8)?);
        let time = |at: usize, hundredths: u8, zone: usize| {
            let time = calendar::of_dos(le_u16(file, at + 2)?, le_u16(file, at)?);
            let time = calendar::with_hundredths(time, hundredths);
            Some(Timestamp { seconds: time.seconds - zone_seconds(*file.get(zone)?), ..time })
        };
        Some(Self {
            attributes: le_u16(file, 4)?,
            stream: Stream {
                cluster: le_u32(stream, 20)?,
                length,
                valid_length: Some(valid_length).filter(|valid| *valid <= length)?,
                is_contiguous: *stream.get(1)? & 2 != 0,
            },
            created: time(8, *file.get(20)?, 22)?,
            modified: time(12, *file.get(21)?, 23)?,
            accessed: time(16, 0, 24)?,
            units,
        })
    }
}

/// Section 7.4.10: quarters of an hour east of UTC in seven bits, where the eighth says that they are known; where it
/// does not, the time is taken as UTC, as Linux takes it.
fn zone_seconds(zone: u8) -> i64 {
    let quarters = i64::from(zone & 0x7f);
    let quarters = if quarters >= 64 { quarters - 128 } else { quarters };
    if zone & 0x80 == 0 { 0 } else { quarters * 15 * 60 }
}

/// Section 6.3.3: over the whole set, without the checksum itself.
fn checksum(set: &[u8]) -> u16 {
    set.iter()
        .enumerate()
        .filter(|(at, _)| !matches!(at, 2 | 3))
        .fold(0, |sum: u16, (_, byte)| sum.rotate_right(1).wrapping_add(u16::from(*byte)))
}

/// What the root directory alone tells of the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Special {
    pub(super) cluster: u32,
    pub(super) length: u64,
    /// Of the up-case table.
    pub(super) checksum: u32,
}

/// One file or directory of a [`Listing`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    /// Byte of its file entry on the volume.
    pub(super) position: u64,
    pub(super) is_directory: bool,
}

/// What a directory holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
    by_name: HashMap<Vec<u16>, u64>,
    /// Sets that could not be read, and why the first could not.
    pub(super) broken: Option<(u32, Error)>,
    /// By which of the two bitmaps it is.
    pub(super) bitmaps: [Option<Special>; 2],
    pub(super) upcase: Option<Special>,
}

impl Listing {
    /// Takes in the entry of `set` at `position`; `set` goes on with as much of the directory as a set can need. Returns
    /// how many entries it took, or `None` at the end of the directory.
    pub(super) fn take(&mut self, set: &[u8], position: u64, upcase: &UpcaseTable) -> Option<usize> {
        let kind = *set.first()?;
        let special =
            || Some(Special { cluster: le_u32(set, 20)?, length: le_u64(set, 24)?, checksum: le_u32(set, 4)? });
        match kind {
            0 => return None,
            BITMAP => {
                let which = usize::from(set.get(1)? & 1);
                if let Some(bitmap) = self.bitmaps.get_mut(which) {
                    *bitmap = special();
                }
            }
            UPCASE => self.upcase = special(),
            FILE => match File::parse(set, position) {
                Ok(file) => {
                    self.by_name.entry(upcase.folded(&file.units)).or_insert(position);
                    let (name, is_directory) = (utf16::to_bytes(&file.units), file.is_directory());
                    self.entries.push(Entry { name, position, is_directory });
                    return Some(1 + usize::from(*set.get(1)?));
                }
                Err(error) => {
                    let (count, _) = self.broken.get_or_insert((0, error));
                    *count += 1;
                }
            },
            // Free ones, benign ones that we need not know, and secondary ones whose primary is gone.
            _ if kind & IN_USE == 0 => {}
            _ => {}
        }
        Some(1)
    }

    /// Byte of the file entry of the file called `name`, in whatever case.
    pub(super) fn find(&self, name: &[u8], upcase: &UpcaseTable) -> Option<u64> {
        self.by_name.get(&upcase.folded(&utf16::to_units(name)?)).copied()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A set as a formatter writes it.
    pub(in super::super) fn set(name: &str, attributes: u16, stream: Stream) -> Vec<u8> {
        let mut units: Vec<u16> = name.encode_utf16().collect();
        let length = units.len();
        units.resize(length.next_multiple_of(15), 0);
        let mut file = vec![0; 32];
        file[0] = FILE;
        file[1] = 1 + (units.len() / 15) as u8;
        file[4..6].copy_from_slice(&attributes.to_le_bytes());
        // 2024-12-31 23:59:58 and 1.5 seconds, one hour east of UTC.
        for at in [8, 12, 16] {
            file[at..at + 2].copy_from_slice(&((23_u16 << 11) | (59 << 5) | 29).to_le_bytes());
            file[at + 2..at + 4].copy_from_slice(&((44_u16 << 9) | (12 << 5) | 31).to_le_bytes());
        }
        file[20..22].copy_from_slice(&[150, 150]);
        file[22..25].copy_from_slice(&[0x84, 0x84, 0]);
        let mut entry = vec![0; 32];
        entry[0] = STREAM;
        entry[1] = 1 | (u8::from(stream.is_contiguous) << 1);
        entry[3] = length as u8;
        entry[8..16].copy_from_slice(&stream.valid_length.to_le_bytes());
        entry[20..24].copy_from_slice(&stream.cluster.to_le_bytes());
        entry[24..32].copy_from_slice(&stream.length.to_le_bytes());
        file.extend(entry);
        for part in units.chunks(15) {
            file.extend([NAME, 0]);
            file.extend(part.iter().flat_map(|unit| unit.to_le_bytes()));
        }
        let sum = checksum(&file);
        file[2..4].copy_from_slice(&sum.to_le_bytes());
        file
    }

    const STREAM_OF_TEN: Stream = Stream { cluster: 5, length: 10, valid_length: 4, is_contiguous: true };

    #[test]
    fn a_set_is_read_whole_or_not_at_all() {
        let good = set("a name of more than fifteen units", DIRECTORY, STREAM_OF_TEN);
        let file = File::parse(&good, 0).unwrap();
        assert!(file.is_directory() && !file.is_read_only());
        assert_eq!(file.stream, STREAM_OF_TEN);
        assert_eq!(String::from_utf16(&file.units).unwrap(), "a name of more than fifteen units");
        assert_eq!(file.modified, Timestamp { seconds: 1_735_689_599 - 3600, nanoseconds: 500_000_000 });
        assert_eq!(file.accessed, Timestamp { seconds: 1_735_689_598, nanoseconds: 0 });
        for length in 0..good.len() {
            assert!(File::parse(&good[..length], 0).is_err(), "{length}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(File::parse(&bad, 0).is_err(), "{at}");
        }
    }

    #[test]
    fn more_valid_bytes_than_there_are_contradict() {
        let bad = set("x", 0, Stream { valid_length: 11, ..STREAM_OF_TEN });
        assert!(matches!(File::parse(&bad, 0), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn deleted_and_broken_sets_are_passed_over() {
        let upcase = UpcaseTable::plain();
        let mut deleted = set("gone", 0, STREAM_OF_TEN);
        for entry in deleted.chunks_mut(32) {
            entry[0] &= 0x7f;
        }
        let mut broken = set("broken", 0, STREAM_OF_TEN);
        broken[40] ^= 1;
        let mut directory = [deleted, broken, set("Kept", 0, STREAM_OF_TEN), vec![0; 32]].concat();
        directory.extend(set("behind the end", 0, STREAM_OF_TEN));
        let (mut listing, mut at) = (Listing::default(), 0);
        while let Some(taken) = listing.take(&directory[at..], at as u64, &upcase) {
            at += taken * 32;
        }
        assert_eq!(listing.entries.iter().map(|entry| entry.name.as_slice()).collect::<Vec<_>>(), [b"Kept"]);
        assert_eq!(listing.broken.unwrap().0, 1);
        assert_eq!(listing.by_name.len(), 1);
    }
}
