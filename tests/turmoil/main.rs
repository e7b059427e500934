//! The whole shell over a simulated network: the coordinator as it is served (its services, limits, driver and store) and
//! workers with their real session streams and spools, each on a host of its own, while links are cut, held and slow, and
//! hosts crash and come back. Time is simulated, so a lease runs out in no time.
//!
//! What is not as in production: the driver is a task instead of a thread, an attempt is a task that sleeps instead of a
//! process, and a lost segment is never sent again, so that a connection that lost one stands until its keepalive ends it.
//! A seed draws latencies, the order of hosts and what a story leaves open; the jitter of reconnects and the order of reads
//! are not drawn from it.

// Helpers of tests are tests: a panic is how they fail.
#![allow(clippy::unwrap_used, clippy::panic)]

mod ground;
mod world;

use std::ops::Range;
use std::time::Duration;

use guestkit_protocol::v1;
use tokio::time::sleep;
use world::{COORDINATOR, Hand, STORY, assert_whole, tell};

/// Seeds each story is told over; the long one over fewer.
const SEEDS: Range<u64> = 0..5;
const LONG_SEEDS: Range<u64> = 0..2;

#[test]
fn a_cut_shorter_than_the_lease_costs_nothing() {
    for seed in SEEDS {
        tell(seed, &["w1"], async |hand| {
            hand.submit("job-00001", 90).await;
            hand.running("job-00001").await;
            sleep(hand.seconds(0, 8)).await;
            turmoil::partition("w1", COORDINATOR);
            sleep(hand.seconds(1, 45)).await;
            turmoil::repair("w1", COORDINATOR);
            let job = hand.over("job-00001").await;
            assert_eq!((job.state(), job.attempt, job.lost_attempts), (v1::JobState::Completed, 1, 0));
            assert_eq!(hand.ran("job-00001").len(), 1);
            hand.log_of("job-00001").await;
            hand.until_so(|| hand.kept("w1") == 0).await;
        });
    }
}

#[test]
fn a_cut_longer_than_the_lease_moves_the_job_and_the_late_outcome_counts_for_nothing() {
    for seed in SEEDS {
        tell(seed, &["w1", "w2"], async |hand| {
            // The other worker must not be the first.
            turmoil::partition("w2", COORDINATOR);
            hand.submit("job-00001", 30).await;
            hand.running("job-00001").await;
            turmoil::partition("w1", COORDINATOR);
            turmoil::repair("w2", COORDINATOR);
            let job = hand.until("job-00001", |job| job.worker_id == "w2").await;
            assert_eq!((job.attempt, job.lost_attempts), (2, 1));
            // It has ended its attempt, and could tell nobody.
            assert_eq!(hand.kept("w1"), 1);
            sleep(hand.seconds(0, 25)).await;
            turmoil::repair("w1", COORDINATOR);
            // Its Hello names a lease that is void: it is told to drop the outcome, and does.
            hand.until_so(|| hand.kept("w1") == 0).await;
            let job = hand.over("job-00001").await;
            assert_eq!((job.state(), job.attempt, job.worker_id.as_str()), (v1::JobState::Completed, 2, "w2"));
            let finished: Vec<i32> = hand.ran("job-00001").iter().map(|ran| ran.attempt).collect();
            assert_eq!(finished, [1, 2]);
            hand.log_of("job-00001").await;
            hand.until_so(|| hand.kept("w2") == 0).await;
        });
    }
}

#[test]
fn an_acknowledgement_lost_on_the_way_is_given_again() {
    for seed in SEEDS {
        tell(seed, &["w1"], async |hand| {
            hand.submit("job-00001", 5).await;
            hand.running("job-00001").await;
            turmoil::partition_oneway(COORDINATOR, "w1");
            let job = hand.over("job-00001").await;
            assert_eq!((job.state(), job.attempt), (v1::JobState::Completed, 1));
            sleep(hand.seconds(0, 30)).await;
            assert_eq!(hand.kept("w1"), 1, "nothing has told the worker that its outcome arrived");
            turmoil::repair_oneway(COORDINATOR, "w1");
            hand.until_so(|| hand.kept("w1") == 0).await;
            assert_eq!(hand.logged("an outcome came too late"), 0);
            assert_eq!(hand.job("job-00001").await.sequence, job.sequence);
            hand.log_of("job-00001").await;
        });
    }
}

