//! One attempt in a process of its own, and its keeper. The process reads hostile bytes; the keeper only listens to it,
//! under a deadline, and ends its process group when the time is over, the job is cancelled or the lease is void.
//! Nothing else is ever signalled: the group is signalled only while its leader is our child and not yet reaped.
//!
//! One process is kept ready for the next attempt, because starting one takes longer than a small job. It knows nothing of
//! any job until it is given its order, serves that one, and is as much an attempt's own as one started for it.

pub mod child;
mod frame;

use std::collections::VecDeque;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use guestkit_domain::{ErrorCode, WorkerId};
use guestkit_protocol::v1;
use prost::Message as _;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::failure::Failure;
use crate::outcome::{self, Start};
use crate::output::OutputRoots;
use crate::roots::{ImageRoots, KeysRoot};
use crate::rules::RulesFolder;
use crate::usage;
use frame::Kind;

/// The hidden subcommand that is an attempt's process.
pub const SUBCOMMAND: &str = "attempt";

/// What every attempt of this worker has in common.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who runs it.
    pub worker_id: WorkerId,
    /// Which images may be opened.
    pub images: ImageRoots,
    /// Where keys lie.
    pub keys: KeysRoot,
    /// Where reports may be written.
    pub outputs: OutputRoots,
    /// The operator's own rules for profiles.
    pub rules: RulesFolder,
}

/// One attempt.
#[derive(Debug)]
pub struct Order {
    /// What to do; already checked.
    pub document: v1::JobDocument,
    /// Which attempt of the job it is, from 1.
    pub attempt: i32,
    /// How long it may run.
    pub timeout: Duration,
    /// What it means when that time is over: `TIMEOUT`, or `DEADLINE_EXCEEDED` where the job's deadline came first.
    pub timeout_code: ErrorCode,
}

/// Why an attempt is to end before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Somebody cancelled the job; an outcome says so.
    Cancel {
        /// For people.
        reason: String,
    },
    /// Nobody wants to hear of it any more.
    Abandon,
}

/// Runs attempts.
pub trait Run: Clone + Send + 'static {
    /// Runs one attempt to its end and gives its outcome; `None` when it was abandoned. `stop` may be dropped unused.
    fn run(
        &self,
        order: Order,
        stop: oneshot::Receiver<Stop>,
        progress: impl FnMut(v1::Progress) + Send,
    ) -> impl Future<Output = Option<v1::JobResult>> + Send;
}

/// Runs attempts in processes of their own. Clones share the process that is kept ready.
#[derive(Debug, Clone)]
pub struct Attempts {
    settings: Arc<Settings>,
    ready: Arc<Mutex<Option<Ready>>>,
}

impl Attempts {
    /// Keeps a process ready from now on. Must be called, like everything here, within a runtime.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let attempts = Self { settings: Arc::new(settings), ready: Arc::default() };
        attempts.prepare();
        attempts
    }

    fn start(&self, order: &Order) -> io::Result<Process> {
        let kept = self.ready.lock().unwrap_or_else(PoisonError::into_inner).take();
        // One that ended while it waited is nobody's failure.
        let ready = match kept.and_then(Ready::alive) {
            Some(ready) => ready,
            None => Ready::start()?,
        };
        let process = ready.give(&self.settings, order)?;
        self.prepare();
        Ok(process)
    }

    /// Starts the next attempt's process beside whatever goes on.
    fn prepare(&self) {
        let ready = Arc::clone(&self.ready);
        tokio::spawn(async move {
            // Where none can be had now, the next attempt tries again, and tells why it cannot be run.
            if let Ok(started) = Ready::start() {
                ready.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(started);
            }
        });
    }
}

impl Run for Attempts {
    async fn run(
        &self,
        order: Order,
        stop: oneshot::Receiver<Stop>,
        mut progress: impl FnMut(v1::Progress) + Send,
    ) -> Option<v1::JobResult> {
        let start = Start::now();
        let result = match self.start(&order) {
            Ok(process) => process.keep(&order, stop, &mut progress).await?,
            Err(error) => {
                let failure =
                    Failure::new(ErrorCode::Internal, format!("the attempt's process could not be started: {error}"));
                outcome::without_answer(&failure, "", v1::Metrics::default())
            }
        };
        Some(outcome::complete(result, &order.document, self.settings.worker_id.as_str(), order.attempt, start))
    }
}

/// A process that waits for its order, and the tasks that listen to it.
#[derive(Debug)]
struct Ready {
    child: Child,
    stdin: ChildStdin,
    frames: mpsc::Receiver<io::Result<(Kind, Vec<u8>)>>,
    stderr: JoinHandle<VecDeque<String>>,
}

