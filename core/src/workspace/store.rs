//! The workspace's statements.

use super::Workspace;
use crate::db::{Db, OrganizationTx, TenantTx, failed};
use crate::error::Result;
use crate::id::WorkspaceId;
use crate::page::PageRequest;

pub(crate) async fn insert(tx: &mut OrganizationTx, id: WorkspaceId, slug: &str, name: &str) -> Result<Workspace> {
    sqlx::query_as(
        "insert into workspace (organization_id, id, slug, name)
         values ($1, $2, $3, $4)
         returning id, organization_id, slug, name, runs_max, created_at",
    )
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
    sqlx::query_as(
        "select id, organization_id, slug, name, runs_max, created_at
         from workspace
         where organization_id = $1
           and ($2::uuid is null or id < $2)
           and ($4::uuid is null or id = $4)
         order by id desc
         limit $3 + 1",
    )
    .bind(tx.organization())
    .bind(page.before)
    .bind(page.limit)
    .bind(only)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the workspaces"))
}

pub(crate) async fn find(db: &Db, slug: &str) -> Result<Vec<WorkspaceId>> {
    sqlx::query_scalar("select id from find_workspaces($1) as id")
        .bind(slug)
        .fetch_all(db.dispatcher())
        .await
        .map_err(failed("cannot look for the workspace"))
}

pub(crate) async fn get(tx: &mut TenantTx) -> Result<Workspace> {
    sqlx::query_as(
        "select id, organization_id, slug, name, runs_max, created_at
         from workspace
         where workspace_id = $1",
    )
    .bind(tx.workspace())
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot read the workspace"))
}
