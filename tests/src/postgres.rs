//! A real PostgreSQL of the tests' own: its data in a temporary folder, on a free port and on a socket in that folder, with
//! `fsync` as it is by default. It ends with the value, and with the test's process however that ends.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use crate::until;

/// The user of every server here, and its password over TCP.
const USER: &str = "guestkit";
const PASSWORD: &str = "a secret of tests";

/// Another process may take the port between the moment it was found free and the server's start.
const STARTS: u32 = 5;

/// Waits beside the server until the test's process is gone (its end of the pipe closes, however it ended), or says so; then
/// ends the server at once, as a test's data is worth nothing, and removes the folder.
const KEEPER: &str = r#"
folder=$1; shift
"$@" >>"$folder/log" 2>&1 &
echo $! >"$folder/pid.new" && mv "$folder/pid.new" "$folder/pid"
read -r _
kill -QUIT $! 2>/dev/null
wait $!
rm -rf "$folder"
"#;

/// A server.
#[derive(Debug)]
pub struct Server {
    keeper: Child,
    folder: PathBuf,
    programs: PathBuf,
    port: u16,
    databases: AtomicU32,
}

/// `None` where PostgreSQL is not installed: then the test says so and passes, but for CI, where it is an error.
///
/// # Errors
/// When it is installed and does not start.
pub fn installed() -> io::Result<Option<PathBuf>> {
    let found = programs();
    if found.is_none() {
        if std::env::var_os("CI").is_some() {
            return Err(io::Error::new(ErrorKind::NotFound, "PostgreSQL is not installed (Debian: postgresql)"));
        }
        eprintln!("PostgreSQL is not installed (Debian: postgresql): what needs it is not tried");
    }
    Ok(found)
}

/// Where the programs are: Debian keeps them out of the PATH, one folder per version; the newest is taken.
fn programs() -> Option<PathBuf> {
    let complete = |folder: &PathBuf| ["initdb", "postgres", "createdb"].iter().all(|name| folder.join(name).is_file());
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
        })
        .collect();
    versions.sort_unstable();
    let debian = versions.into_iter().rev().map(|(_, folder)| folder);
    let path = std::env::var_os("PATH").unwrap_or_default();
    debian.chain(std::env::split_paths(&path)).find(complete)
}

