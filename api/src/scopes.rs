//! The scopes that the document names, asked for before a request's body is read. What an operation does asks once more:
//! the document cannot promise what the code does not keep.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use freshet_core::access::{Caller, Right};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{OpenApi, security::SecurityRequirement};

use crate::problem::Problem;

/// Which rights each operation wants. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Scopes(Arc<BTreeMap<(String, String), Vec<Right>>>);

impl Scopes {
    /// Reads them from the document.
    pub(crate) fn of(document: &OpenApi) -> Self {
        let mut scopes = BTreeMap::new();
        for (path, item) in &document.paths.paths {
            for (method, operation) in operations(item) {
                scopes.insert((method.to_owned(), path.clone()), rights(operation));
            }
        }
        Self(Arc::new(scopes))
    }
}

fn operations(item: &PathItem) -> impl Iterator<Item = (&'static str, &Operation)> {
    let all = [
        ("GET", &item.get),
        ("POST", &item.post),
        ("PUT", &item.put),
        ("PATCH", &item.patch),
        ("DELETE", &item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

fn rights(operation: &Operation) -> Vec<Right> {
    let requirements = operation.security.iter().flatten();
    requirements.flat_map(words).filter_map(|word| Right::parse(&word).ok()).collect()
}

/// The scopes of a requirement: its fields cannot be reached but by writing it out.
fn words(requirement: &SecurityRequirement) -> Vec<String> {
    let written = serde_json::to_value(requirement).unwrap_or_default();
    serde_json::from_value::<BTreeMap<String, Vec<String>>>(written)
        .unwrap_or_default()
        .into_values()
        .flatten()
        .collect()
}

/// Refuses a caller that lacks a scope in its workspace and in its organization; runs behind the key's check.
pub(crate) async fn require(State(scopes): State<Scopes>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let method = if request.method() == Method::HEAD { "GET" } else { request.method().as_str() };
    let wanted = scopes.0.get(&(method.to_owned(), path.to_owned())).map_or(&[][..], Vec::as_slice);
    if let Some(caller) = request.extensions().get::<Caller>()
        && let Err(error) = wanted.iter().try_for_each(|right| caller.may_somewhere(*right))
    {
        return Problem::from(error).into_response();
    }
    next.run(request).await
}
