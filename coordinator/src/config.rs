//! Every setting of the coordinator, in one struct, read in one place: defaults, then the file, then the environment, then
//! the flags; the later wins. A setting that changes nothing does not exist.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use guestkit_domain::Namespace;
use guestkit_protocol::client;
use serde::{Deserialize, Deserializer};
use url::Url;

/// How the coordinator runs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where gRPC (and gRPC-Web) is served. Port 0 takes a free one; `listen.json` in the data folder tells which.
    pub listen: SocketAddr,
    /// Where health, metrics and JSON are served over HTTP. Port 0 as above.
    pub http: SocketAddr,
    /// Folder of the store and of artifacts; made when absent, held by one coordinator at a time.
    pub data: PathBuf,
    /// What must survive: `sqlite:PATH`, or `postgres://…`, which several coordinators share; `coordinator.sqlite` in the data
    /// folder when absent.
    #[serde(deserialize_with = "location")]
    pub store: Option<StoreLocation>,
    /// Where artifacts are kept: `file:///FOLDER` or `s3://BUCKET/PREFIX`; the folder `artifacts` in the data folder when absent.
    /// Coordinators that share a store share it, and no other store may: what its jobs do not refer to is removed.
    #[serde(deserialize_with = "artifacts_location")]
    pub artifacts: Option<ArtifactsLocation>,
    /// How a bucket is reached; from the environment only.
    #[serde(skip)]
    pub aws: AwsSettings,
    /// Where other coordinators send clients and workers while this one leads: `http://host:port`; the address of gRPC when
    /// absent.
    pub advertise: Option<String>,
    /// Seconds after which the lead of a coordinator that says nothing is over.
    pub leader_ttl_seconds: f64,
    /// `text` or `json`.
    pub log_format: LogFormat,
    /// OTLP over gRPC, such as `http://127.0.0.1:4317`; traces are not exported when absent.
    pub otlp_endpoint: Option<String>,
    /// Origins that browsers may call gRPC-Web from; none when empty, `*` is any.
    pub cors_origins: Vec<String>,
    /// Jobs that may wait or run at once; a submission above it is refused with RESOURCE_EXHAUSTED.
    pub jobs_active_max: usize,
    /// Seconds between two heartbeats of a worker.
    pub heartbeat_seconds: f64,
    /// Seconds a lease stands without a word from its worker.
    pub lease_ttl_seconds: f64,
    /// Seconds a worker has for accepting a lease.
    pub accept_seconds: f64,
    /// Seconds a job waits for a worker with a fitting image root while others could run it but for that; then it fails with
    /// IMAGE_ACCESS_DENIED.
    pub image_root_patience_seconds: f64,
    /// Seconds for which clients and workers may finish what they are doing when the coordinator stops.
    pub drain_seconds: f64,
    /// Days for which a job that is over is kept, with its document, log, result and artifacts; 0 keeps them for ever.
    pub retention_days: f64,
    /// Calls and streams that one connection may have open at once.
    pub streams_per_connection_max: u32,
    /// Connections at once; those above it are closed.
    pub connections_max: usize,
    /// Of them, of one address (of one /64 network of IPv6).
    pub connections_per_peer_max: usize,
    /// Calls and streams that one address may have open at once, over all its connections; refused with RESOURCE_EXHAUSTED above.
    pub calls_per_peer_max: usize,
    /// Seconds a peer has for the greeting of its connection, for the head of a request, and for each message it has begun.
    pub peer_patience_seconds: f64,
    /// Jobs of one `execution.concurrency_key` that may run at once, by key.
    pub concurrency_limits: BTreeMap<String, u32>,
    /// The same for keys that are not named.
    pub concurrency_limit_default: u32,
    /// Shares of the fleet, by namespace: one with weight 3 is given three jobs where one with 1 is given one. 1 where absent.
    #[serde(deserialize_with = "by_namespace")]
    pub namespace_weights: BTreeMap<Namespace, u32>,
    /// Bytes of an outcome document that travel in a worker's session; larger ones are uploaded as artifacts.
    pub inline_bytes_max: usize,
    /// Bytes of one artifact; a job whose report is larger fails with LIMIT_EXCEEDED.
    pub artifact_bytes_max: u64,
}

