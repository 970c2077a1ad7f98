//! What may be done with syncs.

use serde_json::{Value, json};

use super::health::{self, Health};
use super::{Consequence, Position, Resync, Sync, SyncConfig, SyncState, TopicNames, store};
use crate::access::{Caller, Right};
use crate::app::App;
use crate::audit::ops::{Entry, record};
use crate::connector::{ModelSpec, ReadMode};
use crate::db::TenantTx;
use crate::endpoint::{Connection, Destination, merge, ops as endpoint};
use crate::error::{Code, Error, Result};
use crate::id::{DestinationId, ModelId, SyncId, SyncVersionId};
use crate::limit::{self, Limit};
use crate::model::{self, Model};
use crate::page::{Page, PageRequest};
use crate::workspace;

/// What makes a sync.
#[derive(Debug, Clone)]
pub struct NewSync {
    /// Its name.
    pub name: String,
    /// What is read.
    pub model: ModelId,
    /// Where it goes.
    pub destination: DestinationId,
    /// How it is done.
    pub config: SyncConfig,
}

/// Makes a sync as a draft.
///
/// # Errors
/// `request.invalid`, `request.not_found` for model or destination, `request.conflict` for a taken name.
pub async fn create(app: &App, caller: &Caller, new: NewSync) -> Result<Sync> {
    caller.may(Right::SyncsWrite)?;
    new.config.validate()?;
    app.registry.find_format(&new.config.format)?;
    let id = SyncId::new();

    let mut tx = app.db.tenant(caller.workspace).await?;
    endpoint::kind::<Destination>(&mut tx, new.destination).await?;
    let model = model::ops::read(&mut tx, new.model).await?;
    new.config.validate_for(&model.spec)?;
    let topic = new.config.topic(&topic_names(&mut tx, &model).await?)?;
    store::insert(&mut tx, id, &new).await?;
    let version = store::NewVersion {
        id: SyncVersionId::new(),
        version: 1,
        model_version_id: model.version_id,
        generation: 1,
        config: &new.config,
        topic: &topic,
        author: caller.actor.id(),
    };
    store::insert_version(&mut tx, id, &version).await?;
    audit(&mut tx, caller, id, "sync.created", json!({ "name": new.name, "topic": topic })).await?;
    let sync = read(&mut tx, id).await?;
    tx.commit().await?;
    Ok(sync)
}

/// What to change of a sync; absent keeps.
#[derive(Debug, Clone, Default)]
pub struct SyncPatch {
    /// Its name.
    pub name: Option<String>,
    /// A merge patch of its configuration.
    pub config: Option<Value>,
    /// Read the model's current version.
    pub take_current_model: bool,
    /// The consequence that the caller has read.
    pub accept: Option<Consequence>,
    /// Say the consequence and save nothing.
    pub dry_run: bool,
}

/// A change, made or only looked at.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The sync as it is after the change, or would be.
    pub sync: Sync,
    /// What the change means.
    pub consequence: Consequence,
}

/// Changes a sync: a new version, whose consequence is said before it is saved.
///
/// # Errors
/// `sync.consequence_not_accepted` unless `accept` is the consequence or there is none;
/// `request.precondition_failed`; else as [`create`].
pub async fn update(app: &App, caller: &Caller, id: SyncId, row_version: i64, patch: SyncPatch) -> Result<Changed> {
    caller.may(Right::SyncsWrite)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let current = read_locked(&mut tx, id, Some(row_version)).await?;
    let model = model::ops::read(&mut tx, current.model_id).await?;
    let config = patched(&current.config, patch.config)?;
    config.validate()?;
    app.registry.find_format(&config.format)?;
    let topic = config.topic(&topic_names(&mut tx, &model).await?)?;
    let model_version_id = if patch.take_current_model { model.version_id } else { current.model_version_id };
    config.validate_for(&store::model_spec(&mut tx, model_version_id).await?)?;
    let same_model = model_version_id == current.model_version_id;
    let mut consequence = current.config.consequence(&config, topic == current.topic, same_model);
    if current.state == SyncState::Draft && consequence != Consequence::None {
        consequence = Consequence::NextRun; // It has sent nothing yet.
    }
    if !patch.dry_run {
        refuse_unaccepted(consequence, &current, &patch.accept)?;
    }

    let name = patch.name.as_deref().unwrap_or(&current.name);
    let new_version = config != current.config || !same_model || topic != current.topic;
    let version = current.version + i32::from(new_version);
    if new_version {
        let raised = i64::from(consequence == Consequence::NewGeneration);
        let row = store::NewVersion {
            id: SyncVersionId::new(),
            version,
            model_version_id,
            generation: current.generation + raised,
            config: &config,
            topic: &topic,
            author: caller.actor.id(),
        };
        store::insert_version(&mut tx, id, &row).await?;
    }
    store::update(&mut tx, id, name, current.state, version).await?;
    let changes = json!({ "name": name, "version": version, "consequence": consequence });
    audit(&mut tx, caller, id, "sync.updated", changes).await?;
    let sync = read(&mut tx, id).await?;
    if !same_model && sync.state != SyncState::Draft {
        refuse_shared_stream(&mut tx, &sync).await?;
    }
    if !patch.dry_run {
        tx.commit().await?;
    }
    Ok(Changed { sync, consequence })
}

