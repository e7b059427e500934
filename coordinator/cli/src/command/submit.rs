//! `submit`, `inspect` and `profile`: documents on their way in, and what became of them.

use std::path::Path;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use guestkit_protocol::document::to_json;
use guestkit_protocol::v1;
use serde_json::Value;
use uuid::Uuid;

use crate::args::{Follow, Inspect, ProfileSubmit, Submit};
use crate::coordinator::{Again, Coordinator};
use crate::document::{self, Named};
use crate::failure::{FAILED, FINDINGS, Failure};
use crate::follow::{self, Over};
use crate::outcome;
use crate::output::Output;
use crate::progress::{Board, Row};
use crate::table::{Sheet, Text, job};

/// Documents on their way at once: enough to fill the coordinator's group commit, few enough that a refusal comes early.
const SUBMISSIONS_MAX: usize = 32;

/// Submits the documents in files.
pub(crate) async fn submit(coordinator: &Coordinator, output: &Output, args: Submit) -> Result<(), Failure> {
    if args.files.iter().filter(|file| file.as_path() == Path::new("-")).count() > 1 {
        return Err(Failure::usage("standard input can be named once"));
    }
    let documents = load_all(&args.files)?;
    run(coordinator, output, documents, &args.follow).await
}

/// Submits the inspection of one image.
pub(crate) async fn inspect(coordinator: &Coordinator, output: &Output, args: Inspect) -> Result<(), Failure> {
    let document = document::inspection(&args.images, &args.key_files, &args.what, Some(&args.job))?;
    run(coordinator, output, vec![document], &args.follow).await
}

/// Submits the profile of one image.
pub(crate) async fn profile(coordinator: &Coordinator, output: &Output, args: ProfileSubmit) -> Result<(), Failure> {
    let document = document::profile(&args.images, &args.key_files, &args.what, Some(&args.job))?;
    run(coordinator, output, vec![document], &args.follow).await
}

