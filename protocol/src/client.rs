//! Reaching the coordinator that leads: the command line and the worker find it and connect the same way, with the same limits.

use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint, Uri};

use crate::v1::fleet_client::FleetClient;
use crate::v1::jobs_client::JobsClient;
use crate::v1::workers_client::WorkersClient;

/// Bytes of one message, either way: a report within the session's inline limit (1 MiB) and a full page of a list fit;
/// larger reports go as artifacts. Also tonic's own default for what it takes.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes that may arrive on one stream before they are read: whoever does not read holds the other back by it, and no peer
/// makes us keep more.
pub const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// The same of one connection. It is so much larger because our HTTP/2 ends a connection on which small frames lie unread
/// whose overhead, what each lacks to 256 bytes, is more than half of this: a full stream of messages of 16 bytes stays
/// below that, as one of larger ones does.
pub const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// How long a connection may take to be made; the next endpoint is tried then. A first packet that was lost is sent again
/// after a second; a machine that is gone must not cost more than that.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection may be silent before it is proven alive, and how long the proof may take. Longer than the heartbeats
/// of a fleet of thousands are apart: whoever says something anyway is not asked as well.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Coordinators that are tried in turn: more than any cluster has.
const ENDPOINTS_MAX: usize = 16;
/// Leaders gone to because another coordinator named them, before that counts as a failure: two that name each other, each out
/// of date, must not be asked in a tight loop.
const HOPS_MAX: u32 = 3;
/// The longest wait before the first tries: a coordinator that restarts, or an election, is over within seconds.
const WAIT_QUICK: Duration = Duration::from_millis(500);
/// Tries that are quick: half of the longest wait each on average, so five seconds of them.
const QUICK_TRIES: u32 = 20;
/// The longest wait between two tries.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Where coordinators are, in the order they are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints(Vec<Uri>);

/// Why a text is not the address of a coordinator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No address at all.
    #[error("no coordinator given; name one such as http://127.0.0.1:7443")]
    None,
    /// More than are ever tried.
    #[error("{count} coordinators given, at most {ENDPOINTS_MAX} are tried")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Not `http://host:port`.
    #[error("{text:?} is not the address of a coordinator ({why}); write http://host:port")]
    Invalid {
        /// The text.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Endpoints {
    /// Checks a list of addresses, each `http://host:port`; each text may hold several, separated by commas.
    ///
    /// # Errors
    /// When there is none, there are too many, or one is not an address.
    pub fn new<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, EndpointError> {
        let mut uris = Vec::new();
        for text in texts {
            for part in text.as_ref().split(',').map(str::trim).filter(|part| !part.is_empty()) {
                uris.push(parse(part)?);
            }
        }
        match uris.len() {
            0 => Err(EndpointError::None),
            1..=ENDPOINTS_MAX => Ok(Self(uris)),
            count => Err(EndpointError::TooMany { count }),
        }
    }
}

/// Whether a text is the address of one coordinator, as clients take it.
#[must_use]
pub fn is_endpoint(text: &str) -> bool {
    parse(text).is_ok()
}

impl FromStr for Endpoints {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        Self::new([text])
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, uri) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", shown(uri))?;
        }
        Ok(())
    }
}

/// The address as it was given: without the slash that the parser adds.
fn shown(uri: &Uri) -> String {
    uri.to_string().trim_end_matches('/').to_owned()
}

fn parse(text: &str) -> Result<Uri, EndpointError> {
    let invalid = |why: &str| EndpointError::Invalid { text: text.to_owned(), why: why.to_owned() };
    let uri: Uri = text.parse().map_err(|error: tonic::codegen::http::uri::InvalidUri| invalid(&error.to_string()))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(invalid("TLS is not spoken by this version")),
        _ => return Err(invalid("no http://")),
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(invalid("no host"));
    }
    if uri.port_u16().is_none() {
        return Err(invalid("no port"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(invalid("more than host and port"));
    }
    Ok(uri)
}

/// No coordinator could be reached.
#[derive(Debug, thiserror::Error)]
#[error("no coordinator reached: {}", attempts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Unreachable {
    /// What happened at each endpoint, in order.
    pub attempts: Vec<FailedAttempt>,
}

/// One endpoint that could not be reached.
#[derive(Debug)]
pub struct FailedAttempt {
    /// Its address.
    pub endpoint: String,
    /// Why.
    pub error: tonic::transport::Error,
}

impl fmt::Display for FailedAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // tonic's own text is "transport error"; the cause at the bottom says what happened.
        let mut cause: &dyn std::error::Error = &self.error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        write!(f, "{}: {cause}", self.endpoint)
    }
}

