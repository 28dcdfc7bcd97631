//! The OpenAPI 3.1 document, made from the table of routes and the types of the answers.
//!
//! It is committed as `docs/openapi.json` and compared in a test. Nothing here is written twice: a
//! schema is the type's own, a status that of the error's code.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::error::{self, ErrorBody};
use super::routes::{EVERYWHERE, Gives, Parameter, Place, ROUTES, Route, Takes, Verb, WITH_BODY};
use crate::manager::{Kind, StreamEvent};

/// `GET /openapi.json`
pub(super) async fn serve() -> impl IntoResponse {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| format!("{}\n", document())).as_str();
    ([(CONTENT_TYPE, "application/json")], text)
}

/// The document, as `GET /openapi.json` gives it.
pub fn document() -> Value {
    let settings = |settings: SchemaSettings| {
        settings.with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
    };
    let mut given = settings(SchemaSettings::draft2020_12().for_serialize()).into_generator();
    let mut taken = settings(SchemaSettings::draft2020_12().for_deserialize()).into_generator();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in ROUTES {
        let verb = match route.verb {
            Verb::Get => "get",
            Verb::Post => "post",
        };
        let operation = operation(route, &mut given, &mut taken);
        paths.entry(route.path).or_default().insert(verb.to_owned(), operation);
    }
    // What is absent where it does not apply is not required.
    taken.subschema_for::<ErrorBody>();
    let mut schemas = taken.take_definitions(true);
    schemas.extend(given.take_definitions(true));
    schemas.sort_keys();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "wharf",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "A process manager in which every executable is a port",
            "description": "HTTP/1.1 on the Unix socket `sock` of the state directory, for its owner and root: `curl --unix-socket .wharf/sock http://wharf/v1/services`. An error is JSON with a sentence (`error`) and a word (`code`). Unknown and repeated query keys are refused.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://wharf", "description": "Through the Unix socket; the host's name does not matter." }],
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn operation(route: &Route, given: &mut SchemaGenerator, taken: &mut SchemaGenerator) -> Value {
    let parameters: Vec<_> = route.parameters.iter().map(|one| parameter(one, taken)).collect();
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "description": route.description,
        "parameters": parameters,
    });
    match route.takes {
        Takes::Nothing => {}
        Takes::Json { schema, example, required } => {
            let schema = schema(taken);
            let content = json!({ "schema": schema, "example": parsed(example) });
            operation["requestBody"] =
                json!({ "required": required, "content": { "application/json": content } });
        }
        Takes::Bytes => {
            let content = json!({ "schema": {}, "example": "select 1;" });
            operation["requestBody"] = json!({
                "description": "The message, at most as large as the port's `max_frame`.",
                "required": false,
                "content": { "application/octet-stream": content },
            });
        }
    }
    let mut responses = Map::new();
    let (status, response) = success(route.gives, given);
    responses.insert(status.to_string(), response);
    for (status, codes) in errors(route) {
        responses.insert(status.to_string(), refusal(&codes));
    }
    responses.sort_keys();
    operation["responses"] = responses.into();
    operation
}

fn parameter(one: &Parameter, taken: &mut SchemaGenerator) -> Value {
    let place = match one.place {
        Place::Path => "path",
        Place::Query => "query",
        Place::Header => "header",
    };
    let schema = (one.schema)(taken);
    let text = schema.get("type").is_none_or(|kind| kind == "string");
    let example = if text { one.example.into() } else { parsed(one.example) };
    json!({
        "name": one.name,
        "in": place,
        "description": one.about,
        "required": one.place == Place::Path,
        "schema": schema,
        "example": example,
    })
}

