use uuid::Uuid;

use super::{
    NotificationError, Template,
    render::{Rendered, render},
    store,
};
use crate::{
    clients::smtp::Mail,
    context::Context,
    kernel::{Money, OrderId, failpoint},
    orders,
    payments::refunds::{self, State},
};

/// What a mail is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Occasion {
    pub(super) template: Template,
    pub(super) order_id: OrderId,
    /// What happened: per cause and template there is one mail.
    pub(super) cause_id: Uuid,
}

/// Sends the shopper the mail, unless a mail server took it before, it is no longer true, or the shopper
/// was erased.
///
/// The caller makes sure that nobody else delivers the same mail at the same time: the job's lease does.
pub(super) async fn deliver(cx: &Context, occasion: Occasion) -> Result<(), NotificationError> {
    let Occasion { template, order_id, cause_id } = occasion;
    let order = orders::find_any_order(&cx.db, order_id).await?;
    let sent_back = match template {
        Template::RefundMade => sent_back(cx, cause_id).await?,
        Template::OrderReceived
        | Template::ReservationExpired
        | Template::OrderConfirmed
        | Template::PaymentFailed => None,
    };
    if order.is_erased || !template.is_due(order.status, sent_back.is_some()) {
        // An earlier try may have opened the delivery and failed.
        store::withdraw_unsent(&cx.db, cause_id, template.name()).await?;
        return Ok(());
    }
    let recipient = Recipient::ShopperOf(order_id);
    let letter = Letter { template: template.name(), cause_id, recipient };
    let words = async { Ok(Some(render(template, &order, sent_back.as_deref(), &cx.shop)?)) };
    deliver_once(cx, letter, words).await
}

/// A mail, as far as it is known before it is written.
pub(super) struct Letter<'a> {
    pub(super) template: &'static str,
    pub(super) cause_id: Uuid,
    pub(super) recipient: Recipient<'a>,
}

/// Who gets a letter.
#[derive(Clone, Copy)]
pub(super) enum Recipient<'a> {
    Address(&'a str),
    /// Whom the order names when the delivery is opened: nobody, if the shopper was erased meanwhile.
    ShopperOf(OrderId),
}

/// Sends the letter, unless a mail server took it before; only then the `words` are found, and without words
/// there is no letter.
pub(super) async fn deliver_once(
    cx: &Context,
    letter: Letter<'_>,
    words: impl Future<Output = Result<Option<Rendered>, NotificationError>>,
) -> Result<(), NotificationError> {
    let Letter { template, cause_id, recipient } = letter;
    let mailer = cx.mailer.as_ref().ok_or(NotificationError::NoMailServer)?;
    let message_id = mailer.message_id(&format!("{template}.{cause_id}"));
    let opened = match recipient {
        Recipient::Address(address) => {
            Some(store::open(&cx.db, cause_id, template, &message_id, address).await?)
        }
        Recipient::ShopperOf(order_id) => {
            store::open_for_order(&cx.db, cause_id, template, &message_id, order_id).await?
        }
    };
    let Some(opened) = opened else {
        return Ok(store::withdraw_unsent(&cx.db, cause_id, template).await?);
    };
    if opened.sent_at.is_some() {
        return Ok(());
    }
    let Some(words) = words.await? else {
        return Ok(store::withdraw_unsent(&cx.db, cause_id, template).await?);
    };
    let mail = Mail {
        message_id,
        to: opened.recipient,
        subject: words.subject,
        text: words.text,
        html: words.html,
    };
    failpoint::pass("mailer.before-send");
    mailer.send(&mail).await?;
    failpoint::pass("mailer.after-send");
    store::note_sent(&cx.db, cause_id, template).await?;
    Ok(())
}

/// The amount of a refund as a person reads it; `None` where the money came back to us.
async fn sent_back(cx: &Context, refund_id: Uuid) -> Result<Option<String>, NotificationError> {
    let refund = refunds::store::find(&cx.db, refund_id.into()).await?;
    let made = refund.filter(|refund| refund.state == State::Succeeded);
    Ok(made.map(|refund| {
        let currency = refund.currency.parse();
        let amount = currency.and_then(|currency| Money::new(refund.amount_minor, currency));
        amount.map_or(refund.currency, |amount| amount.to_string())
    }))
}
