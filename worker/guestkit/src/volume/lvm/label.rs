//! What a physical volume says of itself: its label, and the areas that hold the metadata of its volume group.
//!
//! Source: LVM2's `label.h` and `layout.h` (`label_header`, `pv_header`, `mda_header`, `raw_locn`).

use crate::bytes::{has, le_u32, le_u64, slice, sum_holds};
use crate::error::{Error, Limit, Result};
use crate::limits::Budget;
use crate::read_at::{ReadAt, read_up_to};

use super::Metadata;
use super::text;

const MDA_HEADER_BYTES: u64 = 512;
/// A logical volume takes some 600 bytes; parsed, a text takes up to twenty times its length.
const TEXT_BYTES_MAX: u64 = 4 << 20;
/// A volume has two metadata areas at most, and as many data areas as pvresize could leave.
const AREAS_MAX: usize = 64;

/// A physical volume's own description.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    /// Its UUID, 32 characters without hyphens.
    pub(crate) id: String,
    /// The newest metadata of a group in its areas that can be read.
    pub(crate) metadata: Option<Metadata>,
    /// What could not be read, in words.
    pub(crate) warnings: Vec<String>,
}

/// LVM's CRC has its own start value and no inversion at either end.
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(!0xf597_a6cf);
    crc.update(bytes);
    !crc.finalize()
}

/// The label sector within the first four sectors, and its place there.
pub(crate) fn find_label(head: &[u8]) -> Option<(usize, &[u8])> {
    (0..4).find_map(|number| {
        let sector = slice(head, number * 512, 512)?;
        let is_label = has(sector, 0, b"LABELONE")
            && has(sector, 24, b"LVM2 001")
            && le_u64(sector, 8) == Some(number as u64)
            && sum_holds(checksum(sector.get(20..)?) == le_u32(sector, 16)?);
        is_label.then_some((number * 512, sector))
    })
}

/// The UUID in a label sector.
pub(crate) fn label_id(sector: &[u8]) -> Option<&str> {
    std::str::from_utf8(slice(sector, le_u32(sector, 20)? as usize, 32)?).ok().filter(|id| id.is_ascii())
}

/// The UUID as LVM prints it.
pub(crate) fn hyphenated(id: &str) -> Option<String> {
    let mut rest = id;
    let mut groups = Vec::new();
    for length in [6, 4, 4, 4, 4, 4, 6] {
        let (group, after) = rest.split_at_checked(length)?;
        groups.push(group);
        rest = after;
    }
    Some(groups.join("-"))
}

impl Label {
    /// Reads the label of `device` and all metadata it leads to.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where there is no sound label; limits and I/O.
    pub(crate) fn read(device: &dyn ReadAt, budget: &Budget) -> Result<Self> {
        let head = read_up_to(device, 0, 4 * 512)?;
        let no_label = || Error::corrupt("LVM2 label", 0, "there is none in the first four sectors");
        let (at, sector) = find_label(&head).ok_or_else(no_label)?;
        let id = label_id(sector).ok_or_else(|| Error::corrupt("LVM2 label", at as u64, "its UUID is no text"))?;
        let mut label = Self { id: id.to_owned(), metadata: None, warnings: Vec::new() };
        let areas = le_u32(sector, 20).map_or(0, |header| header as usize + 40);
        let (_, after) = area_list(sector, areas);
        for (start, length) in area_list(sector, after).0 {
            match read_area(device, start, length, budget) {
                Ok(Some(found)) => {
                    let is_newer = |held: &Metadata| found.sequence > held.sequence;
                    if label.metadata.as_ref().is_none_or(is_newer) {
                        label.metadata = Some(found);
                    }
                }
                Ok(None) => {}
                Err(error) if error.is_budget_exhausted() => return Err(error),
                Err(error) => label.warnings.push(error.to_string()),
            }
        }
        Ok(label)
    }
}

/// Pairs of offset and length up to one of zero, and where the list ends.
fn area_list(sector: &[u8], mut at: usize) -> (Vec<(u64, u64)>, usize) {
    let mut areas = Vec::new();
    while let (Some(offset), Some(length)) = (le_u64(sector, at), at.checked_add(8).and_then(|at| le_u64(sector, at))) {
        at = at.saturating_add(16);
        if offset == 0 || areas.len() >= AREAS_MAX {
            break;
        }
        areas.push((offset, length));
    }
    (areas, at)
}

