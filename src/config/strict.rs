//! What no shop with real customers may run with.

use reqwest::Url;
use secrecy::SecretString;

use super::{
    Keys, Providers,
    reading::Reading,
    values::{expose, is_here},
};

/// The secrets of the simulator and of `./dev up`, which everybody can read in this repository.
const PUBLIC: [&str; 5] = [
    "sk_test_holdfast",
    "whsec_holdfast",
    "rzp_test_holdfast",
    "holdfast_secret",
    "rzp_webhook_holdfast",
];

/// The names that keys have on developers' machines.
const PLAY_NAMES: [&str; 3] = ["dev", "test", "bench"];

/// Every secret that a provider gives out is longer, and a shorter one can be tried.
const SECRET_MIN: usize = 16;

/// Of 32 random bytes about 30 differ; fewer than this do in one of 10^20 keys.
const DISTINCT_MIN: usize = 16;

impl Reading {
    /// Notes a value that is good enough for a developer's machine only.
    pub(super) fn weak(&mut self, name: &str, is_weak: bool, wanted: &str) {
        if is_weak && self.is_production {
            self.note(format!("{name} is unsafe in production; it should be {wanted}"));
        }
    }

    pub(super) fn weak_keys(&mut self, name: &str, keys: Option<&Keys>) {
        const RANDOM: &str = "32 random bytes under a name of its own, not dev, test or bench";
        let is_weak = keys.is_some_and(|keys| {
            let mut keys = keys.expose().iter();
            keys.any(|(name, key)| PLAY_NAMES.contains(&&**name) || is_guessable(key))
        });
        self.weak(name, is_weak, RANDOM);
    }

    /// One that is found out must not open what the other protects. Asked for in every environment.
    pub(super) fn distinct(&mut self, tokens: Option<&Keys>, guests: Option<&Keys>) {
        let (Some(tokens), Some(guests)) = (tokens, guests) else { return };
        let is_shared = |key: &[u8; 32]| guests.expose().iter().any(|(_, other)| other == key);
        if tokens.expose().iter().any(|(_, key)| is_shared(key)) {
            self.note(
                "GUEST_TOKEN_KEYS is wrong; it should share no key with TOKEN_KEYS".to_owned(),
            );
        }
    }

    pub(super) fn weak_providers(&mut self, providers: &Providers) {
        const HTTPS: &str = "an https:// URL";
        const SECRETS: &str = "secrets of 16 characters or more that the provider gave out";
        if let Some(stripe) = &providers.stripe {
            self.weak("STRIPE_URL", !is_https(&stripe.url), HTTPS);
            self.weak("STRIPE_KEYS", stripe.keys.iter().any(is_weak), SECRETS);
            let is_weak = stripe.webhook_secrets.iter().any(is_weak);
            self.weak("STRIPE_WEBHOOK_SECRETS", is_weak, SECRETS);
        }
        if let Some(razorpay) = &providers.razorpay {
            self.weak("RAZORPAY_URL", !is_https(&razorpay.url), HTTPS);
            let is_weak_key = razorpay.keys.iter().any(|(_, secret)| is_weak(secret));
            self.weak("RAZORPAY_KEYS", is_weak_key, SECRETS);
            let is_weak = razorpay.webhook_secrets.iter().any(is_weak);
            self.weak("RAZORPAY_WEBHOOK_SECRETS", is_weak, SECRETS);
        }
    }
}

pub(super) fn is_https(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.scheme() == "https")
}

/// Whether mails, and the password for them, travel so that others can read them.
pub(super) fn is_open_smtp(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return true };
    let is_encrypted = url.scheme() == "smtps"
        || url.query_pairs().any(|(name, value)| name == "tls" && value == "required");
    !is_encrypted && !url.host_str().is_some_and(is_here)
}

fn is_weak(secret: &SecretString) -> bool {
    let secret = expose(secret);
    secret.len() < SECRET_MIN || PUBLIC.contains(&secret)
}

/// Whether somebody typed the key, or counted it up: a repeated byte, a sequence, a sentence.
pub(super) fn is_guessable(key: &[u8; 32]) -> bool {
    let mut bytes = key.to_vec();
    bytes.sort_unstable();
    bytes.dedup();
    let step = key[1].wrapping_sub(key[0]);
    let is_sequence = key.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step);
    let is_text = key.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    bytes.len() < DISTINCT_MIN || is_sequence || is_text
}
