//! What the shells stand on here: turmoil's network instead of the operating system's, the host's one simulated runtime
//! instead of threads, and attempts that only take their time.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use guestkit_coordinator::ground::{Ground, Listener};
use guestkit_protocol::{document, v1};
use guestkit_worker::attempt::{Order, Run, Settings, Stop};
use guestkit_worker::outcome::{self, Start};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tonic::transport::{Channel, Endpoint, Error, Uri};
use turmoil::net::{TcpListener, TcpStream};

/// The coordinator's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Simulated;

/// An address of a simulated host.
pub(crate) struct Door(TcpListener);

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Door").field(&self.0.local_addr()).finish()
    }
}

impl Ground for Simulated {
    type Listener = Door;

    async fn listen(&self, address: SocketAddr) -> io::Result<Door> {
        TcpListener::bind(address).await.map(Door)
    }

    fn drive(&self, driving: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        // A commit holds the host up, and with it the simulated time.
        tokio::spawn(driving);
        Ok(())
    }
}

impl Listener for Door {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// How clients and workers connect.
pub(crate) fn dial(endpoint: Endpoint) -> Pin<Box<dyn Future<Output = Result<Channel, Error>> + Send>> {
    let connector = tower::service_fn(|uri: Uri| async move {
        let (host, port) = (uri.host().unwrap_or_default().to_owned(), uri.port_u16().unwrap_or_default());
        TcpStream::connect((host, port)).await.map(TokioIo::new)
    });
    Box::pin(async move { endpoint.connect_with_connector(connector).await })
}

/// An attempt that was run, as the one who ran it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) worker_id: String,
    pub(crate) job_id: String,
    pub(crate) attempt: i32,
    /// It made an outcome.
    pub(crate) finished: bool,
}

/// Runs `system.echo` in simulated time: a word of progress each second, `duration_seconds` long.
#[derive(Debug, Clone)]
pub(crate) struct Attempts {
    settings: Settings,
    ran: Arc<Mutex<Vec<Ran>>>,
}

impl Attempts {
    pub(crate) fn new(settings: Settings, ran: Arc<Mutex<Vec<Ran>>>) -> Self {
        Self { settings, ran }
    }

    fn note(&self, order: &Order, finished: bool) {
        self.ran.lock().unwrap().push(Ran {
            worker_id: self.settings.worker_id.to_string(),
            job_id: order.document.job_id.clone(),
            attempt: order.attempt,
            finished,
        });
    }
}

impl Run for Attempts {
    async fn run(
        &self,
        order: Order,
        mut stop: oneshot::Receiver<Stop>,
        mut progress: impl FnMut(v1::Progress) + Send,
    ) -> Option<v1::JobResult> {
        let start = Start::now();
        let seconds = seconds_of(&order.document);
        for second in 0..seconds {
            tokio::select! {
                () = sleep(Duration::from_secs(1)) => {}
                // No story cancels a job.
                Ok(_) = &mut stop => {
                    self.note(&order, false);
                    return None;
                }
            }
            progress(v1::Progress {
                phase: "processing".into(),
                progress_percent: f64::from(second) * 100.0 / f64::from(seconds),
                ..Default::default()
            });
        }
        self.note(&order, true);
        let report = v1::EchoReport { message: Some("done".into()), ..Default::default() };
        let result = v1::JobResult {
            status: "completed".into(),
            report: Some(v1::job_result::Report::Echo(report)),
            ..Default::default()
        };
        Some(outcome::complete(result, &order.document, self.settings.worker_id.as_str(), order.attempt, start))
    }
}

fn seconds_of(document: &v1::JobDocument) -> u32 {
    let payload = document.payload.as_ref().map(document::to_json);
    let seconds = payload.and_then(|payload| payload.pointer("/data/duration_seconds")?.as_f64());
    seconds.unwrap_or_default() as u32
}
