//! VirtualBox disk images, dynamic, fixed and differencing, with headers of version 0 and 1.
//!
//! The format is described by VirtualBox's `VDICore.h` (structures and constants), whose field names are used, and by
//! QEMU's `docs` and `block/vdi.c` on what its own images are like. A differencing image names its parent by UUID
//! only; VirtualBox keeps the paths in its registry. So the parent is looked for by its UUID among the files beside.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blocks::{Blocks, Place, Table, read};
use super::file::HostFile;
use super::parent::guid_text;
use super::{Chain, Format, Layer};
use crate::bytes::{array, le_u32, le_u64};
use crate::error::{Error, Result};
use crate::read_at::{ReadAt, Source, check_range, read_up_to};

/// `VDIPREHEADER` and the longest header, `VDIHEADER1PLUS`.
const HEAD_BYTES: usize = 72 + 400;
/// `sizeof(VDIHEADER1)`, the shortest header of version 1.
const HEADER_V1_BYTES: u32 = 384;
/// Where the block array of version 0 begins: after `VDIPREHEADER` and `VDIHEADER0`.
const TABLE_V0_OFFSET: u64 = 72 + 348;
/// Bytes of a sector; a disk that ends within one is completed with zeros, as QEMU and VirtualBox do.
const SECTOR_BYTES: u64 = 512;
/// `VDI_IMAGE_BLOCK_FREE`: not in this image.
const BLOCK_FREE: u32 = u32::MAX;
/// `VDI_IMAGE_BLOCK_ZERO`: zeros.
const BLOCK_ZERO: u32 = u32::MAX - 1;
/// Files looked at in search of a parent: VirtualBox keeps a disk and its snapshots in folders of a few.
const NEIGHBOURS_MAX: usize = 512;

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) virtual_size: u64,
    pub(super) block_bytes: u32,
    /// Bytes before each block in the file.
    extra_bytes: u32,
    blocks: u32,
    table_offset: u64,
    data_offset: u64,
    uuid: [u8; 16],
    modification: [u8; 16],
    parent: Option<Parent>,
}

/// Of which image this one is a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parent {
    uuid: [u8; 16],
    /// What the parent's modification UUID was; version 0 does not say.
    modification: Option<[u8; 16]>,
}

fn corrupt(offset: u64, reason: impl Into<String>) -> Error {
    Error::corrupt("vdi header", offset, reason)
}

impl Header {
    /// Reads and checks the header of `file`.
    pub(super) fn read(file: &dyn ReadAt) -> Result<Self> {
        Self::parse(&read_up_to(file, 0, HEAD_BYTES)?)
    }

    fn parse(head: &[u8]) -> Result<Self> {
        let short = || corrupt(0, format!("the file ends after {} bytes, within it", head.len()));
        let field = |at| le_u32(head, at).ok_or_else(short);
        let wide = |at| le_u64(head, at).ok_or_else(short);
        let uuid = |at| array::<16>(head, at).ok_or_else(short);
        if field(64)? != 0xbeda_107f {
            return Err(corrupt(64, "it does not have the signature beda107f"));
        }
        let (major, minor) = (field(68)? >> 16, field(68)? & 0xffff);
        // Where the two layouts part: comment, then either two offsets or none, geometry, sizes, UUIDs.
        let (kind, header) = match major {
            0 => {
                let blocks = field(364)?;
                let header = Self {
                    virtual_size: wide(352)?,
                    block_bytes: field(360)?,
                    extra_bytes: 0,
                    blocks,
                    table_offset: TABLE_V0_OFFSET,
                    data_offset: TABLE_V0_OFFSET.saturating_add(u64::from(blocks) * 4),
                    uuid: uuid(372)?,
                    modification: uuid(388)?,
                    parent: named(uuid(404)?).map(|uuid| Parent { uuid, modification: None }),
                };
                (field(72)?, header)
            }
            1 => {
                if field(72)? < HEADER_V1_BYTES {
                    return Err(corrupt(72, format!("a header of {} bytes is too short", field(72)?)));
                }
                let modification = named(uuid(440)?);
                let header = Self {
                    virtual_size: wide(368)?,
                    block_bytes: field(376)?,
                    extra_bytes: field(380)?,
                    blocks: field(384)?,
                    table_offset: field(340)?.into(),
                    data_offset: field(344)?.into(),
                    uuid: uuid(392)?,
                    modification: uuid(408)?,
                    parent: named(uuid(424)?).map(|uuid| Parent { uuid, modification }),
                };
                (field(76)?, header)
            }
            _ => return Err(Error::unsupported(format!("vdi version {major}.{minor}"))),
        };
        header.check(kind)
    }

