//! Changed disks through the whole engine, one test for each target: nothing may panic, hang, or take memory without bound.
//!
//! Each test repeats what is kept of its target: `fuzz/regressions/NAME.txt`, the inputs that once failed, and
//! `fuzz/corpus/NAME.txt`, those that libFuzzer found to lead somewhere (`cargo xtask fuzz`). Then it goes on from them blindly
//! for some seconds. An input that fails is printed: a line of `fuzz/regressions/NAME.txt` repeats it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test says what it found by failing; its helpers are outside of what the lints take for tests"
)]

#[path = "../fuzz/src/harness/mod.rs"]
mod harness;
mod support;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Folders, Noise, Seed, TARGETS, Target, mutated};
use support::corpus;

/// Seconds that each target is fuzzed when nothing else is asked for. Where checksums are not taken for right, few changes lead
/// far.
const SECONDS: f64 = 2.0;
/// The same in continuous integration, where they are.
const SECONDS_CI: f64 = 20.0;
/// An input that takes longer hangs; the engine's own bound is a fraction of it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Resident memory that the process may ever have taken: seeds as they are unpacked, and what a hostile disk may take.
const MEMORY_KIB_MAX: u64 = 1 << 20;

/// A target's seeds, and what runs inputs on a thread that can be given up.
struct Runner {
    target: &'static Target,
    seeds: Arc<Vec<Option<Seed>>>,
}

impl Runner {
    /// Runs an input; says how it failed.
    fn judge(&self, input: &[u8]) -> Result<(), String> {
        let (sender, receiver) = mpsc::channel();
        let (target, seeds, input) = (self.target, Arc::clone(&self.seeds), input.to_vec());
        thread::spawn(move || {
            let ended = catch_unwind(AssertUnwindSafe(|| target.run(&seeds, &input))).map_err(|panic| {
                let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
                format!("panic: {}", text.unwrap_or("?"))
            });
            let _ = sender.send(ended);
        });
        receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| Err("it does not end".into()))
    }

    fn check(&self, input: &[u8]) {
        let name = self.target.name;
        self.judge(input).unwrap_or_else(|how| panic!("fuzz/regressions/{name}.txt: {}: {how}", hex(input)));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The inputs of a file: hexadecimal lines, and lines that begin with `#` and tell of the one below.
fn kept(path: &Path) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let byte = |line: &str, at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| (0..line.len()).step_by(2).map(|at| byte(line, at)).collect()).collect()
}

fn peak_memory_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok()?.parse().ok()
}

fn fuzz(name: &str) {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = Folders { engine: engine.to_owned(), corpus: corpus() };
    let target = Target::named(name);
    let runner = Runner { target, seeds: Arc::new(target.seeds(&folders)) };
    let present = runner.seeds.iter().flatten().count();
    // Every seed as it is; then what is kept, and the inputs that are made go on from it.
    let mut inputs: Vec<Vec<u8>> = (0..).zip(&*runner.seeds).map(|(number, _)| vec![number]).collect();
    for folder in ["regressions", "corpus"] {
        inputs.extend(kept(&engine.join(format!("fuzz/{folder}/{name}.txt"))));
    }
    inputs.iter().for_each(|input| runner.check(input));
    let default = if cfg!(fuzzing) && std::env::var_os("CI").is_some() { SECONDS_CI } else { SECONDS };
    let seconds = number("GUESTKIT_FUZZ_SECONDS").unwrap_or(default);
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed().as_secs_f64() < seconds && present > 0 {
        let mut noise = Noise::new(rounds);
        let from = &inputs[usize::try_from(rounds).unwrap() % inputs.len()];
        runner.check(&mutated(&runner.seeds, from, &mut noise));
        rounds += 1;
    }
    let memory = peak_memory_kib();
    println!("fuzz {name}: {present} seeds, {} kept, {rounds} made, {} MiB at most", inputs.len(), memory >> 10);
    assert!(memory < MEMORY_KIB_MAX, "{name}: {memory} KiB");
}

/// Changes of a seed lead nowhere if its files are not those that a guest has.
#[test]
fn seeds_of_guests_are_guests() {
    let folders = Folders { engine: Path::new(env!("CARGO_MANIFEST_DIR")).to_owned(), corpus: None };
    for target in TARGETS {
        for seed in target.seeds(&folders).iter().flatten() {
            let Some(report) = target.report(seed) else { continue };
            let [system] = &*report.systems else { panic!("{}: {report:#?}", seed.name) };
            let packages = system.packages.as_ref().map_or(0, |packages| packages.packages.len());
            let units = system.services.as_ref().map_or(0, |services| services.units.len());
            let name = system.operating_system.product_name.as_deref().unwrap_or("?");
            println!("{}: {name}: {packages} packages, {units} units; {:?}", seed.name, report.warnings);
            assert!(packages > 0 || !matches!(target.name, "rpm" | "sqlite" | "packages"), "{}", seed.name);
        }
    }
}

macro_rules! targets {
    ($($name:ident)+) => {
        $(#[test]
        fn $name() {
            fuzz(stringify!($name));
        })+

        #[test]
        fn every_target_is_a_test_and_one_of_libfuzzers() {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),+]);
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
            let mut files: Vec<_> = fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
                .collect();
            files.sort();
            let mut names = names;
            names.sort_unstable();
            assert_eq!(files, names);
        }
    };
}

targets! {
    qcow2 vmdk vmdk_descriptor vdi vhd vhdx vhdx_log ova partition lvm md luks ext ext_journal xfs xfs_log btrfs btrfs_log ntfs
    fat exfat iso9660 squashfs probes registry sqlite rpm journal packages configs languages profile surroundings
}