/// Where the store is.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreLocation {
    /// A file of this coordinator's own.
    Sqlite(PathBuf),
    /// A database that coordinators share. The URL may hold a password.
    Postgres(String),
}

impl std::str::FromStr for StoreLocation {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("sqlite:") {
            Some("") => Err("name the file: sqlite:PATH"),
            Some(path) => Ok(Self::Sqlite(path.into())),
            None if ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) => {
                Ok(Self::Postgres(text.into()))
            }
            None => Err("write sqlite:PATH or postgres://user:password@host:port/database"),
        }
    }
}

/// Without the URL, which may hold a password.
impl std::fmt::Debug for StoreLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            Self::Postgres(_) => f.write_str("Postgres"),
        }
    }
}

fn location<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<StoreLocation>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(|why| serde::de::Error::custom(format!("store: {why}")))
}

/// Where artifacts are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArtifactsLocation {
    /// A folder, by its absolute path.
    Folder(PathBuf),
    /// Objects below a prefix of an S3-compatible bucket.
    Bucket {
        /// The bucket.
        name: String,
        /// Without slashes at its ends; may be empty.
        prefix: String,
    },
}

impl std::str::FromStr for ArtifactsLocation {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORMS: &str = "write file:///FOLDER or s3://BUCKET/PREFIX";
        let url = Url::parse(text).map_err(|_| FORMS)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(FORMS);
        }
        match url.scheme() {
            "file" => url.to_file_path().map(Self::Folder).map_err(|()| FORMS),
            "s3" if !url.username().is_empty() || url.password().is_some() || url.port().is_some() => Err(
                "write s3://BUCKET/PREFIX; endpoint and credentials are set by AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and the like",
            ),
            "s3" => {
                let name = url.host_str().filter(|name| !name.is_empty()).ok_or(FORMS)?.to_owned();
                let prefix = url.path().trim_matches('/').to_owned();
                if prefix.split('/').any(|part| part.is_empty() && !prefix.is_empty()) || prefix.contains('%') {
                    return Err("a prefix may hold A-Z a-z 0-9 . _ - and single slashes");
                }
                Ok(Self::Bucket { name, prefix })
            }
            _ => Err(FORMS),
        }
    }
}

fn artifacts_location<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ArtifactsLocation>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(|why| serde::de::Error::custom(format!("artifacts: {why}")))
}

/// The environment variables `AWS_…`: endpoint, region, credentials and whatever else reaches a bucket.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AwsSettings(BTreeMap<String, String>);

impl AwsSettings {
    /// Those of this process.
    #[must_use]
    pub fn from_environment() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("AWS_"))
            .collect()
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for AwsSettings {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(settings: I) -> Self {
        Self(settings.into_iter().collect())
    }
}

/// Without the values, some of which are secrets.
impl std::fmt::Debug for AwsSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What an operation may answer with and clients read: a deep scan of a very full guest makes tens of MiB.
const ARTIFACT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Inline limits: an outcome document without its report always fits, and one with it fits into a message of 4 MiB.
const INLINE_BYTES: std::ops::RangeInclusive<usize> = 16 * 1024..=3 * 1024 * 1024;

/// As the protocol bounds `execution.concurrency_key`.
const CONCURRENCY_KEY_BYTES_MAX: usize = 256;

