//! What became of every job, asked from outside: through the API, and in what the workers logged while they ran attempts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use guestkit_protocol::v1;
use prost::Message as _;
use serde_json::Value;
use sha2::Digest as _;
use tokio::task::JoinSet;
use v1::JobState;

use crate::clients::is_over;
use crate::cluster::Cluster;
use crate::door::{Door, is_passing};
use crate::follower::Told;
use crate::plan::{Kind, Planned};
use crate::storm::word;

/// Jobs asked for at once.
const ASKING: usize = 16;
/// Faults told; where there are more, the first say what is wrong.
const TOLD_MAX: usize = 20;
/// Attempts a job may lose before it ends as WORKER_LOST.
const LOST_ATTEMPTS_MAX: i32 = 3;
/// What the log says of an entry that gives a job new attempts.
const RETRIED: &str = "retry asked for";

/// What the coordinators answer.
pub(crate) struct Answers {
    listed: Vec<String>,
    jobs: HashMap<String, Answer>,
    summary: v1::SummaryResponse,
}

/// What is known of one job.
struct Answer {
    job: v1::Job,
    log: Vec<v1::JobEvent>,
    result: v1::JobResult,
}

/// The figures of a storm that was weathered.
pub(crate) struct Verdict {
    pub(crate) jobs: usize,
    pub(crate) ended: BTreeMap<String, u32>,
    pub(crate) lost_attempts: u64,
    pub(crate) runs: usize,
    pub(crate) stale: usize,
    pub(crate) events: u64,
}

/// Asks for everything.
pub(crate) async fn ask(mut door: Door, jobs: Arc<Vec<Planned>>, typed: Vec<String>) -> Result<Answers, String> {
    let listed = list(&mut door).await?;
    let ids: Arc<Vec<String>> = Arc::new(jobs.iter().map(|job| job.job_id.clone()).chain(typed).collect());
    let mut tasks = JoinSet::new();
    for first in 0..ASKING {
        let (mut door, ids) = (door.clone(), Arc::clone(&ids));
        tasks.spawn(async move {
            let mut answers = Vec::new();
            for job_id in ids.iter().skip(first).step_by(ASKING) {
                answers.push(ask_one(&mut door, job_id).await.map(|answer| (job_id.clone(), answer)));
            }
            answers
        });
    }
    let jobs = tasks.join_all().await.into_iter().flatten().collect::<Result<_, String>>()?;
    let summary = summary(&mut door).await?;
    Ok(Answers { listed, jobs, summary })
}

/// The counts, which only the coordinator that leads has.
async fn summary(door: &mut Door) -> Result<v1::SummaryResponse, String> {
    loop {
        let mut fleet = guestkit_protocol::client::fleet(door.channel().await);
        match fleet.summary(v1::SummaryRequest {}).await {
            Ok(summary) => return Ok(summary.into_inner()),
            Err(status) if is_passing(&status) => door.elsewhere().await,
            Err(status) => return Err(format!("summary: {status}")),
        }
    }
}

async fn list(door: &mut Door) -> Result<Vec<String>, String> {
    let mut listed = Vec::new();
    let mut request = v1::ListRequest { page_size: 1000, ..Default::default() };
    loop {
        let page = door.call(async |mut jobs| jobs.list(request.clone()).await).await;
        let page = page.map_err(|status| format!("list: {status}"))?.into_inner();
        listed.extend(page.jobs.into_iter().map(|job| job.job_id));
        if page.next_page_token.is_empty() {
            return Ok(listed);
        }
        request.page_token = page.next_page_token;
    }
}

