//! What may be done with connections and destinations.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{Connection, End, Endpoint, SecretState, merge, put_secret, split_secrets, store};
use crate::access::Caller;
use crate::app::App;
use crate::audit::ops::{Entry, record};
use crate::connector::{KEPT_SECRET, LockedSecret, SecretKeeper, Step};
use crate::db::TenantTx;
use crate::error::{Code, Error, Result};
use crate::id::{ConnectionId, WorkspaceId};
use crate::limit;
use crate::page::{Page, PageRequest};
use crate::secret;

/// Makes one: settings checked by its kind, secrets sealed.
///
/// # Errors
/// `request.invalid` with the fields at fault, `request.conflict` for a taken name, `platform.quota_exceeded`.
pub async fn create<E: End>(
    app: &App,
    caller: &Caller,
    kind: &str,
    name: &str,
    settings: Value,
) -> Result<Endpoint<E::Id>> {
    caller.may(E::WRITE)?;
    let fields = E::fields(&app.registry, kind)?;
    let (settings, secrets) = split_secrets(E::validate(&app.registry, kind, settings)?, fields);
    let id = E::draw();

    let mut tx = app.db.tenant(caller.workspace).await?;
    store::insert::<E>(&mut tx, id, kind, name, &settings).await?;
    seal(app, &mut tx, E::uuid(id), &secrets).await?;
    audit::<E>(&mut tx, caller, id, "created", json!({ "kind": kind, "name": name })).await?;
    limit::ops::keep_within(&mut tx, E::LIMIT).await?;
    let made = read::<E>(&mut tx, id).await?;
    tx.commit().await?;
    Ok(made)
}

/// Changes name and settings by merge patch: absent keeps, null clears; a secret not named stays.
///
/// # Errors
/// `request.precondition_failed` when `row_version` is not the current one; else as [`create`].
pub async fn update<E: End>(
    app: &App,
    caller: &Caller,
    id: E::Id,
    row_version: i64,
    name: Option<&str>,
    patch: Value,
) -> Result<Endpoint<E::Id>> {
    caller.may(E::WRITE)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let current = read_locked::<E>(&mut tx, id, row_version).await?;
    let fields = E::fields(&app.registry, &current.kind)?;

    let (patch, new_secrets) = split_secrets(patch, fields);
    let mut settings = current.settings.clone();
    merge(&mut settings, patch);
    // The API cannot open what is sealed: a kept secret is checked by a stand-in that every kind takes.
    let kept = current.secrets.keys().filter(|field| !new_secrets.contains_key(*field));
    for field in kept {
        put_secret(&mut settings, field, KEPT_SECRET);
    }
    for (field, text) in new_secrets.iter().filter_map(|(field, text)| Some((field, text.as_ref()?))) {
        put_secret(&mut settings, field, text);
    }
    let (settings, _) = split_secrets(E::validate(&app.registry, &current.kind, settings)?, fields);

    let name = name.unwrap_or(&current.name);
    store::update::<E>(&mut tx, id, name, &settings).await?;
    seal(app, &mut tx, E::uuid(id), &new_secrets).await?;
    let changed: BTreeSet<_> = changed_members(&current.settings, &settings).chain(new_secrets.into_keys()).collect();
    audit::<E>(&mut tx, caller, id, "updated", json!({ "name": name, "settings": changed })).await?;
    let updated = read::<E>(&mut tx, id).await?;
    tx.commit().await?;
    Ok(updated)
}

/// Archives one that nothing uses; its secrets are destroyed.
///
/// # Errors
/// `request.in_use`, saying how many use it; `request.precondition_failed`.
pub async fn archive<E: End>(app: &App, caller: &Caller, id: E::Id, row_version: i64) -> Result<()> {
    caller.may(E::WRITE)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let current = read_locked::<E>(&mut tx, id, row_version).await?;
    let users = store::count_users::<E>(&mut tx, id).await?;
    if users > 0 {
        let (user, _) = E::USED_BY;
        return Err(Error::new(Code::InUse, format!("the {} is used by {users} {user}s", E::NOUN)));
    }
    store::archive::<E>(&mut tx, id).await?;
    for field in current.secrets.keys() {
        secret::ops::remove(&mut tx, E::uuid(id), field).await?;
    }
    audit::<E>(&mut tx, caller, id, "archived", json!({})).await?;
    tx.commit().await
}

