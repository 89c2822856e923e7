//! Who signed a webhook. Everything here is pure: secrets, bytes and the time come in, a verdict
//! goes out.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// How far Stripe's clock and ours may differ, either way: what its own libraries allow for the
/// past. Whoever has recorded a webhook can repeat it for as long, and is a duplicate by then.
const TOLERANCE_S: u64 = 300;

/// Stripe sends one signature for each secret that is in use. A header with more is no header of theirs.
const SIGNATURES_MAX: usize = 16;

/// Why a signature proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distrust {
    Missing,
    Malformed,
    /// None of our secrets made it.
    NoMatch,
    /// It was good once, or will be.
    Stale,
}

impl Distrust {
    /// The name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::NoMatch => "no-match",
            Self::Stale => "stale",
        }
    }
}

/// Proves that Stripe signed the body within the last minutes; returns which of the secrets it used.
///
/// `now` is in seconds from 1970.
pub fn verify_stripe(
    body: &[u8],
    header: Option<&str>,
    secrets: &[SecretString],
    now: i64,
) -> Result<usize, Distrust> {
    let StripeHeader { signed_at, signatures } = StripeHeader::parse(header)?;
    let second: i64 = signed_at.parse().map_err(|_| Distrust::Malformed)?;
    let used = find(secrets, &signatures, &[signed_at.as_bytes(), b".", body])?;
    // After the signature: the time of a forgery tells nothing.
    if now.abs_diff(second) > TOLERANCE_S {
        return Err(Distrust::Stale);
    }
    Ok(used)
}

/// Proves that Razorpay signed the body, whenever that was; returns which of the secrets it used.
pub fn verify_razorpay(
    body: &[u8],
    header: Option<&str>,
    secrets: &[SecretString],
) -> Result<usize, Distrust> {
    let signature = decode(header.ok_or(Distrust::Missing)?).ok_or(Distrust::Malformed)?;
    find(secrets, &[signature], &[body])
}

/// `t=1700000000,v1=5257a8…,v1=…`; other schemes may stand between them.
struct StripeHeader<'a> {
    /// As it was signed: digits may be written in more than one way.
    signed_at: &'a str,
    signatures: Vec<[u8; 32]>,
}

impl<'a> StripeHeader<'a> {
    fn parse(header: Option<&'a str>) -> Result<Self, Distrust> {
        let mut signed_at = None;
        let mut signatures = Vec::new();
        for item in header.ok_or(Distrust::Missing)?.split(',') {
            match item.trim().split_once('=') {
                Some(("t", _)) if signed_at.is_some() => return Err(Distrust::Malformed),
                Some(("t", second)) => signed_at = Some(second),
                Some(("v1", _)) if signatures.len() == SIGNATURES_MAX => {
                    return Err(Distrust::Malformed);
                }
                Some(("v1", signature)) => signatures.extend(decode(signature)),
                Some(_) | None => {}
            }
        }
        match signed_at {
            Some(signed_at) if !signatures.is_empty() => Ok(Self { signed_at, signatures }),
            Some(_) | None => Err(Distrust::Malformed),
        }
    }
}

/// Reads 64 lower-case hexadecimal digits, the one way in which both providers write.
fn decode(signature: &str) -> Option<[u8; 32]> {
    if signature.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(signature, &mut bytes).ok()?;
    Some(bytes)
}

