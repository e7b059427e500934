//! Tables as Markdown, and the aims with their verdicts.

use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

/// What was aimed at and what came out.
#[derive(Default)]
pub(crate) struct Report {
    aims: Vec<[String; 4]>,
}

/// Which way a figure is good, and how good it is to be; `bound` is what it may not miss even where the aim is missed.
#[derive(Clone, Copy)]
pub(crate) enum Aim {
    AtLeast { aim: f64, bound: f64 },
    AtMost { aim: f64, bound: f64 },
}

impl Aim {
    pub(crate) fn at_least(aim: f64) -> Self {
        Self::AtLeast { aim, bound: aim }
    }

    pub(crate) fn at_most(aim: f64) -> Self {
        Self::AtMost { aim, bound: aim }
    }

    /// The words for the table: what is wanted, and whether it is met.
    fn judge(self, value: f64, unit: &str) -> (String, String) {
        let (sign, aim, bound, met, kept) = match self {
            Self::AtLeast { aim, bound } => ("≥", aim, bound, value >= aim, value >= bound),
            Self::AtMost { aim, bound } => ("≤", aim, bound, value <= aim, value <= bound),
        };
        let mut wanted = format!("{sign} {}", quantity(aim, unit));
        if (bound - aim).abs() > f64::EPSILON {
            wanted.push_str(&format!(", never beyond {}", quantity(bound, unit)));
        }
        let off = |from: f64| format!("{:.0} %", (value - from).abs() / from * 100.0);
        let verdict = match (met, kept) {
            (true, _) => format!("met, {} to spare", off(aim)),
            (false, true) => format!("aim missed by {}, bound kept", off(aim)),
            (false, false) => format!("**missed by {}**", off(aim)),
        };
        (wanted, verdict)
    }
}

/// A number with its unit, as precise as anybody wants it.
pub(crate) fn quantity(value: f64, unit: &str) -> String {
    let number = match value.abs() {
        size if size >= 1000.0 => thousands(value),
        size if size >= 100.0 || (size - size.round()).abs() < 1e-9 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    if unit.is_empty() { number } else { format!("{number} {unit}") }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

impl Report {
    /// Sets a figure against its aim.
    pub(crate) fn aim(&mut self, what: &str, value: f64, unit: &str, aim: Aim) {
        let (wanted, verdict) = aim.judge(value, unit);
        self.aims.push([what.to_owned(), wanted, quantity(value, unit), verdict]);
    }

    /// Prints every aim.
    pub(crate) fn verdicts(&self) {
        if !self.aims.is_empty() {
            table("Aims", &["figure", "aim", "measured", "verdict"], &self.aims);
        }
    }
}

/// Prints one table under its heading.
pub(crate) fn table<const N: usize>(heading: &str, columns: &[&str; N], rows: &[[String; N]]) {
    let mut text = format!("\n### {heading}\n\n| {} |\n|{}\n", columns.join(" | "), "---|".repeat(N));
    for row in rows {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    say(text);
}

/// A line of the result.
pub(crate) fn say(text: impl Display) {
    // A closed terminal is no reason to stop measuring.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A line about what went wrong or goes on; no part of the result.
pub(crate) fn complain(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "bench: {text}");
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Times in ascending order, and their percentiles.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// In milliseconds; 0 where nothing was measured.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let at = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().map_or(0.0, millis)
    }

    pub(crate) fn p50_p99(&self) -> String {
        format!("{:.1} / {:.1} ms", self.percentile(50), self.percentile(99))
    }
}
