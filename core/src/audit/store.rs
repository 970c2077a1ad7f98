//! The audit log's statements.

use super::ops::Entry;
use super::{AuditFilter, AuditRow};
use crate::access::Caller;
use crate::db::{TenantTx, failed};
use crate::error::Result;
use crate::id::AuditEventId;
use crate::page::PageRequest;

pub(crate) async fn insert(tx: &mut TenantTx, caller: &Caller, entry: Entry<'_>) -> Result<()> {
    sqlx::query(
        "insert into audit_event
             (workspace_id, id, actor_kind, actor_id, action, target_kind, target_id, request_id, changes)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
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

pub(crate) async fn list(tx: &mut TenantTx, filter: &AuditFilter, page: PageRequest) -> Result<Vec<AuditRow>> {
    sqlx::query_as(
        "select id, at, actor_kind, actor_id, action, target_kind, target_id, request_id, changes
         from audit_event
         where workspace_id = $1
           and ($2::uuid is null or id < $2)
           and ($4::text is null or action = $4 or starts_with(action, $4 || '.'))
           and ($5::uuid is null or actor_id = $5)
           and ($6::uuid is null or target_id = $6)
           and ($7::timestamptz is null or at >= $7)
           and ($8::timestamptz is null or at < $8)
         order by id desc
         limit $3 + 1",
    )
    .bind(tx.workspace())
    .bind(page.before)
    .bind(page.limit)
    .bind(&filter.action)
    .bind(filter.actor)
    .bind(filter.target)
    .bind(filter.since)
    .bind(filter.until)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot read the audit log"))
}
