//! Money that comes in or goes back: what is done about a provider's news, and what a provider is
//! asked to do.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Job, Lane};

/// Acts on one webhook of the inbox. Asks nobody: what cannot be judged from the webhook alone is
/// left to [`ReviewPayment`].
///
/// Safe to repeat: the money is recorded once under the provider's name for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleEvent {
    pub event_id: Uuid,
}

impl Job for SettleEvent {
    const KIND: &'static str = "checkout.settle-event";
    const LANE: Lane = Lane::Settling;

    fn dedupe_key(&self) -> Option<String> {
        Some(format!("settle-event:{}", self.event_id))
    }
}

/// Asks the provider how a payment stands and acts on the answer.
///
/// Safe to repeat: it only reads at the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewPayment {
    /// `stripe` or `razorpay`.
    pub provider: String,
    /// The provider's name for it: `pi_…` or `order_…`.
    pub provider_ref: String,
    /// The webhook that gave cause to ask, which is finished with the answer.
    pub event_id: Option<Uuid>,
}

impl Job for ReviewPayment {
    const KIND: &'static str = "checkout.review-payment";
    const LANE: Lane = Lane::Providers;

    fn dedupe_key(&self) -> Option<String> {
        self.event_id.map(|id| format!("review-payment:{id}"))
    }
}

/// Withdraws an attempt to pay at its provider, so that nobody can pay it any more.
///
/// Safe to repeat: a cancelled payment stays cancelled, and one that was paid meanwhile is settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelPayment {
    pub payment_id: Uuid,
}

impl Job for CancelPayment {
    const KIND: &'static str = "checkout.cancel-payment";
    const LANE: Lane = Lane::Providers;

    fn dedupe_key(&self) -> Option<String> {
        Some(format!("cancel-payment:{}", self.payment_id))
    }
}

/// Collects money that the shopper's bank has set aside, while the order still wants it.
///
/// Safe to repeat: a provider captures an authorisation once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturePayment {
    pub payment_id: Uuid,
    /// The provider's name for the money: `pi_…` or `pay_…`.
    pub charge_ref: String,
}

impl Job for CapturePayment {
    const KIND: &'static str = "checkout.capture-payment";
    const LANE: Lane = Lane::Providers;

    fn dedupe_key(&self) -> Option<String> {
        Some(format!("capture-payment:{}:{}", self.payment_id, self.charge_ref))
    }
}

/// Has the provider send money back, or asks how that stands.
///
/// Safe to repeat: the refund's id is the key of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefundPayment {
    pub refund_id: Uuid,
}

impl Job for RefundPayment {
    const KIND: &'static str = "checkout.refund-payment";
    const LANE: Lane = Lane::Providers;
}

/// Asks the provider how a refund stands, ours or one that was made in its dashboard, and acts on the
/// answer.
///
/// Safe to repeat: it only reads at the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewRefund {
    /// `stripe` or `razorpay`.
    pub provider: String,
    /// The provider's name for it: `re_…` or `rfnd_…`.
    pub provider_ref: String,
    /// The webhook that gave cause to ask, which is finished with the answer.
    pub event_id: Option<Uuid>,
}

impl Job for ReviewRefund {
    const KIND: &'static str = "checkout.review-refund";
    const LANE: Lane = Lane::Providers;

    fn dedupe_key(&self) -> Option<String> {
        self.event_id.map(|id| format!("review-refund:{id}"))
    }
}

/// Asks the provider how every refund of a charge stands and acts on the answers: some webhooks do not
/// say which refund they tell of.
///
/// Safe to repeat: it only reads at the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewRefundsOf {
    /// `stripe` or `razorpay`.
    pub provider: String,
    /// The provider's name for the money: `pi_…` or `pay_…`.
    pub charge_ref: String,
    /// The webhook that gave cause to ask, which is finished with the answer.
    pub event_id: Option<Uuid>,
}

impl Job for ReviewRefundsOf {
    const KIND: &'static str = "checkout.review-refunds-of";
    const LANE: Lane = Lane::Providers;

    fn dedupe_key(&self) -> Option<String> {
        self.event_id.map(|id| format!("review-refunds-of:{id}"))
    }
}

/// Asks the provider how a dispute stands and acts on the answer.
///
/// Safe to repeat: it only reads at the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewDispute {
    /// `stripe` or `razorpay`.
    pub provider: String,
    /// The provider's name for it: `dp_…`, `du_…` or `disp_…`.
    pub provider_ref: String,
    /// The webhook that gave cause to ask, which is finished with the answer.
    pub event_id: Option<Uuid>,
}

impl Job for ReviewDispute {
    const KIND: &'static str = "checkout.review-dispute";
    const LANE: Lane = Lane::Providers;

    fn dedupe_key(&self) -> Option<String> {
        self.event_id.map(|id| format!("review-dispute:{id}"))
    }
}

