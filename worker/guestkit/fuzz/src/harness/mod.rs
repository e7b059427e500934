//! Disks that are changed and read, which is what all fuzzing here comes to.
//!
//! An input is not a disk but a few changes of one: the number of a seed, which is a real disk, and what is written where into
//! it. So inputs are tens of bytes however large the disk, and a change of an input is a change of a structure. Places are
//! counted over those blocks of the seed that are not all zeros. Any bytes are an input.
//!
//! The targets of libFuzzer and the tests (`tests/fuzz.rs`) share this file: what one finds the other repeats.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use guestkit::export::{Form, ProfileForm};
use guestkit::filesystem::{FileSystem, FileType, NodeId};
use guestkit::guest::report::InspectReport;
use guestkit::guest::{InspectOptions, OpenFile, WalkNext};
use guestkit::image::{Format, ImageOpener};
use guestkit::profile::{Content, Profile, ProfileOptions};
use guestkit::{Disk, Error, ImageSpec, Keys, Limits, ReadAt as _, Secret, Tree};
use rustix::time::{ClockId, clock_gettime};

/// Blocks that places are counted in.
const BLOCK: usize = 1024;
const ZEROS: [u8; BLOCK] = [0; BLOCK];
/// Bytes that are unpacked at once.
const PIECE: usize = 1 << 16;
/// Bytes of blocks of one seed: places have three bytes.
const USED_MAX: usize = 1 << 24;
/// Where files begin on the disks of guests (`seeds/make-guests.py`): what comes before is the file system's, whose own targets
/// change it.
const GUEST_FILES: u64 = 72 << 10;
/// Bytes of the longest input that is made here.
pub const INPUT_MAX: usize = 1024;
/// The engine's own bound for one input; nothing may compute for twice as long.
const TIME: Duration = Duration::from_secs(2);

/// What is fuzzed: a part of the engine, by the disks whose structures lead into it.
#[derive(Debug)]
pub struct Target {
    pub name: &'static str,
    /// The format that is stated for the image.
    format: Format,
    /// What is asked of it.
    asked: Asked,
    /// Files of each seed, all of them disks of one machine where the format is raw, of one image otherwise. Kept inputs name
    /// seeds by their number: new ones come last.
    seeds: &'static [&'static [&'static str]],
}

/// What is read of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The disk itself: volumes, file systems, files.
    Disk,
    /// The guest on it, by every module of an inspection.
    Inspection,
    /// The guest on it, by every check.
    Profiles,
}

/// Where seeds lie.
#[derive(Debug)]
pub struct Folders {
    /// The engine's crate.
    pub engine: PathBuf,
    /// The corpus of real disks, which not every machine has.
    pub corpus: Option<PathBuf>,
}

mod targets;
pub use targets::TARGETS;

impl Target {
    /// # Panics
    /// Where there is none of that name.
    pub fn named(name: &str) -> &'static Self {
        TARGETS.iter().find(|target| target.name == name).expect("a target has a line in the table")
    }

    /// Its seeds in order; `None` for those of a corpus that is not there.
    pub fn seeds(&self, folders: &Folders) -> Vec<Option<Seed>> {
        let read = |files: &&[&'static str]| {
            let mut seed = Seed::read(files, folders)?;
            if self.asked != Asked::Disk {
                seed.used.retain(|(_, at)| *at >= GUEST_FILES);
            }
            Some(seed)
        };
        self.seeds.iter().map(read).collect()
    }

    /// What is told of a seed as it is; `None` where it is the disk that is read, and not a guest on it.
    ///
    /// # Panics
    /// Where it cannot be opened.
    pub fn report(&self, seed: &Seed) -> Option<InspectReport> {
        let disk = || open(seed, self.format, &Limits::default()).expect("a seed can be opened");
        (self.asked != Asked::Disk).then(|| inspect(&disk()))
    }

    /// Changes the seed that `input` names, reads all that can be reached, and puts the seed back.
    pub fn run(&self, seeds: &[Option<Seed>], input: &[u8]) {
        let Some((number, changes)) = parse(input) else { return };
        let Some(Some(seed)) = seeds.get(usize::from(number)) else { return };
        let before: Vec<_> = changes.iter().map(|change| seed.apply(change)).collect();
        exercise(seed, self);
        for (place, held) in before.into_iter().rev() {
            seed.write(place, &held);
        }
    }
}

