//! `cargo xtask fuzz --target languages`
#![no_main]

guestkit_fuzz::target!("languages");
