//! The API's description of itself.

use std::{collections::BTreeSet, fs, path::Path};

use holdfast::assembly;
use serde_json::{Map, Value};

use crate::support::app::TestApp;

fn document() -> Value {
    serde_json::from_str(&assembly::openapi()).unwrap()
}

/// Every operation with the path and method it is called by.
fn operations(document: &Value) -> Vec<(String, &Map<String, Value>)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap();
        methods.iter().map(move |(method, operation)| {
            (format!("{method} {path}"), operation.as_object().unwrap())
        })
    });
    operations.collect()
}

/// Collects the names of the schemas that a part of the document refers to, and those they refer to.
fn referred(document: &Value, part: &Value, found: &mut BTreeSet<String>) {
    match part {
        Value::Object(fields) => {
            for (name, field) in fields {
                let reference = field.as_str().filter(|_| name == "$ref");
                let Some(reference) = reference else {
                    referred(document, field, found);
                    continue;
                };
                let schema = reference.rsplit('/').next().unwrap();
                if found.insert(schema.to_owned()) {
                    referred(document, &document["components"]["schemas"][schema], found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| referred(document, item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_operation_says_what_it_is_called_and_what_it_does() {
    let document = document();
    let operations = operations(&document);
    assert!(operations.len() >= 10, "{} operations", operations.len());

    let mut ids = BTreeSet::new();
    for (name, operation) in operations {
        let id = operation.get("operationId").and_then(Value::as_str);
        assert!(id.is_some_and(|id| ids.insert(id)), "{name}: {id:?}");
        let says = |field: &str| {
            operation.get(field).and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty())
        };
        assert!(says("summary"), "{name} has no summary");
        assert!(says("description"), "{name} has no description");
        let tags = operation.get("tags").and_then(Value::as_array);
        assert!(tags.is_some_and(|tags| !tags.is_empty()), "{name} has no tag");
    }
}

#[test]
fn every_object_that_is_sent_takes_no_field_that_nobody_knows() {
    let document = document();
    let mut sent = BTreeSet::new();
    for (_, operation) in operations(&document) {
        if let Some(body) = operation.get("requestBody") {
            referred(&document, body, &mut sent);
        }
    }

    assert!(sent.contains("Checkout") && sent.contains("CheckoutLine"), "{sent:?}");
    for name in sent {
        let schema = &document["components"]["schemas"][&name];
        if schema["type"] == "string" {
            assert!(schema["enum"].is_array(), "{name} is a string of any kind");
            continue;
        }
        assert_eq!(schema["type"], "object", "{name}");
        assert_eq!(schema["additionalProperties"], false, "{name}");
    }
}

#[test]
fn the_committed_document_is_this_one() {
    let path = Path::new("docs/openapi.json");
    let mut today = serde_json::to_string_pretty(&document()).unwrap();
    today.push('\n');
    if update_is_asked_for() {
        fs::write(path, &today).unwrap();
    }

    let committed = fs::read_to_string(path).unwrap_or_default();

    assert!(
        committed == today,
        "docs/openapi.json is stale: run the tests with UPDATE=1, look at what changed, commit"
    );
}

#[expect(clippy::disallowed_methods, reason = "a developer asks for new files by UPDATE=1")]
fn update_is_asked_for() -> bool {
    std::env::var("UPDATE").is_ok_and(|value| value == "1")
}

#[tokio::test]
async fn the_document_is_served_as_it_is() {
    TestApp::run(async |app| {
        let served = app.anybody().get("/v1/openapi.json").await;

        served.assert_status(200).assert_header("content-type", "application/json");
        assert_eq!(served.json::<Value>(), document());
    })
    .await;
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    TestApp::run(async |app| {
        let page = app.anybody().get("/docs").await;

        page.assert_status(200).assert_header("content-type", "text/html; charset=utf-8");
        assert!(page.body.contains("placeOrder"), "the page shows the document");
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'"), "{policy}");
        for sources in policy.split(';') {
            assert!(!sources.contains("http") && !sources.contains('*'), "{policy}");
        }
        for attribute in ["src=\"http", "href=\"http", "src=\"//", "href=\"//", "@import"] {
            assert!(!page.body.contains(attribute), "the page has {attribute}");
        }
    })
    .await;
}
