use std::time::Duration;

use sqlx::PgPool;

use super::store;
use crate::{
    identity::{IdentityError, Session},
    kernel::batch::Batcher,
};

/// As many as checkouts may wait, and some who only read.
const QUEUE_DEPTH: usize = 4_096;

/// A little longer than anybody waits for a connection of the pool: beyond that the database is away.
const QUEUE_WAIT_MAX: Duration = Duration::from_secs(2);

/// Tells whether what an access token says still holds: the session is not over, and the user has had
/// the same role ever since.
///
/// Every request asks, and nothing is remembered, so that an end counts at once. Requests that arrive
/// while the database is asked share the next question: one statement for up to 200 of them.
#[derive(Debug, Clone)]
pub struct Standings(Batcher<Session, Standing>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    Over,
    /// The database did not say.
    Unknown,
}

impl Standings {
    /// Starts the task that asks.
    pub fn start(db: PgPool) -> Self {
        Self(Batcher::start(QUEUE_DEPTH, QUEUE_WAIT_MAX, move |sessions| {
            let db = db.clone();
            async move { ask(&db, &sessions).await }
        }))
    }

    /// Fails with [`IdentityError::Unauthenticated`] when the session is over, and with
    /// [`IdentityError::Unchecked`] when nobody can tell.
    pub async fn check(&self, session: Session) -> Result<(), IdentityError> {
        match self.0.run(session).await {
            Ok(Standing::Good) => Ok(()),
            Ok(Standing::Over) => Err(IdentityError::Unauthenticated),
            Ok(Standing::Unknown) | Err(_) => Err(IdentityError::Unchecked),
        }
    }
}

async fn ask(db: &PgPool, sessions: &[Session]) -> Vec<Standing> {
    match store::in_good_standing(db, sessions).await {
        Ok(good) => {
            let mut standings = vec![Standing::Over; sessions.len()];
            for position in good {
                if let Some(standing) = standings.get_mut(position) {
                    *standing = Standing::Good;
                }
            }
            standings
        }
        Err(error) => {
            // Once for all who asked; each of them is told to come back.
            tracing::warn!(%error, requests = sessions.len(), "sessions cannot be checked");
            vec![Standing::Unknown; sessions.len()]
        }
    }
}
