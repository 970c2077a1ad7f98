//! What may be done with service accounts and their keys.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use subtle::ConstantTimeEq;

use super::{ApiKey, KeyState, NewKey, ServiceAccount, store};
use crate::access::{Actor, Caller, Right};
use crate::app::App;
use crate::audit::ops::{Entry, record};
use crate::db::TenantTx;
use crate::error::{Code, Error, Result};
use crate::id::{ApiKeyId, ServiceAccountId, WorkspaceId};
use crate::key_text;
use crate::limit::{self, Limit};
use crate::page::{Page, PageRequest};

/// Days that a key may last, at most.
pub const DAYS_MAX: i64 = 3_650;
/// Hours that a rolled key may go on beside its successor, at most: a week.
pub const OVERLAP_HOURS_MAX: i64 = 168;

/// What a key may do, where, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Grant<'a> {
    /// At least one.
    pub rights: &'a [Right],
    /// In every workspace of the organization, instead of in its own alone.
    pub of_organization: bool,
    /// 1 to [`DAYS_MAX`].
    pub days: i64,
}

/// Makes a key for a service account of this name, and the account if there is none. For the command line.
///
/// # Errors
/// `request.invalid` for no rights, or days outside 1 to [`DAYS_MAX`].
pub async fn create(app: &App, workspace: WorkspaceId, account: &str, grant: Grant<'_>) -> Result<NewKey> {
    let caller = Caller::command(workspace);
    let expires_at = expiry(app, grant.days)?;
    refuse_no_rights(grant.rights)?;
    let mut tx = app.db.tenant(workspace).await?;
    let account = store::find_or_insert_account(&mut tx, ServiceAccountId::new(), account).await?;
    let made = insert(&mut tx, &caller, account, grant, expires_at, None).await?;
    tx.commit().await?;
    Ok(made)
}

/// Makes a key of a service account. Nobody gives away what they may not do themselves.
///
/// # Errors
/// `request.not_found`, `request.invalid`; `auth.scope_missing` for a scope that the caller lacks.
pub async fn make(app: &App, caller: &Caller, of: ServiceAccountId, grant: Grant<'_>) -> Result<NewKey> {
    caller.may(Right::KeysWrite)?;
    may_give(caller, grant.rights, grant.of_organization)?;
    let expires_at = expiry(app, grant.days)?;
    refuse_no_rights(grant.rights)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    account(&mut tx, of).await?;
    let made = insert(&mut tx, caller, of, grant, expires_at, None).await?;
    tx.commit().await?;
    Ok(made)
}

/// Makes a key that takes another's place: same account, same scopes, the same span from now on. The old one goes on for
/// `overlap_hours`, but for no longer than it would have.
///
/// # Errors
/// `request.not_found`; `request.wrong_state` for a key that works no more; `auth.scope_missing` for a scope that the
/// caller lacks; `request.invalid` for more than [`OVERLAP_HOURS_MAX`]; `platform.quota_exceeded` for a key that was rolled
/// already, whose next one is one more.
pub async fn roll(app: &App, caller: &Caller, id: ApiKeyId, overlap_hours: i64) -> Result<NewKey> {
    caller.may(Right::KeysWrite)?;
    if !(0..=OVERLAP_HOURS_MAX).contains(&overlap_hours) {
        return Err(Error::invalid("/overlap_hours", format!("must be 0 to {OVERLAP_HOURS_MAX}")));
    }
    let mut tx = app.db.tenant(caller.workspace).await?;
    let old = store::get_for_update(&mut tx, id).await?.ok_or_else(|| Error::not_found("key"))?;
    if old.state != KeyState::Usable {
        return Err(Error::new(Code::WrongState, "the key works no more; make a new one"));
    }
    // A scope of a later version is no right of this one.
    let rights: Vec<_> = old.scopes.iter().filter_map(|scope| Right::parse(scope).ok()).collect();
    may_give(caller, &rights, old.of_organization)?;
    refuse_no_rights(&rights)?;
    let now = app.clock.now();
    let span = old.expires_at - old.created_at;
    let grant = Grant { rights: &rights, of_organization: old.of_organization, days: span.num_days() };
    let has_successor = store::has_successor(&mut tx, id).await?;
    let made = insert(&mut tx, caller, old.service_account_id, grant, now + span, Some(id)).await?;
    // One that takes another's place is no more than before; two that take it are.
    if has_successor {
        limit::ops::keep_within(&mut tx, Limit::ApiKeys).await?;
    }
    let ends = old.expires_at.min(now + TimeDelta::hours(overlap_hours));
    store::set_expiry(&mut tx, id, ends).await?;
    let changes = json!({ "expires_at": ends, "rolled_to": made.key.id });
    record(&mut tx, caller, entry("api_key.rolled", id, changes)).await?;
    tx.commit().await?;
    Ok(made)
}

