//! From mounted file systems to what a guest is.

mod bolt;
pub(crate) mod certificate;
mod damage;
mod inspect;
pub(crate) mod linux;
pub mod overview;
pub mod registry;
pub mod report;
pub(crate) mod roots;
mod sqlite;
pub mod tree;
pub(crate) mod windows;

pub use inspect::{Event, InspectOptions, Progress};
pub(crate) use inspect::{image_info, mount_all, partition_table};
pub use roots::Root;
pub use tree::{OpenFile, Tree, Unreadable, WalkEntry, WalkNext};
