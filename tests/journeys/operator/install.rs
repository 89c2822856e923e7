//! Setting up a shop.

use holdfast::audit::{OPERATOR, of_subject};
use serde_json::json;
use uuid::Uuid;

use crate::support::{
    app::{PASSWORD, TestApp},
    roles::APP_ROLE,
};

#[tokio::test]
async fn the_schema_is_brought_up_to_date_once() {
    TestApp::run(async |app| {
        let before = app.books().await;

        app.migrate(&[]).await.assert(0, &["up to date", APP_ROLE]);

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn a_shop_is_seeded_once() {
    TestApp::run(async |app| {
        let seed = || app.ctl_with(&["seed"], "", &[("ENVIRONMENT", "development")]);
        let first = seed().await;
        let seeded = app.books().await;
        let second = seed().await;

        first.assert(0, &[]);
        second.assert(0, &[]);
        assert_eq!(app.books().await, seeded);
        assert_eq!(app.count("products").await, 20);
        for (email, role) in [("admin@holdfast.test", "admin"), ("shopper@example.com", "customer")]
        {
            let id: Uuid = sqlx::query_scalar("SELECT id FROM users WHERE email = $1")
                .bind(email)
                .fetch_one(&app.db)
                .await
                .unwrap();
            let told = of_subject(&app.db, &format!("user:{id}")).await.unwrap();
            let [told] = &told[..] else { panic!("{email}: {told:?}") };
            assert_eq!((&*told.entry.action, told.entry.actor_id), ("createUser", OPERATOR));
            let after = told.entry.after.as_ref().unwrap();
            assert!(after["role"] == role && after["operator"].is_string(), "{after}");
        }
        assert!(app.count("stock WHERE on_hand > 0").await >= 20);
        for currency in ["USD", "INR"] {
            let unpriced = format!(
                "variants WHERE id NOT IN (SELECT variant_id FROM prices WHERE currency = '{currency}')"
            );
            assert_eq!(app.count(&unpriced).await, 0, "{currency}");
        }
        app.ctl(&["doctor"]).await.assert(0, &[]);
    })
    .await;
}

#[tokio::test]
async fn misconfiguration_a_shop_with_customers_gets_no_login_whose_password_is_public() {
    TestApp::run(async |app| {
        for environment in ["production", "", "staging"] {
            // Whether there is a database it is not even asked.
            let settings = [("ENVIRONMENT", environment), ("DATABASE_URL", "")];

            let seed = app.ctl_with(&["seed"], "", &settings).await;

            seed.assert(2, &["ENVIRONMENT is"]);
            assert_eq!(seed.text.lines().count(), 1, "{}", seed.text);
        }
        app.ctl_with(&["seed"], "", &[("ENVIRONMENT", "production")]).await.assert(2, &[]);
        assert_eq!((app.count("users").await, app.count("products").await), (0, 0));
        // Any other setting that is wrong ends with the same code.
        let lost = app.ctl_with(&["doctor"], "", &[("DATABASE_URL", "")]).await;
        lost.assert(2, &["DATABASE_URL is missing"]);
    })
    .await;
}

#[tokio::test]
async fn an_admin_who_was_created_can_log_in_and_work() {
    TestApp::run(async |app| {
        let create = ["user", "create", "root@example.com", "--role", "admin"];

        app.ctl_with_input(&create, &format!("{PASSWORD}\n"))
            .await
            .assert(0, &["root@example.com"]);

        let admin = app.log_in("root@example.com", PASSWORD).await;
        assert_eq!(admin.get("/v1/auth/me").await.at("/role"), "admin");
        let mug = app.product_with_stock(1).await;
        assert_eq!(admin.get(&format!("/v1/stock/{}", mug.id)).await.at("/on_hand"), 1);
        let again = app.ctl_with_input(&create, PASSWORD).await;
        again.assert(1, &["already"]);
        let weak = ["user", "create", "weak@example.com"];
        app.ctl_with_input(&weak, "short").await.assert(1, &["10 to 128"]);
        assert_eq!(app.count("users").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_customer_is_made_staff() {
    TestApp::run(async |app| {
        let create = ["user", "create", "ada@example.com"];
        app.ctl_with_input(&create, PASSWORD).await.assert(0, &["customer"]);

        app.ctl(&["user", "set-role", "ada@example.com", "staff"]).await.assert(0, &["staff"]);

        let staff = app.log_in("ada@example.com", PASSWORD).await;
        assert_eq!(staff.get("/v1/auth/me").await.at("/role"), "staff");
        let given = of_subject(&app.db, &format!("user:{}", staff.id.unwrap())).await.unwrap();
        let given: Vec<_> = given.into_iter().map(|given| given.entry).collect();
        assert_eq!([&*given[0].action, &*given[1].action], ["setRole", "createUser"]);
        assert_eq!(given[0].before, Some(json!({ "role": "customer" })));
        assert_eq!(given[0].after.as_ref().unwrap()["role"], "staff");
        let nobody = app.ctl(&["user", "set-role", "nobody@example.com", "staff"]).await;
        nobody.assert(1, &["no such user"]);
        let nonsense = app.ctl(&["user", "set-role", "ada@example.com", "owner"]).await;
        assert_eq!(nonsense.status, 2, "{}", nonsense.text);
    })
    .await;
}
