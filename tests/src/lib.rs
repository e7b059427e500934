//! Starts the real processes of the project, and ends them: politely, or with SIGKILL when a story asks for it.
//!
//! Nothing here knows the wire; stories that speak gRPC bring their own client.

pub mod postgres;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longest that a process may take to start or to end; far above what any needs, so that only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder that cargo put the project's programs into.
#[derive(Debug, Clone)]
pub struct Binaries(PathBuf);

impl Binaries {
    /// The programs in `folder`.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn in_folder(folder: &Path) -> io::Result<Self> {
        for name in ["guestkit", "guestkit-coordinator", "guestkit-worker"] {
            if !folder.join(name).is_file() {
                let text =
                    format!("{} is missing: run `cargo build --workspace --bins` first", folder.join(name).display());
                return Err(io::Error::new(ErrorKind::NotFound, text));
            }
        }
        Ok(Self(folder.to_path_buf()))
    }

    /// The programs beside the running test: cargo puts tests into `deps`, one folder below them.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn beside_this_test() -> io::Result<Self> {
        let test = std::env::current_exe()?;
        let folder = test.ancestors().nth(2).ok_or_else(|| io::Error::other("a test without a target folder"))?;
        Self::in_folder(folder)
    }

    /// A command for one of the programs.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.0.join(name));
        command.stdin(Stdio::null()).env_remove("GUESTKIT_COORDINATOR");
        command
    }
}

/// A process that ends with this value.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; everything it prints goes to the end of `log`.
    ///
    /// # Errors
    /// When the system will not start it.
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let child = command.stdout(output.try_clone()?).stderr(output).spawn()?;
        Ok(Self { child, log: log.to_path_buf() })
    }

    /// Its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.ok_or_else(|| io::Error::other("no such process"))?, signal)?)
    }

    /// Ends it as a power cut would, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn terminate(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        self.wait()
    }

    /// How it ended, when it has.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        until("the end of a process", || self.child.try_wait())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks again and again until there is an answer: a level is waited for, not an instant.
