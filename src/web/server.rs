//! Accepts connections and ends them: the slow, the silent, those that are too many and, when the
//! process stops, all others.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::poll_fn,
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Poll, ready},
    time::Duration,
};

use futures_util::{Stream, stream};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use metrics::{counter, gauge};
use poem::{
    Addr, Body, Endpoint, Error, Request, Response,
    http::{self, HeaderValue, header, uri::Scheme},
    web::{LocalAddr, RemoteAddr},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::web::{
    edge,
    gate::{Gate, Mood, Pace, Turns},
    head::{self, Refusal},
};

/// How long to leave `accept` alone after it failed for want of descriptors or memory: the
/// connection that we closed to make room needs a moment to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// How many connections beyond the limit are told so at a time; more are closed without a word.
const FAREWELLS_MAX: usize = 256;

/// How long a connection beyond the limit waits for another one to end, once the one that has waited
/// longest was told to; and how often it has one told.
const SEAT_WAIT: Duration = Duration::from_millis(25);
const SEAT_TRIES: usize = 4;

/// How long whoever is told that we are full may take to ask, and to hear it.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time. One more takes the place of the one that has waited longest for its
    /// client: for a request, for more of a body, or for somebody to take an answer. Where all are
    /// being answered, it is told to come back (503 `busy`).
    pub connections: usize,
    /// For a request's head (then 408), and for a new connection to begin one.
    pub head: Duration,
    /// Between two requests. Longer than proxies keep theirs (60 s is usual), so that the proxy
    /// closes first and never sends a request into a connection that we are closing.
    pub idle: Duration,
    /// For the client to take 64 KiB of what we write, or all of it.
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

impl Limits {
    /// Descriptors that a process needs beside those of its clients: farewells, the database's
    /// pool (100 at most), Redis, files, the health port.
    const DESCRIPTORS_BESIDE: usize = FAREWELLS_MAX + 192;

    /// How many descriptors the process needs for so many connections.
    pub const fn descriptors(&self) -> usize {
        self.connections + Self::DESCRIPTORS_BESIDE
    }

    /// The same with no more connections than a process with so many descriptors can have. At
    /// least a quarter of them is for connections.
    #[must_use]
    pub fn within(self, descriptors: usize) -> Self {
        let free = descriptors.saturating_sub(Self::DESCRIPTORS_BESIDE).max(descriptors / 4);
        Self { connections: self.connections.min(free), ..self }
    }
}

/// Room for connections, and who waits for it.
struct Room {
    seats: Arc<Semaphore>,
    farewells: Arc<Semaphore>,
    crowd: Arc<Crowd>,
}

/// The connections that wait for their clients, in the order in which they began to.
#[derive(Default)]
struct Crowd {
    waiting: Mutex<BTreeMap<u64, Arc<Notify>>>,
    tickets: AtomicU64,
}

/// A connection's place among those that wait, until it is dropped.
struct Waiting<'a> {
    crowd: &'a Crowd,
    ticket: u64,
}

impl Crowd {
    /// Notes that a connection waits; `leave` tells it that it has to make room.
    fn join(&self, leave: &Arc<Notify>) -> Waiting<'_> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(ticket, leave.clone());
        Waiting { crowd: self, ticket }
    }

    /// Tells the connection that has waited longest to make room, if one waits.
    fn thin(&self) {
        let longest = self.lock().pop_first();
        if let Some((_, leave)) = longest {
            leave.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Notify>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.crowd.lock().remove(&self.ticket);
    }
}

