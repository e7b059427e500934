//! The command line, and nothing but it: one value that is passed down.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgGroup, CommandFactory as _, Parser};
use guestkit_domain::WorkerId;
use guestkit_protocol::client::Endpoints;
use guestkit_telemetry::LogFormat;

use crate::output::OutputRoots;
use crate::roots::{ImageRoots, KeysRoot};
use crate::rules::RulesFolder;
use crate::worker::{self, Declared};

/// Where jobs come from.
#[derive(Debug, Clone)]
pub enum Transport {
    /// From coordinators.
    Fleet {
        /// Where they are.
        coordinators: Endpoints,
        /// Where outcomes lie until they are acknowledged.
        data: PathBuf,
    },
    /// From files in a folder.
    Folder {
        /// Where job files appear.
        jobs: PathBuf,
        /// Where results go.
        results: PathBuf,
    },
}

/// What the operator said.
#[derive(Debug, Clone)]
pub struct Config {
    /// What this worker is.
    pub declared: Declared,
    /// Where its jobs come from.
    pub transport: Transport,
    /// How long running attempts may go on once the worker was asked to leave.
    pub drain_timeout: Duration,
    /// How it tells what it does.
    pub telemetry: guestkit_telemetry::Settings,
}

/// Takes jobs and inspects disk images, each job in a process of its own.
///
/// In a fleet it connects to a coordinator and is given jobs; on a folder it takes job files and writes result files.
/// Images are only ever read.
#[derive(Debug, Parser)]
#[command(
    name = "guestkit-worker",
    version,
    max_term_width = 110,
    group = ArgGroup::new("transport").required(true).args(["coordinator", "jobs_dir"]),
    after_help = "Examples:\n  \
        guestkit-worker --coordinator http://127.0.0.1:7443 --image-root /srv/images\n  \
        guestkit-worker --worker-id demo-worker --jobs-dir ./demo-jobs --results-dir ./demo-results\n\n\
        SIGTERM or Ctrl-C lets running jobs finish and takes no new ones; a second one ends them."
)]
struct Args {
    /// In a fleet: a coordinator's address, such as http://127.0.0.1:7443; again for each that may take over
    #[arg(long, value_name = "URL", help_heading = "Where jobs come from")]
    coordinator: Vec<String>,

    /// In a fleet: the folder that keeps outcomes until the coordinator has them
    #[arg(
        long,
        value_name = "DIR",
        default_value = "./data",
        conflicts_with = "jobs_dir",
        help_heading = "Where jobs come from"
    )]
    data: PathBuf,

    /// On a folder: where job files appear; they are moved to done/ or failed/ in it
    #[arg(long, value_name = "DIR", requires = "results_dir", help_heading = "Where jobs come from")]
    jobs_dir: Option<PathBuf>,

    /// On a folder: where <job_id>-result.json files go
    #[arg(long, value_name = "DIR", requires = "jobs_dir", help_heading = "Where jobs come from")]
    results_dir: Option<PathBuf>,

    /// Open images beneath this folder only; again for each. Required in a fleet
    #[arg(long, value_name = "DIR", help_heading = "What jobs may touch")]
    image_root: Vec<PathBuf>,

    /// Keys of encrypted volumes lie beneath this folder: jobs name the files, and nobody is told what is in them
    #[arg(long, value_name = "DIR", help_heading = "What jobs may touch")]
    keys_root: Option<PathBuf>,

    /// Write reports that jobs ask for beneath this folder only; again for each. Without it none is written
    #[arg(long, value_name = "DIR", help_heading = "What jobs may touch")]
    output_root: Vec<PathBuf>,

    /// Rules for profiles over those of the program: the *.yaml files in this folder
    #[arg(long, value_name = "DIR", help_heading = "What jobs may touch")]
    rules: Option<PathBuf>,

    /// The name this worker keeps across restarts [default: the machine's name]
    #[arg(long, value_name = "ID", value_parser = parse_worker_id, help_heading = "What this worker is")]
    worker_id: Option<WorkerId>,

    /// The pool it belongs to
    #[arg(
        long,
        value_name = "POOL",
        default_value = "default",
        value_parser = parse_name,
        help_heading = "What this worker is"
    )]
    pool: String,

    /// Jobs it runs at once, 1 to 1024 [default: one per processor core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024), help_heading = "What this worker is")]
    slots: Option<u32>,

    /// A label that jobs can prefer or avoid; again for each
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label, help_heading = "What this worker is")]
    label: Vec<(String, String)>,

    /// A feature of this machine that jobs can require; again for each
    #[arg(long, value_name = "FEATURE", value_parser = parse_name, help_heading = "What this worker is")]
    feature: Vec<String>,

    /// How long running jobs may go on once the worker was asked to leave
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    drain_timeout: u32,

    /// How log lines are written to standard error; RUST_LOG selects them
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,

    /// Send traces to this OpenTelemetry collector (OTLP over gRPC)
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
}