/// A change of a disk, at a place among its blocks in use.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    /// These bytes, at most 255, are there instead.
    Bytes { at: usize, bytes: Vec<u8> },
    /// So many bytes from another place are.
    Copy { at: usize, from: usize, count: usize },
}

/// Number of the seed, then for each change three bytes of its place and one of its length, and the bytes; or where the length
/// is 0, three bytes of another place and two of a length. An end within a change leaves it out.
fn parse(input: &[u8]) -> Option<(u8, Vec<Change>)> {
    let (number, mut rest) = input.split_first()?;
    let mut changes = Vec::new();
    let place = |bytes: &[u8]| bytes.iter().rev().fold(0, |place, byte| place << 8 | usize::from(*byte));
    while let Some((head, after)) = rest.split_at_checked(4) {
        let (at, length) = (place(&head[..3]), usize::from(head[3]));
        let wanted = if length == 0 { 5 } else { length };
        let Some((body, after)) = after.split_at_checked(wanted) else { break };
        changes.push(match length {
            0 => Change::Copy { at, from: place(&body[..3]), count: place(&body[3..]) },
            _ => Change::Bytes { at, bytes: body.to_vec() },
        });
        rest = after;
    }
    Some((*number, changes))
}

fn encode(number: u8, changes: &[Change]) -> Vec<u8> {
    let mut input = vec![number];
    for change in changes {
        let (Change::Bytes { at, .. } | Change::Copy { at, .. }) = change;
        let mut encoded = at.to_le_bytes()[..3].to_vec();
        match change {
            Change::Bytes { bytes, .. } => {
                encoded.push(bytes.len() as u8);
                encoded.extend(bytes);
            }
            Change::Copy { from, count, .. } => {
                encoded.push(0);
                encoded.extend(&from.to_le_bytes()[..3]);
                encoded.extend(&count.to_le_bytes()[..2]);
            }
        }
        if input.len() + encoded.len() > INPUT_MAX {
            break;
        }
        input.extend(encoded);
    }
    input
}

/// A real disk, or several, in memory that can be opened as a file.
#[derive(Debug)]
pub struct Seed {
    pub name: &'static str,
    files: Vec<(PathBuf, File)>,
    /// File and byte of each block that is not all zeros.
    used: Vec<(usize, u64)>,
}

