//! What one client may use of each kind, what it is told of that, and how clients are told apart.

use futures_util::future::join_all;
use holdfast::kernel::time;
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use simulator::providers::sign_for_stripe;
use uuid::Uuid;

use super::{address, count, from};
use crate::support::{
    app::TestApp,
    client::{Answer, Client, checkout_body},
    shop::Variant,
};

const HOME: &str = "192.0.2.1";
const ELSEWHERE: &str = "192.0.2.2";

async fn look(client: &Client, address: &str) -> Answer {
    Answer::to(from(address, client, Method::GET, "/v1/products")).await
}

async fn order(client: &Client, address: &str, mug: Variant) -> Answer {
    order_some(client, address, mug, 1).await
}

async fn order_some(client: &Client, address: &str, mug: Variant, units: i64) -> Answer {
    let order = client.checkout(&Uuid::now_v7().to_string(), &checkout_body(&[(mug, units)]));
    Answer::to(order.header("X-Forwarded-For", address)).await
}

async fn become_guest(client: &Client, address: &str) -> Answer {
    Answer::to(from(address, client, Method::POST, "/v1/auth/guest")).await
}

/// How many seconds a slow machine takes for four requests.
const PASSED_MAX: u64 = 20;

#[tokio::test]
async fn a_client_is_told_its_limit_and_when_to_come_back() {
    TestApp::run(async |app| {
        let api = app.limited("browse:1/m:3").await;
        // What is told, and the seconds; some may have passed since.
        let told = |answer: &Answer| -> (String, u64) {
            let (left, seconds) = answer.header("ratelimit").unwrap().rsplit_once('=').unwrap();
            (left.to_owned(), seconds.parse().unwrap())
        };

        for (left, whole_in) in [(2, 60), (1, 120), (0, 180)] {
            let answer = look(&api, HOME).await;
            answer.assert_status(200).assert_header("ratelimit-policy", "\"browse\";q=3;w=180");
            let (what, seconds) = told(&answer);
            assert_eq!(what, format!("\"browse\";r={left};t"));
            assert!((whole_in - PASSED_MAX..=whole_in).contains(&seconds), "{seconds}");
        }

        let refused = look(&api, HOME).await;
        refused.assert_problem(429, "too-often");
        refused.assert_header("ratelimit-policy", "\"browse\";q=3;w=180");
        let (what, seconds) = told(&refused);
        assert_eq!(what, "\"browse\";r=0;t");
        assert!((60 - PASSED_MAX..=60).contains(&seconds), "{seconds}");
        refused.assert_header("retry-after", &*seconds.to_string());
        look(&api, ELSEWHERE).await.assert_status(200);
    })
    .await;
}

#[tokio::test]
async fn business_flow_abuse_a_hundred_guest_carts_from_one_address_are_refused() {
    TestApp::run(async |app| {
        // As a shop is that has not said otherwise.
        let api = app.limited("newcomer:1/s:60").await;

        let guests = join_all((0..100).map(|_| become_guest(&api, HOME))).await;

        let made = count(&guests, 201);
        assert!((60..70).contains(&made), "{made}");
        assert_eq!(count(&guests, 429), 100 - made);
        become_guest(&api, ELSEWHERE).await.assert_status(201);
    })
    .await;
}

#[tokio::test]
async fn guests_of_one_address_share_what_they_may_order() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(100).await;
        let api = app.limited("checkout:1/h:2,crowd:1/h:5").await;
        let mut guests = Vec::new();
        for _ in 0..4 {
            let guest = app.guest().await;
            guests.push(api.with_token(guest.token(), guest.id));
        }
        let customer = app.customer().await;
        let customer = api.with_token(customer.token(), customer.id);

        // Two each, and five in all.
        let mut orders = Vec::new();
        for guest in &guests {
            for _ in 0..3 {
                orders.push(order(guest, HOME, mug).await);
            }
        }

        let placed: Vec<_> = orders.iter().map(|order| order.status == 201).collect();
        let (yes, no) = (true, false);
        assert_eq!(placed, [yes, yes, no, yes, yes, no, yes, no, no, no, no, no]);
        order(&guests[3], ELSEWHERE, mug).await.assert_status(201);
        // Who has an account has limits of their own, wherever they are.
        order(&customer, HOME, mug).await.assert_status(201);
        order(&customer, ELSEWHERE, mug).await.assert_status(201);
        order(&customer, HOME, mug).await.assert_problem(429, "too-often");
    })
    .await;
}

