//! `cargo xtask fuzz --target ntfs`
#![no_main]

guestkit_fuzz::target!("ntfs");
