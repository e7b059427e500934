//! From logical addresses to devices ("Btrfs: On-disk Format", CHUNK_ITEM): the chunk map and how each RAID profile lays
//! out, copies and rebuilds.

use std::collections::BTreeMap;

use super::superblock::Superblock;
use crate::bytes::{array, le_u16, le_u64};
use crate::error::{Error, Result};
use crate::galois::{add, add_times, inverse, power_of_two};
use crate::read_at::Source;

/// The only stripe length there is (`BTRFS_STRIPE_LEN`).
const STRIPE_BYTES: u64 = 64 << 10;
/// Bytes of a chunk item before its stripes, and of each stripe.
const CHUNK_BYTES: usize = 48;
const STRIPE_ITEM_BYTES: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Profile {
    /// Whole on one device, with as many copies as there are stripes: single, dup, raid1, raid1c3, raid1c4.
    Copies,
    Raid0,
    Raid10,
    /// With one (raid5) or two (raid6) parities.
    Parity(usize),
}

#[derive(Debug, Clone)]
struct Stripe {
    device_id: u64,
    device_uuid: [u8; 16],
    offset: u64,
}

#[derive(Debug, Clone)]
struct Chunk {
    length: u64,
    profile: Profile,
    stripes: Vec<Stripe>,
}

/// A member of the file system.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: u64,
    pub(super) uuid: [u8; 16],
    pub(super) source: Source,
}

/// Logical address space over the members.
#[derive(Debug)]
pub(super) struct Volume {
    members: Vec<Member>,
    chunks: BTreeMap<u64, Chunk>,
}

/// Bytes that a chunk item with so many stripes takes.
const fn item_bytes(stripes: usize) -> usize {
    CHUNK_BYTES + stripes * STRIPE_ITEM_BYTES
}

fn corrupt(logical: u64, reason: impl Into<String>) -> Error {
    Error::corrupt("btrfs chunk", logical, reason)
}

fn parse(item: &[u8], logical: u64) -> Result<Chunk> {
    let cut = || corrupt(logical, "its item is cut off");
    let length = le_u64(item, 0).ok_or_else(cut)?;
    let stripe_bytes = le_u64(item, 16).ok_or_else(cut)?;
    let kind = le_u64(item, 24).ok_or_else(cut)?;
    let count = usize::from(le_u16(item, 44).ok_or_else(cut)?);
    let sub_stripes = le_u16(item, 46).ok_or_else(cut)?;
    let stripe = |index: usize| {
        let at = item_bytes(index);
        Some(Stripe { device_id: le_u64(item, at)?, offset: le_u64(item, at + 8)?, device_uuid: array(item, at + 16)? })
    };
    let stripes = (0..count).map(stripe).collect::<Option<Vec<_>>>().ok_or_else(cut)?;
    if length == 0 || logical.checked_add(length).is_none() || stripe_bytes != STRIPE_BYTES || stripes.is_empty() {
        return Err(corrupt(logical, "its length or its stripes are not possible"));
    }
    // The bits of `BTRFS_BLOCK_GROUP_PROFILE_MASK`.
    let (profile, possible) = match kind & 0x7f8 {
        0 => (Profile::Copies, count == 1),
        0x08 => (Profile::Raid0, true),
        0x10 | 0x20 => (Profile::Copies, count == 2),
        0x200 => (Profile::Copies, count == 3),
        0x400 => (Profile::Copies, count == 4),
        0x40 => (Profile::Raid10, sub_stripes == 2 && count.is_multiple_of(2)),
        0x80 => (Profile::Parity(1), count >= 2),
        0x100 => (Profile::Parity(2), count >= 3),
        _ => return Err(Error::unsupported(format!("btrfs block group profile {:#x}", kind & 0x7f8))),
    };
    if !possible {
        return Err(corrupt(logical, format!("{count} stripes do not fit its profile")));
    }
    Ok(Chunk { length, profile, stripes })
}

