//! Keeping answers.

use serde_json::Value;

use super::store;
use crate::access::Caller;
use crate::app::App;
use crate::error::{Code, Error, Result};

/// An answer kept.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Kept {
    /// The HTTP status.
    pub status: i16,
    /// Headers worth keeping: `Location`, `ETag`.
    pub headers: Value,
    /// The body.
    pub body: String,
}

/// Begins a request under a key; an answer if there is one already.
///
/// # Errors
/// `request.idempotency_mismatch` when the key was used for another route or body, `request.idempotency_in_flight`
/// while the first request is being worked on.
pub async fn begin(app: &App, caller: &Caller, key: &str, route: &str, sha256: &[u8]) -> Result<Option<Kept>> {
    if key.is_empty() || key.chars().count() > 255 {
        return Err(Error::new(Code::Invalid, "Idempotency-Key must have 1 to 255 characters"));
    }
    let mut tx = app.db.tenant(caller.workspace).await?;
    store::prune(&mut tx).await?;
    let new = store::insert(&mut tx, key, route, sha256).await?;
    let found = store::get(&mut tx, key).await?;
    tx.commit().await?;
    if new {
        return Ok(None);
    }
    let Some(found) = found else { return Ok(None) };
    if found.route != route || found.body_sha256 != sha256 {
        return Err(Error::new(Code::IdempotencyMismatch, "the Idempotency-Key was used for another request"));
    }
    match (found.status, found.headers, found.body) {
        (Some(status), Some(headers), Some(body)) => Ok(Some(Kept { status, headers, body })),
        _ => Err(Error::new(Code::IdempotencyInFlight, "the first request with this key is being worked on")),
    }
}

/// Keeps an answer; one that only says that something is broken is not kept, so that trying again helps.
///
/// # Errors
/// [`Code::Database`].
pub async fn finish(app: &App, caller: &Caller, key: &str, answer: &Kept) -> Result<()> {
    let mut tx = app.db.tenant(caller.workspace).await?;
    if answer.status >= 500 || answer.status == 429 {
        store::delete(&mut tx, key).await?;
    } else {
        store::finish(&mut tx, key, answer).await?;
    }
    tx.commit().await
}
