//! What Stripe sends when a payment succeeds, really signed.

use hmac::{Hmac, KeyInit, Mac};
use holdfast::kernel::time::now;
use sha2::Sha256;
use uuid::Uuid;

use crate::database::{CURRENCY, PRICE_MINOR};

/// A payment that Stripe collected.
#[derive(Debug, Clone)]
pub(crate) struct Collected {
    pub(crate) payment_id: Uuid,
    pub(crate) order_id: Uuid,
    /// `pi_…`
    pub(crate) provider_ref: String,
}

/// Events of payments that succeeded, each with an id of its own.
#[derive(Debug, Clone)]
pub(crate) struct News {
    /// Tells these events from all others.
    pub(crate) name: String,
    pub(crate) secret: &'static str,
    pub(crate) payments: Vec<Collected>,
    /// Whether, after an event of each payment, more events of them follow.
    pub(crate) repeats: bool,
}

impl News {
    /// Writes the request that tells of this event; `false` when there is no such event.
    pub(crate) fn write(&self, event: usize, request: &mut Vec<u8>) -> bool {
        let Some(body) = self.body(event) else { return false };
        let signature = sign(self.secret, now().unix_timestamp(), &body);
        let head = format!(
            "POST /v1/webhooks/stripe HTTP/1.1\r\nHost: localhost\r\nStripe-Signature: {signature}\r\n\
             Content-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
            body.len(),
        );
        request.clear();
        request.extend_from_slice(head.as_bytes());
        request.extend_from_slice(body.as_bytes());
        true
    }

    /// What the names of all these events begin with, and those of no others.
    pub(crate) fn event_id_prefix(&self) -> String {
        format!("evt_{}", self.name)
    }

    /// The name that the provider gives this event.
    pub(crate) fn event_id(&self, event: usize) -> String {
        format!("{}{event:08}", self.event_id_prefix())
    }

    /// The event as Stripe writes it, without the fields that are null in most.
    pub(crate) fn body(&self, event: usize) -> Option<String> {
        let place = if self.repeats { event % self.payments.len() } else { event };
        let Collected { payment_id, order_id, provider_ref } = self.payments.get(place)?;
        let event_id = self.event_id(event);
        let currency = CURRENCY.to_ascii_lowercase();
        // Old news would be asked about at its provider.
        let created = now().unix_timestamp();
        Some(format!(
            r#"{{
  "id": "{event_id}",
  "object": "event",
  "api_version": "2026-09-30.endive",
  "created": {created},
  "data": {{
    "object": {{
      "id": "{provider_ref}",
      "object": "payment_intent",
      "amount": {PRICE_MINOR},
      "amount_capturable": 0,
      "amount_details": {{
        "tip": {{}}
      }},
      "amount_received": {PRICE_MINOR},
      "automatic_payment_methods": {{
        "allow_redirects": "always",
        "enabled": true
      }},
      "capture_method": "automatic_async",
      "client_secret": "{provider_ref}_secret_bench",
      "confirmation_method": "automatic",
      "created": {created},
      "currency": "{currency}",
      "latest_charge": "ch_{event:024}",
      "livemode": false,
      "metadata": {{
        "order_id": "{order_id}",
        "payment_id": "{payment_id}"
      }},
      "next_action": null,
      "payment_method": "pm_{event:024}",
      "payment_method_options": {{
        "card": {{
          "request_three_d_secure": "automatic"
        }}
      }},
      "payment_method_types": [
        "card",
        "link"
      ],
      "status": "succeeded"
    }}
  }},
  "livemode": false,
  "pending_webhooks": 1,
  "request": {{
    "id": "req_{event:014}",
    "idempotency_key": "payment-{payment_id}-1"
  }},
  "type": "payment_intent.succeeded"
}}"#
        ))
    }
}

/// The header with which Stripe vouches for the body.
fn sign(secret: &str, at: i64, body: &str) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("{at}.").as_bytes());
    mac.update(body.as_bytes());
    format!("t={at},v1={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn news(repeats: bool) -> News {
        let payments = (0..2)
            .map(|place| Collected {
                payment_id: Uuid::from_u128(place),
                order_id: Uuid::from_u128(place + 10),
                provider_ref: format!("pi_{place}"),
            })
            .collect();
        News { name: "x".to_owned(), secret: "whsec_test", payments, repeats }
    }

    #[test]
    fn an_event_is_json_and_names_its_payment() {
        let body: Value = serde_json::from_str(&news(false).body(1).unwrap()).unwrap();

        assert_eq!(body["id"], "evt_x00000001");
        assert_eq!(body.pointer("/data/object/id").unwrap(), "pi_1");
        let payment_id = body.pointer("/data/object/metadata/payment_id").unwrap();
        assert_eq!(payment_id, &Value::from(Uuid::from_u128(1).to_string()));
    }

    #[test]
    fn events_end_with_the_payments_unless_they_repeat() {
        assert_eq!(news(false).body(2), None);
        assert!(news(true).body(2).unwrap().contains("pi_0"));
        assert!(!news(false).write(2, &mut Vec::new()));
    }

    #[test]
    fn a_signature_is_that_of_another_program() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac whsec_test
        let signature = sign("whsec_test", 1_700_000_000, "{}");

        assert_eq!(
            signature,
            "t=1700000000,v1=35495024f4ef3f94e5a93e22221544c4b75e9a42300cd965ab81cb85cd994e91"
        );
    }
}