/// The committed metadata of the area at `start`; `None` where it holds none or is to be ignored.
fn read_area(device: &dyn ReadAt, start: u64, length: u64, budget: &Budget) -> Result<Option<Metadata>> {
    const STRUCTURE: &str = "LVM2 metadata area";
    let header = read_up_to(device, start, 512)?;
    let fields = (|| {
        let is_sound = has(&header, 4, b" LVM2 x[5A%r0N*>")
            && le_u32(&header, 20) == Some(1)
            && le_u64(&header, 24) == Some(start)
            && sum_holds(checksum(header.get(4..)?) == le_u32(&header, 0)?);
        // The length in the label is 0 for an area that ends with the device on some old volumes.
        let size = le_u64(&header, 32)?;
        let is_sound = is_sound && (length == 0 || size == length) && size > MDA_HEADER_BYTES;
        is_sound.then_some(())?;
        Some((size, le_u64(&header, 40)?, le_u64(&header, 48)?, le_u32(&header, 56)?, le_u32(&header, 60)?))
    })();
    let Some((size, offset, bytes, expected, flags)) = fields else {
        return Err(Error::corrupt(STRUCTURE, start, "its header contradicts its checksum, its magic or its label"));
    };
    // Bit 0 says that the group keeps its metadata elsewhere.
    if offset == 0 || flags & 1 != 0 {
        return Ok(None);
    }
    if offset < MDA_HEADER_BYTES || offset >= size || bytes > size - MDA_HEADER_BYTES {
        return Err(Error::corrupt(STRUCTURE, start, format!("{bytes} bytes of metadata at {offset} leave it")));
    }
    if bytes > TEXT_BYTES_MAX {
        return Err(Error::LimitReached { which: Limit::TextSize, value: TEXT_BYTES_MAX });
    }
    // The text goes on after the header where it meets the end.
    let first = bytes.min(size - offset);
    let mut buffer = budget.allocate(bytes)?;
    let middle = usize::try_from(first).unwrap_or(usize::MAX);
    let Some((before, wrapped)) = buffer.split_at_mut_checked(middle) else { return Ok(None) };
    device.read_exact_at(before, start.saturating_add(offset))?;
    device.read_exact_at(wrapped, start.saturating_add(MDA_HEADER_BYTES))?;
    if !sum_holds(checksum(&buffer) == expected) {
        return Err(Error::corrupt(STRUCTURE, start, "the checksum of its metadata is wrong"));
    }
    Ok(Metadata::of(text::parse(&buffer)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    /// A volume by the structures of `layout.h`, its metadata `text` at `at` of an area of 2048 bytes.
    fn volume(text: &[u8], at: usize) -> Vec<u8> {
        let (start, size) = (4096, 2048);
        let mut disk = vec![0; 16384];
        let mut sector = vec![0; 512];
        put(&mut sector, 0, b"LABELONE");
        put(&mut sector, 8, &1_u64.to_le_bytes());
        put(&mut sector, 20, &32_u32.to_le_bytes());
        put(&mut sector, 24, b"LVM2 001");
        put(&mut sector, 32, b"abcdefGHIJklmnOPQRstuvWXYZ012345");
        put(&mut sector, 72, &8192_u64.to_le_bytes());
        put(&mut sector, 104, &(start as u64).to_le_bytes());
        put(&mut sector, 112, &(size as u64).to_le_bytes());
        let crc = checksum(&sector[20..]);
        put(&mut sector, 16, &crc.to_le_bytes());
        put(&mut disk, 512, &sector);
        let mut header = vec![0; 512];
        put(&mut header, 4, b" LVM2 x[5A%r0N*>");
        put(&mut header, 20, &1_u32.to_le_bytes());
        put(&mut header, 24, &(start as u64).to_le_bytes());
        put(&mut header, 32, &(size as u64).to_le_bytes());
        put(&mut header, 40, &(at as u64).to_le_bytes());
        put(&mut header, 48, &(text.len() as u64).to_le_bytes());
        put(&mut header, 56, &checksum(text).to_le_bytes());
        let crc = checksum(&header[4..]);
        put(&mut header, 0, &crc.to_le_bytes());
        put(&mut disk, start, &header);
        for (index, byte) in text.iter().enumerate() {
            let place = if at + index < size { at + index } else { at + index - size + 512 };
            disk[start + place] = *byte;
        }
        disk
    }

    #[test]
    fn metadata_that_wraps_around_its_area_is_read() {
        let text = b"vg { id = \"x\" seqno = 7 }\n";
        for at in [512, 600, 2040] {
            let label = Label::read(&volume(text, at), &Budget::new(&Limits::default())).unwrap();
            assert_eq!(hyphenated(&label.id).as_deref(), Some("abcdef-GHIJ-klmn-OPQR-stuv-WXYZ-012345"));
            assert_eq!(label.metadata.unwrap().sequence, 7);
        }
    }

    #[test]
    fn every_flipped_byte_of_the_structures_is_noticed_or_harmless() {
        let good = volume(b"vg { id = \"x\" seqno = 7 }\n", 2040);
        let budget = Budget::new(&Limits::default());
        for at in (512..1024).chain(4096..6144) {
            let mut disk = good.clone();
            disk[at] ^= 0x20;
            if let Ok(label) = Label::read(&disk, &budget) {
                let found = label.metadata.map(|metadata| metadata.sequence);
                assert!(found == Some(7) || !label.warnings.is_empty(), "byte {at}");
            }
        }
    }
}
