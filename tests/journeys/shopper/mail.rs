//! What shoppers are told by mail.

use holdfast::payments::{Provider, Standing};
use simulator::inbox::Fault;
use uuid::Uuid;

use crate::support::{KEY, app::TestApp, client::until};

/// What a bank says that has no business with anybody else.
const DECLINE: &str = "insufficient_funds";

fn declined() -> Standing {
    Standing::Open { last_decline: Some(DECLINE.to_owned()) }
}

impl TestApp {
    /// The provider declines an attempt to pay the order; returns the payment.
    async fn decline(&self, order_id: Uuid) -> Uuid {
        let payment = self.attempt(order_id, Provider::Stripe).await;
        self.hear(&payment, declined()).await;
        payment.id.uuid()
    }
}

#[tokio::test]
async fn an_order_is_confirmed_by_one_mail() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let placed = guest.place_order(KEY, &[(mug, 2)]).await;
        guest.place_order(KEY, &[(mug, 2)]).await.assert_status(201);

        app.settle().await;

        let mails = app.inbox.mails();
        assert_eq!(mails.len(), 1);
        let mail = &mails[0];
        let number = placed.at("/number").as_str().unwrap().to_owned();
        assert_eq!(mail.message_id, format!("order-received.{}@shop.example", placed.order_id()));
        assert_eq!(mail.to, ["ada@example.com"]);
        assert_eq!(mail.subject, format!("Your order {number}"));
        for words in ["Ada Lovelace", &number, "Harbour mug", "12.99 USD", "25.98 USD"] {
            assert!(mail.text.contains(words), "no {words} in {}", mail.text);
            assert!(mail.html.contains(words), "no {words} in {}", mail.html);
        }
        assert!(mail.text.contains("2 x Harbour mug"), "{}", mail.text);
        assert!(mail.text.contains(&format!("https://shop.example/orders/{}", placed.order_id())));
        assert_eq!(app.count("deliveries WHERE sent_at IS NOT NULL").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_mail_is_on_its_way_at_once() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        app.start_workers().await;

        app.guest().await.order_for(&[(mug, 1)]).await;
        app.settle().await;

        // A mailer that nobody wakes is woken by the reaper, seconds later.
        assert_eq!(app.scalar::<i32>("SELECT pushes FROM job_ledger").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_job_that_is_done_twice_sends_one_mail() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let id = app.guest().await.order_for(&[(mug, 1)]).await;
        app.settle().await;

        // As after a crash between the note that the mail was sent and the verdict of the job.
        app.execute("UPDATE job_ledger SET state = 'ready', finished_at = NULL").await;
        app.hurry().await;
        app.settle().await;

        assert_eq!(app.mails("order-received", id).len(), 1);
        assert_eq!(app.scalar::<i32>("SELECT attempts FROM job_ledger").await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_refused_wish_is_not_confirmed() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(1).await;
        app.guest().await.place_order(KEY, &[(mug, 2)]).await.assert_status(409);
        app.start_workers().await;

        app.settle().await;

        assert_eq!(app.count("job_ledger").await, 0);
        assert_eq!(app.inbox.mails().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_mail_server_that_fails_for_a_while_delays_the_mail_and_no_more() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        app.inbox.fail_next(Fault::TemporaryFailure, 1);
        let id = app.guest().await.order_for(&[(mug, 2)]).await;
        app.start_workers().await;
        until("the first attempt", async || {
            match app.count("job_ledger WHERE last_error IS NOT NULL AND state = 'ready'").await {
                1 => Ok(()),
                _ => Err("no attempt has failed".to_owned()),
            }
        })
        .await;
        assert_eq!(app.inbox.mails().len(), 0);
        let reason: String = app.scalar("SELECT last_error FROM job_ledger").await;
        assert!(reason.ends_with(": 451 4.3.0"), "{reason}");

        app.hurry().await;
        app.settle().await;

        assert_eq!(app.mails("order-received", id).len(), 1);
        assert_eq!(app.scalar::<i32>("SELECT attempts FROM job_ledger").await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_mail_whose_receipt_was_lost_is_sent_again_under_the_same_id() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        app.inbox.fail_next(Fault::DropAfterData, 1);
        let id = app.guest().await.order_for(&[(mug, 2)]).await;
        app.start_workers().await;
        until("the first mail", async || match app.mails("order-received", id).len() {
            1 => Ok(()),
            _ => Err("none yet".to_owned()),
        })
        .await;
        until("the failed attempt", async || {
            match app.count("job_ledger WHERE last_error IS NOT NULL").await {
                1 => Ok(()),
                _ => Err("it is still under way".to_owned()),
            }
        })
        .await;

        app.hurry().await;
        app.settle().await;

        // Nobody can know whether the first was taken; a mail server that has it knows the second by its id.
        assert_eq!(app.mails("order-received", id).len(), 2);
        assert_eq!(app.inbox.mails().len(), 2);
        assert_eq!(app.count("deliveries").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_recipient_who_is_refused_makes_a_dead_job_and_the_order_stands() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let mug = app.product_with_stock(5).await;
        app.inbox.set_fault(Some(Fault::PermanentFailure));
        let id = app.guest().await.order_for(&[(mug, 2)]).await;

        app.settle().await;

        assert_eq!(app.scalar::<String>("SELECT state FROM job_ledger").await, "dead");
        let reason: String = app.scalar("SELECT last_error FROM job_ledger").await;
        // The server's own words may repeat the address.
        assert!(reason.ends_with(": 550 5.1.1"), "{reason}");
        assert_eq!(app.scalar::<i32>("SELECT attempts FROM job_ledger").await, 1);
        assert_eq!(app.status_of(id).await, "awaiting_payment");
        assert_eq!(app.stock_of(mug).await, (5, 2));
        assert_eq!(app.inbox.mails().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_mail_that_cannot_be_sent_does_not_keep_the_others() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let mug = app.product_with_stock(50).await;
        app.inbox.fail_next(Fault::PermanentFailure, 1);
        let guest = app.guest().await;
        for _ in 0..5 {
            guest.order_for(&[(mug, 1)]).await;
        }

        app.settle().await;

        assert_eq!(app.count("job_ledger WHERE state = 'dead'").await, 1);
        assert_eq!(app.count("job_ledger WHERE state = 'done'").await, 4);
        assert_eq!(app.inbox.mails().len(), 4);
    })
    .await;
}

#[tokio::test]
async fn a_paid_order_is_confirmed_by_one_mail() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let id = app.guest().await.order_for(&[(mug, 2)]).await;
        app.pay(id).await;

        app.settle().await;

        let mails = app.mails("order-confirmed", id);
        assert_eq!(mails.len(), 1);
        let mail = &mails[0];
        let number: String = app.scalar("SELECT number FROM orders").await;
        assert_eq!(mail.subject, format!("Your order {number} is paid"));
        for words in ["Ada Lovelace", &number, "Harbour mug", "12.99 USD", "25.98 USD", "London"] {
            assert!(mail.text.contains(words), "no {words} in {}", mail.text);
            assert!(mail.html.contains(words), "no {words} in {}", mail.html);
        }
        let link = format!("https://shop.example/orders/{id}");
        assert!(mail.text.contains(&link), "{}", mail.text);
    })
    .await;
}

#[tokio::test]
async fn a_shopper_whose_payment_was_declined_is_asked_once_to_try_again() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let id = app.guest().await.order_for(&[(mug, 2)]).await;
        let payment = app.attempt(id, Provider::Stripe).await;

        app.hear(&payment, declined()).await;
        app.hear(&payment, declined()).await;
        app.settle().await;

        let mails = app.mails("payment-failed", payment.id.uuid());
        assert_eq!(mails.len(), 1);
        let mail = &mails[0];
        let number: String = app.scalar("SELECT number FROM orders").await;
        assert!(mail.subject.contains(&number), "{}", mail.subject);
        for words in ["Ada Lovelace", &number, "Harbour mug", "25.98 USD"] {
            assert!(mail.text.contains(words), "no {words} in {}", mail.text);
            assert!(mail.html.contains(words), "no {words} in {}", mail.html);
        }
        assert!(mail.text.contains(&format!("https://shop.example/orders/{id}")), "{}", mail.text);
        for words in [DECLINE, "insufficient"] {
            assert!(!mail.text.contains(words), "{words} in {}", mail.text);
            assert!(!mail.html.contains(words), "{words} in {}", mail.html);
        }
    })
    .await;
}

