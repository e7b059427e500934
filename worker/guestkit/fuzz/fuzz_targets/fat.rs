//! `cargo xtask fuzz --target fat`
#![no_main]

guestkit_fuzz::target!("fat");
