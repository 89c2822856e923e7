use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::store;
use crate::{identity::IdentityError, kernel::UserId};

/// How many addresses an account keeps: more than a person sends parcels to, few enough for one answer.
pub const ADDRESSES_MAX: i64 = 50;

/// An address that a user has kept.
#[derive(Debug, Clone)]
pub struct Address {
    pub id: Uuid,
    /// As in an order.
    pub address: Value,
    pub is_default: bool,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// An address as its user wants it kept.
#[derive(Clone)]
pub struct NewAddress {
    pub address: Value,
    /// Makes it the one that is offered first; no other one is, then.
    pub is_default: bool,
}

/// The user's addresses, the oldest first.
pub async fn list_addresses(db: &PgPool, user_id: UserId) -> Result<Vec<Address>, IdentityError> {
    Ok(store::addresses(db, user_id, ADDRESSES_MAX).await?)
}

/// The user's address of that id.
pub async fn find_address(
    db: &PgPool,
    user_id: UserId,
    id: Uuid,
) -> Result<Address, IdentityError> {
    store::address(db, user_id, id).await?.ok_or(IdentityError::UnknownAddress)
}

/// Keeps one more address, up to [`ADDRESSES_MAX`]. A user's first one is their default.
pub async fn add_address(
    db: &PgPool,
    user_id: UserId,
    new: &NewAddress,
) -> Result<Address, IdentityError> {
    let id = Uuid::now_v7();
    with_user(db, user_id, async |tx| {
        let kept = store::count_addresses(&mut *tx, user_id).await?;
        if kept >= ADDRESSES_MAX {
            return Err(IdentityError::TooManyAddresses);
        }
        let is_default = new.is_default || kept == 0;
        if is_default {
            store::clear_default(&mut *tx, user_id).await?;
        }
        Ok(store::insert_address(tx, user_id, id, &new.address, is_default).await?)
    })
    .await
}

/// Writes another address in the place of one, which keeps its id.
pub async fn change_address(
    db: &PgPool,
    user_id: UserId,
    id: Uuid,
    new: &NewAddress,
) -> Result<Address, IdentityError> {
    with_user(db, user_id, async |tx| {
        if new.is_default {
            store::clear_default(&mut *tx, user_id).await?;
        }
        let changed = store::update_address(tx, user_id, id, &new.address, new.is_default).await?;
        changed.ok_or(IdentityError::UnknownAddress)
    })
    .await
}

/// Forgets the address. Orders that were sent there keep their copy.
pub async fn remove_address(db: &PgPool, user_id: UserId, id: Uuid) -> Result<(), IdentityError> {
    if store::delete_address(db, user_id, id).await? {
        return Ok(());
    }
    Err(IdentityError::UnknownAddress)
}

/// Does the work in a transaction in which nobody else changes the user's addresses.
async fn with_user<T>(
    db: &PgPool,
    user_id: UserId,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, IdentityError>,
) -> Result<T, IdentityError> {
    let mut tx = db.begin().await?;
    let worked = match store::lock_user(&mut *tx, user_id).await {
        Ok(true) => work(&mut tx).await,
        Ok(false) => Err(IdentityError::Unauthenticated),
        Err(error) => Err(error.into()),
    };
    match worked {
        Ok(done) => {
            tx.commit().await?;
            Ok(done)
        }
        Err(error) => {
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}

/// Written without the address, which has no place in a log.
impl std::fmt::Debug for NewAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewAddress").field("is_default", &self.is_default).finish_non_exhaustive()
    }
}
