//! Every statement on `job_ledger`.

use std::time::Duration;

use serde_json::Value;
use sqlx::{FromRow, PgConnection, PgExecutor, Postgres, QueryBuilder};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Job, Lane,
    job::{self, Delay},
};

/// The first wake-up of a new row is repeated after this time: its process may have died between
/// the commit and the push, or Redis may have been away.
const RESCUE: Duration = Duration::from_secs(5);

/// Every further wake-up is repeated after this time: longer than most backlogs wait in Redis, so
/// that a busy lane is not flooded with copies.
const REPEAT: Duration = Duration::from_mins(1);

/// After so many claims in a row that ended without a verdict the job is taken to be what kills
/// its worker.
const LOSSES_MAX: i32 = 5;

/// The wake-ups that are due once the transaction has committed.
#[derive(Debug, Default, Clone)]
pub struct Staged {
    pub(crate) due: Vec<(Lane, Uuid)>,
}

impl Staged {
    /// Adds the other's wake-ups, so that one transaction is followed by one push.
    pub fn merge(&mut self, other: Self) {
        self.due.extend(other.due);
    }

    /// Whether there is nobody to wake.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// The rows to wake somebody for.
    pub fn ids(&self) -> Vec<Uuid> {
        self.due.iter().map(|(_, id)| *id).collect()
    }
}

/// Promises the jobs in the caller's transaction, with one statement however many they are.
///
/// A job whose dedupe key exists already is skipped, whatever became of the earlier one. Hand what
/// is returned to [`Relay::wake`](crate::Relay::wake) after the commit.
pub async fn stage<J: Job>(
    tx: &mut PgConnection,
    jobs: &[J],
    delay: Delay,
) -> sqlx::Result<Staged> {
    if jobs.is_empty() {
        return Ok(Staged::default());
    }
    let payloads: Vec<Value> = jobs
        .iter()
        .map(job::encode)
        .collect::<Result<_, _>>()
        .map_err(|error| sqlx::Error::Encode(error.into()))?;
    let keys: Vec<Option<String>> = jobs.iter().map(Job::dedupe_key).collect();
    let ids: Vec<Uuid> = jobs.iter().map(|_| Uuid::now_v7()).collect();
    let is_due = delay == Delay::NONE;
    let rescue = if is_due { RESCUE } else { Duration::ZERO };

    // Sorted by key, so that two transactions that promise the same effects cannot deadlock.
    let staged = sqlx::query_scalar!(
        r#"
        INSERT INTO job_ledger (id, kind, lane, payload, dedupe_key, run_at, pushes, next_push_at)
        SELECT
            job.id, $4, $5, job.payload, job.dedupe_key,
            now() + $6::bigint * interval '1 millisecond',
            $7,
            now() + ($6::bigint + $8::bigint) * interval '1 millisecond'
        FROM UNNEST($1::uuid[], $2::jsonb[], $3::text[]) AS job (id, payload, dedupe_key)
        ORDER BY job.dedupe_key
        ON CONFLICT (dedupe_key) DO NOTHING
        RETURNING id
        "#,
        &ids,
        &payloads,
        &keys as &[Option<String>],
        J::KIND,
        J::LANE.name(),
        millis(delay.duration()),
        i32::from(is_due),
        millis(rescue),
    )
    .fetch_all(tx)
    .await?;

    let due = if is_due { staged } else { Vec::new() };
    Ok(Staged { due: due.into_iter().map(|id| (J::LANE, id)).collect() })
}

/// Proof that an attempt has its row: the end of the lease, which no other claim of the row shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease(OffsetDateTime);

/// A row that this process may work on until its lease runs out.
#[derive(Debug, Clone)]
pub struct Claim {
    pub id: Uuid,
    pub kind: String,
    pub payload: Value,
    /// 1 for the first.
    pub attempt: u32,
    pub lease: Lease,
}

