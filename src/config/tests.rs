use std::{any::TypeId, collections::BTreeSet, env::temp_dir, fs, iter, path::PathBuf};

use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser};
use secrecy::SecretString;

use super::{
    Api, BadSettings, Ctl, Duration, Failpoint, Migrate, Seed,
    arguments::{ApiArguments, MailerArguments, ReaperArguments, WebhooksArguments},
    reading::Reading,
    strict::{is_guessable, is_open_smtp},
    values::{expose, keys, origins, provider_url, time},
};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

const GUEST_KEYS: &str = "guests:qKmqq6ytrq-wsbKztLW2t7i5uru8vb6_wMHCw8TFxsc";

/// Every setting as a flag, so that no environment has a say.
fn read_api(changes: &[(&str, &str)]) -> Result<Api, BadSettings> {
    let keys = format!("new:{KEY},old:{KEY}");
    let mut flags = vec![
        ("--environment", "development"),
        ("--database-url", "postgres://hunter2@localhost/shop"),
        ("--database-pool", "7"),
        ("--redis-url", "redis://:hunter2@localhost"),
        ("--health-listen", "127.0.0.1:9090"),
        ("--log", "info"),
        ("--log-format", "json"),
        ("--queue-namespace", "holdfast"),
        ("--failpoint", "checkout-commit:3"),
        ("--listen", "127.0.0.1:8080"),
        ("--hold", "20s"),
        ("--allowed-origins", "https://shop.example"),
        ("--limits", "browse:5/s:7"),
        ("--limits-wait-ms", "70"),
        ("--trusted-proxies", "1"),
        ("--concurrency", ""),
        ("--token-keys", &keys),
        ("--guest-token-keys", GUEST_KEYS),
        ("--stripe-url", ""),
        ("--stripe-keys", "sk_test_hunter2,rk_test_hunter2"),
        ("--stripe-webhook-secrets", "whsec_hunter2, whsec_old"),
        ("--stripe-rate", ""),
        ("--razorpay-url", "http://127.0.0.1:4000/razorpay/"),
        ("--razorpay-keys", "rzp_test_1:hunter2"),
        ("--razorpay-webhook-secrets", "hunter2"),
        ("--razorpay-rate", "7"),
    ];
    for (flag, value) in changes {
        flags.iter_mut().find(|(name, _)| name == flag).unwrap().1 = value;
    }
    let flags = flags.iter().map(|(flag, value)| format!("{flag}={value}"));
    let flags = iter::once("api".to_owned()).chain(flags);
    ApiArguments::try_parse_from(flags).unwrap().settings(Reading::default())
}

#[test]
fn good_settings_are_read() {
    let settings = read_api(&[]).unwrap();

    assert_eq!(settings.hold, Duration::from_secs(20));
    assert_eq!(settings.common.database_pool, 7);
    assert_eq!(settings.common.failpoint, Some(Failpoint { name: "checkout-commit".into(), n: 3 }));
    assert_eq!(settings.token_keys.expose()[1].0, "old");
    assert_eq!(settings.token_keys.expose()[0].1[31], 31);

    let stripe = settings.providers.stripe.unwrap();
    assert_eq!((&*stripe.url, stripe.calls_per_second), ("https://api.stripe.com", 20));
    assert_eq!(expose(&stripe.keys[1]), "rk_test_hunter2");
    assert_eq!(expose(&stripe.webhook_secrets[1]), "whsec_old");
    let razorpay = settings.providers.razorpay.unwrap();
    assert_eq!(razorpay.calls_per_second, 7);
    assert_eq!((&*razorpay.keys[0].0, expose(&razorpay.keys[0].1)), ("rzp_test_1", "hunter2"));
}

#[test]
fn a_provider_without_keys_is_not_offered() {
    let settings = read_api(&[("--stripe-keys", ""), ("--razorpay-keys", "")]).unwrap();

    assert!(settings.providers.stripe.is_none() && settings.providers.razorpay.is_none());
}

