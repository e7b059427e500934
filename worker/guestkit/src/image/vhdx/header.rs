//! The header section: two headers, of which the newer counts, and two copies of the region table.

use super::UNIT_BYTES;
use crate::bytes::{array, has, le_u16, le_u32, le_u64, slice, sum_holds};
use crate::error::{Error, Result};
use crate::read_at::{ReadAt, read_up_to};

/// "Header Section" (2.2): where the two headers begin, and how long one is.
const HEADER_OFFSETS: [u64; 2] = [64 << 10, 128 << 10];
const HEADER_BYTES: usize = 4 << 10;
/// Where the two copies of the region table begin, and how long one is.
const TABLE_OFFSETS: [u64; 2] = [192 << 10, 256 << 10];
const TABLE_BYTES: usize = 64 << 10;
/// "Region Table Header" (2.2.3.1): what fits.
const REGIONS_MAX: u32 = 2047;

/// A GUID as text with its first three fields in big-endian order, such as documents print it, in the order of the file.
pub(super) const fn guid(text: u128) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = text.to_be_bytes();
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

const TABLE_REGION: [u8; 16] = guid(0x2dc2_7766_f623_4200_9d64_115e_9bfd_4a08);
const METADATA_REGION: [u8; 16] = guid(0x8b7c_a206_4790_4b9a_b8fe_575f_050f_886e);

/// CRC-32C of `bytes` with the four bytes at 4, where it stands itself, as zeros: how every structure is protected.
pub(super) fn check_sum(bytes: &[u8]) -> Option<u32> {
    let (before, after) = (slice(bytes, 0, 4)?, bytes.get(8..)?);
    Some(crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]), after))
}

fn is_intact(bytes: &[u8]) -> bool {
    le_u32(bytes, 4).is_some_and(|recorded| sum_holds(check_sum(bytes) == Some(recorded)))
}

/// "Headers" (2.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    sequence: u64,
    pub(super) data_write_guid: [u8; 16],
    /// `None` where there is nothing to replay.
    pub(super) log_guid: Option<[u8; 16]>,
    log_version: u16,
    pub(super) log_offset: u64,
    pub(super) log_length: u32,
}

fn corrupt(offset: u64, reason: impl Into<String>) -> Error {
    Error::corrupt("vhdx header", offset, reason)
}

impl Header {
    /// The current header of `file`: the intact one with the higher sequence number. One is always being written.
    pub(super) fn read(file: &dyn ReadAt) -> Result<Self> {
        let [first, second] = HEADER_OFFSETS.map(|offset| {
            let bytes = read_up_to(file, offset, HEADER_BYTES)?;
            Ok(Self::parse(&bytes).map(|header| (header, bytes)))
        });
        let header = match (first?, second?) {
            (Some((one, one_bytes)), Some((two, two_bytes))) if one.sequence == two.sequence => {
                // Disk2vhd writes the same header twice.
                if one_bytes != two_bytes {
                    return Err(corrupt(HEADER_OFFSETS[0], "both headers have the same sequence number"));
                }
                one
            }
            (Some((one, _)), Some((two, _))) => {
                if one.sequence > two.sequence {
                    one
                } else {
                    two
                }
            }
            (Some((header, _)), None) | (None, Some((header, _))) => header,
            (None, None) => return Err(corrupt(HEADER_OFFSETS[0], "neither of the two headers is intact")),
        };
        header.check()
    }

    /// An intact header of the one version there is.
    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER_BYTES || !has(bytes, 0, b"head") || !is_intact(bytes) || le_u16(bytes, 66)? != 1 {
            return None;
        }
        Some(Self {
            sequence: le_u64(bytes, 8)?,
            data_write_guid: array(bytes, 32)?,
            log_guid: Some(array::<16>(bytes, 48)?).filter(|guid| *guid != [0; 16]),
            log_version: le_u16(bytes, 64)?,
            log_offset: le_u64(bytes, 72)?,
            log_length: le_u32(bytes, 68)?,
        })
    }

    /// A header whose log is in use, for tests.
    #[cfg(test)]
    pub(super) fn with_log(guid: [u8; 16], log_offset: u64, log_length: u32) -> Self {
        Self { sequence: 1, data_write_guid: [0; 16], log_guid: Some(guid), log_version: 0, log_offset, log_length }
    }

    fn check(self) -> Result<Self> {
        if self.log_guid.is_none() {
            return Ok(self);
        }
        if self.log_version != 0 {
            return Err(Error::unsupported(format!("vhdx log version {}", self.log_version)));
        }
        let is_placed = |value: u64| value >= UNIT_BYTES && value.is_multiple_of(UNIT_BYTES);
        if !is_placed(self.log_offset) || !is_placed(self.log_length.into()) {
            let reason = format!("a log of {} bytes at {} is not in whole MiB", self.log_length, self.log_offset);
            return Err(corrupt(HEADER_OFFSETS[0], reason));
        }
        Ok(self)
    }
}

/// A region of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// The regions there must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Regions {
    /// The block allocation table.
    pub(super) table: Region,
    pub(super) metadata: Region,
}

fn table_corrupt(offset: u64, reason: impl Into<String>) -> Error {
    Error::corrupt("vhdx region table", offset, reason)
}