#[test]
fn a_watcher_sees_each_entry_once_whatever_happens_to_its_stream() {
    for seed in SEEDS {
        tell(seed, &["w1"], async |hand| {
            hand.submit("job-00001", 120).await;
            let watching = tokio::task::spawn_local({
                let hand = hand.clone();
                async move { hand.follow("job-00001").await }
            });
            while !watching.is_finished() {
                sleep(hand.seconds(1, 10)).await;
                match hand.below(4) {
                    0 => {
                        turmoil::hold(STORY, COORDINATOR);
                        sleep(hand.seconds(1, 15)).await;
                        turmoil::release(STORY, COORDINATOR);
                    }
                    1 => {
                        turmoil::partition_oneway(COORDINATOR, STORY);
                        sleep(hand.seconds(1, 30)).await;
                        turmoil::repair_oneway(COORDINATOR, STORY);
                    }
                    2 => {
                        turmoil::partition(STORY, COORDINATOR);
                        sleep(hand.seconds(1, 30)).await;
                        turmoil::repair(STORY, COORDINATOR);
                    }
                    _ => {
                        hand.crash(COORDINATOR);
                        sleep(hand.seconds(1, 5)).await;
                        hand.bounce(COORDINATOR);
                    }
                }
            }
            let seen = watching.await.unwrap();
            assert_whole(&seen);
            assert_eq!(seen, hand.log_of("job-00001").await, "what was seen live is what is remembered");
            assert_eq!(hand.job("job-00001").await.attempt, 1);
        });
    }
}

#[test]
fn a_coordinator_that_crashes_loses_nothing_it_acknowledged() {
    for seed in SEEDS {
        tell(seed, &["w1", "w2"], async |hand| {
            let jobs: Vec<String> = (0..12).map(|number| format!("job-{number:05}")).collect();
            let submitting = tokio::task::spawn_local({
                let (hand, jobs) = (hand.clone(), jobs.clone());
                async move {
                    for job in jobs {
                        hand.submit(&job, 5 + hand.below(20)).await;
                    }
                }
            });
            for _ in 0..3 {
                sleep(Duration::from_millis(hand.below(8_000))).await;
                hand.crash(COORDINATOR);
                sleep(hand.seconds(0, 20)).await;
                hand.bounce(COORDINATOR);
            }
            submitting.await.unwrap();
            for job_id in &jobs {
                let job = hand.over(job_id).await;
                // A worker that comes back with what it runs goes on; what it was only offered may be offered again.
                assert_eq!((job.state(), job.lost_attempts), (v1::JobState::Completed, 0), "{job:?}");
                assert_eq!(hand.ran(job_id).len(), 1, "{job_id} ran once");
                hand.log_of(job_id).await;
            }
            hand.until_so(|| hand.kept("w1") + hand.kept("w2") == 0).await;
        });
    }
}

#[test]
fn every_job_ends_once_whatever_the_network_does() {
    const WORKERS: [&str; 3] = ["w1", "w2", "w3"];
    const JOBS: u64 = 50;
    for seed in LONG_SEEDS {
        tell(seed, &WORKERS, async |hand| {
            for number in 0..JOBS {
                hand.submit(&format!("job-{number:05}"), 1 + hand.below(15)).await;
            }
            for _ in 0..20 {
                disturb(&hand, WORKERS[hand.below(3) as usize]).await;
                sleep(hand.seconds(0, 6)).await;
            }
            for number in 0..JOBS {
                let job_id = format!("job-{number:05}");
                let job = hand.over(&job_id).await;
                let log = hand.log_of(&job_id).await;
                let lost_for_good = job.error.as_ref().is_some_and(|error| error.code == "WORKER_LOST");
                assert!(job.state() == v1::JobState::Completed || lost_for_good && job.lost_attempts == 3, "{log:?}");
            }
            hand.until_so(|| WORKERS.iter().all(|worker| hand.kept(worker) == 0)).await;
        });
    }
}

/// Something that happens to a worker, or to everybody.
async fn disturb(hand: &Hand, worker: &'static str) {
    match hand.below(6) {
        0 => {
            turmoil::hold(worker, COORDINATOR);
            sleep(hand.seconds(0, 20)).await;
            turmoil::release(worker, COORDINATOR);
        }
        1 => {
            turmoil::partition(worker, COORDINATOR);
            sleep(hand.seconds(0, 80)).await;
            turmoil::repair(worker, COORDINATOR);
        }
        2 => {
            turmoil::partition_oneway(COORDINATOR, worker);
            sleep(hand.seconds(0, 40)).await;
            turmoil::repair_oneway(COORDINATOR, worker);
        }
        3 => {
            turmoil::partition_oneway(worker, COORDINATOR);
            sleep(hand.seconds(0, 40)).await;
            turmoil::repair_oneway(worker, COORDINATOR);
        }
        4 => {
            hand.crash(worker);
            sleep(hand.seconds(0, 10)).await;
            hand.bounce(worker);
        }
        _ => {
            hand.crash(COORDINATOR);
            sleep(hand.seconds(0, 10)).await;
            hand.bounce(COORDINATOR);
        }
    }
}
