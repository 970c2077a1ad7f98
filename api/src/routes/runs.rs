//! Runs: what happened, what is happening, and stopping it.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use freshet_core::error::Error;
use freshet_core::events::Subject;
use freshet_core::id::RunId;
use freshet_core::page::Page;
use freshet_core::run::{Attempt, DeadLetterGroup, Run, RunEvent, RunPartition, RunQuery, RunState, SourceUse, ops};
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::syncs::run_answer;
use super::{Answer, ok};
use crate::Api;
use crate::auth::{By, Shown};
use crate::extract::{Path, Query};
use crate::problem::Problem;

/// How often a silent stream says that it lives.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a stream lasts; the client connects again from where it was.
pub(super) const STREAM_MAX: Duration = Duration::from_secs(15 * 60);
/// How often a stream looks by itself, should a notification be lost.
pub(super) const LOOK: Duration = Duration::from_secs(5);

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_runs))
        .routes(routes!(get_run))
        .routes(routes!(cancel_run))
        .routes(routes!(retry_run))
        .routes(routes!(list_run_events))
        .routes(routes!(list_run_attempts))
        .routes(routes!(list_run_partitions))
        .routes(routes!(list_dead_letters))
        .routes(routes!(list_run_queries))
}

/// Which runs.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct RunsQuery {
    /// Rows, 1 to 200; 50 if not given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// The `next_cursor` of the page before.
    #[param(pattern = r"^v1\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    cursor: Option<String>,
    /// States, comma-separated: `failed,running` …
    state: Option<String>,
}

/// A run's attempts.
#[derive(Serialize, utoipa::ToSchema)]
struct Attempts {
    data: Vec<Attempt>,
}

/// Where a run's records landed.
#[derive(Serialize, utoipa::ToSchema)]
struct Partitions {
    data: Vec<RunPartition>,
}

/// A run's dead letters by reason; the rows are on the dead-letter topic.
#[derive(Serialize, utoipa::ToSchema)]
struct DeadLetters {
    data: Vec<DeadLetterGroup>,
}

/// What a run asked of its source.
#[derive(Serialize, utoipa::ToSchema)]
struct Queries {
    /// All together.
    total: SourceUse,
    /// The statements, in order, 1 000 at most; none for sources without ids for them.
    data: Vec<RunQuery>,
}

/// A run's timeline, at most 200 lines.
#[derive(Serialize, utoipa::ToSchema)]
struct RunEvents {
    data: Vec<RunEvent>,
    /// Ask with `after` set to this for more.
    last_seq: i64,
}

/// From which line on.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// Lines after this one; 0 if not given. A stream takes `Last-Event-ID` first.
    #[serde(default)]
    after: i64,
}

