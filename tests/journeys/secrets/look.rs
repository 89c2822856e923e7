//! Where somebody may look: logs, answers, metrics, jobs, Redis, help, what the operator's tool says.

use std::{collections::BTreeMap, fmt::Write};

use redis::AsyncCommands;
use sqlx::{AssertSqlSafe, Row};

use super::{EMAIL, shop::Shop};
use crate::support::server::{SERVERS, forget_queue};

const PROGRAMS: [&str; 5] = ["api", "webhooks", "reaper", "mailer", "ctl"];

impl Shop<'_> {
    /// Searches everything for every secret.
    pub(super) async fn look_everywhere(&mut self) {
        let mut places: BTreeMap<String, String> = BTreeMap::new();
        for (n, process) in self.running.iter().enumerate() {
            let log = process.log();
            // Those that are let in nowhere have little to tell.
            let has_details = log.contains("\"level\":\"DEBUG\"");
            assert!(has_details || n >= self.good, "{} logs all it can: {log}", process.name);
            places.insert(format!("log {n} of {}", process.name), log);
            let metrics = simulator::get(format!("http://{}/metrics", process.health)).await;
            let metrics = metrics.unwrap().text().await.unwrap();
            places.insert(format!("metrics {n} of {}", process.name), metrics);
        }
        assert!(self.refusals.len() > 30, "{} refusals", self.refusals.len());
        places.insert("refusals".to_owned(), self.refusals.join("\n"));
        for program in PROGRAMS {
            places.insert(format!("help of {program}"), self.said(program, &["--help"]).await);
            places.insert(format!("complaints of {program}"), self.complaints(program).await);
        }
        for arguments in [
            &["doctor"][..],
            &["migrate"],
            &["jobs", "list"],
            &["payments", "list"],
            &["webhooks", "list", "--state", "done"],
            &["reconcile", "findings"],
        ] {
            let said = self.said("ctl", arguments).await;
            places.insert(format!("ctl {}", arguments.join(" ")), said);
        }
        for text in places.values() {
            assert!(!text.contains(EMAIL), "an address is nobody's business: {text}");
        }
        places.extend(self.rows().await);
        places.insert("redis".to_owned(), self.redis().await);
        // Each place was looked into, and is not empty.
        for (place, content) in [
            ("log 0 of api", "request finished"),
            ("log 3 of mailer", "notifications."),
            ("metrics 0 of api", "http_requests_total"),
            ("refusals", "no-such-route"),
            ("refusals", "request_id"),
            ("help of api", "--token-keys"),
            ("complaints of api", "DATABASE_URL is wrong"),
            ("table job_ledger", "notifications."),
            ("table orders", ",paid,"),
            ("redis", &self.namespace),
        ] {
            let text = &places[place];
            assert!(text.contains(content), "no {content} in {place}: {text}");
        }

        let mut found = Vec::new();
        for (place, text) in &places {
            assert!(!text.is_empty(), "{place} is empty");
            for secret in self.secrets.found_in(text) {
                let line = text.lines().find(|line| self.secrets.found_in(line).contains(&secret));
                found.push(format!("{secret} in {place}: {}", line.unwrap_or_default()));
            }
        }
        assert!(found.is_empty(), "{}", found.join("\n"));
        forget_queue(&self.namespace).await;
    }

    /// What a program says, whatever it comes to.
    async fn said(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program, &[]).args(arguments).output().await.unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }

    /// What a program says when it is told not to start like this.
    async fn complaints(&self, program: &str) -> String {
        let wrong_url = format!("mysql://marked:{}", self.app.database_url);
        let bad = [("ENVIRONMENT", "production".to_owned()), ("DATABASE_URL", wrong_url)];
        let mut command = self.command(program, &bad);
        let arguments: &[&str] = if program == "ctl" { &["doctor"] } else { &[] };
        let output = command.args(arguments).output().await.unwrap();
        assert!(!output.status.success(), "{program} is content");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }

    /// Every row of every table, but for what is kept for its owner alone: hashes are what is left of
    /// secrets, and an answer is repeated as it was given.
    async fn rows(&self) -> BTreeMap<String, String> {
        let tables = "
            SELECT relname::text
            FROM pg_class
            WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
        ";
        let tables = sqlx::query(tables).fetch_all(&self.app.db).await.unwrap();
        let mut places = BTreeMap::new();
        for table in tables.iter().map(|row| row.get::<String, _>(0)) {
            let rows = format!("SELECT coalesce(string_agg(t::text, E'\\n'), ' ') FROM {table} t");
            let rows: String =
                sqlx::query_scalar(AssertSqlSafe(rows)).fetch_one(&self.app.db).await.unwrap();
            places.insert(format!("table {table}"), rows);
        }
        places
    }

    /// Every key of the shop in Redis with its value.
    async fn redis(&self) -> String {
        let client = redis::Client::open(&*SERVERS.redis_url).unwrap();
        let mut redis = client.get_multiplexed_async_connection().await.unwrap();
        let keys: Vec<String> = redis.keys(format!("*{}*", self.namespace)).await.unwrap();
        let mut text = String::new();
        for key in keys {
            let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut redis).await.unwrap();
            let mut ask = match &*kind {
                "string" => redis::cmd("GET"),
                "hash" => redis::cmd("HGETALL"),
                "set" => redis::cmd("SMEMBERS"),
                "list" => redis::cmd("LRANGE"),
                "zset" => redis::cmd("ZRANGE"),
                "stream" => redis::cmd("XRANGE"),
                // It has expired meanwhile.
                "none" => continue,
                other => panic!("{key} is a {other}"),
            };
            ask.arg(&key);
            match &*kind {
                "list" | "zset" => ask.arg(0).arg(-1),
                "stream" => ask.arg("-").arg("+"),
                _ => &mut ask,
            };
            let value: redis::Value = ask.query_async(&mut redis).await.unwrap();
            let value = flat(&value);
            writeln!(text, "{key} {value}").unwrap();
        }
        text
    }
}

/// The texts of a value.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library may come to know more kinds")]
fn flat(value: &redis::Value) -> String {
    match value {
        redis::Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        redis::Value::Array(values) | redis::Value::Set(values) => {
            values.iter().map(flat).collect::<Vec<_>>().join(" ")
        }
        redis::Value::Map(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| format!("{} {}", flat(key), flat(value)));
            pairs.collect::<Vec<_>>().join(" ")
        }
        other => format!("{other:?}"),
    }
}