///
/// # Errors
/// Those of `probe`, and `TimedOut` when no answer comes within a minute.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = probe()? {
            return Ok(answer);
        }
        if started.elapsed() > PATIENCE {
            return Err(io::Error::new(
                ErrorKind::TimedOut,
                format!("{what} did not come in {} s", PATIENCE.as_secs()),
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One coordinator on its own data folder, and the workers that a story starts, all in a temporary folder.
#[derive(Debug)]
pub struct Fleet {
    binaries: Binaries,
    coordinator_args: Vec<String>,
    coordinator: Process,
    workers: BTreeMap<String, Process>,
    address: String,
    http: String,
    // Last, so that the processes are gone before their folder.
    folder: tempfile::TempDir,
}

impl Fleet {
    /// Starts a coordinator on free ports and waits until it serves.
    ///
    /// # Errors
    /// When it does not come up; the text ends with its log.
    pub fn start(binaries: &Binaries, coordinator_args: &[&str]) -> io::Result<Self> {
        Self::start_in(tempfile::Builder::new().prefix("guestkit-").tempdir()?, binaries, coordinator_args)
    }

    /// The same in a folder that was prepared: `data` in it is the coordinator's, `workers` holds the workers' spools.
    ///
    /// # Errors
    /// When it does not come up; the text ends with its log.
    pub fn start_in(folder: tempfile::TempDir, binaries: &Binaries, coordinator_args: &[&str]) -> io::Result<Self> {
        let args: Vec<String> = coordinator_args.iter().map(ToString::to_string).collect();
        let (coordinator, listen) = start_coordinator(binaries, folder.path(), &args, ["127.0.0.1:0", "127.0.0.1:0"])?;
        let [address, http] = listen;
        let workers = BTreeMap::new();
        Ok(Self { binaries: binaries.clone(), coordinator_args: args, coordinator, workers, address, http, folder })
    }

    /// The folder that everything of this fleet lies in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the coordinator serves gRPC.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where the coordinator serves HTTP: `127.0.0.1:PORT`.
    #[must_use]
    pub fn http(&self) -> &str {
        &self.http
    }

    /// The coordinator's process.
    pub fn coordinator(&mut self) -> &mut Process {
        &mut self.coordinator
    }

    /// A worker's process.
    pub fn worker(&mut self, id: &str) -> Option<&mut Process> {
        self.workers.get_mut(id)
    }

    /// Starts a worker; starting one under a name that runs kills the one that runs.
    ///
    /// # Errors
    /// When the system will not start it.
    pub fn start_worker(&mut self, id: &str, args: &[&str]) -> io::Result<()> {
        let url = self.url();
        self.start_worker_at(&url, id, args)
    }

    /// The same with a coordinator at another address, such as a link that breaks.
    ///
    /// # Errors
    /// When the system will not start it.
    pub fn start_worker_at(&mut self, coordinator: &str, id: &str, args: &[&str]) -> io::Result<()> {
        self.workers.remove(id);
        let mut command = self.binaries.command("guestkit-worker");
        command.args(["--coordinator", coordinator, "--worker-id", id, "--data"]);
        command.arg(self.folder.path().join("workers")).args(args);
        let process = Process::start(&mut command, &self.folder.path().join(format!("{id}.log")))?;
        self.workers.insert(id.to_owned(), process);
        Ok(())
    }

    /// Starts the coordinator again on the same data and the same ports; it must have ended before.
    ///
    /// # Errors
    /// When it does not come up; the text ends with its log.
    pub fn restart_coordinator(&mut self) -> io::Result<()> {
        let listen = [self.address.as_str(), self.http.as_str()];
        (self.coordinator, _) = start_coordinator(&self.binaries, self.folder.path(), &self.coordinator_args, listen)?;
        Ok(())
    }

    /// The `guestkit` command, speaking to this coordinator.
    #[must_use]
    pub fn guestkit(&self) -> Command {
        let mut command = self.binaries.command("guestkit");
        command.env("GUESTKIT_COORDINATOR", self.url());
        command
    }

    /// Ends the workers, then the coordinator, all politely.
    ///
    /// # Errors
    /// When one does not end in time, or not with success.
    pub fn stop(mut self) -> io::Result<()> {
        for (id, worker) in &mut self.workers {
            let status = worker.terminate()?;
            ended_well(id, status, worker)?;
        }
        let status = self.coordinator.terminate()?;
        ended_well("the coordinator", status, &self.coordinator)
    }
}

fn ended_well(name: &str, status: ExitStatus, process: &Process) -> io::Result<()> {
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{name} ended with {status}:\n{}", process.log())))
}

fn start_coordinator(
    binaries: &Binaries,
    folder: &Path,
    args: &[String],
    [listen, http]: [&str; 2],
) -> io::Result<(Process, [String; 2])> {
    let data = folder.join("data");
    let told = data.join("listen.json");
    let mut command = binaries.command("guestkit-coordinator");
    command.args(["serve", "--listen", listen, "--http", http, "--data"]).arg(&data).args(args);
    let mut process = Process::start(&mut command, &folder.join("coordinator.log"))?;
    let addresses = until("the coordinator's address", || match process.child.try_wait()? {
        Some(status) => Err(io::Error::other(format!("the coordinator ended with {status}:\n{}", process.log()))),
        None => Ok(addresses(&told, process.id())),
    })?;
    Ok((process, addresses))
}

/// What `listen.json` tells, once the process `pid` wrote it.
fn addresses(told: &Path, pid: u32) -> Option<[String; 2]> {
    let value: serde_json::Value = serde_json::from_slice(&fs::read(told).ok()?).ok()?;
    let text = |name: &str| value.get(name)?.as_str().map(str::to_owned);
    (value.get("pid")?.as_u64()? == u64::from(pid)).then_some([text("grpc")?, text("http")?])
}
