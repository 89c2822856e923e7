//! Finding one's orders again.

use uuid::Uuid;

use crate::support::{app::TestApp, client::Answer};

/// Where the answer's `Link` header leads.
fn next(page: &Answer) -> Option<String> {
    let link = page.header("link")?;
    let (path, rest) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
    assert_eq!(rest, "; rel=\"next\"");
    Some(path.to_owned())
}

fn ids(page: &Answer) -> Vec<Uuid> {
    let items = page.at("/items");
    items
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].as_str().unwrap().parse().unwrap())
        .collect()
}

#[tokio::test]
async fn my_orders_are_listed_page_by_page_the_newest_first() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(50).await;
        let guest = app.guest().await;
        let mut placed = Vec::new();
        for _ in 0..5 {
            placed.push(guest.order_for(&[(mug, 1)]).await);
        }
        placed.reverse();

        let mut pages = vec![guest.get("/v1/orders?limit=2").await];
        while let Some(path) = next(pages.last().unwrap()) {
            pages.push(guest.get(&path).await);
        }

        let sizes: Vec<_> = pages.iter().map(|page| ids(page).len()).collect();
        assert_eq!(sizes, [2, 2, 1]);
        assert_eq!(pages.iter().flat_map(ids).collect::<Vec<_>>(), placed);
        assert_eq!(pages[2].at("/next_cursor"), serde_json::Value::Null);
    })
    .await;
}

#[tokio::test]
async fn a_page_that_holds_just_everything_has_no_next() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(50).await;
        let guest = app.guest().await;
        guest.order_for(&[(mug, 1)]).await;
        guest.order_for(&[(mug, 1)]).await;

        let page = guest.get("/v1/orders?limit=2").await;

        assert_eq!(ids(&page).len(), 2);
        page.assert_header("link", None);
    })
    .await;
}

#[tokio::test]
async fn the_list_has_no_timelines_and_an_order_has_one() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let id = guest.order_for(&[(mug, 2)]).await;

        let listed = guest.orders().await.at("/items/0");
        let order = guest.order(id).await;

        assert_eq!(listed.get("timeline"), None);
        assert_eq!(listed["lines"], order.at("/lines"));
        assert_eq!(order.at("/timeline/0/kind"), "placed");
        assert_eq!(order.at("/timeline/0/status"), "awaiting_payment");
        assert_eq!(order.at("/shipping_address/city"), "London");
        assert_eq!(order.at("/email"), "ada@example.com");
        assert!(order.at("/expires_in").as_u64().unwrap() > 800);
    })
    .await;
}

#[tokio::test]
async fn nobody_sees_the_orders_of_others() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let ada = app.guest().await;
        let id = ada.order_for(&[(mug, 2)]).await;
        let adas_page = ada.get("/v1/orders?limit=1").await;
        ada.order_for(&[(mug, 2)]).await;
        let cursor = ada.get("/v1/orders?limit=1").await.at("/next_cursor");

        for stranger in [app.guest().await, app.customer().await, app.staff().await] {
            let theirs = stranger.order(id).await;
            let nobodys = stranger.order(Uuid::now_v7()).await;
            let path = format!("/v1/orders?cursor={}", cursor.as_str().unwrap());

            theirs.assert_problem(404, "order-not-found");
            assert_eq!(theirs.without_request_id(), nobodys.without_request_id());
            assert_eq!(ids(&stranger.orders().await), [] as [Uuid; 0]);
            assert_eq!(ids(&stranger.get(&path).await), [] as [Uuid; 0]);
        }
        assert_eq!(ids(&adas_page), [id]);
    })
    .await;
}

#[tokio::test]
async fn a_limit_or_a_cursor_that_is_none_is_refused() {
    TestApp::run(async |app| {
        let guest = app.guest().await;

        for (query, code) in [
            ("limit=0", "invalid-limit"),
            ("limit=101", "invalid-limit"),
            ("limit=4294967295", "invalid-limit"),
            ("cursor=", "invalid-cursor"),
            ("cursor=nonsense", "invalid-cursor"),
            // A cursor of the list of products.
            (
                "cursor=WyJwcm9kdWN0cy4xIiwiMDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDAwIl0",
                "invalid-cursor",
            ),
        ] {
            guest.get(&format!("/v1/orders?{query}")).await.assert_problem(422, code);
        }
        for query in ["limit=-1", "limit=many", "limit=1.5"] {
            guest.get(&format!("/v1/orders?{query}")).await.assert_problem(422, "invalid-request");
        }
    })
    .await;
}
