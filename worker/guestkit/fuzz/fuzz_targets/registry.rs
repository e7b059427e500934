//! `cargo xtask fuzz --target registry`
#![no_main]

guestkit_fuzz::target!("registry");
