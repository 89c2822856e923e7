//! Real processes of one shop, each of whose secrets is known to the test.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use simulator::providers::{Addresses, Config, Provider, Providers};
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::support::{
    app::TestApp,
    client::{Answer, Client, until},
    ports::free_port,
    server::SERVERS,
};

/// What must not be found anywhere.
#[derive(Debug, Default)]
pub(super) struct Secrets(Vec<(String, String)>);

impl Secrets {
    /// A text that nobody else writes, and that is looked for from now on.
    pub(super) fn make(&mut self, name: &str) -> String {
        let secret = Uuid::new_v4().simple().to_string();
        self.note(name, &secret);
        secret
    }

    /// Looks for the text from now on, as it is and as it is usually coded.
    pub(super) fn note(&mut self, name: &str, secret: &str) {
        assert!(secret.len() >= 12, "{name} is too short to be looked for");
        for text in [
            secret.to_owned(),
            hex::encode(secret),
            BASE64_URL_SAFE_NO_PAD.encode(secret),
            BASE64_STANDARD_NO_PAD.encode(secret),
        ] {
            self.0.push((name.to_owned(), text));
        }
    }

    /// A key of 32 random bytes, as the settings want it.
    fn make_key(&mut self, name: &str) -> String {
        let bytes: [u8; 32] = rand::random();
        let key = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        self.note(name, &key);
        self.0.push((name.to_owned(), hex::encode(bytes)));
        self.0.push((name.to_owned(), BASE64_STANDARD_NO_PAD.encode(bytes)));
        format!("marked:{key}")
    }

    /// The names of the secrets that stand in the text.
    pub(super) fn found_in(&self, text: &str) -> Vec<&str> {
        let found = self.0.iter().filter(|(_, secret)| text.contains(&**secret));
        let mut names: Vec<_> = found.map(|(name, _)| &**name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A process, and where it writes and tells its health.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) name: String,
    pub(super) health: SocketAddr,
    log: PathBuf,
    _child: Child,
}

impl Running {
    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

pub(super) struct Shop<'a> {
    pub(super) app: &'a TestApp,
    pub(super) secrets: Secrets,
    pub(super) providers: Providers,
    pub(super) namespace: String,
    pub(super) api: Client,
    pub(super) running: Vec<Running>,
    /// How many of them, the first ones, have what they need.
    pub(super) good: usize,
    /// What was answered with 400 or more: status line, headers and body.
    pub(super) refusals: Vec<String>,
    /// What every process is told, in the environment and in files.
    pub(super) settings: Vec<(&'static str, String)>,
    folder: PathBuf,
}

impl<'a> Shop<'a> {
    /// Starts an API and one of each worker.
    pub(super) async fn open(app: &'a TestApp) -> Self {
        let mut secrets = Secrets::default();
        let namespace = format!("secrets-{}", Uuid::now_v7().simple());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&namespace);
        fs::create_dir_all(&folder).unwrap();
        let mut key = |name| secrets.make(name);
        let config = Config {
            stripe_key: format!("sk_test_{}", key("STRIPE_KEYS")),
            stripe_webhook_secrets: vec![format!("whsec_{}", key("STRIPE_WEBHOOK_SECRETS"))],
            razorpay_key_secret: key("RAZORPAY_KEYS"),
            razorpay_webhook_secret: key("RAZORPAY_WEBHOOK_SECRETS"),
            ..Config::default()
        };
        secrets.note("DATABASE_URL", password_of(&app.database_url));
        secrets.note("REDIS_URL", password_of(&SERVERS.redis_url));
        let (token_keys, guest_keys) =
            (secrets.make_key("TOKEN_KEYS"), secrets.make_key("GUEST_TOKEN_KEYS"));
        let razorpay = format!("{}:{}", config.razorpay_key_id, config.razorpay_key_secret);
        let providers = Providers::start(Addresses::any(), config.clone()).await.unwrap();
        let file = |name: &str, content: &str| {
            let path = folder.join(name);
            fs::write(&path, format!("{content}\n")).unwrap();
            path.display().to_string()
        };
        let settings = vec![
            ("ENVIRONMENT", "development".to_owned()),
            ("LOG", "debug".to_owned()),
            ("LOG_FORMAT", "json".to_owned()),
            ("QUEUE_NAMESPACE", namespace.clone()),
            ("MAIL_FROM", "The Shop <orders@shop.example>".to_owned()),
            ("SHOP_NAME", "The Shop".to_owned()),
            ("SHOP_URL", "https://shop.example".to_owned()),
            ("SMTP_URL", format!("smtp://{}", app.inbox.smtp_addr())),
            ("DATABASE_URL_FILE", file("database-url", &app.database_url)),
            ("REDIS_URL_FILE", file("redis-url", &SERVERS.redis_url)),
            ("TOKEN_KEYS_FILE", file("token-keys", &token_keys)),
            ("GUEST_TOKEN_KEYS", guest_keys),
            ("STRIPE_URL", providers.url(Provider::Stripe)),
            ("STRIPE_KEYS_FILE", file("stripe-keys", &config.stripe_key)),
            ("STRIPE_WEBHOOK_SECRETS", config.stripe_webhook_secrets.join(",")),
            ("RAZORPAY_URL", providers.url(Provider::Razorpay)),
            ("RAZORPAY_KEYS", razorpay),
            ("RAZORPAY_WEBHOOK_SECRETS_FILE", file("hook", &config.razorpay_webhook_secret)),
        ];
        let api = Client::new("http://unknown");
        let (running, refusals) = (Vec::new(), Vec::new());
        let mut shop = Self {
            app,
            secrets,
            providers,
            namespace,
            api,
            running,
            good: 0,
            refusals,
            settings,
            folder,
        };
        shop.start_all().await;
        shop
    }

