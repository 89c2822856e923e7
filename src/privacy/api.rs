//! Opening an account, and what is known of its user: to see, to change, to have erased.

use poem::Request;
use poem_openapi::{
    ApiResponse, Object, OpenApi, Tags,
    payload::Json,
    types::{MaybeUndefined, Password as Secret},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Export, GuestOrder, OrderRefund, erase_account, export, verify_email};
use crate::{
    context::Context,
    identity::{
        Callers, Customer, Hasher, IdentityError,
        accounts::{self, DisplayName, MailToken},
        api::{
            AccountBody, KeptAddressBody, LoggedIn, OpenSessionBody, SessionBody, parse_current,
            user_agent,
        },
        sessions::Over,
    },
    notifications::store::Delivery,
    orders::api::OrderBody,
    web::{MoneyBody, Problem},
};

#[derive(Debug)]
pub struct PrivacyApi {
    cx: Context,
    callers: Callers,
    hasher: Hasher,
}

impl PrivacyApi {
    pub fn new(cx: Context, callers: Callers, hasher: Hasher) -> Self {
        Self { cx, callers, hasher }
    }
}

#[derive(Debug, Tags)]
enum Tag {
    /// Accounts, logins and guests.
    Auth,
}

#[OpenApi(prefix_path = "/v1/auth", tag = "Tag::Auth")]
impl PrivacyApi {
    /// Open the account that was asked for
    ///
    /// With the token in the mail's link, and the password that was chosen when it was asked for: so that
    /// nobody opens an account to which a stranger knows the password. The answer logs the account in. What
    /// was ordered as a guest with the same e-mail address is the account's, too.
    #[oai(path = "/verify-email", method = "post", operation_id = "verifyEmail")]
    async fn verify_email(
        &self,
        request: &Request,
        body: Json<VerifyBody>,
    ) -> Result<VerifyResponse, Problem> {
        let token = MailToken::parse(&body.0.token)?;
        let password = parse_current(&body.0.password)?;
        let agent = user_agent(request);
        let (account, opened) =
            verify_email(&self.cx, &self.hasher, token, password, &agent).await?;
        let LoggedIn { body, cookie } = self.callers.logged_in(&account, &opened)?;
        Ok(VerifyResponse::Opened(Json(body), "no-store".to_owned(), cookie))
    }

    /// Who am I
    ///
    /// The account that the access token stands for. A guest has none.
    #[oai(path = "/me", method = "get", operation_id = "getMe")]
    async fn me(&self, customer: Customer) -> Result<MeResponse, Problem> {
        let profile = accounts::find_profile(&self.cx.db, customer.user_id()).await?;
        Ok(MeResponse::Ok(Json(profile.into()), "no-store".to_owned()))
    }

    /// Change my account
    ///
    /// What is left out stays as it is.
    #[oai(path = "/me", method = "patch", operation_id = "changeMe")]
    async fn change_me(
        &self,
        customer: Customer,
        body: Json<ChangeBody>,
    ) -> Result<MeResponse, Problem> {
        let (db, user_id) = (&self.cx.db, customer.user_id());
        let profile = match body.0.display_name {
            MaybeUndefined::Undefined => accounts::find_profile(db, user_id).await?,
            MaybeUndefined::Null => accounts::rename(db, user_id, None).await?,
            MaybeUndefined::Value(name) => {
                let name = DisplayName::parse(&name)
                    .map_err(|error| IdentityError::Invalid(vec![error.at("/display_name")]))?;
                accounts::rename(db, user_id, Some(name)).await?
            }
        };
        Ok(MeResponse::Ok(Json(profile.into()), "no-store".to_owned()))
    }

    /// Get what is kept of me
    ///
    /// The account, its addresses, its sessions and those that ended within a week, its orders with their
    /// refunds, and the records of mails to its address or about its orders; at most the newest 1,000 of each
    /// (`listOrders` has every order). Of orders that guests placed with the account's address since it was
    /// opened only that they are there: whoever placed them need not be its owner. Not in it: secrets, what
    /// the books hold of payments and stock, what providers sent about them, audits and logs.
    #[oai(path = "/me/export", method = "get", operation_id = "exportMe")]
    async fn export(&self, customer: Customer) -> Result<ExportResponse, Problem> {
        let export = export(&self.cx, customer.user_id()).await?;
        let body = ExportBody::new(export, &customer)?;
        Ok(ExportResponse::Ok(Json(body), "no-store".to_owned()))
    }

    /// Forget me
    ///
    /// The account, its sessions and its addresses are removed; orders, and the record of mails, no longer
    /// name the shopper. That goes for orders that guests placed with the account's address, too, or as soon
    /// as they are settled. What was bought and paid stays on the books. Refused with `open-orders` while an
    /// order waits for its payment or its money is on the way, and with `staff-account` for members of staff.
    #[oai(path = "/me", method = "delete", operation_id = "eraseMe")]
    async fn erase(
        &self,
        customer: Customer,
        body: Json<PasswordBody>,
    ) -> Result<EraseResponse, Problem> {
        let password = parse_current(&body.0.password)?;
        erase_account(&self.cx, &self.hasher, customer.user_id(), password).await?;
        Ok(EraseResponse::Forgotten)
    }
}

#[derive(Object)]
#[oai(rename = "EmailVerification", deny_unknown_fields)]
struct VerifyBody {
    /// From the mail's link.
    token: String,
    /// The one that was chosen when the account was asked for.
    password: Secret,
}

