//! The metadata region: what kind of disk the file holds, and where its parent is.

use super::header::{Region, guid};
use crate::bytes::{array, has, le_u16, le_u32, slice};
use crate::error::{Error, Result};
use crate::image::parent::{guid_text, utf16_text};
use crate::limits::Budget;
use crate::read_at::{ReadAt, read_up_to};

/// "Metadata Table" (2.6.1): its bytes, which no item may lie in, and what fits.
const TABLE_BYTES: u32 = 64 << 10;
const ITEMS_MAX: u16 = 2047;
/// "Metadata Table Entry" (2.6.1.2): bytes of an item.
const ITEM_BYTES_MAX: u32 = 1 << 20;
/// "Virtual Disk Size" (2.6.2.2).
const VIRTUAL_SIZE_MAX: u64 = 64 << 40;
/// "File Parameters" (2.6.2.1): bytes of a block.
const BLOCK_BYTES: std::ops::RangeInclusive<u32> = 1 << 20..=256 << 20;

/// "Known Metadata Items" (2.6.2).
mod item {
    use super::guid;

    pub(super) const FILE_PARAMETERS: [u8; 16] = guid(0xcaa1_6737_fa36_4d43_b3b6_33f0_aa44_e76b);
    pub(super) const VIRTUAL_DISK_SIZE: [u8; 16] = guid(0x2fa5_4224_cd1b_4876_b211_5dbe_d83b_f4b8);
    pub(super) const VIRTUAL_DISK_ID: [u8; 16] = guid(0xbeca_12ab_b2e6_4523_93ef_c309_e000_c746);
    pub(super) const LOGICAL_SECTOR_SIZE: [u8; 16] = guid(0x8141_bf1d_a96f_4709_ba47_f233_a8fa_ab5f);
    pub(super) const PHYSICAL_SECTOR_SIZE: [u8; 16] = guid(0xcda3_48c7_445d_4471_9cc9_e988_5251_c556);
    pub(super) const PARENT_LOCATOR: [u8; 16] = guid(0xa8d3_5f2d_b30b_454d_abf7_d3d8_4834_ab0c);
}

/// "VHDX Parent Locator" (2.6.2.6.3).
const VHDX_LOCATOR: [u8; 16] = guid(0xb04a_efb7_d19e_4a81_b789_25b8_e944_5913);

fn corrupt(offset: u64, reason: impl Into<String>) -> Error {
    Error::corrupt("vhdx metadata", offset, reason)
}

/// What the items say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Metadata {
    /// A power of two from 1 MiB to 256 MiB.
    pub(super) block_bytes: u32,
    pub(super) has_parent: bool,
    pub(super) virtual_size: u64,
    /// 512 or 4096.
    pub(super) sector_bytes: u32,
    locator: Option<Item>,
}

/// Where an item lies within the region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Item {
    offset: u32,
    length: u32,
}

/// Where the parent is, and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Locator {
    /// The GUIDs of which the parent's data must have one.
    pub(super) linkages: Vec<[u8; 16]>,
    /// Paths to it, in the order in which they are to be tried.
    pub(super) paths: Vec<String>,
}

impl Metadata {
    /// Reads the table of the metadata region and the items that every file has.
    pub(super) fn read(file: &dyn ReadAt, region: Region) -> Result<Self> {
        let table = read_up_to(file, region.offset, TABLE_BYTES as usize)?;
        let items = Items::parse(&table, region)?;
        let parameters = items.value::<8>(file, item::FILE_PARAMETERS, "file parameters")?;
        let virtual_size = items.value::<8>(file, item::VIRTUAL_DISK_SIZE, "virtual disk size")?;
        let sector_bytes = items.value::<4>(file, item::LOGICAL_SECTOR_SIZE, "logical sector size")?;
        let [a, b, c, d, flags, ..] = parameters;
        let metadata = Self {
            block_bytes: u32::from_le_bytes([a, b, c, d]),
            has_parent: flags & 2 != 0,
            virtual_size: u64::from_le_bytes(virtual_size),
            sector_bytes: u32::from_le_bytes(sector_bytes),
            locator: items.find(item::PARENT_LOCATOR),
        };
        metadata.check(region.offset)
    }

