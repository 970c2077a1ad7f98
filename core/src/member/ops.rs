//! What may be done with members and invitations, and what a person may do by being one.

use chrono::TimeDelta;
use serde_json::json;

use super::store::{self, InsertInvitation};
use super::{Invitation, InvitationState, Member, NewInvitation, Offer, Place};
use crate::access::{Actor, Caller, Credential, OrganizationCaller, Right, Role};
use crate::app::App;
use crate::audit::ops::{Entry, record_in_organization};
use crate::db::OrganizationTx;
use crate::error::{Code, Error, Result};
use crate::id::{InvitationId, MembershipId, OrganizationId, RequestId, UserId, WorkspaceId};
use crate::key_text;
use crate::limit::{self, Limit};
use crate::mail::Mail;
use crate::organization;
use crate::page::{Page, PageRequest};
use crate::settings::Secret;
use crate::user::hash_password;
use crate::user::store::{self as user_store, InsertUser};

/// How long an invitation can be accepted.
const INVITATION_DAYS: i64 = 14;

/// Where a person acts.
#[derive(Debug, Clone, Copy)]
pub enum At {
    /// In this workspace.
    Named(WorkspaceId),
    /// In the only one that they belong to.
    Only,
    /// Wherever: the question is not about a workspace.
    Any,
    /// As the first two, be it that the workspace is deleted and can be restored.
    Deleted(Option<WorkspaceId>),
}

/// A person as a caller in a workspace.
///
/// # Errors
/// `request.not_found` when they do not belong to the one named; `request.workspace_missing` when none is named and they
/// belong to several, or to none; `auth.sso_required` where the organization takes its own issuer's word alone.
pub async fn caller(app: &App, (user, by): (UserId, Credential), at: At, request: Option<RequestId>) -> Result<Caller> {
    let (named, deleted) = match at {
        At::Named(workspace) => (Some(workspace), false),
        At::Only | At::Any => (None, false),
        At::Deleted(named) => (named, true),
    };
    let mut tx = app.db.person(user).await?;
    let roles = store::access(&mut tx, by, named, deleted).await?;
    let Some(first) = roles.first() else {
        return Err(match named {
            Some(_) => Error::not_found("workspace"),
            None => Error::new(Code::WorkspaceMissing, "the person belongs to no workspace"),
        });
    };
    let of_another =
        roles.iter().any(|role| role.workspace_id != first.workspace_id && role.is_active == first.is_active);
    if of_another && !matches!(at, At::Any) {
        return Err(Error::new(Code::WorkspaceMissing, "the person belongs to several workspaces, and none is named"));
    }
    if first.is_barred {
        return Err(barred());
    }
    let roles: Vec<_> = roles.iter().filter(|role| role.workspace_id == first.workspace_id).collect();
    let rights = roles.iter().map(|role| role.role).max().unwrap_or(first.role).rights();
    let whole = roles.iter().find(|role| role.of_organization).map(|role| role.role.rights());
    let mut caller = Caller::new(first.workspace_id, Actor::User { user, by }, rights).of(first.organization_id, whole);
    caller.request = request;
    Ok(caller)
}

/// A person as a caller in the whole of an organization.
///
/// # Errors
/// `request.not_found` when they have no role there; `auth.sso_required` as [`caller`].
pub async fn organization_caller(
    app: &App,
    (user, by): (UserId, Credential),
    organization: OrganizationId,
    request: Option<RequestId>,
) -> Result<OrganizationCaller> {
    let mut tx = app.db.person(user).await?;
    let found = store::role_in(&mut tx, by, organization).await?;
    let (role, is_barred) = found.ok_or_else(|| Error::not_found("organization"))?;
    if is_barred {
        return Err(barred());
    }
    let mut caller = OrganizationCaller::new(organization, Actor::User { user, by }, Role::parse(&role)?.rights());
    caller.request = request;
    Ok(caller)
}

fn barred() -> Error {
    Error::new(Code::SsoRequired, "the organization takes its own issuer's word alone")
}

/// Every workspace that a person can work in, by the names of organizations and workspaces.
///
/// # Errors
/// [`Code::Database`].
pub async fn places(app: &App, (user, by): (UserId, Credential)) -> Result<Vec<Place>> {
    let mut tx = app.db.person(user).await?;
    store::places(&mut tx, by).await
}

