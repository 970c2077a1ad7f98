//! The model's statements.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{FromRow, Row, postgres::PgRow};
use uuid::Uuid;

use super::{Model, ModelVersion};
use crate::connector::{ModelSpec, Schema};
use crate::db::{TenantTx, failed};
use crate::error::Result;
use crate::id::{ConnectionId, ModelId, ModelVersionId};
use crate::page::PageRequest;

impl FromRow<'_, PgRow> for Model {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            connection_id: row.try_get("connection_id")?,
            name: row.try_get("name")?,
            version: row.try_get("version")?,
            spec: row.try_get::<Json<ModelSpec>, _>("spec")?.0,
            primary_key: row.try_get("primary_key")?,
            columns: row.try_get::<Option<Json<Schema>>, _>("columns")?.map(|columns| columns.0),
            row_version: row.try_get("row_version")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
            archived_at: row.try_get("archived_at")?,
            version_id: row.try_get("version_id")?,
        })
    }
}

pub(crate) async fn insert(tx: &mut TenantTx, id: ModelId, connection: ConnectionId, name: &str) -> Result<()> {
    sqlx::query("insert into model (workspace_id, id, connection_id, name) values ($1, $2, $3, $4)")
        .bind(tx.workspace())
        .bind(id)
        .bind(connection)
        .bind(name)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot store the model"))
}

pub(crate) async fn insert_version(
    tx: &mut TenantTx,
    id: ModelId,
    version: i32,
    spec: &ModelSpec,
    primary_key: &[String],
    author: Option<Uuid>,
) -> Result<()> {
    sqlx::query(
        "insert into model_version (workspace_id, id, model_id, version, spec, primary_key, created_by)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(tx.workspace())
    .bind(ModelVersionId::new())
    .bind(id)
    .bind(version)
    .bind(Json(spec))
    .bind(primary_key)
    .bind(author)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot store the model's version"))
}

pub(crate) async fn get(tx: &mut TenantTx, id: ModelId, lock: bool) -> Result<Option<Model>> {
    // Two constant texts rather than one put together: each is planned once and read whole.
    const READ: &str = "select m.id, m.connection_id, m.name, m.current_version as version, v.id as version_id, v.spec,
                v.primary_key, v.columns, m.row_version, m.created_at, m.updated_at, m.archived_at
         from model as m
         join model_version as v
           on v.workspace_id = m.workspace_id and v.model_id = m.id and v.version = m.current_version
         where m.workspace_id = $1
           and m.id = $2";
    const LOCK: &str = "select m.id, m.connection_id, m.name, m.current_version as version, v.id as version_id, v.spec,
                v.primary_key, v.columns, m.row_version, m.created_at, m.updated_at, m.archived_at
         from model as m
         join model_version as v
           on v.workspace_id = m.workspace_id and v.model_id = m.id and v.version = m.current_version
         where m.workspace_id = $1
           and m.id = $2
         for update of m";
    sqlx::query_as(if lock { LOCK } else { READ })
        .bind(tx.workspace())
        .bind(id)
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("cannot read the model"))
}

pub(crate) async fn list(tx: &mut TenantTx, page: PageRequest) -> Result<Vec<Model>> {
    sqlx::query_as(
        "select m.id, m.connection_id, m.name, m.current_version as version, v.id as version_id, v.spec,
                v.primary_key, v.columns, m.row_version, m.created_at, m.updated_at, m.archived_at
         from model as m
         join model_version as v
           on v.workspace_id = m.workspace_id and v.model_id = m.id and v.version = m.current_version
         where m.workspace_id = $1
           and m.archived_at is null
           and ($2::uuid is null or m.id < $2)
         order by m.id desc
         limit $3 + 1",
    )
    .bind(tx.workspace())
    .bind(page.before)
    .bind(page.limit)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the models"))
}

type VersionRow = (i32, Json<ModelSpec>, Vec<String>, Option<Json<Schema>>, DateTime<Utc>);

pub(crate) async fn versions(tx: &mut TenantTx, id: ModelId) -> Result<Vec<ModelVersion>> {
    let rows: Vec<VersionRow> = sqlx::query_as(
        "select version, spec, primary_key, columns, created_at
         from model_version
         where workspace_id = $1
           and model_id = $2
         order by version desc
         limit 200",
    )
    .bind(tx.workspace())
    .bind(id)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the model's versions"))?;
    Ok(rows
        .into_iter()
        .map(|(version, spec, primary_key, columns, created_at)| ModelVersion {
            version,
            spec: spec.0,
            primary_key,
            columns: columns.map(|columns| columns.0),
            created_at,
        })
        .collect())
}

pub(crate) async fn update(tx: &mut TenantTx, id: ModelId, name: &str, version: i32) -> Result<()> {
    sqlx::query(
        "update model
         set name = $3, current_version = $4, row_version = row_version + 1, updated_at = now()
         where workspace_id = $1
           and id = $2",
    )
    .bind(tx.workspace())
    .bind(id)
    .bind(name)
    .bind(version)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot change the model"))
}

pub(crate) async fn archive(tx: &mut TenantTx, id: ModelId) -> Result<()> {
    sqlx::query(
        "update model
         set archived_at = now(), row_version = row_version + 1, updated_at = now()
         where workspace_id = $1
           and id = $2",
    )
    .bind(tx.workspace())
    .bind(id)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot archive the model"))
}

pub(crate) async fn count_syncs(tx: &mut TenantTx, id: ModelId) -> Result<i64> {
    sqlx::query_scalar("select count(*) from sync where workspace_id = $1 and model_id = $2 and state <> 'archived'")
        .bind(tx.workspace())
        .bind(id)
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot count the model's syncs"))
}

pub(crate) async fn set_columns(tx: &mut TenantTx, id: ModelVersionId, schema: &Schema, key: &[String]) -> Result<()> {
    sqlx::query(
        "update model_version
         set columns = $3, primary_key = $4
         where workspace_id = $1
           and id = $2",
    )
    .bind(tx.workspace())
    .bind(id)
    .bind(Json(schema))
    .bind(key)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot keep the model's columns"))
}
