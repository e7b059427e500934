//! What FAT and exFAT share: a heap of clusters, a table that chains them, and reading along a chain.

use std::sync::Arc;

use crate::bytes::{le_u16, le_u32};
use crate::error::{Error, Limit, Result};
use crate::limits::Budget;
use crate::read_at::{ReadAt, Source, read_up_to};

/// Bytes of the table held while a chain is followed; an entry that begins in the first half lies within.
const WINDOW_BYTES: u64 = 8 << 10;
/// Clusters followed between two looks at the time.
const STEPS_PER_CHECK: u32 = 1 << 12;

/// Where the clusters lie. They are numbered from 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heap {
    /// Byte of cluster 2.
    pub(super) start: u64,
    pub(super) cluster_bytes: u64,
    pub(super) clusters: u32,
}

impl Heap {
    pub(super) fn contains(&self, cluster: u32) -> bool {
        cluster.checked_sub(2).is_some_and(|index| index < self.clusters)
    }

    /// The first byte of `cluster`.
    pub(super) fn offset_of(&self, cluster: u32) -> Option<u64> {
        let index = cluster.checked_sub(2).filter(|index| *index < self.clusters)?;
        self.start.checked_add(u64::from(index).checked_mul(self.cluster_bytes)?)
    }

    /// How many clusters hold `bytes`.
    pub(super) const fn clusters_for(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster_bytes)
    }
}

/// How wide an entry of the table is, and from which number on it ends a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Fat12,
    Fat16,
    /// 28 bits: the upper four of a double word are reserved.
    Fat32,
    Exfat,
}

impl Width {
    /// The longest table of so many entries, in bytes.
    pub(super) const fn bytes_for(self, entries: u64) -> u64 {
        match self {
            Self::Fat12 => entries.saturating_mul(3).div_ceil(2),
            Self::Fat16 => entries.saturating_mul(2),
            Self::Fat32 | Self::Exfat => entries.saturating_mul(4),
        }
    }

    /// How many entries lie whole in `bytes`.
    pub(super) const fn entries_in(self, bytes: u64) -> u64 {
        match self {
            Self::Fat12 => bytes.saturating_mul(2) / 3,
            Self::Fat16 => bytes / 2,
            Self::Fat32 | Self::Exfat => bytes / 4,
        }
    }

    const fn end(self) -> u32 {
        match self {
            Self::Fat12 => 0xff8,
            Self::Fat16 => 0xfff8,
            Self::Fat32 => 0x0fff_fff8,
            Self::Exfat => u32::MAX,
        }
    }

    const fn structure(self) -> &'static str {
        match self {
            Self::Exfat => "exFAT table",
            _ => "file allocation table",
        }
    }

    /// The entry of `cluster`, where `table` begins with the byte `from` of the table.
    fn entry(self, table: &[u8], from: u64, cluster: u32) -> Option<u32> {
        let at = usize::try_from(self.position(cluster).checked_sub(from)?).ok()?;
        match self {
            Self::Fat12 => {
                let pair = u32::from(le_u16(table, at)?);
                Some(if cluster.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 })
            }
            Self::Fat16 => le_u16(table, at).map(u32::from),
            Self::Fat32 => le_u32(table, at).map(|entry| entry & 0x0fff_ffff),
            Self::Exfat => le_u32(table, at),
        }
    }

    const fn position(self, cluster: u32) -> u64 {
        let cluster = cluster as u64;
        match self {
            Self::Fat12 => cluster + cluster / 2,
            Self::Fat16 => cluster * 2,
            Self::Fat32 | Self::Exfat => cluster * 4,
        }
    }
}

/// The table that is in use.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) source: Source,
    pub(super) start: u64,
    pub(super) width: Width,
    pub(super) heap: Heap,
    pub(super) budget: Arc<Budget>,
}

/// A walk along a chain, which remembers the part of the table it is in.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    table: &'a Table,
    window: Vec<u8>,
    window_start: u64,
    steps: u32,
    links: u32,
    /// A cluster met before, set anew at each power of two of links: a chain in circles comes back to it (Brent).
    marked: Option<u32>,
}

