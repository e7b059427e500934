//! The device with what its log holds laid over it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::superblock::{BASIC_BLOCK, Geometry, is_intact};
use crate::bytes::{be_u32, slice};
use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::read_at::Source;

/// Sectors of the device that the log holds newer contents of, by number.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    sectors: BTreeMap<u64, [u8; BASIC_BLOCK as usize]>,
}

impl Overlay {
    pub(super) fn is_empty(&self) -> bool {
        self.sectors.is_empty()
    }

    /// Bytes held.
    pub(super) fn len(&self) -> u64 {
        (self.sectors.len() as u64).saturating_mul(BASIC_BLOCK)
    }

    /// Lays `bytes`, whole sectors, over the sectors from `sector`.
    pub(super) fn put(&mut self, sector: u64, bytes: &[u8]) {
        for (number, chunk) in (sector..).zip(bytes.chunks_exact(BASIC_BLOCK as usize)) {
            if let Ok(chunk) = chunk.try_into() {
                self.sectors.insert(number, chunk);
            }
        }
    }

    /// Lays itself over `bytes`, read from byte `offset`; tells whether anything of them was replaced.
    pub(super) fn apply(&self, bytes: &mut [u8], offset: u64) -> bool {
        if self.sectors.is_empty() || bytes.is_empty() {
            return false;
        }
        let end = offset.saturating_add(bytes.len() as u64);
        let mut replaced = false;
        for (number, sector) in self.sectors.range(offset / BASIC_BLOCK..end.div_ceil(BASIC_BLOCK)) {
            let start = number.saturating_mul(BASIC_BLOCK);
            let from = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
            let to = usize::try_from(start.saturating_sub(offset)).unwrap_or(usize::MAX);
            let (Some(source), Some(target)) = (sector.get(from..), bytes.get_mut(to..)) else { continue };
            for (target, source) in target.iter_mut().zip(source) {
                *target = *source;
            }
            replaced = true;
        }
        replaced
    }
}

/// A device, its geometry, and its log's contents.
#[derive(Debug)]
pub(super) struct Volume {
    pub(super) source: Source,
    pub(super) geometry: Geometry,
    pub(super) overlay: Overlay,
    pub(super) budget: Arc<Budget>,
}

/// Where the common fields of a version 5 block lie: checksum, UUID, and owner if it is to be compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seal {
    pub(super) name: &'static str,
    pub(super) checksum: usize,
    pub(super) uuid: usize,
    pub(super) owner: Option<usize>,
}

impl Volume {
    /// Fills `buffer` with metadata at byte `offset`; tells whether the log holds any of it, which comes without checksum.
    ///
    /// # Errors
    /// Whatever the source gives.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<bool> {
        self.source.read_exact_at(buffer, offset)?;
        Ok(self.overlay.apply(buffer, offset))
    }

    /// Verifies a block of version 5: `was_replayed` ones carry no checksum, as the kernel computes it on writing back.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where a field differs from what it must be.
    pub(super) fn verify(&self, block: &[u8], at: u64, seal: Seal, owner: u64, was_replayed: bool) -> Result<()> {
        let wrong = |reason: &str| Err(Error::corrupt(seal.name, at, reason));
        if !was_replayed && !is_intact(block, seal.checksum) {
            return wrong("its checksum is wrong");
        }
        if slice(block, seal.uuid, 16) != Some(&self.geometry.metadata_uuid) {
            return wrong("its UUID is that of another file system");
        }
        let found = seal.owner.and_then(|owner| slice(block, owner, 8));
        if found.is_some_and(|found| found != owner.to_be_bytes()) {
            return wrong("it belongs to another inode");
        }
        Ok(())
    }

    /// Free blocks as the groups' own headers count them (`xfs_initialize_perag_data`), for when the superblock's count
    /// was not written back.
    ///
    /// # Errors
    /// Whatever the source gives; time.
    pub(super) fn count_free_blocks(&self) -> Result<u64> {
        let mut free = 0_u64;
        let mut sector = vec![0; 512];
        for group in 0..u64::from(self.geometry.ag_count) {
            self.budget.check_time()?;
            let start = self.geometry.byte_in_group(group, 0)?;
            self.read(&mut sector, start.saturating_add(u64::from(self.geometry.sector_bytes)))?;
            // agf_flcount, agf_freeblks, agf_btreeblks.
            for at in [48, 52, 60] {
                free = free.saturating_add(u64::from(be_u32(&sector, at).unwrap_or(0)));
            }
        }
        Ok(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_are_laid_over_any_cut_of_the_device() {
        let mut overlay = Overlay::default();
        overlay.put(2, &[7; 1024]);
        let mut bytes = vec![0; 3000];
        assert!(overlay.apply(&mut bytes, 0));
        assert!(bytes[1024..2048].iter().all(|byte| *byte == 7));
        assert_eq!(bytes.iter().filter(|byte| **byte == 7).count(), 1024);
        let mut bytes = vec![0; 10];
        assert!(overlay.apply(&mut bytes, 1019) && bytes == [0, 0, 0, 0, 0, 7, 7, 7, 7, 7]);
        let mut bytes = vec![0; 10];
        assert!(overlay.apply(&mut bytes, 2043) && bytes == [7, 7, 7, 7, 7, 0, 0, 0, 0, 0]);
        assert!(!overlay.apply(&mut bytes, 2048));
    }
}
