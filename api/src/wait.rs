//! `Prefer: wait=N` (RFC 7240): a 202 waits for its operation, for so many seconds at most.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use freshet_core::access::Caller;
use freshet_core::events::{Event, Subject};
use freshet_core::id::OperationId;
use freshet_core::operation::{Operation, ops};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use crate::Api;

/// Seconds waited for, at most.
const WAIT_MAX_S: u64 = 30;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Answers a request that begins an operation once that has ended, if the caller would rather wait. The status stays 202;
/// the body says how far the operation is.
pub(crate) async fn prefer_wait(State(api): State<Api>, request: Request, next: Next) -> Response {
    let wait_s = request.headers().get(PREFER).and_then(|value| wanted(value.to_str().ok()?));
    let caller = request.extensions().get::<Caller>().cloned();
    let (Some(wait_s), Some(caller)) = (wait_s, caller) else { return next.run(request).await };
    // Before the question is asked: its answer cannot be missed.
    let mut changes = api.app.events.subscribe();
    let response = next.run(request).await;
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let id = location.and_then(|path| path.strip_prefix("/v1/operations/")).and_then(|id| id.parse().ok());
    let (StatusCode::ACCEPTED, Some(id)) = (response.status(), id) else { return response };
    let deadline = Instant::now() + Duration::from_secs(wait_s);
    let found = loop {
        let Ok(found) = ops::get(&api.app, &caller, id).await else { return response };
        if found.finished_at.is_some() || api.drain.is_cancelled() {
            break found;
        }
        if timeout_at(deadline, changed(&mut changes, id)).await.is_err() {
            break found;
        }
    };
    answered(response, &found, wait_s)
}

/// Waits until a row has changed, or may have.
async fn changed(changes: &mut tokio::sync::broadcast::Receiver<Event>, id: OperationId) {
    loop {
        match changes.recv().await {
            Ok(Event { subject: Subject::Operation, id: changed, .. }) if changed == id.uuid() => return,
            Ok(Event { subject: Subject::Anything, .. }) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            // The listener is gone with the service: the deadline ends the wait.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn answered(response: Response, found: &Operation, wait_s: u64) -> Response {
    let (mut parts, body) = response.into_parts();
    let body = serde_json::to_vec(found).map_or(body, Body::from);
    parts.headers.remove(header::CONTENT_LENGTH);
    if let Ok(applied) = HeaderValue::from_str(&format!("wait={wait_s}")) {
        parts.headers.insert(APPLIED, applied);
    }
    Response::from_parts(parts, body)
}

/// The seconds of `wait=N` among the preferences.
fn wanted(preferences: &str) -> Option<u64> {
    preferences.split([',', ';']).find_map(|one| {
        let (name, seconds) = one.split_once('=')?;
        let is_wait = name.trim().eq_ignore_ascii_case("wait");
        is_wait.then(|| seconds.trim().trim_matches('"').parse::<u64>().ok())?.map(|seconds| seconds.min(WAIT_MAX_S))
    })
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn a_wait_is_found_among_preferences() {
        assert_eq!(wanted("wait=10"), Some(10));
        assert_eq!(wanted("respond-async, Wait=\"5\""), Some(5));
        assert_eq!(wanted("wait=900"), Some(30));
        assert_eq!(wanted("wait=soon"), None);
        assert_eq!(wanted("handling=lenient"), None);
    }
}