/// Connects to the first endpoint that answers.
///
/// # Errors
/// When none answers; each one's reason is in the error.
pub async fn connect(endpoints: &Endpoints) -> Result<Channel, Unreachable> {
    Route::new(endpoints.clone()).connect().await
}

/// How a connection is made to an endpoint, whose limits are set.
pub type Dial = fn(Endpoint) -> Pin<Box<dyn Future<Output = Result<Channel, tonic::transport::Error>> + Send>>;

/// The way to the coordinator that leads: the endpoints that were given, in turn, and before them the leader that one of them
/// named. It keeps to the one that answered last, and tells after each disappointment how long to wait.
///
/// A leader that is named need not be among the endpoints: whoever was given one address finds the others. It is gone to only
/// when it is an address as endpoints are, and only so often in a row.
#[derive(Debug, Clone)]
pub struct Route {
    endpoints: Endpoints,
    dial: Dial,
    /// The endpoint whose turn it is.
    turn: usize,
    /// Named by the coordinator that was asked last.
    leader: Option<Uri>,
    /// Leaders gone to since the last wait.
    hops: u32,
    /// Waits since a coordinator served.
    waits: u32,
}

impl Route {
    /// Begins at the first endpoint.
    #[must_use]
    pub fn new(endpoints: Endpoints) -> Self {
        Self::by(endpoints, |endpoint| Box::pin(async move { endpoint.connect().await }))
    }

    /// The same over connections that are made by `dial`.
    #[must_use]
    pub fn by(endpoints: Endpoints, dial: Dial) -> Self {
        Self { endpoints, dial, turn: 0, leader: None, hops: 0, waits: 0 }
    }

    /// Connects to the coordinator whose turn it is; those that do not answer are passed over.
    ///
    /// # Errors
    /// When none answers, each asked once; each one's reason is in the error.
    pub async fn connect(&mut self) -> Result<Channel, Unreachable> {
        let mut attempts = Vec::new();
        for _ in 0..self.endpoints.0.len() + usize::from(self.leader.is_some()) {
            let uri = self.target();
            match (self.dial)(endpoint(&uri)).await {
                Ok(channel) => return Ok(channel),
                Err(error) => {
                    attempts.push(FailedAttempt { endpoint: shown(&uri), error });
                    self.pass_over();
                }
            }
        }
        Err(Unreachable { attempts })
    }

    /// The coordinator that is reached is one that leads: what went wrong before is forgotten.
    pub fn served(&mut self) {
        self.hops = 0;
        self.waits = 0;
    }

    /// The coordinator cannot be reached, broke off, or cannot serve: it is the next one's turn, after this wait.
    pub fn failed(&mut self) -> Duration {
        self.pass_over();
        self.hops = 0;
        let wait = wait(self.waits, rand::random());
        self.waits = self.waits.saturating_add(1);
        wait
    }

    /// The coordinator does not lead. It is the turn of the leader it names, at once; of the next one, after a wait, where it
    /// names none.
    pub fn turned_away(&mut self, leader: Option<&str>) -> Duration {
        match leader.and_then(|text| parse(text).ok()).filter(|_| self.hops < HOPS_MAX) {
            Some(leader) => {
                self.leader = Some(leader);
                self.hops += 1;
                Duration::ZERO
            }
            None => self.failed(),
        }
    }

    fn target(&self) -> Uri {
        let given = || self.endpoints.0.get(self.turn).or(self.endpoints.0.first()).cloned().unwrap_or_default();
        self.leader.clone().unwrap_or_else(given)
    }

    fn pass_over(&mut self) {
        if self.leader.take().is_none() {
            self.turn = (self.turn + 1) % self.endpoints.0.len().max(1);
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.target()))
    }
}

/// How long to wait before try number `tries`, from 0; `jitter` is 0 to 1. Full jitter: a thousand workers that lost one
/// coordinator do not come back as one.
fn wait(tries: u32, jitter: f64) -> Duration {
    let most = match tries.checked_sub(QUICK_TRIES) {
        None => WAIT_QUICK,
        Some(slow) => (Duration::from_secs(1) * 2_u32.pow(slow.min(10))).min(WAIT_MAX),
    };
    most.mul_f64(jitter.clamp(0.0, 1.0))
}

