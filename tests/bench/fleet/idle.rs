//! A large fleet with nothing to do: what connected sessions and their heartbeats cost.

use std::time::{Duration, Instant};

use guestkit_processes::Fleet;
use guestkit_protocol::v1;
use tokio::task::JoinSet;
use v1::session_response::Message as Heard;

use crate::report::{Aim, complain, table};
use crate::session::Line;
use crate::usage::{cpu_seconds, resident_mb};
use crate::{Bench, Failure, client};

/// Connections being made at once.
const CONNECTING: usize = 64;

pub(crate) async fn measure(bench: &mut Bench) -> Result<(), Failure> {
    let sessions = if bench.quick { 500 } else { 5_000 };
    let watched = Duration::from_secs(if bench.quick { 10 } else { 30 });
    more_files()?;
    let mut fleet = Fleet::start(&bench.binaries, &[])?;
    let coordinator = fleet.coordinator().id();
    let empty = resident_mb(coordinator)?;
    let started = Instant::now();
    let connecting = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTING));
    let (mut opening, mut beating) = (JoinSet::new(), JoinSet::new());
    for index in 0..sessions {
        let (url, connecting) = (fleet.url(), connecting.clone());
        opening.spawn(async move {
            let _turn = connecting.acquire().await?;
            // A connection each, as machines have it.
            let mut line = Line::open(client::connect(url).await?, &format!("idle-{index:05}"), "boot-0001", 4).await?;
            let Some(Heard::Welcome(welcome)) = line.hear().await else { return Err("no welcome".into()) };
            Ok::<_, Failure>((line, welcome))
        });
    }
    let mut interval = Duration::ZERO;
    while let Some(opened) = opening.join_next().await {
        let (line, welcome) = opened??;
        interval = welcome.heartbeat_interval.and_then(|interval| interval.try_into().ok()).unwrap_or_default();
        beating.spawn(beat(line, interval));
    }
    let connected = started.elapsed().as_secs_f64();
    complain(format!("{sessions} sessions connected in {connected:.1} s"));
    // Everybody has been heard once: the connecting is over.
    tokio::time::sleep(interval).await;

    let before = cpu_seconds(coordinator)?;
    tokio::time::sleep(watched).await;
    let used = (cpu_seconds(coordinator)? - before) / watched.as_secs_f64() * 100.0;
    let memory = resident_mb(coordinator)?;
    if let Some(ended) = beating.try_join_next() {
        return Err(format!("a session ended: {ended:?}").into());
    }
    bench.report.aim(&format!("coordinator RSS with {sessions} idle sessions"), memory, "MB", Aim::at_most(500.0));
    bench.report.aim(&format!("{sessions} idle sessions, of one core"), used, "%", Aim::at_most(10.0));
    table(
        "Connected workers with nothing to do, a connection each",
        &[
            "sessions",
            "connected in",
            "heartbeat every",
            "coordinator RSS (without any)",
            "coordinator CPU, of one core",
        ],
        &[[
            sessions.to_string(),
            format!("{connected:.1} s"),
            format!("{:.1} s", interval.as_secs_f64()),
            format!("{memory:.0} MB ({empty:.0} MB)"),
            format!("{used:.1} %"),
        ]],
    );
    Ok(())
}

/// Sends heartbeats and hears the answers until the session ends; why it ended.
async fn beat(mut line: Line, interval: Duration) -> &'static str {
    let mut beats = tokio::time::interval(interval.max(Duration::from_millis(100)));
    let mut sequence = 0;
    loop {
        tokio::select! {
            _ = beats.tick() => {
                sequence += 1;
                if !line.beat(sequence).await {
                    return "it could not be written to";
                }
            }
            heard = line.hear() => match heard {
                Some(Heard::Goodbye(_)) => return "the coordinator said goodbye",
                Some(_) => {}
                None => return "the coordinator ended it",
            },
        }
    }
}

/// A connection is a file on either side.
fn more_files() -> Result<(), Failure> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let held = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: held.maximum, maximum: held.maximum })?)
}
