//! exFAT ("exFAT file system specification", Microsoft, 2019).
//!
//! exFAT keeps no owners, modes or links: every file belongs to root with mode 0755, or 0555 where it is read-only, as
//! when Linux mounts a volume without options. A node is the place of a file's entry set in units of an entry from the
//! start of the volume, with the highest bit set where the directory that holds it lies in clusters in a row (a set may
//! go on in the next cluster, and only the directory's own entry tells which one that is); it is 0 for the root.

mod boot;
mod directory;
mod upcase;

use std::sync::{Arc, Mutex, PoisonError};

use self::boot::Boot;
use self::directory::{ENTRY_BYTES, File, Listing, SET_BYTES_MAX, Special, Stream};
use self::upcase::{TABLE_BYTES_MAX, UpcaseTable};
use super::clusters::{Chain, Table, Width};
use super::held::Held;
use super::{DirEntry, FileSystem, FileSystemInfo, FileType, Metadata, NodeId, Probe, Timestamp};
use crate::error::{Error, Limit, Result};
use crate::limits::Budget;
use crate::read_at::{Source, read_up_to};

/// Entries of listings held in all, some 200 bytes each.
const ENTRIES_HELD: usize = 150_000;
/// Runs of cluster chains held in all, twelve bytes each.
const RUNS_HELD: usize = 500_000;
/// Bytes of a directory read at once.
const PIECE_BYTES: usize = 64 << 10;
/// Warnings kept of directories; where more are broken, so is the volume as a whole.
const WARNINGS_MAX: usize = 100;
/// Marks a node whose directory lies in clusters in a row.
const IN_CONTIGUOUS: u64 = 1 << 63;

const ROOT: NodeId = NodeId(0);

/// A mounted exFAT file system.
#[derive(Debug)]
pub(super) struct Exfat {
    info: FileSystemInfo,
    warnings: Mutex<Vec<String>>,
    source: Source,
    boot: Boot,
    table: Table,
    upcase: UpcaseTable,
    listings: Held<Listing>,
    chains: Held<Chain>,
}

/// Where the contents of a directory lie.
#[derive(Debug, Clone, Copy)]
struct Place {
    cluster: u32,
    /// Bytes, where they are known: the root's end is that of its chain.
    length: Option<u64>,
    is_contiguous: bool,
}

impl Exfat {
    /// Mounts the file system on `source`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where neither boot region is whole, or the root directory cannot be read; [`Error::Unsupported`]
    /// for a later version; limits, I/O.
    pub(super) fn open(source: Source, probe: &Probe, budget: Arc<Budget>) -> Result<Self> {
        let (boot, warning) = Boot::read(&*source)?;
        let (start, heap) = (boot.table_start, boot.heap);
        let table = Table { source: Arc::clone(&source), start, width: Width::Exfat, heap, budget };
        let mut warnings: Vec<String> = warning.into_iter().collect();
        if boot.is_dirty {
            warnings.push("the volume was not unmounted, so recent changes may be missing".to_owned());
        }
        if boot.size_bytes > source.len() {
            warnings.push(format!("it has {} bytes, and the device {}", boot.size_bytes, source.len()));
        }
        let info = FileSystemInfo {
            kind: probe.kind,
            label: probe.label.clone(),
            uuid: probe.uuid.clone(),
            size_bytes: boot.size_bytes,
            free_bytes: 0,
            inodes: None,
            inodes_free: None,
        };
        let mut volume = Self {
            info,
            warnings: Mutex::new(warnings),
            source,
            boot,
            table,
            upcase: UpcaseTable::plain(),
            listings: Held::new(ENTRIES_HELD),
            chains: Held::new(RUNS_HELD),
        };
        // The root is read once without its own table, for that is where the table is told.
        let root = volume.list(volume.root_place())?;
        match root.upcase.map(|special| volume.read_upcase(special)).transpose()?.flatten() {
            Some(table) => volume.upcase = table,
            None => volume.warn("the up-case table is missing or its checksum is wrong; a plain one stands in for it"),
        }
        let bitmap = root.bitmaps.get(usize::from(volume.boot.active)).copied().flatten();
        let free = match bitmap.map(|special| volume.count_free(special)) {
            Some(Ok(free)) => free,
            Some(Err(error)) if error.is_budget_exhausted() => return Err(error),
            // The kernel refuses to mount without a bitmap, because it would write; reading needs none.
            _ => {
                volume.warn("the allocation bitmap cannot be read, so free space is not known exactly");
                let in_use = u64::from(volume.boot.percent_in_use.unwrap_or(100));
                u64::from(heap.clusters) * (100 - in_use) / 100
            }
        };
        volume.info.free_bytes = free.saturating_mul(heap.cluster_bytes);
        Ok(volume)
    }

