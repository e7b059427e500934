//! Whole guests of the corpus; the truth is what `dpkg-query`, `debugfs` and `qemu-img` say of them.

use std::path::PathBuf;

use guestkit::image::Roots;
use guestkit::{Disk, ImageSpec, Limits, Tree};

/// The unpacked corpus, or `None` with a word where there is none; continuous integration must have it.
fn corpus() -> Option<PathBuf> {
    match std::env::var_os("GUESTKIT_CORPUS") {
        Some(folder) => Some(folder.into()),
        None => {
            assert!(std::env::var_os("CI").is_none(), "GUESTKIT_CORPUS must be set in continuous integration");
            println!("corpus not present");
            None
        }
    }
}

#[test]
fn a_debian_guest_is_opened_mounted_and_read() {
    let Some(corpus) = corpus() else { return };
    let image = ImageSpec::recognised(corpus.join("guests/profile-debian12-vm.qcow2"));
    let disk = Disk::open(&[image], &Roots::anywhere(), &Limits::default()).unwrap();
    for device in disk.devices() {
        println!("{} {:?} {:?}", device.name, device.probe, device.partition);
    }
    let root = disk
        .devices()
        .iter()
        .filter_map(|device| disk.mount(device).ok())
        .map(|file_system| Tree::new(file_system, disk.budget().clone()))
        .find(|tree| tree.exists("/etc/os-release").unwrap())
        .unwrap();
    let text = root.read_text("/etc/os-release").unwrap().unwrap();
    assert!(text.contains("PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\""), "{text}");
    println!("{} bytes in {} reads", disk.budget().bytes_read(), disk.budget().reads());
}
