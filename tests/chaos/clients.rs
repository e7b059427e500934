//! The users of a storm: they submit, cancel and retry, and do not give up.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::v1;
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use v1::JobState;

use crate::door::Door;
use crate::follower::Shared;
use crate::plan::Planned;

/// Submissions under way at once.
const SUBMITTERS: usize = 32;
/// Exit codes of `guestkit` (its README table): completed, not completed, no coordinator reached.
const COMPLETED: i32 = 0;
const UNREACHABLE: i32 = 4;

/// Submits each job at its time, and cancels those that are to be cancelled. Ends when every submission is acknowledged;
/// tells what was answered otherwise than it may be.
pub(crate) async fn submit(door: Door, jobs: Arc<Vec<Planned>>) -> Vec<String> {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for first in 0..SUBMITTERS {
        let (door, jobs) = (door.clone(), Arc::clone(&jobs));
        tasks.spawn(async move {
            let mut faults = Vec::new();
            let mut cancels = JoinSet::new();
            for job in jobs.iter().skip(first).step_by(SUBMITTERS) {
                sleep_until((started + job.at).into()).await;
                faults.extend(submit_one(&door, job).await.err());
                if let Some(after) = job.cancel_after {
                    cancels.spawn(cancel(door.clone(), job.job_id.clone(), after));
                }
            }
            faults.extend(cancels.join_all().await.into_iter().filter_map(Result::err));
            faults
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn submit_one(door: &Door, job: &Planned) -> Result<(), String> {
    let send = async || {
        let answer = door.clone().call(async |mut jobs| jobs.submit(job.document.clone()).await).await;
        let taken = answer.map_err(|status| format!("submission of {} refused: {status}", job.job_id))?;
        let taken = taken.into_inner().job.unwrap_or_default().job_id;
        if taken == job.job_id { Ok(()) } else { Err(format!("{} was taken as {taken}", job.job_id)) }
    };
    if job.twice {
        let (first, second) = tokio::join!(send(), send());
        return first.and(second);
    }
    send().await
}

async fn cancel(mut door: Door, job_id: String, after: Duration) -> Result<(), String> {
    tokio::time::sleep(after).await;
    let request = v1::CancelRequest { job_id: job_id.clone(), reason: "the storm's user".into() };
    match door.call(async |mut jobs| jobs.cancel(request.clone()).await).await {
        Ok(_) => Ok(()),
        Err(status) if reason(&status) == Some(Reason::AlreadyOver) => Ok(()),
        Err(status) => Err(format!("cancel of {job_id} refused: {status}")),
    }
}

fn reason(status: &tonic::Status) -> Option<Reason> {
    Refusal::from_status(status).map(|refusal| refusal.reason)
}

/// Gives new attempts to the jobs that are to have them, each when it is over for the first time; ends when the follower has
/// heard of all of them.
pub(crate) async fn retry(mut door: Door, jobs: Arc<Vec<Planned>>, told: Shared) -> Vec<String> {
    let mut faults = Vec::new();
    let mut waiting: Vec<&str> = jobs.iter().filter(|job| job.retried).map(|job| job.job_id.as_str()).collect();
    while !waiting.is_empty() {
        let over = |job_id: &&str| told.lock().unwrap().state(job_id).is_some_and(is_over);
        let (ready, rest): (Vec<&str>, Vec<&str>) = waiting.into_iter().partition(over);
        waiting = rest;
        for job_id in ready {
            let known = told.lock().unwrap().jobs[job_id].len();
            let request = v1::RetryRequest { job_id: job_id.to_owned() };
            match door.call(async |mut jobs| jobs.retry(request.clone()).await).await {
                Ok(_) => {}
                // An answer that was lost on its way: the job has its new attempts.
                Err(status) if reason(&status) == Some(Reason::NotOver) => {}
                Err(status) => {
                    faults.push(format!("retry of {job_id} refused: {status}"));
                    continue;
                }
            }
            while told.lock().unwrap().jobs[job_id].len() == known {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    faults
}

/// Whether a job is over.
pub(crate) fn is_over(state: JobState) -> bool {
    matches!(state, JobState::Completed | JobState::Failed | JobState::Cancelled | JobState::Timeout)
}

/// Somebody at a terminal: `guestkit submit --watch`, one job after the other, and again where no coordinator was reached.
/// Gives the jobs that were submitted; tells which commands did not end as they must.
pub(crate) async fn type_commands(typist: Typist, enough: Arc<AtomicBool>) -> (Vec<String>, Vec<String>) {
    let (mut jobs, mut faults) = (Vec::new(), Vec::new());
    while !enough.load(Ordering::Relaxed) {
        let job_id = format!("typed-{}-{:04}", typist.name, jobs.len());
        faults.extend(typist.submit_and_watch(&job_id).await.err());
        jobs.push(job_id);
    }
    (jobs, faults)
}

/// Somebody at a terminal.
pub(crate) struct Typist {
    pub(crate) name: String,
    pub(crate) guestkit: PathBuf,
    pub(crate) endpoints: String,
    pub(crate) folder: PathBuf,
    /// Tells when a job is over: a command that goes on then hangs.
    pub(crate) told: Shared,
}

fn typed(job_id: &str) -> String {
    serde_json::json!({
        "version": "1.0",
        "job_id": job_id,
        "kind": "VMOperation",
        "operation": "system.echo",
        // Of their own, so that a long queue of others' jobs does not keep them waiting.
        "metadata": {"namespace": "typists"},
        "execution": {"max_attempts": 50, "retry_backoff": {"initial_seconds": 0.1, "max_seconds": 1.0}},
        "payload": {"type": "system.echo.v1", "data": {"message": job_id, "duration_seconds": 0.3}},
    })
    .to_string()
}

impl Typist {
    async fn submit_and_watch(&self, job_id: &str) -> Result<(), String> {
        let file = self.folder.join(format!("{job_id}.json"));
        std::fs::write(&file, typed(job_id)).unwrap();
        loop {
            let output = tokio::process::Command::new(&self.guestkit)
                .args(["--coordinator", &self.endpoints, "submit", "--watch", "-o", "json"])
                .arg(&file)
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .output();
            let output = tokio::select! {
                output = output => output.map_err(|error| error.to_string())?,
                () = self.long_over(job_id) => return Err(format!("submit --watch of {job_id} hangs")),
            };
            let told = String::from_utf8_lossy(&output.stderr);
            match output.status.code() {
                Some(COMPLETED) => return Ok(()),
                Some(UNREACHABLE) => {}
                Some(1) if told.contains("WORKER_LOST") => return Ok(()),
                code => return Err(format!("submit --watch of {job_id} ended with {code:?}: {told}")),
            }
        }
    }

    /// Ends when a job has been over for longer than any command needs to notice, whatever it has to connect to again.
    async fn long_over(&self, job_id: &str) {
        while !self.told.lock().unwrap().state(job_id).is_some_and(is_over) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}