    fn warn(&self, what: &str) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.len() < WARNINGS_MAX && !warnings.iter().any(|known| known == what) {
            warnings.push(what.to_owned());
        }
    }

    fn read_upcase(&self, special: Special) -> Result<Option<UpcaseTable>> {
        if special.length > TABLE_BYTES_MAX {
            return Ok(None);
        }
        let Ok(chain) = self.table.chain(special.cluster, self.boot.heap.clusters_for(special.length)) else {
            return Ok(None);
        };
        let mut bytes = self.table.budget.allocate(special.length)?;
        chain.read(&*self.source, &self.boot.heap, &mut bytes, 0)?;
        Ok(UpcaseTable::parse(&bytes, special.checksum))
    }

    /// Section 7.1: a bit per cluster, set where it is in use.
    fn count_free(&self, special: Special) -> Result<u64> {
        let clusters = u64::from(self.boot.heap.clusters);
        let length = clusters.div_ceil(8);
        if special.length < length {
            return Err(Error::corrupt("exFAT allocation bitmap", 0, "it is too short for the clusters"));
        }
        let chain = self.table.chain(special.cluster, self.boot.heap.clusters_for(length))?;
        let mut piece = vec![0; PIECE_BYTES];
        let (mut at, mut used) = (0, 0);
        while at < length {
            let count = usize::try_from(length - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let part = piece.get_mut(..count).unwrap_or_default();
            chain.read(&*self.source, &self.boot.heap, part, at)?;
            at += count as u64;
            // Bits behind the last cluster say nothing.
            if at == length
                && clusters % 8 != 0
                && let Some(last) = part.last_mut()
            {
                *last &= (1 << (clusters % 8)) - 1;
            }
            used += part.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
        }
        Ok(clusters - used)
    }

    const fn root_place(&self) -> Place {
        Place { cluster: self.boot.root, length: None, is_contiguous: false }
    }

    /// The set that `node` is. It may go on in the next cluster of its directory.
    fn file(&self, node: NodeId) -> Result<File> {
        let position = (node.0 & !IN_CONTIGUOUS).saturating_mul(ENTRY_BYTES as u64);
        let nothing = || Error::corrupt("exFAT directory entry set", position, "no file has its entry there");
        let heap = self.boot.heap;
        let within = position.checked_sub(heap.start).ok_or_else(nothing)?;
        let cluster = u32::try_from(within / heap.cluster_bytes).ok().and_then(|index| index.checked_add(2));
        let cluster = cluster.filter(|cluster| heap.contains(*cluster)).ok_or_else(nothing)?;
        let in_cluster = usize::try_from(heap.cluster_bytes - within % heap.cluster_bytes).unwrap_or(usize::MAX);
        let mut set = read_up_to(&*self.source, position, ENTRY_BYTES)?;
        let length = ((1 + usize::from(set.get(1).copied().unwrap_or(0))) * ENTRY_BYTES).min(SET_BYTES_MAX);
        set = read_up_to(&*self.source, position, length.min(in_cluster))?;
        if length > in_cluster {
            let next =
                if node.0 & IN_CONTIGUOUS != 0 { cluster.checked_add(1) } else { self.table.walk().next(cluster)? };
            let start = next.and_then(|next| heap.offset_of(next)).ok_or_else(nothing)?;
            set.extend(read_up_to(&*self.source, start, length - in_cluster)?);
        }
        File::parse(&set, position)
    }

    fn place(&self, directory: NodeId) -> Result<Place> {
        if directory == ROOT {
            return Ok(self.root_place());
        }
        let file = self.file(directory)?;
        if !file.is_directory() {
            return Err(Error::corrupt("exFAT directory entry set", directory.0, "it is not of a directory"));
        }
        let Stream { cluster, length, is_contiguous, .. } = file.stream;
        Ok(Place { cluster, length: Some(length), is_contiguous })
    }

    fn listing(&self, directory: NodeId) -> Result<Arc<Listing>> {
        if let Some(listing) = self.listings.get(directory.0) {
            return Ok(listing);
        }
        let listing = Arc::new(self.list(self.place(directory)?)?);
        if let Some((count, error)) = &listing.broken {
            self.warn(&format!("{count} names of a directory cannot be read: {error}"));
        }
        self.listings.insert(directory.0, &listing, listing.entries.len());
        Ok(listing)
    }

    fn list(&self, place: Place) -> Result<Listing> {
        let (heap, budget) = (self.boot.heap, &self.table.budget);
        let mut listing = Listing::default();
        let mut walk = self.table.walk();
        let mut next = Some(place.cluster).filter(|_| place.length != Some(0));
        let bound = budget.limits().allocation_bytes;
        let mut left = place.length.unwrap_or(u64::MAX);
        // What is read and not yet taken in, and how many bytes have been read.
        let (mut pending, mut done) = (Pending::default(), 0);
        while let Some(cluster) = next.filter(|_| left > 0) {
            self.table.check(cluster)?;
            let start = heap.offset_of(cluster).unwrap_or(u64::MAX);
            let mut within = 0;
            while within < heap.cluster_bytes.min(left) {
                budget.check_time()?;
                let count = heap.cluster_bytes.min(left).saturating_sub(within).min(PIECE_BYTES as u64);
                done += count;
                // A listing weighs some times what its directory does.
                if done > bound {
                    return Err(Error::LimitReached { which: Limit::Allocation, value: bound });
                }
                let piece = read_up_to(&*self.source, start + within, usize::try_from(count).unwrap_or(0))?;
                if piece.len() as u64 != count {
                    return Err(Error::corrupt("exFAT directory", start, "it leaves the disk"));
                }
                pending.push(piece, start + within);
                within += count;
                if !pending.take_into(&mut listing, &self.upcase, SET_BYTES_MAX) {
                    return Ok(listing);
                }
            }
            left = left.saturating_sub(heap.cluster_bytes);
            next = if place.is_contiguous { cluster.checked_add(1) } else { walk.next(cluster)? };
        }
        if left > 0 && place.length.is_some_and(|length| length > 0) {
            return Err(Error::corrupt("exFAT directory", 0, "its chain is shorter than it"));
        }
        pending.take_into(&mut listing, &self.upcase, ENTRY_BYTES);
        Ok(listing)
    }

    fn chain_of(&self, node: NodeId, stream: Stream) -> Result<Arc<Chain>> {
        let count = self.boot.heap.clusters_for(stream.valid_length);
        if stream.is_contiguous {
            let fits = u32::try_from(count).ok().filter(|count| {
                let last = count.checked_sub(1).and_then(|more| stream.cluster.checked_add(more));
                self.boot.heap.contains(stream.cluster) && last.is_some_and(|last| self.boot.heap.contains(last))
            });
            return match fits {
                Some(count) => Ok(Arc::new(Chain::contiguous(stream.cluster, count))),
                None => Err(Error::corrupt("exFAT stream", 0, format!("{count} clusters in a row leave the volume"))),
            };
        }
        if let Some(chain) = self.chains.get(node.0) {
            return Ok(chain);
        }
        let chain = Arc::new(self.table.chain(stream.cluster, count)?);
        self.chains.insert(node.0, &chain, chain.weight());
        Ok(chain)
    }
}

