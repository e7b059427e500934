//! `cargo xtask fuzz --target exfat`
#![no_main]

guestkit_fuzz::target!("exfat");
