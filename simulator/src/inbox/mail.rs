//! What a mail says, read from its bytes.

use std::time::SystemTime;

use mail_parser::{Message, MessageParser, PartType};
use serde::Serialize;
use time::OffsetDateTime;

/// One accepted mail; a text that the mail lacks is empty.
#[derive(Debug, Clone, Serialize)]
pub struct Mail {
    /// Counts accepted mails from 1; no number comes twice, not even after a clear.
    pub number: u64,
    /// Without the angle brackets.
    pub message_id: String,
    /// The envelope's sender, which is where bounces go.
    pub from: String,
    /// The envelope's recipients, which is who gets it, whatever the headers say.
    pub to: Vec<String>,
    pub subject: String,
    pub text: String,
    pub html: String,
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    /// The bytes as they were sent, without dot-stuffing.
    #[serde(skip)]
    pub raw: Vec<u8>,
}

/// Who sends a mail to whom, as the client says before the mail itself.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) from: String,
    pub(super) to: Vec<String>,
    /// Whether addresses may hold more than ASCII.
    pub(super) smtputf8: bool,
}

impl Mail {
    /// Reads `raw`, which gets its number on the shelf.
    ///
    /// What cannot be read as a mail is a mail all the same, with an envelope and no words.
    pub(super) fn read(envelope: Envelope, raw: Vec<u8>) -> Self {
        let words = MessageParser::default()
            .parse(&raw)
            .map(|message| Words::of(&message))
            .unwrap_or_default();
        Self {
            number: 0,
            message_id: words.message_id,
            from: envelope.from,
            to: envelope.to,
            subject: words.subject,
            text: words.text,
            html: words.html,
            received_at: OffsetDateTime::from(SystemTime::now()),
            raw,
        }
    }
}

#[derive(Default)]
struct Words {
    message_id: String,
    subject: String,
    text: String,
    html: String,
}

impl Words {
    fn of(message: &Message<'_>) -> Self {
        // The parser offers a converted part where the asked-for kind is missing; a test of the
        // text part must not pass on the HTML part.
        let text = message.text_bodies().find_map(|part| {
            let PartType::Text(text) = &part.body else {
                return None;
            };
            Some(text.to_string())
        });
        let html = message.html_bodies().find_map(|part| {
            let PartType::Html(html) = &part.body else {
                return None;
            };
            Some(html.to_string())
        });
        Self {
            message_id: message.message_id().unwrap_or_default().to_owned(),
            subject: message.subject().unwrap_or_default().to_owned(),
            text: text.unwrap_or_default(),
            html: html.unwrap_or_default(),
        }
    }
}
