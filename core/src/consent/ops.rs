//! Asking for consents, and taking what came back.

use chrono::TimeDelta;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{ConsentAsked, store};
use crate::access::{Actor, Caller, Right};
use crate::app::App;
use crate::audit::ops::{Entry, record};
use crate::endpoint::{Connection, ops as endpoint};
use crate::error::{Code, Error, Result};
use crate::id::{ConnectionId, ConsentId, WorkspaceId};
use crate::operation::{self, Operation, Question};
use crate::secret;
use crate::settings::Secret;

/// The path under which browsers come back.
pub const CALLBACK: &str = "/oauth/callback";
/// How long a person may take.
const MINUTES: i64 = 10;

const VERIFIER: &str = "verifier";
const CODE: &str = "code";

/// What a worker needs to exchange a code.
pub struct Returned {
    /// As it was when the person was asked.
    pub redirect_url: String,
    /// See [`crate::connector::Consent::verifier`].
    pub verifier: Secret,
    /// What came back.
    pub code: Secret,
}

/// Asks for a consent for a connection; one that was asked for before is forgotten.
///
/// # Errors
/// `request.not_found`; `request.invalid` for a connection that signs in otherwise.
pub async fn ask(app: &App, caller: &Caller, connection: ConnectionId) -> Result<ConsentAsked> {
    caller.may(Right::ConnectionsWrite)?;
    let redirect_url = format!("{}{CALLBACK}", app.settings.public_url());
    let mut tx = app.db.tenant(caller.workspace).await?;
    let (kind, settings) = endpoint::with_stand_ins::<Connection>(app, &mut tx, connection).await?;
    let begun = app.registry.find_source(&kind)?.begin_consent(settings, &redirect_url)?;
    let (id, expires_at) = (ConsentId::new(), app.clock.now() + TimeDelta::minutes(MINUTES));
    for old in store::to_forget(&mut tx, connection).await? {
        forget(&mut tx, old).await?;
    }
    let hash = Sha256::digest(begun.state.expose().as_bytes());
    store::insert(&mut tx, id, connection, &hash, &redirect_url, expires_at).await?;
    secret::ops::put(app, &mut tx, id.uuid(), VERIFIER, begun.verifier.expose()).await?;
    let changes = json!({ "expires_at": expires_at });
    let action = "connection.consent_asked";
    record(&mut tx, caller, Entry { action, target_kind: "connection", target: connection.uuid(), changes }).await?;
    tx.commit().await?;
    Ok(ConsentAsked { url: begun.url, redirect_url, expires_at })
}

/// Takes what a browser came back with; a worker exchanges it.
///
/// # Errors
/// `request.not_found` for a state that is unknown, used or over.
pub async fn come_back(app: &App, state: &str, code: &Secret) -> Result<Operation> {
    let hash = Sha256::digest(state.as_bytes());
    let found = store::take(&app.db, &hash).await?;
    let (workspace, consent, connection) =
        found.ok_or_else(|| Error::new(Code::NotFound, "the consent is unknown, used, or older than 10 minutes"))?;
    let mut tx = app.db.tenant(workspace).await?;
    secret::ops::put(app, &mut tx, consent.uuid(), CODE, code.expose()).await?;
    tx.commit().await?;
    let caller = Caller::new(workspace, Actor::Consent, vec![Right::ConnectionsWrite]);
    operation::ops::ask(app, &caller, Question::FinishConsent { connection, consent }).await
}

/// What came back, for the worker that exchanges it.
///
/// # Errors
/// `request.not_found` when a later consent took its place.
pub async fn returned(app: &App, workspace: WorkspaceId, id: ConsentId) -> Result<Returned> {
    let gone = || Error::new(Code::NotFound, "a later consent took this one's place");
    let mut tx = app.db.tenant(workspace).await?;
    let redirect_url = store::redirect_url(&mut tx, id).await?.ok_or_else(gone)?;
    let mut opened = secret::ops::open(app, &mut tx, id.uuid()).await?;
    let mut text = |field: &str| Some(opened.remove(field)?.parse().unwrap_or_default());
    let (verifier, code) = (text(VERIFIER).ok_or_else(gone)?, text(CODE).ok_or_else(gone)?);
    Ok(Returned { redirect_url, verifier, code })
}

/// Keeps what a consent granted, and forgets the consent.
///
/// # Errors
/// [`Code::Database`], [`Code::Vault`].
pub async fn finish(
    app: &App,
    workspace: WorkspaceId,
    id: ConsentId,
    connection: ConnectionId,
    granted: &crate::connector::Granted,
) -> Result<()> {
    let caller = Caller::new(workspace, Actor::Consent, vec![Right::ConnectionsWrite]);
    let mut tx = app.db.tenant(workspace).await?;
    endpoint::put_secret_of::<Connection>(app, &mut tx, connection, granted.field, granted.text.expose()).await?;
    let changes = json!({ "settings": [granted.field] });
    let action = "connection.consent_given";
    record(&mut tx, &caller, Entry { action, target_kind: "connection", target: connection.uuid(), changes }).await?;
    forget(&mut tx, id).await?;
    tx.commit().await
}

async fn forget(tx: &mut crate::db::TenantTx, id: ConsentId) -> Result<()> {
    for field in [VERIFIER, CODE] {
        secret::ops::remove(tx, id.uuid(), field).await?;
    }
    store::delete(tx, id).await
}
