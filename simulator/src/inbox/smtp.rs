//! The server's side of SMTP (RFC 5321) with PIPELINING, 8BITMIME, SMTPUTF8 and SIZE.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    fault::{Fault, Point},
    line::{Flaw, Line, read_line},
    mail::{Envelope, Mail},
    shelf::Shelf,
};

/// As large as a mail with pictures gets.
const MAIL_BYTES_MAX: usize = 10 * 1024 * 1024;

/// RFC 5321, 4.5.3.1.6: 1,000 octets with the ending; enough for every command as well.
const LINE_BYTES_MAX: usize = 998;

/// RFC 5321, 4.5.3.1.8: the least that a server must take.
const RECIPIENTS_MAX: usize = 100;

/// RFC 5321, 4.5.3.2.7: a server waits at least that long for the next command.
const IDLE_MAX: Duration = Duration::from_mins(5);

/// Far more than the workers of one machine open; a loop gone wild meets an end.
const SESSIONS_MAX: usize = 1_000;

/// Accepts mail until it is dropped, and ends its sessions with it.
pub(super) async fn serve(listener: TcpListener, shelf: Arc<Shelf>) {
    let mut sessions = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Most likely no file descriptor is left, and the next call fails at once, too.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        while sessions.try_join_next().is_some() {}
        if sessions.len() >= SESSIONS_MAX || shelf.faults().take(Point::Connection).is_some() {
            reset(&stream);
            continue;
        }
        let session = Session {
            stream: BufStream::new(stream),
            shelf: Arc::clone(&shelf),
            greeted: false,
            envelope: None,
        };
        // What goes wrong in a session is the client's loss, and the client notices.
        sessions.spawn(async move { drop(session.run().await) });
    }
}

/// Has the connection closed with a reset, which no client takes for an answer.
fn reset(stream: &TcpStream) {
    // Without it the client sees a plain close, which is as good as a failure.
    drop(stream.set_zero_linger());
}

/// Spares clients that leave Nagle's algorithm on a delayed acknowledgement for every mail: they
/// send the closing dot only after the mail is acknowledged, which takes 40 ms otherwise.
fn acknowledge_at_once(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    drop(stream.set_quickack(true));
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
}

struct Session {
    stream: BufStream<TcpStream>,
    shelf: Arc<Shelf>,
    greeted: bool,
    envelope: Option<Envelope>,
}

/// Whether the session goes on.
enum Next {
    Command,
    Close,
}

/// What a mail's lines were.
enum Data {
    Mail(Vec<u8>),
    Refused(&'static str),
    ClientGone,
}

impl Session {
    async fn run(mut self) -> io::Result<()> {
        self.stream.get_ref().set_nodelay(true)?;
        self.reply("220 simulator ESMTP").await?;
        loop {
            let Ok(line) = timeout(IDLE_MAX, read_line(&mut self.stream, LINE_BYTES_MAX)).await
            else {
                self.reply("421 4.4.2 idle for too long").await?;
                return Ok(());
            };
            let Some(line) = line? else {
                return Ok(());
            };
            if self.shelf.faults().due(Point::Connection).is_some() {
                reset(self.stream.get_ref());
                return Ok(());
            }
            if let Next::Close = self.obey(line).await? {
                return Ok(());
            }
        }
    }

