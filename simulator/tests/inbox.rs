//! The inbox as its clients meet it: lettre as the shop's mailer, bytes by hand, and a browser.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, MultiPart},
    transport::smtp,
};
use serde_json::{Value, json};
use simulator::inbox::{Fault, Inbox};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    time::{sleep, timeout},
};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

type Mailer = AsyncSmtpTransport<Tokio1Executor>;

async fn inbox() -> Inbox {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    Inbox::start(any_port, any_port).await.unwrap()
}

fn mailer(inbox: &Inbox) -> Mailer {
    Mailer::builder_dangerous(inbox.smtp_addr().ip().to_string())
        .port(inbox.smtp_addr().port())
        .build()
}

fn mail(subject: &str) -> Message {
    let text = format!("{subject}\r\n.\r\n..two dots and a dot alone\r\nGrüße");
    let html = format!("<p>{subject} &amp; <script>alert(1)</script></p>");
    Message::builder()
        .from("Holdfast <shop@holdfast.test>".parse().unwrap())
        .to("Ada Lovelace <ada@example.com>".parse().unwrap())
        .message_id(Some(format!("<{subject}@holdfast.test>")))
        .subject(format!("Grüße: {subject}"))
        .multipart(MultiPart::alternative_plain_html(text, html))
        .unwrap()
}

fn subjects(inbox: &Inbox) -> Vec<String> {
    let mails = inbox.mails();
    mails.iter().map(|mail| mail.subject.clone()).collect()
}

mod mailer_to_inbox {
    use super::*;

    #[tokio::test]
    async fn a_mail_arrives_as_it_was_written() {
        let inbox = inbox().await;

        mailer(&inbox).send(mail("one")).await.unwrap();

        let mails = inbox.mails();
        let [mail] = mails.as_slice() else {
            panic!("{mails:?}");
        };
        assert_eq!(mail.number, 1);
        assert_eq!(mail.message_id, "one@holdfast.test");
        assert_eq!(mail.from, "shop@holdfast.test");
        assert_eq!(mail.to, ["ada@example.com"]);
        assert_eq!(mail.subject, "Grüße: one");
        let text = mail.text.replace("\r\n", "\n");
        assert_eq!(text.trim_end(), "one\n.\n..two dots and a dot alone\nGrüße");
        assert!(mail.html.contains("<p>one &amp;"), "{}", mail.html);
        assert!(mail.raw.starts_with(b"From: "));
    }

    #[tokio::test]
    async fn an_address_beyond_ascii_is_taken() {
        let inbox = inbox().await;
        let message = Message::builder()
            .from("shop@holdfast.test".parse().unwrap())
            .to("grüße@example.com".parse::<Mailbox>().unwrap())
            .subject("hello")
            .body("hello".to_owned())
            .unwrap();

        mailer(&inbox).send(message).await.unwrap();

        assert_eq!(inbox.mails()[0].to, ["grüße@example.com"]);
        assert_eq!(inbox.mails()[0].html, "");
    }

    #[tokio::test]
    async fn many_mails_go_through_one_pool_at_once() {
        let inbox = inbox().await;
        let mailer = mailer(&inbox);

        let sendings: Vec<_> = (0..200)
            .map(|i| {
                let mailer = mailer.clone();
                tokio::spawn(async move { mailer.send(mail(&format!("{i:03}"))).await })
            })
            .collect();
        for sending in sendings {
            sending.await.unwrap().unwrap();
        }

        let mut arrived = subjects(&inbox);
        arrived.sort();
        let sent: Vec<_> = (0..200).map(|i| format!("Grüße: {i:03}")).collect();
        assert_eq!(arrived, sent);
    }

    #[tokio::test]
    async fn mails_are_kept_in_the_order_of_acceptance_until_cleared() {
        let inbox = inbox().await;
        let mailer = mailer(&inbox);
        for subject in ["one", "two", "three"] {
            mailer.send(mail(subject)).await.unwrap();
        }

        assert_eq!(subjects(&inbox), ["Grüße: one", "Grüße: two", "Grüße: three"]);
        inbox.clear();
        mailer.send(mail("four")).await.unwrap();

        assert_eq!(subjects(&inbox), ["Grüße: four"]);
        assert_eq!(inbox.mails()[0].number, 4);
    }

    #[tokio::test]
    async fn a_dropped_inbox_frees_its_ports() {
        let inbox = inbox().await;
        let (smtp, http) = (inbox.smtp_addr(), inbox.http_addr());
        let mailer = mailer(&inbox);
        mailer.send(mail("one")).await.unwrap();

        drop(inbox);
        tokio::task::yield_now().await;

        assert!(mailer.send(mail("two")).await.is_err());
        Inbox::start(smtp, http).await.unwrap();
    }
}

