//! Directory records of ISO 9660 (ECMA-119, section 9.1) and its dates (sections 8.4.26.1 and 9.1.5).

use super::super::Timestamp;
use super::super::calendar::Civil;
use super::super::utf16;
use crate::bytes::{array, be_u16, le_u32, slice};

/// Bytes of a record before its identifier.
const HEAD_BYTES: usize = 33;
/// Flags of a record (section 9.1.6).
const DIRECTORY: u8 = 0x02;
const ASSOCIATED: u8 = 0x04;
const MULTI_EXTENT: u8 = 0x80;
/// Zones lie up to 13 hours from UTC; numbers beyond mean nothing.
const ZONE_QUARTERS_MAX: i8 = 52;

/// A directory record: one extent of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Bytes of the record itself.
    pub(super) record_bytes: usize,
    /// The first block of its contents, behind an extended attribute record.
    pub(super) block: u64,
    /// Bytes of its contents.
    pub(super) length: u32,
    pub(super) recorded: Timestamp,
    flags: u8,
    pub(super) is_interleaved: bool,
    pub(super) identifier: Vec<u8>,
    /// What extensions keep behind the identifier.
    pub(super) system_use: Vec<u8>,
}

impl Record {
    /// The record that begins `bytes`; `None` where it is not whole. Of numbers kept in both byte orders the
    /// little-endian one is taken, as by Linux and Windows: writers are known that leave the other one zero.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let record_bytes = usize::from(*bytes.first()?);
        let bytes = bytes.get(..record_bytes)?;
        let identifier_bytes = usize::from(*bytes.get(32)?);
        let identifier = slice(bytes, HEAD_BYTES, identifier_bytes)?;
        // The identifier is padded to an even place.
        let padded = (HEAD_BYTES + identifier_bytes).next_multiple_of(2);
        Some(Self {
            record_bytes,
            block: u64::from(le_u32(bytes, 2)?) + u64::from(*bytes.get(1)?),
            length: le_u32(bytes, 10)?,
            recorded: short_date(&array::<7>(bytes, 18)?),
            flags: *bytes.get(25)?,
            is_interleaved: bytes.get(26..28)? != [0, 0],
            identifier: identifier.to_vec(),
            system_use: bytes.get(padded..).unwrap_or_default().to_vec(),
        })
    }

    pub(super) const fn is_directory(&self) -> bool {
        self.flags & DIRECTORY != 0
    }

    /// Whether it holds what Mac OS keeps beside a file of the same name.
    pub(super) const fn is_associated(&self) -> bool {
        self.flags & ASSOCIATED != 0
    }

    /// Whether the next record goes on with the same file.
    pub(super) const fn is_continued(&self) -> bool {
        self.flags & MULTI_EXTENT != 0
    }

    /// Whether it stands for the directory itself.
    pub(super) fn is_self(&self) -> bool {
        self.identifier == [0]
    }

    pub(super) fn is_parent(&self) -> bool {
        self.identifier == [1]
    }

    /// The identifier as Linux shows it where no extension gives a better name (its mount option `map=normal`): in lower
    /// case, without the version where that is 1, and without a dot that ends it then.
    pub(super) fn plain_name(&self) -> Vec<u8> {
        let name = self
            .identifier
            .strip_suffix(b";1")
            .map_or(self.identifier.as_slice(), |name| name.strip_suffix(b".").unwrap_or(name));
        let shown = |byte: &u8| match byte {
            b';' | b'/' | 0 => b'.',
            byte => byte.to_ascii_lowercase(),
        };
        name.iter().map(shown).collect()
    }

    /// The identifier of a Joliet tree (Joliet Specification, section 3.4): big-endian UTF-16, without the version where
    /// that is 1, and as in Windows and Linux without dots that end it.
    pub(super) fn joliet_name(&self) -> Vec<u8> {
        let units: Vec<u16> = self.identifier.chunks_exact(2).filter_map(|unit| be_u16(unit, 0)).collect();
        let version: [u16; 2] = [u16::from(b';'), u16::from(b'1')];
        let name = units.strip_suffix(version.as_slice()).unwrap_or(&units);
        let dots = name.iter().rev().take_while(|unit| **unit == u16::from(b'.')).count();
        let name = name.get(..name.len() - dots).filter(|name| !name.is_empty()).unwrap_or(name);
        utf16::to_bytes(name)
    }
}

