//! The network between a worker and its coordinator breaks: for a while, and for longer than a lease lives.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use guestkit_processes::until;
use serde_json::json;

use crate::house::{COMPLETED, House, echo, lost_attempts};

/// How a link behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It carries.
    Open,
    /// It carries nothing and tells nobody: bytes wait in it, as in a network whose packets vanish and are sent again.
    Frozen,
    /// Connections are reset, new ones too.
    Cut,
}

/// A way to a server that can be broken.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

struct State {
    mode: Mode,
    streams: Vec<TcpStream>,
}

impl Link {
    /// Carries connections to `target` for the rest of the process.
    pub(crate) fn to(target: &str) -> Self {
        let target: SocketAddr = target.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new((Mutex::new(State { mode: Mode::Open, streams: Vec::new() }), Condvar::new()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let mut state = shared.0.lock().unwrap();
                let far = (state.mode != Mode::Cut).then(|| TcpStream::connect(target).ok()).flatten();
                // Dropped, a connection is closed: nobody is there.
                let Some(far) = far else { continue };
                for stream in [&near, &far] {
                    stream.set_nodelay(true).unwrap();
                    state.streams.push(stream.try_clone().unwrap());
                }
                for (from, to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || carry(&shared, from, to));
                }
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, mode: Mode) {
        let mut state = self.state.0.lock().unwrap();
        state.mode = mode;
        if mode == Mode::Cut {
            for stream in state.streams.drain(..) {
                // One that ended meanwhile is closed already.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        self.state.1.notify_all();
    }
}

/// Carries bytes one way until one side is closed; holds them while the link is frozen.
fn carry(state: &(Mutex<State>, Condvar), mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        drop(state.1.wait_while(state.0.lock().unwrap(), |state| state.mode == Mode::Frozen).unwrap());
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn wait_until_unreachable(house: &House, worker: &str) {
    until(&format!("a coordinator that misses {worker}"), || {
        let shown = house.guestkit(&["workers", worker, "-o", "json"]).expect_code(COMPLETED).json();
        Ok((shown["state"] == "WORKER_STATE_UNREACHABLE").then_some(()))
    })
    .unwrap();
}

/// A coordinator that misses a worker after a second, and a worker behind a link, with a job that runs.
fn house_with_far_worker(lease_ttl_seconds: &str, job_id: &str, seconds: f64) -> (House, Link) {
    let args = ["--heartbeat-seconds", "0.3", "--lease-ttl-seconds", lease_ttl_seconds];
    let mut house = House::with_coordinator(&args, &[]);
    let link = Link::to(&house.fleet.url());
    house.start_worker_at(&link.url(), "far");
    house.submit(&echo(job_id, seconds)).expect_code(COMPLETED);
    house.wait_for_state(job_id, "JOB_STATE_RUNNING");
    (house, link)
}

#[track_caller]
fn a_short_break_costs_nothing(mode: Mode) {
    let (house, link) = house_with_far_worker("60", "short-break-1", 4.0);
    link.set(mode);
    wait_until_unreachable(&house, "far");
    link.set(Mode::Open);
    let done = house.wait_for_state("short-break-1", "JOB_STATE_COMPLETED");
    assert_eq!((&done["attempt"], lost_attempts(&done)), (&json!(1), 0), "{done:#}");
    assert_eq!(done["worker_id"], "far");
}

#[test]
fn a_connection_that_is_cut_for_a_while_keeps_its_leases() {
    a_short_break_costs_nothing(Mode::Cut);
}

#[test]
fn a_network_that_is_silent_for_a_while_keeps_its_leases() {
    a_short_break_costs_nothing(Mode::Frozen);
}

/// The job goes elsewhere; what the first worker found out meanwhile comes too late and counts for nothing.
#[track_caller]
fn a_long_break_moves_the_job(mode: Mode) {
    let (mut house, link) = house_with_far_worker("3", "long-break-01", 2.0);
    link.set(mode);
    until("the outcome on the far worker's disk", || Ok((house.kept_outcomes("far") == 1).then_some(()))).unwrap();
    house.start_worker("near");
    let done = house.wait_for_state("long-break-01", "JOB_STATE_COMPLETED");
    assert_eq!((&done["attempt"], lost_attempts(&done)), (&json!(2), 1), "{done:#}");
    assert_eq!(done["worker_id"], "near");

    link.set(Mode::Open);
    until("an empty spool", || Ok((house.kept_outcomes("far") == 0).then_some(()))).unwrap();
    let now = house.job("long-break-01");
    assert_eq!(now, done, "the late outcome changed the job");
    // The far worker works again.
    let mut pinned = echo("after-break-1", 0.0);
    pinned["routing"] = json!({"worker_id": "far"});
    house.submit_and_watch(&pinned).expect_code(COMPLETED);
}

#[test]
fn a_connection_that_stays_cut_moves_the_job() {
    a_long_break_moves_the_job(Mode::Cut);
}

#[test]
fn a_network_that_stays_silent_moves_the_job() {
    a_long_break_moves_the_job(Mode::Frozen);
}
