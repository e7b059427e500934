//! `cargo xtask fuzz --target surroundings`
#![no_main]

guestkit_fuzz::target!("surroundings");
