//! The sync's statements.

use sqlx::types::Json;
use sqlx::{FromRow, Row, postgres::PgRow};
use uuid::Uuid;

use super::health::RunsSeen;
use super::ops::NewSync;
use super::work::Work;
use super::{Position, Sync, SyncConfig, SyncState};
use crate::connector::{ModelSpec, Progress, Schema, Sealed};
use crate::db::{TenantTx, failed, fenced};
use crate::error::{Code, Error, Result};
use crate::id::{ModelVersionId, SyncId, SyncVersionId};
use crate::page::PageRequest;

impl FromRow<'_, PgRow> for Sync {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            model_id: row.try_get("model_id")?,
            destination_id: row.try_get("destination_id")?,
            name: row.try_get("name")?,
            state: row.try_get("state")?,
            version: row.try_get("version")?,
            model_version: row.try_get("model_version")?,
            generation: row.try_get("generation")?,
            topic: row.try_get("topic")?,
            config: row.try_get::<Json<SyncConfig>, _>("config")?.0,
            row_version: row.try_get("row_version")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
            version_id: row.try_get("version_id")?,
            model_version_id: row.try_get("model_version_id")?,
        })
    }
}

impl FromRow<'_, PgRow> for Position {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            generation: row.try_get("generation")?,
            batch_seq: row.try_get("batch_seq")?,
            batch_state: row.try_get("batch_state")?,
            batch: row.try_get("batch")?,
            carry: row.try_get("carry")?,
            token: row.try_get("token")?,
            ordinal: row.try_get("ordinal")?,
            progress_partition: row.try_get("progress_partition")?,
            progress_offset: row.try_get("progress_offset")?,
            cluster_id: row.try_get("cluster_id")?,
            progress: row.try_get::<Option<Json<Progress>>, _>("progress")?.map(|progress| progress.0),
            adopt: row.try_get("adopt")?,
        })
    }
}

/// A row of `sync_version` to be.
pub(crate) struct NewVersion<'a> {
    pub(crate) id: SyncVersionId,
    pub(crate) version: i32,
    pub(crate) model_version_id: ModelVersionId,
    pub(crate) generation: i64,
    pub(crate) config: &'a SyncConfig,
    pub(crate) topic: &'a str,
    pub(crate) author: Option<Uuid>,
}

pub(crate) async fn insert(tx: &mut TenantTx, id: SyncId, new: &NewSync) -> Result<()> {
    sqlx::query("insert into sync (workspace_id, id, model_id, destination_id, name) values ($1, $2, $3, $4, $5)")
        .bind(tx.workspace())
        .bind(id)
        .bind(new.model)
        .bind(new.destination)
        .bind(&new.name)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot store the sync"))
}

