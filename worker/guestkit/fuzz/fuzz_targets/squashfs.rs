//! `cargo xtask fuzz --target squashfs`
#![no_main]

guestkit_fuzz::target!("squashfs");