impl Table {
    pub(super) const fn walk(&self) -> Walk<'_> {
        Walk { table: self, window: Vec::new(), window_start: 0, steps: 0, links: 0, marked: None }
    }

    /// The chain from `first` on, of `length` clusters.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a chain that ends earlier, leaves the heap or meets a free or bad cluster.
    pub(super) fn chain(&self, first: u32, length: u64) -> Result<Chain> {
        if length > u64::from(self.heap.clusters) {
            let reason = format!("{length} clusters are asked for, of {} there are", self.heap.clusters);
            return Err(Error::corrupt(self.width.structure(), self.start, reason));
        }
        let mut chain = Chain::default();
        let mut walk = self.walk();
        let mut next = Some(first);
        for index in 0..length {
            let Some(cluster) = next else {
                let reason = format!("the chain from cluster {first} ends after {index} clusters of {length}");
                return Err(Error::corrupt(self.width.structure(), self.start, reason));
            };
            self.check(cluster)?;
            chain.push(cluster, &self.budget)?;
            if index + 1 < length {
                next = walk.next(cluster)?;
            }
        }
        Ok(chain)
    }

    /// Number of clusters from `first` to the end of its chain, at most `most`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a chain that is longer, or broken.
    pub(super) fn length(&self, first: u32, most: u64) -> Result<u64> {
        let mut walk = self.walk();
        let (mut next, mut count) = (Some(first), 0);
        while let Some(cluster) = next {
            self.check(cluster)?;
            count += 1;
            if count > most {
                let reason = format!("the chain from cluster {first} has more than {most} clusters");
                return Err(Error::corrupt(self.width.structure(), self.start, reason));
            }
            next = walk.next(cluster)?;
        }
        Ok(count)
    }

    /// Fails unless `cluster` is one.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub(super) fn check(&self, cluster: u32) -> Result<()> {
        if self.heap.contains(cluster) {
            return Ok(());
        }
        let reason = format!("there is no cluster {cluster} among {}", self.heap.clusters);
        Err(Error::corrupt(self.width.structure(), self.start, reason))
    }

    /// Clusters that the table says are free, counted.
    ///
    /// # Errors
    /// I/O, limits.
    pub(super) fn count_free(&self) -> Result<u64> {
        let mut walk = self.walk();
        let mut free = 0;
        for cluster in (2..).take(usize::try_from(self.heap.clusters).unwrap_or(0)) {
            free += u64::from(walk.entry(cluster)? == 0);
        }
        Ok(free)
    }
}

impl Walk<'_> {
    /// The cluster after `cluster`, or `None` at the end of the chain.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for an entry that is free, bad, or no cluster's number.
    pub(super) fn next(&mut self, cluster: u32) -> Result<Option<u32>> {
        let entry = self.entry(cluster)?;
        let table = self.table;
        if table.heap.contains(entry) {
            if self.marked == Some(entry) || entry == cluster {
                let reason = format!("the chain goes in circles at cluster {entry}");
                return Err(Error::corrupt(table.width.structure(), table.start, reason));
            }
            self.links = self.links.wrapping_add(1);
            if self.links.is_power_of_two() {
                self.marked = Some(entry);
            }
            return Ok(Some(entry));
        }
        if entry >= table.width.end() {
            return Ok(None);
        }
        let at = table.start.saturating_add(table.width.position(cluster));
        Err(Error::corrupt(table.width.structure(), at, format!("{entry:#x} follows cluster {cluster}")))
    }

    fn entry(&mut self, cluster: u32) -> Result<u32> {
        self.steps = self.steps.wrapping_add(1);
        if self.steps.is_multiple_of(STEPS_PER_CHECK) {
            self.table.budget.check_time()?;
        }
        let width = self.table.width;
        if let Some(entry) = width.entry(&self.window, self.window_start, cluster) {
            return Ok(entry);
        }
        let half = WINDOW_BYTES / 2;
        self.window_start = width.position(cluster) / half * half;
        let at = self.table.start.saturating_add(self.window_start);
        self.window = read_up_to(&*self.table.source, at, usize::try_from(WINDOW_BYTES).unwrap_or(0))?;
        width.entry(&self.window, self.window_start, cluster).ok_or_else(|| {
            Error::corrupt(width.structure(), at, format!("the entry of cluster {cluster} lies behind the end"))
        })
    }
}

/// Clusters that follow one another on the disk and in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// Clusters of the file before this run.
    index: u32,
    cluster: u32,
    count: u32,
}

/// The clusters of a file in order, as runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    runs: Vec<Run>,
}

impl Chain {
    /// `count` clusters in a row.
    pub(super) fn contiguous(cluster: u32, count: u32) -> Self {
        Self { runs: vec![Run { index: 0, cluster, count }] }
    }

