//! From mounted file systems to what a guest is.

mod damage;
mod inspect;
mod linux;
pub mod overview;
pub mod registry;
pub mod report;
mod roots;
mod sqlite;
pub mod tree;
mod windows;

pub use inspect::{Event, InspectOptions, Progress};
pub use roots::Root;
pub use tree::{OpenFile, Tree, Unreadable, WalkEntry, WalkNext};
