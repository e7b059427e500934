//! Workers and counts, as tables.

use guestkit_domain::Time;
use guestkit_protocol::v1;

use super::{Pairs, Sheet, Text, Tone, bytes, labels, names, seconds};
use crate::instant;

/// Workers, one per row. `now` is what "heard" counts from.
pub(crate) fn workers(workers: &[v1::Worker], now: Time) -> Sheet {
    let rows = workers.iter().map(|worker| worker_row(worker, now)).collect();
    Sheet::default()
        .grid(&["WORKER", "STATE", "POOL", "JOBS/SLOTS", "VERSION", "CORES", "MEMORY", "HEARD", "OPERATIONS"], rows)
}

fn worker_row(worker: &v1::Worker, now: Time) -> Vec<Text> {
    let said = worker.description.clone().unwrap_or_default();
    vec![
        (&worker.worker_id).into(),
        state(worker.state()),
        said.pool.into(),
        Text::number(format!("{}/{}", worker.jobs.len(), said.slots)),
        said.version.into(),
        Text::number(said.cores),
        Text::number(bytes(said.memory_bytes)),
        heard(worker, now).into(),
        names(&said.operations, 8).into(),
    ]
}

/// One worker with everything that is known of it.
pub(crate) fn worker(worker: &v1::Worker, now: Time) -> Sheet {
    let said = worker.description.clone().unwrap_or_default();
    let pairs = Pairs::default()
        .put("Worker", &worker.worker_id)
        .put("State", state(worker.state()))
        .put("Pool", said.pool)
        .put("Slots", format!("{} of {} in use", worker.jobs.len(), said.slots))
        .put("Version", said.version)
        .put("Machine", said.hostname)
        .put("Cores", said.cores.to_string())
        .put("Memory", bytes(said.memory_bytes))
        .put("Free disk", bytes(said.free_disk_bytes))
        .put("Privileged", if said.privileged { "yes" } else { "no" })
        .put("Labels", labels(&said.labels))
        .put("Features", said.features.join(", "))
        .put("Operations", said.operations.join(", "))
        .put("Reads", said.capabilities.join(", "))
        .put("Image roots", said.image_roots.join(", "))
        .put("Output roots", said.output_roots.join(", "))
        .put("Connected", instant::shown(worker.connect_time.as_ref()))
        .put("Heard", heard(worker, now));
    let jobs = worker.jobs.iter().map(|held| vec![Text::new(&held.job_id), Text::number(held.lease_id)]).collect();
    Sheet::default().pairs(pairs).titled_grid("Jobs it holds", &["JOB", "LEASE"], jobs)
}

fn heard(worker: &v1::Worker, now: Time) -> String {
    match instant::since(worker.heartbeat_time.as_ref(), now) {
        Some(ago) => format!("{} ago", seconds(ago)),
        None => String::new(),
    }
}

fn state(state: v1::WorkerState) -> Text {
    let (word, tone) = match state {
        v1::WorkerState::Ready => ("ready", Tone::Good),
        v1::WorkerState::Draining => ("draining", Tone::Notice),
        v1::WorkerState::Unreachable => ("unreachable", Tone::Notice),
        v1::WorkerState::Lost => ("lost", Tone::Bad),
        v1::WorkerState::Unspecified => ("unknown", Tone::Faint),
    };
    Text::new(word).tone(tone)
}

/// Counts.
pub(crate) fn summary(counts: &v1::SummaryResponse) -> Sheet {
    let jobs = [
        ("pending", counts.pending, Tone::Plain),
        ("queued", counts.queued, Tone::Plain),
        ("assigned", counts.assigned, Tone::Notice),
        ("running", counts.running, Tone::Notice),
        ("completed", counts.completed, Tone::Good),
        ("failed", counts.failed, Tone::Bad),
        ("cancelled", counts.cancelled, Tone::Faint),
        ("timeout", counts.timeout, Tone::Bad),
    ];
    let rows = jobs
        .into_iter()
        .map(|(word, count, tone)| {
            let tone = if count == 0 { Tone::Plain } else { tone };
            vec![Text::new(word), Text::number(count).tone(tone)]
        })
        .collect();
    let fleet = Pairs::default()
        .put("Workers", format!("{} connected", counts.workers))
        .put("Slots", format!("{} of {} in use", counts.slots_in_use, counts.slots))
        .put("Ended", format!("{} in the last minute", counts.ended_last_minute));
    Sheet::default().pairs(fleet).grid(&["STATE", "JOBS"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Layout;

    #[test]
    fn a_worker_is_one_row() {
        let worker = v1::Worker {
            worker_id: "w1".into(),
            state: v1::WorkerState::Ready.into(),
            description: Some(v1::WorkerDescription {
                version: "0.1.0".into(),
                operations: vec!["guestkit.inspect".into(), "system.echo".into()],
                pool: "default".into(),
                slots: 2,
                cores: 4,
                memory_bytes: 8 << 30,
                ..Default::default()
            }),
            jobs: vec![v1::HeldJob { job_id: "job-00000001".into(), lease_id: 7 }],
            heartbeat_time: Some(prost_types::Timestamp { seconds: 100, nanos: 0 }),
            ..Default::default()
        };
        let shown = workers(&[worker], Time(103_000)).render(Layout::default());
        let words: Vec<Vec<&str>> =
            shown.lines().map(|line| line.split("  ").map(str::trim).filter(|w| !w.is_empty()).collect()).collect();
        assert_eq!(
            words,
            [
                ["WORKER", "STATE", "POOL", "JOBS/SLOTS", "VERSION", "CORES", "MEMORY", "HEARD", "OPERATIONS"],
                [
                    "w1",
                    "ready",
                    "default",
                    "1/2",
                    "0.1.0",
                    "4",
                    "8.00 GiB",
                    "3.00 s ago",
                    "guestkit.inspect, system.echo"
                ],
            ]
        );
    }

    #[test]
    fn counts_are_shown_even_when_they_are_zero() {
        let shown = summary(&v1::SummaryResponse { queued: 3, workers: 1, slots: 2, ..Default::default() })
            .render(Layout::default());
        assert!(shown.starts_with("Workers  1 connected\nSlots    0 of 2 in use\n"), "{shown}");
        assert!(shown.contains("\nqueued        3\n") && shown.contains("\nfailed        0\n"), "{shown}");
    }
}