/// Ends a key at once. Harmless when repeated.
///
/// # Errors
/// `request.not_found`.
pub async fn revoke(app: &App, caller: &Caller, id: ApiKeyId) -> Result<()> {
    caller.may(Right::KeysWrite)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let key = store::get_for_update(&mut tx, id).await?.ok_or_else(|| Error::not_found("key"))?;
    if key.state != KeyState::Revoked {
        store::revoke(&mut tx, id).await?;
        record(&mut tx, caller, entry("api_key.revoked", id, json!({}))).await?;
    }
    tx.commit().await
}

/// One key.
///
/// # Errors
/// `request.not_found`.
pub async fn get(app: &App, caller: &Caller, id: ApiKeyId) -> Result<ApiKey> {
    caller.may(Right::KeysRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    store::get(&mut tx, id).await?.ok_or_else(|| Error::not_found("key"))
}

/// A page of keys, of one account if named; those that work no more among them.
///
/// # Errors
/// [`Code::Database`].
pub async fn list(app: &App, caller: &Caller, of: Option<ServiceAccountId>, page: PageRequest) -> Result<Page<ApiKey>> {
    caller.may(Right::KeysRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    Ok(Page::of(store::list(&mut tx, of, page).await?, page, |key| key.id.uuid()))
}

/// Makes a service account.
///
/// # Errors
/// `request.conflict` for a name that is taken, `request.invalid`.
pub async fn create_account(app: &App, caller: &Caller, name: &str) -> Result<ServiceAccount> {
    caller.may(Right::KeysWrite)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let id = ServiceAccountId::new();
    store::insert_account(&mut tx, id, name).await?;
    let changes = json!({ "name": name });
    let action = "service_account.created";
    record(&mut tx, caller, Entry { action, target_kind: "service_account", target: id.uuid(), changes }).await?;
    limit::ops::keep_within(&mut tx, Limit::ServiceAccounts).await?;
    let made = account(&mut tx, id).await?;
    tx.commit().await?;
    Ok(made)
}

/// Takes a service account away, and ends its keys at once.
///
/// # Errors
/// `request.not_found`.
pub async fn archive_account(app: &App, caller: &Caller, id: ServiceAccountId) -> Result<()> {
    caller.may(Right::KeysWrite)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    account(&mut tx, id).await?;
    let revoked = store::archive_account(&mut tx, id).await?;
    let (action, changes) = ("service_account.archived", json!({ "revoked_keys": revoked }));
    record(&mut tx, caller, Entry { action, target_kind: "service_account", target: id.uuid(), changes }).await?;
    tx.commit().await
}

/// One service account.
///
/// # Errors
/// `request.not_found`.
pub async fn get_account(app: &App, caller: &Caller, id: ServiceAccountId) -> Result<ServiceAccount> {
    caller.may(Right::KeysRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    account(&mut tx, id).await
}

/// A page of service accounts.
///
/// # Errors
/// [`Code::Database`].
pub async fn list_accounts(app: &App, caller: &Caller, page: PageRequest) -> Result<Page<ServiceAccount>> {
    caller.may(Right::KeysRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    Ok(Page::of(store::list_accounts(&mut tx, page).await?, page, |account| account.id.uuid()))
}

/// Who holds this key. Unknown, mistyped, revoked and expired keys get one and the same answer.
///
/// A key of the organization acts in the workspace that is `named`, or else in its own.
///
/// # Errors
/// [`Code::Unauthenticated`]; `request.not_found` when the key is not for the workspace named.
pub async fn authenticate(app: &App, key: &str, named: Option<WorkspaceId>) -> Result<Caller> {
    let refused = || Error::new(Code::Unauthenticated, "the API key is missing, unknown, revoked or expired");
    let parsed = key_text::parse(key_text::API_KEY, key).ok_or_else(refused)?;
    let found = store::find(&app.db, &parsed.key_id).await?.ok_or_else(refused)?;
    let same = bool::from(found.secret_hash.ct_eq(parsed.hash.as_slice()));
    if !same || !found.usable {
        return Err(refused());
    }
    // A scope of a later version is no right of this one.
    let rights: Vec<_> = found.scopes.iter().filter_map(|scope| Right::parse(scope).ok()).collect();
    let workspace = named.unwrap_or(found.workspace_id);
    let allowed = workspace == found.workspace_id
        || found.of_organization && store::is_workspace_of(&app.db, workspace, found.organization_id).await?;
    if !allowed {
        return Err(Error::not_found("workspace"));
    }
    let actor = Actor::ApiKey { key: found.id, service_account: found.service_account_id };
    let whole = found.of_organization.then(|| rights.clone());
    Ok(Caller::new(workspace, actor, rights).of(found.organization_id, whole))
}

/// Nobody gives away what they may not do themselves, nor where they may not.
fn may_give(caller: &Caller, rights: &[Right], of_organization: bool) -> Result<()> {
    if of_organization {
        let caller = caller.in_organization()?;
        return rights.iter().try_for_each(|right| caller.may(*right, None));
    }
    rights.iter().try_for_each(|right| caller.may(*right))
}

async fn account(tx: &mut TenantTx, id: ServiceAccountId) -> Result<ServiceAccount> {
    store::get_account(tx, id).await?.ok_or_else(|| Error::not_found("service account"))
}

fn refuse_no_rights(rights: &[Right]) -> Result<()> {
    if rights.is_empty() { Err(Error::invalid("/scopes", "must name at least one scope")) } else { Ok(()) }
}

fn expiry(app: &App, days: i64) -> Result<DateTime<Utc>> {
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(Error::invalid("/days", format!("must be 1 to {DAYS_MAX}")));
    }
    Ok(app.clock.now() + TimeDelta::days(days))
}

async fn insert(
    tx: &mut TenantTx,
    caller: &Caller,
    account: ServiceAccountId,
    grant: Grant<'_>,
    expires_at: DateTime<Utc>,
    rolled_from: Option<ApiKeyId>,
) -> Result<NewKey> {
    let drawn = key_text::draw(key_text::API_KEY);
    let parsed = key_text::parse(key_text::API_KEY, &drawn)
        .ok_or_else(|| Error::new(Code::Internal, "a new key does not read back"))?;
    let mut scopes: Vec<_> = grant.rights.iter().map(|right| right.as_str()).collect();
    scopes.sort_unstable();
    scopes.dedup();
    let new = store::InsertKey {
        id: ApiKeyId::new(),
        service_account: account,
        key_id: &parsed.key_id,
        hash: &parsed.hash,
        scopes: &scopes,
        of_organization: grant.of_organization,
        expires_at,
        created_by: caller.actor.id(),
        rolled_from,
    };
    store::insert(tx, &new).await?;
    let changes = json!({
        "service_account": account, "scopes": scopes, "of_organization": grant.of_organization, "expires_at": expires_at,
    });
    record(tx, caller, entry("api_key.created", new.id, changes)).await?;
    if rolled_from.is_none() {
        limit::ops::keep_within(tx, Limit::ApiKeys).await?;
    }
    let key = store::get(tx, new.id).await?.ok_or_else(|| Error::not_found("key"))?;
    Ok(NewKey { key, text: drawn.parse().unwrap_or_default() })
}

fn entry(action: &str, id: ApiKeyId, changes: serde_json::Value) -> Entry<'_> {
    Entry { action, target_kind: "api_key", target: id.uuid(), changes }
}
