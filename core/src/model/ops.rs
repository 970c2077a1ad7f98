//! What may be done with models.

use serde_json::json;

use super::{Model, ModelVersion, store};
use crate::access::{Caller, Right};
use crate::app::App;
use crate::audit::ops::{Entry, record};
use crate::connector::{ModelSpec, Schema};
use crate::db::TenantTx;
use crate::endpoint::{Connection, ops as endpoint};
use crate::error::{Code, Error, Result};
use crate::id::{ConnectionId, ModelId, ModelVersionId};
use crate::limit::{self, Limit};
use crate::page::{Page, PageRequest};

/// Columns of a key, at most.
const KEY_COLUMNS_MAX: usize = 32;

/// Makes a model. Its columns, and the key if none is named, are found by the operation `describe_model`.
///
/// # Errors
/// `model.not_select` and its kin, `request.not_found` for the connection, `request.conflict` for a taken name.
pub async fn create(
    app: &App,
    caller: &Caller,
    connection: ConnectionId,
    name: &str,
    spec: &ModelSpec,
    primary_key: &[String],
) -> Result<Model> {
    caller.may(Right::ModelsWrite)?;
    refuse_bad_key(primary_key)?;
    let id = ModelId::new();

    let mut tx = app.db.tenant(caller.workspace).await?;
    check_spec(app, &mut tx, connection, spec).await?;
    store::insert(&mut tx, id, connection, name).await?;
    store::insert_version(&mut tx, id, 1, spec, primary_key, caller.actor.id()).await?;
    audit(&mut tx, caller, id, "model.created", json!({ "name": name, "connection": connection })).await?;
    limit::ops::keep_within(&mut tx, Limit::Models).await?;
    let model = read(&mut tx, id).await?;
    tx.commit().await?;
    Ok(model)
}

/// What to change of a model; absent keeps.
#[derive(Debug, Clone, Default)]
pub struct ModelPatch {
    /// Its name.
    pub name: Option<String>,
    /// What is read; makes a new version.
    pub spec: Option<ModelSpec>,
    /// The key's columns; makes a new version.
    pub primary_key: Option<Vec<String>>,
}

/// Changes a model. Syncs stay with their version until they are moved to the new one.
///
/// # Errors
/// As [`create`], and `request.precondition_failed`.
pub async fn update(app: &App, caller: &Caller, id: ModelId, row_version: i64, patch: ModelPatch) -> Result<Model> {
    caller.may(Right::ModelsWrite)?;
    refuse_bad_key(patch.primary_key.as_deref().unwrap_or(&[]))?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let current = read_locked(&mut tx, id, row_version).await?;
    let new_version = patch.spec.is_some() || patch.primary_key.is_some();
    let version = if new_version { current.version + 1 } else { current.version };
    if new_version {
        let spec = patch.spec.as_ref().unwrap_or(&current.spec);
        check_spec(app, &mut tx, current.connection_id, spec).await?;
        let key = patch.primary_key.as_ref().unwrap_or(&current.primary_key);
        store::insert_version(&mut tx, id, version, spec, key, caller.actor.id()).await?;
    }
    store::update(&mut tx, id, patch.name.as_deref().unwrap_or(&current.name), version).await?;
    audit(&mut tx, caller, id, "model.updated", json!({ "name": patch.name, "version": version })).await?;
    let model = read(&mut tx, id).await?;
    tx.commit().await?;
    Ok(model)
}

/// Archives a model that no sync uses.
///
/// # Errors
/// `request.in_use`, `request.precondition_failed`.
pub async fn archive(app: &App, caller: &Caller, id: ModelId, row_version: i64) -> Result<()> {
    caller.may(Right::ModelsWrite)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    read_locked(&mut tx, id, row_version).await?;
    let syncs = store::count_syncs(&mut tx, id).await?;
    if syncs > 0 {
        return Err(Error::new(Code::InUse, format!("the model is used by {syncs} syncs")));
    }
    store::archive(&mut tx, id).await?;
    audit(&mut tx, caller, id, "model.archived", json!({})).await?;
    tx.commit().await
}

/// One model.
///
/// # Errors
/// `request.not_found`.
pub async fn get(app: &App, caller: &Caller, id: ModelId) -> Result<Model> {
    caller.may(Right::ModelsRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    read(&mut tx, id).await
}

/// A page of models not archived.
///
/// # Errors
/// [`Code::Database`].
pub async fn list(app: &App, caller: &Caller, page: PageRequest) -> Result<Page<Model>> {
    caller.may(Right::ModelsRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let models = store::list(&mut tx, page).await?;
    Ok(Page::of(models, page, |model| model.id.uuid()))
}

/// A model's versions, newest first, 200 at most.
///
/// # Errors
/// `request.not_found`.
pub async fn versions(app: &App, caller: &Caller, id: ModelId) -> Result<Vec<ModelVersion>> {
    caller.may(Right::ModelsRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    read(&mut tx, id).await?;
    store::versions(&mut tx, id).await
}

/// Keeps what the source says of a version: its columns, and its key where none was named. For a worker.
///
/// # Errors
/// `model.key_missing` when the key names a column that is not there.
pub async fn record_columns(
    tx: &mut TenantTx,
    id: ModelVersionId,
    named_key: &[String],
    schema: &Schema,
    source_key: &[String],
) -> Result<()> {
    let key = if named_key.is_empty() { source_key } else { named_key };
    if let Some(missing) = key.iter().find(|column| schema.position(column).is_none()) {
        return Err(Error::new(Code::ModelKeyMissing, format!("the key's column `{missing}` is not in the model")));
    }
    store::set_columns(tx, id, schema, key).await
}

pub(crate) async fn read(tx: &mut TenantTx, id: ModelId) -> Result<Model> {
    store::get(tx, id, false).await?.ok_or_else(|| Error::not_found("model"))
}

async fn read_locked(tx: &mut TenantTx, id: ModelId, row_version: i64) -> Result<Model> {
    let model = store::get(tx, id, true).await?.ok_or_else(|| Error::not_found("model"))?;
    if model.archived_at.is_some() {
        return Err(Error::new(Code::WrongState, "the model is archived"));
    }
    if model.row_version != row_version {
        return Err(Error::new(Code::PreconditionFailed, "the model was changed meanwhile"));
    }
    Ok(model)
}

async fn check_spec(app: &App, tx: &mut TenantTx, connection: ConnectionId, spec: &ModelSpec) -> Result<()> {
    let kind = endpoint::kind::<Connection>(tx, connection).await?;
    app.registry.find_source(&kind)?.validate_model(spec)
}

fn refuse_bad_key(key: &[String]) -> Result<()> {
    let repeated = key.iter().enumerate().any(|(n, column)| key[..n].contains(column));
    if repeated || key.len() > KEY_COLUMNS_MAX || key.iter().any(String::is_empty) {
        let rule = format!("must name each column once, {KEY_COLUMNS_MAX} at most");
        return Err(Error::invalid("/primary_key", rule));
    }
    Ok(())
}

async fn audit(
    tx: &mut TenantTx,
    caller: &Caller,
    id: ModelId,
    action: &str,
    changes: serde_json::Value,
) -> Result<()> {
    record(tx, caller, Entry { action, target_kind: "model", target: id.uuid(), changes }).await
}
