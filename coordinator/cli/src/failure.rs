//! Why a command did not do what it was asked, and the exit code a script sees.

use std::io::Write;
use std::process::ExitCode;

use guestkit_protocol::status::{Reason, Refusal};
use tonic::{Code, Status};

use crate::table::{plain, seconds};

/// Exit code of a job that did not complete, or of a command that failed.
pub(crate) const FAILED: u8 = 1;
/// Exit code of wrong usage; clap ends with the same.
pub(crate) const USAGE: u8 = 2;
/// Exit code of a refusal.
pub(crate) const REFUSED: u8 = 3;
/// Exit code when no coordinator answers.
pub(crate) const UNREACHABLE: u8 = 4;
/// Exit code of a profile that found something critical, where that was to be told.
pub(crate) const FINDINGS: u8 = 5;
/// Exit code of an interrupt: 128 and the number of SIGINT, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// What was typed, or a file that was named, cannot be used.
    #[error("{message}")]
    Usage {
        /// What, where and what to do.
        message: String,
    },
    /// The request was not taken.
    #[error("{}", headline(subject, refusal))]
    Refused {
        /// What was refused: a file's name, a job, a request.
        subject: String,
        /// Why.
        refusal: Box<Refusal>,
    },
    /// The coordinator answered something else than a typed refusal.
    #[error("the coordinator could not do it ({code:?}): {message}")]
    Server {
        /// The status code.
        code: Code,
        /// Its text.
        message: String,
    },
    /// No coordinator could be reached.
    #[error("cannot reach a coordinator: {cause}")]
    Unreachable {
        /// What was tried, and why it did not work.
        cause: String,
        /// What to do.
        advice: String,
    },
    /// The work itself failed, here.
    #[error("{message}")]
    Work {
        /// What failed and why.
        message: String,
    },
    /// Standard output could not be written.
    #[error("cannot write to standard output: {source}")]
    Write {
        /// Why.
        source: std::io::Error,
    },
    /// A job is over and did not complete: it was told already.
    #[error("the job did not complete")]
    NotCompleted,
    /// A profile found something critical, and that was to be a failure.
    #[error("{message}")]
    Findings {
        /// Which.
        message: String,
    },
    /// Several things failed; each was told already.
    #[error("not everything succeeded")]
    Several {
        /// The exit code of the gravest.
        code: u8,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted {
        /// Jobs that go on.
        jobs: Vec<String>,
    },
}

impl Failure {
    /// Wrong usage.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into() }
    }

    /// A refusal of `subject`.
    pub(crate) fn refused(subject: impl Into<String>, refusal: Refusal) -> Self {
        Self::Refused { subject: subject.into(), refusal: Box::new(refusal) }
    }

    /// What a call's status means for a request about `subject`, sent to `endpoints`.
    pub(crate) fn of_status(subject: &str, endpoints: &str, status: &Status) -> Self {
        if is_passing(status) && status.code() != Code::ResourceExhausted {
            return Self::unreachable(format!("{endpoints}: {}", text(status)));
        }
        if let Some(refusal) = Refusal::from_status(status) {
            return Self::refused(subject, refusal);
        }
        Self::Server { code: status.code(), message: text(status) }
    }

    /// No coordinator; `cause` names each endpoint.
    pub(crate) fn unreachable(cause: impl Into<String>) -> Self {
        let advice =
            "start one with `guestkit-coordinator serve`, or name another with --coordinator or GUESTKIT_COORDINATOR";
        Self::Unreachable { cause: cause.into(), advice: advice.to_owned() }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage { .. } => USAGE,
            Self::Refused { .. } => REFUSED,
            // An answer that no refusal of ours stands behind: a method that an older coordinator does not have is a
            // refusal all the same, anything else is a failure.
            Self::Server { code: Code::Unimplemented | Code::Unauthenticated | Code::PermissionDenied, .. } => REFUSED,
            Self::Unreachable { .. } => UNREACHABLE,
            Self::Server { .. } | Self::Work { .. } | Self::Write { .. } | Self::NotCompleted => FAILED,
            Self::Findings { .. } => FINDINGS,
            Self::Several { code } => *code,
            Self::Interrupted { .. } => INTERRUPTED,
        }
    }

    /// Says on standard error what went wrong, where, and what to do.
    pub(crate) fn tell(&self) {
        // A closed standard error is no reason to fail in another way.
        let _ = std::io::stderr().write_all(self.text().as_bytes());
    }

    fn text(&self) -> String {
        let headline = format!("guestkit: {}\n", plain(&self.to_string()));
        match self {
            Self::NotCompleted | Self::Several { .. } => String::new(),
            Self::Refused { refusal, .. } => headline + &refused(refusal),
            Self::Unreachable { advice, .. } => format!("{headline}  {advice}\n"),
            Self::Interrupted { jobs } => interrupted(jobs),
            _ => headline,
        }
    }
}

