//! Reads request bodies whole, within limits, before anybody looks at them.

use std::{
    collections::BTreeMap,
    fmt,
    future::poll_fn,
    mem,
    pin::{Pin, pin},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use futures_util::TryStream;
use hyper::body::Bytes;
use poem::{Body, Request, http::StatusCode};
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    kernel::Detail,
    web::{Problem, document::below, policy::Class},
};

/// Names, passwords and tokens: a few hundred bytes, from anybody at all.
const AUTH_MAX: usize = 64 * 1024;

/// Fifty lines with an address take 8 KiB.
const CHECKOUT_MAX: usize = 64 * 1024;

/// The providers' largest events with every object expanded stay well below.
const WEBHOOK_MAX: usize = 256 * 1024;

/// A product with all its variants and texts.
const ADMIN_MAX: usize = 1024 * 1024;

/// Everything else is a few fields.
const DEFAULT_MAX: usize = 64 * 1024;

/// The bytes of all bodies at a time: what 2,000 requests bring with 64 KiB each, three times as many as
/// are worked on. More is refused, so that no number of clients can fill the memory.
const BODIES_MAX: usize = 128 * 1024 * 1024;

/// What of it only requests of one class may use, for each class: bodies are read before anybody asks
/// for a token, and large ones of strangers must not keep out a checkout or a provider's report. It is
/// 128 bodies of 64 KiB, or 1,000 orders of fifty lines.
const OWN: usize = 8 * 1024 * 1024;

/// What is read and thrown away so that a client that sends too much hears so: if we closed at
/// once, the rest of its body would meet a reset, and the reset would overtake our answer.
const DISCARD_MAX: usize = 16 * 1024 * 1024;

/// How many bytes a request of the class may bring.
const fn length_max(class: Class) -> usize {
    match class {
        Class::Auth => AUTH_MAX,
        Class::Checkout => CHECKOUT_MAX,
        Class::Webhook => WEBHOOK_MAX,
        Class::Admin => ADMIN_MAX,
        Class::Browse | Class::Cart | Class::Payment => DEFAULT_MAX,
    }
}

/// Room for the bodies of all requests that are read or answered. Where there is none, bodies that wait
/// for their clients make it; those that are whole never do.
pub(super) struct Room {
    books: Mutex<Books>,
    tickets: AtomicU64,
}

/// The bytes that are free, and who can leave for more.
struct Books {
    shared: usize,
    own: [usize; Class::ALL.len()],
    /// Bodies that wait for their clients, by class, in the order in which they began. When they last got
    /// on counts for nothing: a byte now and then costs a client little, and whoever is honest has said all
    /// within milliseconds of its beginning.
    waiting: [BTreeMap<u64, Waiting>; Class::ALL.len()],
}

/// What has come of a body, and the room that it takes.
#[derive(Default)]
struct Part {
    bytes: Vec<u8>,
    shared: usize,
    own: usize,
}

/// What has come of a body that waits for its client. It is kept here so that whoever needs the room
/// frees it without waiting for anybody.
struct Waiting {
    part: Part,
    reader: Waker,
}

/// A body's place in the room, until it is dropped.
struct Place<'a> {
    room: &'a Room,
    class: Class,
    ticket: u64,
    part: Part,
    is_waiting: bool,
}

/// A body, with the room that it takes until it is dropped.
pub(super) struct Taken<'a> {
    pub(super) bytes: Bytes,
    _place: Place<'a>,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What it holds is nobody's to read.
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new(BODIES_MAX - OWN * Class::ALL.len(), OWN)
    }
}

impl Books {
    /// Takes so much room, of what all share as long as there is some; `false` where there is too little.
    fn take(&mut self, class: Class, part: &mut Part, bytes: usize) -> bool {
        if self.free(class) < bytes {
            return false;
        }
        let shared = bytes.min(self.shared);
        let own = bytes - shared;
        self.shared -= shared;
        self.own[class as usize] -= own;
        part.shared += shared;
        part.own += own;
        true
    }

    fn give_back(&mut self, class: Class, part: &Part) {
        self.shared += part.shared;
        self.own[class as usize] += part.own;
    }

    /// The bytes that a body of the class can take.
    const fn free(&self, class: Class) -> usize {
        self.shared + self.own[class as usize]
    }

