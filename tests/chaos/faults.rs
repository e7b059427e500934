//! What a storm does: faults by weight, each choice from the seed, each fault counted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use guestkit_processes::postgres::Server;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::{Child, Cluster, Member, children};

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
    ConnectionEnded,
    DatabaseCrashed,
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
            Self::ConnectionEnded => "a coordinator's connection ended by the database (SIGTERM to its backend)",
            Self::DatabaseCrashed => "database crashed (SIGKILL to all of its processes but the first), recovered",
        }
    }
}

const FAULTS: [(Fault, u32); 10] = [
    (Fault::CoordinatorKilled, 5),
    (Fault::CoordinatorFrozen, 3),
    (Fault::CoordinatorLeft, 1),
    (Fault::WorkerKilled, 6),
    (Fault::WorkerKilledForLong, 2),
    (Fault::WorkerFrozen, 5),
    (Fault::WorkerLeft, 2),
    (Fault::AttemptKilled, 4),
    (Fault::ConnectionEnded, 4),
    (Fault::DatabaseCrashed, 1),
];

/// How often each fault was done.
pub(crate) type Counts = BTreeMap<Fault, u32>;

/// Strikes for `during`, then heals. Without a database, nothing strikes it.
///
/// # Errors
/// When a process ended that nobody had touched, or did not end as it was told.
pub(crate) fn strike(
    cluster: &mut Cluster,
    database: Option<&Server>,
    rng: &mut StdRng,
    during: Duration,
) -> Result<Counts, String> {
    let end = Instant::now() + during;
    let mut counts = Counts::new();
    let mut next = Instant::now();
    while Instant::now() < end {
        cluster.tick()?;
        if Instant::now() >= next {
            let fault = FAULTS.choose_weighted(rng, |(_, weight)| *weight).unwrap().0;
            let struck = match fault {
                Fault::ConnectionEnded | Fault::DatabaseCrashed => {
                    database.is_some_and(|database| strike_database(fault, database, rng))
                }
                _ => inject(fault, cluster, rng)?,
            };
            if struck {
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
        Fault::ConnectionEnded | Fault::DatabaseCrashed => return Ok(false),
    }
    Ok(true)
}

/// Whether there was something to strike.
fn strike_database(fault: Fault, database: &Server, rng: &mut StdRng) -> bool {
    if fault == Fault::DatabaseCrashed {
        return database.crash().is_ok();
    }
    let Ok(server) = database.pid() else { return false };
    let title = |child: &Child| std::fs::read_to_string(format!("/proc/{}/cmdline", child.pid)).unwrap_or_default();
    // A backend is named after its user; the server's own processes are not.
    let backends = children(server.as_raw_nonzero().get().unsigned_abs());
    let ours = backends.into_iter().filter(|child| title(child).starts_with("postgres: guestkit "));
    let Some(backend) = ours.choose(rng) else { return false };
    Pid::from_raw(backend.pid).is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok())
}
