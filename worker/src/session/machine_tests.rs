//! Stories of one worker: what happens on the left, what the machine wants on the right, one line per effect.

use super::*;

struct Story {
    machine: Machine,
    now: Now,
    name: &'static str,
}

fn identity(slots: u32) -> Identity {
    Identity {
        worker_id: "w".into(),
        boot_id: "b".into(),
        description: v1::WorkerDescription { slots, ..Default::default() },
        message_bytes_max: 4 << 20,
    }
}

fn wire_duration(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// One effect as one word or two.
fn shown(effect: &Effect) -> String {
    match effect {
        Effect::Start(lease) => format!("start {}", lease.lease_id),
        Effect::Stop(lease, Stop::Abandon) => format!("abandon {lease}"),
        Effect::Stop(lease, Stop::Cancel { reason }) => format!("cancel {lease} ({reason})"),
        Effect::Deliver(lease, _) => format!("deliver {lease}"),
        Effect::Forget(lease) => format!("forget {lease}"),
        Effect::Disconnect { after, .. } => format!("disconnect {}s", after.as_secs()),
        Effect::Move { leader, after } => format!("move to {leader:?} {}s", after.as_secs()),
        Effect::Leave { gracefully } => format!("leave {}", if *gracefully { "gracefully" } else { "ousted" }),
        Effect::Send(words) => match &**words {
            Say::Hello(hello) => {
                let held = hello.held.iter().map(|held| {
                    let state = if held.state() == v1::HeldState::Running { "running" } else { "finished" };
                    format!(" {}:{state}", held.lease_id)
                });
                format!("hello{}", held.collect::<String>())
            }
            Say::Accept(accept) => format!("accept {}", accept.lease_id),
            Say::Refuse(refuse) => format!("refuse {} {:?}", refuse.lease_id, refuse.fault()),
            Say::Progress(progress) => {
                format!(
                    "progress {} {}",
                    progress.lease_id,
                    progress.progress.clone().unwrap_or_default().progress_percent
                )
            }
            Say::Heartbeat(beat) => format!("beat {}", beat.sequence),
            Say::Draining(_) => "draining".into(),
            Say::Outcome(outcome) => format!("outcome {}", outcome.lease_id),
        },
    }
}

impl Story {
    fn new(name: &'static str, slots: u32, kept: &[u64]) -> Self {
        let kept = kept.iter().map(|lease| (*lease, format!("job-{lease:05}")));
        Self { machine: Machine::new(identity(slots), kept), now: Duration::from_secs(1000), name }
    }

    /// A worker that is connected and holds nothing.
    fn connected(name: &'static str, slots: u32) -> Self {
        let mut story = Self::new(name, slots, &[]);
        story.connect("hello");
        story.welcome(&[], "");
        story
    }

    /// Compares what the machine wants with `expected`, words separated by semicolons.
    #[track_caller]
    fn expect(&mut self, expected: &str) {
        let met: Vec<_> = self.machine.take_effects().iter().map(shown).collect();
        assert_eq!(met.join("; "), expected, "in the story {:?} at {:?}", self.name, self.now);
    }

    #[track_caller]
    fn connect(&mut self, expected: &str) {
        self.machine.on_connecting(self.now);
        self.expect(expected);
    }

    #[track_caller]
    fn hear(&mut self, message: Hear, expected: &str) {
        self.machine.on_message(self.now, message);
        self.expect(expected);
    }

    #[track_caller]
    fn welcome(&mut self, held: &[(u64, v1::HeldDecision)], expected: &str) {
        let verdict = |(lease_id, decision): &(u64, v1::HeldDecision)| v1::HeldVerdict {
            lease_id: *lease_id,
            decision: (*decision).into(),
        };
        let welcome = v1::Welcome {
            heartbeat_interval: wire_duration(5),
            lease_ttl: wire_duration(60),
            held: held.iter().map(verdict).collect(),
            ..Default::default()
        };
        self.hear(Hear::Welcome(welcome), expected);
    }

    #[track_caller]
    fn lease(&mut self, lease_id: u64, expected: &str) {
        let lease = v1::Lease { lease_id, job_id: format!("job-{lease_id:05}"), ..Default::default() };
        self.machine.on_lease(self.now, lease, Ok(()));
        self.expect(expected);
    }

    #[track_caller]
    fn cancel(&mut self, lease_id: u64, outcome_wanted: bool, expected: &str) {
        self.hear(Hear::Cancel(v1::CancelLease { lease_id, reason: "asked".into(), outcome_wanted }), expected);
    }

    #[track_caller]
    fn ack(&mut self, lease_id: u64, expected: &str) {
        self.hear(Hear::OutcomeAck(v1::OutcomeAck { lease_id, verdict: 1 }), expected);
    }

    #[track_caller]
    fn finished(&mut self, lease_id: u64, kept: bool, expected: &str) {
        self.machine.on_finished(self.now, lease_id, kept);
        self.expect(expected);
    }

    #[track_caller]
    fn progress(&mut self, lease_id: u64, percent: f64, expected: &str) {
        let progress = v1::Progress { progress_percent: percent, ..Default::default() };
        self.machine.on_progress(self.now, lease_id, progress);
        self.expect(expected);
    }

    #[track_caller]
    fn lost(&mut self, expected: &str) {
        self.machine.on_lost(self.now);
        self.expect(expected);
    }

    #[track_caller]
    fn drain(&mut self, deadline_seconds: Option<u64>, expected: &str) {
        self.machine.on_drain(self.now, deadline_seconds.map(Duration::from_secs));
        self.expect(expected);
    }

    /// Lets time pass until the machine wants something, at most `seconds`, calling it only when it asked to be called.
    #[track_caller]
    fn wait(&mut self, seconds: u64, expected: &str) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(at) = self.machine.next_deadline().filter(|at| *at <= end) {
            assert!(at >= self.now || self.machine.effects.is_empty(), "a deadline in the past that is not acted on");
            self.now = at.max(self.now);
            self.machine.on_tick(self.now);
            if !self.machine.effects.is_empty() {
                return self.expect(expected);
            }
        }
        self.now = end;
        self.expect(expected);
    }
}

