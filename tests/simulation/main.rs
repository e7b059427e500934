//! Seeded chaos: the scheduler and the workers' real session machines, exchanging the real messages over streams that break,
//! get stuck and arrive late; processes that die between any two steps; clocks that jump, each for itself. After every step
//! both sides' invariants are checked; what is durable is judged by an oracle that reads records alone; at the end everything
//! heals and every job must be over.
//!
//! `cargo xtask simulate` runs it over many seeds: `GUESTKIT_SIMULATION_SEEDS` and `GUESTKIT_SIMULATION_STEPS` choose the size,
//! `GUESTKIT_SIMULATION_FIRST` the first seed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: what should not be fails it")]
#![allow(clippy::print_stdout, reason = "the long form tells how it goes")]

mod coordinator;
mod link;
mod oracle;
mod random;
mod worker;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use coordinator::Planted;
use oracle::{Broken, PLACES, Places};
use world::World;

/// A seed that failed: after so many steps, or when the world had healed.
#[derive(Debug)]
struct Failure {
    seed: u64,
    step: Option<u64>,
    broken: Broken,
}

/// Failures after which looking for more is idle.
const FAILURES_MAX: usize = 10;

fn run(seed: u64, steps: u64, planted: Planted) -> Result<Places, Failure> {
    let failed = |step| move |broken| Failure { seed, step, broken };
    let mut world = World::new(seed, planted).map_err(failed(Some(0)))?;
    for step in 0..steps {
        world.step().map_err(failed(Some(step)))?;
    }
    world.heal().map_err(failed(None))?;
    Ok(world.oracle.places)
}

#[derive(Default)]
struct Findings {
    places: Places,
    failures: Vec<String>,
    run: u64,
}

/// Runs seeds on every core, and tells how it goes when there are many.
fn run_all(first: u64, seeds: u64, steps: u64) -> Findings {
    let (next, over) = (AtomicU64::new(first), AtomicBool::new(false));
    let findings = Mutex::new(Findings::default());
    let started = Instant::now();
    let look = || {
        while !over.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                return;
            }
            let result = catch_unwind(AssertUnwindSafe(|| run(seed, steps, Planted::Nothing)));
            let mut findings = findings.lock().unwrap();
            findings.run += 1;
            let failure = match result {
                Ok(Ok(places)) => {
                    for (place, times) in places {
                        *findings.places.entry(place).or_default() += times;
                    }
                    continue;
                }
                Ok(Err(Failure { seed, step, broken: Broken { rule, how } })) => {
                    let when = step.map_or("when all had healed".into(), |step| format!("at step {step}"));
                    format!("seed {seed} breaks {rule:?} {when}: {how}")
                }
                Err(_) => format!("seed {seed} panics"),
            };
            println!("{failure}");
            findings.failures.push(failure);
            if findings.failures.len() >= FAILURES_MAX {
                over.store(true, Ordering::Relaxed);
            }
        }
    };
    let tell = || {
        let mut told = Instant::now();
        loop {
            thread::park_timeout(Duration::from_millis(200));
            let (run, failed) = {
                let findings = findings.lock().unwrap();
                (findings.run, findings.failures.len())
            };
            if run == seeds || over.load(Ordering::Relaxed) {
                return;
            }
            if told.elapsed() >= Duration::from_secs(10) {
                told = Instant::now();
                let rate = run as f64 / started.elapsed().as_secs_f64();
                let left = (seeds - run) as f64 / rate.max(1e-9) / 60.0;
                println!("{run} of {seeds} seeds, {failed} failed, {rate:.1} seeds/s, {left:.0} min left");
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(look);
        }
        scope.spawn(tell);
    });
    let findings = findings.into_inner().unwrap();
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{} seeds of {steps} steps in {seconds:.1} s: {:.1} seeds/s, {:.0} steps/s; {} failed",
        findings.run,
        findings.run as f64 / seconds,
        (findings.run * steps) as f64 / seconds,
        findings.failures.len()
    );
    findings
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn every_job_ends_exactly_once() {
    let asked = number("GUESTKIT_SIMULATION_SEEDS");
    let first = number("GUESTKIT_SIMULATION_FIRST").unwrap_or(0);
    let steps = number("GUESTKIT_SIMULATION_STEPS").unwrap_or(300);
    let seeds = asked.unwrap_or(200);
    let findings = run_all(first, seeds, steps);
    if asked.is_some() {
        println!("{:>12}  came across", "times");
        for (place, times) in &findings.places {
            println!("{times:>12}  {place}");
        }
    }
    assert!(
        findings.failures.is_empty(),
        "reproduce a seed with: cargo xtask simulate --first SEED --seeds 1 --steps {steps}\n{}",
        findings.failures.join("\n")
    );
    let missed: Vec<_> = PLACES.iter().filter(|place| !findings.places.contains_key(**place)).collect();
    // Some are rare.
    assert!(seeds * steps < 1_000_000 || missed.is_empty(), "never came across {missed:?}");
}

/// 64: an attempt given up between Hello and Welcome was never spoken of again. 169 and 398: a Hello that was overtaken by the
/// process's next stream ousted it. 5939 and 7816: a lease offered again after its attempt was over had another. 2: an outcome
/// was dropped that nobody had answered. What these seeds do changes with the simulation; the stories of each stay.
#[test]
fn seeds_that_failed_once() {
    for seed in [2, 64, 169, 398, 5939, 7816] {
        if let Err(failure) = run(seed, 1_000, Planted::Nothing) {
            panic!("{failure:?}");
        }
    }
}

/// The simulation is worth something only if it sees what it is there to see, and by the rule that is there for it.
#[test]
fn planted_faults_are_caught() {
    for (planted, rule) in Planted::ALL {
        let caught = (0..100).find_map(|seed| run(seed, 300, planted).err());
        match caught {
            Some(failure) => {
                assert_eq!(failure.broken.rule, rule, "{planted:?} is caught by another rule: {failure:?}");
                println!("{planted:?} is caught by {rule:?} with seed {}: {}", failure.seed, failure.broken.how);
            }
            None => panic!("{planted:?} goes unseen in 100 seeds"),
        }
    }
}

/// A seed is worth something only if it does the same every time.
#[test]
fn a_seed_does_the_same_every_time() {
    for seed in 0..5 {
        let [one, other] = [(); 2].map(|()| run(seed, 300, Planted::Nothing).map_err(|failure| failure.broken));
        assert_eq!(one, other, "seed {seed}");
    }
}
