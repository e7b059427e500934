//! `cargo xtask fuzz --target ova`
#![no_main]

guestkit_fuzz::target!("ova");