async fn ask_one(door: &mut Door, job_id: &str) -> Result<Answer, String> {
    let told = |what: &str, status: &tonic::Status| format!("{what} {job_id}: {status}");
    let get = v1::GetRequest { job_id: job_id.to_owned() };
    let job = door.call(async |mut jobs| jobs.get(get.clone()).await).await;
    let job = job.map_err(|status| told("lost: get", &status))?.into_inner().job.unwrap_or_default();
    let watch = v1::WatchRequest { job_id: job_id.to_owned(), after_sequence: 0 };
    let log = door.call(async |mut jobs| {
        let mut stream = jobs.watch(watch.clone()).await?.into_inner();
        let mut log = Vec::new();
        while let Some(answer) = stream.message().await? {
            log.extend(answer.event);
        }
        Ok(log)
    });
    let log = log.await.map_err(|status| told("watch", &status))?;
    let report = v1::GetReportRequest { job_id: job_id.to_owned() };
    let result = door.call(async |mut jobs| jobs.get_report(report.clone()).await).await;
    let mut result = result.map_err(|status| told("report of", &status))?.into_inner().result.unwrap_or_default();
    if let Some(artifact) = &result.report_artifact {
        let whole = artifact_of(door, job_id, artifact).await?;
        result.report = v1::JobResult::decode(&whole[..]).map_err(|error| format!("{job_id}: {error}"))?.report;
    }
    Ok(Answer { job, log, result })
}

async fn artifact_of(door: &mut Door, job_id: &str, artifact: &v1::Artifact) -> Result<Vec<u8>, String> {
    let request = v1::ReadArtifactRequest { job_id: job_id.to_owned(), name: artifact.name.clone(), offset: 0 };
    let read = door.call(async |mut jobs| {
        let mut stream = jobs.read_artifact(request.clone()).await?.into_inner();
        let mut whole = Vec::new();
        while let Some(piece) = stream.message().await? {
            whole.extend(piece.data);
        }
        Ok(whole)
    });
    let whole = read.await.map_err(|status| format!("artifact of {job_id}: {status}"))?;
    let sum: String = sha2::Sha256::digest(&whole).iter().map(|byte| format!("{byte:02x}")).collect();
    if sum == artifact.sha256 { Ok(whole) } else { Err(format!("the artifact of {job_id} is damaged")) }
}

/// Jobs that the follower does not know to be over.
pub(crate) fn unfinished(jobs: &[Planned], told: &Told) -> String {
    let state = |job: &Planned| told.state(&job.job_id);
    let left: Vec<String> = jobs
        .iter()
        .filter(|job| !state(job).is_some_and(is_over))
        .map(|job| format!("{} ({:?}): {}", job.job_id, job.kind, state(job).map_or("unknown".into(), word)))
        .collect();
    format!("{} jobs are not over: {}", left.len(), left[..left.len().min(TOLD_MAX)].join(", "))
}

/// Outcomes on workers' disks that no coordinator has acknowledged.
pub(crate) fn kept_outcomes(spools: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(spools).into_iter().flatten().flatten();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().flatten());
    let paths = files.map(|file| file.path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "outcome" || end == "damaged")).collect()
}

/// Holds everything against the rules.
pub(crate) fn judge(
    jobs: &[Planned],
    typed: &[String],
    answers: &Answers,
    told: &Told,
    cluster: &Cluster,
) -> Result<Verdict, String> {
    let runs = Runs::read(cluster)?;
    let mut faults = told.faults.clone();
    faults.extend(runs.faults.iter().cloned());
    faults.extend(panics(cluster));
    faults.extend(set_of_jobs(jobs, typed, answers));
    for (job_id, answer) in &answers.jobs {
        let planned = jobs.iter().find(|job| job.job_id == *job_id);
        let checked = one_job(answer, planned, told, &runs);
        faults.extend(checked.err().map(|fault| format!("{job_id}: {fault}; {}", shown(&answer.log))));
    }
    if !faults.is_empty() {
        let first = faults[..faults.len().min(TOLD_MAX)].join("\n");
        return Err(format!("{} faults:\n{first}", faults.len()));
    }
    let mut ended = BTreeMap::new();
    for answer in answers.jobs.values() {
        *ended.entry(how(&answer.job)).or_default() += 1;
    }
    let lost = answers.jobs.values().flat_map(|answer| &answer.log).filter(|event| is_loss(event));
    Ok(Verdict {
        jobs: answers.jobs.len(),
        ended,
        lost_attempts: lost.count() as u64,
        runs: runs.started.len(),
        stale: runs.stale,
        events: told.events,
    })
}

