//! `cargo xtask fuzz --target vhdx`
#![no_main]

guestkit_fuzz::target!("vhdx");
