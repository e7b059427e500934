//! The boot region of exFAT ("exFAT file system specification", Microsoft, section 3): twelve sectors, the last of which
//! repeats a checksum of the others, and a second such region behind the first.

use super::super::clusters::Heap;
use crate::bytes::{has, le_u16, le_u32, le_u64, sum_holds};
use crate::error::{Error, Result};
use crate::read_at::{ReadAt, read_up_to};

/// Sectors of a boot region that its checksum covers.
const CHECKED_SECTORS: u64 = 11;
/// Sectors of a boot region.
const REGION_SECTORS: u64 = 12;
/// Fields of the first sector that change while the volume is in use: `VolumeFlags` and `PercentInUse`.
const NOT_CHECKED: [usize; 3] = [106, 107, 112];
/// Clusters are at most so many (section 3.1.9).
const CLUSTERS_MAX: u32 = 0xffff_fff5;

/// The geometry that a boot sector tells, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Boot {
    pub(super) size_bytes: u64,
    /// The table in use.
    pub(super) table_start: u64,
    pub(super) heap: Heap,
    pub(super) root: u32,
    /// Which of the two tables and bitmaps of TexFAT is in use.
    pub(super) active: u8,
    pub(super) is_dirty: bool,
    /// How full the volume is, rounded down; `None` where it is not kept.
    pub(super) percent_in_use: Option<u8>,
}

impl Boot {
    /// The geometry in the first 512 bytes of a boot region.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for fields outside of what the specification allows; [`Error::Unsupported`] for a later version.
    pub(super) fn parse(sector: &[u8]) -> Result<Self> {
        let wrong = |reason: String| Error::corrupt("exFAT boot sector", 0, reason);
        let short = || wrong("it is cut off".into());
        let word = |at| le_u32(sector, at).map(u64::from).ok_or_else(short);
        let byte = |at: usize| sector.get(at).copied().ok_or_else(short);

        if !has(sector, 3, b"EXFAT   ") || !has(sector, 510, &[0x55, 0xaa]) {
            return Err(wrong("its name or signature is missing".into()));
        }
        let revision = le_u16(sector, 104).ok_or_else(short)?;
        if revision >> 8 != 1 {
            return Err(Error::unsupported(format!("exFAT version {}.{}", revision >> 8, revision & 0xff)));
        }
        let (sector_shift, cluster_shift) = (byte(108)?, byte(109)?);
        if !(9..=12).contains(&sector_shift) || cluster_shift > 25 - sector_shift {
            return Err(wrong(format!("sectors of 2^{sector_shift} bytes, clusters of 2^{cluster_shift} sectors")));
        }
        let tables = byte(110)?;
        if !matches!(tables, 1 | 2) {
            return Err(wrong(format!("it has {tables} tables")));
        }
        let clusters = le_u32(sector, 92).ok_or_else(short)?;
        let (table_start, table_length) = (word(80)? << sector_shift, word(84)? << sector_shift);
        if clusters == 0 || clusters > CLUSTERS_MAX || (u64::from(clusters) + 2) * 4 > table_length {
            return Err(wrong(format!("a table of {table_length} bytes has no room for {clusters} clusters")));
        }
        let flags = le_u16(sector, 106).ok_or_else(short)?;
        let active = if tables == 2 { u8::try_from(flags & 1).unwrap_or(0) } else { 0 };
        let heap =
            Heap { start: word(88)? << sector_shift, cluster_bytes: 1 << (sector_shift + cluster_shift), clusters };
        let root = le_u32(sector, 96).ok_or_else(short)?;
        if !heap.contains(root) {
            return Err(wrong(format!("the root directory begins at cluster {root}, of {clusters}")));
        }
        let sectors = le_u64(sector, 72).ok_or_else(short)?;
        Ok(Self {
            size_bytes: sectors
                .checked_mul(1 << sector_shift)
                .ok_or_else(|| wrong(format!("it has {sectors} sectors")))?,
            table_start: table_start + u64::from(active) * table_length,
            heap,
            root,
            active,
            is_dirty: flags & 2 != 0,
            percent_in_use: Some(byte(112)?).filter(|percent| *percent <= 100),
        })
    }

