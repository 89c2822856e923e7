//! Starting, watching and stopping a process.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Output, Stdio},
};

use tokio::process::Command;

use crate::support::{
    app::{KEYS, TestApp},
    client::until,
};

/// A program that is told nothing but where to look for others.
fn bare(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

fn free_port() -> SocketAddr {
    // Freed at once, and given to nobody else so soon.
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

async fn status(address: SocketAddr, path: &str) -> Option<u16> {
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
            .env("GUEST_TOKEN_KEYS", KEYS);
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
        let mut reaper = bare(env!("CARGO_BIN_EXE_reaper"));
        reaper
            .env("DATABASE_URL", &app.database_url)
            .env("REDIS_URL", "redis://127.0.0.1:1")
            .env("HEALTH_LISTEN", health.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let _reaper = reaper.spawn().unwrap();

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
