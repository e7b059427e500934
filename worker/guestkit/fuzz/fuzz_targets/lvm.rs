//! `cargo xtask fuzz --target lvm`
#![no_main]

guestkit_fuzz::target!("lvm");
