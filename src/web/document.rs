//! What our own OpenAPI document says about a request: its route, and what is wrong with its body.
//!
//! The framework stops at the first thing it cannot read and tells it in its own words. Here every
//! problem is found, each with its pointer, and only once a request has failed.

use std::collections::HashMap;

use poem::http::Method;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::kernel::Detail;

/// More would help nobody, and a client could make us write an answer longer than its request.
const DETAILS_MAX: usize = 100;

/// Names are ours and short; only unknown fields can be longer, and they are told to whoever sent them.
const SEGMENT_MAX: usize = 100;

/// The OpenAPI document, ready to be asked about requests.
#[derive(Debug)]
pub struct Document {
    schemas: Value,
    /// By the pattern under which the framework routes (`/v1/orders/:param0`).
    routes: HashMap<String, Route>,
}

/// A path of the document.
#[derive(Debug)]
pub(super) struct Route {
    /// As people write it: `/v1/orders/{order_id}`.
    pub(super) path: &'static str,
    /// The names of the path's parameters, in order.
    pub(super) parameters: Vec<String>,
    operations: Vec<Operation>,
}

#[derive(Debug)]
struct Operation {
    method: Method,
    body: Option<Value>,
}

impl Document {
    /// Reads the document that the framework generated. `beside` are the paths that are served and
    /// not described, such as the document's own; they can only be read.
    pub fn parse(json: &str, beside: &[&str]) -> serde_json::Result<Self> {
        let mut document: Value = serde_json::from_str(json)?;
        let mut paths = document["paths"].take();
        for path in beside {
            paths[path] = json!({ "get": {} });
        }
        let routes = paths
            .as_object()
            .into_iter()
            .flatten()
            .map(|(path, operations)| (pattern(path), Route::new(path, operations)))
            .collect();
        Ok(Self { schemas: document["components"]["schemas"].take(), routes })
    }

    pub(super) fn route(&self, pattern: &str) -> Option<&Route> {
        self.routes.get(pattern)
    }

    /// Everything in the body that is not as the route's operation describes it.
    pub(super) fn violations(&self, route: &Route, method: &Method, body: &Value) -> Vec<Detail> {
        let operation = route.operations.iter().find(|operation| operation.method == method);
        let Some(schema) = operation.and_then(|operation| operation.body.as_ref()) else {
            return Vec::new();
        };
        let mut inspection = Inspection { schemas: &self.schemas, found: Vec::new() };
        inspection.visit(schema, body, "");
        inspection.found
    }
}

impl Route {
    fn new(path: &str, operations: &Value) -> Self {
        let operations = operations.as_object().into_iter().flatten();
        Self {
            // Once per route and process: a label of metrics must live as long as they do.
            path: path.to_owned().leak(),
            parameters: path
                .split('/')
                .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
                .map(str::to_owned)
                .collect(),
            operations: operations
                .filter_map(|(method, operation)| {
                    let method = method.to_ascii_uppercase().parse().ok()?;
                    Some(Operation { method, body: body_schema(operation).cloned() })
                })
                .collect(),
        }
    }

    /// The methods that the path knows, for `Allow`.
    pub(super) fn allowed(&self) -> String {
        let methods = self.operations.iter().map(|operation| operation.method.as_str());
        methods.collect::<Vec<_>>().join(", ")
    }
}

/// Writes into the document what holds for all operations and the framework does not say: objects
/// that a client sends have no other fields, and every request can end in a problem.
pub fn complete(json: &str) -> serde_json::Result<String> {
    let mut document: Value = serde_json::from_str(json)?;
    let schemas = document["components"]["schemas"].take();
    let mut sent = Vec::new();
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (_, operation) in paths.filter_map(|(_, path)| path.as_object_mut()).flatten() {
        if let Some(body) = body_schema(operation) {
            name_references(body, &schemas, &mut sent);
        }
        if operation["responses"]["default"].is_null() {
            operation["responses"]["default"] = json!({
                "description": "The request failed; `code` says why.",
                "content": { "application/problem+json": {
                    "schema": { "$ref": "#/components/schemas/Problem" },
                } },
            });
        }
    }
    document["components"]["schemas"] = schemas;
    for name in sent {
        let schema = &mut document["components"]["schemas"][name];
        if schema["properties"].is_object() {
            schema["additionalProperties"] = Value::Bool(false);
        }
    }
    serde_json::to_string_pretty(&document)
}

