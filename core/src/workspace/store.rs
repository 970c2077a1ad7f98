//! The workspace's statements.

use super::Workspace;
use crate::db::{Db, TenantTx, failed};
use crate::error::Result;
use crate::id::WorkspaceId;

pub(crate) async fn insert(tx: &mut TenantTx, slug: &str, name: &str) -> Result<Workspace> {
    sqlx::query_as(
        "insert into workspace (id, slug, name)
         values ($1, $2, $3)
         returning id, slug, name, runs_max, created_at",
    )
    .bind(tx.workspace())
    .bind(slug)
    .bind(name)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot make the workspace"))
}

pub(crate) async fn find(db: &Db, slug: &str) -> Result<Option<WorkspaceId>> {
    sqlx::query_scalar("select find_workspace($1)")
        .bind(slug)
        .fetch_one(db.dispatcher())
        .await
        .map_err(failed("cannot look for the workspace"))
}

pub(crate) async fn get(tx: &mut TenantTx) -> Result<Workspace> {
    sqlx::query_as("select id, slug, name, runs_max, created_at from workspace where workspace_id = $1")
        .bind(tx.workspace())
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot read the workspace"))
}
