//! Extractors that refuse with a problem document: which field, which rule.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{StatusCode, header, request::Parts};
use freshet_core::error::{Code, Error, without_values};
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// A JSON body; unknown fields are refused by its type.
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let is_json = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.split(';').next().is_some_and(|kind| kind.trim() == "application/json"));
        if !is_json {
            return Err(Error::new(Code::UnsupportedMedia, "the body must be JSON").into());
        }
        let body = Bytes::from_request(request, state).await.map_err(|rejection| {
            let code = if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE { Code::TooLarge } else { Code::Invalid };
            Error::new(code, "the body cannot be read")
        })?;
        let mut json = serde_json::Deserializer::from_slice(&body);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| Error::from_json("", &error))?;
        json.end().map_err(|_| Error::invalid("", "there is something after the JSON value"))?;
        Ok(Self(value))
    }
}

/// Ids of the path; a text that is no id of the kind is nothing that exists.
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0))
            .map_err(|_| Error::new(Code::NotFound, "the path names no id of this kind").into())
    }
}

/// Parameters of the query.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|query| Self(query.0))
            .map_err(|error| Error::invalid("/query", without_values(&error.body_text())).into())
    }
}

/// The version that a change is based on, from `If-Match`.
pub(crate) struct IfMatch(pub(crate) i64);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else {
            let told = "the change must say which version it is based on";
            return Err(Error::new(Code::PreconditionRequired, told).into());
        };
        let version = value.to_str().ok().and_then(|tag| tag.trim().trim_matches('"').parse().ok());
        version
            .map(IfMatch)
            .ok_or_else(|| Error::new(Code::PreconditionFailed, "If-Match is not one of our ETags").into())
    }
}