    fn push(&mut self, cluster: u32, budget: &Budget) -> Result<()> {
        let index = match self.runs.last_mut() {
            Some(run) if run.cluster.checked_add(run.count) == Some(cluster) => {
                run.count += 1;
                return Ok(());
            }
            Some(run) => run.index.saturating_add(run.count),
            None => 0,
        };
        let bound = budget.limits().allocation_bytes;
        let bytes = (self.runs.len() as u64 + 1).saturating_mul(size_of::<Run>() as u64);
        if bytes > bound || self.runs.try_reserve(1).is_err() {
            return Err(Error::LimitReached { which: Limit::Allocation, value: bound });
        }
        self.runs.push(Run { index, cluster, count: 1 });
        Ok(())
    }

    /// Number of runs, which is what a chain weighs in memory.
    pub(super) const fn weight(&self) -> usize {
        self.runs.len()
    }

    /// Fills `buffer` with what lies at `offset` of the file, one read per run.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a range that leaves the chain or the disk.
    pub(super) fn read(&self, source: &dyn ReadAt, heap: &Heap, buffer: &mut [u8], offset: u64) -> Result<()> {
        let leaves = || Error::corrupt("cluster chain", offset, "a read leaves the chain");
        let first = u32::try_from(offset / heap.cluster_bytes).map_err(|_| leaves())?;
        let from = self.runs.partition_point(|run| run.index <= first).saturating_sub(1);
        let mut done = 0;
        for run in self.runs.get(from..).unwrap_or_default() {
            let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) else { break };
            let at = offset.saturating_add(done as u64);
            let within = at.checked_sub(u64::from(run.index) * heap.cluster_bytes).ok_or_else(leaves)?;
            let available = (u64::from(run.count) * heap.cluster_bytes).saturating_sub(within);
            let count = usize::try_from(available).unwrap_or(usize::MAX).min(rest.len());
            let start = heap.offset_of(run.cluster).and_then(|start| start.checked_add(within)).ok_or_else(leaves)?;
            source.read_exact_at(rest.get_mut(..count).unwrap_or_default(), start)?;
            done += count;
        }
        if done < buffer.len() { Err(leaves()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    const HEAP: Heap = Heap { start: 100, cluster_bytes: 10, clusters: 6 };

    fn table(entries: &[u16]) -> Table {
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        let budget = Budget::new(&Limits::default());
        Table { source: Arc::new(bytes), start: 0, width: Width::Fat16, heap: HEAP, budget }
    }

    #[test]
    fn a_chain_is_followed_to_its_end_and_no_further() {
        let table = table(&[0xfff8, 0xffff, 3, 6, 0, 0xfff7, 7, 0xffff]);
        assert_eq!(table.length(2, 100).unwrap(), 4);
        let chain = table.chain(2, 4).unwrap();
        let run = |index, cluster| Run { index, cluster, count: 2 };
        assert_eq!(chain.runs, [run(0, 2), run(2, 6)]);
        assert!(matches!(table.chain(2, 5), Err(Error::Corrupt { .. })), "it ends earlier");
        assert!(matches!(table.chain(4, 2), Err(Error::Corrupt { .. })), "free");
        assert!(matches!(table.chain(5, 2), Err(Error::Corrupt { .. })), "bad");
        assert!(matches!(table.chain(8, 1), Err(Error::Corrupt { .. })), "outside");
        assert_eq!(table.count_free().unwrap(), 1);
    }

    #[test]
    fn a_chain_in_circles_is_corrupt() {
        let table = table(&[0xfff8, 0xffff, 3, 2, 0, 0, 0, 0]);
        assert!(matches!(table.length(2, 100), Err(Error::Corrupt { .. })));
        assert!(matches!(table.chain(2, 7), Err(Error::Corrupt { .. })));
    }

    #[test]
    fn entries_of_twelve_bits_straddle_bytes() {
        let bytes = vec![0xf8, 0xff, 0xff, 0x03, 0x40, 0x00, 0xff, 0x0f];
        let budget = Budget::new(&Limits::default());
        let heap = Heap { clusters: 3, ..HEAP };
        let table = Table { source: Arc::new(bytes), start: 0, width: Width::Fat12, heap, budget };
        assert_eq!(table.length(2, 10).unwrap(), 3);
    }

    #[test]
    fn a_read_goes_across_runs() {
        let disk: Vec<u8> = (0..200_u8).collect();
        let chain = table(&[0xfff8, 0xffff, 3, 6, 0, 0, 7, 0xffff]).chain(2, 4).unwrap();
        let mut buffer = [0; 30];
        chain.read(&disk, &HEAP, &mut buffer, 5).unwrap();
        let expected: Vec<u8> = (105..120).chain(140..155).collect();
        assert_eq!(buffer.to_vec(), expected);
        assert!(chain.read(&disk, &HEAP, &mut buffer, 11).is_err());
        assert!(chain.read(&disk, &HEAP, &mut buffer, u64::MAX).is_err());
    }
}
