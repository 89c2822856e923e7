//! Starting, watching and stopping a process.

use std::{
    net::SocketAddr,
    process::{Output, Stdio},
};

use simulator::providers::Config;
use tokio::process::Command;

use crate::support::{
    app::{GUEST_KEYS, KEYS, TestApp},
    client::until,
    ports::free_port,
};

/// A program that is told nothing but where to look for others.
pub(super) fn bare(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("ENVIRONMENT", "development")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// A reaper without a Redis.
fn reaper(database_url: &str, health: SocketAddr) -> Command {
    let mut reaper = bare(env!("CARGO_BIN_EXE_reaper"));
    reaper
        .env("DATABASE_URL", database_url)
        .env("REDIS_URL", "redis://127.0.0.1:1")
        .env("HEALTH_LISTEN", health.to_string());
    reaper
}

pub(super) async fn status(address: SocketAddr, path: &str) -> Option<u16> {
    let answer = simulator::get(format!("http://{address}{path}")).await.ok()?;
    Some(answer.status().as_u16())
}

#[tokio::test]
async fn a_process_that_lacks_settings_names_them_all_and_no_value() {
    for (program, names) in [
        (
            env!("CARGO_BIN_EXE_api"),
            &["DATABASE_URL", "REDIS_URL", "HEALTH_LISTEN", "LISTEN", "TOKEN_KEYS"][..],
        ),
        (env!("CARGO_BIN_EXE_reaper"), &["DATABASE_URL", "REDIS_URL", "HEALTH_LISTEN"]),
        (env!("CARGO_BIN_EXE_mailer"), &["DATABASE_URL", "REDIS_URL", "SMTP_URL", "MAIL_FROM"]),
        (
            env!("CARGO_BIN_EXE_webhooks"),
            &[
                "DATABASE_URL",
                "REDIS_URL",
                "HEALTH_LISTEN",
                "STRIPE_KEYS",
                "RAZORPAY_WEBHOOK_SECRETS",
            ],
        ),
    ] {
        let mut process = bare(program);
        process
            .env("DATABASE_URL", "mysql://root:hunter2@localhost")
            .env("STRIPE_KEYS", "hunter2")
            .env("RAZORPAY_KEYS", "rzp_test_1:hunter2");

        let Output { status, stderr, .. } = process.output().await.unwrap();

        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(2), "{said}");
        for name in names {
            assert!(said.contains(name), "{name} is not in {said}");
        }
        assert!(!said.contains("hunter2"), "{said}");
    }
}

/// What a process says when it does not start, which exits with 2.
async fn refusal(program: &str, settings: &[(&str, &str)]) -> String {
    let mut process = bare(program);
    process.env_remove("ENVIRONMENT").envs(settings.iter().copied());
    let Output { status, stdout, stderr } = process.output().await.unwrap();
    assert_eq!(status.code(), Some(2), "{status}");
    String::from_utf8([stdout, stderr].concat()).unwrap()
}

/// Settings that would do for a start, but for what is noted beside them.
fn settings<'a>(others: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut settings = vec![
        ("DATABASE_URL", "postgres://app:hunter2@127.0.0.1:1/shop"),
        ("REDIS_URL", "redis://127.0.0.1:1"),
        ("HEALTH_LISTEN", "127.0.0.1:0"),
        ("LISTEN", "127.0.0.1:0"),
        ("MAIL_FROM", "orders@shop.example"),
        ("SHOP_NAME", "The Shop"),
    ];
    settings.extend(others);
    settings
}

