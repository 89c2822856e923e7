//! The handlers of one lane, and what happens around them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{self, BoxFuture},
};
use jobs::{
    Lane, Undecodable,
    ledger::{self, Claim, Claims, Ended, Ending, Lease, Others},
    retry,
    transport::{LaneSpec, Wake},
};
use tokio::time::{Instant, sleep};
use tracing::Instrument;
use uuid::Uuid;

use super::{Claimed, Failure, Handle, Pulse, Verdict, guarded};
use crate::{
    context::Context,
    kernel::{Class, database},
};

/// How much longer a lease lasts than the slowest handler may: time to record its verdicts, even if
/// the database has to be asked again.
const LEASE_MARGIN: Duration = Duration::from_secs(10);

/// Pauses before a verdict is recorded once more; a verdict that is lost is an attempt repeated.
const RECORD_PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// When a job is looked at again that only a newer program knows: one that is being rolled out.
const POSTPONEMENT: Duration = Duration::from_mins(1);

type Run = for<'a> fn(&'a Context, Vec<Claim>) -> BoxFuture<'a, Vec<Outcome>>;

/// The handlers of one lane.
#[derive(Debug)]
pub struct Crew {
    lane: Lane,
    cx: Context,
    pulse: Pulse,
    hands: BTreeMap<&'static str, Run>,
    lease: Duration,
}

/// How one attempt ended, and what is needed to say so.
struct Outcome {
    id: Uuid,
    kind: &'static str,
    attempt: u32,
    lease: Lease,
    ending: Ending,
}

impl Crew {
    pub fn new(lane: Lane, cx: Context, pulse: Pulse) -> Self {
        Self { lane, cx, pulse, hands: BTreeMap::new(), lease: LEASE_MARGIN }
    }

    /// Adds a handler; its jobs must be of this lane.
    #[must_use]
    pub fn with<J: Handle>(mut self) -> Self {
        assert_eq!(J::LANE, self.lane, "{} is consumed on its own lane", J::KIND);
        self.hands.insert(J::KIND, |cx, claims| attempt::<J>(cx, claims).boxed());
        self.lease = self.lease.max(J::LIMIT + LEASE_MARGIN);
        self
    }

    /// Says how the lane is consumed: at most `concurrency` wake-ups at once.
    pub fn consume(self, concurrency: usize) -> LaneSpec {
        let lane = self.lane;
        let crew = Arc::new(self);
        LaneSpec::new(lane, concurrency, move |wake| {
            let crew = crew.clone();
            async move {
                match wake {
                    Wake::Rows(ids) => crew.work(&ids).await,
                    Wake::Deadline(_) => {
                        tracing::error!(
                            lane = crew.lane.name(),
                            "a deadline came to a lane of jobs"
                        );
                    }
                }
            }
        })
    }

    /// Does those of the rows that are due and nobody else's, and in some lanes others with them.
    ///
    /// Whatever goes wrong, nothing is returned: the rows say where they stand.
    pub async fn work(&self, ids: &[Uuid]) {
        for ids in ids.chunks(self.lane.rows_per_wake_up()) {
            let _under_way = self.pulse.begin();
            let claims = match self.claim(ids).await {
                Ok(claims) => claims,
                Err(error) => return self.note("jobs were not claimed; they come again", &error),
            };
            for id in claims.poisoned {
                self.count("unknown", "dead");
                tracing::error!(job.id = %id, "a job is dead: its worker was lost each time");
            }
            let outcomes = self.attempt(claims.claimed).await;
            self.record(&outcomes).await;
        }
    }

    async fn claim(&self, ids: &[Uuid]) -> sqlx::Result<Claims> {
        if !self.lane.fills_up() {
            return ledger::claim(&self.cx.db, ids, self.lease).await;
        }
        let room = self.lane.rows_per_wake_up().saturating_sub(ids.len());
        let others = Others { lane: self.lane, rows: i64::try_from(room).unwrap_or(0) };
        ledger::claim_with(&self.cx.db, ids, others, self.lease).await
    }

