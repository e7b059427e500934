//! `cargo xtask fuzz --target partition`
#![no_main]

guestkit_fuzz::target!("partition");