/// A century; whoever wants more wants for ever.
const RETENTION_DAYS_MAX: f64 = 36_500.0;

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7443)),
            http: SocketAddr::from(([127, 0, 0, 1], 7480)),
            data: PathBuf::from("./data"),
            store: None,
            artifacts: None,
            aws: AwsSettings::default(),
            advertise: None,
            leader_ttl_seconds: 3.0,
            log_format: LogFormat::Text,
            otlp_endpoint: None,
            cors_origins: Vec::new(),
            // A queued job costs the scheduler a few hundred bytes: a million fit in a few hundred MB.
            jobs_active_max: 1_000_000,
            heartbeat_seconds: 5.0,
            lease_ttl_seconds: 60.0,
            accept_seconds: 5.0,
            image_root_patience_seconds: 5.0,
            drain_seconds: 10.0,
            // Long enough for a month's report, short enough that a store nobody looks after does not fill its disk.
            retention_days: 30.0,
            // More than a dashboard or a bulk client needs; a connection that wants more opens a second one.
            streams_per_connection_max: 1024,
            // Three times the largest fleet it was measured with; two fleets behind one address translation.
            connections_max: 16_384,
            connections_per_peer_max: 8_192,
            calls_per_peer_max: 16_384,
            // A message of 4 MiB over a line of 2 Mbit/s.
            peer_patience_seconds: 20.0,
            concurrency_limits: BTreeMap::new(),
            // A key that nobody named is a mutual exclusion, never ignored.
            concurrency_limit_default: 1,
            namespace_weights: BTreeMap::new(),
            // A report of a small guest is some 100 KiB, and an answer with one stays well within a message of 4 MiB.
            inline_bytes_max: 1024 * 1024,
            artifact_bytes_max: ARTIFACT_BYTES_MAX,
        }
    }
}

