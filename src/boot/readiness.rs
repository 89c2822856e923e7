//! Whether a process can do its work: the database answers, with a schema that is not older than we are.

use std::{fmt, time::Duration};

use sqlx::{
    PgPool,
    migrate::{Migrate, MigrateError},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    sync::watch,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::store;
use crate::MIGRATOR;

/// How late a probe learns what has changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A database that takes longer to say which migrations it has does not answer.
const LOOK_MAX: Duration = Duration::from_secs(2);

const UNDEFINED_TABLE: &str = "42P01";

/// Why no work should be sent to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    Starting,
    Stopping,
    NoDatabase,
    /// This migration is missing, and perhaps later ones.
    OldSchema(i64),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => write!(f, "starting"),
            Self::Stopping => write!(f, "stopping"),
            Self::NoDatabase => write!(f, "the database does not answer"),
            Self::OldSchema(version) => {
                write!(f, "the database lacks migration {version}; run `ctl migrate`")
            }
        }
    }
}

/// What is known, at most [`LOOK_EVERY`] old. Probes cost the database nothing.
#[derive(Debug, Clone)]
pub(super) struct Readiness {
    seen: watch::Receiver<Option<Obstacle>>,
    shutdown: CancellationToken,
}

impl Readiness {
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        if self.shutdown.is_cancelled() {
            return Some(Obstacle::Stopping);
        }
        *self.seen.borrow()
    }
}

/// Looks at the database from now on, and logs every change.
///
/// Over a connection of its own: a process whose pool is busy is not ill, and taking it out of
/// service would only make the others busier.
pub(super) fn watch(options: PgConnectOptions, shutdown: CancellationToken) -> Readiness {
    let (sender, seen) = watch::channel(Some(Obstacle::Starting));
    let db = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    tokio::spawn(async move {
        let mut clock = interval(LOOK_EVERY);
        let mut is_role_known = false;
        loop {
            clock.tick().await;
            let looked = timeout(LOOK_MAX, look(&db)).await;
            let obstacle = looked.unwrap_or(Some(Obstacle::NoDatabase));
            if obstacle.is_none() && !is_role_known {
                let mighty = timeout(LOOK_MAX, store::is_mighty(&db)).await;
                is_role_known = matches!(mighty, Ok(Ok(_)));
                if let Ok(Ok(true)) = mighty {
                    tracing::warn!(
                        "the role of DATABASE_URL can change the schema and rewrite what happened; \
                         give the processes one of their own (`ctl migrate` with APP_ROLE)"
                    );
                }
            }
            if sender.send_replace(obstacle) != obstacle {
                report(obstacle);
            }
        }
    });
    Readiness { seen, shutdown }
}

async fn look(db: &PgPool) -> Option<Obstacle> {
    let Ok(mut connection) = db.acquire().await else { return Some(Obstacle::NoDatabase) };
    let applied = match connection.list_applied_migrations(&MIGRATOR.table_name).await {
        Ok(applied) => applied,
        Err(MigrateError::Execute(error)) if is_undefined_table(&error) => Vec::new(),
        Err(_) => return Some(Obstacle::NoDatabase),
    };
    // The schema may be newer: migrations leave the programs before them able to work.
    let is_missing = |version| applied.iter().all(|migration| migration.version != version);
    MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .find(|version| is_missing(*version))
        .map(Obstacle::OldSchema)
}

fn is_undefined_table(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.as_deref() == Some(UNDEFINED_TABLE)
}

fn report(obstacle: Option<Obstacle>) {
    match obstacle {
        None => tracing::info!("ready"),
        Some(obstacle) => tracing::warn!(reason = %obstacle, "not ready"),
    }
}
