//! `cargo xtask fuzz --target vhdx_log`
#![no_main]

guestkit_fuzz::target!("vhdx_log");