fn parse_worker_id(text: &str) -> Result<WorkerId, String> {
    WorkerId::new(text).map_err(|error| error.to_string())
}

/// Pools and features are names like ids, so that job documents can name them.
fn parse_name(text: &str) -> Result<String, String> {
    WorkerId::new(text).map(|name| name.to_string()).map_err(|error| error.to_string())
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    if key.is_empty() || key.len() > 63 || value.len() > 256 {
        return Err("the key must have 1 to 63 bytes, the value at most 256".into());
    }
    Ok((key.to_owned(), value.to_owned()))
}

impl Config {
    /// Reads the command line; leaves the process with a usage message where it makes no sense.
    #[must_use]
    pub fn from_command_line() -> Self {
        let args = Args::parse();
        Self::from_args(args)
            .unwrap_or_else(|message| Args::command().error(ErrorKind::ValueValidation, message).exit())
    }

    fn from_args(args: Args) -> Result<Self, String> {
        let told = |error: &dyn std::error::Error| match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        let transport = match (args.jobs_dir, args.results_dir) {
            (Some(jobs), Some(results)) => Transport::Folder { jobs, results },
            _ => {
                if args.image_root.is_empty() {
                    return Err("in a fleet at least one --image-root is required: jobs come from other machines, and only images beneath it are opened".into());
                }
                let coordinators = Endpoints::new(&args.coordinator).map_err(|error| error.to_string())?;
                Transport::Fleet { coordinators, data: args.data }
            }
        };
        let worker_id = match args.worker_id {
            Some(id) => id,
            None => WorkerId::new(&worker::default_worker_id()).map_err(|error| format!("--worker-id: {error}"))?,
        };
        let mut labels = BTreeMap::new();
        for (key, value) in args.label {
            if let Some(other) = labels.insert(key.clone(), value) {
                return Err(format!("--label {key} is given twice (the other is {other:?})"));
            }
        }
        Ok(Self {
            declared: Declared {
                worker_id,
                pool: args.pool,
                slots: args.slots.unwrap_or_else(worker::cores).min(1024),
                labels,
                features: args.feature,
                images: ImageRoots::beneath(&args.image_root).map_err(|error| told(&error))?,
                keys: match &args.keys_root {
                    Some(folder) => KeysRoot::beneath(folder).map_err(|error| told(&error))?,
                    None => KeysRoot::none(),
                },
                outputs: OutputRoots::beneath(&args.output_root).map_err(|error| told(&error))?,
                rules: match &args.rules {
                    Some(folder) => RulesFolder::of(folder).map_err(|error| format!("--rules: {error}"))?,
                    None => RulesFolder::none(),
                },
            },
            transport,
            drain_timeout: Duration::from_secs(args.drain_timeout.into()),
            telemetry: guestkit_telemetry::Settings { log_format: args.log_format, otlp_endpoint: args.otlp_endpoint },
        })
    }
}