impl Ready {
    fn start() -> io::Result<Self> {
        // The link still names the running program when its file was replaced by an upgrade.
        let mut child = Command::new("/proc/self/exe")
            .arg(SUBCOMMAND)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let (sender, frames) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut stdout = BufReader::new(stdout);
            while let Some(frame) = frame::read_async(&mut stdout).await.transpose() {
                let over = frame.is_err();
                if sender.send(frame).await.is_err() || over {
                    break;
                }
            }
        });
        Ok(Self { child, stdin, frames, stderr: tokio::spawn(log_lines(stderr)) })
    }

    fn alive(mut self) -> Option<Self> {
        matches!(self.child.try_wait(), Ok(None)).then_some(self)
    }

    fn give(self, settings: &Settings, order: &Order) -> io::Result<Process> {
        let written = child::Order {
            keeper: std::process::id(),
            images: settings.images.clone(),
            keys: settings.keys.clone(),
            rules: settings.rules.clone(),
            outputs: settings.outputs.clone(),
            unique: format!("{}.{}.{}", order.document.job_id, settings.worker_id, order.attempt),
            timeout_seconds: order.timeout.as_secs().max(1),
        };
        let mut bytes = frame::encode(Kind::Order, &serde_json::to_vec(&written)?)?;
        bytes.extend(frame::encode(Kind::Document, &order.document.encode_to_vec())?);
        let Self { child, mut stdin, frames, stderr } = self;
        let stdin = tokio::spawn(async move {
            stdin.write_all(&bytes).await?;
            Ok(stdin)
        });
        Ok(Process { child, frames, stdin, stderr })
    }
}

/// A running process, and the tasks that listen to it.
struct Process {
    child: Child,
    frames: mpsc::Receiver<io::Result<(Kind, Vec<u8>)>>,
    /// Feeds the order; then holds the pipe open, because its end tells the process that the keeper is gone.
    stdin: JoinHandle<io::Result<ChildStdin>>,
    /// The last lines of standard error.
    stderr: JoinHandle<VecDeque<String>>,
}

/// What the process has told until now.
#[derive(Default)]
struct Heard {
    phase: String,
    percent: f64,
    metrics: v1::Metrics,
}

/// Why listening ended.
enum End {
    /// The process gave its result, which is the last thing it has to say.
    Done(Box<v1::JobResult>),
    /// The process closed its pipe.
    Silence,
    /// The process said something that makes no sense.
    Nonsense(String),
    /// Its time is over.
    Timeout,
    /// Somebody asked.
    Stopped(Stop),
}

/// How long a process may take to exit once it has closed its pipe.
const EXIT_TIME_MAX: Duration = Duration::from_secs(5);

impl Process {
    async fn keep(
        mut self,
        order: &Order,
        stop: oneshot::Receiver<Stop>,
        progress: &mut (impl FnMut(v1::Progress) + Send),
    ) -> Option<v1::JobResult> {
        let mut heard = Heard::default();
        let deadline = Instant::now() + order.timeout;
        let end = self.listen(deadline, stop, &mut heard, progress).await;
        let status = match end {
            End::Done(result) => {
                // It has nothing more to do, and is not waited for.
                tokio::spawn(async move {
                    // Its end is not told to anybody.
                    let _ = self.kill().await;
                    self.stdin.abort();
                });
                return Some(*result);
            }
            End::Silence => self.exited().await,
            _ => {
                if let Some(pid) = self.child.id() {
                    usage::refresh(&mut heard.metrics, pid);
                }
                self.kill().await
            }
        };
        self.stdin.abort();
        let last_words = self.stderr.await.unwrap_or_default();
        let failure = match end {
            End::Stopped(Stop::Abandon) => return None,
            End::Stopped(Stop::Cancel { reason }) => Failure::new(ErrorCode::Cancelled, reason),
            End::Timeout => Failure::new(
                order.timeout_code,
                format!("the attempt was ended after {} seconds", order.timeout.as_secs_f64()),
            )
            .with("timeout_seconds", order.timeout.as_secs_f64()),
            End::Nonsense(what) => {
                Failure::new(ErrorCode::HandlerCrashed, format!("the attempt's process broke off: {what}"))
            }
            End::Done(result) => return Some(*result),
            End::Silence => crashed(status, &last_words),
        };
        Some(outcome::without_answer(&failure, &heard.phase, heard.metrics))
    }

    async fn listen(
        &mut self,
        deadline: Instant,
        mut stop: oneshot::Receiver<Stop>,
        heard: &mut Heard,
        progress: &mut (impl FnMut(v1::Progress) + Send),
    ) -> End {
        let mut stoppable = true;
        loop {
            tokio::select! {
                biased;
                // First, so that a process which never stops talking cannot outrun its deadline.
                () = sleep_until(deadline) => return End::Timeout,
                asked = &mut stop, if stoppable => match asked {
                    Ok(asked) => return End::Stopped(asked),
                    // Nobody is there to ask any more.
                    Err(_) => stoppable = false,
                },
                frame = self.frames.recv() => match frame {
                    None => return End::Silence,
                    Some(frame) => {
                        match frame.and_then(|(kind, body)| heard.take_in(kind, &body, progress)) {
                            Ok(None) => {}
                            Ok(Some(result)) => return End::Done(result),
                            Err(error) => return End::Nonsense(error.to_string()),
                        }
                    }
                },
            }
        }
    }

