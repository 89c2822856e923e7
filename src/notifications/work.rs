//! The mailer's jobs.

use jobs::notifications::{
    SendOrderConfirmed, SendOrderReceived, SendPaymentFailed, SendRefundMade,
    SendReservationExpired,
};
use uuid::Uuid;

use super::{
    Template,
    deliver::{Occasion, deliver},
};
use crate::{
    context::Context,
    worker::{Claimed, Handle, Verdict, each},
};

impl Handle for SendOrderReceived {
    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        each(claimed, async |job: Self| {
            deliver(cx, of_order(job.order_id, Template::OrderReceived)).await
        })
        .await
    }
}

impl Handle for SendReservationExpired {
    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        each(claimed, async |job: Self| {
            deliver(cx, of_order(job.order_id, Template::ReservationExpired)).await
        })
        .await
    }
}

impl Handle for SendOrderConfirmed {
    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        each(claimed, async |job: Self| {
            deliver(cx, of_order(job.order_id, Template::OrderConfirmed)).await
        })
        .await
    }
}

impl Handle for SendPaymentFailed {
    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        each(claimed, async |job: Self| {
            let occasion = Occasion {
                template: Template::PaymentFailed,
                order_id: job.order_id.into(),
                // An order may see several payments fail, and each is news.
                cause_id: job.payment_id,
            };
            deliver(cx, occasion).await
        })
        .await
    }
}

impl Handle for SendRefundMade {
    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        each(claimed, async |job: Self| {
            let occasion = Occasion {
                template: Template::RefundMade,
                order_id: job.order_id.into(),
                // The money of an order may go back in parts, and each is news.
                cause_id: job.refund_id,
            };
            deliver(cx, occasion).await
        })
        .await
    }
}

/// What happens to an order once.
fn of_order(order_id: Uuid, template: Template) -> Occasion {
    Occasion { template, order_id: order_id.into(), cause_id: order_id }
}
