//! So many units a customer, however they ask.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use holdfast::{
    checkout::work,
    payments::{Provider, Standing},
};
use serde_json::json;
use uuid::Uuid;

use super::{count, customer_with, key, limit, place, set_sale, wish_of};
use crate::{
    account::{erase, move_to},
    support::{
        app::{PASSWORD, TestApp},
        client::Client,
        shop::{PRICE, Variant, strangers_wish},
    },
    till::charge,
};

const KEY: &str = "one-key-per-intention";

/// The units of the variant that orders hold or were sold.
async fn kept(app: &TestApp, variant: Variant) -> i64 {
    sqlx::query_scalar(
        "SELECT coalesce(sum(quantity), 0)::bigint FROM holds
         WHERE variant_id = $1 AND state IN ('held', 'sold')",
    )
    .bind(variant.id)
    .fetch_one(&app.db)
    .await
    .unwrap()
}

/// Lets the order run out, as the reaper does.
async fn run_out(app: &TestApp, order_id: Uuid) {
    app.age(order_id, 16).await;
    work::sweep(&app.cx).await.unwrap();
    assert_eq!(app.status_of(order_id).await, "expired");
}

#[tokio::test]
async fn a_customer_gets_as_many_as_the_limit_says_and_no_more() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(20).await;
        let lamp = app.product_with_stock(20).await;
        limit(app, mug, 3).await;
        let (ada, bob) = (app.customer().await, app.customer().await);

        ada.order_for(&[(mug, 2)]).await;
        let too_many = ada.place_order(KEY, &[(lamp, 1), (mug, 2)]).await;
        let just_enough = ada.place_order(KEY, &[(mug, 1)]).await;
        let one_more = ada.place_order(&key(), &[(mug, 1)]).await;
        let at_once = bob.place_order(KEY, &[(mug, 4)]).await;

        too_many.assert_problem(409, "purchase-limit-reached");
        too_many.assert_errors(&[("/lines/1/quantity", "purchase-limit-reached")]);
        assert_eq!(too_many.at("/errors/0/available"), 1);
        just_enough.assert_status(201);
        one_more.assert_problem(409, "purchase-limit-reached");
        assert_eq!(one_more.at("/errors/0/available"), 0);
        at_once.assert_problem(409, "purchase-limit-reached");
        assert_eq!(at_once.at("/errors/0/available"), 3);
        assert_eq!(app.stock_of(mug).await, (20, 3));
        assert_eq!(app.stock_of(lamp).await, (20, 0), "a refusal holds nothing");
        bob.order_for(&[(mug, 3)]).await;
        ada.order_for(&[(lamp, 19)]).await;
    })
    .await;
}

#[tokio::test]
async fn lines_of_one_variant_count_together_against_its_limit() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(20).await;
        limit(app, mug, 3).await;

        let refused = app.customer().await.place_order(KEY, &[(mug, 2), (mug, 2)]).await;

        refused.assert_problem(409, "purchase-limit-reached");
        refused.assert_errors(&[
            ("/lines/0/quantity", "purchase-limit-reached"),
            ("/lines/1/quantity", "purchase-limit-reached"),
        ]);
    })
    .await;
}

#[tokio::test]
async fn guests_are_refused_what_is_limited_and_told_that_an_account_is_needed() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let lamp = app.product_with_stock(5).await;
        limit(app, mug, 3).await;
        let guest = app.guest().await;

        let refused = guest.place_order(KEY, &[(lamp, 1), (mug, 1)]).await;

        refused.assert_problem(403, "account-required");
        refused.assert_errors(&[("/lines/1/variant_id", "account-required")]);
        assert_eq!(app.stock_of(lamp).await, (5, 0));
        guest.place_order(KEY, &[(lamp, 1)]).await.assert_status(201);
    })
    .await;
}

#[tokio::test]
async fn fifty_parallel_requests_of_one_accounts_sessions_get_exactly_the_limit() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(50).await;
        let lamp = app.product_with_stock(50).await;
        limit(app, mug, 4).await;
        let elsewhere = app.another_api(app.cx.clone()).await;
        let email = format!("ada-{}@example.com", Uuid::now_v7().simple());
        let first = customer_with(app, &email).await;
        let mut sessions = vec![first];
        for _ in 1..5 {
            sessions.push(app.log_in(&email, PASSWORD).await);
        }
        let others: Vec<_> =
            sessions.iter().map(|ada| elsewhere.with_token(ada.token(), ada.id)).collect();
        let callers: Vec<&Client> = sessions.iter().chain(&others).collect();

        // Every other wish starts with another variant, so that the slices' locks cross.
        let answers = join_all((0..50).map(|n| {
            let lines = if n % 2 == 0 { vec![(mug, 1)] } else { vec![(lamp, 1), (mug, 1)] };
            callers[n % callers.len()].place_order(&key(), &lines)
        }))
        .await;

        assert_eq!(count(&answers, 201), 4, "{answers:#?}");
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            answer.assert_problem(409, "purchase-limit-reached");
        }
        assert_eq!(kept(app, mug).await, 4);
    })
    .await;
}

