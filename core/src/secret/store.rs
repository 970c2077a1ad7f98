//! The secret's statements.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::db::{Db, TenantTx, failed};
use crate::error::Result;
use crate::id::{SecretId, WorkspaceId};
use crate::vault::Sealed;

#[derive(sqlx::FromRow)]
pub(crate) struct SecretRow {
    pub(crate) id: SecretId,
    pub(crate) field: String,
    master_key: String,
    wrapped_key: Vec<u8>,
    ciphertext: Vec<u8>,
}

impl SecretRow {
    pub(crate) fn sealed(&self) -> Sealed {
        Sealed {
            master_key: self.master_key.clone(),
            wrapped_key: self.wrapped_key.clone(),
            ciphertext: self.ciphertext.clone(),
        }
    }
}

/// A field that is sealed, without its text.
#[derive(sqlx::FromRow)]
pub(crate) struct SealedField {
    pub(crate) field: String,
    pub(crate) created_at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
pub(crate) struct WrappedKey {
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) id: SecretId,
    pub(crate) master_key: String,
    pub(crate) wrapped_key: Vec<u8>,
}

pub(crate) async fn insert(tx: &mut TenantTx, id: SecretId, owner: Uuid, field: &str, sealed: &Sealed) -> Result<()> {
    sqlx::query(
        "insert into secret (workspace_id, id, owner_id, field, master_key, wrapped_key, ciphertext)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(tx.workspace())
    .bind(id)
    .bind(owner)
    .bind(field)
    .bind(&sealed.master_key)
    .bind(&sealed.wrapped_key)
    .bind(&sealed.ciphertext)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot store the secret"))
}

pub(crate) async fn delete(tx: &mut TenantTx, owner: Uuid, field: &str) -> Result<()> {
    sqlx::query("delete from secret where workspace_id = $1 and owner_id = $2 and field = $3")
        .bind(tx.workspace())
        .bind(owner)
        .bind(field)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot remove the secret"))
}

pub(crate) async fn fields(tx: &mut TenantTx, owner: Uuid) -> Result<Vec<SealedField>> {
    sqlx::query_as(
        "select field, created_at
         from secret
         where workspace_id = $1
           and owner_id = $2
         order by field",
    )
    .bind(tx.workspace())
    .bind(owner)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the secrets"))
}

pub(crate) async fn all(tx: &mut TenantTx, owner: Uuid) -> Result<Vec<SecretRow>> {
    sqlx::query_as(
        "select id, field, master_key, wrapped_key, ciphertext
         from secret
         where workspace_id = $1
           and owner_id = $2",
    )
    .bind(tx.workspace())
    .bind(owner)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot read the secrets"))
}

/// The same row with another text: one that is deleted and made anew would be gone for those who wait for it.
pub(crate) async fn replace(tx: &mut TenantTx, id: SecretId, owner: Uuid, field: &str, sealed: &Sealed) -> Result<()> {
    sqlx::query(
        "update secret
         set id = $4, master_key = $5, wrapped_key = $6, ciphertext = $7, created_at = now()
         where workspace_id = $1
           and owner_id = $2
           and field = $3",
    )
    .bind(tx.workspace())
    .bind(owner)
    .bind(field)
    .bind(id)
    .bind(&sealed.master_key)
    .bind(&sealed.wrapped_key)
    .bind(&sealed.ciphertext)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot store the secret"))
}

pub(crate) async fn get_locked(tx: &mut TenantTx, owner: Uuid, field: &str) -> Result<Option<SecretRow>> {
    tx.allow_silence().await?;
    sqlx::query_as(
        "select id, field, master_key, wrapped_key, ciphertext
         from secret
         where workspace_id = $1
           and owner_id = $2
           and field = $3
         for update",
    )
    .bind(tx.workspace())
    .bind(owner)
    .bind(field)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read the secret"))
}

pub(crate) async fn to_rewrap(db: &Db, current: &str, rows_max: i32) -> Result<Vec<WrappedKey>> {
    sqlx::query_as("select workspace_id, id, master_key, wrapped_key from secrets_to_rewrap($1, $2)")
        .bind(current)
        .bind(rows_max)
        .fetch_all(db.dispatcher())
        .await
        .map_err(failed("cannot list the secrets to re-wrap"))
}

pub(crate) async fn set_wrapped_key(tx: &mut TenantTx, row: &WrappedKey, key: &str, wrapped: &[u8]) -> Result<()> {
    sqlx::query(
        "update secret
         set master_key = $4, wrapped_key = $5
         where workspace_id = $1
           and id = $2
           and master_key = $3",
    )
    .bind(tx.workspace())
    .bind(row.id)
    .bind(&row.master_key)
    .bind(key)
    .bind(wrapped)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot store the re-wrapped key"))
}
