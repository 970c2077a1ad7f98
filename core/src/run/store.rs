//! The run's statements.

use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow, Row};
use uuid::Uuid;

use super::{
    Attempt, Claim, CountBase, Counts, DeadLetterGroup, Failure, Run, RunEvent, RunPartition, RunQuery, RunState,
    SourceUse,
};
use crate::connector::{PartitionRange, SourceQuery};
use crate::db::{Db, TenantTx, failed, fenced};
use crate::error::{Code, Error, Result};
use crate::id::{AttemptId, DeadLetterGroupId, RunId, SyncId};
use crate::page::PageRequest;
use crate::sync::Sync;
use crate::trace::TraceParent;

fn counts(row: &PgRow) -> Result<Counts, sqlx::Error> {
    Ok(Counts {
        read: row.try_get("read_count")?,
        created: row.try_get("created_count")?,
        updated: row.try_get("updated_count")?,
        deleted: row.try_get("deleted_count")?,
        refreshed: row.try_get("refreshed_count")?,
        published: row.try_get("published_count")?,
        dead: row.try_get("dead_count")?,
        bytes: row.try_get("published_bytes")?,
    })
}

impl FromRow<'_, PgRow> for Run {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let code: Option<String> = row.try_get("failure_code")?;
        let message: Option<String> = row.try_get("failure_message")?;
        let failure = code.map(|code| Failure {
            action: Code::parse(&code).map(|known| known.action().to_owned()),
            message: message.unwrap_or_default(),
            code,
        });
        Ok(Self {
            id: row.try_get("id")?,
            sync_id: row.try_get("sync_id")?,
            sync_version: row.try_get("sync_version")?,
            trigger: row.try_get("trigger")?,
            requested_by: row.try_get("requested_by")?,
            parent_run_id: row.try_get("parent_run_id")?,
            coalesced_count: row.try_get("coalesced_count")?,
            state: row.try_get("state")?,
            outcome: row.try_get("outcome")?,
            failure,
            counts: counts(row)?,
            attempt_count: row.try_get("attempt_count")?,
            queued_at: row.try_get("queued_at")?,
            due_at: row.try_get("due_at")?,
            started_at: row.try_get("started_at")?,
            finished_at: row.try_get("finished_at")?,
            cancel_requested_at: row.try_get("cancel_requested_at")?,
        })
    }
}

/// Inserts a queued run, or counts the trigger on the one already there. Returns its id and whether it is new.
pub(crate) async fn enqueue(
    tx: &mut TenantTx,
    id: RunId,
    sync: &Sync,
    trigger: &str,
    requested_by: Option<Uuid>,
    parent: Option<RunId>,
) -> Result<(RunId, bool)> {
    let queued: RunId = sqlx::query_scalar(
        "insert into run (workspace_id, id, sync_id, sync_version_id, trigger, requested_by, parent_run_id)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (sync_id) where state = 'queued'
         do update set coalesced_count = run.coalesced_count + 1, sync_version_id = excluded.sync_version_id
         returning id",
    )
    .bind(tx.workspace())
    .bind(id)
    .bind(sync.id)
    .bind(sync.version_id)
    .bind(trigger)
    .bind(requested_by)
    .bind(parent)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot queue the run"))?;
    Ok((queued, queued == id))
}

pub(crate) async fn get(tx: &mut TenantTx, id: RunId) -> Result<Option<Run>> {
    sqlx::query_as(
        "select r.*, v.version as sync_version
         from run as r
         join sync_version as v on v.workspace_id = r.workspace_id and v.id = r.sync_version_id
         where r.workspace_id = $1
           and r.id = $2",
    )
    .bind(tx.workspace())
    .bind(id)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read the run"))
}

