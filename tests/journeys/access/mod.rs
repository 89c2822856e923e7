//! Who may do what. Both tests take every operation from the API's own description, so that a new
//! one is looked at before it is served to anybody.

mod owners;
mod roles;

use holdfast::{assembly, policies::POLICIES, web::policy::Who};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::client::Client;

/// An operation as the API describes it, with what is declared of it.
#[derive(Debug)]
struct Operation {
    id: String,
    method: Method,
    /// As people write it: `/v1/orders/{id}`.
    path: String,
    who: Who,
    has_body: bool,
}

impl Operation {
    fn all() -> Vec<Self> {
        let document: Value = serde_json::from_str(&assembly::openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap();
            methods.iter().map(move |(method, operation)| Self::of(path, method, operation))
        });
        operations.collect()
    }

    fn of(path: &str, method: &str, operation: &Value) -> Self {
        let id = operation["operationId"].as_str().unwrap();
        let policy = POLICIES.iter().find(|policy| policy.operation == id);
        Self {
            id: id.to_owned(),
            method: method.to_ascii_uppercase().parse().unwrap(),
            path: path.to_owned(),
            who: policy.unwrap_or_else(|| panic!("{id} has no policy")).who,
            has_body: operation["requestBody"].is_object(),
        }
    }

    /// The path with this in the place of its parameters.
    fn path_of(&self, id: &str) -> String {
        let segments =
            self.path.split('/').map(|part| if part.starts_with('{') { id } else { part });
        segments.collect::<Vec<_>>().join("/")
    }

    /// The operation asked about one object, with a body that says as little as it can.
    fn ask(&self, client: &Client, id: &str, body: &Value) -> RequestBuilder {
        let request = client
            .request(self.method.clone(), &self.path_of(id))
            .header("Idempotency-Key", Uuid::now_v7().to_string());
        if self.has_body { request.json(body) } else { request }
    }
}

/// Nobody's id.
fn unknown() -> String {
    Uuid::now_v7().to_string()
}

fn nothing() -> Value {
    json!({})
}