/// Adds the names of all schemas that this one consists of.
fn name_references(schema: &Value, schemas: &Value, names: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            let name =
                fields.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
            if let Some(name) = name
                && !names.iter().any(|known| known == name)
            {
                names.push(name.to_owned());
                name_references(&schemas[name], schemas, names);
            }
            fields.values().for_each(|field| name_references(field, schemas, names));
        }
        Value::Array(items) => items.iter().for_each(|item| name_references(item, schemas, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `/v1/orders/{order_id}` → `/v1/orders/:param0`.
fn pattern(path: &str) -> String {
    let mut parameters = 0;
    let segments = path.split('/').map(|segment| {
        if segment.starts_with('{') {
            parameters += 1;
            return format!(":param{}", parameters - 1);
        }
        segment.to_owned()
    });
    segments.collect::<Vec<_>>().join("/")
}

fn body_schema(operation: &Value) -> Option<&Value> {
    let content = operation.pointer("/requestBody/content")?.as_object()?;
    content.values().next()?.get("schema")
}

/// The JSON pointer to a member of what is at `at`.
pub(super) fn below(at: &str, segment: &str) -> String {
    let shown: String = segment.chars().take(SEGMENT_MAX).collect();
    format!("{at}/{}", shown.replace('~', "~0").replace('/', "~1"))
}

/// A walk through a body along its schema. It knows the part of JSON Schema that the framework writes.
struct Inspection<'a> {
    schemas: &'a Value,
    found: Vec<Detail>,
}

impl Inspection<'_> {
    fn visit(&mut self, schema: &Value, value: &Value, at: &str) {
        if self.found.len() >= DETAILS_MAX {
            return;
        }
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.rsplit('/').next().unwrap_or_default();
            let schemas = self.schemas;
            return self.visit(&schemas[name], value, at);
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.visit(part, value, at);
        }
        match (schema["type"].as_str(), value) {
            (Some("object"), Value::Object(fields)) => self.visit_object(schema, fields, at),
            (Some("array"), Value::Array(items)) => self.visit_array(schema, items, at),
            (Some("string"), Value::String(text)) => self.visit_text(schema, text, at),
            (Some("integer"), value) if value.is_i64() || value.is_u64() => {
                self.visit_number(schema, value, at);
            }
            (Some("number"), Value::Number(_)) => self.visit_number(schema, value, at),
            (Some("boolean"), Value::Bool(_)) | (None, _) => {}
            (Some("integer"), _) => self.find(at, "wrong-type", "must be a whole number"),
            (Some(kind), _) => {
                let article = if kind.starts_with(['a', 'o']) { "an" } else { "a" };
                self.find(at, "wrong-type", format!("must be {article} {kind}"));
            }
        }
    }

    fn visit_object(&mut self, schema: &Value, fields: &Map<String, Value>, at: &str) {
        let required: Vec<_> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for name in required.iter().filter(|name| !fields.contains_key(**name)) {
            self.find(&below(at, name), "missing", "must be given");
        }
        let Some(properties) = schema["properties"].as_object() else { return };
        for (name, value) in fields {
            match properties.get(name) {
                // The framework takes null for "not given".
                Some(_) if value.is_null() && !required.contains(&name.as_str()) => {}
                Some(property) => self.visit(property, value, &below(at, name)),
                None => self.find(&below(at, name), "unknown-field", "is not known here"),
            }
        }
    }

    fn visit_array(&mut self, schema: &Value, items: &[Value], at: &str) {
        if schema["minItems"].as_u64().is_some_and(|min| (items.len() as u64) < min) {
            self.find(at, "too-few", format!("must have at least {} items", schema["minItems"]));
        }
        if schema["maxItems"].as_u64().is_some_and(|max| items.len() as u64 > max) {
            let message = format!("must have at most {} items", schema["maxItems"]);
            return self.find(at, "too-many", message);
        }
        for (index, item) in items.iter().enumerate() {
            self.visit(&schema["items"], item, &below(at, &index.to_string()));
        }
    }

    fn visit_text(&mut self, schema: &Value, text: &str, at: &str) {
        let length = text.chars().count() as u64;
        if schema["minLength"].as_u64().is_some_and(|min| length < min) {
            let message = format!("must have at least {} characters", schema["minLength"]);
            self.find(at, "too-short", message);
        }
        if schema["maxLength"].as_u64().is_some_and(|max| length > max) {
            let message = format!("must have at most {} characters", schema["maxLength"]);
            self.find(at, "too-long", message);
        }
        if schema["format"] == "uuid" && text.parse::<Uuid>().is_err() {
            self.find(at, "wrong-format", "must be a UUID");
        }
        let known = schema["enum"].as_array();
        if known.is_some_and(|known| known.iter().all(|known| known != text)) {
            let known: Vec<_> = known.into_iter().flatten().filter_map(Value::as_str).collect();
            self.find(at, "unknown-value", format!("must be one of {}", known.join(", ")));
        }
    }

    fn visit_number(&mut self, schema: &Value, value: &Value, at: &str) {
        let Some(number) = value.as_f64() else { return };
        let below = schema["minimum"].as_f64().is_some_and(|min| {
            number < min || (schema["exclusiveMinimum"] == true && number <= min)
        });
        let above = schema["maximum"].as_f64().is_some_and(|max| {
            number > max || (schema["exclusiveMaximum"] == true && number >= max)
        });
        if below || above || !fits(value, schema["format"].as_str()) {
            self.find(at, "out-of-range", "is too small or too large");
        }
    }

    fn find(&mut self, at: &str, code: &'static str, message: impl Into<String>) {
        self.found.push(Detail {
            pointer: at.to_owned(),
            code,
            message: message.into(),
            available: None,
        });
    }
}

