//! Extents that hold only the grains that were written: hosted sparse and stream-optimized (magic `KDMV`, Virtual Disk
//! Format 5.0, "Hosted Sparse Extents" and "Stream-Optimized Compressed Sparse Extents"), ESXi's `COWD` (the same,
//! "ESX Server Sparse Extents") and its successor seSparse, which VMware does not describe: its layout is that of
//! QEMU's `block/vmdk.c`.
//!
//! A grain directory names grain tables, and these name grains. Both are read in slices when they are asked for.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Layers, SECTOR_BYTES};
use crate::block_cache::Lru;
use crate::bytes::{has, le_u16, le_u32, le_u64, slice};
use crate::error::{Error, Result};
use crate::image::inflate::Inflate;
use crate::limits::zeroed;
use crate::read_at::{ReadAt, Source, read_up_to};

/// Grains of more than a gigabyte are a sign of damage; QEMU's bound.
const GRAIN_SECTORS_MAX: u64 = 0x20_0000;
/// Bytes of a grain that must be unpacked whole. VMware's have 64 KiB.
const COMPRESSED_GRAIN_BYTES_MAX: u64 = 8 << 20;
/// A stream-optimized extent's directory lies behind its grains, and only the footer says where.
const DIRECTORY_AT_END: u64 = u64::MAX;
/// The marker before each compressed grain: its sector on the disk, and the bytes that follow.
const MARKER_BYTES: usize = 12;
/// Bytes read to find a marker; most packed grains lie in there whole.
const MARKER_READ_BYTES: usize = 16 << 10;
/// Bytes of a table or directory read and held at once.
const SLICE_BYTES: u64 = 4096;
/// Slices held: 4 MiB, tables of 64 GiB of disk in grains of 64 KiB.
const SLICES: usize = 1024;
/// Bytes of unpacked grains held, for the small reads that follow one another in a grain.
const UNPACKED_BYTES: u64 = 2 << 20;

/// "Hosted Sparse Extent Header", flags.
mod flag {
    pub(super) const NEWLINES: u32 = 1 << 0;
    pub(super) const REDUNDANT_DIRECTORY: u32 = 1 << 1;
    pub(super) const ZEROED_GRAINS: u32 = 1 << 2;
    pub(super) const COMPRESSED: u32 = 1 << 16;
    pub(super) const MARKERS: u32 = 1 << 17;
}

/// The header of a `KDMV` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hosted {
    pub(super) version: u32,
    flags: u32,
    /// Sectors of the disk; 0 where the file is nothing but a descriptor in a header.
    pub(super) capacity: u64,
    grain_sectors: u64,
    pub(super) descriptor_offset: u64,
    pub(super) descriptor_sectors: u64,
    table_entries: u32,
    redundant_sector: u64,
    directory_sector: u64,
    pub(super) compressed: bool,
}

const HOSTED: &str = "vmdk sparse extent header";

impl Hosted {
    /// Reads the header in `bytes`, which lie at `offset` of their file.
    pub(super) fn parse(bytes: &[u8], offset: u64) -> Result<Self> {
        let corrupt = |at: u64, reason: String| Error::corrupt(HOSTED, offset.saturating_add(at), reason);
        let short = || corrupt(0, format!("the file ends after {} bytes of it", bytes.len()));
        let field32 = |at| le_u32(bytes, at).ok_or_else(short);
        let field64 = |at| le_u64(bytes, at).ok_or_else(short);
        if !has(bytes, 0, b"KDMV") {
            return Err(corrupt(0, "it does not begin with the magic KDMV".into()));
        }
        let (version, flags) = (field32(4)?, field32(8)?);
        if !(1..=3).contains(&version) {
            return Err(Error::unsupported(format!("vmdk version {version}")));
        }
        if flags & flag::NEWLINES != 0 && !has(bytes, 73, b"\n \r\n") {
            return Err(corrupt(73, "its line ends were changed: the file was transferred as text".into()));
        }
        let compressed = match le_u16(bytes, 77).ok_or_else(short)? {
            0 if flags & flag::COMPRESSED == 0 => false,
            0 => return Err(corrupt(77, "its grains are compressed by nothing".into())),
            1 => true,
            other => return Err(Error::unsupported(format!("vmdk compression {other}"))),
        };
        Ok(Self {
            version,
            flags,
            capacity: field64(12)?,
            grain_sectors: field64(20)?,
            descriptor_offset: field64(28)?,
            descriptor_sectors: field64(36)?,
            table_entries: field32(44)?,
            redundant_sector: field64(48)?,
            directory_sector: field64(56)?,
            compressed,
        })
    }

