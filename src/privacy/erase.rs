use std::collections::HashSet;

use sqlx::PgConnection;

use super::{PrivacyError, store};
use crate::{
    context::Context,
    identity::{
        Hasher, Password,
        accounts::{self, Leaving},
    },
    kernel::{OrderId, UserId, rerun},
    notifications,
    orders::{self, store::ERASED_EMAIL},
};

/// Forgets the user, who must know the password: their account, sessions and addresses are gone, and no order
/// and no mail on record names them any more.
///
/// What was bought, paid and sent back stays, without the person. Refused while an order of theirs waits for
/// its payment or money of one is on its way. Orders that guests placed with the user's address are erased,
/// too; one that is not settled keeps nobody from leaving, and is erased once it is.
pub async fn erase_account(
    cx: &Context,
    hasher: &Hasher,
    user_id: UserId,
    password: Password,
) -> Result<(), PrivacyError> {
    let leaving = accounts::leave(cx, hasher, user_id, password).await?;
    rerun(|| erase(cx, &leaving), PrivacyError::database).await
}

async fn erase(cx: &Context, leaving: &Leaving) -> Result<(), PrivacyError> {
    let mut tx = cx.db.begin().await?;
    match forget(&mut tx, leaving).await {
        Ok(()) => Ok(tx.commit().await?),
        Err(error) => {
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}

async fn forget(tx: &mut PgConnection, leaving: &Leaving) -> Result<(), PrivacyError> {
    let (user_id, email) = (leaving.user_id(), accounts::lock(&mut *tx, leaving).await?);
    let named = store::lock_named(&mut *tx, user_id, &email).await?;
    let ids: Vec<_> = named.iter().map(|order| order.id).collect();
    let unsettled: HashSet<_> = store::unsettled(&mut *tx, &ids).await?.into_iter().collect();
    if named.iter().any(|order| order.is_own && unsettled.contains(&order.id)) {
        return Err(PrivacyError::OpenOrders);
    }
    let (later, now): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| unsettled.contains(id));
    store::leave_over(&mut *tx, user_id, &later).await?;
    erase_orders(&mut *tx, &now, Some(&email)).await?;
    accounts::erase(tx, leaving).await?;
    Ok(())
}

/// Takes the shopper out of the locked orders and of the mails about them, and out of those to the address.
async fn erase_orders(
    tx: &mut PgConnection,
    ids: &[OrderId],
    email: Option<&str>,
) -> sqlx::Result<()> {
    orders::store::erase(&mut *tx, ids).await?;
    let causes = store::mail_causes(&mut *tx, ids).await?;
    notifications::store::erase(tx, email, &causes, ERASED_EMAIL).await
}

/// How many orders one transaction takes: few, as there are hardly ever any.
const LEFT_OVER_SLICE: i64 = 100;

/// How many erased accounts one statement forgets.
const PURGE_SLICE: i64 = 1_000;

/// Takes the shopper out of orders that an erasure has left over, once these are settled; returns how many.
/// A checkout that was let in before the erasure may commit after it, and what a guest ordered with the
/// user's address does not hold it up. When none is left, forgets the erased accounts without any.
pub async fn erase_left_over(cx: &Context) -> Result<usize, PrivacyError> {
    let mut tx = cx.db.begin().await?;
    match erase_slice(&mut tx).await {
        Ok(erased) => {
            tx.commit().await?;
            if erased == 0 {
                store::purge_erased(&cx.db, PURGE_SLICE).await?;
            }
            Ok(erased)
        }
        Err(error) => {
            let _ = tx.rollback().await;
            Err(error.into())
        }
    }
}

async fn erase_slice(tx: &mut PgConnection) -> sqlx::Result<usize> {
    let mut ids = store::lock_left_over(&mut *tx, LEFT_OVER_SLICE).await?;
    let unsettled = store::unsettled(&mut *tx, &ids).await?;
    ids.retain(|id| !unsettled.contains(id));
    erase_orders(tx, &ids, None).await?;
    Ok(ids.len())
}
