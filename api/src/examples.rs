//! The examples of the API's document, kept in `examples.json` beside it: by method and path a `request`, an `answer`.
//! Tests send each request and hold each answer against its schema.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{Content, OpenApi, RefOr};

use crate::operation;

/// Of one operation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    request: Option<Value>,
    answer: Option<Value>,
}

/// Writes the examples into a document. One of an operation that is not there is left out; a test finds it.
pub(crate) fn put(document: &mut OpenApi) {
    let text = include_str!("../examples.json");
    let examples: BTreeMap<String, Example> = serde_json::from_str(text).unwrap_or_default();
    for (name, example) in examples {
        let Some((method, path)) = name.split_once(' ') else { continue };
        if let Some(operation) = operation(document, method, path) {
            put_into(operation, example);
        }
    }
}

fn put_into(operation: &mut Operation, example: Example) {
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        body.content.values_mut().for_each(|content| set(content, example.request.as_ref()));
    }
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if status.starts_with('2') {
            let json = response.content.get_mut("application/json");
            json.into_iter().for_each(|content| set(content, example.answer.as_ref()));
        }
    }
}

fn set(content: &mut RefOr<Content>, example: Option<&Value>) {
    if let RefOr::T(content) = content {
        content.example = example.cloned();
    }
}
