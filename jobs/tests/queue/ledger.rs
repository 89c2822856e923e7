//! What the rows promise, without any Redis.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future;
use jobs::{
    Delay, Job, Lane,
    ledger::{self, Claim, Ended, Ending, Filter, Others, State},
    notifications::{SendOrderReceived, SendReservationExpired},
};
use serde_json::json;
use uuid::Uuid;

use crate::support::{LEASE, Place, orders, run};

/// A lease that has run out by the next statement: its holder is as good as dead.
const LOST: Duration = Duration::ZERO;

async fn claim(place: &Place, id: Uuid, lease: Duration) -> Option<Claim> {
    ledger::claim(&place.db, &[id], lease).await.unwrap().claimed.pop()
}

async fn record(place: &Place, claim: &Claim, ending: Ending) -> bool {
    let ended = Ended { id: claim.id, lease: claim.lease, ending };
    ledger::record(&place.db, &[ended]).await.unwrap() == [claim.id]
}

async fn staged(place: &Place) -> Uuid {
    place.stage(&orders(1), Delay::NONE).await.ids()[0]
}

#[tokio::test]
async fn an_effect_that_is_promised_twice_is_one_row() {
    run(async |place| {
        let [first, second, third] = orders(3).try_into().unwrap();

        let once = place.stage(&[first.clone(), second.clone(), first.clone()], Delay::NONE).await;
        let again = place.stage(&[second.clone(), third, first.clone()], Delay::NONE).await;

        assert_eq!(once.ids().len(), 2);
        assert_eq!(again.ids().len(), 1);
        assert_eq!(place.count("ready").await, 3);

        let mut tx = place.db.begin().await.unwrap();
        let other = SendReservationExpired { order_id: first.order_id };
        let other = jobs::stage(&mut tx, &[other], Delay::NONE).await.unwrap();
        assert_eq!(other.ids().len(), 1, "another effect of the same order");
    })
    .await;
}