/// Starts again from the beginning: a new generation of the same configuration. A sync of a Stream sends an unfinished
/// batch again from its start, and then goes on with what waits in the Stream.
///
/// # Errors
/// `request.wrong_state` while a run is under way.
pub async fn reset(app: &App, caller: &Caller, id: SyncId) -> Result<Sync> {
    caller.may(Right::SyncsWrite)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let current = read_locked(&mut tx, id, None).await?;
    if store::runs_seen(&mut tx, id).await?.working {
        return Err(Error::new(Code::WrongState, "a run of the sync is under way; cancel it or wait for its end"));
    }
    let version = store::NewVersion {
        id: SyncVersionId::new(),
        version: current.version + 1,
        model_version_id: current.model_version_id,
        generation: current.generation + 1,
        config: &current.config,
        topic: &current.topic,
        author: caller.actor.id(),
    };
    store::insert_version(&mut tx, id, &version).await?;
    store::update(&mut tx, id, &current.name, current.state, version.version).await?;
    store::forget_place(&mut tx, id).await?;
    audit(&mut tx, caller, id, "sync.reset", json!({ "generation": version.generation })).await?;
    let sync = read(&mut tx, id).await?;
    tx.commit().await?;
    Ok(sync)
}

/// Lets the next run adopt Kafka's position: the way on after Freshet's database was restored from a back-up. What Kafka's
/// progress record says is delivered is delivered; nothing is sent twice, and nothing is left out.
///
/// # Errors
/// `request.wrong_state` unless the last run ended because the ledger is behind Kafka, and while one is under way.
pub async fn adopt_position(app: &App, caller: &Caller, id: SyncId) -> Result<Sync> {
    caller.may(Right::SyncsWrite)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let current = read_locked(&mut tx, id, None).await?;
    let runs = store::runs_seen(&mut tx, id).await?;
    if runs.working {
        return Err(Error::new(Code::WrongState, "a run of the sync is under way; cancel it or wait for its end"));
    }
    if runs.last_failure_code.as_deref() != Some(Code::KafkaLedgerBehind.as_str()) {
        let told = "nothing is to be adopted: the last run did not end with `kafka.ledger_behind`";
        return Err(Error::new(Code::WrongState, told));
    }
    store::ask_adoption(&mut tx, id, current.generation).await?;
    audit(&mut tx, caller, id, "sync.position_adopted", json!({ "generation": current.generation })).await?;
    tx.commit().await?;
    Ok(current)
}

