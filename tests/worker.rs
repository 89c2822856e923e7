//! What the wrapper around a handler promises, on a real database.
//!
//! `DATABASE_URL` names a server on which databases may be created.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    time::Duration,
};

use futures_util::FutureExt;
use holdfast::{
    clients::Providers,
    context::{Context, Shop},
    kernel::{Class, Fault},
    worker::{Claimed, Crew, Handle, Pulse, Verdict, each},
};
use jobs::{
    Delay, Job, Lane, Relay,
    ledger::{self, Row},
};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use uuid::Uuid;

/// A job that does as it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Told {
    Succeed,
    Fail(String),
    Refuse,
    Panic,
    Hang,
    Wait(u64),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Alone {
    told: Told,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Together {
    told: Told,
}

impl Job for Alone {
    const KIND: &'static str = "tests.alone";
    const LANE: Lane = Lane::Mail;
}

impl Job for Together {
    const KIND: &'static str = "tests.together";
    const LANE: Lane = Lane::Mail;
}

impl Handle for Alone {
    const LIMIT: Duration = Duration::from_millis(500);

    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        each(claimed, async |job: Self| obey(cx, job.told).await).await
    }
}

impl Handle for Together {
    const LIMIT: Duration = Duration::from_millis(500);

    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for Claimed { job, .. } in claimed {
            // It does not answer for a job that it refuses.
            if !matches!(job.told, Told::Refuse) {
                verdicts.push(obey(cx, job.told).await);
            }
        }
        verdicts
    }
}

