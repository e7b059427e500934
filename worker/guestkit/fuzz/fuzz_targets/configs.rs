//! `cargo xtask fuzz --target configs`
#![no_main]

guestkit_fuzz::target!("configs");
