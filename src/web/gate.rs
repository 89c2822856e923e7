//! The gate of a connection: the HTTP library behind it gets one whole, plain request at a time.
//!
//! A head is held back until it is complete, judged, and passed on without a byte of what follows.
//! So heads and pauses have limits of their own, nothing is read in two ways, and bytes that are no
//! request are answered like any other: the library is given a request of our own in their place.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use crate::web::head::{self, Head, Length, Refusal};

/// How much is read at a time while a head arrives: nearly every head is shorter.
const PIECE: usize = 4 * 1024;

/// Whoever takes less than this of an answer within the limit of a write is too slow.
const WRITE_STEP: usize = 64 * 1024;

/// How long we listen to the rest of what we will not answer. A connection closed with bytes unread
/// is reset, and the reset would overtake our answer (RFC 9112 section 9.6).
const LINGER_MAX: Duration = Duration::from_secs(2);

/// What the library reads where bytes were refused. Nobody but the library ever sees it.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\n\r\n";

/// How long a connection may take for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) head: Duration,
    pub(super) idle: Duration,
    pub(super) write: Duration,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// It has sent nothing that we have not answered.
    Idle,
    /// A head has begun and is not complete.
    Arriving,
    /// Nothing happens until its client sends more of a body, takes more of an answer or hangs up.
    Stalled,
    /// A request is being read or answered.
    Busy,
}

/// What the gate and whoever answers the requests tell each other.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Begun and ended requests: odd while one is answered.
    count: AtomicUsize,
    mood: AtomicU8,
    /// Requests, and pieces of bodies and answers, that have passed.
    steps: AtomicUsize,
    is_body_over: AtomicBool,
    refusal: OnceLock<Refusal>,
    is_last: AtomicBool,
    reader: AtomicWaker,
}

impl Turns {
    /// Marks that a request's head was read; dropping the turn, that it is answered.
    pub(super) fn begin(&self) -> Turn {
        self.0.count.fetch_add(1, Ordering::Relaxed);
        Turn(self.clone())
    }

    pub(super) fn mood(&self) -> Mood {
        match self.0.mood.load(Ordering::Relaxed) {
            0 => Mood::Idle,
            1 => Mood::Arriving,
            2 => Mood::Stalled,
            _ => Mood::Busy,
        }
    }

    /// Changes whenever the connection gets on. The bytes of a head alone change nothing.
    pub(super) fn steps(&self) -> usize {
        self.0.steps.load(Ordering::Relaxed)
    }

    /// Notes that a body of chunks was read to its end: only the library knows where that is.
    pub(super) fn end_body(&self) {
        self.0.is_body_over.store(true, Ordering::Relaxed);
        self.set_mood(Mood::Busy);
    }

    fn is_body_over(&self) -> bool {
        self.0.is_body_over.load(Ordering::Relaxed)
    }

    fn step(&self) {
        self.0.steps.fetch_add(1, Ordering::Relaxed);
    }

    fn set_mood(&self, mood: Mood) {
        self.0.mood.store(mood as u8, Ordering::Relaxed);
    }

    fn count(&self) -> usize {
        self.0.count.load(Ordering::Relaxed)
    }

    fn is_answering(&self) -> bool {
        self.count() % 2 == 1
    }
}

/// The time in which one request is answered.
#[derive(Debug)]
pub(super) struct Turn(Turns);

impl Turn {
    /// Why there is no request to answer, if there is none.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.0.0.refusal.get().copied()
    }

    /// Whether nothing that follows on the connection will be read.
    pub(super) fn is_last(&self) -> bool {
        self.0.0.is_last.load(Ordering::Relaxed)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let shared = &*self.0.0;
        shared.count.fetch_add(1, Ordering::Relaxed);
        // The library waits for us to say that there is something to read, and we were waiting for this.
        shared.reader.wake();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A head is awaited.
    Head,
    /// That many of the held bytes, the head, are passed on.
    Passing { left: usize, body: Length },
    /// The head was passed on when that many turns had begun or ended; the next begins with it.
    Passed { count: usize, body: Length },
    /// That much of the body was not passed on yet; once that is nothing, the end of the turn is awaited.
    Body(Length),
}

#[derive(Debug)]
pub(super) struct Gate<S> {
    stream: S,
    turns: Turns,
    pace: Pace,
    /// The refusal of every request that this connection brings.
    verdict: Option<Refusal>,
    /// Read and not passed on.
    held: Vec<u8>,
    /// Whether the held bytes may have become a head since they were last looked at.
    is_unseen: bool,
    phase: Phase,
    read_until: Instant,
    read_timer: Pin<Box<Sleep>>,
    write_until: Option<Instant>,
    write_timer: Pin<Box<Sleep>>,
    written: usize,
    is_write_blocked: bool,
    is_body_awaited: bool,
    linger_until: Option<Instant>,
}