#[tokio::test]
async fn misconfiguration_a_process_in_production_names_every_bad_setting_and_exits_with_2() {
    const ZERO: &str = "live:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let api = settings(&[
        ("TOKEN_KEYS", ZERO),
        ("GUEST_TOKEN_KEYS", KEYS),
        ("FAILPOINT", "checkout-commit"),
        ("ALLOWED_ORIGINS", "http://shop.example"),
        ("STRIPE_KEYS", "sk_live_4eC39HqLyjWDarjtT1zdp7dc"),
        ("STRIPE_WEBHOOK_SECRETS", "hunter2"),
        ("STRIPE_URL", "http://127.0.0.1:4000"),
    ]);
    let mailer = settings(&[
        ("SMTP_URL", "smtp://hunter2@mail.example"),
        ("SHOP_URL", "http://shop.example"),
    ]);

    let api = refusal(env!("CARGO_BIN_EXE_api"), &api).await;
    let mailer = refusal(env!("CARGO_BIN_EXE_mailer"), &mailer).await;

    for (said, names) in [
        (
            &api,
            &[
                "TOKEN_KEYS",
                "GUEST_TOKEN_KEYS",
                "FAILPOINT",
                "ALLOWED_ORIGINS",
                "STRIPE_WEBHOOK_SECRETS",
                "STRIPE_URL",
                // Nobody said how many there are.
                "TRUSTED_PROXIES",
            ][..],
        ),
        (&mailer, &["SMTP_URL", "SHOP_URL"]),
    ] {
        let mut lines: Vec<_> = said.lines().map(|line| line.split(' ').next().unwrap()).collect();
        let mut names = names.to_vec();
        lines.sort_unstable();
        names.sort_unstable();
        assert_eq!(lines, names, "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[tokio::test]
async fn misconfiguration_the_simulators_secrets_are_refused_in_production() {
    let simulator = Config::default();
    let keys = format!("{}:{}", simulator.razorpay_key_id, simulator.razorpay_key_secret);
    let settings = settings(&[
        ("STRIPE_KEYS", &simulator.stripe_key),
        ("STRIPE_WEBHOOK_SECRETS", &simulator.stripe_webhook_secrets[0]),
        ("RAZORPAY_KEYS", &keys),
        ("RAZORPAY_WEBHOOK_SECRETS", &simulator.razorpay_webhook_secret),
    ]);

    let said = refusal(env!("CARGO_BIN_EXE_webhooks"), &settings).await;

    for name in
        ["STRIPE_KEYS", "STRIPE_WEBHOOK_SECRETS", "RAZORPAY_KEYS", "RAZORPAY_WEBHOOK_SECRETS"]
    {
        assert!(said.contains(&format!("{name} is unsafe in production")), "{name}: {said}");
    }
    let dev = include_str!("../../../dev");
    assert!(dev.contains(&simulator.stripe_key) && dev.contains(&keys), "./dev has the same");
}

#[tokio::test]
async fn a_process_tells_how_it_is_and_drains_when_it_is_told_to_stop() {
    TestApp::run(async |app| {
        let (health, listen) = (free_port(), free_port());
        let mut api = bare(env!("CARGO_BIN_EXE_api"));
        api.env("DATABASE_URL", &app.database_url)
            // Redis is away, and that is no reason not to work.
            .env("REDIS_URL", "redis://127.0.0.1:1")
            .env("HEALTH_LISTEN", health.to_string())
            .env("LISTEN", listen.to_string())
            .env("TOKEN_KEYS", KEYS)
            .env("GUEST_TOKEN_KEYS", GUEST_KEYS);
        let api = api.spawn().unwrap();

        until("the process is ready", async || match status(health, "/readyz").await {
            Some(200) => Ok(()),
            status => Err(format!("{status:?}")),
        })
        .await;
        assert_eq!(status(health, "/livez").await, Some(200));
        assert_eq!(status(listen, "/v1/products").await, Some(200));
        let metrics = simulator::get(format!("http://{health}/metrics")).await.unwrap();
        let metrics = metrics.text().await.unwrap();
        let counted = "http_requests_total{method=\"GET\",route=\"/v1/products\",status=\"200\"} 1";
        assert!(metrics.contains(counted), "{metrics}");

        let pid = api.id().unwrap();
        let kill = Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status().await;
        assert!(kill.unwrap().success());
        let Output { status, stdout, .. } = api.wait_with_output().await.unwrap();

        let log = String::from_utf8(stdout).unwrap();
        assert_eq!(status.code(), Some(0), "{log}");
        for line in log.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
        }
        assert!(log.contains("request finished"), "{log}");
    })
    .await;
}

#[tokio::test]
async fn a_process_without_its_schema_is_alive_and_not_ready() {
    TestApp::run(async |app| {
        app.execute("ALTER TABLE _sqlx_migrations RENAME TO hidden").await;
        let health = free_port();
        let mut reaper = reaper(&app.database_url, health);
        let _reaper = reaper.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();

        let readiness = until("the process has looked", async || {
            let answer = simulator::get(format!("http://{health}/readyz")).await;
            let answer = answer.map_err(|error| error.to_string())?;
            let text = answer.text().await.map_err(|error| error.to_string())?;
            if text.contains("ctl migrate") { Ok(text) } else { Err(text) }
        })
        .await;
        assert!(readiness.contains("lacks migration 1"), "{readiness}");
        assert_eq!(status(health, "/readyz").await, Some(503));
        assert_eq!(status(health, "/livez").await, Some(200));

        app.execute("ALTER TABLE hidden RENAME TO _sqlx_migrations").await;
        until("the process is ready", async || match status(health, "/readyz").await {
            Some(200) => Ok(()),
            status => Err(format!("{status:?}")),
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_process_that_could_rewrite_what_happened_says_so() {
    TestApp::run(async |app| {
        for (url, is_told) in [(&app.owner_url, true), (&app.database_url, false)] {
            let health = free_port();
            let mut reaper = reaper(url, health).spawn().unwrap();
            until("the process is ready", async || match status(health, "/readyz").await {
                Some(200) => Ok(()),
                status => Err(format!("{status:?}")),
            })
            .await;

            reaper.start_kill().unwrap();
            let Output { stdout, .. } = reaper.wait_with_output().await.unwrap();

            let log = String::from_utf8(stdout).unwrap();
            assert_eq!(log.contains("can change the schema"), is_told, "{log}");
        }
    })
    .await;
}

#[tokio::test]
async fn how_much_people_have_to_look_at_is_measured() {
    TestApp::run(async |app| {
        app.execute(
            "INSERT INTO findings (id, kind, subject, closed_at) VALUES
                (gen_random_uuid(), 'unknown_money', 'pi_1', NULL),
                (gen_random_uuid(), 'unknown_money', 'pi_2', NULL),
                (gen_random_uuid(), 'disputed', 'dp_1', now())",
        )
        .await;
        let health = free_port();
        let mut reaper = reaper(&app.database_url, health);
        let _reaper = reaper.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();

        let metrics = until("the reaper has counted", async || {
            let answer = simulator::get(format!("http://{health}/metrics")).await;
            let answer = answer.map_err(|error| error.to_string())?;
            let text = answer.text().await.map_err(|error| error.to_string())?;
            if text.contains("findings_open{") { Ok(text) } else { Err(text) }
        })
        .await;

        for counted in [
            r#"findings_open{kind="unknown_money"} 2"#,
            r#"findings_open{kind="disputed"} 0"#,
            r#"findings_open{kind="quarantined"} 0"#,
        ] {
            assert!(metrics.contains(counted), "{counted}: {metrics}");
        }
    })
    .await;
}
