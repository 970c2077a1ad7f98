//! A master key turned over while the service runs.
//!
//! ~~~text
//! keys: first            keys: second, first          keys: second, first        keys: second
//! wraps: first ──────►   new secrets: second   ──────► first: 0 secrets   ──────► first is wiped
//!                        a worker re-wraps the rest
//! ~~~
//!
//! A data key is wrapped anew and nothing else: its secret is not opened, and whoever reads it meanwhile finds the one
//! wrapping or the other. The key that became current last is current, whatever a process that has not looked yet
//! believes: what that one seals is found in the next round, and it wraps nothing back.

use serde::Serialize;
use uuid::Uuid;

use super::store::{self, Holder, WrappedKey};
use crate::app::App;
use crate::error::{Code, Result};
use crate::id::SecretId;
use crate::metrics;

/// Data keys read at a time.
const ROWS: i32 = 200;
/// The lock that one worker at a time holds.
const LOCK: &str = "master keys";

/// A master key, and what hangs on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyUse {
    /// Its name.
    pub name: String,
    /// Secrets whose data key it wraps.
    pub secrets: i64,
    /// Whether this process was given it.
    pub given: bool,
}

/// What one round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// Data keys that were wrapped anew.
    pub rewrapped: u64,
    /// Data keys that do not unwrap although their master key is given: their rows were changed or moved.
    pub broken: u64,
    /// The first of them.
    pub first_broken: Option<SecretId>,
    /// Secrets of master keys that were not given.
    pub stranded: i64,
}

/// Makes the key that seals here the current one. When a process starts, only if it never was before: who starts with an
/// old key may merely be late.
///
/// # Errors
/// [`Code::Database`].
pub async fn announce(app: &App, starting: bool) -> Result<()> {
    store::note_current(&app.db, &app.vault.current_key(), starting).await
}

/// The key that became current last, of any process.
///
/// # Errors
/// [`Code::Database`].
pub async fn current(app: &App) -> Result<Option<String>> {
    store::current_key(&app.db).await
}

/// Every master key that is given or used, by name.
///
/// # Errors
/// [`Code::Database`].
pub async fn uses(app: &App) -> Result<Vec<KeyUse>> {
    let given = app.vault.names();
    let mut uses: Vec<_> = store::count_by_key(&app.db)
        .await?
        .into_iter()
        .map(|(name, secrets)| KeyUse { given: given.contains(&name), name, secrets })
        .filter(|of| of.given || of.secrets > 0)
        .collect();
    for name in given {
        if !uses.iter().any(|of| of.name == name) {
            uses.push(KeyUse { name, secrets: 0, given: true });
        }
    }
    uses.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(uses)
}

/// Sets the gauges of secrets by master key.
///
/// # Errors
/// [`Code::Database`].
pub async fn gauge(app: &App) -> Result<()> {
    for (name, secrets) in store::count_by_key(&app.db).await? {
        metrics::secrets(name, secrets);
    }
    Ok(())
}

/// Wraps by the current master key whatever is wrapped by another that is given, in small batches, one worker at a time.
/// None when there is nothing to do here: another worker is at it, or this process knows an older key as the current one.
///
/// # Errors
/// [`Code::Database`]. A data key that does not unwrap is counted and left.
pub async fn round(app: &App) -> Result<Option<Round>> {
    app.vault.look_again();
    let own = app.vault.current_key();
    if current(app).await?.is_some_and(|current| current != own) {
        return Ok(None);
    }
    let uses = uses(app).await?;
    if uses.iter().all(|of| of.secrets == 0 || of.name == own) {
        return Ok(Some(Round::default()));
    }
    let Some(_lock) = app.db.try_lock(LOCK).await? else { return Ok(None) };
    let opening = app.vault.opening();
    let stranded = uses.iter().filter(|of| !opening.contains(&of.name)).map(|of| of.secrets).sum();
    let by_keys: Vec<_> = opening.into_iter().filter(|name| *name != own).collect();
    let (mut round, mut after) = (Round { stranded, ..Round::default() }, Uuid::nil());
    loop {
        let rows = store::to_rewrap(&app.db, &by_keys, after, ROWS).await?;
        let Some(last) = rows.last() else { return Ok(Some(round)) };
        after = last.id.uuid();
        for row in &rows {
            match rewrap(app, row).await {
                Ok(done) => round.rewrapped += u64::from(done),
                Err(error) if error.code == Code::Vault => {
                    // Each round comes by it again: `first_broken` is told loudly, and once.
                    tracing::debug!(secret.id = %row.id, error = %error.chain(), "a data key cannot be wrapped anew");
                    round.broken += 1;
                    round.first_broken.get_or_insert(row.id);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether it was: another text may have been sealed in its place meanwhile.
async fn rewrap(app: &App, row: &WrappedKey) -> Result<bool> {
    let holder = row.holder()?;
    let anew = app.vault.rewrap(holder, row.id, &row.master_key, &row.wrapped_key)?;
    match holder {
        Holder::Workspace(workspace) => {
            let mut tx = app.db.tenant(workspace).await?;
            let done = store::set_wrapped_key(&mut tx, row, &anew).await?;
            tx.commit().await.map(|()| done)
        }
        Holder::Person(user) => {
            let mut tx = app.db.person(user).await?;
            let done = store::set_wrapped_key_of_person(&mut tx, row, &anew).await?;
            tx.commit().await.map(|()| done)
        }
        Holder::Organization(organization) => {
            let mut tx = app.db.organization(organization).await?;
            let done = store::set_wrapped_key_of_organization(&mut tx, row, &anew).await?;
            tx.commit().await.map(|()| done)
        }
    }
}

/// Tries whether the given keys open what they wrapped: a few data keys of each. By name, how many did and did not.
///
/// # Errors
/// [`Code::Database`].
pub async fn prove(app: &App, rows_max: i32) -> Result<Vec<(String, usize, usize)>> {
    let mut proved = Vec::new();
    for name in app.vault.names() {
        let rows = store::to_rewrap(&app.db, std::slice::from_ref(&name), Uuid::nil(), rows_max).await?;
        let opens = |row: &&WrappedKey| {
            row.holder().and_then(|holder| app.vault.prove(holder, row.id, &row.master_key, &row.wrapped_key)).is_ok()
        };
        let opened = rows.iter().filter(opens).count();
        proved.push((name, opened, rows.len() - opened));
    }
    Ok(proved)
}