/// What a worker got of the rows it was woken for.
#[derive(Debug, Default)]
pub struct Claims {
    pub claimed: Vec<Claim>,
    /// Rows that are dead now, because [`LOSSES_MAX`] claims in a row ended without a verdict.
    pub poisoned: Vec<Uuid>,
}

/// Takes those of the rows that are due, unfinished and nobody else's.
///
/// Whoever dies with a claim loses it when the lease runs out; the attempt was counted.
pub async fn claim(db: impl PgExecutor<'_>, ids: &[Uuid], lease: Duration) -> sqlx::Result<Claims> {
    claim_with(db, ids, Others::NONE, lease).await
}

/// So many other rows of a lane: those that have been due for longest.
///
/// A row whose last claim ended without a verdict is not among them, and none comes with such a row: if
/// it kills its worker, it shall be lost alone.
#[derive(Debug, Clone, Copy)]
pub struct Others {
    pub lane: Lane,
    pub rows: i64,
}

impl Others {
    const NONE: Self = Self { lane: Lane::Deadlines, rows: 0 };
}

/// Takes the rows as [`claim`] does, and others with them.
pub async fn claim_with(
    db: impl PgExecutor<'_>,
    ids: &[Uuid],
    others: Others,
    lease: Duration,
) -> sqlx::Result<Claims> {
    // A row that somebody has locked is being claimed or pushed this moment: its wake-up stands.
    let rows = sqlx::query!(
        r#"
        WITH woken AS (
            SELECT id, losses, lease_until
            FROM job_ledger
            WHERE id = ANY ($1)
                AND state = 'ready'
                AND run_at <= now()
                AND (lease_until IS NULL OR lease_until <= now())
            ORDER BY id
            FOR NO KEY UPDATE SKIP LOCKED
        ), others AS (
            SELECT id, losses, lease_until
            FROM job_ledger
            WHERE lane = $4
                AND id <> ALL ($1)
                AND state = 'ready'
                AND run_at <= now()
                AND lease_until IS NULL
                AND losses = 0
                AND NOT EXISTS (SELECT FROM woken WHERE losses > 0 OR lease_until IS NOT NULL)
            ORDER BY run_at
            LIMIT $5
            FOR NO KEY UPDATE SKIP LOCKED
        ), claimable AS (
            SELECT
                id,
                losses + (lease_until IS NOT NULL)::integer AS losses,
                losses + (lease_until IS NOT NULL)::integer >= $3 AS is_poisoned
            FROM (TABLE woken UNION ALL TABLE others) AS due
        )
        UPDATE job_ledger AS job
        SET losses = claimable.losses,
            attempts = job.attempts + 1,
            lease_until = CASE
                WHEN NOT is_poisoned THEN now() + $2::bigint * interval '1 millisecond'
            END,
            next_push_at = now() + $2::bigint * interval '1 millisecond',
            state = CASE WHEN is_poisoned THEN 'dead' ELSE 'ready' END,
            finished_at = CASE WHEN is_poisoned THEN now() END,
            last_error = CASE
                WHEN is_poisoned THEN 'its worker was lost ' || $3 || ' times in a row'
                ELSE last_error
            END
        FROM claimable
        WHERE job.id = claimable.id
        RETURNING job.id, job.kind, job.payload, job.attempts, job.lease_until
        "#,
        ids,
        millis(lease),
        LOSSES_MAX,
        others.lane.name(),
        others.rows,
    )
    .fetch_all(db)
    .await?;

    let mut claims = Claims::default();
    for row in rows {
        let Some(lease_until) = row.lease_until else {
            claims.poisoned.push(row.id);
            continue;
        };
        let (attempt, lease) = (row.attempts.unsigned_abs(), Lease(lease_until));
        let (id, kind, payload) = (row.id, row.kind, row.payload);
        claims.claimed.push(Claim { id, kind, payload, attempt, lease });
    }
    Ok(claims)
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub id: Uuid,
    pub lease: Lease,
    pub ending: Ending,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Done,
    /// It failed and is tried again.
    Later {
        delay: Duration,
        error: String,
    },
    /// It was not tried, because this worker cannot; the attempt is not counted.
    Postponed {
        delay: Duration,
        reason: String,
    },
    /// It is not tried again unless an operator says so.
    Dead {
        reason: String,
    },
}

