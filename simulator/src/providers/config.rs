//! Where the providers listen, whom they know, and how they behave.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Where the two APIs and the shopper's page listen; port 0 means any free port.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub stripe: SocketAddr,
    pub razorpay: SocketAddr,
    pub page: Option<SocketAddr>,
}

impl Addresses {
    /// Free ports of this machine, and no page: what a test wants.
    pub fn any() -> Self {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { stripe: any_port, razorpay: any_port, page: None }
    }

    /// The same, with the shopper's page and the control API.
    pub fn any_with_page() -> Self {
        let addresses = Self::any();
        Self { page: Some(addresses.stripe), ..addresses }
    }
}

/// Whether Razorpay captures by itself what a shopper's bank has authorised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capture {
    Manual,
    Automatic,
}

/// What a second Razorpay order with a known receipt gets; the documentation says both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RepeatedReceipt {
    Refused,
    SameOrder,
}

/// The keys and the manners of both providers.
#[derive(Clone)]
pub struct Config {
    pub stripe_key: String,
    /// More than one while a secret is rotated: each signs.
    pub stripe_webhook_secrets: Vec<String>,
    pub razorpay_key_id: String,
    pub razorpay_key_secret: String,
    pub razorpay_webhook_secret: String,
    pub razorpay_capture: Capture,
    pub razorpay_repeated_receipt: RepeatedReceipt,
    /// The pause before the second attempt of a delivery; it doubles up to `retry_max`.
    pub retry_base: Duration,
    pub retry_max: Duration,
    /// A delivery that fails so often is given up.
    pub attempts_max: u32,
    /// Whoever takes longer has not answered.
    pub answer_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stripe_key: "sk_test_holdfast".to_owned(),
            stripe_webhook_secrets: vec!["whsec_holdfast".to_owned()],
            razorpay_key_id: "rzp_test_holdfast".to_owned(),
            razorpay_key_secret: "holdfast_secret".to_owned(),
            razorpay_webhook_secret: "rzp_webhook_holdfast".to_owned(),
            razorpay_capture: Capture::Manual,
            razorpay_repeated_receipt: RepeatedReceipt::Refused,
            retry_base: Duration::from_millis(200),
            retry_max: Duration::from_secs(5),
            attempts_max: 12,
            // What Razorpay grants; Stripe says no more than "quickly".
            answer_max: Duration::from_secs(5),
        }
    }
}

/// Names no secret.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("razorpay_capture", &self.razorpay_capture)
            .field("razorpay_repeated_receipt", &self.razorpay_repeated_receipt)
            .field("attempts_max", &self.attempts_max)
            .finish_non_exhaustive()
    }
}
