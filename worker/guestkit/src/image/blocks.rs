//! What the formats of equal blocks share (VDI, VHD, VHDX): a table that tells where each block lies, bitmaps that tell
//! which sectors of a block do, and reads that follow them.

use std::sync::{Arc, Mutex, PoisonError};

use crate::block_cache::Lru;
use crate::bytes::array;
use crate::error::{Error, Result};
use crate::read_at::{ReadAt, Source, check_range};

/// Bytes of a table read and held at once: 512 to 1024 blocks of some MiB each.
const SLICE_BYTES: u64 = 4096;
/// Bytes of tables, and of bitmaps, held per image: the table of 1 TiB in blocks of 1 MiB.
const HELD_BYTES: u64 = 4 << 20;

/// Where the bytes of a stretch of the guest's disk come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Zeros.
    Zeros,
    /// The parent of a differencing image.
    Parent,
    /// So many bytes into the image file.
    At(u64),
}

impl Place {
    /// Whether `next`, `length` bytes further on the disk, is what follows in the same place.
    fn continues(self, length: u64, next: Self) -> bool {
        match (self, next) {
            (Self::At(from), Self::At(to)) => from.checked_add(length) == Some(to),
            (one, other) => one == other,
        }
    }
}

/// A format's map of its blocks.
pub(super) trait Blocks {
    /// The name of the bytes of the guest in this format's words, for what is said of a block that is cut short.
    const DATA: &'static str;

    /// Where the bytes at guest offset `at` lie, and for how many bytes from there that holds: at least one, and no
    /// need to look further than `wanted`.
    fn place(&self, at: u64, wanted: u64) -> Result<(Place, u64)>;
}

/// Fills `buffer` with what `blocks` places at guest offset `offset`: neighbours that are neighbours in the file are
/// one read. `parent` may be shorter than the disk: what lies past its end is zeros.
pub(super) fn read<B: Blocks>(
    blocks: &B,
    file: &dyn ReadAt,
    parent: Option<&Source>,
    buffer: &mut [u8],
    offset: u64,
) -> Result<()> {
    let mut rest = buffer;
    let mut at = offset;
    while !rest.is_empty() {
        let wanted = rest.len() as u64;
        let (place, mut length) = blocks.place(at, wanted)?;
        while length < wanted {
            let (next, more) = blocks.place(at.saturating_add(length), wanted - length)?;
            if !place.continues(length, next) {
                break;
            }
            length = length.saturating_add(more.max(1));
        }
        let count = usize::try_from(length.clamp(1, wanted)).unwrap_or(rest.len());
        let (part, later) = std::mem::take(&mut rest).split_at_mut(count);
        match (place, parent) {
            (Place::Zeros, _) | (Place::Parent, None) => part.fill(0),
            (Place::Parent, Some(parent)) => read_padded(&**parent, part, at)?,
            (Place::At(from), _) => {
                file.read_exact_at(part, from).map_err(|error| error.in_structure(B::DATA, from))?;
            }
        }
        rest = later;
        at = at.saturating_add(count as u64);
    }
    Ok(())
}

/// Reads from `source`, past whose end there are zeros.
pub(super) fn read_padded(source: &dyn ReadAt, buffer: &mut [u8], offset: u64) -> Result<()> {
    let there = usize::try_from(source.len().saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
    let (present, beyond) = buffer.split_at_mut(there);
    beyond.fill(0);
    if present.is_empty() { Ok(()) } else { source.read_exact_at(present, offset) }
}

/// Pieces of one kind of structure in the file, the latest held.
#[derive(Debug)]
pub(super) struct Pieces {
    file: Source,
    structure: &'static str,
    held: Mutex<Lru<u64, Arc<[u8]>>>,
}

impl Pieces {
    /// Pieces of at most `largest` bytes each.
    pub(super) fn new(file: Source, structure: &'static str, largest: u64) -> Self {
        let count = usize::try_from(HELD_BYTES / largest.max(1)).unwrap_or(1);
        Self { file, structure, held: Mutex::new(Lru::new(count)) }
    }

    /// The `length` bytes at `offset` of the file. One offset must always be asked for with one length.
    pub(super) fn get(&self, offset: u64, length: u64) -> Result<Arc<[u8]>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).get(offset);
        if let Some(piece) = held {
            return Ok(piece);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        check_range(self.file.len(), length, offset).map_err(|error| error.in_structure(self.structure, offset))?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        let piece: Arc<[u8]> = bytes.into();
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(offset, Arc::clone(&piece));
        Ok(piece)
    }
}