/// One of them.
///
/// # Errors
/// `request.not_found`.
pub async fn get<E: End>(app: &App, caller: &Caller, id: E::Id) -> Result<Endpoint<E::Id>> {
    caller.may(E::READ)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    read::<E>(&mut tx, id).await
}

/// A page of those not archived.
///
/// # Errors
/// [`Code::Database`].
pub async fn list<E: End>(app: &App, caller: &Caller, page: PageRequest) -> Result<Page<Endpoint<E::Id>>> {
    caller.may(E::READ)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let rows = store::list::<E>(&mut tx, page).await?;
    let mut endpoints = Vec::with_capacity(rows.len());
    for row in rows {
        endpoints.push(with_secrets::<E>(&mut tx, row).await?);
    }
    Ok(Page::of(endpoints, page, |endpoint| E::uuid(endpoint.id)))
}

/// Kind and whole settings, secrets opened. For a worker alone.
///
/// # Errors
/// `request.not_found`, [`Code::Vault`].
pub async fn open<E: End>(app: &App, tx: &mut TenantTx, id: E::Id) -> Result<(String, Value)> {
    let row = store::get::<E>(tx, id, false).await?.ok_or_else(|| Error::not_found(E::NOUN))?;
    let mut settings = row.settings;
    for (field, text) in secret::ops::open(app, tx, E::uuid(id)).await? {
        put_secret(&mut settings, &field, &text);
    }
    Ok((row.kind, settings))
}

/// Kind and settings, with stand-ins for secrets: for what needs none of them. The API opens nothing.
pub(crate) async fn with_stand_ins<E: End>(app: &App, tx: &mut TenantTx, id: E::Id) -> Result<(String, Value)> {
    let found = read::<E>(tx, id).await?;
    if found.archived_at.is_some() {
        return Err(Error::not_found(E::NOUN));
    }
    let mut settings = found.settings;
    for field in found.secrets.keys() {
        put_secret(&mut settings, field, KEPT_SECRET);
    }
    E::fields(&app.registry, &found.kind)?;
    Ok((found.kind, settings))
}

/// Seals one secret field, and raises the version.
pub(crate) async fn put_secret_of<E: End>(
    app: &App,
    tx: &mut TenantTx,
    id: E::Id,
    field: &str,
    text: &str,
) -> Result<()> {
    let row = store::get::<E>(tx, id, true).await?.filter(|row| row.archived_at.is_none());
    let row = row.ok_or_else(|| Error::not_found(E::NOUN))?;
    secret::ops::put(app, tx, E::uuid(id), field, text).await?;
    store::update::<E>(tx, id, &row.name, &row.settings).await
}

/// The script that gives a connection's login the rights that it needs.
///
/// # Errors
/// `request.not_found`.
pub async fn setup_script(app: &App, caller: &Caller, id: ConnectionId) -> Result<String> {
    caller.may(Connection::READ)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let (kind, settings) = with_stand_ins::<Connection>(app, &mut tx, id).await?;
    app.registry.find_source(&kind)?.setup_script(settings)
}

/// A key pair that was drawn for a connection, without its private key.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct KeyPairDrawn {
    /// The secret field that holds the private key.
    pub field: &'static str,
    /// What the source shows of the public key, to compare.
    pub fingerprint: String,
    /// The statement by which an administrator gives the public key to the login.
    pub script: String,
}

/// Draws a key pair for a connection's login; the private key goes into the vault and nowhere else.
///
/// # Errors
/// `request.not_found`; `request.invalid` for a connection that signs in otherwise.
pub async fn draw_key(app: &App, caller: &Caller, id: ConnectionId, second: bool) -> Result<KeyPairDrawn> {
    caller.may(Connection::WRITE)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let (kind, settings) = with_stand_ins::<Connection>(app, &mut tx, id).await?;
    tx.commit().await?;
    let source = app.registry.find_source(&kind)?.clone();
    let drawn = tokio::task::spawn_blocking(move || source.draw_key(settings, second)).await;
    let drawn = drawn.map_err(|error| Error::new(Code::Internal, "drawing a key broke off").caused_by(error))??;
    let mut tx = app.db.tenant(caller.workspace).await?;
    put_secret_of::<Connection>(app, &mut tx, id, drawn.field, drawn.private_key.expose()).await?;
    let changes = json!({ "settings": [drawn.field], "fingerprint": drawn.fingerprint });
    audit::<Connection>(&mut tx, caller, id, "key_drawn", changes).await?;
    tx.commit().await?;
    Ok(KeyPairDrawn { field: drawn.field, fingerprint: drawn.fingerprint, script: drawn.script })
}

