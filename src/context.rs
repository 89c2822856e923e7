//! The outside world that use cases need.

use std::time::Duration;

use serde::Serialize;
use sqlx::PgPool;

use crate::clients::{Providers, smtp::Mailer};

/// What a use case reaches beyond its arguments. Cheap to clone; every clone shares its connections.
#[derive(Debug, Clone)]
pub struct Context {
    pub db: PgPool,
    /// Sends wake-ups for staged jobs and deadlines, off the caller's path.
    pub relay: jobs::Relay,
    /// How long an order keeps its stock without a payment.
    pub hold: Duration,
    /// Only in processes that send mail.
    pub mailer: Option<Mailer>,
    /// None in processes that ask no provider.
    pub providers: Providers,
    pub shop: Shop,
}

/// How the shop is called in mails, and where shoppers find it.
#[derive(Debug, Clone, Serialize)]
pub struct Shop {
    pub name: String,
    pub url: String,
}