    fn check(mut self, kind: u32) -> Result<Self> {
        // VDI_IMAGE_TYPE_NORMAL, FIXED, UNDO, DIFF: the latter two are nothing without a parent.
        match (kind, self.parent) {
            (1 | 2, None) | (3 | 4, Some(_)) => {}
            (1 | 2, Some(_)) => return Err(corrupt(76, "a base image names a parent")),
            (3 | 4, None) => return Err(corrupt(76, "a differencing image does not say what its parent is")),
            _ => return Err(Error::unsupported(format!("vdi image type {kind}"))),
        }
        if !self.block_bytes.is_power_of_two() || u64::from(self.block_bytes) < SECTOR_BYTES {
            return Err(corrupt(376, format!("a block of {} bytes is no power of two from 512", self.block_bytes)));
        }
        self.virtual_size = (self.virtual_size.checked_next_multiple_of(SECTOR_BYTES))
            .filter(|size| *size <= i64::MAX as u64)
            .ok_or_else(|| corrupt(368, format!("a virtual size of {} bytes cannot be", self.virtual_size)))?;
        let room = u64::from(self.blocks).saturating_mul(self.block_bytes.into());
        if self.virtual_size > room {
            let reason = format!("its {} blocks hold {room} bytes of the disk's {}", self.blocks, self.virtual_size);
            return Err(corrupt(384, reason));
        }
        Ok(self)
    }
}

/// A UUID, unless it is null.
fn named(uuid: [u8; 16]) -> Option<[u8; 16]> {
    (uuid != [0; 16]).then_some(uuid)
}

/// An opened image.
#[derive(Debug)]
struct Vdi {
    header: Header,
    file: Source,
    table: Table,
    parent: Option<Source>,
}

impl Blocks for Vdi {
    const DATA: &'static str = "vdi data block";

    fn place(&self, at: u64, _: u64) -> Result<(Place, u64)> {
        let block_bytes = u64::from(self.header.block_bytes);
        let (block, within) = (at / block_bytes, at % block_bytes);
        let place = match u32::from_le_bytes(self.table.entry(block)?) {
            BLOCK_FREE => Place::Parent,
            BLOCK_ZERO => Place::Zeros,
            index => {
                let stride = block_bytes + u64::from(self.header.extra_bytes);
                let start = u64::from(index).saturating_mul(stride).saturating_add(self.header.data_offset);
                Place::At(start.saturating_add(u64::from(self.header.extra_bytes)).saturating_add(within))
            }
        };
        Ok((place, block_bytes - within))
    }
}

impl ReadAt for Vdi {
    fn len(&self) -> u64 {
        self.header.virtual_size
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len(), buffer.len(), offset)?;
        read(self, &*self.file, self.parent.as_ref(), buffer, offset)
    }
}