/// Bytes of a directory that are read and not yet taken in: pieces that follow one another in the directory, wherever
/// they lie on the disk.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Where in `bytes` a piece begins, and where it lies on the disk.
    pieces: Vec<(usize, u64)>,
    at: usize,
}

impl Pending {
    fn push(&mut self, piece: Vec<u8>, position: u64) {
        // Only the piece in which the next entry lies is still needed, and what follows it.
        let current = self.pieces.partition_point(|(start, _)| *start <= self.at).saturating_sub(1);
        let cut = self.pieces.get(current).map_or(0, |(start, _)| *start);
        self.bytes.drain(..cut.min(self.bytes.len()));
        self.pieces.drain(..current.min(self.pieces.len()));
        self.pieces.iter_mut().for_each(|(start, _)| *start -= cut);
        self.at -= cut;
        self.pieces.push((self.bytes.len(), position));
        self.bytes.extend(piece);
    }

    /// Takes in entries while `needed` bytes follow. Returns whether the directory goes on.
    fn take_into(&mut self, listing: &mut Listing, upcase: &UpcaseTable, needed: usize) -> bool {
        while let Some(rest) = self.bytes.get(self.at..).filter(|rest| rest.len() >= needed) {
            let piece = self.pieces.partition_point(|(start, _)| *start <= self.at).saturating_sub(1);
            let Some((start, on_disk)) = self.pieces.get(piece) else { break };
            let position = on_disk + (self.at - start) as u64;
            match listing.take(rest, position, upcase) {
                Some(taken) => self.at += taken * ENTRY_BYTES,
                None => return false,
            }
        }
        true
    }
}

