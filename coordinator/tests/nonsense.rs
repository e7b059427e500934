//! Thousands of random session messages, each a valid message with fields as no worker has them, into the real service. It
//! lives, its counts agree, and every job ends once.

// Helpers of tests are tests: a panic is how they fail. Not every test program uses all of the harness.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

mod harness;

use guestkit_coordinator::config::Config;
use guestkit_protocol::v1;
use guestkit_protocol::v1::session_request::Message as Said;
use guestkit_protocol::v1::session_response::Message as Say;
use harness::{Coordinator, completed, config, echo, hello, open, within};
use sha2::{Digest as _, Sha256};
use tonic::transport::Channel;

const JOBS: u64 = 60;
const TALKERS: u64 = 6;
const MESSAGES: usize = 600;

/// SplitMix64: the same messages each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }

    fn number(&mut self) -> u64 {
        let usual = 1 + self.below(2 * JOBS);
        self.pick(&[usual, usual, usual, usual, 0, u64::MAX, 1 << 63, u64::MAX >> 1])
    }

    fn small(&mut self) -> i32 {
        self.pick(&[0, 1, 2, 3, 4, 5, -1, i32::MIN, i32::MAX, 77])
    }

    fn text(&mut self) -> String {
        let bytes = self.pick(&[0, 1, 10, 100, 10_000, 70_000]);
        let alphabet = ["a", "\0", "\n", "é", "\u{202e}", "{", "%", "\u{10ffff}"];
        self.pick(&alphabet).repeat(bytes)
    }

    fn job_id(&mut self) -> String {
        let known = format!("job-{:05}", self.below(JOBS));
        if self.below(8) == 0 { self.text() } else { known }
    }

    fn error(&mut self) -> Option<v1::JobError> {
        let code =
            self.pick(&["HANDLER_CRASHED", "INTERNAL", "IMAGE_CORRUPT", "", "NOT_A_CODE", "WORKER_LOST", "CANCELLED"]);
        (self.below(4) > 0).then(|| v1::JobError {
            code: code.into(),
            message: self.text(),
            phase: self.text(),
            details: None,
            recoverable: self.below(2) == 0,
            retry_recommended: self.below(2) == 0,
        })
    }

    fn progress(&mut self) -> v1::Progress {
        let percent =
            [0.0, 50.0, 99.5, 100.0, 100.1, -1.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE];
        v1::Progress {
            sequence: self.number(),
            attempt: self.small(),
            timestamp: Some(prost_types::Timestamp { seconds: i64::MIN, nanos: i32::MAX }),
            phase: self.text(),
            progress_percent: self.pick(&percent),
            message: self.text(),
            details: Some(prost_types::Struct { fields: [(self.text(), prost_types::Value { kind: None })].into() }),
        }
    }

    fn outcome(&mut self) -> v1::Outcome {
        let (lease_id, job_id) = (self.number(), self.job_id());
        let sound = completed(&v1::Lease { lease_id, job_id: job_id.clone(), ..v1::Lease::default() });
        match self.below(4) {
            0 => sound,
            1 => v1::Outcome { status: self.small(), error: self.error(), ..sound },
            2 => {
                let result: Vec<u8> = self.text().into_bytes();
                let result_sha256 = Sha256::digest(&result).to_vec();
                v1::Outcome { result, result_sha256, status: self.small(), ..sound }
            }
            _ => v1::Outcome { result_sha256: vec![0; self.below(64) as usize], ..sound },
        }
    }

    fn said(&mut self) -> Option<Said> {
        Some(match self.below(40) {
            0 => return None,
            1 => Said::Hello(hello("w1", "b1")),
            2 => Said::Draining(v1::Draining { reason: self.text() }),
            3..=9 => Said::Accept(v1::Accept { lease_id: self.number() }),
            10..=14 => Said::Refuse(v1::Refuse { lease_id: self.number(), fault: self.small(), error: self.error() }),
            15..=24 => Said::Progress(v1::LeaseProgress { lease_id: self.number(), progress: Some(self.progress()) }),
            25..=30 => Said::Outcome(self.outcome()),
            _ => Said::Heartbeat(v1::Heartbeat { sequence: self.number(), free_disk_bytes: self.number() }),
        })
    }

    fn hello(&mut self) -> v1::Hello {
        let name = format!("talker-{}", self.below(3));
        let mut hello = hello(&name, &format!("boot-{}", self.below(3)));
        let held = |random: &mut Self| v1::HeldLease {
            lease_id: random.number(),
            job_id: random.job_id(),
            state: random.small(),
        };
        hello.held = (0..self.below(4)).map(|_| held(self)).collect();
        let description = hello.description.get_or_insert_default();
        description.slots = self.pick(&[0, 1, 2, 8, 1024, u32::MAX]);
        description.memory_bytes = self.number();
        if self.below(6) == 0 {
            description.version = self.text();
            description.labels = [(self.text(), self.text())].into();
            description.image_roots = vec![self.text()];
        }
        hello
    }
}

