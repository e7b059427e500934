//! One job at a time: from its submission to its outcome, as somebody sees it who waits for it.

use std::time::Instant;

use guestkit_processes::Fleet;
use guestkit_protocol::v1::jobs_client::JobsClient;
use tonic::transport::Channel;

use crate::peers::Cost;
use crate::report::{Aim, Times, table};
use crate::usage::{cpu_seconds, disk_sync, micros_each, own_cpu_seconds, per_second, tree_cpu_seconds};
use crate::{Bench, Failure, client, session};

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Real,
    Bare,
}

pub(crate) async fn measure(bench: &mut Bench) -> Result<(), Failure> {
    let jobs = if bench.quick { 200 } else { 2_000 };
    let mut rows = Vec::new();
    for (kind, name) in
        [(Kind::Real, "real worker, a process per attempt"), (Kind::Bare, "worker that answers at once")]
    {
        let sync = disk_sync(&std::env::temp_dir())?;
        let cost = run(bench, kind, jobs).await?;
        if kind == Kind::Real {
            let report = &mut bench.report;
            report.aim("submit to outcome, one in flight, p50", cost.p50, "ms", Aim::at_most(4.0));
            report.aim("submit to outcome, one in flight, p99", cost.p99, "ms", Aim::at_most(20.0));
        }
        rows.push([
            name.to_owned(),
            format!("{:.1} / {:.1} ms", cost.p50, cost.p99),
            format!("{:.0} µs", cost.server_micros),
            format!("{:.0} µs", cost.others_micros),
            format!("{:.2} / {:.2} ms", sync.percentile(50), sync.percentile(99)),
        ]);
    }
    table(
        &format!("Submit to outcome, one in flight ({jobs} in a row)"),
        &[
            "worker",
            "p50 / p99",
            "coordinator CPU per job",
            "client and worker CPU per job",
            "this disk's fdatasync p50 / p99",
        ],
        &rows,
    );
    Ok(())
}

/// Runs jobs one after another.
pub(crate) async fn run(bench: &Bench, kind: Kind, jobs: usize) -> Result<Cost, Failure> {
    let mut fleet = Fleet::start(&bench.binaries, &[])?;
    let mut client = JobsClient::new(client::connect(fleet.url()).await?);
    let mut _bare = None;
    let mut worker = None;
    if kind == Kind::Real {
        let folder = fleet.folder().to_string_lossy().into_owned();
        fleet.start_worker("bench", &["--image-root", &folder])?;
        worker = fleet.worker("bench").map(|worker| worker.id());
    } else {
        _bare = Some(session::answering(client::connect(fleet.url()).await?, 1, |_| {}).await?);
    }
    one(&mut client, "warm-up-000".into()).await?;

    let coordinator = fleet.coordinator().id();
    let others = || -> Result<f64, Failure> { Ok(own_cpu_seconds()? + worker.map_or(Ok(0.0), tree_cpu_seconds)?) };
    let before = (cpu_seconds(coordinator)?, others()?);
    let began = Instant::now();
    let mut times = Vec::with_capacity(jobs);
    for index in 0..jobs {
        let started = Instant::now();
        one(&mut client, format!("single-{index:06}")).await?;
        times.push(started.elapsed());
    }
    let elapsed = began.elapsed();
    let after = (cpu_seconds(coordinator)?, others()?);
    let times = Times::of(times);
    Ok(Cost {
        rate: per_second(jobs, elapsed),
        server_micros: micros_each(after.0 - before.0, jobs),
        others_micros: micros_each(after.1 - before.1, jobs),
        p50: times.percentile(50),
        p99: times.percentile(99),
    })
}

async fn one(client: &mut JobsClient<Channel>, job_id: String) -> Result<(), Failure> {
    client.submit(client::echo(job_id.clone())).await?;
    client::outcome(client, job_id).await
}
