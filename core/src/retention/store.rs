//! The statements of retention. Rows go by functions that see to what must stay: see `migrations/0038_retention.sql`.

use chrono::{DateTime, Utc};

use crate::db::{Db, OrganizationTx, TenantTx, failed};
use crate::error::Result;
use crate::id::{OrganizationId, WorkspaceId};

/// What is pruned of a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Timelines,
    Runs,
    Events,
}

impl What {
    /// How many in one transaction.
    pub(crate) fn at_a_time(self) -> i64 {
        match self {
            Self::Timelines | Self::Runs => 100,
            Self::Events => 2_000,
        }
    }
}

pub(crate) async fn workspaces(db: &Db, since: DateTime<Utc>, rows_max: i32) -> Result<Vec<WorkspaceId>> {
    sqlx::query_scalar("select id from workspaces_to_prune($1, $2) as id")
        .bind(since)
        .bind(rows_max)
        .fetch_all(db.dispatcher())
        .await
        .map_err(failed("cannot look for workspaces to prune"))
}

pub(crate) async fn organizations(db: &Db, since: DateTime<Utc>, rows_max: i32) -> Result<Vec<OrganizationId>> {
    sqlx::query_scalar("select id from organizations_to_prune($1, $2) as id")
        .bind(since)
        .bind(rows_max)
        .fetch_all(db.dispatcher())
        .await
        .map_err(failed("cannot look for organizations to prune"))
}

/// What the workspace says of its timelines and its runs.
pub(crate) async fn days(tx: &mut TenantTx) -> Result<(Option<i32>, Option<i32>)> {
    sqlx::query_as("select run_event_days, run_days from workspace where workspace_id = $1")
        .bind(tx.workspace())
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot read the retention"))
}

/// Whether nobody else prunes; holds until the transaction ends.
pub(crate) async fn alone(tx: &mut TenantTx) -> Result<bool> {
    sqlx::query_scalar(
        "select pg_try_advisory_xact_lock(hashtextextended('freshet prune', 0)) where $1::uuid is not null",
    )
    .bind(tx.workspace())
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot see whether somebody prunes"))
}

/// Deletes as many as there are, or as go in one transaction; how many.
pub(crate) async fn prune(tx: &mut TenantTx, what: What, before: DateTime<Utc>) -> Result<i64> {
    let statement = match what {
        What::Timelines => "select prune_run_events($2, $3) where $1::uuid is not null",
        What::Runs => "select prune_runs($2, $3) where $1::uuid is not null",
        What::Events => "select prune_events($2, $3) where $1::uuid is not null",
    };
    sqlx::query_scalar(statement)
        .bind(tx.workspace())
        .bind(before)
        .bind(i32::try_from(what.at_a_time()).unwrap_or(i32::MAX))
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot prune the history"))
}

/// Consents that nobody gave in time, with their secrets.
pub(crate) async fn consents(tx: &mut TenantTx, before: DateTime<Utc>) -> Result<()> {
    sqlx::query(
        "with gone as (
             delete from consent
             where workspace_id = $1
               and expires_at < $2
             returning id
         )
         delete from secret
         where workspace_id = $1
           and owner_id in (select id from gone)",
    )
    .bind(tx.workspace())
    .bind(before)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot prune consents"))
}

pub(crate) async fn set_pruned(tx: &mut TenantTx, at: DateTime<Utc>) -> Result<()> {
    sqlx::query("update workspace set pruned_at = $2 where workspace_id = $1")
        .bind(tx.workspace())
        .bind(at)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot note the pruning"))
}

pub(crate) async fn audit_days(tx: &mut OrganizationTx) -> Result<Option<i32>> {
    sqlx::query_scalar("select audit_days from organization where id = $1")
        .bind(tx.organization())
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot read the retention"))
}

pub(crate) async fn set_organization_pruned(tx: &mut OrganizationTx, at: DateTime<Utc>) -> Result<()> {
    sqlx::query("update organization set pruned_at = $2 where id = $1")
        .bind(tx.organization())
        .bind(at)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot note the pruning"))
}

/// Sessions and words of mails that ended before a moment; how many went.
pub(crate) async fn sessions(db: &Db, before: DateTime<Utc>) -> Result<i64> {
    sqlx::query_scalar("select prune_sessions($1, 1000)")
        .bind(before)
        .fetch_one(db.dispatcher())
        .await
        .map_err(failed("cannot prune sessions"))
}
