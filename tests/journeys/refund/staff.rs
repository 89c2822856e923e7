//! Refunds that staff decide.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use holdfast::audit;
use serde_json::json;
use simulator::providers::RefundState;

use super::{BOTH, Sale, TOTAL, UNITS, all, journey, key, part, sent_back};

#[tokio::test]
async fn case_17_staff_give_all_of_the_money_back() {
    journey(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;

            let answer = sale.refund(&staff, &key(), &all()).await;

            answer.assert_status(201).assert_header("idempotency-replayed", None);
            assert_eq!(answer.at("/state"), "requested");
            assert_eq!(answer.at("/amount"), json!({ "amount": TOTAL, "currency": "USD" }));
            app.settle().await;
            assert_eq!(sale.told().await, [("staff", "succeeded", TOTAL)]);
            let refunded = sent_back(app, &taken);
            assert_eq!(refunded.len(), 1);
            assert_eq!(
                (refunded[0].amount_minor, refunded[0].state),
                (TOTAL, RefundState::Succeeded)
            );
            assert_eq!(sale.noted("refund_requested").await.len(), 1);
            assert_eq!(sale.noted("refund_succeeded").await.len(), 1);
            assert_eq!(sale.mails().await, 1);
            assert_eq!(sale.status().await, "paid");
            assert_eq!(app.stock_of(sale.mug).await, (5 - UNITS, 0));
        }
    })
    .await;
}

#[tokio::test]
async fn case_17_money_goes_back_in_parts_and_never_more_than_came() {
    journey(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;

            sale.refund(&staff, &key(), &part(1_000)).await.assert_status(201);
            app.settle().await;
            let left = TOTAL - 1_000;
            for amount in [left + 1, 0] {
                let refused = sale.refund(&staff, &key(), &part(amount)).await;
                refused.assert_problem(422, "refund-too-large");
                assert_eq!(refused.at("/errors/0/available"), left);
                assert_eq!(refused.at("/errors/0/pointer"), "/amount");
            }
            let foreign = json!({ "amount": { "amount": 1, "currency": "INR" }, "reason": "?" });
            let refused = sale.refund(&staff, &key(), &foreign).await;
            refused.assert_problem(422, "refund-too-large");
            let rest = sale.refund(&staff, &key(), &all()).await;
            rest.assert_status(201);
            assert_eq!(rest.at("/amount/amount"), left);
            let refused = sale.refund(&staff, &key(), &all()).await;
            refused.assert_problem(409, "nothing-to-refund");
            app.settle().await;

            let states = [("staff", "succeeded", 1_000), ("staff", "succeeded", left)];
            assert_eq!(sale.told().await, states);
            let back: i64 = sent_back(app, &taken).iter().map(|part| part.amount_minor).sum();
            assert_eq!(back, TOTAL);
            assert_eq!(sale.mails().await, 2);
        }
    })
    .await;
}

#[tokio::test]
async fn case_17_refunds_of_one_moment_never_give_back_more_than_came() {
    journey(async |app| {
        let colleagues = [app.staff().await, app.staff().await];
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;
            let keys: Vec<_> = (0..8).map(|_| key()).collect();
            let wish = part(1_000);

            let answers = join_all(
                keys.iter()
                    .zip(colleagues.iter().cycle())
                    .map(|(key, colleague)| sale.refund(colleague, key, &wish)),
            )
            .await;
            app.settle().await;

            let granted = answers.iter().filter(|answer| answer.status == 201).count();
            assert_eq!(granted, usize::try_from(TOTAL / 1_000).unwrap());
            for answer in answers.iter().filter(|answer| answer.status != 201) {
                answer.assert_problem(422, "refund-too-large");
            }
            assert_eq!(sent_back(app, &taken).len(), granted);
        }
    })
    .await;
}

#[tokio::test]
async fn case_17_a_repeated_request_gives_money_back_once() {
    journey(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;
            let (once, wish) = (key(), part(700));

            let first = sale.refund(&staff, &once, &wish).await;
            let second = sale.refund(&staff, &once, &wish).await;
            let at_once = join_all((0..4).map(|_| sale.refund(&staff, &once, &wish))).await;
            let misuse = sale.refund(&staff, &once, &part(701)).await;
            app.settle().await;

            first.assert_status(201);
            second.assert_status(201).assert_header("idempotency-replayed", "true");
            misuse.assert_problem(422, "idempotency-key-reused");
            let ids: BTreeSet<_> = [&first, &second]
                .into_iter()
                .chain(at_once.iter().filter(|answer| answer.status == 201))
                .map(|answer| super::text(answer, "/id"))
                .collect();
            assert_eq!(ids.len(), 1);
            assert_eq!(sent_back(app, &taken).len(), 1);
            assert_eq!(sale.mails().await, 1);
        }
    })
    .await;
}

