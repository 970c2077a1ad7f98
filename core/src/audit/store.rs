//! The audit log's statements.

use sqlx::AssertSqlSafe;

use super::ops::Entry;
use super::{AuditFilter, AuditRow};
use crate::access::{Actor, Caller};
use crate::db::{OrganizationTx, TenantTx, failed};
use crate::error::Result;
use crate::id::{AuditEventId, RequestId};
use crate::page::PageRequest;

pub(crate) async fn insert(tx: &mut TenantTx, caller: &Caller, entry: Entry<'_>) -> Result<()> {
    sqlx::query(
        "insert into audit_event
             (organization_id, workspace_id, id, actor_kind, actor_id, action, target_kind, target_id, request_id,
              changes)
         select organization_id, id, $2, $3, $4, $5, $6, $7, $8, $9
         from workspace
         where workspace_id = $1",
    )
    .bind(caller.workspace)
    .bind(AuditEventId::new())
    .bind(caller.actor.kind())
    .bind(caller.actor.id())
    .bind(entry.action)
    .bind(entry.target_kind)
    .bind(entry.target)
    .bind(caller.request)
    .bind(entry.changes)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot write the audit log"))
}

pub(crate) async fn insert_in_organization(
    tx: &mut OrganizationTx,
    actor: Actor,
    request: Option<RequestId>,
    entry: Entry<'_>,
) -> Result<()> {
    sqlx::query(
        "insert into audit_event
             (organization_id, id, actor_kind, actor_id, action, target_kind, target_id, request_id, changes)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(tx.organization())
    .bind(AuditEventId::new())
    .bind(actor.kind())
    .bind(actor.id())
    .bind(entry.action)
    .bind(entry.target_kind)
    .bind(entry.target)
    .bind(request)
    .bind(entry.changes)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot write the audit log"))
}

/// A page of lines of `$1`, which `tenant` compares with a column.
fn page(tenant: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "select id, at, workspace_id, actor_kind, actor_id, action, target_kind, target_id, request_id, changes
         from audit_event
         where {tenant} = $1
           and ($2::uuid is null or id < $2)
           and ($4::text is null or action = $4 or starts_with(action, $4 || '.'))
           and ($5::uuid is null or actor_id = $5)
           and ($6::uuid is null or target_id = $6)
           and ($7::timestamptz is null or at >= $7)
           and ($8::timestamptz is null or at < $8)
         order by id desc
         limit $3 + 1"
    ))
}

macro_rules! list {
    ($tenant:literal, $id:expr, $tx:ident, $filter:ident, $page:ident) => {
        sqlx::query_as(page($tenant))
            .bind($id)
            .bind($page.before)
            .bind($page.limit)
            .bind(&$filter.action)
            .bind($filter.actor)
            .bind($filter.target)
            .bind($filter.since)
            .bind($filter.until)
            .fetch_all($tx.conn())
            .await
            .map_err(failed("cannot read the audit log"))
    };
}

pub(crate) async fn list(tx: &mut TenantTx, filter: &AuditFilter, page_of: PageRequest) -> Result<Vec<AuditRow>> {
    list!("workspace_id", tx.workspace(), tx, filter, page_of)
}

pub(crate) async fn list_in_organization(
    tx: &mut OrganizationTx,
    filter: &AuditFilter,
    page_of: PageRequest,
) -> Result<Vec<AuditRow>> {
    list!("organization_id", tx.organization(), tx, filter, page_of)
}
