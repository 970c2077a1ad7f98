//! The feed's statements. Most events are written by triggers: see `migrations/0035_event.sql`.

use serde_json::Value;

use super::EventRow;
use crate::db::{TenantTx, failed};
use crate::error::Result;

/// Numbers given at a time.
const NUMBERS: i64 = 10_000;

pub(crate) async fn insert(tx: &mut TenantTx, kind: &str, data: &Value) -> Result<()> {
    sqlx::query("insert into event (workspace_id, kind, data) values ($1, $2, $3)")
        .bind(tx.workspace())
        .bind(kind)
        .bind(data)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot write the event"))
}

/// Gives numbers to the events that have none, and returns the last one. Whoever gives them holds the feed's row: a number
/// is seen only together with all that are less.
pub(crate) async fn give_numbers(tx: &mut TenantTx) -> Result<i64> {
    let (waiting, last): (bool, i64) = sqlx::query_as(
        "select exists (select 1 from event where workspace_id = $1 and number is null),
                coalesce((select last_number from feed where workspace_id = $1), 0)",
    )
    .bind(tx.workspace())
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot look at the feed"))?;
    if !waiting {
        return Ok(last);
    }
    sqlx::query("insert into feed (workspace_id) values ($1) on conflict (workspace_id) do nothing")
        .bind(tx.workspace())
        .execute(tx.conn())
        .await
        .map_err(failed("cannot begin the feed"))?;
    // A statement of its own: the one after it sees what the holder before wrote.
    let held: i64 = sqlx::query_scalar("select last_number from feed where workspace_id = $1 for update")
        .bind(tx.workspace())
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot hold the feed"))?;
    sqlx::query_scalar(
        "with waiting as (
             select id, row_number() over (order by at, id) as place
             from (select id, at from event
                   where workspace_id = $1 and number is null
                   order by at
                   limit $3) as oldest
         ), numbered as (
             update event as e
             set number = $2 + waiting.place
             from waiting
             where e.workspace_id = $1
               and e.id = waiting.id
             returning e.number
         )
         update feed
         set last_number = greatest(last_number, (select max(number) from numbered))
         where workspace_id = $1
         returning last_number",
    )
    .bind(tx.workspace())
    .bind(held)
    .bind(NUMBERS)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot number the feed"))
}

pub(crate) async fn list(tx: &mut TenantTx, after: i64, kinds: &[String], limit: i64) -> Result<Vec<EventRow>> {
    sqlx::query_as(
        "select id, number, kind, at, data
         from event
         where workspace_id = $1
           and number > $2
           and (cardinality($3::text[]) = 0
                or exists (select 1 from unnest($3) as wanted
                           where kind = wanted or starts_with(kind, wanted || '.')))
         order by number
         limit $4 + 1",
    )
    .bind(tx.workspace())
    .bind(after)
    .bind(kinds)
    .bind(limit)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot read the feed"))
}
