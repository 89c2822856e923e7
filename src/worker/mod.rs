//! Runs job handlers: claims what a wake-up names, guards the handler, records its verdicts.
//!
//! A handler sees a job only while this process has its lease, and may repeat itself: a process that
//! dies in between leaves the row to whoever comes next. [`Crew`] does the running, [`Pulse`] tells
//! whether it goes on, [`Handle`] is what a slice implements in its `work.rs`.

mod crew;
mod pulse;

use std::{any::Any, panic::AssertUnwindSafe, time::Duration};

use futures_util::{FutureExt, StreamExt, stream};
use jobs::Job;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;
use uuid::Uuid;

pub use self::{crew::Crew, pulse::Pulse};
use crate::{
    context::Context,
    kernel::{Class, Fault},
};

/// How many jobs [`each`] works on at once, per wake-up: enough to hide the latency of a mail
/// server, few enough that a wake-up's jobs do not crowd out the next one's.
const EACH_AT_ONCE: usize = 5;

/// Work on jobs of one kind that this process has claimed together.
pub trait Handle: Job {
    /// How long one call may take; what has no verdict by then is tried again later.
    const LIMIT: Duration = Duration::from_secs(20);

    /// Does the jobs and gives each its verdict, in order.
    fn handle(
        cx: &Context,
        claimed: Vec<Claimed<Self>>,
    ) -> impl Future<Output = Vec<Verdict>> + Send;
}

/// A job that nobody else works on, as long as the handler keeps to its limit.
#[derive(Debug, Clone)]
pub struct Claimed<J> {
    pub id: Uuid,
    pub job: J,
    /// 1 for the first.
    pub attempt: u32,
}

/// What a handler says of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Done,
    /// It failed and is worth another attempt, after the lane's backoff unless a delay is given.
    /// The lane's last attempt makes it dead.
    Later {
        delay: Option<Duration>,
        error: String,
    },
    /// No attempt will ever succeed: an operator has to look at it.
    Dead(String),
}

/// The verdict that follows from an error's class:
///
/// | class | verdict |
/// |---|---|
/// | unavailable, limited, conflict, precondition | later: the world may have changed by then |
/// | broken | later: the next release may have mended it |
/// | malformed, invalid, too large, not found, gone, unauthenticated, forbidden | dead: the same job fails for ever |
impl<F: Fault> From<Result<(), F>> for Verdict {
    fn from(outcome: Result<(), F>) -> Self {
        let Err(fault) = outcome else { return Self::Done };
        let error = format!("{}: {fault}", fault.code());
        match fault.class() {
            Class::Unavailable | Class::Limited | Class::Conflict | Class::Precondition => {
                Self::Later { delay: fault.retry_after(), error }
            }
            Class::Broken => {
                tracing::error!(error, "a job met a bug of ours");
                Self::Later { delay: fault.retry_after(), error }
            }
            Class::Malformed
            | Class::Invalid
            | Class::TooLarge
            | Class::NotFound
            | Class::Gone
            | Class::Unauthenticated
            | Class::Forbidden => Self::Dead(error),
        }
    }
}

/// Does the jobs one by one, a few at the same time, so that none spoils another.
///
/// Each may panic or hang by itself. What has not ended shortly before [`Handle::LIMIT`] is tried
/// again later, and the verdicts of the others stand.
pub async fn each<J, Fut>(claimed: Vec<Claimed<J>>, work: impl Fn(J) -> Fut + Send) -> Vec<Verdict>
where
    J: Handle,
    Fut: Future<Output: Into<Verdict>> + Send,
{
    let deadline = Instant::now() + J::LIMIT - J::LIMIT / 10;
    let attempts: Vec<_> = claimed
        .into_iter()
        .map(|claimed| {
            let span = tracing::info_span!(
                "job",
                job.id = %claimed.id,
                job.kind = J::KIND,
                job.attempt = claimed.attempt,
            );
            let attempt = guarded(deadline, work(claimed.job));
            async { attempt.await.map_or_else(Failure::into_verdict, Into::into) }.instrument(span)
        })
        .collect();
    stream::iter(attempts).buffered(EACH_AT_ONCE).collect().await
}

/// How work can fail to say anything.
#[derive(Debug)]
enum Failure {
    Panicked(String),
    TimedOut,
}

impl Failure {
    fn into_verdict(self) -> Verdict {
        let error = match self {
            Self::Panicked(message) => format!("panicked: {message}"),
            Self::TimedOut => "took too long".to_owned(),
        };
        Verdict::Later { delay: None, error }
    }
}

/// Cuts the work short at the deadline and keeps its panic from spreading.
async fn guarded<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T, Failure> {
    match timeout_at(deadline, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(panic)) => Err(Failure::Panicked(message(&*panic))),
        Err(_) => Err(Failure::TimedOut),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    message.unwrap_or("without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[test]
    fn every_class_of_error_has_its_verdict() {
        #[derive(Debug)]
        struct Any(Class);
        impl fmt::Display for Any {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("it failed")
            }
        }
        impl std::error::Error for Any {}
        impl Fault for Any {
            fn class(&self) -> Class {
                self.0
            }
            fn code(&self) -> &'static str {
                "some-code"
            }
        }

        let later = Verdict::Later { delay: None, error: "some-code: it failed".to_owned() };
        for class in [
            Class::Unavailable,
            Class::Limited,
            Class::Conflict,
            Class::Precondition,
            Class::Broken,
        ] {
            assert_eq!(Verdict::from(Err(Any(class))), later, "{class:?}");
        }
        for class in [
            Class::Malformed,
            Class::Invalid,
            Class::TooLarge,
            Class::NotFound,
            Class::Gone,
            Class::Unauthenticated,
            Class::Forbidden,
        ] {
            let dead = Verdict::Dead("some-code: it failed".to_owned());
            assert_eq!(Verdict::from(Err(Any(class))), dead, "{class:?}");
        }
        assert_eq!(Verdict::from(Ok::<(), Any>(())), Verdict::Done);
    }
}
