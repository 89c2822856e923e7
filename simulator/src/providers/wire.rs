//! A listener whose connections can be reset while a request is being answered, and tell when their
//! client leaves.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use poem::{
    Addr,
    http::uri::Scheme,
    listener::Acceptor,
    web::{LocalAddr, RemoteAddr},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// The open connections by the client's address.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections(Arc<Mutex<HashMap<SocketAddr, Arc<Line>>>>);

/// What is known of an open connection.
#[derive(Debug, Default)]
struct Line {
    is_broken: AtomicBool,
    left: Notify,
}

impl Connections {
    /// Has the connection of `client` reset as soon as something is written to it.
    pub(super) fn reset(&self, client: &RemoteAddr) {
        if let Some(line) = self.line(client) {
            line.is_broken.store(true, Ordering::Release);
        }
    }

    /// Waits until `client` has closed its connection: the server goes on with what was asked for.
    pub(super) async fn left(&self, client: &RemoteAddr) {
        if let Some(line) = self.line(client) {
            line.left.notified().await;
        }
    }

    fn line(&self, client: &RemoteAddr) -> Option<Arc<Line>> {
        self.open().get(client.as_socket_addr()?).cloned()
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Arc<Line>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Listener {
    listener: TcpListener,
    connections: Connections,
}

impl Listener {
    pub(super) fn new(listener: TcpListener, connections: Connections) -> Self {
        Self { listener, connections }
    }
}

impl Acceptor for Listener {
    type Io = Connection;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.listener.local_addr().map(Addr::from).map(LocalAddr).into_iter().collect()
    }

    async fn accept(&mut self) -> io::Result<(Connection, LocalAddr, RemoteAddr, Scheme)> {
        let (stream, client) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        let local_addr = stream.local_addr()?;
        let line = Arc::<Line>::default();
        self.connections.open().insert(client, Arc::clone(&line));
        let connections = self.connections.clone();
        let connection = Connection { stream, client, line, connections };
        Ok((connection, LocalAddr(local_addr.into()), RemoteAddr(client.into()), Scheme::HTTP))
    }
}

pub(super) struct Connection {
    stream: TcpStream,
    client: SocketAddr,
    line: Arc<Line>,
    connections: Connections,
}

impl Connection {
    fn intact(&self) -> io::Result<()> {
        if !self.line.is_broken.load(Ordering::Acquire) {
            return Ok(());
        }
        // Without it the client sees a plain close, which looks like a server that shuts down.
        drop(self.stream.set_zero_linger());
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.open().remove(&self.client);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if buf.filled().len() == before {
            self.line.left.notify_one();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.intact()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A shutdown would say goodbye before the reset.
        self.intact()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.intact()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
