//! `cargo xtask fuzz --target xfs`
#![no_main]

guestkit_fuzz::target!("xfs");