    /// The header that counts: the file's first, or the footer it defers to.
    fn settled(self, file: &dyn ReadAt) -> Result<Self> {
        if self.directory_sector != DIRECTORY_AT_END {
            return Ok(self);
        }
        // Behind the footer lies one sector with the end-of-stream marker.
        let offset = file.len().saturating_sub(2 * SECTOR_BYTES);
        let bytes = read_up_to(file, offset, 512)?;
        let cut = |reason: String| Error::corrupt("vmdk footer", offset, reason);
        if !has(&bytes, 0, b"KDMV") {
            return Err(cut("there is none, so the file was cut short".into()));
        }
        let footer = Self::parse(&bytes, offset)?;
        if footer.directory_sector == DIRECTORY_AT_END {
            return Err(cut("it does not say where the grain directory lies".into()));
        }
        if footer.capacity != self.capacity {
            return Err(cut(format!("it has {} sectors, the header {}", footer.capacity, self.capacity)));
        }
        Ok(footer)
    }

    fn layout(&self) -> Layout {
        let zeroed_grains = self.flags & flag::ZEROED_GRAINS != 0;
        let packing = match (self.compressed, self.flags & flag::MARKERS != 0) {
            (false, _) => Packing::None,
            (true, false) => Packing::Bare,
            (true, true) => Packing::Marked,
        };
        Layout {
            structure: HOSTED,
            capacity: self.capacity,
            grain_sectors: self.grain_sectors,
            table_entries: u64::from(self.table_entries),
            directory_sector: self.directory_sector,
            redundant_sector: Some(self.redundant_sector)
                .filter(|sector| *sector != 0 && self.flags & flag::REDUNDANT_DIRECTORY != 0),
            directory_entries: None,
            entries: Entries::Sectors { zeroed_grains },
            packing,
        }
    }
}

/// What the three kinds of sparse extents have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layout {
    structure: &'static str,
    /// Sectors of the disk that the extent holds.
    capacity: u64,
    grain_sectors: u64,
    table_entries: u64,
    directory_sector: u64,
    /// A copy of the directory, whose tables are copies too.
    redundant_sector: Option<u64>,
    /// Where the header says so itself.
    directory_entries: Option<u64>,
    entries: Entries,
    packing: Packing,
}

/// How directories and tables point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entries {
    /// 32 bits: a sector of the file, or 0 for nothing; in tables, 1 may stand for a grain of zeros.
    Sectors { zeroed_grains: bool },
    /// 64 bits: the highest four say what an entry is; numbers of tables and grains, counted from these sectors.
    Numbers { tables_sector: u64, grains_sector: u64 },
}

impl Entries {
    const fn bytes(self) -> u64 {
        match self {
            Self::Sectors { .. } => 4,
            Self::Numbers { .. } => 8,
        }
    }
}

/// How grains are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    None,
    /// A deflate stream without anything that says its length.
    Bare,
    /// A marker with sector and length before each.
    Marked,
}

/// "ESX Server Sparse Extents": all fields have 32 bits.
fn cowd(head: &[u8]) -> Result<Layout> {
    const STRUCTURE: &str = "vmdk COWD header";
    let field = |at| le_u32(head, at).ok_or_else(|| Error::corrupt(STRUCTURE, 0, "the file ends within it"));
    let version = field(4)?;
    if version != 1 {
        return Err(Error::unsupported(format!("vmdk COWD version {version}")));
    }
    Ok(Layout {
        structure: STRUCTURE,
        capacity: field(12)?.into(),
        grain_sectors: field(16)?.into(),
        table_entries: 4096,
        directory_sector: field(20)?.into(),
        redundant_sector: None,
        directory_entries: Some(field(24)?.into()),
        entries: Entries::Sectors { zeroed_grains: false },
        packing: Packing::None,
    })
}