mod faults {
    use super::*;

    async fn send(mailer: &Mailer, subject: &str) -> Result<(), smtp::Error> {
        mailer.send(mail(subject)).await.map(drop)
    }

    #[tokio::test]
    async fn a_refused_connection_fails_one_sending() {
        let inbox = inbox().await;
        let mailer = mailer(&inbox);
        send(&mailer, "one").await.unwrap();
        inbox.fail_next(Fault::RefuseConnection, 1);

        // The pool's idle connection breaks first and is replaced: one sending, one strike.
        assert!(send(&mailer, "two").await.is_err());
        send(&mailer, "three").await.unwrap();

        assert_eq!(subjects(&inbox), ["Grüße: one", "Grüße: three"]);
    }

    #[tokio::test]
    async fn a_server_that_is_away_comes_back() {
        let inbox = inbox().await;
        let mailer = mailer(&inbox);
        inbox.set_fault(Some(Fault::RefuseConnection));
        for _ in 0..3 {
            assert!(send(&mailer, "one").await.is_err());
        }

        inbox.set_fault(None);
        send(&mailer, "two").await.unwrap();

        assert_eq!(subjects(&inbox), ["Grüße: two"]);
    }

    #[tokio::test]
    async fn a_temporary_failure_keeps_nothing() {
        let inbox = inbox().await;
        let mailer = mailer(&inbox);
        inbox.fail_next(Fault::TemporaryFailure, 2);

        for _ in 0..2 {
            assert!(send(&mailer, "one").await.unwrap_err().is_transient());
        }
        send(&mailer, "one").await.unwrap();

        assert_eq!(subjects(&inbox), ["Grüße: one"]);
    }

    #[tokio::test]
    async fn a_permanent_failure_keeps_nothing() {
        let inbox = inbox().await;
        let mailer = mailer(&inbox);
        inbox.fail_next(Fault::PermanentFailure, 1);

        assert!(send(&mailer, "one").await.unwrap_err().is_permanent());
        send(&mailer, "two").await.unwrap();

        assert_eq!(subjects(&inbox), ["Grüße: two"]);
    }

    #[tokio::test]
    async fn a_mail_whose_answer_never_comes_is_kept() {
        let inbox = inbox().await;
        let mailer = mailer(&inbox);
        inbox.fail_next(Fault::HangAfterData, 1);

        let mut sending = pin!(send(&mailer, "one"));
        let kept = async {
            while inbox.mails().is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            answer = &mut sending => panic!("{answer:?}"),
            kept = timeout(PATIENCE, kept) => kept.unwrap(),
        }

        // lettre's own timeout ends with the connection's set-up.
        assert!(timeout(Duration::from_millis(100), sending).await.is_err());
        assert_eq!(subjects(&inbox), ["Grüße: one"]);
    }

    #[tokio::test]
    async fn a_mail_whose_connection_is_cut_is_kept() {
        let inbox = inbox().await;
        let mailer = mailer(&inbox);
        inbox.fail_next(Fault::DropAfterData, 1);

        assert!(send(&mailer, "one").await.is_err());
        send(&mailer, "one").await.unwrap();

        assert_eq!(subjects(&inbox), ["Grüße: one", "Grüße: one"]);
    }

    #[tokio::test]
    async fn a_slow_server_is_slow_and_well() {
        let inbox = inbox().await;
        inbox.fail_next(Fault::Slow(Duration::from_millis(200)), 1);
        let started_at = std::time::Instant::now();

        send(&mailer(&inbox), "one").await.unwrap();

        assert!(started_at.elapsed() >= Duration::from_millis(200));
        assert_eq!(subjects(&inbox), ["Grüße: one"]);
    }
}

mod by_hand {
    use super::*;

    struct Client(BufStream<TcpStream>);

    impl Client {
        async fn greeted(inbox: &Inbox) -> Self {
            let mut client =
                Self(BufStream::new(TcpStream::connect(inbox.smtp_addr()).await.unwrap()));
            assert_eq!(client.answer().await, "220");
            assert_eq!(client.say("EHLO me\r\n").await, "250");
            client
        }

        /// The code of the next answer, whose lines are read to the last.
        async fn answer(&mut self) -> String {
            loop {
                let mut line = String::new();
                let reading = self.0.read_line(&mut line);
                assert!(timeout(PATIENCE, reading).await.unwrap().unwrap() > 0, "closed");
                if line.as_bytes()[3] == b' ' {
                    return line[..3].to_owned();
                }
            }
        }

        async fn say(&mut self, bytes: &str) -> String {
            self.0.write_all(bytes.as_bytes()).await.unwrap();
            self.0.flush().await.unwrap();
            self.answer().await
        }
    }

