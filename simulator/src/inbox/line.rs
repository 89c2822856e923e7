//! Lines on the wire, with a limit on their length.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// One line without its ending.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: Vec<u8>,
    pub(super) flaw: Option<Flaw>,
}

/// Why a line is not one that SMTP allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The text is cut at the limit; the rest of the line is gone.
    TooLong,
    /// Servers disagree on whether that ends a line, which lets one mail hide in another.
    BareLineFeed,
}

/// Reads one line; `None` when the client is gone.
pub(super) async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    length_max: usize,
) -> io::Result<Option<Line>> {
    let mut text = Vec::new();
    let mut length = 0;
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(None);
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(chunk.len(), |end| end + 1);
        // Two more than the limit, for the line's ending.
        let room = (length_max + 2).saturating_sub(text.len());
        text.extend_from_slice(&chunk[..taken.min(room)]);
        length += taken;
        reader.consume(taken);
        if end.is_some() {
            return Ok(Some(finish(text, length, length_max)));
        }
    }
}

fn finish(mut text: Vec<u8>, length: usize, length_max: usize) -> Line {
    if length > length_max + 2 {
        text.truncate(length_max);
        return Line { text, flaw: Some(Flaw::TooLong) };
    }
    text.pop();
    let flaw = match text.pop_if(|byte| *byte == b'\r') {
        Some(_) => None,
        None => Some(Flaw::BareLineFeed),
    };
    Line { text, flaw }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(mut wire: &[u8]) -> Vec<(String, Option<Flaw>)> {
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut wire, 5).await.unwrap() {
            lines.push((String::from_utf8(line.text).unwrap(), line.flaw));
        }
        lines
    }

    #[tokio::test]
    async fn a_line_ends_with_crlf_and_is_at_most_as_long_as_the_limit() {
        let read = lines(b"NOOP\r\n\r\n12345\r\n123456\r\n1234567890\r\nQUIT\nrest").await;

        assert_eq!(
            read,
            [
                ("NOOP".to_owned(), None),
                (String::new(), None),
                ("12345".to_owned(), None),
                ("12345".to_owned(), Some(Flaw::TooLong)),
                ("12345".to_owned(), Some(Flaw::TooLong)),
                ("QUIT".to_owned(), Some(Flaw::BareLineFeed)),
            ]
        );
    }
}
