//! `guestkit-coordinator`: arguments → settings → build → run → drain.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use guestkit_coordinator::app::{App, Ended};
use guestkit_coordinator::config::{Config, Flags, LogFormat};
use guestkit_telemetry as telemetry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// A fifth of the coordinator's time went into the system's allocator: messages are many small pieces that one thread makes
/// and another drops.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Takes jobs, leases them to workers, keeps what happened.
#[derive(Debug, Parser)]
#[command(name = "guestkit-coordinator", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves clients and workers until SIGTERM or SIGINT.
    Serve(Box<Flags>),
}

fn main() -> ExitCode {
    let Command::Serve(flags) = Arguments::parse().command;
    start(*flags).unwrap_or_else(|error| {
        // Nobody is left to tell when stderr is gone.
        let _ = writeln!(std::io::stderr(), "guestkit-coordinator: {error:#}");
        ExitCode::FAILURE
    })
}

fn start(flags: Flags) -> anyhow::Result<ExitCode> {
    let config = Config::from_flags(flags).context("failed to read the settings")?;
    // Each connection is an open file, and the usual limit of 1,024 is that of programs which use `select`.
    let files = getrlimit(Resource::Nofile);
    // One that is not to be had is noticed, and told, when it is reached.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("coordinator")
        .build()
        .context("failed to start the runtime")?;
    let ended = runtime.block_on(serve(config));
    // A read that still waits for its database must not find its timers stopped under it: the end of the process ends it.
    std::mem::forget(runtime);
    ended
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let _telemetry =
        telemetry::init("guestkit-coordinator", &telemetry_settings(&config)).context("failed to start telemetry")?;
    let app = App::build(config).await.context("failed to start")?;
    let ended = app.run(stop_signal()?).await;
    match ended {
        Ended::Gracefully => {
            tracing::info!("stopped gracefully");
            Ok(ExitCode::SUCCESS)
        }
        Ended::CutShort => {
            tracing::warn!("stopped; some connections did not end in time and were cut");
            Ok(ExitCode::SUCCESS)
        }
        Ended::Broken(why) => {
            tracing::error!(why, "stopped: cannot go on");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn telemetry_settings(config: &Config) -> telemetry::Settings {
    telemetry::Settings {
        log_format: match config.log_format {
            LogFormat::Text => telemetry::LogFormat::Text,
            LogFormat::Json => telemetry::LogFormat::Json,
        },
        otlp_endpoint: config.otlp_endpoint.clone(),
    }
}

/// Ends when the process is asked to stop.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
    })
}
