//! E-mails to shoppers and users.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Job, Lane};

/// Tells the shopper that the order was placed and until when it is held.
///
/// Safe to repeat: the delivery's row is unique per order and template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendOrderReceived {
    pub order_id: Uuid,
}

impl Job for SendOrderReceived {
    const KIND: &'static str = "notifications.send-order-received";
    const LANE: Lane = Lane::Mail;

    fn dedupe_key(&self) -> Option<String> {
        Some(format!("order-received:{}", self.order_id))
    }
}

/// Tells the shopper that the hold ran out and the order was cancelled.
///
/// Safe to repeat: the delivery's row is unique per order and template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendReservationExpired {
    pub order_id: Uuid,
}

impl Job for SendReservationExpired {
    const KIND: &'static str = "notifications.send-reservation-expired";
    const LANE: Lane = Lane::Mail;

    fn dedupe_key(&self) -> Option<String> {
        Some(format!("reservation-expired:{}", self.order_id))
    }
}

/// Tells the shopper that the order is paid.
///
/// Safe to repeat: the delivery's row is unique per order and template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendOrderConfirmed {
    pub order_id: Uuid,
}

impl Job for SendOrderConfirmed {
    const KIND: &'static str = "notifications.send-order-confirmed";
    const LANE: Lane = Lane::Mail;

    fn dedupe_key(&self) -> Option<String> {
        Some(format!("order-confirmed:{}", self.order_id))
    }
}

/// Tells the shopper that a payment did not go through and until when another can be made.
///
/// Safe to repeat: the delivery's row is unique per payment and template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendPaymentFailed {
    pub order_id: Uuid,
    pub payment_id: Uuid,
}

impl Job for SendPaymentFailed {
    const KIND: &'static str = "notifications.send-payment-failed";
    const LANE: Lane = Lane::Mail;

    fn dedupe_key(&self) -> Option<String> {
        Some(format!("payment-failed:{}", self.payment_id))
    }
}

/// Tells the shopper that money was sent back.
///
/// Safe to repeat: the delivery's row is unique per refund and template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendRefundMade {
    pub order_id: Uuid,
    pub refund_id: Uuid,
}

impl Job for SendRefundMade {
    const KIND: &'static str = "notifications.send-refund-made";
    const LANE: Lane = Lane::Mail;

    fn dedupe_key(&self) -> Option<String> {
        Some(format!("refund-made:{}", self.refund_id))
    }
}

/// Tells a user that a session of theirs was ended, because a refresh token of it was used again.
///
/// Safe to repeat: the delivery's row is unique per session and template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendSessionRevoked {
    pub session_id: Uuid,
    pub user_id: Uuid,
}

impl Job for SendSessionRevoked {
    const KIND: &'static str = "notifications.send-session-revoked";
    const LANE: Lane = Lane::Mail;

    fn dedupe_key(&self) -> Option<String> {
        Some(format!("session-revoked:{}", self.session_id))
    }
}

/// Sends the mail that a request about an account asks for: a link with a token, or the news that the
/// address has an account. Which, is decided when the mail is sent.
///
/// Safe to repeat: the delivery's row is unique per request and template, and any token that was made for
/// the request works, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendAccountMail {
    pub request_id: Uuid,
}

impl Job for SendAccountMail {
    const KIND: &'static str = "notifications.send-account-mail";
    const LANE: Lane = Lane::Mail;

    fn dedupe_key(&self) -> Option<String> {
        Some(format!("account-mail:{}", self.request_id))
    }
}

/// Tells a user that their account has another password.
///
/// Safe to repeat: the delivery's row is unique per change and template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendPasswordChanged {
    pub user_id: Uuid,
    pub change_id: Uuid,
}

impl Job for SendPasswordChanged {
    const KIND: &'static str = "notifications.send-password-changed";
    const LANE: Lane = Lane::Mail;

    fn dedupe_key(&self) -> Option<String> {
        Some(format!("password-changed:{}", self.change_id))
    }
}

/// Tells the address that an account had before that it has another one now.
///
/// Safe to repeat: the delivery's row is unique per request and template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendEmailChanged {
    pub request_id: Uuid,
}

