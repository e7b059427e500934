//! The members of a tar archive, in POSIX's ustar and pax forms and GNU's: names, places, sizes.

use crate::bytes::{array, has, slice, sum_holds};
use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::read_at::{ReadAt, read_up_to};

const BLOCK_BYTES: u64 = 512;
/// An OVA holds a descriptor, a manifest, a certificate and its disks.
const MEMBERS_MAX: usize = 4096;
/// Bytes of a pax header or a long name; PATH_MAX is 4096.
const EXTRA_BYTES_MAX: u64 = 64 << 10;

/// A regular file of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: Vec<u8>,
    /// Where its bytes begin in the archive.
    pub(super) start: u64,
    pub(super) size: u64,
}

fn corrupt(offset: u64, reason: impl Into<String>) -> Error {
    Error::corrupt("tar header", offset, reason)
}

/// The regular files of the archive, up to the first that ends `enough`.
pub(super) fn members(file: &dyn ReadAt, budget: &Budget, enough: fn(&Member) -> bool) -> Result<Vec<Member>> {
    let mut found = Vec::new();
    let mut at = 0_u64;
    let mut extra = Extra::default();
    while at < file.len() && found.len() < MEMBERS_MAX {
        budget.check_time()?;
        let block = read_up_to(file, at, 512)?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(found);
        }
        let header = Header::parse(&block, at)?;
        let start = at.saturating_add(BLOCK_BYTES);
        let size = extra.size.filter(|_| header.is_file()).unwrap_or(header.size);
        let next = size.checked_next_multiple_of(BLOCK_BYTES).and_then(|length| start.checked_add(length));
        let Some(next) = next.filter(|_| size <= file.len().saturating_sub(start)) else {
            return Err(corrupt(at, format!("a member of {size} bytes leaves the archive, which was cut short")));
        };
        match header.kind {
            b'x' => extra.read_pax(file, start, size)?,
            b'L' => extra.read_name(file, start, size)?,
            b'S' => return Err(Error::unsupported("a sparse member of a tar archive")),
            _ => {
                let extra = std::mem::take(&mut extra);
                if header.is_file() {
                    let member = Member { name: extra.name.unwrap_or(header.name), start, size };
                    let last = enough(&member);
                    found.push(member);
                    if last {
                        return Ok(found);
                    }
                }
            }
        }
        at = next;
    }
    Ok(found)
}

struct Header {
    name: Vec<u8>,
    size: u64,
    kind: u8,
}

impl Header {
    fn parse(block: &[u8], offset: u64) -> Result<Self> {
        let field = |at, length| slice(block, at, length).ok_or_else(|| corrupt(offset, "the archive ends within it"));
        let sum = field(148, 8)?;
        let total: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        // The checksum is counted as eight blanks.
        let counted = total - sum.iter().map(|byte| u64::from(*byte)).sum::<u64>() + 8 * u64::from(b' ');
        if !sum_holds(number(sum) == Some(counted)) {
            return Err(corrupt(offset, "its checksum is wrong"));
        }
        let size = number(field(124, 12)?).ok_or_else(|| corrupt(offset, "its size is no number"))?;
        let kind = field(156, 1)?.first().copied().unwrap_or(0);
        let mut name = until_zero(field(0, 100)?).to_vec();
        // POSIX's ustar continues the name in a prefix; GNU's own form has times there.
        let prefix = until_zero(field(345, 155)?);
        if has(block, 257, b"ustar\0") && !prefix.is_empty() {
            name = [prefix, &name].join(&b'/');
        }
        Ok(Self { name, size, kind })
    }

    const fn is_file(&self) -> bool {
        matches!(self.kind, b'0' | 0 | b'7')
    }
}

/// What the headers before a member say of it.
#[derive(Debug, Default)]
struct Extra {
    name: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Extra {
    fn bytes(file: &dyn ReadAt, start: u64, size: u64) -> Result<Vec<u8>> {
        if size > EXTRA_BYTES_MAX {
            return Err(corrupt(start, format!("an extended header of {size} bytes is longer than 64 KiB")));
        }
        read_up_to(file, start, usize::try_from(size).unwrap_or(0))
    }

    fn read_name(&mut self, file: &dyn ReadAt, start: u64, size: u64) -> Result<()> {
        self.name = Some(until_zero(&Self::bytes(file, start, size)?).to_vec());
        Ok(())
    }

    /// POSIX pax: records `LENGTH NAME=VALUE\n`.
    fn read_pax(&mut self, file: &dyn ReadAt, start: u64, size: u64) -> Result<()> {
        let bytes = Self::bytes(file, start, size)?;
        let mut rest = bytes.as_slice();
        let broken = || corrupt(start, "a record of an extended header is malformed");
        while !rest.is_empty() && rest.first() != Some(&0) {
            let blank = rest.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
            let length = rest.get(..blank).and_then(decimal).and_then(|length| usize::try_from(length).ok());
            let length = length.filter(|length| *length > blank && *length <= rest.len()).ok_or_else(broken)?;
            let (record, behind) = rest.split_at(length);
            let record = record.get(blank.saturating_add(1)..).unwrap_or_default();
            let record = record.strip_suffix(b"\n").unwrap_or(record);
            if let Some(name) = record.strip_prefix(b"path=") {
                self.name = Some(name.to_vec());
            } else if let Some(size) = record.strip_prefix(b"size=") {
                self.size = Some(decimal(size).ok_or_else(broken)?);
            }
            rest = behind;
        }
        Ok(())
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Octal digits, or GNU's binary form for what these cannot hold.
fn number(field: &[u8]) -> Option<u64> {
    if field.first() == Some(&0x80) {
        let low = array::<8>(field, field.len().checked_sub(8)?)?;
        return Some(u64::from_be_bytes(low));
    }
    let digits = std::str::from_utf8(until_zero(field)).ok()?.trim();
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}
