//! On PostgreSQL: what a job costs there, and how soon a standby goes on where the leader was killed.

use std::time::{Duration, Instant};

use guestkit_processes::Fleet;
use guestkit_processes::postgres::Server;
use guestkit_protocol::v1::jobs_client::JobsClient;
use guestkit_protocol::v1::session_response::Message as Heard;

use crate::report::{Aim, quantity, table};
use crate::session::Line;
use crate::sustained::{self, Load};
use crate::usage::{micros_each, tree_cpu_seconds};
use crate::{Bench, Failure, client};

/// Sustained load, as on SQLite.
pub(crate) async fn measure(bench: &mut Bench) -> Result<(), Failure> {
    let jobs = if bench.quick { 10_000 } else { 100_000 };
    let (server, url) = database(bench)?;
    let pid = u32::try_from(server.pid()?.as_raw_nonzero().get())?;
    let fleet = Fleet::start(&bench.binaries, &["--store", &url])?;
    let before = tree_cpu_seconds(pid)?;
    let cost = sustained::run_on(fleet, &Load::streamed(jobs)).await?;
    let database_micros = micros_each(tree_cpu_seconds(pid)? - before, jobs);
    let report = &mut bench.report;
    report.aim("sustained jobs/s, PostgreSQL", cost.rate, "/s", Aim::at_least(5_000.0));
    report.aim("coordinator CPU per job, PostgreSQL", cost.server_micros, "µs", Aim::at_most(60.0));
    table(
        "Sustained, PostgreSQL, worker that answers at once, one stream of submissions",
        &[
            "under way",
            "jobs/s",
            "coordinator CPU per job",
            "PostgreSQL CPU per job",
            "client and worker CPU per job",
            "p50 / p99",
        ],
        &[[
            sustained::UNDER_WAY.to_string(),
            quantity(cost.rate, ""),
            format!("{:.0} µs", cost.server_micros),
            format!("{database_micros:.0} µs"),
            format!("{:.0} µs", cost.others_micros),
            format!("{:.1} / {:.1} ms", cost.p50, cost.p99),
        ]],
    );
    Ok(())
}

/// Seconds from the leader's death to the next lease, the slowest of a few.
pub(crate) async fn failover(bench: &mut Bench) -> Result<(), Failure> {
    let runs = if bench.quick { 1 } else { 5 };
    let mut slowest: f64 = 0.0;
    for _ in 0..runs {
        slowest = slowest.max(one_failover(bench).await?);
    }
    bench.report.aim("leader killed, until the next lease", slowest, "s", Aim::at_most(5.0));
    table(
        "Failover on PostgreSQL",
        &["what happened", "next lease after"],
        &[[format!("SIGKILL of the leader, one standby (slowest of {runs})"), quantity(slowest, "s")]],
    );
    Ok(())
}

async fn one_failover(bench: &Bench) -> Result<f64, Failure> {
    let (_server, url) = database(bench)?;
    let mut leader = Fleet::start(&bench.binaries, &["--store", &url])?;
    // Who leads takes jobs; whoever starts after that stands by.
    let mut jobs = JobsClient::new(client::connect(leader.url()).await?);
    let submitted = async {
        while jobs.submit(client::echo("failover-0001".into())).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), submitted).await?;
    let standby = Fleet::start(&bench.binaries, &["--store", &url])?;
    leader.coordinator().kill();
    let killed = Instant::now();
    let leased = async {
        loop {
            // As a worker does that tries again and again.
            let tried = tokio::time::timeout(Duration::from_secs(1), lease_from(standby.url())).await;
            if let Ok(Ok(true)) = tried {
                return killed.elapsed().as_secs_f64();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    Ok(tokio::time::timeout(Duration::from_secs(60), leased).await?)
}

/// Opens a session; whether it is given a lease.
async fn lease_from(url: String) -> Result<bool, Failure> {
    let mut line = Line::open(client::connect(url).await?, "failover", "boot-0001", 1).await?;
    while let Some(heard) = line.hear().await {
        if matches!(heard, Heard::Lease(_)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn database(bench: &Bench) -> Result<(Server, String), Failure> {
    let help = bench.binaries.command("guestkit-coordinator").args(["serve", "--help"]).output()?;
    if !String::from_utf8_lossy(&help.stdout).contains("--store") {
        return Err("this coordinator has no --store".into());
    }
    let server = Server::start()?.ok_or("PostgreSQL is not installed")?;
    let url = server.create_database()?.url;
    Ok((server, url))
}
