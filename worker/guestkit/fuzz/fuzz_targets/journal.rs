//! `cargo xtask fuzz --target journal`
#![no_main]

guestkit_fuzz::target!("journal");