/// Serves `app` until `shutdown`, then answers the requests in flight. Clients speak `scheme` to
/// whatever ends TLS before us.
pub async fn serve<E>(
    listener: TcpListener,
    app: E,
    limits: Limits,
    scheme: Scheme,
    shutdown: CancellationToken,
) -> Drain
where
    E: Endpoint<Output = Response> + 'static,
{
    let app = Arc::new(app);
    let room = Room {
        seats: Arc::new(Semaphore::new(limits.connections)),
        farewells: Arc::new(Semaphore::new(FAREWELLS_MAX)),
        crowd: Arc::default(),
    };
    let connections = TaskTracker::new();
    while let Some((stream, remote)) =
        shutdown.run_until_cancelled(accept(&listener, &room.crowd)).await
    {
        let Some(place) = room.place() else {
            counter!("connections_refused_total", "how" => "closed").increment(1);
            continue;
        };
        let visit = Visit {
            app: app.clone(),
            limits,
            scheme: scheme.clone(),
            crowd: room.crowd.clone(),
            shutdown: shutdown.clone(),
            remote,
        };
        connections.spawn(visit.receive(stream, place));
    }
    drop(listener);
    connections.close();
    match timeout(limits.drain, connections.wait()).await {
        Ok(()) => Drain::Clean,
        Err(_) => Drain::Cut { connections: connections.len() },
    }
}

/// The same body; its end is noted.
fn noted(body: Body, turns: Turns) -> Body {
    let mut pieces = Box::pin(body.into_bytes_stream());
    Body::from_bytes_stream(stream::poll_fn(move |cx| {
        let piece = ready!(pieces.as_mut().poll_next(cx));
        if piece.is_none() {
            turns.end_body();
        }
        Poll::Ready(piece)
    }))
}

/// Why a connection is to end.
enum End {
    /// It has ended.
    Own,
    /// Once what has begun is answered.
    Asked,
    /// At once: what has begun would keep it.
    Cut,
}

