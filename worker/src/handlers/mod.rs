//! What a worker can do: one handler per operation behind one trait, found through one registry. A handler turns a
//! checked document into a report or a failure; it knows nothing of leases, folders or processes.

mod echo;
mod image;
mod inspect;
mod profile;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use guestkit_domain::ErrorCode;
use guestkit_protocol::{convert, document, v1};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::output::OutputRoots;
use crate::roots::{ImageRoots, KeysRoot};
use crate::rules::RulesFolder;
use crate::usage::{Account, Meter};

pub use echo::Echo;
pub use inspect::Inspect;
pub use profile::ProfileImage;

/// One attempt, as a handler sees it.
#[derive(Debug)]
pub struct Job<'a> {
    /// What was asked for; already checked.
    pub document: &'a v1::JobDocument,
    /// Which images may be opened.
    pub images: &'a ImageRoots,
    /// Where keys lie that the document names.
    pub keys_root: &'a KeysRoot,
    /// Keys that whoever runs it holds, tried beside those.
    pub keys: &'a guestkit::Keys,
    /// Where reports may be written.
    pub outputs: &'a OutputRoots,
    /// The operator's own rules for profiles.
    pub rules: &'a RulesFolder,
    /// Tells this attempt from all others that may write to the same folder; fit for a file name.
    pub unique: &'a str,
    /// Whether the process exists for this attempt alone.
    pub own_process: bool,
    /// What the attempt moves.
    pub account: &'a Account,
}

/// What a handler found.
#[derive(Debug, Default)]
pub struct Success {
    /// The report as the JSON of its message; taken in strictly.
    pub report: Value,
    /// Files that were written.
    pub outputs: Option<v1::Outputs>,
    /// Why the job has failed all the same, where the document wants what was found to be a failure.
    pub verdict: Option<Failure>,
}

/// Does one operation.
pub trait Handler: std::fmt::Debug + Send + Sync {
    /// The operation, such as `guestkit.inspect`.
    fn operation(&self) -> &'static str;

    /// What it reads, such as `disk.qcow2`; announced to the fleet.
    fn capabilities(&self) -> Vec<String> {
        Vec::new()
    }

    /// Runs one attempt.
    ///
    /// # Errors
    /// Whatever kept it from a report.
    fn run(&self, job: &Job<'_>, reporter: &mut Reporter<'_>) -> Result<Success, Failure>;
}

/// The way progress takes out of a handler.
pub struct Reporter<'a> {
    sink: &'a mut dyn FnMut(v1::Progress),
    percent: f64,
    phase: String,
}

impl std::fmt::Debug for Reporter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("percent", &self.percent).field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl<'a> Reporter<'a> {
    /// A reporter at 0 %, before any phase.
    pub fn new(sink: &'a mut dyn FnMut(v1::Progress)) -> Self {
        Self { sink, percent: 0.0, phase: String::new() }
    }

    /// Enters `phase`, or goes on in it. A percentage below an earlier one is raised to it.
    pub fn report(&mut self, phase: &str, percent: f64, message: impl Into<String>, details: Map<String, Value>) {
        self.percent = percent.clamp(self.percent, 100.0);
        phase.clone_into(&mut self.phase);
        (self.sink)(v1::Progress {
            phase: phase.into(),
            progress_percent: self.percent,
            message: message.into(),
            details: (!details.is_empty()).then(|| convert::to_struct(&details)),
            ..Default::default()
        });
    }

    /// The phase reached.
    #[must_use]
    pub fn phase(&self) -> &str {
        &self.phase
    }
}

/// The handlers of this worker, by operation.
#[derive(Debug)]
pub struct Registry {
    handlers: BTreeMap<&'static str, Box<dyn Handler>>,
}

impl Default for Registry {
    /// Every handler there is.
    fn default() -> Self {
        let handlers: [Box<dyn Handler>; 3] = [Box::new(Echo), Box::new(Inspect), Box::new(ProfileImage)];
        Self { handlers: handlers.into_iter().map(|handler| (handler.operation(), handler)).collect() }
    }
}

impl Registry {
    /// The operations, sorted.
    #[must_use]
    pub fn operations(&self) -> Vec<&'static str> {
        self.handlers.keys().copied().collect()
    }

    /// What the handlers read, sorted.
    #[must_use]
    pub fn capabilities(&self) -> Vec<String> {
        let mut all: Vec<_> = self.handlers.values().flat_map(|handler| handler.capabilities()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Runs the document's handler. The result has its status, report, outputs, metrics and error; who ran it, when and
    /// which attempt it was is for the caller to fill in.
    pub fn execute(&self, job: &Job<'_>, meter: &Meter, progress: &mut dyn FnMut(v1::Progress)) -> v1::JobResult {
        let mut reporter = Reporter::new(progress);
        // A third-party reader that panics on a hostile image is caught here; what it was doing is dropped with it.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.run(job, &mut reporter)))
            .unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
        let mut result = match outcome {
            Ok(result) => result,
            Err(failure) => v1::JobResult {
                status: "failed".into(),
                error: Some(failure.to_job_error(reporter.phase())),
                ..Default::default()
            },
        };
        result.metrics = Some(meter.metrics(job.account));
        result
    }

    fn run(&self, job: &Job<'_>, reporter: &mut Reporter<'_>) -> Result<v1::JobResult, Failure> {
        let operation = job.document.operation.as_str();
        let handler = self.handlers.get(operation).ok_or_else(|| {
            Failure::new(ErrorCode::UnsupportedOperation, format!("this worker has no handler for {operation:?}"))
        })?;
        let success = handler.run(job, reporter)?;
        let status = if success.verdict.is_some() { "failed" } else { "completed" };
        let error = success.verdict.map(|failure| failure.to_job_error(reporter.phase()));
        let mut result = v1::JobResult { status: status.into(), outputs: success.outputs, error, ..Default::default() };
        document::set_report(&mut result, operation, success.report).map_err(|error| {
            Failure::new(ErrorCode::Internal, format!("the report does not fit its message: {error}"))
        })?;
        Ok(result)
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Failure::new(ErrorCode::HandlerCrashed, format!("the handler panicked: {}", text.unwrap_or("without a message")))
}

/// The document's payload as its typed message.
fn payload<T>(decoded: Result<T, impl std::fmt::Display>) -> Result<T, Failure> {
    decoded.map_err(|error| Failure::new(ErrorCode::ValidationError, format!("payload.data: {error}")))
}
