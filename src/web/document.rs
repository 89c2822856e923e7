//! What our own OpenAPI document says about a request: its route, and what is wrong with its body.
//!
//! The framework stops at the first thing it cannot read and tells it in its own words. Here every
//! problem is found, each with its pointer, and only once a request has failed.

use std::collections::HashMap;

use poem::http::Method;
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{
    kernel::Detail,
    web::policy::{Declared, Policy, PolicyError},
};

/// More would help nobody, and a client could make us write an answer longer than its request.
const DETAILS_MAX: usize = 100;

/// Names are ours and short; only unknown fields can be longer, and they are told to whoever sent them.
const SEGMENT_MAX: usize = 100;

/// The code of a value that is of another type than described.
const WRONG_TYPE: &str = "wrong-type";

/// The OpenAPI document, ready to be asked about requests.
#[derive(Debug)]
pub struct Document {
    schemas: Value,
    /// Those that every request is compared with, by the number of their segments.
    routes: HashMap<usize, Vec<Route>>,
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
pub(super) struct Operation {
    method: Method,
    pub(super) policy: Policy,
    /// The names of the header fields that are its parameters.
    pub(super) headers: Vec<String>,
    body: Option<Value>,
}

impl Document {
    /// Reads the document that the framework generated, and checks that `policies` declares each of its
    /// operations. `beside` are the paths that are served and not described, such as the document's own;
    /// they can only be read.
    pub fn parse(json: &str, beside: &[&str], policies: &[Policy]) -> Result<Self, PolicyError> {
        let mut document: Value = serde_json::from_str(json)
            .map_err(|error| PolicyError::Unreadable(error.to_string()))?;
        let mut declared = Declared::of(policies)?;
        let mut routes: HashMap<usize, Vec<Route>> = HashMap::new();
        for (path, operations) in document["paths"].as_object().into_iter().flatten() {
            let route = Route::new(path, operations, &mut declared)?;
            routes.entry(path.split('/').count()).or_default().push(route);
        }
        declared.finish()?;
        for path in beside {
            routes.entry(path.split('/').count()).or_default().push(Route::beside(path));
        }
        // Of two paths that fit, the one whose first difference is a name: as the framework routes.
        for routes in routes.values_mut() {
            routes.sort_by_key(|route| route.path.replace('{', "\u{10ffff}"));
        }
        Ok(Self { schemas: document["components"]["schemas"].take(), routes })
    }

    /// The route of an address.
    pub(super) fn route(&self, path: &str) -> Option<&Route> {
        let routes = self.routes.get(&path.split('/').count())?;
        routes.iter().find(|route| route.fits(path))
    }

    /// Everything in the body that is not as the operation describes it.
    pub(super) fn violations(&self, operation: &Operation, body: &Value) -> Vec<Detail> {
        let Some(schema) = &operation.body else { return Vec::new() };
        let mut inspection = Inspection { schemas: &self.schemas, found: Vec::new() };
        inspection.visit(schema, body, &At::Body);
        inspection.found
    }

    /// Everything that is wrong with a body in which a value is of another type than described. The
    /// framework would take a number or a truth value for a text.
    pub(super) fn mistyped(&self, operation: &Operation, body: &[u8]) -> Option<Vec<Detail>> {
        operation.body.as_ref()?;
        let body = serde_json::from_slice(body).ok()?;
        let violations = self.violations(operation, &body);
        violations.iter().any(|violation| violation.code == WRONG_TYPE).then_some(violations)
    }
}

impl Route {
    fn new(path: &str, operations: &Value, declared: &mut Declared) -> Result<Self, PolicyError> {
        let operations = operations.as_object().into_iter().flatten();
        let operations = operations.filter_map(|(name, operation)| {
            let method = name.to_ascii_uppercase().parse().ok()?;
            let policy = declared.take(&format!("{name} {path}"), operation);
            let body = body_schema(operation).cloned();
            let headers = header_names(operation);
            Some(policy.map(|policy| Operation { method, policy, headers, body }))
        });
        let operations = operations.collect::<Result<_, _>>()?;
        Ok(Self::with(path, operations))
    }

    fn beside(path: &str) -> Self {
        let (method, policy) = (Method::GET, Policy::BESIDE);
        Self::with(path, vec![Operation { method, policy, headers: Vec::new(), body: None }])
    }

    fn with(path: &str, operations: Vec<Operation>) -> Self {
        Self {
            // Once per route and process: a label of metrics must live as long as they do.
            path: path.to_owned().leak(),
            parameters: path.split('/').filter_map(parameter).map(str::to_owned).collect(),
            operations,
        }
    }

    /// Whether the address, with as many segments as the route, is one of the route's.
    fn fits(&self, path: &str) -> bool {
        self.path.split('/').zip(path.split('/')).all(|(own, given)| match parameter(own) {
            Some(_) => !given.is_empty(),
            None => own == given,
        })
    }

