//! `cargo xtask fuzz --target btrfs`
#![no_main]

guestkit_fuzz::target!("btrfs");
