//! The mailer's jobs.

use jobs::notifications::{
    SendAccountMail, SendEmailChanged, SendOrderConfirmed, SendOrderReceived, SendPasswordChanged,
    SendPaymentFailed, SendRefundMade, SendReservationExpired, SendSessionRevoked,
};
use uuid::Uuid;

use super::{
    Template,
    account::{self, Notice},
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

impl Handle for SendAccountMail {
    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        each(claimed, async |job: Self| account::answer_request(cx, job.request_id).await).await
    }
}

impl Handle for SendPasswordChanged {
    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        each(claimed, async |job: Self| {
            account::tell(cx, Notice::PasswordChanged, job.user_id.into(), job.change_id).await
        })
        .await
    }
}

impl Handle for SendEmailChanged {
    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        each(claimed, async |job: Self| account::tell_email_before(cx, job.request_id).await).await
    }
}

impl Handle for SendSessionRevoked {
    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        each(claimed, async |job: Self| {
            account::tell(cx, Notice::SessionRevoked, job.user_id.into(), job.session_id).await
        })
        .await
    }
}

/// What happens to an order once.
fn of_order(order_id: Uuid, template: Template) -> Occasion {
    Occasion { template, order_id: order_id.into(), cause_id: order_id }
}
