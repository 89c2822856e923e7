//! Imports point one way. This reads every source file and fails on an arrow that the architecture
//! does not draw; `docs/architecture.md` says why each one is drawn.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// What each part of the crate may name, beside itself. A slice says here which slices it stands on.
const ARROWS: &[(&str, &[&str])] = &[
    // The processes.
    ("bin", &["boot", "assembly", "fleet", "ctl", "config"]),
    ("boot", &["config", "context", "clients", "web", "kernel", "MIGRATOR"]),
    ("assembly", &["config", "boot", "context", "policies", "web", "kernel", SLICES]),
    ("policies", &["web"]),
    ("fleet", &["config", "boot", "context", "worker", "kernel", SLICES]),
    ("ctl", &["config", "doctor", "context", "audit", "kernel", "MIGRATOR", SLICES]),
    ("doctor", &["kernel"]),
    // The slices.
    ("identity", &[]),
    ("catalog", &["inventory", "audit"]),
    ("inventory", &["idempotency", "audit"]),
    ("orders", &[]),
    ("payments", &["orders"]),
    (
        "checkout",
        &["identity", "catalog", "inventory", "orders", "payments", "idempotency", "audit"],
    ),
    ("notifications", &["identity", "orders", "payments"]),
    ("privacy", &["identity", "notifications", "orders"]),
    // What has no domain in it.
    ("audit", &["kernel"]),
    ("idempotency", &["kernel"]),
    ("config", &["kernel"]),
    ("worker", &["context", "kernel"]),
    ("context", &["clients", "kernel"]),
    ("web", &["clients", "kernel"]),
    ("clients", &["kernel"]),
    ("kernel", &[]),
];

/// Stands for every slice in [`ARROWS`].
const SLICES: &str = "a slice";

const ALL_SLICES: [&str; 8] = [
    "identity",
    "catalog",
    "inventory",
    "orders",
    "payments",
    "checkout",
    "notifications",
    "privacy",
];

/// What every slice may name, whatever the file.
const BELOW_SLICES: [&str; 3] = ["context", "clients", "kernel"];

#[test]
fn imports_point_one_way() {
    let mut violations = Vec::new();
    for path in rust_files(Path::new("src")) {
        let source = fs::read_to_string(&path).unwrap();
        let name = path.to_str().unwrap();
        violations.extend(check(name, &source));
    }

    let report: Vec<_> = violations.iter().map(ToString::to_string).collect();
    assert!(report.is_empty(), "\n{}\n", report.join("\n"));
}

#[test]
fn every_part_of_the_crate_has_its_arrows() {
    let unknown: Vec<_> = fs::read_dir("src")
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name != "lib" && !ARROWS.iter().any(|(part, _)| part == name))
        .collect();

    assert_eq!(unknown, Vec::<String>::new(), "say in ARROWS what these may import");
}

#[test]
fn dependencies_come_from_one_registry_with_their_checksums() {
    const REGISTRY: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    let lock = fs::read_to_string("Cargo.lock").unwrap();

    let packages: Vec<_> = lock.split("[[package]]").skip(1).collect();
    assert!(packages.len() > 100, "the lock file was read");
    for package in packages {
        let is_ours = !package.contains("\nsource = ");
        assert!(
            is_ours || (package.contains(REGISTRY) && package.contains("\nchecksum = ")),
            "{package}"
        );
        for banned in ["native-tls", "openssl-sys"] {
            assert!(!package.contains(&format!("\nname = \"{banned}\"")), "TLS is rustls alone");
        }
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// A path that a file must not name.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: String,
    line: usize,
    path: String,
    rule: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: `{}`: {}", self.file, self.line, self.path, self.rule)
    }
}

/// Every arrow of a file that is not drawn.
fn check(file: &str, source: &str) -> Vec<Violation> {
    let place = Place::of(file);
    paths(&place.module, source)
        .into_iter()
        .filter_map(|path| {
            let rule = place.refuses(&path.segments)?;
            Some(Violation {
                file: file.to_owned(),
                line: path.line,
                path: path.segments.join("::"),
                rule,
            })
        })
        .collect()
}

/// Where a file stands.
struct Place<'a> {
    file: &'a str,
    /// The file's name without `.rs`.
    stem: &'a str,
    /// The part of the crate it belongs to: the first segment of its module path.
    part: &'a str,
    module: Vec<String>,
}

