//! Makes the small guest of the demo and the system tests: a real Debian, installed by its own package manager, then made
//! small by turning the contents of programs and data into holes of the same size. Package database, configuration, units,
//! permissions, owners and times stay as the installation left them. `tests/fixtures/README.md` tells the same to people.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell::{Need, check, require, root, say};

const PACKAGES: &str =
    "systemd-sysv,openssh-server,sudo,cron,nftables,ifupdown,isc-dhcp-client,linux-image-cloud-amd64";
const ROOT_UUID: &str = "5f3c1d52-8f0e-4c1b-9d0a-6b1f6c0de012";
const DISK_UUID: &str = "0B7F2C36-2A4D-4C57-8A52-9F6B1C0DE012";
const SECTOR: u64 = 512;
const ROOT_START_SECTOR: u64 = 8192;
const ROOT_SECTORS: u64 = 1_040_384;

/// What keeps its bytes: everything an inspection reads.
const KEPT: [&str; 10] = [
    "etc",
    "boot/grub",
    "usr/lib/os-release",
    "usr/lib/systemd",
    "usr/lib/sysctl.d",
    "usr/lib/tmpfiles.d",
    "usr/lib/udev/rules.d",
    "var/lib/dpkg/status",
    "var/lib/dpkg/arch",
    "var/lib/dpkg/info",
];

/// What an inspection never looks at and a small image can do without.
const REMOVED: [&str; 8] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/i18n",
    "usr/lib/modules-load.d",
    "var/cache/apt",
    "var/lib/apt/lists",
];

/// Makes `tests/fixtures/debian12-small.qcow2`.
pub(crate) fn run() -> Result<()> {
    require(&[
        Need { program: "mmdebstrap", package: "mmdebstrap" },
        Need { program: "tar", package: "tar" },
        Need { program: "mkfs.ext4", package: "e2fsprogs" },
        Need { program: "sfdisk", package: "fdisk" },
        Need { program: "qemu-img", package: "qemu-utils" },
    ])?;
    let work = tempfile::tempdir().context("failed to make a temporary folder")?;
    let tree = work.path().join("root");
    let raw = work.path().join("disk.raw");
    let image = root().join("tests/fixtures/debian12-small.qcow2");

    say("installing Debian 12 into a folder (needs root, some minutes)");
    check(
        Command::new("mmdebstrap")
            .arg("--variant=minbase")
            .arg(format!("--include={PACKAGES}"))
            .arg("bookworm")
            .arg(&tree),
    )?;
    configure(&tree)?;
    say("turning program contents into holes");
    for folder in REMOVED {
        remove(&tree.join(folder))?;
    }
    remove_modules(&tree)?;
    hollow(&tree, &tree)?;
    say("writing the disk");
    write_disk(&tree, &raw)?;
    check(
        Command::new("qemu-img")
            .args(["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd"])
            .arg(&raw)
            .arg(&image),
    )?;
    say(format_args!("{} ({} bytes)", image.display(), fs::metadata(&image)?.len()));
    Ok(())
}