async fn obey(cx: &Context, told: Told) -> Verdict {
    match told {
        Told::Succeed => Ok::<_, Never>(()).into(),
        Told::Fail(error) => Verdict::Later { delay: None, error },
        Told::Refuse => Verdict::Dead("refused".to_owned()),
        Told::Panic => panic!("as told"),
        Told::Hang => {
            cx.db.close_event().await;
            Verdict::Done
        }
        Told::Wait(seconds) => {
            let delay = Some(Duration::from_secs(seconds));
            Verdict::Later { delay, error: "not yet".to_owned() }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Never {}

impl Fault for Never {
    fn class(&self) -> Class {
        match *self {}
    }

    fn code(&self) -> &'static str {
        match *self {}
    }
}

/// Runs the test with a crew and a database of its own, which is dropped even if the test fails.
async fn run(test: impl AsyncFnOnce(&Crew, &PgPool)) {
    let options: PgConnectOptions = setting("DATABASE_URL").parse().unwrap();
    let name = format!("holdfast_test_{}", Uuid::now_v7().simple());
    let mut admin =
        PgConnection::connect_with(&options.clone().database("postgres")).await.unwrap();
    execute(&mut admin, format!("CREATE DATABASE {name}")).await;
    let db = PgPool::connect_with(options.database(&name)).await.unwrap();

    let outcome = AssertUnwindSafe(async {
        sqlx::migrate!("./migrations").run(&db).await.unwrap();
        let crew = Crew::new(Lane::Mail, context(&db), Pulse::default());
        test(&crew.with::<Alone>().with::<Together>(), &db).await;
    })
    .catch_unwind()
    .await;

    db.close().await;
    execute(&mut admin, format!("DROP DATABASE {name} WITH (FORCE)")).await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

fn context(db: &PgPool) -> Context {
    Context {
        db: db.clone(),
        // Nobody listens there, and nobody is asked.
        relay: Relay::start("redis://127.0.0.1:1", "tests").unwrap(),
        hold: Duration::from_mins(15),
        mailer: None,
        providers: Providers::default(),
        shop: Shop { name: "Holdfast".to_owned(), url: "http://localhost".to_owned() },
    }
}

async fn execute(admin: &mut PgConnection, statement: String) {
    sqlx::query(AssertSqlSafe(statement)).execute(admin).await.unwrap();
}

#[expect(clippy::disallowed_methods, reason = "where the server is is all a test needs to know")]
fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

async fn stage<J: Job>(db: &PgPool, jobs: &[J]) -> Vec<Uuid> {
    let mut db = db.acquire().await.unwrap();
    let ids = jobs::stage(&mut db, jobs, Delay::NONE).await.unwrap().ids();
    // Rows come back in any order, their ids sort as the jobs did.
    let mut ids = ids;
    ids.sort_unstable();
    ids
}

async fn rows(db: &PgPool, ids: &[Uuid]) -> Vec<Row> {
    let mut rows = Vec::new();
    for id in ids {
        rows.push(ledger::show(db, *id).await.unwrap().unwrap());
    }
    rows
}

fn seen(rows: &[Row]) -> Vec<(&str, i32, Option<&str>)> {
    rows.iter().map(|row| (&*row.state, row.attempts, row.last_error.as_deref())).collect()
}

#[tokio::test]
async fn each_job_gets_the_verdict_of_its_own_attempt() {
    run(async |crew, db| {
        let told = [Told::Succeed, Told::Fail("no".into()), Told::Refuse, Told::Panic, Told::Hang];
        let ids = stage(db, &told.map(|told| Alone { told })).await;

        crew.work(&ids).await;

        let rows = rows(db, &ids).await;
        assert_eq!(
            seen(&rows),
            [
                ("done", 1, None),
                ("ready", 1, Some("no")),
                ("dead", 1, Some("refused")),
                ("ready", 1, Some("panicked: as told")),
                ("ready", 1, Some("took too long")),
            ]
        );
        assert!(rows.iter().all(|row| row.lease_until.is_none()));
    })
    .await;
}

#[tokio::test]
async fn a_batch_that_ends_without_verdicts_is_tried_again_apart() {
    run(async |crew, db| {
        for (told, error) in [
            (Told::Panic, "panicked: as told"),
            (Told::Hang, "took too long"),
            (Told::Refuse, "9 verdicts for 10 jobs"),
        ] {
            let mut batch = vec![Together { told: Told::Succeed }; 9];
            batch.push(Together { told });
            let ids = stage(db, &batch).await;

            crew.work(&ids).await;

            let rows = rows(db, &ids).await;
            assert_eq!(seen(&rows), vec![("ready", 1, Some(error)); 10]);
            let mut times: Vec<_> = rows.iter().map(|row| row.run_at).collect();
            times.sort_unstable();
            times.dedup();
            assert!(times.len() > 5, "they would meet again: {times:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_only_a_newer_program_knows_is_postponed_and_not_an_attempt() {
    run(async |crew, db| {
        let ids = stage(db, &vec![Alone { told: Told::Succeed }; 4]).await;
        for (id, change) in ids.iter().zip([
            "payload = jsonb_set(payload, '{v}', '2')",
            "kind = 'tests.of-next-year'",
            "payload = payload - 'told'",
            "payload = payload - 'v'",
        ]) {
            let change = format!("UPDATE job_ledger SET {change} WHERE id = $1");
            sqlx::query(AssertSqlSafe(change)).bind(id).execute(db).await.unwrap();
        }

        crew.work(&ids).await;

        let rows = rows(db, &ids).await;
        let seen = seen(&rows);
        assert_eq!(seen[0], ("ready", 0, Some("version 2 of the payload is not known here")));
        assert_eq!(seen[1], ("ready", 0, Some("no handler knows the kind tests.of-next-year")));
        assert_eq!((seen[2].0, seen[3].0), ("dead", "dead"));
        assert!(rows[0].run_at - rows[0].created_at >= POSTPONED);
    })
    .await;
}

const POSTPONED: Duration = Duration::from_secs(59);

#[tokio::test]
async fn a_handler_may_name_the_delay_and_the_last_attempt_ends_it() {
    run(async |crew, db| {
        let ids = stage(db, &vec![Alone { told: Told::Wait(7_200) }; 2]).await;
        sqlx::query("UPDATE job_ledger SET attempts = $2 WHERE id = $1")
            .bind(ids[1])
            .bind(i32::try_from(Lane::Mail.policy().attempts_max).unwrap() - 1)
            .execute(db)
            .await
            .unwrap();

        crew.work(&ids).await;

        let rows = rows(db, &ids).await;
        assert!(rows[0].run_at - rows[0].created_at >= Duration::from_hours(2));
        assert_eq!(seen(&rows)[1], ("dead", 25, Some("given up after 25 attempts: not yet")));
    })
    .await;
}

#[tokio::test]
async fn a_job_that_somebody_else_has_is_left_alone() {
    run(async |crew, db| {
        let ids = stage(db, &[Alone { told: Told::Refuse }]).await;
        ledger::claim(db, &ids, Duration::from_mins(1)).await.unwrap();

        crew.work(&ids).await;

        let rows = rows(db, &ids).await;
        assert_eq!(seen(&rows), [("ready", 1, None)]);
    })
    .await;
}