/// The dedupe keys of all work that one webhook may give.
pub fn keys_of_event(event_id: Uuid) -> [String; 5] {
    ["settle-event", "review-payment", "review-refund", "review-refunds-of", "review-dispute"]
        .map(|work| format!("{work}:{event_id}"))
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde_json::Value;

    use super::*;
    use crate::{decode, job};

    const ID: &str = "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f";

    /// Payloads as they were written on the day the version was released. Lines are added, never changed:
    /// such rows may still be in a ledger.
    const RECORDED: [(&str, &str); 9] = [
        (
            "checkout.settle-event",
            r#"{"v": 1, "event_id": "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f"}"#,
        ),
        (
            "checkout.review-payment",
            r#"{"v": 1, "provider": "razorpay", "provider_ref": "order_1", "event_id": null}"#,
        ),
        (
            "checkout.review-payment",
            r#"{"v": 1, "provider": "stripe", "provider_ref": "pi_1", "event_id": "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f"}"#,
        ),
        (
            "checkout.cancel-payment",
            r#"{"v": 1, "payment_id": "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f"}"#,
        ),
        (
            "checkout.capture-payment",
            r#"{"v": 1, "payment_id": "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f", "charge_ref": "pay_1"}"#,
        ),
        (
            "checkout.refund-payment",
            r#"{"v": 1, "refund_id": "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f"}"#,
        ),
        (
            "checkout.review-refund",
            r#"{"v": 1, "provider": "stripe", "provider_ref": "re_1", "event_id": "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f"}"#,
        ),
        (
            "checkout.review-refunds-of",
            r#"{"v": 1, "provider": "stripe", "charge_ref": "pi_1", "event_id": "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f"}"#,
        ),
        (
            "checkout.review-dispute",
            r#"{"v": 1, "provider": "stripe", "provider_ref": "dp_1", "event_id": "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f"}"#,
        ),
    ];

    /// The kind's payloads are all read, and the last is what is written today.
    fn assert_recorded<J: Job + Debug + PartialEq>(today: &J) {
        let recorded: Vec<Value> = RECORDED
            .iter()
            .filter(|(kind, _)| *kind == J::KIND)
            .map(|(_, payload)| serde_json::from_str(payload).unwrap())
            .collect();

        assert_eq!(Some(&job::encode(today).unwrap()), recorded.last());
        let read: Vec<J> = recorded.into_iter().map(|payload| decode(payload).unwrap()).collect();
        assert_eq!(read.last(), Some(today));
    }

    #[test]
    fn payloads_recorded_once_are_read_for_ever() {
        let id: Uuid = ID.parse().unwrap();

        assert_recorded(&SettleEvent { event_id: id });
        let (provider, provider_ref) = ("stripe".to_owned(), "pi_1".to_owned());
        assert_recorded(&ReviewPayment { provider, provider_ref, event_id: Some(id) });
        assert_recorded(&CancelPayment { payment_id: id });
        assert_recorded(&CapturePayment { payment_id: id, charge_ref: "pay_1".to_owned() });
        assert_recorded(&RefundPayment { refund_id: id });
        let (provider, provider_ref) = ("stripe".to_owned(), "re_1".to_owned());
        assert_recorded(&ReviewRefund { provider, provider_ref, event_id: Some(id) });
        let (provider, charge_ref) = ("stripe".to_owned(), "pi_1".to_owned());
        assert_recorded(&ReviewRefundsOf { provider, charge_ref, event_id: Some(id) });
        let (provider, provider_ref) = ("stripe".to_owned(), "dp_1".to_owned());
        assert_recorded(&ReviewDispute { provider, provider_ref, event_id: Some(id) });
    }

    #[test]
    fn a_webhook_is_settled_and_reviewed_once_and_a_question_of_our_own_as_often_as_asked() {
        let id: Uuid = ID.parse().unwrap();
        let (provider, provider_ref) = ("stripe".to_owned(), "pi_1".to_owned());
        let review = ReviewPayment { provider, provider_ref, event_id: None };

        assert_eq!(SettleEvent { event_id: id }.dedupe_key(), Some(format!("settle-event:{ID}")));
        assert_eq!(review.dedupe_key(), None);
        let review = ReviewPayment { event_id: Some(id), ..review };
        assert_eq!(review.dedupe_key(), Some(format!("review-payment:{ID}")));
    }

    #[test]
    fn the_work_of_a_webhook_is_known_by_its_keys() {
        let event_id: Uuid = ID.parse().unwrap();
        let (id, name) = (Some(event_id), String::new);

        let keys = [
            SettleEvent { event_id }.dedupe_key(),
            ReviewPayment { provider: name(), provider_ref: name(), event_id: id }.dedupe_key(),
            ReviewRefund { provider: name(), provider_ref: name(), event_id: id }.dedupe_key(),
            ReviewRefundsOf { provider: name(), charge_ref: name(), event_id: id }.dedupe_key(),
            ReviewDispute { provider: name(), provider_ref: name(), event_id: id }.dedupe_key(),
        ];

        assert_eq!(keys, keys_of_event(event_id).map(Some));
    }
}
