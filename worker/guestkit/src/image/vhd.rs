//! Virtual PC and Hyper-V disks: fixed, dynamic and differencing, after the "Virtual Hard Disk Image Format
//! Specification" 1.0 of Microsoft, whose section and field names are used. Numbers are big-endian.
//!
//! The sector bitmaps of a dynamic disk are not looked at: Hyper-V and QEMU do not, and some writers leave them empty. In
//! a differencing disk they decide between the image and its parent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blocks::{BitOrder, Blocks, Pieces, Place, Table, read, run};
use super::file::HostFile;
use super::parent::{place_beside, utf16_text};
use super::{Chain, Format, Layer};
use crate::bytes::{array, be_u16, be_u32, be_u64, has, hex, le_u16, slice, sum_holds};
use crate::error::{Error, Result};
use crate::read_at::{ReadAt, Slice, Source, check_range, read_up_to};

const SECTOR_BYTES: u64 = 512;
const FOOTER_BYTES: usize = 512;
const DYNAMIC_HEADER_BYTES: usize = 1024;
/// Sectors of the largest geometry, 65535 cylinders, 16 heads, 255 sectors: a larger disk has the same.
const GEOMETRY_SECTORS_MAX: u64 = 65535 * 16 * 255;
/// "Block Allocation Table": an entry of a block that is not in the file.
const BLOCK_UNUSED: u32 = u32::MAX;
/// A path of Windows has at most 32767 characters.
const LOCATOR_BYTES_MAX: u32 = 64 << 10;
/// Seconds from 1970 to 2000, where the format's time begins.
const EPOCH_SECONDS: i64 = 946_684_800;
/// FAT keeps times of files to two seconds.
const TIME_TOLERANCE_SECONDS: u64 = 2;

/// "Disk Type".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fixed,
    Dynamic,
    Differencing,
}

/// "Hard Disk Footer Format".
#[derive(Debug, Clone, PartialEq, Eq)]
struct Footer {
    kind: Kind,
    data_offset: u64,
    creator: [u8; 4],
    current_size: u64,
    /// Cylinders times heads times sectors per track.
    geometry_sectors: u64,
    unique_id: [u8; 16],
}

/// A footer, and where it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    footer: Footer,
    /// Where the footer begins, which is where everything else ends; the length of the file without one at the end.
    data_end: u64,
    /// Why the copy at the start of the file was used.
    damage: Option<String>,
}

fn footer_corrupt(offset: u64, reason: impl Into<String>) -> Error {
    Error::corrupt("vhd footer", offset, reason)
}

impl Footer {
    /// The footer of `file`: the one at its end, or, where that is damaged, the copy that a dynamic disk begins with.
    fn find(file: &dyn ReadAt) -> Result<Found> {
        let tail_offset = file.len().saturating_sub(FOOTER_BYTES as u64);
        let tail = read_up_to(file, tail_offset, FOOTER_BYTES)?;
        // Virtual PC before 2004 wrote 511 bytes.
        let skipped = usize::from(!has(&tail, 0, b"conectix") && has(&tail, 1, b"conectix"));
        let at_end = Self::parse(tail.get(skipped..).unwrap_or_default(), tail_offset.saturating_add(skipped as u64));
        let damage = match at_end {
            Ok(footer) => {
                return Ok(Found { footer, data_end: tail_offset.saturating_add(skipped as u64), damage: None });
            }
            Err(error @ Error::Corrupt { .. }) => error,
            Err(error) => return Err(error),
        };
        match Self::parse(&read_up_to(file, 0, FOOTER_BYTES)?, 0) {
            Ok(footer) if footer.kind != Kind::Fixed => {
                Ok(Found { footer, data_end: file.len(), damage: Some(damage.to_string()) })
            }
            _ => Err(damage),
        }
    }