/// Reads every document before the first is sent: with one that cannot be sent, none is.
fn load_all(files: &[std::path::PathBuf]) -> Result<Vec<Named>, Failure> {
    let mut documents = Vec::with_capacity(files.len());
    let mut failures = Vec::new();
    for file in files {
        match document::load(file) {
            Ok(document) => documents.push(document),
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() {
        return Ok(documents);
    }
    if !documents.is_empty() {
        failures.push(Failure::Work { message: "nothing was submitted".to_owned() });
    }
    several(failures)?;
    Ok(documents)
}

async fn run(
    coordinator: &Coordinator,
    output: &Output,
    documents: Vec<Named>,
    follow: &Follow,
) -> Result<(), Failure> {
    let single = documents.len() == 1;
    let sent = send_all(coordinator, documents).await?;
    let (taken, failures) = parted(sent);
    if taken.is_empty() {
        return several(failures);
    }
    for answer in taken.iter().filter(|answer| answer.existing) {
        output.note(&format!("{} was submitted before; this is that job", job_of(answer).job_id));
    }
    if !follow.watch {
        print_taken(output, &taken, single)?;
        return several(failures);
    }
    let jobs: Vec<String> = taken.iter().map(|answer| job_of(answer).job_id).collect();
    let patience = Duration::from_secs(u64::from(follow.patience.reconnect));
    watch_all(coordinator, output, &jobs, patience, single, failures).await
}

fn job_of(answer: &v1::SubmitResponse) -> v1::Job {
    answer.job.clone().unwrap_or_default()
}

type Sent = Result<v1::SubmitResponse, Failure>;

fn parted(sent: Vec<Sent>) -> (Vec<v1::SubmitResponse>, Vec<Failure>) {
    let mut taken = Vec::new();
    let mut failures = Vec::new();
    for answer in sent {
        match answer {
            Ok(answer) => taken.push(answer),
            Err(failure) => failures.push(failure),
        }
    }
    (taken, failures)
}

async fn send_all(coordinator: &Coordinator, documents: Vec<Named>) -> Result<Vec<Sent>, Failure> {
    let sending = stream::iter(documents).map(|document| send(coordinator, document)).buffered(SUBMISSIONS_MAX);
    tokio::select! {
        sent = sending.collect::<Vec<_>>() => Ok(sent),
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted { jobs: Vec::new() }),
    }
}

async fn send(coordinator: &Coordinator, Named { name, mut document }: Named) -> Sent {
    name_it(&mut document);
    // The same document under the same name, or under the same idempotency key, is the same job.
    coordinator.ask(&name, Again::Safe, async |at| at.jobs().submit(document.clone()).await).await
}

/// Gives the job its name here where it has none, so that sending it twice is one job. A document with an idempotency key
/// keeps itself apart by that, and must stay as it was written to be recognised.
fn name_it(document: &mut v1::JobDocument) {
    let has_key = document.execution.as_ref().is_some_and(|execution| !execution.idempotency_key.is_empty());
    if document.job_id.is_empty() && !has_key {
        document.job_id = Uuid::now_v7().to_string();
    }
}

fn print_taken(output: &Output, taken: &[v1::SubmitResponse], single: bool) -> Result<(), Failure> {
    let values = || -> Vec<Value> { taken.iter().map(|answer| to_json(&job_of(answer))).collect() };
    let value = || if single { values().pop().unwrap_or_default() } else { Value::Array(values()) };
    let rows = || taken.iter().map(taken_row).collect();
    output.document(value, || Sheet::default().grid(&["JOB", "STATE", "OPERATION", "NAMESPACE"], rows()))?;
    if let [answer] = taken {
        output.note(&format!("follow it: guestkit watch {}", job_of(answer).job_id));
    }
    Ok(())
}

fn taken_row(answer: &v1::SubmitResponse) -> Vec<Text> {
    let job = job_of(answer);
    let document = job.document.clone().unwrap_or_default();
    vec![
        (&job.job_id).into(),
        job::state(job.state()),
        document.operation.into(),
        document.metadata.unwrap_or_default().namespace.into(),
    ]
}

async fn watch_all(
    coordinator: &Coordinator,
    output: &Output,
    jobs: &[String],
    patience: Duration,
    single: bool,
    mut failures: Vec<Failure>,
) -> Result<(), Failure> {
    let board = Board::new(jobs.len(), output.quiet, output.color_progress);
    let rows: Vec<Row> = jobs.iter().map(|job| board.row(job)).collect();
    let mut results: Vec<Option<v1::JobResult>> = vec![None; jobs.len()];
    let followed = follow::all(
        coordinator,
        jobs,
        patience,
        |index, heard| rows[index].heard(heard),
        |index, over| match over {
            Ok(over) => {
                ended(&rows[index], &over);
                match over.result {
                    Ok(result) => results[index] = Some(result),
                    Err(failure) => failures.push(failure),
                }
            }
            Err(failure) => {
                rows[index].over(false, &failure.to_string());
                failures.push(failure);
            }
        },
    )
    .await;
    board.leave();
    followed?;
    let results: Vec<v1::JobResult> = results.into_iter().flatten().collect();
    match results.as_slice() {
        [] => {}
        [result] if single => outcome::print_report(output, result)?,
        results => outcome::print_several(output, results)?,
    }
    failures.extend(results.iter().filter_map(|result| outcome::judge(result).err()));
    several(failures)
}

/// Shows on a job's row how it ended.
pub(super) fn ended(row: &Row, over: &Over) {
    let state = over.job.state();
    let line = match over.job.error.as_ref().filter(|error| !error.code.is_empty()) {
        Some(error) => format!("{}: {}: {}", job::state_word(state), error.code, error.message),
        None => job::state_word(state).to_owned(),
    };
    row.over(state == v1::JobState::Completed, &line);
}

/// Tells several failures; the exit code is the gravest one's: unreachable, refused, usage, then failed.
fn several(mut failures: Vec<Failure>) -> Result<(), Failure> {
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        _ => {
            failures.iter().for_each(Failure::tell);
            // A finding is what was asked for: everything else is graver.
            let gravity = |code: &u8| if *code == FINDINGS { 0 } else { *code };
            let code = failures.iter().map(Failure::code).max_by_key(gravity).unwrap_or(FAILED);
            Err(Failure::Several { code })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_named_unless_its_key_names_it() {
        let mut document = v1::JobDocument::default();
        name_it(&mut document);
        assert_eq!(Uuid::parse_str(&document.job_id).unwrap().get_version_num(), 7);

        let mut document = v1::JobDocument { job_id: "job-00000001".into(), ..Default::default() };
        name_it(&mut document);
        assert_eq!(document.job_id, "job-00000001");

        let execution = v1::Execution { idempotency_key: "k".into(), ..Default::default() };
        let mut document = v1::JobDocument { execution: Some(execution), ..Default::default() };
        name_it(&mut document);
        assert_eq!(document.job_id, "");
    }

    #[test]
    fn the_gravest_failure_is_the_exit_code() {
        let several =
            several(vec![Failure::NotCompleted, Failure::unreachable("http://a: refused"), Failure::NotCompleted]);
        assert_eq!(several.unwrap_err().code(), 4);
    }
}