    /// Hands the jobs to their handlers, all kinds at the same time.
    async fn attempt(&self, claims: Vec<Claim>) -> Vec<Outcome> {
        let mut by_kind: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
        for claim in claims {
            by_kind.entry(claim.kind.clone()).or_default().push(claim);
        }
        let attempts = by_kind.into_iter().map(async |(kind, claims)| {
            let Some(run) = self.hands.get(&*kind) else {
                return claims.into_iter().map(unknown_kind).collect();
            };
            run(&self.cx, claims).await
        });
        future::join_all(attempts).await.into_iter().flatten().collect()
    }

    /// Records how the attempts ended, again and again if the database is away for a moment.
    async fn record(&self, outcomes: &[Outcome]) {
        if outcomes.is_empty() {
            return;
        }
        let ended: Vec<_> = outcomes
            .iter()
            .map(|Outcome { id, lease, ending, .. }| Ended {
                id: *id,
                lease: *lease,
                ending: ending.clone(),
            })
            .collect();
        let mut pauses = RECORD_PAUSES.into_iter();
        let recorded = loop {
            match ledger::record(&self.cx.db, &ended).await {
                Ok(recorded) => break recorded,
                Err(error) => {
                    self.note("verdicts were not recorded", &error);
                    let Some(pause) = pauses.next() else { return };
                    sleep(pause).await;
                }
            }
        };
        for outcome in outcomes {
            self.tell(outcome, recorded.contains(&outcome.id));
        }
    }

    /// Logs and counts how an attempt ended. The reason is in the ledger: it may quote a mail server.
    fn tell(&self, outcome: &Outcome, is_recorded: bool) {
        let Outcome { id, kind, attempt, ending, .. } = outcome;
        if !is_recorded {
            self.count(kind, "late");
            tracing::warn!(job.id = %id, job.kind = kind, job.attempt = attempt,
                "a job took longer than its lease; its verdict does not count");
            return;
        }
        match ending {
            Ending::Done => {
                self.count(kind, "done");
                tracing::info!(job.id = %id, job.kind = kind, job.attempt = attempt, "a job is done");
            }
            Ending::Later { delay, .. } => {
                self.count(kind, "later");
                tracing::warn!(job.id = %id, job.kind = kind, job.attempt = attempt,
                    delay_ms = delay.as_millis(), "a job failed and will be tried again");
            }
            Ending::Postponed { delay, .. } => {
                self.count(kind, "postponed");
                tracing::warn!(job.id = %id, job.kind = kind, delay_ms = delay.as_millis(),
                    "a job is left to a newer program");
            }
            Ending::Dead { .. } => {
                self.count(kind, "dead");
                tracing::error!(job.id = %id, job.kind = kind, job.attempt = attempt,
                    "a job is dead; `ctl jobs show` says why");
            }
        }
    }

    fn count(&self, kind: &'static str, outcome: &'static str) {
        let labels = [("lane", self.lane.name()), ("kind", kind), ("outcome", outcome)];
        metrics::counter!("jobs_total", &labels).increment(1);
    }

    fn note(&self, message: &'static str, error: &sqlx::Error) {
        if database::class(error) == Class::Unavailable {
            self.pulse.saw_outage();
            tracing::warn!(lane = self.lane.name(), %error, "{message}");
            return;
        }
        tracing::error!(lane = self.lane.name(), %error, "{message}");
    }
}

/// Decodes the payloads, runs the handler and asks it for as many verdicts as it was given jobs.
async fn attempt<J: Handle>(cx: &Context, claims: Vec<Claim>) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(claims.len());
    let mut marks = Vec::with_capacity(claims.len());
    let mut claimed = Vec::with_capacity(claims.len());
    for Claim { id, payload, attempt, lease, .. } in claims {
        let outcome = |ending| Outcome { id, kind: J::KIND, attempt, lease, ending };
        match jobs::decode::<J>(payload) {
            Ok(job) => {
                claimed.push(Claimed { id, job, attempt });
                marks.push((id, attempt, lease));
            }
            Err(undecodable) => outcomes.push(outcome(unreadable(&undecodable))),
        }
    }
    let verdicts = run::<J>(cx, claimed).await;
    outcomes.extend(marks.into_iter().zip(verdicts).map(|((id, attempt, lease), verdict)| {
        let ending = ending(J::LANE, attempt, verdict);
        Outcome { id, kind: J::KIND, attempt, lease, ending }
    }));
    outcomes
}