impl<'a> Place<'a> {
    fn of(file: &'a str) -> Self {
        let inner = file.strip_prefix("src/").unwrap_or(file);
        let inner = inner.strip_suffix(".rs").unwrap_or(inner);
        let mut module: Vec<_> = inner.split('/').map(str::to_owned).collect();
        module.pop_if(|last| last == "mod" || last == "lib");
        let part = inner.split('/').next().unwrap_or(inner);
        let stem = inner.rsplit('/').next().unwrap_or(inner);
        Self { file, stem, part, module }
    }

    /// The rule that a path breaks here.
    fn refuses(&self, path: &[String]) -> Option<&'static str> {
        let segment = |index: usize| path.get(index).map_or("", String::as_str);
        match segment(0) {
            "crate" | "holdfast" => self.refuses_part(segment(1)),
            "poem" | "poem_openapi" if !self.may_speak_http() => {
                Some("poem stays in web, assembly, boot and api.rs")
            }
            "apalis" | "apalis_redis" => Some("apalis stays in jobs"),
            "sqlx" if is_query(segment(1)) && self.stem != "store" => Some("SQL stays in store.rs"),
            "std" if segment(1) == "env" && self.part != "config" => {
                Some("only config.rs reads the environment")
            }
            _ => None,
        }
    }

    fn refuses_part(&self, part: &str) -> Option<&'static str> {
        const WRONG_WAY: &str = "this arrow is not drawn";
        if part.is_empty() || part == "*" || part == "self" {
            return Some("name the module, so that the arrow can be seen");
        }
        if part == self.part || self.part == "lib" {
            return None;
        }
        let is_slice = ALL_SLICES.contains(&self.part);
        if is_slice && BELOW_SLICES.contains(&part) {
            return None;
        }
        if is_slice && part == "web" {
            return (!self.is_api()).then_some("only api.rs knows the web");
        }
        if is_slice && part == "worker" {
            return (self.stem != "work").then_some("only work.rs knows the worker");
        }
        if is_slice && part == "identity" && self.is_api() {
            return None;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == self.part) else {
            return Some("say in ARROWS what this part may import");
        };
        let drawn = allowed.contains(&part)
            || (allowed.contains(&SLICES) && (ALL_SLICES.contains(&part) || part == "idempotency"));
        (!drawn).then_some(WRONG_WAY)
    }

    fn is_api(&self) -> bool {
        self.stem == "api" || self.file.contains("/api/")
    }

    fn may_speak_http(&self) -> bool {
        matches!(self.part, "web" | "assembly" | "boot") || self.is_api()
    }
}

fn is_query(name: &str) -> bool {
    name.starts_with("query") || matches!(name, "QueryBuilder" | "raw_sql")
}

/// A path as the source names it, from its root on, `self` and `super` resolved to `crate`.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    line: usize,
    segments: Vec<String>,
}

/// Every path of more than one segment, and every crate that is used by its bare name.
fn paths(module: &[String], source: &str) -> Vec<Named> {
    let tokens = tokens(source);
    let mut reader =
        Reader { tokens: &tokens, module: module.to_vec(), scopes: Vec::new(), named: Vec::new() };
    reader.read();
    reader.named
}

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    line: usize,
    text: &'a str,
}

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    /// The module whose tokens are read, inline modules included.
    module: Vec<String>,
    /// One entry per open brace: whether it opened an inline module.
    scopes: Vec<bool>,
    named: Vec<Named>,
}

