//! Starts the real processes of the project, and ends them: politely, or with SIGKILL when a story asks for it.
//!
//! Nothing here knows the wire; stories that speak gRPC bring their own client.

pub mod postgres;
pub mod s3;

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

/// A coordinator, started again and again on the same data and the same ports.
#[derive(Debug)]
struct Coordinator {
    name: String,
    process: Process,
    address: String,
    http: String,
}

/// One coordinator on its own data folder, or several on one store, and the workers that a story starts, all in a temporary
/// folder.
#[derive(Debug)]
pub struct Fleet {
    binaries: Binaries,
    coordinator_args: Vec<String>,
    coordinators: Vec<Coordinator>,
    workers: BTreeMap<String, Process>,
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
        Self::start_named(folder, binaries, &["data".to_owned()], coordinator_args)
    }

    /// Starts `count` coordinators that share a store, each with a data folder of its own.
    ///
    /// # Errors
    /// When one does not come up; the text ends with its log.
    pub fn start_several(binaries: &Binaries, count: usize, coordinator_args: &[&str]) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("guestkit-").tempdir()?;
        let names: Vec<String> = (0..count).map(|index| format!("data-{index}")).collect();
        Self::start_named(folder, binaries, &names, coordinator_args)
    }

    fn start_named(
        folder: tempfile::TempDir,
        binaries: &Binaries,
        names: &[String],
        coordinator_args: &[&str],
    ) -> io::Result<Self> {
        let args: Vec<String> = coordinator_args.iter().map(ToString::to_string).collect();
        let start = |name: &String| {
            let free = ["127.0.0.1:0", "127.0.0.1:0"];
            let (process, [address, http]) = start_coordinator(binaries, folder.path(), name, &args, free)?;
            Ok(Coordinator { name: name.clone(), process, address, http })
        };
        let coordinators = names.iter().map(start).collect::<io::Result<Vec<_>>>()?;
        let workers = BTreeMap::new();
        Ok(Self { binaries: binaries.clone(), coordinator_args: args, coordinators, workers, folder })
    }

    /// The folder that everything of this fleet lies in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the coordinator serves gRPC.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(0)
    }

    /// The same of one of several.
    #[must_use]
    pub fn url_of(&self, index: usize) -> String {
        format!("http://{}", self.coordinators[index].address)
    }

    /// Where each coordinator serves gRPC, separated by commas.
    #[must_use]
    pub fn urls(&self) -> String {
        let urls: Vec<String> = (0..self.coordinators.len()).map(|index| self.url_of(index)).collect();
        urls.join(",")
    }

    /// Where the coordinator serves HTTP: `127.0.0.1:PORT`.
    #[must_use]
    pub fn http(&self) -> &str {
        self.http_of(0)
    }

    /// The same of one of several.
    #[must_use]
    pub fn http_of(&self, index: usize) -> &str {
        &self.coordinators[index].http
    }

    /// The coordinator's process.
    pub fn coordinator(&mut self) -> &mut Process {
        self.coordinator_at(0)
    }

    /// The same of one of several.
    pub fn coordinator_at(&mut self, index: usize) -> &mut Process {
        &mut self.coordinators[index].process
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
        let urls = self.urls();
        self.start_worker_at(&urls, id, args)
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
        self.restart_coordinator_at(0)
    }

    /// The same with one of several.
    ///
    /// # Errors
    /// When it does not come up; the text ends with its log.
    pub fn restart_coordinator_at(&mut self, index: usize) -> io::Result<()> {
        let (folder, args) = (self.folder.path(), &self.coordinator_args);
        let coordinator = &mut self.coordinators[index];
        let listen = [coordinator.address.as_str(), coordinator.http.as_str()];
        (coordinator.process, _) = start_coordinator(&self.binaries, folder, &coordinator.name, args, listen)?;
        Ok(())
    }

    /// The `guestkit` command, speaking to these coordinators.
    #[must_use]
    pub fn guestkit(&self) -> Command {
        let mut command = self.binaries.command("guestkit");
        command.env("GUESTKIT_COORDINATOR", self.urls());
        command
    }

    /// Ends the workers, then the coordinators, all politely.
    ///
    /// # Errors
    /// When one does not end in time, or not with success.
    pub fn stop(mut self) -> io::Result<()> {
        for (id, worker) in &mut self.workers {
            let status = worker.terminate()?;
            ended_well(id, status, worker)?;
        }
        for Coordinator { name, process, .. } in &mut self.coordinators {
            let status = process.terminate()?;
            ended_well(&format!("the coordinator of {name}"), status, process)?;
        }
        Ok(())
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
    name: &str,
    args: &[String],
    [listen, http]: [&str; 2],
) -> io::Result<(Process, [String; 2])> {
    let data = folder.join(name);
    let told = data.join("listen.json");
    let mut command = binaries.command("guestkit-coordinator");
    command.args(["serve", "--listen", listen, "--http", http, "--data"]).arg(&data).args(args);
    let log = if name == "data" { "coordinator.log".to_owned() } else { format!("{name}.log") };
    let mut process = Process::start(&mut command, &folder.join(log))?;
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