/// A table of equal entries in the file. An image may claim one larger than memory should be, so only slices are held.
#[derive(Debug)]
pub(super) struct Table {
    slices: Pieces,
    start: u64,
    length: u64,
}

impl Table {
    /// The table of `length` bytes at `start`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where it leaves the file.
    pub(super) fn new(file: &Source, structure: &'static str, start: u64, length: u64) -> Result<Self> {
        if start.checked_add(length).is_none_or(|end| end > file.len()) {
            let reason = format!("its {length} bytes leave the file, which has {}", file.len());
            return Err(Error::corrupt(structure, start, reason));
        }
        Ok(Self { slices: Pieces::new(Arc::clone(file), structure, SLICE_BYTES), start, length })
    }

    /// The entry at `index`; `N`, the bytes of an entry, divides a slice.
    pub(super) fn entry<const N: usize>(&self, index: u64) -> Result<[u8; N]> {
        let at = index.saturating_mul(N as u64);
        let slice = at - at % SLICE_BYTES;
        let outside = || {
            let reason = format!("it has {} bytes and no entry {index}", self.length);
            Error::corrupt(self.slices.structure, self.start, reason)
        };
        let length = self.length.checked_sub(slice).ok_or_else(outside)?.min(SLICE_BYTES);
        let bytes = self.slices.get(self.start.saturating_add(slice), length)?;
        let within = usize::try_from(at % SLICE_BYTES).unwrap_or(usize::MAX);
        array(&bytes, within).ok_or_else(outside)
    }
}

/// Which bit of a byte comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BitOrder {
    /// The most significant: VHD.
    HighFirst,
    /// The least significant: VHDX.
    LowFirst,
}

/// The bit at `from`, and how many bits from there, at most `wanted`, have its value. Past the end bits are clear.
pub(super) fn run(bitmap: &[u8], order: BitOrder, from: u64, wanted: u64) -> (bool, u64) {
    let byte = |at: u64| usize::try_from(at / 8).ok().and_then(|index| bitmap.get(index)).copied().unwrap_or(0);
    let bit = |at: u64| {
        let place = match order {
            BitOrder::HighFirst => 7 - at % 8,
            BitOrder::LowFirst => at % 8,
        };
        byte(at) >> place & 1 == 1
    };
    let value = bit(from);
    let whole = if value { 0xff } else { 0 };
    let mut length = 1;
    while length < wanted {
        let at = from.saturating_add(length);
        if at.is_multiple_of(8) && byte(at) == whole {
            length += 8;
        } else if bit(at) == value {
            length += 1;
        } else {
            break;
        }
    }
    (value, length.min(wanted.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_bits_end_where_the_value_changes() {
        let bitmap = [0b1110_0000, 0xff, 0b1000_0000, 0];
        assert_eq!(run(&bitmap, BitOrder::HighFirst, 0, 100), (true, 3));
        assert_eq!(run(&bitmap, BitOrder::HighFirst, 3, 100), (false, 5));
        assert_eq!(run(&bitmap, BitOrder::HighFirst, 8, 100), (true, 9));
        assert_eq!(run(&bitmap, BitOrder::HighFirst, 8, 4), (true, 4));
        assert_eq!(run(&bitmap, BitOrder::HighFirst, 17, 30), (false, 30), "past the end bits are clear");
        assert_eq!(run(&bitmap, BitOrder::LowFirst, 0, 100), (false, 5));
        assert_eq!(run(&bitmap, BitOrder::LowFirst, 5, 100), (true, 11));
        assert_eq!(run(&bitmap, BitOrder::LowFirst, 23, 100), (true, 1));
        assert_eq!(run(&[], BitOrder::LowFirst, u64::MAX, 100), (false, 100));
    }

    #[test]
    fn a_table_gives_its_entries_and_no_others() {
        let bytes: Vec<u8> = (0..3000_u32).flat_map(u32::to_le_bytes).collect();
        let file: Source = Arc::new(bytes);
        let table = Table::new(&file, "table", 400, 8000).unwrap();
        assert_eq!(table.entry(0).unwrap(), 100_u32.to_le_bytes());
        assert_eq!(table.entry(1999).unwrap(), 2099_u32.to_le_bytes());
        for outside in [2000, 1 << 40, u64::MAX] {
            assert!(matches!(table.entry::<4>(outside), Err(Error::Corrupt { structure: "table", .. })));
        }
        assert!(Table::new(&file, "table", 8000, 4001).is_err());
        assert!(Table::new(&file, "table", u64::MAX, 1).is_err());
    }
}
