//! `cargo xtask fuzz --target luks`
#![no_main]

guestkit_fuzz::target!("luks");
