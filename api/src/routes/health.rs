//! Outside `/v1`: is the process alive, is it ready; and the document.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use utoipa::openapi::OpenApi;

use crate::Api;
use crate::problem::Problem;

/// Whether a path is one of these.
pub(crate) fn serves(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

pub(crate) fn router(document: OpenApi) -> Router<Api> {
    let text = document.to_pretty_json().unwrap_or_default();
    let document = move || {
        let text = text.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], text) }
    };
    Router::new()
        .route("/healthz", get(async || StatusCode::NO_CONTENT))
        .route("/readyz", get(ready))
        .route("/v1/openapi.json", get(document))
}

async fn ready(State(api): State<Api>) -> Result<Response, Problem> {
    api.app.db.ready().await?;
    Ok(Json(serde_json::json!({ "database": "ok" })).into_response())
}
