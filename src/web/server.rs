//! Accepts connections and ends them: the slow, the silent and, when the process stops, all others.

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use poem::{
    Addr, Endpoint, Error, Response,
    http::{self, uri::Scheme},
    web::{LocalAddr, RemoteAddr},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::web::stall::{Guarded, Turns};

/// The largest head of a request: a token and a dozen cookies fit thrice.
const HEAD_LENGTH_MAX: usize = 32 * 1024;

/// How long to leave `accept` alone after it failed. It fails for want of descriptors or memory,
/// and only the end of another connection helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; others wait to be accepted. Each may bring a body of 1 MiB, and
    /// 4,096 of those are what a small machine has.
    pub connections: usize,
    /// For a request's head, and for a new connection to begin one.
    pub head: Duration,
    /// Between two requests. Longer than proxies keep theirs (60 s is usual), so that the proxy
    /// closes first and never sends a request into a connection that we are closing.
    pub idle: Duration,
    /// For the client to take any of what we write.
    pub write: Duration,
    /// For the requests in flight when the process stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            head: Duration::from_secs(5),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(30),
            drain: Duration::from_secs(20),
        }
    }
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Drain {
    /// Every request was answered.
    Clean,
    /// Requests were in flight when the time for them was over.
    Cut { connections: usize },
}

/// Serves `app` until `shutdown`, then answers the requests in flight.
pub async fn serve<E>(
    listener: TcpListener,
    app: E,
    limits: Limits,
    shutdown: CancellationToken,
) -> Drain
where
    E: Endpoint<Output = Response> + 'static,
{
    let app = Arc::new(app);
    let permits = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    while let Some((stream, permit)) =
        shutdown.run_until_cancelled(accept(&listener, &permits)).await
    {
        let (app, shutdown) = (app.clone(), shutdown.clone());
        connections.spawn(async move {
            converse(stream, app, limits, shutdown).await;
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    match timeout(limits.drain, connections.wait()).await {
        Ok(()) => Drain::Clean,
        Err(_) => Drain::Cut { connections: connections.len() },
    }
}

/// Waits until a connection may be taken and is there.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers the requests of one connection until either side closes it.
async fn converse<E>(stream: TcpStream, app: Arc<E>, limits: Limits, shutdown: CancellationToken)
where
    E: Endpoint<Output = Response> + 'static,
{
    let (Ok(local), Ok(remote)) = (stream.local_addr(), stream.peer_addr()) else { return };
    // Answers are written whole; waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let turns = Turns::default();
    let stream = Guarded::new(stream, turns.clone(), limits.head, limits.write);
    let service = service_fn(|request: http::Request<Incoming>| {
        let turn = turns.begin();
        let local = LocalAddr(Addr::SocketAddr(local));
        let remote = RemoteAddr(Addr::SocketAddr(remote));
        let request = (request, local, remote, Scheme::HTTP).into();
        let app = app.clone();
        async move {
            let response = app.call(request).await.unwrap_or_else(Error::into_response);
            drop(turn);
            Ok::<http::Response<_>, Infallible>(response.into())
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_header_size(HEAD_LENGTH_MAX)
        .max_buf_size(HEAD_LENGTH_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // How a connection ends is the client's affair: what we owed it has its own record.
    if shutdown.run_until_cancelled(connection.as_mut()).await.is_none() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}
