//! Tokens that somebody made up.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use holdfast::{
    identity::{KeyRing, Role, Tokens},
    kernel::{SessionId, UserId, time::now},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{EMAIL, log_in, me, user};
use crate::support::{
    KEY,
    app::{SEED, TestApp},
    client::Client,
    shop::Variant,
};

/// A customer with a session, and everything a forger could know of them.
struct Target {
    claims: Value,
    public_key: Vec<u8>,
    mug: Variant,
}

impl Target {
    async fn set_up(app: &TestApp) -> Self {
        let id = user(app, EMAIL).await;
        log_in(app, EMAIL).await;
        let session: Uuid = app.scalar("SELECT id FROM sessions").await;
        let keys = app.anybody().get("/.well-known/jwks.json").await;
        let public_key = keys.at("/keys/0/x");
        let now = now().unix_timestamp();
        Self {
            claims: json!({
                "iss": "holdfast", "aud": "holdfast-api", "typ": "access", "sub": id, "sid": session,
                "role": "customer", "epoch": 0, "iat": now, "exp": now + 600,
            }),
            public_key: BASE64_URL_SAFE_NO_PAD.decode(public_key.as_str().unwrap()).unwrap(),
            mug: app.product_with_stock(5).await,
        }
    }

    fn with(&self, claim: &str, value: impl Into<Value>) -> Value {
        let mut claims = self.claims.clone();
        claims[claim] = value.into();
        claims
    }

    /// The token opens nothing, whatever is asked.
    async fn assert_refused(&self, app: &TestApp, token: &str, code: &str) {
        let forger: Client = app.anybody().with_token(token, None);
        me(&forger).await.assert_problem(401, code);
        forger.orders().await.assert_problem(401, code);
        forger.place_order(KEY, &[(self.mug, 1)]).await.assert_problem(401, code);
    }
}

/// RFC 8410: what stands before an Ed25519 key's 32 bytes.
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

fn key(seed: [u8; 32]) -> EncodingKey {
    EncodingKey::from_ed_der(&[&PKCS8[..], &seed[..]].concat())
}

fn signed(header: &Value, claims: &Value, seed: [u8; 32]) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key(seed), Algorithm::EdDSA);
    format!("{message}.{}", signature.unwrap())
}

fn ours() -> Value {
    json!({ "typ": "JWT", "alg": "EdDSA", "kid": "test" })
}

#[tokio::test]
async fn a_token_as_the_shop_signs_it_opens_what_is_the_customers() {
    // Without this, the refusals below would show nothing.
    TestApp::run(async |app| {
        let target = Target::set_up(app).await;

        let token = signed(&ours(), &target.claims, SEED);

        me(&app.anybody().with_token(&token, None)).await.assert_status(200);
    })
    .await;
}

