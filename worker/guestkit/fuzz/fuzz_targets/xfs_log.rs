//! `cargo xtask fuzz --target xfs_log`
#![no_main]

guestkit_fuzz::target!("xfs_log");
