//! The world: submitters, three workers, a coordinator, the streams between them, and whatever can go wrong, drawn from a
//! seed. Time is not one: the coordinator and each worker have clocks of their own, which jump.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guestkit_domain::{
    Backoff, Duration, IdempotencyPolicy, JobId, JobSpec, JobState, Namespace, Placement, Priority, SessionId, Time,
    WorkerId,
};
use guestkit_scheduler::{Config, DrainTarget, Input, RequestId};

use crate::coordinator::{CALM_MAX, Coordinator, Planted, Round};
use crate::link::{End, Stream, cut_short};
use crate::oracle::{Broken, Oracle, Rule, broken};
use crate::random::Random;
use crate::worker::Worker;

const WORKERS: usize = 3;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) planted: Planted,
    /// Whether streams do what no stream does.
    pub(crate) wild: bool,
    /// Nothing goes wrong any more.
    pub(crate) calm: bool,
    pub(crate) config: Config,
    /// The clock of the coordinator's machine, in milliseconds; goes on while the coordinator is down.
    pub(crate) wall: u64,
    pub(crate) coordinator: Option<Coordinator>,
    pub(crate) rounds: u64,
    pub(crate) unrecorded: u64,
    pub(crate) oracle: Oracle,
    pub(crate) workers: Vec<Worker>,
    pub(crate) streams: BTreeMap<u64, Stream>,
    pub(crate) last_stream: u64,
    pub(crate) sessions: BTreeMap<SessionId, u64>,
    pub(crate) last_session: u64,
    /// Leases of which an attempt was started, anywhere.
    pub(crate) started: BTreeSet<u64>,
    requests: u64,
    submitted: Vec<JobSpec>,
    pub(crate) acknowledged: BTreeSet<JobId>,
    pub(crate) deletes: BTreeMap<RequestId, JobId>,
}

impl World {
    pub(crate) fn new(seed: u64, planted: Planted) -> Result<Self, Broken> {
        let mut random = Random(seed);
        let config = Config {
            queue_max: 40,
            pause: Duration::from_millis(500),
            concurrency_limits: [("two".into(), 2)].into(),
            weights: [(Namespace::new("b").unwrap(), 3)].into(),
            progress_burst: 2,
            // Some seeds forget jobs that are over, and must ask the store.
            ended_jobs_max: if random.percent(40) { random.below(4) as usize } else { 100_000 },
            ..Config::default()
        };
        let wild = random.percent(40);
        let mut world = Self {
            random,
            planted,
            wild,
            calm: false,
            config,
            wall: 1_000_000,
            coordinator: None,
            rounds: 0,
            unrecorded: 0,
            oracle: Oracle::default(),
            workers: (0..WORKERS).map(Worker::new).collect(),
            streams: BTreeMap::new(),
            last_stream: 0,
            sessions: BTreeMap::new(),
            last_session: 0,
            started: BTreeSet::new(),
            requests: 0,
            submitted: Vec::new(),
            acknowledged: BTreeSet::new(),
            deletes: BTreeMap::new(),
        };
        world.start_coordinator()?;
        for number in 0..WORKERS {
            world.start_worker(number)?;
            world.connect(number)?;
        }
        Ok(world)
    }

