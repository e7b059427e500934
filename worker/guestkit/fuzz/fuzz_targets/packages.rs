//! `cargo xtask fuzz --target packages`
#![no_main]

guestkit_fuzz::target!("packages");
