//! What may be done with workspaces.

use serde_json::json;

use super::{Workspace, store};
use crate::access::{Caller, OrganizationCaller, Right};
use crate::app::App;
use crate::audit::ops::{Entry, record_in_organization};
use crate::db::OrganizationTx;
use crate::error::{Code, Error, Result};
use crate::id::WorkspaceId;
use crate::page::{Page, PageRequest};

/// Makes a workspace in the caller's organization.
///
/// # Errors
/// `request.conflict` when the organization has the slug already, `request.invalid` for a bad slug or name.
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
    match store::find(&app.db, slug).await?.as_slice() {
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