/// QEMU's `VMDKSESparseConstHeader`, and `VMDKSESparseVolatileHeader` where it points. Offsets and sizes are sectors.
fn se_sparse(file: &dyn ReadAt, head: &[u8]) -> Result<Layout> {
    const STRUCTURE: &str = "vmdk seSparse header";
    let field = |at| le_u64(head, at).ok_or_else(|| Error::corrupt(STRUCTURE, 0, "the file ends within it"));
    let (version, grain_sectors, table_sectors, flags) = (field(8)?, field(24)?, field(32)?, field(40)?);
    if version != 0x0000_0002_0000_0001 {
        return Err(Error::unsupported(format!("vmdk seSparse version {version:#x}")));
    }
    if grain_sectors != 8 || table_sectors != 64 || flags != 0 {
        let what = format!("grains of {grain_sectors} sectors, tables of {table_sectors}, flags {flags:#x}");
        return Err(Error::unsupported(format!("vmdk seSparse with {what}")));
    }
    let volatile = bytes_of(field(80)?);
    let state = read_up_to(file, volatile, 512)?;
    let (Some(0xcafe_cafe), Some(replay)) = (le_u64(&state, 0), le_u64(&state, 24)) else {
        return Err(Error::corrupt("vmdk seSparse volatile header", volatile, "it does not begin with its magic"));
    };
    if replay != 0 {
        return Err(Error::unsupported("vmdk seSparse with a journal that was not replayed"));
    }
    Ok(Layout {
        structure: STRUCTURE,
        capacity: field(16)?,
        grain_sectors,
        table_entries: table_sectors * SECTOR_BYTES / 8,
        directory_sector: field(128)?,
        redundant_sector: None,
        directory_entries: Some(field(136)?.saturating_mul(SECTOR_BYTES / 8)),
        entries: Entries::Numbers { tables_sector: field(144)?, grains_sector: field(192)? },
        packing: Packing::None,
    })
}

fn bytes_of(sectors: u64) -> u64 {
    sectors.saturating_mul(SECTOR_BYTES)
}

/// Where the bytes of a stretch of the extent come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The parent, or zeros where there is none.
    Parent,
    Zeros,
    /// So many bytes into the file.
    At(u64),
    /// The whole grain, packed, from that byte.
    Packed(u64),
}

/// Pieces of the extents of a disk, by the number of the extent and the place in its file.
type Pieces = Lru<(usize, u64), Arc<[u8]>>;

/// Slices of tables and directories, and unpacked grains, of all extents of a disk.
#[derive(Debug)]
pub(super) struct Held {
    slices: Mutex<Pieces>,
    grains: Mutex<Pieces>,
    inflate: Inflate,
}

impl Held {
    /// For extents whose largest compressed grain has so many bytes.
    pub(super) fn new(grain_bytes_max: u64) -> Self {
        let grains = UNPACKED_BYTES / grain_bytes_max.max(SECTOR_BYTES);
        Self {
            slices: Mutex::new(Lru::new(SLICES)),
            grains: Mutex::new(Lru::new(usize::try_from(grains).unwrap_or(1))),
            inflate: Inflate::zlib(),
        }
    }
}

/// A sparse extent.
#[derive(Debug)]
pub(super) struct Sparse {
    file: Source,
    layout: Layout,
    grain_bytes: u64,
    table_bytes: u64,
}

impl Sparse {
    /// Opens the extent in `file` by its magic.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Unsupported`]; [`Error::Io`].
    pub(super) fn open(file: Source) -> Result<Self> {
        let head = read_up_to(&*file, 0, 512)?;
        let layout = match &head {
            _ if has(&head, 0, b"KDMV") => Hosted::parse(&head, 0)?.settled(&*file)?.layout(),
            _ if has(&head, 0, b"COWD") => cowd(&head)?,
            _ if le_u64(&head, 0) == Some(0xcafe_babe) => se_sparse(&*file, &head)?,
            _ => return Err(Error::corrupt("vmdk sparse extent", 0, "it does not begin with any of their magics")),
        };
        Self::new(file, layout)
    }