pub(crate) async fn insert_version(tx: &mut TenantTx, id: SyncId, new: &NewVersion<'_>) -> Result<()> {
    sqlx::query(
        "insert into sync_version
             (workspace_id, id, sync_id, version, model_version_id, generation, config, topic, created_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(tx.workspace())
    .bind(new.id)
    .bind(id)
    .bind(new.version)
    .bind(new.model_version_id)
    .bind(new.generation)
    .bind(Json(new.config))
    .bind(new.topic)
    .bind(new.author)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot store the sync's version"))
}

pub(crate) async fn lock(tx: &mut TenantTx, id: SyncId) -> Result<()> {
    sqlx::query("select 1 from sync where workspace_id = $1 and id = $2 for update")
        .bind(tx.workspace())
        .bind(id)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot lock the sync"))
}

pub(crate) async fn get(tx: &mut TenantTx, id: SyncId) -> Result<Option<Sync>> {
    sqlx::query_as(
        "select s.id, s.model_id, s.destination_id, s.name, s.state, s.current_version as version,
                m.version as model_version, v.generation, v.topic, v.config, s.row_version, s.created_at,
                s.updated_at, v.id as version_id, v.model_version_id
         from sync as s
         join sync_version as v
           on v.workspace_id = s.workspace_id and v.sync_id = s.id and v.version = s.current_version
         join model_version as m on m.workspace_id = s.workspace_id and m.id = v.model_version_id
         where s.workspace_id = $1
           and s.id = $2",
    )
    .bind(tx.workspace())
    .bind(id)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read the sync"))
}

pub(crate) async fn list(tx: &mut TenantTx, page: PageRequest) -> Result<Vec<Sync>> {
    sqlx::query_as(
        "select s.id, s.model_id, s.destination_id, s.name, s.state, s.current_version as version,
                m.version as model_version, v.generation, v.topic, v.config, s.row_version, s.created_at,
                s.updated_at, v.id as version_id, v.model_version_id
         from (
             -- The page first: joined before, every sync of the workspace would be.
             select *
             from sync
             where workspace_id = $1
               and state <> 'archived'
               and ($2::uuid is null or id < $2)
             order by id desc
             limit $3 + 1
         ) as s
         join sync_version as v
           on v.workspace_id = s.workspace_id and v.sync_id = s.id and v.version = s.current_version
         join model_version as m on m.workspace_id = s.workspace_id and m.id = v.model_version_id
         order by s.id desc",
    )
    .bind(tx.workspace())
    .bind(page.before)
    .bind(page.limit)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the syncs"))
}

pub(crate) async fn update(tx: &mut TenantTx, id: SyncId, name: &str, state: SyncState, version: i32) -> Result<()> {
    sqlx::query(
        "update sync
         set name = $3, state = $4, current_version = $5, row_version = row_version + 1, updated_at = now()
         where workspace_id = $1
           and id = $2",
    )
    .bind(tx.workspace())
    .bind(id)
    .bind(name)
    .bind(state)
    .bind(version)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot change the sync"))
}

pub(crate) async fn model_columns(tx: &mut TenantTx, id: ModelVersionId) -> Result<(Option<Schema>, Vec<String>)> {
    let (columns, key): (Option<Json<Schema>>, Vec<String>) =
        sqlx::query_as("select columns, primary_key from model_version where workspace_id = $1 and id = $2")
            .bind(tx.workspace())
            .bind(id)
            .fetch_one(tx.conn())
            .await
            .map_err(failed("cannot read the model's columns"))?;
    Ok((columns.map(|columns| columns.0), key))
}

pub(crate) async fn model_spec(tx: &mut TenantTx, id: ModelVersionId) -> Result<ModelSpec> {
    let spec: Json<ModelSpec> =
        sqlx::query_scalar("select spec from model_version where workspace_id = $1 and id = $2")
            .bind(tx.workspace())
            .bind(id)
            .fetch_one(tx.conn())
            .await
            .map_err(failed("cannot read the model"))?;
    Ok(spec.0)
}

/// The name of another sync, active or paused, that takes the changes of the same Stream through the same connection. Of
/// two that are activated at once the later one waits here, and sees the earlier.
pub(crate) async fn other_of_stream(tx: &mut TenantTx, sync: &Sync) -> Result<Option<String>> {
    sqlx::query(
        "select c.id
         from model_version as mine
         join model as m on m.workspace_id = mine.workspace_id and m.id = mine.model_id
         join connection as c on c.workspace_id = m.workspace_id and c.id = m.connection_id
         where mine.workspace_id = $1
           and mine.id = $2
           and mine.spec ->> 'kind' = 'stream'
         for no key update of c",
    )
    .bind(tx.workspace())
    .bind(sync.model_version_id)
    .execute(tx.conn())
    .await
    .map_err(failed("cannot hold the Stream's connection"))?;
    sqlx::query_scalar(
        "select s.name
         from model_version as mine
         join model as m on m.workspace_id = mine.workspace_id and m.id = mine.model_id
         join model as o on o.workspace_id = m.workspace_id and o.connection_id = m.connection_id
         join model_version as theirs
           on theirs.workspace_id = o.workspace_id and theirs.model_id = o.id and theirs.spec = mine.spec
         join sync_version as v on v.workspace_id = o.workspace_id and v.model_version_id = theirs.id
         join sync as s on s.workspace_id = v.workspace_id and s.id = v.sync_id and s.current_version = v.version
         where mine.workspace_id = $1
           and mine.id = $2
           and mine.spec ->> 'kind' = 'stream'
           and s.id <> $3
           and s.state in ('active', 'paused')
         limit 1",
    )
    .bind(tx.workspace())
    .bind(sync.model_version_id)
    .bind(sync.id)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot look for another sync of the Stream"))
}

pub(crate) async fn runs_seen(tx: &mut TenantTx, id: SyncId) -> Result<RunsSeen> {
    sqlx::query_as(
        "select exists (select 1 from run
                        where workspace_id = $1 and sync_id = $2
                          and state in ('claimed', 'extracting', 'publishing', 'finalizing', 'retry_wait', 'cancelling')
                       ) as working,
                exists (select 1 from run
                        where workspace_id = $1 and sync_id = $2 and state = 'queued') as queued,
                last.state as last_state, last.failure_code as last_failure_code
         from (values (1)) as one
         left join lateral (
             select state, failure_code
             from run
             where workspace_id = $1
               and sync_id = $2
               and state in ('succeeded', 'succeeded_with_errors', 'failed')
             order by id desc
             limit 1
         ) as last on true",
    )
    .bind(tx.workspace())
    .bind(id)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot look at the sync's runs"))
}

pub(crate) async fn position(tx: &mut TenantTx, id: SyncId) -> Result<Option<Position>> {
    sqlx::query_as(
        "select generation, batch_seq, batch_state, batch, carry, token, ordinal, progress_partition,
                progress_offset, cluster_id, progress, adopt
         from sync_position
         where workspace_id = $1
           and sync_id = $2",
    )
    .bind(tx.workspace())
    .bind(id)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read the sync's position"))
}

/// The cluster and the progress record's place: a reset may be the answer to another cluster.
pub(crate) async fn forget_place(tx: &mut TenantTx, id: SyncId) -> Result<()> {
    sqlx::query(
        "update sync_position
         set cluster_id = null, progress_partition = null, progress_offset = null, adopt = false, updated_at = now()
         where workspace_id = $1
           and sync_id = $2",
    )
    .bind(tx.workspace())
    .bind(id)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot reset the sync's position"))
}

impl FromRow<'_, PgRow> for Work {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            sync_id: row.try_get("sync_id")?,
            sync_name: row.try_get("sync_name")?,
            generation: row.try_get("generation")?,
            topic: row.try_get("topic")?,
            config: row.try_get::<Json<SyncConfig>, _>("config")?.0,
            model_name: row.try_get("model_name")?,
            model_version_id: row.try_get("model_version_id")?,
            spec: row.try_get::<Json<ModelSpec>, _>("spec")?.0,
            primary_key: row.try_get("primary_key")?,
            columns: row.try_get::<Option<Json<Schema>>, _>("columns")?.map(|columns| columns.0),
            connection_id: row.try_get("connection_id")?,
            connection_name: row.try_get("connection_name")?,
            destination_id: row.try_get("destination_id")?,
        })
    }
}

