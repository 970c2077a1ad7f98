//! What may be done with workspaces.

use super::{Workspace, store};
use crate::access::Caller;
use crate::app::App;
use crate::audit::ops::{Entry, record};
use crate::error::{Code, Error, Result};
use crate::id::WorkspaceId;

/// Makes a workspace.
///
/// # Errors
/// `request.conflict` when the slug is taken, `request.invalid` for a bad slug or name.
pub async fn create(app: &App, slug: &str, name: &str) -> Result<Workspace> {
    let caller = Caller::command(WorkspaceId::new());
    let mut tx = app.db.tenant(caller.workspace).await?;
    let workspace = store::insert(&mut tx, slug, name).await?;
    let entry = Entry {
        action: "workspace.created",
        target_kind: "workspace",
        target: workspace.id.uuid(),
        changes: serde_json::json!({ "slug": slug, "name": name }),
    };
    record(&mut tx, &caller, entry).await?;
    tx.commit().await?;
    Ok(workspace)
}

/// The workspace of a slug.
///
/// # Errors
/// `request.not_found`.
pub async fn find(app: &App, slug: &str) -> Result<Workspace> {
    let id = store::find(&app.db, slug)
        .await?
        .ok_or_else(|| Error::new(Code::NotFound, format!("no workspace has the slug `{slug}`")))?;
    get(app, &Caller::command(id)).await
}

/// The caller's own workspace.
///
/// # Errors
/// [`Code::Database`].
pub async fn get(app: &App, caller: &Caller) -> Result<Workspace> {
    let mut tx = app.db.tenant(caller.workspace).await?;
    store::get(&mut tx).await
}
