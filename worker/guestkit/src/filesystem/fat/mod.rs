//! FAT12, FAT16 and FAT32 ("FAT: General Overview of On-Disk Format", Microsoft, 2000).
//!
//! FAT keeps no owners, modes or links: every file belongs to root with mode 0755, or 0555 where it is read-only, as when
//! Linux mounts a volume without options. Times are local ones of a zone that is not kept; they are taken as UTC.
//! A node is the place of a file's short directory entry in bytes from the start of the volume, and 0 for the root.

mod boot;
mod directory;

use std::sync::Arc;

use self::boot::{Boot, Root};
use self::directory::{ENTRY_BYTES, Listing, Short};
use super::clusters::{Chain, Table, Width};
use super::held::Held;
use super::{DirEntry, FileSystem, FileSystemInfo, FileType, Metadata, NodeId, Probe, Timestamp};
use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::read_at::{Source, read_up_to};

/// No directory is larger: 65536 entries, as the specification bounds it and both Windows and Linux do.
const DIRECTORY_BYTES_MAX: u64 = 65536 * 32;
/// Entries of listings held in all, some 200 bytes each.
const ENTRIES_HELD: usize = 150_000;
/// Runs of cluster chains held in all, twelve bytes each.
const RUNS_HELD: usize = 500_000;
/// Free clusters are counted where the table is this short, because writers leave FSInfo stale; of a longer one FSInfo
/// is believed.
const COUNTED_TABLE_BYTES: u64 = 1 << 20;

const ROOT: NodeId = NodeId(0);

/// A mounted FAT file system.
#[derive(Debug)]
pub(super) struct Fat {
    info: FileSystemInfo,
    warnings: Vec<String>,
    source: Source,
    boot: Boot,
    table: Table,
    listings: Held<Listing>,
    chains: Held<Chain>,
}

/// Where the contents of a directory lie.
#[derive(Debug, Clone, Copy)]
enum Place {
    Region { start: u64, length: u64 },
    Chain { cluster: u32 },
}

impl Fat {
    /// Mounts the file system on `source`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a boot sector that contradicts itself; [`Error::Unsupported`] for a later FAT32; limits, I/O.
    pub(super) fn open(source: Source, probe: &Probe, budget: Arc<Budget>) -> Result<Self> {
        let boot = Boot::parse(&read_up_to(&*source, 0, 512)?)?;
        let (start, width, heap) = (boot.table_start, boot.width, boot.heap);
        let table = Table { source: Arc::clone(&source), start, width, heap, budget };
        let mut warnings = Vec::new();
        if boot.is_dirty {
            warnings.push("the volume was not unmounted, so recent changes may be missing".to_owned());
        }
        if boot.size_bytes > source.len() {
            warnings.push(format!("it has {} bytes, and the device {}", boot.size_bytes, source.len()));
        }
        let stated = match boot.fs_info {
            Some(at) => boot::free_clusters(&read_up_to(&*source, at, 512)?, heap.clusters).map(u64::from),
            None => None,
        };
        let is_short = width.bytes_for(u64::from(heap.clusters)) <= COUNTED_TABLE_BYTES;
        let free = match stated {
            Some(free) if !is_short => free,
            _ => table.count_free()?,
        };
        let info = FileSystemInfo {
            kind: probe.kind,
            label: probe.label.clone(),
            uuid: probe.uuid.clone(),
            size_bytes: boot.size_bytes,
            free_bytes: free.saturating_mul(heap.cluster_bytes),
            inodes: None,
            inodes_free: None,
        };
        let (listings, chains) = (Held::new(ENTRIES_HELD), Held::new(RUNS_HELD));
        Ok(Self { info, warnings, source, boot, table, listings, chains })
    }

    /// The short entry that `node` is.
    fn short(&self, node: NodeId) -> Result<Short> {
        let bytes = read_up_to(&*self.source, node.0, ENTRY_BYTES)?;
        let mut short = Short::parse(&bytes)
            .ok_or_else(|| Error::corrupt("FAT directory entry", node.0, "no file has its entry there"))?;
        short.cluster &= match self.boot.width {
            // The upper half is reserved there, and OS/2 kept other things in it.
            Width::Fat12 | Width::Fat16 => 0xffff,
            Width::Fat32 | Width::Exfat => 0x0fff_ffff,
        };
        Ok(short)
    }

    fn place(&self, directory: NodeId) -> Result<Place> {
        if directory == ROOT {
            return Ok(match self.boot.root {
                Root::Region { start, length } => Place::Region { start, length },
                Root::Chain { cluster } => Place::Chain { cluster },
            });
        }
        let short = self.short(directory)?;
        if !short.is_directory() {
            return Err(Error::corrupt("FAT directory entry", directory.0, "it is not of a directory"));
        }
        Ok(Place::Chain { cluster: short.cluster })
    }

