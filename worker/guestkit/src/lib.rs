//! The engine: from the bytes of a disk to facts. It never writes, spawns, connects, mounts, or executes anything of the guest.
#![deny(clippy::indexing_slicing)]

mod block_cache;
mod bytes;
mod disk;
mod error;
pub mod export;
pub mod filesystem;
mod galois;
pub mod guest;
pub mod image;
mod keys;
mod limits;
pub mod partition;
pub mod profile;
mod read_at;
mod volume;

pub use block_cache::BlockCache;
pub use disk::{Device, DeviceKind, Disk, Drive, ImageSpec, Warning};
pub use error::{Error, Limit, Result};
pub use guest::Tree;
pub use keys::{Keys, Secret};
pub use limits::{Budget, Limits};
pub use read_at::{Cursor, PageBuffer, ReadAt, Slice, Source};
pub use volume::{Array, LogicalVolume, PhysicalVolume, VolumeGroup};

/// What this engine reads, by the names that a job's required capabilities use: `disk.qcow2`, `fs.ext4`, `partition.gpt`.
#[must_use]
pub fn capabilities() -> Vec<String> {
    let disks = image::Format::READ.map(|format| format!("disk.{}", format.name()));
    let file_systems = filesystem::MOUNTED.map(|kind| format!("fs.{kind}"));
    let tables = ["gpt", "mbr"].map(|kind| format!("partition.{kind}"));
    let volumes = ["luks", "lvm2", "md"].map(|kind| format!("volume.{kind}"));
    disks.into_iter().chain(file_systems).chain(tables).chain(volumes).collect()
}