fn one_job(answer: &Answer, planned: Option<&Planned>, told: &Told, runs: &Runs) -> Result<(), String> {
    log_is_sound(answer)?;
    told_the_same(answer, told)?;
    outcome_is_the_last_attempts(answer, runs)?;
    planned.map_or(Ok(()), |planned| ended_as_it_may(answer, planned))
}

fn how(job: &v1::Job) -> String {
    match &job.error {
        Some(error) => format!("{}, {}", word(job.state()), error.code),
        None => word(job.state()),
    }
}

fn is_loss(event: &v1::JobEvent) -> bool {
    let lost = event.reason.starts_with("attempt lost");
    lost || event.error.as_ref().is_some_and(|error| error.code == "WORKER_LOST")
}

fn shown(log: &[v1::JobEvent]) -> String {
    let entries = log.iter().map(|event| {
        format!(
            "{} {} attempt {} {} {}",
            event.sequence,
            word(event.state()),
            event.attempt,
            event.worker_id,
            event.reason
        )
    });
    entries.collect::<Vec<_>>().join(" | ")
}

/// A panic of any process, in any of its lives.
fn panics(cluster: &Cluster) -> Vec<String> {
    let logs = cluster.members.iter().map(|member| (&member.name, member.log()));
    let lines = logs.flat_map(|(name, log)| {
        let panics = log.lines().filter(|line| line.contains("panicked"));
        panics.map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
    });
    lines.collect()
}

/// Every acknowledged job is there, once, and no other; nothing is in anybody's hands any more.
fn set_of_jobs(jobs: &[Planned], typed: &[String], answers: &Answers) -> Vec<String> {
    let mut faults = Vec::new();
    let wanted: BTreeSet<&str> =
        jobs.iter().map(|job| job.job_id.as_str()).chain(typed.iter().map(String::as_str)).collect();
    let listed: BTreeSet<&str> = answers.listed.iter().map(String::as_str).collect();
    if listed.len() != answers.listed.len() {
        faults.push("a job is listed twice".into());
    }
    faults.extend(wanted.difference(&listed).map(|job_id| format!("{job_id} is lost")));
    faults.extend(listed.difference(&wanted).map(|job_id| format!("{job_id} was never submitted")));
    let summary = &answers.summary;
    let active = summary.pending + summary.queued + summary.assigned + summary.running;
    if active != 0 || summary.slots_in_use != 0 {
        faults.push(format!("the counts are not at rest: {summary:?}"));
    }
    let retries = answers.jobs.values().flat_map(|answer| &answer.log).filter(|event| event.reason == RETRIED).count();
    let ended = summary.completed + summary.failed + summary.cancelled + summary.timeout;
    if ended != (wanted.len() + retries) as u64 {
        faults.push(format!("{ended} ends are counted of {} jobs and {retries} retries", wanted.len()));
    }
    faults
}

/// Entries 1 to n, each a step that the rules allow; over once, or once more for each retry, and over at the end.
fn log_is_sound(answer: &Answer) -> Result<(), String> {
    let mut before = JobState::Unspecified;
    let mut percent = 0.0;
    for (index, event) in answer.log.iter().enumerate() {
        let state = event.state();
        if event.sequence != index as u64 + 1 {
            return Err(format!("a gap before entry {}", event.sequence));
        }
        if !may_follow(before, state, event) {
            return Err(format!("{} came after {}", word(state), word(before)));
        }
        if state == JobState::Assigned {
            percent = 0.0;
        }
        if let Some(progress) = &event.progress {
            if progress.progress_percent < percent {
                return Err(format!("percentages fall at entry {}", event.sequence));
            }
            percent = progress.progress_percent;
        }
        before = state;
    }
    let job = &answer.job;
    if !is_over(before) || before != job.state() || job.sequence != answer.log.len() as u64 {
        return Err(format!("it is {} with {} entries", word(job.state()), job.sequence));
    }
    if job.lease_id != 0 {
        return Err(format!("it is over and lease {} stands", job.lease_id));
    }
    Ok(())
}

