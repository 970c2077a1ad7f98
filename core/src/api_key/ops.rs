//! What may be done with API keys.

use chrono::TimeDelta;
use subtle::ConstantTimeEq;

use super::{NewKey, store, text};
use crate::access::{Actor, Caller, Right};
use crate::app::App;
use crate::audit::ops::{Entry, record};
use crate::error::{Code, Error, Result};
use crate::id::{ApiKeyId, ServiceAccountId, WorkspaceId};

/// Days that a key may last, at most.
pub const DAYS_MAX: i64 = 3_650;

/// Makes a key for a service account of this name, and the account if there is none.
///
/// # Errors
/// `request.invalid` for no rights, or days outside 1 to [`DAYS_MAX`].
pub async fn create(app: &App, workspace: WorkspaceId, account: &str, rights: &[Right], days: i64) -> Result<NewKey> {
    if rights.is_empty() {
        return Err(Error::invalid("/scopes", "must name at least one scope"));
    }
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(Error::invalid("/days", format!("must be 1 to {DAYS_MAX}")));
    }
    let caller = Caller::command(workspace);
    let drawn = text::draw();
    let parsed = text::parse(&drawn).ok_or_else(|| Error::new(Code::Internal, "a new key does not read back"))?;
    let (id, expires_at) = (ApiKeyId::new(), app.clock.now() + TimeDelta::days(days));

    let mut tx = app.db.tenant(workspace).await?;
    let service_account = store::find_or_insert_account(&mut tx, ServiceAccountId::new(), account).await?;
    store::insert(&mut tx, id, service_account, &parsed.key_id, &parsed.hash, rights, expires_at).await?;
    let scopes: Vec<_> = rights.iter().map(|right| right.as_str()).collect();
    let entry = Entry {
        action: "api_key.created",
        target_kind: "api_key",
        target: id.uuid(),
        changes: serde_json::json!({ "service_account": service_account, "scopes": scopes, "expires_at": expires_at }),
    };
    record(&mut tx, &caller, entry).await?;
    tx.commit().await?;
    Ok(NewKey { id, service_account, text: drawn.parse().unwrap_or_default(), expires_at })
}

/// Who holds this key. Unknown, mistyped, revoked and expired keys get one and the same answer.
///
/// # Errors
/// [`Code::Unauthenticated`].
pub async fn authenticate(app: &App, key: &str) -> Result<Caller> {
    let refused = || Error::new(Code::Unauthenticated, "the API key is missing, unknown, revoked or expired");
    let parsed = text::parse(key).ok_or_else(refused)?;
    let found = store::find(&app.db, &parsed.key_id).await?.ok_or_else(refused)?;
    let same = bool::from(found.secret_hash.ct_eq(parsed.hash.as_slice()));
    if !same || !found.usable {
        return Err(refused());
    }
    // A scope of a later version is no right of this one.
    let rights = found.scopes.iter().filter_map(|scope| Right::parse(scope).ok()).collect();
    let actor = Actor::ApiKey { key: found.id, service_account: found.service_account_id };
    Ok(Caller::new(found.workspace_id, actor, rights))
}