/// A page of memberships, newest first: of the organization, or those that count in the caller's one workspace.
///
/// # Errors
/// `auth.scope_missing`.
pub async fn list(app: &App, caller: &OrganizationCaller, page: PageRequest) -> Result<Page<Member>> {
    caller.may(Right::MembersRead, caller.only)?;
    let mut tx = app.db.organization(caller.organization).await?;
    Ok(Page::of(store::list(&mut tx, caller.only, page).await?, page, |member: &Member| member.id.uuid()))
}

/// One membership.
///
/// # Errors
/// `request.not_found`, `auth.scope_missing`.
pub async fn get(app: &App, caller: &OrganizationCaller, id: MembershipId) -> Result<Member> {
    caller.may(Right::MembersRead, caller.only)?;
    let mut tx = app.db.organization(caller.organization).await?;
    seen(&mut tx, caller, id).await
}

/// Gives a member another role. Nobody gives more than they have themselves, nor takes from those who have more; an
/// organization keeps an owner.
///
/// # Errors
/// `request.not_found`, `auth.scope_missing`, `request.precondition_failed`; `request.wrong_state` for the last owner.
pub async fn set_role(
    app: &App,
    caller: &OrganizationCaller,
    id: MembershipId,
    version: i64,
    role: Role,
) -> Result<Member> {
    let mut tx = app.db.organization(caller.organization).await?;
    let member = held(&mut tx, caller, id).await?;
    caller.may_give(role)?;
    if role < Role::Owner {
        refuse_last_owner(&mut tx, &member).await?;
        refuse_broken_glass(&mut tx, &member).await?;
    }
    if !store::set_role(&mut tx, id, version, role).await? {
        return Err(Error::new(Code::PreconditionFailed, "the member was changed meanwhile"));
    }
    let changes = json!({ "user": member.user_id, "from": member.role, "to": role });
    record_in_organization(&mut tx, caller, entry("membership.updated", id, changes)).await?;
    let changed = seen(&mut tx, caller, id).await?;
    tx.commit().await?;
    Ok(changed)
}

/// Takes a member away: from the next request on they may nothing there.
///
/// # Errors
/// `request.not_found`, `auth.scope_missing`; `request.wrong_state` for the last owner.
pub async fn remove(app: &App, caller: &OrganizationCaller, id: MembershipId) -> Result<()> {
    let mut tx = app.db.organization(caller.organization).await?;
    let member = held(&mut tx, caller, id).await?;
    refuse_last_owner(&mut tx, &member).await?;
    refuse_broken_glass(&mut tx, &member).await?;
    store::delete(&mut tx, id).await?;
    let changes = json!({ "user": member.user_id, "role": member.role, "workspace": member.workspace_id });
    record_in_organization(&mut tx, caller, entry("membership.removed", id, changes)).await?;
    tx.commit().await
}

/// The membership, if the caller may see it.
async fn seen(tx: &mut OrganizationTx, caller: &OrganizationCaller, id: MembershipId) -> Result<Member> {
    let found = store::get(tx, id).await?;
    let seen = found
        .filter(|member| caller.only.is_none() || member.workspace_id.is_none() || member.workspace_id == caller.only);
    seen.ok_or_else(|| Error::not_found("member"))
}

/// The membership, if the caller may change it; the organization is held, so that owners are counted alone.
async fn held(tx: &mut OrganizationTx, caller: &OrganizationCaller, id: MembershipId) -> Result<Member> {
    organization::store::lock(tx).await?;
    let member = seen(tx, caller, id).await?;
    let is_self = matches!(caller.actor, Actor::User { user, .. } if user == member.user_id);
    if !is_self {
        caller.may(Right::MembersWrite, member.workspace_id)?;
        caller.may_give(member.role)?;
    }
    Ok(member)
}

async fn refuse_last_owner(tx: &mut OrganizationTx, member: &Member) -> Result<()> {
    let is_owner = member.role == Role::Owner && member.workspace_id.is_none();
    if is_owner && store::other_owners(tx, member.id).await? == 0 {
        let told = "the organization would have no owner; make somebody else one first";
        return Err(Error::new(Code::WrongState, told));
    }
    Ok(())
}

