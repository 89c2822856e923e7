//! How both providers sign what they say.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The `Stripe-Signature` of `body` at the unix second `t`: one `v1` for each secret.
pub fn sign_for_stripe(secrets: &[String], t: i64, body: &str) -> String {
    let signed = format!("{t}.{body}");
    let mut header = format!("t={t}");
    for secret in secrets {
        header.push_str(",v1=");
        header.push_str(&hmac_sha256(secret, &signed));
    }
    header
}

/// The `X-Razorpay-Signature` of `body`.
pub fn sign_for_razorpay(secret: &str, body: &str) -> String {
    hmac_sha256(secret, body)
}

/// The `razorpay_signature` that a browser brings back; it is made with the API key's secret.
pub fn sign_checkout(key_secret: &str, order: &str, payment: &str) -> String {
    hmac_sha256(key_secret, &format!("{order}|{payment}"))
}

fn hmac_sha256(secret: &str, message: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length will do");
    mac.update(message.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}