/// Writes down how attempts ended, with one statement, and returns the rows it was written for.
///
/// An attempt that has lost its lease meanwhile is passed over: somebody else has the row.
pub async fn record(db: impl PgExecutor<'_>, ended: &[Ended]) -> sqlx::Result<Vec<Uuid>> {
    let mut ids = Vec::with_capacity(ended.len());
    let mut leases = Vec::with_capacity(ended.len());
    let mut states = Vec::with_capacity(ended.len());
    let mut delays = Vec::with_capacity(ended.len());
    let mut errors = Vec::with_capacity(ended.len());
    let mut uncounted = Vec::with_capacity(ended.len());
    for Ended { id, lease, ending } in ended {
        let (state, delay, error) = match ending {
            Ending::Done => ("done", Duration::ZERO, None),
            Ending::Later { delay, error } => ("ready", *delay, Some(error.clone())),
            Ending::Postponed { delay, reason } => ("ready", *delay, Some(reason.clone())),
            Ending::Dead { reason } => ("dead", Duration::ZERO, Some(reason.clone())),
        };
        ids.push(*id);
        leases.push(lease.0);
        states.push(state.to_owned());
        delays.push(millis(delay));
        errors.push(error);
        uncounted.push(i32::from(matches!(ending, Ending::Postponed { .. })));
    }
    sqlx::query_scalar!(
        r#"
        UPDATE job_ledger AS job
        SET state = ended.state,
            run_at = CASE
                WHEN ended.state = 'ready' THEN now() + ended.delay * interval '1 millisecond'
                ELSE job.run_at
            END,
            next_push_at = now() + ended.delay * interval '1 millisecond',
            finished_at = CASE WHEN ended.state <> 'ready' THEN now() END,
            lease_until = NULL,
            losses = 0,
            attempts = job.attempts - ended.uncounted,
            last_error = ended.error
        FROM UNNEST($1::uuid[], $2::timestamptz[], $3::text[], $4::bigint[], $5::text[], $6::integer[])
            AS ended (id, lease_until, state, delay, error, uncounted)
        WHERE job.id = ended.id AND job.lease_until = ended.lease_until
        RETURNING job.id
        "#,
        &ids,
        &leases,
        &states,
        &delays,
        &errors as &[Option<String>],
        &uncounted,
    )
    .fetch_all(db)
    .await
}

/// A due row whose wake-up is to be sent again.
#[derive(Debug)]
pub(crate) struct Overdue {
    pub(crate) id: Uuid,
    pub(crate) lane: Lane,
    /// How many claims of it ended without a verdict, this one included.
    pub(crate) losses: u32,
}

