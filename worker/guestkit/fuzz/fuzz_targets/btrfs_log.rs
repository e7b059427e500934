//! `cargo xtask fuzz --target btrfs_log`
#![no_main]

guestkit_fuzz::target!("btrfs_log");
