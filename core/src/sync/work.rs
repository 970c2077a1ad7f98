//! What a worker needs of a sync, and where it writes down how far the sync has got.

use super::{Position, SyncConfig, store};
use crate::connector::{ModelSpec, Progress, Schema, Sealed};
use crate::db::TenantTx;
use crate::error::{Error, Result};
use crate::id::{ConnectionId, DestinationId, ModelVersionId, SyncId, SyncVersionId};

/// A sync as one run does it.
#[derive(Debug, Clone)]
pub struct Work {
    /// The sync.
    pub sync_id: SyncId,
    /// Its name, for the envelope's `source`.
    pub sync_name: String,
    /// The generation of the version that runs.
    pub generation: i64,
    /// The data topic.
    pub topic: String,
    /// How it is done.
    pub config: SyncConfig,
    /// The model's name.
    pub model_name: String,
    /// The model version's row.
    pub model_version_id: ModelVersionId,
    /// What is read.
    pub spec: ModelSpec,
    /// The key's columns.
    pub primary_key: Vec<String>,
    /// The columns, if described.
    pub columns: Option<Schema>,
    /// Where it is read.
    pub connection_id: ConnectionId,
    /// The connection's name.
    pub connection_name: String,
    /// Where it goes.
    pub destination_id: DestinationId,
}

/// Reads a sync at one of its versions.
///
/// # Errors
/// `request.not_found`.
pub async fn read(tx: &mut TenantTx, id: SyncId, version: SyncVersionId) -> Result<Work> {
    store::work(tx, id, version).await?.ok_or_else(|| Error::not_found("sync"))
}

/// Where a sync is, in the generation that runs; a new generation starts from the beginning. Written for an epoch:
/// an earlier one can write no more.
///
/// # Errors
/// [`crate::error::Code::Database`].
pub async fn position(tx: &mut TenantTx, id: SyncId, generation: i64, epoch: i64) -> Result<Position> {
    store::take_position(tx, id, generation, epoch).await
}

/// Where the next run of a sync would begin, for a look ahead: a new generation, from the beginning.
///
/// # Errors
/// [`crate::error::Code::Database`].
pub async fn position_ahead(tx: &mut TenantTx, id: SyncId, generation: i64) -> Result<Position> {
    let known = store::position(tx, id).await?;
    Ok(known.map_or_else(|| Position::beginning(generation), |position| position.of_generation(generation)))
}

pub(crate) async fn set_batch(tx: &mut TenantTx, id: SyncId, epoch: i64, seq: i64, sealed: &Sealed) -> Result<()> {
    store::set_batch(tx, id, epoch, seq, sealed).await
}

pub(crate) async fn set_place(tx: &mut TenantTx, id: SyncId, epoch: i64, cluster: &str, partition: i32) -> Result<()> {
    store::set_place(tx, id, epoch, cluster, partition).await
}

pub(crate) async fn set_progress(
    tx: &mut TenantTx,
    id: SyncId,
    epoch: i64,
    progress: &Progress,
    offset: Option<i64>,
) -> Result<()> {
    store::set_progress(tx, id, epoch, progress, offset).await
}

/// Takes Kafka's position over; the last batch that was known before.
pub(crate) async fn adopt(
    tx: &mut TenantTx,
    id: SyncId,
    version: SyncVersionId,
    epoch: i64,
    progress: &Progress,
) -> Result<i64> {
    let before = store::position(tx, id).await?.map_or(0, |position| position.batch_seq);
    store::raise_generation(tx, id, version, progress.generation).await?;
    store::adopt(tx, id, epoch, progress).await?;
    Ok(before)
}

pub(crate) async fn set_released(tx: &mut TenantTx, id: SyncId, epoch: i64, seq: i64) -> Result<()> {
    store::set_released(tx, id, epoch, seq).await
}

/// Reads a sync at its current version.
///
/// # Errors
/// `request.not_found`.
pub async fn current(tx: &mut TenantTx, id: SyncId) -> Result<Work> {
    let sync = store::get(tx, id).await?.ok_or_else(|| Error::not_found("sync"))?;
    read(tx, id, sync.version_id).await
}