/// Talks nonsense until it has said everything, in as many sessions as that takes.
async fn talk(channel: Channel, seed: u64) {
    let mut random = Random(seed);
    let mut left = MESSAGES;
    while left > 0 {
        let (say, mut hear) = open(channel.clone(), Said::Hello(random.hello())).await;
        // What it is told is not looked at.
        let hearing = tokio::spawn(async move { while let Ok(Some(_)) = hear.message().await {} });
        while left > 0 {
            left -= 1;
            if say.send(v1::SessionRequest { message: random.said() }).await.is_err() {
                break;
            }
        }
        drop(say);
        let _ = hearing.await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_of_every_kind_is_survived_and_every_job_ends_once() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Config {
        data: folder.path().into(),
        heartbeat_seconds: 0.5,
        lease_ttl_seconds: 2.0,
        accept_seconds: 0.5,
        ..config()
    };
    let coordinator = Coordinator::start_with(settings).await;
    for index in 0..JOBS {
        let mut document = echo(&format!("job-{index:05}"));
        document.execution.get_or_insert_default().max_attempts = Some(3);
        coordinator.submit(document).await;
    }
    let talkers = (0..TALKERS).map(|seed| talk(coordinator.channel.clone(), seed));
    tokio::time::timeout(4 * harness::PATIENCE, futures::future::join_all(talkers)).await.expect("it takes too long");

    // A worker that makes sense does what is left.
    let mut worker = coordinator.worker(hello("sound", "b1")).await;
    let working = tokio::spawn(async move {
        let mut beat = tokio::time::interval(std::time::Duration::from_millis(200));
        loop {
            let heard = tokio::select! {
                heard = worker.hear() => heard.unwrap(),
                _ = beat.tick() => {
                    worker.say(Said::Heartbeat(v1::Heartbeat::default())).await;
                    continue;
                }
            };
            if let Some(Say::Lease(lease)) = heard {
                worker.accept(&lease).await;
                worker.say(Said::Outcome(completed(&lease))).await;
            }
        }
    });
    let mut ended = std::collections::BTreeMap::<v1::JobState, u64>::new();
    for index in 0..JOBS {
        let job_id = format!("job-{index:05}");
        let events = coordinator.watch(&job_id, 0).await;
        let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (1..=events.len() as u64).collect::<Vec<_>>(), "{job_id}");
        let over = |event: &&v1::JobEvent| event.state() as i32 >= v1::JobState::Completed as i32;
        assert_eq!(events.iter().filter(over).count(), 1, "{job_id}: {events:#?}");
        let mut percent = (0, 0.0);
        for event in &events {
            let told = event.progress.as_ref().map_or(0.0, |progress| progress.progress_percent);
            assert!((0.0..=100.0).contains(&told), "{event:?}");
            if event.progress.is_some() && event.attempt == percent.0 {
                assert!(told >= percent.1, "{job_id} falls to {told}");
            }
            percent = (event.attempt, told.max(if event.attempt == percent.0 { percent.1 } else { 0.0 }));
        }
        *ended.entry(coordinator.get(&job_id).await.state()).or_default() += 1;
    }
    working.abort();
    let summary = within(coordinator.fleet().summary(v1::SummaryRequest {})).await.unwrap().into_inner();
    let count = |state| ended.get(&state).copied().unwrap_or(0);
    assert_eq!(
        (summary.completed, summary.failed, summary.cancelled, summary.timeout),
        (
            count(v1::JobState::Completed),
            count(v1::JobState::Failed),
            count(v1::JobState::Cancelled),
            count(v1::JobState::Timeout)
        )
    );
    assert_eq!((summary.pending, summary.queued, summary.assigned, summary.running), (0, 0, 0, 0));
}