    pub(crate) fn step(&mut self) -> Result<(), Broken> {
        let number = self.random.below(WORKERS as u64) as usize;
        match self.random.below(200) {
            0..15 => self.submit(),
            15..19 => {
                let Some(job_id) = self.some_job() else { return Ok(()) };
                let request = self.request();
                self.handle(Input::Cancel { request, job_id, reason: "simulated".into() })
            }
            19..21 => {
                let Some(job_id) = self.some_job() else { return Ok(()) };
                let request = self.request();
                self.handle(Input::Retry { request, job_id })
            }
            21..22 => {
                let Some(job_id) = self.some_job() else { return Ok(()) };
                let request = self.request();
                if self.coordinator.is_some() {
                    self.deletes.insert(request, job_id.clone());
                }
                self.handle(Input::Delete { request, job_id })
            }
            22..23 => {
                let Some(job_id) = self.some_job() else { return Ok(()) };
                let request = self.request();
                self.handle(Input::Expire { request, jobs: vec![job_id], before: Time(u64::MAX) })
            }
            23..70 => {
                let id = self.some_stream(Stream::stirs_coordinator).filter(|_| self.coordinator.is_some());
                id.map_or(Ok(()), |id| self.coordinator_hears(id))
            }
            70..112 => self.some_stream(Stream::stirs_worker).map_or(Ok(()), |id| self.worker_hears(id)),
            112..128 => self.some_attempt(number).map_or(Ok(()), |lease| self.attempt_goes_on(number, lease)),
            128..136 => {
                let percent = self.random.below(100) as f64;
                self.some_attempt(number).map_or(Ok(()), |lease| self.tell_progress(number, lease, percent))
            }
            136..144 => self.connect(number),
            144..147 => self.break_link(),
            147..148 => {
                self.crash_worker(number);
                Ok(())
            }
            148..152 => self.start_worker(number),
            152..155 => self.close_session(),
            155..156 => {
                self.unlink(number);
                Ok(())
            }
            156..158 => self.unstick(),
            158..169 => {
                let milliseconds = self.random.below(2_000);
                self.pass_time(milliseconds)
            }
            169..170 => {
                let milliseconds = self.random.below(120_000);
                self.pass_time(milliseconds)
            }
            170..171 => self.jump(number),
            171..193 => self.round(Round::Released),
            193..194 => {
                let end = match self.random.below(6) {
                    0..2 => Round::Failed,
                    2..4 => Round::DiedBefore,
                    _ => Round::DiedAfter,
                };
                self.round(end)?;
                if self.random.percent(60) { self.start_coordinator() } else { Ok(()) }
            }
            194..196 => {
                if self.coordinator.is_none() && self.random.percent(20) {
                    // The machine's clock was set, forth or back.
                    self.wall = (self.wall + self.random.below(200_000)).saturating_sub(100_000);
                }
                self.start_coordinator()
            }
            196..197 => {
                let (request, target) = (self.request(), self.target(number));
                let deadline = self.random.percent(50).then(|| Duration::from_secs(self.random.below(60)));
                self.handle(Input::Drain { request, target, deadline })
            }
            197..199 => {
                let (request, target) = (self.request(), self.target(number));
                self.handle(Input::Resume { request, target })
            }
            _ => {
                let patience = Duration::from_secs(self.random.below(60));
                if self.random.percent(30) { self.ask_to_leave(number, patience) } else { Ok(()) }
            }
        }?;
        self.streams.retain(|_, stream| stream.worker_open || stream.coordinator != End::Closed);
        Ok(())
    }

    fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    fn some_job(&mut self) -> Option<JobId> {
        self.some_spec().map(|spec| spec.job_id.clone())
    }

    /// One that was submitted; rather lately than long ago.
    fn some_spec(&mut self) -> Option<JobSpec> {
        let lately = if self.random.percent(60) { self.submitted.len().saturating_sub(8) } else { 0 };
        let among = self.submitted.get(lately..).unwrap_or_default();
        self.random.pick(among).cloned()
    }

    fn some_stream(&mut self, stirs: impl Fn(&Stream) -> bool) -> Option<u64> {
        let streams: Vec<u64> = self.streams.iter().filter(|(_, stream)| stirs(stream)).map(|(id, _)| *id).collect();
        self.random.pick(&streams).copied()
    }

    fn some_attempt(&mut self, number: usize) -> Option<u64> {
        let leases: Vec<u64> = self.workers[number].process.as_ref()?.attempts.keys().copied().collect();
        self.random.pick(&leases).copied()
    }

    fn target(&mut self, number: usize) -> DrainTarget {
        let worker = &self.workers[number];
        if self.random.percent(50) {
            DrainTarget::Worker(worker.id.clone())
        } else {
            DrainTarget::Labels([("rack".into(), worker.rack.as_str().into())].into())
        }
    }

    /// A connection breaks: both ends notice now, or one; or nothing moves any more, and none does.
    fn break_link(&mut self) -> Result<(), Broken> {
        let Some(id) = self.some_stream(|stream| !stream.stuck) else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let number = stream.worker;
        if self.random.percent(40) {
            self.oracle.saw("link stuck");
            stream.stuck = true;
            return Ok(());
        }
        self.oracle.saw("link broken");
        cut_short(&mut stream.to_coordinator, &mut self.random);
        cut_short(&mut stream.to_worker, &mut self.random);
        let uses_it = self.workers[number].process.as_ref().is_some_and(|process| process.stream == Some(id));
        let (worker, coordinator) = match self.random.below(10) {
            0..3 => (true, false),
            3..6 => (false, true),
            _ => (true, true),
        };
        if worker && uses_it {
            self.notice_break(number)?;
        }
        if coordinator { self.notice_break_of(id) } else { Ok(()) }
    }

