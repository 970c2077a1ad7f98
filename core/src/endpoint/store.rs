//! The statements of connections and destinations: the same columns in two tables, named by [`End::NOUN`].

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use sqlx::types::Json;
use uuid::Uuid;

use super::{End, Endpoint, SecretState};
use crate::connector::Step;
use crate::db::{TenantTx, failed};
use crate::error::Result;
use crate::page::PageRequest;

const COLUMNS: &str = "id, kind, name, settings, last_check, last_check_at, row_version, created_at, updated_at, \
                       archived_at";

#[derive(sqlx::FromRow)]
pub(crate) struct EndpointRow {
    pub(crate) id: Uuid,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) settings: Value,
    pub(crate) last_check: Option<Json<Vec<Step>>>,
    pub(crate) last_check_at: Option<DateTime<Utc>>,
    pub(crate) row_version: i64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    pub(crate) archived_at: Option<DateTime<Utc>>,
}

impl EndpointRow {
    pub(crate) fn into_endpoint<Id: From<Uuid>>(self, secrets: BTreeMap<String, SecretState>) -> Endpoint<Id> {
        Endpoint {
            id: self.id.into(),
            kind: self.kind,
            name: self.name,
            settings: self.settings,
            secrets,
            last_check: self.last_check.map(|steps| steps.0),
            last_check_at: self.last_check_at,
            row_version: self.row_version,
            created_at: self.created_at,
            updated_at: self.updated_at,
            archived_at: self.archived_at,
        }
    }
}

pub(crate) async fn insert<E: End>(
    tx: &mut TenantTx,
    id: E::Id,
    kind: &str,
    name: &str,
    settings: &Value,
) -> Result<()> {
    let table = E::NOUN;
    sqlx::query(AssertSqlSafe(format!(
        "insert into {table} (workspace_id, id, kind, name, settings)
         values ($1, $2, $3, $4, $5)"
    )))
    .bind(tx.workspace())
    .bind(E::uuid(id))
    .bind(kind)
    .bind(name)
    .bind(settings)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot store it"))
}

pub(crate) async fn get<E: End>(tx: &mut TenantTx, id: E::Id, lock: bool) -> Result<Option<EndpointRow>> {
    let (table, lock) = (E::NOUN, if lock { "for update" } else { "" });
    sqlx::query_as(AssertSqlSafe(format!(
        "select {COLUMNS}
         from {table}
         where workspace_id = $1
           and id = $2
         {lock}"
    )))
    .bind(tx.workspace())
    .bind(E::uuid(id))
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read it"))
}

pub(crate) async fn list<E: End>(tx: &mut TenantTx, page: PageRequest) -> Result<Vec<EndpointRow>> {
    let table = E::NOUN;
    sqlx::query_as(AssertSqlSafe(format!(
        "select {COLUMNS}
         from {table}
         where workspace_id = $1
           and archived_at is null
           and ($2::uuid is null or id < $2)
         order by id desc
         limit $3 + 1"
    )))
    .bind(tx.workspace())
    .bind(page.before)
    .bind(page.limit)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list them"))
}

pub(crate) async fn update<E: End>(tx: &mut TenantTx, id: E::Id, name: &str, settings: &Value) -> Result<()> {
    let table = E::NOUN;
    sqlx::query(AssertSqlSafe(format!(
        "update {table}
         set name = $3, settings = $4, row_version = row_version + 1, updated_at = now()
         where workspace_id = $1
           and id = $2"
    )))
    .bind(tx.workspace())
    .bind(E::uuid(id))
    .bind(name)
    .bind(settings)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot change it"))
}

pub(crate) async fn archive<E: End>(tx: &mut TenantTx, id: E::Id) -> Result<()> {
    let table = E::NOUN;
    sqlx::query(AssertSqlSafe(format!(
        "update {table}
         set archived_at = now(), row_version = row_version + 1, updated_at = now()
         where workspace_id = $1
           and id = $2"
    )))
    .bind(tx.workspace())
    .bind(E::uuid(id))
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot archive it"))
}

pub(crate) async fn count_users<E: End>(tx: &mut TenantTx, id: E::Id) -> Result<i64> {
    let (table, condition) = E::USED_BY;
    sqlx::query_scalar(AssertSqlSafe(format!(
        "select count(*)
         from {table}
         where workspace_id = $1
           and {condition}"
    )))
    .bind(tx.workspace())
    .bind(E::uuid(id))
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot count its users"))
}

pub(crate) async fn set_last_check<E: End>(tx: &mut TenantTx, id: E::Id, steps: &[Step]) -> Result<()> {
    let table = E::NOUN;
    // The row's version stays: a test is no change that an `ETag` should see.
    sqlx::query(AssertSqlSafe(format!(
        "update {table}
         set last_check = $3, last_check_at = now()
         where workspace_id = $1
           and id = $2"
    )))
    .bind(tx.workspace())
    .bind(E::uuid(id))
    .bind(Json(steps))
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot keep what the test found"))
}