#[tokio::test]
async fn orders_of_one_customer_in_one_slice_count_against_each_other() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(50).await;
        limit(app, mug, 3).await;
        let (ada, bob) = (app.customer().await, app.customer().await);
        let slice = [
            wish_of(&ada, &[(mug, 2)]),
            wish_of(&bob, &[(mug, 3)]),
            wish_of(&ada, &[(mug, 2)]),
            wish_of(&ada, &[(mug, 1)]),
            wish_of(&ada, &[(mug, 1)]),
            strangers_wish(&[(mug, 1)]),
        ];

        let outcomes = place(app, &slice).await;

        let over = "purchase-limit-reached";
        assert_eq!(outcomes, ["placed", "placed", over, "placed", over, "account-required"]);
        assert_eq!(kept(app, mug).await, 6);
    })
    .await;
}

#[tokio::test]
async fn what_is_refused_for_want_of_stock_uses_up_no_allowance() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(50).await;
        let lamp = app.product_with_stock(1).await;
        limit(app, mug, 3).await;
        let ada = app.customer().await;
        let slice = [wish_of(&ada, &[(mug, 3), (lamp, 2)]), wish_of(&ada, &[(mug, 3)])];

        assert_eq!(place(app, &slice).await, ["out-of-stock", "placed"]);
    })
    .await;
}

#[tokio::test]
async fn what_is_given_up_or_runs_out_may_be_bought_again_and_what_is_paid_may_not() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(50).await;
        limit(app, mug, 1).await;
        let ada = app.customer().await;
        let refused = async |why: &str| {
            let answer = ada.place_order(&key(), &[(mug, 1)]).await;
            assert_eq!(answer.status, 409, "{why}");
            answer.assert_problem(409, "purchase-limit-reached");
        };

        let given_up = ada.order_for(&[(mug, 1)]).await;
        refused("it is held").await;
        ada.cancel(given_up).await.assert_status(200);
        let ran_out = ada.order_for(&[(mug, 1)]).await;
        run_out(app, ran_out).await;
        let paid = ada.order_for(&[(mug, 1)]).await;
        app.pay(paid).await;

        refused("it is paid").await;
        assert_eq!(kept(app, mug).await, 1);
    })
    .await;
}

#[tokio::test]
async fn what_goes_back_on_sale_after_a_refund_may_be_bought_again() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let mug = app.product_with_stock(50).await;
        limit(app, mug, 3).await;
        let (ada, staff) = (app.customer().await, app.staff().await);
        let order_id = ada.order_for(&[(mug, 3)]).await;
        app.pay(order_id).await;
        let path = format!("/v1/admin/orders/{order_id}/refunds");
        let wish = json!({
            "reason": "a crack in the glaze",
            "amount": { "amount": 2 * PRICE, "currency": "USD" },
            "restock": [{ "variant_id": mug.id, "quantity": 2 }],
        });
        let refund = staff.request(reqwest::Method::POST, &path).header("Idempotency-Key", KEY);
        crate::support::client::Answer::to(refund.json(&wish)).await.assert_status(201);

        let too_many = ada.place_order(&key(), &[(mug, 3)]).await;
        let again = ada.place_order(&key(), &[(mug, 2)]).await;

        assert_eq!(too_many.assert_status(409).at("/errors/0/available"), 2);
        again.assert_status(201);
    })
    .await;
}

#[tokio::test]
async fn the_limit_holds_where_expired_stock_is_taken_over() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(3).await;
        let others = app.guest().await.order_for(&[(mug, 3)]).await;
        app.age(others, 16).await;
        limit(app, mug, 2).await;
        let (ada, bob) = (app.customer().await, app.customer().await);
        let slice = [
            wish_of(&ada, &[(mug, 1)]),
            wish_of(&ada, &[(mug, 2)]),
            wish_of(&ada, &[(mug, 1)]),
            wish_of(&ada, &[(mug, 1)]),
            wish_of(&bob, &[(mug, 1)]),
        ];

        let outcomes = place(app, &slice).await;

        let over = "purchase-limit-reached";
        assert_eq!(outcomes, ["placed", over, "placed", over, "placed"]);
        assert_eq!(app.hold_of(others, mug).await, "taken");
        assert_eq!(app.stock_of(mug).await, (3, 3));
    })
    .await;
}