    fn listing(&self, directory: NodeId) -> Result<Arc<Listing>> {
        if let Some(listing) = self.listings.get(directory.0) {
            return Ok(listing);
        }
        let mut listing = Listing::default();
        match self.place(directory)? {
            Place::Region { start, length } => {
                // 16 bits count its entries.
                let bytes = read_up_to(&*self.source, start, usize::try_from(length).unwrap_or(0))?;
                listing.take(&bytes, start);
            }
            Place::Chain { cluster } => self.list_chain(cluster, &mut listing)?,
        }
        let listing = Arc::new(listing);
        self.listings.insert(directory.0, &listing, listing.entries.len());
        Ok(listing)
    }

    fn list_chain(&self, first: u32, listing: &mut Listing) -> Result<()> {
        let heap = self.boot.heap;
        let mut walk = self.table.walk();
        let (mut next, mut left) = (Some(first), DIRECTORY_BYTES_MAX);
        let mut buffer = self.table.budget.allocate(heap.cluster_bytes)?;
        while let Some(cluster) = next {
            self.table.check(cluster)?;
            left = left.checked_sub(heap.cluster_bytes).ok_or_else(|| {
                let at = heap.offset_of(first).unwrap_or(0);
                Error::corrupt("FAT directory", at, "it is longer than a directory can be")
            })?;
            let start = heap.offset_of(cluster).unwrap_or(u64::MAX);
            self.source.read_exact_at(&mut buffer, start)?;
            if !listing.take(&buffer, start) {
                break;
            }
            next = walk.next(cluster)?;
        }
        Ok(())
    }

    /// Bytes that a directory takes, free entries counted.
    fn directory_bytes(&self, directory: NodeId) -> Result<u64> {
        Ok(match self.place(directory)? {
            Place::Region { length, .. } => length,
            Place::Chain { cluster } => {
                let bytes = self.boot.heap.cluster_bytes;
                self.table.length(cluster, DIRECTORY_BYTES_MAX.div_ceil(bytes))?.saturating_mul(bytes)
            }
        })
    }
}

impl FileSystem for Fat {
    fn info(&self) -> &FileSystemInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        ROOT
    }

    /// Case does not matter, and the short name of a file with a long one names it as well.
    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        Ok(self.listing(directory)?.find(name).map(NodeId))
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let short = if node == ROOT { None } else { Some(self.short(node)?) };
        let is_file = short.as_ref().is_some_and(|short| !short.is_directory());
        let size = match &short {
            Some(short) if is_file => u64::from(short.size),
            _ => self.directory_bytes(node)?,
        };
        let is_read_only = is_file && short.as_ref().is_some_and(Short::is_read_only);
        // The root has no entry, and so no times.
        let modified = short.as_ref().map_or_else(Timestamp::default, |short| short.modified);
        Ok(Metadata {
            node,
            file_type: if is_file { FileType::Regular } else { FileType::Directory },
            mode: if is_read_only { 0o555 } else { 0o755 },
            uid: 0,
            gid: 0,
            size,
            links: 1,
            device: None,
            accessed: short.as_ref().and_then(|short| short.accessed),
            modified,
            changed: modified,
            created: short.and_then(|short| short.created),
        })
    }

    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>> {
        let listing = self.listing(directory)?;
        let entry = |entry: &directory::Entry| DirEntry {
            name: entry.name.clone(),
            node: NodeId(entry.position),
            file_type: Some(if entry.is_directory { FileType::Directory } else { FileType::Regular }),
        };
        Ok(listing.entries.iter().map(entry).collect())
    }

    fn read(&self, node: NodeId, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let short = if node == ROOT { None } else { Some(self.short(node)?) };
        let Some(short) = short.filter(|short| !short.is_directory()) else {
            return Err(Error::corrupt("FAT directory entry", node.0, "it is not of a regular file"));
        };
        let size = u64::from(short.size);
        let count = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        if count == 0 {
            return Ok(0);
        }
        let chain = match self.chains.get(node.0) {
            Some(chain) => chain,
            None => {
                let chain = Arc::new(self.table.chain(short.cluster, self.boot.heap.clusters_for(size))?);
                self.chains.insert(node.0, &chain, chain.weight());
                chain
            }
        };
        chain.read(&*self.source, &self.boot.heap, buffer.get_mut(..count).unwrap_or_default(), offset)?;
        Ok(count)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        Err(Error::corrupt("FAT directory entry", node.0, "it is not of a symbolic link"))
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}
