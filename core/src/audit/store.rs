//! The audit log's statements.

use sqlx::{AssertSqlSafe, FromRow, Row};
use uuid::Uuid;

use super::chain::{Checked, Linked};
use super::ops::Entry;
use super::{AuditFilter, AuditRow};
use crate::access::{Actor, Caller};
use crate::db::{Db, OrganizationTx, TenantTx, failed};
use crate::error::Result;
use crate::id::{AuditEventId, OrganizationId, RequestId};
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

const ROW: &str = "e.id, e.at, e.workspace_id, e.actor_kind, e.actor_id, e.action, e.target_kind, e.target_id,
                   e.request_id, e.changes";

pub(crate) async fn to_chain(db: &Db, rows_max: i32) -> Result<Vec<OrganizationId>> {
    sqlx::query_scalar("select id from organizations_to_chain($1) as id")
        .bind(rows_max)
        .fetch_all(db.dispatcher())
        .await
        .map_err(failed("cannot look for lines without a link"))
}

pub(crate) async fn to_check(db: &Db, rows_max: i32) -> Result<Vec<OrganizationId>> {
    sqlx::query_scalar("select id from organizations_to_check($1) as id")
        .bind(rows_max)
        .fetch_all(db.dispatcher())
        .await
        .map_err(failed("cannot look for chains to check"))
}

/// The last link, or where what was pruned ended; nobody else links until the transaction ends.
pub(crate) async fn hold_head(tx: &mut OrganizationTx) -> Result<Option<(i64, Vec<u8>)>> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('freshet audit ' || $1::text, 0))")
        .bind(tx.organization())
        .execute(tx.conn())
        .await
        .map_err(failed("cannot hold the audit log's chain"))?;
    let head = sqlx::query_as("select seq, hash from audit_link where organization_id = $1 order by seq desc limit 1")
        .bind(tx.organization())
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("cannot read the audit log's chain"))?;
    match head {
        Some(head) => Ok(Some(head)),
        None => pruned(tx).await,
    }
}

/// Where what was pruned ended.
pub(crate) async fn pruned(tx: &mut OrganizationTx) -> Result<Option<(i64, Vec<u8>)>> {
    sqlx::query_as(
        "select pruned_seq, pruned_hash from audit_chain where organization_id = $1 and pruned_hash is not null",
    )
    .bind(tx.organization())
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read the audit log's chain"))
}

pub(crate) async fn unlinked(tx: &mut OrganizationTx, rows_max: i64) -> Result<Vec<AuditRow>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {ROW}
         from audit_event as e
         where e.organization_id = $1
           and e.at > now() - interval '1 day'
           and not exists (select 1 from audit_link as l where l.event_id = e.id)
         order by e.id
         limit $2"
    )))
    .bind(tx.organization())
    .bind(rows_max)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot read lines without a link"))
}

pub(crate) async fn insert_links(tx: &mut OrganizationTx, links: &[(i64, AuditEventId, Vec<u8>)]) -> Result<()> {
    sqlx::query(
        "insert into audit_link (organization_id, seq, event_id, hash)
         select $1, l.seq, l.event_id, l.hash
         from unnest($2::bigint[], $3::uuid[], $4::bytea[]) as l (seq, event_id, hash)",
    )
    .bind(tx.organization())
    .bind(links.iter().map(|link| link.0).collect::<Vec<_>>())
    .bind(links.iter().map(|link| link.1.uuid()).collect::<Vec<_>>())
    .bind(links.iter().map(|link| link.2.clone()).collect::<Vec<_>>())
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot link audit lines"))
}

/// Links after `seq` in their order, each with its line.
pub(crate) async fn links(tx: &mut OrganizationTx, seq: i64, rows_max: i64) -> Result<Vec<Linked>> {
    let rows = sqlx::query(AssertSqlSafe(format!(
        "select l.seq, l.hash, {ROW}
         from audit_link as l
         left join audit_event as e on e.organization_id = l.organization_id and e.id = l.event_id
         where l.organization_id = $1
           and l.seq > $2
         order by l.seq
         limit $3"
    )))
    .bind(tx.organization())
    .bind(seq)
    .bind(rows_max)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot read the audit log's chain"))?;
    rows.iter()
        .map(|row| {
            let is_there = row.try_get::<Option<Uuid>, _>("id")?.is_some();
            let line = if is_there { Some(AuditRow::from_row(row)?) } else { None };
            Ok(Linked { seq: row.try_get("seq")?, hash: row.try_get("hash")?, line })
        })
        .collect::<sqlx::Result<_>>()
        .map_err(failed("cannot read the audit log's chain"))
}

/// A line that should have been linked long ago, if there is one.
pub(crate) async fn left_out(tx: &mut OrganizationTx) -> Result<Option<AuditEventId>> {
    sqlx::query_scalar(
        "select e.id
         from audit_event as e
         where e.organization_id = $1
           and e.at < now() - interval '1 hour'
           and not exists (select 1 from audit_link as l where l.event_id = e.id)
         order by e.id
         limit 1",
    )
    .bind(tx.organization())
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot look for lines that were left out"))
}

pub(crate) async fn note_check(tx: &mut OrganizationTx, links: i64, finding: Option<&str>) -> Result<()> {
    sqlx::query(
        "insert into audit_chain (organization_id, checked_at, checked_links, finding)
         values ($1, now(), $2, $3)
         on conflict (organization_id) do update
         set checked_at = excluded.checked_at, checked_links = excluded.checked_links, finding = excluded.finding",
    )
    .bind(tx.organization())
    .bind(links)
    .bind(finding)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot write down what the check found"))
}

pub(crate) async fn last_check(tx: &mut OrganizationTx) -> Result<Checked> {
    sqlx::query_as(
        "select c.checked_at, c.checked_links as links, c.finding, l.seq as head_seq,
                encode(l.hash, 'hex') as head_hash
         from (select $1::uuid as organization_id) as o
         left join audit_chain as c on c.organization_id = o.organization_id
         left join lateral (select seq, hash from audit_link as l
                            where l.organization_id = o.organization_id
                            order by seq desc limit 1) as l on true",
    )
    .bind(tx.organization())
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot read the last check"))
}

/// Whoever checks keeps the chain from being pruned until its transaction ends, and whoever prunes is alone.
pub(crate) async fn hold_from_pruning(tx: &mut OrganizationTx, shared: bool) -> Result<()> {
    let lock = if shared { "pg_advisory_xact_lock_shared" } else { "pg_advisory_xact_lock" };
    let hold = format!("select {lock}(hashtextextended('freshet audit prune ' || $1::text, 0))");
    sqlx::query(AssertSqlSafe(hold))
        .bind(tx.organization())
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot hold the audit log's chain"))
}

/// Deletes the links up to one, with their lines, and keeps where the chain goes on from.
pub(crate) async fn prune(tx: &mut OrganizationTx, upto: i64) -> Result<i64> {
    sqlx::query_scalar("select prune_audit($2) where $1::uuid is not null")
        .bind(tx.organization())
        .bind(upto)
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot prune the audit log"))
}
