//! Processes that die between a provider's answer and our note of it.

use std::time::Duration;

use simulator::providers::{Act, Delivery, Provider};

use super::{PROVIDERS, TILL, is_paid_once, payments_are, status_of};
use crate::{
    client::{Client, Intention, Variant},
    cluster::Role,
    crash::has_aborted,
    ledger::{CancelAnswer, PaymentAnswer, PlacedOrder},
    process::eventually,
    shop::{Shop, survive},
};

/// The API of a shopper whose requests are answered, and the one that dies.
const SOUND: usize = 0;
const DOOMED: usize = 1;

const OPENING: [&str; 5] = [
    "pay.before-call",
    "pay.after-call",
    "settle.before-commit",
    "settle.after-commit",
    "pay.after-commit",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_dies_while_it_opens_a_payment_leaves_one_for_the_repeat() {
    survive(TILL, async |shop| {
        let mug = shop.stock(100).await;
        for provider in PROVIDERS {
            for failpoint in OPENING {
                println!("{provider}, {failpoint}");
                shop.cluster.doom(Role::Api, DOOMED, failpoint).await;
                let client = shop.client();
                let (wish, order) = client.only(SOUND).place(&[(mug, 1)]).await;
                let intention = Intention::new(&order, provider);

                let answer = client.only(DOOMED).ask_to_pay(&wish, &intention).await;
                assert!(matches!(answer, PaymentAnswer::Lost(_)), "{answer:?}");
                has_aborted(&mut shop.cluster.apis[DOOMED]).await;
                let answer = client.only(SOUND).open_payment(&wish, &intention).await;
                let payment = answer.told().unwrap_or_else(|| panic!("{answer:?}"));
                let id = payment.id.to_string();
                let objects = shop.cluster.providers.payments_with(provider, "payment_id", &id);
                let [object] = &*objects else { panic!("{objects:?}") };
                shop.cluster.providers.succeed(&object.reference).unwrap();

                assert_eq!(payment.reference.as_ref(), Some(&object.reference));
                is_paid_once(shop, &order).await;
            }
        }
        shop.cluster.revive(Role::Api, DOOMED).await;
        let attempts = shop.count("SELECT count(*) FROM payments").await;
        assert_eq!(attempts, shop.count("SELECT count(*) FROM orders").await);
    })
    .await;
}

/// Only at Razorpay the money is set aside first and collected by us.
const fn confirming(provider: Provider) -> &'static [&'static str] {
    match provider {
        Provider::Stripe => &["settle.before-commit", "settle.after-commit"],
        Provider::Razorpay => {
            &["settle.before-commit", "settle.after-commit", "confirm.after-capture"]
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_dies_while_it_confirms_a_payment_has_charged_once_and_the_repeat_says_so() {
    survive(TILL, async |shop| {
        let mug = shop.stock(100).await;
        for provider in PROVIDERS {
            for &failpoint in confirming(provider) {
                println!("{provider}, {failpoint}");
                shop.cluster.doom(Role::Api, DOOMED, failpoint).await;
                let client = shop.client();
                let (wish, order) = client.only(SOUND).place(&[(mug, 1)]).await;
                let (payment, reference) =
                    client.only(SOUND).pays_with(&wish, &order, provider).await;
                // The browser is faster than any webhook.
                shop.cluster.providers.set_delivery(provider, Delivery::Paused);
                let proof = shop.cluster.providers.succeed(&reference).unwrap().checkout;

                let doomed = client.only(DOOMED);
                let answer = doomed.ask_to_confirm(&wish, payment.id, proof.as_ref()).await;
                assert!(matches!(answer, PaymentAnswer::Lost(_)), "{answer:?}");
                has_aborted(&mut shop.cluster.apis[DOOMED]).await;
                let repeat = client.only(SOUND).confirm(&wish, payment.id, proof.as_ref()).await;

                assert_eq!(repeat.told().map(|it| &*it.order_status), Some("paid"), "{repeat:?}");
                shop.cluster.providers.set_delivery(provider, Delivery::Normal);
                is_paid_once(shop, &order).await;
            }
        }
        shop.cluster.revive(Role::Api, DOOMED).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_dies_of_a_webhook_gets_it_again_and_it_counts_once() {
    survive(TILL, async |shop| {
        let mug = shop.stock(100).await;
        for provider in PROVIDERS {
            for failpoint in ["inbox.before-commit", "inbox.after-commit"] {
                println!("{provider}, {failpoint}");
                shop.cluster.send_webhooks_to(SOUND);
                let client = shop.client().only(SOUND);
                let (wish, order) = client.place(&[(mug, 1)]).await;
                let (_, reference) = client.pays_with(&wish, &order, provider).await;
                shop.all_work_ends().await;
                shop.cluster.doom(Role::Api, DOOMED, failpoint).await;
                shop.cluster.send_webhooks_to(DOOMED);

                shop.cluster.providers.succeed(&reference).unwrap();
                has_aborted(&mut shop.cluster.apis[DOOMED]).await;
                assert!(!shop.unheard().is_empty());
                shop.cluster.revive(Role::Api, DOOMED).await;

                is_paid_once(shop, &order).await;
            }
        }
    })
    .await;
}

const WITHDRAWING: [&str; 3] =
    ["cancel-payment.after-call", "settle.before-commit", "settle.after-commit"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_dies_while_it_cancels_an_order_under_payment_cancels_it_when_asked_again() {
    survive(TILL, async |shop| {
        let mug = shop.stock(100).await;
        for provider in PROVIDERS {
            for failpoint in WITHDRAWING {
                println!("{provider}, {failpoint}");
                shop.cluster.doom(Role::Api, DOOMED, failpoint).await;
                let client = shop.client();
                let (wish, order) = client.only(SOUND).place(&[(mug, 1)]).await;
                let (_, reference) = client.only(SOUND).pays_with(&wish, &order, provider).await;

                let answer = client.only(DOOMED).ask_to_cancel(&wish, &order).await;
                assert!(matches!(answer, CancelAnswer::Unknown(_)), "{answer:?}");
                has_aborted(&mut shop.cluster.apis[DOOMED]).await;
                let answer = client.only(SOUND).cancel(&wish, &order).await;

                assert_eq!(answer, CancelAnswer::Cancelled);
                payments_are(shop, &order, "cancelled").await;
                // Only Razorpay lets a shopper go on, and nothing is collected.
                let late = shop.cluster.providers.succeed(&reference);
                assert_eq!(late.is_ok(), provider == Provider::Razorpay, "{late:?}");
            }
        }
        shop.cluster.revive(Role::Api, DOOMED).await;
        shop.all_work_ends().await;
        assert_eq!(shop.count("SELECT count(*) FROM captures").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_dies_while_a_shopper_changes_the_provider_goes_on_with_the_second() {
    survive(TILL, async |shop| {
        let mug = shop.stock(100).await;
        for (first, second) in
            [(Provider::Stripe, Provider::Razorpay), (Provider::Razorpay, Provider::Stripe)]
        {
            for failpoint in ["cancel-payment.after-call", "settle.before-commit", "pay.after-call"]
            {
                println!("{first}, then {second}, {failpoint}");
                shop.cluster.doom(Role::Api, DOOMED, failpoint).await;
                let client = shop.client();
                let (wish, order) = client.only(SOUND).place(&[(mug, 1)]).await;
                client.only(SOUND).pays_with(&wish, &order, first).await;
                let intention = Intention::new(&order, second);

                let answer = client.only(DOOMED).ask_to_pay(&wish, &intention).await;
                assert!(matches!(answer, PaymentAnswer::Lost(_)), "{answer:?}");
                has_aborted(&mut shop.cluster.apis[DOOMED]).await;
                let answer = client.only(SOUND).open_payment(&wish, &intention).await;
                let reference = answer.told().and_then(|payment| payment.reference.as_deref());
                shop.cluster.providers.succeed(reference.unwrap()).unwrap();

                is_paid_once(shop, &order).await;
            }
        }
        shop.cluster.revive(Role::Api, DOOMED).await;
    })
    .await;
}

/// What a shopper does of whose news a worker dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Pays,
    IsDeclined,
    LetsTheDeadlinePass,
}

const DEATHS: [(Provider, &str, Deed); 14] = [
    (Provider::Stripe, "settle.before-commit", Deed::Pays),
    (Provider::Stripe, "settle.after-commit", Deed::Pays),
    (Provider::Stripe, "review.after-call", Deed::IsDeclined),
    (Provider::Stripe, "settle.before-commit", Deed::IsDeclined),
    (Provider::Stripe, "cancel-payment.after-call", Deed::LetsTheDeadlinePass),
    (Provider::Stripe, "settle.before-commit", Deed::LetsTheDeadlinePass),
    (Provider::Razorpay, "review.after-call", Deed::Pays),
    (Provider::Razorpay, "settle.before-commit", Deed::Pays),
    (Provider::Razorpay, "settle.after-commit", Deed::Pays),
    (Provider::Razorpay, "capture-payment.after-call", Deed::Pays),
    (Provider::Razorpay, "settle.before-commit:2", Deed::Pays),
    (Provider::Razorpay, "settle.after-commit:2", Deed::Pays),
    (Provider::Razorpay, "review.after-call", Deed::IsDeclined),
    (Provider::Razorpay, "cancel-payment.after-call", Deed::LetsTheDeadlinePass),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_in_mid_payment_leaves_its_work_to_the_next_which_charges_nobody_again()
{
    survive(TILL, async |shop| {
        let mug = shop.stock(100).await;
        for (provider, failpoint, deed) in DEATHS {
            println!("{provider}, {failpoint}, {deed:?}");
            let client = shop.client();
            let visit = Visit::begin(shop, &client, mug, provider).await;
            shop.cluster.doom(Role::Webhooks, 0, failpoint).await;

            visit.does(shop, deed).await;
            has_aborted(&mut shop.cluster.webhooks[0]).await;
            shop.expire_leases().await;
            shop.cluster.revive(Role::Webhooks, 0).await;

            visit.ends(shop, deed).await;
        }
    })
    .await;
}

/// A shopper in front of a payment, with nothing else to do in the shop.
struct Visit {
    order: PlacedOrder,
    provider: Provider,
    reference: String,
}

impl Visit {
    async fn begin(shop: &Shop, client: &Client, mug: Variant, provider: Provider) -> Self {
        let (wish, order) = client.place(&[(mug, 1)]).await;
        let (_, reference) = client.pays_with(&wish, &order, provider).await;
        shop.all_work_ends().await;
        Self { order, provider, reference }
    }

    async fn does(&self, shop: &Shop, deed: Deed) {
        match deed {
            Deed::Pays => drop(shop.cluster.providers.succeed(&self.reference).unwrap()),
            Deed::IsDeclined => {
                let act = Act::Decline("insufficient_funds".to_owned());
                shop.cluster.providers.act(&self.reference, &act).unwrap();
            }
            Deed::LetsTheDeadlinePass => shop.age_orders(Duration::from_hours(1)).await,
        }
    }

    async fn ends(&self, shop: &Shop, deed: Deed) {
        match deed {
            Deed::Pays => is_paid_once(shop, &self.order).await,
            Deed::IsDeclined => {
                eventually("the decline is noted", Duration::from_secs(20), async || {
                    let declined = "
                        SELECT count(*)
                        FROM payments
                        JOIN orders ON orders.id = order_id
                        WHERE last_decline IS NOT NULL AND status = 'awaiting_payment'";
                    (shop.count(declined).await == 1).then_some(())
                })
                .await;
                shop.cluster.providers.succeed(&self.reference).unwrap();
                is_paid_once(shop, &self.order).await;
            }
            Deed::LetsTheDeadlinePass => {
                payments_are(shop, &self.order, "cancelled").await;
                assert_eq!(status_of(shop, &self.order).await, "expired");
                let late = shop.cluster.providers.succeed(&self.reference);
                assert_eq!(late.is_ok(), self.provider == Provider::Razorpay, "{late:?}");
            }
        }
    }
}