impl Volume {
    /// The chunks that the superblock itself holds, enough to read the chunk tree.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where they contradict the format.
    pub(super) fn bootstrap(superblock: &Superblock, members: Vec<Member>) -> Result<Self> {
        let mut volume = Self { members, chunks: BTreeMap::new() };
        let mut rest = superblock.system_chunks.as_slice();
        while !rest.is_empty() {
            let (Some(logical), Some(item)) = (le_u64(rest, 9), rest.get(17..)) else {
                return Err(corrupt(0, "the superblock's chunks are cut off"));
            };
            volume.insert(logical, item)?;
            let used = item_bytes(usize::from(le_u16(item, 44).unwrap_or(0)));
            rest = item.get(used..).unwrap_or_default();
        }
        Ok(volume)
    }

    /// Takes in a chunk item; one that is known already is replaced.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where it contradicts the format or overlaps another.
    pub(super) fn insert(&mut self, logical: u64, item: &[u8]) -> Result<()> {
        let chunk = parse(item, logical)?;
        let before = self.chunks.range(..logical).next_back().map_or(0, |(at, other)| at.saturating_add(other.length));
        let after = self.chunks.range(logical.saturating_add(1)..).next().map_or(u64::MAX, |(at, _)| *at);
        if before > logical || logical.saturating_add(chunk.length) > after {
            return Err(corrupt(logical, "it overlaps another"));
        }
        self.chunks.insert(logical, chunk);
        Ok(())
    }