    fn parse(bytes: &[u8], offset: u64) -> Result<Self> {
        let short = || footer_corrupt(offset, format!("the file ends {} bytes into it", bytes.len()));
        if !has(bytes, 0, b"conectix") {
            return Err(footer_corrupt(offset, "it does not begin with the cookie conectix"));
        }
        check_sum(bytes, 64).map_err(|reason| footer_corrupt(offset, reason))?;
        let version = be_u32(bytes, 12).ok_or_else(short)?;
        if version >> 16 != 1 {
            return Err(Error::unsupported(format!("vhd version {}.{}", version >> 16, version & 0xffff)));
        }
        let kind = match be_u32(bytes, 60).ok_or_else(short)? {
            2 => Kind::Fixed,
            3 => Kind::Dynamic,
            4 => Kind::Differencing,
            other => return Err(Error::unsupported(format!("vhd disk type {other}"))),
        };
        let [heads, per_track] = array(bytes, 58).ok_or_else(short)?;
        let cylinders = be_u16(bytes, 56).ok_or_else(short)?;
        Ok(Self {
            kind,
            data_offset: be_u64(bytes, 16).ok_or_else(short)?,
            creator: array(bytes, 28).ok_or_else(short)?,
            current_size: be_u64(bytes, 48).ok_or_else(short)?,
            geometry_sectors: u64::from(cylinders) * u64::from(heads) * u64::from(per_track),
            unique_id: array(bytes, 68).ok_or_else(short)?,
        })
    }

    /// Bytes the guest sees. Virtual PC shows what the geometry covers, Hyper-V and everybody after it the current size;
    /// which of them it was says the creator application. The rule, and the list of two, are QEMU's (`block/vpc.c`,
    /// since 9.2): Virtual PC, and QEMU where it was not told `force_size`. A geometry that is at its maximum, or that
    /// is empty, says nothing.
    fn virtual_size(&self) -> u64 {
        let is_geometric = matches!(&self.creator, b"vpc " | b"qemu");
        if is_geometric && !matches!(self.geometry_sectors, 0 | GEOMETRY_SECTORS_MAX) {
            self.geometry_sectors * SECTOR_BYTES
        } else {
            self.current_size - self.current_size % SECTOR_BYTES
        }
    }
}

/// "Checksum": the one's complement of the sum of all bytes but its own, which stand at `at`.
fn check_sum(bytes: &[u8], at: usize) -> std::result::Result<(), String> {
    let sum = |bytes: &[u8]| bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    let own = slice(bytes, at, 4).unwrap_or_default();
    let computed = !sum(bytes).wrapping_sub(sum(own));
    match be_u32(bytes, at) {
        Some(recorded) if sum_holds(recorded == computed) => Ok(()),
        Some(recorded) => Err(format!("its checksum is {recorded:08x}, of its bytes {computed:08x}")),
        None => Err(format!("the file ends {} bytes into it", bytes.len())),
    }
}

/// "Dynamic Disk Header Format".
#[derive(Debug, Clone, PartialEq, Eq)]
struct DynamicHeader {
    table_offset: u64,
    entries: u32,
    block_bytes: u32,
    parent_id: [u8; 16],
    parent_time: u32,
    parent_name: String,
    locators: Vec<Locator>,
}

/// "Parent Locator Entry": where the path of the parent stands, and in what form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Locator {
    platform: [u8; 4],
    offset: u64,
    length: u32,
}

fn header_corrupt(offset: u64, reason: impl Into<String>) -> Error {
    Error::corrupt("vhd dynamic disk header", offset, reason)
}

impl DynamicHeader {
    fn read(file: &dyn ReadAt, offset: u64) -> Result<Self> {
        Self::parse(&read_up_to(file, offset, DYNAMIC_HEADER_BYTES)?, offset)
    }

