//! What may be done: delete, restore; and what a worker does when the undo period is over.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::{Deletion, PROGRESS, TABLES, TOPICS, Untouched, store};
use crate::access::{Actor, Caller, Credential, OrganizationCaller, Right};
use crate::app::App;
use crate::audit::ops::{Entry, record, record_in_organization};
use crate::error::{Code, Error, Result};
use crate::id::{self, OrganizationId, WorkspaceId};
use crate::operation;
use crate::run;
use crate::session;
use crate::workspace::ops::{caller_in, get_of};
use crate::workspace::{self, Workspace, WorkspaceState};

/// Workspaces erased at a time.
const WORKSPACES: i32 = 20;
/// Rows deleted in one transaction.
pub const ROWS: i32 = 1_000;

/// Deletes a workspace: at once its keys work no more, nothing starts, and what is under way is cancelled. `confirm` must be
/// its slug. Harmless when repeated.
///
/// # Errors
/// `request.not_found`, `auth.scope_missing`; `request.invalid` without the confirmation; `auth.proof_too_old` for a session
/// whose person has not just proved who they are.
pub async fn request(
    app: &App,
    caller: &OrganizationCaller,
    workspace: WorkspaceId,
    confirm: Option<&str>,
) -> Result<Deletion> {
    let current = get_of(app, caller, workspace).await?;
    caller.may(Right::WorkspacesDelete, Some(workspace))?;
    if let Actor::User { user, by: Credential::Session(session) } = caller.actor {
        session::ops::must_be_recent(app, user, session).await?;
    }
    if confirm != Some(current.slug.as_str()) {
        return Err(Error::invalid("/confirm", "must be the workspace's slug: everything in it is deleted"));
    }
    let asked_at = app.clock.now();
    let delete_after = asked_at + TimeDelta::days(app.settings.workspace_undo_days.into());
    let caller = caller_in(caller, workspace);
    let mut tx = app.db.tenant(workspace).await?;
    let mut cancelled_runs = 0;
    if store::begin(&mut tx, caller.actor, asked_at, delete_after).await? {
        cancelled_runs = run::ops::cancel_all(&mut tx).await?;
        operation::store::cancel_all(&mut tx).await?;
        let changes = json!({ "delete_after": delete_after, "cancelled_runs": cancelled_runs });
        record(&mut tx, &caller, entry("workspace.deleted", workspace, changes)).await?;
    }
    let untouched = untouched(&mut tx).await?;
    let workspace = workspace::store::get(&mut tx).await?;
    tx.commit().await?;
    Ok(Deletion { workspace, cancelled_runs, untouched })
}

/// Restores a workspace within its undo period: keys work and syncs run as before. What was cancelled stays so. Harmless when
/// repeated.
///
/// # Errors
/// `request.not_found`, `auth.scope_missing`; `request.wrong_state` when its secrets are destroyed.
pub async fn restore(app: &App, caller: &OrganizationCaller, workspace: WorkspaceId) -> Result<Workspace> {
    let current = get_of(app, caller, workspace).await?;
    caller.may(Right::WorkspacesDelete, Some(workspace))?;
    if current.state == WorkspaceState::Active {
        return Ok(current);
    }
    let caller = caller_in(caller, workspace);
    let mut tx = app.db.tenant(workspace).await?;
    if !store::restore(&mut tx).await? {
        return Err(Error::new(Code::WrongState, "the workspace's undo period is over: its secrets are destroyed"));
    }
    record(&mut tx, &caller, entry("workspace.restored", workspace, json!({}))).await?;
    let restored = workspace::store::get(&mut tx).await?;
    tx.commit().await?;
    Ok(restored)
}

/// Erases the workspaces whose undo period is over; how many are gone.
///
/// # Errors
/// [`Code::Database`]; what is done stays done, and the next call goes on.
pub async fn erase_due(app: &App) -> Result<usize> {
    let due = store::due(&app.db, app.clock.now(), WORKSPACES).await?;
    let mut gone = 0;
    for (organization, workspace) in due {
        match erase(app, organization, workspace).await {
            Ok(()) => gone += 1,
            // One that cannot go does not keep the others.
            Err(error) => {
                tracing::warn!(workspace.id = %workspace, error = %error.chain(), "cannot erase a deleted workspace yet");
            }
        }
    }
    Ok(gone)
}