pub(crate) async fn list(
    tx: &mut TenantTx,
    sync: Option<SyncId>,
    states: &[String],
    page: PageRequest,
) -> Result<Vec<Run>> {
    // The page first: joined before, every run of the workspace would be. With states, a page of each: an index has them in
    // order by state alone.
    let runs = if states.is_empty() {
        "select *
         from run
         where workspace_id = $1
           and ($2::uuid is null or sync_id = $2)
           and ($3::uuid is null or id < $3)
         order by id desc
         limit $4 + 1"
    } else {
        "select page.*
         from (select distinct state from unnest($5::text[]) as word (state)) as wanted
         cross join lateral (
             select *
             from run
             where workspace_id = $1
               and state = wanted.state
               and ($2::uuid is null or sync_id = $2)
               and ($3::uuid is null or id < $3)
             order by id desc
             limit $4 + 1
         ) as page
         order by page.id desc
         limit $4 + 1"
    };
    let query = sqlx::query_as(AssertSqlSafe(format!(
        "select r.*, v.version as sync_version
         from ({runs}) as r
         join sync_version as v on v.workspace_id = r.workspace_id and v.id = r.sync_version_id
         order by r.id desc"
    )))
    .bind(tx.workspace())
    .bind(sync)
    .bind(page.before)
    .bind(page.limit);
    let query = if states.is_empty() { query } else { query.bind(states) };
    query.fetch_all(tx.conn()).await.map_err(failed("cannot list the runs"))
}

pub(crate) async fn events(tx: &mut TenantTx, id: RunId, after: i64) -> Result<Vec<RunEvent>> {
    sqlx::query_as(
        "select seq, at, level, code, message, data
         from run_event
         where workspace_id = $1
           and run_id = $2
           and seq > $3
         order by seq
         limit 200",
    )
    .bind(tx.workspace())
    .bind(id)
    .bind(after)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot read the run's events"))
}

pub(crate) async fn attempts(tx: &mut TenantTx, id: RunId) -> Result<Vec<Attempt>> {
    sqlx::query_as(
        "select number, worker, started_at, finished_at, outcome, failure_code, failure_message
         from attempt
         where workspace_id = $1
           and run_id = $2
         order by number
         limit 200",
    )
    .bind(tx.workspace())
    .bind(id)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot read the run's attempts"))
}

pub(crate) async fn partitions(tx: &mut TenantTx, id: RunId) -> Result<Vec<RunPartition>> {
    sqlx::query_as(
        "select topic, partition, first_offset, last_offset, record_count
         from run_partition
         where workspace_id = $1
           and run_id = $2
         order by topic, partition
         limit 10000",
    )
    .bind(tx.workspace())
    .bind(id)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot read the run's partitions"))
}

pub(crate) async fn dead_letters(tx: &mut TenantTx, id: RunId) -> Result<Vec<DeadLetterGroup>> {
    sqlx::query_as(
        "select id, code, column_name, reason, record_count, first_ordinal, last_ordinal, first_at, last_at
         from dead_letter_group
         where workspace_id = $1
           and run_id = $2
         order by record_count desc
         limit 200",
    )
    .bind(tx.workspace())
    .bind(id)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot read the run's dead letters"))
}

pub(crate) async fn queries(tx: &mut TenantTx, id: RunId) -> Result<Vec<RunQuery>> {
    sqlx::query_as(
        "select query_id, statement, started_at, seconds, row_count, byte_count, is_computed, credits
         from source_query
         where workspace_id = $1
           and run_id = $2
         order by started_at, query_id
         limit 1000",
    )
    .bind(tx.workspace())
    .bind(id)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot read the run's queries"))
}

pub(crate) async fn source_use(tx: &mut TenantTx, id: RunId) -> Result<SourceUse> {
    sqlx::query_as(
        "select count(*) as query_count,
                coalesce(sum(byte_count), 0)::bigint as byte_count,
                coalesce(sum(seconds) filter (where is_computed), 0) as computed_s,
                coalesce(sum(credits), 0) as credits
         from source_query
         where workspace_id = $1
           and run_id = $2",
    )
    .bind(tx.workspace())
    .bind(id)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot sum the run's queries up"))
}