    /// Waits for a process that has nothing more to say.
    async fn exited(&mut self) -> io::Result<ExitStatus> {
        match tokio::time::timeout(EXIT_TIME_MAX, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => self.kill().await,
        }
    }

    /// Ends the process group. The leader has not been reaped while it has an id, so the group is still ours.
    async fn kill(&mut self) -> io::Result<ExitStatus> {
        let group = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(group) = group {
            // Fails only where the whole group is gone already.
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.child.wait().await
    }
}

impl Heard {
    /// Takes in what was said; the result, when that was it.
    fn take_in(
        &mut self,
        kind: Kind,
        body: &[u8],
        progress: &mut impl FnMut(v1::Progress),
    ) -> io::Result<Option<Box<v1::JobResult>>> {
        let invalid = |error: prost::DecodeError| io::Error::new(io::ErrorKind::InvalidData, error);
        match kind {
            Kind::Sandbox => tell_sandbox(&String::from_utf8_lossy(body)),
            Kind::Metrics => self.metrics = v1::Metrics::decode(body).map_err(invalid)?,
            Kind::Done => return Ok(Some(Box::new(v1::JobResult::decode(body).map_err(invalid)?))),
            Kind::Progress => {
                let mut told = v1::Progress::decode(body).map_err(invalid)?;
                self.percent = told.progress_percent.clamp(self.percent, 100.0);
                told.progress_percent = self.percent;
                self.phase.clone_from(&told.phase);
                progress(told);
            }
            Kind::Order | Kind::Document => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{kind:?} from the wrong side")));
            }
        }
        Ok(None)
    }
}

/// Says once per worker how strict the kernel makes its attempts' sandboxes; it is the same for all of them.
fn tell_sandbox(level: &str) {
    static TOLD: std::sync::Once = std::sync::Once::new();
    TOLD.call_once(|| match level {
        "full" => tracing::info!("attempts run in a sandbox; the kernel enforces all of its rules"),
        "partial" => {
            tracing::warn!("attempts run in a sandbox; the kernel enforces the part of its rules that it knows");
        }
        _ => tracing::warn!("attempts run without file and network rules: the kernel has no Landlock, or it is off"),
    });
}

/// Why a process ended without an answer.
fn crashed(status: io::Result<ExitStatus>, last_words: &VecDeque<String>) -> Failure {
    let said = last_words.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
    let failure = match status {
        // What the standard library says before it aborts because the bound on memory was met.
        _ if said.contains("memory allocation of") => {
            Failure::new(ErrorCode::LimitExceeded, "the attempt's process ran out of the memory it may use")
                .with("limit", "memory")
        }
        Err(error) => Failure::new(ErrorCode::HandlerCrashed, format!("the attempt's process was lost: {error}")),
        Ok(status) => match (status.signal(), status.code()) {
            (Some(signal), _) => {
                let name = signal_name(signal);
                Failure::new(ErrorCode::HandlerCrashed, format!("the attempt's process was killed by {name}"))
                    .with("signal", name)
            }
            (None, code) => {
                let code = code.unwrap_or(-1);
                Failure::new(
                    ErrorCode::HandlerCrashed,
                    format!("the attempt's process exited with code {code} and without an answer"),
                )
                .with("exit_code", code)
            }
        },
    };
    if said.is_empty() { failure } else { failure.with("last_words", said) }
}

/// A signal by the name signal(7) gives it.
fn signal_name(signal: i32) -> String {
    const NAMES: [(Signal, &str); 10] = [
        (Signal::ABORT, "SIGABRT"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::BUS, "SIGBUS"),
        (Signal::ILL, "SIGILL"),
        (Signal::FPE, "SIGFPE"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::SYS, "SIGSYS"),
    ];
    NAMES
        .iter()
        .find(|(known, _)| known.as_raw() == signal)
        .map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

/// Lines of standard error that are kept to be told: enough for a panic's message and place.
const LAST_WORDS_LINES: usize = 8;
/// Bytes of one line that are kept; the rest of a longer line becomes the next line.
const LINE_BYTES_MAX: u64 = 1024;
/// Lines that reach the log; a process that says more has gone mad.
const LOGGED_LINES_MAX: usize = 200;

async fn log_lines(stderr: impl AsyncRead + Unpin) -> VecDeque<String> {
    let mut stderr = BufReader::new(stderr);
    let mut last = VecDeque::new();
    let mut line = Vec::new();
    let mut seen = 0_usize;
    loop {
        line.clear();
        match (&mut stderr).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return last,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        seen = seen.saturating_add(1);
        if seen <= LOGGED_LINES_MAX {
            tracing::warn!("attempt's process: {text}");
        }
        if last.len() == LAST_WORDS_LINES {
            last.pop_front();
        }
        last.push_back(text);
    }
}
