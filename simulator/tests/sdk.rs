//! The simulator as the providers' own client libraries meet it: what they accept is the wire
//! format, and not two copies of one misunderstanding.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::{path::Path, process::Stdio};

use simulator::providers::{Addresses, Config, Provider, Providers};
use tokio::process::Command;

/// Which Python to run: one that has what `sdk/requirements.txt` asks for.
const INTERPRETER: &str = "SDK_PYTHON";

/// Runs `script` against a simulator of its own.
async fn drive(script: &str) {
    let Some(python) = std::env::var_os(INTERPRETER) else {
        panic!("{INTERPRETER} names no Python with the providers' libraries; run ./dev test");
    };
    let config = Config::default();
    let providers = Providers::start(Addresses::any_with_page(), config.clone()).await.unwrap();

    let output = Command::new(python)
        .arg("-u")
        .arg(Path::new("tests/sdk").join(script))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SIMULATOR_URL", providers.page_url().unwrap())
        .env("STRIPE_URL", providers.url(Provider::Stripe))
        .env("STRIPE_KEY", &config.stripe_key)
        .env("STRIPE_WEBHOOK_SECRET", &config.stripe_webhook_secrets[0])
        .env("RAZORPAY_URL", providers.url(Provider::Razorpay))
        .env("RAZORPAY_KEY_ID", &config.razorpay_key_id)
        .env("RAZORPAY_KEY_SECRET", &config.razorpay_key_secret)
        .env("RAZORPAY_WEBHOOK_SECRET", &config.razorpay_webhook_secret)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();

    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stripes_library_finds_a_stripe() {
    drive("stripe_drive.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn razorpays_library_finds_a_razorpay() {
    drive("razorpay_drive.py").await;
}
