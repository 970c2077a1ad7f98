//! The statements of deletion. Rows go by functions that delete nothing of a workspace that is not being erased: see
//! `migrations/0037_deletion.sql`.

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::access::Actor;
use crate::db::{Db, OrganizationTx, TenantTx, failed};
use crate::error::Result;
use crate::id::{ConnectionId, DestinationId, OrganizationId, WorkspaceId};

/// What a workspace's row knew at its end.
#[derive(sqlx::FromRow)]
pub(crate) struct Gone {
    pub(crate) asked_at: Option<DateTime<Utc>>,
    pub(crate) asked_kind: Option<String>,
    pub(crate) asked_by: Option<Uuid>,
    pub(crate) erased: Value,
}

/// False when it is deleted already.
pub(crate) async fn begin(
    tx: &mut TenantTx,
    actor: Actor,
    asked_at: DateTime<Utc>,
    delete_after: DateTime<Utc>,
) -> Result<bool> {
    sqlx::query(
        "update workspace
         set state = 'deleting', delete_after = $3, delete_asked_at = $2, delete_asked_kind = $4, delete_asked_by = $5,
             row_version = row_version + 1
         where workspace_id = $1
           and state = 'active'",
    )
    .bind(tx.workspace())
    .bind(asked_at)
    .bind(delete_after)
    .bind(actor.kind())
    .bind(actor.id())
    .execute(tx.conn())
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(failed("cannot delete the workspace"))
}

/// False when its secrets are destroyed.
pub(crate) async fn restore(tx: &mut TenantTx) -> Result<bool> {
    sqlx::query(
        "update workspace
         set state = 'active', delete_after = null, delete_asked_at = null, delete_asked_kind = null,
             delete_asked_by = null, row_version = row_version + 1
         where workspace_id = $1
           and state = 'deleting'",
    )
    .bind(tx.workspace())
    .execute(tx.conn())
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(failed("cannot restore the workspace"))
}

pub(crate) async fn due(db: &Db, at: DateTime<Utc>, rows_max: i32) -> Result<Vec<(OrganizationId, WorkspaceId)>> {
    sqlx::query_as("select organization_id, id from workspaces_to_erase($1, $2)")
        .bind(at)
        .bind(rows_max)
        .fetch_all(db.dispatcher())
        .await
        .map_err(failed("cannot look for workspaces to erase"))
}

/// The step after which nothing can be restored: how many secrets went; none when it was taken already, or is not due.
pub(crate) async fn destroy_secrets(tx: &mut TenantTx, at: DateTime<Utc>) -> Result<Option<i64>> {
    let taken = sqlx::query(
        "update workspace
         set state = 'erasing', row_version = row_version + 1
         where workspace_id = $1
           and state = 'deleting'
           and delete_after <= $2",
    )
    .bind(tx.workspace())
    .bind(at)
    .execute(tx.conn())
    .await
    .map_err(failed("cannot begin to erase the workspace"))?;
    if taken.rows_affected() == 0 {
        return Ok(None);
    }
    let gone = sqlx::query("delete from secret where workspace_id = $1")
        .bind(tx.workspace())
        .execute(tx.conn())
        .await
        .map_err(failed("cannot destroy the workspace's secrets"))?;
    let gone = i64::try_from(gone.rows_affected()).unwrap_or(i64::MAX);
    sqlx::query("update workspace set erased = jsonb_build_object('secret', $2::bigint) where workspace_id = $1")
        .bind(tx.workspace())
        .bind(gone)
        .execute(tx.conn())
        .await
        .map_err(failed("cannot count the workspace's secrets"))?;
    Ok(Some(gone))
}

/// Deletes some rows; false when there are none left.
pub(crate) async fn erase_rows(tx: &mut TenantTx, rows_max: i32) -> Result<bool> {
    sqlx::query_scalar("select erase_rows($1)")
        .bind(rows_max)
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot erase rows of the workspace"))
}

pub(crate) async fn erase_workspace(tx: &mut OrganizationTx, id: WorkspaceId) -> Result<Option<Gone>> {
    sqlx::query_as("select asked_at, asked_kind, asked_by, erased from erase_workspace($1, $2)")
        .bind(tx.organization())
        .bind(id)
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("cannot erase the workspace"))
}

/// The topics that syncs were ever sent to, dead letters' among them, by destination.
pub(crate) async fn topics(tx: &mut TenantTx) -> Result<Vec<(DestinationId, Vec<String>)>> {
    sqlx::query_as(
        "select s.destination_id, (array_agg(distinct t.name order by t.name))[:1000]
         from sync as s
         join sync_version as v on v.workspace_id = s.workspace_id and v.sync_id = s.id
         cross join lateral (values (v.topic),
                                    (coalesce(v.config #>> '{topic,dead_letter}', v.topic || '.dlq'))) as t (name)
         where s.workspace_id = $1
           and exists (select 1 from run as r where r.workspace_id = s.workspace_id and r.sync_id = s.id)
         group by s.destination_id
         order by s.destination_id",
    )
    .bind(tx.workspace())
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the topics"))
}

pub(crate) async fn destinations(tx: &mut TenantTx) -> Result<Vec<(DestinationId, Value)>> {
    sqlx::query_as(
        "select d.id, d.settings
         from destination as d
         where d.workspace_id = $1
           and exists (select 1 from run as r
                       join sync as s on s.workspace_id = r.workspace_id and s.id = r.sync_id
                       where s.workspace_id = d.workspace_id and s.destination_id = d.id)
         order by d.id",
    )
    .bind(tx.workspace())
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the clusters"))
}

pub(crate) async fn connections(tx: &mut TenantTx) -> Result<Vec<(ConnectionId, String, Value)>> {
    sqlx::query_as(
        "select c.id, c.kind, c.settings
         from connection as c
         where c.workspace_id = $1
           and exists (select 1 from sync_version as v
                       join sync as s on s.workspace_id = v.workspace_id and s.id = v.sync_id
                       join model as m on m.workspace_id = s.workspace_id and m.id = s.model_id
                       where m.workspace_id = c.workspace_id
                         and m.connection_id = c.id
                         and (c.kind = 'snowflake' or v.config #>> '{mode,kind}' = 'diff'))
         order by c.id",
    )
    .bind(tx.workspace())
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the sources"))
}