impl Reader<'_> {
    fn text(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", |token| token.text)
    }

    fn read(&mut self) {
        let mut index = 0;
        while index < self.tokens.len() {
            index = self.step(index);
        }
    }

    fn step(&mut self, index: usize) -> usize {
        match self.text(index) {
            "mod" if self.text(index + 2) == "{" => {
                self.module.push(self.text(index + 1).to_owned());
                self.scopes.push(true);
                index + 3
            }
            "{" => {
                self.scopes.push(false);
                index + 1
            }
            "}" => {
                if self.scopes.pop() == Some(true) {
                    self.module.pop();
                }
                index + 1
            }
            "arg" | "command" if self.text(index + 1) == "(" => self.attribute(index + 2),
            "use" | "crate" if self.text(index + 1) != "::" && is_word(self.text(index + 1)) => {
                // `use poem;` and `extern crate poem;` name a crate without a path.
                self.tree(index + 1, &[])
            }
            word if is_word(word) && self.text(index + 1) == "::" => self.tree(index, &[]),
            _ => index + 1,
        }
    }

    /// Finds clap's `env`, which reads the environment, in the attribute that is read.
    fn attribute(&mut self, mut index: usize) -> usize {
        let mut depth = 1;
        while depth > 0 && index < self.tokens.len() {
            match self.text(index) {
                "(" => depth += 1,
                ")" => depth -= 1,
                "env" if self.text(index + 1) != "::" => self.note(index, &["std", "env"]),
                _ => {}
            }
            index += 1;
        }
        index
    }

    /// Reads a path or a tree of paths that begins after `prefix`; returns where it ends.
    fn tree(&mut self, mut index: usize, prefix: &[String]) -> usize {
        let start = index;
        let mut path = prefix.to_vec();
        loop {
            let text = self.text(index).to_owned();
            if text == "{" {
                return self.group(index + 1, &path);
            }
            if text == "*" {
                path.push(text);
                index += 1;
                break;
            }
            if !is_word(&text) {
                break;
            }
            path.push(text);
            index += 1;
            if self.text(index) != "::" {
                break;
            }
            index += 1;
        }
        let segments: Vec<_> = path.iter().map(String::as_str).collect();
        self.note(start, &segments);
        index
    }

    fn group(&mut self, mut index: usize, prefix: &[String]) -> usize {
        while index < self.tokens.len() && self.text(index) != "}" {
            index = match self.text(index) {
                word if is_word(word) || word == "{" || word == "*" => self.tree(index, prefix),
                _ => index + 1,
            };
        }
        index + 1
    }

    fn note(&mut self, index: usize, path: &[&str]) {
        let mut base = self.module.clone();
        let mut rest = path;
        let mut relative = false;
        while let [first @ ("self" | "super"), tail @ ..] = rest {
            if *first == "super" {
                base.pop();
            }
            relative = true;
            rest = tail;
        }
        let mut segments: Vec<String> = Vec::new();
        if relative {
            segments.push("crate".to_owned());
            segments.extend(base);
        }
        segments.extend(rest.iter().map(|&segment| segment.to_owned()));
        if let Some(token) = self.tokens.get(index) {
            self.named.push(Named { line: token.line, segments });
        }
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Splits a source into words, `::` and single signs; comments and literals are left out.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let length = skipped(rest);
        if length > 0 {
            line += rest[..length].matches('\n').count();
            rest = &rest[length..];
            continue;
        }
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = match word {
            0 if rest.starts_with("::") => 2,
            0 => first.len_utf8(),
            word => word,
        };
        tokens.push(Token { line, text: &rest[..length] });
        rest = &rest[length..];
    }
    tokens
}

/// How many bytes at the start of `rest` say nothing about imports.
fn skipped(rest: &str) -> usize {
    let until = |end: &str| rest.find(end).map_or(rest.len(), |at| at + end.len());
    if rest.starts_with(char::is_whitespace) {
        return rest.len() - rest.trim_start().len();
    }
    if rest.starts_with("//") {
        return until("\n");
    }
    if rest.starts_with("/*") {
        return until("*/");
    }
    let literal = rest.strip_prefix(['b', 'c']).unwrap_or(rest);
    let prefix = rest.len() - literal.len();
    if let Some(raw) = literal.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = &raw[hashes + 1..];
            let length = body.find(&end).map_or(body.len(), |at| at + end.len());
            return prefix + 1 + hashes + 1 + length;
        }
    }
    if literal.starts_with('"') {
        return prefix + quoted(literal, '"');
    }
    // A lifetime has no second quote: `'a` is left to be read as a sign and a word.
    let mut letters = rest.chars();
    let is_letter = letters.next() == Some('\'')
        && (letters.next() == Some('\\') || letters.next() == Some('\''));
    if is_letter { quoted(rest, '\'') } else { 0 }
}

/// The length of the literal that `rest` begins with, both quotes included.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            letter if letter == quote => return at + letter.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