impl FileSystem for Exfat {
    fn info(&self) -> &FileSystemInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        ROOT
    }

    /// Case does not matter: the volume's own table tells which names are equal.
    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let contiguous = self.place(directory)?.is_contiguous;
        let found = self.listing(directory)?.find(name, &self.upcase);
        Ok(found.map(|position| node_at(position, contiguous)))
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let file = if node == ROOT { None } else { Some(self.file(node)?) };
        let is_file = file.as_ref().is_some_and(|file| !file.is_directory());
        let size = match &file {
            Some(file) => file.stream.length,
            None => {
                let heap = self.boot.heap;
                self.table.length(self.boot.root, u64::from(heap.clusters))?.saturating_mul(heap.cluster_bytes)
            }
        };
        // The root has no entry, and so no times.
        let modified = file.as_ref().map_or_else(Timestamp::default, |file| file.modified);
        Ok(Metadata {
            node,
            file_type: if is_file { FileType::Regular } else { FileType::Directory },
            mode: if is_file && file.as_ref().is_some_and(File::is_read_only) { 0o555 } else { 0o755 },
            uid: 0,
            gid: 0,
            size,
            links: 1,
            device: None,
            accessed: file.as_ref().map(|file| file.accessed),
            modified,
            changed: modified,
            created: file.map(|file| file.created),
        })
    }

    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>> {
        let contiguous = self.place(directory)?.is_contiguous;
        let entry = |entry: &directory::Entry| DirEntry {
            name: entry.name.clone(),
            node: node_at(entry.position, contiguous),
            file_type: Some(if entry.is_directory { FileType::Directory } else { FileType::Regular }),
        };
        Ok(self.listing(directory)?.entries.iter().map(entry).collect())
    }

    fn read(&self, node: NodeId, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let file = if node == ROOT { None } else { Some(self.file(node)?) };
        let Some(file) = file.filter(|file| !file.is_directory()) else {
            return Err(Error::corrupt("exFAT directory entry set", node.0, "it is not of a regular file"));
        };
        let stream = file.stream;
        let limit = |end: u64| usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let (count, valid) = (limit(stream.length), limit(stream.valid_length));
        if valid > 0 {
            let chain = self.chain_of(node, stream)?;
            chain.read(&*self.source, &self.boot.heap, buffer.get_mut(..valid).unwrap_or_default(), offset)?;
        }
        buffer.get_mut(valid..count).unwrap_or_default().fill(0);
        Ok(count)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        Err(Error::corrupt("exFAT directory entry set", node.0, "it is not of a symbolic link"))
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Entries lie at multiples of their size, which leaves the upper bits free.
const fn node_at(position: u64, is_contiguous: bool) -> NodeId {
    NodeId((position / ENTRY_BYTES as u64) | if is_contiguous { IN_CONTIGUOUS } else { 0 })
}
