//! The statements of service accounts and their keys.

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{ApiKey, ServiceAccount};
use crate::db::{Db, TenantTx, failed};
use crate::error::Result;
use crate::id::{ApiKeyId, OrganizationId, ServiceAccountId, WorkspaceId};
use crate::page::PageRequest;

const KEY: &str = "id, service_account_id, 'fr_live_' || key_id as prefix, scopes, of_organization,
                   case when revoked_at is not null then 'revoked'
                        when expires_at <= now() then 'expired'
                        else 'usable' end as state,
                   created_at, expires_at, revoked_at, last_used_at, rolled_from";

const ACCOUNT: &str = "a.id, a.name, a.created_at,
                       (select count(*) from api_key as k
                        where k.workspace_id = a.workspace_id
                          and k.service_account_id = a.id
                          and k.revoked_at is null
                          and k.expires_at > now()) as usable_keys";

#[derive(sqlx::FromRow)]
pub(crate) struct FoundKey {
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) organization_id: OrganizationId,
    pub(crate) id: ApiKeyId,
    pub(crate) service_account_id: ServiceAccountId,
    pub(crate) secret_hash: Vec<u8>,
    pub(crate) scopes: Vec<String>,
    pub(crate) of_organization: bool,
    pub(crate) usable: bool,
}

pub(crate) async fn find(db: &Db, key_id: &str) -> Result<Option<FoundKey>> {
    sqlx::query_as(
        "select workspace_id, organization_id, id, service_account_id, secret_hash, scopes, of_organization, usable
         from find_api_key($1)",
    )
    .bind(key_id)
    .fetch_optional(db.dispatcher())
    .await
    .map_err(failed("cannot look for the API key"))
}

pub(crate) async fn is_workspace_of(db: &Db, workspace: WorkspaceId, organization: OrganizationId) -> Result<bool> {
    sqlx::query_scalar("select is_workspace_of($1, $2)")
        .bind(workspace)
        .bind(organization)
        .fetch_one(db.dispatcher())
        .await
        .map_err(failed("cannot look for the workspace"))
}

pub(crate) async fn find_or_insert_account(
    tx: &mut TenantTx,
    id: ServiceAccountId,
    name: &str,
) -> Result<ServiceAccountId> {
    sqlx::query_scalar(
        "insert into service_account (workspace_id, id, name)
         values ($1, $2, $3)
         on conflict (workspace_id, lower(name)) where archived_at is null do update set name = service_account.name
         returning id",
    )
    .bind(tx.workspace())
    .bind(id)
    .bind(name)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot make the service account"))
}

pub(crate) async fn insert_account(tx: &mut TenantTx, id: ServiceAccountId, name: &str) -> Result<()> {
    sqlx::query("insert into service_account (workspace_id, id, name) values ($1, $2, $3)")
        .bind(tx.workspace())
        .bind(id)
        .bind(name)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot make the service account"))
}

pub(crate) async fn get_account(tx: &mut TenantTx, id: ServiceAccountId) -> Result<Option<ServiceAccount>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {ACCOUNT}
         from service_account as a
         where a.workspace_id = $1
           and a.id = $2
           and a.archived_at is null"
    )))
    .bind(tx.workspace())
    .bind(id)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read the service account"))
}

pub(crate) async fn list_accounts(tx: &mut TenantTx, page: PageRequest) -> Result<Vec<ServiceAccount>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {ACCOUNT}
         from service_account as a
         where a.workspace_id = $1
           and a.archived_at is null
           and ($2::uuid is null or a.id < $2)
         order by a.id desc
         limit $3 + 1"
    )))
    .bind(tx.workspace())
    .bind(page.before)
    .bind(page.limit)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the service accounts"))
}