#[test]
fn a_wrong_arrow_is_found_however_it_is_written() {
    for source in [
        "use crate::checkout::PlaceOrder;",
        "use crate::{kernel::Money, checkout::{PlaceOrder, SoldOut}};",
        "use crate::{\n    kernel::Money,\n    checkout,\n};",
        "use {crate::checkout, std::fmt};",
        "fn f() { crate::checkout::cancel_order() }",
        "type T = Vec<crate::checkout::SoldOut>;",
        "use super::super::checkout::SoldOut;",
        "mod tests { use super::super::super::checkout; }",
        "pub use crate::checkout::*;",
    ] {
        let found = check("src/orders/read.rs", source);

        assert!(!found.is_empty(), "{source}");
        assert!(found.iter().all(|one| one.path.starts_with("crate::checkout")), "{found:?}");
    }
}

#[test]
fn what_only_looks_like_an_arrow_is_not_one() {
    for source in [
        "//! See [`crate::checkout`].",
        "/* crate::checkout */",
        "const S: &str = \"crate::checkout::x\";",
        "const S: &str = r#\"crate::\"checkout\"::x\"#;",
        "const C: char = '\"'; // crate::checkout::x",
        "pub(crate) fn checkout() {}",
        "pub(in crate::orders) fn f<'a>(x: &'a str) {}",
        "use crate::{kernel::Money, clients::smtp};",
        "use super::{Order, store::{self, LineRow}};",
        "mod tests { use super::super::Order; }",
        "let name = env!(\"CARGO_PKG_NAME\");",
    ] {
        assert_eq!(check("src/orders/read.rs", source), [], "{source}");
    }
}

#[test]
fn each_rule_has_its_exceptions_and_no_more() {
    for (file, source, is_fine) in [
        ("src/orders/api.rs", "use crate::identity::Shopper;", true),
        ("src/orders/read.rs", "use crate::identity::Shopper;", false),
        ("src/orders/api.rs", "use crate::web::Problem;", true),
        ("src/orders/store.rs", "use crate::web::Problem;", false),
        ("src/notifications/work.rs", "use crate::worker::Handle;", true),
        ("src/notifications/api.rs", "use crate::worker::Handle;", false),
        ("src/checkout/place.rs", "use crate::{inventory, orders, catalog};", true),
        ("src/inventory/holds/mod.rs", "use crate::orders::Status;", false),
        ("src/catalog/api.rs", "use crate::inventory::Availability;", true),
        ("src/kernel/money.rs", "use crate::context::Context;", false),
        ("src/context.rs", "use crate::orders::Order;", false),
        ("src/web/problem.rs", "use crate::identity::Shopper;", false),
        ("src/bin/api.rs", "holdfast::boot::run()", true),
        ("src/bin/api.rs", "holdfast::orders::list_orders()", false),
        ("src/assembly.rs", "use crate::{checkout::api::CheckoutApi, idempotency};", true),
        ("src/orders/api.rs", "use poem::http::Uri;", true),
        ("src/orders/read.rs", "use poem::http::Uri;", false),
        ("src/orders/read.rs", "use poem_openapi::{Object, payload::Json};", false),
        ("src/orders/read.rs", "use poem;", false),
        ("src/worker/mod.rs", "use apalis::prelude::Task;", false),
        ("src/orders/store.rs", "sqlx::query!(\"SELECT 1\")", true),
        ("src/orders/read.rs", "sqlx::query!(\"SELECT 1\")", false),
        ("src/orders/read.rs", "use sqlx::{PgPool, query_as};", false),
        ("src/orders/read.rs", "use sqlx::{PgPool, Postgres};", true),
        ("src/config.rs", "std::env::var(\"X\")", true),
        ("src/boot.rs", "std::env::var(\"X\")", false),
        ("src/boot.rs", "use std::{env, fmt};", false),
        ("src/ctl/mod.rs", "struct A { #[arg(long, env = \"X\")] x: u8 }", false),
        ("src/config.rs", "struct A { #[arg(long, env = \"X\")] x: u8 }", true),
        ("src/reports/mod.rs", "use crate::orders::Order;", false),
    ] {
        assert_eq!(check(file, source).is_empty(), is_fine, "{file}: {source}");
    }
}