impl Seed {
    fn read(names: &[&'static str], folders: &Folders) -> Option<Self> {
        let mut seed = Self { name: names.first()?, files: Vec::new(), used: Vec::new() };
        for name in names {
            let path = match name.strip_prefix("corpus/") {
                Some(below) => folders.corpus.as_ref()?.join(below),
                None => folders.engine.join(name),
            };
            seed.unpack(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        assert!(!seed.used.is_empty(), "{} is empty", seed.name);
        seed.used.truncate(USED_MAX / BLOCK);
        Some(seed)
    }

    /// Adds the files of a packed disk, by names that images call one another by.
    fn unpack(&mut self, path: &Path) -> io::Result<()> {
        let packed = io::BufReader::new(File::open(path)?);
        let name = PathBuf::from(path.file_stem().unwrap_or_default());
        let bytes: Box<dyn io::Read> = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Box::new(flate2::read::GzDecoder::new(packed)),
            Some("zlib") => Box::new(flate2::read::ZlibDecoder::new(packed)),
            Some("xz") => Box::new(lzma_rust2::XzReader::new(packed, false)),
            Some("zst") => Box::new(ruzstd::decoding::StreamingDecoder::new(packed).map_err(io::Error::other)?),
            _ => return self.add(PathBuf::from(path.file_name().unwrap_or_default()), packed),
        };
        if name.extension().is_none_or(|extension| extension != "tar") {
            return self.add(name, bytes);
        }
        for entry in tar::Archive::new(bytes).entries()? {
            let entry = entry?;
            let name = entry.path()?.into_owned();
            if name.extension().is_some_and(|extension| extension == "img") {
                self.add(name, entry)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, name: PathBuf, mut bytes: impl io::Read) -> io::Result<()> {
        let file = File::from(rustix::fs::memfd_create("seed", rustix::fs::MemfdFlags::CLOEXEC)?);
        let mut length = 0;
        let mut piece = Vec::with_capacity(PIECE);
        while bytes.by_ref().take(PIECE as u64).read_to_end(&mut piece)? > 0 {
            for (at, block) in (length..).step_by(BLOCK).zip(piece.chunks(BLOCK)) {
                if Some(block) != ZEROS.get(..block.len()) {
                    file.write_all_at(block, at)?;
                    self.used.push((self.files.len(), at));
                }
            }
            length += piece.len() as u64;
            piece.clear();
        }
        file.set_len(length)?;
        self.files.push((name, file));
        Ok(())
    }

    /// Bytes of the blocks in use.
    fn len(&self) -> usize {
        self.used.len() * BLOCK
    }

    /// The file and its byte at `place`, which is taken as it wraps.
    fn locate(&self, place: usize) -> (&File, u64) {
        let place = place % self.len();
        let (file, start) = self.used[place / BLOCK];
        (&self.files[file].1, start + (place % BLOCK) as u64)
    }

    fn held(&self, place: usize, count: usize) -> Vec<u8> {
        let (file, at) = self.locate(place);
        let mut bytes = vec![0; count];
        let mut done = 0;
        while let Some(read) = file.read_at(&mut bytes[done..], at + done as u64).ok().filter(|read| *read > 0) {
            done += read;
        }
        bytes.truncate(done);
        bytes
    }

    fn write(&self, place: usize, bytes: &[u8]) {
        let (file, at) = self.locate(place);
        file.write_all_at(bytes, at).expect("a file in memory can be written");
    }

    /// Gives the place and what was there.
    fn apply(&self, change: &Change) -> (usize, Vec<u8>) {
        let (at, bytes) = match change {
            Change::Bytes { at, bytes } => (*at, bytes.clone()),
            Change::Copy { at, from, count } => (*at, self.held(*from, *count)),
        };
        // No file grows.
        let held = self.held(at, bytes.len());
        self.write(at, &bytes[..held.len()]);
        (at, held)
    }
}

/// Nothing but the seed's own files is there to be opened.
#[derive(Debug)]
struct Own<'a>(HashMap<&'a Path, &'a File>);

impl ImageOpener for Own<'_> {
    fn open(&self, path: &Path) -> guestkit::Result<File> {
        let found = self.0.get(path).ok_or_else(|| Error::NotFound { path: path.into() })?;
        found.try_clone().map_err(|source| Error::Io { action: "opening a seed".into(), source })
    }

    fn files_in(&self, _: &Path) -> guestkit::Result<Vec<PathBuf>> {
        let mut paths: Vec<_> = self.0.keys().map(|path| (*path).to_owned()).collect();
        paths.sort();
        Ok(paths)
    }
}

/// Opens a disk and reads what can be reached; every error is an answer.
///
/// # Panics
/// Where the engine computes for far longer than its own bound, or reading in pieces gives other bytes than reading at once.
fn exercise(seed: &Seed, target: &Target) {
    let limits = Limits {
        bytes_read: 128 << 20,
        allocation_bytes: 32 << 20,
        entries: 400,
        text_bytes: 1 << 20,
        devices: 64,
        time: TIME,
        ..Limits::default()
    };
    // Of this thread: on a busy machine much time passes in which nothing is computed.
    let computed = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    let before = computed();
    read_disk(seed, target, &limits);
    let took = computed().saturating_sub(before);
    assert!(took < TIME * 2, "{}: {took:?} of computing, where {TIME:?} are the bound", seed.name);
}

fn read_disk(seed: &Seed, target: &Target, limits: &Limits) {
    let Ok(disk) = open(seed, target.format, limits) else { return };
    match target.asked {
        Asked::Disk => {}
        Asked::Inspection => return read_guest(&disk),
        Asked::Profiles => return judge_guest(&disk),
    }
    let mut buffer = vec![0; 1 << 16];
    let volumes =
        disk.devices().iter().map(guestkit::Device::source).chain(disk.drives().iter().map(guestkit::Drive::source));
    for source in volumes.take(16) {
        for at in [0, source.len() / 2, source.len().saturating_sub(1 << 16)] {
            let count = usize::try_from(source.len() - at).unwrap_or(usize::MAX).min(buffer.len());
            let _ = source.read_exact_at(&mut buffer[..count], at);
        }
    }
    for device in disk.devices() {
        let Ok(file_system) = disk.mount(device) else { continue };
        let _ = file_system.subvolumes();
        look_up(&*file_system, file_system.root(), 2);
        let tree = Tree::new(file_system, Arc::clone(disk.budget()));
        let _ = tree.walk("/", |entry| {
            let mut read = || -> Result<(), Error> {
                let metadata = entry.metadata()?;
                entry.extended_attributes()?;
                match metadata.file_type {
                    FileType::Symlink => drop(entry.read_link()?),
                    FileType::Regular => entry.open()?.map_or(Ok(()), |file| read_file(&file, &mut buffer))?,
                    _ => {}
                }
                Ok(())
            };
            let _ = read();
            Ok(WalkNext::Descend)
        });
        let _ = tree.read_text("/etc/os-release");
    }
}

fn open(seed: &Seed, format: Format, limits: &Limits) -> Result<Disk, Error> {
    let opener = Own(seed.files.iter().map(|(name, file)| (name.as_path(), file)).collect());
    let mut keys = Keys::none();
    for key in ["compatkey", "devcorpus"] {
        keys.add("all", Secret::new(key.as_bytes().to_vec()));
    }
    let disks = if format == Format::Raw { seed.files.len() } else { 1 };
    let specs = seed.files.iter().take(disks).map(|(name, _)| ImageSpec { path: name.clone(), format: Some(format) });
    Disk::open_with_keys(&specs.collect::<Vec<_>>(), &opener, &keys, limits)
}

/// Everything that can be asked of a guest; its report can be told in every form, whatever it holds.
fn read_guest(disk: &Disk) {
    let report = inspect(disk);
    for form in Form::ALL {
        assert!(!form.render(&report, SystemTime::UNIX_EPOCH).is_empty(), "{form:?} says nothing");
    }
}

/// Every check, in every form.
fn judge_guest(disk: &Disk) {
    static CONTENT: LazyLock<Content> = LazyLock::new(Content::embedded);
    let profiles = Profile::ALL.to_vec();
    let options =
        ProfileOptions { profiles, all: true, reference_time: Some(1_700_000_000), ..ProfileOptions::default() };
    let report = disk.profile(&CONTENT, &options, &mut ());
    for form in ProfileForm::ALL {
        assert!(!form.render(&report).is_empty(), "{form:?} says nothing");
    }
}

fn inspect(disk: &Disk) -> InspectReport {
    let options = InspectOptions { deep_scan: true, databases: true, ..InspectOptions::default() };
    disk.inspect(&options, &mut ())
}

/// Names are found by other ways than directories are listed.
fn look_up(file_system: &dyn FileSystem, directory: NodeId, depth: u32) {
    let Ok(entries) = file_system.read_dir(directory) else { return };
    let _ = file_system.lookup(directory, b"no such name");
    for entry in entries.iter().take(20) {
        let _ = file_system.lookup(directory, &entry.name);
        if depth > 0 && entry.file_type.is_none_or(|file_type| file_type == FileType::Directory) {
            look_up(file_system, entry.node, depth - 1);
        }
    }
}

/// The beginning, the middle and the end; of the beginning some also in pieces.
fn read_file(file: &OpenFile, buffer: &mut [u8]) -> Result<(), Error> {
    for at in [file.len() / 2, file.len().saturating_sub(1 << 16), 0] {
        let count = usize::try_from(file.len() - at).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..count], at)?;
    }
    let count = usize::try_from(file.len()).unwrap_or(usize::MAX).min(buffer.len());
    for (at, length) in [(0, 511), (4095, 700), (count.saturating_sub(1025), 1025)] {
        let mut piece = vec![0; length.min(count.saturating_sub(at))];
        file.read_exact_at(&mut piece, at as u64)?;
        assert!(buffer.get(at..at + piece.len()) == Some(&*piece), "bytes at {at} depend on how they are read");
    }
    Ok(())
}

/// A generator whose numbers are the same each time (xorshift64*).
#[derive(Debug)]
pub struct Noise(u64);

impl Noise {
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// Another input near `input`: some changes more, fewer, elsewhere, or of another seed.
pub fn mutated(seeds: &[Option<Seed>], input: &[u8], noise: &mut Noise) -> Vec<u8> {
    let present: Vec<u8> = (0..).zip(seeds).filter_map(|(number, seed)| seed.as_ref().map(|_| number)).collect();
    if present.is_empty() {
        return input.to_vec();
    }
    let (mut number, mut changes) = parse(input).unwrap_or_default();
    if !present.contains(&number) || (changes.is_empty() && noise.below(2) == 0) {
        number = noise.one(&present);
    }
    let Some(Some(seed)) = seeds.get(usize::from(number)) else { return input.to_vec() };
    for _ in 0..=noise.below(4) {
        let chosen = noise.below(changes.len());
        match (noise.below(10), changes.get_mut(chosen)) {
            (0, Some(_)) => drop(changes.remove(chosen)),
            (1, Some(Change::Bytes { at, .. } | Change::Copy { at, .. })) => {
                *at = match noise.below(3) {
                    0 => at.saturating_add(noise.one(&[1, 2, 4, 8, 16, 24, 32, 512, 4096])),
                    1 => at.saturating_sub(noise.one(&[1, 2, 4, 8, 16, 24, 32, 512, 4096])),
                    _ => place(seed, noise),
                };
            }
            (2 | 3, Some(Change::Bytes { bytes, .. })) => *bytes = altered(seed, bytes, noise),
            (4, Some(change)) => {
                let again = change.clone();
                changes.push(again);
            }
            (5, _) => {
                let count = noise.one(&[8, 16, 32, 64, 256, 512, 1024, 4096]);
                changes.push(Change::Copy { at: place(seed, noise) & !7, from: place(seed, noise) & !7, count });
            }
            (6, _) => {
                // Everything that follows moves, as in text.
                let (at, by) = (place(seed, noise), 1 + noise.below(8));
                let mut bytes = seed.held(at, 200);
                if noise.below(2) == 0 {
                    drop(bytes.drain(..by.min(bytes.len())));
                } else {
                    bytes.splice(..0, vec![b' '; by]);
                }
                changes.push(Change::Bytes { at, bytes });
            }
            _ => {
                let at = place(seed, noise);
                let bytes = altered(seed, &seed.held(at, noise.one(&[1, 1, 2, 4, 4, 8])), noise);
                changes.push(Change::Bytes { at, bytes });
            }
        }
    }
    changes.retain(|change| !matches!(change, Change::Bytes { bytes, .. } if bytes.is_empty() || bytes.len() > 255));
    encode(number, &changes)
}

/// Where a change is likely to meet a structure: the first blocks, the last ones, any; mostly where a field can begin.
fn place(seed: &Seed, noise: &mut Noise) -> usize {
    let at = match noise.below(8) {
        0..=2 => noise.below(seed.len().min(40 * BLOCK)),
        3 => seed.len() - 1 - noise.below(seed.len().min(32 * BLOCK)),
        _ => noise.below(seed.len()),
    };
    at & !noise.one(&[0, 1, 3, 7])
}

fn altered(seed: &Seed, held: &[u8], noise: &mut Noise) -> Vec<u8> {
    let width = held.len();
    match noise.below(9) {
        0 => vec![0; width],
        1 => vec![0xff; width],
        2 => held.iter().map(|byte| byte ^ (1 << noise.below(8))).collect(),
        3 => held.iter().rev().copied().collect(),
        4 => held.iter().map(|byte| byte.wrapping_add(1)).collect(),
        5 => held.iter().map(|byte| byte.wrapping_sub(1)).collect(),
        // A number that stands elsewhere: another node, block, length.
        6 => seed.held(place(seed, noise), width),
        // A power of two or what is beside it, in either order of bytes.
        7 => {
            let number = (1_u64 << noise.below(64)).wrapping_add(noise.one(&[0, 1, u64::MAX]))
                & (u64::MAX >> (64 - 8 * width.clamp(1, 8)));
            let bytes = number.to_le_bytes();
            let short = bytes[..width.min(8)].iter();
            if noise.below(2) == 0 { short.copied().collect() } else { short.rev().copied().collect() }
        }
        _ => (0..width).map(|_| noise.next() as u8).collect(),
    }
}
