//! The API key's statements.

use chrono::{DateTime, Utc};

use crate::access::Right;
use crate::db::{Db, TenantTx, failed};
use crate::error::Result;
use crate::id::{ApiKeyId, ServiceAccountId, WorkspaceId};

#[derive(sqlx::FromRow)]
pub(crate) struct FoundKey {
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) id: ApiKeyId,
    pub(crate) service_account_id: ServiceAccountId,
    pub(crate) secret_hash: Vec<u8>,
    pub(crate) scopes: Vec<String>,
    pub(crate) usable: bool,
}

pub(crate) async fn find(db: &Db, key_id: &str) -> Result<Option<FoundKey>> {
    sqlx::query_as(
        "select workspace_id, id, service_account_id, secret_hash, scopes, usable
         from find_api_key($1)",
    )
    .bind(key_id)
    .fetch_optional(db.dispatcher())
    .await
    .map_err(failed("cannot look for the API key"))
}

pub(crate) async fn find_or_insert_account(
    tx: &mut TenantTx,
    id: ServiceAccountId,
    name: &str,
) -> Result<ServiceAccountId> {
    sqlx::query_scalar(
        "insert into service_account (workspace_id, id, name)
         values ($1, $2, $3)
         on conflict (workspace_id, lower(name)) do update set name = service_account.name
         returning id",
    )
    .bind(tx.workspace())
    .bind(id)
    .bind(name)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot make the service account"))
}

pub(crate) async fn insert(
    tx: &mut TenantTx,
    id: ApiKeyId,
    service_account: ServiceAccountId,
    key_id: &str,
    hash: &[u8; 32],
    rights: &[Right],
    expires_at: DateTime<Utc>,
) -> Result<()> {
    let scopes: Vec<_> = rights.iter().map(|right| right.as_str()).collect();
    sqlx::query(
        "insert into api_key (workspace_id, id, service_account_id, key_id, secret_hash, scopes, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(tx.workspace())
    .bind(id)
    .bind(service_account)
    .bind(key_id)
    .bind(hash.as_slice())
    .bind(scopes)
    .bind(expires_at)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot store the API key"))
}
