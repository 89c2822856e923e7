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

/// Those who are stuck give up after 1.5 s and leave their places: where a machine stalls for as long, the
/// shop is filled anew, so often.
const STUCK_MAX: Duration = Duration::from_millis(1_200);
const TRIES_MAX: usize = 5;

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
        let mug = app.product_with_stock(1_000).await;
        let places = |settings: &mut holdfast::config::Api| settings.concurrency = PLACES;
        let api = app.another_api_with(app.cx.clone(), places).await;
        let (first, others) = (app.guests_of(&api, PLACES).await, app.guests_of(&api, 5).await);

        for _ in 0..TRIES_MAX {
            let blocker = app.block(mug).await;
            // The stock is kept from them: they take every place and do not get on.
            let stuck = join_all(first.iter().map(|guest| order(guest, mug)));
            let rest = async {
                app.until_blocked().await;
                let blocked_at = Instant::now();
                let told = told_of_a_full_shop(&api, &others, mug, blocked_at).await;
                blocker.rollback().await.unwrap();
                told.filter(|_| blocked_at.elapsed() < STUCK_MAX)
            };
            let (stuck, told) = join(stuck, rest).await;
            let Some(Told { first, late, waited, looks }) = told else { continue };

            first.assert_header("retry-after", "1");
            for answer in &late {
                answer.assert_problem(503, "overloaded");
            }
            assert!(waited < Duration::from_secs(3), "{waited:?}");
            assert_eq!(count(&looks, 200), 5);
            // Those who had a place are served, or are told what became of their slice.
            let codes = statuses(&stuck);
            assert!(codes.iter().all(|status| matches!(status, 201 | 503)), "{codes:?}");
            order(&others[0], mug).await.assert_status(201);
            return;
        }
        panic!("the shop was never full for long enough");
    })
    .await;
}

/// What people are told where every place is taken.
struct Told {
    first: Answer,
    /// What several who came later were told, after so long.
    late: Vec<Answer>,
    waited: Duration,
    looks: Vec<Answer>,
}

/// Waits until every place is taken. Nothing if the places may be free again before anybody saw them taken.
async fn told_of_a_full_shop(
    api: &Client,
    others: &[Client],
    mug: Variant,
    blocked_at: Instant,
) -> Option<Told> {
    let first = until("every place is taken", async || match order(&others[0], mug).await {
        answer if answer.at("/code") == "overloaded" => Ok(Some(answer)),
        _ if blocked_at.elapsed() > STUCK_MAX => Ok(None),
        answer => Err(answer.body),
    })
    .await?;
    let begun = Instant::now();
    let late = join_all(others.iter().map(|guest| order(guest, mug))).await;
    let waited = begun.elapsed();
    let mut looks = Vec::new();
    for _ in 0..5 {
        looks.push(api.get("/v1/products").await);
    }
    Some(Told { first, late, waited, looks })
}