    async fn session(steps: &[(&str, &str)]) -> Inbox {
        let inbox = inbox().await;
        let mut client = Client::greeted(&inbox).await;
        for (said, expected) in steps {
            let shown = &said[..said.len().min(60)];
            assert_eq!(client.say(said).await, *expected, "{shown}");
        }
        inbox
    }

    const FROM: &str = "MAIL FROM:<a@example.com>\r\n";
    const TO: &str = "RCPT TO:<b@example.com>\r\n";

    #[tokio::test]
    async fn commands_come_in_order() {
        session(&[
            (TO, "503"),
            ("DATA\r\n", "503"),
            (FROM, "250"),
            (FROM, "503"),
            ("DATA\r\n", "503"),
            (TO, "250"),
            ("RSET\r\n", "250"),
            (TO, "503"),
            ("noop\r\n", "250"),
            ("VRFY b\r\n", "252"),
            ("BDAT 3\r\n", "500"),
            ("QUIT\r\n", "221"),
        ])
        .await;
    }

    #[tokio::test]
    async fn a_greeting_comes_before_a_mail() {
        let inbox = inbox().await;
        let mut client =
            Client(BufStream::new(TcpStream::connect(inbox.smtp_addr()).await.unwrap()));
        assert_eq!(client.answer().await, "220");

        assert_eq!(client.say(FROM).await, "503");
        assert_eq!(client.say("HELO me\r\n").await, "250");
        assert_eq!(client.say(FROM).await, "250");
    }

    #[tokio::test]
    async fn addresses_and_parameters_are_checked() {
        let long = format!("RCPT TO:<{}@example.com>\r\n", "b".repeat(1_000));
        session(&[
            ("MAIL a@example.com\r\n", "501"),
            ("MAIL FROM:<a@example.com> SIZE=10485761\r\n", "552"),
            ("MAIL FROM:<a@example.com> RET=FULL\r\n", "555"),
            ("MAIL FROM:<ä@example.com>\r\n", "553"),
            ("MAIL FROM:<> BODY=8BITMIME SIZE=100\r\n", "250"),
            ("RCPT TO:<>\r\n", "501"),
            ("RCPT TO:<ä@example.com>\r\n", "553"),
            (&long, "500"),
            (TO, "250"),
        ])
        .await;
    }

    #[tokio::test]
    async fn pipelined_commands_are_answered_one_by_one() {
        let inbox = inbox().await;
        let mut client = Client::greeted(&inbox).await;

        let all = format!("{FROM}{TO}RCPT TO:<c@example.com>\r\nDATA\r\n");
        assert_eq!(client.say(&all).await, "250");
        for expected in ["250", "250", "354"] {
            assert_eq!(client.answer().await, expected);
        }
        let rest = format!("Subject: one\r\n\r\n..stuffed\r\n.\r\n{FROM}");
        assert_eq!(client.say(&rest).await, "250");
        assert_eq!(client.answer().await, "250");

        assert_eq!(inbox.mails()[0].raw, b"Subject: one\r\n\r\n.stuffed\r\n");
        assert_eq!(inbox.mails()[0].to, ["b@example.com", "c@example.com"]);
    }

    #[tokio::test]
    async fn what_strict_servers_refuse_is_refused_and_leaves_the_session_usable() {
        let long_line = format!("{}\r\n.\r\n", "x".repeat(999));
        let large = format!("{}.\r\n", "0123456789\r\n".repeat(900_000));
        let inbox = session(&[
            (FROM, "250"),
            (TO, "250"),
            ("DATA\r\n", "354"),
            (&long_line, "554"),
            (FROM, "250"),
            (TO, "250"),
            ("DATA\r\n", "354"),
            ("Subject: smuggled\n.\nMAIL FROM:<x@example.com>\r\n.\r\n", "554"),
            (FROM, "250"),
            (TO, "250"),
            ("DATA\r\n", "354"),
            (&large, "552"),
            (FROM, "250"),
            (TO, "250"),
            ("DATA\r\n", "354"),
            ("Subject: fine\r\n\r\n.\r\n", "250"),
        ])
        .await;

        assert_eq!(subjects(&inbox), ["fine"]);
    }

    #[tokio::test]
    async fn a_client_that_leaves_in_mid_mail_has_sent_nothing() {
        let inbox = inbox().await;
        let mut client = Client::greeted(&inbox).await;
        for (said, expected) in [(FROM, "250"), (TO, "250"), ("DATA\r\n", "354")] {
            assert_eq!(client.say(said).await, expected);
        }
        client.0.write_all(b"Subject: half\r\n").await.unwrap();
        client.0.shutdown().await.unwrap();

        let mut rest = Vec::new();
        client.0.read_to_end(&mut rest).await.unwrap();

        assert!(rest.is_empty());
        assert!(inbox.mails().is_empty());
    }

