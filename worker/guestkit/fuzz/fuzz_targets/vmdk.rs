//! `cargo xtask fuzz --target vmdk`
#![no_main]

guestkit_fuzz::target!("vmdk");
