//! The client that everything is done for: it asks for the public keys, steadily, and times the answers.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::client::Client;

/// How often it asks.
const EVERY: Duration = Duration::from_millis(20);

/// It needs no database: those of this machine are used by other tests, too.
const PATH: &str = "/.well-known/jwks.json";

/// What no answer takes but one, on a machine that builds and tests other things.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What that one takes at most: a machine may stall once.
const STALL_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Steady {
    stop: CancellationToken,
    asking: JoinHandle<Vec<Duration>>,
}

impl Steady {
    /// Asks until it is stopped, half of the time on a connection of its own for each request.
    pub(crate) fn start(address: SocketAddr) -> Self {
        let url = format!("http://{address}");
        let kept = Client::new(&url);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let asking = tokio::spawn(async move {
            let mut taken = Vec::new();
            let mut clock = tokio::time::interval(EVERY);
            while stopped.run_until_cancelled(clock.tick()).await.is_some() {
                let new = Client::new(&url);
                let client = if taken.len() % 2 == 0 { &kept } else { &new };
                let begun_at = Instant::now();
                client.get(PATH).await.assert_status(200);
                taken.push(begun_at.elapsed());
            }
            taken
        });
        Self { stop, asking }
    }

    /// Every request was answered, and in time.
    pub(crate) async fn assert_untroubled(self, by: &str) {
        self.stop.cancel();
        let mut taken = self.asking.await.unwrap();
        taken.sort_unstable();
        let (median, worst) = (taken[taken.len() / 2], taken[taken.len() - 1]);
        let second = taken[taken.len().saturating_sub(2)];
        println!("beside {by}: {} answers, median {median:?}, worst {worst:?}", taken.len());
        let is_in_time = worst < STALL_MAX && (second < ANSWER_MAX || taken.len() == 1);
        assert!(is_in_time, "beside {by}: {second:?}, {worst:?}");
    }
}
