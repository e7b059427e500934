//! What a coordinator stands on: where its connections come from and where its driver runs. In production that is the
//! operating system; a simulation has a network and a time of its own.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::thread;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tracing::warn;

/// Gives addresses, and room for the driver.
pub trait Ground {
    /// Where connections arrive.
    type Listener: Listener;

    /// Takes an address.
    ///
    /// # Errors
    /// When it cannot be had.
    fn listen(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::Listener>> + Send;

    /// Lets the driver run, beside everything else; it blocks while its store makes a commit durable.
    ///
    /// # Errors
    /// When there is no room for it.
    fn drive(&self, driving: impl Future<Output = ()> + Send + 'static) -> io::Result<()>;
}

/// An address that was taken.
pub trait Listener: fmt::Debug + Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + fmt::Debug + Unpin + Send + 'static;

    /// The next connection, and who is at the other end. Its small messages do not wait for large ones.
    ///
    /// # Errors
    /// When none can be taken just now.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// The address.
    ///
    /// # Errors
    /// When it is not told.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// The operating system: its sockets, and a thread of its own for the driver.
#[derive(Debug, Clone, Copy)]
pub struct System;

impl Ground for System {
    type Listener = TcpListener;

    async fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(address).await
    }

    fn drive(&self, driving: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let runtime = Handle::current();
        // The runtime serves the driver's timers without running it: a store whose commit waits for a connection runs that.
        let drive = move || {
            let _entered = runtime.enter();
            futures::executor::block_on(driving);
        };
        thread::Builder::new().name("driver".into()).spawn(drive)?;
        Ok(())
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, address) = self.accept().await?;
        if let Err(error) = stream.set_nodelay(true) {
            warn!(%error, "small messages may be delayed on a connection");
        }
        Ok((stream, address))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}