    /// The bytes that a body of the class could take if nobody waited. Where they are too few, nobody is
    /// to leave in vain.
    fn could_free(&self, class: Class) -> usize {
        let waiting = |class: Class| self.waiting[class as usize].values();
        let shared: usize =
            Class::ALL.into_iter().flat_map(waiting).map(|body| body.part.shared).sum();
        let own: usize = waiting(class).map(|body| body.part.own).sum();
        self.free(class) + shared + own
    }

    /// Frees the room of the body that began first, in this class or, where nobody waits in it, of those
    /// with a part of what all share: whoever floods one class must not cut off the others.
    fn evict(&mut self, class: Class) -> Option<Waiting> {
        let shares = |class: Class| {
            let mut waiting = self.waiting[class as usize].iter();
            waiting.find(|(_, waiting)| waiting.part.shared > 0).map(|(ticket, _)| (*ticket, class))
        };
        let (ticket, class) = match self.waiting[class as usize].first_key_value() {
            Some((ticket, _)) => (*ticket, class),
            None => Class::ALL.into_iter().filter_map(shares).min_by_key(|(ticket, _)| *ticket)?,
        };
        let waiting = self.waiting[class as usize].remove(&ticket)?;
        self.give_back(class, &waiting.part);
        Some(waiting)
    }
}

impl Room {
    fn new(shared: usize, own: usize) -> Self {
        let books = Books {
            shared,
            own: Class::ALL.map(|_| own),
            waiting: Class::ALL.map(|_| BTreeMap::new()),
        };
        Self { books: Mutex::new(books), tickets: AtomicU64::new(0) }
    }

    /// Takes the request's body, unless it is too long, too slow or unfit for our tables, or there is
    /// no room for it.
    pub(super) async fn take(
        &self,
        request: &mut Request,
        class: Class,
        time_max: Duration,
    ) -> Result<Taken<'_>, Problem> {
        let max = length_max(class);
        let announced = request
            .header("content-length")
            .and_then(|length| length.parse::<usize>().ok())
            .unwrap_or(0);
        if announced > DISCARD_MAX {
            return Err(too_large(max));
        }
        let read = self.read(request.take_body(), class, announced.min(max));
        let taken = timeout(time_max, read).await.unwrap_or_else(|_| Err(too_slow()))?;
        // Webhooks are signed as they are, and kept as they are.
        if class != Class::Webhook && is_json(request) {
            refuse_nul(&taken.bytes)?;
        }
        Ok(taken)
    }

    async fn read(&self, body: Body, class: Class, expected: usize) -> Result<Taken<'_>, Problem> {
        let max = length_max(class);
        let mut chunks = pin!(body.into_bytes_stream());
        let mut place = self.place(class);
        let mut length = 0;
        while let Some(chunk) = place.next(chunks.as_mut()).await? {
            length += chunk.len();
            if length > DISCARD_MAX {
                break;
            }
            if length > max {
                // The rest is only listened to.
                place.empty();
                continue;
            }
            if !self.widen(class, &mut place.part, chunk.len()) {
                return Err(no_room());
            }
            place.part.add(&chunk, expected);
        }
        if length > max {
            return Err(too_large(max));
        }
        let bytes = mem::take(&mut place.part.bytes).into();
        Ok(Taken { bytes, _place: place })
    }

    fn place(&self, class: Class) -> Place<'_> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        Place { room: self, class, ticket, part: Part::default(), is_waiting: false }
    }

    /// Takes so much more room, and has others leave for it; `false` where that is not enough.
    fn widen(&self, class: Class, part: &mut Part, bytes: usize) -> bool {
        let mut evicted = Vec::new();
        let mut books = self.lock();
        let is_enough = books.free(class) >= bytes || books.could_free(class) >= bytes;
        while is_enough && books.free(class) < bytes {
            let Some(waiting) = books.evict(class) else { break };
            evicted.push(waiting);
        }
        let is_taken = books.take(class, part, bytes);
        drop(books);
        for waiting in evicted {
            waiting.reader.wake();
        }
        is_taken
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    /// Adds the chunk to a body of which so much is expected.
    fn add(&mut self, chunk: &[u8], expected: usize) {
        let bytes = &mut self.bytes;
        if bytes.capacity() - bytes.len() < chunk.len() {
            // What is announced gets no memory before as much has come.
            let expected = expected.saturating_sub(bytes.len()).min(bytes.len());
            bytes.reserve_exact(expected.max(chunk.len()));
        }
        bytes.extend_from_slice(chunk);
    }
}

