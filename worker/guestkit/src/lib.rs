//! The engine: from the bytes of a disk to facts. It never writes, spawns, connects, mounts, or executes anything of the guest.
#![deny(clippy::indexing_slicing)]

mod bytes;
mod error;
pub mod filesystem;
pub mod guest;
mod limits;
mod read_at;

pub use error::{Error, Limit, Result};
pub use guest::Tree;
pub use limits::{Budget, Limits};
pub use read_at::{Cursor, ReadAt, Slice, Source};