/// The arrows of a job's life, as `job.proto` draws them.
fn may_follow(before: JobState, after: JobState, event: &v1::JobEvent) -> bool {
    use JobState as S;
    match (before, after) {
        (S::Unspecified, S::Pending | S::Queued) => event.sequence == 1,
        (S::Completed | S::Failed | S::Cancelled | S::Timeout, S::Pending | S::Queued) => event.reason == RETRIED,
        (S::Pending, S::Queued) | (S::Queued, S::Assigned) => true,
        (S::Pending | S::Queued, S::Cancelled | S::Timeout) => true,
        (S::Assigned, S::Running | S::Queued | S::Pending | S::Cancelling) => true,
        (S::Running, S::Queued | S::Pending | S::Cancelling) => true,
        (S::Running, S::Running) | (S::Cancelling, S::Cancelling) => event.progress.is_some(),
        (S::Assigned | S::Running | S::Cancelling, after) => is_over(after),
        _ => false,
    }
}

/// The follower was told this very log.
fn told_the_same(answer: &Answer, told: &Told) -> Result<(), String> {
    let log: Vec<(u64, JobState)> = answer.log.iter().map(|event| (event.revision, event.state())).collect();
    match told.jobs.get(&answer.job.job_id) {
        Some(known) if *known == log => Ok(()),
        known => Err(format!("the follower of all jobs was told {known:?}, not {log:?}")),
    }
}

/// What is recorded was made by the last attempt, and that attempt was run by the worker that is named.
fn outcome_is_the_last_attempts(answer: &Answer, runs: &Runs) -> Result<(), String> {
    let (job, result) = (&answer.job, &answer.result);
    if result.job_id != job.job_id || result.status != word(job.state()).to_lowercase() {
        return Err(format!("its report is of {} and says {}", result.job_id, result.status));
    }
    if job.state() != JobState::Completed {
        return Ok(());
    }
    let attempt = result.execution_summary.as_ref().map_or(0, |summary| summary.attempt);
    if attempt != job.attempt || result.worker_id != job.worker_id {
        let told = format!("attempt {attempt} by {}", result.worker_id);
        return Err(format!("attempt {} by {} ended it, the report is of {told}", job.attempt, job.worker_id));
    }
    if !runs.ended.contains(&(job.job_id.clone(), job.worker_id.clone(), attempt)) {
        return Err(format!("{} never completed attempt {attempt}", job.worker_id));
    }
    Ok(())
}

fn ended_as_it_may(answer: &Answer, planned: &Planned) -> Result<(), String> {
    let job = &answer.job;
    let code = job.error.as_ref().map_or("", |error| error.code.as_str());
    if !planned.may_end(job.state(), code) {
        return Err(format!("a {:?} job ended as {}", planned.kind, how(job)));
    }
    // A retry begins all counts anew.
    if !planned.retried {
        let lost = answer.log.iter().filter(|event| is_loss(event)).count();
        if i32::try_from(lost) != Ok(job.lost_attempts)
            || (code == "WORKER_LOST") != (job.lost_attempts == LOST_ATTEMPTS_MAX)
        {
            return Err(format!(
                "{lost} losses are in its log, {} are counted, it ended as {}",
                job.lost_attempts,
                how(job)
            ));
        }
        let failed = answer.log.iter().filter(|event| event.reason.starts_with("attempt failed")).count();
        if planned.kind == Kind::Failing && code == "INTERNAL" && failed + 1 != planned.max_attempts as usize {
            return Err(format!("it failed {} times of {}", failed + 1, planned.max_attempts));
        }
    }
    match (&answer.result.report, job.state()) {
        (Some(v1::job_result::Report::Echo(echo)), JobState::Completed) if echo.message() == planned.message => Ok(()),
        (report, JobState::Completed) => Err(format!("its report is {report:?}")),
        _ => Ok(()),
    }
}