    fn check(self, offset: u64) -> Result<Self> {
        if !self.block_bytes.is_power_of_two() || !BLOCK_BYTES.contains(&self.block_bytes) {
            let reason = format!("a block of {} bytes is no power of two from 1 to 256 MiB", self.block_bytes);
            return Err(corrupt(offset, reason));
        }
        if !matches!(self.sector_bytes, 512 | 4096) {
            return Err(corrupt(offset, format!("a sector of {} bytes is neither 512 nor 4096", self.sector_bytes)));
        }
        let is_whole = self.virtual_size.is_multiple_of(self.sector_bytes.into());
        if self.virtual_size > VIRTUAL_SIZE_MAX || !is_whole {
            let reason = format!("a virtual size of {} bytes is not in sectors up to 64 TiB", self.virtual_size);
            return Err(corrupt(offset, reason));
        }
        if self.has_parent && self.locator.is_none() {
            return Err(corrupt(offset, "the disk has a parent, and no parent locator"));
        }
        Ok(self)
    }

    /// The parent locator of a differencing disk.
    pub(super) fn locator(&self, file: &dyn ReadAt, region: Region, budget: &Budget) -> Result<Option<Locator>> {
        let Some(item) = self.locator.filter(|_| self.has_parent) else { return Ok(None) };
        let mut bytes = budget.allocate(item.length.into())?;
        let offset = region.offset.saturating_add(item.offset.into());
        file.read_exact_at(&mut bytes, offset).map_err(|error| error.in_structure("vhdx parent locator", offset))?;
        Locator::parse(&bytes, offset).map(Some)
    }
}

/// The entries of the metadata table.
struct Items {
    region: Region,
    known: Vec<([u8; 16], Item)>,
}

impl Items {
    fn parse(table: &[u8], region: Region) -> Result<Self> {
        let refused = |reason: &str| Err(corrupt(region.offset, reason));
        if !has(table, 0, b"metadata") {
            return refused("it does not begin with the signature metadata");
        }
        let count = le_u16(table, 10).unwrap_or(u16::MAX);
        if count > ITEMS_MAX || table.len() < TABLE_BYTES as usize {
            return refused("its table has more entries than fit");
        }
        let mut known: Vec<([u8; 16], Item)> = Vec::new();
        for entry in table.chunks_exact(32).skip(1).take(count.into()) {
            let fields = (array::<16>(entry, 0), le_u32(entry, 16), le_u32(entry, 20), le_u32(entry, 24));
            let (Some(id), Some(offset), Some(length), Some(flags)) = fields else { break };
            let (is_user, is_required) = (flags & 1 != 0, flags & 4 != 0);
            let is_known = [
                item::FILE_PARAMETERS,
                item::VIRTUAL_DISK_SIZE,
                item::VIRTUAL_DISK_ID,
                item::LOGICAL_SECTOR_SIZE,
                item::PHYSICAL_SECTOR_SIZE,
                item::PARENT_LOCATOR,
            ]
            .contains(&id);
            if is_user || !is_known {
                if is_required {
                    return Err(Error::unsupported(format!("vhdx metadata item {}", guid_text(&id))));
                }
                continue;
            }
            let end = u64::from(offset) + u64::from(length);
            if length > ITEM_BYTES_MAX || (length > 0 && offset < TABLE_BYTES) || end > region.length {
                return refused("an item leaves the region, or lies in its table");
            }
            if known.iter().any(|(other, _)| *other == id) {
                return refused("it has the same item twice");
            }
            known.push((id, Item { offset, length }));
        }
        Ok(Self { region, known })
    }

    fn find(&self, id: [u8; 16]) -> Option<Item> {
        self.known.iter().find(|(known, _)| *known == id).map(|(_, item)| *item)
    }

