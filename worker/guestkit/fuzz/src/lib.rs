//! What all fuzz targets of the engine share: real disks as seeds, and how they are changed and read.

pub mod harness;

use std::path::Path;
use std::sync::LazyLock;

use harness::{Folders, INPUT_MAX, Noise, Seed, Target};

/// A target with its seeds, ready to be run.
#[derive(Debug)]
pub struct Fuzzed {
    target: &'static Target,
    seeds: Vec<Option<Seed>>,
}

impl Fuzzed {
    /// # Panics
    /// Where there is no target of that name, or a seed cannot be read.
    pub fn new(name: &str) -> Self {
        let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folders = Folders { engine, corpus: std::env::var_os("GUESTKIT_CORPUS").map(Into::into) };
        let target = Target::named(name);
        Self { target, seeds: target.seeds(&folders) }
    }

    pub fn run(&self, input: &[u8]) {
        self.target.run(&self.seeds, input);
    }

    /// Changes the input in `data[..size]` as the engine's structures ask for, or any bytes of it; gives its new length.
    pub fn mutate(&self, data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
        if seed.is_multiple_of(3) {
            return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
        }
        let input = harness::mutated(&self.seeds, &data[..size], &mut Noise::new(u64::from(seed)));
        let length = input.len().min(max_size).min(INPUT_MAX);
        data[..length].copy_from_slice(&input[..length]);
        length
    }
}

/// A target that is made when it is first run.
pub type Lazy = LazyLock<Fuzzed>;

/// The whole of a target's file.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        static FUZZED: $crate::Lazy = $crate::Lazy::new(|| $crate::Fuzzed::new($name));

        libfuzzer_sys::fuzz_target!(|input: &[u8]| FUZZED.run(input));
        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            FUZZED.mutate(data, size, max_size, seed)
        });
    };
}