#[tokio::test]
async fn jwt_alg_confusion_opens_nothing() {
    use base64::prelude::BASE64_STANDARD;

    TestApp::run(async |app| {
        let target = Target::set_up(app).await;
        let before = app.books().await;
        let der = [&SPKI[..], &target.public_key].concat();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            BASE64_STANDARD.encode(&der)
        );

        // The public key, in every spelling, as the secret of an HMAC.
        for secret in [&target.public_key[..], &der, pem.as_bytes(), pem.trim().as_bytes()] {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let header = Header { kid: Some("test".to_owned()), ..Header::new(algorithm) };
                let token =
                    encode(&header, &target.claims, &EncodingKey::from_secret(secret)).unwrap();
                target.assert_refused(app, &token, "unauthenticated").await;
            }
        }
        for algorithm in ["none", "None", "nOnE", "", "HS256", "RS256", "ES256", "EdDSA "] {
            let header = json!({ "typ": "JWT", "alg": algorithm, "kid": "test" });
            let token = signed(&header, &target.claims, SEED);
            let (message, _) = token.rsplit_once('.').unwrap();
            for token in [&token, &format!("{message}."), message] {
                target.assert_refused(app, token, "unauthenticated").await;
            }
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn jwt_kid_injection_and_keys_brought_along_open_nothing() {
    TestApp::run(async |app| {
        let target = Target::set_up(app).await;
        let before = app.books().await;
        let attackers = KeyRing::from_seeds(&[("test".to_owned(), [99; 32])]).unwrap();
        let attackers_key = serde_json::to_value(&attackers.published().keys[0]).unwrap();

        for kid in [
            json!("../../../../dev/null"),
            json!("/proc/self/environ"),
            json!("' OR '1'='1"),
            json!("test\u{0}"),
            json!("TEST"),
            json!(""),
            json!("x".repeat(1_000)),
            json!(["test"]),
            json!({ "$ne": "" }),
            json!(null),
        ] {
            let header = json!({ "alg": "EdDSA", "kid": kid });
            for seed in [SEED, [0; 32]] {
                let token = signed(&header, &target.claims, seed);
                target.assert_refused(app, &token, "unauthenticated").await;
            }
        }
        let nameless = signed(&json!({ "alg": "EdDSA" }), &target.claims, SEED);
        target.assert_refused(app, &nameless, "unauthenticated").await;
        let url = format!("http://{}/.well-known/jwks.json", app.address);
        for (member, value) in [("jwk", &attackers_key), ("jku", &json!(url)), ("x5u", &json!(url))]
        {
            let mut header = ours();
            header[member] = value.clone();
            let token = signed(&header, &target.claims, [99; 32]);
            target.assert_refused(app, &token, "unauthenticated").await;
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn a_token_of_another_type_audience_issuer_or_time_opens_nothing() {
    TestApp::run(async |app| {
        let target = Target::set_up(app).await;
        let before = app.books().await;
        let now = now().unix_timestamp();

        for claims in [
            target.with("typ", "refresh"),
            target.with("typ", "reset"),
            target.with("typ", "ACCESS"),
            target.with("typ", json!(["access"])),
            target.with("aud", "another-api"),
            target.with("aud", json!(["another-api"])),
            target.with("iss", "https://elsewhere.example"),
            target.with("nbf", now + 60),
            target.with("exp", "never"),
            target.with("exp", json!(null)),
            target.with("role", "owner"),
            target.with("epoch", 1),
            target.with("sub", Uuid::now_v7().to_string()),
            target.with("sid", Uuid::now_v7().to_string()),
        ] {
            let token = signed(&ours(), &claims, SEED);
            target.assert_refused(app, &token, "unauthenticated").await;
        }
        for claim in ["typ", "aud", "iss", "exp", "sub", "sid", "role", "epoch"] {
            let mut claims = target.claims.clone();
            claims.as_object_mut().unwrap().remove(claim);
            let token = signed(&ours(), &claims, SEED);
            target.assert_refused(app, &token, "unauthenticated").await;
        }
        let expired = signed(&ours(), &target.with("exp", now - 6), SEED);
        target.assert_refused(app, &expired, "token-expired").await;

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn a_token_signed_by_somebody_else_opens_nothing() {
    TestApp::run(async |app| {
        let target = Target::set_up(app).await;
        let before = app.books().await;
        let stranger = KeyRing::from_seeds(&[("test".to_owned(), [8; 32])]).unwrap();
        let made =
            Tokens::new(stranger).issue(UserId::generate(), SessionId::generate(), Role::Admin, 0);

        target.assert_refused(app, &made.unwrap().token, "unauthenticated").await;
        // The right signature below other claims.
        let token = signed(&ours(), &target.claims, SEED);
        let raised = signed(&ours(), &target.with("role", "admin"), [8; 32]);
        let (_, signature) = token.rsplit_once('.').unwrap();
        let (message, _) = raised.rsplit_once('.').unwrap();
        target.assert_refused(app, &format!("{message}.{signature}"), "unauthenticated").await;

        assert_eq!(app.books().await, before);
    })
    .await;
}
