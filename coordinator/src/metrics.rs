//! What the coordinator counts about itself, for Prometheus. Counting is one atomic addition; nothing is counted by asking
//! the store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the commit histogram, in microseconds: from an in-memory disk to one that is in trouble.
const COMMIT_BOUNDS_MICROS: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_000_000];

/// Counters since the process started.
#[derive(Debug, Default)]
pub struct Metrics {
    commit_counts: [AtomicU64; COMMIT_BOUNDS_MICROS.len()],
    commits: AtomicU64,
    commit_micros: AtomicU64,
    commit_records: AtomicU64,
    /// Commits that the store refused.
    pub commits_failed: AtomicU64,
    /// Sessions opened by workers.
    pub sessions_opened: AtomicU64,
    /// Sessions ended because the worker did not take what was sent.
    pub sessions_slow: AtomicU64,
    /// Sessions ended because the worker said something that makes no sense.
    pub sessions_nonsense: AtomicU64,
    /// Submissions refused, for whatever reason.
    pub submits_refused: AtomicU64,
    /// Connections closed at once because there were too many.
    pub connections_refused: AtomicU64,
    /// Calls refused because their address had too many or did not take its answers.
    pub calls_refused: AtomicU64,
}

impl Metrics {
    /// Counts one commit of `records` that took `took`.
    pub fn committed(&self, records: usize, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.commit_micros.fetch_add(micros, Ordering::Relaxed);
        self.commit_records.fetch_add(records as u64, Ordering::Relaxed);
        for (bound, count) in COMMIT_BOUNDS_MICROS.iter().zip(&self.commit_counts) {
            if micros <= *bound {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Writes the counters in the Prometheus text format, version 0.0.4.
    pub fn write(&self, text: &mut PrometheusText) {
        let commits = self.commits.load(Ordering::Relaxed);
        text.family("guestkit_commit_seconds", "histogram", "Time one commit of the store took.");
        for (bound, count) in COMMIT_BOUNDS_MICROS.iter().zip(&self.commit_counts) {
            let seconds = Duration::from_micros(*bound).as_secs_f64();
            let labels = format!("{{le=\"{seconds}\"}}");
            text.sample("guestkit_commit_seconds_bucket", &labels, count.load(Ordering::Relaxed));
        }
        text.sample("guestkit_commit_seconds_bucket", "{le=\"+Inf\"}", commits);
        let seconds = Duration::from_micros(self.commit_micros.load(Ordering::Relaxed)).as_secs_f64();
        text.sample("guestkit_commit_seconds_sum", "", seconds);
        text.sample("guestkit_commit_seconds_count", "", commits);
        for (name, help, counter) in [
            ("guestkit_commit_records_total", "Records made durable.", &self.commit_records),
            ("guestkit_commits_failed_total", "Commits the store refused.", &self.commits_failed),
            ("guestkit_sessions_opened_total", "Sessions opened by workers.", &self.sessions_opened),
            ("guestkit_sessions_slow_total", "Sessions ended because the worker was slow.", &self.sessions_slow),
            ("guestkit_sessions_nonsense_total", "Sessions ended for a protocol error.", &self.sessions_nonsense),
            ("guestkit_submits_refused_total", "Submissions refused.", &self.submits_refused),
            ("guestkit_connections_refused_total", "Connections above the limits.", &self.connections_refused),
            ("guestkit_calls_refused_total", "Calls above the limits of an address.", &self.calls_refused),
        ] {
            text.family(name, "counter", help);
            text.sample(name, "", counter.load(Ordering::Relaxed));
        }
    }
}

/// A page of metrics in the Prometheus text format.
#[derive(Debug, Default)]
pub struct PrometheusText(String);

impl PrometheusText {
    /// Begins a family: its type is `counter`, `gauge` or `histogram`.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.0.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// One sample; `labels` is empty or `{name="value"}`.
    pub fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        self.0.push_str(&format!("{name}{labels} {value}\n"));
    }

    /// The page.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_counted_in_every_bucket_above_it() {
        let metrics = Metrics::default();
        metrics.committed(3, Duration::from_micros(700));
        let mut text = PrometheusText::default();
        metrics.write(&mut text);
        let text = text.into_string();
        for line in [
            "guestkit_commit_seconds_bucket{le=\"0.0005\"} 0",
            "guestkit_commit_seconds_bucket{le=\"0.001\"} 1",
            "guestkit_commit_seconds_bucket{le=\"+Inf\"} 1",
            "guestkit_commit_seconds_sum 0.0007",
            "guestkit_commit_records_total 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in {text}");
        }
    }
}
