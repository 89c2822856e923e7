//! A client that speaks in bytes.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Whoever has not been answered or closed by then has been forgotten.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A request that is answered whatever else happens. It needs no database, which tests share.
pub(crate) const PLAIN: &[u8] = b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: shop\r\n\r\n";

#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    unread: Vec<u8>,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), unread: Vec::new() }
    }

    /// A connection that has been answered once and is kept.
    pub(crate) async fn kept(address: SocketAddr) -> Self {
        let mut raw = Self::connect(address).await;
        assert_eq!(raw.ask(PLAIN).await.status, 200);
        raw
    }

    /// Sends all of it; a server that has hung up meanwhile is no reason to stop.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    pub(crate) async fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Answer {
        self.send(bytes).await;
        self.answer().await.expect("an answer comes before the end")
    }

    /// The next answer; `None` if the connection ends before one is whole.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        loop {
            if let Some((answer, length)) = Answer::first_of(&self.unread) {
                self.unread.drain(..length);
                return Some(answer);
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// The next answer without the body that it announces.
    pub(crate) async fn head(&mut self) -> Option<Answer> {
        loop {
            if let Some((answer, length)) = Answer::head_of(&self.unread) {
                self.unread.drain(..length);
                return Some(answer);
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// Every answer until the server closes.
    pub(crate) async fn answers(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        while let Some(answer) = self.answer().await {
            answers.push(answer);
        }
        answers
    }

    /// The server closes without another word.
    pub(crate) async fn assert_closed(&mut self) {
        let answers = self.answers().await;
        assert!(answers.is_empty() && self.unread.is_empty(), "{answers:?} {:?}", self.unread);
    }

    /// Reads something; `false` when there is an end, be it a reset.
    async fn read(&mut self) -> bool {
        let mut bytes = vec![0; 16 * 1024];
        let read = timeout(PATIENCE, self.stream.read(&mut bytes)).await;
        match read.expect("the server answers or closes") {
            Ok(0) | Err(_) => false,
            Ok(length) => {
                self.unread.extend_from_slice(&bytes[..length]);
                true
            }
        }
    }
}

/// Sends the bytes on a connection of their own and returns every answer until the server closes.
pub(crate) async fn exchange(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Vec<Answer> {
    let mut raw = Raw::connect(address).await;
    raw.send(bytes).await;
    raw.answers().await
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    fn head_of(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        assert!(head.starts_with("HTTP/1."), "{head}");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some((Self { status, head, body: String::new() }, end))
    }

    fn first_of(bytes: &[u8]) -> Option<(Self, usize)> {
        let (mut answer, end) = Self::head_of(bytes)?;
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        let body = bytes.get(end..end + length)?;
        answer.body = String::from_utf8(body.to_vec()).unwrap();
        Some((answer, end + length))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// It is a problem in our words, with all that goes with one.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["code"], code, "{self:?}");
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"), "{self:?}");
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"), "{self:?}");
        assert_eq!(self.header("cache-control"), Some("no-store"), "{self:?}");
        if status == 503 {
            assert!(self.header("retry-after").is_some(), "{self:?}");
        }
        self
    }

    #[track_caller]
    pub(crate) fn assert_last(&self) -> &Self {
        assert_eq!(self.header("connection"), Some("close"), "{self:?}");
        self
    }
}

/// There is one answer and it is this problem; whatever followed the request was not read as another one.
#[track_caller]
pub(crate) fn assert_only_problem(answers: &[Answer], status: u16, code: &str) {
    let [answer] = answers else { panic!("{} answers: {answers:?}", answers.len()) };
    answer.assert_problem(status, code).assert_last();
}
