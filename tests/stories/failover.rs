//! Several coordinators on one PostgreSQL: one leads, and when it goes, another does; nothing acknowledged is lost, and what
//! runs goes on.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use guestkit_processes::postgres::Server;
use guestkit_processes::{Fleet, until};
use guestkit_protocol::client::{self, Endpoints};
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::v1;
use rustix::process::Signal;
use serde_json::Value;

use crate::house::{Answer, COMPLETED, House, binaries, echo, lost_attempts, text};
use crate::network::{Link, Mode};

/// A lead that is over soon, though not before a loaded machine's turn to renew it has come, and workers that notice silence.
const QUICK: [&str; 6] = ["--leader-ttl-seconds", "1.5", "--heartbeat-seconds", "0.3", "--lease-ttl-seconds", "30"];

/// Coordinators on one database.
struct Several {
    house: House,
    count: usize,
}

impl Several {
    /// `None` where PostgreSQL is not installed.
    fn start(count: usize, args: &[&str], workers: &[&str]) -> Option<Self> {
        Self::start_on(Server::shared().unwrap()?, count, args, workers)
    }

    fn start_on(server: &Server, count: usize, args: &[&str], workers: &[&str]) -> Option<Self> {
        let database = server.create_database().unwrap();
        let args = [&["--store", &database.url], args].concat();
        let several = Self { house: House::with_several(count, &args, workers), count };
        several.leader();
        Some(several)
    }