    /// Devices that chunks lie on and that are not there.
    pub(super) fn missing(&self) -> Vec<u64> {
        let stripes = self.chunks.values().flat_map(|chunk| &chunk.stripes);
        let mut missing: Vec<_> =
            stripes.filter(|stripe| self.member(stripe).is_none()).map(|stripe| stripe.device_id).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    fn member(&self, stripe: &Stripe) -> Option<&Member> {
        self.members.iter().find(|member| member.id == stripe.device_id && member.uuid == stripe.device_uuid)
    }

    fn chunk(&self, logical: u64) -> Result<(u64, &Chunk)> {
        let found = self.chunks.range(..=logical).next_back();
        let found = found.filter(|(start, chunk)| logical - *start < chunk.length);
        found.map(|(start, chunk)| (*start, chunk)).ok_or_else(|| corrupt(logical, "no chunk holds this address"))
    }

    /// In how many ways the bytes at `logical` can be had; 0 where no chunk holds them.
    pub(super) fn ways(&self, logical: u64) -> usize {
        self.chunk(logical).map_or(0, |(_, chunk)| match chunk.profile {
            Profile::Copies => chunk.stripes.len(),
            Profile::Raid0 => 1,
            Profile::Raid10 => 2,
            Profile::Parity(parities) => 1 + parities,
        })
    }

    /// Fills `buffer` from `logical` on in the `way`-th way: copies in their order; with parity first as stored, then
    /// rebuilt with the first, then with the second.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where no chunk holds the range or a device is missing; limits and I/O.
    pub(super) fn read(&self, logical: u64, buffer: &mut [u8], way: usize) -> Result<()> {
        let mut at = logical;
        let mut rest = buffer;
        while !rest.is_empty() {
            let (start, chunk) = self.chunk(at)?;
            let within = at - start;
            let mut available = chunk.length - within;
            if chunk.profile != Profile::Copies {
                available = available.min(STRIPE_BYTES - within % STRIPE_BYTES);
            }
            let count = usize::try_from(available).unwrap_or(usize::MAX).min(rest.len());
            let Some((piece, after)) = rest.split_at_mut_checked(count) else { break };
            self.read_piece(chunk, within, piece, way).map_err(|error| match error {
                Error::Corrupt { reason, .. } => corrupt(at, reason),
                other => other,
            })?;
            rest = after;
            at = at.saturating_add(count as u64);
        }
        Ok(())
    }

    fn read_piece(&self, chunk: &Chunk, within: u64, piece: &mut [u8], way: usize) -> Result<()> {
        let count = chunk.stripes.len() as u64;
        let number = within / STRIPE_BYTES;
        let (column, row) = match chunk.profile {
            Profile::Copies => return self.read_stripe(chunk, way as u64, within, piece),
            Profile::Raid0 => (number % count, number / count),
            Profile::Raid10 => ((number % (count / 2)) * 2 + way as u64, number / (count / 2)),
            Profile::Parity(parities) => {
                let data = count - parities as u64;
                let (column, row) = (number % data, number / data);
                let offset = row * STRIPE_BYTES + within % STRIPE_BYTES;
                if way > 0 {
                    return self.rebuild(chunk, row, column, parities, offset, piece, way > 1);
                }
                return self.read_stripe(chunk, (row + column) % count, offset, piece);
            }
        };
        self.read_stripe(chunk, column, row * STRIPE_BYTES + within % STRIPE_BYTES, piece)
    }

    fn read_stripe(&self, chunk: &Chunk, index: u64, offset: u64, piece: &mut [u8]) -> Result<()> {
        let stripe = usize::try_from(index).ok().and_then(|index| chunk.stripes.get(index));
        let stripe = stripe.ok_or_else(|| corrupt(offset, "there is no such stripe"))?;
        let member = self
            .member(stripe)
            .ok_or_else(|| corrupt(offset, format!("it lies on device {}, which is missing", stripe.device_id)))?;
        member.source.read_exact_at(piece, stripe.offset.saturating_add(offset))
    }

    /// Rebuilds data column `wanted` of `row` from the other columns and parity; a second column that fails is rebuilt
    /// away with the second parity, and so is the first parity where `without_first` says that it is not to be trusted.
    #[allow(clippy::too_many_arguments, reason = "one place calls it, with what it has just computed")]
    fn rebuild(
        &self,
        chunk: &Chunk,
        row: u64,
        wanted: u64,
        parities: usize,
        offset: u64,
        piece: &mut [u8],
        without_first: bool,
    ) -> Result<()> {
        let count = chunk.stripes.len() as u64;
        let data = count - parities as u64;
        let mut first = vec![0; piece.len()];
        let mut second = vec![0; piece.len()];
        let mut other = vec![0; piece.len()];
        let mut failed = None;
        for column in (0..data).filter(|column| *column != wanted) {
            match self.read_stripe(chunk, (row + column) % count, offset, &mut other) {
                Ok(()) => {
                    add(&mut first, &other);
                    if parities == 2 {
                        add_times(&mut second, &other, power_of_two(usize::try_from(column).unwrap_or(0)));
                    }
                }
                Err(error) if parities < 2 || failed.is_some() || error.is_budget_exhausted() => return Err(error),
                Err(_) => failed = Some(column),
            }
        }
        let has_first = match self.read_stripe(chunk, (row + data) % count, offset, &mut other) {
            _ if without_first && failed.is_none() => false,
            Ok(()) => true,
            Err(error) if parities < 2 || failed.is_some() || error.is_budget_exhausted() => return Err(error),
            Err(_) => false,
        };
        if has_first {
            add(&mut first, &other);
            if failed.is_none() {
                piece.copy_from_slice(&first);
                return Ok(());
            }
        }
        self.read_stripe(chunk, (row + data + 1) % count, offset, &mut other)?;
        add(&mut second, &other);
        let wanted = power_of_two(usize::try_from(wanted).unwrap_or(0));
        let mut divisor = wanted;
        // P = X + Y and Q = x X + y Y give X = (y P + Q) / (x + y).
        if let Some(failed) = failed.map(|column| power_of_two(usize::try_from(column).unwrap_or(0))) {
            add_times(&mut second, &first, failed);
            divisor ^= failed;
        }
        piece.fill(0);
        add_times(piece, &second, inverse(divisor));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::galois::times;

    fn item(kind: u64, length: u64, stripes: u16, sub_stripes: u16) -> Vec<u8> {
        let mut item = vec![0; item_bytes(usize::from(stripes))];
        item[0..8].copy_from_slice(&length.to_le_bytes());
        item[16..24].copy_from_slice(&STRIPE_BYTES.to_le_bytes());
        item[24..32].copy_from_slice(&kind.to_le_bytes());
        item[44..46].copy_from_slice(&stripes.to_le_bytes());
        item[46..48].copy_from_slice(&sub_stripes.to_le_bytes());
        for index in 0..stripes {
            let at = item_bytes(usize::from(index));
            item[at..at + 8].copy_from_slice(&u64::from(index).to_le_bytes());
        }
        item
    }

    /// Six data columns, two parities, computed here by the definition; every pair of columns lost gives the same data.
    #[test]
    fn raid6_rebuilds_whatever_two_devices_are_lost() {
        let (columns, rows) = (4_u64, 3_u64);
        let stripe = usize::try_from(STRIPE_BYTES).unwrap();
        let data: Vec<u8> = (0..stripe * 2 * 3).map(|at| (at * 7 + at / 255) as u8).collect();
        let mut disks = vec![vec![0_u8; stripe * 3]; 4];
        for row in 0..rows {
            for at in 0..stripe {
                let (mut p, mut q) = (0, 0);
                for column in 0..2 {
                    let byte = data[(usize::try_from(row * 2 + column).unwrap()) * stripe + at];
                    disks[usize::try_from((row + column) % columns).unwrap()]
                        [usize::try_from(row).unwrap() * stripe + at] = byte;
                    p ^= byte;
                    q ^= times(byte, power_of_two(usize::try_from(column).unwrap()));
                }
                disks[usize::try_from((row + 2) % columns).unwrap()][usize::try_from(row).unwrap() * stripe + at] = p;
                disks[usize::try_from((row + 3) % columns).unwrap()][usize::try_from(row).unwrap() * stripe + at] = q;
            }
        }
        for lost in (0..4).flat_map(|a| (0..4).map(move |b| [a, b])) {
            let members = (0..4_u64)
                .filter(|id| !lost.contains(id))
                .map(|id| Member {
                    id,
                    uuid: [0; 16],
                    source: Arc::new(disks[usize::try_from(id).unwrap()].clone()) as Source,
                })
                .collect();
            let mut volume = Volume { members, chunks: BTreeMap::new() };
            volume.insert(1 << 20, &item(0x101, 6 * STRIPE_BYTES, 4, 1)).unwrap();
            for at in (0..data.len()).step_by(4096) {
                let mut piece = vec![0; 4096];
                let logical = (1 << 20) + at as u64;
                let read = (0..3).find(|way| volume.read(logical, &mut piece, *way).is_ok());
                assert!(read.is_some(), "{lost:?}");
                assert_eq!(piece, data[at..at + 4096], "{lost:?} at {at}");
            }
        }
    }

    #[test]
    fn chunks_that_are_not_possible_are_refused() {
        let mut volume = Volume { members: Vec::new(), chunks: BTreeMap::new() };
        for (kind, length, stripes, sub_stripes) in
            [(1, 0, 1, 1), (1, 1 << 20, 0, 1), (0x41, 1 << 20, 3, 2), (0x41, 1 << 20, 4, 0), (0x11, 1 << 20, 1, 1)]
        {
            let item = item(kind, length, stripes, sub_stripes);
            assert!(matches!(volume.insert(0, &item), Err(Error::Corrupt { .. })), "{kind:#x}");
        }
        volume.insert(1 << 20, &item(1, 1 << 20, 1, 1)).unwrap();
        assert!(volume.insert(3 << 19, &item(1, 1 << 20, 1, 1)).is_err(), "overlaps");
        assert!(volume.insert(u64::MAX - 5, &item(1, 1 << 20, 1, 1)).is_err());
        assert!(volume.read(0, &mut [0; 8], 0).is_err() && volume.read((2 << 20) - 4, &mut [0; 8], 0).is_err());
        assert_eq!((volume.ways(1 << 20), volume.ways(0)), (1, 0));
    }
}
