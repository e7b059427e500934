//! A storm from its first job to its verdict.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use guestkit_processes::Binaries;
use guestkit_processes::postgres::Server;
use guestkit_protocol::v1;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::clients::{self, Typist};
use crate::cluster::{Cluster, Shape};
use crate::door::Door;
use crate::faults::{self, Counts};
use crate::follower::{self, Shared};
use crate::plan::{self, Planned};
use crate::settings::{number, report};
use crate::verdict::{self, Verdict};

/// Leases that end soon, so that a storm of minutes has many that do; still ten heartbeats long. Reports above 16 KiB go by
/// reference.
const COORDINATOR_ARGS: [&str; 6] =
    ["--heartbeat-seconds", "0.6", "--lease-ttl-seconds", "6", "--inline-bytes-max", "16384"];
const WORKER_ARGS: [&str; 6] = ["--slots", "4", "--drain-timeout", "3", "--log-format", "json"];

/// Commands of a user that are typed all the time, side by side.
const TYPISTS: usize = 2;

/// How long nothing may happen while something is waited for once nothing is broken: above a lease's life and a restart's
/// grace, and far above what any job needs, so that only a hang meets it.
const SILENCE_MAX: Duration = Duration::from_secs(90);

/// What is asked for; the defaults are the slice that runs with the other tests.
#[derive(Debug)]
struct Settings {
    jobs: usize,
    seconds: u64,
    workers: usize,
    coordinators: usize,
    seed: u64,
}

impl Settings {
    fn of(coordinators: u64) -> Self {
        let size = |name, default| usize::try_from(number(name).unwrap_or(default)).unwrap();
        Self {
            jobs: size("JOBS", 300),
            seconds: number("SECONDS").unwrap_or(20),
            workers: size("WORKERS", 4),
            coordinators: size("COORDINATORS", coordinators),
            seed: number("SEED").unwrap_or_else(rand::random),
        }
    }
}

/// One coordinator on SQLite: the default of everybody who starts it without a word.
#[test]
fn sqlite() {
    run("SQLite", &Settings::of(1), &COORDINATOR_ARGS, None);
}

/// Three coordinators on a PostgreSQL, which is struck as well.
#[test]
fn postgres() {
    let Some(server) = Server::start().unwrap() else { return };
    let database = server.create_database().unwrap();
    let args = [&COORDINATOR_ARGS[..], &["--store", &database.url]].concat();
    run("PostgreSQL", &Settings::of(3), &args, Some(&server));
}

#[track_caller]
fn run(store: &str, settings: &Settings, coordinator_args: &[&str], database: Option<&Server>) {
    println!("{store}, {settings:?}");
    let binaries = Binaries::beside_this_test().unwrap();
    let Settings { coordinators, workers, .. } = *settings;
    let shape = Shape { coordinators, workers, coordinator_args, worker_args: &WORKER_ARGS };
    let mut cluster = Cluster::start(&binaries, &shape);
    let weathered = weather(&mut cluster, database, settings);
    if let Err(fault) = &weathered {
        let kept = cluster.keep();
        panic!("seed {}: {fault}\nlogs and stores are kept in {}", settings.seed, kept.display());
    }
    let table = weathered.map(|weathered| table(store, settings, &weathered)).unwrap();
    println!("\n{table}");
    report(&table);
}

/// What came of a storm.
struct Weathered {
    counts: Counts,
    verdict: Verdict,
    storm: Duration,
    settled: Duration,
    reconnects: u64,
    typed: usize,
}

