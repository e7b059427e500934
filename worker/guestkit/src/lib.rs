//! The engine: from the bytes of a disk to facts. It never writes, spawns, connects, mounts, or executes anything of the guest.
#![deny(clippy::indexing_slicing)]

mod block_cache;
mod bytes;
mod disk;
mod error;
pub mod filesystem;
pub mod guest;
pub mod image;
mod limits;
pub mod partition;
mod read_at;
mod volume;

pub use block_cache::BlockCache;
pub use disk::{Device, Disk, Drive, ImageSpec, Warning};
pub use error::{Error, Limit, Result};
pub use guest::Tree;
pub use limits::{Budget, Limits};
pub use read_at::{Cursor, ReadAt, Slice, Source};
