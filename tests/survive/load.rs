//! Shoppers who go on and on while something breaks.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Variant};

/// How long a shopper thinks between two orders: the load is there to be hit by a fault, not to find the
/// limit, and every order is mails to be sent afterwards.
const THOUGHT: Duration = Duration::from_millis(100);

/// Shoppers at work. Dropping it stops them in the middle of what they do.
pub(crate) struct Load {
    closing: CancellationToken,
    shoppers: JoinSet<()>,
}

impl Load {
    /// So many shoppers order one unit after the other; none gives up before it has an answer.
    pub(crate) fn start(client: &Client, shoppers: usize, variant: Variant) -> Self {
        let mut load = Self { closing: CancellationToken::new(), shoppers: JoinSet::new() };
        load.join(client, shoppers, variant);
        load
    }

    /// More shoppers, perhaps with another client.
    pub(crate) fn join(&mut self, client: &Client, shoppers: usize, variant: Variant) {
        for _ in 0..shoppers {
            let (client, closing) = (client.clone(), self.closing.clone());
            self.shoppers.spawn(async move {
                while !closing.is_cancelled() {
                    client.order(&client.wish(&[(variant, 1)])).await;
                    let _ = tokio::time::timeout(THOUGHT, closing.cancelled()).await;
                }
            });
        }
    }

    /// Closes the shop's doors and waits until everybody in it has an answer.
    pub(crate) async fn stop(mut self) {
        self.closing.cancel();
        while let Some(shopper) = self.shoppers.join_next().await {
            shopper.unwrap();
        }
    }
}