fn weather(cluster: &mut Cluster, database: Option<&Server>, settings: &Settings) -> Result<Weathered, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut rng = StdRng::seed_from_u64(settings.seed);
    let during = Duration::from_secs(settings.seconds);
    // Some are submitted when the storm is over, to everything that it has been through.
    let jobs = Arc::new(plan::jobs(&mut rng, settings.jobs, during));
    let door = Door::new(cluster.endpoints());
    let told = Shared::default();
    runtime.spawn(follower::follow(door.clone(), Arc::clone(&told)));

    // The follower starts before there is a job, and the first is let through in peace: it has a revision to resume from then.
    patiently("the follower's start", &told, || told.lock().unwrap().begun)?;
    let first = Arc::new(vec![Planned { at: Duration::ZERO, ..jobs[0].clone() }]);
    runtime.block_on(clients::submit(door.clone(), first)).into_iter().try_for_each(Err)?;
    patiently("the first word to the follower", &told, || told.lock().unwrap().events > 0)?;

    let started = Instant::now();
    let enough = Arc::new(AtomicBool::new(false));
    let submitting = runtime.spawn(clients::submit(door.clone(), Arc::clone(&jobs)));
    let retrying = runtime.spawn(clients::retry(door.clone(), Arc::clone(&jobs), Arc::clone(&told)));
    let typing: Vec<_> = (0..TYPISTS)
        .map(|name| {
            let typist = Typist {
                name: name.to_string(),
                guestkit: cluster.guestkit().get_program().into(),
                endpoints: cluster.endpoints().join(","),
                folder: cluster.folder().to_path_buf(),
                told: Arc::clone(&told),
            };
            runtime.spawn(clients::type_commands(typist, Arc::clone(&enough)))
        })
        .collect();

    let counts = faults::strike(cluster, database, &mut rng, during)?;
    let storm = started.elapsed();
    enough.store(true, Ordering::Relaxed);

    // Everything works now: whatever does not end in time never will.
    let settling = async {
        let mut faults = submitting.await.unwrap();
        let mut typed = Vec::new();
        for typing in typing {
            let (jobs, more) = typing.await.unwrap();
            typed.extend(jobs);
            faults.extend(more);
        }
        faults.extend(retrying.await.unwrap());
        (typed, faults)
    };
    let settling = runtime.spawn(settling);
    patiently("the end of all clients' work", &told, || settling.is_finished())
        .map_err(|error| format!("{error}: {}", verdict::unfinished(&jobs, &told.lock().unwrap())))?;
    let (typed, faults) = runtime.block_on(settling).unwrap();
    if !faults.is_empty() {
        return Err(faults.join("\n"));
    }
    patiently("the end of all jobs", &told, || {
        let told = told.lock().unwrap();
        let ids = jobs.iter().map(|job| job.job_id.as_str()).chain(typed.iter().map(String::as_str));
        ids.map(|job_id| told.state(job_id)).all(|state| state.is_some_and(clients::is_over))
    })
    .map_err(|error| format!("{error}: {}", verdict::unfinished(&jobs, &told.lock().unwrap())))?;
    cluster.tick()?;
    let settled = started.elapsed();

    let spools = cluster.folder().join("spools");
    patiently("empty spools", &told, || verdict::kept_outcomes(&spools).is_empty())
        .map_err(|error| format!("{error}: {:?}", verdict::kept_outcomes(&spools)))?;
    let asked = verdict::ask(door, Arc::clone(&jobs), typed.clone());
    let answers = runtime.block_on(asked)?;
    cluster.stop()?;
    let told = told.lock().unwrap();
    let verdict = verdict::judge(&jobs, &typed, &answers, &told, cluster)?;
    Ok(Weathered { counts, verdict, storm, settled, reconnects: told.reconnects, typed: typed.len() })
}

/// Waits for a level, for as long as anything happens.
fn patiently(what: &str, told: &Shared, level: impl Fn() -> bool) -> Result<(), String> {
    let (mut happened, mut events) = (Instant::now(), 0);
    while !level() {
        let now = told.lock().unwrap().events;
        if now != events {
            (happened, events) = (Instant::now(), now);
        }
        if happened.elapsed() > SILENCE_MAX {
            return Err(format!("{what} did not come, and nothing happened for {} s", SILENCE_MAX.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// What is shown: faults and figures.
fn table(store: &str, settings: &Settings, weathered: &Weathered) -> String {
    let Weathered { counts, verdict, storm, settled, reconnects, typed } = weathered;
    let mut text = String::new();
    let mut line = |name: &str, value: String| writeln!(text, "| {name} | {value} |").unwrap();
    line(&format!("{store}, seed {}", settings.seed), "figure".into());
    line("---", "---:".into());
    line("coordinators / workers", format!("{} / {}", settings.coordinators, settings.workers));
    for (fault, count) in counts {
        line(fault.name(), count.to_string());
    }
    line("**faults in all**", format!("**{}**", counts.values().sum::<u32>()));
    line("jobs acknowledged", verdict.jobs.to_string());
    line("of them typed with `submit --watch` during the storm", typed.to_string());
    for (state, count) in &verdict.ended {
        line(&format!("ended {state}"), count.to_string());
    }
    line("attempts run", verdict.runs.to_string());
    line("attempts lost with their worker or taken from it", verdict.lost_attempts.to_string());
    line("outcomes that came too late and counted for nothing", verdict.stale.to_string());
    line("entries told to a follower of all jobs", verdict.events.to_string());
    line("times its stream broke", reconnects.to_string());
    line("entries it missed / was told twice", "0 / 0".into());
    line("**jobs lost**", "**0**".into());
    line("**outcomes doubled**", "**0**".into());
    line("seconds of storm", format!("{:.0}", storm.as_secs_f64()));
    line("seconds from its end to the last job's", format!("{:.0}", (*settled - *storm).as_secs_f64()));
    text
}

/// A state as people write it.
pub(crate) fn word(state: v1::JobState) -> String {
    state.as_str_name().trim_start_matches("JOB_STATE_").to_owned()
}