/// What an administrator would have set up.
fn configure(tree: &Path) -> Result<()> {
    let files = [
        ("etc/hostname", "demo-vm\n"),
        ("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 demo-vm.example.org demo-vm\n"),
        ("etc/machine-id", "6f1d2c3b4a5968778695a4b3c2d1e0f0\n"),
        ("etc/timezone", "Europe/Vienna\n"),
        ("etc/default/locale", "LANG=C.UTF-8\n"),
        ("etc/resolv.conf", "search example.org\nnameserver 192.0.2.53\n"),
        (
            "etc/network/interfaces",
            "auto lo\niface lo inet loopback\n\nauto ens3\niface ens3 inet static\n    address 192.0.2.10/24\n    gateway 192.0.2.1\n",
        ),
        (
            "etc/nftables.conf",
            "flush ruleset\n\ntable inet filter {\n  chain input {\n    type filter hook input priority 0; policy drop;\n    ct state established,related accept\n    tcp dport 22 accept\n  }\n}\n",
        ),
        ("etc/ssh/sshd_config.d/hardening.conf", "PermitRootLogin no\nPasswordAuthentication no\n"),
        ("etc/sudoers.d/operators", "%sudo ALL=(ALL:ALL) NOPASSWD: /usr/bin/systemctl\n"),
    ];
    for (path, text) in files {
        let file = tree.join(path);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&file, text).with_context(|| format!("failed to write {path}"))?;
    }
    fs::write(tree.join("etc/fstab"), format!("UUID={ROOT_UUID} / ext4 errors=remount-ro 0 1\n"))?;
    let chroot = |args: &[&str]| check(Command::new("chroot").arg(tree).args(args));
    chroot(&[
        "useradd",
        "--create-home",
        "--shell",
        "/bin/bash",
        "--groups",
        "sudo",
        "--comment",
        "Ada Operator",
        "ada",
    ])?;
    chroot(&["ln", "-sf", "/usr/share/zoneinfo/Europe/Vienna", "/etc/localtime"])?;
    chroot(&["systemctl", "enable", "nftables.service"])?;
    chroot(&["systemctl", "mask", "ctrl-alt-del.target"])
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Kernel modules: thousands of files of which only the folder's name is a fact.
fn remove_modules(tree: &Path) -> Result<()> {
    for version in fs::read_dir(tree.join("usr/lib/modules"))? {
        remove(&version?.path().join("kernel"))?;
    }
    Ok(())
}

/// Makes every regular file below `folder` a hole of its own size, except the kept ones; program headers stay.
fn hollow(tree: &Path, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))? {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            hollow(tree, &path)?;
        } else if kind.is_file() && !kept(tree, &path) {
            hollow_file(&path)?;
        }
    }
    Ok(())
}

fn kept(tree: &Path, path: &Path) -> bool {
    // A private key is a secret even when nothing uses it.
    let secret = path.extension().is_none() && path.to_string_lossy().contains("etc/ssh/ssh_host_");
    !secret && path.strip_prefix(tree).is_ok_and(|inner| KEPT.iter().any(|keep| inner.starts_with(keep)))
}

fn hollow_file(path: &Path) -> Result<()> {
    // The ELF header tells the architecture; 64 bytes hold it (System V ABI, "ELF Header").
    let mut header = [0_u8; 64];
    let metadata = fs::metadata(path)?;
    let read = File::open(path)?.read(&mut header)?;
    let file = OpenOptions::new().write(true).open(path)?;
    let modified = metadata.modified()?;
    file.set_len(0)?;
    file.set_len(metadata.size())?;
    if header.starts_with(b"\x7fELF") {
        file.write_all_at(header.get(..read).unwrap_or_default(), 0)?;
    }
    file.set_modified(modified)?;
    Ok(())
}

fn write_disk(tree: &Path, raw: &Path) -> Result<()> {
    let size = (ROOT_START_SECTOR + ROOT_SECTORS + 2048) * SECTOR;
    File::create(raw)?.set_len(size)?;
    let table = format!(
        "label: gpt\nlabel-id: {DISK_UUID}\nfirst-lba: 2048\n\
         start=2048, size=4096, type=21686148-6449-6E6F-744E-656564454649, name=bios\n\
         start={ROOT_START_SECTOR}, size={ROOT_SECTORS}, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=root\n"
    );
    let script = raw.with_extension("sfdisk");
    fs::write(&script, table)?;
    check(Command::new("sfdisk").arg("--quiet").arg(raw).stdin(File::open(&script)?))?;
    check(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-L", "demo-root", "-U", ROOT_UUID, "-m", "1", "-N", "20000", "-J", "size=4"])
            .args(["-E", &format!("offset={},root_owner=0:0", ROOT_START_SECTOR * SECTOR)])
            .arg("-d")
            .arg(tree)
            .arg(raw)
            .arg(format!("{}k", ROOT_SECTORS * SECTOR / 1024)),
    )
}