/// The workspace's runs, newest first.
#[utoipa::path(
    get,
    path = "/runs",
    tag = "runs",
    params(RunsQuery),
    security(("key" = ["runs:read"])),
    responses((status = 200, body = Page<Run>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_runs(State(api): State<Api>, By(caller): By, Query(query): Query<RunsQuery>) -> Answer {
    let page = freshet_core::page::PageRequest::new(query.limit, query.cursor.as_deref())?;
    let words = query.state.as_deref().unwrap_or_default().split(',').filter(|word| !word.is_empty());
    let states = words.map(state).collect::<Result<Vec<_>, _>>()?;
    ok(&ops::list(&api.app, &caller, None, &states, page).await?)
}

fn state(word: &str) -> Result<RunState, Error> {
    RunState::ALL.iter().copied().find(|state| state.as_str() == word).ok_or_else(|| {
        let all: Vec<_> = RunState::ALL.iter().map(|state| state.as_str()).collect();
        Error::invalid("/state", format!("must be among {}", all.join(", ")))
    })
}

/// One run.
#[utoipa::path(
    get,
    path = "/runs/{id}",
    tag = "runs",
    params(("id" = RunId, Path)),
    security(("key" = ["runs:read"])),
    responses((status = 200, body = Run), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_run(State(api): State<Api>, By(caller): By, Path(id): Path<RunId>) -> Answer {
    ok(&ops::get(&api.app, &caller, id).await?)
}

/// Asks a run to stop after the chunk in hand. Nothing is lost: what is sealed goes first in the next run.
#[utoipa::path(
    post,
    path = "/runs/{id}/cancel",
    tag = "runs",
    params(("id" = RunId, Path)),
    security(("key" = ["runs:cancel"])),
    responses((status = 200, body = Run), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn cancel_run(State(api): State<Api>, By(caller): By, Path(id): Path<RunId>) -> Answer {
    ok(&ops::cancel(&api.app, &caller, id).await?)
}

/// Asks for a run in the place of one that failed or was cancelled.
#[utoipa::path(
    post,
    path = "/runs/{id}/retry",
    tag = "runs",
    params(("id" = RunId, Path)),
    security(("key" = ["syncs:run"])),
    responses(
        (status = 201, body = Run),
        (status = 200, body = Run),
        (status = "default", body = Problem, content_type = "application/problem+json")
    )
)]
async fn retry_run(State(api): State<Api>, By(caller): By, Path(id): Path<RunId>) -> Answer {
    requested(ops::retry(&api.app, &caller, id).await)
}

pub(super) fn requested(requested: freshet_core::error::Result<(Run, bool)>) -> Answer {
    let (run, new) = requested?;
    run_answer(&run, new)
}

/// A run's timeline: JSON, or server-sent events with `Accept: text/event-stream`.
///
/// A stream sends each line as the event `event` with its number as `id`, the run itself as the event `run` when it
/// changed, and ends when the run has ended.
#[utoipa::path(
    get,
    path = "/runs/{id}/events",
    tag = "runs",
    params(("id" = RunId, Path), EventsQuery),
    security(("key" = ["runs:read"])),
    responses(
        (status = 200, content((RunEvents = "application/json"), (String = "text/event-stream"))),
        (status = "default", body = Problem, content_type = "application/problem+json")
    )
)]
async fn list_run_events(
    State(api): State<Api>,
    By(caller): By,
    shown: Shown,
    Path(id): Path<RunId>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Answer {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if !header(header::ACCEPT.as_str()).is_some_and(|accept| accept.contains("text/event-stream")) {
        let data = ops::events(&api.app, &caller, id, query.after).await?;
        let last_seq = data.last().map_or(query.after, |event| event.seq);
        return ok(&RunEvents { data, last_seq });
    }
    let after = header("last-event-id").and_then(|id| id.parse().ok()).unwrap_or(query.after);
    ops::get(&api.app, &caller, id).await?;
    Ok(stream(api, shown, id, after))
}

fn stream(api: Api, shown: Shown, id: RunId, after: i64) -> Response {
    let lines = Lines { changes: api.app.events.subscribe(), api, shown, id, after, seen: None, first: true };
    let stream = Sse::new(lines.into_stream()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    ([("x-accel-buffering", "no")], stream).into_response()
}

/// A stream's state: what was sent, and what to wait for.
struct Lines {
    api: Api,
    shown: Shown,
    id: RunId,
    after: i64,
    seen: Option<String>,
    first: bool,
    changes: tokio::sync::broadcast::Receiver<freshet_core::events::Event>,
}

impl Lines {
    fn into_stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        let until = tokio::time::Instant::now() + STREAM_MAX;
        futures::stream::unfold(Some(self), move |lines| async move {
            let mut lines = lines?;
            let (events, last) = lines.next(until).await;
            Some((futures::stream::iter(events.into_iter().map(Ok)), (!last).then_some(lines)))
        })
        .flatten()
    }

    /// What is new, and whether that was all.
    async fn next(&mut self, until: tokio::time::Instant) -> (Vec<Event>, bool) {
        loop {
            if !std::mem::take(&mut self.first) && !self.changed(until).await {
                return (Vec::new(), true);
            }
            // Read by what the key may by now: one that was revoked ends the stream. So does any failure, and the client
            // connects again.
            let Ok((events, run)) = self.read().await else { return (Vec::new(), true) };
            let ended = run.state.is_final() && events.len() < 200;
            let mut sent: Vec<_> = events.iter().filter_map(line).collect();
            self.after = events.last().map_or(self.after, |event| event.seq);
            let body = serde_json::to_string(&run).unwrap_or_default();
            if self.seen.as_ref() != Some(&body) {
                sent.push(Event::default().event("run").data(&body));
                self.seen = Some(body);
            }
            if !sent.is_empty() || ended {
                return (sent, ended);
            }
        }
    }

    async fn read(&self) -> freshet_core::error::Result<(Vec<RunEvent>, Run)> {
        let caller = self.shown.again(&self.api).await?;
        let events = ops::events(&self.api.app, &caller, self.id, self.after).await?;
        Ok((events, ops::get(&self.api.app, &caller, self.id).await?))
    }

    /// Waits until the run may have changed; false when the stream is to end.
    async fn changed(&mut self, until: tokio::time::Instant) -> bool {
        let look = tokio::time::Instant::now() + LOOK;
        loop {
            tokio::select! {
                () = self.api.drain.cancelled() => return false,
                () = tokio::time::sleep_until(until) => return false,
                () = tokio::time::sleep_until(look) => return true,
                change = self.changes.recv() => match change {
                    Ok(event) if event.subject == Subject::Anything || event.id == self.id.uuid() => return true,
                    Ok(_) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => return true,
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return false,
                },
            }
        }
    }
}

fn line(event: &RunEvent) -> Option<Event> {
    let body = serde_json::to_string(event).ok()?;
    Some(Event::default().event("event").id(event.seq.to_string()).data(body))
}

/// A run's attempts, oldest first.
#[utoipa::path(
    get,
    path = "/runs/{id}/attempts",
    tag = "runs",
    params(("id" = RunId, Path)),
    security(("key" = ["runs:read"])),
    responses((status = 200, body = Attempts), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_run_attempts(State(api): State<Api>, By(caller): By, Path(id): Path<RunId>) -> Answer {
    ok(&Attempts { data: ops::attempts(&api.app, &caller, id).await? })
}

/// Where a run's records landed: first and last offset of each partition.
#[utoipa::path(
    get,
    path = "/runs/{id}/partitions",
    tag = "runs",
    params(("id" = RunId, Path)),
    security(("key" = ["runs:read"])),
    responses((status = 200, body = Partitions), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_run_partitions(State(api): State<Api>, By(caller): By, Path(id): Path<RunId>) -> Answer {
    ok(&Partitions { data: ops::partitions(&api.app, &caller, id).await? })
}

/// A run's dead letters by reason, most first, 200 at most.
#[utoipa::path(
    get,
    path = "/runs/{id}/dead-letters",
    tag = "runs",
    params(("id" = RunId, Path)),
    security(("key" = ["runs:read"])),
    responses((status = 200, body = DeadLetters), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_dead_letters(State(api): State<Api>, By(caller): By, Path(id): Path<RunId>) -> Answer {
    ok(&DeadLetters { data: ops::dead_letters(&api.app, &caller, id).await? })
}

/// What a run asked of its source: Snowflake's query ids, seconds of the warehouse, an estimate of credits.
#[utoipa::path(
    get,
    path = "/runs/{id}/queries",
    tag = "runs",
    params(("id" = RunId, Path)),
    security(("key" = ["runs:read"])),
    responses((status = 200, body = Queries), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_run_queries(State(api): State<Api>, By(caller): By, Path(id): Path<RunId>) -> Answer {
    let (total, data) = ops::queries(&api.app, &caller, id).await?;
    ok(&Queries { total, data })
}
