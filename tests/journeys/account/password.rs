//! Changing a password and a name, by somebody who is logged in.

use holdfast::identity::Role;
use reqwest::Method;
use serde_json::{Value, json};

use super::{ADA, templates};
use crate::support::{
    app::{PASSWORD, TestApp},
    client::{Answer, Client},
};

const NEW: &str = "a new password";

async fn change(client: &Client, password: &str, new_password: &str) -> Answer {
    let body = json!({ "password": password, "new_password": new_password });
    client.post("/v1/auth/change-password", &body).await
}

#[tokio::test]
async fn a_new_password_ends_every_other_session_and_keeps_this_one() {
    TestApp::run(async |app| {
        app.user(ADA, Role::Customer).await;
        let (phone, laptop) = (app.log_in(ADA, PASSWORD).await, app.log_in(ADA, PASSWORD).await);
        app.forget_password(ADA).await;
        let reset = app.token_for(ADA).await;

        change(&phone, PASSWORD, NEW).await.assert_status(204);

        phone.get("/v1/auth/me").await.assert_status(200);
        laptop.get("/v1/auth/me").await.assert_problem(401, "unauthenticated");
        app.try_login(ADA, PASSWORD).await.assert_problem(401, "invalid-credentials");
        app.log_in(ADA, NEW).await;
        app.reset_password(&reset, PASSWORD).await.assert_problem(422, "invalid-mail-token");
        assert_eq!(templates(&app.mails_to(ADA).await), ["reset-password", "password-changed"]);
    })
    .await;
}

#[tokio::test]
async fn without_the_password_before_there_is_no_new_one() {
    TestApp::run(async |app| {
        app.user(ADA, Role::Customer).await;
        let (phone, laptop) = (app.log_in(ADA, PASSWORD).await, app.log_in(ADA, PASSWORD).await);

        change(&phone, "incorrect horse", NEW).await.assert_problem(403, "wrong-password");
        change(&phone, "short", NEW).await.assert_problem(403, "wrong-password");
        change(&phone, PASSWORD, "short")
            .await
            .assert_problem(422, "invalid-request")
            .assert_errors(&[("/new_password", "invalid-password")]);

        laptop.get("/v1/auth/me").await.assert_status(200);
        app.log_in(ADA, PASSWORD).await;
        assert_eq!(app.mails_to(ADA).await.len(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_user_has_the_name_they_give_themselves() {
    TestApp::run(async |app| {
        let ada = app.customer().await;
        let rename = async |body: Value| {
            Answer::to(ada.request(Method::PATCH, "/v1/auth/me").json(&body)).await
        };
        assert_eq!(ada.get("/v1/auth/me").await.at("/display_name"), Value::Null);

        assert_eq!(rename(json!({ "display_name": " Ada " })).await.at("/display_name"), "Ada");
        assert_eq!(rename(json!({})).await.at("/display_name"), "Ada");
        for name in ["", "  ", "Ada\nLovelace", &"a".repeat(101)] {
            rename(json!({ "display_name": name }))
                .await
                .assert_problem(422, "invalid-request")
                .assert_errors(&[("/display_name", "invalid-name")]);
        }

        assert_eq!(ada.get("/v1/auth/me").await.at("/display_name"), "Ada");
        let nameless = rename(json!({ "display_name": null })).await;
        assert_eq!(nameless.at("/display_name"), Value::Null);
    })
    .await;
}
