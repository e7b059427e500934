//! What commits to PostgreSQL cost: `cargo test -p guestkit-coordinator --test stored throughput -- --ignored --nocapture`.

use std::time::Instant;

use super::postgres::Database;
use super::*;

/// Ticks (10 ms each, as Linux counts for programs) of the CPU that all of the server's processes in this database took.
fn server_ticks(database: &Database) -> u64 {
    let pids = database.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'guestkit-coordinator' AND datname = current_database()");
    pids.iter()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok())
        .map(|stat| {
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        })
        .sum()
}

/// The life of `numbers` jobs in the commits of a busy store: submitted and offered, accepted, over; three commits.
fn life(scheduler: &mut Scheduler, numbers: std::ops::Range<u32>, now: &mut u64) -> [Vec<Record>; 3] {
    let session = SessionId(1);
    *now += 1;
    let mut effects = Effects::default();
    for number in numbers {
        let submit = Input::Submit {
            request: RequestId(0),
            spec: Box::new(spec(number - number % 5)),
            document: document(number),
        };
        let Input::Submit { request, mut spec, document } = submit else { unreachable!() };
        spec.job_id = job_id(number);
        spec.idempotency_key = None;
        spec.deadline = None;
        scheduler.handle(Time(*now), Input::Submit { request, spec, document }, &mut effects);
    }
    let first = effects.records().to_vec();
    let mut leases = Vec::new();
    for (_, message) in effects.release(Revision(u64::MAX)).unwrap().sends {
        if let ToWorker::Lease { lease, job_id, .. } = message {
            leases.push((lease, job_id));
        }
    }
    let mut accepted = Effects::default();
    for (lease, _) in &leases {
        scheduler.handle(Time(*now), Input::Accept { session, lease: *lease }, &mut accepted);
    }
    let mut over = Effects::default();
    for (lease, job_id) in leases {
        let (status, failure) = (OutcomeStatus::Completed, None);
        let result = Arc::from(vec![7; 200]);
        scheduler.handle(Time(*now), Input::Outcome { session, lease, job_id, status, failure, result }, &mut over);
    }
    [first, accepted.records().to_vec(), over.records().to_vec()]
}

#[test]
#[ignore = "measures"]
fn throughput() {
    let Some(database) = Database::new() else { return };
    let (mut store, epoch) = database.leader();
    let mut scheduler = Scheduler::new(Config::default());
    let mut now = 1_000;
    let mut effects = Effects::default();
    let wide = WorkerProfile { slots: 4096, ..profile("b1") };
    scheduler.handle(
        Time(now),
        Input::Connect { session: SessionId(1), profile: Box::new(wide), held: Vec::new() },
        &mut effects,
    );
    let mut next = 0;
    for (size, rounds) in [(1, 300), (16, 300), (128, 60), (683, 20)] {
        let (ticks, mut commits) = (server_ticks(&database), Vec::new());
        let mut records = 0;
        for _ in 0..rounds {
            for batch in life(&mut scheduler, next..next + size, &mut now) {
                if batch.is_empty() {
                    continue;
                }
                records += batch.len();
                let started = Instant::now();
                store.commit(epoch, &batch).unwrap();
                commits.push(started.elapsed());
            }
            next += size;
        }
        let (jobs, wall) = (u64::from(size) * rounds, commits.iter().sum::<std::time::Duration>());
        commits.sort_unstable();
        println!(
            "{size} jobs at once: {records} records, {:.0} jobs/s, commit p50 {:?} p99 {:?}, server {} us/job",
            jobs as f64 / wall.as_secs_f64(),
            commits[commits.len() / 2],
            commits[commits.len() * 99 / 100],
            (server_ticks(&database) - ticks) * 10_000 / jobs,
        );
    }
}
