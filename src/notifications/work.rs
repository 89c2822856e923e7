//! The mailer's jobs.

use jobs::notifications::{SendOrderReceived, SendReservationExpired};

use super::{Template, deliver};
use crate::{
    context::Context,
    worker::{Claimed, Handle, Verdict, each},
};

impl Handle for SendOrderReceived {
    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        each(claimed, async |job: Self| {
            deliver(cx, job.order_id.into(), Template::OrderReceived).await
        })
        .await
    }
}

impl Handle for SendReservationExpired {
    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        each(claimed, async |job: Self| {
            deliver(cx, job.order_id.into(), Template::ReservationExpired).await
        })
        .await
    }
}
