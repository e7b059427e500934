//! Being asked to leave: the first SIGTERM or SIGINT asks, the second insists.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Tells when this worker is asked to leave.
#[derive(Debug)]
pub struct Shutdown {
    asks: mpsc::Receiver<()>,
}

impl Shutdown {
    /// Starts to listen to the signals that ask a process to leave. Must be called within a runtime.
    ///
    /// # Errors
    /// The signals cannot be listened to.
    pub fn listen() -> io::Result<Self> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (asked, asks) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if asked.send(()).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self::by(asks))
    }

    /// Asked to leave by whoever holds the sender.
    #[must_use]
    pub fn by(asks: mpsc::Receiver<()>) -> Self {
        Self { asks }
    }

    /// Waits until it is asked once more.
    pub async fn asked(&mut self) {
        if self.asks.recv().await.is_none() {
            // Nobody can ask any more.
            std::future::pending::<()>().await;
        }
    }

    /// Waits to be asked once more, at most `patience`.
    pub async fn hurried(&mut self, patience: Duration) {
        // Either way the waiting is over.
        let _ = tokio::time::timeout(patience, self.asked()).await;
    }
}
