//! Changing the e-mail address.

use holdfast::identity::Role;
use serde_json::json;

use super::{ADA, templates};
use crate::support::{
    app::{PASSWORD, TestApp},
    client::{Answer, Client},
};

const NEW: &str = "ada@elsewhere.example";

async fn change(client: &Client, email: &str, password: &str) -> Answer {
    let body = json!({ "email": email, "password": password });
    client.post("/v1/auth/change-email", &body).await
}

async fn confirm(client: &Client, token: &str) -> Answer {
    client.post("/v1/auth/confirm-email", &json!({ "token": token })).await
}

/// Gives the account the address, and shows that it is its owner's.
pub(crate) async fn move_to(app: &TestApp, client: &Client, email: &str) {
    change(client, email, PASSWORD).await.assert_status(202);
    let token = app.token_for(email).await;
    confirm(client, &token).await.assert_status(204);
}

#[tokio::test]
async fn a_new_address_counts_once_its_mail_was_read_and_the_old_one_is_told() {
    TestApp::run(async |app| {
        app.user(ADA, Role::Customer).await;
        let ada = app.log_in(ADA, PASSWORD).await;
        app.forget_password(ADA).await;
        let reset = app.token_for(ADA).await;

        change(&ada, NEW, PASSWORD).await.assert_status(202);
        assert_eq!(ada.get("/v1/auth/me").await.at("/email"), ADA);
        let token = app.token_for(NEW).await;
        confirm(&ada, &token).await.assert_status(204);

        assert_eq!(ada.get("/v1/auth/me").await.at("/email"), NEW);
        app.log_in(NEW, PASSWORD).await;
        app.try_login(ADA, PASSWORD).await.assert_problem(401, "invalid-credentials");
        app.reset_password(&reset, "another password")
            .await
            .assert_problem(422, "invalid-mail-token");
        assert_eq!(templates(&app.mails_to(ADA).await), ["reset-password", "email-changed"]);
        confirm(&ada, &token).await.assert_problem(422, "invalid-mail-token");
    })
    .await;
}

#[tokio::test]
async fn only_who_asked_confirms_and_only_with_the_password() {
    TestApp::run(async |app| {
        app.user(ADA, Role::Customer).await;
        let (ada, bob) = (app.log_in(ADA, PASSWORD).await, app.customer().await);
        change(&ada, NEW, "incorrect horse").await.assert_problem(403, "wrong-password");
        change(&ada, NEW, PASSWORD).await.assert_status(202);
        let token = app.token_for(NEW).await;

        confirm(&bob, &token).await.assert_problem(422, "invalid-mail-token");

        assert_eq!(app.mails_to(NEW).await.len(), 1);
        confirm(&ada, &token).await.assert_status(204);
    })
    .await;
}

#[tokio::test]
async fn an_address_that_has_an_account_stays_its_owners_and_nobody_is_told() {
    TestApp::run(async |app| {
        app.user(ADA, Role::Customer).await;
        app.user("bob@example.com", Role::Customer).await;
        let ada = app.log_in(ADA, PASSWORD).await;

        let taken = change(&ada, "bob@example.com", PASSWORD).await;
        let free = change(&ada, NEW, PASSWORD).await;

        assert_eq!((taken.status, &taken.body), (free.status, &free.body));
        assert_eq!(templates(&app.mails_to("bob@example.com").await), ["account-exists"]);
        assert_eq!(templates(&app.mails_to(NEW).await), ["confirm-email"]);

        // Somebody opens an account with the address before Ada reads her mail.
        let proof = app.token_for(NEW).await;
        app.user(NEW, Role::Customer).await;
        confirm(&ada, &proof).await.assert_problem(409, "email-taken");
        assert_eq!(ada.get("/v1/auth/me").await.at("/email"), ADA);
    })
    .await;
}

#[tokio::test]
async fn a_thief_who_asked_for_another_address_is_out_once_the_password_is_reset() {
    TestApp::run(async |app| {
        app.user(ADA, Role::Customer).await;
        let thief = app.log_in(ADA, PASSWORD).await;
        change(&thief, "eve@example.com", PASSWORD).await.assert_status(202);
        let token = app.token_for("eve@example.com").await;

        app.forget_password(ADA).await;
        let reset = app.token_for(ADA).await;
        app.reset_password(&reset, "known to ada alone").await.assert_status(204);

        confirm(&thief, &token).await.assert_problem(401, "unauthenticated");
        let ada = app.log_in(ADA, "known to ada alone").await;
        confirm(&ada, &token).await.assert_problem(422, "invalid-mail-token");
        assert_eq!(ada.get("/v1/auth/me").await.at("/email"), ADA);
    })
    .await;
}