/// The flags that override the file; each has an environment variable beside it.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// Settings in TOML; the names are those of the flags, with underscores.
    #[arg(long, env = "GUESTKIT_COORDINATOR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where gRPC is served [default: 127.0.0.1:7443]; port 0 takes a free one, told in DATA/listen.json.
    #[arg(long, env = "GUESTKIT_COORDINATOR_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Where health, metrics and JSON are served [default: 127.0.0.1:7480].
    #[arg(long, env = "GUESTKIT_COORDINATOR_HTTP", value_name = "ADDRESS")]
    pub http: Option<SocketAddr>,
    /// Folder of the store and of artifacts [default: ./data].
    #[arg(long, env = "GUESTKIT_COORDINATOR_DATA", value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// What must survive: sqlite:PATH, or postgres://user:password@host:port/database for several coordinators of which one
    /// leads; given in the environment, a password is in no list of processes [default: sqlite:DATA/coordinator.sqlite].
    #[arg(long, env = "GUESTKIT_COORDINATOR_STORE", value_name = "URL", hide_env_values = true)]
    pub store: Option<StoreLocation>,
    /// Where artifacts are kept: file:///FOLDER, or s3://BUCKET/PREFIX with endpoint, region and credentials from the AWS_…
    /// environment variables. Coordinators that share a store share it; no other store may [default: DATA/artifacts].
    #[arg(long, env = "GUESTKIT_COORDINATOR_ARTIFACTS", value_name = "URL")]
    pub artifacts: Option<ArtifactsLocation>,
    /// With PostgreSQL: where the other coordinators send clients and workers while this one leads, as http://host:port
    /// [default: the address of --listen].
    #[arg(long, env = "GUESTKIT_COORDINATOR_ADVERTISE", value_name = "URL")]
    pub advertise: Option<String>,
    /// With PostgreSQL: seconds after which the lead of a coordinator that says nothing is over [default: 3].
    #[arg(long, env = "GUESTKIT_COORDINATOR_LEADER_TTL_SECONDS", value_name = "SECONDS")]
    pub leader_ttl_seconds: Option<f64>,
    /// How log lines look [default: text].
    #[arg(long, env = "GUESTKIT_COORDINATOR_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Where traces are sent by OTLP over gRPC, such as http://127.0.0.1:4317 [default: nowhere].
    #[arg(long, env = "GUESTKIT_COORDINATOR_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// An origin that browsers may call from; may be given more than once, `*` is any [default: none].
    #[arg(
        long = "cors-origin",
        env = "GUESTKIT_COORDINATOR_CORS_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    pub cors_origins: Vec<String>,
    /// Jobs that may wait or run at once [default: 1000000].
    #[arg(long, env = "GUESTKIT_COORDINATOR_JOBS_ACTIVE_MAX", value_name = "N")]
    pub jobs_active_max: Option<usize>,
    /// Seconds between heartbeats of a worker [default: 5].
    #[arg(long, env = "GUESTKIT_COORDINATOR_HEARTBEAT_SECONDS", value_name = "SECONDS")]
    pub heartbeat_seconds: Option<f64>,
    /// Seconds a lease stands without a word from its worker [default: 60].
    #[arg(long, env = "GUESTKIT_COORDINATOR_LEASE_TTL_SECONDS", value_name = "SECONDS")]
    pub lease_ttl_seconds: Option<f64>,
    /// Seconds a worker has for accepting a lease [default: 5].
    #[arg(long, env = "GUESTKIT_COORDINATOR_ACCEPT_SECONDS", value_name = "SECONDS")]
    pub accept_seconds: Option<f64>,
    /// Seconds after which a job fails whose image lies beneath no worker's image roots [default: 5].
    #[arg(long, env = "GUESTKIT_COORDINATOR_IMAGE_ROOT_PATIENCE_SECONDS", value_name = "SECONDS")]
    pub image_root_patience_seconds: Option<f64>,
    /// Seconds given to clients and workers when the coordinator stops [default: 10].
    #[arg(long, env = "GUESTKIT_COORDINATOR_DRAIN_SECONDS", value_name = "SECONDS")]
    pub drain_seconds: Option<f64>,
    /// Days for which a job that is over is kept, with all that belongs to it; fractions are allowed, 0 keeps jobs for ever
    /// [default: 30].
    #[arg(long, env = "GUESTKIT_COORDINATOR_RETENTION_DAYS", value_name = "DAYS")]
    pub retention_days: Option<f64>,
    /// Calls one connection may have open at once [default: 1024].
    #[arg(long, env = "GUESTKIT_COORDINATOR_STREAMS_PER_CONNECTION_MAX", value_name = "N")]
    pub streams_per_connection_max: Option<u32>,
    /// Connections at once [default: 16384].
    #[arg(long, env = "GUESTKIT_COORDINATOR_CONNECTIONS_MAX", value_name = "N")]
    pub connections_max: Option<usize>,
    /// Connections of one address at once; a /64 network of IPv6 is one address [default: 8192].
    #[arg(long, env = "GUESTKIT_COORDINATOR_CONNECTIONS_PER_PEER_MAX", value_name = "N")]
    pub connections_per_peer_max: Option<usize>,
    /// Calls one address may have open at once, over all its connections [default: 16384].
    #[arg(long, env = "GUESTKIT_COORDINATOR_CALLS_PER_PEER_MAX", value_name = "N")]
    pub calls_per_peer_max: Option<usize>,
    /// Seconds a peer has for its greeting, for a request's head, and for each message it has begun [default: 20].
    #[arg(long, env = "GUESTKIT_COORDINATOR_PEER_PATIENCE_SECONDS", value_name = "SECONDS")]
    pub peer_patience_seconds: Option<f64>,
    /// How many jobs of one execution.concurrency_key run at once; may be given more than once. Keys with a comma are set in
    /// the file, in the table concurrency_limits.
    #[arg(
        long = "concurrency-limit",
        env = "GUESTKIT_COORDINATOR_CONCURRENCY_LIMITS",
        value_name = "KEY=N",
        value_delimiter = ',',
        value_parser = concurrency_limit
    )]
    pub concurrency_limits: Vec<(String, u32)>,
    /// The same for keys that are not named [default: 1].
    #[arg(long, env = "GUESTKIT_COORDINATOR_CONCURRENCY_LIMIT_DEFAULT", value_name = "N")]
    pub concurrency_limit_default: Option<u32>,
    /// A namespace's share of the fleet, 1 where not given; may be given more than once. In the file: table
    /// namespace_weights.
    #[arg(
        long = "namespace-weight",
        env = "GUESTKIT_COORDINATOR_NAMESPACE_WEIGHTS",
        value_name = "NAMESPACE=N",
        value_delimiter = ',',
        value_parser = namespace_weight
    )]
    pub namespace_weights: Vec<(Namespace, u32)>,
    /// Bytes of an outcome document that travel in a worker's session; larger ones are uploaded [default: 1048576].
    #[arg(long, env = "GUESTKIT_COORDINATOR_INLINE_BYTES_MAX", value_name = "BYTES")]
    pub inline_bytes_max: Option<usize>,
    /// Bytes of one artifact; a larger report fails its job [default: 268435456].
    #[arg(long, env = "GUESTKIT_COORDINATOR_ARTIFACT_BYTES_MAX", value_name = "BYTES")]
    pub artifact_bytes_max: Option<u64>,
}