#[tokio::test]
async fn nobodys_expired_stock_is_taken_for_a_wish_beyond_the_limit() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let lamp = app.product_with_stock(5).await;
        let late = app.guest().await.order_for(&[(mug, 5)]).await;
        app.age(late, 16).await;
        limit(app, mug, 2).await;
        let slice = [wish_of(&app.customer().await, &[(mug, 3)]), strangers_wish(&[(lamp, 1)])];

        assert_eq!(place(app, &slice).await, ["purchase-limit-reached", "placed"]);

        assert_eq!(app.hold_of(late, mug).await, "held");
    })
    .await;
}

#[tokio::test]
async fn whoever_changes_their_address_begins_no_limit_anew() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(50).await;
        limit(app, mug, 2).await;
        let ada = app.customer().await;
        ada.order_for(&[(mug, 2)]).await;
        let new = format!("ada-{}@elsewhere.example", Uuid::now_v7().simple());
        move_to(app, &ada, &new).await;

        let refused = ada.place_order(KEY, &[(mug, 1)]).await;

        refused.assert_problem(409, "purchase-limit-reached");
    })
    .await;
}

#[tokio::test]
async fn whoever_erases_their_account_and_comes_back_has_what_they_had() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(50).await;
        limit(app, mug, 2).await;
        let name = Uuid::now_v7().simple().to_string();
        let ada = customer_with(app, &format!("ada-{name}@example.com")).await;
        app.pay(ada.order_for(&[(mug, 2)]).await).await;
        app.settle().await;
        erase(&ada, PASSWORD).await.assert_status(204);

        let again = customer_with(app, &format!("ADA-{name}@Example.com")).await;
        let other = customer_with(app, &format!("ada-{name}@example.org")).await;

        assert_ne!(again.id, ada.id);
        let refused = again.place_order(KEY, &[(mug, 1)]).await;
        refused.assert_problem(409, "purchase-limit-reached");
        other.place_order(KEY, &[(mug, 2)]).await.assert_status(201);
    })
    .await;
}

#[tokio::test]
async fn another_address_on_the_order_does_not_make_another_customer() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(50).await;
        limit(app, mug, 1).await;
        let ada = app.customer().await;
        ada.order_for(&[(mug, 1)]).await;
        let mut body = crate::support::client::checkout_body(&[(mug, 1)]);
        body["email"] = json!("somebody-else@example.com");

        let refused = crate::support::client::Answer::to(ada.checkout(KEY, &body)).await;

        refused.assert_problem(409, "purchase-limit-reached");
    })
    .await;
}

#[tokio::test]
async fn a_limit_with_a_window_forgets_what_was_bought_before_it() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(50).await;
        let sale = json!({ "purchase_limit": { "units": 2, "window_seconds": 3600 } });
        set_sale(&app.staff().await, mug.id, &sale).await.assert_status(200);
        let ada = app.customer().await;
        let old = ada.order_for(&[(mug, 1)]).await;
        let recent = ada.order_for(&[(mug, 1)]).await;
        for id in [old, recent] {
            app.pay(id).await;
        }

        app.age(recent, 59).await;
        app.age(old, 59).await;
        let refused = ada.place_order(KEY, &[(mug, 1)]).await;
        app.age(old, 2).await;
        let too_many = ada.place_order(KEY, &[(mug, 2)]).await;
        let granted = ada.place_order(KEY, &[(mug, 1)]).await;

        refused.assert_problem(409, "purchase-limit-reached");
        assert_eq!(too_many.assert_status(409).at("/errors/0/available"), 1);
        granted.assert_status(201);
    })
    .await;
}

#[tokio::test]
async fn a_limit_counts_what_was_bought_before_there_was_one() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(50).await;
        let ada = app.customer().await;
        ada.order_for(&[(mug, 3)]).await;

        limit(app, mug, 4).await;

        let refused = ada.place_order(KEY, &[(mug, 2)]).await;
        assert_eq!(refused.assert_status(409).at("/errors/0/available"), 1);
        ada.order_for(&[(mug, 1)]).await;
        // Whoever has more than a limit that came later keeps it.
        limit(app, mug, 2).await;
        let refused = ada.place_order(KEY, &[(mug, 1)]).await;
        assert_eq!(refused.assert_status(409).at("/errors/0/available"), 0);
    })
    .await;
}

