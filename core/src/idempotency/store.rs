//! The statements of kept answers.

use serde_json::Value;

use super::ops::Kept;
use crate::db::{TenantTx, failed};
use crate::error::Result;

#[derive(sqlx::FromRow)]
pub(crate) struct KeyRow {
    pub(crate) route: String,
    pub(crate) body_sha256: Vec<u8>,
    pub(crate) status: Option<i16>,
    pub(crate) headers: Option<Value>,
    pub(crate) body: Option<String>,
}

/// Answers older than a day, and requests whose server died with them, are forgotten.
pub(crate) async fn prune(tx: &mut TenantTx) -> Result<()> {
    sqlx::query(
        "delete from idempotency_key
         where workspace_id = $1
           and (created_at < now() - interval '1 day'
                or (status is null and created_at < now() - interval '2 minutes'))",
    )
    .bind(tx.workspace())
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot forget old answers"))
}

pub(crate) async fn insert(tx: &mut TenantTx, key: &str, route: &str, sha256: &[u8]) -> Result<bool> {
    sqlx::query(
        "insert into idempotency_key (workspace_id, key, route, body_sha256)
         values ($1, $2, $3, $4)
         on conflict (workspace_id, key) do nothing",
    )
    .bind(tx.workspace())
    .bind(key)
    .bind(route)
    .bind(sha256)
    .execute(tx.conn())
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(failed("cannot keep the request's key"))
}

pub(crate) async fn get(tx: &mut TenantTx, key: &str) -> Result<Option<KeyRow>> {
    sqlx::query_as(
        "select route, body_sha256, status, headers, body
         from idempotency_key
         where workspace_id = $1
           and key = $2",
    )
    .bind(tx.workspace())
    .bind(key)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot look for the request's key"))
}

pub(crate) async fn finish(tx: &mut TenantTx, key: &str, answer: &Kept) -> Result<()> {
    sqlx::query(
        "update idempotency_key
         set status = $3, headers = $4, body = $5
         where workspace_id = $1
           and key = $2",
    )
    .bind(tx.workspace())
    .bind(key)
    .bind(answer.status)
    .bind(&answer.headers)
    .bind(&answer.body)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot keep the answer"))
}

pub(crate) async fn delete(tx: &mut TenantTx, key: &str) -> Result<()> {
    sqlx::query("delete from idempotency_key where workspace_id = $1 and key = $2")
        .bind(tx.workspace())
        .bind(key)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot forget the request's key"))
}