/// Takes up to `limit` rows whose wake-up is overdue and dates their next wake-up.
pub(crate) async fn take_overdue(
    db: impl PgExecutor<'_>,
    limit: i64,
) -> sqlx::Result<Vec<Overdue>> {
    // A lane that only a newer program knows is left to that program.
    let lanes = Lane::ALL.map(|lane| lane.name().to_owned());
    let rows = sqlx::query!(
        r#"
        WITH overdue AS (
            SELECT id
            FROM job_ledger
            WHERE state = 'ready'
                AND next_push_at <= now()
                AND run_at <= now()
                AND (lease_until IS NULL OR lease_until <= now())
                AND lane = ANY ($3)
            ORDER BY next_push_at
            LIMIT $1
            FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE job_ledger AS job
        SET pushes = pushes + 1,
            next_push_at = now() + $2::bigint * interval '1 millisecond'
        FROM overdue
        WHERE job.id = overdue.id
        RETURNING job.id, job.lane, job.losses + (lease_until IS NOT NULL)::integer AS "losses!"
        "#,
        limit,
        millis(REPEAT),
        &lanes,
    )
    .fetch_all(db)
    .await?;

    let overdue = rows.into_iter().filter_map(|row| {
        let lane = Lane::from_name(&row.lane)?;
        Some(Overdue { id: row.id, lane, losses: row.losses.unsigned_abs() })
    });
    Ok(overdue.collect())
}

/// Lets the rows be woken again after the delay, because nobody heard their last wake-up.
pub(crate) async fn push_again(
    db: impl PgExecutor<'_>,
    ids: &[Uuid],
    delay: Duration,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        UPDATE job_ledger
        SET next_push_at = now() + $2::bigint * interval '1 millisecond'
        WHERE id = ANY ($1) AND state = 'ready'
        "#,
        ids,
        millis(delay),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What waits in a lane.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Depth {
    pub lane: Lane,
    /// Due, unfinished rows, those in work included.
    pub due: i64,
    /// How long the oldest of them has been due.
    pub oldest_due_seconds: f64,
}

/// Counts what waits in each lane, with one statement; an empty lane is listed too.
pub async fn depths(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<Depth>> {
    let rows = sqlx::query!(
        r#"
        SELECT
            lane,
            count(*) AS "due!",
            extract(epoch FROM now() - min(run_at))::double precision AS "oldest_due_seconds!"
        FROM job_ledger
        WHERE state = 'ready' AND run_at <= now()
        GROUP BY lane
        "#,
    )
    .fetch_all(db)
    .await?;

    let depths = Lane::ALL.map(|lane| {
        let row = rows.iter().find(|row| row.lane == lane.name());
        Depth {
            lane,
            due: row.map_or(0, |row| row.due),
            oldest_due_seconds: row.map_or(0.0, |row| row.oldest_due_seconds),
        }
    });
    Ok(depths.into())
}

/// Deletes up to `limit` rows that were done 7 days ago, or died or were discarded 90 days ago.
///
/// Call it until it deletes fewer. A dedupe key protects its effect only as long as its row is kept.
pub async fn purge(db: impl PgExecutor<'_>, limit: i64) -> sqlx::Result<u64> {
    let purged = sqlx::query!(
        r#"
        DELETE FROM job_ledger
        WHERE id IN (
            SELECT id
            FROM job_ledger
            WHERE state <> 'ready'
                AND finished_at < now() - interval '7 days'
                AND (state = 'done' OR finished_at < now() - interval '90 days')
            ORDER BY finished_at
            LIMIT $1
            FOR UPDATE SKIP LOCKED
        )
        "#,
        limit,
    )
    .execute(db)
    .await?;
    Ok(purged.rows_affected())
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Ready,
    Done,
    /// It failed for good and waits for an operator.
    Dead,
    /// An operator said that it is not to be done.
    Discarded,
}

impl State {
    pub const ALL: [Self; 4] = [Self::Ready, Self::Done, Self::Dead, Self::Discarded];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Discarded => "discarded",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// Which jobs an operator asks for; what is left out matches all.
#[derive(Debug, Default, Clone)]
pub struct Filter {
    pub kind: Option<String>,
    pub state: Option<State>,
}

/// A job as an operator sees it.
#[derive(Debug, Clone, FromRow)]
pub struct Row {
    pub id: Uuid,
    pub kind: String,
    pub lane: String,
    pub payload: Value,
    pub dedupe_key: Option<String>,
    pub state: String,
    pub run_at: OffsetDateTime,
    pub attempts: i32,
    pub losses: i32,
    pub lease_until: Option<OffsetDateTime>,
    pub pushes: i32,
    pub next_push_at: OffsetDateTime,
    pub last_error: Option<String>,
    pub created_at: OffsetDateTime,
    pub finished_at: Option<OffsetDateTime>,
}

/// The longest page of [`list`].
pub const PAGE_MAX: i64 = 100;

/// Lists jobs, the newest first, from just after the row `after`; at most [`PAGE_MAX`] of them.
pub async fn list(
    db: impl PgExecutor<'_>,
    filter: &Filter,
    after: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Row>> {
    let mut query = QueryBuilder::<Postgres>::new("SELECT * FROM job_ledger WHERE true");
    if let Some(kind) = &filter.kind {
        query.push(" AND kind = ").push_bind(kind);
    }
    if let Some(state) = filter.state {
        // Written out, so that the dead are found by their own index.
        query.push(" AND state = '").push(state.name()).push("'");
    }
    if let Some(after) = after {
        query.push(" AND id < ").push_bind(after);
    }
    query.push(" ORDER BY id DESC LIMIT ").push_bind(limit.clamp(1, PAGE_MAX));
    query.build_query_as().fetch_all(db).await
}

/// Finds a job.
pub async fn show(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Option<Row>> {
    sqlx::query_as!(
        Row,
        r#"
        SELECT
            id, kind, lane, payload, dedupe_key, state, run_at, attempts, losses, lease_until,
            pushes, next_push_at, last_error, created_at, finished_at
        FROM job_ledger
        WHERE id = $1
        "#,
        id,
    )
    .fetch_optional(db)
    .await
}

/// What a job was before an operator decided about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Was {
    pub kind: String,
    pub state: String,
    pub attempts: i32,
}

/// Makes a dead or waiting job due now, with all its attempts before it; `None` when there is no
/// such job, or it is done, discarded or in work.
///
/// The reaper wakes a worker for it within a second.
pub async fn retry(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Option<Was>> {
    sqlx::query_as!(
        Was,
        r#"
        UPDATE job_ledger
        SET state = 'ready',
            finished_at = NULL,
            run_at = now(),
            next_push_at = now(),
            lease_until = NULL,
            attempts = 0,
            losses = 0
        FROM (
            SELECT id, kind, state, attempts
            FROM job_ledger
            WHERE id = $1
                AND state IN ('ready', 'dead')
                AND (lease_until IS NULL OR lease_until <= now())
            FOR UPDATE
        ) AS was
        WHERE job_ledger.id = was.id
        RETURNING was.kind, was.state, was.attempts
        "#,
        id,
    )
    .fetch_optional(db)
    .await
}

/// Takes a dead or waiting job off everybody's list, for good; `None` when there is no such job,
/// or it is done, discarded or in work.
///
/// It is a state of its own: `dead` stays the list of what needs an operator, and `done` never
/// claims an effect that did not happen.
pub async fn discard(db: impl PgExecutor<'_>, id: Uuid, by: &str) -> sqlx::Result<Option<Was>> {
    sqlx::query_as!(
        Was,
        r#"
        UPDATE job_ledger
        SET state = 'discarded',
            finished_at = now(),
            lease_until = NULL,
            last_error = 'discarded by ' || $2 || COALESCE(': ' || last_error, '')
        FROM (
            SELECT id, kind, state, attempts
            FROM job_ledger
            WHERE id = $1
                AND state IN ('ready', 'dead')
                AND (lease_until IS NULL OR lease_until <= now())
            FOR UPDATE
        ) AS was
        WHERE job_ledger.id = was.id
        RETURNING was.kind, was.state, was.attempts
        "#,
        id,
        by,
    )
    .fetch_optional(db)
    .await
}

/// Forgets the jobs with these dedupe keys that are finished, whatever became of them: they may be
/// staged once more.
pub async fn forget(tx: impl PgExecutor<'_>, keys: &[String]) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        DELETE FROM job_ledger
        WHERE id IN (
            SELECT id
            FROM job_ledger
            WHERE dedupe_key = ANY ($1) AND state <> 'ready'
            ORDER BY dedupe_key
            FOR UPDATE
        )
        "#,
        keys,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The database counts in whole milliseconds.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
