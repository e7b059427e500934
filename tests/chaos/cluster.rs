//! The processes that a storm is let loose on: coordinators and workers, each with the life it leads.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guestkit_processes::{Binaries, Process, until};
use rand::RngExt as _;
use rustix::process::Signal;

/// How long a process that was asked to leave may take: a coordinator drains for 10 s, a worker for as long as it is told.
const LEAVE_MAX: Duration = Duration::from_secs(60);

/// Where a process is in its life.
///
/// ```text
/// Down ─► Up ─┬─ killed ──────────────► Down
///             ├─ frozen ─► Frozen ────► Up
///             └─ asked ──► Leaving ───► Down
/// ```
#[derive(Debug)]
pub(crate) enum Life {
    /// It runs.
    Up(Process),
    /// It runs and is given no time.
    Frozen(Process, Instant),
    /// It was asked to leave.
    Leaving(Process, Instant),
    /// It is started again at that instant.
    Down(Instant),
}

/// One process, started again and again in the same place.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    program: &'static str,
    args: Vec<OsString>,
    log: PathBuf,
    pub(crate) life: Life,
}

impl Member {
    fn new(program: &'static str, name: String, folder: &Path, args: Vec<OsString>) -> Self {
        let log = folder.join(format!("{name}.log"));
        Self { name, program, args, log, life: Life::Down(Instant::now()) }
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.life, Life::Up(_))
    }

    pub(crate) fn is_worker(&self) -> bool {
        self.program == "guestkit-worker"
    }

    fn start(&mut self, binaries: &Binaries) {
        let mut command = binaries.command(self.program);
        command.args(&self.args);
        self.life = Life::Up(Process::start(&mut command, &self.log).unwrap());
    }

    /// What it has printed in all its lives.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Ends it as a power cut would. A worker must take its attempts along: it is frozen first, so that the list of its
    /// children is whole, and the children must be gone soon after.
    pub(crate) fn kill(&mut self, again: Instant) -> Result<(), String> {
        let Life::Up(process) = &mut self.life else { return Ok(()) };
        let children = if self.program == "guestkit-worker" {
            process.signal(Signal::STOP).unwrap();
            children(process.id())
        } else {
            Vec::new()
        };
        process.kill();
        self.life = Life::Down(again);
        gone(&self.name, &children)
    }

    pub(crate) fn freeze(&mut self, thaw: Instant) {
        if let Life::Up(process) = std::mem::replace(&mut self.life, Life::Down(thaw)) {
            process.signal(Signal::STOP).unwrap();
            self.life = Life::Frozen(process, thaw);
        }
    }

    pub(crate) fn ask_to_leave(&mut self) {
        if let Life::Up(process) = std::mem::replace(&mut self.life, Life::Down(Instant::now())) {
            process.signal(Signal::TERM).unwrap();
            self.life = Life::Leaving(process, Instant::now() + LEAVE_MAX);
        }
    }

    /// The processes of its attempts.
    pub(crate) fn attempts(&self) -> Vec<Child> {
        match &self.life {
            Life::Up(process) => children(process.id()),
            _ => Vec::new(),
        }
    }

    /// Does what its time has come for. A fault of the process itself is told.
    pub(crate) fn tick(&mut self, binaries: &Binaries) -> Result<(), String> {
        let now = Instant::now();
        match &mut self.life {
            Life::Up(process) => {
                if let Some(status) = process.ended().unwrap() {
                    let told = format!("{} ended by itself with {status}:\n{}", self.name, tail(&self.log()));
                    self.life = Life::Down(now);
                    return Err(told);
                }
            }
            Life::Frozen(process, thaw) if *thaw <= now => {
                process.signal(Signal::CONT).unwrap();
                let Life::Frozen(process, _) = std::mem::replace(&mut self.life, Life::Down(now)) else {
                    return Ok(());
                };
                self.life = Life::Up(process);
            }
            Life::Leaving(process, latest) => match process.ended().unwrap() {
                // The signal itself ends one that had not come far enough to listen for it.
                Some(status) if status.success() || status.signal() == Some(Signal::TERM.as_raw()) => {
                    self.life = Life::Down(now);
                }
                Some(status) => {
                    let told = format!("{} left with {status}:\n{}", self.name, tail(&self.log()));
                    self.life = Life::Down(now);
                    return Err(told);
                }
                None if *latest <= now => {
                    self.life = Life::Down(now);
                    return Err(format!("{} did not leave in {} s", self.name, LEAVE_MAX.as_secs()));
                }
                None => {}
            },
            Life::Down(again) if *again <= now => self.start(binaries),
            Life::Frozen(..) | Life::Down(_) => {}
        }
        Ok(())
    }

    /// Brings forward whatever its life waits for.
    fn heal(&mut self) {
        if let Life::Frozen(_, at) | Life::Down(at) = &mut self.life {
            *at = Instant::now();
        }
    }
}

/// The last of a log.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Coordinators and workers in a folder of their own.
#[derive(Debug)]
pub(crate) struct Cluster {
    binaries: Binaries,
    pub(crate) members: Vec<Member>,
    endpoints: Vec<String>,
    // Last, so that the processes are gone before their folder.
    folder: tempfile::TempDir,
}

