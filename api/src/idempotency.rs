//! `Idempotency-Key`: the same key, the same answer.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use freshet_core::access::Caller;
use freshet_core::error::{Code, Error};
use freshet_core::idempotency::ops::{self, Kept};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::problem::Problem;
use crate::{Api, BODY_BYTES_MAX};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What is kept of an answer instead of its body, which holds a secret.
#[derive(Clone)]
pub(crate) struct KeptBody(pub(crate) String);

/// Answers a POST that was answered before under its key with that answer.
pub(crate) async fn answer_again(State(api): State<Api>, request: Request, next: Next) -> Response {
    let key = request.headers().get(KEY).map(|value| value.to_str().unwrap_or_default().to_owned());
    let caller = request.extensions().get::<Caller>().cloned();
    let (Some(key), Some(caller)) = (key, caller) else { return next.run(request).await };
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return Problem::from(Error::new(Code::TooLarge, "the body cannot be read")).into_response();
    };
    let route = format!("{} {}", parts.method, parts.uri.path());
    let begun = ops::begin(&api.app, &caller, &key, &route, &Sha256::digest(&body)).await;
    match begun {
        Err(error) => Problem::from(error).into_response(),
        Ok(Some(kept)) => replay(kept),
        Ok(None) => {
            let response = next.run(Request::from_parts(parts, Body::from(body))).await;
            keep(&api, &caller, &key, response).await
        }
    }
}

async fn keep(api: &Api, caller: &Caller, key: &str, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_else(|_| Bytes::new());
    let header = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let kept = Kept {
        status: parts.status.as_u16() as i16,
        headers: json!({
            "location": header(header::LOCATION),
            "etag": header(header::ETAG),
            "content-type": header(header::CONTENT_TYPE),
        }),
        body: match parts.extensions.get::<KeptBody>() {
            Some(KeptBody(kept)) => kept.clone(),
            None => String::from_utf8_lossy(&body).into_owned(),
        },
    };
    if let Err(error) = ops::finish(&api.app, caller, key, &kept).await {
        tracing::warn!(error = %error.chain(), "an answer could not be kept under its Idempotency-Key");
    }
    Response::from_parts(parts, Body::from(body))
}

fn replay(kept: Kept) -> Response {
    let status = u16::try_from(kept.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let mut response = (status.unwrap_or(StatusCode::OK), kept.body).into_response();
    for name in [header::LOCATION, header::ETAG, header::CONTENT_TYPE] {
        let value = kept.headers.get(name.as_str()).and_then(Value::as_str);
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}
