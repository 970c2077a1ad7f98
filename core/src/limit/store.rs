//! The statements of limits. What they count over a whole organization comes from functions that say a number alone: see
//! `migrations/0036_plan.sql`.

use chrono::NaiveDate;
use sqlx::AssertSqlSafe;
use sqlx::types::Json;

use super::{Limit, Limits};
use crate::db::{Db, OrganizationTx, TenantTx, failed};
use crate::error::Result;

pub(crate) async fn of_tenant(tx: &mut TenantTx) -> Result<Limits> {
    let limits: Option<Json<Limits>> = sqlx::query_scalar("select tenant_limits()")
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot read the limits"))?;
    Ok(limits.map(|limits| limits.0).unwrap_or_default())
}

pub(crate) async fn of_organization(tx: &mut OrganizationTx) -> Result<Limits> {
    let limits: Option<Json<Limits>> = sqlx::query_scalar("select tenant_limits()")
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot read the limits"))?;
    Ok(limits.map(|limits| limits.0).unwrap_or_default())
}

/// Holds a limit of the workspace until the transaction ends: who counts counts alone.
pub(crate) async fn hold(tx: &mut TenantTx, limit: Limit) -> Result<()> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('freshet limit ' || $2 || $1::text, 0))")
        .bind(tx.workspace())
        .bind(limit.as_str())
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot hold the limit"))
}

/// The same for a limit of the organization.
pub(crate) async fn hold_in_organization(tx: &mut OrganizationTx, limit: Limit) -> Result<()> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('freshet limit ' || $2 || $1::text, 0))")
        .bind(tx.organization())
        .bind(limit.as_str())
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot hold the limit"))
}

/// What of `$1`, the workspace, counts towards a limit.
fn count_of(limit: Limit) -> &'static str {
    match limit {
        Limit::Workspaces => "select tenant_workspaces() where $1::uuid is not null",
        Limit::Members => "select tenant_members() where $1::uuid is not null",
        Limit::RecordsPerMonth | Limit::RetentionDays => "select 0::bigint where $1::uuid is not null",
        Limit::ServiceAccounts => {
            "select count(*) from service_account where workspace_id = $1 and archived_at is null"
        }
        Limit::ApiKeys => {
            "select count(*) from api_key where workspace_id = $1 and revoked_at is null and expires_at > now()"
        }
        Limit::Connections => "select count(*) from connection where workspace_id = $1 and archived_at is null",
        Limit::Models => "select count(*) from model where workspace_id = $1 and archived_at is null",
        Limit::Destinations => "select count(*) from destination where workspace_id = $1 and archived_at is null",
        Limit::ActiveSyncs => "select count(*) from sync where workspace_id = $1 and state = 'active'",
        Limit::RunsAtOnce => {
            "select count(*) from run
             where workspace_id = $1
               and state in ('claimed', 'extracting', 'publishing', 'finalizing', 'cancelling')"
        }
    }
}

pub(crate) async fn used(tx: &mut TenantTx, limit: Limit) -> Result<i64> {
    sqlx::query_scalar(AssertSqlSafe(count_of(limit)))
        .bind(tx.workspace())
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot count towards the limit"))
}

pub(crate) async fn used_by_organization(tx: &mut OrganizationTx, limit: Limit) -> Result<i64> {
    sqlx::query_scalar(AssertSqlSafe(count_of(limit)))
        .bind(tx.organization())
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot count towards the limit"))
}

/// Records that the organization moved since a day.
pub(crate) async fn records(tx: &mut TenantTx, since: NaiveDate) -> Result<i64> {
    sqlx::query_scalar("select tenant_records($1)")
        .bind(since)
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot count the records"))
}

/// The days that the workspace itself keeps its runs, if it says.
pub(crate) async fn run_days(tx: &mut TenantTx) -> Result<Option<i32>> {
    sqlx::query_scalar("select run_days from workspace where workspace_id = $1")
        .bind(tx.workspace())
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot read the retention"))
}

pub(crate) async fn is_plan(db: &Db, name: &str) -> Result<bool> {
    sqlx::query_scalar("select exists (select 1 from plan where name = $1)")
        .bind(name)
        .fetch_one(db.dispatcher())
        .await
        .map_err(failed("cannot look for the plan"))
}

pub(crate) async fn set_plan(db: &Db, name: &str, limits: &Limits) -> Result<()> {
    sqlx::query(
        "insert into plan (name, limits) values ($1, $2)
         on conflict (name) do update set limits = excluded.limits",
    )
    .bind(name)
    .bind(Json(limits))
    .execute(db.dispatcher())
    .await
    .map(|_| ())
    .map_err(failed("cannot set the plan"))
}

pub(crate) async fn set(tx: &mut OrganizationTx, plan: Option<&str>, own: Option<&Limits>) -> Result<()> {
    sqlx::query(
        "update organization
         set plan = coalesce($2, plan), limits = limits || coalesce($3, '{}'), row_version = row_version + 1
         where id = $1",
    )
    .bind(tx.organization())
    .bind(plan)
    .bind(own.map(Json))
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot set the limits"))
}
