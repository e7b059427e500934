//! Reaching a coordinator: the command line and the worker connect the same way, with the same limits.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint, Uri};

use crate::v1::fleet_client::FleetClient;
use crate::v1::jobs_client::JobsClient;
use crate::v1::workers_client::WorkersClient;

/// Bytes of one message, either way: a report within the session's inline limit (1 MiB) and a full page of a list fit;
/// larger reports go as artifacts. Also tonic's own default for what it takes.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long a connection may take to be made; the next endpoint is tried then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an idle connection is proven alive, and how long the proof may take.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Coordinators that are tried in turn: more than any cluster has.
const ENDPOINTS_MAX: usize = 16;

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
    let mut attempts = Vec::new();
    for uri in &endpoints.0 {
        match endpoint(uri).connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) => attempts.push(FailedAttempt { endpoint: shown(uri), error }),
        }
    }
    Err(Unreachable { attempts })
}

fn endpoint(uri: &Uri) -> Endpoint {
    Endpoint::from(uri.clone())
        .connect_timeout(CONNECT_TIMEOUT)
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
        connect(&Endpoints::new([&dead, &alive]).unwrap()).await.unwrap();
    }
}