fn concurrency_limit(text: &str) -> Result<(String, u32), String> {
    let (key, limit) = assignment(text)?;
    Ok((key.to_owned(), limit))
}

fn namespace_weight(text: &str) -> Result<(Namespace, u32), String> {
    let (name, weight) = assignment(text)?;
    Ok((Namespace::new(name).map_err(|error| error.to_string())?, weight))
}

/// `NAME=N`; a name may hold `=` itself.
fn assignment(text: &str) -> Result<(&str, u32), String> {
    let (name, number) = text.rsplit_once('=').ok_or("write NAME=N")?;
    Ok((name, number.parse().map_err(|error| format!("{number:?} is not a number: {error}"))?))
}

fn by_namespace<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Namespace, u32>, D::Error> {
    let weights = BTreeMap::<String, u32>::deserialize(deserializer)?;
    let named = weights.into_iter().map(|(name, weight)| match Namespace::new(&name) {
        Ok(name) => Ok((name, weight)),
        Err(error) => Err(serde::de::Error::custom(format!("{name:?} is no namespace: {error}"))),
    });
    named.collect()
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("read the settings file {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or names something unknown.
    #[error("understand the settings file {}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value outside its bounds.
    #[error("{setting} must be {bounds}, not {found}")]
    OutOfBounds {
        /// Its name.
        setting: &'static str,
        /// What is allowed.
        bounds: &'static str,
        /// What was given.
        found: String,
    },
}

impl Config {
    /// Defaults, overridden by the file, overridden by the flags (which carry the environment).
    ///
    /// # Errors
    /// When the file cannot be read or understood, or a value is outside its bounds.
    pub fn from_flags(flags: Flags) -> Result<Self, ConfigError> {
        let mut config = match &flags.config {
            Some(path) => Self::from_file(path)?,
            None => Self::default(),
        };
        config.override_with(flags);
        config.aws = AwsSettings::from_environment();
        config.checked()
    }

    fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })
    }

    fn override_with(&mut self, flags: Flags) {
        fn set<T>(slot: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *slot = value;
            }
        }
        set(&mut self.listen, flags.listen);
        set(&mut self.http, flags.http);
        set(&mut self.data, flags.data);
        set(&mut self.store, flags.store.map(Some));
        set(&mut self.artifacts, flags.artifacts.map(Some));
        set(&mut self.advertise, flags.advertise.map(Some));
        set(&mut self.leader_ttl_seconds, flags.leader_ttl_seconds);
        set(&mut self.log_format, flags.log_format);
        set(&mut self.otlp_endpoint, flags.otlp_endpoint.map(Some));
        if !flags.cors_origins.is_empty() {
            self.cors_origins = flags.cors_origins;
        }
        set(&mut self.jobs_active_max, flags.jobs_active_max);
        set(&mut self.heartbeat_seconds, flags.heartbeat_seconds);
        set(&mut self.lease_ttl_seconds, flags.lease_ttl_seconds);
        set(&mut self.accept_seconds, flags.accept_seconds);
        set(&mut self.image_root_patience_seconds, flags.image_root_patience_seconds);
        set(&mut self.drain_seconds, flags.drain_seconds);
        set(&mut self.retention_days, flags.retention_days);
        set(&mut self.streams_per_connection_max, flags.streams_per_connection_max);
        set(&mut self.connections_max, flags.connections_max);
        set(&mut self.connections_per_peer_max, flags.connections_per_peer_max);
        set(&mut self.calls_per_peer_max, flags.calls_per_peer_max);
        set(&mut self.peer_patience_seconds, flags.peer_patience_seconds);
        self.concurrency_limits.extend(flags.concurrency_limits);
        set(&mut self.concurrency_limit_default, flags.concurrency_limit_default);
        self.namespace_weights.extend(flags.namespace_weights);
        set(&mut self.inline_bytes_max, flags.inline_bytes_max);
        set(&mut self.artifact_bytes_max, flags.artifact_bytes_max);
    }

    /// Checks the bounds that types do not carry.
    ///
    /// # Errors
    /// When a value is outside its bounds.
    pub fn checked(self) -> Result<Self, ConfigError> {
        // Below 10 ms a heartbeat is load, not a sign of life; above a day nobody would notice a dead worker.
        let interval = |setting, found: f64| {
            if (0.01..=86_400.0).contains(&found) {
                return Ok(());
            }
            Err(ConfigError::OutOfBounds { setting, bounds: "0.01 to 86400 seconds", found: found.to_string() })
        };
        interval("heartbeat_seconds", self.heartbeat_seconds)?;
        interval("lease_ttl_seconds", self.lease_ttl_seconds)?;
        interval("accept_seconds", self.accept_seconds)?;
        interval("image_root_patience_seconds", self.image_root_patience_seconds)?;
        interval("drain_seconds", self.drain_seconds)?;
        interval("peer_patience_seconds", self.peer_patience_seconds)?;
        if !(0.0..=RETENTION_DAYS_MAX).contains(&self.retention_days) {
            return Err(ConfigError::OutOfBounds {
                setting: "retention_days",
                bounds: "0 (for ever) to 36500 days",
                found: self.retention_days.to_string(),
            });
        }
        if self.lease_ttl_seconds < 3.0 * self.heartbeat_seconds {
            return Err(ConfigError::OutOfBounds {
                setting: "lease_ttl_seconds",
                bounds: "at least three heartbeats, or one delayed heartbeat would cost a running job",
                found: self.lease_ttl_seconds.to_string(),
            });
        }
        for (setting, found) in [
            ("jobs_active_max", self.jobs_active_max),
            ("streams_per_connection_max", self.streams_per_connection_max as usize),
            ("connections_max", self.connections_max),
            ("connections_per_peer_max", self.connections_per_peer_max),
            ("calls_per_peer_max", self.calls_per_peer_max),
            ("concurrency_limit_default", self.concurrency_limit_default as usize),
        ] {
            if found == 0 {
                return Err(ConfigError::OutOfBounds { setting, bounds: "at least 1", found: found.to_string() });
            }
        }
        self.check_lead()?;
        self.check_maps()?;
        self.check_bytes()?;
        Ok(self)
    }

    fn check_lead(&self) -> Result<(), ConfigError> {
        // Below, a busy database would depose a leader that lives; above, nobody would wait for the next.
        if !(0.5..=60.0).contains(&self.leader_ttl_seconds) {
            let found = self.leader_ttl_seconds.to_string();
            return Err(ConfigError::OutOfBounds { setting: "leader_ttl_seconds", bounds: "0.5 to 60 seconds", found });
        }
        let setting = "advertise";
        match &self.advertise {
            Some(address) if !client::is_endpoint(address) => {
                let bounds = "an address that clients can reach, http://host:port";
                Err(ConfigError::OutOfBounds { setting, bounds, found: format!("{address:?}") })
            }
            None if matches!(self.store, Some(StoreLocation::Postgres(_))) && self.listen.ip().is_unspecified() => {
                let bounds = "given where --listen is every address of the machine";
                Err(ConfigError::OutOfBounds { setting, bounds, found: "absent".into() })
            }
            _ => Ok(()),
        }
    }

    fn check_maps(&self) -> Result<(), ConfigError> {
        for (key, limit) in &self.concurrency_limits {
            let found = format!("{key}={limit}");
            let setting = "concurrency_limits";
            if *limit == 0 {
                return Err(ConfigError::OutOfBounds { setting, bounds: "at least 1 for each key", found });
            }
            if key.is_empty() || key.len() > CONCURRENCY_KEY_BYTES_MAX || key.contains(char::is_control) {
                let bounds = "of keys that a job can have: 1 to 256 bytes without control characters";
                return Err(ConfigError::OutOfBounds { setting, bounds, found });
            }
        }
        match self.namespace_weights.iter().find(|(_, weight)| **weight == 0) {
            Some((name, weight)) => Err(ConfigError::OutOfBounds {
                setting: "namespace_weights",
                bounds: "at least 1 for each namespace",
                found: format!("{name}={weight}"),
            }),
            None => Ok(()),
        }
    }

    fn check_bytes(&self) -> Result<(), ConfigError> {
        if !INLINE_BYTES.contains(&self.inline_bytes_max) {
            return Err(ConfigError::OutOfBounds {
                setting: "inline_bytes_max",
                bounds: "16384 to 3145728 bytes",
                found: self.inline_bytes_max.to_string(),
            });
        }
        if self.artifact_bytes_max < self.inline_bytes_max as u64 || self.artifact_bytes_max > ARTIFACT_BYTES_MAX {
            return Err(ConfigError::OutOfBounds {
                setting: "artifact_bytes_max",
                bounds: "inline_bytes_max to 268435456 bytes",
                found: self.artifact_bytes_max.to_string(),
            });
        }
        Ok(())
    }

    /// Between two heartbeats.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        Duration::from_secs_f64(self.heartbeat_seconds)
    }

    /// A lease's life without a word from its worker.
    #[must_use]
    pub fn lease_ttl(&self) -> Duration {
        Duration::from_secs_f64(self.lease_ttl_seconds)
    }

    /// For accepting a lease.
    #[must_use]
    pub fn accept(&self) -> Duration {
        Duration::from_secs_f64(self.accept_seconds)
    }

    /// For a worker with a fitting image root to connect.
    #[must_use]
    pub fn image_root_patience(&self) -> Duration {
        Duration::from_secs_f64(self.image_root_patience_seconds)
    }

    /// A leader's life without a word.
    #[must_use]
    pub fn leader_ttl(&self) -> Duration {
        Duration::from_secs_f64(self.leader_ttl_seconds)
    }

    /// For what a peer has begun.
    #[must_use]
    pub fn peer_patience(&self) -> Duration {
        Duration::from_secs_f64(self.peer_patience_seconds)
    }

    /// For how long a job that is over is kept; `None` is for ever.
    #[must_use]
    pub fn retention(&self) -> Option<Duration> {
        (self.retention_days > 0.0).then(|| Duration::from_secs_f64(self.retention_days * 86_400.0))
    }

    /// For stopping gracefully.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_secs_f64(self.drain_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_override_the_file_and_the_file_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("coordinator.toml");
        std::fs::write(&file, "listen = \"127.0.0.1:1\"\naccept_seconds = 2.5\nlog_format = \"json\"\n").unwrap();
        let flags = Flags { config: Some(file), listen: Some("127.0.0.1:2".parse().unwrap()), ..Flags::default() };
        let config = Config::from_flags(flags).unwrap();
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.accept(), Duration::from_millis(2500));
        assert_eq!(config.log_format, LogFormat::Json);
        assert_eq!(config.http, Config::default().http);
    }

    #[test]
    fn the_store_is_a_file_or_a_database_and_its_password_is_not_told() {
        let line = ["serve", "--store", "postgres://me:secret@db/jobs", "--advertise", "http://a.example:7443"];
        let config = Config::from_flags(<Line as clap::Parser>::parse_from(line).flags).unwrap();
        assert_eq!(config.store, Some(StoreLocation::Postgres("postgres://me:secret@db/jobs".into())));
        assert!(!format!("{config:?}").contains("secret"));
        let line = <Line as clap::Parser>::parse_from(["serve", "--store", "sqlite:/var/lib/jobs"]);
        assert_eq!(line.flags.store, Some(StoreLocation::Sqlite("/var/lib/jobs".into())));
        for wrong in ["", "sqlite:", "/var/lib/jobs", "https://db/jobs"] {
            assert!(<Line as clap::Parser>::try_parse_from(["serve", "--store", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn artifacts_are_in_a_folder_or_a_bucket() {
        let bucket =
            |name: &str, prefix: &str| Ok(ArtifactsLocation::Bucket { name: name.into(), prefix: prefix.into() });
        assert_eq!("file:///srv/a%20b".parse(), Ok(ArtifactsLocation::Folder("/srv/a b".into())));
        assert_eq!("s3://results".parse(), bucket("results", ""));
        assert_eq!("s3://results/fleet/one/".parse(), bucket("results", "fleet/one"));
        for wrong in [
            "",
            "/srv/artifacts",
            "file://elsewhere/srv",
            "s3:results",
            "s3:///prefix",
            "s3://key:secret@results",
            "s3://results:9000",
            "s3://results/a//b",
            "s3://results/a b",
            "s3://results?region=x",
            "https://results",
        ] {
            assert!(wrong.parse::<ArtifactsLocation>().is_err(), "{wrong}");
        }
        let aws: AwsSettings = [("AWS_SECRET_ACCESS_KEY".to_owned(), "hidden".to_owned())].into_iter().collect();
        assert_eq!(format!("{aws:?}"), r#"{"AWS_SECRET_ACCESS_KEY"}"#);
    }

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    #[test]
    fn flags_add_to_the_maps_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("coordinator.toml");
        let text = "concurrency_limit_default = 2\n[concurrency_limits]\n\"a, b\" = 4\nstore = 5\n\
                    [namespace_weights]\nteam-a = 3\nteam-b = 2\n";
        std::fs::write(&file, text).unwrap();
        let line = [
            "serve",
            "--config",
            file.to_str().unwrap(),
            "--concurrency-limit",
            "store=6",
            "--concurrency-limit",
            "x=y=1,z=2",
            "--namespace-weight",
            "team-b=7",
        ];
        let config = Config::from_flags(<Line as clap::Parser>::parse_from(line).flags).unwrap();
        let limits: Vec<(&str, u32)> = config.concurrency_limits.iter().map(|(key, n)| (key.as_str(), *n)).collect();
        assert_eq!(limits, [("a, b", 4), ("store", 6), ("x=y", 1), ("z", 2)]);
        let weights: Vec<(&str, u32)> = config.namespace_weights.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(weights, [("team-a", 3), ("team-b", 7)]);
        assert_eq!(config.concurrency_limit_default, 2);
        for wrong in ["store", "store=", "store=-1", "store=x"] {
            let line = ["serve", "--concurrency-limit", wrong];
            assert!(<Line as clap::Parser>::try_parse_from(line).is_err(), "{wrong}");
        }
        assert!(<Line as clap::Parser>::try_parse_from(["serve", "--namespace-weight", "Team=1"]).is_err());
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("coordinator.toml");
        for (text, told) in [
            ("lissen = \"127.0.0.1:1\"", "lissen"),
            ("heartbeat_seconds = 0", "heartbeat_seconds"),
            ("lease_ttl_seconds = 6", "three heartbeats"),
            ("jobs_active_max = 0", "jobs_active_max"),
            ("image_root_patience_seconds = -1", "image_root_patience_seconds"),
            ("drain_seconds = nan", "drain_seconds"),
            ("store = \"mysql://db/jobs\"", "sqlite:PATH or postgres://"),
            ("artifacts = \"gs://results\"", "s3://BUCKET/PREFIX"),
            ("leader_ttl_seconds = 0.1", "leader_ttl_seconds"),
            ("advertise = \"db:7443\"", "http://host:port"),
            ("store = \"postgres://db/jobs\"\nlisten = \"0.0.0.0:7443\"", "advertise"),
            ("connections_per_peer_max = 0", "connections_per_peer_max"),
            ("peer_patience_seconds = 0", "peer_patience_seconds"),
            ("retention_days = -1", "retention_days"),
            ("retention_days = inf", "retention_days"),
            ("concurrency_limit_default = 0", "concurrency_limit_default"),
            ("[concurrency_limits]\nstore = 0", "store=0"),
            ("[concurrency_limits]\n\"\" = 1", "keys that a job can have"),
            ("[namespace_weights]\nTeam = 1", "Team"),
            ("[namespace_weights]\nteam = 0", "team=0"),
            ("inline_bytes_max = 1000", "inline_bytes_max"),
            ("artifact_bytes_max = 1000", "artifact_bytes_max"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = Config::from_flags(Flags { config: Some(file.clone()), ..Flags::default() }).unwrap_err();
            let shown = match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            assert!(shown.contains(told), "{shown}");
        }
    }
}
