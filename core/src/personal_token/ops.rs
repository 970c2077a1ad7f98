//! What may be done with personal tokens.

use chrono::TimeDelta;
use serde_json::json;
use subtle::ConstantTimeEq;

use super::{NewPersonalToken, PersonalToken, store};
use crate::access::{Caller, Credential};
use crate::app::App;
use crate::error::{Code, Error, Result};
use crate::id::{PersonalTokenId, SessionId, UserId};
use crate::key_text;
use crate::member::{self, ops::At};
use crate::user::ops::told_of;

/// Days that a token may last, at most.
pub const DAYS_MAX: i64 = 365;

/// Makes a token of a person, by no session: it opens nothing that wants an issuer's word.
///
/// # Errors
/// As [`create_in`].
pub async fn create(app: &App, user: UserId, name: &str, days: i64) -> Result<NewPersonalToken> {
    create_in(app, user, None, name, days).await
}

/// Makes a token of a person. It opens what wants an issuer's word where the session that it is made in came by that.
///
/// # Errors
/// `request.invalid` for a bad name, or days outside 1 to [`DAYS_MAX`].
pub async fn create_in(
    app: &App,
    user: UserId,
    made_in: Option<SessionId>,
    name: &str,
    days: i64,
) -> Result<NewPersonalToken> {
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(Error::invalid("/days", format!("must be 1 to {DAYS_MAX}")));
    }
    let drawn = key_text::draw(key_text::PERSONAL_TOKEN);
    let parsed = key_text::parse(key_text::PERSONAL_TOKEN, &drawn)
        .ok_or_else(|| Error::new(Code::Internal, "a new token does not read back"))?;
    let (id, expires_at) = (PersonalTokenId::new(), app.clock.now() + TimeDelta::days(days));
    let mut tx = app.db.person(user).await?;
    let token = store::insert(&mut tx, id, name.trim(), (&parsed.key_id, &parsed.hash), expires_at, made_in).await?;
    tx.commit().await?;
    let changes = json!({ "personal_token": id, "expires_at": expires_at });
    told_of(app, user, None, "user.personal_token_created", &changes).await?;
    Ok(NewPersonalToken { token, text: drawn.parse().unwrap_or_default() })
}

/// A person's tokens, newest first.
///
/// # Errors
/// [`Code::Database`].
pub async fn list(app: &App, user: UserId) -> Result<Vec<PersonalToken>> {
    let mut tx = app.db.person(user).await?;
    store::list(&mut tx).await
}

/// Ends a token at once. Harmless when repeated.
///
/// # Errors
/// `request.not_found`.
pub async fn revoke(app: &App, user: UserId, id: PersonalTokenId) -> Result<()> {
    let mut tx = app.db.person(user).await?;
    if !store::revoke(&mut tx, id).await? {
        return Err(Error::not_found("personal token"));
    }
    tx.commit().await?;
    told_of(app, user, None, "user.personal_token_revoked", &json!({ "personal_token": id })).await
}

/// Whether a text is meant to be a personal token.
#[must_use]
pub fn is_one(text: &str) -> bool {
    text.starts_with(key_text::PERSONAL_TOKEN)
}

/// Who holds this token, and where they act. Unknown, mistyped, revoked and expired ones, and those of
/// disabled people, get one and the same answer.
///
/// # Errors
/// [`Code::Unauthenticated`]; `request.not_found` and `request.workspace_missing` as [`member::ops::caller`].
pub async fn authenticate(app: &App, text: &str, at: At) -> Result<Caller> {
    let refused = || Error::new(Code::Unauthenticated, "the API key is missing, unknown, revoked or expired");
    let parsed = key_text::parse(key_text::PERSONAL_TOKEN, text).ok_or_else(refused)?;
    let found = store::find(&app.db, &parsed.key_id).await?.ok_or_else(refused)?;
    let same = bool::from(found.secret_hash.ct_eq(parsed.hash.as_slice()));
    if !same || !found.usable {
        return Err(refused());
    }
    member::ops::caller(app, (found.user_id, Credential::Token(found.id)), at, None).await
}
