//! `cargo xtask fuzz --target iso9660`
#![no_main]

guestkit_fuzz::target!("iso9660");