/// While an issuer's word alone opens the organization, the one who comes in without it stays its owner.
async fn refuse_broken_glass(tx: &mut OrganizationTx, member: &Member) -> Result<()> {
    let is_owner = member.role == Role::Owner && member.workspace_id.is_none();
    if is_owner && store::breaks_glass(tx, member.user_id).await? {
        let told = "this owner is the one who comes in when the issuer fails; name another in the connection first";
        return Err(Error::new(Code::WrongState, told));
    }
    Ok(())
}

/// Offers a role to an address, by mail where there is mail.
///
/// # Errors
/// `auth.scope_missing`, also for a role that could do more than the caller; `request.invalid` for no address;
/// `request.not_found` for a workspace of somebody else's.
pub async fn invite(
    app: &App,
    caller: &OrganizationCaller,
    email: &str,
    workspace: Option<WorkspaceId>,
    role: Role,
) -> Result<NewInvitation> {
    caller.may(Right::MembersWrite, workspace)?;
    caller.may_give(role)?;
    let (word, email) = (key_text::draw_word(), email.trim());
    let mut tx = app.db.organization(caller.organization).await?;
    let insert = InsertInvitation {
        id: InvitationId::new(),
        email,
        workspace,
        role,
        hash: &key_text::hash(word.expose()),
        expires_at: app.clock.now() + TimeDelta::days(INVITATION_DAYS),
    };
    let invitation = store::invite(&mut tx, &insert).await?;
    limit::ops::keep_organization_within(&mut tx, Limit::Members).await?;
    let organization = organization::store::get(&mut tx).await?;
    let changes = json!({ "email": email, "role": role, "workspace": workspace });
    record_in_organization(&mut tx, caller, invitation_entry("invitation.created", invitation.id, changes)).await?;
    tx.commit().await?;
    let url = format!("{}/invitation?word={}", app.settings.public_url(), word.expose());
    if !app.mailer.is_there() {
        return Ok(NewInvitation { invitation, url: url.parse().ok() });
    }
    let text = format!(
        "You are invited to {} on Freshet, as {}.\n\nAccept:\n\n{url}\n\n\
         The link is good for {INVITATION_DAYS} days. If you do not know why, there is nothing to do.\n",
        organization.name,
        role.as_str(),
    );
    let subject = format!("You are invited to {} on Freshet", organization.name.replace(char::is_control, " "));
    app.mailer.send(Mail { to: email.to_owned(), subject, text });
    Ok(NewInvitation { invitation, url: None })
}

/// A page of invitations, newest first.
///
/// # Errors
/// `auth.scope_missing`.
pub async fn invitations(app: &App, caller: &OrganizationCaller, page: PageRequest) -> Result<Page<Invitation>> {
    caller.may(Right::MembersRead, caller.only)?;
    let mut tx = app.db.organization(caller.organization).await?;
    let rows = store::invitations(&mut tx, caller.only, page).await?;
    Ok(Page::of(rows, page, |invitation: &Invitation| invitation.id.uuid()))
}

/// Takes an invitation back. Harmless when repeated.
///
/// # Errors
/// `request.not_found`, `auth.scope_missing`; `request.wrong_state` when it was accepted.
pub async fn revoke_invitation(app: &App, caller: &OrganizationCaller, id: InvitationId) -> Result<()> {
    let mut tx = app.db.organization(caller.organization).await?;
    let invitation = store::get_invitation(&mut tx, id).await?;
    let invitation = invitation.filter(|found| caller.only.is_none() || found.workspace_id == caller.only);
    let invitation = invitation.ok_or_else(|| Error::not_found("invitation"))?;
    caller.may(Right::MembersWrite, invitation.workspace_id)?;
    match invitation.state {
        InvitationState::Accepted => {
            return Err(Error::new(Code::WrongState, "the invitation was accepted; take the member away instead"));
        }
        InvitationState::Revoked => return Ok(()),
        InvitationState::Open | InvitationState::Expired => {}
    }
    store::end_invitation(&mut tx, id, false).await?;
    record_in_organization(&mut tx, caller, invitation_entry("invitation.revoked", id, json!({}))).await?;
    tx.commit().await
}

