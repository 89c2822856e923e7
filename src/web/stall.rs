//! A connection that gives up on a peer that stalls.
//!
//! hyper knows one limit for the time between two requests, which may be long, and for the time
//! that a request's head takes, which must be short. Here the second gets a limit of its own, and
//! so does a peer that does not read what we write.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// Counts the beginnings and the ends of a connection's requests: it is odd while one is answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<AtomicUsize>);

impl Turns {
    /// Marks that a request's head is complete; dropping the turn, that it is answered.
    pub(super) fn begin(&self) -> Turn {
        self.0.fetch_add(1, Ordering::Relaxed);
        Turn(self.clone())
    }
}

#[derive(Debug)]
pub(super) struct Turn(Turns);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A stream whose reads fail when a head takes longer than `head_max`, the first one counted from
/// the beginning of the connection, and whose writes fail when nothing moves for `write_max`.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    turns: Turns,
    seen: usize,
    head_max: Duration,
    write_max: Duration,
    head_until: Option<Instant>,
    write_until: Option<Instant>,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Pin<Box<Sleep>>,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, turns: Turns, head_max: Duration, write_max: Duration) -> Self {
        Self {
            stream,
            turns,
            seen: 0,
            head_max,
            write_max,
            head_until: Some(Instant::now() + head_max),
            write_until: None,
            read_timer: Box::pin(sleep(head_max)),
            write_timer: Box::pin(sleep(write_max)),
        }
    }

    /// Notes a step of the write, and whether it came too late.
    fn watch<T>(&mut self, cx: &mut Context<'_>, step: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if step.is_ready() {
            self.write_until = None;
            return step;
        }
        let until = *self.write_until.get_or_insert_with(|| Instant::now() + self.write_max);
        poll_until(&mut self.write_timer, until, cx)
    }
}

fn poll_until<T>(
    timer: &mut Pin<Box<Sleep>>,
    until: Instant,
    cx: &mut Context<'_>,
) -> Poll<io::Result<T>> {
    if timer.deadline() != until {
        timer.as_mut().reset(until);
    }
    timer.as_mut().poll(cx).map(|()| Err(ErrorKind::TimedOut.into()))
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let turns = this.turns.0.load(Ordering::Relaxed);
        if turns != this.seen {
            this.seen = turns;
            this.head_until = None;
        }
        let answering = turns % 2 == 1;
        let filled = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buffer) {
            Poll::Ready(result) => {
                if !answering && buffer.filled().len() > filled {
                    this.head_until.get_or_insert_with(|| Instant::now() + this.head_max);
                }
                Poll::Ready(result)
            }
            Poll::Pending => match this.head_until {
                Some(until) => poll_until(&mut this.read_timer, until, cx),
                None => Poll::Pending,
            },
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let step = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, step)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let step = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, step)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let step = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, step)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let step = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, step)
    }
}
