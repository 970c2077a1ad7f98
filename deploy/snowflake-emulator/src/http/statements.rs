//! `/api/v2/statements`: submit, poll, partitions, cancel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{answers, bindings};
use crate::Emulator;
use crate::auth::{self, User};
use crate::faults::{Call, CutMoment, Fault, Moment};
use crate::results::Cut;
use crate::sql::error::SqlError;
use crate::sql::names::Context;
use crate::statements::{self, Request, Start, State, Submitted};

/// The query part of a submit.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubmitQuery {
    request_id: Option<Uuid>,
    #[serde(default, rename = "async")]
    asynchronous: Option<bool>,
    nullable: Option<bool>,
    retry: Option<bool>,
}

/// The body of a submit.
#[derive(Debug, Default, Deserialize)]
struct Body0 {
    statement: String,
    timeout: Option<i64>,
    database: Option<String>,
    schema: Option<String>,
    warehouse: Option<String>,
    role: Option<String>,
    #[serde(default)]
    bindings: BTreeMap<String, bindings::Written>,
    #[serde(default)]
    parameters: BTreeMap<String, Value>,
}

/// The only parameters that the SQL API takes.
const PARAMETERS: &[&str] = &[
    "binary_output_format",
    "client_result_chunk_size",
    "date_output_format",
    "multi_statement_count",
    "query_tag",
    "rows_per_resultset",
    "time_output_format",
    "timestamp_output_format",
    "timestamp_ltz_output_format",
    "timestamp_ntz_output_format",
    "timestamp_tz_output_format",
    "timezone",
    "use_cached_result",
];

/// `POST /api/v2/statements`
pub async fn submit(
    Shared(emulator): Shared<Arc<Emulator>>,
    Query(query): Query<SubmitQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = String::from_utf8_lossy(&body);
    let struck = emulator.faults.draw(Call::Submit, &text);
    if let Some(early) = before(&struck).await {
        return early;
    }
    let user = match caller(&emulator, &headers, &struck).await {
        Ok(user) => user,
        Err(refused) => return *refused,
    };
    if let Some(refused) = check_headers(&headers, true) {
        return refused;
    }
    let Ok(read) = serde_json::from_slice::<Body0>(&body) else { return answers::bad_payload() };
    let request_id = query.request_id.unwrap_or_else(Uuid::new_v4);
    if query.retry == Some(true)
        && let Some(earlier) = emulator.statements.of_request(request_id, emulator.clock.now_ms())
    {
        return after(&struck, answer_in(&emulator, &earlier, &query, &struck).await);
    }
    let request = match request(read, request_id, &query, &struck) {
        Ok(request) => request,
        Err(error) => return answers::sql_failure(Uuid::now_v7(), emulator.clock.now_ms(), &error),
    };
    let submitted = statements::submit(&emulator, user, request, start(&struck));
    if struck.iter().any(|fault| matches!(fault, Fault::Zombie { .. })) {
        return answers::failure(504, "390504", "Gateway timeout.");
    }
    after(&struck, answer_in(&emulator, &submitted, &query, &struck).await)
}

/// Waits as long as a sync call does, then answers.
async fn answer_in(emulator: &Emulator, submitted: &Arc<Submitted>, query: &SubmitQuery, struck: &[Fault]) -> Response {
    let forced = struck.iter().any(|fault| matches!(fault, Fault::Accepted { .. }));
    if query.asynchronous == Some(true) || forced {
        return answers::running(submitted);
    }
    let state = submitted.wait(emulator.sync_window).await;
    answer(submitted, &state, struck)
}

fn answer(submitted: &Submitted, state: &State, struck: &[Fault]) -> Response {
    for fault in struck {
        if let Fault::Status { status, with_handle: true, .. } = fault {
            let (code, message) = status_words(*status);
            return answers::query_status(*status, code, message, submitted);
        }
    }
    match state {
        State::Running => answers::running(submitted),
        State::Done(result) => {
            let incomplete = struck.contains(&Fault::Incomplete);
            answers::result_set(submitted, result, if incomplete { "391908" } else { "090001" })
        }
        State::Failed(error) => answers::sql_failure(submitted.handle, submitted.created_ms, error),
        State::TimedOut => answers::query_status(
            408,
            "000630",
            "Statement reached its statement or warehouse timeout and was canceled.",
            submitted,
        ),
    }
}

