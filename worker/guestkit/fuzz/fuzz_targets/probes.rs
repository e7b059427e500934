//! `cargo xtask fuzz --target probes`
#![no_main]

guestkit_fuzz::target!("probes");