use v1::HeldDecision::{Deliver, Keep, Stop as Void};

#[test]
fn a_job_from_lease_to_acknowledgement() {
    let mut story = Story::connected("one job", 1);
    story.lease(7, "accept 7; start 7");
    story.progress(7, 5.0, "progress 7 5");
    story.lease(8, "refuse 8 Busy");
    story.finished(7, true, "deliver 7");
    story.lease(9, "accept 9; start 9");
    story.ack(7, "forget 7");
    story.ack(7, "");
}

#[test]
fn a_lease_that_is_offered_twice_is_run_once() {
    let mut story = Story::connected("twice", 4);
    story.lease(7, "accept 7; start 7");
    story.lease(7, "accept 7");
    story.finished(7, true, "deliver 7");
    story.lease(7, "deliver 7");
    story.ack(7, "forget 7");
    story.lease(7, "refuse 7 Busy");
    story.lease(8, "accept 8; start 8");
    story.cancel(8, false, "abandon 8");
    story.finished(8, false, "");
    story.lease(8, "refuse 8 Busy");
    story.lease(9, "accept 9; start 9");
}

#[test]
fn a_lease_that_cannot_be_taken_is_refused_with_whose_fault_it_is() {
    let mut story = Story::connected("refused", 1);
    let lease = v1::Lease { lease_id: 3, ..Default::default() };
    story.machine.on_lease(story.now, lease, Err((v1::RefusalFault::Job, v1::JobError::default())));
    story.expect("refuse 3 Job");
}

#[test]
fn a_cancelled_attempt_tells_its_end_and_a_void_one_does_not() {
    let mut story = Story::connected("cancel", 4);
    story.lease(1, "accept 1; start 1");
    story.lease(2, "accept 2; start 2");
    story.cancel(1, true, "cancel 1 (asked)");
    story.cancel(1, true, "");
    story.finished(1, true, "deliver 1");
    story.cancel(2, false, "abandon 2");
    // It had finished before the stop reached it: only the coordinator's word drops its outcome.
    story.finished(2, true, "deliver 2");
    story.cancel(99, true, "");
    story.ack(1, "forget 1");
}

#[test]
fn a_cancel_that_turns_void_tells_an_outcome_that_is_there() {
    let mut story = Story::connected("cancel, then void", 1);
    story.lease(1, "accept 1; start 1");
    story.cancel(1, true, "cancel 1 (asked)");
    story.cancel(1, false, "abandon 1");
    story.finished(1, true, "deliver 1");
    story.ack(1, "forget 1");
}