    /// A partition heals, and what was said arrives late; or keepalive finds the connection dead.
    fn unstick(&mut self) -> Result<(), Broken> {
        let Some(id) = self.some_stream(|stream| stream.stuck) else { return Ok(()) };
        if self.random.percent(60) {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.stuck = false;
            }
            return Ok(());
        }
        self.notice_break_of(id)
    }

    /// Time passes for everybody.
    fn pass_time(&mut self, milliseconds: u64) -> Result<(), Broken> {
        for number in 0..WORKERS {
            // Their clocks do not quite agree on what a second is.
            let passed = milliseconds + milliseconds * number as u64 / 100;
            self.pass_worker_time(number, Duration::from_millis(passed))?;
        }
        self.pass_coordinator_time(milliseconds)
    }

    fn pass_coordinator_time(&mut self, milliseconds: u64) -> Result<(), Broken> {
        self.wall += milliseconds;
        let Some(coordinator) = &mut self.coordinator else { return Ok(()) };
        coordinator.now = Time(self.wall);
        // The timer fires at once, unless the driver is busy with a round.
        let due = coordinator.due();
        if due && (self.calm || self.random.percent(80)) { self.round(Round::Released) } else { Ok(()) }
    }

    /// One side's clock jumps: its machine slept, or was starved.
    fn jump(&mut self, number: usize) -> Result<(), Broken> {
        let milliseconds = self.random.below(240_000);
        if self.random.percent(50) {
            self.oracle.saw("worker's clock jumped");
            self.pass_worker_time(number, Duration::from_millis(milliseconds))
        } else {
            self.oracle.saw("coordinator's clock jumped");
            self.pass_coordinator_time(milliseconds)
        }
    }

    fn spec(&mut self) -> JobSpec {
        let number = self.submitted.len();
        let now = Time(self.wall);
        let random = &mut self.random;
        let mut placement = Placement { operation: "system.echo".into(), ..Placement::default() };
        match random.below(8) {
            0 => placement.worker = Some(WorkerId::new(&format!("w{}", random.below(3))).unwrap()),
            1 => placement.anti_affinity = [("rack".into(), ["r0".into()].into())].into(),
            2 => placement.pools = ["default".into(), "other".into()].into(),
            3 => {
                let folders = ["/vms/a", "/r0/a", "/r1/a", "/r2/a/b", "/nowhere/a", "/r0/../nowhere"];
                placement.image_folder = folders.get(number % folders.len()).map(|folder| (*folder).into());
            }
            4 if number.is_multiple_of(3) => {
                placement.worker = Some(WorkerId::new("w0").unwrap());
                placement.image_folder = Some(if number.is_multiple_of(2) { "/r0/a" } else { "/r1/a" }.into());
            }
            _ => {}
        }
        // In some an attempt's time would end only after everything else has.
        let timeout = if random.percent(50) { 20 + random.below(600) } else { 86_400 };
        JobSpec {
            job_id: JobId::new(&format!("job-{number:06}")).unwrap(),
            namespace: Namespace::new(random.pick(&["a", "b", "c"]).unwrap()).unwrap(),
            idempotency_key: random.percent(20).then(|| format!("key-{}", random.below(20)).into()),
            idempotency_policy: *random
                .pick(&[
                    IdempotencyPolicy::SameDocument,
                    IdempotencyPolicy::UseExisting,
                    IdempotencyPolicy::Fail,
                    IdempotencyPolicy::ReplaceQueued,
                ])
                .unwrap(),
            idempotency_ttl: random.percent(30).then(|| Duration::from_secs(random.below(100))),
            fingerprint: [random.below(2) as u8; 32],
            placement: Arc::new(placement),
            affinity: if random.percent(20) { [("rack".into(), "r1".into())].into() } else { BTreeMap::new() },
            priority: Priority::new(1 + random.below(10) as i64).unwrap(),
            max_attempts: 1 + random.below(3) as u32,
            timeout: Duration::from_secs(timeout),
            queue_timeout: random.percent(10).then(|| Duration::from_secs(1 + random.below(200))),
            deadline: random.percent(10).then(|| now.plus(Duration::from_secs(random.below(400)))),
            not_before: random.percent(10).then(|| now.plus(Duration::from_secs(random.below(60)))),
            backoff: Backoff::default(),
            cancellable: !random.percent(10),
            concurrency_key: random.percent(25).then(|| (*random.pick(&["one", "two"]).unwrap()).into()),
            created_at: now,
        }
    }

    fn submit(&mut self) -> Result<(), Broken> {
        let again = if self.random.percent(15) { self.some_spec() } else { None };
        let spec = again.unwrap_or_else(|| {
            let spec = self.spec();
            self.submitted.push(spec.clone());
            spec
        });
        let request = self.request();
        self.handle(Input::Submit { request, spec: Box::new(spec), document: Arc::from(*b"{}") })
    }

    /// Nothing breaks any more: every job must end, and by itself.
    pub(crate) fn heal(&mut self) -> Result<(), Broken> {
        self.calm = true;
        self.start_coordinator()?;
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.stuck = false;
                // What a stream lost on its way shows when it is opened again.
                stream.to_worker.clear();
            }
            self.notice_break_of(id)?;
        }
        let drains: Vec<DrainTarget> = self
            .coordinator
            .as_ref()
            .map(|coordinator| coordinator.scheduler.ledger().drains.keys().cloned().collect())
            .unwrap_or_default();
        for target in drains {
            let request = self.request();
            self.handle(Input::Resume { request, target })?;
        }
        let mut passed = 0;
        // First with the processes that there are.
        while passed < 60_000 && !self.over() {
            passed += self.calm_round()?;
        }
        if !self.over() {
            // Then with new ones, so that workers that declined are asked again.
            for number in 0..WORKERS {
                self.crash_worker(number);
            }
        }
        while !self.over() {
            passed += self.calm_round()?;
            if Duration::from_millis(passed) > CALM_MAX {
                return self.never_ends();
            }
        }
        self.account()
    }

    /// Everything that was said is heard, everything that runs ends; then time passes. Gives how much.
    fn calm_round(&mut self) -> Result<u64, Broken> {
        for number in 0..WORKERS {
            self.start_worker(number)?;
            self.connect(number)?;
        }
        loop {
            let mut stirred = false;
            while let Some(id) = self.some_stream(Stream::stirs_coordinator) {
                self.coordinator_hears(id)?;
                stirred = true;
            }
            self.close_session()?;
            self.round(Round::Released)?;
            while let Some(id) = self.some_stream(Stream::stirs_worker) {
                self.worker_hears(id)?;
                stirred = true;
            }
            for number in 0..WORKERS {
                self.judge_agreement(number)?;
                while let Some(lease) = self.some_attempt(number) {
                    self.attempt_goes_on(number, lease)?;
                    stirred = true;
                }
                self.unlink(number);
            }
            self.streams.retain(|_, stream| stream.worker_open || stream.coordinator != End::Closed);
            if !stirred {
                break;
            }
        }
        let next = self.coordinator.as_ref().and_then(|coordinator| coordinator.scheduler.next_deadline());
        let until_next = next.map_or(2_000, |at| at.0.saturating_sub(self.wall));
        let milliseconds = until_next.clamp(1, 2_000);
        self.pass_time(milliseconds)?;
        Ok(milliseconds)
    }

    fn over(&self) -> bool {
        self.coordinator.as_ref().is_some_and(|coordinator| {
            coordinator.pending.is_empty()
                && coordinator.scheduler.ledger().jobs().all(|entry| entry.row.phase.state().is_terminal())
        })
    }

    fn never_ends(&self) -> Result<(), Broken> {
        let Some(coordinator) = &self.coordinator else { return Ok(()) };
        let jobs = coordinator.scheduler.ledger().jobs();
        let open: Vec<_> = jobs.filter(|entry| !entry.row.phase.state().is_terminal()).collect();
        let explained = open.first().map(|entry| coordinator.scheduler.explain(&entry.spec.job_id));
        let how = format!("{} jobs never end, such as {:?}: {explained:?}", open.len(), open.first());
        broken(Rule::EveryJobEnds, how)
    }

    fn account(&self) -> Result<(), Broken> {
        let Some(coordinator) = &self.coordinator else { return Ok(()) };
        let summary = coordinator.scheduler.summary();
        if summary.queued + summary.pending + summary.assigned + summary.running + summary.cancelling != 0 {
            return broken(Rule::EveryJobEnds, format!("all is over and counted otherwise: {summary:?}"));
        }
        for job in &self.acknowledged {
            if !self.oracle.state(job).is_some_and(JobState::is_terminal) {
                return broken(Rule::EveryJobEnds, format!("{job} was acknowledged and never ended"));
            }
        }
        self.compare(None)
    }
}
