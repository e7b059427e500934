//! Whole guests of the corpus, opened as people do; the truth is blkid's and `dpkg-query`'s words on them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::sync::Arc;

use guestkit::image::Roots;
use guestkit::{Disk, Error, ImageSpec, Limit, Limits, Tree};
use support::{corpus, has_tool, run};

#[test]
fn a_debian_guest_is_opened_mounted_and_read_with_few_bytes() {
    let Some(corpus) = corpus() else { return };
    for guest in ["base", "weak", "vm"] {
        let path = corpus.join(format!("guests/profile-debian12-{guest}.qcow2"));
        let disk = Disk::open(&[ImageSpec::recognised(path)], &Roots::anywhere(), &Limits::default()).unwrap();
        let device = disk.device("/dev/sda").unwrap();
        let tree = Tree::new(disk.mount(device).unwrap(), Arc::clone(disk.budget()));
        let text = tree.read_text("/etc/os-release").unwrap().unwrap();
        assert!(text.contains("PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\""), "{text}");
        let status = tree.read_text("/var/lib/dpkg/status").unwrap().unwrap();
        let oracle = std::fs::read_to_string(corpus.join(format!("profile/oracle/dpkg-{guest}.tsv"))).unwrap();
        assert_eq!(status.matches("\nPackage: ").count() + 1, oracle.lines().count(), "{guest}: as dpkg-query counts");
        let read = disk.budget().bytes_read();
        assert!(read < 4 << 20, "{guest}: {read} bytes read");
    }
}

#[test]
fn devices_of_stacks_are_named_as_by_blkid() {
    let Some(corpus) = corpus() else { return };
    if !has_tool("blkid") {
        return;
    }
    for guest in ["mbr-logical", "lvm", "luks2-on-lvm", "md1.1", "md5.1", "xfs", "btrfs-fedora", "btrfs-suse"] {
        let path = corpus.join(format!("guests/{guest}.raw"));
        let disk = Disk::open(&[ImageSpec::recognised(&path)], &Roots::anywhere(), &Limits::default()).unwrap();
        assert!(disk.drives()[0].partition_table().is_some(), "{guest}");
        let mut named = 0;
        for device in disk.devices() {
            let Some(partition) = &device.partition else { continue };
            let offset = partition.start_bytes.to_string();
            let size = device.size_bytes.to_string();
            let arguments = ["-p", "-o", "export", "-O", &offset, "-S", &size, path.to_str().unwrap()];
            let output = std::process::Command::new("blkid").args(arguments).output().unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            let value = |key: &str| {
                said.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.replace("\\ ", " ")))
            };
            let found = device.probe.clone();
            let kind = found.as_ref().map(|probe| probe.kind.to_owned());
            assert_eq!(kind, value("TYPE"), "{guest}: {}", device.name);
            let (label, uuid) = found.map_or((None, None), |probe| (probe.label, probe.uuid));
            assert_eq!((label, uuid), (value("LABEL"), value("UUID")), "{guest}: {}", device.name);
            named += usize::from(kind.is_some());
        }
        assert!(named > 0, "{guest}");
    }
}

#[test]
fn what_is_not_read_yet_is_named() {
    let Some(corpus) = corpus() else { return };
    for (guest, expected) in [("lvm", "its content is on /dev/vgdev/"), ("md5.1", "volume linux_raid_member")] {
        let path = corpus.join(format!("guests/{guest}.raw"));
        let disk = Disk::open(&[ImageSpec::recognised(path)], &Roots::anywhere(), &Limits::default()).unwrap();
        let refused = disk.devices().iter().filter_map(|device| disk.mount(device).err());
        let refused: Vec<String> = refused
            .map(|error| match error {
                Error::Unsupported { what } => what,
                other => panic!("{guest}: {other}"),
            })
            .collect();
        assert!(refused.iter().any(|what| what.contains(expected)), "{guest}: {refused:?}");
    }
}

#[test]
fn two_disks_of_one_machine_are_told_apart() {
    if !has_tool("mke2fs") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let specs: Vec<_> = ["one", "two"]
        .into_iter()
        .map(|label| {
            let path = home.path().join(label);
            run("mke2fs", &["-q", "-F", "-L", label, path.to_str().unwrap(), "1M"]);
            ImageSpec::recognised(path)
        })
        .collect();
    let disk = Disk::open(&specs, &Roots::beneath([home.path()]).unwrap(), &Limits::default()).unwrap();
    let labels: Vec<_> =
        disk.devices().iter().map(|device| (device.name.clone(), device.probe.clone().unwrap().label)).collect();
    assert_eq!(labels, [("/dev/sda".into(), Some("one".into())), ("/dev/sdb".into(), Some("two".into()))]);
}

#[test]
fn the_bound_on_bytes_read_is_kept() {
    let Some(corpus) = corpus() else { return };
    let spec = ImageSpec::recognised(corpus.join("guests/profile-debian12-vm.qcow2"));
    let limits = Limits { bytes_read: 300_000, ..Limits::default() };
    let disk = Disk::open(&[spec], &Roots::anywhere(), &limits).unwrap();
    let tree = Tree::new(disk.mount(&disk.devices()[0]).unwrap(), Arc::clone(disk.budget()));
    let met = tree.read_file("/var/lib/dpkg/status");
    assert!(matches!(met, Err(Error::LimitReached { which: Limit::BytesRead, value: 300_000 })), "{met:?}");
}