fn request(read: Body0, request_id: Uuid, query: &SubmitQuery, struck: &[Fault]) -> Result<Request, SqlError> {
    let parameters: BTreeMap<String, Value> =
        read.parameters.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
    if let Some(unknown) = parameters.keys().find(|name| !PARAMETERS.contains(&name.as_str())) {
        return Err(SqlError::compilation(
            "391911",
            "22023",
            format!("The following parameter is not supported: {unknown}"),
        ));
    }
    if let Some(format) =
        parameters.keys().find(|name| name.ends_with("_output_format") || *name == "rows_per_resultset")
    {
        return Err(SqlError::unsupported(format!("parameter {format}")));
    }
    let number =
        |name: &str| parameters.get(name).and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
    let count = number("multi_statement_count").unwrap_or(1) as usize;
    let rows_max = struck.iter().find_map(|fault| match fault {
        Fault::TinyPartitions { rows } => Some((*rows).max(1)),
        _ => None,
    });
    Ok(Request {
        text: read.statement,
        request_id,
        count: (count > 0).then_some(count),
        timeout: read.timeout.filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds as u64)),
        context: Context { database: read.database, schema: read.schema },
        warehouse: read.warehouse,
        role: read.role,
        zone: parameters.get("timezone").and_then(Value::as_str).map(str::to_owned),
        bindings: bindings::read(&read.bindings)?,
        cut: Cut {
            rows_max,
            bytes_max: number("client_result_chunk_size").map(|mebibytes| (mebibytes.max(1) as usize) << 20),
            null_as_text: query.nullable == Some(false),
        },
    })
}

fn start(struck: &[Fault]) -> Start {
    let mut start = Start::default();
    for fault in struck {
        match fault {
            Fault::Zombie { delay_ms: None } => start.held = true,
            Fault::Zombie { delay_ms: Some(delay_ms) } | Fault::Accepted { delay_ms } => {
                start.delay = Duration::from_millis(*delay_ms)
            }
            Fault::Fail { code, sql_state, message } => start.failure = Some(SqlError::new(code, sql_state, message)),
            _ => {}
        }
    }
    start
}

/// The query part of a poll.
#[derive(Debug, Deserialize)]
pub struct PollQuery {
    partition: Option<usize>,
}

/// `GET /api/v2/statements/{handle}`
pub async fn poll(
    Shared(emulator): Shared<Arc<Emulator>>,
    Path(handle): Path<String>,
    Query(query): Query<PollQuery>,
    headers: HeaderMap,
) -> Response {
    let found = find(&emulator, &handle);
    let text = found.as_ref().map_or("", |found| found.text.as_str());
    let call = if query.partition.unwrap_or(0) > 0 { Call::Partition } else { Call::Poll };
    let struck = emulator.faults.draw(call, text);
    if let Some(early) = before(&struck).await {
        return early;
    }
    let user = match caller(&emulator, &headers, &struck).await {
        Ok(user) => user,
        Err(refused) => return *refused,
    };
    if let Some(refused) = check_headers(&headers, false) {
        return refused;
    }
    let found = found.filter(|found| found.user == user.name && !struck.contains(&Fault::ResultExpired));
    let Some(found) = found else { return answers::not_found(&handle) };
    let state = found.now();
    let response = match (&state, query.partition) {
        (State::Done(result), Some(at)) if at > 0 => {
            let Some(partition) = result.partitions.get(at) else {
                return answers::body(
                    422,
                    &serde_json::json!({"code": "000711", "sqlState": "02000", "message": format!("Partition {at} of statement {handle} not found"), "statementHandle": handle}),
                );
            };
            emulator.accounting.fetched_partition();
            let bytes = damaged(partition.body.clone(), &struck);
            answers::partition(&found, result, at, bytes)
        }
        _ => answer(&found, &state, &struck),
    };
    after(&struck, response)
}

/// A partition's bytes after the faults that spoil them.
fn damaged(bytes: Bytes, struck: &[Fault]) -> Bytes {
    if struck.contains(&Fault::CorruptGzip) {
        let mut spoiled = bytes.to_vec();
        let middle = spoiled.len() / 2;
        spoiled.truncate(middle);
        spoiled.extend_from_slice(b"not gzip");
        return spoiled.into();
    }
    if struck.contains(&Fault::ShortPartition) {
        return crate::results::without_last_row(&bytes);
    }
    bytes
}

