//! What the wake-ups promise: nothing by themselves, and all of it with the ledger.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use apalis::prelude::{Task, TaskBuilder, TaskId};
use apalis_redis::Config;
use jobs::{
    Delay, Lane, PushError,
    ledger::{self, Ended, Ending},
    transport::{self, LaneSpec, RunError, Wake},
};
use sqlx::PgPool;
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinHandle,
};

use crate::support::{LEASE, OwnRedis, Place, eventually, orders, run};

/// A process that consumes a lane until it is told to stop.
struct Worker {
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), RunError>>,
}

impl Worker {
    fn start<Fut: Future<Output = ()> + Send + 'static>(
        place: &Place,
        lane: Lane,
        handler: impl Fn(Wake) -> Fut + Send + Sync + 'static,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (url, namespace) = (place.redis_url.clone(), place.namespace.clone());
        let lanes = vec![LaneSpec::new(lane, 5, handler)];
        let running = tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or(()) };
            transport::run(&url, &namespace, lanes, stopped).await
        });
        Self { stop, running }
    }

    /// A mailer whose mails always arrive.
    fn mailer(place: &Place) -> Self {
        let db = place.db.clone();
        Self::start(place, Lane::Mail, move |wake| deliver(db.clone(), wake))
    }

    /// Notes the seconds it is woken for.
    fn reaper(place: &Place) -> (Self, Arc<Mutex<Vec<i64>>>) {
        let seconds = Arc::new(Mutex::new(Vec::new()));
        let noted = seconds.clone();
        let worker = Self::start(place, Lane::Deadlines, move |wake| {
            let noted = noted.clone();
            async move {
                if let Wake::Deadline(second) = wake {
                    noted.lock().unwrap().push(second);
                }
            }
        });
        (worker, seconds)
    }

    async fn stop(self) -> Result<(), RunError> {
        self.stop.send(()).unwrap();
        self.running.await.unwrap()
    }
}

async fn deliver(db: PgPool, wake: Wake) {
    let Wake::Rows(ids) = wake else { return };
    let claims = ledger::claim(&db, &ids, LEASE).await.unwrap();
    let ended = claims.claimed.iter().map(|claim| Ended {
        id: claim.id,
        lease: claim.lease,
        ending: Ending::Done,
    });
    ledger::record(&db, &ended.collect::<Vec<_>>()).await.unwrap();
}