    /// The first `N` bytes of an item that every file has.
    fn value<const N: usize>(&self, file: &dyn ReadAt, id: [u8; 16], name: &str) -> Result<[u8; N]> {
        let found = self.find(id).filter(|item| item.length as usize >= N);
        let item = found.ok_or_else(|| corrupt(self.region.offset, format!("it does not tell the {name}")))?;
        let offset = self.region.offset.saturating_add(item.offset.into());
        let mut value = [0; N];
        file.read_exact_at(&mut value, offset).map_err(|error| error.in_structure("vhdx metadata", offset))?;
        Ok(value)
    }
}

impl Locator {
    /// "Parent Locator" (2.6.2.6).
    fn parse(bytes: &[u8], offset: u64) -> Result<Self> {
        let refused = |reason: String| Error::corrupt("vhdx parent locator", offset, reason);
        let short = || refused(format!("it ends after {} bytes, within its header", bytes.len()));
        let kind = array::<16>(bytes, 0).ok_or_else(short)?;
        if kind != VHDX_LOCATOR {
            return Err(Error::unsupported(format!("vhdx parent locator of type {}", guid_text(&kind))));
        }
        let count = le_u16(bytes, 18).ok_or_else(short)?;
        let mut pairs = Vec::new();
        for entry in bytes.get(20..).unwrap_or_default().chunks_exact(12).take(count.into()) {
            let text = |offset, length| {
                let (offset, length) = (le_u32(entry, offset)?, le_u16(entry, length)?);
                let units = slice(bytes, usize::try_from(offset).ok()?, length.into())?.chunks_exact(2);
                Some(utf16_text(units.filter_map(|unit| le_u16(unit, 0))))
            };
            let pair = text(0, 8).zip(text(4, 10));
            pairs.push(pair.ok_or_else(|| refused("an entry points out of it".into()))?);
        }
        let value = |key: &str| pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
        let linkages = ["parent_linkage", "parent_linkage2"].into_iter().filter_map(value);
        let linkages: Vec<[u8; 16]> = linkages.filter_map(guid_of_text).collect();
        if linkages.is_empty() {
            return Err(refused("it has no parent_linkage that is a GUID".into()));
        }
        let paths = ["relative_path", "volume_path", "absolute_win32_path"].into_iter().filter_map(value);
        Ok(Self { linkages, paths: paths.map(str::to_owned).collect() })
    }
}

/// A GUID with or without braces, in the order of the file.
fn guid_of_text(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim_matches(['{', '}']).chars().filter(|c| *c != '-').collect();
    let is_guid = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_guid.then(|| u128::from_str_radix(&digits, 16).ok().map(guid)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Metadata {
        Metadata { block_bytes: 1 << 20, has_parent: false, virtual_size: 512, sector_bytes: 512, locator: None }
    }

    #[test]
    fn numbers_outside_the_specification_are_refused() {
        assert!(good().check(0).is_ok());
        for bad in [
            Metadata { block_bytes: 0, ..good() },
            Metadata { block_bytes: 3 << 20, ..good() },
            Metadata { block_bytes: 512 << 20, ..good() },
            Metadata { sector_bytes: 0, ..good() },
            Metadata { sector_bytes: 1024, ..good() },
            Metadata { sector_bytes: 4096, ..good() },
            Metadata { virtual_size: (64 << 40) + 512, ..good() },
            Metadata { has_parent: true, ..good() },
        ] {
            assert!(matches!(bad.check(0), Err(Error::Corrupt { .. })), "{bad:?}");
        }
    }

    #[test]
    fn guids_are_read_with_and_without_braces() {
        let expected = Some(guid(0x83ed_0ec3_24c8_49a6_a959_5e4b_f128_8bfb));
        assert_eq!(guid_of_text("{83ed0ec3-24c8-49a6-a959-5e4bf1288bfb}"), expected);
        assert_eq!(guid_of_text("83ED0EC3-24C8-49A6-A959-5E4BF1288BFB"), expected);
        for bad in ["", "{}", "{83ed0ec3-24c8-49a6-a959-5e4bf1288bf}", "{+3ed0ec3-24c8-49a6-a959-5e4bf1288bfb}"] {
            assert_eq!(guid_of_text(bad), None);
        }
    }
}