    async fn obey(&mut self, line: Line) -> io::Result<Next> {
        if line.flaw == Some(Flaw::TooLong) {
            return self.reply("500 5.5.2 line too long").await;
        }
        let Ok(command) = String::from_utf8(line.text) else {
            return self.reply("500 5.5.2 not UTF-8").await;
        };
        let (verb, rest) = command.split_once(' ').unwrap_or((&command, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => self.greet(EXTENSIONS).await,
            "HELO" => self.greet("250 simulator").await,
            "MAIL" => self.mail_from(rest).await,
            "RCPT" => self.rcpt_to(rest).await,
            "DATA" => self.data().await,
            "RSET" => {
                self.envelope = None;
                self.reply("250 2.0.0 forgotten").await
            }
            "NOOP" => self.reply("250 2.0.0 still here").await,
            "VRFY" => self.reply("252 2.5.2 send it and see").await,
            "QUIT" => {
                self.reply("221 2.0.0 bye").await?;
                Ok(Next::Close)
            }
            _ => self.reply("500 5.5.1 unknown command").await,
        }
    }

    async fn greet(&mut self, answer: &str) -> io::Result<Next> {
        self.greeted = true;
        self.envelope = None;
        self.reply(answer).await
    }

    async fn mail_from(&mut self, rest: &str) -> io::Result<Next> {
        if !self.greeted {
            return self.reply("503 5.5.1 say EHLO first").await;
        }
        if self.envelope.is_some() {
            return self.reply("503 5.5.1 one mail at a time").await;
        }
        let Some(path) = Path::parse(rest, "FROM:") else {
            return self.reply("501 5.5.4 syntax: MAIL FROM:<address>").await;
        };
        let mut smtputf8 = false;
        for parameter in path.parameters.split_ascii_whitespace() {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name.to_ascii_uppercase().as_str() {
                "BODY" => {}
                "SMTPUTF8" => smtputf8 = true,
                "SIZE" if value.parse().is_ok_and(|size: usize| size <= MAIL_BYTES_MAX) => {}
                "SIZE" => return self.reply(TOO_LARGE).await,
                _ => return self.reply("555 5.5.4 unknown parameter").await,
            }
        }
        if !smtputf8 && !path.address.is_ascii() {
            return self.reply(NOT_ASCII).await;
        }
        self.envelope = Some(Envelope { from: path.address.to_owned(), to: Vec::new(), smtputf8 });
        self.reply("250 2.1.0 sender ok").await
    }

    async fn rcpt_to(&mut self, rest: &str) -> io::Result<Next> {
        let Some(envelope) = &mut self.envelope else {
            return self.reply("503 5.5.1 say MAIL first").await;
        };
        let Some(path) = Path::parse(rest, "TO:").filter(|path| !path.address.is_empty()) else {
            return self.reply("501 5.5.4 syntax: RCPT TO:<address>").await;
        };
        if !path.parameters.trim().is_empty() {
            return self.reply("555 5.5.4 unknown parameter").await;
        }
        if !envelope.smtputf8 && !path.address.is_ascii() {
            return self.reply(NOT_ASCII).await;
        }
        if envelope.to.len() >= RECIPIENTS_MAX {
            return self.reply("452 4.5.3 too many recipients").await;
        }
        if self.shelf.faults().take(Point::Recipient).is_some() {
            return self.reply("550 5.1.1 no such mailbox (simulated)").await;
        }
        envelope.to.push(path.address.to_owned());
        self.reply("250 2.1.5 recipient ok").await
    }

    async fn data(&mut self) -> io::Result<Next> {
        let Some(envelope) = self.envelope.take_if(|envelope| !envelope.to.is_empty()) else {
            return self.reply("503 5.5.1 say MAIL and RCPT first").await;
        };
        self.reply("354 end with a dot on a line of its own").await?;
        acknowledge_at_once(self.stream.get_ref());
        let raw = match timeout(IDLE_MAX, self.read_data()).await {
            Err(_) | Ok(Ok(Data::ClientGone)) => return Ok(Next::Close),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(Data::Refused(answer))) => return self.reply(answer).await,
            Ok(Ok(Data::Mail(raw))) => raw,
        };
        self.accept(Mail::read(envelope, raw)).await
    }

