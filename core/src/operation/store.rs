//! The operation's statements.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::Row;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Operation, OperationClaim, Question};
use crate::db::{Db, TenantTx, failed};
use crate::error::{Code, Result};
use crate::id::OperationId;
use crate::run::Failure;

#[derive(sqlx::FromRow)]
struct OperationRow {
    id: OperationId,
    input: Json<Question>,
    state: String,
    result: Option<Value>,
    error_code: Option<String>,
    error_message: Option<String>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

pub(crate) async fn insert(
    tx: &mut TenantTx,
    id: OperationId,
    question: &Question,
    requested_by: Option<Uuid>,
) -> Result<()> {
    sqlx::query("insert into operation (workspace_id, id, kind, input, requested_by) values ($1, $2, $3, $4, $5)")
        .bind(tx.workspace())
        .bind(id)
        .bind(question.kind())
        .bind(Json(question))
        .bind(requested_by)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot ask the operation"))
}

/// Cancels every operation of the workspace that has no answer.
pub(crate) async fn cancel_all(tx: &mut TenantTx) -> Result<()> {
    sqlx::query(
        "update operation
         set cancel_requested_at = now(),
             state = case when state = 'pending' then 'cancelled' else state end,
             finished_at = case when state = 'pending' then now() end
         where workspace_id = $1
           and state in ('pending', 'running')",
    )
    .bind(tx.workspace())
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot cancel the workspace's operations"))
}

pub(crate) async fn get(tx: &mut TenantTx, id: OperationId) -> Result<Option<Operation>> {
    let row: Option<OperationRow> = sqlx::query_as(
        "select id, input, state, result, error_code, error_message, created_at, finished_at
         from operation
         where workspace_id = $1
           and id = $2
           and expires_at > now()",
    )
    .bind(tx.workspace())
    .bind(id)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read the operation"))?;
    Ok(row.map(|row| Operation {
        id: row.id,
        question: row.input.0,
        state: row.state,
        result: row.result,
        error: row.error_code.map(|code| Failure {
            action: Code::parse(&code).map(|known| known.action().to_owned()),
            message: row.error_message.unwrap_or_default(),
            code,
        }),
        created_at: row.created_at,
        finished_at: row.finished_at,
    }))
}

pub(crate) async fn answer(tx: &mut TenantTx, claim: &OperationClaim, answer: &Result<Value>) -> Result<bool> {
    let (state, result, error) = match answer {
        Ok(result) => ("succeeded", Some(result), None),
        Err(error) if error.code == Code::Cancelled => ("cancelled", None, None),
        Err(error) => ("failed", None, Some(error)),
    };
    sqlx::query(
        "update operation
         set state = $4, result = $5, error_code = $6, error_message = $7, finished_at = now(), lease_until = null
         where workspace_id = $1
           and id = $2
           and epoch = $3
           and state = 'running'",
    )
    .bind(claim.workspace)
    .bind(claim.id)
    .bind(claim.epoch)
    .bind(state)
    .bind(result)
    .bind(error.map(|error| error.code.as_str()))
    .bind(error.map(|error| error.message.as_str()))
    .execute(tx.conn())
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(failed("cannot write the answer"))
}

pub(crate) async fn claim(db: &Db, slots: i32, worker: &str, lease_s: f64) -> Result<Vec<OperationClaim>> {
    let rows = sqlx::query("select workspace_id, id, epoch, input from claim_operations($1, $2, $3)")
        .bind(slots)
        .bind(worker)
        .bind(lease_s)
        .fetch_all(db.dispatcher())
        .await
        .map_err(failed("cannot claim operations"))?;
    rows.iter()
        .map(|row| {
            Ok(OperationClaim {
                workspace: row.try_get("workspace_id")?,
                id: row.try_get("id")?,
                epoch: row.try_get("epoch")?,
                question: row.try_get::<Json<Question>, _>("input")?.0,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(failed("cannot read claimed operations"))
}

pub(crate) async fn extend(db: &Db, ids: &[Uuid], epochs: &[i64], lease_s: f64) -> Result<Vec<(Uuid, bool)>> {
    sqlx::query_as("select id, cancel from extend_operations($1, $2, $3)")
        .bind(ids)
        .bind(epochs)
        .bind(lease_s)
        .fetch_all(db.dispatcher())
        .await
        .map_err(failed("cannot extend operations"))
}

pub(crate) async fn reap(db: &Db, attempts_max: i32) -> Result<()> {
    sqlx::query("select reap_operations($1)")
        .bind(attempts_max)
        .execute(db.dispatcher())
        .await
        .map(|_| ())
        .map_err(failed("cannot hand on lost operations"))
}

pub(crate) async fn give_back(db: &Db, ids: &[Uuid], epochs: &[i64]) -> Result<()> {
    sqlx::query("select give_back_operations($1, $2)")
        .bind(ids)
        .bind(epochs)
        .execute(db.dispatcher())
        .await
        .map(|_| ())
        .map_err(failed("cannot give operations back"))
}