/// The place of the secret that made one of the signatures of the message.
fn find(
    secrets: &[SecretString],
    signatures: &[[u8; 32]],
    message: &[&[u8]],
) -> Result<usize, Distrust> {
    let made_one = |secret: &SecretString| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes())
            .expect("HMAC takes keys of any length");
        for part in message {
            mac.update(part);
        }
        // Compared in constant time.
        signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok())
    };
    secrets.iter().position(made_one).ok_or(Distrust::NoMatch)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The moment at which everything here was signed.
    const NOW: i64 = 1_763_700_000;
    const BODY: &str = r#"{"id":"evt_1","type":"payment_intent.succeeded"}"#;
    const UNICODE: &str = r#"{"id":"evt_2","note":"नमस्ते"}"#;

    /// Made by Stripe's own library for Python (16.1.0), which judges them as the tests do, but for
    /// the future.
    const SIGNATURE: &str = "79dd6c10a2ef6999224051fa66260687e1a5c602e54d33db97c8fa005f083db3";
    const SIGNATURE_OF_UNICODE: &str =
        "fdcb6b575563f9fe7d25737484902f1605268a8340db1825fcabdd008424b20f";
    const SIGNATURE_OF_FORMER: &str =
        "83ca3636c59dc3106f987faf9f6f3bfb2e6bde670151c5add350c60098196167";

    /// Accepted by Razorpay's own library for Python (2.0.1).
    const RAZORPAY: &str = "928665dcc488c328d2c5fd87f8ff095c8bb2ed0bacefb144d1bc1f962a23720a";

    fn secrets(secrets: &[&str]) -> Vec<SecretString> {
        secrets.iter().map(|secret| SecretString::from(*secret)).collect()
    }

    fn stripe(body: &str, header: &str, now: i64) -> Result<usize, Distrust> {
        verify_stripe(body.as_bytes(), Some(header), &secrets(&["whsec_current"]), now)
    }

    fn sign(secret: &str, message: &[&[u8]]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        for part in message {
            mac.update(part);
        }
        hex::encode(mac.finalize().into_bytes())
    }

    fn stripe_header(secret: &str, body: &[u8], second: i64) -> String {
        let second = second.to_string();
        format!("t={second},v1={}", sign(secret, &[second.as_bytes(), b".", body]))
    }

    #[test]
    fn what_stripes_own_library_signs_is_trusted() {
        for (body, signatures) in [
            (BODY, format!("v1={SIGNATURE}")),
            (UNICODE, format!("v1={SIGNATURE_OF_UNICODE}")),
            (BODY, format!("v1={SIGNATURE_OF_FORMER},v1={SIGNATURE}")),
            (BODY, format!("v0={SIGNATURE_OF_FORMER},v1={SIGNATURE}")),
        ] {
            assert_eq!(stripe(body, &format!("t={NOW},{signatures}"), NOW), Ok(0), "{signatures}");
        }
    }

    #[test]
    fn what_stripes_own_library_refuses_is_refused() {
        let reserialised = BODY.replace(':', ": ");
        let upper = SIGNATURE.to_ascii_uppercase();
        for (body, header, distrust) in [
            (BODY, format!("t={NOW},v1={SIGNATURE_OF_FORMER}"), Distrust::NoMatch),
            (&reserialised, format!("t={NOW},v1={SIGNATURE}"), Distrust::NoMatch),
            (BODY, format!("t={},v1={SIGNATURE}", NOW - 1), Distrust::NoMatch),
            (BODY, format!("t=0{NOW},v1={SIGNATURE}"), Distrust::NoMatch),
            (BODY, format!("t={NOW},v0={SIGNATURE}"), Distrust::Malformed),
            (BODY, format!("t={NOW},v1={upper}"), Distrust::Malformed),
            (BODY, format!("t={NOW},v1={}", &SIGNATURE[2..]), Distrust::Malformed),
            (BODY, format!("v1={SIGNATURE}"), Distrust::Malformed),
            (BODY, format!("t={NOW},t={NOW},v1={SIGNATURE}"), Distrust::Malformed),
            (BODY, format!("t=soon,v1={SIGNATURE}"), Distrust::Malformed),
            (BODY, format!("t={}9,v1={SIGNATURE}", i64::MAX), Distrust::Malformed),
            (BODY, String::new(), Distrust::Malformed),
        ] {
            assert_eq!(stripe(body, &header, NOW), Err(distrust), "{header}");
        }
        assert_eq!(
            verify_stripe(b"", None, &secrets(&["whsec_current"]), NOW),
            Err(Distrust::Missing)
        );
    }

    #[test]
    fn case_37_a_signature_is_good_for_five_minutes_either_way() {
        let header = format!("t={NOW},v1={SIGNATURE}");
        for (now, verdict) in [
            (NOW + 295, Ok(0)),
            (NOW + 300, Ok(0)),
            (NOW + 301, Err(Distrust::Stale)),
            (NOW - 300, Ok(0)),
            (NOW - 400, Err(Distrust::Stale)),
            (i64::MIN, Err(Distrust::Stale)),
            (i64::MAX, Err(Distrust::Stale)),
        ] {
            assert_eq!(stripe(BODY, &header, now), verdict, "{now}");
        }
        let hostile = stripe_header("whsec_current", b"{}", i64::MIN);
        assert_eq!(stripe("{}", &hostile, i64::MAX), Err(Distrust::Stale));
    }

    #[test]
    fn a_header_with_many_signatures_is_not_worked_through() {
        let header = |count| {
            let wrong = format!(",v1={SIGNATURE_OF_FORMER}").repeat(count - 1);
            format!("t={NOW}{wrong},v1={SIGNATURE}")
        };

        assert_eq!(stripe(BODY, &header(SIGNATURES_MAX), NOW), Ok(0));
        assert_eq!(stripe(BODY, &header(SIGNATURES_MAX + 1), NOW), Err(Distrust::Malformed));
    }

    #[test]
    fn what_razorpays_own_library_accepts_is_trusted_and_nothing_else() {
        let verdict = |header: Option<&str>| {
            verify_razorpay(UNICODE.as_bytes(), header, &secrets(&["rzp_current"]))
        };

        assert_eq!(verdict(Some(RAZORPAY)), Ok(0));
        assert_eq!(verdict(None), Err(Distrust::Missing));
        assert_eq!(verdict(Some(SIGNATURE)), Err(Distrust::NoMatch));
        for malformed in ["", &RAZORPAY[2..], &RAZORPAY.to_ascii_uppercase(), &"zz".repeat(32)] {
            assert_eq!(verdict(Some(malformed)), Err(Distrust::Malformed), "{malformed}");
        }
    }

    #[test]
    fn an_older_secret_is_good_until_it_is_taken_away() {
        let stripe = format!("t={NOW},v1={SIGNATURE_OF_FORMER}");
        let rotating = secrets(&["whsec_current", "whsec_former"]);
        let verdict =
            |known: &[SecretString]| verify_stripe(BODY.as_bytes(), Some(&stripe), known, NOW);
        assert_eq!(verdict(&rotating), Ok(1));
        assert_eq!(verdict(&rotating[..1]), Err(Distrust::NoMatch));
        assert_eq!(verdict(&[]), Err(Distrust::NoMatch));

        let rotating = secrets(&["rzp_next", "rzp_current"]);
        let verdict =
            |known: &[SecretString]| verify_razorpay(UNICODE.as_bytes(), Some(RAZORPAY), known);
        assert_eq!(verdict(&rotating), Ok(1));
        assert_eq!(verdict(&rotating[..1]), Err(Distrust::NoMatch));
    }

    /// The text with one bit of it the other way round, where that is text, too.
    fn flipped(text: &str, bit: usize) -> Option<String> {
        let mut bytes = text.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        String::from_utf8(bytes).ok()
    }

    fn secret() -> impl Strategy<Value = String> {
        "[ -~]{1,40}"
    }

    proptest! {
        #[test]
        fn no_header_and_no_body_pass_by_chance(
            header in prop_oneof![
                ".{0,200}",
                "(t=-?[0-9]{0,25})?(,? ?v[01]=[0-9a-fA-F]{0,70}){0,40}",
                "[0-9a-f]{62,66}",
            ],
            body in prop::collection::vec(any::<u8>(), 0..200),
            now: i64,
        ) {
            let known = secrets(&["whsec_current", "whsec_former"]);
            prop_assert!(verify_stripe(&body, Some(&header), &known, now).is_err());
            prop_assert!(verify_razorpay(&body, Some(&header), &known).is_err());
        }

        #[test]
        fn a_good_signature_always_passes_with_whichever_secret(
            known in prop::collection::hash_set(secret(), 1..5),
            used in any::<prop::sample::Index>(),
            body in prop::collection::vec(any::<u8>(), 0..200),
            age in -300..=300_i64,
        ) {
            let known: Vec<_> = known.into_iter().collect();
            let used = used.index(known.len());
            let header = stripe_header(&known[used], &body, NOW - age);
            let signature = sign(&known[used], &[&body]);
            let known: Vec<_> = known.into_iter().map(SecretString::from).collect();

            prop_assert_eq!(verify_stripe(&body, Some(&header), &known, NOW), Ok(used));
            prop_assert_eq!(verify_razorpay(&body, Some(&signature), &known), Ok(used));
        }

        #[test]
        fn one_bit_makes_all_the_difference(
            body in prop::collection::vec(any::<u8>(), 1..200),
            at in any::<prop::sample::Index>(),
        ) {
            let known = secrets(&["whsec_current"]);
            let header = stripe_header("whsec_current", &body, NOW);
            let signature = sign("whsec_current", &[&body]);

            if let Some(header) = flipped(&header, at.index(8 * header.len())) {
                prop_assert!(verify_stripe(&body, Some(&header), &known, NOW).is_err(), "{}", header);
            }
            if let Some(signature) = flipped(&signature, at.index(8 * signature.len())) {
                prop_assert!(verify_razorpay(&body, Some(&signature), &known).is_err());
            }
            let mut other = body.clone();
            let bit = at.index(8 * body.len());
            other[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify_stripe(&other, Some(&header), &known, NOW).is_err());
            prop_assert!(verify_razorpay(&other, Some(&signature), &known).is_err());
        }
    }
}