/// False when the run has ended.
pub(crate) async fn cancel(tx: &mut TenantTx, id: RunId) -> Result<bool> {
    sqlx::query(
        "update run
         set cancel_requested_at = coalesce(cancel_requested_at, now()),
             state = case when state in ('queued', 'retry_wait') then 'cancelled' else 'cancelling' end,
             finished_at = case when state in ('queued', 'retry_wait') then now() end,
             row_version = row_version + 1
         where workspace_id = $1
           and id = $2
           and state in ('queued', 'retry_wait', 'claimed', 'extracting', 'publishing', 'finalizing', 'cancelling')",
    )
    .bind(tx.workspace())
    .bind(id)
    .execute(tx.conn())
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(failed("cannot cancel the run"))
}

/// Asks every run of the workspace to stop that has not ended; how many.
pub(crate) async fn cancel_all(tx: &mut TenantTx) -> Result<i64> {
    sqlx::query_scalar(
        "with stopped as (
             update run
             set cancel_requested_at = coalesce(cancel_requested_at, now()),
                 state = case when state in ('queued', 'retry_wait') then 'cancelled' else 'cancelling' end,
                 finished_at = case when state in ('queued', 'retry_wait') then now() end,
                 row_version = row_version + 1
             where workspace_id = $1
               and state in ('queued', 'retry_wait', 'claimed', 'extracting', 'publishing', 'finalizing', 'cancelling')
             returning id
         )
         select count(*) from stopped",
    )
    .bind(tx.workspace())
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot cancel the workspace's runs"))
}

pub(crate) async fn add_event(
    tx: &mut TenantTx,
    id: RunId,
    level: &str,
    code: &str,
    message: &str,
    data: Value,
) -> Result<()> {
    sqlx::query("select add_run_event($1, $2, $3, $4, $5)")
        .bind(id)
        .bind(level)
        .bind(code)
        .bind(message)
        .bind(data)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot write the run's event"))
}

/// Keeps the trace that a run goes on in.
pub(crate) async fn set_trace(tx: &mut TenantTx, id: RunId, trace: TraceParent) -> Result<()> {
    sqlx::query("insert into run_trace (workspace_id, run_id, traceparent) values ($1, $2, $3)")
        .bind(tx.workspace())
        .bind(id)
        .bind(trace.to_string())
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot keep the run's trace"))
}

/// The trace that a run goes on in, if there is one.
pub(crate) async fn trace(tx: &mut TenantTx, id: RunId) -> Result<Option<TraceParent>> {
    let found: Option<String> =
        sqlx::query_scalar("select traceparent from run_trace where workspace_id = $1 and run_id = $2")
            .bind(tx.workspace())
            .bind(id)
            .fetch_optional(tx.conn())
            .await
            .map_err(failed("cannot read the run's trace"))?;
    Ok(found.and_then(|text| text.parse().ok()))
}

// What the dispatcher asks across workspaces: functions of the schema, ids and states only.