    fn new(file: Source, mut layout: Layout) -> Result<Self> {
        let corrupt = |reason: String| Error::corrupt(layout.structure, 0, reason);
        let grain = layout.grain_sectors;
        if !grain.is_power_of_two() || grain > GRAIN_SECTORS_MAX {
            return Err(corrupt(format!("a grain of {grain} sectors cannot be")));
        }
        let grain_bytes = bytes_of(grain);
        if layout.packing != Packing::None && grain_bytes > COMPRESSED_GRAIN_BYTES_MAX {
            return Err(Error::unsupported(format!("compressed vmdk grains of {grain_bytes} bytes")));
        }
        if !(1..=4096).contains(&layout.table_entries) {
            return Err(corrupt(format!("a grain table of {} entries cannot be", layout.table_entries)));
        }
        if layout.capacity > i64::MAX as u64 / SECTOR_BYTES {
            return Err(corrupt(format!("a disk of {} sectors cannot be", layout.capacity)));
        }
        let needed = layout.capacity.div_ceil(grain).div_ceil(layout.table_entries);
        if let Some(there) = layout.directory_entries.filter(|there| *there < needed) {
            return Err(corrupt(format!("{there} directory entries are too few: the size needs {needed}")));
        }
        let length = needed.saturating_mul(layout.entries.bytes());
        let is_inside = |sector: u64| sector != 0 && bytes_of(sector).saturating_add(length) <= file.len();
        layout.redundant_sector = layout.redundant_sector.filter(|sector| is_inside(*sector));
        if !is_inside(layout.directory_sector) {
            let directory = bytes_of(layout.directory_sector);
            let reason = format!("the grain directory, {needed} entries at {directory}, leaves the file");
            layout.directory_sector = layout.redundant_sector.take().ok_or_else(|| corrupt(reason))?;
        }
        let table_bytes = layout.table_entries * layout.entries.bytes();
        Ok(Self { file, layout, grain_bytes, table_bytes })
    }

    /// Sectors of the disk that it holds.
    pub(super) const fn capacity(&self) -> u64 {
        self.layout.capacity
    }

    pub(super) const fn grain_bytes(&self) -> u64 {
        self.grain_bytes
    }

    pub(super) const fn is_packed(&self) -> bool {
        !matches!(self.layout.packing, Packing::None)
    }

