//! device-mapper's RAID target: which legs are current, by the superblocks on their metadata volumes, and the levels.
//!
//! Source: the kernel's `dm-raid.c` (`struct dm_raid_superblock`, `raid_types`).

use std::sync::Arc;

use crate::bytes::{has, le_u32, le_u64};
use crate::error::{Error, Result};
use crate::read_at::{Slice, Source, read_up_to};
use crate::volume::compose::{Mirror, Patchy, Striped};
use crate::volume::raid::{Parity, ParityLayout, Raid10};

const SECTOR: u64 = 512;

/// A leg: the name of its image, the image, and its metadata volume.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(crate) name: String,
    /// `None` where its physical volumes are missing.
    pub(crate) image: Option<Source>,
    pub(crate) metadata: Option<Source>,
    /// Whether LVM marks it as not rebuilt yet.
    pub(crate) is_rebuilding: bool,
}

/// What the superblock of a leg says.
#[derive(Debug, Clone, Copy)]
struct Superblock {
    place: u32,
    events: u64,
    /// Bits of the first 64 failed devices.
    failed: u64,
    recovered: u64,
    is_reshaping: bool,
    data_offset: u64,
}

impl Superblock {
    fn parse(bytes: &[u8]) -> Option<Self> {
        if !has(bytes, 0, b"DmRd") {
            return None;
        }
        // The fields of version 1.9.0 are valid where bit 0 of the compatible features says so.
        let extended = le_u32(bytes, 4)? & 1 != 0;
        Some(Self {
            place: le_u32(bytes, 12)?,
            events: le_u64(bytes, 16)?,
            failed: le_u64(bytes, 24)?,
            recovered: le_u64(bytes, 32)?,
            is_reshaping: extended && le_u32(bytes, 60)? & 1 != 0,
            data_offset: if extended { le_u64(bytes, 96)? } else { 0 },
        })
    }
}

/// Legs in their places that hold current data, `None` for the others.
fn current(legs: &[Leg], warnings: &mut Vec<String>) -> Result<Vec<Option<Source>>> {
    let mut superblocks = Vec::new();
    for leg in legs {
        let read = leg.metadata.as_ref().map(|metadata| read_up_to(&**metadata, 0, 512)).transpose();
        match read {
            Ok(bytes) => superblocks.push(bytes.and_then(|bytes| Superblock::parse(&bytes))),
            Err(error) if error.is_budget_exhausted() => return Err(error),
            Err(_) => superblocks.push(None),
        }
    }
    let freshest =
        superblocks.iter().flatten().copied().reduce(|best, next| if next.events > best.events { next } else { best });
    let mut images = Vec::with_capacity(legs.len());
    for (place, (leg, superblock)) in legs.iter().zip(&superblocks).enumerate() {
        let mut leave_out = |why: &str| {
            warnings.push(format!("{} {why} and is left out", leg.name));
            images.push(None);
        };
        let Some(image) = &leg.image else {
            leave_out("is missing");
            continue;
        };
        if leg.is_rebuilding {
            leave_out("is being rebuilt");
            continue;
        }
        let (superblock, freshest) = match (superblock, &freshest) {
            (Some(superblock), Some(freshest)) => (superblock, freshest),
            // Without metadata volumes (raid0), or where none was ever written, all are as good as one another.
            (None, None) => {
                images.push(Some(Arc::clone(image)));
                continue;
            }
            _ => {
                leave_out("has no superblock");
                continue;
            }
        };
        let has_failed = place < 64 && freshest.failed >> place & 1 != 0;
        if superblock.place as usize != place || superblock.events.saturating_add(1) < freshest.events || has_failed {
            leave_out("is out of date");
            continue;
        }
        if superblock.is_reshaping {
            return Err(Error::unsupported("an LVM RAID volume that is being reshaped"));
        }
        let start = superblock.data_offset.saturating_mul(SECTOR);
        let data: Source = match start {
            0 => Arc::clone(image),
            _ => Arc::new(Slice::new(Arc::clone(image), start, u64::MAX)),
        };
        let recovered = superblock.recovered.saturating_mul(SECTOR);
        if recovered < data.len() {
            warnings.push(format!("{} is not rebuilt yet past byte {recovered}", leg.name));
            images.push(Some(Arc::new(Patchy { source: data, bad: vec![(recovered, u64::MAX)] })));
        } else {
            images.push(Some(data));
        }
    }
    Ok(images)
}

