//! Holdfast, the order backend of a shop.
//!
//! Imports point one way:
//!
//! ```text
//! bin → boot, assembly, fleet, ctl → slices → web (api.rs), worker (work.rs), idempotency, context → clients → kernel
//! ```
//!
//! A slice owns its tables, types, SQL, endpoints and job handlers: `identity`, `catalog`,
//! `inventory`, `orders`, `payments`, `checkout`, `notifications`, `privacy`. `docs/architecture.md` says why.

pub mod assembly;
pub mod audit;
pub mod boot;
pub mod catalog;
pub mod checkout;
pub mod clients;
pub mod config;
pub mod context;
pub mod ctl;
pub mod doctor;
pub mod fleet;
pub mod idempotency;
pub mod identity;
pub mod inventory;
pub mod kernel;
pub mod notifications;
pub mod orders;
pub mod payments;
pub mod policies;
pub mod privacy;
pub mod web;
pub mod worker;

/// The schema, as migrations that are part of the program.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// Requests and jobs are many small pieces that live for a moment, and some wander from thread to
/// thread. The system's allocator took a fifth of the API's time (`./dev bench soldout`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
