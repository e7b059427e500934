//! Where the database is: `postgres://user:password@host:port/database`, as libpq reads it. The password is never told.

use std::fmt;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, TargetSessionAttrs};

use super::PostgresError;

/// Longest wait for a connection; a coordinator tries again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server that vanished without a word is noticed within `IDLE + INTERVAL × RETRIES`, or this after the last byte sent.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_RETRIES: u32 = 3;
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);

/// How to connect.
#[derive(Clone)]
pub(super) struct Settings {
    config: Config,
}

impl Settings {
    pub(super) fn parse(url: &str) -> Result<Self, PostgresError> {
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            return Err(PostgresError::Url);
        }
        let mode = url.split_once('?').and_then(|(_, query)| query.split('&').find_map(|p| p.strip_prefix("sslmode=")));
        match mode {
            None | Some("disable" | "prefer" | "allow") => {}
            // Never silently without: whoever asks for TLS would believe to have it.
            Some(mode) => return Err(PostgresError::Tls { mode: mode.into() }),
        }
        let url = url.replace("sslmode=allow", "sslmode=prefer");
        let mut config: Config = url.parse().map_err(PostgresError::Database)?;
        config.application_name("guestkit-coordinator");
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        config
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(UNACKNOWLEDGED_MAX);
        if config.get_hosts().len() > 1 {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        Ok(Self { config })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }
}

/// `host:port/database`, without user and password.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        for (at, host) in self.config.get_hosts().iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => write!(f, "{comma}{name}:{port}")?,
                Host::Unix(path) => write!(f, "{comma}{}:{port}", path.display())?,
            }
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_is_is_told_without_the_password() {
        for (url, told) in [
            ("postgres://me:secret@db.example/jobs", "db.example:5432/jobs"),
            ("postgresql://me:secret@a:1,b:2/jobs?sslmode=disable", "a:1,b:2/jobs"),
            ("postgres://me:secret@%2Frun%2Fpg:5433/jobs", "/run/pg:5433/jobs"),
            ("postgres:///jobs?host=/run/pg&user=me&password=secret", "/run/pg:5432/jobs"),
        ] {
            let settings = Settings::parse(url).unwrap();
            assert_eq!(settings.to_string(), told);
            assert!(!format!("{settings:?}").contains("secret"));
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for mode in ["require", "verify-ca", "verify-full", "perhaps"] {
            let refused = Settings::parse(&format!("postgres://me:secret@db/jobs?sslmode={mode}")).unwrap_err();
            assert!(matches!(&refused, PostgresError::Tls { mode: found } if found == mode), "{refused:?}");
        }
        for url in ["", "jobs", "mysql://me@db/jobs", "host=db user=me", "postgres://db:port/jobs"] {
            let refused = Settings::parse(url).unwrap_err();
            assert!(matches!(refused, PostgresError::Url | PostgresError::Database(_)), "{url}: {refused:?}");
            assert!(!format!("{refused:?}").contains("secret"));
        }
    }
}
