//! SQL of usage. The rows are written by a trigger on `run`: see `migrations/0025_usage.sql`.

use super::{Days, UsageDay, UsageOfSync};
use crate::db::{TenantTx, failed};
use crate::error::Result;
use crate::id::SyncId;

pub(crate) async fn by_day(tx: &mut TenantTx, days: Days, sync: Option<SyncId>) -> Result<Vec<UsageDay>> {
    sqlx::query_as(
        "select day, sum(run_count)::bigint as runs, sum(failed_run_count)::bigint as failed_runs,
                sum(record_count)::bigint as records, sum(dead_count)::bigint as dead_letters,
                sum(record_bytes)::bigint as bytes
         from usage_day
         where workspace_id = $1
           and day between $2 and $3
           and ($4::uuid is null or sync_id = $4)
         group by day
         order by day desc",
    )
    .bind(tx.workspace())
    .bind(days.since)
    .bind(days.until)
    .bind(sync)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot read the usage"))
}

pub(crate) async fn by_sync(tx: &mut TenantTx, days: Days, limit: i64) -> Result<Vec<UsageOfSync>> {
    sqlx::query_as(
        "select u.sync_id, s.name, sum(u.run_count)::bigint as runs, sum(u.failed_run_count)::bigint as failed_runs,
                sum(u.record_count)::bigint as records, sum(u.dead_count)::bigint as dead_letters,
                sum(u.record_bytes)::bigint as bytes
         from usage_day as u
         join sync as s on s.workspace_id = u.workspace_id and s.id = u.sync_id
         where u.workspace_id = $1
           and u.day between $2 and $3
         group by u.sync_id, s.name
         order by records desc, u.sync_id
         limit $4",
    )
    .bind(tx.workspace())
    .bind(days.since)
    .bind(days.until)
    .bind(limit)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot read the usage"))
}