#[tokio::test]
async fn an_order_beyond_the_limit_is_found_again_by_its_key() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        limit(app, mug, 1).await;
        let ada = app.customer().await;
        let first = ada.place_order(KEY, &[(mug, 1)]).await;

        let again = ada.place_order(KEY, &[(mug, 1)]).await;

        again.assert_status(201).assert_header("idempotency-replayed", "true");
        assert_eq!(again.order_id(), first.order_id());
    })
    .await;
}

#[tokio::test]
async fn money_that_comes_late_buys_nobody_more_than_the_limit() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let mug = app.product_with_stock(50).await;
        limit(app, mug, 1).await;
        let (ada, bob) = (app.customer().await, app.customer().await);
        let mut late = Vec::new();
        for shopper in [&ada, &bob] {
            let order_id = shopper.order_for(&[(mug, 1)]).await;
            let payment = app.attempt(order_id, Provider::Stripe).await;
            run_out(app, order_id).await;
            late.push((order_id, payment));
        }
        let second = ada.order_for(&[(mug, 1)]).await;

        for (_, payment) in &late {
            app.hear(payment, Standing::Captured(vec![charge(payment)])).await;
        }

        assert_eq!(app.status_of(late[0].0).await, "expired", "Ada has ordered again");
        assert_eq!(app.status_of(late[1].0).await, "paid", "Bob has not");
        assert_eq!(app.status_of(second).await, "awaiting_payment");
        assert_eq!(app.count("captures WHERE fate = 'refund_due'").await, 1);
        assert_eq!(kept(app, mug).await, 2);
    })
    .await;
}

#[tokio::test]
async fn two_late_payments_of_one_customer_share_the_limit() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let mug = app.product_with_stock(50).await;
        limit(app, mug, 1).await;
        let ada = app.customer().await;
        let mut slice = Vec::new();
        for _ in 0..3 {
            let order_id = ada.order_for(&[(mug, 1)]).await;
            let payment = app.attempt(order_id, Provider::Razorpay).await;
            run_out(app, order_id).await;
            slice.push(crate::till::news(&payment, Standing::Captured(vec![charge(&payment)])));
        }

        for settled in holdfast::checkout::settle(&app.cx, &slice).await {
            settled.unwrap();
        }

        assert_eq!(app.count("orders WHERE status = 'paid'").await, 1);
        assert_eq!(app.count("captures WHERE fate = 'refund_due'").await, 2);
        assert_eq!(kept(app, mug).await, 1);
    })
    .await;
}

#[tokio::test]
async fn one_customer_cannot_keep_a_drop_from_the_others() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(6).await;
        limit(app, mug, 2).await;
        let greedy = app.customer().await;
        let mut slice: Vec<_> = (0..20).map(|_| wish_of(&greedy, &[(mug, 1)])).collect();
        let fair = [app.customer().await, app.customer().await];
        slice.extend(fair.iter().map(|shopper| wish_of(shopper, &[(mug, 2)])));

        let outcomes = place(app, &slice).await;

        let codes: BTreeSet<_> = outcomes[2..20].iter().copied().collect();
        assert_eq!(outcomes[..2], ["placed", "placed"]);
        assert_eq!(codes, BTreeSet::from(["purchase-limit-reached"]));
        assert_eq!(outcomes[20..], ["placed", "placed"]);
    })
    .await;
}

#[tokio::test]
async fn the_doctor_finds_a_customer_with_more_than_the_limit() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(50).await;
        let ada = app.customer().await;
        let guest = app.guest().await.order_for(&[(mug, 1)]).await;
        ada.order_for(&[(mug, 2)]).await;
        let unfair = ada.order_for(&[(mug, 1)]).await;
        app.settle().await;
        app.ctl(&["doctor"]).await.assert(0, &[]);

        limit(app, mug, 2).await;
        app.ctl(&["doctor"]).await.assert(0, &[]);
        app.execute("UPDATE variants SET sale_set_at = now() - interval '1 hour'").await;

        let findings = holdfast::doctor::examine(&app.db).await.unwrap();
        let found: BTreeSet<_> =
            findings.iter().map(|finding| (finding.invariant, finding.subject.clone())).collect();
        let expected = [
            ("purchase-limits-are-kept", unfair.to_string()),
            ("limited-goods-have-customers", guest.to_string()),
        ];
        assert_eq!(found, BTreeSet::from(expected));
        app.execute("UPDATE variants SET purchase_limit = NULL").await;
    })
    .await;
}
