use super::{NotificationError, Template, render::render, store};
use crate::{
    clients::smtp::Mail,
    context::Context,
    kernel::{OrderId, failpoint},
    orders,
};

/// Sends the shopper the mail about the order, unless a mail server took it before.
///
/// The caller makes sure that nobody else delivers the same mail at the same time: the job's lease does.
pub async fn deliver(
    cx: &Context,
    order_id: OrderId,
    template: Template,
) -> Result<(), NotificationError> {
    let mailer = cx.mailer.as_ref().ok_or(NotificationError::NoMailServer)?;
    let order = orders::find_any_order(&cx.db, order_id).await?;
    let message_id = mailer.message_id(&format!("{}.{order_id}", template.name()));
    let cause = order_id.uuid();
    let sent_at = store::open(&cx.db, cause, template.name(), &message_id, &order.email).await?;
    if sent_at.is_some() {
        return Ok(());
    }
    let words = render(template, &order, &cx.shop)?;
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
    store::note_sent(&cx.db, cause, template.name()).await?;
    Ok(())
}