    fn parse(bytes: &[u8], offset: u64) -> Result<Self> {
        let short = || header_corrupt(offset, format!("the file ends {} bytes into it", bytes.len()));
        if bytes.len() < DYNAMIC_HEADER_BYTES {
            return Err(short());
        }
        if !has(bytes, 0, b"cxsparse") {
            return Err(header_corrupt(offset, "it does not begin with the cookie cxsparse"));
        }
        check_sum(bytes, 36).map_err(|reason| header_corrupt(offset, reason))?;
        let version = be_u32(bytes, 24).ok_or_else(short)?;
        if version >> 16 != 1 {
            return Err(Error::unsupported(format!("vhd dynamic disk version {}", version >> 16)));
        }
        let block_bytes = be_u32(bytes, 32).ok_or_else(short)?;
        if !block_bytes.is_power_of_two() || u64::from(block_bytes) < SECTOR_BYTES {
            return Err(header_corrupt(offset, format!("a block of {block_bytes} bytes is no power of two from 512")));
        }
        let name = slice(bytes, 64, 512).unwrap_or_default();
        let locators = slice(bytes, 576, 8 * 24).unwrap_or_default().chunks_exact(24);
        Ok(Self {
            table_offset: be_u64(bytes, 16).ok_or_else(short)?,
            entries: be_u32(bytes, 28).ok_or_else(short)?,
            block_bytes,
            parent_id: array(bytes, 40).ok_or_else(short)?,
            parent_time: be_u32(bytes, 56).ok_or_else(short)?,
            parent_name: utf16_text(name.chunks_exact(2).filter_map(|unit| be_u16(unit, 0))),
            locators: locators.filter_map(Locator::parse).collect(),
        })
    }

    /// The names the image has for its parent, the most portable first.
    fn parent_names(&self, file: &dyn ReadAt) -> Result<Vec<String>> {
        let mut names = Vec::new();
        // Wi2r and Wi2k are deprecated and were never seen with anything; "Mac " is an alias only a Macintosh resolves.
        for platform in [b"W2ru", b"MacX", b"W2ku"] {
            for locator in self.locators.iter().filter(|locator| locator.platform == *platform) {
                names.push(locator.read(file)?);
            }
        }
        names.push(self.parent_name.clone());
        Ok(names)
    }
}

impl Locator {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self { platform: array(bytes, 0)?, length: be_u32(bytes, 8)?, offset: be_u64(bytes, 16)? })
    }

    fn read(&self, file: &dyn ReadAt) -> Result<String> {
        if self.length > LOCATOR_BYTES_MAX {
            let reason = format!("a path of {} bytes cannot be", self.length);
            return Err(Error::corrupt("vhd parent locator", self.offset, reason));
        }
        let mut bytes = vec![0; self.length as usize];
        file.read_exact_at(&mut bytes, self.offset)
            .map_err(|error| error.in_structure("vhd parent locator", self.offset))?;
        Ok(match &self.platform {
            b"MacX" => path_of_url(&bytes),
            _ => utf16_text(bytes.chunks_exact(2).filter_map(|unit| le_u16(unit, 0))),
        })
    }
}