/// What workers logged while they ran attempts: the effects of a job, seen where they happen.
struct Runs {
    /// Leases whose attempt was started.
    started: HashMap<u64, String>,
    /// Job, worker and attempt of each run that completed.
    ended: BTreeSet<(String, String, i32)>,
    stale: usize,
    faults: Vec<String>,
}

impl Runs {
    fn read(cluster: &Cluster) -> Result<Self, String> {
        let mut runs = Self { started: HashMap::new(), ended: BTreeSet::new(), stale: 0, faults: Vec::new() };
        for member in cluster.members.iter().filter(|member| member.is_worker()) {
            for line in member.log().lines() {
                // A process killed in the middle of a line leaves half of one.
                if let Ok(entry) = serde_json::from_str::<Value>(line) {
                    runs.take_in(&member.name, &entry);
                }
            }
        }
        if runs.started.is_empty() {
            return Err("the workers' logs name no attempt".into());
        }
        Ok(runs)
    }

    fn take_in(&mut self, worker: &str, entry: &Value) {
        let message = entry["message"].as_str().unwrap_or_default();
        let span = &entry["span"];
        let job = span["job"].as_str().unwrap_or_default();
        if message.starts_with("Received job: ") {
            let lease = span["lease"].as_u64().unwrap_or_default();
            if let Some(other) = self.started.insert(lease, worker.to_owned()) {
                self.faults.push(format!("lease {lease} of {job} was run by {other} and by {worker}"));
            }
        } else if message.starts_with("Job ") && message.ends_with(" completed successfully") {
            let attempt = span["attempt"].as_i64().and_then(|attempt| attempt.try_into().ok()).unwrap_or_default();
            self.ended.insert((job.to_owned(), worker.to_owned(), attempt));
        } else if message.starts_with("an outcome came too late") {
            self.stale += 1;
        }
    }
}

/// The verdict itself must be able to condemn: each flaw here is one that a broken coordinator would show.
mod tests {
    use super::*;

    fn event(sequence: u64, state: JobState, attempt: i32, reason: &str) -> v1::JobEvent {
        let (job_id, reason) = ("chaos-000001".into(), reason.into());
        v1::JobEvent {
            job_id,
            sequence,
            revision: 10 + sequence,
            state: state.into(),
            attempt,
            reason,
            ..Default::default()
        }
    }

    /// A job that lost an attempt and completed in its second, what a follower was told of it, and the run that ended it.
    fn sound() -> (Answer, Told, Runs) {
        let states = [
            (JobState::Queued, 0, "submitted"),
            (JobState::Assigned, 1, "offered to a worker"),
            (JobState::Running, 1, "accepted by the worker"),
            (JobState::Queued, 1, "attempt lost: the worker was restarted"),
            (JobState::Assigned, 2, "offered to a worker"),
            (JobState::Running, 2, "accepted by the worker"),
            (JobState::Completed, 2, "over"),
        ];
        let log: Vec<v1::JobEvent> =
            (1..).zip(states).map(|(sequence, (state, attempt, why))| event(sequence, state, attempt, why)).collect();
        let job = v1::Job {
            job_id: "chaos-000001".into(),
            state: JobState::Completed.into(),
            attempt: 2,
            lost_attempts: 1,
            worker_id: "worker-1".into(),
            sequence: 7,
            ..Default::default()
        };
        let echo = v1::EchoReport { message: Some("hello".into()), ..Default::default() };
        let result = v1::JobResult {
            job_id: job.job_id.clone(),
            status: "completed".into(),
            worker_id: "worker-1".into(),
            execution_summary: Some(v1::ExecutionSummary { attempt: 2, ..Default::default() }),
            report: Some(v1::job_result::Report::Echo(echo)),
            ..Default::default()
        };
        let mut told = Told::default();
        told.jobs.insert(job.job_id.clone(), log.iter().map(|event| (event.revision, event.state())).collect());
        let ended = [(job.job_id.clone(), "worker-1".to_owned(), 2)].into();
        let runs = Runs { started: HashMap::new(), ended, stale: 0, faults: Vec::new() };
        (Answer { job, log, result }, told, runs)
    }

