//! `cargo xtask fuzz --target md`
#![no_main]

guestkit_fuzz::target!("md");