    /// The operation that answers the method; whoever asks for the head alone asks the one that reads.
    pub(super) fn operation(&self, method: &Method) -> Option<&Operation> {
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        self.operations.iter().find(|operation| operation.method == wanted)
    }

    /// The methods that the path knows, for `Allow`.
    pub(super) fn allowed(&self) -> String {
        let methods = self.operations.iter().map(|operation| operation.method.as_str());
        methods.collect::<Vec<_>>().join(", ")
    }
}

/// The name of the parameter that the segment of a path stands for.
fn parameter(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// Writes into the document what holds for all operations and the framework does not say: objects
/// that a client sends have no other fields, a field that need not be there may be `null`, and every
/// request can end in a problem.
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
    for schema in document["components"]["schemas"].as_object_mut().into_iter().flatten() {
        allow_null(schema.1);
    }
    serde_json::to_string_pretty(&document)
}

/// Says of each field that need not be there that it may be `null`, sent or answered.
fn allow_null(schema: &mut Value) {
    let required = schema["required"].clone();
    let is_required = |name: &String| {
        required.as_array().is_some_and(|names| names.iter().any(|required| required == name))
    };
    for (name, field) in schema["properties"].as_object_mut().into_iter().flatten() {
        if is_required(name) {
            continue;
        }
        // What stands beside a reference does not count (OpenAPI 3.0.3, 4.8.23).
        if field["$ref"].is_string() {
            *field = json!({ "allOf": [field.take()] });
        }
        field["nullable"] = Value::Bool(true);
    }
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

fn header_names(operation: &Value) -> Vec<String> {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let headers = parameters.filter(|parameter| parameter["in"] == "header");
    headers.filter_map(|header| header["name"].as_str()).map(str::to_owned).collect()
}

/// The schema of the JSON that the operation takes.
fn body_schema(operation: &Value) -> Option<&Value> {
    let content = operation.pointer("/requestBody/content")?.as_object()?;
    let json = content.iter().find(|(kind, _)| kind.starts_with("application/json"));
    json?.1.get("schema")
}

/// The JSON pointer to a member of what is at `at`.
pub(super) fn below(at: &str, segment: &str) -> String {
    let shown: String = segment.chars().take(SEGMENT_MAX).collect();
    format!("{at}/{}", shown.replace('~', "~0").replace('/', "~1"))
}

/// A place in a body. It is written down only where something is wrong.
enum At<'a> {
    Body,
    Field(&'a At<'a>, &'a str),
    Item(&'a At<'a>, usize),
}

impl At<'_> {
    /// The JSON pointer to it (RFC 6901).
    fn pointer(&self) -> String {
        match self {
            At::Body => String::new(),
            At::Field(above, name) => below(&above.pointer(), name),
            At::Item(above, index) => format!("{}/{index}", above.pointer()),
        }
    }
}

/// A walk through a body along its schema. It knows the part of JSON Schema that the framework writes.
struct Inspection<'a> {
    schemas: &'a Value,
    found: Vec<Detail>,
}

