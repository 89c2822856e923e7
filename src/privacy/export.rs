use time::OffsetDateTime;

use super::PrivacyError;
use crate::{
    context::Context,
    identity::{
        accounts::{self, Address, Profile},
        sessions::{self, Listed},
    },
    kernel::{self, UserId},
    notifications::store::{self as mails, Delivery},
    orders::{self, Order},
};

/// How many orders and how many mails an export holds: the newest. One answer stays within a few megabytes;
/// `GET /v1/orders` has every order, page by page.
const EXPORTED_MAX: i64 = 1_000;

/// What the shop keeps of a user, but for secrets and their digests.
#[derive(Debug)]
pub struct Export {
    pub at: OffsetDateTime,
    pub profile: Profile,
    pub addresses: Vec<Address>,
    pub sessions: Vec<Listed>,
    pub orders: Vec<Order>,
    pub mails: Vec<Delivery>,
    /// Nothing was left out for its number.
    pub is_complete: bool,
}

/// Collects what the shop keeps of the user: the account, addresses, sessions that are not over, orders of
/// their own or taken over from a guest, and the mails to them.
pub async fn export(cx: &Context, user_id: UserId) -> Result<Export, PrivacyError> {
    let db = &cx.db;
    let profile = accounts::find_profile(db, user_id).await?;
    let addresses = accounts::list_addresses(db, user_id).await?;
    let sessions = sessions::list(db, user_id).await?;
    let mut orders = orders::list_orders(db, user_id.into(), None, EXPORTED_MAX + 1).await?;
    let ids: Vec<_> = orders.iter().map(|order| order.id).collect();
    let causes = super::store::mail_causes(db, &ids).await?;
    let mut mails = mails::list_for(db, &profile.email, &causes, EXPORTED_MAX + 1).await?;
    let max = usize::try_from(EXPORTED_MAX).unwrap_or(usize::MAX);
    let is_complete = orders.len() <= max && mails.len() <= max;
    orders.truncate(max);
    mails.truncate(max);
    let at = kernel::time::now();
    Ok(Export { at, profile, addresses, sessions, orders, mails, is_complete })
}
