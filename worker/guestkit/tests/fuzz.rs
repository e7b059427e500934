//! Mutated disks through the whole engine, one test for each layer: nothing may panic, hang, or take memory without bound.
//!
//! Seeds are the corpus; each round changes a few bytes of one where structures lie, opens it as a machine's disk, walks every
//! file system on it, reads, and puts the bytes back. A round that fails is named by its target, seed and number, which is all
//! that is needed to do it again: `cargo xtask fuzz --target ext --round SEED:NUMBER`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

mod support;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use guestkit::filesystem::FileType;
use guestkit::guest::WalkNext;
use guestkit::image::{Format, Roots};
use guestkit::{Disk, Error, ImageSpec, Keys, Limits, ReadAt as _, Secret, Tree};
use support::{Noise, corpus, has_tool, unpacked};

/// Seconds that each target is fuzzed when nothing else is asked for.
const SECONDS: f64 = 3.0;
/// The same in continuous integration.
const SECONDS_CI: f64 = 20.0;
/// Bytes of the largest seed: a round must be quick.
const SEED_BYTES_MAX: u64 = 300 << 20;
/// A round that takes longer hangs; its own limit on time is a fraction of it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Resident memory that the process may ever have taken: a seed that is unpacked, and what two hostile disks may take at once.
const MEMORY_KIB_MAX: u64 = 1 << 20;
/// Bytes around which structures are looked for.
const BLOCK: usize = 4096;

/// A disk that is changed and put back, and where its bytes are worth changing.
struct Seed {
    name: String,
    _folder: tempfile::TempDir,
    path: PathBuf,
    file: File,
    length: u64,
    /// Blocks that are not all zeros.
    used: Vec<u64>,
}

impl Seed {
    fn new(from: &Path) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let name = from.file_name().unwrap().to_string_lossy().into_owned();
        let path = folder.path().join("disk");
        let zlib = from.extension().is_some_and(|extension| extension == "zlib");
        let bytes = if zlib {
            let mut bytes = Vec::new();
            let packed = fs::read(from).unwrap();
            std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(packed.as_slice()), &mut bytes).unwrap();
            bytes
        } else if from.metadata().unwrap().len() > SEED_BYTES_MAX {
            return None;
        } else {
            unpacked(from)
        };
        if bytes.is_empty() || bytes.len() as u64 > SEED_BYTES_MAX {
            return None;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        let mut used = Vec::new();
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                file.write_all_at(block, (index * BLOCK) as u64).unwrap();
                used.push((index * BLOCK) as u64);
            }
        }
        Some(Self { name, _folder: folder, path, file, length: bytes.len() as u64, used })
    }

    /// Where a change is likely to meet a structure: the first blocks, any block in use, the last ones.
    fn place(&self, noise: &mut Noise) -> u64 {
        let block = match noise.below(8) {
            0..=2 => *self.used.get(noise.below(self.used.len().min(40))).unwrap_or(&0),
            3 => self.length.saturating_sub(1 + noise.below(64 << 10) as u64),
            _ => *self.used.get(noise.below(self.used.len())).unwrap_or(&0),
        };
        (block + noise.below(BLOCK) as u64).min(self.length - 1)
    }

    /// Changes up to six places; gives what stood there.
    fn change(&self, noise: &mut Noise) -> Vec<(u64, Vec<u8>)> {
        let mut before = Vec::new();
        for _ in 0..=noise.below(6) {
            let at = self.place(noise);
            let width = [1, 1, 2, 4, 8][noise.below(5)].min(usize::try_from(self.length - at).unwrap());
            let mut held = vec![0; width];
            self.file.read_exact_at(&mut held, at).unwrap();
            let new: Vec<u8> = match noise.below(6) {
                0 => vec![0; width],
                1 => vec![0xff; width],
                2 => held.iter().map(|byte| byte ^ (1 << noise.below(8))).collect(),
                3 => held.iter().rev().copied().collect(),
                4 => held.iter().map(|byte| byte.wrapping_add(1)).collect(),
                _ => (0..width).map(|_| noise.next() as u8).collect(),
            };
            self.file.write_all_at(&new, at).unwrap();
            before.push((at, held));
        }
        before
    }

    fn restore(&self, before: Vec<(u64, Vec<u8>)>) {
        for (at, held) in before.into_iter().rev() {
            self.file.write_all_at(&held, at).unwrap();
        }
    }
}

