//! `cargo xtask fuzz --target rpm`
#![no_main]

guestkit_fuzz::target!("rpm");
