//! The one block cache, standing under the file systems and above the image formats.
//!
//! Readers of file systems ask for small pieces near one another; an image file is read best in pages. Memory is
//! bounded whatever an image does, and reads as long as a page or more pass by, because contents are read once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::read_at::{ReadAt, Source, check_range};

/// Bytes of a page. Inode tables and directories lie in runs of some tens of KiB; measured on Debian guests, 16 KiB
/// pages read a third of the bytes of 64 KiB ones for the same CPU time.
const PAGE_BYTES: usize = 16 << 10;
/// Bytes of pages held: the metadata that one inspection returns to, several times over.
const CACHE_BYTES: usize = 16 << 20;

/// At most so many bytes of values; the least recently used go first.
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    values: HashMap<K, (V, u64)>,
    clock: u64,
    capacity: usize,
}

impl<K: Hash + Eq + Copy, V: Clone> Lru<K, V> {
    /// Holds at most `capacity` values, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { values: HashMap::new(), clock: 0, capacity: capacity.max(1) }
    }

    /// The value under `key`, which becomes the most recently used.
    pub(crate) fn get(&mut self, key: K) -> Option<V> {
        self.clock = self.clock.wrapping_add(1);
        let (value, used) = self.values.get_mut(&key)?;
        *used = self.clock;
        Some(value.clone())
    }

    /// Holds `value` under `key`; what had to go for it.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Vec<V> {
        let is_full = self.values.len() >= self.capacity && !self.values.contains_key(&key);
        let gone = if is_full { self.forget_older_half() } else { Vec::new() };
        self.clock = self.clock.wrapping_add(1);
        self.values.insert(key, (value, self.clock));
        gone
    }

    /// Halving costs one pass for half a capacity of insertions: constant per insertion, without a list to maintain.
    fn forget_older_half(&mut self) -> Vec<V> {
        let mut used: Vec<u64> = self.values.values().map(|(_, used)| *used).collect();
        let middle = used.len() / 2;
        let (_, median, _) = used.select_nth_unstable(middle);
        let median = *median;
        self.values.extract_if(|_, (_, used)| *used <= median).map(|(_, (value, _))| value).collect()
    }
}

/// A source seen through the cache.
#[derive(Debug)]
pub struct BlockCache {
    source: Source,
    budget: Arc<Budget>,
    pages: Mutex<Pages>,
}

/// Pages by number, and the memory of those that had to go, for the next ones: a walk over a disk would ask the system for
/// each page's anew.
#[derive(Debug)]
struct Pages {
    held: Lru<u64, Arc<Vec<u8>>>,
    spare: Vec<Vec<u8>>,
}

impl BlockCache {
    /// An empty cache over `source`.
    #[must_use]
    pub fn new(source: Source, budget: Arc<Budget>) -> Self {
        let pages = Pages { held: Lru::new(CACHE_BYTES / PAGE_BYTES), spare: Vec::new() };
        Self { source, budget, pages: Mutex::new(pages) }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, number: u64) -> Result<Arc<Vec<u8>>> {
        let mut pages = self.pages();
        if let Some(page) = pages.held.get(number) {
            return Ok(page);
        }
        let mut bytes = pages.spare.pop().unwrap_or_default();
        drop(pages);
        let start = number.saturating_mul(PAGE_BYTES as u64);
        let length = self.source.len().saturating_sub(start).min(PAGE_BYTES as u64);
        bytes.resize(usize::try_from(length).unwrap_or(0), 0);
        self.source.read_exact_at(&mut bytes, start)?;
        // Not `Arc<[u8]>`, which every page would be copied into.
        let page = Arc::new(bytes);
        let mut pages = self.pages();
        let gone = pages.held.insert(number, Arc::clone(&page));
        pages.spare.extend(gone.into_iter().filter_map(Arc::into_inner));
        Ok(page)
    }
}

impl ReadAt for BlockCache {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len(), buffer.len(), offset)?;
        self.budget.check_time()?;
        if buffer.len() >= PAGE_BYTES {
            return self.source.read_exact_at(buffer, offset);
        }
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(done as u64);
            let page = self.page(at / PAGE_BYTES as u64)?;
            let within = usize::try_from(at % PAGE_BYTES as u64).unwrap_or(0);
            let available = page.get(within..).unwrap_or_default();
            let count = available.len().min(rest.len());
            match (rest.get_mut(..count), available.get(..count)) {
                (Some(to), Some(from)) if count > 0 => to.copy_from_slice(from),
                _ => return Err(Error::corrupt("byte range", at, "the disk has become shorter")),
            }
            done = done.saturating_add(count);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    #[test]
    fn the_cache_gives_the_bytes_of_its_source() {
        let bytes: Vec<u8> = (0..3 * PAGE_BYTES + 77).map(|at| (at % 251) as u8).collect();
        let cache = BlockCache::new(Arc::new(bytes.clone()), Budget::new(&Limits::default()));
        for (at, length) in
            [(0, 1), (PAGE_BYTES - 3, 7), (5, 2 * PAGE_BYTES), (3 * PAGE_BYTES + 70, 7), (0, bytes.len()), (9, 0)]
        {
            let mut buffer = vec![0; length];
            cache.read_exact_at(&mut buffer, at as u64).unwrap();
            assert_eq!(buffer, bytes[at..at + length]);
        }
        assert!(cache.read_exact_at(&mut [0; 8], bytes.len() as u64 - 7).is_err());
    }

    #[test]
    fn the_oldest_values_go_first_and_the_number_is_bounded() {
        let mut lru = Lru::new(8);
        for key in 0..100 {
            lru.insert(key, key);
            assert_eq!(lru.get(0), Some(0), "used again and again, so never the oldest");
            assert!(lru.values.len() <= 8);
        }
        assert_eq!(lru.get(99), Some(99));
        assert_eq!(lru.get(50), None);
    }
}
