//! What people and programs may do with runs.

use serde_json::json;

use super::{Attempt, DeadLetterGroup, Run, RunEvent, RunPartition, RunQuery, RunState, SourceUse, store};
use crate::access::{Actor, Caller, Credential, Right};
use crate::app::App;
use crate::audit::ops::{Entry, record};
use crate::db::TenantTx;
use crate::error::{Code, Error, Result};
use crate::id::{RunId, SyncId};
use crate::limit;
use crate::page::{Page, PageRequest};
use crate::sync::{self, SyncState};
use crate::trace::TraceParent;

/// Asks for a run; a second trigger gets the run that is already queued. Returns whether it is a new one.
///
/// # Errors
/// `request.wrong_state` unless the sync is active; `platform.quota_exceeded` when the month's records are spent.
pub async fn request(app: &App, caller: &Caller, sync_id: SyncId) -> Result<(Run, bool)> {
    caller.may(Right::SyncsRun)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let trigger = match caller.actor {
        Actor::ApiKey { .. } | Actor::User { by: Credential::Token(_), .. } => "api",
        Actor::User { by: Credential::Session(_) | Credential::None, .. } => "manual",
        Actor::Command | Actor::Consent | Actor::Stranger => "command",
    };
    limit::ops::refuse_spent(&mut tx, app.clock.now()).await?;
    let requested = enqueue(&mut tx, caller, sync_id, trigger, None).await?;
    tx.commit().await?;
    Ok(requested)
}

/// Asks for a run in the place of one that ended without success.
///
/// # Errors
/// `request.wrong_state` unless the run failed or was cancelled and the sync is active; `platform.quota_exceeded`.
pub async fn retry(app: &App, caller: &Caller, id: RunId) -> Result<(Run, bool)> {
    caller.may(Right::SyncsRun)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let run = read(&mut tx, id).await?;
    if !matches!(run.state, RunState::Failed | RunState::Cancelled | RunState::SucceededWithErrors) {
        let told = format!("the run is {}; only one that failed or was cancelled can be retried", run.state.as_str());
        return Err(Error::new(Code::WrongState, told));
    }
    limit::ops::refuse_spent(&mut tx, app.clock.now()).await?;
    let requested = enqueue(&mut tx, caller, run.sync_id, "retry", Some(id)).await?;
    tx.commit().await?;
    Ok(requested)
}

async fn enqueue(
    tx: &mut TenantTx,
    caller: &Caller,
    sync_id: SyncId,
    trigger: &str,
    parent: Option<RunId>,
) -> Result<(Run, bool)> {
    let sync = sync::ops::read(tx, sync_id).await?;
    if sync.state != SyncState::Active {
        let told = format!("the sync is {}; it must be active to run", sync.state.as_str());
        return Err(Error::new(Code::WrongState, told));
    }
    let id = RunId::new();
    let (queued, new) = store::enqueue(tx, id, &sync, trigger, caller.actor.id(), parent).await?;
    if new {
        if let Some(trace) = TraceParent::current().filter(|trace| trace.is_sampled()) {
            store::set_trace(tx, queued, trace).await?;
        }
        store::add_event(tx, queued, "info", "run.queued", "the run waits for a worker", json!({})).await?;
        let entry = Entry {
            action: "run.requested",
            target_kind: "run",
            target: queued.uuid(),
            changes: json!({ "sync": sync_id, "trigger": trigger }),
        };
        record(tx, caller, entry).await?;
    }
    Ok((read(tx, queued).await?, new))
}

/// Asks a run to stop: at once while it waits, after the chunk in hand while it works. Nothing is lost.
///
/// # Errors
/// `request.wrong_state` for a run that has ended.
pub async fn cancel(app: &App, caller: &Caller, id: RunId) -> Result<Run> {
    caller.may(Right::RunsCancel)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let before = read(&mut tx, id).await?;
    if !store::cancel(&mut tx, id).await? {
        let told = format!("the run is {}; it has ended", before.state.as_str());
        return Err(Error::new(Code::WrongState, told));
    }
    let sentence = "a person asked to stop; the chunk in hand is finished first";
    store::add_event(&mut tx, id, "info", "run.cancel_requested", sentence, json!({})).await?;
    let entry = Entry { action: "run.cancelled", target_kind: "run", target: id.uuid(), changes: json!({}) };
    record(&mut tx, caller, entry).await?;
    let run = read(&mut tx, id).await?;
    tx.commit().await?;
    Ok(run)
}

/// Asks every run of a workspace to stop that has not ended; how many.
pub(crate) async fn cancel_all(tx: &mut TenantTx) -> Result<i64> {
    store::cancel_all(tx).await
}

/// One run.
///
/// # Errors
/// `request.not_found`.
pub async fn get(app: &App, caller: &Caller, id: RunId) -> Result<Run> {
    caller.may(Right::RunsRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    read(&mut tx, id).await
}

/// A page of runs, of one sync if named, in one of some states if named.
///
/// # Errors
/// `request.not_found` for the sync.
pub async fn list(
    app: &App,
    caller: &Caller,
    sync_id: Option<SyncId>,
    states: &[RunState],
    page: PageRequest,
) -> Result<Page<Run>> {
    caller.may(Right::RunsRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    if let Some(id) = sync_id {
        sync::ops::read(&mut tx, id).await?;
    }
    let states: Vec<_> = states.iter().map(|state| state.as_str().to_owned()).collect();
    let runs = store::list(&mut tx, sync_id, &states, page).await?;
    Ok(Page::of(runs, page, |run| run.id.uuid()))
}

/// At most 200 lines of a run's timeline after the line `after`, oldest first.
///
/// # Errors
/// `request.not_found`.
pub async fn events(app: &App, caller: &Caller, id: RunId, after: i64) -> Result<Vec<RunEvent>> {
    caller.may(Right::RunsRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    read(&mut tx, id).await?;
    store::events(&mut tx, id, after).await
}

/// A run's attempts, oldest first.
///
/// # Errors
/// `request.not_found`.
pub async fn attempts(app: &App, caller: &Caller, id: RunId) -> Result<Vec<Attempt>> {
    caller.may(Right::RunsRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    read(&mut tx, id).await?;
    store::attempts(&mut tx, id).await
}

/// Where a run's records landed.
///
/// # Errors
/// `request.not_found`.
pub async fn partitions(app: &App, caller: &Caller, id: RunId) -> Result<Vec<RunPartition>> {
    caller.may(Right::RunsRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    read(&mut tx, id).await?;
    store::partitions(&mut tx, id).await
}

/// A run's dead letters by reason, most first, 200 at most.
///
/// # Errors
/// `request.not_found`.
pub async fn dead_letters(app: &App, caller: &Caller, id: RunId) -> Result<Vec<DeadLetterGroup>> {
    caller.may(Right::RunsRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    read(&mut tx, id).await?;
    store::dead_letters(&mut tx, id).await
}

/// What a run asked of its source: the sum, and the statements in order, 1 000 at most.
///
/// # Errors
/// `request.not_found`.
pub async fn queries(app: &App, caller: &Caller, id: RunId) -> Result<(SourceUse, Vec<RunQuery>)> {
    caller.may(Right::RunsRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    read(&mut tx, id).await?;
    Ok((store::source_use(&mut tx, id).await?, store::queries(&mut tx, id).await?))
}

async fn read(tx: &mut TenantTx, id: RunId) -> Result<Run> {
    store::get(tx, id).await?.ok_or_else(|| Error::not_found("run"))
}
