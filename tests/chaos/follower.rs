//! A follower of all jobs that lives through everything: it must be told each entry of each job exactly once, in order,
//! however often its stream breaks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use guestkit_protocol::{client, v1};
use v1::watch_all_response::Change;

use crate::door::{Door, is_passing};

/// What it was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Of each job, each entry's revision and state; their positions are the sequence numbers.
    pub(crate) jobs: HashMap<String, Vec<(u64, v1::JobState)>>,
    /// Whether it has been shown where it starts.
    pub(crate) begun: bool,
    /// The revision to resume from.
    revision: u64,
    pub(crate) events: u64,
    pub(crate) reconnects: u64,
    /// What may not happen.
    pub(crate) faults: Vec<String>,
}

impl Told {
    pub(crate) fn hear(&mut self, answer: v1::WatchAllResponse) {
        match answer.change {
            Some(Change::Event(event)) => self.event(&event),
            // Nothing was submitted yet when it began, so the first state is empty and no later one is asked for.
            Some(Change::Snapshot(job)) => self.faults.push(format!("a snapshot of {} after the start", job.job_id)),
            Some(Change::Deleted(job)) => self.faults.push(format!("{} is gone, which nobody deleted", job.job_id)),
            Some(Change::Compacted(_)) => self.faults.push("the history was compacted".into()),
            Some(Change::SnapshotEnd(_)) => self.begun = true,
            None => {}
        }
        self.revision = answer.revision;
    }

    fn event(&mut self, event: &v1::JobEvent) {
        self.events += 1;
        let known = self.jobs.entry(event.job_id.clone()).or_default();
        if event.sequence != known.len() as u64 + 1 {
            self.faults.push(format!("{}: entry {} came after {} entries", event.job_id, event.sequence, known.len()));
        }
        if event.revision <= self.revision {
            self.faults.push(format!("revision {} came after {}", event.revision, self.revision));
        }
        known.push((event.revision, event.state()));
    }

    /// The state that a job was told to be in.
    pub(crate) fn state(&self, job_id: &str) -> Option<v1::JobState> {
        Some(self.jobs.get(job_id)?.last()?.1)
    }
}

/// What all share.
pub(crate) type Shared = Arc<Mutex<Told>>;

/// Follows for ever.
pub(crate) async fn follow(mut door: Door, told: Shared) {
    loop {
        let mut jobs = client::jobs(door.channel().await);
        let after_revision = told.lock().unwrap().revision;
        let status = match jobs.watch_all(v1::WatchAllRequest { filter: None, after_revision }).await {
            Err(status) => Some(status),
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(answer)) => told.lock().unwrap().hear(answer),
                        Ok(None) => break None,
                        Err(status) => break Some(status),
                    }
                }
            }
        };
        {
            let mut told = told.lock().unwrap();
            told.reconnects += 1;
            if let Some(status) = status.filter(|status| !is_passing(status)) {
                told.faults.push(format!("the watch was refused: {status}"));
            }
        }
        door.elsewhere().await;
    }
}