    /// What a coordinator says it is; `None` when it does not answer.
    fn standing(&self, index: usize) -> Option<Value> {
        let mut stream = TcpStream::connect(self.house.fleet.http_of(index)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        stream.write_all(b"GET /api/summary HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    fn is(&self, index: usize, role: &str) -> bool {
        self.standing(index).is_some_and(|standing| standing["role"] == role)
    }

    /// Waits for a leader.
    fn leader(&self) -> usize {
        until("a leader", || Ok((0..self.count).find(|index| self.is(*index, "leader")))).unwrap()
    }

    /// Waits for another leader than the one that is gone.
    fn leader_after(&self, gone: usize) -> usize {
        let others = || (0..self.count).filter(|index| *index != gone);
        until("another leader", || Ok(others().find(|index| self.is(*index, "leader")))).unwrap()
    }

    /// Waits for a standby that knows who leads.
    fn standby(&self) -> usize {
        let knows = |index: &usize| self.standing(*index).is_some_and(|standing| standing["leader"].is_string());
        until("a standby that knows its leader", || Ok((0..self.count).find(knows))).unwrap()
    }

    /// `submit --watch`, under way: its job runs.
    fn watched(&self, document: &Value) -> Child {
        let job_id = document["job_id"].as_str().unwrap();
        let path = self.house.write(&format!("{job_id}.json"), document);
        let mut command = self.house.fleet.guestkit();
        command.args(["submit", "--watch", "-o", "json", text(&path)]);
        let watched = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("a job that is taken", || Ok((self.house.guestkit(&["get", job_id]).code == COMPLETED).then_some(())))
            .unwrap();
        self.house.wait_for_state(job_id, "JOB_STATE_RUNNING");
        watched
    }

    /// Waits for a job's end and checks that its first attempt was its only one.
    #[track_caller]
    fn completes_at_once(&self, job_id: &str) {
        let job = self.house.wait_for_state(job_id, "JOB_STATE_COMPLETED");
        assert_eq!((&job["attempt"], lost_attempts(&job)), (&1.into(), 0), "{job:#}");
    }
}

#[track_caller]
fn ends_well(watched: Child) {
    Answer::of(watched.wait_with_output().unwrap()).expect_code(COMPLETED).json();
}

#[test]
fn a_leader_killed_is_followed_by_another_and_nothing_is_lost() {
    let Some(mut several) = Several::start(3, &QUICK, &["steady"]) else { return };
    let watched = several.watched(&echo("killed-leader-1", 4.0));
    for index in 0..6 {
        several.house.submit(&echo(&format!("killed-queued-{index}"), 0.2)).expect_code(COMPLETED);
    }
    let leader = several.leader();
    several.house.fleet.coordinator_at(leader).kill();

    // While nobody leads, a submission waits for whoever will.
    several.house.submit(&echo("killed-after-1", 0.0)).expect_code(COMPLETED);
    assert_ne!(several.leader_after(leader), leader);
    for index in 0..6 {
        several.completes_at_once(&format!("killed-queued-{index}"));
    }
    several.completes_at_once("killed-after-1");
    several.completes_at_once("killed-leader-1");
    ends_well(watched);

    // It comes back as a standby, and reads.
    several.house.fleet.restart_coordinator_at(leader).unwrap();
    until("a standby", || Ok(several.is(leader, "standby").then_some(()))).unwrap();
}

#[test]
fn a_leader_that_was_stopped_for_too_long_cannot_write_and_steps_down() {
    let Some(mut several) = Several::start(2, &QUICK, &["moving"]) else { return };
    let leader = several.leader();
    several.house.submit(&echo("stopped-run-1", 6.0)).expect_code(COMPLETED);
    several.house.wait_for_state("stopped-run-1", "JOB_STATE_RUNNING");
    several.house.fleet.coordinator_at(leader).signal(Signal::STOP).unwrap();
    let next = several.leader_after(leader);
    several.house.fleet.coordinator_at(leader).signal(Signal::CONT).unwrap();

    // Asked at once and alone, it takes nothing on itself.
    let path = several.house.write("stopped.json", &echo("stopped-write", 0.0));
    let mut command = several.house.fleet.guestkit();
    command.env("GUESTKIT_COORDINATOR", several.house.fleet.url_of(leader));
    Answer::of(command.args(["submit", text(&path)]).output().unwrap()).expect_code(COMPLETED);
    until("a standby", || Ok(several.is(leader, "standby").then_some(()))).unwrap();
    assert!(several.is(next, "leader"));
    several.completes_at_once("stopped-write");
    several.completes_at_once("stopped-run-1");
}

#[test]
fn a_leader_asked_to_stop_hands_over_at_once() {
    // A lead that would stand for a minute: only giving it up can be what lets the other lead this soon.
    let patient = ["--leader-ttl-seconds", "60", "--heartbeat-seconds", "0.3", "--lease-ttl-seconds", "30"];
    let Some(mut several) = Several::start(2, &patient, &["handed"]) else { return };
    let watched = several.watched(&echo("handed-over-1", 3.0));
    let leader = several.leader();
    let asked = Instant::now();
    several.house.fleet.coordinator_at(leader).signal(Signal::TERM).unwrap();
    several.leader_after(leader);
    assert!(asked.elapsed().as_secs() < 30, "the lead ran out instead of being given up");
    assert!(several.house.fleet.coordinator_at(leader).wait().unwrap().success());
    several.completes_at_once("handed-over-1");
    ends_well(watched);
}

#[tokio::test]
async fn a_standby_reads_and_says_who_leads() {
    let Some(several) = Several::start(2, &QUICK, &["working"]) else { return };
    let (standby, leader) = (several.standby(), several.leader());
    let (standby, leader) = (several.house.fleet.url_of(standby), several.house.fleet.url_of(leader));
    let document: v1::JobDocument =
        guestkit_protocol::document::parse(echo("standby-write", 0.0).to_string().as_bytes()).unwrap();
    let mut jobs = client::jobs(client::connect(&Endpoints::new([&standby]).unwrap()).await.unwrap());

    let status = jobs.submit(document).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    let refusal = Refusal::from_status(&status).unwrap();
    assert_eq!((refusal.reason, refusal.leader.as_deref()), (Reason::NotLeader, Some(leader.as_str())));
    assert!(refusal.retry_after.is_some());

    // The command line, which knows nobody else, goes where it is sent.
    let command = |args: &[&str]| {
        let mut command = several.house.fleet.guestkit();
        Answer::of(command.env("GUESTKIT_COORDINATOR", &standby).args(args).output().unwrap()).expect_code(COMPLETED)
    };
    let path = several.house.write("hinted.json", &echo("standby-hint-1", 0.0));
    command(&["submit", "--watch", text(&path)]);
    assert_eq!(command(&["workers", "-o", "json"]).json()[0]["worker_id"], "working");
    let request = v1::GetRequest { job_id: "standby-hint-1".into() };
    let read = jobs.get(request).await.unwrap().into_inner().job.unwrap();
    assert_eq!(read.state(), v1::JobState::Completed);
}

#[tokio::test]
async fn a_watcher_of_a_standby_sees_every_change_once() {
    const JOBS: usize = 30;
    let Some(several) = Several::start(2, &QUICK, &["busy"]) else { return };
    let standby = several.house.fleet.url_of(several.standby());
    let mut jobs = client::jobs(client::connect(&Endpoints::new([&standby]).unwrap()).await.unwrap());
    several.house.submit(&echo("before-watching", 0.0)).expect_code(COMPLETED);
    several.completes_at_once("before-watching");
    let from = v1::GetRequest { job_id: "before-watching".into() };
    let from = jobs.get(from).await.unwrap().into_inner().job.unwrap().revision;

    let request = v1::WatchAllRequest { after_revision: from, ..v1::WatchAllRequest::default() };
    let mut changes = jobs.watch_all(request.clone()).await.unwrap().into_inner();
    for index in 0..JOBS {
        several.house.submit(&echo(&format!("watched-{index:04}"), 0.0)).expect_code(COMPLETED);
    }
    let mut last = BTreeMap::new();
    let (mut over, mut revision) = (0, from);
    while over < JOBS {
        let next = tokio::time::timeout(Duration::from_secs(60), changes.message()).await.expect("a change");
        let change = next.unwrap().unwrap();
        assert!(change.revision > revision, "a change came twice, or late");
        revision = change.revision;
        let Some(v1::watch_all_response::Change::Event(event)) = change.change else { panic!("{change:?}") };
        let before: u64 = last.insert(event.job_id.clone(), event.sequence).unwrap_or(0);
        assert_eq!(event.sequence, before + 1, "of {}", event.job_id);
        over += usize::from(event.state() == v1::JobState::Completed);
        if over == JOBS / 2 {
            // Resumed where it was left.
            changes = jobs
                .watch_all(v1::WatchAllRequest { after_revision: revision, ..request.clone() })
                .await
                .unwrap()
                .into_inner();
        }
    }
    assert_eq!(last.len(), JOBS);
}

#[test]
fn a_database_that_crashes_under_its_leader_costs_no_job() {
    // One of its own, because it crashes.
    let Some(server) = Server::start().unwrap() else { return };
    let Some(several) = Several::start_on(&server, 2, &QUICK, &["waiting"]) else { return };
    several.house.submit(&echo("crash-running", 4.0)).expect_code(COMPLETED);
    several.house.wait_for_state("crash-running", "JOB_STATE_RUNNING");
    for index in 0..4 {
        several.house.submit(&echo(&format!("crash-queued-{index}"), 0.5)).expect_code(COMPLETED);
    }
    server.crash().unwrap();

    // Whoever asks meanwhile may be told to ask again, as whoever reads; who leads afterwards does not matter.
    let again = several.house.write("crash-after.json", &echo("crash-after-1", 0.0));
    until("a submission that is taken", || {
        Ok((several.house.guestkit(&["submit", text(&again)]).code == COMPLETED).then_some(()))
    })
    .unwrap();
    for job in
        ["crash-running", "crash-queued-0", "crash-queued-1", "crash-queued-2", "crash-queued-3", "crash-after-1"]
    {
        several.completes_at_once(job);
    }
}

/// The machines of both were switched on at the same time: the database refuses at first.
#[test]
fn a_coordinator_waits_for_its_database() {
    let Some(server) = Server::shared().unwrap() else { return };
    let database = server.create_database().unwrap();
    let (before, after) = database.url.split_once('@').unwrap();
    let (address, name) = after.split_once('/').unwrap();
    let link = Link::to(address);
    link.set(Mode::Cut);
    let url = format!("{before}@{}/{name}", link.address);
    let folder = tempfile::Builder::new().prefix("guestkit-").tempdir().unwrap();
    let log = folder.path().join("coordinator.log");
    let switched_on = std::thread::spawn(move || {
        until("a coordinator that waits", || {
            let waits = std::fs::read_to_string(&log).unwrap_or_default().contains("the database does not answer yet");
            Ok(waits.then_some(()))
        })
        .unwrap();
        link.set(Mode::Open);
    });
    let house = House::in_folder(folder, &["--store", &url], &["one"]);
    switched_on.join().unwrap();
    house.submit_and_watch(&echo("waited-for-1", 0.0)).expect_code(COMPLETED);
    house.fleet.stop().unwrap();
}

/// What no waiting mends is told at once.
#[test]
fn a_database_that_is_not_there_is_not_waited_for() {
    let Some(server) = Server::shared().unwrap() else { return };
    let url = server.create_database().unwrap().url + "_which_nobody_made";
    let refused = Fleet::start(&binaries(), &["--store", &url]).unwrap_err().to_string();
    assert!(refused.contains("does not exist") && !refused.contains("not answer yet"), "{refused}");
}
