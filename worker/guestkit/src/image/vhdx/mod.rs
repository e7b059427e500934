//! Hyper-V disks, dynamic, fixed and differencing, after [MS-VHDX] "Virtual Hard Disk v2 (VHDX) File Format", whose
//! sections are cited. Numbers are little-endian.
//!
//! What was logged and not yet written when the file was last let go is replayed in memory before anything else is read
//! (2.3.3); a file whose log cannot be replayed is refused, as the specification demands.

mod header;
mod log;
mod metadata;
mod overlay;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::header::{Header, Regions};
use self::metadata::{Locator, Metadata};
use super::blocks::{BitOrder, Blocks, Pieces, Place, Table, read, run};
use super::parent::{guid_text, place_beside};
use super::{Chain, Format, Layer};
use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::read_at::{ReadAt, Source, check_range};

/// Everything but the header section is allocated in units of so many bytes.
const UNIT_BYTES: u64 = 1 << 20;
/// "Blocks" (2.4): sectors of one sector bitmap block.
const SECTORS_PER_BITMAP: u64 = 1 << 23;

/// "Payload BAT Entry States" and "Sector Bitmap BAT Entry States" (2.5.1).
mod state {
    pub(super) const NOT_PRESENT: u64 = 0;
    pub(super) const UNDEFINED: u64 = 1;
    pub(super) const ZERO: u64 = 2;
    pub(super) const UNMAPPED: u64 = 3;
    pub(super) const FULLY_PRESENT: u64 = 6;
    pub(super) const PARTIALLY_PRESENT: u64 = 7;
}

/// An opened image.
#[derive(Debug)]
struct Vhdx {
    metadata: Metadata,
    /// The file, with its log replayed.
    file: Source,
    /// Payload blocks of a chunk.
    chunk_ratio: u64,
    table: Table,
    bitmaps: Pieces,
    parent: Option<Source>,
}

impl Vhdx {
    fn open(file: Source, metadata: Metadata, regions: &Regions) -> Result<Self> {
        let block_bytes = u64::from(metadata.block_bytes);
        let sector_bytes = u64::from(metadata.sector_bytes);
        // Both are powers of two: at least 2^23 * 512 / 2^28, which is 16.
        let chunk_ratio = SECTORS_PER_BITMAP * sector_bytes / block_bytes;
        let blocks = metadata.virtual_size.div_ceil(block_bytes);
        let bitmaps = blocks.div_ceil(chunk_ratio);
        // A differencing disk needs the entry of its last bitmap, the others that of their last payload block.
        let entries = if metadata.has_parent { blocks + bitmaps } else { blocks + bitmaps.saturating_sub(1) };
        if entries * 8 > regions.table.length {
            let reason = format!("it has {} bytes, and the disk needs {entries} entries", regions.table.length);
            return Err(Error::corrupt("vhdx block allocation table", regions.table.offset, reason));
        }
        let table = Table::new(&file, "vhdx block allocation table", regions.table.offset, regions.table.length)?;
        let bitmaps = Pieces::new(Arc::clone(&file), "vhdx sector bitmap", block_bytes / sector_bytes / 8);
        Ok(Self { metadata, file, chunk_ratio, table, bitmaps, parent: None })
    }

    /// The state and the file offset of an entry of the table.
    fn entry(&self, index: u64) -> Result<(u64, u64)> {
        let entry = u64::from_le_bytes(self.table.entry(index)?);
        Ok((entry & 7, (entry >> 20).saturating_mul(UNIT_BYTES)))
    }

    /// Where a partially present block has its bytes at `within`.
    fn partial(&self, block: u64, within: u64, here: Place, wanted: u64) -> Result<(Place, u64)> {
        let (chunk, block_of_chunk) = (block / self.chunk_ratio, block % self.chunk_ratio);
        let index = chunk * (self.chunk_ratio + 1) + self.chunk_ratio;
        let (state, start) = self.entry(index)?;
        if state != state::FULLY_PRESENT {
            let reason = format!("a block is partially present, and its sector bitmap is in state {state}");
            return Err(Error::corrupt("vhdx block allocation table entry", index, reason));
        }
        let sector_bytes = u64::from(self.metadata.sector_bytes);
        let bytes = u64::from(self.metadata.block_bytes) / sector_bytes / 8;
        let bitmap = self.bitmaps.get(start.saturating_add(block_of_chunk * bytes), bytes)?;
        let (sector, before) = (within / sector_bytes, within % sector_bytes);
        let sectors = before.saturating_add(wanted).div_ceil(sector_bytes);
        let (is_here, sectors) = run(&bitmap, BitOrder::LowFirst, sector, sectors);
        Ok((if is_here { here } else { Place::Parent }, (sectors * sector_bytes).saturating_sub(before)))
    }
}

