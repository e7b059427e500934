//! `cargo xtask fuzz --target qcow2`
#![no_main]

guestkit_fuzz::target!("qcow2");
