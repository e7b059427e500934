//! Others beside us, in the same minute on the same machine: jobs that do nothing, acknowledged as durably as each can.
//! Their drivers lie in `tests/bench/peers`; `cargo xtask bench` installs what those need and names the folder.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use guestkit_processes::postgres::Server;
use guestkit_processes::{Process, until};

use crate::report::{Aim, complain, quantity, table};
use crate::single::{self, Kind};
use crate::sustained::{self, Load};
use crate::usage::{micros_each, tree_cpu_seconds};
use crate::{Bench, Failure};

/// Names the folder with what the drivers need: `node_modules` and `python`.
const FOLDER: &str = "GUESTKIT_BENCH_PEERS";

/// What a system costs per job, whoever's it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) rate: f64,
    pub(crate) server_micros: f64,
    /// Client, driver and workers.
    pub(crate) others_micros: f64,
    /// Milliseconds from the submission to the acknowledged end.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Cost {
    fn row(&self, name: &str, under_way: usize) -> [String; 6] {
        [
            name.to_owned(),
            under_way.to_string(),
            quantity(self.rate, ""),
            format!("{:.0} µs", self.server_micros),
            format!("{:.0} µs", self.others_micros),
            format!("{:.1} / {:.1} ms", self.p50, self.p99),
        ]
    }
}

pub(crate) async fn measure(bench: &mut Bench) -> Result<(), Failure> {
    let folder = std::env::var_os(FOLDER).map(PathBuf::from).ok_or("start this by `cargo xtask bench fleet`")?;
    let (many, few) = if bench.quick { (3_000, 200) } else { (30_000, 2_000) };
    let mut rows = Vec::new();

    let ours = sustained::run(bench, &Load::streamed(many)).await?;
    rows.push(ours.row("guestkit on SQLite, one stream, worker that answers at once", sustained::UNDER_WAY));
    let bare = single::run(bench, Kind::Bare, few).await?;
    rows.push(bare.row("guestkit on SQLite, worker that answers at once", 1));
    let real = single::run(bench, Kind::Real, few).await?;
    rows.push(real.row("guestkit on SQLite, real worker", 1));

    let postgres = Server::start()?.ok_or("PostgreSQL is not installed")?;
    let database = postgres.create_database()?;
    let server = u32::try_from(postgres.pid()?.as_raw_nonzero().get())?;
    for (mode, name, jobs, under_way) in [
        ("batched", "graphile-worker, localQueue 500, added by hundreds", many, 512),
        ("one-by-one", "graphile-worker, one by one, 24 at once", many / 3, 512),
        ("single", "graphile-worker", few, 1),
    ] {
        let mut driver = Command::new("node");
        driver.arg(folder.join("graphile.mjs")).args([database.url.as_str(), mode]);
        let cost = drive(driver, jobs, server)?;
        rows.push(cost.row(name, under_way));
        if mode == "single" {
            let of = |ours: f64, theirs: f64| ours / theirs * 100.0;
            let report = &mut bench.report;
            report.aim(
                "one in flight, real worker, p50 of graphile's",
                of(real.p50, cost.p50),
                "%",
                Aim::at_most(100.0),
            );
            report.aim(
                "one in flight, real worker, p99 of graphile's",
                of(real.p99, cost.p99),
                "%",
                Aim::at_most(100.0),
            );
        }
    }
    drop(postgres);

    for sync in ["always", "2m"] {
        let server = match Nats::start(sync) {
            Ok(server) => server,
            Err(error) => {
                complain(format!("JetStream with sync_interval {sync} is not measured: {error}"));
                continue;
            }
        };
        for (mode, jobs, under_way) in [("stream", many / 3, 512), ("single", few, 1)] {
            let mut driver = Command::new("python3");
            driver.env("PYTHONPATH", folder.join("python")).arg(folder.join("jetstream.py"));
            driver.args([&server.url, mode]);
            let cost = drive(driver, jobs, server.process.id())?;
            rows.push(cost.row(&format!("NATS JetStream, {}", server.durable), under_way));
        }
    }
    table(
        "Beside others, in the same minute",
        &["system", "under way", "jobs/s", "server CPU per job", "client, driver and worker CPU per job", "p50 / p99"],
        &rows,
    );
    Ok(())
}

/// A driver: says when it is ready, works when it is told to, says what came out.
struct Driver {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Driver {
    fn start(mut command: Command) -> Result<Self, Failure> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (stdin, stdout) = (child.stdin.take().ok_or("no pipe")?, child.stdout.take().ok_or("no pipe")?);
        Ok(Self { child, stdin, stdout: BufReader::new(stdout) })
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line)? {
            0 => Err("the driver ended without its figures".into()),
            _ => Ok(line),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[allow(clippy::cast_precision_loss)]
fn drive(mut command: Command, jobs: usize, server: u32) -> Result<Cost, Failure> {
    command.arg(jobs.to_string());
    let mut driver = Driver::start(command)?;
    while driver.line()?.trim() != "ready" {}
    let (served, drove) = (tree_cpu_seconds(server)?, tree_cpu_seconds(driver.child.id())?);
    driver.stdin.write_all(b"\n")?;
    // Some libraries talk on standard output as well.
    let told: serde_json::Value = loop {
        let line = driver.line()?;
        if line.starts_with('{') {
            break serde_json::from_str(&line)?;
        }
    };
    let server_micros = micros_each(tree_cpu_seconds(server)? - served, jobs);
    let others_micros = micros_each(tree_cpu_seconds(driver.child.id())? - drove, jobs);
    driver.stdin.write_all(b"\n")?;
    let number = |name: &str| told.get(name).and_then(serde_json::Value::as_f64).ok_or(format!("no {name} in {told}"));
    let rate = jobs as f64 / number("seconds")?;
    Ok(Cost { rate, server_micros, others_micros, p50: number("p50")?, p99: number("p99")? })
}

struct Nats {
    process: Process,
    url: String,
    /// How durable an acknowledgement is.
    durable: String,
    _folder: tempfile::TempDir,
}

impl Nats {
    fn start(sync: &str) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("guestkit-nats-").tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let settings = folder.path().join("nats.conf");
        let write = |sync: &str| {
            let text = format!(
                "host: 127.0.0.1\nport: {port}\njetstream {{ store_dir: \"{}\"{sync} }}\n",
                folder.path().display()
            );
            std::fs::write(&settings, text)
        };
        write(&format!(", sync_interval: {sync}"))?;
        let mut durable = format!("sync_interval {sync}");
        let command = || {
            let mut command = Command::new("nats-server");
            command.stdin(Stdio::null()).arg("-c").arg(&settings);
            command
        };
        let tried = command().arg("-t").output()?;
        if !tried.status.success() {
            // Before 2.10 there is only the default.
            if sync == "always" {
                return Err(String::from_utf8_lossy(&tried.stderr).trim().to_owned().into());
            }
            write("")?;
            durable = "synced every two minutes, the only way this version has".into();
        }
        let process = Process::start(&mut command(), &folder.path().join("log"))?;
        until("NATS", || Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop)))?;
        Ok(Self { process, url: format!("nats://127.0.0.1:{port}"), durable, _folder: folder })
    }
}
