//! What may be done with organizations.

use std::sync::Arc;

use serde_json::json;

use super::{EgressTold, Organization, OrganizationPatch, store};
use crate::access::{Actor, Credential, OrganizationCaller, Right, Role};
use crate::app::App;
use crate::audit::ops::{Entry, record_in_organization};
use crate::db::OrganizationTx;
use crate::egress::Egress;
use crate::error::{Code, Error, Result};
use crate::id::{MembershipId, OrganizationId, UserId, WorkspaceId};
use crate::settings::Reach;
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

/// Where workers dial for the caller's organization.
///
/// # Errors
/// `auth.scope_missing`.
pub async fn told_egress(app: &App, caller: &OrganizationCaller) -> Result<EgressTold> {
    caller.may(Right::OrganizationRead, caller.only)?;
    let mut tx = app.db.organization(caller.organization).await?;
    let own = store::egress(&mut tx).await?;
    told(app, own)
}

/// The policy by which a worker dials for a workspace, and what of it is shown. Asked with each opening, so that a change
/// counts from the next one on.
///
/// # Errors
/// [`Code::Database`].
pub async fn egress_of(app: &App, workspace: WorkspaceId) -> Result<(Arc<Egress>, EgressTold)> {
    let mut tx = app.db.tenant(workspace).await?;
    let own = store::egress_of_workspace(&mut tx).await?;
    tx.commit().await?;
    Ok((policy(app, own.as_ref())?, told(app, own)?))
}

/// The application as it dials for an organization: by the policy that holds there.
///
/// # Errors
/// [`Code::Database`].
pub async fn dialling_for(app: &App, organization: OrganizationId) -> Result<App> {
    let mut tx = app.db.organization(organization).await?;
    let own = store::egress(&mut tx).await?;
    Ok(App { egress: policy(app, own.as_ref())?, ..app.clone() })
}

fn policy(app: &App, own: Option<&(String, String)>) -> Result<Arc<Egress>> {
    match own {
        None => Ok(Arc::clone(&app.egress)),
        Some((reach, allow)) => app.egress.of_organization(reach_of(reach)?, allow),
    }
}

/// Gives an organization a policy of its own, or with `None` the installation's again. For the command line alone: there
/// is no caller who may.
///
/// # Errors
/// `request.invalid`, naming what of the list does not read.
pub async fn set_egress(app: &App, organization: OrganizationId, own: Option<(Reach, &str)>) -> Result<EgressTold> {
    let caller = OrganizationCaller::command(organization);
    let mut tx = app.db.organization(organization).await?;
    let changes = match own {
        Some((reach, allow)) => {
            app.egress.of_organization(reach, allow)?;
            store::put_egress(&mut tx, reach.as_str(), allow).await?;
            json!({ "reach": reach, "allow": allow })
        }
        None => {
            store::remove_egress(&mut tx).await?;
            json!({ "reach": null, "allow": null })
        }
    };
    record_in_organization(&mut tx, &caller, entry("organization.egress_set", organization, changes)).await?;
    tx.commit().await?;
    told(app, own.map(|(reach, allow)| (reach.as_str().to_owned(), allow.to_owned())))
}

fn told(app: &App, own: Option<(String, String)>) -> Result<EgressTold> {
    Ok(match own {
        None => EgressTold { is_own: false, reach: app.egress.reach(), allow: None },
        Some((reach, allow)) => EgressTold { is_own: true, reach: reach_of(&reach)?, allow: Some(allow) },
    })
}

fn reach_of(word: &str) -> Result<Reach> {
    word.parse().map_err(|_| Error::new(Code::Internal, "the egress policy has a reach that is none"))
}

fn entry(action: &str, id: OrganizationId, changes: serde_json::Value) -> Entry<'_> {
    Entry { action, target_kind: "organization", target: id.uuid(), changes }
}