impl Job for SendEmailChanged {
    const KIND: &'static str = "notifications.send-email-changed";
    const LANE: Lane = Lane::Mail;

    fn dedupe_key(&self) -> Option<String> {
        Some(format!("email-changed:{}", self.request_id))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        Undecodable, decode,
        job::{self, Delay},
    };

    const ORDER: &str = "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f";
    const PAYMENT: &str = "0198c5a1-1c2d-7e3f-8a4b-5c6d7e8f9a0b";

    /// Payloads as they were written on the day the version was released. Lines are added, never changed:
    /// such rows may still be in a ledger.
    const RECORDED: [(&str, &str); 9] = [
        (
            "notifications.send-order-received",
            r#"{"v": 1, "order_id": "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f"}"#,
        ),
        (
            "notifications.send-reservation-expired",
            r#"{"v": 1, "order_id": "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f"}"#,
        ),
        (
            "notifications.send-order-confirmed",
            r#"{"v": 1, "order_id": "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f"}"#,
        ),
        (
            "notifications.send-payment-failed",
            r#"{"v": 1, "order_id": "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f", "payment_id": "0198c5a1-1c2d-7e3f-8a4b-5c6d7e8f9a0b"}"#,
        ),
        (
            "notifications.send-refund-made",
            r#"{"v": 1, "order_id": "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f", "refund_id": "0198c5a1-1c2d-7e3f-8a4b-5c6d7e8f9a0b"}"#,
        ),
        (
            "notifications.send-account-mail",
            r#"{"v": 1, "request_id": "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f"}"#,
        ),
        (
            "notifications.send-password-changed",
            r#"{"v": 1, "user_id": "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f", "change_id": "0198c5a1-1c2d-7e3f-8a4b-5c6d7e8f9a0b"}"#,
        ),
        (
            "notifications.send-email-changed",
            r#"{"v": 1, "request_id": "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f"}"#,
        ),
        (
            "notifications.send-session-revoked",
            r#"{"v": 1, "session_id": "0198c5a0-7b3e-7c41-9f7e-2d1b6a5c4e3f", "user_id": "0198c5a1-1c2d-7e3f-8a4b-5c6d7e8f9a0b"}"#,
        ),
    ];

    fn recorded(kind: &str) -> impl Iterator<Item = Value> {
        RECORDED
            .iter()
            .filter(move |(recorded, _)| *recorded == kind)
            .map(|(_, payload)| serde_json::from_str(payload).unwrap())
    }

    #[test]
    fn payloads_recorded_once_are_read_for_ever() {
        let order_id = ORDER.parse().unwrap();
        let payment_id = PAYMENT.parse().unwrap();

        for payload in recorded(SendOrderReceived::KIND) {
            assert_eq!(
                decode::<SendOrderReceived>(payload).unwrap(),
                SendOrderReceived { order_id }
            );
        }
        for payload in recorded(SendReservationExpired::KIND) {
            assert_eq!(
                decode::<SendReservationExpired>(payload).unwrap(),
                SendReservationExpired { order_id }
            );
        }
        for payload in recorded(SendOrderConfirmed::KIND) {
            assert_eq!(
                decode::<SendOrderConfirmed>(payload).unwrap(),
                SendOrderConfirmed { order_id }
            );
        }
        for payload in recorded(SendPaymentFailed::KIND) {
            assert_eq!(
                decode::<SendPaymentFailed>(payload).unwrap(),
                SendPaymentFailed { order_id, payment_id }
            );
        }
        for payload in recorded(SendRefundMade::KIND) {
            assert_eq!(
                decode::<SendRefundMade>(payload).unwrap(),
                SendRefundMade { order_id, refund_id: payment_id }
            );
        }
    }

    #[test]
    fn what_is_written_today_is_what_was_recorded_last() {
        let order_id = ORDER.parse().unwrap();
        let payment_id = PAYMENT.parse().unwrap();

        assert_eq!(
            Some(job::encode(&SendOrderReceived { order_id }).unwrap()),
            recorded(SendOrderReceived::KIND).last()
        );
        assert_eq!(
            Some(job::encode(&SendReservationExpired { order_id }).unwrap()),
            recorded(SendReservationExpired::KIND).last()
        );
        assert_eq!(
            Some(job::encode(&SendOrderConfirmed { order_id }).unwrap()),
            recorded(SendOrderConfirmed::KIND).last()
        );
        assert_eq!(
            Some(job::encode(&SendPaymentFailed { order_id, payment_id }).unwrap()),
            recorded(SendPaymentFailed::KIND).last()
        );
        assert_eq!(
            Some(job::encode(&SendRefundMade { order_id, refund_id: payment_id }).unwrap()),
            recorded(SendRefundMade::KIND).last()
        );
    }