#[tokio::test]
async fn units_go_back_on_sale_only_where_staff_say_so_and_each_once() {
    journey(async |app| {
        let staff = app.staff().await;
        let (sale, _) = Sale::paid(app, BOTH[0]).await;
        let with = |amount: i64, units: i64| {
            let mut wish = part(amount);
            wish["restock"] = json!([{ "variant_id": sale.mug.id, "quantity": units }]);
            wish
        };
        assert_eq!(app.stock_of(sale.mug).await, (3, 0));
        let before = app.books().await;

        let refused = sale.refund(&staff, &key(), &with(1, UNITS + 1)).await;
        refused.assert_problem(422, "restock-too-large");
        assert_eq!(refused.at("/errors/0/available"), UNITS);
        assert_eq!(app.books().await, before);
        let once = key();
        for _ in 0..2 {
            let granted = sale.refund(&staff, &once, &with(100, 1)).await;
            granted.assert_status(201);
            assert_eq!(granted.at("/restock/0/quantity"), 1);
        }
        assert_eq!(app.stock_of(sale.mug).await, (4, 0));
        let refused = sale.refund(&staff, &key(), &with(100, 2)).await;
        refused.assert_problem(422, "restock-too-large");
        sale.refund(&staff, &key(), &with(100, 1)).await.assert_status(201);

        assert_eq!(app.stock_of(sale.mug).await, (5, 0));
        let last = app.movements_of(sale.mug).await.pop().unwrap();
        assert_eq!(last, ("order_refunded".to_owned(), 1, "available".to_owned()));
        app.settle().await;
    })
    .await;
}

#[tokio::test]
async fn only_staff_refund_and_everybody_sees_no_more_than_is_theirs() {
    journey(async |app| {
        let staff = app.staff().await;
        let (sale, _) = Sale::paid(app, BOTH[0]).await;
        let admin = format!("/v1/admin/orders/{}/refunds", sale.order_id);
        let own = format!("/v1/orders/{}/refunds", sale.order_id);
        let before = app.books().await;
        for (caller, status, code) in [
            (app.anybody(), 401, "unauthenticated"),
            (sale.shopper.clone(), 403, "forbidden"),
            (app.customer().await, 403, "forbidden"),
        ] {
            sale.refund(&caller, &key(), &all()).await.assert_problem(status, code);
            caller.get(&admin).await.assert_problem(status, code);
        }
        for table in ["refunds", "job_ledger", "audit_log", "idempotency_keys"] {
            assert_eq!(app.books().await[table], before[table], "{table}");
        }

        sale.refund(&staff, &key(), &part(500)).await.assert_status(201);
        app.settle().await;

        let shown = staff.get(&admin).await;
        assert_eq!(shown.at("/items/0/reason"), "a crack in the glaze");
        assert_eq!(shown.at("/items/0/state"), "succeeded");
        let mine = sale.shopper.get(&own).await;
        assert_eq!(mine.at("/items/0/amount/amount"), 500);
        assert!(!mine.body.contains("glaze"), "{}", mine.body);
        app.guest().await.get(&own).await.assert_problem(404, "order-not-found");
        let nowhere = format!("/v1/admin/orders/{}/refunds", uuid::Uuid::now_v7());
        staff.get(&nowhere).await.assert_problem(404, "order-not-found");
    })
    .await;
}

#[tokio::test]
async fn an_order_without_money_has_nothing_to_give_back() {
    journey(async |app| {
        let staff = app.staff().await;
        let sale = Sale::begin(app).await;

        sale.refund(&staff, &key(), &all()).await.assert_problem(409, "nothing-to-refund");
        sale.refund(&staff, "short", &all()).await.assert_problem(400, "idempotency-key-invalid");
        let nameless = json!({ "reason": "" });
        sale.refund(&staff, &key(), &nameless).await.assert_problem(422, "invalid-request");

        assert_eq!(sale.refunds().await, []);
    })
    .await;
}

#[tokio::test]
async fn who_gave_money_back_is_on_record() {
    journey(async |app| {
        let staff = app.staff().await;
        let (sale, _) = Sale::paid(app, BOTH[0]).await;

        let answer = sale.refund(&staff, &key(), &part(500)).await;
        app.settle().await;

        let subject = format!("order:{}", sale.order_id);
        let log = audit::of_subject(&app.db, &subject).await.unwrap();
        let [recorded] = &log[..] else { panic!("{log:?}") };
        assert_eq!(Some(recorded.entry.actor_id.uuid()), staff.id);
        assert_eq!(recorded.entry.action, "refundOrder");
        assert_eq!(recorded.entry.request_id.as_deref(), answer.header("x-request-id"));
        let after = recorded.entry.after.as_ref().unwrap();
        assert_eq!((&after["amount"], &after["refundable"]), (&500.into(), &(TOTAL - 500).into()));
        assert_eq!(after["refund_id"], answer.at("/id"));
    })
    .await;
}
