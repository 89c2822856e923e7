//! A client of HTTP/1.1 that costs as little as it can, because it shares the machine with what it
//! measures: one connection, requests written beforehand, and of an answer only what is asked for.

use std::{io, net::SocketAddr, ops::Range};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// More than any answer to a checkout has.
const ANSWER_MAX: usize = 64 * 1024;

/// The length of every idempotency key that a [`Request`] has room for.
pub(crate) const KEY_LENGTH: usize = 32;

/// A request as it goes over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    token: Range<usize>,
    key: Range<usize>,
}

impl Request {
    pub(crate) fn get(path: &str) -> Self {
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
        Self { bytes, token: 0..0, key: 0..0 }
    }

    /// A look by the owner of `token`.
    pub(crate) fn get_as(token: &str, path: &str) -> Self {
        let bytes = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        Self { bytes: bytes.into_bytes(), token: 0..0, key: 0..0 }
    }

    pub(crate) fn post(path: &str, body: Option<&Value>) -> Self {
        let body = body.map(Value::to_string).unwrap_or_default();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\n{kind}Content-Length: {length}\r\n\r\n{body}"
        );
        Self { bytes: request.into_bytes(), token: 0..0, key: 0..0 }
    }

    /// A checkout by the owner of `token`, with room for its idempotency key.
    pub(crate) fn checkout(token: &str, body: &Value) -> Self {
        const BEARER: &str =
            "POST /v1/checkout HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ";
        let body = body.to_string();
        let room = BEARER.len()..BEARER.len() + token.len();
        let mut bytes = format!(
            "{BEARER}{token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nIdempotency-Key: ",
            body.len(),
        )
        .into_bytes();
        let key = bytes.len()..bytes.len() + KEY_LENGTH;
        bytes.extend_from_slice(&[b'-'; KEY_LENGTH]);
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes.extend_from_slice(body.as_bytes());
        Self { bytes, token: room, key }
    }

    /// The bytes to send under this idempotency key, by the owner of a token of the same length.
    pub(crate) fn of(&mut self, token: &str, key: &[u8; KEY_LENGTH]) -> &[u8] {
        self.bytes[self.token.clone()].copy_from_slice(token.as_bytes());
        self.bytes[self.key.clone()].copy_from_slice(key);
        &self.bytes
    }
}

/// What was answered; the body is read whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

/// A connection that is kept from one request to the next.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 4096] })
    }

    /// Sends the request and reads the answer whole.
    pub(crate) async fn ask(&mut self, request: &Request) -> io::Result<Answer<'_>> {
        self.exchange(&request.bytes).await
    }

    /// Sends the bytes of one request and reads the answer whole.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            if filled == self.buffer.len() {
                if filled >= ANSWER_MAX {
                    return Err(io::Error::other("the answer is too long"));
                }
                self.buffer.resize(2 * filled, 0);
            }
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            let Some(head) = Head::read(&self.buffer[..filled])? else { continue };
            if filled >= head.body.end {
                let body = &self.buffer[head.body];
                return Ok(Answer { status: head.status, body });
            }
        }
    }
}

/// The little that is wanted of an answer's head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    body: Range<usize>,
}

impl Head {
    /// Reads the head, or `None` while it is not there whole.
    fn read(bytes: &[u8]) -> io::Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(None);
        };
        let mut lines = bytes[..end].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
        // "HTTP/1.1 201 Created"
        let status = lines.next().and_then(|line| number(line.get(9..12)?)).ok_or_else(strange)?;
        let length = lines
            .find_map(|line| {
                let (name, value) = line.split_at_checked("content-length:".len())?;
                name.eq_ignore_ascii_case(b"content-length:").then(|| number(value.trim_ascii()))?
            })
            .ok_or_else(strange)?;
        let body = end + 4..end + 4 + length;
        let status = u16::try_from(status).map_err(|_| strange())?;
        Ok(Some(Self { status, body }))
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    str::from_utf8(digits).ok()?.parse().ok()
}

fn strange() -> io::Error {
    io::Error::other("the answer has no status or no length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let answer = b"HTTP/1.1 201 Created\r\nLocation: /x\r\nContent-Length: 2\r\n\r\n{}";

        assert_eq!(Head::read(&answer[..40]).unwrap(), None);
        let head = Head::read(answer).unwrap().unwrap();
        assert_eq!(head.status, 201);
        assert_eq!(&answer[head.body], b"{}");
    }

    #[test]
    fn an_answer_without_a_length_is_refused() {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

        assert!(Head::read(answer).is_err());
    }

    #[test]
    fn a_key_takes_the_place_of_the_last() {
        let mut request = Request::checkout("token", &Value::Null);

        request.of("coded", &[b'a'; KEY_LENGTH]);
        let bytes = request.of("taken", &[b'b'; KEY_LENGTH]);

        let text = str::from_utf8(bytes).unwrap();
        assert!(text.contains("Bearer taken\r\n"));
        assert!(text.contains(&format!("Idempotency-Key: {}\r\n\r\nnull", "b".repeat(KEY_LENGTH))));
    }
}