    /// The slice of the structure of `length` bytes at `start` that holds its byte `within`, and where the slice begins.
    fn slice(&self, held: &Held, index: usize, start: u64, length: u64, within: u64) -> Result<(Arc<[u8]>, u64)> {
        let begin = within / SLICE_BYTES * SLICE_BYTES;
        let (at, count) = (start.saturating_add(begin), length.saturating_sub(begin).min(SLICE_BYTES));
        let known = held.slices.lock().unwrap_or_else(PoisonError::into_inner).get((index, at));
        if let Some(slice) = known {
            return Ok((slice, begin));
        }
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, at).map_err(|error| error.in_structure("vmdk grain table", at))?;
        let slice: Arc<[u8]> = bytes.into();
        held.slices.lock().unwrap_or_else(PoisonError::into_inner).insert((index, at), Arc::clone(&slice));
        Ok((slice, begin))
    }

    fn entry(&self, bytes: &[u8], at: u64) -> u64 {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let entry = match self.layout.entries {
            Entries::Sectors { .. } => le_u32(bytes, at).map(u64::from),
            Entries::Numbers { .. } => le_u64(bytes, at),
        };
        entry.unwrap_or(0)
    }

    /// Where grain table `number` of the directory in `sector` lies, in bytes; `None` where there is none.
    fn table(&self, held: &Held, index: usize, sector: u64, number: u64) -> Result<Option<u64>> {
        let start = bytes_of(sector);
        let entry_bytes = self.layout.entries.bytes();
        let length = self.layout.capacity.div_ceil(self.layout.grain_sectors).div_ceil(self.layout.table_entries);
        let within = number.saturating_mul(entry_bytes);
        let (slice, begin) = self.slice(held, index, start, length.saturating_mul(entry_bytes), within)?;
        let entry = self.entry(&slice, within.saturating_sub(begin));
        match (self.layout.entries, entry) {
            (_, 0) => Ok(None),
            (Entries::Sectors { .. }, sector) => Ok(Some(bytes_of(sector))),
            (Entries::Numbers { tables_sector, .. }, entry) if entry >> 32 == 0x1000_0000 => {
                let sectors = (entry & 0xffff_ffff).saturating_mul(self.table_bytes / SECTOR_BYTES);
                Ok(Some(bytes_of(tables_sector.saturating_add(sectors))))
            }
            (Entries::Numbers { .. }, entry) => {
                let at = start.saturating_add(within);
                Err(Error::corrupt("vmdk seSparse directory entry", at, format!("{entry:#x} is none")))
            }
        }
    }

    /// What an entry of a grain table stands for.
    fn grain(&self, entry: u64) -> Result<Place> {
        let sector = match self.layout.entries {
            Entries::Sectors { .. } if entry == 0 => return Ok(Place::Parent),
            Entries::Sectors { zeroed_grains: true } if entry == 1 => return Ok(Place::Zeros),
            Entries::Sectors { .. } => entry,
            Entries::Numbers { grains_sector, .. } => match entry >> 60 {
                0 if entry == 0 => return Ok(Place::Parent),
                // 1 was given back by the guest (SCSI unmap), 2 was zeroed.
                1 | 2 => return Ok(Place::Zeros),
                3 => {
                    let number = entry >> 48 & 0xfff | (entry & 0xffff_ffff_ffff) << 12;
                    grains_sector.saturating_add(number.saturating_mul(self.layout.grain_sectors))
                }
                _ => return Err(Error::corrupt("vmdk seSparse table entry", 0, format!("{entry:#x} is none"))),
            },
        };
        Ok(if self.is_packed() { Place::Packed(bytes_of(sector)) } else { Place::At(bytes_of(sector)) })
    }

    /// Where the bytes at `at` of the extent lie, and for how many bytes that holds; it looks `wanted` bytes far. Where the
    /// directory leads nowhere, its copy is followed.
    fn place(&self, held: &Held, index: usize, at: u64, wanted: u64) -> Result<(Place, u64)> {
        let by = |sector: u64| self.place_by(held, index, sector, at, wanted);
        match (by(self.layout.directory_sector), self.layout.redundant_sector) {
            (Err(error @ Error::Corrupt { .. }), Some(copy)) => by(copy).map_err(|_| error),
            (place, _) => place,
        }
    }

    fn place_by(&self, held: &Held, index: usize, sector: u64, at: u64, wanted: u64) -> Result<(Place, u64)> {
        let (grain, within) = (at / self.grain_bytes, at % self.grain_bytes);
        let (table, first) = (grain / self.layout.table_entries, grain % self.layout.table_entries);
        let Some(start) = self.table(held, index, sector, table)? else {
            let rest = self.layout.table_entries.saturating_sub(first).saturating_mul(self.grain_bytes);
            return Ok((Place::Parent, rest.saturating_sub(within)));
        };
        let entry_bytes = self.layout.entries.bytes();
        let mut entry_at = first * entry_bytes;
        let (slice, begin) = self.slice(held, index, start, self.table_bytes, entry_at)?;
        entry_at = entry_at.saturating_sub(begin);
        let mut place = self.grain(self.entry(&slice, entry_at))?;
        if let Place::At(offset) = &mut place {
            *offset = offset.saturating_add(within);
        }
        let mut length = self.grain_bytes - within;
        // Neighbours on the disk that are neighbours in the file are one read.
        while length < wanted && !matches!(place, Place::Packed(_)) {
            entry_at = entry_at.saturating_add(entry_bytes);
            if entry_at >= slice.len() as u64 {
                break;
            }
            match (place, self.grain(self.entry(&slice, entry_at))) {
                (Place::At(from), Ok(Place::At(to))) if from.saturating_add(length) == to => {}
                (Place::Zeros, Ok(Place::Zeros)) | (Place::Parent, Ok(Place::Parent)) => {}
                _ => break,
            }
            length = length.saturating_add(self.grain_bytes);
        }
        Ok((place, length))
    }

    /// Fills `buffer` with the bytes at `at` of the extent, which begins at `start` of the disk.
    pub(super) fn read(&self, layers: &Layers<'_>, buffer: &mut [u8], at: u64, start: u64) -> Result<()> {
        let mut done = 0_usize;
        while done < buffer.len() {
            let from = at.saturating_add(done as u64);
            let wanted = buffer.len().saturating_sub(done) as u64;
            let (place, length) = self.place(layers.held, layers.index, from, wanted)?;
            let count = usize::try_from(length.min(wanted)).unwrap_or(0);
            let end = done.saturating_add(count);
            let Some(part) = buffer.get_mut(done..end).filter(|part| !part.is_empty()) else { break };
            match place {
                Place::Parent => layers.read_parent(part, start.saturating_add(from))?,
                Place::Zeros => part.fill(0),
                Place::At(offset) => self.read_grains(part, offset, from % self.grain_bytes)?,
                Place::Packed(offset) => self.read_packed(layers, part, offset, from, start)?,
            }
            done = end;
        }
        Ok(())
    }

    /// Reads written grains from `offset` on, which lies `within` bytes in its grain. The last of a file may be cut
    /// short: what is missing there reads as zeros, as QEMU has it; a grain that begins past the end means a file that
    /// was cut.
    fn read_grains(&self, buffer: &mut [u8], offset: u64, within: u64) -> Result<()> {
        let length = self.file.len();
        let reach = within.saturating_add((buffer.len() as u64).saturating_sub(1));
        let last_grain = offset.saturating_sub(within).saturating_add(reach - reach % self.grain_bytes);
        if last_grain >= length {
            let reason = format!("it lies past the end of the file, which has {length} bytes");
            return Err(Error::corrupt("vmdk grain", last_grain, reason));
        }
        let there = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let (present, missing) = buffer.split_at_mut(there);
        missing.fill(0);
        if present.is_empty() { Ok(()) } else { self.file.read_exact_at(present, offset) }
    }

    fn read_packed(&self, layers: &Layers<'_>, part: &mut [u8], offset: u64, at: u64, start: u64) -> Result<()> {
        let within = at % self.grain_bytes;
        let sector = (at - within) / SECTOR_BYTES;
        let sectors = [sector, sector.saturating_add(start / SECTOR_BYTES)];
        if part.len() as u64 == self.grain_bytes {
            let length = self.unpack(layers.held, offset, sectors, part)?;
            return if length == part.len() { Ok(()) } else { Err(too_short(offset, length)) };
        }
        let key = (layers.index, offset);
        let known = layers.held.grains.lock().unwrap_or_else(PoisonError::into_inner).get(key);
        let grain = match known {
            Some(grain) => grain,
            None => {
                let mut bytes = zeroed(self.grain_bytes).unwrap_or_default();
                let length = self.unpack(layers.held, offset, sectors, &mut bytes)?;
                bytes.truncate(length);
                let grain: Arc<[u8]> = bytes.into();
                let mut grains = layers.held.grains.lock().unwrap_or_else(PoisonError::into_inner);
                grains.insert(key, Arc::clone(&grain));
                grain
            }
        };
        let from = usize::try_from(within).unwrap_or(usize::MAX);
        let bytes = slice(&grain, from, part.len()).ok_or_else(|| too_short(offset, grain.len()))?;
        part.copy_from_slice(bytes);
        Ok(())
    }

    /// Unpacks the grain at `offset` of the file into `buffer`, which has a grain's size; gives the bytes it held. The
    /// marker must name one of `sectors`: that of the extent, or that of the disk.
    fn unpack(&self, held: &Held, offset: u64, sectors: [u64; 2], buffer: &mut [u8]) -> Result<usize> {
        let corrupt = |reason: String| Error::corrupt("vmdk compressed grain", offset, reason);
        let bound = usize::try_from(self.grain_bytes.saturating_mul(2)).unwrap_or(usize::MAX);
        let mut packed = read_up_to(&*self.file, offset, MARKER_READ_BYTES)?;
        let (from, length) = match self.layout.packing {
            Packing::Marked => {
                let (Some(sector), Some(length)) = (le_u64(&packed, 0), le_u32(&packed, 8)) else {
                    return Err(corrupt(format!(
                        "it lies past the end of the file, which has {} bytes",
                        self.file.len()
                    )));
                };
                if !sectors.contains(&sector) {
                    return Err(corrupt(format!("its marker names sector {sector}, the table {}", sectors[0])));
                }
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > bound {
                    return Err(corrupt(format!("{length} packed bytes are more than two grains")));
                }
                (MARKER_BYTES, length)
            }
            Packing::Bare | Packing::None => {
                let there = self.file.len().saturating_sub(offset);
                (0, usize::try_from(there).unwrap_or(usize::MAX).min(bound))
            }
        };
        let end = from.saturating_add(length);
        if let Some(missing) = end.checked_sub(packed.len()).filter(|missing| *missing > 0) {
            let at = offset.saturating_add(packed.len() as u64);
            let rest = read_up_to(&*self.file, at, missing)?;
            if rest.len() < missing {
                return Err(corrupt(format!("it leaves the file, which has {} bytes", self.file.len())));
            }
            packed.extend_from_slice(&rest);
        }
        let stream = packed.get(from..end).unwrap_or_default();
        let unpacked = held.inflate.unpack(stream, buffer).map_err(corrupt)?;
        if !unpacked.ended {
            return Err(corrupt(format!("its stream does not end within a grain: {} bytes so far", unpacked.length)));
        }
        Ok(unpacked.length)
    }
}

fn too_short(offset: u64, length: usize) -> Error {
    Error::corrupt("vmdk compressed grain", offset, format!("it unpacks to {length} bytes only"))
}