#[test]
fn live_and_test_keys_do_not_mix_and_webhooks_need_a_secret() {
    for (flag, value, complaint) in [
        ("--stripe-keys", "sk_live_hunter2,sk_test_hunter2", "STRIPE_KEYS is wrong"),
        ("--stripe-keys", "sk_live_hunter2", "RAZORPAY_KEYS is wrong"),
        ("--stripe-keys", "hunter2", "STRIPE_KEYS is wrong"),
        ("--stripe-webhook-secrets", "", "STRIPE_WEBHOOK_SECRETS is missing"),
        ("--stripe-rate", "0", "STRIPE_RATE is wrong"),
        ("--stripe-url", "http://hunter2.example", "STRIPE_URL is wrong"),
        ("--razorpay-keys", "rzp_live_1:hunter2", "RAZORPAY_KEYS is wrong"),
        ("--razorpay-keys", "rzp_test_1", "RAZORPAY_KEYS is wrong"),
        ("--razorpay-webhook-secrets", "a,,b", "RAZORPAY_WEBHOOK_SECRETS is wrong"),
    ] {
        let problems = read_api(&[(flag, value)]).unwrap_err().to_string();

        assert!(problems.starts_with(complaint), "{flag}={value}: {problems}");
        assert_eq!(problems.lines().count(), 1, "{problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
    }
}

#[test]
fn a_providers_url_is_encrypted_unless_it_is_here() {
    for (url, usable) in [
        ("https://api.stripe.com", true),
        ("https://proxy.example:8443/stripe/", true),
        ("http://127.0.0.1:4000", true),
        ("http://localhost:4000/stripe", true),
        ("http://[::1]:4000", true),
        ("http://api.stripe.com", false),
        ("http://127.0.0.1.example", false),
        ("https://user:password@api.stripe.com", false),
        ("https://api.stripe.com/?a=b", false),
        ("ftp://localhost", false),
        ("api.stripe.com", false),
    ] {
        assert_eq!(provider_url(url).is_some(), usable, "{url}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once_and_no_value_with_it() {
    let problems = read_api(&[
        ("--database-url", "mysql://hunter2"),
        ("--redis-url", ""),
        ("--listen", "hunter2"),
        ("--hold", "1s"),
        ("--token-keys", "hunter2"),
        ("--guest-token-keys", ""),
        ("--stripe-keys", "hunter2"),
        ("--razorpay-webhook-secrets", ""),
    ])
    .unwrap_err()
    .to_string();

    let names = problems.lines().map(|line| line.split(' ').next().unwrap());
    assert_eq!(
        names.collect::<Vec<_>>(),
        [
            "DATABASE_URL",
            "REDIS_URL",
            "LISTEN",
            "HOLD",
            "TOKEN_KEYS",
            "GUEST_TOKEN_KEYS",
            "STRIPE_KEYS",
            "RAZORPAY_WEBHOOK_SECRETS"
        ]
    );
    assert!(!problems.contains("hunter2"), "{problems}");
}

#[test]
fn neither_help_nor_debug_shows_a_secret() {
    let debug = format!("{:?}", read_api(&[]).unwrap());
    assert!(!debug.contains("hunter2") && !debug.contains(KEY), "{debug}");

    for command in [
        ApiArguments::command(),
        WebhooksArguments::command(),
        ReaperArguments::command(),
        MailerArguments::command(),
    ] {
        let with_environment =
            command.get_arguments().filter(|argument| argument.get_env().is_some());
        for argument in with_environment {
            assert!(argument.is_hide_env_values_set(), "{}", argument.get_id());
        }
    }
}

#[test]
fn a_time_has_a_unit_and_a_measure() {
    for (text, seconds) in [
        ("5s", Some(5)),
        ("15m", Some(900)),
        ("24h", Some(86_400)),
        ("4s", None),
        ("25h", None),
        ("15", None),
        ("m", None),
        ("", None),
        ("-5s", None),
        ("1.5h", None),
        ("99999999999999999999h", None),
        ("18446744073709551615h", None),
        ("5µ", None),
    ] {
        assert_eq!(time(text), seconds.map(Duration::from_secs), "{text}");
    }
}

#[test]
fn keys_are_complete_and_differ_in_name() {
    for (list, usable) in [
        (format!("a:{KEY}"), true),
        (format!("a:{KEY}="), true),
        (format!("a:{KEY}, b:{KEY}"), true),
        (format!("a:{KEY},a:{KEY}"), false),
        (format!("a:{KEY},"), false),
        (format!(":{KEY}"), false),
        (format!("a_b:{KEY}"), false),
        ("a:AAEC".to_owned(), false),
        (KEY.to_owned(), false),
    ] {
        assert_eq!(keys(&list).is_some(), usable, "{list}");
    }
}

/// The same, as a shop with customers has them.
fn read_production(changes: &[(&str, &str)]) -> Result<Api, BadSettings> {
    const TOKENS: &str = "2026:7xOYSMCJHQ-dmbGYhqAgFjUzpsVBYl6WY3MR8vdNF0I";
    const GUESTS: &str = "2026:9EVgdqW4nB0mCeH0L2IOOQoNqz6S6ZtnS9Zk1Pj0bQY";
    let mut all = vec![
        ("--environment", ""),
        ("--failpoint", ""),
        ("--token-keys", TOKENS),
        ("--guest-token-keys", GUESTS),
        ("--stripe-keys", "sk_live_4eC39HqLyjWDarjtT1zdp7dc"),
        ("--stripe-webhook-secrets", "whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH"),
        ("--razorpay-url", ""),
        ("--razorpay-keys", "rzp_live_1:thiswasissuedbythem42"),
        ("--razorpay-webhook-secrets", "a-long-secret-of-ours"),
    ];
    for change in changes {
        all.retain(|(flag, _)| flag != &change.0);
        all.push(*change);
    }
    read_api(&all)
}

#[test]
fn good_settings_are_fit_for_production() {
    read_production(&[]).unwrap();
    read_production(&[("--environment", "production")]).unwrap();
}

#[test]
fn misconfiguration_each_bad_setting_is_refused_in_production_with_a_line_of_its_own() {
    const ZERO: &str = "live:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for (flag, value, setting) in [
        ("--failpoint", "checkout-commit", "FAILPOINT"),
        ("--token-keys", ZERO, "TOKEN_KEYS"),
        ("--token-keys", "live:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc", "TOKEN_KEYS"),
        ("--token-keys", "dev:7xOYSMCJHQ-dmbGYhqAgFjUzpsVBYl6WY3MR8vdNF0I", "TOKEN_KEYS"),
        ("--guest-token-keys", ZERO, "GUEST_TOKEN_KEYS"),
        ("--allowed-origins", "https://shop.example,http://shop.example", "ALLOWED_ORIGINS"),
        ("--stripe-keys", "sk_live_short", "STRIPE_KEYS"),
        ("--stripe-webhook-secrets", "whsec_holdfast", "STRIPE_WEBHOOK_SECRETS"),
        ("--stripe-url", "http://127.0.0.1:4000", "STRIPE_URL"),
        ("--razorpay-url", "http://localhost:4000", "RAZORPAY_URL"),
        ("--razorpay-keys", "rzp_live_1:holdfast_secret", "RAZORPAY_KEYS"),
        ("--razorpay-webhook-secrets", "rzp_webhook_holdfast", "RAZORPAY_WEBHOOK_SECRETS"),
    ] {
        let problems = read_production(&[(flag, value)]).unwrap_err().to_string();

        let complaint = format!("{setting} is unsafe in production; it should be ");
        assert!(problems.starts_with(&complaint), "{flag}={value}: {problems}");
        assert_eq!(problems.lines().count(), 1, "{problems}");
        assert!(!problems.contains(value), "{problems}");
        read_production(&[(flag, value), ("--environment", "development")]).unwrap();
    }
    let problems = read_production(&[("--environment", "staging")]).unwrap_err().to_string();
    assert!(problems.starts_with("ENVIRONMENT is wrong"), "{problems}");
}

#[test]
fn misconfiguration_in_production_somebody_has_to_say_how_many_proxies_there_are() {
    let (unsaid, none) = (("--trusted-proxies", ""), ("--trusted-proxies", "0"));

    let problems = read_production(&[unsaid]).unwrap_err().to_string();

    assert!(problems.starts_with("TRUSTED_PROXIES is missing: how many proxies"), "{problems}");
    assert_eq!(problems.lines().count(), 1, "{problems}");
    assert_eq!(read_production(&[none]).unwrap().trusted_proxies, 0);
    let development = read_production(&[unsaid, ("--environment", "development")]);
    assert_eq!(development.unwrap().trusted_proxies, 0);
}

#[test]
fn misconfiguration_a_shop_with_customers_gets_no_demo() {
    let check = |environment: Option<&str>| {
        Seed { environment: environment.map(str::to_owned) }.check().map_err(|it| it.to_string())
    };

    check(Some("development")).unwrap();
    for (environment, complaint) in [
        (None, "ENVIRONMENT is production"),
        (Some(""), "ENVIRONMENT is production"),
        (Some("production"), "ENVIRONMENT is production"),
        (Some("staging"), "ENVIRONMENT is wrong"),
    ] {
        let problems = check(environment).unwrap_err();
        assert!(problems.starts_with(complaint), "{environment:?}: {problems}");
        assert_eq!(problems.lines().count(), 1, "{problems}");
    }
}

#[test]
fn origins_are_as_browsers_write_them() {
    for (list, usable) in [
        ("https://shop.example", true),
        ("https://shop.example, http://localhost:3000", true),
        ("https://shop.example:8443", true),
        ("https://shop.example/", false),
        ("https://shop.example:443", false),
        ("https://Shop.example", false),
        ("https://*.shop.example", false),
        ("https://ada@shop.example", false),
        ("https://shop.example,", false),
        ("shop.example", false),
        ("null", false),
        ("*", false),
        ("file://", false),
    ] {
        assert_eq!(origins(list).is_some(), usable, "{list}");
    }
}

#[test]
fn misconfiguration_a_mailer_in_production_speaks_in_cipher_and_of_a_shop_with_https() {
    let read = |smtp: &str, shop: &str| {
        let flags = [
            "mailer",
            "--environment=production",
            "--database-url=postgres://hunter2@localhost/shop",
            "--redis-url=redis://localhost",
            "--health-listen=127.0.0.1:9090",
            "--mail-from=orders@shop.example",
            "--shop-name=Shop",
        ];
        let flags = flags.into_iter().map(str::to_owned);
        let flags = flags.chain([format!("--smtp-url={smtp}"), format!("--shop-url={shop}")]);
        MailerArguments::try_parse_from(flags).unwrap().settings(Reading::default())
    };

    read("smtps://mail.example", "https://shop.example").unwrap();
    let problems = read("smtp://mail.example", "http://shop.example").unwrap_err().to_string();

    let names = problems.lines().map(|line| line.split(' ').next().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["SMTP_URL", "SHOP_URL"], "{problems}");
}

#[test]
fn mails_travel_in_cipher_unless_the_server_is_here() {
    for (url, is_open) in [
        ("smtps://user:password@mail.example", false),
        ("smtp://mail.example?tls=required", false),
        ("smtp://127.0.0.1:25", false),
        ("smtp://localhost", false),
        ("smtp://[::1]:25", false),
        ("smtp://mail.example", true),
        ("smtp://mail.example?tls=opportunistic", true),
        ("smtp://127.0.0.1.example", true),
    ] {
        assert_eq!(is_open_smtp(url), is_open, "{url}");
    }
}

#[test]
fn keys_that_somebody_typed_or_counted_are_guessable() {
    let counted: [u8; 32] = std::array::from_fn(|n| u8::try_from(3 * n).unwrap());
    assert!(is_guessable(&[0; 32]) && is_guessable(&[255; 32]) && is_guessable(&counted));
    assert!(is_guessable(b"correct horse battery staple 123"));
    for _ in 0..1_000 {
        assert!(!is_guessable(&rand::random()));
    }
}

#[test]
fn keys_of_two_purposes_share_nothing() {
    let problems = read_api(&[("--guest-token-keys", &format!("other-name:{KEY}"))]);

    let problems = problems.unwrap_err().to_string();
    assert!(problems.starts_with("GUEST_TOKEN_KEYS is wrong"), "{problems}");
    assert_eq!(problems.lines().count(), 1, "{problems}");
}

/// What each flag that must be given may be.
const GOOD: [(&str, &str); 16] = [
    ("environment", "development"),
    ("database-url", "postgres://app:hunter2@localhost/shop"),
    ("migrate-database-url", "postgres://owner:hunter2@localhost/shop"),
    ("redis-url", "redis://:hunter2@localhost"),
    ("health-listen", "127.0.0.1:9090"),
    ("listen", "127.0.0.1:8080"),
    ("token-keys", "ours:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"),
    ("guest-token-keys", GUEST_KEYS),
    ("stripe-keys", "sk_test_hunter2"),
    ("stripe-webhook-secrets", "whsec_hunter2"),
    ("razorpay-keys", "rzp_test_1:hunter2"),
    ("razorpay-webhook-secrets", "hunter2"),
    ("smtp-url", "smtps://hunter2@mail.example"),
    ("mail-from", "orders@shop.example"),
    ("shop-name", "Shop"),
    ("shop-url", "https://shop.example"),
];

/// A setting of one process, and how that process reads all of its settings from flags.
struct Setting {
    process: Command,
    flag: String,
    name: String,
    read: Read,
}

type Read = fn(&ArgMatches, Reading) -> Result<(), BadSettings>;

impl Setting {
    /// Every setting of any process that holds a secret.
    fn secrets() -> Vec<Self> {
        let processes: [(Command, Read); 6] = [
            (ApiArguments::command(), |flags, reading| {
                ApiArguments::from_arg_matches(flags).unwrap().settings(reading).map(drop)
            }),
            (WebhooksArguments::command(), |flags, reading| {
                WebhooksArguments::from_arg_matches(flags).unwrap().settings(reading).map(drop)
            }),
            (ReaperArguments::command(), |flags, reading| {
                ReaperArguments::from_arg_matches(flags).unwrap().settings(reading).map(drop)
            }),
            (MailerArguments::command(), |flags, reading| {
                MailerArguments::from_arg_matches(flags).unwrap().settings(reading).map(drop)
            }),
            (Ctl::augment_args(Command::new("ctl")), |flags, reading| {
                Ctl::from_arg_matches(flags).unwrap().read_url(reading).map(drop)
            }),
            (Migrate::augment_args(Command::new("ctl migrate")), |flags, reading| {
                let migrate = Migrate::from_arg_matches(flags).unwrap();
                Ctl { database_url: None }.read_owner(&migrate, reading).map(drop)
            }),
        ];
        let mut secrets = Vec::new();
        for (process, read) in processes {
            for argument in process.get_arguments() {
                if argument.get_value_parser().type_id() == TypeId::of::<SecretString>() {
                    let flag = argument.get_long().unwrap().to_owned();
                    let name = argument.get_env().unwrap().to_str().unwrap().to_owned();
                    secrets.push(Self { process: process.clone(), flag, name, read });
                }
            }
        }
        secrets
    }

    /// Reads the process's settings, this one from a file and the others from flags.
    fn read_from_file(&self, content: &str) -> Result<(), BadSettings> {
        let arguments = self.process.get_arguments().filter(|flag| flag.get_env().is_some());
        let flags = arguments.map(|argument| {
            let flag = argument.get_long().unwrap();
            // One that is set to nothing is not set, whatever the environment says.
            let value = if flag == self.flag { "" } else { good(flag) };
            format!("--{flag}={value}")
        });
        let flags = iter::once("process".to_owned()).chain(flags);
        let flags = self.process.clone().get_matches_from(flags);

        let file = temp_dir().join(format!("holdfast-secret-{}", uuid::Uuid::now_v7()));
        fs::write(&file, content).unwrap();
        let (name, path) = (self.name.clone(), file.clone());
        let file_of = move |asked: &str| (asked == name).then(|| path.clone());
        let read = (self.read)(&flags, reading(Box::new(file_of)));
        fs::remove_file(file).unwrap();
        read
    }
}

/// Nothing for a flag that may be left out.
fn good(flag: &str) -> &'static str {
    GOOD.iter().find(|(good, _)| *good == flag).map_or("", |(_, value)| value)
}

#[test]
fn every_setting_that_holds_a_secret_is_read_from_its_file() {
    let mut read = BTreeSet::new();
    for secret in Setting::secrets() {
        let process = secret.process.get_name();

        secret.read_from_file(&format!("{}\n", good(&secret.flag))).unwrap();
        let problems = secret.read_from_file(",").unwrap_err().to_string();

        let complaint = format!("{} is wrong; it should be", secret.name);
        assert!(problems.starts_with(&complaint), "{process}: {problems}");
        read.insert(format!("{process} {}", secret.name));
    }

    let every = ["DATABASE_URL", "REDIS_URL"];
    let providers =
        ["RAZORPAY_KEYS", "RAZORPAY_WEBHOOK_SECRETS", "STRIPE_KEYS", "STRIPE_WEBHOOK_SECRETS"];
    let all: [(&str, &[&[&str]]); 6] = [
        ("api", &[&every, &providers, &["GUEST_TOKEN_KEYS", "TOKEN_KEYS"]]),
        ("webhooks", &[&every, &providers]),
        ("reaper", &[&every, &providers]),
        ("mailer", &[&every, &["SMTP_URL"]]),
        ("ctl", &[&["DATABASE_URL"]]),
        ("ctl migrate", &[&["MIGRATE_DATABASE_URL"]]),
    ];
    let all = all.iter().flat_map(|(process, names)| {
        names.iter().copied().flatten().map(move |name| format!("{process} {name}"))
    });
    assert_eq!(read, all.collect());
}

#[test]
fn whom_ctl_migrates_for_is_told_by_a_file_too() {
    let file = temp_dir().join(format!("holdfast-secret-{}", uuid::Uuid::now_v7()));
    fs::write(&file, "postgres://app:hunter2@localhost/shop\n").unwrap();
    let path = file.clone();
    let file_of = move |name: &str| (name == "DATABASE_URL").then(|| path.clone());
    let owner = SecretString::from("postgres://owner:hunter2@localhost/shop");
    let migrate = Migrate { migrate_database_url: Some(owner), app_role: None };

    let owner = Ctl { database_url: None }.read_owner(&migrate, reading(Box::new(file_of)));

    assert_eq!(owner.unwrap().app_role.as_deref(), Some("app"));
    fs::remove_file(file).unwrap();
}

#[test]
fn a_secret_is_read_from_its_file_without_the_newline_at_its_end() {
    let folder = temp_dir().join(format!("holdfast-files-{}", uuid::Uuid::now_v7()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("secret");
    for (content, secret) in [
        ("hunter2\n", Some("hunter2")),
        ("hunter2\r\n", Some("hunter2")),
        ("hunter2\n\n", Some("hunter2\n")),
        (" hunter2 ", Some(" hunter2 ")),
        ("", Some("")),
    ] {
        fs::write(&file, content).unwrap();
        let path = file.clone();
        let read = reading(Box::new(move |_| Some(path.clone()))).secret("REDIS_URL", None);
        assert_eq!(read.ok().flatten().as_ref().map(expose), secret, "{content:?}");
    }

    let given = SecretString::from("hunter2");
    let path = file.clone();
    let mut both = reading(Box::new(move |_| Some(path.clone())));
    assert!(both.secret("REDIS_URL", Some(&given)).is_err());
    let mut missing = reading(Box::new(|_| Some(PathBuf::from("/nowhere/hunter2"))));
    assert!(missing.secret("REDIS_URL", None).is_err());
    let problems = [both.finish(None::<()>).unwrap_err(), missing.finish(None::<()>).unwrap_err()];
    assert_eq!(
        problems.map(|problems| problems.to_string()),
        [
            "REDIS_URL and REDIS_URL_FILE are both set; one of them is enough",
            "REDIS_URL_FILE cannot be read: entity not found",
        ]
    );
    fs::remove_dir_all(folder).unwrap();
}

fn reading(file_of: super::files::FileOf) -> Reading {
    Reading { file_of, ..Reading::default() }
}