impl<S> Gate<S> {
    /// A gate that passes good requests on.
    pub(super) fn new(stream: S, turns: Turns, pace: Pace) -> Self {
        Self {
            stream,
            turns,
            pace,
            verdict: None,
            held: Vec::new(),
            is_unseen: false,
            phase: Phase::Head,
            read_until: Instant::now() + pace.head,
            read_timer: Box::pin(sleep(pace.head)),
            write_until: None,
            write_timer: Box::pin(sleep(pace.write)),
            written: 0,
            is_write_blocked: false,
            is_body_awaited: false,
            linger_until: None,
        }
    }

    /// A gate that refuses whatever comes.
    pub(super) fn refusing(stream: S, turns: Turns, pace: Pace, verdict: Refusal) -> Self {
        Self { verdict: Some(verdict), ..Self::new(stream, turns, pace) }
    }

    fn pass(&mut self, length: usize, body: Length) {
        if body == Length::Chunked {
            // Where the chunks end, only the library knows; what follows them is not for the next one to read.
            self.turns.0.is_last.store(true, Ordering::Relaxed);
        }
        self.write_until = None;
        self.written = 0;
        self.phase = Phase::Passing { left: length, body };
        self.turns.step();
        self.note_mood();
    }

    fn refuse(&mut self, refusal: Refusal) {
        let _ = self.turns.0.refusal.set(self.verdict.unwrap_or(refusal));
        self.turns.0.is_last.store(true, Ordering::Relaxed);
        self.held = STAND_IN.to_vec();
        self.pass(STAND_IN.len(), Length::Exactly(0));
    }

    /// Notes a step of a write, and whether it came too late.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        step: Poll<io::Result<T>>,
        length: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        let was_blocked = std::mem::replace(&mut self.is_write_blocked, step.is_pending());
        if was_blocked != self.is_write_blocked {
            self.note_mood();
        }
        if let Poll::Ready(result) = step {
            let length = result.as_ref().map_or(0, length);
            if length > 0 {
                self.turns.step();
            }
            self.written += length;
            if self.written >= WRITE_STEP {
                self.written = 0;
                self.write_until = None;
            }
            return Poll::Ready(result);
        }
        let until = *self.write_until.get_or_insert_with(|| Instant::now() + self.pace.write);
        ready!(poll_until(&mut self.write_timer, until, cx));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }

    fn note_mood(&self) {
        let is_stalled = self.is_write_blocked
            || self.linger_until.is_some()
            || (self.is_body_awaited && !self.turns.is_body_over());
        self.turns.set_mood(match self.phase {
            _ if is_stalled => Mood::Stalled,
            Phase::Head if self.held.is_empty() => Mood::Idle,
            Phase::Head => Mood::Arriving,
            Phase::Passing { .. } | Phase::Passed { .. } | Phase::Body(_) => Mood::Busy,
        });
    }

    fn is_refused(&self) -> bool {
        self.turns.0.refusal.get().is_some()
    }

    /// Whether somebody may still be sending what nobody will read.
    fn has_left_some_unread(&self) -> bool {
        match self.phase {
            Phase::Passed { body, .. } | Phase::Body(body) if body != Length::Exactly(0) => true,
            Phase::Passed { .. } | Phase::Body(_) | Phase::Head | Phase::Passing { .. } => {
                self.is_refused()
            }
        }
    }
}

fn poll_until(timer: &mut Pin<Box<Sleep>>, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
    if timer.deadline() != until {
        timer.as_mut().reset(until);
    }
    timer.as_mut().poll(cx)
}