/// Waits for a connection.
async fn accept(listener: &TcpListener, crowd: &Crowd) -> (TcpStream, SocketAddr) {
    let mut is_failing = false;
    loop {
        match listener.accept().await {
            Ok(connection) => return connection,
            Err(error) if is_its_own(&error) => {}
            Err(error) => {
                if !is_failing {
                    tracing::warn!(%error, "no connection can be accepted");
                }
                is_failing = true;
                crowd.thin();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether the error is of the connection that was to be accepted; the next one may be well. Linux
/// reports what the network says of it here (accept(2), error handling).
fn is_its_own(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::TimedOut
            | ErrorKind::PermissionDenied
    )
}

/// Where a connection stands.
enum Place {
    Seat(OwnedSemaphorePermit),
    /// Beyond the limit: it gets a seat that another connection leaves, or is told to come back.
    Queue {
        seats: Arc<Semaphore>,
        farewell: OwnedSemaphorePermit,
    },
}

impl Room {
    /// A place for one more connection; `None` where too many are being sent away as it is.
    fn place(&self) -> Option<Place> {
        if let Ok(seat) = self.seats.clone().try_acquire_owned() {
            return Some(Place::Seat(seat));
        }
        let farewell = self.farewells.clone().try_acquire_owned().ok()?;
        Some(Place::Queue { seats: self.seats.clone(), farewell })
    }
}

/// What a connection is served with.
struct Visit<E> {
    app: Arc<E>,
    limits: Limits,
    scheme: Scheme,
    crowd: Arc<Crowd>,
    shutdown: CancellationToken,
    remote: SocketAddr,
}

impl<E: Endpoint<Output = Response> + 'static> Visit<E> {
    async fn receive(self, stream: TcpStream, place: Place) {
        let _permit = match place {
            Place::Seat(seat) => seat,
            Place::Queue { seats, farewell } => {
                let Some(seat) = self.seat(&seats).await else {
                    self.send_away(stream).await;
                    drop(farewell);
                    return;
                };
                seat
            }
        };
        let Limits { head, idle, write, .. } = self.limits;
        let turns = Turns::default();
        let gate = |stream| Gate::new(stream, turns.clone(), Pace { head, idle, write });
        gauge!("connections_open").increment(1);
        self.converse(stream, gate, &turns, &self.crowd).await;
        gauge!("connections_open").decrement(1);
    }

    /// A seat that another connection leaves.
    async fn seat(&self, seats: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        for _ in 0..SEAT_TRIES {
            self.crowd.thin();
            let left = timeout(SEAT_WAIT, seats.clone().acquire_owned()).await;
            if let Ok(Ok(seat)) = left {
                return Some(seat);
            }
        }
        None
    }

    /// Answers whatever comes that we are full.
    async fn send_away(&self, stream: TcpStream) {
        counter!("connections_refused_total", "how" => "answered").increment(1);
        let pace = Pace { head: FAREWELL_MAX, idle: FAREWELL_MAX, write: FAREWELL_MAX };
        let turns = Turns::default();
        let gate = |stream| Gate::refusing(stream, turns.clone(), pace, Refusal::Full);
        // It has no seat that it could leave to others.
        self.converse(stream, gate, &turns, &Crowd::default()).await;
    }

    /// Answers the requests of one connection until either side closes it.
    async fn converse(
        &self,
        stream: TcpStream,
        gate: impl FnOnce(TcpStream) -> Gate<TcpStream>,
        turns: &Turns,
        crowd: &Crowd,
    ) {
        let Ok(local) = stream.local_addr() else { return };
        // Answers are written whole; waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        let service = service_fn(|request: http::Request<Incoming>| {
            let turn = turns.begin();
            let local = LocalAddr(Addr::SocketAddr(local));
            let remote = RemoteAddr(Addr::SocketAddr(self.remote));
            let turns = turns.clone();
            async move {
                let mut response = if let Some(refusal) = turn.refusal() {
                    edge::refuse(refusal, &self.scheme).await
                } else {
                    let mut request: Request = (request, local, remote, Scheme::HTTP).into();
                    if turn.is_last() {
                        let body = noted(request.take_body(), turns);
                        request.set_body(body);
                    }
                    // A connection that waits keeps no room for the next answer.
                    let answer = Box::pin(self.app.call(request));
                    answer.await.unwrap_or_else(Error::into_response)
                };
                if turn.is_last() || self.shutdown.is_cancelled() {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                drop(turn);
                Ok::<http::Response<_>, Infallible>(response.into())
            }
        });
        // The gate is stricter than any limit of the library.
        let connection = http1::Builder::new()
            .max_header_size(head::LENGTH_MAX)
            .max_buf_size(2 * head::LENGTH_MAX)
            .serve_connection(TokioIo::new(gate(stream)), service);
        let mut connection = pin!(connection);
        // How a connection ends is the client's affair: what we owed it has its own record.
        if let End::Asked = self.end(connection.as_mut(), turns, crowd).await {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }

    /// Drives the connection until it ends, or until we want it to: the process stops, or it waits
    /// for its client while others wait for room.
    async fn end(&self, mut connection: impl Future + Unpin, turns: &Turns, crowd: &Crowd) -> End {
        let leave = Arc::new(Notify::new());
        let mut told = pin!(leave.notified());
        let mut stop = pin!(self.shutdown.cancelled());
        let mut is_stopping = false;
        let mut waiting = None;
        poll_fn(|cx| {
            if Pin::new(&mut connection).poll(cx).is_ready() {
                return Poll::Ready(End::Own);
            }
            is_stopping = is_stopping || stop.as_mut().poll(cx).is_ready();
            let mood = turns.mood();
            // What has begun to ask is heard, within the limit of a head.
            if is_stopping && mood != Mood::Arriving {
                return Poll::Ready(End::Asked);
            }
            if mood == Mood::Busy {
                waiting = None;
                return Poll::Pending;
            }
            let steps = turns.steps();
            if waiting.as_ref().is_none_or(|(_, since)| *since != steps) {
                waiting = Some((crowd.join(&leave), steps));
            }
            let end = if mood == Mood::Stalled { End::Cut } else { End::Asked };
            told.as_mut().poll(cx).map(|()| end)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::is_its_own;

    #[test]
    fn what_befalls_one_connection_is_told_from_what_befalls_the_process() {
        for (error, own) in [
            (Errno::CONNABORTED, true),
            (Errno::CONNRESET, true),
            (Errno::INTR, true),
            (Errno::HOSTUNREACH, true),
            (Errno::NETUNREACH, true),
            (Errno::NETDOWN, true),
            (Errno::TIMEDOUT, true),
            // A firewall's word.
            (Errno::PERM, true),
            (Errno::MFILE, false),
            (Errno::NFILE, false),
            (Errno::NOMEM, false),
            (Errno::NOBUFS, false),
        ] {
            assert_eq!(is_its_own(&error.into()), own, "{error}");
        }
    }
}