fn success(answer: Gives, given: &mut SchemaGenerator) -> (u16, Value) {
    match answer {
        Gives::Nothing(status, about) => (status, json!({ "description": about })),
        Gives::Json { about, schema, example } => {
            let content = json!({ "schema": schema(given), "example": parsed(example) });
            (200, json!({ "description": about, "content": { "application/json": content } }))
        }
        Gives::Bytes(about) => {
            let header = json!({
                "x-wharf-messages": {
                    "description": "How many messages the reply has.",
                    "required": true,
                    "schema": { "type": "integer", "minimum": 0 },
                    "example": 1,
                },
            });
            let content = json!({ "application/octet-stream": { "schema": {}, "example": "1" } });
            (200, json!({ "description": about, "headers": header, "content": content }))
        }
        Gives::Metrics(about) => {
            let header = json!({
                "server-timing": {
                    "description": "Milliseconds that the loop and the whole look took.",
                    "schema": { "type": "string" },
                    "example": "loop;dur=0.100, look;dur=2.000",
                },
            });
            let example = "wharf_build_info{version=\"0.1.0\"} 1\n";
            let content =
                json!({ "text/plain": { "schema": { "type": "string" }, "example": example } });
            (200, json!({ "description": about, "headers": header, "content": content }))
        }
        Gives::Upgrade(about) => {
            let header = |value: &str| json!({ "schema": { "type": "string" }, "example": value });
            let headers = json!({ "connection": header("upgrade"), "upgrade": header("wharf") });
            (101, json!({ "description": about, "headers": headers }))
        }
        Gives::Events(about) => {
            let example =
                "event: exit\nid: 1842.3.77.9f86d081884c7d65\ndata: {\"kind\":\"exit\"}\n\n";
            let content = json!({
                "text/event-stream": { "schema": event(given), "example": example },
            });
            (200, json!({ "description": about, "content": content }))
        }
    }
}

/// One event of the stream, as the fields of its text.
fn event(given: &mut SchemaGenerator) -> Value {
    json!({
        "type": "object",
        "properties": {
            "event": given.subschema_for::<Kind>(),
            "id": { "type": "string" },
            "retry": { "type": "integer" },
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": given.subschema_for::<StreamEvent>(),
            },
        },
    })
}

/// The codes of a route's errors by their status.
fn errors(route: &Route) -> BTreeMap<u16, BTreeSet<&'static str>> {
    let mut all: BTreeMap<u16, BTreeSet<&str>> = BTreeMap::new();
    let body: &[&str] = if route.verb == Verb::Post { WITH_BODY } else { &[] };
    for code in EVERYWHERE.iter().chain(body).chain(route.errors) {
        let Some(known) = error::CODES.iter().find(|known| known.code == *code) else { continue };
        all.entry(known.status).or_default().insert(code);
    }
    all
}

fn refusal(codes: &BTreeSet<&str>) -> Value {
    let about = |code: &&str| error::CODES.iter().find(|known| known.code == *code);
    let lines: Vec<_> = codes
        .iter()
        .filter_map(about)
        .map(|known| format!("`{}`: {}", known.code, known.about))
        .collect();
    let first = codes.first().copied().unwrap_or_default();
    let words = about(&first).map(|known| known.about).unwrap_or_default();
    let schema = json!({
        "allOf": [
            { "$ref": "#/components/schemas/ErrorBody" },
            { "properties": { "code": { "enum": codes } } },
        ],
    });
    let example = json!({ "error": words, "code": first });
    let content = json!({ "application/json": { "schema": schema, "example": example } });
    json!({ "description": lines.join("\n"), "content": content })
}

fn parsed(example: &str) -> Value {
    serde_json::from_str(example).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_no_doubles_and_every_word_in_it_means_something() {
        let mut seen = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for route in ROUTES {
            assert!(seen.insert((route.path, route.verb == Verb::Get)), "{}", route.path);
            assert!(ids.insert(route.id), "{}", route.id);
            let named = route.parameters.iter().any(|one| one.place == Place::Path);
            assert_eq!(named, route.path.contains("{name}"), "{}", route.path);
            for code in route.errors {
                assert!(error::CODES.iter().any(|known| known.code == *code), "{code}");
            }
            if let Takes::Json { example, .. } = route.takes {
                assert!(!parsed(example).is_null(), "{}", route.path);
            }
            if let Gives::Json { example, .. } = route.gives {
                assert!(!parsed(example).is_null(), "{}", route.path);
            }
            assert!(route.summary.len() > 5 && route.description.ends_with('.'), "{}", route.path);
        }
        for code in EVERYWHERE.iter().chain(WITH_BODY) {
            assert!(error::CODES.iter().any(|known| known.code == *code), "{code}");
        }
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        fn walk(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    map.values().for_each(|value| walk(value, found));
                }
                Value::Array(all) => all.iter().for_each(|value| walk(value, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        walk(&document, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn the_committed_document_is_that_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        let text = format!("{}\n", serde_json::to_string_pretty(&document()).unwrap());
        if std::env::var_os("WHARF_BLESS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(found == text, "docs/openapi.json; WHARF_BLESS=1 rewrites it");
    }
}
