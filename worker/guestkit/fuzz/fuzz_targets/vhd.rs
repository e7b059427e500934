//! `cargo xtask fuzz --target vhd`
#![no_main]

guestkit_fuzz::target!("vhd");