    #[test]
    fn payloads_about_accounts_recorded_once_are_read_for_ever_and_written_still() {
        let id: Uuid = ORDER.parse().unwrap();
        let change_id: Uuid = PAYMENT.parse().unwrap();
        let mail = SendAccountMail { request_id: id };
        let password = SendPasswordChanged { user_id: id, change_id };
        let email = SendEmailChanged { request_id: id };

        for payload in recorded(SendAccountMail::KIND) {
            assert_eq!(decode::<SendAccountMail>(payload).unwrap(), mail);
        }
        for payload in recorded(SendPasswordChanged::KIND) {
            assert_eq!(decode::<SendPasswordChanged>(payload).unwrap(), password);
        }
        for payload in recorded(SendEmailChanged::KIND) {
            assert_eq!(decode::<SendEmailChanged>(payload).unwrap(), email);
        }
        assert_eq!(Some(job::encode(&mail).unwrap()), recorded(SendAccountMail::KIND).last());
        assert_eq!(
            Some(job::encode(&password).unwrap()),
            recorded(SendPasswordChanged::KIND).last()
        );
        assert_eq!(Some(job::encode(&email).unwrap()), recorded(SendEmailChanged::KIND).last());
        assert_eq!(mail.dedupe_key(), Some(format!("account-mail:{ORDER}")));
        assert_eq!(password.dedupe_key(), Some(format!("password-changed:{PAYMENT}")));
        assert_eq!(email.dedupe_key(), Some(format!("email-changed:{ORDER}")));
    }

    #[test]
    fn payloads_about_sessions_recorded_once_are_read_for_ever_and_written_still() {
        let session_id: Uuid = ORDER.parse().unwrap();
        let mail = SendSessionRevoked { session_id, user_id: PAYMENT.parse().unwrap() };

        for payload in recorded(SendSessionRevoked::KIND) {
            assert_eq!(decode::<SendSessionRevoked>(payload).unwrap(), mail);
        }
        assert_eq!(Some(job::encode(&mail).unwrap()), recorded(SendSessionRevoked::KIND).last());
        assert_eq!(mail.dedupe_key(), Some(format!("session-revoked:{ORDER}")));
    }

    #[test]
    fn a_payload_of_a_newer_version_is_not_taken_for_a_broken_one() {
        let newer = json!({ "v": 2, "order": { "id": ORDER } });
        let broken = json!({ "v": 1, "order_id": 7 });
        let unversioned = json!({ "order_id": ORDER });

        let decode = decode::<SendOrderReceived>;
        assert!(matches!(decode(newer), Err(Undecodable::UnknownVersion(2))));
        assert!(matches!(decode(broken), Err(Undecodable::Malformed(_))));
        assert!(matches!(decode(unversioned), Err(Undecodable::NoVersion)));
    }

    #[test]
    fn one_cause_gets_each_mail_once() {
        let order_id: Uuid = ORDER.parse().unwrap();
        let payment_id: Uuid = PAYMENT.parse().unwrap();

        let received = SendOrderReceived { order_id }.dedupe_key();
        let expired = SendReservationExpired { order_id }.dedupe_key();
        let confirmed = SendOrderConfirmed { order_id }.dedupe_key();
        let failed = SendPaymentFailed { order_id, payment_id }.dedupe_key();

        assert_eq!(received, Some(format!("order-received:{ORDER}")));
        assert_eq!(expired, Some(format!("reservation-expired:{ORDER}")));
        assert_eq!(confirmed, Some(format!("order-confirmed:{ORDER}")));
        assert_eq!(failed, Some(format!("payment-failed:{PAYMENT}")));
        assert_eq!(Delay::NONE.duration().as_millis(), 0);
    }
}
