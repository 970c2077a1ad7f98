//! What may be done with workspaces.

use serde_json::json;

use super::{Workspace, WorkspacePatch, WorkspaceState, store};
use crate::access::{Caller, OrganizationCaller, Right};
use crate::app::App;
use crate::audit::ops::{Entry, record, record_in_organization};
use crate::db::OrganizationTx;
use crate::error::{Code, Error, Result};
use crate::id::WorkspaceId;
use crate::limit::{self, Limit};
use crate::page::{Page, PageRequest};

/// Makes a workspace in the caller's organization.
///
/// # Errors
/// `request.conflict` when the organization has the slug already, `request.invalid` for a bad slug or name,
/// `platform.quota_exceeded`.
pub async fn create(app: &App, caller: &OrganizationCaller, slug: &str, name: &str) -> Result<Workspace> {
    caller.may(Right::WorkspacesWrite, None)?;
    let mut tx = app.db.organization(caller.organization).await?;
    let made = insert(&mut tx, caller, WorkspaceId::new(), slug, name).await?;
    tx.commit().await?;
    Ok(made)
}

pub(crate) async fn insert(
    tx: &mut OrganizationTx,
    caller: &OrganizationCaller,
    id: WorkspaceId,
    slug: &str,
    name: &str,
) -> Result<Workspace> {
    let made = store::insert(tx, id, slug, name).await?;
    let changes = json!({ "slug": slug, "name": name });
    let entry = Entry { action: "workspace.created", target_kind: "workspace", target: id.uuid(), changes };
    record_in_organization(tx, caller, entry).await?;
    limit::ops::keep_organization_within(tx, Limit::Workspaces).await?;
    Ok(made)
}

/// The workspaces of the caller's organization, or the one that its rights are for.
///
/// # Errors
/// [`Code::Database`].
pub async fn list(app: &App, caller: &OrganizationCaller, page: PageRequest) -> Result<Page<Workspace>> {
    let mut tx = app.db.organization(caller.organization).await?;
    let rows = store::list(&mut tx, caller.only, page).await?;
    Ok(Page::of(rows, page, |workspace: &Workspace| workspace.id.uuid()))
}

/// The workspace of `slug`, or of `organization/slug` where several organizations have it; for the command line.
///
/// # Errors
/// `request.not_found`; `request.conflict` when several have it.
pub async fn find(app: &App, slug: &str) -> Result<Workspace> {
    found(app, slug, WorkspaceState::Active).await
}

/// The same among those that can be restored.
///
/// # Errors
/// As [`find`].
pub async fn find_deleting(app: &App, slug: &str) -> Result<Workspace> {
    found(app, slug, WorkspaceState::Deleting).await
}

async fn found(app: &App, slug: &str, state: WorkspaceState) -> Result<Workspace> {
    match store::find(&app.db, slug, state).await?.as_slice() {
        [] => Err(Error::new(Code::NotFound, format!("no workspace has the slug `{slug}`"))),
        [id] => get(app, &Caller::command(*id)).await,
        _ => {
            let told = format!("several organizations have a workspace `{slug}`; name it as organization/{slug}");
            Err(Error::new(Code::Conflict, told))
        }
    }
}

/// The caller's own workspace.
///
/// # Errors
/// [`Code::Database`].
pub async fn get(app: &App, caller: &Caller) -> Result<Workspace> {
    let mut tx = app.db.tenant(caller.workspace).await?;
    store::get(&mut tx).await
}

/// A workspace of the caller's organization.
///
/// # Errors
/// `request.not_found`.
pub async fn get_of(app: &App, caller: &OrganizationCaller, id: WorkspaceId) -> Result<Workspace> {
    let mut tx = app.db.organization(caller.organization).await?;
    seen(&mut tx, caller, id).await
}

/// The workspace, if the caller may know of it.
pub(crate) async fn seen(tx: &mut OrganizationTx, caller: &OrganizationCaller, id: WorkspaceId) -> Result<Workspace> {
    let known = caller.only.is_none_or(|only| only == id);
    let found = if known { store::get_of(tx, id).await? } else { None };
    found.ok_or_else(|| Error::not_found("workspace"))
}

/// A caller towards the organization as one in a workspace of it.
pub(crate) fn caller_in(caller: &OrganizationCaller, id: WorkspaceId) -> Caller {
    let mut within = Caller::new(id, caller.actor, caller.rights().to_vec());
    within.request = caller.request;
    within
}

/// Changes what is named, if nobody has changed the workspace since version `version`.
///
/// # Errors
/// `request.not_found`, `request.precondition_failed`, `request.invalid`; `request.wrong_state` for one that is deleted;
/// `platform.quota_exceeded` for more days than the plan's.
pub async fn update(
    app: &App,
    caller: &OrganizationCaller,
    id: WorkspaceId,
    version: i64,
    patch: &WorkspacePatch,
) -> Result<Workspace> {
    let current = get_of(app, caller, id).await?;
    caller.may(Right::WorkspacesWrite, Some(id))?;
    if current.state != WorkspaceState::Active {
        return Err(Error::new(Code::WrongState, "the workspace is deleted; restore it first"));
    }
    let mut tx = app.db.tenant(id).await?;
    for days in [patch.run_event_days, patch.run_days].into_iter().flatten().flatten() {
        limit::ops::refuse_value_over(&mut tx, Limit::RetentionDays, days.into()).await?;
    }
    let changed = store::update(&mut tx, version, patch)
        .await?
        .ok_or_else(|| Error::new(Code::PreconditionFailed, "the workspace was changed meanwhile"))?;
    let changes = json!({
        "name": patch.name, "run_event_days": patch.run_event_days.flatten(), "run_days": patch.run_days.flatten(),
    });
    let entry = Entry { action: "workspace.updated", target_kind: "workspace", target: id.uuid(), changes };
    record(&mut tx, &caller_in(caller, id), entry).await?;
    tx.commit().await?;
    Ok(changed)
}