pub(crate) async fn work(tx: &mut TenantTx, id: SyncId, version: SyncVersionId) -> Result<Option<Work>> {
    sqlx::query_as(
        "select s.id as sync_id, s.name as sync_name, v.generation, v.topic, v.config, m.name as model_name,
                v.model_version_id, mv.spec, mv.primary_key, mv.columns, m.connection_id,
                c.name as connection_name, s.destination_id
         from sync as s
         join sync_version as v on v.workspace_id = s.workspace_id and v.sync_id = s.id
         join model_version as mv on mv.workspace_id = s.workspace_id and mv.id = v.model_version_id
         join model as m on m.workspace_id = s.workspace_id and m.id = s.model_id
         join connection as c on c.workspace_id = s.workspace_id and c.id = m.connection_id
         where s.workspace_id = $1
           and s.id = $2
           and v.id = $3",
    )
    .bind(tx.workspace())
    .bind(id)
    .bind(version)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read what the sync does"))
}

pub(crate) async fn take_position(tx: &mut TenantTx, id: SyncId, generation: i64, epoch: i64) -> Result<Position> {
    // A new generation forgets the batch in hand and where it was; batch numbers go on.
    sqlx::query_as(
        "insert into sync_position (workspace_id, sync_id, generation, epoch)
         values ($1, $2, $3, $4)
         on conflict (sync_id) do update
         set generation = excluded.generation,
             epoch = excluded.epoch,
             batch_state = case when sync_position.generation = excluded.generation
                                then sync_position.batch_state else 'released' end,
             batch = case when sync_position.generation = excluded.generation then sync_position.batch end,
             carry = case when sync_position.generation = excluded.generation then sync_position.carry end,
             token = case when sync_position.generation = excluded.generation then sync_position.token end,
             ordinal = case when sync_position.generation = excluded.generation then sync_position.ordinal else 0 end,
             updated_at = now()
         where sync_position.epoch < excluded.epoch
         returning generation, batch_seq, batch_state, batch, carry, token, ordinal, progress_partition,
                   progress_offset, cluster_id, progress, adopt",
    )
    .bind(tx.workspace())
    .bind(id)
    .bind(generation)
    .bind(epoch)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot take the sync's position"))?
    .ok_or_else(lost)
}

fn lost() -> Error {
    Error::new(Code::LeaseLost, "another worker has the sync now")
}

fn held(rows: u64) -> Result<()> {
    if rows == 1 { Ok(()) } else { Err(lost()) }
}

pub(crate) async fn set_batch(tx: &mut TenantTx, id: SyncId, epoch: i64, seq: i64, sealed: &Sealed) -> Result<()> {
    let done = sqlx::query(fenced(
        "update sync_position
         set batch_seq = $4, batch_state = $5, batch = $6, carry = $7, ordinal = 0, updated_at = now()
         where workspace_id = $1
           and sync_id = $2
           and epoch = $3",
    ))
    .bind(tx.workspace())
    .bind(id)
    .bind(epoch)
    .bind(seq)
    .bind(if sealed.empty { "released" } else { "sealed" })
    .bind(&sealed.batch)
    .bind(&sealed.carry)
    .execute(tx.conn())
    .await
    .map_err(failed("cannot write the batch"))?;
    held(done.rows_affected())
}

