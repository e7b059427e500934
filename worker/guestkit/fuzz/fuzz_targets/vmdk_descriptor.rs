//! `cargo xtask fuzz --target vmdk_descriptor`
#![no_main]

guestkit_fuzz::target!("vmdk_descriptor");