async fn all_done(place: &Place, count: i64) {
    eventually("every job is done", async || place.count("done").await == count).await;
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// Pushes as some other program might.
async fn push_raw(place: &Place, lane: Lane, tasks: &[Task<Vec<u8>>]) {
    let config = Config::default().queue(format!("{{{}}}:{}", place.namespace, lane.name()));
    let mut redis = place.redis().await;
    for tasks in tasks.chunks(1_000) {
        apalis_redis::queries::push_tasks(&mut redis, &config, tasks).await.unwrap();
    }
}

fn raw(id: String, payload: &[u8]) -> Task<Vec<u8>> {
    TaskBuilder::new(payload.to_vec()).task_id(TaskId::from_string(id)).build()
}

#[tokio::test]
async fn a_worker_is_woken_for_what_was_committed() {
    run(async |place| {
        let relay = place.relay();
        let worker = Worker::mailer(place);

        let mut staged = place.stage(&orders(70), Delay::NONE).await;
        staged.merge(place.stage(&orders(30), Delay::NONE).await);
        relay.wake(staged);

        all_done(place, 100).await;
        worker.stop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_row_whose_wake_up_was_lost_is_pushed_when_it_is_overdue_and_not_before() {
    run(async |place| {
        let relay = place.relay();
        place.stage(&orders(30), Delay::NONE).await;
        place.stage(&orders(10), Delay::of(Duration::from_hours(1))).await;
        assert_eq!(relay.push_overdue(&place.db, 500).await.unwrap(), 0, "not yet");
        place.age_wake_ups().await;

        assert_eq!(relay.push_overdue(&place.db, 20).await.unwrap(), 20);
        assert_eq!(relay.push_overdue(&place.db, 20).await.unwrap(), 10);
        assert_eq!(relay.push_overdue(&place.db, 20).await.unwrap(), 0, "they were just pushed");

        let worker = Worker::mailer(place);
        all_done(place, 30).await;
        worker.stop().await.unwrap();
        assert_eq!(place.count("ready").await, 10);
    })
    .await;
}

#[tokio::test]
async fn a_row_that_somebody_works_on_is_not_pushed_until_its_lease_runs_out() {
    run(async |place| {
        let relay = place.relay();
        let ids = place.stage(&orders(1), Delay::NONE).await.ids();
        ledger::claim(&place.db, &ids, LEASE).await.unwrap();
        place.age_wake_ups().await;
        assert_eq!(relay.push_overdue(&place.db, 500).await.unwrap(), 0);

        // The worker died.
        place.expire_leases().await;
        assert_eq!(relay.push_overdue(&place.db, 500).await.unwrap(), 1);

        let worker = Worker::mailer(place);
        all_done(place, 1).await;
        worker.stop().await.unwrap();
        assert_eq!(place.show(ids[0]).await.attempts, 2);
    })
    .await;
}

#[tokio::test]
async fn rows_that_redis_did_not_take_are_tried_again_soon() {
    run(async |place| {
        place.use_redis(&OwnRedis::absent().await);
        let relay = place.relay();
        let id = place.stage(&orders(1), Delay::NONE).await.ids()[0];
        place.age_wake_ups().await;

        let pushed = relay.push_overdue(&place.db, 500).await;

        assert!(matches!(pushed, Err(PushError::Redis(_))), "{pushed:?}");
        let soon: bool = sqlx::query_scalar(
            "SELECT next_push_at <= now() + interval '2 s' FROM job_ledger WHERE id = $1",
        )
        .bind(id)
        .fetch_one(&place.db)
        .await
        .unwrap();
        assert!(soon);
    })
    .await;
}

/// apalis-redis promotes all that is due with one `unpack`, which fails from about 8,000 on.
#[tokio::test]
async fn ten_thousand_wake_ups_that_waited_for_a_worker_are_all_handled() {
    run(async |place| {
        let tasks: Vec<_> = (0..10_000)
            .map(|n| raw(format!("deadline:{n}"), format!(r#"{{"deadline":{n}}}"#).as_bytes()))
            .collect();
        push_raw(place, Lane::Deadlines, &tasks).await;

        let (worker, seconds) = Worker::reaper(place);

        eventually("every wake-up is handled", async || {
            seconds.lock().unwrap().iter().collect::<BTreeSet<_>>().len() == 10_000
        })
        .await;
        worker.stop().await.unwrap();
        assert_eq!(seconds.lock().unwrap().len(), 10_000, "and none twice");
    })
    .await;
}

#[tokio::test]
async fn nonsense_in_the_queue_does_not_stop_it() {
    run(async |place| {
        let nonsense =
            [&b"\xff\x00"[..], b"", b"null", br#"{"rows": "all"}"#, br#"{"deadline": 1e99}"#];
        let nonsense: Vec<_> = nonsense
            .iter()
            .enumerate()
            .map(|(n, payload)| raw(format!("nonsense:{n}"), payload))
            .collect();
        push_raw(place, Lane::Deadlines, &nonsense).await;
        // Two that apalis itself cannot read: one without a payload, one without its attempts.
        push_raw(place, Lane::Deadlines, &[raw("maimed".to_owned(), b"{}")]).await;
        let mut redis = place.redis().await;
        redis::pipe()
            .rpush(place.key("deadlines", "active"), "no-such-task")
            .hdel(place.key("deadlines", "meta:maimed"), "attempts")
            .exec_async(&mut redis)
            .await
            .unwrap();
        let (worker, seconds) = Worker::reaper(place);
        eventually("the worker has met them", async || {
            let left: bool = redis::cmd("HEXISTS")
                .arg(place.key("deadlines", "data"))
                .arg("maimed")
                .query_async(&mut redis)
                .await
                .unwrap();
            !left
        })
        .await;

        place.relay().deadline(17);

        eventually("the good wake-up is handled", async || seconds.lock().unwrap().contains(&17))
            .await;
        worker.stop().await.unwrap();
        assert_eq!(place.relay().backlog(&[Lane::Deadlines]).await.unwrap(), 0);
        let held: Vec<String> = redis::cmd("KEYS")
            .arg(place.key("deadlines", "inflight*"))
            .query_async(&mut redis)
            .await
            .unwrap();
        assert_eq!(held, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn a_panic_costs_its_wake_up_and_not_the_lane() {
    run(async |place| {
        let relay = place.relay();
        let handled = Arc::new(Mutex::new(Vec::new()));
        let noted = handled.clone();
        let worker = Worker::start(place, Lane::Deadlines, move |wake| {
            let noted = noted.clone();
            async move {
                assert_ne!(wake, Wake::Deadline(13), "unlucky");
                noted.lock().unwrap().push(wake);
            }
        });

        for second in 10..17 {
            relay.deadline(second);
        }

        eventually("the others are handled", async || handled.lock().unwrap().len() == 6).await;
        worker.stop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_second_wakes_once_however_many_orders_and_processes_ask_and_not_early() {
    run(async |place| {
        let (worker, seconds) = Worker::reaper(place);
        let relays = [place.relay(), place.relay()];
        let soon = now() + 2;

        for _ in 0..50 {
            for relay in &relays {
                relay.deadline(soon);
            }
        }

        eventually("the second is noticed", async || !seconds.lock().unwrap().is_empty()).await;
        assert!(now() >= soon);
        // Whatever was pushed besides would be due as well, and before this one.
        relays[0].deadline(soon - 1);
        relays[1].deadline(soon - 2);
        eventually("later wake-ups", async || seconds.lock().unwrap().len() >= 3).await;
        worker.stop().await.unwrap();
        let mut seconds = seconds.lock().unwrap().clone();
        seconds.sort_unstable();
        assert_eq!(seconds, [soon - 2, soon - 1, soon]);
    })
    .await;
}

#[tokio::test]
async fn a_flushed_redis_loses_nothing_but_time() {
    run(async |place| {
        let redis = OwnRedis::started().await;
        place.use_redis(&redis);
        let relay = place.relay();
        let before = place.stage(&orders(40), Delay::NONE).await;
        relay.wake(before);
        eventually("the wake-ups are in redis", async || {
            relay.backlog(&[Lane::Mail]).await.is_ok_and(|backlog| backlog == 2)
        })
        .await;
        let (reaper, seconds) = Worker::reaper(place);
        relay.deadline(1);
        eventually("a worker runs", async || seconds.lock().unwrap().len() == 1).await;

        redis::cmd("FLUSHALL").exec_async(&mut place.redis().await).await.unwrap();

        let mailer = Worker::mailer(place);
        relay.wake(place.stage(&orders(10), Delay::NONE).await);
        all_done(place, 10).await;
        assert_eq!(place.count("ready").await, 40, "nobody knows of them yet");
        place.age_wake_ups().await;
        assert_eq!(relay.push_overdue(&place.db, 500).await.unwrap(), 40);
        all_done(place, 50).await;
        // The worker that ran when its registration was flushed was replaced.
        relay.deadline(2);
        eventually("deadlines are noticed again", async || seconds.lock().unwrap().len() == 2)
            .await;
        mailer.stop().await.unwrap();
        reaper.stop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn redis_may_be_away_at_the_start_and_go_away_again() {
    run(async |place| {
        let mut redis = OwnRedis::absent().await;
        place.use_redis(&redis);
        let relay = place.relay();
        let worker = Worker::mailer(place);
        relay.wake(place.stage(&orders(10), Delay::NONE).await);
        place.age_wake_ups().await;
        relay.push_overdue(&place.db, 500).await.unwrap_err();
        // It is away for longer than one attempt to reach it takes.
        for _ in 0..20 {
            relay.backlog(&[Lane::Mail]).await.unwrap_err();
        }

        redis.start().await;
        place.age_wake_ups().await;
        eventually("the rows are pushed", async || {
            relay.push_overdue(&place.db, 500).await.is_ok()
        })
        .await;
        all_done(place, 10).await;

        redis.stop();
        relay.wake(place.stage(&orders(10), Delay::NONE).await);
        redis.start().await;
        eventually("the rows are pushed once more", async || {
            place.age_wake_ups().await;
            relay.push_overdue(&place.db, 500).await.is_ok()
        })
        .await;
        all_done(place, 20).await;

        redis.stop();
        redis.start().await;
        relay.wake(place.stage(&orders(10), Delay::NONE).await);
        all_done(place, 30).await;
        worker.stop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn whoever_is_told_to_stop_ends_what_it_began_and_begins_nothing_more() {
    run(async |place| {
        let relay = place.relay();
        let (begun, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (db, begins, opens) = (place.db.clone(), begun.clone(), gate.clone());
        let worker = Worker::start(place, Lane::Mail, move |wake| {
            let (db, begins, opens) = (db.clone(), begins.clone(), opens.clone());
            async move {
                begins.add_permits(1);
                opens.acquire().await.unwrap().forget();
                deliver(db, wake).await;
            }
        });
        relay.wake(place.stage(&orders(1), Delay::NONE).await);
        begun.acquire().await.unwrap().forget();

        worker.stop.send(()).unwrap();
        relay.wake(place.stage(&orders(1), Delay::NONE).await);
        eventually("the second wake-up is in redis", async || {
            relay.backlog(&[Lane::Mail]).await.unwrap() == 1
        })
        .await;
        assert!(!worker.running.is_finished(), "it waits for its handler");
        gate.add_permits(2);

        worker.running.await.unwrap().unwrap();
        assert_eq!(place.count("done").await, 1);
        assert_eq!(place.count("ready").await, 1);
        assert_eq!(relay.backlog(&[Lane::Mail]).await.unwrap(), 1, "it is left to others");
    })
    .await;
}

#[tokio::test]
async fn a_handler_that_outlived_its_worker_is_waited_for() {
    run(async |place| {
        let redis = OwnRedis::started().await;
        place.use_redis(&redis);
        let relay = place.relay();
        let (begun, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (begins, opens) = (begun.clone(), gate.clone());
        let worker = Worker::start(place, Lane::Deadlines, move |wake| {
            let (begins, opens) = (begins.clone(), opens.clone());
            async move {
                begins.add_permits(1);
                if wake == Wake::Deadline(1) {
                    opens.acquire().await.unwrap().forget();
                }
            }
        });
        relay.deadline(1);
        begun.acquire().await.unwrap().forget();
        // The worker is not known any more, and is replaced by one that takes the second wake-up.
        redis::cmd("FLUSHALL").exec_async(&mut place.redis().await).await.unwrap();
        relay.deadline(2);
        begun.acquire().await.unwrap().forget();

        worker.stop.send(()).unwrap();

        eventually("the second worker ends", async || {
            let workers: i64 = redis::cmd("ZCARD")
                .arg(place.key("deadlines", "workers"))
                .query_async(&mut place.redis().await)
                .await
                .unwrap();
            workers == 0
        })
        .await;
        assert!(!worker.running.is_finished(), "the first handler has not ended");
        gate.add_permits(1);
        worker.running.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_a_worker_leaves_in_redis_is_forgotten() {
    run(async |place| {
        let relay = place.relay();
        let worker = Worker::mailer(place);
        relay.wake(place.stage(&orders(1), Delay::NONE).await);
        all_done(place, 1).await;
        worker.stop().await.unwrap();
        let mut redis = place.redis().await;
        let workers: i64 = redis::cmd("ZCARD")
            .arg(place.key("mail", "workers"))
            .query_async(&mut redis)
            .await
            .unwrap();
        assert_eq!(workers, 0);

        assert_eq!(relay.purge().await.unwrap(), 0, "it was only just done");
        let done: Vec<String> = redis::cmd("SMEMBERS")
            .arg(place.key("mail", "done"))
            .query_async(&mut redis)
            .await
            .unwrap();
        for id in done {
            redis::cmd("HSET")
                .arg(place.key("mail", &format!("meta:{id}")))
                .arg("done_at")
                .arg(now() - 3_600)
                .exec_async(&mut redis)
                .await
                .unwrap();
        }
        assert_eq!(relay.purge().await.unwrap(), 1);

        let left: Vec<String> =
            redis::cmd("KEYS").arg(place.key("*", "*")).query_async(&mut redis).await.unwrap();
        assert_eq!(left, Vec::<String>::new());
    })
    .await;
}
