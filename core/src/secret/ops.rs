//! What may be done with secrets.

use std::collections::BTreeMap;

use uuid::Uuid;
use zeroize::Zeroizing;

use super::store;
use crate::app::App;
use crate::db::TenantTx;
use crate::error::Result;
use crate::id::SecretId;

/// Seals a field's text in place of what was there.
pub(crate) async fn put(app: &App, tx: &mut TenantTx, owner: Uuid, field: &str, text: &str) -> Result<()> {
    let id = SecretId::new();
    let sealed = app.vault.seal(tx.workspace(), id, text)?;
    store::delete(tx, owner, field).await?;
    store::insert(tx, id, owner, field, &sealed).await
}

/// Forgets a field's text.
pub(crate) async fn remove(tx: &mut TenantTx, owner: Uuid, field: &str) -> Result<()> {
    store::delete(tx, owner, field).await
}

/// Which fields of an owner are sealed.
pub(crate) async fn fields(tx: &mut TenantTx, owner: Uuid) -> Result<Vec<super::store::SealedField>> {
    store::fields(tx, owner).await
}

/// Opens all fields of an owner. For a worker alone.
pub(crate) async fn open(app: &App, tx: &mut TenantTx, owner: Uuid) -> Result<BTreeMap<String, Zeroizing<String>>> {
    let rows = store::all(tx, owner).await?;
    let workspace = tx.workspace();
    rows.into_iter().map(|row| Ok((row.field, app.vault.open(workspace, row.id, &row.sealed)?))).collect()
}

/// Opens one field, and holds it until the transaction ends: for a minute, a call to somebody else included.
pub(crate) async fn open_locked(
    app: &App,
    tx: &mut TenantTx,
    owner: Uuid,
    field: &str,
) -> Result<Option<Zeroizing<String>>> {
    let row = store::get_locked(tx, owner, field).await?;
    row.map(|row| app.vault.open(tx.workspace(), row.id, &row.sealed)).transpose()
}

/// Seals another text in the place of one that is held; whoever waits for it finds the new one.
pub(crate) async fn replace(app: &App, tx: &mut TenantTx, owner: Uuid, field: &str, text: &str) -> Result<()> {
    let id = SecretId::new();
    let sealed = app.vault.seal(tx.workspace(), id, text)?;
    store::replace(tx, id, owner, field, &sealed).await
}
