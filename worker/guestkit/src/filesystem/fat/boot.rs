//! The boot sector of FAT ("FAT: General Overview of On-Disk Format", Microsoft, 2000, BPB), and the FSInfo sector.

use super::super::clusters::{Heap, Width};
use crate::bytes::{le_u16, le_u32};
use crate::error::{Error, Result};

/// From so many clusters on a volume is FAT16, and from so many FAT32 (FAT Type Determination).
const FAT16_CLUSTERS: u64 = 4085;
const FAT32_CLUSTERS: u64 = 65525;
/// FAT32 numbers clusters with 28 bits, of which the last eleven mean something else.
const CLUSTERS_MAX: u64 = 0x0fff_fff5;

/// The geometry that a boot sector tells, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Boot {
    pub(super) width: Width,
    /// The table in use.
    pub(super) table_start: u64,
    pub(super) root: Root,
    pub(super) heap: Heap,
    pub(super) size_bytes: u64,
    /// Where the FSInfo sector of FAT32 lies.
    pub(super) fs_info: Option<u64>,
    /// Whether the volume was not unmounted, as Linux and Windows mark it.
    pub(super) is_dirty: bool,
}

/// Where the root directory lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    /// A region of its own before the clusters (FAT12, FAT16).
    Region { start: u64, length: u64 },
    /// A chain like that of any directory (FAT32).
    Chain { cluster: u32 },
}

impl Boot {
    /// The geometry in the first 512 bytes of a volume.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for fields that contradict one another; [`Error::Unsupported`] for a later version of FAT32.
    pub(super) fn parse(sector: &[u8]) -> Result<Self> {
        let wrong = |reason: String| Error::corrupt("FAT boot sector", 0, reason);
        let short = || wrong("it is cut off".into());
        let half = |at| le_u16(sector, at).map(u64::from).ok_or_else(short);
        let word = |at| le_u32(sector, at).map(u64::from).ok_or_else(short);
        let byte = |at: usize| sector.get(at).copied().map(u64::from).ok_or_else(short);

        let sector_bytes = half(11)?;
        if !matches!(sector_bytes, 512 | 1024 | 2048 | 4096) {
            return Err(wrong(format!("a sector has {sector_bytes} bytes")));
        }
        let cluster_sectors = byte(13)?;
        if !cluster_sectors.is_power_of_two() {
            return Err(wrong(format!("a cluster has {cluster_sectors} sectors")));
        }
        let (reserved, tables, root_entries) = (half(14)?, byte(16)?, half(17)?);
        if reserved == 0 || tables == 0 {
            return Err(wrong(format!("{reserved} sectors are reserved, for {tables} tables")));
        }
        let sectors = match half(19)? {
            0 => word(32)?,
            few => few,
        };
        // A volume whose 16-bit size of a table is zero is laid out as FAT32, however few clusters it has: mkfs.vfat
        // makes such ones, and kernels read them.
        let (is_fat32, table_sectors) = match half(22)? {
            0 => (true, word(36)?),
            few => (false, few),
        };
        // The numbers have at most 32, 8, 12 and 16 bits, so that none of the sums and products below can overflow.
        let tables_sectors = tables * table_sectors;
        let root_sectors = (root_entries * 32).div_ceil(sector_bytes);
        let data_sector = reserved + tables_sectors + root_sectors;
        let data_sectors = sectors.checked_sub(data_sector).ok_or_else(|| {
            wrong(format!("the clusters begin at sector {data_sector}, and the volume has {sectors} sectors"))
        })?;
        let clusters = data_sectors / cluster_sectors;
        let width = match clusters {
            _ if is_fat32 => Width::Fat32,
            FAT32_CLUSTERS.. => return Err(wrong(format!("{clusters} clusters are too many for FAT16"))),
            FAT16_CLUSTERS.. => Width::Fat16,
            _ => Width::Fat12,
        };
        let table_bytes = table_sectors * sector_bytes;
        // The table may be shorter than the volume; what it does not reach cannot be used.
        let clusters = clusters.min(width.entries_in(table_bytes).saturating_sub(2)).min(CLUSTERS_MAX);
        if clusters == 0 {
            return Err(wrong("there is no cluster".into()));
        }

        let (mut active, mut root, mut fs_info) = (0, None, None);
        let flags = if is_fat32 {
            let (mirroring, version) = (half(40)?, half(42)?);
            if version != 0 {
                return Err(Error::unsupported(format!("FAT32 version {}.{}", version >> 8, version & 0xff)));
            }
            // BPB_ExtFlags: bit 7 turns mirroring off, and then the lower four name the table in use.
            if mirroring & 0x80 != 0 {
                active = mirroring & 0x0f;
            }
            if active >= tables {
                return Err(wrong(format!("table {active} is in use, of {tables}")));
            }
            root = Some(le_u32(sector, 44).ok_or_else(short)? & 0x0fff_ffff);
            fs_info = Some(half(48)?).filter(|at| (1..reserved).contains(at)).map(|at| at * sector_bytes);
            byte(65)?
        } else {
            byte(37)?
        };
        let root_start = (reserved + tables_sectors) * sector_bytes;
        Ok(Self {
            width,
            table_start: (reserved + active * table_sectors) * sector_bytes,
            root: match root {
                Some(cluster) => Root::Chain { cluster },
                None => Root::Region { start: root_start, length: root_entries * 32 },
            },
            heap: Heap {
                start: data_sector * sector_bytes,
                cluster_bytes: cluster_sectors * sector_bytes,
                clusters: u32::try_from(clusters).map_err(|_| short())?,
            },
            size_bytes: sectors * sector_bytes,
            fs_info,
            is_dirty: flags & 1 != 0,
        })
    }
}