impl Chain<'_> {
    pub(super) fn open_vdi(&mut self, file: Source, mut layer: Layer, only_guessed: bool) -> Result<Source> {
        let header = Header::read(&*file)?;
        layer.virtual_size_bytes = header.virtual_size;
        layer.cluster_size_bytes = Some(header.block_bytes.into());
        let path = layer.path.clone();
        self.image.push(layer);
        let table_bytes = u64::from(header.blocks) * 4;
        let table = Table::new(&file, "vdi block array", header.table_offset, table_bytes)?;
        let parent = match header.parent {
            Some(parent) => {
                self.refuse_guessed(&path, only_guessed)?;
                Some(self.open_vdi_parent(&path, parent)?)
            }
            None => None,
        };
        Ok(Arc::new(Vdi { header, file, table, parent }))
    }

    fn open_vdi_parent(&mut self, path: &Path, parent: Parent) -> Result<Source> {
        let found = self.find_vdi(path, &parent.uuid)?;
        let is_current = |file: &HostFile| {
            let is_stale = match parent.modification {
                Some(recorded) => recorded != Header::read(file)?.modification,
                None => false,
            };
            Ok(is_stale.then(|| {
                let parent = file.path().display();
                format!("{parent} was modified after {} was made from it, as their UUIDs say", path.display())
            }))
        };
        self.open_parent(path, Format::Vdi, &[found], is_current)
    }

    /// The image called `uuid` near `path`: VirtualBox names snapshots by their UUID, and keeps them in a folder
    /// `Snapshots` beside the disk they belong to.
    fn find_vdi(&self, path: &Path, uuid: &[u8; 16]) -> Result<PathBuf> {
        let directory = path.parent().unwrap_or(Path::new(""));
        let is_snapshots = directory.file_name().is_some_and(|name| name == "Snapshots");
        let above = directory.parent().filter(|_| is_snapshots);
        let by_name = directory.join(format!("{{{}}}.vdi", guid_text(uuid)));
        let mut candidates = vec![by_name.clone()];
        for directory in [Some(directory), above].into_iter().flatten() {
            let is_vdi = |path: &PathBuf| path.extension().is_some_and(|name| name.eq_ignore_ascii_case("vdi"));
            candidates.extend(self.opener.files_in(directory)?.into_iter().filter(is_vdi).take(NEIGHBOURS_MAX));
        }
        for candidate in candidates {
            match self.host_file(&candidate).and_then(|file| Header::read(&file)) {
                Ok(header) if header.uuid == *uuid => return Ok(candidate),
                Err(error) if error.is_budget_exhausted() => return Err(error),
                // Another image, or none, or none of our business.
                Ok(_) | Err(_) => {}
            }
        }
        Err(Error::NotFound { path: by_name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(bytes: &mut [u8], at: usize, value: u32) {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn header_v1() -> Vec<u8> {
        let mut bytes = vec![0; 512];
        put(&mut bytes, 64, 0xbeda_107f);
        put(&mut bytes, 68, 0x0001_0001);
        put(&mut bytes, 72, 400);
        put(&mut bytes, 76, 1);
        put(&mut bytes, 340, 512);
        put(&mut bytes, 344, 1024);
        put(&mut bytes, 368, 3 << 20);
        put(&mut bytes, 376, 1 << 20);
        put(&mut bytes, 384, 3);
        bytes
    }

    #[test]
    fn headers_that_contradict_themselves_are_refused() {
        assert_eq!(Header::parse(&header_v1()).unwrap().virtual_size, 3 << 20);
        for (at, value, expected) in [
            (72, 380, "too short"),
            (76, 4, "does not say what its parent is"),
            (424, 1, "names a parent"),
            (376, 0, "power of two"),
            (376, 3 << 19, "power of two"),
            (384, 2, "blocks hold"),
            (372, u32::MAX, "cannot be"),
            (64, 0, "signature"),
        ] {
            let mut bytes = header_v1();
            put(&mut bytes, at, value);
            let refused = Header::parse(&bytes).unwrap_err();
            assert!(matches!(refused, Error::Corrupt { .. }) && refused.to_string().contains(expected), "{refused}");
        }
        for (at, value) in [(68, 0x0002_0000), (76, 5)] {
            let mut bytes = header_v1();
            put(&mut bytes, at, value);
            assert!(matches!(Header::parse(&bytes), Err(Error::Unsupported { .. })));
        }
        let whole = header_v1();
        for length in 0..456 {
            assert!(Header::parse(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_disk_that_ends_within_a_sector_is_completed() {
        let mut bytes = header_v1();
        put(&mut bytes, 368, (3 << 20) - 700);
        assert_eq!(Header::parse(&bytes).unwrap().virtual_size, (3 << 20) - 512);
    }

    /// No program that writes version 0 is left; the layout is that of `VDIHEADER0`.
    #[test]
    fn version_0_has_its_blocks_behind_the_header() {
        let mut bytes = vec![0; 420];
        put(&mut bytes, 64, 0xbeda_107f);
        put(&mut bytes, 72, 1);
        put(&mut bytes, 352, 4096);
        put(&mut bytes, 360, 2048);
        put(&mut bytes, 364, 2);
        bytes.extend([1_u32, 0].iter().flat_map(|index| index.to_le_bytes()));
        bytes.extend([7; 2048]);
        bytes.extend([9; 2048]);
        let header = Header::parse(&bytes).unwrap();
        let file: Source = Arc::new(bytes);
        let table = Table::new(&file, "vdi block array", header.table_offset, 8).unwrap();
        let vdi = Vdi { header, file, table, parent: None };
        let mut disk = [0; 4096];
        vdi.read_exact_at(&mut disk, 0).unwrap();
        assert!(disk[..2048] == [9; 2048] && disk[2048..] == [7; 2048]);
    }
}
