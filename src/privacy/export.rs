use time::OffsetDateTime;

use super::{
    PrivacyError,
    store::{self, GuestOrder, OrderRefund},
};
use crate::{
    context::Context,
    identity::{
        accounts::{self, Address, Profile},
        sessions::{self, Listed, Over},
    },
    kernel::{self, UserId},
    notifications::store::{self as mails, Delivery},
    orders::{self, Order},
};

/// How many orders, and how much of whatever else has no limit of its own, an export holds: the newest. One answer stays within a few megabytes;
/// `GET /v1/orders` has every order, page by page.
const EXPORTED_MAX: i64 = 1_000;

/// What the shop keeps of a user: the account, its addresses, sessions, orders, their refunds, and mails.
///
/// Without secrets and their digests, and without the records that the books and the machinery keep of
/// orders: payments, stock, webhooks, audits.
#[derive(Debug)]
pub struct Export {
    pub at: OffsetDateTime,
    pub profile: Profile,
    pub addresses: Vec<Address>,
    pub sessions: Vec<Listed>,
    /// Sessions that ended within the last week.
    pub ended_sessions: Vec<Over>,
    pub orders: Vec<Order>,
    pub guest_orders: Vec<GuestOrder>,
    /// Those of `orders`.
    pub refunds: Vec<OrderRefund>,
    /// Those to the account's address, and those about `orders`.
    pub mails: Vec<Delivery>,
    /// No list was cut for its length.
    pub is_complete: bool,
}

/// Collects what the shop keeps of the user: the account, addresses, sessions, orders of their own or taken
/// over from a guest with their refunds and mails, and which orders guests placed with their address.
pub async fn export(cx: &Context, user_id: UserId) -> Result<Export, PrivacyError> {
    let db = &cx.db;
    let profile = accounts::find_profile(db, user_id).await?;
    let addresses = accounts::list_addresses(db, user_id).await?;
    let sessions = sessions::list(db, user_id).await?;
    let mut orders = orders::list_orders(db, user_id.into(), None, EXPORTED_MAX + 1).await?;
    let ids: Vec<_> = orders.iter().map(|order| order.id).collect();
    let mut ended_sessions = sessions::list_over(db, user_id, EXPORTED_MAX + 1).await?;
    let mut guest_orders = store::guest_orders(db, &profile.email, EXPORTED_MAX + 1).await?;
    let mut refunds = store::refunds(db, &ids, EXPORTED_MAX + 1).await?;
    let causes = store::mail_causes(db, &ids).await?;
    let mut mails = mails::list_for(db, &profile.email, &causes, EXPORTED_MAX + 1).await?;
    let max = usize::try_from(EXPORTED_MAX).unwrap_or(usize::MAX);
    let longest =
        [orders.len(), mails.len(), ended_sessions.len(), guest_orders.len(), refunds.len()]
            .into_iter()
            .max();
    let is_complete = longest <= Some(max);
    orders.truncate(max);
    mails.truncate(max);
    ended_sessions.truncate(max);
    guest_orders.truncate(max);
    refunds.truncate(max);
    let at = kernel::time::now();
    Ok(Export {
        at,
        profile,
        addresses,
        sessions,
        ended_sessions,
        orders,
        guest_orders,
        refunds,
        mails,
        is_complete,
    })
}
