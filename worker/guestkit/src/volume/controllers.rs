//! Disks of RAID controllers whose volumes are not read: recognised by what the firmware keeps in the last sector, by the
//! names that blkid gives them.

use crate::bytes::{has, le_u16, le_u32};
use crate::error::Result;
use crate::filesystem::probe::{Probe, Usage, View};

/// A disk is not smaller.
const DISK_BYTES_MIN: u64 = 64 << 10;

/// LSI MegaRAID, JMicron, Silicon Image Medley and VIA V-RAID. Signatures are short, so that checksums are looked at too.
pub(crate) fn controllers(view: &View<'_>) -> Result<Option<Probe>> {
    if view.len() < DISK_BYTES_MIN {
        return Ok(None);
    }
    let sector = view.at((view.len() / 512 - 1) * 512, 512)?;
    let kind = match () {
        () if has(&sector, 0, b"$XIDE$") => "lsi_mega_raid_member",
        () if is_jmicron(&sector) => "jmicron_raid_member",
        () if is_silicon(&sector) => "silicon_medley_raid_member",
        () if is_via(&sector) => "via_raid_member",
        () => return Ok(None),
    };
    Ok(Some(Probe::new(kind, Usage::Volume)))
}

/// The sum of the first `count` words.
fn sum_of_words(sector: &[u8], count: usize) -> u16 {
    let words = sector.chunks_exact(2).take(count).filter_map(|word| le_u16(word, 0));
    words.fold(0, u16::wrapping_add)
}

fn is_jmicron(sector: &[u8]) -> bool {
    has(sector, 0, b"JM") && sum_of_words(sector, 64) <= 1
}

fn is_silicon(sector: &[u8]) -> bool {
    le_u32(sector, 0x60) == Some(0x2f00_0000) && sum_of_words(sector, 0x140 / 2) == 0
}

fn is_via(sector: &[u8]) -> bool {
    let bytes = sector.get(..50).unwrap_or_default();
    let sum = bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    has(sector, 0, &[0x55, 0xaa]) && sector.get(2).is_some_and(|version| *version <= 2) && sector.get(50) == Some(&sum)
}
