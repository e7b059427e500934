//! What an operator decides. One value, passed down.

use std::collections::BTreeMap;
use std::sync::Arc;

use guestkit_domain::{Duration, Namespace};

/// What an operator decides; [`Config::default`] is what the design says.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// How often workers send a heartbeat while they are few.
    pub heartbeat_interval: Duration,
    /// Heartbeats of all workers per second: beyond it they are asked to send them less often, as long as three missed ones
    /// are noticed within `lease_ttl`.
    pub heartbeats_per_second: u32,
    /// Heartbeats missed before a worker is given no new work.
    pub heartbeats_missed_max: u32,
    /// How long a lease stands without a word from its worker.
    pub lease_ttl: Duration,
    /// How soon an offer must be answered.
    pub accept_timeout: Duration,
    /// How long after its start workers may claim the leases of the coordinator before it; longer than `lease_ttl`.
    pub restart_grace: Duration,
    /// How long a job waits whose image lies beneath no image root of any worker known, while somebody is connected that could
    /// run it otherwise; then it fails with `IMAGE_ACCESS_DENIED`. Never before the restart grace is over.
    pub image_root_patience: Duration,
    /// How long after an attempt's time its lease is void: the worker reports a timeout by itself before that.
    pub timeout_grace: Duration,
    /// How long a cancel may go unconfirmed before the lease is void.
    pub cancel_timeout: Duration,
    /// Attempts that may be lost with their workers before the job has failed.
    pub lost_attempts_max: u32,
    /// Jobs that are not over, at most.
    pub queue_max: usize,
    /// What a refused submitter is told to wait.
    pub retry_after: Duration,
    /// How long a worker that was busy, or did not answer an offer, is given no other.
    pub pause: Duration,
    /// How long workers that declined a job by their own fault are not asked again, at first; each time it is doubled.
    pub declined_pause: Duration,
    /// At most so long.
    pub declined_pause_max: Duration,
    /// A namespace's jobs of one priority gain one level for each time this long in which none of them was started on the
    /// workers they wait for.
    pub ageing_step: Duration,
    /// Shares of namespaces; 1 where absent.
    pub weights: BTreeMap<Namespace, u32>,
    /// Jobs of one concurrency key at a time.
    pub concurrency_limits: BTreeMap<Arc<str>, u32>,
    /// The same for keys that are not named: 1, so that an unknown key is obeyed as a mutual exclusion and never ignored.
    pub concurrency_limit_default: u32,
    /// Progress entries one attempt may write at once; after that they are merged, the latest winning.
    pub progress_burst: u32,
    /// Progress entries one attempt may write per second in the long run.
    pub progress_per_second: u32,
    /// Jobs that are over and kept in memory, newest first; older ones are asked of the store.
    pub ended_jobs_max: usize,
    /// Workers known at once, lost ones included.
    pub workers_max: usize,
    /// Drains in force at once.
    pub drains_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(5),
            // Some hundredths of a core; 2,500 workers at five seconds.
            heartbeats_per_second: 500,
            heartbeats_missed_max: 3,
            lease_ttl: Duration::from_secs(60),
            accept_timeout: Duration::from_secs(5),
            restart_grace: Duration::from_secs(90),
            // Workers that start together connect within it.
            image_root_patience: Duration::from_secs(5),
            timeout_grace: Duration::from_secs(30),
            cancel_timeout: Duration::from_secs(30),
            lost_attempts_max: 3,
            // A few hundred bytes each: a few hundred megabytes when full.
            queue_max: 1_000_000,
            retry_after: Duration::from_secs(5),
            pause: Duration::from_secs(1),
            // A mount that is made again, a process that is restarted.
            declined_pause: Duration::from_secs(10),
            declined_pause_max: Duration::from_secs(600),
            ageing_step: Duration::from_secs(600),
            weights: BTreeMap::new(),
            concurrency_limits: BTreeMap::new(),
            concurrency_limit_default: 1,
            // Enough for every phase and module of an inspection at once.
            progress_burst: 64,
            progress_per_second: 10,
            // Covers retries of submissions and outcomes within minutes without asking the store; some 50 MB.
            ended_jobs_max: 100_000,
            // Twenty times the largest fleet it was measured with.
            workers_max: 20_000,
            drains_max: 1_000,
        }
    }
}