/// The levels as LVM names them, as md's level and layout.
fn parity_layout(kind: &str) -> Option<ParityLayout> {
    let (level, layout) = match kind {
        // dm-raid takes raid4 for RAID 5 with its parity on the first member.
        "raid4" => (5, 4),
        "raid5_la" => (5, 0),
        "raid5_ra" => (5, 1),
        "raid5" | "raid5_ls" => (5, 2),
        "raid5_rs" => (5, 3),
        "raid5_n" => (5, 5),
        "raid6" | "raid6_zr" => (6, 8),
        "raid6_nr" => (6, 9),
        "raid6_nc" => (6, 10),
        "raid6_n_6" => (6, 5),
        "raid6_la_6" => (6, 16),
        "raid6_ra_6" => (6, 17),
        "raid6_ls_6" => (6, 18),
        "raid6_rs_6" => (6, 19),
        _ => return None,
    };
    ParityLayout::of_md(level, layout)
}

/// The bytes of a segment of `length` bytes on `legs`, with `stripe` bytes to a chunk and `copies` for raid10.
///
/// # Errors
/// [`Error::Unsupported`] for an unknown level, [`Error::Corrupt`] where too many legs are missing.
pub(crate) fn build(
    kind: &str,
    legs: &[Leg],
    stripe: u64,
    copies: u32,
    length: u64,
    warnings: &mut Vec<String>,
) -> Result<Source> {
    let images = current(legs, warnings)?;
    let missing = images.iter().filter(|image| image.is_none()).count();
    let hopeless =
        || Error::corrupt("LVM RAID volume", 0, format!("{missing} of its {} legs are missing", images.len()));
    match kind {
        "raid1" => match images.iter().flatten().map(Arc::clone).collect::<Vec<_>>() {
            sound if sound.is_empty() => Err(hopeless()),
            sound => Ok(Arc::new(Mirror { legs: sound, length })),
        },
        "raid0" | "raid0_meta" if missing > 0 => Err(hopeless()),
        "raid0" | "raid0_meta" => {
            let members = images.into_iter().flatten().map(|image| (image, 0)).collect();
            Ok(Arc::new(Striped { members, chunk: stripe, shift: 0, length }))
        }
        "raid10" | "raid10_near" => {
            let used = images.iter().flatten().map(|image| image.len()).min().unwrap_or(0);
            let array = Raid10::new(images, 1 << 8 | copies & 0xff, stripe, used)?;
            Ok(Arc::new(Slice::new(Arc::new(array), 0, length)))
        }
        _ => {
            let layout = parity_layout(kind).ok_or_else(|| Error::unsupported(format!("LVM segment type {kind}")))?;
            let used = images.iter().flatten().map(|image| image.len()).min().unwrap_or(0);
            let array = Parity::new(images, layout, stripe, used)?;
            Ok(Arc::new(Slice::new(Arc::new(array), 0, length)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock(place: u32, events: u64, failed: u64) -> Source {
        let mut bytes = vec![0; 4096];
        bytes[..4].copy_from_slice(b"DmRd");
        bytes[12..16].copy_from_slice(&place.to_le_bytes());
        bytes[16..24].copy_from_slice(&events.to_le_bytes());
        bytes[24..32].copy_from_slice(&failed.to_le_bytes());
        bytes[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        Arc::new(bytes)
    }

    #[test]
    fn a_stale_or_failed_leg_is_not_read() {
        let leg = |place: u32, events, failed, fill: u8| Leg {
            name: format!("lv_rimage_{place}"),
            image: Some(Arc::new(vec![fill; 512])),
            metadata: Some(superblock(place, events, failed)),
            is_rebuilding: false,
        };
        for legs in [[leg(0, 3, 0, 1), leg(1, 9, 0, 2)], [leg(0, 9, 1, 1), leg(1, 9, 1, 2)]] {
            let mut warnings = Vec::new();
            let source = build("raid1", &legs, 0, 2, 512, &mut warnings).unwrap();
            let mut byte = [0];
            source.read_exact_at(&mut byte, 0).unwrap();
            assert_eq!((byte, warnings.len()), ([2], 1));
        }
    }
}