impl Regions {
    /// Reads "Region Table" (2.2.3); says what is wrong with the first copy where the second was used.
    pub(super) fn read(file: &dyn ReadAt) -> Result<(Self, Option<String>)> {
        let [first, second] = TABLE_OFFSETS
            .map(|offset| read_up_to(file, offset, TABLE_BYTES).and_then(|bytes| Self::parse(&bytes, offset)));
        match (first, second) {
            (Ok(regions), _) => Ok((regions, None)),
            (Err(damage @ Error::Corrupt { .. }), Ok(regions)) => Ok((regions, Some(damage.to_string()))),
            (Err(error), _) => Err(error),
        }
    }

    fn parse(bytes: &[u8], offset: u64) -> Result<Self> {
        if bytes.len() < TABLE_BYTES || !has(bytes, 0, b"regi") || !is_intact(bytes) {
            return Err(table_corrupt(offset, "its signature or its checksum is wrong"));
        }
        let count = le_u32(bytes, 8).filter(|count| *count <= REGIONS_MAX);
        let count = count.ok_or_else(|| table_corrupt(offset, "it has more entries than fit"))?;
        let (mut table, mut metadata) = (None, None);
        for entry in bytes.get(16..).unwrap_or_default().chunks_exact(32).take(count as usize) {
            let (found, is_required) = Region::parse(entry).ok_or_else(|| table_corrupt(offset, "it is cut short"))?;
            let slot = match array::<16>(entry, 0) {
                Some(TABLE_REGION) => &mut table,
                Some(METADATA_REGION) => &mut metadata,
                Some(other) if is_required => {
                    return Err(Error::unsupported(format!("vhdx region {}", super::guid_text(&other))));
                }
                _ => continue,
            };
            if slot.is_some() {
                return Err(table_corrupt(offset, "it has the same region twice"));
            }
            *slot = Some(found.check(offset)?);
        }
        match (table, metadata) {
            (Some(table), Some(metadata)) => Ok(Self { table, metadata }),
            (None, _) => Err(table_corrupt(offset, "it has no block allocation table")),
            (_, None) => Err(table_corrupt(offset, "it has no metadata region")),
        }
    }
}

impl Region {
    /// The region of an entry, and whether a reader must know what it is.
    fn parse(entry: &[u8]) -> Option<(Self, bool)> {
        let region = Self { offset: le_u64(entry, 16)?, length: le_u32(entry, 24)?.into() };
        Some((region, le_u32(entry, 28)? & 1 == 1))
    }

    /// Regions are in whole MiB, but nothing rests on that where a writer took it lightly.
    fn check(self, table: u64) -> Result<Self> {
        if self.offset < UNIT_BYTES || self.length == 0 {
            let reason = format!("a region of {} bytes at {} cannot be", self.length, self.offset);
            return Err(table_corrupt(table, reason));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let sum = check_sum(&bytes).unwrap();
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn header(sequence: u64) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..4].copy_from_slice(b"head");
        bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
        bytes[66] = 1;
        sealed(bytes)
    }

    fn file(headers: [&[u8]; 2]) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        for (offset, header) in HEADER_OFFSETS.into_iter().zip(headers) {
            bytes[offset as usize..offset as usize + header.len()].copy_from_slice(header);
        }
        bytes
    }

    #[test]
    fn the_newer_intact_header_counts() {
        let mut torn = header(9);
        torn[100] ^= 1;
        let mut other = header(5);
        other[40] = 1;
        let other = sealed(other);
        for (headers, expected) in [
            ([header(4), header(5)], Some(5)),
            ([header(6), header(5)], Some(6)),
            ([header(6), torn.clone()], Some(6)),
            ([torn.clone(), header(5)], Some(5)),
            ([header(5), header(5)], Some(5)),
            ([header(5), other], None),
            ([torn.clone(), torn], None),
        ] {
            let found = Header::read(&file([&headers[0], &headers[1]]));
            assert_eq!(found.ok().map(|header| header.sequence), expected);
        }
    }

    #[test]
    fn a_log_that_cannot_be_one_is_refused() {
        let with_log = |version: u16, length: u32, offset: u64| {
            let mut bytes = header(1);
            bytes[48] = 1;
            bytes[64..66].copy_from_slice(&version.to_le_bytes());
            bytes[68..72].copy_from_slice(&length.to_le_bytes());
            bytes[72..80].copy_from_slice(&offset.to_le_bytes());
            let bytes = sealed(bytes);
            Header::read(&file([&bytes, &[]]))
        };
        assert!(with_log(0, 1 << 20, 1 << 20).is_ok());
        assert!(matches!(with_log(1, 1 << 20, 1 << 20), Err(Error::Unsupported { .. })));
        for (length, offset) in [(0, 1 << 20), (4096, 1 << 20), (1 << 20, 0), (1 << 20, (1 << 20) + 4096)] {
            assert!(matches!(with_log(0, length, offset), Err(Error::Corrupt { .. })));
        }
    }

    #[test]
    fn guids_lie_as_windows_writes_them() {
        assert_eq!(super::super::guid_text(&TABLE_REGION), "2dc27766-f623-4200-9d64-115e9bfd4a08");
    }
}