/// The path in a `file:` URL (RFC 8089), without its host; `vhd-util` of Xen writes relative ones.
fn path_of_url(url: &[u8]) -> String {
    let url = url.split(|byte| *byte == 0).next().unwrap_or_default();
    let path = url.strip_prefix(b"file://").unwrap_or(url);
    let mut path = path.strip_prefix(b"localhost").unwrap_or(path);
    let mut decoded = Vec::with_capacity(path.len());
    while let Some((first, rest)) = path.split_first() {
        let escaped = (*first == b'%').then(|| rest.split_at_checked(2)).flatten();
        let number = escaped.and_then(|(digits, _)| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (number, escaped) {
            (Some(byte), Some((_, rest))) => {
                decoded.push(byte);
                path = rest;
            }
            _ => {
                decoded.push(*first);
                path = rest;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// How the blocks of a dynamic or differencing disk lie in the file.
#[derive(Debug)]
struct BlockMap {
    table: Table,
    block_bytes: u64,
    bitmap_bytes: u64,
    /// Sector bitmaps, where they are looked at: in a differencing disk.
    bitmaps: Option<Pieces>,
}

impl BlockMap {
    fn new(file: &Source, header: &DynamicHeader, kind: Kind) -> Result<Self> {
        let table_bytes = u64::from(header.entries) * 4;
        let table = Table::new(file, "vhd block allocation table", header.table_offset, table_bytes)?;
        let block_bytes = u64::from(header.block_bytes);
        // "Block Allocation Table and Data Blocks": a bit for each sector, filled up to a sector.
        let bitmap_bytes = (block_bytes / SECTOR_BYTES).div_ceil(8).next_multiple_of(SECTOR_BYTES);
        let is_differencing = kind == Kind::Differencing;
        let bitmaps = is_differencing.then(|| Pieces::new(Arc::clone(file), "vhd sector bitmap", bitmap_bytes));
        Ok(Self { table, block_bytes, bitmap_bytes, bitmaps })
    }

    fn place(&self, at: u64, wanted: u64) -> Result<(Place, u64)> {
        let (block, within) = (at / self.block_bytes, at % self.block_bytes);
        let rest = self.block_bytes - within;
        let start = match u32::from_be_bytes(self.table.entry(block)?) {
            BLOCK_UNUSED => return Ok((Place::Parent, rest)),
            sector => u64::from(sector) * SECTOR_BYTES,
        };
        let here = Place::At(start.saturating_add(self.bitmap_bytes).saturating_add(within));
        let Some(bitmaps) = &self.bitmaps else { return Ok((here, rest)) };
        let bitmap = bitmaps.get(start, self.bitmap_bytes)?;
        let (sector, before) = (within / SECTOR_BYTES, within % SECTOR_BYTES);
        let sectors = before.saturating_add(wanted.min(rest)).div_ceil(SECTOR_BYTES);
        let (is_here, sectors) = run(&bitmap, BitOrder::HighFirst, sector, sectors);
        let length = (sectors * SECTOR_BYTES).saturating_sub(before).min(rest);
        Ok((if is_here { here } else { Place::Parent }, length))
    }
}

/// An opened image.
#[derive(Debug)]
struct Vhd {
    virtual_size: u64,
    /// The file up to its footer.
    file: Slice,
    /// `None` for a fixed disk, whose bytes follow one another.
    map: Option<BlockMap>,
    parent: Option<Source>,
}

impl Blocks for Vhd {
    const DATA: &'static str = "vhd data block";

    fn place(&self, at: u64, wanted: u64) -> Result<(Place, u64)> {
        match &self.map {
            None => Ok((Place::At(at), self.virtual_size.saturating_sub(at).max(1))),
            Some(map) => map.place(at, wanted),
        }
    }
}

impl ReadAt for Vhd {
    fn len(&self) -> u64 {
        self.virtual_size
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len(), buffer.len(), offset)?;
        read(self, &self.file, self.parent.as_ref(), buffer, offset)
    }
}

impl Chain<'_> {
    pub(super) fn open_vhd(&mut self, file: Source, mut layer: Layer, only_guessed: bool) -> Result<Source> {
        let Found { footer, data_end, damage } = Footer::find(&*file)?;
        let path = layer.path.clone();
        if let Some(damage) = damage {
            self.warnings.push(format!("{}: {damage}; the copy at its start was used", path.display()));
        }
        let virtual_size = footer.virtual_size();
        layer.virtual_size_bytes = virtual_size;
        if footer.kind == Kind::Fixed {
            self.image.push(layer);
            let file = Slice::new(file, 0, data_end);
            return Ok(Arc::new(Vhd { virtual_size, file, map: None, parent: None }));
        }
        let header = DynamicHeader::read(&*file, footer.data_offset)?;
        let room = u64::from(header.entries) * u64::from(header.block_bytes);
        if virtual_size > room {
            let reason = format!("its {} blocks hold {room} bytes of the disk's {virtual_size}", header.entries);
            return Err(header_corrupt(footer.data_offset, reason));
        }
        layer.cluster_size_bytes = Some(header.block_bytes.into());
        self.image.push(layer);
        let map = Some(BlockMap::new(&file, &header, footer.kind)?);
        let parent = match footer.kind {
            Kind::Differencing => {
                self.refuse_guessed(&path, only_guessed)?;
                Some(self.open_vhd_parent(&path, &*file, &header)?)
            }
            Kind::Fixed | Kind::Dynamic => None,
        };
        Ok(Arc::new(Vhd { virtual_size, file: Slice::new(file, 0, data_end), map, parent }))
    }

    fn open_vhd_parent(&mut self, path: &Path, file: &dyn ReadAt, header: &DynamicHeader) -> Result<Source> {
        let names = header.parent_names(file)?;
        let mut candidates: Vec<PathBuf> = names.iter().filter_map(|name| place_beside(path, name)).collect();
        candidates.dedup();
        self.open_parent(path, Format::Vhd, &candidates, |parent| check_parent(path, header, parent))
    }
}

/// Whether `parent` is the disk that `header` names. Its unique id must be; its "Parent Time Stamp" tells when the parent
/// was last written to, which a copy of the file need not keep, so a difference is only told.
fn check_parent(child: &Path, header: &DynamicHeader, parent: &HostFile) -> Result<Option<String>> {
    let found = Footer::find(parent)?;
    if found.footer.unique_id != header.parent_id {
        let reason = format!(
            "{} has the unique id {}, and {} was made from {}",
            parent.path().display(),
            hex(&found.footer.unique_id),
            child.display(),
            hex(&header.parent_id)
        );
        return Err(Error::corrupt("backing chain", 0, reason));
    }
    let recorded = i64::from(header.parent_time).saturating_add(EPOCH_SECONDS);
    let is_late = header.parent_time != 0
        && parent.modified() > recorded
        && parent.modified().abs_diff(recorded) > TIME_TOLERANCE_SECONDS;
    Ok(is_late.then(|| {
        format!(
            "{} has a later time than {} recorded of it: it was copied, or modified since",
            parent.path().display(),
            child.display()
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
        bytes[at..at + 4].fill(0);
        let sum = bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
        bytes[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
        bytes
    }

    fn footer(edit: impl Fn(&mut [u8])) -> Result<Footer> {
        let mut bytes = vec![0; 512];
        bytes[..16].copy_from_slice(b"conectix\0\0\0\x02\0\x01\0\0");
        bytes[48..56].copy_from_slice(&(1_u64 << 30).to_be_bytes());
        bytes[60..64].copy_from_slice(&2_u32.to_be_bytes());
        edit(&mut bytes);
        Footer::parse(&sealed(bytes, 64), 0)
    }

    #[test]
    fn footers_of_other_kinds_are_refused() {
        assert_eq!(footer(|_| {}).unwrap().virtual_size(), 1 << 30);
        for kind in [0, 1, 5, 6, 9] {
            let met = footer(|bytes| bytes[63] = kind);
            assert!(matches!(&met, Err(Error::Unsupported { what }) if what.contains("disk type")), "{met:?}");
        }
        let met = footer(|bytes| bytes[13] = 2);
        assert!(matches!(&met, Err(Error::Unsupported { what }) if what.contains("version 2")), "{met:?}");
        assert!(matches!(Footer::parse(b"conectix", 0), Err(Error::Corrupt { .. })));
    }

    fn header(edit: impl Fn(&mut [u8])) -> Result<DynamicHeader> {
        let mut bytes = vec![0; 1024];
        bytes[..8].copy_from_slice(b"cxsparse");
        bytes[25] = 1;
        bytes[33] = 0x20;
        edit(&mut bytes);
        DynamicHeader::parse(&sealed(bytes, 36), 512)
    }

    #[test]
    fn blocks_are_powers_of_two_from_a_sector() {
        assert_eq!(header(|_| {}).unwrap().block_bytes, 2 << 20);
        for bytes in [0_u32, 1, 256, 3 << 20, u32::MAX] {
            let met = header(|header| header[32..36].copy_from_slice(&bytes.to_be_bytes()));
            assert!(matches!(met, Err(Error::Corrupt { .. })), "{bytes}: {met:?}");
        }
    }

    #[test]
    fn a_path_longer_than_a_path_is_refused() {
        let locator = Locator { platform: *b"W2ru", offset: 0, length: u32::MAX };
        assert!(matches!(locator.read(&Vec::new()), Err(Error::Corrupt { structure: "vhd parent locator", .. })));
    }

    #[test]
    fn urls_of_files_are_paths() {
        for (url, path) in [
            ("file:///Users/me/a%20b.vhd", "/Users/me/a b.vhd"),
            ("file://localhost/a.vhd", "/a.vhd"),
            ("file://./a.vhd\0rest", "./a.vhd"),
            ("file://100%", "100%"),
            ("file://%zz%4", "%zz%4"),
            ("", ""),
        ] {
            assert_eq!(path_of_url(url.as_bytes()), path);
        }
    }
}
