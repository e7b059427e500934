//! A real S3-compatible server of the tests' own: [moto](https://docs.getmoto.org), on a free port, its objects in memory. It
//! ends with the value, and with the test's process however that ends.

use std::io::{self, ErrorKind, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::{Process, until};

/// The bucket that every server has.
pub const BUCKET: &str = "artifacts";

/// Serves until its input ends.
const SCRIPT: &str = r#"
import os, sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", int(sys.argv[1]))
server.start()
print("PORT", server.get_host_and_port()[1], flush=True)
sys.stdin.read()
os._exit(0)
"#;

/// A server.
#[derive(Debug)]
pub struct Server {
    process: Process,
    port: u16,
    // Last, so that the process is gone before its folder.
    _folder: tempfile::TempDir,
}

/// The Python that has moto: where `cargo xtask test` puts it. `None` where it is not: then the test says so and passes, but
/// for CI, where it is an error.
fn installed() -> io::Result<Option<PathBuf>> {
    let test = std::env::current_exe()?;
    // TARGET/PROFILE/deps/TEST
    let python = test.ancestors().nth(3).map(|target| target.join("s3/bin/python"));
    let found = python.filter(|python| python.is_file() && python.with_file_name("moto_server").is_file());
    if found.is_none() {
        if std::env::var_os("CI").is_some() {
            return Err(io::Error::new(ErrorKind::NotFound, "moto is not installed (`cargo xtask test` does)"));
        }
        eprintln!("moto is not installed (`cargo xtask test` does): what needs an S3-compatible server is not tried");
    }
    Ok(found)
}

impl Server {
    /// A server on a free port. `None` where moto is not installed, but for CI, where that is an error.
    ///
    /// # Errors
    /// When it is installed and does not start.
    pub fn start() -> io::Result<Option<Self>> {
        Self::start_at(0)
    }

    /// The same on that port.
    ///
    /// # Errors
    /// As above.
    pub fn start_at(port: u16) -> io::Result<Option<Self>> {
        let Some(python) = installed()? else { return Ok(None) };
        let folder = tempfile::Builder::new().prefix("guestkit-s3-").tempdir()?;
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT, &port.to_string()]).stdin(Stdio::piped());
        let mut process = Process::start(&mut command, &folder.path().join("log"))?;
        let port = until("an S3-compatible server", || {
            let log = process.log();
            if let Some(port) = log.lines().find_map(|line| line.strip_prefix("PORT ")?.trim().parse().ok()) {
                return Ok(Some(port));
            }
            match process.ended()? {
                Some(status) => Err(io::Error::other(format!("moto ended with {status}:\n{log}"))),
                None => Ok(None),
            }
        })?;
        let server = Self { process, port, _folder: folder };
        server.put("/")?;
        Ok(Some(server))
    }

    /// The variables of a coordinator's environment that lead here.
    #[must_use]
    pub fn settings(&self) -> Vec<(String, String)> {
        settings_at(self.port)
    }

    /// Ends it, with all it holds.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// How many objects it holds whose names begin so.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn count_below(&self, prefix: &str) -> io::Result<usize> {
        Ok(self.ask("GET", &format!("?list-type=2&prefix={prefix}"))?.matches("<Key>").count())
    }

    /// Makes the bucket (`/`), or an empty object in it.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn put(&self, path: &str) -> io::Result<()> {
        self.ask("PUT", path).map(drop)
    }

    /// It asks nobody for a signature.
    fn ask(&self, method: &str, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let path = format!("/{BUCKET}{path}");
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")?;
        let answer = io::read_to_string(stream)?;
        match answer.lines().next() {
            Some(line) if line.contains(" 200 ") => Ok(answer),
            line => Err(io::Error::other(format!("{method} {path}: {line:?}"))),
        }
    }
}

/// The same for a server that is to come.
#[must_use]
pub fn settings_at(port: u16) -> Vec<(String, String)> {
    let endpoint = format!("http://127.0.0.1:{port}");
    let settings = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}