#[test]
fn a_stream_that_breaks_resumes_its_leases() {
    let mut story = Story::connected("resume", 4);
    for lease in 1..=4 {
        story.lease(lease, &format!("accept {lease}; start {lease}"));
    }
    story.lost("");
    story.progress(1, 40.0, "");
    story.progress(1, 50.0, "");
    story.finished(2, true, "");
    story.finished(4, true, "");
    story.connect("hello 1:running 2:finished 3:running 4:finished");
    story.welcome(&[(1, Keep), (2, Deliver), (3, Void), (4, Void)], "abandon 3; forget 4; deliver 2; progress 1 50");
    story.finished(3, false, "");
    story.ack(2, "forget 2");
}

#[test]
fn a_worker_that_holds_leases_does_not_wait_for_longer_than_they_live() {
    let mut story = Story::connected("hurry", 1);
    assert_eq!(story.machine.reconnect_within(), Duration::MAX);
    story.lease(1, "accept 1; start 1");
    story.lost("");
    assert_eq!(story.machine.reconnect_within(), Duration::from_secs(5));
    story.finished(1, true, "");
    assert_eq!(story.machine.reconnect_within(), Duration::from_secs(5), "its outcome is still to be told");
    story.connect("hello 1:finished");
    story.welcome(&[(1, Void)], "forget 1");
    assert_eq!(story.machine.reconnect_within(), Duration::MAX);
}

#[test]
fn an_outcome_of_an_earlier_run_is_delivered() {
    let mut story = Story::new("restart", 1, &[5, 6]);
    story.connect("hello 5:finished 6:finished");
    story.welcome(&[(5, Deliver), (6, Void)], "forget 6; deliver 5");
    story.ack(5, "forget 5");
}

#[test]
fn an_attempt_that_finishes_before_the_welcome_is_delivered_after_it() {
    let mut story = Story::connected("greeting", 1);
    story.lease(1, "accept 1; start 1");
    story.lost("");
    story.connect("hello 1:running");
    story.finished(1, true, "");
    story.welcome(&[(1, Keep)], "deliver 1");
}

#[test]
fn heartbeats_come_when_they_are_due_and_silence_ends_the_stream() {
    let mut story = Story::connected("silence", 1);
    for beat in 1..=3 {
        story.wait(5, &format!("beat {beat}"));
    }
    story.wait(5, "disconnect 0s");
    story.lost("");
    story.connect("hello");
    story.wait(60, "disconnect 0s");
}

#[test]
fn an_answer_to_a_heartbeat_keeps_the_stream() {
    let mut story = Story::connected("answered", 1);
    for beat in 1..=20 {
        story.wait(5, &format!("beat {beat}"));
        story.hear(Hear::HeartbeatAck(v1::HeartbeatAck { sequence: beat, ..Default::default() }), "");
    }
}

#[test]
fn the_coordinator_says_when_heartbeats_are_due() {
    let mut story = Story::new("dictated", 1, &[]);
    story.connect("hello");
    let welcome =
        v1::Welcome { heartbeat_interval: wire_duration(5), first_heartbeat: wire_duration(2), ..Default::default() };
    story.hear(Hear::Welcome(welcome), "");
    story.wait(1, "");
    story.wait(1, "beat 1");
    // More often from now on, then less often: what is due already stays due.
    for (told, beats) in
        [(3, &["", "", "beat 2"][..]), (10, &["", "", "beat 3"]), (10, &["", "", "", "", "", "", "", "", "", "beat 4"])]
    {
        let ack = v1::HeartbeatAck { sequence: 0, heartbeat_interval: wire_duration(told) };
        story.hear(Hear::HeartbeatAck(ack), "");
        for beat in beats {
            story.wait(1, beat);
        }
    }
}

#[test]
fn a_worker_cut_off_stops_its_attempts_once_their_lease_has_run_out() {
    let mut story = Story::connected("fence", 2);
    story.lease(1, "accept 1; start 1");
    story.lease(2, "accept 2; start 2");
    story.lost("");
    story.finished(2, true, "");
    // Twice the lease's time: once for the coordinator's patience, once for its restart.
    story.wait(119, "");
    story.wait(5, "abandon 1");
    story.finished(1, false, "");
    story.connect("hello 2:finished");
}

