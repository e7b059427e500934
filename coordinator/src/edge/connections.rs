//! Connections: how many, of whom, and how soon they must say what they are.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::Sleep;
use tonic::transport::server::Connected;
use tracing::warn;

use crate::ground::Listener;
use crate::metrics::Metrics;

/// The first words of an HTTP/2 connection (RFC 9113, section 3.4). From there on pings find out who does not go on.
const GREETING_BYTES: usize = 24;

/// KiB of one address' messages that may have arrived in part at once.
const ARRIVING_KIB_MAX: usize = 32 * 1024;

/// Before the next try where the operating system gives no connection, for want of files as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections, and how long one may take for its first words.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// At once.
    pub connections: usize,
    /// Of them, of one address.
    pub connections_per_peer: usize,
    /// For the first words.
    pub patience: Duration,
}

/// Counts the connections that are open.
#[derive(Debug, Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    metrics: Arc<Metrics>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    connections: usize,
    peers: HashMap<IpAddr, (usize, Arc<Account>)>,
}

/// What all connections of one address have under way.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) calls: AtomicUsize,
    /// Bytes of answers that wait to be taken.
    pub(super) untaken: AtomicUsize,
    /// KiB of messages that may still begin to arrive.
    pub(super) arriving: Arc<Semaphore>,
}

impl Account {
    /// The share of a message of so many bytes.
    pub(super) fn kib(bytes: usize) -> u32 {
        u32::try_from((bytes / 1024 + 1).min(ARRIVING_KIB_MAX)).unwrap_or(u32::MAX)
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    pub(super) account: Arc<Account>,
}

/// A connection's place among those that are open, until it is dropped.
#[derive(Debug)]
struct Seat {
    shared: Arc<Shared>,
    whose: IpAddr,
}

impl Gate {
    /// A gate that nobody has passed.
    #[must_use]
    pub fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self { shared: Arc::new(Shared { limits, metrics, open: Mutex::default() }) }
    }

    /// The next connection that may be served; those above the limits are closed.
    pub async fn accept<L: Listener>(&self, listener: &L) -> Guarded<L::Stream> {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => match self.admit(address) {
                    Some((peer, seat)) => return Guarded::new(stream, peer, seat, self.shared.limits.patience),
                    None => drop(self.shared.metrics.connections_refused.fetch_add(1, Ordering::Relaxed)),
                },
                Err(error) => {
                    warn!(%error, "no connection can be taken just now");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Every connection that may be served.
    pub fn incoming<L: Listener>(self, listener: L) -> impl Stream<Item = io::Result<Guarded<L::Stream>>> + Send {
        futures::stream::unfold((self, listener), async |(gate, listener)| {
            let connection = gate.accept(&listener).await;
            Some((Ok(connection), (gate, listener)))
        })
    }

    fn admit(&self, address: SocketAddr) -> Option<(Peer, Seat)> {
        let whose = network(address.ip());
        let mut open = self.shared.lock();
        if open.connections >= self.shared.limits.connections {
            return None;
        }
        let (count, account) = open.peers.entry(whose).or_insert_with(|| (0, Arc::new(Account::new())));
        if *count >= self.shared.limits.connections_per_peer {
            return None;
        }
        *count += 1;
        let account = Arc::clone(account);
        open.connections += 1;
        Some((Peer { address, account }, Seat { shared: Arc::clone(&self.shared), whose }))
    }
}

impl Account {
    pub(super) fn new() -> Self {
        let arriving = Arc::new(Semaphore::new(ARRIVING_KIB_MAX));
        Self { calls: AtomicUsize::new(0), untaken: AtomicUsize::new(0), arriving }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Open> {
        // Nothing panics while it is held; if it did, counts are still sound enough to go on.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.shared.lock();
        open.connections = open.connections.saturating_sub(1);
        if let Some((count, _)) = open.peers.get_mut(&self.whose) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.peers.remove(&self.whose);
            }
        }
    }
}

/// Whom an address belongs to: with IPv6 one customer has a network of 64 bits (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

/// A connection that must greet in time.
#[derive(Debug)]
pub struct Guarded<S> {
    stream: S,
    peer: Peer,
    /// Until the greeting is whole.
    greeting: Option<Greeting>,
    _seat: Seat,
}

#[derive(Debug)]
struct Greeting {
    bytes: usize,
    until: Pin<Box<Sleep>>,
}

impl<S> Guarded<S> {
    fn new(stream: S, peer: Peer, seat: Seat, patience: Duration) -> Self {
        let greeting = Greeting { bytes: 0, until: Box::pin(tokio::time::sleep(patience)) };
        Self { stream, peer, greeting: Some(greeting), _seat: seat }
    }
}

impl<S> Connected for Guarded<S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(greeting) = &mut this.greeting
            && greeting.until.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no greeting came in time")));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Some(greeting) = &mut this.greeting {
            greeting.bytes = greeting.bytes.saturating_add(buf.filled().len().saturating_sub(before));
            if greeting.bytes >= GREETING_BYTES {
                this.greeting = None;
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // Who is answered has greeted.
        self.greeting = None;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.greeting = None;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn small_messages_do_not_wait_for_large_ones() {
        let limits = Limits { connections: 1, connections_per_peer: 1, patience: Duration::from_secs(1) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let accepted = Gate::new(limits, Arc::default()).accept(&listener).await;
        assert!(accepted.stream.nodelay().unwrap());
    }

    #[test]
    fn addresses_are_counted_by_whom_they_belong_to() {
        let limits = Limits { connections: 4, connections_per_peer: 2, patience: Duration::from_secs(1) };
        let gate = Gate::new(limits, Arc::default());
        let admit = |text: &str| gate.admit(SocketAddr::new(text.parse().unwrap(), 1));
        let first = admit("192.0.2.1");
        // The same address in another notation, and the last place of its own.
        let second = admit("::ffff:192.0.2.1");
        assert!(first.is_some() && second.is_some() && admit("192.0.2.1").is_none());
        let third = admit("2001:db8::1");
        let fourth = admit("2001:db8::ffff:1");
        assert!(third.is_some() && fourth.is_some());
        // Every place is taken.
        assert!(admit("198.51.100.1").is_none());
        drop(third);
        let fifth = admit("198.51.100.1");
        assert!(fifth.is_some());
        drop((first, second, fourth, fifth));
        let open = gate.shared.lock();
        assert!(open.connections == 0 && open.peers.is_empty(), "{open:?}");
    }
}