    /// Reads lines up to the lone dot; a refused mail is read to its end, too, because its
    /// lines would be taken for commands otherwise.
    async fn read_data(&mut self) -> io::Result<Data> {
        let mut mail = Vec::new();
        let mut refusal = None;
        loop {
            let Some(line) = read_line(&mut self.stream, LINE_BYTES_MAX).await? else {
                return Ok(Data::ClientGone);
            };
            refusal = refusal.or(match line.flaw {
                Some(Flaw::TooLong) => Some("554 5.6.0 a line is longer than 998 octets"),
                Some(Flaw::BareLineFeed) => Some("554 5.6.0 a line ends without CR"),
                None => None,
            });
            if line.flaw.is_none() && line.text == b"." {
                return Ok(refusal.map_or(Data::Mail(mail), Data::Refused));
            }
            let text = line.text.strip_prefix(b".").unwrap_or(&line.text);
            if mail.len() + text.len() + 2 > MAIL_BYTES_MAX {
                refusal = refusal.or(Some(TOO_LARGE));
            }
            if refusal.is_none() {
                mail.extend_from_slice(text);
                mail.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Keeps the mail and acknowledges it, unless a fault is due.
    async fn accept(&mut self, mail: Mail) -> io::Result<Next> {
        let fault = self.shelf.faults().take(Point::EndOfData);
        match fault {
            Some(Fault::TemporaryFailure) => {
                return self.reply("451 4.3.0 try again later (simulated)").await;
            }
            Some(Fault::HangAfterData) => {
                self.shelf.keep(mail);
                self.listen_in_silence().await?;
                return Ok(Next::Close);
            }
            Some(Fault::DropAfterData) => {
                self.shelf.keep(mail);
                reset(self.stream.get_ref());
                return Ok(Next::Close);
            }
            Some(Fault::Slow(pause)) => sleep(pause).await,
            Some(Fault::RefuseConnection | Fault::PermanentFailure) | None => {}
        }
        self.shelf.keep(mail);
        self.reply("250 2.0.0 kept").await
    }

    /// Reads and answers nothing until the client goes.
    async fn listen_in_silence(&mut self) -> io::Result<()> {
        let mut ignored = [0; 1024];
        while self.stream.read(&mut ignored).await? > 0 {}
        Ok(())
    }

    async fn reply(&mut self, answer: &str) -> io::Result<Next> {
        self.stream.write_all(answer.as_bytes()).await?;
        self.stream.write_all(b"\r\n").await?;
        self.stream.flush().await?;
        Ok(Next::Command)
    }
}

const EXTENSIONS: &str = "250-simulator\r\n\
    250-PIPELINING\r\n\
    250-8BITMIME\r\n\
    250-SMTPUTF8\r\n\
    250-ENHANCEDSTATUSCODES\r\n\
    250 SIZE 10485760";
const TOO_LARGE: &str = "552 5.3.4 mail too large";
const NOT_ASCII: &str = "553 5.6.7 the address needs SMTPUTF8";

/// What follows MAIL and RCPT.
#[derive(Debug, PartialEq, Eq)]
struct Path<'a> {
    address: &'a str,
    parameters: &'a str,
}

impl<'a> Path<'a> {
    fn parse(rest: &'a str, keyword: &str) -> Option<Self> {
        let (found, rest) = rest.split_at_checked(keyword.len())?;
        let rest = rest.trim_start().strip_prefix('<')?;
        let (address, parameters) = rest.split_once('>')?;
        (found.eq_ignore_ascii_case(keyword) && !address.contains(' '))
            .then_some(Self { address, parameters })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_in_the_greeting_is_the_limit() {
        assert!(EXTENSIONS.ends_with(&format!("SIZE {MAIL_BYTES_MAX}")));
    }

    #[test]
    fn a_path_is_an_address_in_angle_brackets() {
        let path = |address, parameters| Some(Path { address, parameters });
        let table = [
            ("FROM:<a@b.c>", path("a@b.c", "")),
            ("from: <a@b.c> SIZE=3", path("a@b.c", " SIZE=3")),
            ("FROM:<>", path("", "")),
            ("FROM:a@b.c", None),
            ("FROM:<a b>", None),
            ("TO:<a@b.c>", None),
            ("FROM", None),
            ("FRÖM:<a@b.c>", None),
        ];

        for (rest, expected) in table {
            assert_eq!(Path::parse(rest, "FROM:"), expected, "{rest}");
        }
    }
}