#[tokio::test]
async fn unrestricted_use_the_guests_of_one_address_look_around_as_some_visitors_and_not_as_many() {
    TestApp::run(async |app| {
        let (api, gate) = app.limited_behind_a_gate("browse:1/h:3,browse-crowd:1/h:10").await;
        let mut guests = Vec::new();
        for _ in 0..7 {
            let guest = app.guest().await;
            guests.push(api.with_token(guest.token(), guest.id));
        }
        let (guests, fresh) = (&guests[..6], &guests[6]);
        let customer = app.customer().await;
        let customer = api.with_token(customer.token(), customer.id);

        // Three each, and ten in all.
        let mut looks = Vec::new();
        for guest in guests {
            for _ in 0..3 {
                looks.push(look(guest, HOME).await);
            }
        }

        assert_eq!((count(&looks[..10], 200), count(&looks[10..], 429)), (10, 8));
        let refused = look(fresh, HOME).await;
        refused.assert_problem(429, "too-often");
        refused.assert_header("ratelimit-policy", "\"browse-crowd\";q=10;w=36000");
        // Elsewhere, without a token or with an account they are not concerned.
        look(fresh, ELSEWHERE).await.assert_status(200);
        look(&api, HOME).await.assert_status(200);
        look(&customer, HOME).await.assert_status(200);
        // Nor is anybody while Redis is away.
        gate.close();
        let looks = join_all((0..20).map(|n| look(&guests[n % 6], HOME))).await;
        assert_eq!(count(&looks, 200), 20);
    })
    .await;
}

#[tokio::test]
async fn business_flow_abuse_the_guests_of_one_address_cannot_sit_on_the_stock() {
    TestApp::run(async |app| {
        let (mug, rare) = (app.product_with_stock(1_000).await, app.product_with_stock(1).await);
        let api = app.limited("units:1/h:100").await;
        let mut guests = Vec::new();
        for _ in 0..6 {
            let guest = app.guest().await;
            guests.push(api.with_token(guest.token(), guest.id));
        }
        let customer = app.customer().await;
        let customer = api.with_token(customer.token(), customer.id);

        // What they did not get does not count.
        for guest in &guests {
            order_some(guest, HOME, rare, 90).await.assert_problem(409, "out-of-stock");
        }
        // What they have already counts once.
        let key = Uuid::now_v7().to_string();
        for _ in 0..3 {
            let order = guests[0].checkout(&key, &checkout_body(&[(mug, 90)]));
            Answer::to(order.header("X-Forwarded-For", HOME)).await.assert_status(201);
        }
        let greedy = guests[1..].iter().map(|guest| order_some(guest, HOME, mug, 90));
        let answers = join_all(greedy).await;

        assert_eq!((count(&answers, 201), count(&answers, 429)), (1, 4));
        order(&guests[0], HOME, mug).await.assert_problem(429, "too-often");
        order_some(&guests[5], ELSEWHERE, mug, 90).await.assert_status(201);
        order_some(&customer, HOME, mug, 90).await.assert_status(201);
    })
    .await;
}

#[tokio::test]
async fn a_limit_holds_across_processes() {
    TestApp::run(async |app| {
        let limits = "browse:1/h:10,auth:1/h:10,newcomer:1/h:10";
        let apis = [app.limited(limits).await, app.limited(limits).await];

        // A machine too busy for Redis to answer in time has each process count by itself; not for ever.
        let mut seen = Vec::new();
        for attempt in 0..10 {
            let home = address(attempt);
            let looks = join_all((0..60).map(|n| look(&apis[n % 2], &home))).await;
            let guests = join_all((0..60).map(|n| become_guest(&apis[n % 2], &home))).await;
            assert!(count(&guests, 201) <= 20);
            seen.push((count(&looks, 200), count(&guests, 201)));
            if seen.ends_with(&[(10, 10)]) {
                return;
            }
        }
        panic!("ten of each in all were allowed: {seen:?}");
    })
    .await;
}

#[tokio::test]
async fn without_redis_everybody_may_look_and_nobody_may_storm() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(100).await;
        let guest = app.guest().await;
        let limits = "browse:1/h:3,newcomer:1/h:3,checkout:1/h:3,payment:1/h:3,admin:1/h:3";
        let (api, gate) = app.limited_behind_a_gate(limits).await;
        let guest = api.with_token(guest.token(), guest.id);
        let staff = app.staff().await;
        let staff = api.with_token(staff.token(), staff.id);
        gate.close();

        let looks = join_all((0..10).map(|_| look(&api, HOME))).await;
        let guests = join_all((0..10).map(|_| become_guest(&api, HOME))).await;
        let orders = join_all((0..10).map(|_| order(&guest, HOME, mug))).await;
        let payment = format!("/v1/payments/{}/confirm", Uuid::now_v7());
        let confirm = || from(HOME, &guest, Method::POST, &payment).json(&json!({}));
        let payments = join_all((0..10).map(|_| Answer::to(confirm()))).await;
        let list = || Answer::to(from(HOME, &staff, Method::GET, "/v1/admin/findings"));
        let lists = join_all((0..10).map(|_| list())).await;

        assert_eq!(count(&looks, 200), 10);
        assert_eq!((count(&guests, 201), count(&guests, 429)), (3, 7));
        assert_eq!((count(&orders, 201), count(&orders, 429)), (3, 7));
        assert_eq!((count(&payments, 404), count(&payments, 429)), (3, 7));
        assert_eq!((count(&lists, 200), count(&lists, 429)), (3, 7));
    })
    .await;
}

