//! `cargo xtask fuzz --target profile`
#![no_main]

guestkit_fuzz::target!("profile");