/// Where a connection's secrets lie, for those that change by being used.
pub struct Keeper {
    /// Ours.
    pub app: App,
    /// Whose connection.
    pub workspace: WorkspaceId,
    /// Which.
    pub connection: ConnectionId,
}

struct Locked {
    app: App,
    tx: TenantTx,
    connection: ConnectionId,
    field: String,
    text: zeroize::Zeroizing<String>,
}

#[async_trait]
impl SecretKeeper for Keeper {
    async fn lock(&self, field: &str) -> Result<Option<Box<dyn LockedSecret>>> {
        let mut tx = self.app.db.tenant(self.workspace).await?;
        let text = secret::ops::open_locked(&self.app, &mut tx, self.connection.uuid(), field).await?;
        let (app, connection, field) = (self.app.clone(), self.connection, field.to_owned());
        Ok(text.map(|text| Box::new(Locked { app, tx, connection, field, text }) as Box<dyn LockedSecret>))
    }
}

#[async_trait]
impl LockedSecret for Locked {
    fn text(&self) -> &str {
        &self.text
    }

    async fn replace(mut self: Box<Self>, text: &str) -> Result<()> {
        secret::ops::replace(&self.app, &mut self.tx, self.connection.uuid(), &self.field, text).await?;
        self.tx.commit().await
    }
}

/// The kind of one that is not archived.
pub(crate) async fn kind<E: End>(tx: &mut TenantTx, id: E::Id) -> Result<String> {
    let row = store::get::<E>(tx, id, false).await?.filter(|row| row.archived_at.is_none());
    Ok(row.ok_or_else(|| Error::not_found(E::NOUN))?.kind)
}

/// Keeps what a test found.
///
/// # Errors
/// [`Code::Database`].
pub async fn record_check<E: End>(tx: &mut TenantTx, id: E::Id, steps: &[Step]) -> Result<()> {
    store::set_last_check::<E>(tx, id, steps).await
}

pub(crate) async fn read<E: End>(tx: &mut TenantTx, id: E::Id) -> Result<Endpoint<E::Id>> {
    let row = store::get::<E>(tx, id, false).await?.ok_or_else(|| Error::not_found(E::NOUN))?;
    with_secrets::<E>(tx, row).await
}

async fn read_locked<E: End>(tx: &mut TenantTx, id: E::Id, row_version: i64) -> Result<Endpoint<E::Id>> {
    let row = store::get::<E>(tx, id, true).await?.ok_or_else(|| Error::not_found(E::NOUN))?;
    if row.archived_at.is_some() {
        return Err(Error::new(Code::WrongState, format!("the {} is archived", E::NOUN)));
    }
    if row.row_version != row_version {
        return Err(Error::new(Code::PreconditionFailed, format!("the {} was changed meanwhile", E::NOUN)));
    }
    with_secrets::<E>(tx, row).await
}

async fn with_secrets<E: End>(tx: &mut TenantTx, row: store::EndpointRow) -> Result<Endpoint<E::Id>> {
    let secrets = secret::ops::fields(tx, row.id)
        .await?
        .into_iter()
        .map(|sealed| (sealed.field, SecretState { set: true, rotated_at: sealed.created_at }))
        .collect();
    Ok(row.into_endpoint(secrets))
}

async fn seal(
    app: &App,
    tx: &mut TenantTx,
    owner: uuid::Uuid,
    secrets: &BTreeMap<String, Option<String>>,
) -> Result<()> {
    for (field, text) in secrets {
        match text {
            Some(text) => secret::ops::put(app, tx, owner, field, text).await?,
            None => secret::ops::remove(tx, owner, field).await?,
        }
    }
    Ok(())
}

async fn audit<E: End>(tx: &mut TenantTx, caller: &Caller, id: E::Id, deed: &str, changes: Value) -> Result<()> {
    let action = format!("{}.{deed}", E::NOUN);
    let entry = Entry { action: &action, target_kind: E::NOUN, target: E::uuid(id), changes };
    record(tx, caller, entry).await
}

/// The names of the members that differ: the audit log says which, not what.
fn changed_members(before: &Value, after: &Value) -> impl Iterator<Item = String> {
    let empty = Map::new();
    let (before, after) = (before.as_object().unwrap_or(&empty), after.as_object().unwrap_or(&empty));
    let names: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
    let changed: Vec<_> = names.into_iter().filter(|name| before.get(name) != after.get(name)).collect();
    changed.into_iter()
}
