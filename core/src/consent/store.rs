//! The consent's statements.

use chrono::{DateTime, Utc};

use crate::db::{Db, TenantTx, failed};
use crate::error::Result;
use crate::id::{ConnectionId, ConsentId, WorkspaceId};

pub(crate) async fn insert(
    tx: &mut TenantTx,
    id: ConsentId,
    connection: ConnectionId,
    state_hash: &[u8],
    redirect_url: &str,
    expires_at: DateTime<Utc>,
) -> Result<()> {
    sqlx::query(
        "insert into consent (workspace_id, id, connection_id, state_hash, redirect_url, expires_at)
         values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(tx.workspace())
    .bind(id)
    .bind(connection)
    .bind(state_hash)
    .bind(redirect_url)
    .bind(expires_at)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot ask for the consent"))
}

/// The consents of a connection, and those of the workspace that nobody came back from in time.
pub(crate) async fn to_forget(tx: &mut TenantTx, connection: ConnectionId) -> Result<Vec<ConsentId>> {
    sqlx::query_scalar("select id from consent where workspace_id = $1 and (connection_id = $2 or expires_at < now())")
        .bind(tx.workspace())
        .bind(connection)
        .fetch_all(tx.conn())
        .await
        .map_err(failed("cannot look for consents"))
}

pub(crate) async fn take(db: &Db, state_hash: &[u8]) -> Result<Option<(WorkspaceId, ConsentId, ConnectionId)>> {
    sqlx::query_as("select workspace_id, id, connection_id from take_consent($1)")
        .bind(state_hash)
        .fetch_optional(db.dispatcher())
        .await
        .map_err(failed("cannot look for the consent"))
}

pub(crate) async fn redirect_url(tx: &mut TenantTx, id: ConsentId) -> Result<Option<String>> {
    sqlx::query_scalar("select redirect_url from consent where workspace_id = $1 and id = $2")
        .bind(tx.workspace())
        .bind(id)
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("cannot read the consent"))
}

pub(crate) async fn delete(tx: &mut TenantTx, id: ConsentId) -> Result<()> {
    sqlx::query("delete from consent where workspace_id = $1 and id = $2")
        .bind(tx.workspace())
        .bind(id)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot forget the consent"))
}
