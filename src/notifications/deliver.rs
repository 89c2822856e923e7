use uuid::Uuid;

use super::{NotificationError, Template, render::render, store};
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

/// Sends the shopper the mail, unless a mail server took it before or it is no longer true.
///
/// The caller makes sure that nobody else delivers the same mail at the same time: the job's lease does.
pub(super) async fn deliver(cx: &Context, occasion: Occasion) -> Result<(), NotificationError> {
    let Occasion { template, order_id, cause_id } = occasion;
    let mailer = cx.mailer.as_ref().ok_or(NotificationError::NoMailServer)?;
    let order = orders::find_any_order(&cx.db, order_id).await?;
    let sent_back = match template {
        Template::RefundMade => sent_back(cx, cause_id).await?,
        Template::OrderReceived
        | Template::ReservationExpired
        | Template::OrderConfirmed
        | Template::PaymentFailed => None,
    };
    if !template.is_due(order.status, sent_back.is_some()) {
        // An earlier try may have opened the delivery and failed.
        store::withdraw_unsent(&cx.db, cause_id, template.name()).await?;
        return Ok(());
    }
    let message_id = mailer.message_id(&format!("{}.{cause_id}", template.name()));
    let sent_at = store::open(&cx.db, cause_id, template.name(), &message_id, &order.email).await?;
    if sent_at.is_some() {
        return Ok(());
    }
    let words = render(template, &order, sent_back.as_deref(), &cx.shop)?;
    let mail = Mail {
        message_id,
        to: order.email,
        subject: words.subject,
        text: words.text,
        html: words.html,
    };
    failpoint::pass("mailer.before-send");
    mailer.send(&mail).await?;
    failpoint::pass("mailer.after-send");
    store::note_sent(&cx.db, cause_id, template.name()).await?;
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
