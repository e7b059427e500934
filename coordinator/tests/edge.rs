//! What hostile peers may do to the edge: raw sockets and HTTP/2 frames by hand against a real coordinator. After each, a good
//! client on another connection is answered as before.

// Helpers of tests are tests: a panic is how they fail. Not every test program uses all of the harness.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

mod harness;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use guestkit_coordinator::config::Config;
use guestkit_protocol::status::{Reason, Refusal};
use guestkit_protocol::v1;
use harness::{Coordinator, config, echo, hello, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// Another machine, as far as the coordinator can see.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The preface and settings; `window` is what the peer says it takes of each answer.
fn greeting(window: u32) -> Vec<u8> {
    let settings = [&4_u16.to_be_bytes()[..], &window.to_be_bytes()].concat();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &settings)[..]].concat()
}

/// Fields as literals that are not indexed (RFC 7541, section 6.2.2).
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

fn call(stream: u32, path: &str) -> Vec<u8> {
    let head = fields(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "coordinator"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]);
    frame(HEADERS, END_HEADERS, stream, &head)
}

fn message(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0], &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
}

/// A peer that speaks frames.
struct Raw(TcpStream);

impl Raw {
    async fn connect(to: SocketAddr) -> Self {
        Self(TcpStream::connect(to).await.unwrap())
    }

    async fn greeted(to: SocketAddr, window: u32) -> Self {
        let mut raw = Self::connect(to).await;
        raw.say(&greeting(window)).await;
        raw
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Fails when the coordinator has closed the connection.
    async fn try_say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// The next frame: kind, flags, stream, payload; nothing once the connection is closed. Pings and settings are answered, windows are
    /// ignored.
    async fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match (head[3], head[4]) {
                (SETTINGS | PING, flags) if flags & ACK != 0 => {}
                (WINDOW_UPDATE, _) => {}
                (SETTINGS, _) => drop(self.try_say(&frame(SETTINGS, ACK, 0, &[])).await),
                (PING, _) => drop(self.try_say(&frame(PING, ACK, 0, &payload)).await),
                (kind, flags) => return Some((kind, flags, stream, payload)),
            }
        }
    }

    /// Reads until the coordinator closes the connection.
    async fn closed(&mut self) {
        let mut rest = [0; 4096];
        while matches!(self.0.read(&mut rest).await, Ok(read) if read > 0) {}
    }
}

async fn coordinator(folder: &tempfile::TempDir, change: impl FnOnce(&mut Config)) -> Coordinator {
    let mut settings = Config { data: folder.path().into(), peer_patience_seconds: 1.0, ..config() };
    change(&mut settings);
    Coordinator::start_with(settings).await
}

/// A client whose address is another.
async fn elsewhere(coordinator: &Coordinator) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", coordinator.grpc)).unwrap();
    endpoint.local_address(Some(ELSEWHERE)).connect().await.unwrap()
}

/// The coordinator serves, and soon.
async fn check_well(coordinator: &Coordinator) {
    let slowest = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let started = Instant::now();
            coordinator.fleet().summary(v1::SummaryRequest {}).await.unwrap();
            slowest = slowest.max(started.elapsed());
        }
        slowest
    };
    let slowest = within(slowest).await;
    // Usually a millisecond; a machine under load gets more.
    assert!(slowest < Duration::from_secs(3), "a good client waited {slowest:?}");
}

fn reason(status: &tonic::Status) -> Reason {
    Refusal::from_status(status).unwrap_or_else(|| panic!("not a refusal: {status:?}")).reason
}