/// Runs the handler within its limit; there is a verdict for each job, whatever it does.
async fn run<J: Handle>(cx: &Context, claimed: Vec<Claimed<J>>) -> Vec<Verdict> {
    let count = claimed.len();
    let Some(first) = claimed.first() else { return Vec::new() };
    let span = if count == 1 {
        tracing::info_span!("attempt", job.kind = J::KIND, job.id = %first.id, job.attempt = first.attempt)
    } else {
        tracing::info_span!("attempt", job.kind = J::KIND, jobs = count)
    };
    let started = Instant::now();
    let handled = guarded(started + J::LIMIT, J::handle(cx, claimed)).instrument(span).await;
    metrics::histogram!("job_duration_seconds", "lane" => J::LANE.name(), "kind" => J::KIND)
        .record(started.elapsed());
    // All of them may fail because of one. Their waits differ, so that they come back apart.
    match handled {
        Ok(verdicts) if verdicts.len() == count => verdicts,
        Ok(verdicts) => {
            tracing::error!(
                job.kind = J::KIND,
                verdicts = verdicts.len(),
                jobs = count,
                "a handler gave the wrong number of verdicts"
            );
            let error = format!("{} verdicts for {count} jobs", verdicts.len());
            vec![Verdict::Later { delay: None, error }; count]
        }
        Err(failure) => {
            if let Failure::Panicked(_) = failure {
                tracing::error!(job.kind = J::KIND, jobs = count, "a handler panicked");
            }
            vec![failure.into_verdict(); count]
        }
    }
}

/// What the ledger makes of a verdict.
fn ending(lane: Lane, attempt: u32, verdict: Verdict) -> Ending {
    match verdict {
        Verdict::Done => Ending::Done,
        Verdict::Dead(reason) => Ending::Dead { reason },
        Verdict::Later { error, .. } if lane.policy().gives_up_after(attempt) => {
            Ending::Dead { reason: format!("given up after {attempt} attempts: {error}") }
        }
        Verdict::Later { delay, error } => {
            // What the job asks for is the least: a failure that stays is met less and less often.
            let delay = delay.unwrap_or_default().max(retry::backoff(lane, attempt));
            Ending::Later { delay, error }
        }
    }
}

fn unreadable(undecodable: &Undecodable) -> Ending {
    let reason = undecodable.to_string();
    match undecodable {
        Undecodable::UnknownVersion(_) => Ending::Postponed { delay: POSTPONEMENT, reason },
        Undecodable::NoVersion | Undecodable::Malformed(_) => Ending::Dead { reason },
    }
}

fn unknown_kind(Claim { id, kind, attempt, lease, .. }: Claim) -> Outcome {
    let reason = format!("no handler knows the kind {kind}");
    let ending = Ending::Postponed { delay: POSTPONEMENT, reason };
    // Not its own name: what anybody may have written into a row is no label for a metric.
    Outcome { id, kind: "unknown", attempt, lease, ending }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(attempt: u32, asked: Option<Duration>) -> Vec<Duration> {
        (0..100)
            .map(|_| {
                let verdict = Verdict::Later { delay: asked, error: String::new() };
                let Ending::Later { delay, .. } = ending(Lane::Providers, attempt, verdict) else {
                    panic!("it is given up");
                };
                delay
            })
            .collect()
    }

    #[test]
    fn a_job_waits_as_long_as_it_asks_to_and_longer_the_more_often_it_failed() {
        let asked = Duration::from_secs(2);

        assert!(delays(1, Some(asked)).iter().all(|delay| *delay == asked));
        let later = delays(20, Some(asked));
        assert!(later.iter().all(|delay| *delay >= asked));
        assert!(later.iter().any(|delay| *delay > Duration::from_mins(10)), "{later:?}");
    }
}