async fn erase(app: &App, organization: OrganizationId, workspace: WorkspaceId) -> Result<()> {
    while erase_step(app, organization, workspace, ROWS).await? {}
    Ok(())
}

/// One step of erasing a workspace, which is one transaction: its secrets, then `rows_max` rows of one kind, at last its own
/// row with the receipt. False when nothing is left to do.
///
/// # Errors
/// [`Code::Database`]; nothing of the step is done then.
pub async fn erase_step(
    app: &App,
    organization: OrganizationId,
    workspace: WorkspaceId,
    rows_max: i32,
) -> Result<bool> {
    let mut tx = app.db.tenant(workspace).await?;
    // The secrets' data keys are the first to go, all at once: what is left after that opens nothing.
    if let Some(secrets) = store::destroy_secrets(&mut tx, app.clock.now()).await? {
        let changes = json!({ "secrets": secrets });
        let done = entry("workspace.secrets_destroyed", workspace, changes);
        record(&mut tx, &Caller::command(workspace), done).await?;
        tx.commit().await?;
        return Ok(true);
    }
    if store::erase_rows(&mut tx, rows_max).await? {
        tx.commit().await?;
        return Ok(true);
    }
    drop(tx);
    let mut tx = app.db.organization(organization).await?;
    let Some(gone) = store::erase_workspace(&mut tx, workspace).await? else { return Ok(false) };
    let by = match (gone.asked_kind.as_deref(), gone.asked_by) {
        (Some("api_key"), Some(id)) => Some(id::text_of("service_account", id)),
        (Some(kind), Some(id)) => Some(id::text_of(kind, id)),
        _ => None,
    };
    let changes = json!({
        "asked_at": gone.asked_at, "asked_by_kind": gone.asked_kind, "asked_by": by, "rows": gone.erased,
        "untouched": { "topics": TOPICS, "progress": PROGRESS, "tables": TABLES },
    });
    let receipt = entry("workspace.erased", workspace, changes);
    record_in_organization(&mut tx, &OrganizationCaller::command(organization), receipt).await?;
    tx.commit().await?;
    tracing::info!(workspace.id = %workspace, "a deleted workspace is erased");
    Ok(false)
}

/// What its syncs left at clusters and sources.
async fn untouched(tx: &mut crate::db::TenantTx) -> Result<Vec<Untouched>> {
    let mut found = Vec::new();
    for (destination, names) in store::topics(tx).await? {
        found.push(Untouched {
            kind: "topics",
            destination_id: Some(destination),
            connection_id: None,
            names,
            how: TOPICS,
        });
    }
    for (destination, settings) in store::destinations(tx).await? {
        let name = format!("{}.progress", word(&settings, "prefix", "freshet"));
        let (connection_id, names) = (None, vec![name]);
        let destination_id = Some(destination);
        found.push(Untouched { kind: "progress", destination_id, connection_id, names, how: PROGRESS });
    }
    for (connection, kind, settings) in store::connections(tx).await? {
        let schema = word(&settings, "work_schema", if kind == "snowflake" { "FRESHET" } else { "freshet" });
        let prefix = if kind == "snowflake" { "FRESHET_" } else { "freshet_" };
        let names = vec![format!("{schema}.{prefix}")];
        let connection_id = Some(connection);
        found.push(Untouched { kind: "tables", destination_id: None, connection_id, names, how: TABLES });
    }
    Ok(found)
}

fn word<'a>(settings: &'a Value, name: &str, default: &'a str) -> &'a str {
    settings.get(name).and_then(Value::as_str).unwrap_or(default)
}

fn entry(action: &str, workspace: WorkspaceId, changes: Value) -> Entry<'_> {
    Entry { action, target_kind: "workspace", target: workspace.uuid(), changes }
}
