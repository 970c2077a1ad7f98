//! Bodies of the SQL API: ResultSet, QueryStatus, QueryFailureStatus.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::auth::Refused;
use crate::results::ResultSet;
use crate::sql::error::SqlError;
use crate::statements::Submitted;

/// An answer with a JSON body.
pub fn body(status: u16, value: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// A status with Snowflake's code and message.
pub fn failure(status: u16, code: &str, message: &str) -> Response {
    body(status, &json!({"code": code, "message": message}))
}

/// 401.
pub fn refused(refused: &Refused) -> Response {
    failure(401, refused.code, refused.message)
}

/// 400: the body is not what it should be.
pub fn bad_payload() -> Response {
    failure(400, "390142", "Incoming request does not contain a valid payload.")
}

/// 422 with the statement's error.
pub fn sql_failure(handle: Uuid, created_ms: i64, error: &SqlError) -> Response {
    body(
        422,
        &json!({
            "code": error.code,
            "message": error.message,
            "sqlState": error.state,
            "statementHandle": handle,
            "createdOn": created_ms,
            "statementStatusUrl": status_url(handle, None),
        }),
    )
}

/// 422: no statement of that handle, or its result has expired.
pub fn not_found(handle: &str) -> Response {
    body(
        422,
        &json!({"code": "000709", "sqlState": "02000", "message": format!("Statement {handle} not found"), "statementHandle": handle}),
    )
}

/// 202 and its like: the statement is known by its handle.
pub fn query_status(status: u16, code: &str, message: &str, submitted: &Submitted) -> Response {
    body(
        status,
        &json!({
            "code": code,
            "message": message,
            "sqlState": "00000",
            "statementHandle": submitted.handle,
            "createdOn": submitted.created_ms,
            "statementStatusUrl": status_url(submitted.handle, Some(submitted.request_id)),
        }),
    )
}

/// 202: still running.
pub fn running(submitted: &Submitted) -> Response {
    let message =
        "Asynchronous execution in progress. Use provided query id to perform query monitoring and management.";
    query_status(202, "333334", message, submitted)
}

/// Relative, as Snowflake's is.
fn status_url(handle: Uuid, request_id: Option<Uuid>) -> String {
    match request_id {
        Some(id) => format!("/api/v2/statements/{handle}?requestId={id}"),
        None => format!("/api/v2/statements/{handle}"),
    }
}

/// 200 with metadata and partition 0.
pub fn result_set(submitted: &Submitted, result: &ResultSet, code: &str) -> Response {
    let mut head = json!({
        "resultSetMetaData": {
            "numRows": result.row_count,
            "format": "jsonv2",
            "partitionInfo": partition_info(result),
            "rowType": row_type(result),
        },
        "code": code,
        "statementStatusUrl": status_url(submitted.handle, Some(submitted.request_id)),
        "requestId": submitted.request_id,
        "sqlState": "00000",
        "statementHandle": submitted.handle,
        "message": "Statement executed successfully.",
        "createdOn": submitted.created_ms,
    });
    if code == "391908" {
        head["message"] = json!("The result set is too large; the data is incomplete.");
    }
    if let Some(stats) = &result.stats {
        head["stats"] = json!(stats);
    }
    let children = submitted.child_handles();
    if !children.is_empty() {
        head["statementHandles"] = json!(children);
    }
    let mut text = head.to_string();
    text.pop();
    let mut bytes = Vec::from(text);
    bytes.push(b',');
    // `{"data":[…]}`: its members go in beside the metadata.
    bytes.extend_from_slice(&result.partitions[0].body[1..]);
    let mut response = ([(header::CONTENT_TYPE, "application/json")], bytes).into_response();
    add_link(&mut response, submitted, result, 0);
    response
}

fn partition_info(result: &ResultSet) -> Vec<Value> {
    result
        .partitions
        .iter()
        .enumerate()
        .map(|(at, partition)| {
            let mut info = json!({"rowCount": partition.row_count, "uncompressedSize": partition.uncompressed_size});
            if at > 0 {
                info["compressedSize"] = json!(partition.body.len());
            }
            info
        })
        .collect()
}

fn row_type(result: &ResultSet) -> Vec<Value> {
    result
        .columns
        .iter()
        .map(|column| {
            let (precision, scale) = column.ty.wire_precision();
            let (length, byte_length) = column.ty.wire_length();
            json!({
                "name": column.name,
                "database": "",
                "schema": "",
                "table": "",
                "byteLength": byte_length,
                "length": length,
                "type": column.ty.wire_name(),
                "nullable": column.nullable,
                "precision": precision,
                "scale": scale,
                "collation": null,
            })
        })
        .collect()
}

/// 200 with a later partition: gzip, `data` alone.
pub fn partition(submitted: &Submitted, result: &ResultSet, at: usize, bytes: Bytes) -> Response {
    let mut response =
        ([(header::CONTENT_TYPE, "application/json"), (header::CONTENT_ENCODING, "gzip")], Body::from(bytes))
            .into_response();
    add_link(&mut response, submitted, result, at);
    response
}

fn add_link(response: &mut Response, submitted: &Submitted, result: &ResultSet, at: usize) {
    let last = result.partitions.len() - 1;
    let link = |rel: &str, partition: usize| {
        format!(
            "</api/v2/statements/{}?requestId={}&partition={partition}>; rel=\"{rel}\"",
            submitted.handle, submitted.request_id
        )
    };
    let mut links = vec![link("first", 0)];
    if at < last {
        links.push(link("next", at + 1));
    }
    if at > 0 {
        links.push(link("prev", at - 1));
    }
    links.push(link("last", last));
    if let Ok(value) = HeaderValue::from_str(&links.join(", ")) {
        response.headers_mut().insert(header::LINK, value);
    }
}
