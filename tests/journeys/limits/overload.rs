//! More than a process can do at a time.

use futures_util::future::{join, join_all};
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use super::count;
use crate::support::{
    app::TestApp,
    client::{Answer, Client, statuses, until},
    shop::Variant,
};

/// As few places as there can be: all of them are for those who buy, half of them for those who look.
const PLACES: usize = 16;

impl TestApp {
    /// Guests of the shop, at another of its processes.
    async fn guests_of(&self, api: &Client, count: usize) -> Vec<Client> {
        let mut guests = Vec::new();
        for _ in 0..count {
            let guest = self.guest().await;
            guests.push(api.with_token(guest.token(), guest.id));
        }
        guests
    }
}

async fn order(guest: &Client, mug: Variant) -> Answer {
    guest.place_order(&Uuid::now_v7().to_string(), &[(mug, 1)]).await
}

#[tokio::test]
async fn a_shop_with_no_place_left_says_so_soon_and_keeps_some_places_for_those_who_look() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(100).await;
        let places = |settings: &mut holdfast::config::Api| settings.concurrency = PLACES;
        let api = app.another_api_with(app.cx.clone(), places).await;
        let (first, others) = (app.guests_of(&api, PLACES).await, app.guests_of(&api, 5).await);
        let blocker = app.block(mug).await;

        // The stock is kept from them: they take every place and do not get on.
        let stuck = join_all(first.iter().map(|guest| order(guest, mug)));
        let rest = async {
            app.until_blocked().await;
            until("every place is taken", async || match order(&others[0], mug).await {
                answer if answer.at("/code") == "overloaded" => Ok(answer),
                answer => Err(answer.body),
            })
            .await
            .assert_header("retry-after", "1");
            let begun = Instant::now();
            let late = join_all(others.iter().map(|guest| order(guest, mug))).await;
            let waited = begun.elapsed();
            let mut looks = Vec::new();
            for _ in 0..5 {
                looks.push(api.get("/v1/products").await);
            }
            blocker.rollback().await.unwrap();
            (late, waited, looks)
        };
        let (stuck, (late, waited, looks)) = join(stuck, rest).await;

        for answer in &late {
            answer.assert_problem(503, "overloaded");
        }
        assert!(waited < Duration::from_secs(3), "{waited:?}");
        assert_eq!(count(&looks, 200), 5);
        // Those who had a place are served, or are told what became of their slice.
        let codes = statuses(&stuck);
        assert!(codes.iter().all(|status| matches!(status, 201 | 503)), "{codes:?}");
        order(&others[0], mug).await.assert_status(201);
    })
    .await;
}