#[tokio::test]
async fn a_token_that_proves_nothing_makes_no_other_client() {
    TestApp::run(async |app| {
        let api = app.limited("browse:1/h:3").await;
        let guest = app.guest().await;

        let forged = (0..10).map(|n| {
            let token = format!("{}{n}", guest.token());
            let request = from(HOME, &api, Method::GET, "/v1/products").bearer_auth(token);
            Answer::to(request)
        });
        let answers = join_all(forged).await;

        assert_eq!((count(&answers, 200), count(&answers, 429)), (3, 7));
        let guest = api.with_token(guest.token(), guest.id);
        look(&guest, HOME).await.assert_status(200);
        // A user is who their token says, also where the operation asks for none.
        let customer = app.customer().await;
        look(&api.with_token(customer.token(), customer.id), HOME).await.assert_status(200);
    })
    .await;
}

#[tokio::test]
async fn a_forged_forwarded_header_makes_no_other_client() {
    TestApp::run(async |app| {
        let limited = |proxies| {
            app.another_api_with(app.cx.clone(), move |settings| {
                settings.limits = "browse:1/h:3".parse().unwrap();
                settings.trusted_proxies = proxies;
            })
        };
        let (bare, behind_two) = (limited(0).await, limited(2).await);
        let get = |client: &Client| client.request(Method::GET, "/v1/products");

        // Without a proxy the header is the client's; with two, the proxies' words stand at its end.
        let direct = join_all((0..10).map(|n| {
            Answer::to(
                get(&bare).header("X-Forwarded-For", address(n)).header("Forwarded", "for=1.2.3.4"),
            )
        }));
        let proxied = join_all((0..10).map(|n| {
            let request = get(&behind_two).header("X-Forwarded-For", address(n));
            Answer::to(request.header("X-Forwarded-For", format!("{HOME}, 10.0.0.1")))
        }));
        let (direct, proxied) = tokio::join!(direct, proxied);

        assert_eq!((count(&direct, 200), count(&direct, 429)), (3, 7));
        assert_eq!((count(&proxied, 200), count(&proxied, 429)), (3, 7));
        let other = get(&behind_two).header("X-Forwarded-For", format!("{ELSEWHERE}, 10.0.0.1"));
        Answer::to(other).await.assert_status(200);
    })
    .await;
}

fn webhook(client: &Client, signature: &str, body: &str) -> RequestBuilder {
    from(HOME, client, Method::POST, "/v1/webhooks/stripe")
        .header("Content-Type", "application/json")
        .header("Stripe-Signature", signature)
        .body(body.to_owned())
}

#[tokio::test]
async fn a_signed_webhook_is_never_refused_and_forged_ones_are_soon() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let api = app.limited("webhook:1/h:5").await;
        let secrets = &app.providers.config().stripe_webhook_secrets;
        let now = time::now().unix_timestamp();
        let body = |n: usize| {
            let intent =
                json!({ "id": "pi_1", "object": "payment_intent", "status": "requires_action" });
            let kind = "payment_intent.created";
            json!({ "id": format!("evt_{n}"), "object": "event", "type": kind, "livemode": false,
                    "data": { "object": intent } })
            .to_string()
        };

        let forged = join_all((0..20).map(|n| {
            let signature = sign_for_stripe(&["whsec_of_mine".to_owned()], now, &body(n));
            Answer::to(webhook(&api, &signature, &body(n)))
        }));
        let forged = forged.await;
        let signed = join_all((0..50).map(|n| {
            Answer::to(webhook(&api, &sign_for_stripe(secrets, now, &body(n)), &body(n)))
        }));
        let signed = signed.await;

        assert_eq!((count(&forged, 400), count(&forged, 429)), (5, 15));
        assert_eq!(count(&signed, 200), 50);
        assert_eq!(app.count("provider_events").await, 50);
    })
    .await;
}