    async fn start_all(&mut self) {
        let shop = self;
        let listen = free_port();
        shop.start("api", &[("LISTEN", listen.to_string())]);
        for worker in ["webhooks", "reaper", "mailer"] {
            shop.start(worker, &[]);
        }
        shop.good = shop.running.len();
        for process in &shop.running {
            until("the process is ready", async || {
                let answer = simulator::get(format!("http://{}/readyz", process.health)).await;
                match answer {
                    Ok(answer) if answer.status().is_success() => Ok(()),
                    answer => Err(format!("{}: {answer:?}\n{}", process.name, process.log())),
                }
            })
            .await;
        }
        let url = format!("http://{listen}");
        shop.providers.set_webhook_base(&url);
        shop.api = Client::new(&url);
    }

    /// Starts a process with the shop's settings, but for these.
    pub(super) fn start(&mut self, program: &str, others: &[(&'static str, String)]) {
        let health = free_port();
        let log = self.folder.join(format!("{program}-{}.log", self.running.len()));
        let output = File::create(&log).unwrap();
        let mut command = self.command(program, others);
        command
            .env("HEALTH_LISTEN", health.to_string())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let name = program.to_owned();
        self.running.push(Running { name, health, log, _child: command.spawn().unwrap() });
    }

    /// A program that is told the shop's settings, but for these.
    pub(super) fn command(&self, program: &str, others: &[(&'static str, String)]) -> Command {
        let program = match program {
            "api" => env!("CARGO_BIN_EXE_api"),
            "webhooks" => env!("CARGO_BIN_EXE_webhooks"),
            "reaper" => env!("CARGO_BIN_EXE_reaper"),
            "mailer" => env!("CARGO_BIN_EXE_mailer"),
            "ctl" => env!("CARGO_BIN_EXE_ctl"),
            other => panic!("no program {other}"),
        };
        let mut command = Command::new(program);
        command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
        for (name, value) in &self.settings {
            let instead = name.strip_suffix("_FILE").unwrap_or(name);
            if !others.iter().any(|(other, _)| *other == instead) {
                command.env(name, value);
            }
        }
        command.envs(others.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Sends the request; a refusal is kept, to be looked at.
    pub(super) async fn ask(&mut self, request: reqwest::RequestBuilder) -> Answer {
        let answer = Answer::to(request).await;
        if answer.status >= 400 {
            self.refusals.push(format!("{} {:?} {}", answer.status, answer.headers, answer.body));
        }
        answer
    }

    /// What is left of it is of use to nobody.
    pub(super) fn close(self) {
        drop(self.running);
        let _ = fs::remove_dir_all(self.folder);
    }
}

/// The password of a URL.
pub(super) fn password_of(url: &str) -> &str {
    let (_, rest) = url.split_once("://").unwrap();
    let (login, _) = rest.rsplit_once('@').unwrap();
    login.split_once(':').unwrap().1
}

#[test]
fn what_is_marked_is_found_as_it_is_and_coded() {
    let mut secrets = Secrets::default();
    let password = secrets.make("password");
    let key = secrets.make_key("key");

    for text in [
        format!("password={password}&"),
        format!("\"{}\"", hex::encode(&password)),
        BASE64_STANDARD_NO_PAD.encode(&password),
    ] {
        assert_eq!(secrets.found_in(&text), ["password"], "{text}");
    }
    assert_eq!(secrets.found_in(&key), ["key"]);
    assert!(secrets.found_in("nothing").is_empty());
}