impl Inspection<'_> {
    fn visit(&mut self, schema: &Value, value: &Value, at: &At<'_>) {
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
            (Some("integer"), _) => self.find(at, WRONG_TYPE, "must be a whole number"),
            (Some(kind), _) => {
                let article = if kind.starts_with(['a', 'o']) { "an" } else { "a" };
                self.find(at, WRONG_TYPE, format!("must be {article} {kind}"));
            }
        }
    }

    fn visit_object(&mut self, schema: &Value, fields: &Map<String, Value>, at: &At<'_>) {
        let required: Vec<_> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for name in required.iter().filter(|name| !fields.contains_key(**name)) {
            self.find(&At::Field(at, name), "missing", "must be given");
        }
        let Some(properties) = schema["properties"].as_object() else { return };
        for (name, value) in fields {
            if self.found.len() >= DETAILS_MAX {
                return;
            }
            match properties.get(name) {
                // The framework takes null for "not given".
                Some(_) if value.is_null() && !required.contains(&name.as_str()) => {}
                Some(property) => self.visit(property, value, &At::Field(at, name)),
                None => self.find(&At::Field(at, name), "unknown-field", "is not known here"),
            }
        }
    }

    fn visit_array(&mut self, schema: &Value, items: &[Value], at: &At<'_>) {
        if schema["minItems"].as_u64().is_some_and(|min| (items.len() as u64) < min) {
            self.find(at, "too-few", format!("must have at least {} items", schema["minItems"]));
        }
        if schema["maxItems"].as_u64().is_some_and(|max| items.len() as u64 > max) {
            let message = format!("must have at most {} items", schema["maxItems"]);
            return self.find(at, "too-many", message);
        }
        for (index, item) in items.iter().enumerate() {
            self.visit(&schema["items"], item, &At::Item(at, index));
        }
    }

    fn visit_text(&mut self, schema: &Value, text: &str, at: &At<'_>) {
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
        if schema["format"] == "date-time" && OffsetDateTime::parse(text, &Rfc3339).is_err() {
            self.find(at, "wrong-format", "must be a moment of RFC 3339");
        }
        let known = schema["enum"].as_array();
        if known.is_some_and(|known| known.iter().all(|known| known != text)) {
            let known: Vec<_> = known.into_iter().flatten().filter_map(Value::as_str).collect();
            self.find(at, "unknown-value", format!("must be one of {}", known.join(", ")));
        }
    }

    fn visit_number(&mut self, schema: &Value, value: &Value, at: &At<'_>) {
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

    fn find(&mut self, at: &At<'_>, code: &'static str, message: impl Into<String>) {
        self.found.push(Detail {
            pointer: at.pointer(),
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
    use crate::web::policy::{Class, Who};

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
            "paths": {
                "/v1/orders/{order_id}": {
                    "get": { "operationId": "get" },
                    "post": { "operationId": "change", "requestBody": body },
                },
                "/v1/orders/latest": { "get": { "operationId": "latest" } },
            },
            "components": { "schemas": { "Line": line, "Order": order } },
        });
        let policies =
            ["get", "change", "latest"].map(|id| Policy::new(id, Who::Anyone, Class::Browse));
        Document::parse(&document.to_string(), &["/docs"], &policies).unwrap()
    }

    fn found(body: &Value) -> Vec<(String, &'static str)> {
        let document = document();
        let operation = document.route("/v1/orders/7").unwrap().operation(&Method::POST).unwrap();
        let details = document.violations(operation, body);
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
                "Sent": { "required": ["a"], "properties": { "a": { "items": { "$ref": "#/components/schemas/Inner" } } } },
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
        assert_eq!(schemas["Sent"]["properties"]["a"]["nullable"], Value::Null);
        let reference =
            json!({ "allOf": [{ "$ref": "#/components/schemas/Sent" }], "nullable": true });
        assert_eq!(schemas["Inner"]["properties"]["b"], reference);
    }

    #[test]
    fn nobody_gets_a_longer_answer_than_helps() {
        let mut body: Map<String, Value> =
            (0..10_000).map(|n| (format!("z{n}"), json!(0))).collect();
        body.insert("lines".to_owned(), json!(7));

        assert_eq!(found(&Value::Object(body)).len(), DETAILS_MAX);
    }

    #[test]
    fn a_number_is_no_text() {
        let document = document();
        let operation = document.route("/v1/orders/7").unwrap().operation(&Method::POST).unwrap();
        let mistyped = |body: Value| {
            let details = document.mistyped(operation, body.to_string().as_bytes())?;
            Some(details.into_iter().map(|detail| detail.pointer).collect::<Vec<_>>())
        };

        let line =
            |note: Value| json!({ "lines": [{ "variant_id": ID, "quantity": 1, "note": note }] });
        assert_eq!(mistyped(line(json!("a"))), None);
        assert_eq!(mistyped(line(Value::Null)), None);
        assert_eq!(mistyped(line(json!(7))).unwrap(), ["/lines/0/note"]);
        assert_eq!(mistyped(line(json!(true))).unwrap(), ["/lines/0/note"]);
        // What the framework sees by itself is left to it, which first looks who asks.
        assert_eq!(mistyped(json!({})), None);
    }

    #[test]
    fn a_route_knows_its_name_and_its_methods() {
        let document = document();
        let route = document.route("/v1/orders/7").unwrap();

        assert_eq!(route.path, "/v1/orders/{order_id}");
        assert_eq!(route.parameters, ["order_id"]);
        assert_eq!(route.allowed(), "GET, POST");
        let operation = |method| route.operation(&method).map(|found| found.policy.operation);
        assert_eq!(operation(Method::POST), Some("change"));
        assert_eq!(operation(Method::HEAD), Some("get"));
        assert_eq!(operation(Method::DELETE), None);
    }

    #[test]
    fn an_address_finds_the_one_route_that_it_fits() {
        let document = document();
        let path = |address| document.route(address).map(|route| route.path);

        assert_eq!(path("/docs"), Some("/docs"));
        assert_eq!(path("/v1/orders/latest"), Some("/v1/orders/latest"));
        assert_eq!(path("/v1/orders/lates"), Some("/v1/orders/{order_id}"));
        for unknown in
            ["", "/", "/docs/", "/v1/orders", "/v1/orders/", "/v1/orders/7/", "/v1//orders/7"]
        {
            assert_eq!(path(unknown), None, "{unknown}");
        }
    }
}
