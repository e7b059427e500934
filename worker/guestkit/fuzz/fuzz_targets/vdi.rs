//! `cargo xtask fuzz --target vdi`
#![no_main]

guestkit_fuzz::target!("vdi");
