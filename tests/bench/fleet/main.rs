//! What the fleet costs, always on a durable store: every acknowledgement comes after the disk's. Client, coordinator, workers
//! and store share the machine.
//!
//! Two kinds of worker are measured: the real one, which starts a process for each attempt, and a bare session that answers at
//! once, which leaves the coordinator's own cost. Run by `cargo xtask bench fleet`; the programs must have been built in
//! release. Each scenario prints its table as soon as it has it; the aims come last, each with its verdict.

mod backlog;
mod client;
mod cluster;
mod curve;
mod deaths;
mod idle;
mod images;
mod peers;
mod report;
mod session;
mod single;
mod sustained;
mod usage;

use std::process::ExitCode;

use guestkit_processes::Binaries;

use report::Report;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What every scenario is given.
struct Bench {
    binaries: Binaries,
    /// Shorter: for trying the harness out, not for figures.
    quick: bool,
    report: Report,
}

/// The scenarios, by the name they are asked for.
const SCENARIOS: [&str; 10] =
    ["sustained", "postgres", "single", "peers", "curve", "backlog", "idle", "deaths", "failover", "images"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` runs us with --test: nothing is measured then.
    if !args.iter().any(|arg| arg == "--bench") {
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Measures what was asked for; whether every scenario came to its end.
fn run(args: &[String]) -> Result<bool, Failure> {
    let only = args.iter().skip_while(|arg| *arg != "--only").nth(1);
    let chosen: Vec<&str> = only.map_or_else(|| SCENARIOS.to_vec(), |only| only.split(',').collect());
    if let Some(unknown) = chosen.iter().find(|name| !SCENARIOS.contains(name)) {
        return Err(format!("no scenario is called {unknown}; there are: {}", SCENARIOS.join(", ")).into());
    }
    let quick = args.iter().any(|arg| arg == "--quick");
    let mut bench = Bench { binaries: Binaries::beside_this_test()?, quick, report: Report::default() };
    let runtime = tokio::runtime::Runtime::new()?;
    let mut whole = true;
    for name in chosen {
        let measured = runtime.block_on(async {
            match name {
                "sustained" => sustained::measure(&mut bench).await,
                "postgres" => cluster::measure(&mut bench).await,
                "failover" => cluster::failover(&mut bench).await,
                "peers" => peers::measure(&mut bench).await,
                "curve" => curve::measure(&mut bench),
                "backlog" => backlog::measure(&mut bench).await,
                "idle" => idle::measure(&mut bench).await,
                "images" => images::measure(&mut bench).await,
                "deaths" => deaths::measure(&mut bench).await,
                _ => single::measure(&mut bench).await,
            }
        });
        // One that fails keeps nobody from the others' figures.
        if let Err(error) = measured {
            report::complain(format!("{name}: {error}"));
            whole = false;
        }
    }
    bench.report.verdicts();
    Ok(whole)
}