/// Section 9.1.5: years from 1900, and quarters of an hour east of UTC.
pub(super) fn short_date(date: &[u8; 7]) -> Timestamp {
    let [year, month, day, hour, minute, second, zone] = *date;
    if [year, month, day] == [0; 3] {
        return Timestamp::default();
    }
    let civil = Civil { year: 1900 + u16::from(year), month, day, hour, minute, second };
    Timestamp { seconds: civil.seconds() - zone_seconds(zone), nanoseconds: 0 }
}

/// Section 8.4.26.1: digits, with hundredths of a second. `None` for a date that is not given.
pub(super) fn long_date(date: &[u8; 17]) -> Option<Timestamp> {
    let number = |at: usize, length: usize| {
        let digits = std::str::from_utf8(slice(date, at, length)?).ok()?;
        digits.parse::<u16>().ok()
    };
    let small = |at: usize| u8::try_from(number(at, 2)?).ok();
    let civil = Civil {
        year: number(0, 4).filter(|year| *year != 0)?,
        month: small(4)?,
        day: small(6)?,
        hour: small(8)?,
        minute: small(10)?,
        second: small(12)?,
    };
    let nanoseconds = u32::from(small(14)?) * 10_000_000;
    Some(Timestamp { seconds: civil.seconds() - zone_seconds(date[16]), nanoseconds })
}

fn zone_seconds(zone: u8) -> i64 {
    let quarters = zone.cast_signed();
    if (-ZONE_QUARTERS_MAX..=ZONE_QUARTERS_MAX).contains(&quarters) { i64::from(quarters) * 15 * 60 } else { 0 }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn record(
        identifier: &[u8],
        block: u32,
        length: u32,
        flags: u8,
        system_use: &[u8],
    ) -> Vec<u8> {
        let mut bytes = vec![0; 33];
        bytes[2..6].copy_from_slice(&block.to_le_bytes());
        bytes[6..10].copy_from_slice(&block.to_be_bytes());
        bytes[10..14].copy_from_slice(&length.to_le_bytes());
        bytes[14..18].copy_from_slice(&length.to_be_bytes());
        bytes[18..25].copy_from_slice(&[124, 12, 31, 23, 59, 58, 4]);
        bytes[25] = flags;
        bytes[32] = identifier.len() as u8;
        bytes.extend(identifier);
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        bytes.extend(system_use);
        bytes[0] = bytes.len() as u8;
        bytes
    }

    #[test]
    fn a_record_is_read_whole_or_not_at_all() {
        let bytes = record(b"FILE.TXT;1", 20, 1000, 0x80, b"more");
        let read = Record::parse(&bytes).unwrap();
        assert_eq!((read.block, read.length, read.recorded.seconds), (20, 1000, 1_735_689_598 - 3600));
        assert!(read.is_continued() && !read.is_directory() && !read.is_interleaved);
        assert_eq!(read.system_use, b"more");
        for length in 0..bytes.len() {
            assert_eq!(Record::parse(&bytes[..length]), None, "{length}");
        }
        let mut bad = bytes;
        bad[32] = 200;
        assert_eq!(Record::parse(&bad), None);
    }

    #[test]
    fn names_lose_their_version() {
        for (identifier, plain) in [
            (b"FILE.TXT;1".as_slice(), "file.txt"),
            (b"README.;1", "readme"),
            (b"OLD.TXT;2", "old.txt.2"),
            (b"DIR", "dir"),
            (b"A.B", "a.b"),
        ] {
            let read = Record::parse(&record(identifier, 0, 0, 0, &[])).unwrap();
            assert_eq!(read.plain_name(), plain.as_bytes());
        }
        for (name, shown) in [("Grüße.txt;1", "Grüße.txt"), ("dots...;1", "dots"), ("a;2", "a;2")] {
            let identifier: Vec<u8> = name.encode_utf16().flat_map(u16::to_be_bytes).collect();
            let read = Record::parse(&record(&identifier, 0, 0, 0, &[])).unwrap();
            assert_eq!(read.joliet_name(), shown.as_bytes());
        }
    }

    #[test]
    fn dates_have_zones() {
        assert_eq!(short_date(&[70, 1, 1, 1, 0, 0, 4]).seconds, 0);
        assert_eq!(short_date(&[70, 1, 1, 0, 0, 0, 100]).seconds, 0, "a zone that is none");
        assert_eq!(short_date(&[0; 7]).seconds, 0);
        assert_eq!(long_date(b"1970010100000050\0"), Some(Timestamp { seconds: 0, nanoseconds: 500_000_000 }));
        assert_eq!(long_date(b"0000000000000000\0"), None);
        assert_eq!(long_date(b"19x0010100000050\0"), None);
    }
}