/// Bytes this process holds.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_not_greet_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = coordinator(&folder, |_| {}).await;
    let half = greeting(0);
    for said in [&b""[..], b"P", b"GET / HT", &half[..20]] {
        let mut raw = Raw::connect(coordinator.grpc).await;
        raw.say(said).await;
        within(raw.closed()).await;
    }
    // One byte at a time is no better.
    let mut raw = Raw::connect(coordinator.grpc).await;
    let trickle = async {
        for byte in std::iter::repeat_n(b'P', 1000) {
            if raw.try_say(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it is still listened to");
    };
    within(trickle).await;
    check_well(&coordinator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_not_held_up_by_who_never_ends_a_request() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = coordinator(&folder, |_| {}).await;
    let mut held = Vec::new();
    for said in [&b""[..], b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: ", b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n"] {
        let mut raw = Raw::connect(coordinator.http).await;
        raw.say(said).await;
        held.push(raw);
    }
    // A head that never ends.
    let mut endless = Raw::connect(coordinator.http).await;
    endless.say(b"GET /healthz HTTP/1.1\r\n").await;
    while endless.try_say(&[b"X: ", &[b'y'; 8192][..], b"\r\n"].concat()).await.is_ok() {}
    // One that asked and says no more.
    let mut idle = Raw::connect(coordinator.http).await;
    idle.say(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    held.push(idle);
    for mut raw in held {
        within(raw.closed()).await;
    }
    // More than may be open at once: those above are closed, and others are let in when those have gone.
    let crowd: Vec<Raw> = futures::future::join_all((0..200).map(|_| Raw::connect(coordinator.http))).await;
    for mut raw in crowd {
        within(raw.closed()).await;
    }
    let mut raw = Raw::connect(coordinator.http).await;
    raw.say(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let mut page = String::new();
    within(raw.0.read_to_string(&mut page)).await.unwrap();
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_its_share_of_connections_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = coordinator(&folder, |config| config.connections_per_peer_max = 4).await;
    // The harness has one of the four.
    let mut mine = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::greeted(coordinator.grpc, 0).await;
        raw.say(&frame(PING, 0, 0, &[7; 8])).await;
        mine.push(raw);
    }
    let mut refused = Raw::connect(coordinator.grpc).await;
    within(refused.closed()).await;
    // Others come in.
    let channel = elsewhere(&coordinator).await;
    guestkit_protocol::client::fleet(channel).summary(v1::SummaryRequest {}).await.unwrap();
    check_well(&coordinator).await;
    // Places that are given back are taken again.
    mine.clear();
    let again = async {
        loop {
            let mut raw = Raw::greeted(coordinator.grpc, 0).await;
            if raw.0.read(&mut [0; 9]).await.is_ok_and(|read| read > 0) {
                return;
            }
        }
    };
    within(again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_its_share_of_calls_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = coordinator(&folder, |config| config.calls_per_peer_max = 4).await;
    coordinator.submit(echo("job-00001")).await;
    let watch = v1::WatchRequest { job_id: "job-00001".into(), after_sequence: 0 };
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = coordinator.jobs().watch(watch.clone()).await.unwrap().into_inner();
        within(stream.message()).await.unwrap().unwrap();
        streams.push(stream);
    }
    let status = coordinator.jobs().submit(echo("job-00002")).await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::ResourceExhausted, Reason::RequestLimit));
    assert!(Refusal::from_status(&status).unwrap().retry_after.is_some());
    // Nobody else is refused.
    let channel = elsewhere(&coordinator).await;
    guestkit_protocol::client::jobs(channel).submit(echo("job-00002")).await.unwrap();
    streams.pop();
    let again = async { while coordinator.jobs().submit(echo("job-00003")).await.is_err() {} };
    within(again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_begun_must_become_whole() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = coordinator(&folder, |_| {}).await;
    let document = message(&echo("job-00001"));
    for path in ["/guestkit.v1.Jobs/Submit", "/guestkit.v1.Jobs/SubmitStream", "/guestkit.v1.Workers/PutArtifact"] {
        let mut raw = Raw::greeted(coordinator.grpc, 65_535).await;
        raw.say(&call(1, path)).await;
        raw.say(&call(3, path)).await;
        // One never begins, of the other a byte comes now and then.
        let (told, mut ended) = (Instant::now(), 0);
        for byte in &document {
            raw.say(&frame(DATA, 0, 3, &[*byte])).await;
            let next = tokio::time::timeout(Duration::from_millis(100), raw.frame());
            if let Ok(frame) = next.await {
                let (kind, flags, _, _) = frame.expect("the connection stays");
                let over = kind == RST_STREAM || (kind == HEADERS && flags & END_STREAM != 0);
                ended += u32::from(over);
            }
            if ended >= 2 || told.elapsed() > harness::PATIENCE {
                break;
            }
        }
        assert!(ended >= 2, "{path}: {ended} calls ended");
        // The connection has other calls.
        raw.say(&call(5, "/guestkit.v1.Fleet/Summary")).await;
        raw.say(&frame(DATA, END_STREAM, 5, &message(&v1::SummaryRequest {}))).await;
        while within(raw.frame()).await.expect("the connection stays").2 != 5 {}
    }
    check_well(&coordinator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_taken_have_a_bound() {
    const MIB: usize = 1024 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let coordinator = coordinator(&folder, |_| {}).await;
    for index in 0..8 {
        let mut document = echo(&format!("job-{index:05}"));
        document.payload.as_mut().unwrap().data = Some(prost_types::Struct {
            fields: [("message".to_owned(), prost_types::Value::from("x".repeat(900 * 1024)))].into(),
        });
        coordinator.submit(document).await;
    }
    let before = resident();
    // 400 answers of some three MiB each, none of them taken, would be more than a GiB.
    let mut deaf = Raw::greeted(coordinator.grpc, 0).await;
    let list = message(&v1::ListRequest::default());
    for stream in (0..400).map(|index| 1 + 2 * index) {
        deaf.say(&call(stream, "/guestkit.v1.Jobs/List")).await;
        deaf.say(&frame(DATA, END_STREAM, stream, &list)).await;
    }
    // Every one of them was answered, or refused, before the end of this.
    let mut answered = 0;
    while answered < 400 {
        let (kind, _, _, _) = within(deaf.frame()).await.expect("the connection stays");
        answered += u32::from(kind == HEADERS);
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 400 * MIB, "{} MiB more are held", grown / MIB);
    // Its address is told so; nobody else is.
    let status = coordinator.jobs().list(v1::ListRequest::default()).await.unwrap_err();
    assert_eq!(reason(&status), Reason::RequestLimit);
    let channel = elsewhere(&coordinator).await;
    guestkit_protocol::client::jobs(channel).list(v1::ListRequest::default()).await.unwrap();
    check_well(&coordinator).await;
    drop(deaf);
    let again = async { while coordinator.jobs().list(v1::ListRequest::default()).await.is_err() {} };
    within(again).await;
}

/// Frames that break the rules, one way each. The connection is closed, or nothing comes of it.
#[tokio::test(flavor = "multi_thread")]
async fn frames_that_break_the_rules_end_their_connection_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = coordinator(&folder, |_| {}).await;
    let summary = "/guestkit.v1.Fleet/Summary";
    let garbage: Vec<u8> = (0..20_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let endless = fields(&[("x", "y")]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("noise", garbage.clone()),
        ("noise after the greeting", [greeting(0), garbage].concat()),
        ("data on no stream", [greeting(0), frame(DATA, 0, 0, b"x")].concat()),
        ("data on a stream that is not open", [greeting(0), frame(DATA, 0, 7, b"x")].concat()),
        ("a client's even stream", [greeting(0), call(2, summary)].concat()),
        ("streams backwards", [greeting(0), call(9, summary), call(3, summary)].concat()),
        ("a frame above the limit", [greeting(0), vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]].concat()),
        ("a header block that is none", [greeting(0), frame(HEADERS, END_HEADERS, 1, &[0xff; 64])].concat()),
        ("a continuation of nothing", [greeting(0), frame(CONTINUATION, 0, 1, b"x")].concat()),
        ("a ping of another size", [greeting(0), frame(PING, 0, 0, b"x")].concat()),
        ("settings of another size", [greeting(0), frame(SETTINGS, 0, 0, b"x")].concat()),
        ("a window above the limit", [greeting(0), frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])].concat()),
        (
            "headers without an end",
            [greeting(0), frame(HEADERS, 0, 1, &endless), frame(CONTINUATION, 0, 1, &endless).repeat(100_000)].concat(),
        ),
        (
            "headers above the limit",
            [greeting(0), frame(HEADERS, END_HEADERS, 1, &fields(&[("x", &"y".repeat(100))]).repeat(150))].concat(),
        ),
        ("streams that are taken back at once", {
            let each = |index: u32| {
                [call(1 + 2 * index, summary), frame(RST_STREAM, 0, 1 + 2 * index, &[0, 0, 0, 8])].concat()
            };
            std::iter::once(greeting(0)).chain((0..20_000).map(each)).flatten().collect()
        }),
        ("settings without end", [greeting(0), frame(SETTINGS, 0, 0, &[]).repeat(20_000)].concat()),
        ("pings without end", [greeting(0), frame(PING, 0, 0, &[0; 8]).repeat(20_000)].concat()),
        ("streams without end", {
            std::iter::once(greeting(0))
                .chain((0..20_000).map(|index| call(1 + 2 * index, summary)))
                .flatten()
                .collect()
        }),
    ];
    let before = resident();
    for (what, said) in cases {
        let mut raw = Raw::connect(coordinator.grpc).await;
        // Whether it is taken is the coordinator's affair; that nobody else suffers is ours. Answers are not read.
        let _ = tokio::time::timeout(Duration::from_secs(5), raw.try_say(&said)).await;
        check_well(&coordinator).await;
        drop(raw);
        println!("{what}: borne");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 400 * 1024 * 1024, "{grown} bytes more are held");
    coordinator.submit(echo("job-00001")).await;
    coordinator.worker(hello("w1", "b1")).await.work().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_no_messages_are_refused_with_a_status() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = coordinator(&folder, |_| {}).await;
    let mut large = echo("job-00001");
    large.metadata.get_or_insert_default().name = "x".repeat(5 * 1024 * 1024);
    let mut jobs = v1::jobs_client::JobsClient::new(coordinator.channel.clone());
    let status = jobs.submit(large.clone()).await.unwrap_err();
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status:?}");
    large.metadata.get_or_insert_default().name = "x".repeat(2 * 1024 * 1024);
    assert_eq!(reason(&jobs.submit(large.clone()).await.unwrap_err()), Reason::TooLarge);
    let metadata = large.metadata.get_or_insert_default();
    metadata.name.clear();
    metadata.labels = (0..65).map(|index| (format!("label-{index}"), String::new())).collect();
    metadata.namespace = "n".repeat(64);
    let refused = Refusal::from_status(&jobs.submit(large).await.unwrap_err()).unwrap();
    let fields: Vec<&str> = refused.problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["metadata.namespace", "metadata.labels"]);
    for (path, said) in [
        ("/guestkit.v1.Jobs/Submit", vec![0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]),
        ("/guestkit.v1.Jobs/Submit", vec![0, 0xff, 0xff, 0xff, 0xff, 1]),
        ("/guestkit.v1.Jobs/Submit", vec![7, 0, 0, 0, 0]),
        ("/guestkit.v1.Jobs/Submit", vec![1, 0, 0, 0, 4, 1, 2, 3, 4]),
        ("/guestkit.v1.Jobs/Submit", vec![]),
        ("/guestkit.v1.Jobs/Nothing", vec![0, 0, 0, 0, 0]),
        ("/nothing", vec![0]),
    ] {
        let mut raw = Raw::greeted(coordinator.grpc, 65_535).await;
        raw.say(&call(1, path)).await;
        raw.say(&frame(DATA, END_STREAM, 1, &said)).await;
        let (kind, ..) = within(raw.frame()).await.expect("an answer");
        assert_eq!(kind, HEADERS, "{path}: {said:?}");
    }
    check_well(&coordinator).await;
}
