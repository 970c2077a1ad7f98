//! The workspace's statements.

use sqlx::AssertSqlSafe;

use super::{Workspace, WorkspacePatch, WorkspaceState};
use crate::db::{Db, OrganizationTx, TenantTx, failed};
use crate::error::Result;
use crate::id::WorkspaceId;
use crate::page::PageRequest;

const WORKSPACE: &str = "id, organization_id, slug, name, state, delete_after, runs_max, run_event_days, run_days,
                         row_version, created_at";

pub(crate) async fn insert(tx: &mut OrganizationTx, id: WorkspaceId, slug: &str, name: &str) -> Result<Workspace> {
    sqlx::query_as(AssertSqlSafe(format!(
        "insert into workspace (organization_id, id, slug, name)
         values ($1, $2, $3, $4)
         returning {WORKSPACE}"
    )))
    .bind(tx.organization())
    .bind(id)
    .bind(slug)
    .bind(name)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot make the workspace"))
}

pub(crate) async fn list(
    tx: &mut OrganizationTx,
    only: Option<WorkspaceId>,
    page: PageRequest,
) -> Result<Vec<Workspace>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {WORKSPACE}
         from workspace
         where organization_id = $1
           and ($2::uuid is null or id < $2)
           and ($4::uuid is null or id = $4)
         order by id desc
         limit $3 + 1"
    )))
    .bind(tx.organization())
    .bind(page.before)
    .bind(page.limit)
    .bind(only)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the workspaces"))
}

pub(crate) async fn find(db: &Db, slug: &str, state: WorkspaceState) -> Result<Vec<WorkspaceId>> {
    sqlx::query_scalar("select id from find_workspaces($1, $2) as id")
        .bind(slug)
        .bind(state)
        .fetch_all(db.dispatcher())
        .await
        .map_err(failed("cannot look for the workspace"))
}

pub(crate) async fn get(tx: &mut TenantTx) -> Result<Workspace> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {WORKSPACE}
         from workspace
         where workspace_id = $1"
    )))
    .bind(tx.workspace())
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot read the workspace"))
}

/// A workspace of the organization, if it is one.
pub(crate) async fn get_of(tx: &mut OrganizationTx, id: WorkspaceId) -> Result<Option<Workspace>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {WORKSPACE}
         from workspace
         where organization_id = $1
           and id = $2"
    )))
    .bind(tx.organization())
    .bind(id)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read the workspace"))
}

pub(crate) async fn update(tx: &mut TenantTx, version: i64, patch: &WorkspacePatch) -> Result<Option<Workspace>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "update workspace
         set name = coalesce($3, name),
             run_event_days = case when $4 then $5 else run_event_days end,
             run_days = case when $6 then $7 else run_days end,
             row_version = row_version + 1
         where workspace_id = $1
           and row_version = $2
           and state = 'active'
         returning {WORKSPACE}"
    )))
    .bind(tx.workspace())
    .bind(version)
    .bind(&patch.name)
    .bind(patch.run_event_days.is_some())
    .bind(patch.run_event_days.flatten())
    .bind(patch.run_days.is_some())
    .bind(patch.run_days.flatten())
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot change the workspace"))
}
