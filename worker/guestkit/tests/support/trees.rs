//! File systems mounted from bytes, and trees walked: whole, to compare them, and roughly, to see that hostile ones end.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guestkit::filesystem::{self, FileType, Metadata, SharedFileSystem};
use guestkit::guest::{WalkEntry, WalkNext};
use guestkit::{BlockCache, Budget, Error, Limits, ReadAt, Result, Source, Tree};
use sha2::Digest as _;

use super::Noise;

/// The tree of the file system in `image`, seen as [`guestkit::Disk`] shows it: probed, and through the cache.
pub(crate) fn mount(image: Vec<u8>) -> Result<Tree> {
    let budget = Budget::new(&Limits::default());
    let source: Source = Arc::new(BlockCache::new(Arc::new(image), Arc::clone(&budget)));
    Ok(Tree::new(mount_within(&[source], &budget)?, budget))
}

/// The file system on `members`, probed on the first, without the cache.
pub(crate) fn mount_within(members: &[Source], budget: &Arc<Budget>) -> Result<SharedFileSystem> {
    let found = filesystem::probe(&*members[0])?;
    let probe = found.ok_or_else(|| Error::Unsupported { what: "nothing recognised".into() })?;
    filesystem::mount(members, &probe, budget)
}

/// A file of `tests/fixtures`, unpacked where its name ends in `.gz`.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let bytes = std::fs::read(&path).unwrap();
    if !name.ends_with(".gz") {
        return bytes;
    }
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut unpacked).unwrap();
    unpacked
}

/// What a walk found at one path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) metadata: Metadata,
    /// The contents of a regular file.
    pub(crate) sha256: Option<String>,
    /// The target of a symbolic link.
    pub(crate) target: Option<Vec<u8>>,
}

/// Everything in `tree` by its path without a leading slash; nothing may be unreadable.
pub(crate) fn walk(tree: &Tree) -> BTreeMap<String, Found> {
    let mut found = BTreeMap::new();
    let unreadable = tree.walk("/", |entry| {
        let metadata = entry.metadata()?;
        assert_eq!(metadata.file_type, entry.file_type, "{:?}", String::from_utf8_lossy(entry.path));
        let path = String::from_utf8_lossy(&entry.path[1..]).into_owned();
        let sha256 = if metadata.file_type == FileType::Regular { Some(sha256_of(entry)?) } else { None };
        let target = if metadata.file_type == FileType::Symlink { Some(entry.read_link()?) } else { None };
        found.insert(path, Found { metadata, sha256, target });
        Ok(WalkNext::Descend)
    });
    let unreadable = unreadable.unwrap();
    assert!(unreadable.is_empty(), "{unreadable:?}");
    found
}

/// The SHA-256 of a regular file's contents.
pub(crate) fn sha256_of(entry: &WalkEntry<'_>) -> Result<String> {
    sha256_of_source(&entry.open()?.unwrap())
}

/// The SHA-256 of all bytes of `source`, read in pieces that fit no structure's size.
pub(crate) fn sha256_of_source(source: &dyn ReadAt) -> Result<String> {
    let mut hash = sha2::Sha256::new();
    let mut piece = vec![0; 300_007];
    let mut at = 0;
    while at < source.len() {
        let count = usize::try_from(source.len() - at).unwrap_or(usize::MAX).min(piece.len());
        source.read_exact_at(&mut piece[..count], at)?;
        hash.update(&piece[..count]);
        at += count as u64;
    }
    Ok(hex(&hash.finalize()))
}

/// The SHA-256 of `bytes` in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&sha2::Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// In production an answer takes five seconds at most; unoptimised code on a loaded machine is many times slower.
const PATIENCE: Duration = Duration::from_secs(if cfg!(debug_assertions) { 60 } else { 5 });

/// Looks at everything in `image`, going on after what cannot be read. Panics where that takes long.
pub(crate) fn read_roughly(image: Vec<u8>) -> Result<(u32, u32)> {
    let started = Instant::now();
    let outcome = read_all(image);
    assert!(started.elapsed() < PATIENCE, "took {:?}", started.elapsed());
    outcome
}

fn read_all(image: Vec<u8>) -> Result<(u32, u32)> {
    let tree = mount(image)?;
    let (mut read, mut refused, mut seen) = (0, 0, 0);
    let unreadable = tree.walk("/", |entry| {
        seen += 1;
        // Trees in circles are as deep as a walk may go, and each level can branch.
        if seen > 3000 {
            return Ok(WalkNext::Stop);
        }
        match read_ends(entry) {
            Ok(()) => read += 1,
            Err(_) => refused += 1,
        }
        Ok(WalkNext::Descend)
    })?;
    Ok((read, refused + u32::try_from(unreadable.len()).unwrap()))
}

/// Reads what an entry holds. The size of a broken file can be anything; both ends of it tell enough.
pub(crate) fn read_ends(entry: &WalkEntry<'_>) -> Result<()> {
    match entry.file_type {
        FileType::Symlink => entry.read_link().map(drop),
        FileType::Regular => {
            let Some(file) = entry.open()? else { return Ok(()) };
            let mut piece = vec![0; usize::try_from(file.len().min(1 << 16)).unwrap()];
            file.read_exact_at(&mut piece, 0)?;
            let last = file.len() - piece.len() as u64;
            file.read_exact_at(&mut piece, last)
        }
        _ => entry.metadata().map(drop),
    }
}

/// Reads everything there is by `read_one`, and gives the number of files read and of things refused.
pub(crate) fn read_everything(
    tree: &Tree,
    mut read_one: impl FnMut(&WalkEntry<'_>) -> Result<()>,
) -> Result<(u32, u32)> {
    let (mut read, mut refused) = (0, 0);
    let unreadable = tree.walk("/", |entry| {
        match read_one(entry) {
            Ok(()) => read += 1,
            Err(error) if error.is_budget_exhausted() => return Err(error),
            Err(_) => refused += 1,
        }
        Ok(WalkNext::Descend)
    })?;
    Ok((read, refused + u32::try_from(unreadable.len()).unwrap()))
}

/// Mutants of `good`, whose first `metadata_bytes` are changed here and there, and copies cut at many lengths: each must
/// end in an answer.
pub(crate) fn mutate(good: &[u8], metadata_bytes: usize, count: usize, seed: u64) {
    let mut noise = Noise::new(seed);
    let (mut whole, mut partly, mut refused) = (0, 0, 0);
    let mut look = |image: Vec<u8>| match read_roughly(image) {
        Ok((_, 0)) => whole += 1,
        Ok(_) => partly += 1,
        Err(Error::Io { action, source }) => panic!("{action}: {source}"),
        Err(_) => refused += 1,
    };
    for _ in 0..count {
        let mut image = good.to_vec();
        for _ in 0..1 + noise.below(6) {
            let at = noise.below(metadata_bytes.min(good.len()));
            image[at] = match noise.below(4) {
                0 => 0,
                1 => 0xff,
                2 => image[at] ^ (1 << noise.below(8)),
                _ => noise.next() as u8,
            };
        }
        look(image);
    }
    for _ in 0..count / 4 {
        look(good[..noise.below(good.len())].to_vec());
    }
    println!("{whole} read whole, {partly} in part, {refused} refused");
}