/// Checks that a sync may be resynced so. What hides changes wants the sync's name as its confirmation.
///
/// # Errors
/// `request.invalid` for a model that is no Stream, and without the confirmation; `request.wrong_state`.
pub async fn confirm_resync(app: &App, caller: &Caller, id: SyncId, how: Resync, confirm: Option<&str>) -> Result<()> {
    caller.may(Right::SyncsWrite)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let sync = read_locked(&mut tx, id, None).await?;
    if !matches!(sync.config.mode, ReadMode::Changes { .. }) {
        let told = "a resync is for syncs of a Stream; `reset` sends every row of a table or statement again";
        return Err(Error::new(Code::WrongState, told));
    }
    if store::runs_seen(&mut tx, id).await?.working {
        return Err(Error::new(Code::WrongState, "a run of the sync is under way; cancel it or wait for its end"));
    }
    if how == Resync::Position && confirm != Some(sync.name.as_str()) {
        let rule = "must be the sync's name: `position` hides every change that is not sent yet";
        return Err(Error::invalid("/confirm", rule));
    }
    Ok(())
}

/// Lets a draft run.
///
/// # Errors
/// `model.key_missing`, `model.cursor_unsuitable`; `request.wrong_state` while the model is not described;
/// `platform.quota_exceeded`.
pub async fn activate(app: &App, caller: &Caller, id: SyncId) -> Result<Sync> {
    transition(app, caller, id, "sync.activated", SyncState::Active, &[SyncState::Draft]).await
}

/// Keeps a sync from starting runs; one under way goes on.
///
/// # Errors
/// `request.wrong_state` unless it is active.
pub async fn pause(app: &App, caller: &Caller, id: SyncId) -> Result<Sync> {
    transition(app, caller, id, "sync.paused", SyncState::Paused, &[SyncState::Active]).await
}

/// Lets a paused sync run again.
///
/// # Errors
/// As [`activate`].
pub async fn resume(app: &App, caller: &Caller, id: SyncId) -> Result<Sync> {
    transition(app, caller, id, "sync.resumed", SyncState::Active, &[SyncState::Paused]).await
}

/// Takes a sync from the lists; its history stays.
///
/// # Errors
/// `request.wrong_state` while a run is queued or under way.
pub async fn archive(app: &App, caller: &Caller, id: SyncId) -> Result<Sync> {
    let from = [SyncState::Draft, SyncState::Active, SyncState::Paused];
    transition(app, caller, id, "sync.archived", SyncState::Archived, &from).await
}

