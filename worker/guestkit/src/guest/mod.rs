//! From mounted file systems to what a guest is.

pub mod tree;

pub use tree::{OpenFile, Tree, Unreadable, WalkEntry, WalkNext};