    /// The geometry of the volume on `source`: the main boot region's, or where its checksum is wrong the backup's, and
    /// then a warning.
    ///
    /// # Errors
    /// As [`Boot::parse`], for the main one, where the backup is no better.
    pub(super) fn read(source: &dyn ReadAt) -> Result<(Self, Option<String>)> {
        let main = read_up_to(source, 0, 512)?;
        let reason = match Self::parse(&main) {
            Ok(boot) => match check(source, 0, 1 << main.get(108).copied().unwrap_or(9))? {
                true => return Ok((boot, None)),
                false => Error::corrupt("exFAT boot region", 0, "its checksum is wrong"),
            },
            Err(error) => error,
        };
        // The main sector's own word on its size cannot be trusted here.
        for sector_bytes in [512, 1024, 2048, 4096] {
            let start = REGION_SECTORS * sector_bytes;
            let sector = read_up_to(source, start, 512)?;
            match Self::parse(&sector) {
                Ok(boot) if check(source, start, sector_bytes)? => {
                    return Ok((boot, Some(format!("the backup boot region is used: {reason}"))));
                }
                _ => {}
            }
        }
        Err(reason)
    }
}

/// Whether the checksum of the boot region at `start` is right.
fn check(source: &dyn ReadAt, start: u64, sector_bytes: u64) -> Result<bool> {
    let length = usize::try_from(CHECKED_SECTORS * sector_bytes).unwrap_or(0);
    let region = read_up_to(source, start, length)?;
    let stated = read_up_to(source, start + CHECKED_SECTORS * sector_bytes, 4)?;
    Ok(region.len() == length && sum_holds(le_u32(&stated, 0) == Some(checksum(&region))))
}

/// Section 3.4, figure 1.
fn checksum(region: &[u8]) -> u32 {
    region
        .iter()
        .enumerate()
        .filter(|(at, _)| !NOT_CHECKED.contains(at))
        .fold(0, |sum: u32, (_, byte)| sum.rotate_right(1).wrapping_add(u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn volume() -> Vec<u8> {
        let mut volume = vec![0; 24 * 512];
        volume[3..11].copy_from_slice(b"EXFAT   ");
        volume[72] = 100;
        volume[80] = 24;
        volume[84] = 1;
        volume[88] = 25;
        volume[92] = 75;
        volume[96] = 4;
        volume[105] = 1;
        volume[108] = 9;
        volume[110] = 1;
        volume[112] = 7;
        volume[510] = 0x55;
        volume[511] = 0xaa;
        let sum = checksum(&volume[..11 * 512]).to_le_bytes();
        for chunk in volume[11 * 512..12 * 512].chunks_mut(4) {
            chunk.copy_from_slice(&sum);
        }
        let (main, backup) = volume.split_at_mut(12 * 512);
        backup.copy_from_slice(main);
        volume
    }

    #[test]
    fn the_backup_stands_in_for_a_broken_main_region() {
        let mut volume = volume();
        let (boot, warning) = Boot::read(&volume).unwrap();
        assert_eq!((boot.size_bytes, boot.table_start, boot.root, warning), (51_200, 24 * 512, 4, None));
        // Flags and percentage change without a new checksum.
        volume[106] = 2;
        volume[112] = 0xff;
        let (boot, _) = Boot::read(&volume).unwrap();
        assert!(boot.is_dirty && boot.percent_in_use.is_none());
        volume[88] = 26;
        let (boot, warning) = Boot::read(&volume).unwrap();
        assert_eq!(boot.heap.start, 25 * 512);
        assert!(warning.unwrap().contains("checksum"));
        volume[12 * 512 + 88] = 26;
        assert!(matches!(Boot::read(&volume), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn fields_outside_of_the_specification_are_refused() {
        for (at, value) in [(108, 8), (108, 13), (109, 17), (110, 0), (110, 3), (92, 200), (96, 1), (96, 77), (3, 0)] {
            let mut sector = volume();
            sector[at] = value;
            assert!(matches!(Boot::parse(&sector), Err(Error::Corrupt { .. })), "{at}");
        }
        let mut later = volume();
        later[105] = 2;
        assert!(matches!(Boot::parse(&later), Err(Error::Unsupported { .. })));
    }
}
