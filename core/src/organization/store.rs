//! The organization's statements.

use sqlx::AssertSqlSafe;

use super::{Organization, OrganizationPatch};
use crate::access::Role;
use crate::db::{Db, OrganizationTx, TenantTx, failed};
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

/// Reach and list, if the organization has a policy of its own.
pub(crate) async fn egress(tx: &mut OrganizationTx) -> Result<Option<(String, String)>> {
    sqlx::query_as("select reach, allow from organization_egress where organization_id = $1")
        .bind(tx.organization())
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("cannot read the organization's egress policy"))
}

/// The same of the workspace's organization.
pub(crate) async fn egress_of_workspace(tx: &mut TenantTx) -> Result<Option<(String, String)>> {
    sqlx::query_as(
        "select e.reach, e.allow
         from workspace as w
         join organization_egress as e on e.organization_id = w.organization_id
         where w.id = $1",
    )
    .bind(tx.workspace())
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read the organization's egress policy"))
}

pub(crate) async fn put_egress(tx: &mut OrganizationTx, reach: &str, allow: &str) -> Result<()> {
    sqlx::query(
        "insert into organization_egress (organization_id, reach, allow)
         values ($1, $2, $3)
         on conflict (organization_id) do update
         set reach = excluded.reach, allow = excluded.allow, updated_at = now()",
    )
    .bind(tx.organization())
    .bind(reach)
    .bind(allow)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot store the organization's egress policy"))
}

pub(crate) async fn remove_egress(tx: &mut OrganizationTx) -> Result<()> {
    sqlx::query("delete from organization_egress where organization_id = $1")
        .bind(tx.organization())
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot remove the organization's egress policy"))
}
