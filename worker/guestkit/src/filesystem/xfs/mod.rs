//! XFS, versions 4 and 5, after "XFS Algorithms & Data Structures" and the kernel's `xfs_format.h` and `xfs_log_format.h`.
//!
//! A log that was not emptied is replayed in memory when the file system is opened: [`volume::Overlay`] holds the sectors
//! it has newer contents of. Metadata of version 5 is verified by its checksum, UUID and owner, as the kernel does.

mod attributes;
mod bmap;
mod directory;
mod inode;
mod log;
mod replay;
mod superblock;
mod volume;

use std::sync::{Arc, Mutex, PoisonError};

use self::bmap::Contents;
use self::inode::{Cluster, Fork, Inode};
use self::superblock::Geometry;
use self::volume::{Overlay, Volume};
use super::{DirEntry, ExtendedAttribute, FileSystem, FileSystemInfo, FileType, Metadata, NodeId, Probe};
use crate::block_cache::Lru;
use crate::error::{Error, Result};
use crate::limits::Budget;
use crate::read_at::Source;

/// Clusters of inodes held: 16 MiB of them, the inodes of a directory and of what lies below it.
const CLUSTERS_HELD: usize = 512;

/// A mounted XFS file system.
#[derive(Debug)]
pub(super) struct Xfs {
    info: FileSystemInfo,
    warnings: Vec<String>,
    volume: Volume,
    clusters: Mutex<Lru<u64, Arc<Cluster>>>,
}

impl Xfs {
    /// Opens the file system that fills `source`; `probe` is what its superblock told.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming a feature that is not read; [`Error::Corrupt`]; limits and I/O.
    pub(super) fn open(source: Source, probe: &Probe, budget: Arc<Budget>) -> Result<Self> {
        let geometry = Geometry::read(&*source)?;
        let mut volume = Volume { source, geometry, overlay: Overlay::default(), budget };
        let mut warnings = Vec::new();
        if volume.geometry.needs_repair {
            warnings.push("the file system says that it needs xfs_repair".to_owned());
        }
        let recovery = log::recover(&volume)?;
        warnings.extend(recovery.warnings);
        if !recovery.overlay.is_empty() {
            let mut head = vec![0; volume.geometry.sector_bytes as usize];
            volume.source.read_exact_at(&mut head, 0)?;
            if recovery.overlay.apply(&mut head, 0) {
                volume.geometry = Geometry::parse(&head, false)?;
            }
            volume.overlay = recovery.overlay;
        }
        if recovery.was_dirty && volume.geometry.lazy_counters {
            match volume.count_free_blocks() {
                Ok(free) => volume.geometry.free_blocks = free,
                Err(error @ Error::Corrupt { .. }) => {
                    warnings.push(format!("free space could not be counted: {error}"));
                }
                Err(other) => return Err(other),
            }
        }
        let geometry = &volume.geometry;
        let info = FileSystemInfo {
            kind: probe.kind,
            label: probe.label.clone(),
            uuid: probe.uuid.clone(),
            size_bytes: geometry.blocks << geometry.block_log,
            free_bytes: geometry.free_blocks.min(geometry.blocks) << geometry.block_log,
            // Inodes are made as they are needed.
            inodes: None,
            inodes_free: None,
        };
        Ok(Self { info, warnings, volume, clusters: Mutex::new(Lru::new(CLUSTERS_HELD)) })
    }

    fn inode(&self, node: NodeId) -> Result<Inode> {
        let geometry = &self.volume.geometry;
        let at = geometry.byte_of_inode(node.0)?;
        let group = geometry.byte_in_group(node.0 >> (geometry.inodes_per_block_log + geometry.ag_block_log), 0)?;
        let start = Cluster::start_of(at, group);
        let held = self.clusters.lock().unwrap_or_else(PoisonError::into_inner).get(start);
        let cluster = match held {
            Some(cluster) => cluster,
            None => {
                let cluster = Arc::new(Cluster::read(&self.volume, start)?);
                self.clusters.lock().unwrap_or_else(PoisonError::into_inner).insert(start, Arc::clone(&cluster));
                cluster
            }
        };
        Inode::parse(&self.volume, &cluster, node.0, at)
    }

    fn inode_of(&self, node: NodeId, file_type: FileType, expected: &str) -> Result<Inode> {
        let inode = self.inode(node)?;
        if inode.file_type == file_type { Ok(inode) } else { Err(inode.corrupt(format!("it is not {expected}"))) }
    }
}

impl FileSystem for Xfs {
    fn info(&self) -> &FileSystemInfo {
        &self.info
    }

    fn root(&self) -> NodeId {
        NodeId(self.volume.geometry.root_inode)
    }

    fn lookup(&self, directory: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let inode = self.inode_of(directory, FileType::Directory, "a directory")?;
        Ok(directory::lookup(&self.volume, &inode, name)?.map(NodeId))
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        Ok(self.inode(node)?.metadata())
    }

    fn read_dir(&self, directory: NodeId) -> Result<Vec<DirEntry>> {
        directory::entries(&self.volume, &self.inode_of(directory, FileType::Directory, "a directory")?)
    }

    fn read(&self, node: NodeId, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let inode = self.inode_of(node, FileType::Regular, "a regular file")?;
        let count = inode.size.saturating_sub(offset).min(buffer.len() as u64);
        let buffer = buffer.get_mut(..usize::try_from(count).unwrap_or(0)).unwrap_or_default();
        bmap::read(&self.volume, &inode, Fork::Data, Contents::Data, buffer, offset)?;
        Ok(buffer.len())
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        attributes::link_target(&self.volume, &self.inode_of(node, FileType::Symlink, "a symbolic link")?)
    }

    fn extended_attributes(&self, node: NodeId) -> Result<Vec<ExtendedAttribute>> {
        attributes::all(&self.volume, &self.inode(node)?)
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}