/// Archives an account and ends its keys; how many of them had still worked.
pub(crate) async fn archive_account(tx: &mut TenantTx, id: ServiceAccountId) -> Result<i64> {
    sqlx::query_scalar(
        "with gone as (
             update service_account set archived_at = now()
             where workspace_id = $1
               and id = $2
         ), ended as (
             update api_key set revoked_at = now()
             where workspace_id = $1
               and service_account_id = $2
               and revoked_at is null
             returning expires_at
         )
         select count(*) from ended where expires_at > now()",
    )
    .bind(tx.workspace())
    .bind(id)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot archive the service account"))
}

/// A key to be stored.
pub(crate) struct InsertKey<'a> {
    pub(crate) id: ApiKeyId,
    pub(crate) service_account: ServiceAccountId,
    pub(crate) key_id: &'a str,
    pub(crate) hash: &'a [u8; 32],
    pub(crate) scopes: &'a [&'a str],
    pub(crate) of_organization: bool,
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) created_by: Option<Uuid>,
    pub(crate) rolled_from: Option<ApiKeyId>,
}

pub(crate) async fn insert(tx: &mut TenantTx, key: &InsertKey<'_>) -> Result<()> {
    sqlx::query(
        "insert into api_key (workspace_id, id, service_account_id, key_id, secret_hash, scopes, expires_at, created_by,
                              rolled_from, of_organization)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(tx.workspace())
    .bind(key.id)
    .bind(key.service_account)
    .bind(key.key_id)
    .bind(key.hash.as_slice())
    .bind(key.scopes)
    .bind(key.expires_at)
    .bind(key.created_by)
    .bind(key.rolled_from)
    .bind(key.of_organization)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot store the API key"))
}

pub(crate) async fn get(tx: &mut TenantTx, id: ApiKeyId) -> Result<Option<ApiKey>> {
    read(tx, id, "").await
}

/// The same, held until the transaction ends.
pub(crate) async fn get_for_update(tx: &mut TenantTx, id: ApiKeyId) -> Result<Option<ApiKey>> {
    read(tx, id, "for update").await
}

/// Whether a key that works was made to take this one's place.
pub(crate) async fn has_successor(tx: &mut TenantTx, id: ApiKeyId) -> Result<bool> {
    sqlx::query_scalar(
        "select exists (select 1
                        from api_key
                        where workspace_id = $1
                          and rolled_from = $2
                          and revoked_at is null
                          and expires_at > now())",
    )
    .bind(tx.workspace())
    .bind(id)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot look for the key's successor"))
}

async fn read(tx: &mut TenantTx, id: ApiKeyId, hold: &'static str) -> Result<Option<ApiKey>> {
    sqlx::query_as(AssertSqlSafe(format!("select {KEY} from api_key where workspace_id = $1 and id = $2 {hold}")))
        .bind(tx.workspace())
        .bind(id)
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("cannot read the API key"))
}

pub(crate) async fn list(
    tx: &mut TenantTx,
    account: Option<ServiceAccountId>,
    page: PageRequest,
) -> Result<Vec<ApiKey>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {KEY}
         from api_key
         where workspace_id = $1
           and ($2::uuid is null or id < $2)
           and ($4::uuid is null or service_account_id = $4)
         order by id desc
         limit $3 + 1"
    )))
    .bind(tx.workspace())
    .bind(page.before)
    .bind(page.limit)
    .bind(account)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the API keys"))
}

pub(crate) async fn set_expiry(tx: &mut TenantTx, id: ApiKeyId, at: DateTime<Utc>) -> Result<()> {
    sqlx::query("update api_key set expires_at = $3 where workspace_id = $1 and id = $2")
        .bind(tx.workspace())
        .bind(id)
        .bind(at)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot set the API key's end"))
}

pub(crate) async fn revoke(tx: &mut TenantTx, id: ApiKeyId) -> Result<()> {
    sqlx::query("update api_key set revoked_at = now() where workspace_id = $1 and id = $2")
        .bind(tx.workspace())
        .bind(id)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot revoke the API key"))
}