impl Place<'_> {
    /// The next chunk of the body; a refusal if it had to make room meanwhile.
    async fn next<S>(&mut self, mut chunks: Pin<&mut S>) -> Result<Option<Bytes>, Problem>
    where
        S: TryStream<Ok = Bytes>,
    {
        poll_fn(|cx| {
            if !self.resume() {
                return Poll::Ready(Err(no_room()));
            }
            let next = chunks.as_mut().try_poll_next(cx);
            if next.is_pending() {
                self.wait(cx.waker());
            }
            next.map(|chunk| chunk.transpose().map_err(|_| broken_off()))
        })
        .await
    }

    /// Lets others have the room if they need it.
    fn wait(&mut self, reader: &Waker) {
        if self.part.shared + self.part.own == 0 {
            return;
        }
        let waiting = Waiting { part: mem::take(&mut self.part), reader: reader.clone() };
        self.room.lock().waiting[self.class as usize].insert(self.ticket, waiting);
        self.is_waiting = true;
    }

    /// Has what has come so far back; `false` if others took the room.
    fn resume(&mut self) -> bool {
        if !mem::take(&mut self.is_waiting) {
            return true;
        }
        let waiting = self.room.lock().waiting[self.class as usize].remove(&self.ticket);
        let is_left = waiting.is_some();
        self.part = waiting.map(|waiting| waiting.part).unwrap_or_default();
        is_left
    }

    fn empty(&mut self) {
        let part = mem::take(&mut self.part);
        if part.shared + part.own > 0 {
            self.room.lock().give_back(self.class, &part);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.resume();
        self.empty();
    }
}

fn is_json(request: &Request) -> bool {
    request.content_type().is_some_and(|kind| kind.contains("json"))
}

/// U+0000 is fine JSON, and PostgreSQL cannot store it in any text.
fn refuse_nul(bytes: &[u8]) -> Result<(), Problem> {
    const ESCAPED: &[u8] = br"\u0000";
    if !bytes.windows(ESCAPED.len()).any(|window| window == ESCAPED) {
        return Ok(());
    }
    // The escape may itself be escaped. What does not parse is refused for that, later.
    let Ok(value) = serde_json::from_slice(bytes) else { return Ok(()) };
    match find_nul(&value, "") {
        Some(pointer) => Err(Problem::invalid_request(vec![Detail {
            pointer,
            code: "nul-character",
            message: "must not contain U+0000".to_owned(),
            available: None,
        }])),
        None => Ok(()),
    }
}