#[test]
fn an_attempt_given_up_while_the_coordinator_was_asked_is_given_back() {
    let mut story = Story::connected("fenced while greeting", 2);
    story.lease(1, "accept 1; start 1");
    story.lease(2, "accept 2; start 2");
    story.lost("");
    story.wait(115, "");
    story.connect("hello 1:running 2:running");
    story.wait(5, "abandon 1; abandon 2");
    story.finished(1, false, "");
    // What the coordinator believes to be running would otherwise be waited for until its time runs out.
    story.welcome(&[(1, Keep), (2, Keep)], "refuse 1 Busy; refuse 2 Busy");
    story.finished(2, false, "");
}

#[test]
fn a_flood_of_progress_is_thinned_and_its_last_word_kept() {
    let mut story = Story::connected("flood", 1);
    story.lease(1, "accept 1; start 1");
    for percent in 0..50 {
        story.progress(1, f64::from(percent), &format!("progress 1 {percent}"));
    }
    for percent in 50..90 {
        story.progress(1, f64::from(percent), "");
    }
    story.wait(1, "progress 1 89");
    story.progress(1, 99.0, "");
    story.finished(1, true, "progress 1 99; deliver 1");
}

#[test]
fn a_drained_worker_takes_nothing_and_leaves_when_its_outcomes_are_safe() {
    let mut story = Story::connected("drain", 2);
    story.lease(1, "accept 1; start 1");
    story.drain(Some(300), "draining");
    story.lease(2, "refuse 2 Busy");
    story.finished(1, true, "deliver 1");
    story.ack(1, "forget 1; leave gracefully");
}

#[test]
fn what_still_runs_at_the_deadline_of_a_drain_is_given_back() {
    let mut story = Story::connected("drain deadline", 2);
    story.lease(1, "accept 1; start 1");
    story.drain(Some(3), "draining");
    story.wait(10, "refuse 1 Busy; abandon 1");
    story.finished(1, false, "leave gracefully");
}

#[test]
fn a_second_request_to_leave_is_obeyed_at_once() {
    let mut story = Story::connected("insist", 2);
    story.lease(1, "accept 1; start 1");
    story.drain(Some(300), "draining");
    story.drain(Some(0), "refuse 1 Busy; abandon 1");
    story.finished(1, false, "leave gracefully");
}

#[test]
fn an_idle_worker_leaves_at_once_and_a_deaf_coordinator_does_not_hold_it() {
    Story::connected("idle", 1).drain(None, "draining; leave gracefully");
    Story::new("never connected", 1, &[3]).drain(None, "leave gracefully");
    let mut story = Story::connected("deaf", 1);
    story.lease(1, "accept 1; start 1");
    story.finished(1, true, "deliver 1");
    story.drain(None, "draining");
    story.wait(5, "beat 1");
    // Ten seconds of patience, at which another heartbeat happens to be due.
    story.wait(5, "beat 2; leave gracefully");
}

#[test]
fn a_worker_whose_name_is_taken_over_gives_everything_up() {
    let mut story = Story::connected("superseded", 2);
    story.lease(1, "accept 1; start 1");
    let goodbye = v1::Goodbye { reason: v1::GoodbyeReason::Superseded.into(), ..Default::default() };
    story.hear(Hear::Goodbye(goodbye), "abandon 1; leave ousted");
}

#[test]
fn a_coordinator_that_stops_is_waited_for_as_long_as_it_says() {
    let mut story = Story::connected("goodbye", 2);
    story.lease(1, "accept 1; start 1");
    let reconnect_after = wire_duration(2);
    let reason = v1::GoodbyeReason::ShuttingDown.into();
    story.hear(Hear::Goodbye(v1::Goodbye { reason, reconnect_after, ..Default::default() }), "disconnect 2s");
    story.lost("");
    story.connect("hello 1:running");
    story.welcome(&[(1, Keep)], "");
}

#[test]
fn a_coordinator_that_does_not_lead_is_left_for_the_one_it_names() {
    let mut story = Story::connected("not-leader", 2);
    story.lease(1, "accept 1; start 1");
    let (reason, leader) = (v1::GoodbyeReason::NotLeader.into(), "http://b:1".to_owned());
    story.hear(Hear::Goodbye(v1::Goodbye { reason, leader, ..Default::default() }), "move to \"http://b:1\" 0s");
    story.lost("");
    story.connect("hello 1:running");
    story.welcome(&[(1, Keep)], "");
}