    fn judged(flaw: impl Fn(&mut Answer, &mut Told, &mut Runs)) -> Result<(), String> {
        let (mut answer, mut told, mut runs) = sound();
        flaw(&mut answer, &mut told, &mut runs);
        let planned = Planned {
            job_id: "chaos-000001".into(),
            kind: Kind::Quick,
            document: v1::JobDocument::default(),
            message: "hello".into(),
            max_attempts: 1,
            at: std::time::Duration::ZERO,
            twice: false,
            cancel_after: None,
            retried: false,
        };
        one_job(&answer, Some(&planned), &told, &runs)
    }

    #[test]
    fn what_is_sound_is_acquitted() {
        judged(|_, _, _| {}).unwrap();
    }

    #[test]
    fn every_flaw_is_condemned() {
        type Flaw = fn(&mut Answer, &mut Told, &mut Runs);
        let flaws: [(&str, Flaw); 12] = [
            ("a gap", |answer, _, _| drop(answer.log.remove(3))),
            ("Completed twice", |answer, _, _| {
                answer.log.push(event(8, JobState::Completed, 2, "over"));
                answer.job.sequence = 8;
            }),
            ("run without a lease", |answer, _, _| answer.log[1].state = JobState::Running.into()),
            ("alive after its end", |answer, _, _| {
                answer.log.push(event(8, JobState::Queued, 2, "submitted"));
                answer.job.sequence = 8;
            }),
            ("not over", |answer, _, _| answer.job.state = JobState::Running.into()),
            ("a lease that stands", |answer, _, _| answer.job.lease_id = 7),
            ("the report of a lost attempt", |answer, _, _| {
                answer.result.execution_summary = Some(v1::ExecutionSummary { attempt: 1, ..Default::default() });
            }),
            ("another worker's report", |answer, _, _| answer.result.worker_id = "worker-2".into()),
            ("an outcome that nobody made", |_, _, runs| runs.ended.clear()),
            ("another job's report", |answer, _, _| {
                let echo = v1::EchoReport { message: Some("bye".into()), ..Default::default() };
                answer.result.report = Some(v1::job_result::Report::Echo(echo));
            }),
            ("a loss that is not counted", |answer, _, _| answer.job.lost_attempts = 0),
            ("an entry that the follower missed", |_, told, _| {
                told.jobs.values_mut().for_each(|known| known.truncate(6));
            }),
        ];
        for (name, flaw) in flaws {
            assert!(judged(flaw).is_err(), "{name} was not noticed");
        }
    }

    #[test]
    fn a_follower_notices_gaps_and_repeats() {
        let change =
            |event| v1::WatchAllResponse { revision: 11, change: Some(v1::watch_all_response::Change::Event(event)) };
        for (second, faults) in [(2, 0), (1, 1), (3, 1)] {
            let mut told = Told::default();
            told.hear(change(event(1, JobState::Queued, 0, "submitted")));
            told.hear(v1::WatchAllResponse {
                revision: 12,
                ..change(v1::JobEvent { revision: 12, ..event(second, JobState::Assigned, 1, "offered to a worker") })
            });
            assert_eq!(told.faults.len(), faults, "entry {second}: {:?}", told.faults);
        }
    }
}
