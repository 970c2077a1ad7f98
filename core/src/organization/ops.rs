//! What may be done with organizations.

use serde_json::json;

use super::{Organization, OrganizationPatch, store};
use crate::access::{Actor, Credential, OrganizationCaller, Right, Role};
use crate::app::App;
use crate::audit::ops::{Entry, record_in_organization};
use crate::db::OrganizationTx;
use crate::error::{Code, Error, Result};
use crate::id::{MembershipId, OrganizationId, UserId, WorkspaceId};
use crate::workspace;

/// Makes an organization with a first workspace of the same slug and name; `owner` owns it, if it is made by a person.
///
/// # Errors
/// `request.conflict` when the slug is taken, `request.invalid` for a bad slug or name.
pub async fn create(app: &App, owner: Option<UserId>, slug: &str, name: &str) -> Result<(Organization, WorkspaceId)> {
    let mut tx = app.db.organization(OrganizationId::new()).await?;
    let made = insert(&mut tx, owner, slug, name).await?;
    tx.commit().await?;
    Ok(made)
}

pub(crate) async fn insert(
    tx: &mut OrganizationTx,
    owner: Option<UserId>,
    slug: &str,
    name: &str,
) -> Result<(Organization, WorkspaceId)> {
    let (id, workspace) = (tx.organization(), WorkspaceId::new());
    let actor = owner.map_or(Actor::Command, |user| Actor::User { user, by: Credential::None });
    let caller = OrganizationCaller::new(id, actor, Right::ALL.to_vec());
    let made = store::insert(tx, slug, name).await?;
    let changes = json!({ "slug": slug, "name": name });
    record_in_organization(tx, &caller, entry("organization.created", id, changes)).await?;
    if let Some(user) = owner {
        store::insert_member(tx, MembershipId::new(), user, None, Role::Owner).await?;
    }
    workspace::ops::insert(tx, &caller, workspace, slug, name).await?;
    Ok((made, workspace))
}

/// The organization of a slug; for the command line.
///
/// # Errors
/// `request.not_found`.
pub async fn find(app: &App, slug: &str) -> Result<OrganizationId> {
    store::find(&app.db, slug)
        .await?
        .ok_or_else(|| Error::new(Code::NotFound, format!("no organization has the slug `{slug}`")))
}

/// The caller's organization.
///
/// # Errors
/// `auth.scope_missing`.
pub async fn get(app: &App, caller: &OrganizationCaller) -> Result<Organization> {
    caller.may(Right::OrganizationRead, caller.only)?;
    let mut tx = app.db.organization(caller.organization).await?;
    store::get(&mut tx).await
}

/// Changes what is named, if nobody has changed the organization since version `version`.
///
/// # Errors
/// `request.precondition_failed`, `request.invalid`, `auth.scope_missing`.
pub async fn update(
    app: &App,
    caller: &OrganizationCaller,
    version: i64,
    patch: &OrganizationPatch,
) -> Result<Organization> {
    caller.may(Right::OrganizationWrite, None)?;
    let mut tx = app.db.organization(caller.organization).await?;
    let changed = store::update(&mut tx, version, patch)
        .await?
        .ok_or_else(|| Error::new(Code::PreconditionFailed, "the organization was changed meanwhile"))?;
    let changes = json!({
        "name": patch.name, "session_idle_hours": patch.session_idle_hours, "session_hours": patch.session_hours,
        "audit_days": patch.audit_days.flatten(),
    });
    record_in_organization(&mut tx, caller, entry("organization.updated", caller.organization, changes)).await?;
    tx.commit().await?;
    Ok(changed)
}

fn entry(action: &str, id: OrganizationId, changes: serde_json::Value) -> Entry<'_> {
    Entry { action, target_kind: "organization", target: id.uuid(), changes }
}
