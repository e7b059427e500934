//! Snapshots of the old kind: what a volume's chunks held before they were overwritten, or what was written to the
//! snapshot itself, kept on a store of its own.
//!
//! Source: the kernel's `dm-snap-persistent.c` ("persistent" exception store, whose layout its comment describes).

use std::collections::HashMap;

use crate::bytes::{has, le_u32, le_u64};
use crate::error::{Error, Limit, Result};
use crate::limits::Budget;
use crate::read_at::{ReadAt, Source, check_range, read_up_to};
use crate::volume::compose::{front, read_in_pieces};

const SECTOR: u64 = 512;
/// dm-snapshot takes no larger chunk; a smaller one cannot hold an exception.
const CHUNK_MAX: u64 = 512 << 10;
const EXCEPTION_BYTES: u64 = 16;

/// A snapshot.
#[derive(Debug)]
pub(crate) struct Snapshot {
    origin: Source,
    store: Source,
    chunk: u64,
    /// Chunk of the origin to chunk of the store.
    exceptions: HashMap<u64, u64>,
    length: u64,
}

impl Snapshot {
    /// The snapshot of `origin` whose exceptions are on `store`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a store that is none or that has become invalid; [`Error::LimitReached`] for one with more
    /// exceptions than memory is allowed for.
    pub(crate) fn open(origin: Source, store: Source, length: u64, budget: &Budget) -> Result<Self> {
        const STRUCTURE: &str = "LVM snapshot store";
        let header = read_up_to(&*store, 0, 512)?;
        if !has(&header, 0, b"SnAp") {
            return Err(Error::corrupt(STRUCTURE, 0, "its magic is wrong"));
        }
        if le_u32(&header, 4) == Some(0) {
            return Err(Error::corrupt(STRUCTURE, 4, "it is marked invalid: the store was full"));
        }
        if le_u32(&header, 8) != Some(1) {
            return Err(Error::unsupported("LVM snapshot store of another version than 1"));
        }
        let chunk = u64::from(le_u32(&header, 12).unwrap_or(0)).saturating_mul(SECTOR);
        if chunk == 0 || chunk > CHUNK_MAX {
            return Err(Error::corrupt(STRUCTURE, 12, format!("its chunks have {chunk} bytes")));
        }
        let exceptions = read_exceptions(&*store, chunk, budget)?;
        Ok(Self { origin, store, chunk, exceptions, length })
    }
}

/// Areas of one chunk full of exceptions, each before the chunks that it tells of; the list ends with a new chunk of 0.
fn read_exceptions(store: &dyn ReadAt, chunk: u64, budget: &Budget) -> Result<HashMap<u64, u64>> {
    let mut exceptions = HashMap::new();
    let per_area = chunk / EXCEPTION_BYTES;
    // An entry of the map takes about twice its 16 bytes.
    let bound = budget.limits().allocation_bytes / 32;
    let mut bytes = budget.allocate(chunk)?;
    let mut area = 1_u64;
    while area.saturating_add(1).saturating_mul(chunk) <= store.len() {
        budget.check_time()?;
        let at = area.saturating_mul(chunk);
        store.read_exact_at(&mut bytes, at)?;
        for entry in bytes.chunks_exact(16) {
            let (Some(old), Some(new)) = (le_u64(entry, 0), le_u64(entry, 8)) else { break };
            if new == 0 {
                return Ok(exceptions);
            }
            if exceptions.len() as u64 >= bound {
                return Err(Error::LimitReached { which: Limit::Allocation, value: budget.limits().allocation_bytes });
            }
            exceptions.insert(old, new);
        }
        area = area.saturating_add(per_area).saturating_add(1);
    }
    Ok(exceptions)
}

impl ReadAt for Snapshot {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.length, buffer.len(), offset)?;
        read_in_pieces(self.length, buffer, offset, |rest, at| {
            let number = at.checked_div(self.chunk).unwrap_or(0);
            let within = at.checked_rem(self.chunk).unwrap_or(0);
            let Some(new) = self.exceptions.get(&number) else {
                // One read of the origin up to the next exception.
                let mut run = self.chunk.saturating_sub(within);
                let mut next = number.saturating_add(1);
                while run < rest.len() as u64 && !self.exceptions.contains_key(&next) {
                    run = run.saturating_add(self.chunk);
                    next = next.saturating_add(1);
                }
                let piece = front(rest, run);
                self.origin.read_exact_at(piece, at)?;
                return Ok(piece.len());
            };
            let piece = front(rest, self.chunk.saturating_sub(within));
            self.store.read_exact_at(piece, new.saturating_mul(self.chunk).saturating_add(within))?;
            Ok(piece.len())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use std::sync::Arc;

    #[test]
    fn chunks_that_changed_come_from_the_store() {
        let chunk = 512_usize;
        let mut store = vec![0_u8; 40 * chunk];
        store[..4].copy_from_slice(b"SnAp");
        store[4] = 1;
        store[8] = 1;
        store[12] = 1;
        // 32 exceptions to an area: 40 of them need a second one, after the 32 chunks of the first.
        for (index, (old, new)) in [(3_u64, 2_u64), (1, 3)].into_iter().enumerate() {
            let at = chunk + index * 16;
            store[at..at + 8].copy_from_slice(&old.to_le_bytes());
            store[at + 8..at + 16].copy_from_slice(&new.to_le_bytes());
            let data = usize::try_from(new).unwrap() * chunk;
            store[data..data + chunk].fill(100 + u8::try_from(old).unwrap());
        }
        let origin: Vec<u8> = (0..6_u8).flat_map(|number| vec![number; chunk]).collect();
        let budget = Budget::new(&Limits::default());
        let open = |store: Vec<u8>| Snapshot::open(Arc::new(origin.clone()), Arc::new(store), 6 * 512, &budget);
        let snapshot = open(store.clone()).unwrap();
        let mut bytes = vec![0; 6 * chunk];
        snapshot.read_exact_at(&mut bytes, 0).unwrap();
        let found: Vec<u8> = bytes.chunks(chunk).map(|chunk| chunk[7]).collect();
        assert_eq!(found, [0, 101, 2, 103, 4, 5]);
        store[4] = 0;
        assert!(matches!(open(store), Err(Error::Corrupt { .. })));
    }
}