/// How a cluster is made.
#[derive(Debug)]
pub(crate) struct Shape<'a> {
    pub(crate) coordinators: usize,
    pub(crate) workers: usize,
    /// Besides the addresses and the data folder.
    pub(crate) coordinator_args: &'a [&'a str],
    /// Besides the addresses, the name and the folders.
    pub(crate) worker_args: &'a [&'a str],
}

impl Cluster {
    /// Starts everything and waits until each coordinator has told where it listens.
    pub(crate) fn start(binaries: &Binaries, shape: &Shape<'_>) -> Self {
        let folder = tempfile::Builder::new().prefix("guestkit-chaos-").tempdir().unwrap();
        let mut members = Vec::new();
        let mut endpoints = Vec::new();
        let artifacts = format!("file://{}", folder.path().join("artifacts").display());
        for index in 0..shape.coordinators {
            let (listen, http) = (free_address(), free_address());
            endpoints.push(format!("http://{listen}"));
            let name = format!("coordinator-{index}");
            // Coordinators that share a store share what lies beside it.
            let data = folder.path().join(&name);
            fs::create_dir(&data).unwrap();
            let mut args: Vec<OsString> = vec!["serve".into(), "--listen".into(), listen.to_string().into()];
            args.extend(["--http".into(), http.to_string().into()]);
            args.extend(["--data".into(), data.into(), "--artifacts".into(), (&artifacts).into()]);
            args.extend(shape.coordinator_args.iter().map(Into::into));
            members.push(Member::new("guestkit-coordinator", name, folder.path(), args));
        }
        for index in 0..shape.workers {
            let name = format!("worker-{index}");
            let mut args: Vec<OsString> = Vec::new();
            args.extend(endpoints.iter().flat_map(|url| ["--coordinator".into(), url.into()]));
            args.extend(["--worker-id".into(), (&name).into()]);
            args.extend(["--data".into(), folder.path().join("spools").into()]);
            args.extend(["--image-root".into(), folder.path().into()]);
            args.extend(shape.worker_args.iter().map(Into::into));
            members.push(Member::new("guestkit-worker", name, folder.path(), args));
        }
        let mut cluster = Self { binaries: binaries.clone(), members, endpoints, folder };
        cluster.tick().unwrap();
        for index in 0..shape.coordinators {
            let told = cluster.folder().join(format!("coordinator-{index}/listen.json"));
            until("the coordinator's address", || {
                cluster.tick().map_err(std::io::Error::other)?;
                Ok(told.exists().then_some(()))
            })
            .unwrap();
        }
        cluster
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder for whoever looks for the cause.
    pub(crate) fn keep(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_path_buf()
    }

    /// Where coordinators listen.
    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// A `guestkit` command that knows every coordinator.
    pub(crate) fn guestkit(&self) -> std::process::Command {
        let mut command = self.binaries.command("guestkit");
        command.env("GUESTKIT_COORDINATOR", self.endpoints.join(","));
        command
    }

    /// Lets every process do what its time has come for; tells the first that did not live as it should.
    pub(crate) fn tick(&mut self) -> Result<(), String> {
        self.members.iter_mut().map(|member| member.tick(&self.binaries)).fold(Ok(()), Result::and)
    }

    /// Ends every fault and waits until everything runs.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        self.members.iter_mut().for_each(Member::heal);
        until("the end of all faults", || {
            self.tick().map_err(std::io::Error::other)?;
            self.members.iter_mut().for_each(Member::heal);
            Ok(self.members.iter().all(Member::is_up).then_some(()))
        })
        .map_err(|error| error.to_string())
    }

    /// Everybody leaves in order, workers first.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        for workers in [true, false] {
            for member in self.members.iter_mut().filter(|member| member.is_worker() == workers) {
                let Life::Up(process) = &mut member.life else { return Err(format!("{} does not run", member.name)) };
                let children = children(process.id());
                let status = process.terminate().map_err(|error| format!("{}: {error}", member.name))?;
                if !status.success() {
                    return Err(format!("{} left with {status}:\n{}", member.name, tail(&member.log())));
                }
                gone(&member.name, &children)?;
            }
        }
        Ok(())
    }
}

/// A free address that no outgoing connection can be given while its coordinator is down: below the ephemeral ports (Linux:
/// 32768 to 60999), where a client that tries again and again could even connect to itself.
fn free_address() -> SocketAddr {
    loop {
        let port = rand::rng().random_range(10_000..32_000);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// A process, told from a later one of the same number by its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) pid: i32,
    started: u64,
}

/// The children of a process that are not ended.
pub(crate) fn children(parent: u32) -> Vec<Child> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| stat(pid).filter(|(ppid, _)| *ppid == parent).map(|(_, child)| child)).collect()
}

/// Parent and start of a process that lives (proc(5), /proc/PID/stat, fields 3, 4 and 22).
fn stat(pid: i32) -> Option<(u32, Child)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let is_over = matches!(*fields.first()?, "Z" | "X");
    let (ppid, started) = (fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?);
    (!is_over).then_some((ppid, Child { pid, started }))
}

fn gone(parent: &str, children: &[Child]) -> Result<(), String> {
    let lives = |child: &Child| stat(child.pid).is_some_and(|(_, now)| now == *child);
    let all_gone = until("the end of a worker's children", || Ok((!children.iter().any(lives)).then_some(())));
    all_gone.map_err(|_| format!("{parent} left children behind"))
}