fn find_nul(value: &Value, at: &str) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(|| at.to_owned()),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| find_nul(item, &below(at, &index.to_string()))),
        Value::Object(fields) => fields.iter().find_map(|(name, field)| {
            let at = below(at, name);
            if name.contains('\0') { Some(at) } else { find_nul(field, &at) }
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn too_large(max: usize) -> Problem {
    let detail = format!("a body of at most {max} bytes is read here");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
}

fn no_room() -> Problem {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", None);
    problem.with_retry_after(Duration::from_secs(1))
}

fn too_slow() -> Problem {
    let detail = "the body did not arrive in time".to_owned();
    Problem::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", detail)
}

fn broken_off() -> Problem {
    let detail = "the body ended before its end".to_owned();
    Problem::new(StatusCode::BAD_REQUEST, "malformed", detail)
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::{future::poll_immediate, stream};
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

    use super::*;

    /// A client that sends what it is told to.
    struct Client(UnboundedSender<Result<Bytes, io::Error>>);

    impl Client {
        fn begin() -> (Self, Body) {
            let (chunks, mut sent) = unbounded_channel();
            let body = Body::from_bytes_stream(stream::poll_fn(move |cx| sent.poll_recv(cx)));
            (Self(chunks), body)
        }

        fn send(&self, length: usize) {
            self.0.send(Ok(vec![b' '; length].into())).unwrap();
        }

        fn whole(length: usize) -> Body {
            vec![b' '; length].into()
        }
    }

    fn refused(read: Option<Result<Taken<'_>, Problem>>) -> Option<StatusCode> {
        read?.err().map(|problem| problem.status())
    }

    #[tokio::test]
    async fn who_began_first_makes_room_whoever_sent_a_byte_last() {
        let room = Room::new(60, 40);
        let (first, body) = Client::begin();
        let mut first_read = pin!(room.read(body, Class::Checkout, 0));
        let (second, body) = Client::begin();
        let mut second_read = pin!(room.read(body, Class::Checkout, 0));
        first.send(49);
        assert!(poll_immediate(&mut first_read).await.is_none());
        second.send(49);
        assert!(poll_immediate(&mut second_read).await.is_none());
        first.send(1);
        assert!(poll_immediate(&mut first_read).await.is_none());

        let arrived = room.read(Client::whole(50), Class::Checkout, 0).await;

        assert_eq!(arrived.ok().map(|taken| taken.bytes.len()), Some(50));
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(refused(poll_immediate(&mut first_read).await), Some(busy));
        second.send(1);
        drop(second);
        let taken = poll_immediate(&mut second_read).await.unwrap();
        assert_eq!(taken.ok().map(|taken| taken.bytes.len()), Some(50));
    }

    #[tokio::test]
    async fn what_is_whole_stays_and_leaves_each_class_its_own_room() {
        let room = Room::new(60, 40);
        let whole = room.read(Client::whole(100), Class::Admin, 0).await;

        let refusal = room.read(Client::whole(1), Class::Admin, 0).await;
        let other = room.read(Client::whole(40), Class::Checkout, 0).await;

        assert_eq!(refused(Some(refusal)), Some(StatusCode::SERVICE_UNAVAILABLE));
        assert!(whole.is_ok() && other.is_ok());
        drop(whole);
        assert!(room.read(Client::whole(100), Class::Admin, 0).await.is_ok());
    }

    #[tokio::test]
    async fn a_class_makes_room_for_itself_before_others_do() {
        let room = Room::new(100, 0);
        let (checkout, body) = Client::begin();
        let mut checkout_read = pin!(room.read(body, Class::Checkout, 0));
        checkout.send(50);
        assert!(poll_immediate(&mut checkout_read).await.is_none());
        let (admin, body) = Client::begin();
        let mut admin_read = pin!(room.read(body, Class::Admin, 0));
        admin.send(50);
        assert!(poll_immediate(&mut admin_read).await.is_none());

        let second = room.read(Client::whole(50), Class::Admin, 0).await;
        assert!(second.is_ok() && poll_immediate(&mut checkout_read).await.is_none());
        assert!(refused(poll_immediate(&mut admin_read).await).is_some());
        let third = room.read(Client::whole(50), Class::Admin, 0).await;

        assert!(third.is_ok());
        assert!(refused(poll_immediate(&mut checkout_read).await).is_some());
    }

    #[tokio::test]
    async fn nobody_leaves_for_a_body_that_finds_no_room_all_the_same() {
        let room = Room::new(100, 0);
        let whole = room.read(Client::whole(80), Class::Admin, 0).await;
        let (client, body) = Client::begin();
        let mut read = pin!(room.read(body, Class::Checkout, 0));
        client.send(10);
        assert!(poll_immediate(&mut read).await.is_none());

        let refusal = room.read(Client::whole(50), Class::Admin, 0).await;

        assert_eq!(refused(Some(refusal)), Some(StatusCode::SERVICE_UNAVAILABLE));
        assert!(whole.is_ok() && poll_immediate(&mut read).await.is_none());
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_body_that_nobody_reads_any_more() {
        let room = Room::new(60, 40);
        let (client, body) = Client::begin();
        client.send(100);

        assert!(poll_immediate(Box::pin(room.read(body, Class::Cart, 0))).await.is_none());

        let books = room.lock();
        assert_eq!((books.shared, books.own), (60, [40; Class::ALL.len()]));
        assert!(books.waiting.iter().all(BTreeMap::is_empty));
    }

    #[test]
    fn nul_is_found_where_it_stands() {
        for (body, pointer) in [
            (r#"{"a":[{"b/c":"x\u0000"}]}"#, Some("/a/0/b~1c")),
            (r#"{"a\u0000":1}"#, Some("/a\u{0}")),
            (r#"{"a":"\\u0000"}"#, None),
            (r#"{"a":"\u00001"}"#, Some("/a")),
            (r#"{"a":"plain"}"#, None),
        ] {
            let value = serde_json::from_str(body).unwrap();

            assert_eq!(find_nul(&value, "").as_deref(), pointer, "{body}");
            assert_eq!(refuse_nul(body.as_bytes()).is_err(), pointer.is_some(), "{body}");
        }
    }
}
