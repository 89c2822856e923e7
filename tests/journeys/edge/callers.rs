//! Telling callers apart.

use holdfast::identity::{KeyRing, Role, Tokens, set_role};
use holdfast::kernel::{EmailAddress, SessionId, UserId};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    KEY,
    app::{PASSWORD, SEED, TestApp},
    client::Client,
};

fn credentials(email: &str, password: &str) -> Value {
    json!({ "email": email, "password": password })
}

/// A token as the shop signs it, if its key is `seed`.
fn token(seed: [u8; 32], user_id: Uuid, role: Role) -> String {
    let keys = KeyRing::from_seeds(&[("test".to_owned(), seed)]).unwrap();
    Tokens::new(keys).issue(UserId::from(user_id), SessionId::generate(), role, 0).unwrap().token
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_get_the_same_answer() {
    TestApp::run(async |app| {
        let anybody = app.anybody();
        app.user("ada@example.com", Role::Customer).await;

        let mut answers = Vec::new();
        for (email, password) in [
            ("ada@example.com", "incorrect horse battery"),
            ("bob@example.com", PASSWORD),
            ("nobody", PASSWORD),
            ("ada@example.com", "short"),
        ] {
            let answer = anybody.post("/v1/auth/login", &credentials(email, password)).await;
            answer.assert_problem(401, "invalid-credentials");
            answers.push(answer.without_request_id());
        }

        answers.dedup();
        assert_eq!(answers.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_registration_that_cannot_be_is_refused_with_all_that_is_wrong() {
    TestApp::run(async |app| {
        let before = app.books().await;

        let refusal = app.anybody().post("/v1/auth/register", &credentials("ada", "short")).await;

        refusal
            .assert_problem(422, "invalid-request")
            .assert_errors(&[("/email", "invalid-email"), ("/password", "invalid-password")]);
        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn nobody_registers_as_staff() {
    TestApp::run(async |app| {
        let mut body = credentials("eve@example.com", PASSWORD);
        body["role"] = json!("admin");

        let refusal = app.anybody().post("/v1/auth/register", &body).await;

        refusal.assert_problem(422, "invalid-request").assert_errors(&[("/role", "unknown-field")]);
        assert_eq!(app.count("users").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_token_that_proves_nothing_opens_nothing() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let customer = app.customer().await;
        let id = customer.id.unwrap();
        let (head, tail) = customer.token().rsplit_once('.').unwrap();
        let guest = app.guest().await;
        let (guest_head, guest_tail) = guest.token().split_at(guest.token().len() - 20);
        let forged = [
            String::new(),
            "nonsense".to_owned(),
            "a.b.c".to_owned(),
            format!("{head}."),
            format!("{head}.{}", tail.chars().rev().collect::<String>()),
            token([8; 32], id, Role::Customer),
            // Signed by us, for somebody who does not exist.
            token(SEED, Uuid::now_v7(), Role::Admin),
            format!("{guest_head}{}", guest_tail.chars().rev().collect::<String>()),
            "hfg1_test.".to_owned(),
            "x".repeat(5_000),
        ];
        let before = app.books().await;

        for token in forged {
            let caller = app.anybody().with_token(&token, None);
            caller.orders().await.assert_problem(401, "unauthenticated");
            let checkout = caller.place_order(KEY, &[(mug, 1)]).await;
            checkout.assert_problem(401, "unauthenticated");
            assert!(checkout.header("www-authenticate").is_some_and(|it| it.starts_with("Bearer")));
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn without_a_token_there_is_nobody_to_order_for() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let anybody = app.anybody();
        let before = app.books().await;

        for answer in [
            anybody.place_order(KEY, &[(mug, 1)]).await,
            anybody.orders().await,
            anybody.order(Uuid::now_v7()).await,
            anybody.cancel(Uuid::now_v7()).await,
            anybody.get("/v1/auth/me").await,
        ] {
            answer.assert_problem(401, "unauthenticated");
            assert!(answer.header("www-authenticate").is_some_and(|it| it.starts_with("Bearer")));
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn an_expired_guest_token_says_so_and_opens_nothing() {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    use hmac::{Hmac, KeyInit, Mac};

    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        // As the shop wrote it for this guest, a minute before it ended.
        let id = Uuid::now_v7();
        let yesterday = holdfast::kernel::time::now().unix_timestamp() - 86_400;
        let mut signature = Hmac::<sha2::Sha256>::new_from_slice(&SEED).unwrap();
        signature.update(b"hfg1_test.");
        signature.update(id.as_bytes());
        signature.update(&yesterday.to_be_bytes());
        let body =
            [id.as_bytes(), &yesterday.to_be_bytes()[..], &signature.finalize().into_bytes()];
        let token = format!("hfg1_test.{}", BASE64_URL_SAFE_NO_PAD.encode(body.concat()));
        let before = app.books().await;

        let late = app.anybody().with_token(&token, id);

        late.place_order(KEY, &[(mug, 1)]).await.assert_problem(401, "token-expired");
        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn an_expired_access_token_says_so_and_opens_nothing() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let customer = app.customer().await;
        let token = expired(customer.id.unwrap());
        let before = app.books().await;

        let late = app.anybody().with_token(&token, customer.id);

        late.orders().await.assert_problem(401, "token-expired");
        late.place_order(KEY, &[(mug, 1)]).await.assert_problem(401, "token-expired");
        assert_eq!(app.books().await, before);
    })
    .await;
}

/// A customer's token that the shop signed an hour ago.
fn expired(user_id: Uuid) -> String {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};

    // RFC 8410: what stands before an Ed25519 key's 32 bytes.
    const PKCS8: [u8; 16] =
        [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let key = EncodingKey::from_ed_der(&[&PKCS8[..], &SEED[..]].concat());
    let hour_ago = holdfast::kernel::time::now().unix_timestamp() - 3_600;
    let claims = json!({
        "iss": "holdfast", "aud": "holdfast-api", "typ": "access", "sub": user_id, "sid": Uuid::now_v7(),
        "role": "customer", "epoch": 0, "iat": hour_ago, "exp": hour_ago + 600,
    });
    let header = Header { kid: Some("test".to_owned()), ..Header::new(Algorithm::EdDSA) };
    encode(&header, &claims, &key).unwrap()
}

#[tokio::test]
async fn a_change_of_role_makes_tokens_worthless_and_counts_from_the_next_login() {
    TestApp::run(async |app| {
        app.user("ada@example.com", Role::Customer).await;
        let before = app.log_in("ada@example.com", PASSWORD).await;
        let address = EmailAddress::parse("ada@example.com").unwrap();

        set_role(&app.db, &address, Role::Staff).await.unwrap();

        before.get("/v1/auth/me").await.assert_problem(401, "unauthenticated");
        let after: Client = app.log_in("ada@example.com", PASSWORD).await;
        assert_eq!(after.get("/v1/auth/me").await.at("/role"), "staff");
    })
    .await;
}

#[tokio::test]
async fn a_guest_has_no_account() {
    TestApp::run(async |app| {
        let guest = app.guest().await;

        guest.get("/v1/auth/me").await.assert_problem(403, "forbidden");
        assert_eq!(app.count("users").await, 0);
    })
    .await;
}
