//! The scheduler alone, in this process: what a job costs as the queue grows. No disk, no wire.

use std::sync::Arc;

use guestkit_domain::{Duration, JobId, JobSpec, Namespace, OutcomeStatus, Placement, SessionId, Time, WorkerProfile};
use guestkit_scheduler::{Body, Config, Effects, Input, RequestId, Scheduler, ToWorker};

use crate::report::{Aim, quantity, table};
use crate::usage::{micros_each, own_cpu_seconds, resident_mb};
use crate::{Bench, Failure};

/// Jobs that go through at each depth.
const THROUGH: usize = 50_000;
/// As a driver that gathers would.
const BATCH: usize = 64;

pub(crate) fn measure(bench: &mut Bench) -> Result<(), Failure> {
    let depths: &[usize] = if bench.quick { &[1_000, 10_000, 100_000] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    let mut rows = Vec::new();
    let mut costs = Vec::new();
    for &depth in depths {
        let before = resident_mb(std::process::id())?;
        let (micros, full) = at_depth(depth)?;
        costs.push(micros);
        #[allow(clippy::cast_precision_loss)]
        let depth = depth as f64;
        rows.push([
            quantity(depth, ""),
            format!("{micros:.2} µs"),
            format!("{:.0} bytes", (full - before) * 1e6 / depth),
        ]);
    }
    table(
        "The scheduler alone: submit, lease, accept, outcome of one job",
        &["waiting", "CPU per job", "memory per waiting job"],
        &rows,
    );
    if let (Some(first), Some(last)) = (costs.first(), costs.last()) {
        let growth = last / first;
        bench.report.aim("scheduling cost, deepest queue against 1,000 waiting", growth, "times", Aim::at_most(1.5));
    }
    Ok(())
}

struct Machine {
    scheduler: Scheduler,
    next: usize,
    namespaces: Vec<Namespace>,
    document: Body,
}

impl Machine {
    fn submit(&mut self, fx: &mut Effects) -> Result<(), Failure> {
        let spec = JobSpec {
            job_id: JobId::new(&format!("curve-{:08}", self.next))?,
            namespace: self.namespaces.get(self.next % self.namespaces.len()).ok_or("no namespace")?.clone(),
            idempotency_key: None,
            idempotency_policy: Default::default(),
            idempotency_ttl: None,
            fingerprint: [7; 32],
            placement: Arc::new(Placement { operation: "system.echo".into(), ..Placement::default() }),
            affinity: Default::default(),
            priority: Default::default(),
            max_attempts: 3,
            timeout: Duration::from_secs(3600),
            queue_timeout: None,
            deadline: None,
            not_before: None,
            backoff: Default::default(),
            cancellable: true,
            concurrency_key: None,
            created_at: Time(1_000),
        };
        self.next += 1;
        let request = RequestId(self.next as u64);
        let document = Arc::clone(&self.document);
        self.scheduler.handle(Time(1_000), Input::Submit { request, spec: Box::new(spec), document }, fx);
        Ok(())
    }
}

/// Microseconds of CPU per job that goes through a queue which stays `depth` deep, and this process's memory when it was full.
fn at_depth(depth: usize) -> Result<(f64, f64), Failure> {
    let mut machine = Machine {
        scheduler: Scheduler::new(Config { queue_max: 2_000_000, ..Config::default() }),
        next: 0,
        namespaces: (0..10).map(|index| Namespace::new(&format!("space-{index}"))).collect::<Result<_, _>>()?,
        document: Arc::from([7; 200]),
    };
    while machine.next < depth {
        let mut fx = Effects::default();
        for _ in 0..1_000 {
            machine.submit(&mut fx)?;
        }
    }
    let session = SessionId(1);
    let mut fx = Effects::default();
    let connect = Input::Connect { session, profile: Box::new(worker()?), held: Vec::new() };
    machine.scheduler.handle(Time(1_000), connect, &mut fx);
    let result: Body = Arc::from([7; 100]);
    let mut through = 0;
    let memory = resident_mb(std::process::id())?;
    let before = own_cpu_seconds()?;
    while through < THROUGH {
        let durable = fx.revision().unwrap_or_default();
        let released = std::mem::take(&mut fx).release(durable.max(machine.scheduler.ledger().revision))?;
        for (_, message) in released.sends {
            let ToWorker::Lease { lease, job_id, .. } = message else { continue };
            machine.scheduler.handle(Time(1_000), Input::Accept { session, lease }, &mut fx);
            let (status, result) = (OutcomeStatus::Completed, Arc::clone(&result));
            let outcome = Input::Outcome { session, lease, job_id, status, failure: None, result };
            machine.scheduler.handle(Time(1_000), outcome, &mut fx);
            machine.submit(&mut fx)?;
            through += 1;
        }
        if fx.is_empty() {
            return Err("nothing more is leased".into());
        }
    }
    Ok((micros_each(own_cpu_seconds()? - before, through), memory))
}

fn worker() -> Result<WorkerProfile, Failure> {
    Ok(WorkerProfile {
        stream: 1,
        worker_id: guestkit_domain::WorkerId::new("worker-1")?,
        boot_id: guestkit_domain::BootId::new("boot-0001")?,
        capabilities: ["system.echo".into()].into(),
        features: Default::default(),
        version: "1.0.0".parse()?,
        pool: "default".into(),
        labels: Default::default(),
        slots: u32::try_from(BATCH)?,
        privileged: false,
        image_roots: Vec::new(),
    })
}