/// Opens a disk, and reads what can be reached; every error is an answer.
fn exercise(path: &Path, format: Option<Format>) {
    let limits = Limits { bytes_read: 512 << 20, entries: 3_000, time: Duration::from_secs(10), ..Limits::default() };
    let mut keys = Keys::none();
    keys.add("all", Secret::new(b"compatkey".to_vec()));
    let spec = ImageSpec { path: path.to_owned(), format };
    let Ok(disk) = Disk::open_with_keys(&[spec], &Roots::anywhere(), &keys, &limits) else { return };
    for drive in disk.drives() {
        let source = drive.source();
        let mut buffer = vec![0; 1 << 16];
        for at in [0, source.len() / 2, source.len().saturating_sub(1 << 16)] {
            let count = usize::try_from(source.len().saturating_sub(at)).unwrap_or(usize::MAX).min(buffer.len());
            let _ = source.read_exact_at(&mut buffer[..count], at);
        }
    }
    for device in disk.devices() {
        let Ok(file_system) = disk.mount(device) else { continue };
        let _ = file_system.subvolumes();
        let tree = Tree::new(file_system, std::sync::Arc::clone(disk.budget()));
        let mut buffer = vec![0; 1 << 16];
        let _ = tree.walk("/", |entry| {
            let mut read = || -> Result<(), Error> {
                let metadata = entry.metadata()?;
                entry.extended_attributes()?;
                match metadata.file_type {
                    FileType::Symlink => drop(entry.read_link()?),
                    FileType::Regular => {
                        if let Some(file) = entry.open()? {
                            for at in [0, file.len() / 2, file.len().saturating_sub(1 << 16)] {
                                let rest = usize::try_from(file.len().saturating_sub(at)).unwrap_or(usize::MAX);
                                file.read_exact_at(&mut buffer[..rest.min(1 << 16)], at)?;
                            }
                        }
                    }
                    _ => {}
                }
                Ok(())
            };
            let _ = read();
            Ok(WalkNext::Descend)
        });
    }
}

/// Runs `work` on a thread of its own; says how it failed.
fn judged(work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let ended = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            format!("panic: {}", text.unwrap_or("?"))
        });
        let _ = sender.send(ended);
    });
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| Err("it does not end".into()))
}