/// The number of free clusters that an FSInfo sector gives; `None` where it is no such sector, or does not know.
pub(super) fn free_clusters(sector: &[u8], clusters: u32) -> Option<u32> {
    let signed = le_u32(sector, 0) == Some(0x4161_5252) && le_u32(sector, 484) == Some(0x6141_7272);
    le_u32(sector, 488).filter(|free| signed && *free <= clusters)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields that follow from how many sectors of 512 bytes a table and the volume have.
    fn sector(table_sectors: u16, sectors: u32) -> Vec<u8> {
        let mut sector = vec![0; 512];
        sector[11..13].copy_from_slice(&512_u16.to_le_bytes());
        sector[13] = 1;
        sector[14] = 1;
        sector[16] = 2;
        sector[17..19].copy_from_slice(&16_u16.to_le_bytes());
        sector[22..24].copy_from_slice(&table_sectors.to_le_bytes());
        sector[32..36].copy_from_slice(&sectors.to_le_bytes());
        sector
    }

    #[test]
    fn the_number_of_clusters_tells_the_type() {
        let overhead = 1 + 2 * 200 + 1;
        for (clusters, width) in [(4084, Width::Fat12), (4085, Width::Fat16), (65524, Width::Fat16)] {
            let boot = Boot::parse(&sector(200, overhead + clusters)).unwrap();
            assert_eq!(boot.width, width, "{clusters}");
            assert_eq!(boot.root, Root::Region { start: 401 * 512, length: 512 });
            assert_eq!(boot.heap.start, 402 * 512);
        }
        assert!(matches!(Boot::parse(&sector(200, overhead + 65525)), Err(Error::Corrupt { .. })));
        assert!(matches!(Boot::parse(&sector(200, overhead)), Err(Error::Corrupt { .. })));
        assert_eq!(Boot::parse(&sector(1, 1 + 2 + 1 + 4000)).unwrap().heap.clusters, 339, "as far as the table goes");
    }

    #[test]
    fn fat32_names_its_table_in_use_and_its_version() {
        let mut bytes = sector(0, 70_000);
        bytes[14] = 32;
        bytes[17] = 0;
        bytes[36..40].copy_from_slice(&600_u32.to_le_bytes());
        bytes[44] = 2;
        bytes[48] = 1;
        let boot = Boot::parse(&bytes).unwrap();
        assert_eq!((boot.width, boot.table_start, boot.fs_info), (Width::Fat32, 32 * 512, Some(512)));
        assert_eq!(boot.root, Root::Chain { cluster: 2 });
        bytes[40] = 0x01;
        assert_eq!(Boot::parse(&bytes).unwrap().table_start, 32 * 512, "mirrored: the first one does");
        bytes[40] = 0x81;
        assert_eq!(Boot::parse(&bytes).unwrap().table_start, (32 + 600) * 512);
        bytes[40] = 0x82;
        assert!(matches!(Boot::parse(&bytes), Err(Error::Corrupt { .. })));
        bytes[40] = 0;
        bytes[43] = 1;
        assert!(matches!(Boot::parse(&bytes), Err(Error::Unsupported { .. })));
    }

    #[test]
    fn a_boot_sector_cut_anywhere_is_an_error() {
        let whole = sector(200, 5000);
        for length in 0..38 {
            assert!(Boot::parse(&whole[..length]).is_err(), "{length}");
        }
    }
}