/// Whether an integer fits the type that its field is read into.
fn fits(value: &Value, format: Option<&str>) -> bool {
    let (signed, unsigned) = (value.as_i64(), value.as_u64());
    match format {
        Some("int8") => signed.is_some_and(|n| i8::try_from(n).is_ok()),
        Some("int16") => signed.is_some_and(|n| i16::try_from(n).is_ok()),
        Some("int32") => signed.is_some_and(|n| i32::try_from(n).is_ok()),
        Some("int64") => signed.is_some(),
        Some("uint8") => unsigned.is_some_and(|n| u8::try_from(n).is_ok()),
        Some("uint16") => unsigned.is_some_and(|n| u16::try_from(n).is_ok()),
        Some("uint32") => unsigned.is_some_and(|n| u32::try_from(n).is_ok()),
        Some("uint64") => unsigned.is_some(),
        Some(_) | None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document {
        let line = json!({
            "type": "object",
            "required": ["variant_id", "quantity"],
            "properties": {
                "variant_id": { "type": "string", "format": "uuid" },
                "quantity": { "type": "integer", "format": "int32", "minimum": 1.0, "maximum": 99.0 },
                "note": { "type": "string", "maxLength": 3 },
                "gift": { "type": "boolean" },
                "wrap": { "type": "string", "enum": ["red", "blue"] },
            },
        });
        let order = json!({
            "type": "object",
            "required": ["lines"],
            "properties": {
                "lines": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 2,
                    "items": { "$ref": "#/components/schemas/Line" },
                },
                "extra": { "allOf": [{ "$ref": "#/components/schemas/Line" }, { "description": "one more" }] },
            },
        });
        let body = json!({ "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Order" } } } });
        let document = json!({
            "paths": { "/v1/orders/{order_id}": { "get": {}, "post": { "requestBody": body } } },
            "components": { "schemas": { "Line": line, "Order": order } },
        });
        Document::parse(&document.to_string(), &[]).unwrap()
    }

    fn found(body: &Value) -> Vec<(String, &'static str)> {
        let document = document();
        let route = document.route("/v1/orders/:param0").unwrap();
        let details = document.violations(route, &Method::POST, body);
        details.into_iter().map(|detail| (detail.pointer, detail.code)).collect()
    }

    const ID: &str = "0193f2a1-0000-7000-8000-000000000000";

    #[test]
    fn every_single_problem_is_found() {
        let body = json!({
            "lines": [
                { "variant_id": "x", "quantity": 0, "note": "long", "gift": 1, "wrap": "green" },
                { "quantity": 4_294_967_295_u32, "price": 1, "note": null },
            ],
            "extra": { "variant_id": ID, "quantity": 1.5 },
            "role/~admin": true,
        });

        let mut found = found(&body);
        found.sort();

        assert_eq!(
            found,
            [
                ("/extra/quantity", "wrong-type"),
                ("/lines/0/gift", "wrong-type"),
                ("/lines/0/note", "too-long"),
                ("/lines/0/quantity", "out-of-range"),
                ("/lines/0/variant_id", "wrong-format"),
                ("/lines/0/wrap", "unknown-value"),
                ("/lines/1/price", "unknown-field"),
                ("/lines/1/quantity", "out-of-range"),
                ("/lines/1/variant_id", "missing"),
                ("/role~1~0admin", "unknown-field"),
            ]
            .map(|(pointer, code)| (pointer.to_owned(), code))
        );
    }

    #[test]
    fn the_body_as_a_whole_can_be_wrong() {
        assert_eq!(found(&json!([])), [(String::new(), "wrong-type")]);
        assert_eq!(found(&json!({ "lines": [] })), [("/lines".to_owned(), "too-few")]);
        assert_eq!(found(&json!({ "lines": [1, 2, 3] })), [("/lines".to_owned(), "too-many")]);
        assert_eq!(found(&json!({ "lines": null })), [("/lines".to_owned(), "wrong-type")]);
    }

    #[test]
    fn a_good_body_has_no_problem() {
        let body = json!({ "lines": [{ "variant_id": ID, "quantity": 99 }], "extra": null });

        assert_eq!(found(&body), []);
    }

    #[test]
    fn what_is_sent_has_no_other_fields_and_every_request_may_fail() {
        let document = json!({
            "paths": { "/": { "post": {
                "requestBody": { "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Sent" } } } },
                "responses": { "200": { "$ref": "#/components/schemas/Answered" } },
            } } },
            "components": { "schemas": {
                "Sent": { "properties": { "a": { "items": { "$ref": "#/components/schemas/Inner" } } } },
                "Inner": { "properties": { "b": { "$ref": "#/components/schemas/Sent" } } },
                "Answered": { "properties": {} },
            } },
        });

        let json = complete(&document.to_string()).unwrap();

        let document: Value = serde_json::from_str(&json).unwrap();
        let schemas = &document["components"]["schemas"];
        assert_eq!(schemas["Sent"]["additionalProperties"], false);
        assert_eq!(schemas["Inner"]["additionalProperties"], false);
        assert_eq!(schemas["Answered"]["additionalProperties"], Value::Null);
        assert!(document["paths"]["/"]["post"]["responses"]["default"].is_object());
    }

    #[test]
    fn a_route_knows_its_name_and_its_methods() {
        let document = document();
        let route = document.route("/v1/orders/:param0").unwrap();

        assert_eq!(route.path, "/v1/orders/{order_id}");
        assert_eq!(route.parameters, ["order_id"]);
        assert_eq!(route.allowed(), "GET, POST");
    }
}