impl<S: AsyncRead + Unpin> Gate<S> {
    /// Waits for a head and lets it, or what stands for it, be passed on; `false` at the end of the stream.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if self.is_unseen {
                self.is_unseen = false;
                match (head::examine(&self.held), self.verdict) {
                    (Head::Partial, _) => {}
                    (Head::Whole { length, body }, None) => {
                        self.pass(length, body);
                        return Poll::Ready(Ok(true));
                    }
                    (Head::Whole { .. }, Some(refusal)) | (Head::Bad(refusal), _) => {
                        self.refuse(refusal);
                        return Poll::Ready(Ok(true));
                    }
                }
            }
            self.note_mood();
            match self.poll_more(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    ready!(poll_until(&mut self.read_timer, self.read_until, cx));
                    if self.is_write_blocked {
                        // It has not read our last answer: that has a limit of its own.
                        self.read_until = Instant::now() + self.pace.idle;
                    } else if self.held.is_empty() {
                        return Poll::Ready(Err(ErrorKind::TimedOut.into()));
                    } else {
                        self.refuse(Refusal::TooSlow);
                        return Poll::Ready(Ok(true));
                    }
                }
            }
        }
    }

    /// Reads a piece into what is held.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [0; PIECE];
        let mut piece = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
        let piece = piece.filled();
        if self.held.is_empty() && self.turns.count() > 0 {
            self.read_until = Instant::now() + self.pace.head;
        }
        // A head is judged at once when it is nonsense, and else when one of its lines has ended.
        let is_first = self.held.is_empty();
        self.held.extend_from_slice(piece);
        self.is_unseen |= is_first || piece.contains(&b'\n') || self.held.len() >= head::LENGTH_MAX;
        Poll::Ready(Ok(piece.len()))
    }

    /// While a request is answered, only the end of the stream is passed on: its client has left.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.turns.0.reader.register(cx.waker());
        if !self.held.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.poll_more(cx)) {
            Ok(0) => Poll::Ready(Ok(())),
            Ok(_) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Passes on at most `left` bytes of the body.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        left: u64,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let max = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.remaining());
        if !self.held.is_empty() {
            let length = max.min(self.held.len());
            buffer.put_slice(&self.held[..length]);
            self.held.drain(..length);
            return Poll::Ready(Ok(length));
        }
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(max));
        let step = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        let length = part.filled().len();
        self.is_body_awaited = step.is_pending();
        self.note_mood();
        ready!(step)?;
        self.turns.step();
        buffer.advance(length);
        Poll::Ready(Ok(length))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match this.phase {
                Phase::Head => {
                    if !ready!(this.poll_head(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Phase::Passing { left, body } => {
                    let length = left.min(buffer.remaining());
                    buffer.put_slice(&this.held[..length]);
                    this.held.drain(..length);
                    this.phase = if length < left {
                        Phase::Passing { left: left - length, body }
                    } else {
                        Phase::Passed { count: this.turns.count(), body }
                    };
                    return Poll::Ready(Ok(()));
                }
                Phase::Passed { count, .. } if count == this.turns.count() => {
                    // The library sees no whole head where we do: one of us is wrong.
                    return Poll::Ready(Err(ErrorKind::InvalidData.into()));
                }
                // Not even the end of the stream: whoever has said all may still listen.
                Phase::Passed { .. } if this.is_refused() => return Poll::Pending,
                Phase::Passed { body, .. } => this.phase = Phase::Body(body),
                Phase::Body(Length::Exactly(0)) if this.turns.is_answering() => {
                    return this.poll_end(cx);
                }
                Phase::Body(Length::Exactly(0)) => {
                    let wait = if this.held.is_empty() { this.pace.idle } else { this.pace.head };
                    this.read_until = Instant::now() + wait;
                    this.is_unseen = true;
                    this.phase = Phase::Head;
                }
                Phase::Body(Length::Exactly(left)) => {
                    let length = ready!(this.poll_body(cx, left, buffer))?;
                    this.phase = Phase::Body(Length::Exactly(left - length as u64));
                    return Poll::Ready(Ok(()));
                }
                Phase::Body(Length::Chunked) => {
                    return this.poll_body(cx, u64::MAX, buffer).map_ok(|_| ());
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let step = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, step, |length| *length)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let step = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, step, |length| *length)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let step = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, step, |()| 0)
    }

    /// Says that nothing more will come, and then listens a while to what was still being sent.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger_until.is_none() {
            let step = Pin::new(&mut this.stream).poll_shutdown(cx);
            ready!(this.watch(cx, step, |()| 0))?;
        }
        if !this.has_left_some_unread() {
            return Poll::Ready(Ok(()));
        }
        if this.linger_until.is_none() {
            this.turns.step();
        }
        let until = *this.linger_until.get_or_insert_with(|| Instant::now() + LINGER_MAX);
        this.note_mood();
        loop {
            if poll_until(&mut this.read_timer, until, cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; PIECE];
            let mut piece = ReadBuf::new(&mut bytes);
            match Pin::new(&mut this.stream).poll_read(cx, &mut piece) {
                // What follows the last chunk, if anything, was sent along with it.
                Poll::Pending if this.turns.is_body_over() => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !piece.filled().is_empty() => {}
                Poll::Ready(Ok(()) | Err(_)) => return Poll::Ready(Ok(())),
            }
        }
    }
}
