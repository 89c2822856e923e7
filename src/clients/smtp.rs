//! The mail server.

use std::{error::Error as _, time::Duration};

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, MultiPart},
    transport::smtp::{self, PoolConfig},
};
use tokio::time::timeout;

/// Long enough for a slow server's greylisting pause, shorter than a job's time limit.
const TIMEOUT: Duration = Duration::from_secs(10);

/// No connection is kept for the next mail. The transport keeps even one on which a sending was cut
/// short, and the server's late yes to that mail would be taken for its answer to the next.
const CONNECTIONS_KEPT: u32 = 0;

/// Sends the shop's mails.
#[derive(Debug, Clone)]
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// A mail to be sent.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Without angle brackets. The same for every attempt to have the same effect (RFC 5322, 3.6.4).
    pub message_id: String,
    pub to: String,
    pub subject: String,
    pub text: String,
    pub html: String,
}

#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("the mail server's URL or the sender's address is wrong: {0}")]
    BadSettings(String),
    /// The mail can never be sent as it is. Says which code the server gave, and none of its words, which
    /// may repeat the address.
    #[error("the mail was refused: {0}")]
    Refused(String),
    /// Nobody knows whether the server took it: the same Message-ID tells a repeat from a new mail.
    #[error("the mail server did not accept the mail: {0}")]
    NotAccepted(String),
}

impl Mailer {
    /// Connects at the first mail, not here. `url` is `smtp://host:port` or `smtps://user:password@host`.
    pub fn new(url: &str, from: &str) -> Result<Self, MailError> {
        let bad = |error: &dyn std::error::Error| MailError::BadSettings(error.to_string());
        let from = from.parse().map_err(|error| bad(&error))?;
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
            .map_err(|error| bad(&error))?
            .timeout(Some(TIMEOUT))
            .pool_config(PoolConfig::new().max_size(CONNECTIONS_KEPT))
            .build();
        Ok(Self { transport, from })
    }

    /// A Message-ID in the sender's domain (RFC 5322, 3.6.4); equal for equal `local` parts.
    pub fn message_id(&self, local: &str) -> String {
        format!("{local}@{}", self.from.email.domain())
    }

    /// Hands the mail to the server. `Ok` says that the server has taken it over.
    pub async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        let refused = |error: &dyn std::error::Error| MailError::Refused(error.to_string());
        let to: Mailbox = mail.to.parse().map_err(|error| refused(&error))?;
        let message = Message::builder()
            .message_id(Some(format!("<{}>", mail.message_id)))
            .from(self.from.clone())
            .to(to)
            .subject(&mail.subject)
            .multipart(MultiPart::alternative_plain_html(mail.text.clone(), mail.html.clone()))
            .map_err(|error| refused(&error))?;
        // The transport's own limit ends when the connection stands; a server may fall silent later.
        match timeout(TIMEOUT, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.is_permanent() => Err(MailError::Refused(reason(&error))),
            Ok(Err(error)) => Err(MailError::NotAccepted(reason(&error))),
            Err(_) => Err(MailError::NotAccepted(format!("no answer within {TIMEOUT:?}"))),
        }
    }
}

/// Why a mail was not taken, in words that name nobody.
fn reason(error: &smtp::Error) -> String {
    let Some(code) = error.status() else {
        // What cannot be read may be quoted.
        if error.is_response() {
            return "an answer that cannot be read".to_owned();
        }
        return error.to_string();
    };
    let words = error.source().map(ToString::to_string).unwrap_or_default();
    match words.split_whitespace().next().filter(|word| is_enhanced_status(word)) {
        Some(status) => format!("{code} {status}"),
        None => code.to_string(),
    }
}

/// Whether the word is a status such as 5.1.1 (RFC 3463, 2).
fn is_enhanced_status(word: &str) -> bool {
    let parts: Vec<_> = word.split('.').collect();
    let is_number = |part: &&str| {
        (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    parts.len() == 3 && matches!(parts[0], "2" | "4" | "5") && parts.iter().all(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_three_numbers_and_no_address() {
        for status in ["5.1.1", "4.7.999", "2.0.0"] {
            assert!(is_enhanced_status(status), "{status}");
        }
        for word in
            ["", "5", "5.1", "5.1.1.1", "3.1.1", "5.1.1000", "5..1", "5.a.1", "a@5.1.1", "<5.1.1"]
        {
            assert!(!is_enhanced_status(word), "{word}");
        }
    }
}