    #[tokio::test]
    async fn bytes_that_are_no_mail_are_kept_all_the_same() {
        let inbox = session(&[
            (FROM, "250"),
            (TO, "250"),
            ("DATA\r\n", "354"),
            (".\r\n", "250"),
            (FROM, "250"),
            (TO, "250"),
            ("DATA\r\n", "354"),
            ("\u{0}\u{1}Content-Type: multipart/mixed\r\n.\r\n", "250"),
        ])
        .await;

        let recipients: Vec<_> = inbox.mails().iter().map(|mail| mail.to.clone()).collect();
        assert_eq!(recipients, [["b@example.com"], ["b@example.com"]]);
    }
}

mod over_http {
    use super::*;

    fn url(inbox: &Inbox, path: &str) -> String {
        format!("http://{}{path}", inbox.http_addr())
    }

    fn client() -> reqwest::Client {
        simulator::http_client().build().unwrap()
    }

    async fn page(inbox: &Inbox, path: &str) -> reqwest::Response {
        client().get(url(inbox, path)).send().await.unwrap()
    }

    async fn inbox_with(subjects: &[&str]) -> Arc<Inbox> {
        let inbox = inbox().await;
        let mailer = mailer(&inbox);
        for subject in subjects {
            mailer.send(mail(subject)).await.unwrap();
        }
        Arc::new(inbox)
    }

    #[tokio::test]
    async fn the_list_shows_the_newest_mail_first() {
        let inbox = inbox_with(&["one", "two"]).await;

        let list = page(&inbox, "/").await.text().await.unwrap();

        let one = list.find("Grüße: one").unwrap();
        let two = list.find("Grüße: two").unwrap();
        assert!(two < one);
        assert!(list.contains("ada@example.com"));
        assert!(list.contains("2 mails"));
    }

    #[tokio::test]
    async fn a_mail_cannot_put_markup_into_the_pages() {
        let inbox = inbox_with(&["<b>bold</b>"]).await;

        for path in ["/", "/mails/1"] {
            let shown = page(&inbox, path).await.text().await.unwrap();
            assert!(!shown.contains("<b>bold"), "{path}");
            assert!(shown.contains("&lt;b&gt;bold"), "{path}");
        }
        let html = page(&inbox, "/mails/1/html").await;
        let policy = html.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("sandbox allow-popups; default-src 'none'"));
        assert!(html.text().await.unwrap().contains("<b>bold</b>"));
    }

    #[tokio::test]
    async fn an_unknown_mail_is_not_found() {
        let inbox = inbox_with(&[]).await;

        for path in ["/mails/1", "/mails/1/html", "/mails/1/raw", "/nothing"] {
            assert_eq!(page(&inbox, path).await.status(), 404, "{path}");
        }
        assert!(page(&inbox, "/").await.text().await.unwrap().contains("No mail yet"));
    }

    #[tokio::test]
    async fn other_processes_read_and_forget_mails() {
        let inbox = inbox_with(&["one", "two"]).await;

        let body = page(&inbox, "/api/mails").await.bytes().await.unwrap();
        let mails: Value = serde_json::from_slice(&body).unwrap();
        let deleted = client().delete(url(&inbox, "/api/mails"));
        let deleted = deleted.send().await.unwrap();

        assert_eq!(mails[0]["subject"], "Grüße: one");
        assert_eq!(mails[1]["message_id"], "two@holdfast.test");
        assert_eq!(mails[1]["to"], json!(["ada@example.com"]));
        assert_eq!(deleted.status(), 204);
        assert!(inbox.mails().is_empty());
    }

    #[tokio::test]
    async fn other_processes_ask_for_faults() {
        let inbox = inbox_with(&[]).await;
        let mailer = mailer(&inbox);
        let order = async |body: Value| {
            let request = client().put(url(&inbox, "/api/fault"));
            request.json(&body).send().await.unwrap().status().as_u16()
        };

        assert_eq!(order(json!({"fault": "temporary-failure", "times": 1})).await, 204);
        assert!(mailer.send(mail("one")).await.is_err());
        mailer.send(mail("two")).await.unwrap();
        assert_eq!(order(json!({"fault": "permanent-failure"})).await, 204);
        assert!(mailer.send(mail("three")).await.is_err());
        assert_eq!(order(json!({"fault": {"slow-ms": 10}})).await, 204);
        mailer.send(mail("four")).await.unwrap();
        assert_eq!(order(json!({"fault": null})).await, 204);
        assert_eq!(order(json!({"fault": "earthquake"})).await, 400);
        assert_eq!(order(json!({"fault": null, "times": 2})).await, 422);

        assert_eq!(subjects(&inbox), ["Grüße: two", "Grüße: four"]);
    }
}
