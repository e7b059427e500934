//! `cargo xtask fuzz --target sqlite`
#![no_main]

guestkit_fuzz::target!("sqlite");