fn endpoint(uri: &Uri) -> Endpoint {
    Endpoint::from(uri.clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        // Small messages must not wait for a full segment.
        .tcp_nodelay(true)
        .tcp_keepalive(Some(KEEPALIVE_INTERVAL))
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// The jobs of a coordinator.
#[must_use]
pub fn jobs(channel: Channel) -> JobsClient<Channel> {
    JobsClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// The workers of a coordinator, as operators see them.
#[must_use]
pub fn fleet(channel: Channel) -> FleetClient<Channel> {
    FleetClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// The door for workers.
#[must_use]
pub fn workers(channel: Channel) -> WorkersClient<Channel> {
    WorkersClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        let endpoints: Endpoints = "http://127.0.0.1:7443, http://[::1]:7444/".parse().unwrap();
        assert_eq!(endpoints.to_string(), "http://127.0.0.1:7443, http://[::1]:7444");
        for (text, why) in [
            ("", "no coordinator given"),
            ("127.0.0.1:7443", "no http://"),
            ("https://host:1", "TLS"),
            ("http://host", "no port"),
            ("http://host:99999", "http://host:port"),
            ("http://host:1/path", "more than host and port"),
            ("ftp://host:1", "no http://"),
        ] {
            let error = text.parse::<Endpoints>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Endpoints::new(vec!["http://h:1"; 17]).is_err());
    }

    #[test]
    fn small_messages_do_not_wait_for_large_ones() {
        assert!(endpoint(&Uri::from_static("http://127.0.0.1:1")).get_tcp_nodelay());
    }

    #[tokio::test]
    async fn the_next_endpoint_is_tried_and_each_failure_told() {
        // Bound and dropped: nothing listens there.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let dead = format!("http://{free}");
        let error = connect(&Endpoints::new([&dead]).unwrap()).await.expect_err("nothing listens");
        let text = error.to_string();
        assert!(text.contains(&dead) && text.contains("refused"), "{text}");

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = format!("http://{}", listener.local_addr().unwrap());
        let mut route = route(&[&dead, &alive]);
        route.connect().await.unwrap();
        assert_eq!(route.to_string(), alive);

        // One that was named and is gone is passed over as well.
        assert_eq!(route.turned_away(Some(&dead)), Duration::ZERO);
        route.connect().await.unwrap();
        assert_eq!(route.to_string(), alive);
    }

    fn route(endpoints: &[&str]) -> Route {
        Route::new(Endpoints::new(endpoints).unwrap())
    }

    #[test]
    fn a_named_leader_is_next_and_the_given_ones_take_turns() {
        let mut route = route(&["http://a:1", "http://b:1"]);
        assert_eq!(route.to_string(), "http://a:1");
        assert_eq!(route.turned_away(Some("http://elsewhere:9/")), Duration::ZERO);
        assert_eq!(route.to_string(), "http://elsewhere:9");
        route.failed();
        assert_eq!(route.to_string(), "http://a:1");
        route.failed();
        assert_eq!(route.to_string(), "http://b:1");
        route.turned_away(None);
        assert_eq!(route.to_string(), "http://a:1");
    }

    #[test]
    fn a_leader_is_gone_to_only_where_it_is_an_address() {
        for named in ["", "b:1", "https://b:1", "http://b", "http://b:1/path", "http://b:1\nx", "file:///etc/passwd"] {
            let mut route = route(&["http://a:1"]);
            route.turned_away(Some(named));
            assert_eq!(route.to_string(), "http://a:1", "{named:?}");
        }
    }

    #[test]
    fn two_that_name_each_other_are_not_asked_for_ever() {
        let mut route = route(&["http://a:1"]);
        let mut hops = 0;
        while route.turned_away(Some(if hops % 2 == 0 { "http://b:1" } else { "http://a:1" })) == Duration::ZERO
            && route.waits == 0
        {
            hops += 1;
        }
        assert_eq!((hops, route.waits), (HOPS_MAX, 1));
        // After the wait they may be believed again; once one serves, all is forgotten.
        assert_eq!(route.turned_away(Some("http://b:1")), Duration::ZERO);
        route.served();
        assert_eq!((route.hops, route.waits), (0, 0));
        assert_eq!(route.to_string(), "http://b:1");
    }

    #[test]
    fn the_first_tries_are_quick_and_none_waits_more_than_a_minute() {
        assert_eq!(wait(0, 1.0), WAIT_QUICK);
        assert_eq!(wait(QUICK_TRIES - 1, 1.0), WAIT_QUICK);
        assert_eq!(wait(QUICK_TRIES, 1.0), Duration::from_secs(1));
        assert_eq!(wait(QUICK_TRIES + 2, 0.5), Duration::from_secs(2));
        assert_eq!(wait(u32::MAX, 1.0), WAIT_MAX);
        assert_eq!(wait(9, 0.0), Duration::ZERO);
    }
}
