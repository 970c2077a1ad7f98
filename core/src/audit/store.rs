//! The audit log's statements.

use super::ops::Entry;
use crate::access::Caller;
use crate::db::{TenantTx, failed};
use crate::error::Result;
use crate::id::AuditEventId;

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
