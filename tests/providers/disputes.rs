//! Money that the shoppers' banks ask back, and what became of that.

use holdfast::payments::{
    self,
    gateway::{DisputeStanding, disputes_of, look_at_dispute},
};
use simulator::providers::{Operation, Provider, Verdict};

use crate::{World, answer, answering, context};

#[tokio::test]
async fn a_dispute_stands_where_the_bank_left_it() {
    let world = World::start().await;
    let cx = world.cx();
    for (there, here) in [
        (Provider::Stripe, payments::Provider::Stripe),
        (Provider::Razorpay, payments::Provider::Razorpay),
    ] {
        for (verdict, standing) in
            [(Verdict::Won, DisputeStanding::Won), (Verdict::Lost, DisputeStanding::Lost)]
        {
            let charge = world.charge(there, 1_000, "INR");
            let id = world.providers.dispute(&charge).unwrap();

            let open = look_at_dispute(&cx, here, &id).await.unwrap().unwrap();
            world.providers.close_dispute(&id, verdict).unwrap();
            let closed = look_at_dispute(&cx, here, &id).await.unwrap().unwrap();

            assert_eq!((open.standing, closed.standing), (DisputeStanding::Open, standing));
            assert_eq!((&*open.provider_ref, &*open.charge_ref), (&*id, &*charge));
            assert_eq!((open.amount_minor, &*open.currency), (1_000, "INR"));
            assert!(open.reason.is_some());
        }
        assert_eq!(look_at_dispute(&cx, here, "none").await.unwrap(), None);
    }
}

#[tokio::test]
async fn the_disputes_of_a_charge_are_found_among_others() {
    let world = World::start().await;
    let cx = world.cx();
    for (there, here) in [
        (Provider::Stripe, payments::Provider::Stripe),
        (Provider::Razorpay, payments::Provider::Razorpay),
    ] {
        let (charge, calm) = (world.charge(there, 1_000, "INR"), world.charge(there, 1_000, "INR"));
        let id = world.providers.dispute(&charge).unwrap();
        for _ in 0..120 {
            world.providers.dispute(&world.charge(there, 100, "INR")).unwrap();
        }

        let found = disputes_of(&cx, here, &charge).await.unwrap();

        assert_eq!(found.iter().map(|dispute| &*dispute.provider_ref).collect::<Vec<_>>(), [&*id]);
        assert_eq!(disputes_of(&cx, here, &calm).await.unwrap(), []);
    }
    // Razorpay lists them for all charges together, page by page.
    assert_eq!(world.providers.calls(Operation::ListPaymentDisputes), 4);
}

#[tokio::test]
async fn both_providers_words_for_a_dispute_are_understood() {
    let world = World::start().await;
    for (status, standing) in [
        ("warning_needs_response", DisputeStanding::Open),
        ("warning_under_review", DisputeStanding::Open),
        ("needs_response", DisputeStanding::Open),
        ("under_review", DisputeStanding::Open),
        ("brand_new", DisputeStanding::Open),
        ("warning_closed", DisputeStanding::Closed),
        ("prevented", DisputeStanding::Closed),
        ("won", DisputeStanding::Won),
        ("lost", DisputeStanding::Lost),
    ] {
        let body = format!(
            r#"{{"id":"du_1","charge":"ch_1","payment_intent":"pi_1","amount":5,"currency":"usd","status":"{status}","reason":"fraudulent"}}"#
        );
        let (url, _asked) = answering(answer("200 OK", "", &body)).await;
        let cx = context(&crate::stripe(&url, &["sk_test_1"]), &world.razorpay);

        let dispute = look_at_dispute(&cx, payments::Provider::Stripe, "du_1").await;

        let dispute = dispute.unwrap().unwrap();
        assert_eq!((&*dispute.status, dispute.standing), (status, standing));
    }
    for (status, standing) in [
        ("open", DisputeStanding::Open),
        ("under_review", DisputeStanding::Open),
        ("closed", DisputeStanding::Closed),
    ] {
        let body = format!(
            r#"{{"id":"disp_1","payment_id":"pay_1","amount":5,"currency":"INR","status":"{status}"}}"#
        );
        let (url, _asked) = answering(answer("200 OK", "", &body)).await;
        let cx = context(&world.stripe, &crate::razorpay(&url, &[("rzp_test_1", "x")]));

        let dispute = look_at_dispute(&cx, payments::Provider::Razorpay, "disp_1").await;

        let dispute = dispute.unwrap().unwrap();
        assert_eq!((&*dispute.status, dispute.standing), (status, standing));
    }
}
