//! The organization's statements.

use sqlx::AssertSqlSafe;

use super::{Organization, OrganizationPatch};
use crate::access::Role;
use crate::db::{Db, OrganizationTx, failed};
use crate::error::Result;
use crate::id::{MembershipId, OrganizationId, UserId, WorkspaceId};

const ORGANIZATION: &str = "id, slug, name, session_idle_hours, session_hours, audit_days, row_version,
                            created_at";

pub(crate) async fn insert(tx: &mut OrganizationTx, slug: &str, name: &str) -> Result<Organization> {
    let statement = format!("insert into organization (id, slug, name) values ($1, $2, $3) returning {ORGANIZATION}");
    sqlx::query_as(AssertSqlSafe(statement))
        .bind(tx.organization())
        .bind(slug)
        .bind(name)
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot make the organization"))
}

pub(crate) async fn insert_member(
    tx: &mut OrganizationTx,
    id: MembershipId,
    user: UserId,
    workspace: Option<WorkspaceId>,
    role: Role,
) -> Result<()> {
    sqlx::query("insert into membership (organization_id, id, user_id, workspace_id, role) values ($1, $2, $3, $4, $5)")
        .bind(tx.organization())
        .bind(id)
        .bind(user)
        .bind(workspace)
        .bind(role.as_str())
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot store the membership"))
}

pub(crate) async fn find(db: &Db, slug: &str) -> Result<Option<OrganizationId>> {
    sqlx::query_scalar("select find_organization($1)")
        .bind(slug)
        .fetch_one(db.dispatcher())
        .await
        .map_err(failed("cannot look for the organization"))
}

pub(crate) async fn get(tx: &mut OrganizationTx) -> Result<Organization> {
    sqlx::query_as(AssertSqlSafe(format!("select {ORGANIZATION} from organization where id = $1")))
        .bind(tx.organization())
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot read the organization"))
}

/// Holds the organization until the transaction ends: who counts its owners counts alone.
pub(crate) async fn lock(tx: &mut OrganizationTx) -> Result<()> {
    sqlx::query("select id from organization where id = $1 for update")
        .bind(tx.organization())
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot hold the organization"))
}

pub(crate) async fn update(
    tx: &mut OrganizationTx,
    version: i64,
    patch: &OrganizationPatch,
) -> Result<Option<Organization>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "update organization
         set name = coalesce($3, name),
             session_idle_hours = coalesce($4, session_idle_hours),
             session_hours = coalesce($5, session_hours),
             audit_days = case when $6 then $7 else audit_days end,
             row_version = row_version + 1
         where id = $1
           and row_version = $2
         returning {ORGANIZATION}"
    )))
    .bind(tx.organization())
    .bind(version)
    .bind(&patch.name)
    .bind(patch.session_idle_hours)
    .bind(patch.session_hours)
    .bind(patch.audit_days.is_some())
    .bind(patch.audit_days.flatten())
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot change the organization"))
}
