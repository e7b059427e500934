//! The worker's binary: an attempt's process when its keeper starts it, a worker otherwise.

#[cfg(fuzzing)]
compile_error!("this build would take every checksum of a disk for right; it is for fuzz targets only");

use std::process::ExitCode;

use guestkit_protocol::client::Route;
use guestkit_worker::attempt::Attempts;
use guestkit_worker::config::{Config, Transport};
use guestkit_worker::shutdown::Shutdown;
use guestkit_worker::{attempt, folder, session};

/// A report is many small pieces, and reading a disk many large ones: the system's allocator took a tenth of the time, most of it
/// for pages that it had given back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator's own pages would each be 2 MB of zeros first: twice the memory and a fifth of the time of an inspection.
    // A kernel without them has nothing to refuse.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    // Not for people, so not in the help: only a keeper has the other end of its pipes.
    if std::env::args_os().nth(1).is_some_and(|first| first == attempt::SUBCOMMAND) {
        return report(attempt::child::main());
    }
    let config = Config::from_command_line();
    report(run(&config))
}

fn run(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let _telemetry = guestkit_telemetry::init("guestkit-worker", &config.telemetry)?;
        let shutdown = Shutdown::listen()?;
        match &config.transport {
            Transport::Fleet { coordinators, data } => {
                let route = Route::new(coordinators.clone());
                session::stream::run(config, route, data, Attempts::new, shutdown).await
            }
            Transport::Folder { jobs, results } => folder::run(config, jobs, results, shutdown).await,
        }
    });
    // A read of a dead disk may never return; nothing waits for it.
    runtime.shutdown_background();
    outcome
}

fn report(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            // Where standard error is gone there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "guestkit-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}
