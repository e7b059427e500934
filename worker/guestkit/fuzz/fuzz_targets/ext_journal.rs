//! `cargo xtask fuzz --target ext_journal`
#![no_main]

guestkit_fuzz::target!("ext_journal");