fn peak_memory_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Fuzzes the seeds whose path fits, for the time that is asked for.
fn fuzz(target: &str, folders: &[&str], fits: fn(&str) -> bool, format: Option<Format>) {
    if std::env::var("GUESTKIT_FUZZ_TARGET").is_ok_and(|only| only != target) {
        return;
    }
    let Some(corpus) = corpus() else { return };
    if !["xz", "zstd", "gzip"].into_iter().all(has_tool) {
        return;
    }
    let mut paths: Vec<PathBuf> = Vec::new();
    for folder in folders {
        let entries = fs::read_dir(corpus.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        paths.extend(entries.filter(|path| path.is_file() && fits(&path.to_string_lossy())));
    }
    paths.sort();
    // Enough for every shape of a format, and few enough to be held.
    paths.truncate(12);
    let seeds: Vec<Seed> = paths.iter().filter_map(|path| Seed::new(path)).collect();
    assert!(!seeds.is_empty(), "{target} has no seed");
    for seed in &seeds {
        let path = seed.path.clone();
        judged(move || exercise(&path, format)).unwrap_or_else(|how| panic!("{target}: {} as it is: {how}", seed.name));
    }
    if let Ok(round) = std::env::var("GUESTKIT_FUZZ_ROUND") {
        let (name, number) = round.rsplit_once(':').unwrap();
        let seed = seeds.iter().find(|seed| seed.name == name).unwrap();
        let before = seed.change(&mut Noise::new(number.parse().unwrap()));
        println!("{target}: {round} changes {before:?}");
        exercise(&seed.path, format);
        seed.restore(before);
        return;
    }
    let default = if std::env::var_os("CI").is_some() { SECONDS_CI } else { SECONDS };
    let seconds = std::env::var("GUESTKIT_FUZZ_SECONDS").map_or(default, |seconds| seconds.parse().unwrap());
    // Another run goes on elsewhere; continuous integration does the same each time.
    let first: u64 = std::env::var("GUESTKIT_FUZZ_FIRST").map_or(0, |first| first.parse().unwrap());
    let started = Instant::now();
    let mut rounds = 0_u64;
    while started.elapsed().as_secs_f64() < seconds {
        let number = first + rounds;
        let seed = &seeds[usize::try_from(rounds).unwrap() % seeds.len()];
        let before = seed.change(&mut Noise::new(number));
        let path = seed.path.clone();
        let ended = judged(move || exercise(&path, format));
        seed.restore(before);
        ended.unwrap_or_else(|how| panic!("{target}: --round {}:{number}: {how}", seed.name));
        rounds += 1;
    }
    let memory = peak_memory_kib();
    println!("fuzz {target}: {} seeds, {rounds} rounds, {} MiB at most", seeds.len(), memory >> 10);
    assert!(memory < MEMORY_KIB_MAX, "{target}: {memory} KiB");
}

#[test]
fn qcow2() {
    fuzz("qcow2", &["disk-formats/cdi", "disk-formats/dfvfs"], |path| path.ends_with(".qcow2"), Some(Format::Qcow2));
}

#[test]
fn vmdk() {
    let folders = ["disk-formats/vmdk-rs", "disk-formats/go-vmdk-parser", "disk-formats/govmomi"];
    fuzz("vmdk", &folders, |path| path.ends_with(".vmdk") || path.ends_with(".img"), None);
}

#[test]
fn vhd() {
    fuzz("vhd", &["disk-formats/dfvfs"], |path| path.ends_with(".vhd"), None);
}

#[test]
fn vhdx() {
    fuzz("vhdx", &["disk-formats/discutils"], |path| path.ends_with(".vhdx.gz"), None);
}

#[test]
fn partition() {
    let raw = Some(Format::Raw);
    fuzz("partition", &["partition-tables/gptman", "partition-tables/mbrman", "disk-formats/pytsk"], |_| true, raw);
}

#[test]
fn volume() {
    let fits = |path: &str| ["lvm", "md", "raid", "bcache", "zfs", "luks"].iter().any(|name| path.contains(name));
    fuzz("volume", &["volume-ids"], fits, Some(Format::Raw));
}

#[test]
fn luks() {
    fuzz("luks", &["luks"], |path| path.contains("compat"), Some(Format::Raw));
}

#[test]
fn ext() {
    fuzz(
        "ext",
        &["fs-matrix", "fs-ext/ext4-view-rs"],
        |path| path.contains("ext4_") || path.contains("test_disk_"),
        Some(Format::Raw),
    );
}

#[test]
fn xfs() {
    fuzz("xfs", &["fs-matrix"], |path| path.contains("/xfs_"), Some(Format::Raw));
}

#[test]
fn btrfs() {
    fuzz("btrfs", &["fs-matrix"], |path| path.contains("/btrfs_"), Some(Format::Raw));
}

#[test]
fn ntfs() {
    fuzz(
        "ntfs",
        &["fs-matrix", "fs-ntfs/colinfinck"],
        |path| path.contains("/ntfs") || path.contains("testfs"),
        Some(Format::Raw),
    );
}

#[test]
fn fat() {
    fuzz(
        "fat",
        &["fs-matrix", "fs-fat/rust-fatfs"],
        |path| path.contains("/vfat_") || path.contains("/fat1"),
        Some(Format::Raw),
    );
}

#[test]
fn probes() {
    fuzz("probes", &["volume-ids"], |path| path.ends_with(".img.xz"), Some(Format::Raw));
}
