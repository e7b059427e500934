//! Progress on standard error: a bar per job on a terminal, a line per step elsewhere, nothing when asked to be quiet.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use guestkit_protocol::v1;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::follow::Heard;
use crate::table::{job, plain};

/// Jobs that get a bar of their own; more share one that counts them, because a terminal has no room for each.
const BARS_MAX: usize = 16;
/// How often bars move while nothing is heard.
const TICK: Duration = Duration::from_millis(120);

/// Where the progress of all jobs of this command is shown.
#[derive(Debug)]
pub(crate) enum Board {
    /// Nowhere.
    Silent,
    /// A line per step.
    Lines,
    /// A bar per job.
    Bars { bars: MultiProgress, color: bool },
    /// One bar that counts jobs.
    Count(ProgressBar),
}

impl Board {
    /// The board for so many jobs.
    pub(crate) fn new(jobs: usize, quiet: bool, color: bool) -> Self {
        if quiet {
            return Self::Silent;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines;
        }
        if jobs <= BARS_MAX {
            return Self::Bars { bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()), color };
        }
        let bar = ProgressBar::with_draw_target(Some(jobs as u64), ProgressDrawTarget::stderr());
        bar.set_style(style("{spinner} [{bar:32}] {pos} of {len} jobs over  {elapsed}  {wide_msg}"));
        bar.enable_steady_tick(TICK);
        Self::Count(bar)
    }

    /// A row for one job.
    pub(crate) fn row(&self, job_id: &str) -> Row {
        let job_id = plain(job_id).into_owned();
        match self {
            Self::Silent => Row::Silent,
            Self::Lines => Row::Lines { job_id },
            Self::Bars { bars, color } => Row::Bar { bar: new_bar(bars, job_id, *color), color: *color },
            Self::Count(bar) => Row::Count { bar: bar.clone(), job_id },
        }
    }

    /// Leaves bars that stand for what they last showed.
    pub(crate) fn leave(&self) {
        if let Self::Count(bar) = self {
            bar.abandon();
        }
    }
}

fn new_bar(bars: &MultiProgress, job_id: String, color: bool) -> ProgressBar {
    let bar = bars.add(ProgressBar::new(100).with_prefix(job_id));
    // A minted job id has 36 characters: in 80 columns this leaves 20 for the message.
    bar.set_style(style(if color {
        "{spinner:.cyan} {prefix:.bold} [{bar:16.cyan}] {percent:>3}% {wide_msg}"
    } else {
        "{spinner} {prefix} [{bar:16}] {percent:>3}% {wide_msg}"
    }));
    bar.enable_steady_tick(TICK);
    bar
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; a typo in one would show as the plain bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// Errors are left alone: a closed standard error must not end the work.
fn write_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The progress of one job.
#[derive(Debug)]
pub(crate) enum Row {
    /// Not shown.
    Silent,
    /// A line per step.
    Lines { job_id: String },
    /// A bar.
    Bar { bar: ProgressBar, color: bool },
    /// Counted with the others.
    Count { bar: ProgressBar, job_id: String },
}

impl Row {
    /// What was heard of the job.
    pub(crate) fn heard(&self, heard: Heard<'_>) {
        match heard {
            Heard::Event(event) => {
                self.show(event.progress.as_ref().map(|step| step.progress_percent), &job::event(event));
            }
            Heard::Waiting(reason) => self.show(None, &format!("waiting: {reason}")),
            Heard::Lost(failure) => self.show(None, &format!("connection lost, trying again: {failure}")),
        }
    }

    /// A step of work that is done right here.
    pub(crate) fn step(&self, phase: &str, percent: f64, message: &str) {
        let step = v1::Progress {
            phase: phase.to_owned(),
            progress_percent: percent,
            message: message.to_owned(),
            ..Default::default()
        };
        self.show(Some(percent), &job::progress(&step));
    }

    fn show(&self, percent: Option<f64>, line: &str) {
        let line = plain(line);
        match self {
            Self::Silent | Self::Count { .. } => {}
            Self::Lines { job_id } => write_line(&format!("[{job_id}] {line}")),
            Self::Bar { bar, .. } => {
                if let Some(percent) = percent {
                    bar.set_position(percent.clamp(0.0, 100.0) as u64);
                }
                bar.set_message(line.into_owned());
            }
        }
    }

    /// The job is over. The line of a row of lines was its last event.
    pub(crate) fn over(&self, completed: bool, word: &str) {
        match self {
            Self::Silent | Self::Lines { .. } => {}
            Self::Bar { bar, color } => {
                let mark = match (completed, color) {
                    (true, true) => "\u{1b}[32m✔\u{1b}[0m",
                    (true, false) => "✔",
                    (false, true) => "\u{1b}[31m✘\u{1b}[0m",
                    (false, false) => "✘",
                };
                bar.set_style(style(&format!("{mark} {{prefix}}  {{elapsed}}  {{wide_msg}}")));
                bar.abandon_with_message(plain(word).into_owned());
            }
            Self::Count { bar, job_id } => {
                if !completed {
                    bar.suspend(|| write_line(&format!("[{job_id}] {}", plain(word))));
                }
                bar.inc(1);
            }
        }
    }
}