impl Blocks for Vhdx {
    const DATA: &'static str = "vhdx payload block";

    fn place(&self, at: u64, wanted: u64) -> Result<(Place, u64)> {
        let block_bytes = u64::from(self.metadata.block_bytes);
        let (block, within) = (at / block_bytes, at % block_bytes);
        let rest = block_bytes - within;
        let index = block + block / self.chunk_ratio;
        let (state, start) = self.entry(index)?;
        let refused = |reason: &str| Err(Error::corrupt("vhdx block allocation table entry", index, reason));
        let here = Place::At(start.saturating_add(within));
        match state {
            state::NOT_PRESENT => Ok((Place::Parent, rest)),
            // Undefined and unmapped may be anything that was there before, or zeros, which is what QEMU gives.
            state::UNDEFINED | state::ZERO | state::UNMAPPED => Ok((Place::Zeros, rest)),
            state::FULLY_PRESENT | state::PARTIALLY_PRESENT if start < UNIT_BYTES => {
                refused("a block is said to lie within the header section")
            }
            state::FULLY_PRESENT => Ok((here, rest)),
            state::PARTIALLY_PRESENT if self.metadata.has_parent => {
                let (place, length) = self.partial(block, within, here, wanted.min(rest))?;
                Ok((place, length.min(rest)))
            }
            state::PARTIALLY_PRESENT => refused("a block is partially present, and the disk has no parent"),
            _ => refused("it is in a reserved state"),
        }
    }
}

impl ReadAt for Vhdx {
    fn len(&self) -> u64 {
        self.metadata.virtual_size
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len(), buffer.len(), offset)?;
        read(self, &*self.file, self.parent.as_ref(), buffer, offset)
    }
}

/// Replays the log, then finds the regions and reads the metadata.
fn open_structures(file: Source, budget: &Budget, warn: &mut dyn FnMut(String)) -> Result<(Source, Metadata, Regions)> {
    let header = Header::read(&*file)?;
    let file = log::replay(file, &header, budget)?;
    let (regions, damage) = Regions::read(&*file)?;
    if let Some(damage) = damage {
        warn(format!("{damage}; its second copy was used"));
    }
    let metadata = Metadata::read(&*file, regions.metadata)?;
    Ok((file, metadata, regions))
}

impl Chain<'_> {
    pub(super) fn open_vhdx(&mut self, file: Source, mut layer: Layer, only_guessed: bool) -> Result<Source> {
        let path = layer.path.clone();
        let warnings = &mut self.warnings;
        let mut warn = |what: String| warnings.push(format!("{}: {what}", path.display()));
        let (file, metadata, regions) = open_structures(file, self.budget, &mut warn)?;
        layer.virtual_size_bytes = metadata.virtual_size;
        layer.cluster_size_bytes = Some(metadata.block_bytes.into());
        self.image.push(layer);
        let locator = metadata.locator(&*file, regions.metadata, self.budget)?;
        let mut image = Vhdx::open(file, metadata, &regions)?;
        if let Some(locator) = locator {
            self.refuse_guessed(&path, only_guessed)?;
            image.parent = Some(self.open_vhdx_parent(&path, &locator)?);
        }
        Ok(Arc::new(image))
    }

    fn open_vhdx_parent(&mut self, path: &Path, locator: &Locator) -> Result<Source> {
        let mut candidates: Vec<PathBuf> = locator.paths.iter().filter_map(|name| place_beside(path, name)).collect();
        candidates.dedup();
        self.open_parent(path, Format::Vhdx, &candidates, |parent| {
            let found = Header::read(parent)?.data_write_guid;
            if locator.linkages.contains(&found) {
                return Ok(None);
            }
            let reason = format!(
                "{} was written to after {} was made from it: its data has the GUID {}",
                parent.path().display(),
                path.display(),
                guid_text(&found)
            );
            Err(Error::corrupt("backing chain", 0, reason))
        })
    }
}
