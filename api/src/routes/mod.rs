//! The list of resources.

mod access;
mod api_keys;
mod audit_events;
mod connections;
mod destinations;
mod events;
pub(crate) mod callback;
pub(crate) mod health;
mod kinds;
mod limits;
mod members;
mod models;
mod operations;
mod runs;
mod sessions;
mod sso;
mod syncs;
mod usage;
mod workspaces;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use freshet_core::error::{Code, Error, Result as CoreResult};
use freshet_core::operation::Operation;
use freshet_core::page::PageRequest;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;

use crate::Api;
use crate::idempotency::KeptBody;
use crate::problem::Problem;

/// What a handler answers.
pub(crate) type Answer = Result<Response, Problem>;

pub(crate) fn v1() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .merge(workspaces::routes())
        .merge(access::routes())
        .merge(members::routes())
        .merge(sessions::routes())
        .merge(sso::routes())
        .merge(kinds::routes())
        .merge(connections::routes())
        .merge(models::routes())
        .merge(destinations::routes())
        .merge(syncs::routes())
        .merge(runs::routes())
        .merge(usage::routes())
        .merge(limits::routes())
        .merge(events::routes())
        .merge(operations::routes())
        .merge(api_keys::routes())
        .merge(audit_events::routes())
}

/// Which page of a list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageQuery {
    /// Rows, 1 to 200; 50 if not given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// The `next_cursor` of the page before.
    #[param(pattern = r"^v1\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    cursor: Option<String>,
}

impl PageQuery {
    fn request(&self) -> CoreResult<PageRequest> {
        PageRequest::new(self.limit, self.cursor.as_deref())
    }
}

/// 200 with a body.
pub(crate) fn ok<T: Serialize>(body: &T) -> Answer {
    answer(StatusCode::OK, body)
}

/// A body with a status.
pub(crate) fn answer<T: Serialize>(status: StatusCode, body: &T) -> Answer {
    Ok((status, axum::Json(serde_json::to_value(body).unwrap_or_default())).into_response())
}

/// An object with its `ETag`.
pub(crate) fn versioned<T: Serialize>(status: StatusCode, row_version: i64, body: &T) -> Answer {
    let mut response = answer(status, body)?;
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{row_version}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// An object just made, with its `ETag` and `Location`.
pub(crate) fn created<T: Serialize>(location: String, row_version: i64, body: &T) -> Answer {
    let mut response = versioned(StatusCode::CREATED, row_version, body)?;
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// 201 with a secret in it; what is kept of it under an `Idempotency-Key` is `kept`.
pub(crate) fn shown_once<T: Serialize>(body: &T, kept: &T) -> Answer {
    let mut response = answer(StatusCode::CREATED, body)?;
    let kept = serde_json::to_string(kept)
        .map_err(|error| Error::new(Code::Internal, "the answer cannot be written").caused_by(error))?;
    response.extensions_mut().insert(KeptBody(kept));
    Ok(response)
}

/// 202: the operation that will hold the answer.
pub(crate) fn accepted(operation: &Operation) -> Answer {
    let mut response = answer(StatusCode::ACCEPTED, operation)?;
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/operations/{}", operation.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// 204.
pub(crate) fn no_content() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}