#[tokio::test]
async fn what_is_rolled_back_was_not_promised() {
    run(async |place| {
        let mut tx = place.db.begin().await.unwrap();
        jobs::stage(&mut tx, &orders(2), Delay::NONE).await.unwrap();
        tx.rollback().await.unwrap();

        assert_eq!(place.count("ready").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_row_is_stored_as_its_readers_expect_it() {
    run(async |place| {
        let [job] = orders(1).try_into().unwrap();

        let staged = place.stage(std::slice::from_ref(&job), Delay::NONE).await;

        let row = place.show(staged.ids()[0]).await;
        assert_eq!(row.kind, "notifications.send-order-received");
        assert_eq!(row.lane, "mail");
        assert_eq!(row.payload, json!({ "v": 1, "order_id": job.order_id }));
        assert_eq!(row.dedupe_key, job.dedupe_key());
        assert_eq!((row.pushes, row.attempts), (1, 0));
        assert_eq!(row.next_push_at - row.run_at, Duration::from_secs(5));
    })
    .await;
}

#[tokio::test]
async fn a_delayed_job_wakes_nobody_and_cannot_be_claimed_before_its_time() {
    run(async |place| {
        let staged = place.stage(&orders(1), Delay::of(Duration::from_hours(1))).await;
        assert!(staged.is_empty());

        let row = &ledger::list(&place.db, &Filter::default(), None, 1).await.unwrap()[0];
        assert_eq!((row.pushes, row.next_push_at), (0, row.run_at));
        assert!(claim(place, row.id, LEASE).await.is_none());

        sqlx::query("UPDATE job_ledger SET run_at = now()").execute(&place.db).await.unwrap();
        assert!(claim(place, row.id, LEASE).await.is_some());
    })
    .await;
}

#[tokio::test]
async fn of_twenty_workers_that_are_woken_for_a_row_one_gets_it() {
    run(async |place| {
        let ids = place.stage(&orders(50), Delay::NONE).await.ids();

        let racers = (0..20).map(|_| ledger::claim(&place.db, &ids, LEASE));
        let claims = future::try_join_all(racers).await.unwrap();

        let claimed: Vec<Uuid> =
            claims.iter().flat_map(|claims| &claims.claimed).map(|claim| claim.id).collect();
        assert_eq!(claimed.len(), 50);
        assert_eq!(BTreeSet::from_iter(claimed), BTreeSet::from_iter(ids));
    })
    .await;
}

#[tokio::test]
async fn a_claim_takes_others_that_have_waited_longest_as_many_as_it_is_told() {
    run(async |place| {
        let woken = staged(place).await;
        let early = place.stage(&orders(3), Delay::NONE).await.ids();
        let late = place.stage(&orders(3), Delay::NONE).await.ids();
        let taken = claim(place, early[0], LEASE).await.unwrap().id;
        sqlx::query(
            "UPDATE job_ledger SET run_at = run_at - interval '1 minute' WHERE id = ANY ($1)",
        )
        .bind(&early)
        .execute(&place.db)
        .await
        .unwrap();
        let claim = async |lane, rows| {
            let claims =
                ledger::claim_with(&place.db, &[woken], Others { lane, rows }, LEASE).await;
            let claimed = claims.unwrap().claimed.into_iter().map(|claim| claim.id);
            claimed.collect::<BTreeSet<_>>()
        };

        let first = claim(Lane::Mail, 2).await;
        let second = claim(Lane::Settling, 2).await;
        let third = claim(Lane::Mail, 9).await;

        let longest = early.into_iter().filter(|id| *id != taken).chain([woken]);
        assert_eq!(first, longest.collect());
        assert_eq!(second, BTreeSet::new(), "of another lane there is nothing");
        assert_eq!(third, late.into_iter().collect());
    })
    .await;
}

#[tokio::test]
async fn a_verdict_that_comes_after_the_lease_went_to_another_is_not_recorded() {
    run(async |place| {
        let id = staged(place).await;
        let old = claim(place, id, LOST).await.unwrap();
        let new = claim(place, id, LEASE).await.unwrap();
        assert_eq!((old.attempt, new.attempt), (1, 2));

        assert!(!record(place, &old, Ending::Dead { reason: "too late".to_owned() }).await);
        assert_eq!(place.show(id).await.state, "ready");
        assert!(record(place, &new, Ending::Done).await);
        assert!(!record(place, &old, Ending::Dead { reason: "too late".to_owned() }).await);
        assert_eq!(place.show(id).await.state, "done");
        assert!(claim(place, id, LEASE).await.is_none(), "a done job is not claimed");
    })
    .await;
}

#[tokio::test]
async fn an_old_verdict_is_not_taken_for_that_of_a_job_begun_anew() {
    run(async |place| {
        let id = staged(place).await;
        let old = claim(place, id, LOST).await.unwrap();
        assert!(ledger::retry(&place.db, id).await.unwrap().is_some());
        let new = claim(place, id, LEASE).await.unwrap();
        assert_eq!((old.attempt, new.attempt), (1, 1));

        assert!(!record(place, &old, Ending::Done).await);
        assert!(record(place, &new, Ending::Done).await);
    })
    .await;
}

#[tokio::test]
async fn a_batch_of_verdicts_is_recorded_at_once_and_each_as_it_is() {
    run(async |place| {
        let ids = place.stage(&orders(4), Delay::NONE).await.ids();
        let claims = ledger::claim(&place.db, &ids, LEASE).await.unwrap().claimed;
        let hour = Duration::from_hours(1);
        let endings = [
            Ending::Done,
            Ending::Later { delay: hour, error: "no answer".to_owned() },
            Ending::Postponed { delay: hour, reason: "not for me".to_owned() },
            Ending::Dead { reason: "no such order".to_owned() },
        ];
        let ended: Vec<_> = claims
            .iter()
            .zip(endings)
            .map(|(claim, ending)| Ended { id: claim.id, lease: claim.lease, ending })
            .collect();

        let recorded = ledger::record(&place.db, &ended).await.unwrap();
        assert_eq!(BTreeSet::from_iter(recorded), BTreeSet::from_iter(ids));

        let mut rows = Vec::new();
        for Ended { id, .. } in ended {
            rows.push(place.show(id).await);
        }
        let seen: Vec<_> = rows
            .iter()
            .map(|row| (row.state.as_str(), row.attempts, row.last_error.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                ("done", 1, None),
                ("ready", 1, Some("no answer")),
                ("ready", 0, Some("not for me")),
                ("dead", 1, Some("no such order")),
            ]
        );
        for row in &rows[1..3] {
            assert_eq!(row.next_push_at, row.run_at);
            assert!(row.run_at - row.created_at >= hour, "the database counts the delay");
            assert_eq!(row.lease_until, None);
        }
    })
    .await;
}

#[tokio::test]
async fn a_job_that_is_lost_with_its_worker_again_and_again_dies() {
    run(async |place| {
        let id = staged(place).await;
        for _ in 0..5 {
            assert!(claim(place, id, LOST).await.is_some());
        }

        let claims = ledger::claim(&place.db, &[id], LEASE).await.unwrap();

        assert!(claims.claimed.is_empty());
        assert_eq!(claims.poisoned, [id]);
        let row = place.show(id).await;
        assert_eq!(row.state, "dead");
        assert_eq!(row.last_error.unwrap(), "its worker was lost 5 times in a row");
    })
    .await;
}

#[tokio::test]
async fn a_job_that_was_lost_with_its_worker_takes_no_other_along_and_goes_with_none() {
    run(async |place| {
        let lost = staged(place).await;
        assert!(claim(place, lost, LOST).await.is_some());
        let [whole, other] = place.stage(&orders(2), Delay::NONE).await.ids().try_into().unwrap();
        let others = Others { lane: Lane::Mail, rows: 9 };
        let claimed = async |id| {
            let claims = ledger::claim_with(&place.db, &[id], others, LEASE).await;
            claims.unwrap().claimed.into_iter().map(|claim| claim.id).collect::<BTreeSet<_>>()
        };

        assert_eq!(claimed(lost).await, BTreeSet::from([lost]));
        assert!(claim(place, lost, LOST).await.is_none());
        place.expire_leases().await;
        assert_eq!(claimed(whole).await, BTreeSet::from([whole, other]));
    })
    .await;
}

#[tokio::test]
async fn a_job_that_ends_now_and_then_is_no_poison() {
    run(async |place| {
        let id = staged(place).await;
        for _ in 0..3 {
            for _ in 0..4 {
                assert!(claim(place, id, LOST).await.is_some());
            }
            let survivor = claim(place, id, LEASE).await.unwrap();
            let again = Ending::Later { delay: Duration::ZERO, error: "no answer".to_owned() };
            assert!(record(place, &survivor, again).await);
        }

        assert_eq!(place.show(id).await.state, "ready");
    })
    .await;
}

#[tokio::test]
async fn an_operator_retries_what_is_dead_and_hurries_what_waits() {
    run(async |place| {
        let id = staged(place).await;
        let attempt = claim(place, id, LEASE).await.unwrap();
        assert!(ledger::retry(&place.db, id).await.unwrap().is_none(), "somebody works on it");
        record(place, &attempt, Ending::Dead { reason: "no such order".to_owned() }).await;

        assert!(ledger::retry(&place.db, id).await.unwrap().is_some());

        let attempt = claim(place, id, LEASE).await.unwrap();
        assert_eq!(attempt.attempt, 1);
        let later = Ending::Later { delay: Duration::from_hours(1), error: "no".to_owned() };
        record(place, &attempt, later).await;
        assert!(claim(place, id, LEASE).await.is_none());
        assert!(ledger::retry(&place.db, id).await.unwrap().is_some());
        let attempt = claim(place, id, LEASE).await.unwrap();
        record(place, &attempt, Ending::Done).await;
        assert!(ledger::retry(&place.db, id).await.unwrap().is_none(), "done is done");
        assert!(
            ledger::retry(&place.db, Uuid::now_v7()).await.unwrap().is_none(),
            "nobody knows it"
        );
    })
    .await;
}

#[tokio::test]
async fn an_operator_discards_what_shall_not_be_done() {
    run(async |place| {
        let id = staged(place).await;
        let attempt = claim(place, id, LEASE).await.unwrap();
        assert!(
            ledger::discard(&place.db, id, "ada").await.unwrap().is_none(),
            "somebody works on it"
        );
        record(place, &attempt, Ending::Dead { reason: "no such order".to_owned() }).await;

        assert!(ledger::discard(&place.db, id, "ada").await.unwrap().is_some());

        let row = place.show(id).await;
        assert_eq!(row.state, "discarded");
        assert_eq!(row.last_error.unwrap(), "discarded by ada: no such order");
        assert!(ledger::retry(&place.db, id).await.unwrap().is_none());
        assert!(claim(place, id, LEASE).await.is_none());
        assert_eq!(place.count("dead").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_list_is_paged_and_filtered() {
    run(async |place| {
        place.stage(&orders(5), Delay::NONE).await;
        let dead = staged(place).await;
        let attempt = claim(place, dead, LEASE).await.unwrap();
        record(place, &attempt, Ending::Dead { reason: "no such order".to_owned() }).await;

        let mut seen = Vec::new();
        loop {
            let page = ledger::list(&place.db, &Filter::default(), seen.last().copied(), 4).await;
            let page = page.unwrap();
            if page.is_empty() {
                break;
            }
            seen.extend(page.iter().map(|row| row.id));
        }
        assert_eq!(seen.len(), 6);
        assert!(seen.is_sorted_by(|newer, older| newer > older));

        let only =
            Filter { kind: Some(SendOrderReceived::KIND.to_owned()), state: Some(State::Dead) };
        let page = ledger::list(&place.db, &only, None, 100).await.unwrap();
        assert_eq!(page.iter().map(|row| row.id).collect::<Vec<_>>(), [dead]);
        let other = Filter { kind: Some("no.such-kind".to_owned()), state: None };
        assert!(ledger::list(&place.db, &other, None, 100).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_lane_is_as_deep_as_what_is_due_in_it() {
    run(async |place| {
        place.stage(&orders(2), Delay::NONE).await;
        place.stage(&orders(1), Delay::of(Duration::from_hours(1))).await;
        sqlx::query("UPDATE job_ledger SET run_at = run_at - interval '90 s'")
            .execute(&place.db)
            .await
            .unwrap();

        let depths = ledger::depths(&place.db).await.unwrap();

        let of = |lane| *depths.iter().find(|depth| depth.lane == lane).unwrap();
        assert_eq!(of(Lane::Mail).due, 2);
        assert!((90.0..150.0).contains(&of(Lane::Mail).oldest_due_seconds));
        assert_eq!(of(Lane::Deadlines).due, 0);
    })
    .await;
}

#[tokio::test]
async fn what_ended_long_ago_is_purged_and_nothing_else() {
    run(async |place| {
        let ids = place.stage(&orders(6), Delay::NONE).await.ids();
        let aged = [
            ("done", 8),
            ("done", 8),
            ("done", 6),
            ("dead", 89),
            ("dead", 91),
            ("discarded", 91),
        ];
        for (id, (state, days)) in ids.iter().zip(aged) {
            sqlx::query(
                "UPDATE job_ledger SET state = $2, last_error = '-', finished_at = now() - $3 * interval '1 day'
                 WHERE id = $1",
            )
            .bind(id)
            .bind(state)
            .bind(days)
            .execute(&place.db)
            .await
            .unwrap();
        }
        staged(place).await;

        let mut purged = Vec::new();
        for _ in 0..3 {
            purged.push(ledger::purge(&place.db, 3).await.unwrap());
        }

        assert_eq!(purged, [3, 1, 0]);
        assert_eq!(place.count("done").await, 1);
        assert_eq!(place.count("dead").await, 1);
        assert_eq!(place.count("discarded").await, 0);
        assert_eq!(place.count("ready").await, 1);
    })
    .await;
}