impl Server {
    /// The server that the tests of one process share, each with a database of its own. `None` where [`installed`] says so.
    ///
    /// # Errors
    /// When it does not start.
    pub fn shared() -> io::Result<Option<&'static Self>> {
        static SHARED: Mutex<Option<&Server>> = Mutex::new(None);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.is_none() {
            // It is for the rest of the process; its keeper ends it.
            *shared = Self::start()?.map(|server| &*Box::leak(Box::new(server)));
        }
        Ok(*shared)
    }

    /// A server of one's own, to be stopped and killed. `None` where [`installed`] says so.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start() -> io::Result<Option<Self>> {
        let Some(programs) = installed()? else { return Ok(None) };
        let mut starts = 0;
        loop {
            starts += 1;
            match Self::start_once(&programs) {
                Err(error) if error.kind() == ErrorKind::AddrInUse && starts < STARTS => {}
                result => return result.map(Some),
            }
        }
    }

    fn start_once(programs: &Path) -> io::Result<Self> {
        // Removed by the keeper.
        let folder = tempfile::Builder::new().prefix("guestkit-postgres-").tempdir()?.keep();
        let account = Account::of_servers()?;
        if let Some(account) = &account {
            std::os::unix::fs::chown(&folder, Some(account.user), Some(account.group))?;
        }
        let password = folder.join("password");
        fs::write(&password, PASSWORD)?;
        let data = folder.join("data");
        let mut initdb = command(&programs.join("initdb"), account.as_ref(), &folder);
        initdb.args(["--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"]);
        initdb.args(["--username", USER, "--pwfile"]).arg(&password).arg("--pgdata").arg(&data);
        let made = initdb.output()?;
        if !made.status.success() {
            return Err(io::Error::other(format!("initdb: {}", String::from_utf8_lossy(&made.stderr))));
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut keeper = command(Path::new("/bin/sh"), account.as_ref(), &folder);
        keeper.args(["-c", KEEPER, "keeper"]).arg(&folder).arg(programs.join("postgres")).arg("-D").arg(&data);
        keeper.args(["-p", &port.to_string(), "-k"]).arg(&folder).args(["-c", "listen_addresses=127.0.0.1"]);
        // Small, because many of them may run at once.
        keeper.args(["-c", "shared_buffers=64MB", "-c", "max_connections=100"]);
        let keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut server = Self { keeper, folder, programs: programs.into(), port, databases: AtomicU32::new(0) };
        server.wait_until_it_serves()?;
        Ok(server)
    }

    fn wait_until_it_serves(&mut self) -> io::Result<()> {
        let ready = self.programs.join("pg_isready");
        until("a PostgreSQL that serves", || {
            let log = self.log();
            if log.contains("could not bind") {
                return Err(io::Error::new(ErrorKind::AddrInUse, log));
            }
            if log.contains("FATAL") && log.contains("is shut down") {
                return Err(io::Error::other(log));
            }
            let mut ready = Command::new(&ready);
            ready.arg("-q").args(["-p", &self.port.to_string(), "-h"]).arg(&self.folder);
            Ok(ready.status()?.success().then_some(()))
        })
    }

    /// A new, empty database, by TCP.
    ///
    /// # Errors
    /// When the server does not make it.
    pub fn create_database(&self) -> io::Result<Database> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut createdb = Command::new(self.programs.join("createdb"));
        createdb.args(["-p", &self.port.to_string(), "-U", USER, "-h"]).arg(&self.folder).arg(&name);
        let made = createdb.output()?;
        if !made.status.success() {
            return Err(io::Error::other(format!("createdb: {}", String::from_utf8_lossy(&made.stderr))));
        }
        let password = PASSWORD.replace(' ', "%20");
        Ok(Database {
            url: format!("postgres://{USER}:{password}@127.0.0.1:{}/{name}", self.port),
            socket_url: format!("postgres:///{name}?host={}&port={}&user={USER}", self.folder.display(), self.port),
        })
    }

    /// The server's process.
    ///
    /// # Errors
    /// When it is not known.
    pub fn pid(&self) -> io::Result<Pid> {
        let text = fs::read_to_string(self.folder.join("pid"))?;
        text.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("no process number"))
    }

    /// Sends the server's first process a signal: STOP and CONT, or KILL for a power cut.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// Kills everything but the server's first process, which then starts the rest again: a crash and its recovery, on the
    /// same port.
    ///
    /// # Errors
    /// When it is gone, or recovers from another: without the process that recovers, it gives up for good.
    pub fn crash(&self) -> io::Result<()> {
        let pid = self.pid()?.as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let title = |child: &str| fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
        let titled: Vec<_> = children.split_whitespace().map(|child| (child, title(child))).collect();
        if titled.iter().any(|(_, title)| title.starts_with("postgres: startup")) {
            return Err(io::Error::new(ErrorKind::ResourceBusy, "the server recovers"));
        }
        // One that was just started has no title yet, and may be the one that recovers; the first process ends it itself.
        let struck = titled.iter().filter(|(_, title)| title.starts_with("postgres: "));
        for child in struck.filter_map(|(child, _)| child.parse().ok().and_then(Pid::from_raw)) {
            // One that has ended meanwhile is gone already.
            let _ = kill_process(child, Signal::KILL);
        }
        Ok(())
    }

    /// What it has written to its log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.folder.join("log")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The keeper's end of the pipe closes.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// A database of a server, by the two ways to reach it.
#[derive(Debug, Clone)]
pub struct Database {
    /// By TCP, with the password.
    pub url: String,
    /// By the socket in the server's folder, without one.
    pub socket_url: String,
}

/// The user a server runs as where the tests run as root, which PostgreSQL refuses.
struct Account {
    user: u32,
    group: u32,
}

impl Account {
    fn of_servers() -> io::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd = fs::read_to_string("/etc/passwd")?;
        let line = passwd.lines().find_map(|line| line.strip_prefix("postgres:"));
        let mut numbers = line.into_iter().flat_map(|line| line.split(':').skip(1)).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(user)), Some(Ok(group))) => Ok(Some(Self { user, group })),
            _ => Err(io::Error::new(ErrorKind::NotFound, "no user postgres, which the server has to run as")),
        }
    }
}

fn command(program: &Path, account: Option<&Account>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null());
    if let Some(account) = account {
        command.uid(account.user).gid(account.group);
    }
    command
}
