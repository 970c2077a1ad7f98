//! The secret's statements.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::db::{Db, OrganizationTx, PersonTx, TenantTx, failed};
use crate::error::{Code, Error, Result};
use crate::id::{OrganizationId, SecretId, UserId, WorkspaceId};
use crate::vault::{Owner, Rewrapped, Sealed};

#[derive(sqlx::FromRow)]
pub(crate) struct SecretRow {
    pub(crate) id: SecretId,
    pub(crate) field: String,
    #[sqlx(flatten)]
    pub(crate) sealed: Sealed,
}

/// A field that is sealed, without its text.
#[derive(sqlx::FromRow)]
pub(crate) struct SealedField {
    pub(crate) field: String,
    pub(crate) created_at: DateTime<Utc>,
}

/// Whose secret a wrapped data key is of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Holder {
    Workspace(WorkspaceId),
    Person(UserId),
    Organization(OrganizationId),
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Workspace(id) => id.fmt(f),
            Self::Person(id) => id.fmt(f),
            Self::Organization(id) => id.fmt(f),
        }
    }
}

impl Owner for Holder {}

#[derive(sqlx::FromRow)]
pub(crate) struct WrappedKey {
    owner_kind: String,
    owner_id: Uuid,
    pub(crate) id: SecretId,
    pub(crate) master_key: String,
    pub(crate) wrapped_key: Vec<u8>,
}

impl WrappedKey {
    /// Whose it is, as the view `wrapped_key` says.
    pub(crate) fn holder(&self) -> Result<Holder> {
        match self.owner_kind.as_str() {
            "workspace" => Ok(Holder::Workspace(self.owner_id.into())),
            "person" => Ok(Holder::Person(self.owner_id.into())),
            "organization" => Ok(Holder::Organization(self.owner_id.into())),
            other => Err(Error::new(Code::Internal, format!("secrets of a `{other}` are not known to this version"))),
        }
    }
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

/// The next data keys, by id, that one of these master keys wraps.
pub(crate) async fn to_rewrap(db: &Db, by_keys: &[String], after: Uuid, rows_max: i32) -> Result<Vec<WrappedKey>> {
    sqlx::query_as("select owner_kind, owner_id, id, master_key, wrapped_key from keys_to_rewrap($1, $2, $3)")
        .bind(by_keys)
        .bind(after)
        .bind(rows_max)
        .fetch_all(db.dispatcher())
        .await
        .map_err(failed("cannot list the secrets to re-wrap"))
}

/// Secrets by the name of their master key.
pub(crate) async fn count_by_key(db: &Db) -> Result<Vec<(String, i64)>> {
    sqlx::query_as("select name, secrets from secrets_by_master_key()")
        .fetch_all(db.dispatcher())
        .await
        .map_err(failed("cannot count the secrets"))
}

/// The master key that became current last.
pub(crate) async fn current_key(db: &Db) -> Result<Option<String>> {
    sqlx::query_scalar("select name from master_key order by current_since desc limit 1")
        .fetch_optional(db.dispatcher())
        .await
        .map_err(failed("cannot read which master key is current"))
}

/// The key is current from now on; of one that was before, only where `new_only` does not say otherwise.
pub(crate) async fn note_current(db: &Db, name: &str, new_only: bool) -> Result<()> {
    sqlx::query(
        "insert into master_key (name)
         values ($1)
         on conflict (name) do update set current_since = clock_timestamp() where not $2",
    )
    .bind(name)
    .bind(new_only)
    .execute(db.dispatcher())
    .await
    .map(|_| ())
    .map_err(failed("cannot write which master key is current"))
}

/// Whether the row was still what it was.
pub(crate) async fn set_wrapped_key(tx: &mut TenantTx, row: &WrappedKey, anew: &Rewrapped) -> Result<bool> {
    sqlx::query(
        "update secret
         set master_key = $4, wrapped_key = $5
         where workspace_id = $1
           and id = $2
           and wrapped_key = $3",
    )
    .bind(tx.workspace())
    .bind(row.id)
    .bind(&row.wrapped_key)
    .bind(&anew.master_key)
    .bind(&anew.wrapped_key)
    .execute(tx.conn())
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(failed("cannot store the re-wrapped key"))
}

/// The same of a person's second factor.
pub(crate) async fn set_wrapped_key_of_person(tx: &mut PersonTx, row: &WrappedKey, anew: &Rewrapped) -> Result<bool> {
    sqlx::query(
        "update totp
         set master_key = $4, wrapped_key = $5
         where user_id = $1
           and id = $2
           and wrapped_key = $3",
    )
    .bind(tx.user())
    .bind(row.id)
    .bind(&row.wrapped_key)
    .bind(&anew.master_key)
    .bind(&anew.wrapped_key)
    .execute(tx.conn())
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(failed("cannot store the re-wrapped key"))
}

/// The same of the secret of an organization's issuer.
pub(crate) async fn set_wrapped_key_of_organization(
    tx: &mut OrganizationTx,
    row: &WrappedKey,
    anew: &Rewrapped,
) -> Result<bool> {
    sqlx::query(
        "update sso_secret
         set master_key = $4, wrapped_key = $5
         where organization_id = $1
           and id = $2
           and wrapped_key = $3",
    )
    .bind(tx.organization())
    .bind(row.id)
    .bind(&row.wrapped_key)
    .bind(&anew.master_key)
    .bind(&anew.wrapped_key)
    .execute(tx.conn())
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(failed("cannot store the re-wrapped key"))
}