#[tokio::test]
async fn each_payment_that_was_declined_is_told() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let id = app.guest().await.order_for(&[(mug, 2)]).await;
        let first = app.attempt(id, Provider::Stripe).await;
        app.hear(&first, declined()).await;
        app.hear(&first, Standing::Cancelled).await;

        let second = app.decline(id).await;
        app.settle().await;

        assert_eq!(app.mails("payment-failed", first.id.uuid()).len(), 1);
        assert_eq!(app.mails("payment-failed", second).len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_shopper_who_paid_or_gave_up_meanwhile_is_not_asked_to_try_again() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let (paid, given_up) =
            (guest.order_for(&[(mug, 1)]).await, guest.order_for(&[(mug, 1)]).await);
        for id in [paid, given_up] {
            let payment = app.attempt(id, Provider::Stripe).await;
            app.hear(&payment, declined()).await;
            app.hear(&payment, Standing::Cancelled).await;
        }
        app.pay(paid).await;
        guest.post(&format!("/v1/orders/{given_up}/cancel"), &().into()).await.assert_status(200);

        app.settle().await;

        let done = "job_ledger WHERE kind = 'notifications.send-payment-failed' AND state = 'done'";
        assert_eq!(app.count(done).await, 2);
        assert_eq!(app.count("deliveries WHERE template = 'payment-failed'").await, 0);
        let subjects: Vec<_> = app.inbox.mails().iter().map(|mail| mail.subject.clone()).collect();
        assert!(!subjects.iter().any(|subject| subject.contains("did not go")), "{subjects:?}");
    })
    .await;
}

#[tokio::test]
async fn a_mail_that_failed_and_is_moot_by_its_next_try_leaves_no_half_delivery() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let id = app.guest().await.order_for(&[(mug, 1)]).await;
        app.settle().await;
        app.inbox.fail_next(Fault::TemporaryFailure, 1);
        let payment = app.attempt(id, Provider::Stripe).await;
        app.hear(&payment, declined()).await;
        app.start_workers().await;
        until("the first attempt", async || {
            match app.count("job_ledger WHERE last_error IS NOT NULL AND state = 'ready'").await {
                1 => Ok(()),
                _ => Err("no attempt has failed".to_owned()),
            }
        })
        .await;
        assert_eq!(app.count("deliveries WHERE sent_at IS NULL").await, 1);
        app.hear(&payment, Standing::Cancelled).await;
        app.pay(id).await;

        app.hurry().await;
        app.settle().await;

        assert_eq!(app.count("deliveries WHERE template = 'payment-failed'").await, 0);
        assert_eq!(app.mails("payment-failed", payment.id.uuid()).len(), 0);
        assert_eq!(app.mails("order-confirmed", id).len(), 1);
    })
    .await;
}
