//! The feed: what happened in the workspace within 30 days, to be pulled or followed.

use std::convert::Infallible;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use freshet_core::error::Result as CoreResult;
use freshet_core::events::Subject;
use freshet_core::feed::ops::{self, FeedRequest};
use freshet_core::feed::{FeedEvent, FeedPage};
use freshet_core::id::WorkspaceId;
use futures::{Stream, StreamExt};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::runs::{KEEP_ALIVE, LOOK, STREAM_MAX};
use super::{Answer, ok};
use crate::Api;
use crate::auth::{By, Shown};
use crate::extract::Query;
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list_events))
}

/// Which part of the feed.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct FeedQuery {
    /// Events, 1 to 200; 50 if not given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// The `next_cursor` of the page before, or an event's `id` of the stream; the oldest that is kept if not given. A stream
    /// takes `Last-Event-ID` first.
    #[param(pattern = r"^v1\.[0-9]{1,18}$")]
    cursor: Option<String>,
    /// Types or their nouns, comma-separated: `run.failed,sync`.
    r#type: Option<String>,
}

/// What happened in the workspace within 30 days, oldest first: JSON, or server-sent events with `Accept: text/event-stream`.
///
/// Ask again with `next_cursor`: no event is left out, and none comes twice. An event of a slow transaction comes after those
/// that were read before it. A stream sends each event under its type, with its cursor as `id`, and ends when the key does.
#[utoipa::path(
    get,
    path = "/events",
    tag = "events",
    params(FeedQuery),
    security(("key" = ["runs:read"])),
    responses(
        (status = 200, content((FeedPage = "application/json"), (String = "text/event-stream"))),
        (status = "default", body = Problem, content_type = "application/problem+json")
    )
)]
async fn list_events(
    State(api): State<Api>,
    By(caller): By,
    shown: Shown,
    Query(query): Query<FeedQuery>,
    headers: HeaderMap,
) -> Answer {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let streams = header(header::ACCEPT.as_str()).is_some_and(|accept| accept.contains("text/event-stream"));
    let cursor = header("last-event-id").filter(|_| streams).or(query.cursor.as_deref());
    let request = FeedRequest::new(cursor, query.r#type.as_deref(), query.limit)?;
    if !streams {
        return ok(&ops::page(&api.app, &caller, &request).await?);
    }
    // Subscribed before the first look: what comes in between is not missed.
    let changes = api.app.events.subscribe();
    ops::read(&api.app, &caller, &request).await?;
    Ok(stream(Lines { changes, api, shown, workspace: caller.workspace, request, more: true }))
}

fn stream(lines: Lines) -> Response {
    let stream = Sse::new(lines.into_stream()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    ([("x-accel-buffering", "no")], stream).into_response()
}

/// A stream's state: where it is, and what to wait for.
struct Lines {
    api: Api,
    shown: Shown,
    workspace: WorkspaceId,
    request: FeedRequest,
    /// Whether there is more to read at once.
    more: bool,
    changes: tokio::sync::broadcast::Receiver<freshet_core::events::Event>,
}

impl Lines {
    fn into_stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        let until = Instant::now() + STREAM_MAX;
        futures::stream::unfold(self, move |mut lines| async move {
            loop {
                if !lines.more && !lines.changed(until).await {
                    return None;
                }
                // By what the key may by now: one that was revoked ends the stream. So does any failure, and the client
                // connects again from where it was.
                let events = lines.read().await.ok()?;
                if !events.is_empty() {
                    let sent: Vec<_> = events.iter().filter_map(line).map(Ok).collect();
                    return Some((futures::stream::iter(sent), lines));
                }
            }
        })
        .flatten()
    }

    async fn read(&mut self) -> CoreResult<Vec<(i64, FeedEvent)>> {
        let caller = self.shown.again(&self.api).await?;
        let (events, next, more) = ops::read(&self.api.app, &caller, &self.request).await?;
        (self.request.after, self.more) = (next, more);
        Ok(events)
    }

    /// Waits until there may be something; false when the stream is to end.
    async fn changed(&mut self, until: Instant) -> bool {
        let look = Instant::now() + LOOK;
        loop {
            tokio::select! {
                () = self.api.drain.cancelled() => return false,
                () = tokio::time::sleep_until(until) => return false,
                () = tokio::time::sleep_until(look) => return true,
                change = self.changes.recv() => match change {
                    Ok(event) => match event.subject {
                        Subject::Anything => return true,
                        Subject::Run | Subject::Feed if event.workspace == self.workspace => return true,
                        Subject::Run | Subject::Feed | Subject::Operation => {}
                    },
                    Err(RecvError::Lagged(_)) => return true,
                    Err(RecvError::Closed) => return false,
                },
            }
        }
    }
}

fn line((number, event): &(i64, FeedEvent)) -> Option<Event> {
    let body = serde_json::to_string(event).ok()?;
    Some(Event::default().event(&event.kind).id(ops::cursor_of(*number)).data(body))
}