/// What an invitation offers to the one who has its word.
///
/// # Errors
/// `auth.word_refused` for a word that is unknown, was used or taken back, or whose time is over.
pub async fn look_at(app: &App, word: &Secret) -> Result<Offer> {
    let (mut tx, invitation) = offered(app, word).await?;
    let organization = organization::store::get(&mut tx).await?;
    let is_known = user_store::find(&app.db, &invitation.email).await?.is_some();
    Ok(Offer { email: invitation.email, organization: organization.name, role: invitation.role, is_known })
}

/// Accepts an invitation as a person who is known: theirs must be the address that was invited.
///
/// # Errors
/// `auth.word_refused`; `request.wrong_state` for another address; `request.conflict` for a member.
pub async fn accept(app: &App, user: UserId, word: &Secret) -> Result<OrganizationId> {
    let email = crate::user::ops::get(app, user).await?.email;
    let (mut tx, invitation) = offered(app, word).await?;
    if !email.eq_ignore_ascii_case(&invitation.email) {
        let told = "the invitation is for another address; sign in with that one";
        return Err(Error::new(Code::WrongState, told));
    }
    take(&mut tx, user, &invitation).await?;
    let organization = tx.organization();
    tx.commit().await?;
    Ok(organization)
}

/// Accepts an invitation as somebody new; the address is the invitation's, and proved where it came by mail.
///
/// # Errors
/// `auth.word_refused`; `request.invalid` for a weak password; `request.conflict` when the address is known.
pub async fn accept_as_new(app: &App, word: &Secret, name: &str, password: &Secret) -> Result<UserId> {
    let offer = look_at(app, word).await?;
    let hash = hash_password(password, &[&offer.email, name]).await?;
    let verified_at = app.mailer.is_there().then(|| app.clock.now());
    let mut person = app.db.person(UserId::new()).await?;
    let user = person.user();
    let insert = InsertUser { email: &offer.email, name: name.trim(), verified_at, instance_admin: false };
    user_store::insert(&mut person, &insert).await?;
    user_store::set_password(&mut person, &hash).await?;
    let refused = || Error::new(Code::WordRefused, "the invitation is unknown, was used, or its time is over");
    let found = store::find_invitation(&app.db, &key_text::hash(word.expose().trim())).await?.ok_or_else(refused)?;
    let mut tx = person.widen(found.0).await?;
    let invitation = store::get_invitation(&mut tx, found.1).await?.filter(|one| one.state == InvitationState::Open);
    take(&mut tx, user, &invitation.ok_or_else(refused)?).await?;
    tx.commit().await?;
    Ok(user)
}

async fn offered(app: &App, word: &Secret) -> Result<(OrganizationTx, Invitation)> {
    let refused = || Error::new(Code::WordRefused, "the invitation is unknown, was used, or its time is over");
    let hash = key_text::hash(word.expose().trim());
    let (organization, id) = store::find_invitation(&app.db, &hash).await?.ok_or_else(refused)?;
    let mut tx = app.db.organization(organization).await?;
    let invitation = store::get_invitation(&mut tx, id).await?.filter(|one| one.state == InvitationState::Open);
    let invitation = invitation.ok_or_else(refused)?;
    Ok((tx, invitation))
}

async fn take(tx: &mut OrganizationTx, user: UserId, invitation: &Invitation) -> Result<()> {
    let id = MembershipId::new();
    organization::store::insert_member(tx, id, user, invitation.workspace_id, invitation.role).await?;
    store::end_invitation(tx, invitation.id, true).await?;
    limit::ops::keep_organization_within(tx, Limit::Members).await?;
    let actor = Actor::User { user, by: Credential::None };
    let caller = OrganizationCaller::new(tx.organization(), actor, Vec::new());
    let changes = json!({
        "user": user, "role": invitation.role, "workspace": invitation.workspace_id, "invitation": invitation.id,
    });
    record_in_organization(tx, &caller, entry("membership.created", id, changes)).await
}

fn entry(action: &str, id: MembershipId, changes: serde_json::Value) -> Entry<'_> {
    Entry { action, target_kind: "membership", target: id.uuid(), changes }
}

fn invitation_entry(action: &str, id: InvitationId, changes: serde_json::Value) -> Entry<'_> {
    Entry { action, target_kind: "invitation", target: id.uuid(), changes }
}
