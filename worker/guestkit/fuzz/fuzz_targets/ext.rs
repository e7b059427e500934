//! `cargo xtask fuzz --target ext`
#![no_main]

guestkit_fuzz::target!("ext");