/// What is not there was not refused: it is missing.
fn headline(subject: &str, refusal: &Refusal) -> String {
    match refusal.reason {
        Reason::JobNotFound | Reason::WorkerNotFound | Reason::ArtifactNotFound => refusal.message.clone(),
        _ => format!("{subject} was refused: {}", refusal.message),
    }
}

fn refused(refusal: &Refusal) -> String {
    let mut text = String::new();
    for problem in &refusal.problems {
        match problem.field.as_str() {
            "" => text.push_str(&format!("  {}\n", plain(&problem.description))),
            field => text.push_str(&format!("  {}: {}\n", plain(field), plain(&problem.description))),
        }
    }
    if let Some(delay) = refusal.retry_after {
        text.push_str(&format!("  try again in {}\n", seconds(delay.as_secs_f64())));
    }
    text
}

/// Jobs named after an interrupt before the rest is counted.
const JOBS_NAMED_MAX: usize = 10;

fn interrupted(jobs: &[String]) -> String {
    if jobs.is_empty() {
        return "guestkit: interrupted\n".to_owned();
    }
    let mut text = "guestkit: interrupted; what was submitted goes on\n".to_owned();
    for job in jobs.iter().take(JOBS_NAMED_MAX) {
        let job = plain(job);
        text.push_str(&format!("  follow it: guestkit watch {job}    end it: guestkit cancel {job}\n"));
    }
    if jobs.len() > JOBS_NAMED_MAX {
        text.push_str(&format!("  and {} more: guestkit list\n", jobs.len() - JOBS_NAMED_MAX));
    }
    text
}

/// Whether a status may be gone at the next try: the connection broke, the coordinator restarts, or a reader was too slow.
pub(crate) fn is_passing(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::ResourceExhausted
        | Code::Unknown => true,
        // A stream that was reset shows as an internal fault whose cause is the transport's; ours carry a refusal.
        Code::Internal => Refusal::from_status(status).is_none(),
        _ => false,
    }
}

/// A status in words, with the cause that the transport has for it.
pub(crate) fn text(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let error_text = error.to_string();
        if !text.contains(&error_text) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&error_text);
        }
        cause = error.source();
    }
    if text.is_empty() { format!("{:?}", status.code()) } else { text }
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        Self::from(failure.code())
    }
}

#[cfg(test)]
mod tests {
    use guestkit_protocol::status::problem;

    use super::*;

    #[test]
    fn a_refusal_lists_every_problem_on_its_own_line() {
        let mut refusal = Refusal::new(Reason::InvalidDocument, "the job document has 2 problems");
        refusal.problems = vec![problem("execution.priority", "must be 1 to 10, is 11"), problem("", "and\nmore")];
        let failure = Failure::refused("job.json", refusal);
        assert_eq!(
            failure.text(),
            "guestkit: job.json was refused: the job document has 2 problems\n  execution.priority: must be 1 to 10, is 11\n  and more\n"
        );
        assert_eq!(failure.code(), REFUSED);
    }

    #[test]
    fn statuses_have_the_exit_code_of_their_meaning() {
        let check = |status: Status, code: u8| {
            assert_eq!(Failure::of_status("it", "http://a", &status).code(), code, "{status:?}");
        };
        for &reason in Reason::ALL {
            let passing = matches!(reason, Reason::Unavailable | Reason::NotLeader | Reason::TooSlow);
            let code = if passing { UNREACHABLE } else { REFUSED };
            check(Refusal::new(reason, "no").into(), code);
        }
        check(Status::unavailable("connection refused"), UNREACHABLE);
        check(Status::unimplemented(""), REFUSED);
        check(Status::data_loss("gone"), FAILED);
    }

    #[test]
    fn an_interrupt_says_what_goes_on() {
        let failure = Failure::Interrupted { jobs: vec!["job-00000001".into()] };
        assert!(failure.text().contains("guestkit watch job-00000001"));
        assert!(failure.text().contains("guestkit cancel job-00000001"));
        let many = Failure::Interrupted { jobs: vec!["job-00000001".into(); 12] };
        assert!(many.text().ends_with("  and 2 more: guestkit list\n"));
    }
}
