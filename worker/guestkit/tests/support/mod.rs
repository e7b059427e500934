//! What several tests of this folder need: the corpus, outside tools, and noise that is the same each time.
#![allow(dead_code, reason = "each test takes what it needs")]

pub(crate) mod trees;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use guestkit::image::{self, Format, Image, Roots};
use guestkit::{Budget, Limits, Result};

/// The unpacked corpus, or `None` with a word where there is none; continuous integration must have it.
pub(crate) fn corpus() -> Option<PathBuf> {
    match std::env::var_os("GUESTKIT_CORPUS") {
        Some(folder) => Some(folder.into()),
        None => {
            assert!(std::env::var_os("CI").is_none(), "GUESTKIT_CORPUS must be set in continuous integration");
            println!("corpus not present");
            None
        }
    }
}

/// Whether the outside tool `name` is there; continuous integration must have it.
pub(crate) fn has_tool(name: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|paths| std::env::split_paths(&paths).any(|folder| folder.join(name).exists()));
    assert!(found || std::env::var_os("CI").is_none(), "{name} must be there in continuous integration");
    if !found {
        println!("{name} not present");
    }
    found
}

/// Whether all of the outside tools `names`, which continuous integration does not have, are there.
pub(crate) fn has_tools(names: &[&str]) -> bool {
    let folders: Vec<PathBuf> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    let missing = names.iter().find(|name| !folders.iter().any(|folder| folder.join(name).exists()));
    if let Some(name) = missing {
        println!("{name} is not installed");
    }
    missing.is_none()
}

/// Runs an outside tool, which must succeed, and gives its standard output.
pub(crate) fn run(tool: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(tool).args(arguments).output().unwrap_or_else(|error| panic!("{tool}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {complaint}");
    output.stdout
}

/// The contents of a file of the corpus, unpacked by what its extension says.
pub(crate) fn unpacked(path: &Path) -> Vec<u8> {
    let path_text = path.to_str().unwrap();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => run("gzip", &["-dc", path_text]),
        Some("bz2") => run("bzip2", &["-dc", path_text]),
        Some("xz") => run("xz", &["-dc", path_text]),
        Some("zst") => run("zstd", &["-dcq", path_text]),
        _ => std::fs::read(path).unwrap(),
    }
}

/// Opens the image at `path` with the default limits, anywhere on the host.
pub(crate) fn open(path: &Path, format: Option<Format>) -> Result<Image> {
    image::open(path, format, &Roots::anywhere(), &Budget::new(&Limits::default()))
}

/// All bytes of an image, read in pieces that fit no structure's size.
pub(crate) fn contents(image: &Image) -> Vec<u8> {
    let source = image.source();
    let mut bytes = vec![0; usize::try_from(source.len()).unwrap()];
    let mut at = 0;
    for part in bytes.chunks_mut(300_007) {
        source.read_exact_at(part, at).unwrap();
        at += part.len() as u64;
    }
    bytes
}

/// A generator whose numbers are the same each time (xorshift64*).
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    /// A disk with all that matters to a format: noise, text, zeros, and stretches shorter than a cluster.
    pub(crate) fn disk(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 200_000);
        while bytes.len() < length {
            let stretch = 1 + self.below(200_000);
            match self.below(4) {
                0 => bytes.extend((0..stretch).map(|_| self.next() as u8)),
                1 => bytes.extend((0..stretch).map(|at| b"the quick brown fox "[at % 20])),
                2 => bytes.extend(std::iter::repeat_n(self.next() as u8, stretch)),
                _ => bytes.extend(std::iter::repeat_n(0, stretch)),
            }
        }
        bytes.truncate(length);
        bytes
    }
}

/// Asserts two long byte strings equal, naming the first difference.
pub(crate) fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    if found != expected {
        let at = found.iter().zip(expected).position(|(found, expected)| found != expected).unwrap();
        panic!("{what}: byte {at} is {:#x}, expected {:#x}", found[at], expected[at]);
    }
}

/// A budget of the default limits.
pub(crate) fn budget() -> Arc<Budget> {
    Budget::new(&Limits::default())
}