#[derive(Object)]
#[oai(rename = "AccountChange", deny_unknown_fields)]
struct ChangeBody {
    /// 1 to 100 characters; `null` takes the name away.
    display_name: MaybeUndefined<String>,
}

#[derive(Object)]
#[oai(rename = "PasswordOnly", deny_unknown_fields)]
struct PasswordBody {
    password: Secret,
}

#[derive(Object)]
#[oai(rename = "Export")]
struct ExportBody {
    exported_at: OffsetDateTime,
    account: AccountBody,
    addresses: Vec<KeptAddressBody>,
    /// Those that are not over.
    sessions: Vec<OpenSessionBody>,
    /// Those that are over, the last one first. They are forgotten a week after their end.
    ended_sessions: Vec<EndedSessionBody>,
    /// The newest first, those that were taken over from a guest among them.
    orders: Vec<OrderBody>,
    /// Orders of no account that guests placed with this address since the account was opened, the newest
    /// first.
    guest_orders: Vec<GuestOrderBody>,
    /// Of `orders`, the newest first.
    refunds: Vec<ExportedRefundBody>,
    /// Those to the account's address and those about `orders`, the newest first.
    mails: Vec<MailBody>,
    /// Whether every list above is whole: none had more than 1,000 to hold. It says nothing of what the
    /// export does not cover.
    is_complete: bool,
}

#[derive(Object)]
#[oai(rename = "EndedSession")]
struct EndedSessionBody {
    id: Uuid,
    /// What the client last called itself.
    user_agent: String,
    created_at: OffsetDateTime,
    last_used_at: OffsetDateTime,
    ended_at: OffsetDateTime,
    /// `logged_out`, `logged_out_everywhere`, `revoked`, `password_changed`, `token_reused` or `too_many`;
    /// `null` if it ended by itself.
    ended_for: Option<String>,
}

#[derive(Object)]
#[oai(rename = "GuestOrder")]
struct GuestOrderBody {
    id: Uuid,
    number: String,
    placed_at: OffsetDateTime,
}

#[derive(Object)]
#[oai(rename = "ExportedRefund")]
struct ExportedRefundBody {
    id: Uuid,
    order_id: Uuid,
    amount: MoneyBody,
    /// `requested`, `pending`, `succeeded` or `failed`.
    state: String,
    created_at: OffsetDateTime,
}

#[derive(Object)]
#[oai(rename = "MailRecord")]
struct MailBody {
    /// What the mail was about: `order-received`, `verify-email`.
    template: String,
    recipient: String,
    created_at: OffsetDateTime,
    /// When the mail server took it; `null` if it has not yet.
    sent_at: Option<OffsetDateTime>,
}

impl ExportBody {
    fn new(export: Export, customer: &Customer) -> Result<Self, IdentityError> {
        let current = customer.session_id();
        Ok(Self {
            exported_at: export.at,
            account: export.profile.into(),
            addresses: export
                .addresses
                .into_iter()
                .map(KeptAddressBody::try_from)
                .collect::<Result<_, _>>()?,
            sessions: export
                .sessions
                .into_iter()
                .map(|listed| OpenSessionBody::new(listed, current))
                .collect(),
            orders: export.orders.into_iter().map(OrderBody::from).collect(),
            ended_sessions: export.ended_sessions.into_iter().map(EndedSessionBody::from).collect(),
            guest_orders: export.guest_orders.into_iter().map(GuestOrderBody::from).collect(),
            refunds: export.refunds.into_iter().map(ExportedRefundBody::from).collect(),
            mails: export.mails.into_iter().map(MailBody::from).collect(),
            is_complete: export.is_complete,
        })
    }
}

impl From<Over> for EndedSessionBody {
    fn from(over: Over) -> Self {
        Self {
            id: over.id.uuid(),
            user_agent: over.user_agent,
            created_at: over.created_at,
            last_used_at: over.last_used_at,
            ended_at: over.ended_at,
            ended_for: over.why,
        }
    }
}

impl From<GuestOrder> for GuestOrderBody {
    fn from(order: GuestOrder) -> Self {
        Self { id: order.id.uuid(), number: order.number, placed_at: order.placed_at }
    }
}

impl From<OrderRefund> for ExportedRefundBody {
    fn from(refund: OrderRefund) -> Self {
        Self {
            id: refund.id,
            order_id: refund.order_id,
            amount: MoneyBody { amount: refund.amount_minor, currency: refund.currency },
            state: refund.state,
            created_at: refund.created_at,
        }
    }
}

impl From<Delivery> for MailBody {
    fn from(delivery: Delivery) -> Self {
        Self {
            template: delivery.template,
            recipient: delivery.recipient,
            created_at: delivery.created_at,
            sent_at: delivery.sent_at,
        }
    }
}

#[derive(ApiResponse)]
enum VerifyResponse {
    /// The account exists, and this logs it in.
    #[oai(status = 201)]
    Opened(
        Json<SessionBody>,
        #[oai(header = "Cache-Control")] String,
        /// The refresh token.
        #[oai(header = "Set-Cookie")]
        String,
    ),
}

#[derive(ApiResponse)]
enum ExportResponse {
    /// What is kept.
    #[oai(status = 200)]
    Ok(Json<ExportBody>, #[oai(header = "Cache-Control")] String),
}

#[derive(ApiResponse)]
enum EraseResponse {
    /// The account is gone.
    #[oai(status = 204)]
    Forgotten,
}

#[derive(ApiResponse)]
enum MeResponse {
    /// The caller's account.
    #[oai(status = 200)]
    Ok(Json<AccountBody>, #[oai(header = "Cache-Control")] String),
}