/// `POST /api/v2/statements/{handle}/cancel`
pub async fn cancel(
    Shared(emulator): Shared<Arc<Emulator>>,
    Path(handle): Path<String>,
    headers: HeaderMap,
) -> Response {
    let found = find(&emulator, &handle);
    let struck = emulator.faults.draw(Call::Cancel, found.as_ref().map_or("", |found| found.text.as_str()));
    if let Some(early) = before(&struck).await {
        return early;
    }
    let user = match caller(&emulator, &headers, &struck).await {
        Ok(user) => user,
        Err(refused) => return *refused,
    };
    let running = found.filter(|found| found.user == user.name && matches!(found.now(), State::Running));
    let Some(found) = running else { return answers::not_found(&handle) };
    found.cancel();
    found.wait(emulator.sync_window).await;
    after(&struck, answers::query_status(200, "000604", "SQL execution canceled", &found))
}

fn find(emulator: &Emulator, handle: &str) -> Option<Arc<Submitted>> {
    emulator.statements.get(handle.parse().ok()?, emulator.clock.now_ms())
}

async fn caller(emulator: &Emulator, headers: &HeaderMap, struck: &[Fault]) -> Result<User, Box<Response>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let token = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let kind = text("x-snowflake-authorization-token-type");
    if struck.contains(&Fault::TokenExpired) {
        let jwt = kind == Some("KEYPAIR_JWT");
        let (code, message) =
            if jwt { ("390144", "JWT token is invalid.") } else { ("390318", "OAuth access token expired.") };
        return Err(Box::new(answers::failure(401, code, message)));
    }
    auth::caller(&emulator.pool, &emulator.account, token, kind, emulator.clock.now_ms())
        .await
        .map_err(|refused| Box::new(answers::refused(&refused)))
}

/// The headers that Snowflake asks for.
fn check_headers(headers: &HeaderMap, has_body: bool) -> Option<Response> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    match text(header::ACCEPT) {
        Some(accept) if accept.contains("application/json") || accept.contains("*/*") => {}
        accept => {
            let given = accept.unwrap_or("null");
            return Some(answers::failure(400, "391902", &format!("Unsupported Accept header {given} is specified.")));
        }
    }
    if text(header::USER_AGENT).is_none_or(str::is_empty) {
        return Some(answers::failure(400, "391903", "User-Agent header is required."));
    }
    let json = text(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
    (has_body && !json).then(|| axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response())
}

/// The faults that strike before anything is done.
async fn before(struck: &[Fault]) -> Option<Response> {
    for fault in struck {
        match fault {
            Fault::Slow { delay_ms } => tokio::time::sleep(Duration::from_millis(*delay_ms)).await,
            Fault::Status { status, moment: Moment::Before, with_handle: false } => {
                let (code, message) = status_words(*status);
                return Some(answers::failure(*status, code, message));
            }
            Fault::Cut { moment: CutMoment::Before } => return Some(cut(Bytes::new())),
            _ => {}
        }
    }
    None
}

/// The faults that strike when all is done.
fn after(struck: &[Fault], response: Response) -> Response {
    for fault in struck {
        match fault {
            Fault::Status { status, moment: Moment::After, with_handle: false } => {
                let (code, message) = status_words(*status);
                return answers::failure(*status, code, message);
            }
            Fault::Cut { moment: CutMoment::After } => return cut(Bytes::new()),
            Fault::Cut { moment: CutMoment::Body } => return cut_in_body(response),
            _ => {}
        }
    }
    response
}

fn status_words(status: u16) -> (&'static str, &'static str) {
    match status {
        408 => ("000630", "Statement reached its statement or warehouse timeout and was canceled."),
        429 => ("390505", "Too many requests."),
        500 => ("390500", "Internal server error."),
        502 => ("390502", "Bad gateway."),
        503 => ("390503", "Service unavailable."),
        504 => ("390504", "Gateway timeout."),
        _ => ("390100", "Failure by a fault rule."),
    }
}

/// An answer whose body fails: the server closes the connection.
fn cut(first: Bytes) -> Response {
    let parts = futures::stream::iter([Ok(first), Err(std::io::Error::other("connection cut by a fault rule"))]);
    Response::new(Body::from_stream(parts))
}

fn cut_in_body(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    let stream = async_body_half(body);
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from_stream(stream))
}

/// The first half of a body, then a failure.
fn async_body_half(body: Body) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    futures::stream::once(async move {
        let whole = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        let half = whole.slice(..whole.len() / 2);
        // A moment for the half to leave before the connection goes.
        futures::stream::iter([Ok(half), Err(std::io::Error::other("connection cut by a fault rule"))])
    })
    .flatten()
}