pub(crate) async fn claim(db: &Db, slots: i32, worker: &str, lease_s: f64) -> Result<Vec<Claim>> {
    let rows = sqlx::query("select workspace_id, id, sync_id, epoch, attempt_count from claim_runs($1, $2, $3)")
        .bind(slots)
        .bind(worker)
        .bind(lease_s)
        .fetch_all(db.dispatcher())
        .await
        .map_err(failed("cannot claim runs"))?;
    rows.iter()
        .map(|row| {
            Ok(Claim {
                workspace: row.try_get("workspace_id")?,
                run: row.try_get("id")?,
                sync: row.try_get("sync_id")?,
                epoch: row.try_get("epoch")?,
                attempt: row.try_get("attempt_count")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(failed("cannot read claimed runs"))
}

pub(crate) async fn extend(db: &Db, ids: &[Uuid], epochs: &[i64], lease_s: f64) -> Result<Vec<(Uuid, bool)>> {
    sqlx::query_as("select id, cancel from extend_runs($1, $2, $3)")
        .bind(ids)
        .bind(epochs)
        .bind(lease_s)
        .fetch_all(db.dispatcher())
        .await
        .map_err(failed("cannot extend leases"))
}

pub(crate) async fn reap(db: &Db, fruitless_max: i32) -> Result<Vec<Uuid>> {
    sqlx::query_scalar("select reap_runs($1)")
        .bind(fruitless_max)
        .fetch_all(db.dispatcher())
        .await
        .map_err(failed("cannot take over lost runs"))
}

pub(crate) async fn give_back(db: &Db, ids: &[Uuid], epochs: &[i64]) -> Result<()> {
    sqlx::query("select give_back_runs($1, $2)")
        .bind(ids)
        .bind(epochs)
        .execute(db.dispatcher())
        .await
        .map(|_| ())
        .map_err(failed("cannot give runs back"))
}

/// Raises the claims to come above `fence`; false for one that no claim can have had.
pub(crate) async fn raise_epoch(db: &Db, fence: i64) -> Result<bool> {
    sqlx::query_scalar("select raise_epoch($1) is not null")
        .bind(fence)
        .fetch_one(db.dispatcher())
        .await
        .map_err(failed("cannot raise the claims' numbers"))
}

/// What waits and what is under way: the state, how many, the longest wait of one that is due in seconds.
pub(crate) async fn depth(db: &Db) -> Result<Vec<(String, i64, f64)>> {
    sqlx::query_as("select state, runs, oldest_s from queue_depth()")
        .fetch_all(db.dispatcher())
        .await
        .map_err(failed("cannot count the runs that wait"))
}

// What a worker writes; each names the epoch, and no row matched means that another worker has the run now.

fn held(rows: u64) -> Result<()> {
    if rows == 1 { Ok(()) } else { Err(Error::new(Code::LeaseLost, "another worker has the run now")) }
}

pub(crate) async fn sync_version_of(tx: &mut TenantTx, claim: &Claim) -> Result<(SyncId, Uuid, Option<i64>, Value)> {
    sqlx::query_as(fenced(
        "select sync_id, sync_version_id, batch_seq, count_base
         from run
         where workspace_id = $1
           and id = $2
           and epoch = $3
           and state in ('claimed', 'extracting', 'publishing', 'finalizing', 'cancelling')
         for update",
    ))
    .bind(claim.workspace)
    .bind(claim.run)
    .bind(claim.epoch)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read the run"))?
    .ok_or_else(|| Error::new(Code::LeaseLost, "another worker has the run now"))
}

pub(crate) async fn insert_attempt(tx: &mut TenantTx, claim: &Claim, worker: &str) -> Result<()> {
    sqlx::query(
        "insert into attempt (workspace_id, id, run_id, number, epoch, worker)
         values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(claim.workspace)
    .bind(AttemptId::new())
    .bind(claim.run)
    .bind(claim.attempt)
    .bind(claim.epoch)
    .bind(worker)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot write the attempt"))
}

pub(crate) async fn finish_attempt(
    tx: &mut TenantTx,
    claim: &Claim,
    outcome: &str,
    error: Option<&Error>,
) -> Result<()> {
    sqlx::query(fenced(
        "update attempt
         set finished_at = now(), outcome = $4, failure_code = $5, failure_message = $6
         where workspace_id = $1
           and run_id = $2
           and epoch = $3
           and finished_at is null",
    ))
    .bind(claim.workspace)
    .bind(claim.run)
    .bind(claim.epoch)
    .bind(outcome)
    .bind(error.map(|error| error.code.as_str()))
    .bind(error.map(|error| error.message.as_str()))
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot end the attempt"))
}

/// Moves a working run on. A run that is being cancelled stays `cancelling`.
pub(crate) async fn set_working(tx: &mut TenantTx, claim: &Claim, state: RunState) -> Result<()> {
    let done = sqlx::query(fenced(
        "update run
         set state = case when cancel_requested_at is null then $4 else 'cancelling' end,
             row_version = row_version + 1
         where workspace_id = $1
           and id = $2
           and epoch = $3
           and state in ('claimed', 'extracting', 'publishing', 'finalizing', 'cancelling')",
    ))
    .bind(claim.workspace)
    .bind(claim.run)
    .bind(claim.epoch)
    .bind(state)
    .execute(tx.conn())
    .await
    .map_err(failed("cannot move the run on"))?;
    held(done.rows_affected())
}

pub(crate) async fn set_batch(
    tx: &mut TenantTx,
    claim: &Claim,
    batch_seq: Option<i64>,
    base: &CountBase,
) -> Result<()> {
    let done = sqlx::query(fenced(
        "update run
         set batch_seq = coalesce($4, batch_seq), count_base = $5
         where workspace_id = $1
           and id = $2
           and epoch = $3",
    ))
    .bind(claim.workspace)
    .bind(claim.run)
    .bind(claim.epoch)
    .bind(batch_seq)
    .bind(Json(base))
    .execute(tx.conn())
    .await
    .map_err(failed("cannot write the run's batch"))?;
    held(done.rows_affected())
}

pub(crate) async fn set_counts(tx: &mut TenantTx, claim: &Claim, counts: &Counts) -> Result<()> {
    // Counts only grow within an attempt; growth is progress, and the patience with failures starts anew.
    let done = sqlx::query(fenced(
        "update run
         set fruitless_count = case when $4 > read_count then 0 else fruitless_count end,
             read_count = $4, created_count = $5, updated_count = $6, deleted_count = $7, refreshed_count = $8,
             published_count = $9, dead_count = $10, published_bytes = $11,
             row_version = row_version + 1
         where workspace_id = $1
           and id = $2
           and epoch = $3
           and state in ('claimed', 'extracting', 'publishing', 'finalizing', 'cancelling')",
    ))
    .bind(claim.workspace)
    .bind(claim.run)
    .bind(claim.epoch)
    .bind(counts.read)
    .bind(counts.created)
    .bind(counts.updated)
    .bind(counts.deleted)
    .bind(counts.refreshed)
    .bind(counts.published)
    .bind(counts.dead)
    .bind(counts.bytes)
    .execute(tx.conn())
    .await
    .map_err(failed("cannot write the run's counts"))?;
    held(done.rows_affected())
}

pub(crate) async fn add_partitions(tx: &mut TenantTx, claim: &Claim, ranges: &[PartitionRange]) -> Result<()> {
    let topics: Vec<_> = ranges.iter().map(|range| range.topic.clone()).collect();
    let partitions: Vec<_> = ranges.iter().map(|range| range.partition).collect();
    let firsts: Vec<_> = ranges.iter().map(|range| range.first_offset).collect();
    let lasts: Vec<_> = ranges.iter().map(|range| range.last_offset).collect();
    let records: Vec<_> = ranges.iter().map(|range| range.records).collect();
    sqlx::query(
        "insert into run_partition (workspace_id, run_id, topic, partition, first_offset, last_offset, record_count)
         select $1, $2, topic, partition, first_offset, last_offset, record_count
         from unnest($3::text[], $4::int[], $5::bigint[], $6::bigint[], $7::bigint[])
              as landed (topic, partition, first_offset, last_offset, record_count)
         on conflict (run_id, topic, partition) do update
         set first_offset = least(run_partition.first_offset, excluded.first_offset),
             last_offset = greatest(run_partition.last_offset, excluded.last_offset),
             record_count = run_partition.record_count + excluded.record_count",
    )
    .bind(claim.workspace)
    .bind(claim.run)
    .bind(topics)
    .bind(partitions)
    .bind(firsts)
    .bind(lasts)
    .bind(records)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot write where records landed"))
}

/// One reason and how often it came.
pub(crate) struct DeadLetters<'a> {
    pub(crate) code: &'a str,
    pub(crate) column: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) records: i64,
    pub(crate) first_ordinal: i64,
    pub(crate) last_ordinal: i64,
}

pub(crate) async fn add_dead_letters(tx: &mut TenantTx, claim: &Claim, group: &DeadLetters<'_>) -> Result<()> {
    sqlx::query(
        "insert into dead_letter_group
             (workspace_id, id, run_id, code, column_name, reason, record_count, first_ordinal, last_ordinal)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict (run_id, code, column_name, reason) do update
         set record_count = dead_letter_group.record_count + excluded.record_count,
             last_ordinal = greatest(dead_letter_group.last_ordinal, excluded.last_ordinal),
             last_at = now()",
    )
    .bind(claim.workspace)
    .bind(DeadLetterGroupId::new())
    .bind(claim.run)
    .bind(group.code)
    .bind(group.column)
    .bind(group.reason)
    .bind(group.records)
    .bind(group.first_ordinal)
    .bind(group.last_ordinal)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot write the dead letters"))
}

/// Writes a statement down; one that is known already stays as it is.
pub(crate) async fn add_query(tx: &mut TenantTx, claim: &Claim, query: &SourceQuery) -> Result<()> {
    sqlx::query(
        "insert into source_query
             (workspace_id, run_id, query_id, statement, started_at, seconds, row_count, byte_count, is_computed, credits)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         on conflict (run_id, query_id) do nothing",
    )
    .bind(claim.workspace)
    .bind(claim.run)
    .bind(&query.id)
    .bind(&query.statement)
    .bind(query.at)
    .bind(query.seconds)
    .bind(i64::try_from(query.rows).unwrap_or(i64::MAX))
    .bind(i64::try_from(query.bytes).unwrap_or(i64::MAX))
    .bind(query.is_computed)
    .bind(query.credits)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot write the source's queries"))
}

/// Ends a run.
pub(crate) async fn finish(
    tx: &mut TenantTx,
    claim: &Claim,
    state: RunState,
    outcome: Option<&str>,
    error: Option<&Error>,
) -> Result<()> {
    let done = sqlx::query(fenced(
        "update run
         set state = $4, outcome = $5, failure_code = $6, failure_message = $7, finished_at = now(),
             lease_until = null, worker = null, row_version = row_version + 1
         where workspace_id = $1
           and id = $2
           and epoch = $3
           and state in ('claimed', 'extracting', 'publishing', 'finalizing', 'cancelling')",
    ))
    .bind(claim.workspace)
    .bind(claim.run)
    .bind(claim.epoch)
    .bind(state)
    .bind(outcome)
    .bind(error.map(|error| error.code.as_str()))
    .bind(error.map(|error| error.message.as_str()))
    .execute(tx.conn())
    .await
    .map_err(failed("cannot end the run"))?;
    held(done.rows_affected())
}

/// Lets a run wait for its next attempt; returns how many in a row made no progress.
pub(crate) async fn fruitless(tx: &mut TenantTx, claim: &Claim) -> Result<i32> {
    sqlx::query_scalar(fenced(
        "update run
         set fruitless_count = fruitless_count + 1
         where workspace_id = $1
           and id = $2
           and epoch = $3
         returning fruitless_count",
    ))
    .bind(claim.workspace)
    .bind(claim.run)
    .bind(claim.epoch)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot count the attempt"))?
    .ok_or_else(|| Error::new(Code::LeaseLost, "another worker has the run now"))
}

/// `counted` is false when the attempt ended for no fault of the run: a worker that stops.
pub(crate) async fn wait(
    tx: &mut TenantTx,
    claim: &Claim,
    wait_s: f64,
    error: Option<&Error>,
    counted: bool,
) -> Result<()> {
    let done = sqlx::query(fenced(
        "update run
         set state = 'retry_wait', due_at = now() + make_interval(secs => $4), failure_code = $5,
             failure_message = $6, lease_until = null, worker = null,
             attempt_count = attempt_count - case when $7 then 0 else 1 end, row_version = row_version + 1
         where workspace_id = $1
           and id = $2
           and epoch = $3
           and state in ('claimed', 'extracting', 'publishing', 'finalizing', 'cancelling')",
    ))
    .bind(claim.workspace)
    .bind(claim.run)
    .bind(claim.epoch)
    .bind(wait_s)
    .bind(error.map(|error| error.code.as_str()))
    .bind(error.map(|error| error.message.as_str()))
    .bind(counted)
    .execute(tx.conn())
    .await
    .map_err(failed("cannot let the run wait"))?;
    held(done.rows_affected())
}
