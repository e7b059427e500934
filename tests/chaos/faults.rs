//! What a storm does: faults by weight, each choice from the seed, each fault counted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::{Cluster, Member};

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    CoordinatorKilled,
    CoordinatorFrozen,
    CoordinatorLeft,
    WorkerKilled,
    WorkerKilledForLong,
    WorkerFrozen,
    WorkerLeft,
    AttemptKilled,
}

impl Fault {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CoordinatorKilled => "coordinator killed (SIGKILL), started again within 3 s",
            Self::CoordinatorFrozen => "coordinator frozen (SIGSTOP) for up to 8 s",
            Self::CoordinatorLeft => "coordinator asked to leave (SIGTERM), started again",
            Self::WorkerKilled => "worker killed (SIGKILL), started again within 3 s",
            Self::WorkerKilledForLong => "worker killed (SIGKILL), gone for longer than a lease lives",
            Self::WorkerFrozen => "worker frozen (SIGSTOP) for up to 10 s",
            Self::WorkerLeft => "worker asked to leave (SIGTERM), started again",
            Self::AttemptKilled => "an attempt's process killed (SIGKILL)",
        }
    }
}

const FAULTS: [(Fault, u32); 8] = [
    (Fault::CoordinatorKilled, 5),
    (Fault::CoordinatorFrozen, 3),
    (Fault::CoordinatorLeft, 1),
    (Fault::WorkerKilled, 6),
    (Fault::WorkerKilledForLong, 2),
    (Fault::WorkerFrozen, 5),
    (Fault::WorkerLeft, 2),
    (Fault::AttemptKilled, 4),
];

/// How often each fault was done.
pub(crate) type Counts = BTreeMap<Fault, u32>;

/// Strikes for `during`, then heals.
///
/// # Errors
/// When a process ended that nobody had touched, or did not end as it was told.
pub(crate) fn strike(cluster: &mut Cluster, rng: &mut StdRng, during: Duration) -> Result<Counts, String> {
    let end = Instant::now() + during;
    let mut counts = Counts::new();
    let mut next = Instant::now();
    while Instant::now() < end {
        cluster.tick()?;
        if Instant::now() >= next {
            let fault = FAULTS.choose_weighted(rng, |(_, weight)| *weight).unwrap().0;
            if inject(fault, cluster, rng)? {
                *counts.entry(fault).or_default() += 1;
            }
            next = Instant::now() + Duration::from_secs_f64(rng.random_range(0.2..1.2));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.heal()?;
    Ok(counts)
}

/// Whether there was somebody to strike.
fn inject(fault: Fault, cluster: &mut Cluster, rng: &mut StdRng) -> Result<bool, String> {
    let after = |seconds: f64| Instant::now() + Duration::from_secs_f64(seconds);
    let is_worker = !matches!(fault, Fault::CoordinatorKilled | Fault::CoordinatorFrozen | Fault::CoordinatorLeft);
    let struck = |member: &&mut Member| member.is_up() && member.is_worker() == is_worker;
    let Some(member) = cluster.members.iter_mut().filter(struck).choose(rng) else { return Ok(false) };
    match fault {
        Fault::CoordinatorKilled | Fault::WorkerKilled => member.kill(after(rng.random_range(0.0..3.0)))?,
        Fault::WorkerKilledForLong => member.kill(after(rng.random_range(8.0..12.0)))?,
        Fault::CoordinatorFrozen => member.freeze(after(rng.random_range(0.2..8.0))),
        Fault::WorkerFrozen => member.freeze(after(rng.random_range(0.2..10.0))),
        Fault::CoordinatorLeft | Fault::WorkerLeft => member.ask_to_leave(),
        Fault::AttemptKilled => {
            let attempts = member.attempts();
            let Some(attempt) = attempts.choose(rng) else { return Ok(false) };
            // One that ended meanwhile was not struck.
            return Ok(Pid::from_raw(attempt.pid).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()));
        }
    }
    Ok(true)
}
