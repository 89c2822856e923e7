//! Providers that fail while they are asked to give money back.

use simulator::providers::{Fault, Operation, Provider};

use super::{BOTH, Sale, TOTAL, Taken, all, found, journey, key, making, sent_back};
use crate::support::{app::TestApp, client::Client};

/// Has staff give all of the money back, while the provider fails its first calls.
async fn struck<'a>(
    app: &'a TestApp,
    staff: &Client,
    provider: Provider,
    fault: Fault,
    times: u32,
) -> (Sale<'a>, Taken) {
    let (sale, taken) = Sale::paid(app, provider).await;
    app.providers.fail_next(making(provider), fault, times);
    sale.refund(staff, &key(), &all()).await.assert_status(201);
    app.work_off().await;
    app.providers.clear_faults();
    (sale, taken)
}

async fn assert_made_once(sale: &Sale<'_>, taken: &Taken) {
    assert_eq!(sale.told().await, [("staff", "succeeded", TOTAL)]);
    let refunded = sent_back(sale.app, taken);
    assert_eq!(refunded.len(), 1, "{refunded:?}");
    assert_eq!(sale.mails().await, 1);
    assert_eq!(sale.noted("refund_succeeded").await.len(), 1);
}

#[tokio::test]
async fn case_13_whatever_a_provider_answers_the_money_goes_back_once() {
    journey(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            for fault in [
                Fault::ErrorBefore,
                Fault::ErrorAfter,
                Fault::ResetBefore,
                Fault::ResetAfter,
                Fault::MalformedAnswer,
                Fault::BadGatewayBefore,
                Fault::BadGatewayAfter,
            ] {
                for times in [1, 9] {
                    let (sale, taken) = struck(app, &staff, provider, fault, times).await;
                    assert_made_once(&sale, &taken).await;
                }
            }
        }
        assert_eq!(found(app).await, []);
    })
    .await;
}

#[tokio::test]
async fn case_13_a_provider_that_never_answers_gives_the_money_back_once() {
    journey(async |app| {
        let staff = app.staff().await;
        for fault in [Fault::HangBefore, Fault::HangAfter] {
            let mut sales = Vec::new();
            for provider in BOTH {
                let (sale, taken) = Sale::paid(app, provider).await;
                app.providers.fail_next(making(provider), fault, 1);
                sale.refund(&staff, &key(), &all()).await.assert_status(201);
                sales.push((sale, taken));
            }
            app.work_off().await;
            for (sale, taken) in &sales {
                assert_made_once(sale, taken).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn case_38_a_provider_that_has_no_time_is_asked_again_later() {
    journey(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (sale, taken) = struck(app, &staff, provider, Fault::RateLimited, 2).await;
            assert_made_once(&sale, &taken).await;
        }
    })
    .await;
}

#[tokio::test]
async fn case_14_a_refund_that_was_made_unheard_is_found_and_not_made_again() {
    journey(async |app| {
        let staff = app.staff().await;
        for (provider, list) in [
            (Provider::Stripe, Operation::ListRefunds),
            (Provider::Razorpay, Operation::ListPaymentRefunds),
        ] {
            let (sale, taken) = Sale::paid(app, provider).await;
            app.providers.fail_next(making(provider), Fault::ErrorAfter, 1);
            app.providers.fail_next(list, Fault::BadGatewayBefore, 1);
            sale.refund(&staff, &key(), &all()).await.assert_status(201);
            app.work_off().await;

            assert_made_once(&sale, &taken).await;
            app.providers.clear_faults();
        }
    })
    .await;
}