/// One sync and how it is doing.
///
/// # Errors
/// `request.not_found`.
pub async fn get(app: &App, caller: &Caller, id: SyncId) -> Result<(Sync, Health, Option<Position>)> {
    caller.may(Right::SyncsRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let sync = read(&mut tx, id).await?;
    let health = health::derive(sync.state, &store::runs_seen(&mut tx, id).await?);
    let position = store::position(&mut tx, id).await?;
    Ok((sync, health, position))
}

/// A page of syncs not archived.
///
/// # Errors
/// [`Code::Database`].
pub async fn list(app: &App, caller: &Caller, page: PageRequest) -> Result<Page<Sync>> {
    caller.may(Right::SyncsRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let syncs = store::list(&mut tx, page).await?;
    Ok(Page::of(syncs, page, |sync| sync.id.uuid()))
}

async fn transition(
    app: &App,
    caller: &Caller,
    id: SyncId,
    action: &str,
    to: SyncState,
    from: &[SyncState],
) -> Result<Sync> {
    caller.may(Right::SyncsWrite)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let current = read_locked(&mut tx, id, None).await?;
    if current.state == to {
        return Ok(current);
    }
    if !from.contains(&current.state) {
        let wanted: Vec<_> = from.iter().map(|state| state.as_str()).collect();
        let told = format!("the sync is {}; it must be {}", current.state.as_str(), wanted.join(" or "));
        return Err(Error::new(Code::WrongState, told));
    }
    match to {
        SyncState::Active => refuse_unready(&mut tx, &current).await?,
        SyncState::Archived => {
            let runs = store::runs_seen(&mut tx, id).await?;
            if runs.working || runs.queued {
                return Err(Error::new(Code::WrongState, "a run of the sync is queued or under way; cancel it first"));
            }
        }
        SyncState::Draft | SyncState::Paused => {}
    }
    store::update(&mut tx, id, &current.name, to, current.version).await?;
    if to == SyncState::Active {
        limit::ops::keep_within(&mut tx, Limit::ActiveSyncs).await?;
    }
    audit(&mut tx, caller, id, action, json!({ "from": current.state, "to": to })).await?;
    let sync = read(&mut tx, id).await?;
    tx.commit().await?;
    Ok(sync)
}

/// What must be known before a sync may run.
async fn refuse_unready(tx: &mut TenantTx, sync: &Sync) -> Result<()> {
    let (columns, key) = store::model_columns(tx, sync.model_version_id).await?;
    let Some(columns) = columns else {
        let told = "the model's columns are not known yet; wait for its operation `describe_model`, or ask for one";
        return Err(Error::new(Code::WrongState, told));
    };
    if key.is_empty() {
        let told = "the model has no primary key, and the source declares none";
        return Err(Error::new(Code::ModelKeyMissing, told));
    }
    if let ReadMode::Incremental { cursor } = &sync.config.mode
        && columns.position(cursor).is_none()
    {
        return Err(Error::new(Code::ModelCursor, format!("the cursor `{cursor}` is not a column of the model")));
    }
    refuse_shared_stream(tx, sync).await?;
    if sync.config.key == crate::connector::KeyForm::Bare && key.len() != 1 {
        return Err(Error::invalid("/config/key", format!("`bare` wants a key of one column; this has {}", key.len())));
    }
    Ok(())
}

/// What one sync takes out of a Stream another never sees.
async fn refuse_shared_stream(tx: &mut TenantTx, sync: &Sync) -> Result<()> {
    match store::other_of_stream(tx, sync).await? {
        None => Ok(()),
        Some(other) => {
            Err(Error::new(Code::StreamInUse, format!("the sync `{other}` takes the changes of this Stream already")))
        }
    }
}

fn refuse_unaccepted(is: Consequence, sync: &Sync, accept: &Option<Consequence>) -> Result<()> {
    let harmless = is != Consequence::NewGeneration || sync.state == SyncState::Draft;
    if harmless || *accept == Some(is) {
        return Ok(());
    }
    let sentence = is.sentence(&sync.config.mode);
    let told = format!("{sentence} Repeat with \"accept_consequence\": \"{}\".", is.as_str());
    Err(Error::new(Code::ConsequenceNotAccepted, told))
}

fn patched(current: &SyncConfig, patch: Option<Value>) -> Result<SyncConfig> {
    let Some(patch) = patch else { return Ok(current.clone()) };
    let mut config = serde_json::to_value(current)
        .map_err(|error| Error::new(Code::Internal, "the configuration cannot be written").caused_by(error))?;
    merge(&mut config, patch);
    serde_path_to_error::deserialize(config).map_err(|error| Error::from_json("/config", &error))
}

async fn topic_names(tx: &mut TenantTx, model: &Model) -> Result<TopicNames> {
    let connection = endpoint::read::<Connection>(tx, model.connection_id).await?;
    let workspace = workspace::store::get(tx).await?;
    let (schema, table) = match &model.spec {
        ModelSpec::Table { schema, table } => (schema.clone(), table.clone()),
        ModelSpec::Sql { .. } => (String::new(), model.name.clone()),
        ModelSpec::Stream { schema, stream } => (schema.clone(), stream.clone()),
    };
    let database = connection.settings.get("database").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(TopicNames {
        workspace: workspace.slug,
        connection: connection.name,
        database,
        schema,
        table,
        model: model.name.clone(),
    })
}

pub(crate) async fn read(tx: &mut TenantTx, id: SyncId) -> Result<Sync> {
    store::get(tx, id).await?.ok_or_else(|| Error::not_found("sync"))
}

async fn read_locked(tx: &mut TenantTx, id: SyncId, row_version: Option<i64>) -> Result<Sync> {
    store::lock(tx, id).await?;
    let sync = read(tx, id).await?;
    if sync.state == SyncState::Archived {
        return Err(Error::new(Code::WrongState, "the sync is archived"));
    }
    if row_version.is_some_and(|seen| seen != sync.row_version) {
        return Err(Error::new(Code::PreconditionFailed, "the sync was changed meanwhile"));
    }
    Ok(sync)
}

async fn audit(tx: &mut TenantTx, caller: &Caller, id: SyncId, action: &str, changes: Value) -> Result<()> {
    record(tx, caller, Entry { action, target_kind: "sync", target: id.uuid(), changes }).await
}
