//! Bearer key to `Caller`, and a name for each request.

use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use freshet_core::access::Caller;
use freshet_core::error::{Code, Error, Result as CoreResult};
use freshet_core::id::{RequestId, WorkspaceId};
use freshet_core::member::ops::At;
use freshet_core::settings::Secret;
use freshet_core::trace::TraceParent;
use freshet_core::{api_key, audit, personal_token};

use tracing::Instrument as _;
use tracing::field::Empty;

use crate::Api;
use crate::problem::Problem;

/// Which workspace a request is for, where its key does not say so.
const WORKSPACE: HeaderName = HeaderName::from_static("freshet-workspace");
/// The path that tells a person's workspaces.
const WHICH: &str = "/v1/me/workspaces";
/// The trace that a request is part of (W3C Trace Context).
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
/// The paths that may be asked from within a workspace that is deleted: who restores it may have no other.
const OF_DELETED: [&str; 3] = ["/v1/workspaces", "/v1/workspaces/{id}", "/v1/workspaces/{id}/restore"];
const REQUEST_ID: HeaderName = HeaderName::from_static("freshet-request-id");

/// Gives each request an id: in its answer, in a problem, in the audit log.
pub(crate) async fn name_request(mut request: Request, next: Next) -> Response {
    let id = RequestId::new();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(id);
    // Every line of the request names it, whatever is logged; the workspace is filled in once it is known.
    let span = tracing::error_span!(
        "request", request.id = %id, workspace.id = Empty, http.request.method = %method, http.route = Empty,
        http.response.status_code = Empty, otel.kind = "server", otel.status_code = Empty,
    );
    if let Some(route) = request.extensions().get::<MatchedPath>() {
        span.record("http.route", route.as_str());
    }
    let asked_in = request.headers().get(TRACE_PARENT).and_then(|value| value.to_str().ok());
    if let Some(trace) = asked_in.and_then(|text| text.parse::<TraceParent>().ok()) {
        trace.adopt(&span);
    }
    answer_within(id, method, path, request, next).instrument(span).await
}

async fn answer_within(id: RequestId, method: Method, path: String, request: Request, next: Next) -> Response {
    let since = std::time::Instant::now();
    let mut response = next.run(request).await;
    let text = id.to_string();
    if let Some(problem) = response.extensions_mut().remove::<Arc<Problem>>()
        && let Some(problem) = Arc::into_inner(problem)
    {
        let headers = std::mem::take(response.headers_mut());
        response = problem.of_request(&text).into_response();
        // `Retry-After` and the like; of its own it has the content's type and length.
        for (name, value) in headers.iter().filter(|(name, _)| *name != header::CONTENT_LENGTH) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    let took_ms = since.elapsed().as_millis() as u64;
    let status = response.status();
    let span = tracing::Span::current();
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    tracing::info!(%method, path, status = status.as_u16(), took_ms, "answered");
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Lets only requests with a valid key through, and says who they are from.
pub(crate) async fn require_key(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    match authenticate(&api, request.headers(), request.extensions()).await {
        Ok(mut caller) => {
            tracing::Span::current().record("workspace.id", tracing::field::display(caller.workspace));
            caller.request = request.extensions().get::<RequestId>().copied();
            let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
            let route = format!("{} {path}", request.method());
            request.extensions_mut().insert(caller.clone());
            let response = next.run(request).await;
            if let Some(denied) = response.extensions().get::<Arc<Problem>>().filter(|one| one.is(Code::Forbidden)) {
                write_denied(&api, &caller, &route, denied).await;
            }
            response
        }
        Err(error) => Problem::from(error).into_response(),
    }
}

/// The key of a request; empty without one.
fn bearer(headers: &HeaderMap) -> &str {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().trim()
}

/// The caller by whatever key it is, in the workspace that the request names.
async fn authenticate(api: &Api, headers: &HeaderMap, extensions: &Extensions) -> CoreResult<Caller> {
    let key = bearer(headers);
    let named = headers.get(WORKSPACE).map(|value| {
        let parsed = value.to_str().ok().and_then(|text| text.parse::<WorkspaceId>().ok());
        parsed.ok_or_else(|| Error::invalid("/Freshet-Workspace", "must be the id of a workspace, `ws_…`"))
    });
    let named = named.transpose()?;
    if !personal_token::ops::is_one(key) {
        return api_key::ops::authenticate(&api.app, key, named).await;
    }
    // Whoever does not know yet which workspaces there are can ask that without naming one.
    let path = extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let place = match named {
        named if OF_DELETED.contains(&path) => At::Deleted(named),
        Some(named) => At::Named(named),
        None if path == WHICH => At::Any,
        None => At::Only,
    };
    personal_token::ops::authenticate(&api.app, key, place).await
}

/// What a caller showed, for answers that last longer than what it allows may.
pub(crate) struct Shown {
    key: Secret,
    workspace: WorkspaceId,
}

impl Shown {
    /// The caller as of now.
    ///
    /// # Errors
    /// `auth.invalid_key`, `request.not_found` when what was shown opens the workspace no more.
    pub(crate) async fn again(&self, api: &Api) -> CoreResult<Caller> {
        let key = self.key.expose();
        if personal_token::ops::is_one(key) {
            return personal_token::ops::authenticate(&api.app, key, At::Named(self.workspace)).await;
        }
        api_key::ops::authenticate(&api.app, key, Some(self.workspace)).await
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Shown {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let key = bearer(&parts.headers).parse().unwrap_or_default();
        Ok(Self { key, workspace: By::from_request_parts(parts, state).await?.0.workspace })
    }
}

/// What was denied is part of the audit; that it cannot be written does not allow it.
async fn write_denied(api: &Api, caller: &Caller, route: &str, denied: &Problem) {
    if let Err(error) = audit::ops::record_denied(&api.app, caller, route, denied.detail()).await {
        tracing::warn!(%route, error = %error.chain(), "a denied request could not be written into the audit log");
    }
}

/// The caller, for a handler.
pub(crate) struct By(pub(crate) Caller);

impl<S: Send + Sync> FromRequestParts<S> for By {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.map(By).ok_or_else(|| Error::new(Code::Unauthenticated, "the request has no key").into())
    }
}
