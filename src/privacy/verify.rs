use sqlx::PgConnection;

use super::{PrivacyError, store};
use crate::{
    context::Context,
    identity::{
        Account, Hasher, Password,
        accounts::{self, MailToken, Proven},
        sessions::{self, Opened, UserAgent},
    },
    kernel::rerun,
};

/// Opens the account that a mail's token and the password of its registration prove, and logs it in.
///
/// Guests' orders with the same e-mail address are the account's from then on, the newest
/// 1,000 of them; the guests' tokens go on reading them. The token works once.
pub async fn verify_email(
    cx: &Context,
    hasher: &Hasher,
    token: MailToken,
    password: Password,
    user_agent: &UserAgent,
) -> Result<(Account, Opened), PrivacyError> {
    let proven = accounts::prove(cx, hasher, token, password).await?;
    rerun(|| open(cx, &proven, user_agent), PrivacyError::database).await
}

/// More than anybody orders as a guest; a stranger who orders in somebody's name cannot make the
/// statement last.
const ADOPTED_MAX: i64 = 1_000;

async fn open(
    cx: &Context,
    proven: &Proven,
    user_agent: &UserAgent,
) -> Result<(Account, Opened), PrivacyError> {
    let mut tx = cx.db.begin().await?;
    match open_account(&mut tx, proven, user_agent).await {
        Ok(opened) => {
            tx.commit().await?;
            Ok(opened)
        }
        Err(error) => {
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}

async fn open_account(
    tx: &mut PgConnection,
    proven: &Proven,
    user_agent: &UserAgent,
) -> Result<(Account, Opened), PrivacyError> {
    let account = accounts::open_account(&mut *tx, proven).await?;
    store::adopt_guest_orders(&mut *tx, account.id, &account.email, ADOPTED_MAX).await?;
    let opened = sessions::open(tx, account.id, user_agent).await?;
    Ok((account, opened))
}