pub(crate) async fn set_place(tx: &mut TenantTx, id: SyncId, epoch: i64, cluster: &str, partition: i32) -> Result<()> {
    let done = sqlx::query(fenced(
        "update sync_position
         set cluster_id = $4, progress_partition = $5, updated_at = now()
         where workspace_id = $1
           and sync_id = $2
           and epoch = $3",
    ))
    .bind(tx.workspace())
    .bind(id)
    .bind(epoch)
    .bind(cluster)
    .bind(partition)
    .execute(tx.conn())
    .await
    .map_err(failed("cannot write the lane's place"))?;
    held(done.rows_affected())
}

pub(crate) async fn set_progress(
    tx: &mut TenantTx,
    id: SyncId,
    epoch: i64,
    progress: &Progress,
    offset: Option<i64>,
) -> Result<()> {
    let done = sqlx::query(fenced(
        "update sync_position
         set token = coalesce($4, token), ordinal = $5, progress_offset = coalesce($6, progress_offset),
             progress = $8, batch_state = case when $7 then 'delivered' else batch_state end, updated_at = now()
         where workspace_id = $1
           and sync_id = $2
           and epoch = $3",
    ))
    .bind(tx.workspace())
    .bind(id)
    .bind(epoch)
    .bind(&progress.source_token)
    .bind(progress.ordinal)
    .bind(offset)
    .bind(progress.batch_complete)
    .bind(Json(progress))
    .execute(tx.conn())
    .await
    .map_err(failed("cannot write the sync's position"))?;
    held(done.rows_affected())
}

/// What Kafka tells of the sync is where it is; a batch that it knows to be incomplete goes on.
pub(crate) async fn adopt(tx: &mut TenantTx, id: SyncId, epoch: i64, progress: &Progress) -> Result<()> {
    let done = sqlx::query(fenced(
        "update sync_position
         set generation = $4, batch_seq = $5, batch_state = $6, batch = $7, carry = $8, token = $9, ordinal = $10,
             progress = $11, adopt = false, updated_at = now()
         where workspace_id = $1
           and sync_id = $2
           and epoch = $3",
    ))
    .bind(tx.workspace())
    .bind(id)
    .bind(epoch)
    .bind(progress.generation)
    .bind(progress.batch_seq)
    .bind(if progress.batch_complete { "delivered" } else { "sealed" })
    .bind(&progress.batch)
    .bind(&progress.carry)
    .bind(&progress.source_token)
    .bind(progress.ordinal)
    .bind(Json(progress))
    .execute(tx.conn())
    .await
    .map_err(failed("cannot adopt Kafka's position"))?;
    held(done.rows_affected())
}

/// The generation of the version that runs, and of the current one, is at least Kafka's: a restored database forgot its resets.
pub(crate) async fn raise_generation(
    tx: &mut TenantTx,
    id: SyncId,
    version: SyncVersionId,
    generation: i64,
) -> Result<()> {
    sqlx::query(
        "update sync_version as v
         set generation = greatest(v.generation, $4)
         from sync as s
         where s.workspace_id = $1
           and s.id = $2
           and v.workspace_id = $1
           and v.sync_id = $2
           and (v.id = $3 or v.version = s.current_version)",
    )
    .bind(tx.workspace())
    .bind(id)
    .bind(version)
    .bind(generation)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot raise the sync's generation"))
}

/// Asks the next run to adopt Kafka's position. A sync restored to before its first run has no place yet.
pub(crate) async fn ask_adoption(tx: &mut TenantTx, id: SyncId, generation: i64) -> Result<()> {
    sqlx::query(
        "insert into sync_position (workspace_id, sync_id, generation, adopt)
         values ($1, $2, $3, true)
         on conflict (sync_id) do update
         set adopt = true, updated_at = now()",
    )
    .bind(tx.workspace())
    .bind(id)
    .bind(generation)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot ask for the adoption"))
}

pub(crate) async fn set_released(tx: &mut TenantTx, id: SyncId, epoch: i64, seq: i64) -> Result<()> {
    let done = sqlx::query(fenced(
        "update sync_position
         set batch_state = 'released', batch = null, updated_at = now()
         where workspace_id = $1
           and sync_id = $2
           and epoch = $3
           and batch_seq = $4",
    ))
    .bind(tx.workspace())
    .bind(id)
    .bind(epoch)
    .bind(seq)
    .execute(tx.conn())
    .await
    .map_err(failed("cannot release the batch"))?;
    held(done.rows_affected())
}
